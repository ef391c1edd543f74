/* The difference of two graphs: what is no difference, and each kind of one. */
#include "ir/diff.h"
#include "ir/text.h"
#include "tests/unit/unit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static nb_arena *arena;
static nb_graph *left, *right;
static nb_diff *d;

static void open_arena(void) { arena = nb_arena_create(NULL, NULL); }
static void close_all(void) {
    nb_graph_destroy(left);
    nb_graph_destroy(right);
    nb_arena_destroy(arena);
    left = right = NULL;
}

static nb_graph *parse(const char *text) {
    nb_diags *diags = nb_diags_create(arena, NULL);
    nb_graph *g = NULL;
    nb_status status = nb_parse(text, strlen(text), "test.nir", NULL, NULL, NULL, diags, &g);
    ck_assert_msg(status == NB_OK, "%s",
                  diags->list.count ? nb_diag_render(arena, diags->list.items[0]) : "");
    return g;
}

static void compare(const char *a, const char *b) {
    left = parse(a);
    right = parse(b);
    d = nb_diff_graphs(left, right, true, arena);
}

/* "same changed added removed" */
static void expect_ops(size_t same, size_t changed, size_t added, size_t removed) {
    ck_assert_uint_eq(d->same, same);
    ck_assert_uint_eq(d->changed, changed);
    ck_assert_uint_eq(d->added, added);
    ck_assert_uint_eq(d->removed, removed);
}
static void expect_consts(size_t same, size_t changed, size_t added, size_t removed) {
    ck_assert_uint_eq(d->consts_same, same);
    ck_assert_uint_eq(d->consts_changed, changed);
    ck_assert_uint_eq(d->consts_added, added);
    ck_assert_uint_eq(d->consts_removed, removed);
}

/* The pair whose op in the second graph (or, without one, in the first) makes %name. */
static const nb_op_pair *pair_of(const char *name) {
    for (size_t i = 0; i < d->ops.count; i++) {
        const nb_op_pair *p = &d->ops.items[i];
        const nb_op *op = p->b ? p->b : p->a;
        if (op->n_results && strcmp(nb_out(op)->name, name) == 0) return p;
    }
    ck_abort_msg("no op makes %%%s", name);
}

static void expect_one(const nb_differences *list, const char *what, const char *name,
                       const char *a, const char *b) {
    ck_assert_uint_eq(list->count, 1);
    ck_assert_str_eq(list->items[0].what, what);
    ck_assert_str_eq(list->items[0].name, name);
    ck_assert_str_eq(list->items[0].a, a);
    ck_assert_str_eq(list->items[0].b, b);
}

/* ---- what is no difference ------------------------------------------------------------------- */

/* Other names of values, constants and symbols, another order, operands that commute, an attribute
 * that says what its absence says, origins and storage. */
START_TEST(equal) {
    compare("nir 1\n"
            "graph @one(%x: f32[B,4], %m: f32[B,4]) -> (y: f32[B,4], z: f32[4]) {\n"
            "  const @w: f32[4,4] = splat 2\n"
            "  const @g: f32[4] = {1, 2, 3, 4}\n"
            "  %a: f32[B,4] = matmul %x, @w at \"/a\"\n"
            "  %b: f32[B,4] = add %a, %m at \"/b\"\n"
            "  %c: f32[B,4] = rms_norm %m, @g {eps=1e-05}\n"
            "  %d: f32[B,4] = sub %b, %c\n"
            "  %e: f32[4] = reduce_sum %d {axes=[0]}\n"
            "  return %d, %e\n"
            "}\n",
            "nir 1\n"
            "graph @two(%m: f32[N,4], %x: f32[N,4]) -> (z: f32[4], y: f32[N,4]) {\n"
            "  const @gain: f32[4] = {1, 2, 3, 4}\n"
            "  const @weight: f32[4,4] = splat 2\n"
            "  %v1: f32[N,4] = rms_norm %m, @gain {eps=1e-05} at \"/other\" via some-pass\n"
            "  %v2: f32[N,4] = matmul %x, @weight\n"
            "  %v3: f32[N,4] = add %m, %v2\n"
            "  %v4: f32[N,4] = sub %v3, %v1\n"
            "  %v5: f32[4] = reduce_sum %v4 {axes=[0]}\n"
            "  return %v5, %v4\n"
            "}\n");
    ck_assert(nb_diff_is_empty(d));
    expect_ops(6, 0, 0, 0);
    expect_consts(2, 0, 0, 0);
}
END_TEST

