/* nibble bench --matmul M,K,N: one linear layer through the compiled model's entry point.
 *
 * The model has several copies of the layer, each with bytes and an input of its own, so that for
 * few rows no weight is found in a cache. Codes and scales are random; before the clock starts, two
 * rows are compared with the evaluator, bit for bit. */
#include "tools/bench.h"

#include "ir/build.h"
#include "lib/timing.h"
#include "passes/presets.h"
#include "runtime/cpu.h"
#include "tools/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FEW_ROWS 32 /* below, memory is what limits */

typedef struct layer {
    int64_t M, K, N, group; /* group 0: one scale for each column */
    nb_scheme scheme;
    bool zero_points;
    int copies;
} layer;

/* ---- the graph ------------------------------------------------------------------------------ */

static const nb_type *matrix(nb_graph *g, nb_elem elem, const nb_quant *q, int64_t rows,
                             int64_t columns) {
    const nb_dim *dims[2] = {nb_dim_const(g, rows), nb_dim_const(g, columns)};
    return nb_type_intern(g, elem, q, 2, dims);
}

/* Scales with 11 significant bits, as quantize-weights makes them. */
static nb_value *random_scales(nb_graph *g, const layer *w, uint64_t *state) {
    int64_t groups = w->group ? nb_ceildiv(w->K, w->group) : 1, dims[2] = {groups, w->N};
    int64_t n = groups * w->N;
    void *data;
    nb_blob *blob = nb_blob_create(4 * n, &data);
    if (!blob) return NULL;
    float *scales = data;
    nbt_random_floats(scales, n, 0.5f, 1, state);
    for (int64_t i = 0; i < n; i++) scales[i] = ldexpf(roundf(2048 * scales[i]), -18);
    const nb_type *t = matrix(g, NB_F32, NULL, dims[0], dims[1]);
    if (!w->group) {
        const nb_dim *one = nb_dim_const(g, w->N);
        t = nb_type_intern(g, NB_F32, NULL, 1, &one);
    }
    return nb_graph_add_const(g, "scales", t, blob, NULL);
}

static nb_value *random_bytes(nb_graph *g, const char *name, const nb_type *t, int64_t bytes,
                              uint64_t *state) {
    void *data;
    nb_blob *blob = nb_blob_create((bytes + 7) / 8 * 8, &data);
    if (!blob) return NULL;
    for (int64_t i = 0; i < (bytes + 7) / 8; i++) ((uint64_t *)data)[i] = nbt_random(state);
    blob->size = bytes;
    return nb_graph_add_const(g, name, t, blob, NULL);
}

static nb_value *random_weights(nb_graph *g, const layer *w, uint64_t *state, nb_diags *diags) {
    int bits = w->scheme.weight_bits;
    if (!bits) {
        void *data;
        nb_blob *blob = nb_blob_create(4 * w->K * w->N, &data);
        if (!blob) return NULL;
        nbt_random_floats(data, w->K * w->N, -1, 1, state);
        return nb_graph_add_const(g, "w", matrix(g, NB_F32, NULL, w->K, w->N), blob, NULL);
    }
    const nb_elem elem = nb_elem_integer(bits, !w->zero_points);
    nb_quant q = {.storage = elem, .scales = random_scales(g, w, state)};
    q.granularity = w->group ? NB_PER_GROUP : NB_PER_AXIS;
    q.axis = w->group ? 0 : 1;
    q.group = w->group;
    if (!q.scales) return NULL;
    if (w->zero_points) {
        const nb_type *s = q.scales->type;
        const nb_type *t = nb_type_intern(g, elem, NULL, s->rank, s->dims);
        int64_t n = q.scales->blob->size / 4;
        q.zeros = random_bytes(g, "zeros", t, (n * bits + 7) / 8, state);
        if (!q.zeros) return NULL;
    }
    const nb_quant *known = nb_quant_intern(g, &q, "w", diags);
    int64_t bytes = (w->K * w->N * bits + 7) / 8;
    return known ? random_bytes(g, "w", matrix(g, elem, known, w->K, w->N), bytes, state) : NULL;
}

static nb_value *layer_of(nb_builder *b, const layer *w, nb_value *x, uint64_t *state) {
    nb_value *weights = random_weights(b->graph, w, state, b->diags);
    if (!weights || !w->scheme.weight_bits) return nb_binary(b, NB_OP_matmul, x, weights);
    bool wide = w->scheme.act_bits == 16;
    nb_quant q = {.storage = wide ? NB_I16 : NB_I8,
                  .narrow = true,
                  .granularity = NB_PER_TOKEN,
                  .amax_code = wide ? 32639 : 127};
    nb_begin(b, NB_OP_quantize);
    nb_arg(b, x);
    nb_set_quant(b, "to", nb_quant_intern(b->graph, &q, "act", b->diags));
    nb_value *codes = nb_end(b);
    nb_begin(b, NB_OP_qmatmul);
    nb_arg(b, codes);
    nb_arg(b, weights);
    nb_arg(b, NULL);
    nb_arg(b, NULL);
    return nb_end(b);
}

