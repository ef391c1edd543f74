/* The importer: what onnxruntime's optimizer fuses into operators of com.microsoft, against plain
 * loops over the same numbers. */
#include "tests/unit/test_front.h"

#include "ir/eval.h"

#include <math.h>
#include <string.h>

#define F32 1
#define I32 6

/* Sizes of attentions: batch, heads, rows, keys before, all keys, numbers of a head, of the input.
 */
enum { B = 2, H = 2, S = 3, P = 2, T = P + S, D = 4, N = H * D, K = 5 };

/* Numbers between -1 and 1, others for each seed. */
static void fill(float *x, size_t n, unsigned seed) {
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) * 0x1p-23F - 1;
    }
}

static nb_tensor tensor(nb_elem elem, void *data, int rank, const int64_t *dims) {
    nb_tensor t = {.elem = elem, .rank = rank, .data = data};
    memcpy(t.dims, dims, (size_t)rank * sizeof *dims);
    t.bytes = 4 * nb_tensor_count(&t);
    return t;
}
#define TENSOR(elem, data, ...) \
    tensor(elem, data, (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), (const int64_t[]){__VA_ARGS__})

/* One node `op` from `inputs` to y, z and w. */
static void run(const char *op, wire ports, const char *inputs, const char *outputs,
                wire attributes, const nb_tensor *in, nb_tensor *out) {
    nb_status status;
    nb_diags *diags = nb_diags_create(front_arena(), op);
    wire results = NONE;
    for (const char *name = outputs; *name; name += name[1] ? 2 : 1)
        results = W(results, front_put(12, front_text(1, (const char[]){*name, 0})));
    nb_graph *g = front_import(
        front_model(
            17,
            W(ports, front_domain_node("com.microsoft", op, inputs, outputs, attributes), results)),
        diags, &status);
    ck_assert_msg(g != NULL, "%s", g ? "" : nb_diag_render(front_arena(), diags->list.items[0]));
    status = nb_eval(g, in, out, NULL, 0, front_arena(), diags);
    ck_assert_msg(status == NB_OK, "%s",
                  status == NB_OK ? "" : nb_diag_render(front_arena(), diags->list.items[0]));
    nb_graph_destroy(g);
}

static void near(const nb_tensor *t, const float *want, int64_t n) {
    ck_assert_int_eq(nb_tensor_count(t), n);
    for (int64_t i = 0; i < n; i++)
        ck_assert_msg(fabs(nb_tensor_get(t, i) - (double)want[i]) < 1e-5,
                      "element %lld is %g, expected %g", (long long)i, nb_tensor_get(t, i),
                      (double)want[i]);
}

/* ---- attention ------------------------------------------------------------------------------ */

typedef float heads[B][H][T][D];

/* cap * tanh(x / cap) of scores, and one more score for each head that no value belongs to. */
static float cap;
static const float *sinks;

/* softmax(q k / sqrt(D) + add) v */
static void attend(float q[B][S][N], heads k, heads v, int keys, float add_[B][H][S][T],
                   float y[B][S][N]) {
    for (int b = 0; b < B; b++)
        for (int h = 0; h < H; h++)
            for (int s = 0; s < S; s++) {
                double score[T], all = 0, most = -INFINITY;
                for (int t = 0; t < keys; t++) {
                    double dot = 0;
                    for (int d = 0; d < D; d++)
                        dot += (double)q[b][s][h * D + d] * (double)k[b][h][t][d];
                    dot /= sqrt(D);
                    if (cap > 0) dot = (double)cap * tanh(dot / (double)cap);
                    score[t] = dot + (double)add_[b][h][s][t];
                    most = fmax(most, score[t]);
                }
                if (sinks) most = fmax(most, (double)sinks[h]);
                if (sinks) all = exp((double)sinks[h] - most);
                for (int t = 0; t < keys; t++) all += score[t] = exp(score[t] - most);
                for (int d = 0; d < D; d++) {
                    double sum = 0;
                    for (int t = 0; t < keys; t++) sum += score[t] / all * (double)v[b][h][t][d];
                    y[b][s][h * D + d] = (float)sum;
                }
            }
}

