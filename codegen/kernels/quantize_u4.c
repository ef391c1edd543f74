/* quantize_u4: rows of f32 to codes of 4 bits, two to a byte, with a scale and a minimum for each
 * run of `group`. One row is one item. Codes are made for the scale and minimum as f16 holds them,
 * so that rounding those costs the codes nothing.
 *
 * With feedback each element waits for the errors of those before it; the 16 ranges that are tried
 * wait together, one in each lane. */
#include "codegen/lower.h"

#define MAX_HEAD 256 /* with feedback: all that is tried is on the stack */

typedef struct run {
    const cg_buf *x;
    cg_val from, to;             /* its first element, its first byte */
    cg_val scale_at, minimum_at; /* where its f16 go */
    cg_var lows, highs;          /* <16 x f32> */
    cg_val low, high;            /* of all of it */
    cg_val minimum, inverse;     /* <16 x f32> */
} run;

static cg_val load(cg *g, const run *r, cg_val i, cg_val n) {
    return cg_buf_load_part(g, r->x, cg_buf_step(g, r->x, r->from, i), cg_i64(g, 1), n);
}

static void extremes(cg *g, void *user, cg_val i, cg_val n) {
    const run *r = user;
    cg_val v = load(g, r, i, n), low = v, high = v;
    if (n) { /* lanes beyond the last must not count */
        cg_val there = cg_lane_mask(g, n);
        low = cg_select(g, there, v, cg_splat(g, cg_f32(g, __builtin_inff()), CG_LANES));
        high = cg_select(g, there, v, cg_splat(g, cg_f32(g, -__builtin_inff()), CG_LANES));
    }
    cg_set(g, r->lows, cg_fmin(g, cg_get(g, r->lows), low));
    cg_set(g, r->highs, cg_fmax(g, cg_get(g, r->highs), high));
}

static cg_val code_of(cg *g, cg_val x, cg_val minimum, cg_val inverse) {
    cg_val v = cg_rint(g, cg_mul(g, cg_sub(g, x, minimum), inverse)), zero = cg_likef(g, v, 0),
           top = cg_likef(g, v, 15);
    v = cg_select(g, cg_cmp(g, CG_GT, v, top), top, v);
    return cg_select(g, cg_cmp(g, CG_GT, v, zero), v, zero); /* NaN is 0 */
}

static void store_codes(cg *g, void *user, cg_val i, cg_val n) {
    static const int even[8] = {0, 2, 4, 6, 8, 10, 12, 14}, odd[8] = {1, 3, 5, 7, 9, 11, 13, 15},
                     wide[16] = {0, 1, 2, 3, 4, 5, 6, 7, -1, -1, -1, -1, -1, -1, -1, -1};
    const run *r = user;
    cg_val v = code_of(g, load(g, r, i, n), r->minimum, r->inverse),
           codes = cg_float_to_sint(g, v, CG_I32),
           high = cg_shli(g, cg_shuffle(g, codes, NULL, 8, odd), 4),
           pairs = cg_or(g, cg_shuffle(g, codes, NULL, 8, even), high),
           bytes = cg_narrow(g, pairs, CG_I8), at = cg_offset(g, r->to, cg_lshri(g, i, 1));
    if (n)
        cg_store_part(g, cg_shuffle(g, bytes, NULL, CG_LANES, wide), at, cg_lshri(g, n, 1));
    else
        cg_store(g, bytes, at, 1);
}

/* Stores x as f16, and returns what f32 that is. */
static cg_val store_f16(cg *g, cg_val x, cg_val at) {
    cg_val bits = cg_f32_to_f16(g, x);
    cg_store(g, bits, at, 2);
    return cg_f16_to_f32(g, bits);
}

static void find_range(cg *g, run *r, cg_val n) {
    cg_val inf = cg_f32(g, __builtin_inff());
    cg_var low = cg_var_new(g, cg_splat(g, inf, CG_LANES)),
           high = cg_var_new(g, cg_splat(g, cg_neg(g, inf), CG_LANES));
    r->lows = low;
    r->highs = high;
    cg_for16(g, n, extremes, r);
    r->low = cg_fold16(g, cg_get(g, low), cg_fmin);
    r->high = cg_fold16(g, cg_get(g, high), cg_fmax);
}

