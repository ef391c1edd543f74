/* Data movement, gather, reductions, and tensors of sizes. */
#include "runtime/nb_model.h"
#include "tests/diff/diff.h"

static const nb_elem elems[] = {NB_F32, NB_BF16, NB_F64, NB_I64, NB_U8, NB_BOOL};

static void transposes(void) {
    static const struct {
        int rank;
        int64_t dims[4], perm[4];
    } cases[] = {
        {2, {3, 17}, {1, 0}},
        {2, {33, 16}, {1, 0}},
        {3, {2, 3, 20}, {1, 0, 2}},
        {3, {2, 3, 20}, {0, 2, 1}},
        {3, {2, 3, 4}, {2, 1, 0}},
        {4, {1, -1, 4, 8}, {0, 2, 1, 3}},
        {4, {2, 3, 4, 5}, {3, 0, 2, 1}},
        {4, {2, 1, 1, 17}, {3, 2, 1, 0}},
        {2, {0, 4}, {1, 0}},
        {3, {2, 3, 4}, {0, 1, 2}},
        {3, {2, 133, 37}, {0, 2, 1}},
        {3, {2, -1, 16}, {0, 2, 1}},
        {3, {3, 150, -1}, {2, 0, 1}},
        {4, {2, 3, 22, 18}, {0, 3, 1, 2}},
        {4, {2, 20, 3, 9}, {3, 0, 2, 1}},
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        for (size_t e = 0; e < NB_COUNT(elems); e++) {
            diff d;
            diff_begin(&d, "transpose %zu %s", i, nb_elems[elems[e]].text);
            d.symbols[0] = i % 2 ? 5 : 24;
            nb_value *x = diff_input(&d, elems[e], cases[i].rank, cases[i].dims);
            nb_value *y = nb_transpose(&d.b, x, cases[i].perm);
            /* As an output of the model and, of numbers, as a value inside. */
            diff_check_all(&d, elems[e] == NB_BOOL ? 1 : 2,
                           (nb_value *[]){y, nb_unary(&d.b, NB_OP_abs, y)});
        }
    }
}

static const nb_dim **dims_of(diff *d, int rank, const int64_t *values) {
    const nb_dim **list = NB_NEW_ARRAY(d->arena, const nb_dim *, (size_t)rank + 1);
    for (int i = 0; i < rank; i++) list[i] = diff_dim(d, values[i]);
    return list;
}

static void expands(void) {
    diff d;
    diff_begin(&d, "expand");
    d.symbols[0] = 3;
    nb_value *x = diff_input(&d, NB_F32, 2, (int64_t[]){1, 5});
    diff_input(&d, NB_F32, 1, (int64_t[]){-1}); /* tells the symbol */
    nb_begin(&d.b, NB_OP_expand);
    nb_arg(&d.b, x);
    nb_set_dims(&d.b, "shape", 3, dims_of(&d, 3, (int64_t[]){2, -1, 5}));
    diff_check(&d, nb_end(&d.b));

    diff_begin(&d, "expand of a scalar constant");
    x = diff_const(&d, NB_I32, 0, NULL);
    nb_begin(&d.b, NB_OP_expand);
    nb_arg(&d.b, x);
    nb_set_dims(&d.b, "shape", 2, dims_of(&d, 2, (int64_t[]){3, 19}));
    diff_check(&d, nb_end(&d.b));
}

static nb_value *slice(diff *d, nb_value *x, int rank, const int64_t *start, const int64_t *count,
                       const int64_t *step) {
    nb_begin(&d->b, NB_OP_slice);
    nb_arg(&d->b, x);
    nb_set_dims(&d->b, "start", (size_t)rank, dims_of(d, rank, start));
    nb_set_dims(&d->b, "count", (size_t)rank, dims_of(d, rank, count));
    nb_set_ints(&d->b, "step", (size_t)rank, step);
    return nb_end(&d->b);
}

