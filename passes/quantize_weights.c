/* quantize-weights: round to nearest, for linear layers and embeddings.
 *
 *   requires   constants in float
 *   maintains  stage QDQ; each weight is quantized once, however many layers use it
 *
 *   %y: f32[B,2] = matmul %n, @w
 * becomes
 *   %w.d: f32[4,2] = dequantize @w.q         (#w: i8 narrow axis 1 scale @w.scale)
 *   %y: f32[B,2] = matmul %n, %w.d */
#include "passes/branch.h"
#include "passes/input_power.h"
#include "passes/kept.h"
#include "passes/layer_form.h"
#include "passes/linear.h"
#include "passes/weight_codes.h"

enum { RTN, GPTQ, HQQ, AUTO };
static const char *const methods[] = {"rtn", "gptq", "hqq", "auto", NULL};
#define MOST_INPUTS 4096
enum { ALIKE, INPUTS };
static const char *const importances[] = {"alike", "inputs", NULL};
/* In the order of nb_rtn_range. */
static const char *const ranges[] = {"narrow", "full", "even", NULL};

/* Codes of small floats, with their scales, or blocks; group: the only one it has. */
typedef struct format {
    nb_elem elem, scale;
    int64_t group;
    const nb_block_form *block;
} format;

/* In the order of `formats`. */
#define NAMES                                                                                \
    "nf4", "f4e2m1", "f8e4m3fn", "f8e5m2", "mxfp4", "nvfp4", "q8_0", "q4_0", "q6_k", "q4_k", \
        "q5_k", NULL
static const char *const format_names[] = {"int", NAMES}, *const head_names[] = {"same", NAMES};
static const char *const exponents[] = {"floor", "ceil", NULL};
static const format formats[] = {
    {NB_ELEM_COUNT, NB_F32, 0, NULL},    {NB_NF4, NB_F32, 0, NULL},
    {NB_F4E2M1, NB_F32, 0, NULL},        {NB_F8E4M3FN, NB_F32, 0, NULL},
    {NB_F8E5M2, NB_F32, 0, NULL},        {NB_F4E2M1, NB_F8E8M0, 32, NULL},
    {NB_F4E2M1, NB_F8E4M3FN, 16, NULL},  {NB_I8, NB_F16, 32, &nb_block_q8_0},
    {NB_I4, NB_F16, 32, &nb_block_q4_0}, {NB_I6, NB_F16, 16, &nb_block_q6_k},
    {NB_U4, NB_F16, 32, &nb_block_q4_k}, {NB_U5, NB_F16, 32, &nb_block_q5_k}};

