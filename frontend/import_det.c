/* Det: determinants of small matrices, by minors of their rows. */
#include "frontend/import.h"

#define MOST 4 /* rows: 4! products */

/* Element (row, column) of each matrix, with their axes gone. */
static nb_value *element(nb_importer *im, nb_value *x, int row, int column) {
    const int rank = x->type->rank;
    const nb_dim *one = nb_num(im, 1);
    nb_value *y = nb_slice_axis(im, x, rank - 2, nb_num(im, row), one, 1);
    y = nb_slice_axis(im, y, rank - 1, nb_num(im, column), one, 1);
    return y ? nb_reshape(&im->b, y, rank - 2, y->type->dims) : NULL;
}

/* Of the rows from `row` on and the columns of `left`, bit by bit. */
static nb_value *minor_of(nb_importer *im, nb_value *x, int n, int row, unsigned left) {
    nb_value *sum = NULL;
    bool minus = false;
    for (int c = 0; c < n; c++) {
        if (!(left >> c & 1)) continue;
        nb_value *term = element(im, x, row, c);
        if (row + 1 < n && term) {
            nb_value *rest = minor_of(im, x, n, row + 1, left & ~(1u << c));
            term = rest ? nb_combine(im, NB_OP_mul, term, rest) : NULL;
        }
        if (!term) return NULL;
        sum = sum ? nb_combine(im, minus ? NB_OP_sub : NB_OP_add, sum, term) : term;
        minus = !minus;
    }
    return sum;
}

nb_status nb_import_det(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    if (!x) return NB_MALFORMED;
    const int rank = x->type->rank;
    if (rank < 2) return nb_node_error(im, NB_MALFORMED, "expected matrices, found rank %d", rank);
    NB_TRY(nb_unify(im, x->type->dims[rank - 2], x->type->dims[rank - 1]));
    const nb_dim *n = x->type->dims[rank - 1];
    if (!nb_dim_is_const(n) || n->value < 1 || n->value > MOST)
        return nb_node_error(im, NB_UNSUPPORTED,
                             "matrices of %s rows, expected a number from 1 to %d",
                             nb_dim_text(im->arena, n), MOST);
    return nb_node_output(im, 0, minor_of(im, x, (int)n->value, 0, (1u << n->value) - 1));
}
