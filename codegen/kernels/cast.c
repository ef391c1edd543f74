/* cast and bitcast. Elements of 8 bits and more go through the loop of elementwise ops (loops.c).
 * Those of 2 and 4 bits are packed: they lie dense, and 16 of them are read or written as whole
 * bytes at a time. Small floats and packed integers have their code in an i32 in between. */
#include "codegen/lower.h"
#include "ir/minifloat.h"

#define BLOCK 1024 /* packed elements in an item: whole bytes */

static bool is_float(cg_val v) { return cg_kind_is_float(cg_type_of(v).kind); }
static int bits_of(nb_elem e) { return nb_elems[e].bits; }
static bool is_packed(nb_elem e) { return bits_of(e) < 8; }
/* A float of 8 bits or fewer. */
static bool is_small(nb_elem e) { return nb_elem_is_float(e) && bits_of(e) <= 8; }

/* ---- small floats (ir/minifloat.c in vectors; equal bits) ----------------------------------- */

static cg_val decode_e8m0(cg *g, cg_val code) {
    cg_val power = cg_select(g, cg_cmpi(g, CG_EQ, code, 0), cg_like(g, code, 0x00400000),
                             cg_shli(g, code, 23));
    return cg_from_bits(
        g, cg_select(g, cg_cmpi(g, CG_EQ, code, 255), cg_like(g, code, 0x7fc00000), power));
}

/* Shifted into place, exponent and mantissa are those of the value times a power of two; the
 * multiplication is exact and turns denormals into normal numbers. */
static cg_val decode_small(cg *g, nb_elem e, cg_val code) {
    if (e == NB_F8E8M0) return decode_e8m0(g, code);
    const nb_float_format f = nb_float_format_of(e);
    const int width = f.exponent + f.mantissa;
    cg_val magnitude = cg_andi(g, code, (1 << width) - 1);
    cg_val scale = cg_from_bits(g, cg_like(g, code, (int64_t)(254 - f.bias) << 23));
    cg_val value =
        cg_bits(g, cg_mul(g, cg_from_bits(g, cg_shli(g, magnitude, 23 - f.mantissa)), scale));
    const int64_t largest = nb_float_largest(f);
    if (f.specials == NB_SPECIALS_IEEE)
        value = cg_select(g, cg_cmpi(g, CG_EQ, magnitude, largest + 1),
                          cg_like(g, code, 0x7f800000), value);
    value = cg_or(g, value, cg_shli(g, cg_andi(g, code, 1 << width), 31 - width));
    cg_val nan =
        f.specials == NB_SPECIALS_NAN_ZERO
            ? cg_cmpi(g, CG_EQ, code, nb_float_overflow(f))
            : cg_cmpi(g, CG_GT, magnitude, largest + (f.specials == NB_SPECIALS_IEEE ? 1 : 0));
    if (f.specials != NB_SPECIALS_NONE)
        value = cg_select(g, nan, cg_like(g, code, 0x7fc00000), value);
    return cg_from_bits(g, value);
}

static cg_val encode_e8m0(cg *g, cg_val x, bool overflow) {
    cg_val u = cg_bits(g, x), e = cg_lshri(g, u, 23), m = cg_andi(g, u, 0x7fffff);
    cg_val half =
        cg_select(g, cg_cmpi(g, CG_EQ, e, 0), cg_like(g, u, 0x600000), cg_like(g, u, 0x400000));
    cg_val odd = cg_cmpi(g, CG_NE, cg_andi(g, e, 1), 0);
    cg_val up = cg_or(g, cg_cmp(g, CG_GT, m, half), cg_and(g, cg_cmp(g, CG_EQ, m, half), odd));
    cg_val code = cg_smin(g, cg_add(g, e, cg_zext(g, up, CG_I32)), cg_like(g, u, 254));
    code = cg_select(g, cg_cmpi(g, CG_LT, u, 0), cg_like(g, u, 0), code);
    cg_val nan = cg_is_nan(g, x);
    if (overflow) nan = cg_or(g, nan, cg_cmpi(g, CG_EQ, u, 0x7f800000));
    return cg_select(g, nan, cg_like(g, u, 255), code);
}

