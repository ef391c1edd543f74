/* What holds for a graph between any two passes (verify.h). */
#include "ir/verify.h"

#include "ir/build.h"
#include "ir/eval.h"

#include <math.h>
#include <string.h>

typedef struct checker {
    const nb_graph *g;
    nb_diags *diags;
    nb_arena *arena;
    uint32_t
        *position; /* by value id: 0 not defined yet, 1 constant or parameter, else op number + 2 */
} checker;

NB_PRINTF(3, 4) static void fault(checker *c, const nb_op *op, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    const char *message = nb_vformat(c->arena, fmt, args);
    va_end(args);
    nb_where where = {
        .offset = -1, .file = c->g->file, .node = op ? nb_loc_name(op->loc) : c->g->name};
    nb_error(c->diags, NB_INTERNAL, where, "verifier: %s%s%s", op ? nb_info(op)->name : "",
             op ? ": " : "", message);
}

bool nb_legal_in(nb_op_kind kind, nb_stage stage) {
    switch (kind) {
    case NB_OP_quantize:
    case NB_OP_dequantize:
        return stage >= NB_STAGE_QDQ;
    case NB_OP_qmatmul:
    case NB_OP_qgather:
        return stage >= NB_STAGE_FUSED;
    default:
        return true;
    }
}

static void check_uses(checker *c, const nb_value *v) {
    for (const nb_use *u = v->uses; u; u = u->next) {
        if (u->value != v || *u->link != u || u->index >= u->user->n_operands ||
            &u->user->operands[u->index] != u) {
            fault(c, v->def, "the list of uses of '%s' is broken", v->name);
            return;
        }
    }
}

static void check_scales(checker *c, const nb_quant *q) {
    if (!q->scales) return;
    const float *scale = q->scales->blob->data;
    for (int64_t i = 0; i < q->scales->blob->size / 4; i++) {
        if (scale[i] > 0 && isfinite(scale[i])) continue;
        fault(c, NULL, "scale %lld of '#%s' is %g, not positive and finite", (long long)i, q->name,
              (double)scale[i]);
        return;
    }
}

static void check_constants(checker *c) {
    nb_map names = {.arena = c->arena};
    for (size_t i = 0; i < c->g->constants.count; i++) {
        const nb_value *v = c->g->constants.items[i];
        int64_t count, bytes;
        c->position[v->id] = 1;
        check_uses(c, v);
        if (!nb_type_static_count(v->type, &count) ||
            !nb_elem_bytes_of(v->type->elem, count, &bytes) || bytes != v->blob->size)
            fault(c, NULL, "constant '@%s' of type %s has %lld bytes", v->name,
                  nb_type_text(c->arena, v->type), (long long)v->blob->size);
        if (nb_map_get_str(&names, v->name, strlen(v->name)))
            fault(c, NULL, "two constants are named '@%s'", v->name);
        nb_map_set_str(&names, v->name, strlen(v->name), (void *)(uintptr_t)v);
    }
    for (size_t i = 0; i < c->g->quants.count; i++) check_scales(c, c->g->quants.items[i]);
}

static void check_results(checker *c, const nb_op *op) {
    const nb_type *types[8] = {NULL};
    if (op->n_results != (uint32_t)nb_info(op)->results) {
        fault(c, op, "%u results, expected %d", op->n_results, nb_info(op)->results);
        return;
    }
    if (nb_infer((nb_graph *)(uintptr_t)c->g, op, types, c->diags) != NB_OK) return;
    for (uint32_t i = 0; i < op->n_results; i++) {
        if (op->results[i]->type != types[i])
            fault(c, op, "'%%%s' has type %s, the operands give %s", op->results[i]->name,
                  nb_type_text(c->arena, op->results[i]->type), nb_type_text(c->arena, types[i]));
        if (op->results[i]->def != op)
            fault(c, op, "'%%%s' does not know its op", op->results[i]->name);
    }
}

static void check_op(checker *c, const nb_op *op, uint32_t number, nb_map *names) {
    for (uint32_t i = 0; i < op->n_operands; i++) {
        const nb_value *v = nb_in(op, i);
        if (v && !c->position[v->id]) {
            fault(c, op, "operand %u '%s' is used before it is defined", i, v->name);
            return;
        }
    }
    if (!nb_legal_in(op->kind, c->g->stage)) fault(c, op, "is not legal in this stage");
    check_results(c, op);
    for (uint32_t i = 0; i < op->n_results; i++) {
        const nb_value *v = op->results[i];
        c->position[v->id] = number + 2;
        check_uses(c, v);
        if (nb_map_get_str(names, v->name, strlen(v->name)))
            fault(c, op, "two values are named '%%%s'", v->name);
        nb_map_set_str(names, v->name, strlen(v->name), (void *)(uintptr_t)v);
        if (c->g->stage == NB_STAGE_PLANNED && v->storage.kind == NB_STORE_NONE)
            fault(c, op, "'%%%s' has no storage", v->name);
    }
}

static void check_states(checker *c) {
    for (size_t i = 0; i < c->g->states.count; i++) {
        const nb_state *s = &c->g->states.items[i];
        if (s->input >= c->g->body.n_params || s->output >= c->g->outputs.count) {
            fault(c, NULL, "state %zu names a port that does not exist", i);
            continue;
        }
        const nb_type *in = c->g->body.params[s->input]->type,
                      *out = nb_in(c->g->body.last, s->output)->type;
        bool fits = in->elem == out->elem && in->quant == out->quant && in->rank == out->rank &&
                    s->axis < in->rank;
        for (int d = 0; fits && d < in->rank; d++)
            fits = d == s->axis || in->dims[d] == out->dims[d];
        if (!fits)
            fault(c, NULL, "state %zu pairs %s with %s", i, nb_type_text(c->arena, in),
                  nb_type_text(c->arena, out));
    }
}

nb_status nb_verify(const nb_graph *g, nb_diags *diags) {
    checker c = {.g = g, .diags = diags, .arena = nb_arena_create_like(g->arena)};
    size_t errors = diags->errors;
    c.position = NB_NEW_ARRAY(c.arena, uint32_t, (size_t)g->n_values + 1);
    nb_map names = {.arena = c.arena};
    check_constants(&c);
    for (uint32_t i = 0; i < g->body.n_params; i++) {
        const nb_value *v = g->body.params[i];
        c.position[v->id] = 1;
        check_uses(&c, v);
        if (nb_map_get_str(&names, v->name, strlen(v->name)))
            fault(&c, NULL, "two inputs are named '%%%s'", v->name);
        nb_map_set_str(&names, v->name, strlen(v->name), (void *)(uintptr_t)v);
    }
    uint32_t number = 0;
    for (const nb_op *op = g->body.first; op; op = op->next) {
        if (nb_has_trait(op, NB_TRAIT_TERMINATOR) != (op == g->body.last))
            fault(&c, op, "return stands last, and only there");
        check_op(&c, op, number++, &names);
    }
    if (!g->body.last || g->body.last->kind != NB_OP_return)
        fault(&c, NULL, "the graph has no return");
    else if (g->body.last->n_operands != g->outputs.count)
        fault(&c, g->body.last, "%u values for %zu outputs", g->body.last->n_operands,
              g->outputs.count);
    else
        check_states(&c);
    nb_arena_destroy(c.arena);
    return diags->errors == errors ? NB_OK : NB_INTERNAL;
}
