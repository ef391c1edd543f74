/* Dimension expressions, interned in a canonical form.
 *
 * A dim is a sum of terms and a constant; a term is a coefficient times a product of atoms; an atom
 * is a symbol or a floordiv, ceildiv, min or max. Terms and atoms are ordered by structure and
 * name, never by address or age, so that printing and parsing give the same order. */
#include "ir/interner.h"

#include <string.h>

/* Larger sums stay as they are built; models have a handful of symbols. */
#define MAX_TERMS 24
#define MAX_ATOMS 16

typedef struct term {
    int64_t coefficient;
    const nb_dim *product; /* without a constant factor */
} term;

typedef struct sum {
    size_t n;
    term terms[MAX_TERMS];
    int64_t constant;
    bool overflow; /* does not fit: the caller builds a plain node instead */
} sum;

static const nb_dim *intern(nb_graph *g, nb_dim_kind kind, int64_t value, const nb_symbol *symbol,
                            const nb_dim *a, const nb_dim *b) {
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
    for (size_t i = 0; i < s->n; i++) {
        if (s->terms[i].product != product) continue;
        if (!nb_add_i64(s->terms[i].coefficient, coefficient, &s->terms[i].coefficient))
            s->overflow = true;
        return;
    }
    if (s->n == MAX_TERMS) {
        s->overflow = true;
        return;
    }
    s->terms[s->n++] = (term){coefficient, product};
}

/* Adds coefficient * d. Sums lean left, so the loop walks down the left side. */
static void flatten(sum *s, int64_t coefficient, const nb_dim *d) {
    int64_t c;
    for (; d->kind == NB_DIM_ADD; d = d->a) flatten(s, coefficient, d->b);
    if (d->kind == NB_DIM_CONST) {
        if (!nb_mul_i64(coefficient, d->value, &c) || !nb_add_i64(s->constant, c, &s->constant))
            s->overflow = true;
    } else if (d->kind == NB_DIM_MUL && d->a->kind == NB_DIM_CONST) {
        if (!nb_mul_i64(coefficient, d->a->value, &c))
            s->overflow = true;
        else
            add_term(s, c, d->b);
    } else {
        add_term(s, coefficient, d);
    }
}

