/* libnibble: Nibble as a library. Reads models, runs passes on their graphs, executes them,
 * compiles them in memory or to files, and runs what was compiled.
 *
 *   nibble_diags *diags = nibble_diags_create();
 *   nibble_graph *graph;
 *   nibble_model *model;
 *   nibble_result *result;
 *   if (nibble_graph_load("model.onnx", diags, &graph) ||
 *       nibble_run_scheme(graph, "w4a16", NULL, diags) ||
 *       nibble_compile(graph, NULL, diags, &model) ||
 *       nibble_model_run(model, inputs, n_inputs, diags, &result))
 *       fputs(nibble_diags_text(diags, 0), stderr);
 *
 * Errors are values: a function that can fail returns a nibble_status and puts what there is to say
 * into the nibble_diags it was given; NULL there: nobody wants to know. `*out` is NULL after an
 * error. No function prints, exits, or installs a signal handler. When memory runs out a call
 * returns NIBBLE_LIMIT; what it had allocated by then may be lost, the objects it was given may
 * only be freed.
 *
 * Ownership: what a function returns through `out` belongs to the caller, who frees it with the
 * function of its type (NULL is fine) or, char *, with nibble_free. const char * and what structs
 * point at belong to the object they were asked of and live as long, unless a line says otherwise.
 * What a caller hands over is copied, or used during the call only, unless a line says otherwise.
 *
 * Threads: there is no global state. An object belongs to one thread at a time, a graph together
 * with its clones; different objects may be used by different threads at once. A nibble_model may
 * be used by several at once. Code generation runs one at a time in a process, in a child process
 * of its own that fork() makes and waitpid() collects: a SIGCHLD handler must not collect children
 * that it does not know.
 *
 * Structs that begin with `size` only grow at their end: set it to sizeof the struct, and the rest
 * to 0, or to what they are documented to be. Functions are only added within a major number of
 * NIBBLE_API_MAJOR; major 0 may still change between releases. */
#ifndef NIBBLE_H
#define NIBBLE_H

#include "passes/nb_pass.h"
#include "runtime/nb_runtime.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NIBBLE_API_MAJOR 0
#define NIBBLE_API_MINOR 2

#if defined(__GNUC__)
#define NIBBLE_API __attribute__((visibility("default")))
#else
#define NIBBLE_API
#endif

/* The values are the exit codes of the program `nibble`. */
typedef enum nibble_status {
    NIBBLE_OK = 0,
    NIBBLE_CHECK_FAILED = 1, /* a check that was asked for did not hold */
    NIBBLE_USAGE = 2,        /* an argument, a pipeline or an option is wrong */
    NIBBLE_MALFORMED = 3,    /* an input breaks its format's rules */
    NIBBLE_UNSUPPORTED = 4,  /* valid, but not something Nibble can compile */
    NIBBLE_LIMIT = 5,        /* a limit, or memory, is exhausted */
    NIBBLE_IO = 6,           /* the operating system refused a read or write */
    NIBBLE_INTERNAL = 7      /* a bug in Nibble */
} nibble_status;

typedef struct nibble_diags nibble_diags;
typedef struct nibble_graph nibble_graph;
typedef struct nibble_model nibble_model;
typedef struct nibble_result nibble_result;

/* "0.1.0" */
NIBBLE_API const char *nibble_version(void);
/* Frees a char * that a function gave to the caller. */
NIBBLE_API void nibble_free(void *memory);

/* ---- diagnostics --------------------------------------------------------------------------- */

typedef struct nibble_diag {
    uint32_t size; /* sizeof(nibble_diag), set by the caller */
    nb_level level;
    nibble_status status; /* of an error */
    const char *message;  /* as it was made: names of a model may hold any byte */
    const char *help;     /* what may mend it, or "" */
    const char *file;     /* or "" */
    const char *node;     /* the ONNX node, operation or option, or "" */
    int line, column;     /* from 1 on, of a text; 0: not known */
    int64_t offset;       /* in bytes, of a binary file; -1: not known */
} nibble_diag;

/* Collects what calls have to say, in order: at most 64 errors and 64 warnings. NULL: no memory. */
NIBBLE_API nibble_diags *nibble_diags_create(void);
NIBBLE_API void nibble_diags_free(nibble_diags *diags);
NIBBLE_API size_t nibble_diags_count(const nibble_diags *diags);
/* 1 and diagnostic i, until the next call that is given `diags`; 0 when there is none. */
NIBBLE_API int nibble_diags_get(const nibble_diags *diags, size_t i, nibble_diag *out);
/* Diagnostic i as the program prints it, with place, lines of notes and help, control characters
 * escaped; "" when there is none. */
