/* What rewrites that nearly fired tell: the rule, the place and the condition that refused. */
#include "ir/text.h"
#include "passes/pass.h"
#include "tests/unit/unit.h"

#include <string.h>

typedef struct heard {
    nb_arena *arena;
    const char *text; /* "pass rule node: why" for each, with newlines */
} heard;

static void hear(void *user, const nb_near_miss *m) {
    heard *h = user;
    h->text = nb_format(h->arena, "%s%s %s %s: %s\n", h->text, m->pass, m->rule,
                        m->op ? nb_loc_name(m->op->loc) : "", m->why);
}

/* What the passes tell about `body`, a graph of %x: f32[B,4] and %z: f32[B,4] that returns %y. */
static const char *told(nb_arena *arena, const char *declarations, const char *body,
                        const char *passes) {
    const char *text =
        nb_format(arena,
                  "nir 1\ngraph @g(%%x: f32[B,4], %%z: f32[B,4]) -> (y: f32[B,4]) {\n"
                  "%s%s  return %%y\n}\n",
                  declarations, body);
    nb_diags *diags = nb_diags_create(arena, NULL);
    heard h = {.arena = arena, .text = ""};
    nb_graph *g;
    nb_pipeline p;
    nb_pass_env env = {.registry = nb_registry_create(arena),
                       .diags = diags,
                       .arena = arena,
                       .near_miss = hear,
                       .near_miss_user = &h};
    ck_assert_msg(nb_parse(text, strlen(text), "g.nir", NULL, NULL, NULL, diags, &g) == NB_OK, "%s",
                  text);
    ck_assert_int_eq(nb_pipeline_parse(env.registry, passes, arena, diags, &p), NB_OK);
    ck_assert_int_eq(nb_pipeline_run(&p, g, &env), NB_OK);
    nb_graph_destroy(g);
    return h.text;
}

static const struct {
    const char *declarations, *body, *passes, *told;
} cases[] = {
    /* The pattern is there, another value stands in one place. */
    {"",
     "  %s: f32[B,4] = sigmoid %z at \"/s\"\n"
     "  %y: f32[B,4] = mul %x, %s at \"/m\"\n",
     "raise", "raise silu /m: '%z' (x) is another value than the first of that name\n"},
    /* It fires: there is nothing to tell. */
    {"",
     "  %s: f32[B,4] = sigmoid %x at \"/s\"\n"
     "  %t: f32[B,4] = mul %x, %s at \"/m\"\n"
     "  %y: f32[B,4] = add %t, %z\n",
     "raise", ""},
    /* A condition refuses. */
    {"  const @eps: f32[] = {1e-05}\n  const @g: f32[4] = {1, 1, 1, 1}\n",
     "  %q: f32[B,4] = mul %x, %x\n"
     "  %m: f32[1,4] = reduce_mean %q {axes=[0], keep} at \"/mean\"\n"
     "  %e: f32[1,4] = add %m, @eps\n"
     "  %r: f32[1,4] = sqrt %e\n"
     "  %d: f32[B,4] = div %x, %r at \"/div\"\n"
     "  %y: f32[B,4] = mul %d, @g at \"/gain\"\n",
     "raise", "raise rms-norm /gain: the mean is not over the last axis, kept\n"},
    /* Something else altogether. */
    {"",
     "  %n: f32[B,4] = neg %x\n"
     "  %e: f32[B,4] = tanh %n at \"/tanh\"\n"
     "  %y: f32[B,4] = mul %e, %z at \"/m\"\n",
     "raise", ""},
    /* A value that the rule needs for itself. */
    {"  stage qdq\n  quant #w: i8 narrow axis 1 scale @w.scale\n"
     "  const @w.q: #w[4,4] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7}\n"
     "  const @w.scale: f32[4] = {0.1, 0.2, 0.3, 0.4}\n"
     "  const @b: f32[4] = {1, 2, 3, 4}\n  quant #x: i8 narrow token amax 127\n",
     "  %q: #x[B,4] = quantize %x {to=#x}\n"
     "  %d: f32[B,4] = dequantize %q\n"
     "  %w: f32[4,4] = dequantize @w.q\n"
     "  %m: f32[B,4] = matmul %d, %w at \"/fc/MatMul\"\n"
     "  %s: f32[B,4] = add %m, @b at \"/fc/Add\"\n"
     "  %y: f32[B,4] = mul %s, %m\n",
     "fuse-dequant",
     "fuse-dequant bias /fc/Add: '%qmatmul' (qmatmul) has other readers, too\n"
     "fuse-dequant residual /fc/Add: '%qmatmul' (qmatmul) has other readers, too\n"},
    /* A matcher that is no row. */
    {"  const @four: i64[4] = {1, 1, 1, 1}\n",
     "  %a: f32[1,1,B,4] = reshape %x {shape=[1,1,B,4]}\n"
     "  %b: f32[1,1,4,B] = transpose %a {perm=[0,1,3,2]}\n"
     "  %c: f32[1,1,B,B] = matmul %a, %b\n"
     "  %p: f32[1,1,B,B] = softmax %c {axis=2}\n"
     "  %v: f32[1,1,B,4] = matmul %p, %a at \"/attention\"\n"
     "  %y: f32[B,4] = reshape %v {shape=[B,4]}\n",
     "raise", "raise attention /attention: softmax is not along the last axis\n"},
    {"  const @g: f32[4] = {1, 1, 1, 1}\n"
     "  const @w: f32[4,4] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7}\n",
     "  %n: f32[B,4] = rms_norm %x, @g {eps=1e-05} at \"/norm\"\n"
     "  %m: f32[B,4] = matmul %n, @w\n"
     "  %y: f32[B,4] = add %m, %n\n",
     "smooth-fold",
     "smooth-fold smooth /norm: '%n' is read by add, too, which is no linear layer\n"},
};

START_TEST(reasons) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    const char *found = told(arena, cases[_i].declarations, cases[_i].body, cases[_i].passes);
    ck_assert_str_eq(found, cases[_i].told);
    nb_arena_destroy(arena);
}
END_TEST

Suite *nb_suite_explain(void) {
    Suite *s = suite_create("explain");
    TCase *c = tcase_create("reasons");
    tcase_add_loop_test(c, reasons, 0, (int)(sizeof cases / sizeof *cases));
    suite_add_tcase(s, c);
    return s;
}
