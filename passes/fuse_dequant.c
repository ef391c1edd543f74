/* fuse-dequant: computes on the integers instead of converting them back first.
 *
 *   requires   stage QDQ or FLOAT
 *   maintains  every bit of the result: a matmul of two dequantized tensors is *defined* as the
 *              qmatmul (ir/NUMBERS.md), and bias and residual are the same rounded additions
 *
 *   %y: f32[B,2] = matmul %n.d, %w.d         (dequantize of %n.q and of @w.q)
 *   %z: f32[B,2] = add %y, @bias
 * becomes
 *   %z: f32[B,2] = qmatmul %n.q, @w.q, bias=@bias
 *
 * Depthwise convolutions of dequantized tensors likewise are qdepthwise, with the bias they have.
 *
 * Where the result is quantized by one scale, the product makes the codes. Codes of patches are
 * made without the patches themselves (qpatches).
 *
 * Where only the weights are codes, the product of floats reads them as they are. */
#include "passes/linear.h"
#include "passes/rewrite.h"

static const char *can_fuse_matmul(const nb_match *m) {
    const nb_value *a = nb_got(m, "a"), *b = nb_got(m, "b");
    if (!nb_is_const(b) || b->type->rank != 2) return "the right operand is not a constant matrix";
    if (a->type->rank < 1) return "the left operand is a scalar";
    return nb_product_obstacle(a->type->quant, b->type->quant, b->type->dims[0]->value);
}

static nb_value *qmatmul(nb_builder *b, nb_value *a, nb_value *w, nb_value *bias,
                         nb_value *residual) {
    nb_begin(b, NB_OP_qmatmul);
    nb_arg(b, a);
    nb_arg(b, w);
    nb_arg(b, bias);
    nb_arg(b, residual);
    return nb_end(b);
}

static nb_value *to_qmatmul(nb_match *m, nb_builder *b) {
    return qmatmul(b, nb_got(m, "a"), nb_got(m, "b"), NULL, NULL);
}

static const char *can_fuse_depthwise(const nb_match *m) {
    const nb_type *w = nb_got(m, "b")->type;
    int64_t n;
    if (!nb_type_static_count(w, &n) || n == 0) return "there are no weights";
    return nb_depthwise_obstacle(nb_got(m, "a")->type->quant, w->quant, w->rank - 1,
                                 n / w->dims[w->rank - 1]->value);
}

static void copy_ints(nb_builder *b, const nb_op *op, const char *const *names, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const nb_attr *a = nb_attr_of(op, names[i]);
        if (a->set) nb_set_ints(b, names[i], a->ints.count, a->ints.items);
    }
}

static const char *const steps[] = {"strides", "dilations"};

static nb_value *to_qdepthwise(nb_match *m, nb_builder *b) {
    nb_begin(b, NB_OP_qdepthwise);
    nb_arg(b, nb_got(m, "a"));
    nb_arg(b, nb_got(m, "b"));
    nb_arg(b, nb_in(m->root, 2));
    nb_arg(b, NULL);
    copy_ints(b, m->root, steps, NB_COUNT(steps));
    return nb_end(b);
}

static const char *can_multiply_floats(const nb_match *m) {
    const nb_value *a = nb_got(m, "a"), *b = nb_got(m, "b");
    if (b->type->rank != 2) return "the right operand is not a matrix";
    if (a->def && a->def->kind == NB_OP_dequantize &&
        !nb_product_obstacle(nb_in(a->def, 0)->type->quant, b->type->quant,
                             b->type->dims[0]->value))
        return "it is a product of codes";
    return NULL;
}

static nb_value *to_product_with_codes(nb_match *m, nb_builder *b) {
    return nb_binary(b, NB_OP_matmul, nb_got(m, "a"), nb_got(m, "b"));
}

static const char *can_add_bias(const nb_match *m) {
    const nb_op *q = nb_got_op(m, "q");
    const nb_value *bias = nb_got(m, "bias"), *w = nb_in(q, 1);
    if (nb_in(q, 2) || nb_in(q, 3)) return "it has a bias or a residual already";
    if (bias->type->quant || bias->type->elem != NB_F32 || bias->type->rank != 1)
        return "the addend is not a vector of f32";
    return bias->type->dims[0] == w->type->dims[1]
               ? NULL
               : "the addend is not as long as the layer is wide";
}

static nb_value *add_bias(nb_match *m, nb_builder *b) {
    const nb_op *q = nb_got_op(m, "q");
    return qmatmul(b, nb_in(q, 0), nb_in(q, 1), nb_got(m, "bias"), NULL);
}

static const char *can_add_residual(const nb_match *m) {
    const nb_op *q = nb_got_op(m, "q");
    const nb_value *r = nb_got(m, "r");
    if (nb_in(q, 3)) return "it has a residual already";
    return r->type == nb_out(q)->type ? NULL : "the addend has another shape";
}

static nb_value *add_residual(nb_match *m, nb_builder *b) {
    const nb_op *q = nb_got_op(m, "q");
    return qmatmul(b, nb_in(q, 0), nb_in(q, 1), nb_in(q, 2), nb_got(m, "r"));
}

static const char *can_round(const nb_match *m) {
    const nb_op *q = nb_got_op(m, "q");
    const nb_quant *to = nb_attr_of(m->root, "to")->quant;
    if (nb_attr_bool(q, "sums")) return "it gives the sums themselves";
    if (to->granularity != NB_PER_TENSOR) return "the codes have no one scale for the tensor";
    return to->storage == NB_I8 || to->storage == NB_U8 ? NULL : "the codes are not i8 or u8";
}

