/* Quantization and products of codes: cases worked out by hand, and the definition that a matmul
 * of two dequantized values is the qmatmul of their codes. */
#include "ir/scalar.h"
#include "tests/unit/test_eval_graph.h"

#include <string.h>

static eval_graph t;
static void open_graph(void) { eval_open(&t); }
static void close_graph(void) { eval_close(&t); }

/* ---- descriptors --------------------------------------------------------------------------- */

static const nb_quant *per_tensor(nb_elem storage, float scale, int64_t zero) {
    return eval_quant(&t, (nb_quant){.storage = storage, .scale = scale, .zero = zero});
}
static const nb_quant *per_token(nb_elem storage) {
    return eval_quant(&t, (nb_quant){.storage = storage,
                                     .granularity = NB_PER_TOKEN,
                                     .amax_code = storage == NB_I16 ? 32639 : 127});
}
static const nb_quant *per_block(int64_t group) {
    return eval_quant(
        &t, (nb_quant){
                .storage = NB_I8, .granularity = NB_PER_BLOCK, .group = group, .amax_code = 127});
}
static const nb_quant *per_axis(nb_elem storage, int axis, nb_value *scales, nb_value *zeros) {
    return eval_quant(&t, (nb_quant){.storage = storage,
                                     .granularity = NB_PER_AXIS,
                                     .axis = axis,
                                     .scales = scales,
                                     .zeros = zeros});
}
static const nb_quant *per_group(nb_elem storage, int axis, int64_t group, nb_value *scales,
                                 nb_value *zeros) {
    return eval_quant(&t, (nb_quant){.storage = storage,
                                     .granularity = NB_PER_GROUP,
                                     .axis = axis,
                                     .group = group,
                                     .scales = scales,
                                     .zeros = zeros});
}

static nb_value *quantize(nb_value *x, const nb_quant *q) {
    nb_begin(&t.b, NB_OP_quantize);
    nb_arg(&t.b, x);
    nb_set_quant(&t.b, "to", q);
    return nb_end(&t.b);
}
static nb_value *dequantize(nb_value *x) { return nb_unary(&t.b, NB_OP_dequantize, x); }
static nb_value *matmul(nb_value *a, nb_value *b) { return nb_binary(&t.b, NB_OP_matmul, a, b); }
static nb_value *qmatmul(nb_value *a, nb_value *b, nb_value *bias, nb_value *residual) {
    nb_begin(&t.b, NB_OP_qmatmul);
    nb_arg(&t.b, a);
    nb_arg(&t.b, b);
    nb_arg(&t.b, bias);
    nb_arg(&t.b, residual);
    return nb_end(&t.b);
}

/* ---- quantize and dequantize --------------------------------------------------------------- */

START_TEST(static_scales) {
    nb_value *x = eval_f32(&t, DIMS(6), 0.25, 0.75, -100, 100, NAN, -INFINITY);
    nb_value *i8 = quantize(x, per_tensor(NB_I8, 0.5f, 0)); /* 0.5 and 1.5 go to even */
    eval_expect(&t, i8, "0 2 -128 127 0 -128");
    eval_expect(&t, dequantize(i8), "0 1 -64 63.5 0 -64");
    nb_quant narrow = {.storage = NB_I8, .scale = 0.5f, .narrow = true};
    eval_expect(&t, quantize(x, eval_quant(&t, narrow)), "0 2 -127 127 0 -127");
    nb_value *u4 = quantize(x, per_tensor(NB_U4, 0.5f, 9));
    eval_expect(&t, u4, "9 11 0 15 9 0");
    eval_expect(&t, dequantize(u4), "0 1 -4.5 3 0 -4.5");
    eval_expect(&t, quantize(x, per_tensor(NB_I2, 0.5f, 0)), "0 1 -2 1 0 -2");
    /* 16-bit codes end where both bytes are still signed */
    eval_expect(&t, quantize(x, per_tensor(NB_I16, 0.001f, 0)), "250 750 -32768 32639 0 -32768");
}
END_TEST

