/* Samples drawn at random: what they look like, and when there are none. */
#include "ir/text.h"
#include "passes/divergence.h"
#include "passes/draw.h"
#include "tests/unit/unit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static nb_arena *arena;
static nb_diags *diags;
static nb_graph *graph;

static void read_graph(const char *text) {
    arena = nb_arena_create(NULL, NULL);
    diags = nb_diags_create(arena, NULL);
    ck_assert_int_eq(nb_parse(text, strlen(text), "g", NULL, NULL, NULL, diags, &graph), NB_OK);
}

static void drop(void) {
    nb_graph_destroy(graph);
    nb_arena_destroy(arena);
}

/* Which share of neighbours in a row of the plane are the same. */
static double evenness(const nb_tensor *t) {
    const float *x = t->data;
    const int64_t width = t->dims[3], rows = nb_tensor_count(t) / width;
    int64_t same = 0;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t i = 1; i < width; i++) same += x[r * width + i] == x[r * width + i - 1];
    }
    return (double)same / (double)(rows * (width - 1));
}

/* Mean product of two channels. */
static double product(const nb_tensor *t, int64_t a, int64_t b) {
    const int64_t plane = t->dims[2] * t->dims[3];
    const float *x = (const float *)t->data + a * plane, *y = (const float *)t->data + b * plane;
    double sum = 0;
    for (int64_t i = 0; i < plane; i++) sum += (double)x[i] * (double)y[i];
    return sum / (double)plane;
}

static const char picture[] = "nir 1\n"
                              "graph @g(%x: f32[N,3,64,W]) -> f32[N,3,64,W] {\n"
                              "  %y: f32[N,3,64,W] = relu %x\n"
                              "  return %y\n"
                              "}\n";
static const nb_draw usual = {.count = 2, .places = 1, .size = 96, .low = -1, .high = 1};

/* Areas are even, channels alike, samples are not; all of the range is used. */
START_TEST(pictures) {
    read_graph(picture);
    const char *why;
    size_t n;
    const nb_sample *s = nb_draw_samples(graph, &usual, arena, &n, &why),
                    *again = nb_draw_samples(graph, &usual, arena, &n, &why);
    ck_assert_ptr_nonnull(s);
    const nb_tensor *x = &s[0].inputs[0];
    ck_assert(x->rank == 4 && x->dims[0] == 1 && x->dims[1] == 3 && x->dims[2] == 64 &&
              x->dims[3] == 96);
    float low = 1, high = -1;
    for (int64_t i = 0; i < nb_tensor_count(x); i++) {
        low = fminf(low, ((const float *)x->data)[i]);
        high = fmaxf(high, ((const float *)x->data)[i]);
    }
    ck_assert(low >= -1 && low < -0.95F && high <= 1 && high > 0.95F);
    ck_assert_double_gt(evenness(x), 0.6);
    ck_assert_double_lt(evenness(x), 0.95);
    ck_assert_double_gt(product(x, 0, 1), 0.6 * product(x, 0, 0));
    ck_assert_mem_ne(x->data, (const float *)x->data + 64 * 96, 64 * 96 * sizeof(float));
    ck_assert_mem_eq(x->data, again[0].inputs[0].data, (size_t)x->bytes);
    ck_assert_mem_ne(x->data, s[1].inputs[0].data, (size_t)x->bytes);
    drop();
}
END_TEST

START_TEST(range_and_limits_of_symbols) {
    read_graph("nir 1\n"
               "graph @g(%x: f32[N,S]) -> f32[N,S] where N in 4..8, S in 1..12 {\n"
               "  %y: f32[N,S] = relu %x\n"
               "  return %y\n"
               "}\n");
    const nb_draw how = {.count = 1, .places = 1, .size = 96, .low = 10, .high = 12};
    const char *why;
    size_t n;
    const nb_sample *s = nb_draw_samples(graph, &how, arena, &n, &why);
    ck_assert_ptr_nonnull(s);
    ck_assert(s->inputs[0].dims[0] == 4 && s->inputs[0].dims[1] == 12);
    for (int i = 0; i < 48; i++) {
        const float x = ((const float *)s->inputs[0].data)[i];
        ck_assert(x >= 10 && x <= 12);
    }
    drop();
}
END_TEST

static void expect_none(const char *text, const char *reason) {
    read_graph(text);
    const char *why = NULL;
    size_t n;
    ck_assert_ptr_null(nb_draw_samples(graph, &usual, arena, &n, &why));
    ck_assert_msg(strstr(why, reason), "%s", why);
    drop();
}

