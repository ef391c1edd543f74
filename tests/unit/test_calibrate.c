/* Calibration: statistics do not depend on order or cuts, and each method's bound is what
 * arithmetic done another way says it is. */
#include "ir/text.h"
#include "passes/observe.h"
#include "tests/unit/unit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* SplitMix64, as u in [0, 1). */
static double uniform(uint64_t *state) {
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

/* Bell-shaped: the sum of twelve uniform numbers. */
static float bell(uint64_t *state) {
    double sum = -6;
    for (int i = 0; i < 12; i++) sum += uniform(state);
    return (float)sum;
}

static nb_histogram *histogram_of(nb_arena *arena, const float *x, size_t n) {
    nb_histogram *h = NB_NEW(arena, nb_histogram);
    for (size_t i = 0; i < n; i++) nb_histogram_add(h, fabsf(x[i]));
    return h;
}

static float *bells(nb_arena *arena, size_t n, uint64_t seed) {
    float *x = NB_NEW_ARRAY(arena, float, n);
    for (size_t i = 0; i < n; i++) x[i] = bell(&seed);
    return x;
}

/* ---- the histogram -------------------------------------------------------------------------- */

/* Each bin holds the values between its edges, whatever came first; from the smallest float to the
 * largest. */
START_TEST(bins) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    static const float limits[] = {3.0e38f, 1.0f, 0.7f, 1e-40f};
    for (size_t k = 0; k < NB_COUNT(limits); k++) {
        enum { N = 3000 };
        float x[N], back[N];
        uint64_t seed = 7;
        for (int i = 0; i < N; i++) {
            x[i] = (float)((double)limits[k] * pow(uniform(&seed), 5));
            back[N - 1 - i] = x[i];
        }
        x[5] = back[N - 6] = 0;
        const nb_histogram *h = histogram_of(arena, x, N);
        ck_assert_int_eq(memcmp(h, histogram_of(arena, back, N), sizeof *h), 0);
        int64_t expected[NB_HISTOGRAM_BINS] = {0};
        double largest = 0, limit = 0x1p-160;
        for (int i = 0; i < N; i++) largest = fmax(largest, (double)x[i]);
        while (limit <= largest) limit *= 2;
        for (int i = 0; i < N; i++) expected[(int)((double)x[i] / limit * NB_HISTOGRAM_BINS)]++;
        ck_assert_int_eq(memcmp(h->bins, expected, sizeof expected), 0);
        ck_assert_int_eq(h->count, N);
        ck_assert_int_ge(h->zeros, 1);
    }
    nb_arena_destroy(arena);
}
END_TEST

START_TEST(nothing_but_zeros) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    float zeros[4] = {0, -0.0f, 0, 0};
    for (size_t n = 0; n <= 4; n += 4) {
        const nb_histogram *h = histogram_of(arena, zeros, n);
        ck_assert(nb_histogram_percentile(h, 99) == 0);
        ck_assert(nb_histogram_mse(h, 127) == 0);
        ck_assert(nb_histogram_entropy(h, 127) == 0);
    }
    nb_arena_destroy(arena);
}
END_TEST

/* 1000 values 1/1000, 2/1000 .. 1: bins are 1/2048 wide, since 1 itself needs a limit of 2. */
START_TEST(percentile) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    float x[1000];
    for (int i = 0; i < 1000; i++) x[i] = (float)(i + 1) / (i % 2 ? -1000.0f : 1000.0f);
    const nb_histogram *h = histogram_of(arena, x, 1000);
    ck_assert(nb_histogram_percentile(h, 90) == ceil(0.9 * 2048) / 2048);
    ck_assert(nb_histogram_percentile(h, 99.95) == 2049.0 / 2048);
    ck_assert(nb_histogram_percentile(h, 100) == 2049.0 / 2048);
    nb_arena_destroy(arena);
}
END_TEST

/* ---- mse ------------------------------------------------------------------------------------ */

static double squared_error(const float *x, size_t n, double bound, int64_t levels) {
    double step = bound / (double)levels, sum = 0;
    for (size_t i = 0; i < n; i++) {
        double v = fabs((double)x[i]), e = v - step * fmin(rint(v / step), (double)levels);
        sum += e * e;
    }
    return sum / (double)n;
}

