/* Pipelines that include those of schemes and of files. */
#include "passes/pass.h"
#include "passes/presets.h"
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static nb_arena *arena;
static nb_diags *diags;
static nb_registry *registry;
static char folder[] = "/tmp/nibble-include-XXXXXX";

static void setup(void) {
    arena = nb_arena_create(NULL, NULL);
    diags = nb_diags_create(arena, NULL);
    registry = nb_registry_create(arena);
    strcpy(folder + strlen(folder) - 6, "XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    registry->base = folder;
}

static const char *path(const char *name) { return nb_format(arena, "%s/%s", folder, name); }

static void write_file(const char *name, const char *text, size_t size) {
    FILE *f = fopen(path(name), "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(text, 1, size, f), size);
    ck_assert_int_eq(fclose(f), 0);
}
static void write_text(const char *name, const char *text) { write_file(name, text, strlen(text)); }

static void teardown(void) {
    static const char *const names[] = {"a", "b", "c", "sub/d", "sub/e"};
    for (size_t i = 0; i < NB_COUNT(names); i++) unlink(path(names[i]));
    rmdir(path("sub"));
    ck_assert_int_eq(rmdir(folder), 0);
    nb_arena_destroy(arena);
}

/* The names of the passes, or of the error. */
static const char *parse(const char *text) {
    nb_pipeline p;
    const char *out = "";
    if (nb_pipeline_parse(registry, text, arena, diags, &p) != NB_OK)
        return nb_diag_render(arena, diags->list.items[diags->list.count - 1]);
    for (size_t i = 0; i < p.steps.count; i++)
        out = nb_format(arena, "%s%s%s", out, i ? " " : "", p.steps.items[i].pass->name);
    return out;
}

/* The recipe of a pipeline: options too. */
static const char *recipe(const char *text) {
    nb_pipeline p;
    nb_pass_env env = {.registry = registry, .arena = arena, .diags = diags};
    ck_assert_int_eq(nb_pipeline_parse(registry, text, arena, diags, &p), NB_OK);
    return nb_recipe_text(&p, &env, arena);
}

START_TEST(schemes) {
    for (size_t i = 0; nb_preset_name(i); i++) {
        const nb_preset_options options = {.group = 64, .kv = "i8", .calibrated = true};
        const char *name = nb_preset_name(i);
        ck_assert_str_eq(
            recipe(nb_format(arena, "include{scheme=%s, group=64, kv=i8, calibrated}", name)),
            recipe(nb_preset(name, &options, arena)));
    }
    ck_assert_str_eq(
        parse("include{scheme=w8a8, until=quantize-weights}, calibrate, "
              "include{scheme=w8a8, from=quantize-weights, until=simplify}"),
        "simplify raise simplify flush-weights draw-samples conv-to-matmul conv-to-matmul "
        "channels-last simplify smooth-fold calibrate quantize-weights insert-qdq "
        "wide-inputs move-codes channels-last fuse-dequant");
    ck_assert_str_eq(parse("include{scheme=f32, from=plan-memory}"), "plan-memory");
}
END_TEST

START_TEST(files) {
    ck_assert_int_eq(mkdir(path("sub"), 0777), 0);
    write_text("a", "# mine\nsimplify, include{file=\"sub/d\"},\nraise # last\n");
    write_text("sub/d", "merge-scales,\ninclude{file=\"e\"}\n"); /* beside itself */
    write_text("sub/e", "calibrate{method=mse}, simplify, plan-memory\n");
    ck_assert_str_eq(parse("include{file=a}"),
                     "simplify merge-scales calibrate simplify plan-memory raise");
    ck_assert_str_eq(parse("include{file=a, from=calibrate, until=raise}"),
                     "calibrate simplify plan-memory");
    ck_assert_str_eq(parse(nb_format(arena, "include{file=\"%s\", from=raise}", path("a"))),
                     "raise");
    ck_assert_ptr_nonnull(strstr(recipe("include{file=a}"), "calibrate{method=mse}"));
}
END_TEST

static const struct {
    const char *text, *message;
} wrong[] = {
    {"include", "include takes a scheme or a file"},
    {"include{scheme=w8a8, file=a}", "include takes a scheme or a file"},
    {"include{scheme=w3a3}", "there is no scheme 'w3a3'; schemes are f32"},
    {"include{scheme=w8a8, kv=i9}", "caches cannot be of type 'i9'"},
    {"include{file=a, group=32}", "are options of schemes"},
    {"include{scheme=w8a8, from=calibrate}", "has no pass 'calibrate'"},
    {"include{scheme=w8a8, from=plan-memory, until=raise}", "has no pass 'raise' there"},
    {"include{scheme=w8a8, group=x}", "option 'group' takes a whole number"},
    {"include{colour=red}", "pass 'include' has no option 'colour'"},
    {"include{file=nothing}", "nothing"},
    {"include{file=b}", "one include itself?"},
    {"include{file=c}", "there is no pass 'simplfy'"},
    {"include{file=sub}", "sub"},
    {"include{file=a}", "holds a byte of 0"},
};

START_TEST(errors) {
    ck_assert_int_eq(mkdir(path("sub"), 0777), 0);
    write_file("a", "simplify\0raise", 14);
    write_text("b", "simplify,\ninclude{file=b}\n");
    write_text("c", "simplify,\n  simplfy\n");
    const char *said = parse(wrong[_i].text);
    ck_assert_msg(strstr(said, "error") && strstr(said, wrong[_i].message), "%s", said);
}
END_TEST

/* An error in a file says where. */
START_TEST(place) {
    write_text("c", "simplify,\n  simplfy\n");
    const char *said = parse("raise, include{file=c}");
    ck_assert_msg(strstr(said, nb_format(arena, "%s:2:3: error: there is no pass", path("c"))),
                  "%s", said);
    ck_assert_msg(strstr(said, "did you mean 'simplify'?"), "%s", said);
}
END_TEST

Suite *nb_suite_include(void) {
    Suite *s = suite_create("include");
    TCase *c = tcase_create("include");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, schemes);
    tcase_add_test(c, files);
    tcase_add_loop_test(c, errors, 0, NB_COUNT(wrong));
    tcase_add_test(c, place);
    suite_add_tcase(s, c);
    return s;
}