static nb_value *round_product(nb_match *m, nb_builder *b) {
    const nb_op *q = nb_got_op(m, "q");
    nb_begin(b, q->kind);
    for (uint32_t i = 0; i < q->n_operands; i++) nb_arg(b, nb_in(q, i));
    nb_set_quant(b, "to", nb_attr_of(m->root, "to")->quant);
    if (q->kind == NB_OP_qdepthwise) copy_ints(b, q, steps, NB_COUNT(steps));
    return nb_end(b);
}

static const char *can_fuse_gather(const nb_match *m) {
    const nb_value *t = nb_got(m, "t");
    const nb_quant *q = t->type->quant;
    if (nb_attr_int(m->root, "axis") != 0) return "it looks up along another axis than the first";
    if (!nb_is_const(t)) return "the table is not a constant";
    bool rows = (q->granularity == NB_PER_AXIS && q->axis == 0) ||
                q->granularity == NB_PER_TENSOR ||
                (q->granularity == NB_PER_GROUP && q->axis == t->type->rank - 1);
    return rows ? NULL : "the table's scales are not per row, or groups along its rows";
}

static nb_value *to_qgather(nb_match *m, nb_builder *b) {
    nb_begin(b, NB_OP_qgather);
    nb_arg(b, nb_got(m, "t"));
    nb_arg(b, nb_got(m, "i"));
    return nb_end(b);
}

static const char *can_fuse_patches(const nb_match *m) {
    const nb_granularity by = nb_attr_of(m->root, "to")->quant->granularity;
    return by == NB_PER_TENSOR || by == NB_PER_TOKEN
               ? NULL
               : "the scales are neither for the tensor nor for each token";
}

static nb_value *to_qpatches(nb_match *m, nb_builder *b) {
    static const char *const names[] = {"kernel", "strides", "dilations"};
    const nb_op *p = nb_got_op(m, "p");
    nb_begin(b, NB_OP_qpatches);
    nb_arg(b, nb_got(m, "x"));
    nb_set_quant(b, "to", nb_attr_of(m->root, "to")->quant);
    copy_ints(b, p, names, NB_COUNT(names));
    return nb_end(b);
}

static const nb_rule rules[] = {
    {"dq-matmul", "matmul(dq(a), dq(b))  ->  qmatmul(a, b)",
     PAT_OP("matmul", "", PAT_OP("dequantize", "", PAT_ANY("a")),
            PAT_OP("dequantize", "", PAT_CONST("b"))),
     .where = can_fuse_matmul, .to = to_qmatmul},
    {"weights", "matmul(a, dq(b))  ->  matmul(a, b)",
     PAT_OP("matmul", "", PAT_ANY("a"), PAT_OP("dequantize", "", PAT_CONST("b"))),
     .where = can_multiply_floats, .to = to_product_with_codes},
    {"bias", "qmatmul(a, b) + bias  ->  qmatmul(a, b, bias)",
     PAT_OP("add", "", PAT_OP1("qmatmul", "q"), PAT_CONST("bias")), .where = can_add_bias,
     .to = add_bias},
    {"residual", "qmatmul(a, b, bias) + r  ->  qmatmul(a, b, bias, r)",
     PAT_OP("add", "", PAT_OP1("qmatmul", "q"), PAT_ANY("r")), .where = can_add_residual,
     .to = add_residual},
    {"codes", "quantize(qmatmul(a, b, bias, r))  ->  qmatmul(a, b, bias, r) as codes",
     PAT_OP("quantize", "", PAT_OP1("qmatmul", "q")), .where = can_round, .to = round_product},
    {"dq-depthwise", "depthwise(dq(a), dq(b), bias)  ->  qdepthwise(a, b, bias)",
     PAT_OP("depthwise", "", PAT_OP("dequantize", "", PAT_ANY("a")),
            PAT_OP("dequantize", "", PAT_CONST("b"))),
     .where = can_fuse_depthwise, .to = to_qdepthwise},
    {"depthwise-codes", "quantize(qdepthwise(a, b, bias))  ->  qdepthwise(a, b, bias) as codes",
     PAT_OP("quantize", "", PAT_OP1("qdepthwise", "q")), .where = can_round, .to = round_product},
    {"dq-gather", "gather(dq(t), i)  ->  qgather(t, i)",
     PAT_OP("gather", "", PAT_OP("dequantize", "", PAT_CONST("t")), PAT_ANY("i")),
     .where = can_fuse_gather, .to = to_qgather},
    {"patches", "quantize(patches(x))  ->  qpatches(x)",
     PAT_OP("quantize", "", PAT_OP("patches", "p", PAT_ANY("x"))), .where = can_fuse_patches,
     .to = to_qpatches},
};

static nb_pass_result run(nb_pass_ctx *ctx) {
    bool changed = false;
    nb_stage before = ctx->graph->stage;
    /* The stage says what is legal to build. */
    if (ctx->graph->stage < NB_STAGE_FUSED) ctx->graph->stage = NB_STAGE_FUSED;
    if (!nb_rewrite_run(ctx, rules, NB_COUNT(rules), &changed)) return NB_PASS_FAILED;
    if (!changed) ctx->graph->stage = before;
    return nb_pass_end(ctx, changed);
}

const nb_pass nb_pass_fuse_dequant = {
    .size = sizeof(nb_pass),
    .name = "fuse-dequant",
    .run = run,
    .promises = NB_PASS_KEEPS_BITS,
    .summary = "multiply integers directly: dq*matmul -> qmatmul, with bias and residual",
};
