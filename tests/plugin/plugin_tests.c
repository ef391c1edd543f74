/* Plug-ins: loading them, running what they bring, refusing broken ones, and surviving misuse of
 * the host table. */
#include "ir/build.h"
#include "ir/support/file.h"
#include "ir/text.h"
#include "passes/check.h"
#include "passes/pass.h"
#include "tests/plugin/misuse.h"

#include <check.h>
#include <stddef.h>
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

/* Nobody asks for the verifier: what a loaded pass leaves is verified anyway. */
static nb_status run(const nb_registry *r, const char *passes, nb_graph *g) {
    nb_pipeline pipeline;
    nb_status status = nb_pipeline_parse(r, passes, arena, diags, &pipeline);
    if (status != NB_OK) return status;
    nb_pass_env env = {.registry = registry, .diags = diags, .arena = arena, .check_each = true};
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
    ck_assert_int_eq(nb_registry_load(registry, PLUGIN_COUNT, diags), NB_OK);
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
    ck_assert_int_eq(nb_registry_load(registry, PLUGIN_FOLD, diags), NB_OK);
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
    {PLUGIN_ABI, "plug-in has pass ABI 2.5, this nibble has 1.0", NB_USAGE},
    {PLUGIN_OLD, "plug-in has pass ABI 0.4, this nibble has 1.0", NB_USAGE},
    {PLUGIN_MINOR, "plug-in has pass ABI 1.1, this nibble has 1.0", NB_USAGE},
    {PLUGIN_SIZE, "nb_plugin.size is 4, expected", NB_USAGE},
    {PLUGIN_SYMBOL, "no symbol 'nb_plugin_v1' in this file", NB_USAGE},
    {PLUGIN_NAME, "pass number 1 lacks a member", NB_USAGE},
    {PLUGIN_RUN, "pass number 1 lacks a member", NB_USAGE},
    {PLUGIN_DUPLICATE, "a pass named 'simplify' exists already", NB_USAGE},
    {PLUGIN_TWICE, "a pass named 'good' exists already", NB_USAGE},
    {PLUGIN_OPTIONS, "option number 0 of pass 'bad'", NB_USAGE},
    {PLUGIN_RESERVED, "nothing in what is reserved", NB_USAGE},
    {PLUGIN_INCLUDE, "a pass named 'include' exists already", NB_USAGE},
    {PLUGIN_OP_NAME, "operation number 0 lacks a member", NB_USAGE},
    {PLUGIN_OP_FUNCTION, "no function 'nb_call_missing'", NB_USAGE},
    {PLUGIN_OP_TWICE, "an operation named 'twice' exists already", NB_USAGE},
    {PLUGIN_OP_ONNX, "expected an operator as \"domain::Op\", found \"Twice\"", NB_USAGE},
    {PLUGIN_OP_ATTRIBUTES, "cannot read attributes \"axis:i=x\"", NB_USAGE},
    {PLUGIN_OP_FLOATS, "cannot read attributes \"axis:i alpha:f\"", NB_USAGE},
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
    ck_assert_int_eq(nb_registry_load(registry, PLUGIN_FOLD, diags), NB_OK);
    ck_assert_uint_eq(registry->passes.count, n + 1);
}
END_TEST

