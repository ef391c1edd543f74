/* Shape rules: for each, types that it gives and what it refuses, by message. */
#include "tests/unit/test_ir.h"

#include <string.h>

static ir_graph t;
static nb_value *x, *y, *i32, *i64, *flag, *cube, *scalar;

static void open_graph(void) {
    ir_open(&t);
    x = ir_input(&t, "x", NB_F32, "B,4");
    y = ir_input(&t, "y", NB_F32, "S,4");
    i32 = ir_input(&t, "i32", NB_I32, "B,4");
    i64 = ir_input(&t, "i64", NB_I64, "S");
    flag = ir_input(&t, "flag", NB_BOOL, "B,1");
    cube = ir_input(&t, "cube", NB_F32, "B,S,6");
    scalar = ir_input(&t, "scalar", NB_F32, "");
}
static void close_graph(void) { ir_close(&t); }

static void unary(nb_op_kind kind, nb_value *a) { ir_begin(&t, kind, a, NULL, NULL, NULL); }
static void binary(nb_op_kind kind, nb_value *a, nb_value *b) {
    ir_begin(&t, kind, a, b, NULL, NULL);
}
static nb_value *input(nb_elem elem, const char *dims) { return ir_input(&t, "in", elem, dims); }

/* ---- elementwise --------------------------------------------------------------------------- */

/* Which ops take which elements: f floats, i integers, b bools. */
START_TEST(domains) {
    static const struct {
        nb_op_kind kind;
        const char *takes;
    } cases[] = {
        {NB_OP_neg, "fi"},  {NB_OP_abs, "fi"},     {NB_OP_sign, "fi"}, {NB_OP_relu, "fi"},
        {NB_OP_exp, "f"},   {NB_OP_log, "f"},      {NB_OP_sqrt, "f"},  {NB_OP_reciprocal, "f"},
        {NB_OP_erf, "f"},   {NB_OP_sigmoid, "f"},  {NB_OP_tanh, "f"},  {NB_OP_sin, "f"},
        {NB_OP_cos, "f"},   {NB_OP_silu, "f"},     {NB_OP_gelu, "f"},  {NB_OP_gelu_tanh, "f"},
        {NB_OP_floor, "f"}, {NB_OP_softplus, "f"}, {NB_OP_ceil, "f"},  {NB_OP_round, "f"},
        {NB_OP_not, "ib"},  {NB_OP_add, "fi"},     {NB_OP_sub, "fi"},  {NB_OP_mul, "fi"},
        {NB_OP_div, "fi"},  {NB_OP_pow, "fi"},     {NB_OP_min, "fi"},  {NB_OP_max, "fi"},
        {NB_OP_mod, "fi"},  {NB_OP_and, "ib"},     {NB_OP_or, "ib"},   {NB_OP_xor, "ib"},
        {NB_OP_eq, "fib"},  {NB_OP_lt, "fi"},      {NB_OP_le, "fi"},   {NB_OP_atan, "f"},
    };
    nb_value *of[] = {x, i32, flag};
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        for (int k = 0; k < 3; k++) {
            bool two = nb_ops[cases[i].kind].operands[1].mode == NB_OPERAND_IN;
            ir_begin(&t, cases[i].kind, of[k], two ? of[k] : NULL, NULL, NULL);
            bool compares = strcmp(nb_ops[cases[i].kind].family, "compare") == 0;
            if (!strchr(cases[i].takes, "fib"[k])) {
                ir_expect_error(&t, nb_ops[cases[i].kind].name);
                continue;
            }
            nb_value *v = nb_end(&t.b);
            ck_assert_msg(v != NULL, "%s: %s", nb_ops[cases[i].kind].name, ir_message(&t));
            ck_assert_int_eq(v->type->elem, compares ? NB_BOOL : of[k]->type->elem);
        }
    }
}
END_TEST

START_TEST(broadcasts) {
    binary(NB_OP_add, x, scalar);
    ir_expect(&t, "f32[B,4]");
    binary(NB_OP_add, input(NB_F32, "4"), x);
    ir_expect(&t, "f32[B,4]");
    binary(NB_OP_mul, input(NB_F32, "B,1"), input(NB_F32, "S,1,4"));
    ir_expect(&t, "f32[S,B,4]");
    binary(NB_OP_le, input(NB_I64, "B,1,1"), input(NB_I64, "P+S"));
    ir_expect(&t, "bool[B,1,P+S]");
    binary(NB_OP_add, x, y);
    ir_expect_error(&t, "f32[B,4] and f32[S,4] do not broadcast: axis 0 is B and axis 0 is S");
    binary(NB_OP_add, x, input(NB_F32, "S,B,3"));
    ir_expect_error(&t, "axis 1 is 4 and axis 2 is 3");
    binary(NB_OP_add, x, i32);
    ir_expect_error(&t, "of the same type, found f32[B,4] and i32[B,4]");
    ck_assert_ptr_null(nb_dim_broadcast(t.graph, ir_dim(&t, "B"), ir_dim(&t, "2")));
}
END_TEST

