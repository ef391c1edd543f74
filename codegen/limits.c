/* Loops that reach limits (limits.h). */
#include "codegen/limits.h"

#include "codegen/kernels/dot.h"
#include "codegen/model.h"

#define STEPS 8  /* of the dot product in a turn */
#define CHAIN 32 /* additions and exclusive ors in a turn of the clock's loop, half each */

static const char *const names[NB_LIMIT_COUNT] = {
    [NB_LIMIT_CLOCK] = "clock",
    [NB_LIMIT_DOT] = "dot",
    [NB_LIMIT_DOT_SMALL] = "dot_small",
    [NB_LIMIT_FMA] = "fma",
    [NB_LIMIT_BF16] = "bf16",
    [NB_LIMIT_READ] = "read",
    [NB_LIMIT_READ_AHEAD] = "read_ahead",
    [NB_LIMIT_READ_STREAMS] = "read_streams",
    [NB_LIMIT_READ_MANY] = "read_many",
};

/* Streams side by side, and how far ahead each is asked for, in bytes; 0: it is not. */
typedef struct reading {
    int streams, ahead;
} reading;

static const reading readings[NB_LIMIT_COUNT] = {
    [NB_LIMIT_READ] = {1, 0},
    [NB_LIMIT_READ_AHEAD] = {1, 4096},
    [NB_LIMIT_READ_STREAMS] = {4, 0},
    [NB_LIMIT_READ_MANY] = {6, 4096},
};

/* Accumulators of 16 lanes that stay in registers beside two operands. */
static int accumulators(const cg_cpu *cpu) {
    int each = 64 / cpu->isa->vector_bytes, n = (cpu->isa->registers - 4) / each;
    return n > 12 ? 12 : n < 1 ? 1 : n;
}

/* Parts of weights that a word of activations is multiplied with, and words: where a load takes a
 * product's place, more parts for each load. */
static int dot_parts(const cg_cpu *cpu, const nb_dot *dot) {
    return cpu->isa->vector_bytes == 64 && !dot->end ? 4 : 1;
}
static int dot_words(const cg_cpu *cpu, const nb_dot *dot) {
    return dot_parts(cpu, dot) > 1 ? 6 : accumulators(cpu);
}

/* Of a turn. */
static int64_t dot_work(const cg_cpu *cpu, int bits) {
    const nb_dot *dot = nb_dot_of(cpu->isa, bits, NB_I8, false);
    return 2 * STEPS * (64 / dot->act_bytes) * dot_parts(cpu, dot) * dot_words(cpu, dot);
}

int64_t nb_limit_work(const cg_cpu *cpu, nb_limit_kind kind) {
    switch (kind) {
    case NB_LIMIT_CLOCK:
        return CHAIN;
    case NB_LIMIT_DOT:
        return dot_work(cpu, 8);
    case NB_LIMIT_DOT_SMALL:
        return dot_work(cpu, 4);
    case NB_LIMIT_FMA:
        return (int64_t)2 * CG_LANES * accumulators(cpu);
    case NB_LIMIT_BF16:
        return (int64_t)4 * CG_LANES * accumulators(cpu);
    default:
        return NB_LIMIT_READ_BYTES;
    }
}

/* Dependent steps that no rule of arithmetic shortens. */
static void emit_clock(cg *g, cg_val n, cg_val sink) {
    cg_var x = cg_var_new(g, n);
    CG_FOR(g, i, cg_i64(g, 0), n, cg_i64(g, 1)) {
        cg_val v = cg_get(g, x);
        for (int k = 0; k < CHAIN / 2; k++) v = cg_xor(g, cg_addi(g, v, 0x55 + k), i);
        cg_set(g, x, v);
    }
    cg_store(g, cg_get(g, x), sink, 8);
}