static float q[B][S][N], k[B][S][N], v[B][S][N], projected[3 * N], past[2][B][H][P][D],
    scores[H][S][T], add[B][H][S][T], want[B][S][N];
static heads all_k, all_v;

/* Keys and values [B,S,N] as heads, behind those of the past if they are. */
static void place(float x[B][S][N], float before[B][H][P][D], heads out) {
    for (int b = 0; b < B; b++)
        for (int h = 0; h < H; h++)
            for (int d = 0; d < D; d++) {
                for (int p = 0; p < P && before; p++) out[b][h][p][d] = before[b][h][p][d];
                for (int s = 0; s < S; s++) out[b][h][s + (before ? P : 0)][d] = x[b][s][h * D + d];
            }
}

static void fill_all(void) {
    fill(&q[0][0][0], B * S * N, 1);
    fill(&k[0][0][0], B * S * N, 2);
    fill(&v[0][0][0], B * S * N, 3);
    fill(projected, 3 * N, 4);
    fill(&past[0][0][0][0][0], 2 * B * H * P * D, 5);
    fill(&scores[0][0][0], H * S * T, 6);
}

/* With everything it takes: a bias of the projections, a mask, a bias of the scores, a past. */
START_TEST(multi_head_attention) {
    static int32_t mask[B][T] = {{1, 1, 1, 1, 1}, {0, 1, 1, 0, 1}};
    fill_all();
    nb_tensor in[] = {TENSOR(NB_F32, q, B, S, N),          TENSOR(NB_F32, k, B, S, N),
                      TENSOR(NB_F32, v, B, S, N),          TENSOR(NB_F32, projected, 3 * N),
                      TENSOR(NB_I32, mask, B, T),          TENSOR(NB_F32, scores, 1, H, S, T),
                      TENSOR(NB_F32, past[0], B, H, P, D), TENSOR(NB_F32, past[1], B, H, P, D)};
    nb_tensor out[3];
    run("MultiHeadAttention",
        W(front_input("q", F32, "B,S,8"), front_input("k", F32, "B,L,8"),
          front_input("v", F32, "B,L,8"), front_input("b", F32, "24"), front_input("m", I32, "B,T"),
          front_input("a", F32, "1,2,S,T"), front_input("pk", F32, "B,2,P,4"),
          front_input("pv", F32, "B,2,P,4")),
        "q,k,v,b,m,a,pk,pv", "y,z,w", W(front_int("num_heads", H), front_int("unidirectional", 1)),
        in, out);
    for (int i = 0; i < B * S; i++)
        for (int n = 0; n < N; n++) {
            (&q[0][0][0])[i * N + n] += projected[n];
            (&k[0][0][0])[i * N + n] += projected[N + n];
            (&v[0][0][0])[i * N + n] += projected[2 * N + n];
        }
    place(k, past[0], all_k);
    place(v, past[1], all_v);
    for (int b = 0; b < B; b++)
        for (int h = 0; h < H; h++)
            for (int s = 0; s < S; s++)
                for (int t = 0; t < T; t++)
                    add[b][h][s][t] = scores[h][s][t] + (mask[b][t] ? 0 : -10000.0F) +
                                      (t <= s + P ? 0 : -10000.0F);
    attend(q, all_k, all_v, T, add, want);
    near(&out[0], &want[0][0][0], B * S * N);
    near(&out[1], &all_k[0][0][0][0], B * H * T * D);
    near(&out[2], &all_v[0][0][0][0], B * H * T * D);
}
END_TEST

/* Of a decoder on an encoder: keys and values have heads already. */
START_TEST(cross_attention) {
    fill_all();
    place(k, past[0], all_k);
    place(v, past[1], all_v);
    memset(add, 0, sizeof add);
    nb_tensor in[] = {TENSOR(NB_F32, q, B, S, N), TENSOR(NB_F32, all_k, B, H, T, D),
                      TENSOR(NB_F32, all_v, B, H, T, D)};
    nb_tensor out;
    run("MultiHeadAttention",
        W(front_input("q", F32, "B,S,8"), front_input("k", F32, "B,2,T,4"),
          front_input("v", F32, "B,2,T,4")),
        "q,k,v", "y", front_int("num_heads", H), in, &out);
    attend(q, all_k, all_v, T, add, want);
    near(&out, &want[0][0][0], B * S * N);
}
END_TEST

