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
#define ARRAY(elem_, length, data_) \
    (&(nb_array){.elem = (elem_), .rank = 1, .dims = {length}, .data = (data_)})
#define FOUR ARRAY(1, 4, numbers)

/* ---- constants ------------------------------------------------------------------------------ */

static void const_data_null(nb_pass_ctx *ctx) { H->const_data(ctx, NULL, FOUR); }
static void const_data_input(nb_pass_ctx *ctx) { H->const_data(ctx, x(ctx), FOUR); }
static void const_data_nowhere(nb_pass_ctx *ctx) { H->const_data(ctx, k(ctx), NULL); }
static void make_no_name(nb_pass_ctx *ctx) { H->make_const(ctx, NULL, FOUR); }
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

static void run_invalid(nb_pass_ctx *ctx) {
    H->set_operand(ctx, neg(ctx), 0, H->result(add(ctx), 0)); /* defined below its use */
    H->run(ctx, inputs, NULL, NULL, 0, NULL, NULL);
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

static void report_no_text(nb_pass_ctx *ctx) {
    const char *none = NULL;
    H->report(ctx, NB_LEVEL_ERROR, neg(ctx), none, 0);
}
static void report_level(nb_pass_ctx *ctx) { H->report(ctx, (nb_level)7, neg(ctx), "what"); }
static void report_value_no_text(nb_pass_ctx *ctx) {
    const char *none = NULL;
    H->report_value(ctx, NB_LEVEL_INFO, x(ctx), none, 0);
}
static void help_no_text(nb_pass_ctx *ctx) {
    const char *none = NULL;
    H->help(ctx, none, 0);
}
static void note_no_text(nb_pass_ctx *ctx) {
    const char *none = NULL;
    H->note(ctx, none, 0);
}
static void report_at_value(nb_pass_ctx *ctx) {
    H->report_value(ctx, NB_LEVEL_ERROR, k(ctx), "look at @%s", H->value_name(k(ctx)));
    H->note(ctx, "and at %s", "this");
}
static void refused_no_rule(nb_pass_ctx *ctx) { H->refused(ctx, neg(ctx), NULL, "", "why not"); }
static void refused_no_equation(nb_pass_ctx *ctx) {
    H->refused(ctx, NULL, "rule", NULL, "why not");
}
static void refused_no_text(nb_pass_ctx *ctx) {
    const char *none = NULL;
    H->refused(ctx, NULL, "rule", "", none, 0);
}
static void refused_removed(nb_pass_ctx *ctx) {
    nb_op *op = neg(ctx);
    H->replace_uses(ctx, H->result(op, 0), x(ctx));
    H->remove_op(ctx, op);
    H->refused(ctx, op, "rule", "", "why not");
}
static void scratch_huge(nb_pass_ctx *ctx) { H->scratch(ctx, SIZE_MAX); }
static void sample_nowhere(nb_pass_ctx *ctx) { H->sample(ctx, 0, NULL); }

/* ---- names, places ----------------------------------------------------------------------------
 */

static void name_nobody(nb_pass_ctx *ctx) { H->set_name(ctx, NULL, "a"); }
static void name_null(nb_pass_ctx *ctx) { H->set_name(ctx, x(ctx), NULL); }
static void name_empty(nb_pass_ctx *ctx) { H->set_name(ctx, x(ctx), ""); }
static void move_null(nb_pass_ctx *ctx) { H->move_op(ctx, neg(ctx), NULL); }
static void move_return(nb_pass_ctx *ctx) { H->move_op(ctx, ret(ctx), neg(ctx)); }
static void move_behind(nb_pass_ctx *ctx) { H->move_op(ctx, neg(ctx), ret(ctx)); }
static void set_removed(nb_pass_ctx *ctx) {
    nb_op *op = neg(ctx);
    H->replace_uses(ctx, H->result(op, 0), x(ctx));
    H->remove_op(ctx, op);
    H->set_operand(ctx, op, 0, x(ctx));
}

/* ---- large constants, codes -------------------------------------------------------------------
 */

static float floats[16];
static int give_up(void *user, int64_t offset, int64_t bytes, void *data) {
    (void)user;
    (void)offset;
    (void)bytes;
    (void)data;
    return 0;
}
static void floats_input(nb_pass_ctx *ctx) { H->const_floats(ctx, x(ctx), 0, 1, floats); }
static void floats_beyond(nb_pass_ctx *ctx) { H->const_floats(ctx, k(ctx), 2, 3, floats); }
static void floats_before(nb_pass_ctx *ctx) { H->const_floats(ctx, k(ctx), -1, 1, floats); }
static void floats_overflow(nb_pass_ctx *ctx) {
    H->const_floats(ctx, k(ctx), INT64_MAX, INT64_MAX, floats);
}
static void floats_nowhere(nb_pass_ctx *ctx) { H->const_floats(ctx, k(ctx), 0, 1, NULL); }
static void rest_input(nb_pass_ctx *ctx) { H->const_rest(ctx, x(ctx)); }
static void by_nobody(nb_pass_ctx *ctx) {
    H->make_const_by(ctx, "c", ARRAY(1, 4, NULL), NULL, NULL);
}
static void by_data(nb_pass_ctx *ctx) { H->make_const_by(ctx, "c", FOUR, give_up, NULL); }
static void by_quitter(nb_pass_ctx *ctx) {
    H->make_const_by(ctx, "c", ARRAY(1, 4, NULL), give_up, NULL);
}
#define QUANT(name_, ...)                                                             \
    static void name_(nb_pass_ctx *ctx) {                                             \
        nb_quant_arg q = {.size = sizeof q, .name = "q", .storage = "i8", .axis = 0}; \
        q.scales = k(ctx);                                                            \
        __VA_ARGS__;                                                                  \
        H->make_quant(ctx, &q);                                                       \
    }
QUANT(quant_size, q.size = 4)
QUANT(quant_name, q.name = NULL)
QUANT(quant_storage, q.storage = "f32")
QUANT(quant_storage_unknown, q.storage = "i9")
QUANT(quant_axis, q.axis = 8)
QUANT(quant_no_scales, q.scales = NULL)
QUANT(quant_group, q.axis = -1; q.group = 4)
QUANT(quant_scales, q.scales = x(ctx))
QUANT(quant_amax_axis, q.scales = NULL; q.amax = 127)
QUANT(quant_amax, q.scales = NULL; q.axis = -1; q.amax = 999)
QUANT(quant_scale, q.scales = NULL; q.axis = -1; q.scale = INFINITY)
QUANT(quant_minima, q.minima = x(ctx))
QUANT(quant_both, q.zero = 1; q.minimum = 1)
QUANT(quant_group_negative, q.group = -4)
static void quant_null(nb_pass_ctx *ctx) { H->make_quant(ctx, NULL); }
static const char *good_quant(nb_pass_ctx *ctx) {
    return H->make_quant(ctx, &(nb_quant_arg){.size = sizeof(nb_quant_arg),
                                              .name = "q",
                                              .storage = "i8",
                                              .axis = 0,
                                              .scales = k(ctx)});
}
static void codes_unknown(nb_pass_ctx *ctx) {
    H->make_codes(ctx, "c", ARRAY(3, 4, numbers), "nobody");
}
static void codes_no_quant(nb_pass_ctx *ctx) {
    H->make_codes(ctx, "c", ARRAY(3, 4, numbers), NULL);
}
static void codes_elem(nb_pass_ctx *ctx) { H->make_codes(ctx, "c", FOUR, good_quant(ctx)); }
static void codes_dynamic(nb_pass_ctx *ctx) {
    const char *name = H->make_quant(
        ctx,
        &(nb_quant_arg){
            .size = sizeof(nb_quant_arg), .name = "d", .storage = "i8", .axis = -1, .amax = 127});
    H->make_codes(ctx, "c", ARRAY(3, 4, numbers), name);
}
static void codes_shape(nb_pass_ctx *ctx) {
    H->make_codes(ctx, "c", ARRAY(3, 5, numbers), good_quant(ctx));
}
static void codes_data(nb_pass_ctx *ctx) {
    H->make_codes(ctx, "c", ARRAY(3, 4, NULL), good_quant(ctx));
}

/* ---- statistics, selectors --------------------------------------------------------------------
 */

static void stats_size(nb_pass_ctx *ctx) {
    nb_stats_view view = {.size = 0};
    H->stats(ctx, x(ctx), &view);
}
static void stats_nobody(nb_pass_ctx *ctx) {
    nb_stats_view view = {.size = sizeof view};
    H->stats(ctx, NULL, &view);
}
static void select_unknown(nb_pass_ctx *ctx) { H->selected(ctx, "skip", neg(ctx)); }
static void select_null(nb_pass_ctx *ctx) { H->selected(ctx, NULL, neg(ctx)); }

/* ---- rewriting --------------------------------------------------------------------------------
 */

static nb_value *to_nothing(nb_pass_ctx *ctx, const nb_match *m) {
    (void)ctx;
    (void)m;
    return NULL;
}
static nb_value *to_other_type(nb_pass_ctx *ctx, const nb_match *m) {
    return H->matched(m, "nobody") ? NULL : i64(ctx);
}
static nb_value *to_removed(nb_pass_ctx *ctx, const nb_match *m) {
    nb_op *op = H->matched_op(m);
    H->replace_uses(ctx, H->result(op, 0), x(ctx));
    H->remove_op(ctx, op);
    return x(ctx);
}
static nb_value *to_itself(nb_pass_ctx *ctx, const nb_match *m) {
    nb_value *operand = H->operand(H->matched_op(m), 0);
    return H->build(ctx, H->matched_op(m), "neg", &operand, 1, NULL, 0);
}
static nb_value *to_rewrite(nb_pass_ctx *ctx, const nb_match *m) {
    (void)m;
    H->rewrite(ctx, NULL, 0);
    return NULL;
}
#define ROW(name_, ...)                                                        \
    static void name_(nb_pass_ctx *ctx) {                                      \
        nb_rewrite_row row = {.size = sizeof row, .name = "row", __VA_ARGS__}; \
        H->rewrite(ctx, &row, 1);                                              \
    }
ROW(row_no_rule, .rule = NULL)
ROW(row_no_arrow, .rule = "neg(x)")
ROW(row_no_op, .rule = "x -> x")
ROW(row_unknown_op, .rule = "nonsense(x) -> x")
ROW(row_unknown_word, .rule = "neg(x) -> y")
ROW(row_unclosed, .rule = "neg(x -> x")
ROW(row_more, .rule = "neg(x) -> x x")
ROW(row_empty, .rule = "")
ROW(row_return, .rule = "neg(x) -> return(x)")
ROW(row_names,
    .rule = "where(where(a, b, c), where(d, e, f), add(where(g, h, i), where(j, k, add(l, "
            "m)))) -> a")
ROW(row_deep,
    .rule = "neg(neg(neg(neg(neg(neg(neg(neg(neg(neg(neg(neg(neg(neg(neg(neg(neg(x)))))))))"
            ")))))))) -> x")
ROW(row_operands, .rule = "concat(a, b, c, d, e) -> a")
ROW(row_few, .rule = "neg(x) -> add(x)")
ROW(row_type, .rule = "neg(x) -> and(x, x)")
ROW(row_to_type, .rule = "neg(x) ->", .to = to_other_type)
ROW(row_to_removed, .rule = "neg(x) ->", .to = to_removed)
ROW(row_forever, .rule = "neg(x) ->", .to = to_itself)
ROW(row_inside, .rule = "neg(x) ->", .to = to_rewrite)
static void row_size(nb_pass_ctx *ctx) {
    nb_rewrite_row row = {.size = 4, .name = "row", .rule = "neg(x) -> x"};
    H->rewrite(ctx, &row, 1);
}
static void row_null(nb_pass_ctx *ctx) { H->rewrite(ctx, NULL, 1); }
/* A row that leaves the graph as it is: no error by itself. */
static void row_nothing(nb_pass_ctx *ctx) {
    nb_rewrite_row row = {.size = sizeof row, .name = "row", .rule = "neg(x) ->", .to = to_nothing};
    if (H->rewrite(ctx, &row, 1) != 0) abort();
}

/* ---- operations of one's own ------------------------------------------------------------------
 */

static void call_unknown(nb_pass_ctx *ctx) {
    nb_value *operand = x(ctx);
    H->call(ctx, neg(ctx), "nobody", &operand, 1, NULL, 0);
}
static void call_null(nb_pass_ctx *ctx) { H->call(ctx, neg(ctx), NULL, NULL, 0, NULL, 0); }
static void call_no_place(nb_pass_ctx *ctx) {
    nb_value *operand = x(ctx);
    H->call(ctx, NULL, "twice", &operand, 1, NULL, 0);
}
static void call_few(nb_pass_ctx *ctx) { H->call(ctx, neg(ctx), "twice", NULL, 0, NULL, 0); }
static void call_many(nb_pass_ctx *ctx) {
    nb_value *operands[2] = {x(ctx), x(ctx)};
    H->call(ctx, neg(ctx), "twice", operands, 2, NULL, 0);
}
static void call_operand_null(nb_pass_ctx *ctx) {
    nb_value *operand = NULL;
    H->call(ctx, neg(ctx), "twice", &operand, 1, NULL, 0);
}
static void call_numbers(nb_pass_ctx *ctx) {
    nb_value *operand = x(ctx);
    H->call(ctx, neg(ctx), "twice", &operand, 1, NULL, 3);
}
static void call_refused(nb_pass_ctx *ctx) {
    nb_value *operand = i64(ctx);
    H->call(ctx, neg(ctx), "twice", &operand, 1, NULL, 0);
}
static void call_no_type(nb_pass_ctx *ctx) {
    nb_value *operand = x(ctx);
    const int64_t wrong = 1;
    H->call(ctx, neg(ctx), "twice", &operand, 1, &wrong, 1);
}
static void call_by_build(nb_pass_ctx *ctx) { build(ctx, "call", x(ctx), NULL, 1); }

/* ---- sizes, bodies ----------------------------------------------------------------------------
 */

static void dim_null(nb_pass_ctx *ctx) { H->dim(ctx, NULL, &(nb_dim_view){.size = 24}); }
static void dim_size(nb_pass_ctx *ctx) { H->dim(ctx, "B", &(nb_dim_view){.size = 8}); }
static void dim_nowhere(nb_pass_ctx *ctx) { H->dim(ctx, "B", NULL); }
static void dim_unknown(nb_pass_ctx *ctx) {
    H->dim(ctx, "B+nobody", &(nb_dim_view){.size = sizeof(nb_dim_view)});
}
static void symbol_no_name(nb_pass_ctx *ctx) { H->make_symbol(ctx, "", 0, 4); }
static void symbol_minus(nb_pass_ctx *ctx) { H->make_symbol(ctx, "N", -1, 4); }
static void symbol_empty(nb_pass_ctx *ctx) { H->make_symbol(ctx, "N", 5, 4); }
/* It may stand only where a bind has said it. */
static void symbol_unbound(nb_pass_ctx *ctx) {
    static const char *const start[2] = {"0", "0"};
    static const int64_t step[2] = {1, 1};
    const char *count[2] = {"B", H->make_symbol(ctx, "N", 0, 4)};
    const nb_attr_arg attrs[3] = {{.name = "start", .dims = start, .count = 2},
                                  {.name = "count", .dims = count, .count = 2},
                                  {.name = "step", .ints = step, .count = 2}};
    nb_value *operand = x(ctx);
    H->build(ctx, add(ctx), "slice", &operand, 1, attrs, 3);
}
static nb_body *good_body(nb_pass_ctx *ctx, nb_value **taken) {
    nb_body *body = H->make_body(ctx, NULL);
    nb_value *step = H->body_take(ctx, body, "step", "i64[]");
    *taken = H->body_take(ctx, body, "h", "f32[B,4]");
    if (!step || !*taken || !H->body_return(ctx, body, taken, 1)) abort();
    return body;
}
static nb_value *loop(nb_pass_ctx *ctx, nb_op *before, nb_body *const *bodies, size_t n) {
    static const char *const two[1] = {"2"};
    const nb_attr_arg attrs[2] = {{.name = "count", .dims = two, .count = 1},
                                  {.name = "carried", .i = 1}};
    nb_value *operands[3] = {NULL, NULL, x(ctx)};
    return H->build_with_bodies(ctx, before, "loop", operands, 3, attrs, 2, bodies, n);
}
static void take_null(nb_pass_ctx *ctx) { H->body_take(ctx, NULL, "x", "f32[]"); }
static void take_no_name(nb_pass_ctx *ctx) {
    H->body_take(ctx, H->make_body(ctx, NULL), "", "f32[]");
}
static void take_no_type(nb_pass_ctx *ctx) {
    H->body_take(ctx, H->make_body(ctx, NULL), "x", NULL);
}
static void take_type(nb_pass_ctx *ctx) {
    H->body_take(ctx, H->make_body(ctx, NULL), "x", "f33[B]");
}
static void take_symbol(nb_pass_ctx *ctx) {
    H->body_take(ctx, H->make_body(ctx, NULL), "x", "f32[Z]");
}
static void take_more(nb_pass_ctx *ctx) {
    H->body_take(ctx, H->make_body(ctx, NULL), "x", "f32[B] f32[B]");
}
static void end_null(nb_pass_ctx *ctx) { H->body_end(ctx, NULL); }
static void return_null(nb_pass_ctx *ctx) { H->body_return(ctx, NULL, NULL, 0); }
static void return_no_list(nb_pass_ctx *ctx) {
    H->body_return(ctx, H->make_body(ctx, NULL), NULL, 1);
}
static void return_no_value(nb_pass_ctx *ctx) {
    nb_value *nothing = NULL;
    H->body_return(ctx, H->make_body(ctx, NULL), &nothing, 1);
}
static void return_many(nb_pass_ctx *ctx) {
    nb_value *values[300];
    nb_body *body = good_body(ctx, &values[0]);
    for (int i = 1; i < 300; i++) values[i] = values[0];
    H->body_return(ctx, body, values, 300);
}
static void bodies_none(nb_pass_ctx *ctx) { loop(ctx, add(ctx), NULL, 1); }
static void bodies_few(nb_pass_ctx *ctx) {
    nb_value *h;
    nb_body *body = good_body(ctx, &h);
    loop(ctx, add(ctx), &body, 0);
}
static void bodies_null(nb_pass_ctx *ctx) {
    nb_body *body = NULL;
    loop(ctx, add(ctx), &body, 1);
}
static void bodies_of_none(nb_pass_ctx *ctx) {
    nb_value *h, *operand = x(ctx);
    nb_body *body = good_body(ctx, &h);
    H->build_with_bodies(ctx, add(ctx), "neg", &operand, 1, NULL, 0, &body, 1);
}
static void bodies_no_op(nb_pass_ctx *ctx) {
    nb_value *h;
    nb_body *body = good_body(ctx, &h);
    H->build_with_bodies(ctx, add(ctx), NULL, NULL, 0, NULL, 0, &body, 1);
}
static void bodies_again(nb_pass_ctx *ctx) {
    nb_value *h;
    nb_body *body = good_body(ctx, &h);
    if (!loop(ctx, add(ctx), &body, 1)) abort();
    loop(ctx, add(ctx), &body, 1);
}
static void bodies_inside(nb_pass_ctx *ctx) {
    nb_value *h;
    nb_body *body = good_body(ctx, &h);
    loop(ctx, H->body_end(ctx, body), &body, 1);
}
static void bodies_without(nb_pass_ctx *ctx) {
    nb_value *operands[3] = {NULL, NULL, x(ctx)};
    H->build(ctx, add(ctx), "loop", operands, 3, NULL, 0);
}
static void body_changed(nb_pass_ctx *ctx) {
    nb_value *h;
    nb_body *body = good_body(ctx, &h);
    if (!loop(ctx, add(ctx), &body, 1)) abort();
    H->body_take(ctx, body, "late", "f32[]");
}
static void body_types(nb_pass_ctx *ctx) {
    nb_value *h, *v;
    nb_body *body = good_body(ctx, &h);
    v = H->build(ctx, H->body_end(ctx, body), "lt", (nb_value *[]){h, h}, 2, NULL, 0);
    H->body_return(ctx, body, &v, 1);
    loop(ctx, add(ctx), &body, 1);
}
/* What is outside is no business of a body, nor the other way round. */
static void body_sees(nb_pass_ctx *ctx) {
    nb_value *h, *outside[2] = {x(ctx), NULL};
    nb_body *body = good_body(ctx, &h);
    outside[1] = h;
    nb_value *v = H->build(ctx, H->body_end(ctx, body), "add", outside, 2, NULL, 0);
    H->body_return(ctx, body, &v, 1);
    loop(ctx, add(ctx), &body, 1);
}
static void body_used(nb_pass_ctx *ctx) {
    nb_value *h;
    good_body(ctx, &h);
    H->set_operand(ctx, add(ctx), 0, h);
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
    right = right && !H->body_count(NULL) && !H->body_first_op(NULL, 0) &&
            !H->body_first_op(neg(ctx), 0) && !H->body_input_count(neg(ctx), 0) &&
            !H->body_input(neg(ctx), 0, 0) && !H->parent_op(NULL) && !H->parent_op(neg(ctx)) &&
            !H->attr_text(ctx, NULL, "axis") && !H->attr_text(ctx, neg(ctx), NULL) &&
            !H->attr_text(ctx, neg(ctx), "axis") && !*H->value_dim_text(ctx, NULL, 0) &&
            !*H->value_dim_text(ctx, x(ctx), 2) && !*H->value_quant(NULL) &&
            !*H->value_quant(x(ctx)) && !H->matched(NULL, "x") && !H->matched_op(NULL) &&
            !H->attr_int(neg(ctx), "axis", NULL) && !H->attr_ints(neg(ctx), "perm", NULL, NULL);
    nb_quant_arg quant = {.size = sizeof quant};
    right = right && !H->body_output_count(NULL, 0) && !H->body_output(NULL, 0, 0) &&
            !H->body_output(neg(ctx), 0, 0) && !H->quant(NULL, "q", &quant) &&
            !H->quant(ctx->graph, NULL, &quant) && !H->quant(ctx->graph, "q", NULL) &&
            !H->symbol(ctx, 9) && !*H->elem_text(0) && !H->elem_bits(999) && !H->elem_named(NULL);
    nb_stats_view view = {.size = sizeof view};
    right = right && !H->stats(ctx, x(ctx), &view) && H->const_rest(ctx, k(ctx));
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
    {"run-invalid", "the graph is not valid as it is now", run_invalid},
    {"run-no-function", "host->run", run_no_function},
    {"fact-no-name", "host->fact", fact_no_name},
    {"fact-nan", "host->fact", fact_nan},
    {"report-no-text", "host->report:", report_no_text},
    {"report-level", "host->report:", report_level},
    {"report-value-no-text", "host->report_value", report_value_no_text},
    {"help-no-text", "host->help", help_no_text},
    {"note-no-text", "host->note", note_no_text},
    {"refused-no-rule", "host->refused", refused_no_rule},
    {"refused-no-equation", "host->refused", refused_no_equation},
    {"refused-no-text", "host->refused", refused_no_text},
    {"refused-removed", "host->refused", refused_removed},
    {"report-at-value", "look at @k", report_at_value},
    {"scratch-huge", "host->scratch", scratch_huge},
    {"sample-nowhere", "without giving a reason", sample_nowhere},
    {"name-nobody", "host->set_name", name_nobody},
    {"name-null", "host->set_name", name_null},
    {"name-empty", "host->set_name", name_empty},
    {"move-null", "host->move_op", move_null},
    {"move-return", "host->move_op", move_return},
    {"move-behind", "", move_behind},
    {"set-removed", "host->set_operand", set_removed},
    {"floats-input", "host->const_floats", floats_input},
    {"floats-beyond", "'k' has 4 elements, not 3 from 2 on", floats_beyond},
    {"floats-before", "host->const_floats", floats_before},
    {"floats-overflow", "host->const_floats", floats_overflow},
    {"floats-nowhere", "host->const_floats", floats_nowhere},
    {"rest-input", "host->const_rest", rest_input},
    {"by-nobody", "host->make_const_by", by_nobody},
    {"by-data", "host->make_const_by", by_data},
    {"by-quitter", "gave up at byte 0 of 16", by_quitter},
    {"quant-size", "host->make_quant", quant_size},
    {"quant-name", "host->make_quant", quant_name},
    {"quant-storage", "the storage is neither", quant_storage},
    {"quant-storage-unknown", "host->make_quant", quant_storage_unknown},
    {"quant-axis", "host->make_quant", quant_axis},
    {"quant-no-scales", "scales are missing", quant_no_scales},
    {"quant-group", "host->make_quant", quant_group},
    {"quant-scales", "scales are not a constant", quant_scales},
    {"quant-amax-axis", "host->make_quant", quant_amax_axis},
    {"quant-amax", "the largest code is out of the storage's range", quant_amax},
    {"quant-scale", "the scale is 0 or not finite", quant_scale},
    {"quant-minima", "minima are not a constant", quant_minima},
    {"quant-both", "zero points and minima exclude each other", quant_both},
    {"quant-group-negative", "the group's length is not positive", quant_group_negative},
    {"quant-null", "host->make_quant", quant_null},
    {"codes-unknown", "found 'nobody'", codes_unknown},
    {"codes-no-quant", "host->make_codes", codes_no_quant},
    {"codes-elem", "host->make_codes", codes_elem},
    {"codes-dynamic", "whose scales are constants, found 'd'", codes_dynamic},
    {"codes-shape", "host->make_codes", codes_shape},
    {"codes-data", "host->make_codes", codes_data},
    {"stats-size", "host->stats", stats_size},
    {"stats-nobody", "host->stats", stats_nobody},
    {"select-unknown", "host->selected", select_unknown},
    {"select-null", "host->selected", select_null},
    {"row-no-rule", "a row lacks a member", row_no_rule},
    {"row-no-arrow", "expected '->'", row_no_arrow},
    {"row-no-op", "the left side is no operation", row_no_op},
    {"row-unknown-op", "there is no operation 'nonsense'", row_unknown_op},
    {"row-unknown-word", "'y' is not named on the left", row_unknown_word},
    {"row-unclosed", "expected ',' or ')'", row_unclosed},
    {"row-more", "expected the end", row_more},
    {"row-empty", "expected a name", row_empty},
    {"row-return", "'return' has not one result", row_return},
    {"row-names", "a rule has at most 12 names", row_names},
    {"row-deep", "too deep", row_deep},
    {"row-operands", "more than 4 operands", row_operands},
    {"row-few", "wrong number of operands (1)", row_few},
    {"row-type", "and", row_type},
    {"row-to-type", "puts i64[2] in the place of f32[B,4]", row_to_type},
    {"row-to-removed", "removed the op that it replaces", row_to_removed},
    {"row-forever", "do not come to an end", row_forever},
    {"row-inside", "rewrites while it is applied", row_inside},
    {"row-size", "a row lacks a member", row_size},
    {"row-null", "host->rewrite", row_null},
    {"row-nothing", "without giving a reason", row_nothing},
    {"call-unknown", "found 'nobody'", call_unknown},
    {"call-null", "host->call", call_null},
    {"call-no-place", "host->call", call_no_place},
    {"call-few", "'twice' takes 1 operands, found 0", call_few},
    {"call-many", "'twice' takes 1 operands, found 2", call_many},
    {"call-operand-null", "operand 0 of 'twice' is NULL", call_operand_null},
    {"call-numbers", "host->call", call_numbers},
    {"call-refused", "'twice' does not take these operands: it is not f32", call_refused},
    {"call-no-type", "the shape rule of 'twice' gives no type", call_no_type},
    {"call-by-build", "host->call", call_by_build},
    {"dim-null", "host->dim", dim_null},
    {"dim-size", "host->dim", dim_size},
    {"dim-nowhere", "host->dim", dim_nowhere},
    {"dim-unknown", "symbol 'nobody'", dim_unknown},
    {"symbol-no-name", "host->make_symbol", symbol_no_name},
    {"symbol-minus", "found -1..4", symbol_minus},
    {"symbol-empty", "found 5..4", symbol_empty},
    {"symbol-unbound", "N", symbol_unbound},
    {"take-null", "host->body_take", take_null},
    {"take-no-name", "host->body_take", take_no_name},
    {"take-no-type", "host->body_take", take_no_type},
    {"take-type", "there is no element type 'f33'", take_type},
    {"take-symbol", "symbol 'Z'", take_symbol},
    {"take-more", "expected the end of the type", take_more},
    {"end-null", "host->body_end", end_null},
    {"return-null", "host->body_return", return_null},
    {"return-no-list", "host->body_return", return_no_list},
    {"return-no-value", "host->body_return", return_no_value},
    {"return-many", "at most 257 values", return_many},
    {"bodies-none", "'loop' has 1 bodies, found 0", bodies_none},
    {"bodies-few", "'loop' has 1 bodies, found 0", bodies_few},
    {"bodies-null", "host->build_with_bodies", bodies_null},
    {"bodies-of-none", "'neg' has 0 bodies, found 1", bodies_of_none},
    {"bodies-no-op", "'NULL' has 0 bodies", bodies_no_op},
    {"bodies-again", "that no op has got yet", bodies_again},
    {"bodies-inside", "'loop' would stand in its own body", bodies_inside},
    {"bodies-without", "expected 1 bodies, found 0", bodies_without},
    {"body-changed", "host->body_take", body_changed},
    {"body-types", "in one step and", body_types},
    {"body-sees", "", body_sees},
    {"body-used", "is used outside of it", body_used},
    {"error-then-warning", "error-then-warning: the first", error_then_warning},
    {"silent", "failed without giving a reason", silent},
    {"ask-nothing", "failed without giving a reason", ask_nothing},
    {NULL, NULL, NULL},
};
