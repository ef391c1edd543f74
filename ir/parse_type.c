/* Parsing types and dimension expressions.
 *
 * A graph repeats a few types in many places, so each spelling is read once and then found in a
 * map. Expressions are read with a stack of operators instead of recursion. An expression must have
 * a normal form whose text reads back as itself; one whose coefficients overflow, or with too many
 * terms, has none and is refused. */
#include "ir/text_parse.h"

/* ---- expressions ----------------------------------------------------------------------------- */

typedef struct open_bracket {
    nb_dim_kind call; /* NB_DIM_CONST: plain brackets */
    bool second;      /* behind the comma of a call */
} open_bracket;

/* Operators are '+', '-', '*' and '(' for a bracket; every operator but '(' has its left side on
 * the values already. */
typedef struct expression {
    char operators[4 * NB_TEXT_MAX_NEST];
    const nb_dim *values[4 * NB_TEXT_MAX_NEST];
    open_bracket brackets[NB_TEXT_MAX_NEST];
    size_t n_operators, n_values, n_brackets;
} expression;

static const nb_dim *call(nb_graph *g, nb_dim_kind kind, const nb_dim *a, const nb_dim *b) {
    switch (kind) {
    case NB_DIM_FLOORDIV:
        return nb_dim_floordiv(g, a, b);
    case NB_DIM_CEILDIV:
        return nb_dim_ceildiv(g, a, b);
    case NB_DIM_MIN:
        return nb_dim_min(g, a, b);
    default:
        return nb_dim_max(g, a, b);
    }
}

/* Applies operators of at least this precedence, up to the last bracket. */
static void reduce(nb_parser *p, expression *x, int precedence) {
    while (x->n_operators) {
        char op = x->operators[x->n_operators - 1];
        if (op == '(' || (op == '*' ? 2 : 1) < precedence) return;
        x->n_operators--;
        const nb_dim *b = x->values[--x->n_values], **a = &x->values[x->n_values - 1];
        *a = op == '+'   ? nb_dim_add(p->g, *a, b)
             : op == '-' ? nb_dim_sub(p->g, *a, b)
                         : nb_dim_mul(p->g, *a, b);
    }
}

static bool push_operator(nb_parser *p, expression *x, char op) {
    if (x->n_operators == NB_COUNT(x->operators))
        return nb_parse_limit(p, &p->lex.token, "this expression nests too deeply");
    x->operators[x->n_operators++] = op;
    return true;
}

static bool open(nb_parser *p, expression *x, nb_dim_kind kind) {
    if (x->n_brackets == NB_COUNT(x->brackets))
        return nb_parse_limit(p, &p->lex.token, "this expression nests too deeply");
    x->brackets[x->n_brackets++] = (open_bracket){.call = kind};
    return push_operator(p, x, '(');
}

static const nb_dim *find_symbol(nb_parser *p, const nb_token *t) {
    const nb_symbol *known = nb_map_get_str(&p->g->interner->symbols, t->text, t->size);
    if (known) return nb_dim_symbol(p->g, known);
    if (p->any_symbol)
        return nb_dim_symbol(p->g, nb_graph_symbol(p->g, nb_token_name(p, t), false));
    nb_parse_error(p, t, "symbol '%s' stands in no input's type and not behind `where`",
                   nb_token_name(p, t));
    return NULL;
}

static nb_dim_kind call_kind(const nb_token *t) {
    return nb_token_is(t, "floordiv")  ? NB_DIM_FLOORDIV
           : nb_token_is(t, "ceildiv") ? NB_DIM_CEILDIV
           : nb_token_is(t, "min")     ? NB_DIM_MIN
           : nb_token_is(t, "max")     ? NB_DIM_MAX
                                       : NB_DIM_CONST;
}

