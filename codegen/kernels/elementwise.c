/* unary, binary, compare and where: one loop (loops.c), one function of vectors for each op.
 * ir/NUMBERS.md says what each computes. */
#include "codegen/kernels/elementwise.h"
#include "codegen/kernels/codes.h"

#include <math.h>

static bool is_unsigned(const nb_op *op) {
    nb_elem_class c = nb_elems[nb_in(op, 0)->type->elem].class_;
    return c == NB_CLASS_UINT || c == NB_CLASS_BOOL;
}

static bool is_float(cg_val v) { return cg_kind_is_float(cg_type_of(v).kind); }

/* ---- unary --------------------------------------------------------------------------------- */

static cg_val sigmoid(cg *g, cg_val x) {
    cg_val one = cg_f32(g, 1);
    return cg_fdiv(g, one, cg_add(g, cg_exp(g, cg_neg(g, x)), one));
}

static cg_val gelu(cg *g, cg_val x) {
    cg_val e = cg_erf(g, cg_mul(g, x, cg_f32(g, 0.70710678F)));
    return cg_mul(g, cg_mul(g, x, cg_f32(g, 0.5F)), cg_add(g, e, cg_f32(g, 1)));
}

static cg_val gelu_tanh(cg *g, cg_val x) {
    cg_val cube = cg_mul(g, cg_mul(g, x, x), x);
    cg_val inner = cg_add(g, x, cg_mul(g, cube, cg_f32(g, 0.044715F)));
    cg_val t = cg_tanh(g, cg_mul(g, inner, cg_f32(g, 0.79788456F)));
    return cg_mul(g, cg_mul(g, x, cg_f32(g, 0.5F)), cg_add(g, t, cg_f32(g, 1)));
}

static cg_val softplus(cg *g, cg_val x) {
    cg_val e = cg_exp(g, cg_neg(g, cg_abs(g, x)));
    cg_val positive = cg_fmax(g, x, cg_f32(g, 0));
    return cg_add(g, positive, cg_log(g, cg_add(g, e, cg_f32(g, 1))));
}

static cg_val sign(cg *g, const nb_op *op, cg_val x) {
    cg_val zero = cg_zero(g, cg_type_of(x)), one = cg_like(g, x, 1);
    if (!is_float(x) && is_unsigned(op)) return cg_select(g, cg_cmp(g, CG_NE, x, zero), one, zero);
    cg_val r = cg_select(g, cg_cmp(g, CG_LT, x, zero), cg_like(g, x, -1), zero);
    r = cg_select(g, cg_cmp(g, CG_GT, x, zero), one, r);
    return is_float(x) ? cg_select(g, cg_is_nan(g, x), x, r) : r;
}

/* A NaN stays, and -0. */
static cg_val relu(cg *g, const nb_op *op, cg_val x) {
    if (!is_float(x) && is_unsigned(op)) return x;
    cg_val zero = cg_zero(g, cg_type_of(x));
    return cg_select(g, cg_cmp(g, CG_LT, x, zero), zero, x);
}

/* The functions of ir/scalar.h, and what is made of them, know f32 only. */
static bool is_f32_function(nb_op_kind kind) {
    switch (kind) {
    case NB_OP_exp:
    case NB_OP_log:
    case NB_OP_sigmoid:
    case NB_OP_tanh:
    case NB_OP_erf:
    case NB_OP_sin:
    case NB_OP_cos:
    case NB_OP_atan:
    case NB_OP_silu:
    case NB_OP_gelu:
    case NB_OP_gelu_tanh:
    case NB_OP_softplus:
    case NB_OP_pow:
        return true;
    default:
        return false;
    }
}

static cg_val to_f32(cg *g, cg_val x) {
    return cg_type_of(x).kind == CG_F64 ? cg_float_to_float(g, x, CG_F32) : x;
}

