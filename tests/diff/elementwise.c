/* Elementwise families: every op and element type, lengths around 16, broadcast forms, random
 * graphs. */
#include "tests/diff/diff.h"

static const int64_t lengths[] = {0, 1, 3, 15, 16, 17, 33, 1100};

static const nb_elem floats[] = {NB_F32, NB_F16, NB_BF16};
static const nb_elem numbers[] = {NB_F32, NB_F16, NB_BF16, NB_F64, NB_I64, NB_I32, NB_I16,
                                  NB_I8,  NB_U64, NB_U32,  NB_U16, NB_U8,  NB_BOOL};

static bool fits(nb_op_kind kind, nb_elem elem) {
    bool number = nb_elem_is_float(elem) || nb_elem_is_integer(elem);
    switch (kind) {
    case NB_OP_neg:
    case NB_OP_abs:
    case NB_OP_sign:
    case NB_OP_relu:
    case NB_OP_add:
    case NB_OP_sub:
    case NB_OP_mul:
    case NB_OP_div:
    case NB_OP_pow:
    case NB_OP_min:
    case NB_OP_max:
    case NB_OP_mod:
    case NB_OP_lt:
    case NB_OP_le:
        return number;
    case NB_OP_eq:
        return true;
    case NB_OP_not:
    case NB_OP_and:
    case NB_OP_or:
    case NB_OP_xor:
        return elem == NB_BOOL || nb_elem_is_integer(elem);
    default:
        return nb_elem_is_float(elem);
    }
}

/* Lengths known when compiling, and not. */
static void unary_op(nb_op_kind kind, nb_elem elem, int64_t length) {
    diff d;
    diff_begin(&d, "%s %s[%lld]", nb_ops[kind].name, nb_elems[elem].text, (long long)length);
    d.lengths = lengths;
    d.n_lengths = length < 0 ? NB_COUNT(lengths) : 0;
    nb_value *x = diff_input(&d, elem, 1, &length);
    diff_check(&d, nb_unary(&d.b, kind, x));
}

static void unary_ops(void) {
    for (nb_op_kind kind = NB_OP_neg; kind <= NB_OP_not; kind++) {
        for (size_t e = 0; e < NB_COUNT(numbers); e++) {
            if (!fits(kind, numbers[e])) continue;
            unary_op(kind, numbers[e], -1);
            if (numbers[e] == NB_F32) unary_op(kind, numbers[e], 33);
        }
    }
}

static void binary_ops(void) {
    for (nb_op_kind kind = NB_OP_add; kind <= NB_OP_le; kind++) {
        for (size_t e = 0; e < NB_COUNT(numbers); e++) {
            if (!fits(kind, numbers[e])) continue;
            const int64_t n = -1;
            diff d;
            diff_begin(&d, "%s %s", nb_ops[kind].name, nb_elems[numbers[e]].text);
            d.lengths = lengths;
            d.n_lengths = NB_COUNT(lengths);
            nb_value *a = diff_input(&d, numbers[e], 1, &n);
            nb_value *b = diff_input(&d, numbers[e], 1, &n);
            diff_check(&d, nb_binary(&d.b, kind, a, b));
        }
    }
}

static void powers(void) {
    static const float exponents[] = {2, 0.5F, 1, 0, -1, 3, 1.5F};
    for (size_t i = 0; i < NB_COUNT(exponents); i++) {
        diff d;
        diff_begin(&d, "pow f32[50] by %g", (double)exponents[i]);
        nb_value *x = diff_input(&d, NB_F32, 1, (int64_t[]){50});
        nb_value *y = nb_const_f32(d.graph, "e", 0, NULL, &exponents[i]);
        diff_check(&d, nb_binary(&d.b, NB_OP_pow, x, y));
    }
}

typedef struct form {
    int a_rank, b_rank;
    int64_t a[4], b[4];
} form;

static const form forms[] = {
    {0, 0, {0}, {0}},
    {1, 0, {33}, {0}},
    {0, 2, {0}, {3, 17}},
    {2, 1, {5, 16}, {16}},
    {2, 2, {5, 1}, {1, 7}},
    {2, 2, {1, 33}, {4, 33}},
    {3, 3, {2, 3, 4}, {2, 1, 4}},
    {3, 2, {2, 3, 1}, {3, 19}},
    {4, 4, {2, 1, 3, 1}, {1, 5, 1, 18}},
    {4, 1, {2, 3, 4, 5}, {1}},
    {4, 3, {2, 3, 4, 5}, {3, 1, 1}},
    {3, 3, {0, 3, 4}, {1, 3, 4}},
    {2, 2, {-1, 20}, {-1, 1}},
    {3, 2, {-1, -2, 6}, {-2, 6}},
    {3, 3, {-1, 1, 3}, {1, -2, 3}},
};

