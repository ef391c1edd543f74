/* The importer: If, Loop, Scan, functions. Types and refusals; what comes out, by the evaluator. */
#include "tests/unit/test_front.h"

#include "ir/eval.h"

#include <string.h>

static wire body(const char *name, wire graph) {
    return front_put(5, W(front_text(1, name), front_put(6, graph)));
}
static wire result(const char *name) { return front_put(12, front_text(1, name)); }
/* A graph inside: names of inputs are enough for an input that has no type of its own. */
static wire takes(const char *name) { return front_put(11, front_text(1, name)); }

static wire branches(wire then, wire other) {
    return W(body("then_branch", then), body("else_branch", other));
}
static wire relu(const char *x, const char *y) { return front_node("Relu", x, y, NONE); }
static wire negative(const char *x, const char *y) { return front_node("Neg", x, y, NONE); }

/* x: f32[B,4], c: bool, through an If that gives y. */
static wire model(const char *dims, wire nodes) {
    return front_model(16,
                       W(front_input("x", 1, dims), front_input("c", 9, ""), nodes, result("y")));
}

/* The first output for x of `n` rows of 4 numbers -2 -1 0 1 2 ... and a second input. */
static void expect_values(wire bytes, int64_t n, nb_tensor second, size_t count,
                          const double *want) {
    nb_arena *arena = front_arena();
    nb_diags *diags = nb_diags_create(arena, "m.onnx");
    nb_status status;
    nb_graph *g = front_import(bytes, diags, &status);
    ck_assert_msg(g != NULL, "%s", nb_diag_render(arena, diags->list.items[0]));
    float *x = NB_NEW_ARRAY(arena, float, (size_t)(4 * n + 1));
    for (int64_t i = 0; i < 4 * n; i++) x[i] = (float)(i - 2);
    nb_tensor in[] = {{.elem = NB_F32, .rank = 2, .dims = {n, 4}, .data = x, .bytes = 16 * n},
                      second};
    nb_tensor *out = NB_NEW_ARRAY(arena, nb_tensor, g->outputs.count);
    status = nb_eval(g, in, out, NULL, 0, arena, diags);
    ck_assert_msg(status == NB_OK, "%s", status ? nb_diag_render(arena, diags->list.items[0]) : "");
    ck_assert_int_eq(nb_tensor_count(&out[0]), (int64_t)count);
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(nb_tensor_get(&out[0], (int64_t)i) == want[i], "[%zu] is %g, expected %g", i,
                      nb_tensor_get(&out[0], (int64_t)i), want[i]);
    nb_graph_destroy(g);
}
#define EXPECT(model, n, second, ...)                                                 \
    expect_values(model, n, second, sizeof((double[]){__VA_ARGS__}) / sizeof(double), \
                  (double[]){__VA_ARGS__})

static nb_tensor flag(bool value) {
    static unsigned char bytes[2] = {0, 1};
    return (nb_tensor){.elem = NB_BOOL, .data = &bytes[value], .bytes = 1};
}
static nb_tensor number(int64_t value) {
    int64_t *data = NB_NEW(front_arena(), int64_t);
    *data = value;
    return (nb_tensor){.elem = NB_I64, .data = data, .bytes = 8};
}

/* ---- If ------------------------------------------------------------------------------------ */

