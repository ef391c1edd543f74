/* What lasts from run to run: advance, give out, reset, rewind (session.h). */
#include "runtime/session.h"

#include <inttypes.h>
#include <string.h>

bool nb_state_bytes(const nb_model *m, uint32_t i, const int64_t *dims, int64_t capacity,
                    size_t *bytes) {
    const nb_port *port = nb_state_port(m, i);
    int64_t with_capacity[NB_MODEL_MAX_RANK];
    memcpy(with_capacity, dims, (size_t)port->rank * sizeof *dims);
    if (m->states[i].appended) with_capacity[m->states[i].axis] = capacity;
    return nb_bytes_of(with_capacity, port->rank, port->elem, bytes);
}

void nb_state_copy(const nb_model *m, uint32_t i, const int64_t *dims, void *to,
                   int64_t to_capacity, const void *from, int64_t from_capacity) {
    const nb_port *port = nb_state_port(m, i);
    int32_t grows = m->states[i].appended ? m->states[i].axis : -1;
    int64_t rows = 1, inner = (int64_t)nb_elem_bytes(port->elem);
    for (int32_t axis = 0; axis < grows; axis++) rows *= dims[axis];
    for (int32_t axis = grows + 1; axis < port->rank; axis++) inner *= dims[axis];
    size_t entry = (size_t)inner, length = grows < 0 ? 1 : (size_t)dims[grows];
    size_t to_row = grows < 0 ? entry : (size_t)to_capacity * entry;
    size_t from_row = grows < 0 ? entry : (size_t)from_capacity * entry;
    if (entry * length == 0) return;
    for (size_t row = 0; row < (size_t)rows; row++)
        memcpy((unsigned char *)to + row * to_row, (const unsigned char *)from + row * from_row,
               entry * length);
}

static void exchange(session_state *st) {
    nb_buffer held = st->current;
    st->current = st->spare;
    st->spare = held;
}

void nb_session_advance(nb_session *s) {
    const nb_model *m = s->model;
    for (uint32_t i = 0; i < m->n_states; i++) {
        const nb_model_state *ms = &m->states[i];
        const nb_port *port = nb_state_port(m, i);
        session_state *st = &s->states[i];
        session_input *in = &s->inputs[ms->input];
        memcpy(st->dims, s->outputs[ms->output].dims, (size_t)port->rank * sizeof *st->dims);
        if (!st->steady || in->given) s->bound = false;
        if (!ms->appended) {
            exchange(st);
            st->held = true;
            /* When the next run is like this one, it uses them the other way round. */
            s->ports[ms->input] = st->current.data;
            s->ports[m->n_inputs + (uint32_t)ms->output] = st->spare.data;
        } else {
            if (st->moved) {
                exchange(st);
                /* Who gives the state each time will need the second buffer again. */
                if (!in->given) nb_drop(&s->memory, &st->spare);
                st->moved = false;
            }
            st->held = st->dims[ms->axis] > 0;
        }
        in->given = false;
    }
    s->capacity = s->next_capacity;
}

const void *nb_session_state_output(nb_session *s, uint32_t i, int64_t *dims) {
    const nb_model *m = s->model;
    const nb_port *port = nb_state_port(m, i);
    session_state *st = &s->states[i];
    if (!st->held) return NULL;
    const void *data = st->current.data;
    if (m->states[i].appended) {
        size_t bytes = 0;
        int64_t length = st->dims[m->states[i].axis];
        nb_state_bytes(m, i, st->dims, length, &bytes);
        if (nb_reserve(&s->memory, &st->copy, bytes, port->name, NULL) != NB_RT_OK) return NULL;
        nb_state_copy(m, i, st->dims, st->copy.data, length, st->current.data, s->capacity);
        data = st->copy.data;
    }
    if (dims) memcpy(dims, st->dims, (size_t)port->rank * sizeof *dims);
    return data;
}

/* The first state with a length: an appended one, else one that grows otherwise. -1: none. */
static int64_t measured_state(const nb_model *m) {
    int64_t found = -1;
    for (uint32_t i = 0; i < m->n_states; i++) {
        if (m->states[i].appended) return i;
        if (found < 0 && m->states[i].axis >= 0) found = i;
    }
    return found;
}

int64_t nb_session_length(const nb_session *s) {
    if (!s) return 0;
    int64_t i = measured_state(s->model);
    return i >= 0 && s->states[i].held ? s->states[i].dims[s->model->states[i].axis] : 0;
}

void nb_session_forget_given(nb_session *s) {
    for (uint32_t i = 0; i < s->model->n_states; i++)
        s->inputs[s->model->states[i].input].given = false;
    s->bound = false;
}

nb_rt_status nb_session_reset(nb_session *s, char *err) {
    if (!s) return nb_rt_fail(err, NB_RT_ARGUMENT, "nb_session_reset: the session is null");
    for (uint32_t i = 0; i < s->model->n_states; i++) s->states[i].held = false;
    nb_session_forget_given(s);
    return NB_RT_OK;
}

nb_rt_status nb_session_rewind(nb_session *s, int64_t length, char *err) {
    if (!s) return nb_rt_fail(err, NB_RT_ARGUMENT, "nb_session_rewind: the session is null");
    const nb_model *m = s->model;
    int64_t now = nb_session_length(s);
    if (length < 0 || length > now)
        return nb_rt_fail(err, NB_RT_ARGUMENT,
                          "cannot go back to %" PRId64 " entries: %" PRId64 " are held", length,
                          now);
    for (uint32_t i = 0; i < m->n_states && length < now; i++)
        if (!m->states[i].appended)
            return nb_rt_fail(err, NB_RT_ARGUMENT,
                              "cannot go back: state '%s' is not appended to, "
                              "its earlier values are gone",
                              nb_state_port(m, i)->name);
    for (uint32_t i = 0; i < m->n_states; i++) {
        session_state *st = &s->states[i];
        if (!m->states[i].appended) continue;
        st->dims[m->states[i].axis] = length;
        st->held = st->held && length > 0;
    }
    nb_session_forget_given(s);
    return NB_RT_OK;
}
