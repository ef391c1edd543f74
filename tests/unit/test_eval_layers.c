/* Reductions, norms, softmax, rotary, attention and matmul: cases worked out by hand, the order of
 * sums, and the promise that a row of attention does not depend on what else is computed. */
#include "ir/scalar.h"
#include "tests/unit/test_eval_graph.h"

static eval_graph t;
static void open_graph(void) { eval_open(&t); }
static void close_graph(void) { eval_close(&t); }

#define I(...) ((const int64_t[]){__VA_ARGS__})

/* ---- reductions ---------------------------------------------------------------------------- */

static nb_value *reduce(nb_op_kind kind, nb_value *x, size_t n, const int64_t *axes, bool keep) {
    nb_begin(&t.b, kind);
    nb_arg(&t.b, x);
    nb_set_ints(&t.b, "axes", n, axes);
    nb_set_bool(&t.b, "keep", keep);
    return nb_end(&t.b);
}

START_TEST(reductions) {
    nb_value *x = eval_f32(&t, DIMS(2, 3), 1, 2, 3, 4, 5, 9);
    eval_expect(&t, reduce(NB_OP_reduce_sum, x, 1, I(1), false), "6 18");
    eval_expect(&t, reduce(NB_OP_reduce_sum, x, 1, I(0), true), "5 7 12");
    eval_expect(&t, reduce(NB_OP_reduce_sum, x, 0, NULL, false), "24");
    eval_expect(&t, reduce(NB_OP_reduce_mean, x, 2, I(1, 0), false), "4");
    eval_expect(&t, reduce(NB_OP_reduce_prod, x, 1, I(1), false), "6 180");
    eval_expect(&t, reduce(NB_OP_reduce_max, x, 1, I(0), false), "4 5 9");
    eval_expect(&t, reduce(NB_OP_reduce_min, x, 1, I(1), false), "1 4");
    nb_value *special = eval_f32(&t, DIMS(3, 2), -0.0, 0, NAN, 1, -INFINITY, 2);
    eval_expect(&t, reduce(NB_OP_reduce_max, special, 1, I(1), false), "0 nan 2");
    eval_expect(&t, reduce(NB_OP_reduce_min, special, 1, I(1), false), "-0 nan -inf");
}
END_TEST

START_TEST(reductions_of_nothing) {
    nb_value *none = eval_value(&t, NB_F32, NULL, DIMS(2, 0), 0, NULL);
    eval_expect(&t, reduce(NB_OP_reduce_sum, none, 1, I(1), false), "0 0");
    eval_expect(&t, reduce(NB_OP_reduce_max, none, 1, I(1), false), "-inf -inf");
    eval_expect(&t, reduce(NB_OP_reduce_min, none, 1, I(1), false), "inf inf");
    eval_expect(&t, reduce(NB_OP_reduce_prod, none, 1, I(1), false), "1 1");
    eval_expect(&t, reduce(NB_OP_reduce_mean, none, 1, I(1), false), "nan nan");
    eval_expect(&t, reduce(NB_OP_reduce_sum, none, 1, I(0), false), "");
}
END_TEST

START_TEST(reductions_of_integers) {
    nb_value *x = eval_const(&t, NB_I8, NULL, DIMS(4), 100, 100, -3, -100);
    eval_expect(&t, reduce(NB_OP_reduce_sum, x, 0, NULL, false), "97");
    eval_expect(&t, reduce(NB_OP_reduce_mean, x, 0, NULL, false), "24"); /* 97 / 4 truncated */
    eval_expect(&t, reduce(NB_OP_reduce_max, x, 0, NULL, false), "100");
    nb_value *u = eval_const(&t, NB_U8, NULL, DIMS(2), 200, 100);
    eval_expect(&t, reduce(NB_OP_reduce_sum, u, 0, NULL, false), "44"); /* wraps */
    eval_expect(&t, reduce(NB_OP_reduce_mean, u, 0, NULL, false), "150");
    nb_value *b = eval_const(&t, NB_BOOL, NULL, DIMS(2), 0, 1);
    eval_expect(&t, reduce(NB_OP_reduce_max, b, 0, NULL, false), "1");
    eval_expect(&t, reduce(NB_OP_reduce_min, b, 0, NULL, false), "0");
}
END_TEST

/* 2^24 swallows a 1 that is added to it, so the result tells which numbers met first. */
START_TEST(sums_in_sixteen_lanes) {
    nb_value *apart =
        eval_f32(&t, DIMS(18), 16777216, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0);
    /* lane 0: 2^24 + 1 is lost; lanes 1 and 9 make 2, which is not. */
    eval_expect(&t, reduce(NB_OP_reduce_sum, apart, 0, NULL, false), "16777218");
    nb_value *in_order = eval_const(&t, NB_F64, NULL, DIMS(3), 9007199254740992, 1, 1);
    eval_expect(&t, reduce(NB_OP_reduce_sum, in_order, 0, NULL, false), "9007199254740992");
}
END_TEST