/* x w + b are queries, keys and values; the mask says where each row's keys end, where they end and
 * begin, or which count: of all, or for each row of all there can be. */
START_TEST(attention) {
    enum { ENDS, BOUNDS, KEYS, SQUARE, M = 7 };
    static const char *const types[] = {"B", "4", "B,T", "B,1,7,7"};
    static float x[B][S][K], w[K][3 * N];
    static int32_t ends[2 * B] = {3, 2, 1, 0}, mask[B][T] = {{1, 1, 0, 1, 1}, {1, 1, 1, 1, 0}},
                            square[B][M][M];
    const bool with_past = _i >= KEYS;
    for (int i = 0; i < B * M * M; i++) (&square[0][0][0])[i] = i % 3 > 0;
    fill_all();
    fill(&x[0][0][0], B * S * K, 7);
    fill(&w[0][0], K * 3 * N, 8);
    nb_tensor in[] = {TENSOR(NB_F32, x, B, S, K), TENSOR(NB_F32, w, K, 3 * N),
                      TENSOR(NB_F32, projected, 3 * N),
                      _i == SQUARE ? TENSOR(NB_I32, square, B, 1, M, M)
                      : with_past  ? TENSOR(NB_I32, mask, B, T)
                                   : TENSOR(NB_I32, ends, _i == BOUNDS ? 2 * B : B),
                      TENSOR(NB_F32, past, 2, B, H, P, D)};
    nb_tensor out[2];
    wire ports =
        W(front_input("x", F32, _i == BOUNDS ? "2,S,5" : "B,S,5"), front_input("w", F32, "5,24"),
          front_input("b", F32, "24"), front_input("m", I32, types[_i]));
    if (with_past) ports = W(ports, front_input("p", F32, "2,B,2,P,4"));
    run("Attention", ports, with_past ? "x,w,b,m,p" : "x,w,b,m", with_past ? "y,z" : "y",
        front_int("num_heads", H), in, out);
    for (int i = 0; i < B * S; i++)
        for (int n = 0; n < 3 * N; n++) {
            double sum = (double)projected[n];
            for (int c = 0; c < K; c++) sum += (double)(&x[0][0][0])[i * K + c] * (double)w[c][n];
            float *to = n < N ? &q[0][0][0] : n < 2 * N ? &k[0][0][0] : &v[0][0][0];
            to[i * N + n % N] = (float)sum;
        }
    place(k, with_past ? past[0] : NULL, all_k);
    place(v, with_past ? past[1] : NULL, all_v);
    for (int b = 0; b < B; b++)
        for (int h = 0; h < H; h++)
            for (int s = 0; s < S; s++)
                for (int t = 0; t < T; t++) {
                    const bool seen = _i == SQUARE ? square[b][P + s][t]
                                      : with_past  ? mask[b][t]
                                                  : t < ends[b] && (_i == ENDS || t >= ends[B + b]);
                    add[b][h][s][t] = seen ? 0 : -10000.0F;
                }
    attend(q, all_k, all_v, with_past ? T : S, add, want);
    near(&out[0], &want[0][0][0], B * S * N);
    if (!with_past) return;
    for (int64_t i = 0; i < B * H * T * D; i++) {
        ck_assert_float_eq_tol(((float *)out[1].data)[i], (&all_k[0][0][0][0])[i], 1e-5F);
        ck_assert_float_eq_tol(((float *)out[1].data)[B * H * T * D + i], (&all_v[0][0][0][0])[i],
                               1e-5F);
    }
}
END_TEST

/* A decoder's: one group of keys for both heads, causal, the last two keys only, a bias, a cap and
 * sinks; each by itself too. */
