/* Appended states as operands: rows have the capacity, not their length, between them, and what
 * lies there belongs to nobody. */
#include "tests/diff/quants.h"

static const int64_t pasts[] = {0, 1, 7, 20};

/* present = concat(past, fresh) along `axis`, a state; output number of states so far. The past has
 * the symbol S0 along the axis. */
static nb_value *append_value(diff *d, nb_elem elem, nb_value *fresh, int axis) {
    int64_t dims[4];
    const nb_type *t = fresh->type;
    for (int i = 0; i < t->rank; i++) dims[i] = i == axis ? -1 : t->dims[i]->value;
    nb_state state = {
        .input = d->graph->body.n_params, .output = (uint32_t)d->graph->states.count, .axis = axis};
    nb_value *past = diff_input(d, elem, t->rank, dims);
    nb_begin(&d->b, NB_OP_concat);
    nb_arg(&d->b, past);
    nb_arg(&d->b, fresh);
    nb_set_int(&d->b, "axis", axis);
    nb_vec_push(d->graph->arena, &d->graph->states, state);
    return nb_end(&d->b);
}

/* What is new is an input, with the symbol S1 along the axis. */
static nb_value *fresh_input(diff *d, nb_elem elem, int rank, const int64_t *shape, int axis) {
    int64_t dims[4];
    for (int i = 0; i < rank; i++) dims[i] = i == axis ? -2 : shape[i];
    return diff_input(d, elem, rank, dims);
}

static nb_value *append(diff *d, nb_elem elem, int rank, const int64_t *shape, int axis) {
    return append_value(d, elem, fresh_input(d, elem, rank, shape, axis), axis);
}

static void begin(diff *d, const char *type, const char *name, int64_t fresh) {
    diff_begin(d, "%s %s, %lld new", name, type, (long long)fresh);
    d->lengths = pasts;
    d->n_lengths = NB_COUNT(pasts);
    d->symbols[1] = fresh;
    d->capacity = 29;
}

/* Rows f32[2,6,S1,18] that attend to keys and values under a mask told by the caller. */
static nb_value *attend(diff *d, nb_value *k, nb_value *v, nb_value *k_scales, nb_value *v_scales,
                        nb_value *k_minima, nb_value *v_minima) {
    nb_value *q = diff_input(d, NB_F32, 4, (int64_t[]){2, 6, -2, 18});
    const nb_dim *dims[4] = {nb_dim_const(d->graph, 2), nb_dim_const(d->graph, 1), diff_dim(d, -2),
                             nb_dim_add(d->graph, diff_dim(d, -1), diff_dim(d, -2))};
    nb_value *mask =
        nb_graph_add_input(d->graph, "mask", nb_type_intern(d->graph, NB_F32, NULL, 4, dims));
    nb_begin(&d->b, NB_OP_attention);
    nb_arg(&d->b, q);
    nb_arg(&d->b, k);
    nb_arg(&d->b, v);
    nb_arg(&d->b, mask);
    nb_arg(&d->b, k_scales);
    nb_arg(&d->b, v_scales);
    nb_arg(&d->b, k_minima);
    nb_arg(&d->b, v_minima);
    if (k_minima) nb_set_int(&d->b, "group", 16);
    nb_set_float(&d->b, "scale", 0.25F);
    return nb_end(&d->b);
}

/* Keys and values in place. */
static void attends(int64_t fresh, nb_elem keys, nb_elem values) {
    static const int64_t shape[] = {2, 2, 0, 18};
    diff d;
    begin(&d, nb_elems[keys].text, "attention to states", fresh);
    d.rows = keys == NB_F32; /* of f32 only */
    d.plain = !d.rows;
    nb_value *k = append(&d, keys, 4, shape, 2), *v = append(&d, values, 4, shape, 2);
    diff_check_all(&d, 3, (nb_value *[]){k, v, attend(&d, k, v, NULL, NULL, NULL, NULL)});
}

/* The same with codes and their scales, two states each. Not plain: some rows have scales of NaN or
 * 0. */
