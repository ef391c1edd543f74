/* The importer: shapes that operators give, and operators asked for what they cannot do
 * (classes 46 to 51). */
#include "tests/unit/test_front.h"

#include <string.h>

/* x: f32[B,S,8] through `nodes`, which end in y. */
static wire graph(wire nodes) {
    return front_model(17,
                       W(front_input("x", 1, "B,S,8"), nodes, front_put(12, front_text(1, "y"))));
}
/* One node with the vector `values` as second input. */
static wire with(const char *op, size_t n, const int64_t *values) {
    return graph(W(front_i64("v", n, values), front_node(op, "x,v", "y", NONE)));
}
#define WITH(op, ...) with(op, sizeof((int64_t[]){__VA_ARGS__}) / 8, (int64_t[]){__VA_ARGS__})
#define MOST          INT64_MAX

START_TEST(reshape) {
    front_expect_type(WITH("Reshape", 0, 0, 2, 4), "f32[B,S,2,4]");
    front_expect_type(WITH("Reshape", 0, -1), "f32[B,8*S]");
    front_expect_type(WITH("Reshape", -1, 4), "f32[2*B*S,4]");
    front_expect(WITH("Reshape", -1, -1), NB_MALFORMED, "two dimensions are -1");
    front_expect(WITH("Reshape", 0, 0, 0, 0), NB_MALFORMED, "copied from an input of rank 3");
    front_expect(WITH("Reshape", 0, 0, 7), NB_UNSUPPORTED, "8*B*S and 7*B*S must be equal");
    front_expect(WITH("Reshape", -5, 0), NB_MALFORMED, "dimension 0 is -5");
    front_expect(WITH("Reshape", 1, 1, 1, 1, 1, 1, 1, 1, 1), NB_LIMIT, "rank 9");
    /* x[B,S,8] as [2,3,8]: B and S are bound by one product, which is not solved */
    front_expect(WITH("Reshape", 2, 3, 8), NB_UNSUPPORTED, "must be equal");
    wire runtime = W(front_input("v", 7, "2"), front_node("Reshape", "x,v", "y", NONE));
    front_expect_type(graph(runtime), "f32[v.0,v.1]"); /* which the run tells */
}
END_TEST

/* Range has max(0,S-1) elements; a shape that says S-1 of them means runs with at least one. */
START_TEST(ranges_in_shapes) {
    wire shape =
             W(I64("zero", 0), I64("one", 1), I64("two", 2), I64("rest", 2, 4),
               front_weight("first", 7, "", (int64_t[]){0}, 8),
               front_weight("step", 7, "", (int64_t[]){1}, 8), front_node("Shape", "x", "s", NONE)),
         sizes =
             W(front_node("Slice", "s,zero,one", "b", NONE),
               front_node("Slice", "s,one,two", "n", NONE), front_node("Sub", "n,one", "m", NONE),
               front_node("Squeeze", "m", "limit", NONE)),
         rows = W(front_node("Range", "first,limit,step", "at", NONE),
                  front_node("Gather", "x,at", "g", front_int("axis", 1)),
                  front_node("Concat", "b,m,rest", "to", front_int("axis", 0)));
    front_expect_type(graph(W(shape, sizes, rows, front_node("Identity", "g", "y", NONE))),
                      "f32[B,max(0,S-1),8]");
    wire model = graph(W(shape, sizes, rows, front_node("Reshape", "g,to", "y", NONE)));
    front_expect_type(model, "f32[B,S-1,2,4]");
    nb_diags *diags = nb_diags_create(front_arena(), NULL);
    nb_status status;
    nb_graph *g = front_import(model, diags, &status);
    for (size_t i = 0; i < g->symbols.count; i++)
        if (strcmp(g->symbols.items[i]->name, "S") == 0)
            ck_assert_int_eq(g->symbols.items[i]->min, 1);
    nb_graph_destroy(g);
}
END_TEST

static wire slice(int64_t start, int64_t end, int64_t axis, int64_t step) {
    return graph(W(I64("s", start), I64("e", end), I64("a", axis), I64("t", step),
                   front_node("Slice", "x,s,e,a,t", "y", NONE)));
}

