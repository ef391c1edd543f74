/* Prepares a run: symbols from shapes, room for states and outputs, plan (session.h). */
#include "runtime/session.h"

#include <inttypes.h>
#include <string.h>

/* The shapes for bind. What the user did not give is a state: what the session holds, or unknown
 * but for its length. `relaxed`: let the held states follow the inputs, to find out who is wrong.
 */
static void fill_shapes(nb_session *s, bool relaxed) {
    const nb_model *m = s->model;
    for (uint32_t i = 0; i < m->n_inputs; i++) {
        const nb_port *port = &m->inputs[i];
        int64_t *dims = s->shape_values + (size_t)i * NB_MODEL_MAX_RANK;
        if (s->inputs[i].given) {
            memcpy(dims, s->inputs[i].dims, sizeof s->inputs[i].dims);
            continue;
        }
        const session_state *st = &s->states[port->state];
        int32_t grows = m->states[port->state].axis;
        for (int32_t axis = 0; axis < port->rank; axis++)
            dims[axis] = st->held && (axis == grows || !relaxed) ? st->dims[axis]
                         : axis == grows                         ? 0
                                                                 : -1;
    }
}

/* A held state that does not fit the other inputs, after a relaxed bind succeeded. */
static nb_rt_status explain_state(nb_session *s, char *err) {
    const nb_model *m = s->model;
    for (uint32_t i = 0; i < m->n_states; i++) {
        const nb_port *port = nb_state_port(m, i);
        int64_t dims[NB_MODEL_MAX_RANK];
        if (!s->states[i].held || s->inputs[m->states[i].input].given) continue;
        m->input_shape(s->symbols, m->states[i].input, dims);
        nb_dims_text held, now;
        if (memcmp(dims, s->states[i].dims, (size_t)port->rank * sizeof *dims) != 0)
            return nb_rt_fail(err, NB_RT_ARGUMENT,
                              "state '%s' holds %s, but with the inputs given "
                              "it must be %s: reset the session first",
                              port->name, nb_print_dims(held, s->states[i].dims, port->rank),
                              nb_print_dims(now, dims, port->rank));
    }
    return nb_rt_fail(err, NB_RT_ARGUMENT,
                      "the inputs do not fit the state held: reset the session");
}

/* Why bind refused. Tries again with less to find out what it had expected. */
static nb_rt_status explain(nb_session *s, int64_t result, char *err) {
    const nb_model *m = s->model;
    if (result < 0) {
        int64_t symbol = -1 - result;
        return nb_rt_fail(err, NB_RT_ARGUMENT, "no input given tells the size of '%s'",
                          symbol < (int64_t)m->n_symbols ? m->symbols[symbol].name : "?");
    }
    fill_shapes(s, true);
    if (m->bind(s->shapes, s->symbols) == 0) return explain_state(s, err);

    fill_shapes(s, false);
    int64_t i = (result - 1) / 16, axis = (result - 1) % 16;
    if (i >= (int64_t)m->n_inputs || axis >= m->inputs[i].rank)
        return nb_rt_fail(err, NB_RT_ARGUMENT, "the model refuses the inputs' shapes");
    const nb_port *port = &m->inputs[i];
    int64_t *dims = s->shape_values + i * NB_MODEL_MAX_RANK, found = dims[axis];
    nb_dims_text text;
    nb_print_dims(text, dims, port->rank);
    dims[axis] = -1;
    if (m->bind(s->shapes, s->symbols) == 0) {
        int64_t expected[NB_MODEL_MAX_RANK];
        m->input_shape(s->symbols, i, expected);
        return nb_rt_fail(err, NB_RT_ARGUMENT,
                          "input '%s' has the shape %s, expected %s: dimension "
                          "%" PRId64 " is %" PRId64 " and should be %" PRId64,
                          port->name, text, port->shape, axis, found, expected[axis]);
    }
    return nb_rt_fail(err, NB_RT_ARGUMENT,
                      "input '%s' has the shape %s, expected %s: dimension "
                      "%" PRId64 " does not fit",
                      port->name, text, port->shape, axis);
}