/* Equal constants were merged: each says the same as the one that is left. */
START_TEST(merged_constants) {
    compare("nir 1\n"
            "graph @g(%x: f32[4]) -> (y: f32[4]) {\n"
            "  const @a: f32[4] = {1, 2, 3, 4}\n"
            "  const @b: f32[4] = {1, 2, 3, 4}\n"
            "  %p: f32[4] = mul %x, @a\n"
            "  %y: f32[4] = div %p, @b\n"
            "  return %y\n"
            "}\n",
            "nir 1\n"
            "graph @g(%x: f32[4]) -> (y: f32[4]) {\n"
            "  const @a: f32[4] = {1, 2, 3, 4}\n"
            "  %p: f32[4] = mul %x, @a\n"
            "  %y: f32[4] = div %p, @a\n"
            "  return %y\n"
            "}\n");
    ck_assert(nb_diff_is_empty(d));
}
END_TEST

/* ---- ops ------------------------------------------------------------------------------------- */

#define CHAIN(first, second)                                                      \
    "nir 1\n"                                                                     \
    "graph @g(%x: f32[4]) -> (y: f32[4]) {\n"                                     \
    "  const @g: f32[4] = {1, 2, 3, 4}\n"                                         \
    "  %a: f32[4] = neg %x at \"/a\"\n" first "  %c: f32[4] = exp %b at \"/c\"\n" \
    "  %d: f32[4] = tanh %c at \"/d\"\n" second "  return %y\n"                   \
    "}\n"

START_TEST(attribute) {
    compare(CHAIN("  %b: f32[4] = rms_norm %a, @g {eps=1e-05} at \"/b\"\n",
                  "  %y: f32[4] = sub %d, %a at \"/y\"\n"),
            CHAIN("  %b: f32[4] = rms_norm %a, @g {eps=1e-06} at \"/b\"\n",
                  "  %y: f32[4] = sub %d, %a at \"/y\"\n"));
    expect_ops(5, 1, 0, 0);
    expect_consts(1, 0, 0, 0);
    expect_one(&pair_of("b")->differences, "attribute", "eps", "1e-05", "1e-06");
    ck_assert_uint_eq(d->graph.count, 0);
}
END_TEST

/* The order of operands counts where they do not commute. */
START_TEST(operands) {
    compare(CHAIN("  %b: f32[4] = relu %a at \"/b\"\n", "  %y: f32[4] = sub %d, %a at \"/y\"\n"),
            CHAIN("  %b: f32[4] = relu %a at \"/b\"\n", "  %y: f32[4] = sub %a, %d at \"/y\"\n"));
    expect_ops(5, 1, 0, 0);
    const nb_differences *list = &pair_of("y")->differences;
    ck_assert_uint_eq(list->count, 2);
    ck_assert_str_eq(list->items[0].what, "operand");
    ck_assert_str_eq(list->items[0].name, "a");
    ck_assert_str_eq(list->items[0].a, "%d");
    ck_assert_str_eq(list->items[0].b, "%a");
    ck_assert_str_eq(list->items[1].name, "b");
}
END_TEST

