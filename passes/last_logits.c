/* last-logits: a decoder computes the logits of a prompt's last position only.
 *
 *   requires   any stage before plan-memory
 *   maintains  every bit of what is still computed; the shape of logits becomes [B,1,V]
 *
 *   %h: f32[B,S,64] = rms_norm %x, @gain
 *   %logits: f32[B,S,256] = matmul %h, @w
 * becomes
 *   %slice: f32[B,1,64] = slice %x {start=[0,S-1,0], count=[B,1,64], step=[1,1,1]}
 *   %h: f32[B,1,64] = rms_norm %slice, @gain
 *   %logits: f32[B,1,256] = matmul %h, @w
 *
 * Logits are recognised by what they are: an output whose value is a linear layer of a [B,S,K]
 * (and elementwise ops behind it), S the length of what an embedding looks up. The slice stands as
 * early as it can: behind the last op that looks at other positions, usually the last attention. */
#include "ir/build.h"
#include "passes/linear.h"

static const nb_option options[] = {
    {.name = "decoders",
     .kind = NB_OPTION_BOOL,
     .fallback = "false",
     .summary = "only in graphs with a state; where there are no logits, change nothing"},
    {.name = "outputs",
     .kind = NB_OPTION_STRING,
     .fallback = "",
     .summary = "names of outputs ('*' any text, '|' or) instead of all that are logits"},
    {.name = NULL},
};

typedef struct last {
    nb_pass_ctx *ctx;
    nb_graph *graph;
    const nb_dim *length; /* S */
    bool *chosen;         /* for each output: these are logits */
    nb_map narrow;        /* ops that are to compute the last position only */
    nb_map slices;        /* value -> its last position */
} last;

/* ---- what carries positions ---------------------------------------------------------------- */

/* The length of what is looked up in an embedding, or NULL. */
static const nb_dim *sequence_length(const nb_graph *g) {
    NB_FOR_OPS(op, &g->body) {
        if (op->kind != NB_OP_qgather && !nb_is_embedding(op)) continue;
        const nb_value *ids = nb_in(op, 1);
        while (ids->def && (ids->def->kind == NB_OP_cast || nb_has_trait(ids->def, NB_TRAIT_VIEW)))
            ids = nb_in(ids->def, 0);
        if (ids->region == &g->body && ids->type->rank == 2) return ids->type->dims[1];
    }
    return NULL;
}

/* The axis of operand `i` that is axis 1 of the result, where positions are; operands that
 * broadcast are aligned at the end. -1: it has none. */
static int axis_of(const nb_op *op, uint32_t i) {
    bool is_product = op->kind == NB_OP_matmul || op->kind == NB_OP_qmatmul;
    if (!nb_in(op, i) || (is_product && i == 1)) return -1;
    return 1 - (nb_out(op)->type->rank - nb_in(op, i)->type->rank);
}

static bool has_positions(const last *l, const nb_op *op, uint32_t i) {
    int axis = axis_of(op, i);
    return axis >= 0 && nb_in(op, i)->type->dims[axis] == l->length;
}

static bool is_one_scale_each(const nb_quant *q) {
    return q->granularity == NB_PER_TENSOR || q->granularity == NB_PER_TOKEN ||
           q->granularity == NB_PER_BLOCK;
}

/* Codes that can be made again for one position: their scales do not depend on the others. */
static bool can_quantize_again(const nb_value *codes) {
    return codes->def && codes->def->kind == NB_OP_quantize &&
           is_one_scale_each(codes->type->quant);
}

/* Is each position of the result made of the same position of the operands? */
static bool is_by_position(const last *l, const nb_op *op) {
    const nb_type *t = op->n_results == 1 ? nb_out(op)->type : NULL;
    if (!t || t->rank < 3 || t->dims[1] != l->length) return false;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        if (has_positions(l, op, i) && nb_in(op, i)->type->quant &&
            !can_quantize_again(nb_in(op, i)))
            return false;
    }
    switch (op->kind) {
    case NB_OP_matmul:
    case NB_OP_qmatmul:
        return t->rank == 3 && nb_in(op, 0)->type->rank == 3 && nb_in(op, 1)->type->rank == 2;
    case NB_OP_rms_norm:
    case NB_OP_layer_norm:
    case NB_OP_hadamard:
    case NB_OP_dequantize:
        return true;
    case NB_OP_softmax:
        return nb_attr_int(op, "axis") == t->rank - 1;
    case NB_OP_quantize:
        return is_one_scale_each(t->quant);
    default:
        return nb_has_trait(op, NB_TRAIT_ELEMENTWISE);
    }
}

