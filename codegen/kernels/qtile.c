/* The innermost code of a qmatmul (qtile.h): integer sums of a span stay in registers. Several rows
 * share each part of the weights; a single row takes panels in turn, four units of each, so that
 * they are as many streams of memory, and unpacks as it multiplies. */
#include "codegen/kernels/qtile.h"

#include "codegen/kernels/qunpack.h"

/* This many units of a span are written out; longer spans loop over as many. */
#define UNROLL 4
/* A tile of so many sums has enough to hide the time that one takes. */
#define ENOUGH_SUMS 8
/* Side by side with registers of 64 bytes: where one load of such a register a cycle is all there
 * is, a word of the activations must serve several dot products. Of short groups, up to that many
 * inputs, results have registers too; planes count, they are multiplied one after the other. */
#define PANELS       4
#define SHORT_PANELS 3
#define SHORT_GROUP  64

/* What differs between rows, or between panels of a single row. */
enum { STATES, CODES, SUMS, SOURCE, SCALES, ZEROS, ACT_SCALES, COUNT, ACT_ROW, APART, N_PARAMS };

typedef struct tile {
    const nb_qproduct *p; /* only what nb_qtile's name has of it, no sizes */
    cg *g;
    int rows, panels;
    int64_t length; /* of a group; 0: spans */
    cg_val arg[N_PARAMS];
    cg_val codes, weights[NB_QTILE_SUMS]; /* of the group at hand, those of each panel */
    cg_val head;                          /* before them, of centered ones */
    int plane, planes;                    /* of the activations that are multiplied now */
    cg_var sum[2][NB_QTILE_SUMS];         /* <16 x i32> of the span, numbered as `nth` says */
    cg_val narrow[2][NB_QTILE_SUMS];      /* sums that the dot product makes first, if it does */
} tile;

static int nth(const tile *t, int r, int c) { return r * t->panels + c; }

/* ---- numbers -------------------------------------------------------------------------------- */

int64_t nb_qtile_state_bytes(const nb_qproduct *p) {
    return 64 + (p->spans == 1 ? 0 : p->wide ? 128 : 64);
}

cg_type nb_qtile_total_type(const nb_qproduct *p) { return CG_V(p->wide ? CG_F64 : CG_I32); }

/* Planes of centered weights are multiplied one after the other, into one sum. */
static int sums_of_result(const nb_qproduct *p) { return p->centered ? 1 : p->planes; }

/* Rows whose sums fit the registers, with or without their results beside them; left over are one
 * for the weights of each panel and two or more for activations and scales. */
static int rows_that_fit(const nb_qproduct *p, int panels, bool results) {
    const cg_isa *isa = cg_isa_of(p->l->g);
    const int spare = panels > 2 ? panels + 2 : 4;
    return (isa->registers - spare) /
           (64 / isa->vector_bytes * panels * (sums_of_result(p) + (results ? 1 : 0)));
}

/* Higher tiles read the weights less often, but a result in memory is read and written for each
 * group: where those are short, results have registers. */
static bool keeps_results(const nb_qproduct *p) {
    return p->spans == 1 && p->s.groups > 1 && p->s.group * p->planes <= SHORT_GROUP;
}

int nb_qtile_panels(const nb_qproduct *p) {
    if (p->single || p->dot->end || cg_isa_of(p->l->g)->vector_bytes < 64) return 1;
    return keeps_results(p) ? SHORT_PANELS : PANELS;
}

int nb_qtile_most(const nb_qproduct *p) {
    const int panels = nb_qtile_panels(p);
    int rows = rows_that_fit(p, panels, keeps_results(p));
    if (rows * panels < ENOUGH_SUMS) rows = rows_that_fit(p, panels, false);
    return rows > NB_QTILE_ROWS ? NB_QTILE_ROWS : rows < 1 ? 1 : rows;
}

bool nb_qtile_is_packed(const nb_qproduct *p) {
    return p->single || (p->parts == 1 && !p->centered);
}

