/* Holds a pass to its promise: same numbers before and after (check.h). */
#include "passes/check.h"

#include <math.h>
#include <string.h>

/* Made-up symbols cycle through these, clamped to their range: small, different, not powers of two.
 */
static const int64_t made_up_sizes[] = {2, 3, 5, 4};

/* How far numbers may be apart: |a-b| <= absolute + relative * max(|a|, |b|). What was a number
 * stays one in any case. */
typedef struct tolerance {
    double absolute, relative;
    const char *of; /* what passes it is for */
} tolerance;

/* Reordering the sums of a small decoder moves logits by about 1e-5; a wrong rewrite by far more
 * than the second allows. */
static const tolerance bits = {0, 0, "passes that keep bits"},
                       numbers = {2e-4, 2e-3, "passes that keep numbers"},
                       any = {INFINITY, INFINITY, "passes that round"};

static const tolerance *tolerance_of(const nb_pass *pass) {
    return pass->promises & NB_PASS_KEEPS_BITS      ? &bits
           : pass->promises & NB_PASS_KEEPS_NUMBERS ? &numbers
                                                    : &any;
}

static float next_float(uint64_t *state) {
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (float)((double)(*state >> 40) / (double)(1 << 24)) * 2.0f - 1.0f;
}

static void fill(nb_tensor *t, int64_t count, uint64_t *state) {
    for (int64_t i = 0; i < count; i++) {
        char *at = (char *)t->data + i * (nb_elems[t->elem].bits / 8);
        float f = next_float(state);
        int64_t small = i % 2;
        double d = (double)f;
        switch (t->elem) {
        case NB_F32:
            memcpy(at, &f, sizeof f);
            break;
        case NB_F64:
            memcpy(at, &d, sizeof d);
            break;
        case NB_BOOL:
            memset(at, 1, 1);
            break;
        default:
            if (nb_elem_is_integer(t->elem)) memcpy(at, &small, (size_t)nb_elems[t->elem].bits / 8);
        }
    }
}

/* Masks are all ones: an input of integers that is as long as "past plus new" is one. */
static bool looks_like_mask(const nb_value *input) {
    const nb_type *t = input->type;
    return nb_elem_is_integer(t->elem) && t->rank == 2 && t->dims[1]->kind == NB_DIM_ADD;
}

/* Scales of a cache of codes, which are above 0. */
static bool looks_like_scales(const nb_graph *g, uint32_t input) {
    const nb_type *t = g->body.params[input]->type;
    bool state = false;
    for (size_t i = 0; i < g->states.count; i++) state |= g->states.items[i].input == input;
    return state && t->elem == NB_F32 && nb_dim_is_const(t->dims[t->rank - 1]) &&
           t->dims[t->rank - 1]->value == 1;
}

/* A size for each symbol. */
static int64_t *made_up_symbols(const nb_graph *g, nb_arena *arena) {
    int64_t *symbols = NB_NEW_ARRAY(arena, int64_t, g->symbols.count + 1);
    for (size_t i = 0; i < g->symbols.count; i++) {
        const nb_symbol *s = g->symbols.items[i];
        symbols[i] =
            nb_min_i64(nb_max_i64(made_up_sizes[i % NB_COUNT(made_up_sizes)], s->min), s->max);
    }
    return symbols;
}

static nb_tensor *inputs_of_size(const nb_graph *g, const int64_t *symbols, nb_arena *arena) {
    nb_tensor *inputs = NB_NEW_ARRAY(arena, nb_tensor, g->body.n_params + 1);
    uint64_t state = 1;
    for (uint32_t i = 0; i < g->body.n_params; i++) {
        const nb_value *v = g->body.params[i];
        nb_tensor *t = &inputs[i];
        int64_t count = 1;
        t->elem = v->type->elem;
        t->rank = v->type->rank;
        for (int d = 0; d < t->rank; d++) {
            if (!nb_dim_eval(v->type->dims[d], symbols, &t->dims[d])) t->dims[d] = 1;
            count *= t->dims[d];
        }
        if (!nb_elem_bytes_of(t->elem, count, &t->bytes)) return NULL;
        t->data = nb_alloc(arena, (size_t)t->bytes + 1);
        if (looks_like_mask(v)) {
            for (int64_t k = 0; k < count; k++)
                memset((char *)t->data + k * nb_elems[t->elem].bits / 8, 1, 1);
        } else if (nb_elems[t->elem].bits >= 8) {
            fill(t, count, &state);
        }
        if (!looks_like_scales(g, i)) continue;
        float *scales = t->data;
        for (int64_t k = 0; k < count; k++) scales[k] = fabsf(scales[k]);
    }
    return inputs;
}

