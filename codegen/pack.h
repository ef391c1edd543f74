/* The weights of a compiled model: one blob, 64-byte aligned pieces, each constant in the layout
 * its kernel wants. Packing happens here, at compile time, once; nothing is repacked at load. */
#ifndef NB_PACK_H
#define NB_PACK_H

#include "codegen/lower.h"

#include <stdio.h>

/* Where packed bytes go: a file or a buffer. Errors stick and are seen at the end. */
typedef struct nb_sink {
    void (*write)(struct nb_sink *sink, const void *bytes, size_t size);
    void *user;
    int64_t written;
    bool failed;
} nb_sink;
void nb_sink_write(nb_sink *sink, const void *bytes, size_t size);
void nb_sink_zeros(nb_sink *sink, int64_t size);

/* How a constant lies in memory. */
struct nb_layout {
    const char *name; /* constants are shared when name, type and data are the same */
    /* Scales and zeros of the constant's quant descriptor are inside: no copy of their own. */
    bool holds_scales;
    /* Size in bytes; false on overflow. */
    bool (*size)(const nb_value *constant, int64_t *bytes);
    /* Writes exactly that many bytes. Padding is zeros. `arena` is for scratch. */
    void (*write)(const nb_value *constant, nb_arena *arena, nb_sink *sink);
    /* What else the bytes depend on: the op that uses the constant. NULL: nothing. */
    const char *(*key)(nb_arena *arena, const nb_value *constant);
};
/* The constant's own bytes. */
extern const nb_layout nb_layout_plain;
/* Codes as the f32 they stand for. */
extern const nb_layout nb_layout_floats;

typedef struct nb_pack nb_pack;

/* Assigns offsets to everything that the ops of `g` refer to. */
nb_status nb_pack_create(const nb_graph *g, const cg_cpu *cpu, nb_arena *arena, nb_diags *diags,
                         nb_pack **out);
/* Bytes, and their nb_weights_hash (computed by running over all of them once). */
int64_t nb_pack_size(const nb_pack *pack);
uint64_t nb_pack_hash(nb_pack *pack);
/* Offset of a constant in a layout; it must have been found by nb_pack_create. */
int64_t nb_pack_offset(const nb_pack *pack, const nb_value *constant, const nb_layout *layout);
/* Streams all bytes. */
nb_status nb_pack_write(const nb_pack *pack, FILE *file, nb_diags *diags);
/* All bytes in memory: nb_pack_size of them at `data`. */
void nb_pack_copy(const nb_pack *pack, unsigned char *data);

#endif