START_TEST(loaded_twice) {
    ck_assert_int_eq(nb_registry_load(registry, PLUGIN_FOLD, diags), NB_OK);
    ck_assert_int_eq(nb_registry_load(registry, PLUGIN_FOLD, diags), NB_USAGE);
    ck_assert(said("a pass named 'fold-mul-one' exists already"));
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

/* ---- sizes ---------------------------------------------------------------------------------- */

static nb_pass_result do_nothing(nb_pass_ctx *ctx) {
    (void)ctx;
    return NB_PASS_UNCHANGED;
}

/* What stands behind the members of 1.0 is not looked at, and less than those is refused. */
START_TEST(older_structs) {
    nb_pass old = {.size = sizeof old,
                   .name = "old",
                   .summary = "from the first header",
                   .run = do_nothing,
                   .needs = NB_PASS_NEEDS_ORIGINALS};
    const nb_pass *passes[] = {&old, NULL};
    nb_plugin plugin = {.size = offsetof(nb_plugin, ops) + sizeof plugin.ops,
                        .abi_major = NB_PASS_ABI_MAJOR,
                        .name = "old",
                        .passes = passes};
    old.size = offsetof(nb_pass, needs);
    ck_assert_int_eq(nb_registry_add(registry, &plugin, "here", diags), NB_USAGE);
    old.size = offsetof(nb_pass, needs) + sizeof old.needs;
    ck_assert_msg(nb_registry_add(registry, &plugin, "here", diags) == NB_OK, "%s",
                  everything_said());
    const nb_pass *found = nb_registry_find(registry, "old", 3);
    ck_assert_ptr_nonnull(found);
    ck_assert_uint_eq(found->needs, NB_PASS_NEEDS_ORIGINALS);
    ck_assert(nb_registry_is_loaded(registry, found));
    ck_assert(!nb_registry_is_loaded(registry, nb_registry_find(registry, "simplify", 8)));
    nb_graph *g = parse(chain);
    ck_assert_int_eq(run(registry, "old", g), NB_OK);
    nb_graph_destroy(g);
}
END_TEST

/* A newer plug-in has more members than are known here, and does without them. */
START_TEST(newer_structs) {
    struct {
        nb_pass pass;
        uint64_t more[4];
    } new = {.pass = {.size = sizeof new, .name = "new", .summary = "newer", .run = do_nothing}};
    const nb_pass *passes[] = {&new.pass, NULL};
    struct {
        nb_plugin plugin;
        void *more;
    } plugin = {.plugin = {.size = sizeof plugin,
                           .abi_major = NB_PASS_ABI_MAJOR,
                           .name = "new",
                           .passes = passes}};
    ck_assert_int_eq(nb_registry_add(registry, &plugin.plugin, "here", diags), NB_OK);
    ck_assert_ptr_nonnull(nb_registry_find(registry, "new", 3));
}
END_TEST

/* ---- operations of one's own ------------------------------------------------------------------
 */

static const char doubled[] = "nir 1\n"
                              "graph @g(%x: f32[B,4]) -> f32[B,4] {\n"
                              "  %y: f32[B,4] = add %x, %x at \"/Add\"\n"
                              "  return %y\n"
                              "}\n";
static const char called[] = "nir 1\n"
                             "graph @g(%x: f32[B,4]) -> f32[B,4] {\n"
                             "  %call: f32[B,4] = call %x {function=\"twice\", to=f32, "
                             "shape=[B,4]} at \"/Add\" via make-twice\n"
                             "  return %call\n"
                             "}\n";

/* It is called by the evaluator (check_each), printed and read, and lowered again. */
START_TEST(operation) {
    ck_assert_msg(nb_registry_load(registry, PLUGIN_OPERATION, diags) == NB_OK, "%s",
                  everything_said());
    nb_graph *g = parse(doubled);
    ck_assert_msg(run(registry, "make-twice", g) == NB_OK, "%s", everything_said());
    const char *text = nb_print_string(arena, g, &(nb_print_options){0});
    ck_assert_ptr_nonnull(strstr(text, "call %x {function=\"twice\", to=f32, shape=[B,4]} at "
                                       "\"/Add\" via make-twice"));
    nb_graph_destroy(g);
    g = parse(text);
    ck_assert_str_eq(nb_print_string(arena, g, &(nb_print_options){0}), text);
    ck_assert_msg(run(registry, "lower-calls", g) == NB_OK, "%s", everything_said());
    text = nb_print_string(arena, g, &(nb_print_options){0});
    ck_assert_ptr_nonnull(strstr(text, "= add %x, %x at \"/Add\" via make-twice, lower-calls"));
    nb_graph_destroy(g);
}
END_TEST

/* A graph can be read and printed without the plug-in, and not computed. */
START_TEST(operation_unknown) {
    nb_registry *without = nb_registry_create(arena);
    nb_graph *g = parse(called);
    ck_assert_int_eq(run(without, "lower-calls", g), NB_OK);
    ck_assert_str_eq(nb_print_string(arena, g, &(nb_print_options){0}), called);
    nb_graph_destroy(g);
    g = parse("nir 1\ngraph @g() -> f32[4] {\n  const @x: f32[4] = {1, 2, 3, 4}\n"
              "  %y: f32[4] = call @x {function=\"nobody\", to=f32, shape=[4]}\n  return %y\n}\n");
    ck_assert_int_eq(run(without, "simplify", g), NB_MALFORMED);
    ck_assert_msg(said("no plug-in has brought operation 'nobody'"), "%s", everything_said());
    nb_graph_destroy(g);
}
END_TEST

/* The function would write beyond its result: refused before anything runs. */
START_TEST(operation_of_wrong_type) {
    static const char *const wrong[] = {
        "  %y: f32[B,4] = call %x {function=\"twice\", to=f32, shape=[B,4]}\n",
        "  %y: f32[B,4] = call %x, %x {function=\"twice\", to=f32, shape=[B,4]}\n",
        "  %y: f32[B,4] = call {function=\"twice\", to=f32, shape=[B,4]}\n"};
    static const char *const why[] = {"the result of 'twice' is f32[B,8], not f32[B,4]",
                                      "'twice' takes 1 operands, found 2",
                                      "'twice' takes 1 operands, found 0"};
    ck_assert_int_eq(nb_registry_load(registry, PLUGIN_OPERATION, diags), NB_OK);
    nb_graph *g = parse(nb_format(
        arena, "nir 1\ngraph @g(%%x: f32[B,8]) -> f32[B,4] {\n%s  return %%y\n}\n", wrong[_i]));
    ck_assert_int_eq(run(registry, "simplify", g), NB_MALFORMED);
    ck_assert_msg(said(why[_i]), "%s", everything_said());
    nb_graph_destroy(g);
}
END_TEST

/* Rows that are longer than here, as of a newer header, and views that are longer. */
typedef struct newer_row {
    nb_rewrite_row row;
    const char *more;
} newer_row;
typedef struct newer_view {
    nb_dim_view view;
    int64_t more;
} newer_view;

static nb_pass_result newer(nb_pass_ctx *ctx) {
    const newer_row rows[2] = {
        {.row = {.size = sizeof *rows, .name = "none", .rule = "cos(x) -> x"}, .more = "?"},
        {.row = {.size = sizeof *rows, .name = "neg", .rule = "neg(x) -> x"}, .more = "?"}};
    newer_view v = {.view = {.size = sizeof v}, .more = 77};
    ck_assert_int_eq(ctx->host->rewrite(ctx, &rows[0].row, 2), 1);
    ck_assert_int_eq(ctx->host->dim(ctx, "2*B", &v.view), 1);
    ck_assert(v.view.size == sizeof v && v.view.min == 2 && v.more == 77);
    return NB_PASS_CHANGED;
}

START_TEST(newer_arguments) {
    const nb_pass pass = {.size = sizeof pass, .name = "newer", .summary = "-", .run = newer};
    const nb_step step = {.pass = &pass};
    nb_pipeline pipeline = {0};
    nb_vec_push(arena, &pipeline.steps, step);
    nb_pass_env env = {.registry = registry, .diags = diags, .arena = arena};
    nb_graph *g = parse(chain);
    ck_assert_msg(nb_pipeline_run(&pipeline, g, &env) == NB_OK, "%s", everything_said());
    ck_assert_ptr_null(strstr(nb_print_string(arena, g, &(nb_print_options){0}), "neg"));
    nb_graph_destroy(g);
}
END_TEST

/* ---- use: passes built from the header of 1.0 ------------------------------------------------ */

/* Each does what nb_pass.h says, and leaves a graph that is valid. */
START_TEST(used) {
    size_t n = registry->n_builtins;
    for (size_t i = 0; i < n; i++) {
        teardown();
        setup();
        ck_assert_msg(nb_registry_load(registry, PLUGIN_EVERYTHING, diags) == NB_OK, "%s",
                      everything_said());
        const size_t loaded = registry->passes.count - registry->n_builtins;
        n = loaded;
        nb_file file;
        ck_assert_int_eq(nb_file_open(EVERYTHING_NIR, diags, &file), NB_OK);
        nb_graph *g;
        ck_assert_int_eq(nb_parse((const char *)file.bytes, file.size, "everything.nir", NULL, NULL,
                                  NULL, diags, &g),
                         NB_OK);
        nb_sample sample = {nb_made_up_inputs(g, arena)};
        nb_pipeline pipeline;
        const char *name = registry->passes.items[registry->n_builtins + i]->name;
        const char *text = nb_format(arena, "calibrate, %s", name);
        ck_assert_int_eq(nb_pipeline_parse(registry, text, arena, diags, &pipeline), NB_OK);
        nb_pass_env env = {.registry = registry,
                           .diags = diags,
                           .arena = arena,
                           .samples = &sample,
                           .n_samples = 1,
                           .verify_each = true};
        ck_assert_msg(nb_pipeline_run(&pipeline, g, &env) == NB_OK, "%s: %s", name,
                      everything_said());
        nb_graph_destroy(g);
        nb_file_close(&file);
    }
    ck_assert_uint_ge(n, 25);
}
END_TEST

/* ---- misuse --------------------------------------------------------------------------------- */

static const misuse *acting;

/* With numbers it gives no type. */
static const char *twice_shape(nb_pass_ctx *ctx, nb_value *const *operands, const int64_t *numbers,
                               size_t n_numbers, nb_op_shape *out) {
    (void)numbers;
    if (n_numbers) out->rank = 9;
    return ctx->host->value_elem(operands[0]) == 1 ? NULL : "it is not f32";
}
static const nb_op_def twice = {.size = sizeof(nb_op_def),
                                .name = "twice",
                                .summary = "x + x",
                                .operands = 1,
                                .shape = twice_shape};

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
                            .passes = passes,
                            .ops = (const nb_op_def *const[]){&twice, NULL}};
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