START_TEST(slices) {
    front_expect_type(slice(0, 4, 2, 1), "f32[B,S,4]");
    front_expect_type(slice(4, MOST, -1, 1), "f32[B,S,4]");
    front_expect_type(slice(-3, MOST, 2, 1), "f32[B,S,3]");
    front_expect_type(slice(MOST, -MOST - 1, 2, -1), "f32[B,S,8]");
    front_expect_type(slice(5, 2, 2, 1), "f32[B,S,0]");
    front_expect_type(slice(7, 0, 2, -2), "f32[B,S,4]");
    front_expect_type(slice(0, MOST, 1, 1), "f32[B,S,8]");
    front_expect(slice(0, 4, 2, 0), NB_MALFORMED, "step 0");
    front_expect(slice(0, 4, 2, -MOST - 1), NB_MALFORMED, "step -9223372036854775808");
    front_expect(slice(0, 4, 3, 1), NB_MALFORMED, "axis 3 is out of range for rank 3");
    front_expect(graph(W(I64("s", 0, 0), I64("e", 1, 1), I64("a", 1, 1),
                         front_node("Slice", "x,s,e,a", "y", NONE))),
                 NB_MALFORMED, "sliced twice");
    front_expect(graph(W(I64("s", 0, 0), I64("e", 1), front_node("Slice", "x,s,e", "y", NONE))),
                 NB_MALFORMED, "different lengths");
}
END_TEST

/* Chains of shape arithmetic: n is Shape(x)[1], the symbol S. */
static wire shape_of(wire rest) {
    return graph(W(I64("i", 1), front_node("Shape", "x", "shape", NONE),
                   front_node("Gather", "shape,i", "n", NONE), rest));
}

START_TEST(shape_arithmetic) {
    wire to_y = front_node("ConstantOfShape", "k", "y", NONE);
    front_expect_type(shape_of(W(I64("c", 2), front_node("Mul", "n,c", "k", NONE), to_y)),
                      "f32[2*S]");
    front_expect_type(shape_of(W(I64("c", 2), front_node("Div", "n,c", "k", NONE), to_y)),
                      "f32[floordiv(S,2)]");
    front_expect_type(shape_of(W(I64("c", 2), front_node("Mod", "n,c", "k", NONE), to_y)),
                      "f32[S-2*floordiv(S,2)]");
    front_expect_type(shape_of(W(I64("c", 1), front_node("Sub", "n,c", "m", NONE),
                                 front_node("Sub", "n,m", "k", NONE), to_y)),
                      "f32[1]");
    /* What the torch exporter writes for expand(-1, n): -1 is replaced by the length itself. */
    front_expect_type(
        shape_of(W(I64("one", 1), I64("minus", -1), I64("r", 3), I64("given", -1, 1, 8),
                   front_node("ConstantOfShape", "r", "ones_f", NONE),
                   front_node("Cast", "ones_f", "zeros", front_int("to", 7)),
                   front_node("Sub", "zeros,minus", "ones", NONE),
                   front_node("Mul", "ones,minus", "all_minus", NONE),
                   front_node("Equal", "given,all_minus", "is", NONE),
                   front_node("Where", "is,ones,given", "to", NONE),
                   front_node("Expand", "x,to", "y", NONE))),
        "f32[B,S,8]");
    /* A slice by the length of another input, as for masks. */
    front_expect_type(
        shape_of(W(front_zeros("table", "1,512"), I64("zero", 0), I64("one", 1),
                   front_node("Slice", "table,zero,n,one", "cut", NONE),
                   front_node("Transpose", "x", "t", front_ints("perm", 3, (int64_t[]){0, 2, 1})),
                   front_node("Add", "t,cut", "y", NONE))),
        "f32[B,8,S]"); /* S is at most 512 from here on */
    /* Backwards from the last but one: S is at least 2. */
    front_expect_type(shape_of(W(I64("two", 2), I64("end", -MOST - 1), I64("axis", 1),
                                 I64("step", -1), front_node("Sub", "n,two", "start", NONE),
                                 front_node("Slice", "x,start,end,axis,step", "y", NONE))),
                      "f32[B,S-1,8]");
    /* What it writes for pads: a table that is cut, reversed, transposed and flattened. */
    front_expect_type(
        graph(W(I64("p", 1, 2, 0, 0, 3, 4), I64("pair", -1, 2), I64("start", -1),
                I64("end", -MOST - 1), I64("axis", 0), I64("flat", -1),
                front_node("Reshape", "p,pair", "a", NONE),
                front_node("Slice", "a,start,end,axis,start", "b", NONE),
                front_node("Transpose", "b", "c", front_ints("perm", 2, (int64_t[]){1, 0})),
                front_node("Reshape", "c,flat", "d", NONE), front_node("Pad", "x,d", "y", NONE))),
        "f32[B+7,S,11]");
    wire chain = NONE; /* doubles with each of 60 steps */
    const char *last = "n";
    for (int i = 0; i < 60; i++) {
        const char *to = i == 59 ? "k" : nb_format(front_arena(), "v%d", i);
        chain =
            W(chain, front_node("Mul", nb_format(front_arena(), "%s,%s", last, last), to, NONE));
        last = to;
    }
    front_expect_type(shape_of(W(chain, to_y)), "f32[k]"); /* which the run is to tell */
}
END_TEST

