/* plan-memory: decides where every value of the compiled model lives.
 *
 *   requires   nothing later changes the graph
 *   maintains  stage PLANNED; every value has storage; two values share a slot only when they are
 *              never alive together; a view shares the storage of what it views
 *
 * Bodies of ops are planned with the rest: their ops run between those around them. What a body
 * takes from outside lies where it is outside; what a loop carries on lies in one place from before
 * the loop until its results' last use; results of an `if` lie where its bodies make them.
 *
 * State pairs become in place where the output is `concat past, new` on the growing axis: both ends
 * are then the session's buffer, and the concat writes only the new entries. Outputs are written
 * where the caller wants them; an output that is also an input, a constant, or another output gets
 * a copy (a concat of one operand).
 *
 * Elementwise ops of one shape that only feed each other become chains (ir/chain.h): what is
 * between them stays in registers, and what they read lives until the last of them. Slices that
 * they alone read are windows: they are read where they stand. Patches that a pooling reads, or the
 * product of a convolution of codes, stay in registers too.
 *
 * Products of codes that read one value, as the projections to queries, keys and values do, come to
 * stand one behind the other, so that the compiled model prepares it once and runs them together.
 *
 *   %y: f32[B,4] = matmul %x, @w             ->  %y: f32[B,4] = matmul %x, @w in slot 2
 *   %z: f32[B,4] = add %y, @b                ->  %z: f32[B,4] = add %y, @b in registers
 *   %r: f32[B,4] = relu %z                   ->  %r: f32[B,4] = relu %z in slot 3 */
#include "ir/build.h"
#include "ir/chain.h"
#include "passes/linear.h"

/* Sizes are compared at these symbol values: what fits where only matters roughly. */
#define TYPICAL 64

typedef struct group {
    nb_value *root; /* what the views view */
    nb_storage storage;
    uint32_t first, last; /* op positions: where it is made, where it is last used */
    int64_t size;         /* estimate in bits */
} group;

typedef struct slot {
    uint32_t free_from; /* position after which nothing in it is alive */
    int64_t size;       /* largest estimate so far */
} slot;

typedef struct planner {
    nb_pass_ctx *ctx;
    nb_graph *graph;
    nb_arena *arena;
    group **group_of;       /* by value id */
    nb_value **place_of;    /* by value id: the value outside whose memory it is, or NULL */
    uint32_t position;      /* of the op at hand */
    NB_VEC(group *) groups; /* in order of creation */
    NB_VEC(slot) slots;
} planner;

static nb_value *root_of(nb_value *v) {
    while (v->def && nb_has_trait(v->def, NB_TRAIT_VIEW)) v = nb_in(v->def, 0);
    return v;
}

/* The value whose memory `v` has: through views, and out of bodies. */
static nb_value *owner_of(const planner *p, nb_value *v) {
    for (v = root_of(v); p->place_of[v->id]; v = root_of(p->place_of[v->id])) {
    }
    return v;
}

/* ---- state pairs --------------------------------------------------------------------------- */

static bool is_appended(const nb_graph *g, const nb_state *state) {
    if (state->axis < 0) return false;
    const nb_value *past = g->body.params[state->input],
                   *present = nb_in(g->body.last, state->output);
    const nb_op *concat = present->def;
    if (!concat || concat->kind != NB_OP_concat || concat->n_operands != 2 ||
        nb_in(concat, 0) != past)
        return false;
    int64_t axis = nb_attr_int(concat, "axis");
    if (axis != state->axis || past->type->dims[axis]->kind != NB_DIM_SYMBOL ||
        !nb_has_one_use(past))
        return false;
    size_t returns = 0;
    for (const nb_use *u = present->uses; u; u = u->next) {
        /* A view would need the bytes to be contiguous, which a buffer with spare capacity is not.
         */
        if (nb_has_trait(u->user, NB_TRAIT_VIEW) || u->user->n_regions) return false;
        returns += u->user->kind == NB_OP_return;
    }
    return returns == 1;
}

/* ---- outputs ------------------------------------------------------------------------------- */