static cg_val encode_small(cg *g, nb_elem e, cg_val x, bool overflow) {
    if (e == NB_F8E8M0) return encode_e8m0(g, x, overflow);
    const nb_float_format f = nb_float_format_of(e);
    const int width = f.exponent + f.mantissa;
    cg_val u = cg_bits(g, x), a = cg_andi(g, u, 0x7fffffff);
    cg_val sign = cg_shli(g, cg_lshri(g, u, 31), width), one = cg_like(g, u, 1);
    cg_val field = cg_lshri(g, a, 23), normal = cg_cmpi(g, CG_NE, field, 0);
    cg_val mantissa = cg_or(g, cg_andi(g, a, 0x7fffff),
                            cg_select(g, normal, cg_like(g, u, 0x800000), cg_like(g, u, 0)));
    cg_val exponent = cg_addi(g, cg_smax(g, field, one), f.bias - 127);
    /* What a denormal loses more than others; beyond 30 bits, all is lost with 30 too. */
    cg_val lost = cg_smax(g, cg_sub(g, one, exponent), cg_like(g, u, 0));
    cg_val shift = cg_smin(g, cg_addi(g, lost, 23 - f.mantissa), cg_like(g, u, 30));
    exponent = cg_smax(g, exponent, one);
    cg_val kept = cg_lshr(g, mantissa, shift), rest = cg_sub(g, mantissa, cg_shl(g, kept, shift));
    cg_val half = cg_shl(g, one, cg_sub(g, shift, one));
    cg_val odd = cg_cmpi(g, CG_NE, cg_andi(g, kept, 1), 0);
    cg_val up =
        cg_or(g, cg_cmp(g, CG_GT, rest, half), cg_and(g, cg_cmp(g, CG_EQ, rest, half), odd));
    kept = cg_add(g, kept, cg_zext(g, up, CG_I32));
    cg_val code = cg_add(g, cg_shli(g, cg_addi(g, exponent, -1), f.mantissa), kept);
    const int64_t largest = nb_float_largest(f), open = nb_float_overflow(f);
    cg_val large = cg_or(g, cg_cmpi(g, CG_GT, code, largest), cg_cmpi(g, CG_EQ, a, 0x7f800000));
    code = cg_select(g, large, cg_like(g, u, overflow ? open : largest), code);
    if (overflow && f.specials != NB_SPECIALS_IEEE) /* a NaN */
        sign = cg_select(g, large, cg_like(g, u, 0), sign);
    cg_val signed_code = cg_or(g, sign, code);
    if (f.specials == NB_SPECIALS_NAN_ZERO) /* there is no -0 */
        signed_code = cg_select(g, cg_cmpi(g, CG_EQ, code, 0), code, signed_code);
    const int64_t nan = f.specials == NB_SPECIALS_NONE   ? 0
                        : f.specials == NB_SPECIALS_IEEE ? open + (1 << (f.mantissa - 1))
                                                         : open;
    return cg_select(g, cg_is_nan(g, x), cg_like(g, u, nan), signed_code);
}

/* ---- cast ---------------------------------------------------------------------------------- */

/* What is computed with, of an element as the loops give it. */
static cg_val opened(cg *g, nb_elem e, cg_val stored) {
    if (!is_small(e) || is_float(stored)) return stored; /* a constant is a number already */
    cg_val code = cg_type_of(stored).kind == CG_I32 ? stored : cg_zext(g, stored, CG_I32);
    return decode_small(g, e, code);
}

/* Between elements of 8 bits and more, and codes of fewer, which are i32. */
static cg_val convert(nb_lower *l, cg_val x) {
    cg *g = l->g;
    const nb_elem from = l->in[0].buf.elem, to = l->out[0].buf.elem;
    const bool narrow = is_packed(to) && !nb_elem_is_float(to);
    const cg_kind kind = nb_elem_is_float(to) && to != NB_F64 ? CG_F32
                         : narrow                             ? CG_I32
                                                              : cg_compute_kind(to);
    const bool from_signed = nb_elems[from].class_ == NB_CLASS_INT;
    const bool to_signed = nb_elems[to].class_ == NB_CLASS_INT;
    x = opened(g, from, x);
    if (to == NB_BOOL) return from == NB_BOOL ? x : cg_cmp(g, CG_NE, x, cg_zero(g, cg_type_of(x)));
    if (cg_kind_is_float(kind)) {
        if (is_float(x) && cg_type_of(x).kind != kind) x = cg_float_to_float(g, x, kind);
        if (!is_float(x))
            x = from_signed ? cg_sint_to_float(g, x, kind) : cg_uint_to_float(g, x, kind);
        if (!is_small(to)) return x;
        cg_val code = encode_small(g, to, x, nb_attr_bool(l->op, "overflow"));
        return is_packed(to) ? code : cg_narrow(g, code, CG_I8);
    }
    if (!is_float(x)) return from_signed ? cg_sext(g, x, kind) : cg_zext(g, x, kind);
    x = cg_float_to_int_sat(g, x, kind, to_signed || narrow);
    if (!narrow) return x;
    return cg_smin(g, cg_smax(g, x, cg_like(g, x, nb_elem_min(to))),
                   cg_like(g, x, nb_elem_max(to)));
}

