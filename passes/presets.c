/* The schemes (presets.h). Defaults: outlier channels smoothed away; groups of 32, the range
 * searched; symmetric codes of 8 bits, or 4 bits with zero points and the head in 8 bits, whose
 * errors reach the logits directly; embeddings in 8 bits; 8-bit inputs of gated layers by blocks,
 * or spread over blocks.
 * With samples weights are rounded by what they do to the outputs (GPTQ). Activations stay dynamic
 * then too, unless static ones are asked for: a scale per token costs little and loses less. */
#include "passes/presets.h"

#include "passes/pass.h"

#include <stdlib.h>
#include <string.h>

/* Of fewer weights a quantized layer is slower than a float one: on x86-64-v3 one of 16 x 16 takes
 * 0.05 us for a row, 0.03 us in float; one of 32 x 32 takes 0.07 us and 0.09 us. */
#define MIN_WEIGHTS "1024"

static const nb_scheme schemes[] = {
    {"f32", 0, 0}, {"w8a16", 8, 16}, {"w8a8", 8, 8}, {"w4a16", 4, 16}, {"w4a8", 4, 8},
};

bool nb_scheme_find(const char *name, nb_scheme *out) {
    for (size_t i = 0; i < NB_COUNT(schemes); i++) {
        if (strcmp(schemes[i].name, name) != 0) continue;
        *out = schemes[i];
        return true;
    }
    return false;
}

extern const nb_pass nb_pass_cache_type;

/* NUMBER and its unit; false: it is something else. */
static bool read_budget(const char *text, const char *unit, double least, double most,
                        double *value) {
    char *end;
    *value = strtod(text, &end);
    return end != text && strcmp(end, unit) == 0 && *value >= least && *value <= most;
}

const char *nb_budget_option(const char *text, nb_arena *arena) {
    double value;
    if (read_budget(text, "ms", 1e-6, 1e6, &value))
        return nb_format(arena, "budget-ms=%.9g", value);
    if (read_budget(text, "bpw", 2, 32, &value)) return nb_format(arena, "budget=%.9g", value);
    return NULL;
}

const char *const *nb_kv_types(void) { return nb_pass_cache_type.options[0].choices; }

#define FRONT "simplify, raise, simplify, flush-weights"
/* What move-codes left in front of codes goes on behind them. */
#define BACK "move-codes, channels-last, fuse-dequant, simplify"
/* Convolutions of one element are faster as products, whose results have their channels last. */
#define POINTWISE ", conv-to-matmul{pointwise}, channels-last, simplify"
/* Convolutions as linear layers, but those that would be too small anyway. An element becomes a
 * code, for each place that a kernel sees it from, and goes into a product for each output: below
 * so many the codes take longer than their products save (passes/README.md). Patches of codes are
 * never written down (ir/chain.h) where one scale is for all inputs of an output, which pays from
 * half a vector of outputs on. */
#define MIN_OUTPUTS  "64"
#define CONVOLUTIONS ", conv-to-matmul{min-weights=" MIN_WEIGHTS ", min-outputs=%s}" POINTWISE
#define CONV_COLUMNS ", conv-group=0"

/* Networks of convolutions amplify errors: those of weights, which rounding by moments keeps small,
 * also with pictures that show nothing; and those of a few activations. A budget needs samples of
 * any model. */
static const char *drawn(const nb_preset_options *options) {
    return options->own_samples ? ", draw-samples" : ", draw-samples{convolutions}";
}
#define WIDE ", wide-inputs{convolutions, max-kld=%s, samples=32}"

/* The layers, with the adapter beside them. */
static const char *front(const nb_preset_options *options, nb_arena *arena) {
    if (!options->adapter) return FRONT;
    const char *scale =
        options->adapter_scale ? nb_format(arena, ", scale=%s", options->adapter_scale) : "";
    return nb_format(arena, FRONT ", adapter{file=\"%s\"%s}",
                     nb_pipeline_quote(options->adapter, arena), scale);
}

/* How weights are kept. */
static const char *weights(const nb_scheme *s, int64_t group, nb_arena *arena) {
    return nb_format(arena, "bits=%d, group=%lld%s, search%s, embedding-group=32", s->weight_bits,
                     (long long)group, s->weight_bits == 4 ? ", asymmetric" : "",
                     s->weight_bits == 4 ? ", head=8" : "");
}

/* What makes inputs easier to round. Where they get 8-bit codes of one scale, for a token or for
 * all of them, what gates multiply is spread too; static scales are for what all that left. */
