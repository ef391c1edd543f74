/* Pass rotate: its matrices are orthonormal and spread evenly; what cannot be rotated is named; the
 * check of a pass that changes what states hold looks at the run behind the first one too. */
#include "ir/build.h"
#include "ir/text.h"
#include "passes/check.h"
#include "passes/rotation.h"
#include "tests/unit/unit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static nb_arena *arena;
static nb_diags *diags;

static void setup(void) {
    arena = nb_arena_create(NULL, NULL);
    diags = nb_diags_create(arena, "rotate");
}
static void teardown(void) { nb_arena_destroy(arena); }

/* ---- matrices ------------------------------------------------------------------------------- */

/* R, row by row: what becomes of the unit vectors. */
static double *matrix_of(const nb_rotation *r) {
    const size_t n = (size_t)r->n, lanes = NB_ROTATION_LANES;
    double *matrix = NB_NEW_ARRAY(arena, double, n *n);
    double *v = NB_NEW_ARRAY(arena, double, n *lanes);
    double *room = NB_NEW_ARRAY(arena, double, (size_t)r->order *lanes);
    for (size_t i = 0; i < n; i++) {
        memset(v, 0, n * lanes * sizeof *v);
        v[i * lanes + i % lanes] = 1;
        nb_rotation_apply(r, v, room);
        for (size_t j = 0; j < n; j++) matrix[i * n + j] = v[j * lanes + i % lanes];
    }
    return matrix;
}

static const struct {
    int64_t n, order, block;
} shapes[] = {
    {1, 1, 1},
    {2, 1, 2},
    {64, 1, 64},
    {12, 12, 1},
    {24, 12, 2},
    {20, 20, 1},
    {28, 28, 1},
    {36, 36, 1},
    {40, 20, 2},
    {60, 60, 1},
    {68, 68, 1},
    {104, 104, 1},
    {140, 140, 1},
    {148, 148, 1},
    {96, 12, 8},
    /* no construction at hand: blocks */
    {7, 1, 1},
    {6, 1, 2},
    {52, 1, 4},
    {172, 1, 4},
    {344, 1, 8},
};

START_TEST(matrices) {
    nb_rotation r = nb_rotation_random(arena, shapes[_i].n, 3);
    ck_assert_int_eq(r.order, shapes[_i].order);
    ck_assert_int_eq(r.block, shapes[_i].block);
    const double *m = matrix_of(&r), even = 1 / sqrt((double)(r.order * r.block));
    const int64_t n = r.n, run = r.order * r.block;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < n; j++) {
            double dot = 0;
            for (int64_t k = 0; k < n; k++) dot += m[i * n + k] * m[j * n + k];
            ck_assert_double_eq_tol(dot, i == j ? 1 : 0, 1e-12);
            ck_assert_double_eq_tol(fabs(m[i * n + j]), i / run == j / run ? even : 0, 1e-15);
        }
    }
}
END_TEST

/* Rows of Sylvester's matrix: the sign is the parity of the common bits. */
START_TEST(plain) {
    nb_rotation r = nb_rotation_plain(8, 8);
    const double *m = matrix_of(&r);
    for (int i = 0; i < 64; i++) {
        const double sign = __builtin_parity((unsigned)(i / 8 & i % 8)) ? -1 : 1;
        ck_assert_double_eq_tol(m[i], sign / sqrt(8), 1e-15);
    }
    /* What is left of 8 entries of 15 is 4 and 2 and 1. */
    r = nb_rotation_plain(15, 8);
    m = matrix_of(&r);
    ck_assert_double_eq_tol(m[14 * 15 + 14], 1, 1e-15);
    ck_assert_double_eq_tol(m[13 * 15 + 13], -1 / sqrt(2), 1e-15);
    ck_assert_double_eq_tol(m[11 * 15 + 8], 0.5, 1e-15);
    ck_assert_double_eq_tol(m[12 * 15 + 11], 0, 1e-15);
}
END_TEST

START_TEST(seeds) {
    nb_rotation a = nb_rotation_random(arena, 64, 1), b = nb_rotation_random(arena, 64, 1),
                c = nb_rotation_random(arena, 64, 2);
    int sum = 0;
    ck_assert_mem_eq(a.signs, b.signs, 64);
    ck_assert_mem_ne(a.signs, c.signs, 64);
    for (int i = 0; i < 64; i++) sum += a.signs[i];
    ck_assert_int_lt(abs(sum), 32); /* not all alike: four deviations */
}
END_TEST

/* ---- refusals ------------------------------------------------------------------------------- */

#define STREAM(ops)                                                                \
    "nir 1\n"                                                                      \
    "graph @g(%i: i64[S], %x: f32[S,2], %c: f32[1], %d: f32[1,2]) -> f32[S,2] {\n" \
    "  const @t: f32[2,2] = {1, 2, 3, 4}\n"                                        \
    "  const @g: f32[2] = {2, 1}\n"                                                \
    "  %e: f32[S,2] = gather @t, %i {axis=0}\n" ops "  return %y\n"                \
    "}\n"
