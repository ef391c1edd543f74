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
 * with the choice itself: where it takes longer than was foretold, the choice is made again for as
 * much less. */
#include "passes/aim.h"
#include "passes/draft.h"
#include "passes/kept.h"
#include "passes/knapsack.h"
#include "passes/layer_form.h"
#include "passes/linear.h"
#include "passes/rtn.h"
#include "passes/sensitivity.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

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

#define MOST 8 /* widths, and groups */

typedef struct layer {
    nb_op *op;
    nb_value *w;
    int64_t weights;
    double loss[MOST * MOST], bits[MOST * MOST], seconds[MOST * MOST]; /* of each form */
} layer;

typedef struct search {
    nb_pass_ctx *ctx;
    NB_VEC(layer) layers;
    nb_layer_form forms[MOST * MOST];
    int n_forms;
    nb_sensitivity sensitivity;
    bool asymmetric;
    size_t n_floats; /* layers that quantize-weights leaves as they are */
    double float_weights;
    bool timed;   /* seconds count, not bits */
    double rest;  /* seconds of what is no layer of these */
    uint64_t key; /* of what is measured, for all layers */
} search;

/* ---- what there is to choose ---------------------------------------------------------------- */

/* Different numbers with commas between them; how many, or 0 after an error. */
static int read_numbers(nb_pass_ctx *ctx, const char *option, int64_t least, int64_t most,
                        int64_t out[MOST]) {
    const char *text = nb_option_of(ctx, option)->s, *at = text;
    int n = 0;
    bool ok = true;
    while (ok) {
        char *end;
        const long long x = strtoll(at, &end, 10);
        for (int i = 0; i < n; i++) ok = ok && out[i] != x;
        ok = ok && end != at && x >= least && x <= most && n < MOST && (!*end || *end == ',');
        if (ok) out[n++] = x;
        if (!*end) break;
        at = end + 1;
    }
    if (ok) return n;
    ctx->host->report(ctx, NB_LEVEL_ERROR, NULL,
                      "%s: expected up to %d different numbers from %lld to %lld with commas "
                      "between them, found \"%s\"",
                      option, MOST, (long long)least, (long long)most, text);
    return 0;
}

static bool read_forms(search *s) {
    int64_t bits[MOST], groups[MOST];
    const int n_bits = read_numbers(s->ctx, "bits", 2, 8, bits),
              n_groups = n_bits ? read_numbers(s->ctx, "groups", 0, 65536, groups) : 0;
    for (int i = 0; i < n_bits; i++) {
        for (int k = 0; k < n_groups; k++)
            s->forms[s->n_forms++] = (nb_layer_form){(int)bits[i], groups[k]};
    }
    return s->n_forms > 0;
}

/* Codes that are as wide as they can be need no zero points. */
static bool is_asymmetric(const search *s, int bits) { return s->asymmetric && bits < 8; }

/* In bits. Scales, and zero points, of a group weigh on each of its weights. */
static double bits_of(const search *s, const layer *l, nb_layer_form f) {
    const int64_t rows = l->w->type->dims[0]->value, cols = l->w->type->dims[1]->value;
    const bool whole = f.group == 0 || f.group >= rows;
    const nb_pass_env *env = nb_state_of(s->ctx)->env;
    if (env->linear_bytes)
        return 8.0 *
               (double)env->linear_bytes(rows, cols, f.bits, f.group, is_asymmetric(s, f.bits));
    const int64_t runs = (whole ? 1 : nb_ceildiv(rows, f.group)) * cols;
    return (double)l->weights * f.bits +
           (double)runs * ((whole ? 32 : 16) + (is_asymmetric(s, f.bits) ? f.bits : 0));
}

/* Will the quantize-weights behind leave it in float? */
static bool stays_float(const search *s, const layer *l) {
    const nb_pass_env *env = nb_state_of(s->ctx)->env;
    for (size_t i = 0; i < env->n_behind; i++) {
        const nb_step *step = &env->behind[i];
        if (strcmp(step->pass->name, "quantize-weights") != 0) continue;
        return l->weights < nb_step_option(step, "min-weights")->i ||
               nb_match_name(nb_step_option(step, "skip")->s, nb_loc_name(l->op->loc));
    }
    return false;
}

