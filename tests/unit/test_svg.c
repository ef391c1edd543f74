/* What pages are made of: text that cannot become markup, axes. */
#include "ir/support/base.h"
#include "tests/unit/unit.h"
#include "tools/svg.h"

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

Suite *nb_suite_svg(void) {
    Suite *s = suite_create("svg");
    TCase *c = tcase_create("text");
    tcase_add_test(c, escapes);
    tcase_add_test(c, axes);
    suite_add_tcase(s, c);
    return s;
}
