/* llama.cpp: its matrix products through libggml, its decoder through libllama.
 *
 *   llama DIR matmul TYPE M K N COPIES THREADS
 *       TYPE is a number of ggml; a figure is seconds for one product, of COPIES with a weight each
 *   llama DIR decode MODEL.gguf THREADS PROMPT TOKENS
 *       each turn feeds a prompt, then tokens; figures are seconds for a prompt and for a token
 *   llama DIR logits MODEL.gguf THREADS CONTEXT VOCABULARY
 *       tokens (i64) on stdin, in windows of CONTEXT; logits (f32) of all of them on stdout
 *
 * Only what is called is declared. Parameter blocks that the library itself fills are passed as
 * blocks of bytes larger than any version of them, of which the first numbers alone are known. */
#include "peer.h"

#include <dirent.h>
#include <stdbool.h>

typedef struct object object; /* tensors, contexts, backends and so on: only passed on */

typedef struct init_params {
    size_t bytes;
    void *memory;
    bool no_alloc;
} init_params;

typedef struct block { /* returned and passed in memory, as the real ones are: they are large */
    uint32_t numbers[256];
} block;

typedef struct batch {
    int32_t n_tokens;
    void *pointers[6];
} batch;

static void *base, *ggml; /* libggml-base, libggml */

/* The one library in DIR whose name starts with `prefix`. */
static void *library(const char *dir, const char *prefix) {
    char path[4096] = "";
    DIR *d = opendir(dir);
    if (!d) peer_fail(dir, "no such directory");
    for (struct dirent *e; (e = readdir(d));) {
        if (strncmp(e->d_name, prefix, strlen(prefix)) == 0)
            snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
    }
    closedir(d);
    if (!*path) peer_fail(prefix, "no such library");
    return peer_open(path);
}

/* FUNCTION(result, name, parameters) declares a local function pointer and looks it up. */
#define FUNCTION(from, result, name, parameters) \
    result(*name) parameters;                    \
    do {                                         \
        void *symbol = peer_symbol(from, #name); \
        memcpy(&(name), &symbol, sizeof symbol); \
    } while (0)

/* What is printed: errors only. */
static void quiet(int level, const char *text, void *data) {
    (void)data;
    if (level == 4) fputs(text, stderr);
}

/* The CPU device, and functions of it that are looked up by name. */
static object *cpu_device(const char *dir) {
    FUNCTION(base, void, ggml_log_set, (void (*)(int, const char *, void *), void *));
    FUNCTION(ggml, void, ggml_backend_load_all_from_path, (const char *));
    FUNCTION(ggml, object *, ggml_backend_dev_by_type, (int));
    ggml_log_set(quiet, NULL);
    ggml_backend_load_all_from_path(dir);
    object *device = ggml_backend_dev_by_type(0); /* 0: CPU */
    if (!device) peer_fail(dir, "no CPU backend");
    return device;
}

static void *cpu_function(object *device, const char *name) {
    FUNCTION(base, object *, ggml_backend_dev_backend_reg, (object *));
    FUNCTION(base, void *, ggml_backend_reg_get_proc_address, (object *, const char *));
    void *p = ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device), name);
    if (!p) peer_fail(name, "not in the CPU backend");
    return p;
}

/* Threads that live on between graphs; else each graph would start its own. */
static object *thread_pool(object *device, int threads) {
    FUNCTION(base, void, ggml_threadpool_params_init, (void *, int));
    object *(*new_pool)(void *);
    void *p = cpu_function(device, "ggml_threadpool_new");
    memcpy(&new_pool, &p, sizeof p);
    static block params;
    ggml_threadpool_params_init(&params, threads);
    return new_pool(&params);
}

/* ---- matmul --------------------------------------------------------------------------------- */

typedef struct shape {
    int type, copies;
    int64_t m, k, n;
} shape;

static object *new_context(size_t tensors) {
    FUNCTION(base, object *, ggml_init, (init_params));
    FUNCTION(base, size_t, ggml_tensor_overhead, (void));
    FUNCTION(base, size_t, ggml_graph_overhead_custom, (size_t, bool));
    size_t bytes = tensors * ggml_tensor_overhead() + ggml_graph_overhead_custom(tensors, false);
    return ggml_init((init_params){.bytes = bytes + 4096, .no_alloc = true});
}

/* A graph of one product for each weight, all by the same input; NULL when this type of buffer,
 * which decides how weights are kept, has no kernel for them. */
