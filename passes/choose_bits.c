/* choose-bits: how many bits each linear layer's weights get, so that the model stays within a
 * size or a time and its loss is least, or within a loss and its size is.
 *
 *   requires   samples; stands before quantize-weights, which takes what was chosen
 *   maintains  the graph, untouched
 *
 * What errors of a layer rounded to `probe` bits cost is measured (sensitivity.h). That grows with
 * the square of the weights' error while it is small, which says what other widths and groups cost;
 * and losses of layers add up (as in HAWQ-V3, arXiv 2011.10680, and others), which leaves a
 * multiple-choice knapsack.
 *
 * What weights lose together, rounded by the method of the pipeline, and with what activations
 * lose, is another figure: for max-kld the passes behind run on a copy, the divergence of that is
 * measured on samples that they do not see, and the bound on the sum moves until what was measured
 * comes closely below (aim.h).
 *
 * Time is measured too: the model is compiled with all layers in one form after the other, and each
 * layer is timed in it (draft.h). What is left of a run is everything else. Then the model is timed
 * with the choice itself, and the bound on the sum moves likewise. */
#include "passes/choice.h"
#include "passes/draft.h"
#include "passes/kept.h"

/* In the order of nb_measure. */
static const char *const measures[] = {"outputs", "noise", "layer", NULL};

static const nb_option options[] = {
    {.name = "budget",
     .kind = NB_OPTION_FLOAT,
     .fallback = "0",
     .min = 0,
     .max = 32,
     .summary = "bits per weight of all linear layers, scales and zero points included"},
    {.name = "budget-ms",
     .kind = NB_OPTION_FLOAT,
     .fallback = "0",
     .min = 0,
     .max = 1e6,
     .summary = "instead: milliseconds of one run on this machine: of a decoder's step of one "
                "token, of any other model at the shapes of the first sample"},
    {.name = "max-kld",
     .kind = NB_OPTION_FLOAT,
     .fallback = "0",
     .min = 0,
     .max = 100,
     .summary = "instead: the most that the outputs may diverge by, as measured behind the passes "
                "that round; where none follows, as a sum of layers alone"},
    {.name = "bits",
     .kind = NB_OPTION_STRING,
     .fallback = "3,4,5,6,8",
     .summary = "what there is to choose from, 2 to 8"},
    {.name = "groups",
     .kind = NB_OPTION_STRING,
     .fallback = "32,64,128",
     .summary = "likewise: inputs that share a scale; 0: one scale per output channel"},
    {.name = "probe",
     .kind = NB_OPTION_INT,
     .fallback = "4",
     .min = 2,
     .max = 8,
     .summary = "bits at which a layer is measured, in the first of the groups"},
    {.name = "measure",
     .kind = NB_OPTION_ENUM,
     .fallback = "outputs",
     .choices = measures,
     .summary = "what errors of a layer cost: outputs: the divergence of the model's outputs with "
                "that layer alone rounded; noise: with noise as large as its rounding errors; "
                "layer: the squared error of its own outputs, of their square"},
    {.name = "asymmetric",
     .kind = NB_OPTION_BOOL,
     .fallback = "false",
     .summary = "zero points, as quantize-weights has it"},
    {.name = "samples",
     .kind = NB_OPTION_INT,
     .fallback = "4",
     .min = 1,
     .max = 1 << 20,
     .summary = "the first so many samples measure (measure=layer: all)"},
    {.name = "whole-samples",
     .kind = NB_OPTION_INT,
     .fallback = "16",
     .min = 1,
     .max = 1 << 20,
     .summary = "max-kld: of four samples one, but no more than so many, measures what all layers "
                "lose together, and rounds nothing meanwhile"},
    {.name = NULL},
};

static bool sees_layers_alone(nb_pass_ctx *ctx) {
    return nb_option_of(ctx, "measure")->i == NB_MEASURE_LAYER;
}

/* Seconds of a run, or the loss of the whole, where they were measured. */
static bool choose_by(const nb_choice *c, nb_knapsack_item *items, double *all, double *foretold,
                      double *measured) {
    if (c->timed) return nb_choice_by_time(c, items, all, foretold);
    if (nb_option_of(c->ctx, "max-kld")->f > 0 && nb_draft_rounds(c->ctx))
        return nb_choice_by_loss(c, items, measured);
    return nb_choice_by_size(c, items);
}

