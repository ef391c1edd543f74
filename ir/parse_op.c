/* Parsing operations: `%y: f32[B,4] = layer_norm %x, @g, bias=@b {eps=1e-05} at "/ln"`.
 *
 * The op is made without the builder, whose errors are about callers. The shape rule computes the
 * result types from operands and attributes, and what the text says must be the same. */
#include "ir/text_parse.h"

#include "ir/build.h"
#include "ir/verify.h"

typedef struct statement {
    size_t first, n_results; /* p->results[first ..] */
    nb_token op;
    nb_op_kind kind;
    const nb_op_info *info;
    nb_value *fixed[NB_MAX_OPERAND_SPECS]; /* by place in the table */
    NB_VEC(nb_value *) rest;               /* of the VAR operand */
    nb_attr attrs[NB_MAX_ATTRS];
    NB_VEC(nb_region *) regions;
    const nb_loc *loc;
    bool poisoned; /* an operand's own line was wrong: its type is not known */
} statement;

/* ---- operands -------------------------------------------------------------------------------- */

/* A value's name at the current token. */
static nb_parsed_result *result_of(const nb_parser *p, const statement *s, size_t i) {
    return &p->results.items[s->first + i];
}

static nb_value *want_value(nb_parser *p, statement *s) {
    nb_token t = p->lex.token;
    nb_value *v = NULL;
    if (t.kind == NB_TOKEN_CONST) {
        v = nb_find_const(p, &t);
    } else if (t.kind == NB_TOKEN_VALUE) {
        v = nb_known_value(p, &t, false);
        if (!v && p->header_failed) v = &p->poison;
        if (!v) {
            nb_parse_error(p, &t, "'%%%s' is not defined", nb_token_name(p, &t));
            if (nb_known_value(p, &t, true))
                nb_help(p->diags, "there is a constant '@%s'", nb_token_name(p, &t));
        }
    } else {
        nb_parse_expected(p, "%value or @constant");
    }
    if (!v) return NULL;
    /* Where the op that makes it is wrong, it is of no body. */
    const nb_region *home = nb_region_of(v);
    if (home && home != p->region) {
        nb_parse_error(p, &t, "'%%%s' is not of this body", nb_token_name(p, &t));
        nb_help(p->diags, "what is outside comes in as an operand and a parameter");
        return NULL;
    }
    if (v == &p->poison) s->poisoned = true;
    nb_lex(&p->lex);
    return v;
}

static size_t count_mode(const nb_op_info *info, nb_operand_mode mode) {
    size_t n = 0;
    for (size_t i = 0; i < NB_MAX_OPERAND_SPECS && info->operands[i].mode; i++)
        n += info->operands[i].mode == mode;
    return n;
}

/* name=value; the current token is the name. */
static bool named_operand(nb_parser *p, statement *s) {
    nb_token t = p->lex.token;
    size_t i = 0;
    while (i < NB_MAX_OPERAND_SPECS && s->info->operands[i].mode != NB_OPERAND_END &&
           !(s->info->operands[i].mode == NB_OPERAND_OPT &&
             nb_token_is(&t, s->info->operands[i].name)))
        i++;
    if (i == NB_MAX_OPERAND_SPECS || s->info->operands[i].mode == NB_OPERAND_END)
        return nb_parse_error(p, &t, "%s has no optional operand '%s'", s->info->name,
                              nb_token_name(p, &t));
    if (s->fixed[i])
        return nb_parse_error(p, &t, "operand '%s' is given twice", nb_token_name(p, &t));
    nb_lex(&p->lex);
    if (!nb_want_punct(p, '=')) return false;
    s->fixed[i] = want_value(p, s);
    return s->fixed[i] != NULL;
}

static bool ends_operands(const nb_lexer *l) {
    nb_token_kind k = l->token.kind;
    return k == NB_TOKEN_NEWLINE || k == NB_TOKEN_END || nb_at_punct(l, '{') ||
           nb_at_word(l, "at") || nb_at_word(l, "via") || nb_at_word(l, "in") ||
           nb_at_word(l, "do");
}

