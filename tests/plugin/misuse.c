/* See misuse.h. The graph: %x f32[B,4], %i i64[2]; neg, mul by @k, exp, return of two outputs. */
#include "tests/plugin/misuse.h"

#include <math.h>
#include <stdlib.h>

#define H (ctx->host)

/* The ops in order. */
static nb_op *nth_op(nb_pass_ctx *ctx, int n) {
    nb_op *op = H->first_op(ctx->graph);
    while (n-- > 0) op = H->next_op(op);
    return op;
}
static nb_op *neg(nb_pass_ctx *ctx) { return nth_op(ctx, 0); }
static nb_op *add(nb_pass_ctx *ctx) { return nth_op(ctx, 1); }
static nb_op *ret(nb_pass_ctx *ctx) { return nth_op(ctx, 3); }
static nb_value *x(nb_pass_ctx *ctx) { return H->input(ctx->graph, 0); }
static nb_value *i64(nb_pass_ctx *ctx) { return H->input(ctx->graph, 1); }
static nb_value *k(nb_pass_ctx *ctx) { return H->operand(add(ctx), 1); }

static const float numbers[16];
#define ARRAY(...) (&(nb_array){.elem = 1, .rank = 1, .dims = {4}, .data = numbers, __VA_ARGS__})

/* ---- constants ------------------------------------------------------------------------------ */

static void const_data_null(nb_pass_ctx *ctx) { H->const_data(ctx, NULL, ARRAY()); }
static void const_data_input(nb_pass_ctx *ctx) { H->const_data(ctx, x(ctx), ARRAY()); }
static void const_data_nowhere(nb_pass_ctx *ctx) { H->const_data(ctx, k(ctx), NULL); }
static void make_no_name(nb_pass_ctx *ctx) { H->make_const(ctx, NULL, ARRAY()); }
static void make_no_array(nb_pass_ctx *ctx) { H->make_const(ctx, "c", NULL); }

#define MAKE(name, ...) \
    static void name(nb_pass_ctx *ctx) { H->make_const(ctx, "c", &(nb_array){__VA_ARGS__}); }
MAKE(make_no_data, .elem = 1, .rank = 1, .dims = {4})
MAKE(make_rank_9, .elem = 1, .rank = 9, .data = numbers)
MAKE(make_rank_minus, .elem = 1, .rank = -1, .data = numbers)
MAKE(make_dim_minus, .elem = 1, .rank = 1, .dims = {-4}, .data = numbers)
MAKE(make_elem, .elem = 999, .rank = 1, .dims = {4}, .data = numbers)
MAKE(make_elem_minus, .elem = -1, .rank = 1, .dims = {4}, .data = numbers)
MAKE(make_elem_string, .elem = 8, .rank = 1, .dims = {4}, .data = numbers)
MAKE(make_huge, .elem = 1, .rank = 2, .dims = {INT64_MAX, 2}, .data = numbers)
MAKE(make_bytes, .elem = 1, .rank = 1, .dims = {INT64_MAX}, .data = numbers)

/* ---- build ---------------------------------------------------------------------------------- */

static void build(nb_pass_ctx *ctx, const char *op, nb_value *a, nb_value *b, size_t n) {
    nb_value *operands[3] = {a, b, a};
    H->build(ctx, add(ctx), op, operands, n, NULL, 0);
}
static void build_nothing(nb_pass_ctx *ctx) { build(ctx, NULL, x(ctx), x(ctx), 1); }
static void build_unknown(nb_pass_ctx *ctx) { build(ctx, "nonsense", x(ctx), x(ctx), 1); }
static void build_return(nb_pass_ctx *ctx) { build(ctx, "return", x(ctx), x(ctx), 1); }
static void build_few(nb_pass_ctx *ctx) { build(ctx, "add", x(ctx), NULL, 1); }
static void build_many(nb_pass_ctx *ctx) { build(ctx, "add", x(ctx), x(ctx), 3); }
static void build_null(nb_pass_ctx *ctx) { build(ctx, "add", x(ctx), NULL, 2); }
static void build_types(nb_pass_ctx *ctx) { build(ctx, "add", x(ctx), i64(ctx), 2); }
static void build_no_place(nb_pass_ctx *ctx) {
    nb_value *operands[1] = {x(ctx)};
    H->build(ctx, NULL, "neg", operands, 1, NULL, 0);
}
static void build_no_list(nb_pass_ctx *ctx) { H->build(ctx, add(ctx), "neg", NULL, 1, NULL, 0); }
static void build_no_attrs(nb_pass_ctx *ctx) {
    nb_value *operands[1] = {x(ctx)};
    H->build(ctx, add(ctx), "neg", operands, 1, NULL, 2);
}
static void build_at_removed(nb_pass_ctx *ctx) {
    nb_op *op = neg(ctx);
    nb_value *operands[1] = {x(ctx)};
    H->replace_uses(ctx, H->result(op, 0), x(ctx));
    H->remove_op(ctx, op);
    H->build(ctx, op, "neg", operands, 1, NULL, 0);
}

