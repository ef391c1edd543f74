/* A weight as a constant of blocks (block_weights.h): codes, codes of scales and minima, and their
 * scales in f16, each a constant of its own. */
#include "passes/block_weights.h"

#include "ir/support/parallel.h"
#include "passes/weight_codes.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

/* Columns in a turn of the parallel loop; a multiple of 8, so that turns share no byte. */
#define TURN_COLUMNS 256

enum { CODES, SCALES, MINIMA, SCALE, MINIMUM, PARTS };

/* One of the constants a weight becomes: rows by the weight's columns. */
typedef struct part {
    nb_elem elem;
    int64_t rows;
    nb_blob *blob;
    void *data;
} part;

typedef struct job {
    const nb_block_form *form;
    const float *data;
    int64_t rows, cols;
    part parts[PARTS]; /* those the form does not have: without rows */
    atomic_llong bad;  /* the first element that does not fit, or NONE */
} job;

#define NONE INT64_MAX

static void put(job *j, int which, int64_t row, int64_t col, uint64_t bits) {
    const part *p = &j->parts[which];
    if (p->data) nb_elem_put(p->elem, p->data, row * j->cols + col, bits);
}

static void put_block(job *j, int64_t block, int64_t col, const nb_block *b, int64_t n) {
    const int64_t first = block * j->form->size, of_parts = j->form->size / j->form->part;
    for (int64_t i = 0; i < n; i++) put(j, CODES, first + i, col, (uint64_t)b->codes[i]);
    for (int64_t i = 0; i < nb_ceildiv(n, j->form->part); i++) {
        put(j, SCALES, block * of_parts + i, col, (uint64_t)b->scales[i]);
        put(j, MINIMA, block * of_parts + i, col, (uint64_t)b->minima[i]);
    }
    put(j, SCALE, block, col, b->scale);
    put(j, MINIMUM, block, col, b->minimum);
}

static void note_bad(job *j, long long at) {
    long long seen = atomic_load(&j->bad);
    while (at < seen && !atomic_compare_exchange_weak(&j->bad, &seen, at)) {
    }
}

/* Is it a number? */
static bool is_finite_half(uint16_t bits) { return (bits & 0x7c00) != 0x7c00; }

static void round_column(job *j, int64_t block, int64_t col) {
    const int64_t first = block * j->form->size, n = nb_min_i64(j->form->size, j->rows - first);
    float w[NB_BLOCK_MAX];
    for (int64_t i = 0; i < n; i++) {
        w[i] = j->data[(first + i) * j->cols + col];
        if (isfinite(w[i])) continue;
        note_bad(j, (first + i) * j->cols + col);
        return;
    }
    nb_block b;
    j->form->round(w, n, &b);
    if (!is_finite_half(b.scale) || (j->form->minima && !is_finite_half(b.minimum)))
        note_bad(j, first * j->cols + col);
    put_block(j, block, col, &b, n);
}

static void round_turn(void *user, int64_t turn) {
    job *j = user;
    const int64_t turns = nb_ceildiv(j->cols, TURN_COLUMNS), from = turn % turns * TURN_COLUMNS,
                  to = nb_min_i64(from + TURN_COLUMNS, j->cols);
    for (int64_t col = from; col < to; col++) round_column(j, turn / turns, col);
}

/* Do rows of all parts begin at a byte? */
static bool rows_are_bytes(const job *j) {
    for (int i = 0; i < PARTS; i++) {
        if (j->cols * nb_elems[j->parts[i].elem].bits % 8) return false;
    }
    return true;
}