/* A concat of one operand; a scalar has no axis to join along and takes a detour over rank 1. */
static nb_value *copy_of(nb_builder *b, nb_value *v) {
    const nb_dim *one = nb_dim_const(b->graph, 1);
    nb_value *from = v->type->rank ? v : nb_reshape(b, v, 1, &one);
    nb_begin(b, NB_OP_concat);
    nb_arg(b, from);
    nb_set_int(b, "axis", 0);
    nb_value *copy = nb_end(b);
    return v->type->rank || !copy ? copy : nb_reshape(b, copy, 0, NULL);
}

/* Gives every output a value of its own that an op writes. */
static bool separate_outputs(planner *p) {
    nb_graph *g = p->graph;
    nb_op *ret = g->body.last;
    nb_map taken = {.arena = p->arena};
    for (uint32_t i = 0; i < ret->n_operands; i++) {
        bool state = false;
        for (size_t s = 0; s < g->states.count; s++)
            state = state || (g->states.items[s].appended && g->states.items[s].output == i);
        nb_value *v = nb_in(ret, i), *root = root_of(v);
        /* The codes of a value alone: its memory holds scales too, which the caller's does not. */
        bool whole = root->type->quant == v->type->quant;
        if (root->def && !root->def->n_regions && whole && !nb_map_get(&taken, root)) {
            nb_map_set(&taken, root, root);
            continue;
        }
        if (state) continue;
        nb_builder b = nb_pass_builder(p->ctx, ret, v->def ? v->def->loc : NULL);
        nb_value *copy = copy_of(&b, v);
        if (!copy) return false;
        nb_set_operand(&ret->operands[i], copy);
        nb_map_set(&taken, root_of(copy), copy);
    }
    return true;
}

/* ---- bodies -------------------------------------------------------------------------------- */

static bool replace_by_copy(planner *p, nb_use *use, nb_op *before) {
    nb_builder b = nb_pass_builder(p->ctx, before, before->loc);
    b.region = before->parent;
    nb_value *copy = copy_of(&b, use->value);
    if (copy) nb_set_operand(use, copy);
    return copy != NULL;
}

/* Is `v` a value that a loop carries, another one than `but`? */
static bool is_carried(const nb_op *op, const nb_value *v, const nb_value *but) {
    return op->kind == NB_OP_loop && v != but && v->region == op->regions[0] &&
           v->index >= NB_LOOP_PARAMS &&
           (int64_t)v->index < NB_LOOP_PARAMS + nb_attr_int(op, "carried");
}

/* What ops with bodies read and write is memory that is not a constant's; what is carried on is not
 * overwritten before it is. */
static bool separate_bodies(planner *p, nb_region *region) {
    NB_FOR_OPS(op, region) {
        for (uint32_t i = 0; op->n_regions && i < op->n_operands; i++) {
            if (nb_in(op, i) && nb_is_const(root_of(nb_in(op, i))) &&
                !replace_by_copy(p, &op->operands[i], op))
                return false;
        }
        for (uint32_t r = 0; r < op->n_regions; r++) {
            if (!separate_bodies(p, op->regions[r])) return false;
            nb_op *ret = op->regions[r]->last;
            const uint32_t conditions = ret->n_operands - op->n_results;
            for (uint32_t i = 0; i < ret->n_operands; i++) {
                const nb_value *root = root_of(nb_in(ret, i));
                const uint32_t own = NB_LOOP_PARAMS + i - conditions;
                const nb_value *kept =
                    op->kind == NB_OP_loop && i >= conditions && own < op->regions[r]->n_params
                        ? op->regions[r]->params[own]
                        : NULL;
                if ((nb_is_const(root) || is_carried(op, root, kept)) &&
                    !replace_by_copy(p, &ret->operands[i], ret))
                    return false;
            }
        }
    }
    return true;
}

