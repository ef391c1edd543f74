/* Packs the weights of depthwise convolutions of codes (qdepthwise.h). */
#include "codegen/kernels/qdepthwise.h"

#include "ir/codes.h"
#include "ir/conv.h"

/* Longer rows of a kernel go position by position: what is written out for each would be long. */
#define LONGEST_RUN 16

int64_t nb_qdepthwise_each(const cg_isa *isa) { return isa->fours ? 4 : 2; }

bool nb_qdepthwise_by_runs(const nb_op *op) {
    return nb_conv_dilation(op, nb_in(op, 1)->type->rank - 2) == 1;
}

nb_qdepthwise_shape nb_qdepthwise_shape_of(const nb_value *w, int64_t each, bool by_runs) {
    nb_qdepthwise_shape s = {.axes = w->type->rank - 1, .each = each, .runs = 1};
    for (int d = 0; d < s.axes; d++) {
        s.kernel[d] = w->type->dims[d]->value;
        s.runs *= s.kernel[d];
    }
    s.C = w->type->dims[s.axes]->value;
    s.panels = nb_ceildiv(s.C, CG_LANES);
    const int64_t row = s.kernel[s.axes - 1];
    s.run = by_runs && row <= LONGEST_RUN ? row : 1;
    s.runs /= s.run;
    return s;
}

int64_t nb_qdepthwise_words(const nb_qdepthwise_shape *s, int64_t phase) {
    return nb_ceildiv(phase + s->run, s->each);
}

/* Words of all runs in the phases before this one. */
static int64_t words_before(const nb_qdepthwise_shape *s, int64_t phase) {
    int64_t n = 0;
    for (int64_t p = 0; p < phase; p++) n += s->runs * nb_qdepthwise_words(s, p);
    return n;
}

int64_t nb_qdepthwise_code_bytes(const nb_qdepthwise_shape *s) {
    return words_before(s, s->each) * NB_QDEPTHWISE_WORD;
}

int64_t nb_qdepthwise_panel_bytes(const nb_qdepthwise_shape *s) {
    return nb_qdepthwise_code_bytes(s) + 2 * CG_LANES * 4;
}

cg_val nb_qdepthwise_weights_at(cg *g, const nb_qdepthwise_shape *s, cg_val phase, int64_t known,
                                cg_val run) {
    cg_val before = s->run == 1 ? cg_muli(g, phase, s->runs) : cg_i64(g, words_before(s, known));
    cg_val word = cg_add(g, before, cg_muli(g, run, nb_qdepthwise_words(s, known)));
    return cg_muli(g, word, NB_QDEPTHWISE_WORD);
}

/* ---- bytes ---------------------------------------------------------------------------------- */

typedef struct packing {
    nb_qdepthwise_shape s;
    nb_tensor w;
    nb_codes codes;
} packing;

/* The weight of position `at` for channel n, less its zero point. */
static int64_t weight_at(const packing *p, int64_t at, int64_t n) {
    const int64_t i = at * p->s.C + n;
    return nb_tensor_get_int(&p->w, i) - nb_codes_zero(&p->codes, i);
}

/* Of run `run` the inputs from `first` on, which may be negative, of 16 channels. */
static void write_word(const packing *p, int64_t run, int64_t first, int64_t n, nb_sink *sink) {
    const nb_qdepthwise_shape *s = &p->s;
    int8_t bytes[NB_QDEPTHWISE_WORD] = {0};
    int16_t pairs[NB_QDEPTHWISE_WORD / 2] = {0};
    for (int64_t c = 0; c < CG_LANES && n + c < s->C; c++) {
        for (int64_t i = 0; i < s->each; i++) {
            if (first + i < 0 || first + i >= s->run) continue;
            const int64_t w = weight_at(p, run * s->run + first + i, n + c);
            if (s->each == 4)
                bytes[c * 4 + i] = (int8_t)w;
            else
                pairs[c * 2 + i] = (int16_t)w;
        }
    }
    nb_sink_write(sink, s->each == 4 ? (const void *)bytes : pairs, NB_QDEPTHWISE_WORD);
}

static void write_ends(const packing *p, int64_t n, nb_sink *sink) {
    float scales[CG_LANES] = {0};
    int32_t sums[CG_LANES] = {0};
    for (int64_t c = 0; c < CG_LANES && n + c < p->s.C; c++) {
        scales[c] = nb_codes_scale(&p->codes, n + c);
        for (int64_t i = 0; i < p->s.runs * p->s.run; i++)
            sums[c] += (int32_t)weight_at(p, i, n + c);
    }
    nb_sink_write(sink, scales, sizeof scales);
    nb_sink_write(sink, sums, sizeof sums);
}

static void write_panels(const nb_value *w, nb_arena *arena, int64_t each, bool by_runs,
                         nb_sink *sink) {
    packing p = {.s = nb_qdepthwise_shape_of(w, each, by_runs), .w = nb_tensor_of_const(w)};
    p.codes = nb_codes_expand(w->type->quant, &p.w, arena);
    for (int64_t n = 0; n < p.s.C; n += CG_LANES) {
        for (int64_t phase = 0; phase < each; phase++) {
            for (int64_t r = 0; r < p.s.runs; r++) {
                for (int64_t i = 0; i < nb_qdepthwise_words(&p.s, phase); i++)
                    write_word(&p, r, i * each - phase, n, sink);
            }
        }
        write_ends(&p, n, sink);
    }
}

static bool size_of(const nb_value *w, int64_t each, bool by_runs, int64_t *bytes) {
    const nb_qdepthwise_shape s = nb_qdepthwise_shape_of(w, each, by_runs);
    return nb_mul_i64(s.panels, nb_qdepthwise_panel_bytes(&s), bytes);
}

/* ---- layouts -------------------------------------------------------------------------------- */

#define LAYOUT(id, each, by_runs)                                               \
    static bool size_##id(const nb_value *w, int64_t *bytes) {                  \
        return size_of(w, each, by_runs, bytes);                                \
    }                                                                           \
    static void write_##id(const nb_value *w, nb_arena *arena, nb_sink *sink) { \
        write_panels(w, arena, each, by_runs, sink);                            \
    }                                                                           \
    static const nb_layout id = {                                               \
        .name = "q-depthwise-" #id, .holds_scales = true, .size = size_##id, .write = write_##id};
LAYOUT(fours_by_runs, 4, true)
LAYOUT(fours, 4, false)
LAYOUT(pairs_by_runs, 2, true)
LAYOUT(pairs, 2, false)

const nb_layout *nb_qdepthwise_layout(const nb_op *op, const cg_cpu *cpu) {
    const bool by_runs = nb_qdepthwise_by_runs(op);
    if (!cpu || nb_qdepthwise_each(cpu->isa) == 4) return by_runs ? &fours_by_runs : &fours;
    return by_runs ? &pairs_by_runs : &pairs;
}