#define ATTR(name_, op_, ...)                                \
    static void name_(nb_pass_ctx *ctx) {                    \
        nb_value *operands[1] = {x(ctx)};                    \
        nb_attr_arg attr = {__VA_ARGS__};                    \
        H->build(ctx, add(ctx), op_, operands, 1, &attr, 1); \
    }
static const char *const dims_bad[] = {"B", "no such thing"};
static const char *const dims_null[] = {"B", NULL};
static const char *const dims_long[] = {"99999999999999999999", "4"};
static const int64_t perm_bad[] = {0, 7};
ATTR(attr_unknown, "reshape", .name = "colour", .i = 1)
ATTR(attr_no_name, "reshape", .i = 1)
ATTR(attr_no_ints, "transpose", .name = "perm", .count = 2)
ATTR(attr_perm, "transpose", .name = "perm", .ints = perm_bad, .count = 2)
ATTR(attr_missing, "transpose", .name = "perm", .ints = perm_bad, .count = 0)
ATTR(attr_no_dims, "reshape", .name = "shape", .count = 2)
ATTR(attr_dims_null, "reshape", .name = "shape", .dims = dims_null, .count = 2)
ATTR(attr_dims_bad, "reshape", .name = "shape", .dims = dims_bad, .count = 2)
ATTR(attr_dims_long, "reshape", .name = "shape", .dims = dims_long, .count = 2)
ATTR(attr_elem_null, "cast", .name = "to")
ATTR(attr_elem, "cast", .name = "to", .s = "f33")
ATTR(attr_quant_null, "quantize", .name = "to")
ATTR(attr_quant, "quantize", .name = "to", .s = "nobody")
ATTR(attr_axis, "softmax", .name = "axis", .i = 99)

/* ---- edits ---------------------------------------------------------------------------------- */

static void set_no_op(nb_pass_ctx *ctx) { H->set_operand(ctx, NULL, 0, x(ctx)); }
static void set_slot(nb_pass_ctx *ctx) { H->set_operand(ctx, add(ctx), 2, x(ctx)); }
static void set_null(nb_pass_ctx *ctx) { H->set_operand(ctx, add(ctx), 0, NULL); }
static void set_type(nb_pass_ctx *ctx) { H->set_operand(ctx, add(ctx), 0, i64(ctx)); }
static void set_later(nb_pass_ctx *ctx) {
    H->set_operand(ctx, neg(ctx), 0, H->result(add(ctx), 0)); /* defined below its use */
}
static void replace_null(nb_pass_ctx *ctx) { H->replace_uses(ctx, x(ctx), NULL); }
static void replace_nobody(nb_pass_ctx *ctx) { H->replace_uses(ctx, NULL, x(ctx)); }
static void replace_type(nb_pass_ctx *ctx) { H->replace_uses(ctx, x(ctx), i64(ctx)); }
static void remove_null(nb_pass_ctx *ctx) { H->remove_op(ctx, NULL); }
static void remove_return(nb_pass_ctx *ctx) { H->remove_op(ctx, ret(ctx)); }
static void remove_used(nb_pass_ctx *ctx) { H->remove_op(ctx, neg(ctx)); }
static void remove_twice(nb_pass_ctx *ctx) {
    nb_op *op = neg(ctx);
    H->replace_uses(ctx, H->result(op, 0), x(ctx));
    H->remove_op(ctx, op);
    H->remove_op(ctx, op);
}

/* ---- numbers -------------------------------------------------------------------------------- */

