/* call: functions of this program, as a plug-in would bring them. Rows in any split, operands of
 * all kinds of storage, results with NaNs that leave the model. */
#include "tests/diff/diff.h"

#include <math.h>

#define KERNEL(name)                                                                    \
    void nb_call_##name(const void *const *operands, void *result, const int64_t *dims, \
                        const int64_t *numbers, int64_t begin, int64_t end);            \
    void nb_call_##name(const void *const *operands, void *result, const int64_t *dims, \
                        const int64_t *numbers, int64_t begin, int64_t end)

/* a[B,R,n] + b[n] * numbers[0]; a NaN with a sign and a payload becomes of b < 0. */
KERNEL(diff_scale) {
    const float *a = operands[0], *b = operands[1];
    float *y = result;
    const int64_t n = dims[2];
    for (int64_t i = begin * n; i < end * n; i++) {
        const float v = b[i % n];
        y[i] = v < 0 ? -(float)NAN : a[i] + v * (float)numbers[0];
    }
}

/* The sum of a vector, as i64; numbers may be absent. */
KERNEL(diff_sum) {
    const int64_t *x = operands[0];
    int64_t *y = result;
    (void)numbers;
    if (begin >= end) return;
    y[0] = 0;
    for (int64_t i = 0; i < dims[0]; i++) y[0] = (int64_t)((uint64_t)y[0] + (uint64_t)x[i]);
}

static nb_value *call(diff *d, const char *name, size_t n, nb_value *const *operands,
                      const nb_type *type, size_t n_numbers, const int64_t *numbers) {
    nb_begin(&d->b, NB_OP_call);
    for (size_t i = 0; i < n; i++) nb_arg(&d->b, operands[i]);
    nb_set_str(&d->b, "function", name);
    nb_set_elem(&d->b, "to", type->elem);
    nb_set_dims(&d->b, "shape", (size_t)type->rank, type->dims);
    if (n_numbers) nb_set_ints(&d->b, "numbers", n_numbers, numbers);
    return nb_end(&d->b);
}

static void scale(int64_t n, bool constant, bool view) {
    static const int64_t lengths[] = {1, 5, 2000};
    diff d;
    diff_begin(&d, "call rows of %lld%s%s", (long long)n, constant ? ", constant" : "",
               view ? ", view" : "");
    d.lengths = lengths;
    d.n_lengths = NB_COUNT(lengths);
    nb_value *x = diff_input(&d, NB_F32, 3, (int64_t[]){-1, 3, n}), *a = x;
    if (view) {
        nb_value *flat = diff_input(&d, NB_F32, 2, (int64_t[]){-1, 3 * n});
        a = nb_reshape(&d.b, flat, 3, x->type->dims);
    }
    nb_value *b = constant ? diff_const(&d, NB_F32, 1, (int64_t[]){n})
                           : diff_input(&d, NB_F32, 1, (int64_t[]){n});
    const int64_t numbers[] = {3, -1};
    /* Once into an output, once into a slot, twice the same kernel. */
    nb_value *y = call(&d, "diff_scale", 2, (nb_value *[]){a, b}, x->type, 2, numbers),
             *z = call(&d, "diff_scale", 2, (nb_value *[]){y, b}, x->type, 2, numbers);
    diff_check_all(&d, 2, (nb_value *[]){y, nb_unary(&d.b, NB_OP_abs, z)});
}

static void sum(int rank) {
    static const int64_t lengths[] = {1, 33};
    diff d;
    diff_begin(&d, "call to rank %d", rank);
    d.lengths = lengths;
    d.n_lengths = NB_COUNT(lengths);
    nb_value *x = diff_input(&d, NB_I64, 1, (int64_t[]){-1});
    const nb_dim *one = nb_dim_const(d.graph, 1);
    const nb_type *type = nb_type_intern(d.graph, NB_I64, NULL, rank, &one);
    diff_check(&d, call(&d, "diff_sum", 1, &x, type, 0, NULL));
}

void diff_test_call(void) {
    static const int64_t rows[] = {1, 7, 16, 33};
    for (size_t i = 0; i < NB_COUNT(rows); i++) {
        scale(rows[i], false, false);
        scale(rows[i], true, true);
    }
    sum(0);
    sum(1);
}
