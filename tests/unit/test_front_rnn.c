/* LSTM, GRU and RNN against a plain evaluation of ONNX's equations in double precision: each
 * direction, layout and option. */
#include "tests/unit/test_front.h"

#include "ir/eval.h"

#include <math.h>
#include <string.h>

enum { T = 5, B = 3, I = 4, H = 3 };

enum {
    BATCH_FIRST = 1,
    LENGTHS = 2,
    FIRST = 4, /* states that are given */
    BIAS = 8,
    CLIP = 16,
    OTHERS = 32, /* activations that are not the usual ones */
    PEEPHOLES = 64,
    COUPLED = 128, /* LSTM: input_forget; GRU: linear_before_reset */
    OPTIONS = 256
};

typedef struct layer {
    int gates, directions, options;
    bool reverse;
    float x[T * B * I], w[2 * 4 * H * I], r[2 * 4 * H * H], bias[2 * 8 * H], h[2 * B * H],
        c[2 * B * H], p[2 * 3 * H];
    int32_t lengths[B];
    double y[T * 2 * B * H], last_h[2 * B * H], last_c[2 * B * H];
} layer;

/* ---- the reference ------------------------------------------------------------------------- */

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double affine(double x) { return 0.5 * x + 0.25; }
static double leaky(double x) { return x < 0 ? 0.125 * x : x; }
static double soft(double x) { return x / (1 + fabs(x)); }

/* Function `which` of a direction, of what may be clipped. */
static double apply(const layer *l, int which, double x) {
    if (l->options & CLIP) x = fmin(fmax(x, -0.5), 0.5);
    if (l->options & OTHERS) return which == 0 ? affine(x) : which == 1 ? leaky(x) : soft(x);
    return l->gates > 1 && which == 0 ? sigmoid(x) : tanh(x);
}

/* Row `gate * H + j` of direction d: W x + Wb, or R h + Rb. */
static double of_x(const layer *l, int d, int row, const float *x) {
    double sum = l->options & BIAS ? l->bias[d * 2 * l->gates * H + row] : 0;
    for (int i = 0; i < I; i++) sum += (double)l->w[(d * l->gates * H + row) * I + i] * x[i];
    return sum;
}
static double of_h(const layer *l, int d, int row, const double *h) {
    double sum = l->options & BIAS ? l->bias[d * 2 * l->gates * H + l->gates * H + row] : 0;
    for (int i = 0; i < H; i++) sum += (double)l->r[(d * l->gates * H + row) * H + i] * h[i];
    return sum;
}

static void lstm_step(const layer *l, int d, const float *x, double *h, double *c) {
    double next_h[H], next_c[H];
    const float *p = &l->p[d * 3 * H];
    const bool peep = l->options & PEEPHOLES;
    for (int j = 0; j < H; j++) {
        double g[4];
        for (int k = 0; k < 4; k++) g[k] = of_x(l, d, k * H + j, x) + of_h(l, d, k * H + j, h);
        const double in = apply(l, 0, g[0] + (peep ? (double)p[j] * c[j] : 0));
        const double forget = l->options & COUPLED
                                  ? 1 - in
                                  : apply(l, 0, g[2] + (peep ? (double)p[2 * H + j] * c[j] : 0));
        next_c[j] = forget * c[j] + in * apply(l, 1, g[3]);
        const double out = apply(l, 0, g[1] + (peep ? (double)p[H + j] * next_c[j] : 0));
        next_h[j] = out * apply(l, 2, next_c[j]);
    }
    memcpy(h, next_h, sizeof next_h);
    memcpy(c, next_c, sizeof next_c);
}

