/* Packs the weights of convolutions of codes (qconv.h). */
#include "codegen/kernels/qconv.h"

#include "ir/conv.h"

nb_qconv_shape nb_qconv_shape_of(const nb_op *op, int act_bytes) {
    nb_qconv conv;
    nb_qconv_shape s = {.each = 4 / act_bytes};
    if (!nb_can_convolve(op, &conv)) return s;
    const nb_type *w = nb_in(op, 1)->type;
    const int64_t K = w->dims[0]->value;
    int64_t side = 1; /* positions that lie side by side */
    s.axes = conv.x->type->rank - 2;
    s.positions = 1;
    if (conv.patches) {
        const int64_t *kernel = nb_attr_of(conv.patches, "kernel")->ints.items;
        for (int d = 0; d < s.axes; d++) s.positions *= kernel[d];
        if (nb_conv_dilation(conv.patches, s.axes - 1) == 1) side = kernel[s.axes - 1];
    }
    s.channels = K / s.positions;
    s.run = s.channels * side;
    s.runs = s.run ? K / s.run : 0;
    s.words = nb_ceildiv(s.run, s.each);
    s.N = w->dims[1]->value;
    s.panels = nb_ceildiv(s.N, CG_LANES);
    return s;
}

int64_t nb_qconv_word_bytes(const nb_qconv_shape *s) { return CG_LANES * s->each; }
int64_t nb_qconv_code_bytes(const nb_qconv_shape *s) {
    return nb_ceildiv(s->runs * s->words * nb_qconv_word_bytes(s), 64) * 64;
}
int64_t nb_qconv_panel_bytes(const nb_qconv_shape *s) {
    return nb_qconv_code_bytes(s) + 2 * CG_LANES * 4;
}

/* The one op that uses the weights: nb_can_convolve looks for that. */
static nb_qconv_shape shape_of(const nb_value *w, int act_bytes) {
    return nb_qconv_shape_of(w->uses->user, act_bytes);
}

/* ---- bytes ---------------------------------------------------------------------------------- */

/* Weight of input `i` of a place, in the order of runs, and column n: a signed byte. */
static int8_t weight_at(const nb_qconv_shape *s, const nb_value *w, int64_t i, int64_t n) {
    const int64_t row = i % s->channels * s->positions + i / s->channels;
    const uint8_t *codes = w->blob->data;
    return (int8_t)(codes[row * s->N + n] - w->type->quant->zero);
}

static void write_word(const nb_qconv_shape *s, const nb_value *w, int64_t first, int64_t left,
                       int64_t n, nb_sink *sink) {
    int8_t out[CG_LANES * 4] = {0};
    for (int64_t c = 0; c < CG_LANES && n + c < s->N; c++) {
        for (int64_t i = 0; i < s->each && i < left; i++)
            out[c * s->each + i] = weight_at(s, w, first + i, n + c);
    }
    nb_sink_write(sink, out, (size_t)nb_qconv_word_bytes(s));
}

static void write_ends(const nb_qconv_shape *s, const nb_value *w, int64_t n, nb_sink *sink) {
    const nb_quant *q = w->type->quant;
    float scales[CG_LANES] = {0};
    int32_t sums[CG_LANES] = {0};
    for (int64_t c = 0; c < CG_LANES && n + c < s->N; c++) {
        scales[c] = nb_quant_scale(q, q->granularity == NB_PER_AXIS ? n + c : 0);
        for (int64_t i = 0; i < s->runs * s->run; i++) sums[c] += weight_at(s, w, i, n + c);
    }
    nb_sink_write(sink, scales, sizeof scales);
    nb_sink_write(sink, sums, sizeof sums);
}

static void write_panels(const nb_value *w, int act_bytes, nb_sink *sink) {
    const nb_qconv_shape s = shape_of(w, act_bytes);
    for (int64_t n = 0; n < s.N; n += CG_LANES) {
        const int64_t begin = sink->written;
        for (int64_t r = 0; r < s.runs; r++) {
            for (int64_t i = 0; i < s.run; i += s.each)
                write_word(&s, w, r * s.run + i, s.run - i, n, sink);
        }
        nb_sink_zeros(sink, begin + nb_qconv_code_bytes(&s) - sink->written);
        write_ends(&s, w, n, sink);
    }
}

static bool size_of(const nb_value *w, int act_bytes, int64_t *bytes) {
    const nb_qconv_shape s = shape_of(w, act_bytes);
    return nb_mul_i64(s.panels, nb_qconv_panel_bytes(&s), bytes);
}

/* ---- layouts -------------------------------------------------------------------------------- */

static bool size_bytes(const nb_value *w, int64_t *bytes) { return size_of(w, 1, bytes); }
static void write_bytes(const nb_value *w, nb_arena *arena, nb_sink *sink) {
    (void)arena;
    write_panels(w, 1, sink);
}
static bool size_pairs(const nb_value *w, int64_t *bytes) { return size_of(w, 2, bytes); }
static void write_pairs(const nb_value *w, nb_arena *arena, nb_sink *sink) {
    (void)arena;
    write_panels(w, 2, sink);
}

static const char *key(nb_arena *arena, const nb_value *w) {
    const nb_qconv_shape s = shape_of(w, 1);
    return nb_format(arena, "%lld %lld %lld", (long long)s.channels, (long long)s.positions,
                     (long long)s.run);
}

static const nb_layout fours = {.name = "q-conv-panels-4",
                                .holds_scales = true,
                                .size = size_bytes,
                                .write = write_bytes,
                                .key = key},
                       pairs = {.name = "q-conv-panels-2",
                                .holds_scales = true,
                                .size = size_pairs,
                                .write = write_pairs,
                                .key = key};

const nb_layout *nb_qconv_layout(const cg_cpu *cpu) {
    return !cpu || nb_dot_of(cpu->isa, 8, NB_I8, false)->act_bytes == 1 ? &fours : &pairs;
}
