/* The search of `nibble reduce` (reduce.h): edit after edit, over ranges of places that become
 * shorter, until a whole round makes nothing smaller. */
#include "ir/text.h"
#include "tools/reduce.h"

#include <stdio.h>
#include <string.h>

static bool may_go_on(const nbt_reduction *r) {
    return !nbt_is_interrupted() && r->tests < r->most;
}

/* ---- one candidate -------------------------------------------------------------------------- */

static nbt_candidate begin(const nbt_reduction *r) {
    nbt_candidate c = {.graph = nb_graph_clone(r->graph),
                       .arena = nb_arena_create_like(r->args->arena)};
    c.diags = nb_diags_create(c.arena, r->graph->file);
    return c;
}

static void drop(nbt_candidate *c) {
    nb_graph_destroy(c->graph);
    nb_arena_destroy(c->arena);
}

/* Was a graph of the same text tried, with as much of the samples? From now on it was. */
static bool is_known(nbt_reduction *r, const nbt_candidate *c, int64_t elements) {
    const nb_print_options brief = {.elide_weights = true};
    const char *text = nb_print_string(c->arena, c->graph, &brief);
    uint64_t key[] = {nb_hash(text, strlen(text)), (uint64_t)elements};
    for (size_t i = 0; c->keep_sample && i < r->samples.count; i++)
        key[1] = nb_hash_mix(key[1], c->keep_sample[i]);
    if (nb_map_get_str(&r->seen, (const char *)key, sizeof key)) return true;
    nb_map_set_str(&r->seen, (const char *)key, sizeof key, r);
    return false;
}

/* Ends the candidate: it becomes the graph, or goes. */
static bool attempt(nbt_reduction *r, nbt_candidate *c) {
    nbt_samples samples;
    nbt_size_of_graph size = {{0}};
    bool good = may_go_on(r) && nbt_finish_candidate(c);
    if (good) {
        size = nbt_graph_size(c->graph, &r->known);
        good = nbt_fit_samples(r, c, &samples);
    }
    if (good) {
        if (!c->made_up) size.parts[NBT_SIZE_SAMPLES] = nbt_count_elements(&samples);
        good = nbt_is_smaller(&size, &r->size) && !is_known(r, c, size.parts[NBT_SIZE_SAMPLES]);
    }
    if (good) {
        r->tests++;
        good = r->test->fails(r->test, c->graph, &samples);
    }
    if (!good) {
        drop(c);
        return false;
    }
    nb_graph_destroy(r->graph);
    if (r->kept) nb_arena_destroy(r->kept);
    r->graph = c->graph;
    r->samples = samples;
    r->kept = c->arena;
    r->made_up = c->made_up;
    r->size = size;
    r->accepted++;
    return true;
}

/* ---- edits of the table --------------------------------------------------------------------- */

static bool try_range(nbt_reduction *r, const nbt_edit *e, size_t first, size_t n) {
    if (!may_go_on(r)) return false;
    nbt_candidate c = begin(r);
    e->apply(&c, first, n);
    return attempt(r, &c);
}

static void try_ranges(nbt_reduction *r, const nbt_edit *e) {
    size_t n = e->places(r->graph);
    for (size_t size = n; size && may_go_on(r); size /= 2) {
        for (size_t at = 0; at < n && may_go_on(r);) {
            const size_t count = size < n - at ? size : n - at;
            const bool smaller = try_range(r, e, at, count);
            const size_t left = smaller ? e->places(r->graph) : n;
            if (left == n) at += count;
            n = left;
        }
    }
}

static void bisect(nbt_reduction *r, const nbt_edit *e) {
    size_t low = 0, high = e->places(r->graph);
    while (low + 1 < high && may_go_on(r)) {
        const size_t middle = low + (high - 1 - low) / 2;
        if (try_range(r, e, middle, 1))
            high = e->places(r->graph);
        else
            low = middle + 1;
    }
}

/* ---- samples -------------------------------------------------------------------------------- */

static void shrink_samples(nbt_reduction *r) {
    for (size_t size = r->samples.count / 2; size && r->samples.count > 1; size /= 2) {
        for (size_t at = 0; at < r->samples.count && may_go_on(r);) {
            nbt_candidate c = begin(r);
            bool *keep = NB_NEW_ARRAY(c.arena, bool, r->samples.count + 1);
            for (size_t i = 0; i < r->samples.count; i++) keep[i] = i < at || i >= at + size;
            c.keep_sample = keep;
            if (!attempt(r, &c)) at += size;
        }
    }
}

