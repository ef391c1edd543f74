/* The importer: operators that become several ops. Types and refusals; of functions the numbers,
 * against libm. */
#include "tests/unit/test_front.h"

#include "ir/eval.h"

#include <math.h>
#include <string.h>

/* x: f32[B,S,8] through `nodes`, which end in y. */
static wire graph(wire nodes) {
    return front_model(18,
                       W(front_input("x", 1, "B,S,8"), nodes, front_put(12, front_text(1, "y"))));
}
#define INTS(name, ...) \
    front_ints(name, sizeof((int64_t[]){__VA_ARGS__}) / 8, (int64_t[]){__VA_ARGS__})
#define NODE(op, inputs, ...) front_node(op, inputs, "y", W(NONE, __VA_ARGS__))

/* ---- functions ------------------------------------------------------------------------------ */

/* y = op(x) of f32, by the evaluator. */
static void compute(const char *op, size_t n, float *x, float *y) {
    nb_status status;
    nb_arena *arena = front_arena();
    nb_diags *diags = nb_diags_create(arena, op);
    wire model = front_model(22, W(front_input("x", 1, "N"), front_node(op, "x", "y", NONE),
                                   front_put(12, front_text(1, "y"))));
    nb_graph *g = front_import(model, diags, &status);
    ck_assert_msg(g != NULL, "%s is not imported", op);
    nb_tensor in = {.elem = NB_F32, .rank = 1, .dims = {(int64_t)n}, .data = x}, out;
    in.bytes = (int64_t)(n * sizeof *x);
    ck_assert_int_eq(nb_eval(g, &in, &out, NULL, 0, arena, diags), NB_OK);
    memcpy(y, out.data, n * sizeof *y);
    nb_graph_destroy(g);
}

/* Within `ulps` units of the last place, over arguments of both signs from 2^-40 to `most`. */
static const struct {
    const char *op;
    double (*exact)(double);
    double most, ulps;
} functions[] = {
    {"Tan", tan, 1e4, 4},      {"Asin", asin, 1, 4},      {"Acos", acos, 1, 4},
    {"Atan", atan, 1e30, 1.5}, {"Sinh", sinh, 89.4, 8},   {"Cosh", cosh, 89.4, 8},
    {"Asinh", asinh, 1e38, 5}, {"Acosh", acosh, 1e38, 5}, {"Atanh", atanh, 0.9999999, 5},
};

START_TEST(accuracy) {
    enum { COUNT = 40000 };
    static float x[COUNT], y[COUNT];
    for (int i = 0; i < COUNT; i++) {
        double part = (double)(i / 2) / (COUNT / 2 - 1);
        double magnitude = exp2(-40 + part * (log2(functions[_i].most) + 40));
        x[i] = (float)(i % 2 ? -magnitude : magnitude);
    }
    compute(functions[_i].op, COUNT, x, y);
    for (int i = 0; i < COUNT; i++) {
        double want = functions[_i].exact((double)x[i]);
        int e;
        frexp(want, &e);
        double off = isnan(want) && isnan(y[i]) ? 0 : fabs((double)y[i] - want) / ldexp(1, e - 24);
        ck_assert_msg(off <= functions[_i].ulps, "%s(%a) is %a, %g ulp off", functions[_i].op,
                      (double)x[i], (double)y[i], off);
    }
}
END_TEST

START_TEST(ends) {
    float x[] = {0, 1, -1, 2, INFINITY, -INFINITY, NAN}, y[7];
    static const struct {
        const char *op;
        float want[7];
    } cases[] = {
        {"Asin", {0, 1.5707964f, -1.5707964f, NAN, NAN, NAN, NAN}},
        {"Acos", {1.5707964f, 0, 3.1415927f, NAN, NAN, NAN, NAN}},
        {"Sinh", {0, 1.1752012f, -1.1752012f, 3.6268604f, INFINITY, -INFINITY, NAN}},
        {"Cosh", {1, 1.5430807f, 1.5430807f, 3.7621956f, INFINITY, INFINITY, NAN}},
        {"Asinh", {0, 0.88137358f, -0.88137358f, 1.4436355f, INFINITY, -INFINITY, NAN}},
        {"Acosh", {NAN, 0, NAN, 1.3169579f, INFINITY, NAN, NAN}},
        {"Atanh", {0, INFINITY, -INFINITY, NAN, NAN, NAN, NAN}},
        {"Softsign", {0, 0.5f, -0.5f, 0.6666667f, NAN, NAN, NAN}},
        {"Selu", {0, 1.050701f, -1.1113307f, 2.101402f, INFINITY, -1.7580993f, NAN}},
        {"Mish", {0, 0.86509842f, -0.30340147f, 1.943959f, INFINITY, NAN, NAN}},
        {"Shrink", {0, 1, -1, 2, INFINITY, -INFINITY, 0}},
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        compute(cases[i].op, 7, x, y);
        for (int k = 0; k < 7; k++) {
            float want = cases[i].want[k];
            bool same = y[k] == want || (isnan(y[k]) && isnan(want)) ||
                        fabsf(y[k] - want) <= 1e-6f * fabsf(want);
            ck_assert_msg(same, "%s(%g) is %g", cases[i].op, (double)x[k], (double)y[k]);
        }
    }
}
END_TEST

