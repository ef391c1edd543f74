/* Runs a graph op by op (eval.h): binds symbols from the inputs, computes each op with its family's
 * function, keeps a tensor while someone still reads it, and copies the outputs.
 *
 * A result lives in an arena of its own that goes with its last reader; scratch memory of an op
 * goes when the op is done. Constants are borrowed. */
#include "ir/eval.h"

#include "ir/eval_private.h"

#include <math.h>
#include <string.h>

static nb_status (*const families[NB_OP_COUNT])(const nb_evaluating *) = {
#define OP(name, family, ...) [NB_OP_##name] = nb_eval_##family,
#include "ir/ops.def"
#undef OP
};

nb_status nb_eval_error(const nb_evaluating *e, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    const char *message = nb_vformat(e->arena, fmt, args);
    va_end(args);
    nb_where where = {.offset = -1, .node = nb_loc_name(e->op->loc)};
    return nb_error(e->diags, NB_MALFORMED, where, "%s: %s", nb_info(e->op)->name, message);
}

nb_status nb_dim_value(const nb_evaluating *e, const nb_dim *d, int64_t *value) {
    const nb_symbol *loose = nb_unbound_in(d, e->symbols);
    if (loose) return nb_eval_error(e, "no input has an axis that is just %s", loose->name);
    if (nb_dim_eval(d, e->symbols, value)) return NB_OK;
    return nb_eval_error(e, "%s has no value", nb_dim_text(e->arena, d));
}

nb_status nb_eval_return(const nb_evaluating *e) {
    (void)e;
    return NB_OK;
}

/* How many scales travel with the codes of `t`: a row without elements has one per token too. */
static int64_t count_scales(const nb_type *type, const nb_tensor *t) {
    int64_t last = t->dims[t->rank - 1], rows = 1;
    for (int d = 0; d + 1 < t->rank; d++) rows *= t->dims[d];
    return type->quant->granularity == NB_PER_BLOCK ? rows * nb_ceildiv(last, type->quant->group)
                                                    : rows;
}

/* Shape and zeroed memory for a result, in `arena`. */
static nb_status allocate(const nb_evaluating *e, const nb_type *type, nb_tensor *t,
                          nb_arena *arena) {
    int64_t count = 1;
    *t = (nb_tensor){.elem = type->elem, .rank = type->rank};
    for (int d = 0; d < type->rank; d++) {
        NB_TRY(nb_dim_value(e, type->dims[d], &t->dims[d]));
        if (t->dims[d] < 0 || !nb_mul_i64(count, t->dims[d], &count))
            return nb_eval_error(e, "axis %d of the result, %s, would be %lld", d,
                                 nb_dim_text(e->arena, type->dims[d]), (long long)t->dims[d]);
    }
    if (!nb_elem_bytes_of(type->elem, count, &t->bytes) || t->bytes > INT64_C(1) << 40)
        return nb_eval_error(e, "the result of %lld elements is too large", (long long)count);
    t->data = nb_alloc(arena, (size_t)t->bytes + 8);
    if (nb_has_own_scales(type))
        t->scales = NB_NEW_ARRAY(arena, float, (size_t)count_scales(type, t) + 1);
    return NB_OK;
}

nb_status nb_eval_op(const nb_op *op, const nb_tensor *operands, int64_t *symbols,
                     nb_tensor *results, nb_arena *arena, nb_diags *diags) {
    nb_arena *scratch = nb_arena_create_like(arena);
    nb_evaluating e = {.op = op,
                       .in = operands,
                       .out = results,
                       .symbols = symbols,
                       .arena = scratch,
                       .diags = diags};
    nb_status status = NB_OK;
    for (uint32_t i = 0; status == NB_OK && i < op->n_results; i++)
        status = allocate(&e, op->results[i]->type, &results[i], arena);
    if (status == NB_OK) status = families[op->kind](&e);
    nb_arena_destroy(scratch);
    return status;
}

/* ---- the run ------------------------------------------------------------------------------- */

typedef struct holder {
    nb_tensor tensor;
    nb_arena *arena; /* of the op that made it; NULL for inputs and constants */
    size_t readers;  /* uses not yet executed */
} holder;

typedef struct running {
    const nb_graph *g;
    const nb_region *region;
    holder *values; /* of the region, by id - first */
    uint32_t first, n_values;
    const nb_tap *taps;
    size_t n_taps;
    bool *tapped; /* by id; NULL: none */
} running;

static holder *holder_of(running *r, const nb_value *v) { return &r->values[v->id - r->first]; }

static nb_tensor tensor_of(running *r, const nb_value *v) {
    return nb_is_const(v) ? nb_tensor_of_const(v) : holder_of(r, v)->tensor;
}

static bool is_tapped(const running *r, const nb_value *v) { return r->tapped && r->tapped[v->id]; }

static void show(running *r, const nb_value *v) {
    if (!is_tapped(r, v)) return;
    const nb_tensor t = tensor_of(r, v);
    for (size_t i = 0; i < r->n_taps; i++) {
        if (r->taps[i].value == v) r->taps[i].seen(r->taps[i].user, v, &t);
    }
}

