/* Pipelines as text: `name`, `name{option=value, option="text"}`, separated by commas; '#' begins a
 * comment.
 *
 * Values are checked against the pass' declarations here, so that passes get what they declared. */
#include "ir/support/distance.h"
#include "passes/pass.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct reader {
    const nb_registry *registry;
    const char *text, *at;
    nb_arena *arena;
    nb_diags *diags;
} reader;

NB_PRINTF(4, 5)
static nb_status fail(reader *r, const char *from, size_t length, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    const char *message = nb_vformat(r->arena, fmt, args);
    va_end(args);
    const char *line = from; /* of a text of several */
    while (line > r->text && line[-1] != '\n') line--;
    nb_where where = {.offset = -1,
                      .node = "pipeline",
                      .snippet = nb_strndup(r->arena, line, strcspn(line, "\n")),
                      .caret = (int)(from - line),
                      .length = length ? (int)length : 1};
    return nb_error(r->diags, NB_USAGE, where, "%s", message);
}

/* Comments too: from '#' to the end of the line. */
static void skip_space(reader *r) {
    while (isspace((unsigned char)*r->at) || *r->at == '#')
        r->at += *r->at == '#' ? strcspn(r->at, "\n") : 1;
}

static size_t word_length(const char *s) {
    size_t n = 0;
    while (isalnum((unsigned char)s[n]) || (s[n] && strchr("-_.+", s[n]))) n++;
    return n;
}

static nb_status unknown_pass(reader *r, const char *name, size_t length) {
    fail(r, name, length, "there is no pass '%.*s'", (int)length, name);
    const char *near = NULL;
    size_t best = length / 2 + 1;
    for (size_t i = 0; i < r->registry->passes.count; i++) {
        const char *candidate = r->registry->passes.items[i]->name;
        size_t d = nb_edit_distance(name, length, candidate, strlen(candidate));
        if (d < best) {
            best = d;
            near = candidate;
        }
    }
    if (near)
        nb_help(r->diags, "did you mean '%s'? `nibble opt --list-passes` lists all", near);
    else
        nb_help(r->diags, "`nibble opt --list-passes` lists all passes");
    return NB_USAGE;
}

static size_t option_count(const nb_pass *pass) {
    size_t n = 0;
    while (pass->options && pass->options[n].name) n++;
    return n;
}

static nb_status set_number(reader *r, const nb_option *o, const char *from, size_t length,
                            const char *text, nb_option_value *v) {
    char *end;
    errno = 0;
    if (o->kind == NB_OPTION_INT)
        v->i = strtoll(text, &end, 0);
    else
        v->f = strtod(text, &end);
    if (end == text || *end || errno || (o->kind == NB_OPTION_FLOAT && !isfinite(v->f)))
        return fail(r, from, length, "option '%s' takes %s, found '%s'", o->name,
                    o->kind == NB_OPTION_INT ? "a whole number" : "a number", text);
    double value = o->kind == NB_OPTION_INT ? (double)v->i : v->f;
    if (o->min < o->max && (value < o->min || value > o->max))
        return fail(r, from, length, "option '%s' takes %g to %g, found %s", o->name, o->min,
                    o->max, text);
    return NB_OK;
}

static nb_status set_value(reader *r, const nb_option *o, const char *from, size_t length,
                           const char *text, nb_option_value *v) {
    switch (o->kind) {
    case NB_OPTION_INT:
    case NB_OPTION_FLOAT:
        return set_number(r, o, from, length, text, v);
    case NB_OPTION_BOOL:
        if (strcmp(text, "true") == 0 || strcmp(text, "1") == 0)
            v->b = 1;
        else if (strcmp(text, "false") == 0 || strcmp(text, "0") == 0)
            v->b = 0;
        else
            return fail(r, from, length, "option '%s' takes true or false, found '%s'", o->name,
                        text);
        return NB_OK;
    case NB_OPTION_STRING:
        v->s = text;
        return NB_OK;
    case NB_OPTION_ENUM:
        break;
    }
    const char *all = "";
    for (int64_t i = 0; o->choices[i]; i++) {
        if (strcmp(o->choices[i], text) == 0) {
            v->s = o->choices[i];
            v->i = i;
            return NB_OK;
        }
        all = nb_format(r->arena, "%s%s%s", all, i ? ", " : "", o->choices[i]);
    }
    return fail(r, from, length, "option '%s' is one of %s; found '%s'", o->name, all, text);
}

