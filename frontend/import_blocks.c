/* Weights of com.microsoft that are packed in blocks: MatMulNBits, MatMulBnb4,
 * GatherBlockQuantized. They become constants of codes with their scales and zero points in groups,
 * which whatever follows multiplies as integers. */
#include "frontend/quant.h"

#include "ir/codes.h"
#include "ir/minifloat.h"

#include <math.h>
#include <string.h>

typedef nb_blocks blocks;

static nb_status check_bytes(nb_importer *im, const nb_value *v, const char *what, int64_t count) {
    const nb_tensor t = nb_tensor_of_const(v);
    if (nb_tensor_count(&t) == count) return NB_OK;
    nb_node_error(im, NB_MALFORMED, "%s are %s, expected %lld in all", what,
                  nb_type_text(im->arena, v->type), (long long)count);
    nb_help(im->diags, "K, N, block_size and bits say how many there are");
    return NB_MALFORMED;
}

/* What attributes say of a weight of N outputs. */
static blocks read_attributes(nb_importer *im, int64_t N) {
    return (blocks){.K = nb_node_int(im, "K", 0),
                    .N = N,
                    .block = nb_node_int(im, "block_size", 0),
                    .bits = (int)nb_node_int(im, "bits", 4),
                    .step = 1};
}

static nb_status check_sizes(nb_importer *im, blocks *b) {
    if (b->K < 1 || b->N < 1 || b->K > INT32_MAX || b->N > INT32_MAX)
        return nb_node_error(im, NB_MALFORMED, "K is %lld and N %lld", (long long)b->K,
                             (long long)b->N);
    if (b->block < 16 || b->block > INT32_MAX || (b->block & (b->block - 1)) != 0) {
        nb_node_error(im, NB_MALFORMED, "block_size is %lld", (long long)b->block);
        nb_help(im->diags, "blocks have a power of two of at least 16 codes");
        return NB_MALFORMED;
    }
    b->count = nb_ceildiv(b->K, b->block);
    b->row = b->count * b->block;
    return NB_OK;
}

/* Constants of floats, one for each block. */
nb_status nb_block_scales(nb_importer *im, size_t i, int64_t count, nb_tensor *out) {
    nb_value *v = nb_constant_input(im, i, "scales");
    if (!v) return NB_MALFORMED;
    if (!nb_elem_is_float(v->type->elem))
        return nb_node_error(im, NB_MALFORMED, "scales are %s, expected floats",
                             nb_type_text(im->arena, v->type));
    NB_TRY(check_bytes(im, v, "scales", count));
    *out = nb_tensor_of_const(v);
    for (int64_t k = 0; k < count; k++) {
        const double s = nb_tensor_get(out, k);
        if (!isfinite(s) || (s != 0 && !nb_is_scale((float)s)))
            return nb_node_error(im, NB_MALFORMED, "scale %lld is %g", (long long)k, s);
    }
    return NB_OK;
}

/* Zero points in bytes, as many codes to one as fit, or as floats. */
nb_status nb_block_zeros(nb_importer *im, size_t i, int64_t rows, blocks *b) {
    if (!nb_has_input(im, i)) return NB_OK;
    nb_value *v = nb_constant_input(im, i, "zero points");
    if (!v) return NB_MALFORMED;
    const bool packed = v->type->elem == NB_U8;
    if (!packed && !nb_elem_is_float(v->type->elem))
        return nb_node_error(im, NB_MALFORMED, "zero points are %s, expected u8 or floats",
                             nb_type_text(im->arena, v->type));
    const int64_t count = !packed     ? rows * b->count
                          : b->by_row ? nb_ceildiv(rows * b->bits, 8)
                                      : rows * nb_ceildiv(b->count * b->bits, 8);
    NB_TRY(check_bytes(im, v, "zero points", count));
    b->zeros = nb_tensor_of_const(v);
    return NB_OK;
}

static unsigned field(const uint8_t *bytes, int64_t i, int bits) {
    return (unsigned)bytes[i * bits / 8] >> i * bits % 8 & ((1u << bits) - 1);
}

