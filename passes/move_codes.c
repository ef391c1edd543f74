/* move-codes: what only moves numbers on their way from codes to codes moves the codes.
 *
 *   requires   stage QDQ
 *   maintains  every bit: codes that are dequantized and quantized again by the same descriptor are
 *              the same codes, and rounding keeps the order of numbers, so that the largest of
 * codes is the code of the largest number
 *
 *   %d: f32[B,S,8] = dequantize %q                         (%q: #a[B,S,8])
 *   %t: f32[B,8,S] = transpose %d {perm=[0,2,1]}
 *   %r: #a[B,8,S] = quantize %t {to=#a}
 * becomes
 *   %c: i8[B,S,8] = codes %q
 *   %t: i8[B,8,S] = transpose %c {perm=[0,2,1]}
 *   %r: #a[B,8,S] = as_codes %t {to=#a}
 *
 * Numbers that were floats before are quantized before they are transposed or padded, not behind:
 * a quarter of the bytes moves, and quantize stands where fuse-dequant makes it part of the
 * product. A relu in front of a quantize whose codes end at 0 is what clipping does anyway. What a
 * sum reads moves as codes too: the patches of an average pooling. */
#include "passes/linear.h"
#include "passes/rewrite.h"

#include <math.h>
#include <string.h>

/* Chains of movement are short. */
#define DEEPEST 64

/* Does one scale hold for the tensor, such that (q - zero) * scale is q - zero steps again? */
static bool is_plain(const nb_quant *q) {
    return q->granularity == NB_PER_TENSOR && !q->scales && nb_elems[q->storage].bits == 8 &&
           q->scale > 1e-30F && q->scale < 1e30F;
}

/* op once more, on other operands. */
static nb_value *again(nb_builder *b, const nb_op *op, nb_value *const *operands) {
    const nb_loc *loc = b->loc;
    b->loc = nb_loc_via(b->graph, op->loc, "move-codes");
    nb_begin(b, op->kind);
    for (uint32_t i = 0; i < op->n_operands; i++) nb_arg(b, operands[i]);
    const nb_op_info *info = nb_info(op);
    for (int a = 0; a < NB_MAX_ATTRS && info->attrs[a].kind != NB_ATTR_END; a++)
        b->op->attrs[a] = op->attrs[a];
    nb_value *y = nb_end(b);
    b->loc = loc;
    return y;
}

static nb_value *code_const(nb_builder *b, nb_elem elem, int64_t code) {
    void *data;
    nb_blob *blob = nb_blob_create(1, &data);
    if (!blob) return NULL;
    nb_elem_put(elem, data, 0, (uint64_t)code);
    return nb_graph_add_const(b->graph, "code", nb_type_intern(b->graph, elem, NULL, 0, NULL), blob,
                              NULL);
}

/* The code of one number, as quantize makes it. */
static int64_t code_of(const nb_quant *q, float v) {
    const double steps = (double)rintf(v / q->scale) + (double)q->zero;
    if (steps < (double)nb_quant_min(q)) return nb_quant_min(q);
    return steps > (double)nb_quant_max(q) ? nb_quant_max(q) : (int64_t)steps;
}

static bool is_number(const nb_value *v, float *out) {
    if (!nb_is_const(v) || v->type->elem != NB_F32 || v->type->quant || v->blob->size != 4)
        return false;
    memcpy(out, v->blob->data, sizeof *out);
    return *out == *out;
}

/* Do codes under q lie behind v, with nothing but movement between? */
static bool comes_from_codes(const nb_value *v, const nb_quant *q, int depth) {
    const nb_op *op = v->def;
    float border = 0;
    if (!op || depth > DEEPEST) return false;
    switch (op->kind) {
    case NB_OP_dequantize:
        return nb_in(op, 0)->type->quant == q;
    case NB_OP_pad:
        if (nb_in(op, 1) && !is_number(nb_in(op, 1), &border)) return false;
        return comes_from_codes(nb_in(op, 0), q, depth + 1);
    case NB_OP_reshape:
    case NB_OP_transpose:
    case NB_OP_slice:
    case NB_OP_expand:
    case NB_OP_patches:
    case NB_OP_relu:
        return comes_from_codes(nb_in(op, 0), q, depth + 1);
    case NB_OP_reduce_max:
    case NB_OP_reduce_min: /* of nothing it is a code that narrow ones do not have */
        return !q->narrow && comes_from_codes(nb_in(op, 0), q, depth + 1);
    case NB_OP_concat:
        for (uint32_t i = 0; i < op->n_operands; i++)
            if (!comes_from_codes(nb_in(op, i), q, depth + DEEPEST / 4)) return false;
        return op->n_operands > 0;
    default:
        return false;
    }
}