static void attends_codes(int64_t fresh, bool plain) {
    static const int64_t shape[] = {2, 2, 0, 18};
    static const nb_quant per_token = {
        .storage = NB_I8, .narrow = true, .granularity = NB_PER_TOKEN, .amax_code = 127};
    diff d;
    begin(&d, plain ? "i8" : "i8, hard rows", "attention to states", fresh);
    d.plain = plain;
    d.rows = !plain;
    nb_value *y[5];
    for (int i = 0; i < 2; i++) {
        nb_value *x = fresh_input(&d, NB_F32, 4, shape, 2), *q = diff_quantize(&d, x, &per_token);
        y[2 * i] = append_value(&d, NB_I8, nb_unary(&d.b, NB_OP_codes, q), 2);
        y[2 * i + 1] = append_value(&d, NB_F32, nb_unary(&d.b, NB_OP_scales, q), 2);
    }
    y[4] = attend(&d, y[0], y[2], y[1], y[3], NULL, NULL);
    diff_check_all(&d, 5, y);
}

/* With codes of 4 bits, those of keys with feedback, three states each, of which two grow along
 * their last axis. What the past
 * holds is plain either way: a NaN in it stays as it is. */
static void attends_u4(int64_t fresh, bool hard) {
    static const int64_t shape[] = {2, 2, 0, 18};
    diff d;
    begin(&d, hard ? "u4, hard rows" : "u4", "attention to states", fresh);
    d.plain = true;
    d.rows = hard;
    nb_value *y[7];
    for (int i = 0; i < 2; i++) {
        nb_begin(&d.b, NB_OP_quantize_u4);
        nb_arg(&d.b, fresh_input(&d, NB_F32, 4, shape, 2));
        nb_arg(&d.b, i ? NULL : diff_const(&d, NB_F32, 3, (int64_t[]){2, 18, 18}));
        nb_set_int(&d.b, "group", 16);
        nb_end(&d.b);
        nb_value **made = d.b.op->results;
        for (int k = 0; k < 3; k++)
            y[3 * i + k] = append_value(&d, made[k]->type->elem, made[k], k ? 3 : 2);
    }
    y[6] = attend(&d, y[0], y[3], y[1], y[4], y[2], y[5]);
    diff_check_all(&d, 7, y);
}

/* A state as either side of a product of floats. */
static void multiplies(int64_t fresh) {
    diff d;
    begin(&d, "f32", "matmul of states", fresh);
    d.plain = true;
    nb_value *s = append(&d, NB_F32, 3, (int64_t[]){2, 0, 18}, 1);
    nb_value *t = append(&d, NB_F32, 3, (int64_t[]){2, 5, 0}, 2);
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
    begin(&d, "f32", "qmatmul of states", fresh);
    d.rows = true;
    nb_value *s = append(&d, NB_F32, 3, (int64_t[]){2, 0, 40}, 1);
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

/* A state transformed, and what is appended to another. */
static void transforms(int64_t fresh) {
    diff d;
    begin(&d, "f32", "hadamard of states", fresh);
    d.plain = true;
    nb_value *s = append(&d, NB_F32, 4, (int64_t[]){2, 3, 0, 32}, 2), *y[2];
    for (int i = 0; i < 2; i++) {
        nb_begin(&d.b, NB_OP_hadamard);
        nb_arg(&d.b, i ? nb_in(s->def, 1) : s);
        nb_set_int(&d.b, "block", i ? 8 : 32);
        y[i] = nb_end(&d.b);
    }
    nb_value *t = append_value(&d, NB_F32, y[1], 2);
    diff_check_all(&d, 3, (nb_value *[]){s, t, y[0]});
}

void diff_test_states(void) {
    for (int64_t fresh = 1; fresh < 9; fresh += 7) {
        attends(fresh, NB_F32, NB_F32);
        attends(fresh, NB_F16, NB_BF16);
        attends(fresh, NB_BF16, NB_F32);
        attends_codes(fresh, false);
        attends_codes(fresh, true);
        attends_u4(fresh, false);
        attends_u4(fresh, true);
        multiplies(fresh);
        quantizes(fresh);
        transforms(fresh);
    }
}
