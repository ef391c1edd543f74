/* QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear of ONNX and com.microsoft (quant.h). */
#include "frontend/quant.h"

#include "ir/codes.h"

#include <math.h>
#include <string.h>

/* How scales lie in a tensor. */
typedef enum form { ONE, VECTOR, BLOCKS, WRONG } form;

static bool is_one(const nb_value *v) {
    int64_t n;
    return nb_type_static_count(v->type, &n) && n == 1;
}

static const char *type_text(nb_importer *im, const nb_value *v) {
    return nb_type_text(im->arena, v->type);
}

nb_status nb_read_scaling(nb_importer *im, size_t scale, size_t zero, int64_t axis,
                          nb_scaling *out) {
    *out = (nb_scaling){.scale = nb_node_input(im, scale), .axis = axis};
    if (!out->scale) return NB_MALFORMED;
    if (nb_has_input(im, zero) && !(out->zero = nb_node_input(im, zero))) return NB_MALFORMED;
    if (nb_elem_is_float(out->scale->type->elem) && !out->scale->type->quant) return NB_OK;
    return nb_node_error(im, NB_MALFORMED, "scales are floats, found %s",
                         type_text(im, out->scale));
}

/* ---- shapes --------------------------------------------------------------------------------- */

static nb_status check_blocks(nb_importer *im, const nb_scaling *s, const nb_value *x) {
    const nb_type *t = x->type;
    const nb_dim *length = t->dims[s->axis];
    for (int d = 0; d < t->rank; d++)
        if (d != s->axis) NB_TRY(nb_unify(im, x->type->dims[d], s->scale->type->dims[d]));
    const nb_dim *blocks = nb_dim_ceildiv(im->g, length, nb_num(im, s->block)),
                 *found = s->scale->type->dims[s->axis];
    if (blocks == found) return NB_OK;
    if (!nb_dim_is_const(blocks) || !nb_dim_is_const(found)) return nb_unify(im, blocks, found);
    nb_node_error(im, NB_MALFORMED,
                  "%s in blocks of %lld along axis %lld has %s scales there, found %s",
                  type_text(im, x), (long long)s->block, (long long)s->axis,
                  nb_dim_text(im->arena, blocks), type_text(im, s->scale));
    nb_help(im->diags, "block_size B fits D elements and S scales where ceil(D / B) is S");
    return NB_MALFORMED;
}

/* WRONG after an error. The axis becomes one from 0 on. */
static form form_of(nb_importer *im, nb_scaling *s, const nb_value *x) {
    const int rank = x->type->rank;
    if (s->block < 0) {
        nb_node_error(im, NB_MALFORMED, "block_size is %lld", (long long)s->block);
        return WRONG;
    }
    if (s->block == 0 && is_one(s->scale) && s->scale->type->rank <= 1) return ONE;
    if (nb_axis(im, s->axis, rank, &s->axis) != NB_OK) return WRONG;
    if (s->block == 0 && s->scale->type->rank == 1)
        return nb_unify(im, x->type->dims[s->axis], s->scale->type->dims[0]) == NB_OK ? VECTOR
                                                                                      : WRONG;
    if (s->block && s->scale->type->rank == rank)
        return check_blocks(im, s, x) == NB_OK ? BLOCKS : WRONG;
    nb_node_error(im, NB_MALFORMED, "scales of type %s for %s: expected %s",
                  type_text(im, s->scale), type_text(im, x),
                  s->block ? "one for each block" : "a scalar or a vector");
    nb_help(im->diags, "scales of the rank of their tensor need block_size");
    return WRONG;
}

/* Zero points are of the codes' type, and as many as scales, or one. */
static bool check_zero(nb_importer *im, const nb_scaling *s, nb_elem elem) {
    const nb_value *z = s->zero;
    if (!z) return true;
    if (z->type->elem != elem || z->type->quant) {
        nb_node_error(im, NB_MALFORMED, "zero points of type %s for codes of %s", type_text(im, z),
                      nb_elems[elem].text);
        nb_help(im->diags, "zero points have the type of the codes");
        return false;
    }
    if (is_one(z) && z->type->rank <= 1) return true;
    bool fits = z->type->rank == s->scale->type->rank;
    for (int d = 0; fits && d < z->type->rank; d++)
        fits = nb_unify(im, z->type->dims[d], s->scale->type->dims[d]) == NB_OK;
    if (fits || im->diags->errors != im->errors) return fits;
    nb_node_error(im, NB_MALFORMED, "zero points of type %s for scales of type %s",
                  type_text(im, z), type_text(im, s->scale));
    nb_help(im->diags, "there is a zero point for each scale, or one for all");
    return false;
}

