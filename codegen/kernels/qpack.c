/* Packs quantized weights into panels (qmatmul.h). */
#include "codegen/kernels/qmatmul.h"

#include "ir/minifloat.h"

#include <string.h>

static bool is_half(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    /* Normal in f16, and the mantissa ends with what f16 drops: nearly always. */
    uint32_t exponent = bits >> 23 & 255;
    if (exponent - 113 < 30) return (bits & 0x1fff) == 0;
    return nb_float_decode(NB_F16, nb_float_encode(NB_F16, x)) == x;
}

/* Do all scales keep their value as f16? Only groups have scales enough to count. */
static bool fit_half(const nb_quant *q) {
    if (q->granularity != NB_PER_GROUP) return false;
    if (nb_quant_has_small_scales(q)) /* codes times a scale have more bits than f16 */
        return q->scales->type->elem == NB_F16 && q->scale == 1;
    const float *scales = q->scales->blob->data;
    for (int64_t i = 0; i < q->scales->blob->size / 4; i++) {
        if (!is_half(scales[i])) return false;
    }
    return true;
}

/* group 0: all of a column. */
static nb_qshape shape_of(int64_t K, int64_t N, int bits, int64_t group) {
    nb_qshape s = {.K = K, .N = N, .bits = bits};
    s.panels = nb_ceildiv(N, CG_LANES);
    s.group = group ? group : nb_max_i64(K, 1);
    s.groups = nb_ceildiv(K, s.group);
    s.unit = nb_unit_inputs(bits);
    return s;
}

nb_qshape nb_qshape_of(const nb_value *w, bool sums) {
    const nb_quant *q = w->type->quant;
    nb_qshape s =
        shape_of(w->type->dims[0]->value, w->type->dims[1]->value, nb_elems[w->type->elem].bits,
                 q->granularity == NB_PER_GROUP ? q->group : 0);
    s.storage = w->type->elem;
    s.offset = nb_elems[w->type->elem].class_ == NB_CLASS_INT ? INT64_C(1) << (s.bits - 1) : 0;
    s.zeros = q->zeros != NULL;
    s.zero = q->zero;
    s.half = fit_half(q);
    s.sums = sums;
    return s;
}

int64_t nb_qshape_length(const nb_qshape *s, int64_t g) {
    return nb_min_i64(s->group, s->K - g * s->group);
}
int64_t nb_qshape_padded(const nb_qshape *s, int64_t g) {
    return nb_ceildiv(nb_qshape_length(s, g), s->unit) * s->unit;
}
/* Rounded up to whole lines. */
static int64_t lines(int64_t bytes) { return (bytes + 63) / 64 * 64; }

int64_t nb_qshape_scales_at(const nb_qshape *s, int64_t length) {
    return nb_qshape_code_bytes(s, nb_ceildiv(length, s->unit) * s->unit);
}
int64_t nb_qshape_zeros_at(const nb_qshape *s, int64_t length) {
    return nb_qshape_scales_at(s, length) + CG_LANES * (s->half ? 2 : 4);
}
int64_t nb_qshape_sums_at(const nb_qshape *s, int64_t length) {
    const int64_t zeros = nb_qshape_small_zeros(s) ? CG_LANES / 2 : CG_LANES;
    return nb_qshape_zeros_at(s, length) + (s->zeros ? zeros : 0);
}
int64_t nb_qshape_group_bytes(const nb_qshape *s, int64_t length) {
    return nb_qshape_sums_at(s, length) + (s->sums ? CG_LANES * 4 : 0);
}
int64_t nb_qshape_panel_bytes(const nb_qshape *s) {
    if (s->groups == 0) return 0;
    return lines((s->groups - 1) * nb_qshape_group_bytes(s, s->group) +
                 nb_qshape_group_bytes(s, nb_qshape_length(s, s->groups - 1)));
}

int64_t nb_qshape_row(const nb_qshape *s) {
    if (s->groups == 0) return 0;
    return (s->groups - 1) * nb_qshape_padded(s, 0) + nb_qshape_padded(s, s->groups - 1);
}

static bool size_of(const nb_qshape *s, int64_t *bytes) {
    return nb_mul_i64(s->panels, nb_qshape_panel_bytes(s), bytes);
}
static bool size(const nb_value *w, int64_t *bytes) {
    const nb_qshape s = nb_qshape_of(w, false);
    return size_of(&s, bytes);
}
static bool size_with_sums(const nb_value *w, int64_t *bytes) {
    const nb_qshape s = nb_qshape_of(w, true);
    return size_of(&s, bytes);
}

int64_t nb_linear_bytes(int64_t k, int64_t n, int bits, int64_t group, bool zeros) {
    nb_qshape s = shape_of(k, n, bits, group < k ? group : 0);
    s.half = s.groups > 1;
    s.zeros = zeros;
    return s.panels * nb_qshape_panel_bytes(&s);
}

/* ---- bytes ---------------------------------------------------------------------------------- */

/* 16 unsigned codes from element `at` on, of which `count` exist. */
static void read_codes(const nb_qshape *s, const uint8_t *data, int64_t at, int64_t count,
                       uint8_t *out) {
    const uint8_t offset = (uint8_t)s->offset;
    if (count >= CG_LANES && s->bits == 8) {
        for (int c = 0; c < CG_LANES; c++) out[c] = data[at + c] ^ offset;
    } else if (count >= CG_LANES && s->bits == 4 && at % 2 == 0) {
        for (int c = 0; c < CG_LANES / 2; c++) {
            uint8_t pair = data[at / 2 + c];
            out[2 * c] = (pair & 15) ^ offset;
            out[2 * c + 1] = (uint8_t)(pair >> 4) ^ offset;
        }
    } else {
        for (int64_t c = 0; c < CG_LANES && c < count; c++)
            out[c] = (uint8_t)nb_elem_get(s->storage, data, at + c) ^ offset;
    }
}

