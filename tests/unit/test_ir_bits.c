/* Shape rules of bitcast and require. */
#include "tests/unit/test_ir.h"

static ir_graph t;
static nb_value *x;

static void open_graph(void) {
    ir_open(&t);
    x = ir_input(&t, "x", NB_F32, "B,4");
}
static void close_graph(void) { ir_close(&t); }

static void bitcast(nb_value *v) { ir_begin(&t, NB_OP_bitcast, v, NULL, NULL, NULL); }
static void require(nb_value *holds) { ir_begin(&t, NB_OP_require, x, holds, NULL, NULL); }

START_TEST(bits) {
    bitcast(x);
    nb_set_elem(&t.b, "to", NB_I32);
    ir_expect(&t, "i32[B,4]");
    bitcast(ir_input(&t, "h", NB_F16, "B"));
    nb_set_elem(&t.b, "to", NB_BF16);
    ir_expect(&t, "bf16[B]");
    bitcast(x);
    ir_expect_error(&t, "needs attribute `to`");
    bitcast(x);
    nb_set_elem(&t.b, "to", NB_F64);
    ir_expect_error(&t, "the bits of f32 cannot be those of f64");
    bitcast(ir_input(&t, "b", NB_BOOL, "B"));
    nb_set_elem(&t.b, "to", NB_U8);
    ir_expect_error(&t, "the bits of bool cannot be those of u8");
}
END_TEST

START_TEST(requires) {
    require(ir_input(&t, "holds", NB_BOOL, "3"));
    ir_expect(&t, "f32[B,4]");
    require(ir_input(&t, "n", NB_I64, "3"));
    ir_expect_error(&t, "takes bools, found i64[3]");
}
END_TEST

Suite *nb_suite_ir_bits(void) {
    Suite *s = suite_create("ir_bits");
    TCase *c = tcase_create("rules");
    tcase_add_checked_fixture(c, open_graph, close_graph);
    tcase_add_test(c, bits);
    tcase_add_test(c, requires);
    suite_add_tcase(s, c);
    return s;
}
