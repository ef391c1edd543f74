/* The hash that hash.h defines. Free of the rest of the runtime, so the compiler uses it as well.
 */
#include "runtime/hash.h"

#include <string.h>

#define K1    UINT64_C(0x9e3779b97f4a7c15)
#define K2    UINT64_C(0xd6e8feb86659fd93)
#define K3    UINT64_C(0xa0761d6478bd642f)
#define BLOCK 32u

static uint64_t rotl(uint64_t x, int n) { return x << n | x >> (64 - n); }

/* Spelled out so that the result does not depend on the machine; compilers make it one load. */
static uint64_t load_word(const unsigned char *p) {
    return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24 |
           (uint64_t)p[4] << 32 | (uint64_t)p[5] << 40 | (uint64_t)p[6] << 48 |
           (uint64_t)p[7] << 56;
}

static void add_blocks(uint64_t lane[4], const unsigned char *p, size_t count) {
    uint64_t a = lane[0], b = lane[1], c = lane[2], d = lane[3];
    for (; count > 0; count--, p += BLOCK) {
        a = rotl(a + load_word(p) * K1, 31) * K2;
        b = rotl(b + load_word(p + 8) * K1, 31) * K2;
        c = rotl(c + load_word(p + 16) * K1, 31) * K2;
        d = rotl(d + load_word(p + 24) * K1, 31) * K2;
    }
    lane[0] = a, lane[1] = b, lane[2] = c, lane[3] = d;
}

void nb_hash_start(nb_hash *hash) {
    memset(hash, 0, sizeof *hash);
    for (unsigned i = 0; i < 4; i++) hash->lane[i] = i * K1 + K3;
}

void nb_hash_add(nb_hash *hash, const void *data, size_t size) {
    if (size == 0) return;
    const unsigned char *p = data;
    size_t have = (size_t)(hash->length % BLOCK);
    hash->length += size;
    if (have > 0) {
        size_t part = size < BLOCK - have ? size : BLOCK - have;
        memcpy(hash->tail + have, p, part);
        if (have + part < BLOCK) return;
        add_blocks(hash->lane, hash->tail, 1);
        p += part;
        size -= part;
    }
    add_blocks(hash->lane, p, size / BLOCK);
    memcpy(hash->tail, p + size / BLOCK * BLOCK, size % BLOCK);
}

uint64_t nb_hash_end(const nb_hash *hash) {
    uint64_t lane[4];
    memcpy(lane, hash->lane, sizeof lane);
    size_t have = (size_t)(hash->length % BLOCK);
    if (have > 0) {
        unsigned char last[BLOCK] = {0};
        memcpy(last, hash->tail, have);
        add_blocks(lane, last, 1);
    }
    uint64_t h = hash->length * K3;
    for (int i = 0; i < 4; i++) h = rotl(h ^ (lane[i] ^ lane[i] >> 29) * K2, 27) * K1 + K3;
    h = (h ^ h >> 32) * K2;
    return h ^ h >> 29;
}

uint64_t nb_weights_hash(const void *data, size_t size) {
    nb_hash hash;
    nb_hash_start(&hash);
    nb_hash_add(&hash, data, size);
    return nb_hash_end(&hash);
}
