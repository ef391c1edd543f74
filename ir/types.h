/* Types of the IR: elements, symbolic dimensions, quantization descriptors.
 *
 * Dims, quants and types are interned in their graph: equal means the same pointer. */
#ifndef NB_TYPES_H
#define NB_TYPES_H

#include "ir/support/diag.h"

typedef struct nb_graph nb_graph;
typedef struct nb_value nb_value;

/* ---- elements ------------------------------------------------------------------------------ */

typedef enum nb_elem {
#define ELEM(name, text, bits, class, number) NB_##name,
#include "ir/elems.def"
#undef ELEM
    NB_ELEM_COUNT
} nb_elem;

typedef enum nb_elem_class {
    NB_CLASS_FLOAT,
    NB_CLASS_INT,
    NB_CLASS_UINT,
    NB_CLASS_BOOL
} nb_elem_class;

typedef struct nb_elem_info {
    const char *text;
    int bits;
    nb_elem_class class_;
    int onnx;   /* number of ONNX, 0 when it has no such type */
    int number; /* the same, or Nibble's own */
} nb_elem_info;

/* The first number of types that ONNX lacks. */
#define NB_ELEM_OWN 1000

extern const nb_elem_info nb_elems[NB_ELEM_COUNT];

/* NB_ELEM_COUNT when there is none. */
nb_elem nb_elem_from_text(const char *text, size_t length);
nb_elem nb_elem_from_onnx(int onnx);
nb_elem nb_elem_from_number(int number);
nb_elem nb_elem_integer(int bits, bool is_signed);
static inline bool nb_elem_is_float(nb_elem e) { return nb_elems[e].class_ == NB_CLASS_FLOAT; }
static inline bool nb_elem_is_integer(nb_elem e) {
    return nb_elems[e].class_ == NB_CLASS_INT || nb_elems[e].class_ == NB_CLASS_UINT;
}
/* May floats of this type be codes, value * scale? Those of at most 8 bits but f8e8m0. */
static inline bool nb_elem_is_code(nb_elem e) {
    return nb_elem_is_float(e) && nb_elems[e].bits <= 8 && e != NB_F8E8M0;
}
/* Smallest and largest value of an integer element of up to 63 bits (i64 included). */
int64_t nb_elem_min(nb_elem e);
int64_t nb_elem_max(nb_elem e);
/* Bytes of `count` packed elements; false on overflow. */
bool nb_elem_bytes_of(nb_elem e, int64_t count, int64_t *bytes);
/* The raw bits of element i of packed data. */
uint64_t nb_elem_get(nb_elem e, const void *data, int64_t i);
void nb_elem_put(nb_elem e, void *data, int64_t i, uint64_t bits);
/* What an address of elements must be a multiple of; 1 for those smaller than a byte. */
size_t nb_elem_alignment(nb_elem e);

/* ---- dimensions ---------------------------------------------------------------------------- */

/* A symbolic dimension: a name and the range of values it may have. */
typedef struct nb_symbol {
    const char *name;
    int64_t min, max; /* inclusive; max INT64_MAX = unbounded */
    uint32_t index;   /* position in the graph's list */
    bool counted;     /* no input tells it: a `bind` says it in the run, to what follows */
} nb_symbol;

typedef enum nb_dim_kind {
    NB_DIM_CONST,
    NB_DIM_SYMBOL,
    NB_DIM_ADD,
    NB_DIM_MUL,
    NB_DIM_FLOORDIV,
    NB_DIM_CEILDIV,
    NB_DIM_MIN,
    NB_DIM_MAX
} nb_dim_kind;

/* An integer expression over symbols, in a canonical form: sums are of products, sorted, with
 * constants gathered, so that P+S-P is S and equal expressions are usually the same pointer. */
typedef struct nb_dim {
    nb_dim_kind kind;
    uint32_t id;             /* order of creation in the graph */
    uint32_t nodes, nest;    /* size as a tree, and calls within calls: both are bounded */
    int64_t value;           /* NB_DIM_CONST */
    const nb_symbol *symbol; /* NB_DIM_SYMBOL */
    const struct nb_dim *a, *b;
} nb_dim;