/* 16 columns from n, the unit's inputs from k of which `left` exist. */
static void write_unit(const nb_qshape *s, const uint8_t *data, int64_t k, int64_t left, int64_t n,
                       nb_sink *sink) {
    uint8_t rows[NB_UNIT_INPUTS][CG_LANES] = {{0}}, out[NB_UNIT_BYTES];
    for (int64_t j = 0; j < s->unit && j < left; j++)
        read_codes(s, data, (k + j) * s->N + n, s->N - n, rows[j]);
    nb_unit_pack(s->bits, rows, out);
    nb_sink_write(sink, out, (size_t)nb_unit_bytes(s->bits));
}

/* Index of a group's scale for column n. */
static int64_t scale_index(const nb_quant *q, const nb_qshape *s, int64_t g, int64_t n) {
    return q->granularity == NB_PER_GROUP ? g * s->N + n : q->granularity == NB_PER_AXIS ? n : 0;
}

static void write_scales(const nb_qshape *s, const nb_quant *q, int64_t g, int64_t n,
                         nb_sink *sink) {
    float scales[CG_LANES] = {0};
    uint16_t halves[CG_LANES] = {0};
    for (int64_t c = 0; c < CG_LANES && n + c < s->N; c++) {
        scales[c] = nb_quant_scale(q, scale_index(q, s, g, n + c));
        if (s->half) halves[c] = (uint16_t)nb_float_encode(NB_F16, scales[c]);
    }
    if (s->half)
        nb_sink_write(sink, halves, sizeof halves);
    else
        nb_sink_write(sink, scales, sizeof scales);
}

/* Zero points of 16 columns, as unsigned as codes are. */
static void read_zeros(const nb_qshape *s, const nb_quant *q, int64_t g, int64_t n,
                       uint8_t *zeros) {
    if (!s->zeros) {
        memset(zeros, (int)(s->zero + s->offset), CG_LANES);
        return;
    }
    /* Of one column's or tensor's zero points there is one row, as for scales. */
    int64_t at = scale_index(q, s, g, n), step = q->granularity == NB_PER_TENSOR ? 0 : 1;
    for (int64_t c = 0; c < CG_LANES && n + c < s->N; c++) {
        uint8_t one[CG_LANES] = {0};
        read_codes(s, q->zeros->blob->data, at + c * step, 1, one);
        zeros[c] = one[0];
    }
}

static void write_zeros(const nb_qshape *s, const nb_quant *q, int64_t g, int64_t n,
                        nb_sink *sink) {
    uint8_t zeros[CG_LANES] = {0};
    read_zeros(s, q, g, n, zeros);
    if (!nb_qshape_small_zeros(s)) {
        nb_sink_write(sink, zeros, sizeof zeros);
        return;
    }
    for (int c = 0; c < CG_LANES / 2; c++) zeros[c] |= (uint8_t)(zeros[CG_LANES / 2 + c] << 4);
    nb_sink_write(sink, zeros, CG_LANES / 2);
}

static void write_sums(const nb_qshape *s, const nb_value *w, int64_t g, int64_t n, nb_sink *sink) {
    const int64_t length = nb_qshape_length(s, g);
    uint8_t codes[CG_LANES] = {0}, zeros[CG_LANES] = {0};
    int32_t sums[CG_LANES] = {0};
    read_zeros(s, w->type->quant, g, n, zeros);
    for (int64_t k = 0; k < length; k++) {
        read_codes(s, w->blob->data, (g * s->group + k) * s->N + n, s->N - n, codes);
        for (int64_t c = 0; c < CG_LANES && n + c < s->N; c++) sums[c] += codes[c] - zeros[c];
    }
    nb_sink_write(sink, sums, sizeof sums);
}

static void write_panel(const nb_qshape *s, const nb_value *w, int64_t n, nb_sink *sink) {
    const nb_quant *q = w->type->quant;
    int64_t begin = sink->written;
    for (int64_t g = 0; g < s->groups; g++) {
        int64_t length = nb_qshape_length(s, g);
        for (int64_t k = 0; k < length; k += s->unit)
            write_unit(s, w->blob->data, g * s->group + k, length - k, n, sink);
        write_scales(s, q, g, n, sink);
        if (s->zeros) write_zeros(s, q, g, n, sink);
        if (s->sums) write_sums(s, w, g, n, sink);
    }
    nb_sink_zeros(sink, begin + nb_qshape_panel_bytes(s) - sink->written);
}

static void write_all(const nb_qshape *s, const nb_value *w, nb_sink *sink) {
    for (int64_t p = 0; p < s->panels; p++) write_panel(s, w, p * CG_LANES, sink);
}
static void write(const nb_value *w, nb_arena *arena, nb_sink *sink) {
    (void)arena;
    const nb_qshape s = nb_qshape_of(w, false);
    write_all(&s, w, sink);
}
static void write_with_sums(const nb_value *w, nb_arena *arena, nb_sink *sink) {
    (void)arena;
    const nb_qshape s = nb_qshape_of(w, true);
    write_all(&s, w, sink);
}

const nb_layout nb_qpanels = {
    .name = "q-panels", .holds_scales = true, .size = size, .write = write};
const nb_layout nb_qpanels_sums = {.name = "q-panels-sums",
                                   .holds_scales = true,
                                   .size = size_with_sums,
                                   .write = write_with_sums};
