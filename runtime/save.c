/* The states of a session as bytes, and back (session.h).
 *
 * The form, in the byte order of the machine: saved_header, then a saved_state for each state, then
 * the contents of those held, contiguous, in order. */
#include "runtime/hash.h"
#include "runtime/session.h"

#include <inttypes.h>
#include <string.h>

#define SAVED_MAGIC "nibble-s"

typedef struct saved_header {
    char magic[8];
    uint64_t model; /* what identity() gives */
    uint64_t size;  /* of everything */
    uint64_t hash;  /* of everything behind the header */
} saved_header;

typedef struct saved_state {
    int64_t held;
    int64_t dims[NB_MODEL_MAX_RANK];
} saved_state;

/* A state fits only the very model that wrote it: its layout and its numbers. */
static uint64_t identity(const nb_model *m) {
    nb_hash hash;
    nb_hash_start(&hash);
    nb_hash_add(&hash, &m->weights_hash, sizeof m->weights_hash);
    for (uint32_t i = 0; i < m->n_states; i++) {
        const nb_port *port = nb_state_port(m, i);
        nb_hash_add(&hash, port->name, strlen(port->name) + 1);
        nb_hash_add(&hash, port->shape, strlen(port->shape) + 1);
        nb_hash_add(&hash, &port->elem, sizeof port->elem);
        nb_hash_add(&hash, &m->states[i], sizeof m->states[i]);
    }
    return nb_hash_end(&hash);
}

/* Bytes of a state's contents without gaps. */
static size_t contents_size(const nb_session *s, uint32_t i) {
    const session_state *st = &s->states[i];
    const nb_model_state *ms = &s->model->states[i];
    size_t bytes = 0;
    if (st->held)
        nb_state_bytes(s->model, i, st->dims, ms->appended ? st->dims[ms->axis] : 0, &bytes);
    return bytes;
}

size_t nb_session_state_size(const nb_session *s) {
    if (!s) return 0;
    size_t size = sizeof(saved_header) + s->model->n_states * sizeof(saved_state);
    for (uint32_t i = 0; i < s->model->n_states; i++) size += contents_size(s, i);
    return size;
}

nb_rt_status nb_session_save(const nb_session *s, void *buffer, size_t size, char *err) {
    if (!s || !buffer)
        return nb_rt_fail(err, NB_RT_ARGUMENT, "nb_session_save: the session or buffer is null");
    const nb_model *m = s->model;
    saved_header header = {.model = identity(m), .size = nb_session_state_size(s)};
    if (size < header.size)
        return nb_rt_fail(err, NB_RT_ARGUMENT, "the state has %" PRIu64 " bytes, the buffer %zu",
                          header.size, size);
    unsigned char *start = (unsigned char *)buffer + sizeof header, *at = start;
    for (uint32_t i = 0; i < m->n_states; i++, at += sizeof(saved_state)) {
        saved_state saved = {.held = s->states[i].held};
        if (saved.held) memcpy(saved.dims, s->states[i].dims, sizeof saved.dims);
        memcpy(at, &saved, sizeof saved);
    }
    for (uint32_t i = 0; i < m->n_states; i++) {
        const session_state *st = &s->states[i];
        const nb_model_state *ms = &m->states[i];
        if (st->held)
            nb_state_copy(m, i, st->dims, at, ms->appended ? st->dims[ms->axis] : 0,
                          st->current.data, s->capacity);
        at += contents_size(s, i);
    }
    memcpy(header.magic, SAVED_MAGIC, sizeof header.magic);
    header.hash = nb_weights_hash(start, (size_t)(at - start));
    memcpy(buffer, &header, sizeof header);
    return NB_RT_OK;
}

static nb_rt_status damaged(const char *what, char *err) {
    return nb_rt_fail(err, NB_RT_CORRUPT, "the saved state is damaged: %s", what);
}

