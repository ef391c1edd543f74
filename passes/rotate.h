/* Private to the pass rotate: what its parts share. */
#ifndef NB_PASSES_ROTATE_H
#define NB_PASSES_ROTATE_H

#include "ir/build.h"
#include "passes/linear.h"
#include "passes/rotation.h"
#include "passes/values.h"

/* ---- constants that change: rotate_weights.c ------------------------------------------------ */

/* What happens to a constant, seen as a matrix whose columns are its last axis: runs of by->n
 * entries along an axis are rotated. */
typedef struct nb_turn {
    const nb_rotation *by;
    int axis;             /* 0: down the columns, 1: along the rows */
    int64_t from, count;  /* entries of the axis; count is a multiple of by->n */
    const nb_value *gain; /* what entries of the axis are multiplied by before; NULL: nothing */
    bool centred;         /* runs lose their mean before */
} nb_turn;

/* An operand that is to be another constant. */
typedef struct nb_turned {
    nb_use *use;
    const nb_value *old;
    nb_value *made;
    NB_VEC(nb_turn) turns;
} nb_turned;

typedef struct nb_turns {
    nb_pass_ctx *ctx;
    NB_VEC(nb_turned) list;
} nb_turns;

void nb_turns_add(nb_turns *t, nb_use *use, nb_turn turn);
/* Makes a linear layer's result what it would be with `vector` added to its input. */
void nb_add_through(nb_pass_ctx *ctx, const nb_value *vector, nb_op *layer);
/* Gives each operand its constant, one for all that change alike; false after an error. */
bool nb_turns_apply(nb_turns *t);

/* ---- places that stay as they are: rotate.c ------------------------------------------------- */

/* How many they are, and why the first is one. */
typedef struct nb_refusal {
    const nb_pass_ctx *ctx; /* each is told by nb_refused, as one of `rule`; NULL: it is not */
    const char *rule;
    const nb_op *op; /* or NULL */
    const char *why;
    size_t count;
} nb_refusal;

void nb_refuse_rotation(nb_refusal *r, const nb_op *op, const char *why);
/* Warns if there are any: "OPTION: 1 of TOTAL WHAT stay as they are: WHY". */
void nb_refusal_report(nb_pass_ctx *ctx, const nb_refusal *r, const char *option, const char *what,
                       size_t total);

/* ---- the rotations -------------------------------------------------------------------------- */

/* op `hadamard` of x, behind what makes x. */
nb_value *nb_hadamard_of(nb_pass_ctx *ctx, nb_value *x, int64_t block);

/* Those in the weights plan turns; those at run time return true when they inserted ops. */
void nb_rotate_residual(nb_turns *t, uint64_t seed); /* rotate_residual.c */
void nb_rotate_values(nb_turns *t, uint64_t seed);   /* rotate_heads.c */
bool nb_rotate_queries(nb_pass_ctx *ctx);            /* rotate_heads.c */
bool nb_rotate_gated(nb_turns *t, int64_t block);    /* rotate_gated.c */

#endif