#define NORM  "  %n: f32[S,2] = rms_norm %s, @g {eps=1e-05}\n"
#define LAYER "  %y: f32[S,2] = matmul %n, @t\n"

/* Attention to values of a layer, past ones before them. */
#define HEADS(state, ops)                                                                  \
    "nir 1\n"                                                                              \
    "graph @g(%x: f32[B,S,2], %q: f32[B,1,S,2], %k: f32[B,1,P+S,2],\n"                     \
    "    %p: f32[B,1,P,2]) -> (y: f32[B,S,2], z: f32[B,1,P+S,2]) where P in 0.. {\n" state \
    "  const @w: f32[2,2] = {1, 2, 3, 4}\n"                                                \
    "  %l: f32[B,S,2] = matmul %x, @w\n"                                                   \
    "  %h: f32[B,S,1,2] = reshape %l {shape=[B,S,1,2]}\n"                                  \
    "  %v: f32[B,1,S,2] = transpose %h {perm=[0,2,1,3]}\n"                                 \
    "  %z: f32[B,1,P+S,2] = concat %p, %v {axis=2}\n"                                      \
    "  %a: f32[B,1,S,2] = attention %q, %k, %z {scale=1}\n"                                \
    "  %r: f32[B,S,1,2] = transpose %a {perm=[0,2,1,3]}\n"                                 \
    "  %o: f32[B,S,2] = reshape %r {shape=[B,S,2]}\n" ops "  return %y, %z\n}\n"
#define STATE "  state p -> z axis 2\n"

static const struct {
    const char *options, *graph, *why;
} refusals[] = {
    {"values=false", STREAM("  %s: f32[S,2] = neg %e\n" NORM LAYER),
     "residual: there is no residual stream"},
    {"values=false", STREAM("  %s: f32[S,2] = add %e, %x\n" NORM LAYER),
     "residual: 1 of 1 residual streams stay as they are: it begins with an input of the model"},
    {"values=false", STREAM("  %r: f32[S,2] = relu %x\n  %s: f32[S,2] = add %e, %r\n" NORM LAYER),
     "what this adds to it cannot be rotated"},
    {"values=false",
     STREAM("  %r: f32[S,2] = add %e, %c\n  %s: f32[S,2] = add %e, %r\n" NORM LAYER),
     "it adds one number to all channels"},
    {"values=false",
     STREAM("  %s: f32[S,2] = add %e, %e\n  %r: f32[S,2] = relu %s\n" NORM
            "  %m: f32[S,2] = matmul %n, @t\n  %y: f32[S,2] = mul %m, %r\n"),
     "this reads it as it is"},
    {"values=false",
     STREAM("  %y: f32[S,2] = add %e, %e\n  %n: f32[S,2] = rms_norm %y, @g {eps=1}\n"
            "  %m: f32[S,2] = neg %n\n"),
     "an output of the model shows it"},
    {"values=false",
     STREAM("  %s: f32[S,2] = add %e, %e\n"
            "  %h: f32[2] = reshape %d {shape=[2]}\n"
            "  %n: f32[S,2] = layer_norm %s, @g, bias=%h {eps=1}\n" LAYER),
     "gain and bias of this norm are not constants of f32"},
    {"values=false", STREAM("  %s: f32[S,2] = add %e, %e\n" NORM "  %y: f32[S,2] = neg %n\n"),
     "this takes a norm of it, and is no linear layer"},
    {"values=false",
     STREAM("  %s: f32[S,2] = add %e, %e\n" NORM "  %m: f32[S,2] = mul %n, %c\n"
            "  %y: f32[S,2] = matmul %m, @t\n"),
     "this takes a norm of it, and is no linear layer"},
    {"values=false",
     STREAM("  %s: f32[S,2] = add %e, %e\n  %l: f32[S,2] = layer_norm %s, @g {eps=1}\n"
            "  %m: f32[S,2] = matmul %l, @t\n" NORM "  %k: f32[S,2] = matmul %n, @t\n"
            "  %y: f32[S,2] = mul %k, %m\n"),
     "layer_norms read it as well as this, which sees its mean"},
    {"values=false", /* a sum of a norm and of what a layer makes of it */
     STREAM("  %h: f32[S,2] = rms_norm %x, @g {eps=1}\n  %f: f32[S,2] = matmul %h, @t\n"
            "  %s: f32[S,2] = add %f, %h\n" NORM LAYER),
     "this is part of it, and a norm or another stream"},
    {"residual=false", HEADS("", "  %y: f32[B,S,2] = matmul %o, @w\n"),
     "values: 1 of 1 attentions stay as they are: its past keys or values are not a state"},
    {"residual=false",
     HEADS(STATE, "  %m: f32[B,S,2] = mul %o, %l\n  %y: f32[B,S,2] = matmul %m, @w\n"),
     "its values are not the result of a linear layer alone"},
    {"residual=false", HEADS(STATE, "  %y: f32[B,S,2] = neg %o\n"),
     "what it makes is taken by others than linear layers"},
};