/* Values inside whose memory is that of one outside, and results that are what is carried. */
static void find_places(planner *p, nb_region *region) {
    NB_FOR_OPS(op, region) {
        const uint32_t operands = op->kind == NB_OP_loop ? NB_LOOP_OPERANDS : 1;
        const uint32_t params = op->kind == NB_OP_loop ? NB_LOOP_PARAMS : 0;
        const uint32_t carried = op->kind == NB_OP_loop ? (uint32_t)nb_attr_int(op, "carried") : 0;
        const uint32_t own =
            op->kind == NB_OP_loop ? carried + (uint32_t)nb_attr_int(op, "sliced") : 0;
        for (uint32_t r = 0; r < op->n_regions; r++) {
            nb_region *body = op->regions[r];
            for (uint32_t i = own; i + operands < op->n_operands; i++)
                p->place_of[body->params[i + params]->id] = nb_in(op, i + operands);
            for (uint32_t i = 0; i < carried; i++)
                p->place_of[op->results[i]->id] = body->params[i + params];
            for (uint32_t i = 0; op->kind == NB_OP_if && i < op->n_results; i++) {
                const nb_value *made = root_of(nb_in(body->last, i));
                if (made->def && !made->def->n_regions && !p->place_of[made->id])
                    p->place_of[made->id] = op->results[i];
            }
            find_places(p, body);
        }
    }
}

/* ---- chains -------------------------------------------------------------------------------- */

/* What a chain reads element by element has a pointer each, which takes a register. */
#define MOST_READ 6

static bool is_in_registers(const nb_op *op) {
    return op->n_results == 1 && nb_in_registers(op->results[0]);
}

static bool is_number(const nb_value *v) {
    int64_t count;
    return nb_is_const(v) && nb_type_static_count(v->type, &count) && count == 1;
}

static bool is_small(const planner *p, const nb_op *root) {
    const nb_chain chain = nb_chain_of(p->arena, root);
    int read = 0;
    for (size_t i = 0; i < chain.inputs.count; i++) read += !is_number(chain.inputs.items[i]);
    return chain.whole && read <= MOST_READ;
}

/* The chain that all uses of v belong to, by its root; NULL: there is none. */
static const nb_op *chain_of_uses(const nb_value *v, const nb_op *const *root_of_op) {
    const nb_op *root = NULL;
    for (const nb_use *u = v->uses; u; u = u->next) {
        const nb_op *of = root_of_op[u->user->id];
        if (!of || (root && of != root) || !nb_chains_into(v, u->user)) return NULL;
        root = of;
    }
    return root;
}

static void keep_in_registers(nb_value *v) { v->storage = (nb_storage){NB_STORE_REGISTERS, 0}; }

/* What a convolution of codes needs no memory for. */
static void find_convolution(const nb_op *op) {
    nb_qconv conv;
    if (!nb_can_convolve(op, &conv) || !conv.patches) return;
    keep_in_registers(nb_in(op, 0));
    keep_in_registers(nb_out(conv.patches));
    if (conv.turned) keep_in_registers(nb_out(conv.turned));
}

/* What a pooling needs no memory for. */
static void find_pooling(const nb_op *op) {
    const nb_op *patches = nb_pooled(op);
    if (!patches) return;
    nb_value *v = nb_in(op, 0);
    for (; v->def != patches; v = nb_in(v->def, 0)) keep_in_registers(v);
    keep_in_registers(v);
}

/* Backwards, so that an op finds the chains of its users; it joins one, or is the root of its own.
 */
static void find_chains(planner *p, nb_region *region, const nb_op **root_of_op) {
    for (nb_op *op = region->last; op; op = op->prev) {
        for (uint32_t r = 0; r < op->n_regions; r++) find_chains(p, op->regions[r], root_of_op);
        find_pooling(op);
        if (op->kind == NB_OP_slice && nb_can_be_window(nb_out(op))) keep_in_registers(nb_out(op));
        find_convolution(op);
        if (!nb_can_chain(op) && !nb_is_code_step(op)) continue;
        if (nb_in_registers(nb_out(op))) continue; /* of a pooling */
        const nb_op *root = chain_of_uses(nb_out(op), root_of_op);
        root_of_op[op->id] = root ? root : op;
        if (!root) continue;
        keep_in_registers(nb_out(op));
        if (is_small(p, root)) continue;
        nb_out(op)->storage = (nb_storage){NB_STORE_NONE, 0};
        root_of_op[op->id] = op;
    }
}

/* ---- products ------------------------------------------------------------------------------ */

static bool is_product_of_codes(const nb_op *op) {
    if (op->kind != NB_OP_qmatmul || nb_is_const(nb_in(op, 0))) return false;
    for (uint32_t i = 1; i < op->n_operands; i++)
        if (nb_in(op, i) && !nb_is_const(nb_in(op, i))) return false;
    return true;
}

