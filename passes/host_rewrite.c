/* Rewrite rows of plug-ins (nb_pass.h): their text becomes rules of the driver (rewrite.h). */
#include "passes/host.h"
#include "passes/rule_text.h"

#include <string.h>

typedef struct row {
    const nb_rewrite_row *declared;
    const nb_rule_expr *to;
} row;

/* Rows and what was made of them, in one order. */
struct nb_host_rows {
    row *rows;
    nb_rule *rules;
};

static const row *row_of(const nb_match *m) {
    const struct nb_host_rows *all = nb_state_of(m->ctx)->rows;
    return &all->rows[m->rule - all->rules];
}

static const char *where(const nb_match *m) {
    const nb_rewrite_row *r = row_of(m)->declared;
    return r->where ? r->where(m->ctx, m) : NULL;
}

/* A constant of rank 0 with the result's element type. */
static nb_value *number(nb_match *m, nb_builder *b, double value) {
    const float f = (float)value;
    nb_elem elem = nb_out(m->root)->type->elem;
    nb_value *v = nb_const_f32(b->graph, "number", 0, NULL, &f);
    return elem == NB_F32 ? v : nb_cast(b, v, elem);
}

static nb_value *expression(nb_match *m, nb_builder *b, const nb_rule_expr *e) {
    if (e->word) return nb_got(m, e->word);
    if (e->kind == NB_OP_COUNT) return number(m, b, e->number);
    nb_value *args[NB_PAT_ARGS];
    size_t n = 0;
    for (; n < NB_PAT_ARGS && e->args[n]; n++) {
        args[n] = expression(m, b, e->args[n]);
        if (!args[n]) return NULL;
    }
    nb_begin(b, e->kind);
    for (size_t i = 0; i < n; i++) nb_arg(b, args[i]);
    return nb_end(b);
}

static nb_value *replacement(nb_match *m, nb_builder *b) {
    nb_pass_state *s = nb_state_of(m->ctx);
    const row *r = row_of(m);
    if (!nb_is_in_graph(m->root)) return NULL; /* a row removed it */
    s->rewriting = m->loc;
    nb_value *v = r->to ? expression(m, b, r->to) : r->declared->to(m->ctx, m);
    s->rewriting = NULL;
    if (!v) return NULL;
    if (!nb_is_in_graph(m->root))
        nb_misuse(m->ctx, "rewrite", "row '%s' removed the op that it replaces", r->declared->name);
    else if (v->type != nb_out(m->root)->type)
        nb_misuse(m->ctx, "rewrite", "row '%s' puts %s in the place of %s", r->declared->name,
                  nb_type_text(s->scratch, v->type),
                  nb_type_text(s->scratch, nb_out(m->root)->type));
    else
        return v;
    return NULL;
}

/* False after a diagnostic. */
static bool make_rule(nb_pass_ctx *ctx, const nb_rewrite_row *declared, row *r, nb_rule *rule) {
    if (!declared->name || !declared->rule) {
        nb_misuse(ctx, "rewrite", "a row lacks a member: expected size, name and rule");
        return false;
    }
    nb_rule_parts parts;
    const char *error =
        nb_rule_parse(nb_state_of(ctx)->scratch, declared->rule, declared->to == NULL, &parts);
    if (error) {
        nb_misuse(ctx, "rewrite", "row '%s', \"%s\": %s", declared->name, declared->rule, error);
        return false;
    }
    *r = (row){.declared = declared, .to = parts.to};
    *rule = (nb_rule){.name = declared->name,
                      .equation = declared->rule,
                      .pattern = parts.pattern,
                      .where = where,
                      .to = replacement};
    return true;
}

int nb_host_rewrite(nb_pass_ctx *ctx, const nb_rewrite_row *rows, size_t n_rows) {
    nb_arena *scratch = nb_state_of(ctx)->scratch;
    if (n_rows && !rows) {
        NB_MISUSE(ctx, "expected %zu rows, found NULL", n_rows);
        return -1;
    }
    if (nb_state_of(ctx)->rows) {
        NB_MISUSE(ctx, "a row rewrites while it is applied");
        return -1;
    }
    /* Rows of a plug-in are as long as they were in its header. */
    const size_t stride = n_rows ? rows->size : 0;
    if (n_rows && (stride < NB_SIZE_TO(nb_rewrite_row, to) || stride % sizeof(void *))) {
        NB_MISUSE(ctx, "a row lacks a member: expected size, name and rule");
        return -1;
    }
    struct nb_host_rows all = {NB_NEW_ARRAY(scratch, row, n_rows + 1),
                               NB_NEW_ARRAY(scratch, nb_rule, n_rows + 1)};
    for (size_t i = 0; i < n_rows; i++) {
        const char *at = (const char *)rows + i * stride;
        nb_rewrite_row *known = NB_NEW(scratch, nb_rewrite_row);
        nb_take_sized(known, sizeof *known, at, stride);
        if (known->size != stride) {
            NB_MISUSE(ctx, "row %zu has size %u, the first has %zu", i, known->size, stride);
            return -1;
        }
        if (!make_rule(ctx, known, &all.rows[i], &all.rules[i])) return -1;
    }
    bool changed = false;
    nb_state_of(ctx)->rows = &all;
    bool ok = nb_rewrite_run(ctx, all.rules, n_rows, &changed);
    nb_state_of(ctx)->rows = NULL;
    if (!ok) nb_state_of(ctx)->failed = true;
    return ok ? changed : -1;
}

nb_value *nb_host_matched(const nb_match *match, const char *word) {
    for (size_t i = 0; match && word && i < match->n_captures; i++)
        if (strcmp(match->captures[i].name, word) == 0) return match->captures[i].value;
    return NULL;
}

nb_op *nb_host_matched_op(const nb_match *match) { return match ? match->root : NULL; }
