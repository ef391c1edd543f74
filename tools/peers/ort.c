/* onnxruntime, through the C API of its shared library.
 *
 *   ort LIBRARY matmul MODEL THREADS ROWS
 *       a model whose one input has ROWS rows; a figure is seconds for one of its outputs
 *   ort LIBRARY net MODEL THREADS DIMS
 *       a model whose one input has DIMS (as 1,3,48,320); a figure is seconds for a run
 *   ort LIBRARY decode MODEL THREADS PROMPT TOKENS
 *       a decoder: each turn feeds a prompt, then tokens; figures are seconds for each
 *   ort LIBRARY tiny MODEL THREADS PROMPT OUT [INPUT]...
 *       see tiny.h
 *   ort LIBRARY logits MODEL THREADS CONTEXT LEVEL
 *       a decoder: tokens (i64) on stdin, in windows of CONTEXT; its logits (f32) on stdout. LEVEL
 *       is onnxruntime's of optimization: 0 keeps the model's arithmetic, 99 is everything
 *   ort LIBRARY once MODEL THREADS DIMS LEVEL
 *       its inputs (f32, i32, i64 or bool; DIMS as 1,3,48,320, of several as 1,576/2,1,128/) on
 * stdin, its first output, f32, on stdout
 *
 * The API is a table of functions whose places never change; PLACES lists those that are called. */
#include "tiny.h"

enum {
    API_VERSION = 11,
    ELEM_FLOAT = 1,
    ELEM_INT64 = 7,
    ELEM_BOOL = 9,
    MAX_NAMES = 1024,
    MAX_RANK = 8
};

typedef struct ort_status ort_status;
typedef struct ort_value ort_value;
typedef struct ort_object ort_object; /* any other of its types: only passed on */

/* place, result, name, parameters */
#define PLACES(F)                                                                            \
    F(2, const char *, error_message, (const ort_status *))                                  \
    F(3, ort_status *, create_env, (int level, const char *name, ort_object **))             \
    F(7, ort_status *, create_session,                                                       \
      (const ort_object *env, const char *path, const ort_object *options, ort_object **))   \
    F(9, ort_status *, run,                                                                  \
      (ort_object * session, const ort_object *options, const char *const *inputs,           \
       const ort_value *const *in, size_t n_in, const char *const *outputs, size_t n_out,    \
       ort_value **out))                                                                     \
    F(10, ort_status *, create_options, (ort_object **))                                     \
    F(23, ort_status *, set_optimization, (ort_object * options, int level))                 \
    F(24, ort_status *, set_intra_threads, (ort_object * options, int n))                    \
    F(25, ort_status *, set_inter_threads, (ort_object * options, int n))                    \
    F(30, ort_status *, input_count, (const ort_object *session, size_t *))                  \
    F(31, ort_status *, output_count, (const ort_object *session, size_t *))                 \
    F(33, ort_status *, input_type, (const ort_object *session, size_t, ort_object **))      \
    F(36, ort_status *, input_name,                                                          \
      (const ort_object *session, size_t, ort_object *allocator, char **))                   \
    F(37, ort_status *, output_name,                                                         \
      (const ort_object *session, size_t, ort_object *allocator, char **))                   \
    F(49, ort_status *, create_tensor,                                                       \
      (const ort_object *memory, void *data, size_t bytes, const int64_t *dims, size_t rank, \
       int elem, ort_value **))                                                              \
    F(51, ort_status *, tensor_data, (ort_value *, void **))                                 \
    F(55, ort_status *, tensor_type, (const ort_object *type, const ort_object **))          \
    F(60, ort_status *, elem, (const ort_object *type, int *))                               \
    F(61, ort_status *, rank, (const ort_object *type, size_t *))                            \
    F(62, ort_status *, dims, (const ort_object *type, int64_t *, size_t))                   \
    F(64, ort_status *, elements, (const ort_object *type, size_t *))                        \
    F(65, ort_status *, value_type, (const ort_value *, ort_object **))                      \
    F(69, ort_status *, cpu_memory, (int allocator, int kind, ort_object **))                \
    F(78, ort_status *, default_allocator, (ort_object **))                                  \
    F(96, void, release_value, (ort_value *))

