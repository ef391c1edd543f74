/* Samples without data: a language model writes them, as in LLM-QAT (Liu et al., arXiv 2305.17888).
 * What it writes is distributed as it believes text to be, and its layers see then what they see in
 * use; weights that are rounded by it lose less than by text of another kind. The model writes with
 * 8-bit weights, which is faster and no worse: their divergence is a thousandth of that of 4 bits.
 * A window begins with any token; the others are drawn at temperature 1. */
#include "passes/sampling.h"
#include "tools/lm.h"
#include "tools/samples.h"

#include <string.h>

#define SCHEME       "w8a16"
#define SIDE_BY_SIDE 8 /* windows that are written at once */

/* `n` windows at once, [n,context]. */
static nb_status write_windows(nbt_decoder *d, int64_t n, int64_t context, uint64_t *state,
                               int64_t *out) {
    int64_t now[SIDE_BY_SIDE];
    NB_TRY(nbt_decoder_reset(d));
    for (int64_t i = 0; i < n; i++) now[i] = (int64_t)(nb_uniform(state) * d->lm.vocab);
    for (int64_t at = 0; at < context; at++) {
        const float *logits;
        for (int64_t i = 0; i < n; i++) out[i * context + at] = now[i];
        if (at + 1 == context) break;
        NB_TRY(nbt_decoder_feed(d, now, n, 1, &logits));
        for (int64_t i = 0; i < n; i++)
            now[i] = nb_choose_token(logits + i * d->lm.vocab, d->lm.vocab, 1, state);
    }
    return NB_OK;
}

static nb_status write_all(nbt_decoder *d, int64_t windows, int64_t context, int64_t *out) {
    const int64_t any = 0;
    const float *logits;
    uint64_t state = 1;
    NB_TRY(nbt_decoder_feed(d, &any, 1, 1, &logits)); /* tells the vocabulary */
    for (int64_t i = 0; i < windows; i += SIDE_BY_SIDE)
        NB_TRY(write_windows(d, nb_min_i64(SIDE_BY_SIDE, windows - i), context, &state,
                             out + i * context));
    return NB_OK;
}

nb_status nbt_write_samples(nbt_reader *r, int64_t windows, int64_t **tokens) {
    nbt_model model;
    nbt_decoder d = {0};
    if (r->tokens < 0)
        return nbt_reader_error(r, NB_USAGE, "only a language model writes samples of its own");
    *tokens = NB_NEW_ARRAY(r->args->arena, int64_t, (size_t)(windows * r->context) + 1);
    nb_status status = nbt_open_copy(r->args, r->g, SCHEME, &model);
    if (status == NB_OK) status = nbt_decoder_open(r->args, &model, r->context, &d);
    if (status == NB_OK) status = write_all(&d, windows, r->context, *tokens);
    nbt_decoder_close(&d);
    nbt_close_model(&model);
    return status;
}
