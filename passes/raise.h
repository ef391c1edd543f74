/* Private to the pass raise: what its matchers share. */
#ifndef NB_RAISE_H
#define NB_RAISE_H

#include "passes/rewrite.h"

/* Each returns false after a recorded error and or-s `*changed`. */
bool nb_raise_layers(nb_pass_ctx *ctx, bool *changed);    /* norms, silu, gelu: raise_layers.c */
bool nb_raise_rotary(nb_pass_ctx *ctx, bool *changed);    /* raise_rotary.c */
bool nb_raise_attention(nb_pass_ctx *ctx, bool *changed); /* raise_attention.c */
void nb_raise_states(nb_pass_ctx *ctx, bool *changed);    /* raise_states.c */

/* The op that makes `v` if it is of that kind, else NULL. */
static inline nb_op *nb_made_by(const nb_value *v, nb_op_kind kind) {
    return v->def && v->def->kind == kind ? v->def : NULL;
}

#endif
