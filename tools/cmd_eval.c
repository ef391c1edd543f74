/* nibble eval: perplexity of a language model on tokens, and with --ref how far its logits are from
 * another model's: KL divergence (of the model's distribution from the reference's) and agreement
 * of the likeliest token. With --layers, of any model: where errors come from, and how they grow.
 *
 * Windows of --context tokens do not overlap and each begins with an empty cache; a window gives
 * context - 1 predictions. */
#include "tools/compare.h"
#include "tools/score.h"

#include <stdio.h>

static void report(nbt_args *args, const nbt_model *m, const nbt_scores *s) {
    nbt_size size = m->graph ? nbt_measure_size(m->graph) : (nbt_size){0};
    if (nbt_has(args, "json")) {
        nbt_print_json(nbt_scores_json(s, &size));
        return;
    }
    printf("perplexity      %.4f +- %.4f  (%zu predictions, windows of %lld)\n", s->ppl, s->ppl_se,
           s->predictions, (long long)s->context);
    if (s->has_ref) {
        printf("reference       %.4f\n", s->ref_ppl);
        printf("rise            %.3f %% +- %.3f\n", 100 * s->rise, 100 * s->rise_se);
        printf("KL divergence   %.3e +- %.1e  (99 %%: %.3e)\n", s->kld_mean, s->kld_se, s->kld_p99);
        printf("top-1 agreement %.2f %% +- %.2f\n", 100 * s->top1, 100 * s->top1_se);
    }
    if (size.weights) printf("bits per weight %.2f\n", size.bits_per_weight);
}

static nb_status evaluate(nbt_args *args, const char *in, const char *ref_path) {
    nbt_model model = {0}, ref = {0};
    nbt_scores scores;
    nb_status status = nbt_open_model(args, in, NULL, &model);
    if (status == NB_OK && ref_path) status = nbt_open_model(args, ref_path, "f32", &ref);
    if (status == NB_OK) status = nbt_score(args, &model, ref_path ? &ref : NULL, &scores);
    if (status == NB_OK) report(args, &model, &scores);
    nbt_close_model(&model);
    nbt_close_model(&ref);
    return status;
}

/* --layers: each scheme's errors, side by side. */
static nb_status compare(nbt_args *args, const char *in) {
    const size_t n = nbt_scheme_count(args);
    nbt_comparison *all = NB_NEW_ARRAY(args->arena, nbt_comparison, n);
    for (size_t i = 0; i < n; i++) {
        nbt_args one = nbt_scheme_args(args, i);
        nbt_model model = {0};
        nb_status status = nbt_open_model(&one, in, NULL, &model);
        if (status == NB_OK) status = nbt_compare(&one, &model, &all[i]);
        nbt_close_model(&model);
        NB_TRY(status);
    }
    if (!nbt_has(args, "json")) {
        nbt_print_comparisons(args->arena, all, n);
        return NB_OK;
    }
    json_t *j = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(j, nbt_comparison_json(args->arena, &all[i]));
    nbt_print_json(json_pack("{s:o}", "schemes", j));
    return NB_OK;
}

nb_status nbt_eval(nbt_args *args) {
    const char *in, *ref = nbt_get(args, "ref");
    NB_TRY(nbt_one_input(args, &in));
    if (!nbt_has(args, "tokens"))
        return nb_error(args->diags, NB_USAGE, NB_NOWHERE, "expected --tokens FILE.npy");
    if (!nbt_has(args, "layers")) return evaluate(args, in, ref);
    if (!ref) return compare(args, in);
    return nb_error(args->diags, NB_USAGE, NB_NOWHERE,
                    "--layers compares the model with its own float form, without --ref");
}
