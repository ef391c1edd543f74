/* Dimension expressions: canonical form, decisions by bounds, limits; and for random expressions,
 * that simplifying changes no value. */
#include "ir/interner.h"
#include "tests/unit/test_ir.h"

#include <string.h>

static ir_graph t;
static void open_graph(void) { ir_open(&t); }
static void close_graph(void) { ir_close(&t); }

/* The text of what `text` says is `canonical`, whose own text is the same. */
static void expect(const char *text, const char *canonical) {
    const nb_dim *d = ir_dim(&t, text);
    ck_assert_str_eq(ir_text(&t, d), canonical);
    ck_assert_ptr_eq(ir_dim(&t, canonical), d);
}

START_TEST(sums_and_products) {
    static const char *const cases[][2] = {
        {"S+P", "P+S"},         {"P+S-P", "S"},           {"B-B", "0"},
        {"B+B+B", "3*B"},       {"1+S+2", "S+3"},         {"S-1", "S-1"},
        {"0*B", "0"},           {"S*4*B", "4*B*S"},       {"B*(P+S)", "B*P+B*S"},
        {"2*(B-S)", "2*B-2*S"}, {"(B+1)*(B-1)", "B*B-1"}, {"-1*S+B", "B-1*S"},
        {"B*S-S*B", "0"},       {"3-S", "-1*S+3"},
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) expect(cases[i][0], cases[i][1]);
}
END_TEST

START_TEST(quotients) {
    static const char *const cases[][2] = {
        {"floordiv(8*B,4)", "2*B"},
        {"floordiv(B,1)", "B"},
        {"ceildiv(B,B)", "1"},
        {"floordiv(7,2)", "3"},
        {"ceildiv(7,2)", "4"},
        {"floordiv(0-7,2)", "-4"},
        {"floordiv(B*P*64,P*B)", "64"},
        {"floordiv(256*B*(P+S),4*B*(S+P))", "64"}, /* a divisor of two terms */
        {"floordiv(B*B-1,B+1)", "B-1"},
        {"floordiv(B*S+1,B)", "floordiv(B*S+1,B)"},
        {"floordiv(2*B+S+3,2)", "B+floordiv(S+1,2)+1"},
        {"ceildiv(2*B+S+3,2)", "B+ceildiv(S-1,2)+2"},
        {"floordiv(S-2,2)", "floordiv(S,2)-1"},
        {"floordiv(floordiv(S,2),3)", "floordiv(S,6)"},
        {"floordiv(2*B+floordiv(S,3),2)", "B+floordiv(S,6)"},
        {"floordiv(ceildiv(S,2),3)", "floordiv(ceildiv(S,2),3)"},
        {"floordiv(0,S)", "0"},
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) expect(cases[i][0], cases[i][1]);
}
END_TEST

START_TEST(extrema) {
    static const char *const cases[][2] = {
        {"min(B,B)", "B"},
        {"max(3,5)", "5"},
        {"max(B,0)", "B"},
        {"max(B,1)", "B"},
        {"max(P,1)", "max(1,P)"},
        {"min(P,P+S)", "P"},
        {"max(P+S,S)", "P+S"},
        {"min(S,B)", "min(B,S)"},
        {"min(B,min(S,B))", "min(B,S)"},
        {"max(min(B,S),B)", "B"},
        {"min(max(B,S),S)", "S"},
        {"max(0-B,0)", "0"},
        {"P+max(0,S-P)", "max(P,S)"},
        {"max(P,S)-P", "max(0,-1*P+S)"},
        {"P+B+max(0,S-P)", "B+max(P,S)"},
        {"P-max(0,S-P)", "P-1*max(0,-1*P+S)"},
        {"P-max(P,S)", "-1*max(0,-1*P+S)"},
        {"max(0,min(48,min(48,P)+max(0,min(48,P+1)-min(48,P)))-min(48,P))",
         "max(0,-1*min(48,P)+min(48,P+1))"}, /* the end of one slice is that of another */
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) expect(cases[i][0], cases[i][1]);
}
END_TEST