static const int64_t indices[2];
static void seen(void *user, const nb_value *value, const nb_array *array) {
    (void)user;
    (void)value;
    (void)array;
}
#define INPUTS                                                 \
    {.elem = 1, .rank = 2, .dims = {1, 4}, .data = numbers}, { \
        .elem = 7, .rank = 1, .dims = {2}, .data = indices     \
    }
static const nb_array inputs[2] = {INPUTS};
static void run_nothing(nb_pass_ctx *ctx) { H->run(ctx, NULL, NULL, NULL, 0, NULL, NULL); }
static void run_no_data(nb_pass_ctx *ctx) {
    nb_array bad[2] = {INPUTS};
    bad[0].data = NULL;
    H->run(ctx, bad, NULL, NULL, 0, NULL, NULL);
}
static void run_shape(nb_pass_ctx *ctx) {
    nb_array bad[2] = {INPUTS};
    bad[0].dims[1] = 3;
    H->run(ctx, bad, NULL, NULL, 0, NULL, NULL);
}
static void run_elem(nb_pass_ctx *ctx) {
    nb_array bad[2] = {INPUTS};
    bad[0].elem = 6;
    H->run(ctx, bad, NULL, NULL, 0, NULL, NULL);
}
static void run_rank(nb_pass_ctx *ctx) {
    nb_array bad[2] = {INPUTS};
    bad[0].rank = 1;
    H->run(ctx, bad, NULL, NULL, 0, NULL, NULL);
}
static void run_no_taps(nb_pass_ctx *ctx) { H->run(ctx, inputs, NULL, NULL, 1, seen, NULL); }
static void run_null_tap(nb_pass_ctx *ctx) {
    const nb_value *taps[1] = {NULL};
    H->run(ctx, inputs, NULL, taps, 1, seen, NULL);
}
static void run_no_function(nb_pass_ctx *ctx) {
    const nb_value *taps[1] = {x(ctx)};
    H->run(ctx, inputs, NULL, taps, 1, NULL, NULL);
}

/* ---- talking -------------------------------------------------------------------------------- */

static void fact_no_name(nb_pass_ctx *ctx) { H->fact(ctx, neg(ctx), NULL, 1); }
static void fact_nan(nb_pass_ctx *ctx) { H->fact(ctx, NULL, "alpha", (double)NAN); }
static void silent(nb_pass_ctx *ctx) { (void)ctx; }
static void error_then_warning(nb_pass_ctx *ctx) {
    H->report(ctx, NB_LEVEL_ERROR, neg(ctx), "the first");
    H->help(ctx, "do %d things", 2);
    H->report(ctx, NB_LEVEL_WARNING, NULL, "the second");
}

/* Questions about nothing have neutral answers; none of these is an error by itself. */
static void ask_nothing(nb_pass_ctx *ctx) {
    int64_t n;
    double f;
    size_t count;
    const int64_t *ints;
    const nb_array *sample;
    int right = !H->first_op(NULL) && !H->next_op(NULL) && !*H->op_name(NULL) &&
                !*H->op_node(NULL) && !*H->op_text(ctx, NULL) && !H->operand_count(NULL) &&
                !H->operand(NULL, 0) && !H->result_count(NULL) && !H->result(NULL, 0) &&
                !H->defining_op(NULL) && !H->use_count(NULL) && !H->user(NULL, 0) &&
                !*H->value_name(NULL) && !H->value_elem(NULL) && H->value_rank(NULL) == -1 &&
                H->value_dim(NULL, 0) == -1 && !*H->value_type(ctx, NULL) && !H->is_const(NULL) &&
                !H->is_quantized(NULL) && !H->attr_int(NULL, "axis", &n) &&
                !H->attr_float(NULL, "eps", &f) && !H->attr_ints(NULL, "perm", &ints, &count) &&
                !H->input_count(NULL) && !H->input(NULL, 0) && !H->output_count(NULL) &&
                !H->output(NULL, 0);
    right = right && !H->operand(neg(ctx), 1) && !H->result(neg(ctx), 1) &&
            !H->input(ctx->graph, 2) && !H->output(ctx->graph, 2) && !H->user(x(ctx), 99) &&
            H->value_dim(x(ctx), -1) == -1 && H->value_dim(x(ctx), 2) == -1 &&
            !H->attr_int(neg(ctx), "axis", &n) && !H->attr_int(neg(ctx), NULL, &n) &&
            !H->sample_count(ctx) && !H->sample(ctx, 0, &sample) && !H->query(ctx, "nb.none/1") &&
            !H->query(ctx, NULL);
    if (!right) abort();
}