static void gru_step(const layer *l, int d, const float *x, double *h) {
    double z[H], reset[H], gated[H], next[H];
    for (int j = 0; j < H; j++) {
        z[j] = apply(l, 0, of_x(l, d, j, x) + of_h(l, d, j, h));
        reset[j] = apply(l, 0, of_x(l, d, H + j, x) + of_h(l, d, H + j, h));
        gated[j] = reset[j] * h[j];
    }
    for (int j = 0; j < H; j++) {
        const double recurrent = l->options & COUPLED ? reset[j] * of_h(l, d, 2 * H + j, h)
                                                      : of_h(l, d, 2 * H + j, gated);
        next[j] = (1 - z[j]) * apply(l, 1, of_x(l, d, 2 * H + j, x) + recurrent) + z[j] * h[j];
    }
    memcpy(h, next, sizeof next);
}

static void rnn_step(const layer *l, int d, const float *x, double *h) {
    double next[H];
    for (int j = 0; j < H; j++) next[j] = apply(l, 0, of_x(l, d, j, x) + of_h(l, d, j, h));
    memcpy(h, next, sizeof next);
}

/* Where entries stand: [T,B,...] and [D,B,H], or with the batch in front. */
static int at_x(const layer *l, int t, int b) {
    return (l->options & BATCH_FIRST ? b * T + t : t * B + b) * I;
}
static int at_h(const layer *l, int d, int b) {
    return (l->options & BATCH_FIRST ? b * l->directions + d : d * B + b) * H;
}
static int at_y(const layer *l, int t, int d, int b) {
    return (l->options & BATCH_FIRST ? (b * T + t) * l->directions + d
                                     : (t * l->directions + d) * B + b) *
           H;
}

static void expect_row(layer *l, int d, int b) {
    double h[H] = {0}, c[H] = {0};
    const int length = l->options & LENGTHS ? l->lengths[b] : T;
    for (int j = 0; j < H && l->options & FIRST; j++) {
        h[j] = l->h[at_h(l, d, b) + j];
        c[j] = l->c[at_h(l, d, b) + j];
    }
    for (int s = 0; s < length; s++) {
        const int t = l->reverse || d == 1 ? length - 1 - s : s;
        const float *x = &l->x[at_x(l, t, b)];
        if (l->gates == 4) lstm_step(l, d, x, h, c);
        if (l->gates == 3) gru_step(l, d, x, h);
        if (l->gates == 1) rnn_step(l, d, x, h);
        for (int j = 0; j < H; j++) l->y[at_y(l, t, d, b) + j] = h[j];
    }
    for (int j = 0; j < H; j++) {
        l->last_h[at_h(l, d, b) + j] = h[j];
        l->last_c[at_h(l, d, b) + j] = c[j];
    }
}

/* ---- the model ----------------------------------------------------------------------------- */

static uint32_t state = 1;
static void fill(float *v, size_t n) {
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        v[i] = (float)(state >> 8) / (float)(1 << 24) - 0.5f;
    }
}

static wire weight(const char *name, const layer *l, int rows, int columns, const float *data) {
    const char *dims = columns ? nb_format(front_arena(), "%d,%d,%d", l->directions, rows, columns)
                               : nb_format(front_arena(), "%d,%d", l->directions, rows);
    const int n = l->directions * rows * (columns ? columns : 1);
    return front_weight(name, 1, dims, data, (size_t)n * sizeof *data);
}

static wire strings(const char *name, int n, const char *const *values) {
    wire list = front_text(1, name);
    for (int i = 0; i < n; i++) list = W(list, front_text(9, values[i]));
    return front_put(5, list);
}
static wire floats(const char *name, int n, float value) {
    wire list = front_text(1, name);
    for (int i = 0; i < n; i++) list = W(list, front_fixed(7, value));
    return front_put(5, list);
}

