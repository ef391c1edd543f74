/* How far a quantized model is from what it was before, layer by layer, on held-out samples. */
#ifndef NBT_COMPARE_H
#define NBT_COMPARE_H

#include "passes/observe.h"
#include "tools/json.h"
#include "tools/model.h"
#include "tools/samples.h"

/* Sums of squares: of the float values, and of how far the others are from them. */
typedef struct nbt_error {
    double signal, noise;
} nbt_error;
/* No error at all; what is not a number is one. */
static inline bool nbt_is_exact(nbt_error e) { return e.noise == 0; }
void nbt_error_add(nbt_error *e, const nb_tensor *wanted, const nb_tensor *found);
double nbt_relative_error(nbt_error e); /* sqrt(noise / signal) */
double nbt_sqnr(nbt_error e);           /* the same in dB: 10 log10(signal / noise) */
/* "23.4"; "-" without any error. */
const char *nbt_sqnr_text(nb_arena *arena, nbt_error e);

/* What layers take: the channels of a value of the float model. */
typedef struct nbt_input {
    const char *layer; /* the first that takes it */
    int64_t channels;
    float *amax;        /* [channels] */
    nb_outliers ranges; /* the outliers' numbers: */
    int64_t *outliers;
    int64_t largest; /* the number of the largest channel */
} nbt_input;

typedef struct nbt_layer_error {
    const char *name, *detail; /* the node; bits and scales, "" in float */
    const char *role, *block;  /* of "/layers.3/mlp/up_proj/MatMul": "mlp/up_proj", "3" */
    int64_t weights, bytes;
    nbt_error alone, whole; /* on float inputs; in the quantized model */
    size_t input;           /* of `inputs`; SIZE_MAX: none (embeddings) */
    nb_op *op;              /* in stages.plain */
    const nb_value *there;  /* in stages.rounded: its result, bias and branches included */
} nbt_layer_error;

double nbt_bits_of(const nbt_layer_error *layer); /* for each weight, scales included */

/* A place of the residual stream: the sum after a block. */
typedef struct nbt_place {
    const char *name;
    nbt_error whole;
} nbt_place;

typedef struct nbt_comparison {
    const char *scheme; /* or "passes" */
    nbt_layer_error *layers;
    nbt_input *inputs;
    nbt_place *stream; /* from input to output; none in a model without one */
    size_t n_layers, n_inputs, n_stream, n_samples;
    nb_facts facts;
    nbt_size size;
} nbt_comparison;

/* The model was opened with nbt_wants_stages; the samples are those of --tokens. */
nb_status nbt_compare(nbt_args *args, const nbt_model *model, nbt_comparison *out);
/* The same on these. */
nb_status nbt_compare_on(nbt_args *args, const nbt_model *model, const nbt_samples *samples,
                         nbt_comparison *out);

/* Schemes of the options, at least one; the arguments with that one alone. */
size_t nbt_scheme_count(const nbt_args *args);
nbt_args nbt_scheme_args(const nbt_args *args, size_t i);

/* compare_table.c */
json_t *nbt_comparison_json(nb_arena *arena, const nbt_comparison *c);
void nbt_print_comparisons(nb_arena *arena, const nbt_comparison *all, size_t n);

/* compare_parts.c: a name's role and block. */
void nbt_name_parts(nb_arena *arena, const char *name, const char **role, const char **block);

#endif