/* What `quantize` made, taken apart. */
START_TEST(codes_and_scales) {
    nb_value *x = eval_f32(&t, DIMS(3, 3), 127, -63.5, 1, 0, 0, 0, NAN, 1, 2);
    nb_value *q = quantize(x, per_token(NB_I8)), *b = quantize(x, per_block(2));
    nb_value *codes = nb_unary(&t.b, NB_OP_codes, q);
    eval_expect(&t, codes, "127 -64 1 0 0 0 0 0 0");
    ck_assert(!codes->type->quant && codes->type->elem == NB_I8);
    eval_expect(&t, nb_unary(&t.b, NB_OP_scales, q), "1 0 nan");
    eval_expect(&t, nb_unary(&t.b, NB_OP_codes, b), "127 -64 127 0 0 0 0 0 127");
    eval_expect(&t, nb_unary(&t.b, NB_OP_scales, b), "1 0.0078740157 0 0 nan 0.015748031");
    /* arithmetic on them is that of plain integers */
    eval_expect(&t, nb_unary(&t.b, NB_OP_neg, codes), "-127 64 -1 0 0 0 0 0 0");
}
END_TEST

START_TEST(scales_along_axes) {
    nb_value *x = eval_f32(&t, DIMS(2, 3), 1, 2, 3, 4, 5, 6);
    nb_value *scales = eval_f32(&t, DIMS(3), 1, 0.5, 2);
    nb_value *zeros = eval_const(&t, NB_I8, NULL, DIMS(3), 0, 10, -1);
    nb_value *columns = quantize(x, per_axis(NB_I8, 1, scales, zeros));
    eval_expect(&t, columns, "1 14 1 4 20 2"); /* 3/2 goes to 2, less 1 */
    eval_expect(&t, dequantize(columns), "1 2 4 4 5 6");
    /* groups of 2 along axis 1, the last one short */
    nb_value *grid = eval_f32(&t, DIMS(2, 2), 1, 3, 0.5, 6);
    nb_value *groups = quantize(x, per_group(NB_I4, 1, 2, grid, NULL));
    eval_expect(&t, groups, "1 2 1 7 7 1");
    eval_expect(&t, dequantize(groups), "1 2 3 3.5 3.5 6");
    /* and along axis 0 */
    nb_value *rows = quantize(x, per_group(NB_I8, 0, 2, eval_f32(&t, DIMS(1, 3), 1, 2, 3), NULL));
    eval_expect(&t, rows, "1 1 1 4 2 2");
}
END_TEST

static void expect_scales(nb_value *x, const nb_quant *q, size_t n, const float *want) {
    nb_tensor y = eval_run(&t, quantize(x, q));
    for (size_t i = 0; i < n; i++)
        ck_assert_msg(isnan(want[i]) ? isnan(y.scales[i]) : y.scales[i] == want[i],
                      "scale %zu is %g, not %g", i, (double)y.scales[i], (double)want[i]);
}

START_TEST(rows_scale_themselves) {
    nb_value *x = eval_f32(&t, DIMS(6, 3), 1, -2, 0.5, /* codes 63.5, -127, 31.75 */
                           1, NAN, 2, 1, -INFINITY, 2, 0, -0.0, 0, 1e-40, 0, 0, 1e-36, 0, -1e-36);
    const float tiny = 1e-36f / 127.0f;
    expect_scales(x, per_token(NB_I8), 6, (float[]){2.0f / 127.0f, NAN, NAN, 0, 0, tiny});
    eval_expect(&t, quantize(x, per_token(NB_I8)), "64 -127 32 0 0 0 0 0 0 0 0 0 0 0 0 127 0 -127");
    eval_expect(&t,
                dequantize(quantize(eval_f32(&t, DIMS(2, 2), 127, 3.5, NAN, 1), per_token(NB_I8))),
                "127 4 nan nan");
    eval_expect(&t, quantize(eval_f32(&t, DIMS(1, 2), 1, -0.5), per_token(NB_I16)), "32639 -16320");
    eval_expect(&t, quantize(eval_value(&t, NB_F32, NULL, DIMS(3, 0), 0, NULL), per_token(NB_I8)),
                "");
}
END_TEST

START_TEST(blocks_scale_themselves) {
    nb_value *x = eval_f32(&t, DIMS(2, 3), 127, -63.5, 254, NAN, 1, 0);
    expect_scales(x, per_block(2), 4, (float[]){1, 2, NAN, 0});
    nb_value *codes = quantize(x, per_block(2));
    eval_expect(&t, codes, "127 -64 127 0 0 0");
    eval_expect(&t, dequantize(codes), "127 -64 254 nan nan 0");
}
END_TEST

