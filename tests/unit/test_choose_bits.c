/* choose-bits: sensitive layers get more bits, budgets hold, the loss that is told is the one that
 * quantized models have; and recipes say what was found. */
#include "ir/text.h"
#include "passes/aim.h"
#include "passes/knapsack.h"
#include "passes/layer_form.h"
#include "passes/linear.h"
#include "passes/rtn.h"
#include "tests/unit/unit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define ROWS 64
#define K    16
#define N    8

/* Of two layers of 128 weights one counts a hundred times less. */
static const char text[] = "nir 1\ngraph @g(%x: f32[B,16]) -> f32[B,8] {\n"
                           "  const @a: f32[16,8] = random(3, -1..1)\n"
                           "  const @b: f32[16,8] = random(4, -1..1)\n"
                           "  const @s: f32[] = {0.01}\n"
                           "  %p: f32[B,8] = matmul %x, @a at \"/much/MatMul\"\n"
                           "  %q: f32[B,8] = matmul %x, @b at \"/little/MatMul\"\n"
                           "  %r: f32[B,8] = mul %q, @s\n"
                           "  %y: f32[B,8] = add %p, %r\n  return %y\n}\n";

/* A machine on which a bit takes a millisecond, and everything else 5. */
typedef struct machine {
    double mixed; /* milliseconds more for layers of different widths */
    double late;  /* milliseconds more ... */
    int on_time;  /* ... behind so many runs */
    int runs;     /* how often time was asked for */
    int qmatmuls; /* of the last graph */
    bool broken;
} machine;

typedef struct fixture {
    const char *text;
    machine machine;
    nb_arena *arena;
    nb_diags *diags;
    nb_tensor in;
    nb_sample sample;
    nb_pass_env env;
    nb_pipeline pipeline;
    float x[ROWS * K];
} fixture;

static double milliseconds(void *user, const nb_graph *planned, double *seconds) {
    fixture *f = user;
    machine *m = &f->machine;
    int first = 0;
    bool mixed = false;
    double all = 5e-3;
    m->runs++;
    m->qmatmuls = 0;
    ck_assert_int_eq(planned->stage, NB_STAGE_PLANNED);
    if (m->broken) {
        nb_error(f->diags, NB_IO, NB_NOWHERE, "no clock");
        return -1;
    }
    for (const nb_op *op = planned->body.first; op; op = op->next, seconds++) {
        const nb_value *w = nb_linear_weight(op);
        *seconds = 0.5e-3; /* that of a layer's is replaced, that of others is in the 5 */
        m->qmatmuls += op->kind == NB_OP_qmatmul;
        if (!w) continue;
        const int bits = nb_elems[w->type->elem].bits;
        *seconds = 1e-3 * bits;
        all += *seconds;
        mixed = mixed || (first && bits != first);
        first = bits;
    }
    return all + (mixed ? 1e-3 * m->mixed : 0) + (m->runs > m->on_time ? 1e-3 * m->late : 0);
}

static void setup(fixture *f) {
    memset(f, 0, sizeof *f);
    f->text = text;
    f->arena = nb_arena_create(NULL, NULL);
    f->diags = nb_diags_create(f->arena, NULL);
    for (int i = 0; i < ROWS * K; i++) f->x[i] = sinf((float)(i * i));
    f->in = (nb_tensor){
        .elem = NB_F32, .rank = 2, .dims = {ROWS, K}, .data = f->x, .bytes = sizeof f->x};
    f->sample = (nb_sample){&f->in};
    f->env = (nb_pass_env){.arena = f->arena,
                           .diags = f->diags,
                           .registry = nb_registry_create(f->arena),
                           .samples = &f->sample,
                           .n_samples = 1,
                           .run_seconds = milliseconds,
                           .seconds_user = f};
}