nb_tensor *nb_made_up_inputs(const nb_graph *g, nb_arena *arena) {
    return inputs_of_size(g, made_up_symbols(g, arena), arena);
}

static nb_status run_graph(const nb_graph *g, const nb_tensor *inputs, nb_tensor *outputs,
                           nb_pass_env *env, nb_arena *arena) {
    if (env->run) return env->run(env->run_user, g, inputs, outputs, NULL, 0, arena, env->diags);
    return nb_eval(g, inputs, outputs, NULL, 0, arena, env->diags);
}

/* How much further apart than they may be; 0 or less: they agree. */
static double excess_of(double x, double y, const tolerance *t) {
    if (x == y || (isnan(x) && isnan(y))) return 0;
    if (!isfinite(x) && t == &any) return 0;
    if (!isfinite(x) || !isfinite(y)) return (double)INFINITY;
    return fabs(x - y) - (t->absolute + t->relative * fmax(fabs(x), fabs(y)));
}

/* Index of the worst element and its excess; excess <= 0 means agreement. */
static int64_t worst(const nb_tensor *a, const nb_tensor *b, const tolerance *t, double *excess) {
    int64_t at = 0;
    *excess = 0;
    int64_t n = nb_tensor_count(a);
    for (int64_t i = 0; i < n; i++) {
        const double over = excess_of(nb_tensor_get(a, i), nb_tensor_get(b, i), t);
        if (over > *excess) {
            *excess = over;
            at = i;
        }
    }
    return at;
}

typedef struct check {
    const nb_pass *pass;
    const nb_graph *before, *after;
    nb_pass_env *env;
    nb_arena *arena;
    nb_tensor *a, *b; /* outputs before and after */
} check;

static bool is_state(const nb_graph *g, size_t output) {
    for (size_t i = 0; i < g->states.count; i++) {
        if (g->states.items[i].output == output) return true;
    }
    return false;
}

static const char *tolerance_text(nb_arena *arena, const tolerance *t) {
    if (t == &any) return nb_format(arena, "%s keep what is finite finite", t->of);
    return nb_format(arena, "the tolerance of %s is %g + %g %%", t->of, t->absolute,
                     100 * t->relative);
}

/* Did the pass leave the inputs as they were? */
static bool takes_the_same(const nb_graph *a, const nb_graph *b) {
    bool same = a->body.n_params == b->body.n_params && a->outputs.count == b->outputs.count;
    for (uint32_t i = 0; same && i < a->body.n_params; i++) {
        const nb_type *x = a->body.params[i]->type, *y = b->body.params[i]->type;
        same = x->elem == y->elem && x->rank == y->rank;
    }
    return same;
}

/* The last entries of t along axis 1, as many as `like` has. */
static nb_tensor last_of(nb_arena *arena, const nb_tensor *t, const nb_tensor *like) {
    nb_tensor out = *t;
    if (t->rank < 2 || like->rank != t->rank || t->dims[1] < like->dims[1] || !t->dims[0] ||
        !t->dims[1])
        return out;
    const int64_t from = t->bytes / t->dims[0], to = from / t->dims[1] * like->dims[1];
    out.dims[1] = like->dims[1];
    out.bytes = to * t->dims[0];
    out.data = nb_alloc(arena, (size_t)out.bytes + 1);
    for (int64_t i = 0; i < t->dims[0]; i++)
        memcpy((char *)out.data + i * to, (const char *)t->data + (i + 1) * from - to, (size_t)to);
    return out;
}

