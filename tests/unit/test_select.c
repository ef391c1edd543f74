/* Selectors: distances to patterns, and what is said when nothing matches. */
#include "passes/pass.h"
#include "passes/select.h"
#include "tests/unit/unit.h"

#include "ir/text.h"

#include <string.h>

static const struct {
    const char *pattern, *name;
    size_t distance;
} cases[] = {
    {"", "", SIZE_MAX},
    {"a", "", 1},
    {"*", "", 0},
    {"*", "anything", 0},
    {"abc", "abc", 0},
    {"abc", "abd", 1},
    {"abc", "ab", 1},
    {"abc", "abcd", 1},
    {"?", "x", 0},
    {"?", "xy", 1},
    {"??", "x", 1},
    {"*/lm_haed/*", "/lm_head/MatMul", 2},
    {"*/lm_head/*", "/lm_head/MatMul", 0},
    {"*head", "/lm_head", 0},
    {"*head", "/lm_head/", 1},
    {"*/q_proj/*", "/layers.0/self_attn/k_proj/MatMul", 1},
    {"x|*/q_proj/*", "/layers.0/self_attn/k_proj/MatMul", 1},
    {"x|y", "y", 0},
};

/* A distance of 0 is a match, and only that. */
START_TEST(distances) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    const size_t distance = nb_match_distance(arena, cases[_i].pattern, cases[_i].name);
    ck_assert_uint_eq(distance, cases[_i].distance);
    ck_assert_int_eq(nb_match_name(cases[_i].pattern, cases[_i].name), distance == 0);
    nb_arena_destroy(arena);
}
END_TEST

static nb_pass_result select_ops(nb_pass_ctx *ctx) {
    for (nb_op *op = ctx->host->first_op(ctx->graph); op; op = ctx->host->next_op(op))
        if (strcmp(ctx->host->op_name(op), "return") != 0) ctx->host->selected(ctx, "skip", op);
    return NB_PASS_UNCHANGED;
}

static const nb_option options[] = {
    {.name = "skip", .kind = NB_OPTION_SELECTOR, .summary = "nodes"}, {.name = NULL}};
static const nb_pass pass = {.size = sizeof(nb_pass),
                             .name = "select",
                             .summary = "-",
                             .options = options,
                             .run = select_ops};

/* Runs select{skip=...} on a graph of five ops; the help of its error, or NULL. */
static const char *run(nb_arena *arena, const char *pattern, const char **message) {
    static const char text[] = "nir 1\ngraph @g(%x: f32[4]) -> f32[4] {\n"
                               "  %a: f32[4] = exp %x at \"/layers.0/q_proj/MatMul\"\n"
                               "  %b: f32[4] = neg %a at \"/layers.0/k_proj/MatMul\"\n"
                               "  %c: f32[4] = exp %b at \"/layers.10/q_proj/MatMul\"\n"
                               "  %d: f32[4] = neg %c at \"/embed/Gather\"\n"
                               "  %y: f32[4] = exp %d at \"/lm_head/MatMul\"\n"
                               "  return %y\n}\n";
    nb_diags *diags = nb_diags_create(arena, "test");
    nb_registry *registry = nb_registry_create(arena);
    nb_vec_push(arena, &registry->passes, &pass);
    nb_graph *g;
    nb_pipeline p;
    ck_assert_int_eq(nb_parse(text, strlen(text), "test", NULL, NULL, NULL, diags, &g), NB_OK);
    const char *line = nb_format(arena, "select{skip=\"%s\"}", pattern);
    ck_assert_int_eq(nb_pipeline_parse(registry, line, arena, diags, &p), NB_OK);
    nb_pass_env env = {.registry = registry, .diags = diags, .arena = arena};
    const nb_status status = nb_pipeline_run(&p, g, &env);
    nb_graph_destroy(g);
    *message = status == NB_OK ? NULL : diags->list.items[0]->message;
    return status == NB_OK ? NULL : diags->list.items[0]->help;
}

START_TEST(near_misses) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    const char *message;
    ck_assert_ptr_null(run(arena, "*q_proj*", &message));
    ck_assert_ptr_null(message);
    ck_assert_ptr_null(run(arena, "", &message));
    ck_assert_ptr_null(message);
    const char *help = run(arena, "/lm_haed/*", &message);
    ck_assert_str_eq(message, "select: skip=\"/lm_haed/*\" matches none of the 5 layers");
    ck_assert_msg(strstr(help, "the nearest names are \"/lm_head/MatMul\", ") == help, "%s", help);
    help = run(arena, "*/v_proj/*", &message);
    ck_assert_str_eq(help, "the nearest names are \"/layers.0/q_proj/MatMul\", "
                           "\"/layers.0/k_proj/MatMul\", \"/layers.10/q_proj/MatMul\", "
                           "\"/embed/Gather\"");
    nb_arena_destroy(arena);
}
END_TEST

Suite *nb_suite_select(void) {
    Suite *s = suite_create("select");
    TCase *c = tcase_create("select");
    tcase_add_loop_test(c, distances, 0, NB_COUNT(cases));
    tcase_add_test(c, near_misses);
    suite_add_tcase(s, c);
    return s;
}