static nb_graph *build(nbt_args *args, const layer *w, int copies) {
    nb_graph *g = nb_graph_create("matmul", nbt_out_of_memory, NULL);
    nb_builder b = {.graph = g, .diags = args->diags};
    nb_value **outputs = (nb_value **)nb_alloc_array(g->arena, (size_t)copies, sizeof *outputs);
    const char **names = (const char **)nb_alloc_array(g->arena, (size_t)copies, sizeof *names);
    nb_value **inputs = (nb_value **)nb_alloc_array(g->arena, (size_t)copies, sizeof *inputs);
    const nb_dim *dims[2] = {nb_dim_symbol(g, nb_graph_symbol(g, "rows", false)),
                             nb_dim_const(g, w->K)};
    for (int i = 0; i < copies; i++)
        inputs[i] = nb_graph_add_input(g, nb_format(g->arena, "x%d", i),
                                       nb_type_intern(g, NB_F32, NULL, 2, dims));
    uint64_t state = 88172645463325252u; /* the same in every graph: the first copies are equal */
    bool built = true;
    for (int i = 0; i < copies && built; i++) {
        outputs[i] = layer_of(&b, w, inputs[i], &state);
        names[i] = nb_format(g->arena, "y%d", i);
        built = outputs[i] != NULL;
    }
    if (built) {
        nb_graph_set_outputs(g, (size_t)copies, outputs, names);
        built = nbt_plan(args, g) == NB_OK;
    }
    if (built) return g;
    nb_graph_destroy(g);
    return NULL;
}

/* ---- running -------------------------------------------------------------------------------- */

static nb_tensor floats(nb_arena *arena, int64_t rows, int64_t columns) {
    nb_tensor t = {.elem = NB_F32, .rank = 2, .dims = {rows, columns}, .bytes = 4 * rows * columns};
    t.data = nb_alloc(arena, (size_t)t.bytes);
    return t;
}

/* First and last row of the first copy against the evaluator. */
static nb_status check(nbt_args *args, const layer *w, nb_session *session, const nb_tensor *x) {
    nb_graph *g = build(args, w, 1);
    if (!g) return NB_INTERNAL;
    nb_tensor two = floats(args->arena, 2, w->K), want;
    const float *from = x->data;
    memcpy(two.data, from, (size_t)(4 * w->K));
    memcpy((float *)two.data + w->K, from + (w->M - 1) * w->K, (size_t)(4 * w->K));
    nb_status status = nb_eval(g, &two, &want, NULL, 0, args->arena, args->diags);
    const float *got = nb_session_output(session, 0, NULL);
    if (status == NB_OK &&
        (memcmp(got, want.data, (size_t)(4 * w->N)) != 0 ||
         memcmp(got + (w->M - 1) * w->N, (const float *)want.data + w->N, (size_t)(4 * w->N)) != 0))
        status = nb_error(args->diags, NB_CHECK_FAILED, NB_NOWHERE,
                          "compiled code and evaluator differ");
    nb_graph_destroy(g);
    return status;
}

static nb_status measure(nbt_args *args, const layer *w, nb_session *session, nbt_work work,
                         nbt_paced *out) {
    nb_error_text err;
    nb_tensor x = floats(args->arena, w->M, w->K);
    uint64_t state = 1181783497276652981u;
    nbt_random_floats(x.data, w->M * w->K, -1, 1, &state);
    for (int i = 0; i < w->copies; i++)
        NB_TRY(nbl_runtime_error(args->diags, nb_session_set_input(session, i, x.data, x.dims, err),
                                 err));
    NB_TRY(nbl_runtime_error(args->diags, nb_session_run(session, err), err));
    NB_TRY(check(args, w, session, &x));
    return nbt_time_runs(args, session, w->copies, work, out);
}

/* Few rows are as fast as weights are read. */
static nbt_work work_of(const layer *w, int64_t bytes) {
    if (w->M < FEW_ROWS) return (nbt_work){NB_LIMIT_READ, (double)bytes};
    const nb_limit_kind kind = !w->scheme.weight_bits ? NB_LIMIT_FMA
                               : w->scheme.weight_bits == 4 && w->scheme.act_bits == 8
                                   ? NB_LIMIT_DOT_SMALL
                                   : NB_LIMIT_DOT;
    return (nbt_work){kind, 2.0 * (double)w->M * (double)w->K * (double)w->N};
}