static bool want_operands(nb_parser *p, statement *s) {
    size_t required = count_mode(s->info, NB_OPERAND_IN), n = 0;
    bool any = count_mode(s->info, NB_OPERAND_VAR) > 0, named = false;
    for (bool first = true; first ? !ends_operands(&p->lex) : nb_at_punct(&p->lex, ',');
         first = false) {
        if (!first) nb_lex(&p->lex);
        if (p->lex.token.kind == NB_TOKEN_WORD) {
            named = true;
            if (!named_operand(p, s)) return false;
            continue;
        }
        nb_token t = p->lex.token;
        nb_value *v = want_value(p, s);
        if (!v) return false;
        if (named && !any) return nb_parse_error(p, &t, "operands with names stand last");
        if (n < required)
            s->fixed[n++] = v;
        else if (any)
            nb_vec_push(p->scratch, &s->rest, v);
        else
            return nb_parse_error(p, &t, "%s takes %zu operand%s%s", s->info->name, required,
                                  required == 1 ? "" : "s",
                                  count_mode(s->info, NB_OPERAND_OPT) ? "; optional ones have names"
                                                                      : "");
    }
    if (n < required)
        return nb_parse_error(p, &s->op, "%s lacks operand '%s'", s->info->name,
                              s->info->operands[n].name);
    return true;
}

/* ---- attributes ------------------------------------------------------------------------------ */

static bool want_float(nb_parser *p, float *out) {
    bool integer, minus = nb_accept_punct(p, '-');
    nb_token t = p->lex.token;
    uint64_t bits;
    if (t.kind == NB_TOKEN_NUMBER && t.length == 1 && *t.begin == '0' && !minus) {
        /* 0x...: the lexer of names splits it */
        const char *after = t.begin + 1;
        if (after < p->lex.end && *after == 'x') {
            p->lex.at = t.begin;
            nb_lex_element(&p->lex);
            t = p->lex.token;
        }
    } else if (t.kind == NB_TOKEN_NUMBER && !nb_number_form(t.begin, t.length, &integer)) {
        return nb_parse_expected(p, "a number");
    }
    if (t.kind != NB_TOKEN_NUMBER && !nb_at_word(&p->lex, "inf") && !nb_at_word(&p->lex, "nan"))
        return nb_parse_expected(p, "a number");
    t.kind = NB_TOKEN_NUMBER;
    if (!nb_want_element(p, NB_F32, &t, &bits)) return false;
    uint32_t low = (uint32_t)bits;
    memcpy(out, &low, sizeof low);
    if (minus) *out = -*out;
    nb_lex(&p->lex);
    return true;
}

static bool want_ints(nb_parser *p, nb_attr *a) {
    NB_VEC(int64_t) list = {0};
    if (!nb_want_punct(p, '[')) return false;
    while (!nb_at_punct(&p->lex, ']')) {
        int64_t i;
        if (list.count && !nb_want_punct(p, ',')) return false;
        if (!nb_want_int(p, INT64_MIN, INT64_MAX, &i)) return false;
        nb_vec_push(p->g->arena, &list, i);
    }
    nb_lex(&p->lex);
    a->ints.items = list.items;
    a->ints.count = list.count;
    return true;
}

static bool want_elem(nb_parser *p, nb_attr *a) {
    nb_token t = p->lex.token;
    a->elem = t.kind == NB_TOKEN_WORD ? nb_elem_from_text(t.text, t.size) : NB_ELEM_COUNT;
    if (a->elem == NB_ELEM_COUNT) return nb_parse_expected(p, "an element type");
    nb_lex(&p->lex);
    return true;
}

static bool want_quant(nb_parser *p, nb_attr *a) {
    nb_token t = p->lex.token;
    if (t.kind != NB_TOKEN_QUANT) return nb_parse_expected(p, "#quantization");
    const nb_pending_quant *q = nb_map_get_str(&p->quants, t.text, t.size);
    if (!q)
        return nb_parse_error(p, &t, "quantization '#%s' is not declared", nb_token_name(p, &t));
    nb_lex(&p->lex);
    a->quant = q->quant;
    return q->quant != NULL; /* its own line has the error */
}

static bool want_attr_value(nb_parser *p, nb_attr_kind kind, nb_attr *a) {
    switch (kind) {
    case NB_ATTR_INT:
        return nb_want_int(p, INT64_MIN, INT64_MAX, &a->i);
    case NB_ATTR_FLOAT:
        return want_float(p, &a->f);
    case NB_ATTR_INTS:
        return want_ints(p, a);
    case NB_ATTR_DIMS:
        return nb_want_dim_list(p, &a->dims.items, &a->dims.count);
    case NB_ATTR_ELEM:
        return want_elem(p, a);
    case NB_ATTR_QUANT:
        return want_quant(p, a);
    case NB_ATTR_STR:
        if (p->lex.token.kind != NB_TOKEN_STRING) return nb_parse_expected(p, "a string");
        a->str = nb_strndup(p->g->arena, p->lex.token.text, p->lex.token.size);
        nb_lex(&p->lex);
        return true;
    case NB_ATTR_BOOL:
    case NB_ATTR_END:
        break;
    }
    return true;
}

