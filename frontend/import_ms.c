/* com.microsoft RotaryEmbedding, as onnxruntime computes it, and heads as an axis of their own. */
#include "frontend/import.h"

nb_value *nb_split_heads(nb_importer *im, nb_value *x, int64_t heads, int64_t size) {
    if (!x) return NULL;
    const nb_type *t = x->type;
    if (t->rank != 3 || nb_unify(im, t->dims[2], nb_num(im, heads * size)) != NB_OK) return NULL;
    nb_value *y = nb_reshape(&im->b, x, 4,
                             (const nb_dim *[]){x->type->dims[0], x->type->dims[1],
                                                nb_num(im, heads), nb_num(im, size)});
    return nb_swap_axes(im, y, 1, 2);
}

nb_value *nb_join_heads(nb_importer *im, nb_value *x) {
    nb_value *y = nb_swap_axes(im, x, 1, 2);
    if (!y) return NULL;
    const nb_type *t = y->type;
    return nb_reshape(
        &im->b, y, 3,
        (const nb_dim *[]){t->dims[0], t->dims[1], nb_dim_mul(im->g, t->dims[2], t->dims[3])});
}

nb_value *nb_as(nb_importer *im, nb_value *x, nb_elem elem) {
    return x && x->type->elem != elem ? nb_cast(&im->b, x, elem) : x;
}

nb_value *nb_rotate(nb_importer *im, nb_value *x, nb_value *cosine, nb_value *sine,
                    bool interleaved) {
    if (!x || !cosine || !sine) return NULL;
    const nb_elem elem = x->type->elem;
    const nb_dim *size = x->type->dims[3], *half = cosine->type->dims[cosine->type->rank - 1],
                 *turned = nb_dim_add(im->g, half, half);
    const bool partly = nb_dim_is_const(size) && nb_dim_is_const(turned) &&
                        turned->value < size->value && turned->value > 0;
    nb_value *head = partly ? nb_slice_axis(im, x, 3, nb_num(im, 0), turned, 1) : x;
    nb_value *c = nb_as(im, cosine, NB_F32), *s = nb_as(im, sine, NB_F32),
             *wide = nb_as(im, head, NB_F32);
    nb_begin(&im->b, NB_OP_rotary);
    nb_arg(&im->b, wide);
    nb_arg(&im->b, c);
    nb_arg(&im->b, s);
    nb_set_bool(&im->b, "interleaved", interleaved);
    nb_value *y = nb_as(im, nb_end(&im->b), elem);
    if (!partly) return y;
    return nb_join(im, y, nb_slice_axis(im, x, 3, turned, nb_dim_sub(im->g, size, turned), 1), 3);
}

/* x[B,S,N*D] as [B,N,S,D]: heads are as large as the tables say, or there are num_heads of them, of
 * which only the first elements are rotated. */
static nb_value *heads_to_rotate(nb_importer *im, nb_value *x, int64_t turned) {
    const nb_dim *width = x->type->dims[2];
    const int64_t given = nb_node_int(im, "num_heads", 0),
                  part = nb_node_int(im, "rotary_embedding_dim", 0);
    if (!nb_dim_is_const(width) || turned == 0 || given < 0 ||
        (part && (part != turned || !given)) || width->value % (part ? given : turned)) {
        nb_node_error(im, NB_MALFORMED,
                      "%s elements are no heads of which %lld elements are rotated",
                      nb_dim_text(im->arena, width), (long long)turned);
        return NULL;
    }
    const int64_t heads = part ? given : width->value / turned;
    if (given && given != heads) {
        nb_node_error(im, NB_MALFORMED, "num_heads is %lld, the tables give %lld", (long long)given,
                      (long long)heads);
        return NULL;
    }
    return nb_split_heads(im, x, heads, width->value / heads);
}

nb_status nb_import_ms_rotary(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0), *position = nb_node_input(im, 1),
             *cosine = nb_node_input(im, 2), *sine = nb_node_input(im, 3);
    if (!x || !position || !cosine || !sine) return NB_MALFORMED;
    if (nb_node_float(im, "scale", 1) != 1.0f || nb_node_int(im, "is_packed_batching", 0))
        return nb_node_error(im, NB_UNSUPPORTED, "scale and packed batches are not supported");
    if (cosine->type->rank != 2 || !nb_dim_is_const(cosine->type->dims[1]))
        return nb_node_error(im, NB_MALFORMED, "the table of cosines is not a matrix");
    const bool flat = x->type->rank == 3;
    if (flat) {
        x = heads_to_rotate(im, x, 2 * cosine->type->dims[1]->value);
        if (!x) return NB_MALFORMED;
    }
    if (x->type->rank != 4) return nb_node_error(im, NB_MALFORMED, "expected rank 3 or 4");
    if (position->type->rank == 1) { /* the offset of the first row */
        nb_value *steps = nb_count_up(im, nb_num(im, 0), x->type->dims[2]);
        position = nb_combine(
            im, NB_OP_add,
            nb_reshape(&im->b, position, 2, (const nb_dim *[]){nb_num(im, 1), nb_num(im, 1)}),
            steps);
    } else {
        if (position->type->rank != 2)
            return nb_node_error(im, NB_MALFORMED, "positions have rank %d, expected 1 or 2",
                                 position->type->rank);
        NB_TRY(nb_unify(im, position->type->dims[0], x->type->dims[0]));
        NB_TRY(nb_unify(im, position->type->dims[1], x->type->dims[2]));
    }
    nb_value *y = nb_rotate(im, x, nb_take(im, cosine, position, 0), nb_take(im, sine, position, 0),
                            nb_node_int(im, "interleaved", 0) != 0);
    return nb_node_output(im, 0, flat ? nb_join_heads(im, y) : y);
}
