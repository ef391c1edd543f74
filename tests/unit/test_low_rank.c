/* low-rank: the thin products are the best of their rank, by the measure of each method. The test
 * finds the best by itself: what is left is the sum of the smaller eigenvalues of (TE)'(TE), which
 * Jacobi's rotations give. */
#include "ir/text.h"
#include "passes/branch.h"
#include "passes/factor.h"
#include "passes/linear.h"
#include "tests/unit/unit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MOST 24

static uint64_t state;

static float next(void) {
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (float)((double)(state >> 40) / (double)(1 << 23)) - 1;
}

#define TOKENS 40

/* Rows whose moments are far from the identity. */
static void make_rows(float *x, int n) {
    for (int t = 0; t < TOKENS; t++) {
        float common = next();
        for (int i = 0; i < n; i++)
            x[t * n + i] = (next() + 2 * common) * (i % 5 == 0 ? 6.0f : 1.0f);
    }
}

/* Their second moments [n, n]. */
static void make_gram(const float *x, float *h, int n) {
    for (int i = 0; i < n * n; i++) h[i] = 0;
    for (int t = 0; t < TOKENS; t++)
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++) h[i * n + j] += x[t * n + i] * x[t * n + j] / TOKENS;
}

/* d' h d for d [rows, cols], as a matrix [cols, cols]. */
static void quadratic(const double *h, const double *d, int rows, int cols, double *out) {
    for (int a = 0; a < cols; a++) {
        for (int b = 0; b < cols; b++) {
            double sum = 0;
            for (int i = 0; i < rows; i++)
                for (int j = 0; j < rows; j++)
                    sum += d[i * cols + a] * h[i * rows + j] * d[j * cols + b];
            out[a * cols + b] = sum;
        }
    }
}

/* Eigenvalues of a symmetric matrix, which is used up, by cyclic Jacobi. */
static void eigenvalues(double *m, int n, double *out) {
    for (int sweep = 0; sweep < 60; sweep++) {
        for (int p = 0; p < n; p++) {
            for (int q = p + 1; q < n; q++) {
                if (m[p * n + q] == 0) continue;
                double theta = 0.5 * atan2(2 * m[p * n + q], m[q * n + q] - m[p * n + p]),
                       c = cos(theta), s = sin(theta);
                for (int k = 0; k < n; k++) {
                    double a = m[k * n + p], b = m[k * n + q];
                    m[k * n + p] = c * a - s * b;
                    m[k * n + q] = s * a + c * b;
                }
                for (int k = 0; k < n; k++) {
                    double a = m[p * n + k], b = m[q * n + k];
                    m[p * n + k] = c * a - s * b;
                    m[q * n + k] = s * a + c * b;
                }
            }
        }
    }
    for (int i = 0; i < n; i++) out[i] = m[i * n + i];
}

static int descending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* The smallest loss that any product of that rank can have. */
static double best_loss(const double *h, const float *e, int rows, int cols, int rank) {
    double d[MOST * MOST], m[MOST * MOST], values[MOST], sum = 0;
    for (int i = 0; i < rows * cols; i++) d[i] = (double)e[i];
    quadratic(h, d, rows, cols, m);
    eigenvalues(m, cols, values);
    qsort(values, (size_t)cols, sizeof *values, descending);
    for (int i = rank; i < cols; i++) sum += fmax(values[i], 0);
    return sum;
}

static double loss_of(const double *h, const float *e, const float *a, const float *b, int rows,
                      int cols, int rank) {
    double d[MOST * MOST], m[MOST * MOST], sum = 0;
    for (int i = 0; i < rows; i++) {
        for (int k = 0; k < cols; k++) {
            d[i * cols + k] = (double)e[i * cols + k];
            for (int r = 0; r < rank; r++)
                d[i * cols + k] -= (double)a[i * rank + r] * (double)b[r * cols + k];
        }
    }
    quadratic(h, d, rows, cols, m);
    for (int k = 0; k < cols; k++) sum += m[k * cols + k];
    return sum;
}

typedef struct shape {
    int rows, cols, rank;
} shape;
static const shape shapes[] = {{7, 5, 2}, {5, 9, 3}, {24, 20, 1},
                               {6, 6, 6}, {1, 4, 1}, {24, 23, 4}};

enum { PLAIN, SCALED, GRAM, WEIGHINGS };