START_TEST(names_of_sizes) {
#define BESIDE(dims) graph(W(front_input("p", 1, dims), front_node("Add", "x,p", "y", NONE)))
    front_expect_type(graph(W(front_input("p", 1, "S + T,8"), front_node("Relu", "p", "y", NONE))),
                      "f32[S+T,8]");
    /* What traced one step says of any. */
    front_expect_type(BESIDE("S + 1,8"), "f32[B,S,8]");
    front_expect_type(BESIDE("1 + S,8"), "f32[B,S,8]");
}
END_TEST

START_TEST(sizes_beyond_reason) {
    int64_t big = INT64_C(1) << 41;
    front_expect(graph(W(I64("k", big), front_node("ConstantOfShape", "k", "y", NONE))), NB_LIMIT,
                 "more than 2^40 elements");
    front_expect(graph(W(I64("k", -1), front_node("ConstantOfShape", "k", "y", NONE))),
                 NB_MALFORMED, "is negative");
    front_expect(WITH("Tile", 1, 1, big), NB_LIMIT, "2^40");
    front_expect(WITH("Tile", 1, 1), NB_MALFORMED, "2 repeats for rank 3");
    front_expect(WITH("Expand", big, 1, 1, 1), NB_LIMIT, "2^40");
    front_expect(WITH("Pad", 0, 0, MOST, 0, 0, 0), NB_LIMIT, "beyond 2^40");
    front_expect(WITH("Pad", 0, 0, -MOST - 1, 0, 0, 0), NB_LIMIT, "beyond 2^40");
    front_expect(WITH("Pad", 0, 0, 1), NB_MALFORMED, "3 pads for 3 axes");
    front_expect_type(WITH("Pad", 0, 0, 1, 0, 0, -2), "f32[B,S,7]");
    front_expect(WITH("Pad", 0, 0, -9, 0, 0, 0), NB_MALFORMED, "");
    wire range = front_node("Range", "a,b,c", "y", NONE);
    int64_t none = 0;
#define SCALAR(name, ...) front_weight(name, 7, "", (int64_t[]){__VA_ARGS__}, 8)
    front_expect_type(graph(W(SCALAR("a", 2), SCALAR("b", 9), SCALAR("c", 3), range)), "i64[3]");
    front_expect_type(graph(W(SCALAR("a", 9), SCALAR("b", 2), SCALAR("c", -3), range)), "i64[3]");
    front_expect(graph(W(SCALAR("a", 2), SCALAR("b", 9), SCALAR("c", 0), range)), NB_MALFORMED,
                 "the step is 0");
    front_expect(graph(W(SCALAR("a", 0), SCALAR("b", MOST), SCALAR("c", 1), range)), NB_LIMIT, "");
    front_expect(
        graph(W(front_weight("a", 7, "0", &none, 0), SCALAR("b", 9), SCALAR("c", 1), range)),
        NB_MALFORMED, "input 0 is not a scalar");
}
END_TEST