/* ---- softmax and norms --------------------------------------------------------------------- */

static nb_value *softmax(nb_value *x, int64_t axis) {
    nb_begin(&t.b, NB_OP_softmax);
    nb_arg(&t.b, x);
    nb_set_int(&t.b, "axis", axis);
    return nb_end(&t.b);
}

START_TEST(softmaxes) {
    nb_value *x = eval_f32(&t, DIMS(2, 2), 7, 7, 7, -INFINITY);
    eval_expect(&t, softmax(x, 1), "0.5 0.5 1 0");
    eval_expect(&t, softmax(x, 0), "0.5 1 0.5 0");
    eval_expect(&t, softmax(eval_f32(&t, DIMS(1), -3.4028235e38), 0), "1");
    /* a row that is masked completely: by the smallest number, by minus infinity */
    eval_expect(&t, softmax(eval_f32(&t, DIMS(2), -3.4028235e38, -3.4028235e38), 0), "0.5 0.5");
    eval_expect(&t, softmax(eval_f32(&t, DIMS(2), -INFINITY, -INFINITY), 0), "nan nan");
    eval_expect(&t, softmax(eval_f32(&t, DIMS(2), INFINITY, 0), 0), "nan nan");
    eval_expect(&t, softmax(eval_const(&t, NB_F16, NULL, DIMS(2), 1, 1), 0), "0.5 0.5");
    eval_expect(&t, softmax(eval_value(&t, NB_F32, NULL, DIMS(2, 0), 0, NULL), 1), "");
}
END_TEST

static nb_value *norm(nb_op_kind kind, nb_value *x, nb_value *gain, nb_value *bias, float eps) {
    nb_begin(&t.b, kind);
    nb_arg(&t.b, x);
    nb_arg(&t.b, gain);
    if (kind == NB_OP_layer_norm) nb_arg(&t.b, bias);
    nb_set_float(&t.b, "eps", eps);
    return nb_end(&t.b);
}

START_TEST(norms) {
    nb_value *gain = eval_f32(&t, DIMS(2), 10, 100), *bias = eval_f32(&t, DIMS(2), 1, -1);
    nb_value *x = eval_f32(&t, DIMS(2, 2), 2, -2, 4, 4);
    eval_expect(&t, norm(NB_OP_rms_norm, x, gain, NULL, 0), "10 -100 10 100");
    /* mean 0, deviation 2; mean 4, deviation 0 saved by eps */
    eval_expect(&t, norm(NB_OP_layer_norm, x, gain, NULL, 0), "10 -100 nan nan");
    eval_expect(&t, norm(NB_OP_layer_norm, x, gain, bias, 12), "6 -51 1 -1");
    nb_value *ones = eval_const(&t, NB_F16, NULL, DIMS(2), 1, 1);
    nb_value *half = eval_const(&t, NB_F16, NULL, DIMS(2), 3, -3);
    eval_expect(&t, norm(NB_OP_rms_norm, half, ones, NULL, 0), "1 -1");
}
END_TEST

/* ---- rotary -------------------------------------------------------------------------------- */

static nb_value *rotary(nb_value *x, nb_value *cosine, nb_value *sine, bool interleaved) {
    nb_begin(&t.b, NB_OP_rotary);
    nb_arg(&t.b, x);
    nb_arg(&t.b, cosine);
    nb_arg(&t.b, sine);
    nb_set_bool(&t.b, "interleaved", interleaved);
    return nb_end(&t.b);
}

START_TEST(rotations) {
    nb_value *x = eval_f32(&t, DIMS(1, 1, 2, 4), 1, 2, 3, 4, 5, 6, 7, 8);
    /* position 0 stays; position 1 turns its first pair by 90 degrees, its second by 180 */
    nb_value *cosine = eval_f32(&t, DIMS(1, 2, 2), 1, 1, 0, -1);
    nb_value *sine = eval_f32(&t, DIMS(1, 2, 2), 0, 0, 1, 0);
    eval_expect(&t, rotary(x, cosine, sine, false), "1 2 3 4 -7 -6 5 -8");
    eval_expect(&t, rotary(x, cosine, sine, true), "1 2 3 4 -6 5 -7 -8");
}
END_TEST

static nb_value *hadamard(nb_value *x, int64_t block) {
    nb_begin(&t.b, NB_OP_hadamard);
    nb_arg(&t.b, x);
    nb_set_int(&t.b, "block", block);
    return nb_end(&t.b);
}