/* The expected error is that of the values themselves, rounded one by one. */
START_TEST(error_of_a_bound) {
    enum { N = 200000 };
    nb_arena *arena = nb_arena_create(NULL, NULL);
    const float *x = bells(arena, N, 11);
    const nb_histogram *h = histogram_of(arena, x, N);
    static const double bounds[] = {0.3, 1, 2.5, 4, 6};
    for (size_t i = 0; i < NB_COUNT(bounds); i++) {
        for (int bits = 2; bits <= 8; bits++) {
            int64_t levels = (1 << (bits - 1)) - 1;
            double expected = squared_error(x, N, bounds[i], levels),
                   found = nb_histogram_error(h, bounds[i], levels);
            ck_assert_msg(fabs(found - expected) < 0.01 * expected, "%g in %d bits: %g, not %g",
                          bounds[i], bits, found, expected);
        }
    }
    nb_arena_destroy(arena);
}
END_TEST

/* Codes -1, 0, 1 of values spread evenly over 0 to 1: with the bound b the error is the integral of
 * x^2 up to b/2 and of (x - b)^2 from there to 1, b^3/12 + (1 - b)^3/3. It is smallest where
 * b^2/4 = (1 - b)^2, at b = 2/3. Zeros add nothing to it. */
START_TEST(mse_by_hand) {
    enum { N = 100000 };
    nb_arena *arena = nb_arena_create(NULL, NULL);
    float *x = NB_NEW_ARRAY(arena, float, 2 * N);
    for (int i = 0; i < N; i++) x[i] = ((float)i + 0.5f) / (float)N;
    const nb_histogram *h = histogram_of(arena, x, N);
    ck_assert(fabs(nb_histogram_mse(h, 1) - 2.0 / 3) < 8.0 / 4096);
    ck_assert(fabs(nb_histogram_error(h, 2.0 / 3, 1) - (8.0 / 27 / 12 + 1.0 / 27 / 3)) < 1e-5);
    h = histogram_of(arena, x, 2 * N); /* as many zeros again */
    ck_assert(fabs(nb_histogram_mse(h, 1) - 2.0 / 3) < 8.0 / 4096);
    ck_assert(fabs(nb_histogram_error(h, 2.0 / 3, 1) - (8.0 / 27 / 12 + 1.0 / 27 / 3) / 2) < 1e-5);
    nb_arena_destroy(arena);
}
END_TEST

/* No other bound rounds the values better; an outlier is given up for the others in 4 bits, and not
 * in 8. */
START_TEST(mse_is_least) {
    enum { N = 100000 };
    nb_arena *arena = nb_arena_create(NULL, NULL);
    float *x = bells(arena, N, 13);
    x[N / 2] = -20;
    const nb_histogram *h = histogram_of(arena, x, N);
    for (int bits = 3; bits <= 8; bits++) {
        int64_t levels = (1 << (bits - 1)) - 1;
        double bound = nb_histogram_mse(h, levels), error = squared_error(x, N, bound, levels);
        for (double other = 0.5; other < 20; other += 0.125)
            ck_assert_msg(error <= 1.005 * squared_error(x, N, other, levels),
                          "%d bits: %g is worse than %g", bits, bound, other);
        if (bits == 3) ck_assert(bound < 3);
        if (bits == 8) ck_assert(bound > 4);
    }
    nb_arena_destroy(arena);
}
END_TEST

/* ---- entropy -------------------------------------------------------------------------------- */

/* The divergence of a threshold of n bins, with both distributions written out. */
static double plain_divergence(const nb_histogram *h, int n, int codes) {
    double p[NB_HISTOGRAM_BINS], q[NB_HISTOGRAM_BINS] = {0}, all_p = 0, all_q = 0, sum = 0;
    for (int i = 0; i < n; i++) p[i] = (double)h->bins[i];
    for (int i = n; i < NB_HISTOGRAM_BINS; i++) p[n - 1] += (double)h->bins[i];
    for (int c = 0; c < codes; c++) {
        double values = 0, filled = 0;
        for (int i = c * n / codes; i < (c + 1) * n / codes; i++) {
            values += (double)h->bins[i];
            filled += h->bins[i] > 0;
        }
        for (int i = c * n / codes; i < (c + 1) * n / codes; i++)
            if (h->bins[i] > 0) q[i] = values / filled;
    }
    for (int i = 0; i < n; i++) {
        all_p += p[i];
        all_q += q[i];
    }
    for (int i = 0; i < n; i++)
        if (p[i] > 0) sum += p[i] / all_p * log(p[i] / all_p / (q[i] / all_q));
    return sum;
}

