/* What is asked of dimension expressions: values, bounds, substitution, text. */
#include "ir/interner.h"

#include <stdio.h>
#include <string.h>

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

/* ---- bounds -------------------------------------------------------------------------------- */

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

static int64_t quotient(nb_dim_kind kind, int64_t a, int64_t b) {
    return kind == NB_DIM_FLOORDIV ? nb_floordiv(a, b) : nb_ceildiv(a, b);
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
    *min = INT64_MIN;
    *max = INT64_MAX;
    if (nb_dim_is_invalid(d)) return;
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
        bl = nb_max_i64(bl, 1); /* with less there is no value */
        if (bh < bl) return;
        *min = nb_min_i64(quotient(d->kind, al, bl), quotient(d->kind, al, bh));
        *max = nb_max_i64(quotient(d->kind, ah, bl), quotient(d->kind, ah, bh));
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

/* ---- what data tell --------------------------------------------------------------------- */

bool nb_dim_is_counted(const nb_dim *d, const bool *but) {
    if (d->kind == NB_DIM_CONST) return false;
    if (d->kind == NB_DIM_SYMBOL) return d->symbol->counted && !(but && but[d->symbol->index]);
    return nb_dim_is_counted(d->a, but) || nb_dim_is_counted(d->b, but);
}

static bool is_negative(const nb_dim *d) {
    int64_t low, high;
    nb_dim_range(d, &low, &high);
    return low < 0;
}

bool nb_dim_rises(const nb_dim *d) {
    if (d->kind == NB_DIM_SYMBOL || !nb_dim_is_counted(d, NULL)) return true;
    if (!nb_dim_rises(d->a)) return false;
    switch (d->kind) {
    case NB_DIM_MUL:
        return nb_dim_rises(d->b) && !is_negative(d->a) && !is_negative(d->b);
    case NB_DIM_FLOORDIV:
    case NB_DIM_CEILDIV:
        return !nb_dim_is_counted(d->b, NULL);
    default: /* sums, the smaller, the larger */
        return nb_dim_rises(d->b);
    }
}

/* ---- substitution -------------------------------------------------------------------------- */

/* `force`: what did not change is made anew too. */
static const nb_dim *remake(nb_graph *g, const nb_dim *d, const nb_symbol *symbol, const nb_dim *by,
                            bool force) {
    if (d->kind == NB_DIM_CONST) return d;
    if (d->kind == NB_DIM_SYMBOL) return d->symbol == symbol ? by : d;
    const nb_dim *a = remake(g, d->a, symbol, by, force), *b = remake(g, d->b, symbol, by, force);
    return a == d->a && b == d->b && !force ? d : nb_dim_binary(g, d->kind, a, b);
}

const nb_dim *nb_dim_substitute(nb_graph *g, const nb_dim *d, const nb_symbol *symbol,
                                const nb_dim *by) {
    return remake(g, d, symbol, by, false);
}

const nb_dim *nb_dim_renew(nb_graph *g, const nb_dim *d) { return remake(g, d, NULL, NULL, true); }

/* ---- text ---------------------------------------------------------------------------------- */

static bool plain_name(const char *s) {
    static const char first[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";
    static const char rest[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789.";
    return *s && strchr(first, *s) && strspn(s, rest) == strlen(s);
}

static const char *symbol_text(nb_arena *arena, const char *name) {
    if (plain_name(name)) return name;
    char *text = nb_alloc(arena, 4 * strlen(name) + 3), *to = text;
    *to++ = '`';
    for (const unsigned char *c = (const unsigned char *)name; *c; c++) {
        bool odd = *c < 0x20 || *c >= 0x7f || *c == '`' || *c == '\\';
        to += snprintf(to, 5, odd ? "\\x%02x" : "%c", *c);
    }
    *to = '`';
    return text;
}

const char *nb_dim_text(nb_arena *arena, const nb_dim *d) {
    static const char *const call[] = {[NB_DIM_FLOORDIV] = "floordiv",
                                       [NB_DIM_CEILDIV] = "ceildiv",
                                       [NB_DIM_MIN] = "min",
                                       [NB_DIM_MAX] = "max"};
    if (d->kind == NB_DIM_CONST) return nb_format(arena, "%lld", (long long)d->value);
    if (d->kind == NB_DIM_SYMBOL) return symbol_text(arena, d->symbol->name);
    if (nb_dim_is_invalid(d)) return "(invalid)";
    const char *a = nb_dim_text(arena, d->a), *b = nb_dim_text(arena, d->b);
    if (d->kind == NB_DIM_ADD) return nb_format(arena, *b == '-' ? "%s%s" : "%s+%s", a, b);
    if (d->kind == NB_DIM_MUL) return nb_format(arena, "%s*%s", a, b);
    return nb_format(arena, "%s(%s,%s)", call[d->kind], a, b);
}
