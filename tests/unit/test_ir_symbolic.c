/* Integer tensors followed back to expressions over symbols. */
#include "ir/symbolic.h"
#include "tests/unit/test_ir.h"

static ir_graph t;
static void open_graph(void) { ir_open(&t); }
static void close_graph(void) { ir_close(&t); }

static nb_value *dims(const char *text) {
    nb_begin(&t.b, NB_OP_dims);
    ir_set_dims(&t, "values", text);
    return nb_end(&t.b);
}
static nb_value *number(int64_t n) { return nb_const_i64(t.graph, "n", 0, NULL, &n); }
static nb_value *binary(nb_op_kind kind, nb_value *a, nb_value *b) {
    nb_value *v = nb_binary(&t.b, kind, a, b);
    ck_assert_msg(v != NULL, "%s", ir_message(&t));
    return v;
}

/* "B,S+1": the elements of v; NULL: they depend on data. */
static void expect(const nb_value *v, const char *text) {
    ck_assert_msg(v != NULL, "%s", ir_message(&t));
    size_t n = 99;
    const nb_dim *const *found = nb_symbolic(t.graph, v, &n);
    const char *have = found ? "" : NULL;
    for (size_t i = 0; found && i < n; i++)
        have = nb_format(t.arena, "%s%s%s", have, i ? "," : "", ir_text(&t, found[i]));
    ck_assert_pstr_eq(have, text);
}

START_TEST(sources) {
    nb_value *shape = dims("B,S,64");
    expect(shape, "B,S,64");
    expect(IR_INTS(&t, 3, -1, INT64_MAX), "3,-1,9223372036854775807");
    expect(number(7), "7");
    expect(dims(""), "");
    expect(nb_const_i64(t.graph, "none", 1, (int64_t[]){0}, NULL), "");
    nb_begin(&t.b, NB_OP_iota);
    ir_set_dims(&t, "start", "P");
    ir_set_dims(&t, "count", "3");
    nb_set_int(&t.b, "step", 2);
    expect(nb_end(&t.b), "P,P+2,P+4");
    expect(ir_input(&t, "x", NB_I64, "3"), NULL);
    expect(ir_input(&t, "f", NB_F32, "3"), NULL);
    expect(nb_const_i64(t.graph, "m", 2, (int64_t[]){1, 1}, (int64_t[]){1}), NULL); /* rank 2 */
    nb_begin(&t.b, NB_OP_iota);
    ir_set_dims(&t, "start", "0");
    ir_set_dims(&t, "count", "65"); /* above NB_SYMBOLIC_MAX */
    nb_set_int(&t.b, "step", 1);
    expect(nb_end(&t.b), NULL);
    nb_begin(&t.b, NB_OP_iota);
    ir_set_dims(&t, "start", "0");
    ir_set_dims(&t, "count", "S");
    expect(nb_end(&t.b), NULL);
}
END_TEST

