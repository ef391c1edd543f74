/* Rounds of runs, and one run at the shapes of a sample (stopwatch.h). */
#include "lib/stopwatch.h"

#include <string.h>

#define ROUNDS  15
#define SECONDS 1.0 /* no further round begins after that, but for LEAST */
#define LEAST   3

/* ---- rounds ---------------------------------------------------------------------------------- */

/* seconds[i * ROUNDS]: of run i. */
static nb_status run_round(const nbl_rounds *r, nbl_recorder *recorder, double *seconds) {
    nbl_record(r->session, NULL);
    if (r->begin) NB_TRY(r->begin(r->user, recorder != NULL));
    nbl_record(r->session, recorder);
    for (size_t i = 0; i < r->runs; i++) {
        NB_TRY(r->run(r->user, seconds + i * ROUNDS));
        if (recorder) nbl_recorded(recorder);
    }
    return NB_OK;
}

nb_status nbl_time_rounds(const nbl_rounds *r, nb_arena *arena, double *seconds, double *of_ops) {
    double *whole = NB_NEW_ARRAY(arena, double, ROUNDS * r->runs),
           *marked = NB_NEW_ARRAY(arena, double, ROUNDS * r->runs);
    nbl_recorder recorder = nbl_recorder_of(arena, r->model, ROUNDS * r->runs);
    NB_TRY(run_round(r, NULL, marked)); /* everything is there from then on */
    size_t n = 0;
    for (const double begin = nbl_now(); n < ROUNDS && (n < LEAST || nbl_now() - begin < SECONDS);
         n++) {
        NB_TRY(run_round(r, NULL, whole + n));
        NB_TRY(run_round(r, &recorder, marked));
    }
    *seconds = 0;
    for (size_t i = 0; i < r->runs; i++)
        *seconds += nbl_times_of(whole + i * ROUNDS, n).median / (double)r->runs;
    memcpy(of_ops, nbl_recorder_medians(arena, &recorder), recorder.n_ops * sizeof *of_ops);
    return NB_OK;
}

int64_t nbl_group(double each) { return each < 2e-5 ? 1 + (int64_t)(2e-4 / (each + 1e-8)) : 1; }

/* ---- one run at the shapes of a sample ---------------------------------------------------------
 */

nbl_sample nbl_first_sample(const nb_graph *g, const nb_pass_env *env, nb_arena *arena) {
    const char **names =
        (const char **)nb_alloc_array(arena, (size_t)g->body.n_params + 1, sizeof *names);
    for (uint32_t i = 0; i < g->body.n_params; i++)
        names[i] = nb_strdup(arena, g->body.params[i]->name);
    return (nbl_sample){.env = env, .names = names, .n = g->body.n_params};
}

const nb_tensor *nbl_sample_inputs(const nbl_sample *given) {
    return given->env && given->env->samples ? given->env->samples[0].inputs : NULL;
}

typedef struct timed {
    nb_session *session;
    const nb_model *model;
    const nbl_sample *given;
    nb_diags *diags;
    int64_t past; /* entries that the sample's caches hold; -1: it has none that fit */
} timed;

static const nb_tensor *given_for(const timed *t, uint32_t input) {
    const nb_port *port = &t->model->inputs[input];
    const nb_tensor *inputs = nbl_sample_inputs(t->given);
    for (size_t i = 0; inputs && i < t->given->n; i++) {
        const nb_tensor *tensor = &inputs[i];
        if (strcmp(t->given->names[i], port->name) == 0)
            return tensor->data && tensor->elem == nb_elem_from_onnx(port->elem) &&
                           tensor->rank == port->rank
                       ? tensor
                       : NULL;
    }
    return NULL;
}

/* Inputs of one kind: a state's stands for one run, the others' stay. */
static nb_status set_inputs(timed *t, bool states) {
    nb_error_text err;
    for (uint32_t i = 0; i < t->model->n_inputs; i++) {
        const int32_t state = t->model->inputs[i].state;
        const nb_tensor *tensor = given_for(t, i);
        if ((state >= 0) != states || !tensor) continue;
        NB_TRY(nbl_runtime_error(
            t->diags, nb_session_set_input(t->session, (int)i, tensor->data, tensor->dims, err),
            err));
        if (states && t->model->states[state].appended)
            t->past = tensor->dims[t->model->states[state].axis];
    }
    return NB_OK;
}

/* Entries behind the sample's are forgotten; what cannot be, is given again. */
static nb_status run(void *user, double *seconds) {
    timed *t = user;
    nb_error_text err;
    if (t->past < 0 || nb_session_length(t->session) < t->past ||
        nb_session_rewind(t->session, t->past, err) != NB_RT_OK) {
        NB_TRY(nbl_runtime_error(t->diags, nb_session_reset(t->session, err), err));
        NB_TRY(set_inputs(t, true));
    }
    const double start = nbl_now();
    NB_TRY(nbl_runtime_error(t->diags, nb_session_run(t->session, err), err));
    *seconds = nbl_now() - start;
    return NB_OK;
}

static nb_status time_session(timed *t, nb_arena *arena, double *seconds, double *of_ops) {
    nbl_rounds rounds = {.session = t->session, .model = t->model, .run = run, .user = t};
    NB_TRY(set_inputs(t, false));
    double each = 0;
    for (int i = 0; i < 2; i++) NB_TRY(run(t, &each));
    rounds.runs = (size_t)nbl_group(each);
    return nbl_time_rounds(&rounds, arena, seconds, of_ops);
}

nb_status nbl_time_program(const nbl_program *program, int threads, const nbl_sample *given,
                           nb_arena *arena, nb_diags *diags, double *seconds, double *of_ops) {
    nb_error_text err;
    timed t = {
        .model = nb_loaded_model(program->loaded), .given = given, .diags = diags, .past = -1};
    const nb_session_options options = {.threads = threads};
    NB_TRY(nbl_runtime_error(diags, nb_session_create(program->loaded, &options, &t.session, err),
                             err));
    const nb_status status = time_session(&t, arena, seconds, of_ops);
    nb_session_destroy(t.session);
    return status;
}

double nbl_run_seconds(void *user, const nb_graph *planned, double *of_ops) {
    const nbl_stopwatch *s = user;
    const nbl_how how = {.profile = true};
    nb_arena *arena = nb_arena_create_like(s->arena);
    nbl_program program = {0};
    double seconds = -1;
    nb_status status =
        nbl_compile_graph(planned, cg_cpu_find(NULL, "native"), &how, arena, s->diags, &program);
    if (status == NB_OK)
        status = nbl_time_program(&program, 0, &s->given, arena, s->diags, &seconds, of_ops);
    nbl_close(&program);
    nb_arena_destroy(arena);
    return status == NB_OK ? seconds : -1;
}