START_TEST(bounds) {
    nb_symbol_narrow(t.graph, t.graph->symbols.items[0], 2, 10);
    nb_symbol_narrow(t.graph, t.graph->symbols.items[1], 1, 100);
    static const struct {
        const char *text;
        int64_t min, max;
    } cases[] = {
        {"B", 2, 10},
        {"B-S", -98, 9},
        {"B*S", 2, 1000},
        {"-3*B", -30, -6},
        {"floordiv(S,B)", 0, 50},
        {"ceildiv(S,B)", 1, 50},
        {"floordiv(B-S,3)", -33, 3},
        {"min(B,S)", 1, 10},
        {"max(B,S)", 2, 100},
        {"P*B", 0, INT64_MAX},
        {"P*B-P*S", -INT64_MAX, INT64_MAX},
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        int64_t min, max;
        nb_dim_range(ir_dim(&t, cases[i].text), &min, &max);
        ck_assert_msg(min == cases[i].min && max == cases[i].max, "%s: %lld..%lld", cases[i].text,
                      (long long)min, (long long)max);
    }
    expect("min(B,100)", "B");
    expect("floordiv(B,11)", "0");
    expect("ceildiv(B,11)", "1");
}
END_TEST

/* What bounds decide is decided again when they change. */
START_TEST(narrowing) {
    nb_value *x = ir_input(&t, "x", NB_F32, "min(B,512),4");
    ir_begin(&t, NB_OP_reshape, x, NULL, NULL, NULL);
    ir_set_dims(&t, "shape", "4,min(B,512)");
    nb_value *y = ir_expect(&t, "f32[4,min(512,B)]");
    ir_outputs(&t, 1, &y);
    nb_symbol_narrow(t.graph, t.graph->symbols.items[0], 1, 256);
    ck_assert_str_eq(ir_type(&t, x), "f32[B,4]");
    ck_assert_str_eq(ir_type(&t, y), "f32[4,B]");
    ck_assert_int_eq(nb_verify(t.graph, t.diags), NB_OK);
    nb_symbol_narrow(t.graph, t.graph->symbols.items[0], 0, 1000);
    ck_assert_int_eq(t.graph->symbols.items[0]->max, 256);
}
END_TEST

START_TEST(names_in_text) {
    const nb_dim *odd =
        nb_dim_symbol(t.graph, nb_graph_symbol(t.graph, "past `len\\ \xc3\xa9\n", false));
    const char *text = ir_text(&t, nb_dim_add(t.graph, odd, odd));
    ck_assert_str_eq(text, "2*`past \\x60len\\x5c \\xc3\\xa9\\x0a`");
    ck_assert_ptr_eq(ir_dim(&t, text), nb_dim_add(t.graph, odd, odd));
    ck_assert_str_eq(ir_text(&t, nb_dim_symbol(t.graph, nb_graph_symbol(t.graph, "a.b_1", false))),
                     "a.b_1");
    ck_assert_str_eq(ir_text(&t, nb_dim_symbol(t.graph, nb_graph_symbol(t.graph, "1a", false))),
                     "`1a`");
    char *large = nb_alloc(t.arena, 1000001); /* quadratic work would be noticed */
    memset(large, 1, 1000000);
    text = ir_text(&t, nb_dim_symbol(t.graph, nb_graph_symbol(t.graph, large, false)));
    ck_assert_uint_eq(strlen(text), 4000002);
}
END_TEST

/* ---- limits -------------------------------------------------------------------------------- */

static void expect_invalid(const nb_dim *d) {
    int64_t min, max, value, symbols[64] = {0};
    ck_assert(nb_dim_is_invalid(d));
    ck_assert(!nb_dim_eval(d, symbols, &value));
    nb_dim_range(d, &min, &max);
    ck_assert(min == INT64_MIN && max == INT64_MAX);
    ck_assert_str_eq(ir_text(&t, d), "(invalid)");
    const nb_dim *b = nb_dim_symbol(t.graph, t.graph->symbols.items[0]),
                 *zero = nb_dim_const(t.graph, 0);
    for (int kind = NB_DIM_ADD; kind <= NB_DIM_MAX; kind++) {
        ck_assert_ptr_eq(nb_dim_binary(t.graph, (nb_dim_kind)kind, d, b), d);
        ck_assert_ptr_eq(nb_dim_binary(t.graph, (nb_dim_kind)kind, b, d), d);
        ck_assert_ptr_eq(nb_dim_binary(t.graph, (nb_dim_kind)kind, d, d), d);
    }
    ck_assert_ptr_eq(nb_dim_mul(t.graph, d, zero), d);
    ck_assert_ptr_eq(nb_dim_substitute(t.graph, d, t.graph->symbols.items[0], zero), d);
}

