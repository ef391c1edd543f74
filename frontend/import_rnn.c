/* LSTM, GRU, RNN: the input's product with its weights for all steps at once, then a loop whose
 * body is the cell (ONNX operators LSTM-22, GRU-22, RNN-22).
 *
 *   xw = X.W' + Wb [+ Rb]                       for all steps: one matrix product
 *   loop over xw, from either end:              h (and c) carried, Y stacked
 *     gates = xw[t] + h.R', then the cell
 *
 * DynamicQuantizeLSTM of com.microsoft has codes of W and R, [I,G*H] and [H,G*H]. x and h become
 * codes of 8 bits as in DynamicQuantizeLinear, x of all steps at once, h anew in each.
 *
 * Rows that are shorter than the batch (sequence_lens) keep their state in the steps that they do
 * not have, and Y is 0 there. */
#include "frontend/quant.h"

#include <string.h>

typedef struct function {
    const nb_cell_function *what;
    double alpha, beta;
} function;

typedef struct rnn {
    nb_importer *im;
    int gates;     /* 4 LSTM, 3 GRU, 1 RNN */
    int direction; /* at hand */
    int directions;
    bool batch_first, couple, linear, reverse_first;
    const nb_dim *hidden;
    double clip; /* 0: none */
    function functions[6];
    nb_value *x;    /* [T,B,I] */
    nb_value *mask; /* bool[T,B,1]: which rows have the step; NULL: all */
    bool codes;     /* weights are codes with scales and zero points */
    /* In the body. */
    nb_value *h, *c, *xw, *recurrent, *recurrent_scale, *recurrent_zero, *recurrent_bias, *peephole;
} rnn;

/* ---- attributes ---------------------------------------------------------------------------- */

static nb_status read_direction(rnn *r) {
    const char *direction = nb_node_string(r->im, "direction", "forward");
    const bool both = strcmp(direction, "bidirectional") == 0;
    r->directions = both ? 2 : 1;
    r->reverse_first = strcmp(direction, "reverse") == 0;
    if (both || r->reverse_first || strcmp(direction, "forward") == 0) return NB_OK;
    return nb_node_error(r->im, NB_MALFORMED, "direction is \"%s\"", direction);
}

/* Functions of a direction: an LSTM has three, a GRU two, an RNN one. */
static int functions_of(const rnn *r) { return r->gates == 4 ? 3 : r->gates == 3 ? 2 : 1; }

/* alpha and beta are lists of which each function takes as many as it has. */
static nb_status read_functions(rnn *r) {
    static const char *const usual[] = {"Sigmoid", "Tanh", "Tanh"};
    nb_importer *im = r->im;
    const int n = functions_of(r);
    const Onnx__AttributeProto *names = nb_node_attr(im, "activations"),
                               *alpha = nb_node_attr(im, "activation_alpha"),
                               *beta = nb_node_attr(im, "activation_beta");
    size_t alphas = 0, betas = 0;
    if (names && names->n_strings && names->n_strings != (size_t)(n * r->directions))
        return nb_node_error(im, NB_MALFORMED, "%zu activations, expected %d", names->n_strings,
                             n * r->directions);
    for (int i = 0; i < n * r->directions; i++) {
        const char *name = n == 1 ? "Tanh" : usual[i % n];
        if (names && names->n_strings)
            name =
                nb_strndup(im->arena, (const char *)names->strings[i].data, names->strings[i].len);
        const nb_cell_function *what = nb_cell_function_named(name);
        if (!what) return nb_node_error(im, NB_UNSUPPORTED, "activation \"%s\" is not known", name);
        function *f = &r->functions[i];
        *f = (function){what, (double)what->alpha, (double)what->beta};
        if (what->n_numbers > 0 && alpha && alphas < alpha->n_floats)
            f->alpha = (double)alpha->floats[alphas++];
        if (what->n_numbers > 1 && beta && betas < beta->n_floats)
            f->beta = (double)beta->floats[betas++];
    }
    return NB_OK;
}

/* ---- operands ------------------------------------------------------------------------------ */