START_TEST(axes_and_sizes) {
    int64_t twice[] = {1, 1, 0}, far[] = {0, 1, 3};
    front_expect(graph(front_node("Transpose", "x", "y", front_ints("perm", 3, twice))),
                 NB_MALFORMED, "not a permutation");
    front_expect(graph(front_node("Transpose", "x", "y", front_ints("perm", 3, far))), NB_MALFORMED,
                 "not a permutation");
    front_expect(graph(front_node("Transpose", "x", "y", front_ints("perm", 2, far))), NB_MALFORMED,
                 "2 entries for rank 3");
    front_expect(WITH("Unsqueeze", 0, 0), NB_MALFORMED, "added twice");
    front_expect(WITH("Unsqueeze", 0, 1, 2, 3, 4, 5), NB_LIMIT, "rank 9");
    front_expect(WITH("Squeeze", 2), NB_MALFORMED, "8 and 1 must be equal");
    front_expect(WITH("ReduceSum", 5), NB_MALFORMED, "axis 5 is out of range");
    front_expect(WITH("ReduceSum", 1, 1), NB_MALFORMED, "");
    front_expect(WITH("Gather", -1, 0), NB_OK, "");
    front_expect(graph(W(I64("v", 8), front_node("Gather", "x,v", "y", front_int("axis", 2)))),
                 NB_MALFORMED, "index 8 is outside axis 2 of length 8");
    wire parts = front_int("axis", 2);
    front_expect_type(graph(W(I64("v", 3, 5), front_node("Split", "x,v", "y,z", parts))),
                      "f32[B,S,3]");
    front_expect(graph(W(I64("v", 3, 4), front_node("Split", "x,v", "y,z", parts))), NB_MALFORMED,
                 "must be equal");
    front_expect(graph(W(I64("v", -1, 9), front_node("Split", "x,v", "y,z", parts))), NB_MALFORMED,
                 "");
    front_expect(graph(W(I64("v", 8), front_node("Split", "x,v", "y,z", parts))), NB_MALFORMED,
                 "1 sizes for 2 outputs");
}
END_TEST

START_TEST(products) {
    wire mul = front_node("MatMul", "x,w", "y", NONE);
    front_expect_type(graph(W(front_zeros("w", "8,5"), mul)), "f32[B,S,5]");
    front_expect_type(graph(W(front_zeros("w", "8"), mul)), "f32[B,S]");
    front_expect(graph(W(front_zeros("w", "7,5"), mul)), NB_MALFORMED, "8 and 7 must be equal");
    front_expect(graph(W(front_zeros("w", ""), mul)), NB_MALFORMED, "scalars");
    front_expect(graph(W(front_zeros("w", "8,5"), front_node("Gemm", "x,w", "y", NONE))),
                 NB_MALFORMED, "found ranks 3 and 2");
    front_expect_type(
        graph(W(front_zeros("w", "5,8"), front_domain_node("com.microsoft", "FusedMatMul", "x,w",
                                                           "y", front_int("transB", 1)))),
        "f32[B,S,5]");
}
END_TEST

/* x[B,S,8] as S channels, 3 by the kernel, of 8. */
static wire conv(wire attributes) {
    return graph(W(front_zeros("w", "4,3,3"), front_node("Conv", "x,w", "y", attributes)));
}
#define INTS(name, ...) \
    front_ints(name, sizeof((int64_t[]){__VA_ARGS__}) / 8, (int64_t[]){__VA_ARGS__})