static void report(nbt_args *args, const layer *w, int threads, nbt_weights where, nbt_work work,
                   const nbt_paced *p) {
    const nbl_times t = p->times;
    int64_t bytes = where.bytes / w->copies;
    double gbps = 1e-9 * (double)bytes / t.median,
           gops = 2e-9 * (double)w->M * (double)w->K * (double)w->N / t.median;
    if (nbt_has(args, "json")) {
        json_t *j = json_pack(
            "{s:[I,I,I], s:s, s:I, s:b, s:i, s:f, s:f, s:f, s:I, s:f, s:f, s:f, s:i, s:s, s:f}",
            "matmul", (json_int_t)w->M, (json_int_t)w->K, (json_int_t)w->N, "scheme",
            w->scheme.name, "group", (json_int_t)w->group, "zero_points", w->zero_points, "threads",
            threads, "median_us", 1e6 * t.median, "min_us", 1e6 * t.min, "max_us", 1e6 * t.max,
            "weight_bytes", (json_int_t)bytes, "bits_per_weight",
            8.0 * (double)bytes / (double)(w->K * w->N), "gb_s", gbps, "gop_s", gops, "copies",
            w->copies, "weights_in", where.in, "huge_share", where.huge_share);
        nbt_add_paced(j, work, p);
        nbt_print_json(j);
        return;
    }
    printf("%lldx%lldx%lld %s, %d threads: %.2f us (%.2f to %.2f), %.2f GB/s, %.1f GOP/s; "
           "%.2f bits per weight, %d copies in %s%s\n",
           (long long)w->M, (long long)w->K, (long long)w->N, w->scheme.name, threads,
           1e6 * t.median, 1e6 * t.min, 1e6 * t.max, gbps, gops,
           8.0 * (double)bytes / (double)(w->K * w->N), w->copies,
           nbt_where_text(args->arena, where), nbt_paced_text(args->arena, work, p));
}

static nb_status parse(nbt_args *args, layer *w) {
    const char *text = nbt_get(args, "matmul"), *scheme = nbt_get(args, "scheme");
    long long m, k, n;
    char end;
    if (sscanf(text, "%lld,%lld,%lld%c", &m, &k, &n, &end) != 3 || m < 1 || k < 1 || n < 1 ||
        m > 65536 || k > 65536 || n > (1 << 20))
        return nb_error(args->diags, NB_USAGE, NB_NOWHERE,
                        "--matmul takes three sizes M,K,N, found '%s'", text);
    *w = (layer){.M = m, .K = k, .N = n, .group = 32};
    NB_TRY(nbt_integer(args, "group", 0, 65536, &w->group));
    w->zero_points = nbt_has(args, "zero-points");
    if (!nb_scheme_find(scheme ? scheme : "f32", &w->scheme))
        return nb_error(args->diags, NB_USAGE, NB_NOWHERE,
                        "there is no scheme '%s'; schemes are %s", scheme,
                        nb_preset_names(args->arena));
    int64_t bits = w->scheme.weight_bits ? w->scheme.weight_bits : 32;
    w->copies = w->M < FEW_ROWS ? nbt_cold_copies(w->K * w->N * bits / 8) : 2;
    return NB_OK;
}

nb_status nbt_bench_matmul(nbt_args *args) {
    layer w;
    int threads;
    const cg_cpu *cpu;
    nbl_program program = {0};
    nb_session *session = NULL;
    nb_error_text err;
    NB_TRY(parse(args, &w));
    nbl_how how = {0};
    NB_TRY(nbt_choose_threads(args, &threads));
    if (!threads) threads = nb_cpu_count();
    NB_TRY(nbt_choose_pages(args, &how.pages));
    NB_TRY(nbt_choose_cpu(args, "native", &cpu));
    nb_graph *g = build(args, &w, w.copies);
    if (!g) return nb_diags_status(args->diags);
    nb_status status = nbl_compile_graph(g, cpu, &how, args->arena, args->diags, &program);
    nb_graph_destroy(g);
    nb_session_options options = {.threads = threads};
    if (status == NB_OK)
        status = nbl_runtime_error(args->diags,
                                   nb_session_create(program.loaded, &options, &session, err), err);
    if (status == NB_OK) {
        const nbt_weights where = nbt_where(&program);
        const nbt_work work = work_of(&w, where.bytes / w.copies);
        nbt_paced paced;
        status = measure(args, &w, session, work, &paced);
        if (status == NB_OK) report(args, &w, threads, where, work, &paced);
    }
    nb_session_destroy(session);
    nbl_close(&program);
    return status;
}