/* What comes_from_codes found, as plain codes. */
static nb_value *moved(nb_builder *b, const nb_value *v, const nb_quant *q) {
    const nb_op *op = v->def;
    if (op->kind == NB_OP_dequantize) return nb_unary(b, NB_OP_codes, nb_in(op, 0));
    nb_value **operands =
        (nb_value **)nb_alloc_array(b->graph->arena, op->n_operands, sizeof *operands);
    const bool all = op->kind == NB_OP_concat;
    for (uint32_t i = 0; i < (all ? op->n_operands : 1); i++) {
        operands[i] = moved(b, nb_in(op, i), q);
        if (!operands[i]) return NULL;
    }
    if (op->kind == NB_OP_relu) {
        if (q->zero == nb_quant_min(q)) return operands[0];
        return nb_binary(b, NB_OP_max, operands[0], code_const(b, q->storage, q->zero));
    }
    if (op->kind == NB_OP_pad) {
        float border = 0;
        if (nb_in(op, 1)) is_number(nb_in(op, 1), &border);
        operands[1] = code_const(b, q->storage, code_of(q, border));
    }
    return again(b, op, operands);
}

/* ---- rules ---------------------------------------------------------------------------------- */

/* The dequantize behind which nothing but views, transposes and patches lead to v, or NULL. */
static const nb_op *start_of(const nb_value *v) {
    const nb_op *op = v->def;
    while (
        op &&
        (op->kind == NB_OP_reshape || op->kind == NB_OP_transpose || op->kind == NB_OP_patches) &&
        nb_has_one_use(nb_out(op)))
        op = nb_in(op, 0)->def;
    return op && op->kind == NB_OP_dequantize && !nb_is_const(nb_in(op, 0)) ? op : NULL;
}

static const char *can_sum(const nb_match *m) {
    const nb_value *x = nb_got(m, "x");
    const nb_op *start = start_of(x);
    if (!start || nb_out(start) == x) return "no codes are moved in front of it";
    return is_plain(nb_in(start, 0)->type->quant) ? NULL
                                                  : "the codes have no one scale, or not 8 bits";
}

static nb_value *sum(nb_match *m, nb_builder *b) {
    const nb_quant *q = nb_in(start_of(nb_got(m, "x")), 0)->type->quant;
    nb_value *codes = moved(b, nb_got(m, "x"), q);
    if (!codes) return NULL;
    nb_value *x = nb_unary(b, NB_OP_dequantize, nb_as_codes(b, codes, q));
    return again(b, m->root, &x);
}

static const nb_quant *made(const nb_match *m) { return nb_attr_of(m->root, "to")->quant; }

static const char *can_move(const nb_match *m) {
    if (!is_plain(made(m))) return "the codes have no one scale, or not 8 bits";
    return comes_from_codes(nb_got(m, "x"), made(m), 0) ? NULL
                                                        : "its numbers are no codes of that kind";
}

static nb_value *move(nb_match *m, nb_builder *b) {
    nb_value *x = moved(b, nb_got(m, "x"), made(m));
    return x ? nb_as_codes(b, x, made(m)) : NULL;
}

static const char *can_round_first(const nb_match *m) {
    return is_plain(made(m)) ? NULL : "the codes have no one scale, or not 8 bits";
}

static nb_value *round_first(nb_match *m, nb_builder *b) {
    nb_begin(b, NB_OP_quantize);
    nb_arg(b, nb_got(m, "x"));
    nb_set_quant(b, "to", made(m));
    nb_value *codes = nb_unary(b, NB_OP_codes, nb_end(b));
    return codes ? nb_as_codes(b, again(b, nb_got_op(m, "t"), &codes), made(m)) : NULL;
}

static const char *can_round_inside(const nb_match *m) {
    float border;
    const nb_value *value = nb_in(nb_got_op(m, "t"), 1);
    if (value && !is_number(value, &border)) return "the border is not one number";
    return can_round_first(m);
}

