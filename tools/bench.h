/* The parts of `nibble bench`, which `nibble report` uses too. */
#ifndef NBT_BENCH_H
#define NBT_BENCH_H

#include "codegen/limits.h"
#include "lib/stopwatch.h"
#include "tools/json.h"
#include "tools/model.h"

/* --matmul M,K,N: one linear layer. */
nb_status nbt_bench_matmul(nbt_args *args);
/* --attention B,H,G,S,T,D: one attention. */
nb_status nbt_bench_attention(nbt_args *args);
/* --limits: what this machine can do at most. */
nb_status nbt_bench_limits(nbt_args *args);

/* ---- limits (bench_limits.c) --------------------------------------------------------------- */

/* All per second, over all threads; 1e9. */
typedef struct nbt_limits {
    const char *cpu;
    int threads;
    double read;           /* bytes from memory */
    double cache;          /* bytes from the second level's caches */
    double dot, dot_small; /* operations on i8 by weights of 8 bits; of 4 bits */
    double fma, bf16;      /* operations on f32; on bf16 */
    double clock;          /* cycles of one processor */
} nbt_limits;
/* Rounds of one kind, so that they can take turns with what they are compared with: on the threads
 * and the CPU that the options name. Close it also after an error. */
typedef struct nbt_limiter nbt_limiter;
nb_status nbt_limiter_open(nbt_args *args, nbt_limiter **out);
double nbt_limiter_round(nbt_limiter *l, nb_limit_kind kind); /* operations or bytes a second */
void nbt_limiter_close(nbt_limiter *l);
/* The best of many rounds of each; takes some seconds. */
nb_status nbt_measure_limits(nbt_args *args, nbt_limits *out);
json_t *nbt_limits_json(const nbt_limits *limits);
void nbt_print_limits(const nbt_limits *limits);

/* ---- one run of the smallest kind (run_seconds.c) ------------------------------------------- */

/* What is timed, and how: as the command's options say, or as the runtime does by itself. */
typedef struct nbt_stopwatch {
    nbt_args *args;
    nbl_sample given; /* gives shapes, and tokens of a prompt */
} nbt_stopwatch;
/* An error when code for --cpu does not run here, or an option is wrong. */
nb_status nbt_check_stopwatch(nbt_args *args);
/* nb_pass_env.run_seconds; `user` is an nbt_stopwatch. A decoder's tokens follow a prompt of half
 * a --context, and are a quarter of it: by default what bench measures. */
double nbt_run_seconds(void *user, const nb_graph *planned, double *seconds);

/* ---- where weights are --------------------------------------------------------------------- */

typedef struct nbt_weights {
    int64_t bytes;
    const char *in;    /* "huge" or "shared", as asked for or usual */
    double huge_share; /* which part of them is in huge pages in fact */
} nbt_weights;
nbt_weights nbt_where(const nbl_program *program);
const char *nbt_where_text(nb_arena *arena, nbt_weights w);

/* ---- whole models (bench_runs.c) ----------------------------------------------------------- */

/* One kind of run: of the prompt, of a further token, or of a model that is no decoder. */
typedef struct nbt_phase {
    const char *name;   /* "prompt", "decode", "run" */
    int64_t tokens;     /* that a run takes in, over the batch; 0: no decoder */
    nbl_times times;    /* of one run */
    int64_t *symbols;   /* values of the graph's symbols in the run in the middle */
    double *op_seconds; /* median for each op, by its index; NULL unless the model is profiled */
} nbt_phase;

typedef struct nbt_measured {
    nbt_model model;
    nbt_weights weights;
    int64_t rounds, batch, prompt, out;
    bool decoder;
    bool last_logits; /* of a decoder: computed for the prompt's last position only */
    const char *kv;   /* element type of its cache, or NULL: none */
    int64_t kv_bytes; /* that a token takes in it */
    nbt_phase phases[2];
    size_t n_phases;
} nbt_measured;

/* Opens the model and measures it by the options. nbt_bench_close also after an error. */
nb_status nbt_bench_model(nbt_args *args, const char *path, nbt_measured *out);
void nbt_bench_close(nbt_measured *b);
/* Everything it takes is tokens, mask, positions or a state. */
bool nbt_is_decoder(const nbt_model *model);
/* Measures the model and prints it, with its operations if that is wanted (cmd_bench.c). */
nb_status nbt_bench_report(nbt_args *args);
/* A symbolic dimension, and the size it has unless --dim says another, within its bounds. */
typedef struct nbt_symbol {
    const char *name;
    int64_t min, max, usual;
} nbt_symbol;
nb_status nbt_choose_symbols(nbt_args *args, const nbt_symbol *symbols, size_t n, int64_t *out);
/* What `nibble bench --json` prints (cmd_bench.c); `limits` NULL: without layers. */
json_t *nbt_bench_json(nb_arena *arena, const nbt_measured *b, const nbt_limits *limits);

