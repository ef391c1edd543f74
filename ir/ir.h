/* The graph: SSA over tensors, in an arena.
 *
 * A graph owns all its memory; nothing is freed before nb_graph_destroy except constant blobs,
 * which are reference-counted. A region's list of ops is in topological order. An operand slot is
 * itself the use, so replacing an operand or all uses of a value costs O(1) per use. No function
 * here prints, and nothing is global.
 *
 * This header is the table of contents of ir/:
 *   types.h   elements, dims, quants, types      ops.def     one row per operation
 *   ir.h      values, ops, regions, constants    build.h     making ops
 *   text.h    print and parse .nir               verify.h    what holds between passes
 *   eval.h    what every op computes             symbolic.h  integer tensors as dim expressions */
#ifndef NB_IR_H
#define NB_IR_H

#include "ir/support/map.h"
#include "ir/types.h"

typedef struct nb_op nb_op;
typedef struct nb_region nb_region;

/* ---- the op table -------------------------------------------------------------------------- */

typedef enum nb_op_kind {
#define OP(name, ...) NB_OP_##name,
#include "ir/ops.def"
#undef OP
    NB_OP_COUNT
} nb_op_kind;

typedef enum nb_operand_mode {
    NB_OPERAND_END,
    NB_OPERAND_IN,
    NB_OPERAND_OPT,
    NB_OPERAND_VAR
} nb_operand_mode;
typedef enum nb_attr_kind {
    NB_ATTR_END,
    NB_ATTR_INT,
    NB_ATTR_FLOAT,
    NB_ATTR_BOOL,
    NB_ATTR_INTS,
    NB_ATTR_DIMS,
    NB_ATTR_ELEM,
    NB_ATTR_QUANT,
    NB_ATTR_STR
} nb_attr_kind;

enum {
    NB_TRAIT_PURE = 1,
    NB_TRAIT_COMMUTES = 2,
    NB_TRAIT_ELEMENTWISE = 4,
    NB_TRAIT_VIEW = 8,
    NB_TRAIT_TERMINATOR = 16,
    NB_TRAIT_Q_IN = 32
};

#define NB_MAX_OPERAND_SPECS 9
#define NB_MAX_ATTRS         4
#define NB_MAX_RESULTS       256

#define NB_RESULTS_ANY (-1)

typedef struct nb_op_info {
    const char *name, *family, *summary;
    struct {
        const char *name;
        nb_operand_mode mode;
    } operands[NB_MAX_OPERAND_SPECS]; /* ends with NB_OPERAND_END */
    struct {
        const char *name;
        nb_attr_kind kind;
    } attrs[NB_MAX_ATTRS]; /* ends with NB_ATTR_END, unless full */
    int results;           /* NB_RESULTS_ANY: as many as its bodies say, nb_result_count */
    uint32_t regions;
    unsigned traits; /* NB_TRAIT_* */
} nb_op_info;

extern const nb_op_info nb_ops[NB_OP_COUNT];
/* NB_OP_COUNT when there is none of that name. */
nb_op_kind nb_op_from_name(const char *name, size_t length);

/* ---- locations ----------------------------------------------------------------------------- */

/* Where an op came from: ONNX nodes (`at`) and the passes that made it (`via`), both in order and
 * without repeats. Immutable once made. */
typedef struct nb_loc {
    const char *const *at;
    const char *const *via;
    uint32_t n_at, n_via;
} nb_loc;

const nb_loc *nb_loc_at(nb_graph *g, const char *node);
/* Union, `a` first; either may be NULL. */
const nb_loc *nb_loc_merge(nb_graph *g, const nb_loc *a, const nb_loc *b);
const nb_loc *nb_loc_via(nb_graph *g, const nb_loc *loc, const char *pass);
/* First ONNX node, or "" */
const char *nb_loc_name(const nb_loc *loc);

/* ---- constants ----------------------------------------------------------------------------- */

/* Bytes of a constant, row-major, little-endian, packed. Reference-counted: a blob borrowed from a
 * mapped file costs nothing, an owned one is freed with its last reference. */