START_TEST(where_and_cast) {
    ir_begin(&t, NB_OP_where, flag, x, scalar, NULL);
    ir_expect(&t, "f32[B,4]");
    ir_begin(&t, NB_OP_where, input(NB_BOOL, "S,1,1"), scalar, x, NULL);
    ir_expect(&t, "f32[S,B,4]");
    ir_begin(&t, NB_OP_where, flag, flag, flag, NULL);
    ir_expect(&t, "bool[B,1]");
    ir_begin(&t, NB_OP_where, x, x, x, NULL);
    ir_expect_error(&t, "takes a bool");
    ir_begin(&t, NB_OP_where, flag, x, i32, NULL);
    ir_expect_error(&t, "two tensors of one type");
    ir_begin(&t, NB_OP_where, flag, x, y, NULL);
    ir_expect_error(&t, "do not broadcast");
    ir_begin(&t, NB_OP_where, input(NB_BOOL, "3"), x, x, NULL);
    ir_expect_error(&t, "axis 0 is 3 and axis 1 is 4");
    unary(NB_OP_cast, x);
    ir_expect_error(&t, "needs attribute `to`");
    unary(NB_OP_cast, flag);
    nb_set_elem(&t.b, "to", NB_BF16);
    ir_expect(&t, "bf16[B,1]");
}
END_TEST

/* ---- along axes ---------------------------------------------------------------------------- */

START_TEST(reductions) {
    unary(NB_OP_reduce_sum, cube);
    ir_expect(&t, "f32[]");
    unary(NB_OP_reduce_mean, cube);
    nb_set_bool(&t.b, "keep", true);
    ir_expect(&t, "f32[1,1,1]");
    unary(NB_OP_reduce_max, cube);
    IR_SET_INTS(&t, "axes", 2, 0);
    ir_expect(&t, "f32[S]");
    unary(NB_OP_reduce_min, flag);
    IR_SET_INTS(&t, "axes", 1);
    nb_set_bool(&t.b, "keep", true);
    ir_expect(&t, "bool[B,1]");
    unary(NB_OP_reduce_prod, flag);
    ir_expect_error(&t, "takes numbers");
    unary(NB_OP_reduce_sum, cube);
    IR_SET_INTS(&t, "axes", 3);
    ir_expect_error(&t, "axis 3 is out of range 0..2");
    unary(NB_OP_reduce_sum, cube);
    IR_SET_INTS(&t, "axes", -1);
    ir_expect_error(&t, "axis -1");
    unary(NB_OP_reduce_sum, cube);
    IR_SET_INTS(&t, "axes", 1, 1);
    ir_expect_error(&t, "twice");
}
END_TEST

START_TEST(softmax_and_norms) {
    unary(NB_OP_softmax, x);
    nb_set_int(&t.b, "axis", 1);
    ir_expect(&t, "f32[B,4]");
    unary(NB_OP_softmax, x);
    nb_set_int(&t.b, "axis", 2);
    ir_expect_error(&t, "axis 2 is out of range 0..1");
    unary(NB_OP_softmax, i32);
    ir_expect_error(&t, "takes floats");
    unary(NB_OP_softmax, scalar);
    ir_expect_error(&t, "out of range");
    nb_value *gain = input(NB_F32, "4");
    binary(NB_OP_rms_norm, x, gain);
    ir_expect(&t, "f32[B,4]");
    ir_begin(&t, NB_OP_layer_norm, x, gain, gain, NULL);
    ir_expect(&t, "f32[B,4]");
    binary(NB_OP_rms_norm, x, input(NB_F32, "3"));
    ir_expect_error(&t, "as long as the last axis");
    binary(NB_OP_rms_norm, x, input(NB_F16, "4"));
    ir_expect_error(&t, "found f16[4]");
    ir_begin(&t, NB_OP_layer_norm, x, gain, input(NB_F32, "1,4"), NULL);
    ir_expect_error(&t, "found f32[1,4]");
    binary(NB_OP_rms_norm, scalar, gain);
    ir_expect_error(&t, "rank 1 or more");
}
END_TEST

/* ---- data movement ------------------------------------------------------------------------- */

static void reshape(nb_value *v, const char *shape) {
    unary(NB_OP_reshape, v);
    ir_set_dims(&t, "shape", shape);
}

START_TEST(reshapes) {
    reshape(cube, "S,2,B,3");
    ir_expect(&t, "f32[S,2,B,3]");
    reshape(cube, "6*B*S");
    ir_expect(&t, "f32[6*B*S]");
    reshape(input(NB_I8, "P+S,4"), "4*P+4*S,1");
    ir_expect(&t, "i8[4*P+4*S,1]");
    reshape(scalar, "1,1");
    ir_expect(&t, "f32[1,1]");
    reshape(cube, "B,6");
    ir_expect_error(&t, "f32[B,S,6] and f32[B,6] have different numbers of elements");
    reshape(x, "1,1,1,1,1,1,B,2,2");
    ir_expect_error(&t, "rank 9");
    nb_value *huge = input(NB_F32, "3037000500,3037000500");
    reshape(huge, "3037000500,3037000500");
    ir_expect_error(&t, "the number of elements is no valid expression");
    ck_assert_int_eq(nb_diags_status(t.diags), NB_MALFORMED); /* the first; the last is a limit */
    ck_assert_int_eq(t.diags->last->status, NB_LIMIT);
    reshape(x, "B,4");
    nb_set_dims(&t.b, "shape", 2,
                (const nb_dim *[]){nb_dim_floordiv(t.graph, ir_dim(&t, "B"), ir_dim(&t, "0")),
                                   ir_dim(&t, "4")});
    ir_expect_error(&t, "shape[0] is no valid expression");
}
END_TEST

