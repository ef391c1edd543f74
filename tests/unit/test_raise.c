/* Pass raise finds layers by what they compute: a decoder is disguised (values renamed, operands
 * commuted, ops without effect in between) and must be recognised every time. Exported decoders,
 * where they are at hand, must be recognised completely. */
#include "frontend/frontend.h"
#include "ir/build.h"
#include "ir/text.h"
#include "passes/pass.h"
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DECODER  NIBBLE_SOURCE_DIR "/tests/golden/raise/decoder.nir"
#define PIPELINE "simplify, raise, simplify"

static nb_arena *arena;
static nb_diags *diags;

static void setup(void) {
    arena = nb_arena_create(NULL, NULL);
    diags = nb_diags_create(arena, "raise");
}
static void teardown(void) { nb_arena_destroy(arena); }

static void expect_ok(nb_status status) {
    for (size_t i = 0; i < diags->list.count; i++)
        fputs(nb_diag_render(arena, diags->list.items[i]), stderr);
    ck_assert_int_eq(status, NB_OK);
}

/* The graph of the golden file, before the pass. */
static nb_graph *decoder(void) {
    static char text[1 << 16];
    FILE *in = fopen(DECODER, "rb");
    ck_assert_ptr_nonnull(in);
    size_t n = fread(text, 1, sizeof text - 1, in);
    fclose(in);
    text[n] = '\0';
    char *end = strstr(text, "\n; ----");
    ck_assert_ptr_nonnull(end);
    nb_graph *g = NULL;
    expect_ok(nb_parse(text, (size_t)(end - text) + 1, DECODER, NULL, NULL, NULL, diags, &g));
    return g;
}

static void raise_graph(nb_graph *g, bool check) {
    nb_pipeline pipeline = {0};
    nb_registry *registry = nb_registry_create(arena);
    nb_pass_env env = {.registry = registry,
                       .diags = diags,
                       .arena = arena,
                       .verify_each = true,
                       .check_each = check};
    expect_ok(nb_pipeline_parse(registry, PIPELINE, arena, diags, &pipeline));
    expect_ok(nb_pipeline_run(&pipeline, g, &env));
}

static size_t count(const nb_graph *g, nb_op_kind kind) {
    size_t n = 0;
    NB_FOR_OPS(op, &g->body) n += op->kind == kind;
    return n;
}

static void expect_layers(const nb_graph *g, size_t layers, size_t norms) {
    ck_assert_uint_eq(count(g, NB_OP_rms_norm), norms);
    ck_assert_uint_eq(count(g, NB_OP_silu), layers);
    ck_assert_uint_eq(count(g, NB_OP_rotary), 2 * layers);
    ck_assert_uint_eq(count(g, NB_OP_attention), layers);
    ck_assert_uint_eq(g->states.count, 2 * layers);
    ck_assert_uint_eq(count(g, NB_OP_softmax), 0);
    ck_assert_uint_eq(count(g, NB_OP_expand), 0);
    ck_assert_uint_eq(count(g, NB_OP_sqrt), 0);
    ck_assert_uint_eq(count(g, NB_OP_sigmoid), 0);
}

/* ---- disguises ------------------------------------------------------------------------------ */

typedef struct disguise {
    nb_graph *g;
    uint64_t state;
} disguise;

static uint64_t next(disguise *d, uint64_t below) {
    d->state = d->state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (d->state >> 33) % below;
}

/* v through an op, or two, that leave it as it is. */
static nb_value *same(disguise *d, nb_builder *b, nb_value *v) {
    const nb_type *t = v->type;
    const float one = 1;
    int64_t perm[NB_MAX_RANK];
    for (int i = 0; i < t->rank; i++) perm[i] = t->rank - 1 - i;
    switch (next(d, 6)) {
    case 0:
        return nb_reshape(b, v, t->rank, t->dims);
    case 1:
        return nb_transpose(b, nb_transpose(b, v, perm), perm);
    case 2:
        return nb_cast(b, v, t->elem);
    case 3:
        nb_begin(b, NB_OP_expand);
        nb_arg(b, v);
        nb_set_dims(b, "shape", (size_t)t->rank, t->dims);
        return nb_end(b);
    case 4:
        return t->elem == NB_F32
                   ? nb_binary(b, NB_OP_mul, v, nb_const_f32(d->g, "one", 0, NULL, &one))
                   : v;
    default: {
        const nb_dim *flat = nb_type_count(d->g, t);
        return nb_reshape(b, nb_reshape(b, v, 1, &flat), t->rank, t->dims);
    }
    }
}

static void insert_no_ops(disguise *d) {
    NB_FOR_OPS(op, &d->g->body) {
        for (uint32_t i = 0; i < op->n_operands; i++) {
            if (nb_is_const(nb_in(op, i)) || next(d, 3) != 0) continue;
            nb_builder b = {.graph = d->g, .before = op, .loc = op->loc, .diags = diags};
            nb_value *v = same(d, &b, nb_in(op, i));
            ck_assert_ptr_nonnull(v);
            nb_set_operand(&op->operands[i], v);
        }
    }
}

static void commute(disguise *d) {
    NB_FOR_OPS(op, &d->g->body) {
        if (!nb_has_trait(op, NB_TRAIT_COMMUTES) || next(d, 2) == 0) continue;
        nb_value *a = nb_in(op, 0), *b = nb_in(op, 1);
        nb_set_operand(&op->operands[0], b);
        nb_set_operand(&op->operands[1], a);
    }
}

static void rename_all(disguise *d) {
    for (uint32_t i = 0; i < d->g->body.n_params; i++) nb_set_name(d->g, d->g->body.params[i], "x");
    NB_FOR_OPS(op, &d->g->body) {
        for (uint32_t i = 0; i < op->n_results; i++) nb_set_name(d->g, op->results[i], "x");
    }
    for (size_t i = 0; i < d->g->constants.count; i++)
        nb_set_name(d->g, d->g->constants.items[i], "c");
}

START_TEST(disguised) {
    disguise d = {.g = decoder(), .state = (uint64_t)_i};
    commute(&d);
    insert_no_ops(&d);
    rename_all(&d);
    raise_graph(d.g, true);
    expect_layers(d.g, 2, 4);
    nb_graph_destroy(d.g);
}
END_TEST

/* ---- exported decoders ---------------------------------------------------------------------- */

static const struct {
    const char *file;
    size_t layers;
} exported[] = {
    {"llm/stories260K.plain-op13.onnx", 5}, {"llm/stories260K.plain-op17.onnx", 5},
    {"llm/stories260K.plain-op18.onnx", 5}, {"llm/stories260K.nomask.onnx", 5},
    {"llm/books3m.plain.onnx", 4},
};

START_TEST(exported_decoder) {
    char *path = nb_test_data(exported[_i].file);
    if (!path) {
        nb_test_skip(exported[_i].file);
        return;
    }
    nb_graph *g = NULL;
    expect_ok(nb_import(path, NULL, NULL, diags, &g));
    raise_graph(g, false);
    expect_layers(g, exported[_i].layers, 2 * exported[_i].layers + 1);
    nb_graph_destroy(g);
    free(path);
}
END_TEST

Suite *nb_suite_raise(void) {
    Suite *suite = suite_create("raise");
    TCase *tests = tcase_create("raise");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, disguised, 0, 24);
    tcase_add_loop_test(tests, exported_decoder, 0, (int)NB_COUNT(exported));
    suite_add_tcase(suite, tests);
    return suite;
}