/* An op in the middle of a chain: one is added, its reader takes it, nothing else differs. */
START_TEST(inserted) {
    compare(CHAIN("  %b: f32[4] = relu %a at \"/b\"\n", "  %y: f32[4] = sub %d, %a at \"/y\"\n"),
            CHAIN("  %n: f32[4] = abs %a via mine\n"
                  "  %b: f32[4] = relu %n at \"/b\"\n",
                  "  %y: f32[4] = sub %d, %a at \"/y\"\n"));
    expect_ops(5, 1, 1, 0);
    ck_assert(!pair_of("n")->a);
    expect_one(&pair_of("b")->differences, "operand", "x", "%a", "%n");
    ck_assert(nb_out(d->ops.items[1].b) ==
              nb_out(pair_of("n")->b)); /* in the order of the second */
}
END_TEST

/* One that is gone stands behind what it followed. */
START_TEST(removed) {
    compare(CHAIN("  %n: f32[4] = abs %a\n"
                  "  %b: f32[4] = relu %n at \"/b\"\n",
                  "  %y: f32[4] = sub %d, %a at \"/y\"\n"),
            CHAIN("  %b: f32[4] = relu %a at \"/b\"\n", "  %y: f32[4] = sub %d, %a at \"/y\"\n"));
    expect_ops(5, 1, 0, 1);
    ck_assert(d->ops.items[1].a && !d->ops.items[1].b);
    ck_assert_str_eq(nb_out(d->ops.items[1].a)->name, "n");
}
END_TEST

/* mul(x, sigmoid(x)) became silu(x), which stands for both. */
START_TEST(replaced) {
    compare(CHAIN("  %s: f32[4] = sigmoid %a at \"/s\"\n"
                  "  %b: f32[4] = mul %a, %s at \"/b\"\n",
                  "  %y: f32[4] = sub %d, %a at \"/y\"\n"),
            CHAIN("  %b: f32[4] = silu %a at \"/s\" + \"/b\" via raise\n",
                  "  %y: f32[4] = sub %d, %a at \"/y\"\n"));
    expect_ops(5, 1, 0, 1);
    expect_one(&pair_of("b")->differences, "kind", "", "mul", "silu");
}
END_TEST

/* Two chains that differ in nothing but their names, which are exchanged: by structure alone. */
START_TEST(no_origins) {
    compare("nir 1\n"
            "graph @g(%x: f32[4], %z: f32[4]) -> (p: f32[4], q: f32[4]) {\n"
            "  %a: f32[4] = neg %x\n"
            "  %b: f32[4] = exp %a\n"
            "  %c: f32[4] = neg %z\n"
            "  %d: f32[4] = exp %c\n"
            "  return %b, %d\n"
            "}\n",
            "nir 1\n"
            "graph @g(%x: f32[4], %z: f32[4]) -> (p: f32[4], q: f32[4]) {\n"
            "  %c: f32[4] = neg %x\n"
            "  %d: f32[4] = exp %c\n"
            "  %r: f32[4] = relu %z\n"
            "  %a: f32[4] = neg %r\n"
            "  %b: f32[4] = exp %a\n"
            "  return %d, %b\n"
            "}\n");
    expect_ops(4, 1, 1, 0);
    ck_assert_str_eq(nb_out(pair_of("a")->a)->name, "c");
    expect_one(&pair_of("a")->differences, "operand", "x", "%z", "%r");
}
END_TEST

/* ---- types and codes ------------------------------------------------------------------------- */

START_TEST(types) {
    compare("nir 1\n"
            "graph @g(%x: f32[B,4]) -> (y: i32[B,4]) {\n"
            "  %y: i32[B,4] = cast %x {to=i32}\n"
            "  return %y\n"
            "}\n",
            "nir 1\n"
            "graph @g(%x: f32[B,4]) -> (y: i64[B,4]) {\n"
            "  %y: i64[B,4] = cast %x {to=i64}\n"
            "  return %y\n"
            "}\n");
    expect_ops(1, 1, 0, 0);
    const nb_differences *list = &pair_of("y")->differences;
    ck_assert_uint_eq(list->count, 2);
    ck_assert_str_eq(list->items[1].what, "type");
    ck_assert_str_eq(list->items[1].a, "i32[B,4]");
    ck_assert_str_eq(list->items[1].b, "i64[B,4]");
}
END_TEST