START_TEST(without_value) {
    nb_graph *g = t.graph;
    const nb_dim *most = nb_dim_const(g, INT64_MAX), *least = nb_dim_const(g, INT64_MIN),
                 *one = nb_dim_const(g, 1), *b = ir_dim(&t, "B");
    expect_invalid(nb_dim_add(g, most, one));
    expect_invalid(nb_dim_sub(g, least, one));
    expect_invalid(nb_dim_mul(g, least, least));
    expect_invalid(nb_dim_mul(g, nb_dim_mul(g, most, b), nb_dim_const(g, 2)));
    expect_invalid(nb_dim_sub(g, one, least));
    expect_invalid(nb_dim_floordiv(g, b, nb_dim_const(g, 0)));
    expect_invalid(nb_dim_ceildiv(g, b, nb_dim_sub(g, nb_dim_const(g, 0), b)));
    /* At the edge, nothing overflows on the way. */
    ck_assert_int_eq(nb_dim_add(g, least, most)->value, -1);
    ck_assert_int_eq(nb_dim_floordiv(g, least, nb_dim_const(g, 3))->value, -3074457345618258603);
    ck_assert_int_eq(nb_dim_ceildiv(g, least, one)->value, INT64_MIN);
    ck_assert_int_eq(nb_dim_min(g, least, most)->value, INT64_MIN);
    nb_dim_floordiv(g, nb_dim_mul(g, least, b), b);
}
END_TEST

START_TEST(many_terms) {
    const nb_dim *sum = nb_dim_const(t.graph, 0), *product = nb_dim_const(t.graph, 1);
    for (int i = 0; i < 300; i++) {
        const nb_dim *s =
            nb_dim_symbol(t.graph, nb_graph_symbol(t.graph, nb_format(t.arena, "n%d", i), false));
        sum = nb_dim_add(t.graph, sum, s);
        product = nb_dim_mul(t.graph, product, s);
        if (i < 16) ck_assert(!nb_dim_is_invalid(sum) && !nb_dim_is_invalid(product));
    }
    expect_invalid(sum);
    expect_invalid(product);
}
END_TEST

/* Shared parts double the tree at each step; without a bound this would not end. */
START_TEST(shared_parts) {
    const nb_dim *d = ir_dim(&t, "B"), *s = ir_dim(&t, "S");
    for (int i = 0; i < 200; i++) {
        const nb_dim *part = nb_dim_floordiv(t.graph, d, nb_dim_add(t.graph, s, d));
        d = nb_dim_max(t.graph, nb_dim_add(t.graph, d, s), nb_dim_mul(t.graph, part, part));
    }
    expect_invalid(d);
    d = ir_dim(&t, "B");
    for (int i = 0; i < 200; i++) /* thin, but nested */
        d = nb_dim_floordiv(t.graph, nb_dim_add(t.graph, nb_dim_mul(t.graph, d, d), s), s);
    expect_invalid(d);
}
END_TEST

/* What is not too large has a text that reads back. */
START_TEST(deepest_text) {
    const nb_dim *d = ir_dim(&t, "B"), *s = ir_dim(&t, "S"), *last = d;
    while (!nb_dim_is_invalid(d)) {
        last = d;
        d = nb_dim_floordiv(t.graph, nb_dim_add(t.graph, d, nb_dim_const(t.graph, 1)), s);
    }
    ck_assert_ptr_eq(ir_dim(&t, ir_text(&t, last)), last);
}
END_TEST

/* ---- random expressions -------------------------------------------------------------------- */

enum { EXPRESSIONS = 20000, POINTS = 8 };

static uint64_t state;
static uint64_t below(uint64_t n) {
    state += UINT64_C(0x9e3779b97f4a7c15);
    return nb_hash_mix(state, 7) % n;
}

/* A dim and its values, worked out step by step beside it; invalid[i]: not a number any more. */
typedef struct sample {
    const nb_dim *dim;
    int64_t values[POINTS];
    bool invalid[POINTS];
} sample;

