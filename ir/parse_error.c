/* Errors of the parser: position, the line with a caret, and the nearest right name. */
#include "ir/support/distance.h"
#include "ir/text_parse.h"

#define SNIPPET 160 /* bytes of a long line that are shown */

/* The token's line without its indentation; of a very long line, what is around the token. */
static void show_line(nb_parser *p, const nb_token *t, nb_where *where) {
    const char *from = t->line_start, *end = p->lex.end;
    const char *newline = memchr(from, '\n', (size_t)(end - from));
    const char *to = newline ? newline : end;
    while (from < t->begin && (*from == ' ' || *from == '\t')) from++;
    if (to - from > SNIPPET) {
        if (t->begin - from > SNIPPET / 2) from = t->begin - SNIPPET / 2;
        if (to - from > SNIPPET) to = from + SNIPPET;
    }
    char *snippet = nb_strndup(p->scratch, from, (size_t)(to - from));
    for (char *c = snippet; c < snippet + (to - from); c++)
        if (*c == '\0') *c = ' ';
    while (to > from && to[-1] == '\r') snippet[--to - from] = '\0';
    where->snippet = snippet;
    where->caret = (int)(t->begin - from);
    size_t shown = t->begin < to ? (size_t)(to - t->begin) : 1;
    where->length = (int)(t->length < shown ? (t->length ? t->length : 1) : shown);
    if (t->kind == NB_TOKEN_NEWLINE) where->length = 1;
}

static void report(nb_parser *p, nb_status status, const nb_token *at, const char *message) {
    nb_where where = {.offset = -1,
                      .file = p->name,
                      .line = at->line,
                      .column = (int)(at->begin - at->line_start) + 1};
    show_line(p, at, &where);
    if (where.caret >= (int)strlen(where.snippet)) {
        /* the end of the line: a caret needs a character to stand under */
        where.snippet = nb_format(p->scratch, "%s ", where.snippet);
    }
    nb_error(p->diags, status, where, "%s", message);
}

bool nb_parse_error(nb_parser *p, const nb_token *at, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    const char *message = nb_vformat(p->scratch, fmt, args);
    va_end(args);
    report(p, NB_MALFORMED, at, message);
    return false;
}

bool nb_parse_limit(nb_parser *p, const nb_token *at, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    const char *message = nb_vformat(p->scratch, fmt, args);
    va_end(args);
    report(p, NB_LIMIT, at, message);
    return false;
}

bool nb_parse_expected(nb_parser *p, const char *what) {
    const nb_token *t = &p->lex.token;
    switch (t->kind) {
    case NB_TOKEN_BAD:
        return nb_parse_error(p, t, "%s", t->problem);
    case NB_TOKEN_END:
        return nb_parse_error(p, t, "expected %s, found the end of the text", what);
    case NB_TOKEN_NEWLINE:
        return nb_parse_error(p, t, "expected %s, found the end of the line", what);
    default:
        return nb_parse_error(p, t, "expected %s, found '%.*s'", what,
                              (int)nb_min_i64((int64_t)t->length, 80), t->begin);
    }
}

bool nb_parse_trial(nb_parser *p, const nb_token *at) {
    size_t n = p->trial->list.count;
    nb_parse_error(p, at, "%s", n ? p->trial->list.items[n - 1]->message : "this does not fit");
    /* The list is kept short: it is a buffer, not a record. */
    p->trial->list.count = 0;
    p->trial->errors = p->trial->dropped = 0;
    return false;
}

const char *nb_token_name(nb_parser *p, const nb_token *t) {
    return nb_strndup(p->scratch, t->text, t->size);
}

/* ---- the nearest name ------------------------------------------------------------------------ */

void nb_suggest(nb_parser *p, const nb_token *t, const char *const *names, size_t n) {
    const char *best = NULL;
    size_t least = t->size / 3 + 1;
    for (size_t i = 0; i < n; i++) {
        size_t d = nb_edit_distance(t->text, t->size, names[i], strlen(names[i]));
        if (d > least || (d == least && best)) continue;
        least = d;
        best = names[i];
    }
    if (best) nb_help(p->diags, "did you mean '%s'?", best);
}