static wire attributes(const layer *l) {
    static const char *const others[] = {"Affine", "leakyrelu", "Softsign"};
    const int options = l->options, functions = l->gates == 4 ? 3 : l->gates == 3 ? 2 : 1;
    wire a = W(front_int("hidden_size", H),
               front_string("direction", l->directions == 2 ? "bidirectional"
                                         : l->reverse       ? "reverse"
                                                            : "forward"));
    if (options & BATCH_FIRST) a = W(a, front_int("layout", 1));
    if (options & CLIP) a = W(a, front_float("clip", 0.5f));
    if (options & COUPLED && l->gates != 1)
        a = W(a, front_int(l->gates == 4 ? "input_forget" : "linear_before_reset", 1));
    if (!(options & OTHERS)) return a;
    const char *names[6];
    wire alpha = front_text(1, "activation_alpha");
    for (int i = 0; i < functions * l->directions; i++) {
        names[i] = others[i % functions];
        if (i % functions == 0) alpha = W(alpha, front_fixed(7, 0.5f));
        if (i % functions == 1) alpha = W(alpha, front_fixed(7, 0.125f));
    }
    return W(a, strings("activations", functions * l->directions, names), front_put(5, alpha),
             floats("activation_beta", l->directions, 0.25f));
}

static wire model_of(const layer *l) {
    const int g = l->gates, options = l->options;
    const char *op = g == 4 ? "LSTM" : g == 3 ? "GRU" : "RNN";
    const char *states = options & BATCH_FIRST
                             ? nb_format(front_arena(), "B,%d,%d", l->directions, H)
                             : nb_format(front_arena(), "%d,B,%d", l->directions, H);
    wire parts =
        W(front_input("x", 1, options & BATCH_FIRST ? "B,T,4" : "T,B,4"), front_input("n", 6, "B"),
          front_input("h", 1, states), front_input("c", 1, states), weight("w", l, g * H, I, l->w),
          weight("r", l, g * H, H, l->r), weight("b", l, 2 * g * H, 0, l->bias),
          weight("p", l, 3 * H, 0, l->p));
    const char *inputs = nb_format(front_arena(), "x,w,r,%s,%s,%s%s%s", options & BIAS ? "b" : "",
                                   options & LENGTHS ? "n" : "", options & FIRST ? "h" : "",
                                   g != 4            ? ""
                                   : options & FIRST ? ",c"
                                                     : ",",
                                   g == 4 && options & PEEPHOLES ? ",p" : "");
    wire outputs = W(front_put(12, front_text(1, "y")), front_put(12, front_text(1, "yh")));
    if (g == 4) outputs = W(outputs, front_put(12, front_text(1, "yc")));
    return front_model(
        22, W(parts, front_node(op, inputs, g == 4 ? "y,yh,yc" : "y,yh", attributes(l)), outputs));
}

static nb_tensor tensor(nb_elem elem, int rank, int a, int b, int c, void *data) {
    nb_tensor t = {.elem = elem, .rank = rank, .dims = {a, b, c}, .data = data};
    t.bytes = nb_tensor_count(&t) * 4;
    return t;
}

static void compare(const layer *l, const char *what, const nb_tensor *t, const double *want) {
    for (int64_t i = 0; i < nb_tensor_count(t); i++)
        ck_assert_msg(fabs(nb_tensor_get(t, i) - want[i]) < 1e-5,
                      "gates %d, directions %d%s, options %d: %s[%d] is %g, expected %g", l->gates,
                      l->directions, l->reverse ? " reverse" : "", l->options, what, (int)i,
                      nb_tensor_get(t, i), want[i]);
}