const misuse misuses[] = {
    {"const-data-null", "host->const_data", const_data_null},
    {"const-data-input", "'x' is not a constant", const_data_input},
    {"const-data-nowhere", "host->const_data", const_data_nowhere},
    {"make-no-name", "host->make_const", make_no_name},
    {"make-no-array", "host->make_const", make_no_array},
    {"make-no-data", "host->make_const", make_no_data},
    {"make-rank-9", "host->make_const", make_rank_9},
    {"make-rank-minus", "host->make_const", make_rank_minus},
    {"make-dim-minus", "host->make_const", make_dim_minus},
    {"make-elem", "host->make_const", make_elem},
    {"make-elem-minus", "host->make_const", make_elem_minus},
    {"make-elem-string", "host->make_const", make_elem_string},
    {"make-huge", "host->make_const", make_huge},
    {"make-bytes", "host->make_const", make_bytes},
    {"build-nothing", "host->build", build_nothing},
    {"build-unknown", "found 'nonsense'", build_unknown},
    {"build-return", "host->build", build_return},
    {"build-few", "wrong number of operands (1)", build_few},
    {"build-many", "wrong number of operands (3)", build_many},
    {"build-null", "host->build", build_null},
    {"build-types", "add", build_types},
    {"build-no-place", "host->build", build_no_place},
    {"build-no-list", "host->build", build_no_list},
    {"build-no-attrs", "host->build", build_no_attrs},
    {"build-at-removed", "host->build", build_at_removed},
    {"attr-unknown", "attribute 'colour' of 'reshape'", attr_unknown},
    {"attr-no-name", "attribute 'NULL'", attr_no_name},
    {"attr-no-ints", "attribute 'perm' of 'transpose'", attr_no_ints},
    {"attr-perm", "transpose", attr_perm},
    {"attr-missing", "transpose", attr_missing},
    {"attr-no-dims", "attribute 'shape' of 'reshape'", attr_no_dims},
    {"attr-dims-null", "attribute 'shape' of 'reshape'", attr_dims_null},
    {"attr-dims-bad", "attribute 'shape' of 'reshape'", attr_dims_bad},
    {"attr-dims-long", "attribute 'shape' of 'reshape'", attr_dims_long},
    {"attr-elem-null", "attribute 'to' of 'cast'", attr_elem_null},
    {"attr-elem", "attribute 'to' of 'cast'", attr_elem},
    {"attr-quant-null", "attribute 'to' of 'quantize'", attr_quant_null},
    {"attr-quant", "attribute 'to' of 'quantize'", attr_quant},
    {"attr-axis", "softmax", attr_axis},
    {"set-no-op", "host->set_operand", set_no_op},
    {"set-slot", "no operand 2", set_slot},
    {"set-null", "host->set_operand", set_null},
    {"set-type", "host->set_operand", set_type},
    {"set-later", "", set_later},
    {"replace-null", "host->replace_uses", replace_null},
    {"replace-nobody", "host->replace_uses", replace_nobody},
    {"replace-type", "host->replace_uses", replace_type},
    {"remove-null", "host->remove_op", remove_null},
    {"remove-return", "host->remove_op", remove_return},
    {"remove-used", "result 'n' is still used", remove_used},
    {"remove-twice", "host->remove_op", remove_twice},
    {"run-nothing", "host->run", run_nothing},
    {"run-no-data", "input 0 is not a tensor with data", run_no_data},
    {"run-shape", "", run_shape},
    {"run-elem", "", run_elem},
    {"run-rank", "", run_rank},
    {"run-no-taps", "host->run", run_no_taps},
    {"run-null-tap", "host->run", run_null_tap},
    {"run-no-function", "host->run", run_no_function},
    {"fact-no-name", "host->fact", fact_no_name},
    {"fact-nan", "host->fact", fact_nan},
    {"error-then-warning", "error-then-warning: the first", error_then_warning},
    {"silent", "failed without giving a reason", silent},
    {"ask-nothing", "failed without giving a reason", ask_nothing},
    {NULL, NULL, NULL},
};