static nb_status expect(rnn *r, size_t input, nb_value *v, int rank, const nb_dim *const *dims) {
    if (!v) return NB_MALFORMED;
    if (v->type->rank != rank)
        return nb_node_error(r->im, NB_MALFORMED, "input %zu is %s, expected rank %d", input,
                             nb_type_text(r->im->arena, v->type), rank);
    for (int d = 0; d < rank; d++)
        if (dims[d]) NB_TRY(nb_unify(r->im, v->type->dims[d], dims[d]));
    return NB_OK;
}

static const nb_dim *times(rnn *r, int64_t n) {
    return nb_dim_mul(r->im->g, nb_num(r->im, n), r->hidden);
}

/* Of input `i`, [directions, ...], what belongs to the direction at hand. What comes with codes
 * stays constant, so that they multiply as such. */
static nb_value *part(rnn *r, nb_value *v) {
    if (!v) return NULL;
    if (r->codes && nb_is_const(v) && nb_dim_is_const(v->type->dims[0])) {
        nb_tensor t = nb_tensor_of_const(v);
        void *data;
        nb_value *c = nb_new_const(r->im, nb_format(r->im->arena, "%s.%d", v->name, r->direction),
                                   t.elem, t.rank - 1, t.dims + 1, &data);
        const size_t bytes = (size_t)(t.bytes / t.dims[0]);
        if (c) memcpy(data, (const char *)t.data + (size_t)r->direction * bytes, bytes);
        return c;
    }
    nb_value *one = nb_slice_axis(r->im, v, 0, nb_num(r->im, r->direction), nb_num(r->im, 1), 1);
    return one ? nb_reshape(&r->im->b, one, one->type->rank - 1, one->type->dims + 1) : NULL;
}

/* `count` gates' entries of a vector of gates, from gate `from`. */
static nb_value *gates_of(rnn *r, nb_value *v, int64_t from, int64_t count) {
    return v ? nb_slice_axis(r->im, v, v->type->rank - 1, times(r, from), times(r, count), 1)
             : NULL;
}

static nb_status check_shapes(rnn *r) {
    nb_importer *im = r->im;
    nb_value *x = nb_node_input(im, 0), *w = nb_node_input(im, 1), *rw = nb_node_input(im, 2);
    NB_TRY(expect(r, 0, x, 3, (const nb_dim *[3]){NULL}));
    NB_TRY(expect(r, 2, rw, 3, (const nb_dim *[3]){nb_num(im, r->directions)}));
    if (!nb_elem_is_float(x->type->elem))
        return nb_node_error(im, NB_MALFORMED, "takes floats, found %s",
                             nb_elems[x->type->elem].text);
    /* [D,G*H,H], codes [D,H,G*H] */
    const int h_axis = r->codes ? 1 : 2, g_axis = 3 - h_axis;
    const nb_dim *of_r[3] = {NULL}, *of_w[3] = {nb_num(im, r->directions)};
    r->hidden = rw->type->dims[h_axis];
    of_r[g_axis] = times(r, r->gates);
    NB_TRY(expect(r, 2, rw, 3, of_r));
    r->hidden = rw->type->dims[h_axis];
    const Onnx__AttributeProto *size = nb_node_attr(im, "hidden_size");
    if (size) NB_TRY(nb_unify(im, r->hidden, nb_num(im, size->i)));
    r->hidden = rw->type->dims[h_axis];
    of_w[g_axis] = times(r, r->gates);
    of_w[h_axis] = x->type->dims[2];
    NB_TRY(expect(r, 1, w, 3, of_w));
    if (nb_has_input(im, 3))
        NB_TRY(expect(r, 3, nb_node_input(im, 3), 2,
                      (const nb_dim *[]){nb_num(im, r->directions), times(r, 2 * r->gates)}));
    if (r->gates == 4 && nb_has_input(im, 7))
        NB_TRY(expect(r, 7, nb_node_input(im, 7), 2,
                      (const nb_dim *[]){nb_num(im, r->directions), times(r, 3)}));
    r->x = r->batch_first ? nb_swap_axes(im, x, 0, 1) : x;
    return r->x ? NB_OK : NB_MALFORMED;
}