/* Runs passes on the graph; its result in `y` unless that is NULL. */
static nb_status run(fixture *f, const char *passes, nb_tensor *y) {
    nb_graph *g;
    ck_assert_int_eq(nb_parse(f->text, strlen(f->text), "g", NULL, NULL, NULL, f->diags, &g),
                     NB_OK);
    ck_assert_int_eq(nb_pipeline_parse(f->env.registry, passes, f->arena, f->diags, &f->pipeline),
                     NB_OK);
    nb_status status = nb_pipeline_run(&f->pipeline, g, &f->env);
    if (y) ck_assert_int_eq(nb_eval(g, &f->in, y, NULL, 0, f->arena, f->diags), NB_OK);
    nb_graph_destroy(g);
    return status;
}

static void chosen(const char *options, const char *wanted) {
    fixture f;
    setup(&f);
    const char *passes = nb_format(f.arena, "choose-bits{%s}, quantize-weights", options);
    ck_assert_int_eq(run(&f, passes, NULL), NB_OK);
    ck_assert_str_eq(nb_layer_forms_text(&f.env, f.arena), wanted);
    nb_arena_destroy(f.arena);
}

/* A column's scale of 32 bits is 2 bits for each of its 16 weights, a group's of 16 bits 2 for 8.
 */
START_TEST(within_budget) {
    chosen("budget=10, bits=\"2,8\", groups=\"0\"", "/much/MatMul=8/0; /little/MatMul=8/0");
    chosen("budget=9.9, bits=\"2,8\", groups=\"0\"", "/much/MatMul=8/0; /little/MatMul=2/0");
    chosen("budget=6.9, bits=\"2,8\", groups=\"0\"", "/much/MatMul=2/0; /little/MatMul=2/0");
    chosen("budget=8, bits=\"2,3,6,8\", groups=\"8,0\"", "/much/MatMul=8/8; /little/MatMul=3/8");
    chosen("budget=7.9, bits=\"2,4,8\", groups=\"0\", asymmetric",
           "/much/MatMul=8/0; /little/MatMul=2/0");
}
END_TEST

/* 256 weights get bits, 16 keep their 32: with 8 bits and scales by column they all have
 * (256 * 10 + 16 * 32) / 272 = 11.3, or 7.76 if the first two get 2 and 8. */
START_TEST(small_layers_stay_float) {
    static const char rest[] = "choose-bits{budget=%s, bits=\"2,8\", groups=\"0\"}, "
                               "quantize-weights{%s}";
    static const struct {
        const char *budget, *weights, *wanted, *told;
    } cases[] = {
        {"11.3", "min-weights=100", "/much/MatMul=8/0; /little/MatMul=8/0",
         "3 layers with 11.294 "},
        {"11.3", "skip=\"/tiny/*\"", "/much/MatMul=8/0; /little/MatMul=8/0",
         "3 layers with 11.294 "},
        {"11.3", "min-outputs=3", "/much/MatMul=8/0; /little/MatMul=8/0", "3 layers with 11.294 "},
        {"11.2", "min-weights=100", "/much/MatMul=8/0; /little/MatMul=2/0", "3 layers with 8.471 "},
        {"5.6", "min-weights=100", NULL, "3 layers (1 of them in float) have at least 5.647"},
        {"5.6", "min-weights=0", "/much/MatMul=2/0; /little/MatMul=2/0; /tiny/MatMul=8/0",
         "3 layers with 4.471 "},
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        fixture f;
        setup(&f);
        f.text = "nir 1\ngraph @g(%x: f32[B,16]) -> f32[B,1,1,2] {\n"
                 "  const @a: f32[16,8] = random(3, -1..1)\n"
                 "  const @b: f32[16,8] = random(4, -1..1)\n"
                 "  const @c: f32[8,2] = random(5, -1..1)\n"
                 "  const @s: f32[] = {0.01}\n"
                 "  %p: f32[B,8] = matmul %x, @a at \"/much/MatMul\"\n"
                 "  %q: f32[B,8] = matmul %x, @b at \"/little/MatMul\"\n"
                 "  %r: f32[B,8] = mul %q, @s\n"
                 "  %t: f32[B,8] = add %p, %r\n"
                 "  %u: f32[B,1,1,8] = reshape %t {shape=[B,1,1,8]}\n"
                 "  %y: f32[B,1,1,2] = matmul %u, @c at \"/tiny/MatMul\"\n  return %y\n}\n";
        const char *passes = nb_format(f.arena, rest, cases[i].budget, cases[i].weights);
        ck_assert_int_eq(run(&f, passes, NULL), cases[i].wanted ? NB_OK : NB_CHECK_FAILED);
        if (cases[i].wanted)
            ck_assert_str_eq(nb_layer_forms_text(&f.env, f.arena), cases[i].wanted);
        const char *said = "";
        for (size_t k = 0; k < f.diags->list.count; k++)
            said = nb_format(f.arena, "%s%s\n", said, f.diags->list.items[k]->message);
        ck_assert_msg(strstr(said, cases[i].told), "%s", said);
        nb_arena_destroy(f.arena);
    }
}
END_TEST