static cg_val unary_of(cg *g, const nb_op *op, cg_val x) {
    switch (op->kind) {
    case NB_OP_neg:
        return cg_neg(g, x);
    case NB_OP_abs:
        return !is_float(x) && is_unsigned(op) ? x : cg_abs(g, x);
    case NB_OP_sign:
        return sign(g, op, x);
    case NB_OP_exp:
        return cg_exp(g, x);
    case NB_OP_log:
        return cg_log(g, x);
    case NB_OP_sqrt:
        return cg_sqrt(g, x);
    case NB_OP_reciprocal:
        return cg_fdiv(g, cg_like(g, x, 1), x);
    case NB_OP_sigmoid:
        return sigmoid(g, x);
    case NB_OP_tanh:
        return cg_tanh(g, x);
    case NB_OP_erf:
        return cg_erf(g, x);
    case NB_OP_sin:
        return cg_sin(g, x);
    case NB_OP_cos:
        return cg_cos(g, x);
    case NB_OP_atan:
        return cg_atan(g, x);
    case NB_OP_relu:
        return relu(g, op, x);
    case NB_OP_silu:
        return cg_mul(g, x, sigmoid(g, x));
    case NB_OP_gelu:
        return gelu(g, x);
    case NB_OP_gelu_tanh:
        return gelu_tanh(g, x);
    case NB_OP_softplus:
        return softplus(g, x);
    case NB_OP_floor:
        return cg_floor(g, x);
    case NB_OP_ceil:
        return cg_ceil(g, x);
    case NB_OP_round:
        return cg_rint(g, x);
    default:
        return cg_not(g, x);
    }
}

static cg_val unary(cg *g, const nb_op *op, const cg_val *values) {
    if (!is_f32_function(op->kind) || nb_out(op)->type->elem != NB_F64)
        return unary_of(g, op, values[0]);
    return cg_float_to_float(g, unary_of(g, op, to_f32(g, values[0])), CG_F64);
}

/* ---- binary -------------------------------------------------------------------------------- */

/* b with 0, and -1 where INT_MIN / -1 would trap, replaced by 1. */
static cg_val safe_divisor(cg *g, const nb_op *op, cg_val b) {
    cg_val bad = cg_cmpi(g, CG_EQ, b, 0);
    if (!is_unsigned(op)) bad = cg_or(g, bad, cg_cmpi(g, CG_EQ, b, -1));
    return cg_select(g, bad, cg_like(g, b, 1), b);
}

static cg_val int_div(cg *g, const nb_op *op, cg_val a, cg_val b) {
    cg_val safe = safe_divisor(g, op, b);
    cg_val q = is_unsigned(op) ? cg_udiv(g, a, safe) : cg_sdiv(g, a, safe);
    if (!is_unsigned(op)) q = cg_select(g, cg_cmpi(g, CG_EQ, b, -1), cg_neg(g, a), q);
    return cg_select(g, cg_cmpi(g, CG_EQ, b, 0), cg_like(g, q, 0), q);
}

/* The remainder with the sign of b. By 0 and by -1 it is 0, as by the divisor 1 put in place. */
static cg_val int_mod(cg *g, const nb_op *op, cg_val a, cg_val b) {
    cg_val safe = safe_divisor(g, op, b);
    if (is_unsigned(op)) return cg_urem(g, a, safe);
    cg_val r = cg_srem(g, a, safe);
    cg_val differ = cg_cmpi(g, CG_LT, cg_xor(g, r, b), 0);
    differ = cg_and(g, differ, cg_cmpi(g, CG_NE, r, 0));
    return cg_select(g, differ, cg_add(g, r, b), r);
}

