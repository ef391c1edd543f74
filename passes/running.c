/* Activation scales that follow the data (running.h). */
#include "passes/running.h"

#include <string.h>

/* The parts of the state, along its last axis. */
enum { BOUND, LARGEST, TOKENS, PARTS };

static nb_value *number(nb_builder *b, const char *name, double v) {
    float f = (float)v;
    return nb_const_f32(b->graph, name, 0, NULL, &f);
}

static nb_value *where(nb_builder *b, nb_value *cond, nb_value *yes, nb_value *no) {
    nb_begin(b, NB_OP_where);
    nb_arg(b, cond);
    nb_arg(b, yes);
    nb_arg(b, no);
    return nb_end(b);
}

/* Axis 0 of what has more than two counts sequences, which do not see each other. */
static int first_axis(const nb_type *t) { return t->rank > 2; }

static nb_value *add_state(nb_builder *b, const nb_value *x) {
    nb_graph *g = b->graph;
    int rank = x->type->rank;
    const nb_dim *dims[NB_MAX_RANK];
    for (int d = 0; d < rank; d++) dims[d] = nb_dim_const(g, d + 1 < rank ? 1 : PARTS);
    if (first_axis(x->type)) dims[0] = x->type->dims[0];
    return nb_graph_add_input(g, nb_format(g->arena, "%s.running", x->name),
                              nb_type_intern(g, NB_F32, NULL, rank, dims));
}

static nb_value *part_of(nb_builder *b, nb_value *state, int part) {
    const nb_type *t = state->type;
    const nb_dim *start[NB_MAX_RANK], *count[NB_MAX_RANK];
    int64_t step[NB_MAX_RANK];
    for (int d = 0; d < t->rank; d++) {
        bool last = d + 1 == t->rank;
        start[d] = nb_dim_const(b->graph, last ? part : 0);
        count[d] = last ? nb_dim_const(b->graph, 1) : t->dims[d];
        step[d] = 1;
    }
    nb_begin(b, NB_OP_slice);
    nb_arg(b, state);
    nb_set_dims(b, "start", (size_t)t->rank, start);
    nb_set_dims(b, "count", (size_t)t->rank, count);
    nb_set_ints(b, "step", (size_t)t->rank, step);
    return nb_end(b);
}

static nb_value *largest_of(nb_builder *b, nb_value *x) {
    int64_t axes[NB_MAX_RANK];
    size_t n = 0;
    for (int d = first_axis(x->type); d < x->type->rank; d++) axes[n++] = d;
    nb_value *magnitudes = nb_unary(b, NB_OP_abs, x);
    nb_begin(b, NB_OP_reduce_max);
    nb_arg(b, magnitudes);
    nb_set_ints(b, "axes", n, axes);
    nb_set_bool(b, "keep", true);
    return nb_end(b);
}

/* The rows of x that belong to one sequence, as a float. */
static nb_value *tokens_of(nb_builder *b, const nb_value *x) {
    const nb_dim *count = nb_dim_const(b->graph, 1);
    for (int d = first_axis(x->type); d + 1 < x->type->rank; d++)
        count = nb_dim_mul(b->graph, count, x->type->dims[d]);
    nb_begin(b, NB_OP_dims);
    nb_set_dims(b, "values", 1, &count);
    nb_set_bool(b, "scalar", true);
    nb_value *n = nb_end(b);
    return n ? nb_cast(b, n, NB_F32) : NULL;
}

/* Makes `next` an output, and the state's other end. */
static void end_state(nb_graph *g, const nb_value *state, nb_value *next) {
    size_t n = g->outputs.count;
    nb_value **values = (nb_value **)nb_alloc_array(g->arena, n + 1, sizeof *values);
    const char **names = (const char **)nb_alloc_array(g->arena, n + 1, sizeof *names);
    for (size_t i = 0; i < n; i++) {
        values[i] = nb_in(g->body.last, i);
        names[i] = g->outputs.items[i];
    }
    values[n] = next;
    names[n] = nb_format(g->arena, "%s.next", state->name);
    nb_graph_set_outputs(g, n + 1, values, names);
    nb_state pair = {.input = state->index, .output = (uint32_t)n, .axis = -1};
    nb_vec_push(g->arena, &g->states, pair);
}

nb_value *nb_running_bound(nb_builder *b, nb_value *x, const nb_running *how) {
    nb_value *state = add_state(b, x), *zero = number(b, "zero", 0);
    nb_value *largest_now = largest_of(b, x), *bound = part_of(b, state, BOUND);
    nb_value *start = how->start > 0 ? number(b, "start", how->start) : largest_now;
    nb_value *used = where(b, nb_binary(b, NB_OP_lt, zero, bound), bound, start);
    nb_value *largest = nb_binary(b, NB_OP_max, part_of(b, state, LARGEST), largest_now);
    nb_value *tokens = nb_binary(b, NB_OP_add, part_of(b, state, TOKENS), tokens_of(b, x));
    nb_value *due = nb_binary(b, NB_OP_le, number(b, "every", how->every), tokens);
    nb_value *less = nb_binary(b, NB_OP_mul, used, number(b, "decay", how->decay));
    nb_value *parts[PARTS] = {
        [BOUND] = where(b, due, nb_binary(b, NB_OP_max, less, largest), used),
        [LARGEST] = where(b, due, zero, largest),
        [TOKENS] = where(b, due, zero, tokens),
    };
    nb_begin(b, NB_OP_concat);
    for (int i = 0; i < PARTS; i++) nb_arg(b, parts[i]);
    nb_set_int(b, "axis", state->type->rank - 1);
    nb_value *next = nb_end(b);
    if (!used || !next) return NULL;
    end_state(b->graph, state, next);
    return used;
}