START_TEST(group_query_attention) {
    enum { WINDOW = 1, BIAS = 2, CAP = 4, SINKS = 8, SMOOTH = 16 };
    static const int kinds[] = {0, WINDOW, BIAS, CAP, SINKS, SMOOTH, WINDOW | BIAS | CAP | SINKS};
    static const float given[H] = {0.75F, -0.5F}, none[H];
    static int32_t last[B] = {T - 1, T - 1}, total = T;
    const int kind = kinds[_i];
    static float one_k[B][S][D], one_v[B][S][D], one_past[2][B][P][D];
    fill_all();
    fill(&one_k[0][0][0], B * S * D, 11);
    fill(&one_v[0][0][0], B * S * D, 12);
    fill(&one_past[0][0][0][0], 2 * B * P * D, 13);
    nb_tensor in[] = {TENSOR(NB_F32, q, B, S, N),
                      TENSOR(NB_F32, one_k, B, S, D),
                      TENSOR(NB_F32, one_v, B, S, D),
                      TENSOR(NB_F32, one_past[0], B, 1, P, D),
                      TENSOR(NB_F32, one_past[1], B, 1, P, D),
                      TENSOR(NB_I32, last, B),
                      {.elem = NB_I32, .data = &total, .bytes = 4},
                      TENSOR(NB_F32, scores, 1, H, S, T),
                      TENSOR(NB_F32, (void *)(uintptr_t)given, H)};
    nb_tensor out[3];
    const bool bias = kind & BIAS, sunk = kind & SINKS;
    if (!bias) in[7] = in[8];
    wire ports =
        W(front_input("q", F32, "B,S,8"), front_input("k", F32, "B,S,4"),
          front_input("v", F32, "B,S,4"), front_input("pk", F32, "B,1,P,4"),
          front_input("pv", F32, "B,1,P,4"), front_input("n", I32, "B"), front_input("t", I32, ""));
    ports = W(ports, bias ? front_input("a", F32, "1,2,S,T") : NONE,
              sunk ? front_input("s", F32, "2") : NONE);
    run("GroupQueryAttention", ports,
        sunk   ? bias ? "q,k,v,pk,pv,n,t,,,,a,s" : "q,k,v,pk,pv,n,t,,,,,s"
        : bias ? "q,k,v,pk,pv,n,t,,,,a"
               : "q,k,v,pk,pv,n,t",
        "y,z,w",
        W(front_int("num_heads", H), front_int("kv_num_heads", 1),
          kind & WINDOW ? front_int("local_window_size", 2) : NONE,
          kind & CAP ? front_float("softcap", 0.5F) : NONE,
          kind & SMOOTH ? front_int("smooth_softmax", 1) : NONE),
        in, out);
    for (int b = 0; b < B; b++)
        for (int h = 0; h < H; h++)
            for (int t = 0; t < T; t++)
                for (int d = 0; d < D; d++) {
                    all_k[b][h][t][d] = t < P ? one_past[0][b][t][d] : one_k[b][t - P][d];
                    all_v[b][h][t][d] = t < P ? one_past[1][b][t][d] : one_v[b][t - P][d];
                }
    for (int b = 0; b < B; b++)
        for (int h = 0; h < H; h++)
            for (int s = 0; s < S; s++)
                for (int t = 0; t < T; t++) {
                    const int behind = s + P - t;
                    const bool seen = behind >= 0 && (!(kind & WINDOW) || behind < 2);
                    add[b][h][s][t] = seen ? bias ? scores[h][s][t] : 0 : -INFINITY;
                }
    cap = kind & CAP ? 0.5F : 0;
    sinks = sunk ? given : kind & SMOOTH ? none : NULL;
    attend(q, all_k, all_v, T, add, want);
    cap = 0;
    sinks = NULL;
    near(&out[0], &want[0][0][0], B * S * N);
}
END_TEST