static nb_rt_status check_header(const nb_session *s, const unsigned char *bytes, size_t size,
                                 char *err) {
    saved_header header;
    if (size < sizeof header + s->model->n_states * sizeof(saved_state))
        return damaged("it is too short", err);
    memcpy(&header, bytes, sizeof header);
    if (memcmp(header.magic, SAVED_MAGIC, sizeof header.magic) != 0)
        return nb_rt_fail(err, NB_RT_CORRUPT, "the buffer does not hold a saved state");
    if (header.model != identity(s->model))
        return nb_rt_fail(err, NB_RT_CORRUPT, "the saved state belongs to another model than '%s'",
                          s->model->name);
    if (header.size != size)
        return nb_rt_fail(err, NB_RT_CORRUPT,
                          "the saved state has %" PRIu64 " bytes, given are %zu", header.size,
                          size);
    if (header.hash != nb_weights_hash(bytes + sizeof header, size - sizeof header))
        return damaged("its hash does not match", err);
    return NB_RT_OK;
}

static saved_state read_state(const unsigned char *bytes, uint32_t i) {
    saved_state saved;
    memcpy(&saved, bytes + sizeof(saved_header) + i * sizeof saved, sizeof saved);
    return saved;
}

/* Checks all that is copied later. `length`: of the appended states. */
static nb_rt_status check_states(const nb_session *s, const unsigned char *bytes, size_t size,
                                 int64_t *length, char *err) {
    const nb_model *m = s->model;
    size_t left = size - sizeof(saved_header) - m->n_states * sizeof(saved_state);
    *length = -1;
    for (uint32_t i = 0; i < m->n_states; i++) {
        saved_state saved = read_state(bytes, i);
        const nb_model_state *ms = &m->states[i];
        int64_t entries = ms->appended && saved.held ? saved.dims[ms->axis] : 0;
        size_t contents = 0;
        if (saved.held && !nb_state_bytes(m, i, saved.dims, entries, &contents))
            return damaged("a shape is impossible", err);
        if (contents > left) return damaged("it is too short", err);
        left -= contents;
        if (!ms->appended) continue;
        if (*length >= 0 && entries != *length) return damaged("the lengths differ", err);
        *length = entries;
        if (entries > s->limit)
            return nb_rt_fail(err, NB_RT_FULL,
                              "the saved state has %" PRId64 " entries, the capacity "
                              "is %" PRId64,
                              entries, s->limit);
    }
    return left == 0 ? NB_RT_OK : damaged("it is too long", err);
}

nb_rt_status nb_session_restore(nb_session *s, const void *buffer, size_t size, char *err) {
    if (!s || !buffer)
        return nb_rt_fail(err, NB_RT_ARGUMENT, "nb_session_restore: the session or buffer is null");
    const nb_model *m = s->model;
    const unsigned char *bytes = buffer;
    int64_t length;
    nb_rt_status status = check_header(s, bytes, size, err);
    if (status == NB_RT_OK) status = check_states(s, bytes, size, &length, err);
    if (status != NB_RT_OK) return status;

    /* First all memory, so that nothing has changed if there is not enough. The prepared run may
     * use a spare buffer that is replaced here. */
    s->bound = false;
    int64_t capacity = s->fixed ? s->limit : length > s->capacity ? length : s->capacity;
    for (uint32_t i = 0; i < m->n_states; i++) {
        saved_state saved = read_state(bytes, i);
        const char *name = nb_state_port(m, i)->name;
        size_t room;
        if (!saved.held) continue;
        if (!nb_state_bytes(m, i, saved.dims, capacity, &room))
            return nb_rt_fail(err, NB_RT_NO_MEMORY, "state '%s' is too large", name);
        status = nb_reserve(&s->memory, &s->states[i].spare, room, name, err);
        if (status != NB_RT_OK) return status;
    }

    const unsigned char *at = bytes + sizeof(saved_header) + m->n_states * sizeof(saved_state);
    for (uint32_t i = 0; i < m->n_states; i++) {
        saved_state saved = read_state(bytes, i);
        session_state *st = &s->states[i];
        st->held = saved.held != 0;
        if (!st->held) continue;
        const nb_model_state *ms = &m->states[i];
        memcpy(st->dims, saved.dims, sizeof st->dims);
        nb_state_copy(m, i, st->dims, st->spare.data, capacity, at,
                      ms->appended ? st->dims[ms->axis] : 0);
        nb_buffer old = st->current;
        st->current = st->spare;
        st->spare = old;
        if (ms->appended) nb_drop(&s->memory, &st->spare);
        at += contents_size(s, i);
    }
    s->capacity = capacity;
    nb_session_forget_given(s);
    return NB_RT_OK;
}
