/* Bits and groups of single layers: what choose-bits finds, quantize-weights takes, and recipes say
 * as text, "PATTERN=BITS/GROUP" with semicolons between them ("PATTERN=BITS": the usual group). */
#ifndef NB_PASSES_LAYER_FORM_H
#define NB_PASSES_LAYER_FORM_H

#include "passes/pass.h"

typedef struct nb_layer_form {
    int bits;      /* 2 to 8; 0: nothing is said */
    int64_t group; /* inputs that share a scale, 0: all of a channel; -1: as usual */
} nb_layer_form;

/* Says what becomes of the layers whose weight is `w`, for the passes that follow. */
void nb_layer_form_set(nb_pass_env *env, const nb_value *w, const char *name, nb_layer_form form);
/* All that was said, as text; NULL: nothing. */
const char *nb_layer_forms_text(const nb_pass_env *env, nb_arena *arena);

/* The same by name: the option `layers`. */
typedef struct nb_layer_rule {
    const char *pattern; /* as nb_match_name has it */
    nb_layer_form form;
    size_t matched;
} nb_layer_rule;

typedef struct nb_layer_rules {
    NB_VEC(nb_layer_rule) list;
    NB_VEC(const char *) seen; /* names that were asked about */
} nb_layer_rules;

/* False, with an error, when `text` is no list of rules. */
bool nb_layer_rules_read(nb_pass_ctx *ctx, const char *text, nb_layer_rules *out);
/* The first rule for op's name, else what was set for its weight. */
nb_layer_form nb_layer_rules_find(nb_pass_ctx *ctx, nb_layer_rules *rules, const nb_op *op);
/* Every rule must have matched a layer: false, with an error and names there are, otherwise. */
bool nb_layer_rules_end(nb_pass_ctx *ctx, const nb_layer_rules *rules);

#endif