/* Codes of 4 bits, two to a byte, for a scale and a minimum as f16 holds them. */
static void expect_u4(nb_value *x, nb_value *feedback, const char *codes, const char *scales,
                      const char *minima) {
    nb_begin(&t.b, NB_OP_quantize_u4);
    nb_arg(&t.b, x);
    nb_arg(&t.b, feedback);
    nb_set_int(&t.b, "group", 16);
    ck_assert(nb_end(&t.b));
    nb_value **made = t.b.op->results;
    eval_expect(&t, made[0], codes);
    eval_expect(&t, made[1], scales);
    eval_expect(&t, made[2], minima);
}

START_TEST(codes_of_4_bits) {
    /* 0 3 15 1; 0 15 (just above 7) 8 (7.5 to even) 15; all equal; NaN and infinity spoil their run
     */
    nb_value *x = eval_f32(&t, DIMS(1, 1, 5, 4), -1, 2, 14, 0.4, 0, 30, 15, 29.5, 5, 5, 5, 5, 1,
                           NAN, 2, 3, 1, HUGE_VAL, 2, 3);
    expect_u4(x, NULL, "48 31 240 248 0 0 0 0 0 0", "1 2 0 nan inf", "-1 0 5 nan 1");
    /* 0.1 in f16 is 2.44e-5 less, and 15 steps make up for it: 27 * 2^-24 is the nearest to a 15th
     */
    nb_value *same = eval_f32(&t, DIMS(1, 1, 1, 2), 0.1f, 0.1f);
    expect_u4(same, NULL, "255", "1.609325408935546875e-06", "0.0999755859375");
    /* The second run of a head is shorter; scales lie group by group. */
    double data[2 * 18] = {0};
    data[3] = 15;
    data[17] = 30;
    data[18 + 4] = 45;
    data[18 + 16] = -15;
    nb_value *two = eval_value(&t, NB_F32, NULL, DIMS(1, 1, 2, 18), 36, data);
    expect_u4(two, NULL, "0 240 0 0 0 0 0 0 240 0 0 15 0 0 0 0 0 240", "1 3 2 1", "0 0 0 -15");
}
END_TEST

/* Errors go to the elements behind: 0.1 becomes 0, and what follows it 10 times that. Of 0, 15,
 * 0.3, 0.3 + 0.3 the range that begins 2 * 0.4 steps below 0 loses least. */
START_TEST(codes_that_take_over_errors) {
    double factors[2][16] = {{0}, {0}};
    factors[0][11] = 10;
    factors[1][11] = 1;
    factors[0][14] = 1e9; /* backwards: not read */
    nb_value *f = eval_value(&t, NB_F32, NULL, DIMS(2, 4, 4), 32, factors[0]),
             *x = eval_f32(&t, DIMS(1, 2, 2, 4), 0, 15, 0.1, 0, 1, NAN, 2, 3, /* by the first F */
                           0, 15, 0.3, 0.3, 0, 0, 0, 0);
    expect_u4(x, f, "240 16 0 0 241 17 0 0", "1 nan 1.0537109375 0", "0 nan -0.7998046875 0");
    /* From run to run. */
    double data[18] = {15, 0.1}, more[18 * 18] = {0};
    more[18 + 16] = 10;
    nb_value *long_one = eval_value(&t, NB_F32, NULL, DIMS(1, 1, 1, 18), 18, data),
             *over = eval_value(&t, NB_F32, NULL, DIMS(1, 18, 18), 18 * 18, more);
    expect_u4(long_one, over, "15 0 0 0 0 0 0 0 15", "1 0.066650390625", "0 0");
}
END_TEST