static const nb_dim *rebuild(nb_graph *g, sum *s) {
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

static const nb_dim *combine(nb_graph *g, const nb_dim *a, const nb_dim *b, int64_t sign) {
    sum s = {0};
    flatten(&s, 1, a);
    flatten(&s, sign, b);
    if (!s.overflow) return rebuild(g, &s);
    if (sign < 0) b = intern(g, NB_DIM_MUL, 0, NULL, nb_dim_const(g, -1), b);
    return intern(g, NB_DIM_ADD, 0, NULL, a, b);
}

const nb_dim *nb_dim_add(nb_graph *g, const nb_dim *a, const nb_dim *b) {
    return combine(g, a, b, 1);
}
const nb_dim *nb_dim_sub(nb_graph *g, const nb_dim *a, const nb_dim *b) {
    return combine(g, a, b, -1);
}

/* ---- products ------------------------------------------------------------------------------ */

static size_t collect_atoms(const nb_dim *d, const nb_dim **atoms, size_t n) {
    for (; d->kind == NB_DIM_MUL; d = d->a) {
        if (n == MAX_ATOMS) return n + 1;
        atoms[n++] = d->b;
    }
    if (n < MAX_ATOMS) atoms[n] = d;
    return n + 1;
}

/* Product of two terms' products, sorted; NULL when there are too many atoms. */
static const nb_dim *multiply_products(nb_graph *g, const nb_dim *a, const nb_dim *b) {
    const nb_dim *atoms[MAX_ATOMS + 1];
    size_t n = collect_atoms(a, atoms, 0);
    if (n <= MAX_ATOMS) n = collect_atoms(b, atoms, n);
    if (n > MAX_ATOMS) return NULL;
    for (size_t i = 1; i < n; i++) {
        const nb_dim *t = atoms[i];
        size_t k = i;
        for (; k > 0 && compare(atoms[k - 1], t) > 0; k--) atoms[k] = atoms[k - 1];
        atoms[k] = t;
    }
    const nb_dim *d = atoms[0];
    for (size_t i = 1; i < n; i++) d = intern(g, NB_DIM_MUL, 0, NULL, d, atoms[i]);
    return d;
}

const nb_dim *nb_dim_mul(nb_graph *g, const nb_dim *a, const nb_dim *b) {
    sum x = {0}, y = {0}, out = {0};
    flatten(&x, 1, a);
    flatten(&y, 1, b);
    out.overflow = x.overflow || y.overflow || !nb_mul_i64(x.constant, y.constant, &out.constant);
    for (size_t i = 0; i <= x.n && !out.overflow; i++) {
        int64_t cx = i < x.n ? x.terms[i].coefficient : x.constant;
        for (size_t k = 0; k <= y.n && !out.overflow; k++) {
            int64_t cy = k < y.n ? y.terms[k].coefficient : y.constant, c;
            if (i == x.n && k == y.n) continue; /* constant * constant is there already */
            if (!nb_mul_i64(cx, cy, &c)) out.overflow = true;
            const nb_dim *p = i == x.n ? y.terms[k].product
                              : k == y.n
                                  ? x.terms[i].product
                                  : multiply_products(g, x.terms[i].product, y.terms[k].product);
            if (!p)
                out.overflow = true;
            else if (c)
                add_term(&out, c, p);
        }
    }
    return out.overflow ? intern(g, NB_DIM_MUL, 0, NULL, a, b) : rebuild(g, &out);
}

/* ---- division, minimum, maximum ------------------------------------------------------------ */

/* `product` without the atoms of `by`; NULL when it lacks one. by == NULL: nothing to remove. */
static const nb_dim *remove_atoms(nb_graph *g, const nb_dim *product, const nb_dim *by) {
    if (!by) return product;
    const nb_dim *have[MAX_ATOMS + 1], *gone[MAX_ATOMS + 1], *out = NULL;
    size_t n = collect_atoms(product, have, 0), k = collect_atoms(by, gone, 0);
    if (n > MAX_ATOMS || k > MAX_ATOMS) return NULL;
    for (size_t i = 0; i < k; i++) {
        size_t at = 0;
        while (at < n && have[at] != gone[i]) at++;
        if (at == n) return NULL;
        have[at] = have[--n];
    }
    for (size_t i = 0; i < n; i++) out = out ? nb_dim_mul(g, out, have[i]) : have[i];
    return out ? out : nb_dim_const(g, 1);
}

/* a / b when b is one term that divides every term of a, else NULL. */
static const nb_dim *exact_quotient(nb_graph *g, const nb_dim *a, const nb_dim *b) {
    sum s = {0}, by = {0};
    flatten(&s, 1, a);
    flatten(&by, 1, b);
    if (s.overflow || by.overflow || by.n + (by.constant != 0) != 1) return NULL;
    int64_t c = by.n ? by.terms[0].coefficient : by.constant;
    const nb_dim *atoms = by.n ? by.terms[0].product : NULL, *out = nb_dim_const(g, 0);
    if (c <= 0 || s.constant % c || (s.constant && atoms)) return NULL;
    for (size_t i = 0; i < s.n; i++) {
        const nb_dim *left = remove_atoms(g, s.terms[i].product, atoms);
        if (!left || s.terms[i].coefficient % c) return NULL;
        out = nb_dim_add(g, out, nb_dim_mul(g, nb_dim_const(g, s.terms[i].coefficient / c), left));
    }
    return nb_dim_add(g, out, nb_dim_const(g, s.constant / c));
}

static const nb_dim *divide(nb_graph *g, nb_dim_kind kind, const nb_dim *a, const nb_dim *b) {
    int64_t min, max;
    nb_dim_range(b, &min, &max);
    if (a == b && min > 0) return nb_dim_const(g, 1);
    if (nb_dim_is_const(b) && b->value > 0) {
        if (nb_dim_is_const(a))
            return nb_dim_const(g, kind == NB_DIM_FLOORDIV ? nb_floordiv(a->value, b->value)
                                                           : nb_ceildiv(a->value, b->value));
    }
    const nb_dim *exact = exact_quotient(g, a, b);
    if (exact) return exact;
    return intern(g, kind, 0, NULL, a, b);
}

const nb_dim *nb_dim_floordiv(nb_graph *g, const nb_dim *a, const nb_dim *b) {
    return divide(g, NB_DIM_FLOORDIV, a, b);
}
const nb_dim *nb_dim_ceildiv(nb_graph *g, const nb_dim *a, const nb_dim *b) {
    return divide(g, NB_DIM_CEILDIV, a, b);
}

static const nb_dim *extremum(nb_graph *g, nb_dim_kind kind, const nb_dim *a, const nb_dim *b) {
    int64_t low, high;
    nb_dim_range(nb_dim_sub(g, a, b), &low, &high);
    if (low >= 0) return kind == NB_DIM_MIN ? b : a;
    if (high <= 0) return kind == NB_DIM_MIN ? a : b;
    return compare(a, b) <= 0 ? intern(g, kind, 0, NULL, a, b) : intern(g, kind, 0, NULL, b, a);
}

const nb_dim *nb_dim_min(nb_graph *g, const nb_dim *a, const nb_dim *b) {
    return extremum(g, NB_DIM_MIN, a, b);
}
const nb_dim *nb_dim_max(nb_graph *g, const nb_dim *a, const nb_dim *b) {
    return extremum(g, NB_DIM_MAX, a, b);
}

/* ---- evaluation ---------------------------------------------------------------------------- */

bool nb_dim_eval(const nb_dim *d, const int64_t *symbols, int64_t *out) {
    int64_t a, b;
    if (d->kind == NB_DIM_CONST) {
        *out = d->value;
        return true;
    }
    if (d->kind == NB_DIM_SYMBOL) {
        *out = symbols[d->symbol->index];
        return true;
    }
    if (!nb_dim_eval(d->a, symbols, &a) || !nb_dim_eval(d->b, symbols, &b)) return false;
    switch (d->kind) {
    case NB_DIM_ADD:
        return nb_add_i64(a, b, out);
    case NB_DIM_MUL:
        return nb_mul_i64(a, b, out);
    case NB_DIM_FLOORDIV:
        if (b <= 0) return false;
        *out = nb_floordiv(a, b);
        return true;
    case NB_DIM_CEILDIV:
        if (b <= 0) return false;
        *out = nb_ceildiv(a, b);
        return true;
    case NB_DIM_MIN:
        *out = nb_min_i64(a, b);
        return true;
    case NB_DIM_MAX:
        *out = nb_max_i64(a, b);
        return true;
    case NB_DIM_CONST:
    case NB_DIM_SYMBOL:
        break;
    }
    return false;
}

static int64_t saturating_add(int64_t a, int64_t b) {
    int64_t r;
    if (nb_add_i64(a, b, &r)) return r;
    return a > 0 ? INT64_MAX : INT64_MIN;
}

static int64_t saturating_mul(int64_t a, int64_t b) {
    int64_t r;
    if (nb_mul_i64(a, b, &r)) return r;
    return (a > 0) == (b > 0) ? INT64_MAX : INT64_MIN;
}

void nb_dim_range(const nb_dim *d, int64_t *min, int64_t *max) {
    if (d->kind == NB_DIM_CONST) {
        *min = *max = d->value;
        return;
    }
    if (d->kind == NB_DIM_SYMBOL) {
        *min = d->symbol->min;
        *max = d->symbol->max;
        return;
    }
    int64_t al, ah, bl, bh;
    nb_dim_range(d->a, &al, &ah);
    nb_dim_range(d->b, &bl, &bh);
    switch (d->kind) {
    case NB_DIM_ADD:
        *min = saturating_add(al, bl);
        *max = saturating_add(ah, bh);
        return;
    case NB_DIM_MUL: {
        int64_t c[4] = {saturating_mul(al, bl), saturating_mul(al, bh), saturating_mul(ah, bl),
                        saturating_mul(ah, bh)};
        *min = nb_min_i64(nb_min_i64(c[0], c[1]), nb_min_i64(c[2], c[3]));
        *max = nb_max_i64(nb_max_i64(c[0], c[1]), nb_max_i64(c[2], c[3]));
        return;
    }
    case NB_DIM_FLOORDIV:
    case NB_DIM_CEILDIV:
        /* The largest magnitude comes from the smallest divisor, which is at least 1. */
        *min = al < 0 ? al : 0;
        *max = ah > 0 ? ah : 0;
        if (bl > 0 && bl == bh) {
            *min = d->kind == NB_DIM_FLOORDIV ? nb_floordiv(al, bl) : nb_ceildiv(al, bl);
            *max = d->kind == NB_DIM_FLOORDIV ? nb_floordiv(ah, bl) : nb_ceildiv(ah, bl);
        }
        return;
    case NB_DIM_MIN:
        *min = nb_min_i64(al, bl);
        *max = nb_min_i64(ah, bh);
        return;
    case NB_DIM_MAX:
        *min = nb_max_i64(al, bl);
        *max = nb_max_i64(ah, bh);
        return;
    case NB_DIM_CONST:
    case NB_DIM_SYMBOL:
        break;
    }
}

const nb_dim *nb_dim_substitute(nb_graph *g, const nb_dim *d, const nb_symbol *symbol,
                                const nb_dim *by) {
    if (d->kind == NB_DIM_CONST) return d;
    if (d->kind == NB_DIM_SYMBOL) return d->symbol == symbol ? by : d;
    const nb_dim *a = nb_dim_substitute(g, d->a, symbol, by),
                 *b = nb_dim_substitute(g, d->b, symbol, by);
    if (a == d->a && b == d->b) return d;
    switch (d->kind) {
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
    return d;
}

/* ---- text ---------------------------------------------------------------------------------- */

static bool plain_name(const char *s) {
    static const char first[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";
    static const char rest[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789.";
    return *s && strchr(first, *s) && strspn(s, rest) == strlen(s);
}

static const char *symbol_text(nb_arena *arena, const char *name) {
    if (plain_name(name)) return name;
    const char *text = "`";
    for (const unsigned char *c = (const unsigned char *)name; *c; c++) {
        bool odd = *c < 0x20 || *c >= 0x7f || *c == '`' || *c == '\\';
        text = nb_format(arena, odd ? "%s\\x%02x" : "%s%c", text, *c);
    }
    return nb_format(arena, "%s`", text);
}

const char *nb_dim_text(nb_arena *arena, const nb_dim *d) {
    static const char *const call[] = {[NB_DIM_FLOORDIV] = "floordiv",
                                       [NB_DIM_CEILDIV] = "ceildiv",
                                       [NB_DIM_MIN] = "min",
                                       [NB_DIM_MAX] = "max"};
    switch (d->kind) {
    case NB_DIM_CONST:
        return nb_format(arena, "%lld", (long long)d->value);
    case NB_DIM_SYMBOL:
        return symbol_text(arena, d->symbol->name);
    case NB_DIM_ADD: {
        const char *a = nb_dim_text(arena, d->a), *b = nb_dim_text(arena, d->b);
        return nb_format(arena, *b == '-' ? "%s%s" : "%s+%s", a, b);
    }
    case NB_DIM_MUL: {
        const char *a = nb_dim_text(arena, d->a), *b = nb_dim_text(arena, d->b);
        bool sum_a = d->a->kind == NB_DIM_ADD, sum_b = d->b->kind == NB_DIM_ADD;
        return nb_format(arena, "%s%s%s*%s%s%s", sum_a ? "(" : "", a, sum_a ? ")" : "",
                         sum_b ? "(" : "", b, sum_b ? ")" : "");
    }
    case NB_DIM_FLOORDIV:
    case NB_DIM_CEILDIV:
    case NB_DIM_MIN:
    case NB_DIM_MAX:
        break;
    }
    return nb_format(arena, "%s(%s,%s)", call[d->kind], nb_dim_text(arena, d->a),
                     nb_dim_text(arena, d->b));
}
