/* The vocabulary in which kernels are written: typed values, loops that read as the nest they
 * emit, 16-lane vectors, strided buffers.
 *
 *   cg_val sum = ...;
 *   CG_FOR(g, m, zero, M, one) {
 *       cg_var acc = cg_var_new(g, cg_f32(g, 0));
 *       CG_FOR(g, k, zero, K, one) {
 *           cg_set(g, acc, cg_fma(g, cg_load_f32(g, cg_at(g, &a, m, k)), ..., cg_get(g, acc)));
 *       }
 *   }
 *
 * One logical vector width everywhere: 16 lanes (<16 x float>, <16 x i32>, <64 x i8> seen as
 * 16 x 4), because the specified arithmetic is in 16 lanes; LLVM splits it for the target. Scalars
 * are i64 (sizes, indices), i32 and f32. Nothing here uses fast-math flags, and nothing becomes a
 * library call: what a CPU cannot do is written out in instructions (cg_arith.c, cg_convert.c,
 * cg_math.c). f16 and bf16 never appear as LLVM types; they are i16 bits until converted.
 *
 * Only cg*.c call the LLVM API. Everything a cg_val points at belongs to its cg_module. */
#ifndef NB_CG_H
#define NB_CG_H

#include "ir/ir.h"

typedef struct LLVMOpaqueValue *cg_val; /* a scalar, a vector, a pointer or a function */
typedef struct cg cg;                   /* a function under construction */
typedef struct cg_module cg_module;

/* ---- types --------------------------------------------------------------------------------- */

typedef enum cg_kind {
    CG_VOID,
    CG_I1,
    CG_I8,
    CG_I16,
    CG_I32,
    CG_I64,
    CG_F32,
    CG_F64,
    CG_PTR
} cg_kind;

typedef struct cg_type {
    cg_kind kind;
    int lanes; /* 0 = a scalar */
} cg_type;

#define CG_LANES 16
/* A variable: an alloca that LLVM turns into registers. */
typedef struct cg_var {
    cg_val slot;
    cg_type type;
} cg_var;

#define CG_S(kind) ((cg_type){(kind), 0})
#define CG_V(kind) ((cg_type){(kind), CG_LANES})

cg_type cg_type_of(cg_val v);
static inline bool cg_kind_is_float(cg_kind kind) { return kind == CG_F32 || kind == CG_F64; }
/* Bytes of one lane in memory; CG_I1 counts as one byte. */
int cg_kind_bytes(cg_kind kind);
/* The kind that holds an element's bits in memory: F16 is CG_I16, BOOL and anything of fewer than
 * 8 bits CG_I8. */
cg_kind cg_storage_kind(nb_elem e);
/* The kind in which arithmetic on it is done: F16, BF16 and the f8 compute in CG_F32, BOOL in
 * CG_I1, integers in their own width (fewer than 8 bits: CG_I8). */
cg_kind cg_compute_kind(nb_elem e);

/* ---- CPUs ---------------------------------------------------------------------------------- */

typedef struct nb_dot nb_dot; /* kernels/dot.h */

/* What a CPU family does by itself. What is NULL: use the generic way. */
typedef struct cg_isa {
    const char *name;
    int vector_bytes; /* of one register: a hint for tile shapes */
    int registers;    /* vector registers: a hint for tile shapes */
    bool fma;         /* has fused multiply-add of f32 and f64 */
    bool round;       /* has rounding to integral floats */
    bool f16;         /* converts f16 <-> f32 in hardware */
    bool maximum;     /* has min and max that propagate NaN and order zeros */
    int mask_bits;    /* smallest lane, in bits, with masked loads and stores; 0 = none */
    /* Where memory is the limit: how many places of it are best read side by side, and how far
     * ahead it is best asked for, in bytes (0: not at all, the CPU finds out by itself). */
    int streams, ahead;
    /* How weights of 8 and of fewer bits (first index) are multiplied by activations of i8 and of
     * i16: by several rows, and by a single one (NULL: likewise). */
    const nb_dot *dots[2][2][2];
    /* sums (<16 x i32>) and the exact products of neighbours, added in 32 bits: of pairs of 32
     * words (NULL: in other steps); of fours of 64 bytes, those of `a` unsigned (NULL: not). */
    cg_val (*pairs)(cg *g, cg_val sums, cg_val a, cg_val b);
    cg_val (*fours)(cg *g, cg_val sums, cg_val a, cg_val b);
} cg_isa;