static const char *rounded(const char *form) {
    return nb_format(arena,
                     "nir 1\n"
                     "graph @g(%%x: f32[B,4]) -> (y: f32[B,4]) {\n"
                     "  stage qdq\n"
                     "  quant #n: %s\n"
                     "  %%q: #n[B,4] = quantize %%x {to=#n}\n"
                     "  %%y: f32[B,4] = dequantize %%q\n"
                     "  return %%y\n"
                     "}\n",
                     form);
}

/* Each member of a descriptor counts by itself. */
START_TEST(descriptors) {
    static const char *const forms[] = {
        "i8 scale 0.5",        "i8 narrow scale 0.5", "i8 scale 0.25",     "i8 scale 0.5 zero 3",
        "i16 scale 0.5",       "i8 token amax 127",   "i8 token amax 100", "i8 block 4 amax 127",
        "i8 block 2 amax 127", "u8 scale 0.5"};
    for (size_t i = 0; i < NB_COUNT(forms); i++) {
        for (size_t k = 0; k < NB_COUNT(forms); k++) {
            compare(rounded(forms[i]), rounded(forms[k]));
            expect_ops(i == k ? 3 : 2, i != k, 0, 0);
            if (i != k) expect_one(&pair_of("q")->differences, "codes", "", forms[i], forms[k]);
            nb_graph_destroy(left);
            nb_graph_destroy(right);
        }
    }
    left = right = NULL;
}
END_TEST

/* ---- constants ------------------------------------------------------------------------------- */

#define SCALED(data)                          \
    "nir 1\n"                                 \
    "graph @g(%x: f32[4]) -> (y: f32[4]) {\n" \
    "  const @w: f32[4] = {" data "}\n"       \
    "  %y: f32[4] = mul %x, @w\n"             \
    "  return %y\n"                           \
    "}\n"

START_TEST(constants) {
    compare(SCALED("1, -2, 3, 4"), SCALED("1, -2.25, 3, 3.5"));
    expect_ops(2, 0, 0, 0);
    expect_consts(0, 1, 0, 0);
    const nb_const_error *e = &d->constants.items[0].error;
    ck_assert(e->measured && e->differ == 2 && e->count == 4);
    ck_assert_double_eq(e->largest, 0.5);
    ck_assert_double_eq_tol(e->sqnr, 10 * log10(30 / 0.3125), 1e-12);
}
END_TEST

/* A NaN equals a NaN and is infinitely far from a number. */
START_TEST(not_finite) {
    compare(SCALED("nan, 1, 2, inf"), SCALED("nan, 1, 2.5, inf"));
    ck_assert_int_eq(d->constants.items[0].error.differ, 1);
    ck_assert_double_eq(d->constants.items[0].error.largest, 0.5);
    nb_graph_destroy(left);
    nb_graph_destroy(right);
    compare(SCALED("nan, 1, 2, inf"), SCALED("0, 1, 2, inf"));
    ck_assert(isinf(d->constants.items[0].error.largest));
    ck_assert(isinf(d->constants.items[0].error.sqnr) && d->constants.items[0].error.sqnr < 0);
    nb_graph_destroy(left);
    nb_graph_destroy(right);
    compare(SCALED("0, 1, 2, 3"), SCALED("-0, 1, 2, 3")); /* other bits, no other number */
    expect_consts(0, 1, 0, 0);
    ck_assert_int_eq(d->constants.items[0].error.differ, 0);
}
END_TEST

/* Weights that became codes: found behind dequantize and by what multiplies them, measured by what
 * the codes stand for; scales are a constant that was added. */
