/* Samples of dead leaves (draw.h). */
#include "passes/draw.h"

#include "ir/support/map.h"

#include <math.h>

#define LEAVES     150
#define COLOUR     0.3F /* how far a channel is from a leaf's level, of half the range */
#define MOST_BYTES (INT64_C(1) << 26)

/* From -1 to 1. */
static float uniform(uint64_t hash) { return (float)(hash >> 40) / (float)(1 << 23) - 1; }

/* It covers entries from `from` to before `to`. */
typedef struct leaf {
    int64_t from[NB_MAX_RANK], to[NB_MAX_RANK];
    uint64_t seed;
} leaf;

/* Axes from this one on are those that leaves lie in. */
static int first_plane(const nb_tensor *t) { return t->rank > 2 ? 2 : t->rank - 1; }

/* Each octave of sizes is as likely as any other. Leaves may begin before the first entry. */
static leaf drop_leaf(const nb_tensor *t, uint64_t seed) {
    leaf out = {.seed = seed};
    for (int d = first_plane(t); d < t->rank; d++) {
        int octaves = 1;
        while (t->dims[d] >> (octaves + 2)) octaves++;
        seed = nb_hash_mix(seed, (uint64_t)d);
        const int64_t least = INT64_C(2) << (seed >> 32) % (uint64_t)octaves,
                      size = least + (int64_t)(seed & 0xffffffff) % least,
                      places = t->dims[d] + size - 1;
        out.from[d] = (int64_t)(nb_hash_mix(seed, 1) % (uint64_t)places) - size + 1;
        out.to[d] = out.from[d] + size;
    }
    return out;
}

static bool covers(const leaf *l, const nb_tensor *t, const int64_t *at) {
    for (int d = first_plane(t); d < t->rank; d++) {
        if (at[d] < l->from[d] || at[d] >= l->to[d]) return false;
    }
    return true;
}

/* The level of a channel, from -1 to 1. */
static float level(uint64_t leaf_seed, int64_t channel) {
    const float all = uniform(nb_hash_mix(leaf_seed, 0)),
                own = uniform(nb_hash_mix(leaf_seed, 1 + (uint64_t)channel));
    return fminf(fmaxf(all + COLOUR * own, -1), 1);
}

/* Of a row of the first axis, where that is not the plane's own: each has leaves of its own. */
static uint64_t drop_leaves(const nb_tensor *t, uint64_t seed, int64_t row, leaf *leaves) {
    seed = nb_hash_mix(seed, (uint64_t)row);
    for (uint64_t k = 0; k < LEAVES; k++) leaves[k] = drop_leaf(t, nb_hash_mix(seed, k));
    return seed;
}

/* The last leaf that fell on an entry is seen, or the ground. */
static void fill(nb_tensor *t, const nb_draw *how, uint64_t seed) {
    int64_t at[NB_MAX_RANK] = {0}, row = 0;
    const int plane = first_plane(t);
    leaf leaves[LEAVES];
    uint64_t ground = drop_leaves(t, seed, row, leaves);
    float *out = t->data;
    for (int64_t i = 0, n = nb_tensor_count(t); i < n; i++) {
        if (plane && at[0] != row) ground = drop_leaves(t, seed, row = at[0], leaves);
        int k = LEAVES;
        while (k-- > 0 && !covers(&leaves[k], t, at)) {
        }
        const float x = level(k < 0 ? ground : leaves[k].seed, plane == 2 ? at[1] : 0);
        out[i] = how->low + (x + 1) / 2 * (how->high - how->low);
        for (int d = t->rank - 1; d >= 0 && ++at[d] == t->dims[d]; d--) at[d] = 0;
    }
}

static bool is_state(const nb_graph *g, uint32_t input) {
    for (size_t i = 0; i < g->states.count; i++) {
        if (g->states.items[i].input == input) return true;
    }
    return false;
}

static int64_t *sizes_of_symbols(const nb_graph *g, int64_t size, nb_arena *arena) {
    int64_t *symbols = NB_NEW_ARRAY(arena, int64_t, g->symbols.count + 1);
    for (size_t i = 0; i < g->symbols.count; i++) symbols[i] = size;
    for (uint32_t i = 0; i < g->body.n_params; i++) {
        const nb_type *t = g->body.params[i]->type;
        if (t->rank && t->dims[0]->kind == NB_DIM_SYMBOL) symbols[t->dims[0]->symbol->index] = 1;
    }
    for (size_t i = 0; i < g->symbols.count; i++) {
        const nb_symbol *s = g->symbols.items[i];
        symbols[i] = nb_min_i64(nb_max_i64(symbols[i], s->min), s->max);
    }
    return symbols;
}

/* Shape and memory of input i; false: there can be none, see *why. */
static bool shape_input(const nb_graph *g, uint32_t i, const int64_t *symbols, nb_arena *arena,
                        const char **why, nb_tensor *out) {
    const nb_value *v = g->body.params[i];
    *why = v->type->elem != NB_F32 || v->type->quant ? "is not of f32"
           : is_state(g, i)                          ? "is a state"
           : v->type->rank == 0                      ? "is a single number"
                                                     : NULL;
    *out = (nb_tensor){.elem = NB_F32, .rank = v->type->rank};
    for (int d = 0; d < out->rank && !*why; d++) {
        if (!nb_dim_eval(v->type->dims[d], symbols, &out->dims[d]) || out->dims[d] < 1)
            *why = "has a size that nothing says";
    }
    int64_t count = 1;
    for (int d = 0; d < out->rank && !*why; d++) {
        if (out->dims[d] > MOST_BYTES / 4 / count)
            *why = "is too large";
        else
            count *= out->dims[d];
    }
    if (*why) {
        *why = nb_format(arena, "input \"%s\" %s", v->name, *why);
        return false;
    }
    out->bytes = 4 * count;
    out->data = nb_alloc(arena, (size_t)out->bytes);
    return true;
}

static int64_t places_of(const nb_tensor *t) {
    int64_t n = 1;
    for (int d = first_plane(t); d < t->rank; d++) n *= t->dims[d];
    return n;
}

nb_sample *nb_draw_samples(const nb_graph *g, const nb_draw *how, nb_arena *arena, size_t *n,
                           const char **why) {
    const int64_t *symbols = sizes_of_symbols(g, how->size, arena);
    nb_sample *samples = NB_NEW_ARRAY(arena, nb_sample, (size_t)how->count + 1);
    int64_t count = how->count;
    *why = g->body.n_params ? NULL : "the model has no inputs";
    for (int64_t s = 0; s < count && !*why; s++) {
        nb_tensor *inputs = NB_NEW_ARRAY(arena, nb_tensor, g->body.n_params + 1);
        for (uint32_t i = 0; i < g->body.n_params && !*why; i++) {
            if (!shape_input(g, i, symbols, arena, why, &inputs[i])) break;
            fill(&inputs[i], how, nb_hash_mix((uint64_t)s, i));
            const int64_t most = nb_max_i64(how->places / places_of(&inputs[i]), 2);
            count = nb_min_i64(count, most);
        }
        samples[s].inputs = inputs;
    }
    *n = (size_t)count;
    return *why ? NULL : samples;
}