static int64_t row_of(const blocks *b, int64_t n) { return b->first + n * b->step; }

static double scale_of(const blocks *b, int64_t n, int64_t k) {
    return nb_tensor_get(&b->scales, row_of(b, n) * b->count + k);
}

/* Zero point of block k of output n. */
static double zero_of(const blocks *b, int64_t n, int64_t k) {
    const int64_t at = row_of(b, n);
    if (!b->zeros.data) return 1 << (b->bits - 1);
    if (b->zeros.elem != NB_U8) return nb_tensor_get(&b->zeros, at * b->count + k);
    if (b->by_row) return field(b->zeros.data, at, b->bits);
    const int64_t row = nb_ceildiv(b->count * b->bits, 8);
    return field((const uint8_t *)b->zeros.data + at * row, k, b->bits);
}

/* Are all zero points codes? */
static bool zeros_are_codes(const blocks *b) {
    if (!b->zeros.data || b->zeros.elem == NB_U8) return true;
    for (int64_t i = 0; i < b->N * b->count; i++) {
        const double z = zero_of(b, i / b->count, i % b->count);
        if (z != floor(z) || z < 0 || z >= 1 << b->bits) return false;
    }
    return true;
}

/* ---- g_idx ---------------------------------------------------------------------------------- */

/* In which order inputs stand so that those of a block are neighbours, or NULL when blocks are not
 * of their full size. */
static int64_t *order_of(nb_importer *im, const blocks *b) {
    int64_t *first = NB_NEW_ARRAY(im->arena, int64_t, (size_t)b->count + 1),
            *order = NB_NEW_ARRAY(im->arena, int64_t, (size_t)b->K);
    for (int64_t k = 0; k < b->K; k++) first[b->group[k]]++;
    for (int64_t g = 0, at = 0; g < b->count; g++) {
        const int64_t size = first[g];
        if (size != nb_min_i64(b->block, b->K - g * b->block)) return NULL;
        first[g] = at;
        at += size;
    }
    for (int64_t k = 0; k < b->K; k++) order[first[b->group[k]]++] = k;
    return order;
}

static nb_status read_groups(nb_importer *im, size_t i, blocks *b) {
    if (!nb_has_input(im, i)) return NB_OK;
    nb_value *v = nb_constant_input(im, i, "g_idx");
    if (!v) return NB_MALFORMED;
    const nb_tensor t = nb_tensor_of_const(v);
    if (!nb_elem_is_integer(t.elem) || nb_tensor_count(&t) < b->K)
        return nb_node_error(im, NB_MALFORMED, "g_idx is %s, expected i32[%lld]",
                             nb_type_text(im->arena, v->type), (long long)b->K);
    int64_t *group = NB_NEW_ARRAY(im->arena, int64_t, (size_t)b->K);
    bool usual = true;
    for (int64_t k = 0; k < b->K; k++) {
        group[k] = nb_tensor_get_int(&t, k);
        usual = usual && group[k] == k / b->block;
        if (group[k] >= 0 && group[k] < b->count) continue;
        nb_node_error(im, NB_MALFORMED, "g_idx[%lld] is %lld", (long long)k, (long long)group[k]);
        nb_help(im->diags, "an input belongs to one of %lld blocks", (long long)b->count);
        return NB_MALFORMED;
    }
    b->group = usual ? NULL : group;
    return NB_OK;
}

/* ---- constants ------------------------------------------------------------------------------ */

/* What the node's weight becomes: codes [K,N] whose row k is the node's input order[k] (NULL: k).
 */
typedef struct made {
    nb_value *codes;
    nb_quant q;
} made;

/* Block of input k in place `at`, and the row of scales it has. */
static int64_t block_of(const blocks *b, int64_t k) {
    return b->group ? b->group[k] : k / b->block;
}

/* Scales, and zero points or minima: [rows,N], of runs of q.group inputs. A scale of 0 is 1, its
 * codes then are zero points. */