/* ---- which outputs ------------------------------------------------------------------------- */

/* The operand that has positions, when it is the only one. */
static const nb_value *only_source(const last *l, const nb_op *op) {
    const nb_value *source = NULL;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        if (!has_positions(l, op, i)) continue;
        if (source) return NULL;
        source = nb_in(op, i);
    }
    return source;
}

/* *done: they are of the last position already. */
static bool is_logits(const last *l, const nb_value *v, bool *done) {
    const nb_type *t = v->type;
    if (t->rank != 3 || !nb_elem_is_float(t->elem) || !nb_dim_is_const(t->dims[2])) return false;
    *done = nb_dim_is(t->dims[1], 1);
    last narrowed = *l;
    if (*done) narrowed.length = t->dims[1];
    while (v && v->def && nb_has_trait(v->def, NB_TRAIT_ELEMENTWISE))
        v = only_source(&narrowed, v->def);
    return v && v->def && nb_linear_weight(v->def) && is_by_position(&narrowed, v->def);
}

static bool is_state(const nb_graph *g, uint32_t output) {
    for (size_t i = 0; i < g->states.count; i++) {
        if (g->states.items[i].output == output) return true;
    }
    return false;
}

/* Chooses the outputs; returns how many have logits, *done of them of one position already. */
static size_t choose(last *l, const char *pattern, size_t *done) {
    size_t n = 0;
    const nb_op *ret = l->graph->body.last;
    for (uint32_t o = 0; o < ret->n_operands; o++) {
        bool is_done = false;
        if (*pattern && !nb_match_name(pattern, l->graph->outputs.items[o])) continue;
        if (is_state(l->graph, o) || !is_logits(l, nb_in(ret, o), &is_done)) continue;
        n++;
        *done += is_done;
        l->chosen[o] = !is_done;
    }
    return n;
}

static nb_pass_result none_found(nb_pass_ctx *ctx, const char *pattern) {
    const char *names = "";
    nb_arena *scratch = nb_state_of(ctx)->scratch;
    for (size_t i = 0; i < ctx->graph->outputs.count && i < 4; i++)
        names =
            nb_format(scratch, "%s%s\"%s\"", names, i ? ", " : "", ctx->graph->outputs.items[i]);
    if (*pattern)
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL, "outputs=\"%s\" matches no output with logits",
                          pattern);
    else
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL, "no output has logits of a sequence");
    ctx->host->help(ctx,
                    "logits are a linear layer of f32[batch,sequence,n] that is an output, in a "
                    "graph that looks up tokens; outputs are %s",
                    names);
    return NB_PASS_FAILED;
}

/* ---- the change ---------------------------------------------------------------------------- */

/* Do all users want the last position only? Those of later ops are known. */
static bool is_narrow(const last *l, const nb_value *v) {
    for (const nb_use *u = v->uses; u; u = u->next) {
        bool narrow = u->user->kind == NB_OP_return
                          ? l->chosen[u->index]
                          : nb_map_get(&l->narrow, u->user) && has_positions(l, u->user, u->index);
        if (!narrow) return false;
    }
    return v->uses != NULL;
}

static nb_value *slice(last *l, nb_op *before, nb_value *v, int axis) {
    nb_builder b = nb_pass_builder(l->ctx, before, NULL);
    const nb_dim *start[NB_MAX_RANK], *count[NB_MAX_RANK];
    int64_t step[NB_MAX_RANK];
    const nb_dim *one = nb_dim_const(l->graph, 1);
    for (int d = 0; d < v->type->rank; d++) {
        start[d] = d == axis ? nb_dim_sub(l->graph, l->length, one) : nb_dim_const(l->graph, 0);
        count[d] = d == axis ? one : v->type->dims[d];
        step[d] = 1;
    }
    size_t rank = (size_t)v->type->rank;
    nb_begin(&b, NB_OP_slice);
    nb_arg(&b, v);
    nb_set_dims(&b, "start", rank, start);
    nb_set_dims(&b, "count", rank, count);
    nb_set_ints(&b, "step", rank, step);
    return nb_end(&b);
}

