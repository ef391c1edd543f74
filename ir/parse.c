/* Parsing .nir text (grammar: README): the header, the declarations, and what ties them together.
 *
 * The text is read once, front to back. Types of inputs and outputs may name quantizations that
 * are declared later, so their places are remembered and read again after the declarations. */
#include "ir/text_parse.h"

#include "ir/verify.h"

/* ---- pieces ---------------------------------------------------------------------------------- */

bool nb_accept_punct(nb_parser *p, char c) {
    if (!nb_at_punct(&p->lex, c)) return false;
    nb_lex(&p->lex);
    return true;
}

bool nb_want_punct(nb_parser *p, char c) {
    char what[4] = {'\'', c, '\'', '\0'};
    return nb_accept_punct(p, c) || nb_parse_expected(p, what);
}

bool nb_want_word(nb_parser *p, const char *word) {
    if (!nb_at_word(&p->lex, word)) return nb_parse_expected(p, word);
    nb_lex(&p->lex);
    return true;
}

bool nb_digits(const char *text, size_t length, int64_t *out) {
    const char *s = text, *end = text + length;
    bool minus = s < end && *s == '-';
    if (minus) s++;
    if (s == end) return false;
    int64_t value = 0;
    for (; s < end; s++) {
        if (*s < '0' || *s > '9' || !nb_mul_i64(value, 10, &value)) return false;
        int64_t digit = *s - '0';
        if (!nb_add_i64(value, minus ? -digit : digit, &value)) return false;
    }
    *out = value;
    return true;
}

bool nb_want_int(nb_parser *p, int64_t min, int64_t max, int64_t *out) {
    bool minus = nb_accept_punct(p, '-');
    nb_token t = p->lex.token;
    if (t.kind != NB_TOKEN_NUMBER) return nb_parse_expected(p, "an integer");
    const char *from = minus ? t.begin - 1 : t.begin;
    for (size_t i = 0; i < t.length; i++)
        if (t.begin[i] < '0' || t.begin[i] > '9') return nb_parse_expected(p, "an integer");
    if (!nb_digits(from, t.length + (minus ? 1 : 0), out) || *out < min || *out > max)
        return nb_parse_error(p, &t, "%s%.*s is out of range %lld..%lld", minus ? "-" : "",
                              (int)nb_min_i64((int64_t)t.length, 40), t.begin, (long long)min,
                              (long long)max);
    nb_lex(&p->lex);
    return true;
}

bool nb_want_end(nb_parser *p) {
    nb_token_kind k = p->lex.token.kind;
    p->ended = k == NB_TOKEN_END || k == NB_TOKEN_NEWLINE;
    if (k == NB_TOKEN_END) return true;
    if (k != NB_TOKEN_NEWLINE) return nb_parse_expected(p, "the end of the line");
    nb_lex(&p->lex);
    return true;
}

nb_value *nb_known_value(nb_parser *p, const nb_token *t, bool constant) {
    nb_value *poison = nb_map_get_str(&p->poisoned[constant], t->text, t->size);
    return poison ? poison : nb_value_named(p->g, t->text, t->size, constant);
}

void nb_poison_name(nb_parser *p, const nb_token *t, bool constant) {
    nb_map_set_str(&p->poisoned[constant], t->text, t->size, &p->poison);
}

nb_value *nb_find_const(nb_parser *p, const nb_token *t) {
    nb_value *v = nb_known_value(p, t, true);
    if (v) return v;
    nb_parse_error(p, t, "constant '@%s' is not declared", nb_token_name(p, t));
    if (nb_known_value(p, t, false))
        nb_help(p->diags, "there is a value '%%%s'", nb_token_name(p, t));
    return NULL;
}

/* ---- the header ------------------------------------------------------------------------------ */

