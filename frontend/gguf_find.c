/* Which decoder of llama's kind a graph is, in any stage: its constants by role (gguf.h).
 *
 * The residual stream is followed from the embedding to the head, layer by layer, so that nothing
 * between is overlooked: each op on the way is one that llama has there, or the graph is refused.
 * Frequencies of rotary embeddings are what the graph computes for position 1. */
#include "frontend/gguf.h"

#include "ir/eval.h"

#include <math.h>
#include <string.h>

typedef struct finder {
    nb_graph *g;
    nb_arena *arena;
    nb_diags *diags;
    nb_llama *out;
    const nb_op *rotary; /* the first one */
} finder;

/* A linear layer: what it takes, its matrix, bias, and what it is added to. */
typedef struct layer {
    nb_value *x, *w, *bias, *residual, *y;
} layer;

static nb_status refuse(finder *f, const nb_value *v, const char *what) {
    const nb_op *op = v ? v->def : NULL;
    const char *node = op ? nb_loc_name(op->loc) : "";
    nb_error(f->diags, NB_UNSUPPORTED,
             (nb_where){.file = f->g->file, .node = *node ? node : NULL, .offset = -1},
             "this cannot be written as a llama decoder: expected %s, found %s", what,
             op  ? nb_info(op)->name
             : v ? v->name
                 : "nothing");
    return NB_UNSUPPORTED;
}

/* Behind ops that move numbers, or round them. */
static nb_value *strip(nb_value *v) {
    for (;;) {
        const nb_op *op = v ? v->def : NULL;
        if (!op || (op->kind != NB_OP_reshape && op->kind != NB_OP_transpose &&
                    op->kind != NB_OP_quantize && op->kind != NB_OP_dequantize))
            return v;
        v = nb_in(op, 0);
    }
}

static bool is(const nb_value *v, nb_op_kind kind) { return v && v->def && v->def->kind == kind; }

static nb_value *constant(nb_value *v) {
    v = strip(v);
    return v && nb_is_const(v) ? v : NULL;
}

/* matmul or qmatmul by a constant, with what is added. */
static bool read_layer(nb_value *v, layer *out) {
    *out = (layer){.y = v};
    if (is(v, NB_OP_qmatmul)) {
        out->bias = nb_in(v->def, 2);
        out->residual = nb_in(v->def, 3);
    } else if (is(v, NB_OP_add)) {
        for (uint32_t i = 0; i < 2; i++) {
            layer inner;
            nb_value *other = nb_in(v->def, 1 - i);
            if (!read_layer(nb_in(v->def, i), &inner) || inner.residual) continue;
            *out = inner;
            out->y = v;
            if (nb_is_const(other) && other->type->rank == 1 && !inner.bias)
                out->bias = other;
            else
                out->residual = other;
            return true;
        }
        return false;
    } else if (!is(v, NB_OP_matmul)) {
        return false;
    }
    out->x = strip(nb_in(v->def, 0));
    out->w = constant(nb_in(v->def, 1));
    return out->w && out->w->type->rank == 2;
}

static nb_status add(finder *f, const char *name, nb_value *w, bool rows, int64_t turns) {
    if (!w) return NB_OK;
    const nb_llama_tensor t = {name, w, rows, turns};
    nb_vec_push(f->arena, &f->out->tensors, t);
    return NB_OK;
}

static const char *name_of(finder *f, int64_t n, const char *part, const char *end) {
    return n < 0 ? nb_format(f->arena, "%s.%s", part, end)
                 : nb_format(f->arena, "blk.%lld.%s.%s", (long long)n, part, end);
}

/* A layer without residual from x: its matrix [in, out] and bias become tensors. */
static nb_status take_layer(finder *f, nb_value *v, int64_t n, const char *part, int64_t turns,
                            layer *out) {
    if (!read_layer(strip(v), out)) return refuse(f, strip(v), "a linear layer");
    NB_TRY(add(f, name_of(f, n, part, "weight"), out->w, false, turns));
    return add(f, name_of(f, n, part, "bias"), out->bias, false, turns);
}