static nb_status compare(const check *c, size_t output) {
    const nb_tensor *a = &c->a[output], *b = &c->b[output];
    nb_tensor last;
    if (c->pass->promises & NB_PASS_LAST_ONLY) {
        last = last_of(c->arena, a, b);
        a = &last;
    }
    const char *name = c->before->outputs.items[output];
    const tolerance *t = tolerance_of(c->pass);
    if (t == &any && nb_tensor_count(a) != nb_tensor_count(b)) return NB_OK;
    if (nb_tensor_count(a) != nb_tensor_count(b))
        return nb_error(c->env->diags, NB_CHECK_FAILED, NB_NOWHERE,
                        "pass '%s' changed the shape of output \"%s\"", c->pass->name, name);
    double excess;
    int64_t at = worst(a, b, t, &excess);
    if (!(excess > 0)) return NB_OK;
    return nb_error(c->env->diags, NB_CHECK_FAILED, NB_NOWHERE,
                    "pass '%s' changed output \"%s\": element %lld was %.9g, is %.9g (%s)",
                    c->pass->name, name, (long long)at, nb_tensor_get(a, at), nb_tensor_get(b, at),
                    tolerance_text(c->arena, t));
}

/* Runs each graph on its inputs; `states` tells whether those are to agree too. */
static nb_status run_both(const check *c, const nb_tensor *before, const nb_tensor *after,
                          bool states) {
    if (!before || !after)
        return nb_error(c->env->diags, NB_LIMIT, NB_NOWHERE,
                        "inputs for --check-each are too large");
    NB_TRY(run_graph(c->before, before, c->a, c->env, c->arena));
    NB_TRY(run_graph(c->after, after, c->b, c->env, c->arena));
    for (size_t i = 0; i < c->before->outputs.count; i++) {
        if (states || !is_state(c->before, i)) NB_TRY(compare(c, i));
    }
    return NB_OK;
}

/* Makes past states as long as those of `outputs`; NULL: empty. */
static void set_lengths(const nb_graph *g, int64_t *symbols, const nb_tensor *outputs) {
    for (size_t i = 0; i < g->states.count; i++) {
        const nb_state *s = &g->states.items[i];
        if (s->axis < 0) continue;
        const nb_dim *length = g->body.params[s->input]->type->dims[s->axis];
        if (length->kind == NB_DIM_SYMBOL)
            symbols[length->symbol->index] = outputs ? outputs[s->output].dims[s->axis] : 0;
    }
}

/* Two runs, one behind the other, each graph with states of its own. */
static nb_status check_runs(const check *c) {
    int64_t *symbols = made_up_symbols(c->before, c->arena);
    set_lengths(c->before, symbols, NULL);
    nb_tensor *inputs = inputs_of_size(c->before, symbols, c->arena);
    NB_TRY(run_both(c, inputs, inputs, false));
    set_lengths(c->before, symbols, c->a);
    nb_tensor *before = inputs_of_size(c->before, symbols, c->arena),
              *after = inputs_of_size(c->before, symbols, c->arena);
    for (size_t i = 0; before && after && i < c->before->states.count; i++) {
        const nb_state *s = &c->before->states.items[i];
        before[s->input] = c->a[s->output];
        after[s->input] = c->b[s->output];
    }
    return run_both(c, before, after, false);
}

static nb_status check_run(const check *c) {
    const nb_tensor *inputs =
        c->env->n_samples ? c->env->samples[0].inputs : nb_made_up_inputs(c->before, c->arena);
    return run_both(c, inputs, inputs, true);
}

nb_status nb_check_pass(const nb_pass *pass, const nb_graph *before, const nb_graph *after,
                        nb_pass_env *env) {
    if (tolerance_of(pass) == &any && !takes_the_same(before, after)) return NB_OK;
    nb_arena *arena = nb_arena_create_like(env->arena);
    check c = {.pass = pass, .before = before, .after = after, .env = env, .arena = arena};
    c.a = NB_NEW_ARRAY(arena, nb_tensor, before->outputs.count + 1);
    c.b = NB_NEW_ARRAY(arena, nb_tensor, before->outputs.count + 1);
    bool moves = (pass->promises & NB_PASS_MOVES_STATES) && before->states.count;
    nb_status status = moves ? check_runs(&c) : check_run(&c);
    nb_arena_destroy(arena);
    return status;
}