typedef enum cg_arch { CG_X86_64, CG_AARCH64 } cg_arch;

typedef struct cg_cpu {
    const char *name; /* "generic", "x86-64-v3"...; unique within one architecture */
    cg_arch arch;
    const char *triple;
    const char *llvm_cpu, *llvm_features;
    uint64_t features; /* NB_CPU_* that the model's descriptor asks for */
    const cg_isa *isa;
} cg_cpu;

extern const cg_cpu cg_cpus[];
extern const size_t cg_n_cpus;
/* By name; `arch` is an architecture's name ("x86_64", "aarch64") or a triple that starts with it,
 * NULL = the host's. "native" is the best row this machine runs. NULL when there is none. */
const cg_cpu *cg_cpu_find(const char *arch, const char *name);

/* ---- modules and functions ----------------------------------------------------------------- */

/* A module for `cpu`, whose code is to be made quickly or well; NULL, with a message in `*error`
 * (of the arena), when LLVM has no such target. cg_module_destroy frees what LLVM holds; memory of
 * the arena stays. */
cg_module *cg_module_create(nb_arena *arena, const cg_cpu *cpu, const char *name, bool quick,
                            const char **error);
void cg_module_destroy(cg_module *m);

enum { CG_EXPORTED = 1, CG_NOINLINE = 2, CG_ALWAYS_INLINE = 4 };

/* Starts a function; its body begins in an open block. At most 24 parameters. */
cg *cg_function(cg_module *m, const char *name, cg_type result, int n_params, const cg_type *params,
                unsigned flags);
cg_val cg_param(const cg *g, int i);
/* The function of that name, which kernels of one module share; NULL: there is none yet. */
cg_val cg_find(const cg_module *m, const char *name);
/* A function that the model is linked with: declared, if it is not yet. */
cg_val cg_extern(cg_module *m, const char *name, cg_type result, int n_params,
                 const cg_type *params);
/* Ends the open block; `v` NULL for void. Code after it, until a block closes, is unreachable. */
void cg_return(cg *g, cg_val v);
/* Ends the function (with cg_return of nothing or zero if the block is open); g is gone. */
cg_val cg_finish(cg *g);
/* Calls a function of this module. */
cg_val cg_call(cg *g, cg_val function, int n, const cg_val *args);
/* Calls through a pointer. */
cg_val cg_call_ptr(cg *g, cg_val pointer, cg_type result, int n, const cg_val *args);
/* Calls an LLVM intrinsic by name; arguments are bitcast to the types it declares, `overload`
 * (n_overload types) picks among the overloaded ones. */
cg_val cg_intrinsic(cg *g, const char *name, int n_overload, const cg_type *overload, int n,
                    const cg_val *args);

cg_module *cg_module_of(const cg *g);
const cg_cpu *cg_cpu_of(const cg *g);
static inline const cg_isa *cg_isa_of(const cg *g) { return cg_cpu_of(g)->isa; }
nb_arena *cg_arena(const cg *g);

/* ---- constants ----------------------------------------------------------------------------- */

cg_val cg_i64(cg *g, int64_t value);
cg_val cg_i32(cg *g, int32_t value);
cg_val cg_i1(cg *g, bool value);
cg_val cg_f32(cg *g, float value); /* any bits, NaN payloads too */
cg_val cg_f64(cg *g, double value);
/* A constant of any integer type (value truncated) or float type (value converted). */
cg_val cg_const(cg *g, cg_type type, int64_t value);
cg_val cg_zero(cg *g, cg_type type);
/* A vector of constants: integer lanes of `kind`. */
cg_val cg_const_lanes(cg *g, cg_kind kind, int lanes, const int64_t *values);
/* A constant with the type of `like`. */
cg_val cg_like(cg *g, cg_val like, int64_t value);
cg_val cg_likef(cg *g, cg_val like, double value);
/* 0, 1, ... 15 as <16 x kind>. */
cg_val cg_iota(cg *g, cg_kind kind);
/* Is it an integer constant, and which? */
bool cg_known(cg_val v, int64_t *value);
bool cg_is(cg_val v, int64_t value);

/* ---- arithmetic ---------------------------------------------------------------------------- *
 * Operands have one type, except that a scalar beside a vector is splatted. */