START_TEST(transposes_and_expands) {
    unary(NB_OP_transpose, cube);
    IR_SET_INTS(&t, "perm", 2, 0, 1);
    ir_expect(&t, "f32[6,B,S]");
    unary(NB_OP_transpose, scalar);
    ir_expect(&t, "f32[]");
    unary(NB_OP_transpose, cube);
    ir_expect_error(&t, "perm has 0 entries, the tensor has rank 3");
    unary(NB_OP_transpose, cube);
    IR_SET_INTS(&t, "perm", 0, 1, 1);
    ir_expect_error(&t, "not a permutation of 0..2");
    unary(NB_OP_transpose, cube);
    IR_SET_INTS(&t, "perm", 0, 1, 3);
    ir_expect_error(&t, "not a permutation");
    unary(NB_OP_expand, flag);
    ir_set_dims(&t, "shape", "S,B,P");
    ir_expect(&t, "bool[S,B,P]");
    unary(NB_OP_expand, x);
    ir_set_dims(&t, "shape", "B,8");
    ir_expect_error(&t, "axis 1 of f32[B,4] is neither 1 nor 8");
    unary(NB_OP_expand, x);
    ir_set_dims(&t, "shape", "4");
    ir_expect_error(&t, "rank 2 cannot be expanded to rank 1");
    unary(NB_OP_expand, scalar);
    ir_set_dims(&t, "shape", "0-1");
    ir_expect_error(&t, "axis 0 of the result is negative, -1");
    unary(NB_OP_expand, scalar);
    ir_set_dims(&t, "shape", "0-B");
    ir_expect_error(&t, "negative");
    unary(NB_OP_expand, scalar);
    ir_set_dims(&t, "shape", "B-4"); /* may be */
    ir_expect(&t, "f32[B-4]");
}
END_TEST

START_TEST(concats) {
    binary(NB_OP_concat, x, y);
    ir_expect(&t, "f32[B+S,4]");
    unary(NB_OP_concat, x);
    nb_set_int(&t.b, "axis", 1);
    ir_expect(&t, "f32[B,4]");
    binary(NB_OP_concat, x, y);
    nb_set_int(&t.b, "axis", 1);
    ir_expect_error(&t, "f32[B,4] and f32[S,4] do not join along axis 1");
    binary(NB_OP_concat, x, i32);
    ir_expect_error(&t, "do not join");
    binary(NB_OP_concat, x, cube);
    ir_expect_error(&t, "do not join");
    binary(NB_OP_concat, scalar, scalar);
    ir_expect_error(&t, "axis 0 is out of range");
    nb_begin(&t.b, NB_OP_concat);
    ir_expect_error(&t, "at least one operand");
    nb_value *wide = input(NB_F32, "9223372036854775807");
    binary(NB_OP_concat, wide, wide);
    ir_expect_error(&t, "the size of axis 0 of the result is no valid expression");
}
END_TEST

static void slice(nb_value *v, const char *start, const char *count, int64_t s0, int64_t s1) {
    unary(NB_OP_slice, v);
    ir_set_dims(&t, "start", start);
    ir_set_dims(&t, "count", count);
    nb_set_ints(&t.b, "step", 2, (int64_t[]){s0, s1});
}

START_TEST(slices) {
    slice(x, "0,1", "B,2", 1, 2);
    ir_expect(&t, "f32[B,2]");
    slice(x, "B-1,3", "1,4", 1, -1);
    ir_expect(&t, "f32[1,4]");
    slice(x, "0,9", "B,0", 1, 1); /* of nothing, nothing is outside */
    ir_expect(&t, "f32[B,0]");
    slice(x, "0,1", "B,4", 1, 1);
    ir_expect_error(&t, "start 1, count 4, step 1 leave axis 1 of f32[B,4]");
    slice(x, "0,1", "B,3", 1, -1);
    ir_expect_error(&t, "leave axis 1");
    slice(x, "0,0", "B,3", 1, INT64_MAX);
    ir_expect_error(&t, "leave axis 1");
    slice(x, "0,0", "B,-1", 1, 1);
    ir_expect_error(&t, "leave axis 1");
    slice(x, "0,0", "-1,4", 1, 1);
    ir_expect_error(&t, "negative");
    slice(x, "0,0", "B,4", 1, 0);
    ir_expect_error(&t, "step 0 along axis 1");
    slice(x, "0", "B,4", 1, 1);
    ir_expect_error(&t, "one entry for each of the 2 axes");
}
END_TEST

START_TEST(along_an_axis) {
    unary(NB_OP_cumsum, cube);
    nb_set_int(&t.b, "axis", 1);
    ir_expect(&t, "f32[B,S,6]");
    unary(NB_OP_cumsum, flag);
    ir_expect_error(&t, "takes numbers, found bool[B,1]");
    unary(NB_OP_cumsum, x);
    nb_set_int(&t.b, "axis", 2);
    ir_expect_error(&t, "axis 2 is out of range 0..1");
    for (int64_t k = 6; k <= 7; k++) {
        const nb_dim *count = nb_dim_const(t.graph, k);
        unary(NB_OP_topk, cube);
        nb_set_int(&t.b, "axis", 2);
        nb_set_dims(&t.b, "count", 1, &count);
        if (k == 6)
            ir_expect(&t, "f32[B,S,6]");
        else
            ir_expect_error(&t, "7 elements of an axis of length 6");
    }
    unary(NB_OP_topk, cube);
    ir_expect_error(&t, "count has one value");
}
END_TEST

