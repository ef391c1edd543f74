/* What the importers of operators share (import.h). */
#include "frontend/import.h"

#include "ir/codes.h"

#include <string.h>

#define MAX_ELEMENTS (INT64_C(1) << 40)

/* ---- operands and results ------------------------------------------------------------------- */

size_t nb_node_inputs(const nb_importer *im) { return im->node->n_input; }
bool nb_has_input(const nb_importer *im, size_t i) {
    return i < im->node->n_input && *im->node->input[i] &&
           !nb_scope_is_absent(im, im->node->input[i]);
}

nb_value *nb_node_input(nb_importer *im, size_t i) {
    if (!nb_has_input(im, i)) {
        nb_node_error(im, NB_MALFORMED, "input %zu is missing", i);
        return NULL;
    }
    nb_value *v = nb_scope_find(im, im->node->input[i]);
    if (!v || !nb_sequence_of(im, v)) return v;
    nb_node_error(im, NB_MALFORMED, "input %zu \"%s\" is a sequence, expected a tensor", i,
                  im->node->input[i]);
    return NULL;
}

/* Dimensions that no run could have: below 0, or more than 2^40 elements. */
static nb_status check_type(nb_importer *im, const nb_type *type) {
    int64_t least = 1;
    for (int d = 0; d < type->rank; d++) {
        if (!nb_dim_is_simple(type->dims[d]))
            return nb_node_error(im, NB_LIMIT, "dimension %d is too long an expression", d);
        int64_t low, high;
        nb_dim_range(type->dims[d], &low, &high);
        if (high < 0)
            return nb_node_error(im, NB_MALFORMED, "dimension %d of %s is negative", d,
                                 nb_type_text(im->arena, type));
        if (nb_dim_is(type->dims[d], 0)) least = 0;
        if (nb_dim_is_const(type->dims[d]) &&
            (!nb_mul_i64(least, type->dims[d]->value, &least) || least > MAX_ELEMENTS))
            return nb_node_error(im, NB_LIMIT, "%s has more than 2^40 elements",
                                 nb_type_text(im->arena, type));
    }
    return NB_OK;
}

nb_status nb_node_output(nb_importer *im, size_t i, nb_value *v) {
    if (!v && im->diags->errors != im->errors) return nb_diags_status(im->diags);
    for (size_t k = 0; v && k < im->n_holds; k++) v = nb_require(im, v, im->holds[k]);
    if (!v && im->diags->errors != im->errors) return nb_diags_status(im->diags);
    if (!v) return nb_node_error(im, NB_MALFORMED, "output %zu cannot be computed", i);
    if (!nb_sequence_of(im, v)) NB_TRY(check_type(im, v->type));
    if (i >= im->node->n_output || !*im->node->output[i]) return NB_OK;
    const char *name = im->node->output[i];
    if (nb_scope_has(im, name))
        return nb_node_error(im, NB_MALFORMED, "output \"%s\" is defined twice", name);
    nb_scope_define(im, name, v);
    /* The first name wins: inputs and constants keep theirs through Identity and the like. */
    if (v->def && strncmp(v->name, nb_info(v->def)->name, strlen(nb_info(v->def)->name)) == 0)
        nb_set_name(im->g, v, name);
    return NB_OK;
}

/* ---- attributes ----------------------------------------------------------------------------- */

const Onnx__AttributeProto *nb_node_attr(const nb_importer *im, const char *name) {
    for (size_t i = 0; i < im->node->n_attribute; i++) {
        if (im->node->attribute[i]->name && strcmp(im->node->attribute[i]->name, name) == 0)
            return im->node->attribute[i];
    }
    return NULL;
}

int64_t nb_node_int(const nb_importer *im, const char *name, int64_t fallback) {
    const Onnx__AttributeProto *a = nb_node_attr(im, name);
    return a ? a->i : fallback;
}

float nb_node_float(const nb_importer *im, const char *name, float fallback) {
    const Onnx__AttributeProto *a = nb_node_attr(im, name);
    return a ? a->f : fallback;
}