cg_val cg_add(cg *g, cg_val a, cg_val b); /* integers wrap; floats round to nearest even */
cg_val cg_sub(cg *g, cg_val a, cg_val b);
cg_val cg_mul(cg *g, cg_val a, cg_val b);
cg_val cg_fdiv(cg *g, cg_val a, cg_val b);
cg_val cg_sdiv(cg *g, cg_val a, cg_val b); /* raw: b must not be 0, nor INT_MIN / -1 */
cg_val cg_udiv(cg *g, cg_val a, cg_val b);
cg_val cg_srem(cg *g, cg_val a, cg_val b);
cg_val cg_urem(cg *g, cg_val a, cg_val b);
cg_val cg_neg(cg *g, cg_val a); /* floats: flips the sign bit */
cg_val cg_abs(cg *g, cg_val a); /* floats: clears the sign bit; INT_MIN stays */
/* With a C integer as second operand. */
cg_val cg_addi(cg *g, cg_val a, int64_t b);
cg_val cg_muli(cg *g, cg_val a, int64_t b);
cg_val cg_andi(cg *g, cg_val a, int64_t b);
cg_val cg_shli(cg *g, cg_val a, int b);
cg_val cg_lshri(cg *g, cg_val a, int b);
cg_val cg_ashri(cg *g, cg_val a, int b);

cg_val cg_and(cg *g, cg_val a, cg_val b); /* floats: on their bits */
cg_val cg_or(cg *g, cg_val a, cg_val b);
cg_val cg_xor(cg *g, cg_val a, cg_val b);
cg_val cg_not(cg *g, cg_val a);
cg_val cg_shl(cg *g, cg_val a, cg_val b); /* shift counts below the width */
cg_val cg_lshr(cg *g, cg_val a, cg_val b);
cg_val cg_ashr(cg *g, cg_val a, cg_val b);

/* a*b+c rounded once. f64 without isa->fma is right only while nothing over- or underflows: enough
 * for mathematics here, not for data of the model. */
cg_val cg_fma(cg *g, cg_val a, cg_val b, cg_val c);
cg_val cg_sqrt(cg *g, cg_val a);
cg_val cg_rint(cg *g, cg_val a); /* half to even, keeps the sign of zero */
cg_val cg_floor(cg *g, cg_val a);
cg_val cg_ceil(cg *g, cg_val a);
cg_val cg_trunc(cg *g, cg_val a);
/* NaN if either is NaN, -0 below +0. */
cg_val cg_fmin(cg *g, cg_val a, cg_val b);
cg_val cg_fmax(cg *g, cg_val a, cg_val b);
cg_val cg_smin(cg *g, cg_val a, cg_val b);
cg_val cg_smax(cg *g, cg_val a, cg_val b);
cg_val cg_umin(cg *g, cg_val a, cg_val b);
cg_val cg_umax(cg *g, cg_val a, cg_val b);
/* ceil(a / b) of non-negative i64. */
cg_val cg_ceildiv(cg *g, cg_val a, cg_val b);
/* i64 sums and products that also set `overflow`, a variable of CG_I1, when they overflow. */
cg_val cg_add_checked(cg *g, cg_val a, cg_val b, cg_var overflow);
cg_val cg_mul_checked(cg *g, cg_val a, cg_val b, cg_var overflow);
/* The bits of a float as an integer; those of a NaN are 0x7fc00000 (f64: its counterpart), as at
 * every output. Integers, because to LLVM one NaN is as good as another and it removes a select. */
cg_val cg_canonical_bits(cg *g, cg_val a);

typedef enum cg_pred {
    CG_EQ,
    CG_NE, /* floats: true with a NaN; the others are false */
    CG_LT,
    CG_LE,
    CG_GT,
    CG_GE,
    CG_ULT, /* unsigned; floats: true with a NaN */
    CG_ULE,
    CG_UGT,
    CG_UGE,
    CG_UNORDERED /* floats: either is a NaN */
} cg_pred;
cg_val cg_cmp(cg *g, cg_pred pred, cg_val a, cg_val b);
cg_val cg_cmpi(cg *g, cg_pred pred, cg_val a, int64_t b);
cg_val cg_is_nan(cg *g, cg_val a);
/* `cond` i1 or <n x i1>. */
cg_val cg_select(cg *g, cg_val cond, cg_val a, cg_val b);

/* ---- conversions --------------------------------------------------------------------------- *
 * `kind` is the result's; lanes stay. */

