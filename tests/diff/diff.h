/* Compiled code against the evaluator: a graph is made, planned, compiled for some CPUs, run on
 * memory that ends at an inaccessible page, and compared with nb_eval bit by bit.
 *
 *   diff d;
 *   diff_begin(&d, "relu f32 17");
 *   nb_value *x = diff_input(&d, NB_F32, 1, (int64_t[]){17});
 *   diff_check(&d, nb_unary(&d.b, NB_OP_relu, x)); */
#ifndef NB_DIFF_H
#define NB_DIFF_H

#include "codegen/codegen.h"
#include "ir/build.h"
#include "ir/eval.h"
#include "tests/diff/execute.h"

#define DIFF_MAX_LENGTHS 8
/* A dimension given as -k is symbol number k - 1 with the value diff.symbols[k - 1]. */
#define DIFF_MAX_SYMBOLS 4

typedef struct diff {
    const char *name;
    nb_arena *arena;
    nb_diags *diags;
    nb_graph *graph;
    nb_builder b;
    const nb_symbol *symbol[DIFF_MAX_SYMBOLS];
    int64_t symbols[DIFF_MAX_SYMBOLS];
    const int64_t *lengths; /* run for each of these as symbols[0], or NULL: as it is */
    size_t n_lengths;
    int64_t capacity;       /* of appended states */
    bool plain;             /* inputs are small numbers, without special values */
    bool rows;              /* each row of an f32 input is hard in one way (rows.c) */
    bool wide;              /* run the widest row's tiles too (cpus.c) */
    nb_object_cache *cache; /* objects come from, or NULL */
    int32_t result;         /* what run must return; not NB_RUN_OK: outputs are not compared */
    const int64_t *indices; /* values of integer inputs, in order, or NULL: random ones */
    size_t n_indices, next_index;
} diff;

/* Do all cases run, whatever their names? */
bool diff_is_whole(void);
extern int diff_passed, diff_failed, diff_skipped;
/* Code is made quickly (nb_codegen_options): for all cases with NB_DIFF_QUICK=1. */
extern bool diff_quick;

void diff_begin(diff *d, const char *fmt, ...) NB_PRINTF(2, 3);
const nb_dim *diff_dim(diff *d, int64_t n);
nb_value *diff_input(diff *d, nb_elem elem, int rank, const int64_t *dims);
/* A constant with random contents. */
nb_value *diff_const(diff *d, nb_elem elem, int rank, const int64_t *dims);
/* Compiles and compares; the outputs are `ys`, or with none of them the graph's own. Frees
 * everything. */
void diff_check_all(diff *d, size_t n, nb_value *const *ys);
void diff_check(diff *d, nb_value *y);
/* A graph of `text`, whose symbols are S0, S1 ...; its outputs are compared (control.c). */
void diff_check_text(const char *name, const char *text, const int64_t *indices, size_t n_indices,
                     int32_t result);

/* The generator behind all contents. A case starts it with the run's seed and its own name, so its
 * numbers do not depend on which cases ran before. */
extern uint64_t diff_seed;
void diff_random_start(const char *name);
uint64_t diff_random(void);
int64_t diff_below(int64_t n);
/* Fills `count` elements: special values among random ones, or small numbers when `plain`. */
void diff_fill(nb_elem elem, int64_t count, bool plain, void *data);
/* Rows that quantizers find hard: zeros, equal values, ties, a NaN, subnormals, the largest... */
void diff_fill_rows(int64_t rows, int64_t length, float *data);

/* The CPUs that cases run for: number `i`, its name, NULL behind the last. */
const cg_cpu *diff_cpu(const diff *d, size_t i, const char **name);

/* One file each. */
void diff_test_elementwise(void);
void diff_test_move(void);
void diff_test_order(void);
void diff_test_layers(void);
void diff_test_model(void);
void diff_test_control(void);
void diff_test_counted(void);
void diff_test_immediates(void);
void diff_test_rotary(void);
void diff_test_hadamard(void);
void diff_test_call(void);
void diff_test_quantize(void);
void diff_test_dequantize(void);
void diff_test_qgather(void);
void diff_test_matmul(void);
void diff_test_conv(void);
void diff_test_patches(void);
void diff_test_qconv(void);
void diff_test_qdepthwise(void);
void diff_test_qmatmul(void);
void diff_test_attention(void);
void diff_test_attention_codes(void);
void diff_test_states(void);

#endif
