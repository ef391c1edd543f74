/* Constants of codes with their axes permuted; scales and zero points move along. */
#include "ir/codes.h"

#include <string.h>

/* v's elements in the order of the permuted axes, as a constant of `type`; NULL without memory. */
static nb_value *permuted(nb_graph *g, const nb_value *v, const int64_t *perm,
                          const nb_type *type) {
    const int rank = v->type->rank;
    int64_t dims[NB_MAX_RANK], steps[NB_MAX_RANK], index[NB_MAX_RANK] = {0}, step = 1, count = 1;
    for (int d = rank - 1; d >= 0; d--) {
        for (int k = 0; k < rank; k++)
            if (perm[k] == d) steps[k] = step;
        step *= v->type->dims[d]->value;
    }
    for (int d = 0; d < rank; d++) count *= dims[d] = v->type->dims[perm[d]]->value;
    void *data;
    nb_blob *blob = nb_blob_create(v->blob->size, &data);
    if (!blob) return NULL;
    if (blob->size) memset(data, 0, (size_t)blob->size);
    for (int64_t i = 0, from = 0; i < count; i++) {
        nb_elem_put(type->elem, data, i, nb_elem_get(type->elem, v->blob->data, from));
        for (int d = rank - 1; d >= 0; d--) {
            from += steps[d];
            if (++index[d] < dims[d]) break;
            from -= steps[d] * dims[d];
            index[d] = 0;
        }
    }
    return nb_graph_add_const(g, nb_format(g->arena, "%s.t", v->name), type, blob, NULL);
}

static const nb_type *permuted_type(nb_graph *g, const nb_type *t, const int64_t *perm) {
    const nb_dim *dims[NB_MAX_RANK];
    for (int d = 0; d < t->rank; d++) dims[d] = t->dims[perm[d]];
    return nb_type_intern(g, t->elem, NULL, t->rank, dims);
}

/* Of groups: scales, zero points and minima are as many as codes along the other axes. */
static bool permute_part(nb_graph *g, nb_value **part, const int64_t *perm) {
    if (!*part) return true;
    if ((*part)->type->quant) return false;
    *part = permuted(g, *part, perm, permuted_type(g, (*part)->type, perm));
    return *part != NULL;
}

nb_value *nb_codes_permuted(nb_graph *g, const nb_value *codes, const int64_t *perm,
                            nb_diags *diags) {
    const nb_type *t = codes->type;
    nb_quant q = *t->quant;
    for (int d = 0; d < t->rank; d++)
        if (perm[d] == t->quant->axis) q.axis = d;
    if (q.granularity == NB_PER_GROUP &&
        !(permute_part(g, &q.scales, perm) && permute_part(g, &q.zeros, perm) &&
          permute_part(g, &q.minima, perm)))
        return NULL;
    const nb_quant *quant = nb_quant_intern(g, &q, q.name, diags);
    return quant ? permuted(g, codes, perm, nb_type_with_quant(g, permuted_type(g, t, perm), quant))
                 : NULL;
}