/* ---- types and refusals --------------------------------------------------------------------- */

START_TEST(bits) {
    wire u = front_input("u", 2, "S,1");
    front_expect_type(graph(W(u, NODE("BitShift", "u,u", front_string("direction", "LEFT")))),
                      "u8[S,1]");
    front_expect(graph(W(u, NODE("BitShift", "u,u", front_string("direction", "UP")))),
                 NB_MALFORMED, "direction is 'UP', expected LEFT or RIGHT");
    front_expect(graph(NODE("BitShift", "x,x", front_string("direction", "LEFT"))), NB_MALFORMED,
                 "takes unsigned integers, found f32");
    front_expect_type(graph(W(u, NODE("BitwiseAnd", "u,u", NONE))), "u8[S,1]");
    front_expect_type(graph(W(u, NODE("BitwiseNot", "u", NONE))), "u8[S,1]");
    front_expect(graph(NODE("BitwiseOr", "x,x", NONE)), NB_MALFORMED, "takes integers, found f32");
    front_expect_type(graph(NODE("IsInf", "x", front_int("detect_negative", 0))), "bool[B,S,8]");
    front_expect_type(graph(NODE("IsNaN", "x", NONE)), "bool[B,S,8]");
}
END_TEST

START_TEST(losses) {
    wire target = front_input("t", 7, "B,8"), weight = front_zeros("w", "5");
    wire none = front_string("reduction", "none");
    front_expect_type(graph(W(target, NODE("NegativeLogLikelihoodLoss", "x,t", NONE))), "f32[]");
    front_expect_type(graph(W(target, NODE("SoftmaxCrossEntropyLoss", "x,t", none))), "f32[B,8]");
    front_expect_type(graph(W(target, weight, NODE("NegativeLogLikelihoodLoss", "x,t,w", none))),
                      "f32[B,8]"); /* 5 classes: S */
    front_expect(graph(W(target, NODE("NegativeLogLikelihoodLoss", "x,t",
                                      front_string("reduction", "all")))),
                 NB_MALFORMED, "reduction is 'all'");
    front_expect(graph(NODE("SoftmaxCrossEntropyLoss", "x,x", NONE)), NB_MALFORMED,
                 "scores of rank 3 and targets of rank 3");
    front_expect(graph(W(front_input("t", 1, "B,8"), NODE("SoftmaxCrossEntropyLoss", "x,t", NONE))),
                 NB_MALFORMED, "expected floats and integers, found f32 and f32");
    front_expect(graph(W(front_input("t", 7, "B,7"), NODE("SoftmaxCrossEntropyLoss", "x,t", NONE))),
                 NB_MALFORMED, "7 and 8 must be equal");
}
END_TEST