START_TEST(conditions) {
    wire both = model("B,4", front_node("If", "c", "y",
                                        branches(W(relu("x", "a"), result("a")),
                                                 W(negative("x", "b"), result("b")))));
    front_expect_type(both, "f32[B,4]");
    EXPECT(both, 1, flag(true), 0, 0, 0, 1);
    EXPECT(both, 1, flag(false), 2, 1, -0.0, -1);
    /* Names: a branch's own, those around it, and those around these. */
    wire inner =
        front_node("If", "c", "i",
                   branches(W(relu("a", "d"), result("d")), W(negative("x", "e"), result("e"))));
    wire nested = model("B,4", front_node("If", "c", "y",
                                          branches(W(negative("x", "a"), inner, result("i")),
                                                   W(negative("x", "f"), result("f")))));
    EXPECT(nested, 1, flag(true), 2, 1, 0, 0);
    /* Known: in place, and what the other branch does is of no interest. */
    const unsigned char no = 0;
    wire known = model(
        "B,4",
        W(front_weight("k", 9, "", &no, 1),
          front_node("If", "k", "y",
                     branches(W(front_node("Softmax", "x", "a", front_int("axis", 7)), result("a")),
                              W(relu("x", "b"), result("b"))))));
    EXPECT(known, 1, flag(true), 0, 0, 0, 1);
}
END_TEST

/* squeeze if the axis is 1, else as it is: no value has two ranks. */
static wire squeeze_if_one(const char *out) {
    return W(I64("zero", 0), I64("one", 1), front_node("Shape", "x", "s", NONE),
             front_node("Gather", "s,zero", "n", NONE), front_node("Equal", "n,one", "is", NONE),
             front_node("If", "is", out,
                        branches(W(front_node("Squeeze", "x,zero", "a", NONE), result("a")),
                                 W(front_node("Identity", "x", "b", NONE), result("b")))));
}

START_TEST(sizes_of_branches) {
    front_expect_type(model("B,4", squeeze_if_one("y")), "f32[4]");
    front_expect_type(model("3,4", squeeze_if_one("y")), "f32[3,4]");
    /* What a branch says of sizes holds where it runs: 3 rows there, any number outside. */
    wire three = W(front_node("Add", "x,w", "a", NONE),
                   front_node("ReduceSum", "a,axis", "r", front_int("keepdims", 0)), result("r"));
    wire any = W(front_node("ReduceSum", "x,axis", "q", front_int("keepdims", 0)), result("q"));
    wire sized = model("B,4", W(I64("axis", 0), front_zeros("w", "3,4"),
                                front_node("If", "c", "y", branches(three, any))));
    front_expect_type(sized, "f32[4]");
    EXPECT(sized, 2, flag(false), 0, 2, 4, 6);
    EXPECT(sized, 3, flag(true), 6, 9, 12, 15);
    /* Where they cannot be equal, the condition says which it is. */
    wire summed = model(
        "B,4", front_node("If", "c", "y",
                          branches(W(relu("x", "a"), result("a")),
                                   W(I64("zero", 0), front_node("ReduceSum", "x,zero", "b", NONE),
                                     result("b")))));
    front_expect_type(summed, "f32[y.0,4]");
    EXPECT(summed, 2, flag(true), 0, 0, 0, 1, 2, 3, 4, 5);
    EXPECT(summed, 2, flag(false), 0, 2, 4, 6);
    wire doubled =
        model("B,4", front_node("If", "c", "y",
                                branches(W(relu("x", "a"), result("a")),
                                         W(front_node("Concat", "x,x", "b", front_int("axis", 0)),
                                           result("b")))));
    EXPECT(doubled, 1, flag(true), 0, 0, 0, 1);
    EXPECT(doubled, 1, flag(false), -2, -1, 0, 1, -2, -1, 0, 1);
    /* A cache in front of what is new, and none: the former says the size. */
    wire cached = W(front_node("Concat", "past,x", "a", front_int("axis", 0)), result("a"));
    wire fresh = W(relu("x", "b"), result("b"));
    wire behind =
        W(front_input("past", 1, "P,4"), front_node("If", "c", "y", branches(cached, fresh)));
    wire before =
        W(front_input("past", 1, "P,4"), front_node("If", "c", "y", branches(fresh, cached)));
    front_expect_type(model("B,4", behind), "f32[B+P,4]");
    front_expect_type(model("B,4", before), "f32[B+P,4]");
    /* A number, and a vector of one. */
    wire number = W(front_node("ReduceSum", "x", "a", front_int("keepdims", 0)), result("a"));
    wire vector = W(front_node("ReduceSum", "x", "s", front_int("keepdims", 0)), I64("one", 1),
                    front_node("Reshape", "s,one", "b", NONE), result("b"));
    front_expect_type(model("B,4", front_node("If", "c", "y", branches(number, vector))), "f32[1]");
    front_expect_type(model("B,4", front_node("If", "c", "y", branches(vector, number))), "f32[1]");
    /* How many there are is known in the branch alone. */
    wire places = W(front_node("NonZero", "x", "a", NONE), result("a"));
    wire others = W(front_node("NonZero", "x", "b", NONE), result("b"));
    front_expect(model("B,4", front_node("If", "c", "y", branches(places, others))), NB_UNSUPPORTED,
                 "a size that data tell in a branch");
    /* A branch may use what a later node makes. */
    wire late = W(relu("late", "a"), result("a"));
    front_expect_type(
        model("B,4", W(front_node("If", "c", "y", branches(late, fresh)), relu("x", "late"))),
        "f32[B,4]");
    wire rows =
        W(front_input("z", 1, "C,4"),
          front_node("If", "c", "y",
                     branches(W(relu("x", "a"), result("a")), W(relu("z", "b"), result("b")))));
    front_expect_type(model("B,4", rows), "f32[B,4]");
    front_expect(
        model("B,4", front_node("If", "c", "y",
                                branches(W(relu("x", "a"), result("a")),
                                         W(front_node("Shape", "x", "b", NONE), result("b"))))),
        NB_UNSUPPORTED, "different ranks");
}
END_TEST