START_TEST(hadamards) {
    nb_value *x = eval_f32(&t, DIMS(2, 4), 1, 2, 3, 4, 0, 0, 8, 0);
    eval_expect(&t, hadamard(x, 1), "1 2 3 4 0 0 8 0");
    /* rows of [1 1 1 1; 1 -1 1 -1; 1 1 -1 -1; 1 -1 -1 1] / 2 */
    eval_expect(&t, hadamard(x, 4), "5 -1 -2 0 4 4 -4 -4");
    eval_expect(&t, hadamard(hadamard(x, 4), 4), "1 2 3 4 0 0 8 0");
    /* Rows of 7: blocks of 4, 2 and 1. */
    eval_expect(&t,
                hadamard(eval_f32(&t, DIMS(2, 7), 1, 2, 3, 4, 8, 0, 9, 0, 0, 8, 0, 0, 0, -1), 4),
                "5 -1 -2 0 5.656854 5.656854 9 4 4 -4 -4 0 0 -1");
    /* 1/sqrt(2) is 0.70710677 in f32, and the product is rounded once more. Stages begin with
     * neighbours: (2^24 + 1) - 1 would be 2^24 - 1 the other way round. */
    eval_expect(&t, hadamard(eval_f32(&t, DIMS(2), 3, 1), 2), "2.828427 1.4142135");
    nb_value *order = eval_f32(&t, DIMS(4), 16777216, 1, -1, 0);
    eval_expect(&t, hadamard(order, 4), "8388607.5 8388607 8388608 8388608");
    nb_value *hard = eval_f32(&t, DIMS(3, 2), NAN, 1, INFINITY, 1, 3e38, 3e38);
    eval_expect(&t, hadamard(hard, 2), "nan nan inf inf inf 0");
    eval_expect(&t, hadamard(eval_value(&t, NB_F32, NULL, DIMS(0, 4), 0, NULL), 4), "");
}
END_TEST

/* ---- matmul -------------------------------------------------------------------------------- */

#define MATMUL(x, y) nb_binary(&t.b, NB_OP_matmul, x, y)

START_TEST(matmuls) {
    nb_value *a = eval_f32(&t, DIMS(2, 3), 1, 2, 3, 4, 5, 6);
    nb_value *b = eval_f32(&t, DIMS(3, 2), 1, 0, 0, 1, 1, 1);
    eval_expect(&t, MATMUL(a, b), "4 5 10 11");
    nb_value *batch = eval_f32(&t, DIMS(2, 1, 1, 2), 1, 2, 3, 4);
    nb_value *others = eval_f32(&t, DIMS(2, 2, 1), 1, 10, 100, 1000);
    eval_expect(&t, MATMUL(batch, others), "21 2100 43 4300");
    nb_value *none = eval_value(&t, NB_F32, NULL, DIMS(2, 0), 0, NULL);
    nb_value *empty = eval_value(&t, NB_F32, NULL, DIMS(0, 2), 0, NULL);
    eval_expect(&t, MATMUL(none, empty), "0 0 0 0");
    eval_expect(&t, MATMUL(empty, eval_f32(&t, DIMS(2, 1), 1, 2)), "");
    nb_value *i = eval_const(&t, NB_I8, NULL, DIMS(1, 2), 100, -1);
    eval_expect(&t, MATMUL(i, eval_const(&t, NB_I8, NULL, DIMS(2, 1), 2, 1)), "-57"); /* 199-256 */
    nb_value *h = eval_const(&t, NB_F16, NULL, DIMS(1, 2), 2048, 1);
    /* 2049.5 in f32, rounded once to 2050 */
    eval_expect(&t, MATMUL(h, eval_const(&t, NB_F16, NULL, DIMS(2, 1), 1, 1.5)), "2050");
    nb_value *d = eval_const(&t, NB_F64, NULL, DIMS(1, 1), 0.1);
    eval_expect(&t, MATMUL(d, eval_const(&t, NB_F64, NULL, DIMS(1, 1), 3)), "0.30000000000000004");
}
END_TEST

/* (1+e)(1+e) - (1+2e) is e^2 only if the product is not rounded before it is added. */
START_TEST(matmul_is_fma) {
    float e = 1.0f / 8192 / 1024;
    nb_value *a = eval_f32(&t, DIMS(1, 2), 1, (double)(1 + e));
    nb_value *b = eval_f32(&t, DIMS(2, 1), -1 - 2 * (double)e, (double)(1 + e));
    eval_expect(&t, MATMUL(a, b), "1.42108547e-14");
}
END_TEST

/* The quick loop and the plain one have the same bits as the definition. */
START_TEST(matmul_as_defined) {
    enum { M = 3, K = 37, N = 29 };
    nb_tensor a = nb_tensor_of_const(eval_random(&t, 1, DIMS(M, K)));
    nb_tensor b = nb_tensor_of_const(eval_random(&t, 2, DIMS(K, N)));
    nb_tensor y =
        eval_run(&t, MATMUL(eval_random(&t, 1, DIMS(M, K)), eval_random(&t, 2, DIMS(K, N))));
    for (int m = 0; m < M; m++) {
        for (int n = 0; n < N; n++) {
            float acc = 0;
            for (int k = 0; k < K; k++)
                acc = fmaf(((float *)a.data)[m * K + k], ((float *)b.data)[k * N + n], acc);
            ck_assert_uint_eq(nb_bits(acc), nb_bits(((float *)y.data)[m * N + n]));
        }
    }
}
END_TEST

/* ---- attention ----------------------------------------------------------------------------- */