const char *nb_node_string(const nb_importer *im, const char *name, const char *fallback) {
    const Onnx__AttributeProto *a = nb_node_attr(im, name);
    if (!a) return fallback;
    return a->s.len ? nb_strndup(im->arena, (const char *)a->s.data, a->s.len) : "";
}

const int64_t *nb_node_ints(const nb_importer *im, const char *name, size_t *count) {
    const Onnx__AttributeProto *a = nb_node_attr(im, name);
    *count = a ? a->n_ints : 0;
    return a ? a->ints : NULL;
}

/* ---- shapes --------------------------------------------------------------------------------- */

/* A symbol that occurs in `d` once, with coefficient 1 or -1, outside other functions; NULL if
 * none. One that is not counted may have to become an expression of counted ones only where there
 * are none (see replace). */
static const nb_dim *solvable_term(nb_graph *g, const nb_dim *d, bool counted) {
    for (const nb_dim *at = d;; at = at->a) {
        const nb_dim *t = at->kind == NB_DIM_ADD ? at->b : at;
        const nb_dim *s = t->kind == NB_DIM_MUL && nb_dim_is(t->a, -1) ? t->b : t;
        if (s->kind == NB_DIM_SYMBOL && s->symbol->counted == counted) {
            const nb_dim *zero = nb_dim_const(g, 0);
            const nb_dim *rest = nb_dim_substitute(g, d, s->symbol, zero);
            /* Linear in s: the difference is s or -s. */
            const nb_dim *difference = nb_dim_sub(g, d, rest);
            if (difference == s || difference == nb_dim_sub(g, zero, s)) return s;
        }
        if (at->kind != NB_DIM_ADD) return NULL;
    }
}

/* Does `d` hold a counted symbol that has no value yet where `symbol` has one? */
static bool waits(const nb_dim *d, const nb_symbol *symbol) {
    if (d->kind == NB_DIM_CONST) return false;
    if (d->kind == NB_DIM_SYMBOL)
        return d->symbol->counted && (!symbol->counted || d->symbol->index > symbol->index);
    return waits(d->a, symbol) || waits(d->b, symbol);
}

/* The symbol's range goes with it: what replaces it must be able to lie there. */
static nb_status replace(nb_importer *im, const nb_symbol *symbol, const nb_dim *by) {
    int64_t low, high;
    nb_dim_range(by, &low, &high);
    /* Inputs say their sizes before data are looked at, and one count is known before another. */
    if (waits(by, symbol))
        return nb_node_error(im, NB_UNSUPPORTED,
                             "dimension %s would have to be %s, which data tell", symbol->name,
                             nb_dim_text(im->arena, by));
    if (high < symbol->min || low > symbol->max)
        return nb_node_error(im, NB_MALFORMED, "dimension %s cannot be %s", symbol->name,
                             nb_dim_text(im->arena, by));
    if (by->kind == NB_DIM_SYMBOL) nb_symbol_narrow(im->g, by->symbol, symbol->min, symbol->max);
    if (!nb_dim_is_simple(by))
        return nb_node_error(im, NB_LIMIT, "dimension %s is too long an expression", symbol->name);
    nb_graph_substitute(im->g, symbol, by);
    return NB_OK;
}

/* Gives a symbol a range within its own. Expressions are rebuilt only where a symbol is replaced:
 * there and back. What it is now. */
static const nb_symbol *ranged(nb_importer *im, const nb_symbol *s, int64_t least, int64_t most) {
    nb_graph *g = im->g;
    const char *name = s->name;
    for (int pass = 0; pass < 2; pass++) {
        const nb_symbol *fresh =
            nb_graph_symbol(g, pass ? name : nb_format(im->arena, "%s'", name), true);
        g->symbols.items[fresh->index]->counted = s->counted;
        nb_symbol_narrow(g, fresh, least, most);
        nb_graph_substitute(g, s, nb_dim_symbol(g, fresh));
        s = fresh;
    }
    return s;
}

