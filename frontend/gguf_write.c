/* A llama decoder as GGUF version 3: header, values, tensors, streamed row by row (gguf.h).
 *
 * A matrix takes the layout whose codes and scales it has; one scale for each f32 run of 32 or more
 * is rounded to f16. Everything else is F32. Rows of queries and keys whose halves turn together
 * are put in the order in which neighbours do, as llama has them. */
#include "frontend/frontend.h"
#include "frontend/gguf.h"
#include "ir/minifloat.h"
#include "ir/reals.h"
#include "ir/support/output.h"

#include <stdio.h>
#include <string.h>

enum { ALIGNMENT = 32, U32 = 4, F32 = 6, TEXT = 8 };

typedef struct writer {
    FILE *to;
    nb_arena *arena;
    nb_diags *diags;
    nb_llama llama;
    bool rounded; /* a scale lost bits */
} writer;

/* ---- which layout --------------------------------------------------------------------------- */

static int64_t outputs_of(const nb_llama_tensor *t) {
    const nb_type *type = t->w->type;
    return type->rank == 1 ? 1 : type->dims[t->rows ? 0 : 1]->value;
}
static int64_t inputs_of(const nb_llama_tensor *t) {
    const nb_type *type = t->w->type;
    return type->dims[type->rank == 1 || !t->rows ? 0 : 1]->value;
}

/* Scales that are codes in groups of `runs` along the axis, over f16. */
static bool is_two_level(const nb_value *scales, nb_elem codes, int axis, int64_t runs) {
    const nb_quant *q = scales ? scales->type->quant : NULL;
    return q && q->storage == codes && q->granularity == NB_PER_GROUP && q->group == runs &&
           q->axis == axis && !q->zeros && !q->zero && q->scale == 1 && q->scales &&
           q->scales->type->elem == NB_F16 && !nb_quant_has_minima(q);
}

static bool fits_levels(const nb_quant *q, const nb_gguf_type *t, int axis) {
    const int64_t runs = t->count / t->form->run;
    return q->granularity == NB_PER_GROUP && q->axis == axis && q->group == t->form->run &&
           !q->zeros && !q->zero && q->scale == 1 &&
           is_two_level(q->scales, t->form->scales, axis, runs) &&
           (t->form->minima ? is_two_level(q->minima, t->form->scales, axis, runs)
                            : !nb_quant_has_minima(q));
}

/* One scale for each block: longer groups and channels repeat theirs. */
static bool fits_blocks(const nb_quant *q, const nb_gguf_type *t, int axis) {
    const bool moved = q->zeros || q->zero || nb_quant_has_minima(q),
               groups = q->granularity == NB_PER_GROUP;
    if (groups && (q->axis != axis || q->group % t->count)) return false;
    if (q->granularity == NB_PER_AXIS && q->axis == axis) return false;
    return moved == t->form->minima && !(q->scales && q->scales->type->quant) &&
           !(q->minima && q->minima->type->quant);
}

static const nb_gguf_type *type_of(const nb_llama_tensor *t) {
    static const char *const names[] = {"Q4_0", "Q4_1", "Q5_0", "Q5_1",
                                        "Q8_0", "Q4_K", "Q5_K", "Q6_K"};
    const nb_quant *q = t->w->type->quant;
    const int axis = t->rows ? 1 : 0;
    for (size_t i = 0; q && i < NB_COUNT(names); i++) {
        const nb_gguf_type *type = nb_gguf_type_named(names[i]);
        if (type->form->codes != q->storage || inputs_of(t) % type->count) continue;
        if (type->form->scales == NB_F16 ? fits_blocks(q, type, axis) : fits_levels(q, type, axis))
            return type;
    }
    return nb_gguf_type_named("F32");
}

/* ---- bytes ---------------------------------------------------------------------------------- */

static void put_u32(writer *w, uint32_t v) { fwrite(&v, sizeof v, 1, w->to); }
static void put_u64(writer *w, uint64_t v) { fwrite(&v, sizeof v, 1, w->to); }
static void put_text(writer *w, const char *text) {
    put_u64(w, strlen(text));
    fwrite(text, 1, strlen(text), w->to);
}

static void put_number(writer *w, const char *key, int64_t v) {
    put_text(w, key);
    put_u32(w, U32);
    put_u32(w, (uint32_t)v);
}

static void put_float(writer *w, const char *key, float v) {
    put_text(w, key);
    put_u32(w, F32);
    fwrite(&v, sizeof v, 1, w->to);
}

