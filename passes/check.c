/* Holds a pass to its promise: same numbers before and after (check.h). */
#include "passes/check.h"

#include <math.h>
#include <string.h>

/* Made-up symbols cycle through these, clamped to their range: small, different, not powers of two.
 */
static const int64_t made_up_sizes[] = {2, 3, 5, 4};

/* What "agree within tolerance" means: |a-b| <= ABSOLUTE + RELATIVE * max(|a|, |b|). Reordering the
 * sums of a small decoder moves logits by about 1e-5; a wrong rewrite by far more than this. */
#define ABSOLUTE 2e-4
#define RELATIVE 2e-3

bool nb_check_applies(const nb_pass *pass) {
    return (pass->promises & (NB_PASS_KEEPS_BITS | NB_PASS_KEEPS_NUMBERS)) != 0;
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

nb_tensor *nb_made_up_inputs(const nb_graph *g, nb_arena *arena) {
    int64_t *symbols = NB_NEW_ARRAY(arena, int64_t, g->symbols.count + 1);
    for (size_t i = 0; i < g->symbols.count; i++) {
        const nb_symbol *s = g->symbols.items[i];
        symbols[i] =
            nb_min_i64(nb_max_i64(made_up_sizes[i % NB_COUNT(made_up_sizes)], s->min), s->max);
    }
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
    }
    return inputs;
}

static nb_status run_graph(const nb_graph *g, const nb_tensor *inputs, nb_tensor *outputs,
                           nb_pass_env *env, nb_arena *arena) {
    if (env->run) return env->run(env->run_user, g, inputs, outputs, NULL, 0, arena, env->diags);
    return nb_eval(g, inputs, outputs, NULL, 0, arena, env->diags);
}

/* Index of the worst element and its excess over the tolerance; excess <= 0 means agreement. */
static int64_t worst(const nb_tensor *a, const nb_tensor *b, bool bits, double *excess) {
    int64_t at = 0;
    *excess = 0;
    int64_t n = nb_tensor_count(a);
    for (int64_t i = 0; i < n; i++) {
        double x = nb_tensor_get(a, i), y = nb_tensor_get(b, i);
        if (isnan(x) && isnan(y)) continue;
        double over = isnan(x) || isnan(y)
                          ? INFINITY
                          : fabs(x - y) - (bits ? 0 : ABSOLUTE + RELATIVE * fmax(fabs(x), fabs(y)));
        if (over > *excess) {
            *excess = over;
            at = i;
        }
    }
    return at;
}

nb_status nb_check_pass(const nb_pass *pass, const nb_graph *before, const nb_graph *after,
                        nb_pass_env *env) {
    nb_arena *arena = nb_arena_create_like(env->arena);
    const nb_tensor *inputs =
        env->n_samples ? env->samples[0].inputs : nb_made_up_inputs(before, arena);
    size_t n = before->outputs.count;
    nb_tensor *a = NB_NEW_ARRAY(arena, nb_tensor, n + 1),
              *b = NB_NEW_ARRAY(arena, nb_tensor, n + 1);
    bool bits = (pass->promises & NB_PASS_KEEPS_BITS) != 0;
    nb_status status = inputs ? NB_OK
                              : nb_error(env->diags, NB_LIMIT, NB_NOWHERE,
                                         "inputs for --check-each are too large");
    if (status == NB_OK) status = run_graph(before, inputs, a, env, arena);
    if (status == NB_OK) status = run_graph(after, inputs, b, env, arena);
    for (size_t i = 0; i < n && status == NB_OK; i++) {
        const char *name = before->outputs.items[i];
        if (nb_tensor_count(&a[i]) != nb_tensor_count(&b[i])) {
            status = nb_error(env->diags, NB_CHECK_FAILED, NB_NOWHERE,
                              "pass '%s' changed the shape of output \"%s\"", pass->name, name);
            break;
        }
        double excess;
        int64_t at = worst(&a[i], &b[i], bits, &excess);
        if (!(excess > 0)) continue;
        status = nb_error(env->diags, NB_CHECK_FAILED, NB_NOWHERE,
                          "pass '%s' changed output \"%s\": element %lld was %.9g, is %.9g (%s)",
                          pass->name, name, (long long)at, nb_tensor_get(&a[i], at),
                          nb_tensor_get(&b[i], at),
                          bits ? "it promises equal bits" : "tolerance 2e-4 + 0.2 %");
    }
    nb_arena_destroy(arena);
    return status;
}