/* min(most, s) is to be s, a symbol: then s is at most `most`, which makes all such min() go. */
static bool narrow(nb_importer *im, const nb_dim *s, const nb_dim *min) {
    if (s->kind != NB_DIM_SYMBOL || min->kind != NB_DIM_MIN) return false;
    const nb_dim *most = min->a == s ? min->b : min->b == s ? min->a : NULL;
    if (!most || !nb_dim_is_const(most) || most->value < s->symbol->min) return false;
    ranged(im, s->symbol, s->symbol->min, most->value);
    return true;
}

/* Does `d` never fall when a symbol grows that is the only one in it, and `*found` if that is set?
 */
static bool rises(const nb_dim *d, const nb_symbol **found) {
    if (d->kind == NB_DIM_CONST) return true;
    if (d->kind == NB_DIM_SYMBOL) {
        if (*found && *found != d->symbol) return false;
        *found = d->symbol;
        return true;
    }
    const nb_dim *k = nb_dim_is_const(d->a) ? d->a : d->b, *x = k == d->a ? d->b : d->a;
    if (d->kind == NB_DIM_MUL) return nb_dim_is_const(k) && k->value >= 0 && rises(x, found);
    if (d->kind == NB_DIM_FLOORDIV || d->kind == NB_DIM_CEILDIV)
        return nb_dim_is_const(d->b) && d->b->value > 0 && rises(d->a, found);
    const nb_symbol *of_a = NULL, *of_b = NULL; /* sum, least, largest */
    if (!rises(d->a, &of_a) || !rises(d->b, &of_b)) return false;
    const nb_symbol *one = of_a ? of_a : of_b;
    if ((of_a && of_b && of_a != of_b) || (one && *found && *found != one)) return false;
    if (one) *found = one;
    return true;
}

/* The least value of `s` in low..high from which `d` is at least `bound`; high + 1 for none. */
static int64_t reaches(nb_importer *im, const nb_dim *d, const nb_symbol *s, int64_t bound,
                       int64_t low, int64_t high) {
    int64_t *symbols = NB_NEW_ARRAY(im->arena, int64_t, im->g->symbols.count + 1);
    int64_t end = high + 1;
    while (low < end) {
        int64_t value;
        symbols[s->index] = low + (end - low) / 2;
        if (!nb_dim_eval(d, symbols, &value) || value >= bound)
            end = symbols[s->index];
        else
            low = symbols[s->index] + 1;
    }
    return end;
}

/* An expression that rises with its symbol is a number in one range of it, which it then has. */
static bool solve(nb_importer *im, const nb_dim *d, const nb_dim *number) {
    const nb_symbol *s = NULL;
    if (!nb_dim_is_const(number) || d->kind == NB_DIM_SYMBOL || !rises(d, &s) || !s) return false;
    const int64_t most = nb_min_i64(s->max, MAX_ELEMENTS);
    const int64_t from = reaches(im, d, s, number->value, s->min, most);
    const int64_t to = reaches(im, d, s, number->value + 1, s->min, most) - 1;
    if (from > to) return false;
    if (from == to) return replace(im, s, nb_num(im, from)) == NB_OK;
    nb_symbol_narrow(im->g, s, from, to);
    return true;
}

/* The first max(number, x) in d whose x rises with a symbol and gets there: from where on that one
 * is x. */
static const nb_symbol *where_reached(nb_importer *im, const nb_dim *d, int64_t *from) {
    if (d->kind == NB_DIM_CONST || d->kind == NB_DIM_SYMBOL) return NULL;
    const nb_symbol *s = NULL;
    if (d->kind == NB_DIM_MAX && nb_dim_is_const(d->a) != nb_dim_is_const(d->b)) {
        const bool first = nb_dim_is_const(d->a);
        const int64_t bound = first ? d->a->value : d->b->value;
        const nb_dim *x = first ? d->b : d->a;
        if (rises(x, &s) && s) {
            const int64_t most = nb_min_i64(s->max, MAX_ELEMENTS);
            *from = reaches(im, x, s, bound, s->min, most);
            if (*from <= most) return s;
        }
    }
    s = where_reached(im, d->a, from);
    return s ? s : where_reached(im, d->b, from);
}

