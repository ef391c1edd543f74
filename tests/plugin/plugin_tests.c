/* Plug-ins: loading them, running what they bring, refusing broken ones, and surviving misuse of
 * the host table. */
#include "ir/text.h"
#include "passes/pass.h"
#include "tests/plugin/misuse.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static nb_arena *arena;
static nb_diags *diags;
static nb_registry *registry;

static void setup(void) {
    arena = nb_arena_create(NULL, NULL);
    diags = nb_diags_create(arena, "test");
    registry = nb_registry_create(arena);
}

static void teardown(void) { nb_arena_destroy(arena); }

static bool said(const char *text) {
    for (size_t i = 0; i < diags->list.count; i++)
        if (strstr(diags->list.items[i]->message, text)) return true;
    return false;
}

static const char *everything_said(void) {
    const char *all = "";
    for (size_t i = 0; i < diags->list.count; i++)
        all = nb_format(arena, "%s%s", all, nb_diag_render(arena, diags->list.items[i]));
    return all;
}

static nb_graph *parse(const char *text) {
    nb_graph *g;
    nb_status status = nb_parse(text, strlen(text), "test", NULL, NULL, NULL, diags, &g);
    ck_assert_msg(status == NB_OK, "%s", everything_said());
    return g;
}

static nb_status run(const nb_registry *r, const char *passes, nb_graph *g) {
    nb_pipeline pipeline;
    nb_status status = nb_pipeline_parse(r, passes, arena, diags, &pipeline);
    if (status != NB_OK) return status;
    nb_pass_env env = {.registry = registry,
                       .diags = diags,
                       .arena = arena,
                       .verify_each = true,
                       .check_each = true};
    return nb_pipeline_run(&pipeline, g, &env);
}

static const char chain[] = "nir 1\n"
                            "graph @g(%x: f32[B,4], %i: i64[2]) -> (y: f32[B,4], z: i64[2]) {\n"
                            "  const @k: f32[4] = {1, 1, 1, 1}\n"
                            "  %n: f32[B,4] = neg %x\n"
                            "  %a: f32[B,4] = mul %n, @k\n"
                            "  %y: f32[B,4] = exp %a\n"
                            "  return %y, %i\n"
                            "}\n";

/* ---- an example ----------------------------------------------------------------------------- */

START_TEST(example_counts) {
    ck_assert_int_eq(nb_registry_load(registry, PLUGIN_EXAMPLE, diags), NB_OK);
    nb_graph *g = parse(chain);
    ck_assert_int_eq(run(registry, "count-ops", g), NB_OK);
    ck_assert_uint_eq(diags->list.count, 4);
    ck_assert(said("count-ops: neg          1"));
    ck_assert(said("count-ops: return       1"));
    ck_assert_int_eq(run(registry, "count-ops{only=exp}, count-ops{at-least=2}", g), NB_OK);
    ck_assert_uint_eq(diags->list.count, 5);
    ck_assert_int_eq(run(registry, "count-ops{at-least=0}", g), NB_USAGE);
    nb_graph_destroy(g);
}
END_TEST

START_TEST(example_folds) {
    ck_assert_int_eq(nb_registry_load(registry, PLUGIN_EXAMPLE, diags), NB_OK);
    nb_graph *g = parse(chain);
    ck_assert_int_eq(run(registry, "fold-mul-one, simplify", g), NB_OK);
    ck_assert_str_eq(nb_print_string(arena, g, &(nb_print_options){0}),
                     "nir 1\n"
                     "graph @g(%x: f32[B,4], %i: i64[2]) -> (y: f32[B,4], z: i64[2]) {\n"
                     "  %n: f32[B,4] = neg %x\n"
                     "  %y: f32[B,4] = exp %n\n"
                     "  return %y, %i\n"
                     "}\n");
    nb_graph_destroy(g);
}
END_TEST

/* The same pass, built in and loaded, makes the same graph. */
START_TEST(builtin_as_plugin) {
    static const char text[] = "nir 1\n"
                               "graph @g(%x: f32[B,4]) -> f32[B,4] {\n"
                               "  const @c: f32[] = {2}\n"
                               "  const @d: f32[1] = {3}\n"
                               "  %a: f32[B,4] = mul %x, @c at \"/Mul\"\n"
                               "  %b: f32[B,4] = mul @d, %a at \"/Mul_1\"\n"
                               "  %e: f32[B,4] = add %b, @c\n"
                               "  %y: f32[B,4] = add %e, @d\n"
                               "  return %y\n"
                               "}\n";
    nb_registry loaded = {.arena = arena};
    ck_assert_msg(nb_registry_load(&loaded, PLUGIN_BUILTIN, diags) == NB_OK, "%s",
                  everything_said());
    ck_assert_uint_eq(loaded.passes.count, 1);
    ck_assert_ptr_ne(loaded.passes.items[0], nb_registry_find(registry, "merge-scales", 12));
    nb_graph *a = parse(text), *b = parse(text);
    ck_assert_int_eq(run(registry, "merge-scales", a), NB_OK);
    ck_assert_int_eq(run(&loaded, "merge-scales", b), NB_OK);
    nb_print_options all = {0};
    const char *printed = nb_print_string(arena, a, &all);
    ck_assert_str_eq(printed, nb_print_string(arena, b, &all));
    ck_assert_str_ne(printed, text);
    nb_graph_destroy(a);
    nb_graph_destroy(b);
}
END_TEST

/* ---- refused -------------------------------------------------------------------------------- */

