/* How long one run of a model takes, and each op in it, for passes that have a budget of time
 * (bench.h): a decoder's step of one token behind a prompt, any other model's run at the shapes of
 * the first sample. Rounds with marks take turns with rounds without, which give the time of the
 * whole: of each run its median over the rounds, so that a program that takes the processor now and
 * then does not count, and of these the mean. As in bench each of those rounds begins with the
 * prompt, behind which the first steps find caches that are not theirs. */
#include "tools/bench.h"

#include "tools/lm.h"

#include <string.h>

#define ROUNDS  15
#define SECONDS 1.0 /* no further round begins after that, but for LEAST */
#define LEAST   3

/* ---- how ------------------------------------------------------------------------------------ */

/* What is compiled to a file has its weights in pages of one when it runs. */
static nb_status choose_pages(nbt_args *args, nbl_pages *out) {
    *out = NBL_PAGES_SHARED;
    return strcmp(args->command, "compile") == 0 || strcmp(args->command, "opt") == 0
               ? NB_OK
               : nbt_choose_pages(args, out);
}

nb_status nbt_check_stopwatch(nbt_args *args) {
    const cg_cpu *cpu;
    int threads;
    nbl_pages pages;
    NB_TRY(nbt_choose_threads(args, &threads));
    NB_TRY(choose_pages(args, &pages));
    NB_TRY(nbt_choose_cpu(args, "native", &cpu));
    if (cg_cpu_find(NULL, cpu->name) == cpu && !(cpu->features & ~nb_cpu_features())) return NB_OK;
    nb_error(args->diags, NB_USAGE, NB_NOWHERE,
             "a budget of time is measured on this machine, which does not run code for %s (%s)",
             cpu->name, cpu->triple);
    nb_help(args->diags, "give a size instead, like --budget 4.7bpw, or compile by the recipe that "
                         "--save-recipe wrote on a machine of that kind");
    return NB_USAGE;
}

/* ---- rounds --------------------------------------------------------------------------------- */

/* Some runs in a row. */
typedef struct timing {
    nbt_args *args;
    nbt_decoder d;          /* its session is that of all models */
    int64_t prompt, n;      /* tokens before the first run, 0: no decoder; runs of a round */
    int64_t *tokens;        /* [prompt] */
    nbt_recorder *recorder; /* NULL: nobody looks at ops */
} timing;

/* Who looks at ops, which are many, has no use for the prompt. */
static nb_status begin_round(timing *w) {
    const float *logits;
    nbt_record(w->d.session, NULL);
    if (!w->prompt) return NB_OK;
    if (w->recorder && w->d.length >= w->prompt &&
        nb_session_rewind(w->d.session, w->prompt, NULL) == NB_RT_OK) {
        w->d.length = w->prompt;
        return NB_OK;
    }
    NB_TRY(nbt_decoder_reset(&w->d));
    return nbt_decoder_feed(&w->d, w->tokens, 1, w->prompt, &logits);
}

/* seconds[i * ROUNDS]: of run i. */
static nb_status run_round(timing *w, double *seconds) {
    const float *logits;
    NB_TRY(begin_round(w));
    nbt_record(w->d.session, w->recorder);
    for (int64_t i = 0; i < w->n; i++, seconds += ROUNDS) {
        const double start = nbt_now();
        if (w->prompt) NB_TRY(nbt_decoder_feed(&w->d, w->tokens, 1, 1, &logits));
        *seconds = nbt_now() - start;
        if (!w->prompt) NB_TRY(nbt_runs(w->args, w->d.session, 1, seconds));
        if (w->recorder) nbt_recorded(w->recorder);
    }
    return NB_OK;
}

static nb_status run_rounds(timing *w, double *all, double *seconds) {
    const nb_model *m = nb_loaded_model(w->d.model->program.loaded);
    nb_arena *arena = w->args->arena;
    if (!w->prompt) NB_TRY(nbt_warm_up(w->args, w->d.session, &w->n));
    const size_t each = (size_t)w->n;
    double *whole = NB_NEW_ARRAY(arena, double, ROUNDS *each),
           *marked = NB_NEW_ARRAY(arena, double, ROUNDS *each);
    nbt_recorder r = nbt_recorder_of(arena, m, ROUNDS * each);
    NB_TRY(run_round(w, marked));
    size_t n = 0;
    for (const double begin = nbt_now(); n < ROUNDS && (n < LEAST || nbt_now() - begin < SECONDS);
         n++) {
        w->recorder = NULL;
        NB_TRY(run_round(w, whole + n));
        w->recorder = &r;
        NB_TRY(run_round(w, marked));
    }
    *all = 0;
    for (size_t i = 0; i < each; i++)
        *all += nbt_times_of(whole + i * ROUNDS, n).median / (double)each;
    memcpy(seconds, nbt_recorder_medians(arena, &r), r.n_ops * sizeof *seconds);
    return NB_OK;
}

