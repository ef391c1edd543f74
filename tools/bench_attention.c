/* nibble bench --attention B,H,G,S,T,D: one attention through the compiled model's entry point.
 *
 * The model has several copies of it, each with keys and values of its own, so that for few
 * queries they come from memory as a long cache does. Sizes but those of heads are told at run
 * time, as in a decoder. Contents are random; before the clock starts, the first and the last query
 * of every head are compared with the evaluator, bit for bit. */
#include "tools/bench.h"

#include "ir/build.h"
#include "runtime/cpu.h"
#include "tools/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE   ((size_t)2 << 20)
#define FEW_QUERIES 8 /* below, memory is what limits */

/* A type of cache: what its elements are, how many stand in one, and how many tensors beside them:
 * of codes in 8 bits scales, of those in 4 bits scales and minima. */
typedef struct cache_type {
    const char *name;
    nb_elem elem;
    int packed, beside;
} cache_type;

static const cache_type types[] = {{"f32", NB_F32, 1, 0},
                                   {"f16", NB_F16, 1, 0},
                                   {"bf16", NB_BF16, 1, 0},
                                   {"i8", NB_I8, 1, 1},
                                   {"i4", NB_U8, 2, 2}};
#define GROUP      32 /* of codes in 4 bits */
#define MAX_INPUTS 7  /* queries, keys, values, and two beside each of these */

typedef struct shape {
    int64_t B, H, G, S, T, D;
    const cache_type *kv;
    int copies;
} shape;

static int64_t tokens(const shape *s) { return s->B * s->G * s->T; }
static int64_t element_bytes(const shape *s) {
    return tokens(s) * s->D / s->kv->packed * nb_elems[s->kv->elem].bits / 8;
}
/* Groups of a token and head that have a scale of their own. */
static int64_t groups(const shape *s) { return s->kv->packed > 1 ? nb_ceildiv(s->D, GROUP) : 1; }
static nb_elem beside_elem(const shape *s) { return s->kv->packed > 1 ? NB_F16 : NB_F32; }
/* Of one tensor that stands beside keys or values. */
static int64_t beside_bytes(const shape *s) {
    return tokens(s) * groups(s) * nb_elems[beside_elem(s)].bits / 8;
}
/* Bytes of the keys, or of the values. */
static int64_t cache_bytes(const shape *s) {
    return element_bytes(s) + s->kv->beside * beside_bytes(s);
}
static int n_inputs(const shape *s) { return 3 + 2 * s->kv->beside; }

/* ---- the graph ------------------------------------------------------------------------------ */

static nb_value *input(nb_graph *g, const char *name, int copy, nb_elem elem, int64_t heads,
                       const char *length, int64_t size) {
    const nb_dim *dims[4] = {
        nb_dim_symbol(g, nb_graph_symbol(g, "batch", false)), nb_dim_const(g, heads),
        nb_dim_symbol(g, nb_graph_symbol(g, length, false)), nb_dim_const(g, size)};
    return nb_graph_add_input(g, nb_format(g->arena, "%s%d", name, copy),
                              nb_type_intern(g, elem, NULL, 4, dims));
}

/* Codes of 8 bits have f32[B,G,T,1], those of 4 bits f16[B,G,N,T]. */
static nb_value *beside(nb_graph *g, const shape *s, const char *name, int copy) {
    nb_value *v = input(g, name, copy, beside_elem(s), s->G, "all", groups(s));
    const nb_dim *const *d = v->type->dims;
    if (s->kv->packed > 1)
        v->type = nb_type_with_dims(g, v->type, 4, (const nb_dim *[]){d[0], d[1], d[3], d[2]});
    return v;
}

