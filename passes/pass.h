/* The compiler's side of passes: registry, pipelines, the environment they run in.
 *
 * Built-in passes and plug-ins are the same struct (nb_pass.h). Built-ins may also include ir/
 * headers directly; plug-ins see the host table only. */
#ifndef NB_PASSES_PASS_H
#define NB_PASSES_PASS_H

#include "ir/eval.h"
#include "ir/support/store.h"
#include "passes/histogram.h"
#include "passes/nb_pass.h"

/* ---- registry ------------------------------------------------------------------------------ */

typedef struct nb_registry {
    nb_arena *arena;
    NB_VEC(const nb_pass *) passes; /* built-ins in the order of passes.def, then loaded ones */
    size_t n_builtins;
    NB_VEC(const nb_op_def *) ops; /* that plug-ins brought */
    const char *base; /* the folder that files of `include` are looked for in, NULL: this one */
} nb_registry;

/* With all built-ins. */
nb_registry *nb_registry_create(nb_arena *arena);
/* The built-ins, NULL behind the last. */
const nb_pass *nb_builtin_pass(size_t i);
const nb_pass *nb_registry_find(const nb_registry *registry, const char *name, size_t length);
/* Was the pass loaded? What it leaves is verified, always. */
bool nb_registry_is_loaded(const nb_registry *registry, const nb_pass *pass);
const nb_op_def *nb_registry_find_op(const nb_registry *registry, const char *name);
/* Loads a plug-in. It stays loaded until the process ends, since a graph may hold its strings. */
nb_status nb_registry_load(nb_registry *registry, const char *path, nb_diags *diags);
/* Adds passes of a plug-in that is in memory already; `path` is for messages. */
nb_status nb_registry_add(nb_registry *registry, const nb_plugin *plugin, const char *path,
                          nb_diags *diags);

/* ---- calibration statistics ---------------------------------------------------------------- */

/* What calibrate saw of one value: the input of a linear layer, whose last axis has `channels`
 * entries, or of a conv, whose second axis has. */
typedef struct nb_stats {
    int64_t channels, rows;        /* rows observed: elements of one channel */
    float *amax;                   /* [channels] largest |x| */
    float *mean_abs;               /* [channels] mean |x|; NULL: not known any more */
    float *mean;                   /* [channels] */
    float *low, *high;             /* [channels] smallest and largest x */
    float min, max;                /* of the whole tensor */
    float clip;                    /* |x| bound that calibrate's method chose for the tensor */
    const nb_histogram *histogram; /* of |x| of the whole tensor; NULL: not known any more */
} nb_stats;

/* ---- environment --------------------------------------------------------------------------- */

typedef struct nb_sample {
    const nb_tensor *inputs; /* one per graph input */
} nb_sample;

/* What happened after one pass; `graph` may be printed or run by the observer, not changed. */
typedef struct nb_pass_event {
    size_t index; /* position in the pipeline */
    const char *name;
    nb_pass_result result;
    double seconds;
    const nb_graph *graph;
} nb_pass_event;

/* A number that a pass chose for the op of a node, or, without one, for the graph. */
typedef struct nb_fact {
    const char *pass, *node, *name;
    double value;
} nb_fact;
typedef NB_VEC(nb_fact) nb_facts;

/* A rewrite that nearly fired: a rule that found its operations, or nearly all of them, and a
 * condition that refused. */
typedef struct nb_near_miss {
    const char *pass, *rule, *equation; /* what it rewrites, "" when it is no equation */
    const nb_op *op;                    /* where, in the graph as it stands, or NULL */
    const char *why;
} nb_near_miss;

typedef struct nb_step {
    const nb_pass *pass;
    nb_option_value *options;
} nb_step;

typedef struct nb_pipeline {
    NB_VEC(nb_step) steps;
} nb_pipeline;

/* The inputs that wide-inputs chose, by the names of their values, where several forms of one model
 * are made: what it finds in the first is taken for all. */
typedef struct nb_wide_choice {
    nb_arena *arena;  /* outlives the forms */
    size_t n_samples; /* that there are to search by, even where other passes get fewer */
    bool known;
    NB_VEC(const char *) names;
} nb_wide_choice;

