/* How well a language model predicts tokens: perplexity, and how far its logits are from another
 * model's. */
#ifndef NBT_SCORE_H
#define NBT_SCORE_H

#include "tools/json.h"
#include "tools/lm.h"

/* Each with its standard error; the rest of them needs the other model. */
typedef struct nbt_scores {
    int64_t context;
    size_t predictions;
    double ppl, ppl_se;
    bool has_ref;
    double ref_ppl;
    double rise, rise_se;             /* of the perplexity, as a share of the reference's */
    double kld_mean, kld_se, kld_p99; /* KL divergence of the model from the reference */
    double top1, top1_se;             /* how often the likeliest token is the same */
} nbt_scores;

/* On --tokens, --max-tokens, in windows of --context that do not overlap. `ref` NULL: none. */
nb_status nbt_score(nbt_args *args, nbt_model *model, nbt_model *ref, nbt_scores *out);
json_t *nbt_scores_json(const nbt_scores *scores, const nbt_size *size);

#endif
