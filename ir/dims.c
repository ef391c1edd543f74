/* Dimension expressions, interned in a canonical form.
 *
 * A dim is a sum of terms and a constant; a term is a coefficient times a product of atoms; an atom
 * is a symbol or a floordiv, ceildiv, min or max. Terms and atoms are ordered by structure and
 * name, never by address or age, so that printing and parsing give the same order.
 *
 * An expression is a tree in memory that is shared, and walks do not see the sharing, so its size
 * as a tree is bounded. Beyond the bounds, where a coefficient overflows and where a divisor is
 * never positive, there is one dim that says so (nb_dim_is_invalid); it absorbs whatever is
 * computed with it. */
#include "ir/interner.h"

#include <string.h>

/* Models have a handful of symbols and a few terms. The parser reads 64 levels of brackets. */
#define MAX_NODES 256
#define MAX_NEST  48
#define MAX_TERMS 64
#define MAX_ATOMS 16

typedef struct term {
    int64_t coefficient;
    const nb_dim *product; /* without a constant factor; NULL: the number 1 */
} term;

typedef struct sum {
    size_t n;
    term terms[MAX_TERMS]; /* in no order, a coefficient may be 0 */
    int64_t constant;
    bool overflow; /* does not fit: the result is invalid */
} sum;

static const nb_dim *intern(nb_graph *g, nb_dim_kind kind, int64_t value, const nb_symbol *symbol,
                            const nb_dim *a, const nb_dim *b);

static const nb_dim *invalid(nb_graph *g) {
    const nb_dim *most = nb_dim_const(g, INT64_MAX);
    return intern(g, NB_DIM_MUL, 0, NULL, most, most);
}

static const nb_dim *intern(nb_graph *g, nb_dim_kind kind, int64_t value, const nb_symbol *symbol,
                            const nb_dim *a, const nb_dim *b) {
    uint32_t nodes = 1 + (a ? a->nodes + b->nodes : 0), nest = 0;
    if (a) nest = (a->nest > b->nest ? a->nest : b->nest) + (kind >= NB_DIM_FLOORDIV);
    if (nodes > MAX_NODES || nest > MAX_NEST ||
        (a && (nb_dim_is_invalid(a) || nb_dim_is_invalid(b))))
        return invalid(g);
    struct {
        int64_t kind, value;
        const void *symbol, *a, *b;
    } key;
    memset(&key, 0, sizeof key);
    key.kind = kind;
    key.value = value;
    key.symbol = symbol;
    key.a = a;
    key.b = b;
    nb_map *map = &g->interner->dims;
    const nb_dim *known = nb_map_get_str(map, (const char *)&key, sizeof key);
    if (known) return known;
    nb_dim *d = NB_NEW(g->arena, nb_dim);
    *d = (nb_dim){.kind = kind,
                  .id = g->interner->n_dims++,
                  .nodes = nodes,
                  .nest = nest,
                  .value = value,
                  .symbol = symbol,
                  .a = a,
                  .b = b};
    nb_map_set_str(map, (const char *)&key, sizeof key, d);
    return d;
}

const nb_dim *nb_dim_const(nb_graph *g, int64_t value) {
    return intern(g, NB_DIM_CONST, value, NULL, NULL, NULL);
}
const nb_dim *nb_dim_symbol(nb_graph *g, const nb_symbol *symbol) {
    return intern(g, NB_DIM_SYMBOL, 0, symbol, NULL, NULL);
}

static int compare(const nb_dim *a, const nb_dim *b) {
    if (a == b) return 0;
    if (a->kind != b->kind) return a->kind < b->kind ? -1 : 1;
    if (a->kind == NB_DIM_CONST) return a->value < b->value ? -1 : a->value > b->value;
    if (a->kind == NB_DIM_SYMBOL) return strcmp(a->symbol->name, b->symbol->name);
    int c = compare(a->a, b->a);
    return c ? c : compare(a->b, b->b);
}

/* ---- sums ---------------------------------------------------------------------------------- */

static void add_term(sum *s, int64_t coefficient, const nb_dim *product) {
    int64_t *to = product ? NULL : &s->constant;
    for (size_t i = 0; i < s->n && !to; i++) {
        if (s->terms[i].product == product) to = &s->terms[i].coefficient;
    }
    if (to) {
        s->overflow = s->overflow || !nb_add_i64(*to, coefficient, to);
    } else if (s->n == MAX_TERMS) {
        s->overflow = true;
    } else {
        s->terms[s->n++] = (term){coefficient, product};
    }
}

/* The term a node other than a sum stands for. */
static term term_of(const nb_dim *d) {
    if (d->kind == NB_DIM_CONST) return (term){d->value, NULL};
    if (d->kind == NB_DIM_MUL && d->a->kind == NB_DIM_CONST) return (term){d->a->value, d->b};
    return (term){1, d};
}