START_TEST(places) {
    front_expect_type(graph(NODE("ArgMax", "x", front_int("axis", -1))), "i64[B,S,1]");
    front_expect_type(graph(NODE("ArgMin", "x", front_int("axis", 1), front_int("keepdims", 0))),
                      "i64[B,8]");
    front_expect(graph(NODE("ArgMax", "x", front_int("axis", 3))), NB_MALFORMED, "axis 3");
    front_expect_type(graph(NODE("Hardmax", "x", NONE)), "f32[B,S,8]");
    wire hot = W(front_input("i", 7, "B,S"), front_zeros("v", "2"));
    front_expect_type(graph(W(hot, I64("n", 5), NODE("OneHot", "i,n,v", NONE))), "f32[B,S,5]");
    front_expect_type(graph(W(hot, I64("n", 5), NODE("OneHot", "i,n,v", front_int("axis", 0)))),
                      "f32[5,B,S]");
    front_expect(graph(W(hot, front_input("n", 7, "1"), NODE("OneHot", "i,n,v", NONE))),
                 NB_UNSUPPORTED, "the depth must be known");
    front_expect(graph(W(hot, I64("n", 5, 6), NODE("OneHot", "i,n,v", NONE))), NB_MALFORMED,
                 "the depth is 2 numbers");
    front_expect(graph(NODE("EyeLike", "x", NONE)), NB_MALFORMED, "expected a matrix");
    wire axis = I64("a", 1);
    front_expect_type(graph(W(axis, NODE("CumSum", "x,a", front_int("exclusive", 1)))),
                      "f32[B,S,8]");
    front_expect(graph(W(I64("a", 3), NODE("CumSum", "x,a", NONE))), NB_MALFORMED, "axis 3");
    front_expect_type(graph(W(I64("k", 3), NODE("TopK", "x,k", NONE))), "f32[B,S,3]");
    front_expect(graph(W(I64("k", 9), NODE("TopK", "x,k", NONE))), NB_MALFORMED,
                 "9 elements of an axis of length 8");
    front_expect(graph(W(I64("k", -1), NODE("TopK", "x,k", NONE))), NB_MALFORMED, "negative");
}
END_TEST

START_TEST(elements_and_slices) {
    wire i = front_input("i", 7, "B,2,8");
    front_expect_type(graph(W(i, NODE("GatherElements", "x,i", front_int("axis", 1)))),
                      "f32[B,2,8]");
    front_expect(graph(W(front_input("i", 7, "B,S,9"), NODE("GatherElements", "x,i", NONE))),
                 NB_MALFORMED, "axis 2 has length 8, and 9 of indices");
    front_expect(graph(W(front_input("i", 7, "B"), NODE("GatherElements", "x,i", NONE))),
                 NB_MALFORMED, "indices of rank 1 for a tensor of rank 3");
    front_expect(graph(NODE("GatherElements", "x,x", NONE)), NB_MALFORMED, "indices are integers");
    wire pairs = front_input("p", 7, "P,2"), each = front_input("p", 7, "B,P,1");
    front_expect_type(graph(W(pairs, NODE("GatherND", "x,p", NONE))), "f32[P,8]");
    front_expect_type(graph(W(each, NODE("GatherND", "x,p", front_int("batch_dims", 1)))),
                      "f32[B,P,8]");
    front_expect(graph(W(pairs, NODE("GatherND", "x,p", front_int("batch_dims", 2)))), NB_MALFORMED,
                 "with 2 common axes");
    front_expect(graph(W(front_input("p", 7, "P,4"), NODE("GatherND", "x,p", NONE))), NB_MALFORMED,
                 "indices of i64[P,4] into f32[B,S,8]");
    wire updates = front_input("u", 1, "P,8"), add = front_string("reduction", "add");
    front_expect_type(graph(W(pairs, updates, NODE("ScatterND", "x,p,u", add))), "f32[B,S,8]");
    front_expect(
        graph(W(pairs, updates, NODE("ScatterND", "x,p,u", front_string("reduction", "?")))),
        NB_MALFORMED, "reduction is '?'");
    front_expect(graph(W(pairs, NODE("ScatterND", "x,p,x", NONE))), NB_MALFORMED,
                 "updates of rank 3, expected 2");
    front_expect_type(
        graph(W(i, front_input("u", 1, "B,2,8"), NODE("ScatterElements", "x,i,u", NONE))),
        "f32[B,S,8]");
    wire lengths = front_input("n", 7, "S");
    front_expect_type(graph(W(lengths, NODE("ReverseSequence", "x,n", NONE))), "f32[B,S,8]");
    front_expect(graph(W(lengths, NODE("ReverseSequence", "x,n", front_int("time_axis", 2)))),
                 NB_MALFORMED, "expected time and batch as the first two axes");
}
END_TEST