cg_val cg_bits(cg *g, cg_val a);                  /* float -> integer of the same width */
cg_val cg_from_bits(cg *g, cg_val a);             /* i32 -> f32, i64 -> f64 */
cg_val cg_bitcast(cg *g, cg_val a, cg_type type); /* any regrouping, e.g. <64 x i8> as <16 x i32> */
cg_val cg_address(cg *g, cg_val pointer);         /* as i64 */
cg_val cg_sext(cg *g, cg_val a, cg_kind kind);    /* integers; truncates when narrower */
cg_val cg_zext(cg *g, cg_val a, cg_kind kind);
cg_val cg_narrow(cg *g, cg_val a, cg_kind kind); /* integers, drops high bits */
cg_val cg_sint_to_float(cg *g, cg_val a, cg_kind kind);
cg_val cg_uint_to_float(cg *g, cg_val a, cg_kind kind);
/* Truncates; the value must fit. */
cg_val cg_float_to_sint(cg *g, cg_val a, cg_kind kind);
/* Truncates and saturates to [min, max] of a signed or unsigned integer; NaN is 0. */
cg_val cg_float_to_int_sat(cg *g, cg_val a, cg_kind kind, bool is_signed);
cg_val cg_float_to_float(cg *g, cg_val a, cg_kind kind); /* f32 <-> f64 */
cg_val cg_f16_to_f32(cg *g, cg_val bits);                /* i16 -> f32 */
cg_val cg_bf16_to_f32(cg *g, cg_val bits);
cg_val cg_f32_to_f16(cg *g, cg_val a);  /* f32 -> i16, half to even; NaN is 0x7e00 */
cg_val cg_f32_to_bf16(cg *g, cg_val a); /* NaN is 0x7fc0 */
/* Between what memory holds and what arithmetic uses, for an element type. */
cg_val cg_decode(cg *g, nb_elem e, cg_val stored);
cg_val cg_encode(cg *g, nb_elem e, cg_val computed);

/* ---- vectors ------------------------------------------------------------------------------- */

cg_val cg_splat(cg *g, cg_val scalar, int lanes);
cg_val cg_lane(cg *g, cg_val v, int lane);
cg_val cg_with_lane(cg *g, cg_val v, int lane, cg_val scalar);
/* Lanes of `a` followed by those of `b` (NULL = a), picked; -1 = any value. */
cg_val cg_shuffle(cg *g, cg_val a, cg_val b, int lanes, const int *picks);
/* `n` lanes from `from` on. */
cg_val cg_slice(cg *g, cg_val v, int from, int n);
cg_val cg_join(cg *g, cg_val low, cg_val high);
/* 1, 2, 4 ... vectors of equal size one after the other. */
cg_val cg_join_all(cg *g, const cg_val *parts, int n);
/* i < n for each lane i; n is i64. */
cg_val cg_lane_mask(cg *g, cg_val n);
/* i1: is a lane of <n x i1> true? */
cg_val cg_any(cg *g, cg_val lanes);
/* The fixed tree of 16 lanes: j and j+8, then j+4, j+2, 0 and 1, lower + upper. */
cg_val cg_sum16(cg *g, cg_val v);
/* The same tree with any function; for order-free ones (max of floats, integer sums). */
cg_val cg_fold16(cg *g, cg_val v, cg_val (*f)(cg *g, cg_val a, cg_val b));

/* ---- memory -------------------------------------------------------------------------------- */

/* Byte and element offsets. */
cg_val cg_offset(cg *g, cg_val pointer, cg_val bytes);
cg_val cg_index(cg *g, cg_val pointer, cg_kind kind, cg_val index);
/* `align` in bytes; 0 = that of one lane. */
cg_val cg_load(cg *g, cg_type type, cg_val pointer, int align);
void cg_store(cg *g, cg_val v, cg_val pointer, int align);
/* Past the caches, for what is not read again soon: whole lines, which need not be read before they
 * are written. `pointer` is a multiple of the vector's bytes. Nobody else may look before
 * cg_stream_end. */
void cg_stream(cg *g, cg_val v, cg_val pointer);
void cg_stream_end(cg *g);
/* For what another thread changes. */
cg_val cg_load_volatile(cg *g, cg_type type, cg_val pointer);
/* The first n (i64, 0..lanes) of 16 lanes; the rest are zero. Touches no byte beyond. */
cg_val cg_load_part(cg *g, cg_type type, cg_val pointer, cg_val n);
void cg_store_part(cg *g, cg_val v, cg_val pointer, cg_val n);
/* Keeps a line close: `locality` 0 (streamed once) .. 3. */
void cg_prefetch(cg *g, cg_val pointer, int locality);
/* Three that emit no instruction and keep the order of long straight code as written, where the
 * compiler's own costs more registers than there are. No load or store moves across a fence. A
 * vector of several registers that cg_pin returns has been computed there, all of it: otherwise one
 * half is often computed long after the other. cg_settle does so with a single register too. */
