/* Low-rank branches beside linear layers (branch.h). */
#include "passes/branch.h"

#include "ir/build.h"
#include "passes/linear.h"

#include <string.h>

static bool is_from(const nb_value *constant, const char *pass) {
    const nb_loc *loc = constant->loc;
    for (uint32_t i = 0; loc && i < loc->n_via; i++) {
        if (strcmp(loc->via[i], pass) == 0) return true;
    }
    return false;
}

bool nb_is_factor(const nb_value *constant) {
    return is_from(constant, "low-rank") || is_from(constant, "adapter") ||
           (is_from(constant, "quantize-weights") && constant->type->elem == NB_F16);
}

/* The only user, if it is an add; `*other` is what it adds. */
static nb_op *only_add(const nb_value *v, nb_value **other) {
    nb_op *add = nb_has_one_use(v) ? v->uses->user : NULL;
    if (!add || add->kind != NB_OP_add) return NULL;
    *other = nb_in(add, 1 - v->uses->index);
    return add;
}

nb_op *nb_bias_add(const nb_op *layer) {
    nb_value *bias;
    const nb_type *y = nb_out(layer)->type;
    nb_op *add = only_add(nb_out(layer), &bias);
    bool fits = add && nb_is_const(bias) && !bias->type->quant && bias->type->elem == NB_F32 &&
                bias->type->rank == 1 && bias->type->dims[0] == y->dims[y->rank - 1];
    return fits ? add : NULL;
}

/* The bias (NULL: there is none) and `more`, for the layer of weight w; NULL when memory is short.
 */
static nb_value *sum_of_bias(nb_pass_ctx *ctx, const nb_value *w, const nb_value *bias,
                             const double *more) {
    nb_graph *g = ctx->graph;
    const nb_dim *cols = w->type->dims[1];
    void *data;
    nb_blob *blob = nb_blob_create(cols->value * (int64_t)sizeof(float), &data);
    if (!blob) {
        nb_error(nb_diags_of(ctx), NB_LIMIT, NB_NOWHERE, "out of memory for the bias of '@%s'",
                 w->name);
        return NULL;
    }
    const float *old = bias ? bias->blob->data : NULL;
    for (int64_t n = 0; n < cols->value; n++)
        ((float *)data)[n] = (float)((old ? (double)old[n] : 0) + more[n]);
    const char *name =
        bias ? nb_format(g->arena, "%s.c", bias->name) : nb_format(g->arena, "%s.bias", w->name);
    return nb_graph_add_const(g, name, nb_type_intern(g, NB_F32, NULL, 1, &cols), blob,
                              nb_loc_via(g, bias ? bias->loc : NULL, nb_state_of(ctx)->pass->name));
}

bool nb_bias_more(nb_pass_ctx *ctx, nb_op *layer, const double *more) {
    nb_op *add = nb_bias_add(layer);
    uint32_t slot = add && nb_in(add, 0) == nb_out(layer) ? 1 : 0;
    nb_value *y = nb_out(layer),
             *bias = sum_of_bias(ctx, nb_linear_weight(layer), add ? nb_in(add, slot) : NULL, more);
    if (!bias) return false;
    if (add) {
        nb_set_operand(&add->operands[slot], bias);
        add->loc = nb_loc_via(ctx->graph, add->loc, nb_state_of(ctx)->pass->name);
        return true;
    }
    nb_builder b = nb_pass_builder(ctx, layer->next, layer->loc);
    nb_value *sum = nb_binary(&b, NB_OP_add, y, bias);
    if (!sum) return false;
    nb_replace_uses(y, sum);
    nb_set_operand(&sum->def->operands[0], y);
    return true;
}

/* Is v the product with a factor of `pass`? */
static nb_op *product_with(const nb_value *v, const char *pass) {
    nb_value *w = v->def ? nb_linear_weight(v->def) : NULL;
    return w && is_from(w, pass) ? v->def : NULL;
}

/* The same, and `*sum` adds it. */
static nb_op *find(const nb_op *layer, const char *pass, nb_op **sum) {
    nb_value *other;
    const nb_value *v = nb_out(layer);
    for (; (*sum = only_add(v, &other)); v = nb_out(*sum)) {
        nb_op *second = product_with(other, pass),
              *first = second ? product_with(nb_in(second, 0), pass) : NULL;
        if (first && nb_in(first, 0) == nb_in(layer, 0)) return second;
    }
    return NULL;
}

nb_op *nb_branch_find(const nb_op *layer, const char *pass) {
    nb_op *sum;
    return find(layer, pass, &sum);
}

const nb_value *nb_branch_sum(const nb_op *layer) {
    nb_op *sum;
    return nb_out(find(layer, "adapter", &sum) ? sum : layer);
}

/* What a branch makes of the layer's input is added behind its bias. */
typedef struct place {
    nb_builder build;
    nb_value *y;
} place;

static place behind(nb_pass_ctx *ctx, nb_op *layer) {
    nb_op *bias = nb_bias_add(layer), *last = bias ? bias : layer;
    return (place){nb_pass_builder(ctx, last->next, layer->loc), nb_out(last)};
}

/* y + t w; `names` of t and the product, behind y's. */
static bool add_product(nb_pass_ctx *ctx, place *p, nb_value *t, nb_value *w,
                        const char *const names[2]) {
    nb_value *y = p->y, *c = t ? nb_binary(&p->build, NB_OP_matmul, t, w) : NULL,
             *sum = c ? nb_binary(&p->build, NB_OP_add, y, c) : NULL;
    if (!sum) return false;
    nb_set_name(ctx->graph, t, nb_format(ctx->graph->arena, "%s.%s", y->name, names[0]));
    nb_set_name(ctx->graph, c, nb_format(ctx->graph->arena, "%s.%s", y->name, names[1]));
    nb_replace_uses(y, sum);
    nb_set_operand(&sum->def->operands[0], y);
    return true;
}

bool nb_branch_add(nb_pass_ctx *ctx, nb_op *layer, nb_value *a, nb_value *b) {
    place p = behind(ctx, layer);
    nb_value *t = nb_binary(&p.build, NB_OP_matmul, nb_in(layer, 0), a);
    return add_product(ctx, &p, t, b, (const char *const[]){"A", "AB"});
}

bool nb_branch_add_exact(nb_pass_ctx *ctx, nb_op *layer, nb_value *inputs, nb_value *rows) {
    place p = behind(ctx, layer);
    nb_begin(&p.build, NB_OP_gather);
    nb_arg(&p.build, nb_in(layer, 0));
    nb_arg(&p.build, inputs);
    nb_set_int(&p.build, "axis", nb_in(layer, 0)->type->rank - 1);
    return add_product(ctx, &p, nb_end(&p.build), rows, (const char *const[]){"channels", "exact"});
}
