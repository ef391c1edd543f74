/* Key/value caches of a graph: state pairs that attention reads. */
#ifndef NB_CACHE_H
#define NB_CACHE_H

#include "passes/pass.h"

#define NB_TOKENS 2 /* axis of keys and values [B,G,T,D] */

/* A cache is a state pair joined by a concat whose result is returned and otherwise is keys or
 * values of attention, nothing else. */
typedef struct nb_cache {
    uint32_t output;
    nb_value *past;
    nb_op *concat;
    NB_VEC(nb_use *) readers; /* operands of attention that are its result, casts left out */
    const nb_op *other;       /* attention is not all that reads it: this does too */
} nb_cache;

/* False when the pair is none; then `other` is set if it would be one but for that op. */
bool nb_find_cache(nb_arena *arena, const nb_graph *g, const nb_state *s, nb_cache *c);
/* Is it read as keys only (attention's operand 1), or as values only (2)? */
bool nb_cache_is(const nb_cache *c, uint32_t operand);

/* Gives those of the n caches that are keys alone, in f32, a basis in which errors of 4-bit codes
 * do least harm, found on the samples (shape_keys.c). feedback[i], NULL before, is then
 * quantize_u4's of caches[i]. NB_PASS_FAILED's cause is recorded when this is not NB_OK. */
nb_status nb_shape_keys(nb_pass_ctx *ctx, const nb_cache *caches, size_t n, nb_value **feedback);

#endif