/* {name=value, flag}; the current token is the brace. */
static bool want_attrs(nb_parser *p, statement *s) {
    do {
        nb_lex(&p->lex);
        nb_token t = p->lex.token;
        const char *names[NB_MAX_ATTRS];
        size_t n = 0, i = 0;
        while (n < NB_MAX_ATTRS && s->info->attrs[n].kind != NB_ATTR_END) {
            names[n] = s->info->attrs[n].name;
            n++;
        }
        if (t.kind != NB_TOKEN_WORD) return nb_parse_expected(p, "an attribute's name");
        while (i < n && !nb_token_is(&t, names[i])) i++;
        if (i == n) {
            nb_parse_error(p, &t, "%s has no attribute '%s'", s->info->name, nb_token_name(p, &t));
            nb_suggest(p, &t, names, n);
            return false;
        }
        if (s->attrs[i].set)
            return nb_parse_error(p, &t, "attribute '%s' is given twice", names[i]);
        s->attrs[i].set = true;
        nb_lex(&p->lex);
        if (s->info->attrs[i].kind == NB_ATTR_BOOL)
            s->attrs[i].b = true;
        else if (!nb_want_punct(p, '=') ||
                 !want_attr_value(p, s->info->attrs[i].kind, &s->attrs[i]))
            return false;
    } while (nb_at_punct(&p->lex, ','));
    return nb_want_punct(p, '}');
}

/* ---- the op ---------------------------------------------------------------------------------- */

bool nb_want_result(nb_parser *p, size_t first) {
    nb_token t = p->lex.token;
    if (p->results.count - first == NB_MAX_RESULTS)
        return nb_parse_error(p, &t, "too many results");
    bool twice = nb_known_value(p, &t, false) != NULL;
    for (size_t i = 0; i < p->results.count; i++) {
        const nb_token *name = &p->results.items[i].name;
        twice = twice || (name->size == t.size && memcmp(name->text, t.text, t.size) == 0);
    }
    if (twice) return nb_parse_error(p, &t, "'%%%s' is defined twice", nb_token_name(p, &t));
    nb_lex(&p->lex);
    nb_vec_push(p->scratch, &p->results, (nb_parsed_result){.name = t});
    if (!nb_want_punct(p, ':')) return false;
    nb_parsed_result *r = &p->results.items[p->results.count - 1];
    r->type_at = p->lex.token;
    r->type = nb_want_type(p);
    return r->type != NULL;
}

static bool want_results(nb_parser *p, statement *s) {
    while (p->lex.token.kind == NB_TOKEN_VALUE) {
        const bool ok = nb_want_result(p, s->first);
        s->n_results = p->results.count - s->first;
        if (!ok) return false;
        if (!nb_accept_punct(p, ',')) return nb_want_punct(p, '=');
    }
    return s->n_results ? nb_parse_expected(p, "%name") : true;
}

static bool want_kind(nb_parser *p, statement *s) {
    nb_token t = s->op = p->lex.token;
    if (t.kind != NB_TOKEN_WORD) return nb_parse_expected(p, "an operation");
    uintptr_t kind = (uintptr_t)nb_map_get_str(&p->op_kinds, t.text, t.size);
    if (!kind) {
        const char *names[NB_OP_COUNT];
        for (int k = 0; k < NB_OP_COUNT; k++) names[k] = nb_ops[k].name;
        nb_parse_error(p, &t, "there is no operation '%s'", nb_token_name(p, &t));
        nb_suggest(p, &t, names, NB_OP_COUNT);
        return false;
    }
    s->kind = (nb_op_kind)(kind - 1);
    s->info = &nb_ops[s->kind];
    if (s->info->results != NB_RESULTS_ANY && (int)s->n_results != s->info->results)
        return nb_parse_error(p, s->n_results ? &result_of(p, s, 0)->name : &t,
                              "%s has %d result%s, not %zu", s->info->name, s->info->results,
                              s->info->results == 1 ? "" : "s", s->n_results);
    if (!nb_legal_in(s->kind, p->g->stage))
        return nb_parse_error(p, &t, "%s is not legal in stage %s", s->info->name,
                              nb_stage_names[p->g->stage]);
    if (p->n_ops == NB_TEXT_MAX_OPS)
        return nb_parse_limit(p, &t, "more than %u operations", NB_TEXT_MAX_OPS);
    p->n_ops++;
    nb_lex(&p->lex);
    return true;
}

