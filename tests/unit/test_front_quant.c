/* Quantized models: operators of ONNX and com.microsoft on integers, each against a formula written
 * down here in double precision, before and after the passes that put integers together, which must
 * not change a bit; and files whose scales, zero points and blocks do not fit. */
#include "tests/unit/test_front.h"

#include "ir/eval.h"
#include "passes/pass.h"

#include <math.h>
#include <string.h>

#define MS(op, inputs, attributes)   front_domain_node("com.microsoft", op, inputs, "y", attributes)
#define ONNX(op, inputs, attributes) front_node(op, inputs, "y", attributes)
#define FLOATS(name, dims, data)     front_weight(name, 1, dims, data, sizeof(data))
#define BYTES(name, dims, data)      front_weight(name, 2, dims, data, sizeof(data))
#define SIGNED(name, dims, data)     front_weight(name, 3, dims, data, sizeof(data))

static uint64_t seed;

/* 0 .. below - 1 */
static int64_t draw(int64_t below) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)(seed >> 33) % below;
}
static float real(void) { return (float)draw(20001) / 10000.0f - 1; }
static void fill(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = real();
}
static void fill_bytes(uint8_t *x, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = (uint8_t)draw(256);
}

static nb_tensor tensor(nb_elem elem, int rank, const int64_t *dims, void *data) {
    nb_tensor t = {.elem = elem, .rank = rank, .data = data};
    int64_t n = 1;
    for (int d = 0; d < rank; d++) n *= t.dims[d] = dims[d];
    t.bytes = n * nb_elems[elem].bits / 8;
    return t;
}
#define TENSOR(elem, data, ...) \
    tensor(elem, (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), (const int64_t[]){__VA_ARGS__}, data)

/* The passes that multiply integers. */
static void fuse(nb_graph *g, nb_arena *arena, nb_diags *diags) {
    nb_pipeline pipeline = {0};
    nb_registry *registry = nb_registry_create(arena);
    nb_pass_env env = {.registry = registry, .diags = diags, .arena = arena, .verify_each = true};
    ck_assert_int_eq(
        nb_pipeline_parse(registry, "simplify, raise, simplify, move-codes, fuse-dequant, simplify",
                          arena, diags, &pipeline),
        NB_OK);
    ck_assert_int_eq(nb_pipeline_run(&pipeline, g, &env), NB_OK);
}

static size_t count(const nb_graph *g, nb_op_kind kind) {
    size_t n = 0;
    NB_FOR_OPS(op, &g->body) n += op->kind == kind;
    return n;
}

/* The model's output is `want`, each number within tolerance; no bit of it is changed by the
 * passes, after which it has so many qmatmuls. */
static void check(const char *what, wire model, const nb_tensor *in, const double *want,
                  double tolerance, size_t products) {
    nb_arena *arena = front_arena();
    nb_diags *diags = nb_diags_create(arena, what);
    nb_status status;
    nb_graph *g = front_import(model, diags, &status);
    ck_assert_msg(g != NULL, "%s: %s", what,
                  diags->list.count ? diags->list.items[0]->message : "not imported");
    nb_tensor y, fused;
    ck_assert_int_eq(nb_eval(g, in, &y, NULL, 0, arena, diags), NB_OK);
    for (int64_t i = 0; i < nb_tensor_count(&y); i++) {
        const double found = nb_tensor_get(&y, i);
        ck_assert_msg(fabs(found - want[i]) <= tolerance, "%s: element %lld is %.9g, expected %.9g",
                      what, (long long)i, found, want[i]);
    }
    fuse(g, arena, diags);
    ck_assert_int_eq(nb_eval(g, in, &fused, NULL, 0, arena, diags), NB_OK);
    ck_assert_msg(y.bytes == fused.bytes && memcmp(y.data, fused.data, (size_t)y.bytes) == 0,
                  "%s: the passes change bits", what);
    ck_assert_msg(count(g, NB_OP_qmatmul) == products, "%s: %zu products of codes, expected %zu",
                  what, count(g, NB_OP_qmatmul), products);
    nb_graph_destroy(g);
}

static wire model(wire inputs, wire rest) {
    return front_model(25, W(inputs, rest, front_put(12, front_text(1, "y"))));
}

static double saturated(double v, double low, double high) {
    v = rint(v);
    return v < low ? low : v > high ? high : v;
}

/* ---- MatMulNBits ---------------------------------------------------------------------------- */

enum { K = 40, N = 6, M = 3, BLOCK = 16, BLOCKS = 3 };

static unsigned bits_at(const uint8_t *bytes, int64_t i, int bits) {
    return (unsigned)bytes[i * bits / 8] >> i * bits % 8 & ((1u << bits) - 1);
}

typedef enum zeros { NO_ZEROS, PACKED, HALVES } zeros;
typedef enum order { IN_ORDER, PERMUTED, SCATTERED } order;

static const struct nbits {
    int bits;
    zeros zeros;
    order order;
    bool bias;
    int level;
} nbits[] = {
    {4, NO_ZEROS, IN_ORDER, false, 0}, {4, PACKED, IN_ORDER, true, 1},
    {4, HALVES, IN_ORDER, false, 4},   {4, PACKED, PERMUTED, true, 0},
    {4, PACKED, SCATTERED, false, 4},  {2, PACKED, IN_ORDER, false, 2},
    {2, NO_ZEROS, PERMUTED, true, 4},  {2, HALVES, IN_ORDER, true, 0},
    {8, PACKED, IN_ORDER, false, 3},   {8, NO_ZEROS, IN_ORDER, true, 4},
    {8, HALVES, PERMUTED, false, 0},   {4, PACKED, PERMUTED, false, 4},
};

