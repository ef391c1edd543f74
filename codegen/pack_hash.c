/* nb_weights_hash for the packer. */
#include "codegen/pack_hash.h"
#include "runtime/hash.h"

_Static_assert(sizeof(nb_hash) <= sizeof(nb_hasher), "nb_hasher holds the runtime's state");
_Static_assert(_Alignof(nb_hash) <= _Alignof(nb_hasher), "nb_hasher holds the runtime's state");

void nb_hasher_start(nb_hasher *hasher) { nb_hash_start((nb_hash *)(void *)hasher); }
void nb_hasher_add(nb_hasher *hasher, const void *data, size_t size) {
    nb_hash_add((nb_hash *)(void *)hasher, data, size);
}
uint64_t nb_hasher_end(const nb_hasher *hasher) {
    return nb_hash_end((const nb_hash *)(const void *)hasher);
}