static nb_status take_norm(finder *f, nb_value *v, int64_t n, const char *part, nb_value **x) {
    if (!is(v, NB_OP_rms_norm) || !nb_is_const(nb_in(v->def, 1)))
        return refuse(f, v, "rms_norm by a constant");
    const float eps = nb_attr_float(v->def, "eps");
    if (f->out->eps != 0 && f->out->eps != eps) return refuse(f, v, "one epsilon in all norms");
    f->out->eps = eps;
    *x = nb_in(v->def, 0);
    return add(f, name_of(f, n, part, "weight"), nb_in(v->def, 1), false, 0);
}

/* ---- attention ------------------------------------------------------------------------------ */

/* What is new of keys or values: behind the joining with those of the past, and repeated heads. */
static nb_value *newest(nb_value *v) {
    v = strip(v);
    if (is(v, NB_OP_concat) && v->def->n_operands == 2) v = strip(nb_in(v->def, 1));
    return v;
}

static nb_status take_rotated(finder *f, nb_value *v, int64_t n, const char *part, int64_t heads,
                              layer *out) {
    if (!is(v, NB_OP_rotary)) return refuse(f, v, "rotary");
    if (!f->rotary) f->rotary = v->def;
    if (nb_in(v->def, 1) != nb_in(f->rotary, 1) || nb_in(v->def, 2) != nb_in(f->rotary, 2))
        return refuse(f, v, "the same angles in all layers");
    return take_layer(f, nb_in(v->def, 0), n, part, nb_attr_bool(v->def, "interleaved") ? 0 : heads,
                      out);
}

static nb_status take_attention(finder *f, const nb_op *op, int64_t n, nb_value **x) {
    nb_llama *l = f->out;
    layer q, k, v;
    const nb_type *t = nb_in(op, 0)->type, *s = nb_in(op, 1)->type;
    for (int d = 1; d < 4; d += 2)
        if (!nb_dim_is_const(t->dims[d]) || !nb_dim_is_const(s->dims[d]))
            return refuse(f, nb_out(op), "known numbers of heads");
    l->heads = t->dims[1]->value;
    l->groups = s->dims[1]->value;
    l->head = t->dims[3]->value;
    const float scale = nb_attr_float(op, "scale"), usual = 1 / sqrtf((float)l->head);
    if (fabsf(scale - usual) > 1e-5f * usual || nb_in(op, 4))
        return refuse(f, nb_out(op), "attention by 1/sqrt(head), of floats");
    NB_TRY(take_rotated(f, strip(nb_in(op, 0)), n, "attn_q", l->heads, &q));
    NB_TRY(take_rotated(f, newest(nb_in(op, 1)), n, "attn_k", l->groups, &k));
    NB_TRY(take_layer(f, newest(nb_in(op, 2)), n, "attn_v", 0, &v));
    if (q.x != k.x || q.x != v.x || q.residual || k.residual || v.residual)
        return refuse(f, q.y, "queries, keys and values of one norm");
    return take_norm(f, q.x, n, "attn_norm", x);
}

/* ---- layers --------------------------------------------------------------------------------- */

/* The layer that ends in x + layer(inner): of all users of `inner` behind moves. */
static bool find_layer(finder *f, const nb_value *inner, layer *out) {
    for (nb_op *op = f->g->body.first; op; op = op->next) {
        if (op->n_results != 1 || !read_layer(nb_out(op), out) || strip(out->x) != inner) continue;
        if (out->residual) return true;
    }
    return false;
}

static nb_status take_end(finder *f, const nb_value *inner, int64_t n, const char *part,
                          const nb_value *stream, nb_value **y) {
    layer l;
    if (!find_layer(f, inner, &l))
        return refuse(f, inner->def ? nb_out(inner->def) : NULL,
                      "a linear layer that is added to the stream");
    if (l.residual != stream) return refuse(f, l.y, "a sum with the layer's own input");
    *y = l.y;
    NB_TRY(add(f, name_of(f, n, part, "weight"), l.w, false, 0));
    return add(f, name_of(f, n, part, "bias"), l.bias, false, 0);
}