/* ---- descriptors ---------------------------------------------------------------------------- */

nb_value *nb_new_const(nb_importer *im, const char *name, nb_elem elem, int rank,
                       const int64_t *dims, void **data) {
    const nb_dim *sizes[NB_MAX_RANK];
    int64_t count = 1, bytes;
    for (int d = 0; d < rank; d++) {
        sizes[d] = nb_num(im, dims[d]);
        if (!nb_mul_i64(count, dims[d], &count)) count = INT64_MAX;
    }
    nb_blob *blob =
        nb_elem_bytes_of(elem, count, &bytes) ? nb_blob_create(bytes, data) : (nb_blob *)NULL;
    if (!blob) {
        nb_node_error(im, NB_LIMIT, "no memory for %s", name);
        return NULL;
    }
    if (bytes) memset(*data, 0, (size_t)bytes);
    return nb_graph_add_const(im->g, name, nb_type_intern(im->g, elem, NULL, rank, sizes), blob,
                              NULL);
}

nb_value *nb_constant_input(nb_importer *im, size_t i, const char *what) {
    nb_value *v = nb_node_input(im, i);
    if (!v || (nb_is_const(v) && !v->type->quant)) return v;
    nb_node_error(im, NB_UNSUPPORTED, "%s (input %zu) must be constant", what, i);
    nb_help(im->diags, "export the model with them as initializers");
    return NULL;
}

/* A constant as f32, with all that a descriptor asks of scales; NULL when it does not have it. */
static nb_value *usable_scales(nb_importer *im, nb_value *v) {
    const nb_tensor t = nb_tensor_of_const(v);
    const int64_t n = nb_tensor_count(&t);
    for (int64_t i = 0; i < n; i++)
        if (!nb_is_scale((float)nb_tensor_get(&t, i))) return NULL;
    if (v->type->elem == NB_F32) return v;
    void *data;
    nb_value *c = nb_new_const(im, v->name, NB_F32, t.rank, t.dims, &data);
    for (int64_t i = 0; c && i < n; i++) ((float *)data)[i] = (float)nb_tensor_get(&t, i);
    return c;
}

/* The members of a descriptor for codes of `storage`; false when some are only known at run time or
 * no descriptor could have them. */
static bool describe(nb_importer *im, const nb_scaling *s, form f, nb_elem storage, nb_quant *q) {
    *q = (nb_quant){.storage = storage};
    if (!nb_is_const(s->scale) || (s->zero && !nb_is_const(s->zero)) ||
        (!nb_elem_is_integer(storage) && !nb_elem_is_code(storage)) || nb_elems[storage].bits > 32)
        return false;
    nb_value *scales = usable_scales(im, s->scale);
    if (!scales) return false;
    if (f == ONE) {
        q->scale = *(const float *)scales->blob->data;
    } else {
        q->granularity = f == VECTOR ? NB_PER_AXIS : NB_PER_GROUP;
        q->axis = (int)s->axis;
        q->group = f == BLOCKS ? s->block : 0;
        q->scales = scales;
    }
    if (!s->zero) return true;
    const nb_tensor z = nb_tensor_of_const(s->zero);
    const int64_t n = nb_tensor_count(&z);
    bool same = true;
    for (int64_t i = 1; i < n; i++) same = same && nb_tensor_get(&z, i) == nb_tensor_get(&z, 0);
    if (nb_elem_is_float(storage)) return n > 0 && same && nb_tensor_get(&z, 0) == 0;
    if (same && n > 0)
        q->zero = nb_tensor_get_int(&z, 0);
    else
        q->zeros = s->zero;
    return true;
}

static const nb_quant *intern(nb_importer *im, const nb_quant *q) {
    const char *hint = nb_format(im->arena, "%s%d", nb_elem_is_float(q->storage) ? "f" : "q",
                                 nb_elems[q->storage].bits);
    return nb_quant_intern(im->g, q, hint, im->diags);
}

/* The first op on codes takes the graph to the stage in which it is legal. */
static void reach(nb_importer *im, nb_stage stage) {
    if (im->g->stage < stage) im->g->stage = stage;
}

