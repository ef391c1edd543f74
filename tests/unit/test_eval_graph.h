/* Small graphs of constants for the evaluator's tests: make values, apply ops with the builder,
 * compare what a run gives with numbers worked out by hand.
 *
 *   eval_graph t;
 *   eval_open(&t);
 *   nb_value *x = eval_f32(&t, DIMS(2), -1, 2);
 *   eval_expect(&t, nb_unary(&t.b, NB_OP_relu, x), "0 2");
 *   eval_close(&t); */
#ifndef NB_TEST_EVAL_GRAPH_H
#define NB_TEST_EVAL_GRAPH_H

#include "ir/build.h"
#include "ir/eval.h"
#include "tests/unit/unit.h"

typedef struct eval_graph {
    nb_arena *arena;
    nb_graph *graph;
    nb_diags *diags;
    nb_builder b;
} eval_graph;

typedef struct eval_dims {
    int rank;
    int64_t dims[NB_MAX_RANK];
} eval_dims;

#define DIMS(...) ((eval_dims){(int)NB_COUNT(((int64_t[]){__VA_ARGS__})), {__VA_ARGS__}})
#define SCALAR    ((eval_dims){0})

void eval_open(eval_graph *t);
void eval_close(eval_graph *t);

/* A constant of that shape; as many numbers follow, as double. A NaN is NAN. */
#define eval_f32(t, dims, ...) eval_const(t, NB_F32, NULL, dims, __VA_ARGS__)
#define eval_const(t, elem, quant, dims, ...) \
    eval_value(t, elem, quant, dims, NB_COUNT(((double[]){__VA_ARGS__})), (double[]){__VA_ARGS__})
nb_value *eval_value(eval_graph *t, nb_elem elem, const nb_quant *quant, eval_dims dims, size_t n,
                     const double *values);
/* Floats in -1..1, always the same for a seed. */
nb_value *eval_random(eval_graph *t, uint64_t seed, eval_dims dims);

const nb_quant *eval_quant(eval_graph *t, nb_quant q);

/* Runs the graph with `v` as its only output and no inputs. */
nb_tensor eval_run(eval_graph *t, nb_value *v);
/* Runs, and compares the elements with numbers written as "1 -0.5 nan inf -0": equal values, equal
 * signs of zero. */
void eval_expect(eval_graph *t, nb_value *v, const char *want);
/* Runs, and expects an error whose text holds `text`. */
void eval_expect_error(eval_graph *t, nb_value *v, const char *text);
/* The text of all diagnostics. */
const char *eval_messages(eval_graph *t);
/* Do n elements of a (from `ia`) and b have the same bytes? */
bool eval_same(const nb_tensor *a, int64_t ia, const nb_tensor *b, int64_t ib, int64_t n);

#endif
