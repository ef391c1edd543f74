/* The residual stream in new coordinates (R1 of SpinQuant, Liu et al., arXiv 2405.16406).
 *
 * A stream is what its ops say: values of one width that are added up. From the input of a norm it
 * is followed through additions and views in both directions. Whatever writes to it must be a
 * constant that can be rotated, a linear layer, or rows of an embedding; whatever reads it must be
 * a linear layer or a norm with nothing but linear layers behind it.
 *
 * An rms_norm with gain 1 commutes with a rotation, so its gain moves into those layers first. A
 * layer_norm is an rms_norm of what has mean 0 (SliceGPT, Ashkboos et al., arXiv 2401.15024): where
 * layer_norms alone read a stream, all that writes to it loses its mean, and their biases pass
 * through the layers behind them. */
#include "passes/raise.h"
#include "passes/rotate.h"

typedef struct reader {
    nb_use *weight;
    nb_op *norm; /* between the stream and the layer, or NULL */
} reader;

/* A value of the stream, or behind one of its norms. */
typedef struct place {
    nb_value *value;
    nb_op *norm;
} place;

typedef struct stream {
    nb_arena *arena;
    nb_map *seen;        /* values of all streams -> the stream or the norm that they belong to */
    const nb_dim *width; /* of its rows */
    NB_VEC(place) places;
    NB_VEC(nb_use *) writers;
    NB_VEC(reader) readers;
    NB_VEC(nb_op *) norms;
    bool adds_up;             /* else it is no residual stream, just something that is normalized */
    bool centred;             /* a layer_norm reads it */
    const nb_op *mean_reader; /* what would see that the mean is gone */
    nb_refusal refusal;
} stream;

static const nb_dim *width_of(const nb_type *t) { return t->rank ? t->dims[t->rank - 1] : NULL; }

/* Is it one number for each row? */
static bool is_number_of_rows(const nb_value *v) {
    return v->type->rank == 0 || nb_dim_is(width_of(v->type), 1);
}

/* The operand whose rows `op` passes on (those of a table as well), whole, possibly times a number
 * each; NULL: there is none. */
static nb_use *carried(nb_op *op) {
    if (op->n_operands == 0 || op->n_results != 1 || !nb_in(op, 0)) return NULL;
    const nb_type *x = nb_in(op, 0)->type;
    const int last = x->rank - 1;
    bool whole = false;
    if (op->kind == NB_OP_mul && is_number_of_rows(nb_in(op, 0))) return &op->operands[1];
    if (last < 0 || !nb_out(op)->type->rank) return NULL;
    switch (op->kind) {
    case NB_OP_mul:
    case NB_OP_div:
        whole = is_number_of_rows(nb_in(op, 1));
        break;
    case NB_OP_reshape:
        whole = true;
        break;
    case NB_OP_transpose:
        whole = nb_attr_of(op, "perm")->ints.items[last] == last;
        break;
    case NB_OP_slice:
        whole = nb_dim_is(nb_attr_of(op, "start")->dims.items[last], 0) &&
                nb_attr_of(op, "step")->ints.items[last] == 1;
        break;
    case NB_OP_gather:
        whole = nb_attr_int(op, "axis") != last;
        break;
    default:
        break;
    }
    return whole && width_of(nb_out(op)->type) == x->dims[last] ? &op->operands[0] : NULL;
}

/* ---- following it -------------------------------------------------------------------------- */

static void join(stream *s, nb_value *v, nb_op *norm) {
    const void *part = norm ? (const void *)norm : s, *known = nb_map_get(s->seen, v);
    place p = {v, norm};
    if (known && known != part) {
        nb_refuse_rotation(&s->refusal, v->def, "this is part of it, and a norm or another stream");
    } else if (!known) {
        nb_map_set(s->seen, v, (void *)(uintptr_t)part);
        nb_vec_push(s->arena, &s->places, p);
    }
}