static void put_words(writer *w, const char *key, const char *v) {
    put_text(w, key);
    put_u32(w, TEXT);
    put_text(w, v);
}

static void pad(writer *w, int64_t size) {
    static const uint8_t zeros[ALIGNMENT];
    fwrite(zeros, 1, (size_t)(nb_ceildiv(size, ALIGNMENT) * ALIGNMENT - size), w->to);
}

static uint16_t half(writer *w, float v) {
    const uint32_t bits = nb_float_encode(NB_F16, v);
    w->rounded = w->rounded || nb_float_decode(NB_F16, bits) != v;
    return (uint16_t)bits;
}

/* ---- blocks --------------------------------------------------------------------------------- */

/* A matrix while it is written: element (row, i) stands at row * row_step + i * step. */
typedef struct matrix {
    const nb_llama_tensor *t;
    const nb_gguf_type *type;
    nb_reals *reals;
    nb_tensor scale_codes, scales, minimum_codes, minima; /* of two levels */
} matrix;

static int64_t place(const nb_llama_tensor *t, int64_t row, int64_t i, int64_t each) {
    return t->rows || t->w->type->rank == 1 ? row * each + i : i * outputs_of(t) + row;
}

/* The graph's row that is row `row` of the file: halves (a, b) become (a0, b0, a1, b1, ...). */
static int64_t source_row(const nb_llama_tensor *t, int64_t row) {
    if (!t->turns) return row;
    const int64_t n = t->w->type->rank == 1 ? inputs_of(t) : outputs_of(t), head = n / t->turns,
                  in = row % head;
    return row - in + in / 2 + (in % 2) * (head / 2);
}

static void fill_levels(const matrix *m, int64_t row, int64_t number, nb_gguf_block *b) {
    const int64_t runs = m->type->count / m->type->form->run,
                  blocks = inputs_of(m->t) / m->type->count, each = blocks * runs;
    for (int64_t i = 0; i < runs; i++) {
        const int64_t at = place(m->t, row, number * runs + i, each);
        b->scales[i] = (int16_t)nb_tensor_get_int(&m->scale_codes, at);
        if (m->type->form->minima) b->minima[i] = (int16_t)nb_tensor_get_int(&m->minimum_codes, at);
    }
    const int64_t at = place(m->t, row, number, blocks);
    b->scale = (uint16_t)nb_elem_get(NB_F16, m->scales.data, at);
    if (m->type->form->minima) b->minimum = (uint16_t)nb_elem_get(NB_F16, m->minima.data, at);
}

static void fill_block(writer *w, const matrix *m, int64_t row, int64_t number, nb_gguf_block *b) {
    const int64_t K = inputs_of(m->t), first = number * m->type->count;
    const nb_codes *c = &m->reals->codes;
    for (int64_t i = 0; i < m->type->count; i++)
        b->codes[i] = (int16_t)nb_tensor_get_int(&m->reals->tensor, place(m->t, row, first + i, K));
    if (m->type->form->scales != NB_F16) {
        fill_levels(m, row, number, b);
        return;
    }
    const int64_t at = place(m->t, row, first, K), run = nb_codes_run(c, at);
    const float scale = nb_codes_scale(c, at), minimum = nb_quant_has_minima(c->q)
                                                             ? nb_quant_minimum(c->q, run)
                                                             : (float)-nb_codes_zero(c, at) * scale;
    b->scale = half(w, scale);
    if (m->type->form->minima) b->minimum = half(w, minimum);
}

static void open_levels(const nb_value *scales, nb_tensor *codes, nb_tensor *halves) {
    if (!scales || !scales->type->quant) return;
    *codes = nb_tensor_of_const(scales);
    *halves = nb_tensor_of_const(scales->type->quant->scales);
}

static void write_row(writer *w, const matrix *m, int64_t row) {
    const int64_t K = inputs_of(m->t);
    if (!m->type->form) {
        const bool vector = m->t->w->type->rank == 1;
        for (int64_t i = 0; i < K; i++) {
            const int64_t at =
                vector ? source_row(m->t, i) : place(m->t, source_row(m->t, row), i, K);
            const float v = (float)nb_real(m->reals, at);
            fwrite(&v, sizeof v, 1, w->to);
        }
        return;
    }
    for (int64_t i = 0; i < K / m->type->count; i++) {
        nb_gguf_block b = {0};
        uint8_t bytes[NB_GGUF_BLOCK] = {0};
        fill_block(w, m, source_row(m->t, row), i, &b);
        m->type->form->write(&b, bytes);
        fwrite(bytes, 1, (size_t)m->type->bytes, w->to);
    }
}