static nb_op *next_of(nb_op *op, nb_op_kind kind) {
    while (op && op->kind != kind) op = op->next;
    return op;
}

/* silu(gate) * up, of the norm of `stream`. */
static nb_status take_feed_forward(finder *f, nb_op *silu, int64_t n, nb_value *stream,
                                   nb_value **y) {
    layer gate, up;
    nb_value *x, *product = NULL;
    if (!silu) return refuse(f, stream, "silu behind it");
    for (const nb_use *u = nb_out(silu)->uses; u; u = u->next)
        if (u->user->kind == NB_OP_mul) product = nb_out(u->user);
    if (!product) return refuse(f, nb_out(silu), "a product with silu");
    const bool first = nb_in(product->def, 0) == nb_out(silu);
    NB_TRY(take_layer(f, nb_in(silu, 0), n, "ffn_gate", 0, &gate));
    NB_TRY(take_layer(f, nb_in(product->def, first ? 1 : 0), n, "ffn_up", 0, &up));
    if (gate.x != up.x || gate.residual || up.residual)
        return refuse(f, gate.y, "gate and up of one norm");
    NB_TRY(take_norm(f, gate.x, n, "ffn_norm", &x));
    if (x != stream) return refuse(f, x, "the norm of the stream");
    f->out->hidden = gate.w->type->dims[1]->value;
    return take_end(f, product, n, "ffn_down", stream, y);
}

static nb_status take_embedding(finder *f, nb_value **stream) {
    for (nb_op *op = f->g->body.first; op; op = op->next) {
        if (op->kind != NB_OP_gather && op->kind != NB_OP_qgather) continue;
        nb_value *table = constant(nb_in(op, 0));
        if (!table || table->type->rank != 2 || !nb_in(op, 1)->region) continue;
        f->out->vocabulary = table->type->dims[0]->value;
        f->out->width = table->type->dims[1]->value;
        *stream = nb_out(op);
        return add(f, "token_embd.weight", table, true, 0);
    }
    return refuse(f, NULL, "rows of a constant by an input");
}

static nb_status take_layers(finder *f, nb_value **stream) {
    nb_op *at = f->g->body.first, *silu = f->g->body.first;
    for (int64_t n = 0; (at = next_of(at, NB_OP_attention)); n++, at = at->next) {
        nb_value *x;
        NB_TRY(take_attention(f, at, n, &x));
        if (x != *stream) return refuse(f, x, "the norm of the stream");
        NB_TRY(take_end(f, nb_out(at), n, "attn_output", *stream, stream));
        silu = next_of(silu, NB_OP_silu);
        NB_TRY(take_feed_forward(f, silu, n, *stream, stream));
        silu = silu->next;
        f->out->layers = n + 1;
    }
    return f->out->layers ? NB_OK : refuse(f, NULL, "attention");
}

static nb_status take_head(finder *f, const nb_value *stream) {
    layer head;
    nb_value *x;
    NB_TRY(take_layer(f, nb_in(f->g->body.last, 0), -1, "output", 0, &head));
    NB_TRY(take_norm(f, head.x, -1, "output_norm", &x));
    if (x == stream && !head.residual) return NB_OK;
    return refuse(f, head.y, "the head behind the last layer's norm");
}

/* ---- frequencies ---------------------------------------------------------------------------- */

