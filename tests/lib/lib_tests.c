/* The library's API (lib/nibble.h): what it gives, how it says no, what stays of it. */
#include "lib/nibble.h"

#include <check.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static nibble_diags *diags;
static nibble_graph *graph;

static void setup(void) { diags = nibble_diags_create(); }
static void teardown(void) {
    nibble_graph_free(graph);
    graph = NULL;
    nibble_diags_free(diags);
}

static const char text[] = "nir 1\n"
                           "graph @g(%x: f32[B,3]) -> f32[B,3] where B in 1..64 {\n"
                           "  const @k: f32[3] = {1, 2, 3}\n"
                           "  %y: f32[B,3] = mul %x, @k at \"/Mul\"\n"
                           "  return %y\n"
                           "}\n";

#define OK(call) ck_assert_msg((call) == NIBBLE_OK, "%s", nibble_diags_text(diags, 0))

static void parse(const char *nir) {
    OK(nibble_graph_from_memory(nir, strlen(nir), "test.nir", NULL, diags, &graph));
}

static bool said(const char *what) {
    nibble_diag d = {.size = sizeof d};
    for (size_t i = 0; nibble_diags_get(diags, i, &d); i++)
        if (strstr(d.message, what)) return true;
    return false;
}

static nb_array rows(const float *data, int64_t n) {
    return (nb_array){.elem = 1, .rank = 2, .dims = {n, 3}, .data = data};
}

/* ---- graphs --------------------------------------------------------------------------------- */

START_TEST(text_round_trip) {
    char *again;
    parse(text);
    ck_assert_int_eq(nibble_graph_text(graph, 0, &again), NIBBLE_OK);
    ck_assert_str_eq(again, text);
    nibble_free(again);
}
END_TEST

START_TEST(ports) {
    nibble_port port = {.size = sizeof port};
    parse(text);
    ck_assert_uint_eq(nibble_graph_input_count(graph), 1);
    ck_assert_uint_eq(nibble_graph_output_count(graph), 1);
    ck_assert(nibble_graph_input(graph, 0, &port));
    ck_assert_str_eq(port.name, "x");
    ck_assert_str_eq(port.shape, "[B,3]");
    ck_assert_int_eq(port.elem, 1);
    ck_assert_int_eq(port.state, -1);
    ck_assert(nibble_graph_output(graph, 0, &port));
    ck_assert_str_eq(port.name, "y");
    ck_assert(!nibble_graph_output(graph, 1, &port));
    ck_assert(!nibble_graph_input(NULL, 0, &port));
}
END_TEST

/* An older caller knows less of a struct: what stands behind it is left alone. */
START_TEST(smaller_structs) {
    struct {
        nibble_port port;
    } p;
    memset(&p, 0x5a, sizeof p);
    p.port.size = offsetof(nibble_port, state);
    parse(text);
    ck_assert(nibble_graph_input(graph, 0, &p.port));
    ck_assert_uint_eq(p.port.size, offsetof(nibble_port, state));
    ck_assert_int_eq(p.port.rank, 2);
    ck_assert_int_eq(p.port.state, 0x5a5a5a5a);
}
END_TEST

START_TEST(clones_outlive) {
    nibble_graph *copy;
    nibble_result *result;
    nb_array y;
    const float x[3] = {1, 1, 1};
    nb_array in = rows(x, 1);
    parse(text);
    OK(nibble_graph_clone(graph, &copy));
    nibble_graph_free(graph);
    graph = copy;
    OK(nibble_evaluate(graph, &in, 1, diags, &result));
    ck_assert(nibble_result_get(result, 0, &y));
    ck_assert(((const float *)y.data)[2] == 3.0f);
    nibble_result_free(result);
}
END_TEST

