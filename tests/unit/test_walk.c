/* Walks: the values they give are those of the whole graph, bit for bit, also behind an op that was
 * replaced on the way. */
#include "ir/build.h"
#include "ir/text.h"
#include "passes/walk.h"
#include "tests/unit/unit.h"

#include <string.h>

/* A residual, a value read by two stops, one made of constants alone, and an output nobody asks
 * for. */
static const char text[] =
    "nir 1\n"
    "graph @g(%x: f32[B,2], %u: f32[B,P]) -> (o: f32[B,2], p: f32[B,2]) where P in 0..9 {\n"
    "  const @w: f32[2,2] = {1, 2, 3, 4}\n"
    "  const @v: f32[2,2] = {0.5, -1, 0.25, 2}\n"
    "  %t: f32[2,2] = neg @v\n"
    "  %a: f32[B,2] = matmul %x, @w at \"a\"\n"
    "  %s: f32[B,2] = sigmoid %a\n"
    "  %b: f32[B,2] = matmul %s, %t at \"b\"\n"
    "  %r: f32[B,2] = add %x, %b\n"
    "  %c: f32[B,2] = matmul %r, @v at \"c\"\n"
    "  %z: f32[B,2] = add %c, %s\n"
    "  return %z, %a\n"
    "}\n";

enum { SAMPLES = 3 };
static const int64_t rows[SAMPLES] = {1, 4, 2};

static nb_op *layer(const nb_graph *g, const char *node) {
    nb_op *op = g->body.first;
    while (strcmp(nb_loc_name(op->loc), node) != 0) op = op->next;
    return op;
}

/* A copy: the evaluator may use the memory again. */
typedef struct seen {
    char data[64];
    int64_t bytes;
} seen;

static void note(void *user, const nb_value *value, const nb_tensor *t) {
    (void)value;
    seen *s = user;
    s->bytes = t->bytes;
    ck_assert_int_le(t->bytes, (int64_t)sizeof s->data);
    memcpy(s->data, t->data, (size_t)t->bytes);
}

/* Compares v of every sample with what the evaluator makes of the graph as it is now. */
static void expect(nb_pass_ctx *ctx, const nb_walk *walk, nb_graph *g, const nb_value *v) {
    nb_pass_env *env = nb_state_of(ctx)->env;
    for (size_t i = 0; i < SAMPLES; i++) {
        seen want;
        nb_tap tap = {v, note, &want};
        nb_tensor outputs[2];
        ck_assert_int_eq(
            nb_eval(g, env->samples[i].inputs, outputs, &tap, 1, env->arena, env->diags), NB_OK);
        const nb_tensor *got = nb_walk_sample(walk, v, i);
        ck_assert_int_eq(got->dims[0], rows[i]);
        ck_assert_int_eq(got->bytes, want.bytes);
        ck_assert_mem_eq(got->data, want.data, (size_t)got->bytes);
    }
}

static nb_pass_result walk_along(nb_pass_ctx *ctx) {
    nb_graph *g = ctx->graph;
    nb_walk walk = nb_walk_begin(ctx, g);
    nb_op *b = layer(g, "b");
    nb_value *x = nb_in(layer(g, "a"), 0), *s = nb_in(b, 0), *r = nb_in(layer(g, "c"), 0);
    ck_assert(nb_walk_to(&walk, x));
    ck_assert_ptr_eq(nb_walk_sample(&walk, x, 1)->data,
                     nb_state_of(ctx)->env->samples[1].inputs[0].data);
    ck_assert(nb_walk_to(&walk, s));
    expect(ctx, &walk, g, s);
    /* What the walk has not reached yet changes: it sees that. */
    nb_builder builder = nb_pass_builder(ctx, b, b->loc);
    nb_set_operand(&b->operands[1], nb_unary(&builder, NB_OP_neg, nb_in(b, 1)));
    ck_assert(nb_walk_to(&walk, r));
    expect(ctx, &walk, g, r);
    ck_assert(nb_walk_to(&walk, r)); /* again */
    nb_walk_end(&walk);
    return NB_PASS_CHANGED;
}

static const nb_pass pass = {
    .size = sizeof(nb_pass), .name = "walk-along", .summary = "walks", .run = walk_along};

START_TEST(along) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags = nb_diags_create(arena, NULL);
    nb_graph *g;
    ck_assert_int_eq(nb_parse(text, sizeof text - 1, "g", ".", NULL, NULL, diags, &g), NB_OK);
    float data[2][8] = {{1, -2, 0.5F, 3, 0.1F, 0.2F, -0.3F, 0.7F}, {0}};
    nb_tensor inputs[SAMPLES][2];
    nb_sample samples[SAMPLES];
    for (size_t i = 0; i < SAMPLES; i++) {
        for (size_t k = 0; k < 2; k++)
            inputs[i][k] = (nb_tensor){.elem = NB_F32,
                                       .rank = 2,
                                       .dims = {rows[i], k ? 0 : 2},
                                       .data = data[k],
                                       .bytes = k ? 0 : 8 * rows[i]};
        samples[i].inputs = inputs[i];
    }
    nb_step step = {.pass = &pass};
    nb_pipeline pipeline = {{.items = &step, .count = 1}};
    nb_pass_env env = {.registry = nb_registry_create(arena),
                       .diags = diags,
                       .arena = arena,
                       .samples = samples,
                       .n_samples = SAMPLES,
                       .verify_each = true};
    ck_assert_int_eq(nb_pipeline_run(&pipeline, g, &env), NB_OK);
    nb_graph_destroy(g);
    nb_arena_destroy(arena);
}
END_TEST

Suite *nb_suite_walk(void) {
    Suite *s = suite_create("walk");
    TCase *c = tcase_create("walk");
    tcase_add_test(c, along);
    suite_add_tcase(s, c);
    return s;
}
