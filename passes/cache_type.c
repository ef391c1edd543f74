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
 * and with to=i4, where two more pairs hold a scale and a minimum for each token, head and group
 * (asymmetric groups along the head, as KIVI, arXiv 2402.02750, has them for values):
 *   %new.u4: u8[B,G,S,D/2], %new.scale: f16[B,G,N,S], %new.min: f16[B,G,N,S] = quantize_u4 %new
 *   %k.scale: f16[B,G,N,P+S] = concat %past.scale, %new.scale {axis=3}
 *   %k.min: f16[B,G,N,P+S] = concat %past.min, %new.min {axis=3}
 *   %k: u8[B,G,P+S,D/2] = concat %past, %new.u4 {axis=2} */
#include "ir/build.h"
#include "passes/cache.h"

static const char *const types[] = {"f32", "f16", "bf16", "i8", "i4", NULL};
/* What such a cache holds: two codes of 4 bits to a byte. */
static const nb_elem elems[] = {NB_F32, NB_F16, NB_BF16, NB_I8, NB_U8};

/* The same, behind "same". */
static const char *const key_types[] = {"same", "f32", "f16", "bf16", "i8", "i4", NULL};

static const nb_option options[] = {
    {.name = "to",
     .kind = NB_OPTION_ENUM,
     .fallback = "f16",
     .choices = types,
     .summary = "type of keys and values: f16 ends at 65504, bf16 has the range of f32, i8 has a "
                "scale for each token and head, i4 a scale and a minimum in f16 for each group of "
                "them"},
    {.name = "keys",
     .kind = NB_OPTION_ENUM,
     .fallback = "same",
     .choices = key_types,
     .summary = "another type for what is read as keys only, which need more bits than values"},
    {.name = "group",
     .kind = NB_OPTION_INT,
     .fallback = "32",
     .summary = "i4: elements of a head that share a scale: a power of two from 16 on",
     .min = 16,
     .max = 1024},
    {.name = "shape",
     .kind = NB_OPTION_BOOL,
     .fallback = "false",
     .summary =
         "i4: keys in a basis, found on samples (--calib), in which rounding errors do least "
         "harm, and each takes over errors of the one before"},
    {.name = "auto",
     .kind = NB_OPTION_BOOL,
     .fallback = "false",
     .summary = "without samples, no shape"},
    {.name = NULL},
};

/* What else is done with a state that attention reads would see its type change, so that it keeps
 * the one it has. */