typedef struct api {
#define F(place, result, name, parameters) result(*name) parameters;
    PLACES(F)
#undef F
} api;

typedef struct api_base {
    void *const *(*get)(uint32_t version);
    const char *(*version)(void);
} api_base;

static api ort;
static ort_object *environment, *session, *memory;
static char *inputs[MAX_NAMES], *outputs[MAX_NAMES];
static size_t n_inputs, n_outputs;

static void ok(ort_status *s) {
    if (s) peer_fail("onnxruntime", ort.error_message(s));
}

static const char *open_library(const char *path) {
    const api_base *(*base)(void);
    void *p = peer_symbol(peer_open(path), "OrtGetApiBase");
    memcpy(&base, &p, sizeof base);
    void *const *table = base()->get(API_VERSION);
    if (!table) peer_fail(path, "too old");
#define F(place, result, name, parameters) memcpy(&ort.name, &table[place], sizeof ort.name);
    PLACES(F)
#undef F
    return base()->version();
}

static int optimization = 99; /* everything */

static void open_session(const char *model, int threads) {
    ort_object *options, *allocator;
    ok(ort.create_options(&options));
    ok(ort.set_optimization(options, optimization));
    ok(ort.set_intra_threads(options, threads));
    ok(ort.set_inter_threads(options, 1));
    ok(ort.create_session(environment, model, options, &session));
    ok(ort.default_allocator(&allocator));
    ok(ort.cpu_memory(1, 0, &memory));
    ok(ort.input_count(session, &n_inputs));
    ok(ort.output_count(session, &n_outputs));
    if (n_inputs > MAX_NAMES || n_outputs > MAX_NAMES) peer_fail(model, "too many inputs");
    for (size_t i = 0; i < n_inputs; i++) ok(ort.input_name(session, i, allocator, &inputs[i]));
    for (size_t i = 0; i < n_outputs; i++) ok(ort.output_name(session, i, allocator, &outputs[i]));
}

static size_t input_dims(size_t i, int64_t *dims) {
    ort_object *type;
    const ort_object *tensor;
    size_t rank;
    ok(ort.input_type(session, i, &type));
    ok(ort.tensor_type(type, &tensor));
    ok(ort.rank(tensor, &rank));
    if (rank > MAX_RANK) peer_fail(inputs[i], "too many dimensions");
    ok(ort.dims(tensor, dims, rank));
    return rank;
}

static ort_value *tensor(void *data, size_t bytes, const int64_t *dims, size_t rank, int elem) {
    ort_value *v;
    ok(ort.create_tensor(memory, data, bytes, dims, rank, elem, &v));
    return v;
}

static void run(ort_value **in, ort_value **out) {
    ok(ort.run(session, NULL, (const char *const *)inputs, (const ort_value *const *)in, n_inputs,
               (const char *const *)outputs, n_outputs, out));
}

/* ---- matmul --------------------------------------------------------------------------------- */

static void run_products(void *in) {
    ort_value *out[MAX_NAMES] = {0};
    run(in, out);
    for (size_t i = 0; i < n_outputs; i++) ort.release_value(out[i]);
}

static void serve(const char *version, const int64_t *dims, size_t rank, double items) {
    size_t n = 1;
    for (size_t d = 0; d < rank; d++) n *= (size_t)dims[d];
    float *x = peer_memory(n * sizeof *x);
    uint64_t state = 1;
    for (size_t i = 0; i < n; i++) x[i] = peer_uniform(&state);
    ort_value *in = tensor(x, n * sizeof *x, dims, rank, ELEM_FLOAT);
    peer_serve(version, run_products, &in, items);
}

static void matmul(const char *version, const char *rows) {
    int64_t dims[MAX_RANK];
    input_dims(0, dims);
    dims[0] = atoll(rows);
    serve(version, dims, 2, (double)n_outputs);
}

