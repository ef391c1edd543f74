/* The importer: numbers that ONNX's node tests do not tell: what random operators draw, sizes that
 * differ from run to run, indices of pooling. */
#include "tests/unit/test_front.h"

#include "ir/eval.h"

#include <math.h>
#include <string.h>

#define F32 1

/* Outputs of a model; all of it lives as long as the test. */
static void run(wire model, const nb_tensor *inputs, nb_tensor *outputs) {
    nb_status status;
    nb_diags *diags = nb_diags_create(front_arena(), "numbers");
    nb_graph *g = front_import(model, diags, &status);
    ck_assert_msg(g != NULL, "%s", g ? "" : nb_diag_render(front_arena(), diags->list.items[0]));
    status = nb_eval(g, inputs, outputs, NULL, 0, front_arena(), diags);
    ck_assert_msg(status == NB_OK, "%s",
                  status == NB_OK ? "" : nb_diag_render(front_arena(), diags->list.items[0]));
    nb_graph_destroy(g);
}

static wire result(const char *name) { return front_put(12, front_text(1, name)); }

static nb_tensor floats(int rank, const int64_t *dims, float *data) {
    nb_tensor t = {.elem = NB_F32, .rank = rank, .data = data};
    memcpy(t.dims, dims, (size_t)rank * sizeof *dims);
    t.bytes = 4 * nb_tensor_count(&t);
    return t;
}

/* ---- what is drawn -------------------------------------------------------------------------- */

#define DRAWN 4000

static nb_tensor draw(const char *op, wire attributes) {
    nb_tensor y;
    wire shape = front_ints("shape", 2, (const int64_t[]){DRAWN / 4, 4});
    run(front_model(22, W(front_node(op, "", "y", W(shape, attributes)), result("y"))), NULL, &y);
    return y;
}

static double moment(const nb_tensor *t, int power) {
    double sum = 0;
    for (int64_t i = 0; i < nb_tensor_count(t); i++) sum += pow(nb_tensor_get(t, i), power);
    return sum / (double)nb_tensor_count(t);
}

