/* The innermost code of a qmatmul (qtile.h): integer sums of a span stay in registers. Several rows
 * share each part of the weights; a single row takes panels in turn, four units of each, so that
 * they are as many streams of memory, and unpacks as it multiplies. */
#include "codegen/kernels/qtile.h"

/* This many units of a span are written out; longer spans loop over as many. */
#define UNROLL 4
/* A tile of so many rows has enough sums to hide the time that one takes. */
#define ENOUGH_ROWS 8

/* What differs between rows, or between panels of a single row. */
enum { STATES, CODES, SUMS, SOURCE, SCALES, ZEROS, ACT_SCALES, COUNT, ACT_ROW, APART, N_PARAMS };

typedef struct tile {
    const nb_qproduct *p; /* only what nb_qtile's name has of it, no sizes */
    cg *g;
    int n;
    int64_t length; /* of a group; 0: spans */
    cg_val arg[N_PARAMS];
    cg_val codes, weights[NB_QTILE_ROWS]; /* of the group at hand */
    cg_var sum[2][NB_QTILE_ROWS];         /* <16 x i32> of the span */
    cg_val narrow[2][NB_QTILE_ROWS];      /* sums that the dot product makes first, if it does */
} tile;

/* ---- numbers -------------------------------------------------------------------------------- */

int64_t nb_qtile_state_bytes(const nb_qproduct *p) {
    return 64 + (p->spans == 1 ? 0 : p->wide ? 128 : 64);
}

cg_type nb_qtile_total_type(const nb_qproduct *p) { return CG_V(p->wide ? CG_F64 : CG_I32); }

/* Rows whose sums fit the registers, with or without their results beside them; 4 are left over. */
static int rows_that_fit(const nb_qproduct *p, bool results) {
    const cg_isa *isa = cg_isa_of(p->l->g);
    return (isa->registers - 4) / (64 / isa->vector_bytes * (p->planes + (results ? 1 : 0)));
}

/* Higher tiles read the weights less often, but a result in memory is read and written for each
 * group: where there are some, and registers for enough rows, results have registers. */
int nb_qtile_most(const nb_qproduct *p) {
    int rows = rows_that_fit(p, p->spans == 1 && p->s.groups > 1);
    if (rows < ENOUGH_ROWS) rows = rows_that_fit(p, false);
    return rows > NB_QTILE_ROWS ? NB_QTILE_ROWS : rows < 1 ? 1 : rows;
}

bool nb_qtile_is_packed(const nb_qproduct *p) { return p->single || p->parts == 1; }

/* Bytes of weights in a unit as `source` has them; of a group. */
static int64_t unit_bytes(const nb_qproduct *p) {
    return nb_qtile_is_packed(p) ? nb_unit_bytes(p->s.bits) : 64 * p->parts;
}
static int64_t group_bytes(const tile *t, int64_t units) {
    return nb_qtile_is_packed(t->p) ? nb_qshape_group_bytes(&t->p->s, t->length)
                                    : unit_bytes(t->p) * units;
}

/* `base` of row r; panels of a single row have all but their weights and states in common. */
static cg_val of_row(const tile *t, int base, int r, cg_val stride) {
    return t->p->single ? t->arg[base] : cg_offset(t->g, t->arg[base], cg_muli(t->g, stride, r));
}
static cg_val of_panel(const tile *t, int base, int r) {
    cg_val stride = cg_muli(t->g, t->arg[APART], r);
    return t->p->single ? cg_offset(t->g, t->arg[base], stride) : t->arg[base];
}

/* ---- integer sums --------------------------------------------------------------------------- */

/* Part `i` of a run of panel or row r, whose weights are `skip` bytes from those at hand; *unit:
 * its unit, of a single row, which is loaded once for all parts. */