static const nb_option options[] = {
    {.name = "bits",
     .kind = NB_OPTION_INT,
     .fallback = "8",
     .min = 2,
     .max = 8,
     .summary = "bits of a weight: 2 to 8"},
    {.name = "group",
     .kind = NB_OPTION_INT,
     .fallback = "0",
     .min = 0,
     .max = 65536,
     .summary = "inputs that share a scale; 0: one scale per output channel"},
    {.name = "asymmetric",
     .kind = NB_OPTION_BOOL,
     .fallback = "false",
     .summary = "store a zero point with each scale"},
    {.name = "search",
     .kind = NB_OPTION_BOOL,
     .fallback = "false",
     .summary = "shrink each range where that lowers the squared error, and refit its scale"},
    {.name = "method",
     .kind = NB_OPTION_ENUM,
     .fallback = "rtn",
     .choices = methods,
     .summary = "rtn: each weight to the nearest code; gptq: so that the layers' outputs on the "
                "samples stay; hqq: to the nearest, with scales and zero points by "
                "half-quadratic splitting; auto: gptq for integers where there are samples, else "
                "rtn, and for layers of more than 4096 inputs where samples were drawn"},
    {.name = "act-order",
     .kind = NB_OPTION_BOOL,
     .fallback = "true",
     .summary = "gptq: the strongest inputs first"},
    {.name = "damp",
     .kind = NB_OPTION_FLOAT,
     .fallback = "0.01",
     .min = 1e-6,
     .max = 10,
     .summary = "gptq: added to the diagonal of the moments, in units of its mean"},
    {.name = "shrink",
     .kind = NB_OPTION_FLOAT,
     .fallback = "4",
     .min = 0,
     .max = 1000,
     .summary =
         "gptq: how strongly moments are drawn to their diagonal by as much as few rows make "
         "them noise; 0: not at all"},
    {.name = "refine",
     .kind = NB_OPTION_INT,
     .fallback = "3",
     .min = 0,
     .max = 1000,
     .summary = "gptq: passes of coordinate descent over scales and codes behind it"},
    {.name = "correct",
     .kind = NB_OPTION_FLOAT,
     .fallback = "0.5",
     .min = 0,
     .max = 1,
     .summary = "gptq: how much of what layers before lost a layer makes up for (GPTAQ)"},
    {.name = "anneal",
     .kind = NB_OPTION_INT,
     .fallback = "0",
     .min = 0,
     .max = 100000,
     .summary = "gptq: sweeps of simulated annealing behind that, kept where it helps on every "
                "eighth sample, which is held back"},
    {.name = "keep",
     .kind = NB_OPTION_FLOAT,
     .fallback = "0",
     .min = 0,
     .max = 65536,
     .summary = "gptq: inputs of a layer whose weights stay in f16, those that rounding costs most "
                "(OWQ): how many, or below 1 which share"},
    {.name = "head",
     .kind = NB_OPTION_INT,
     .fallback = "0",
     .min = 0,
     .max = 8,
     .summary = "bits of layers that feed an output: 2 to 8; 0: as `bits`"},
    {.name = "embedding",
     .kind = NB_OPTION_INT,
     .fallback = "8",
     .min = 0,
     .max = 8,
     .summary = "bits of embedding tables: 0 (float), or 2 to 8"},
    {.name = "embedding-group",
     .kind = NB_OPTION_INT,
     .fallback = "0",
     .min = 0,
     .max = 65536,
     .summary = "entries of an embedding's row that share a scale; 0: the whole row"},
    {.name = "conv-group",
     .kind = NB_OPTION_INT,
     .fallback = "-1",
     .min = -1,
     .max = 65536,
     .summary = "inputs that share a scale in convolutions, products of patches; -1: as `group`"},
    {.name = "min-weights",
     .kind = NB_OPTION_INT,
     .fallback = "0",
     .min = 0,
     .max = INT32_MAX,
     .summary = "linear layers with fewer weights stay in float"},
    {.name = "min-outputs",
     .kind = NB_OPTION_INT,
     .fallback = "0",
     .min = 0,
     .max = INT32_MAX,
     .summary = "convolutions, as products over the places of a picture, stay in float with fewer "
                "outputs (of all that read one input)"},
    {.name = "layers",
     .kind = NB_OPTION_STRING,
     .fallback = "",
     .summary = "bits, and groups, of single layers by name: \"*/down_proj/*=8; *lm_head*=6/64\""},
    {.name = "skip",
     .kind = NB_OPTION_STRING,
     .fallback = "",
     .summary = "names of layers that stay in float ('*' any text, '|' or)"},
    {.name = "range",
     .kind = NB_OPTION_ENUM,
     .fallback = "narrow",
     .choices = ranges,
     .summary = "symmetric codes of b bits: narrow, without the smallest, by amax/(2^(b-1)-1); "
                "full, all, by w/-2^(b-1) for the largest |w|; even, all, by 2*amax/(2^b-1)"},
    {.name = "search-ends",
     .kind = NB_OPTION_BOOL,
     .fallback = "false",
     .summary = "search, and move each end of a range with a zero point by itself"},
    {.name = "importance",
     .kind = NB_OPTION_ENUM,
     .fallback = "alike",
     .choices = importances,
     .summary = "search, hqq: how much a weight's error counts; inputs: as the mean square of its "
                "input on the samples (gptq does so anyway)"},
    {.name = "format",
     .kind = NB_OPTION_ENUM,
     .fallback = "int",
     .choices = format_names,
     .summary =
         "codes of linear layers: integers of `bits` bits, or small floats, whose products "
         "are those of floats; mxfp4: f4e2m1, groups of 32, scales f8e8m0; nvfp4: f4e2m1, groups "
         "of 16, scales f8e4m3fn; q8_0, q4_0, q6_k, q4_k, q5_k: the blocks that llama.cpp's "
         "quantizer makes; the head is an integer if `head` says its bits"},
    {.name = "head-format",
     .kind = NB_OPTION_ENUM,
     .fallback = "same",
     .choices = head_names,
     .summary = "the format of layers that feed an output, rounded to nearest; same: as `format`"},
    {.name = "double",
     .kind = NB_OPTION_BOOL,
     .fallback = "false",
     .summary = "f32 scales of linear layers become 8-bit codes themselves (QLoRA)"},
    {.name = "exponent",
     .kind = NB_OPTION_ENUM,
     .fallback = "ceil",
     .choices = exponents,
     .summary =
         "scales of mxfp4: floor of log2, the largest weights may be clipped (OCP), or ceil, "
         "none is"},
    {.name = NULL},
};