/* x in blocks of bytes, as accuracy_level 4 allows. */
static void round_blocks(float *x, const int *at) {
    for (int from = 0; from < K; from += BLOCK) {
        float top = 0;
        for (int i = from; i < K && i < from + BLOCK; i++) top = fmaxf(top, fabsf(x[at[i]]));
        for (int i = from; i < K && i < from + BLOCK; i++)
            x[at[i]] = rintf(x[at[i]] * (127 / top)) * (top / 127);
    }
}

START_TEST(matmul_nbits) {
    const struct nbits *c = &nbits[_i];
    const int blob = BLOCK * c->bits / 8, row = (BLOCKS * c->bits + 7) / 8;
    uint8_t weight[N * BLOCKS * BLOCK], packed[N * BLOCKS];
    float x[M * K], rounded[M * K], scales[N * BLOCKS], floats[N * BLOCKS], bias[N];
    int32_t group[K];
    int at[K];
    double want[M * N];
    seed = (uint64_t)_i + 1;
    fill(x, M * K);
    fill(scales, N * BLOCKS);
    scales[4] = 0;
    fill(bias, N);
    fill_bytes(weight, sizeof weight);
    fill_bytes(packed, sizeof packed);
    for (int i = 0; i < N * BLOCKS; i++) floats[i] = (float)draw(1 << c->bits) + 0.5f;
    for (int k = 0; k < K; k++) {
        /* Inputs 5 and 20 change places, or both belong to block 2. */
        group[k] = k / BLOCK;
        if (c->order != IN_ORDER && k == 5) group[k] = c->order == PERMUTED ? 1 : 2;
        if (c->order != IN_ORDER && k == 20) group[k] = c->order == PERMUTED ? 0 : 2;
    }
    for (int b = 0, n = 0; b < BLOCKS; b++)
        for (int k = 0; k < K; k++)
            if (group[k] == b) at[n++] = k;
    memcpy(rounded, x, sizeof x);
    const bool bytes = c->level == 4 && c->zeros != HALVES && c->order != SCATTERED;
    for (int m = 0; m < M && bytes; m++) round_blocks(rounded + m * K, at);
    for (int i = 0; i < M * N; i++) {
        const int m = i / N, n = i % N;
        double sum = c->bias ? (double)bias[n] : 0;
        for (int k = 0; k < K; k++) {
            const int s = n * BLOCKS + group[k];
            const double code = bits_at(weight + n * BLOCKS * blob, k, c->bits);
            const double zero = c->zeros == NO_ZEROS ? 1 << (c->bits - 1)
                                : c->zeros == PACKED ? bits_at(packed + n * row, group[k], c->bits)
                                                     : (double)floats[s];
            sum += (double)rounded[m * K + k] * (code - zero) * (double)scales[s];
        }
        want[i] = sum;
    }
    wire parts =
        W(front_weight("w", 2, nb_format(front_arena(), "%d,%d,%d", N, BLOCKS, blob), weight,
                       (size_t)(N * BLOCKS * blob)),
          FLOATS("s", "18", scales), FLOATS("b", "6", bias), FLOATS("f", "18", floats),
          front_weight("g", 6, "40", group, sizeof group),
          front_weight("z", 2, nb_format(front_arena(), "%d", N * row), packed, (size_t)(N * row)));
    const char *inputs = nb_format(front_arena(), "x,w,s,%s,%s,%s",
                                   c->zeros == NO_ZEROS ? ""
                                   : c->zeros == PACKED ? "z"
                                                        : "f",
                                   c->order == IN_ORDER ? "" : "g", c->bias ? "b" : "");
    wire node = MS("MatMulNBits", inputs,
                   W(front_int("K", K), front_int("N", N), front_int("bits", c->bits),
                     front_int("block_size", BLOCK), front_int("accuracy_level", c->level)));
    const nb_tensor in = TENSOR(NB_F32, x, M, K);
    check("MatMulNBits", model(front_input("x", 1, "M,40"), W(parts, node)), &in, want,
          c->bits == 8 ? 2e-3 : 2e-4, bytes);
}
END_TEST

/* ---- MatMulBnb4, GatherBlockQuantized ------------------------------------------------------- */

static const double nf4[16] = {-1,
                               -.6961928009986877,
                               -.5250730514526367,
                               -.39491748809814453,
                               -.28444138169288635,
                               -.18477343022823334,
                               -.09105003625154495,
                               0,
                               .07958029955625534,
                               .16093020141124725,
                               .24611230194568634,
                               .33791524171829224,
                               .44070982933044434,
                               .5626170039176941,
                               .7229568362236023,
                               1};
static const double fp4[8] = {0, 1.0 / 192, 2.0 / 3, 1, 1.0 / 3, 0.5, 1.0 / 6, 0.25};

