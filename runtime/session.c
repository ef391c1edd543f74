/* Sessions: create, run, give out, destroy (session.h). */
#include "runtime/session.h"
#include "runtime/cpu.h"

#include <inttypes.h>
#include <string.h>

static nb_rt_status allocate_tables(nb_session *s, char *err) {
    const nb_model *m = s->model;
    const nb_memory *memory = &s->memory;
    size_t n = m->n_inputs, ports = n + m->n_outputs;
    static const char what[] = "a session";
    if (!(s->inputs = nb_allocate_zeroed(memory, n * sizeof *s->inputs, what, err)) ||
        !(s->outputs = nb_allocate_zeroed(memory, m->n_outputs * sizeof *s->outputs, what, err)) ||
        !(s->states = nb_allocate_zeroed(memory, m->n_states * sizeof *s->states, what, err)) ||
        !(s->shape_values = nb_allocate_zeroed(
              memory, n * NB_MODEL_MAX_RANK * sizeof *s->shape_values, what, err)) ||
        !(s->shapes = nb_allocate(memory, n * sizeof *s->shapes, what, err)) ||
        !(s->symbols = nb_allocate_zeroed(memory, ((size_t)m->n_symbols + 2) * sizeof *s->symbols,
                                          what, err)) ||
        !(s->planned = nb_allocate_zeroed(memory, m->n_symbols * sizeof *s->planned, what, err)) ||
        !(s->grown = nb_allocate_zeroed(memory, m->n_symbols * sizeof *s->grown, what, err)) ||
        !(s->offsets = nb_allocate_zeroed(memory, m->n_buffers * sizeof *s->offsets, what, err)) ||
        !(s->ports = nb_allocate_zeroed(memory, ports * sizeof *s->ports, what, err)))
        return NB_RT_NO_MEMORY;
    for (size_t i = 0; i < n; i++) s->shapes[i] = s->shape_values + i * NB_MODEL_MAX_RANK;
    return NB_RT_OK;
}

static nb_rt_status check_options(const nb_session_options *o, char *err) {
    if (o->threads < 0 || o->threads > NB_POOL_MAX_THREADS)
        return nb_rt_fail(err, NB_RT_ARGUMENT, "%d threads: expected 0 .. %d", o->threads,
                          NB_POOL_MAX_THREADS);
    if (o->capacity < 0)
        return nb_rt_fail(err, NB_RT_ARGUMENT, "the capacity is negative: %" PRId64, o->capacity);
    if (!o->allocate != !o->release)
        return nb_rt_fail(err, NB_RT_ARGUMENT, "`allocate` and `release` come together");
    return NB_RT_OK;
}

/* The limit of appended states: what the user wants, within what the model was compiled for. */
static nb_rt_status choose_limit(nb_session *s, int64_t capacity, char *err) {
    const nb_model *m = s->model;
    s->limit = INT64_MAX;
    for (uint32_t i = 0; i < m->n_states; i++) {
        if (!m->states[i].appended) continue;
        const nb_model_symbol *symbol = &m->symbols[m->states[i].symbol];
        if (capacity > symbol->max)
            return nb_rt_fail(err, NB_RT_ARGUMENT,
                              "a capacity of %" PRId64 " is asked for, but the "
                              "model was compiled for at most %" PRId64 " ('%s')",
                              capacity, symbol->max, symbol->name);
        s->fixed = capacity > 0;
        s->limit = s->fixed ? capacity : symbol->max;
    }
    return NB_RT_OK;
}

static nb_rt_status fill_session(nb_session *s, const nb_loaded *loaded,
                                 const nb_session_options *options, char *err) {
    nb_rt_status status = choose_limit(s, options->capacity, err);
    if (status == NB_RT_OK) status = allocate_tables(s, err);
    s->threads = options->threads > 0 ? options->threads : nb_cpu_count();
    if (s->threads > NB_POOL_MAX_THREADS) s->threads = NB_POOL_MAX_THREADS;
    if (status == NB_RT_OK && s->threads > 1)
        status = nb_pool_create(s->threads, &s->memory, &s->pool, err);
    s->frame = (nb_frame){.size = sizeof s->frame,
                          .threads = s->threads,
                          .ports = s->ports,
                          .symbols = s->symbols,
                          .offsets = s->offsets,
                          .weights = nb_loaded_weights(loaded),
                          .parallel_for = s->pool ? nb_pool_for : NULL,
                          .pool = s->pool,
                          .cancel = &s->cancel,
                          .error = &s->error_op,
                          .planned = s->planned};
    return status;
}

nb_rt_status nb_session_create(nb_loaded *loaded, const nb_session_options *options,
                               nb_session **out, char *err) {
    static const nb_session_options standard = {0};
    if (!options) options = &standard;
    if (!loaded || !out)
        return nb_rt_fail(err, NB_RT_ARGUMENT, "nb_session_create: `loaded` or `out` is null");
    *out = NULL;
    nb_rt_status status = check_options(options, err);
    if (status != NB_RT_OK) return status;
    nb_memory memory = nb_default_memory;
    if (options->allocate) memory = (nb_memory){options->allocate, options->release, options->user};
    nb_session *s = nb_allocate_zeroed(&memory, sizeof *s, "a session", err);
    if (!s) return NB_RT_NO_MEMORY;
    s->memory = memory;
    s->model = nb_loaded_model(loaded);
    status = fill_session(s, loaded, options, err);
    if (status != NB_RT_OK) {
        nb_session_destroy(s);
        return status;
    }
    *out = s;
    return NB_RT_OK;
}