/* The step of codes from `minimum` up to `high`, before it is rounded to f16. */
static cg_val step_of(cg *g, cg_val minimum, cg_val high) {
    cg_val range = cg_sub(g, high, minimum);
    return cg_fdiv(g, range, cg_likef(g, range, 15));
}

static void quantize(cg *g, run *r, cg_val n) {
    find_range(g, r, n);
    cg_val minimum = store_f16(g, r->low, r->minimum_at),
           scale = store_f16(g, step_of(g, minimum, r->high), r->scale_at);
    r->minimum = cg_splat(g, minimum, CG_LANES);
    r->inverse = cg_splat(g, cg_fdiv(g, cg_f32(g, 1), scale), CG_LANES);
    cg_for16(g, n, store_codes, r);
}

/* ---- with feedback -------------------------------------------------------------------------- */

/* A run in 16 ranges. Arrays f32[n][16] but for the row. */
typedef struct feeding {
    const cg_buf *feedback;
    cg_val head, begin;                   /* of the run, in its row */
    cg_val row;                           /* f32[D], what it has become so far */
    cg_val x, codes, errors;              /* of the run */
    cg_val scale_bits, minimum_bits;      /* i16[16] */
    cg_val scales, minima, inverse, loss; /* <16 x f32> */
} feeding;

static cg_val float_at(cg *g, cg_val array, cg_val i) { return cg_index(g, array, CG_F32, i); }

/* Those of element i of the run. */
static cg_val lanes_at(cg *g, cg_val array, cg_val i) {
    return float_at(g, array, cg_muli(g, i, CG_LANES));
}

static cg_val load_lanes(cg *g, cg_val array, cg_val i) {
    return cg_load(g, CG_V(CG_F32), lanes_at(g, array, i), 64);
}

/* Where the row of factors of element i of the run is. */
static cg_val factors(cg *g, const feeding *f, cg_val i) {
    return cg_at(g, f->feedback, f->head, cg_add(g, f->begin, i), cg_i64(g, 0));
}

/* Lane r is 0.4 times digit `of` of r, which has two digits to the base of 4. */
static cg_val widths(cg *g, int of) {
    cg_val v = cg_zero(g, CG_V(CG_F32));
    for (int r = 0; r < CG_LANES; r++)
        v = cg_with_lane(g, v, r, cg_f32(g, 0.4f * (float)(of ? r / 4 : r % 4)));
    return v;
}

static void begin_tries(cg *g, const run *r, feeding *f) {
    cg_val step = cg_splat(g, step_of(g, r->low, r->high), CG_LANES),
           low = cg_sub(g, cg_splat(g, r->low, CG_LANES), cg_mul(g, widths(g, 1), step)),
           high = cg_add(g, cg_splat(g, r->high, CG_LANES), cg_mul(g, widths(g, 0), step));
    f->minima = store_f16(g, low, f->minimum_bits);
    f->scales = store_f16(g, step_of(g, f->minima, high), f->scale_bits);
    f->inverse = cg_fdiv(g, cg_splat(g, cg_f32(g, 1), CG_LANES), f->scales);
}