/* What an op takes to make values of the stream: a value of it too, or a constant. */
static void join_operand(stream *s, nb_use *use) {
    nb_value *v = use->value;
    if (width_of(v->type) != s->width)
        nb_refuse_rotation(&s->refusal, use->user, "it adds one number to all channels");
    else if (!nb_is_const(v))
        join(s, v, NULL);
    else if (nb_is_float_const(v))
        nb_vec_push(s->arena, &s->writers, use);
    else
        nb_refuse_rotation(&s->refusal, use->user, "it adds a constant that is not f32");
}

static void look_back(stream *s, nb_value *v) {
    nb_op *op = v->def;
    nb_use *from = op ? carried(op) : NULL;
    if (!op) {
        nb_refuse_rotation(&s->refusal, NULL, "it begins with an input of the model");
    } else if (op->kind == NB_OP_add) {
        for (int i = 0; i < 2; i++) join_operand(s, &op->operands[i]);
        s->adds_up |= !nb_is_const(nb_in(op, 0)) && !nb_is_const(nb_in(op, 1));
    } else if (nb_float_weight(op)) {
        nb_vec_push(s->arena, &s->writers, nb_float_weight(op));
    } else if (from) {
        join_operand(s, from);
    } else {
        nb_refuse_rotation(&s->refusal, op, "what this adds to it cannot be rotated");
    }
}

static const char *why_not_read(const nb_op *op) {
    if (op->kind == NB_OP_return) return "an output of the model shows it";
    if (op->kind == NB_OP_rms_norm || op->kind == NB_OP_layer_norm)
        return "gain and bias of this norm are not constants of f32";
    return "this reads it as it is";
}

static bool is_norm(const nb_op *op) {
    const bool centres = op->kind == NB_OP_layer_norm;
    return (centres || op->kind == NB_OP_rms_norm) && nb_is_float_const(nb_in(op, 1)) &&
           (!centres || !nb_in(op, 2) || nb_is_float_const(nb_in(op, 2)));
}

static void look_ahead(stream *s, const place *p, nb_use *u) {
    nb_op *op = u->user;
    const nb_op *sees_mean = NULL;
    reader r = {u->index == 0 ? nb_float_weight(op) : NULL, p->norm};
    if (r.weight) {
        nb_vec_push(s->arena, &s->readers, r);
        if (!p->norm) sees_mean = op;
    } else if (carried(op) == u && !(p->norm && nb_has_trait(op, NB_TRAIT_ELEMENTWISE))) {
        join(s, nb_out(op), p->norm);
    } else if (p->norm) { /* a number would scale a norm's bias, too */
        nb_refuse_rotation(&s->refusal, op, "this takes a norm of it, and is no linear layer");
    } else if (op->kind == NB_OP_add) {
        join(s, nb_out(op), NULL);
    } else if (u->index == 0 && is_norm(op)) {
        nb_vec_push(s->arena, &s->norms, op);
        join(s, nb_out(op), op);
        if (op->kind == NB_OP_layer_norm)
            s->centred = true;
        else
            sees_mean = op;
    } else {
        nb_refuse_rotation(&s->refusal, op, why_not_read(op));
    }
    if (!s->mean_reader) s->mean_reader = sees_mean;
}

static void follow(stream *s, nb_value *start) {
    s->width = width_of(start->type);
    join(s, start, NULL);
    for (size_t i = 0; i < s->places.count; i++) {
        place p = s->places.items[i]; /* the list grows */
        if (!p.norm) look_back(s, p.value);
        for (nb_use *u = p.value->uses; u; u = u->next) look_ahead(s, &p, u);
    }
    if (s->centred && s->mean_reader)
        nb_refuse_rotation(&s->refusal, s->mean_reader,
                           "layer_norms read it as well as this, which sees its mean");
}

/* ---- turning it ---------------------------------------------------------------------------- */

