/* Products of integers: MatMulInteger, and the forms of com.microsoft that scale them at once. */
#include "frontend/quant.h"

#include "ir/codes.h"

/* Inputs whose products, zero points taken off, are exact in 32 bits (nb_product_obstacle). */
#define MOST_INPUTS 32768

static bool is_byte(nb_elem e) { return e == NB_I8 || e == NB_U8; }

static bool is_one(const nb_value *v) {
    int64_t n;
    return nb_type_static_count(v->type, &n) && n == 1;
}

static nb_status check_byte(nb_importer *im, const nb_value *v, const nb_value *zero) {
    if (!is_byte(v->type->elem) || v->type->quant)
        return nb_node_error(im, NB_MALFORMED, "takes i8 or u8, found %s",
                             nb_type_text(im->arena, v->type));
    if (!zero || zero->type->elem == v->type->elem) return NB_OK;
    nb_node_error(im, NB_MALFORMED, "zero points of type %s for %s",
                  nb_type_text(im->arena, zero->type), nb_type_text(im->arena, v->type));
    nb_help(im->diags, "zero points have the type of the codes");
    return NB_MALFORMED;
}

nb_status nb_check_bytes(nb_importer *im, const nb_value *a, const nb_value *az, const nb_value *b,
                         const nb_value *bz) {
    NB_TRY(check_byte(im, a, az));
    return check_byte(im, b, bz);
}

/* ---- the product ---------------------------------------------------------------------------- */

/* A constant matrix of bytes as codes of scale 1; NULL when that cannot be. */
static nb_value *unit_codes(nb_importer *im, nb_value *b, nb_value *bz) {
    if (!nb_is_const(b) || b->type->rank != 2 || (bz && !nb_is_const(bz))) return NULL;
    const int64_t K = b->type->dims[0]->value, N = b->type->dims[1]->value;
    nb_quant q = {.storage = b->type->elem, .scale = 1};
    if (K > MOST_INPUTS || (bz && !is_one(bz) && bz->type->rank != 1)) return NULL;
    if (bz && is_one(bz)) {
        const nb_tensor z = nb_tensor_of_const(bz);
        q.zero = nb_tensor_get_int(&z, 0);
    } else if (bz) {
        void *data;
        q.scales = nb_new_const(im, "ones", NB_F32, 1, &N, &data);
        for (int64_t i = 0; q.scales && i < N; i++) ((float *)data)[i] = 1;
        q.granularity = NB_PER_AXIS;
        q.axis = 1;
        q.zeros = bz;
    }
    const nb_quant *quant = nb_quant_intern(im->g, &q, "w", im->diags);
    return quant ? nb_graph_add_const(im->g, nb_format(im->arena, "%s.q", b->name),
                                      nb_type_with_quant(im->g, b->type, quant),
                                      nb_blob_retain(b->blob), NULL)
                 : NULL;
}

/* i32[N]: of each column the sum of codes less their zero points. */
static nb_value *column_sums(nb_importer *im, nb_value *w) {
    const nb_tensor t = nb_tensor_of_const(w);
    const nb_codes c = nb_codes_of(w->type->quant, &t);
    const int64_t n = nb_tensor_count(&t);
    void *data;
    nb_value *sums =
        nb_new_const(im, nb_format(im->arena, "%s.sums", w->name), NB_I32, 1, &t.dims[1], &data);
    for (int64_t i = 0; sums && i < n; i++)
        ((int32_t *)data)[i % t.dims[1]] +=
            (int32_t)(nb_tensor_get_int(&t, i) - nb_codes_zero(&c, i));
    return sums;
}

/* Zero points of rows (those of a) or columns in the shape in which they broadcast. */
static nb_value *spread(nb_importer *im, nb_value *zero, bool rows) {
    if (is_one(zero))
        zero = nb_reshape(&im->b, zero, 0, NULL);
    else if (rows && zero->type->rank == 1)
        zero = nb_reshape(&im->b, zero, 2, (const nb_dim *[]){zero->type->dims[0], nb_num(im, 1)});
    return zero ? nb_cast(&im->b, zero, NB_I32) : NULL;
}

static nb_value *plain_product(nb_importer *im, nb_value *a, nb_value *az, nb_value *b,
                               nb_value *bz) {
    a = nb_cast(&im->b, a, NB_I32);
    b = nb_cast(&im->b, b, NB_I32);
    if (az) a = nb_combine(im, NB_OP_sub, a, spread(im, az, true));
    if (bz) b = nb_combine(im, NB_OP_sub, b, spread(im, bz, false));
    return nb_multiply(im, a, b);
}