/* Adds coefficient * d. Sums lean left, so the loop walks down the left side. */
static void flatten(sum *s, int64_t coefficient, const nb_dim *d) {
    int64_t c;
    if (nb_dim_is_invalid(d)) {
        s->overflow = true;
        return;
    }
    for (; d->kind == NB_DIM_ADD; d = d->a) flatten(s, coefficient, d->b);
    term t = term_of(d);
    if (nb_mul_i64(coefficient, t.coefficient, &c))
        add_term(s, c, t.product);
    else
        s->overflow = true;
}

static const nb_dim *rebuild(nb_graph *g, sum *s) {
    if (s->overflow) return invalid(g);
    for (size_t i = 1; i < s->n; i++) { /* insertion sort: a few terms */
        term t = s->terms[i];
        size_t k = i;
        for (; k > 0 && compare(s->terms[k - 1].product, t.product) > 0; k--)
            s->terms[k] = s->terms[k - 1];
        s->terms[k] = t;
    }
    const nb_dim *d = NULL;
    for (size_t i = 0; i < s->n; i++) {
        if (s->terms[i].coefficient == 0) continue;
        const nb_dim *t = s->terms[i].product;
        if (s->terms[i].coefficient != 1)
            t = intern(g, NB_DIM_MUL, 0, NULL, nb_dim_const(g, s->terms[i].coefficient), t);
        d = d ? intern(g, NB_DIM_ADD, 0, NULL, d, t) : t;
    }
    if (!d) return nb_dim_const(g, s->constant);
    return s->constant ? intern(g, NB_DIM_ADD, 0, NULL, d, nb_dim_const(g, s->constant)) : d;
}

/* Does `d` have the term, with the other sign? */
static bool takes_away(const nb_dim *d, term t) {
    sum s = {0};
    flatten(&s, 1, d);
    for (size_t i = 0; i < s.n && !s.overflow; i++)
        if (s.terms[i].product == t.product && s.terms[i].coefficient == -t.coefficient)
            return t.coefficient != 0;
    return false;
}

/* A term goes into a min or max that takes it away in an operand: P+max(0,S-P) is max(P,S). How
 * slices of slices count. Each time there are fewer nodes. */
static bool absorb(nb_graph *g, sum *s) {
    for (size_t i = 0; i < s->n && !s->overflow; i++) {
        const nb_dim *d = s->terms[i].product;
        const int64_t sign = s->terms[i].coefficient;
        if ((sign != 1 && sign != -1) || d->kind < NB_DIM_MIN) continue;
        for (size_t k = 0; k < s->n; k++) {
            if (k == i || s->terms[k].coefficient == INT64_MIN) continue;
            const term t = {sign * s->terms[k].coefficient, s->terms[k].product};
            if (!takes_away(d->a, t) && !takes_away(d->b, t)) continue;
            sum one = {.n = 1, .terms = {t}};
            const nb_dim *more = rebuild(g, &one);
            s->terms[i].coefficient = s->terms[k].coefficient = 0;
            flatten(
                s, sign,
                nb_dim_binary(g, d->kind, nb_dim_add(g, d->a, more), nb_dim_add(g, d->b, more)));
            return true;
        }
    }
    return false;
}

static const nb_dim *combine(nb_graph *g, const nb_dim *a, const nb_dim *b, int64_t sign) {
    sum s = {0};
    flatten(&s, 1, a);
    flatten(&s, sign, b);
    while (absorb(g, &s)) {
    }
    return rebuild(g, &s);
}

const nb_dim *nb_dim_add(nb_graph *g, const nb_dim *a, const nb_dim *b) {
    return combine(g, a, b, 1);
}
const nb_dim *nb_dim_sub(nb_graph *g, const nb_dim *a, const nb_dim *b) {
    return combine(g, a, b, -1);
}

/* ---- products ------------------------------------------------------------------------------ */

/* Factors of a product, largest first, appended to `atoms`; more than MAX_ATOMS are counted as one
 * more only. NULL has none. */
static size_t collect_atoms(const nb_dim *d, const nb_dim **atoms, size_t n) {
    if (!d) return n;
    for (; d->kind == NB_DIM_MUL && n < MAX_ATOMS; d = d->a) atoms[n++] = d->b;
    if (n < MAX_ATOMS) atoms[n] = d;
    return n + 1;
}

