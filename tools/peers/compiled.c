/* A model compiled by Nibble, through the interface of runtime/nb_runtime.h and one thread, as any
 * program would use it.
 *
 *   compiled MODEL.so PROMPT OUT [INPUT]...      see tiny.h */
#include "tiny.h"

#include "runtime/nb_runtime.h"

static nb_loaded *loaded;
static const nb_model *model;
static nb_session *session;
static nb_error_text err;

static void ok(nb_rt_status status) {
    if (status != NB_RT_OK) peer_fail("nibble", err);
}

static void open_model(const char *path) {
    ok(nb_load(path, NULL, &loaded, err));
    ok(nb_session_create(loaded, &(nb_session_options){.threads = 1}, &session, err));
    model = nb_loaded_model(loaded);
}

static int count(void) { return (int)model->n_inputs; }

static int input(int i, const char **name, int *elem, int64_t *dims, size_t *rank) {
    const nb_port *port = &model->inputs[i];
    int64_t *ones = peer_memory((model->n_symbols + 2) * sizeof *ones);
    for (uint32_t k = 0; k < model->n_symbols + 2; k++) ones[k] = 1;
    *name = port->name;
    *elem = port->elem;
    *rank = (size_t)port->rank;
    model->input_shape(ones, i, dims);
    free(ones);
    return port->state < 0;
}

static void set(int i, void *data, size_t bytes, const int64_t *dims, size_t rank, int elem) {
    (void)bytes, (void)rank, (void)elem;
    ok(nb_session_set_input(session, i, data, dims, err));
}

static void run(void *what) {
    (void)what;
    ok(nb_session_run(session, err));
}

static void reset(void) { ok(nb_session_reset(session, err)); }

static const void *output(size_t *bytes) {
    int64_t dims[NB_MODEL_MAX_RANK];
    const void *data = nb_session_output(session, 0, dims);
    *bytes = tiny_elem_bytes(model->outputs[0].elem);
    for (int32_t d = 0; d < model->outputs[0].rank; d++) *bytes *= (size_t)dims[d];
    return data;
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: compiled MODEL.so PROMPT OUT [INPUT]...\n");
        return 2;
    }
    tiny_measure(&(tiny_engine){open_model, count, input, set, run, reset, output}, argv[1],
                 atoll(argv[2]), argv[3], argv + 4);
    nb_session_destroy(session);
    nb_unload(loaded);
    return 0;
}