START_TEST(refused) {
    wire x = W(front_input("x", F32, "B,S,5"), front_zeros("w", "5,24"));
    wire y = front_put(12, front_text(1, "y"));
#define MS(op, inputs, attributes) \
    front_model(17, W(x, front_domain_node("com.microsoft", op, inputs, "y", attributes), y))
    front_expect(MS("Attention", "x,w", front_int("num_heads", 3)), NB_MALFORMED,
                 "3 heads in a width of 8");
    front_expect(MS("Attention", "x,w", W(front_int("num_heads", 2), front_int("do_rotary", 1))),
                 NB_UNSUPPORTED, "rotation");
    front_expect(MS("Attention", "x,w,,x", front_int("num_heads", 2)), NB_UNSUPPORTED,
                 "a mask of type f32[B,S,5], expected i32[B], i32[2*B], i32[B,T]");
    front_expect(MS("MultiHeadAttention", "x", front_int("num_heads", 1)), NB_MALFORMED,
                 "keys or values are missing");
    front_expect(MS("MultiHeadAttention", "x,x,x", front_int("num_heads", 2)), NB_MALFORMED,
                 "2 heads of f32[B,S,5]");
    front_expect(MS("FusedGemm", "w,w", front_string("activation", "Sine")), NB_MALFORMED,
                 "must be equal");
    front_expect(MS("EmbedLayerNormalization", "x,,w,w,,w,w", NONE), NB_MALFORMED,
                 "expected rank 2");
}
END_TEST

/* ---- others --------------------------------------------------------------------------------- */

START_TEST(refused_experts) {
    wire x = W(front_input("x", F32, "B,S,8"), front_input("r", F32, "T,3"));
    x = W(x, W(front_zeros("w", "3,4,8"), front_zeros("v", "3,8,4")));
    wire y = front_put(12, front_text(1, "y"));
    front_expect(MS("MoE", "x,r,w,,v", front_int("k", 4)), NB_MALFORMED, "k is 4 of 3 experts");
    front_expect(MS("MoE", "x,r,w", NONE), NB_MALFORMED, "input 4 is missing");
    front_expect(MS("MoE", "x,r,w,,w", NONE), NB_MALFORMED, "must be equal");
    front_expect(MS("MoE", "x,r,v,,v", NONE), NB_MALFORMED,
                 "the first matrices are f32[3,8,4], expected [3,4,8]");
    front_expect(MS("MoE", "x,r,w,r,v", NONE), NB_MALFORMED, "biases are f32[T,3], expected [3,4]");
    front_expect(MS("MoE", "x,r,w,,v", front_int("use_sparse_mixer", 1)), NB_UNSUPPORTED,
                 "use_sparse_mixer");
    front_expect(MS("MoE", "x,r,w,,v", front_string("activation_type", "sine")), NB_UNSUPPORTED,
                 "activation 'sine'");
    front_expect(MS("MoE", "x,r,w,,v", front_string("activation_type", "swiglu")), NB_MALFORMED,
                 "activation swiglu with swiglu_fusion=0 and no third matrices");
    x = W(x, W(front_zeros("many", "1025,1,1"), front_zeros("none", "3,8,0")));
    front_expect(MS("MoE", "x,r,many,,many", NONE), NB_LIMIT, "1025 experts, more than 1024");
    front_expect(MS("MoE", "x,r,none,,v", NONE), NB_MALFORMED, "expected [3,4,8]");
    front_expect(MS("QMoE", "x,r,w,r,,v,r", front_int("expert_weight_bits", 8)), NB_MALFORMED,
                 "rows of 8 codes of 8 bits in f32[3,4,8]");
    front_expect(MS("QMoE", "x,r,w,r,,v,r", front_int("expert_weight_bits", 16)), NB_UNSUPPORTED,
                 "weights of 16 bits");
    front_expect(MS("QMoE", "x,r,w,r,,v,r", front_string("quant_type", "fp4")), NB_UNSUPPORTED,
                 "matrices of fp4");
    front_expect(MS("MatMulNBitsMlp", "x,,,w,w,,w,w",
                    W(W(front_int("K", 8), front_int("N", 3)),
                      W(front_int("block_size", 16), front_string("activation", "gelu")))),
                 NB_UNSUPPORTED, "activation 'gelu'");
    front_expect(MS("MatMulNBitsQkv", "x,,,w,w",
                    W(W(front_int("K", 8), front_int("Nq", 3)),
                      W(front_int("block_size", 16), front_int("Nkv", 3)))),
                 NB_MALFORMED, "the weight is f32[3,4,8], expected u8");
    front_expect(MS("DynamicQuantizeLSTM", "x,w,w", NONE), NB_MALFORMED, "input 8 is missing");
}
END_TEST