static cg_val load_part(const tile *t, int r, cg_val skip, int64_t i, nb_unit *unit) {
    const nb_qproduct *p = t->p;
    cg *g = t->g;
    const int part = (int)(i % p->parts);
    const int64_t bytes = p->single ? i / p->parts * nb_unit_bytes(p->s.bits) : 64 * i;
    cg_val at = cg_offset(g, t->weights[r], cg_addi(g, skip, bytes));
    if (p->single && part) return p->dot->unpack(g, unit, part);
    const int ahead = cg_isa_of(g)->ahead;
    if (p->single && ahead) cg_prefetch(g, cg_offset(g, at, cg_i64(g, ahead)), 3);
    /* The order is as written: LLVM would load ahead, and spill. */
    cg_fence(g);
    if (!p->single) return cg_load(g, (cg_type){CG_I8, 64}, at, p->parts == 1 ? 8 : 64);
    *unit = nb_unit_load(g, p->s.bits, at);
    return p->dot->unpack(g, unit, part);
}

/* Where plane k of row r lies among the words (or sums) of the tile that belong together, and how
 * many bytes those are. */
static int64_t place(const tile *t, int r, int k) { return 4 * (t->p->single ? k : k * t->n + r); }
static int64_t stride(const tile *t) { return 4 * t->p->planes * (t->p->single ? 1 : t->n); }

/* A part times row r's word of the activations that lie `at` bytes from those at hand. */
static void multiply_part(tile *t, int r, cg_val part, cg_val at) {
    const nb_dot *dot = t->p->dot;
    cg *g = t->g;
    for (int k = 0; k < t->p->planes; k++) {
        cg_val from = cg_offset(g, t->codes, cg_addi(g, at, place(t, r, k)));
        cg_val word = cg_load(g, CG_S(CG_I32), from, 4),
               sum = dot->end ? t->narrow[k][r] : cg_get(g, t->sum[k][r]);
        sum = cg_pin(g, dot->step(g, sum, part, word));
        if (dot->end)
            t->narrow[k][r] = sum;
        else
            cg_set(g, t->sum[k][r], sum);
    }
}

/* Sums in 16 bits of rows [from, to): they start, and are added to those in 32 bits. */
static void begin_narrow(tile *t, int from, int to) {
    for (int r = from; r < to; r++) {
        for (int k = 0; k < t->p->planes; k++)
            t->narrow[k][r] = cg_zero(t->g, (cg_type){CG_I16, 32});
    }
}

static void end_narrow(tile *t, int from, int to) {
    cg *g = t->g;
    for (int r = from; r < to; r++) {
        for (int k = 0; k < t->p->planes; k++)
            cg_set(g, t->sum[k][r], t->p->dot->end(g, cg_get(g, t->sum[k][r]), t->narrow[k][r]));
    }
}

/* `units` units one after the other, at most UNROLL, from unit `first` of those at hand on. */
static void multiply_run(tile *t, cg_val first, int64_t units) {
    const nb_qproduct *p = t->p;
    cg *g = t->g;
    const int64_t n = units * p->parts, steps = p->dot->end ? nb_dot_steps(p->s.bits) : 0;
    const int together = t->p->single ? 1 : t->n;
    cg_val skip = cg_muli(g, first, unit_bytes(p)), at = cg_muli(g, first, stride(t) * p->parts);
    for (int from = 0; from < t->n; from += together) {
        nb_unit unit;
        for (int64_t i = 0; i < n; i++) {
            if (steps && i % steps == 0) begin_narrow(t, from, from + together);
            cg_val part = load_part(t, from, skip, i, &unit);
            for (int r = from; r < from + together; r++)
                multiply_part(t, r, part, cg_addi(g, at, stride(t) * i));
            const bool last = steps && (i % steps == steps - 1 || i == n - 1);
            if (last) end_narrow(t, from, from + together);
        }
    }
}

