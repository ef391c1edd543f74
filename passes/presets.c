/* The schemes (presets.h). Defaults: groups of 32, the range searched; symmetric codes of 8 bits,
 * or 4 bits with zero points and the head in 8 bits, whose errors reach the logits directly;
 * embeddings in 8 bits; 8-bit inputs of gated layers by blocks. 16-bit activations stay dynamic
 * with calibration too: a scale per token costs nothing there, and a static one loses to outliers.
 */
#include "passes/presets.h"

#include "passes/pass.h"

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

const char *const *nb_kv_types(void) { return nb_pass_cache_type.options[0].choices; }

#define FRONT "simplify, raise, simplify"
#define BACK  "fuse-dequant, simplify"

const char *nb_preset(const char *name, const nb_preset_options *options, nb_arena *arena) {
    nb_scheme s;
    if (!nb_scheme_find(name, &s)) return NULL;
    const char *kv = options->kv ? nb_format(arena, ", cache-type{to=%s}", options->kv) : "";
    /* Last, so that what is quantized, and how, does not depend on it. */
    const char *end = nb_format(arena, "%s%s, plan-memory", kv,
                                options->last_logits ? ", last-logits{decoders}" : "");
    if (!s.weight_bits) return nb_format(arena, FRONT "%s", end);
    int64_t group = options->group >= 0 ? options->group : 32;
    const char *weights = s.weight_bits == 4 ? ", asymmetric, search, head=8, embedding-group=32"
                                             : ", search, embedding-group=32";
    bool fixed = options->calibrated && s.act_bits == 8;
    return nb_format(arena,
                     FRONT "%s, quantize-weights{bits=%d, group=%lld%s, min-weights=" MIN_WEIGHTS
                           "}, insert-qdq{act=i%d%s}, " BACK "%s",
                     options->calibrated ? ", calibrate, smooth-fold" : "", s.weight_bits,
                     (long long)group, weights, s.act_bits,
                     fixed                      ? ", mode=static"
                     : s.act_bits == 8 && group ? ", blocks=gated"
                                                : "",
                     end);
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