/* Each turn multiplies STEPS times some parts of weights with some words, as a tile does. */
static void emit_dot(cg *g, cg_val buffer, cg_val n, cg_val sink, int bits) {
    const nb_dot *dot = nb_dot_of(cg_isa_of(g), bits, NB_I8, false);
    const int parts = dot_parts(cg_cpu_of(g), dot), count = parts * dot_words(cg_cpu_of(g), dot);
    cg_var acc[24];
    cg_val narrow[24], part[4];
    for (int i = 0; i < count; i++) acc[i] = cg_var_new(g, cg_zero(g, CG_V(CG_I32)));
    CG_FOR(g, i, cg_i64(g, 0), n, cg_i64(g, 1)) {
        for (int r = 0; r < count; r++) narrow[r] = cg_zero(g, (cg_type){CG_I16, 32});
        for (int k = 0; k < STEPS; k++) {
            cg_val at = cg_offset(g, buffer, cg_i64(g, 64 * k));
            cg_fence(g);
            for (int c = 0; c < parts; c++)
                part[c] = cg_load(g, (cg_type){CG_I8, 64}, cg_offset(g, at, cg_i64(g, 64 * c)), 64);
            for (int r = 0; r < count; r++) {
                cg_val from = cg_offset(g, at, cg_i64(g, 512 + 4 * (r / parts))),
                       word = cg_load(g, CG_S(CG_I32), from, 4);
                if (dot->end)
                    narrow[r] = dot->step(g, narrow[r], part[r % parts], word);
                else
                    cg_set(g, acc[r],
                           cg_pin(g, dot->step(g, cg_get(g, acc[r]), part[r % parts], word)));
            }
        }
        for (int r = 0; dot->end && r < count; r++)
            cg_set(g, acc[r], dot->end(g, cg_get(g, acc[r]), narrow[r]));
    }
    cg_val all = cg_get(g, acc[0]);
    for (int r = 1; r < count; r++) all = cg_xor(g, all, cg_get(g, acc[r]));
    cg_store(g, all, sink, 64);
}

static void emit_fma(cg *g, cg_val buffer, cg_val n, cg_val sink) {
    cg_var acc[12];
    int count = accumulators(cg_cpu_of(g));
    for (int r = 0; r < count; r++) acc[r] = cg_var_new(g, cg_zero(g, CG_V(CG_F32)));
    cg_val x = cg_load(g, CG_V(CG_F32), buffer, 64);
    CG_FOR(g, i, cg_i64(g, 0), n, cg_i64(g, 1)) {
        for (int r = 0; r < count; r++) cg_set(g, acc[r], cg_fma(g, x, x, cg_get(g, acc[r])));
    }
    cg_val all = cg_get(g, acc[0]);
    for (int r = 1; r < count; r++) all = cg_add(g, all, cg_get(g, acc[r]));
    cg_store(g, all, sink, 64);
}

/* Each turn widens 32 bf16, two to a lane, and multiplies them with two f32 for each accumulator.
 */
static void emit_bf16(cg *g, cg_val buffer, cg_val n, cg_val sink) {
    cg_var acc[12];
    int count = accumulators(cg_cpu_of(g));
    for (int r = 0; r < count; r++) acc[r] = cg_var_new(g, cg_zero(g, CG_V(CG_F32)));
    CG_FOR(g, i, cg_i64(g, 0), n, cg_i64(g, 1)) {
        cg_val at = cg_offset(g, buffer, cg_muli(g, cg_andi(g, i, 3), 64));
        for (int half = 0; half < 2; half++) {
            cg_fence(g);
            cg_val pairs = cg_load(g, CG_V(CG_I32), at, 64),
                   bits = half ? cg_andi(g, pairs, -65536) : cg_shli(g, pairs, 16),
                   part = cg_bitcast(g, bits, CG_V(CG_F32));
            for (int r = 0; r < count; r++) {
                cg_val from = cg_offset(g, at, cg_i64(g, 512 + 8 * r + 4 * half)),
                       x = cg_splat(g, cg_load(g, CG_S(CG_F32), from, 4), CG_LANES);
                cg_set(g, acc[r], cg_fma(g, x, part, cg_get(g, acc[r])));
            }
        }
    }
    cg_val all = cg_get(g, acc[0]);
    for (int r = 1; r < count; r++) all = cg_add(g, all, cg_get(g, acc[r]));
    cg_store(g, all, sink, 64);
}

