/* quantize at run time, seen through dequantize and as codes and scales: every kind of scale, hard
 * rows, rows of any length, codes that become codes of another type, and chains of elementwise ops
 * that begin or end with codes. */
#include "tests/diff/quants.h"

#include <string.h>

static const int64_t lengths[] = {0, 1, 15, 16, 17, 33, 70, 128};

static const diff_act acts[] = {
    {"i8 tensor", {.storage = NB_I8, .scale = 0.05F}},
    {"i8 tensor narrow", {.storage = NB_I8, .narrow = true, .scale = 0.05F}},
    {"i8 tensor zero", {.storage = NB_I8, .scale = 0.04F, .zero = -77}},
    {"i8 tensor zero at the end", {.storage = NB_I8, .scale = 0.04F, .zero = 127}},
    {"i8 tensor subnormal scale", {.storage = NB_I8, .scale = 1e-44F}},
    {"i8 tensor huge scale", {.storage = NB_I8, .scale = 3e38F}},
    {"i16 tensor", {.storage = NB_I16, .scale = 0.0003F}},
    {"i16 tensor zero", {.storage = NB_I16, .scale = 0.0003F, .zero = 32639}},
    {"i8 token", {.storage = NB_I8, .granularity = NB_PER_TOKEN, .amax_code = 127}},
    {"i8 token, 7 codes", {.storage = NB_I8, .granularity = NB_PER_TOKEN, .amax_code = 3}},
    {"i16 token", {.storage = NB_I16, .granularity = NB_PER_TOKEN, .amax_code = 32639}},
    {"i8 block 16", {.storage = NB_I8, .granularity = NB_PER_BLOCK, .group = 16, .amax_code = 127}},
    {"i8 block 5", {.storage = NB_I8, .granularity = NB_PER_BLOCK, .group = 5, .amax_code = 127}},
    {"i16 block 33",
     {.storage = NB_I16, .granularity = NB_PER_BLOCK, .group = 33, .amax_code = 32639}},
    {"u8 tensor", {.storage = NB_U8, .scale = 0.05F}},
    {"u8 tensor zero", {.storage = NB_U8, .scale = 0.05F, .zero = 131}},
};

/* The row's length is known only at run time. */
static void any_length(const diff_act *act, bool special) {
    diff d;
    diff_begin(&d, "quantize %s%s", act->name, special ? ", any bits" : "");
    d.rows = !special;
    d.lengths = lengths;
    d.n_lengths = NB_COUNT(lengths);
    nb_value *x = diff_input(&d, NB_F32, 3, (int64_t[]){2, 15, -1});
    nb_value *q = diff_quantize(&d, x, &act->quant), *y = diff_dequantize(&d, q);
    bool fixed = act->quant.granularity == NB_PER_TENSOR;
    nb_value *codes = nb_unary(&d.b, NB_OP_codes, q),
             *scales = fixed ? q : nb_unary(&d.b, NB_OP_scales, q);
    diff_check_all(&d, 4, (nb_value *[]){y, scales, codes, nb_unary(&d.b, NB_OP_neg, codes)});
}

static void known_length(const diff_act *act, int64_t length) {
    diff d;
    diff_begin(&d, "quantize %s, %lld", act->name, (long long)length);
    d.rows = true;
    nb_value *x = diff_input(&d, NB_F32, 2, (int64_t[]){30, length});
    /* From a slot, not from the input itself. */
    nb_value *q = diff_quantize(&d, nb_unary(&d.b, NB_OP_neg, x), &act->quant);
    diff_check(&d, diff_dequantize(&d, q));
}