static void multiply_units(tile *t, cg_val units) {
    cg *g = t->g;
    int64_t known;
    if (cg_known(units, &known) && known <= UNROLL) {
        multiply_run(t, cg_i64(g, 0), known);
        return;
    }
    cg_val whole = cg_andi(g, units, -UNROLL);
    CG_FOR(g, u, cg_i64(g, 0), whole, cg_i64(g, UNROLL)) { multiply_run(t, u, UNROLL); }
    if (cg_known(units, &known)) {
        if (known % UNROLL) multiply_run(t, whole, known % UNROLL);
        return;
    }
    CG_FOR(g, u, whole, units, cg_i64(g, 1)) { multiply_run(t, u, 1); }
}

/* What group's zero points or offset take off the sum of row r's plane k: minus them times the sum
 * of the activations. `zeros`: of the panel. */
static cg_val correction(const tile *t, int r, int k, cg_val group, cg_val zeros) {
    cg *g = t->g;
    cg_val at = cg_addi(g, cg_muli(g, group, stride(t)), place(t, r, k));
    cg_val sum = cg_load(g, CG_S(CG_I32), cg_offset(g, t->arg[SUMS], at), 4);
    /* A sum of few bytes has 16 bits, as zero points have: AVX2 multiplies such in one step. */
    const bool bytes = !t->p->wide || t->p->dot->act_bytes == 1;
    if (zeros && bytes && t->length && t->length <= INT16_MAX / 128)
        sum = cg_sext(g, cg_narrow(g, sum, CG_I16), CG_I32);
    sum = cg_splat(g, sum, CG_LANES);
    return zeros ? cg_mul(g, zeros, sum) : sum;
}

/* Zero points of a group: <16 x i32>. */
static cg_val load_zeros(cg *g, const nb_qproduct *p, cg_val at) {
    if (!nb_qshape_small_zeros(&p->s)) return cg_zext(g, cg_load(g, CG_V(CG_I8), at, 8), CG_I32);
    cg_val pairs = cg_load(g, (cg_type){CG_I8, 8}, at, 8);
    const cg_val halves[2] = {cg_andi(g, pairs, 15), cg_lshri(g, pairs, 4)};
    return cg_zext(g, cg_join_all(g, halves, 2), CG_I32);
}

/* Sums start from their correction. It is added last where they are not in use before the end of a
 * run, so that it takes no register meanwhile, and where zero points lie behind the weights of a
 * single row: memory is read front to back. */
static void correct(tile *t, cg_val group, bool last) {
    const nb_qproduct *p = t->p;
    cg *g = t->g;
    const bool late = p->single ? p->s.zeros : p->dot->end != NULL;
    cg_val zeros = NULL;
    for (int r = 0; r < t->n; r++) {
        if (p->s.zeros && last == late && (r == 0 || t->p->single)) {
            cg_val at = cg_offset(g, of_panel(t, ZEROS, r),
                                  cg_muli(g, group, nb_qshape_group_bytes(&p->s, t->length)));
            zeros = load_zeros(g, p, at);
        }
        for (int k = 0; k < p->planes; k++) {
            cg_val by = last == late ? correction(t, r, k, group, zeros) : NULL;
            if (!last)
                t->sum[k][r] = cg_var_new(g, by ? by : cg_zero(g, CG_V(CG_I32)));
            else if (by)
                cg_set(g, t->sum[k][r], cg_add(g, cg_get(g, t->sum[k][r]), by));
        }
    }
}

/* Leaves the sums of the span at hand in t->sum. */
static void multiply_span(tile *t, cg_val group, cg_val units) {
    correct(t, group, false);
    multiply_units(t, units);
    correct(t, group, true);
}

/* The exact sum of row r: 16 lanes of i32, or of f64 where those do not hold it. */
static cg_val span_sum(const tile *t, int r) {
    cg *g = t->g;
    const int planes = t->p->planes;
    cg_val low = cg_get(g, t->sum[planes - 1][r]);
    if (planes == 1) return low;
    cg_val high = cg_get(g, t->sum[0][r]);
    if (!t->p->large) return cg_add(g, cg_shli(g, high, 8), low);
    high = cg_sint_to_float(g, high, CG_F64);
    return cg_add(g, cg_mul(g, high, cg_likef(g, high, 256)), cg_sint_to_float(g, low, CG_F64));
}