NIBBLE_API const char *nibble_diags_text(nibble_diags *diags, size_t i);
/* Forgets them all. */
NIBBLE_API void nibble_diags_clear(nibble_diags *diags);

/* ---- graphs -------------------------------------------------------------------------------- */

/* An input or output of a graph or a compiled model. */
typedef struct nibble_port {
    uint32_t size;     /* sizeof(nibble_port), set by the caller */
    const char *name;  /* as ONNX has it */
    int32_t elem;      /* ONNX data type */
    int32_t rank;      /* number of axes */
    int32_t state;     /* >= 0: the state that it begins or ends with; -1: none */
    const char *shape; /* "[batch_size,128]" */
} nibble_port;

/* Reads .onnx or .nir, by the name's ending or else by content. The file, and those with the
 * model's external data, stay mapped while the graph lives, and must not change. */
NIBBLE_API nibble_status nibble_graph_load(const char *path, nibble_diags *diags,
                                           nibble_graph **out);
/* The same from memory, which is copied. `name` is for messages; data in files of their own is
 * looked for in `directory`, NULL: refused. */
NIBBLE_API nibble_status nibble_graph_from_memory(const void *bytes, size_t size, const char *name,
                                                  const char *directory, nibble_diags *diags,
                                                  nibble_graph **out);
/* A copy, which shares constants. */
NIBBLE_API nibble_status nibble_graph_clone(nibble_graph *graph, nibble_graph **out);
NIBBLE_API void nibble_graph_free(nibble_graph *graph);

/* The graph as .nir text, for the caller to free. `elide`: constants of more than 16 elements as
 * their size and hash only, which is for reading by people. */
NIBBLE_API nibble_status nibble_graph_text(nibble_graph *graph, int elide, char **out);

NIBBLE_API size_t nibble_graph_input_count(const nibble_graph *graph);
NIBBLE_API size_t nibble_graph_output_count(const nibble_graph *graph);
/* 1 and port i, until the graph changes; 0 when there is none. */
NIBBLE_API int nibble_graph_input(nibble_graph *graph, size_t i, nibble_port *out);
NIBBLE_API int nibble_graph_output(nibble_graph *graph, size_t i, nibble_port *out);

/* To walk the graph with the functions of nibble_host() that take no nb_pass_ctx. For more, and to
 * change it: a pass, which nibble_pass_options.in_memory brings. */
NIBBLE_API nb_graph *nibble_graph_view(nibble_graph *graph);
/* The host table of passes. */
NIBBLE_API const nb_pass_host *nibble_host(void);

/* ---- passes -------------------------------------------------------------------------------- */

/* What happened after one pass. */
typedef struct nibble_pass_event {
    uint32_t size; /* of the library's struct */
    size_t index;  /* position in the pipeline */
    const char *name;
    nb_pass_result result;
    double seconds;
} nibble_pass_event;

typedef struct nibble_pass_options {
    uint32_t size; /* sizeof(nibble_pass_options) */
    /* Calibration: n_samples * (inputs of the graph) arrays, one sample behind the other; all
     * inputs are given. */
    const nb_array *samples;
    size_t n_samples;
    /* Plug-ins: files, and some that are in memory and outlive the graph. NULL, or NULL-terminated.
     * A file stays loaded until the process ends. */
    const char *const *plugins;
    const nb_plugin *const *in_memory;
    const char *directory; /* where files of `include` are looked for; NULL: the working one */
    int verify_each;       /* verify the graph after each pass, and that its text reads back */
    int check_each;        /* check after each pass that it kept its promises about outputs */
    /* Called after each pass; NULL: nobody watches. It must not change the graph. */
    void (*after)(void *user, const nibble_pass_event *event);
    void *user; /* given back to `after` */
    /* Since 0.2, of nibble_run_scheme, which then needs samples: bits for each layer by what it
     * loses, as --budget chooses them, "4.7bpw" or "12ms"; NULL: all layers alike. */
    const char *budget;
} nibble_pass_options;

/* Runs a pipeline, "simplify, raise, quantize-weights{bits=8}", or a recipe, which is the same with
 * a line for each pass and comments behind '#'. Calibration executes compiled code. A pass that
 * wants the time of a run, choose-bits{budget-ms=12}, gets it measured on this machine at the
 * shapes of the first sample: for a decoder's step, one of a single token with the caches of those
 * before it. After an error the graph is as the pass before left it or as the one that failed did:
 * free it. `options` may be NULL. */