/* Of all thresholds the one of the least divergence; two may be as good but for rounding. */
static double check_entropy(const nb_histogram *h, int codes) {
    double found = nb_histogram_entropy(h, codes - 1), least = INFINITY;
    int best = 0;
    for (int n = codes; n <= NB_HISTOGRAM_BINS; n++) {
        double d = plain_divergence(h, n, codes);
        if (!(d < least)) continue;
        least = d;
        best = n;
    }
    ck_assert_msg(plain_divergence(h, (int)(found * h->scale), codes) <= least + 1e-12,
                  "%d codes: bin %g, not %d", codes, found * h->scale, best);
    return found;
}

START_TEST(entropy) {
    enum { N = 100000 };
    nb_arena *arena = nb_arena_create(NULL, NULL);
    float *x = bells(arena, N, 17);
    x[3] = 20; /* alone far out: not worth most of the codes */
    const nb_histogram *h = histogram_of(arena, x, N);
    ck_assert(check_entropy(h, 8) < 7);
    ck_assert(check_entropy(h, 128) < 7);
    uint64_t seed = 29; /* a long tail: what lies beyond a threshold weighs */
    for (int i = 0; i < N; i++) x[i] = (float)-log(1 - uniform(&seed));
    h = histogram_of(arena, x, N);
    ck_assert(check_entropy(h, 8) < 10);
    ck_assert(check_entropy(h, 128) < 12);
    nb_arena_destroy(arena);
}
END_TEST

/* ---- statistics ----------------------------------------------------------------------------- */

static nb_tensor tensor(float *x, int rank, int64_t a, int64_t b, int64_t c) {
    return (nb_tensor){.elem = NB_F32,
                       .rank = rank,
                       .dims = {a, b, c},
                       .data = x,
                       .bytes = a * b * (rank > 2 ? c : 1) * 4};
}

START_TEST(by_hand) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    float rows[] = {1, -2, 5, -4, 3, 0}; /* three rows of two channels */
    nb_observer *o = nb_observer_create(arena, 1, 2);
    nb_tensor t = tensor(rows, 2, 3, 2, 1);
    nb_observe(o, &t);
    nb_stats *s = nb_observer_stats(o, arena);
    ck_assert_int_eq(s->rows, 3);
    ck_assert(s->low[0] == 1 && s->high[0] == 5 && s->low[1] == -4 && s->high[1] == 0);
    ck_assert(s->amax[0] == 5 && s->amax[1] == 4);
    ck_assert(s->mean[0] == 3 && s->mean[1] == -2 && s->mean_abs[0] == 3 && s->mean_abs[1] == 2);
    ck_assert(s->min == -4 && s->max == 5 && s->clip == 5);
    float factor[] = {2, 0.5f};
    nb_stats_divide(s, factor);
    ck_assert(s->low[0] == 0.5f && s->high[0] == 2.5f && s->low[1] == -8 && s->high[1] == 0);
    ck_assert(s->amax[1] == 8 && s->mean[1] == -4 && s->mean_abs[1] == 4);
    ck_assert(s->min == -8 && s->max == 2.5f && s->clip == 8 && !s->histogram);
    /* The same numbers as x[1,2,3]: channels are the second axis. */
    o = nb_observer_create(arena, 1, 2);
    t = tensor(rows, 3, 1, 2, 3);
    nb_observe(o, &t);
    s = nb_observer_stats(o, arena);
    ck_assert_int_eq(s->rows, 3);
    ck_assert(s->low[0] == -2 && s->high[0] == 5 && s->low[1] == -4 && s->high[1] == 3);
    ck_assert(fabsf(s->mean[0] - 4.0f / 3) < 1e-6f && fabsf(s->mean[1] + 1.0f / 3) < 1e-6f);
    /* Nothing seen: all 0. */
    o = nb_observer_create(arena, 1, 2);
    t = tensor(rows, 2, 0, 2, 1);
    nb_observe(o, &t);
    s = nb_observer_stats(o, arena);
    ck_assert(s->rows == 0 && s->low[0] == 0 && s->high[1] == 0 && s->clip == 0);
    nb_arena_destroy(arena);
}
END_TEST

