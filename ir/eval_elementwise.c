/* Elementwise ops and casts. Floats other than f64 compute in f32 and round once at the end; f64
 * computes in f64, except the functions of scalar.h, which round their argument to f32 first. */
#include "ir/eval_private.h"
#include "ir/minifloat.h"
#include "ir/scalar.h"

#include <string.h>

/* ---- broadcasting -------------------------------------------------------------------------- */

void nb_broadcast_strides(const nb_tensor *t, const nb_tensor *out, int64_t *strides) {
    int64_t stride = 1;
    for (int d = 0; d < out->rank; d++) strides[d] = 0;
    for (int d = t->rank - 1; d >= 0; d--) {
        int o = d + out->rank - t->rank;
        strides[o] = t->dims[d] == 1 ? 0 : stride;
        stride *= t->dims[d];
    }
}

void nb_step(const nb_tensor *out, int64_t *index, int n, int64_t *offsets,
             int64_t (*strides)[NB_MAX_RANK]) {
    for (int d = out->rank - 1; d >= 0; d--) {
        index[d]++;
        for (int k = 0; k < n; k++) offsets[k] += strides[k][d];
        if (index[d] < out->dims[d]) return;
        for (int k = 0; k < n; k++) offsets[k] -= strides[k][d] * out->dims[d];
        index[d] = 0;
    }
}

/* ---- one operand --------------------------------------------------------------------------- */

static float unary_f32(nb_op_kind kind, float x) {
    switch (kind) {
    case NB_OP_neg:
        return -x;
    case NB_OP_abs:
        return fabsf(x);
    case NB_OP_sign:
        return x > 0 ? 1.0f : x < 0 ? -1.0f : x != x ? x : 0.0f;
    case NB_OP_exp:
        return nb_expf(x);
    case NB_OP_log:
        return nb_logf(x);
    case NB_OP_sqrt:
        return sqrtf(x);
    case NB_OP_reciprocal:
        return 1.0f / x;
    case NB_OP_sigmoid:
        return 1.0f / (1.0f + nb_expf(-x));
    case NB_OP_tanh:
        return nb_tanhf(x);
    case NB_OP_erf:
        return nb_erff(x);
    case NB_OP_sin:
        return nb_sinf(x);
    case NB_OP_cos:
        return nb_cosf(x);
    case NB_OP_atan:
        return nb_atanf(x);
    case NB_OP_relu:
        return x < 0 ? 0.0f : x;
    case NB_OP_silu:
        return x * (1.0f / (1.0f + nb_expf(-x)));
    case NB_OP_gelu:
        return (0.5f * x) * (1.0f + nb_erff(x * 0.70710678f));
    case NB_OP_gelu_tanh:
        return (0.5f * x) * (1.0f + nb_tanhf(0.79788456f * (x + 0.044715f * ((x * x) * x))));
    case NB_OP_softplus:
        return (x > 0 ? x : 0.0f) + nb_logf(1.0f + nb_expf(-fabsf(x)));
    case NB_OP_floor:
        return floorf(x);
    case NB_OP_ceil:
        return ceilf(x);
    case NB_OP_round:
        return rintf(x);
    default:
        return x;
    }
}

static double unary_f64(nb_op_kind kind, double x) {
    switch (kind) {
    case NB_OP_neg:
        return -x;
    case NB_OP_abs:
        return fabs(x);
    case NB_OP_sign:
        return x > 0 ? 1 : x < 0 ? -1 : x != x ? x : 0;
    case NB_OP_sqrt:
        return sqrt(x);
    case NB_OP_reciprocal:
        return 1 / x;
    case NB_OP_relu:
        return x < 0 ? 0 : x;
    case NB_OP_floor:
        return floor(x);
    case NB_OP_ceil:
        return ceil(x);
    case NB_OP_round:
        return rint(x);
    default:
        return (double)unary_f32(kind, (float)x);
    }
}