/* Places at equal distances are read in turn, 256 bytes each. */
static void emit_read(cg *g, cg_val buffer, cg_val n, cg_val sink, const reading *how) {
    cg_var acc[4];
    for (int k = 0; k < 4; k++) acc[k] = cg_var_new(g, cg_zero(g, CG_V(CG_I32)));
    cg_val part = cg_muli(g, n, NB_LIMIT_READ_BYTES / how->streams);
    CG_FOR(g, i, cg_i64(g, 0), part, cg_i64(g, 256)) {
        for (int s = 0; s < how->streams; s++) {
            cg_val at = cg_offset(g, buffer, cg_add(g, i, cg_muli(g, part, s)));
            for (int k = 0; k < 4; k++) {
                cg_val line = cg_offset(g, at, cg_i64(g, 64 * k));
                if (how->ahead) cg_prefetch(g, cg_offset(g, line, cg_i64(g, how->ahead)), 3);
                cg_set(g, acc[k], cg_xor(g, cg_get(g, acc[k]), cg_load(g, CG_V(CG_I32), line, 64)));
            }
        }
    }
    cg_val all = cg_get(g, acc[0]);
    for (int k = 1; k < 4; k++) all = cg_xor(g, all, cg_get(g, acc[k]));
    cg_store(g, all, sink, 64);
}

static void emit(cg_module *m, nb_limit_kind kind) {
    const cg_type params[] = {CG_S(CG_PTR), CG_S(CG_I64), CG_S(CG_PTR)};
    cg *g = cg_function(m, names[kind], CG_S(CG_VOID), 3, params, CG_EXPORTED);
    cg_val buffer = cg_param(g, 0), n = cg_param(g, 1), sink = cg_param(g, 2);
    if (kind == NB_LIMIT_CLOCK)
        emit_clock(g, n, sink);
    else if (kind == NB_LIMIT_FMA)
        emit_fma(g, buffer, n, sink);
    else if (kind == NB_LIMIT_BF16)
        emit_bf16(g, buffer, n, sink);
    else if (kind == NB_LIMIT_DOT || kind == NB_LIMIT_DOT_SMALL)
        emit_dot(g, buffer, n, sink, kind == NB_LIMIT_DOT ? 8 : 4);
    else
        emit_read(g, buffer, n, sink, &readings[kind]);
    cg_finish(g);
}

static nb_status generate(void *user, nb_arena *arena, nb_diags *diags, nb_object *out) {
    const cg_cpu *cpu = (const cg_cpu *)user;
    const char *error = NULL;
    cg_module *m = cg_module_create(arena, cpu, "limits", false, &error);
    if (!m)
        return nb_error(diags, NB_UNSUPPORTED, NB_NOWHERE, "codegen: %s: %s", cpu->triple, error);
    for (nb_limit_kind kind = 0; kind < NB_LIMIT_COUNT; kind++) emit(m, kind);
    nb_status status = nb_module_emit(m, NB_FORMAT_OBJECT, arena, diags, out);
    cg_module_destroy(m);
    return status;
}

nb_status nb_limits_compile(const cg_cpu *cpu, nb_arena *arena, nb_diags *diags, nb_limits *out) {
    nb_object object;
    NB_TRY(nb_worker_run(generate, (void *)(uintptr_t)cpu, 60, arena, diags, &object));
    NB_TRY(nb_jit_open(&object, diags, &out->jit));
    for (int k = 0; k < NB_LIMIT_COUNT; k++) {
        void *symbol;
        nb_status status = nb_jit_symbol(out->jit, names[k], diags, &symbol);
        if (status != NB_OK) {
            nb_jit_free(out->jit);
            return status;
        }
        out->run[k] = (nb_limit_fn)(uintptr_t)symbol;
    }
    return NB_OK;
}