/* Where nothing else makes them equal: a Range has max(0,x) elements, and a shape that says x of
 * them means runs where x is at least 0. */
static bool reach(nb_importer *im, const nb_dim **a, const nb_dim **b) {
    int64_t from;
    const nb_symbol *s = where_reached(im, *a, &from);
    if (!s) s = where_reached(im, *b, &from);
    if (!s || from <= s->min) return false;
    const nb_dim *now = nb_dim_symbol(im->g, ranged(im, s, from, s->max));
    *a = nb_dim_substitute(im->g, *a, s, now);
    *b = nb_dim_substitute(im->g, *b, s, now);
    return true;
}

nb_status nb_unify(nb_importer *im, const nb_dim *a, const nb_dim *b) {
    if (a == b || narrow(im, a, b) || narrow(im, b, a)) return NB_OK;
    nb_graph *g = im->g;
    const nb_dim *plain = a->kind == NB_DIM_SYMBOL ? a : b->kind == NB_DIM_SYMBOL ? b : NULL;
    const nb_dim *other = plain == a ? b : a;
    const bool input_waits = plain && !plain->symbol->counted && nb_dim_is_counted(other, NULL);
    if (plain && (!input_waits || other->kind == NB_DIM_SYMBOL) &&
        nb_dim_substitute(g, other, plain->symbol, nb_dim_const(g, 0)) == other) {
        /* Of two plain symbols, the counted one goes, or the later one. */
        if (other->kind == NB_DIM_SYMBOL && (other->symbol->counted != plain->symbol->counted
                                                 ? other->symbol->counted
                                                 : other->symbol->index > plain->symbol->index)) {
            const nb_dim *swap = plain;
            plain = other;
            other = swap;
        }
        return replace(im, plain->symbol, other);
    }
    const nb_dim *difference = nb_dim_sub(g, a, b), *s = solvable_term(g, difference, true);
    if (!s) s = solvable_term(g, difference, false);
    if (!s && (solve(im, a, b) || solve(im, b, a))) return NB_OK;
    if (!s && reach(im, &a, &b)) return nb_unify(im, a, b);
    if (!s) /* numbers differ; of expressions it is not known */
        return nb_node_error(im, nb_dim_is_const(difference) ? NB_MALFORMED : NB_UNSUPPORTED,
                             "dimensions %s and %s must be equal", nb_dim_text(im->arena, a),
                             nb_dim_text(im->arena, b));
    const nb_dim *rest = nb_dim_substitute(g, difference, s->symbol, nb_dim_const(g, 0));
    bool negative = nb_dim_add(g, rest, s) != difference;
    return replace(im, s->symbol, negative ? rest : nb_dim_sub(g, nb_dim_const(g, 0), rest));
}

bool nb_may_be_one(nb_importer *im, const nb_dim *a, const nb_dim *b) {
    const nb_dim *sides[2][2] = {{a, b}, {b, a}}, *zero = nb_dim_const(im->g, 0);
    for (size_t i = 0; i < 2; i++) {
        const nb_dim *s = sides[i][0], *other = sides[i][1];
        if (s->kind == NB_DIM_SYMBOL && nb_dim_substitute(im->g, other, s->symbol, zero) == other)
            return true;
    }
    return false;
}

nb_status nb_unify_broadcast(nb_importer *im, nb_value *a, nb_value *b) {
    if (!a || !b) return NB_MALFORMED;
    for (int i = 1; i <= a->type->rank && i <= b->type->rank; i++) {
        /* Types are read afresh: unifying one axis may rewrite the others. */
        const nb_dim *da = a->type->dims[a->type->rank - i], *db = b->type->dims[b->type->rank - i];
        if (da != db && !nb_dim_is(da, 1) && !nb_dim_is(db, 1)) NB_TRY(nb_unify(im, da, db));
    }
    return NB_OK;
}