/* Blocks within rows, and across them. */
START_TEST(matmul_bnb4) {
    const int k_size = _i % 2 ? 24 : 32, n_size = 4, block = 16, type = _i / 2;
    uint8_t weight[64];
    float x[2 * 32], top[8];
    double want[2 * 4];
    seed = (uint64_t)_i + 1;
    fill_bytes(weight, sizeof weight);
    fill(x, 64);
    fill(top, 8);
    top[1] = 0;
    for (int i = 0; i < 2 * n_size; i++) {
        const int m = i / n_size, n = i % n_size;
        want[i] = 0;
        for (int k = 0; k < k_size; k++) {
            const int at = n * k_size + k;
            const int code = at % 2 ? weight[at / 2] & 15 : weight[at / 2] >> 4;
            const double level = type ? nf4[code] : (code & 8 ? -1 : 1) * fp4[code & 7];
            want[i] += (double)x[m * k_size + k] * level * (double)top[at / block];
        }
    }
    const size_t blocks = (size_t)(n_size * k_size / block);
    wire parts = W(front_weight("w", 2, _i % 2 ? "48" : "64", weight, _i % 2 ? 48 : 64),
                   front_weight("s", 1, _i % 2 ? "6" : "8", top, 4 * blocks));
    wire node = MS("MatMulBnb4", "x,w,s",
                   W(front_int("K", k_size), front_int("N", n_size), front_int("block_size", block),
                     front_int("quant_type", type)));
    const nb_tensor in = TENSOR(NB_F32, x, 2, k_size);
    check("MatMulBnb4", model(front_input("x", 1, "M,?"), W(parts, node)), &in, want, 1e-5, 0);
}
END_TEST

START_TEST(gather_block_quantized) {
    const int bits = _i % 2 ? 8 : 4, wide = 40;
    const bool has_zeros = _i / 2 != 0;
    uint8_t table[5 * 40], zero[5 * 3];
    float scales[5 * 3];
    int64_t index[3] = {4, 0, -2};
    double want[3 * 40];
    seed = (uint64_t)_i + 1;
    fill_bytes(table, sizeof table);
    fill_bytes(zero, sizeof zero);
    fill(scales, 15);
    const int stored = wide * bits / 8, row = (3 * bits + 7) / 8;
    for (int i = 0; i < 3 * wide; i++) {
        const int64_t r = (index[i / wide] + 5) % 5;
        const int k = i % wide;
        const double z =
            has_zeros ? (double)bits_at(zero + r * row, k / 16, bits) : (double)(1 << (bits - 1));
        want[i] = (bits_at(table + r * stored, k, bits) - z) * (double)scales[r * 3 + k / 16];
    }
    const char *dims = nb_format(front_arena(), "5,%d", stored),
               *rows = nb_format(front_arena(), "5,%d", row);
    wire parts = W(front_weight("t", 2, dims, table, (size_t)(5 * stored)),
                   FLOATS("s", "5,3", scales), front_weight("z", 2, rows, zero, (size_t)(5 * row)));
    wire node = MS("GatherBlockQuantized", has_zeros ? "t,i,s,z" : "t,i,s",
                   W(front_int("bits", bits), front_int("block_size", 16)));
    const nb_tensor in = TENSOR(NB_I64, index, 3);
    check("GatherBlockQuantized", model(front_input("i", 7, "n"), W(parts, node)), &in, want, 1e-5,
          0);
}
END_TEST

/* ---- QLinear operators ---------------------------------------------------------------------- */

#define AT(i, s, z) (((double)(i) - (z)) * (double)(s))

/* Two tensors of u8 and i8 by an operator of float numbers. */
START_TEST(qlinear_elementwise) {
    enum { COUNT = 256 };
    static uint8_t a[COUNT], b[COUNT];
    static double want[COUNT];
    const float sa = 0.0371f, sb = 0.021f;
    const uint8_t za = 100, zb = 3, zy = 131;
    seed = (uint64_t)_i + 1;
    for (int i = 0; i < COUNT; i++) a[i] = (uint8_t)i;
    fill_bytes(b, COUNT);
    static const struct {
        const char *op, *inputs;
        double scale;
    } ops[] = {{"QLinearAdd", "a,sa,za,b,sb,zb,sy,zy", 0.05},
               {"QLinearMul", "a,sa,za,b,sb,zb,sy,zy", 0.07},
               {"QLinearSigmoid", "a,sa,za,sy,zy", 0.0041},
               {"QLinearLeakyRelu", "a,sa,za,sy,zy", 0.033},
               {"QLinearAdd", "a,sa,,b,sb,,sy,zy", 0.0503},
               {"QLinearWhere", "c,a,sa,za,b,sb,zb,sy,zy", 0.041}};
    static uint8_t chosen[COUNT];
    for (int i = 0; i < COUNT; i++) chosen[i] = i % 3 == 0;
    const float sy = (float)ops[_i].scale;
    for (int i = 0; i < COUNT; i++) {
        const double x = AT(a[i], sa, _i == 4 ? 0 : za), z = AT(b[i], sb, _i == 4 ? 0 : zb);
        const double v = _i == 1   ? x * z
                         : _i == 2 ? 1 / (1 + exp(-x))
                         : _i == 3 ? (x < 0 ? (double)0.01f * x : x)
                         : _i == 5 ? (chosen[i] ? x : z)
                                   : x + z;
        want[i] = saturated(v / (double)sy + zy, 0, 255);
    }
    wire parts = W(front_weight("sa", 1, "", &sa, 4), front_weight("sb", 1, "", &sb, 4),
                   front_weight("sy", 1, "", &sy, 4), front_weight("za", 2, "", &za, 1),
                   front_weight("zb", 2, "", &zb, 1), front_weight("zy", 2, "", &zy, 1),
                   front_weight("c", 9, "256", chosen, COUNT));
    const nb_tensor in[2] = {TENSOR(NB_U8, a, COUNT), TENSOR(NB_U8, b, COUNT)};
    check(ops[_i].op,
          model(W(front_input("a", 2, "n"), front_input("b", 2, "n")),
                W(parts, MS(ops[_i].op, ops[_i].inputs, NONE))),
          in, want, 0, 0);
}
END_TEST