START_TEST(tables) {
    nb_value *table = eval_const(&t, NB_U4,
                                 per_axis(NB_U4, 0, eval_f32(&t, DIMS(3), 1, 2, 0.5),
                                          eval_const(&t, NB_U4, NULL, DIMS(3), 8, 8, 0)),
                                 DIMS(3, 2), 9, 7, 8, 15, 1, 2);
    nb_begin(&t.b, NB_OP_qgather);
    nb_arg(&t.b, table);
    nb_arg(&t.b, eval_const(&t, NB_I64, NULL, DIMS(3), -1, 1, 0));
    eval_expect(&t, nb_end(&t.b), "0.5 1 0 14 1 -1");
    nb_begin(&t.b, NB_OP_qgather);
    nb_arg(&t.b, table);
    nb_arg(&t.b, eval_const(&t, NB_I64, NULL, DIMS(1), 3));
    eval_expect_error(&t, nb_end(&t.b), "qgather: index 3 is outside a table of 3 rows");
}
END_TEST

/* What the builder would refuse to multiply as integers. */
static void expect_obstacle(const nb_value *a, const nb_value *w, const char *why) {
    const char *found = nb_product_obstacle(a->type->quant, w->type->quant, 2);
    ck_assert_msg(found && strstr(found, why), "expected '%s', found '%s'", why,
                  found ? found : "");
}

/* Scales and minima that are codes, one of whose f16 is 0: by hand,
 *   scales  {1, 2, -3, 4, 0, 6} * {0.5, 0.25; 0.5, 0.25; 1, 2} = {0.5, 0.5; -1.5, 1; 0, 12}
 *   minima  {1, 2, 3, 4, 5, 6} * the same + 0.5              = {1, 1; 2, 1.5; 5.5, 12.5} */
START_TEST(scales_of_codes) {
    nb_value *coarse = eval_const(&t, NB_F16, NULL, DIMS(2, 2), 0.5, 0.25, 1, 2);
    nb_quant q = {
        .storage = NB_I8, .granularity = NB_PER_GROUP, .group = 2, .scale = 1, .scales = coarse};
    nb_value *scales = eval_const(&t, NB_I8, eval_quant(&t, q), DIMS(3, 2), 1, 2, -3, 4, 0, 6);
    q.minimum = 0.5;
    nb_value *minima = eval_const(&t, NB_I8, eval_quant(&t, q), DIMS(3, 2), 1, 2, 3, 4, 5, 6);
    q = (nb_quant){.storage = NB_U4,
                   .granularity = NB_PER_GROUP,
                   .group = 2,
                   .scale = 1,
                   .scales = scales,
                   .minima = minima};
    nb_value *w =
        eval_const(&t, NB_U4, eval_quant(&t, q), DIMS(5, 2), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10);
    eval_expect(&t, dequantize(w), "1.5 2 2.5 3 -5.5 7.5 -8.5 9.5 5.5 132.5");
    expect_obstacle(eval_const(&t, NB_I8, per_tensor(NB_I8, 1, 0), DIMS(1, 5), 1, 1, 1, 1, 1), w,
                    "have minima");
    /* Without minima such weights multiply as codes: 4*0.5 - 12*1.5 + 9*0, 6*0.5 + 14*1 + 10*12. */
    q.minima = NULL;
    q.zero = 0;
    w = eval_const(&t, NB_U4, eval_quant(&t, q), DIMS(5, 2), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10);
    nb_value *ones = eval_const(&t, NB_I8, per_tensor(NB_I8, 1, 0), DIMS(1, 5), 1, 1, 1, 1, 1);
    eval_expect(&t, qmatmul(ones, w, NULL, NULL), "-16 137");
    /* One minimum for all, after the product is rounded. */
    q = (nb_quant){.storage = NB_I8, .scale = 0.5F, .minimum = -3};
    eval_expect(&t, dequantize(eval_const(&t, NB_I8, eval_quant(&t, q), DIMS(3), 1, -2, 6)),
                "-2.5 -4 0");
}
END_TEST

/* ---- products ------------------------------------------------------------------------------ */

START_TEST(products_per_column) {
    nb_value *w = eval_const(&t, NB_I8, per_axis(NB_I8, 1, eval_f32(&t, DIMS(2), 0.25, 2), NULL),
                             DIMS(2, 2), 1, 2, 3, -4);
    nb_value *a = eval_const(&t, NB_I8, per_tensor(NB_I8, 0.5f, 0), DIMS(1, 2), 10, -20);
    /* sums -50 and 100 */
    eval_expect(&t, qmatmul(a, w, NULL, NULL), "-6.25 100");
    nb_value *wide = eval_const(&t, NB_I16, per_tensor(NB_I16, 0.5f, 0), DIMS(1, 2), 300, -129);
    /* sums -87 and 1116 */
    nb_value *bias = eval_f32(&t, DIMS(2), 1, -1), *more = eval_f32(&t, DIMS(1, 2), 0.5, 0.25);
    eval_expect(&t, qmatmul(wide, w, NULL, NULL), "-10.875 1116");
    eval_expect(&t, qmatmul(wide, w, bias, more), "-9.375 1115.25");
    eval_expect(&t, qmatmul(wide, w, NULL, more), "-10.375 1116.25");
}
END_TEST