static const struct {
    const char *path, *message;
    nb_status status;
} broken[] = {
    {PLUGIN_ABI, "plug-in has pass ABI 1.2, this nibble has 0.2", NB_USAGE},
    {PLUGIN_SIZE, "plug-in has pass ABI", NB_USAGE},
    {PLUGIN_SYMBOL, "no symbol 'nb_plugin_v0' in this file", NB_USAGE},
    {PLUGIN_NAME, "pass number 1 lacks a member", NB_USAGE},
    {PLUGIN_RUN, "pass number 1 lacks a member", NB_USAGE},
    {PLUGIN_DUPLICATE, "a pass named 'simplify' exists already", NB_USAGE},
    {PLUGIN_TWICE, "a pass named 'good' exists already", NB_USAGE},
    {PLUGIN_OPTIONS, "option number 0 of pass 'bad'", NB_USAGE},
    {"/nonexistent/plugin.so", "cannot load plug-in", NB_IO},
    {"nonexistent.so", "cannot load plug-in", NB_IO},
    {"/", "cannot load plug-in", NB_IO},
};

/* And nothing of it stays: the passes before the bad one would be gone with the file. */
START_TEST(refused) {
    size_t n = registry->passes.count;
    ck_assert_int_eq(nb_registry_load(registry, broken[_i].path, diags), broken[_i].status);
    ck_assert_msg(said(broken[_i].message), "%s", everything_said());
    ck_assert_uint_eq(registry->passes.count, n);
    ck_assert_ptr_null(nb_registry_find(registry, "good", 4));
    ck_assert_int_eq(nb_registry_load(registry, PLUGIN_EXAMPLE, diags), NB_OK);
    ck_assert_uint_eq(registry->passes.count, n + 2);
}
END_TEST

START_TEST(loaded_twice) {
    ck_assert_int_eq(nb_registry_load(registry, PLUGIN_EXAMPLE, diags), NB_OK);
    ck_assert_int_eq(nb_registry_load(registry, PLUGIN_EXAMPLE, diags), NB_USAGE);
    ck_assert(said("a pass named 'count-ops' exists already"));
    nb_graph *g = parse(chain);
    ck_assert_int_eq(run(registry, "fold-mul-one", g), NB_OK);
    nb_graph_destroy(g);
}
END_TEST

START_TEST(empty_plugin) {
    static const nb_plugin empty = {.size = sizeof(nb_plugin), .abi_major = NB_PASS_ABI_MAJOR};
    ck_assert_int_eq(nb_registry_add(registry, &empty, "empty", diags), NB_OK);
}
END_TEST

/* ---- misuse --------------------------------------------------------------------------------- */

static const misuse *acting;

static nb_pass_result act(nb_pass_ctx *ctx) {
    acting->act(ctx);
    bool failing = strstr(acting->message, "without giving a reason") != NULL;
    return failing ? NB_PASS_FAILED : NB_PASS_CHANGED;
}

/* Each is an error that tells what was wrong; the graph can still be verified and freed. */
START_TEST(misused) {
    teardown();
    for (const misuse *m = misuses; m->name; m++) {
        nb_pass pass = {.size = sizeof pass, .name = m->name, .summary = "misuse", .run = act};
        const nb_pass *passes[] = {&pass, NULL};
        nb_plugin plugin = {.size = sizeof plugin,
                            .abi_major = NB_PASS_ABI_MAJOR,
                            .name = "misuse",
                            .passes = passes};
        acting = m;
        setup();
        ck_assert_int_eq(nb_registry_add(registry, &plugin, "here", diags), NB_OK);
        nb_graph *g = parse(chain);
        nb_status status = run(registry, m->name, g);
        ck_assert_msg(status != NB_OK, "%s is accepted", m->name);
        ck_assert_msg(diags->errors > 0, "%s: no error", m->name);
        ck_assert_msg(said(m->message), "%s: expected '%s', found:\n%s", m->name, m->message,
                      everything_said());
        nb_print_string(arena, g, &(nb_print_options){0});
        nb_graph_destroy(g);
        teardown();
    }
    setup();
}
END_TEST

/* The status of a failed pass is its error's, also when a warning follows. */
START_TEST(status_of_error) {
    for (acting = misuses; strcmp(acting->name, "error-then-warning") != 0;) acting++;
    nb_pass pass = {.size = sizeof pass, .name = "warns", .summary = "warns", .run = act};
    nb_step step = {.pass = &pass};
    nb_pipeline pipeline = {0};
    nb_vec_push(arena, &pipeline.steps, step);
    nb_pass_env env = {.registry = registry, .diags = diags, .arena = arena};
    nb_graph *g = parse(chain);
    ck_assert_int_eq(nb_pipeline_run(&pipeline, g, &env), NB_CHECK_FAILED);
    ck_assert_str_eq(diags->list.items[0]->help, "do 2 things");
    nb_graph_destroy(g);
}
END_TEST

int main(void) {
    Suite *s = suite_create("plugin");
    TCase *c = tcase_create("plugin");
    tcase_set_timeout(c, 120);
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, example_counts);
    tcase_add_test(c, example_folds);
    tcase_add_test(c, builtin_as_plugin);
    tcase_add_loop_test(c, refused, 0, NB_COUNT(broken));
    tcase_add_test(c, loaded_twice);
    tcase_add_test(c, empty_plugin);
    tcase_add_test(c, misused);
    tcase_add_test(c, status_of_error);
    suite_add_tcase(s, c);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_NORMAL);
    int run_tests = srunner_ntests_run(runner), failed = srunner_ntests_failed(runner);
    printf("%d passed, %d failed, 0 skipped\n", run_tests - failed, failed);
    srunner_free(runner);
    return failed == 0 && run_tests > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
