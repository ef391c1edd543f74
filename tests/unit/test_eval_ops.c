/* Elementwise ops, casts and data movement: small cases worked out by hand. */
#include "tests/unit/test_eval_graph.h"

#include <math.h>

static eval_graph t;
static void open_graph(void) { eval_open(&t); }
static void close_graph(void) { eval_close(&t); }

#define VECTOR(elem, ...) \
    eval_const(&t, elem, NULL, DIMS((int64_t)NB_COUNT(((double[]){__VA_ARGS__}))), __VA_ARGS__)
#define F32(...)         VECTOR(NB_F32, __VA_ARGS__)
#define UNARY(op, x)     nb_unary(&t.b, NB_OP_##op, x)
#define BINARY(op, x, y) nb_binary(&t.b, NB_OP_##op, x, y)

/* ---- one operand --------------------------------------------------------------------------- */

START_TEST(unary_floats) {
    nb_value *x = F32(-2.5, -0.0, 0, 0.5, 1.5, INFINITY, NAN);
    eval_expect(&t, UNARY(neg, x), "2.5 0 -0 -0.5 -1.5 -inf nan");
    eval_expect(&t, UNARY(abs, x), "2.5 0 0 0.5 1.5 inf nan");
    eval_expect(&t, UNARY(sign, x), "-1 0 0 1 1 1 nan");
    eval_expect(&t, UNARY(relu, x), "0 -0 0 0.5 1.5 inf nan");
    eval_expect(&t, UNARY(floor, x), "-3 -0 0 0 1 inf nan");
    eval_expect(&t, UNARY(ceil, x), "-2 -0 0 1 2 inf nan");
    eval_expect(&t, UNARY(round, x), "-2 -0 0 0 2 inf nan");
    eval_expect(&t, UNARY(reciprocal, F32(4, 0, -0.0, INFINITY)), "0.25 inf -inf 0");
    eval_expect(&t, UNARY(sqrt, F32(4, -0.0, -1, INFINITY)), "2 -0 nan inf");
    eval_expect(&t, UNARY(exp, F32(0, -INFINITY, INFINITY)), "1 0 inf");
    eval_expect(&t, UNARY(log, F32(1, 0, -1)), "0 -inf nan");
    eval_expect(&t, UNARY(sin, F32(0, NAN)), "0 nan");
    eval_expect(&t, UNARY(cos, F32(0, INFINITY)), "1 nan");
}
END_TEST

START_TEST(unary_activations) {
    nb_value *x = F32(0, 200, -200, INFINITY, NAN);
    eval_expect(&t, UNARY(sigmoid, x), "0.5 1 0 1 nan");
    eval_expect(&t, UNARY(tanh, x), "0 1 -1 1 nan");
    eval_expect(&t, UNARY(erf, x), "0 1 -1 1 nan");
    eval_expect(&t, UNARY(silu, x), "0 200 -0 inf nan");
    eval_expect(&t, UNARY(gelu, x), "0 200 -0 inf nan");
    eval_expect(&t, UNARY(gelu_tanh, x), "0 200 -0 inf nan");
    eval_expect(&t, UNARY(softplus, F32(200, -200, INFINITY, NAN)), "200 0 inf nan");
    /* minus infinity times zero */
    eval_expect(&t, UNARY(silu, F32(-INFINITY)), "nan");
}
END_TEST

START_TEST(unary_integers) {
    eval_expect(&t, UNARY(neg, VECTOR(NB_I8, -128, 5)), "-128 -5");
    eval_expect(&t, UNARY(abs, VECTOR(NB_I8, -128, -5)), "-128 5");
    eval_expect(&t, UNARY(abs, VECTOR(NB_U8, 200)), "200");
    eval_expect(&t, UNARY(sign, VECTOR(NB_I64, -7, 0, 9)), "-1 0 1");
    eval_expect(&t, UNARY(sign, VECTOR(NB_U16, 0, 65535)), "0 1");
    eval_expect(&t, UNARY(relu, VECTOR(NB_I32, -7, 9)), "0 9");
    eval_expect(&t, UNARY(not, VECTOR(NB_BOOL, 0, 1)), "1 0");
    eval_expect(&t, UNARY(not, VECTOR(NB_U8, 0, 1, 254)), "255 254 1");
    eval_expect(&t, UNARY(not, VECTOR(NB_I32, 0, -8)), "-1 7");
}
END_TEST