nb_status nb_axis(nb_importer *im, int64_t axis, int rank, int64_t *out) {
    *out = axis < 0 ? axis + rank : axis;
    if (*out >= 0 && *out < rank) return NB_OK;
    return nb_node_error(im, NB_MALFORMED, "axis %lld is out of range for rank %d", (long long)axis,
                         rank);
}

/* `counted`: numbers that only data tell may be counted symbols. */
static nb_status dims_of(nb_importer *im, size_t i, bool counted, const nb_dim *const **dims,
                         size_t *count) {
    nb_value *v = nb_node_input(im, i);
    if (!v) return NB_MALFORMED;
    *dims = nb_symbolic(im->g, v, count);
    if (!*dims) *dims = nb_fold(im, v, count);
    if (!*dims) *dims = nb_assume(im, i, count);
    if (!*dims && counted && im->diags->errors == im->errors) *dims = nb_count_input(im, i, count);
    if (*dims) return NB_OK;
    if (im->diags->errors != im->errors) return nb_diags_status(im->diags);
    nb_node_error(im, NB_UNSUPPORTED,
                  "input %zu \"%s\" must be known at compile time or computed from shapes; it "
                  "depends on data",
                  i, im->node->input[i]);
    nb_help(im->diags, "export the model with this value as a constant");
    return NB_UNSUPPORTED;
}

nb_status nb_dims_of(nb_importer *im, size_t i, const nb_dim *const **dims, size_t *count) {
    return dims_of(im, i, true, dims, count);
}

nb_status nb_known_dims_of(nb_importer *im, size_t i, const nb_dim *const **dims, size_t *count) {
    return dims_of(im, i, false, dims, count);
}

nb_status nb_ints_of(nb_importer *im, size_t i, const int64_t **values, size_t *count) {
    const nb_dim *const *dims;
    NB_TRY(nb_known_dims_of(im, i, &dims, count));
    int64_t *out = NB_NEW_ARRAY(im->arena, int64_t, *count + 1);
    for (size_t k = 0; k < *count; k++) {
        if (!nb_dim_is_const(dims[k]))
            return nb_node_error(im, NB_UNSUPPORTED, "input %zu must be a constant, found %s", i,
                                 nb_dim_text(im->arena, dims[k]));
        out[k] = dims[k]->value;
    }
    *values = out;
    return NB_OK;
}

nb_status nb_axes(nb_importer *im, size_t input, int rank, const int64_t **axes, size_t *count) {
    const int64_t *given = nb_node_ints(im, "axes", count);
    if (!given && nb_has_input(im, input)) NB_TRY(nb_ints_of(im, input, &given, count));
    int64_t *out = NB_NEW_ARRAY(im->arena, int64_t, *count + 1);
    for (size_t i = 0; i < *count; i++) NB_TRY(nb_axis(im, given[i], rank, &out[i]));
    *axes = *count ? out : NULL;
    return NB_OK;
}

/* ---- pieces --------------------------------------------------------------------------------- */

nb_value *nb_scalar(nb_importer *im, nb_elem elem, double value) {
    const char *name = nb_format(im->arena, "c_%g", value);
    nb_value *v;
    if (elem == NB_F64) return nb_const_f64(im->g, name, 0, NULL, &value);
    if (nb_elem_is_float(elem)) {
        float f = (float)value;
        v = nb_const_f32(im->g, name, 0, NULL, &f);
    } else { /* saturates, as a cast does */
        int64_t i = !(value == value)  ? 0
                    : value >= 0x1p63  ? INT64_MAX
                    : value <= -0x1p63 ? INT64_MIN
                                       : (int64_t)value;
        v = nb_const_i64(im->g, name, 0, NULL, &i);
    }
    return elem == NB_F32 || elem == NB_I64 ? v : nb_cast(&im->b, v, elem);
}

nb_value *nb_one_number(nb_importer *im, size_t input, nb_elem elem) {
    nb_value *v = nb_node_input(im, input);
    int64_t count;
    if (v && nb_type_static_count(v->type, &count) && count == 1)
        return nb_as(im, nb_reshape(&im->b, v, 0, NULL), elem);
    if (v) nb_node_error(im, NB_MALFORMED, "input %zu is not one number", input);
    return NULL;
}