static nb_graph *build(nbt_args *args, const shape *s, int copies) {
    static const char *const besides[] = {"k_scales", "v_scales", "k_minima", "v_minima"};
    nb_graph *g = nb_graph_create("attention", nbt_out_of_memory, NULL);
    nb_builder b = {.graph = g, .diags = args->diags};
    size_t n = (size_t)copies;
    nb_value **outputs = (nb_value **)nb_alloc_array(g->arena, n, sizeof *outputs),
             *(*inputs)[MAX_INPUTS] = nb_alloc_array(g->arena, n, sizeof *inputs);
    const char **names = (const char **)nb_alloc_array(g->arena, n, sizeof *names);
    for (int i = 0; i < copies; i++) {
        inputs[i][0] = input(g, "q", i, NB_F32, s->H, "new", s->D);
        inputs[i][1] = input(g, "k", i, s->kv->elem, s->G, "all", s->D / s->kv->packed);
        inputs[i][2] = input(g, "v", i, s->kv->elem, s->G, "all", s->D / s->kv->packed);
        for (int k = 3; k < n_inputs(s); k++) inputs[i][k] = beside(g, s, besides[k - 3], i);
    }
    bool built = true;
    for (int i = 0; i < copies && built; i++) {
        nb_begin(&b, NB_OP_attention);
        for (int k = 0; k < 3; k++) nb_arg(&b, inputs[i][k]);
        nb_arg(&b, NULL);
        for (int k = 3; k < n_inputs(s); k++) nb_arg(&b, inputs[i][k]);
        nb_set_float(&b, "scale", 1 / sqrtf((float)s->D));
        if (s->kv->packed > 1) nb_set_int(&b, "group", GROUP);
        outputs[i] = nb_end(&b);
        names[i] = nb_format(g->arena, "y%d", i);
        built = outputs[i] != NULL;
    }
    if (built) {
        nb_graph_set_outputs(g, n, outputs, names);
        built = nbt_plan(args, g) == NB_OK;
    }
    if (built) return g;
    nb_graph_destroy(g);
    return NULL;
}

/* ---- contents ------------------------------------------------------------------------------- */

/* All caches in one map, in huge pages where the system has them. */
typedef struct caches {
    char *map;
    size_t size;
    int64_t each; /* bytes of one, a multiple of 64 */
} caches;

static nb_tensor cache_tensor(const shape *s, const caches *c, int number) {
    return (nb_tensor){.elem = s->kv->elem,
                       .rank = 4,
                       .dims = {s->B, s->G, s->T, s->D / s->kv->packed},
                       .bytes = element_bytes(s),
                       .data = c->map + number * c->each};
}

/* Scales (0), minima (1): behind all codes. */
static nb_tensor beside_tensor(const shape *s, const caches *c, int number, int which) {
    int64_t at = nb_ceildiv(element_bytes(s), 4) * 4 + which * beside_bytes(s);
    bool last = s->kv->packed > 1; /* tokens lie behind each other */
    return (nb_tensor){.elem = beside_elem(s),
                       .rank = 4,
                       .dims = {s->B, s->G, last ? groups(s) : s->T, last ? s->T : 1},
                       .bytes = beside_bytes(s),
                       .data = c->map + number * c->each + at};
}

/* What copy number `copy` reads. */
static void set_inputs(const shape *s, const caches *c, int copy, nb_tensor q,
                       nb_tensor in[MAX_INPUTS]) {
    in[0] = q;
    for (int k = 0; k < 2; k++) {
        in[1 + k] = cache_tensor(s, c, 2 * copy + k);
        for (int i = 0; i < s->kv->beside; i++)
            in[3 + 2 * i + k] = beside_tensor(s, c, 2 * copy + k, i);
    }
}