static void run_rotate(const char *text, const char *options) {
    nb_graph *g = NULL;
    nb_pipeline pipeline = {0};
    nb_registry *registry = nb_registry_create(arena);
    nb_pass_env env = {.registry = registry, .diags = diags, .arena = arena};
    nb_status status = nb_parse(text, strlen(text), "g.nir", NULL, NULL, NULL, diags, &g);
    ck_assert_msg(status == NB_OK, "%s", status == NB_OK ? "" : diags->list.items[0]->message);
    ck_assert_int_eq(nb_pipeline_parse(registry, nb_format(arena, "rotate{%s}", options), arena,
                                       diags, &pipeline),
                     NB_OK);
    ck_assert_int_eq(nb_pipeline_run(&pipeline, g, &env), NB_OK);
    nb_graph_destroy(g);
}

START_TEST(refused) {
    run_rotate(refusals[_i].graph, refusals[_i].options);
    ck_assert_msg(diags->list.count == 1, "%s: %zu", refusals[_i].why, diags->list.count);
    const nb_diag *d = diags->list.items[0];
    ck_assert_int_eq(d->severity, NB_WARNING);
    ck_assert_msg(strstr(d->message, refusals[_i].why) != NULL, "%s: %s", refusals[_i].why,
                  d->message);
    ck_assert_ptr_nonnull(d->help);
}
END_TEST

/* ---- states --------------------------------------------------------------------------------- */

#define SUM                                                                                 \
    "nir 1\n"                                                                               \
    "graph @g(%x: f32[S], %past: f32[P]) -> (y: f32[], state: f32[P+S]) where P in 0.. {\n" \
    "  state past -> state axis 0\n"                                                        \
    "  const @k: f32[] = {2}\n"                                                             \
    "  const @l: f32[] = {0.5}\n"

/* The state holds twice the numbers, and who reads it knows; or takes past ones for new ones. */
static const char plain_sum[] = SUM "  %s: f32[P+S] = concat %past, %x {axis=0}\n"
                                    "  %y: f32[] = reduce_sum %s\n  return %y, %s\n}\n";
static const char moved[] = SUM "  %x2: f32[S] = mul %x, @k\n"
                                "  %s: f32[P+S] = concat %past, %x2 {axis=0}\n"
                                "  %h: f32[P+S] = mul %s, @l\n"
                                "  %y: f32[] = reduce_sum %h\n  return %y, %s\n}\n";
static const char wrong_later[] = SUM "  %p: f32[P] = mul %past, @k\n"
                                      "  %s: f32[P+S] = concat %p, %x {axis=0}\n"
                                      "  %y: f32[] = reduce_sum %s\n  return %y, %s\n}\n";
static const char wrong_at_once[] = SUM "  %s: f32[P+S] = concat %past, %x {axis=0}\n"
                                        "  %h: f32[P+S] = mul %s, @l\n"
                                        "  %y: f32[] = reduce_sum %h\n  return %y, %s\n}\n";

static nb_status check(const char *after, uint32_t promises) {
    nb_graph *g[2];
    const char *texts[2] = {plain_sum, after};
    nb_pass pass = {.size = sizeof pass, .name = "moves", .promises = promises};
    nb_pass_env env = {.diags = diags, .arena = arena};
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(
            nb_parse(texts[i], strlen(texts[i]), "g.nir", NULL, NULL, NULL, diags, &g[i]), NB_OK);
    nb_status status = nb_check_pass(&pass, g[0], g[1], &env);
    nb_graph_destroy(g[0]);
    nb_graph_destroy(g[1]);
    return status;
}

START_TEST(states) {
    const uint32_t moves = NB_PASS_KEEPS_NUMBERS | NB_PASS_MOVES_STATES;
    ck_assert_int_eq(check(plain_sum, NB_PASS_KEEPS_NUMBERS), NB_OK);
    ck_assert_int_eq(check(moved, NB_PASS_KEEPS_NUMBERS), NB_CHECK_FAILED);
    ck_assert_int_eq(check(moved, moves), NB_OK);
    ck_assert_int_eq(check(wrong_later, moves), NB_CHECK_FAILED);
    ck_assert_int_eq(check(wrong_at_once, moves), NB_CHECK_FAILED);
}
END_TEST

Suite *nb_suite_rotate(void) {
    Suite *suite = suite_create("rotate");
    TCase *tests = tcase_create("rotate");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, matrices, 0, (int)NB_COUNT(shapes));
    tcase_add_test(tests, plain);
    tcase_add_test(tests, seeds);
    tcase_add_loop_test(tests, refused, 0, (int)NB_COUNT(refusals));
    tcase_add_test(tests, states);
    suite_add_tcase(suite, tests);
    return suite;
}