/* Can nb_unify say that they are equal? */
static bool unifiable(nb_importer *im, const nb_dim *a, const nb_dim *b) {
    const nb_dim *difference = nb_dim_sub(im->g, a, b);
    return a == b || nb_dim_is_const(a) || nb_dim_is_const(b) || nb_may_be_one(im, a, b) ||
           narrow(im, a, b) || narrow(im, b, a) || solvable_term(im->g, difference, true) ||
           solvable_term(im->g, difference, false);
}

nb_value *nb_sized(nb_importer *im, nb_value *x, int axis, const nb_dim *size) {
    if (!x || unifiable(im, x->type->dims[axis], size)) return x;
    nb_value *same = nb_binary(&im->b, NB_OP_eq, nb_make_dims(im, 1, &x->type->dims[axis], true),
                               nb_make_dims(im, 1, &size, true));
    return nb_slice_axis(im, nb_require(im, x, same), axis, nb_num(im, 0), size, 1);
}

static int terms(const nb_dim *d) {
    return d->kind == NB_DIM_CONST || d->kind == NB_DIM_SYMBOL ? 1 : terms(d->a) + terms(d->b);
}

/* x with the sizes of `like`, beside which it is broadcast, where those are simpler. */
static nb_value *sized_as(nb_importer *im, nb_value *x, const nb_value *like) {
    for (int i = 1; x && like && i <= x->type->rank && i <= like->type->rank; i++) {
        const int axis = x->type->rank - i;
        const nb_dim *size = like->type->dims[like->type->rank - i];
        if (terms(x->type->dims[axis]) >= terms(size)) x = nb_sized(im, x, axis, size);
    }
    return x;
}

nb_value *nb_combine(nb_importer *im, nb_op_kind kind, nb_value *a, nb_value *b) {
    a = sized_as(im, a, b);
    b = sized_as(im, b, a);
    return nb_unify_broadcast(im, a, b) == NB_OK ? nb_binary(&im->b, kind, a, b) : NULL;
}

nb_value *nb_times(nb_importer *im, nb_value *x, double factor) {
    return x ? nb_combine(im, NB_OP_mul, x, nb_scalar(im, x->type->elem, factor)) : NULL;
}

nb_value *nb_plus(nb_importer *im, nb_value *x, double addend) {
    return x ? nb_combine(im, NB_OP_add, x, nb_scalar(im, x->type->elem, addend)) : NULL;
}

nb_status nb_apply_form(nb_importer *im, size_t n, const nb_form *forms) {
    nb_value *x = nb_node_input(im, 0);
    if (!x) return NB_MALFORMED;
    if (!nb_elem_is_float(x->type->elem))
        return nb_node_error(im, NB_MALFORMED, "takes floats, found %s",
                             nb_elems[x->type->elem].text);
    size_t i = 0;
    while (i < n && strcmp(forms[i].op, im->node->op_type) != 0) i++;
    if (i == n) return nb_node_output(im, 0, NULL);
    /* Of 16 bits the result alone is rounded. */
    const nb_elem elem = x->type->elem;
    x = nb_as(im, x, nb_elems[elem].bits < 32 ? NB_F32 : elem);
    return nb_node_output(im, 0, nb_as(im, x ? forms[i].of(im, x) : NULL, elem));
}

nb_value *nb_bitcast(nb_importer *im, nb_value *x, nb_elem to) {
    if (!x || x->type->elem == to) return x;
    nb_begin(&im->b, NB_OP_bitcast);
    nb_arg(&im->b, x);
    nb_set_elem(&im->b, "to", to);
    return nb_end(&im->b);
}

nb_value *nb_choose(nb_importer *im, nb_value *cond, nb_value *a, nb_value *b) {
    cond = sized_as(im, sized_as(im, cond, a), b);
    a = sized_as(im, sized_as(im, a, cond), b);
    b = sized_as(im, sized_as(im, b, cond), a);
    if (nb_unify_broadcast(im, a, b) != NB_OK || nb_unify_broadcast(im, cond, a) != NB_OK ||
        nb_unify_broadcast(im, cond, b) != NB_OK)
        return NULL;
    nb_begin(&im->b, NB_OP_where);
    nb_arg(&im->b, cond);
    nb_arg(&im->b, a);
    nb_arg(&im->b, b);
    return nb_end(&im->b);
}