static object *products(const shape *s, object *device, object *place, object *plain) {
    FUNCTION(base, object *, ggml_new_tensor_2d, (object *, int, int64_t, int64_t));
    FUNCTION(base, object *, ggml_mul_mat, (object *, object *, object *));
    FUNCTION(base, object *, ggml_new_graph_custom, (object *, size_t, bool));
    FUNCTION(base, void, ggml_build_forward_expand, (object *, object *));
    FUNCTION(base, size_t, ggml_nbytes, (const object *));
    FUNCTION(base, size_t, ggml_quantize_chunk,
             (int, const float *, void *, int64_t, int64_t, int64_t, const float *));
    FUNCTION(base, object *, ggml_backend_alloc_ctx_tensors_from_buft, (object *, object *));
    FUNCTION(base, bool, ggml_backend_dev_supports_op, (object *, const object *));
    FUNCTION(base, void, ggml_backend_tensor_set, (object *, const void *, size_t, size_t));
    FUNCTION(base, void, ggml_backend_buffer_free, (object *));
    size_t copies = (size_t)s->copies;
    object *weights = new_context(copies), *work = new_context(2 * copies + 8);
    object **w = peer_memory(copies * sizeof *w);
    for (size_t i = 0; i < copies; i++) w[i] = ggml_new_tensor_2d(weights, s->type, s->k, s->n);
    object *buffer = ggml_backend_alloc_ctx_tensors_from_buft(weights, place);
    if (!buffer) return NULL;
    object *x = ggml_new_tensor_2d(work, 0, s->k, s->m); /* 0: f32 */
    object *graph = ggml_new_graph_custom(work, 2 * copies, false);
    for (size_t i = 0; i < copies; i++) {
        object *y = ggml_mul_mat(work, w[i], x);
        if (i == 0 && !ggml_backend_dev_supports_op(device, y)) {
            ggml_backend_buffer_free(buffer);
            return NULL;
        }
        ggml_build_forward_expand(graph, y);
    }
    ggml_backend_alloc_ctx_tensors_from_buft(work, plain);
    size_t values = (size_t)(s->k * (s->n > s->m ? s->n : s->m)), bytes = ggml_nbytes(w[0]);
    float *data = peer_memory(values * sizeof *data);
    void *packed = peer_memory(bytes);
    uint64_t state = 1;
    for (size_t i = 0; i < values; i++) data[i] = peer_uniform(&state);
    ggml_backend_tensor_set(x, data, 0, (size_t)(s->k * s->m) * sizeof *data);
    ggml_quantize_chunk(s->type, data, packed, 0, s->n, s->k, NULL);
    for (size_t i = 0; i < copies; i++) ggml_backend_tensor_set(w[i], packed, 0, bytes);
    free(data);
    free(packed);
    return graph;
}

static object *backend;

static void run_graph(void *graph) {
    FUNCTION(base, int, ggml_backend_graph_compute, (object *, object *));
    if (ggml_backend_graph_compute(backend, graph) != 0) peer_fail("ggml", "graph failed");
}

static void matmul(const char *dir, const shape *s, int threads) {
    object *device = cpu_device(dir);
    FUNCTION(base, object *, ggml_backend_dev_init, (object *, const char *));
    FUNCTION(base, object *, ggml_backend_get_default_buffer_type, (object *));
    FUNCTION(base, const char *, ggml_backend_buft_name, (object *));
    void (*set_threads)(object *, int), (*set_pool)(object *, object *);
    object **(*extra)(object *);
    void *f = cpu_function(device, "ggml_backend_set_n_threads");
    memcpy(&set_threads, &f, sizeof f);
    f = cpu_function(device, "ggml_backend_cpu_set_threadpool");
    memcpy(&set_pool, &f, sizeof f);
    f = cpu_function(device, "ggml_backend_dev_get_extra_bufts");
    memcpy(&extra, &f, sizeof f);
    backend = ggml_backend_dev_init(device, NULL);
    set_threads(backend, threads);
    set_pool(backend, thread_pool(device, threads));
    object *plain = ggml_backend_get_default_buffer_type(backend), *place = NULL, *graph = NULL;
    for (object **list = extra(device); !graph && list && *list; list++)
        graph = products(s, device, place = *list, plain);
    if (!graph) graph = products(s, device, place = plain, plain);
    if (!graph) peer_fail("ggml", "no kernel for this type");
    peer_serve(ggml_backend_buft_name(place), run_graph, graph, s->copies);
}

/* ---- decoders ------------------------------------------------------------------------------- */