/* ---- operations (layers.c) ----------------------------------------------------------------- */

typedef enum nbt_bound {
    NBT_BOUND_NONE,
    NBT_BOUND_MEMORY,
    NBT_BOUND_ARITHMETIC,
    NBT_BOUND_CACHE
} nbt_bound;

/* What one op does in a run, and how long it takes. */
typedef struct nbt_layer {
    const char *name, *kind, *detail; /* of the ONNX node; of the op; bits and scales of weights */
    int64_t m, k, n;                  /* of products; 0 of others */
    int64_t bytes;                    /* of weights and cached entries that it reads */
    int64_t moved;                    /* of activations that it reads and writes */
    double ops;                       /* multiplications and additions of products */
    double seconds, limit; /* limit: what reading, computing or moving takes at least; 0: none */
    nbt_bound bound;
    size_t count; /* of ops that this stands for */
} nbt_layer;

typedef struct nbt_layers {
    nbt_layer *items; /* in order of execution */
    size_t count;
    nbt_layer *kinds; /* sums, the longest first */
    size_t n_kinds;
    nbt_layer all;
} nbt_layers;
nbt_layers nbt_layers_of(nb_arena *arena, const nb_graph *planned, const nbt_phase *phase,
                         const nbt_limits *limits);
/* Sizes, bytes and operations of one op; `limit` is for nbt_find_limit. */
nbt_layer nbt_measure_op(const nb_op *op, const int64_t *symbols);
void nbt_find_limit(const nb_op *op, const nbt_limits *limits, nbt_layer *l);
/* "w4a16 groups of 32 with zero points", "w8 per row"; "" of a float layer. */
const char *nbt_layer_detail(nb_arena *arena, const nb_op *op);
/* Of a graph whose products make codes: which operations between codes stay in floats, or that none
 * does (integers.c). */
void nbt_print_integers(const nb_graph *g, nb_arena *arena);
/* "128x4096x4096"; "" of what is no product. */
const char *nbt_layer_shape(nb_arena *arena, const nbt_layer *layer);
/* What binds it, short: "mem", "ops", "cache" or ""; in words. */
const char *nbt_bound_text(const nbt_layer *layer);
const char *nbt_bound_name(const nbt_layer *layer);
/* The items, the longest first. */
const nbt_layer **nbt_layers_by_time(nb_arena *arena, const nbt_layers *layers);
void nbt_layer_add(nbt_layer *sum, const nbt_layer *layer);
double nbt_of_limit(const nbt_layer *layer); /* 0: no limit */

/* What a run takes beyond its operations: between them, and by chance. */
double nbt_unaccounted(const nbt_phase *phase, const nbt_layers *layers);

/* bench_table.c. `all`: no line is left out, and they stand in order of execution. */
void nbt_print_layers(nb_arena *arena, const nbt_phase *phase, const nbt_layers *layers, bool all);
json_t *nbt_layers_json(nb_arena *arena, const nbt_phase *phase, const nbt_layers *layers);

/* ---- single layers (bench_layer.c) ---------------------------------------------------------- */

/* Numbers that are the same in every run of the program; `state` is any number but 0. */
uint64_t nbt_random(uint64_t *state);
void nbt_random_floats(float *out, int64_t n, float low, float high, uint64_t *state);
/* How many copies of `bytes` bytes make each of them cold in every cache when its turn comes. */
int nbt_cold_copies(int64_t bytes);
/* What one of `copies` equal parts of a run does that the machine limits. */
typedef struct nbt_work {
    nb_limit_kind kind; /* NB_LIMIT_READ: the best way to read */
    double amount;      /* bytes or operations */
} nbt_work;
typedef struct nbt_paced {
    nbl_times times; /* of one part */
    /* With --limits: what the machine reached in turn with the runs, and which part of it they did:
     * medians. 0: not asked for. */
    double limit, of_limit;
} nbt_paced;
/* Runs the session many times. */
nb_status nbt_time_runs(nbt_args *args, nb_session *session, int copies, nbt_work work,
                        nbt_paced *out);
/* Adds to what --json prints of them; what is printed at the end of a line. */
void nbt_add_paced(json_t *j, nbt_work work, const nbt_paced *p);
const char *nbt_paced_text(nb_arena *arena, nbt_work work, const nbt_paced *p);

#endif
