/* Packs quantized weights into panels (qmatmul.h). */
#include "codegen/kernels/qmatmul.h"

#include "ir/eval.h"

#include <string.h>

nb_qshape nb_qshape_of(const nb_value *w) {
    const nb_quant *q = w->type->quant;
    nb_qshape s = {.K = w->type->dims[0]->value,
                   .N = w->type->dims[1]->value,
                   .bits = nb_elems[w->type->elem].bits};
    s.panels = nb_ceildiv(s.N, CG_LANES);
    s.group = q->granularity == NB_PER_GROUP ? q->group : nb_max_i64(s.K, 1);
    s.groups = nb_ceildiv(s.K, s.group);
    s.unit = s.bits == 4 ? 8 : 4;
    s.offset = nb_elems[w->type->elem].class_ == NB_CLASS_INT ? INT64_C(1) << (s.bits - 1) : 0;
    s.zeros = q->zeros != NULL;
    s.zero = q->zero;
    return s;
}

int64_t nb_qshape_length(const nb_qshape *s, int64_t g) {
    return nb_min_i64(s->group, s->K - g * s->group);
}
int64_t nb_qshape_padded(const nb_qshape *s, int64_t g) {
    return nb_ceildiv(nb_qshape_length(s, g), s->unit) * s->unit;
}
int64_t nb_qshape_code_bytes(const nb_qshape *s, int64_t padded) { return padded / s->unit * 64; }
int64_t nb_qshape_group_bytes(const nb_qshape *s, int64_t padded) {
    return nb_qshape_code_bytes(s, padded) + 64 + (s->zeros ? 64 : 0);
}

int64_t nb_qshape_panel_bytes(const nb_qshape *s) {
    if (s->groups == 0) return 0;
    return (s->groups - 1) * nb_qshape_group_bytes(s, nb_qshape_padded(s, 0)) +
           nb_qshape_group_bytes(s, nb_qshape_padded(s, s->groups - 1));
}

int64_t nb_qshape_row(const nb_qshape *s) {
    if (s->groups == 0) return 0;
    return (s->groups - 1) * nb_qshape_padded(s, 0) + nb_qshape_padded(s, s->groups - 1);
}

static bool size(const nb_value *w, int64_t *bytes) {
    nb_qshape s = nb_qshape_of(w);
    return nb_mul_i64(s.panels, nb_qshape_panel_bytes(&s), bytes);
}

/* The stored code of input k, column n; 0 beyond the matrix. */
static uint8_t stored(const nb_qshape *s, const nb_tensor *t, int64_t k, int64_t n) {
    return n < s->N ? (uint8_t)(nb_tensor_get_int(t, k * s->N + n) + s->offset) : 0;
}

/* 64 bytes: 16 columns from n, `unit` inputs from k of which `left` exist. */
static void write_unit(const nb_qshape *s, const nb_tensor *t, int64_t k, int64_t left, int64_t n,
                       nb_sink *sink) {
    uint8_t out[64];
    for (int64_t c = 0; c < CG_LANES; c++) {
        for (int64_t j = 0; j < 4; j++) {
            uint8_t low = j < left ? stored(s, t, k + j, n + c) : 0;
            uint8_t high = s->bits == 4 && j + 4 < left ? stored(s, t, k + j + 4, n + c) : 0;
            out[4 * c + j] = (uint8_t)(low | high << 4);
        }
    }
    nb_sink_write(sink, out, sizeof out);
}

/* Index of a group's scale for column n. */
static int64_t scale_index(const nb_quant *q, const nb_qshape *s, int64_t g, int64_t n) {
    return q->granularity == NB_PER_GROUP ? g * s->N + n : q->granularity == NB_PER_AXIS ? n : 0;
}

static void write_scales(const nb_qshape *s, const nb_quant *q, int64_t g, int64_t n,
                         nb_sink *sink) {
    float scales[CG_LANES] = {0};
    uint8_t zeros[64] = {0};
    nb_tensor zero = q->zeros ? nb_tensor_of_const(q->zeros) : (nb_tensor){0};
    for (int64_t c = 0; c < CG_LANES && n + c < s->N; c++) {
        int64_t at = scale_index(q, s, g, n + c);
        scales[c] = q->scales ? ((const float *)q->scales->blob->data)[at] : q->scale;
        if (q->zeros) zeros[c] = (uint8_t)(nb_tensor_get_int(&zero, at) + s->offset);
    }
    nb_sink_write(sink, scales, sizeof scales);
    if (s->zeros) nb_sink_write(sink, zeros, sizeof zeros);
}

static void write(const nb_value *w, nb_arena *arena, nb_sink *sink) {
    (void)arena;
    nb_qshape s = nb_qshape_of(w);
    nb_tensor t = nb_tensor_of_const(w);
    for (int64_t p = 0; p < s.panels; p++) {
        for (int64_t g = 0; g < s.groups; g++) {
            int64_t length = nb_qshape_length(&s, g);
            for (int64_t k = 0; k < length; k += s.unit)
                write_unit(&s, &t, g * s.group + k, length - k, p * CG_LANES, sink);
            write_scales(&s, w->type->quant, g, p * CG_LANES, sink);
        }
    }
}

const nb_layout nb_qpanels = {
    .name = "q-panels", .holds_scales = true, .size = size, .write = write};