/* x[2,3,4,4] by QLinearConv with a scale for each output, borders and strides. */
START_TEST(qlinear_conv) {
    enum { C = 3, H = 4, O = 5, P = 2 };
    uint8_t x[2 * C * H * H];
    int8_t w[O * C * 9];
    int32_t bias[O];
    float sw[O];
    const float sx = 0.031f, sy = 0.4f;
    const uint8_t zx = _i % 2 ? 7 : 128;
    const int8_t zy = -20, zw[O] = {0};
    double want[2 * O * P * P];
    seed = (uint64_t)_i + 1;
    fill_bytes(x, sizeof x);
    fill_bytes((uint8_t *)w, sizeof w);
    for (int o = 0; o < O; o++) {
        sw[o] = 0.01f + 0.003f * (float)o;
        bias[o] = (int32_t)draw(2000) - 1000;
    }
    for (int i = 0; i < 2 * O * P * P; i++) {
        const int n = i / (O * P * P), o = i / (P * P) % O, r = i / P % P, q = i % P;
        int64_t sum = bias[o];
        for (int k = 0; k < C * 9; k++) {
            const int c = k / 9, row = 2 * r + k / 3 % 3 - 1, column = 2 * q + k % 3 - 1;
            if (row < 0 || column < 0 || row >= H || column >= H) continue;
            sum += (int64_t)(x[((n * C + c) * H + row) * H + column] - zx) * w[o * C * 9 + k];
        }
        want[i] = saturated((double)sum * (double)sx * (double)sw[o] / (double)sy + zy, -128, 127);
    }
    wire parts = W(front_weight("sx", 1, "", &sx, 4), front_weight("zx", 2, "", &zx, 1),
                   SIGNED("w", "5,3,3,3", w), FLOATS("sw", "5", sw), SIGNED("zw", "5", zw),
                   front_weight("sy", 1, "", &sy, 4), front_weight("zy", 3, "", &zy, 1),
                   front_weight("b", 6, "5", bias, sizeof bias));
    wire node = ONNX("QLinearConv", "x,sx,zx,w,sw,zw,sy,zy,b",
                     W(front_ints("pads", 4, (int64_t[]){1, 1, 1, 1}),
                       front_ints("strides", 2, (int64_t[]){2, 2})));
    const nb_tensor in = TENSOR(NB_U8, x, 2, C, H, H);
    check("QLinearConv", model(front_input("x", 2, "B,3,4,4"), W(parts, node)), &in, want, 0, 1);
}
END_TEST

/* Exact sums, in groups; zero points of both sides. */
START_TEST(integer_products) {
    enum { C = 4, L = 6, O = 4 };
    uint8_t x[C * L], w[O * (C / 2) * 3];
    const uint8_t zx = 9;
    uint8_t zw[O] = {1, 200, 3, 255};
    double want[O * 4];
    seed = 5;
    fill_bytes(x, sizeof x);
    fill_bytes(w, sizeof w);
    for (int i = 0; i < O * 4; i++) {
        const int o = i / 4, at = i % 4;
        int64_t sum = 0;
        for (int k = 0; k < C / 2 * 3; k++)
            sum += (int64_t)(x[(o / 2 * 2 + k / 3) * L + at + k % 3] - zx) *
                   (w[o * C / 2 * 3 + k] - zw[o]);
        want[i] = (double)sum;
    }
    wire parts = W(front_weight("zx", 2, "", &zx, 1), BYTES("w", "4,2,3", w), BYTES("zw", "4", zw));
    const nb_tensor in = TENSOR(NB_U8, x, 1, C, L);
    check("ConvInteger",
          model(front_input("x", 2, "B,4,6"),
                W(parts, ONNX("ConvInteger", "x,w,zx,zw", front_int("group", 2)))),
          &in, want, 0, 2);
    /* [4,6] by a constant and by one that is not; the zero point given at run time. */
    uint8_t b[L * 3], zb[3] = {0, 128, 77}, za = 200;
    double sums[C * 3];
    fill_bytes(b, sizeof b);
    for (int i = 0; i < C * 3; i++) {
        int64_t sum = 0;
        for (int k = 0; k < L; k++)
            sum += (int64_t)(x[i / 3 * L + k] - za) * (b[k * 3 + i % 3] - zb[i % 3]);
        sums[i] = (double)sum;
    }
    const nb_tensor three[3] = {TENSOR(NB_U8, x, C, L), tensor(NB_U8, 0, NULL, &za),
                                TENSOR(NB_U8, b, L, 3)};
    wire given = W(front_input("a", 2, "M,6"), front_input("za", 2, ""));
    check("MatMulInteger",
          model(given, W(BYTES("b", "6,3", b), BYTES("zb", "3", zb),
                         ONNX("MatMulInteger", "a,b,za,zb", NONE))),
          three, sums, 0, 1);
    check("MatMulInteger of two inputs",
          model(W(given, front_input("b", 2, "6,3")),
                W(BYTES("zb", "3", zb), ONNX("MatMulInteger", "a,b,za,zb", NONE))),
          three, sums, 0, 0);
}
END_TEST