/* bool[T,B,1]: is the step below the row's length? */
static nb_status make_mask(rnn *r) {
    nb_importer *im = r->im;
    if (!nb_has_input(im, 4)) return NB_OK;
    nb_value *lengths = nb_node_input(im, 4);
    NB_TRY(expect(r, 4, lengths, 1, &r->x->type->dims[1]));
    nb_value *at = nb_positions(im, 3, 0, r->x->type->dims[0]);
    nb_value *long_ = nb_along(im, nb_cast(&im->b, lengths, NB_I64), 3, 1);
    r->mask = nb_combine(im, NB_OP_lt, at, long_);
    return r->mask ? NB_OK : NB_MALFORMED;
}

/* What h or c begins with: [B,H]. */
static nb_value *first_state(rnn *r, size_t input) {
    nb_importer *im = r->im;
    if (nb_has_input(im, input)) {
        nb_value *v = nb_node_input(im, input);
        if (r->batch_first && v && v->type->rank == 3) v = nb_swap_axes(im, v, 0, 1);
        if (expect(r, input, v, 3,
                   (const nb_dim *[]){nb_num(im, r->directions), r->x->type->dims[1], r->hidden}) !=
            NB_OK)
            return NULL;
        return part(r, v);
    }
    return nb_expand_to(im, nb_scalar(im, r->x->type->elem, 0), 2,
                        (const nb_dim *[]){r->x->type->dims[1], r->hidden});
}

/* x.w for codes w, which x becomes too. */
static nb_value *product_of_codes(rnn *r, nb_value *x, nb_value *w, nb_value *scale,
                                  nb_value *zero) {
    nb_importer *im = r->im;
    nb_value *parts[3];
    if (!x || !w || !scale || !zero || !nb_dynamic_codes(im, x, parts)) return NULL;
    nb_value *sums = nb_integer_product(im, parts[0], parts[2], w, zero);
    return sums ? nb_combine(im, NB_OP_mul, nb_cast(&im->b, sums, NB_F32),
                             nb_combine(im, NB_OP_mul, scale, parts[1]))
                : NULL;
}

/* Of input `i` of scales or zero points, [D] or [D,G*H], what belongs to the direction at hand. */
static nb_value *scaling_part(rnn *r, size_t i) {
    nb_value *v = nb_node_input(r->im, i);
    if (!v || v->type->rank < 1 || v->type->rank > 2 ||
        nb_unify(r->im, v->type->dims[0], nb_num(r->im, r->directions)) != NB_OK) {
        if (v)
            nb_node_error(r->im, NB_MALFORMED, "input %zu is %s", i,
                          nb_type_text(r->im->arena, v->type));
        return NULL;
    }
    return part(r, v);
}

/* h.R' */
static nb_value *recurrent_product(rnn *r) {
    return r->codes ? product_of_codes(r, r->h, r->recurrent, r->recurrent_scale, r->recurrent_zero)
                    : nb_multiply(r->im, r->h, r->recurrent);
}

/* X.W' with all of the bias that does not wait for something else: [T,B,G*H]. */
static nb_value *products(rnn *r) {
    nb_importer *im = r->im;
    nb_value *w = part(r, nb_node_input(im, 1)), *xw;
    r->recurrent = part(r, nb_node_input(im, 2));
    r->recurrent_bias = r->recurrent_scale = r->recurrent_zero = NULL;
    if (r->codes) {
        r->recurrent_scale = scaling_part(r, 10);
        r->recurrent_zero = scaling_part(r, 11);
        if (!r->recurrent_scale || !r->recurrent_zero) return NULL;
        xw = product_of_codes(r, r->x, w, scaling_part(r, 8), scaling_part(r, 9));
    } else {
        xw = nb_multiply(im, r->x, nb_swap_axes(im, w, 0, 1));
        r->recurrent = nb_swap_axes(im, r->recurrent, 0, 1);
    }
    if (!xw) return NULL;
    if (!nb_has_input(im, 3)) return xw;
    nb_value *bias = part(r, nb_node_input(im, 3));
    nb_value *of_x = gates_of(r, bias, 0, r->gates), *of_h = gates_of(r, bias, r->gates, r->gates);
    if (!r->linear) return nb_combine(im, NB_OP_add, xw, nb_combine(im, NB_OP_add, of_x, of_h));
    /* The last gate's recurrent bias is scaled with its product: it stays for the cell. */
    r->recurrent_bias = of_h;
    return nb_combine(im, NB_OP_add, xw, of_x);
}