/* Rounds element after element, and passes errors on within the run. */
static void diffuse(cg *g, feeding *f, cg_val n) {
    const cg_buf *b = f->feedback;
    cg_val zero = cg_i64(g, 0), one = cg_i64(g, 1);
    cg_var loss = cg_var_new(g, cg_zero(g, CG_V(CG_F32)));
    CG_FOR(g, i, zero, n, one) {
        cg_val x = cg_load(g, CG_S(CG_F32), float_at(g, f->row, cg_add(g, f->begin, i)), 4);
        cg_store(g, cg_splat(g, x, CG_LANES), lanes_at(g, f->x, i), 64);
    }
    CG_FOR(g, i, zero, n, one) {
        cg_val x = load_lanes(g, f->x, i), code = code_of(g, x, f->minima, f->inverse),
               real = cg_add(g, cg_mul(g, code, f->scales), f->minima), error = cg_sub(g, x, real),
               row = factors(g, f, i);
        cg_store(g, code, lanes_at(g, f->codes, i), 64);
        cg_store(g, error, lanes_at(g, f->errors, i), 64);
        cg_set(g, loss, cg_add(g, cg_get(g, loss), cg_mul(g, error, error)));
        CG_FOR(g, j, cg_addi(g, i, 1), n, one) {
            cg_val at = cg_mul(g, cg_add(g, f->begin, j), b->strides[2]),
                   factor = cg_buf_load(g, b, cg_buf_step(g, b, row, at)),
                   part = cg_mul(g, error, cg_splat(g, factor, CG_LANES));
            cg_store(g, cg_add(g, load_lanes(g, f->x, j), part), lanes_at(g, f->x, j), 64);
        }
    }
    f->loss = cg_get(g, loss);
}

/* The lane that lost least, the first of equals. */
static cg_val best_of(cg *g, const feeding *f) {
    cg_val best = cg_i64(g, 0), loss = cg_lane(g, f->loss, 0);
    for (int r = 1; r < CG_LANES; r++) {
        cg_val own = cg_lane(g, f->loss, r), less = cg_cmp(g, CG_LT, own, loss);
        loss = cg_select(g, less, own, loss);
        best = cg_select(g, less, cg_i64(g, r), best);
    }
    return best;
}

static cg_val code_at(cg *g, cg_val codes, cg_val i) {
    cg_val code = cg_load(g, CG_S(CG_F32), lanes_at(g, codes, i), 4);
    return cg_float_to_sint(g, code, CG_I32);
}

/* Lane `best` of what was tried stays. */
static void keep(cg *g, const run *r, const feeding *f, cg_val n, cg_val best) {
    const cg_type half = CG_S(CG_I16);
    cg_val codes = float_at(g, f->codes, best);
    cg_store(g, cg_load(g, half, cg_index(g, f->minimum_bits, CG_I16, best), 2), r->minimum_at, 2);
    cg_store(g, cg_load(g, half, cg_index(g, f->scale_bits, CG_I16, best), 2), r->scale_at, 2);
    CG_FOR(g, i, cg_i64(g, 0), n, cg_i64(g, 2)) {
        cg_val high = cg_shli(g, code_at(g, codes, cg_addi(g, i, 1)), 4),
               byte = cg_narrow(g, cg_or(g, code_at(g, codes, i), high), CG_I8);
        cg_store(g, byte, cg_offset(g, r->to, cg_lshri(g, i, 1)), 1);
    }
}

typedef struct passing {
    const feeding *f;
    cg_val error, from, to; /* factors and floats of the elements behind the run */
} passing;

static void pass16(cg *g, void *user, cg_val j, cg_val n) {
    const passing *p = user;
    const cg_buf *b = p->f->feedback;
    cg_val stride = b->strides[2], to = float_at(g, p->to, j),
           from = cg_buf_step(g, b, p->from, cg_mul(g, j, stride)),
           part = cg_mul(g, p->error, cg_buf_load_part(g, b, from, stride, n));
    cg_store(g, cg_add(g, cg_load(g, CG_V(CG_F32), to, 64), part), to, 64);
}

/* Runs behind the one of n elements take over what is left of it. */
static void pass_on(cg *g, const feeding *f, cg_val n, cg_val best) {
    const cg_buf *b = f->feedback;
    cg_val end = cg_add(g, f->begin, n), left = cg_sub(g, b->dims[2], end),
           errors = float_at(g, f->errors, best);
    CG_FOR(g, i, cg_i64(g, 0), n, cg_i64(g, 1)) {
        cg_val error = cg_load(g, CG_S(CG_F32), lanes_at(g, errors, i), 4),
               from = cg_buf_step(g, b, factors(g, f, i), cg_mul(g, end, b->strides[2]));
        passing p = {.f = f,
                     .error = cg_splat(g, error, CG_LANES),
                     .from = from,
                     .to = float_at(g, f->row, end)};
        cg_for16(g, left, pass16, &p);
    }
}