static const nb_dim *product_of(nb_graph *g, const nb_dim **atoms, size_t n) {
    for (size_t i = 1; i < n; i++) {
        const nb_dim *t = atoms[i];
        size_t k = i;
        for (; k > 0 && compare(atoms[k - 1], t) > 0; k--) atoms[k] = atoms[k - 1];
        atoms[k] = t;
    }
    const nb_dim *d = n ? atoms[0] : NULL;
    for (size_t i = 1; i < n; i++) d = intern(g, NB_DIM_MUL, 0, NULL, d, atoms[i]);
    return d;
}

/* Adds the product of two terms. */
static void add_product(nb_graph *g, sum *s, term x, term y) {
    const nb_dim *atoms[MAX_ATOMS + 1];
    int64_t c;
    size_t n = collect_atoms(x.product, atoms, 0);
    if (n <= MAX_ATOMS) n = collect_atoms(y.product, atoms, n);
    if (n > MAX_ATOMS || !nb_mul_i64(x.coefficient, y.coefficient, &c))
        s->overflow = true;
    else if (c)
        add_term(s, c, product_of(g, atoms, n));
}

/* Adds t * d, where d is a sum without its constant's being a term. */
static void add_multiple(nb_graph *g, sum *s, term t, const sum *d) {
    for (size_t i = 0; i < d->n && !s->overflow; i++) add_product(g, s, t, d->terms[i]);
    add_product(g, s, t, (term){d->constant, NULL});
}

const nb_dim *nb_dim_mul(nb_graph *g, const nb_dim *a, const nb_dim *b) {
    sum x = {0}, y = {0}, out = {0};
    flatten(&x, 1, a);
    flatten(&y, 1, b);
    out.overflow = x.overflow || y.overflow;
    for (size_t i = 0; i < x.n && !out.overflow; i++) add_multiple(g, &out, x.terms[i], &y);
    if (!out.overflow) add_multiple(g, &out, (term){x.constant, NULL}, &y);
    return rebuild(g, &out);
}

/* ---- division ------------------------------------------------------------------------------ */

/* Orders products by their number of atoms, then by the atoms: an order that multiplication keeps,
 * as long division needs. */
static int compare_products(const nb_dim *a, const nb_dim *b) {
    const nb_dim *x[MAX_ATOMS + 1], *y[MAX_ATOMS + 1];
    size_t n = collect_atoms(a, x, 0), k = collect_atoms(b, y, 0);
    if (n != k) return n < k ? -1 : 1;
    for (size_t i = n; i-- > 0;) { /* from the smallest atom: more of it makes the larger product */
        int c = compare(x[i], y[i]);
        if (c) return -c;
    }
    return 0;
}

static term leading(const sum *s) {
    term lead = {s->constant, NULL};
    for (size_t i = 0; i < s->n; i++) {
        if (s->terms[i].coefficient &&
            (!lead.coefficient || compare_products(lead.product, s->terms[i].product) < 0))
            lead = s->terms[i];
    }
    return lead;
}

/* a / b, when nothing remains. */
static bool divide_terms(nb_graph *g, term a, term b, term *out) {
    const nb_dim *have[MAX_ATOMS + 1], *gone[MAX_ATOMS + 1];
    size_t n = collect_atoms(a.product, have, 0), k = collect_atoms(b.product, gone, 0);
    if (n > MAX_ATOMS || k > MAX_ATOMS || b.coefficient <= 0 || a.coefficient % b.coefficient ||
        a.coefficient == INT64_MIN) /* the caller negates the quotient */
        return false;
    for (size_t i = 0; i < k; i++) {
        size_t at = 0;
        while (at < n && have[at] != gone[i]) at++;
        if (at == n) return false;
        have[at] = have[--n];
    }
    *out = (term){a.coefficient / b.coefficient, product_of(g, have, n)};
    return true;
}

/* Long division of sums: the quotient when nothing remains, else NULL. A divisor is never 0 where
 * the expression has a value, so N*4 by N is 4. */
static const nb_dim *exact_quotient(nb_graph *g, const nb_dim *a, const nb_dim *b) {
    sum rest = {0}, by = {0}, out = {0};
    flatten(&rest, 1, a);
    flatten(&by, 1, b);
    for (int step = 0; step < MAX_TERMS; step++) {
        term lead = leading(&rest), q;
        if (rest.overflow || by.overflow) return NULL;
        if (!lead.coefficient) return rebuild(g, &out);
        if (!divide_terms(g, lead, leading(&by), &q)) return NULL;
        add_term(&out, q.coefficient, q.product);
        add_multiple(g, &rest, (term){-q.coefficient, q.product}, &by);
    }
    return NULL;
}

/* Takes from `s` what the number `by` divides, as a sum of its own: floordiv(2*B+S+3,2) is
 * B+1+floordiv(S+1,2). What remains of the constant rounds to 0. */
