/* Schemes: what `--scheme` stands for, as a pipeline. */
#ifndef NB_PASSES_PRESETS_H
#define NB_PASSES_PRESETS_H

#include "ir/support/arena.h"

typedef struct nb_preset_options {
    int64_t group;   /* inputs that share a scale; -1: the scheme's default */
    bool calibrated; /* samples are there: smooth, and static scales for 8-bit activations */
} nb_preset_options;

/* The pipeline of a scheme, or NULL when there is none of that name. */
const char *nb_preset(const char *scheme, const nb_preset_options *options, nb_arena *arena);
/* Names in order, NULL beyond the last. */
const char *nb_preset_name(size_t index);
/* "f32, w8a16, ..." */
const char *nb_preset_names(nb_arena *arena);

#endif