void cg_fence(cg *g);
cg_val cg_pin(cg *g, cg_val v);
cg_val cg_settle(cg *g, cg_val v);
/* The same address or i64, of which the compiler does not know that it is the same. */
cg_val cg_unknown(cg *g, cg_val v);
void cg_memcpy(cg *g, cg_val to, cg_val from, cg_val bytes);
void cg_memset(cg *g, cg_val to, int byte, cg_val bytes);
/* Stack space for the whole function, `align` bytes aligned. */
cg_val cg_stack(cg *g, int64_t bytes, int align);
/* Constant bytes in the module, e.g. a lookup table. */
cg_val cg_table(cg *g, const void *bytes, size_t size, int align);

/* ---- variables and control flow ------------------------------------------------------------ */

cg_var cg_var_new(cg *g, cg_val initial);
cg_val cg_get(cg *g, cg_var var);
void cg_set(cg *g, cg_var var, cg_val v);

/* Between these two, code goes into the function's entry block, so that its values can be used
 * everywhere: loads of sizes, for example. It must not branch. */
void cg_entry_begin(cg *g);
void cg_entry_end(cg *g);

typedef struct cg_loop {
    bool open;
    cg_val index, step, end;
    struct LLVMOpaqueBasicBlock *head, *exit;
} cg_loop;

typedef struct cg_branch {
    bool open;
    cg_val branch;
    struct LLVMOpaqueBasicBlock *merge;
} cg_branch;

cg_loop cg_loop_begin(cg *g, cg_val begin, cg_val end, cg_val step, const char *name);
void cg_loop_end(cg *g, cg_loop *loop);
cg_branch cg_if_begin(cg *g, cg_val cond);
cg_branch cg_else_begin(cg *g);
void cg_if_end(cg *g, cg_branch *branch);

