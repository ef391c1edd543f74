/* simplify, for ops with bodies (simplify.h).
 *
 *   %y: f32[4] = if @true, %x, @c do (%p: f32[4], %k: f32[4]) {     ->  %a: f32[4] = add %x, @c
 *     %a: f32[4] = add %p, %k
 *     return %a
 *   } do ... */
#include "passes/simplify.h"

#include "ir/build.h"
#include "ir/eval.h"

/* The captures of an op: operands from `first` on, parameters from `param` on. */
typedef struct captures {
    uint32_t first, param;
} captures;

static captures captures_of(const nb_op *op) {
    if (op->kind == NB_OP_if) return (captures){1, 0};
    const uint32_t own = (uint32_t)nb_attr_int(op, "carried") + (uint32_t)nb_attr_int(op, "sliced");
    return (captures){NB_LOOP_OPERANDS + own, NB_LOOP_PARAMS + own};
}

/* What the body can have without being handed it: a constant, or sizes computed anew. */
static nb_value *known_inside(nb_pass_ctx *ctx, nb_value *outside, nb_region *body) {
    if (nb_is_const(outside)) return outside;
    if (!outside->def || outside->def->kind != NB_OP_dims) return NULL;
    nb_builder b = nb_pass_builder(ctx, body->first, outside->def->loc);
    const nb_attr *values = nb_attr_of(outside->def, "values");
    nb_begin(&b, NB_OP_dims);
    nb_set_dims(&b, "values", values->dims.count, values->dims.items);
    nb_set_bool(&b, "scalar", nb_attr_bool(outside->def, "scalar"));
    return nb_end(&b);
}

static bool simplify_captures(nb_pass_ctx *ctx, nb_op *op) {
    const captures c = captures_of(op);
    bool changed = false;
    for (uint32_t i = op->n_operands; i-- > c.first;) {
        nb_value *outside = nb_in(op, i);
        const uint32_t at = i - c.first + c.param;
        bool used = false;
        for (uint32_t r = 0; r < op->n_regions; r++) {
            nb_region *body = op->regions[r];
            nb_value *param = body->params[at], *inside = NULL;
            if (param->uses && param->type == outside->type)
                inside = known_inside(ctx, outside, body);
            if (inside) nb_replace_uses(param, inside);
            used = used || param->uses;
        }
        if (used) continue;
        nb_op_drop_operand(op, i, at);
        changed = true;
    }
    return changed;
}

/* Do the sizes agree that the body and what is around it say? */
static bool fits(const nb_op *op, const nb_region *body) {
    for (uint32_t i = 0; i < body->n_params; i++)
        if (body->params[i]->type != nb_in(op, i + 1)->type) return false;
    for (uint32_t i = 0; i < op->n_results; i++)
        if (nb_in(body->last, i)->type != op->results[i]->type) return false;
    return true;
}

static bool choose_body(nb_op *op) {
    const nb_value *cond = nb_in(op, 0);
    if (op->kind != NB_OP_if || !nb_is_const(cond)) return false;
    const nb_tensor t = nb_tensor_of_const(cond);
    nb_region *body = op->regions[nb_tensor_get_int(&t, 0) ? 0 : 1];
    bool used = false;
    for (uint32_t i = 0; i < op->n_results; i++) used = used || op->results[i]->uses;
    if (!used || !fits(op, body)) return false;
    for (uint32_t i = 0; i < body->n_params; i++)
        nb_replace_uses(body->params[i], nb_in(op, i + 1));
    while (body->first != body->last) nb_op_move_before(body->first, op);
    for (uint32_t i = 0; i < op->n_results; i++)
        nb_replace_uses(op->results[i], nb_in(body->last, i));
    return true;
}

bool nb_simplify_bodies(nb_pass_ctx *ctx, nb_op *op) {
    if (choose_body(op)) return true;
    return simplify_captures(ctx, op);
}
