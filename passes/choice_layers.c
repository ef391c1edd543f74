/* The layers of choose-bits, the forms there are for them, and what each loses in each
 * (choice.h). */
#include "passes/choice.h"
#include "passes/kept.h"
#include "passes/linear.h"
#include "passes/rtn.h"

#include <stdlib.h>
#include <string.h>

/* ---- what there is to choose ---------------------------------------------------------------- */

/* Different numbers with commas between them; how many, or 0 after an error. */
static int read_numbers(nb_pass_ctx *ctx, const char *option, int64_t least, int64_t most,
                        int64_t out[NB_CHOICE_MOST]) {
    const char *text = nb_option_of(ctx, option)->s, *at = text;
    int n = 0;
    bool ok = true;
    while (ok) {
        char *end;
        const long long x = strtoll(at, &end, 10);
        for (int i = 0; i < n; i++) ok = ok && out[i] != x;
        ok = ok && end != at && x >= least && x <= most && n < NB_CHOICE_MOST &&
             (!*end || *end == ',');
        if (ok) out[n++] = x;
        if (!*end) break;
        at = end + 1;
    }
    if (ok) return n;
    ctx->host->report(ctx, NB_LEVEL_ERROR, NULL,
                      "%s: expected up to %d different numbers from %lld to %lld with commas "
                      "between them, found \"%s\"",
                      option, NB_CHOICE_MOST, (long long)least, (long long)most, text);
    return 0;
}

bool nb_choice_read_forms(nb_choice *c) {
    int64_t bits[NB_CHOICE_MOST], groups[NB_CHOICE_MOST];
    const int n_bits = read_numbers(c->ctx, "bits", 2, 8, bits),
              n_groups = n_bits ? read_numbers(c->ctx, "groups", 0, 65536, groups) : 0;
    for (int i = 0; i < n_bits; i++) {
        for (int k = 0; k < n_groups; k++)
            c->forms[c->n_forms++] = (nb_layer_form){(int)bits[i], groups[k]};
    }
    return c->n_forms > 0;
}

/* Codes that are as wide as they can be need no zero points. */
bool nb_choice_is_asymmetric(const nb_choice *c, int bits) { return c->asymmetric && bits < 8; }

/* In bits. Scales, and zero points, of a group weigh on each of its weights. */
static double bits_of(const nb_choice *c, const nb_choice_layer *l, nb_layer_form f) {
    const int64_t rows = l->w->type->dims[0]->value, cols = l->w->type->dims[1]->value;
    const bool whole = f.group == 0 || f.group >= rows;
    const nb_pass_env *env = nb_state_of(c->ctx)->env;
    if (env->linear_bytes)
        return 8.0 * (double)env->linear_bytes(rows, cols, f.bits, f.group,
                                               nb_choice_is_asymmetric(c, f.bits));
    const int64_t runs = (whole ? 1 : nb_ceildiv(rows, f.group)) * cols;
    return (double)l->weights * f.bits +
           (double)runs * ((whole ? 32 : 16) + (nb_choice_is_asymmetric(c, f.bits) ? f.bits : 0));
}

/* Will the quantize-weights behind leave it in float? */
static bool stays_float(const nb_choice *c, const nb_choice_layer *l) {
    const nb_pass_env *env = nb_state_of(c->ctx)->env;
    for (size_t i = 0; i < env->n_behind; i++) {
        const nb_step *step = &env->behind[i];
        if (strcmp(step->pass->name, "quantize-weights") != 0) continue;
        return l->weights < nb_step_option(step, "min-weights")->i ||
               nb_outputs_of_places(l->op) < nb_step_option(step, "min-outputs")->i ||
               nb_match_name(nb_step_option(step, "skip")->s, nb_loc_name(l->op->loc));
    }
    return false;
}

void nb_choice_find_layers(nb_choice *c) {
    nb_arena *scratch = nb_state_of(c->ctx)->scratch;
    nb_map known = {.arena = scratch};
    NB_FOR_OPS(op, &c->ctx->graph->body) {
        nb_value *w = nb_linear_weight(op);
        if (op->kind != NB_OP_matmul || !w || w->type->quant || w->type->elem != NB_F32 ||
            nb_map_get(&known, w))
            continue;
        nb_map_set(&known, w, w);
        nb_choice_layer l = {.op = op, .w = w};
        l.weights = w->type->dims[0]->value * w->type->dims[1]->value;
        if (stays_float(c, &l)) {
            c->n_floats++;
            c->float_weights += (double)l.weights;
            continue;
        }
        for (int i = 0; i < c->n_forms; i++) l.bits[i] = bits_of(c, &l, c->forms[i]);
        nb_vec_push(scratch, &c->layers, l);
    }
}

/* ---- measuring ------------------------------------------------------------------------------ */

/* The layer's weight in form f, as floats; NULL, after an error, when memory is short. */
static nb_blob *rounded(const nb_choice *c, const nb_choice_layer *l, nb_layer_form f) {
    const int64_t rows = l->w->type->dims[0]->value, cols = l->w->type->dims[1]->value;
    const nb_rtn rtn = {.bits = f.bits,
                        .asymmetric = nb_choice_is_asymmetric(c, f.bits),
                        .search = NB_RTN_RANGE,
                        .half = f.group > 0 && f.group < rows};
    void *data;
    nb_blob *blob = nb_blob_create(l->w->blob->size, &data);
    if (blob && nb_rtn_round(&rtn, l->w->blob->data, rows, cols, f.group, data)) return blob;
    nb_error(nb_diags_of(c->ctx), NB_LIMIT, NB_NOWHERE, "out of memory for '@%s'", l->w->name);
    nb_blob_release(blob);
    return NULL;
}

/* What errors of this layer cost, for each unit of their square; negative after an error. */
static double probe(nb_choice *c, const nb_choice_layer *l) {
    const nb_layer_form f = {(int)nb_option_of(c->ctx, "probe")->i, c->forms[0].group};
    nb_blob *other = rounded(c, l, f);
    if (!other) return -1;
    const double unit = nb_sensitivity_of(&c->sensitivity, l->op, l->w, other, f.group);
    nb_blob_release(other);
    return unit;
}

/* The same, as an earlier run may have found it: budgets do not change it. */
static double probe_once(nb_choice *c, const nb_choice_layer *l) {
    double unit;
    const nb_part part = {&unit, sizeof unit};
    const nb_kept kept = nb_kept_as(c->ctx, nb_kept_key_of_text(c->key, l->w->name));
    if (nb_kept_load(c->ctx, &kept, &part, 1)) return unit;
    unit = probe(c, l);
    return unit < 0 || nb_kept_save(c->ctx, &kept, 1, &part, 1) == NB_OK ? unit : -1;
}

static bool measure_layer(nb_choice *c, nb_choice_layer *l) {
    const double unit = probe_once(c, l);
    for (int i = 0; unit >= 0 && i < c->n_forms; i++) {
        nb_blob *other = rounded(c, l, c->forms[i]);
        if (!other) return false;
        l->loss[i] = unit * nb_squared_error(l->w->blob, other, l->weights);
        nb_blob_release(other);
    }
    return unit >= 0;
}

bool nb_choice_measure_losses(nb_choice *c) {
    const nb_pass_env *env = nb_state_of(c->ctx)->env;
    for (size_t l = 0; l < c->layers.count; l++) {
        if (!measure_layer(c, &c->layers.items[l])) return false;
        if (env->progress) env->progress(env->progress_user, "choose-bits", l + 1, c->layers.count);
    }
    return true;
}