/* Scaled at once: of u8 that are given, and of floats that become u8. */
START_TEST(scaled_integer_products) {
    enum { ROWS = 3, LONG = 20, WIDE = 4 };
    uint8_t a[ROWS * LONG], az = 77;
    int8_t b[LONG * WIDE], bz[WIDE] = {0, -3, 50, 127};
    float x[ROWS * LONG], bs[WIDE] = {0.02f, 0.5f, 0.1f, 0.03f}, bias[WIDE], as = 0.04f;
    double want[ROWS * WIDE];
    seed = 9;
    fill_bytes(a, sizeof a);
    fill_bytes((uint8_t *)b, sizeof b);
    fill(x, ROWS * LONG);
    fill(bias, WIDE);
    wire parts = W(SIGNED("b", "20,4", b), FLOATS("bs", "4", bs), SIGNED("bz", "4", bz),
                   FLOATS("bias", "4", bias), front_weight("as", 1, "", &as, 4),
                   front_weight("az", 2, "", &az, 1));
    for (int form = 0; form < 2; form++) {
        float low = 0, high = 0;
        for (int i = 0; i < ROWS * LONG; i++) {
            low = fminf(low, x[i]);
            high = fmaxf(high, x[i]);
        }
        const double step = form ? (double)((high - low) / 255) : (double)as,
                     zero = form ? rint(-(double)low / step) : az;
        for (int i = 0; i < ROWS * WIDE; i++) {
            double sum = 0;
            for (int k = 0; k < LONG; k++) {
                const int at = i / WIDE * LONG + k;
                const double code =
                    form ? saturated(rint((double)x[at] / step) + zero, 0, 255) : a[at];
                sum += (code - zero) * (b[k * WIDE + i % WIDE] - bz[i % WIDE]);
            }
            want[i] = sum * step * (double)bs[i % WIDE] + (double)bias[i % WIDE];
        }
        const nb_tensor in = form ? TENSOR(NB_F32, x, ROWS, LONG) : TENSOR(NB_U8, a, ROWS, LONG);
        wire node = form ? MS("DynamicQuantizeMatMul", "a,b,bs,bz,bias", NONE)
                         : MS("MatMulIntegerToFloat", "a,b,as,bs,az,bz,bias", NONE);
        check(form ? "DynamicQuantizeMatMul" : "MatMulIntegerToFloat",
              model(front_input("a", form ? 1 : 2, "M,20"), W(parts, node)), &in, want, 2e-3, 1);
    }
}
END_TEST

/* QGemm: alpha, a transposed weight with a scale for each output, a bias in i32. */
START_TEST(qgemm) {
    enum { ROWS = 2, LONG = 12, WIDE = 3 };
    uint8_t a[ROWS * LONG], az = 120, yz = 99;
    int8_t b[WIDE * LONG], bz[WIDE] = {0};
    int32_t c[WIDE] = {500, -700, 33};
    float as = 0.021f, bs[WIDE] = {0.02f, 0.011f, 0.03f}, ys = 0.13f;
    double want[ROWS * WIDE];
    seed = 3;
    fill_bytes(a, sizeof a);
    fill_bytes((uint8_t *)b, sizeof b);
    const bool codes = _i == 0;
    for (int i = 0; i < ROWS * WIDE; i++) {
        int64_t sum = c[i % WIDE];
        for (int k = 0; k < LONG; k++)
            sum += (a[i / WIDE * LONG + k] - az) * b[i % WIDE * LONG + k];
        const double v = 0.5 * (double)sum * (double)as * (double)bs[i % WIDE];
        want[i] = codes ? saturated(v / (double)ys + yz, 0, 255) : v;
    }
    wire parts = W(front_weight("as", 1, "", &as, 4), front_weight("az", 2, "", &az, 1),
                   SIGNED("b", "3,12", b), FLOATS("bs", "3", bs), SIGNED("bz", "3", bz),
                   front_weight("c", 6, "3", c, sizeof c), front_weight("ys", 1, "", &ys, 4),
                   front_weight("yz", 2, "", &yz, 1));
    wire node = MS("QGemm", codes ? "a,as,az,b,bs,bz,c,ys,yz" : "a,as,az,b,bs,bz,c",
                   W(front_int("transB", 1), front_float("alpha", 0.5f)));
    const nb_tensor in = TENSOR(NB_U8, a, ROWS, LONG);
    check("QGemm", model(front_input("a", 2, "M,12"), W(parts, node)), &in, want, codes ? 0 : 1e-5,
          1);
}
END_TEST

