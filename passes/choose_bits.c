/* choose-bits: how many bits each linear layer's weights get, so that the model stays within a
 * size, or within a loss, and the other is least.
 *
 *   requires   samples; stands before quantize-weights, which takes what was chosen
 *   maintains  the graph, untouched
 *
 * What a layer's errors cost is measured: the model runs with that layer alone rounded to `probe`
 * bits, and what counts is the Kullback-Leibler divergence of its outputs' softmax from the float
 * model's. It grows with the square of the weights' error while that is small, which says what
 * other widths and groups cost; and losses of layers add up (as in HAWQ-V3, arXiv 2011.10680, and
 * others), which leaves a multiple-choice knapsack. */
#include "passes/kept.h"
#include "passes/knapsack.h"
#include "passes/layer_form.h"
#include "passes/linear.h"
#include "passes/rtn.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const nb_option options[] = {
    {.name = "budget",
     .kind = NB_OPTION_FLOAT,
     .fallback = "0",
     .min = 0,
     .max = 32,
     .summary = "bits per weight of all linear layers, scales and zero points included"},
    {.name = "max-kld",
     .kind = NB_OPTION_FLOAT,
     .fallback = "0",
     .min = 0,
     .max = 100,
     .summary = "instead: the most that the outputs may diverge by, as measured layer by layer"},
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
    {.name = "asymmetric",
     .kind = NB_OPTION_BOOL,
     .fallback = "false",
     .summary = "zero points, as quantize-weights has it"},
    {.name = "samples",
     .kind = NB_OPTION_INT,
     .fallback = "4",
     .min = 1,
     .max = 1 << 20,
     .summary = "the first so many samples measure"},
    {.name = NULL},
};

#define MOST 8 /* widths, and groups */

typedef struct layer {
    nb_op *op;
    nb_value *w;
    int64_t weights;
    double loss[MOST * MOST], cost[MOST * MOST]; /* of each form; cost in bits */
} layer;

typedef struct search {
    nb_pass_ctx *ctx;
    NB_VEC(layer) layers;
    nb_layer_form forms[MOST * MOST];
    int n_forms;
    size_t output, n_samples;
    nb_tensor *wanted; /* [n_samples] the float model's output */
    bool asymmetric;
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

/* The outputs that count: logits, or whatever the model puts out first that is no state. */
static bool find_output(search *s) {
    const nb_graph *g = s->ctx->graph;
    for (size_t i = 0; i < g->outputs.count; i++) {
        const nb_type *t = nb_in(g->body.last, i)->type;
        bool state = false;
        for (size_t k = 0; k < g->states.count; k++) state |= g->states.items[k].output == i;
        if (state || t->elem != NB_F32 || t->rank == 0) continue;
        s->output = i;
        return true;
    }
    s->ctx->host->report(s->ctx, NB_LEVEL_ERROR, NULL,
                         "no output is of f32: there is nothing to measure");
    return false;
}

/* Codes that are as wide as they can be need no zero points. */
static bool is_asymmetric(const search *s, int bits) { return s->asymmetric && bits < 8; }

/* In bits. Scales, and zero points, of a group weigh on each of its weights. */
static double cost_of(const search *s, const layer *l, nb_layer_form f) {
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
        for (int i = 0; i < s->n_forms; i++) l.cost[i] = cost_of(s, &l, s->forms[i]);
        nb_vec_push(scratch, &s->layers, l);
    }
}

/* ---- measuring ------------------------------------------------------------------------------ */

/* The output of interest on sample i; memory by malloc in *out. */
static bool run_sample(const search *s, size_t i, nb_tensor *out) {
    nb_pass_state *state = nb_state_of(s->ctx);
    nb_pass_env *env = state->env;
    nb_arena *arena = nb_arena_create_like(state->scratch);
    const nb_graph *g = s->ctx->graph;
    nb_tensor *all = NB_NEW_ARRAY(arena, nb_tensor, g->outputs.count + 1);
    const nb_tensor *in = env->samples[i].inputs;
    nb_status status = env->run ? env->run(env->run_user, g, in, all, NULL, 0, arena, env->diags)
                                : nb_eval(g, in, all, NULL, 0, arena, env->diags);
    if (status == NB_OK) {
        *out = all[s->output];
        out->data = malloc((size_t)out->bytes + 1);
        if (out->data)
            memcpy(out->data, all[s->output].data, (size_t)out->bytes);
        else
            status = nb_error(env->diags, NB_LIMIT, NB_NOWHERE, "out of memory for outputs");
    }
    nb_arena_destroy(arena);
    return status == NB_OK;
}