static cg_val cast(nb_lower *l, void *user, const cg_val *values) {
    (void)user;
    return convert(l, values[1]);
}

static nb_stream_loop loop_of(nb_lower *l) {
    const cg_buf *to = &l->out[0].buf;
    nb_stream_loop loop = {
        .n = 2,
        .streams = {*to, cg_buf_broadcast(l->g, &l->in[0].buf, to->rank, to->dims)},
        .immediate = {NULL, l->in[0].immediate},
        .compute = cast};
    /* Codes of 8 bits are bytes to the loop. */
    for (int i = 0; i < 2; i++)
        if (is_small(loop.streams[i].elem)) loop.streams[i].elem = NB_U8;
    nb_stream_collapse(l, &loop);
    return loop;
}

/* ---- packed elements ------------------------------------------------------------------------ */

static bool has_packed(const nb_lower *l) {
    return is_packed(l->in[0].buf.elem) || is_packed(l->out[0].buf.elem);
}

/* Bytes of n packed elements; n NULL: of 16. */
static cg_val bytes_of(cg *g, nb_elem e, cg_val n) {
    const int bits = bits_of(e);
    if (!n) return cg_i64(g, CG_LANES * bits / 8);
    return cg_lshri(g, cg_addi(g, cg_muli(g, n, bits), 7), 3);
}

static cg_val lanes_times(cg *g, int from, int step, int every) {
    int64_t values[CG_LANES];
    for (int i = 0; i < CG_LANES; i++) values[i] = from + step * (i % every);
    return cg_const_lanes(g, CG_I32, CG_LANES, values);
}

/* Codes, as i32, of 16 elements from element i on, a multiple of 16. */
static cg_val unpack(cg *g, nb_elem e, cg_val base, cg_val i, cg_val n) {
    const int bits = bits_of(e), each = 8 / bits;
    cg_val at = cg_offset(g, base, cg_lshri(g, cg_muli(g, i, bits), 3));
    cg_val bytes = cg_load_part(g, CG_V(CG_I8), at, bytes_of(g, e, n));
    int picks[CG_LANES];
    for (int k = 0; k < CG_LANES; k++) picks[k] = k / each;
    cg_val wide = cg_zext(g, cg_shuffle(g, bytes, NULL, CG_LANES, picks), CG_I32);
    /* The element's bits go to the top, and down again with or without their sign. */
    cg_val high = cg_shl(g, wide, lanes_times(g, 32 - bits, -bits, each));
    bool is_signed = nb_elems[e].class_ == NB_CLASS_INT;
    return is_signed ? cg_ashri(g, high, 32 - bits) : cg_lshri(g, high, 32 - bits);
}

static void pack(cg *g, nb_elem e, cg_val base, cg_val i, cg_val n, cg_val codes) {
    const int bits = bits_of(e), each = 8 / bits;
    cg_val placed = cg_shl(g, cg_andi(g, codes, (1 << bits) - 1), lanes_times(g, 0, bits, each));
    for (int k = 1; k < each; k *= 2) { /* lane each * j gets the byte */
        int picks[CG_LANES];
        for (int j = 0; j < CG_LANES; j++) picks[j] = j + k < CG_LANES ? j + k : j;
        placed = cg_or(g, placed, cg_shuffle(g, placed, NULL, CG_LANES, picks));
    }
    int picks[CG_LANES];
    for (int j = 0; j < CG_LANES; j++) picks[j] = j * each < CG_LANES ? j * each : 0;
    cg_val bytes = cg_narrow(g, cg_shuffle(g, placed, NULL, CG_LANES, picks), CG_I8);
    cg_store_part(g, bytes, cg_offset(g, base, cg_lshri(g, cg_muli(g, i, bits), 3)),
                  bytes_of(g, e, n));
}