static nb_rt_status bind_symbols(nb_session *s, char *err) {
    const nb_model *m = s->model;
    for (uint32_t i = 0; i < m->n_inputs; i++)
        if (!s->inputs[i].given && m->inputs[i].state < 0)
            return nb_rt_fail(err, NB_RT_ARGUMENT, "input '%s' was never set", m->inputs[i].name);
    fill_shapes(s, false);
    int64_t result = m->bind(s->shapes, s->symbols);
    if (result != 0) return explain(s, result, err);
    for (uint32_t i = 0; i < m->n_symbols; i++) {
        const nb_model_symbol *symbol = &m->symbols[i];
        int64_t value = s->symbols[i];
        if (value < symbol->min)
            return nb_rt_fail(err, NB_RT_ARGUMENT,
                              "'%s' is %" PRId64 ", the model was compiled for "
                              "at least %" PRId64,
                              symbol->name, value, symbol->min);
        if (value > symbol->max)
            return nb_rt_fail(err, NB_RT_ARGUMENT,
                              "'%s' is %" PRId64 ", the model was compiled for "
                              "at most %" PRId64,
                              symbol->name, value, symbol->max);
    }
    for (uint32_t i = 0; i < nb_counted(m); i++) {
        int64_t *value = &s->symbols[m->counted[i]];
        if (*value < s->grown[m->counted[i]]) *value = s->grown[m->counted[i]];
    }
    if (m->n_symbols) memcpy(s->planned, s->symbols, m->n_symbols * sizeof *s->planned);
    for (uint32_t i = 0; i < m->n_outputs; i++) m->shape(s->symbols, i, s->outputs[i].dims);
    return NB_RT_OK;
}

static nb_rt_status too_large(const nb_port *port, const int64_t *dims, char *err) {
    nb_dims_text text;
    return nb_rt_fail(err, NB_RT_NO_MEMORY, "'%s' is too large: %s", port->name,
                      nb_print_dims(text, dims, port->rank));
}

/* How many entries appended states have room for in this run. */
static nb_rt_status choose_capacity(nb_session *s, char *err) {
    const nb_model *m = s->model;
    int64_t needed = 0;
    for (uint32_t i = 0; i < m->n_states; i++) {
        const nb_model_state *ms = &m->states[i];
        if (!ms->appended) continue;
        const nb_port *port = &m->outputs[ms->output];
        int64_t entries = s->outputs[ms->output].dims[ms->axis];
        if (entries > s->limit)
            return nb_rt_fail(err, NB_RT_FULL,
                              "'%s' would have %" PRId64 " entries, its capacity is "
                              "%" PRId64,
                              port->name, entries, s->limit);
        if (entries > needed) needed = entries;
    }
    s->next_capacity = s->capacity;
    if (s->fixed) {
        s->next_capacity = s->limit;
    } else if (needed > s->capacity) {
        int64_t twice = s->capacity <= s->limit / 2 ? s->capacity * 2 : s->limit;
        s->next_capacity = needed > twice ? needed : twice;
    }
    return NB_RT_OK;
}

static nb_rt_status place_appended(nb_session *s, uint32_t i, const int64_t *in, char *err) {
    const nb_model *m = s->model;
    const nb_model_state *ms = &m->states[i];
    const nb_port *port = nb_state_port(m, i);
    const session_input *given = &s->inputs[ms->input];
    const int64_t *out = s->outputs[ms->output].dims;
    session_state *st = &s->states[i];
    /* One buffer has to serve both. */
    for (int32_t axis = 0; axis < port->rank; axis++)
        if (axis == ms->axis ? out[axis] < in[axis] : out[axis] != in[axis])
            return nb_rt_fail(err, NB_RT_CORRUPT,
                              "the descriptor of model '%s' is damaged: state "
                              "'%s' does not only grow along dimension %" PRId32,
                              m->name, port->name, ms->axis);
    size_t bytes;
    if (!nb_state_bytes(m, i, in, s->next_capacity, &bytes)) return too_large(port, out, err);
    st->moved = given->given || bytes > st->current.size || !st->current.data ||
                (st->held && s->next_capacity != s->capacity);
    if (st->moved) {
        nb_rt_status status = nb_reserve(&s->memory, &st->spare, bytes, port->name, err);
        if (status != NB_RT_OK) return status;
        if (given->given)
            nb_state_copy(m, i, in, st->spare.data, s->next_capacity, given->data, in[ms->axis]);
        else if (st->held)
            nb_state_copy(m, i, in, st->spare.data, s->next_capacity, st->current.data,
                          s->capacity);
    }
    void *data = st->moved ? st->spare.data : st->current.data;
    s->ports[ms->input] = data;
    s->ports[m->n_inputs + (uint32_t)ms->output] = data;
    return NB_RT_OK;
}

