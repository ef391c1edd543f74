/* The importer: attention, sampling, signals, parts put to places, small element types. The types
 * they give, and what they refuse; ONNX's node tests have the numbers. */
#include "tests/unit/test_front.h"

#define F32 1
#define INT 7

/* y = op(inputs) at an opset, with `inputs` declared by `ports`. */
static wire of(int64_t opset, wire ports, const char *op, const char *inputs, wire attributes) {
    return front_model(opset, W(ports, front_node(op, inputs, "y", attributes),
                                front_put(12, front_text(1, "y"))));
}

static wire qkv(const char *q, const char *k, const char *v) {
    return W(front_input("q", F32, q), front_input("k", F32, k), front_input("v", F32, v));
}

START_TEST(attention) {
    wire four = qkv("B,4,S,8", "B,2,T,8", "B,2,T,6"), three = qkv("B,S,32", "B,T,16", "B,T,12");
    wire heads = W(front_int("q_num_heads", 4), front_int("kv_num_heads", 2));
    front_expect_type(of(23, four, "Attention", "q,k,v", NONE), "f32[B,4,S,6]");
    front_expect_type(of(23, four, "Attention", "q,k,v", front_float("softcap", 2)),
                      "f32[B,4,S,6]");
    front_expect_type(of(23, three, "Attention", "q,k,v", heads), "f32[B,S,24]");
    front_expect(of(23, three, "Attention", "q,k,v", NONE), NB_MALFORMED, "q_num_heads is 0");
    front_expect(of(23, qkv("B,3,S,8", "B,2,T,8", "B,2,T,8"), "Attention", "q,k,v", NONE),
                 NB_MALFORMED, "3 heads of queries, 2 of keys");
    front_expect(of(23, qkv("B,H,S,8", "B,2,T,8", "B,2,T,8"), "Attention", "q,k,v", NONE),
                 NB_UNSUPPORTED, "must be known");
    front_expect(of(23, W(four, front_input("p", F32, "B,2,P,8")), "Attention", "q,k,v,,p", NONE),
                 NB_MALFORMED, "of the past are missing");
    front_expect(of(22, four, "Attention", "q,k,v", NONE), NB_UNSUPPORTED, "Attention");
    wire table = W(front_input("x", F32, "B,2,S,8"), front_zeros("c", "50,4"),
                   front_zeros("s", "50,4"), front_input("at", INT, "B,S"));
    front_expect_type(of(23, table, "RotaryEmbedding", "x,c,s,at", NONE), "f32[B,2,S,8]");
    front_expect(of(23, table, "RotaryEmbedding", "x,c,s,at", front_int("rotary_embedding_dim", 9)),
                 NB_MALFORMED, "9 of 8 elements");
    wire few = qkv("B,3,8", "B,3,4", "B,3,6");
    front_expect_type(
        of(27, few, "LinearAttention", "q,k,v", W(heads, front_string("update_rule", "linear"))),
        "f32[B,3,12]");
    front_expect(
        of(27, few, "LinearAttention", "q,k,v", W(heads, front_string("update_rule", "gated"))),
        NB_MALFORMED, "input 4 is missing");
    front_expect_type(of(27, qkv("B,S,8", "B,S,4", "B,S,6"), "LinearAttention", "q,k,v",
                         W(heads, front_string("update_rule", "linear"))),
                      "f32[B,S,12]");
    front_expect(of(27, qkv("B,S,8", "B,S,4", "B,S,6"), "LinearAttention", "q,k,v", heads),
                 NB_MALFORMED, "input 4 is missing");
}
END_TEST

START_TEST(sampling) {
    wire image = W(front_input("x", F32, "B,3,H,W"), front_input("g", F32, "B,5,6,2"));
    front_expect_type(of(20, image, "GridSample", "x,g", front_string("mode", "cubic")),
                      "f32[B,3,5,6]");
    front_expect(of(20, image, "GridSample", "x,g", front_string("mode", "best")), NB_MALFORMED,
                 "mode 'best'");
    front_expect(of(20, W(front_input("x", F32, "B,3,H,W"), front_input("g", F32, "B,5,6,3")),
                    "GridSample", "x,g", NONE),
                 NB_MALFORMED, "3 and 2 must be equal");
    wire regions = W(front_input("x", F32, "B,3,H,W"), front_input("r", F32, "R,4"),
                     front_input("i", INT, "R"));
    wire size = W(front_int("output_height", 5), front_int("output_width", 4));
    front_expect_type(of(16, regions, "RoiAlign", "x,r,i", W(size, front_int("sampling_ratio", 2))),
                      "f32[R,3,5,4]");
    front_expect(of(16, regions, "RoiAlign", "x,r,i", size), NB_UNSUPPORTED, "sampling_ratio");
    wire theta = W(front_input("t", F32, "2,2,3"), I64("n", 2, 1, 5, 6));
    front_expect_type(of(20, theta, "AffineGrid", "t,n", NONE), "f32[2,5,6,2]");
}
END_TEST