START_TEST(products_in_groups) {
    /* weights less their zeros: 1, 0 in the first group, 1 in the short second one */
    nb_value *scales = eval_f32(&t, DIMS(2, 1), 0.5, 2);
    nb_value *zeros = eval_const(&t, NB_U4, NULL, DIMS(2, 1), 8, 6);
    nb_value *w = eval_const(&t, NB_U4, per_group(NB_U4, 0, 2, scales, zeros), DIMS(3, 1), 9, 8, 7);
    nb_value *a = eval_const(&t, NB_I8, per_tensor(NB_I8, 1, 0), DIMS(2, 3), 10, 20, 30, 1, 1, -1);
    eval_expect(&t, qmatmul(a, w, NULL, NULL), "65 -1.5");
    /* block scales 1 and 2: 127 * 1 * 0.5 + 127 * 2 * 2; a row with a NaN is NaN */
    nb_value *x = eval_f32(&t, DIMS(2, 3), 127, -63.5, 254, NAN, 1, 0);
    eval_expect(&t, qmatmul(quantize(x, per_block(2)), w, NULL, NULL), "571.5 nan");
    /* per token: scale 2, codes 64 (63.5 to even), -32, 127 */
    eval_expect(&t, qmatmul(quantize(x, per_token(NB_I8)), w, NULL, NULL), "572 nan");
}
END_TEST

/* Sums beyond 32 bits are exact and rounded once: 600 * 32639 * 127 = 2487091800. */
START_TEST(long_sums) {
    enum { K = 600 };
    static double a[K], w[K];
    for (int k = 0; k < K; k++) {
        a[k] = 32639;
        w[k] = 127;
    }
    nb_value *x = eval_value(&t, NB_I16, per_tensor(NB_I16, 1, 0), DIMS(1, K), K, a);
    nb_value *m = eval_value(&t, NB_I8, per_tensor(NB_I8, 1, 0), DIMS(K, 1), K, w);
    eval_expect(&t, qmatmul(x, m, NULL, NULL), "2487091712");
    a[K - 1] = 32640;
    x = eval_value(&t, NB_I16, per_tensor(NB_I16, 1, 0), DIMS(1, K), K, a);
    eval_expect_error(&t, qmatmul(x, m, NULL, NULL), "code 32640 of the activations");
}
END_TEST

START_TEST(products_that_are_none) {
    nb_value *w = eval_const(&t, NB_I8, per_tensor(NB_I8, 1, 0), DIMS(2, 1), 3, 4);
    nb_value *a = eval_const(&t, NB_I16, per_tensor(NB_I16, 1, 5), DIMS(1, 2), 6, 7);
    expect_obstacle(a, w, "the activations have a zero point");
    /* ... but dequantized they are floats like others */
    eval_expect(&t, matmul(dequantize(a), dequantize(w)), "11");
    nb_value *blocks = quantize(eval_f32(&t, DIMS(1, 2), 127, 1), per_block(1));
    expect_obstacle(blocks, w, "are not the groups of the weights");
    eval_expect(&t, matmul(dequantize(blocks), dequantize(w)), "385");
    nb_value *u16 = eval_const(&t, NB_U16, per_tensor(NB_U16, 1, 0), DIMS(1, 2), 6, 7);
    expect_obstacle(u16, w, "the activations are not i8, u8 or i16");
}
END_TEST

static nb_value *depthwise(nb_op_kind kind, nb_value *x, nb_value *w, nb_value *bias, bool sums) {
    nb_begin(&t.b, kind);
    nb_arg(&t.b, x);
    nb_arg(&t.b, w);
    nb_arg(&t.b, bias);
    if (kind == NB_OP_qdepthwise) nb_arg(&t.b, NULL);
    if (sums) nb_set_bool(&t.b, "sums", true);
    return nb_end(&t.b);
}