static cg_val state(const tile *t, int r) {
    return cg_offset(t->g, t->arg[STATES], cg_i64(t->g, r * nb_qtile_state_bytes(t->p)));
}

/* ---- groups and spans ----------------------------------------------------------------------- */

cg_val nb_qtile_scales(cg *g, const nb_qproduct *p, cg_val at) {
    if (!p->s.half) return cg_load(g, CG_V(CG_F32), at, 8);
    return cg_f16_to_f32(g, cg_load(g, CG_V(CG_I16), at, 8));
}

cg_val nb_qtile_columns(cg *g, const nb_qproduct *p, cg_val at) {
    if (!p->offset) return NULL;
    cg_val behind = cg_i64(g, nb_qshape_sums_at(&p->s, 0) - nb_qshape_scales_at(&p->s, 0));
    return cg_muli(g, cg_load(g, CG_V(CG_I32), cg_offset(g, at, behind), 8), -p->offset);
}

cg_val nb_qtile_add_group(cg *g, const nb_qproduct *p, cg_val result, cg_val sum, cg_val scales,
                          cg_val act_scale) {
    if (p->exact) return cg_from_bits(g, sum); /* there is one group */
    cg_val f = cg_type_of(sum).kind == CG_I32 ? cg_sint_to_float(g, sum, CG_F32)
                                              : cg_float_to_float(g, sum, CG_F32);
    if (act_scale) f = cg_mul(g, f, cg_splat(g, act_scale, CG_LANES));
    return cg_fma(g, f, scales, result);
}

static void point_at(tile *t, cg_val group, int64_t units) {
    cg *g = t->g;
    cg_val codes = cg_muli(g, group, stride(t) * t->p->parts * units),
           weights = cg_muli(g, group, group_bytes(t, units));
    t->codes = cg_offset(g, t->arg[CODES], codes);
    for (int r = 0; r < t->n; r++) {
        t->weights[r] = cg_offset(g, of_panel(t, SOURCE, r), weights);
    }
}

/* Groups of one span each. */
static void run_groups(tile *t) {
    const nb_qproduct *p = t->p;
    cg *g = t->g;
    const int64_t units = nb_ceildiv(t->length, p->s.unit);
    const bool by_block = p->l->in[0].value->type->quant->granularity == NB_PER_BLOCK;
    const bool keeps = t->n <= rows_that_fit(p, true); /* results in registers */
    cg_var results[NB_QTILE_ROWS];
    for (int r = 0; r < t->n && keeps; r++)
        results[r] = cg_var_new(g, cg_load(g, CG_V(CG_F32), state(t, r), 64));
    CG_FOR(g, group, cg_i64(g, 0), t->arg[COUNT], cg_i64(g, 1)) {
        point_at(t, group, units);
        multiply_span(t, group, cg_i64(g, units));
        cg_val scales = NULL, columns = NULL, act_scale = NULL;
        for (int r = 0; r < t->n; r++) {
            cg_val skip = cg_muli(g, group, nb_qshape_group_bytes(&p->s, t->length)),
                   act = of_row(t, ACT_SCALES, r, t->arg[ACT_ROW]);
            if (r == 0 || t->p->single) {
                cg_val at = cg_offset(g, of_panel(t, SCALES, r), skip);
                scales = nb_qtile_scales(g, p, at);
                columns = nb_qtile_columns(g, p, at);
            }
            if (by_block) act_scale = cg_load(g, CG_S(CG_F32), cg_index(g, act, CG_F32, group), 0);
            cg_val result =
                keeps ? cg_get(g, results[r]) : cg_load(g, CG_V(CG_F32), state(t, r), 64);
            cg_val sum = span_sum(t, r);
            if (columns) sum = cg_add(g, sum, columns);
            result = nb_qtile_add_group(g, p, result, sum, scales, act_scale);
            if (keeps)
                cg_set(g, results[r], result);
            else
                cg_store(g, result, state(t, r), 64);
        }
    }
    for (int r = 0; r < t->n && keeps; r++) cg_store(g, cg_get(g, results[r]), state(t, r), 64);
}