START_TEST(scatters) {
    ir_begin(&t, NB_OP_scatter, x, i64, y, NULL);
    ir_expect(&t, "f32[B,4]");
    ir_begin(&t, NB_OP_scatter_add, x, input(NB_I8, ""), input(NB_F32, "4"), NULL);
    ir_expect(&t, "f32[B,4]");
    ir_begin(&t, NB_OP_scatter, x, y, y, NULL);
    ir_expect_error(&t, "indices are integers, found f32[S,4]");
    ir_begin(&t, NB_OP_scatter, x, i64, x, NULL);
    ir_expect_error(&t, "not as many slices of f32[B,4] as there are indices, i64[S]");
    ir_begin(&t, NB_OP_scatter, scalar, i64, i64, NULL);
    ir_expect_error(&t, "slices of f32[]");
    ir_begin(&t, NB_OP_scatter_max, flag, i64, input(NB_BOOL, "S,1"), NULL);
    ir_expect_error(&t, "takes numbers");
}
END_TEST

START_TEST(gathers) {
    binary(NB_OP_gather, cube, i64);
    nb_set_int(&t.b, "axis", 2);
    ir_expect(&t, "f32[B,S,S]");
    binary(NB_OP_gather, x, input(NB_I32, "P,2"));
    ir_expect(&t, "f32[P,2,4]");
    binary(NB_OP_gather, x, input(NB_I8, ""));
    ir_expect(&t, "f32[4]");
    binary(NB_OP_gather, x, i64);
    nb_set_int(&t.b, "axis", 2);
    ir_expect_error(&t, "axis 2 is out of range 0..1");
    binary(NB_OP_gather, x, y);
    ir_expect_error(&t, "indices are integers, found f32[S,4]");
    binary(NB_OP_gather, cube, input(NB_I64, "1,1,1,1,1,1,1"));
    ir_expect_error(&t, "rank 9, above 8");
}
END_TEST

START_TEST(pads) {
    unary(NB_OP_pad, x);
    ir_set_dims(&t, "before", "P,1");
    ir_set_dims(&t, "after", "0,2");
    ir_expect(&t, "f32[B+P,7]");
    binary(NB_OP_pad, x, scalar);
    ir_set_dims(&t, "before", "0,-3");
    ir_set_dims(&t, "after", "0,0");
    ir_expect(&t, "f32[B,1]");
    unary(NB_OP_pad, x);
    ir_set_dims(&t, "before", "0,-5");
    ir_set_dims(&t, "after", "0,0");
    ir_expect_error(&t, "axis 1 of the result is negative, -1");
    unary(NB_OP_pad, x);
    ir_set_dims(&t, "before", "0");
    ir_set_dims(&t, "after", "0,0");
    ir_expect_error(&t, "one entry for each");
    binary(NB_OP_pad, x, x);
    ir_set_dims(&t, "before", "0,0");
    ir_set_dims(&t, "after", "0,0");
    ir_expect_error(&t, "scalar of the tensor's type");
}
END_TEST

START_TEST(values_of_dims) {
    nb_begin(&t.b, NB_OP_dims);
    ir_set_dims(&t, "values", "B,S,4");
    ir_expect(&t, "i64[3]");
    nb_begin(&t.b, NB_OP_dims);
    ir_set_dims(&t, "values", "P+S");
    nb_set_bool(&t.b, "scalar", true);
    ir_expect(&t, "i64[]");
    nb_begin(&t.b, NB_OP_dims);
    ir_set_dims(&t, "values", "B,S");
    nb_set_bool(&t.b, "scalar", true);
    ir_expect_error(&t, "a scalar has one value, found 2");
    nb_begin(&t.b, NB_OP_dims);
    ir_expect(&t, "i64[0]");
    nb_begin(&t.b, NB_OP_iota);
    ir_set_dims(&t, "start", "P");
    ir_set_dims(&t, "count", "S");
    ir_expect(&t, "i64[S]");
    nb_begin(&t.b, NB_OP_iota);
    ir_set_dims(&t, "start", "P");
    ir_expect_error(&t, "start and count have one value");
}
END_TEST

/* ---- layers -------------------------------------------------------------------------------- */

START_TEST(matmuls) {
    binary(NB_OP_matmul, cube, input(NB_F32, "6,8"));
    ir_expect(&t, "f32[B,S,8]");
    binary(NB_OP_matmul, input(NB_F32, "B,1,S,4"), input(NB_F32, "7,4,P"));
    ir_expect(&t, "f32[B,7,S,P]");
    binary(NB_OP_matmul, i32, input(NB_I32, "4,2"));
    ir_expect(&t, "i32[B,2]");
    binary(NB_OP_matmul, x, y);
    ir_expect_error(&t, "the inner dimensions of f32[B,4] and f32[S,4] differ");
    binary(NB_OP_matmul, x, input(NB_F16, "4,2"));
    ir_expect(&t, "f32[B,2]");
    binary(NB_OP_matmul, x, input(NB_BF16, "4,2"));
    ir_expect(&t, "f32[B,2]");
    binary(NB_OP_matmul, input(NB_F16, "B,4"), input(NB_F32, "4,2"));
    ir_expect_error(&t, "of one type");
    binary(NB_OP_matmul, x, input(NB_F64, "4,2"));
    ir_expect_error(&t, "of one type");
    binary(NB_OP_matmul, x, input(NB_F32, "4"));
    ir_expect_error(&t, "of rank 2 or more");
    binary(NB_OP_matmul, flag, input(NB_BOOL, "1,2"));
    ir_expect_error(&t, "of numbers");
    binary(NB_OP_matmul, cube, input(NB_F32, "S,6,2"));
    ir_expect_error(&t, "do not broadcast: axis 0 is B and axis 0 is S");
}
END_TEST