/* ---- two operands -------------------------------------------------------------------------- */

START_TEST(binary_floats) {
    nb_value *a = F32(1, -0.0, NAN, 0), *b = F32(2, 0, 1, -0.0);
    eval_expect(&t, BINARY(add, a, b), "3 0 nan 0");
    eval_expect(&t, BINARY(sub, a, b), "-1 -0 nan 0");
    eval_expect(&t, BINARY(div, a, b), "0.5 nan nan nan");
    eval_expect(&t, BINARY(min, a, b), "1 -0 nan -0");
    eval_expect(&t, BINARY(max, a, b), "2 0 nan 0");
    eval_expect(&t, BINARY(mod, F32(5, -5, 5, 1), F32(3, 3, -3, 0)), "2 -2 2 nan");
    eval_expect(&t, BINARY(lt, a, b), "1 0 0 0");
    eval_expect(&t, BINARY(le, a, b), "1 1 0 1");
    eval_expect(&t, BINARY(eq, a, b), "0 1 0 1");
}
END_TEST

START_TEST(powers) {
    nb_value *a = F32(3, 2, -3, 9, NAN, -8, 0), *b = F32(2, -1, 1, 0.5, 0, 0.5, 0);
    eval_expect(&t, BINARY(pow, a, b), "9 0.5 -3 3 1 nan 1");
    /* squared with one rounding, not through a logarithm */
    eval_expect(&t, BINARY(pow, F32(1.0001), F32(2)), "1.00020003");
    eval_expect(
        &t, BINARY(pow, VECTOR(NB_I64, 3, 2, -1, 1, -2, 0), VECTOR(NB_I64, 4, -1, -3, -5, 63, 0)),
        "81 0 -1 1 -9223372036854775808 1");
    eval_expect(&t, BINARY(pow, VECTOR(NB_U8, 3), VECTOR(NB_U8, 6)), "217"); /* 729 - 512 */
}
END_TEST

START_TEST(binary_integers) {
    nb_value *a = VECTOR(NB_I8, 127, -128, -7, 7, -7, 5), *b = VECTOR(NB_I8, 1, -1, 2, -2, -2, 0);
    eval_expect(&t, BINARY(add, a, b), "-128 127 -5 5 -9 5");
    eval_expect(&t, BINARY(mul, a, b), "127 -128 -14 -14 14 0");
    eval_expect(&t, BINARY(div, a, b), "127 -128 -3 -3 3 0");
    eval_expect(&t, BINARY(mod, a, b), "0 0 1 -1 -1 0");
    eval_expect(&t, BINARY(add, VECTOR(NB_U8, 250), VECTOR(NB_U8, 10)), "4");
    eval_expect(&t, BINARY(sub, VECTOR(NB_U32, 0), VECTOR(NB_U32, 1)), "4294967295");
    nb_value *big = BINARY(sub, VECTOR(NB_U64, 0), VECTOR(NB_U64, 1)), *two = VECTOR(NB_U64, 2);
    eval_expect(&t, BINARY(div, big, two), "9223372036854775807");
    eval_expect(&t, BINARY(mod, big, two), "1");
    eval_expect(&t, BINARY(max, big, two), "18446744073709551615");
    eval_expect(&t, BINARY(lt, two, big), "1");
    eval_expect(&t, BINARY(xor, VECTOR(NB_BOOL, 0, 1, 1), VECTOR(NB_BOOL, 1, 1, 0)), "1 0 1");
    eval_expect(&t, BINARY(and, VECTOR(NB_BOOL, 0, 1), VECTOR(NB_BOOL, 1, 1)), "0 1");
    eval_expect(&t, BINARY(or, VECTOR(NB_BOOL, 0, 0), VECTOR(NB_BOOL, 1, 0)), "1 0");
}
END_TEST