nb_value *nb_dequantized_const(nb_importer *im, nb_value *codes, const nb_quant *members) {
    if (!codes) return NULL;
    reach(im, NB_STAGE_QDQ);
    const nb_quant *q = intern(im, members);
    if (!q) return NULL;
    nb_value *c = nb_graph_add_const(im->g, nb_format(im->arena, "%s.q", codes->name),
                                     nb_type_with_quant(im->g, codes->type, q),
                                     nb_blob_retain(codes->blob), NULL);
    return nb_unary(&im->b, NB_OP_dequantize, c);
}

/* Constants of more bits than codes multiply with are the numbers: biases in i32. */
static nb_value *numbers_of(nb_importer *im, nb_value *x, const nb_quant *q) {
    const nb_tensor t = nb_tensor_of_const(x);
    const nb_codes c = nb_codes_expand(q, &t, im->arena);
    void *data;
    nb_value *y =
        nb_new_const(im, nb_format(im->arena, "%s.f", x->name), NB_F32, t.rank, t.dims, &data);
    for (int64_t i = 0; y && i < nb_tensor_count(&t); i++)
        ((float *)data)[i] = nb_codes_real(&c, i);
    return y;
}

/* ---- arithmetic ----------------------------------------------------------------------------- */

static nb_value *as(nb_importer *im, nb_value *x, nb_elem elem) {
    return x && x->type->elem != elem ? nb_cast(&im->b, x, elem) : x;
}

/* Scales or zero points as they broadcast with x. */
static nb_value *spread(nb_importer *im, const nb_scaling *s, form f, nb_value *v,
                        const nb_value *x) {
    if (is_one(v) && v->type->rank <= 1) return nb_reshape(&im->b, v, 0, NULL);
    if (f == VECTOR) return nb_along(im, v, x->type->rank, (int)s->axis);
    nb_value *place = nb_count_up(im, nb_num(im, 0), x->type->dims[s->axis]);
    place = nb_combine(im, NB_OP_div, place, nb_scalar(im, NB_I64, (double)s->block));
    return nb_take(im, v, place, (int)s->axis);
}

static nb_value *dequantized_at_run_time(nb_importer *im, nb_value *x, const nb_scaling *s,
                                         form f) {
    /* Differences of codes of 16 bits are exact in f32. */
    const nb_elem wide =
        nb_elem_is_integer(x->type->elem) && nb_elems[x->type->elem].bits > 16 ? NB_I32 : NB_F32;
    nb_value *y = as(im, x, wide);
    if (s->zero) y = nb_combine(im, NB_OP_sub, y, spread(im, s, f, as(im, s->zero, wide), x));
    return nb_combine(im, NB_OP_mul, as(im, y, NB_F32),
                      spread(im, s, f, as(im, s->scale, NB_F32), x));
}

nb_value *nb_dequantized(nb_importer *im, nb_value *x, const nb_scaling *scaling, nb_elem to) {
    nb_scaling s = *scaling;
    if (!x || !s.scale) return NULL;
    const form f = form_of(im, &s, x);
    if (f == WRONG || !check_zero(im, &s, x->type->elem)) return NULL;
    nb_quant members;
    const bool fixed = describe(im, &s, f, x->type->elem, &members);
    const nb_quant *q = fixed ? intern(im, &members) : NULL;
    nb_value *y;
    if (fixed && !q) return NULL;
    const bool made = x->def && x->def->kind == NB_OP_codes;
    if (q && nb_is_const(x) && nb_elems[x->type->elem].bits > 16) {
        y = numbers_of(im, x, q);
    } else if (q && nb_is_const(x)) {
        y = nb_dequantized_const(im, x, q);
    } else if (q && made && nb_in(x->def, 0)->type->quant == q) {
        y = nb_unary(&im->b, NB_OP_dequantize, nb_in(x->def, 0));
    } else if (q && x->type->rank && (x->type->elem == NB_I8 || x->type->elem == NB_U8)) {
        reach(im, NB_STAGE_QDQ);
        nb_begin(&im->b, NB_OP_as_codes);
        nb_arg(&im->b, x);
        nb_set_quant(&im->b, "to", q);
        y = nb_unary(&im->b, NB_OP_dequantize, nb_end(&im->b));
    } else {
        y = dequantized_at_run_time(im, x, &s, f);
    }
    return as(im, y, to);
}

