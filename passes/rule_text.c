/* Reads rules (rule_text.h) by recursive descent; nesting is bounded. */
#include "passes/rule_text.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

typedef struct reader {
    nb_arena *arena;
    const char *at;
    const char *error; /* the first, or NULL */
    const char *words[NB_MAX_CAPTURES];
    size_t n_words, n_ops;
} reader;

NB_PRINTF(2, 3) static void *fail(reader *r, const char *fmt, ...) {
    if (r->error) return NULL;
    va_list args;
    va_start(args, fmt);
    const char *message = nb_vformat(r->arena, fmt, args);
    va_end(args);
    r->error = nb_format(r->arena, "%s at '%s'", message, r->at);
    return NULL;
}

static void skip_space(reader *r) { r->at += strspn(r->at, " \t\n"); }

static bool eat(reader *r, const char *mark) {
    skip_space(r);
    if (strncmp(r->at, mark, strlen(mark)) != 0) return false;
    r->at += strlen(mark);
    return true;
}

/* A word, or NULL where none stands. */
static const char *read_word(reader *r) {
    skip_space(r);
    size_t n = 0;
    while (isalnum((unsigned char)r->at[n]) || r->at[n] == '_') n++;
    if (n == 0 || isdigit((unsigned char)*r->at)) return NULL;
    const char *word = nb_strndup(r->arena, r->at, n);
    r->at += n;
    return word;
}

static bool read_number(reader *r, double *out) {
    skip_space(r);
    if (!isdigit((unsigned char)*r->at) && !strchr("-.", *r->at)) return false;
    char *end;
    *out = strtod(r->at, &end);
    if (end == r->at || !*r->at) return false;
    r->at = end;
    return true;
}

static bool is_known(const reader *r, const char *word) {
    for (size_t i = 0; i < r->n_words; i++)
        if (strcmp(r->words[i], word) == 0) return true;
    return false;
}

/* The name under which a word captures: "" for "_". */
static const char *capture(reader *r, const char *word) {
    if (strcmp(word, "_") == 0) return "";
    if (is_known(r, word)) return word;
    if (r->n_words == NB_MAX_CAPTURES)
        return fail(r, "a rule has at most %d names, found one more", NB_MAX_CAPTURES);
    r->words[r->n_words++] = word;
    return word;
}

static nb_op_kind operation(reader *r, const char *name) {
    nb_op_kind kind = nb_op_from_name(name, strlen(name));
    if (kind == NB_OP_COUNT) fail(r, "there is no operation '%s'", name);
    return kind;
}

static const nb_pat *read_term(reader *r, int depth);

/* Behind the operation's name. */
static const nb_pat *read_op(reader *r, const char *name, const char *result, int depth) {
    if (operation(r, name) == NB_OP_COUNT) return NULL;
    if (depth == NB_RULE_DEPTH || ++r->n_ops == NB_MAX_MATCHED)
        return fail(r, "the rule is too deep or too long");
    nb_pat *p = NB_NEW(r->arena, nb_pat);
    *p = (nb_pat){.kind = NB_PAT_OP, .op = name, .name = result, .single = eat(r, "!")};
    if (!eat(r, "(")) return fail(r, "expected '('");
    if (eat(r, ")")) return p;
    for (size_t n = 0;; n++) {
        if (n == NB_PAT_ARGS) return fail(r, "more than %d operands", NB_PAT_ARGS);
        p->args[n] = read_term(r, depth + 1);
        if (!p->args[n]) return NULL;
        if (eat(r, ")")) return p;
        if (!eat(r, ",")) return fail(r, "expected ',' or ')'");
    }
}

static const nb_pat *read_term(reader *r, int depth) {
    nb_pat *p = NB_NEW(r->arena, nb_pat);
    if (read_number(r, &p->number)) {
        p->kind = NB_PAT_NUMBER;
        return p;
    }
    const bool constant = eat(r, "@");
    const char *word = read_word(r);
    if (!word) return fail(r, "expected a name, a number or an operation");
    if (constant) {
        p->kind = NB_PAT_CONST;
        p->name = capture(r, word);
        return p->name ? p : NULL;
    }
    skip_space(r);
    if (*r->at == '(' || *r->at == '!') return read_op(r, word, "", depth);
    p->kind = NB_PAT_ANY;
    p->name = capture(r, word);
    if (!p->name) return NULL;
    if (!eat(r, "=")) return p;
    const char *name = read_word(r);
    return name ? read_op(r, name, p->name, depth) : fail(r, "expected an operation");
}

static const nb_rule_expr *read_expr(reader *r, int depth) {
    nb_rule_expr *e = NB_NEW(r->arena, nb_rule_expr);
    e->kind = NB_OP_COUNT;
    if (read_number(r, &e->number)) return e;
    const char *word = read_word(r);
    if (!word) return fail(r, "expected a name, a number or an operation");
    if (!eat(r, "(")) {
        if (!is_known(r, word)) return fail(r, "'%s' is not named on the left", word);
        e->word = word;
        return e;
    }
    e->kind = operation(r, word);
    if (e->kind == NB_OP_COUNT) return NULL;
    if (depth == NB_RULE_DEPTH) return fail(r, "the rule is too deep");
    if (nb_ops[e->kind].traits & NB_TRAIT_TERMINATOR || nb_ops[e->kind].results != 1)
        return fail(r, "'%s' has not one result", word);
    if (eat(r, ")")) return e;
    for (size_t n = 0;; n++) {
        if (n == NB_PAT_ARGS) return fail(r, "more than %d operands", NB_PAT_ARGS);
        e->args[n] = read_expr(r, depth + 1);
        if (!e->args[n]) return NULL;
        if (eat(r, ")")) return e;
        if (!eat(r, ",")) return fail(r, "expected ',' or ')'");
    }
}

const char *nb_rule_parse(nb_arena *arena, const char *text, bool with_expression,
                          nb_rule_parts *out) {
    reader r = {.arena = arena, .at = text};
    *out = (nb_rule_parts){0};
    out->pattern = read_term(&r, 0);
    if (out->pattern && out->pattern->kind != NB_PAT_OP) fail(&r, "the left side is no operation");
    if (!r.error && !eat(&r, "->")) fail(&r, "expected '->'");
    if (r.error || !with_expression) return r.error;
    out->to = read_expr(&r, 0);
    skip_space(&r);
    if (!r.error && *r.at) fail(&r, "expected the end");
    return r.error;
}