/* ---- models --------------------------------------------------------------------------------- */

static bool has_cache(const nb_model *m) {
    for (uint32_t i = 0; i < m->n_states; i++) {
        if (m->states[i].appended) return true;
    }
    return false;
}

static nb_status set_sample(const timing *w, const nb_sample *sample) {
    nb_error_text err;
    const nb_model *m = nb_loaded_model(w->d.model->program.loaded);
    for (uint32_t i = 0; i < m->n_inputs; i++) {
        const nb_tensor *t = &sample->inputs[i];
        if (m->inputs[i].state >= 0) continue;
        NB_TRY(nbl_runtime_error(w->args->diags,
                                 nb_session_set_input(w->d.session, (int)i, t->data, t->dims, err),
                                 err));
    }
    return NB_OK;
}

/* A prompt of the sample's tokens, from the first again behind the last. */
static nb_status set_prompt(timing *w, const nb_sample *sample) {
    const nb_tensor *t = &sample->inputs[w->d.lm.tokens];
    const int64_t count = nb_tensor_count(t);
    if (count < 1) return nb_error(w->args->diags, NB_MALFORMED, NB_NOWHERE, "a sample is empty");
    w->tokens = NB_NEW_ARRAY(w->args->arena, int64_t, (size_t)w->prompt);
    for (int64_t i = 0; i < w->prompt; i++) w->tokens[i] = nb_tensor_get_int(t, i % count);
    return NB_OK;
}

static nb_status time_decoder(timing *w, const nb_sample *sample, double *all, double *seconds) {
    int64_t context = 256;
    NB_TRY(nbt_integer(w->args, "context", 2, 1 << 20, &context));
    w->prompt = context / 2;
    w->n = nb_max_i64(1, context / 4);
    NB_TRY(nbt_decoder_open(w->args, w->d.model, w->prompt + w->n, &w->d));
    NB_TRY(set_prompt(w, sample));
    return run_rounds(w, all, seconds);
}

static nb_status time_runs(timing *w, const nb_sample *sample, double *all, double *seconds) {
    nb_error_text err;
    const nbt_model *model = w->d.model;
    nb_session_options options = {.threads = model->threads};
    NB_TRY(nbl_runtime_error(w->args->diags,
                             nb_session_create(model->program.loaded, &options, &w->d.session, err),
                             err));
    NB_TRY(set_sample(w, sample));
    return run_rounds(w, all, seconds);
}

static nb_status time_model(const nbt_stopwatch *s, nbt_args *args, const nb_graph *planned,
                            nbt_model *model, double *all, double *seconds) {
    nbl_how how = {.profile = true};
    const cg_cpu *cpu;
    NB_TRY(nbt_choose_threads(args, &model->threads));
    NB_TRY(choose_pages(args, &how.pages));
    NB_TRY(nbt_choose_cpu(args, "native", &cpu));
    NB_TRY(nbl_compile_graph(planned, cpu, &how, args->arena, args->diags, &model->program));
    nbt_name_ports(args, model);
    timing w = {.args = args, .d = {.args = args, .model = model}};
    const bool decodes = has_cache(nb_loaded_model(model->program.loaded)) && nbt_is_decoder(model);
    const nb_status status = decodes ? time_decoder(&w, s->sample, all, seconds)
                                     : time_runs(&w, s->sample, all, seconds);
    nbt_decoder_close(&w.d);
    return status;
}

double nbt_run_seconds(void *user, const nb_graph *planned, double *seconds) {
    const nbt_stopwatch *s = user;
    nbt_args args = *s->args;
    nbt_model model = {.path = planned->file};
    double all = -1;
    args.arena = nb_arena_create_like(s->args->arena);
    const nb_status status = time_model(s, &args, planned, &model, &all, seconds);
    nbl_close(&model.program);
    nb_arena_destroy(args.arena);
    return status == NB_OK ? all : -1;
}
