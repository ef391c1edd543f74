/* Graphs in large numbers and of large size.
 *
 *   scale_tests                          a quick part of what follows, as a test
 *   scale_tests graphs N [SEED]          N random graphs printed, parsed and printed again are
 * equal scale_tests text OPS                 how fast text with external constants is printed and
 * parsed scale_tests passes OPS [SCHEME]      how long each pass of a scheme takes on a graph of
 * OPS operations
 *
 * Times are printed and never asserted; that passes are linear is: for twice the graph a pass takes
 * no more than some times as long. */
#include "ir/build.h"
#include "passes/pass.h"
#include "passes/presets.h"
#include "tests/support/random_graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WIDTH       32 /* of the graph that passes work on */
#define NARROW      8  /* of the one that is written: text is to count, not the bytes it names */
#define OPS_A_BLOCK 14

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- random graphs -------------------------------------------------------------------------- */

static bool graphs(uint64_t n, uint64_t seed) {
    size_t ops = 0, bytes = 0, wrong = 0;
    double start = now();
    for (uint64_t i = 0; i < n; i++) {
        nb_arena *arena = nb_arena_create(NULL, NULL);
        const char *problem = nb_random_round_trip(seed + i, arena, &ops, &bytes);
        if (problem && wrong++ < 3)
            printf("FAILED seed %llu: %s\n", (unsigned long long)(seed + i), problem);
        nb_arena_destroy(arena);
    }
    printf("%llu graphs, %zu operations, %.1f MB of text: %zu wrong, %.1f s\n",
           (unsigned long long)n, ops, 1e-6 * (double)bytes, wrong, now() - start);
    return wrong == 0;
}

/* ---- one large graph: a stack of gated layers as exporters write them -------------------------
 */

typedef struct stack {
    nb_graph *g;
    int64_t width;
    nb_builder b;
    const char *block;
    const float *data; /* of all weights, in a file of that name */
    const char *file;
} stack;

static void at(stack *s, const char *name) {
    s->b.loc = nb_loc_at(s->g, nb_format(s->g->arena, "%s/%s", s->block, name));
}

static nb_value *weight(stack *s, const char *name) {
    const nb_dim *d = nb_dim_const(s->g, s->width), *dims[2] = {d, d};
    nb_blob *blob = nb_blob_borrow(s->g->arena, s->data, s->width * s->width * 4);
    blob->file = s->file;
    return nb_graph_add_const(s->g, nb_format(s->g->arena, "%s.%s.weight", s->block, name),
                              nb_type_intern(s->g, NB_F32, NULL, 2, dims), blob, NULL);
}

/* What the last op makes, by its node's name, as ONNX files have it. */
static nb_value *named(stack *s, nb_value *y) {
    nb_set_name(s->g, y, nb_format(s->g->arena, "%s_output_0", nb_loc_name(s->b.loc)));
    return y;
}

static nb_value *linear(stack *s, nb_value *x, const char *name) {
    at(s, nb_format(s->g->arena, "mlp/%s/MatMul", name));
    return named(s, nb_binary(&s->b, NB_OP_matmul, x, weight(s, name)));
}

static nb_value *number(stack *s, const char *name, float value) {
    return nb_const_f32(s->g, nb_format(s->g->arena, "%s/%s_output_0", s->block, name), 0, NULL,
                        &value);
}

static nb_value *op(stack *s, const char *name, nb_op_kind kind, nb_value *a, nb_value *b) {
    at(s, name);
    return named(s, b ? nb_binary(&s->b, kind, a, b) : nb_unary(&s->b, kind, a));
}