static bool want_typed_name(nb_parser *p, nb_token_kind kind, nb_typed_name *n) {
    n->name = p->lex.token;
    if (n->name.kind != kind && !(kind == NB_TOKEN_WORD && n->name.kind == NB_TOKEN_STRING))
        return nb_parse_expected(p, kind == NB_TOKEN_VALUE ? "%input" : "an output's name");
    nb_lex(&p->lex);
    if (!nb_want_punct(p, ':')) return false;
    n->type = p->lex;
    return nb_skip_type(p) && (kind != NB_TOKEN_VALUE || nb_want_storage(p, &n->storage, 1));
}

/* (%x: f32[B,4], %y: f32[B]) */
static bool want_inputs(nb_parser *p) {
    if (!nb_want_punct(p, '(')) return false;
    while (!nb_at_punct(&p->lex, ')')) {
        nb_typed_name n = {0};
        if (p->inputs.count && !nb_want_punct(p, ',')) return false;
        if (!want_typed_name(p, NB_TOKEN_VALUE, &n)) return false;
        if (nb_known_value(p, &n.name, false))
            return nb_parse_error(p, &n.name, "two inputs are named '%%%s'",
                                  nb_token_name(p, &n.name));
        nb_poison_name(p, &n.name, false);
        nb_vec_push(p->scratch, &p->inputs, n);
    }
    nb_lex(&p->lex);
    return true;
}

/* A type, or (name: type, ...). */
static bool want_outputs(nb_parser *p) {
    if (p->lex.token.kind != NB_TOKEN_ARROW) return nb_parse_expected(p, "'->'");
    nb_lex(&p->lex);
    if (!nb_at_punct(&p->lex, '(')) {
        nb_typed_name n = {.type = p->lex};
        if (!nb_skip_type(p)) return false;
        nb_vec_push(p->scratch, &p->outputs, n);
        return true;
    }
    nb_map seen = {.arena = p->scratch};
    nb_lex(&p->lex);
    while (!nb_at_punct(&p->lex, ')')) {
        nb_typed_name n = {0};
        if (p->outputs.count && !nb_want_punct(p, ',')) return false;
        if (!want_typed_name(p, NB_TOKEN_WORD, &n)) return false;
        if (nb_map_get_str(&seen, n.name.text, n.name.size))
            return nb_parse_error(p, &n.name, "two outputs are named '%s'",
                                  nb_token_name(p, &n.name));
        nb_map_set_str(&seen, n.name.text, n.name.size, p);
        nb_vec_push(p->scratch, &p->outputs, n);
    }
    nb_lex(&p->lex);
    return true;
}

/* graph @name(...) -> ... where ... { */
static bool want_header(nb_parser *p) {
    p->lex.multiline = true;
    if (!nb_want_word(p, "graph")) return false;
    if (p->lex.token.kind != NB_TOKEN_CONST) return nb_parse_expected(p, "@name");
    p->g->name = nb_strndup(p->g->arena, p->lex.token.text, p->lex.token.size);
    nb_lex(&p->lex);
    if (!want_inputs(p) || !want_outputs(p)) return false;
    if (nb_at_word(&p->lex, "where")) {
        do {
            nb_lex(&p->lex);
            if (!nb_want_symbol_range(p)) return false;
        } while (nb_at_punct(&p->lex, ','));
    }
    if (!nb_at_punct(&p->lex, '{')) return nb_parse_expected(p, "'{'");
    p->lex.multiline = false;
    nb_lex(&p->lex);
    return nb_want_end(p);
}

static bool want_version(nb_parser *p) {
    nb_token t = p->lex.token;
    while (p->lex.token.kind == NB_TOKEN_NEWLINE) nb_lex(&p->lex);
    int64_t version;
    if (!nb_want_word(p, "nir")) return false;
    t = p->lex.token;
    if (!nb_want_int(p, 0, INT64_MAX, &version)) return false;
    if (version != NB_TEXT_VERSION)
        return nb_parse_error(p, &t, "this is version %lld of the text form, this program reads %d",
                              (long long)version, NB_TEXT_VERSION);
    if (!nb_want_end(p)) return false;
    while (p->lex.token.kind == NB_TOKEN_NEWLINE) nb_lex(&p->lex);
    return true;
}

