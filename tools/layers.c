/* What each op of a model does in a run, and how close to the machine's limits it comes (bench.h).
 *
 * Three limits are looked at. Memory: weights and cached entries must be read, once. Arithmetic:
 * each multiply-add of a product counts as two operations, on bytes where codes are multiplied
 * (16-bit activations need two such products, so at best they reach half), on f32 elsewhere.
 * Caches: activations are read and written, and between two ops they are found there; this is what
 * an op is held against that is no product, such as a norm or a sum, whatever its arithmetic. What
 * takes longest by these limits binds, and the fraction is that time by the time that was measured;
 * weights that fit into caches are read faster than memory, activations that fit into the first
 * level faster than the second, and the fraction exceeds 1. */
#include "tools/bench.h"

#include "codegen/refs.h"
#include "ir/chain.h"
#include "ir/ir.h"
#include "passes/linear.h"

#include <stdlib.h>
#include <string.h>

const char *nbt_layer_detail(nb_arena *arena, const nb_op *op) {
    bool table = op->kind == NB_OP_qgather;
    const nb_value *w = table                          ? nb_in(op, 0)
                        : op->kind == NB_OP_qdepthwise ? nb_in(op, 1)
                                                       : nb_linear_weight(op);
    const nb_quant *q = w ? w->type->quant : NULL;
    if (!q) return "";
    int bits = nb_elems[q->storage].bits;
    if (table) return nb_format(arena, "w%d per row", bits);
    const char *scales = q->granularity == NB_PER_AXIS ? "per channel" : "per tensor";
    if (q->granularity == NB_PER_GROUP)
        scales = nb_format(arena, "groups of %lld%s", (long long)q->group,
                           q->zeros                 ? " with zero points"
                           : nb_quant_has_minima(q) ? " with minima"
                                                    : "");
    const char *codes = nb_elem_is_float(q->storage)
                            ? nb_format(arena, "%s ", nb_elems[q->storage].text)
                            : nb_format(arena, "w%d", bits);
    return nb_format(arena, "%sa%d %s%s%s", codes, nb_elems[nb_in(op, 0)->type->elem].bits, scales,
                     op->kind == NB_OP_qmatmul && nb_in(op, 3) ? ", + residual" : "",
                     nb_is_qconv(op) ? ", direct" : "");
}

const char *nbt_layer_shape(nb_arena *arena, const nbt_layer *l) {
    if (!l->k) return "";
    return nb_format(arena, "%lldx%lldx%lld", (long long)l->m, (long long)l->k, (long long)l->n);
}

const char *nbt_bound_text(const nbt_layer *l) {
    static const char *const texts[] = {[NBT_BOUND_NONE] = "",
                                        [NBT_BOUND_MEMORY] = "mem",
                                        [NBT_BOUND_ARITHMETIC] = "ops",
                                        [NBT_BOUND_CACHE] = "cache"};
    return texts[l->bound];
}

const char *nbt_bound_name(const nbt_layer *l) {
    static const char *const names[] = {[NBT_BOUND_NONE] = "",
                                        [NBT_BOUND_MEMORY] = "memory",
                                        [NBT_BOUND_ARITHMETIC] = "arithmetic",
                                        [NBT_BOUND_CACHE] = "cache"};
    return names[l->bound];
}

/* ---- sizes --------------------------------------------------------------------------------- */

static int64_t size_of(const nb_dim *d, const int64_t *symbols) {
    int64_t v = 0;
    return nb_dim_eval(d, symbols, &v) ? v : 0;
}

static int64_t count_of(const nb_type *t, const int64_t *symbols) {
    int64_t n = 1;
    for (int d = 0; d < t->rank; d++) n *= size_of(t->dims[d], symbols);
    return n;
}

static int64_t last_of(const nb_type *t, const int64_t *symbols) {
    return t->rank ? size_of(t->dims[t->rank - 1], symbols) : 1;
}

/* Channels of one input each. */
static void measure_depthwise(const nb_op *op, const int64_t *symbols, nbt_layer *l) {
    const nb_type *w = nb_in(op, 1)->type;
    l->n = last_of(w, symbols);
    l->k = count_of(w, symbols) / nb_max_i64(1, l->n);
    l->m = count_of(nb_out(op)->type, symbols) / nb_max_i64(1, l->n);
    l->ops = 2.0 * (double)l->m * (double)l->k * (double)l->n;
}