static double log_sum(const float *x, int64_t n) {
    float most = x[0];
    double sum = 0;
    for (int64_t i = 1; i < n; i++) most = fmaxf(most, x[i]);
    for (int64_t i = 0; i < n; i++) sum += exp((double)x[i] - (double)most);
    return (double)most + log(sum);
}

/* Mean divergence of the rows' softmax from the wanted ones. */
static double divergence(const nb_tensor *wanted, const nb_tensor *found) {
    const int64_t n = wanted->dims[wanted->rank - 1], rows = n ? nb_tensor_count(wanted) / n : 0;
    double sum = 0;
    for (int64_t r = 0; r < rows; r++) {
        const float *p = (const float *)wanted->data + r * n,
                    *q = (const float *)found->data + r * n;
        const double zp = log_sum(p, n), zq = log_sum(q, n);
        for (int64_t i = 0; i < n; i++)
            sum += exp((double)p[i] - zp) * ((double)p[i] - zp - ((double)q[i] - zq));
    }
    return rows ? sum / (double)rows : 0;
}

/* The model's loss as the graph stands; negative after an error. */
static double measure(const search *s) {
    double sum = 0;
    for (size_t i = 0; i < s->n_samples; i++) {
        nb_tensor found;
        if (!run_sample(s, i, &found)) return -1;
        sum += divergence(&s->wanted[i], &found);
        free(found.data);
    }
    return sum / (double)s->n_samples;
}

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

static double squared_error(const nb_blob *a, const nb_blob *b, int64_t n) {
    const float *x = a->data, *y = b->data;
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
    return sum;
}

/* The loss when this layer's weight is rounded and nothing else, for each unit of its squared
 * error: its bytes are others for a while. Negative after an error. */
static double probe(const search *s, layer *l) {
    const nb_layer_form f = {(int)nb_option_of(s->ctx, "probe")->i, s->forms[0].group};
    nb_blob *own = l->w->blob, *other = rounded(s, l, f);
    if (!other) return -1;
    const double error = squared_error(own, other, l->weights);
    l->w->blob = other;
    const double loss = measure(s);
    l->w->blob = own;
    nb_blob_release(other);
    return loss < 0 ? -1 : error > 0 ? loss / error : 0;
}

/* The same, as an earlier run may have found it: budgets do not change it. */
static double probe_once(const search *s, layer *l) {
    double unit;
    const nb_part part = {&unit, sizeof unit};
    const nb_kept kept = nb_kept_as(s->ctx, nb_kept_key_of_text(s->key, l->w->name));
    if (nb_kept_load(s->ctx, &kept, &part, 1)) return unit;
    unit = probe(s, l);
    return unit < 0 || nb_kept_save(s->ctx, &kept, 1, &part, 1) == NB_OK ? unit : -1;
}

static bool measure_layer(const search *s, layer *l) {
    const double unit = probe_once(s, l);
    for (int i = 0; unit >= 0 && i < s->n_forms; i++) {
        nb_blob *other = rounded(s, l, s->forms[i]);
        if (!other) return false;
        l->loss[i] = unit * squared_error(l->w->blob, other, l->weights);
        nb_blob_release(other);
    }
    return unit >= 0;
}

/* ---- choosing ------------------------------------------------------------------------------- */

static double count_weights(const search *s) {
    double n = 0;
    for (size_t l = 0; l < s->layers.count; l++) n += (double)s->layers.items[l].weights;
    return n;
}