START_TEST(small_floats_round_once) {
    /* f16 has 11 bits: 2049 and 2051 lie half way. bf16 has 8. */
    nb_value *one = VECTOR(NB_F16, 1, 3);
    eval_expect(&t, BINARY(add, VECTOR(NB_F16, 2048, 2048), one), "2048 2052");
    eval_expect(&t, BINARY(mul, VECTOR(NB_F16, 60000), VECTOR(NB_F16, 2)), "inf");
    eval_expect(&t, BINARY(add, VECTOR(NB_BF16, 256), VECTOR(NB_BF16, 1)), "256");
    eval_expect(&t, BINARY(add, VECTOR(NB_F64, 1), VECTOR(NB_F64, 1e-15)), "1.000000000000001");
    eval_expect(&t, UNARY(exp, VECTOR(NB_F16, 0, -20)), "1 0");
    eval_expect(&t, BINARY(add, VECTOR(NB_F8E4M3FN, 16), VECTOR(NB_F8E4M3FN, 1)), "16");
}
END_TEST

START_TEST(broadcasts) {
    nb_value *column = eval_f32(&t, DIMS(2, 1), 10, 20), *row = F32(1, 2, 3);
    eval_expect(&t, BINARY(add, column, row), "11 12 13 21 22 23");
    eval_expect(&t, BINARY(sub, row, column), "-9 -8 -7 -19 -18 -17");
    eval_expect(&t, BINARY(mul, eval_f32(&t, SCALAR, 2), row), "2 4 6");
    eval_expect(&t, BINARY(add, eval_f32(&t, SCALAR, 2), eval_f32(&t, SCALAR, 3)), "5");
    nb_value *none = eval_value(&t, NB_F32, NULL, DIMS(0, 1), 0, NULL);
    eval_expect(&t, BINARY(add, none, row), "");
    nb_begin(&t.b, NB_OP_where);
    nb_arg(&t.b, eval_const(&t, NB_BOOL, NULL, DIMS(2, 1), 1, 0));
    nb_arg(&t.b, row);
    nb_arg(&t.b, eval_f32(&t, SCALAR, -1));
    eval_expect(&t, nb_end(&t.b), "1 2 3 -1 -1 -1");
}
END_TEST

START_TEST(casts) {
    nb_value *x = F32(-300, -1.9, 1.9, 300, NAN, INFINITY);
    eval_expect(&t, nb_cast(&t.b, x, NB_I8), "-128 -1 1 127 0 127");
    eval_expect(&t, nb_cast(&t.b, x, NB_U8), "0 0 1 255 0 255");
    eval_expect(&t, nb_cast(&t.b, x, NB_I4), "-8 -1 1 7 0 7");
    eval_expect(&t, nb_cast(&t.b, x, NB_BOOL), "1 1 1 1 1 1");
    eval_expect(&t, nb_cast(&t.b, F32(0, -0.0), NB_BOOL), "0 0");
    eval_expect(&t, nb_cast(&t.b, F32(1e30, -1e30), NB_I64),
                "9223372036854775807 -9223372036854775808");
    eval_expect(&t, nb_cast(&t.b, F32(1e30, -1), NB_U64), "18446744073709551615 0");
    eval_expect(&t, nb_cast(&t.b, F32(1e6, 500, -1e6), NB_F8E4M3FN), "448 448 -448");
    eval_expect(&t, nb_cast(&t.b, F32(1e6, 65520, 65519), NB_F16), "inf inf 65504");
    eval_expect(&t, nb_cast(&t.b, VECTOR(NB_I32, 16777217, -1), NB_F32), "16777216 -1");
    eval_expect(&t, nb_cast(&t.b, VECTOR(NB_I32, 300, -1), NB_U8), "44 255"); /* wraps */
    eval_expect(&t, nb_cast(&t.b, VECTOR(NB_BOOL, 0, 1), NB_F32), "0 1");
    eval_expect(&t, nb_cast(&t.b, VECTOR(NB_F64, 0.1), NB_F32), "0.1");
}
END_TEST

/* ---- movement ------------------------------------------------------------------------------ */

