/* A model made small while it still fails: the parts of `nibble reduce`. Delta debugging (Zeller
 * and Hildebrandt, 2002) over what a graph is made of: outputs, ranges of ops, operands, sizes,
 * constants, attributes. A candidate is a copy with edits, in which all types are inferred anew;
 * one that is not valid is never tried, and one that is not smaller neither, so the search ends. */
#ifndef NBT_REDUCE_H
#define NBT_REDUCE_H

#include "tools/model.h"
#include "tools/samples.h"

/* ---- candidates (reduce_edit.c) ------------------------------------------------------------- */

/* An input that stands where a value was computed. */
typedef struct nbt_cut {
    uint32_t input, value; /* ids */
} nbt_cut;

typedef struct nbt_candidate {
    nb_graph *graph;
    nb_arena *arena; /* goes with the candidate */
    nb_diags *diags; /* what is wrong with it; nobody reads them */
    NB_VEC(nbt_cut) cuts;
    const bool *keep_sample; /* [samples], or NULL: all */
    size_t symbol;           /* whose size in samples is at most `limit`, if that is not 0 */
    int64_t limit;
    bool made_up; /* inputs are those of nb_made_up_inputs: whoever has the graph has them */
} nbt_candidate;

/* What is to be smaller, the first member that differs decides. */
typedef struct nbt_size_of_graph {
    int64_t parts[8];
} nbt_size_of_graph;

enum { /* members of it that are shown */
       NBT_SIZE_OPS,
       NBT_SIZE_PORTS,     /* inputs, outputs, states */
       NBT_SIZE_OPERANDS,  /* optional ones and those of lists */
       NBT_SIZE_DIMS,      /* sum of all sizes; a symbol is larger than any of them */
       NBT_SIZE_CONSTANTS, /* how many there are */
       NBT_SIZE_NUMBERS, /* elements that are no splat and not 0, and splats that are neither 0 nor
                            1 */
       NBT_SIZE_ATTRIBUTES,
       NBT_SIZE_SAMPLES /* elements of all inputs; 0: made up */
};
/* `known` keeps what was counted of constants, by their bytes. */
nbt_size_of_graph nbt_graph_size(const nb_graph *g, nb_map *known);
bool nbt_is_smaller(const nbt_size_of_graph *a, const nbt_size_of_graph *b);

/* Ops in order, without the return. */
nb_op **nbt_list_ops(const nb_graph *g, nb_arena *arena, size_t *n);
/* Leaves outputs (inputs) out, and states that name them. */
void nbt_keep_outputs(nb_graph *g, const bool *keep);
void nbt_keep_inputs(nb_graph *g, const bool *keep);
/* Sweeps, infers all types, verifies. False: the edits do not fit together. */
bool nbt_finish_candidate(nbt_candidate *c);

/* Is the constant one number, repeated? */
bool nbt_is_splat(const nb_value *c);
/* Other bytes for a constant; the copy's own. Takes over the blob. */
void nbt_set_data(nb_value *c, nb_blob *blob);

/* ---- edits ---------------------------------------------------------------------------------- */

/* One kind of edit: a graph has so many places for it, which stay in order while it is edited. */
typedef struct nbt_edit {
    const char *name;
    size_t (*places)(const nb_graph *g);
    /* Edits places first .. first+n-1 of a copy. */
    void (*apply)(nbt_candidate *c, size_t first, size_t n);
    bool moves_outputs; /* what the model puts out is another value */
    bool bisects;       /* place after place is searched for the first that will do; n is 1 */
} nbt_edit;

extern const nbt_edit nbt_edits[]; /* in the order in which they are tried; ends with name NULL */

/* Sizes (reduce_dims.c): every size of the graph that is sizes[i] becomes by[i]. */
typedef struct nbt_resize {
    size_t n;
    int64_t sizes[4], by[4];
} nbt_resize;
/* Constant sizes above 1 of inputs, constants and attributes, each once, the largest first. */
size_t nbt_list_sizes(const nb_graph *g, nb_arena *arena, int64_t **sizes);
void nbt_apply_resize(nbt_candidate *c, const nbt_resize *r);

/* The samples for a candidate's inputs (reduce_samples.c): those of r for inputs that stay, what
 * r's graph computes for values that became inputs, the part in front where sizes are smaller. In
 * memory of the candidate. False: they do not fit. */
typedef struct nbt_reduction nbt_reduction;
bool nbt_fit_samples(const nbt_reduction *r, nbt_candidate *c, nbt_samples *out);
int64_t nbt_count_elements(const nbt_samples *samples);

/* ---- tests ---------------------------------------------------------------------------------- */

typedef struct nbt_test nbt_test;
struct nbt_test {
    /* Does it fail as the whole model does? `samples` are for its inputs. */
    bool (*fails)(nbt_test *test, const nb_graph *g, const nbt_samples *samples);
    bool moves_outputs; /* other outputs mean something to the test */
    bool takes_samples;
    double timeout;      /* seconds; 0: not yet known */
    const char *verdict; /* of the whole model: "exit code 1", "kld = 0.31" */
};

/* Ctrl-C was pressed: nothing is tried any more. */
bool nbt_is_interrupted(void);
void nbt_catch_interrupts(void);

/* How a child process ended. */
typedef struct nbt_end_of_run {
    bool timed_out, interrupted;
    int status; /* as of waitpid */
    double seconds;
} nbt_end_of_run;
/* Runs `work` in a process group of its own, killed after `timeout` seconds (0: never). */
nbt_end_of_run nbt_run_child(void (*work)(void *user), void *user, double timeout);
/* --timeout when it is not given, for a whole model that takes so long: ten times that, 10 s at
 * least. */
double nbt_time_to_wait(double seconds);

/* --test: NB_CHECK_FAILED when the command succeeds on the whole model. (reduce_command.c) */
nb_status nbt_command_test(nbt_args *args, const nb_graph *whole, nbt_test **out);
void nbt_command_test_end(nbt_test *test);
/* --numeric (reduce_numeric.c) */
nb_status nbt_numeric_test(nbt_args *args, const nb_graph *whole, const nbt_samples *samples,
                           nbt_test **out);

/* ---- the search (reduce_search.c) ----------------------------------------------------------- */

struct nbt_reduction {
    nbt_args *args;
    nbt_test *test;
    nb_graph *graph;     /* the best so far */
    nbt_samples samples; /* for its inputs, if the test takes any */
    bool made_up;        /* they are what nb_made_up_inputs makes for this very graph */
    nb_arena *kept;      /* of the candidate that became the graph: the samples are in it */
    nbt_size_of_graph size;
    size_t tests, most, accepted;
    nb_map seen, known; /* texts that were tried; see nbt_graph_size */
};

/* Shrinks r->graph to a fixed point, or until nothing may be tried any more. */
void nbt_reduce_graph(nbt_reduction *r);

#endif