/* What takes long, or needs much memory: nothing moves across it, since what moves lives longer. */
static bool is_heavy(const nb_op *op) {
    switch (op->kind) {
    case NB_OP_qmatmul:
    case NB_OP_qdepthwise:
    case NB_OP_matmul:
    case NB_OP_conv:
    case NB_OP_attention:
    case NB_OP_patches:
    case NB_OP_qpatches:
        return true;
    default:
        return op->n_regions > 0;
    }
}

static void gather_products(nb_region *region) {
    nb_op *last = NULL; /* the product that others could follow */
    for (nb_op *op = region->first, *next; op; op = next) {
        next = op->next;
        for (uint32_t r = 0; r < op->n_regions; r++) gather_products(op->regions[r]);
        const bool follows = is_product_of_codes(op);
        if (follows && last && nb_in(last, 0) == nb_in(op, 0)) nb_op_move_before(op, last->next);
        if (follows || is_heavy(op)) last = follows ? op : NULL;
    }
}

/* ---- lifetimes ----------------------------------------------------------------------------- */

static int64_t estimate(const planner *p, const nb_type *t) {
    nb_graph *g = p->graph;
    int64_t *symbols = NB_NEW_ARRAY(p->arena, int64_t, g->symbols.count + 1),
            size = nb_elems[t->elem].bits;
    for (size_t i = 0; i < g->symbols.count; i++)
        symbols[i] =
            nb_max_i64(g->symbols.items[i]->min, nb_min_i64(g->symbols.items[i]->max, TYPICAL));
    for (int d = 0; d < t->rank; d++) {
        int64_t n;
        if (!nb_dim_eval(t->dims[d], symbols, &n) || !nb_mul_i64(size, nb_max_i64(n, 1), &size))
            return INT64_MAX;
    }
    return size;
}

static void touch(planner *p, nb_value *v) {
    if (!v || nb_is_const(v)) return;
    nb_value *root = owner_of(p, v);
    group *gr = p->group_of[root->id];
    if (!gr) {
        gr = NB_NEW(p->arena, group);
        gr->root = root;
        gr->first = p->position;
        gr->size = estimate(p, root->type);
        p->group_of[root->id] = gr;
        nb_vec_push(p->arena, &p->groups, gr);
    }
    gr->last = p->position;
    if (root_of(v) != root) gr->size = nb_max_i64(gr->size, estimate(p, v->type));
}

/* What a chain reads is in use where its root stands. */
static void touch_op(planner *p, const nb_op *op) {
    if (is_in_registers(op)) return;
    const nb_chain chain = nb_chain_of(p->arena, op);
    for (size_t i = 0; i < chain.inputs.count; i++)
        if (chain.inputs.items[i]) touch(p, nb_chain_source(chain.inputs.items[i]));
    for (uint32_t i = 0; i < op->n_results; i++) touch(p, op->results[i]);
}

/* A region's ops in order. What an op with bodies reads and writes is in use before and behind
 * them, and so is what a loop carries; a slice, and what a body makes, only within a step. */
static void find_lifetimes(planner *p, nb_region *region) {
    NB_FOR_OPS(op, region) {
        touch_op(p, op);
        for (uint32_t r = 0; r < op->n_regions; r++) {
            nb_region *body = op->regions[r];
            for (uint32_t i = 0; i < body->n_params; i++) touch(p, body->params[i]);
            find_lifetimes(p, body);
        }
        if (op->n_regions) touch_op(p, op);
        p->position++;
    }
}

/* ---- assignment ---------------------------------------------------------------------------- */

static void fix_ports(planner *p) {
    nb_graph *g = p->graph;
    for (uint32_t i = 0; i < g->body.n_params; i++)
        p->group_of[g->body.params[i]->id]->storage = (nb_storage){NB_STORE_INPUT, i};
    for (uint32_t i = 0; i < g->outputs.count; i++)
        p->group_of[owner_of(p, nb_in(g->body.last, i))->id]->storage =
            (nb_storage){NB_STORE_OUTPUT, i};
    for (uint32_t i = 0; i < g->states.count; i++) {
        const nb_state *s = &g->states.items[i];
        if (!s->appended) continue;
        p->group_of[g->body.params[s->input]->id]->storage = (nb_storage){NB_STORE_STATE, i};
        p->group_of[nb_in(g->body.last, s->output)->id]->storage = (nb_storage){NB_STORE_STATE, i};
    }
}