/* The last position of `v`, whose positions are at `axis`. Codes are made again, of floats: their
 * scales lie apart from them and cannot be sliced. */
static nb_value *last_position(last *l, nb_op *before, nb_value *v, int axis) {
    nb_value *known = (nb_value *)nb_map_get(&l->slices, v);
    if (known) return known;
    nb_value *made;
    if (v->type->quant) {
        nb_builder b = nb_pass_builder(l->ctx, before, v->def->loc);
        nb_value *x = last_position(l, before, nb_in(v->def, 0), axis);
        nb_begin(&b, NB_OP_quantize);
        nb_arg(&b, x);
        nb_set_quant(&b, "to", v->type->quant);
        made = nb_end(&b);
    } else {
        made = slice(l, before, v, axis);
    }
    if (made) nb_map_set(&l->slices, v, made);
    return made;
}

/* Gives the op the last positions of its operands, and its result the type that follows. */
static bool narrow_op(last *l, nb_op *op) {
    const nb_type *types[NB_MAX_RESULTS] = {NULL};
    for (uint32_t i = 0; i < op->n_operands; i++) {
        if (!has_positions(l, op, i)) continue;
        nb_value *v = last_position(l, op, nb_in(op, i), axis_of(op, i));
        if (!v) return false;
        nb_set_operand(&op->operands[i], v);
    }
    if (nb_infer(l->graph, op, types, nb_diags_of(l->ctx)) != NB_OK) return false;
    nb_out(op)->type = types[0];
    op->loc = nb_loc_via(l->graph, op->loc, nb_state_of(l->ctx)->pass->name);
    return true;
}

/* Logits that something else wants whole are sliced themselves. */
static bool narrow_outputs(last *l) {
    nb_op *ret = l->graph->body.last;
    for (uint32_t o = 0; o < ret->n_operands; o++) {
        nb_value *v = nb_in(ret, o);
        if (!l->chosen[o] || v->type->dims[1] != l->length) continue;
        v = last_position(l, ret, v, 1);
        if (!v) return false;
        nb_set_operand(&ret->operands[o], v);
    }
    return true;
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    nb_graph *g = ctx->graph;
    if (g->stage == NB_STAGE_PLANNED) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL, "runs before plan-memory");
        return NB_PASS_FAILED;
    }
    nb_arena *scratch = nb_state_of(ctx)->scratch;
    const char *pattern = nb_option_of(ctx, "outputs")->s;
    last l = {.ctx = ctx, .graph = g, .length = sequence_length(g)};
    l.narrow.arena = l.slices.arena = scratch;
    l.chosen = NB_NEW_ARRAY(scratch, bool, g->body.last->n_operands + 1);
    bool quiet = nb_option_of(ctx, "decoders")->b;
    size_t done = 0, found = 0;
    if (l.length && !(quiet && !g->states.count)) found = choose(&l, pattern, &done);
    if (!found && !quiet) return none_found(ctx, pattern);
    if (found == done) return NB_PASS_UNCHANGED;
    for (nb_op *op = g->body.last->prev; op; op = op->prev) {
        if (is_by_position(&l, op) && is_narrow(&l, nb_out(op))) nb_map_set(&l.narrow, op, op);
    }
    for (nb_op *op = g->body.first; op; op = op->next) {
        if (nb_map_get(&l.narrow, op) && !narrow_op(&l, op)) return NB_PASS_FAILED;
    }
    if (!narrow_outputs(&l)) return NB_PASS_FAILED;
    nb_graph_sweep(g);
    return nb_pass_end(ctx, true);
}

const nb_pass nb_pass_last_logits = {
    .size = sizeof(nb_pass),
    .name = "last-logits",
    .options = options,
    .run = run,
    .promises = NB_PASS_KEEPS_BITS | NB_PASS_LAST_ONLY,
    .summary = "decoders compute the logits of the last position only",
};