static void release(running *r, const nb_value *v) {
    holder *h = holder_of(r, v);
    if (h->readers == 0 && h->arena) {
        nb_arena_destroy(h->arena);
        h->arena = NULL;
    }
}

static void drop(running *r, const nb_value *v) {
    if (nb_is_const(v)) return;
    holder_of(r, v)->readers--;
    release(r, v);
}

/* The values that `op` reads: its operands, but the codes behind them where a product of two
 * dequantized values is a product of codes. NULL for operands that are not given. */
static const nb_value *read_by(const nb_op *op, uint32_t i) {
    const nb_value *v = nb_in(op, i);
    return i < 2 && nb_is_product_of_codes(op) ? nb_in(v->def, 0) : v;
}

/* Is anyone interested in the result? */
static bool is_needed(running *r, const nb_op *op) {
    if (!nb_has_trait(op, NB_TRAIT_PURE) || op->n_results == 0) return true;
    bool needed = false;
    for (uint32_t i = 0; i < op->n_results; i++) {
        const nb_value *v = op->results[i];
        needed = needed || holder_of(r, v)->readers > 0 || is_tapped(r, v);
    }
    return needed;
}

/* From the last op to the first, so that ops that are not needed, among them each dequantize whose
 * users all work on the codes, do not count as readers. */
static void count_readers(running *r) {
    for (const nb_op *op = r->region->last; op; op = op->prev) {
        for (uint32_t i = 0; is_needed(r, op) && i < op->n_operands; i++) {
            if (nb_in(op, i) && !nb_is_const(read_by(op, i)))
                holder_of(r, read_by(op, i))->readers++;
        }
    }
}

static nb_status product_of_codes(const nb_op *op, const nb_tensor *in, int64_t *symbols,
                                  nb_tensor *out, nb_arena *arena, nb_diags *diags) {
    nb_arena *scratch = nb_arena_create_like(arena);
    nb_evaluating e = {
        .op = op, .in = in, .out = out, .symbols = symbols, .arena = scratch, .diags = diags};
    nb_status status = allocate(&e, nb_out(op)->type, out, arena);
    const bool depthwise = op->kind == NB_OP_depthwise;
    const nb_tensor *bias = depthwise && nb_in(op, 2) ? &in[2] : NULL;
    if (status == NB_OK)
        status = (depthwise ? nb_eval_depthwise_of_codes : nb_eval_product_of_codes)(
            &e, &in[0], read_by(op, 0)->type->quant, &in[1], read_by(op, 1)->type->quant, bias,
            NULL, out);
    nb_arena_destroy(scratch);
    return status;
}

/* Keeps a result, whose data is in the op's `arena`, while it has readers. The first one takes the
 * arena; others go at other times, and get one of their own. */
static void keep(running *r, const nb_value *v, nb_tensor t, nb_arena *arena) {
    holder *h = holder_of(r, v);
    *h = (holder){.tensor = t, .arena = arena, .readers = h->readers};
    if (v->index > 0) {
        h->arena = nb_arena_create_like(r->g->arena);
        h->tensor.data = nb_alloc(h->arena, (size_t)t.bytes + 8);
        if (t.bytes) memcpy(h->tensor.data, t.data, (size_t)t.bytes);
    }
    show(r, v);
}

static nb_status run_op(running *r, const nb_op *op, int64_t *symbols, nb_diags *diags) {
    nb_arena *arena = nb_arena_create_like(r->g->arena);
    nb_tensor *in = NB_NEW_ARRAY(arena, nb_tensor, (size_t)op->n_operands + 1),
              *results = NB_NEW_ARRAY(arena, nb_tensor, (size_t)op->n_results + 1);
    for (uint32_t i = 0; i < op->n_operands; i++) {
        if (nb_in(op, i)) in[i] = tensor_of(r, read_by(op, i));
    }
    nb_status status = NB_OK;
    if (nb_is_product_of_codes(op))
        status = product_of_codes(op, in, symbols, results, arena, diags);
    else
        status = nb_eval_op(op, in, symbols, results, arena, diags);
    if (status != NB_OK || op->n_results == 0) {
        nb_arena_destroy(arena);
        return status;
    }
    /* The first result takes the arena, in which the list of results is too: it goes last. */
    for (uint32_t i = op->n_results; i-- > 0;) keep(r, op->results[i], results[i], arena);
    for (uint32_t i = op->n_results; i-- > 0;) release(r, op->results[i]);
    for (uint32_t i = 0; i < op->n_operands; i++) {
        if (nb_in(op, i)) drop(r, read_by(op, i));
    }
    return NB_OK;
}

/* Every NaN as the positive quiet one without payload. */
static void canonical_nans(nb_tensor *t) {
    int64_t n = nb_elem_is_float(t->elem) ? nb_tensor_count(t) : 0;
    for (int64_t i = 0; i < n; i++) {
        if (isnan(nb_tensor_get(t, i))) nb_tensor_set_float(t, i, (double)NAN);
    }
}