static bool find_cache(nb_pass_ctx *ctx, const nb_state *s, nb_cache *c) {
    if (nb_find_cache(nb_state_of(ctx)->scratch, ctx->graph, s, c)) return true;
    if (c->other)
        ctx->host->report(ctx, NB_LEVEL_WARNING, c->other,
                          "the cache '%%%s' stays %s: attention is not all that reads it",
                          c->past->name, nb_elems[c->past->type->elem].text);
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

/* As many entries as type t has, of the element and size that `entry` has. */
static const nb_type *with_entry(nb_graph *g, const nb_type *t, const nb_type *entry) {
    const nb_dim *dims[4] = {t->dims[0], t->dims[1], t->dims[NB_TOKENS], entry->dims[3]};
    return nb_type_intern(g, entry->elem, NULL, 4, dims);
}

/* Joins `fresh` instead, and makes attention read it. */
static void join(nb_graph *g, const nb_cache *c, nb_value *fresh) {
    nb_value *joined = nb_out(c->concat);
    nb_set_operand(&c->concat->operands[1], fresh);
    c->past->type = with_entry(g, c->past->type, fresh->type);
    joined->type = with_entry(g, joined->type, fresh->type);
    for (size_t i = 0; i < c->readers.count; i++) nb_set_operand(c->readers.items[i], joined);
}

static bool to_float(nb_builder *b, const nb_cache *c, nb_elem to) {
    nb_value *fresh = nb_in(c->concat, 1), *cast = nb_cast(b, fresh, to);
    if (!named(b->graph, cast, fresh->name, nb_elems[to].text)) return false;
    join(b->graph, c, cast);
    return true;
}

static nb_value *to_f32(nb_builder *b, nb_value *x) {
    return x->type->elem == NB_F32 ? x : nb_cast(b, x, NB_F32);
}

static nb_value *quantize(nb_builder *b, nb_value *x) {
    static const nb_quant per_token = {
        .storage = NB_I8, .narrow = true, .granularity = NB_PER_TOKEN, .amax_code = 127};
    const nb_quant *q = nb_quant_intern(b->graph, &per_token, "kv", b->diags);
    if (!q) return NULL;
    x = to_f32(b, x);
    nb_begin(b, NB_OP_quantize);
    nb_arg(b, x);
    nb_set_quant(b, "to", q);
    return nb_end(b);
}

/* A pair for what stands beside codes, joined along `axis`: an input, what it is joined with, an
 * output, all named as the cache's with `suffix` behind. */
static nb_value *pair(nb_builder *b, const nb_cache *c, nb_value *fresh, int axis,
                      const char *suffix, outputs *out) {
    nb_graph *g = b->graph;
    const nb_dim *dims[4];
    for (int d = 0; d < 4; d++)
        dims[d] = d == axis ? c->past->type->dims[NB_TOKENS] : fresh->type->dims[d];
    nb_value *past = nb_graph_add_input(g, nb_format(g->arena, "%s.%s", c->past->name, suffix),
                                        nb_type_intern(g, fresh->type->elem, NULL, 4, dims));
    nb_begin(b, NB_OP_concat);
    nb_arg(b, past);
    nb_arg(b, fresh);
    nb_set_int(b, "axis", axis);
    nb_value *joined = named(g, nb_end(b), nb_out(c->concat)->name, suffix);
    nb_state state = {.input = past->index, .output = (uint32_t)out->values.count, .axis = axis};
    nb_vec_push(g->arena, &g->states, state);
    nb_vec_push(out->arena, &out->values, joined);
    const char *name = nb_format(g->arena, "%s.%s", out->names.items[c->output], suffix);
    nb_vec_push(out->arena, &out->names, name);
    return joined;
}

/* Readers get `v` too: as operand `offset` behind their keys, and as far behind their values. */
static void give_readers(const nb_cache *c, uint32_t offset, nb_value *v) {
    for (size_t i = 0; i < c->readers.count; i++) {
        const nb_use *u = c->readers.items[i];
        nb_set_operand(&u->user->operands[u->index + offset], v);
    }
}

static bool to_i8(nb_builder *b, const nb_cache *c, outputs *out) {
    nb_graph *g = b->graph;
    nb_value *fresh = nb_in(c->concat, 1), *q = named(g, quantize(b, fresh), fresh->name, "q");
    nb_value *codes = q ? named(g, nb_unary(b, NB_OP_codes, q), fresh->name, "i8") : NULL,
             *scales = q ? named(g, nb_unary(b, NB_OP_scales, q), fresh->name, "scale") : NULL;
    if (!codes || !scales) return false;
    nb_value *joined = pair(b, c, scales, NB_TOKENS, "scale", out);
    join(g, c, codes);
    give_readers(c, 3, joined);
    return true;
}

static bool to_i4(nb_builder *b, const nb_cache *c, nb_value *feedback, int64_t group,
                  outputs *out) {
    static const char *const names[] = {"u4", "scale", "min"};
    nb_graph *g = b->graph;
    nb_value *fresh = nb_in(c->concat, 1), *x = to_f32(b, fresh);
    nb_begin(b, NB_OP_quantize_u4);
    nb_arg(b, x);
    nb_arg(b, feedback);
    nb_set_int(b, "group", group);
    if (!nb_end(b)) return false;
    nb_value **made = b->op->results;
    for (int i = 0; i < 3; i++) named(g, made[i], fresh->name, names[i]);
    nb_value *scales = pair(b, c, made[1], NB_TOKENS + 1, "scale", out),
             *minima = pair(b, c, made[2], NB_TOKENS + 1, "min", out);
    join(g, c, made[0]);
    give_readers(c, 3, scales);
    give_readers(c, 5, minima);
    for (size_t i = 0; i < c->readers.count; i++) {
        nb_builder reader = {.op = c->readers.items[i]->user};
        nb_set_int(&reader, "group", group);
    }
    return true;
}

/* Reports why the cache cannot have the type asked for, if so. */
static bool refuse(nb_pass_ctx *ctx, const nb_cache *c, nb_elem to) {
    const nb_type *t = c->past->type;
    if (!nb_elem_is_float(t->elem)) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, c->concat, "the cache '%%%s' is %s already",
                          c->past->name, t->elem == NB_U8 ? "i4" : nb_elems[t->elem].text);
        ctx->host->help(ctx, "only caches of floats change their type");
        return true;
    }
    if (to != NB_U8 || (nb_dim_is_const(t->dims[3]) && t->dims[3]->value % 2 == 0)) return false;
    ctx->host->report(ctx, NB_LEVEL_ERROR, c->concat,
                      "the cache '%%%s' has heads of %s elements, i4 holds two in a byte",
                      c->past->name, nb_dim_text(nb_state_of(ctx)->scratch, t->dims[3]));
    ctx->host->help(ctx, "to=i8 takes heads of any size");
    return true;
}