static nb_value *slice(nb_value *x, const int64_t *start, const int64_t *count,
                       const int64_t *step) {
    const nb_dim *s[NB_MAX_RANK] = {0}, *n[NB_MAX_RANK] = {0};
    size_t rank = (size_t)x->type->rank;
    for (size_t d = 0; d < rank; d++) {
        s[d] = nb_dim_const(t.graph, start[d]);
        n[d] = nb_dim_const(t.graph, count[d]);
    }
    nb_begin(&t.b, NB_OP_slice);
    nb_arg(&t.b, x);
    nb_set_dims(&t.b, "start", rank, s);
    nb_set_dims(&t.b, "count", rank, n);
    nb_set_ints(&t.b, "step", rank, step);
    return nb_end(&t.b);
}

#define I(...) ((const int64_t[]){__VA_ARGS__})

START_TEST(slices) {
    nb_value *x = eval_f32(&t, DIMS(2, 4), 0, 1, 2, 3, 4, 5, 6, 7);
    eval_expect(&t, slice(x, I(0, 1), I(2, 2), I(1, 2)), "1 3 5 7");
    eval_expect(&t, slice(x, I(1, 3), I(2, 4), I(-1, -1)), "7 6 5 4 3 2 1 0");
    eval_expect(&t, slice(x, I(0, 3), I(1, 2), I(1, -3)), "3 0");
    eval_expect(&t, slice(x, I(0, 0), I(2, 0), I(1, 1)), "");
    eval_expect(&t, slice(x, I(1, 2), I(1, 1), I(INT64_MAX, INT64_MIN)), "6");
}
END_TEST

static nb_value *gather(nb_value *x, nb_value *index, int64_t axis) {
    nb_begin(&t.b, NB_OP_gather);
    nb_arg(&t.b, x);
    nb_arg(&t.b, index);
    nb_set_int(&t.b, "axis", axis);
    return nb_end(&t.b);
}

START_TEST(gathers) {
    nb_value *x = eval_f32(&t, DIMS(3, 2), 0, 1, 2, 3, 4, 5);
    eval_expect(&t, gather(x, VECTOR(NB_I64, 2, -3, -1), 0), "4 5 0 1 4 5");
    eval_expect(&t, gather(x, VECTOR(NB_I32, -1), 1), "1 3 5");
    eval_expect(&t, gather(x, eval_const(&t, NB_I64, NULL, SCALAR, 1), 0), "2 3");
    eval_expect(&t, gather(x, eval_value(&t, NB_I64, NULL, DIMS(0), 0, NULL), 0), "");
    eval_expect(&t, gather(VECTOR(NB_U4, 1, 2, 15), VECTOR(NB_U8, 2, 0), 0), "15 1");
    eval_expect_error(&t, gather(x, VECTOR(NB_I64, 0, 3), 0),
                      "/under/test: error: gather: index 3 is outside an axis of length 3");
    eval_expect_error(&t, gather(x, VECTOR(NB_I64, -4), 0), "index -4");
}
END_TEST

static nb_value *so_far(nb_op_kind kind, nb_value *x, int64_t axis) {
    nb_begin(&t.b, kind);
    nb_arg(&t.b, x);
    nb_set_int(&t.b, "axis", axis);
    return nb_end(&t.b);
}

static nb_value *cumsum(nb_value *x, int64_t axis) { return so_far(NB_OP_cumsum, x, axis); }

START_TEST(products_so_far) {
    nb_value *x = eval_f32(&t, DIMS(2, 3), 1, 2, 3, 4, 5, 6);
    eval_expect(&t, so_far(NB_OP_cumprod, x, 0), "1 2 3 4 10 18");
    eval_expect(&t, so_far(NB_OP_cumprod, x, 1), "1 2 6 4 20 120");
    eval_expect(&t, so_far(NB_OP_cumprod, VECTOR(NB_U8, 20, 20, 2), 0), "20 144 32");
    eval_expect(&t, so_far(NB_OP_cumprod, VECTOR(NB_F64, 3, 0.5, -2), 0), "3 1.5 -3");
}
END_TEST

START_TEST(sums_so_far) {
    nb_value *x = eval_f32(&t, DIMS(2, 3), 1, 2, 3, 4, 5, 6);
    eval_expect(&t, cumsum(x, 0), "1 2 3 5 7 9");
    eval_expect(&t, cumsum(x, 1), "1 3 6 4 9 15");
    eval_expect(&t, cumsum(VECTOR(NB_U8, 200, 100, 1), 0), "200 44 45");
    /* 2049 is no f16, but the sum goes on from it */
    eval_expect(&t, cumsum(VECTOR(NB_F16, 2048, 1, 1), 0), "2048 2048 2050");
    eval_expect(&t, cumsum(VECTOR(NB_F64, 9007199254740992.0, 1, 2), 0),
                "9007199254740992 9007199254740992 9007199254740994");
}
END_TEST