START_TEST(refused_ifs) {
    wire good = W(relu("x", "a"), result("a"));
    front_expect(model("B,4", front_node("If", "x", "y", branches(good, good))), NB_MALFORMED,
                 "expected one bool");
    front_expect(model("B,4", front_node("If", "c", "y", body("then_branch", good))), NB_MALFORMED,
                 "\"else_branch\" is missing");
    front_expect(
        model("B,4", front_node("If", "c", "y", branches(good, W(relu("x", "a"), result("b"))))),
        NB_MALFORMED, "output \"b\" of its graph is not defined");
    front_expect(model("B,4", front_node("If", "c", "y,z", branches(good, good))), NB_MALFORMED,
                 "1 outputs, expected 0 and 2");
    front_expect(
        model("B,4", front_node("If", "c", "y",
                                branches(good, W(front_node("ImageDecoder", "x", "b", NONE),
                                                 result("b"))))),
        NB_UNSUPPORTED, "ImageDecoder 1");
    front_expect(model("B,4", W(front_node("If", "c", "y", branches(good, good)),
                                front_node("Relu", "a", "z", NONE))),
                 NB_MALFORMED, "input 0 \"a\" is not defined");
}
END_TEST

/* ---- Loop ---------------------------------------------------------------------------------- */

/* x: f32[B,4], m: i64 through nodes that give y. */
static wire trips(wire nodes) {
    return front_model(16,
                       W(front_input("x", 1, "B,4"), front_input("m", 7, ""), nodes, result("y")));
}

/* h = h + x in each step. */
static wire adds(wire more) {
    return body("body", W(takes("i"), takes("go"), takes("h"), result("go"), result("n"),
                          front_node("Add", "h,x", "n", NONE), more));
}