static bool choose(nb_choice *c) {
    nb_pass_ctx *ctx = c->ctx;
    nb_knapsack_item *items =
        NB_NEW_ARRAY(nb_state_of(ctx)->scratch, nb_knapsack_item, c->layers.count + 1);
    double bits = nb_choice_float_bits(c), all = 0, foretold = 0, measured = -1;
    for (size_t l = 0; l < c->layers.count; l++) {
        const nb_choice_layer *now = &c->layers.items[l];
        items[l] = (nb_knapsack_item){nb_choice_costs(c, now), now->loss, c->n_forms, 0};
    }
    if (!choose_by(c, items, &all, &foretold, &measured)) return false;
    for (size_t l = 0; l < c->layers.count; l++) bits += c->layers.items[l].bits[items[l].choice];
    const char *time = c->timed ? nb_format(nb_state_of(ctx)->scratch,
                                            ", a run of %.4g ms as measured (%.4g foretold, %.4g "
                                            "of them layers)",
                                            1e3 * all, 1e3 * foretold, 1e3 * (foretold - c->rest))
                                : "";
    const char *whole = measured < 0 ? ""
                                     : nb_format(nb_state_of(ctx)->scratch,
                                                 ", together by %.3g as measured", measured);
    ctx->host->report(ctx, NB_LEVEL_INFO, NULL,
                      "%zu layers with %.3f bits per weight%s; alone %s %.3g in all%s",
                      c->layers.count + c->n_floats, bits / nb_choice_weights(c), time,
                      sees_layers_alone(ctx) ? "their outputs lose, relative to their squares,"
                                             : "they diverge by",
                      nb_choice_loss(c, items), whole);
    return true;
}

/* ---- the pass ------------------------------------------------------------------------------- */

/* Another number, other prices from the same options. */
#define VERSION 2

static bool begin(nb_choice *c) {
    nb_pass_ctx *ctx = c->ctx;
    const nb_pass_env *env = nb_state_of(ctx)->env;
    c->timed = nb_option_of(ctx, "budget-ms")->f > 0;
    if ((nb_option_of(ctx, "budget")->f > 0) + c->timed + (nb_option_of(ctx, "max-kld")->f > 0) !=
        1) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL,
                          "expected one of budget, budget-ms and max-kld");
        return false;
    }
    if (nb_option_of(ctx, "max-kld")->f > 0 && sees_layers_alone(ctx)) {
        ctx->host->report(
            ctx, NB_LEVEL_ERROR, NULL,
            "max-kld bounds what outputs diverge by, which measure=layer does not see");
        ctx->host->help(ctx, "take measure=outputs or measure=noise");
        return false;
    }
    if (c->timed && !env->run_seconds) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL,
                          "budget-ms: nothing here can tell how long a run takes");
        ctx->host->help(ctx, "budget bounds the size instead, in bits per weight");
        return false;
    }
    if (!env->n_samples) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL, "there are no samples to run");
        ctx->host->help(ctx, "give some with --calib FILE.npy");
        return false;
    }
    c->asymmetric = nb_option_of(ctx, "asymmetric")->b;
    const nb_measure how = (nb_measure)nb_option_of(ctx, "measure")->i;
    const int64_t samples = nb_min_i64((int64_t)env->n_samples, nb_option_of(ctx, "samples")->i);
    if (!nb_choice_read_forms(c) || !nb_sensitivity_begin(&c->sensitivity, ctx, how, samples))
        return false;
    const int probe = (int)nb_option_of(ctx, "probe")->i;
    c->key = nb_kept_key_of_text(
        nb_kept_key(ctx, VERSION),
        nb_format(nb_state_of(ctx)->scratch, "%s of %d/%lld%s by %lld",
                  nb_option_of(ctx, "measure")->s, probe, (long long)c->forms[0].group,
                  nb_choice_is_asymmetric(c, probe) ? " with zero points" : "",
                  (long long)samples));
    return true;
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    nb_wide_choice wide = {.arena = nb_state_of(ctx)->scratch,
                           .n_samples = nb_state_of(ctx)->env->n_samples};
    nb_choice c = {.ctx = ctx, .wide = &wide};
    if (!begin(&c)) return NB_PASS_FAILED;
    nb_choice_find_layers(&c);
    const bool possible = c.timed ? nb_choice_time_possible(&c) : nb_choice_size_possible(&c),
               ok = possible && nb_choice_measure_losses(&c) && (c.layers.count == 0 || choose(&c));
    nb_sensitivity_end(&c.sensitivity);
    return ok ? nb_pass_end(ctx, false) : NB_PASS_FAILED;
}

const nb_pass nb_pass_choose_bits = {
    .size = sizeof(nb_pass),
    .name = "choose-bits",
    .options = options,
    .run = run,
    .promises = NB_PASS_KEEPS_BITS,
    .summary = "measure what each layer loses at how many bits, and choose by a budget",
};
