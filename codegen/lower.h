/* How an op becomes code: the lowering table and what a kernel gets.
 *
 * Each family of ir/ops.def has one `nb_lower_<family>`, declared below from the table; a family
 * without one does not link. A kernel's body is emitted once for all ops that are alike (same kind,
 * attributes, types and strides, nb_kernel_key); what differs between them, addresses of operands
 * and results, are its parameters. Each op has a small task function that carries its name and
 * calls the kernel.
 *
 *   static cg_val items(nb_lower *l, int phase) { return cg_buf_count_range(l->g, &l->out->buf, 0,
 * 1); } static void body(nb_lower *l, int phase, cg_val begin, cg_val end)
 *   {
 *       CG_FOR(l->g, row, begin, end, cg_i64(l->g, 1)) { ... }
 *   }
 *   const nb_lowering nb_lower_example = {.items = items, .body = body};
 *
 * A result never overlaps an operand in memory, with one exception: `concat` into an appended
 * state. Bytes between rows of a strided buffer must not be touched. */
#ifndef NB_LOWER_H
#define NB_LOWER_H

#include "codegen/cg.h"
#include "ir/chain.h"

/* An operand or a result, in the function that is being written. */
typedef struct nb_operand {
    const nb_value *value;    /* NULL: an optional operand that is not given */
    const nb_value *constant; /* the constant it is (seen through views), or NULL */
    cg_buf buf;               /* of a quantized value: its codes. Of a window: where it stands. In
                                 `items` and `work` only the dims are valid, not base */
    cg_val scales; /* NB_PER_TOKEN, NB_PER_BLOCK: pointer to f32[rows * blocks]; NULL otherwise */
    cg_val quant_scales; /* pointer to quant->scales, codes as f32, or NULL */
    cg_val quant_minima; /* the same of quant->minima */
    cg_val quant_zeros;  /* pointer to the codes of quant->zeros (storage element), or NULL */
    /* A plain constant of one element is this, in compute kind, and need not be read; else NULL. It
     * never has a layout. */
    cg_val immediate;
} nb_operand;

typedef struct nb_dims nb_dims;

typedef struct nb_lower {
    cg *g;
    const nb_op *op;
    nb_chain chain;  /* of elementwise ops: all that are computed here; otherwise `op` alone */
    nb_operand *in;  /* chain.inputs: the op's operands, or what its chain reads */
    nb_operand *out; /* op->n_results */
    cg_val scratch;  /* the op's scratch memory, 64-byte aligned; NULL without .scratch */
    cg_val threads;  /* i64: how many threads run items at most */
    nb_dims *dims;   /* values of dim expressions in this function */
} nb_lower;

typedef struct nb_layout nb_layout; /* pack.h: how a constant lies in the weights */

typedef struct nb_lowering {
    /* Can this op be compiled for that CPU? NB_UNSUPPORTED with a reason if not. NULL: always. */
    nb_status (*accept)(const nb_op *op, const cg_cpu *cpu, nb_diags *diags);
    /* A kernel may have several phases with a barrier between them; NULL = one. */
    int (*phases)(const nb_op *op);
    /* How many items of independent work there are (i64); they run in any order and split. */
    cg_val (*items)(nb_lower *l, int phase);
    /* Work in one item (i64), in scalar operations; small loops stay on one thread. NULL: 1024. */
    cg_val (*work)(nb_lower *l, int phase);
    /* The loop over items [begin, end). */
    void (*body)(nb_lower *l, int phase, cg_val begin, cg_val end);
    /* Bytes of scratch memory (i64), the same for all phases; may use l->threads. NULL: none.
     * Memory per thread: let the items be the threads, and split the work by item number. */
    cg_val (*scratch)(nb_lower *l);
    /* What phase 0 leaves in the scratch memory, for comparison: after an op with an equal text,
     * with no other scratch memory used between, phase 0 is left out. NULL: always needed. */
    const char *(*prepared)(nb_arena *arena, const nb_op *op, const cg_cpu *cpu);
    /* Before the phases, on one thread: i1, true when a run-time index is out of range. */
    cg_val (*check)(nb_lower *l);
    /* The layout this kernel wants for constant operand `index`; NULL or returning NULL: plain. */
    const nb_layout *(*layout)(const nb_op *op, uint32_t index, const cg_cpu *cpu);
    /* More that the code depends on, for the key under which kernels are shared. NULL: nothing. */
    const char *(*key)(nb_arena *arena, const nb_op *op);
} nb_lowering;

/* One for each family. */
#define OP(name, family, ...) extern const nb_lowering nb_lower_##family;
#include "ir/ops.def"
#undef OP
const nb_lowering *nb_lowering_of(nb_op_kind kind);

/* The value of a dim expression (i64), computed once at the function's entry. */
cg_val nb_size_value(nb_lower *l, const nb_dim *dim);

/* What slice `op` takes of x, its operand. */
cg_buf nb_slice_view(nb_lower *l, const nb_op *op, const cg_buf *x);

/* NB_UNSUPPORTED, saying that codegen cannot compile `op` because of `fmt`. */
nb_status nb_refuse(const nb_op *op, nb_diags *diags, const char *fmt, ...) NB_PRINTF(3, 4);
/* Refuses element types of operands and results that arithmetic cannot be done in (f8, f4 and
 * packed integers). What most families use as accept. */
nb_status nb_accept_plain(const nb_op *op, const cg_cpu *cpu, nb_diags *diags);
/* As items: an item is a row, all of the first operand's last dimension. */
cg_val nb_items_rows(nb_lower *l, int phase);

/* ---- loops that families share (kernels/loops.c) ------------------------------------------- */

#define NB_MAX_STREAMS (1 + NB_CHAIN_INPUTS)

/* Runs over all elements of an index space in vectors of 16: stream 0 is written, the others are
 * read, all have the same dims (stride 0 where something repeats). */
typedef struct nb_stream_loop {
    int n;
    cg_buf streams[NB_MAX_STREAMS];
    cg_val immediate[NB_MAX_STREAMS]; /* instead of a read stream, or NULL */
    bool raw;                         /* move stored bits as they are, no conversion */
    bool heavy; /* compute is long: it is emitted once for whole vectors and tails */
    /* values[1 ..] in compute kind -> what to store. */
    cg_val (*compute)(nb_lower *l, void *user, const cg_val *values);
    void *user;
} nb_stream_loop;

/* Merges axes that all streams can merge. Call it before the next two. */
void nb_stream_collapse(nb_lower *l, nb_stream_loop *loop);
cg_val nb_stream_items(nb_lower *l, const nb_stream_loop *loop);
cg_val nb_stream_work(nb_lower *l, const nb_stream_loop *loop);
void nb_stream_body(nb_lower *l, const nb_stream_loop *loop, cg_val begin, cg_val end);
/* A loop that copies `from` into `to`, which have the same dims and element. */
nb_stream_loop nb_stream_copy(const cg_buf *to, const cg_buf *from);
/* The same of an operand that is seen as `view` (kernels/move.c). */
nb_stream_loop nb_stream_copy_of(const cg_buf *to, const nb_operand *from, const cg_buf *view);

#endif