static bool convert(nb_pass_ctx *ctx, const nb_cache *c, nb_elem to, nb_value *feedback,
                    outputs *out) {
    nb_builder b = nb_pass_builder(ctx, c->concat, c->concat->loc);
    if (nb_elem_is_float(to)) return to_float(&b, c, to);
    if (ctx->graph->stage < NB_STAGE_QDQ) ctx->graph->stage = NB_STAGE_QDQ;
    if (to == NB_I8) return to_i8(&b, c, out);
    return to_i4(&b, c, feedback, nb_option_of(ctx, "group")->i, out);
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

/* The type that the cache is to have. */
static nb_elem wanted(nb_pass_ctx *ctx, const nb_cache *c) {
    int64_t values = nb_option_of(ctx, "to")->i, keys = nb_option_of(ctx, "keys")->i;
    return elems[keys && nb_cache_is(c, 1) ? keys - 1 : values];
}

static bool becomes_i4(nb_pass_ctx *ctx, const nb_cache *c) {
    return c->past->type->elem != NB_U8 && wanted(ctx, c) == NB_U8;
}

/* Fills feedback[n] of those that become i4. */
static bool shape_keys(nb_pass_ctx *ctx, const nb_cache *caches, size_t n, nb_value **feedback) {
    nb_arena *scratch = nb_state_of(ctx)->scratch;
    nb_cache *codes = NB_NEW_ARRAY(scratch, nb_cache, n + 1);
    nb_value **found = NB_NEW_ARRAY(scratch, nb_value *, n + 1);
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        if (becomes_i4(ctx, &caches[i])) codes[count++] = caches[i];
    if (!count || nb_shape_keys(ctx, codes, count, found) != NB_OK) return !count;
    for (size_t i = 0, k = 0; i < n; i++)
        if (becomes_i4(ctx, &caches[i])) feedback[i] = found[k++];
    return true;
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    nb_graph *g = ctx->graph;
    nb_arena *scratch = nb_state_of(ctx)->scratch;
    size_t n = 0, n_outputs = g->outputs.count;
    bool changed = false;
    outputs out = {.arena = scratch};
    for (uint32_t i = 0; i < n_outputs; i++) {
        nb_vec_push(out.arena, &out.values, nb_in(g->body.last, i));
        nb_vec_push(out.arena, &out.names, g->outputs.items[i]);
    }
    nb_cache *caches = NB_NEW_ARRAY(scratch, nb_cache, g->states.count + 1);
    nb_value **feedback = NB_NEW_ARRAY(scratch, nb_value *, g->states.count + 1);
    for (size_t i = 0; i < g->states.count; i++)
        n += find_cache(ctx, &g->states.items[i], &caches[n]);
    if (!n) return none(ctx);
    for (size_t i = 0; i < n; i++) {
        nb_elem to = wanted(ctx, &caches[i]);
        if (caches[i].past->type->elem != to && refuse(ctx, &caches[i], to)) return NB_PASS_FAILED;
    }
    const bool shape = nb_option_of(ctx, "shape")->b &&
                       (ctx->host->sample_count(ctx) || !nb_option_of(ctx, "auto")->b);
    if (shape && !shape_keys(ctx, caches, n, feedback)) return NB_PASS_FAILED;
    for (size_t i = 0; i < n; i++) {
        nb_elem to = wanted(ctx, &caches[i]);
        if (caches[i].past->type->elem == to) continue;
        if (!convert(ctx, &caches[i], to, feedback[i], &out)) return NB_PASS_FAILED;
        changed = true;
    }
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