static uint64_t splitmix(uint64_t seed, uint64_t i) {
    uint64_t z = seed + i * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

START_TEST(uniform) {
    const float seed = 7;
    uint32_t bits;
    memcpy(&bits, &seed, sizeof bits);
    nb_tensor a = draw("RandomUniform", front_float("seed", seed)),
              b = draw("RandomUniform", front_float("seed", seed)),
              c = draw("RandomUniform", front_float("seed", 8)),
              wide = draw("RandomUniform", W(front_float("low", -3), front_float("high", 5)));
    ck_assert_int_eq(nb_tensor_count(&a), DRAWN);
    ck_assert(memcmp(a.data, b.data, (size_t)a.bytes) == 0);
    ck_assert(memcmp(a.data, c.data, (size_t)a.bytes) != 0);
    for (uint64_t i = 0; i < DRAWN; i++) {
        const float u = (float)(splitmix(nb_hash_mix(1, bits), i) >> 40) * 0x1p-24F;
        ck_assert_float_eq(((float *)a.data)[i], u);
        const float w = ((float *)wide.data)[i];
        ck_assert(w >= -3 && w <= 5);
    }
    ck_assert(fabs(moment(&a, 1) - 0.5) < 0.02 && fabs(moment(&a, 2) - 1.0 / 3) < 0.02);
    ck_assert(fabs(moment(&wide, 1) - 1) < 0.2);
    nb_tensor exact = draw("RandomUniform", front_int("dtype", 11));
    ck_assert_int_eq(exact.elem, NB_F64);
    front_expect(front_model(22, W(front_node("RandomUniform", "", "y",
                                              W(front_ints("shape", 1, (const int64_t[]){-1}))),
                                   result("y"))),
                 NB_MALFORMED, "dimension 0 is -1");
}
END_TEST

START_TEST(normal) {
    nb_tensor a = draw("RandomNormal", NONE),
              b = draw("RandomNormal", W(front_float("mean", 3), front_float("scale", 2)));
    ck_assert(fabs(moment(&a, 1)) < 0.06 && fabs(moment(&a, 2) - 1) < 0.08);
    ck_assert(fabs(moment(&a, 3)) < 0.25 && fabs(moment(&a, 4) - 3) < 0.5);
    ck_assert(fabs(moment(&b, 1) - 3) < 0.12);
}
END_TEST

/* Two nodes without seeds are not alike. */
START_TEST(nodes_differ) {
    nb_tensor y[2];
    static float x[64];
    const int64_t dims[] = {64};
    nb_tensor in = floats(1, dims, x);
    run(front_model(22,
                    W(front_input("x", F32, "64"), front_node("RandomUniformLike", "x", "y", NONE),
                      front_node("RandomUniformLike", "x", "z", NONE), result("y"), result("z"))),
        &in, y);
    ck_assert(memcmp(y[0].data, y[1].data, (size_t)y[0].bytes) != 0);
}
END_TEST

START_TEST(multinomial) {
    nb_tensor y;
    static float x[] = {-1, -1e9F, 0, 1, 2, 0, -INFINITY, 0};
    const int64_t dims[] = {2, 4};
    nb_tensor in = floats(2, dims, x);
    run(front_model(22, W(front_input("x", F32, "2,4"),
                          front_node("Multinomial", "x", "y", front_int("sample_size", DRAWN)),
                          result("y"))),
        &in, &y);
    ck_assert(y.elem == NB_I32 && y.rank == 2 && y.dims[0] == 2 && y.dims[1] == DRAWN);
    for (int row = 0; row < 2; row++) {
        double all = 0;
        int counts[4] = {0};
        for (int i = 0; i < DRAWN; i++) counts[((int32_t *)y.data)[row * DRAWN + i]]++;
        for (int k = 0; k < 4; k++) all += exp((double)x[4 * row + k]);
        for (int k = 0; k < 4; k++) {
            const double p = exp((double)x[4 * row + k]) / all;
            ck_assert(fabs(counts[k] / (double)DRAWN - p) < 0.03);
            ck_assert(p > 0 || counts[k] == 0);
        }
    }
}
END_TEST

/* What is kept is divided by how probable that is; the mask says which; not training, all is. */
START_TEST(dropout) {
    nb_tensor y[2], in[3];
    static float x[DRAWN], ratio = 0.75F;
    static bool training;
    const int64_t dims[] = {DRAWN};
    for (int i = 0; i < DRAWN; i++) x[i] = (float)(i + 1);
    in[0] = floats(1, dims, x);
    in[1] = floats(0, dims, &ratio);
    in[2] = (nb_tensor){.elem = NB_BOOL, .data = &training, .bytes = 1};
    wire m = front_model(22, W(front_input("x", F32, "N"), front_input("r", F32, ""),
                               front_input("t", 9, ""),
                               front_node("Dropout", "x,r,t", "y,mask", front_int("seed", 5)),
                               result("y"), result("mask")));
    for (int is = 0; is < 2; is++) {
        int kept = 0;
        training = is;
        run(m, in, y);
        for (int i = 0; i < DRAWN; i++) {
            const bool keep = ((bool *)y[1].data)[i];
            ck_assert_float_eq(((float *)y[0].data)[i], !is ? x[i] : keep ? x[i] * 4 : 0);
            kept += keep;
        }
        ck_assert(is ? kept > 900 && kept < 1100 : kept == DRAWN);
    }
}
END_TEST

/* ---- sizes of a run ------------------------------------------------------------------------- */

static const struct {
    const char *mode;
    float scale;
    int antialias;
} resizes[] = {{"linear", 1.5F, 0}, {"cubic", 0.7F, 0},   {"nearest", 1.25F, 0},
               {"linear", 0.4F, 1}, {"cubic", 0.375F, 1}, {"linear", 3, 1}};

static wire resize(const char *dims, int i) {
    const float scales[] = {1, 1, resizes[i].scale, resizes[i].scale};
    return front_model(19, W(front_input("x", F32, dims),
                             front_weight("s", 1, "4", scales, sizeof scales),
                             front_node("Resize", "x,,s", "y",
                                        W(front_string("mode", resizes[i].mode),
                                          front_int("antialias", resizes[i].antialias))),
                             result("y")));
}

/* One graph for all sizes gives what a graph for each size does. */
START_TEST(resize_of_any_size) {
    static float x[3 * 40 * 30];
    static const int64_t sizes[][2] = {{5, 7}, {40, 30}, {9, 4}};
    for (int i = 0; i < (int)NB_COUNT(x); i++) x[i] = (float)((i * 37) % 101) - 50;
    for (size_t k = 0; k < NB_COUNT(sizes); k++) {
        const int64_t dims[] = {1, 3, sizes[k][0], sizes[k][1]};
        nb_tensor in = floats(4, dims, x), any, one;
        run(resize("B,3,H,W", _i), &in, &any);
        run(resize(
                nb_format(front_arena(), "1,3,%lld,%lld", (long long)dims[2], (long long)dims[3]),
                _i),
            &in, &one);
        ck_assert_int_eq(any.dims[2], (int64_t)(resizes[_i].scale * (float)dims[2]));
        ck_assert_int_eq(any.dims[3], one.dims[3]);
        for (int64_t j = 0; j < nb_tensor_count(&one); j++)
            ck_assert(fabs(nb_tensor_get(&any, j) - nb_tensor_get(&one, j)) < 1e-4);
    }
}
END_TEST

/* A mean of all that an entry covers: a ramp stays one, whatever the reach. */
START_TEST(antialiased_ramp) {
    static float x[64], scale[] = {0.25F};
    const int64_t dims[] = {64};
    for (int i = 0; i < 64; i++) x[i] = (float)i;
    nb_tensor in = floats(1, dims, x), y;
    run(front_model(19, W(front_input("x", F32, "N"), front_weight("s", 1, "1", scale, 4),
                          front_node("Resize", "x,,s", "y",
                                     W(front_string("mode", "linear"), front_int("antialias", 1))),
                          result("y"))),
        &in, &y);
    ck_assert_int_eq(y.dims[0], 16);
    for (int i = 2; i < 14; i++)
        ck_assert(fabs(nb_tensor_get(&y, i) - ((i + 0.5) * 4 - 0.5)) < 1e-4);
}
END_TEST

/* ---- indices -------------------------------------------------------------------------------- */

START_TEST(indices_of_pooling) {
    static float x[2 * 3 * 5 * 4];
    for (int i = 0; i < (int)NB_COUNT(x); i++) x[i] = (float)((i * 53) % 97);
    const int64_t dims[] = {2, 3, 5, 4};
    for (int first_fastest = 0; first_fastest < 2; first_fastest++) {
        nb_tensor in = floats(4, dims, x), y[2];
        run(front_model(22, W(front_input("x", F32, "B,3,H,4"),
                              front_node("MaxPool", "x", "y,z",
                                         W(front_ints("kernel_shape", 2, (const int64_t[]){3, 2}),
                                           front_ints("pads", 4, (const int64_t[]){1, 0, 1, 1}),
                                           front_ints("strides", 2, (const int64_t[]){2, 1}),
                                           front_int("storage_order", first_fastest))),
                              result("y"), result("z"))),
            &in, y);
        for (int64_t i = 0; i < nb_tensor_count(&y[0]); i++) {
            int64_t at = ((int64_t *)y[1].data)[i], image = at / 20, rest = at % 20;
            if (first_fastest) at = image * 20 + rest % 5 * 4 + rest / 5;
            ck_assert_int_eq(image, i / (nb_tensor_count(&y[0]) / 6));
            ck_assert_float_eq(x[at], ((float *)y[0].data)[i]);
        }
    }
}
END_TEST

Suite *nb_suite_front_numbers(void) {
    Suite *suite = suite_create("front_numbers");
    TCase *tests = tcase_create("front_numbers");
    tcase_add_checked_fixture(tests, front_begin, front_end);
    tcase_add_test(tests, uniform);
    tcase_add_test(tests, normal);
    tcase_add_test(tests, nodes_differ);
    tcase_add_test(tests, multinomial);
    tcase_add_test(tests, dropout);
    tcase_add_loop_test(tests, resize_of_any_size, 0, NB_COUNT(resizes));
    tcase_add_test(tests, antialiased_ramp);
    tcase_add_test(tests, indices_of_pooling);
    suite_add_tcase(suite, tests);
    return suite;
}