/* The largest size that an axis of samples has which is just this symbol. */
static int64_t size_in_samples(const nbt_reduction *r, size_t symbol) {
    int64_t most = 0;
    for (size_t i = 0; i < r->samples.count; i++) {
        for (uint32_t k = 0; k < r->graph->body.n_params; k++) {
            const nb_type *t = r->graph->body.params[k]->type;
            for (int d = 0; d < t->rank; d++) {
                if (t->dims[d]->kind == NB_DIM_SYMBOL && t->dims[d]->symbol->index == symbol)
                    most = nb_max_i64(most, r->samples.items[i].inputs[k].dims[d]);
            }
        }
    }
    return most;
}

/* Fewer tokens, smaller batches: runs are faster, and less is there to look at. */
static void shorten_samples(nbt_reduction *r) {
    for (size_t i = 0; i < r->graph->symbols.count; i++) {
        int64_t most = size_in_samples(r, i);
        for (bool shorter = true; shorter && most > 1 && may_go_on(r);
             most = size_in_samples(r, i)) {
            nbt_candidate c = begin(r);
            c.symbol = i;
            c.limit = most / 2;
            shorter = attempt(r, &c);
        }
    }
}

/* If the fault is there on inputs that are made up too, the graph says all. */
static void make_samples_up(nbt_reduction *r) {
    if (!r->test->takes_samples || !may_go_on(r)) return;
    nbt_candidate c = begin(r);
    c.made_up = true;
    attempt(r, &c);
}

/* ---- sizes ---------------------------------------------------------------------------------- */

static void shrink_symbols(nbt_reduction *r) {
    static const int64_t sizes[] = {1, 2, 0};
    for (size_t i = 0; i < r->graph->symbols.count && may_go_on(r);) {
        bool gone = false;
        for (size_t k = 0; k < NB_COUNT(sizes) && !gone; k++) {
            nbt_candidate c = begin(r);
            const nb_symbol *s = c.graph->symbols.items[i];
            if (sizes[k] < s->min || sizes[k] > s->max) {
                drop(&c);
                continue;
            }
            nb_graph_substitute(c.graph, s, nb_dim_const(c.graph, sizes[k]));
            gone = attempt(r, &c);
        }
        if (!gone) i++;
    }
}

static bool try_resize(nbt_reduction *r, const nbt_resize *resize) {
    if (!may_go_on(r)) return false;
    nbt_candidate c = begin(r);
    nbt_apply_resize(&c, resize);
    return attempt(r, &c);
}

/* One size by itself. */
static bool shrink_one(nbt_reduction *r, int64_t size) {
    const int64_t by[] = {1, 2, size / 4, size / 2, size - 1};
    for (size_t i = 0; i < NB_COUNT(by); i++) {
        const nbt_resize one = {.n = 1, .sizes = {size}, .by = {by[i]}};
        if (by[i] >= 1 && by[i] < size && try_resize(r, &one)) return true;
    }
    return false;
}

/* Two that hang together: both halves; or the second becomes 1 and the first that much smaller. */
static bool shrink_two(nbt_reduction *r, int64_t a, int64_t b) {
    const nbt_resize both = {.n = 2, .sizes = {a, b}, .by = {a / 2, b / 2}},
                     part = {.n = 2, .sizes = {a, b}, .by = {a / b, 1}};
    if (a % 2 == 0 && b % 2 == 0 && try_resize(r, &both)) return true;
    return a % b == 0 && try_resize(r, &part);
}

static bool shrink_three(nbt_reduction *r, int64_t a, int64_t b, int64_t c) {
    const nbt_resize all = {.n = 3, .sizes = {a, b, c}, .by = {a / 2, b / 2, c / 2}};
    return a % 2 == 0 && b % 2 == 0 && c % 2 == 0 && try_resize(r, &all);
}

/* More would be many candidates of many ops: those are fewer in the next round. */
#define MAX_OPS_FOR_THREE 64

