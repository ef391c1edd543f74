/* --check-each: who breaks a promise is named, with the tolerance. */
#include "ir/text.h"
#include "passes/pass.h"
#include "tests/unit/unit.h"

#include <math.h>
#include <string.h>

static const char model[] = "nir 1\n"
                            "graph @g(%x: f32[B,3]) -> (y: f32[B,3]) {\n"
                            "  const @c: f32[3] = {1, 1, 1}\n"
                            "  %y: f32[B,3] = mul %x, @c\n"
                            "  return %y\n"
                            "}\n";

/* Gives the second element of @c another value. */
static nb_pass_result change(nb_pass_ctx *ctx) {
    nb_value *c = nb_in(ctx->graph->body.first, 1);
    void *data;
    nb_blob *blob = nb_blob_create(c->blob->size, &data);
    memcpy(data, c->blob->data, (size_t)c->blob->size);
    ((float *)data)[1] = *(const float *)ctx->user;
    nb_blob_release(c->blob);
    c->blob = blob;
    return NB_PASS_CHANGED;
}

static const struct {
    uint32_t promises;
    float value;
    const char *message; /* NULL: it keeps what it promises */
} cases[] = {
    {NB_PASS_KEEPS_BITS, 1, NULL},
    {NB_PASS_KEEPS_BITS, 1.0000001f, "the tolerance of passes that keep bits is 0 + 0 %"},
    {NB_PASS_KEEPS_NUMBERS, 1.0000001f, NULL},
    {NB_PASS_KEEPS_NUMBERS, 1.01f, "the tolerance of passes that keep numbers is 0.0002 + 0.2 %"},
    {NB_PASS_KEEPS_NUMBERS, NAN, "the tolerance of passes that keep numbers is 0.0002 + 0.2 %"},
    {0, 1.5f, NULL},
    {0, NAN, "passes that round keep what is finite finite"},
    {0, INFINITY, "passes that round keep what is finite finite"},
};

/* The status of the pass alone with --check-each; `wanted` is part of the message, or NULL. */
static nb_status run_checked(const char *text, const nb_pass *pass, const char *wanted) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags = nb_diags_create(arena, NULL);
    nb_pass_env env = {.registry = nb_registry_create(arena), .diags = diags, .arena = arena};
    nb_step step = {.pass = pass};
    nb_pipeline pipeline = {0};
    nb_graph *g;
    nb_vec_push(arena, &pipeline.steps, step);
    env.check_each = true;
    ck_assert_int_eq(nb_parse(text, strlen(text), "g.nir", NULL, NULL, NULL, diags, &g), NB_OK);
    const nb_status status = nb_pipeline_run(&pipeline, g, &env);
    if (wanted) {
        const char *found = diags->list.count ? diags->list.items[0]->message : "";
        ck_assert_msg(strstr(found, "' changed output \"y\": element") != NULL, "%s", found);
        ck_assert_msg(strstr(found, pass->name) != NULL, "%s", found);
        ck_assert_msg(strstr(found, wanted) != NULL, "%s", found);
    }
    nb_graph_destroy(g);
    nb_arena_destroy(arena);
    return status;
}

START_TEST(promise) {
    float value = cases[_i].value;
    const nb_pass pass = {.size = sizeof pass,
                          .name = "changes",
                          .summary = "changes a constant",
                          .run = change,
                          .user = &value,
                          .promises = cases[_i].promises};
    const char *wanted = cases[_i].message;
    ck_assert_int_eq(run_checked(model, &pass, wanted), wanted ? NB_CHECK_FAILED : NB_OK);
}
END_TEST

/* ---- a pass that leaves the last entry of an output -------------------------------------------
 */

static const char long_model[] =
    "nir 1\n"
    "graph @g(%x: f32[B,S]) -> (y: f32[B,S]) {\n"
    "  %y: f32[B,S] = neg %x\n"
    "  %first: f32[B,1] = slice %y {start=[0,0], count=[B,1], step=[1,1]}\n"
    "  %last: f32[B,1] = slice %y {start=[0,S-1], count=[B,1], step=[1,1]}\n"
    "  return %y\n"
    "}\n";

/* Puts out %first, or %last. */
static nb_pass_result shorten(nb_pass_ctx *ctx) {
    nb_op *first = ctx->graph->body.first->next;
    nb_value *v = nb_out(*(const bool *)ctx->user ? first->next : first);
    const char *name = "y";
    nb_graph_set_outputs(ctx->graph, 1, &v, &name);
    return NB_PASS_CHANGED;
}

START_TEST(last_only) {
    bool last = _i == 1;
    const nb_pass pass = {.size = sizeof pass,
                          .name = "shortens",
                          .summary = "leaves one entry",
                          .run = shorten,
                          .user = &last,
                          .promises = NB_PASS_KEEPS_BITS | NB_PASS_LAST_ONLY};
    ck_assert_int_eq(run_checked(long_model, &pass, NULL), last ? NB_OK : NB_CHECK_FAILED);
}
END_TEST

/* ---- the built-in ones ----------------------------------------------------------------------- */

/* What rounds, adds a file's weights, or leaves something out: all others are held to numbers. */
START_TEST(built_ins) {
    static const char *const free_ones[] = {"adapter",      "quantize-weights",  "low-rank",
                                            "bias-correct", "insert-qdq",        "wide-inputs",
                                            "cache-type",   "quantize-depthwise"};
    nb_arena *arena = nb_arena_create(NULL, NULL);
    const nb_registry *registry = nb_registry_create(arena);
    for (size_t i = 0; i < registry->passes.count; i++) {
        const nb_pass *pass = registry->passes.items[i];
        bool is_free = false;
        for (size_t k = 0; k < sizeof free_ones / sizeof *free_ones; k++)
            is_free = is_free || strcmp(free_ones[k], pass->name) == 0;
        const bool promises = (pass->promises & (NB_PASS_KEEPS_BITS | NB_PASS_KEEPS_NUMBERS)) != 0;
        ck_assert_msg(promises != is_free, "%s", pass->name);
    }
    nb_arena_destroy(arena);
}
END_TEST

Suite *nb_suite_check(void) {
    Suite *s = suite_create("check");
    TCase *c = tcase_create("check");
    tcase_add_loop_test(c, promise, 0, (int)(sizeof cases / sizeof *cases));
    tcase_add_loop_test(c, last_only, 0, 2);
    tcase_add_test(c, built_ins);
    suite_add_tcase(s, c);
    return s;
}
