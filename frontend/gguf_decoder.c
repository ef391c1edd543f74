/* A llama-like decoder of GGUF as a graph, in the form that exporters of ONNX give decoders:
 * input_ids, attention_mask, position_ids and past_key_values.N in, logits and present.N out.
 *
 *   token_embd                              rows by token; also the head when there is no `output`
 *   blk.N.attn_norm, attn_q, attn_k, attn_v, attn_output    x + o(attention(rope(q), rope(k), v))
 *   blk.N.ffn_norm, ffn_gate, ffn_up, ffn_down              x + down(silu(gate) * up)
 *   output_norm, output                     logits
 *   rope_freqs                              what frequencies are divided by
 *
 * Linear layers may have biases. Tokenizers are not read. */
#include "frontend/gguf.h"

#include "ir/build.h"
#include "ir/verify.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Architectures: which elements of a head rotate together. */
static const struct {
    const char *name;
    bool neighbours;
} architectures[] = {{"llama", true}, {"qwen2", false}};

typedef struct decoder {
    nb_gguf f;
    nb_builder b;
    const char *kind;
    bool neighbours;
    int64_t layers, width, hidden, heads, groups, head, vocabulary;
    float eps, base, stretch; /* stretch: positions are divided by it */
    const nb_dim *batch, *length, *past, *total;
    nb_value *ids, *mask, *positions, *keep, *cos, *sin;
    nb_value **pasts, **presents; /* keys and values by turns */
} decoder;

/* ---- values --------------------------------------------------------------------------------- */

static const char *key_of(decoder *d, const char *key) {
    return nb_format(d->f.arena, "%s.%s", d->kind, key);
}

/* fallback < 0: the value must be there. */
static nb_status count_of(decoder *d, const char *key, int64_t most, int64_t fallback,
                          int64_t *out) {
    const size_t before = d->f.diags->errors;
    key = key_of(d, key);
    if (!nb_gguf_int(&d->f, key, out)) {
        if (d->f.diags->errors != before) return nb_diags_status(d->f.diags);
        if (fallback < 0)
            return nb_gguf_error(&d->f, NB_MALFORMED, "there is no value \"%s\"", key);
        *out = fallback;
    }
    if (*out >= 1 && *out <= most) return NB_OK;
    return nb_gguf_error(&d->f, *out < 1 ? NB_MALFORMED : NB_LIMIT,
                         "value \"%s\" is %lld, not 1 to %lld", key, (long long)*out,
                         (long long)most);
}

static nb_status float_of(decoder *d, const char *key, float fallback, float *out) {
    const size_t before = d->f.diags->errors;
    key = key_of(d, key);
    *out = fallback;
    (void)nb_gguf_float(&d->f, key, out);
    if (d->f.diags->errors != before) return nb_diags_status(d->f.diags);
    if (isfinite(*out) && *out > 0) return NB_OK;
    return nb_gguf_error(&d->f, NB_MALFORMED, "value \"%s\" is not a positive number", key);
}

static nb_status choose_architecture(decoder *d) {
    const char *names = "";
    if (!nb_gguf_text(&d->f, "general.architecture", &d->kind))
        return nb_gguf_error(&d->f, NB_MALFORMED, "there is no text \"general.architecture\"");
    for (size_t i = 0; i < NB_COUNT(architectures); i++) {
        d->neighbours = architectures[i].neighbours;
        if (strcmp(d->kind, architectures[i].name) == 0) return NB_OK;
        names = nb_format(d->f.arena, "%s%s%s", names, i ? ", " : "", architectures[i].name);
    }
    return nb_gguf_error(&d->f, NB_UNSUPPORTED, "architecture \"%s\" is not supported; %s are",
                         d->kind, names);
}

static nb_status check_scaling(decoder *d) {
    const char *kind = "none";
    (void)nb_gguf_text(&d->f, key_of(d, "rope.scaling.type"), &kind);
    NB_TRY(float_of(d, "rope.scaling.factor", 1, &d->stretch));
    if (strcmp(kind, "none") == 0) d->stretch = 1;
    if (strcmp(kind, "none") == 0 || strcmp(kind, "linear") == 0) return NB_OK;
    return nb_gguf_error(&d->f, NB_UNSUPPORTED, "rope scaling \"%s\" is not supported", kind);
}