static const char *smoothing(const nb_scheme *s, int64_t group, bool fixed, bool calibrated,
                             nb_arena *arena) {
    const bool whole = s->act_bits == 8 && (fixed || !group);
    /* Rounding 4-bit weights is the greater loss, and moved factors make it greater. */
    const bool moves = calibrated && s->weight_bits == 8;
    const char *search = nb_format(arena, ", smooth-fold{search, bits=%d, group=%lld, act=%s}",
                                   s->weight_bits, (long long)group,
                                   s->act_bits != 8 ? "none"
                                   : fixed          ? "i8-static"
                                                    : "i8");
    return nb_format(arena, ", smooth-fold{leave=4}%s%s%s", moves ? search : "",
                     whole ? ", rotate{residual=false, values=false, gated=32}" : "",
                     fixed ? ", calibrate{method=mse}" : "");
}

/* Drawn pictures show less of what errors do than real ones. */
static const char *wide(const nb_scheme *s, bool fixed, bool calibrated, nb_arena *arena) {
    if (s->act_bits != 8 || fixed) return "";
    return nb_format(arena, WIDE, calibrated ? "0.0003" : "0.0001");
}

/* Groups as asked for, if they were. */
static const char *bits_of_layers(const nb_scheme *s, const nb_preset_options *options,
                                  nb_arena *arena) {
    if (!options->budget) return "";
    const char *groups =
        options->group < 0 ? "" : nb_format(arena, ", groups=\"%lld\"", (long long)options->group);
    return nb_format(arena, ", choose-bits{%s%s%s}", options->budget, groups,
                     s->weight_bits == 4 ? ", asymmetric" : "");
}

/* Codes share a range that large channels stretch; floats have one each. What keys are like little
 * text shows, which the model is made to draw where none was given. */
static const char *cache(const nb_preset_options *options, nb_arena *arena) {
    const bool i8 = strcmp(options->kv, "i8") == 0, i4 = strcmp(options->kv, "i4") == 0,
               draws = (i8 || i4) && !options->calibrated;
    return nb_format(arena, "%s%s, cache-type{to=%s%s%s}", draws ? ", draw-samples{count=2}" : "",
                     !i8     ? ""
                     : draws ? ", center-keys{auto}"
                             : ", center-keys",
                     options->kv, i4 ? ", shape" : "", i4 && draws ? ", auto" : "");
}

const char *nb_preset(const char *name, const nb_preset_options *options, nb_arena *arena) {
    nb_scheme s;
    if (!nb_scheme_find(name, &s)) return NULL;
    const char *kv = options->kv ? cache(options, arena) : "";
    /* Last, so that what is quantized, and how, does not depend on it. */
    const char *end = nb_format(arena, "%s%s, plan-memory", kv,
                                options->last_logits ? ", last-logits{decoders}" : "");
    /* Models that come quantized. */
    if (!s.weight_bits)
        return nb_format(arena, "%s" POINTWISE ", " BACK "%s", front(options, arena), end);
    int64_t group = options->group >= 0 ? options->group : 32;
    const bool fixed = options->static_scales && s.act_bits == 8,
               by_data = options->calibrated && !options->own_samples,
               without_patches = fixed && s.weight_bits == 8;
    return nb_format(arena,
                     "%s%s" CONVOLUTIONS "%s%s, quantize-weights{%s%s%s, min-weights=" MIN_WEIGHTS
                     "%s}, insert-qdq{act=i%d%s}%s, " BACK "%s",
                     front(options, arena), drawn(options), without_patches ? "8" : MIN_OUTPUTS,
                     smoothing(&s, group, fixed, options->calibrated, arena),
                     bits_of_layers(&s, options, arena), weights(&s, group, arena),
                     without_patches && group ? CONV_COLUMNS : "",
                     by_data ? ", method=gptq" : ", method=auto",
                     without_patches ? "" : ", min-outputs=" MIN_OUTPUTS, s.act_bits,
                     fixed                      ? ", mode=static, asymmetric"
                     : s.act_bits == 8 && group ? ", blocks=gated"
                                                : "",
                     wide(&s, fixed, by_data, arena), end);
}

const char *nb_preset_name(size_t index) {
    return index < NB_COUNT(schemes) ? schemes[index].name : NULL;
}

const char *nb_preset_names(nb_arena *arena) {
    const char *names = "";
    for (size_t i = 0; i < NB_COUNT(schemes); i++)
        names = nb_format(arena, "%s%s%s", names, i ? ", " : "", schemes[i].name);
    return names;
}