START_TEST(is_the_best) {
    const shape *s = &shapes[_i / WEIGHINGS];
    const int rows = s->rows, cols = s->cols, rank = s->rank, kind = _i % WEIGHINGS;
    float e[MOST * MOST], used[MOST * MOST], gram[MOST * MOST], scale[MOST], x[TOKENS * MOST],
        a[MOST * MOST], b[MOST * MOST];
    double h[MOST * MOST] = {0};
    state = (uint64_t)_i + 1;
    for (int i = 0; i < rows * cols; i++) e[i] = used[i] = next();
    for (int i = 0; i < rows; i++) scale[i] = 0.1f + fabsf(next()) * 5;
    make_rows(x, rows);
    make_gram(x, gram, rows);
    for (int i = 0; i < rows; i++) gram[i * rows + i] += 0.1f;
    for (int i = 0; i < rows * rows; i++) h[i] = kind == GRAM ? (double)gram[i] : 0;
    for (int i = 0; i < rows; i++) {
        if (kind != GRAM)
            h[i * rows + i] = kind == SCALED ? (double)scale[i] * (double)scale[i] : 1;
    }
    nb_factoring f = {.rows = rows,
                      .cols = cols,
                      .rank = rank,
                      .scale = kind == SCALED ? scale : NULL,
                      .gram = kind == GRAM ? gram : NULL};
    ck_assert(nb_factor(&f, used, a, b));
    double best = best_loss(h, e, rows, cols, rank), all = best_loss(h, e, rows, cols, 0),
           got = loss_of(h, e, a, b, rows, cols, rank);
    ck_assert_msg(fabs(got - best) <= 1e-5 * all, "%d x %d rank %d: %g, the best is %g of %g", rows,
                  cols, rank, got, best, all);
}
END_TEST

/* A gram that is singular, or damaged. */
START_TEST(bad_grams) {
    float e[4] = {1, 2, 3, 4}, a[2], b[2], zero[4] = {0}, nan[4] = {NAN, 0, 0, 1};
    nb_factoring f = {.rows = 2, .cols = 2, .rank = 1, .gram = zero};
    ck_assert(!nb_factor(&f, e, a, b));
    f.gram = nan;
    ck_assert(!nb_factor(&f, e, a, b));
}
END_TEST

/* ---- the pass ------------------------------------------------------------------------------- */

#define K 24
#define N 20

typedef struct passed {
    nb_arena *arena;
    nb_graph *graph;
    nb_pass_env env;
    float weight[K * N]; /* as the graph has it */
} passed;

static void open_graph(passed *t) {
    *t = (passed){.arena = nb_arena_create(NULL, NULL)};
    t->env = (nb_pass_env){.arena = t->arena,
                           .diags = nb_diags_create(t->arena, NULL),
                           .registry = nb_registry_create(t->arena),
                           .verify_each = true};
    const char *text = "nir 1\ngraph @g(%x: f32[B,24]) -> f32[B,20] {\n"
                       "  const @w: f32[24,20] = random(7, -1..1)\n"
                       "  %y: f32[B,20] = matmul %x, @w at \"/fc/MatMul\"\n  return %y\n}\n";
    ck_assert_int_eq(nb_parse(text, strlen(text), "g", NULL, NULL, NULL, t->env.diags, &t->graph),
                     NB_OK);
    memcpy(t->weight, nb_in(t->graph->body.first, 1)->blob->data, sizeof t->weight);
}

static void close_graph(passed *t) {
    nb_graph_destroy(t->graph);
    nb_arena_destroy(t->arena);
}

static nb_status run_passes(passed *t, const char *text) {
    nb_pipeline pipeline;
    nb_status status = nb_pipeline_parse(t->env.registry, text, t->arena, t->env.diags, &pipeline);
    return status == NB_OK ? nb_pipeline_run(&pipeline, t->graph, &t->env) : status;
}

/* The layer: the product with codes of 4 bits. */
static nb_op *layer_of(const passed *t) {
    NB_FOR_OPS(op, &t->graph->body) {
        const nb_value *w = nb_linear_weight(op);
        if (w && w->type->quant && !nb_is_factor(w)) return op;
    }
    return NULL;
}

/* Elements of a weight as they count. */
static void values_of(const passed *t, const nb_op *product, float *out) {
    const nb_value *w = nb_linear_weight(product);
    nb_tensor in = nb_tensor_of_const(w), y = in;
    if (w->type->quant)
        ck_assert_int_eq(nb_eval_op(nb_in(product, 1)->def, &in, NULL, &y, t->arena, t->env.diags),
                         NB_OK);
    for (int64_t i = 0; i < nb_tensor_count(&y); i++) out[i] = (float)nb_tensor_get(&y, i);
}

/* tr(E' H E) of what the layer and its branch leave; `rank` is checked. */
static double left_over(const passed *t, const double *h, int rank, double *best) {
    nb_op *layer = layer_of(t), *second = nb_branch_find(layer, "low-rank");
    float rounded[K * N], e[K * N], a[K * MOST], b[MOST * N];
    ck_assert_ptr_nonnull(second);
    values_of(t, layer, rounded);
    values_of(t, nb_in(second, 0)->def, a);
    values_of(t, second, b);
    ck_assert_int_eq(nb_linear_weight(second)->type->dims[0]->value, rank);
    for (int i = 0; i < K * N; i++) e[i] = t->weight[i] - rounded[i];
    *best = best_loss(h, e, K, N, rank);
    return loss_of(h, e, a, b, K, N, rank);
}