/* ---- cells --------------------------------------------------------------------------------- */

static nb_value *apply(rnn *r, int which, nb_value *x) {
    nb_importer *im = r->im;
    const function *f = &r->functions[r->direction * functions_of(r) + which];
    if (x && r->clip > 0) {
        x = nb_combine(im, NB_OP_max, x, nb_scalar(im, x->type->elem, -r->clip));
        if (x) x = nb_combine(im, NB_OP_min, x, nb_scalar(im, x->type->elem, r->clip));
    }
    if (!x) return NULL;
    return f->what->of ? f->what->of(im, x, f->alpha, f->beta) : nb_unary(&im->b, f->what->kind, x);
}

static nb_value *add(rnn *r, nb_value *a, nb_value *b) {
    return a && b ? nb_combine(r->im, NB_OP_add, a, b) : NULL;
}
static nb_value *mul(rnn *r, nb_value *a, nb_value *b) {
    return a && b ? nb_combine(r->im, NB_OP_mul, a, b) : NULL;
}
/* 1 - x */
static nb_value *rest(rnn *r, nb_value *x) {
    return x ? nb_combine(r->im, NB_OP_sub, nb_scalar(r->im, x->type->elem, 1), x) : NULL;
}

static nb_value *rnn_cell(rnn *r) {
    return apply(r, 0, add(r, r->xw, nb_multiply(r->im, r->h, r->recurrent)));
}

static nb_value *gru_cell(rnn *r) {
    nb_value *z, *reset, *candidate;
    if (r->linear) {
        nb_value *hr = nb_multiply(r->im, r->h, r->recurrent);
        if (r->recurrent_bias) hr = add(r, hr, r->recurrent_bias);
        nb_value *both = apply(r, 0, add(r, gates_of(r, r->xw, 0, 2), gates_of(r, hr, 0, 2)));
        z = gates_of(r, both, 0, 1);
        reset = gates_of(r, both, 1, 1);
        candidate = add(r, gates_of(r, r->xw, 2, 1), mul(r, reset, gates_of(r, hr, 2, 1)));
    } else {
        nb_value *hr = nb_multiply(r->im, r->h, gates_of(r, r->recurrent, 0, 2));
        nb_value *both = apply(r, 0, add(r, gates_of(r, r->xw, 0, 2), hr));
        z = gates_of(r, both, 0, 1);
        reset = gates_of(r, both, 1, 1);
        candidate = add(r, gates_of(r, r->xw, 2, 1),
                        nb_multiply(r->im, mul(r, reset, r->h), gates_of(r, r->recurrent, 2, 1)));
    }
    return add(r, mul(r, rest(r, z), apply(r, 1, candidate)), mul(r, z, r->h));
}

/* Gates stand in the order i, o, f, c; peepholes in the order i, o, f. */
static nb_value *lstm_cell(rnn *r, nb_value **c) {
    nb_value *gates = add(r, r->xw, recurrent_product(r));
    nb_value *in = gates_of(r, gates, 0, 1), *out = gates_of(r, gates, 1, 1),
             *forget = gates_of(r, gates, 2, 1);
    if (r->peephole) {
        in = add(r, in, mul(r, gates_of(r, r->peephole, 0, 1), r->c));
        forget = add(r, forget, mul(r, gates_of(r, r->peephole, 2, 1), r->c));
    }
    in = apply(r, 0, in);
    forget = r->couple ? rest(r, in) : apply(r, 0, forget);
    nb_value *candidate = apply(r, 1, gates_of(r, gates, 3, 1));
    *c = add(r, mul(r, forget, r->c), mul(r, in, candidate));
    if (r->peephole) out = add(r, out, mul(r, gates_of(r, r->peephole, 1, 1), *c));
    return mul(r, apply(r, 0, out), apply(r, 2, *c));
}