typedef struct nb_pass_env {
    nb_registry *registry;
    nb_diags *diags;
    nb_arena *arena; /* outlives the pipeline's run */
    nb_run_fn run;   /* NULL: nb_eval */
    void *run_user;
    const nb_sample *samples; /* --calib */
    size_t n_samples;
    bool drawn;            /* nobody chose them: draw-samples did */
    const nb_store *store; /* NULL: nothing is kept */
    /* `done` of `total` samples went through the pass; NULL: nobody watches. */
    void (*progress)(void *user, const char *pass, size_t done, size_t total);
    void *progress_user;
    bool verify_each, check_each;
    bool estimating; /* what comes of it is asked for sizes and shapes alone: weights of mapped
                      * files may stay unread */
    void (*after)(void *user, const nb_pass_event *event); /* NULL: nobody watches */
    void *after_user;
    void (*near_miss)(void *user, const nb_near_miss *miss); /* NULL: nobody listens */
    void *near_miss_user;
    /* Bytes of a linear layer's weights [k,n] in compiled code, with scales and zero points; NULL:
     * as they are in a graph. */
    int64_t (*linear_bytes)(int64_t k, int64_t n, int bits, int64_t group, bool zeros);
    /* Seconds of one run of the smallest kind of a planned graph, compiled for this machine: a
     * decoder's step of one token, of any other graph a run at the shapes of the first sample,
     * which there must be.
     * seconds[i] gets what op i of the body takes of that. Negative after an error; NULL: nobody
     * can tell. */
    double (*run_seconds)(void *user, const nb_graph *planned, double *seconds);
    void *seconds_user;
    const nb_step *behind; /* [n_behind] the steps that follow the one that runs */
    size_t n_behind;
    nb_map stats; /* value -> nb_stats*, filled by calibrate */
    /* Constant of codes -> nb_blob* of the f32 weight it stands for; kept while a pass that comes
     * later needs it. */
    nb_map originals;
    bool keep_originals;
    nb_map layer_forms;   /* weight -> what choose-bits chose, see layer_form.h */
    nb_facts facts;       /* in the order in which passes found them */
    nb_wide_choice *wide; /* NULL: each run of the pass searches */
} nb_pass_env;

/* What ctx->host_data points at, for built-ins. */
typedef struct nb_pass_state {
    nb_pass_env *env;
    const nb_pass *pass;
    nb_arena *scratch;
    bool failed;             /* a host call was misused or an error was reported */
    const nb_loc *rewriting; /* of what a rewrite row replaces, or NULL: where new ops come from */
    const struct nb_host_rows *rows; /* of the host->rewrite that is under way, or NULL */
    nb_map selectors; /* option's name -> nb_skip*, of selectors that were asked about */
} nb_pass_state;

static inline nb_pass_state *nb_state_of(const nb_pass_ctx *ctx) { return ctx->host_data; }
static inline nb_diags *nb_diags_of(const nb_pass_ctx *ctx) { return nb_state_of(ctx)->env->diags; }
/* The options' values by name; asking for an undeclared one is a bug and aborts. */
const nb_option_value *nb_option_of(const nb_pass_ctx *ctx, const char *name);
/* NB_PASS_FAILED if anything was reported as an error, else by `changed`. */
nb_pass_result nb_pass_end(const nb_pass_ctx *ctx, bool changed);
/* Says why `rule` does not apply at `op`, where it nearly does: called at the place that refuses.
 * What is costly to find out asks nb_is_heard before. */
void nb_refused(const nb_pass_ctx *ctx, const nb_op *op, const char *rule, const char *equation,
                const char *fmt, ...) NB_PRINTF(5, 6);
static inline bool nb_is_heard(const nb_pass_ctx *ctx) {
    return nb_state_of(ctx)->env->near_miss != NULL;
}
/* A builder that places ops before `before` and gives them `loc` via this pass. */
struct nb_builder nb_pass_builder(nb_pass_ctx *ctx, nb_op *before, const nb_loc *loc);

/* ---- operations of plug-ins (host_call.c) --------------------------------------------------- */

/* Builds a call with the result type that the operation's shape rule gives; NULL after a
 * diagnostic. For who makes graphs, which are no passes. */
nb_value *nb_make_call(struct nb_builder *b, const nb_op_def *def, nb_value *const *operands,
                       size_t n, const int64_t *numbers, size_t n_numbers);
/* Every call in the graph whose operation is known has the result type that its shape rule gives:
 * the C function relies on it, and a graph may come from a file. NB_MALFORMED otherwise. */
nb_status nb_check_calls(nb_graph *graph, nb_pass_env *env);

/* ---- pipelines ----------------------------------------------------------------------------- */

/* "simplify, smooth-fold{alpha=0.5}, insert-qdq{act=i8, skip=\"x*\"}"; with include{scheme=w8a8}
 * and include{file="mine.passes"}, of which from= and until= take a part. Errors (unknown pass or
 * option, value out of range) are NB_USAGE, show the text with a caret and list near misses. */
nb_status nb_pipeline_parse(const nb_registry *registry, const char *text, nb_arena *arena,
                            nb_diags *diags, nb_pipeline *out);
/* The pipeline that was run as a recipe: a line for each pass, what choose-bits found as `layers`
 * of quantize-weights. */
const char *nb_recipe_text(const nb_pipeline *pipeline, const nb_pass_env *env, nb_arena *arena);
/* The value of a step's option; asking for one that its pass has not is a bug and aborts. */
const nb_option_value *nb_step_option(const nb_step *step, const char *name);
/* A step as it stands in a pipeline. */
const char *nb_step_text(const nb_step *step, nb_arena *arena);
/* Text as it stands between the quotes of an option. */
const char *nb_pipeline_quote(const char *text, nb_arena *arena);
/* Runs the steps in order; stops at the first that fails. */
nb_status nb_pipeline_run(const nb_pipeline *pipeline, nb_graph *graph, nb_pass_env *env);

/* What the host table is; one for all passes. */
extern const nb_pass_host nb_host;

#endif