START_TEST(places) {
    wire x = front_input("x", F32, "B,6,5");
    front_expect_type(of(18, W(x, I64("n", 4, 9)), "CenterCropPad", "x,n",
                         front_ints("axes", 2, (int64_t[]){1, 2})),
                      "f32[B,4,9]");
    front_expect_type(of(18, W(x, I64("i", 5, 2), I64("b", 1, 2)), "Col2Im", "x,i,b", NONE),
                      "f32[B,3,5,2]");
    front_expect(of(18, W(x, I64("i", 5, 2), I64("b", 1, 5)), "Col2Im", "x,i,b", NONE),
                 NB_MALFORMED, "blocks of 5");
    wire pooled = W(front_input("x", F32, "1,1,2,2"), front_input("i", INT, "1,1,2,2"));
    wire kernel = W(front_ints("kernel_shape", 2, (int64_t[]){2, 2}),
                    front_ints("strides", 2, (int64_t[]){2, 2}));
    front_expect_type(of(18, pooled, "MaxUnpool", "x,i", kernel), "f32[1,1,4,4]");
    front_expect(of(18, W(pooled, I64("n", 1, 1, 3, 4)), "MaxUnpool", "x,i,n", kernel),
                 NB_MALFORMED, "dimension 2 of the output is too small");
    wire cache = W(front_input("c", F32, "B,2,T,4"), front_input("u", F32, "B,2,S,4"),
                   front_input("at", INT, "B"));
    front_expect_type(of(24, cache, "TensorScatter", "c,u,at", front_string("mode", "circular")),
                      "f32[B,2,T,4]");
    front_expect(of(24, cache, "TensorScatter", "c,u,at", front_int("axis", 0)), NB_MALFORMED,
                 "axis 0");
    wire conv = W(front_input("x", F32, "B,4,L"), front_zeros("w", "4,1,3"));
    front_expect_type(of(27, conv, "CausalConvWithState", "x,w", NONE), "f32[B,4,L]");
    front_expect(of(27, conv, "CausalConvWithState", "x,w", front_string("activation", "tanh")),
                 NB_MALFORMED, "activation is 'tanh'");
    front_expect_type(of(22, front_input("x", F32, "B,3,3"), "Det", "x", NONE), "f32[B]");
    front_expect(of(22, front_input("x", F32, "B,5,5"), "Det", "x", NONE), NB_UNSUPPORTED,
                 "from 1 to 4");
}
END_TEST

START_TEST(signals) {
    wire x = front_input("x", F32, "B,10,1");
    front_expect_type(of(20, x, "DFT", "x", NONE), "f32[B,10,2]");
    front_expect_type(of(20, x, "DFT", "x", front_int("onesided", 1)), "f32[B,6,2]");
    front_expect_type(of(20, W(x, I64("n", 16)), "DFT", "x,n", NONE), "f32[B,16,2]");
    front_expect(of(20, front_input("x", F32, "B,L,1"), "DFT", "x", NONE), NB_UNSUPPORTED,
                 "transform of L elements");
    front_expect(of(20, front_input("x", F32, "B,10,3"), "DFT", "x", NONE), NB_MALFORMED,
                 "expected 1 or 2");
    wire frames = W(front_input("x", F32, "B,L,1"), I64("s", 4), front_zeros("w", "16"));
    front_expect_type(of(17, frames, "STFT", "x,s,w", NONE), "f32[B,floordiv(L,4)-3,9,2]");
    front_expect(of(17, W(frames, I64("n", 8)), "STFT", "x,s,w,n", NONE), NB_MALFORMED,
                 "not that of the window");
}
END_TEST

START_TEST(element_types) {
    wire x = front_input("x", F32, "B");
    front_expect_type(of(25, x, "Cast", "x", front_int("to", 22)), "i4[B]");
    front_expect_type(of(25, x, "Cast", "x", front_int("to", 24)), "f8e8m0[B]");
    front_expect(of(25, x, "Cast", "x", W(front_int("to", 24), front_string("round_mode", "off"))),
                 NB_MALFORMED, "round_mode is 'off'");
    front_expect(of(25, x, "Cast", "x", front_int("to", 8)), NB_UNSUPPORTED, "element type 8");
    front_expect_type(of(26, x, "BitCast", "x", front_int("to", 6)), "i32[B]");
    front_expect(of(26, x, "BitCast", "x", front_int("to", 7)), NB_MALFORMED, "the bits of f32");
    front_expect_type(of(26, W(x, I64("a", 0)), "CumProd", "x,a", NONE), "f32[B]");
    front_expect_type(of(22, front_input("x", F32, "B,3,8"), "LpPool", "x",
                         front_ints("kernel_shape", 1, (int64_t[]){2})),
                      "f32[B,3,7]");
    front_expect(of(22, front_input("x", F32, "B,3,8"), "GlobalLpPool", "x", front_int("p", 0)),
                 NB_MALFORMED, "p is 0");
}
END_TEST

Suite *nb_suite_front_late(void) {
    Suite *suite = suite_create("front_late");
    TCase *tests = tcase_create("front_late");
    tcase_add_checked_fixture(tests, front_begin, front_end);
    tcase_add_test(tests, attention);
    tcase_add_test(tests, sampling);
    tcase_add_test(tests, places);
    tcase_add_test(tests, signals);
    tcase_add_test(tests, element_types);
    suite_add_tcase(suite, tests);
    return suite;
}