START_TEST(convolutions) {
    front_expect_type(conv(NONE), "f32[B,4,6]");
    front_expect_type(conv(INTS("pads", 1, 2)), "f32[B,4,9]");
    front_expect_type(conv(W(INTS("strides", 3), INTS("dilations", 2))), "f32[B,4,2]");
    front_expect_type(conv(INTS("kernel_shape", 3)), "f32[B,4,6]");
    wire same = front_string("auto_pad", "SAME_UPPER");
    front_expect_type(conv(same), "f32[B,4,8]");
    front_expect_type(conv(W(same, INTS("strides", 3))), "f32[B,4,3]");
    front_expect_type(conv(front_string("auto_pad", "SAME_LOWER")), "f32[B,4,8]");
    front_expect_type(conv(front_string("auto_pad", "VALID")), "f32[B,4,6]");
    front_expect(conv(front_string("auto_pad", "NONE")), NB_MALFORMED, "auto_pad is 'NONE'");
    front_expect(conv(W(same, INTS("strides", 0))), NB_MALFORMED, "a stride of 0");
    front_expect(conv(INTS("strides", 0)), NB_MALFORMED, "strides[0] is 0");
    front_expect(conv(INTS("strides", 1, 1)), NB_MALFORMED, "2 strides for 1 axes");
    front_expect(conv(INTS("pads", 1)), NB_MALFORMED, "1 pads for 1 axes");
    front_expect(conv(INTS("pads", 1, -1)), NB_MALFORMED, "pads 1 and -1");
    front_expect(conv(INTS("kernel_shape", 5)), NB_MALFORMED, "3 and 5 must be equal");
    front_expect(conv(INTS("kernel_shape", 3, 3)), NB_MALFORMED, "2 numbers for 1 axes");
    front_expect(conv(front_int("group", 3)), NB_MALFORMED, "do not fit 3 groups");
    front_expect(conv(front_int("group", 0)), NB_MALFORMED, "");
    front_expect(graph(W(front_zeros("w", "4,3"), front_node("Conv", "x,w", "y", NONE))),
                 NB_MALFORMED, "of one rank, at least 3, found 3 and 2");
    /* Padding of unknown lengths is an expression. */
    wire nodes =
        W(front_zeros("w", "4,8,3"), front_node("Transpose", "x", "t", INTS("perm", 0, 2, 1)),
          front_node("Conv", "t,w", "y", same));
    front_expect_type(graph(nodes), "f32[B,4,S]");
}
END_TEST

/* x[B,S,8] as S channels, 3 by the window, of 8. */
static wire pool(const char *op, wire attributes) {
    return graph(front_node(op, "x", "y", attributes));
}

START_TEST(pooling) {
    wire three = INTS("kernel_shape", 3);
    static const char *const ops[] = {"MaxPool", "AveragePool"};
    for (size_t i = 0; i < NB_COUNT(ops); i++) {
        front_expect_type(pool(ops[i], three), "f32[B,S,6]");
        front_expect_type(pool(ops[i], W(three, INTS("pads", 1, 2))), "f32[B,S,9]");
        front_expect_type(pool(ops[i], W(three, INTS("strides", 3))), "f32[B,S,2]");
        front_expect_type(pool(ops[i], W(three, INTS("strides", 3), front_int("ceil_mode", 1))),
                          "f32[B,S,3]");
        /* A fourth window would begin in the padding. */
        front_expect_type(pool(ops[i], W(three, INTS("strides", 3), INTS("pads", 0, 2),
                                         front_int("ceil_mode", 1))),
                          "f32[B,S,3]");
        front_expect_type(pool(ops[i], W(three, INTS("strides", 2), INTS("dilations", 3))),
                          "f32[B,S,1]");
        front_expect_type(pool(ops[i], W(three, front_string("auto_pad", "SAME_UPPER"))),
                          "f32[B,S,8]");
        front_expect(pool(ops[i], NONE), NB_MALFORMED, "\"kernel_shape\" is missing");
        front_expect(pool(ops[i], INTS("kernel_shape", 3, 3)), NB_MALFORMED,
                     "kernel_shape has 2 numbers for a tensor of rank 3");
        front_expect(pool(ops[i], INTS("kernel_shape", 0)), NB_MALFORMED, "kernel_shape[0] is 0");
        front_expect(pool(ops[i], W(three, INTS("strides", 0))), NB_MALFORMED, "stride 0");
    }
    front_expect_type(graph(front_node("MaxPool", "x", "v,y", three)), "i64[B,S,6]");
    front_expect_type(pool("GlobalAveragePool", NONE), "f32[B,S,1]");
    front_expect_type(pool("GlobalMaxPool", NONE), "f32[B,S,1]");
}
END_TEST