START_TEST(movement) {
    nb_value *shape = dims("B,S,64");
    ir_begin(&t, NB_OP_gather, shape, number(-1), NULL, NULL);
    expect(nb_end(&t.b), "64");
    ir_begin(&t, NB_OP_gather, shape, IR_INTS(&t, 1, 0), NULL, NULL);
    expect(nb_end(&t.b), "S,B");
    ir_begin(&t, NB_OP_gather, shape, number(3), NULL, NULL);
    expect(nb_end(&t.b), NULL);
    ir_begin(&t, NB_OP_gather, shape, number(INT64_MIN), NULL, NULL);
    expect(nb_end(&t.b), NULL);
    ir_begin(&t, NB_OP_gather, shape, dims("B"), NULL, NULL);
    expect(nb_end(&t.b), NULL);
    ir_begin(&t, NB_OP_slice, shape, NULL, NULL, NULL);
    ir_set_dims(&t, "start", "2");
    ir_set_dims(&t, "count", "2");
    IR_SET_INTS(&t, "step", -2);
    expect(nb_end(&t.b), "64,B");
    ir_begin(&t, NB_OP_slice, shape, NULL, NULL, NULL);
    ir_set_dims(&t, "start", "P");
    ir_set_dims(&t, "count", "1");
    IR_SET_INTS(&t, "step", 1);
    expect(nb_end(&t.b), NULL);
    ir_begin(&t, NB_OP_concat, shape, dims("P"), IR_INTS(&t, 2), NULL);
    expect(nb_end(&t.b), "B,S,64,P,2");
    expect(nb_reshape(&t.b, dims("P"), 0, NULL), "P");
    ir_begin(&t, NB_OP_expand, dims("P"), NULL, NULL, NULL);
    ir_set_dims(&t, "shape", "3");
    expect(nb_end(&t.b), "P,P,P");
    expect(nb_cast(&t.b, shape, NB_I32), "B,S,64");
    expect(nb_cast(&t.b, shape, NB_I8), NULL);
    expect(nb_cast(&t.b, shape, NB_F32), NULL);
    expect(nb_cast(&t.b, nb_cast(&t.b, shape, NB_F32), NB_I64), NULL);
    expect(nb_cast(&t.b, number(INT64_MAX), NB_I32), NULL); /* would wrap */
    expect(nb_cast(&t.b, number(-1), NB_U32), NULL);
}
END_TEST

START_TEST(arithmetic) {
    nb_value *shape = dims("B,S"), *two = number(2);
    expect(binary(NB_OP_add, shape, two), "B+2,S+2");
    expect(binary(NB_OP_sub, two, shape), "-1*B+2,-1*S+2");
    expect(binary(NB_OP_mul, shape, shape), "B*B,S*S");
    expect(binary(NB_OP_min, shape, dims("S,B")), "min(B,S),min(B,S)");
    expect(binary(NB_OP_max, shape, number(0)), "B,S");
    expect(binary(NB_OP_div, binary(NB_OP_mul, shape, two), two), "B,S");
    expect(binary(NB_OP_div, shape, two), "floordiv(B,2),floordiv(S,2)");
    expect(binary(NB_OP_div, number(-7), two), "-3"); /* truncates */
    expect(binary(NB_OP_div, dims("B-3"), two), NULL);
    expect(binary(NB_OP_div, shape, number(0)), NULL);
    expect(binary(NB_OP_div, shape, dims("B-3")), NULL);
    expect(binary(NB_OP_mod, number(-7), two), "1");
    expect(binary(NB_OP_mod, dims("B"), two), "B-2*floordiv(B,2)");
    expect(binary(NB_OP_mod, dims("4*B"), two), "0");
    expect(nb_unary(&t.b, NB_OP_neg, shape), "-1*B,-1*S");
    expect(nb_unary(&t.b, NB_OP_abs, shape), "B,S");
    expect(binary(NB_OP_add, number(INT64_MAX), number(1)), NULL);
    expect(nb_unary(&t.b, NB_OP_neg, number(INT64_MIN)), NULL);
    ir_begin(&t, NB_OP_reduce_prod, shape, NULL, NULL, NULL);
    expect(nb_end(&t.b), "B*S");
    ir_begin(&t, NB_OP_reduce_sum, shape, NULL, NULL, NULL);
    nb_set_bool(&t.b, "keep", true);
    expect(nb_end(&t.b), "B+S");
    ir_begin(&t, NB_OP_reduce_prod, dims(""), NULL, NULL, NULL);
    expect(nb_end(&t.b), "1");
    expect(binary(NB_OP_pow, shape, two), NULL);
}
END_TEST