nb_value *nb_slice_axis(nb_importer *im, nb_value *x, int axis, const nb_dim *start,
                        const nb_dim *count, int64_t step) {
    if (!x) return NULL;
    const nb_dim *starts[NB_MAX_RANK], *counts[NB_MAX_RANK];
    int64_t steps[NB_MAX_RANK];
    for (int d = 0; d < x->type->rank; d++) {
        starts[d] = d == axis ? start : nb_num(im, 0);
        counts[d] = d == axis ? count : x->type->dims[d];
        steps[d] = d == axis ? step : 1;
    }
    nb_begin(&im->b, NB_OP_slice);
    nb_arg(&im->b, x);
    nb_set_dims(&im->b, "start", (size_t)x->type->rank, starts);
    nb_set_dims(&im->b, "count", (size_t)x->type->rank, counts);
    nb_set_ints(&im->b, "step", (size_t)x->type->rank, steps);
    return nb_end(&im->b);
}

nb_value *nb_join(nb_importer *im, nb_value *a, nb_value *b, int axis) {
    if (!a || !b) return NULL;
    for (int d = 0; d < a->type->rank && d < b->type->rank; d++) {
        if (d != axis) b = nb_sized(im, b, d, a->type->dims[d]);
        if (!b) return NULL;
        if (d != axis && nb_unify(im, a->type->dims[d], b->type->dims[d]) != NB_OK) return NULL;
    }
    nb_begin(&im->b, NB_OP_concat);
    nb_arg(&im->b, a);
    nb_arg(&im->b, b);
    nb_set_int(&im->b, "axis", axis);
    return nb_end(&im->b);
}

nb_value *nb_count_up(nb_importer *im, const nb_dim *start, const nb_dim *count) {
    nb_begin(&im->b, NB_OP_iota);
    nb_set_dims(&im->b, "start", 1, &start);
    nb_set_dims(&im->b, "count", 1, &count);
    nb_set_int(&im->b, "step", 1);
    return nb_end(&im->b);
}

nb_value *nb_expand_to(nb_importer *im, nb_value *x, int rank, const nb_dim *const *dims) {
    nb_begin(&im->b, NB_OP_expand);
    nb_arg(&im->b, x);
    nb_set_dims(&im->b, "shape", (size_t)rank, dims);
    return nb_end(&im->b);
}

nb_value *nb_zero_pad(nb_importer *im, nb_value *x, int axis, int64_t before, int64_t after) {
    if (!x) return NULL;
    const nb_dim *sides[2][NB_MAX_RANK];
    for (int d = 0; d < x->type->rank; d++) {
        sides[0][d] = nb_num(im, d == axis ? before : 0);
        sides[1][d] = nb_num(im, d == axis ? after : 0);
    }
    nb_begin(&im->b, NB_OP_pad);
    nb_arg(&im->b, x);
    nb_arg(&im->b, NULL);
    nb_set_dims(&im->b, "before", (size_t)x->type->rank, sides[0]);
    nb_set_dims(&im->b, "after", (size_t)x->type->rank, sides[1]);
    return nb_end(&im->b);
}

nb_value *nb_make_dims(nb_importer *im, size_t n, const nb_dim *const *dims, bool scalar) {
    nb_begin(&im->b, NB_OP_dims);
    nb_set_dims(&im->b, "values", n, dims);
    nb_set_bool(&im->b, "scalar", scalar);
    return nb_end(&im->b);
}

nb_value *nb_along(nb_importer *im, nb_value *v, int rank, int axis) {
    if (!v) return NULL;
    const nb_dim *dims[NB_MAX_RANK];
    for (int d = 0; d < rank; d++) dims[d] = d == axis ? v->type->dims[0] : nb_num(im, 1);
    return nb_reshape(&im->b, v, rank, dims);
}

