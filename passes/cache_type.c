/* cache-type: the element type in which key/value caches are held.
 *
 *   requires   raise; behind calibrate, whose samples are inputs of the graph as it was
 *   maintains  what attention reads of a token does not depend on when the token came: new entries
 *              are rounded before they join the past ones, and all readers see the joined ones
 *
 *   %k: f32[B,G,P+S,D] = concat %past, %new {axis=2}
 * becomes, with to=f16 (the input %past and the output are f16 from then on),
 *   %new.f16: f16[B,G,S,D] = cast %new {to=f16}
 *   %k: f16[B,G,P+S,D] = concat %past, %new.f16 {axis=2}
 *
 * and with to=i8, where a second pair holds a scale for each token and head:
 *   %new.q: #kv[B,G,S,D] = quantize %new {to=#kv}
 *   %new.i8: i8[B,G,S,D] = codes %new.q
 *   %new.scale: f32[B,G,S,1] = scales %new.q
 *   %k.scale: f32[B,G,P+S,1] = concat %past.scale, %new.scale {axis=2}
 *   %k: i8[B,G,P+S,D] = concat %past, %new.i8 {axis=2}
 *
 * A cache is a state pair joined by such a concat whose result is returned and otherwise is keys or
 * values of attention, nothing else. */
#include "ir/build.h"
#include "passes/pass.h"

#include <string.h>

static const char *const types[] = {"f32", "f16", "bf16", "i8", NULL};
static const nb_elem elems[] = {NB_F32, NB_F16, NB_BF16, NB_I8};

static const nb_option options[] = {
    {.name = "to",
     .kind = NB_OPTION_ENUM,
     .fallback = "f16",
     .choices = types,
     .summary = "type of keys and values: f16 ends at 65504, bf16 has the range of f32, i8 has a "
                "scale for each token and head"},
    {.name = NULL},
};

#define TOKENS 2 /* axis of keys and values [B,G,T,D] */

typedef struct cache {
    uint32_t output;
    nb_value *past;
    nb_op *concat;
    NB_VEC(nb_use *) readers; /* operands of attention that are its result, casts left out */
} cache;

/* Is this use keys or values of an attention? */
static bool is_read(const nb_use *u) {
    return u->user->kind == NB_OP_attention && (u->index == 1 || u->index == 2);
}

/* Collects attention's uses of v, also behind casts; the first op that reads it otherwise. */
static const nb_op *find_readers(nb_arena *arena, const nb_value *v, cache *c) {
    for (nb_use *u = v->uses; u; u = u->next) {
        const nb_op *other = NULL;
        if (is_read(u))
            nb_vec_push(arena, &c->readers, u);
        else if (u->user->kind == NB_OP_cast && nb_out(u->user)->type->elem == NB_F32)
            other = find_readers(arena, nb_out(u->user), c);
        else if (u->user->kind != NB_OP_return || u->index != c->output)
            other = u->user;
        if (other) return other;
    }
    return NULL;
}

/* What else is done with a state that attention reads would see its type change, so that it keeps
 * the one it has. */
static void warn_reader(nb_pass_ctx *ctx, const cache *c, const nb_op *other) {
    ctx->host->report(ctx, NB_LEVEL_WARNING, other,
                      "the cache '%%%s' stays %s: attention is not all that reads it",
                      c->past->name, nb_elems[c->past->type->elem].text);
}

/* Is the pair a cache? */
static bool find_cache(nb_pass_ctx *ctx, const nb_state *s, cache *c) {
    const nb_graph *g = ctx->graph;
    nb_op *concat = nb_in(g->body.last, s->output)->def;
    *c = (cache){.output = s->output, .past = g->body.params[s->input], .concat = concat};
    if (s->axis != TOKENS || !concat || concat->kind != NB_OP_concat || concat->n_operands != 2 ||
        nb_in(concat, 0) != c->past || nb_attr_int(concat, "axis") != TOKENS)
        return false;
    const nb_op *other = find_readers(nb_state_of(ctx)->scratch, nb_out(concat), c);
    if (!c->readers.count) return false;
    if (!other && nb_has_one_use(c->past)) return true;
    for (const nb_use *u = c->past->uses; u && !other; u = u->next)
        if (u->user != concat) other = u->user;
    warn_reader(ctx, c, other);
    return false;
}

/* ---- conversion ---------------------------------------------------------------------------- */

/* What the graph returns: its outputs, then those that are added. */
typedef struct outputs {
    nb_arena *arena; /* of the two lists */
    NB_VEC(nb_value *) values;
    NB_VEC(const char *) names;
} outputs;

static nb_value *named(nb_graph *g, nb_value *v, const char *of, const char *suffix) {
    if (v) nb_set_name(g, v, nb_format(g->arena, "%s.%s", of, suffix));
    return v;
}

/* Joins `fresh` instead, and makes attention read it. */
static void join(nb_graph *g, const cache *c, nb_value *fresh) {
    nb_value *joined = nb_out(c->concat);
    nb_set_operand(&c->concat->operands[1], fresh);
    c->past->type = nb_type_with_elem(g, c->past->type, fresh->type->elem);
    joined->type = nb_type_with_elem(g, joined->type, fresh->type->elem);
    for (size_t i = 0; i < c->readers.count; i++) nb_set_operand(c->readers.items[i], joined);
}

static bool to_float(nb_builder *b, const cache *c, nb_elem to) {
    nb_value *fresh = nb_in(c->concat, 1), *cast = nb_cast(b, fresh, to);
    if (!named(b->graph, cast, fresh->name, nb_elems[to].text)) return false;
    join(b->graph, c, cast);
    return true;
}