static bool make_scales(nb_importer *im, const blocks *b, const int64_t *order, made *m) {
    const bool whole = m->q.granularity == NB_PER_AXIS;
    const int64_t group = whole ? b->K : m->q.group, rows = nb_ceildiv(b->K, group),
                  shape[2] = {rows, b->N}, *dims = whole ? shape + 1 : shape;
    const int rank = whole ? 1 : 2;
    const bool codes = zeros_are_codes(b), small = b->scales.elem == NB_F16;
    void *scales, *zeros = NULL;
    m->q.scales = nb_new_const(im, "scales", small ? NB_F16 : NB_F32, rank, dims, &scales);
    bool same = codes;
    for (int64_t n = 0; n < b->N && same; n++)
        for (int64_t k = 0; k < b->count && same; k++) same = zero_of(b, n, k) == zero_of(b, 0, 0);
    if (same)
        m->q.zero = (int64_t)zero_of(b, 0, 0);
    else if (codes)
        m->q.zeros = nb_new_const(im, "zeros", b->storage, rank, dims, &zeros);
    else
        m->q.minima = nb_new_const(im, "minima", NB_F32, rank, dims, &zeros);
    if (!m->q.scales || (!same && !zeros)) return false;
    m->q.scale = small ? 1 : 0;
    for (int64_t r = 0; r < rows; r++) {
        const int64_t k = block_of(b, order ? order[r * group] : r * group);
        for (int64_t n = 0; n < b->N; n++) {
            const double s = scale_of(b, n, k), z = zero_of(b, n, k);
            const float used = s == 0 ? 1 : (float)s;
            const int64_t at = r * b->N + n;
            if (small)
                ((uint16_t *)scales)[at] = (uint16_t)nb_float_encode(NB_F16, used);
            else
                ((float *)scales)[at] = used;
            if (m->q.zeros) nb_elem_put(b->storage, zeros, at, (uint64_t)z);
            if (m->q.minima) ((float *)zeros)[at] = s == 0 ? 0 : (float)-z * (float)s;
        }
    }
    return true;
}

static bool make_codes(nb_importer *im, const blocks *b, const int64_t *order, const char *name,
                       made *m) {
    void *data;
    m->codes = nb_new_const(im, name, b->storage, 2, (const int64_t[]){b->K, b->N}, &data);
    for (int64_t n = 0; m->codes && n < b->N; n++) {
        const int64_t from = row_of(b, n) * b->row;
        int64_t last = -1;
        bool none = false;
        unsigned zero = 0;
        for (int64_t i = 0; i < b->K; i++) {
            const int64_t k = order ? order[i] : i, g = block_of(b, k);
            if (g != last) {
                none = scale_of(b, n, g) == 0;
                zero = none && !m->q.minima ? (unsigned)zero_of(b, n, g) : 0;
                last = g;
            }
            nb_elem_put(b->storage, data, i * b->N + n,
                        none ? zero : field(b->codes, from + k, b->bits));
        }
    }
    return m->codes != NULL;
}

/* Inputs of a block that cannot be brought together have a scale each: `scattered`. */
static nb_value *make_weight(nb_importer *im, const blocks *b, const int64_t *order, bool scattered,
                             const char *name, made *m) {
    const bool whole = b->by_row;
    *m = (made){.q = {.storage = b->storage,
                      .axis = whole ? 1 : 0,
                      .granularity = whole ? NB_PER_AXIS : NB_PER_GROUP,
                      .group = whole       ? 0
                               : scattered ? 1
                                           : b->block}};
    if (!make_scales(im, b, order, m) || !make_codes(im, b, order, name, m)) return NULL;
    return nb_dequantized_const(im, m->codes, &m->q);
}

nb_value *nb_blocks_weight(nb_importer *im, const blocks *b, const char *name) {
    made m;
    return make_weight(im, b, NULL, false, name, &m);
}

/* x W, + bias; x in `block`s of i8 if it is asked for and the weights multiply so. NULL after an
 * error. */