const nb_dim *nb_dim_const(nb_graph *g, int64_t value);
const nb_dim *nb_dim_symbol(nb_graph *g, const nb_symbol *symbol);
const nb_dim *nb_dim_add(nb_graph *g, const nb_dim *a, const nb_dim *b);
const nb_dim *nb_dim_sub(nb_graph *g, const nb_dim *a, const nb_dim *b);
const nb_dim *nb_dim_mul(nb_graph *g, const nb_dim *a, const nb_dim *b);
const nb_dim *nb_dim_floordiv(nb_graph *g, const nb_dim *a, const nb_dim *b);
const nb_dim *nb_dim_ceildiv(nb_graph *g, const nb_dim *a, const nb_dim *b);
const nb_dim *nb_dim_min(nb_graph *g, const nb_dim *a, const nb_dim *b);
const nb_dim *nb_dim_max(nb_graph *g, const nb_dim *a, const nb_dim *b);

static inline bool nb_dim_is_const(const nb_dim *d) { return d->kind == NB_DIM_CONST; }
static inline bool nb_dim_is(const nb_dim *d, int64_t value) {
    return d->kind == NB_DIM_CONST && d->value == value;
}
/* What stands for an expression that overflows, divides by what is never positive, or has too many
 * terms: it has no value and no known bounds, it equals itself, and whatever is computed with it is
 * the same. No op has it in its type or attributes (nb_infer refuses it). */
static inline bool nb_dim_is_invalid(const nb_dim *d) {
    return d->kind == NB_DIM_MUL && d->a->kind == NB_DIM_CONST && d->b->kind == NB_DIM_CONST;
}
/* Value for given symbol values (indexed by nb_symbol.index); false on overflow or division by 0.
 */
bool nb_dim_eval(const nb_dim *d, const int64_t *symbols, int64_t *out);
/* Bounds from the symbols' ranges, saturating at INT64_MIN/MAX. */
void nb_dim_range(const nb_dim *d, int64_t *min, int64_t *max);
/* Does it hold a counted symbol: one of `but` (by index) excepted, which may be NULL? */
bool nb_dim_is_counted(const nb_dim *d, const bool *but);
/* Is it at least as large when counted symbols are larger? Memory is planned for what they can be
 * at most, so that every size of a compiled model must be such. */
bool nb_dim_rises(const nb_dim *d);
/* `d` with every occurrence of `symbol` replaced. */
const nb_dim *nb_dim_substitute(nb_graph *g, const nb_dim *d, const nb_symbol *symbol,
                                const nb_dim *by);
/* "P+S-1", "4*B", "floordiv(N,2)", "max(A,B)"; symbols that are no plain words in backquotes. */
const char *nb_dim_text(nb_arena *arena, const nb_dim *d);

/* ---- quantization -------------------------------------------------------------------------- */

struct nb_type;

typedef enum nb_granularity {
    NB_PER_TENSOR, /* one scale */
    NB_PER_AXIS,   /* one scale for each index of `axis` */
    NB_PER_GROUP,  /* one for each run of `group` indices along `axis`; the last may be shorter */
    NB_PER_TOKEN,  /* one for each row of the last axis, computed when the value is made */
    NB_PER_BLOCK   /* as NB_PER_TOKEN, for each run of `group` along the last axis */
} nb_granularity;

/* How codes stand for real numbers: real = (code - zero) * scale of integers, and of small floats
 * value(code) * scale; with minima, + minimum.
 *
 * Scales of NB_PER_TENSOR are inline (`scale`, `zero`) or rank-0 constants; of NB_PER_AXIS a
 * constant of shape [dims[axis]]; of NB_PER_GROUP a constant whose shape is the tensor's with
 * dims[axis] replaced by ceil(dims[axis] / group). Zero points have the same shape and the
 * storage's element type; minima take the place of zero points, and are inline (`minimum`) or of
 * that shape. Scales and minima are f32, f16, or codes with a descriptor of their own (Q4_K and
 * Q6_K of GGUF, double quantization of QLoRA), whose scales are plain. Scales of small floats may
 * also be small floats (f8e8m0 too; MXFP4, NVFP4). All but f32 are multiplied by `scale`.
 * NB_PER_TOKEN and NB_PER_BLOCK are symmetric, and their scales travel with the codes: a value of
 * such a type holds both. */