static nb_value *quantized_at_run_time(nb_importer *im, nb_value *x, const nb_scaling *s, form f,
                                       nb_elem to, nb_elem in) {
    nb_value *y =
        nb_combine(im, NB_OP_div, as(im, x, in), spread(im, s, f, as(im, s->scale, in), x));
    if (nb_elem_is_float(to)) return as(im, y, to);
    y = y ? as(im, nb_unary(&im->b, NB_OP_round, y), NB_F32) : NULL;
    if (s->zero) y = nb_combine(im, NB_OP_add, y, spread(im, s, f, as(im, s->zero, NB_F32), x));
    if (nb_elems[to].bits < 8) { /* a cast to whole bytes saturates by itself */
        y = nb_combine(im, NB_OP_max, y, nb_scalar(im, NB_F32, (double)nb_elem_min(to)));
        y = nb_combine(im, NB_OP_min, y, nb_scalar(im, NB_F32, (double)nb_elem_max(to)));
    }
    return as(im, y, to);
}

/* Weights that are floats in the file, with their rounding beside them: codes as QuantizeLinear
 * makes them. */
static nb_value *codes_of_const(nb_importer *im, nb_value *x, const nb_quant *q) {
    const nb_tensor t = nb_tensor_of_const(x);
    const nb_codes c = nb_codes_expand(q, &t, im->arena);
    const double low = (double)nb_elem_min(q->storage), high = (double)nb_elem_max(q->storage);
    void *data;
    nb_value *y = nb_new_const(im, nb_format(im->arena, "%s.codes", x->name), q->storage, t.rank,
                               t.dims, &data);
    for (int64_t i = 0; y && i < nb_tensor_count(&t); i++) {
        const float v = rintf((float)nb_tensor_get(&t, i) / nb_codes_scale(&c, i));
        const double code = (v == v ? (double)v : 0) + (double)nb_codes_zero(&c, i);
        nb_elem_put(q->storage, data, i,
                    (uint64_t)(int64_t)(code < low    ? low
                                        : code > high ? high
                                                      : code));
    }
    return y;
}

nb_value *nb_quantized(nb_importer *im, nb_value *x, const nb_scaling *scaling, nb_elem to,
                       nb_elem in) {
    nb_scaling s = *scaling;
    if (!x || !s.scale) return NULL;
    const form f = form_of(im, &s, x);
    if (f == WRONG || !check_zero(im, &s, to)) return NULL;
    nb_quant members;
    const bool bytes = to == NB_I8 || to == NB_U8;
    const bool constant = nb_is_const(x) && nb_elem_is_integer(to) && x->type->elem == NB_F32;
    if (constant && in == NB_F32 && describe(im, &s, f, to, &members)) {
        const nb_quant *q = intern(im, &members);
        return q ? codes_of_const(im, x, q) : NULL;
    }
    if (f != ONE || !bytes || x->type->elem != NB_F32 || in != NB_F32 || !x->type->rank ||
        !describe(im, &s, f, to, &members))
        return quantized_at_run_time(im, x, &s, f, to, in);
    const nb_quant *q = intern(im, &members);
    reach(im, NB_STAGE_QDQ);
    nb_begin(&im->b, NB_OP_quantize);
    nb_arg(&im->b, x);
    nb_set_quant(&im->b, "to", q);
    return q ? nb_unary(&im->b, NB_OP_codes, nb_end(&im->b)) : NULL;
}

/* ---- operators ------------------------------------------------------------------------------ */

/* An element type as attribute; `usual` when it is absent or 0. */
static nb_status read_elem(nb_importer *im, const char *name, nb_elem usual, nb_elem *out) {
    const int64_t number = nb_node_int(im, name, 0);
    *out = number ? nb_elem_from_onnx((int)number) : usual;
    if (*out != NB_ELEM_COUNT) return NB_OK;
    return nb_node_error(im, NB_MALFORMED, "%s is %lld, no element type known here", name,
                         (long long)number);
}

static nb_status read_operands(nb_importer *im, nb_value **x, nb_scaling *s) {
    *x = nb_node_input(im, 0);
    if (!*x) return NB_MALFORMED;
    NB_TRY(nb_read_scaling(im, 1, 2, nb_node_int(im, "axis", 1), s));
    s->block = nb_node_int(im, "block_size", 0);
    return NB_OK;
}