static bool is_float_matrix(const nb_value *w) {
    return nb_is_const(w) && !w->type->quant && w->type->elem == NB_F32 && w->type->rank == 2 &&
           w->type->dims[0]->value > 0 && w->type->dims[1]->value > 0;
}

/* Where a layer is small, or an input's element goes into few products, making its inputs codes
 * takes longer than its product in float. */
static bool is_small(nb_pass_ctx *ctx, const nb_op *op) {
    const nb_type *t = nb_in(op, 1)->type;
    const int64_t least = nb_option_of(ctx, "min-weights")->i,
                  least_outputs = nb_option_of(ctx, "min-outputs")->i,
                  n = t->dims[0]->value * t->dims[1]->value, outputs = nb_outputs_of_places(op);
    static const char equation[] = "matmul(x, w)  ->  matmul(x, dq(w))";
    if (n < least)
        nb_refused(ctx, op, "weights", equation,
                   "with %lld weights it is faster in float (min-weights=%lld)", (long long)n,
                   (long long)least);
    else if (outputs < least_outputs)
        nb_refused(ctx, op, "weights", equation,
                   "with %lld outputs it is faster in float (min-outputs=%lld)", (long long)outputs,
                   (long long)least_outputs);
    return n < least || outputs < least_outputs;
}

static void report_small(nb_pass_ctx *ctx, size_t small) {
    const int64_t outputs = nb_option_of(ctx, "min-outputs")->i;
    if (!small) return;
    ctx->host->report(ctx, NB_LEVEL_INFO, NULL,
                      "layers of fewer than %lld weights%s stay in float, which is faster: %zu",
                      (long long)nb_option_of(ctx, "min-weights")->i,
                      outputs ? nb_format(nb_state_of(ctx)->scratch,
                                          ", convolutions of fewer than %lld outputs",
                                          (long long)outputs)
                              : "",
                      small);
    ctx->host->help(ctx, outputs ? "min-weights=0, min-outputs=0 quantizes layers of any size"
                                 : "min-weights=0 quantizes layers of any size");
}

/* Samples that were drawn can be as many as there is time for, and show little all the same. */
static void report_few(nb_pass_ctx *ctx, const nb_layer_inputs *inputs) {
    if (!inputs->few_layers || nb_state_of(ctx)->env->drawn) return;
    ctx->host->report(
        ctx, NB_LEVEL_WARNING, NULL,
        "the samples have fewer than %d rows for each input of %zu of %zu layers, at worst %lld "
        "for %lld inputs: method=gptq has little to round those by",
        NB_ROWS_PER_INPUT, inputs->few_layers, inputs->layers, (long long)inputs->fewest_rows,
        (long long)inputs->fewest_inputs);
    ctx->host->help(
        ctx, "give %lld times as many with --calib",
        (long long)nb_ceildiv(NB_ROWS_PER_INPUT * inputs->fewest_inputs, inputs->fewest_rows));
}

static int64_t method_of(nb_pass_ctx *ctx) {
    const int64_t method = nb_option_of(ctx, "method")->i;
    if (method != AUTO) return method;
    return nb_state_of(ctx)->env->n_samples && !nb_option_of(ctx, "format")->i ? GPTQ : RTN;
}