static bool read_statement(nb_parser *p, statement *s) {
    if (!want_results(p, s) || !want_kind(p, s) || !want_operands(p, s)) return false;
    if (nb_at_punct(&p->lex, '{') && !want_attrs(p, s)) return false;
    while (nb_at_word(&p->lex, "do")) {
        nb_region *region;
        bool whole;
        nb_lex(&p->lex);
        if (!nb_want_region(p, &region, &whole)) return false;
        if (!whole) s->poisoned = true;
        nb_vec_push(p->scratch, &s->regions, region);
    }
    nb_token at = p->lex.token;
    if (!nb_want_loc(p, &s->loc)) return false;
    nb_storage places[NB_MAX_RESULTS];
    if (s->n_results && !nb_want_storage(p, places, s->n_results)) return false;
    for (size_t i = 0; i < s->n_results; i++) result_of(p, s, i)->storage = places[i];
    if (!nb_want_end(p)) return false;
    for (size_t i = 0; i < s->n_results; i++)
        if (p->g->stage == NB_STAGE_PLANNED && places[i].kind == NB_STORE_NONE)
            return nb_parse_error(p, &at, "'%%%s' has no storage, which stage planned asks for",
                                  nb_token_name(p, &result_of(p, s, i)->name));
    return true;
}

static nb_op *make_op(nb_parser *p, const statement *s) {
    nb_value *operands[NB_MAX_OPERAND_SPECS];
    size_t n = 0;
    for (size_t i = 0; i < NB_MAX_OPERAND_SPECS; i++) {
        nb_operand_mode mode = s->info->operands[i].mode;
        if (mode == NB_OPERAND_END || mode == NB_OPERAND_VAR) break;
        operands[n++] = s->fixed[i];
    }
    nb_op *op = nb_op_create(p->g, s->kind, (uint32_t)(n + s->rest.count));
    for (size_t i = 0; i < n; i++) nb_set_operand(&op->operands[i], operands[i]);
    for (size_t i = 0; i < s->rest.count; i++)
        nb_set_operand(&op->operands[n + i], s->rest.items[i]);
    memcpy(op->attrs, s->attrs, sizeof op->attrs);
    op->loc = s->loc;
    op->parent = p->region;
    op->n_regions = (uint32_t)s->regions.count;
    if (!op->n_regions) return op;
    op->regions = (nb_region **)nb_alloc_array(p->g->arena, s->regions.count, sizeof *op->regions);
    for (size_t i = 0; i < s->regions.count; i++) {
        op->regions[i] = s->regions.items[i];
        op->regions[i]->parent = op;
        nb_region_close(op->regions[i]);
    }
    return op;
}

static bool check_types(nb_parser *p, const statement *s, const nb_op *op) {
    const nb_type *types[NB_MAX_RESULTS];
    if (nb_infer(p->g, op, types, p->trial) != NB_OK) return nb_parse_trial(p, &s->op);
    if (nb_result_count(op) != s->n_results)
        return nb_parse_error(p, &s->op, "%zu results are named, %s returns %u", s->n_results,
                              s->info->name, nb_result_count(op));
    for (size_t i = 0; i < s->n_results; i++) {
        const nb_parsed_result *r = result_of(p, s, i);
        if (types[i] != r->type)
            return nb_parse_error(p, &r->type_at, "the type says %s, the operands give %s",
                                  nb_type_text(p->scratch, r->type),
                                  nb_type_text(p->scratch, types[i]));
    }
    return true;
}

bool nb_parse_op(nb_parser *p) {
    statement s;
    memset(&s, 0, sizeof s);
    s.first = p->results.count;
    bool ok = read_statement(p, &s);
    nb_op *op = ok && !s.poisoned ? make_op(p, &s) : NULL;
    if (op && !check_types(p, &s, op)) ok = false;
    if (op) {
        op->n_results = (uint32_t)s.n_results;
        op->results = (nb_value **)nb_alloc_array(p->g->arena, s.n_results, sizeof(nb_value *));
    }
    /* Results are known from here on, if only by their type. */
    for (size_t i = 0; i < s.n_results; i++) {
        const nb_parsed_result *r = result_of(p, &s, i);
        if (!r->type) {
            nb_poison_name(p, &r->name, false);
            continue;
        }
        nb_value *v = nb_value_create_named(p->g, r->name.text, r->name.size, r->type, false);
        if (!op) continue;
        v->def = op;
        v->index = (uint32_t)i;
        v->storage = r->storage;
        op->results[i] = v;
    }
    p->results.count = s.first;
    if (op) nb_op_insert(op, p->region, NULL);
    return ok;
}