static sum take_multiples(sum *s, nb_dim_kind kind, int64_t by) {
    sum whole = {0};
    size_t kept = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (s->terms[i].coefficient % by)
            s->terms[kept++] = s->terms[i];
        else
            add_term(&whole, s->terms[i].coefficient / by, s->terms[i].product);
    }
    s->n = kept;
    whole.constant =
        kind == NB_DIM_FLOORDIV ? nb_floordiv(s->constant, by) : nb_ceildiv(s->constant, by);
    s->constant %= by;
    if (kind == NB_DIM_FLOORDIV && s->constant < 0) s->constant += by;
    if (kind == NB_DIM_CEILDIV && s->constant > 0) s->constant -= by;
    return whole;
}

static const nb_dim *divide(nb_graph *g, nb_dim_kind kind, const nb_dim *a, const nb_dim *b) {
    int64_t low, high, product;
    if (nb_dim_is_invalid(a) || nb_dim_is_invalid(b)) return invalid(g);
    nb_dim_range(b, &low, &high);
    if (high < 1) return invalid(g);
    if (a->kind == kind && nb_dim_is_const(b) && nb_dim_is_const(a->b) && a->b->value > 0 &&
        nb_mul_i64(a->b->value, b->value, &product))
        return divide(g, kind, a->a, nb_dim_const(g, product));
    const nb_dim *exact = exact_quotient(g, a, b);
    if (exact) return exact;
    if (nb_dim_is_const(b)) {
        sum s = {0};
        flatten(&s, 1, a);
        sum multiples = take_multiples(&s, kind, b->value);
        const nb_dim *whole = rebuild(g, &multiples);
        if (!nb_dim_is(whole, 0)) return nb_dim_add(g, whole, divide(g, kind, rebuild(g, &s), b));
    }
    const nb_dim *d = intern(g, kind, 0, NULL, a, b);
    int64_t least, most;
    nb_dim_range(d, &least, &most);
    return low > 0 && least == most ? nb_dim_const(g, least) : d;
}

const nb_dim *nb_dim_floordiv(nb_graph *g, const nb_dim *a, const nb_dim *b) {
    return divide(g, NB_DIM_FLOORDIV, a, b);
}
const nb_dim *nb_dim_ceildiv(nb_graph *g, const nb_dim *a, const nb_dim *b) {
    return divide(g, NB_DIM_CEILDIV, a, b);
}

/* ---- minimum, maximum ---------------------------------------------------------------------- */

static bool has_operand(const nb_dim *d, nb_dim_kind kind, const nb_dim *operand) {
    return d->kind == kind && (d->a == operand || d->b == operand);
}

static const nb_dim *extremum(nb_graph *g, nb_dim_kind kind, const nb_dim *a, const nb_dim *b) {
    nb_dim_kind other = kind == NB_DIM_MIN ? NB_DIM_MAX : NB_DIM_MIN;
    int64_t low, high;
    if (nb_dim_is_invalid(a) || nb_dim_is_invalid(b)) return invalid(g);
    if (nb_dim_is_const(a) && nb_dim_is_const(b)) /* their difference may overflow */
        return (a->value < b->value) == (kind == NB_DIM_MIN) ? a : b;
    nb_dim_range(nb_dim_sub(g, a, b), &low, &high);
    if (low >= 0) return kind == NB_DIM_MIN ? b : a;
    if (high <= 0) return kind == NB_DIM_MIN ? a : b;
    if (has_operand(a, kind, b) || has_operand(b, other, a)) return a;
    if (has_operand(b, kind, a) || has_operand(a, other, b)) return b;
    return compare(a, b) <= 0 ? intern(g, kind, 0, NULL, a, b) : intern(g, kind, 0, NULL, b, a);
}

const nb_dim *nb_dim_min(nb_graph *g, const nb_dim *a, const nb_dim *b) {
    return extremum(g, NB_DIM_MIN, a, b);
}
const nb_dim *nb_dim_max(nb_graph *g, const nb_dim *a, const nb_dim *b) {
    return extremum(g, NB_DIM_MAX, a, b);
}

const nb_dim *nb_dim_binary(nb_graph *g, nb_dim_kind kind, const nb_dim *a, const nb_dim *b) {
    switch (kind) {
    case NB_DIM_ADD:
        return nb_dim_add(g, a, b);
    case NB_DIM_MUL:
        return nb_dim_mul(g, a, b);
    case NB_DIM_FLOORDIV:
        return nb_dim_floordiv(g, a, b);
    case NB_DIM_CEILDIV:
        return nb_dim_ceildiv(g, a, b);
    case NB_DIM_MIN:
        return nb_dim_min(g, a, b);
    case NB_DIM_MAX:
        return nb_dim_max(g, a, b);
    case NB_DIM_CONST:
    case NB_DIM_SYMBOL:
        break;
    }
    return NULL;
}
