/* Private to the pass raise: what its matchers share. */
#ifndef NB_RAISE_H
#define NB_RAISE_H

#include "passes/rewrite.h"

/* Each returns false after a recorded error and or-s `*changed`. */
bool nb_raise_layers(nb_pass_ctx *ctx, bool *changed);    /* norms, silu, gelu: raise_layers.c */
bool nb_raise_codes(nb_pass_ctx *ctx, bool *changed);     /* raise_codes.c */
bool nb_raise_rotary(nb_pass_ctx *ctx, bool *changed);    /* raise_rotary.c */
bool nb_raise_attention(nb_pass_ctx *ctx, bool *changed); /* raise_attention.c */
void nb_raise_states(nb_pass_ctx *ctx, bool *changed);    /* raise_states.c */

/* The op that makes `v` if it is of that kind, else NULL. */
static inline nb_op *nb_made_by(const nb_value *v, nb_op_kind kind) {
    return v->def && v->def->kind == kind ? v->def : NULL;
}

/* ---- locations: raise_views.c --------------------------------------------------------------- */

/* The ops that a matcher went through, from the root to its operands. */
typedef struct nb_trail {
    const nb_op *ops[32]; /* of a longer one the rest is not kept */
    size_t n;
} nb_trail;

static inline void nb_trail_add(nb_trail *t, const nb_op *op) {
    if (op && t->n < NB_COUNT(t->ops)) t->ops[t->n++] = op;
}
/* Their locations, the root's last. */
const nb_loc *nb_trail_loc(nb_graph *g, const nb_trail *t);

/* ---- views: raise_views.c ------------------------------------------------------------------- */

/* f32, or a narrower float that f32 holds. */
bool nb_fits_f32(const nb_value *v);
/* v cast to f32 if it is not that. NULL in gives NULL. */
nb_value *nb_widened(nb_builder *b, nb_value *v);

/* A part of the last axis of `base`: elements start, start + step ... All other axes are whole. */
typedef struct nb_span {
    nb_value *base;
    int64_t start, step, count;
} nb_span;
/* Follows slices of the last axis back from `v`; base is v itself when there is none. False when
 * the last axis is not of constant length. */
bool nb_span_of(nb_value *v, nb_span *out);

/* concat of two values along the last axis. */
bool nb_joins_last(const nb_op *concat);

/* The x [..,rows,columns] of v [..,rows*columns] = reshape(x), or NULL. */
nb_value *nb_unstacked(const nb_value *v, int64_t rows, int64_t columns);

/* ---- heads: raise_heads.c ------------------------------------------------------------------- */

/* Keys or values [B,H,T,D] as a view: axis i is axis perm[i] of base, which has rank 4. */
typedef struct nb_heads {
    nb_value *base;
    int64_t perm[4];
} nb_heads;

/* Moves the base behind the transposes that made it. */
void nb_heads_untranspose(nb_heads *h, nb_trail *trail);
/* Moves the base behind a repetition of heads; false when there is none. */
bool nb_heads_unrepeat(nb_heads *h, nb_builder *b, nb_trail *trail);
/* The type of the view, and the view as a value. */
const nb_type *nb_heads_type(const nb_heads *h, nb_graph *g);
nb_value *nb_heads_build(const nb_heads *h, nb_builder *b);

/* ---- tables of angles: raise_halves.c ------------------------------------------------------- */

/* How the D angles of a position come from D/2 different ones. */
typedef enum nb_doubling {
    NB_TWICE, /* t0 t1 .. t0 t1 ..: for rotation of halves */
    NB_PAIRS  /* t0 t0 t1 t1 ..: for rotation of neighbours */
} nb_doubling;

typedef struct nb_halves {
    nb_graph *graph;
    nb_map known[2]; /* by doubling: value -> its half */
} nb_halves;

/* A value equal to the D/2 different angles of v's last axis, made before b's op; NULL when it
 * cannot be proved that v is doubled in that way. */
nb_value *nb_half_of(nb_halves *h, nb_builder *b, nb_value *v, nb_doubling doubling);

#endif