static nb_status read_values(decoder *d) {
    const int64_t most = INT64_C(1) << 24;
    int64_t turning, experts = 0;
    NB_TRY(choose_architecture(d));
    NB_TRY(count_of(d, "block_count", 1 << 12, -1, &d->layers));
    NB_TRY(count_of(d, "embedding_length", most, -1, &d->width));
    NB_TRY(count_of(d, "feed_forward_length", most, -1, &d->hidden));
    NB_TRY(count_of(d, "attention.head_count", 1 << 16, -1, &d->heads));
    NB_TRY(count_of(d, "attention.head_count_kv", 1 << 16, d->heads, &d->groups));
    NB_TRY(
        count_of(d, "attention.key_length", 1 << 16, nb_max_i64(d->width / d->heads, 1), &d->head));
    NB_TRY(count_of(d, "attention.value_length", 1 << 16, d->head, &turning));
    if (turning != d->head)
        return nb_gguf_error(&d->f, NB_UNSUPPORTED, "values of another length than keys");
    NB_TRY(count_of(d, "rope.dimension_count", 1 << 16, d->head, &turning));
    if (turning != d->head || d->head % 2)
        return nb_gguf_error(&d->f, NB_UNSUPPORTED,
                             "rotary embeddings of %lld of %lld elements; of all, an even number, "
                             "are supported",
                             (long long)turning, (long long)d->head);
    if (d->heads % d->groups)
        return nb_gguf_error(&d->f, NB_MALFORMED, "%lld heads for %lld heads of keys",
                             (long long)d->heads, (long long)d->groups);
    if (nb_gguf_int(&d->f, key_of(d, "expert_count"), &experts) && experts)
        return nb_gguf_error(&d->f, NB_UNSUPPORTED, "mixtures of experts are not supported");
    NB_TRY(float_of(d, "attention.layer_norm_rms_epsilon", 1e-5f, &d->eps));
    NB_TRY(float_of(d, "rope.freq_base", 10000, &d->base));
    NB_TRY(check_scaling(d));
    const nb_gguf_tensor *table = nb_map_get_str(&d->f.tensors, "token_embd.weight", 17);
    if (!table)
        return nb_gguf_error(&d->f, NB_MALFORMED, "there is no tensor \"token_embd.weight\"");
    d->vocabulary = table->dims[1];
    return NB_OK;
}

/* ---- ops ------------------------------------------------------------------------------------ */

static const char *name_of(decoder *d, int64_t layer, const char *part) {
    return layer < 0 ? nb_strdup(d->f.arena, part)
                     : nb_format(d->f.arena, "blk.%lld.%s", (long long)layer, part);
}

static nb_value *plain(decoder *d, nb_value *w) {
    return w && w->type->quant ? nb_unary(&d->b, NB_OP_dequantize, w) : w;
}

static nb_value *linear(decoder *d, nb_value *x, int64_t layer, const char *part, int64_t out,
                        int64_t in) {
    const char *name = name_of(d, layer, part);
    d->b.loc = nb_loc_at(d->f.graph, name);
    nb_value *w = nb_gguf_matrix(&d->f, nb_format(d->f.arena, "%s.weight", name), out, in, true),
             *bias = nb_gguf_vector(&d->f, nb_format(d->f.arena, "%s.bias", name), out, true),
             *y = nb_binary(&d->b, NB_OP_matmul, x, plain(d, w));
    return y && bias ? nb_binary(&d->b, NB_OP_add, y, bias) : y;
}

static nb_value *norm(decoder *d, nb_value *x, int64_t layer, const char *part) {
    const char *name = name_of(d, layer, part);
    d->b.loc = nb_loc_at(d->f.graph, name);
    nb_value *gain =
        nb_gguf_vector(&d->f, nb_format(d->f.arena, "%s.weight", name), d->width, false);
    nb_begin(&d->b, NB_OP_rms_norm);
    nb_arg(&d->b, x);
    nb_arg(&d->b, gain);
    nb_set_float(&d->b, "eps", d->eps);
    return nb_end(&d->b);
}

static const nb_dim *number(decoder *d, int64_t n) { return nb_dim_const(d->f.graph, n); }

static nb_value *count_up(decoder *d, const nb_dim *from, const nb_dim *n) {
    nb_begin(&d->b, NB_OP_iota);
    nb_set_dims(&d->b, "start", 1, &from);
    nb_set_dims(&d->b, "count", 1, &n);
    nb_set_int(&d->b, "step", 1);
    return nb_end(&d->b);
}

/* 0 for what a row sees, its own token and those before it that the mask keeps; else the lowest
 * number. */
static void add_mask(decoder *d) {
    const nb_dim *column[2] = {d->length, number(d, 1)},
                 *wide[4] = {d->batch, number(d, 1), number(d, 1), d->total};
    const float zero = 0, lowest = -FLT_MAX;
    nb_graph *g = d->f.graph;
    d->b.loc = nb_loc_at(g, "mask");
    nb_value *slots = count_up(d, number(d, 0), d->total),
             *rows = nb_reshape(&d->b, count_up(d, d->past, d->length), 2, column),
             *seen = nb_binary(&d->b, NB_OP_le, slots, rows),
             *kept = nb_reshape(&d->b, nb_cast(&d->b, d->mask, NB_BOOL), 4, wide),
             *both = nb_binary(&d->b, NB_OP_and, kept, seen);
    nb_begin(&d->b, NB_OP_where);
    nb_arg(&d->b, both);
    nb_arg(&d->b, nb_const_f32(g, "seen", 0, NULL, &zero));
    nb_arg(&d->b, nb_const_f32(g, "hidden", 0, NULL, &lowest));
    d->keep = nb_end(&d->b);
}