/* An operand, with the brackets and calls that open in front of it. */
static bool read_operand(nb_parser *p, expression *x) {
    for (;;) {
        nb_token t = p->lex.token;
        bool minus = nb_accept_punct(p, '-');
        if (minus) t = p->lex.token;
        const nb_dim *d = NULL;
        if (t.kind == NB_TOKEN_NUMBER) {
            int64_t value;
            /* The sign belongs to the digits: the smallest number has no positive. */
            const char *from = minus ? t.begin - 1 : t.begin;
            if (!nb_digits(from, t.length + (minus ? 1 : 0), &value))
                return nb_parse_error(p, &t, "a dimension is an integer of 64 bits");
            d = nb_dim_const(p->g, value);
            nb_lex(&p->lex);
        } else if (minus) {
            return nb_parse_expected(p, "a number behind '-'");
        } else if (nb_accept_punct(p, '(')) {
            if (!open(p, x, NB_DIM_CONST)) return false;
            continue;
        } else if (t.kind == NB_TOKEN_WORD || t.kind == NB_TOKEN_SYMBOL) {
            nb_lex(&p->lex);
            nb_dim_kind kind = t.kind == NB_TOKEN_WORD ? call_kind(&t) : NB_DIM_CONST;
            if (kind != NB_DIM_CONST && nb_accept_punct(p, '(')) {
                if (!open(p, x, kind)) return false;
                continue;
            }
            d = find_symbol(p, &t);
            if (!d) return false;
        } else {
            return nb_parse_expected(p, "a dimension");
        }
        if (x->n_values == NB_COUNT(x->values))
            return nb_parse_limit(p, &t, "this expression nests too deeply");
        x->values[x->n_values++] = d;
        return true;
    }
}

/* A closing bracket: its inside is the last value, or the last two. */
static bool close_bracket(nb_parser *p, expression *x) {
    reduce(p, x, 0);
    open_bracket b = x->brackets[--x->n_brackets];
    x->n_operators--;
    if (b.call == NB_DIM_CONST) return true;
    if (!b.second) return nb_parse_expected(p, "',' and a second argument");
    const nb_dim *right = x->values[--x->n_values], **left = &x->values[x->n_values - 1];
    if ((b.call == NB_DIM_FLOORDIV || b.call == NB_DIM_CEILDIV) && nb_dim_is_const(right) &&
        right->value < 1)
        return nb_parse_error(p, &p->lex.token, "the divisor is not positive");
    *left = call(p->g, b.call, *left, right);
    return true;
}

static const nb_dim *read_expression(nb_parser *p) {
    expression x;
    x.n_operators = x.n_values = x.n_brackets = 0;
    for (;;) {
        if (!read_operand(p, &x)) return NULL;
        for (;;) {
            open_bracket *b = x.n_brackets ? &x.brackets[x.n_brackets - 1] : NULL;
            if (b && nb_at_punct(&p->lex, ')')) {
                if (!close_bracket(p, &x)) return NULL;
                nb_lex(&p->lex);
                continue;
            }
            if (b && b->call != NB_DIM_CONST && !b->second && nb_accept_punct(p, ',')) {
                reduce(p, &x, 0);
                b->second = true;
                break;
            }
            bool product = nb_at_punct(&p->lex, '*');
            if (product || nb_at_punct(&p->lex, '+') || nb_at_punct(&p->lex, '-')) {
                char op = *p->lex.token.begin;
                reduce(p, &x, product ? 2 : 1);
                if (!push_operator(p, &x, op)) return NULL;
                nb_lex(&p->lex);
                break;
            }
            if (b) {
                nb_parse_expected(p, "')'");
                return NULL;
            }
            reduce(p, &x, 0);
            return x.values[0];
        }
    }
}

/* Does the text of `d` read back as `d`? */
static bool is_stable(nb_parser *p, const nb_dim *d) {
    nb_arena *arena = nb_arena_create_like(p->scratch);
    const char *text = nb_dim_text(arena, d);
    nb_lexer saved = p->lex;
    nb_diags *diags = p->diags;
    p->diags = nb_diags_create(arena, NULL);
    p->lex = nb_lexer_make(arena, text, strlen(text));
    nb_lex(&p->lex);
    const nb_dim *again = read_expression(p);
    p->lex = saved;
    p->diags = diags;
    nb_arena_destroy(arena);
    return again == d;
}