/* By squaring, in 64 steps at most; a negative exponent truncates 1 / a^|b|. */
static cg_val int_pow(cg *g, const nb_op *op, cg_val a, cg_val b) {
    cg_val one = cg_like(g, a, 1), zero = cg_like(g, a, 0);
    const bool u = is_unsigned(op), wide = nb_in(op, 0)->type->elem == NB_U64;
    /* u64 exponents above the largest i64 count as that. */
    if (wide) b = cg_select(g, cg_cmp(g, CG_LT, b, zero), cg_like(g, b, INT64_MAX), b);
    cg_var result = cg_var_new(g, one), base = cg_var_new(g, a), rest = cg_var_new(g, b);
    int bits = 8 * cg_kind_bytes(cg_type_of(a).kind);
    CG_FOR(g, i, cg_i64(g, 0), cg_i64(g, bits), cg_i64(g, 1)) {
        cg_val e = cg_get(g, rest), x = cg_get(g, base), r = cg_get(g, result);
        cg_val odd = cg_cmpi(g, CG_NE, cg_andi(g, e, 1), 0);
        cg_set(g, result, cg_select(g, odd, cg_mul(g, r, x), r));
        cg_set(g, base, cg_mul(g, x, x));
        cg_set(g, rest, cg_lshri(g, e, 1));
    }
    cg_val r = cg_get(g, result);
    if (u) return r;
    cg_val minus = cg_like(g, a, -1);
    cg_val odd = cg_cmpi(g, CG_NE, cg_andi(g, b, 1), 0);
    cg_val inverse = cg_select(g, cg_cmp(g, CG_EQ, a, minus), cg_select(g, odd, minus, one), zero);
    inverse = cg_select(g, cg_cmp(g, CG_EQ, a, one), one, inverse);
    return cg_select(g, cg_cmp(g, CG_LT, b, zero), inverse, r);
}

static cg_val float_pow(cg *g, cg_val a, cg_val b) {
    cg_val r = cg_pow(g, a, b), one = cg_f32(g, 1);
    r = cg_select(g, cg_cmp(g, CG_EQ, b, cg_f32(g, 0.5F)), cg_sqrt(g, a), r);
    r = cg_select(g, cg_cmp(g, CG_EQ, b, cg_f32(g, 2)), cg_mul(g, a, a), r);
    r = cg_select(g, cg_cmp(g, CG_EQ, b, one), a, r);
    return cg_select(g, cg_cmp(g, CG_EQ, b, cg_f32(g, 0)), one, r);
}

static cg_val binary(cg *g, const nb_op *op, const cg_val *values) {
    cg_val a = values[0], b = values[1];
    bool f = is_float(a), u = is_unsigned(op);
    switch (op->kind) {
    case NB_OP_add:
        return cg_add(g, a, b);
    case NB_OP_sub:
        return cg_sub(g, a, b);
    case NB_OP_mul:
        return cg_mul(g, a, b);
    case NB_OP_div:
        return f ? cg_fdiv(g, a, b) : int_div(g, op, a, b);
    case NB_OP_pow:
        if (!f) return int_pow(g, op, a, b);
        if (nb_out(op)->type->elem != NB_F64) return float_pow(g, a, b);
        return cg_float_to_float(g, float_pow(g, to_f32(g, a), to_f32(g, b)), CG_F64);
    case NB_OP_min:
        return f ? cg_fmin(g, a, b) : u ? cg_umin(g, a, b) : cg_smin(g, a, b);
    case NB_OP_max:
        return f ? cg_fmax(g, a, b) : u ? cg_umax(g, a, b) : cg_smax(g, a, b);
    case NB_OP_mod:
        return f ? cg_fmod(g, a, b) : int_mod(g, op, a, b);
    case NB_OP_and:
        return cg_and(g, a, b);
    case NB_OP_or:
        return cg_or(g, a, b);
    default:
        return cg_xor(g, a, b);
    }
}

static cg_val compare(cg *g, const nb_op *op, const cg_val *values) {
    bool u = is_unsigned(op);
    cg_pred pred = CG_EQ;
    if (op->kind == NB_OP_lt) pred = u ? CG_ULT : CG_LT;
    if (op->kind == NB_OP_le) pred = u ? CG_ULE : CG_LE;
    return cg_cmp(g, pred, values[0], values[1]);
}

static cg_val where(cg *g, const nb_op *op, const cg_val *values) {
    (void)op;
    return cg_select(g, values[0], values[1], values[2]);
}

/* ---- codes ---------------------------------------------------------------------------------- */

static cg_val dequantize(cg *g, const nb_op *op, const cg_val *values) {
    return nb_real_of(g, nb_in(op, 0)->type->quant, values[0]);
}

static cg_val quantize(cg *g, const nb_op *op, const cg_val *values) {
    const nb_quant *q = nb_out(op)->type->quant;
    cg_val scale = cg_splat(g, cg_f32(g, q->scale), CG_LANES);
    return cg_narrow(g, nb_round_static(g, q, scale, values[0]), CG_I8);
}