START_TEST(none) {
    expect_none("nir 1\ngraph @g(%x: i64[2]) -> i64[2] {\n  return %x\n}\n",
                "input \"x\" is not of f32");
    expect_none("nir 1\ngraph @g(%x: f32[]) -> f32[] {\n  return %x\n}\n", "single number");
    expect_none("nir 1\ngraph @g(%x: f32[65536,65536]) -> f32[65536,65536] {\n  return %x\n}\n",
                "too large");
}
END_TEST

static size_t drawn_by_pass(const char *text) {
    read_graph(text);
    nb_pass_env env = {.registry = nb_registry_create(arena), .diags = diags, .arena = arena};
    nb_pipeline p;
    ck_assert_int_eq(
        nb_pipeline_parse(env.registry, "draw-samples{count=3, size=8}", arena, diags, &p), NB_OK);
    ck_assert_int_eq(nb_pipeline_run(&p, graph, &env), NB_OK);
    ck_assert_uint_eq(diags->errors, 0);
    const size_t n = env.n_samples;
    if (n) ck_assert(env.samples[n - 1].inputs[0].dims[3] == 8);
    drop();
    return n;
}

/* Planes of 64 x 8; three of them have 1536 places. */
START_TEST(places) {
    read_graph(picture);
    static const int64_t most[] = {1, 1535, 1536, 1 << 20};
    static const size_t wanted[] = {2, 2, 3, 5};
    for (size_t i = 0; i < 4; i++) {
        const nb_draw how = {.count = 5, .places = most[i], .size = 8, .low = -1, .high = 1};
        const char *why;
        size_t n;
        ck_assert_ptr_nonnull(nb_draw_samples(graph, &how, arena, &n, &why));
        ck_assert_uint_eq(n, wanted[i]);
    }
    drop();
}
END_TEST

/* A model that makes no numbers of them has no samples, and that is no error. */
START_TEST(what_the_model_refuses) {
    ck_assert_uint_eq(drawn_by_pass(picture), 3);
    ck_assert_uint_eq(drawn_by_pass("nir 1\n"
                                    "graph @g(%x: f32[N,3,64,W]) -> f32[N,3,64,W] {\n"
                                    "  %y: f32[N,3,64,W] = sqrt %x\n"
                                    "  return %y\n"
                                    "}\n"),
                      0);
}
END_TEST

/* Drawn inputs may saturate a model. Probabilities whose rounded sums differ diverge by nothing,
 * not by less; NaN is told. */
START_TEST(divergence_of_rounded_rows) {
    float p[] = {0.999999F, 0}, q[] = {1, 0}, nan[] = {NAN, 0};
    const nb_tensor wanted = {.elem = NB_F32, .rank = 2, .dims = {1, 2}, .data = p, .bytes = 8};
    nb_tensor found = wanted;
    found.data = q;
    ck_assert(nb_divergence(&wanted, &found, NB_PROBABILITIES) == 0);
    ck_assert_double_gt(nb_divergence(&found, &wanted, NB_PROBABILITIES), 0);
    found.data = nan;
    ck_assert(isnan(nb_divergence(&wanted, &found, NB_PROBABILITIES)));
}
END_TEST

/* By hand: 0.5 ln(0.5/0.25) + 0.5 ln(0.5/0.75), for one of two; the squares of 0, 0, 1 and 1, over
 * 8 times a mean square of 14. */
START_TEST(divergence_of_elements) {
    float p[] = {0.5F, 1}, q[] = {0.25F, 1}, x[] = {0, 2, 4, 6}, y[] = {0, 2, 5, 5};
    const nb_tensor chances = {.elem = NB_F32, .rank = 2, .dims = {1, 2}, .data = p, .bytes = 8},
                    features = {.elem = NB_F32, .rank = 2, .dims = {2, 2}, .data = x, .bytes = 16};
    nb_tensor found = chances;
    found.data = q;
    ck_assert_double_eq_tol(nb_divergence(&chances, &found, NB_CHANCES), 0.0719205, 1e-6);
    found = features;
    found.data = y;
    ck_assert_double_eq_tol(nb_divergence(&features, &found, NB_FEATURES), 1. / 56, 1e-12);
    y[3] = NAN;
    ck_assert(isnan(nb_divergence(&features, &found, NB_FEATURES)));
}
END_TEST