/* Pools, with channels in the middle and last; softmax; two tensors joined; a mean of places. */
START_TEST(qlinear_others) {
    enum { C = 2, H = 4 };
    uint8_t x[C * H * H], xz = 11, yz = 40;
    float xs = 0.1f, ys = 0.07f;
    double want[2 * C * H * H] = {0};
    seed = 4;
    fill_bytes(x, sizeof x);
    const bool last = _i == 1, all = _i == 2 || _i == 5;
    for (int i = 0; i < C * H * H; i++) {
        if (_i > 2 && !all) continue;
        const int c = last ? i % C : i / 4 % C, at = last ? i / C : i % 4;
        if (_i < 2 && at >= 4) continue;
        double sum = 0;
        for (int k = 0; k < (all ? 16 : 4); k++) {
            const int row = all ? k / 4 : at / 2 * 2 + k / 2,
                      column = all ? k % 4 : at % 2 * 2 + k % 2;
            const int plane = all ? i % C : c;
            sum += AT(x[last ? (row * H + column) * C + plane : (plane * H + row) * H + column], xs,
                      xz);
        }
        want[all ? i % C : i] = saturated(sum / (all ? 16 : 4) / (double)ys + yz, 0, 255);
    }
    float fine = 1.0f / 256;
    for (int i = 0; i < C * H * H && _i == 3; i++) {
        double sum = 0, top = 0;
        for (int k = 0; k < H; k++) top = fmax(top, x[i / H * H + k]);
        for (int k = 0; k < H; k++) sum += exp((x[i / H * H + k] - top) * (double)xs);
        want[i] = saturated(exp((x[i] - top) * (double)xs) / sum * 256, 0, 255);
    }
    for (int i = 0; i < 2 * C * H * H && _i == 4; i++)
        want[i] = saturated(AT(x[i % (C * H * H)], i < C * H * H ? xs : ys, xz) / (double)ys + yz,
                            0, 255);
    static const uint8_t none = 0;
    wire parts = W(front_weight("xs", 1, "", &xs, 4), front_weight("xz", 2, "", &xz, 1),
                   front_weight("ys", 1, "", &ys, 4), front_weight("yz", 2, "", &yz, 1),
                   front_weight("fine", 1, "", &fine, 4), front_weight("none", 2, "", &none, 1));
    wire pool = W(front_ints("kernel_shape", 2, (int64_t[]){2, 2}),
                  front_ints("strides", 2, (int64_t[]){2, 2}));
    const wire nodes[] = {
        MS("QLinearAveragePool", "x,xs,xz,ys,yz", pool),
        MS("QLinearAveragePool", "x,xs,xz,ys,yz", W(pool, front_int("channels_last", 1))),
        MS("QLinearGlobalAveragePool", "x,xs,xz,ys,yz", front_int("channels_last", 0)),
        MS("QLinearSoftmax", "x,xs,xz,fine,none", W(front_int("axis", -1), front_int("opset", 13))),
        MS("QLinearConcat", "ys,yz,x,xs,xz,x,ys,xz", front_int("axis", 0)),
        MS("QLinearReduceMean", "x,xs,xz,ys,yz",
           W(front_ints("axes", 2, (int64_t[]){2, 3}), front_int("keepdims", 0)))};
    const nb_tensor in = last ? TENSOR(NB_U8, x, 1, H, H, C) : TENSOR(NB_U8, x, 1, C, H, H);
    check("QLinear", model(front_input("x", 2, last ? "1,4,4,2" : "1,2,4,4"), W(parts, nodes[_i])),
          &in, want, 0, 0);
}
END_TEST

/* ---- attention ------------------------------------------------------------------------------ */

/* One row of softmax(q k') v over `keys` keys; k and v are keys apart by `size`. */
static void attend(const double *q, const double *k, const double *v, int keys, int size,
                   double *out) {
    double all = 0, top = -1e300, p[8];
    for (int t = 0; t < keys; t++) {
        p[t] = 0;
        for (int d = 0; d < size; d++) p[t] += q[d] * k[t * size + d];
        p[t] /= sqrt(size);
        top = fmax(top, p[t]);
    }
    for (int t = 0; t < keys; t++) all += exp(p[t] - top);
    for (int d = 0; d < size; d++) {
        out[d] = 0;
        for (int t = 0; t < keys; t++) out[d] += exp(p[t] - top) / all * v[t * size + d];
    }
}

/* Two query heads, one key head of 4, 3 past tokens and 2 new ones; scales of channels or of all.
 */
START_TEST(caches_of_codes) {
    enum { H = 2, D = 4, P = 3, S = 2 };
    float x[S * H * D], kn[S * D], vn[S * D], ks[D], vs[D];
    int8_t pk[P * D], pv[P * D];
    double k[(P + S) * D], v[(P + S) * D], want[S * H * D];
    int32_t length = P + S - 1, total = P + S;
    const bool by_channel = _i == 0;
    seed = (uint64_t)_i + 1;
    fill(x, S * H * D);
    fill(kn, S * D);
    fill(vn, S * D);
    fill_bytes((uint8_t *)pk, sizeof pk);
    fill_bytes((uint8_t *)pv, sizeof pv);
    for (int d = 0; d < D; d++) {
        ks[d] = 0.011f + (by_channel ? 0.003f * (float)d : 0);
        vs[d] = 0.007f + (by_channel ? 0.002f * (float)d : 0);
    }
    for (int i = 0; i < (P + S) * D; i++) {
        const int d = i % D, at = i - P * D;
        k[i] = (double)ks[d] * (at < 0 ? pk[i] : saturated((double)(kn[at] / ks[d]), -128, 127));
        v[i] = (double)vs[d] * (at < 0 ? pv[i] : saturated((double)(vn[at] / vs[d]), -128, 127));
    }
    for (int i = 0; i < S * H; i++) {
        double q[D];
        for (int d = 0; d < D; d++) q[d] = (double)x[i * D + d];
        attend(q, k, v, P + i / H + 1, D, want + i * D);
    }
    const char *type = by_channel ? "PER_CHANNEL" : "PER_TENSOR",
               *dims = by_channel ? "1,1,1,4" : "1";
    const size_t bytes = by_channel ? sizeof ks : sizeof *ks;
    wire inputs =
        W(front_input("x", 1, "1,2,8"), front_input("k", 1, "1,2,4"), front_input("v", 1, "1,2,4"),
          front_input("pk", 3, "1,1,P,4"), front_input("pv", 3, "1,1,P,4"),
          front_input("len", 6, "1"), front_input("total", 6, ""));
    wire node = MS("GroupQueryAttention", "x,k,v,pk,pv,len,total,,,,,,ks,vs",
                   W(front_int("num_heads", H), front_int("kv_num_heads", 1),
                     front_int("kv_cache_bit_width", 8), front_string("k_quant_type", type),
                     front_string("v_quant_type", type)));
    const nb_tensor in[] = {TENSOR(NB_F32, x, 1, S, H * D), TENSOR(NB_F32, kn, 1, S, D),
                            TENSOR(NB_F32, vn, 1, S, D),    TENSOR(NB_I8, pk, 1, 1, P, D),
                            TENSOR(NB_I8, pv, 1, 1, P, D),  TENSOR(NB_I32, &length, 1),
                            tensor(NB_I32, 0, NULL, &total)};
    check("GroupQueryAttention",
          model(inputs, W(front_weight("ks", 1, dims, ks, bytes),
                          front_weight("vs", 1, dims, vs, bytes), node)),
          in, want, 1e-5, 0);
}
END_TEST