/* ---- declarations ---------------------------------------------------------------------------- */

static bool parse_stage(nb_parser *p) {
    nb_lex(&p->lex);
    for (int s = NB_STAGE_FLOAT; s <= NB_STAGE_PLANNED; s++) {
        if (!nb_at_word(&p->lex, nb_stage_names[s])) continue;
        p->g->stage = (nb_stage)s;
        nb_lex(&p->lex);
        return nb_want_end(p);
    }
    return nb_parse_expected(p, "float, qdq, fused or planned");
}

/* state past -> present axis 2 appended */
static bool parse_state(nb_parser *p) {
    nb_pending_state s = {.at = p->lex.token, .state.axis = -1};
    nb_lex(&p->lex);
    for (int i = 0; i < 2; i++) {
        nb_token t = p->lex.token;
        if (t.kind != NB_TOKEN_WORD && t.kind != NB_TOKEN_STRING)
            return nb_parse_expected(p, i ? "an output's name" : "an input's name");
        *(i ? &s.output : &s.input) = t;
        nb_lex(&p->lex);
        if (i == 0 && p->lex.token.kind != NB_TOKEN_ARROW) return nb_parse_expected(p, "'->'");
        if (i == 0) nb_lex(&p->lex);
    }
    if (nb_at_word(&p->lex, "axis")) {
        int64_t axis;
        nb_lex(&p->lex);
        if (!nb_want_int(p, 0, NB_MAX_RANK - 1, &axis)) return false;
        s.state.axis = (int)axis;
    }
    s.state.appended = nb_at_word(&p->lex, "appended");
    if (s.state.appended) nb_lex(&p->lex);
    if (!nb_want_end(p)) return false;
    nb_vec_push(p->scratch, &p->states, s);
    return true;
}

/* Reads a type at a remembered place. */
static const nb_type *type_at(nb_parser *p, const nb_lexer *place) {
    nb_lexer saved = p->lex;
    p->lex = *place;
    const nb_type *type = nb_want_type(p);
    p->lex = saved;
    return type;
}