/* An input of two tokens without a past. */
static nb_tensor made_up(finder *f, const nb_value *v) {
    nb_tensor t = {.elem = v->type->elem, .rank = v->type->rank};
    int64_t count = 1;
    for (int d = 0; d < t.rank; d++) {
        const nb_dim *dim = v->type->dims[d];
        t.dims[d] = nb_dim_is_const(dim) ? dim->value : t.rank > 2 ? (d == 0) : d == 0 ? 1 : 2;
        count *= t.dims[d];
    }
    (void)!nb_elem_bytes_of(t.elem, count, &t.bytes);
    t.data = nb_alloc(f->arena, (size_t)t.bytes + 16);
    const bool mask = strstr(v->name, "mask") != NULL, place = strstr(v->name, "position") != NULL;
    for (int64_t i = 0; i < count && (mask || place); i++)
        nb_elem_put(t.elem, t.data, i, (uint64_t)(mask ? 1 : i));
    return t;
}

static nb_value *same_value(nb_graph *g, const nb_value *v) {
    for (nb_op *op = g->body.first; op; op = op->next)
        for (uint32_t i = 0; i < op->n_results; i++)
            if (op->results[i]->id == v->id) return op->results[i];
    for (size_t i = 0; i < g->constants.count; i++)
        if (g->constants.items[i]->id == v->id) return g->constants.items[i];
    return NULL;
}

/* cos and sin of position 1, which a copy of the graph computes alone. */
static nb_status run_angles(finder *f, nb_tensor out[2]) {
    static const char *const names[2] = {"cos", "sin"};
    nb_graph *copy = nb_graph_clone(f->g);
    nb_value *const values[2] = {same_value(copy, nb_in(f->rotary, 1)),
                                 same_value(copy, nb_in(f->rotary, 2))};
    nb_tensor *in = NB_NEW_ARRAY(f->arena, nb_tensor, copy->body.n_params + 1);
    nb_status status = NB_UNSUPPORTED;
    for (uint32_t i = 0; i < copy->body.n_params; i++) in[i] = made_up(f, copy->body.params[i]);
    if (values[0] && values[1]) {
        copy->states.count = 0;
        nb_graph_set_outputs(copy, 2, values, names);
        nb_graph_sweep(copy);
        status = nb_eval(copy, in, out, NULL, 0, f->arena, f->diags);
    }
    nb_graph_destroy(copy);
    return status;
}

/* base^(-2i/D) / factor[i] is frequency i. A base within rounding of an integer is that. */
static nb_status find_frequencies(finder *f) {
    nb_llama *l = f->out;
    nb_tensor t[2];
    const int64_t n = l->head / 2;
    NB_TRY(run_angles(f, t));
    if (t[0].rank != 3 || t[0].dims[1] != 2 || t[0].dims[2] != n || n < 2)
        return refuse(f, nb_out(f->rotary), "angles of each position");
    double *angles = NB_NEW_ARRAY(f->arena, double, (size_t)n);
    for (int64_t i = 0; i < n; i++)
        angles[i] = atan2(nb_tensor_get(&t[1], n + i), nb_tensor_get(&t[0], n + i));
    const double base = pow(angles[n - 1] / angles[0], -(double)l->head / (2.0 * (double)(n - 1)));
    l->base = (float)(fabs(base - round(base)) < 1e-3 * base ? round(base) : base);
    bool plain = true;
    l->factors = NB_NEW_ARRAY(f->arena, float, (size_t)n);
    for (int64_t i = 0; i < n; i++) {
        l->factors[i] =
            (float)(pow((double)l->base, -2.0 * (double)i / (double)l->head) / angles[i]);
        if (!isfinite(l->factors[i]) || l->factors[i] <= 0)
            return refuse(f, nb_out(f->rotary), "angles that grow with the position");
        plain = plain && fabsf(l->factors[i] - 1) < 1e-3f;
    }
    if (plain) l->factors = NULL;
    return NB_OK;
}

nb_status nb_llama_find(nb_graph *g, nb_arena *arena, nb_diags *diags, nb_llama *out) {
    finder f = {.g = g, .arena = arena, .diags = diags, .out = out};
    nb_value *stream;
    *out = (nb_llama){0};
    NB_TRY(take_embedding(&f, &stream));
    NB_TRY(take_layers(&f, &stream));
    NB_TRY(take_head(&f, stream));
    return find_frequencies(&f);
}