START_TEST(loops) {
    const int64_t three = 3;
    wire count = front_weight("k", 7, "", &three, 8);
    EXPECT(trips(W(count, front_node("Loop", "k,,x", "y", adds(NONE)))), 1, number(0), -8, -4, 0,
           4);
    /* At run time. */
    wire counted = trips(front_node("Loop", "m,,x", "y", adds(NONE)));
    front_expect_type(counted, "f32[B,4]");
    EXPECT(counted, 1, number(2), -6, -3, 0, 3);
    EXPECT(counted, 1, number(-5), -2, -1, 0, 1);
    /* A stack has as many entries as there are rows. */
    wire rows = W(I64("zero", 0), front_node("Shape", "x", "s", NONE),
                  front_node("Gather", "s,zero", "n0", NONE));
    wire stack =
        trips(W(rows, front_node("Loop", "n0,,x", "z,y",
                                 adds(W(result("t"), front_node("ReduceSum", "n", "t",
                                                                front_int("keepdims", 0)))))));
    front_expect_type(stack, "f32[B]");
    EXPECT(stack, 2, number(0), 24, 36);
    /* As many as data say. */
    wire data = trips(front_node(
        "Loop", "m,,x", "z,y",
        adds(W(result("t"), front_node("ReduceSum", "n", "t", front_int("keepdims", 0))))));
    front_expect_type(data, "f32[m]");
    EXPECT(data, 2, number(3), 24, 36, 48);
    /* Until the sum is large enough; the condition of the first step too. */
    wire until = body("body", W(takes("i"), takes("go"), takes("h"), result("more"), result("n"),
                                front_node("Add", "h,h", "n", NONE),
                                front_node("ReduceMax", "n", "top", front_int("keepdims", 0)),
                                front_node("Less", "top,limit", "more", NONE)));
    const float limit = 10;
    wire doubling =
        trips(W(front_weight("limit", 1, "", &limit, 4), front_node("Loop", "m,,x", "y", until)));
    EXPECT(doubling, 1, number(100), -32, -16, 0, 16);
    EXPECT(doubling, 1, number(2), -8, -4, 0, 4);
}
END_TEST

/* Shapes that change, and lists: the steps one by one. */
START_TEST(unrolled_loops) {
    wire grows = body("body", W(takes("i"), takes("go"), takes("h"), result("go"), result("n"),
                                front_node("Concat", "h,x", "n", front_int("axis", 0))));
    wire grown = trips(W(I64("k", 2), front_node("Loop", "k,,x", "y", grows)));
    front_expect_type(grown, "f32[3*B,4]");
    EXPECT(grown, 1, number(0), -2, -1, 0, 1, -2, -1, 0, 1, -2, -1, 0, 1);
    /* x * 0, x * 1, x * 2 in a list; the stack has the steps. */
    wire lists = body("body", W(takes("i"), takes("go"), takes("l"), result("go"), result("m"),
                                result("f"), front_node("Cast", "i", "f", front_int("to", 1)),
                                front_node("Mul", "x,f", "p", NONE),
                                front_node("SequenceInsert", "l,p", "m", NONE)));
    wire joined =
        W(I64("k", 3), front_put(1, W(front_text(2, "e"), front_text(4, "SequenceEmpty"))),
          front_node("Loop", "k,,e", "s,t", lists),
          front_node("ConcatFromSequence", "s", "c", front_int("axis", 0)),
          front_node("ReduceSum", "t", "r", NONE), front_node("Mul", "c,r", "y", NONE));
    EXPECT(trips(joined), 1, number(0), 0, 0, 0, 0, -6, -3, 0, 3, -12, -6, 0, 6);
    front_expect(trips(W(front_put(1, W(front_text(2, "e"), front_text(4, "SequenceEmpty"))),
                         front_node("Loop", "m,,e", "s,t", lists),
                         front_node("ConcatFromSequence", "s", "y", front_int("axis", 0)))),
                 NB_UNSUPPORTED, "it carries a sequence");
}
END_TEST