static nb_value *ones(nb_graph *g, nb_arena *arena, int64_t n) {
    float *one = NB_NEW_ARRAY(arena, float, (size_t)n);
    for (int64_t i = 0; i < n; i++) one[i] = 1;
    return nb_const_f32(g, "ones", 1, &n, one);
}

/* The norm of a rotated row: an rms_norm with gain 1. */
static void plain_norm(nb_turns *t, nb_op *norm, nb_value *one) {
    nb_builder b = nb_pass_builder(t->ctx, norm, norm->loc);
    if (norm->kind == NB_OP_layer_norm) {
        nb_begin(&b, NB_OP_rms_norm);
        nb_arg(&b, nb_in(norm, 0));
        nb_arg(&b, one);
        nb_set_float(&b, "eps", nb_attr_float(norm, "eps"));
        nb_replace_uses(nb_out(norm), nb_end(&b));
    } else {
        nb_set_operand(&norm->operands[1], one);
        norm->loc = b.loc;
    }
}

static void turn(nb_turns *t, const stream *s, uint64_t seed) {
    const int64_t n = s->width->value;
    nb_rotation *r = NB_NEW(s->arena, nb_rotation);
    *r = nb_rotation_random(s->arena, n, seed);
    nb_turn write = {.by = r, .axis = 1, .count = n, .centred = s->centred};
    for (size_t i = 0; i < s->writers.count; i++) nb_turns_add(t, s->writers.items[i], write);
    for (size_t i = 0; i < s->readers.count; i++) {
        const nb_op *norm = s->readers.items[i].norm;
        nb_turn read = {.by = r, .count = n, .gain = norm ? nb_in(norm, 1) : NULL};
        nb_turns_add(t, s->readers.items[i].weight, read);
    }
    nb_value *one = ones(t->ctx->graph, s->arena, n);
    for (size_t i = 0; i < s->norms.count; i++) plain_norm(t, s->norms.items[i], one);
}

/* Biases first, for all streams: what they become may be added to another one. */
static void move_biases(nb_turns *t, const stream *s) {
    if (!s->centred) return; /* an rms_norm has none */
    for (size_t i = 0; i < s->readers.count; i++) {
        const reader *r = &s->readers.items[i];
        const nb_value *bias = nb_in(r->norm, 2);
        if (bias) nb_add_through(t->ctx, bias, r->weight->user);
    }
    for (size_t i = 0; i < s->norms.count; i++)
        nb_set_operand(&s->norms.items[i]->operands[2], NULL);
}

void nb_rotate_residual(nb_turns *t, uint64_t seed) {
    nb_refusal refusal = {.ctx = t->ctx, .rule = "residual"};
    size_t found = 0;
    for (size_t round = 0; round < 2; round++) {
        nb_map seen = {.arena = nb_state_of(t->ctx)->scratch};
        NB_FOR_OPS(op, &t->ctx->graph->body) {
            if (op->kind != NB_OP_rms_norm && op->kind != NB_OP_layer_norm) continue;
            if (nb_is_const(nb_in(op, 0)) || nb_map_get(&seen, nb_in(op, 0))) continue;
            stream *s = NB_NEW(seen.arena, stream);
            *s = (stream){.arena = seen.arena, .seen = &seen};
            follow(s, nb_in(op, 0));
            if (!s->adds_up) continue;
            found += round;
            if (s->refusal.count && round)
                nb_refuse_rotation(&refusal, s->refusal.op, s->refusal.why);
            else if (round)
                turn(t, s, nb_hash_mix(seed, found));
            else if (!s->refusal.count)
                move_biases(t, s);
        }
    }
    nb_refusal_report(t->ctx, &refusal, "residual", "residual streams", found);
    if (found) return;
    t->ctx->host->report(t->ctx, NB_LEVEL_WARNING, NULL,
                         "residual: there is no residual stream: no sum is read by a norm");
    t->ctx->host->help(t->ctx, "raise finds norms: run it before");
}