static nb_value *norm(stack *s, nb_value *x) {
    const float gain[WIDTH] = {1};
    nb_value *square = op(s, "norm/Pow", NB_OP_pow, x, number(s, "norm/Constant", 2));
    at(s, "norm/ReduceMean");
    nb_begin(&s->b, NB_OP_reduce_mean);
    nb_arg(&s->b, square);
    nb_set_ints(&s->b, "axes", 1, (int64_t[]){1});
    nb_set_bool(&s->b, "keep", true);
    nb_value *mean = named(s, nb_end(&s->b));
    mean = op(s, "norm/Add", NB_OP_add, mean, number(s, "norm/Constant_1", 1e-5f));
    nb_value *root = op(s, "norm/Sqrt", NB_OP_sqrt, mean, NULL);
    nb_value *scale = op(s, "norm/Div", NB_OP_div, number(s, "norm/Constant_2", 1), root);
    nb_value *y = op(s, "norm/Mul", NB_OP_mul, x, scale);
    nb_value *g = nb_const_f32(s->g, nb_format(s->g->arena, "%s.norm.weight", s->block), 1,
                               (int64_t[]){s->width}, gain);
    return op(s, "norm/Mul_1", NB_OP_mul, y, g);
}

static nb_graph *make_stack(size_t ops, int64_t width, const float *data, const char *file,
                            nb_diags *diags) {
    nb_graph *g = nb_graph_create("stack", NULL, NULL);
    stack s = {
        .g = g, .width = width, .b = {.graph = g, .diags = diags}, .data = data, .file = file};
    const nb_dim *dims[2] = {nb_dim_symbol(g, nb_graph_symbol(g, "batch_size", false)),
                             nb_dim_const(g, width)};
    nb_value *x = nb_graph_add_input(g, "x", nb_type_intern(g, NB_F32, NULL, 2, dims));
    for (size_t i = 0; i < ops / OPS_A_BLOCK + 1; i++) {
        s.block = nb_format(g->arena, "/model/layers.%zu", i);
        nb_value *n = norm(&s, x), *gate = linear(&s, n, "gate_proj");
        nb_value *up = linear(&s, n, "up_proj");
        nb_value *sigmoid = op(&s, "mlp/Sigmoid", NB_OP_sigmoid, gate, NULL);
        gate = op(&s, "mlp/Mul", NB_OP_mul, gate, sigmoid);
        nb_value *down = linear(&s, op(&s, "mlp/Mul_1", NB_OP_mul, gate, up), "down_proj");
        x = op(&s, "Add", NB_OP_add, x, down);
    }
    nb_graph_set_outputs(g, 1, &x, (const char *const[]){"y"});
    return g;
}

static void fill(float *data) {
    for (int i = 0; i < WIDTH * WIDTH; i++) data[i] = (float)(i * 37 % 101 - 50) / 512;
}

/* ---- text ----------------------------------------------------------------------------------- */

static const char *said(nb_arena *arena, const nb_diags *diags) {
    return diags->list.count ? nb_diag_render(arena, diags->list.items[0]) : "nothing was said\n";
}

/* Every weight is a piece of one file. */
static bool text_in(const char *folder, size_t ops) {
    static float data[WIDTH * WIDTH];
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags = nb_diags_create(arena, "stack.nir");
    const char *path = nb_format(arena, "%s/weights.bin", folder);
    fill(data);
    FILE *f = fopen(path, "wb");
    bool ok = f && fwrite(data, sizeof data, 1, f) == 1;
    if (f) ok = fclose(f) == 0 && ok;
    nb_graph *g = make_stack(ops, NARROW, data, "weights.bin", diags), *again = NULL;
    const nb_print_options external = {.external_blobs = true};
    double start = now();
    const char *text = nb_print_string(arena, g, &external);
    double printed = now() - start;
    start = now();
    nb_status status = nb_parse(text, strlen(text), "stack.nir", folder, NULL, NULL, diags, &again);
    double parsed = now() - start, mb = 1e-6 * (double)strlen(text);
    printf(
        "%u operations, %.1f MB of text: printed at %.0f MB/s, parsed and verified at %.0f MB/s\n",
        g->n_ops, mb, mb / printed, mb / parsed);
    ok = ok && status == NB_OK && strcmp(nb_print_string(arena, again, &external), text) == 0;
    if (!ok) printf("FAILED text: %s", said(arena, diags));
    if (again) nb_graph_destroy(again);
    nb_graph_destroy(g);
    nb_arena_destroy(arena);
    unlink(path);
    return ok;
}

static bool text(size_t ops) {
    char folder[] = "/tmp/nibble-scale-XXXXXX";
    if (!mkdtemp(folder)) return false;
    bool ok = text_in(folder, ops);
    return rmdir(folder) == 0 && ok;
}