START_TEST(rounded_weights) {
    compare("nir 1\n"
            "graph @g(%x: f32[B,2]) -> (y: f32[B,2]) {\n"
            "  const @w: f32[2,2] = {1, 0.25, -0.5, 0.75}\n"
            "  %y: f32[B,2] = matmul %x, @w at \"/fc\"\n"
            "  return %y\n"
            "}\n",
            "nir 1\n"
            "graph @g(%x: f32[B,2]) -> (y: f32[B,2]) {\n"
            "  stage qdq\n"
            "  quant #q: i4 axis 1 scale @s\n"
            "  const @s: f32[2] = {0.5, 0.25}\n"
            "  const @c: #q[2,2] = {2, 2, -1, 3}\n"
            "  %f: f32[2,2] = dequantize @c at \"/fc\" via quantize-weights\n"
            "  %y: f32[B,2] = matmul %x, %f at \"/fc\"\n"
            "  return %y\n"
            "}\n");
    expect_ops(1, 1, 1, 0);
    expect_one(&pair_of("y")->differences, "operand", "b", "@w", "%f");
    expect_one(&d->graph, "stage", "", "float", "qdq");
    expect_consts(0, 1, 1, 0);
    for (size_t i = 0; i < d->constants.count; i++) {
        const nb_const_pair *p = &d->constants.items[i];
        if (!p->a) continue;
        ck_assert_str_eq(p->a->name, "w");
        ck_assert_str_eq(p->b->name, "c");
        ck_assert_int_eq(p->error.differ, 1);
        ck_assert_double_eq(p->error.largest, 0.25);
        ck_assert_double_eq_tol(p->error.sqnr, 10 * log10(1.875 / 0.0625), 1e-12);
    }
}
END_TEST

/* Other scales make other numbers of the same codes: the codes' constant differs as well. */
START_TEST(other_scales) {
    static const char form[] = "nir 1\n"
                               "graph @g(%%x: f32[B,2]) -> (y: f32[B,2]) {\n"
                               "  stage qdq\n"
                               "  quant #q: i4 axis 1 scale @s\n"
                               "  const @s: f32[2] = {0.5, %s}\n"
                               "  const @c: #q[2,2] = {2, 2, -1, 3}\n"
                               "  %%f: f32[2,2] = dequantize @c\n"
                               "  %%y: f32[B,2] = matmul %%x, %%f\n"
                               "  return %%y\n"
                               "}\n";
    compare(nb_format(arena, form, "0.25"), nb_format(arena, form, "0.5"));
    expect_ops(3, 0, 0, 0);
    expect_consts(0, 2, 0, 0);
    ck_assert_double_eq(d->constants.items[1].error.largest, 0.75);
}
END_TEST

/* ---- headers --------------------------------------------------------------------------------- */

static const nb_difference *fact(const char *what, const char *name) {
    for (size_t i = 0; i < d->graph.count; i++) {
        const nb_difference *x = &d->graph.items[i];
        if (strcmp(x->what, what) == 0 && strcmp(x->name, name) == 0) return x;
    }
    ck_abort_msg("no difference in %s %s", what, name);
}