static int64_t unary_int(nb_op_kind kind, nb_elem elem, int64_t x) {
    bool negative = nb_elems[elem].class_ == NB_CLASS_INT && x < 0;
    switch (kind) {
    case NB_OP_neg:
        return (int64_t)(0 - (uint64_t)x);
    case NB_OP_abs:
        return negative ? (int64_t)(0 - (uint64_t)x) : x;
    case NB_OP_sign:
        return negative ? -1 : x != 0;
    case NB_OP_relu:
        return negative ? 0 : x;
    case NB_OP_not:
        return elem == NB_BOOL ? !x : ~x;
    default:
        return x;
    }
}

nb_status nb_eval_unary(const nb_evaluating *e) {
    const nb_tensor *x = &e->in[0];
    nb_tensor *y = e->out;
    int64_t n = nb_tensor_count(x);
    for (int64_t i = 0; i < n; i++) {
        if (x->elem == NB_F64)
            nb_tensor_set_float(y, i, unary_f64(e->op->kind, nb_tensor_get(x, i)));
        else if (nb_elem_is_float(x->elem))
            nb_tensor_set_float(y, i, (double)unary_f32(e->op->kind, (float)nb_tensor_get(x, i)));
        else
            nb_tensor_set_int(y, i, unary_int(e->op->kind, x->elem, nb_tensor_get_int(x, i)));
    }
    return NB_OK;
}

/* ---- two operands -------------------------------------------------------------------------- */

/* Smaller (sign -1) or larger (sign 1); -0 is less than +0, NaN wins. */
static double extremum(double a, double b, bool larger) {
    if (a != a || b != b) return a != a ? a : b;
    if (a == b) return signbit(a) ? (larger ? b : a) : (larger ? a : b);
    return (a > b) == larger ? a : b;
}

static float pow_f32(float a, float b) {
    if (b == 2.0f) return a * a;
    if (b == 0.5f) return sqrtf(a);
    if (b == 1.0f) return a;
    return nb_powf(a, b);
}

static float binary_f32(nb_op_kind kind, float a, float b) {
    switch (kind) {
    case NB_OP_add:
        return a + b;
    case NB_OP_sub:
        return a - b;
    case NB_OP_mul:
        return a * b;
    case NB_OP_div:
        return a / b;
    case NB_OP_pow:
        return pow_f32(a, b);
    case NB_OP_min:
        return (float)extremum((double)a, (double)b, false);
    case NB_OP_max:
        return (float)extremum((double)a, (double)b, true);
    case NB_OP_mod:
        return fmodf(a, b);
    default:
        return a;
    }
}

static double binary_f64(nb_op_kind kind, double a, double b) {
    switch (kind) {
    case NB_OP_add:
        return a + b;
    case NB_OP_sub:
        return a - b;
    case NB_OP_mul:
        return a * b;
    case NB_OP_div:
        return a / b;
    case NB_OP_pow:
        return (double)pow_f32((float)a, (float)b);
    case NB_OP_min:
        return extremum(a, b, false);
    case NB_OP_max:
        return extremum(a, b, true);
    case NB_OP_mod:
        return fmod(a, b);
    default:
        return a;
    }
}

/* a to the b, wrapping; a negative exponent truncates 1/a^|b|. */
static int64_t pow_int(int64_t a, int64_t b) {
    if (b < 0) return a == 1 ? 1 : a == -1 ? (b & 1 ? -1 : 1) : 0;
    uint64_t r = 1, base = (uint64_t)a;
    for (; b; b >>= 1, base *= base) r *= b & 1 ? base : 1;
    return (int64_t)r;
}

static int64_t mod_signed(int64_t a, int64_t b) {
    if (b == 0 || b == -1) return 0;
    int64_t r = a % b;
    return r && (r < 0) != (b < 0) ? r + b : r;
}