static nb_value *attention(nb_value *q, nb_value *k, nb_value *v, nb_value *mask) {
    nb_begin(&t.b, NB_OP_attention);
    nb_arg(&t.b, q);
    nb_arg(&t.b, k);
    nb_arg(&t.b, v);
    nb_arg(&t.b, mask);
    nb_set_float(&t.b, "scale", 0.5f);
    return nb_end(&t.b);
}

/* ---- conv ---------------------------------------------------------------------------------- */

static nb_value *conv(nb_value *x, nb_value *w, nb_value *bias, size_t axes, const int64_t *strides,
                      const int64_t *dilations, int64_t groups) {
    nb_begin(&t.b, NB_OP_conv);
    nb_arg(&t.b, x);
    nb_arg(&t.b, w);
    nb_arg(&t.b, bias);
    if (strides) nb_set_ints(&t.b, "strides", axes, strides);
    if (dilations) nb_set_ints(&t.b, "dilations", axes, dilations);
    if (groups) nb_set_int(&t.b, "groups", groups);
    return nb_end(&t.b);
}

START_TEST(convs) {
    static const int64_t two[] = {2, 2};
    nb_value *x = eval_f32(&t, DIMS(1, 1, 3, 4), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12);
    nb_value *w = eval_f32(&t, DIMS(1, 1, 2, 2), 1, 10, 100, 1000);
    eval_expect(&t, conv(x, w, NULL, 2, NULL, NULL, 0), "6521 7632 8743 10965 12076 13187");
    eval_expect(&t, conv(x, w, eval_f32(&t, DIMS(1), 0.5), 2, two, NULL, 0), "6521.5 8743.5");
    eval_expect(&t, conv(x, w, NULL, 2, NULL, two, 0), "11931 13042");
    /* Two groups of two channels, one output each. */
    nb_value *line = eval_f32(&t, DIMS(1, 4, 2), 1, 2, 3, 4, 5, 6, 7, 8);
    nb_value *pair = eval_f32(&t, DIMS(2, 2, 1), 1, 10, 100, 1000);
    eval_expect(&t, conv(line, pair, NULL, 1, NULL, NULL, 2), "31 42 7500 8600");
    /* 2048 + 1 in f32, rounded once */
    nb_value *h = eval_const(&t, NB_F16, NULL, DIMS(1, 2, 1), 2048, 1);
    eval_expect(
        &t, conv(h, eval_const(&t, NB_F16, NULL, DIMS(1, 2, 1), 1, 1.5), NULL, 1, NULL, NULL, 0),
        "2050");
    nb_value *d = eval_const(&t, NB_F64, NULL, DIMS(1, 1, 1), 0.1);
    eval_expect(&t, conv(d, eval_const(&t, NB_F64, NULL, DIMS(1, 1, 1), 3), NULL, 1, NULL, NULL, 0),
                "0.30000000000000004");
    nb_value *none = eval_value(&t, NB_F32, NULL, DIMS(0, 1, 3, 4), 0, NULL);
    eval_expect(&t, conv(none, w, NULL, 2, NULL, NULL, 0), "");
}
END_TEST

/* Channels outside, positions of the kernel inside, each step an fma. */
START_TEST(conv_as_defined) {
    enum { C = 3, L = 40, M = 2, K = 3 };
    nb_value *x = eval_random(&t, 1, DIMS(1, C, L)), *w = eval_random(&t, 2, DIMS(M, C, K));
    const float *a = (const float *)nb_tensor_of_const(x).data,
                *b = (const float *)nb_tensor_of_const(w).data;
    for (int64_t stride = 1; stride < 3; stride++) {
        nb_tensor y = eval_run(&t, conv(x, w, NULL, 1, &stride, NULL, 0));
        for (int64_t i = 0; i < nb_tensor_count(&y); i++) {
            int64_t m = i / y.dims[2], at = i % y.dims[2] * stride;
            float acc = 0;
            for (int k = 0; k < C * K; k++)
                acc = fmaf(a[k / K * L + at + k % K], b[m * C * K + k], acc);
            ck_assert_uint_eq(nb_bits(acc), nb_bits(((float *)y.data)[i]));
        }
    }
}
END_TEST

static void begin_patches(nb_op_kind kind, nb_value *x, size_t axes, const int64_t *kernel,
                          const int64_t *strides, const int64_t *dilations) {
    nb_begin(&t.b, kind);
    nb_arg(&t.b, x);
    nb_set_ints(&t.b, "kernel", axes, kernel);
    if (strides) nb_set_ints(&t.b, "strides", axes, strides);
    if (dilations) nb_set_ints(&t.b, "dilations", axes, dilations);
}

static nb_value *patches(nb_value *x, size_t axes, const int64_t *kernel, const int64_t *strides,
                         const int64_t *dilations) {
    begin_patches(NB_OP_patches, x, axes, kernel, strides, dilations);
    return nb_end(&t.b);
}