/* The bytes are copied. */
START_TEST(memory_is_copied) {
    char *bytes = strdup(text);
    OK(nibble_graph_from_memory(bytes, strlen(bytes), "test.nir", NULL, diags, &graph));
    memset(bytes, 'x', strlen(bytes));
    free(bytes);
    nibble_port port = {.size = sizeof port};
    ck_assert(nibble_graph_input(graph, 0, &port));
    ck_assert_str_eq(port.name, "x");
}
END_TEST

START_TEST(walk) {
    const nb_pass_host *host = nibble_host();
    parse(text);
    nb_op *op = host->first_op(nibble_graph_view(graph));
    ck_assert_str_eq(host->op_name(op), "mul");
    ck_assert_str_eq(host->op_node(op), "/Mul");
    ck_assert(host->is_const(host->operand(op, 1)));
    ck_assert_str_eq(host->op_name(host->next_op(op)), "return");
}
END_TEST

/* ---- errors --------------------------------------------------------------------------------- */

START_TEST(bad_text) {
    static const char bad[] = "nir 1\ngraph @g(%x: f32[B]) -> f32[B] {\n  %y: f32[B] = negate %x\n"
                              "  return %y\n}\n";
    nibble_diag d = {.size = sizeof d};
    graph = (nibble_graph *)&d;
    ck_assert_int_eq(nibble_graph_from_memory(bad, strlen(bad), "bad.nir", NULL, diags, &graph), 3);
    ck_assert_ptr_null(graph);
    ck_assert(nibble_diags_get(diags, 0, &d));
    ck_assert_int_eq(d.level, NB_LEVEL_ERROR);
    ck_assert_int_eq(d.status, NIBBLE_MALFORMED);
    ck_assert_int_eq(d.line, 3);
    ck_assert_str_eq(d.file, "bad.nir");
    ck_assert_ptr_nonnull(strstr(nibble_diags_text(diags, 0), "bad.nir:3:"));
    ck_assert_ptr_nonnull(strstr(nibble_diags_text(diags, 0), "^~"));
    nibble_diags_clear(diags);
    ck_assert_uint_eq(nibble_diags_count(diags), 0);
    ck_assert_str_eq(nibble_diags_text(diags, 0), "");
}
END_TEST

START_TEST(files_that_are_not_there) {
    nibble_model *model;
    ck_assert_int_eq(nibble_graph_load("/nothing/model.onnx", diags, &graph), NIBBLE_IO);
    ck_assert_int_eq(nibble_model_open("/nothing/model.so", NULL, diags, &model), NIBBLE_IO);
    ck_assert_uint_eq(nibble_diags_count(diags), 2);
    ck_assert_int_eq(nibble_graph_load("/nothing/model.onnx", NULL, &graph), NIBBLE_IO);
}
END_TEST

START_TEST(null_arguments) {
    nibble_result *result;
    nibble_model *model;
    char *out;
    ck_assert_int_eq(nibble_graph_load(NULL, diags, &graph), NIBBLE_USAGE);
    ck_assert_int_eq(nibble_graph_from_memory(NULL, 3, NULL, NULL, diags, &graph), NIBBLE_USAGE);
    ck_assert_int_eq(nibble_graph_from_memory(NULL, 0, NULL, NULL, diags, &graph),
                     NIBBLE_MALFORMED);
    ck_assert_int_eq(nibble_graph_clone(NULL, &graph), NIBBLE_USAGE);
    ck_assert_int_eq(nibble_graph_text(NULL, 0, &out), NIBBLE_USAGE);
    ck_assert_int_eq(nibble_run_passes(NULL, "simplify", NULL, diags), NIBBLE_USAGE);
    ck_assert_int_eq(nibble_evaluate(NULL, NULL, 0, diags, &result), NIBBLE_USAGE);
    ck_assert_int_eq(nibble_compile(NULL, NULL, diags, &model), NIBBLE_USAGE);
    ck_assert_int_eq(nibble_model_run(NULL, NULL, 0, diags, &result), NIBBLE_USAGE);
    ck_assert_int_eq(nibble_scheme_pipeline(NULL, 0, diags, &out), NIBBLE_USAGE);
    parse(text);
    ck_assert_int_eq(nibble_compile_file(graph, NULL, NULL, diags), NIBBLE_USAGE);
    ck_assert_int_eq(nibble_run_scheme(graph, NULL, NULL, diags), NIBBLE_USAGE);
    ck_assert_int_eq(nibble_evaluate(graph, NULL, 1, diags, &result), NIBBLE_USAGE);
    ck_assert(said("graph is NULL"));
    nibble_graph_free(NULL);
    nibble_model_free(NULL);
    nibble_result_free(NULL);
    nibble_diags_free(NULL);
}
END_TEST