/* The scale as a constant of the graph, a row without other axes, and a constant as operand. */
static void other_forms(void) {
    const float scale = 0.07F;
    diff d;
    diff_begin(&d, "quantize a vector, the scale a constant");
    d.rows = true;
    nb_quant q = {.storage = NB_I8};
    q.scales = nb_const_f32(d.graph, "s", 0, NULL, &scale);
    nb_value *x = diff_input(&d, NB_F32, 1, (int64_t[]){37});
    diff_check(&d, diff_dequantize(&d, diff_quantize(&d, x, &q)));

    diff_begin(&d, "quantize a constant per token");
    d.plain = true;
    nb_value *c = diff_const(&d, NB_F32, 2, (int64_t[]){3, 21});
    diff_check(&d, diff_dequantize(&d, diff_quantize(&d, c, &acts[8].quant)));

    diff_begin(&d, "quantize one number");
    d.plain = true;
    c = diff_const(&d, NB_F32, 2, (int64_t[]){1, 1});
    diff_check(&d, diff_dequantize(&d, diff_quantize(&d, c, &acts[10].quant)));
}

/* Codes of one type, as floats, become codes of another. */
static void conversions(void) {
    for (size_t from = 0; from < diff_n_acts; from += 2) {
        diff d;
        diff_begin(&d, "codes of %s as others", diff_acts[from].name);
        d.rows = true;
        nb_value *x = diff_input(&d, NB_F32, 2, (int64_t[]){30, 70}), *ys[DIFF_MAX_PORTS];
        nb_value *v = diff_dequantize(&d, diff_quantize(&d, x, &diff_acts[from].quant));
        for (size_t to = 0; to < diff_n_acts; to++)
            ys[to] = diff_dequantize(&d, diff_quantize(&d, v, &diff_acts[to].quant));
        diff_check_all(&d, diff_n_acts, ys);
    }
}

/* A sum of codes, and what follows it, as codes again: all of it is one loop. */
static void chain(const diff_act *from, const diff_act *other, const diff_act *to) {
    diff d;
    diff_begin(&d, "chain of codes, %s and %s to %s", from->name, other->name, to->name);
    d.rows = true;
    d.lengths = lengths;
    d.n_lengths = NB_COUNT(lengths);
    nb_value *a = diff_input(&d, NB_F32, 3, (int64_t[]){2, 15, -1}),
             *b = diff_input(&d, NB_F32, 3, (int64_t[]){2, 15, -1}),
             *each = diff_const(&d, NB_F32, 2, (int64_t[]){15, 1});
    nb_value *x = diff_dequantize(&d, diff_quantize(&d, a, &from->quant)),
             *y = diff_dequantize(&d, diff_quantize(&d, b, &other->quant));
    nb_value *sum = nb_unary(&d.b, NB_OP_relu,
                             nb_binary(&d.b, NB_OP_mul, nb_binary(&d.b, NB_OP_add, x, y), each));
    nb_value *codes = diff_quantize(&d, sum, &to->quant);
    diff_check_all(
        &d, 3,
        (nb_value *[]){nb_unary(&d.b, NB_OP_codes, codes),
                       nb_unary(&d.b, NB_OP_exp, diff_dequantize(&d, codes)),
                       nb_unary(&d.b, NB_OP_codes,
                                diff_quantize(&d, nb_unary(&d.b, NB_OP_silu, a), &to->quant))});
}

static const diff_act *act_named(const char *name) {
    for (size_t i = 0; i < NB_COUNT(acts); i++)
        if (!strcmp(acts[i].name, name)) return &acts[i];
    return NULL;
}

static void chains(void) {
    const diff_act *i8 = act_named("i8 tensor"), *zero = act_named("i8 tensor zero"),
                   *u8 = act_named("u8 tensor zero");
    chain(i8, zero, u8);
    chain(u8, u8, zero);
    chain(u8, i8, act_named("i8 tensor narrow"));
    chain(zero, act_named("i16 tensor"), act_named("i8 tensor huge scale"));
    chain(act_named("i8 tensor subnormal scale"), i8, act_named("i8 token"));
}

void diff_test_quantize(void) {
    for (size_t i = 0; i < NB_COUNT(acts); i++) {
        any_length(&acts[i], false);
        if (i % 4 == 0) any_length(&acts[i], true);
        if (i % 3 == 2) known_length(&acts[i], 70);
    }
    other_forms();
    conversions();
    chains();
}