START_TEST(within_loss) {
    chosen("max-kld=10, bits=\"2,8\", groups=\"0\"", "/much/MatMul=2/0; /little/MatMul=2/0");
    chosen("max-kld=1e-3, bits=\"2,8\", groups=\"0\"", "/much/MatMul=8/0; /little/MatMul=2/0");
}
END_TEST

/* 8 bits and 8 bits take 21 ms, 8 and 2 take 15, 2 and 2 take 9. */
START_TEST(within_time) {
    chosen("budget-ms=21.01, bits=\"2,8\", groups=\"0\"", "/much/MatMul=8/0; /little/MatMul=8/0");
    chosen("budget-ms=1000, bits=\"8,2\", groups=\"8,0\"", "/much/MatMul=8/8; /little/MatMul=8/8");
    chosen("budget-ms=20.9, bits=\"2,8\", groups=\"0\"", "/much/MatMul=8/0; /little/MatMul=2/0");
    chosen("budget-ms=14.9, bits=\"2,8\", groups=\"0\"", "/much/MatMul=2/0; /little/MatMul=2/0");
    chosen("budget-ms=14.9, bits=\"2,8,5\", groups=\"0\"", "/much/MatMul=5/0; /little/MatMul=2/0");
}
END_TEST

/* Layers of 8 and 2 bits take longer than was foretold, so that the next choice aims lower. */
START_TEST(time_is_checked) {
    fixture f;
    setup(&f);
    f.machine.mixed = 3;
    const char *passes =
        "choose-bits{budget-ms=16, bits=\"2,4,8\", groups=\"0\"}, quantize-weights";
    ck_assert_int_eq(run(&f, passes, NULL), NB_OK);
    ck_assert_str_eq(nb_layer_forms_text(&f.env, f.arena), "/much/MatMul=4/0; /little/MatMul=4/0");
    ck_assert_int_eq(f.machine.runs, 3 + 1 + 2 + 1); /* what is beyond the budget twice */
    const char *said = f.diags->list.items[f.diags->list.count - 1]->message;
    ck_assert_ptr_nonnull(strstr(said, "a run of 13 ms as measured (13 foretold, 8 of them "));
    nb_arena_destroy(f.arena);
}
END_TEST

/* They take less, so that the next choices aim higher; 8 and 6 bits would take 16 ms. */
START_TEST(time_left_is_spent) {
    fixture f;
    setup(&f);
    f.machine.mixed = -3;
    const char *passes =
        "choose-bits{budget-ms=15.5, bits=\"2,4,6,8\", groups=\"0\"}, quantize-weights";
    ck_assert_int_eq(run(&f, passes, NULL), NB_OK);
    ck_assert_str_eq(nb_layer_forms_text(&f.env, f.arena), "/much/MatMul=8/0; /little/MatMul=4/0");
    const char *said = f.diags->list.items[f.diags->list.count - 1]->message;
    ck_assert_ptr_nonnull(strstr(said, "a run of 14 ms as measured (17 foretold, 12 of them "));
    nb_arena_destroy(f.arena);
}
END_TEST

/* What was measured with all layers in one form counts where the fastest mix is slower: here
 * because everything became slower. */