/* ---- the loop ------------------------------------------------------------------------------ */

typedef struct outputs {
    nb_value *y, *h, *c; /* [T,1,B,H], [1,B,H] twice */
} outputs;

/* Entries of the step at hand; `v` is [T, ...]. */
static nb_value *slice_param(nb_region *body, const char *name, const nb_value *v) {
    const nb_type *t = v->type;
    return nb_region_add(body, name,
                         nb_type_intern(body->graph, t->elem, NULL, t->rank - 1, t->dims + 1));
}

/* What the body sees of outside besides the step's entries. */
#define CAPTURED 5
static void captured_by(rnn *r, nb_value ***out) {
    nb_value **all[CAPTURED] = {&r->recurrent, &r->recurrent_scale, &r->recurrent_zero,
                                &r->recurrent_bias, &r->peephole};
    memcpy(out, all, sizeof all);
}

/* Constants are seen everywhere. */
static bool is_captured(const nb_value *v) { return v && !nb_is_const(v); }

/* The body: what it returns is h, (c,) and Y's entry. */
static bool make_body(rnn *r, nb_region *body, nb_value *const *outside, bool masked) {
    nb_importer *im = r->im;
    nb_value *h0 = outside[0], *c0 = outside[1];
    nb_region_add(body, "step", nb_type_intern(im->g, NB_I64, NULL, 0, NULL));
    r->h = nb_region_add(body, "h", h0->type);
    r->c = c0 ? nb_region_add(body, "c", c0->type) : NULL;
    r->xw = slice_param(body, "xw", outside[2]);
    nb_value *mask = masked ? slice_param(body, "on", r->mask) : NULL;
    nb_value **captured[CAPTURED];
    captured_by(r, captured);
    for (size_t i = 0; i < CAPTURED; i++)
        if (is_captured(*captured[i]))
            *captured[i] = nb_region_add(body, "seen", (*captured[i])->type);

    nb_value *c = NULL, *h = r->gates == 4   ? lstm_cell(r, &c)
                             : r->gates == 3 ? gru_cell(r)
                                             : rnn_cell(r);
    nb_value *y = h;
    if (mask && h) {
        y = nb_choose(im, mask, h, nb_scalar(im, h->type->elem, 0));
        h = nb_choose(im, mask, h, r->h);
        if (c) c = nb_choose(im, mask, c, r->c);
    }
    if (!h || !y || (c0 && !c)) return false;
    nb_value *returned[3] = {h};
    size_t n = 1;
    if (c) returned[n++] = c;
    returned[n++] = y;
    nb_region_return(body, n, returned, im->b.loc);
    return true;
}