static void decode(const char *dir, const char *path, int threads, int prompt, int tokens) {
    void *llama = library(dir, "libllama.v");
    FUNCTION(llama, block, llama_model_default_params, (void));
    FUNCTION(llama, block, llama_context_default_params, (void));
    FUNCTION(llama, object *, llama_model_load_from_file, (const char *, block));
    FUNCTION(llama, object *, llama_init_from_model, (object *, block));
    FUNCTION(llama, void, llama_set_n_threads, (object *, int32_t, int32_t));
    FUNCTION(llama, void, llama_attach_threadpool, (object *, object *, object *));
    FUNCTION(llama, object *, llama_get_memory, (object *));
    FUNCTION(llama, void, llama_memory_clear, (object *, bool));
    FUNCTION(llama, batch, llama_batch_get_one, (int32_t *, int32_t));
    FUNCTION(llama, int32_t, llama_decode, (object *, batch));
    FUNCTION(llama, void, llama_log_set, (void (*)(int, const char *, void *), void *));
    FUNCTION(llama, float *, llama_get_logits_ith, (object *, int32_t));
    object *device = cpu_device(dir);
    llama_log_set(quiet, NULL);
    object *model = llama_model_load_from_file(path, llama_model_default_params());
    if (!model) peer_fail(path, "cannot be loaded");
    block options = llama_context_default_params();
    options.numbers[0] = (uint32_t)(prompt + tokens + 8); /* n_ctx, n_batch, n_ubatch */
    options.numbers[1] = options.numbers[2] = (uint32_t)prompt;
    object *context = llama_init_from_model(model, options);
    if (!context) peer_fail(path, "no context");
    object *pool = thread_pool(device, threads);
    llama_set_n_threads(context, threads, threads);
    llama_attach_threadpool(context, pool, pool);
    int32_t *ids = peer_memory((size_t)prompt * sizeof *ids);
    for (int i = 0; i < prompt; i++) ids[i] = 32 + i * 7 % 64;
    char line[64];
    for (bool first = true;; first = false) {
        llama_memory_clear(llama_get_memory(context), true);
        double start = peer_now();
        bool ok = llama_decode(context, llama_batch_get_one(ids, prompt)) == 0 &&
                  llama_get_logits_ith(context, -1);
        double middle = peer_now();
        for (int i = 0; ok && i < tokens; i++) {
            ok = llama_decode(context, llama_batch_get_one(&ids[i % prompt], 1)) == 0 &&
                 llama_get_logits_ith(context, -1);
        }
        if (!ok) peer_fail(path, "decoding failed");
        if (first)
            puts("ready");
        else
            printf("%.9g %.9g\n", middle - start, (peer_now() - middle) / tokens);
        fflush(stdout);
        if (!fgets(line, sizeof line, stdin)) return;
    }
}

/* Logits of all tokens: `outputs` marks them, where the batch has none. */
static void logits(const char *dir, const char *path, int threads, int context_size, size_t width) {
    void *llama = library(dir, "libllama.v");
    FUNCTION(llama, block, llama_model_default_params, (void));
    FUNCTION(llama, block, llama_context_default_params, (void));
    FUNCTION(llama, object *, llama_model_load_from_file, (const char *, block));
    FUNCTION(llama, object *, llama_init_from_model, (object *, block));
    FUNCTION(llama, void, llama_set_n_threads, (object *, int32_t, int32_t));
    FUNCTION(llama, object *, llama_get_memory, (object *));
    FUNCTION(llama, void, llama_memory_clear, (object *, bool));
    FUNCTION(llama, batch, llama_batch_get_one, (int32_t *, int32_t));
    FUNCTION(llama, int32_t, llama_decode, (object *, batch));
    FUNCTION(llama, void, llama_log_set, (void (*)(int, const char *, void *), void *));
    FUNCTION(llama, float *, llama_get_logits, (object *));
    const size_t n = (size_t)context_size;
    int64_t *wide = peer_memory(n * sizeof *wide);
    int32_t *ids = peer_memory(n * sizeof *ids);
    int8_t *outputs = peer_memory(n);
    memset(outputs, 1, n);
    cpu_device(dir);
    llama_log_set(quiet, NULL);
    object *model = llama_model_load_from_file(path, llama_model_default_params());
    if (!model) peer_fail(path, "cannot be loaded");
    block options = llama_context_default_params();
    options.numbers[0] = options.numbers[1] = options.numbers[2] = (uint32_t)n;
    object *context = llama_init_from_model(model, options);
    if (!context) peer_fail(path, "no context");
    llama_set_n_threads(context, threads, threads);
    for (size_t got; (got = fread(wide, 8, n, stdin)) > 1;) {
        for (size_t i = 0; i < got; i++) ids[i] = (int32_t)wide[i];
        llama_memory_clear(llama_get_memory(context), true);
        batch b = llama_batch_get_one(ids, (int32_t)got);
        b.pointers[5] = outputs;
        if (llama_decode(context, b) != 0) peer_fail(path, "decoding failed");
        if (fwrite(llama_get_logits(context), sizeof(float), got * width, stdout) != got * width)
            peer_fail("stdout", "cannot write");
    }
}

int main(int argc, char **argv) {
    bool product = argc == 9 && strcmp(argv[2], "matmul") == 0;
    bool all = argc == 7 && strcmp(argv[2], "logits") == 0;
    if (!product && !all && !(argc == 7 && strcmp(argv[2], "decode") == 0)) {
        fprintf(stderr, "usage: llama DIR matmul TYPE M K N COPIES THREADS\n"
                        "       llama DIR decode MODEL.gguf THREADS PROMPT TOKENS\n"
                        "       llama DIR logits MODEL.gguf THREADS CONTEXT VOCABULARY\n");
        return 2;
    }
    base = library(argv[1], "libggml-base");
    ggml = library(argv[1], "libggml.v");
    if (product) {
        shape s = {.type = atoi(argv[3]),
                   .m = atoll(argv[4]),
                   .k = atoll(argv[5]),
                   .n = atoll(argv[6]),
                   .copies = atoi(argv[7])};
        matmul(argv[1], &s, atoi(argv[8]));
    } else if (all) {
        logits(argv[1], argv[3], atoi(argv[4]), atoi(argv[5]), (size_t)atoll(argv[6]));
    } else {
        decode(argv[1], argv[3], atoi(argv[4]), atoi(argv[5]), atoi(argv[6]));
    }
    return 0;
}