START_TEST(embeddings) {
    static float words[7][N], places[5][N], kinds[2][N], gain[N], bias[N], sums[B * S][N],
        norms[B * S][N];
    static int32_t ids[B][S] = {{3, 0, 6}, {1, 1, 5}}, kind[B][S] = {{0, 1, 1}, {0, 0, 1}},
                   mask[B][S] = {{1, 1, 0}, {1, 1, 1}};
    fill(&words[0][0], 7 * N, 1);
    fill(&places[0][0], 5 * N, 2);
    fill(&kinds[0][0], 2 * N, 3);
    fill(gain, N, 4);
    fill(bias, N, 5);
    nb_tensor in[] = {TENSOR(NB_I32, ids, B, S),   TENSOR(NB_I32, kind, B, S),
                      TENSOR(NB_F32, words, 7, N), TENSOR(NB_F32, places, 5, N),
                      TENSOR(NB_F32, kinds, 2, N), TENSOR(NB_F32, gain, N),
                      TENSOR(NB_F32, bias, N),     TENSOR(NB_I32, mask, B, S)};
    nb_tensor out[3];
    run("EmbedLayerNormalization",
        W(front_input("i", I32, "B,S"), front_input("t", I32, "B,S"), front_input("w", F32, "7,8"),
          front_input("p", F32, "5,8"), front_input("k", F32, "2,8"), front_input("g", F32, "8"),
          front_input("b", F32, "8"), front_input("m", I32, "B,S")),
        "i,t,w,p,k,g,b,m", "y,z,s", NONE, in, out);
    for (int i = 0; i < B * S; i++) {
        double mean = 0, square = 0;
        for (int n = 0; n < N; n++) {
            sums[i][n] = words[(&ids[0][0])[i]][n] + places[i % S][n] + kinds[(&kind[0][0])[i]][n];
            mean += (double)sums[i][n] / N;
        }
        for (int n = 0; n < N; n++) square += pow((double)sums[i][n] - mean, 2) / N;
        for (int n = 0; n < N; n++)
            norms[i][n] = (float)(((double)sums[i][n] - mean) / sqrt(square)) * gain[n] + bias[n];
    }
    near(&out[0], &norms[0][0], B * S * N);
    near(&out[1], (const float[]){2, 3}, B);
}
END_TEST

START_TEST(products_with_activations) {
    static float a[3][K], b[K][2], c[2], y[3][2], image[1][K][3], sums[1][2][3];
    fill(&a[0][0], 3 * K, 1);
    fill(&b[0][0], K * 2, 2);
    fill(c, 2, 3);
    nb_tensor in[] = {TENSOR(NB_F32, a, 3, K), TENSOR(NB_F32, b, K, 2), TENSOR(NB_F32, c, 2)}, out;
    wire leaky = W(front_string("activation", "LeakyRelu"), front_float("activation_alpha", 0.1F),
                   front_float("alpha", 2));
    run("FusedGemm",
        W(front_input("a", F32, "M,5"), front_input("b", F32, "5,2"), front_input("c", F32, "2")),
        "a,b,c", "y", leaky, in, &out);
    for (int i = 0; i < 3; i++)
        for (int n = 0; n < 2; n++) {
            float sum = c[n];
            for (int j = 0; j < K; j++) sum += 2 * a[i][j] * b[j][n];
            y[i][n] = sum < 0 ? 0.1F * sum : sum;
        }
    near(&out, &y[0][0], 6);

    /* A kernel of one element, what is added, and bounds. */
    static float kernel[2][K];
    fill(&image[0][0][0], K * 3, 4);
    fill(&kernel[0][0], 2 * K, 5);
    fill(&sums[0][0][0], 6, 6);
    nb_tensor parts[] = {TENSOR(NB_F32, image, 1, K, 3), TENSOR(NB_F32, kernel, 2, K, 1),
                         TENSOR(NB_F32, c, 2), TENSOR(NB_F32, sums, 1, 2, 3)};
    const float bounds[] = {-0.25F, 0.5F};
    wire clip = W(front_string("activation", "Clip"),
                  front_put(5, W(front_text(1, "activation_params"), front_fixed(7, bounds[0]),
                                 front_fixed(7, bounds[1]), front_number(20, 6))));
    run("FusedConv",
        W(front_input("x", F32, "1,5,L"), front_input("k", F32, "2,5,1"),
          front_input("c", F32, "2"), front_input("z", F32, "1,2,L")),
        "x,k,c,z", "y", clip, parts, &out);
    for (int m = 0; m < 2; m++)
        for (int l = 0; l < 3; l++) {
            float sum = c[m] + sums[0][m][l];
            for (int j = 0; j < K; j++) sum += image[0][j][l] * kernel[m][j];
            (&y[0][0])[m * 3 + l] = fminf(fmaxf(sum, bounds[0]), bounds[1]);
        }
    near(&out, &y[0][0], 6);
}
END_TEST