static void copy_output(const nb_type *type, const nb_tensor *from, nb_tensor *to,
                        nb_arena *arena) {
    *to = *from;
    to->data = nb_alloc(arena, (size_t)from->bytes + 8);
    if (from->bytes) memcpy(to->data, from->data, (size_t)from->bytes);
    canonical_nans(to);
    if (!nb_has_own_scales(type)) return;
    int64_t n = count_scales(type, from);
    to->scales = NB_NEW_ARRAY(arena, float, (size_t)n + 1);
    for (int64_t i = 0; i < n; i++) to->scales[i] = isnan(from->scales[i]) ? NAN : from->scales[i];
}

/* Parameters, then the ops in order. */
static nb_status run_region(running *r, const nb_tensor *params, int64_t *symbols,
                            nb_diags *diags) {
    count_readers(r);
    for (uint32_t i = 0; i < r->region->n_params; i++) {
        holder_of(r, r->region->params[i])->tensor = params[i];
        show(r, r->region->params[i]);
    }
    for (const nb_op *op = r->region->first; op; op = op->next) {
        if (is_needed(r, op)) NB_TRY(run_op(r, op, symbols, diags));
    }
    return NB_OK;
}

static void release_all(running *r) {
    for (uint32_t i = 0; i < r->n_values; i++) nb_arena_destroy(r->values[i].arena);
}

/* The ids of a region's own values lie in first .. first + n_values - 1. */
static void find_ids(running *r) {
    uint32_t low = UINT32_MAX, high = 0;
    for (uint32_t i = 0; i < r->region->n_params; i++) {
        low = r->region->params[i]->id < low ? r->region->params[i]->id : low;
        high = r->region->params[i]->id > high ? r->region->params[i]->id : high;
    }
    for (const nb_op *op = r->region->first; op; op = op->next) {
        for (uint32_t i = 0; i < op->n_results; i++) {
            low = op->results[i]->id < low ? op->results[i]->id : low;
            high = op->results[i]->id > high ? op->results[i]->id : high;
        }
    }
    r->first = low <= high ? low : 0;
    r->n_values = low <= high ? high - low + 1 : 0;
}

nb_status nb_eval_region(const nb_evaluating *e, const nb_region *region, const nb_tensor *params,
                         nb_tensor *results, nb_arena *arena) {
    nb_arena *scratch = nb_arena_create_like(arena);
    running r = {.g = region->graph, .region = region};
    find_ids(&r);
    r.values = NB_NEW_ARRAY(scratch, holder, (size_t)r.n_values + 1);
    /* What is bound inside is not outside, nor in the next step. */
    const size_t n = e->symbols ? region->graph->symbols.count : 0;
    int64_t *symbols = NB_NEW_ARRAY(scratch, int64_t, n + 1);
    if (n) memcpy(symbols, e->symbols, n * sizeof *symbols);
    nb_status status = run_region(&r, params, symbols, e->diags);
    for (uint32_t i = 0; status == NB_OK && i < region->last->n_operands; i++) {
        const nb_tensor t = tensor_of(&r, nb_in(region->last, i));
        results[i] = t;
        results[i].data = nb_alloc(arena, (size_t)t.bytes + 8);
        if (t.bytes) memcpy(results[i].data, t.data, (size_t)t.bytes);
    }
    release_all(&r);
    nb_arena_destroy(scratch);
    return status;
}

/* Constants, then the body; the outputs are copied at the end. */
static nb_status run_all(running *r, const nb_tensor *inputs, nb_tensor *outputs, int64_t *symbols,
                         nb_arena *arena, nb_diags *diags) {
    const nb_graph *g = r->g;
    for (size_t i = 0; i < g->constants.count; i++) show(r, g->constants.items[i]);
    NB_TRY(run_region(r, inputs, symbols, diags));
    for (uint32_t i = 0; i < g->body.last->n_operands; i++) {
        const nb_value *v = nb_in(g->body.last, i);
        const nb_tensor t = tensor_of(r, v);
        copy_output(v->type, &t, &outputs[i], arena);
    }
    return NB_OK;
}

nb_status nb_eval(const nb_graph *g, const nb_tensor *inputs, nb_tensor *outputs,
                  const nb_tap *taps, size_t n_taps, nb_arena *arena, nb_diags *diags) {
    nb_arena *scratch = nb_arena_create_like(g->arena);
    running r = {
        .g = g, .region = &g->body, .n_values = g->n_values, .taps = taps, .n_taps = n_taps};
    r.values = NB_NEW_ARRAY(scratch, holder, (size_t)g->n_values + 1);
    r.tapped = NB_NEW_ARRAY(scratch, bool, (size_t)g->n_values + 1);
    int64_t *symbols = NB_NEW_ARRAY(scratch, int64_t, g->symbols.count + 1);
    for (size_t i = 0; i < n_taps; i++) r.tapped[taps[i].value->id] = true;
    nb_status status = nb_eval_bind(g, inputs, symbols, diags);
    if (status == NB_OK) status = run_all(&r, inputs, outputs, symbols, arena, diags);
    release_all(&r);
    nb_arena_destroy(scratch);
    return status;
}
