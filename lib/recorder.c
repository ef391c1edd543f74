/* Times of single ops, by the marks of a profiled model (stopwatch.h). */
#include "lib/stopwatch.h"

/* Times of single ops that are kept at most. */
#define MAX_SAMPLES ((size_t)8 << 20)

static void mark(void *user, int64_t op) {
    nbl_recorder *r = user;
    double now = nbl_now();
    if (op >= 0 && op < (int64_t)r->n_ops && r->n_runs < r->max_runs)
        r->samples[(size_t)op * r->max_runs + r->n_runs] = now - r->last;
    r->last = nbl_now(); /* what this took is nobody's */
}

nbl_recorder nbl_recorder_of(nb_arena *arena, const nb_model *m, size_t runs) {
    size_t most = MAX_SAMPLES / ((size_t)m->n_ops + 1) + 1;
    nbl_recorder r = {.n_ops = m->n_ops, .max_runs = runs < most ? runs : most};
    r.samples = NB_NEW_ARRAY(arena, double, r.n_ops *r.max_runs + 1);
    return r;
}

void nbl_record(nb_session *session, nbl_recorder *r) {
    nb_session_set_mark(session, r ? mark : NULL, r);
}

void nbl_recorded(nbl_recorder *r) {
    if (r->n_runs < r->max_runs) r->n_runs++;
}

double *nbl_recorder_medians(nb_arena *arena, nbl_recorder *r) {
    double *out = NB_NEW_ARRAY(arena, double, r->n_ops + 1);
    for (size_t op = 0; op < r->n_ops && r->n_runs; op++)
        out[op] = nbl_times_of(r->samples + op * r->max_runs, r->n_runs).median;
    return out;
}
