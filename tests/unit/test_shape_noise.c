/* shape-noise: in the basis found, vectors are white, and the harm of errors that are passed on is
 * a multiple of the sum of their squares: the geometric mean of the eigenvalues of both matrices'
 * product, which the test has from their determinants. */
#include "passes/shape_noise.h"
#include "tests/unit/unit.h"

#include <math.h>

#define N 7

static uint64_t state;

static double next(void) {
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (double)(state >> 40) / (double)(1 << 23) - 1;
}

/* x x' for an x whose columns differ in size; `damped` is the same with 1 % of its mean diagonal.
 */
static void make(double *m, double *damped, double ratio) {
    double x[N][N], trace = 0;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) x[i][j] = next() * pow(ratio, j);
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++) {
            m[i * N + j] = 0;
            for (int k = 0; k < N; k++) m[i * N + j] += x[i][k] * x[j][k];
        }
        trace += m[i * N + i];
    }
    for (int i = 0; i < N * N; i++) damped[i] = m[i] + (i % (N + 1) == 0 ? 0.01 * trace / N : 0);
}

static double log_determinant(const double *m) {
    double a[N * N], sum = 0;
    for (int i = 0; i < N * N; i++) a[i] = m[i];
    for (int k = 0; k < N; k++) {
        sum += log(a[k * (N + 1)]);
        for (int i = k + 1; i < N; i++)
            for (int j = N - 1; j >= k; j--)
                a[i * N + j] -= a[i * N + k] / a[k * (N + 1)] * a[k * N + j];
    }
    return sum;
}

/* out = a' m b for a and b [N,N]; m NULL is the identity. */
static void product(const double *a, const double *m, const double *b, double *out) {
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++) {
            double sum = 0;
            for (int k = 0; k < N; k++)
                for (int l = 0; l < N; l++)
                    sum += a[k * N + i] * (m ? m[k * N + l] : k == l) * b[l * N + j];
            out[i * N + j] = sum;
        }
    }
}

static void expect_multiple(const double *m, double of, const char *what) {
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            ck_assert_msg(fabs(m[i * N + j] - (i == j ? of : 0)) < 1e-4 * of, "%s [%d,%d]: %g",
                          what, i, j, m[i * N + j]);
}

START_TEST(errors_weigh_the_same) {
    for (int round = 0; round < 20; round++) {
        double spread[N * N], harm[N * N], damped_spread[N * N], damped_harm[N * N];
        float to32[N * N], back32[N * N], feedback[N * N];
        double room[N * (3 * N + 1)];
        make(spread, damped_spread, round % 4 == 0 ? 1 : 0.5);
        make(harm, damped_harm, round % 3 == 0 ? 1 : 0.6);
        ck_assert(nb_shape_noise(N, spread, harm, room, to32, back32, feedback));
        double to[N * N], back[N * N], left[N * N], passed[N * N], out[N * N];
        for (int i = 0; i < N * N; i++) {
            to[i] = (double)to32[i];
            back[i] = (double)back32[i];
            /* What is left of error i in element j: taken over, or what it was itself. */
            left[i % N * N + i / N] = (double)feedback[i] - (i % (N + 1) == 0);
            if (i / N >= i % N) ck_assert_float_eq(feedback[i], 0);
        }
        product(to, damped_spread, to, out);
        expect_multiple(out, 1, "whitened");
        product(to, NULL, back, out);
        expect_multiple(out, 1, "inverse");
        /* An error of k `to` by rows is one of k by `back` transposed. */
        for (int i = 0; i < N; i++) {
            for (int j = 0; j < N; j++) {
                double sum = 0;
                for (int k = 0; k < N; k++) sum += back[i * N + k] * left[k * N + j];
                passed[i * N + j] = sum;
            }
        }
        product(passed, damped_harm, passed, out);
        expect_multiple(
            out, exp((log_determinant(damped_spread) + log_determinant(damped_harm)) / N), "harm");
    }
}
END_TEST

START_TEST(nothing_to_go_by) {
    double zero[4] = {0, 0, 0, 0}, none[4] = {0, 0, 0, 0}, wild[4] = {1, 0, 0, NAN};
    float to[4], back[4], feedback[4];
    double room[2 * 7];
    ck_assert(nb_shape_noise(2, zero, none, room, to, back, feedback));
    for (int i = 0; i < 4; i++) ck_assert_float_eq(feedback[i], 0);
    ck_assert_float_eq(fabsf(to[0]) + fabsf(to[1]), 1);
    ck_assert(!nb_shape_noise(2, zero, wild, room, to, back, feedback));
    double one = 4, harm = 9;
    ck_assert(nb_shape_noise(1, &one, &harm, room, to, back, feedback));
    ck_assert_float_eq_tol(to[0] * back[0], 1, 1e-6F);
}
END_TEST

Suite *nb_suite_shape_noise(void) {
    Suite *s = suite_create("shape_noise");
    TCase *c = tcase_create("basis");
    tcase_add_test(c, errors_weigh_the_same);
    tcase_add_test(c, nothing_to_go_by);
    suite_add_tcase(s, c);
    return s;
}