static sample leaf(int64_t points[POINTS][3]) {
    sample s = {0};
    uint64_t which = below(5);
    int64_t number = (int64_t)below(9) - 3;
    s.dim = which < 3 ? nb_dim_symbol(t.graph, t.graph->symbols.items[which])
                      : nb_dim_const(t.graph, number);
    for (int i = 0; i < POINTS; i++) s.values[i] = which < 3 ? points[i][which] : number;
    return s;
}

static int64_t apply(nb_dim_kind kind, int64_t a, int64_t b) {
    switch (kind) {
    case NB_DIM_ADD:
        return a + b;
    case NB_DIM_MUL:
        return a * b;
    case NB_DIM_FLOORDIV:
        return nb_floordiv(a, b);
    case NB_DIM_CEILDIV:
        return nb_ceildiv(a, b);
    case NB_DIM_MIN:
        return nb_min_i64(a, b);
    default:
        return nb_max_i64(a, b);
    }
}

static sample join(const sample *a, const sample *b) {
    nb_dim_kind kind = (nb_dim_kind)(NB_DIM_ADD + below(NB_DIM_MAX - NB_DIM_ADD + 1));
    sample s = {.dim = nb_dim_binary(t.graph, kind, a->dim, b->dim)};
    bool divides = kind == NB_DIM_FLOORDIV || kind == NB_DIM_CEILDIV;
    for (int i = 0; i < POINTS; i++) {
        s.invalid[i] = a->invalid[i] || b->invalid[i] || (divides && b->values[i] < 1) ||
                       a->values[i] > INT32_MAX || a->values[i] < INT32_MIN ||
                       b->values[i] > INT32_MAX || b->values[i] < INT32_MIN;
        if (!s.invalid[i]) s.values[i] = apply(kind, a->values[i], b->values[i]);
    }
    return s;
}

static void check_sample(const sample *s, int64_t points[POINTS][3]) {
    int64_t value, min, max;
    const char *text = ir_text(&t, s->dim);
    if (nb_dim_is_invalid(s->dim)) {
        for (int i = 0; i < POINTS; i++) ck_assert(s->invalid[i]);
        return;
    }
    nb_dim_range(s->dim, &min, &max);
    for (int i = 0; i < POINTS; i++) {
        if (s->invalid[i]) continue;
        ck_assert_msg(nb_dim_eval(s->dim, points[i], &value) && value == s->values[i],
                      "%s at B=%lld S=%lld P=%lld: expected %lld", text, (long long)points[i][0],
                      (long long)points[i][1], (long long)points[i][2], (long long)s->values[i]);
        ck_assert_msg(min <= value && value <= max, "%s = %lld is outside %lld..%lld", text,
                      (long long)value, (long long)min, (long long)max);
    }
    ck_assert_msg(ir_dim(&t, text) == s->dim, "%s does not read back", text);
    ck_assert_ptr_eq(nb_dim_renew(t.graph, s->dim), s->dim);
}

START_TEST(values_stay) {
    int64_t points[POINTS][3];
    for (int i = 0; i < POINTS; i++) {
        for (int k = 0; k < 3; k++) points[i][k] = (int64_t)below(12) + (k < 2);
    }
    for (int n = 0; n < EXPRESSIONS; n++) {
        sample stack[6];
        size_t count = 2 + below(5);
        for (size_t i = 0; i < count; i++) stack[i] = leaf(points);
        while (count > 1) {
            size_t i = below(count - 1);
            stack[i] = join(&stack[i], &stack[i + 1]);
            memmove(&stack[i + 1], &stack[i + 2], (count - i - 2) * sizeof *stack);
            count--;
            check_sample(&stack[i], points);
        }
    }
}
END_TEST

Suite *nb_suite_ir_dims(void) {
    Suite *s = suite_create("ir_dims");
    TCase *c = tcase_create("dims");
    tcase_add_checked_fixture(c, open_graph, close_graph);
    tcase_add_test(c, sums_and_products);
    tcase_add_test(c, quotients);
    tcase_add_test(c, extrema);
    tcase_add_test(c, bounds);
    tcase_add_test(c, narrowing);
    tcase_add_test(c, names_in_text);
    tcase_add_test(c, without_value);
    tcase_add_test(c, many_terms);
    tcase_add_test(c, shared_parts);
    tcase_add_test(c, deepest_text);
    tcase_add_test(c, values_stay);
    suite_add_tcase(s, c);
    return s;
}