static void conv(nb_value *a, const char *kernel) {
    ir_begin(&t, NB_OP_conv, a, input(NB_F32, kernel), NULL, NULL);
}

START_TEST(convs) {
    nb_value *image = input(NB_F32, "B,6,32,S"), *line = input(NB_F32, "B,6,S");
    conv(image, "8,6,3,5");
    ir_expect(&t, "f32[B,8,30,S-4]");
    conv(image, "8,6,3,5");
    IR_SET_INTS(&t, "strides", 2, 2);
    IR_SET_INTS(&t, "dilations", 3, 1);
    ir_expect(&t, "f32[B,8,13,floordiv(S+1,2)-2]");
    conv(line, "6,1,3");
    nb_set_int(&t.b, "groups", 6);
    ir_expect(&t, "f32[B,6,S-2]");
    ir_begin(&t, NB_OP_conv, line, input(NB_F32, "4,6,1"), input(NB_F32, "4"), NULL);
    ir_expect(&t, "f32[B,4,S]");
    ir_begin(&t, NB_OP_conv, line, input(NB_F32, "4,6,1"), input(NB_F32, "6"), NULL);
    ir_expect_error(&t, "the bias is a vector as long as f32[4,6,1] has rows, found f32[6]");
    conv(x, "4,4");
    ir_expect_error(&t, "takes floats x[B,C,D...] and w[M,C/groups,K...], found f32[B,4]");
    conv(line, "4,6,3,3");
    ir_expect_error(&t, "takes floats x[B,C,D...]");
    conv(line, "4,6,S");
    ir_expect_error(&t, "a kernel of known size");
    conv(line, "4,5,3");
    ir_expect_error(&t, "do not fit 1 groups");
    conv(line, "4,2,3");
    nb_set_int(&t.b, "groups", 3);
    ir_expect_error(&t, "do not fit 3 groups");
    conv(line, "4,6,0");
    ir_expect_error(&t, "a kernel of length 0 along axis 2 is not possible");
    conv(line, "4,6,3");
    IR_SET_INTS(&t, "strides", 1, 1);
    ir_expect_error(&t, "has 2 strides for 1 axes");
    conv(line, "4,6,3");
    IR_SET_INTS(&t, "dilations", 0);
    ir_expect_error(&t, "dilations[0] is 0");
    conv(image, "8,6,33,1");
    ir_expect(&t, "f32[B,8,0,S]");
    conv(image, "8,6,34,1");
    ir_expect_error(&t, "axis 2 of the result is negative");
}
END_TEST

START_TEST(rotaries) {
    nb_value *q = input(NB_F32, "B,8,S,64"), *c = input(NB_F32, "B,S,32"),
             *one = input(NB_F32, "1,S,32");
    ir_begin(&t, NB_OP_rotary, q, c, one, NULL);
    ir_expect(&t, "f32[B,8,S,64]");
    ir_begin(&t, NB_OP_rotary, q, c, input(NB_F32, "B,S,64"), NULL);
    ir_expect_error(&t, "f32[B or 1,S,D/2]");
    ir_begin(&t, NB_OP_rotary, input(NB_F32, "B,8,S,63"), c, c, NULL);
    ir_expect_error(&t, "not even");
    ir_begin(&t, NB_OP_rotary, cube, c, c, NULL);
    ir_expect_error(&t, "takes f32[B,H,S,D]");
}
END_TEST

static void hadamard(nb_value *v, int64_t block) {
    unary(NB_OP_hadamard, v);
    nb_set_int(&t.b, "block", block);
}

START_TEST(hadamards) {
    hadamard(input(NB_F32, "B,S,96"), 32);
    ir_expect(&t, "f32[B,S,96]");
    hadamard(input(NB_F32, "16*S"), 8);
    ir_expect(&t, "f32[16*S]");
    hadamard(input(NB_F32, "B,S,43"), 64);
    ir_expect(&t, "f32[B,S,43]");
    hadamard(input(NB_F32, "B,96"), 24);
    ir_expect_error(&t, "block is 24, expected a power of two up to 1024");
    hadamard(input(NB_F32, "B,96"), 0);
    ir_expect_error(&t, "block is 0");
    hadamard(input(NB_F32, "B,2048"), 2048);
    ir_expect_error(&t, "block is 2048");
    hadamard(input(NB_F16, "B,32"), 32);
    ir_expect_error(&t, "takes f32 with an axis");
}
END_TEST