static bool allocate(job *j) {
    const nb_block_form *f = j->form;
    const int64_t blocks = nb_ceildiv(j->rows, f->size), runs = nb_ceildiv(j->rows, f->part);
    const bool levels = f->scales != NB_F16;
    j->parts[CODES] = (part){.elem = f->codes, .rows = j->rows};
    j->parts[SCALES] = (part){.elem = f->scales, .rows = levels ? runs : 0};
    j->parts[MINIMA] = (part){.elem = f->scales, .rows = f->minima ? runs : 0};
    j->parts[SCALE] = (part){.elem = NB_F16, .rows = blocks};
    j->parts[MINIMUM] = (part){.elem = NB_F16, .rows = f->minima ? blocks : 0};
    for (int i = 0; i < PARTS; i++) {
        part *p = &j->parts[i];
        const int64_t bytes = (p->rows * j->cols * nb_elems[p->elem].bits + 7) / 8;
        if (p->rows && !(p->blob = nb_blob_create(bytes, &p->data))) return false;
        if (p->data) memset(p->data, 0, (size_t)bytes);
    }
    return true;
}

static nb_value *add(nb_pass_ctx *ctx, const nb_value *w, const char *suffix, job *j, int which,
                     const nb_quant *quant) {
    nb_graph *g = ctx->graph;
    const part *p = &j->parts[which];
    const nb_dim *dims[] = {nb_dim_const(g, p->rows), nb_dim_const(g, j->cols)};
    return nb_add_part(ctx, w, suffix, nb_type_intern(g, p->elem, quant, 2, dims), p->blob);
}

/* Codes of scales or minima with their f16; f16 alone where the form has no codes. */
static nb_value *add_numbers(nb_pass_ctx *ctx, const nb_value *w, const char *suffix, job *j,
                             int codes, int halves) {
    if (!j->parts[codes].data) return add(ctx, w, suffix, j, halves, NULL);
    const char *name = nb_format(ctx->graph->arena, "%s.scale", suffix);
    const nb_quant q = {.storage = j->form->scales,
                        .granularity = NB_PER_GROUP,
                        .group = j->form->size / j->form->part,
                        .scale = 1,
                        .scales = add(ctx, w, name, j, halves, NULL)};
    name = nb_format(ctx->graph->arena, "%s%s", w->name, suffix);
    const nb_quant *known = nb_quant_intern(ctx->graph, &q, name, nb_diags_of(ctx));
    return known ? add(ctx, w, suffix, j, codes, known) : NULL;
}

static nb_value *add_all(nb_pass_ctx *ctx, const nb_value *w, job *j) {
    nb_quant q = {.storage = j->form->codes,
                  .granularity = NB_PER_GROUP,
                  .group = j->form->part,
                  .scale = 1,
                  .scales = add_numbers(ctx, w, ".scale", j, SCALES, SCALE)};
    if (j->form->minima) q.minima = add_numbers(ctx, w, ".min", j, MINIMA, MINIMUM);
    if (!q.scales || (j->form->minima && !q.minima)) return NULL;
    const nb_quant *known = nb_quant_intern(ctx->graph, &q, w->name, nb_diags_of(ctx));
    return known ? add(ctx, w, ".q", j, CODES, known) : NULL;
}

nb_value *nb_block_weight(nb_pass_ctx *ctx, const nb_op *op, const nb_value *w,
                          const nb_block_form *form) {
    job j = {.form = form,
             .data = w->blob->data,
             .rows = w->type->dims[0]->value,
             .cols = w->type->dims[1]->value};
    atomic_init(&j.bad, NONE);
    bool ok = allocate(&j);
    if (!ok) {
        nb_codes_no_memory(ctx, w);
    } else {
        const int64_t turns = nb_ceildiv(j.rows, form->size) * nb_ceildiv(j.cols, TURN_COLUMNS);
        if (rows_are_bytes(&j))
            nb_parallel(turns, round_turn, &j);
        else
            for (int64_t turn = 0; turn < turns; turn++) round_turn(&j, turn);
        const long long bad = atomic_load(&j.bad);
        ok = bad == NONE;
        if (!ok) nb_codes_misfit(ctx, op, w, bad);
    }
    if (ok) return add_all(ctx, w, &j);
    for (int i = 0; i < PARTS; i++) nb_blob_release(j.parts[i].blob);
    return NULL;
}