/* A bare word or a "quoted" one with \" and \\ escapes. */
static nb_status read_value(reader *r, const char **out) {
    if (*r->at != '"') {
        size_t n = word_length(r->at);
        if (!n) return fail(r, r->at, 1, "expected a value");
        *out = nb_strndup(r->arena, r->at, n);
        r->at += n;
        return NB_OK;
    }
    const char *start = r->at++;
    char *text = nb_alloc(r->arena, strlen(r->at) + 1);
    size_t n = 0;
    for (; *r->at && *r->at != '"'; r->at++) {
        if (*r->at == '\\' && r->at[1]) r->at++;
        text[n++] = *r->at;
    }
    if (*r->at != '"') return fail(r, start, 1, "this quotation does not end");
    r->at++;
    *out = text;
    return NB_OK;
}

static nb_status read_option(reader *r, const nb_pass *pass, nb_option_value *values) {
    const char *name = r->at;
    size_t length = word_length(name);
    if (!length) return fail(r, r->at, 1, "expected the name of an option of '%s'", pass->name);
    size_t n = option_count(pass), i = 0;
    while (i < n && !(strlen(pass->options[i].name) == length &&
                      memcmp(pass->options[i].name, name, length) == 0))
        i++;
    if (i == n) {
        fail(r, name, length, "pass '%s' has no option '%.*s'", pass->name, (int)length, name);
        const char *all = "";
        for (size_t k = 0; k < n; k++)
            all = nb_format(r->arena, "%s%s%s", all, k ? ", " : "", pass->options[k].name);
        nb_help(r->diags, n ? "its options are %s" : "it has no options%s", all);
        return NB_USAGE;
    }
    if (values[i].given)
        return fail(r, name, length, "option '%s' is given twice", pass->options[i].name);
    r->at += length;
    skip_space(r);
    const char *text = "true"; /* a bare option is a flag */
    const char *from = name;
    if (*r->at == '=') {
        r->at++;
        skip_space(r);
        from = r->at;
        NB_TRY(read_value(r, &text));
    }
    NB_TRY(set_value(r, &pass->options[i], from, (size_t)(r->at - from), text, &values[i]));
    values[i].given = 1;
    return NB_OK;
}

static nb_status read_step(reader *r, nb_pipeline *out) {
    const char *name = r->at;
    size_t length = word_length(name);
    if (!length) return fail(r, r->at, 1, "expected the name of a pass");
    const nb_pass *pass = nb_registry_find(r->registry, name, length);
    if (!pass) return unknown_pass(r, name, length);
    r->at += length;
    size_t n = option_count(pass);
    nb_option_value *values = NB_NEW_ARRAY(r->arena, nb_option_value, n + 1);
    for (size_t i = 0; i < n; i++) {
        const char *fallback = pass->options[i].fallback;
        values[i].s = "";
        NB_TRY(set_value(r, &pass->options[i], name, length, fallback ? fallback : "", &values[i]));
    }
    skip_space(r);
    if (*r->at == '{') {
        r->at++;
        for (skip_space(r); *r->at != '}'; skip_space(r)) {
            NB_TRY(read_option(r, pass, values));
            skip_space(r);
            if (*r->at == ',')
                r->at++;
            else if (*r->at != '}')
                return fail(r, r->at, 1, "expected ',' or '}' after an option");
        }
        r->at++;
    }
    nb_step step = {.pass = pass, .options = values};
    nb_vec_push(r->arena, &out->steps, step);
    return NB_OK;
}

nb_status nb_pipeline_parse(const nb_registry *registry, const char *text, nb_arena *arena,
                            nb_diags *diags, nb_pipeline *out) {
    char *line = nb_strdup(arena, text);
    for (char *c = line; *c; c++) {
        if (*c == '\t') *c = ' '; /* so that the caret fits */
    }
    reader r = {.registry = registry, .text = line, .at = line, .arena = arena, .diags = diags};
    *out = (nb_pipeline){0};
    for (skip_space(&r); *r.at; skip_space(&r)) {
        NB_TRY(read_step(&r, out));
        skip_space(&r);
        if (*r.at == ',')
            r.at++;
        else if (*r.at)
            return fail(&r, r.at, 1, "expected ',' between passes");
    }
    return NB_OK;
}
