/* Language models by the conventions of their exporters: which input is tokens, mask, positions,
 * cache; sessions that are fed tokens. */
#ifndef NBT_LM_H
#define NBT_LM_H

#include "passes/windows.h"
#include "tools/model.h"

/* Indices of inputs, -1 when there is none; `logits` is an output, `branch` an input that chooses
 * whether caches are read. */
typedef struct nbt_lm {
    int tokens, mask, positions, branch, logits;
    int vocab;
} nbt_lm;

/* Are there tokens and logits? */
bool nbt_lm_is(const nbt_model *model, nbt_lm *out);
/* Finds them by name (input_ids, attention_mask, position_ids, logits), or the only integer input.
 */
nb_status nbt_lm_find(nbt_args *args, const nbt_model *model, nbt_lm *out);

/* The size of the vocabulary, from the type and shape of an output that must be f32[batch, n, it].
 */
nb_status nbt_lm_vocab(nbt_args *args, const nbt_model *model, nb_elem elem, int rank,
                       const int64_t *dims, int64_t batch, int64_t n, int *vocab);

/* A decoder that remembers: prefill and decode through the runtime. Needs a compiled model. */
typedef struct nbt_decoder {
    nbt_args *args;
    nbt_model *model;
    nbt_lm lm;
    nb_session *session;
    int64_t batch, length; /* of the last call; entries in the cache */
    int64_t rows;          /* logits of how many positions the last call gave: n, or 1: the last */
    bool needs_all;        /* refuse a model that gives those of the last only */
} nbt_decoder;
nb_status nbt_decoder_open(nbt_args *args, nbt_model *model, int64_t capacity, nbt_decoder *out);
/* Feeds batch * n tokens; *logits gets f32[batch, rows, vocab], valid until the next call. */
nb_status nbt_decoder_feed(nbt_decoder *d, const int64_t *tokens, int64_t batch, int64_t n,
                           const float **logits);
nb_status nbt_decoder_reset(nbt_decoder *d);
/* The element type of the cache and the bytes that each token of a sequence takes in it; NULL and 0
 * without a cache that is appended to. Forgets the newest token. */
void nbt_decoder_cache(nbt_decoder *d, const char **type, int64_t *bytes);
void nbt_decoder_close(nbt_decoder *d);

#endif