/* Rows in one piece, one by one, and in uneven pieces: the same bits. */
START_TEST(cuts) {
    enum { ROWS = 1000, CHANNELS = 7 };
    nb_arena *arena = nb_arena_create(NULL, NULL);
    float *x = bells(arena, ROWS * CHANNELS, 19);
    nb_observer *whole = nb_observer_create(arena, 1, CHANNELS);
    nb_tensor all = tensor(x, 2, ROWS, CHANNELS, 1);
    nb_observe(whole, &all);
    for (int64_t piece = 1; piece < 400; piece = 3 * piece + 1) {
        nb_observer *o = nb_observer_create(arena, 1, CHANNELS);
        for (int64_t r = 0; r < ROWS; r += piece) {
            nb_tensor t = tensor(x + r * CHANNELS, 2, nb_min_i64(piece, ROWS - r), CHANNELS, 1);
            nb_observe(o, &t);
        }
        ck_assert_int_eq(o->seen->rows, ROWS);
        ck_assert_int_eq(memcmp(&o->seen->histogram, &whole->seen->histogram, sizeof(nb_histogram)),
                         0);
        for (int i = 1; i < 3; i++)
            ck_assert_int_eq(memcmp(o->state[i].data, whole->state[i].data, o->state[i].size), 0);
    }
    nb_arena_destroy(arena);
}
END_TEST

/* ---- the pass ------------------------------------------------------------------------------- */

static const char linear[] = "nir 1\n"
                             "graph @g(%x: f32[B,2]) -> f32[B,2] {\n"
                             "  const @w: f32[2,2] = {1, 2, 3, 4}\n"
                             "  %y: f32[B,2] = matmul %x, @w at \"/fc\"\n"
                             "  return %y\n"
                             "}\n";

/* The statistics of the graph's input after `passes` on samples of two rows each. */
static const nb_stats *calibrated(nb_arena *arena, const char *text, const char *passes,
                                  const nb_tensor *tensors, size_t n) {
    nb_diags *diags = nb_diags_create(arena, NULL);
    nb_graph *g;
    nb_pipeline pipeline;
    nb_sample *samples = NB_NEW_ARRAY(arena, nb_sample, n);
    for (size_t i = 0; i < n; i++) samples[i].inputs = &tensors[i];
    nb_pass_env env = {.registry = nb_registry_create(arena),
                       .diags = diags,
                       .arena = arena,
                       .samples = samples,
                       .n_samples = n};
    ck_assert_int_eq(nb_parse(text, strlen(text), "g", NULL, NULL, NULL, diags, &g), NB_OK);
    ck_assert_int_eq(nb_pipeline_parse(env.registry, passes, arena, diags, &pipeline), NB_OK);
    ck_assert_int_eq(nb_pipeline_run(&pipeline, g, &env), NB_OK);
    const nb_stats *s = nb_map_get(&env.stats, g->body.params[0]);
    ck_assert_ptr_nonnull(s);
    nb_graph_destroy(g);
    return s;
}

/* Largest |x| of the samples: 4, then 2, then 8. */
START_TEST(bounds) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    static float x[3][4] = {{1, -4, 2, 0}, {2, 1, 1, -1}, {3, 0, 8, 1}};
    nb_tensor t[3];
    for (int i = 0; i < 3; i++) t[i] = tensor(x[i], 2, 2, 2, 1);
    ck_assert(calibrated(arena, linear, "calibrate", t, 3)->clip == 8);
    ck_assert(calibrated(arena, linear, "calibrate{method=minmax}", t, 3)->clip == 8);
    /* 4 + 0.01 * (2 - 4) = 3.98; + 0.01 * (8 - 3.98) = 4.0202 */
    float average = calibrated(arena, linear, "calibrate{method=average}", t, 3)->clip;
    ck_assert(fabsf(average - 4.0202f) < 1e-6f);
    /* 10 of 12 values are within 3; the limit is 16, a bin 1/256. */
    float share =
        calibrated(arena, linear, "calibrate{method=percentile, percentile=83}", t, 3)->clip;
    ck_assert(share == 3 + 1.0f / 256);
    /* The largest value is never exceeded. */
    ck_assert(calibrated(arena, linear, "calibrate{method=percentile}", t, 3)->clip == 8);
    const nb_stats *s = calibrated(arena, linear, "calibrate", t, 3);
    ck_assert(s->rows == 6 && s->low[0] == 1 && s->high[0] == 8 && s->low[1] == -4);
    ck_assert(fabsf(s->mean[0] - 17.0f / 6) < 1e-6f && s->histogram->count == 12);
    nb_arena_destroy(arena);
}
END_TEST

