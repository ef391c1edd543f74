/* Keys and values behind transposes and repetition of heads:
 *
 *   reshape(expand(x [..,G,1,..] to [..,G,n,..])) [..,G*n,..]   is x [..,G,..], heads repeated
 *
 * Head h then reads group h / n, as op `attention` means it; the other order of repetition, h mod
 * G, is left alone. */
#include "passes/raise.h"

#include <string.h>

void nb_heads_untranspose(nb_heads *h, nb_trail *trail) {
    for (nb_op *op; (op = nb_made_by(h->base, NB_OP_transpose));) {
        const int64_t *inner = nb_attr_of(op, "perm")->ints.items;
        for (size_t i = 0; i < 4; i++) h->perm[i] = inner[h->perm[i]];
        nb_trail_add(trail, op);
        h->base = nb_in(op, 0);
    }
}

/* All dims equal but that at `axis`, which is 1 in `narrow`. */
static bool widens(const nb_type *narrow, const nb_type *wide, int64_t axis) {
    if (narrow->rank != wide->rank) return false;
    for (int d = 0; d < wide->rank; d++) {
        if (d != axis && narrow->dims[d] != wide->dims[d]) return false;
    }
    return nb_dim_is(narrow->dims[axis], 1);
}

/* Is `flat` [..,a*b,..] of `split` [..,a,b,..], a at `axis`? */
static bool merges(nb_graph *g, const nb_type *split, const nb_type *flat, int64_t axis) {
    if (split->rank != flat->rank + 1) return false;
    for (int d = 0; d < flat->rank; d++) {
        const nb_dim *from = split->dims[d > axis ? d + 1 : d];
        if (d == axis) from = nb_dim_mul(g, from, split->dims[d + 1]);
        if (from != flat->dims[d]) return false;
    }
    return true;
}

bool nb_heads_unrepeat(nb_heads *h, nb_builder *b, nb_trail *trail) {
    int64_t axis = h->perm[1];
    nb_op *expand = nb_made_by(h->base, NB_OP_expand);
    if (expand && widens(nb_in(expand, 0)->type, h->base->type, axis)) {
        nb_trail_add(trail, expand);
        h->base = nb_in(expand, 0);
        return true;
    }
    nb_op *reshape = nb_made_by(h->base, NB_OP_reshape);
    nb_op *wide = reshape ? nb_made_by(nb_in(reshape, 0), NB_OP_expand) : NULL;
    if (!wide || !merges(b->graph, nb_out(wide)->type, h->base->type, axis) ||
        !widens(nb_in(wide, 0)->type, nb_out(wide)->type, axis + 1))
        return false;
    const nb_dim *dims[NB_MAX_RANK];
    for (int d = 0; d < 4; d++) dims[d] = nb_in(wide, 0)->type->dims[d > axis ? d + 1 : d];
    nb_value *narrow = nb_reshape(b, nb_in(wide, 0), 4, dims);
    if (!narrow) return false;
    nb_trail_add(trail, reshape);
    nb_trail_add(trail, wide);
    h->base = narrow;
    return true;
}

const nb_type *nb_heads_type(const nb_heads *h, nb_graph *g) {
    const nb_dim *dims[4];
    for (int d = 0; d < 4; d++) dims[d] = h->base->type->dims[h->perm[d]];
    return nb_type_with_dims(g, h->base->type, 4, dims);
}

nb_value *nb_heads_build(const nb_heads *h, nb_builder *b) {
    static const int64_t identity[4] = {0, 1, 2, 3};
    return memcmp(h->perm, identity, sizeof identity) == 0 ? h->base
                                                           : nb_transpose(b, h->base, h->perm);
}
