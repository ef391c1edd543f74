/* The importer: shapes, axes and counts that a run gives, taken to be what the declared shape of
 * the result says. Each run is checked: one that fits, and one that does not. */
#include "tests/unit/test_front.h"

#include "ir/eval.h"

#include <string.h>

#define F32      1
#define I64_TYPE 7

typedef struct given {
    const char *op, *input, *output; /* operator, shapes of its first input and of its output */
    const char *inputs;              /* "x,a" or "x,a,b": integer vectors */
    size_t n[2];
    int64_t good[2][4], bad[2][4]; /* in a run that fits, and in one that does not */
    const char *attribute;
    int64_t value;
    bool counts; /* the sizes can be counted, where they are not declared */
} given;

static const given cases[] = {
    {"Reshape", "2,6", "3,4", "x,a", {2}, {{3, -1}}, {{4, 3}}, NULL, 0, true},
    {"Reshape", "2,6", "2,6", "x,a", {2}, {{0, 6}}, {{0, 3}}, NULL, 0, true},
    {"Expand", "1,4", "3,4", "x,a", {2}, {{3, 1}}, {{2, 4}}, NULL, 0, true},
    {"Tile", "2,3", "4,3", "x,a", {2}, {{2, 1}}, {{1, 2}}, NULL, 0, true},
    {"ReduceSum", "2,2", "2", "x,a", {1}, {{-1}}, {{2}}, "keepdims", 0, false},
    {"ReduceL2", "2,3", "1,3", "x,a", {1}, {{0}}, {{1}}, "keepdims", 1, false},
    {"ReduceLogSumExp", "2,3", "1,3", "x,a", {1}, {{-2}}, {{1}}, "keepdims", 1, false},
    {"Squeeze", "1,3,1", "1,3", "x,a", {1}, {{-1}}, {{1}}, NULL, 0, false},
    {"Unsqueeze", "1,3", "1,1,3", "x,a", {1}, {{1}}, {{2}}, NULL, 0, false},
    {"Slice", "5,3", "2,3", "x,a,b", {2, 2}, {{1, -9}, {3, 9}}, {{1, 0}, {4, 3}}, NULL, 0, true},
    {"Pad", "2,3", "4,3", "x,a", {4}, {{2, 0, 0, 0}}, {{2, 1, 0, 0}}, NULL, 0, true},
    {"TopK", "5", "3", "x,a", {1}, {{3}}, {{2}}, NULL, 0, true},
    {"CenterCropPad", "5,3", "3,4", "x,a", {2}, {{3, 4}}, {{3, 3}}, NULL, 0, true},
};

static wire model(const given *c, const char *output) {
    wire attribute = c->attribute ? front_int(c->attribute, c->value) : NONE;
    wire inputs = front_input("x", F32, c->input);
    const char *sizes[] = {"1", "2", "3", "4"};
    for (int i = 0; i < 2 && c->n[i]; i++)
        inputs = W(inputs, front_input(i ? "b" : "a", I64_TYPE, sizes[c->n[i] - 1]));
    const char *results = strcmp(c->op, "TopK") == 0 ? "y,places" : "y";
    return front_model(
        18, W(inputs, front_node(c->op, c->inputs, results, attribute),
              *output ? front_output("y", F32, output) : front_put(12, front_text(1, "y"))));
}

static nb_status run(const given *c, const nb_graph *g, const int64_t (*numbers)[4],
                     nb_diags *diags, nb_tensor *out) {
    static float x[64];
    nb_tensor in[3] = {{.elem = NB_F32, .rank = g->body.params[0]->type->rank, .data = x}};
    for (int i = 0; i < 64; i++) x[i] = (float)i;
    for (int d = 0; d < in[0].rank; d++) in[0].dims[d] = g->body.params[0]->type->dims[d]->value;
    in[0].bytes = 4 * nb_tensor_count(&in[0]);
    for (int i = 0; i < 2; i++)
        in[i + 1] = (nb_tensor){.elem = NB_I64,
                                .rank = 1,
                                .dims = {(int64_t)c->n[i]},
                                .data = (void *)(uintptr_t)numbers[i],
                                .bytes = 8 * (int64_t)c->n[i]};
    return nb_eval(g, in, out, NULL, 0, front_arena(), diags);
}

/* "2,3" */
static const char *sizes_of(const nb_tensor *t) {
    const char *text = "";
    for (int d = 0; d < t->rank; d++)
        text = nb_format(front_arena(), "%s%s%lld", text, d ? "," : "", (long long)t->dims[d]);
    return text;
}

START_TEST(checked) {
    const given *c = &cases[_i];
    nb_status status;
    nb_diags *diags = nb_diags_create(front_arena(), c->op);
    nb_graph *g = front_import(model(c, c->output), diags, &status);
    ck_assert_msg(g != NULL, "%s %d is not imported: %s", c->op, _i,
                  nb_diag_render(front_arena(), diags->list.items[0]));
    nb_tensor out;
    ck_assert_msg(run(c, g, c->good, diags, &out) == NB_OK, "%s %d refuses what fits", c->op, _i);
    ck_assert_msg(run(c, g, c->bad, diags, &out) != NB_OK, "%s %d takes what does not fit", c->op,
                  _i);
    nb_graph_destroy(g);
    /* Without the shape there is nothing to go by, or each run has its own. */
    for (int i = 0; i < 2; i++) {
        const wire bare = model(c, i ? "?,?" : "");
        if (!c->counts) front_expect(bare, NB_UNSUPPORTED, "depends on data");
        if (!c->counts || (i && !strchr(c->output, ','))) continue;
        g = front_import(bare, diags, &status);
        ck_assert_ptr_nonnull(g);
        ck_assert_msg(run(c, g, c->good, diags, &out) == NB_OK, "%s %d refuses its own sizes",
                      c->op, _i);
        ck_assert_str_eq(c->output, sizes_of(&out));
        if (run(c, g, c->bad, diags, &out) == NB_OK) ck_assert_str_ne(c->output, sizes_of(&out));
        nb_graph_destroy(g);
    }
}
END_TEST

