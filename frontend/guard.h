/* Checks the wire bytes of an ONNX file before protobuf-c sees them.
 *
 * protobuf-c has no limit on nesting, is quadratic on repeated singular messages, loses embedded
 * NULs, allocates a hundred times the size of a file of empty elements, and copies all bytes. The
 * guard walks the bytes once, without recursion, and refuses what protobuf-c handles badly. It also
 * makes a skeleton: the same messages with each large raw_data replaced by a token that says where
 * the bytes stand in the file, so that weights are never copied. */
#ifndef NB_GUARD_H
#define NB_GUARD_H

#include "ir/support/diag.h"

/* raw_data longer than this is replaced by a token of NB_TOKEN_SIZE bytes: offset and length as
 * 64-bit numbers of this machine, then zeros. No other raw_data of that size is left. */
#define NB_TOKEN_ABOVE 64
#define NB_TOKEN_SIZE  65

typedef struct nb_guard_limit {
    const char *what;
    uint64_t most;
} nb_guard_limit;

/* The limits, for documentation and tests; ends with a NULL name. */
extern const nb_guard_limit nb_guard_limits[];

/* One pass over the bytes of a ModelProto. NB_MALFORMED or NB_LIMIT with the byte offset; else the
 * skeleton, in memory of `arena`. `name` is the file's, for messages. */
nb_status nb_guard(const uint8_t *bytes, size_t size, const char *name, nb_arena *arena,
                   nb_diags *diags, uint8_t **skeleton, size_t *skeleton_size);
/* The same for a file that is one TensorProto. */
nb_status nb_guard_tensor(const uint8_t *bytes, size_t size, const char *name, nb_arena *arena,
                          nb_diags *diags, uint8_t **skeleton, size_t *skeleton_size);

#endif