/* Of an odd length, what is halved and doubled is longer: such runs are refused. */
START_TEST(halved_and_doubled) {
    static const float two[] = {1, 1, 2};
    wire parts =
        W(front_input("p", 1, "B,C,N"), front_weight("by", 1, "3", two, sizeof two),
          front_node("MaxPool", "p", "low", W(INTS("kernel_shape", 1), INTS("strides", 2))),
          front_node("Resize", "low,,by", "high", front_string("mode", "nearest")));
    front_expect_type(graph(W(parts, front_node("Add", "high,p", "y", NONE))), "f32[B,C,N]");
    front_expect_type(graph(W(parts, front_node("Add", "p,high", "y", NONE))), "f32[B,C,N]");
    front_expect_type(graph(W(parts, front_node("Concat", "p,high", "y", front_int("axis", 1)))),
                      "f32[B,2*C,N]");
}
END_TEST

START_TEST(norms) {
    wire rms = front_node("SimplifiedLayerNormalization", "x,w", "y", NONE);
    front_expect_type(graph(W(front_zeros("w", "8"), rms)), "f32[B,S,8]");
    front_expect(graph(W(front_zeros("w", "7"), rms)), NB_MALFORMED, "must be equal");
    front_expect(graph(W(front_zeros("w", ""), rms)), NB_MALFORMED, "");
    wire skip = front_domain_node("com.microsoft", "SkipSimplifiedLayerNormalization", "x,x,w",
                                  "a,,,y", NONE);
    front_expect_type(graph(W(front_zeros("w", "8"), skip)), "f32[B,S,8]");
    front_expect(graph(W(front_zeros("w", ""), skip)), NB_MALFORMED, "vector of factors");
}
END_TEST

static wire rotary(wire inputs, wire attributes) {
    return graph(
        W(inputs, front_zeros("c", "16,2"), front_zeros("s", "16,2"),
          front_domain_node("com.microsoft", "RotaryEmbedding", "x,p,c,s", "y", attributes)));
}

START_TEST(rotary_embedding) {
    front_expect_type(rotary(front_input("p", 7, "B,S"), NONE), "f32[B,S,8]");
    front_expect_type(rotary(front_input("p", 7, "1"), NONE), "f32[B,S,8]");
    front_expect(rotary(front_input("p", 7, ""), NONE), NB_MALFORMED, "rank 0");
    front_expect(rotary(front_input("p", 7, "B,S"), front_int("num_heads", 3)), NB_MALFORMED,
                 "the tables give 2");
    /* 4 of the 8 elements of one head. */
    wire part = front_int("rotary_embedding_dim", 4);
    front_expect_type(rotary(front_input("p", 7, "B,S"), W(part, front_int("num_heads", 1))),
                      "f32[B,S,8]");
    front_expect(rotary(front_input("p", 7, "B,S"), part), NB_MALFORMED, "no heads of which 4");
    front_expect(rotary(front_input("p", 7, "B,S"),
                        W(front_int("rotary_embedding_dim", 2), front_int("num_heads", 2))),
                 NB_MALFORMED, "no heads of which 4");
    front_expect(rotary(front_input("p", 7, "B,S"), front_float("scale", 2)), NB_UNSUPPORTED,
                 "scale");
}
END_TEST

/* 2 heads and 1 group of width 4: a query of width 8, keys and values of width 4. */
static wire attention(wire more) {
    return graph(W(front_input("k", 1, "B,S,4"), front_input("pk", 1, "B,1,P,4"),
                   front_input("pv", 1, "B,1,P,4"), front_input("len", 6, "B"),
                   front_input("total", 6, ""),
                   front_domain_node("com.microsoft", "GroupQueryAttention",
                                     "x,k,k,pk,pv,len,total", "y,kk,vv", more)));
}

