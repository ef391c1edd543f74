/* Inputs whose weights stay numbers (exact.h). */
#include "passes/exact.h"

#include "ir/minifloat.h"

#include <stdlib.h>

bool nb_exact_create(nb_exact *e, int64_t n, int64_t cols) {
    *e = (nb_exact){.n = n, .cols = cols};
    const int64_t sizes[] = {n * (int64_t)sizeof(int64_t), n * cols * (int64_t)sizeof(uint16_t)};
    e->inputs = nb_blob_create(sizes[0], &e->parts[0].data);
    e->rows = nb_blob_create(sizes[1], &e->parts[1].data);
    for (size_t i = 0; i < 2; i++) e->parts[i].size = (size_t)sizes[i];
    return e->inputs && e->rows;
}

void nb_exact_release(nb_exact *e) {
    nb_blob_release(e->inputs);
    nb_blob_release(e->rows);
}

/* The n inputs of the largest costs, which are marked by -1. */
static void choose(const nb_exact *e, double *costs, int64_t rows, int32_t *out) {
    int64_t *inputs = e->parts[0].data, chosen = 0;
    for (int64_t k = 0; k < e->n; k++) {
        int64_t best = 0;
        for (int64_t i = 1; i < rows; i++) best = costs[i] > costs[best] ? i : best;
        costs[best] = -1;
    }
    for (int64_t i = 0; i < rows; i++) {
        if (costs[i] >= 0) continue;
        out[chosen] = (int32_t)i;
        inputs[chosen++] = i;
    }
}

bool nb_exact_solve(nb_exact *e, nb_gptq problem, nb_hessian *hessian) {
    double *costs = malloc((size_t)problem.rows * sizeof *costs);
    int32_t *inputs = calloc((size_t)e->n, sizeof *inputs);
    float *rows = malloc((size_t)(e->n * e->cols) * sizeof *rows);
    bool ok = costs && inputs && rows && nb_gptq_sensitivities(&problem, costs);
    if (ok) choose(e, costs, problem.rows, inputs);
    ok = ok && nb_hessian_put_last(hessian, inputs, e->n) == NB_HESSIAN_OK;
    problem.n_exact = e->n;
    problem.exact = rows;
    ok = ok && nb_gptq_solve(&problem);
    for (int64_t i = 0; ok && i < e->n * e->cols; i++)
        ((uint16_t *)e->parts[1].data)[i] = (uint16_t)nb_float_encode(NB_F16, rows[i]);
    free(costs);
    free(inputs);
    free(rows);
    return ok;
}

void nb_exact_add_constants(nb_pass_ctx *ctx, nb_exact *e, const nb_value *w) {
    nb_graph *g = ctx->graph;
    const nb_dim *dims[] = {nb_dim_const(g, e->n), w->type->dims[1]};
    const nb_loc *loc = nb_loc_via(g, w->loc, nb_state_of(ctx)->pass->name);
    e->constants[0] = nb_graph_add_const(g, nb_format(g->arena, "%s.exact.inputs", w->name),
                                         nb_type_intern(g, NB_I64, NULL, 1, dims), e->inputs, loc);
    e->constants[1] = nb_graph_add_const(g, nb_format(g->arena, "%s.exact", w->name),
                                         nb_type_intern(g, NB_F16, NULL, 2, dims), e->rows, loc);
}
