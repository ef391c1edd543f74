/* Selectors (select.h): matching names, and the nearest ones when nothing matches. */
#include "passes/select.h"

#include "passes/host.h"

#include <stdlib.h>
#include <string.h>

#define NEAREST 4

/* Wildcards with one backtracking point: the last '*'. `end` is where this alternative ends. */
static bool match_one(const char *p, const char *end, const char *s) {
    const char *star = NULL, *resume = NULL;
    while (*s) {
        if (p < end && (*p == '?' || *p == *s) && *p != '*') {
            p++;
            s++;
        } else if (p < end && *p == '*') {
            star = ++p;
            resume = s;
        } else if (star) {
            p = star;
            s = ++resume;
        } else {
            return false;
        }
    }
    while (p < end && *p == '*') p++;
    return p == end;
}

static const char *end_of_alternative(const char *pattern) {
    return pattern + strcspn(pattern, "|");
}

bool nb_match_name(const char *pattern, const char *name) {
    while (*pattern) {
        const char *end = end_of_alternative(pattern);
        if (end > pattern && match_one(pattern, end, name)) return true;
        pattern = *end ? end + 1 : end;
    }
    return false;
}

/* ---- near misses ---------------------------------------------------------------------------- */

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* The edit distance (Levenshtein) in which '*' stands for any run and '?' for one character at no
 * cost; a row for each character of the pattern. */
static size_t distance_to(nb_arena *scratch, const char *p, const char *end, const char *name) {
    const size_t n = strlen(name);
    size_t *row = NB_NEW_ARRAY(scratch, size_t, n + 1);
    for (size_t i = 0; i <= n; i++) row[i] = i;
    for (; p < end; p++) {
        size_t diagonal = row[0];
        if (*p != '*') row[0]++;
        for (size_t i = 1; i <= n; i++) {
            const size_t above = row[i];
            row[i] = *p == '*' ? least(above, row[i - 1])
                               : least(diagonal + (*p != '?' && *p != name[i - 1]),
                                       least(above, row[i - 1]) + 1);
            diagonal = above;
        }
    }
    return row[n];
}

size_t nb_match_distance(nb_arena *scratch, const char *pattern, const char *name) {
    size_t best = SIZE_MAX;
    while (*pattern) {
        const char *end = end_of_alternative(pattern);
        if (end > pattern) best = least(best, distance_to(scratch, pattern, end, name));
        pattern = *end ? end + 1 : end;
    }
    return best;
}

typedef struct candidate {
    const char *name;
    size_t distance, order;
} candidate;

static int nearer(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->distance != y->distance) return x->distance < y->distance ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

void nb_no_match(nb_pass_ctx *ctx, const char *option, const char *pattern,
                 const char *const *names, size_t count) {
    nb_arena *scratch = nb_state_of(ctx)->scratch;
    ctx->host->report(ctx, NB_LEVEL_ERROR, NULL, "%s=\"%s\" matches none of the %zu layers", option,
                      pattern, count);
    if (!count) return;
    candidate *all = NB_NEW_ARRAY(scratch, candidate, count);
    for (size_t i = 0; i < count; i++)
        all[i] = (candidate){names[i], nb_match_distance(scratch, pattern, names[i]), i};
    qsort(all, count, sizeof *all, nearer);
    const char *list = "";
    for (size_t i = 0; i < count && i < NEAREST; i++)
        list = nb_format(scratch, "%s%s\"%s\"", list, i ? ", " : "", all[i].name);
    ctx->host->help(ctx, "the nearest names are %s", list);
}

/* ---- options -------------------------------------------------------------------------------- */

bool nb_skip_op(nb_pass_ctx *ctx, nb_skip *skip, const nb_op *op) {
    const char *name = nb_loc_name(op->loc);
    nb_vec_push(nb_state_of(ctx)->scratch, &skip->seen, name);
    bool hit = nb_match_name(skip->pattern, name);
    skip->matched += hit;
    return hit;
}

bool nb_skip_end(nb_pass_ctx *ctx, const nb_skip *skip) {
    if (!*skip->pattern || skip->matched) return true;
    nb_no_match(ctx, "skip", skip->pattern, skip->seen.items, skip->seen.count);
    return false;
}

/* The option's place among the pass' selectors, or NULL. */
static const nb_option *find_selector(const nb_pass_ctx *ctx, const char *name, size_t *index) {
    const nb_option *options = nb_state_of(ctx)->pass->options;
    for (size_t i = 0; name && options && options[i].name; i++) {
        if (options[i].kind != NB_OPTION_SELECTOR || strcmp(options[i].name, name) != 0) continue;
        *index = i;
        return &options[i];
    }
    return NULL;
}

int nb_host_selected(nb_pass_ctx *ctx, const char *option, const nb_op *op) {
    nb_pass_state *s = nb_state_of(ctx);
    size_t index = 0;
    const nb_option *o = find_selector(ctx, option, &index);
    if (!o || !op) {
        nb_misuse(ctx, "selected", "expected an op and an option of kind selector, found '%s'",
                  option ? option : "NULL");
        return 0;
    }
    if (!s->selectors.arena) s->selectors.arena = s->scratch;
    nb_skip *skip = nb_map_get(&s->selectors, o);
    if (!skip) {
        skip = NB_NEW(s->scratch, nb_skip);
        skip->pattern = ctx->options[index].s;
        nb_map_set(&s->selectors, o, skip);
    }
    return nb_skip_op(ctx, skip, op);
}

bool nb_selectors_end(nb_pass_ctx *ctx) {
    const nb_pass_state *s = nb_state_of(ctx);
    bool ok = true;
    for (size_t i = 0; s->pass->options && s->pass->options[i].name; i++) {
        const nb_option *o = &s->pass->options[i];
        if (o->kind != NB_OPTION_SELECTOR || !*ctx->options[i].s) continue;
        const nb_skip none = {.pattern = ctx->options[i].s},
                      *skip = s->selectors.arena ? nb_map_get(&s->selectors, o) : NULL;
        if (!skip) skip = &none;
        if (skip->matched) continue;
        nb_no_match(ctx, o->name, skip->pattern, skip->seen.items, skip->seen.count);
        ok = false;
    }
    return ok;
}