/* for (i64 i = begin; i < end; i += step), signed. Do not leave it with break, return or goto. */
#define CG_FOR(g, i, begin, end, step)                                                           \
    for (cg_loop cg_loop_##i = cg_loop_begin((g), (begin), (end), (step), #i); cg_loop_##i.open; \
         cg_loop_end((g), &cg_loop_##i))                                                         \
        for (cg_val i = cg_loop_##i.index; i; i = NULL)
/* while (cond): `cond` is evaluated in the block that precedes each turn. */
#define CG_WHILE(g, cond) CG_WHILE_((g), (cond), CG_UNIQUE(cg_while_))
#define CG_WHILE_(g, cond, l)                                                     \
    for (cg_loop l = cg_while_begin(g); l.open && cg_while_test((g), &l, (cond)); \
         cg_while_end((g), &l))
cg_loop cg_while_begin(cg *g);
bool cg_while_test(cg *g, cg_loop *loop, cg_val cond);
void cg_while_end(cg *g, cg_loop *loop);

/* CG_IF(g, cond) { ... } and, directly behind it, CG_ELSE(g) { ... }. Where the condition is known,
 * only the block that it selects is run. */
#define CG_IF(g, cond)          CG_BRANCH_((g), cg_if_begin((g), (cond)), CG_UNIQUE(cg_if_))
#define CG_ELSE(g)              CG_BRANCH_((g), cg_else_begin(g), CG_UNIQUE(cg_else_))
#define CG_BRANCH_(g, begin, b) for (cg_branch b = (begin); b.open; cg_if_end((g), &b))
/* Nested blocks need names of their own: the line they stand in. */
#define CG_UNIQUE(prefix) CG_PASTE(prefix, __LINE__)
#define CG_PASTE(a, b)    CG_PASTE_(a, b)
#define CG_PASTE_(a, b)   a##b

/* ---- specified mathematics (ir/scalar.h in vectors; equal bits) ---------------------------- *
 * f32 scalars or vectors. */

cg_val cg_exp(cg *g, cg_val x);
cg_val cg_log(cg *g, cg_val x);
cg_val cg_tanh(cg *g, cg_val x);
cg_val cg_erf(cg *g, cg_val x);
cg_val cg_sin(cg *g, cg_val x);
cg_val cg_cos(cg *g, cg_val x);
cg_val cg_atan(cg *g, cg_val x);
cg_val cg_pow(cg *g, cg_val x, cg_val y);
/* C's fmod, exact; f32 and f64. */
cg_val cg_fmod(cg *g, cg_val a, cg_val b);

/* ---- strided buffers ----------------------------------------------------------------------- */

/* A tensor in memory. Every op reads operands and writes results through strides: an appended
 * state has its capacity, not its length, between rows. */
typedef struct cg_buf {
    cg_val base; /* pointer to element 0 */
    nb_elem elem;
    int rank;
    int align;      /* of base, in bytes */
    bool canonical; /* stores make NaN the positive quiet one: it is an output of the model */
    cg_val dims[NB_MAX_RANK];    /* i64 */
    cg_val strides[NB_MAX_RANK]; /* i64, in elements; 0 along a broadcast axis */
    bool dense[NB_MAX_RANK];     /* strides[i] == dims[i+1] * strides[i+1] (the last: == 1) */
} cg_buf;

/* Row-major and contiguous. */
cg_buf cg_buf_dense(cg *g, cg_val base, nb_elem elem, int rank, const cg_val *dims);
/* Product of all dims. */
cg_val cg_buf_count(cg *g, const cg_buf *b);
/* Product of dims[from .. to-1]; 1 when empty. */
cg_val cg_buf_count_range(cg *g, const cg_buf *b, int from, int to);
bool cg_buf_is_dense(const cg_buf *b);
/* Merges neighbouring axes that lie dense in memory. */
cg_buf cg_buf_collapse(cg *g, const cg_buf *b);
/* Merges axes [from, to) into one; they must be dense. */
cg_buf cg_buf_merge(cg *g, const cg_buf *b, int from, int to);
/* The view of a rank-`rank` broadcast: axes are aligned at the end, missing ones and those whose
 * length is the constant 1 get stride 0 and the length in `dims`. */
cg_buf cg_buf_broadcast(cg *g, const cg_buf *b, int rank, const cg_val *dims);
/* The address of an element. */
cg_val cg_buf_at(cg *g, const cg_buf *b, const cg_val *index);
/* cg_at(g, &buf, i, j, ...): one index for each axis. */
#define cg_at(g, buf, ...) cg_buf_at((g), (buf), (const cg_val[]){__VA_ARGS__})
/* Offset in elements of row `row` (0 .. product of all dims but the last `inner` ones). */
cg_val cg_buf_row_offset(cg *g, const cg_buf *b, int inner, cg_val row);
/* Pointer to element 0 of that row. */
cg_val cg_buf_row(cg *g, const cg_buf *b, int inner, cg_val row);
/* Pointer moved by `index` elements. */
cg_val cg_buf_step(cg *g, const cg_buf *b, cg_val pointer, cg_val index);

/* One element or 16 elements in compute kind (cg_compute_kind): converted on the way, NaN made
 * canonical where the buffer wants it. `stride` in elements: 1 and 0 are recognised constants,
 * anything else goes lane by lane. */
cg_val cg_buf_load(cg *g, const cg_buf *b, cg_val pointer);
void cg_buf_store(cg *g, const cg_buf *b, cg_val pointer, cg_val v);
cg_val cg_buf_load16(cg *g, const cg_buf *b, cg_val pointer, cg_val stride);
void cg_buf_store16(cg *g, const cg_buf *b, cg_val pointer, cg_val stride, cg_val v);
/* The first n of 16; lanes beyond are zero and no memory beyond is touched. n NULL = all 16. */
cg_val cg_buf_load_part(cg *g, const cg_buf *b, cg_val pointer, cg_val stride, cg_val n);
void cg_buf_store_part(cg *g, const cg_buf *b, cg_val pointer, cg_val stride, cg_val v, cg_val n);
/* All 16, side by side, past the caches (cg_stream). */
void cg_buf_stream16(cg *g, const cg_buf *b, cg_val pointer, cg_val v);

/* Calls body(g, user, i, n) for i = 0, 16, 32 ... below `count`: n NULL for whole vectors, then
 * once with the number of elements left (1..15) if there are any. */
void cg_for16(cg *g, cg_val count, void (*body)(cg *g, void *user, cg_val i, cg_val n), void *user);

#endif