static int64_t binary_signed(nb_op_kind kind, int64_t a, int64_t b) {
    switch (kind) {
    case NB_OP_add:
        return (int64_t)((uint64_t)a + (uint64_t)b);
    case NB_OP_sub:
        return (int64_t)((uint64_t)a - (uint64_t)b);
    case NB_OP_mul:
        return (int64_t)((uint64_t)a * (uint64_t)b);
    case NB_OP_div:
        return b == 0 ? 0 : b == -1 ? (int64_t)(0 - (uint64_t)a) : a / b;
    case NB_OP_pow:
        return pow_int(a, b);
    case NB_OP_min:
        return a < b ? a : b;
    case NB_OP_max:
        return a > b ? a : b;
    case NB_OP_mod:
        return mod_signed(a, b);
    case NB_OP_and:
        return a & b;
    case NB_OP_or:
        return a | b;
    case NB_OP_xor:
        return a ^ b;
    default:
        return a;
    }
}

/* Only u64 needs more than binary_signed: the others fit a signed 64-bit integer. */
static int64_t binary_u64(nb_op_kind kind, int64_t a, int64_t b) {
    uint64_t x = (uint64_t)a, y = (uint64_t)b;
    switch (kind) {
    case NB_OP_div:
        return (int64_t)(y ? x / y : 0);
    case NB_OP_mod:
        return (int64_t)(y ? x % y : 0);
    case NB_OP_min:
        return (int64_t)(x < y ? x : y);
    case NB_OP_max:
        return (int64_t)(x > y ? x : y);
    default:
        return binary_signed(kind, a, b < 0 && kind == NB_OP_pow ? INT64_MAX : b);
    }
}

/* The shape of the loop for two operands; `each` computes element i from elements at a and b. */
static void for_pairs(const nb_evaluating *e,
                      void (*each)(const nb_evaluating *, int64_t i, int64_t a, int64_t b)) {
    int64_t strides[2][NB_MAX_RANK], index[NB_MAX_RANK] = {0}, offsets[2] = {0},
                                     n = nb_tensor_count(e->out);
    nb_broadcast_strides(&e->in[0], e->out, strides[0]);
    nb_broadcast_strides(&e->in[1], e->out, strides[1]);
    for (int64_t i = 0; i < n; i++) {
        each(e, i, offsets[0], offsets[1]);
        nb_step(e->out, index, 2, offsets, strides);
    }
}

/* A bool may be any byte. */
static int64_t get_int(const nb_tensor *t, int64_t i) {
    int64_t x = nb_tensor_get_int(t, i);
    return t->elem == NB_BOOL ? x != 0 : x;
}

void nb_eval_pair(nb_op_kind kind, const nb_tensor *a, int64_t ia, const nb_tensor *b, int64_t ib,
                  nb_tensor *out, int64_t i) {
    if (a->elem == NB_F64) {
        nb_tensor_set_float(out, i, binary_f64(kind, nb_tensor_get(a, ia), nb_tensor_get(b, ib)));
    } else if (nb_elem_is_float(a->elem)) {
        nb_tensor_set_float(
            out, i,
            (double)binary_f32(kind, (float)nb_tensor_get(a, ia), (float)nb_tensor_get(b, ib)));
    } else {
        int64_t x = get_int(a, ia), y = get_int(b, ib);
        nb_tensor_set_int(out, i,
                          a->elem == NB_U64 ? binary_u64(kind, x, y) : binary_signed(kind, x, y));
    }
}

static void binary_at(const nb_evaluating *e, int64_t i, int64_t ia, int64_t ib) {
    nb_eval_pair(e->op->kind, &e->in[0], ia, &e->in[1], ib, e->out, i);
}

nb_status nb_eval_binary(const nb_evaluating *e) {
    for_pairs(e, binary_at);
    return NB_OK;
}

static void compare_at(const nb_evaluating *e, int64_t i, int64_t ia, int64_t ib) {
    const nb_tensor *a = &e->in[0], *b = &e->in[1];
    bool less, equal;
    if (nb_elem_is_float(a->elem)) {
        double x = nb_tensor_get(a, ia), y = nb_tensor_get(b, ib);
        less = x < y;
        equal = x == y;
    } else {
        int64_t x = nb_tensor_get_int(a, ia), y = nb_tensor_get_int(b, ib);
        less = a->elem == NB_U64 ? (uint64_t)x < (uint64_t)y : x < y;
        equal = a->elem == NB_BOOL ? !x == !y : x == y;
    }
    nb_tensor_set_int(e->out, i,
                      e->op->kind == NB_OP_eq   ? equal
                      : e->op->kind == NB_OP_lt ? less
                                                : less || equal);
}

