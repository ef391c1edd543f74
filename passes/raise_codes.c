/* Codes of activations that a model spells in floats, as `--emit onnx` does because ONNX has no
 * operator for a scale for each token:
 *
 *   amax = max |x| along the last axis, factor = A / amax, 0 where that is infinite
 *   round(x * factor) * (amax / A, 0 there)         ->  dequantize(quantize(x)), per token
 *   reshape of that, of x in rows of blocks         ->  dequantize(quantize(x)), per block
 *   slice of that, of x padded to whole blocks      ->  dequantize(quantize(x)), per block
 *
 * All compute the same bits (ir/NUMBERS.md, "Quantization"); A is 127 or 32639. */
#include "passes/raise.h"

#include <math.h>

#define X              PAT_ANY("x")
#define AMAX           PAT_OP("reduce_max", "amax", PAT_OP("abs", "", X))
#define UNLESS_OVER(v) PAT_OP("where", "", PAT_ANY("over"), PAT_NUMBER(0), v)

/* factor == infinity? */
static bool is_over(const nb_value *over, const nb_value *factor) {
    double number;
    if (!over->def || over->def->kind != NB_OP_eq) return false;
    for (size_t i = 0; i < 2; i++)
        if (nb_in(over->def, i) == factor && nb_const_number(nb_in(over->def, 1 - i), &number))
            return isinf(number) && number > 0;
    return false;
}

static const char *can_be_codes(const nb_match *m) {
    double most, again;
    const nb_value *x = nb_got(m, "x");
    const nb_attr *axes = nb_attr_of(nb_got_op(m, "amax"), "axes");
    if (x->type->elem != NB_F32 || x->type != nb_out(m->root)->type) return "it is not f32";
    if (axes->ints.count != 1 || axes->ints.items[0] != x->type->rank - 1 ||
        !nb_attr_bool(nb_got_op(m, "amax"), "keep"))
        return "the largest is not that of the last axis, kept";
    if (!nb_const_number(nb_got(m, "most"), &most) ||
        !nb_const_number(nb_got(m, "again"), &again) || most != again ||
        (most != 127 && most != 32639))
        return "the largest code is neither 127 nor 32639";
    return is_over(nb_got(m, "over"), nb_got(m, "factor")) ? NULL
                                                           : "infinite factors are not taken as 0";
}

static nb_value *rounded(nb_match *m, nb_builder *b, nb_value *x, const nb_quant *q) {
    const nb_quant *known =
        nb_quant_intern(m->graph, q, q->storage == NB_I8 ? "act_i8" : "act_i16", b->diags);
    if (!known) return NULL;
    if (m->graph->stage < NB_STAGE_QDQ) m->graph->stage = NB_STAGE_QDQ;
    nb_begin(b, NB_OP_quantize);
    nb_arg(b, x);
    nb_set_quant(b, "to", known);
    nb_value *codes = nb_end(b);
    return codes ? nb_unary(b, NB_OP_dequantize, codes) : NULL;
}

static nb_value *to_token_codes(nb_match *m, nb_builder *b) {
    double most = 0;
    nb_const_number(nb_got(m, "most"), &most);
    const nb_quant q = {.storage = most == 127 ? NB_I8 : NB_I16,
                        .narrow = true,
                        .granularity = NB_PER_TOKEN,
                        .amax_code = (int64_t)most};
    return rounded(m, b, nb_got(m, "x"), &q);
}

/* x [.., K] as [.., K/n, n] and back. */
static const char *can_be_blocks(const nb_match *m) {
    const nb_type *x = nb_got(m, "x")->type, *t = nb_out(nb_got_op(m, "blocks"))->type;
    const nb_quant *q = nb_out(nb_got_op(m, "codes"))->type->quant;
    if (q->granularity != NB_PER_TOKEN) return "the codes have no scale for each row";
    if (x != nb_out(m->root)->type || t->rank != x->rank + 1) return "the shape changes";
    for (int d = 0; d < x->rank - 1; d++)
        if (x->dims[d] != t->dims[d]) return "rows are not split alone";
    return nb_dim_is_const(t->dims[x->rank]) ? NULL : "the length of blocks is not known";
}

static nb_value *to_block_codes(nb_match *m, nb_builder *b) {
    const nb_value *blocks = nb_out(nb_got_op(m, "blocks"));
    nb_quant q = *nb_out(nb_got_op(m, "codes"))->type->quant;
    q.granularity = NB_PER_BLOCK;
    q.group = blocks->type->dims[blocks->type->rank - 1]->value;
    return rounded(m, b, nb_got(m, "x"), &q);
}

/* Zeros behind x, cut off again: they do not change the largest of x's last block. */
static const char *can_end_in_part(const nb_match *m) {
    const nb_op *pad = nb_got_op(m, "padded");
    const nb_value *x = nb_got(m, "x"), *border = nb_in(pad, 1);
    const nb_dim *const *before = nb_attr_of(pad, "before")->dims.items;
    const nb_dim *const *start = nb_attr_of(m->root, "start")->dims.items;
    const int64_t *step = nb_attr_of(m->root, "step")->ints.items;
    double number = 0;
    if (nb_out(nb_got_op(m, "codes"))->type->quant->granularity != NB_PER_BLOCK)
        return "the codes have no scale for each block";
    if (x->type != nb_out(m->root)->type) return "what is kept is not of x's shape";
    if (border && (!nb_const_number(border, &number) || number != 0))
        return "x is not padded with zeros";
    for (int d = 0; d < x->type->rank; d++)
        if (!nb_dim_is(before[d], 0) || !nb_dim_is(start[d], 0) || step[d] != 1)
            return "what is kept is not x";
    return NULL;
}

static nb_value *to_part_codes(nb_match *m, nb_builder *b) {
    return rounded(m, b, nb_got(m, "x"), nb_out(nb_got_op(m, "codes"))->type->quant);
}

static const nb_rule rules[] = {
    {"token-codes", "round(x * A/amax(x)) * amax(x)/A  ->  dequantize(quantize(x))",
     PAT_OP("mul", "",
            PAT_OP("round", "",
                   PAT_OP("mul", "", X,
                          UNLESS_OVER(PAT_OP("div", "factor", PAT_CONST("most"), AMAX)))),
            UNLESS_OVER(PAT_OP("div", "", PAT_ANY("amax"), PAT_CONST("again")))),
     can_be_codes, to_token_codes},
    {"block-codes",
     "reshape(dequantize(quantize(reshape(x))))  ->  dequantize(quantize(x)), per block",
     PAT_OP("reshape", "",
            PAT_OP("dequantize", "", PAT_OP("quantize", "codes", PAT_OP("reshape", "blocks", X)))),
     can_be_blocks, to_block_codes},
    {"part-of-block", "slice(dequantize(quantize(pad(x))))  ->  dequantize(quantize(x)), per block",
     PAT_OP("slice", "",
            PAT_OP("dequantize", "", PAT_OP("quantize", "codes", PAT_OP("pad", "padded", X)))),
     can_end_in_part, to_part_codes},
};

bool nb_raise_codes(nb_pass_ctx *ctx, bool *changed) {
    return nb_rewrite_run(ctx, rules, NB_COUNT(rules), changed);
}
