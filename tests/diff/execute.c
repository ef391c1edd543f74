#include "tests/diff/execute.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- memory -------------------------------------------------------------------------------- */

typedef struct guarded {
    void *map, *data;
    size_t mapped;
} guarded;

/* `size` bytes, filled with 0xA5, that end at the guard page, or nearly so to be `align`ed. */
static guarded guarded_create(size_t size, size_t align) {
    const size_t page = 4096;
    size_t room = (size + align - 1) / align * align, whole = (room + page - 1) / page * page;
    guarded g = {.mapped = whole + page};
    g.map = mmap(NULL, g.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.map == MAP_FAILED) abort();
    memset(g.map, 0xA5, whole);
    if (mprotect((char *)g.map + whole, page, PROT_NONE) != 0) abort();
    g.data = (char *)g.map + whole - room;
    return g;
}

/* ---- loops --------------------------------------------------------------------------------- */

static void uneven(void *pool, int64_t count, nb_task_fn task, const nb_frame *frame) {
    (void)pool;
    for (int64_t end = count; end > 0;) {
        int64_t begin = end > 3 ? end - 1 - end / 3 : 0;
        task(frame, begin, end);
        end = begin;
    }
}

/* ---- states -------------------------------------------------------------------------------- */

/* Copies rows of an appended state between a dense tensor and the buffer with spare room. */
static void copy_state(void *to, int64_t to_length, const void *from, int64_t from_length,
                       const nb_tensor *shape, int axis) {
    size_t inner = (size_t)nb_elems[shape->elem].bits / 8;
    int64_t outer = 1, common = to_length < from_length ? to_length : from_length;
    for (int i = axis + 1; i < shape->rank; i++) inner *= (size_t)shape->dims[i];
    for (int i = 0; i < axis; i++) outer *= shape->dims[i];
    for (int64_t i = 0; i < outer; i++)
        memcpy((char *)to + (size_t)(i * to_length) * inner,
               (const char *)from + (size_t)(i * from_length) * inner, (size_t)common * inner);
}

static const nb_model_state *appended(const nb_model *m, const nb_port *port) {
    const nb_model_state *s = port->state >= 0 ? &m->states[port->state] : NULL;
    return s && s->appended ? s : NULL;
}

/* ---- one run ------------------------------------------------------------------------------- */

/* A run that needs more memory than was planned for is run again, so often at most. */
#define DIFF_MAX_TURNS 6

typedef struct call {
    const nb_model *m;
    guarded memory[DIFF_MAX_TURNS * (2 * DIFF_MAX_PORTS + 2)]; /* and weights, and the arena */
    size_t n_memory;
    void *ports[2 * DIFF_MAX_PORTS];
    int64_t symbols[16], planned[16], capacity;
} call;

static void *allocate(call *c, size_t size, size_t align) {
    if (c->n_memory == NB_COUNT(c->memory)) abort();
    c->memory[c->n_memory] = guarded_create(size, align);
    return c->memory[c->n_memory++].data;
}

static size_t state_bytes(const call *c, const nb_tensor *shape, int axis) {
    size_t bytes = (size_t)nb_elems[shape->elem].bits / 8;
    for (int i = 0; i < shape->rank; i++)
        bytes *= (size_t)(i == axis ? c->capacity : shape->dims[i]);
    return bytes;
}

/* `off`: results begin an element before a line of memory does, or before the guard page allows. */
static void open_ports(call *c, const nb_tensor *inputs, nb_tensor *outputs, bool off) {
    for (uint32_t i = 0; i < c->m->n_inputs; i++) {
        const nb_tensor *x = &inputs[i];
        const nb_model_state *s = appended(c->m, &c->m->inputs[i]);
        size_t align = (size_t)nb_elems[x->elem].bits / 8;
        if (s) {
            c->ports[i] = allocate(c, state_bytes(c, x, s->axis), align);
            copy_state(c->ports[i], c->capacity, x->data, x->dims[s->axis], x, s->axis);
        } else {
            c->ports[i] = allocate(c, (size_t)x->bytes, align);
            if (x->bytes) memcpy(c->ports[i], x->data, (size_t)x->bytes);
        }
    }
    for (uint32_t i = 0; i < c->m->n_outputs; i++) {
        nb_tensor *y = &outputs[i];
        const nb_port *port = &c->m->outputs[i];
        *y = (nb_tensor){.elem = nb_elem_from_onnx(port->elem), .rank = port->rank};
        c->m->shape(c->symbols, (int64_t)i, y->dims);
        if (!nb_elem_bytes_of(y->elem, nb_tensor_count(y), &y->bytes)) abort();
        const nb_model_state *s = appended(c->m, port);
        const size_t align = (size_t)nb_elems[y->elem].bits / 8;
        c->ports[c->m->n_inputs + i] =
            s ? c->ports[s->input] : allocate(c, (size_t)y->bytes + (off ? align : 0), align);
    }
}

