/* Private to frontend/: GGUF files, version 2 and 3, little-endian (ggml's docs/gguf.md).
 *
 *   "GGUF" version counts | key, type, value ... | name, dims, type, offset ... | padding | tensors
 *
 * Dimensions stand innermost first. Nothing here trusts the file: every length is compared with
 * what is left of it, tensors must lie within it, apart, and where the alignment says. */
#ifndef NB_GGUF_H
#define NB_GGUF_H

#include "ir/ir.h"

enum { NB_GGUF_BLOCK = 256, NB_GGUF_RUNS = 16 };

/* What a block holds. */
typedef struct nb_gguf_block {
    int16_t codes[NB_GGUF_BLOCK];
    int16_t scales[NB_GGUF_RUNS], minima[NB_GGUF_RUNS]; /* codes of them */
    uint16_t scale, minimum;                            /* f16, an addend */
} nb_gguf_block;

/* A layout of blocks. */
typedef struct nb_gguf_form {
    nb_elem codes, scales; /* scales F16: one a block, no codes */
    int64_t run;           /* elements that share a scale */
    bool minima;
    void (*read)(const uint8_t *from, nb_gguf_block *to);
    void (*write)(const nb_gguf_block *from, uint8_t *to); /* to: zeros */
} nb_gguf_form;

/* How ggml keeps numbers in blocks; which of them can be read is a row of gguf_blocks.c. */
typedef struct nb_gguf_type {
    uint32_t number; /* ggml_type */
    const char *name;
    int64_t count, bytes;     /* of a block */
    const nb_gguf_form *form; /* NULL: floats */
} nb_gguf_type;

/* NULL when there is none of that number. */
const nb_gguf_type *nb_gguf_type_of(uint32_t number);
const nb_gguf_type *nb_gguf_type_named(const char *name);

typedef struct nb_gguf_tensor {
    const char *name;
    const nb_gguf_type *type;
    int rank;
    int64_t dims[4]; /* innermost first; 1 beyond the rank */
    const uint8_t *data;
    int64_t bytes, offset; /* offset: from the start of the data */
} nb_gguf_tensor;

typedef struct nb_gguf {
    nb_arena *arena; /* goes after the import */
    nb_diags *diags;
    nb_graph *graph;
    const char *name;
    const uint8_t *bytes;
    size_t size, at;
    uint32_t version;
    nb_map values;  /* key -> where its type stands (uint8_t *) */
    nb_map tensors; /* name -> nb_gguf_tensor */
    int64_t alignment;
} nb_gguf;

/* Error at a byte of the file. */
nb_status nb_gguf_error(nb_gguf *f, nb_status status, const char *fmt, ...) NB_PRINTF(3, 4);
/* Header, values and tensors; the arena and members up to `size` are set. */
nb_status nb_gguf_open(nb_gguf *f);

/* Values by key; false when there is none, or (after an error) it has another type. */
bool nb_gguf_text(nb_gguf *f, const char *key, const char **out);
bool nb_gguf_int(nb_gguf *f, const char *key, int64_t *out);
bool nb_gguf_float(nb_gguf *f, const char *key, float *out);

/* The tensor as a constant: f32 of a vector; a matrix [out, in] as it stands, or transposed
 * [in, out]. Codes keep their blocks: groups lie along what was innermost. NULL after an error:
 * the tensor is not there (unless `optional`) or has another shape. */
nb_value *nb_gguf_vector(nb_gguf *f, const char *name, int64_t n, bool optional);
nb_value *nb_gguf_matrix(nb_gguf *f, const char *name, int64_t out, int64_t in, bool transposed);

/* ---- writing ---- */

/* A llama decoder found in a graph: constants by the names of their tensors. Matrices are [in,
 * out], but the embedding. */
typedef struct nb_llama_tensor {
    const char *name;
    nb_value *w;
    bool rows;     /* as it stands: the embedding */
    int64_t turns; /* heads whose halves become neighbours, or 0 */
} nb_llama_tensor;

typedef struct nb_llama {
    NB_VEC(nb_llama_tensor) tensors;
    int64_t layers, width, hidden, heads, groups, head, vocabulary;
    float eps, base;
    float *factors; /* of frequencies, head / 2; NULL: all 1 */
} nb_llama;

/* NB_UNSUPPORTED with the first op that is not a llama decoder's. */
nb_status nb_llama_find(nb_graph *g, nb_arena *arena, nb_diags *diags, nb_llama *out);

/* A graph of the file's decoder. */
nb_status nb_import_gguf(const void *bytes, size_t size, const char *name, nb_arena *arena,
                         nb_diags *diags, nb_graph *g);

#endif