START_TEST(patches_of_kernels) {
    static const int64_t one[] = {1, 1}, two[] = {2, 2}, wide[] = {1, 3};
    nb_value *x = eval_f32(&t, DIMS(1, 1, 3, 4), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12);
    eval_expect(&t, patches(x, 2, two, two, NULL), "1 2 5 6 3 4 7 8");
    eval_expect(&t, patches(x, 2, two, NULL, two), "1 3 9 11 2 4 10 12");
    eval_expect(&t, patches(x, 2, wide, wide, NULL), "1 2 3 5 6 7 9 10 11");
    /* Channels outside. */
    nb_value *pair = eval_f32(&t, DIMS(1, 2, 1, 3), 1, 2, 3, 4, 5, 6);
    eval_expect(&t, patches(pair, 2, (int64_t[]){1, 2}, NULL, NULL), "1 2 4 5 2 3 5 6");
    eval_expect(&t, patches(pair, 2, one, NULL, NULL), "1 4 2 5 3 6");
    nb_value *half = eval_const(&t, NB_F16, NULL, DIMS(2, 1, 2), 1, 2, 3, 4);
    eval_expect(&t, patches(half, 1, one, NULL, NULL), "1 2 3 4");
    nb_value *none = eval_value(&t, NB_F32, NULL, DIMS(0, 1, 3, 4), 0, NULL);
    eval_expect(&t, patches(none, 2, two, NULL, NULL), "");
}
END_TEST

/* conv is the product of patches, to the bit; codes of patches are those that quantize makes. */
START_TEST(patches_as_defined) {
    enum { C = 3, H = 5, L = 20, M = 4, K = C * 2 * 3 };
    static const int64_t kernel[] = {2, 3}, strides[] = {1, 2}, back[] = {0, 3, 1, 2};
    nb_value *x = eval_random(&t, 1, DIMS(2, C, H, L)), *w = eval_random(&t, 2, DIMS(M, C, 2, 3));
    const nb_dim *dims[] = {nb_dim_const(t.graph, M), nb_dim_const(t.graph, K)};
    nb_value *matrix = nb_transpose(&t.b, nb_reshape(&t.b, w, 2, dims), (int64_t[]){1, 0});
    nb_value *p = patches(x, 2, kernel, strides, NULL);
    nb_tensor want = eval_run(&t, conv(x, w, NULL, 2, strides, NULL, 0));
    nb_tensor y = eval_run(&t, nb_transpose(&t.b, nb_binary(&t.b, NB_OP_matmul, p, matrix), back));
    ck_assert_int_eq(want.bytes, y.bytes);
    ck_assert(eval_same(&want, 0, &y, 0, nb_tensor_count(&y)));

    t.graph->stage = NB_STAGE_FUSED;
    nb_quant q = {.storage = NB_I8, .granularity = NB_PER_TOKEN, .amax_code = 127};
    nb_begin(&t.b, NB_OP_quantize);
    nb_arg(&t.b, p);
    nb_set_quant(&t.b, "to", eval_quant(&t, q));
    want = eval_run(&t, nb_unary(&t.b, NB_OP_dequantize, nb_end(&t.b)));
    begin_patches(NB_OP_qpatches, x, 2, kernel, strides, NULL);
    nb_set_quant(&t.b, "to", eval_quant(&t, q));
    y = eval_run(&t, nb_unary(&t.b, NB_OP_dequantize, nb_end(&t.b)));
    ck_assert_int_eq(want.bytes, y.bytes);
    ck_assert(eval_same(&want, 0, &y, 0, nb_tensor_count(&y)));
}
END_TEST

/* q, codes of keys and values, their scales, a mask. */
static nb_value *attention_i8(nb_value *q, nb_value *k, nb_value *v, nb_value *k_scales,
                              nb_value *v_scales, nb_value *mask) {
    nb_value *const operands[] = {q, k, v, mask, k_scales, v_scales};
    nb_begin(&t.b, NB_OP_attention);
    for (size_t i = 0; i < NB_COUNT(operands); i++) nb_arg(&t.b, operands[i]);
    nb_set_float(&t.b, "scale", 0.5f);
    return nb_end(&t.b);
}