static void slices(void) {
    static const struct {
        int rank;
        int64_t dims[3], start[3], count[3], step[3];
    } cases[] = {
        {1, {40}, {3}, {17}, {1}},
        {1, {40}, {39}, {20}, {-2}},
        {2, {5, 40}, {1, 0}, {3, 40}, {1, 1}},
        {2, {5, 40}, {0, 20}, {5, 20}, {1, 1}},
        {3, {4, 5, 6}, {3, 0, 1}, {4, 3, 5}, {-1, 2, 1}},
        {2, {5, 4}, {5, 0}, {0, 4}, {1, 1}},
        {2, {-1, 20}, {1, 0}, {2, 20}, {1, 1}},
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        diff d;
        diff_begin(&d, "slice %zu", i);
        d.symbols[0] = 6;
        nb_value *x = diff_input(&d, NB_F32, cases[i].rank, cases[i].dims);
        diff_check(&d, slice(&d, x, cases[i].rank, cases[i].start, cases[i].count, cases[i].step));
    }
    diff d;
    diff_begin(&d, "slice beyond the end");
    d.symbols[0] = 2;
    d.result = 2;
    nb_value *x = diff_input(&d, NB_F32, 2, (int64_t[]){-1, 20});
    diff_check(&d, slice(&d, x, 2, (int64_t[]){1, 0}, (int64_t[]){2, 20}, (int64_t[]){1, 1}));
}

/* Slices that chains read where they stand: as gates of a cell, in two chains, of halves, of a
 * constant, of a view, repeated along other axes, of outer axes, of what a loop carries. */
static const char windows[] =
    "nir 1\n"
    "graph @g(%x: f32[S0,3,128], %c: f32[S0,3,32], %y: f16[S0,64], %z: f32[S0,6,4,9],"
    " %h0: f32[48]) -> (h: f32[S0,3,32], n: f32[S0,3,32], e: f16[S0,32], f: f32[S0,2,4,9],"
    " k: f32[48], l: f32[S0,16]) where S0 in 0.. {\n"
    "  const @w: f32[2,96] = random(3, -1..1)\n"
    "  %p: f32[S0,3,128] = neg %x\n"
    "  %q: f32[S0,3,128] = softmax %p {axis=2}\n"
    "  %i: f32[S0,3,32] = slice %q {start=[0,0,0], count=[S0,3,32], step=[1,1,1]}\n"
    "  %o: f32[S0,3,32] = slice %q {start=[0,0,32], count=[S0,3,32], step=[1,1,1]}\n"
    "  %g: f32[S0,3,32] = slice %q {start=[0,0,96], count=[S0,3,32], step=[1,1,1]}\n"
    "  %r: f32[1,32] = slice @w {start=[1,48], count=[1,32], step=[1,1]}\n"
    "  %a: f32[S0,3,32] = mul %i, %g\n"
    "  %n: f32[S0,3,32] = add %a, %c\n"
    "  %b: f32[S0,3,32] = tanh %n\n"
    "  %d: f32[S0,3,32] = add %b, %r\n"
    "  %m: f32[S0,3,32] = sub %d, %i\n"
    "  %h: f32[S0,3,32] = mul %o, %m\n"
    "  %ya: f16[S0,32] = slice %y {start=[0,11], count=[S0,32], step=[1,1]}\n"
    "  %e: f16[S0,32] = abs %ya\n"
    "  %zn: f32[S0,6,36] = reshape %z {shape=[S0,6,36]}\n"
    "  %za: f32[S0,2,36] = slice %zn {start=[0,3,0], count=[S0,2,36], step=[1,1,1]}\n"
    "  %zb: f32[S0,2,36] = neg %za\n"
    "  %f: f32[S0,2,4,9] = reshape %zb {shape=[S0,2,4,9]}\n"
    "  %k: f32[48], %l: f32[S0,16] = loop %h0, %x {count=[S0], carried=1, sliced=1}"
    " do (%at: i64[], %s: f32[48], %t: f32[3,128]) {\n"
    "    %u: f32[48] = reshape %s {shape=[48]}\n"
    "    %v: f32[16] = slice %u {start=[32], count=[16], step=[1]}\n"
    "    %t.1: f32[1,16] = slice %t {start=[2,64], count=[1,16], step=[1,1]}\n"
    "    %t.2: f32[1,16] = add %t.1, %v\n"
    "    %t.3: f32[16] = reshape %t.2 {shape=[16]}\n"
    "    %first: f32[32] = slice %s {start=[16], count=[32], step=[1]}\n"
    "    %next: f32[48] = concat %t.3, %first {axis=0}\n"
    "    return %next, %t.3\n"
    "  }\n"
    "  return %h, %n, %e, %f, %k, %l\n"
    "}\n";

