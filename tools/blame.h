/* Which pass and which layers lost a model's accuracy, and what mends it: the parts of `nibble
 * blame`. The measure is the Kullback-Leibler divergence of the output's softmax from that of the
 * model as it was read, over all samples; what is not a number counts as infinite. */
#ifndef NBT_BLAME_H
#define NBT_BLAME_H

#include "passes/divergence.h"
#include "tools/compare.h"

/* Of one form of the model: how far its output is from the reference's. */
typedef struct nbt_loss {
    double kld;
    nbt_error output;
} nbt_loss;

/* The model as it was read, on the samples. */
typedef struct nbt_reference {
    nbt_args *args;
    const nb_graph *graph;
    nbt_samples samples;
    nb_counted counted;
    const char *output; /* the name of the one that counts */
    nb_tensor *wanted;  /* [samples.count] its values */
    nbl_runner *runner; /* runs one form after the other, and compiles equal code once */
} nbt_reference;

/* Reads the samples, those held out where there are some, and runs the graph on them.
 * nbt_reference_close also after an error. */
nb_status nbt_reference_open(nbt_args *args, const nb_graph *g, nbt_reference *out);
void nbt_reference_close(nbt_reference *ref);
/* Runs another form of the model on the samples. */
nb_status nbt_measure_loss(const nbt_reference *ref, const nb_graph *g, nbt_loss *out);
/* Adds what one sample's output loses; `kld` of the sum is divided by who ends it. */
void nbt_loss_add(nbt_loss *loss, const nb_tensor *wanted, const nb_tensor *found, nb_outputs kind);
/* The mean over n samples; infinite for what is not a number. */
void nbt_loss_end(nbt_loss *loss, size_t n);

/* ---- passes (blame_passes.c) ---------------------------------------------------------------- */

/* What rounding of f32 leaves between two forms of one function; less is no loss. */
#define NBT_NO_LOSS 1e-7

typedef struct nbt_blamed_pass {
    size_t index; /* in the pipeline */
    const char *name, *promise;
    bool rounded; /* behind it something is in codes */
    nbt_loss loss;
    bool known;         /* loss was measured */
    const char *broken; /* what --check-each says of it, if it is the first bad one; or NULL */
} nbt_blamed_pass;

typedef struct nbt_blamed_passes {
    nbt_blamed_pass *items; /* those that changed something, in order */
    size_t count;
    size_t first_bad; /* SIZE_MAX: the whole pipeline loses nothing */
    size_t runs;      /* forms of the model that the bisection measured */
} nbt_blamed_passes;

/* The first bad pass is the one at which the loss reaches half of what it is in the end, found by
 * bisection; then all others are measured. */
nb_status nbt_blame_passes(const nbt_reference *ref, const nbt_stages *stages,
                           nbt_blamed_passes *out);

/* ---- layers (blame_layers.c) ---------------------------------------------------------------- */

typedef struct nbt_blamed_layer {
    const nbt_layer_error *error;
    double kld; /* of the model in which this layer alone is rounded */
} nbt_blamed_layer;

typedef struct nbt_blamed_layers {
    nbt_comparison errors;
    nbt_blamed_layer *items; /* the worst first */
    size_t count;
    /* The fewest of the worst without which the loss is at most half: */
    size_t n_blamed;
    double kld, without; /* of all rounded; of all but those. Both from the float layers' output */
} nbt_blamed_layers;

nb_status nbt_blame_layers(const nbt_reference *ref, const nbt_model *model,
                           nbt_blamed_layers *out);

/* ---- what mends it (blame_fix.c) ------------------------------------------------------------ */

typedef struct nbt_fix {
    const char *line;     /* the step that is new or other than it was */
    const char *pipeline; /* the whole, a line for each pass */
    bool ran;             /* it did not fail */
    nbt_loss loss;
    nbt_size size;
} nbt_fix;

typedef struct nbt_fixes {
    nbt_fix *tried;
    size_t count;
    size_t chosen; /* SIZE_MAX: none of them helps enough */
} nbt_fixes;

/* Changes `text`, the pipeline, in one place, runs it again, and measures; the cheapest for who
 * uses the model first, until one helps enough. */
nb_status nbt_find_fix(const nbt_reference *ref, const char *text, const nbt_blamed_passes *passes,
                       const nbt_blamed_layers *layers, nbt_fixes *out);

#endif