/* "1,3,48,320": the numbers, up to a '/'; how many there are. */
static size_t read_dims(const char *shape, int64_t *dims) {
    size_t rank = 0;
    while (*shape && *shape != '/' && rank < MAX_RANK) {
        char *end;
        dims[rank++] = strtoll(shape, &end, 10);
        if (end == shape) peer_fail(shape, "expected a number");
        shape = *end == ',' ? end + 1 : end;
    }
    return rank;
}

static void net(const char *version, const char *shape) {
    int64_t dims[MAX_RANK];
    size_t rank = read_dims(shape, dims);
    if (n_inputs != 1) peer_fail("net", "the model has other than one input");
    serve(version, dims, rank, 1);
}

/* ---- decoders ------------------------------------------------------------------------------- */

typedef struct decoder {
    int64_t prompt, tokens, heads, size, length;
    int64_t *ids, *ones, *positions;
    ort_value *cache[MAX_NAMES]; /* by output; what the next step reads */
} decoder;

static int output_of(const char *input) { /* past_key_values.N.kv -> the place of present.N.kv */
    const char *tail = strchr(input, '.');
    for (size_t i = 0; tail && i < n_outputs; i++)
        if (strncmp(outputs[i], "present", 7) == 0 && strcmp(strchr(outputs[i], '.'), tail) == 0)
            return (int)i;
    peer_fail(input, "no such cache");
    return -1;
}

static void feed(decoder *d, int64_t n) {
    ort_value *in[MAX_NAMES], *out[MAX_NAMES] = {0};
    int64_t row[2] = {1, n}, wide[2] = {1, d->length + n}, dims[MAX_RANK];
    for (size_t i = 0; i < n_inputs; i++) {
        if (strstr(inputs[i], "mask")) {
            in[i] = tensor(d->ones, (size_t)wide[1] * 8, wide, 2, ELEM_INT64);
        } else if (strstr(inputs[i], "position")) {
            in[i] = tensor(d->positions + d->length, (size_t)n * 8, row, 2, ELEM_INT64);
        } else if (strstr(inputs[i], "ids")) {
            in[i] = tensor(d->ids + (n > 1 ? 0 : d->length % d->prompt), (size_t)n * 8, row, 2,
                           ELEM_INT64);
        } else if (d->length == 0) {
            size_t rank = input_dims(i, dims);
            dims[0] = 1;
            dims[2] = 0;
            in[i] = tensor(d->ids, 0, dims, rank, ELEM_FLOAT);
        } else {
            in[i] = d->cache[output_of(inputs[i])];
        }
    }
    run(in, out);
    for (size_t i = 0; i < n_inputs; i++) ort.release_value(in[i]);
    for (size_t i = 0; i < n_outputs; i++) {
        if (strncmp(outputs[i], "present", 7) == 0)
            d->cache[i] = out[i];
        else
            ort.release_value(out[i]);
    }
    d->length += n;
}

static void round_of(decoder *d, double *prompt, double *token) {
    d->length = 0;
    double start = peer_now();
    feed(d, d->prompt);
    double middle = peer_now();
    for (int64_t i = 0; i < d->tokens; i++) feed(d, 1);
    *prompt = middle - start;
    *token = (peer_now() - middle) / (double)d->tokens;
    for (size_t i = 0; i < n_outputs; i++) {
        if (d->cache[i]) ort.release_value(d->cache[i]);
        d->cache[i] = NULL;
    }
}

static void decode(const char *version, const char *prompt, const char *tokens) {
    static decoder d;
    char line[64];
    double p, t;
    d.prompt = atoll(prompt);
    d.tokens = atoll(tokens);
    size_t all = (size_t)(d.prompt + d.tokens);
    d.ids = peer_memory(all * 8);
    d.ones = peer_memory(all * 8);
    d.positions = peer_memory(all * 8);
    for (size_t i = 0; i < all; i++) {
        d.ids[i] = 32 + (int64_t)i * 7 % 64;
        d.ones[i] = 1;
        d.positions[i] = (int64_t)i;
    }
    round_of(&d, &p, &t);
    printf("ready %s\n", version);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        round_of(&d, &p, &t);
        printf("%.9g %.9g\n", p, t);
        fflush(stdout);
    }
}