static void check(int gates, int directions, bool reverse, int options) {
    static layer l;
    memset(&l, 0, sizeof l);
    l.gates = gates;
    l.directions = directions;
    l.options = options;
    l.reverse = reverse;
    float *const parts[] = {l.x, l.w, l.r, l.bias, l.h, l.c, l.p};
    const size_t sizes[] = {NB_COUNT(l.x), NB_COUNT(l.w), NB_COUNT(l.r), NB_COUNT(l.bias),
                            NB_COUNT(l.h), NB_COUNT(l.c), NB_COUNT(l.p)};
    for (size_t i = 0; i < NB_COUNT(parts); i++) fill(parts[i], sizes[i]);
    memcpy(l.lengths, (int32_t[]){3, 0, T}, sizeof l.lengths);
    for (int d = 0; d < directions; d++)
        for (int b = 0; b < B; b++) expect_row(&l, d, b);

    nb_diags *diags = nb_diags_create(front_arena(), "rnn");
    nb_status status;
    nb_graph *g = front_import(model_of(&l), diags, &status);
    ck_assert_msg(g != NULL, "%s", nb_diag_render(front_arena(), diags->list.items[0]));
    const bool batch = options & BATCH_FIRST;
    nb_tensor in[] = {tensor(NB_F32, 3, batch ? B : T, batch ? T : B, I, l.x),
                      tensor(NB_I32, 1, B, 0, 0, l.lengths),
                      tensor(NB_F32, 3, batch ? B : directions, batch ? directions : B, H, l.h),
                      tensor(NB_F32, 3, batch ? B : directions, batch ? directions : B, H, l.c)};
    nb_tensor out[3];
    status = nb_eval(g, in, out, NULL, 0, front_arena(), diags);
    ck_assert_msg(status == NB_OK, "%s",
                  status ? nb_diag_render(front_arena(), diags->list.items[0]) : "");
    compare(&l, "Y", &out[0], l.y);
    compare(&l, "Y_h", &out[1], l.last_h);
    if (gates == 4) compare(&l, "Y_c", &out[2], l.last_c);
    nb_graph_destroy(g);
}

START_TEST(equations) {
    const int gates[] = {4, 3, 1};
    for (int options = 0; options < OPTIONS; options++) {
        const int g = gates[_i];
        if (g != 4 && options & PEEPHOLES) continue;
        if (g == 1 && options & COUPLED) continue;
        check(g, 1, options % 2, options);
        if (options % 3 == 0) check(g, 2, false, options);
    }
}
END_TEST

/* ---- types and refusals -------------------------------------------------------------------- */

static wire lstm(const char *x, const char *w, const char *r, wire attributes_) {
    return front_model(14, W(front_input("x", 1, x), front_input("w", 1, w), front_input("r", 1, r),
                             front_node("LSTM", "x,w,r", "y,h,c", attributes_),
                             front_put(12, front_text(1, "y"))));
}

START_TEST(types) {
    front_expect_type(lstm("T,B,8", "1,16,8", "1,16,4", NONE), "f32[T,1,B,4]");
    front_expect_type(lstm("B,T,8", "1,16,8", "1,16,4", front_int("layout", 1)), "f32[B,T,1,4]");
    front_expect_type(lstm("T,B,?", "2,?,8", "2,16,?", front_string("direction", "bidirectional")),
                      "f32[T,2,B,4]");
    front_expect(lstm("T,B", "1,16,8", "1,16,4", NONE), NB_MALFORMED, "expected rank 3");
    front_expect(lstm("T,B,8", "1,16,8", "1,12,4", NONE), NB_MALFORMED, "must be equal");
    front_expect(lstm("T,B,8", "2,16,8", "1,16,4", NONE), NB_MALFORMED, "must be equal");
    front_expect(lstm("T,B,7", "1,16,8", "1,16,4", NONE), NB_MALFORMED, "must be equal");
    front_expect(lstm("T,B,8", "1,16,8", "1,16,4", front_int("hidden_size", 5)), NB_MALFORMED,
                 "must be equal");
    front_expect(lstm("T,B,8", "1,16,8", "1,16,4", front_string("direction", "up")), NB_MALFORMED,
                 "direction is \"up\"");
    const char *two[] = {"Tanh", "Tanh"}, *three[] = {"Tanh", "Tanh", "Tan"};
    front_expect(lstm("T,B,8", "1,16,8", "1,16,4", strings("activations", 2, two)), NB_MALFORMED,
                 "2 activations, expected 3");
    front_expect(lstm("T,B,8", "1,16,8", "1,16,4", strings("activations", 3, three)),
                 NB_UNSUPPORTED, "activation \"Tan\" is not known");
}
END_TEST

Suite *nb_suite_front_rnn(void);
Suite *nb_suite_front_rnn(void) {
    Suite *s = suite_create("front_rnn");
    TCase *c = tcase_create("rnn");
    tcase_add_checked_fixture(c, front_begin, front_end);
    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, equations, 0, 3);
    tcase_add_test(c, types);
    suite_add_tcase(s, c);
    return s;
}