/* ---- passes --------------------------------------------------------------------------------- */

enum { MOST_PASSES = 32 };

typedef struct times {
    const char *names[MOST_PASSES];
    double seconds[MOST_PASSES], begin;
    size_t n;
} times;

static void after(void *user, const nb_pass_event *e) {
    times *t = user;
    if (t->n == MOST_PASSES) return;
    t->names[t->n] = e->name;
    t->seconds[t->n++] = now() - t->begin;
    t->begin = now();
}

static bool passes(size_t ops, const char *scheme, times *out) {
    static float data[WIDTH * WIDTH];
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags = nb_diags_create(arena, "stack");
    fill(data);
    nb_graph *g = make_stack(ops, WIDTH, data, NULL, diags);
    const nb_preset_options preset = {.group = -1};
    const char *pipeline_text = nb_preset(scheme, &preset, arena);
    nb_pass_env env = {.registry = nb_registry_create(arena),
                       .diags = diags,
                       .arena = arena,
                       .after = after,
                       .after_user = out};
    nb_pipeline pipeline;
    *out = (times){.begin = now()};
    bool ok = pipeline_text &&
              nb_pipeline_parse(env.registry, pipeline_text, arena, diags, &pipeline) == NB_OK;
    out->begin = now();
    ok = ok && nb_pipeline_run(&pipeline, g, &env) == NB_OK;
    if (!ok) printf("FAILED passes of %s: %s", scheme, said(arena, diags));
    nb_graph_destroy(g);
    nb_arena_destroy(arena);
    return ok;
}

static bool print_passes(size_t ops, const char *scheme) {
    times t;
    double all = 0;
    bool ok = passes(ops, scheme, &t);
    for (size_t i = 0; i < t.n; i++) {
        printf("%-20s %9.1f ms\n", t.names[i], 1e3 * t.seconds[i]);
        all += t.seconds[i];
    }
    printf("%s, %zu operations: %.2f s\n", scheme, ops, all);
    return ok;
}

/* Eight times the graph takes a quadratic pass 64 times as long, a linear one some 8. Passes too
 * short to be timed are not looked at; one that seems slow is looked at again. */
static bool is_linear(const char *scheme) {
    enum { SMALL = 2500, TIMES = 8, TRIES = 3 };
    bool slow = true, ok = true;
    for (int i = 0; slow && ok && i < TRIES; i++) {
        times few, many;
        ok = passes(SMALL, scheme, &few) && passes(TIMES * SMALL, scheme, &many);
        slow = false;
        for (size_t k = 0; ok && k < few.n; k++) {
            bool now_slow = many.seconds[k] > 0.05 && many.seconds[k] > 4 * TIMES * few.seconds[k];
            slow = slow || now_slow;
            if (now_slow && i + 1 == TRIES)
                printf("FAILED %s of %s: %.1f ms for %d operations, %.1f ms for %d\n", few.names[k],
                       scheme, 1e3 * few.seconds[k], SMALL, 1e3 * many.seconds[k], TIMES * SMALL);
        }
    }
    return ok && !slow;
}

/* ---- the whole ------------------------------------------------------------------------------ */

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    const unsigned long long n = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    if (argc > 2 && strcmp(what, "graphs") == 0)
        return !graphs(n, argc > 3 ? strtoull(argv[3], NULL, 10) : 0);
    if (argc > 2 && strcmp(what, "text") == 0) return !text(n);
    if (argc > 2 && strcmp(what, "passes") == 0)
        return !print_passes(n, argc > 3 ? argv[3] : "w8a8");
    if (argc > 1) {
        fprintf(stderr, "usage: scale_tests [graphs N [SEED] | text OPS | passes OPS [SCHEME]]\n");
        return 2;
    }
    const bool held[] = {graphs(500, 1000000), text(20000), is_linear("w8a8"), is_linear("w4a16")};
    size_t passed = 0;
    for (size_t i = 0; i < NB_COUNT(held); i++) passed += held[i];
    printf("%zu passed, %zu failed, 0 skipped\n", passed, NB_COUNT(held) - passed);
    return passed != NB_COUNT(held);
}
