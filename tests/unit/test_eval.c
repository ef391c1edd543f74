/* Runs of whole graphs: symbols bound from the inputs' shapes, taps, outputs, errors. */
#include "ir/scalar.h"
#include "tests/unit/test_eval_graph.h"

#include <string.h>

static eval_graph t;
static void open_graph(void) { eval_open(&t); }
static void close_graph(void) { eval_close(&t); }

static const nb_dim *symbol(const char *name) {
    return nb_dim_symbol(t.graph, nb_graph_symbol(t.graph, name, true));
}

static nb_value *input(const char *name, nb_elem elem, const nb_quant *q, int rank,
                       const nb_dim *const *dims) {
    return nb_graph_add_input(t.graph, name, nb_type_intern(t.graph, elem, q, rank, dims));
}

/* ---- symbols ------------------------------------------------------------------------------- */

/* past[P], mask[P+S], x[S]: the expression stands before one of its symbols. */
static void decoder_inputs(void) {
    const nb_dim *p[] = {symbol("P")}, *s[] = {symbol("S")};
    const nb_dim *sum[] = {nb_dim_add(t.graph, p[0], s[0])};
    nb_symbol_narrow(t.graph, p[0]->symbol, 0, 8);
    input("past", NB_F32, NULL, 1, p);
    nb_value *mask = input("mask", NB_F32, NULL, 1, sum);
    input("x", NB_F32, NULL, 1, s);
    const char *name = "y";
    nb_value *y = nb_unary(&t.b, NB_OP_neg, mask);
    nb_graph_set_outputs(t.graph, 1, &y, &name);
}

static nb_status run_decoder(int64_t p, int64_t sum, int64_t s, nb_tensor *y) {
    static float data[64] = {1, 2, 3};
    nb_tensor in[3] = {{.elem = NB_F32, .rank = 1, .dims = {p}, .data = data},
                       {.elem = NB_F32, .rank = 1, .dims = {sum}, .data = data},
                       {.elem = NB_F32, .rank = 1, .dims = {s}, .data = data}};
    return nb_eval(t.graph, in, y, NULL, 0, t.arena, t.diags);
}

START_TEST(symbols) {
    nb_tensor y;
    decoder_inputs();
    ck_assert_int_eq(run_decoder(1, 3, 2, &y), NB_OK);
    ck_assert(y.rank == 1 && y.dims[0] == 3 && nb_tensor_get(&y, 2) == -3);
    ck_assert_int_eq(run_decoder(0, 1, 1, &y), NB_OK); /* the next run has symbols of its own */
}
END_TEST

static void expect_refused(int64_t p, int64_t sum, int64_t s, const char *text) {
    nb_tensor y;
    decoder_inputs();
    ck_assert_int_eq(run_decoder(p, sum, s, &y), NB_MALFORMED);
    ck_assert_msg(strstr(eval_messages(&t), text) != NULL, "found: %s", eval_messages(&t));
}

START_TEST(expression_does_not_fit) {
    expect_refused(1, 4, 2, "input \"mask\": axis 0: expected 3 = P+S, found 4");
}
END_TEST
START_TEST(symbol_out_of_range) {
    expect_refused(9, 10, 1, "input \"past\": axis 0, P, is 9, outside 0..8");
}
END_TEST
START_TEST(negative_size) { expect_refused(-1, 0, 1, "input \"past\": axis 0 is negative, -1"); }
END_TEST

START_TEST(same_symbol_twice) {
    const nb_dim *n[] = {symbol("N"), symbol("N"), nb_dim_const(t.graph, 2)};
    nb_value *x = input("x", NB_F32, NULL, 3, n);
    const char *name = "y";
    nb_graph_set_outputs(t.graph, 1, &x, &name);
    float data[8] = {0};
    nb_tensor y, in = {.elem = NB_F32, .rank = 3, .dims = {2, 1, 2}, .data = data};
    ck_assert_int_eq(nb_eval(t.graph, &in, &y, NULL, 0, t.arena, t.diags), NB_MALFORMED);
    in.dims[1] = 2;
    in.dims[2] = 1;
    ck_assert_int_eq(nb_eval(t.graph, &in, &y, NULL, 0, t.arena, t.diags), NB_MALFORMED);
    in.elem = NB_I32;
    ck_assert_int_eq(nb_eval(t.graph, &in, &y, NULL, 0, t.arena, t.diags), NB_MALFORMED);
    const char *text = eval_messages(&t);
    ck_assert_msg(strstr(text, "axis 1: expected 2 = N, found 1") &&
                      strstr(text, "axis 2: expected 2, found 1") &&
                      strstr(text, "input \"x\": expected f32[N,N,2], found i32 of rank 3"),
                  "found: %s", text);
}
END_TEST