START_TEST(refused_loops) {
    wire stacks = adds(W(result("n2"), relu("n", "n2")));
    front_expect(trips(front_node("Loop", ",,x", "z,y", stacks)), NB_UNSUPPORTED,
                 "as many entries as there are steps, of which there is no end");
    wire grows = body("body", W(takes("i"), takes("go"), takes("h"), result("go"), result("n"),
                                front_node("Concat", "h,x", "n", front_int("axis", 1))));
    front_expect(trips(front_node("Loop", "m,,x", "y", grows)), NB_UNSUPPORTED,
                 "what it carries on as \"h\" is f32[B,4] in one step and f32[B,8] in the next");
    front_expect(trips(front_node("Loop", "x,,x", "y", adds(NONE))), NB_MALFORMED,
                 "the trip count is f32[B,4], expected one i64");
    front_expect(trips(front_node("Loop", "m,,x,x", "y,z", adds(NONE))), NB_MALFORMED,
                 "its graph has 3 inputs, expected 4");
    front_expect(trips(front_node("Loop", "m,,x", "y,z", adds(NONE))), NB_MALFORMED,
                 "2 outputs, its graph gives 1");
}
END_TEST

/* ---- Scan ---------------------------------------------------------------------------------- */

/* h = h + slice of x; the sums are stacked. */
static wire scan(wire attributes) {
    return front_node("Scan", "h0,x", "z,y",
                      W(body("body", W(takes("h"), takes("s"), result("n"), result("t"),
                                       front_node("Add", "h,s", "n", NONE),
                                       front_node("Identity", "n", "t", NONE))),
                        front_int("num_scan_inputs", 1), attributes));
}
#define INTS(name, ...) \
    front_ints(name, sizeof((int64_t[]){__VA_ARGS__}) / 8, (int64_t[]){__VA_ARGS__})

START_TEST(scans) {
    wire h0 = front_zeros("h0", "4");
    EXPECT(trips(W(h0, scan(NONE))), 2, number(0), -2, -1, 0, 1, 0, 2, 4, 6);
    EXPECT(trips(W(h0, scan(INTS("scan_input_directions", 1)))), 2, number(0), 2, 3, 4, 5, 0, 2, 4,
           6);
    EXPECT(trips(W(h0, scan(INTS("scan_output_directions", 1)))), 2, number(0), 0, 2, 4, 6, -2, -1,
           0, 1);
    EXPECT(trips(W(h0, scan(INTS("scan_output_axes", 1)))), 2, number(0), -2, 0, -1, 2, 0, 4, 1, 6);
    wire columns = W(front_zeros("h0", "2"), scan(INTS("scan_input_axes", -1)));
    front_expect_type(trips(columns), "f32[4,2]");
    EXPECT(trips(columns), 2, number(0), -2, 2, -3, 5, -3, 9, -2, 14);
    front_expect(trips(W(h0, scan(INTS("scan_input_axes", 2)))), NB_MALFORMED, "axis 2 is out of");
    front_expect(trips(W(h0, scan(INTS("scan_input_directions", 1, 1)))), NB_MALFORMED,
                 "scan_input_directions has 2 entries, expected 1");
    front_expect(trips(W(front_zeros("h0", "3"), scan(NONE))), NB_MALFORMED, "must be equal");
}
END_TEST

/* ---- functions ----------------------------------------------------------------------------- */

/* A node as a function has it: under field 7 instead of 1. */
static wire step(wire node) {
    uint8_t *bytes = nb_alloc(front_arena(), node.size);
    memcpy(bytes, node.bytes, node.size);
    bytes[0] = 7 << 3 | 2;
    return (wire){bytes, node.size};
}
/* `inputs` is a list of fields 4. */
static wire function(const char *name, wire inputs, const char *output, wire nodes) {
    return front_put(25, W(front_text(1, name), inputs, front_text(5, output), nodes,
                           front_put(9, W(front_text(1, ""), front_number(2, 16))),
                           front_text(10, "local")));
}
static wire call(const char *name, const char *inputs, const char *output, wire attributes) {
    return front_domain_node("local", name, inputs, output, attributes);
}
static wire refers(const char *name, const char *to, int type) {
    return front_put(5,
                     W(front_text(1, name), front_text(21, to), front_number(20, (uint64_t)type)));
}