START_TEST(fastest_form_counts) {
    fixture f;
    setup(&f);
    f.machine.late = 2;
    f.machine.on_time = 2;
    ck_assert_int_eq(
        run(&f, "choose-bits{budget-ms=10, bits=\"8,2\", groups=\"0\"}, quantize-weights", NULL),
        NB_OK);
    ck_assert_str_eq(nb_layer_forms_text(&f.env, f.arena), "/much/MatMul=2/0; /little/MatMul=2/0");
    const char *said = f.diags->list.items[f.diags->list.count - 1]->message;
    ck_assert_msg(strstr(said, "a run of 9 ms as measured"), "%s", said);
    nb_arena_destroy(f.arena);
}
END_TEST

/* All products with a weight count. */
START_TEST(time_of_shared_weight) {
    fixture f;
    setup(&f);
    f.text = "nir 1\ngraph @g(%x: f32[B,16]) -> f32[B,8] {\n"
             "  const @a: f32[16,8] = random(3, -1..1)\n"
             "  const @s: f32[] = {0.01}\n"
             "  %p: f32[B,8] = matmul %x, @a at \"/first/MatMul\"\n"
             "  %z: f32[B,16] = mul %x, @s\n"
             "  %q: f32[B,8] = matmul %z, @a at \"/second/MatMul\"\n"
             "  %y: f32[B,8] = add %p, %q\n  return %y\n}\n";
    const char *passes = "choose-bits{budget-ms=14, bits=\"2,8\", groups=\"0\"}, quantize-weights";
    ck_assert_int_eq(run(&f, passes, NULL), NB_OK);
    ck_assert_str_eq(nb_layer_forms_text(&f.env, f.arena), "/first/MatMul=2/0");
    nb_arena_destroy(f.arena);
}
END_TEST

/* What is timed is what the passes behind make, by what those before found out. */
START_TEST(time_of_passes_behind) {
    fixture f;
    setup(&f);
    ck_assert_int_eq(
        run(&f,
            "calibrate, choose-bits{budget-ms=30, bits=\"4,8\", groups=\"0\"}, "
            "quantize-weights{method=gptq, search}, insert-qdq{mode=static}, fuse-dequant",
            NULL),
        NB_OK);
    ck_assert_int_eq(f.machine.qmatmuls, 2);
    ck_assert_uint_eq(f.diags->errors, 0);
    nb_arena_destroy(f.arena);
}
END_TEST

static nb_status count_runs(void *user, const nb_graph *g, const nb_tensor *inputs,
                            nb_tensor *outputs, const nb_tap *taps, size_t n_taps, nb_arena *arena,
                            nb_diags *diags) {
    ++*(int *)user;
    return nb_eval(g, inputs, outputs, taps, n_taps, arena, diags);
}

/* Runs of the model with layers in one of `bits`, and inputs wide where that is more. */
static int runs_with(const char *bits) {
    fixture f;
    int runs = 0;
    setup(&f);
    f.env.run = count_runs;
    f.env.run_user = &runs;
    const char *passes =
        nb_format(f.arena,
                  "choose-bits{budget-ms=1000, bits=\"%s\", groups=\"0\"}, quantize-weights, "
                  "insert-qdq{act=i8}, wide-inputs{max-kld=1e-9}, fuse-dequant",
                  bits);
    ck_assert_int_eq(run(&f, passes, NULL), NB_OK);
    ck_assert_int_ge(f.machine.runs, (int)strlen(bits) / 2 + 1);
    nb_arena_destroy(f.arena);
    return runs;
}

/* However many forms are timed. */
START_TEST(wide_inputs_are_found_once) {
    ck_assert_int_eq(runs_with("4,8"), runs_with("2,3,4,5,6,7,8"));
}
END_TEST

START_TEST(time_is_unknown) {
    static const char passes[] = "choose-bits{budget-ms=30}, quantize-weights";
    fixture f, without;
    setup(&f);
    setup(&without);
    f.machine.broken = true;
    ck_assert_int_eq(run(&f, passes, NULL), NB_IO);
    ck_assert_int_eq(f.machine.runs, 1);
    without.env.run_seconds = NULL;
    ck_assert_int_ne(run(&without, passes, NULL), NB_OK);
    ck_assert_ptr_nonnull(strstr(without.diags->list.items[0]->message, "how long a run takes"));
    nb_arena_destroy(f.arena);
    nb_arena_destroy(without.arena);
}
END_TEST

