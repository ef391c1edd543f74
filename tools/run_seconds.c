/* How long one run of a model takes, and each op in it, for passes that have a budget of time
 * (bench.h): a decoder's step of one token behind a prompt, any other model's run at the shapes of
 * the first sample. As in bench each of a decoder's rounds without marks begins with the prompt,
 * behind which the first steps find caches that are not theirs. */
#include "tools/bench.h"

#include "tools/lm.h"

#include <string.h>

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

/* ---- decoders ------------------------------------------------------------------------------- */

/* Tokens behind a prompt. */
typedef struct decoding {
    nbt_args *args;
    nbt_decoder d;
    int64_t prompt;
    int64_t *tokens; /* [prompt] */
} decoding;

/* Who looks at ops, which are many, has no use for the prompt. */
static nb_status begin_round(void *user, bool marked) {
    decoding *w = user;
    const float *logits;
    if (marked && w->d.length >= w->prompt &&
        nb_session_rewind(w->d.session, w->prompt, NULL) == NB_RT_OK) {
        w->d.length = w->prompt;
        return NB_OK;
    }
    NB_TRY(nbt_decoder_reset(&w->d));
    return nbt_decoder_feed(&w->d, w->tokens, 1, w->prompt, &logits);
}

static nb_status one_token(void *user, double *seconds) {
    decoding *w = user;
    const float *logits;
    const double start = nbl_now();
    NB_TRY(nbt_decoder_feed(&w->d, w->tokens, 1, 1, &logits));
    *seconds = nbl_now() - start;
    return NB_OK;
}

static bool has_cache(const nb_model *m) {
    for (uint32_t i = 0; i < m->n_states; i++) {
        if (m->states[i].appended) return true;
    }
    return false;
}

/* A prompt of the sample's tokens, from the first again behind the last. */
static nb_status set_prompt(decoding *w, const nb_tensor *inputs) {
    const nb_tensor *t = &inputs[w->d.lm.tokens];
    const int64_t count = nb_tensor_count(t);
    if (count < 1) return nb_error(w->args->diags, NB_MALFORMED, NB_NOWHERE, "a sample is empty");
    w->tokens = NB_NEW_ARRAY(w->args->arena, int64_t, (size_t)w->prompt);
    for (int64_t i = 0; i < w->prompt; i++) w->tokens[i] = nb_tensor_get_int(t, i % count);
    return NB_OK;
}

static nb_status time_decoder(decoding *w, nbt_model *model, const nb_tensor *inputs, double *all,
                              double *seconds) {
    int64_t context = 256;
    NB_TRY(nbt_integer(w->args, "context", 2, 1 << 20, &context));
    const int64_t n = nb_max_i64(1, context / 4);
    w->prompt = context / 2;
    NB_TRY(nbt_decoder_open(w->args, model, w->prompt + n, &w->d));
    NB_TRY(set_prompt(w, inputs));
    const nbl_rounds rounds = {.session = w->d.session,
                               .model = nb_loaded_model(model->program.loaded),
                               .runs = (size_t)n,
                               .begin = begin_round,
                               .run = one_token,
                               .user = w};
    return nbl_time_rounds(&rounds, w->args->arena, all, seconds);
}

/* ---- models --------------------------------------------------------------------------------- */

static nb_status time_model(const nbt_stopwatch *s, nbt_args *args, const nb_graph *planned,
                            nbt_model *model, double *all, double *seconds) {
    nbl_how how = {.profile = true};
    const cg_cpu *cpu;
    NB_TRY(nbt_choose_threads(args, &model->threads));
    NB_TRY(choose_pages(args, &how.pages));
    NB_TRY(nbt_choose_cpu(args, "native", &cpu));
    NB_TRY(nbl_compile_graph(planned, cpu, &how, args->arena, args->diags, &model->program));
    nbt_name_ports(args, model);
    if (!has_cache(nb_loaded_model(model->program.loaded)) || !nbt_is_decoder(model))
        return nbl_time_program(&model->program, model->threads, &s->given, args->arena,
                                args->diags, all, seconds);
    decoding w = {.args = args};
    const nb_status status = time_decoder(&w, model, nbl_sample_inputs(&s->given), all, seconds);
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