/* Bytes of weights from unit to unit as `source` has them, from group to group. */
static int64_t unit_bytes(const tile *t) {
    const nb_qproduct *p = t->p;
    return nb_qtile_is_packed(p) ? nb_unit_bytes(p->s.bits) : 64 * p->parts * t->panels;
}
static int64_t group_bytes(const tile *t, int64_t units) {
    return nb_qtile_is_packed(t->p) ? nb_qshape_group_bytes(&t->p->s, t->length)
                                    : nb_qunpacked_bytes(t->p, t->panels, units);
}

/* `base` of row r, of panel c. */
static cg_val of_row(const tile *t, int base, int r, cg_val stride) {
    return cg_offset(t->g, t->arg[base], cg_muli(t->g, stride, r));
}
static cg_val of_panel(const tile *t, int base, int c) { return of_row(t, base, c, t->arg[APART]); }

/* ---- integer sums --------------------------------------------------------------------------- */

/* Part `i` of a run of panel c, whose weights are `skip` bytes from those at hand; *unit: its unit,
 * of a single row, which is loaded once for all parts. */
static cg_val load_part(const tile *t, int c, cg_val skip, int64_t i, nb_unit *unit) {
    const nb_qproduct *p = t->p;
    cg *g = t->g;
    const int part = (int)(i % p->parts);
    const int64_t bytes = p->single ? i / p->parts * unit_bytes(t) : i * unit_bytes(t) / p->parts;
    cg_val at = cg_offset(g, t->weights[c], cg_addi(g, skip, bytes));
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
static int64_t place(const tile *t, int r, int k) { return 4 * (k * t->rows + r); }
static int64_t stride(const tile *t) { return 4 * t->p->planes * t->rows; }

/* Parts of panels [from, to) times row r's word of the activations that lie `at` bytes from those
 * at hand. */
static void multiply_parts(tile *t, int r, int from, int to, const cg_val *parts, cg_val at) {
    const nb_dot *dot = t->p->dot;
    cg *g = t->g;
    for (int k = t->plane; k < t->planes; k++) {
        cg_val place_of = cg_offset(g, t->codes, cg_addi(g, at, place(t, r, k))),
               word = cg_load(g, CG_S(CG_I32), place_of, 4);
        for (int c = from; c < to; c++) {
            const int i = nth(t, r, c);
            const cg_var result = t->sum[t->p->centered ? 0 : k][i];
            const bool by_unsigned = t->p->centered && dot->act_bytes == 1;
            cg_val sum = dot->end ? t->narrow[k][i] : cg_get(g, result);
            sum = cg_pin(g, (by_unsigned ? dot->by_unsigned : dot->step)(g, sum, parts[c], word));
            if (dot->end)
                t->narrow[k][i] = sum;
            else
                cg_set(g, result, sum);
        }
    }
}

/* Sums in 16 bits of all rows by panels [from, to): they start, and are added to those in 32 bits.
 */
static void begin_narrow(tile *t, int from, int to) {
    for (int r = 0; r < t->rows; r++)
        for (int c = from; c < to; c++)
            for (int k = 0; k < t->p->planes; k++)
                t->narrow[k][nth(t, r, c)] = cg_zero(t->g, (cg_type){CG_I16, 32});
}

static void end_narrow(tile *t, int from, int to) {
    cg *g = t->g;
    for (int r = 0; r < t->rows; r++)
        for (int c = from; c < to; c++)
            for (int k = 0; k < t->p->planes; k++) {
                const cg_var sum = t->sum[k][nth(t, r, c)];
                cg_set(g, sum, t->p->dot->end(g, cg_get(g, sum), t->narrow[k][nth(t, r, c)]));
            }
}

/* `units` units one after the other, at most UNROLL, from unit `first` of those at hand on. */
static void multiply_run(tile *t, cg_val first, int64_t units) {
    const nb_qproduct *p = t->p;
    cg *g = t->g;
    const int64_t n = units * p->parts, steps = p->dot->end ? nb_dot_steps(p->s.bits) : 0;
    const int together = p->single ? 1 : t->panels;
    cg_val skip = cg_muli(g, first, unit_bytes(t)), at = cg_muli(g, first, stride(t) * p->parts);
    for (int from = 0; from < t->panels; from += together) {
        const int to = from + together;
        nb_unit unit;
        cg_val parts[NB_QTILE_SUMS];
        for (int64_t i = 0; i < n; i++) {
            if (steps && i % steps == 0) begin_narrow(t, from, to);
            for (int c = from; c < to; c++) parts[c] = load_part(t, c, skip, i, &unit);
            for (int r = 0; r < t->rows; r++)
                multiply_parts(t, r, from, to, parts, cg_addi(g, at, stride(t) * i));
            const bool last = steps && (i % steps == steps - 1 || i == n - 1);
            if (last) end_narrow(t, from, to);
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

cg_val nb_qtile_zeros(cg *g, const nb_qproduct *p, cg_val at) {
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
    for (int c = 0; c < t->panels; c++) {
        cg_val zeros = NULL;
        if (p->s.zeros && last == late) {
            cg_val at = cg_offset(g, of_panel(t, ZEROS, c),
                                  cg_muli(g, group, nb_qshape_group_bytes(&p->s, t->length)));
            zeros = nb_qtile_zeros(g, p, at);
        }
        for (int i = 0; i < t->rows * p->planes; i++) {
            const int r = i / p->planes, k = i % p->planes;
            cg_val by = last == late ? correction(t, r, k, group, zeros) : NULL;
            cg_var *sum = &t->sum[k][nth(t, r, c)];
            if (!last)
                *sum = cg_var_new(g, by ? by : cg_zero(g, CG_V(CG_I32)));
            else if (by)
                cg_set(g, *sum, cg_add(g, cg_get(g, *sum), by));
        }
    }
}

static void multiply_centered(tile *t, cg_val units) {
    const nb_qproduct *p = t->p;
    cg *g = t->g;
    const int n = t->rows * t->panels;
    for (int i = 0; i < n; i++) {
        cg_val at = cg_offset(g, t->head, cg_i64(g, 64 * (i % t->panels)));
        t->sum[0][i] = cg_var_new(g, p->dot->act_bytes == 1 ? cg_load(g, CG_V(CG_I32), at, 64)
                                                            : cg_zero(g, CG_V(CG_I32)));
    }
    for (int k = 0; k < p->planes; k++) {
        for (int i = 0; i < n && k; i++)
            cg_set(g, t->sum[0][i], cg_shli(g, cg_get(g, t->sum[0][i]), 8));
        t->plane = k;
        t->planes = k + 1;
        multiply_units(t, units);
    }
}

/* Leaves the sums of the span at hand in t->sum. */
static void multiply_span(tile *t, cg_val group, cg_val units) {
    if (t->p->centered) {
        multiply_centered(t, units);
        return;
    }
    t->planes = t->p->planes;
    correct(t, group, false);
    multiply_units(t, units);
    correct(t, group, true);
}

/* Exact sum number `i`: 16 lanes of i32, or of f64 where those do not hold it. */
static cg_val span_sum(const tile *t, int i) {
    cg *g = t->g;
    const int planes = sums_of_result(t->p);
    cg_val low = cg_get(g, t->sum[planes - 1][i]);
    if (planes == 1) return low;
    cg_val high = cg_get(g, t->sum[0][i]);
    if (!t->p->large) return cg_add(g, cg_shli(g, high, 8), low);
    high = cg_sint_to_float(g, high, CG_F64);
    return cg_add(g, cg_mul(g, high, cg_likef(g, high, 256)), cg_sint_to_float(g, low, CG_F64));
}

static cg_val state(const tile *t, int i) {
    return cg_offset(t->g, t->arg[STATES], cg_i64(t->g, i * nb_qtile_state_bytes(t->p)));
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
    const int64_t head = t->p->centered ? NB_QUNPACKED_HEAD * t->panels : 0;
    t->head = cg_offset(g, t->arg[SOURCE], weights);
    for (int c = 0; c < t->panels; c++)
        t->weights[c] = nb_qtile_is_packed(t->p) ? cg_offset(g, of_panel(t, SOURCE, c), weights)
                                                 : cg_offset(g, t->head, cg_i64(g, head + 64 * c));
}

/* Groups of one span each. */
static void run_groups(tile *t) {
    const nb_qproduct *p = t->p;
    cg *g = t->g;
    const int64_t units = nb_ceildiv(t->length, p->s.unit);
    const bool by_block = p->l->in[0].value->type->quant->granularity == NB_PER_BLOCK;
    const int n = t->rows * t->panels;
    const bool keeps = t->rows <= rows_that_fit(p, t->panels, true); /* results in registers */
    cg_var results[NB_QTILE_SUMS];
    for (int i = 0; i < n && keeps; i++)
        results[i] = cg_var_new(g, cg_load(g, CG_V(CG_F32), state(t, i), 64));
    CG_FOR(g, group, cg_i64(g, 0), t->arg[COUNT], cg_i64(g, 1)) {
        point_at(t, group, units);
        multiply_span(t, group, cg_i64(g, units));
        cg_val skip = cg_muli(g, group, nb_qshape_group_bytes(&p->s, t->length)), act_scale = NULL;
        for (int c = 0; c < t->panels; c++) {
            cg_val at = cg_offset(g, of_panel(t, SCALES, c), skip),
                   columns = nb_qtile_columns(g, p, at), scales;
            if (p->centered)
                scales = cg_load(g, CG_V(CG_F32),
                                 cg_offset(g, t->head, cg_i64(g, 64 * (t->panels + c))), 64);
            else
                scales = nb_qtile_scales(g, p, at);
            for (int r = 0; r < t->rows; r++) {
                const int i = nth(t, r, c);
                cg_val act = of_row(t, ACT_SCALES, r, t->arg[ACT_ROW]);
                if (by_block)
                    act_scale = cg_load(g, CG_S(CG_F32), cg_index(g, act, CG_F32, group), 0);
                cg_val result =
                    keeps ? cg_get(g, results[i]) : cg_load(g, CG_V(CG_F32), state(t, i), 64);
                cg_val sum = span_sum(t, i);
                if (columns) sum = cg_add(g, sum, columns);
                result = nb_qtile_add_group(g, p, result, sum, scales, act_scale);
                if (keeps)
                    cg_set(g, results[i], result);
                else
                    cg_store(g, result, state(t, i), 64);
            }
        }
    }
    for (int i = 0; i < n && keeps; i++) cg_store(g, cg_get(g, results[i]), state(t, i), 64);
}

static void run_span(tile *t) {
    const nb_qproduct *p = t->p;
    cg *g = t->g;
    point_at(t, cg_i64(g, 0), 0);
    multiply_span(t, cg_i64(g, 0), t->arg[COUNT]);
    for (int i = 0; i < t->rows * t->panels; i++) {
        cg_val sum = span_sum(t, i), to = cg_offset(g, state(t, i), cg_i64(g, 64));
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
    return nb_format(arena, "tile_%s_w%da%d_%s%s%s_%s%dx%d", p->dot->name, p->s.bits,
                     p->wide ? 16 : 8, sums, p->large ? "_large" : "",
                     p->centered  ? "_centered"
                     : p->s.zeros ? "_zeros"
                                  : "",
                     p->single ? "single" : "rows", t->rows, t->panels);
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

void nb_qtile_run(const nb_qproduct *p, int rows, int panels, int64_t length, const nb_qtile *at) {
    cg *g = p->l->g;
    tile t = {.p = p, .g = g, .rows = rows, .panels = panels};
    if (p->spans == 1) t.length = length;
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
