/* See members.h. */
#include "tests/plugin/members.h"

#include <math.h>
#include <string.h>

const char members_graph[] = "nir 1\n"
                             "graph @g(%x: f32[B,4]) -> f32[B,2] where B in 1..64 {\n"
                             "  stage qdq\n"
                             "  quant #w: i8 axis 1 scale @w.scale\n"
                             "  const @w: #w[4,2] = {1, 2, 3, 4, 5, 6, 7, 8}\n"
                             "  const @w.scale: f32[2] = {0.5, 0.25}\n"
                             "  %a: f32[B,4] = softmax %x {axis=1} at \"/Softmax\"\n"
                             "  %t: f32[4,B] = transpose %a {perm=[1,0]} at \"/Transpose\"\n"
                             "  %r: f32[4*B] = reshape %t {shape=[4*B]}\n"
                             "  %b: f32[B,4] = reshape %r {shape=[B,4]}\n"
                             "  %c: f16[B,4] = cast %b {to=f16}\n"
                             "  %d: f32[B,4] = cast %c {to=f32}\n"
                             "  %s: f32[B,1] = reduce_sum %d {axes=[1], keep}\n"
                             "  %e: f32[B,4] = mul %d, %s\n"
                             "  %v: f32[4,2] = dequantize @w\n"
                             "  %y: f32[B,2] = matmul %e, %v at \"/MatMul\"\n"
                             "  return %y\n"
                             "}\n";

#define H (ctx->host)
#define EXPECT(condition) \
    if (!(condition)) return #condition

static nb_op *find(nb_pass_ctx *ctx, const char *name) {
    nb_op *op = H->first_op(ctx->graph);
    while (op && strcmp(H->op_name(op), name) != 0) op = H->next_op(op);
    return op;
}
static int same(const char *a, const char *b) { return a && b && strcmp(a, b) == 0; }

/* ---- looking -------------------------------------------------------------------------------- */

static const char *attributes(nb_pass_ctx *ctx) {
    EXPECT(same(H->attr_text(ctx, find(ctx, "softmax"), "axis"), "1"));
    EXPECT(same(H->attr_text(ctx, find(ctx, "transpose"), "perm"), "[1,0]"));
    EXPECT(same(H->attr_text(ctx, find(ctx, "reshape"), "shape"), "[4*B]"));
    EXPECT(same(H->attr_text(ctx, find(ctx, "cast"), "to"), "f16"));
    EXPECT(same(H->attr_text(ctx, find(ctx, "reduce_sum"), "keep"), "true"));
    EXPECT(!H->attr_text(ctx, find(ctx, "softmax"), "colour"));
    return NULL;
}

static const char *texts(nb_pass_ctx *ctx) {
    nb_value *x = H->input(ctx->graph, 0), *w = H->operand(find(ctx, "dequantize"), 0);
    EXPECT(same(H->value_dim_text(ctx, x, 0), "B"));
    EXPECT(same(H->value_dim_text(ctx, H->result(find(ctx, "reshape"), 0), 0), "4*B"));
    EXPECT(same(H->value_quant(w), "w"));
    EXPECT(H->is_quantized(w) && !*H->value_quant(x));
    return NULL;
}

/* ---- names and places -------------------------------------------------------------------------
 */

static const char *names(nb_pass_ctx *ctx) {
    nb_value *a = H->result(find(ctx, "softmax"), 0);
    EXPECT(H->set_name(ctx, a, "probabilities"));
    EXPECT(same(H->value_name(a), "probabilities"));
    EXPECT(H->set_name(ctx, a, "x")); /* taken */
    EXPECT(same(H->value_name(a), "x_1"));
    return NULL;
}

static const char *places(nb_pass_ctx *ctx) {
    nb_op *v = find(ctx, "dequantize"), *first = H->first_op(ctx->graph);
    EXPECT(H->move_op(ctx, v, first));
    EXPECT(H->first_op(ctx->graph) == v && H->next_op(v) == first);
    return NULL;
}

/* ---- constants --------------------------------------------------------------------------------
 */

static const char *numbers_of_codes(nb_pass_ctx *ctx) {
    float f[4];
    nb_value *w = H->operand(find(ctx, "dequantize"), 0);
    static const float wanted[4] = {1.5f, 1, 2.5f, 1.5f}; /* 3*0.5, 4*0.25, 5*0.5, 6*0.25 */
    EXPECT(H->const_floats(ctx, w, 2, 4, f));
    EXPECT(memcmp(f, wanted, sizeof f) == 0);
    EXPECT(H->const_floats(ctx, w, 8, 0, NULL));
    EXPECT(H->const_rest(ctx, w));
    return NULL;
}

typedef struct filling {
    int64_t next;
    int calls;
} filling;

static int fill(void *user, int64_t offset, int64_t bytes, void *data) {
    filling *f = user;
    if (offset != f->next || bytes % 4) return 0;
    float *numbers = data;
    for (int64_t i = 0; i < bytes / 4; i++) numbers[i] = (float)((offset / 4 + i) % 1000);
    f->next += bytes;
    f->calls++;
    return 1;
}

/* 24 MB, which takes more than one piece. */
static const char *large(nb_pass_ctx *ctx) {
    filling f = {0};
    const nb_array shape = {.elem = 1, .rank = 2, .dims = {6000, 1000}};
    nb_value *v = H->make_const_by(ctx, "large", &shape, fill, &f);
    float last[3];
    EXPECT(v && f.next == 24000000 && f.calls == 2);
    EXPECT(H->const_floats(ctx, v, 5999997, 3, last));
    EXPECT((int)last[0] == 997 && (int)last[2] == 999);
    return NULL;
}