START_TEST(group_query_attention) {
    wire groups = front_int("kv_num_heads", 1), heads = front_int("num_heads", 2);
    front_expect_type(attention(W(heads, groups)), "f32[B,S,8]");
    front_expect(attention(heads), NB_MALFORMED, "\"kv_num_heads\" is missing");
    front_expect(attention(W(groups, front_int("num_heads", 0))), NB_MALFORMED, "0 heads");
    front_expect(attention(W(groups, front_int("num_heads", -2))), NB_MALFORMED, "-2 heads");
    front_expect(attention(W(groups, front_int("num_heads", INT64_MAX))), NB_MALFORMED, "heads");
    front_expect(attention(W(groups, front_int("num_heads", 3))), NB_MALFORMED, "multiple of 3");
    front_expect_type(attention(W(heads, groups, front_float("softcap", 30))), "f32[B,S,8]");
    front_expect_type(attention(W(heads, groups, front_int("local_window_size", 128))),
                      "f32[B,S,8]");
    front_expect(attention(W(heads, groups, front_int("qk_output", 1))), NB_UNSUPPORTED,
                 "scores as an output");
    front_expect(attention(W(heads, groups, front_string("k_quant_type", "PER_TENSOR"))),
                 NB_UNSUPPORTED, "a cache of 0 bits");
    front_expect(attention(W(heads, groups, front_string("v_quant_type", "PER_TOKEN"))),
                 NB_MALFORMED, "expected NONE, PER_TENSOR or PER_CHANNEL");
    front_expect(attention(W(heads, groups, front_int("kv_cache_bit_width", 8),
                             front_string("k_quant_type", "PER_TENSOR"))),
                 NB_MALFORMED, "input 12 is missing");
    front_expect(attention(W(heads, groups, front_int("new_feature", 1))), NB_UNSUPPORTED,
                 "attribute \"new_feature\" is not known");
    front_expect(attention(W(heads, groups, front_int("do_rotary", 1))), NB_MALFORMED,
                 "input 7 is missing");
}
END_TEST

START_TEST(types_of_elements) {
    front_expect(graph(W(I64("v", 1), front_node("Add", "x,v", "y", NONE))), NB_MALFORMED,
                 "(Add, ai.onnx 17): add: takes two tensors of numbers of the same type");
    front_expect(graph(front_node("Not", "x", "y", NONE)), NB_MALFORMED, "takes bools");
    front_expect(graph(front_node("Cast", "x", "y", front_int("to", 999))), NB_UNSUPPORTED, "999");
    front_expect(graph(front_node("Cast", "x", "y", front_int("to", 8))), NB_UNSUPPORTED, "type 8");
    front_expect_type(graph(front_node("Cast", "x", "y", front_int("to", 10))), "f16[B,S,8]");
    front_expect(graph(W(front_zeros("w", "7"), front_node("Add", "x,w", "y", NONE))), NB_MALFORMED,
                 "8 and 7 must be equal");
}
END_TEST

Suite *nb_suite_front_ops(void) {
    Suite *suite = suite_create("front_ops");
    TCase *tests = tcase_create("front_ops");
    tcase_add_checked_fixture(tests, front_begin, front_end);
    tcase_add_test(tests, reshape);
    tcase_add_test(tests, ranges_in_shapes);
    tcase_add_test(tests, slices);
    tcase_add_test(tests, shape_arithmetic);
    tcase_add_test(tests, names_of_sizes);
    tcase_add_test(tests, halved_and_doubled);
    tcase_add_test(tests, sizes_beyond_reason);
    tcase_add_test(tests, axes_and_sizes);
    tcase_add_test(tests, products);
    tcase_add_test(tests, convolutions);
    tcase_add_test(tests, pooling);
    tcase_add_test(tests, norms);
    tcase_add_test(tests, rotary_embedding);
    tcase_add_test(tests, group_query_attention);
    tcase_add_test(tests, types_of_elements);
    suite_add_tcase(suite, tests);
    return suite;
}