/* ---- chains -------------------------------------------------------------------------------- */

typedef cg_val (*compute_fn)(cg *g, const nb_op *op, const cg_val *values);

static compute_fn compute_of(nb_op_kind kind);

/* values[1 ..] are the chain's inputs; an op's result is a value for those behind it. */
static cg_val compute_chain(nb_lower *l, void *user, const cg_val *values) {
    (void)user;
    const nb_chain *c = &l->chain;
    cg_val all[NB_CHAIN_INPUTS + NB_CHAIN_OPS];
    size_t n = 0;
    while (n < c->inputs.count) all[n] = values[n + 1], n++;
    for (size_t i = 0; i < c->ops.count; i++) {
        const nb_op *op = c->ops.items[i];
        cg_val operands[3]; /* of `where`, which has the most */
        for (uint32_t k = 0; k < op->n_operands; k++)
            operands[k] = all[nb_chain_place(c, nb_in(op, k))];
        all[n++] = compute_of(op->kind)(l->g, op, operands);
    }
    return all[n - 1];
}

/* ---- the table ----------------------------------------------------------------------------- */

/* Ops of many roundings, compared to one addition. */
static int64_t cost(nb_op_kind kind) {
    if (kind == NB_OP_pow || kind == NB_OP_mod) return 32;
    return is_f32_function(kind) ? 8 : 1;
}

static int64_t cost_of_all(const nb_lower *l) {
    int64_t all = 0;
    for (size_t i = 0; i < l->chain.ops.count; i++) all += cost(l->chain.ops.items[i]->kind);
    return all;
}

/* Long code: scalar divisions, too. */
static bool is_heavy(const nb_lower *l) {
    for (size_t i = 0; i < l->chain.ops.count; i++) {
        const nb_op *op = l->chain.ops.items[i];
        if (cost(op->kind) > 1 ||
            (op->kind == NB_OP_div && !nb_elem_is_float(nb_in(op, 0)->type->elem)))
            return true;
    }
    return false;
}

static nb_stream_loop loop_of(nb_lower *l) {
    const cg_buf *to = &l->out[0].buf;
    nb_stream_loop loop = {
        .n = 1 + (int)l->chain.inputs.count, .streams = {*to}, .compute = compute_chain};
    for (int i = 1; i < loop.n; i++) {
        const nb_operand *o = &l->in[i - 1];
        loop.streams[i] = cg_buf_broadcast(l->g, &o->buf, to->rank, to->dims);
        loop.immediate[i] = o->immediate;
    }
    loop.heavy = is_heavy(l);
    nb_stream_collapse(l, &loop);
    return loop;
}

cg_val nb_chain_items(nb_lower *l, int phase) {
    (void)phase;
    nb_stream_loop loop = loop_of(l);
    return nb_stream_items(l, &loop);
}

cg_val nb_chain_work(nb_lower *l, int phase) {
    (void)phase;
    nb_stream_loop loop = loop_of(l);
    return cg_muli(l->g, nb_stream_work(l, &loop), cost_of_all(l));
}

void nb_chain_body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    (void)phase;
    nb_stream_loop loop = loop_of(l);
    nb_stream_body(l, &loop, begin, end);
}

/* Each family has the same loop. */
#define ELEMENTWISE(family)                                           \
    const nb_lowering nb_lower_##family = {.accept = nb_accept_plain, \
                                           .items = nb_chain_items,   \
                                           .work = nb_chain_work,     \
                                           .body = nb_chain_body};

ELEMENTWISE(unary)
ELEMENTWISE(binary)
ELEMENTWISE(compare)
ELEMENTWISE(where)

static compute_fn compute_of(nb_op_kind kind) {
    const nb_lowering *family = nb_lowering_of(kind);
    return family == &nb_lower_unary        ? unary
           : family == &nb_lower_binary     ? binary
           : family == &nb_lower_compare    ? compare
           : family == &nb_lower_dequantize ? dequantize
           : family == &nb_lower_quantize   ? quantize
                                            : where;
}
