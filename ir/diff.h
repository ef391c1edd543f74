/* The difference of two graphs: which ops of the one are which of the other, and what else differs.
 *
 * Names, ids, the order of ops that do not depend on each other, origins (`at`, `via`) and storage
 * say nothing about what a graph computes: they help to find pairs and are no difference. Ops and
 * constants are paired in rounds, the surest evidence first:
 *
 *   1. ops that compute the same from the same (equal hashes of all that they depend on),
 *   2. ops of one kind that stand for the same ONNX nodes,
 *   3. ops of one kind at the same place beside a pair: they take or make the same value,
 *   4. ops of one kind and name without origin,
 *   5. ops of different kinds in the place of each other: `matmul` became `qmatmul`.
 *
 * Time is that of a few sorts of all ops, and of one pass over the bytes of all constants. */
#ifndef NB_DIFF_H
#define NB_DIFF_H

#include "ir/ir.h"

/* One fact that differs, with what the first and the second graph have. */
typedef struct nb_difference {
    /* Of an op: "kind", "operand", "attribute", "type", "codes" (how its result is quantized). Of a
     * graph: "stage", "input", "output", "state", "symbol". */
    const char *what;
    const char *name;  /* of the operand, attribute, result, input ...; "" where there is but one */
    const char *a, *b; /* "" in the graph that lacks it */
} nb_difference;

typedef NB_VEC(nb_difference) nb_differences;

/* An op of both graphs, or of one: then the other is NULL. */
typedef struct nb_op_pair {
    const nb_op *a, *b;
    nb_differences differences; /* none unless it is in both */
} nb_op_pair;

/* How far the numbers of two constants are apart: those that codes stand for, where they are codes.
 */
typedef struct nb_const_error {
    bool measured;  /* their shapes are equal, and so is whether they are numbers */
    double sqnr;    /* of the second to the first, in dB; infinite when no number differs */
    double largest; /* |difference|; infinite when one is finite and the other is not */
    int64_t differ; /* how many elements */
    int64_t count;  /* of how many */
} nb_const_error;

typedef struct nb_const_pair {
    const nb_value *a, *b;
    bool alike;  /* no pair, but one without a partner and another of the same content */
    bool differ; /* in type, quantization or bytes; false unless it is in both */
    nb_const_error error;
} nb_const_pair;

typedef struct nb_diff {
    NB_VEC(nb_op_pair)
    ops; /* all: those of the second graph in its order, each removed one
            behind the op that it followed in the first */
    NB_VEC(nb_const_pair) constants;
    nb_differences graph;
    size_t same, changed, added, removed; /* ops, `return` too */
    size_t consts_same, consts_changed, consts_added, consts_removed;
} nb_diff;

/* All memory is of `arena`; both graphs must outlive the result. Hashes of constants are computed
 * where they are not known yet. With `errors`, constants that differ are measured. */
nb_diff *nb_diff_graphs(const nb_graph *a, const nb_graph *b, bool errors, nb_arena *arena);
static inline bool nb_diff_is_empty(const nb_diff *d) {
    return !d->graph.count && !d->changed && !d->added && !d->removed && !d->consts_changed &&
           !d->consts_added && !d->consts_removed;
}

/* ---- pairs alone --------------------------------------------------------------------------- */

/* What corresponds to what. */
typedef struct nb_pairs {
    const nb_op **to_b, **to_a;            /* by id of the op in the graph it is in; NULL: none */
    const nb_value **value_b, **value_a;   /* the same for values */
    const uint64_t *symbols_a, *symbols_b; /* for each symbol, by index, a number that is the same
                                              for the same symbol */
} nb_pairs;

nb_pairs *nb_pair_graphs(const nb_graph *a, const nb_graph *b, nb_arena *arena);

/* ---- signatures (diff_sign.c) ---------------------------------------------------------------- */

/* Numbers that are equal for what means the same in different graphs; `symbols` has one for each
 * symbol. */
uint64_t nb_sign_dim(const nb_dim *d, const uint64_t *symbols);
/* How codes stand for numbers; the scales themselves do not count when they are constants. */
uint64_t nb_sign_quant(const nb_quant *q);
uint64_t nb_sign_type(const nb_type *t, const uint64_t *symbols);
uint64_t nb_sign_attr(const nb_attr *attr, nb_attr_kind kind, const uint64_t *symbols);
/* A constant: its type, its bytes, and those of its scales. */
uint64_t nb_sign_const(const nb_value *v);

#endif