static void close_ports(call *c, nb_tensor *outputs, nb_arena *arena) {
    for (uint32_t i = 0; i < c->m->n_outputs; i++) {
        nb_tensor *y = &outputs[i];
        const void *from = c->ports[c->m->n_inputs + i];
        const nb_model_state *s = appended(c->m, &c->m->outputs[i]);
        c->m->shape(c->symbols, (int64_t)i, y->dims); /* what is counted is known now */
        if (!nb_elem_bytes_of(y->elem, nb_tensor_count(y), &y->bytes)) abort();
        y->data = nb_alloc(arena, (size_t)y->bytes + 1);
        if (s)
            copy_state(y->data, y->dims[s->axis], from, c->capacity, y, s->axis);
        else if (y->bytes)
            memcpy(y->data, from, (size_t)y->bytes);
    }
}

static const char *bind(call *c, const nb_tensor *inputs, nb_arena *arena) {
    const int64_t *shapes[DIFF_MAX_PORTS];
    for (uint32_t i = 0; i < c->m->n_inputs; i++) shapes[i] = inputs[i].dims;
    int64_t bad = c->m->bind(shapes, c->symbols);
    if (bad) return nb_format(arena, "bind returned %lld", (long long)bad);
    for (uint32_t i = 0; i < c->m->n_inputs; i++) {
        int64_t dims[NB_MODEL_MAX_RANK];
        c->m->input_shape(c->symbols, (int64_t)i, dims);
        if (memcmp(dims, inputs[i].dims, (size_t)inputs[i].rank * 8) != 0)
            return "input_shape differs from the shape that was bound";
    }
    return NULL;
}

static const char *run(call *c, const nb_pack *pack, const nb_tensor *inputs, nb_tensor *outputs,
                       bool split, nb_arena *arena, int32_t *result) {
    const nb_model *model = c->m;
    memcpy(c->planned, c->symbols, sizeof c->planned);
    int64_t *offsets = NB_NEW_ARRAY(arena, int64_t, model->n_buffers);
    int64_t size = model->plan(c->symbols, offsets);
    if (size < 0) return "plan failed";
    open_ports(c, inputs, outputs, split);

    unsigned char *weights = allocate(c, (size_t)nb_pack_size(pack), 64);
    nb_pack_copy(pack, weights);
    int64_t failed_op = -1;
    nb_frame frame = {.size = sizeof frame,
                      .threads = split ? 3 : 1,
                      .ports = c->ports,
                      .symbols = c->symbols,
                      .offsets = offsets,
                      .arena = allocate(c, (size_t)size, 64),
                      .weights = weights,
                      .parallel_for = split ? uneven : NULL,
                      .error = &failed_op,
                      .planned = c->planned};
    *result = model->run(&frame);
    if (*result == NB_RUN_INDEX && (failed_op < 0 || failed_op >= (int64_t)model->n_ops))
        return "run did not tell which op failed";
    return NULL;
}

/* Plans for the largest of each counted symbol so far; false when that is what was planned for. */
static bool grow(call *c) {
    bool more = false;
    for (uint32_t i = 0; i < c->m->n_counted; i++) {
        const int32_t at = c->m->counted[i];
        more = more || c->symbols[at] > c->planned[at];
        if (c->symbols[at] < c->planned[at]) c->symbols[at] = c->planned[at];
    }
    return more;
}

const char *diff_execute(const nb_model *model, const nb_pack *pack, const nb_tensor *inputs,
                         nb_tensor *outputs, int64_t capacity, bool split, nb_arena *arena,
                         int32_t *result) {
    call c = {.m = model, .capacity = capacity};
    if (model->n_inputs > DIFF_MAX_PORTS || model->n_outputs > DIFF_MAX_PORTS ||
        model->n_symbols + 2 > NB_COUNT(c.symbols))
        return "more ports or symbols than the test has room for";
    const char *error = bind(&c, inputs, arena);
    if (error) return error;
    c.symbols[model->n_symbols] = capacity;
    c.symbols[model->n_symbols + 1] = split ? 3 : 1;
    *result = NB_RUN_MORE;
    for (int turn = 0; !error && *result == NB_RUN_MORE; turn++) {
        error = run(&c, pack, inputs, outputs, split, arena, result);
        if (!error && *result == NB_RUN_MORE && (!grow(&c) || turn == DIFF_MAX_TURNS - 1))
            error = "run asks for more memory without an end";
    }
    if (!error && *result == NB_RUN_OK) close_ports(&c, outputs, arena);
    for (size_t i = 0; i < c.n_memory; i++) munmap(c.memory[i].map, c.memory[i].mapped);
    return error;
}
