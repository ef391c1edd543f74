/* The schemes (presets.h). Defaults: symmetric codes per channel for 8 bits; for 4 bits groups of
 * 32 with zero points, the range searched, and the head in 8 bits, whose errors reach the logits
 * directly; embeddings in 8 bits, groups of 32. 16-bit activations stay dynamic with
 * calibration too: a scale per token costs nothing there, and a static one loses to outliers. */
#include "passes/presets.h"

#include <string.h>

typedef struct scheme {
    const char *name;
    int bits; /* of weights; 0 = float */
    const char *act;
} scheme;

static const scheme schemes[] = {
    {"f32", 0, NULL},    {"w8a16", 8, "i16"}, {"w8a8", 8, "i8"},
    {"w4a16", 4, "i16"}, {"w4a8", 4, "i8"},
};

#define FRONT "simplify, raise, simplify"
#define BACK  "fuse-dequant, simplify, plan-memory"

const char *nb_preset(const char *name, const nb_preset_options *options, nb_arena *arena) {
    const scheme *s = NULL;
    for (size_t i = 0; i < NB_COUNT(schemes); i++) {
        if (strcmp(schemes[i].name, name) == 0) s = &schemes[i];
    }
    if (!s) return NULL;
    if (!s->bits) return FRONT ", plan-memory";
    int64_t group = options->group >= 0 ? options->group : 32;
    const char *weights = s->bits == 4 ? ", asymmetric, search, head=8, embedding-group=32"
                                       : ", search, embedding-group=32";
    bool fixed = options->calibrated && strcmp(s->act, "i8") == 0;
    return nb_format(
        arena, FRONT "%s, quantize-weights{bits=%d, group=%lld%s}, insert-qdq{act=%s%s}, " BACK,
        options->calibrated ? ", calibrate, smooth-fold" : "", s->bits, (long long)group, weights,
        s->act, fixed ? ", mode=static" : "");
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