static double divergence(const float *p, const float *q) {
    double zp = 0, zq = 0, sum = 0;
    for (int i = 0; i < N; i++) {
        zp += exp((double)p[i]);
        zq += exp((double)q[i]);
    }
    for (int i = 0; i < N; i++) {
        const double a = exp((double)p[i]) / zp, b = exp((double)q[i]) / zq;
        sum += a * log(a / b);
    }
    return sum;
}

/* What the pass said that layers lose in all, behind the words `before`. */
static double told(const fixture *f, const char *before) {
    double out = 0;
    const char *at = NULL;
    for (size_t i = 0; i < f->diags->list.count; i++) {
        const char *found = strstr(f->diags->list.items[i]->message, before);
        if (found) at = found + strlen(before);
    }
    ck_assert_ptr_nonnull(at);
    ck_assert_int_eq(sscanf(at, "%lf", &out), 1);
    return out;
}

/* What both layers lose in all, at other widths than the one that was measured: with errors of
 * rounding, and with noise of the same size. */
START_TEST(tells_the_loss) {
    static const char *const measures[] = {"outputs", "noise"};
    fixture f;
    setup(&f);
    nb_tensor wanted, got;
    double sum = 0;
    ck_assert_int_eq(run(&f, "simplify", &wanted), NB_OK);
    const char *passes = nb_format(f.arena,
                                   "choose-bits{budget=8, bits=\"5,6\", groups=\"0\", "
                                   "measure=%s}, quantize-weights{search}",
                                   measures[_i]);
    ck_assert_int_eq(run(&f, passes, &got), NB_OK);
    for (int64_t r = 0; r < ROWS; r++)
        sum += divergence((const float *)wanted.data + r * N, (const float *)got.data + r * N);
    ck_assert_double_gt(told(&f, "diverge by "), 0.5 * sum / ROWS);
    ck_assert_double_lt(told(&f, "diverge by "), 2 * sum / ROWS);
    nb_arena_destroy(f.arena);
}
END_TEST

/* |x (w' - w)|^2 / |x w|^2 of a weight of the graph and the same behind rounding. */
static double relative_error(const fixture *f, const float *w, const float *rounded) {
    double lost = 0, all = 0;
    for (int r = 0; r < ROWS; r++) {
        for (int c = 0; c < N; c++) {
            double y = 0, error = 0;
            for (int k = 0; k < K; k++) {
                y += (double)f->x[r * K + k] * (double)w[k * N + c];
                error += (double)f->x[r * K + k] * (double)(rounded[k * N + c] - w[k * N + c]);
            }
            all += y * y;
            lost += error * error;
        }
    }
    return lost / all;
}

/* The layers' own errors, whatever becomes of them: both have inputs x. */
START_TEST(tells_errors_of_layers) {
    static const nb_rtn rtn = {.bits = 4, .search = NB_RTN_RANGE};
    fixture f;
    setup(&f);
    nb_graph *g;
    double sum = 0;
    ck_assert_int_eq(run(&f,
                         "choose-bits{budget=32, bits=\"4\", groups=\"0\", measure=layer}, "
                         "quantize-weights",
                         NULL),
                     NB_OK);
    ck_assert_int_eq(nb_parse(text, strlen(text), "g", NULL, NULL, NULL, f.diags, &g), NB_OK);
    NB_FOR_OPS(op, &g->body) {
        float rounded[K * N];
        if (op->kind != NB_OP_matmul) continue;
        const float *w = nb_in(op, 1)->blob->data;
        ck_assert(nb_rtn_round(&rtn, w, K, N, 0, rounded));
        sum += relative_error(&f, w, rounded);
    }
    ck_assert_double_eq_tol(told(&f, "their squares, "), sum, 0.01 * sum);
    nb_graph_destroy(g);
    nb_arena_destroy(f.arena);
}
END_TEST

/* Of two layers that lose the same the errors add up, which makes the loss of both four times that
 * of one, where the sum of single losses says twice. The bound holds all the same, and what is told
 * is what the model has on every fourth sample; on the others, which are zeros, it loses nothing.
 */
