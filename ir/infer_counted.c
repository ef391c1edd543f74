/* Shape rules of what data count: bind, and nms whose result has as many places as there can be. */
#include "ir/infer.h"

static bool is_scalar(const nb_type *t, nb_elem elem) { return t->elem == elem && t->rank == 0; }

nb_status nb_infer_bind(const nb_inferring *i) {
    const nb_attr *size = nb_attr_of(i->op, "size"), *most = nb_attr_of(i->op, "most");
    if (!is_scalar(nb_in_type(i, 0), NB_I64))
        return nb_infer_error(i, "the number is %s, expected i64[]", nb_in_text(i, 0));
    if (size->dims.count != 1) return nb_infer_error(i, "size has one value");
    if (most->set && most->dims.count != 1) return nb_infer_error(i, "most has one value");
    i->types[0] = nb_in_type(i, 0);
    return NB_OK;
}

nb_status nb_infer_nms(const nb_inferring *i) {
    const nb_type *boxes = nb_in_type(i, 0), *scores = nb_in_type(i, 1);
    if (boxes->elem != NB_F32 || boxes->rank != 3 || !nb_dim_is(boxes->dims[2], 4))
        return nb_infer_error(i, "boxes are f32[B,S,4], found %s", nb_in_text(i, 0));
    if (scores->elem != NB_F32 || scores->rank != 3 || scores->dims[0] != boxes->dims[0] ||
        scores->dims[2] != boxes->dims[1])
        return nb_infer_error(i, "scores are f32[B,C,S] for boxes of %s, found %s",
                              nb_in_text(i, 0), nb_in_text(i, 1));
    if (!is_scalar(nb_in_type(i, 2), NB_I64) || !is_scalar(nb_in_type(i, 3), NB_F32) ||
        !is_scalar(nb_in_type(i, 4), NB_F32))
        return nb_infer_error(
            i, "the limit is i64[], overlap and least are f32[], found %s, %s and %s",
            nb_in_text(i, 2), nb_in_text(i, 3), nb_in_text(i, 4));
    i->types[0] = nb_type_with_elem(i->g, scores, NB_I64);
    return NB_OK;
}