static nb_value *topk(nb_value *x, int64_t axis, int64_t k, bool smallest, int result) {
    const nb_dim *count = nb_dim_const(t.graph, k);
    nb_begin(&t.b, NB_OP_topk);
    nb_arg(&t.b, x);
    nb_set_int(&t.b, "axis", axis);
    nb_set_dims(&t.b, "count", 1, &count);
    nb_set_bool(&t.b, "smallest", smallest);
    nb_end(&t.b);
    return t.b.op->results[result];
}

START_TEST(largest_and_smallest) {
    nb_value *x = F32(3, -1, NAN, 3, INFINITY, -0.0, 0);
    eval_expect(&t, topk(x, 0, 4, false, 0), "nan inf 3 3");
    eval_expect(&t, topk(x, 0, 4, false, 1), "2 4 0 3");
    eval_expect(&t, topk(x, 0, 7, true, 1), "1 5 6 0 3 4 2");
    eval_expect(&t, topk(x, 0, 0, true, 1), "");
    nb_value *table = eval_f32(&t, DIMS(3, 2), 1, 9, 5, 8, 3, 7);
    eval_expect(&t, topk(table, 0, 2, false, 0), "5 9 3 8");
    eval_expect(&t, topk(table, 0, 2, false, 1), "1 0 2 1");
    eval_expect(&t, topk(VECTOR(NB_U8, 200, 7, 255), 0, 2, true, 0), "7 200");
}
END_TEST

static nb_value *scatter(nb_op_kind kind, nb_value *x, nb_value *index, nb_value *updates) {
    nb_begin(&t.b, kind);
    nb_arg(&t.b, x);
    nb_arg(&t.b, index);
    nb_arg(&t.b, updates);
    return nb_end(&t.b);
}

START_TEST(scatters) {
    nb_value *x = eval_f32(&t, DIMS(3, 2), 0, 1, 2, 3, 4, 5), *index = VECTOR(NB_I64, 2, -3, 2),
             *updates = eval_f32(&t, DIMS(3, 2), 10, 2, 30, 4, 50, 6);
    eval_expect(&t, scatter(NB_OP_scatter, x, index, updates), "30 4 2 3 50 6");
    eval_expect(&t, scatter(NB_OP_scatter_add, x, index, updates), "30 5 2 3 64 13");
    eval_expect(&t, scatter(NB_OP_scatter_mul, x, index, updates), "0 4 2 3 2000 60");
    eval_expect(&t, scatter(NB_OP_scatter_min, x, index, updates), "0 1 2 3 4 2");
    eval_expect(&t, scatter(NB_OP_scatter_max, x, index, updates), "30 4 2 3 50 6");
    eval_expect(&t,
                scatter(NB_OP_scatter, VECTOR(NB_BOOL, 0, 1), VECTOR(NB_I8, 0), VECTOR(NB_BOOL, 1)),
                "1 1");
    eval_expect_error(&t, scatter(NB_OP_scatter, x, VECTOR(NB_I64, 0, 3, 1), updates),
                      "scatter: index 3 is outside an axis of length 3");
}
END_TEST

START_TEST(bits) {
    nb_value *a = VECTOR(NB_U8, 12, 255), *b = VECTOR(NB_U8, 10, 15);
    eval_expect(&t, BINARY(and, a, b), "8 15");
    eval_expect(&t, BINARY(or, a, b), "14 255");
    eval_expect(&t, BINARY(xor, a, b), "6 240");
}
END_TEST