nb_status nb_eval_compare(const nb_evaluating *e) {
    for_pairs(e, compare_at);
    return NB_OK;
}

nb_status nb_eval_where(const nb_evaluating *e) {
    int64_t strides[3][NB_MAX_RANK], index[NB_MAX_RANK] = {0}, at[3] = {0},
                                     n = nb_tensor_count(e->out);
    for (int k = 0; k < 3; k++) nb_broadcast_strides(&e->in[k], e->out, strides[k]);
    for (int64_t i = 0; i < n; i++) {
        int k = nb_tensor_get_int(&e->in[0], at[0]) ? 1 : 2;
        if (e->out->elem == NB_F32)
            ((float *)e->out->data)[i] = ((const float *)e->in[k].data)[at[k]];
        else if (e->out->elem == NB_F64)
            ((double *)e->out->data)[i] = ((const double *)e->in[k].data)[at[k]];
        else
            nb_tensor_set_int(e->out, i,
                              nb_tensor_get_int(&e->in[k], at[k])); /* small floats: their bits */
        nb_step(e->out, index, 3, at, strides);
    }
    return NB_OK;
}

/* ---- cast ---------------------------------------------------------------------------------- */

nb_status nb_eval_bitcast(const nb_evaluating *e) {
    if (e->out->bytes) memcpy(e->out->data, e->in[0].data, (size_t)e->out->bytes);
    return NB_OK;
}

static int64_t to_integer(nb_elem to, double x) {
    if (x != x) return 0;
    if (to == NB_U64) return x <= 0 ? 0 : x >= 18446744073709551616.0 ? -1 : (int64_t)(uint64_t)x;
    if (x <= (double)nb_elem_min(to)) return nb_elem_min(to);
    if (x >= (double)nb_elem_max(to)) return nb_elem_max(to);
    return (int64_t)x;
}

/* Of an integer, rounded to f32. */
static double number_of(const nb_tensor *x, int64_t i) {
    if (nb_elem_is_float(x->elem)) return nb_tensor_get(x, i);
    int64_t whole = nb_tensor_get_int(x, i);
    return (double)(x->elem == NB_U64 ? (float)(uint64_t)whole : (float)whole);
}

nb_status nb_eval_cast(const nb_evaluating *e) {
    const nb_tensor *x = &e->in[0];
    nb_tensor *y = e->out;
    bool from_float = nb_elem_is_float(x->elem), to_float = nb_elem_is_float(y->elem);
    bool overflow = nb_attr_bool(e->op, "overflow") && to_float && nb_elems[y->elem].bits <= 8;
    int64_t n = nb_tensor_count(x);
    for (int64_t i = 0; i < n; i++) {
        if (overflow)
            nb_elem_put(y->elem, y->data, i,
                        nb_float_encode_overflow(y->elem, (float)number_of(x, i)));
        else if (y->elem == NB_BOOL)
            nb_tensor_set_int(y, i,
                              from_float ? nb_tensor_get(x, i) != 0 : nb_tensor_get_int(x, i) != 0);
        else if (y->elem == NB_F64)
            nb_tensor_set_float(y, i, nb_tensor_get(x, i));
        else if (to_float)
            nb_tensor_set_float(y, i, number_of(x, i));
        else if (from_float)
            nb_tensor_set_int(y, i, to_integer(y->elem, nb_tensor_get(x, i)));
        else
            nb_tensor_set_int(
                y, i, x->elem == NB_BOOL ? nb_tensor_get_int(x, i) != 0 : nb_tensor_get_int(x, i));
    }
    return NB_OK;
}