static const nb_dim *want_dim(nb_parser *p) {
    nb_token t = p->lex.token;
    const char *end = p->lex.end;
    const nb_dim *d = read_expression(p);
    if (!d || nb_dim_is_const(d) || d->kind == NB_DIM_SYMBOL) return d;
    if (t.line != p->lex.token.line && p->lex.token.kind != NB_TOKEN_NEWLINE) {
        nb_parse_error(p, &t, "an expression stands on one line");
        return NULL;
    }
    size_t length = (size_t)((p->lex.token.begin < end ? p->lex.token.begin : end) - t.begin);
    if (nb_map_get_str(&p->dims, t.begin, length)) return d;
    if (length > NB_TEXT_MAX_DIM || p->dims.count >= NB_TEXT_MAX_DIMS) {
        nb_parse_limit(p, &t, "%s",
                       length > NB_TEXT_MAX_DIM ? "this expression is too long"
                                                : "too many different dimension expressions");
        return NULL;
    }
    if (!is_stable(p, d)) {
        nb_parse_limit(p, &t, "this expression is too large for its normal form");
        return NULL;
    }
    nb_map_set_str(&p->dims, t.begin, length, (void *)(uintptr_t)d);
    return d;
}

/* ---- lists and types ------------------------------------------------------------------------- */

bool nb_want_dims(nb_parser *p, size_t max, const nb_dim **dims, size_t *count) {
    *count = 0;
    if (!nb_want_punct(p, '[')) return false;
    while (!nb_at_punct(&p->lex, ']')) {
        if (*count && !nb_want_punct(p, ',')) return false;
        if (*count == max) return nb_parse_limit(p, &p->lex.token, "more than %zu dimensions", max);
        const nb_dim *d = want_dim(p);
        if (!d) return false;
        dims[(*count)++] = d;
    }
    nb_lex(&p->lex);
    return true;
}

bool nb_want_dim_list(nb_parser *p, const nb_dim *const **items, size_t *count) {
    NB_VEC(const nb_dim *) list = {0};
    if (!nb_want_punct(p, '[')) return false;
    while (!nb_at_punct(&p->lex, ']')) {
        if (list.count && !nb_want_punct(p, ',')) return false;
        const nb_dim *d = want_dim(p);
        if (!d) return false;
        nb_vec_push(p->g->arena, &list, d);
    }
    nb_lex(&p->lex);
    *items = list.items;
    *count = list.count;
    return true;
}

static const nb_type *read_type(nb_parser *p) {
    nb_token t = p->lex.token;
    nb_elem elem = NB_ELEM_COUNT;
    nb_pending_quant *q = NULL;
    if (t.kind == NB_TOKEN_WORD) {
        elem = nb_elem_from_text(t.text, t.size);
        if (elem == NB_ELEM_COUNT) {
            const char *names[NB_ELEM_COUNT];
            for (int e = 0; e < NB_ELEM_COUNT; e++) names[e] = nb_elems[e].text;
            nb_parse_error(p, &t, "there is no element type '%s'", nb_token_name(p, &t));
            nb_suggest(p, &t, names, NB_ELEM_COUNT);
            return NULL;
        }
    } else if (t.kind == NB_TOKEN_QUANT) {
        q = nb_map_get_str(&p->quants, t.text, t.size);
        if (!q) {
            nb_parse_error(p, &t, "quantization '#%s' is not declared", nb_token_name(p, &t));
            return NULL;
        }
        elem = q->members.storage;
    } else {
        nb_parse_expected(p, "a type");
        return NULL;
    }
    if (q && p->declared && !q->quant) return NULL; /* its own line has the error */
    nb_lex(&p->lex);
    const nb_dim *dims[NB_MAX_RANK];
    size_t rank;
    if (!nb_want_dims(p, NB_MAX_RANK, dims, &rank)) return NULL;
    for (size_t i = 0; i < rank; i++) {
        if (!nb_dim_is_const(dims[i]) || dims[i]->value >= 0) continue;
        nb_parse_error(p, &t, "dimension %zu is negative", i);
        return NULL;
    }
    /* Before quantizations are resolved, only the storage is asked for. */
    return nb_type_intern(p->g, elem, q ? q->quant : NULL, (int)rank, dims);
}

/* The type that is spelled here, up to a bracket, if one was before; *length: of the spelling, 0
 * when it has no end that is near. */
static const nb_type *known_type(nb_parser *p, const char *from, size_t *length) {
    const size_t left = (size_t)(p->lex.end - from);
    *length = p->type_size;
    if (p->type_size && left >= p->type_size && memcmp(from, p->type_text, p->type_size) == 0)
        return p->type;
    const char *close = memchr(from, ']', left);
    *length = close ? (size_t)(close - from) + 1 : 0;
    if (*length > NB_TEXT_MAX_DIM) *length = 0;
    return *length ? nb_map_get_str(&p->types, from, *length) : NULL;
}