/* What all integers have in common. */
static nb_rtn rounding(nb_pass_ctx *ctx) {
    return (nb_rtn){.range = (nb_rtn_range)nb_option_of(ctx, "range")->i,
                    .search = nb_option_of(ctx, "search-ends")->b ? NB_RTN_ENDS
                              : nb_option_of(ctx, "search")->b    ? NB_RTN_RANGE
                                                                  : NB_RTN_WHOLE,
                    .hqq = method_of(ctx) == HQQ};
}

/* Options that say different things. */
static bool check_options(nb_pass_ctx *ctx) {
    const int64_t head = nb_option_of(ctx, "head")->i,
                  embedding = nb_option_of(ctx, "embedding")->i;
    const nb_option_value *group = nb_option_of(ctx, "group");
    const char *name = format_names[nb_option_of(ctx, "format")->i];
    const format *form = &formats[nb_option_of(ctx, "format")->i];
    const bool integers = form->elem == NB_ELEM_COUNT, gptq = method_of(ctx) == GPTQ;
    if (head == 1 || embedding == 1) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL,
                          "bits are 2 to 8, found head=%lld embedding=%lld", (long long)head,
                          (long long)embedding);
        return false;
    }
    if (!integers && nb_option_of(ctx, "asymmetric")->b) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL,
                          "codes of %s have no zero points: asymmetric is for integers", name);
        return false;
    }
    if (form->group && group->given && group->i != form->group) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL, "%s has groups of %lld, found group=%lld",
                          name, (long long)form->group, (long long)group->i);
        return false;
    }
    if (!integers && method_of(ctx) != RTN) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL, "method=%s makes integers, found format=%s",
                          nb_option_of(ctx, "method")->s, name);
        return false;
    }
    const nb_rtn rtn = rounding(ctx);
    if (nb_option_of(ctx, "importance")->i == INPUTS && (!integers || (!rtn.search && !rtn.hqq))) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL,
                          "importance=inputs weighs errors of integers for a search or method=hqq, "
                          "and there is none");
        return false;
    }
    if (head && nb_option_of(ctx, "head-format")->i) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL,
                          "head=%lld and head-format=%s say different things", (long long)head,
                          nb_option_of(ctx, "head-format")->s);
        return false;
    }
    if (nb_option_of(ctx, "double")->b && (form->scale != NB_F32 || gptq)) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL,
                          gptq ? "double rounds scales after codes, which method=gptq chose by them"
                               : "double is for f32 scales, those of %s are not",
                          name);
        return false;
    }
    return true;
}

/* Inputs that share a scale where nothing else is said of the layer. */
static int64_t group_of(nb_pass_ctx *ctx, const nb_op *op) {
    const nb_op *x = nb_in(op, 0)->def;
    const int64_t conv = nb_option_of(ctx, "conv-group")->i;
    return x && x->kind == NB_OP_patches && conv >= 0 ? conv : nb_option_of(ctx, "group")->i;
}

/* What becomes of a linear layer's weight: as chosen for it, as the head's, or as all. `cut` has
 * what all weights share. */
static nb_weight_cut linear_cut(nb_pass_ctx *ctx, const nb_op *op, nb_layer_form chosen,
                                nb_weight_cut cut) {
    const int bits = (int)nb_option_of(ctx, "bits")->i, head = (int)nb_option_of(ctx, "head")->i;
    const int64_t head_format = nb_option_of(ctx, "head-format")->i;
    const format *form = &formats[nb_option_of(ctx, "format")->i];
    cut.group = form->group ? form->group : group_of(ctx, op);
    cut.rtn.bits = bits;
    if (chosen.bits) {
        cut.rtn.bits = chosen.bits;
        form = &formats[0];
        cut.group = chosen.group >= 0 ? chosen.group : group_of(ctx, op);
    } else if (nb_linear_is_head(op) && head) {
        cut.rtn.bits = head;
        form = &formats[0];
    } else if (nb_linear_is_head(op) && head_format) {
        form = &formats[head_format];
        cut.group = form->group ? form->group : cut.group;
    }
    const bool integers = form->elem == NB_ELEM_COUNT;
    cut.rtn.asymmetric = nb_option_of(ctx, "asymmetric")->b && integers &&
                         (chosen.bits ? chosen.bits < 8 : cut.rtn.bits == bits);
    cut.block = form->block;
    cut.twice = nb_option_of(ctx, "double")->b && form->scale == NB_F32;
    cut.form = integers ? nb_integer_codes(cut.rtn.bits, !cut.rtn.asymmetric)
                        : (nb_float_codes){.elem = form->elem,
                                           .scale = form->scale,
                                           .unclipped = nb_option_of(ctx, "exponent")->i == 1};
    return cut;
}

