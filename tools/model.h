/* A model as subcommands use it: read from .onnx, .nir or .so, taken through a pipeline, compiled.
 */
#ifndef NBT_MODEL_H
#define NBT_MODEL_H

#include "lib/execute.h"
#include "passes/pass.h"
#include "tools/args.h"
#include "tools/stages.h"

/* Reads .onnx or .nir, by the name's ending, else by content. */
nb_status nbt_read_graph(nbt_args *args, const char *path, nb_graph **out);
/* Is it a compiled model (an ELF file)? */
bool nbt_is_compiled(const char *path);
void nbt_print_cpus(void);
/* --cpu, or the default `fallback`; `--target` picks the architecture. */
nb_status nbt_choose_cpu(nbt_args *args, const char *fallback, const cg_cpu **out);
nb_status nbt_choose_threads(nbt_args *args, int *out);
/* --weights-in. */
nb_status nbt_choose_pages(const nbt_args *args, nbl_pages *out);
/* --layers, or a command that needs the time of each op. */
bool nbt_wants_layers(const nbt_args *args);
/* A command that compares graphs on their way through the pipeline. */
bool nbt_wants_stages(const nbt_args *args);

/* --budget or --max-kld: layers get bits of their own. */
bool nbt_wants_budget(const nbt_args *args);
/* The passes and operations there are, those of --load too. */
nb_status nbt_make_registry(nbt_args *args, nb_registry **out);
/* What --passes or --recipe give instead of a scheme's pipeline; NULL without them. */
nb_status nbt_given_pipeline(nbt_args *args, const char **out);
/* The pipeline that the options ask for: --passes, or --scheme's. `scheme` overrides --scheme when
 * it is not NULL, and then --kv does not count. */
nb_status nbt_pipeline_text(nbt_args *args, const char *scheme, const char **out);
/* An error when --scheme, --kv or the like is given for a model that is past the passes that could
 * obey. */
nb_status nbt_refuse_recipe(nbt_args *args, const char *path);
/* Runs it on the graph, with --calib, --dump, --verify-each, --check-each, --time, --load;
 * then writes --save-recipe. */
nb_status nbt_run_pipeline(nbt_args *args, nb_graph *g, const char *text);
/* Who looks on, and what for; all may be NULL. */
typedef struct nbt_watch {
    bool estimating;    /* as in nb_pass_env */
    nbt_stages *stages; /* keeps the graphs on the way */
    void (*near_miss)(void *user, const nb_near_miss *miss);
    void (*after)(void *user, const nb_pass_event *event);
    void *user;
} nbt_watch;
nb_status nbt_run_watched(nbt_args *args, nb_graph *g, const char *text, const nbt_watch *watch);
/* All passes, those of --load too. */
nb_status nbt_make_registry(nbt_args *args, nb_registry **out);
/* plan-memory alone, without --calib. */
nb_status nbt_plan(nbt_args *args, nb_graph *g);

/* What run, eval, generate and bench execute. */
typedef struct nbt_model {
    const char *path;
    nb_graph *graph;     /* planned; NULL for a .so */
    nbt_stages stages;   /* none unless nbt_wants_stages */
    nbl_program program; /* not with --interpret */
    bool was_planned;    /* the file had a planned graph: no pass ran */
    bool interpret;      /* use the evaluator on `graph` */
    int threads;
    const char **input_names, **output_names;
    size_t n_inputs, n_outputs;
} nbt_model;

nb_status nbt_open_model(nbt_args *args, const char *path, const char *scheme, nbt_model *out);
/* A copy of a graph as it was read, by a scheme, and by nothing else that the options say. */
nb_status nbt_open_copy(nbt_args *args, const nb_graph *g, const char *scheme, nbt_model *out);
void nbt_close_model(nbt_model *model);
/* Names of inputs and outputs of what is compiled. */
void nbt_name_ports(nbt_args *args, nbt_model *model);
/* Runs once from empty state. Inputs by index; data NULL: not given. */
nb_status nbt_run_model(nbt_args *args, nbt_model *model, const nb_tensor *inputs,
                        nb_tensor *outputs, nb_arena *arena);

/* Weights, their bits and bits per weight over linear layers and embeddings of a planned graph. */
typedef struct nbt_size {
    int64_t weights, bytes; /* of matrices, with scales and zero points */
    int64_t other_bytes;
    double bits_per_weight, linear_bits; /* of all; of linear layers only */
} nbt_size;
nbt_size nbt_measure_size(const nb_graph *g);
/* Bytes of a constant, with scales and zero points, as `use` finds it in the compiled model. */
int64_t nbt_packed_bytes(const nb_use *use, const nb_value *constant);

#endif
