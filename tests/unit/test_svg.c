/* What pages are made of: text that cannot become markup, axes. */
#include "ir/text.h"
#include "tests/unit/unit.h"
#include "tools/compare.h"
#include "tools/const_stats.h"
#include "tools/plot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static char *html_of(const char *text) {
    char *out = NULL;
    size_t size;
    FILE *f = open_memstream(&out, &size);
    nbt_html(f, text);
    fclose(f);
    return out;
}

START_TEST(escapes) {
    static const char *const cases[][2] = {
        {"/layers.0/mlp", "/layers.0/mlp"},
        {"", ""},
        {"<script>alert(\"x\")</script>", "&#60;script&#62;alert(&#34;x&#34;)&#60;/script&#62;"},
        {"a&lt;b' onload='c", "a&#38;lt;b&#39; onload=&#39;c"},
        {"\x1b[2J\x7f\xff\xe2\x80\xae", "\\x1b[2J\\x7f\\xff\\xe2\\x80\\xae"},
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        char *html = html_of(cases[i][0]);
        ck_assert_str_eq(html, cases[i][1]);
        free(html);
    }
}
END_TEST

START_TEST(axes) {
    nbt_axis y = {0, 4.2, 260, 20, false}, x = {0.5, 2000, 0, 100, true};
    ck_assert_double_eq_tol(nbt_axis_at(&y, 0), 260, 1e-9);
    ck_assert_double_eq_tol(nbt_axis_at(&y, 2.1), 140, 1e-9);
    ck_assert_double_eq_tol(nbt_axis_at(&x, 0.5), 0, 1e-9);
    ck_assert_double_eq_tol(nbt_axis_at(&x, 2000), 100, 1e-9);
    double t = 0;
    static const double ticks[] = {1, 2, 3, 4};
    for (size_t i = 0; i < NB_COUNT(ticks); i++) {
        t = nbt_axis_tick(&y, t, 5);
        ck_assert_double_eq_tol(t, ticks[i], 1e-9);
    }
    ck_assert_double_gt(nbt_axis_tick(&y, t, 5), y.to);
    t = nbt_axis_tick(&x, 0, 0);
    for (double want = 1; want < 2000; want *= 10, t = nbt_axis_tick(&x, t, 0))
        ck_assert_double_eq_tol(t, want, 1e-9 * want);
    ck_assert_double_gt(t, x.to);
}
END_TEST

/* Logarithmic axes end at 1, 2 or 5 times a power of ten, outside the values. */
START_TEST(covers) {
    static const double cases[][4] = {{0.03, 0.7, 0.02, 1},
                                      {2, 50, 2, 50},
                                      {1, 1, 1, 2},
                                      {2.1e-5, 1.3e-2, 2e-5, 2e-2},
                                      {0.999, 5.01, 0.5, 10}};
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        nbt_axis a = {0};
        nbt_axis_cover(&a, cases[i][0], cases[i][1]);
        ck_assert(a.logarithmic);
        ck_assert_double_eq_tol(a.from, cases[i][2], 1e-9 * a.from);
        ck_assert_double_eq_tol(a.to, cases[i][3], 1e-9 * a.to);
    }
}
END_TEST

/* What the names of nodes say. */
START_TEST(names) {
    static const char *const cases[][3] = {
        {"/layers.3/mlp/up_proj/MatMul", "mlp/up_proj", "3"},
        {"/model/layers.11/Add_1", "model/layers.11", "11"},
        {"/lm_head/MatMul", "lm_head", ""},
        {"/fc1/MatMul", "fc1", "1"},
        {"/Cast_1", "Cast_1", ""},
        {"h.0.attn", "h.0.attn", ""},
        {"/", "", ""},
        {"", "", ""},
        {"//2//", "/2/", "2"},
    };
    nb_arena *arena = nb_arena_create(NULL, NULL);
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        const char *role, *block;
        nbt_name_parts(arena, cases[i][0], &role, &block);
        ck_assert_msg(strcmp(role, cases[i][1]) == 0 && strcmp(block, cases[i][2]) == 0,
                      "%s: '%s', '%s'", cases[i][0], role, block);
    }
    nb_arena_destroy(arena);
}
END_TEST

/* Floats by their values, codes by what they stand for; what is no number is counted apart. */
START_TEST(constants) {
    static const char text[] = "nir 1\n"
                               "graph @g(%x: f32[2,2]) -> (y: f32[2,2], z: f32[5]) {\n"
                               "  stage qdq\n"
                               "  quant #q: u4 axis 1 scale @s zero @z\n"
                               "  const @s: f32[2] = {0.5, 2}\n"
                               "  const @z: u4[2] = {8, 1}\n"
                               "  const @c: #q[2,2] = {8, 1, 15, 0}\n"
                               "  const @f: f32[5] = {nan, -1, 2, inf, 0}\n"
                               "  %d: f32[2,2] = dequantize @c\n"
                               "  %y: f32[2,2] = matmul %x, %d\n"
                               "  %z: f32[5] = neg @f\n"
                               "  return %y, %z\n"
                               "}\n";
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags = nb_diags_create(arena, NULL);
    nb_graph *g;
    ck_assert_int_eq(nb_parse(text, strlen(text), "g.nir", NULL, NULL, NULL, diags, &g), NB_OK);
    nbt_const_stats s = nbt_const_stats_of(g->constants.items[2], arena); /* 0, 0, 3.5, -2 */
    ck_assert(s.count == 4 && s.zeros == 2 && s.bad == 0 && s.min == -2 && s.max == 3.5);
    ck_assert_double_eq_tol(s.mean, 0.375, 1e-12);
    ck_assert_double_eq_tol(s.deviation, sqrt((12.25 + 4) / 4 - 0.375 * 0.375), 1e-12);
    ck_assert(s.bins[0] == 1 && s.bins[NBT_STATS_BINS - 1] == 1);
    ck_assert(s.bins[(int)(2 / 5.5 * NBT_STATS_BINS)] == 2);
    s = nbt_const_stats_of(g->constants.items[3], arena);
    ck_assert(s.count == 5 && s.zeros == 1 && s.bad == 2 && s.min == -1 && s.max == 2);
    ck_assert_double_eq_tol(s.mean, 1.0 / 3, 1e-12);
    nb_graph_destroy(g);
    nb_arena_destroy(arena);
}
END_TEST

Suite *nb_suite_svg(void) {
    Suite *s = suite_create("svg");
    TCase *c = tcase_create("text");
    tcase_add_test(c, escapes);
    tcase_add_test(c, axes);
    tcase_add_test(c, covers);
    tcase_add_test(c, names);
    tcase_add_test(c, constants);
    suite_add_tcase(s, c);
    return s;
}