START_TEST(measures_the_whole) {
    static const double most[] = {0.1, 0.03, 0.01, 3e-3, 1e-3};
    static float zeros[ROWS * K];
    fixture f;
    setup(&f);
    nb_tensor nothing = f.in;
    nothing.data = zeros;
    const nb_sample samples[] = {{&nothing}, {&nothing}, {&nothing}, {&f.in}};
    f.env.samples = samples;
    f.env.n_samples = NB_COUNT(samples);
    f.text = "nir 1\ngraph @g(%x: f32[B,16]) -> f32[B,8] {\n"
             "  const @a: f32[16,8] = random(3, -1..1)\n"
             "  const @b: f32[16,8] = random(3, -1..1)\n"
             "  %p: f32[B,8] = matmul %x, @a at \"/one/MatMul\"\n"
             "  %q: f32[B,8] = matmul %x, @b at \"/other/MatMul\"\n"
             "  %y: f32[B,8] = add %p, %q\n  return %y\n}\n";
    nb_tensor wanted, got;
    double sum = 0;
    ck_assert_int_eq(run(&f, "simplify", &wanted), NB_OK);
    const char *passes =
        nb_format(f.arena,
                  "choose-bits{max-kld=%g, bits=\"2,3,4,5,6,7,8\", groups=\"0,4,8\"}, "
                  "quantize-weights{search}, fuse-dequant, simplify",
                  most[_i]);
    ck_assert_int_eq(run(&f, passes, &got), NB_OK);
    for (int64_t r = 0; r < ROWS; r++)
        sum += divergence((const float *)wanted.data + r * N, (const float *)got.data + r * N);
    ck_assert_double_le(sum / ROWS, most[_i]);
    ck_assert_double_ge(sum / ROWS, 0.3 * most[_i]);
    ck_assert_double_eq_tol(told(&f, "together by "), sum / ROWS, 0.01 * sum / ROWS);
    nb_arena_destroy(f.arena);
}
END_TEST

/* Puts out x, which has as many rows and more columns. */
static nb_pass_result put_out_x(nb_pass_ctx *ctx) {
    const char *name = "y";
    nb_graph_set_outputs(ctx->graph, 1, &ctx->graph->body.params[0], &name);
    return NB_PASS_CHANGED;
}

/* Takes one more input, which nothing reads. */
static nb_pass_result take_another(nb_pass_ctx *ctx) {
    nb_graph *g = ctx->graph;
    nb_graph_add_input(g, "other", g->body.params[0]->type);
    return NB_PASS_CHANGED;
}

/* What samples cannot tell the loss of. */
START_TEST(cannot_be_measured) {
    static const struct {
        nb_pass_result (*run)(nb_pass_ctx *ctx);
        const char *says;
    } cases[] = {{put_out_x, "change the shape of output 'y', which is measured"},
                 {take_another, "change the model's inputs, for which samples are"}};
    const nb_pass pass = {.size = sizeof pass,
                          .name = "changes",
                          .summary = "changes what samples are for",
                          .run = cases[_i].run};
    fixture f;
    setup(&f);
    nb_graph *g;
    ck_assert_int_eq(nb_parse(text, strlen(text), "g", NULL, NULL, NULL, f.diags, &g), NB_OK);
    ck_assert_int_eq(nb_pipeline_parse(f.env.registry, "choose-bits{max-kld=1}, quantize-weights",
                                       f.arena, f.diags, &f.pipeline),
                     NB_OK);
    nb_vec_push(f.arena, &f.pipeline.steps, (nb_step){.pass = &pass});
    ck_assert_int_ne(nb_pipeline_run(&f.pipeline, g, &f.env), NB_OK);
    ck_assert_ptr_nonnull(strstr(f.diags->list.items[0]->message, cases[_i].says));
    nb_graph_destroy(g);
    nb_arena_destroy(f.arena);
}
END_TEST

/* Where everything alike is measured as 0.4 of what was estimated; where activations lose 0.5 that
 * no weight changes; where they lose more than there may be; where nothing is lost. */
