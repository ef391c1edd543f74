/* Marks: what a model that was compiled to be profiled tells whoever runs it. */
#include "codegen/codegen.h"
#include "codegen/refs.h"
#include "ir/text.h"
#include "passes/pass.h"
#include "runtime/session.h"
#include "tests/unit/unit.h"

#include <string.h>

static const char text[] = "nir 1\n"
                           "graph @g(%x: f32[B,4]) -> (y: f32[B,2,2], z: f32[B,4]) {\n"
                           "  const @w: f32[4,4] = random(1, -1..1)\n"
                           "  %h: f32[B,4] = matmul %x, @w\n"
                           "  %v: f32[B,2,2] = reshape %h {shape=[B,2,2]}\n"
                           "  %y: f32[B,2,2] = exp %v\n"
                           "  %s: f32[B,4] = softmax %h {axis=1}\n"
                           "  return %y, %s\n"
                           "}\n";

typedef struct seen {
    int64_t ops[16];
    size_t n;
} seen;

static void mark(void *user, int64_t op) {
    seen *s = user;
    ck_assert_uint_lt(s->n, NB_COUNT(s->ops));
    s->ops[s->n++] = op;
}

typedef struct model {
    nb_arena *arena;
    nb_graph *graph;
    nb_jit *jit;
    nb_loaded *loaded;
    nb_session *session;
    _Alignas(64) unsigned char weights[4096];
    float x[12];
} model;

static void open_model(model *m, bool profile) {
    memset(m, 0, sizeof *m);
    m->arena = nb_arena_create(NULL, NULL);
    nb_diags *diags = nb_diags_create(m->arena, NULL);
    nb_pipeline pipeline;
    nb_pass_env env = {.registry = nb_registry_create(m->arena), .diags = diags, .arena = m->arena};
    nb_codegen_options options = {
        .cpu = cg_cpu_find(NULL, "native"), .name = "g", .profile = profile};
    nb_object object;
    ck_assert_int_eq(nb_parse(text, strlen(text), "g", NULL, NULL, NULL, diags, &m->graph), NB_OK);
    ck_assert_int_eq(nb_pipeline_parse(env.registry, "plan-memory", m->arena, diags, &pipeline),
                     NB_OK);
    ck_assert_int_eq(nb_pipeline_run(&pipeline, m->graph, &env), NB_OK);
    ck_assert_int_eq(nb_codegen(m->graph, &options, m->arena, diags, &object), NB_OK);
    ck_assert_int_eq(nb_load_object(&object, "g", diags, &m->jit), NB_OK);
    ck_assert_int_le(nb_pack_size(object.pack), (int64_t)sizeof m->weights);
    nb_pack_copy(object.pack, m->weights);
    ck_assert_int_eq(nb_load_model(nb_jit_model(m->jit), m->weights, NULL, NULL, &m->loaded, NULL),
                     NB_RT_OK);
    ck_assert_int_eq(nb_session_create(m->loaded, NULL, &m->session, NULL), NB_RT_OK);
    ck_assert_ptr_null(nb_session_symbols(m->session));
    int64_t dims[2] = {3, 4};
    ck_assert_int_eq(nb_session_set_input(m->session, 0, m->x, dims, NULL), NB_RT_OK);
}

static void close_model(model *m) {
    nb_session_destroy(m->session);
    nb_unload(m->loaded);
    nb_jit_free(m->jit);
    nb_graph_destroy(m->graph);
    nb_arena_destroy(m->arena);
}

/* The beginning, then each op that has code, once and in order. */
START_TEST(profiled) {
    model m;
    seen s = {0};
    open_model(&m, true);
    nb_session_set_mark(m.session, mark, &s);
    ck_assert_int_eq(nb_session_run(m.session, NULL), NB_RT_OK);
    size_t n = 0;
    int64_t index = 0;
    ck_assert_int_eq(s.ops[n++], -1);
    for (const nb_op *op = m.graph->body.first; op; op = op->next, index++) {
        if (!nb_emits_nothing(op)) ck_assert_int_eq(s.ops[n++], index);
    }
    ck_assert_uint_eq(s.n, n);
    ck_assert_int_eq(nb_session_symbols(m.session)[0], 3);

    nb_session_set_mark(m.session, NULL, NULL);
    ck_assert_int_eq(nb_session_run(m.session, NULL), NB_RT_OK);
    ck_assert_uint_eq(s.n, n);
    /* A frame of an older runtime has no such member. */
    nb_session_set_mark(m.session, mark, &s);
    m.session->frame.size = offsetof(nb_frame, mark);
    ck_assert_int_eq(nb_session_run(m.session, NULL), NB_RT_OK);
    ck_assert_uint_eq(s.n, n);
    close_model(&m);
}
END_TEST

START_TEST(not_profiled) {
    model m;
    seen s = {0};
    open_model(&m, false);
    nb_session_set_mark(m.session, mark, &s);
    ck_assert_int_eq(nb_session_run(m.session, NULL), NB_RT_OK);
    ck_assert_uint_eq(s.n, 0);
    close_model(&m);
}
END_TEST

Suite *nb_suite_profile(void) {
    Suite *s = suite_create("profile");
    TCase *c = tcase_create("marks");
    tcase_add_test(c, profiled);
    tcase_add_test(c, not_profiled);
    suite_add_tcase(s, c);
    return s;
}
