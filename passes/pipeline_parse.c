/* Pipelines as text: `name`, `name{option=value, option="text"}`, separated by commas; '#' begins a
 * comment. `include{scheme=w4a16}` and `include{file="mine.passes"}` stand for the passes of a
 * scheme or of a file, or for a part of them.
 *
 * Values are checked against the pass' declarations here, so that passes get what they declared. */
#include "ir/support/distance.h"
#include "ir/support/file.h"
#include "passes/pass.h"
#include "passes/presets.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 8 /* of files that include files */

typedef struct reader {
    const nb_registry *registry;
    const char *text, *at;
    const char *file; /* that the text stands in, or NULL */
    const char *base; /* the folder that files are looked for in */
    int depth;
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
    int number = 1;
    for (const char *c = r->text; c < line; c++) number += *c == '\n';
    nb_where where = {.offset = -1,
                      .file = r->file,
                      .line = r->file ? number : 0,
                      .column = r->file ? (int)(from - line) + 1 : 0,
                      .node = r->file ? NULL : "pipeline",
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
    case NB_OPTION_SELECTOR:
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

/* {option=value, ...}, if the current character is a brace. */
static nb_status read_options(reader *r, const nb_pass *pass, const char *name, size_t length,
                              nb_option_value **out) {
    size_t n = option_count(pass);
    nb_option_value *values = NB_NEW_ARRAY(r->arena, nb_option_value, n + 1);
    *out = values;
    for (size_t i = 0; i < n; i++) {
        const char *fallback = pass->options[i].fallback;
        values[i].s = "";
        NB_TRY(set_value(r, &pass->options[i], name, length, fallback ? fallback : "", &values[i]));
    }
    skip_space(r);
    if (*r->at != '{') return NB_OK;
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
    return NB_OK;
}

/* ---- includes ------------------------------------------------------------------------------- */

enum { SCHEME, GROUP, KV, CALIBRATED, FILE_NAME, FROM, UNTIL };
static const nb_option include_options[] = {
    {.name = "scheme", .kind = NB_OPTION_STRING, .summary = "the passes of this scheme"},
    {.name = "group",
     .kind = NB_OPTION_INT,
     .fallback = "-1",
     .min = -1,
     .max = 65536,
     .summary = "of the scheme: inputs that share a scale"},
    {.name = "kv", .kind = NB_OPTION_STRING, .summary = "of the scheme: type of caches"},
    {.name = "calibrated",
     .kind = NB_OPTION_BOOL,
     .fallback = "false",
     .summary = "of the scheme: there are samples"},
    {.name = "file", .kind = NB_OPTION_STRING, .summary = "the passes of this file"},
    {.name = "from", .kind = NB_OPTION_STRING, .summary = "only from this pass on"},
    {.name = "until", .kind = NB_OPTION_STRING, .summary = "only up to this pass, without it"},
    {.name = NULL},
};
static const nb_pass include_pass = {.name = "include", .options = include_options};

static nb_status read_pipeline(reader *r, nb_pipeline *out);

/* As in the file at `path`, which the includes of `r` name. */
static nb_status read_file(reader *r, const char *at, size_t length, const char *path,
                           nb_pipeline *out) {
    if (r->depth == MAX_DEPTH)
        return fail(r, at, length,
                    "files include files more than %d deep: does one include itself?", MAX_DEPTH);
    const bool relative = *path != '/' && r->base;
    const char *full = relative ? nb_format(r->arena, "%s/%s", r->base, path) : path;
    nb_file file;
    nb_status status = nb_file_open(full, r->diags, &file);
    if (status != NB_OK) {
        nb_note(r->diags, "included %s%s", r->file ? "by " : "here", r->file ? r->file : "");
        return status;
    }
    char *text = nb_strndup(r->arena, (const char *)file.bytes, file.size);
    const bool whole = strlen(text) == file.size;
    nb_file_close(&file);
    if (!whole) return fail(r, at, length, "'%s' is no text: it holds a byte of 0", full);
    const char *slash = strrchr(full, '/');
    reader inner = *r;
    inner.text = inner.at = text;
    inner.file = full;
    inner.base =
        slash ? nb_strndup(r->arena, full, (size_t)(slash - full) + (slash == full)) : NULL;
    inner.depth = r->depth + 1;
    return read_pipeline(&inner, out);
}

static nb_status read_scheme(reader *r, const char *at, size_t length, const nb_option_value *v,
                             nb_pipeline *out) {
    const char *const *types = nb_kv_types();
    const nb_preset_options options = {
        .group = v[GROUP].i, .kv = *v[KV].s ? v[KV].s : NULL, .calibrated = v[CALIBRATED].b};
    while (options.kv && *types && strcmp(*types, options.kv) != 0) types++;
    if (options.kv && !*types)
        return fail(r, at, length, "caches cannot be of type '%s'", options.kv);
    const char *text = nb_preset(v[SCHEME].s, &options, r->arena);
    if (!text)
        return fail(r, at, length, "there is no scheme '%s'; schemes are %s", v[SCHEME].s,
                    nb_preset_names(r->arena));
    reader inner = *r;
    inner.text = inner.at = text;
    return read_pipeline(&inner, out);
}

/* The place of the first pass of that name from `from` on; its end when `name` is "". */
static nb_status find_step(reader *r, const char *at, size_t length, const nb_pipeline *p,
                           const char *name, size_t from, size_t end, size_t *out) {
    *out = *name ? from : end;
    while (*name && *out < p->steps.count && strcmp(p->steps.items[*out].pass->name, name) != 0)
        ++*out;
    if (!*name || *out < p->steps.count) return NB_OK;
    const char *all = "";
    for (size_t i = 0; i < p->steps.count; i++)
        all = nb_format(r->arena, "%s%s%s", all, i ? ", " : "", p->steps.items[i].pass->name);
    fail(r, at, length, "what is included has no pass '%s'%s", name, from ? " there" : "");
    nb_help(r->diags, "it is %s", all);
    return NB_USAGE;
}

/* Behind the word `include`. */
static nb_status read_include(reader *r, const char *at, size_t length, nb_pipeline *out) {
    nb_option_value *v;
    nb_pipeline all = {0};
    size_t from, until;
    NB_TRY(read_options(r, &include_pass, at, length, &v));
    if (!*v[SCHEME].s == !*v[FILE_NAME].s)
        return fail(r, at, length, "include takes a scheme or a file");
    if (*v[FILE_NAME].s && (v[GROUP].given || v[KV].given || v[CALIBRATED].given))
        return fail(r, at, length, "group, kv and calibrated are options of schemes");
    if (*v[FILE_NAME].s)
        NB_TRY(read_file(r, at, length, v[FILE_NAME].s, &all));
    else
        NB_TRY(read_scheme(r, at, length, v, &all));
    NB_TRY(find_step(r, at, length, &all, v[FROM].s, 0, 0, &from));
    NB_TRY(find_step(r, at, length, &all, v[UNTIL].s, from, all.steps.count, &until));
    for (size_t i = from; i < until; i++) nb_vec_push(r->arena, &out->steps, all.steps.items[i]);
    return NB_OK;
}

/* ---- the whole ------------------------------------------------------------------------------ */

static nb_status read_step(reader *r, nb_pipeline *out) {
    const char *name = r->at;
    size_t length = word_length(name);
    if (!length) return fail(r, r->at, 1, "expected the name of a pass");
    r->at += length;
    if (length == strlen(include_pass.name) && strncmp(name, include_pass.name, length) == 0)
        return read_include(r, name, length, out);
    const nb_pass *pass = nb_registry_find(r->registry, name, length);
    if (!pass) return unknown_pass(r, name, length);
    nb_step step = {.pass = pass};
    NB_TRY(read_options(r, pass, name, length, &step.options));
    nb_vec_push(r->arena, &out->steps, step);
    return NB_OK;
}

static nb_status read_pipeline(reader *r, nb_pipeline *out) {
    char *line = nb_strdup(r->arena, r->text);
    for (char *c = line; *c; c++) {
        if (*c == '\t') *c = ' '; /* so that the caret fits */
    }
    r->text = r->at = line;
    for (skip_space(r); *r->at; skip_space(r)) {
        NB_TRY(read_step(r, out));
        skip_space(r);
        if (*r->at == ',')
            r->at++;
        else if (*r->at)
            return fail(r, r->at, 1, "expected ',' between passes");
    }
    return NB_OK;
}

nb_status nb_pipeline_parse(const nb_registry *registry, const char *text, nb_arena *arena,
                            nb_diags *diags, nb_pipeline *out) {
    reader r = {
        .registry = registry, .text = text, .base = registry->base, .arena = arena, .diags = diags};
    *out = (nb_pipeline){0};
    return read_pipeline(&r, out);
}