/* Options reach the histogram's functions. */
START_TEST(options) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_tensor t = tensor(bells(arena, 4096, 23), 2, 2048, 2, 1);
    const nb_stats *s = calibrated(arena, linear, "calibrate", &t, 1);
    static const char *const methods[] = {"mse", "entropy"};
    for (int bits = 2; bits <= 8; bits += 3) {
        int64_t levels = (1 << (bits - 1)) - 1;
        double expected[] = {nb_histogram_mse(s->histogram, levels),
                             nb_histogram_entropy(s->histogram, levels)};
        for (size_t k = 0; k < NB_COUNT(methods); k++) {
            const char *passes =
                nb_format(arena, "calibrate{method=%s, bits=%d}", methods[k], bits);
            float clip = calibrated(arena, linear, passes, &t, 1)->clip;
            ck_assert(clip == fminf(s->clip, (float)expected[k]));
        }
    }
    nb_arena_destroy(arena);
}
END_TEST

/* Inputs 0, 0.01 .. 2.55 need 256 codes: symmetric ones have room for half of them only, those with
 * a zero point hold all, and the layer's result is that of the floats. */
START_TEST(asymmetric) {
    static const char *const modes[] = {"static, asymmetric", "static"};
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags = nb_diags_create(arena, NULL);
    float x[256], worst[2] = {0, 0};
    for (int i = 0; i < 256; i++) x[i] = (float)i * 0.01f;
    nb_tensor t = tensor(x, 2, 128, 2, 1), y;
    nb_sample sample = {&t};
    for (int k = 0; k < 2; k++) {
        nb_pass_env env = {.registry = nb_registry_create(arena),
                           .diags = diags,
                           .arena = arena,
                           .samples = &sample,
                           .n_samples = 1};
        const char *passes = nb_format(arena,
                                       "quantize-weights{bits=8, group=0}, calibrate, "
                                       "insert-qdq{mode=%s}, fuse-dequant",
                                       modes[k]);
        nb_graph *g;
        nb_pipeline pipeline;
        ck_assert_int_eq(nb_parse(linear, strlen(linear), "g", NULL, NULL, NULL, diags, &g), NB_OK);
        ck_assert_int_eq(nb_pipeline_parse(env.registry, passes, arena, diags, &pipeline), NB_OK);
        ck_assert_int_eq(nb_pipeline_run(&pipeline, g, &env), NB_OK);
        ck_assert_int_eq(nb_eval(g, &t, &y, NULL, 0, arena, diags), NB_OK);
        /* The weights as their codes have them: 1, 2, 3, 4 in steps of 3/127 and 4/127. */
        const float w[4] = {42 * 3 / 127.0f, 64 * 4 / 127.0f, 3, 4};
        for (int i = 0; i < 256; i++) {
            const float *row = x + i / 2 * 2;
            float e = fabsf(((float *)y.data)[i] - (row[0] * w[i % 2] + row[1] * w[2 + i % 2]));
            worst[k] = fmaxf(worst[k], e);
        }
        nb_graph_destroy(g);
    }
    ck_assert_msg(worst[0] < 1e-4f, "with a zero point an error of %g", (double)worst[0]);
    ck_assert_msg(worst[1] > 1e-2f, "without one an error of only %g", (double)worst[1]);
    nb_arena_destroy(arena);
}
END_TEST

/* mode=running, every 4 tokens, decay 1/2, two tokens a run, the largest of each as given: the
 * bound in use, what the state is then, and what becomes of the largest in a layer that doubles it.
 */