static nb_value *round_inside(nb_match *m, nb_builder *b) {
    const nb_op *pad = nb_got_op(m, "t");
    float border = 0;
    if (nb_in(pad, 1)) is_number(nb_in(pad, 1), &border);
    nb_begin(b, NB_OP_quantize);
    nb_arg(b, nb_got(m, "x"));
    nb_set_quant(b, "to", made(m));
    nb_value *operands[2] = {nb_unary(b, NB_OP_codes, nb_end(b)),
                             code_const(b, made(m)->storage, code_of(made(m), border))};
    if (!operands[0] || !operands[1]) return NULL;
    return nb_as_codes(b, again(b, pad, operands), made(m));
}

static const char *is_clipped_at_zero(const nb_match *m) {
    const nb_quant *q = made(m);
    if (q->granularity != NB_PER_TENSOR || q->scales || !(q->scale > 0))
        return "the codes have no one positive scale";
    return q->zero == nb_quant_min(q) ? NULL : "codes go below 0";
}

static nb_value *without_relu(nb_match *m, nb_builder *b) {
    nb_begin(b, NB_OP_quantize);
    nb_arg(b, nb_got(m, "x"));
    nb_set_quant(b, "to", made(m));
    return nb_end(b);
}

static const char *is_same(const nb_match *m) {
    return nb_got(m, "x")->type == nb_out(m->root)->type ? NULL : "the descriptor changes";
}

static nb_value *to_x(nb_match *m, nb_builder *b) {
    (void)b;
    return nb_got(m, "x");
}

static const nb_rule rules[] = {
    {"move", "quantize(moved(dequantize(q)))  ->  as_codes(moved(codes(q)))",
     PAT_OP("quantize", "", PAT_ANY("x")), .where = can_move, .to = move},
    {"relu", "quantize(relu(x))  ->  quantize(x), the smallest code being 0",
     PAT_OP("quantize", "", PAT_OP("relu", "", PAT_ANY("x"))), .where = is_clipped_at_zero,
     .to = without_relu},
    {"transpose", "quantize(transpose(x))  ->  as_codes(transpose(codes(quantize(x))))",
     PAT_OP("quantize", "", PAT_OP1("transpose", "t", PAT_ANY("x"))), .where = can_round_first,
     .to = round_first},
    {"reshape", "quantize(reshape(x))  ->  as_codes(reshape(codes(quantize(x))))",
     PAT_OP("quantize", "", PAT_OP1("reshape", "t", PAT_ANY("x"))), .where = can_round_first,
     .to = round_first},
    {"pad", "quantize(pad(x))  ->  as_codes(pad(codes(quantize(x))))",
     PAT_OP("quantize", "", PAT_OP1("pad", "t", PAT_ANY("x"))), .where = can_round_inside,
     .to = round_inside},
    {"mean", "reduce_mean(moved(dequantize(q)))  ->  reduce_mean(dequantize(moved(q)))",
     PAT_OP("reduce_mean", "", PAT_ANY("x")), .where = can_sum, .to = sum},
    {"sum", "reduce_sum(moved(dequantize(q)))  ->  reduce_sum(dequantize(moved(q)))",
     PAT_OP("reduce_sum", "", PAT_ANY("x")), .where = can_sum, .to = sum},
    {"there-and-back", "as_codes(codes(q))  ->  q",
     PAT_OP("as_codes", "", PAT_OP("codes", "", PAT_ANY("x"))), .where = is_same, .to = to_x},
    {"back-and-there", "codes(as_codes(x))  ->  x",
     PAT_OP("codes", "", PAT_OP("as_codes", "", PAT_ANY("x"))), .where = is_same, .to = to_x},
};

static nb_pass_result run(nb_pass_ctx *ctx) {
    bool changed = false;
    if (!nb_rewrite_run(ctx, rules, NB_COUNT(rules), &changed)) return NB_PASS_FAILED;
    if (changed) nb_graph_sweep(ctx->graph);
    return nb_pass_end(ctx, changed);
}

const nb_pass nb_pass_move_codes = {
    .size = sizeof(nb_pass),
    .name = "move-codes",
    .run = run,
    .promises = NB_PASS_KEEPS_BITS,
    .summary = "what only moves numbers between codes moves the codes",
};