NIBBLE_API nibble_status nibble_run_passes(nibble_graph *graph, const char *pipeline,
                                           const nibble_pass_options *options, nibble_diags *diags);
/* What a scheme stands for ("f32", "w8a16", "w8a8", "w4a16", "w4a8"), for the caller to free.
 * `calibrated`: with samples, which weights are then rounded by. */
NIBBLE_API nibble_status nibble_scheme_pipeline(const char *scheme, int calibrated,
                                                nibble_diags *diags, char **out);
/* Runs the pipeline of a scheme. */
NIBBLE_API nibble_status nibble_run_scheme(nibble_graph *graph, const char *scheme,
                                           const nibble_pass_options *options, nibble_diags *diags);
/* Passes in the order of `nibble opt --list-passes`; NULL behind the last. */
NIBBLE_API const nb_pass *nibble_pass(size_t i);

/* ---- running ------------------------------------------------------------------------------- */

/* Computes a graph's outputs with the reference evaluator, which is slow and defines what compiled
 * code gives, to the bit. inputs[i] belongs to input i. */
NIBBLE_API nibble_status nibble_evaluate(nibble_graph *graph, const nb_array *inputs,
                                         size_t n_inputs, nibble_diags *diags, nibble_result **out);

/* Outputs of a run. */
NIBBLE_API size_t nibble_result_count(const nibble_result *result);
/* 1 and output i, its data aligned to 16 bytes; 0 when there is none. */
NIBBLE_API int nibble_result_get(const nibble_result *result, size_t i, nb_array *out);
NIBBLE_API void nibble_result_free(nibble_result *result);

/* ---- compiling ----------------------------------------------------------------------------- */

typedef struct nibble_compile_options {
    uint32_t size;      /* sizeof(nibble_compile_options) */
    const char *target; /* x86_64-linux-gnu, aarch64-linux-gnu; NULL: this machine's. For files */
    const char *cpu;    /* as `nibble compile --cpu help` lists them; NULL: native, or generic for
                           another target */
    int threads;        /* of nibble_model_run; 0: as many as CPUs this process may use */
    int embed_weights;  /* in files: inside the object instead of a .nbw file beside it */
    const char *emit;   /* so, obj, asm, ll, nir, onnx or gguf; NULL: by the path's ending */
    const char *name;   /* C identifier of the model in files; NULL: from the path */
    const char *const *link; /* as of --link: NULL, or NULL-terminated */
} nibble_compile_options;

/* Compiles in memory. A graph that is not planned yet is copied and planned; it stays as it is, and
 * is not needed by the model. `options` may be NULL. */
NIBBLE_API nibble_status nibble_compile(nibble_graph *graph, const nibble_compile_options *options,
                                        nibble_diags *diags, nibble_model **out);
/* Compiles to a file as `nibble compile -o path` does. Whatever goes wrong, no file is left half
 * written. A .so is linked by the system's `cc`. */
NIBBLE_API nibble_status nibble_compile_file(nibble_graph *graph, const char *path,
                                             const nibble_compile_options *options,
                                             nibble_diags *diags);
/* Opens a compiled .so. Of the options, `threads` counts. Its code is run: it must be trusted. */
NIBBLE_API nibble_status nibble_model_open(const char *path, const nibble_compile_options *options,
                                           nibble_diags *diags, nibble_model **out);
NIBBLE_API void nibble_model_free(nibble_model *model); /* after its sessions are gone */

NIBBLE_API size_t nibble_model_input_count(const nibble_model *model);
NIBBLE_API size_t nibble_model_output_count(const nibble_model *model);
/* 1 and port i; 0 when there is none. */
NIBBLE_API int nibble_model_input(const nibble_model *model, size_t i, nibble_port *out);
NIBBLE_API int nibble_model_output(const nibble_model *model, size_t i, nibble_port *out);

/* Runs once, from empty states. inputs[i] belongs to input i; those that hold a state need not be
 * given: data NULL and rank 0. */
NIBBLE_API nibble_status nibble_model_run(nibble_model *model, const nb_array *inputs,
                                          size_t n_inputs, nibble_diags *diags,
                                          nibble_result **out);

/* For sessions that keep states between runs, memory of one's own and cancelling: what the
 * functions of runtime/nb_runtime.h take, which this library has too. It belongs to the model. */
NIBBLE_API nb_loaded *nibble_model_loaded(const nibble_model *model);

#ifdef __cplusplus
}
#endif
#endif