/* cos and sin [B,S,D/2] of position / stretch * base^(-2i/D) / rope_freqs[i]. */
static void add_angles(decoder *d) {
    const nb_dim *column[3] = {d->batch, d->length, number(d, 1)};
    const int64_t n = d->head / 2;
    float *factors = NB_NEW_ARRAY(d->f.arena, float, (size_t)n);
    nb_value *by = nb_gguf_vector(&d->f, "rope_freqs.weight", n, true);
    for (int64_t i = 0; i < n; i++) {
        factors[i] = (float)pow((double)d->base, -2.0 * (double)i / (double)d->head) / d->stretch;
        if (by) factors[i] /= ((const float *)by->blob->data)[i];
    }
    d->b.loc = nb_loc_at(d->f.graph, "rope");
    nb_value *at = nb_reshape(&d->b, nb_cast(&d->b, d->positions, NB_F32), 3, column),
             *angle = nb_binary(&d->b, NB_OP_mul, at,
                                nb_const_f32(d->f.graph, "rope.frequencies", 1, &n, factors));
    d->cos = nb_unary(&d->b, NB_OP_cos, angle);
    d->sin = nb_unary(&d->b, NB_OP_sin, angle);
}

/* [B,S,n*D] -> [B,n,S,D] */
static nb_value *split_heads(decoder *d, nb_value *x, int64_t n) {
    static const int64_t perm[4] = {0, 2, 1, 3};
    const nb_dim *dims[4] = {d->batch, d->length, number(d, n), number(d, d->head)};
    return nb_transpose(&d->b, nb_reshape(&d->b, x, 4, dims), perm);
}

static nb_value *rotate(decoder *d, nb_value *x) {
    nb_begin(&d->b, NB_OP_rotary);
    nb_arg(&d->b, x);
    nb_arg(&d->b, d->cos);
    nb_arg(&d->b, d->sin);
    nb_set_bool(&d->b, "interleaved", d->neighbours);
    return nb_end(&d->b);
}

/* Past and new ones. */
static nb_value *remember(decoder *d, nb_value *x, int64_t which) {
    nb_begin(&d->b, NB_OP_concat);
    nb_arg(&d->b, d->pasts[which]);
    nb_arg(&d->b, x);
    nb_set_int(&d->b, "axis", 2);
    return d->presents[which] = nb_end(&d->b);
}

static nb_value *attention(decoder *d, nb_value *x, int64_t layer) {
    static const int64_t perm[4] = {0, 2, 1, 3};
    const int64_t q_width = d->heads * d->head, k_width = d->groups * d->head;
    const nb_dim *flat[3] = {d->batch, d->length, number(d, q_width)};
    nb_value *q = linear(d, x, layer, "attn_q", q_width, d->width);
    q = rotate(d, split_heads(d, q, d->heads));
    nb_value *k = linear(d, x, layer, "attn_k", k_width, d->width);
    k = remember(d, rotate(d, split_heads(d, k, d->groups)), 2 * layer);
    nb_value *v = linear(d, x, layer, "attn_v", k_width, d->width);
    v = remember(d, split_heads(d, v, d->groups), 2 * layer + 1);
    d->b.loc = nb_loc_at(d->f.graph, name_of(d, layer, "attn"));
    nb_begin(&d->b, NB_OP_attention);
    nb_arg(&d->b, q);
    nb_arg(&d->b, k);
    nb_arg(&d->b, v);
    nb_arg(&d->b, d->keep);
    nb_set_float(&d->b, "scale", 1 / sqrtf((float)d->head));
    nb_value *y = nb_reshape(&d->b, nb_transpose(&d->b, nb_end(&d->b), perm), 3, flat);
    return linear(d, y, layer, "attn_output", d->width, q_width);
}

static nb_value *feed_forward(decoder *d, nb_value *x, int64_t layer) {
    nb_value *gate = linear(d, x, layer, "ffn_gate", d->hidden, d->width);
    gate = nb_unary(&d->b, NB_OP_silu, gate);
    nb_value *up = linear(d, x, layer, "ffn_up", d->hidden, d->width);
    return linear(d, nb_binary(&d->b, NB_OP_mul, gate, up), layer, "ffn_down", d->width, d->hidden);
}