START_TEST(functions) {
    wire ab = W(front_text(4, "a"), front_text(4, "b"));
    /* An attribute from the call, an input that is not given, names of its own. */
    wire scaled = function("Scaled", ab, "y",
                           W(step(front_node("LeakyRelu", "a", "x", refers("alpha", "slope", 1))),
                             step(front_node("Clip", "x,b", "y", NONE))));
    wire twice = function("Twice", front_text(4, "a"), "o",
                          W(step(call("Scaled", "a", "m", refers("slope", "s", 1))),
                            step(front_node("Add", "m,m", "o", NONE))));
    wire one = W(trips(call("Scaled", "x", "y", front_float("slope", 0.5f))), scaled);
    front_expect_type(one, "f32[B,4]");
    EXPECT(one, 1, number(0), -1, -0.5, 0, 1);
    wire two = W(trips(call("Twice", "x", "y", front_float("s", 0.25f))), scaled, twice);
    EXPECT(two, 1, number(0), -1, -0.5, 0, 2);
    /* Not given: as the operator has it. */
    EXPECT(W(trips(W(I64("two", 2), call("Scaled", "x", "z", NONE),
                     front_node("Mul", "z,x", "y", NONE))),
             scaled),
           1, number(0), (double)(-2 * 0.01f * -2), (double)(0.01f), 0, 1);
    front_expect(W(trips(call("Scaled", "x,x,x", "y", NONE)), scaled), NB_MALFORMED,
                 "3 inputs and 1 outputs, the function has 2 and 1");
    front_expect(W(trips(call("Other", "x", "y", NONE)), scaled), NB_UNSUPPORTED, "local::Other 1");
    front_expect(W(trips(call("Bad", "x", "y", NONE)),
                   function("Bad", ab, "y", step(front_node("ImageDecoder", "a", "y", NONE)))),
                 NB_UNSUPPORTED, "ImageDecoder 1");
    front_expect(W(trips(call("Hole", "x", "y", NONE)),
                   function("Hole", ab, "y", step(front_node("Neg", "a", "z", NONE)))),
                 NB_MALFORMED, "does not define its output \"y\"");
    front_expect(W(trips(call("Self", "x", "y", NONE)),
                   function("Self", ab, "y", step(call("Self", "a", "y", NONE)))),
                 NB_LIMIT, "functions call each other");
    wire wide = step(call("Self", "a", "m", NONE));
    front_expect(W(trips(call("Self", "x", "y", NONE)),
                   function("Self", ab, "y", W(wide, step(call("Self", "a", "y", NONE))))),
                 NB_LIMIT, "functions call each other");
    front_expect(W(trips(relu("x", "y")), scaled, scaled), NB_UNSUPPORTED, "two functions are");
}
END_TEST

/* ---- sequences ----------------------------------------------------------------------------- */