/* 1 * 1 + 2 * 3, 9 * 2 - 19 * 4; one place on 2 * 1 + 4 * 3, 19 * 2 - 29 * 4. */
START_TEST(products_by_channel) {
    nb_value *scales = eval_f32(&t, DIMS(2), 0.25, 2), *bias = eval_f32(&t, DIMS(2), 1, -1);
    nb_value *w = eval_const(&t, NB_I8, per_axis(NB_I8, 1, scales, NULL), DIMS(2, 2), 1, 2, 3, -4);
    nb_value *x =
        eval_const(&t, NB_I8, per_tensor(NB_I8, 0.5f, 1), DIMS(1, 3, 2), 2, 10, 3, 20, 5, 30);
    eval_expect(&t, depthwise(NB_OP_qdepthwise, x, w, NULL, true), "7 -58 14 -78");
    eval_expect(&t, depthwise(NB_OP_qdepthwise, x, w, bias, false), "1.875 -59 2.75 -79");
    eval_expect(&t, depthwise(NB_OP_depthwise, dequantize(x), dequantize(w), bias, false),
                "1.875 -59 2.75 -79");
    const nb_quant one = {.storage = NB_I8, .scale = 1}, byte = {.storage = NB_U8, .scale = 1},
                   rows = *per_axis(NB_I8, 0, scales, NULL), token = *per_token(NB_I8),
                   wide = {.storage = NB_I16, .scale = 1};
    const struct {
        const nb_quant *x, *w;
        int64_t positions;
        const char *why;
    } refused[] = {
        {&wide, &one, 9, "the activations are not i8 or u8"},
        {&token, &one, 9, "the activations have no one scale"},
        {&one, &wide, 9, "the weights have more than 8 bits"},
        {&one, &byte, 9, "the weights, less their zero point, are not signed bytes"},
        {&one, &rows, 9, "the scales of the weights do not lie along the channels"},
        {&one, &one, 32769, "a kernel of more than 32768 positions is not exact in 32 bits"},
    };
    for (size_t i = 0; i < NB_COUNT(refused); i++)
        ck_assert_str_eq(nb_depthwise_obstacle(refused[i].x, refused[i].w, 1, refused[i].positions),
                         refused[i].why);
}
END_TEST

/* (6 - 5) * 3 + (7 - 5) * 4, and of u8; as codes; as sums. */
START_TEST(products_of_codes_with_zero_points) {
    nb_value *w = eval_const(&t, NB_I8, per_tensor(NB_I8, 0.5f, 0), DIMS(2, 1), 3, 4);
    nb_value *a = eval_const(&t, NB_I8, per_tensor(NB_I8, 2, 5), DIMS(1, 2), 6, 7);
    nb_value *u = eval_const(&t, NB_U8, per_tensor(NB_U8, 2, 250), DIMS(1, 2), 255, 0);
    eval_expect(&t, qmatmul(a, w, NULL, NULL), "11");
    eval_expect(&t, qmatmul(u, w, NULL, NULL), "-985");
    eval_expect(&t, matmul(dequantize(u), dequantize(w)), "-985");
    nb_value *bias = eval_f32(&t, DIMS(1), 0.5);
    const struct {
        const nb_quant *to;
        const char *want;
    } made[] = {{per_tensor(NB_U8, 1, 3), "15"}, /* 11.5 to even */
                {per_tensor(NB_I8, 0.05f, -100), "127"},
                {per_tensor(NB_I8, -0.05f, 0), "-128"}};
    for (size_t i = 0; i < NB_COUNT(made); i++) {
        nb_begin(&t.b, NB_OP_qmatmul);
        nb_value *const in[4] = {a, w, bias, NULL};
        for (int k = 0; k < 4; k++) nb_arg(&t.b, in[k]);
        nb_set_quant(&t.b, "to", made[i].to);
        eval_expect(&t, nb_unary(&t.b, NB_OP_codes, nb_end(&t.b)), made[i].want);
    }
    nb_begin(&t.b, NB_OP_qmatmul);
    nb_value *const in[4] = {u, w, NULL, NULL};
    for (int k = 0; k < 4; k++) nb_arg(&t.b, in[k]);
    nb_set_bool(&t.b, "sums", true);
    eval_expect(&t, nb_end(&t.b), "-985");
    nb_value *plain = eval_const(&t, NB_U8, NULL, DIMS(3), 1, 2, 255);
    nb_begin(&t.b, NB_OP_as_codes);
    nb_arg(&t.b, plain);
    nb_set_quant(&t.b, "to", per_tensor(NB_U8, 0.5f, 1));
    eval_expect(&t, dequantize(nb_end(&t.b)), "0 0.5 127");
}
END_TEST

