/* Work that adds up over the calibration samples (accumulate.h). */
#include "passes/accumulate.h"

#include "passes/kept.h"

#include <time.h>

/* Keeping the state may take this share of the time. */
#define SAVING_SHARE 0.05

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- keeping -------------------------------------------------------------------------------- */

typedef struct keeping {
    nb_kept kept;
    double next; /* when to keep again */
} keeping;

/* The samples, the graph, and what is looked at. */
static keeping begin(nb_pass_ctx *ctx, const nb_accumulation *work) {
    const nb_store *store = nb_state_of(ctx)->env->store;
    uint64_t key = nb_kept_key(ctx, work->version);
    for (size_t i = 0; i < work->taps.count; i++)
        key = nb_kept_key_of_text(key, work->taps.items[i].value->name);
    return (keeping){nb_kept_as(ctx, key), now() + (store ? store->interval : 0)};
}

static nb_status save(nb_pass_ctx *ctx, const nb_accumulation *work, keeping *k, size_t done) {
    const nb_store *store = k->kept.store;
    double start = now();
    if (!store || (done < nb_state_of(ctx)->env->n_samples && start < k->next)) return NB_OK;
    nb_status status = nb_kept_save(ctx, &k->kept, done, work->state.items, work->state.count);
    double pause = (now() - start) / SAVING_SHARE, interval = store->interval;
    k->next = now() + (interval > 0 && pause > interval ? pause : interval);
    return status;
}

/* ---- running -------------------------------------------------------------------------------- */

static nb_status run_sample(nb_pass_ctx *ctx, const nb_accumulation *work, size_t i) {
    nb_pass_state *s = nb_state_of(ctx);
    nb_pass_env *env = s->env;
    nb_arena *arena = nb_arena_create_like(s->scratch);
    nb_tensor *out = NB_NEW_ARRAY(arena, nb_tensor, ctx->graph->outputs.count + 1);
    const nb_tensor *in = env->samples[i].inputs;
    nb_status status = env->run ? env->run(env->run_user, ctx->graph, in, out, work->taps.items,
                                           work->taps.count, arena, env->diags)
                                : nb_eval(ctx->graph, in, out, work->taps.items, work->taps.count,
                                          arena, env->diags);
    nb_arena_destroy(arena);
    return status;
}

nb_status nb_accumulate(nb_pass_ctx *ctx, const nb_accumulation *work) {
    const nb_pass_state *s = nb_state_of(ctx);
    const nb_pass_env *env = s->env;
    if (!env->n_samples) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL, "there are no samples to run");
        ctx->host->help(ctx, "give some with --calib FILE");
        return NB_CHECK_FAILED;
    }
    keeping k = begin(ctx, work);
    size_t first = (size_t)nb_kept_load(ctx, &k.kept, work->state.items, work->state.count);
    if (first)
        ctx->host->report(ctx, NB_LEVEL_INFO, NULL, "%zu of %zu samples were kept as '%s'", first,
                          env->n_samples, k.kept.name);
    for (size_t i = first; i < env->n_samples; i++) {
        if (env->progress) env->progress(env->progress_user, s->pass->name, i, env->n_samples);
        NB_TRY(run_sample(ctx, work, i));
        NB_TRY(save(ctx, work, &k, i + 1));
    }
    if (env->progress)
        env->progress(env->progress_user, s->pass->name, env->n_samples, env->n_samples);
    return NB_OK;
}