static nb_value *product(nb_importer *im, nb_value *x, nb_value *w, const nb_quant *q, bool bytes,
                         const int64_t *order, nb_value *bias) {
    if (!x || !w) return NULL;
    const nb_elem elem = x->type->elem;
    if (!nb_elem_is_float(elem) || x->type->rank < 1) {
        nb_node_error(im, NB_MALFORMED, "takes floats, found %s", nb_type_text(im->arena, x->type));
        return NULL;
    }
    const int last = x->type->rank - 1;
    if (nb_unify(im, x->type->dims[last], w->type->dims[0]) != NB_OK) return NULL;
    if (elem != NB_F32) x = nb_cast(&im->b, x, NB_F32);
    if (order) {
        const nb_value *d = w; /* as many as the matrix has rows */
        x = nb_take(im, x, nb_const_i64(im->g, "order", 1, &d->type->dims[0]->value, order), last);
    }
    if (bytes && !nb_quant_has_minima(q)) {
        const nb_quant act = {.storage = NB_I8,
                              .narrow = true,
                              .granularity = NB_PER_BLOCK,
                              .group = q->group,
                              .amax_code = 127};
        nb_begin(&im->b, NB_OP_quantize);
        nb_arg(&im->b, x);
        nb_set_quant(&im->b, "to", nb_quant_intern(im->g, &act, "act_i8", im->diags));
        x = nb_unary(&im->b, NB_OP_dequantize, nb_end(&im->b));
    }
    nb_value *y = nb_multiply(im, x, w);
    if (bias && bias->type->elem != NB_F32) bias = nb_cast(&im->b, bias, NB_F32);
    if (bias) y = y ? nb_combine(im, NB_OP_add, y, bias) : NULL;
    return y && elem != NB_F32 ? nb_cast(&im->b, y, elem) : y;
}

/* ---- operators ------------------------------------------------------------------------------ */

/* Weights, scales and zero points of MatMulNBits at these inputs; K and N are in `b`. */
static nb_status read_nbits(nb_importer *im, size_t weight, size_t scales, size_t zeros,
                            blocks *b) {
    NB_TRY(check_sizes(im, b));
    if (b->bits != 2 && b->bits != 4 && b->bits != 8)
        return nb_node_error(im, NB_UNSUPPORTED, "weights of %d bits", b->bits);
    b->storage = nb_elem_integer(b->bits, false);
    nb_value *w = nb_constant_input(im, weight, "the weight");
    if (!w) return NB_MALFORMED;
    if (w->type->elem != NB_U8)
        return nb_node_error(im, NB_MALFORMED, "the weight is %s, expected u8",
                             nb_type_text(im->arena, w->type));
    NB_TRY(check_bytes(im, w, "bytes of the weight", b->N * b->count * (b->block * b->bits / 8)));
    b->codes = w->blob->data;
    NB_TRY(nb_block_scales(im, scales, b->N * b->count, &b->scales));
    return nb_block_zeros(im, zeros, b->N, b);
}

/* Attribute accuracy_level: are activations rounded to bytes? */
static nb_status read_level(nb_importer *im, bool *bytes) {
    const int64_t level = nb_node_int(im, "accuracy_level", 0);
    *bytes = level == 4;
    if (level >= 0 && level <= 4) return NB_OK;
    return nb_node_error(im, NB_MALFORMED, "accuracy_level is %lld, expected 0 to 4",
                         (long long)level);
}

nb_value *nb_nbits_product(nb_importer *im, nb_value *x, size_t weight, size_t bias, int64_t N) {
    blocks b = read_attributes(im, N);
    bool bytes;
    made m;
    if (read_level(im, &bytes) != NB_OK ||
        read_nbits(im, weight, weight + 1, SIZE_MAX, &b) != NB_OK)
        return NULL;
    nb_value *w = make_weight(im, &b, NULL, false, im->node->input[weight], &m);
    return product(im, x, w, &m.q, bytes, NULL,
                   nb_has_input(im, bias) ? nb_node_input(im, bias) : NULL);
}

