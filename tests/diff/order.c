/* cumsum, cumprod, topk and scatter: what goes along an axis in order. */
#include "tests/diff/diff.h"

static const nb_elem elems[] = {NB_F32, NB_F16, NB_BF16, NB_F64, NB_I64, NB_U64, NB_I8, NB_U8};

static const struct {
    int rank;
    int64_t axis, dims[3];
} shapes[] = {
    {1, 0, {40}},       {2, 0, {7, 19}},  {2, 1, {7, 19}}, {3, 1, {2, 9, 5}},
    {3, 1, {2, -1, 5}}, {2, 1, {-1, 33}}, {2, 1, {3, 0}},  {3, 0, {1, 3, 4}},
};

static void sums(nb_op_kind kind) {
    for (size_t i = 0; i < NB_COUNT(shapes); i++) {
        for (size_t e = 0; e < NB_COUNT(elems); e++) {
            diff d;
            diff_begin(&d, "%s %s %zu", nb_ops[kind].name, nb_elems[elems[e]].text, i);
            d.symbols[0] = 4;
            d.plain = e % 2;
            nb_value *x = diff_input(&d, elems[e], shapes[i].rank, shapes[i].dims);
            nb_begin(&d.b, kind);
            nb_arg(&d.b, x);
            nb_set_int(&d.b, "axis", shapes[i].axis);
            diff_check(&d, nb_end(&d.b));
        }
    }
}

static void top(diff *d, nb_value *x, int64_t axis, int64_t k, bool smallest) {
    const nb_dim *count = diff_dim(d, k);
    nb_begin(&d->b, NB_OP_topk);
    nb_arg(&d->b, x);
    nb_set_int(&d->b, "axis", axis);
    nb_set_dims(&d->b, "count", 1, &count);
    nb_set_bool(&d->b, "smallest", smallest);
    nb_end(&d->b);
    diff_check_all(d, 2, d->b.op->results);
}

/* Plain inputs are small numbers, of which many are equal. */
static void tops(void) {
    for (size_t i = 0; i < NB_COUNT(shapes); i++) {
        for (size_t e = 0; e < NB_COUNT(elems); e++) {
            for (int64_t k = 0; k < 4; k++) {
                int64_t length = shapes[i].dims[shapes[i].axis];
                if (length >= 0 && k > length) continue;
                diff d;
                diff_begin(&d, "top %lld %s %zu", (long long)k, nb_elems[elems[e]].text, i);
                d.symbols[0] = 4;
                d.plain = k % 2;
                nb_value *x = diff_input(&d, elems[e], shapes[i].rank, shapes[i].dims);
                top(&d, x, shapes[i].axis, k == 3 && length > 0 ? length : k, (e + i) % 2);
            }
        }
    }
    diff d;
    diff_begin(&d, "as many as another input is long");
    d.symbols[0] = 17;
    diff_input(&d, NB_F32, 1, (int64_t[]){-1});
    top(&d, diff_input(&d, NB_F32, 2, (int64_t[]){3, 20}), 1, -1, false);
    diff_begin(&d, "more than there are");
    d.symbols[0] = 2;
    d.result = 2;
    top(&d, diff_input(&d, NB_F32, 1, (int64_t[]){-1}), 0, 3, false);
}

static nb_value *scatter(diff *d, nb_op_kind kind, nb_value *x, nb_value *index,
                         nb_value *updates) {
    nb_begin(&d->b, kind);
    nb_arg(&d->b, x);
    nb_arg(&d->b, index);
    nb_arg(&d->b, updates);
    return nb_end(&d->b);
}

static void scatters(void) {
    static const int64_t good[] = {0, 4, -1, 2, -5, 4, 0}, bad[] = {0, 5, 1}, low[] = {0, -6, 1};
    static const int64_t inner[][2] = {{1, 1}, {3, 7}, {-1, 5}, {2, 1100}, {0, 4}};
    static const nb_elem kinds[] = {NB_F32, NB_F16, NB_BF16, NB_F64};
    for (nb_op_kind kind = NB_OP_scatter; kind <= NB_OP_scatter_max; kind++) {
        for (size_t i = 0; i < NB_COUNT(inner); i++) {
            for (size_t e = 0; e < NB_COUNT(kinds); e++) {
                diff d;
                diff_begin(&d, "%s %s %zu", nb_ops[kind].name, nb_elems[kinds[e]].text, i);
                d.indices = good;
                d.n_indices = NB_COUNT(good);
                d.symbols[0] = 6;
                const int64_t dims[3] = {5, inner[i][0], inner[i][1]},
                              rows[3] = {7, inner[i][0], inner[i][1]};
                nb_value *x = diff_input(&d, kinds[e], 3, dims),
                         *index = diff_input(&d, NB_I64, 1, rows),
                         *updates = diff_input(&d, kinds[e], 3, rows);
                diff_check(&d, scatter(&d, kind, x, index, updates));
            }
        }
        diff d;
        diff_begin(&d, "%s of integers, elements", nb_ops[kind].name);
        d.indices = good;
        d.n_indices = NB_COUNT(good);
        nb_value *x = diff_const(&d, NB_U8, 1, (int64_t[]){5}),
                 *index = diff_input(&d, NB_I32, 2, (int64_t[]){2, 4}),
                 *updates = diff_const(&d, NB_U8, 2, (int64_t[]){2, 4});
        diff_check(&d, scatter(&d, kind, x, index, updates));
    }
    for (int k = 0; k < 2; k++) {
        diff d;
        diff_begin(&d, "scatter with an index out of range (%d)", k);
        d.indices = k ? low : bad;
        d.n_indices = 3;
        d.result = 2;
        nb_value *x = diff_const(&d, NB_F32, 2, (int64_t[]){5, 8}),
                 *index = diff_input(&d, NB_I64, 1, (int64_t[]){3}),
                 *updates = diff_input(&d, NB_F32, 2, (int64_t[]){3, 8});
        diff_check(&d, scatter(&d, NB_OP_scatter, x, index, updates));
    }
}

void diff_test_order(void) {
    sums(NB_OP_cumsum);
    sums(NB_OP_cumprod);
    tops();
    scatters();
}