/* Is it a type that codes may have? */
static nb_status check_code(nb_importer *im, nb_elem e, bool numbers) {
    const bool integer = nb_elem_is_integer(e) && nb_elems[e].onnx && nb_elems[e].bits <= 16;
    if (integer || nb_elem_is_code(e) || (numbers && e == NB_I32)) return NB_OK;
    return nb_node_error(im, NB_MALFORMED, "codes of %s are not possible", nb_elems[e].text);
}

nb_status nb_import_dequantize(nb_importer *im) {
    nb_value *x;
    nb_scaling s;
    nb_elem to;
    NB_TRY(read_operands(im, &x, &s));
    NB_TRY(check_code(im, x->type->elem, true));
    const nb_elem scale = s.scale->type->elem;
    NB_TRY(read_elem(im, "output_dtype", scale == NB_F8E8M0 ? NB_F32 : scale, &to));
    if (!nb_elem_is_float(to))
        return nb_node_error(im, NB_MALFORMED, "output_dtype is %s", nb_elems[to].text);
    return nb_node_output(im, 0, nb_dequantized(im, x, &s, to));
}

nb_status nb_import_quantize(nb_importer *im) {
    nb_value *x;
    nb_scaling s;
    nb_elem to, in;
    NB_TRY(read_operands(im, &x, &s));
    const nb_elem scale = s.scale->type->elem, from = x->type->elem;
    NB_TRY(read_elem(im, "output_dtype", s.zero ? s.zero->type->elem : NB_U8, &to));
    NB_TRY(check_code(im, to, false));
    NB_TRY(read_elem(im, "precision",
                     scale != NB_F8E8M0       ? scale
                     : nb_elem_is_float(from) ? from
                                              : NB_F32,
                     &in));
    if (!nb_elem_is_float(in) || nb_elems[in].bits < 16)
        return nb_node_error(im, NB_MALFORMED, "precision is %s", nb_elems[in].text);
    if (!nb_elem_is_float(from) && from != NB_I32)
        return nb_node_error(im, NB_MALFORMED, "takes floats or i32, found %s", type_text(im, x));
    if (!nb_node_int(im, "saturate", 1) && nb_elem_is_float(to))
        return nb_node_error(im, NB_UNSUPPORTED, "saturate=0 is not supported");
    return nb_node_output(im, 0, nb_quantized(im, x, &s, to, in));
}

nb_status nb_import_dynamic_quantize(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0), *parts[3];
    if (!x) return NB_MALFORMED;
    if (x->type->elem != NB_F32)
        return nb_node_error(im, NB_MALFORMED, "takes f32, found %s", type_text(im, x));
    if (!nb_dynamic_codes(im, x, parts)) return NB_MALFORMED;
    for (size_t i = 0; i < 3; i++) NB_TRY(nb_node_output(im, i, parts[i]));
    return NB_OK;
}

/* The range of x widened to hold 0, in 255 steps; of nothing but zeros the step is 1, as in
 * onnxruntime. */
bool nb_dynamic_codes(nb_importer *im, nb_value *x, nb_value **parts) {
    nb_value *zero = nb_scalar(im, NB_F32, 0), *steps = nb_scalar(im, NB_F32, 255);
    nb_value *low = nb_reduce(im, NB_OP_reduce_min, x, 0, NULL, false),
             *high = nb_reduce(im, NB_OP_reduce_max, x, 0, NULL, false);
    low = nb_combine(im, NB_OP_min, low, zero);
    high = nb_combine(im, NB_OP_max, high, zero);
    nb_value *range = nb_combine(im, NB_OP_sub, high, low),
             *scale = nb_combine(im, NB_OP_div, range, steps);
    nb_value *none = nb_combine(im, NB_OP_eq, scale, zero);
    if (!none) return false;
    scale = nb_choose(im, none, nb_scalar(im, NB_F32, 1), scale);
    nb_value *at = nb_combine(im, NB_OP_div, nb_combine(im, NB_OP_sub, zero, low), scale);
    at = nb_combine(im, NB_OP_min, nb_combine(im, NB_OP_max, at, zero), steps);
    at = as(im, at ? nb_unary(&im->b, NB_OP_round, at) : NULL, NB_U8);
    const nb_scaling s = {.scale = scale, .zero = at};
    parts[0] = nb_quantized(im, x, &s, NB_U8, NB_F32);
    parts[1] = scale;
    parts[2] = at;
    return parts[0] && parts[1] && parts[2];
}
