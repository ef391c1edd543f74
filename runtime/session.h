/* The inside of a session, shared by session.c and ports.c (calls), bind.c (shapes and memory of
 * the next run), state.c and save.c (what lasts from run to run).
 *
 * How a run goes: bind.c prepares it and changes nothing that counts if it fails; model->run; then
 * the states advance. What a state holds is always in `current`. A run that must not lose it before
 * it has succeeded (the state is replaced, moved to a larger capacity, or not appended at all)
 * writes to `spare`, and the two change places afterwards. */
#ifndef NB_RUNTIME_SESSION_H
#define NB_RUNTIME_SESSION_H

#include "runtime/load.h"
#include "runtime/pool.h"

typedef struct session_input {
    bool given; /* by the user; for a state until a run has used it */
    const void *data;
    size_t bytes;
    int64_t dims[NB_MODEL_MAX_RANK];
} session_input;

typedef struct session_output {
    void *data; /* the user's, or NULL: in `own` */
    size_t room;
    nb_buffer own;
    int64_t dims[NB_MODEL_MAX_RANK]; /* in the last prepared run */
} session_output;

typedef struct session_state {
    bool held; /* has contents: false after a reset, and when appended and empty */
    int64_t dims[NB_MODEL_MAX_RANK]; /* when held */
    nb_buffer current, spare;
    nb_buffer copy; /* what nb_session_output gave out */

    /* The prepared run. */
    bool moved;  /* appended: works in `spare` */
    bool steady; /* the output has the shape of the input */
} session_state;

struct nb_session {
    const nb_model *model;
    nb_memory memory;
    nb_pool *pool; /* NULL: one thread */
    int threads;
    int64_t limit;                   /* most entries of appended states; INT64_MAX: no limit */
    bool fixed;                      /* the capacity is `limit` from the start */
    int64_t capacity, next_capacity; /* of `current`; of the prepared run */

    session_input *inputs;
    session_output *outputs;
    session_state *states;

    bool apart;     /* checked that the user's memory does not overlap */
    bool bound;     /* the frame is prepared for the next run */
    bool ran;       /* outputs are those of a run that succeeded */
    int32_t cancel; /* atomic */

    int64_t *shape_values;  /* NB_MODEL_MAX_RANK for each input */
    const int64_t **shapes; /* into shape_values */
    int64_t *symbols, *offsets;
    int64_t *planned, *grown; /* symbols of the plan; what counted ones had to grow to, or 0 */
    void **ports;
    nb_buffer arena;
    int64_t error_op;
    nb_frame frame;
};

static inline const nb_port *nb_state_port(const nb_model *model, uint32_t i) {
    return &model->inputs[model->states[i].input];
}

/* ports.c: whether the user's memory overlaps what a run writes. */
nb_rt_status nb_session_check_apart(nb_session *session, char *err);

/* bind.c: makes the frame ready for the inputs and states as they are. */
nb_rt_status nb_session_bind(nb_session *session, char *err);

/* state.c: after a run that succeeded. */
void nb_session_advance(nb_session *session);
/* Drops states that the user gave and no run has used. */
void nb_session_forget_given(nb_session *session);
/* Where an output that is a state is now, contiguous; NULL when it holds nothing. */
const void *nb_session_state_output(nb_session *session, uint32_t state, int64_t *dims);

/* Bytes of an appended state with room for `capacity` entries; false when they overflow. */
bool nb_state_bytes(const nb_model *model, uint32_t state, const int64_t *dims, int64_t capacity,
                    size_t *bytes);
/* Copies the dims[axis] entries of a state between rows with room for from_capacity and
 * to_capacity entries. A contiguous state has its length as capacity. */
void nb_state_copy(const nb_model *model, uint32_t state, const int64_t *dims, void *to,
                   int64_t to_capacity, const void *from, int64_t from_capacity);

#endif