static nb_status make_caches(nbt_args *args, const shape *s, caches *c) {
    c->each = nb_ceildiv(cache_bytes(s) + 4, 64) * 64;
    c->size = ((size_t)(c->each * 2 * s->copies) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    void *map = mmap(NULL, c->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return nb_error(args->diags, NB_LIMIT, NB_NOWHERE, "no memory for %zu bytes of caches",
                        c->size);
    madvise(map, c->size, MADV_HUGEPAGE);
    c->map = map;
    uint64_t state = 88172645463325252u;
    nb_elem elem = s->kv->elem;
    if (elem == NB_F32) {
        nbt_random_floats((float *)map, (int64_t)(c->size / 4), -1, 1, &state);
        return NB_OK;
    }
    /* Any codes, or random signs and mantissas of numbers from 0.5 to 1. */
    uint16_t keep = s->kv->beside    ? 0xffff
                    : elem == NB_F16 ? 0x83ff
                                     : 0x807f,
             exponent = s->kv->beside    ? 0
                        : elem == NB_F16 ? 0x3800
                                         : 0x3f00;
    uint64_t mask = keep * UINT64_C(0x0001000100010001),
             fixed = exponent * UINT64_C(0x0001000100010001);
    for (size_t i = 0; i < c->size / 8; i++)
        ((uint64_t *)map)[i] = (nbt_random(&state) & mask) | fixed;
    for (int i = 0; i < 2 * s->copies * s->kv->beside; i++) {
        nb_tensor t = beside_tensor(s, c, i / s->kv->beside, i % s->kv->beside);
        int64_t n = nb_tensor_count(&t);
        if (t.elem == NB_F32) nbt_random_floats(t.data, n, 0.005F, 0.01F, &state);
        for (int64_t k = 0; t.elem == NB_F16 && k < n; k++) /* from 0.0625 to 0.125 */
            ((uint16_t *)t.data)[k] = 0x2c00 | (nbt_random(&state) & 0x3ff);
    }
    return NB_OK;
}

static nb_tensor queries(nbt_args *args, const shape *s, int64_t n) {
    nb_tensor t = {.elem = NB_F32, .rank = 4, .dims = {s->B, s->H, n, s->D}};
    t.bytes = 4 * s->B * s->H * n * s->D;
    t.data = nb_alloc(args->arena, (size_t)t.bytes);
    return t;
}

/* ---- running -------------------------------------------------------------------------------- */

static nb_status check(nbt_args *args, const shape *s, nb_session *session, const caches *c,
                       const nb_tensor *q) {
    nb_graph *g = build(args, s, 1);
    if (!g) return NB_INTERNAL;
    nb_tensor in[MAX_INPUTS], want;
    set_inputs(s, c, 0, queries(args, s, 2), in);
    size_t row = (size_t)s->D;
    const float *from = q->data;
    float *two = in[0].data;
    for (int64_t i = 0; i < 2 * s->B * s->H; i++)
        memcpy(two + i * s->D, from + (i / 2 * s->S + i % 2 * (s->S - 1)) * s->D, 4 * row);
    nb_status status = nb_eval(g, in, &want, NULL, 0, args->arena, args->diags);
    const float *got = nb_session_output(session, 0, NULL), *expected = want.data;
    bool equal = status == NB_OK && got;
    for (int64_t i = 0; i < 2 * s->B * s->H && equal; i++)
        equal = memcmp(got + (i / 2 * s->S + i % 2 * (s->S - 1)) * s->D, expected + i * s->D,
                       4 * row) == 0;
    if (status == NB_OK && !equal)
        status = nb_error(args->diags, NB_CHECK_FAILED, NB_NOWHERE,
                          "compiled code and evaluator differ");
    nb_graph_destroy(g);
    return status;
}

static nb_status measure(nbt_args *args, const shape *s, nb_session *session, const caches *c,
                         nbt_work work, nbt_paced *out) {
    nb_error_text err;
    nb_tensor q = queries(args, s, s->S);
    uint64_t state = 1181783497276652981u;
    nbt_random_floats(q.data, q.bytes / 4, -1, 1, &state);
    for (int i = 0; i < s->copies; i++) {
        nb_tensor in[MAX_INPUTS];
        set_inputs(s, c, i, q, in);
        for (int k = 0; k < n_inputs(s); k++)
            NB_TRY(nbl_runtime_error(
                args->diags,
                nb_session_set_input(session, n_inputs(s) * i + k, in[k].data, in[k].dims, err),
                err));
    }
    NB_TRY(nbl_runtime_error(args->diags, nb_session_run(session, err), err));
    NB_TRY(check(args, s, session, c, &q));
    return nbt_time_runs(args, session, s->copies, work, out);
}

static double flops_of(const shape *s) {
    return 4.0 * (double)(s->B * s->H * s->S) * (double)(s->T * s->D);
}

/* Few queries are as fast as the cache is read. */
static nbt_work work_of(const shape *s) {
    if (s->S < FEW_QUERIES) return (nbt_work){NB_LIMIT_READ, 2.0 * (double)cache_bytes(s)};
    return (nbt_work){NB_LIMIT_FMA, flops_of(s)};
}

static void report(nbt_args *args, const shape *s, int threads, nbt_work work, const nbt_paced *p) {
    const nbl_times t = p->times;
    int64_t bytes = 2 * cache_bytes(s);
    double gbps = 1e-9 * (double)bytes / t.median, gflops = 1e-9 * flops_of(s) / t.median;
    if (nbt_has(args, "json")) {
        json_t *j = json_pack(
            "{s:[I,I,I,I,I,I], s:s, s:i, s:f, s:f, s:f, s:I, s:f, s:f, s:i}", "attention",
            (json_int_t)s->B, (json_int_t)s->H, (json_int_t)s->G, (json_int_t)s->S,
            (json_int_t)s->T, (json_int_t)s->D, "kv", s->kv->name, "threads", threads, "median_us",
            1e6 * t.median, "min_us", 1e6 * t.min, "max_us", 1e6 * t.max, "kv_bytes",
            (json_int_t)bytes, "gb_s", gbps, "gflop_s", gflops, "copies", s->copies);
        nbt_add_paced(j, work, p);
        nbt_print_json(j);
        return;
    }
    printf("%lld x %lld queries of %lld heads, %lld keys of %lld heads of %lld in %s, %d threads: "
           "%.2f us (%.2f to %.2f), %.2f GB/s, %.1f GFLOP/s; %d copies%s\n",
           (long long)s->B, (long long)s->S, (long long)s->H, (long long)s->T, (long long)s->G,
           (long long)s->D, s->kv->name, threads, 1e6 * t.median, 1e6 * t.min, 1e6 * t.max, gbps,
           gflops, s->copies, nbt_paced_text(args->arena, work, p));
}

static nb_status parse(nbt_args *args, shape *s) {
    const char *text = nbt_get(args, "attention"), *kv = nbt_get(args, "kv");
    long long n[6];
    char end;
    bool fits = sscanf(text, "%lld,%lld,%lld,%lld,%lld,%lld%c", &n[0], &n[1], &n[2], &n[3], &n[4],
                       &n[5], &end) == 6;
    for (int i = 0; i < 6 && fits; i++) fits = n[i] >= 1 && n[i] <= 65536;
    if (!fits || n[1] % n[2])
        return nb_error(args->diags, NB_USAGE, NB_NOWHERE,
                        "--attention takes six sizes B,H,G,S,T,D of 1 to 65536, H a multiple of G, "
                        "found '%s'",
                        text);
    *s = (shape){.B = n[0], .H = n[1], .G = n[2], .S = n[3], .T = n[4], .D = n[5]};
    for (size_t i = 0; i < NB_COUNT(types) && !s->kv; i++)
        if (!kv || strcmp(kv, types[i].name) == 0) s->kv = &types[i];
    if (!s->kv)
        return nb_error(args->diags, NB_USAGE, NB_NOWHERE,
                        "--kv is f32, f16, bf16, i8 or i4, found '%s'", kv);
    if (s->D % s->kv->packed)
        return nb_error(args->diags, NB_USAGE, NB_NOWHERE,
                        "--kv i4 holds two elements in a byte, found heads of %lld", n[5]);
    int64_t size = 1;
    for (int i = 0; i < 6; i++) size = i == 1 || i == 3 ? size : size * n[i];
    if (size > INT64_C(1) << 31 || s->B * s->H * s->S > (INT64_C(1) << 31) / s->D)
        return nb_error(args->diags, NB_USAGE, NB_NOWHERE, "'%s' is more than 2^31 elements", text);
    s->copies = s->S < FEW_QUERIES ? nbt_cold_copies(2 * cache_bytes(s)) : 1;
    return NB_OK;
}

nb_status nbt_bench_attention(nbt_args *args) {
    shape s;
    int threads;
    const cg_cpu *cpu;
    nbl_program program = {0};
    caches kept = {0};
    nb_session *session = NULL;
    nb_error_text err;
    NB_TRY(parse(args, &s));
    nbl_how how = {0};
    NB_TRY(nbt_choose_threads(args, &threads));
    if (!threads) threads = nb_cpu_count();
    NB_TRY(nbt_choose_cpu(args, "native", &cpu));
    nb_graph *g = build(args, &s, s.copies);
    if (!g) return nb_diags_status(args->diags);
    nb_status status = nbl_compile_graph(g, cpu, &how, args->arena, args->diags, &program);
    nb_graph_destroy(g);
    nb_session_options options = {.threads = threads};
    if (status == NB_OK) status = make_caches(args, &s, &kept);
    if (status == NB_OK)
        status = nbl_runtime_error(args->diags,
                                   nb_session_create(program.loaded, &options, &session, err), err);
    const nbt_work work = work_of(&s);
    nbt_paced paced;
    if (status == NB_OK) status = measure(args, &s, session, &kept, work, &paced);
    if (status == NB_OK) report(args, &s, threads, work, &paced);
    nb_session_destroy(session);
    if (kept.map) munmap(kept.map, kept.size);
    nbl_close(&program);
    return status;
}