static cg_val read_flat(nb_lower *l, cg_val i, cg_val n) {
    cg *g = l->g;
    cg_buf x = l->in[0].buf;
    if (is_packed(x.elem)) return unpack(g, x.elem, x.base, i, n);
    if (is_small(x.elem)) x.elem = NB_U8;
    return cg_buf_load_part(g, &x, cg_buf_step(g, &x, x.base, i), cg_i64(g, 1), n);
}

static void packed_vector(cg *g, void *user, cg_val i, cg_val n) {
    nb_lower *l = user;
    cg_val result = convert(l, read_flat(l, i, n));
    cg_buf y = l->out[0].buf;
    if (is_packed(y.elem)) {
        pack(g, y.elem, y.base, i, n, result);
        return;
    }
    if (is_small(y.elem)) y.elem = NB_U8;
    cg_buf_store_part(g, &y, cg_buf_step(g, &y, y.base, i), cg_i64(g, 1), result, n);
}

typedef struct span {
    nb_lower *l;
    cg_val first;
} span;

static void span_vector(cg *g, void *user, cg_val i, cg_val n) {
    const span *s = user;
    packed_vector(g, s->l, cg_add(g, s->first, i), n);
}

static cg_val cast_items(nb_lower *l, int phase) {
    (void)phase;
    if (has_packed(l))
        return cg_ceildiv(l->g, cg_buf_count(l->g, &l->out[0].buf), cg_i64(l->g, BLOCK));
    nb_stream_loop loop = loop_of(l);
    return nb_stream_items(l, &loop);
}

static cg_val cast_work(nb_lower *l, int phase) {
    (void)phase;
    if (has_packed(l)) return cg_i64(l->g, BLOCK);
    nb_stream_loop loop = loop_of(l);
    return nb_stream_work(l, &loop);
}

static void cast_body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    (void)phase;
    cg *g = l->g;
    if (!has_packed(l)) {
        nb_stream_loop loop = loop_of(l);
        nb_stream_body(l, &loop, begin, end);
        return;
    }
    span s = {.l = l, .first = cg_muli(g, begin, BLOCK)};
    cg_val last = cg_smin(g, cg_muli(g, end, BLOCK), cg_buf_count(g, &l->out[0].buf));
    cg_for16(g, cg_sub(g, last, s.first), span_vector, &s);
}

static nb_status accept_element(const nb_op *op, const nb_value *v, nb_diags *diags) {
    const nb_elem e = v->type->elem;
    bool known = nb_elems[e].bits >= 8 || nb_elems[e].bits == 4 || nb_elems[e].bits == 2;
    if (known && e != NB_NF4 && !v->type->quant) return NB_OK;
    return nb_refuse(op, diags, "'%s' has type %s", v->name, nb_type_text(diags->arena, v->type));
}

static nb_status cast_accept(const nb_op *op, const cg_cpu *cpu, nb_diags *diags) {
    (void)cpu;
    NB_TRY(accept_element(op, nb_in(op, 0), diags));
    return accept_element(op, op->results[0], diags);
}

const nb_lowering nb_lower_cast = {
    .accept = cast_accept, .items = cast_items, .work = cast_work, .body = cast_body};

/* ---- bitcast -------------------------------------------------------------------------------- */

static nb_stream_loop bitcast_loop(nb_lower *l) {
    const cg_buf *to = &l->out[0].buf;
    cg_buf from = l->in[0].buf;
    from.elem = to->elem;
    nb_stream_loop loop = nb_stream_copy(to, &from);
    nb_stream_collapse(l, &loop);
    return loop;
}

static cg_val bitcast_items(nb_lower *l, int phase) {
    (void)phase;
    nb_stream_loop loop = bitcast_loop(l);
    return nb_stream_items(l, &loop);
}

static cg_val bitcast_work(nb_lower *l, int phase) {
    (void)phase;
    nb_stream_loop loop = bitcast_loop(l);
    return nb_stream_work(l, &loop);
}

static void bitcast_body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    (void)phase;
    nb_stream_loop loop = bitcast_loop(l);
    nb_stream_body(l, &loop, begin, end);
}

const nb_lowering nb_lower_bitcast = {
    .accept = cast_accept, .items = bitcast_items, .work = bitcast_work, .body = bitcast_body};