static void pads(void) {
    for (int with_value = 0; with_value < 3; with_value++) {
        diff d;
        diff_begin(&d, "pad %d", with_value);
        nb_value *x = diff_input(&d, NB_F32, 3, (int64_t[]){2, 3, 17}), *value = NULL;
        if (with_value == 1) value = diff_const(&d, NB_F32, 0, NULL);
        if (with_value == 2) value = diff_input(&d, NB_F32, 0, NULL);
        nb_begin(&d.b, NB_OP_pad);
        nb_arg(&d.b, x);
        nb_arg(&d.b, value);
        nb_set_dims(&d.b, "before", 3, dims_of(&d, 3, (int64_t[]){0, 1, 2}));
        nb_set_dims(&d.b, "after", 3, dims_of(&d, 3, (int64_t[]){1, 0, 3}));
        diff_check(&d, nb_end(&d.b));
    }
}

static void concats(void) {
    for (int64_t axis = 0; axis < 3; axis++) {
        for (size_t e = 0; e < NB_COUNT(elems); e++) {
            diff d;
            diff_begin(&d, "concat %s axis %lld", nb_elems[elems[e]].text, (long long)axis);
            d.symbols[0] = 4;
            nb_value *xs[3];
            for (int64_t k = 0; k < 3; k++) {
                int64_t dims[3] = {2, 3, 9};
                dims[axis] = k == 1 ? -1 : 7 * k + 1;
                xs[k] =
                    k == 2 ? diff_const(&d, elems[e], 3, dims) : diff_input(&d, elems[e], 3, dims);
            }
            nb_begin(&d.b, NB_OP_concat);
            for (int k = 0; k < 3; k++) nb_arg(&d.b, xs[k]);
            nb_set_int(&d.b, "axis", axis);
            diff_check(&d, nb_end(&d.b));
        }
    }
}

static nb_value *gather(diff *d, nb_value *x, nb_value *index, int64_t axis) {
    nb_begin(&d->b, NB_OP_gather);
    nb_arg(&d->b, x);
    nb_arg(&d->b, index);
    nb_set_int(&d->b, "axis", axis);
    return nb_end(&d->b);
}

static void gathers(void) {
    static const int64_t good[] = {0, 4, -1, 2, -5, 3}, bad[] = {0, 5, 1}, low[] = {0, -6, 1};
    for (int64_t axis = 0; axis < 3; axis++) {
        for (int rank = 0; rank < 3; rank++) {
            diff d;
            diff_begin(&d, "gather axis %lld, indices of rank %d", (long long)axis, rank);
            d.indices = good;
            d.n_indices = NB_COUNT(good);
            int64_t dims[3] = {3, 2, 18};
            dims[axis] = 5;
            nb_value *x = diff_input(&d, NB_F32, 3, dims);
            nb_value *index = diff_input(&d, NB_I64, rank, (int64_t[]){2, 3});
            diff_check(&d, gather(&d, x, index, axis));
        }
    }
    for (int k = 0; k < 2; k++) {
        diff d;
        diff_begin(&d, "gather with an index out of range (%d)", k);
        d.indices = k ? low : bad;
        d.n_indices = 3;
        d.result = 2;
        nb_value *x = diff_const(&d, NB_F32, 2, (int64_t[]){5, 8});
        diff_check(&d, gather(&d, x, diff_input(&d, NB_I64, 1, (int64_t[]){3}), 0));
    }
}