START_TEST(borders) {
    wire pads = I64("p", 0, 0, 2, 0, 0, 3);
    front_expect_type(graph(W(pads, NODE("Pad", "x,p", front_string("mode", "reflect")))),
                      "f32[B,S,13]");
    front_expect_type(graph(W(pads, NODE("Pad", "x,p", front_string("mode", "edge")))),
                      "f32[B,S,13]");
    front_expect_type(
        graph(W(I64("p", 0, 1, 8, 0, 0, 0), NODE("Pad", "x,p", front_string("mode", "wrap")))),
        "f32[B,S+1,16]");
    front_expect(
        graph(W(I64("p", 0, 0, 8, 0, 0, 0), NODE("Pad", "x,p", front_string("mode", "reflect")))),
        NB_UNSUPPORTED, "a border of 8 by mode reflect around an axis of length 8");
    front_expect(graph(W(pads, NODE("Pad", "x,p", front_string("mode", "mirror")))), NB_MALFORMED,
                 "mode is 'mirror'");
}
END_TEST

START_TEST(blocks) {
    wire image = front_input("i", 1, "B,12,4,S"), two = front_int("blocksize", 2);
    front_expect_type(graph(W(image, NODE("DepthToSpace", "i", two))), "f32[B,3,8,2*S]");
    front_expect(graph(W(image, NODE("DepthToSpace", "i", front_int("blocksize", 5)))),
                 NB_MALFORMED, "axis 1 of length 12 must be a multiple of 25");
    front_expect(graph(W(image, NODE("DepthToSpace", "i", two, front_string("mode", "X")))),
                 NB_MALFORMED, "mode is 'X'");
    front_expect(graph(W(image, NODE("SpaceToDepth", "i", two))), NB_UNSUPPORTED,
                 "axis 3 of length S must be a multiple of 2");
    front_expect(graph(NODE("SpaceToDepth", "x", two)), NB_MALFORMED, "expected rank 4");
}
END_TEST

START_TEST(normalizations) {
    wire c = W(front_zeros("s", "6"), front_zeros("b", "6"), front_input("i", 1, "B,6,S,S"));
    front_expect_type(graph(W(c, NODE("InstanceNormalization", "i,s,b", NONE))), "f32[B,6,S,S]");
    wire g = W(front_zeros("s", "3"), front_zeros("b", "3"), front_input("i", 1, "B,6,S,S"));
    front_expect_type(graph(W(g, NODE("GroupNormalization", "i,s,b", front_int("num_groups", 3)))),
                      "f32[B,6,S,S]");
    front_expect(graph(W(g, NODE("GroupNormalization", "i,s,b", front_int("num_groups", 4)))),
                 NB_MALFORMED, "6 channels are no multiple of 4 groups");
    front_expect(graph(W(g, NODE("InstanceNormalization", "i,s,b", NONE))), NB_MALFORMED,
                 "3 and 6 must be equal");
    front_expect(graph(NODE("MeanVarianceNormalization", "x", NONE)), NB_MALFORMED, "not 4");
    front_expect(graph(NODE("LpNormalization", "x", front_int("p", 3))), NB_MALFORMED, "p is 3");
    front_expect_type(graph(NODE("LRN", "x", front_int("size", 3))), "f32[B,S,8]");
    front_expect(graph(NODE("LRN", "x", front_int("size", 0))), NB_MALFORMED, "size is 0");
    front_expect(graph(NODE("LRN", "x", front_int("size", INT64_MAX))), NB_LIMIT, "above 1024");
    wire outputs = front_node("LayerNormalization", "x,w", "z,y,v", NONE);
    front_expect_type(graph(W(front_zeros("w", "8"), outputs)), "f32[B,S,1]");
}
END_TEST

static wire einsum(const char *equation) {
    return graph(
        W(front_zeros("w", "8,5"), NODE("Einsum", "x,w", front_string("equation", equation))));
}

START_TEST(einsums) {
    front_expect_type(einsum("bsd,de->bse"), "f32[B,S,5]");
    front_expect_type(einsum("bsd,de->ebs"), "f32[5,B,S]");
    front_expect_type(einsum("...d,de"), "f32[B,S,5]");
    front_expect_type(einsum(" b s d , d e "), "f32[B,5,S]");
    front_expect_type(einsum("bsd,ef->f"), "f32[5]");
    front_expect_type(einsum("ijk,kj->"), "f32[]"); /* S is 5 */
    front_expect_type(graph(NODE("Einsum", "x", front_string("equation", "iij->ij"))), "f32[B,8]");
    front_expect(einsum("bsd,de->bsx"), NB_MALFORMED, "axis 2 of the output is in no operand");
    front_expect(einsum("bsd,de->bb"), NB_MALFORMED, "or there twice");
    front_expect(einsum("bsd->b"), NB_MALFORMED, "not of 2 terms");
    front_expect(einsum("bsd,de,e->b"), NB_MALFORMED, "not of 2 terms");
    front_expect(einsum("bd,de->b"), NB_MALFORMED, "'bd' has 2 axes, its operand 3");
    front_expect(einsum("b..d,de->b"), NB_MALFORMED, "as a term");
    front_expect(einsum("......,de->e"), NB_MALFORMED, "as a term");
    front_expect(einsum("bsd,ed->b"), NB_MALFORMED, "8 and 5 must be equal");
    front_expect(einsum(""), NB_MALFORMED, "");
    front_expect(einsum("abc,de->abcdefghij"), NB_LIMIT, "more than 8 axes");
}
END_TEST

