/* com.microsoft MatMulNBits: a matrix [K,N] of codes in groups along K, written column by column.
 *
 *   B            u8[N, K/block, block*bits/8], low bits first, codes from 0
 *   scales       f32[N, K/block]
 *   zero_points  u8[N, ceil(K/block * bits / 8)]; 2^(bits-1) without them */
#include "frontend/export.h"

#include <string.h>

/* Columns that are put together at a time, so that rows of codes are read in order. */
enum { PANEL = 64 };

static int bits_of(const nb_value *w) { return nb_elems[nb_onnx_code(w->type->elem)].bits; }

static int64_t blocks_of(const nb_value *w) {
    return nb_ceildiv(w->type->dims[0]->value, w->type->quant->group);
}

/* Signed codes become those from 0 by this. */
static int64_t bias_of(const nb_value *w) {
    return nb_elems[w->type->elem].class_ == NB_CLASS_INT ? INT64_C(1) << (bits_of(w) - 1) : 0;
}

bool nb_fits_nbits(const nb_value *w) {
    const nb_quant *q = w->type->quant;
    return q && w->type->rank == 2 && nb_elem_is_integer(q->storage) &&
           nb_elems[q->storage].bits <= 8 && q->granularity == NB_PER_GROUP && q->axis == 0 &&
           q->group >= 16 && (q->group & (q->group - 1)) == 0 && !nb_quant_has_minima(q);
}

static void put_bits(uint8_t *bytes, int bits, int64_t i, int64_t code) {
    if (bits == 8)
        bytes[i] = (uint8_t)code;
    else
        bytes[i / 2] = (uint8_t)(bytes[i / 2] | (code & 15) << 4 * (i % 2));
}

/* Integers [rows, N] of `v` as N runs of `length` codes; `beyond` fills a run behind its rows. */
static void write_columns(const nb_value *v, int bits, int64_t bias, int64_t length, int64_t beyond,
                          int64_t bytes, nb_sink *s, nb_arena *scratch) {
    const nb_tensor t = nb_tensor_of_const(v);
    const int64_t rows = t.dims[0], N = t.dims[1];
    uint8_t *panel = nb_alloc(scratch, (size_t)(PANEL * bytes));
    for (int64_t n = 0; n < N; n += PANEL) {
        const int64_t width = nb_min_i64(PANEL, N - n);
        memset(panel, 0, (size_t)(PANEL * bytes));
        for (int64_t k = 0; k < length; k++)
            for (int64_t j = 0; j < width; j++)
                put_bits(panel + j * bytes, bits, k,
                         k < rows ? nb_tensor_get_int(&t, k * N + n + j) + bias : beyond);
        nb_sink_put(s, panel, (size_t)(width * bytes));
    }
}

static void write_codes(const nb_initializer *t, nb_sink *s, nb_arena *scratch) {
    const nb_value *w = t->from;
    const int64_t length = blocks_of(w) * w->type->quant->group;
    write_columns(w, bits_of(w), bias_of(w), length, bias_of(w), length * bits_of(w) / 8, s,
                  scratch);
}

static void write_zeros(const nb_initializer *t, nb_sink *s, nb_arena *scratch) {
    const nb_value *w = t->from;
    const nb_quant *q = w->type->quant;
    if (q->zeros) {
        write_columns(q->zeros, bits_of(w), bias_of(w), blocks_of(w), 0, t->dims[1], s, scratch);
        return;
    }
    const int64_t zero = q->zero + bias_of(w);
    for (int64_t i = 0; i < t->bytes; i++)
        nb_sink_byte(s, (uint8_t)(bits_of(w) == 8 ? zero : zero | zero << 4));
}

static void write_scales(const nb_initializer *t, nb_sink *s, nb_arena *scratch) {
    (void)scratch;
    for (int64_t n = 0; n < t->dims[0]; n++) {
        for (int64_t k = 0; k < t->dims[1]; k++) {
            const float scale = nb_quant_scale(t->from->type->quant, k * t->dims[0] + n);
            uint8_t b[4];
            memcpy(b, &scale, 4);
            for (int i = 0; i < 4; i++) nb_sink_byte(s, b[i]);
        }
    }
}

static nb_port *add(nb_exporter *x, nb_value *w, const char *what, nb_elem elem, int rank,
                    const int64_t *dims,
                    void (*write)(const nb_initializer *, nb_sink *, nb_arena *)) {
    nb_port *known = nb_shared_get(x, w, what);
    if (known) return known;
    nb_initializer *t =
        nb_new_initializer(x, nb_format(x->arena, "%s.%s", w->name, what), elem, rank, dims);
    t->from = w;
    t->write = write;
    return nb_shared_set(x, w, what, t->port);
}

nb_port *nb_put_nbits(nb_exporter *x, nb_port *a, nb_value *w, int64_t level) {
    const nb_quant *q = w->type->quant;
    const int64_t K = w->type->dims[0]->value, N = w->type->dims[1]->value, n = blocks_of(w),
                  bits = bits_of(w), codes[3] = {N, n, q->group * bits / 8}, scales[2] = {N, n},
                  zeros[2] = {N, nb_ceildiv(n * bits, 8)};
    const bool middle = !q->zeros && q->zero + bias_of(w) == INT64_C(1) << (bits - 1);
    nb_port *B = add(x, w, "codes", NB_U8, 3, codes, write_codes),
            *by = add(x, w, "scales", NB_F32, 2, scales, write_scales),
            *z = middle ? NULL : add(x, w, "zeros", NB_U8, 2, zeros, write_zeros),
            *y = NB_PUT(x, "MatMulNBits", a, B, by, z);
    nb_last_node(x)->domain = "com.microsoft";
    x->contributed = true;
    nb_put_attr(x, NB_ATTR_I("K", K));
    nb_put_attr(x, NB_ATTR_I("N", N));
    nb_put_attr(x, NB_ATTR_I("bits", bits));
    nb_put_attr(x, NB_ATTR_I("block_size", q->group));
    if (level) nb_put_attr(x, NB_ATTR_I("accuracy_level", level));
    return y;
}