/* Random weights of 5 columns in the three layouts of scales. */
static nb_value *weights(int layout, int64_t K) {
    enum { N = 5 };
    static double codes[64 * N], scales[64 * N];
    for (int i = 0; i < 64 * N; i++) {
        codes[i] = (i * 37 + 11) % 255 - 127;
        scales[i] = 0.001 * (1 + (i * 29) % 17);
    }
    int64_t groups = (K + 15) / 16;
    nb_value *s = layout == 2
                      ? eval_value(&t, NB_F32, NULL, DIMS(groups, N), (size_t)groups * N, scales)
                      : eval_value(&t, NB_F32, NULL, DIMS(N), N, scales);
    const nb_quant *q = layout == 0   ? per_tensor(NB_I8, 0.01f, 0)
                        : layout == 1 ? per_axis(NB_I8, 1, s, NULL)
                                      : per_group(NB_I8, 0, 16, s, NULL);
    return eval_value(&t, NB_I8, q, DIMS(K, N), (size_t)K * N, codes);
}

START_TEST(fused_equals_unfused) {
    enum { K = 40 };
    nb_value *x = eval_random(&t, 5, DIMS(2, 3, K));
    const nb_quant *acts[] = {per_tensor(NB_I8, 0.01f, 0), per_token(NB_I8), per_token(NB_I16),
                              per_tensor(NB_I16, 0.00005f, 0), per_block(16)};
    for (size_t a = 0; a < NB_COUNT(acts); a++) {
        for (int layout = 0; layout < 3; layout++) {
            if (acts[a]->granularity == NB_PER_BLOCK && layout != 2) continue;
            nb_value *w = weights(layout, K), *q = quantize(x, acts[a]);
            nb_tensor fused = eval_run(&t, qmatmul(q, w, NULL, NULL));
            nb_value *dw = dequantize(w);
            nb_tensor unfused = eval_run(&t, matmul(dequantize(q), dw));
            ck_assert_msg(eval_same(&fused, 0, &unfused, 0, 2 * 3 * 5), "%zu %d", a, layout);
            /* Close to the product of floats, which is something else. */
            nb_tensor plain = eval_run(&t, matmul(nb_unary(&t.b, NB_OP_neg, dequantize(q)), dw));
            for (int64_t i = 0; i < 2 * 3 * 5; i++)
                ck_assert(fabs(nb_tensor_get(&fused, i) + nb_tensor_get(&plain, i)) < 1e-4);
        }
    }
}
END_TEST

Suite *nb_suite_eval_quant(void) {
    Suite *suite = suite_create("eval_quant");
    TCase *tests = tcase_create("eval_quant");
    tcase_add_checked_fixture(tests, open_graph, close_graph);
    tcase_add_test(tests, static_scales);
    tcase_add_test(tests, codes_and_scales);
    tcase_add_test(tests, scales_along_axes);
    tcase_add_test(tests, rows_scale_themselves);
    tcase_add_test(tests, blocks_scale_themselves);
    tcase_add_test(tests, codes_of_4_bits);
    tcase_add_test(tests, codes_that_take_over_errors);
    tcase_add_test(tests, tables);
    tcase_add_test(tests, scales_of_codes);
    tcase_add_test(tests, products_per_column);
    tcase_add_test(tests, products_by_channel);
    tcase_add_test(tests, products_in_groups);
    tcase_add_test(tests, long_sums);
    tcase_add_test(tests, products_that_are_none);
    tcase_add_test(tests, products_of_codes_with_zero_points);
    tcase_add_test(tests, fused_equals_unfused);
    suite_add_tcase(suite, tests);
    return suite;
}