nb_status nb_import_matmul_nbits(nb_importer *im) {
    blocks b = read_attributes(im, nb_node_int(im, "N", 0));
    bool bytes;
    made m;
    if (nb_node_int(im, "weight_prepacked", 0))
        return nb_node_error(im, NB_UNSUPPORTED, "weights packed for a GPU are not supported");
    NB_TRY(read_level(im, &bytes));
    NB_TRY(read_nbits(im, 1, 2, 3, &b));
    NB_TRY(read_groups(im, 4, &b));
    nb_value *x = nb_node_input(im, 0), *bias = nb_has_input(im, 5) ? nb_node_input(im, 5) : NULL;
    const int64_t *order = b.group ? order_of(im, &b) : NULL;
    const bool scattered = b.group && !order;
    nb_value *w = make_weight(im, &b, order, scattered, im->node->input[1], &m);
    if (!x || !w) return NB_MALFORMED;
    return nb_node_output(im, 0, product(im, x, w, &m.q, bytes && !scattered, order, bias));
}

/* FP4 of bitsandbytes, of which code 1 is no f4e2m1. */
static const float fp4[8] = {0,    5.208333333e-03F, 0.66666667F, 1, 0.33333333F,
                             0.5F, 0.16666667F,      0.25F};

/* The first of two codes is in the high half. */
static unsigned high_first(const uint8_t *bytes, int64_t i) {
    return i % 2 ? bytes[i / 2] & 15 : bytes[i / 2] >> 4;
}

nb_status nb_import_matmul_bnb4(nb_importer *im) {
    blocks b = read_attributes(im, nb_node_int(im, "N", 0));
    const int64_t type = nb_node_int(im, "quant_type", 0);
    NB_TRY(check_sizes(im, &b));
    if (type != 0 && type != 1)
        return nb_node_error(im, NB_MALFORMED, "quant_type is %lld, expected 0 (FP4) or 1 (NF4)",
                             (long long)type);
    if (!nb_node_int(im, "transB", 1))
        return nb_node_error(im, NB_UNSUPPORTED, "transB=0 is not supported");
    nb_value *w = nb_constant_input(im, 1, "the weight");
    if (!w) return NB_MALFORMED;
    if (w->type->elem != NB_U8)
        return nb_node_error(im, NB_MALFORMED, "the weight is %s, expected u8",
                             nb_type_text(im->arena, w->type));
    /* Blocks run through the whole weight. */
    NB_TRY(check_bytes(im, w, "bytes of the weight", nb_ceildiv(b.N * b.K, 2)));
    NB_TRY(nb_block_scales(im, 2, nb_ceildiv(b.N * b.K, b.block), &b.scales));
    const uint8_t *bytes = w->blob->data;
    const bool rows = type == 1 && b.K % b.block == 0;
    const int64_t dims[2] = {b.K, b.N}, parts[2] = {b.count, b.N};
    void *codes, *scales = NULL;
    nb_value *matrix = nb_new_const(im, w->name, rows ? NB_NF4 : NB_F32, 2, dims, &codes);
    nb_quant q = {.storage = NB_NF4, .granularity = NB_PER_GROUP, .group = b.block};
    if (rows) q.scales = nb_new_const(im, "absmax", NB_F32, 2, parts, &scales);
    if (!matrix || (rows && !scales)) return NB_LIMIT;
    for (int64_t i = 0; i < b.N * b.K; i++) {
        const int64_t n = i / b.K, k = i % b.K, at = k * b.N + n;
        const unsigned code = high_first(bytes, i);
        const float s = (float)nb_tensor_get(&b.scales, i / b.block);
        if (rows) {
            nb_elem_put(NB_NF4, codes, at, s == 0 ? 7 : code); /* level 7 is 0 */
            ((float *)scales)[k / b.block * b.N + n] = s == 0 ? 1 : s;
        } else {
            const float level = type == 1  ? nb_float_decode(NB_NF4, code)
                                : code & 8 ? -fp4[code & 7]
                                           : fp4[code];
            ((float *)codes)[at] = level * s;
        }
    }
    nb_value *x = nb_node_input(im, 0);
    if (rows) matrix = nb_dequantized_const(im, matrix, &q);
    return nb_node_output(im, 0, product(im, x, matrix, &q, false, NULL, NULL));
}

