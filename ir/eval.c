/* Runs a graph op by op (eval.h): binds symbols, keeps tensors while someone still reads them. */
#include "ir/eval.h"

#include "ir/eval_private.h"

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

int64_t nb_dim_value(const nb_evaluating *e, const nb_dim *d) {
    int64_t v = 0;
    return nb_dim_eval(d, e->symbols, &v) ? v : 0;
}

nb_status nb_eval_return(const nb_evaluating *e) {
    (void)e;
    return NB_OK;
}

/* Shape and zeroed memory for a result. */
static nb_status allocate(const nb_evaluating *e, const nb_type *type, nb_tensor *t) {
    int64_t count = 1;
    *t = (nb_tensor){.elem = type->elem, .rank = type->rank};
    for (int d = 0; d < type->rank; d++) {
        if (!nb_dim_eval(type->dims[d], e->symbols, &t->dims[d]) || t->dims[d] < 0 ||
            !nb_mul_i64(count, t->dims[d], &count))
            return nb_eval_error(e, "axis %d of the result has no valid size (%s)", d,
                                 nb_dim_text(e->arena, type->dims[d]));
    }
    if (!nb_elem_bytes_of(type->elem, count, &t->bytes) || t->bytes > INT64_C(1) << 40)
        return nb_eval_error(e, "the result of %lld elements is too large", (long long)count);
    t->data = nb_alloc(e->arena, (size_t)t->bytes + 8);
    if (type->quant &&
        (type->quant->granularity == NB_PER_TOKEN || type->quant->granularity == NB_PER_BLOCK)) {
        int64_t last = t->dims[t->rank - 1], blocks = type->quant->granularity == NB_PER_BLOCK
                                                          ? nb_ceildiv(last, type->quant->group)
                                                          : 1;
        int64_t rows = last ? count / last : 0;
        t->scales = NB_NEW_ARRAY(e->arena, float, (size_t)(rows * blocks) + 1);
    }
    return NB_OK;
}

nb_status nb_eval_op(const nb_op *op, const nb_tensor *operands, const int64_t *symbols,
                     nb_tensor *results, nb_arena *arena, nb_diags *diags) {
    nb_evaluating e = {.op = op,
                       .in = operands,
                       .out = results,
                       .symbols = symbols,
                       .arena = arena,
                       .diags = diags};
    for (uint32_t i = 0; i < op->n_results; i++)
        NB_TRY(allocate(&e, op->results[i]->type, &results[i]));
    return families[op->kind](&e);
}

/* ---- binding symbols ----------------------------------------------------------------------- */

static nb_status input_error(const nb_graph *g, uint32_t input, nb_diags *diags, const char *what) {
    return nb_error(diags, NB_MALFORMED,
                    (nb_where){.offset = -1, .file = g->file, .node = g->body.params[input]->name},
                    "input \"%s\": %s", g->body.params[input]->name, what);
}

static nb_status bind(const nb_graph *g, const nb_tensor *inputs, int64_t *symbols, nb_arena *arena,
                      nb_diags *diags) {
    for (size_t i = 0; i < g->symbols.count; i++) symbols[i] = -1;
    for (uint32_t i = 0; i < g->body.n_params; i++) {
        const nb_type *t = g->body.params[i]->type;
        if (inputs[i].elem != t->elem || inputs[i].rank != t->rank)
            return input_error(g, i, diags,
                               nb_format(arena, "expected %s, found %s of rank %d",
                                         nb_type_text(arena, t), nb_elems[inputs[i].elem].text,
                                         inputs[i].rank));
        for (int d = 0; d < t->rank; d++) {
            if (t->dims[d]->kind == NB_DIM_SYMBOL && symbols[t->dims[d]->symbol->index] < 0)
                symbols[t->dims[d]->symbol->index] = inputs[i].dims[d];
        }
    }
    for (size_t i = 0; i < g->symbols.count; i++) {
        const nb_symbol *s = g->symbols.items[i];
        if (symbols[i] < 0) continue; /* nothing depends on it, or a check below fails */
        if (symbols[i] < s->min || symbols[i] > s->max)
            return nb_error(diags, NB_MALFORMED, (nb_where){.offset = -1, .file = g->file},
                            "dimension %s is %lld, outside %lld..%lld", s->name,
                            (long long)symbols[i], (long long)s->min, (long long)s->max);
    }
    for (uint32_t i = 0; i < g->body.n_params; i++) {
        const nb_type *t = g->body.params[i]->type;
        for (int d = 0; d < t->rank; d++) {
            int64_t want;
            if (nb_dim_eval(t->dims[d], symbols, &want) && want == inputs[i].dims[d]) continue;
            return input_error(g, i, diags,
                               nb_format(arena, "axis %d is %lld, expected %s", d,
                                         (long long)inputs[i].dims[d],
                                         nb_dim_text(arena, t->dims[d])));
        }
    }
    return NB_OK;
}

/* ---- the run ------------------------------------------------------------------------------- */

typedef struct holder {
    nb_tensor tensor;
    nb_arena *arena; /* of the op that made it; NULL for inputs and constants */
    size_t readers;  /* uses not yet executed */
} holder;

typedef struct running {
    const nb_graph *g;
    holder *values; /* by id */
    const nb_tap *taps;
    size_t n_taps;
    bool *tapped; /* by id */
} running;