/* ---- logits --------------------------------------------------------------------------------- */

/* The first output, f32, goes to stdout. */
static void run_and_write(ort_value **in) {
    ort_value *out[MAX_NAMES] = {0};
    ort_object *type;
    size_t count;
    void *data;
    run(in, out);
    ok(ort.value_type(out[0], &type));
    ok(ort.elements(type, &count));
    ok(ort.tensor_data(out[0], &data));
    if (fwrite(data, sizeof(float), count, stdout) != count) peer_fail("stdout", "cannot write");
    for (size_t i = 0; i < n_outputs; i++) ort.release_value(out[i]);
}

/* One window without a past. */
static void window(const int64_t *ids, int64_t n, const int64_t *ones, const int64_t *positions) {
    static float nothing;
    ort_value *in[MAX_NAMES];
    int64_t row[2] = {1, n}, dims[MAX_RANK];
    for (size_t i = 0; i < n_inputs; i++) {
        const int64_t *from = strstr(inputs[i], "mask")       ? ones
                              : strstr(inputs[i], "position") ? positions
                              : strstr(inputs[i], "ids")      ? ids
                                                              : NULL;
        size_t rank = input_dims(i, dims);
        dims[0] = 1;
        dims[rank > 2 ? 2 : 0] = rank > 2 ? 0 : 1;
        in[i] = from ? tensor((void *)(uintptr_t)from, (size_t)n * 8, row, 2, ELEM_INT64)
                     : tensor(&nothing, 0, dims, rank, ELEM_FLOAT);
    }
    run_and_write(in);
    for (size_t i = 0; i < n_inputs; i++) ort.release_value(in[i]);
}

static void once(const char *shapes) {
    ort_value *in[MAX_NAMES];
    for (size_t i = 0; i < n_inputs; i++) {
        if (!shapes) peer_fail("once", "the model has more inputs");
        ort_object *type;
        const ort_object *given;
        int elem;
        int64_t dims[MAX_RANK];
        size_t rank = read_dims(shapes, dims), bytes;
        ok(ort.input_type(session, i, &type));
        ok(ort.tensor_type(type, &given));
        ok(ort.elem(given, &elem));
        bytes = elem == ELEM_INT64 ? 8 : elem == ELEM_BOOL ? 1 : 4;
        for (size_t d = 0; d < rank; d++) bytes *= (size_t)dims[d];
        void *x = peer_memory(bytes);
        if (fread(x, 1, bytes, stdin) != bytes) peer_fail("stdin", "too short");
        in[i] = tensor(x, bytes, dims, rank, elem);
        shapes = strchr(shapes, '/');
        shapes = shapes ? shapes + 1 : shapes;
    }
    run_and_write(in);
}

static void logits(const char *context) {
    const size_t n = (size_t)atoll(context);
    int64_t *ids = peer_memory(n * 8), *ones = peer_memory(n * 8), *positions = peer_memory(n * 8);
    for (size_t i = 0; i < n; i++) {
        ones[i] = 1;
        positions[i] = (int64_t)i;
    }
    for (size_t got; (got = fread(ids, 8, n, stdin)) > 1;)
        window(ids, (int64_t)got, ones, positions);
}

/* ---- tiny models ---------------------------------------------------------------------------- */

static int tiny_threads;
static ort_value *in_values[MAX_NAMES], *out_values[MAX_NAMES];

static void tiny_open(const char *model) { open_session(model, tiny_threads); }

static int tiny_count(void) { return (int)n_inputs; }

static int is_state(const char *name) { return strncmp(name, "past", 4) == 0; }

static int tiny_input_of(int i, const char **name, int *elem, int64_t *dims, size_t *rank) {
    ort_object *type;
    const ort_object *shape;
    *name = inputs[i];
    *rank = input_dims((size_t)i, dims);
    ok(ort.input_type(session, (size_t)i, &type));
    ok(ort.tensor_type(type, &shape));
    ok(ort.elem(shape, elem));
    return !is_state(inputs[i]);
}

