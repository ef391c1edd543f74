/* Operations that plug-ins bring (nb_pass.h): making calls, and checking those of a file. */
#include "passes/host.h"

#include "ir/build.h"
#include "ir/text.h"

#include <string.h>

/* The shape rule's answer as a type; NULL after a diagnostic. */
static const nb_type *type_of(nb_pass_ctx *ctx, const nb_op_def *def, const nb_op_shape *shape) {
    nb_graph *g = ctx->graph;
    const nb_dim *dims[NB_MAX_RANK] = {NULL};
    nb_elem elem = nb_elem_from_number(shape->elem);
    bool ok = elem != NB_ELEM_COUNT && nb_elems[elem].bits >= 8 && shape->rank >= 0 &&
              shape->rank <= NB_MAX_RANK;
    for (int32_t i = 0; ok && i < shape->rank; i++) {
        const char *text = shape->dims[i];
        dims[i] = text ? nb_parse_dim(g, text, strlen(text), nb_diags_of(ctx)) : NULL;
        ok = dims[i] != NULL;
    }
    if (ok) return nb_type_intern(g, elem, NULL, shape->rank, dims);
    nb_misuse(ctx, "call",
              "the shape rule of '%s' gives no type: expected an element of at least 8 bits, a "
              "rank up to %d and that many dimensions",
              def->name, NB_MAX_RANK);
    return NULL;
}

const nb_type *nb_call_type(nb_pass_ctx *ctx, const nb_op_def *def, nb_value *const *operands,
                            const int64_t *numbers, size_t n_numbers) {
    nb_arena *scratch = nb_state_of(ctx)->scratch;
    const nb_type *first = def->operands ? operands[0]->type : NULL;
    nb_op_shape shape = {.size = sizeof shape};
    if (first) {
        shape.elem = nb_elems[first->elem].number;
        shape.rank = first->rank;
        for (int i = 0; i < first->rank; i++) shape.dims[i] = nb_dim_text(scratch, first->dims[i]);
    }
    const char *why = def->shape ? def->shape(ctx, operands, numbers, n_numbers, &shape)
                      : first    ? NULL
                                 : "without operands it needs a shape rule";
    if (!why) return type_of(ctx, def, &shape);
    nb_misuse(ctx, "call", "'%s' does not take these operands: %s", def->name, why);
    return NULL;
}

static bool operands_fit(nb_pass_ctx *ctx, const nb_op_def *def, nb_value *const *operands,
                         size_t n) {
    if (n != def->operands || (n && !operands)) {
        nb_misuse(ctx, "call", "'%s' takes %zu operands, found %zu", def->name, def->operands,
                  operands ? n : 0);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (operands[i] && !operands[i]->type->quant) continue;
        nb_misuse(ctx, "call", "operand %zu of '%s' is %s", i, def->name,
                  operands[i] ? "quantized" : "NULL");
        return false;
    }
    return true;
}

static nb_value *build_call(nb_pass_ctx *ctx, nb_builder *b, const nb_op_def *def,
                            nb_value *const *operands, const int64_t *numbers, size_t n_numbers) {
    const nb_type *type = nb_call_type(ctx, def, operands, numbers, n_numbers);
    if (!type) return NULL;
    nb_begin(b, NB_OP_call);
    for (size_t i = 0; i < def->operands; i++) nb_arg(b, operands[i]);
    nb_set_str(b, "function", def->name);
    nb_set_elem(b, "to", type->elem);
    nb_set_dims(b, "shape", (size_t)type->rank, type->dims);
    if (n_numbers) nb_set_ints(b, "numbers", n_numbers, numbers);
    return nb_end(b);
}

nb_value *nb_host_call(nb_pass_ctx *ctx, nb_op *before, const char *name, nb_value *const *operands,
                       size_t n_operands, const int64_t *numbers, size_t n_numbers) {
    const nb_op_def *def = name ? nb_registry_find_op(nb_state_of(ctx)->env->registry, name) : NULL;
    if (!def || !before || !nb_is_in_graph(before) || (n_numbers && !numbers)) {
        NB_MISUSE(ctx,
                  "expected an op of the graph to place before and the name of an operation of a "
                  "plug-in, found '%s'",
                  name ? name : "NULL");
        return NULL;
    }
    if (!operands_fit(ctx, def, operands, n_operands)) return NULL;
    const nb_loc *loc = nb_state_of(ctx)->rewriting;
    nb_builder b = nb_pass_builder(ctx, before, loc ? loc : before->loc);
    nb_value *v = build_call(ctx, &b, def, operands, numbers, n_numbers);
    if (!v) nb_state_of(ctx)->failed = true;
    return v;
}

/* ---- calls without a pass ------------------------------------------------------------------- */

static const nb_pass asking = {.size = sizeof asking, .name = "call", .summary = ""};

nb_value *nb_make_call(nb_builder *b, const nb_op_def *def, nb_value *const *operands, size_t n,
                       const int64_t *numbers, size_t n_numbers) {
    nb_pass_env env = {.diags = b->diags, .arena = b->diags->arena};
    nb_pass_state state = {
        .env = &env, .pass = &asking, .scratch = nb_arena_create_like(env.arena)};
    nb_pass_ctx ctx = {
        .size = sizeof ctx, .host = &nb_host, .host_data = &state, .graph = b->graph};
    nb_value *v = operands_fit(&ctx, def, operands, n)
                      ? build_call(&ctx, b, def, operands, numbers, n_numbers)
                      : NULL;
    nb_arena_destroy(state.scratch);
    return v;
}

/* ---- calls of a file ------------------------------------------------------------------------ */

static bool check_call(nb_pass_ctx *ctx, const nb_op *op, const nb_op_def *def) {
    nb_value **operands = (nb_value **)nb_alloc_array(nb_state_of(ctx)->scratch,
                                                      (size_t)op->n_operands + 1, sizeof *operands);
    for (uint32_t i = 0; i < op->n_operands; i++) operands[i] = nb_in(op, i);
    if (!operands_fit(ctx, def, operands, op->n_operands)) return false;
    const nb_attr *numbers = nb_attr_of(op, "numbers");
    const nb_type *type =
        nb_call_type(ctx, def, operands, numbers->ints.items, numbers->ints.count);
    if (!type || type == nb_out(op)->type) return type != NULL;
    nb_arena *scratch = nb_state_of(ctx)->scratch;
    ctx->host->report(ctx, NB_LEVEL_ERROR, op, "the result of '%s' is %s, not %s", def->name,
                      nb_type_text(scratch, type), nb_type_text(scratch, nb_out(op)->type));
    return false;
}

nb_status nb_check_calls(nb_graph *graph, nb_pass_env *env) {
    if (!env->registry || env->registry->ops.count == 0) return NB_OK;
    nb_pass_state state = {
        .env = env, .pass = &asking, .scratch = nb_arena_create_like(env->arena)};
    nb_pass_ctx ctx = {.size = sizeof ctx, .host = &nb_host, .host_data = &state, .graph = graph};
    bool ok = true;
    NB_FOR_OPS(op, &graph->body) {
        if (op->kind != NB_OP_call) continue;
        const nb_op_def *def = nb_registry_find_op(env->registry, nb_attr_of(op, "function")->str);
        ok = (!def || check_call(&ctx, op, def)) && ok;
    }
    nb_arena_destroy(state.scratch);
    return ok ? NB_OK : NB_MALFORMED;
}