/* Two heads of 4 over 3 tokens, one of which the mask hides; or rows that see what is before. */
START_TEST(qattention) {
    enum { T = 3, IN = 5, H = 2, D = 4, W3 = 3 * H * D };
    uint8_t x[T * IN], xz = 130;
    int8_t w[IN * W3], wz = 3;
    float xs = 0.02f, ws = 0.013f, bias[W3];
    int32_t seen[T] = {1, 0, 1};
    double qkv[T * W3], want[T * H * D];
    seed = (uint64_t)_i + 1;
    fill_bytes(x, sizeof x);
    fill_bytes((uint8_t *)w, sizeof w);
    fill(bias, W3);
    for (int i = 0; i < T * W3; i++) {
        int64_t sum = 0;
        for (int k = 0; k < IN; k++) sum += (x[i / W3 * IN + k] - xz) * (w[k * W3 + i % W3] - wz);
        qkv[i] = (double)sum * (double)xs * (double)ws + (double)bias[i % W3];
    }
    for (int i = 0; i < T * H; i++) {
        const int t = i / H, h = i % H;
        double k[T * D], v[T * D];
        int keys = 0;
        for (int j = 0; j < T; j++) {
            if (_i == 0 ? !seen[j] : j > t) continue;
            memcpy(k + keys * D, qkv + j * W3 + (H + h) * D, D * sizeof *k);
            memcpy(v + keys++ * D, qkv + j * W3 + (2 * H + h) * D, D * sizeof *v);
        }
        attend(qkv + t * W3 + h * D, k, v, keys, D, want + i * D);
    }
    wire parts =
        W(SIGNED("w", "5,24", w), FLOATS("b", "24", bias), front_weight("xs", 1, "", &xs, 4),
          front_weight("ws", 1, "", &ws, 4), front_weight("xz", 2, "", &xz, 1),
          front_weight("wz", 3, "", &wz, 1), front_weight("m", 6, "1,3", seen, sizeof seen));
    wire node = MS("QAttention", _i == 0 ? "x,w,b,xs,ws,m,xz,wz" : "x,w,b,xs,ws,,xz,wz",
                   W(front_int("num_heads", H), front_int("unidirectional", _i)));
    const nb_tensor in = TENSOR(NB_U8, x, 1, T, IN);
    check("QAttention", model(front_input("x", 2, "1,T,5"), W(parts, node)), &in, want, 1e-4, 1);
}
END_TEST

/* A weight that is floats in the file, rounded in rows, in blocks and as a whole by the graph. */
START_TEST(weights_that_the_graph_rounds) {
    enum { WIDE = 3, LONG = 4 };
    float w[LONG * WIDE], x[2 * LONG], s[2 * WIDE] = {0.1f, 0.02f, 0.05f, 0.03f, 0.07f, 0.01f};
    int8_t z[2 * WIDE] = {0, 5, -128, 1, 2, 3};
    double want[2 * WIDE];
    seed = (uint64_t)_i + 1;
    fill(w, LONG * WIDE);
    fill(x, 2 * LONG);
    for (int i = 0; i < 2 * WIDE; i++) {
        want[i] = 0;
        for (int k = 0; k < LONG; k++) {
            const int n = i % WIDE, at = _i == 0 ? 0 : _i == 1 ? n : k / 2 * WIDE + n;
            const double code =
                saturated(rint((double)(w[k * WIDE + n] / s[at])) + z[at], -128, 127);
            want[i] += (double)x[i / WIDE * LONG + k] * (code - z[at]) * (double)s[at];
        }
    }
    const char *dims = _i == 0 ? "" : _i == 1 ? "3" : "2,3";
    const size_t n = _i == 0 ? 1 : _i == 1 ? 3 : 6;
    wire how = W(front_int("axis", _i == 1 ? 1 : 0), front_int("block_size", _i == 2 ? 2 : 0));
    wire parts =
        W(FLOATS("w", "4,3", w), front_weight("s", 1, dims, s, 4 * n),
          front_weight("z", 3, dims, z, n), front_node("QuantizeLinear", "w,s,z", "q", how),
          front_node("DequantizeLinear", "q,s,z", "d", how), ONNX("MatMul", "x,d", NONE));
    const nb_tensor in = TENSOR(NB_F32, x, 2, LONG);
    check("rounded weights", model(front_input("x", 1, "M,4"), parts), &in, want, 1e-5, 0);
}
END_TEST

/* ---- what does not fit ---------------------------------------------------------------------- */

static void expect_help(wire m, nb_status status, const char *part, const char *help) {
    nb_status found;
    nb_diags *diags = nb_diags_create(front_arena(), "m.onnx");
    nb_graph *g = front_import(m, diags, &found);
    ck_assert_ptr_null(g);
    front_expect(m, status, part);
    const char *text = nb_diag_render(front_arena(), diags->list.items[0]);
    ck_assert_msg(strstr(text, help) && strstr(text, "the node"), "no '%s' in\n%s", help, text);
}