typedef struct nb_blob {
    const void *data;
    int64_t size;
    uint64_t hash; /* nb_hash of the data, 0 = not computed yet */
    uint32_t references;
    void (*release)(struct nb_blob *blob); /* NULL: nothing to do */
    void *owner;                           /* for release */
    const char
        *file; /* where the bytes stand, if they are borrowed: printed as blob "file"[a..b] */
    int64_t offset;
    bool mapped; /* the bytes are part of a mapped file: see nb_blob_rest */
} nb_blob;

/* Owned, uninitialised: fill through the pointer before anyone reads it. NULL when out of memory.
 */
nb_blob *nb_blob_create(int64_t size, void **data);
/* Zeros that nobody can write and that take no memory: for who asks about sizes alone. NULL when
 * out of memory. */
nb_blob *nb_blob_zeros(int64_t size);
/* Borrowed: `data` must outlive the blob (it belongs to the graph's arena or a mapped file). */
nb_blob *nb_blob_borrow(nb_arena *arena, const void *data, int64_t size);
nb_blob *nb_blob_retain(nb_blob *blob);
void nb_blob_release(nb_blob *blob);
uint64_t nb_blob_hash(nb_blob *blob);
/* Nobody will read the bytes for a while: pages of a mapped file leave memory, and come back when
 * they are read. A model's weights then need not fit in memory. */
void nb_blob_rest(const nb_blob *blob);
void nb_graph_rest(const nb_graph *g);      /* all constants */
bool nb_graph_is_mapped(const nb_graph *g); /* has it constants whose bytes are of a mapped file? */

/* ---- values -------------------------------------------------------------------------------- */

/* An operand slot. Slots of a value form a list through next. */
typedef struct nb_use {
    nb_value *value; /* NULL: an optional operand that is not given */
    nb_op *user;
    uint32_t index;              /* which slot of the user */
    struct nb_use *next, **link; /* link points at what points at this use */
} nb_use;

/* Where the compiled model keeps a value; set by plan-memory, printed as ` in slot 3`. */
typedef enum nb_storage_kind {
    NB_STORE_NONE,
    NB_STORE_SLOT,     /* a buffer in the arena; values that are never alive together share one */
    NB_STORE_INPUT,    /* the caller's input `index` */
    NB_STORE_OUTPUT,   /* the caller's output `index` */
    NB_STORE_STATE,    /* the buffer of state `index`, with its capacity as stride */
    NB_STORE_WEIGHT,   /* the packed weights */
    NB_STORE_REGISTERS /* nowhere in memory: computed with the ops that use it (chain.h) */
} nb_storage_kind;

typedef struct nb_storage {
    nb_storage_kind kind;
    uint32_t index;
} nb_storage;

/* A tensor: a region's parameter, a constant, or a result of an op. */
struct nb_value {
    const nb_type *type;
    const char *name; /* without % or @; unique among values, or among constants, of the graph */
    struct nb_name *entry; /* of the name, in the graph's table: private to ir/ */
    nb_op *def;            /* the op, or NULL */
    uint32_t index;        /* result number, parameter number */
    uint32_t id;           /* unique in the graph, never reused: index for a pass' side tables */
    nb_blob *blob;         /* a constant's data; NULL otherwise */
    const nb_loc *loc;     /* a constant's origin (an op's values: op->loc) */
    nb_region *region;     /* whose parameter it is, or NULL */
    nb_use *uses;
    nb_storage storage;
};

static inline bool nb_is_const(const nb_value *v) { return v->blob != NULL; }
bool nb_has_one_use(const nb_value *v);
size_t nb_use_count(const nb_value *v);

/* ---- ops and regions ----------------------------------------------------------------------- */

typedef struct nb_attr {
    bool set;
    union {
        int64_t i;
        float f;
        bool b;
        nb_elem elem;
        const nb_quant *quant;
        const char *str;
        struct {
            const int64_t *items;
            size_t count;
        } ints;
        struct {
            const nb_dim *const *items;
            size_t count;
        } dims;
    };
} nb_attr;