static int64_t bytes_of(const nb_llama_tensor *t, const nb_gguf_type *type) {
    return outputs_of(t) * (inputs_of(t) / type->count) * type->bytes;
}

static void write_tensor(writer *w, const nb_llama_tensor *t) {
    nb_arena *scratch = nb_arena_create_like(w->arena);
    matrix m = {.t = t, .type = type_of(t), .reals = NB_NEW(scratch, nb_reals)};
    const nb_quant *q = t->w->type->quant;
    nb_reals_open(m.reals, t->w, scratch);
    if (q) open_levels(q->scales, &m.scale_codes, &m.scales);
    if (q) open_levels(q->minima, &m.minimum_codes, &m.minima);
    for (int64_t row = 0; row < outputs_of(t); row++) write_row(w, &m, row);
    pad(w, bytes_of(t, m.type));
    nb_blob_rest(t->w->blob);
    nb_arena_destroy(scratch);
}

/* ---- the file ------------------------------------------------------------------------------- */

static void write_head(writer *w, const char *name) {
    const nb_llama *l = &w->llama;
    const size_t extra = l->factors ? 1 : 0;
    fwrite("GGUF", 1, 4, w->to);
    put_u32(w, 3);
    put_u64(w, l->tensors.count + extra);
    put_u64(w, 14);
    put_words(w, "general.architecture", "llama");
    put_words(w, "general.name", name);
    put_number(w, "llama.block_count", l->layers);
    put_number(w, "llama.context_length", 4096);
    put_number(w, "llama.embedding_length", l->width);
    put_number(w, "llama.feed_forward_length", l->hidden);
    put_number(w, "llama.attention.head_count", l->heads);
    put_number(w, "llama.attention.head_count_kv", l->groups);
    put_number(w, "llama.attention.key_length", l->head);
    put_number(w, "llama.attention.value_length", l->head);
    put_float(w, "llama.attention.layer_norm_rms_epsilon", l->eps);
    put_float(w, "llama.rope.freq_base", l->base);
    put_number(w, "llama.vocab_size", l->vocabulary);
    put_words(w, "tokenizer.ggml.model", "no_vocab");
}

static void put_about(writer *w, const char *name, int rank, const int64_t *dims, uint32_t type,
                      int64_t *offset, int64_t bytes) {
    put_text(w, name);
    put_u32(w, (uint32_t)rank);
    for (int d = 0; d < rank; d++) put_u64(w, (uint64_t)dims[d]);
    put_u32(w, type);
    put_u64(w, (uint64_t)*offset);
    *offset += nb_ceildiv(bytes, ALIGNMENT) * ALIGNMENT;
}

static void write_all(writer *w, const char *name) {
    const nb_llama *l = &w->llama;
    const int64_t n = l->head / 2;
    int64_t offset = 0;
    write_head(w, name);
    for (size_t i = 0; i < l->tensors.count; i++) {
        const nb_llama_tensor *t = &l->tensors.items[i];
        const nb_gguf_type *type = type_of(t);
        put_about(w, t->name, t->w->type->rank, (int64_t[2]){inputs_of(t), outputs_of(t)},
                  type->number, &offset, bytes_of(t, type));
    }
    if (l->factors) put_about(w, "rope_freqs.weight", 1, &n, 0, &offset, 4 * n);
    pad(w, ftell(w->to));
    for (size_t i = 0; i < l->tensors.count && !ferror(w->to); i++)
        write_tensor(w, &l->tensors.items[i]);
    if (!l->factors) return;
    fwrite(l->factors, sizeof *l->factors, (size_t)n, w->to);
    pad(w, 4 * n);
}

nb_status nb_export_gguf(nb_graph *g, const char *path, nb_diags *diags) {
    nb_arena *arena = nb_arena_create_like(g->arena);
    writer w = {.arena = arena, .diags = diags};
    nb_output f;
    nb_status status = nb_llama_find(g, arena, diags, &w.llama);
    if (status == NB_OK) status = nb_output_open(path, diags, &f);
    if (status == NB_OK) {
        w.to = f.stream;
        write_all(&w, g->name);
        status = nb_output_close(&f, NB_OK);
    }
    if (status == NB_OK && w.rounded)
        nb_inform(diags, (nb_where){.file = path, .offset = -1},
                  "scales that are f32 were rounded to f16, as GGUF has them");
    nb_arena_destroy(arena);
    return status;
}