static void find_layers(search *s) {
    nb_arena *scratch = nb_state_of(s->ctx)->scratch;
    nb_map known = {.arena = scratch};
    NB_FOR_OPS(op, &s->ctx->graph->body) {
        nb_value *w = nb_linear_weight(op);
        if (op->kind != NB_OP_matmul || !w || w->type->quant || w->type->elem != NB_F32 ||
            nb_map_get(&known, w))
            continue;
        nb_map_set(&known, w, w);
        layer l = {.op = op, .w = w};
        l.weights = w->type->dims[0]->value * w->type->dims[1]->value;
        if (stays_float(s, &l)) {
            s->n_floats++;
            s->float_weights += (double)l.weights;
            continue;
        }
        for (int i = 0; i < s->n_forms; i++) l.bits[i] = bits_of(s, &l, s->forms[i]);
        nb_vec_push(scratch, &s->layers, l);
    }
}

/* ---- measuring ------------------------------------------------------------------------------ */

/* The layer's weight in form f, as floats; NULL, after an error, when memory is short. */
static nb_blob *rounded(const search *s, const layer *l, nb_layer_form f) {
    const int64_t rows = l->w->type->dims[0]->value, cols = l->w->type->dims[1]->value;
    const nb_rtn rtn = {.bits = f.bits,
                        .asymmetric = is_asymmetric(s, f.bits),
                        .search = NB_RTN_RANGE,
                        .half = f.group > 0 && f.group < rows};
    void *data;
    nb_blob *blob = nb_blob_create(l->w->blob->size, &data);
    if (blob && nb_rtn_round(&rtn, l->w->blob->data, rows, cols, f.group, data)) return blob;
    nb_error(nb_diags_of(s->ctx), NB_LIMIT, NB_NOWHERE, "out of memory for '@%s'", l->w->name);
    nb_blob_release(blob);
    return NULL;
}

/* What errors of this layer cost, for each unit of their square; negative after an error. */
static double probe(search *s, const layer *l) {
    const nb_layer_form f = {(int)nb_option_of(s->ctx, "probe")->i, s->forms[0].group};
    nb_blob *other = rounded(s, l, f);
    if (!other) return -1;
    const double unit = nb_sensitivity_of(&s->sensitivity, l->op, l->w, other, f.group);
    nb_blob_release(other);
    return unit;
}

/* The same, as an earlier run may have found it: budgets do not change it. */
static double probe_once(search *s, const layer *l) {
    double unit;
    const nb_part part = {&unit, sizeof unit};
    const nb_kept kept = nb_kept_as(s->ctx, nb_kept_key_of_text(s->key, l->w->name));
    if (nb_kept_load(s->ctx, &kept, &part, 1)) return unit;
    unit = probe(s, l);
    return unit < 0 || nb_kept_save(s->ctx, &kept, 1, &part, 1) == NB_OK ? unit : -1;
}

static bool measure_layer(search *s, layer *l) {
    const double unit = probe_once(s, l);
    for (int i = 0; unit >= 0 && i < s->n_forms; i++) {
        nb_blob *other = rounded(s, l, s->forms[i]);
        if (!other) return false;
        l->loss[i] = unit * nb_squared_error(l->w->blob, other, l->weights);
        nb_blob_release(other);
    }
    return unit >= 0;
}

/* ---- time ----------------------------------------------------------------------------------- */

/* Seconds of a run with layers as they are set, and of each of them. */
static bool time_layers(const search *s, double *seconds, double *all) {
    nb_arena *scratch = nb_state_of(s->ctx)->scratch;
    nb_op **ops = (nb_op **)nb_alloc_array(scratch, s->layers.count + 1, sizeof *ops);
    for (size_t l = 0; l < s->layers.count; l++) ops[l] = s->layers.items[l].op;
    return nb_draft_seconds(s->ctx, ops, s->layers.count, seconds, all);
}

