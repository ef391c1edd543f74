/* Diagnostics: their text to the byte, the escaping of hostile names, and the cap. */
#include "ir/support/diag.h"
#include "tests/unit/unit.h"

#include <string.h>

static nb_arena *arena;
static nb_diags *diags;

static void set_up(void) {
    arena = nb_arena_create(NULL, NULL);
    diags = nb_diags_create(arena, "fc1.onnx");
}

static void tear_down(void) { nb_arena_destroy(arena); }

static const char *rendered(size_t i) { return nb_diag_render(arena, diags->list.items[i]); }

START_TEST(full_diagnostic) {
    char node[] = "/fc1/MatMul";
    nb_where where = {.node = node,
                      .offset = -1,
                      .snippet = "%h: f32[B,2] = matmul %n, @w.s",
                      .caret = 26,
                      .length = 4};
    nb_status status =
        nb_error(diags, NB_CHECK_FAILED, where, "column %d of weight '%s' is NaN", 1, "@w.s");
    nb_note(diags, "'@w.s' was made by %s", "smooth-fold");
    nb_note(diags, "second");
    nb_help(diags, "skip=\"%s\"", node);
    node[1] = '?'; /* strings in `where` are copied */
    ck_assert_int_eq(status, NB_CHECK_FAILED);
    ck_assert_str_eq(rendered(0), "fc1.onnx:/fc1/MatMul: error: column 1 of weight '@w.s' is NaN\n"
                                  "    %h: f32[B,2] = matmul %n, @w.s\n"
                                  "                              ^~~~\n"
                                  "  note: '@w.s' was made by smooth-fold\n"
                                  "  note: second\n"
                                  "  help: skip=\"/fc1/MatMul\"\n");
}
END_TEST

START_TEST(places) {
    nb_warn(diags, NB_NOWHERE, "one");
    nb_warn(diags, (nb_where){.file = "a.nir", .line = 3, .column = 7, .offset = -1}, "two");
    nb_warn(diags, (nb_where){.file = "a.nir", .line = 3, .offset = -1}, "three");
    nb_warn(diags, (nb_where){.offset = 0}, "four");
    ck_assert_str_eq(rendered(0), "fc1.onnx: warning: one\n");
    ck_assert_str_eq(rendered(1), "a.nir:3:7: warning: two\n");
    ck_assert_str_eq(rendered(2), "a.nir:3: warning: three\n");
    ck_assert_str_eq(rendered(3), "fc1.onnx:byte 0: warning: four\n");

    nb_diags *nameless = nb_diags_create(arena, NULL);
    nb_error(nameless, NB_USAGE, NB_NOWHERE, "no file");
    ck_assert_str_eq(nb_diag_render(arena, nameless->list.items[0]), "error: no file\n");
}
END_TEST

/* The caret counts bytes of the line; what it shows counts characters after escaping. */
START_TEST(caret_follows_what_is_shown) {
    nb_where where = {
        .file = "f", .offset = -1, .snippet = "\t\xc3\xa9\x01 ab", .caret = 5, .length = 2};
    nb_error(diags, NB_MALFORMED, where, "m");
    ck_assert_str_eq(rendered(0), "f: error: m\n"
                                  "     \xc3\xa9\\x01 ab\n"
                                  "           ^~\n");
    where = (nb_where){.file = "f", .offset = -1, .snippet = "abc", .caret = 99, .length = 99};
    nb_error(diags, NB_MALFORMED, where, "m");
    ck_assert_str_eq(rendered(1), "f: error: m\n    abc\n       ^\n");
}
END_TEST

START_TEST(names_are_escaped) {
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"plain /a.b:0 \xc3\xbc \xe2\x82\xac \xf0\x9f\x98\x80",
         "plain /a.b:0 \xc3\xbc \xe2\x82\xac \xf0\x9f\x98\x80"},
        {"\x1b[2J\n\t\x7f", "\\x1b[2J\\x0a\\x09\\x7f"},
        {"a\xe2\x80\xae"
         "b",
         "a\\xe2\\x80\\xaeb"},                        /* right-to-left override */
        {"\xe2\x81\xa6", "\\xe2\\x81\\xa6"},          /* left-to-right isolate */
        {"\xc2\x9b", "\\xc2\\x9b"},                   /* C1 control sequence introducer */
        {"\xc0\xaf", "\\xc0\\xaf"},                   /* overlong slash */
        {"\xe0\x80\xaf", "\\xe0\\x80\\xaf"},          /* overlong in three bytes */
        {"\xed\xa0\x80", "\\xed\\xa0\\x80"},          /* surrogate */
        {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"}, /* above U+10FFFF */
        {"\xf8\x88\x80\x80\x80", "\\xf8\\x88\\x80\\x80\\x80"},
        {"cut \xe2\x82", "cut \\xe2\\x82"},
        {"", ""},
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++)
        ck_assert_str_eq(nb_escape(arena, cases[i].in, strlen(cases[i].in)), cases[i].out);
    ck_assert_str_eq(nb_escape(arena, "a\0b", 3), "a\\x00b");
    nb_error(diags, NB_MALFORMED, (nb_where){.node = "a\nb", .offset = -1}, "op '%s'", "\x1b[0m");
    ck_assert_str_eq(rendered(0), "fc1.onnx:a\\x0ab: error: op '\\x1b[0m'\n");
}
END_TEST

START_TEST(errors_are_capped) {
    ck_assert_int_eq(nb_diags_status(diags), NB_OK);
    nb_warn(diags, NB_NOWHERE, "a warning is not a failure");
    ck_assert_int_eq(nb_diags_status(diags), NB_OK);
    for (int i = 0; i < NB_DIAGS_CAP + 10; i++) {
        nb_error(diags, i == 0 ? NB_UNSUPPORTED : NB_MALFORMED, NB_NOWHERE, "%d", i);
        nb_note(diags, "note %d", i);
        nb_help(diags, "help %d", i);
    }
    nb_warn(diags, NB_NOWHERE, "kept");
    ck_assert_int_eq(nb_diags_status(diags), NB_UNSUPPORTED);
    ck_assert_uint_eq(diags->errors, NB_DIAGS_CAP + 10);
    ck_assert_uint_eq(diags->dropped, 10);
    ck_assert_uint_eq(diags->list.count, NB_DIAGS_CAP + 2);
    for (size_t i = 1; i <= NB_DIAGS_CAP; i++) /* a dropped error's notes go with it */
        ck_assert_uint_eq(diags->list.items[i]->notes.count, 1);
    ck_assert_str_eq(rendered(NB_DIAGS_CAP + 1), "fc1.onnx: warning: kept\n");
}
END_TEST

Suite *nb_suite_diag(void) {
    Suite *suite = suite_create("diag");
    TCase *tests = tcase_create("diag");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, full_diagnostic);
    tcase_add_test(tests, places);
    tcase_add_test(tests, caret_follows_what_is_shown);
    tcase_add_test(tests, names_are_escaped);
    tcase_add_test(tests, errors_are_capped);
    suite_add_tcase(suite, tests);
    return suite;
}