const nb_type *nb_want_type(nb_parser *p) {
    nb_token t = p->lex.token;
    const char *from = t.begin;
    size_t length;
    const nb_type *type = known_type(p, from, &length);
    if (type) {
        p->type = type;
        p->type_text = from;
        p->type_size = length;
        p->lex.at = from + length;
        nb_lex(&p->lex);
        return type;
    }
    type = read_type(p);
    /* Kept when the spelling ended at that bracket, on the same line. */
    bool whole = type && length && !memchr(from, '\n', length) && !memchr(from, '`', length) &&
                 !memchr(from, ';', length);
    bool storage_only = t.kind == NB_TOKEN_QUANT && !p->declared;
    if (whole && !storage_only) nb_map_set_str(&p->types, from, length, (void *)(uintptr_t)type);
    return type;
}

bool nb_skip_type(nb_parser *p) {
    if (p->lex.token.kind != NB_TOKEN_WORD && p->lex.token.kind != NB_TOKEN_QUANT)
        return nb_parse_expected(p, "a type");
    nb_lex(&p->lex);
    if (!nb_want_punct(p, '[')) return false;
    while (!nb_at_punct(&p->lex, ']')) {
        nb_token_kind k = p->lex.token.kind;
        if (k == NB_TOKEN_END || k == NB_TOKEN_BAD || nb_at_punct(&p->lex, '{'))
            return nb_parse_expected(p, "']'");
        nb_lex(&p->lex);
    }
    nb_lex(&p->lex);
    return true;
}

bool nb_want_symbol_range(nb_parser *p) {
    nb_token t = p->lex.token;
    int64_t min, max = INT64_MAX;
    if (t.kind != NB_TOKEN_WORD && t.kind != NB_TOKEN_SYMBOL)
        return nb_parse_expected(p, "a symbol");
    nb_lex(&p->lex);
    if (!nb_want_word(p, "in") || !nb_want_int(p, 0, INT64_MAX, &min)) return false;
    if (p->lex.token.kind != NB_TOKEN_DOTS) return nb_parse_expected(p, "'..'");
    nb_lex(&p->lex);
    nb_token at = p->lex.token;
    if (at.kind == NB_TOKEN_NUMBER && !nb_want_int(p, 0, INT64_MAX, &max)) return false;
    if (max < min)
        return nb_parse_error(p, &at, "the range %lld..%lld is empty", (long long)min,
                              (long long)max);
    if (nb_map_get_str(&p->g->interner->symbols, t.text, t.size))
        return nb_parse_error(p, &t, "symbol '%s' stands here twice", nb_token_name(p, &t));
    const nb_symbol *s = nb_graph_symbol(p->g, nb_token_name(p, &t), true);
    nb_symbol_narrow(p->g, s, min, max);
    if (nb_token_is(&p->lex.token, "counted")) {
        p->g->symbols.items[s->index]->counted = true;
        nb_lex(&p->lex);
    }
    return true;
}

/* ---- alone ----------------------------------------------------------------------------------- */

static nb_parser alone(nb_graph *g, const char *text, size_t length, nb_diags *diags) {
    nb_arena *scratch = nb_arena_create_like(g->arena);
    nb_parser p = {.g = g,
                   .scratch = scratch,
                   .diags = diags,
                   .name = diags->file,
                   .quants = {.arena = scratch},
                   .types = {.arena = scratch},
                   .dims = {.arena = scratch},
                   .lex = nb_lexer_make(scratch, text, length)};
    nb_lex(&p.lex);
    return p;
}

/* Was that all of the text? */
static bool ends(nb_parser *p, const char *what) {
    return p->lex.token.kind == NB_TOKEN_END || nb_parse_expected(p, what);
}

const nb_dim *nb_parse_dim(nb_graph *g, const char *text, size_t length, nb_diags *diags) {
    nb_parser p = alone(g, text, length, diags);
    const nb_dim *d = want_dim(&p);
    if (d && !ends(&p, "the end of the expression")) d = NULL;
    nb_arena_destroy(p.scratch);
    return d;
}

const nb_type *nb_parse_type(nb_graph *g, const char *text, size_t length, nb_diags *diags) {
    nb_parser p = alone(g, text, length, diags);
    const nb_type *type = read_type(&p);
    if (type && !ends(&p, "the end of the type")) type = NULL;
    nb_arena_destroy(p.scratch);
    return type;
}