START_TEST(aims_by_secants) {
    nb_aim aim = nb_aim_begin(1, 0.8);
    ck_assert_double_eq(aim.next, 1);
    ck_assert(nb_aim_step(&aim, 1, 0.4));
    ck_assert_double_eq_tol(aim.next, 2.25, 1e-12);
    ck_assert(!nb_aim_step(&aim, 2.25, 0.9));
    aim = nb_aim_begin(1, 0.8);
    ck_assert(nb_aim_step(&aim, 1, 1.5));
    ck_assert_double_eq_tol(aim.next, 0.6, 1e-12);
    ck_assert(nb_aim_step(&aim, 0.6, 1.1));
    ck_assert_double_eq_tol(aim.next, 0.4, 1e-12);
    ck_assert(!nb_aim_step(&aim, 0.4, 0.9));
    aim = nb_aim_begin(1, 0.8);
    for (double last = 1; last > 1e-3; last = aim.next) {
        ck_assert(nb_aim_step(&aim, last, 2 + last));
        ck_assert_double_gt(aim.next, 0);
        ck_assert_double_lt(aim.next, last);
    }
    aim = nb_aim_begin(1, 0.8);
    ck_assert(nb_aim_step(&aim, 1, 0));
    ck_assert_double_eq(aim.next, 2);
    ck_assert(nb_aim_step(&aim, 2, 3)); /* between what was too small and too large */
    ck_assert_double_eq_tol(aim.next, 2 - 2.1 / 3, 1e-12);
}
END_TEST

START_TEST(refused) {
    static const struct {
        const char *passes, *says;
    } cases[] = {
        {"choose-bits{budget=2, bits=\"4\", groups=\"0\"}", "at least 6.000 bits per weight"},
        {"choose-bits{max-kld=1e-9, bits=\"2,3\"}", "within max-kld=1e-09"},
        {"choose-bits{max-kld=1e-9}, quantize-weights", "max-kld=1e-09: with bits=\"3,4,5,6,8\""},
        {"choose-bits{max-kld=1e-6, bits=\"8\"}, quantize-weights, insert-qdq{act=i8}",
         "measured with 2 layers that lose least"},
        {"choose-bits", "one of budget, budget-ms and max-kld"},
        {"choose-bits{budget=4, max-kld=1}", "one of budget, budget-ms and max-kld"},
        {"choose-bits{budget=4, budget-ms=1}", "one of budget, budget-ms and max-kld"},
        {"choose-bits{budget-ms=1, max-kld=1}", "one of budget, budget-ms and max-kld"},
        {"choose-bits{max-kld=1, measure=layer}", "which measure=layer does not see"},
        {"choose-bits{budget-ms=8, bits=\"2,3\", groups=\"0\"}, quantize-weights",
         "a run takes at least 9 ms: 2 layers 4, everything else 5"},
        {"choose-bits{budget-ms=8}, quantize-weights, insert-qdq{mode=static}",
         "static scales need statistics of '%x'"},
        {"choose-bits{budget=4, bits=\"4,9\"}", "numbers from 2 to 8"},
        {"choose-bits{budget=4, bits=\"4,4\"}", "different numbers"},
        {"choose-bits{budget=4, groups=\"32,\"}", "groups: expected"},
        {"quantize-weights{layers=\"*none*=4\"}", "layers=\"*none*\" matches none of the 2 layers"},
        {"quantize-weights{layers=\"*much*=9\"}", "PATTERN=BITS"},
        {"quantize-weights{layers=\"=4\"}", "PATTERN=BITS"},
        {"quantize-weights{layers=\"*=4/\"}", "PATTERN=BITS"},
    };
    fixture f;
    setup(&f);
    ck_assert_int_ne(run(&f, cases[_i].passes, NULL), NB_OK);
    ck_assert_ptr_nonnull(strstr(f.diags->list.items[0]->message, cases[_i].says));
    nb_arena_destroy(f.arena);
}
END_TEST

START_TEST(needs_samples) {
    fixture f;
    setup(&f);
    f.env.n_samples = 0;
    ck_assert_int_ne(run(&f, "choose-bits{budget=8}", NULL), NB_OK);
    ck_assert_ptr_nonnull(strstr(f.diags->list.items[0]->message, "no samples"));
    nb_arena_destroy(f.arena);
}
END_TEST