START_TEST(shapes) {
    nb_value *x = eval_f32(&t, DIMS(2, 3), 0, 1, 2, 3, 4, 5);
    eval_expect(&t, nb_transpose(&t.b, x, I(1, 0)), "0 3 1 4 2 5");
    const nb_dim *three_two[] = {nb_dim_const(t.graph, 3), nb_dim_const(t.graph, 2)};
    eval_expect(&t, nb_reshape(&t.b, x, 2, three_two), "0 1 2 3 4 5");
    const nb_dim *wide[] = {nb_dim_const(t.graph, 2), three_two[0], three_two[1]};
    nb_begin(&t.b, NB_OP_expand);
    nb_arg(&t.b, eval_f32(&t, DIMS(3, 1), 1, 2, 3));
    nb_set_dims(&t.b, "shape", 3, wide);
    eval_expect(&t, nb_end(&t.b), "1 1 2 2 3 3 1 1 2 2 3 3");
    nb_begin(&t.b, NB_OP_concat);
    nb_arg(&t.b, x);
    nb_arg(&t.b, eval_f32(&t, DIMS(2, 1), 8, 9));
    nb_arg(&t.b, eval_value(&t, NB_F32, NULL, DIMS(2, 0), 0, NULL));
    nb_set_int(&t.b, "axis", 1);
    eval_expect(&t, nb_end(&t.b), "0 1 2 8 3 4 5 9");
}
END_TEST

START_TEST(pads) {
    const nb_dim *before[] = {nb_dim_const(t.graph, 1), nb_dim_const(t.graph, 0)};
    const nb_dim *after[] = {nb_dim_const(t.graph, 0), nb_dim_const(t.graph, 1)};
    const nb_dim *minus[] = {nb_dim_const(t.graph, -1), nb_dim_const(t.graph, 0)};
    nb_value *x = eval_f32(&t, DIMS(2, 2), 1, 2, 3, 4);
    for (int i = 0; i < 3; i++) {
        nb_begin(&t.b, NB_OP_pad);
        nb_arg(&t.b, x);
        nb_arg(&t.b, i == 1 ? eval_f32(&t, SCALAR, 9) : NULL);
        nb_set_dims(&t.b, "before", 2, i == 2 ? minus : before);
        nb_set_dims(&t.b, "after", 2, after);
        nb_value *y = nb_end(&t.b);
        if (i == 0) eval_expect(&t, y, "0 0 0 1 2 0 3 4 0");
        if (i == 1) eval_expect(&t, y, "9 9 9 1 2 9 3 4 9");
        if (i == 2) eval_expect_error(&t, y, "axis 0 would get -1 elements before");
    }
}
END_TEST

START_TEST(counts) {
    const nb_dim *five[] = {nb_dim_const(t.graph, 5)}, *three[] = {nb_dim_const(t.graph, 3)};
    nb_begin(&t.b, NB_OP_iota);
    nb_set_dims(&t.b, "start", 1, five);
    nb_set_dims(&t.b, "count", 1, three);
    nb_set_int(&t.b, "step", -2);
    eval_expect(&t, nb_end(&t.b), "5 3 1");
    nb_begin(&t.b, NB_OP_dims);
    nb_set_dims(&t.b, "values", 1, five);
    nb_set_bool(&t.b, "scalar", true);
    eval_expect(&t, nb_end(&t.b), "5");
}
END_TEST

Suite *nb_suite_eval_ops(void) {
    Suite *suite = suite_create("eval_ops");
    TCase *tests = tcase_create("eval_ops");
    tcase_add_checked_fixture(tests, open_graph, close_graph);
    tcase_add_test(tests, unary_floats);
    tcase_add_test(tests, unary_activations);
    tcase_add_test(tests, unary_integers);
    tcase_add_test(tests, binary_floats);
    tcase_add_test(tests, powers);
    tcase_add_test(tests, binary_integers);
    tcase_add_test(tests, small_floats_round_once);
    tcase_add_test(tests, broadcasts);
    tcase_add_test(tests, casts);
    tcase_add_test(tests, slices);
    tcase_add_test(tests, gathers);
    tcase_add_test(tests, sums_so_far);
    tcase_add_test(tests, products_so_far);
    tcase_add_test(tests, largest_and_smallest);
    tcase_add_test(tests, scatters);
    tcase_add_test(tests, bits);
    tcase_add_test(tests, shapes);
    tcase_add_test(tests, pads);
    tcase_add_test(tests, counts);
    suite_add_tcase(suite, tests);
    return suite;
}