static nb_value *embed(decoder *d) {
    d->b.loc = nb_loc_at(d->f.graph, "token_embd");
    nb_value *table =
        plain(d, nb_gguf_matrix(&d->f, "token_embd.weight", d->vocabulary, d->width, false));
    nb_begin(&d->b, NB_OP_gather);
    nb_arg(&d->b, table);
    nb_arg(&d->b, d->ids);
    nb_set_int(&d->b, "axis", 0);
    return nb_end(&d->b);
}

/* The head's matrix is the embedding's when it has none of its own. */
static nb_value *head(decoder *d, nb_value *x) {
    const bool own = nb_map_get_str(&d->f.tensors, "output.weight", 13) != NULL;
    return linear(d, x, -1, own ? "output" : "token_embd", d->vocabulary, d->width);
}

/* ---- the graph ------------------------------------------------------------------------------ */

static nb_value *input(decoder *d, const char *name, nb_elem elem, int rank,
                       const nb_dim *const *dims) {
    return nb_graph_add_input(d->f.graph, name, nb_type_intern(d->f.graph, elem, NULL, rank, dims));
}

static void add_inputs(decoder *d) {
    nb_graph *g = d->f.graph;
    d->batch = nb_dim_symbol(g, nb_graph_symbol(g, "batch_size", true));
    d->length = nb_dim_symbol(g, nb_graph_symbol(g, "sequence_length", true));
    d->past = nb_dim_symbol(g, nb_graph_symbol(g, "past_sequence_length", true));
    d->total = nb_dim_add(g, d->past, d->length);
    const nb_dim *row[2] = {d->batch, d->length}, *all[2] = {d->batch, d->total},
                 *cache[4] = {d->batch, number(d, d->groups), d->past, number(d, d->head)};
    d->ids = input(d, "input_ids", NB_I64, 2, row);
    d->mask = input(d, "attention_mask", NB_I64, 2, all);
    d->positions = input(d, "position_ids", NB_I64, 2, row);
    for (int64_t i = 0; i < 2 * d->layers; i++)
        d->pasts[i] = input(d,
                            nb_format(d->f.arena, "past_key_values.%lld.%s", (long long)i / 2,
                                      i % 2 ? "value" : "key"),
                            NB_F32, 4, cache);
}

static nb_status add_outputs(decoder *d, nb_value *logits) {
    const size_t n = 1 + 2 * (size_t)d->layers;
    nb_value **values = (nb_value **)nb_alloc_array(d->f.arena, n, sizeof *values);
    const char **names = (const char **)nb_alloc_array(d->f.arena, n, sizeof *names);
    values[0] = logits;
    names[0] = "logits";
    for (size_t i = 1; i < n; i++) {
        values[i] = d->presents[i - 1];
        names[i] = nb_format(d->f.arena, "present.%zu.%s", (i - 1) / 2, i % 2 ? "key" : "value");
    }
    nb_graph_set_outputs(d->f.graph, n, values, names);
    nb_graph_sweep(d->f.graph);
    return nb_verify(d->f.graph, d->f.diags);
}

static nb_status build(decoder *d) {
    d->pasts = (nb_value **)nb_alloc_array(d->f.arena, 2 * (size_t)d->layers, sizeof *d->pasts);
    d->presents = (nb_value **)nb_alloc_array(d->f.arena, 2 * (size_t)d->layers, sizeof *d->pasts);
    d->b = (nb_builder){.graph = d->f.graph, .diags = d->f.diags};
    d->f.graph->stage = NB_STAGE_QDQ;
    add_inputs(d);
    add_mask(d);
    add_angles(d);
    nb_value *x = embed(d);
    for (int64_t i = 0; i < d->layers && !d->f.diags->errors; i++) {
        nb_value *y = attention(d, norm(d, x, i, "attn_norm"), i);
        x = nb_binary(&d->b, NB_OP_add, x, y);
        y = feed_forward(d, norm(d, x, i, "ffn_norm"), i);
        x = nb_binary(&d->b, NB_OP_add, x, y);
    }
    if (!d->f.diags->errors) x = head(d, norm(d, x, -1, "output_norm"));
    if (d->f.diags->errors) return nb_diags_status(d->f.diags);
    return add_outputs(d, x);
}

nb_status nb_import_gguf(const void *bytes, size_t size, const char *name, nb_arena *arena,
                         nb_diags *diags, nb_graph *g) {
    decoder d = {.f = {.arena = arena,
                       .diags = diags,
                       .graph = g,
                       .name = name,
                       .bytes = bytes,
                       .size = size}};
    NB_TRY(nb_gguf_open(&d.f));
    NB_TRY(read_values(&d));
    return build(&d);
}