START_TEST(attentions_to_codes) {
    nb_value *k = eval_const(&t, NB_I8, NULL, DIMS(1, 1, 3, 1), 1, -1, 100);
    nb_value *v = eval_const(&t, NB_I8, NULL, DIMS(1, 1, 3, 2), 10, 1, 20, -2, 127, 127);
    nb_value *scales = eval_f32(&t, DIMS(1, 1, 3, 1), 1, 0.5, 1),
             *wild = eval_f32(&t, DIMS(1, 1, 3, 1), 1, 0.5, NAN),
             *none = eval_f32(&t, DIMS(1, 1, 3, 1), 0, 0, 0);
    nb_value *mask = eval_f32(&t, DIMS(3), 0, 0, -INFINITY);
    nb_value *zero = eval_f32(&t, DIMS(1, 1, 1, 1), 0), *big = eval_f32(&t, DIMS(1, 1, 1, 1), 1e6);
    /* the same p: (10*1 + 20*0.5)/2 and (1*1 - 2*0.5)/2; what is hidden does not count */
    eval_expect(&t, attention_i8(zero, k, v, scales, scales, mask), "10 0");
    eval_expect(&t, attention_i8(zero, k, v, wild, wild, mask), "10 0");
    eval_expect(&t, attention_i8(zero, k, v, scales, wild, NULL), "nan nan");
    eval_expect(&t, attention_i8(zero, k, v, wild, scales, NULL), "nan nan");
    eval_expect(&t, attention_i8(zero, k, v, scales, none, NULL), "0 0");
    /* the last key alone, the first alone */
    eval_expect(&t, attention_i8(big, k, v, scales, scales, NULL), "127 127");
    eval_expect(&t, attention_i8(big, k, v, scales, wild, mask), "10 1");
    /* a query of codes 16383 and 5461: the same products */
    nb_value *two = eval_f32(&t, DIMS(1, 1, 1, 2), 3, 1);
    nb_value *keys = eval_const(&t, NB_I8, NULL, DIMS(1, 1, 3, 2), 1, 0, 0, 6, 0, -128);
    eval_expect(&t, attention_i8(two, keys, v, scales, scales, mask), "10 0");
}
END_TEST

START_TEST(attentions) {
    nb_value *q = eval_f32(&t, DIMS(1, 2, 1, 1), 0, 1e6);
    nb_value *k = eval_f32(&t, DIMS(1, 1, 2, 1), 1, -1);
    nb_value *v = eval_f32(&t, DIMS(1, 1, 2, 3), 1, 2, 3, 3, 4, 5);
    /* head 0 looks at both keys, head 1 at the first; they share keys and values */
    eval_expect(&t, attention(q, k, v, NULL), "2 3 4 1 2 3");
    eval_expect(&t, attention(q, k, v, eval_f32(&t, DIMS(2), -3.4028235e38, 0)), "3 4 5 3 4 5");
    /* all keys masked: the mean where the mask is finite, else NaN; no keys: NaN */
    nb_value *lowest = eval_f32(&t, DIMS(1, 1), -3.4028235e38),
             *minus = eval_f32(&t, SCALAR, -INFINITY);
    nb_value *zero = eval_f32(&t, DIMS(1, 2, 1, 1), 0, 0);
    eval_expect(&t, attention(zero, k, v, lowest), "2 3 4 2 3 4");
    eval_expect(&t, attention(zero, k, v, minus), "nan nan nan nan nan nan");
    nb_value *no_k = eval_value(&t, NB_F32, NULL, DIMS(1, 1, 0, 1), 0, NULL);
    nb_value *no_v = eval_value(&t, NB_F32, NULL, DIMS(1, 1, 0, 1), 0, NULL);
    eval_expect(&t, attention(q, no_k, no_v, NULL), "nan nan");
}
END_TEST

/* Keys and values in f16 and bf16 are the f32 that their bits stand for. */
START_TEST(attention_of_small_floats) {
    nb_value *q = eval_random(&t, 4, DIMS(1, 4, 3, 8));
    nb_value *k = eval_random(&t, 5, DIMS(1, 2, 7, 8)), *v = eval_random(&t, 6, DIMS(1, 2, 7, 8));
    static const nb_elem small[] = {NB_F16, NB_BF16};
    for (size_t i = 0; i < NB_COUNT(small) * 2; i++) {
        nb_value *sk = nb_cast(&t.b, k, small[i / 2]), *sv = nb_cast(&t.b, v, small[i % 2]);
        nb_tensor got = eval_run(&t, attention(q, sk, sv, NULL));
        nb_tensor want =
            eval_run(&t, attention(q, nb_cast(&t.b, sk, NB_F32), nb_cast(&t.b, sv, NB_F32), NULL));
        ck_assert_msg(eval_same(&got, 0, &want, 0, 4 * 3 * 8), "case %zu", i);
    }
}
END_TEST

/* A code stands for itself times its scale; the codes of queries and weights add little to that. */
START_TEST(attention_to_codes) {
    enum { T = 3 };
    nb_value *q = eval_f32(&t, DIMS(1, 2, 1, 2), 0.3, -0.7, 1.1, 0.2);
    static const double ks[] = {0.013, 0.1, 0}, vs[] = {0.007, 1, 0.3};
    static const double k[] = {127, -3, 5, 77, 9, 9}, v[] = {-127, 1, 64, 2, 11, -5};
    double kr[2 * T], vr[2 * T];
    for (int i = 0; i < 2 * T; i++) {
        kr[i] = (double)((float)k[i] * (float)ks[i / 2]);
        vr[i] = (double)((float)v[i] * (float)vs[i / 2]);
    }
    nb_value *plain = attention(q, eval_value(&t, NB_F32, NULL, DIMS(1, 1, T, 2), 2 * T, kr),
                                eval_value(&t, NB_F32, NULL, DIMS(1, 1, T, 2), 2 * T, vr), NULL);
    nb_begin(&t.b, NB_OP_attention);
    nb_arg(&t.b, q);
    nb_arg(&t.b, eval_value(&t, NB_I8, NULL, DIMS(1, 1, T, 2), 2 * T, k));
    nb_arg(&t.b, eval_value(&t, NB_I8, NULL, DIMS(1, 1, T, 2), 2 * T, v));
    nb_arg(&t.b, NULL);
    nb_arg(&t.b, eval_value(&t, NB_F32, NULL, DIMS(1, 1, T, 1), T, ks));
    nb_arg(&t.b, eval_value(&t, NB_F32, NULL, DIMS(1, 1, T, 1), T, vs));
    nb_set_float(&t.b, "scale", 0.5f);
    nb_tensor got = eval_run(&t, nb_end(&t.b)), want = eval_run(&t, plain);
    for (int i = 0; i < 4; i++)
        ck_assert_float_eq_tol(((float *)got.data)[i], ((float *)want.data)[i], 3e-3f);
}
END_TEST