START_TEST(inputs_that_do_not_fit) {
    static const struct {
        nb_array x;
        size_t n;
        nibble_status status;
        const char *says;
    } cases[] = {
        {{.elem = 1, .rank = 2, .dims = {1, 4}}, 1, NIBBLE_USAGE, "has no data"},
        {{.elem = 1, .rank = 2, .dims = {1, 3}, .data = text},
         0,
         NIBBLE_USAGE,
         "expected 1 inputs"},
        {{.elem = 1, .rank = 2, .dims = {1, 4}, .data = text}, 1, NIBBLE_MALFORMED, "x"},
        {{.elem = 7, .rank = 2, .dims = {1, 3}, .data = text}, 1, NIBBLE_MALFORMED, "expected f32"},
        {{.elem = 1, .rank = 1, .dims = {3}, .data = text}, 1, NIBBLE_MALFORMED, "rank 1"},
        {{.elem = 99, .rank = 1, .dims = {3}, .data = text}, 1, NIBBLE_USAGE, "element type"},
        {{.elem = 1, .rank = 9, .data = text}, 1, NIBBLE_USAGE, "rank 9"},
        {{.elem = 1, .rank = 2, .dims = {-1, 3}, .data = text}, 1, NIBBLE_USAGE, "axis 0"},
        {{.elem = 1, .rank = 2, .dims = {INT64_MAX, 3}, .data = text}, 1, NIBBLE_USAGE, "axis 1"},
    };
    nibble_model *model;
    nibble_result *result;
    parse(text);
    OK(nibble_compile(graph, NULL, diags, &model));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int compiled = 0; compiled < 2; compiled++) {
            nibble_status s = compiled
                                  ? nibble_model_run(model, &cases[i].x, cases[i].n, diags, &result)
                                  : nibble_evaluate(graph, &cases[i].x, cases[i].n, diags, &result);
            ck_assert_msg(s == cases[i].status, "case %zu: %d, %s", i, (int)s,
                          nibble_diags_text(diags, 0));
            ck_assert_ptr_null(result);
            ck_assert_msg(said(cases[i].says), "case %zu: %s", i, nibble_diags_text(diags, 0));
            nibble_diags_clear(diags);
        }
    }
    nibble_model_free(model);
}
END_TEST

START_TEST(pipelines_that_are_wrong) {
    parse(text);
    ck_assert_int_eq(nibble_run_passes(graph, "simplfy", NULL, diags), NIBBLE_USAGE);
    ck_assert(said("simplfy"));
    ck_assert_int_eq(nibble_run_scheme(graph, "w5a5", NULL, diags), NIBBLE_USAGE);
    ck_assert(said("there is no scheme 'w5a5'"));
    nibble_pass_options options = {.size = sizeof options,
                                   .plugins = (const char *const[]){"nothing.so", NULL}};
    ck_assert_int_eq(nibble_run_passes(graph, "simplify", &options, diags), NIBBLE_IO);
    OK(nibble_run_passes(graph, "simplify", NULL, NULL));
}
END_TEST

