/* Shape rules of patches and of their codes: types that they give, and what they refuse. */
#include "tests/unit/test_ir.h"

static ir_graph t;

static void open_graph(void) {
    ir_open(&t);
    /* Makes the symbols known. */
    ir_input(&t, "x", NB_F32, "B,S");
}
static void close_graph(void) { ir_close(&t); }

static nb_value *input(nb_elem elem, const char *dims) { return ir_input(&t, "in", elem, dims); }
static void unary(nb_op_kind kind, nb_value *a) { ir_begin(&t, kind, a, NULL, NULL, NULL); }

static const nb_quant *dynamic(nb_granularity by) {
    const int64_t group = by == NB_PER_BLOCK ? 3 : 0;
    return ir_quant(
        &t, (nb_quant){.storage = NB_I8, .granularity = by, .group = group, .amax_code = 127});
}

static void patches(nb_op_kind kind, nb_value *v) {
    unary(kind, v);
    IR_SET_INTS(&t, "kernel", 3, 5);
}

START_TEST(patches_of_kernels) {
    nb_value *image = input(NB_F32, "B,6,32,S"), *line = input(NB_F32, "B,6,S");
    patches(NB_OP_patches, image);
    ir_expect(&t, "f32[B,30,S-4,90]");
    patches(NB_OP_patches, image);
    IR_SET_INTS(&t, "strides", 2, 2);
    IR_SET_INTS(&t, "dilations", 3, 1);
    ir_expect(&t, "f32[B,13,floordiv(S+1,2)-2,90]");
    unary(NB_OP_patches, line);
    IR_SET_INTS(&t, "kernel", 1);
    ir_expect(&t, "f32[B,S,6]");
    patches(NB_OP_patches, line);
    ir_expect_error(&t, "has 2 kernel lengths for 1 axes");
    unary(NB_OP_patches, line);
    IR_SET_INTS(&t, "kernel", 0);
    ir_expect_error(&t, "a kernel of length 0 along axis 2 is not possible");
    patches(NB_OP_patches, image);
    IR_SET_INTS(&t, "strides", 0, 1);
    ir_expect_error(&t, "strides[0] is 0");
    patches(NB_OP_patches, input(NB_F32, "B,S,32,32"));
    ir_expect_error(
        &t,
        "takes numbers of whole bytes x[B,C,D...] of rank 3 to 5, C known, found f32[B,S,32,32]");
    patches(NB_OP_patches, input(NB_F32, "1,2,3,4,5,6"));
    ir_expect_error(&t, "of rank 3 to 5");
    patches(NB_OP_patches, input(NB_I4, "B,6,32,S"));
    ir_expect_error(&t, "takes numbers of whole bytes");
}
END_TEST

START_TEST(codes_of_patches) {
    static const struct {
        const char *error;
        nb_elem elem;
        nb_granularity by;
    } cases[] = {{NULL, NB_F32, NB_PER_TOKEN},
                 {"a scale for the tensor or for each token", NB_F32, NB_PER_BLOCK},
                 {"takes f32, found f16", NB_F16, NB_PER_TOKEN}};
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        patches(NB_OP_qpatches, input(cases[i].elem, "B,6,32,S"));
        nb_set_quant(&t.b, "to", dynamic(cases[i].by));
        if (cases[i].error)
            ir_expect_error(&t, cases[i].error);
        else
            ck_assert_str_eq(nb_type_text(t.graph->arena, nb_end(&t.b)->type) + 2, "[B,30,S-4,90]");
    }
    patches(NB_OP_qpatches, input(NB_F32, "B,6,32,S"));
    ir_expect_error(&t, "needs attribute `to`");
}
END_TEST

Suite *nb_suite_ir_patches(void) {
    Suite *s = suite_create("ir_patches");
    TCase *c = tcase_create("rules");
    tcase_add_checked_fixture(c, open_graph, close_graph);
    tcase_add_test(c, patches_of_kernels);
    tcase_add_test(c, codes_of_patches);
    suite_add_tcase(s, c);
    return s;
}