static nb_status run_direction(rnn *r, outputs *out) {
    nb_importer *im = r->im;
    nb_value *xw = products(r), *h0 = first_state(r, 5);
    nb_value *c0 = r->gates == 4 ? first_state(r, 6) : NULL;
    r->peephole = r->gates == 4 && nb_has_input(im, 7) ? part(r, nb_node_input(im, 7)) : NULL;
    if (!xw || !h0 || !r->recurrent || (r->gates == 4 && !c0)) return NB_MALFORMED;
    nb_value **captured[CAPTURED], *seen[CAPTURED];
    captured_by(r, captured);
    for (size_t i = 0; i < CAPTURED; i++) seen[i] = is_captured(*captured[i]) ? *captured[i] : NULL;

    nb_region *outer = im->b.region, *body = nb_region_create(im->g);
    im->b.region = body;
    const bool made = make_body(r, body, (nb_value *[]){h0, c0, xw}, r->mask != NULL);
    im->b.region = outer;
    if (!made) {
        nb_region_discard(body);
        return NB_MALFORMED;
    }
    nb_begin(&im->b, NB_OP_loop);
    nb_value *operands[4 + CAPTURED] = {h0, c0, xw, r->mask};
    memcpy(operands + 4, seen, sizeof seen);
    nb_arg(&im->b, NULL);
    nb_arg(&im->b, NULL);
    for (size_t i = 0; i < NB_COUNT(operands); i++)
        if (operands[i]) nb_arg(&im->b, operands[i]);
    nb_set_dims(&im->b, "count", 1, &xw->type->dims[0]);
    nb_set_int(&im->b, "carried", c0 ? 2 : 1);
    nb_set_int(&im->b, "sliced", r->mask ? 2 : 1);
    if (r->direction == 1 || r->reverse_first) {
        const int64_t back[] = {1, 1, 1};
        nb_set_ints(&im->b, "reverse", r->mask ? 3 : 2, back);
    }
    nb_set_region(&im->b, body);
    nb_value *last = nb_end(&im->b);
    if (!last) return NB_MALFORMED;
    const nb_op *loop = last->def;
    nb_value *y = loop->results[loop->n_results - 1];
    const nb_dim *const *dims = y->type->dims, *one = nb_num(im, 1);
    out->y = nb_reshape(&im->b, y, 4, (const nb_dim *[]){dims[0], one, dims[1], dims[2]});
    out->h = nb_reshape(&im->b, last, 3, (const nb_dim *[]){one, dims[1], dims[2]});
    out->c = c0 ? nb_reshape(&im->b, loop->results[1], 3, (const nb_dim *[]){one, dims[1], dims[2]})
                : NULL;
    return out->y && out->h ? NB_OK : NB_MALFORMED;
}

/* The last inputs of DynamicQuantizeLSTM. */
static nb_status check_codes(rnn *r) {
    nb_importer *im = r->im;
    nb_value *w = nb_node_input(im, 1), *rw = nb_node_input(im, 2);
    if (!w || !rw) return NB_MALFORMED;
    for (size_t i = 8; i < 12; i++)
        if (!nb_node_input(im, i)) return NB_MALFORMED;
    NB_TRY(nb_check_bytes(im, w, nb_node_input(im, 9), rw, nb_node_input(im, 11)));
    const nb_value *x = nb_node_input(im, 0);
    if (x && x->type->elem == NB_F32) return NB_OK;
    return nb_node_error(im, NB_MALFORMED, "takes f32, found %s",
                         x ? nb_type_text(im->arena, x->type) : "nothing");
}

/* im->argument: gates; those of an LSTM with codes are 5. */
nb_status nb_import_rnn(nb_importer *im) {
    const bool codes = im->argument == 5;
    rnn r = {.im = im,
             .codes = codes,
             .gates = codes ? 4 : im->argument,
             .batch_first = nb_node_int(im, "layout", 0) != 0,
             .couple = nb_node_int(im, "input_forget", 0) != 0,
             .linear = im->argument == 3 && nb_node_int(im, "linear_before_reset", 0) != 0,
             .clip = (double)nb_node_float(im, "clip", 0)};
    NB_TRY(read_direction(&r));
    NB_TRY(read_functions(&r));
    if (codes) NB_TRY(check_codes(&r));
    NB_TRY(check_shapes(&r));
    NB_TRY(make_mask(&r));
    outputs out = {NULL, NULL, NULL};
    for (r.direction = 0; r.direction < r.directions; r.direction++) {
        outputs next;
        NB_TRY(run_direction(&r, &next));
        const bool first = r.direction == 0;
        out.y = first ? next.y : nb_join(im, out.y, next.y, 1);
        out.h = first ? next.h : nb_join(im, out.h, next.h, 0);
        if (next.c) out.c = first ? next.c : nb_join(im, out.c, next.c, 0);
    }
    if (r.batch_first) {
        out.y = out.y ? nb_transpose(&im->b, out.y, (int64_t[]){2, 0, 1, 3}) : NULL;
        out.h = nb_swap_axes(im, out.h, 0, 1);
        if (out.c) out.c = nb_swap_axes(im, out.c, 0, 1);
    }
    nb_value *results[] = {out.y, out.h, out.c};
    for (size_t i = 0; i < im->node->n_output; i++)
        if (*im->node->output[i]) NB_TRY(nb_node_output(im, i, results[i]));
    return NB_OK;
}
