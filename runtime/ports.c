/* Inputs and outputs of a session: found by name, set, checked (session.h). */
#include "runtime/session.h"

#include <inttypes.h>
#include <string.h>

/* Address of tensors without elements. */
static const _Alignas(64) unsigned char nothing[64];

static int find_port(const nb_port *ports, uint32_t count, const char *name) {
    for (uint32_t i = 0; name && i < count; i++)
        if (strcmp(ports[i].name, name) == 0) return (int)i;
    return -1;
}

int nb_find_input(const nb_model *model, const char *name) {
    return model ? find_port(model->inputs, model->n_inputs, name) : -1;
}

int nb_find_output(const nb_model *model, const char *name) {
    return model ? find_port(model->outputs, model->n_outputs, name) : -1;
}

/* Complex numbers are pairs; nothing needs more than 8. */
static nb_rt_status check_alignment(const nb_port *port, const void *data, char *err) {
    size_t alignment = nb_elem_bytes(port->elem);
    if (alignment > 8) alignment = 8;
    if (alignment == 0) return NB_RT_OK; /* less than a byte */
    if ((uintptr_t)data % alignment != 0)
        return nb_rt_fail(err, NB_RT_ARGUMENT,
                          "the memory of '%s' is misaligned: at %p, expected a "
                          "multiple of %zu",
                          port->name, data, alignment);
    return NB_RT_OK;
}

nb_rt_status nb_session_set_input(nb_session *s, int index, const void *data, const int64_t *dims,
                                  char *err) {
    if (!s) return nb_rt_fail(err, NB_RT_ARGUMENT, "nb_session_set_input: the session is null");
    const nb_model *m = s->model;
    if (index < 0 || index >= (int64_t)m->n_inputs)
        return nb_rt_fail(err, NB_RT_ARGUMENT, "there is no input %d: the model has %" PRIu32,
                          index, m->n_inputs);
    const nb_port *port = &m->inputs[index];
    session_input *in = &s->inputs[index];
    size_t dims_size = (size_t)port->rank * sizeof *dims, bytes;
    if (!dims && port->rank > 0)
        return nb_rt_fail(err, NB_RT_ARGUMENT,
                          "input '%s': `dims` is null, expected %" PRId32 " dimensions %s",
                          port->name, port->rank, port->shape);
    if (!nb_bytes_of(dims, port->rank, port->elem, &bytes)) {
        nb_dims_text text;
        return nb_rt_fail(err, NB_RT_ARGUMENT, "input '%s' has the shape %s, expected %s",
                          port->name, nb_print_dims(text, dims, port->rank), port->shape);
    }
    if (!data && bytes > 0)
        return nb_rt_fail(err, NB_RT_ARGUMENT, "input '%s': `data` is null", port->name);
    nb_rt_status status = check_alignment(port, data, err);
    if (status != NB_RT_OK) return status;
    if (!data) data = nothing;
    bool same = in->given && (port->rank == 0 || memcmp(in->dims, dims, dims_size) == 0);
    if (!same || port->state >= 0) s->bound = false;
    if (!same || in->data != data) s->apart = false;
    if (!same && port->rank > 0) memcpy(in->dims, dims, dims_size);
    in->data = data;
    in->bytes = bytes;
    in->given = true;
    if (port->state < 0) /* bind decides for states */
        s->ports[index] = (void *)(uintptr_t)data;
    return NB_RT_OK;
}

nb_rt_status nb_session_set_output(nb_session *s, int index, void *data, size_t bytes, char *err) {
    if (!s) return nb_rt_fail(err, NB_RT_ARGUMENT, "nb_session_set_output: the session is null");
    const nb_model *m = s->model;
    if (index < 0 || index >= (int64_t)m->n_outputs)
        return nb_rt_fail(err, NB_RT_ARGUMENT, "there is no output %d: the model has %" PRIu32,
                          index, m->n_outputs);
    const nb_port *port = &m->outputs[index];
    if (port->state >= 0)
        return nb_rt_fail(err, NB_RT_ARGUMENT,
                          "output '%s' is a state and stays with the session; "
                          "nb_session_output reads it",
                          port->name);
    nb_rt_status status = check_alignment(port, data, err);
    if (status != NB_RT_OK) return status;
    session_output *o = &s->outputs[index];
    if (o->data == data && o->room == bytes) return NB_RT_OK;
    o->data = data;
    o->room = data ? bytes : 0;
    s->bound = false;
    s->apart = false;
    return NB_RT_OK;
}

static bool overlap(const void *a, size_t a_size, const void *b, size_t b_size) {
    uintptr_t x = (uintptr_t)a, y = (uintptr_t)b;
    return a_size > 0 && b_size > 0 && (x < y ? y - x < a_size : x - y < b_size);
}

static nb_rt_status overlapping(const char *a, const char *b, char *err) {
    return nb_rt_fail(err, NB_RT_ARGUMENT, "the memory of '%s' overlaps that of '%s'", a, b);
}

/* Whether what a run writes overlaps one block of the user. */
static nb_rt_status check_block(const nb_session *s, const nb_port *port, const void *data,
                                size_t size, char *err) {
    const nb_model *m = s->model;
    for (uint32_t i = 0; i < m->n_outputs; i++) {
        const session_output *o = &s->outputs[i];
        const void *other = o->data ? o->data : o->own.data;
        if (&m->outputs[i] != port && overlap(data, size, other, o->data ? o->room : o->own.size))
            return overlapping(port->name, m->outputs[i].name, err);
    }
    for (uint32_t i = 0; i < m->n_states; i++) {
        const session_state *st = &s->states[i];
        /* A state may be replaced by what it is now: the run does not write there. */
        if ((port->state < 0 && overlap(data, size, st->current.data, st->current.size)) ||
            overlap(data, size, st->spare.data, st->spare.size))
            return overlapping(port->name, m->outputs[m->states[i].output].name, err);
    }
    return NB_RT_OK;
}

/* It is compared with what the session has before that is replaced by larger memory, so a pointer
 * into old outputs is noticed too. */
nb_rt_status nb_session_check_apart(nb_session *s, char *err) {
    const nb_model *m = s->model;
    nb_rt_status status = NB_RT_OK;
    for (uint32_t i = 0; i < m->n_inputs && status == NB_RT_OK; i++)
        if (s->inputs[i].given)
            status = check_block(s, &m->inputs[i], s->inputs[i].data, s->inputs[i].bytes, err);
    for (uint32_t i = 0; i < m->n_outputs && status == NB_RT_OK; i++)
        if (s->outputs[i].data)
            status = check_block(s, &m->outputs[i], s->outputs[i].data, s->outputs[i].room, err);
    s->apart = status == NB_RT_OK;
    return status;
}