nb_value *nb_integer_product(nb_importer *im, nb_value *a, nb_value *az, nb_value *b,
                             nb_value *bz) {
    if (!a || !b) return NULL;
    nb_value *w = a->type->rank >= 1 ? unit_codes(im, b, bz) : NULL;
    if (!w) return im->diags->errors == im->errors ? plain_product(im, a, az, b, bz) : NULL;
    if (nb_unify(im, a->type->dims[a->type->rank - 1], w->type->dims[0]) != NB_OK) return NULL;
    nb_quant q = {.storage = a->type->elem, .scale = 1};
    const bool known = az && is_one(az) && nb_is_const(az);
    if (known) {
        const nb_tensor z = nb_tensor_of_const(az);
        q.zero = nb_tensor_get_int(&z, 0);
    }
    const nb_quant *quant = nb_quant_intern(im->g, &q, "a", im->diags);
    if (im->g->stage < NB_STAGE_FUSED) im->g->stage = NB_STAGE_FUSED;
    nb_begin(&im->b, NB_OP_as_codes);
    nb_arg(&im->b, a);
    nb_set_quant(&im->b, "to", quant);
    nb_value *codes = nb_end(&im->b);
    nb_begin(&im->b, NB_OP_qmatmul);
    nb_arg(&im->b, codes);
    nb_arg(&im->b, w);
    nb_arg(&im->b, NULL);
    nb_arg(&im->b, NULL);
    nb_set_bool(&im->b, "sums", true);
    nb_value *y = nb_end(&im->b);
    if (!az || known) return y;
    nb_value *off = nb_combine(im, NB_OP_mul, spread(im, az, true), column_sums(im, w));
    return nb_combine(im, NB_OP_sub, y, off);
}

/* ---- operators ------------------------------------------------------------------------------ */

/* Operand i; NULL when it is not given. */
static nb_value *given(nb_importer *im, size_t i) {
    return nb_has_input(im, i) ? nb_node_input(im, i) : NULL;
}

nb_status nb_import_matmul_integer(nb_importer *im) {
    nb_value *a = nb_node_input(im, 0), *b = nb_node_input(im, 1), *az = given(im, 2),
             *bz = given(im, 3);
    if (!a || !b) return NB_MALFORMED;
    NB_TRY(nb_check_bytes(im, a, az, b, bz));
    return nb_node_output(im, 0, nb_integer_product(im, a, az, b, bz));
}

/* A scale of one number, or one for each column. */
static nb_value *scale_of(nb_importer *im, size_t i) {
    nb_value *s = nb_node_input(im, i);
    return s && is_one(s) ? nb_reshape(&im->b, s, 0, NULL) : s;
}

/* The sums times both scales, + bias. */
static nb_status scaled(nb_importer *im, nb_value *sums, nb_value *a, nb_value *b, nb_value *bias) {
    if (!sums || !a || !b) return NB_MALFORMED;
    nb_value *y =
        nb_combine(im, NB_OP_mul, nb_cast(&im->b, sums, NB_F32), nb_combine(im, NB_OP_mul, a, b));
    if (bias) y = nb_combine(im, NB_OP_add, y, bias);
    return nb_node_output(im, 0, y);
}

nb_status nb_import_matmul_integer_to_float(nb_importer *im) {
    nb_value *a = nb_node_input(im, 0), *b = nb_node_input(im, 1), *az = given(im, 4),
             *bz = given(im, 5);
    if (!a || !b) return NB_MALFORMED;
    NB_TRY(nb_check_bytes(im, a, az, b, bz));
    return scaled(im, nb_integer_product(im, a, az, b, bz), scale_of(im, 2), scale_of(im, 3),
                  given(im, 6));
}

nb_status nb_import_dynamic_quantize_matmul(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0), *b = nb_node_input(im, 1), *bz = given(im, 3), *a[3];
    if (!x || !b) return NB_MALFORMED;
    if (x->type->elem != NB_F32 || x->type->rank < 1)
        return nb_node_error(im, NB_MALFORMED, "takes f32, found %s",
                             nb_type_text(im->arena, x->type));
    if (!nb_dynamic_codes(im, x, a)) return NB_MALFORMED;
    NB_TRY(nb_check_bytes(im, a[0], a[2], b, bz));
    return scaled(im, nb_integer_product(im, a[0], a[2], b, bz), a[1], scale_of(im, 2),
                  given(im, 4));
}