/* False, with an error, when even the smallest choice is too large. */
static bool check_budget(const search *s) {
    const double budget = nb_option_of(s->ctx, "budget")->f, weights = count_weights(s);
    double least = 0;
    for (size_t l = 0; l < s->layers.count; l++) {
        double smallest = INFINITY;
        for (int i = 0; i < s->n_forms; i++) smallest = fmin(smallest, s->layers.items[l].cost[i]);
        least += smallest;
    }
    if (budget <= 0 || least <= budget * weights) return true;
    s->ctx->host->report(s->ctx, NB_LEVEL_ERROR, NULL,
                         "budget=%g: with bits=\"%s\" and groups=\"%s\" %zu layers have at least "
                         "%.3f bits per weight",
                         budget, nb_option_of(s->ctx, "bits")->s, nb_option_of(s->ctx, "groups")->s,
                         s->layers.count, least / weights);
    return false;
}

static bool choose(search *s) {
    nb_pass_ctx *ctx = s->ctx;
    nb_pass_env *env = nb_state_of(ctx)->env;
    nb_arena *scratch = nb_state_of(ctx)->scratch;
    const double budget = nb_option_of(ctx, "budget")->f, kld = nb_option_of(ctx, "max-kld")->f,
                 weights = count_weights(s);
    nb_knapsack_item *items = NB_NEW_ARRAY(scratch, nb_knapsack_item, s->layers.count + 1);
    for (size_t l = 0; l < s->layers.count; l++)
        items[l] =
            (nb_knapsack_item){s->layers.items[l].cost, s->layers.items[l].loss, s->n_forms, 0};
    if (!nb_knapsack(items, s->layers.count, budget > 0 ? budget * weights : INFINITY,
                     budget > 0 ? INFINITY : kld, scratch)) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL, "no choice for %zu layers is within %s=%g",
                          s->layers.count, budget > 0 ? "budget" : "max-kld",
                          budget > 0 ? budget : kld);
        return false;
    }
    double bits = 0, loss = 0;
    for (size_t l = 0; l < s->layers.count; l++) {
        const layer *now = &s->layers.items[l];
        bits += now->cost[items[l].choice];
        loss += now->loss[items[l].choice];
        nb_layer_form_set(env, now->w, nb_loc_name(now->op->loc), s->forms[items[l].choice]);
    }
    ctx->host->report(ctx, NB_LEVEL_INFO, NULL,
                      "%zu layers with %.3f bits per weight; alone they diverge by %.3g in all",
                      s->layers.count, bits / weights, loss);
    return true;
}

/* ---- the pass ------------------------------------------------------------------------------- */

/* Another number, other prices from the same options. */
#define VERSION 1

static bool begin(search *s) {
    nb_pass_ctx *ctx = s->ctx;
    const nb_pass_env *env = nb_state_of(ctx)->env;
    if ((nb_option_of(ctx, "budget")->f > 0) == (nb_option_of(ctx, "max-kld")->f > 0)) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL, "expected one of budget and max-kld");
        return false;
    }
    if (!env->n_samples) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL, "there are no samples to run");
        ctx->host->help(ctx, "give some with --calib FILE.npy");
        return false;
    }
    s->asymmetric = nb_option_of(ctx, "asymmetric")->b;
    s->n_samples = (size_t)nb_min_i64((int64_t)env->n_samples, nb_option_of(ctx, "samples")->i);
    s->wanted = NB_NEW_ARRAY(nb_state_of(ctx)->scratch, nb_tensor, s->n_samples);
    if (!read_forms(s) || !find_output(s)) return false;
    const int probe = (int)nb_option_of(ctx, "probe")->i;
    s->key = nb_kept_key_of_text(nb_kept_key(ctx, VERSION),
                                 nb_format(nb_state_of(ctx)->scratch, "%d/%lld%s of %zu", probe,
                                           (long long)s->forms[0].group,
                                           is_asymmetric(s, probe) ? " with zero points" : "",
                                           s->n_samples));
    return true;
}

static bool measure_all(search *s) {
    const nb_pass_env *env = nb_state_of(s->ctx)->env;
    for (size_t i = 0; i < s->n_samples; i++) {
        if (!run_sample(s, i, &s->wanted[i])) return false;
    }
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
    for (size_t i = 0; i < s.n_samples; i++) free(s.wanted[i].data);
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
