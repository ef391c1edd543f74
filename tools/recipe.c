/* Which pipeline the options ask for: --passes, --recipe, or --scheme and what goes with it. */
#include "passes/presets.h"
#include "tools/bench.h"
#include "tools/tensor_file.h"

#include <stdlib.h>
#include <string.h>

bool nbt_wants_budget(const nbt_args *args) {
    return nbt_has(args, "budget") || nbt_has(args, "max-kld");
}

/* --logits. Who makes text looks at the last position only; who compiles does not say. */
static nb_status wants_last_logits(const nbt_args *args, bool *out) {
    const char *which = nbt_get(args, "logits");
    *out = which
               ? strcmp(which, "last") == 0
               : strcmp(args->command, "bench") == 0 || strcmp(args->command, "generate") == 0 ||
                     strcmp(args->command, "report") == 0 || strcmp(args->command, "profile") == 0;
    if (!which || *out || strcmp(which, "all") == 0) return NB_OK;
    return nb_error(args->diags, NB_USAGE, NB_NOWHERE, "--logits takes last or all, found '%s'",
                    which);
}

/* --kv, checked; NULL when it is not given. */
static nb_status choose_kv(nbt_args *args, const char **out) {
    const char *const *types = nb_kv_types(), *all = "";
    *out = nbt_get(args, "kv");
    if (!*out) return NB_OK;
    for (size_t i = 0; types[i]; i++) {
        if (strcmp(types[i], *out) == 0) return NB_OK;
        all = nb_format(args->arena, "%s%s%s", all, i ? ", " : "", types[i]);
    }
    return nb_error(args->diags, NB_USAGE, NB_NOWHERE, "--kv is one of %s; found '%s'", all, *out);
}

static nb_status choose_adapter(nbt_args *args, nb_preset_options *options) {
    double scale = 0;
    options->adapter = nbt_get(args, "adapter");
    options->adapter_scale = nbt_get(args, "adapter-scale");
    NB_TRY(nbt_number(args, "adapter-scale", -1e6, 1e6, &scale));
    if (options->adapter || !options->adapter_scale) return NB_OK;
    return nb_error(args->diags, NB_USAGE, NB_NOWHERE, "--adapter-scale is about --adapter");
}

/* --act. */
static nb_status choose_act(nbt_args *args, nb_preset_options *options) {
    const char *how = nbt_get(args, "act");
    options->static_scales = how && strcmp(how, "static") == 0;
    if (how && !options->static_scales && strcmp(how, "dynamic") != 0)
        return nb_error(args->diags, NB_USAGE, NB_NOWHERE, "--act is dynamic or static, found '%s'",
                        how);
    if (!options->static_scales || options->calibrated) return NB_OK;
    nb_error(args->diags, NB_USAGE, NB_NOWHERE,
             "--act static: there is nothing to choose scales by");
    nb_help(args->diags, "give samples with --calib");
    return NB_USAGE;
}

/* --budget and --max-kld, as options of choose-bits. Layers are measured on samples. */
static nb_status choose_budget(nbt_args *args, nb_preset_options *options) {
    const char *budget = nbt_get(args, "budget"), *kld = nbt_get(args, "max-kld");
    double value = 0;
    if (!nbt_wants_budget(args)) return NB_OK;
    NB_TRY(nbt_number(args, "max-kld", 1e-9, 100, &value));
    if (budget && kld)
        return nb_error(args->diags, NB_USAGE, NB_NOWHERE, "--budget and --max-kld are two aims");
    options->budget = budget ? nb_budget_option(budget, args->arena)
                             : nb_format(args->arena, "max-kld=%.9g", value);
    if (!options->budget)
        return nb_error(args->diags, NB_USAGE, NB_NOWHERE,
                        "--budget takes 2 to 32 bits per weight, like 4.7bpw, or milliseconds of a "
                        "run, like 12ms; found '%s'",
                        budget);
    const bool timed = strncmp(options->budget, "budget-ms", strlen("budget-ms")) == 0;
    return timed ? nbt_check_stopwatch(args) : NB_OK;
}

/* What says how a model is made from the graph it was; a pipeline takes the place of those behind
 * the first three. */
static const char *const recipe[] = {"passes", "recipe",  "calib", "scheme",  "group",        "act",
                                     "budget", "max-kld", "kv",    "adapter", "adapter-scale"};
#define BESIDE_PASSES 3

nb_status nbt_refuse_recipe(nbt_args *args, const char *path) {
    for (size_t i = 0; i < NB_COUNT(recipe); i++) {
        if (!nbt_has(args, recipe[i])) continue;
        nb_error(args->diags, NB_USAGE, (nb_where){.file = path, .offset = -1},
                 "--%s: this model is planned already, and stays as it is", recipe[i]);
        nb_help(args->diags, "give --%s when it is made from .onnx", recipe[i]);
        return NB_USAGE;
    }
    return NB_OK;
}

nb_status nbt_given_pipeline(nbt_args *args, const char **out) {
    const char *passes = nbt_get(args, "passes"), *file = nbt_get(args, "recipe");
    if (passes && file)
        return nb_error(args->diags, NB_USAGE, NB_NOWHERE,
                        "--passes and --recipe are two pipelines");
    *out = passes;
    if (file) {
        char *text;
        size_t size;
        NB_TRY(nbt_read_file(file, args->arena, args->diags, &text, &size));
        if (strlen(text) != size)
            return nb_error(args->diags, NB_MALFORMED, (nb_where){.file = file, .offset = -1},
                            "a recipe is text, found a byte of 0");
        *out = text;
    }
    for (size_t i = BESIDE_PASSES; *out && i < NB_COUNT(recipe); i++) {
        if (!nbt_has(args, recipe[i])) continue;
        nb_error(args->diags, NB_USAGE, NB_NOWHERE,
                 "--%s is about a scheme's pipeline, which --%s replaces", recipe[i],
                 passes ? "passes" : "recipe");
        nb_help(args->diags, "--print-pipeline with --%s shows what to give to --passes",
                recipe[i]);
        return NB_USAGE;
    }
    return NB_OK;
}

nb_status nbt_pipeline_text(nbt_args *args, const char *scheme, const char **out) {
    *out = NULL;
    if (!scheme) NB_TRY(nbt_given_pipeline(args, out));
    if (*out) return NB_OK;
    bool has_scheme = strcmp(args->command, "opt") != 0 && strcmp(args->command, "inspect") != 0;
    const bool own = has_scheme && nbt_wants_budget(args) && !nbt_has(args, "calib");
    nb_preset_options options = {.group = -1,
                                 .calibrated = has_scheme && (own || nbt_has(args, "calib")),
                                 .own_samples = own};
    if (!scheme) NB_TRY(choose_kv(args, &options.kv));
    if (!scheme) NB_TRY(choose_adapter(args, &options));
    if (!scheme) NB_TRY(choose_act(args, &options));
    if (!scheme) NB_TRY(choose_budget(args, &options));
    if (!scheme) scheme = has_scheme ? nbt_get(args, "scheme") : NULL;
    if (has_scheme) NB_TRY(nbt_integer(args, "group", 0, 65536, &options.group));
    NB_TRY(wants_last_logits(args, &options.last_logits));
    *out = nb_preset(scheme ? scheme : "f32", &options, args->arena);
    if (*out) return NB_OK;
    return nb_error(args->diags, NB_USAGE, NB_NOWHERE, "there is no scheme '%s'; schemes are %s",
                    scheme, nb_preset_names(args->arena));
}