/* Codes of 4 bits stand for code * scale + minimum of their token and group: keys of one group,
 * values of two, the second with 2 elements. */
START_TEST(attention_to_u4) {
    enum { T = 3, E = 18 };
    nb_value *q = eval_f32(&t, DIMS(1, 2, 1, 2), 0.3, -0.7, 1.1, 0.2);
    static const double k[] = {0x3f, 0x10, 0x72}, k_scales[] = {0.5, 0.25, 2},
                        k_minima[] = {-1, 0.125, 3}, v_scales[] = {1, 2, 0.5, 4, 0.25, 8},
                        v_minima[] = {-8, 0, 1, 2, -3, 0.1875};
    static const double keys[] = {15 * 0.5 - 1, 3 * 0.5 - 1, 0.125,
                                  0.25 + 0.125, 2 * 2 + 3,   7 * 2 + 3};
    double v[T * E / 2], values[T * E];
    for (int i = 0; i < T * E; i++) {
        int token = i / E, d = i % E, code = (7 * i + i / 5) % 16, at = d / 16 * T + token;
        v[i / 2] = (d % 2 ? v[i / 2] : 0) + (d % 2 ? 16 * code : code);
        values[i] = code * v_scales[at] + v_minima[at];
    }
    nb_value *plain =
        attention(q, eval_value(&t, NB_F32, NULL, DIMS(1, 1, T, 2), 2 * T, keys),
                  eval_value(&t, NB_F32, NULL, DIMS(1, 1, T, E), T * E, values), NULL);
    nb_begin(&t.b, NB_OP_attention);
    nb_arg(&t.b, q);
    nb_arg(&t.b, eval_value(&t, NB_U8, NULL, DIMS(1, 1, T, 1), T, k));
    nb_arg(&t.b, eval_value(&t, NB_U8, NULL, DIMS(1, 1, T, E / 2), T * E / 2, v));
    nb_arg(&t.b, NULL);
    nb_arg(&t.b, eval_value(&t, NB_F16, NULL, DIMS(1, 1, 1, T), T, k_scales));
    nb_arg(&t.b, eval_value(&t, NB_F16, NULL, DIMS(1, 1, 2, T), 2 * T, v_scales));
    nb_arg(&t.b, eval_value(&t, NB_F16, NULL, DIMS(1, 1, 1, T), T, k_minima));
    nb_arg(&t.b, eval_value(&t, NB_F16, NULL, DIMS(1, 1, 2, T), 2 * T, v_minima));
    nb_set_float(&t.b, "scale", 0.5f);
    nb_set_int(&t.b, "group", 16);
    nb_tensor got = eval_run(&t, nb_end(&t.b)), want = eval_run(&t, plain);
    ck_assert(eval_same(&got, 0, &want, 0, 2 * E));
}
END_TEST

enum { HEADS = 4, GROUPS = 2, WIDTH = 8 };

/* Rows [from, from+n) of axis 2 of x[1,heads,rows,WIDTH], `extra` rows of other numbers before. */
static nb_value *rows_of(nb_value *x, int64_t from, int64_t n, int64_t extra) {
    nb_tensor all = nb_tensor_of_const(x);
    int64_t heads = all.dims[1], rows = all.dims[2], length = n + extra;
    nb_value *part = eval_random(&t, 99, DIMS(1, heads, length, WIDTH));
    float *to = nb_tensor_of_const(part).data;
    const float *source = all.data;
    for (int64_t h = 0; h < heads; h++) {
        for (int64_t i = 0; i < n * WIDTH; i++)
            to[(h * length + extra) * WIDTH + i] = source[(h * rows + from) * WIDTH + i];
    }
    return part;
}

/* Row s of a prompt whose first query is number `from` sees keys 0..from+s after the padding. */
static nb_value *causal(int64_t from, int64_t n, int64_t keys, int64_t padding) {
    nb_value *mask = eval_random(&t, 1, DIMS(n, keys + padding));
    float *m = nb_tensor_of_const(mask).data;
    for (int64_t s = 0; s < n; s++) {
        for (int64_t k = 0; k < keys + padding; k++)
            m[s * (keys + padding) + k] =
                k < padding || k > padding + from + s ? -3.4028235e38f : 0.0f;
    }
    return mask;
}