/* Rows are places, columns channels. */
static void measure_conv(const nb_op *op, const int64_t *symbols, nbt_layer *l) {
    const nb_type *w = nb_in(op, 1)->type;
    l->n = size_of(w->dims[0], symbols);
    l->k = count_of(w, symbols) / nb_max_i64(1, l->n);
    l->m = count_of(nb_out(op)->type, symbols) / nb_max_i64(1, l->n);
    l->ops = 2.0 * (double)l->m * (double)l->k * (double)l->n;
}

/* Rows, columns and the length of the sums between them. Of attention: all queries, the keys they
 * look at, and the size of a head. */
static void measure_product(const nb_op *op, const int64_t *symbols, nbt_layer *l) {
    if (op->kind == NB_OP_conv) measure_conv(op, symbols, l);
    if (op->kind == NB_OP_depthwise || op->kind == NB_OP_qdepthwise)
        measure_depthwise(op, symbols, l);
    if (op->kind != NB_OP_matmul && op->kind != NB_OP_qmatmul && op->kind != NB_OP_attention)
        return;
    bool attends = op->kind == NB_OP_attention;
    const nb_type *a = nb_in(op, 0)->type, *out = nb_out(op)->type, *keys = nb_in(op, 1)->type;
    l->k = last_of(a, symbols);
    l->n = attends ? size_of(keys->dims[keys->rank - 2], symbols) : last_of(out, symbols);
    l->m = attends ? count_of(a, symbols) / nb_max_i64(1, l->k)
                   : count_of(out, symbols) / nb_max_i64(1, l->n);
    l->ops = (attends ? 4.0 : 2.0) * (double)l->m * (double)l->k * (double)l->n;
}

/* Entries of a cache, with the scales that stand beside codes. */
static int64_t state_bytes(const nb_type *t, const int64_t *symbols) {
    int64_t n = count_of(t, symbols), bytes = n * nb_elems[t->elem].bits / 8,
            row = nb_max_i64(1, last_of(t, symbols));
    const nb_quant *q = t->quant;
    if (q && q->granularity == NB_PER_TOKEN) bytes += 4 * (n / row);
    if (q && q->granularity == NB_PER_BLOCK) bytes += 4 * (n / row) * nb_ceildiv(row, q->group);
    return bytes;
}

static bool looks_up(const nb_op *op) {
    return op->kind == NB_OP_gather || op->kind == NB_OP_qgather;
}

static int64_t bytes_read(const nb_op *op, uint32_t i, const int64_t *symbols) {
    const nb_value *v = nb_in(op, i);
    while (v && v->def && nb_has_trait(v->def, NB_TRAIT_VIEW)) v = nb_in(v->def, 0);
    if (!v) return 0;
    if (v->storage.kind == NB_STORE_STATE) return state_bytes(v->type, symbols);
    if (!nb_is_const(v)) return 0;
    int64_t bytes = nbt_packed_bytes(&op->operands[i], v);
    int64_t rows = i == 0 && looks_up(op) ? size_of(v->type->dims[0], symbols) : 0;
    return rows > 0 ? nb_min_i64(bytes, bytes / rows * count_of(nb_in(op, 1)->type, symbols))
                    : bytes;
}

static int64_t type_bytes(const nb_type *t, const int64_t *symbols) {
    return count_of(t, symbols) * nb_elems[t->elem].bits / 8;
}

/* Of the operands that are neither weight nor cached. What a chain takes counts (ir/chain.h). */
static int64_t bytes_taken(const nb_op *op, const int64_t *symbols, int64_t given) {
    const bool part = looks_up(op) || op->kind == NB_OP_slice;
    int64_t taken = 0;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        const nb_value *v = nb_in(op, i);
        if (!v || nb_is_const(v) || bytes_read(op, i, symbols)) continue;
        int64_t bytes =
            nb_in_registers(v) ? bytes_taken(v->def, symbols, given) : type_bytes(v->type, symbols);
        taken += part && i == 0 ? nb_min_i64(bytes, given) : bytes;
    }
    return taken;
}

/* What it takes and what it gives, but for entries that it appends to a cache. What takes a part of
 * something reads no more than it gives. */
static int64_t bytes_moved(const nb_op *op, const int64_t *symbols) {
    int64_t given = 0;
    for (uint32_t i = 0; i < op->n_results; i++)
        if (op->results[i]->storage.kind != NB_STORE_STATE)
            given += type_bytes(op->results[i]->type, symbols);
    return bytes_taken(op, symbols, given) + given;
}

static void measure(const nb_op *op, const int64_t *symbols, nbt_layer *l) {
    measure_product(op, symbols, l);
    for (uint32_t i = 0; i < op->n_operands && (l->k || looks_up(op)); i++)
        l->bytes += bytes_read(op, i, symbols);
    l->moved = bytes_moved(op, symbols);
}