START_TEST(nothing_binds_it) {
    const nb_dim *twice[] = {nb_dim_add(t.graph, symbol("N"), symbol("N"))};
    nb_value *x = input("x", NB_F32, NULL, 1, twice);
    const char *name = "y";
    nb_graph_set_outputs(t.graph, 1, &x, &name);
    float data[4] = {0};
    nb_tensor y, in = {.elem = NB_F32, .rank = 1, .dims = {4}, .data = data};
    ck_assert_int_eq(nb_eval(t.graph, &in, &y, NULL, 0, t.arena, t.diags), NB_MALFORMED);
    ck_assert(strstr(eval_messages(&t), "but no input has an axis that is just N"));
    nb_begin(&t.b, NB_OP_dims);
    const nb_dim *loose[] = {symbol("M")};
    nb_set_dims(&t.b, "values", 1, loose);
    nb_value *v = nb_end(&t.b);
    nb_graph_set_outputs(t.graph, 1, &v, &name);
    nb_graph *g = t.graph;
    g->body.n_params = 0;
    ck_assert_int_eq(nb_eval(g, NULL, &y, NULL, 0, t.arena, t.diags), NB_MALFORMED);
    ck_assert(strstr(eval_messages(&t), "/under/test: error: dims: no input has an axis"));
}
END_TEST

/* ---- taps ---------------------------------------------------------------------------------- */

static const nb_value *seen[8];
static size_t n_seen;

static void note(void *user, const nb_value *v, const nb_tensor *tensor) {
    *(double *)user += nb_tensor_get(tensor, 0);
    seen[n_seen++] = v;
}

START_TEST(taps) {
    const nb_dim *one[] = {nb_dim_const(t.graph, 1)};
    nb_value *x = input("x", NB_F32, NULL, 1, one), *c = eval_f32(&t, DIMS(1), 10);
    nb_value *sum = nb_binary(&t.b, NB_OP_add, x, c), *y = nb_unary(&t.b, NB_OP_neg, sum);
    nb_value *unused = nb_unary(&t.b, NB_OP_abs, y);
    const char *name = "y";
    nb_graph_set_outputs(t.graph, 1, &y, &name);
    float data = 1;
    double total = 0;
    nb_tensor out, in = {.elem = NB_F32, .rank = 1, .dims = {1}, .data = &data};
    nb_tap list[] = {{y, note, &total},   {unused, note, &total}, {x, note, &total},
                     {sum, note, &total}, {c, note, &total},      {sum, note, &total}};
    n_seen = 0;
    ck_assert_int_eq(nb_eval(t.graph, &in, &out, list, NB_COUNT(list), t.arena, t.diags), NB_OK);
    const nb_value *order[] = {c, x, sum, sum, y, unused};
    ck_assert_uint_eq(n_seen, NB_COUNT(order));
    ck_assert(memcmp(seen, order, sizeof order) == 0);
    ck_assert(total == 10 + 1 + 11 + 11 - 11 + 11);
}
END_TEST

/* The floats behind a product of codes exist for those who ask. */
START_TEST(taps_of_dequantized) {
    const nb_quant *q = eval_quant(&t, (nb_quant){.storage = NB_I8, .scale = 0.5f});
    nb_value *a = nb_unary(&t.b, NB_OP_dequantize, eval_const(&t, NB_I8, q, DIMS(1, 1), 3));
    nb_value *w = nb_unary(&t.b, NB_OP_dequantize, eval_const(&t, NB_I8, q, DIMS(1, 1), 4));
    nb_value *y = nb_binary(&t.b, NB_OP_matmul, a, w);
    nb_value *both = nb_binary(&t.b, NB_OP_add, y, w);
    const char *name = "y";
    nb_graph_set_outputs(t.graph, 1, &both, &name);
    double total = 0;
    nb_tensor out;
    nb_tap tap = {a, note, &total};
    n_seen = 0;
    ck_assert_int_eq(nb_eval(t.graph, NULL, &out, &tap, 1, t.arena, t.diags), NB_OK);
    ck_assert(n_seen == 1 && total == 1.5 && nb_tensor_get(&out, 0) == 5);
}
END_TEST