static void quantize_feeding(cg *g, run *r, feeding *f, cg_val n) {
    find_range(g, r, n);
    begin_tries(g, r, f);
    diffuse(g, f, n);
    cg_val best = best_of(g, f);
    keep(g, r, f, n, best);
    pass_on(g, f, n, best);
}

/* ---- rows ----------------------------------------------------------------------------------- */

/* Room for a row, with whole vectors, and for what is tried of a run. */
static feeding make_room(nb_lower *l) {
    cg *g = l->g;
    const int64_t head = nb_in(l->op, 0)->type->dims[3]->value,
                  longest = nb_min_i64(nb_attr_int(l->op, "group"), head),
                  bytes = CG_LANES * 4 * (longest + 1);
    return (feeding){.feedback = &l->in[1].buf,
                     .row = cg_stack(g, 4 * (head + CG_LANES), 64),
                     .x = cg_stack(g, bytes, 64),
                     .codes = cg_stack(g, bytes, 64),
                     .errors = cg_stack(g, bytes, 64),
                     .scale_bits = cg_stack(g, 2 * CG_LANES, 64),
                     .minimum_bits = cg_stack(g, 2 * CG_LANES, 64)};
}

typedef struct copying {
    const run *r;
    cg_val to;
} copying;

static void copy_row16(cg *g, void *user, cg_val i, cg_val n) {
    const copying *c = user;
    cg_store(g, load(g, c->r, i, n), float_at(g, c->to, i), 64);
}

static void body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    (void)phase;
    cg *g = l->g;
    const cg_buf *x = &l->in[0].buf, *scales = &l->out[1].buf, *minima = &l->out[2].buf;
    const bool feeds = l->in[1].value != NULL;
    feeding f = {0};
    if (feeds) f = make_room(l);
    const cg_buf row_buf = feeds ? cg_buf_dense(g, f.row, NB_F32, 1, &x->dims[3]) : *x;
    cg_val one = cg_i64(g, 1), group = cg_i64(g, nb_attr_int(l->op, "group")), S = x->dims[2];
    CG_FOR(g, row, begin, end, one) {
        cg_val from = cg_buf_row(g, x, 1, row), to = cg_buf_row(g, &l->out[0].buf, 1, row),
               head = cg_udiv(g, row, S), s = cg_urem(g, row, S), b = cg_udiv(g, head, x->dims[1]),
               h = cg_urem(g, head, x->dims[1]);
        f.head = h;
        if (feeds) {
            run whole = {.x = x, .from = from};
            copying c = {.r = &whole, .to = f.row};
            cg_for16(g, x->dims[3], copy_row16, &c);
        }
        CG_FOR(g, k, cg_i64(g, 0), scales->dims[2], one) {
            cg_val at = cg_mul(g, k, group), n = cg_smin(g, group, cg_sub(g, x->dims[3], at));
            run r = {.x = &row_buf,
                     .from = cg_buf_step(g, &row_buf, feeds ? f.row : from, at),
                     .to = cg_offset(g, to, cg_lshri(g, at, 1)),
                     .scale_at = cg_at(g, scales, b, h, k, s),
                     .minimum_at = cg_at(g, minima, b, h, k, s)};
            f.begin = at;
            if (feeds)
                quantize_feeding(g, &r, &f, n);
            else
                quantize(g, &r, n);
        }
    }
}

static cg_val work(nb_lower *l, int phase) {
    (void)phase;
    cg *g = l->g;
    cg_val D = l->in[0].buf.dims[3];
    return l->in[1].value ? cg_mul(g, D, cg_muli(g, D, CG_LANES / 2)) : cg_muli(g, D, 3);
}

static nb_status accept(const nb_op *op, const cg_cpu *cpu, nb_diags *diags) {
    if (nb_in(op, 1) && nb_in(op, 0)->type->dims[3]->value > MAX_HEAD)
        return nb_refuse(op, diags, "feedback in heads of more than %d elements", MAX_HEAD);
    return nb_accept_plain(op, cpu, diags);
}

const nb_lowering nb_lower_quantize_u4 = {
    .accept = accept, .items = nb_items_rows, .work = work, .body = body};