typedef struct nb_quant {
    const char *name; /* printed as #name; unique in the graph */
    nb_elem storage;
    bool narrow; /* codes exclude the smallest (i8: -127..127), so that negation is closed */
    nb_granularity granularity;
    int axis;
    int64_t group;
    float scale;      /* used when scales is NULL (NB_PER_TENSOR), or multiplies those not f32 */
    float minimum;    /* used when minima is NULL; 0: none */
    int64_t zero;     /* used when zeros is NULL */
    nb_value *scales; /* a constant, or NULL */
    nb_value *zeros;  /* a constant, or NULL */
    nb_value *minima; /* a constant, or NULL */
    /* Largest |code| a dynamic quantizer produces: 127 (i8), 32639 (i16, so that both bytes of
     * the two-plane form are signed; QUANTIZATION of activations, README "Numbers"). */
    int64_t amax_code;
} nb_quant;

/* The interned descriptor equal to `*q` (names aside); a new one gets a unique name made from
 * `hint`. Returns NULL and records an error when the members do not fit together. */
const nb_quant *nb_quant_intern(nb_graph *g, const nb_quant *q, const char *hint, nb_diags *diags);
/* May codes be multiplied by this: finite and not 0? Negative ones let the sign with one code more
 * be the one that needs it. */
bool nb_is_scale(float scale);
/* Scale and minimum number i of a descriptor that is not dynamic (codes.c). */
float nb_quant_scale(const nb_quant *q, int64_t i);
float nb_quant_minimum(const nb_quant *q, int64_t i);
static inline bool nb_quant_has_minima(const nb_quant *q) { return q->minima || q->minimum != 0; }
/* May its scale number i be this: as nb_is_scale, but those in f16 and codes may be 0, as that of a
 * block of zeros in GGUF is. */
bool nb_quant_takes_scale(const nb_quant *q, float scale);
/* Are its scales other than f32: multiplied by `scale`? */
bool nb_quant_has_small_scales(const nb_quant *q);
/* Why the descriptor's axis and scales do not fit a tensor of that shape, or NULL. */
const char *nb_quant_misfit(nb_graph *g, const nb_quant *q, const struct nb_type *t);
/* Range of codes. */
int64_t nb_quant_min(const nb_quant *q);
int64_t nb_quant_max(const nb_quant *q);

/* What is taken off codes as signed integers: the zero point, less the 128 that makes u8 signed. */
int64_t nb_quant_offset(const nb_quant *q);

/* Why activations of descriptor `a` and a matrix [K,N] of descriptor `b` do not multiply as
 * integers (NUMBERS.md, qmatmul), or NULL. The one place for this rule: shape inference,
 * fuse-dequant, evaluator and code generation ask it. */
const char *nb_product_obstacle(const nb_quant *a, const nb_quant *b, int64_t K);

/* The same of depthwise, whose kernel of descriptor `w` has so many positions and its channels
 * along axis `channels` (NUMBERS.md, qdepthwise). */
const char *nb_depthwise_obstacle(const nb_quant *x, const nb_quant *w, int channels,
                                  int64_t positions);

/* ---- types --------------------------------------------------------------------------------- */

#define NB_MAX_RANK 8

typedef struct nb_type {
    nb_elem elem;          /* quant->storage when quantized */
    const nb_quant *quant; /* or NULL */
    int rank;
    uint32_t id;
    const nb_dim *dims[NB_MAX_RANK];
} nb_type;

const nb_type *nb_type_intern(nb_graph *g, nb_elem elem, const nb_quant *quant, int rank,
                              const nb_dim *const *dims);
/* The same shape with another element, or another shape with the same element and quant. */
const nb_type *nb_type_with_elem(nb_graph *g, const nb_type *type, nb_elem elem);
const nb_type *nb_type_with_quant(nb_graph *g, const nb_type *type, const nb_quant *quant);
const nb_type *nb_type_with_dims(nb_graph *g, const nb_type *type, int rank,
                                 const nb_dim *const *dims);
/* Number of elements as an expression, and as a number when all dims are constant (else false). */
const nb_dim *nb_type_count(nb_graph *g, const nb_type *type);
bool nb_type_static_count(const nb_type *type, int64_t *count);
/* "f32[B,4]", "#w[4,2]". */
const char *nb_type_text(nb_arena *arena, const nb_type *type);

#endif