/* Each method is the best by its own measure and, here, not by the others'. */
START_TEST(methods) {
    static const char *const pipelines[] = {
        "quantize-weights{bits=4}, low-rank{bits=32, rank=3}",
        "quantize-weights{bits=4}, low-rank{bits=32, rank=3, method=l2qer}",
        "quantize-weights{bits=4}, low-rank{bits=32, rank=3, method=eora}"};
    double h[3][K * K] = {0}, mean = 0;
    float gram[K * K], mean_abs[K], x[TOKENS * K];
    nb_stats stats = {.channels = K, .mean_abs = mean_abs};
    nb_tensor in = {.elem = NB_F32, .rank = 2, .dims = {TOKENS, K}, .data = x, .bytes = sizeof x};
    const nb_sample sample = {&in};
    state = 5;
    make_rows(x, K);
    make_gram(x, gram, K);
    for (int i = 0; i < K; i++) {
        mean_abs[i] = 0.1f + fabsf(next()) * 9;
        mean += (double)gram[i * K + i] / K;
    }
    for (int i = 0; i < K * K; i++) h[2][i] = (double)gram[i];
    for (int i = 0; i < K; i++) {
        h[0][i * K + i] = 1;
        h[1][i * K + i] = (double)mean_abs[i] * (double)mean_abs[i];
        h[2][i * K + i] += 0.01 * mean; /* the damping that the pass states */
    }
    for (int method = 0; method < 3; method++) {
        passed t;
        open_graph(&t);
        t.env.stats.arena = t.arena;
        t.env.samples = &sample;
        t.env.n_samples = 1;
        nb_map_set(&t.env.stats, t.graph->body.params[0], &stats);
        ck_assert_int_eq(run_passes(&t, pipelines[method]), NB_OK);
        for (int measure = 0; measure < 3; measure++) {
            double best, got = left_over(&t, h[measure], 3, &best);
            if (measure == method)
                ck_assert_msg(got <= best * 1.0001, "method %d: %g, best %g", method, got, best);
            else
                ck_assert_msg(got > best * 1.02, "method %d by %d: %g, best %g", method, measure,
                              got, best);
        }
        close_graph(&t);
    }
}
END_TEST

/* What rounding A and B costs: little, and more for fewer bits. */
START_TEST(storage) {
    static const char *const pipelines[] = {"quantize-weights{bits=4}, low-rank{rank=2, bits=16}",
                                            "quantize-weights{bits=4}, low-rank{rank=2, bits=8}"};
    static const double within[] = {1.00001, 1.002};
    double h[K * K] = {0};
    for (int i = 0; i < K; i++) h[i * K + i] = 1;
    for (int i = 0; i < 2; i++) {
        passed t;
        double best;
        open_graph(&t);
        ck_assert_int_eq(run_passes(&t, pipelines[i]), NB_OK);
        double got = left_over(&t, h, 2, &best);
        ck_assert_msg(got <= best * within[i] && got > best, "%s: %g, best %g", pipelines[i], got,
                      best);
        const nb_type *b = nb_linear_weight(nb_branch_find(layer_of(&t), "low-rank"))->type;
        ck_assert_int_eq(b->elem, i ? NB_I8 : NB_F16);
        close_graph(&t);
    }
}
END_TEST

/* Float weights are kept for the passes that need them, and no longer. */
START_TEST(originals) {
    passed t;
    open_graph(&t);
    ck_assert_int_eq(run_passes(&t, "quantize-weights{bits=4}, low-rank{rank=40}, simplify"),
                     NB_OK);
    ck_assert_uint_eq(t.env.originals.count, 0);
    double best, h[K * K] = {0};
    for (int i = 0; i < K; i++) h[i * K + i] = 1;
    left_over(&t, h, N, &best); /* the rank ends at the smaller side */
    close_graph(&t);
    open_graph(&t);
    ck_assert_int_eq(run_passes(&t, "quantize-weights{bits=4}"), NB_OK);
    ck_assert_uint_eq(t.env.originals.count, 0);
    ck_assert_int_ne(run_passes(&t, "low-rank"), NB_OK);
    close_graph(&t);
}
END_TEST

Suite *nb_suite_low_rank(void) {
    Suite *s = suite_create("low_rank");
    TCase *c = tcase_create("factors");
    tcase_add_loop_test(c, is_the_best, 0, WEIGHINGS * (int)NB_COUNT(shapes));
    tcase_add_test(c, bad_grams);
    suite_add_tcase(s, c);
    c = tcase_create("pass");
    tcase_add_test(c, methods);
    tcase_add_test(c, storage);
    tcase_add_test(c, originals);
    suite_add_tcase(s, c);
    return s;
}