static void reductions(void) {
    static const struct {
        int rank, n;
        int64_t dims[4], axes[4];
    } cases[] = {
        {1, 0, {33}, {0}},
        {1, 1, {0}, {0}},
        {2, 1, {3, 17}, {1}},
        {2, 1, {17, 3}, {0}},
        {3, 2, {2, 5, 7}, {1, 2}},
        {3, 2, {5, 3, 6}, {0, 2}},
        {4, 2, {2, 3, 5, 4}, {1, 3}},
        {2, 1, {-1, 100}, {1}},
        {2, 1, {2, 1}, {1}},
    };
    for (nb_op_kind kind = NB_OP_reduce_sum; kind <= NB_OP_reduce_prod; kind++) {
        for (size_t e = 0; e < NB_COUNT(elems); e++) {
            bool arithmetic = kind != NB_OP_reduce_max && kind != NB_OP_reduce_min;
            if (elems[e] == NB_BOOL && arithmetic) continue;
            for (size_t i = 0; i < NB_COUNT(cases); i++) {
                if (elems[e] != NB_F32 && i % 3 != 0) continue;
                diff d;
                diff_begin(&d, "%s %s %zu", nb_ops[kind].name, nb_elems[elems[e]].text, i);
                d.symbols[0] = 4;
                nb_value *x = diff_input(&d, elems[e], cases[i].rank, cases[i].dims);
                nb_begin(&d.b, kind);
                nb_arg(&d.b, x);
                nb_set_ints(&d.b, "axes", (size_t)cases[i].n, cases[i].axes);
                nb_set_bool(&d.b, "keep", i % 2 == 0);
                diff_check(&d, nb_end(&d.b));
            }
        }
    }
}

static void sizes(void) {
    diff d;
    diff_begin(&d, "dims and iota");
    d.symbols[0] = 7;
    d.symbols[1] = 3;
    nb_value *x = diff_input(&d, NB_F32, 2, (int64_t[]){-1, -2});
    const nb_dim *s = diff_dim(&d, -1), *t = diff_dim(&d, -2);
    const nb_dim *list[] = {nb_dim_add(d.graph, s, t),
                            nb_dim_mul(d.graph, s, t),
                            nb_dim_floordiv(d.graph, s, nb_dim_const(d.graph, 2)),
                            nb_dim_ceildiv(d.graph, s, nb_dim_const(d.graph, 2)),
                            nb_dim_min(d.graph, s, t),
                            nb_dim_max(d.graph, s, t),
                            nb_dim_sub(d.graph, t, s)};
    nb_begin(&d.b, NB_OP_dims);
    nb_set_dims(&d.b, "values", NB_COUNT(list), list);
    nb_value *ys[3] = {nb_end(&d.b)};
    nb_begin(&d.b, NB_OP_iota);
    nb_set_dims(&d.b, "start", 1, &list[0]);
    nb_set_dims(&d.b, "count", 1, &list[1]);
    nb_set_int(&d.b, "step", -3);
    ys[1] = nb_end(&d.b);
    ys[2] = nb_reshape(&d.b, x, 1, &list[1]);
    diff_check_all(&d, 3, ys);
}

/* What holds in every run; tests of the frontend have runs in which it does not. */
static void requires(void) {
    static const nb_elem types[] = {NB_F32, NB_F16, NB_I64, NB_U8, NB_BOOL};
    for (size_t e = 0; e < NB_COUNT(types); e++) {
        diff d;
        diff_begin(&d, "require %s", nb_elems[types[e]].text);
        d.symbols[0] = 7;
        nb_value *x = diff_input(&d, types[e], 2, (int64_t[]){-1, 5});
        nb_value *i = diff_input(&d, NB_I32, 1, (int64_t[]){-1});
        diff_check(&d, nb_binary(&d.b, NB_OP_require, x, nb_binary(&d.b, NB_OP_eq, i, i)));
    }
}

void diff_test_move(void) {
    requires();
    transposes();
    expands();
    slices();
    diff_check_text("windows", windows, NULL, 0, NB_RUN_OK);
    pads();
    concats();
    gathers();
    reductions();
    sizes();
}