nbt_layer nbt_measure_op(const nb_op *op, const int64_t *symbols) {
    nbt_layer l = {0};
    measure(op, symbols, &l);
    return l;
}

/* ---- limits -------------------------------------------------------------------------------- */

static double peak_of(const nb_op *op, const nbt_limits *limits) {
    if (op->kind != NB_OP_qmatmul) return limits->fma;
    const nb_quant *q = nb_in(op, 1)->type->quant;
    return q && nb_elems[q->storage].bits < 8 ? limits->dot_small : limits->dot;
}

void nbt_find_limit(const nb_op *op, const nbt_limits *limits, nbt_layer *l) {
    const double times[] = {[NBT_BOUND_NONE] = 0,
                            [NBT_BOUND_MEMORY] = 1e-9 * (double)l->bytes / limits->read,
                            [NBT_BOUND_ARITHMETIC] = 1e-9 * l->ops / peak_of(op, limits),
                            [NBT_BOUND_CACHE] = 1e-9 * (double)l->moved / limits->cache};
    l->bound = NBT_BOUND_NONE;
    for (nbt_bound b = NBT_BOUND_MEMORY; b <= NBT_BOUND_CACHE; b++)
        if (times[b] > times[l->bound]) l->bound = b;
    l->limit = times[l->bound];
}

double nbt_of_limit(const nbt_layer *l) { return l->seconds > 0 ? l->limit / l->seconds : 0; }

/* ---- sums ---------------------------------------------------------------------------------- */

void nbt_layer_add(nbt_layer *sum, const nbt_layer *l) {
    sum->bytes += l->bytes;
    sum->moved += l->moved;
    sum->ops += l->ops;
    sum->seconds += l->seconds;
    sum->limit += l->limit;
    sum->count += l->count;
}

static int longer(const void *a, const void *b) {
    double x = ((const nbt_layer *)a)->seconds, y = ((const nbt_layer *)b)->seconds;
    return x > y ? -1 : x < y;
}

static int longer_item(const void *a, const void *b) {
    const nbt_layer *x = *(const nbt_layer *const *)a, *y = *(const nbt_layer *const *)b;
    int order = longer(x, y);
    return order ? order : (x > y) - (x < y);
}

const nbt_layer **nbt_layers_by_time(nb_arena *arena, const nbt_layers *layers) {
    const nbt_layer **out =
        (const nbt_layer **)nb_alloc_array(arena, layers->count + 1, sizeof *out);
    for (size_t i = 0; i < layers->count; i++) out[i] = &layers->items[i];
    qsort(out, layers->count, sizeof(*out), longer_item);
    return out;
}

static nbt_layer *kind_of(nbt_layers *layers, const nbt_layer *l) {
    for (size_t i = 0; i < layers->n_kinds; i++) {
        if (strcmp(layers->kinds[i].kind, l->kind) == 0) return &layers->kinds[i];
    }
    layers->kinds[layers->n_kinds] = (nbt_layer){.kind = l->kind};
    return &layers->kinds[layers->n_kinds++];
}

nbt_layers nbt_layers_of(nb_arena *arena, const nb_graph *g, const nbt_phase *phase,
                         const nbt_limits *limits) {
    nbt_layers out = {0};
    size_t n = 0, index = 0;
    for (const nb_op *op = g->body.first; op; op = op->next) n++;
    out.items = NB_NEW_ARRAY(arena, nbt_layer, n + 1);
    out.kinds = NB_NEW_ARRAY(arena, nbt_layer, NB_OP_COUNT);
    for (const nb_op *op = g->body.first; op; op = op->next, index++) {
        if (nb_emits_nothing(op)) continue;
        const char *node = nb_loc_name(op->loc);
        nbt_layer *l = &out.items[out.count++];
        *l = (nbt_layer){.name = *node ? node : nb_out(op)->name,
                         .kind = nb_info(op)->name,
                         .detail = nbt_layer_detail(arena, op),
                         .seconds = phase->op_seconds[index],
                         .count = 1};
        measure(op, phase->symbols, l);
        nbt_find_limit(op, limits, l);
        nbt_layer_add(kind_of(&out, l), l);
        nbt_layer_add(&out.all, l);
    }
    qsort(out.kinds, out.n_kinds, sizeof *out.kinds, longer);
    return out;
}

double nbt_unaccounted(const nbt_phase *phase, const nbt_layers *layers) {
    return phase->times.median - layers->all.seconds;
}