START_TEST(running) {
    static const struct {
        float largest, used, bound, since, tokens;
    } runs[] = {
        {8, 8, 8, 8, 2},   /* the first run's own bound */
        {2, 8, 8, 0, 0},   /* four tokens: max(8/2, 8) */
        {2, 8, 8, 2, 2},   /* not yet */
        {3, 8, 4, 0, 0},   /* max(8/2, 3) */
        {16, 4, 4, 16, 2}, /* clipped: the change comes later */
        {1, 4, 16, 0, 0},  /* max(4/2, 16) */
        {16, 16, 16, 16, 2},
    };
    static const char text[] = "nir 1\n"
                               "graph @g(%x: f32[B,S,1]) -> f32[B,S,1] {\n"
                               "  const @w: f32[1,1] = {2}\n"
                               "  %y: f32[B,S,1] = matmul %x, @w\n"
                               "  return %y\n"
                               "}\n";
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags = nb_diags_create(arena, NULL);
    nb_pass_env env = {.registry = nb_registry_create(arena), .diags = diags, .arena = arena};
    nb_graph *g;
    nb_pipeline pipeline;
    const char *passes = "quantize-weights{bits=8, group=0}, "
                         "insert-qdq{mode=running, every=4, decay=0.5}, fuse-dequant, plan-memory";
    ck_assert_int_eq(nb_parse(text, strlen(text), "g", NULL, NULL, NULL, diags, &g), NB_OK);
    ck_assert_int_eq(nb_pipeline_parse(env.registry, passes, arena, diags, &pipeline), NB_OK);
    ck_assert_int_eq(nb_pipeline_run(&pipeline, g, &env), NB_OK);
    ck_assert(g->states.count == 1 && g->states.items[0].axis == -1);
    float state[6] = {0}; /* the second sequence has ten times the values, and its own state */
    for (size_t i = 0; i < NB_COUNT(runs); i++) {
        float v = runs[i].largest, x[4] = {v / 2, -v, -10 * v, v};
        nb_tensor in[2] = {tensor(x, 3, 2, 2, 1), tensor(state, 3, 2, 1, 3)}, out[2];
        ck_assert_int_eq(nb_eval(g, in, out, NULL, 0, arena, diags), NB_OK);
        memcpy(state, out[1].data, sizeof state);
        const float *y = out[0].data;
        ck_assert_msg(
            state[0] == runs[i].bound && state[1] == runs[i].since && state[2] == runs[i].tokens,
            "run %zu: %g, %g, %g", i, (double)state[0], (double)state[1], (double)state[2]);
        float code = fminf(rintf(v / runs[i].used * 127), 127), u = runs[i].used;
        ck_assert_msg(fabsf(y[1] + 2 * code * u / 127) < 1e-5f, "run %zu: %g", i, (double)y[1]);
        ck_assert(state[3] == 10 * state[0] && state[4] == 10 * state[1] && state[5] == state[2]);
        ck_assert(fabsf(y[2] - 10 * y[1]) < 1e-4f);
    }
    nb_graph_destroy(g);
    nb_arena_destroy(arena);
}
END_TEST

/* The channels of a conv are its second axis. */
START_TEST(convs) {
    static const char conv[] = "nir 1\n"
                               "graph @g(%x: f32[B,2,3]) -> f32[B,1,2] {\n"
                               "  const @w: f32[1,2,2] = {1, 2, 3, 4}\n"
                               "  %y: f32[B,1,2] = conv %x, @w\n"
                               "  return %y\n"
                               "}\n";
    nb_arena *arena = nb_arena_create(NULL, NULL);
    float x[] = {1, 2, 3, -4, -5, -6};
    nb_tensor t = tensor(x, 3, 1, 2, 3);
    const nb_stats *s = calibrated(arena, conv, "calibrate", &t, 1);
    ck_assert(s->channels == 2 && s->rows == 3);
    ck_assert(s->mean[0] == 2 && s->mean[1] == -5 && s->amax[0] == 3 && s->amax[1] == 6);
    nb_arena_destroy(arena);
}
END_TEST

Suite *nb_suite_calibrate(void) {
    Suite *s = suite_create("calibrate");
    TCase *c = tcase_create("calibrate");
    tcase_set_timeout(c, 60);
    tcase_add_test(c, bins);
    tcase_add_test(c, nothing_but_zeros);
    tcase_add_test(c, percentile);
    tcase_add_test(c, error_of_a_bound);
    tcase_add_test(c, mse_by_hand);
    tcase_add_test(c, mse_is_least);
    tcase_add_test(c, entropy);
    tcase_add_test(c, by_hand);
    tcase_add_test(c, cuts);
    tcase_add_test(c, bounds);
    tcase_add_test(c, options);
    tcase_add_test(c, asymmetric);
    tcase_add_test(c, running);
    tcase_add_test(c, convs);
    suite_add_tcase(s, c);
    return s;
}
