/* Constants in new coordinates (rotate.h): computed in double precision, sixteen runs side by side,
 * rounded to f32 after each turn. */
#include "ir/support/parallel.h"
#include "passes/rotate.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

void nb_turns_add(nb_turns *t, nb_use *use, nb_turn turn) {
    nb_arena *scratch = nb_state_of(t->ctx)->scratch;
    nb_turned *to = NULL;
    for (size_t i = 0; i < t->list.count && !to; i++) {
        if (t->list.items[i].use == use) to = &t->list.items[i];
    }
    if (!to) {
        nb_turned none = {.use = use, .old = use->value};
        nb_vec_push(scratch, &t->list, none);
        to = &t->list.items[t->list.count - 1];
    }
    nb_vec_push(scratch, &to->turns, turn);
}

/* ---- one turn ------------------------------------------------------------------------------ */

typedef struct job {
    const nb_turn *turn;
    float *data;
    int64_t rows, cols;
    atomic_bool no_memory;
} job;

#define LANES NB_ROTATION_LANES

static int64_t runs_across(const job *j) {
    return nb_ceildiv(j->turn->axis ? j->rows : j->cols, LANES);
}

static void centre(double *v, int64_t n) {
    for (int64_t c = 0; c < LANES; c++) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++) sum += v[i * LANES + c];
        for (int64_t i = 0; i < n; i++) v[i * LANES + c] -= sum / (double)n;
    }
}

/* Sixteen runs next to each other. */
static void turn_some(void *user, int64_t index) {
    job *j = user;
    const nb_turn *t = j->turn;
    const nb_rotation *r = t->by;
    const int64_t along = t->axis ? 1 : j->cols, across = t->axis ? j->cols : 1;
    const int64_t first = index % runs_across(j) * LANES,
                  at = t->from + index / runs_across(j) * r->n;
    const int64_t lanes = nb_min_i64(LANES, (t->axis ? j->rows : j->cols) - first);
    const float *gain = t->gain ? t->gain->blob->data : NULL;
    double *v = calloc((size_t)((r->n + r->order) * LANES), sizeof *v);
    if (!v) {
        atomic_store(&j->no_memory, true);
        return;
    }
    float *data = j->data + at * along + first * across;
    for (int64_t i = 0; i < r->n; i++) {
        const double factor = gain ? (double)gain[at + i] : 1;
        for (int64_t c = 0; c < lanes; c++)
            v[i * LANES + c] = (double)data[i * along + c * across] * factor;
    }
    if (t->centred) centre(v, r->n);
    nb_rotation_apply(r, v, v + r->n * LANES);
    for (int64_t i = 0; i < r->n; i++) {
        for (int64_t c = 0; c < lanes; c++) data[i * along + c * across] = (float)v[i * LANES + c];
    }
    free(v);
}

static bool turn_all(job *j) {
    nb_parallel(j->turn->count / j->turn->by->n * runs_across(j), turn_some, j);
    return !atomic_load(&j->no_memory);
}

/* ---- all turns ----------------------------------------------------------------------------- */

static nb_value *turn_constant(nb_turns *t, const nb_turned *what) {
    nb_graph *g = t->ctx->graph;
    const nb_value *old = what->old;
    void *data = NULL;
    nb_blob *blob = nb_blob_create(old->blob->size, &data);
    bool ok = blob != NULL;
    if (ok) memcpy(data, old->blob->data, (size_t)old->blob->size);
    job j = {.data = data, .cols = old->type->dims[old->type->rank - 1]->value};
    j.rows = old->blob->size / (int64_t)sizeof(float) / j.cols;
    for (size_t i = 0; ok && i < what->turns.count; i++) {
        j.turn = &what->turns.items[i];
        ok = turn_all(&j);
    }
    if (!ok) {
        nb_error(nb_diags_of(t->ctx), NB_LIMIT, NB_NOWHERE,
                 "out of memory for the rotated form of '@%s'", old->name);
        nb_blob_release(blob);
        return NULL;
    }
    return nb_graph_add_const(g, nb_format(g->arena, "%s.r", old->name), old->type, blob,
                              nb_loc_via(g, old->loc, "rotate"));
}

static bool is_alike(const nb_turned *a, const nb_turned *b) {
    bool alike = a->old == b->old && a->turns.count == b->turns.count;
    for (size_t i = 0; alike && i < a->turns.count; i++) {
        const nb_turn *x = &a->turns.items[i], *y = &b->turns.items[i];
        alike = x->by == y->by && x->axis == y->axis && x->from == y->from &&
                x->count == y->count && x->gain == y->gain && x->centred == y->centred;
    }
    return alike;
}

bool nb_turns_apply(nb_turns *t) {
    for (size_t i = 0; i < t->list.count; i++) {
        nb_turned *what = &t->list.items[i];
        for (size_t k = 0; k < i && !what->made; k++) {
            if (is_alike(&t->list.items[k], what)) what->made = t->list.items[k].made;
        }
        if (!what->made) what->made = turn_constant(t, what);
        if (!what->made) return false;
        nb_op *op = what->use->user;
        nb_set_operand(what->use, what->made);
        op->loc = nb_loc_via(t->ctx->graph, op->loc, "rotate");
    }
    return true;
}

/* ---- what passes through a layer ----------------------------------------------------------- */

/* The constant that alone is added to a layer's result, or NULL. */
static nb_use *bias_of(const nb_op *layer) {
    const nb_value *y = nb_out(layer);
    nb_op *add = nb_has_one_use(y) && y->uses->user->kind == NB_OP_add ? y->uses->user : NULL;
    nb_use *bias = add ? &add->operands[1 - y->uses->index] : NULL;
    return bias && nb_is_float_const(bias->value) && bias->value->type->rank == 1 &&
                   bias->value->type->dims[0] == y->type->dims[y->type->rank - 1]
               ? bias
               : NULL;
}

void nb_add_through(nb_pass_ctx *ctx, const nb_value *vector, nb_op *layer) {
    nb_graph *g = ctx->graph;
    nb_arena *scratch = nb_state_of(ctx)->scratch;
    const nb_value *w = nb_in(layer, 1);
    const int64_t rows = w->type->dims[0]->value, cols = w->type->dims[1]->value;
    const float *x = vector->blob->data, *m = w->blob->data;
    nb_use *bias = bias_of(layer);
    const float *old = bias ? bias->value->blob->data : NULL;
    double *sum = NB_NEW_ARRAY(scratch, double, (size_t)cols);
    float *y = NB_NEW_ARRAY(scratch, float, (size_t)cols);
    for (int64_t j = 0; j < cols; j++) sum[j] = old ? (double)old[j] : 0;
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < cols; j++) sum[j] += (double)x[i] * (double)m[i * cols + j];
    }
    for (int64_t j = 0; j < cols; j++) y[j] = (float)sum[j];
    const nb_value *from = bias ? bias->value : vector;
    nb_value *c = nb_const_f32(g, nb_format(g->arena, "%s.r", from->name), 1, &cols, y);
    c->loc = nb_loc_via(g, from->loc, "rotate");
    if (bias) {
        nb_set_operand(bias, c);
        return;
    }
    nb_builder b = nb_pass_builder(ctx, layer->next, layer->loc);
    nb_value *all = nb_binary(&b, NB_OP_add, nb_out(layer), c);
    nb_replace_uses(nb_out(layer), all);
    nb_set_operand(&all->def->operands[0], nb_out(layer));
}