/* A recipe of what was run does the same without measuring. */
START_TEST(recipe) {
    fixture f, again;
    setup(&f);
    setup(&again);
    nb_tensor first, second;
    const char *passes = "choose-bits{budget=9.9, bits=\"2,8\", groups=\"0\"}, "
                         "quantize-weights{group=4, search, layers=\"*much*=6\"}";
    ck_assert_int_eq(run(&f, passes, &first), NB_OK);
    const char *again_text = nb_recipe_text(&f.pipeline, &f.env, f.arena);
    ck_assert_str_eq(again_text,
                     "# choose-bits{budget=9.9, bits=\"2,8\", groups=\"0\"}: see layers below\n"
                     "quantize-weights{group=4, search, "
                     "layers=\"*much*=6; /much/MatMul=8/0; /little/MatMul=2/0\"}\n");
    again.env.n_samples = 0;
    ck_assert_int_eq(run(&again, again_text, &second), NB_OK);
    ck_assert_mem_eq(first.data, second.data, (size_t)first.bytes);
    nb_arena_destroy(f.arena);
    nb_arena_destroy(again.arena);
}
END_TEST

/* The best of all 4^5 choices, costs being whole steps. */
START_TEST(best_choice) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    double cost[5][4], loss[5][4], best = INFINITY, found = 0, spent = 0;
    nb_knapsack_item items[5];
    uint32_t state = (uint32_t)_i + 1;
    for (int i = 0; i < 5; i++) {
        for (int k = 0; k < 4; k++) {
            state = state * 1664525 + 1013904223;
            cost[i][k] = 100 + (double)(state >> 16 & 255);
            loss[i][k] = (double)(state >> 24);
        }
        items[i] = (nb_knapsack_item){cost[i], loss[i], 4, 0};
    }
    const double most = 1000;
    for (int code = 0; code < 1024; code++) {
        double c = 0, l = 0;
        for (int i = 0; i < 5; i++) {
            c += cost[i][code >> 2 * i & 3];
            l += loss[i][code >> 2 * i & 3];
        }
        if (c <= most - 1) best = fmin(best, l); /* a step is less than a tenth */
    }
    ck_assert(nb_knapsack(items, 5, most, INFINITY, arena));
    for (int i = 0; i < 5; i++) {
        spent += cost[i][items[i].choice];
        found += loss[i][items[i].choice];
    }
    ck_assert_double_le(spent, most);
    ck_assert_double_le(found, best);
    ck_assert(!nb_knapsack(items, 5, 499, INFINITY, arena));
    ck_assert(!nb_knapsack(items, 5, INFINITY, -1, arena));
    ck_assert(nb_knapsack(items, 5, INFINITY, INFINITY, arena));
    nb_arena_destroy(arena);
}
END_TEST

Suite *nb_suite_choose_bits(void) {
    Suite *s = suite_create("choose_bits");
    TCase *c = tcase_create("choices");
    tcase_add_test(c, within_budget);
    tcase_add_test(c, small_layers_stay_float);
    tcase_add_test(c, within_loss);
    tcase_add_test(c, within_time);
    tcase_add_test(c, time_is_checked);
    tcase_add_test(c, time_left_is_spent);
    tcase_add_test(c, fastest_form_counts);
    tcase_add_test(c, time_of_shared_weight);
    tcase_add_test(c, time_of_passes_behind);
    tcase_add_test(c, wide_inputs_are_found_once);
    tcase_add_test(c, time_is_unknown);
    tcase_add_loop_test(c, tells_the_loss, 0, 2);
    tcase_add_test(c, tells_errors_of_layers);
    tcase_add_loop_test(c, measures_the_whole, 0, 5);
    tcase_add_loop_test(c, cannot_be_measured, 0, 2);
    tcase_add_test(c, aims_by_secants);
    tcase_add_loop_test(c, refused, 0, 18);
    tcase_add_test(c, needs_samples);
    tcase_add_test(c, recipe);
    tcase_add_loop_test(c, best_choice, 0, 20);
    suite_add_tcase(s, c);
    return s;
}