/* Memory that runs out is an error of the call. */
START_TEST(no_memory) {
    struct rlimit limit = {INT64_C(1) << 29, INT64_C(1) << 29};
    static const char big[] = "nir 1\ngraph @g() -> (y: f32[400,1000,1000]) {\n"
                              "  const @k: f32[400,1000,1000] = random(1, 0 .. 1)\n"
                              "  return @k\n}\n";
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &limit), 0);
    ck_assert_int_eq(nibble_graph_from_memory(big, strlen(big), "big", NULL, diags, &graph),
                     NIBBLE_LIMIT);
    ck_assert_uint_eq(nibble_diags_count(diags), 1);
    ck_assert(said("memory"));
    nibble_diags_clear(diags);
    parse(text); /* smaller things still go */
}
END_TEST

/* ---- passes and models ---------------------------------------------------------------------- */

static void count_event(void *user, const nibble_pass_event *event) {
    ck_assert_uint_ge(event->size, sizeof *event);
    ck_assert(event->seconds >= 0);
    ((int *)user)[event->index]++;
}

START_TEST(events) {
    int seen[2] = {0};
    parse(text);
    nibble_pass_options options = {
        .size = sizeof options, .after = count_event, .user = seen, .verify_each = 1};
    OK(nibble_run_passes(graph, "simplify, plan-memory # done\n", &options, diags));
    ck_assert_int_eq(seen[0] + seen[1], 2);
}
END_TEST

START_TEST(lists) {
    char *pipeline;
    ck_assert_str_eq(nibble_pass(0)->name, "simplify");
    size_t n = 0;
    while (nibble_pass(n)) n++;
    ck_assert_uint_gt(n, 10);
    OK(nibble_scheme_pipeline("w8a8", 0, diags, &pipeline));
    ck_assert_ptr_nonnull(strstr(pipeline, "quantize-weights{bits=8"));
    nibble_free(pipeline);
    ck_assert_ptr_nonnull(strchr(nibble_version(), '.'));
}
END_TEST

/* A scheme on the sample decoder; compiled = evaluated, from memory, from a file, in a session. */
static void sample_inputs(nibble_graph *g, int64_t *tokens, int64_t *mask, int64_t *positions,
                          int n, nb_array *inputs) {
    for (int i = 0; i < n; i++) {
        tokens[i] = 65 + i;
        mask[i] = 1;
        positions[i] = i;
    }
    const void *data[3] = {tokens, mask, positions};
    for (size_t i = 0; i < nibble_graph_input_count(g); i++) {
        nibble_port port = {.size = sizeof port};
        ck_assert(nibble_graph_input(g, i, &port));
        inputs[i] = i < 3 ? (nb_array){.elem = 7, .rank = 2, .dims = {1, n}, .data = data[i]}
                          : (nb_array){.elem = 1, .rank = 4, .dims = {1, 2, 0, 32}};
        ck_assert_int_eq(port.elem, inputs[i].elem);
    }
}

static nb_array first_of(const nibble_result *result) {
    nb_array y;
    ck_assert(nibble_result_get(result, 0, &y));
    return y;
}

static void same_bits(nb_array a, const void *data) {
    size_t bytes = (size_t)(a.dims[0] * a.dims[1] * a.dims[2]) * 4;
    ck_assert_uint_gt(bytes, 0);
    ck_assert(memcmp(a.data, data, bytes) == 0);
}