static nb_value *quantize(nb_builder *b, nb_value *x) {
    static const nb_quant per_token = {
        .storage = NB_I8, .narrow = true, .granularity = NB_PER_TOKEN, .amax_code = 127};
    const nb_quant *q = nb_quant_intern(b->graph, &per_token, "kv", b->diags);
    if (!q) return NULL;
    if (x->type->elem != NB_F32) x = nb_cast(b, x, NB_F32);
    nb_begin(b, NB_OP_quantize);
    nb_arg(b, x);
    nb_set_quant(b, "to", q);
    return nb_end(b);
}

/* The pair of the scales, [B,G,T,1]: an input, what it is joined with, an output. */
static nb_value *pair_scales(nb_builder *b, const cache *c, nb_value *fresh, outputs *out) {
    nb_graph *g = b->graph;
    const nb_dim *dims[4];
    for (int d = 0; d < 4; d++)
        dims[d] = d == TOKENS ? c->past->type->dims[d] : fresh->type->dims[d];
    nb_value *past = nb_graph_add_input(g, nb_format(g->arena, "%s.scale", c->past->name),
                                        nb_type_intern(g, NB_F32, NULL, 4, dims));
    nb_begin(b, NB_OP_concat);
    nb_arg(b, past);
    nb_arg(b, fresh);
    nb_set_int(b, "axis", TOKENS);
    nb_value *joined = named(g, nb_end(b), nb_out(c->concat)->name, "scale");
    nb_state state = {.input = past->index, .output = (uint32_t)out->values.count, .axis = TOKENS};
    nb_vec_push(g->arena, &g->states, state);
    nb_vec_push(out->arena, &out->values, joined);
    const char *name = nb_format(g->arena, "%s.scale", out->names.items[c->output]);
    nb_vec_push(out->arena, &out->names, name);
    return joined;
}

static bool to_codes(nb_builder *b, const cache *c, outputs *out) {
    nb_graph *g = b->graph;
    nb_value *fresh = nb_in(c->concat, 1), *q = named(g, quantize(b, fresh), fresh->name, "q");
    nb_value *codes = q ? named(g, nb_unary(b, NB_OP_codes, q), fresh->name, "i8") : NULL,
             *scales = q ? named(g, nb_unary(b, NB_OP_scales, q), fresh->name, "scale") : NULL,
             *joined = codes && scales ? pair_scales(b, c, scales, out) : NULL;
    if (!joined) return false;
    join(g, c, codes);
    for (size_t i = 0; i < c->readers.count; i++) {
        const nb_use *u = c->readers.items[i]; /* k, v are operands 1, 2; their scales 4, 5 */
        nb_set_operand(&u->user->operands[u->index + 3], joined);
    }
    if (g->stage < NB_STAGE_QDQ) g->stage = NB_STAGE_QDQ;
    return true;
}

static bool convert(nb_pass_ctx *ctx, const cache *c, nb_elem to, outputs *out) {
    nb_builder b = nb_pass_builder(ctx, c->concat, c->concat->loc);
    if (c->past->type->elem != NB_I8)
        return to == NB_I8 ? to_codes(&b, c, out) : to_float(&b, c, to);
    ctx->host->report(ctx, NB_LEVEL_ERROR, c->concat, "the cache '%%%s' is i8 already",
                      c->past->name);
    ctx->host->help(ctx, "only caches of floats change their type");
    return false;
}

/* ---- the pass ------------------------------------------------------------------------------ */

/* A selection of nothing is an error: whoever asked for a type of cache believes there is one. */
static nb_pass_result none(nb_pass_ctx *ctx) {
    ctx->host->report(ctx, NB_LEVEL_ERROR, NULL,
                      "there is no key/value cache: none of %zu states joins keys or values of "
                      "attention",
                      ctx->graph->states.count);
    ctx->host->help(ctx, "raise finds states and attention; a decoder exported without inputs for "
                         "past keys and values has none");
    return NB_PASS_FAILED;
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    nb_graph *g = ctx->graph;
    nb_elem to = elems[nb_option_of(ctx, "to")->i];
    size_t found = 0, count = g->states.count, n_outputs = g->outputs.count;
    bool changed = false;
    outputs out = {.arena = nb_state_of(ctx)->scratch};
    for (uint32_t i = 0; i < n_outputs; i++) {
        nb_vec_push(out.arena, &out.values, nb_in(g->body.last, i));
        nb_vec_push(out.arena, &out.names, g->outputs.items[i]);
    }
    for (size_t i = 0; i < count; i++) { /* pairs of scales are added behind them */
        cache c;
        if (!find_cache(ctx, &g->states.items[i], &c)) continue;
        found++;
        if (c.past->type->elem == to) continue;
        if (!convert(ctx, &c, to, &out)) return NB_PASS_FAILED;
        changed = true;
    }
    if (!found) return none(ctx);
    if (out.values.count > n_outputs)
        nb_graph_set_outputs(g, out.values.count, out.values.items, out.names.items);
    /* Samples are inputs of the graph as it was. */
    if (changed) nb_state_of(ctx)->env->n_samples = 0;
    nb_graph_sweep(g);
    return nb_pass_end(ctx, changed);
}

const nb_pass nb_pass_cache_type = {
    .size = sizeof(nb_pass),
    .name = "cache-type",
    .options = options,
    .run = run,
    .summary = "hold key/value caches in another element type",
};