/* Of two axes that give the declared shape, the run picks one. */
START_TEST(picked) {
    const given c = {"ReduceSum", "2,2", "2", "x,a", {1}, {{0}}, {{1}}, "keepdims", 0, false};
    nb_status status;
    nb_diags *diags = nb_diags_create(front_arena(), "picked");
    nb_graph *g = front_import(model(&c, "2"), diags, &status);
    ck_assert_ptr_nonnull(g);
    nb_tensor out;
    ck_assert_int_eq(run(&c, g, c.good, diags, &out), NB_OK);
    ck_assert_float_eq(((float *)out.data)[0], 2);
    ck_assert_int_eq(run(&c, g, c.bad, diags, &out), NB_OK);
    ck_assert_float_eq(((float *)out.data)[0], 1);
    nb_graph_destroy(g);
}
END_TEST

/* As many as the data say, and the output declares. */
START_TEST(counted) {
    const given c = {"NonZero", "2,3", "2,5", "x", {0}, {{0}}, {{0}}, NULL, 0, false};
    nb_status status;
    nb_diags *diags = nb_diags_create(front_arena(), "counted");
    nb_tensor out;
    for (int wrong = 0; wrong < 2; wrong++) {
        wire m =
            front_model(18, W(front_input("x", F32, "2,3"), front_node("NonZero", "x", "y", NONE),
                              front_output("y", I64_TYPE, wrong ? "2,4" : "2,5")));
        nb_graph *g = front_import(m, diags, &status);
        ck_assert_ptr_nonnull(g);
        ck_assert_int_eq(run(&c, g, c.good, diags, &out) == NB_OK, !wrong);
        if (!wrong) { /* all but the first element are not 0 */
            static const int64_t wanted[] = {0, 0, 1, 1, 1, 1, 2, 0, 1, 2};
            ck_assert(memcmp(out.data, wanted, sizeof wanted) == 0);
        }
        nb_graph_destroy(g);
    }
    wire m = front_model(18, W(front_input("x", F32, "2,3"), front_node("NonZero", "x", "y", NONE),
                               front_put(12, front_text(1, "y"))));
    front_expect_type(m, "i64[2,y]");
    nb_graph *g = front_import(m, diags, &status);
    ck_assert_int_eq(run(&c, g, c.good, diags, &out), NB_OK);
    ck_assert_str_eq(sizes_of(&out), "2,5");
    nb_graph_destroy(g);
}
END_TEST

static wire bare(wire inputs, wire nodes) {
    return front_model(18, W(inputs, nodes, front_put(12, front_text(1, "y"))));
}

/* Sizes that data tell meet others. */
START_TEST(counts_meet) {
    const wire two = W(front_input("x", F32, "S"), front_input("z", F32, "B")),
               places = W(front_node("NonZero", "x", "n", NONE), I64("zero", 0),
                          front_node("Squeeze", "n,zero", "k", NONE),
                          front_node("Cast", "k", "f", front_int("to", F32)));
    /* An input says its size, and the run checks the number. */
    front_expect_type(bare(two, W(places, front_node("Add", "f,z", "y", NONE))), "f32[B]");
    front_expect_type(
        bare(two, W(places, front_node("Concat", "f,z,f", "y", front_int("axis", 0)))),
        "f32[B+2*n]");
    /* Of two counts the later goes. */
    front_expect_type(bare(two, W(places, front_node("NonZero", "z", "n2", NONE),
                                  front_node("Squeeze", "n2,zero", "k2", NONE),
                                  front_node("Sub", "k,k2", "y", NONE))),
                      "i64[n]");
    front_expect_type(bare(front_input("x", F32, "S,2"),
                           front_node("Unique", "x", "y,i,v,c", front_int("axis", 0))),
                      "f32[y,2]");
    front_expect_type(bare(W(front_input("b", F32, "1,S,4"), front_input("s", F32, "1,2,S"),
                             front_input("m", I64_TYPE, "1")),
                           front_node("NonMaxSuppression", "b,s,m", "y", NONE)),
                      "i64[y,3]");
    front_expect(bare(W(front_input("b", F32, "1,S,5"), front_input("s", F32, "1,2,S")),
                      front_node("NonMaxSuppression", "b,s", "y", NONE)),
                 NB_MALFORMED, "5 and 4 must be equal");
    front_expect(bare(W(front_input("b", F32, "S,4"), front_input("s", F32, "1,2,S")),
                      front_node("NonMaxSuppression", "b,s", "y", NONE)),
                 NB_MALFORMED, "expected rank 3");
}
END_TEST

Suite *nb_suite_front_runtime(void) {
    Suite *suite = suite_create("front_runtime");
    TCase *tests = tcase_create("front_runtime");
    tcase_add_checked_fixture(tests, front_begin, front_end);
    tcase_add_loop_test(tests, checked, 0, NB_COUNT(cases));
    tcase_add_test(tests, picked);
    tcase_add_test(tests, counted);
    tcase_add_test(tests, counts_meet);
    suite_add_tcase(suite, tests);
    return suite;
}