START_TEST(conditions) {
    nb_value *shape = dims("B,S"), *other = dims("P+S,4");
    nb_value *zero = number(0), *minus = number(-1);
    expect(binary(NB_OP_eq, shape, zero), "0,0");
    expect(binary(NB_OP_eq, shape, shape), "1,1");
    expect(binary(NB_OP_eq, shape, number(1)), NULL);
    expect(binary(NB_OP_lt, zero, shape), "1,1");
    expect(binary(NB_OP_le, shape, zero), "0,0");
    expect(binary(NB_OP_le, shape, shape), "1,1");
    expect(binary(NB_OP_lt, shape, shape), "0,0");
    expect(binary(NB_OP_lt, dims("S"), dims("P+S+1")), "1");
    nb_value *yes = binary(NB_OP_eq, shape, shape), *no = nb_unary(&t.b, NB_OP_not, yes);
    expect(no, "0,0");
    expect(binary(NB_OP_and, yes, no), "0,0");
    expect(binary(NB_OP_or, yes, no), "1,1");
    expect(binary(NB_OP_xor, yes, yes), "0,0");
    expect(nb_cast(&t.b, yes, NB_I64), "1,1");
    expect(nb_cast(&t.b, shape, NB_BOOL), "1,1");
    expect(nb_cast(&t.b, zero, NB_BOOL), "0");
    expect(nb_cast(&t.b, binary(NB_OP_sub, shape, number(1)), NB_BOOL), NULL);
    /* Expand's idiom: where(shape == -1, 1, shape). */
    ir_begin(&t, NB_OP_where, binary(NB_OP_eq, shape, minus), number(1), shape, NULL);
    expect(nb_end(&t.b), "B,S");
    ir_begin(&t, NB_OP_where, yes, shape, other, NULL);
    expect(nb_end(&t.b), "B,S");
    ir_begin(&t, NB_OP_where, no, ir_input(&t, "data", NB_I64, "2"), other, NULL);
    expect(nb_end(&t.b), "P+S,4"); /* the other side may be anything */
    ir_begin(&t, NB_OP_where, binary(NB_OP_eq, shape, number(1)), shape, other, NULL);
    expect(nb_end(&t.b), NULL);
    /* Differences that overflow decide nothing. */
    expect(binary(NB_OP_lt, number(INT64_MIN), number(INT64_MAX)), NULL);
}
END_TEST

/* Each step uses the last one three times: 3^30 ways lead to the first. */
START_TEST(doubling) {
    nb_value *v = dims("B"), *w = number(1);
    for (int i = 0; i < 30; i++) {
        v = binary(NB_OP_max, binary(NB_OP_sub, v, v), v);
        w = binary(NB_OP_mul, w, w);
    }
    expect(v, "B");
    expect(w, "1");
}
END_TEST

/* Deeper than anyone computes shapes: data, not a crash. */
START_TEST(deep) {
    nb_value *v = dims("B"), *one = number(1);
    for (int i = 0; i < 100000; i++) v = binary(NB_OP_add, v, one);
    expect(v, NULL);
    v = dims("B");
    for (int i = 0; i < 60; i++) v = binary(NB_OP_add, v, one);
    expect(v, "B+60");
    for (int i = 0; i < 40; i++) v = nb_reshape(&t.b, v, 1, (const nb_dim *[]){ir_dim(&t, "1")});
    expect(v, NULL);
}
END_TEST

/* An expression that grows with each op ends as data. */
START_TEST(growing) {
    nb_value *v = dims("B"), *s = dims("S");
    for (int i = 0; i < 40; i++)
        v = binary(NB_OP_add, binary(NB_OP_mul, v, v), binary(NB_OP_max, v, s));
    expect(v, NULL);
}
END_TEST

Suite *nb_suite_ir_symbolic(void) {
    Suite *s = suite_create("ir_symbolic");
    TCase *c = tcase_create("symbolic");
    tcase_add_checked_fixture(c, open_graph, close_graph);
    tcase_add_test(c, sources);
    tcase_add_test(c, movement);
    tcase_add_test(c, arithmetic);
    tcase_add_test(c, conditions);
    tcase_add_test(c, doubling);
    tcase_add_test(c, deep);
    tcase_add_test(c, growing);
    suite_add_tcase(s, c);
    return s;
}