void nb_session_destroy(nb_session *s) {
    if (!s) return;
    nb_memory memory = s->memory;
    nb_pool_destroy(s->pool);
    for (uint32_t i = 0; s->states && i < s->model->n_states; i++) {
        nb_drop(&memory, &s->states[i].current);
        nb_drop(&memory, &s->states[i].spare);
        nb_drop(&memory, &s->states[i].copy);
    }
    for (uint32_t i = 0; s->outputs && i < s->model->n_outputs; i++)
        nb_drop(&memory, &s->outputs[i].own);
    nb_drop(&memory, &s->arena);
    nb_release(&memory, s->inputs);
    nb_release(&memory, s->outputs);
    nb_release(&memory, s->states);
    nb_release(&memory, s->shape_values);
    nb_release(&memory, s->shapes);
    nb_release(&memory, s->symbols);
    nb_release(&memory, s->planned);
    nb_release(&memory, s->grown);
    nb_release(&memory, s->offsets);
    nb_release(&memory, s->ports);
    nb_release(&memory, s);
}

static nb_rt_status run_failed(nb_session *s, int32_t result, char *err) {
    const nb_model *m = s->model;
    if (result == NB_RUN_CANCELLED) {
        __atomic_store_n(&s->cancel, 0, __ATOMIC_RELAXED);
        return nb_rt_fail(err, NB_RT_CANCELLED, "the run was cancelled");
    }
    int64_t op = s->error_op;
    const char *name = op >= 0 && op < (int64_t)m->n_ops ? m->op_names[op] : NULL;
    return nb_rt_fail(err, NB_RT_INDEX,
                      "'%s': an index is out of range, or sizes or numbers are not what it takes",
                      name ? name : m->name);
}

/* After a run that found more than was planned for: plans for that, and for twice as much as the
 * last time, since a loop may find more in each step. */
static nb_rt_status grow(nb_session *s, char *err) {
    const nb_model *m = s->model;
    bool grows = false;
    for (uint32_t i = 0; i < nb_counted(m); i++) {
        const int32_t at = m->counted[i];
        const int64_t found = s->symbols[at], most = m->symbols[at].max;
        if (found <= s->planned[at]) continue;
        const int64_t twice = s->grown[at] <= most / 2 ? 2 * s->grown[at] : most;
        s->grown[at] = found > twice ? found : twice;
        grows = true;
    }
    if (grows) return nb_session_bind(s, err);
    return nb_rt_fail(err, NB_RT_CORRUPT, "model '%s' asks for more memory than it says", m->name);
}

/* The outputs are as large as the data said. */
static void shrink_outputs(nb_session *s) {
    const nb_model *m = s->model;
    if (nb_counted(m) == 0) return;
    for (uint32_t i = 0; i < m->n_outputs; i++) m->shape(s->symbols, i, s->outputs[i].dims);
    if (m->n_states > 0) s->bound = false; /* a state may have another size now */
}

nb_rt_status nb_session_run(nb_session *s, char *err) {
    if (!s) return nb_rt_fail(err, NB_RT_ARGUMENT, "nb_session_run: the session is null");
    s->ran = false;
    nb_rt_status status = s->apart ? NB_RT_OK : nb_session_check_apart(s, err);
    if (status == NB_RT_OK && !s->bound) status = nb_session_bind(s, err);
    if (status != NB_RT_OK) return status;
    if (__atomic_load_n(&s->cancel, __ATOMIC_RELAXED)) return run_failed(s, NB_RUN_CANCELLED, err);
    s->error_op = -1;
    uint64_t mode = nb_fp_enter();
    int32_t result = s->model->run(&s->frame);
    while (result == NB_RUN_MORE && (status = grow(s, err)) == NB_RT_OK)
        result = s->model->run(&s->frame);
    nb_fp_leave(mode);
    if (status != NB_RT_OK) return status;
    if (result != NB_RUN_OK) return run_failed(s, result, err);
    shrink_outputs(s);
    nb_session_advance(s);
    s->ran = true;
    return NB_RT_OK;
}

const void *nb_session_output(nb_session *s, int index, int64_t *dims) {
    if (!s || index < 0 || index >= (int64_t)s->model->n_outputs) return NULL;
    const nb_port *port = &s->model->outputs[index];
    if (port->state >= 0) return nb_session_state_output(s, (uint32_t)port->state, dims);
    if (!s->ran) return NULL;
    if (dims) memcpy(dims, s->outputs[index].dims, (size_t)port->rank * sizeof *dims);
    return s->ports[s->model->n_inputs + (uint32_t)index];
}

void nb_session_set_mark(nb_session *s, void (*mark)(void *user, int64_t op), void *user) {
    if (!s) return;
    s->frame.mark = mark;
    s->frame.mark_user = user;
}

const int64_t *nb_session_symbols(const nb_session *s) { return s && s->ran ? s->symbols : NULL; }

void nb_session_cancel(nb_session *s) {
    if (s) __atomic_store_n(&s->cancel, 1, __ATOMIC_RELAXED);
}