static void show(running *r, const nb_value *v) {
    if (!r->tapped[v->id]) return;
    for (size_t i = 0; i < r->n_taps; i++) {
        if (r->taps[i].value == v) r->taps[i].seen(r->taps[i].user, v, &r->values[v->id].tensor);
    }
}

static void release(running *r, const nb_value *v) {
    holder *h = &r->values[v->id];
    if (h->readers == 0 && h->arena) {
        nb_arena_destroy(h->arena);
        h->arena = NULL;
    }
}

static void drop(running *r, const nb_value *v) {
    if (!v) return;
    r->values[v->id].readers--;
    release(r, v);
}

/* A matmul of two dequantized values reads the codes behind them. */
static const nb_value *codes_behind(const nb_op *op, size_t i) {
    return nb_in(nb_in(op, i)->def, 0);
}

static void count_readers(running *r) {
    for (const nb_op *op = r->g->body.first; op; op = op->next) {
        for (uint32_t i = 0; i < op->n_operands; i++) {
            if (nb_in(op, i)) r->values[nb_in(op, i)->id].readers++;
        }
        for (size_t i = 0; nb_is_product_of_codes(op) && i < 2; i++)
            r->values[codes_behind(op, i)->id].readers++;
    }
}

static nb_status run_op(running *r, const nb_op *op, const int64_t *symbols, nb_diags *diags) {
    nb_arena *arena = nb_arena_create_like(r->g->arena);
    nb_tensor *in = NB_NEW_ARRAY(arena, nb_tensor, (size_t)op->n_operands + 1), results[8];
    for (uint32_t i = 0; i < op->n_operands; i++) {
        if (nb_in(op, i)) in[i] = r->values[nb_in(op, i)->id].tensor;
    }
    nb_status status;
    if (nb_is_product_of_codes(op)) {
        const nb_value *a = codes_behind(op, 0), *b = codes_behind(op, 1);
        nb_evaluating e = {
            .op = op, .in = in, .out = results, .symbols = symbols, .arena = arena, .diags = diags};
        status = allocate(&e, nb_out(op)->type, &results[0]);
        if (status == NB_OK)
            status = nb_eval_product_of_codes(&e, &r->values[a->id].tensor, a->type->quant,
                                              &r->values[b->id].tensor, b->type->quant, NULL, NULL,
                                              results);
    } else {
        status = nb_eval_op(op, in, symbols, results, arena, diags);
    }
    if (status != NB_OK) {
        nb_arena_destroy(arena);
        return status;
    }
    for (uint32_t i = 0; i < op->n_results; i++) {
        holder *h = &r->values[op->results[i]->id];
        h->tensor = results[i];
        h->arena = arena; /* every op of today has one result, so this is its only owner */
        show(r, op->results[i]);
    }
    if (!op->n_results) nb_arena_destroy(arena);
    for (uint32_t i = 0; i < op->n_results; i++) release(r, op->results[i]);
    if (nb_has_trait(op, NB_TRAIT_TERMINATOR)) return NB_OK;
    for (uint32_t i = 0; i < op->n_operands; i++) drop(r, nb_in(op, i));
    for (size_t i = 0; nb_is_product_of_codes(op) && i < 2; i++) drop(r, codes_behind(op, i));
    return NB_OK;
}

static void copy_output(const nb_tensor *from, nb_tensor *to, nb_arena *arena) {
    *to = *from;
    to->data = nb_alloc(arena, (size_t)from->bytes + 8);
    if (from->bytes) memcpy(to->data, from->data, (size_t)from->bytes);
    to->scales = NULL;
}

nb_status nb_eval(const nb_graph *g, const nb_tensor *inputs, nb_tensor *outputs,
                  const nb_tap *taps, size_t n_taps, nb_arena *arena, nb_diags *diags) {
    nb_arena *scratch = nb_arena_create_like(g->arena);
    running r = {.g = g, .taps = taps, .n_taps = n_taps};
    r.values = NB_NEW_ARRAY(scratch, holder, (size_t)g->n_values + 1);
    r.tapped = NB_NEW_ARRAY(scratch, bool, (size_t)g->n_values + 1);
    int64_t *symbols = NB_NEW_ARRAY(scratch, int64_t, g->symbols.count + 1);
    for (size_t i = 0; i < n_taps; i++) r.tapped[taps[i].value->id] = true;
    nb_status status = bind(g, inputs, symbols, scratch, diags);
    if (status == NB_OK) count_readers(&r);
    for (size_t i = 0; status == NB_OK && i < g->constants.count; i++) {
        r.values[g->constants.items[i]->id].tensor = nb_tensor_of_const(g->constants.items[i]);
        show(&r, g->constants.items[i]);
    }
    for (uint32_t i = 0; status == NB_OK && i < g->body.n_params; i++) {
        r.values[g->body.params[i]->id].tensor = inputs[i];
        show(&r, g->body.params[i]);
    }
    for (const nb_op *op = g->body.first; op && status == NB_OK; op = op->next)
        status = run_op(&r, op, symbols, diags);
    for (uint32_t i = 0; status == NB_OK && i < g->body.last->n_operands; i++)
        copy_output(&r.values[nb_in(g->body.last, i)->id].tensor, &outputs[i], arena);
    for (uint32_t i = 0; i < g->n_values; i++) nb_arena_destroy(r.values[i].arena);
    nb_arena_destroy(scratch);
    return status;
}