/* All declarations are read: quantizations, then what may be typed with them. */
static void end_declarations(nb_parser *p) {
    if (p->declared) return;
    p->declared = true;
    nb_resolve_quants(p);
    p->any_symbol = true;
    for (size_t i = 0; i < p->inputs.count; i++) {
        nb_typed_name *n = &p->inputs.items[i];
        n->known = type_at(p, &n->type);
        if (!n->known) continue;
        nb_value *v = nb_value_create_named(p->g, n->name.text, n->name.size, n->known, false);
        nb_region_add_param(&p->g->body, v);
        v->storage = n->storage;
        nb_map_set_str(&p->poisoned[false], n->name.text, n->name.size, NULL);
    }
    p->any_symbol = false;
    for (size_t i = 0; i < p->outputs.count; i++)
        p->outputs.items[i].known = type_at(p, &p->outputs.items[i].type);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void check_outputs(nb_parser *p, const nb_token *ret) {
    const nb_op *op = p->g->body.last;
    nb_graph *g = p->g;
    if (op->n_operands != p->outputs.count) {
        nb_parse_error(p, ret, "%u values for %zu outputs", op->n_operands, p->outputs.count);
        return;
    }
    for (uint32_t i = 0; i < op->n_operands; i++) {
        const nb_typed_name *n = &p->outputs.items[i];
        const nb_value *v = nb_in(op, i);
        if (n->known && n->known != v->type)
            nb_parse_error(p, &n->type.token, "the type says %s, '%s' is %s",
                           nb_type_text(p->scratch, n->known), v->name,
                           nb_type_text(p->scratch, v->type));
        bool named = n->name.kind != NB_TOKEN_END;
        if (!named && nb_is_const(v))
            nb_parse_error(p, &n->type.token,
                           "an output that is a constant needs a name: (name: type)");
        const char *name = named ? nb_token_name(p, &n->name) : v->name;
        nb_vec_push(g->arena, &g->outputs, nb_strdup(g->arena, name));
        nb_map_set_str(&p->output_numbers, name, strlen(name), (void *)((uintptr_t)i + 1));
    }
}

static void check_state(nb_parser *p, nb_pending_state *s) {
    const nb_graph *g = p->g;
    const nb_value *input = nb_known_value(p, &s->input, false);
    uintptr_t number =
        (uintptr_t)nb_map_get_str(&p->output_numbers, s->output.text, s->output.size);
    bool known = input && input->region == &g->body;
    if (!known || !number) {
        const nb_token *t = known ? &s->output : &s->input;
        nb_parse_error(p, t, "there is no %s '%s'", known ? "output" : "input",
                       nb_token_name(p, t));
        return;
    }
    uint32_t out = (uint32_t)number - 1;
    const nb_type *a = input->type, *b = nb_in(g->body.last, out)->type;
    bool fits =
        a->elem == b->elem && a->quant == b->quant && a->rank == b->rank && s->state.axis < a->rank;
    for (int d = 0; fits && d < a->rank; d++) fits = d == s->state.axis || a->dims[d] == b->dims[d];
    if (!fits) {
        nb_parse_error(p, &s->at, "%s does not carry over to %s", nb_type_text(p->scratch, a),
                       nb_type_text(p->scratch, b));
        return;
    }
    s->state.input = input->index;
    s->state.output = out;
    nb_vec_push(p->g->arena, &p->g->states, s->state);
}

/* ---- statements ------------------------------------------------------------------------------ */

static bool parse_statement(nb_parser *p, nb_token *ret) {
    static const struct {
        const char *word;
        bool (*parse)(nb_parser *p);
    } declarations[] = {{"stage", parse_stage},
                        {"state", parse_state},
                        {"quant", nb_parse_quant},
                        {"const", nb_parse_const}};
    nb_token t = p->lex.token;
    for (size_t i = 0; i < NB_COUNT(declarations); i++) {
        if (!nb_at_word(&p->lex, declarations[i].word)) continue;
        if (p->declared) return nb_parse_error(p, &t, "declarations stand in front of operations");
        return declarations[i].parse(p);
    }
    if (t.kind != NB_TOKEN_VALUE && t.kind != NB_TOKEN_WORD)
        return nb_parse_expected(p, "a declaration, an operation or '}'");
    end_declarations(p);
    if (ret->kind != NB_TOKEN_END) return nb_parse_error(p, &t, "return stands last");
    if (nb_at_word(&p->lex, "return")) *ret = t;
    return nb_parse_op(p);
}

static void parse_body(nb_parser *p) {
    nb_token ret = {.kind = NB_TOKEN_END};
    while (!nb_at_punct(&p->lex, '}') && p->lex.token.kind != NB_TOKEN_END) {
        if (p->lex.token.kind == NB_TOKEN_NEWLINE)
            nb_lex(&p->lex);
        else if (p->ended = false, !parse_statement(p, &ret) && !p->ended)
            nb_lex_recover(&p->lex);
        if (p->diags->errors - p->errors_before >= NB_DIAGS_CAP) return;
    }
    end_declarations(p);
    nb_token close = p->lex.token;
    if (close.kind == NB_TOKEN_END) {
        /* A statement that the end cut off has said so. */
        if (p->diags->errors == p->errors_before) nb_parse_expected(p, "'}'");
        return;
    }
    if (ret.kind == NB_TOKEN_END) nb_parse_error(p, &close, "the graph has no return");
    p->lex.multiline = true;
    nb_lex(&p->lex);
    if (p->lex.token.kind != NB_TOKEN_END) nb_parse_expected(p, "the end of the text");
    const nb_op *last = p->g->body.last;
    if (!last || last->kind != NB_OP_return || p->header_failed) return;
    check_outputs(p, &ret);
    if (p->g->outputs.count != last->n_operands || p->inputs.count != p->g->body.n_params) return;
    for (size_t i = 0; i < p->states.count; i++) check_state(p, &p->states.items[i]);
}

static bool check_lines(nb_parser *p, const char *text, size_t length) {
    const char *from = text, *end = text + length;
    for (int line = 1; from < end; line++) {
        const char *newline = memchr(from, '\n', (size_t)(end - from));
        if ((size_t)((newline ? newline : end) - from) > NB_TEXT_MAX_LINE ||
            (unsigned)line > NB_TEXT_MAX_LINES) {
            nb_where where = {.offset = -1, .file = p->name, .line = line};
            nb_error(p->diags, NB_LIMIT, where,
                     "a line is longer than %u bytes, or there are too many", NB_TEXT_MAX_LINE);
            return false;
        }
        if (!newline) break;
        from = newline + 1;
    }
    return true;
}

static void parse_text(nb_parser *p) {
    nb_lex(&p->lex);
    if (!want_version(p)) return;
    p->header_failed = !want_header(p);
    if (p->header_failed && !nb_lex_skip_header(&p->lex)) return;
    parse_body(p);
}

/* What the parser did not see itself. */
static void verify(nb_parser *p) {
    if (nb_verify(p->g, p->trial) == NB_OK) return;
    for (size_t i = 0; i < p->trial->list.count; i++)
        nb_error(p->diags, NB_MALFORMED, (nb_where){.offset = -1, .file = p->name}, "%s",
                 p->trial->list.items[i]->message);
}

nb_status nb_parse(const char *text, size_t length, const char *name, const char *base,
                   nb_oom_fn oom, void *user, nb_diags *diags, nb_graph **out) {
    nb_graph *g = nb_graph_create("", oom, user);
    nb_arena *scratch = nb_arena_create_like(g->arena);
    nb_parser p = {.g = g,
                   .scratch = scratch,
                   .diags = diags,
                   .region = &g->body,
                   .trial = nb_diags_create(scratch, NULL),
                   .name = name,
                   .base = base,
                   .lex = nb_lexer_make(scratch, text, length)};
    nb_map *maps[] = {&p.poisoned[0], &p.poisoned[1], &p.quants, &p.types,         &p.dims,
                      &p.op_kinds,    &p.names,       &p.files,  &p.output_numbers};
    for (size_t i = 0; i < NB_COUNT(maps); i++) maps[i]->arena = scratch;
    p.names.keys = g->arena;
    /* Lines of large graphs are some 200 bytes. */
    const size_t lines = length / 200 + 1;
    nb_map_reserve(&g->interner->values, lines);
    for (uintptr_t k = 0; k < NB_OP_COUNT; k++)
        nb_map_set_str(&p.op_kinds, nb_ops[k].name, strlen(nb_ops[k].name), (void *)(k + 1));
    size_t listed = diags->list.count;
    p.errors_before = diags->errors;
    g->file = name ? nb_strdup(g->arena, name) : NULL;
    if (check_lines(&p, text, length)) parse_text(&p);
    if (diags->errors == p.errors_before) verify(&p);
    nb_text_files_close(&p);
    bool ok = diags->errors == p.errors_before;
    nb_status status = NB_OK;
    for (size_t i = listed; i < diags->list.count && !ok && status == NB_OK; i++)
        if (diags->list.items[i]->severity == NB_ERROR) status = diags->list.items[i]->status;
    if (!ok && status == NB_OK) status = NB_MALFORMED;
    nb_arena_destroy(scratch);
    if (!ok) nb_graph_destroy(g);
    *out = ok ? g : NULL;
    return status;
}