static bool is_linear(const nb_op *op) {
    return op->kind == NB_OP_matmul && is_float_matrix(nb_in(op, 1)) && !nb_is_factor(nb_in(op, 1));
}

/* For method=auto: the moments of so many are large, and samples that nobody chose tell little. */
static bool has_too_many_inputs(nb_pass_ctx *ctx, const nb_op *op) {
    return nb_option_of(ctx, "method")->i == AUTO && nb_state_of(ctx)->env->drawn &&
           nb_in(op, 1)->type->dims[0]->value > MOST_INPUTS;
}

static void show_progress(const nb_pass_ctx *ctx, size_t done, size_t total) {
    const nb_pass_env *env = nb_state_of(ctx)->env;
    if (env->progress) env->progress(env->progress_user, nb_state_of(ctx)->pass->name, done, total);
}

typedef struct quantizing {
    nb_pass_ctx *ctx;
    nb_solving *solving; /* NULL: to the nearest */
    nb_input_power *power;
    nb_map matrices, tables; /* what became of weights */
    nb_skip skip;
    nb_layer_rules rules;
    nb_rtn rtn;
    int embedding;
    size_t done, total, small;
    bool changed;
} quantizing;

static size_t count_linear(const nb_region *region) {
    size_t n = 0;
    NB_FOR_OPS(op, region) {
        n += is_linear(op);
        for (uint32_t i = 0; i < op->n_regions; i++) n += count_linear(op->regions[i]);
    }
    return n;
}

static bool quantize_layer(quantizing *z, nb_op *op, const nb_weight_cut *cut, bool in_body) {
    nb_pass_ctx *ctx = z->ctx;
    nb_weight_cut own = *cut;
    /* No sample was seen inside a body. */
    const bool nearest =
        in_body || own.block || nb_elem_is_float(own.form.elem) || has_too_many_inputs(ctx, op);
    if (z->power && !in_body) {
        if (!nb_input_power_to(z->power, op)) return false;
        own.rtn.importance = z->power->mean;
    }
    z->changed = true;
    return nb_quantize_operand(ctx, &z->matrices, op, 1, &own, nearest ? NULL : z->solving);
}

/* All linear layers and embeddings, those of bodies too; false after an error. */
static bool quantize_region(quantizing *z, nb_region *region, bool in_body) {
    nb_pass_ctx *ctx = z->ctx;
    NB_FOR_OPS(op, region) {
        for (uint32_t i = 0; i < op->n_regions; i++)
            if (!quantize_region(z, op->regions[i], true)) return false;
        nb_weight_cut cut = {.rtn = z->rtn};
        /* Rules may be about layers that have their codes already, too. */
        const nb_layer_form chosen =
            nb_linear_weight(op) ? nb_layer_rules_find(ctx, &z->rules, op) : (nb_layer_form){0, -1};
        if (is_linear(op)) {
            show_progress(ctx, z->done++, z->total);
            if (nb_skip_op(ctx, &z->skip, op)) continue;
            if (is_small(ctx, op)) {
                z->small++;
                continue;
            }
            cut = linear_cut(ctx, op, chosen, cut);
            if (!quantize_layer(z, op, &cut, in_body)) return false;
        } else if (z->embedding && nb_is_embedding(op) && is_float_matrix(nb_in(op, 0))) {
            if (nb_skip_op(ctx, &z->skip, op)) continue;
            cut.rtn.bits = z->embedding;
            cut.form = nb_integer_codes(z->embedding, true);
            cut.axis = 1;
            cut.group = nb_option_of(ctx, "embedding-group")->i;
            if (!nb_quantize_operand(ctx, &z->tables, op, 0, &cut, NULL)) return false;
            z->changed = true;
        }
    }
    return true;
}