/* Each line of a header, in both directions. */
START_TEST(headers) {
    compare("nir 1\n"
            "graph @g(%x: f32[B,4], %past: f32[B,P,4], %old: f32[2])\n"
            "    -> (y: f32[B,4], now: f32[B,P+1,4], gone: f32[2]) where B in 1..512, P in 0.. {\n"
            "  state past -> now axis 1\n"
            "  %y: f32[B,4] = neg %x\n"
            "  %new: f32[B,1,4] = reshape %x {shape=[B,1,4]}\n"
            "  %now: f32[B,P+1,4] = concat %past, %new {axis=1}\n"
            "  return %y, %now, %old\n"
            "}\n",
            "nir 1\n"
            "graph @g(%x: f16[B,4], %past: f32[B,P,4], %young: f32[3])\n"
            "    -> (y: f16[B,4], now: f32[B,P+1,4], fresh: f32[3]) where B in 1..256, P in 0.. {\n"
            "  %y: f16[B,4] = neg %x\n"
            "  %wide: f32[B,4] = cast %x {to=f32}\n"
            "  %new: f32[B,1,4] = reshape %wide {shape=[B,1,4]}\n"
            "  %now: f32[B,P+1,4] = concat %past, %new {axis=1}\n"
            "  return %y, %now, %young\n"
            "}\n");
    static const nb_difference facts[] = {
        {"input", "x", "f32[B,4]", "f16[B,4]"}, {"input", "old", "f32[2]", ""},
        {"input", "young", "", "f32[3]"},       {"output", "gone", "%old", ""},
        {"output", "fresh", "", "%young"},      {"state", "past", "to now axis 1", ""},
        {"symbol", "B", "1..512", "1..256"}};
    ck_assert_uint_eq(d->graph.count, NB_COUNT(facts));
    for (size_t i = 0; i < NB_COUNT(facts); i++) {
        const nb_difference *x = fact(facts[i].what, facts[i].name);
        ck_assert_str_eq(x->a, facts[i].a);
        ck_assert_str_eq(x->b, facts[i].b);
    }
    expect_ops(2, 2, 1, 0); /* neg by its type, reshape by its operand; cast is new */
}
END_TEST

/* ---- large graphs ------------------------------------------------------------------------------
 */

/* Layers of which each reads the one before; `skip` is left out. */
static const char *layers(size_t n, size_t skip) {
    char *text = NULL;
    size_t size, last = 0;
    FILE *f = open_memstream(&text, &size);
    fprintf(f, "nir 1\ngraph @g(%%x0: f32[1]) -> (y: f32[1]) {\n");
    for (size_t i = 1; i <= n; i++) {
        if (i != skip) fprintf(f, "  const @c%zu: f32[1] = {%zu}\n", i, i);
    }
    for (size_t i = 1; i <= n; i++) {
        if (i == skip) continue;
        fprintf(f, "  %%a%zu: f32[1] = mul %%x%zu, @c%zu at \"/l%zu/a\"\n", i, last, i, i);
        fprintf(f, "  %%x%zu: f32[1] = add %%a%zu, %%x%zu at \"/l%zu/b\"\n", i, i, last, i);
        last = i;
    }
    fprintf(f, "  return %%x%zu\n}\n", last);
    fclose(f);
    const char *out = nb_strndup(arena, text, size);
    free(text);
    return out;
}

/* Behind what is gone everything computes something else, and is paired all the same. */
START_TEST(many_layers) {
    enum { N = 10000 };
    compare(layers(N, 0), layers(N, 500));
    expect_ops(2 * N + 1 - 4, 2, 0, 2);
    expect_consts(N - 1, 0, 0, 1);
    ck_assert_str_eq(nb_out(pair_of("a501")->a)->name, "a501");
    expect_one(&pair_of("a501")->differences, "operand", "a", "%x500", "%x499");
    expect_one(&pair_of("x501")->differences, "operand", "b", "%x500", "%x499");
}
END_TEST

Suite *nb_suite_diff(void) {
    Suite *s = suite_create("diff");
    TCase *c = tcase_create("diff");
    tcase_add_checked_fixture(c, open_arena, close_all);
    tcase_add_test(c, equal);
    tcase_add_test(c, merged_constants);
    tcase_add_test(c, attribute);
    tcase_add_test(c, operands);
    tcase_add_test(c, inserted);
    tcase_add_test(c, removed);
    tcase_add_test(c, replaced);
    tcase_add_test(c, no_origins);
    tcase_add_test(c, types);
    tcase_add_test(c, descriptors);
    tcase_add_test(c, constants);
    tcase_add_test(c, not_finite);
    tcase_add_test(c, rounded_weights);
    tcase_add_test(c, other_scales);
    tcase_add_test(c, headers);
    tcase_add_test(c, many_layers);
    suite_add_tcase(s, c);
    return s;
}