START_TEST(counted) {
    float numbers[3] = {1, 3, 0.5f};
    wire range =
        W(front_weight("a", 1, "", &numbers[0], 4), front_weight("b", 1, "", &numbers[1], 4),
          front_weight("c", 1, "", &numbers[2], 4));
    front_expect_type(graph(W(range, NODE("Range", "a,b,c", NONE))), "f32[4]");
    front_expect_type(graph(W(range, NODE("Range", "b,a,c", NONE))), "f32[0]");
    numbers[2] = 0;
    wire none = front_weight("d", 1, "", &numbers[2], 4);
    front_expect(graph(W(range, none, NODE("Range", "a,b,d", NONE))), NB_MALFORMED,
                 "has no length");
    front_expect_type(graph(W(range, front_input("d", 1, ""), NODE("Range", "a,d,c", NONE))),
                      "f32[y]");
    front_expect_type(graph(W(I64("n", 9), NODE("HannWindow", "n", NONE))), "f32[9]");
    front_expect_type(
        graph(W(I64("n", 9), NODE("BlackmanWindow", "n", front_int("output_datatype", 11)))),
        "f64[9]");
    front_expect(graph(W(I64("n", 9), NODE("HammingWindow", "n", front_int("output_datatype", 8)))),
                 NB_UNSUPPORTED, "element type 8");
}
END_TEST

static wire resize(wire scales, wire attributes) {
    return graph(W(front_input("i", 1, "B,3,4,S"), scales, NODE("Resize", "i,,s", attributes)));
}

START_TEST(resizes) {
    float twice[] = {1, 1, 2, 2}, odd[] = {1, 1, 1.5f, 1}, less[] = {1, 1, 0.5f, 0.25f},
          both[] = {1, 1, 1.5f, 1.5f}, zero[] = {1, 1, 0, 1};
#define SCALES(values) front_weight("s", 1, "4", values, 16)
    wire linear = front_string("mode", "linear");
    front_expect_type(resize(SCALES(twice), NONE), "f32[B,3,8,2*S]");
    front_expect_type(resize(SCALES(odd), linear), "f32[B,3,6,S]");
    front_expect_type(resize(SCALES(less), front_string("mode", "cubic")),
                      "f32[B,3,2,floordiv(S,4)]");
    front_expect_type(resize(SCALES(both), linear), "f32[B,3,6,floordiv(3*S,2)]");
    front_expect_type(resize(SCALES(both), W(linear, front_int("antialias", 1))),
                      "f32[B,3,6,floordiv(3*S,2)]");
    /* What is meant, not what f32 makes of it; numbers that are no fraction have no expression. */
    const float tenths[] = {1, 1, 3.3f, 1.3f}, pi[] = {1, 1, 1, 3.14159274f};
    front_expect_type(resize(SCALES(tenths), linear), "f32[B,3,13,floordiv(13*S,10)]");
    front_expect(resize(SCALES(pi), linear), NB_UNSUPPORTED,
                 "an axis of length S scaled by 3.14159");
    front_expect(resize(SCALES(zero), linear), NB_MALFORMED, "a scale of 0");
    front_expect(resize(front_weight("s", 1, "3", twice, 12), linear), NB_MALFORMED,
                 "3 scales or sizes for 4 axes");
    front_expect(resize(front_input("s", 1, "4"), linear), NB_UNSUPPORTED, "it depends on data");
    front_expect(resize(SCALES(twice), front_string("mode", "area")), NB_UNSUPPORTED,
                 "mode 'area' is not supported");
    wire crop = W(linear, front_string("coordinate_transformation_mode", "tf_crop_and_resize"));
    front_expect(resize(SCALES(twice), crop), NB_MALFORMED, "input 1 is missing");
    front_expect(resize(SCALES(twice), W(crop, front_int("antialias", 1))), NB_UNSUPPORTED,
                 "antialias with tf_crop_and_resize");
    front_expect_type(graph(W(front_input("i", 1, "B,3,4,S"), I64("n", 7, 9),
                              NODE("Resize", "i,,,n", INTS("axes", 2, 3), linear))),
                      "f32[B,3,7,9]");
    wire keep = W(INTS("axes", 2, 3), front_string("keep_aspect_ratio_policy", "not_larger"));
    front_expect_type(
        graph(W(front_input("i", 1, "B,3,4,8"), I64("n", 7, 9), NODE("Resize", "i,,,n", keep))),
        "f32[B,3,5,9]");
    front_expect(graph(W(front_input("i", 1, "B,3,4,S"), front_input("n", 7, "2"),
                         NODE("Resize", "i,,,n", keep))),
                 NB_UNSUPPORTED, "it depends on data");
    front_expect(
        graph(W(front_input("i", 1, "B,3,4,S"), I64("n", 7, 9),
                NODE("Resize", "i,,,n",
                     W(INTS("axes", 2, 3), front_string("keep_aspect_ratio_policy", "smallest"))))),
        NB_UNSUPPORTED, "'smallest' is not supported");
}
END_TEST