/* The free slot closest in size, preferring ones that are large enough; a new one if none is free.
 */
static uint32_t choose_slot(planner *p, const group *gr) {
    uint32_t best = UINT32_MAX;
    for (uint32_t i = 0; i < p->slots.count; i++) {
        const slot *s = &p->slots.items[i];
        if (s->free_from >= gr->first) continue;
        if (best == UINT32_MAX) {
            best = i;
            continue;
        }
        const slot *b = &p->slots.items[best];
        bool fits = s->size >= gr->size, best_fits = b->size >= gr->size;
        if (fits != best_fits ? fits : fits ? s->size < b->size : s->size > b->size) best = i;
    }
    if (best == UINT32_MAX) {
        slot fresh = {0};
        best = (uint32_t)p->slots.count;
        nb_vec_push(p->arena, &p->slots, fresh);
    }
    p->slots.items[best].free_from = gr->last;
    p->slots.items[best].size = nb_max_i64(p->slots.items[best].size, gr->size);
    return best;
}

static nb_storage storage_of(const planner *p, nb_value *v) {
    const nb_value *owner = owner_of(p, v);
    return nb_is_const(owner) ? owner->storage : p->group_of[owner->id]->storage;
}

static void store_region(planner *p, nb_region *region) {
    for (uint32_t i = 0; i < region->n_params; i++)
        region->params[i]->storage = storage_of(p, region->params[i]);
    NB_FOR_OPS(op, region) {
        for (uint32_t i = 0; i < op->n_results && !is_in_registers(op); i++)
            op->results[i]->storage = storage_of(p, op->results[i]);
        for (uint32_t r = 0; r < op->n_regions; r++) store_region(p, op->regions[r]);
    }
}

static void assign(planner *p) {
    fix_ports(p);
    /* Groups were pushed in order of their first op, which makes greedy colouring optimal in
     * number. */
    for (size_t i = 0; i < p->groups.count; i++) {
        group *gr = p->groups.items[i];
        if (gr->storage.kind == NB_STORE_NONE)
            gr->storage = (nb_storage){NB_STORE_SLOT, choose_slot(p, gr)};
    }
    for (size_t i = 0; i < p->graph->constants.count; i++)
        p->graph->constants.items[i]->storage = (nb_storage){NB_STORE_WEIGHT, 0};
    store_region(p, &p->graph->body);
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    nb_graph *g = ctx->graph;
    if (g->stage == NB_STAGE_PLANNED) return nb_pass_end(ctx, false);
    nb_graph_sweep(g);
    planner p = {.ctx = ctx, .graph = g, .arena = nb_state_of(ctx)->scratch};
    for (size_t i = 0; i < g->states.count; i++)
        g->states.items[i].appended = is_appended(g, &g->states.items[i]);
    if (!separate_outputs(&p) || !separate_bodies(&p, &g->body)) return NB_PASS_FAILED;
    p.group_of = (group **)nb_alloc_array(p.arena, (size_t)g->n_values + 1, sizeof(group *));
    p.place_of = (nb_value **)nb_alloc_array(p.arena, (size_t)g->n_values + 1, sizeof(nb_value *));
    gather_products(&g->body);
    find_places(&p, &g->body);
    find_chains(&p, &g->body,
                (const nb_op **)nb_alloc_array(p.arena, (size_t)g->n_ops + 1, sizeof(nb_op *)));
    for (uint32_t i = 0; i < g->body.n_params; i++) touch(&p, g->body.params[i]);
    p.position = 1;
    find_lifetimes(&p, &g->body);
    assign(&p);
    g->stage = NB_STAGE_PLANNED;
    return nb_pass_end(ctx, true);
}

const nb_pass nb_pass_plan_memory = {
    .size = sizeof(nb_pass),
    .name = "plan-memory",
    .run = run,
    .promises = NB_PASS_KEEPS_BITS,
    .summary = "decide where every value lives: slots, ports, states in place",
};
