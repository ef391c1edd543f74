/* Appended states as operands: rows have the capacity, not their length, between them, and what
 * lies there belongs to nobody. */
#include "tests/diff/quants.h"

#include <stdio.h>

static const int64_t pasts[] = {0, 1, 7, 20};

/* present = concat(past, fresh) along `axis`, a state; output `index`. The past has the symbol S0
 * along the axis, what is new S1. */
static nb_value *append_elem(diff *d, nb_elem elem, int rank, const int64_t *shape, int axis) {
    int64_t dims[4];
    for (int i = 0; i < rank; i++) dims[i] = shape[i];
    nb_state state = {
        .input = d->graph->body.n_params, .output = (uint32_t)d->graph->states.count, .axis = axis};
    dims[axis] = -1;
    nb_value *past = diff_input(d, elem, rank, dims);
    dims[axis] = -2;
    nb_value *fresh = diff_input(d, elem, rank, dims);
    nb_begin(&d->b, NB_OP_concat);
    nb_arg(&d->b, past);
    nb_arg(&d->b, fresh);
    nb_set_int(&d->b, "axis", axis);
    nb_vec_push(d->graph->arena, &d->graph->states, state);
    return nb_end(&d->b);
}

static nb_value *append(diff *d, int rank, const int64_t *shape, int axis) {
    return append_elem(d, NB_F32, rank, shape, axis);
}

static void begin(diff *d, const char *name, int64_t fresh) {
    diff_begin(d, "%s, %lld new", name, (long long)fresh);
    d->lengths = pasts;
    d->n_lengths = NB_COUNT(pasts);
    d->symbols[1] = fresh;
    d->capacity = 29;
}

/* Keys and values in place, a causal mask told by the caller. */
static void attends(int64_t fresh, nb_elem elem) {
    diff d;
    char name[64];
    snprintf(name, sizeof name, "attention to states of %s", nb_elems[elem].text);
    begin(&d, name, fresh);
    d.rows = elem == NB_F32;
    d.plain = !d.rows;
    nb_value *k = append_elem(&d, elem, 4, (int64_t[]){2, 2, 0, 18}, 2);
    nb_value *v = append_elem(&d, elem, 4, (int64_t[]){2, 2, 0, 18}, 2);
    nb_value *q = diff_input(&d, NB_F32, 4, (int64_t[]){2, 6, -2, 18});
    const nb_dim *dims[4] = {nb_dim_const(d.graph, 2), nb_dim_const(d.graph, 1), diff_dim(&d, -2),
                             nb_dim_add(d.graph, diff_dim(&d, -1), diff_dim(&d, -2))};
    nb_value *mask =
        nb_graph_add_input(d.graph, "mask", nb_type_intern(d.graph, NB_F32, NULL, 4, dims));
    nb_begin(&d.b, NB_OP_attention);
    nb_arg(&d.b, q);
    nb_arg(&d.b, k);
    nb_arg(&d.b, v);
    nb_arg(&d.b, mask);
    nb_set_float(&d.b, "scale", 0.25F);
    diff_check_all(&d, 3, (nb_value *[]){k, v, nb_end(&d.b)});
}

/* A state as either side of a product of floats. */
static void multiplies(int64_t fresh) {
    diff d;
    begin(&d, "matmul of states", fresh);
    d.plain = true;
    nb_value *s = append(&d, 3, (int64_t[]){2, 0, 18}, 1);
    nb_value *t = append(&d, 3, (int64_t[]){2, 5, 0}, 2);
    nb_value *w = diff_const(&d, NB_F32, 2, (int64_t[]){18, 21});
    nb_value *ts = nb_binary(&d.b, NB_OP_matmul, t, s);
    nb_value *sw = nb_binary(&d.b, NB_OP_matmul, s, w);
    diff_check_all(&d, 4, (nb_value *[]){s, t, ts, sw});
}

/* A state quantized per token and in blocks, multiplied, and as the residual of its own product. */
static void quantizes(int64_t fresh) {
    static const diff_codes w8 = {.storage = NB_I8, .granularity = NB_PER_AXIS, .axis = 1},
                            w4 = {.storage = NB_I4, .granularity = NB_PER_GROUP, .group = 32};
    diff d;
    begin(&d, "qmatmul of states", fresh);
    d.rows = true;
    nb_value *s = append(&d, 3, (int64_t[]){2, 0, 40}, 1);
    nb_value *a = diff_quantize(&d, s, &diff_acts[4].quant);
    nb_value *b = diff_quantize(&d, s, &diff_acts[2].quant);
    nb_begin(&d.b, NB_OP_qmatmul);
    nb_arg(&d.b, a);
    nb_arg(&d.b, diff_codes_const(&d, &w8, 2, (int64_t[]){40, 40}));
    nb_arg(&d.b, NULL);
    nb_arg(&d.b, s);
    nb_value *y = nb_end(&d.b);
    nb_begin(&d.b, NB_OP_qmatmul);
    nb_arg(&d.b, b);
    nb_arg(&d.b, diff_codes_const(&d, &w4, 2, (int64_t[]){40, 17}));
    nb_value *z = nb_end(&d.b);
    diff_check_all(&d, 4, (nb_value *[]){s, y, z, diff_dequantize(&d, b)});
}

void diff_test_states(void) {
    for (int64_t fresh = 1; fresh < 9; fresh += 7) {
        attends(fresh, NB_F32);
        attends(fresh, NB_F16);
        multiplies(fresh);
        quantizes(fresh);
    }
}