START_TEST(attentions) {
    nb_value *q = input(NB_F32, "B,8,S,64"), *k = input(NB_F32, "B,2,P+S,64"),
             *v = input(NB_F32, "B,2,P+S,32");
    static const char *const masks[] = {"", "P+S", "S,P+S", "B,1,1,P+S", "B,8,S,P+S", "1,1"};
    for (size_t i = 0; i < NB_COUNT(masks); i++) {
        ir_begin(&t, NB_OP_attention, q, k, v, input(NB_F32, masks[i]));
        ir_expect(&t, "f32[B,8,S,32]");
    }
    static const char *const wrong[] = {"P", "B,S", "B,2,S,P+S", "1,B,8,S,P+S"};
    for (size_t i = 0; i < NB_COUNT(wrong); i++) {
        ir_begin(&t, NB_OP_attention, q, k, v, input(NB_F32, wrong[i]));
        ir_expect_error(&t, "the mask broadcasts to f32[B,H,S,T]");
    }
    ir_begin(&t, NB_OP_attention, input(NB_F32, "B,3,S,64"), k, v, NULL);
    ir_expect_error(&t, "not a multiple");
    ir_begin(&t, NB_OP_attention, q, k, input(NB_F32, "B,8,P+S,64"), NULL);
    ir_expect_error(&t, "not a multiple");
    ir_begin(&t, NB_OP_attention, q, k, input(NB_F32, "B,2,S,64"), NULL);
    ir_expect_error(&t, "do not fit");
    ir_begin(&t, NB_OP_attention, q, input(NB_F32, "B,2,S,63"), v, NULL);
    ir_expect_error(&t, "do not fit");
    ir_begin(&t, NB_OP_attention, cube, k, v, NULL);
    ir_expect_error(&t, "rank 4");
    /* keys and values in fewer bits, each as it likes; queries and other integers not */
    static const nb_elem small[] = {NB_F32, NB_F16, NB_BF16};
    for (size_t i = 0; i < NB_COUNT(small) * NB_COUNT(small); i++) {
        ir_begin(&t, NB_OP_attention, q, input(small[i / 3], "B,2,P+S,64"),
                 input(small[i % 3], "B,2,P+S,32"), NULL);
        ir_expect(&t, "f32[B,8,S,32]");
    }
    ir_begin(&t, NB_OP_attention, input(NB_F16, "B,8,S,64"), k, v, NULL);
    ir_expect_error(&t,
                    "takes q in f32, k and v in f32, f16, bf16, i8 or u8, of rank 4, found f16");
    ir_begin(&t, NB_OP_attention, q, input(NB_U16, "B,2,P+S,64"), v, NULL);
    ir_expect_error(&t, "k and v in f32, f16, bf16, i8 or u8");
    ir_begin(&t, NB_OP_attention, q, k, input(NB_F64, "B,2,P+S,32"), NULL);
    ir_expect_error(&t, "k and v in f32, f16, bf16, i8 or u8");
}
END_TEST

/* ---- quantization -------------------------------------------------------------------------- */

static const nb_quant *along(nb_granularity how, int axis, int64_t group, const char *scales) {
    return ir_quant(&t, (nb_quant){.storage = NB_I8,
                                   .granularity = how,
                                   .axis = axis,
                                   .group = group,
                                   .scales = ir_const(&t, "s", ir_shape(&t, NB_F32, scales))});
}
static const nb_quant *dynamic(nb_granularity how, int64_t group) {
    return ir_quant(
        &t, (nb_quant){.storage = NB_I8, .granularity = how, .group = group, .amax_code = 127});
}
static nb_value *codes(const char *dims, const nb_quant *q) {
    return ir_const(&t, "w", nb_type_with_quant(t.graph, ir_shape(&t, NB_I8, dims), q));
}
static nb_value *quantized(nb_value *v, const nb_quant *q) {
    unary(NB_OP_quantize, v);
    nb_set_quant(&t.b, "to", q);
    nb_value *out = nb_end(&t.b);
    ck_assert_msg(out != NULL, "%s", ir_message(&t));
    return out;
}

START_TEST(quantizes) {
    const nb_quant *token = dynamic(NB_PER_TOKEN, 0);
    nb_value *q = quantized(x, token);
    ck_assert_str_eq(ir_type(&t, q), "#q[B,4]");
    unary(NB_OP_dequantize, q);
    ir_expect(&t, "f32[B,4]");
    unary(NB_OP_dequantize, x);
    ir_expect_error(&t, "takes codes, found f32[B,4]");
    unary(NB_OP_quantize, x);
    ir_expect_error(&t, "needs attribute `to`");
    unary(NB_OP_quantize, q);
    nb_set_quant(&t.b, "to", token);
    ir_expect_error(&t, "takes f32, found #q[B,4]");
    unary(NB_OP_quantize, i32);
    nb_set_quant(&t.b, "to", token);
    ir_expect_error(&t, "takes f32, found i32[B,4]");
    unary(NB_OP_quantize, scalar);
    nb_set_quant(&t.b, "to", token);
    ir_expect_error(&t, "per token, a scalar has none");
    unary(NB_OP_quantize, x);
    nb_set_quant(&t.b, "to", along(NB_PER_AXIS, 1, 0, "3"));
    ir_expect_error(&t, "needs 4 scales, '@s' has 3");
    unary(NB_OP_quantize, x);
    nb_set_quant(&t.b, "to", along(NB_PER_AXIS, 2, 0, "4"));
    ir_expect_error(&t, "has axis 2, the tensor has rank 2");
    unary(NB_OP_dequantize, codes("5,4", along(NB_PER_GROUP, 0, 2, "3,4")));
    ir_expect(&t, "f32[5,4]");
    unary(NB_OP_dequantize, codes("5,4", along(NB_PER_GROUP, 0, 2, "2,4")));
    ir_expect_error(&t, "f32[2,4], do not fit groups of 2 along axis 0");
    unary(NB_OP_neg, q);
    ir_expect_error(&t, "takes plain tensors, operand 0 is #q[B,4]");
}
END_TEST