START_TEST(sample) {
    enum { N = 5 };
    int64_t tokens[N], mask[N], positions[N], dims[8];
    nb_array inputs[32], bare[32] = {{0}};
    nibble_model *model, *opened;
    nibble_result *evaluated, *compiled, *again;
    nb_session *session;
    nb_error_text err;
    OK(nibble_graph_load(SAMPLE, diags, &graph));
    size_t n = nibble_graph_input_count(graph);
    ck_assert_uint_le(n, 32);
    sample_inputs(graph, tokens, mask, positions, N, inputs);
    nibble_pass_options options = {.size = sizeof options, .samples = inputs, .n_samples = 1};
    OK(nibble_run_scheme(graph, "w8a8", &options, diags));
    OK(nibble_evaluate(graph, inputs, n, diags, &evaluated));
    OK(nibble_compile(graph, NULL, diags, &model));
    memcpy(bare, inputs, 3 * sizeof *inputs); /* states need not be given */
    OK(nibble_model_run(model, bare, n, diags, &compiled));
    same_bits(first_of(evaluated), first_of(compiled).data);
    ck_assert_uint_eq(nibble_result_count(compiled), nibble_model_output_count(model));

    ck_assert_int_eq(nb_session_create(nibble_model_loaded(model), NULL, &session, err), NB_RT_OK);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(nb_session_set_input(session, i, inputs[i].data, inputs[i].dims, err), 0);
    ck_assert_int_eq(nb_session_run(session, err), NB_RT_OK);
    same_bits(first_of(evaluated), nb_session_output(session, 0, dims));
    nb_session_destroy(session);

    char folder[] = "/tmp/nibble-lib-XXXXXX", path[64], weights[64], header[64];
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/m.so", folder);
    snprintf(weights, sizeof weights, "%s/m.nbw", folder);
    snprintf(header, sizeof header, "%s/m.h", folder);
    OK(nibble_compile_file(graph, path, NULL, diags));
    OK(nibble_model_open(path, NULL, diags, &opened));
    OK(nibble_model_run(opened, bare, n, diags, &again));
    same_bits(first_of(evaluated), first_of(again).data);
    ck_assert_int_eq(unlink(path) | unlink(weights) | unlink(header) | rmdir(folder), 0);

    nibble_result_free(again);
    nibble_result_free(compiled);
    nibble_result_free(evaluated);
    nibble_model_free(opened);
    nibble_model_free(model);
}
END_TEST

START_TEST(samples_that_are_wrong) {
    float x[3] = {1, NAN, 3};
    nb_array in = rows(x, 1);
    nibble_pass_options options = {.size = sizeof options, .samples = &in, .n_samples = 1};
    parse(text);
    ck_assert_int_eq(nibble_run_passes(graph, "simplify", &options, diags), NIBBLE_MALFORMED);
    ck_assert(said("sample 0, input \"x\": element 1 is nan"));
    nibble_diags_clear(diags);
    x[1] = 2;
    in.dims[1] = 2;
    ck_assert_int_eq(nibble_run_passes(graph, "simplify", &options, diags), NIBBLE_MALFORMED);
    ck_assert_msg(said("axis 1: expected 3, found 2"), "%s", nibble_diags_text(diags, 0));
}
END_TEST

/* A budget is met by what is measured here; of a state, by what the sample holds of it. */
START_TEST(budgets) {
    enum { WIDE = 64, STEPS = 16, PAST = 5 };
    static const char layers[] =
        "nir 1\ngraph @g(%x: f32[S,64], %past: f32[P,64]) -> (y: f32[S,64], present: f32[P+S,64]) "
        "{\n"
        "  state past -> present axis 0\n"
        "  const @v: f32[64,64] = random(1, -1..1)\n  const @w: f32[64,64] = random(2, -1..1)\n"
        "  %m: f32[S,64] = matmul %x, @v\n  %t: f32[S,64] = tanh %m\n"
        "  %k: f32[P+S,64] = concat %past, %t {axis=0}\n  %s: f32[64] = reduce_sum %k {axes=[0]}\n"
        "  %a: f32[S,64] = add %t, %s\n  %y: f32[S,64] = matmul %a, @w\n"
        "  return %y, %k\n}\n";
    static float x[STEPS * WIDE], past[PAST * WIDE];
    for (int i = 0; i < STEPS * WIDE; i++) x[i] = (float)(i * 37 % 101 - 50) / 64;
    for (int i = 0; i < PAST * WIDE; i++) past[i] = x[i];
    nb_array in[2] = {{.elem = 1, .rank = 2, .dims = {STEPS, WIDE}, .data = x},
                      {.elem = 1, .rank = 2, .dims = {PAST, WIDE}, .data = past}};
    nibble_pass_options options = {.size = sizeof options, .samples = in, .n_samples = 1};
    static const struct {
        const char *budget, *says;
        nibble_status status;
    } cases[] = {{"1e5ms", "choose-bits: 2 layers with 8.500 bits per weight, a run of", NIBBLE_OK},
                 {"6bpw", "choose-bits: 2 layers with", NIBBLE_OK},
                 {"1e-6ms", "a run takes at least", NIBBLE_CHECK_FAILED},
                 {"12", "a budget is bits per weight, like 4.7bpw, or milliseconds", NIBBLE_USAGE}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        parse(layers);
        options.budget = cases[i].budget;
        ck_assert_int_eq(nibble_run_scheme(graph, "w4a16", &options, diags), cases[i].status);
        ck_assert_msg(said(cases[i].says), "%s: %s", cases[i].budget, nibble_diags_text(diags, 0));
        nibble_graph_free(graph);
        graph = NULL;
        nibble_diags_clear(diags);
    }
}
END_TEST