static void run_span(tile *t) {
    const nb_qproduct *p = t->p;
    cg *g = t->g;
    point_at(t, cg_i64(g, 0), 0);
    multiply_span(t, cg_i64(g, 0), t->arg[COUNT]);
    for (int r = 0; r < t->n; r++) {
        cg_val sum = span_sum(t, r), to = cg_offset(g, state(t, r), cg_i64(g, 64));
        if (p->wide && !p->large) sum = cg_sint_to_float(g, sum, CG_F64);
        cg_store(g, cg_add(g, cg_load(g, nb_qtile_total_type(p), to, 64), sum), to, 64);
    }
}

/* ---- the function --------------------------------------------------------------------------- */

/* Says all that the code depends on. */
static const char *name_of(const tile *t) {
    const nb_qproduct *p = t->p;
    const nb_quant *q = p->l->in[0].value->type->quant;
    nb_arena *arena = cg_arena(t->g);
    const char *sums = "span";
    if (t->length)
        sums = nb_format(arena, "g%lld_%s%s%s", (long long)t->length,
                         p->exact    ? "i32"
                         : p->s.half ? "f16"
                                     : "f32",
                         q->granularity == NB_PER_BLOCK ? "_blocks" : "",
                         p->offset ? nb_format(arena, "_x%lld", (long long)p->offset) : "");
    return nb_format(arena, "tile_%s_w%da%d_%s%s%s_%s%d", p->dot->name, p->s.bits, p->wide ? 16 : 8,
                     sums, p->large ? "_large" : "", p->s.zeros ? "_zeros" : "",
                     p->single ? "panels" : "rows", t->n);
}

static cg_val emit(const tile *call, const char *name) {
    static const cg_kind kinds[N_PARAMS] = {
        [STATES] = CG_PTR,  [CODES] = CG_PTR, [SUMS] = CG_PTR,       [SOURCE] = CG_PTR,
        [SCALES] = CG_PTR,  [ZEROS] = CG_PTR, [ACT_SCALES] = CG_PTR, [COUNT] = CG_I64,
        [ACT_ROW] = CG_I64, [APART] = CG_I64};
    cg_type types[N_PARAMS];
    for (int i = 0; i < N_PARAMS; i++) types[i] = CG_S(kinds[i]);
    tile t = *call;
    t.g = cg_function(cg_module_of(call->g), name, CG_S(CG_VOID), N_PARAMS, types, CG_NOINLINE);
    for (int i = 0; i < N_PARAMS; i++) t.arg[i] = cg_param(t.g, i);
    if (t.length)
        run_groups(&t);
    else
        run_span(&t);
    return cg_finish(t.g);
}

void nb_qtile_run(const nb_qproduct *p, int n, int64_t length, const nb_qtile *at) {
    cg *g = p->l->g;
    tile t = {.p = p, .g = g, .n = n, .length = p->spans == 1 ? length : 0};
    const char *name = name_of(&t);
    cg_val function = cg_find(cg_module_of(g), name);
    if (!function) function = emit(&t, name);
    cg_val none = cg_zero(g, CG_S(CG_PTR));
    const cg_val args[N_PARAMS] = {
        [STATES] = at->states,
        [CODES] = at->codes,
        [SUMS] = at->sums,
        [SOURCE] = at->source,
        [SCALES] = at->scales,
        [ZEROS] = at->zeros ? at->zeros : none,
        [ACT_SCALES] = at->act_scales ? at->act_scales : none,
        [COUNT] = at->count,
        [ACT_ROW] = cg_i64(g, 4 * p->s.groups),
        [APART] = at->apart,
    };
    cg_call(g, function, N_PARAMS, args);
}