START_TEST(blocks_that_do_not_fit) {
    static const uint8_t bytes[4 * 3 * 8];
    static const float floats[12];
    static const int32_t far[40] = {3};
    wire parts = W(BYTES("w", "4,3,8", bytes), FLOATS("s", "4,3", floats),
                   BYTES("z", "8", ((uint8_t[8]){0})), front_weight("g", 6, "40", far, sizeof far),
                   front_input("x", 1, "M,40"));
#define NBITS(inputs, k, n, block)         \
    model(parts, MS("MatMulNBits", inputs, \
                    W(front_int("K", k), front_int("N", n), front_int("block_size", block))))
    front_expect(NBITS("x,w,s", 40, 4, 16), NB_OK, "");
    front_expect(NBITS("x,w,s,z", 40, 4, 16), NB_OK, "");
    expect_help(NBITS("x,w,s", 40, 4, 24), NB_MALFORMED, "block_size is 24", "power of two");
    expect_help(NBITS("x,w,s", 40, 4, 8), NB_MALFORMED, "block_size is 8", "at least 16");
    expect_help(NBITS("x,w,s", 56, 4, 16), NB_MALFORMED, "bytes of the weight are u8[4,3,8]",
                "block_size");
    expect_help(NBITS("x,w,s", 40, 5, 16), NB_MALFORMED, "expected 120 in all", "block_size");
    front_expect(NBITS("x,w,s", 0, 4, 16), NB_MALFORMED, "K is 0");
    front_expect(NBITS("x,w,s", INT64_MAX, 4, 16), NB_MALFORMED, "K is");
    front_expect(NBITS("x,w,w", 40, 4, 16), NB_MALFORMED, "scales are u8");
    expect_help(NBITS("x,w,s,,g", 40, 4, 16), NB_MALFORMED, "g_idx[0] is 3", "one of 3 blocks");
    expect_help(NBITS("x,x,s", 40, 4, 16), NB_UNSUPPORTED, "must be constant", "initializers");
    expect_help(NBITS("x,w,s,w", 40, 4, 16), NB_MALFORMED, "zero points are u8[4,3,8]",
                "block_size");
}
END_TEST

START_TEST(scales_that_do_not_fit) {
    static const float s[3] = {1, 2, 3};
    static const uint8_t z[3] = {0};
    static const int8_t other[3] = {0};
    wire parts =
        W(front_input("x", 2, "4,3"), FLOATS("s", "3", s), FLOATS("two", "2", ((float[2]){1, 1})),
          FLOATS("m", "1,3", s), BYTES("z", "3", z), BYTES("z2", "2", ((uint8_t[2]){0})),
          SIGNED("o", "3", other));
#define DQ(inputs, ...) model(parts, ONNX("DequantizeLinear", inputs, W(NONE, __VA_ARGS__)))
    front_expect_type(DQ("x,s,z", front_int("axis", 1)), "f32[4,3]");
    front_expect_type(DQ("x,m", front_int("axis", 0), front_int("block_size", 4)), "f32[4,3]");
    front_expect(DQ("x,two", front_int("axis", 1)), NB_MALFORMED, "3 and 2 must be equal");
    front_expect(DQ("x,s", front_int("axis", 2)), NB_MALFORMED, "axis 2 is out of range");
    expect_help(DQ("x,s,o", front_int("axis", 1)), NB_MALFORMED, "zero points of type i8[3]",
                "type of the codes");
    front_expect(DQ("x,s,z2", front_int("axis", 1)), NB_MALFORMED, "must be equal");
    expect_help(DQ("x,m", front_int("axis", 0)), NB_MALFORMED, "expected a scalar or a vector",
                "block_size");
    expect_help(DQ("x,m", front_int("axis", 0), front_int("block_size", 3)), NB_MALFORMED,
                "in blocks of 3 along axis 0 has 2 scales there, found f32[1,3]", "ceil(D / B)");
    front_expect(DQ("x,m", front_int("axis", 0), front_int("block_size", -3)), NB_MALFORMED,
                 "block_size is -3");
    front_expect(DQ("x,z"), NB_MALFORMED, "scales are floats, found u8[3]");
    front_expect(DQ("s,s"), NB_MALFORMED, "codes of f32");
    wire q = model(parts, ONNX("QuantizeLinear", "x,s", NONE));
    front_expect(q, NB_MALFORMED, "takes floats or i32, found u8[4,3]");
}
END_TEST

Suite *nb_suite_front_quant(void) {
    Suite *suite = suite_create("front_quant");
    TCase *tests = tcase_create("all");
    tcase_add_checked_fixture(tests, front_begin, front_end);
    tcase_add_loop_test(tests, matmul_nbits, 0, NB_COUNT(nbits));
    tcase_add_loop_test(tests, matmul_bnb4, 0, 4);
    tcase_add_loop_test(tests, gather_block_quantized, 0, 4);
    tcase_add_loop_test(tests, qlinear_elementwise, 0, 6);
    tcase_add_loop_test(tests, qlinear_conv, 0, 2);
    tcase_add_test(tests, integer_products);
    tcase_add_test(tests, scaled_integer_products);
    tcase_add_loop_test(tests, qgemm, 0, 2);
    tcase_add_loop_test(tests, qlinear_others, 0, 6);
    tcase_add_loop_test(tests, caches_of_codes, 0, 2);
    tcase_add_loop_test(tests, qattention, 0, 2);
    tcase_add_loop_test(tests, weights_that_the_graph_rounds, 0, 3);
    tcase_add_test(tests, blocks_that_do_not_fit);
    tcase_add_test(tests, scales_that_do_not_fit);
    suite_add_tcase(suite, tests);
    return suite;
}