static nb_pass_result greet(nb_pass_ctx *ctx) {
    ctx->host->report(ctx, NB_LEVEL_INFO, NULL, "hello from %s", (const char *)ctx->user);
    return NB_PASS_UNCHANGED;
}

START_TEST(pass_in_memory) {
    const nb_pass pass = {.size = sizeof pass,
                          .name = "greet",
                          .summary = "says hello",
                          .run = greet,
                          .user = (void *)(uintptr_t) "here"};
    const nb_pass *const passes[] = {&pass, NULL};
    const nb_plugin plugin = {.size = sizeof plugin,
                              .abi_major = NB_PASS_ABI_MAJOR,
                              .abi_minor = NB_PASS_ABI_MINOR,
                              .name = "test",
                              .passes = passes};
    const nb_plugin *const plugins[] = {&plugin, NULL};
    const nibble_pass_options options = {.size = sizeof options, .in_memory = plugins};
    parse(text);
    OK(nibble_run_passes(graph, "greet", &options, diags));
    ck_assert(said("hello from here"));
}
END_TEST

/* ---- threads -------------------------------------------------------------------------------- */

static void *work(void *unused) {
    const float x[6] = {1, 2, 3, 4, 5, 6};
    const nb_array in = rows(x, 2);
    (void)unused;
    for (int i = 0; i < 3; i++) {
        nibble_diags *d = nibble_diags_create();
        nibble_graph *g;
        nibble_model *model;
        nibble_result *result;
        nb_array y;
        if (nibble_graph_from_memory(text, strlen(text), "test.nir", NULL, d, &g) ||
            nibble_run_scheme(g, "w8a8", NULL, d) || nibble_compile(g, NULL, d, &model) ||
            nibble_model_run(model, &in, 1, d, &result) || !nibble_result_get(result, 0, &y) ||
            ((const float *)y.data)[5] != 18.0f)
            return (void *)(uintptr_t)nibble_diags_text(d, 0);
        nibble_result_free(result);
        nibble_model_free(model);
        nibble_graph_free(g);
        nibble_diags_free(d);
    }
    return NULL;
}

START_TEST(several_threads) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) ck_assert_int_eq(pthread_create(&threads[i], NULL, work, NULL), 0);
    for (int i = 0; i < 4; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        ck_assert_msg(!failed, "%s", (const char *)failed);
    }
}
END_TEST

int main(void) {
    Suite *s = suite_create("lib");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, 120);
    tcase_add_checked_fixture(c, setup, teardown);
    const TTest *const tests[] = {text_round_trip,
                                  ports,
                                  smaller_structs,
                                  clones_outlive,
                                  memory_is_copied,
                                  walk,
                                  bad_text,
                                  files_that_are_not_there,
                                  null_arguments,
                                  inputs_that_do_not_fit,
                                  pipelines_that_are_wrong,
                                  no_memory,
                                  events,
                                  lists,
                                  sample,
                                  samples_that_are_wrong,
                                  budgets,
                                  pass_in_memory,
                                  several_threads};
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) tcase_add_test(c, tests[i]);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