static const char *half_floats(nb_pass_ctx *ctx) {
    static const uint16_t bits[3] = {0x3c00, 0x3800, 0xc000}; /* 1, 0.5, -2 */
    nb_value *v = H->make_const(ctx, "h", &(nb_array){10, 1, {3}, bits});
    float f[3];
    EXPECT(v && H->const_floats(ctx, v, 0, 3, f));
    EXPECT((int)(f[0] * 2) == 2 && (int)(f[1] * 2) == 1 && (int)(f[2] * 2) == -4);
    return NULL;
}

/* Codes of 4 bits in groups, with zero points; equal quantizations are one. */
static const char *codes(nb_pass_ctx *ctx) {
    static const float scales[4] = {1, 2, 4, 8};
    static const uint8_t packed[4] = {0x10, 0x32, 0x54, 0x76}, zero_bits[2] = {0x10, 0x10};
    nb_value *s = H->make_const(ctx, "s", &(nb_array){1, 2, {2, 2}, scales}),
             *z = H->make_const(ctx, "z", &(nb_array){21, 2, {2, 2}, zero_bits});
    nb_quant_arg q = {.size = sizeof q, .name = "mine", .storage = "u4", .axis = 0, .group = 2};
    q.scales = s;
    q.zeros = z;
    EXPECT(s && z);
    const char *name = H->make_quant(ctx, &q), *again = H->make_quant(ctx, &q);
    EXPECT(same(name, "mine") && same(again, name));
    nb_value *v = H->make_codes(ctx, "c", &(nb_array){21, 2, {4, 2}, packed}, name);
    float f[8];
    /* Rows 0 and 1: codes 0 1 2 3, zeros 0 1, scales 1 2; rows 2 and 3: 4 5 6 7, 0 1, 4 8. */
    static const float wanted[8] = {0, 0, 2, 4, 16, 32, 24, 48};
    EXPECT(v && H->const_floats(ctx, v, 0, 8, f));
    EXPECT(memcmp(f, wanted, sizeof f) == 0);
    EXPECT(H->build(ctx, H->first_op(ctx->graph), "dequantize", &v, 1, NULL, 0) != NULL);
    return NULL;
}

/* ---- statistics -------------------------------------------------------------------------------
 */

static const char *statistics(nb_pass_ctx *ctx) {
    nb_stats_view s = {.size = sizeof s};
    EXPECT(!H->stats(ctx, H->input(ctx->graph, 0), &s)); /* no layer takes it */
    EXPECT(H->stats(ctx, H->operand(find(ctx, "matmul"), 0), &s));
    EXPECT(s.channels == 4 && s.rows > 0);
    for (int64_t i = 0; i < s.channels; i++) {
        EXPECT(s.low[i] <= s.mean[i] && s.mean[i] <= s.high[i]);
        EXPECT(s.amax[i] >= s.mean_abs[i] && s.low[i] >= s.min && s.high[i] <= s.max);
    }
    EXPECT(s.clip >= s.max);
    return NULL;
}

/* ---- rules ------------------------------------------------------------------------------------
 */

static const char *count_of(nb_pass_ctx *ctx, const char *name, int wanted) {
    int n = 0;
    for (nb_op *op = H->first_op(ctx->graph); op; op = H->next_op(op))
        n += strcmp(H->op_name(op), name) == 0;
    return n == wanted ? NULL : name;
}

static const char *replace(nb_pass_ctx *ctx, const char *rule, int changes) {
    const nb_rewrite_row row = {.size = sizeof row, .name = "row", .rule = rule};
    return H->rewrite(ctx, &row, 1) == changes ? NULL : rule;
}
#define TRY(call)                    \
    do {                             \
        const char *wrong_ = (call); \
        if (wrong_) return wrong_;   \
    } while (0)

static const char *no_match(nb_pass_ctx *ctx) {
    TRY(replace(ctx, "add(x, y) -> x", 0));
    TRY(replace(ctx, "mul(d, d) -> d", 0));           /* two different values */
    TRY(replace(ctx, "mul(@c, x) -> x", 0));          /* no constant */
    TRY(replace(ctx, "mul(x, 1) -> x", 0));           /* no number */
    TRY(replace(ctx, "mul(cast!(_), x) -> x", 0));    /* %d has two uses */
    TRY(replace(ctx, "softmax(softmax(x)) -> x", 0)); /* another op */
    TRY(count_of(ctx, "mul", 1));
    return NULL;
}

/* The right side is built: an op, a number, words in any order; either way round on the left. */
static const char *built(nb_pass_ctx *ctx) {
    TRY(replace(ctx, "mul(reduce_sum(x), x) -> add(neg(x), mul(2.5, x))", 1));
    TRY(count_of(ctx, "reduce_sum", 0));
    TRY(count_of(ctx, "neg", 1));
    TRY(count_of(ctx, "add", 1));
    TRY(count_of(ctx, "mul", 1));
    nb_op *mul = find(ctx, "mul");
    float f = 0;
    EXPECT(H->const_floats(ctx, H->operand(mul, 0), 0, 1, &f) && (int)(f * 2) == 5);
    TRY(replace(ctx, "mul(x, @c) -> div(x, c)", 1));
    TRY(count_of(ctx, "div", 1));
    return NULL;
}

const member members[] = {
    {"attributes", attributes},   {"texts", texts}, {"names", names},
    {"places", places},           {"large", large}, {"numbers-of-codes", numbers_of_codes},
    {"half-floats", half_floats}, {"codes", codes}, {"statistics", statistics},
    {"no-match", no_match},       {"built", built}, {NULL, NULL},
};