static wire transposed(wire attributes) {
    return graph(W(front_input("i", 1, "B,6,4,S"), front_zeros("w", "6,5,3,3"),
                   NODE("ConvTranspose", "i,w", attributes)));
}

START_TEST(transposed_convolutions) {
    wire strides = INTS("strides", 2, 2);
    front_expect_type(transposed(NONE), "f32[B,5,6,S+2]");
    front_expect_type(transposed(W(strides, INTS("pads", 1, 1, 1, 1))), "f32[B,5,7,2*S-1]");
    front_expect_type(transposed(W(strides, INTS("output_padding", 1, 1))), "f32[B,5,10,2*S+2]");
    front_expect_type(transposed(W(strides, front_string("auto_pad", "SAME_UPPER"))),
                      "f32[B,5,8,2*S]");
    front_expect_type(transposed(front_int("group", 3)), "f32[B,15,6,S+2]");
    front_expect(transposed(front_int("group", 4)), NB_MALFORMED, "6 channels do not fit 4 groups");
    front_expect(transposed(INTS("strides", 0, 1)), NB_MALFORMED, "strides[0] is 0");
    front_expect(transposed(INTS("dilations", 1)), NB_MALFORMED, "1 dilations for 2 axes");
    front_expect(transposed(INTS("pads", 1, 1, 1, -1)), NB_MALFORMED, "pads 1 and -1");
    front_expect(transposed(INTS("pads", 1)), NB_MALFORMED, "1 pads for 2 axes");
    front_expect(transposed(INTS("kernel_shape", 2, 3)), NB_MALFORMED, "3 and 2 must be equal");
    front_expect(transposed(INTS("output_shape", 9)), NB_MALFORMED, "1 numbers for 2 axes");
    front_expect(transposed(front_string("auto_pad", "X")), NB_MALFORMED, "auto_pad is 'X'");
    front_expect(graph(W(front_zeros("w", "6,5,3"), NODE("ConvTranspose", "x,w", NONE))), NB_OK,
                 "");
    front_expect(graph(W(front_zeros("w", "6,5"), NODE("ConvTranspose", "x,w", NONE))),
                 NB_MALFORMED, "found 3 and 2");
}
END_TEST

Suite *nb_suite_front_forms(void) {
    Suite *suite = suite_create("front_forms");
    TCase *tests = tcase_create("front_forms");
    tcase_add_checked_fixture(tests, front_begin, front_end);
    tcase_add_loop_test(tests, accuracy, 0, NB_COUNT(functions));
    tcase_add_test(tests, ends);
    tcase_add_test(tests, bits);
    tcase_add_test(tests, losses);
    tcase_add_test(tests, places);
    tcase_add_test(tests, elements_and_slices);
    tcase_add_test(tests, borders);
    tcase_add_test(tests, blocks);
    tcase_add_test(tests, normalizations);
    tcase_add_test(tests, einsums);
    tcase_add_test(tests, counted);
    tcase_add_test(tests, resizes);
    tcase_add_test(tests, transposed_convolutions);
    suite_add_tcase(suite, tests);
    return suite;
}