START_TEST(rows_stand_alone) {
    enum { LENGTH = 19 };
    nb_value *q = eval_random(&t, 1, DIMS(1, HEADS, LENGTH, WIDTH));
    nb_value *k = eval_random(&t, 2, DIMS(1, GROUPS, LENGTH, WIDTH));
    nb_value *v = eval_random(&t, 3, DIMS(1, GROUPS, LENGTH, WIDTH));
    nb_tensor whole = eval_run(&t, attention(q, k, v, causal(0, LENGTH, LENGTH, 0)));
    /* {first query, queries, keys, padding}: a prompt in pieces, decoding, left padding. Keys that
     * no query may see yet are there or not. */
    static const int64_t cases[][4] = {{0, 7, 7, 0},  {7, 12, 19, 0}, {7, 5, 12, 0},
                                       {3, 4, 19, 0}, {18, 1, 19, 0}, {5, 1, 6, 0},
                                       {0, 1, 1, 0},  {0, 19, 19, 3}, {9, 2, 11, 17}};
    for (size_t c = 0; c < NB_COUNT(cases); c++) {
        int64_t from = cases[c][0], n = cases[c][1], keys = cases[c][2], padding = cases[c][3];
        nb_tensor part =
            eval_run(&t, attention(rows_of(q, from, n, 0), rows_of(k, 0, keys, padding),
                                   rows_of(v, 0, keys, padding), causal(from, n, keys, padding)));
        for (int64_t h = 0; h < HEADS; h++)
            ck_assert_msg(
                eval_same(&whole, (h * LENGTH + from) * WIDTH, &part, h * n * WIDTH, n * WIDTH),
                "case %zu, head %d", c, (int)h);
    }
}
END_TEST

/* Whatever hidden keys and values hold; but where all are hidden, each takes part. */
START_TEST(hidden_keys_do_not_count) {
    enum { KEYS = 5 };
    nb_value *q = eval_random(&t, 1, DIMS(1, HEADS, 2, WIDTH)),
             *k = eval_random(&t, 2, DIMS(1, GROUPS, KEYS, WIDTH)),
             *v = eval_random(&t, 3, DIMS(1, GROUPS, KEYS, WIDTH)),
             *mask = eval_random(&t, 1, DIMS(2, KEYS));
    float *m = nb_tensor_of_const(mask).data;
    for (int i = 0; i < 2 * KEYS; i++) m[i] = i < KEYS - 1 ? 0 : i % 2 ? -INFINITY : -2e30F;
    nb_tensor plain = eval_run(&t, attention(q, k, v, mask));
    for (int64_t h = 0; h < GROUPS; h++) {
        int64_t last = ((h + 1) * KEYS - 1) * WIDTH;
        ((float *)nb_tensor_of_const(k).data)[last] = NAN;
        ((float *)nb_tensor_of_const(v).data)[last] = INFINITY;
    }
    nb_tensor wild = eval_run(&t, attention(q, k, v, mask));
    for (int64_t h = 0; h < HEADS; h++) {
        ck_assert(eval_same(&plain, 2 * h * WIDTH, &wild, 2 * h * WIDTH, WIDTH));
        ck_assert(isfinite(((const float *)wild.data)[2 * h * WIDTH]));
        ck_assert(isnan(((const float *)wild.data)[(2 * h + 1) * WIDTH]));
    }
}
END_TEST

Suite *nb_suite_eval_layers(void) {
    Suite *suite = suite_create("eval_layers");
    TCase *tests = tcase_create("eval_layers");
    tcase_add_checked_fixture(tests, open_graph, close_graph);
    tcase_add_test(tests, reductions);
    tcase_add_test(tests, reductions_of_nothing);
    tcase_add_test(tests, reductions_of_integers);
    tcase_add_test(tests, sums_in_sixteen_lanes);
    tcase_add_test(tests, softmaxes);
    tcase_add_test(tests, norms);
    tcase_add_test(tests, rotations);
    tcase_add_test(tests, hadamards);
    tcase_add_test(tests, matmuls);
    tcase_add_test(tests, matmul_is_fma);
    tcase_add_test(tests, matmul_as_defined);
    tcase_add_test(tests, convs);
    tcase_add_test(tests, conv_as_defined);
    tcase_add_test(tests, patches_of_kernels);
    tcase_add_test(tests, patches_as_defined);
    tcase_add_test(tests, attentions);
    tcase_add_test(tests, attentions_to_codes);
    tcase_add_test(tests, attention_of_small_floats);
    tcase_add_test(tests, attention_to_codes);
    tcase_add_test(tests, attention_to_u4);
    tcase_add_test(tests, rows_stand_alone);
    tcase_add_test(tests, hidden_keys_do_not_count);
    suite_add_tcase(suite, tests);
    return suite;
}