static void set_form(const search *s, const layer *l, int form) {
    nb_layer_form_set(nb_state_of(s->ctx)->env, l->w, nb_loc_name(l->op->loc), s->forms[form]);
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* All layers in one form after the other. Everything else is the same work in all of these, so that
 * the median of its times counts. */
static bool time_forms(search *s) {
    const nb_pass_env *env = nb_state_of(s->ctx)->env;
    const size_t n = s->layers.count;
    double rests[MOST * MOST], *seconds = NB_NEW_ARRAY(nb_state_of(s->ctx)->scratch, double, n + 1);
    for (int i = 0; i < s->n_forms; i++) {
        for (size_t l = 0; l < n; l++) set_form(s, &s->layers.items[l], i);
        if (!time_layers(s, seconds, &rests[i])) return false;
        for (size_t l = 0; l < n; l++) {
            s->layers.items[l].seconds[i] = seconds[l];
            rests[i] -= seconds[l];
        }
        if (env->progress)
            env->progress(env->progress_user, "choose-bits: time", (size_t)i + 1,
                          (size_t)s->n_forms);
    }
    qsort(rests, (size_t)s->n_forms, sizeof *rests, ascending);
    s->rest = rests[s->n_forms / 2];
    return true;
}

/* ---- choosing ------------------------------------------------------------------------------- */

#define FLOAT_BITS 32.0

/* Of all linear layers, also those that stay in float. */
static double count_weights(const search *s) {
    double n = s->float_weights;
    for (size_t l = 0; l < s->layers.count; l++) n += (double)s->layers.items[l].weights;
    return n;
}

static const double *costs_of(const search *s, const layer *l) {
    return s->timed ? l->seconds : l->bits;
}

/* What the cheapest choice costs. Seconds of layers in float are in the rest. */
static double least_cost(const search *s) {
    double least = s->timed ? 0 : FLOAT_BITS * s->float_weights;
    for (size_t l = 0; l < s->layers.count; l++) {
        double smallest = INFINITY;
        for (int i = 0; i < s->n_forms; i++)
            smallest = fmin(smallest, costs_of(s, &s->layers.items[l])[i]);
        least += smallest;
    }
    return least;
}

/* False, with an error, when even the smallest choice is too large, or too slow. */
static bool check_budget(search *s) {
    const double budget = nb_option_of(s->ctx, "budget")->f,
                 most = nb_option_of(s->ctx, "budget-ms")->f, weights = count_weights(s);
    if (s->timed && !time_forms(s)) return false;
    const double least = least_cost(s), least_ms = 1e3 * (least + s->rest);
    const char *bits = nb_option_of(s->ctx, "bits")->s, *groups = nb_option_of(s->ctx, "groups")->s;
    const char *floats = s->n_floats ? nb_format(nb_state_of(s->ctx)->scratch,
                                                 " (%zu of them in float)", s->n_floats)
                                     : "";
    if (s->timed && least_ms > most)
        s->ctx->host->report(
            s->ctx, NB_LEVEL_ERROR, NULL,
            "budget-ms=%g: with bits=\"%s\" and groups=\"%s\" a run takes at least "
            "%.4g ms: %zu layers %.4g, everything else %.4g",
            most, bits, groups, least_ms, s->layers.count, 1e3 * least, 1e3 * s->rest);
    else if (budget > 0 && least > budget * weights)
        s->ctx->host->report(s->ctx, NB_LEVEL_ERROR, NULL,
                             "budget=%g: with bits=\"%s\" and groups=\"%s\" %zu layers%s have at "
                             "least %.3f bits per weight",
                             budget, bits, groups, s->layers.count + s->n_floats, floats,
                             least / weights);
    else
        return true;
    return false;
}

/* The best choice within the bounds, of which one is INFINITY, as that of all layers. */
static bool choose_within(const search *s, nb_knapsack_item *items, double most_cost,
                          double most_loss) {
    const size_t n = s->layers.count;
    nb_arena *scratch = nb_arena_create_like(nb_state_of(s->ctx)->scratch);
    const bool found = nb_knapsack(items, n, most_cost, most_loss, scratch);
    nb_arena_destroy(scratch);
    for (size_t l = 0; found && l < n; l++) set_form(s, &s->layers.items[l], items[l].choice);
    return found;
}

static bool choose_by_size(const search *s, nb_knapsack_item *items) {
    const double budget = nb_option_of(s->ctx, "budget")->f,
                 kld = nb_option_of(s->ctx, "max-kld")->f;
    if (choose_within(s, items,
                      budget > 0 ? budget * count_weights(s) - FLOAT_BITS * s->float_weights
                                 : INFINITY,
                      budget > 0 ? INFINITY : kld))
        return true;
    s->ctx->host->report(s->ctx, NB_LEVEL_ERROR, NULL, "no choice for %zu layers is within %s=%g",
                         s->layers.count, budget > 0 ? "budget" : "max-kld",
                         budget > 0 ? budget : kld);
    return false;
}

#define TRIES 5

/* ---- by what is lost ------------------------------------------------------------------------ */

#define CLOSE 0.8 /* of max-kld: more tries would save few bits */

static double estimate_of(const search *s, const nb_knapsack_item *items) {
    double sum = 0;
    for (size_t l = 0; l < s->layers.count; l++) sum += items[l].loss[items[l].choice];
    return sum;
}

/* Within the bound, or as close to it as can be. */
static double choose_estimate(const search *s, nb_knapsack_item *items, double bound) {
    if (!choose_within(s, items, INFINITY, bound)) choose_within(s, items, DBL_MAX, INFINITY);
    return estimate_of(s, items);
}

/* A choice for all layers, and what it loses. */
typedef struct attempt {
    int *choices;              /* [layers] */
    double estimate, measured; /* measured: INFINITY before the first try */
} attempt;

/* What samples are for. */
typedef struct parts {
    nb_output_loss whole; /* of those held back */
    nb_sample *rounding;  /* [n] of all others */
    size_t n;
} parts;

/* Weights that are rounded by what they do on samples lose less on these than elsewhere: every
 * fourth sample, of four or more, measures and does not round. */
#define HELD_BACK 4

static bool split_samples(const search *s, parts *p) {
    nb_arena *scratch = nb_state_of(s->ctx)->scratch;
    const nb_pass_env *env = nb_state_of(s->ctx)->env;
    const int64_t most = nb_option_of(s->ctx, "whole-samples")->i;
    if (!nb_output_loss_begin(&p->whole, s->ctx, most)) return false;
    p->rounding = NB_NEW_ARRAY(scratch, nb_sample, env->n_samples);
    if (env->n_samples < HELD_BACK) {
        p->n = env->n_samples;
        memcpy(p->rounding, env->samples, p->n * sizeof *p->rounding);
        return true;
    }
    nb_sample *held = NB_NEW_ARRAY(scratch, nb_sample, p->whole.n_samples);
    size_t n = 0;
    for (size_t i = 0; i < env->n_samples; i++) {
        if (i % HELD_BACK == HELD_BACK - 1 && n < p->whole.n_samples)
            held[n++] = env->samples[i];
        else
            p->rounding[p->n++] = env->samples[i];
    }
    p->whole.samples = held;
    p->whole.n_samples = n;
    return true;
}

/* What is there now; false after an error. */
static bool measure_attempt(const search *s, const parts *p, const nb_knapsack_item *items,
                            attempt *out) {
    out->measured = nb_draft_loss(s->ctx, p->rounding, p->n, &p->whole);
    for (size_t l = 0; l < s->layers.count; l++) out->choices[l] = items[l].choice;
    return out->measured >= 0;
}

static attempt new_attempt(const search *s) {
    nb_arena *scratch = nb_state_of(s->ctx)->scratch;
    return (attempt){NB_NEW_ARRAY(scratch, int, s->layers.count + 1), -1, INFINITY};
}

/* Tries until the whole, as measured, is closely below max-kld. The best is the one of the largest
 * estimate, since a larger bound lets nothing have more bits; where all are beyond it, that of the
 * most bits. False after an error. */
static bool try_estimates(const search *s, const parts *p, nb_knapsack_item *items, attempt *best) {
    const double most = nb_option_of(s->ctx, "max-kld")->f;
    nb_aim aim = nb_aim_begin(most, CLOSE);
    attempt now = new_attempt(s);
    for (int i = 0; i <= TRIES; i++) {
        if (i == TRIES && isfinite(best->measured)) return true;
        const double estimate = choose_estimate(s, items, i < TRIES ? aim.next : 0);
        if (estimate == now.estimate || estimate == best->estimate) break; /* known already */
        now.estimate = estimate;
        if (!measure_attempt(s, p, items, &now)) return false;
        if (now.measured <= most && estimate > best->estimate) {
            const attempt other = *best;
            *best = now;
            now.choices = other.choices;
        }
        if (!nb_aim_step(&aim, estimate, now.measured)) return true;
    }
    if (!isfinite(best->measured)) *best = now;
    return true;
}

/* What all lose together in *measured. */
static bool choose_by_loss(const search *s, nb_knapsack_item *items, double *measured) {
    const double most = nb_option_of(s->ctx, "max-kld")->f;
    parts p = {0};
    attempt best = new_attempt(s);
    const bool done = split_samples(s, &p) && nb_output_loss_float(&p.whole) &&
                      try_estimates(s, &p, items, &best);
    nb_output_loss_end(&p.whole);
    if (!done) return false;
    *measured = best.measured;
    for (size_t l = 0; l < s->layers.count; l++) {
        items[l].choice = best.choices[l];
        set_form(s, &s->layers.items[l], best.choices[l]);
    }
    if (best.measured <= most) return true;
    s->ctx->host->report(s->ctx, NB_LEVEL_ERROR, NULL,
                         "max-kld=%g: with bits=\"%s\" and groups=\"%s\" the outputs diverge by "
                         "%.3g, measured with %zu layers that lose least",
                         most, nb_option_of(s->ctx, "bits")->s, nb_option_of(s->ctx, "groups")->s,
                         best.measured, s->layers.count);
    return false;
}

/* ---- by time -------------------------------------------------------------------------------- */

#define LESS 0.995 /* a bit more than what the last try was beyond */

/* Seconds of a run as chosen, and as foretold, which may be less than the budget allows. */
static bool choose_by_time(const search *s, nb_knapsack_item *items, double *all,
                           double *foretold) {
    const double budget = nb_option_of(s->ctx, "budget-ms")->f;
    double *seconds = NB_NEW_ARRAY(nb_state_of(s->ctx)->scratch, double, s->layers.count + 1),
           aim = 1e-3 * budget;
    *all = INFINITY;
    for (int i = 0; i < TRIES && choose_within(s, items, aim - s->rest, INFINITY); i++) {
        if (!time_layers(s, seconds, all)) return false;
        *foretold = s->rest;
        for (size_t l = 0; l < s->layers.count; l++)
            *foretold += s->layers.items[l].seconds[items[l].choice];
        if (1e3 * *all <= budget) return true;
        aim *= LESS * 1e-3 * budget / *all;
    }
    if (isfinite(*all))
        s->ctx->host->report(
            s->ctx, NB_LEVEL_ERROR, NULL,
            "budget-ms=%g: a run took %.4g ms in the fastest choice that was tried", budget,
            1e3 * *all);
    else
        s->ctx->host->report(s->ctx, NB_LEVEL_ERROR, NULL,
                             "no choice for %zu layers is within budget-ms=%g", s->layers.count,
                             budget);
    return false;
}

static bool sees_layers_alone(nb_pass_ctx *ctx) {
    return nb_option_of(ctx, "measure")->i == NB_MEASURE_LAYER;
}

/* One of the ways above; seconds of a run, or the loss of the whole, where they were measured. */
static bool choose_by(const search *s, nb_knapsack_item *items, double *all, double *foretold,
                      double *measured) {
    if (s->timed) return choose_by_time(s, items, all, foretold);
    if (nb_option_of(s->ctx, "max-kld")->f > 0 && nb_draft_rounds(s->ctx))
        return choose_by_loss(s, items, measured);
    return choose_by_size(s, items);
}

static bool choose(search *s) {
    nb_pass_ctx *ctx = s->ctx;
    nb_knapsack_item *items =
        NB_NEW_ARRAY(nb_state_of(ctx)->scratch, nb_knapsack_item, s->layers.count + 1);
    double bits = FLOAT_BITS * s->float_weights, all = 0, foretold = 0, measured = -1;
    for (size_t l = 0; l < s->layers.count; l++) {
        const layer *now = &s->layers.items[l];
        items[l] = (nb_knapsack_item){costs_of(s, now), now->loss, s->n_forms, 0};
    }
    if (!choose_by(s, items, &all, &foretold, &measured)) return false;
    for (size_t l = 0; l < s->layers.count; l++) bits += s->layers.items[l].bits[items[l].choice];
    const char *time = s->timed
                           ? nb_format(nb_state_of(ctx)->scratch,
                                       ", a run of %.4g ms (%.4g foretold, %.4g of them layers)",
                                       1e3 * all, 1e3 * foretold, 1e3 * (foretold - s->rest))
                           : "";
    const char *whole = measured < 0 ? ""
                                     : nb_format(nb_state_of(ctx)->scratch,
                                                 ", together by %.3g as measured", measured);
    ctx->host->report(ctx, NB_LEVEL_INFO, NULL,
                      "%zu layers with %.3f bits per weight%s; alone %s %.3g in all%s",
                      s->layers.count + s->n_floats, bits / count_weights(s), time,
                      sees_layers_alone(ctx) ? "their outputs lose, relative to their squares,"
                                             : "they diverge by",
                      estimate_of(s, items), whole);
    return true;
}

/* ---- the pass ------------------------------------------------------------------------------- */

/* Another number, other prices from the same options. */
#define VERSION 2

static bool begin(search *s) {
    nb_pass_ctx *ctx = s->ctx;
    const nb_pass_env *env = nb_state_of(ctx)->env;
    s->timed = nb_option_of(ctx, "budget-ms")->f > 0;
    if ((nb_option_of(ctx, "budget")->f > 0) + s->timed + (nb_option_of(ctx, "max-kld")->f > 0) !=
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
    if (s->timed && !env->run_seconds) {
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
    s->asymmetric = nb_option_of(ctx, "asymmetric")->b;
    const nb_measure how = (nb_measure)nb_option_of(ctx, "measure")->i;
    const int64_t samples = nb_min_i64((int64_t)env->n_samples, nb_option_of(ctx, "samples")->i);
    if (!read_forms(s) || !nb_sensitivity_begin(&s->sensitivity, ctx, how, samples)) return false;
    const int probe = (int)nb_option_of(ctx, "probe")->i;
    s->key = nb_kept_key_of_text(
        nb_kept_key(ctx, VERSION),
        nb_format(nb_state_of(ctx)->scratch, "%s of %d/%lld%s by %lld",
                  nb_option_of(ctx, "measure")->s, probe, (long long)s->forms[0].group,
                  is_asymmetric(s, probe) ? " with zero points" : "", (long long)samples));
    return true;
}

static bool measure_all(search *s) {
    const nb_pass_env *env = nb_state_of(s->ctx)->env;
    for (size_t l = 0; l < s->layers.count; l++) {
        if (!measure_layer(s, &s->layers.items[l])) return false;
        if (env->progress) env->progress(env->progress_user, "choose-bits", l + 1, s->layers.count);
    }
    return true;
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    search s = {.ctx = ctx};
    if (!begin(&s)) return NB_PASS_FAILED;
    find_layers(&s);
    bool ok = check_budget(&s) && measure_all(&s) && (s.layers.count == 0 || choose(&s));
    nb_sensitivity_end(&s.sensitivity);
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