/* ---- what was not done ---------------------------------------------------------------------- */

static const char *heard_text;

static void hear(void *user, const nb_near_miss *miss) {
    (void)user;
    heard_text = nb_format(arena, "%s/%s/%s/%s/%s", miss->pass, miss->rule, miss->equation,
                           miss->op ? nb_out(miss->op)->name : "graph", miss->why);
}

static nb_pass_result refuses(nb_pass_ctx *ctx) {
    const nb_pass_host *h = ctx->host;
    nb_op *neg = h->first_op(ctx->graph);
    if (!NB_HAS(h, is_heard)) return NB_PASS_FAILED;
    h->refused(ctx, neg, "fold-neg", "neg(neg(x)) -> x", "'%s' is %d", "n", 1);
    if (h->is_heard(ctx)) h->fact(ctx, NULL, "asked", 1);
    return NB_PASS_UNCHANGED;
}

START_TEST(tells_near_misses) {
    const nb_pass pass = {
        .size = sizeof pass, .name = "refuser", .summary = "refuses", .run = refuses};
    const nb_step step = {.pass = &pass};
    nb_pipeline pipeline = {0};
    nb_vec_push(arena, &pipeline.steps, step);
    nb_graph *g = parse(chain);
    nb_pass_env silent = {.registry = registry, .diags = diags, .arena = arena}, listening = silent;
    listening.near_miss = hear;
    heard_text = NULL;
    ck_assert_int_eq(nb_pipeline_run(&pipeline, g, &silent), NB_OK);
    ck_assert_ptr_null(heard_text);
    ck_assert_uint_eq(silent.facts.count, 0);
    ck_assert_int_eq(nb_pipeline_run(&pipeline, g, &listening), NB_OK);
    ck_assert_str_eq(heard_text, "refuser/fold-neg/neg(neg(x)) -> x/n/'n' is 1");
    ck_assert_uint_eq(listening.facts.count, 1);
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
    tcase_add_test(c, older_structs);
    tcase_add_test(c, newer_structs);
    tcase_add_test(c, operation);
    tcase_add_test(c, operation_unknown);
    tcase_add_loop_test(c, operation_of_wrong_type, 0, 3);
    tcase_add_test(c, newer_arguments);
    tcase_add_test(c, used);
    tcase_add_test(c, misused);
    tcase_add_test(c, status_of_error);
    tcase_add_test(c, tells_near_misses);
    suite_add_tcase(s, c);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_NORMAL);
    int run_tests = srunner_ntests_run(runner), failed = srunner_ntests_failed(runner);
    printf("%d passed, %d failed, 0 skipped\n", run_tests - failed, failed);
    srunner_free(runner);
    return failed == 0 && run_tests > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
