/* Bodies of ops through the host table (nb_pass.h): looking into them, and making them.
 *
 * A body that is being made is an open region (ir.h) that ends with a `return` from the beginning,
 * so that there is an op to build before. */
#include "passes/host.h"

#include "ir/interner.h"
#include "ir/text.h"

#include <string.h>

struct nb_body {
    nb_region *region;
    bool taken; /* an op has it, or was refused with it */
};

/* ---- looking -------------------------------------------------------------------------------- */

static const nb_region *body_of(const nb_op *op, size_t body) {
    return op && body < op->n_regions ? op->regions[body] : NULL;
}

size_t nb_host_body_count(const nb_op *op) { return op ? op->n_regions : 0; }

nb_op *nb_host_body_first_op(const nb_op *op, size_t body) {
    const nb_region *r = body_of(op, body);
    return r ? r->first : NULL;
}

size_t nb_host_body_input_count(const nb_op *op, size_t body) {
    const nb_region *r = body_of(op, body);
    return r ? r->n_params : 0;
}

nb_value *nb_host_body_input(const nb_op *op, size_t body, size_t i) {
    const nb_region *r = body_of(op, body);
    return r && i < r->n_params ? r->params[i] : NULL;
}

nb_op *nb_host_parent_op(const nb_op *op) { return op ? op->parent->parent : NULL; }

size_t nb_host_body_output_count(const nb_op *op, size_t body) {
    const nb_region *r = body_of(op, body);
    return r && r->last ? r->last->n_operands : 0;
}

nb_value *nb_host_body_output(const nb_op *op, size_t body, size_t i) {
    const nb_region *r = body_of(op, body);
    return r && r->last && i < r->last->n_operands ? nb_in(r->last, i) : NULL;
}

/* ---- making --------------------------------------------------------------------------------- */

nb_body *nb_host_make_body(nb_pass_ctx *ctx, const nb_op *like) {
    nb_body *body = NB_NEW(nb_state_of(ctx)->scratch, nb_body);
    body->region = nb_region_create(ctx->graph);
    nb_region_return(body->region, 0, NULL, like ? like->loc : NULL);
    return body;
}

/* Nothing can be put into a body that an op has: its types are settled. */
static bool is_open(nb_pass_ctx *ctx, const char *call, const nb_body *body) {
    if (body && !body->taken) return true;
    nb_misuse(ctx, call, "expected a body of make_body that no op has got yet");
    return false;
}

nb_value *nb_host_body_take(nb_pass_ctx *ctx, nb_body *body, const char *name, const char *type) {
    if (!is_open(ctx, "body_take", body)) return NULL;
    if (!name || !*name || !type) {
        NB_MISUSE(ctx, "expected a name and a type, \"f32[B,4]\"");
        return NULL;
    }
    const nb_type *t = nb_parse_type(ctx->graph, type, strlen(type), nb_diags_of(ctx));
    if (!t) nb_state_of(ctx)->failed = true;
    return t ? nb_region_add(body->region, name, t) : NULL;
}

nb_op *nb_host_body_end(nb_pass_ctx *ctx, nb_body *body) {
    return is_open(ctx, "body_end", body) ? body->region->last : NULL;
}

int nb_host_body_return(nb_pass_ctx *ctx, nb_body *body, nb_value *const *values, size_t n) {
    if (!is_open(ctx, "body_return", body)) return 0;
    /* A loop returns its condition before what becomes results. */
    bool right = n <= NB_MAX_RESULTS + 1 && (values || n == 0);
    for (size_t i = 0; right && i < n; i++) right = values[i] != NULL;
    if (!right) {
        NB_MISUSE(ctx, "expected at most %d values, none of them NULL", NB_MAX_RESULTS + 1);
        return 0;
    }
    /* The op stays: ops are built before it. */
    nb_op *end = body->region->last;
    for (uint32_t i = 0; i < end->n_operands; i++) nb_set_operand(&end->operands[i], NULL);
    end->operands = NB_NEW_ARRAY(ctx->graph->arena, nb_use, n + 1);
    end->n_operands = (uint32_t)n;
    for (uint32_t i = 0; i < n; i++) {
        end->operands[i] = (nb_use){.user = end, .index = i};
        nb_set_operand(&end->operands[i], values[i]);
    }
    return 1;
}

static bool is_inside(const nb_op *op, const nb_region *region) {
    for (; op; op = op->parent->parent)
        if (op->parent == region) return true;
    return false;
}

nb_value *nb_host_build_with_bodies(nb_pass_ctx *ctx, nb_op *before, const char *op,
                                    nb_value *const *operands, size_t n_operands,
                                    const nb_attr_arg *attrs, size_t n_attrs,
                                    nb_body *const *bodies, size_t n_bodies) {
    const nb_op_kind kind = op ? nb_op_from_name(op, strlen(op)) : NB_OP_COUNT;
    const uint32_t expected = kind == NB_OP_COUNT ? 0 : nb_ops[kind].regions;
    if (expected != n_bodies || !bodies) {
        NB_MISUSE(ctx, "'%s' has %u bodies, found %zu", op ? op : "NULL", expected,
                  bodies ? n_bodies : 0);
        return NULL;
    }
    nb_region **regions =
        (nb_region **)nb_alloc_array(nb_state_of(ctx)->scratch, n_bodies + 1, sizeof *regions);
    for (size_t i = 0; i < n_bodies; i++) {
        if (!is_open(ctx, "build_with_bodies", bodies[i])) return NULL;
        bodies[i]->taken = true; /* at once: one body twice is refused, too */
        regions[i] = bodies[i]->region;
        if (!is_inside(before, regions[i])) continue;
        NB_MISUSE(ctx, "'%s' would stand in its own body", op);
        return NULL;
    }
    return nb_build_op(ctx, "build_with_bodies", before, op, operands, n_operands, attrs, n_attrs,
                       regions, n_bodies);
}

/* ---- bodies that no op got ------------------------------------------------------------------ */

static bool is_used_outside(const nb_value *v) {
    for (const nb_use *u = v->uses; u; u = u->next)
        if (u->user->parent != nb_region_of(v)) return true;
    return false;
}

bool nb_drop_bodies(nb_pass_ctx *ctx) {
    nb_graph *g = ctx->graph;
    for (size_t i = 0; i < g->open.count; i++) {
        const nb_region *r = g->open.items[i];
        bool used = false;
        for (uint32_t k = 0; k < r->n_params; k++) used = used || is_used_outside(r->params[k]);
        for (const nb_op *op = r->first; op; op = op->next)
            for (uint32_t k = 0; k < op->n_results; k++)
                used = used || is_used_outside(op->results[k]);
        if (!used) continue;
        nb_misuse(ctx, "make_body", "a value of a body that no op got is used outside of it");
        return false;
    }
    while (g->open.count) nb_region_discard(g->open.items[g->open.count - 1]);
    return true;
}