struct nb_op {
    nb_op_kind kind;
    uint32_t id;
    nb_region *parent;
    nb_op *prev, *next;
    nb_use *operands; /* one slot per IN and OPT of the table, in order, then the VAR ones */
    uint32_t n_operands, n_results, n_regions;
    nb_value **results;
    nb_region **regions;
    nb_attr attrs[NB_MAX_ATTRS]; /* as in the table */
    const nb_loc *loc;
};

/* A body. The ops of an op's body see its parameters, constants and each other, and nothing of what
 * is around it: what they take from there are the op's operands, each of which is a parameter. So
 * the uses of a value are ops of its own region, and a walk that does not enter bodies misses none.
 */
struct nb_region {
    nb_graph *graph;
    nb_op *parent; /* NULL for the graph's body */
    nb_value **params;
    uint32_t n_params;
    nb_op *first, *last; /* last is the terminator */
};

/* for (each op of a region, in order; the body may remove `op`) */
#define NB_FOR_OPS(op, region_)                                                  \
    for (nb_op *op = (region_)->first, *nb_next_##op = op ? op->next : NULL; op; \
         op = nb_next_##op, nb_next_##op = op ? op->next : NULL)

static inline nb_value *nb_in(const nb_op *op, size_t i) { return op->operands[i].value; }
static inline nb_value *nb_out(const nb_op *op) { return op->results[0]; }
static inline const nb_op_info *nb_info(const nb_op *op) { return &nb_ops[op->kind]; }
static inline bool nb_has_trait(const nb_op *op, unsigned trait) {
    return (nb_info(op)->traits & trait) != 0;
}

/* Attributes by name; asking for one the table does not have is a bug and aborts. */
const nb_attr *nb_attr_of(const nb_op *op, const char *name);
int64_t nb_attr_int(const nb_op *op, const char *name);
float nb_attr_float(const nb_op *op, const char *name);
bool nb_attr_bool(const nb_op *op, const char *name);

/* ---- the graph ----------------------------------------------------------------------------- */

/* Which ops are legal (verify.h). */
typedef enum nb_stage { NB_STAGE_FLOAT, NB_STAGE_QDQ, NB_STAGE_FUSED, NB_STAGE_PLANNED } nb_stage;

/* A pair of an input and an output that carries state between runs. `axis` is the one that grows
 * by the new entries (a key/value cache), or -1 (a recurrent state of fixed shape). */
typedef struct nb_state {
    uint32_t input, output; /* indices of parameters and of return operands */
    int axis;
    bool appended; /* plan-memory: the output is the input's buffer with entries added */
} nb_state;

/* What a model says of itself, as ONNX keeps it; the text form has none of it. */
typedef struct nb_metadatum {
    const char *key, *value;
} nb_metadatum;

typedef struct nb_cleanup {
    void (*fn)(void *user);
    void *user;
} nb_cleanup;

struct nb_graph {
    nb_arena *arena;
    const char *name;
    const char *file; /* what it was read from, for messages; may be NULL */
    nb_stage stage;
    nb_region body;               /* params are the inputs, the terminator's operands the outputs */
    NB_VEC(const char *) outputs; /* names of the outputs, as ONNX has them */
    NB_VEC(nb_state) states;
    NB_VEC(nb_metadatum) metadata;
    NB_VEC(nb_symbol *) symbols;
    NB_VEC(nb_value *)
    constants; /* in order of creation; dead ones are dropped by nb_graph_sweep */
    NB_VEC(const nb_quant *) quants;
    NB_VEC(nb_region *) open; /* bodies that are being built: no op has them yet */
    uint32_t n_values, n_ops; /* next ids */
    NB_VEC(nb_cleanup) cleanups;
    struct nb_interner *interner; /* private to ir/ */
};

/* Calls fn(user) when the graph is destroyed, e.g. to unmap the file that constants borrow from. */
void nb_graph_on_destroy(nb_graph *g, void (*fn)(void *user), void *user);
nb_graph *nb_graph_create(const char *name, nb_oom_fn oom, void *user);
void nb_graph_destroy(nb_graph *g);

/* The symbol of that name, made with range 1..INT64_MAX if new (0.. with `zero_ok`). */
const nb_symbol *nb_graph_symbol(nb_graph *g, const char *name, bool zero_ok);
/* A new symbol, 0.., of that name or one made from it, whose value a `bind` says. */
const nb_symbol *nb_graph_counted(nb_graph *g, const char *name);
/* Intersects the symbol's range with min..max, and simplifies what the new bounds decide. */
void nb_symbol_narrow(nb_graph *g, const nb_symbol *symbol, int64_t min, int64_t max);
/* Replaces a symbol everywhere (types, attributes), e.g. total length by P+S, and forgets it. `by`
 * does not contain it. */
void nb_graph_substitute(nb_graph *g, const nb_symbol *symbol, const nb_dim *by);

/* `name` if no value (or constant) has it, else name_1, name_2... */
const char *nb_unique_name(nb_graph *g, const char *name, bool constant);
/* Renames; the new name is made unique. */
void nb_set_name(nb_graph *g, nb_value *v, const char *name);

nb_value *nb_graph_add_input(nb_graph *g, const char *name, const nb_type *type);
/* Takes over one reference to `blob`. Its size must fit the type. */
nb_value *nb_graph_add_const(nb_graph *g, const char *name, const nb_type *type, nb_blob *blob,
                             const nb_loc *loc);
/* Small constants by value: f32, f64 or i64 of the given static shape. */
nb_value *nb_const_f32(nb_graph *g, const char *name, int rank, const int64_t *dims,
                       const float *data);
nb_value *nb_const_f64(nb_graph *g, const char *name, int rank, const int64_t *dims,
                       const double *data);
nb_value *nb_const_i64(nb_graph *g, const char *name, int rank, const int64_t *dims,
                       const int64_t *data);
/* Ends the body: `values[i]` is output `names[i]`. Replaces an earlier return. */
void nb_graph_set_outputs(nb_graph *g, size_t n, nb_value *const *values, const char *const *names);

/* ---- bodies -------------------------------------------------------------------------------- */

/* An empty body. It belongs to no op until nb_set_region (build.h) gives it one, or
 * nb_region_discard drops it with all its ops. */
nb_region *nb_region_create(nb_graph *g);
nb_value *nb_region_add(nb_region *region, const char *name, const nb_type *type);
/* Ends the body. */
void nb_region_return(nb_region *region, size_t n, nb_value *const *values, const nb_loc *loc);
void nb_region_discard(nb_region *region);
/* Where a value lives: of a constant, NULL. */
static inline const nb_region *nb_region_of(const nb_value *v) {
    return v->def ? v->def->parent : v->region;
}
/* Takes operand `index` and the parameter for it, which nothing uses, away from an op with bodies
 * (`param` is its number in each of them). */
void nb_op_drop_operand(nb_op *op, uint32_t index, uint32_t param);

/* loop: operands are limit, cond, `carried` first values, `sliced` inputs, then captures; the
 * body's parameters are the number of the step, then one for each operand behind cond. if: operands
 * are cond and captures, which are the parameters. Here: where these begin. */
#define NB_LOOP_OPERANDS 2
#define NB_LOOP_PARAMS   1
/* The counted symbol that a `bind` says, unless one before has; NULL: none. */
const nb_symbol *nb_bound_by(const nb_op *op);
/* How many results: of an op with bodies, as the first one returns. */
uint32_t nb_result_count(const nb_op *op);

/* ---- edits --------------------------------------------------------------------------------- */

/* Makes operand slot `use` refer to `v` (NULL: not given). */
void nb_set_operand(nb_use *use, nb_value *v);
void nb_replace_uses(nb_value *from, nb_value *to);
/* Unlinks the op from its region and its operands; its results must be unused. */
void nb_op_remove(nb_op *op);
void nb_op_move_before(nb_op *op, nb_op *before);
/* Removes pure ops without uses, and constants and quantization descriptors that nothing refers to;
 * returns how many ops and constants. */
size_t nb_graph_sweep(nb_graph *g);
/* A deep copy with the same names and ids that shares blobs; destroy it before the original, whose
 * arena borrowed blobs are in. */
nb_graph *nb_graph_clone(const nb_graph *from);

#endif