START_TEST(codes_and_scales) {
    nb_value *token = quantized(cube, dynamic(NB_PER_TOKEN, 0)),
             *block = quantized(cube, dynamic(NB_PER_BLOCK, 4));
    unary(NB_OP_codes, token);
    ir_expect(&t, "i8[B,S,6]");
    unary(NB_OP_scales, token);
    ir_expect(&t, "f32[B,S,1]");
    unary(NB_OP_scales, block);
    ir_expect(&t, "f32[B,S,2]");
    unary(NB_OP_codes, cube);
    ir_expect_error(&t, "takes codes, found f32[B,S,6]");
    unary(NB_OP_scales, cube);
    ir_expect_error(&t, "scales per token or block, found f32[B,S,6]");
    unary(NB_OP_scales, codes("5,4", along(NB_PER_AXIS, 1, 0, "4")));
    ir_expect_error(&t, "scales per token or block");
}
END_TEST

static void attend(nb_value *k, nb_value *v, nb_value *k_scales, nb_value *v_scales) {
    ir_begin(&t, NB_OP_attention, input(NB_F32, "B,8,S,64"), k, v, NULL);
    nb_arg(&t.b, NULL);
    nb_arg(&t.b, k_scales);
    nb_arg(&t.b, v_scales);
}

START_TEST(attention_to_codes) {
    nb_value *k = input(NB_I8, "B,2,P+S,64"), *v = input(NB_I8, "B,2,P+S,32"),
             *kf = input(NB_F16, "B,2,P+S,64"), *s = input(NB_F32, "B,2,P+S,1"),
             *flat = input(NB_F32, "B,2,P+S"), *other = input(NB_F32, "B,2,S,1"),
             *narrow = input(NB_F16, "B,2,P+S,1");
    attend(k, v, s, s);
    ir_expect(&t, "f32[B,8,S,32]");
    attend(kf, v, NULL, s);
    ir_expect(&t, "f32[B,8,S,32]");
    attend(k, v, s, NULL);
    ir_expect_error(&t, "i8[B,2,P+S,32] has scales f32[B,2,P+S,1], found none");
    attend(kf, v, s, s);
    ir_expect_error(&t, "f16[B,2,P+S,64] has scales none, found f32[B,2,P+S,1]");
    nb_value *wrong[] = {flat, other, narrow};
    for (size_t i = 0; i < NB_COUNT(wrong); i++) {
        attend(k, v, wrong[i], s);
        ir_expect_error(&t, "i8[B,2,P+S,64] has scales f32[B,2,P+S,1], found f");
    }
}
END_TEST

/* Two codes of 4 bits to a byte: heads of 64 and 40 in groups of 32. */
START_TEST(attention_to_u4) {
    nb_value *k = input(NB_U8, "B,2,P+S,32"), *v = input(NB_U8, "B,2,P+S,20"),
             *s = input(NB_F16, "B,2,2,P+S"), *kf = input(NB_F32, "B,2,P+S,64");
    const struct {
        nb_value *k, *k_scales, *v_scales, *k_minima, *v_minima;
        int64_t group;
        const char *error;
    } cases[] = {
        {k, s, s, s, s, 32, NULL},
        {kf, NULL, s, NULL, s, 32, NULL},
        {k, s, s, s, NULL, 32, "u8[B,2,P+S,20] has minima f16[B,2,2,P+S], found none"},
        {k, s, s, s, s, 16, "u8[B,2,P+S,32] has scales f16[B,2,4,P+S], found f16[B,2,2,P+S]"},
        {kf, s, s, NULL, s, 32, "f32[B,2,P+S,64] has scales none"},
        {kf, NULL, s, s, s, 32, "f32[B,2,P+S,64] has minima none"},
        {k, s, s, s, s, 8, "a group of 4-bit codes is a power of two from 16 on, found 8"},
        {k, s, s, s, s, 48, "found 48"},
        {k, s, s, s, s, 0, "found 0"},
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        attend(cases[i].k, v, cases[i].k_scales, cases[i].v_scales);
        nb_arg(&t.b, cases[i].k_minima);
        nb_arg(&t.b, cases[i].v_minima);
        if (cases[i].group) nb_set_int(&t.b, "group", cases[i].group);
        if (cases[i].error)
            ir_expect_error(&t, cases[i].error);
        else
            ir_expect(&t, "f32[B,8,S,40]");
    }
}
END_TEST

START_TEST(codes_of_4_bits) {
    static const struct {
        const char *shape, *error;
        nb_elem elem;
    } cases[] = {{"B,2,S,40", NULL, NB_F32},
                 {"B,2,S,41", "an even constant D, found f32[B,2,S,41]", NB_F32},
                 {"B,2,S,P", "an even constant D", NB_F32},
                 {"B,2,40", "takes f32[B,G,S,D]", NB_F32},
                 {"B,2,S,40", "takes f32[B,G,S,D]", NB_F16}};
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        unary(NB_OP_quantize_u4, input(cases[i].elem, cases[i].shape));
        nb_set_int(&t.b, "group", 32);
        if (cases[i].error) {
            ir_expect_error(&t, cases[i].error);
            continue;
        }
        ir_expect(&t, "u8[B,2,S,20]");
        for (int k = 1; k < 3; k++)
            ck_assert_str_eq(nb_type_text(t.graph->arena, t.b.op->results[k]->type),
                             "f16[B,2,2,S]");
    }
    static const char *const wrong[] = {"2,40,41", "1,40,40", "40,40"}; /* feedback */
    for (size_t i = 0; i < NB_COUNT(wrong); i++) {
        unary(NB_OP_quantize_u4, input(NB_F32, "B,2,S,40"));
        nb_arg(&t.b, input(NB_F32, wrong[i]));
        nb_set_int(&t.b, "group", 32);
        ir_expect_error(&t, "feedback f32[G,D,D] of f32[B,2,S,40], found f32[");
    }
}
END_TEST