/* What graphs put out. */
START_TEST(kinds_of_outputs) {
    static const struct {
        const char *type, *ops;
        nb_outputs kind;
    } rows[] = {
        {"f32[B,3]", "%m: f32[B,3] = matmul %x, @w\n %y: f32[B,3] = add %m, @b\n", NB_LOGITS},
        {"f32[B,1,1,3]",
         "%m: f32[B,3] = matmul %x, @w\n %y: f32[B,1,1,3] = reshape %m {shape=[B,1,1,3]}\n",
         NB_FEATURES},
        {"f32[B,3]",
         "%m: f32[B,3] = matmul %x, @w\n %s: f32[B,3] = softmax %m {axis=1}\n"
         " %y: f32[B,3] = cast %s {to=f32}\n",
         NB_FEATURES},
        {"f32[B,3]", "%m: f32[B,3] = matmul %x, @w\n %y: f32[B,3] = softmax %m {axis=1}\n",
         NB_PROBABILITIES},
        {"f32[3,B]",
         "%m: f32[B,3] = matmul %x, @w\n %s: f32[B,3] = sigmoid %m\n"
         " %y: f32[3,B] = transpose %s {perm=[1,0]}\n",
         NB_CHANCES},
        {"f32[B,2]", "%y: f32[B,2] = relu %x\n", NB_FEATURES},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[512];
        (void)snprintf(text, sizeof text,
                       "nir 1\ngraph @g(%%x: f32[B,2]) -> %s {\n"
                       " const @w: f32[2,3] = {1, 2, 3, 4, 5, 6}\n"
                       " const @b: f32[3] = {1, 2, 3}\n %s return %%y\n}\n",
                       rows[i].type, rows[i].ops);
        read_graph(text);
        ck_assert_int_eq(nb_output_that_counts(graph).kind, rows[i].kind);
        drop();
    }
}
END_TEST

/* Logits of token t are those of the row t of a table that names the next token. */
static const char chain[] = "nir 1\n"
                            "graph @g(%input_ids: i64[B,S]) -> (logits: f32[B,S,5]) {\n"
                            "  const @next: f32[5,5] = {0, 0, 300, 0, 0, 0, 0, 0, 300, 0,\n"
                            "    0, 0, 0, 0, 300, 300, 0, 0, 0, 0, 0, 300, 0, 0, 0}\n"
                            "  %logits: f32[B,S,5] = gather @next, %input_ids {axis=0}\n"
                            "  return %logits\n"
                            "}\n";

static const int64_t after[] = {2, 3, 4, 0, 1};

/* How many of the tokens behind the first are those that the model puts behind the one before;
 * `text` gets the tokens of two samples. */
static int follows(int rounds, int64_t text[2][32]) {
    read_graph(chain);
    nb_pass_env env = {.registry = nb_registry_create(arena), .diags = diags, .arena = arena};
    nb_pipeline p;
    const char *passes = nb_format(arena, "draw-samples{count=2, size=32, rounds=%d}", rounds);
    ck_assert_int_eq(nb_pipeline_parse(env.registry, passes, arena, diags, &p), NB_OK);
    ck_assert_int_eq(nb_pipeline_run(&p, graph, &env), NB_OK);
    ck_assert_uint_eq(env.n_samples, 2);
    ck_assert(env.drawn && !diags->list.count);
    int n = 0;
    for (int s = 0; s < 2; s++) {
        memcpy(text[s], env.samples[s].inputs[0].data, sizeof text[s]);
        for (int i = 1; i < 32; i++) n += text[s][i] == after[text[s][i - 1]];
    }
    drop();
    return n;
}

/* By k rounds the first k + 1 tokens are text, all others follow what stood there a round before.
 */
START_TEST(tokens) {
    int64_t random[2][32], once[2][32], text[2][32];
    const int by_chance = follows(0, random);
    ck_assert(by_chance > 0 && by_chance < 31);
    ck_assert_mem_ne(random[0], random[1], sizeof random[0]);
    follows(1, once);
    for (int i = 1; i < 32; i++) ck_assert_int_eq(once[0][i], after[random[0][i - 1]]);
    ck_assert_int_eq(once[0][0], random[0][0]);
    ck_assert_int_eq(follows(31, text), 62);
    ck_assert_int_eq(text[1][0], random[1][0]);
}
END_TEST

Suite *nb_suite_draw(void) {
    Suite *s = suite_create("draw");
    TCase *c = tcase_create("draw");
    tcase_add_test(c, pictures);
    tcase_add_test(c, range_and_limits_of_symbols);
    tcase_add_test(c, places);
    tcase_add_test(c, none);
    tcase_add_test(c, divergence_of_rounded_rows);
    tcase_add_test(c, divergence_of_elements);
    tcase_add_test(c, kinds_of_outputs);
    tcase_add_test(c, what_the_model_refuses);
    tcase_add_test(c, tokens);
    suite_add_tcase(s, c);
    return s;
}