/* Begins again behind each success: the list of sizes is another one then. */
static bool shrink_some(nbt_reduction *r) {
    nb_arena *arena = nb_arena_create_like(r->args->arena);
    int64_t *s;
    const size_t n = nbt_list_sizes(r->graph, arena, &s);
    bool done = false;
    for (size_t i = 0; i < n && !done; i++) done = shrink_one(r, s[i]);
    for (size_t i = 0; i < n && !done; i++) {
        for (size_t j = i + 1; j < n && !done; j++) done = shrink_two(r, s[i], s[j]);
    }
    const bool few = r->size.parts[NBT_SIZE_OPS] <= MAX_OPS_FOR_THREE;
    for (size_t i = 0; i < n && few && !done; i++) {
        for (size_t j = i + 1; j < n && !done; j++) {
            for (size_t k = j + 1; k < n && !done; k++) done = shrink_three(r, s[i], s[j], s[k]);
        }
    }
    nb_arena_destroy(arena);
    return done;
}

static void shrink_sizes(nbt_reduction *r) {
    while (may_go_on(r) && shrink_some(r)) continue;
}

/* ---- elements of constants ------------------------------------------------------------------ */

#define ELEMENT_PARTS 32 /* a constant is tried in parts of at least 1/32 */

static bool zero_part(nbt_reduction *r, size_t constant, int64_t first, int64_t n) {
    nbt_candidate c = begin(r);
    nb_value *v = c.graph->constants.items[constant];
    void *data;
    nb_blob *blob = nb_blob_create(v->blob->size, &data);
    if (blob) {
        memcpy(data, v->blob->data, (size_t)v->blob->size);
        for (int64_t i = first; i < first + n; i++) nb_elem_put(v->type->elem, data, i, 0);
        nbt_set_data(v, blob);
    }
    return attempt(r, &c);
}

static void shrink_elements(nbt_reduction *r) {
    for (size_t i = 0; i < r->graph->constants.count && may_go_on(r); i++) {
        const nb_value *v = r->graph->constants.items[i];
        int64_t n;
        if (!nb_type_static_count(v->type, &n) || nbt_is_splat(v)) continue;
        const int64_t least = nb_max_i64(1, n / ELEMENT_PARTS);
        for (int64_t size = (n + 1) / 2; size >= least && may_go_on(r); size /= 2) {
            for (int64_t at = 0; at < n && may_go_on(r); at += size)
                zero_part(r, i, at, nb_min_i64(size, n - at));
        }
    }
}

/* ---- rounds --------------------------------------------------------------------------------- */

static void tell(const nbt_reduction *r, const char *name, size_t accepted) {
    if (r->accepted == accepted || nbt_has(r->args, "quiet")) return;
    const int64_t *p = r->size.parts;
    fprintf(stderr, "%-28s %5lld ops %5lld ports %5lld constants %9lld numbers  %zu tests\n", name,
            (long long)p[NBT_SIZE_OPS], (long long)p[NBT_SIZE_PORTS],
            (long long)p[NBT_SIZE_CONSTANTS], (long long)p[NBT_SIZE_NUMBERS], r->tests);
}

static void run_edit(nbt_reduction *r, const nbt_edit *e) {
    const size_t before = r->accepted;
    if (e->moves_outputs && !r->test->moves_outputs) return;
    if (e->bisects)
        bisect(r, e);
    else
        try_ranges(r, e);
    tell(r, e->name, before);
}

static void run_step(nbt_reduction *r, const char *name, void (*step)(nbt_reduction *r)) {
    const size_t before = r->accepted;
    step(r);
    tell(r, name, before);
}

void nbt_reduce_graph(nbt_reduction *r) {
    for (size_t before = SIZE_MAX; before != r->accepted && may_go_on(r);) {
        before = r->accepted;
        run_step(r, "fewer samples", shrink_samples);
        run_step(r, "shorter samples", shorten_samples);
        for (const nbt_edit *e = nbt_edits; e->name; e++) run_edit(r, e);
        run_step(r, "sizes for symbols", shrink_symbols);
        run_step(r, "smaller sizes", shrink_sizes);
        if (before == r->accepted) run_step(r, "zeros in constants", shrink_elements);
        if (before == r->accepted) run_step(r, "inputs made up", make_samples_up);
    }
}