static void broadcasts(void) {
    for (size_t i = 0; i < NB_COUNT(forms); i++) {
        for (int constant = 0; constant < 2; constant++) {
            const form *f = &forms[i];
            bool symbolic = false;
            for (int k = 0; k < f->b_rank; k++) symbolic = symbolic || f->b[k] < 0;
            if (constant && symbolic) continue;
            diff d;
            diff_begin(&d, "sub, broadcast form %zu%s", i, constant ? ", constant" : "");
            d.symbols[0] = 3;
            d.symbols[1] = 2;
            nb_value *a = diff_input(&d, NB_F32, f->a_rank, f->a);
            nb_value *b = constant ? diff_const(&d, NB_F32, f->b_rank, f->b)
                                   : diff_input(&d, NB_F32, f->b_rank, f->b);
            diff_check(&d, nb_binary(&d.b, NB_OP_sub, a, b));
        }
    }
}

static void wheres(void) {
    for (size_t e = 0; e < NB_COUNT(numbers); e++) {
        diff d;
        diff_begin(&d, "where %s", nb_elems[numbers[e]].text);
        nb_value *c = diff_input(&d, NB_BOOL, 2, (int64_t[]){3, 1});
        nb_value *a = diff_input(&d, numbers[e], 1, (int64_t[]){21});
        nb_value *b = diff_input(&d, numbers[e], 2, (int64_t[]){3, 21});
        nb_begin(&d.b, NB_OP_where);
        nb_arg(&d.b, c);
        nb_arg(&d.b, a);
        nb_arg(&d.b, b);
        diff_check(&d, nb_end(&d.b));
    }
}

/* To every type at once; the harness has room for eight outputs. */
static void casts(void) {
    for (size_t from = 0; from < NB_COUNT(numbers); from++) {
        for (size_t first = 0; first < NB_COUNT(numbers); first += DIFF_MAX_PORTS) {
            diff d;
            diff_begin(&d, "cast %s", nb_elems[numbers[from]].text);
            nb_value *x = diff_input(&d, numbers[from], 1, (int64_t[]){250}), *ys[DIFF_MAX_PORTS];
            size_t n = 0;
            for (size_t to = first; to < NB_COUNT(numbers) && n < DIFF_MAX_PORTS; to++)
                ys[n++] = nb_cast(&d.b, x, numbers[to]);
            diff_check_all(&d, n, ys);
        }
    }
}

static nb_value *retyped(diff *d, nb_op_kind kind, nb_value *x, nb_elem to, bool overflow) {
    nb_begin(&d->b, kind);
    nb_arg(&d->b, x);
    nb_set_elem(&d->b, "to", to);
    if (overflow) nb_set_bool(&d->b, "overflow", true);
    return nb_end(&d->b);
}

/* Through f8, and through packed elements, from numbers and back; and all codes of f8. */
static void small_casts(void) {
    static const nb_elem small[] = {NB_F8E4M3FN, NB_F8E4M3FNUZ, NB_F8E5M2, NB_F8E5M2FNUZ, NB_F8E8M0,
                                    NB_F4E2M1,   NB_I4,         NB_U4,     NB_I2,         NB_U2};
    static const nb_elem ends[] = {NB_F32, NB_F16, NB_F64, NB_I32, NB_I8, NB_U64, NB_BOOL};
    for (size_t s = 0; s < NB_COUNT(small); s++) {
        for (size_t e = 0; e < NB_COUNT(ends); e++) {
            const int64_t n = -1;
            diff d;
            diff_begin(&d, "cast %s through %s", nb_elems[ends[e]].text, nb_elems[small[s]].text);
            d.lengths = lengths;
            d.n_lengths = NB_COUNT(lengths);
            nb_value *x = diff_input(&d, ends[e], 1, &n), *ys[DIFF_MAX_PORTS];
            size_t n_ys = 0;
            bool f8 = nb_elems[small[s]].bits == 8;
            for (int overflow = 0; overflow <= (f8 ? 1 : 0); overflow++) {
                nb_value *y = retyped(&d, NB_OP_cast, x, small[s], overflow != 0);
                if (f8) ys[n_ys++] = retyped(&d, NB_OP_bitcast, y, NB_U8, false);
                ys[n_ys++] = nb_cast(&d.b, y, NB_F32);
                ys[n_ys++] = nb_cast(&d.b, y, ends[e]);
            }
            diff_check_all(&d, n_ys, ys);
        }
        if (nb_elems[small[s]].bits != 8) continue;
        diff d;
        diff_begin(&d, "codes of %s", nb_elems[small[s]].text);
        nb_value *x = diff_input(&d, NB_U8, 1, (int64_t[]){1100}), *ys[2];
        nb_value *codes = retyped(&d, NB_OP_bitcast, x, small[s], false);
        ys[0] = nb_cast(&d.b, codes, NB_F32);
        ys[1] = nb_cast(&d.b, codes, NB_I64);
        diff_check_all(&d, 2, ys);
    }
}