/* ---- outputs ------------------------------------------------------------------------------- */

START_TEST(outputs_have_one_nan) {
    static const uint32_t bits[] = {0xffc12345u, 0x7f800001u, 0x3f800000u};
    nb_value *c = eval_f32(&t, DIMS(3), 0, 0, 0);
    memcpy(nb_tensor_of_const(c).data, bits, sizeof bits);
    nb_tensor y = eval_run(&t, c);
    ck_assert_uint_eq(((uint32_t *)y.data)[0], 0x7fc00000u);
    ck_assert_uint_eq(((uint32_t *)y.data)[1], 0x7fc00000u);
    ck_assert_uint_eq(((uint32_t *)y.data)[2], 0x3f800000u);
    nb_value *h = nb_unary(&t.b, NB_OP_neg, eval_const(&t, NB_F16, NULL, DIMS(1), NAN));
    y = eval_run(&t, h);
    ck_assert_uint_eq(((uint16_t *)y.data)[0], 0x7e00);
    y = eval_run(&t, nb_cast(&t.b, h, NB_F64));
    ck_assert_uint_eq(((uint64_t *)y.data)[0], UINT64_C(0x7ff8000000000000));
}
END_TEST

/* A cache of codes: the scales go in and come out with them. */
START_TEST(codes_carry_their_scales) {
    const nb_quant *q =
        eval_quant(&t, (nb_quant){.storage = NB_I8, .granularity = NB_PER_TOKEN, .amax_code = 127});
    const nb_dim *dims[] = {symbol("N"), nb_dim_const(t.graph, 2)};
    nb_value *x = input("x", NB_I8, q, 2, dims);
    nb_value *floats = nb_unary(&t.b, NB_OP_dequantize, x);
    nb_begin(&t.b, NB_OP_quantize);
    nb_arg(&t.b, floats);
    nb_set_quant(&t.b, "to", q);
    nb_value *outputs[] = {nb_end(&t.b), x};
    const char *names[] = {"y", "z"};
    nb_graph_set_outputs(t.graph, 2, outputs, names);
    int8_t codes[] = {127, 1, -127, 0};
    float scales[] = {2, 0.5f};
    nb_tensor y[2], in = {.elem = NB_I8, .rank = 2, .dims = {2, 2}, .data = codes};
    ck_assert_int_eq(nb_eval(t.graph, &in, y, NULL, 0, t.arena, t.diags), NB_MALFORMED);
    ck_assert(strstr(eval_messages(&t), "need their scales"));
    in.scales = scales;
    in.bytes = sizeof codes;
    ck_assert_int_eq(nb_eval(t.graph, &in, y, NULL, 0, t.arena, t.diags), NB_OK);
    for (int i = 0; i < 2; i++) {
        ck_assert(memcmp(y[i].data, codes, sizeof codes) == 0);
        ck_assert(y[i].scales[0] == 2 && y[i].scales[1] == 0.5f);
    }
}
END_TEST

/* What nobody reads is not computed, so it cannot fail either. */
START_TEST(unused_ops_do_not_run) {
    nb_value *x = eval_f32(&t, DIMS(2), 1, 2);
    nb_begin(&t.b, NB_OP_gather);
    nb_arg(&t.b, x);
    nb_arg(&t.b, eval_const(&t, NB_I64, NULL, DIMS(1), 7));
    nb_value *bad = nb_end(&t.b);
    nb_unary(&t.b, NB_OP_neg, bad);
    eval_expect(&t, nb_unary(&t.b, NB_OP_neg, x), "-1 -2");
    eval_expect_error(&t, bad, "index 7");
}
END_TEST

Suite *nb_suite_eval(void) {
    Suite *suite = suite_create("eval");
    TCase *tests = tcase_create("eval");
    tcase_add_checked_fixture(tests, open_graph, close_graph);
    tcase_add_test(tests, symbols);
    tcase_add_test(tests, expression_does_not_fit);
    tcase_add_test(tests, symbol_out_of_range);
    tcase_add_test(tests, negative_size);
    tcase_add_test(tests, same_symbol_twice);
    tcase_add_test(tests, nothing_binds_it);
    tcase_add_test(tests, taps);
    tcase_add_test(tests, taps_of_dequantized);
    tcase_add_test(tests, outputs_have_one_nan);
    tcase_add_test(tests, codes_carry_their_scales);
    tcase_add_test(tests, unused_ops_do_not_run);
    suite_add_tcase(suite, tests);
    return suite;
}