START_TEST(sequences) {
    wire parts = W(I64("zero", 0), I64("one", 1), I64("last", -1),
                   front_node("SplitToSequence", "x", "s", front_int("axis", 1)));
    /* x[:,3] + x[:,1], both of them columns. */
    wire picked =
        trips(W(parts, front_node("SequenceAt", "s,last", "d", NONE),
                front_node("SequenceAt", "s,one", "b", NONE), front_node("Add", "d,b", "y", NONE)));
    front_expect_type(picked, "f32[B,1]");
    EXPECT(picked, 2, number(0), 0, 8);
    /* The columns but the first, and the last one in front, as rows. */
    wire turned = trips(W(parts, front_node("SequenceAt", "s,last", "d", NONE),
                          front_node("SequenceErase", "s,zero", "t", NONE),
                          front_node("SequenceInsert", "t,d,zero", "u", NONE),
                          front_node("Identity", "u", "v", NONE),
                          front_node("ConcatFromSequence", "v", "y",
                                     W(front_int("axis", 0), front_int("new_axis", 1)))));
    front_expect_type(turned, "f32[4,B,1]");
    EXPECT(turned, 1, number(0), 1, -1, 0, 1);
    wire sizes =
        W(I64("sizes", 1, 3), front_node("SplitToSequence", "x,sizes", "s", front_int("axis", 1)),
          front_node("SequenceLength", "s", "n", NONE),
          front_node("Cast", "n", "f", front_int("to", 1)), I64("one", 1),
          front_node("SequenceAt", "s,one", "b", NONE), front_node("Mul", "b,f", "y", NONE));
    EXPECT(trips(sizes), 1, number(0), -2, 0, 2);
    /* A branch sees a sequence around it; what it says when it is built stays inside. */
    wire inside = model(
        "B,4",
        W(parts,
          front_node("If", "c", "y",
                     branches(W(front_node("SequenceAt", "s,one", "p", NONE), result("p")),
                              W(front_node("SequenceAt", "s,last", "q", NONE), result("q"))))));
    EXPECT(inside, 1, flag(true), -1);
    EXPECT(inside, 1, flag(false), 1);
    front_expect(trips(W(parts, front_node("Relu", "s", "y", NONE))), NB_MALFORMED,
                 "is a sequence, expected a tensor");
    front_expect(trips(W(parts, front_node("Identity", "s", "y", NONE))), NB_UNSUPPORTED,
                 "output \"y\": it is not a tensor");
    front_expect(trips(W(parts, front_node("SequenceAt", "s,m", "y", NONE))), NB_UNSUPPORTED,
                 "must be known");
    front_expect(trips(W(parts, I64("four", 4), front_node("SequenceAt", "s,four", "y", NONE))),
                 NB_MALFORMED, "position 4 of a sequence of 4 tensors");
    front_expect(trips(front_node("SplitToSequence", "x", "y", NONE)), NB_UNSUPPORTED,
                 "must not depend on a run");
}
END_TEST

START_TEST(optionals) {
    wire held = trips(W(front_node("Optional", "x", "o", NONE),
                        front_node("OptionalHasElement", "o", "has", NONE),
                        front_node("If", "has", "y",
                                   branches(W(front_node("OptionalGetElement", "o", "a", NONE),
                                              relu("a", "b"), result("b")),
                                            W(negative("x", "d"), result("d"))))));
    EXPECT(held, 1, number(0), 0, 0, 0, 1);
    wire tensor = front_put(1, W(front_number(1, 1), front_put(2, NONE)));
    wire type =
        front_put(5, W(front_text(1, "type"), front_put(14, front_put(9, front_put(1, tensor))),
                       front_number(20, 13)));
    wire nothing = W(front_node("Optional", "", "o", type),
                     front_node("OptionalHasElement", "o", "has", NONE));
    EXPECT(trips(W(nothing, front_node("If", "has", "y",
                                       branches(W(relu("x", "b"), result("b")),
                                                W(negative("x", "d"), result("d")))))),
           1, number(0), 2, 1, 0, -1);
    front_expect(trips(W(nothing, front_node("OptionalGetElement", "o", "y", NONE))), NB_MALFORMED,
                 "holds nothing");
}
END_TEST

Suite *nb_suite_front_control(void);
Suite *nb_suite_front_control(void) {
    Suite *s = suite_create("front_control");
    TCase *c = tcase_create("control");
    tcase_add_checked_fixture(c, front_begin, front_end);
    tcase_add_test(c, conditions);
    tcase_add_test(c, sizes_of_branches);
    tcase_add_test(c, refused_ifs);
    tcase_add_test(c, loops);
    tcase_add_test(c, unrolled_loops);
    tcase_add_test(c, refused_loops);
    tcase_add_test(c, scans);
    tcase_add_test(c, functions);
    tcase_add_test(c, sequences);
    tcase_add_test(c, optionals);
    suite_add_tcase(s, c);
    return s;
}