static void bitcasts(void) {
    static const nb_elem pairs[][2] = {
        {NB_F32, NB_I32}, {NB_U64, NB_F64}, {NB_F16, NB_U16}, {NB_I16, NB_BF16}, {NB_I8, NB_U8}};
    for (size_t i = 0; i < NB_COUNT(pairs); i++) {
        const int64_t n = -1;
        diff d;
        diff_begin(&d, "bitcast %s to %s", nb_elems[pairs[i][0]].text, nb_elems[pairs[i][1]].text);
        d.lengths = lengths;
        d.n_lengths = NB_COUNT(lengths);
        nb_value *x = diff_input(&d, pairs[i][0], 1, &n);
        diff_check(&d, retyped(&d, NB_OP_bitcast, x, pairs[i][1], false));
    }
}

/* A dozen random ops over values of a few broadcastable shapes. */
static void random_graph(int number) {
    static const nb_op_kind kinds[] = {NB_OP_add, NB_OP_sub,     NB_OP_mul,  NB_OP_div, NB_OP_min,
                                       NB_OP_max, NB_OP_neg,     NB_OP_abs,  NB_OP_exp, NB_OP_sqrt,
                                       NB_OP_erf, NB_OP_sigmoid, NB_OP_gelu, NB_OP_silu};
    diff d;
    diff_begin(&d, "random graph %d", number);
    d.plain = diff_below(2);
    d.symbols[0] = diff_below(40);
    const nb_elem elem = floats[diff_below(3)];
    nb_value *values[24];
    size_t n = 0;
    values[n++] = diff_input(&d, elem, 2, (int64_t[]){-1, 19});
    values[n++] = diff_input(&d, elem, 1, (int64_t[]){19});
    values[n++] = diff_input(&d, elem, 2, (int64_t[]){-1, 1});
    values[n++] = diff_const(&d, elem, 0, NULL);
    values[n++] = diff_const(&d, elem, 2, (int64_t[]){1, 19});
    while (n < NB_COUNT(values)) {
        nb_op_kind kind = kinds[diff_below((int64_t)NB_COUNT(kinds))];
        nb_value *a = values[diff_below((int64_t)n)], *b = values[diff_below((int64_t)n)];
        values[n] = nb_ops[kind].operands[1].mode == NB_OPERAND_END ? nb_unary(&d.b, kind, a)
                                                                    : nb_binary(&d.b, kind, a, b);
        n++;
    }
    diff_check_all(&d, 3, &values[n - 3]);
}

static nb_value *where_of(diff *d, nb_value *cond, nb_value *a, nb_value *b) {
    nb_begin(&d->b, NB_OP_where);
    nb_arg(&d->b, cond);
    nb_arg(&d->b, a);
    nb_arg(&d->b, b);
    return nb_end(&d->b);
}

/* Ops that stay in registers (ir/chain.h): of several kinds and elements, with results that two of
 * them use, operands that repeat along any axis, and more of them than one chain has. */
static void chain(nb_elem elem) {
    static const int64_t columns[] = {1, 4, 1}, rows[] = {2, 4, -1};
    diff d;
    diff_begin(&d, "chain of %s", nb_elems[elem].text);
    d.lengths = lengths;
    d.n_lengths = NB_COUNT(lengths);
    nb_value *x = diff_input(&d, elem, 3, rows), *y = diff_input(&d, elem, 3, rows),
             *c = diff_const(&d, elem, 3, columns), *k = diff_const(&d, elem, 0, NULL);
    nb_value *s = nb_binary(&d.b, NB_OP_sub, nb_binary(&d.b, NB_OP_mul, x, k), c);
    nb_value *less = nb_binary(&d.b, NB_OP_lt, y, s),
             *same = nb_binary(&d.b, NB_OP_eq, s, nb_binary(&d.b, NB_OP_max, s, y));
    nb_value *v = where_of(&d, nb_binary(&d.b, NB_OP_and, less, nb_unary(&d.b, NB_OP_not, same)), s,
                           nb_binary(&d.b, NB_OP_div, y, s));
    nb_value *many = v;
    for (int i = 0; i < 40; i++) {
        many = nb_binary(&d.b, i % 3 ? NB_OP_add : NB_OP_min, many, i % 2 ? x : k);
        if (i % 7 == 0) many = nb_binary(&d.b, NB_OP_sub, diff_const(&d, elem, 3, columns), many);
    }
    diff_check_all(&d, 2, (nb_value *[]){nb_unary(&d.b, NB_OP_abs, v), many});
}

void diff_test_elementwise(void) {
    unary_ops();
    binary_ops();
    powers();
    broadcasts();
    wheres();
    casts();
    small_casts();
    bitcasts();
    for (int i = 0; i < 24; i++) random_graph(i);
    chain(NB_F32);
    chain(NB_F64);
    chain(NB_I64);
    chain(NB_U32);
    chain(NB_F16);
}