static nb_rt_status place_plain(nb_session *s, uint32_t i, const int64_t *in, char *err) {
    const nb_model *m = s->model;
    const nb_model_state *ms = &m->states[i];
    const nb_port *port = nb_state_port(m, i);
    const session_input *given = &s->inputs[ms->input];
    const int64_t *out = s->outputs[ms->output].dims;
    session_state *st = &s->states[i];
    size_t in_bytes, out_bytes;
    if (!nb_bytes_of(in, port->rank, port->elem, &in_bytes)) return too_large(port, in, err);
    if (!nb_bytes_of(out, port->rank, port->elem, &out_bytes)) return too_large(port, out, err);
    if (!given->given && !st->held) {
        nb_rt_status status = nb_reserve(&s->memory, &st->current, in_bytes, port->name, err);
        if (status != NB_RT_OK) return status;
        memset(st->current.data, 0, in_bytes);
    }
    nb_rt_status status = nb_reserve(&s->memory, &st->spare, out_bytes, port->name, err);
    if (status != NB_RT_OK) return status;
    /* What the user gives is only read, so it needs no copy. */
    s->ports[ms->input] = given->given ? (void *)(uintptr_t)given->data : st->current.data;
    s->ports[m->n_inputs + (uint32_t)ms->output] = st->spare.data;
    return NB_RT_OK;
}

static nb_rt_status place_states(nb_session *s, char *err) {
    const nb_model *m = s->model;
    for (uint32_t i = 0; i < m->n_states; i++) {
        const nb_model_state *ms = &m->states[i];
        int64_t in[NB_MODEL_MAX_RANK] = {0};
        m->input_shape(s->symbols, ms->input, in);
        nb_rt_status status =
            ms->appended ? place_appended(s, i, in, err) : place_plain(s, i, in, err);
        if (status != NB_RT_OK) return status;
        s->states[i].steady = memcmp(in, s->outputs[ms->output].dims,
                                     (size_t)nb_state_port(m, i)->rank * sizeof *in) == 0;
    }
    return NB_RT_OK;
}

static nb_rt_status place_outputs(nb_session *s, char *err) {
    const nb_model *m = s->model;
    for (uint32_t i = 0; i < m->n_outputs; i++) {
        const nb_port *port = &m->outputs[i];
        session_output *o = &s->outputs[i];
        if (port->state >= 0) continue;
        size_t bytes;
        if (!nb_bytes_of(o->dims, port->rank, port->elem, &bytes))
            return too_large(port, o->dims, err);
        nb_dims_text text;
        if (o->data && bytes > o->room)
            return nb_rt_fail(err, NB_RT_ARGUMENT,
                              "output '%s' of shape %s needs %zu bytes, the "
                              "memory set for it has %zu",
                              port->name, nb_print_dims(text, o->dims, port->rank), bytes, o->room);
        if (!o->data) {
            nb_rt_status status = nb_reserve(&s->memory, &o->own, bytes, port->name, err);
            if (status != NB_RT_OK) return status;
        }
        s->ports[m->n_inputs + i] = o->data ? o->data : o->own.data;
    }
    return NB_RT_OK;
}

nb_rt_status nb_session_bind(nb_session *s, char *err) {
    const nb_model *m = s->model;
    nb_rt_status status = bind_symbols(s, err);
    if (status == NB_RT_OK) status = choose_capacity(s, err);
    if (status == NB_RT_OK) status = place_states(s, err);
    if (status == NB_RT_OK) status = place_outputs(s, err);
    if (status != NB_RT_OK) return status;
    s->symbols[m->n_symbols] = s->next_capacity;
    s->symbols[m->n_symbols + 1] = s->threads;
    int64_t arena = m->plan(s->symbols, s->offsets);
    if (arena < 0 || (uint64_t)arena > PTRDIFF_MAX)
        return nb_rt_fail(err, NB_RT_NO_MEMORY,
                          "the inputs of '%s' are too large: its memory plan "
                          "overflows",
                          m->name);
    status = nb_reserve(&s->memory, &s->arena, (size_t)arena, "intermediate values", err);
    if (status != NB_RT_OK) return status;
    s->frame.arena = s->arena.data;
    s->bound = true;
    return NB_RT_OK;
}
