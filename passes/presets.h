/* Schemes: what `--scheme` stands for, as a pipeline. */
#ifndef NB_PASSES_PRESETS_H
#define NB_PASSES_PRESETS_H

#include "ir/support/arena.h"

typedef struct nb_preset_options {
    int64_t group;       /* inputs that share a scale; -1: the scheme's default */
    bool calibrated;     /* samples are there: what is chosen is chosen by them */
    bool own_samples;    /* nobody gave them: a language model writes them, for others draw-samples
                          * draws some */
    bool static_scales;  /* of 8-bit activations; needs samples */
    const char *budget;  /* options of choose-bits, e.g. "budget=4.7"; NULL: all layers alike */
    bool last_logits;    /* decoders compute the logits of the last position only */
    const char *adapter; /* file of a LoRA adapter, or NULL */
    const char *adapter_scale; /* a number; NULL: as the adapter's configuration says */
    const char *kv; /* one of nb_kv_types: of the key/value cache; NULL: as the model has it */
} nb_preset_options;

typedef struct nb_scheme {
    const char *name;
    int weight_bits, act_bits; /* 0 = float */
} nb_scheme;
/* False when there is none of that name. */
bool nb_scheme_find(const char *name, nb_scheme *out);

/* "4.7bpw" (bits per weight, 2 to 32) or "12ms" (a run's milliseconds) as nb_preset_options.budget
 * has it: "budget=4.7", "budget-ms=12"; NULL: it is neither. */
const char *nb_budget_option(const char *text, nb_arena *arena);

/* Names of element types that caches can have, NULL behind the last. */
const char *const *nb_kv_types(void);

/* The pipeline of a scheme, or NULL when there is none of that name. */
const char *nb_preset(const char *scheme, const nb_preset_options *options, nb_arena *arena);
/* Names in order, NULL beyond the last. */
const char *nb_preset_name(size_t index);
/* "f32, w8a16, ..." */
const char *nb_preset_names(nb_arena *arena);

#endif