static bool quantize_layers(nb_pass_ctx *ctx, nb_solving *solving, nb_input_power *power,
                            bool *changed) {
    nb_arena *scratch = nb_state_of(ctx)->scratch;
    quantizing z = {.ctx = ctx,
                    .solving = solving,
                    .power = power,
                    .matrices = {.arena = scratch},
                    .tables = {.arena = scratch},
                    .skip = {.pattern = nb_option_of(ctx, "skip")->s},
                    .rtn = rounding(ctx),
                    .embedding = (int)nb_option_of(ctx, "embedding")->i,
                    .total = count_linear(&ctx->graph->body)};
    if (!nb_layer_rules_read(ctx, nb_option_of(ctx, "layers")->s, &z.rules)) return false;
    if (!quantize_region(&z, &ctx->graph->body, false)) return false;
    *changed = z.changed;
    if (z.total) show_progress(ctx, z.total, z.total);
    report_small(ctx, z.small);
    return nb_skip_end(ctx, &z.skip) && nb_layer_rules_end(ctx, &z.rules);
}

/* For annealing; false when there are too few samples. */
static bool hold_back(nb_pass_ctx *ctx, nb_layer_inputs *inputs) {
    const size_t n = nb_state_of(ctx)->env->n_samples;
    inputs->hold = n >= NB_HELD_BACK;
    if (inputs->hold) return true;
    nb_layer_inputs_end(inputs);
    ctx->host->report(ctx, NB_LEVEL_ERROR, NULL,
                      "anneal holds every eighth sample back: expected at least %d, found %zu",
                      NB_HELD_BACK, n);
    ctx->host->help(ctx, "give more, or a smaller --context");
    return false;
}

/* Another number, other codes from the same options. */
#define VERSION 2

static nb_pass_result run(nb_pass_ctx *ctx) {
    if (!check_options(ctx)) return NB_PASS_FAILED;
    nb_solving solving = {.refinements = (int)nb_option_of(ctx, "refine")->i,
                          .anneal = (int)nb_option_of(ctx, "anneal")->i,
                          .keep = nb_option_of(ctx, "keep")->f,
                          .exact = {.arena = nb_state_of(ctx)->scratch}};
    const bool solves = method_of(ctx) == GPTQ;
    if (solves) solving.key = nb_kept_key_of_options(ctx, nb_kept_key(ctx, VERSION));
    if (solves &&
        !nb_layer_inputs_begin(&solving.inputs, ctx, nb_option_of(ctx, "damp")->f,
                               nb_option_of(ctx, "act-order")->b, nb_option_of(ctx, "correct")->f))
        return NB_PASS_FAILED;
    solving.inputs.shrink = nb_option_of(ctx, "shrink")->f;
    if (solves && solving.anneal && !hold_back(ctx, &solving.inputs)) return NB_PASS_FAILED;
    nb_input_power power;
    const bool weighs = !solves && nb_option_of(ctx, "importance")->i == INPUTS;
    if (weighs && !nb_input_power_begin(&power, ctx)) return NB_PASS_FAILED;
    nb_stage stage = ctx->graph->stage;
    if (stage < NB_STAGE_QDQ) ctx->graph->stage = NB_STAGE_QDQ;
    bool changed = false,
         ok = quantize_layers(ctx, solves ? &solving : NULL, weighs ? &power : NULL, &changed);
    if (solves && ok) report_few(ctx, &solving.inputs);
    if (solves) nb_layer_inputs_end(&solving.inputs);
    if (weighs) nb_input_power_end(&power);
    if (!changed) ctx->graph->stage = stage;
    if (!ok) return NB_PASS_FAILED;
    nb_graph_sweep(ctx->graph);
    return nb_pass_end(ctx, changed);
}

const nb_pass nb_pass_quantize_weights = {
    .size = sizeof(nb_pass),
    .name = "quantize-weights",
    .options = options,
    .run = run,
    .summary = "round the weights of linear layers and embeddings to integers",
};