/* Codes in bytes as codes of their own type: of each row of `row` codes, which begins with a byte.
 */
static nb_value *unpacked(nb_importer *im, nb_value *v, int bits, int64_t row) {
    nb_tensor t = nb_tensor_of_const(v);
    void *data;
    const int64_t stored = t.rank ? t.dims[t.rank - 1] : 1, rows = stored ? t.bytes / stored : 0;
    if (!t.rank || nb_ceildiv(row * bits, 8) != stored) {
        nb_node_error(im, NB_MALFORMED, "%s do not hold rows of %lld codes of %d bits",
                      nb_type_text(im->arena, v->type), (long long)row, bits);
        return NULL;
    }
    t.dims[t.rank - 1] = row;
    const nb_elem elem = nb_elem_integer(bits, false);
    nb_value *c = nb_new_const(im, v->name, elem, t.rank, t.dims, &data);
    for (int64_t i = 0; c && i < rows * row; i++)
        nb_elem_put(elem, data, i,
                    field((const uint8_t *)t.data + i / row * stored, i % row, bits));
    return c;
}

nb_status nb_import_gather_block_quantized(nb_importer *im) {
    nb_value *data = nb_constant_input(im, 0, "the table"), *index = nb_node_input(im, 1),
             *scales = nb_constant_input(im, 2, "scales"), *zeros = NULL;
    if (!data || !index || !scales) return NB_MALFORMED;
    if (nb_has_input(im, 3) && !(zeros = nb_constant_input(im, 3, "zero points")))
        return NB_MALFORMED;
    const int64_t bits = nb_node_int(im, "bits", 4);
    const bool bytes = data->type->elem == NB_U8;
    const int rank = data->type->rank;
    int64_t axis, gather;
    nb_scaling s = {.scale = scales, .block = nb_node_int(im, "block_size", 128)};
    if ((bits != 2 && bits != 4 && bits != 8) || s.block < 16 || (s.block & (s.block - 1)) != 0) {
        nb_node_error(im, NB_MALFORMED, "blocks of %lld codes of %lld bits", (long long)s.block,
                      (long long)bits);
        nb_help(im->diags, "blocks have a power of two of at least 16 codes, of 2, 4 or 8 bits");
        return NB_MALFORMED;
    }
    NB_TRY(nb_axis(im, nb_node_int(im, "quantize_axis", 1), rank, &axis));
    NB_TRY(nb_axis(im, nb_node_int(im, "gather_axis", 0), rank, &gather));
    if (!bytes && data->type->elem != NB_I4 && data->type->elem != NB_U4)
        return nb_node_error(im, NB_MALFORMED, "a table of %s, expected i4, u4 or u8",
                             nb_type_text(im->arena, data->type));
    if (bytes && bits < 8) {
        if (axis != rank - 1)
            return nb_node_error(im, NB_MALFORMED, "packed tables have their blocks in rows");
        data = unpacked(im, data, (int)bits, 8 / bits * data->type->dims[rank - 1]->value);
        if (zeros && scales->type->rank == rank)
            zeros = unpacked(im, zeros, (int)bits, scales->type->dims[rank - 1]->value);
        if (!data || (nb_has_input(im, 3) && !zeros)) return NB_MALFORMED;
    }
    s.axis = axis;
    s.zero = zeros;
    if (bytes && !zeros) { /* in bytes the middle is 0 */
        void *one;
        s.zero = nb_new_const(im, "zero", data->type->elem, 0, NULL, &one);
        if (s.zero) nb_elem_put(data->type->elem, one, 0, UINT64_C(1) << (bits - 1));
    }
    nb_value *table = nb_dequantized(im, data, &s, NB_F32);
    nb_value *y = table ? nb_take(im, table, index, (int)gather) : NULL;
    const nb_elem to = scales->type->elem;
    return nb_node_output(im, 0, y && to != NB_F32 ? nb_cast(&im->b, y, to) : y);
}