/* Operators that ONNX took over from com.microsoft are the same there. */
START_TEST(taken_over) {
    enum { L = 4, M = 3 };
    static float x[B][2][L], kernel[2][1][M], before[B][2][M - 1], y[B][2][L], one[K];
    fill(&x[0][0][0], B * 2 * L, 1);
    fill(&kernel[0][0][0], 2 * M, 2);
    fill(&before[0][0][0], B * 2 * (M - 1), 3);
    fill(one, K, 4);
    nb_tensor in[] = {TENSOR(NB_F32, x, B, 2, L), TENSOR(NB_F32, kernel, 2, 1, M),
                      TENSOR(NB_F32, before, B, 2, M - 1)},
              out[2];
    wire ports = W(front_input("x", F32, "B,2,L"), front_input("k", F32, "2,1,3"),
                   front_input("p", F32, "B,2,2"));
    run("CausalConvWithState", ports, "x,k,,p", "y,z",
        W(front_int("ndim", 1), front_string("activation", "silu")), in, out);
    for (int i = 0; i < B * 2; i++)
        for (int l = 0; l < L; l++) {
            float sum = 0;
            for (int m = 0; m < M; m++) {
                const int at = l + m - (M - 1);
                const float entry = at < 0 ? (&before[0][0][0])[i * (M - 1) + at + M - 1]
                                           : (&x[0][0][0])[i * L + at];
                sum += (&kernel[0][0][0])[i % 2 * M + m] * entry;
            }
            (&y[0][0][0])[i * L + l] = sum / (1 + expf(-sum));
        }
    near(&out[0], &y[0][0][0], B * 2 * L);
    for (int i = 0; i < B * 2; i++)
        for (int m = 0; m < M - 1; m++)
            ck_assert(((float *)out[1].data)[i * (M - 1) + m] ==
                      (&x[0][0][0])[i * L + L - (M - 1) + m]);

    /* A state that what is added to it decays: of heads of one number, S = e^g S + k v, y = q S. */
    nb_tensor parts[] = {TENSOR(NB_F32, one, 1, K, 1)};
    run("LinearAttention", front_input("x", F32, "1,S,1"), "x,x,x,,x", "y",
        W(front_int("q_num_heads", 1), front_int("kv_num_heads", 1),
          front_string("update_rule", "gated")),
        parts, out);
    float state = 0, want_[K];
    for (int i = 0; i < K; i++) {
        state = expf(one[i]) * state + one[i] * one[i];
        want_[i] = one[i] * state;
    }
    near(&out[0], want_, K);

    run("QuickGelu", front_input("x", F32, "1,S,1"), "x", "y", NONE, parts, out);
    for (int i = 0; i < K; i++) want_[i] = one[i] / (1 + expf(-1.702F * one[i]));
    near(&out[0], want_, K);
}
END_TEST

Suite *nb_suite_front_fused(void) {
    Suite *suite = suite_create("front_fused");
    TCase *tests = tcase_create("front_fused");
    tcase_add_checked_fixture(tests, front_begin, front_end);
    tcase_add_test(tests, multi_head_attention);
    tcase_add_test(tests, cross_attention);
    tcase_add_loop_test(tests, attention, 0, 4);
    tcase_add_loop_test(tests, group_query_attention, 0, 7);
    tcase_add_test(tests, refused);
    tcase_add_test(tests, refused_experts);
    tcase_add_test(tests, embeddings);
    tcase_add_test(tests, products_with_activations);
    tcase_add_test(tests, taken_over);
    suite_add_tcase(suite, tests);
    return suite;
}