START_TEST(qmatmuls) {
    nb_value *a = quantized(cube, dynamic(NB_PER_TOKEN, 0)),
             *w = codes("6,2", along(NB_PER_AXIS, 1, 0, "2")), *bias = input(NB_F32, "2"),
             *residual = input(NB_F32, "B,S,2");
    binary(NB_OP_qmatmul, a, w);
    ir_expect(&t, "f32[B,S,2]");
    ir_begin(&t, NB_OP_qmatmul, a, w, bias, residual);
    ir_expect(&t, "f32[B,S,2]");
    nb_value *blocks = quantized(cube, dynamic(NB_PER_BLOCK, 3)),
             *groups = codes("6,2", along(NB_PER_GROUP, 0, 3, "2,2"));
    binary(NB_OP_qmatmul, blocks, groups);
    ir_expect(&t, "f32[B,S,2]");
    binary(NB_OP_qmatmul, quantized(input(NB_F32, "6"), dynamic(NB_PER_TOKEN, 0)), groups);
    ir_expect(&t, "f32[2]");
    binary(NB_OP_qmatmul, cube, w);
    ir_expect_error(&t, "takes codes and a constant matrix of codes");
    binary(NB_OP_qmatmul, a, a);
    ir_expect_error(&t, "a constant matrix");
    binary(NB_OP_qmatmul, a, codes("6,2", along(NB_PER_AXIS, 0, 0, "6")));
    ir_expect_error(&t, "summed over");
    binary(NB_OP_qmatmul, blocks, w);
    ir_expect_error(&t, "blocks of the activations");
    binary(NB_OP_qmatmul, a, codes("4,2", along(NB_PER_AXIS, 1, 0, "2")));
    ir_expect_error(&t, "the inner dimensions");
    ir_begin(&t, NB_OP_qmatmul, a, w, input(NB_F32, "6"), NULL);
    ir_expect_error(&t, "the bias is an f32 vector as long as the matrix is wide, found f32[6]");
    ir_begin(&t, NB_OP_qmatmul, a, w, NULL, bias);
    ir_expect_error(&t, "the residual has the result's type f32[B,S,2], found f32[2]");
}
END_TEST

START_TEST(qgathers) {
    nb_value *rows = codes("5,4", along(NB_PER_AXIS, 0, 0, "5")),
             *groups = codes("5,4", along(NB_PER_GROUP, 1, 2, "5,2"));
    binary(NB_OP_qgather, rows, i64);
    ir_expect(&t, "f32[S,4]");
    binary(NB_OP_qgather, groups, i32);
    ir_expect(&t, "f32[B,4,4]");
    binary(NB_OP_qgather, codes("5,4", along(NB_PER_AXIS, 1, 0, "4")), i64);
    ir_expect_error(&t, "not per row");
    binary(NB_OP_qgather, rows, x);
    ir_expect_error(&t, "a constant table of codes and integers");
    binary(NB_OP_qgather, x, i64);
    ir_expect_error(&t, "a constant table of codes");
    binary(NB_OP_qgather, rows, input(NB_I64, "1,1,1,1,1,1,1,1"));
    ir_expect_error(&t, "rank 9");
}
END_TEST

/* An error names the node. */
START_TEST(places) {
    t.b.loc = nb_loc_at(t.graph, "/fc1/Add");
    binary(NB_OP_add, x, y);
    ir_expect_error(&t, "add: ");
    ck_assert_str_eq(t.diags->last->where.node, "/fc1/Add");
    ck_assert_int_eq(t.diags->last->status, NB_MALFORMED);
}
END_TEST

Suite *nb_suite_ir_infer(void) {
    Suite *s = suite_create("ir_infer");
    TCase *c = tcase_create("rules");
    tcase_add_checked_fixture(c, open_graph, close_graph);
    tcase_add_test(c, domains);
    tcase_add_test(c, broadcasts);
    tcase_add_test(c, where_and_cast);
    tcase_add_test(c, reductions);
    tcase_add_test(c, softmax_and_norms);
    tcase_add_test(c, reshapes);
    tcase_add_test(c, transposes_and_expands);
    tcase_add_test(c, concats);
    tcase_add_test(c, slices);
    tcase_add_test(c, gathers);
    tcase_add_test(c, along_an_axis);
    tcase_add_test(c, scatters);
    tcase_add_test(c, pads);
    tcase_add_test(c, values_of_dims);
    tcase_add_test(c, matmuls);
    tcase_add_test(c, convs);
    tcase_add_test(c, rotaries);
    tcase_add_test(c, hadamards);
    tcase_add_test(c, attentions);
    tcase_add_test(c, quantizes);
    tcase_add_test(c, codes_and_scales);
    tcase_add_test(c, attention_to_codes);
    tcase_add_test(c, attention_to_u4);
    tcase_add_test(c, codes_of_4_bits);
    tcase_add_test(c, qmatmuls);
    tcase_add_test(c, qgathers);
    tcase_add_test(c, places);
    suite_add_tcase(s, c);
    return s;
}