nb_value *nb_positions(nb_importer *im, int rank, int axis, const nb_dim *count) {
    return nb_along(im, nb_count_up(im, nb_num(im, 0), count), rank, axis);
}

nb_value *nb_take(nb_importer *im, nb_value *x, nb_value *index, int axis) {
    nb_begin(&im->b, NB_OP_gather);
    nb_arg(&im->b, x);
    nb_arg(&im->b, index);
    nb_set_int(&im->b, "axis", axis);
    return nb_end(&im->b);
}

nb_value *nb_reduce(nb_importer *im, nb_op_kind kind, nb_value *x, size_t n, const int64_t *axes,
                    bool keep) {
    nb_begin(&im->b, kind);
    nb_arg(&im->b, x);
    nb_set_ints(&im->b, "axes", n, axes);
    nb_set_bool(&im->b, "keep", keep);
    return nb_end(&im->b);
}

static bool is_permutation(const int64_t *perm, int rank) {
    bool seen[NB_MAX_RANK] = {false};
    for (int d = 0; d < rank; d++) {
        if (perm[d] < 0 || perm[d] >= rank || seen[perm[d]]) return false;
        seen[perm[d]] = true;
    }
    return true;
}

nb_value *nb_permute(nb_importer *im, nb_value *x, const int64_t *perm) {
    if (!x) return NULL;
    const bool made = x->def && x->def->kind == NB_OP_dequantize;
    const nb_value *codes = made ? nb_in(x->def, 0) : NULL;
    nb_value *moved = codes && nb_is_const(codes) && is_permutation(perm, x->type->rank)
                          ? nb_codes_permuted(im->g, codes, perm, im->diags)
                          : NULL;
    return moved ? nb_unary(&im->b, NB_OP_dequantize, moved) : nb_transpose(&im->b, x, perm);
}

nb_value *nb_swap_axes(nb_importer *im, nb_value *x, int a, int b) {
    if (!x) return NULL;
    int64_t perm[NB_MAX_RANK];
    for (int d = 0; d < x->type->rank; d++) perm[d] = d == a ? b : d == b ? a : d;
    return nb_permute(im, x, perm);
}

/* Vectors become matrices and the added axis goes again, as NumPy's matmul does. */
nb_value *nb_multiply(nb_importer *im, nb_value *a, nb_value *b) {
    if (!a || !b) return NULL;
    const nb_dim *one = nb_num(im, 1);
    bool row = a->type->rank == 1, column = b->type->rank == 1;
    if (row) a = nb_reshape(&im->b, a, 2, (const nb_dim *[]){one, a->type->dims[0]});
    if (column) b = nb_reshape(&im->b, b, 2, (const nb_dim *[]){b->type->dims[0], one});
    if (!a || !b) return NULL;
    if (a->type->rank < 2 || b->type->rank < 2) {
        nb_node_error(im, NB_MALFORMED, "scalars cannot be multiplied as matrices");
        return NULL;
    }
    if (nb_unify(im, a->type->dims[a->type->rank - 1], b->type->dims[b->type->rank - 2]) != NB_OK)
        return NULL;
    for (int i = 3; i <= a->type->rank && i <= b->type->rank; i++) {
        const nb_dim *da = a->type->dims[a->type->rank - i], *db = b->type->dims[b->type->rank - i];
        if (da != db && !nb_dim_is(da, 1) && !nb_dim_is(db, 1) && nb_unify(im, da, db) != NB_OK)
            return NULL;
    }
    nb_value *y = nb_binary(&im->b, NB_OP_matmul, a, b);
    if (!y || (!row && !column)) return y;
    const nb_dim *dims[NB_MAX_RANK];
    int n = 0;
    for (int d = 0; d < y->type->rank; d++) {
        bool added = (row && d == y->type->rank - 2) || (column && d == y->type->rank - 1);
        if (!added) dims[n++] = y->type->dims[d];
    }
    return nb_reshape(&im->b, y, n, dims);
}