static void tiny_set(int i, void *data, size_t bytes, const int64_t *dims, size_t rank, int elem) {
    if (in_values[i]) ort.release_value(in_values[i]);
    in_values[i] = tensor(data, bytes, dims, rank, elem);
}

static void tiny_reset(void) {
    static float nothing;
    for (size_t i = 0; i < n_inputs; i++) {
        int64_t dims[MAX_RANK];
        if (!is_state(inputs[i])) continue;
        size_t rank = input_dims(i, dims);
        dims[0] = 1;
        dims[2] = 0;
        tiny_set((int)i, &nothing, 0, dims, rank, ELEM_FLOAT);
    }
}

/* Outputs are kept for the next run, which then allocates none; those that are states become inputs
 * instead. */
static void tiny_run(void *what) {
    static int decoder = -1;
    (void)what;
    if (decoder < 0) decoder = is_state(inputs[n_inputs - 1]);
    if (decoder && !in_values[n_inputs - 1]) tiny_reset();
    for (size_t i = 0; decoder && i < n_outputs; i++) {
        if (out_values[i]) ort.release_value(out_values[i]);
        out_values[i] = NULL;
    }
    run(in_values, out_values);
    for (size_t i = 0; decoder && i < n_inputs; i++) {
        if (!is_state(inputs[i])) continue;
        ort_value **out = &out_values[output_of(inputs[i])];
        ort.release_value(in_values[i]);
        in_values[i] = *out;
        *out = NULL;
    }
}

static const void *tiny_output(size_t *bytes) {
    ort_object *type;
    size_t count;
    int elem;
    void *data;
    ok(ort.value_type(out_values[0], &type));
    ok(ort.elem(type, &elem));
    ok(ort.elements(type, &count));
    ok(ort.tensor_data(out_values[0], &data));
    *bytes = count * tiny_elem_bytes(elem);
    return data;
}

static void tiny(const char *model, int threads, char **more) {
    tiny_threads = threads;
    tiny_measure(&(tiny_engine){tiny_open, tiny_count, tiny_input_of, tiny_set, tiny_run,
                                tiny_reset, tiny_output},
                 model, atoll(more[0]), more[1], more + 2);
}

int main(int argc, char **argv) {
    const int single_argument = argc > 2 && (!strcmp(argv[2], "matmul") || !strcmp(argv[2], "net"));
    if (argc < 6 || (!single_argument && argc < 7)) {
        fprintf(stderr, "usage: ort LIBRARY matmul MODEL THREADS ROWS\n"
                        "       ort LIBRARY net MODEL THREADS DIMS\n"
                        "       ort LIBRARY decode MODEL THREADS PROMPT TOKENS\n"
                        "       ort LIBRARY tiny MODEL THREADS PROMPT OUT [INPUT]...\n"
                        "       ort LIBRARY logits MODEL THREADS CONTEXT LEVEL\n"
                        "       ort LIBRARY once MODEL THREADS DIMS LEVEL\n");
        return 2;
    }
    const char *version = open_library(argv[1]);
    ok(ort.create_env(3, "bench", &environment)); /* 3: errors only */
    if (strcmp(argv[2], "tiny") == 0) {
        tiny(argv[3], atoi(argv[4]), argv + 5);
        return 0;
    }
    const int whole = strcmp(argv[2], "logits") == 0, single = strcmp(argv[2], "once") == 0;
    if (whole || single) optimization = atoi(argv[6]);
    open_session(argv[3], atoi(argv[4]));
    if (whole)
        logits(argv[5]);
    else if (single)
        once(argv[5]);
    else if (strcmp(argv[2], "decode") == 0)
        decode(version, argv[5], argv[6]);
    else if (strcmp(argv[2], "net") == 0)
        net(version, argv[5]);
    else
        matmul(version, argv[5]);
    return 0;
}
