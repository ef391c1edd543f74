/* Bits and groups of single layers (layer_form.h). */
#include "passes/layer_form.h"

#include "passes/linear.h"

#include <stdlib.h>
#include <string.h>

typedef struct chosen {
    const char *name;
    nb_layer_form form;
} chosen;

void nb_layer_form_set(nb_pass_env *env, const nb_value *w, const char *name, nb_layer_form form) {
    chosen *c = NB_NEW(env->arena, chosen);
    *c = (chosen){nb_strdup(env->arena, name), form};
    env->layer_forms.arena = env->arena;
    nb_map_set(&env->layer_forms, w, c);
}

const char *nb_layer_forms_text(const nb_pass_env *env, nb_arena *arena) {
    const char *text = NULL;
    for (size_t i = 0; i < env->layer_forms.count; i++) {
        const chosen *c = env->layer_forms.entries[i].value;
        text = nb_format(arena, "%s%s%s=%d/%lld", text ? text : "", text ? "; " : "", c->name,
                         c->form.bits, (long long)c->form.group);
    }
    return text;
}

/* ---- by name -------------------------------------------------------------------------------- */

/* BITS or BITS/GROUP. */
static bool read_form(const char *text, nb_layer_form *out) {
    char *end;
    const long bits = strtol(text, &end, 10);
    bool ok = end != text && bits >= 2 && bits <= 8;
    *out = (nb_layer_form){(int)bits, -1};
    if (ok && *end == '/') {
        const char *group = end + 1;
        out->group = strtoll(group, &end, 10);
        ok = end != group && out->group >= 0 && out->group <= 65536;
    }
    return ok && !*end;
}

static bool read_rule(nb_pass_ctx *ctx, const char *text, size_t length, nb_layer_rules *out) {
    nb_arena *scratch = nb_state_of(ctx)->scratch;
    char *rule = nb_strndup(scratch, text, length), *equals = strrchr(rule, '=');
    nb_layer_rule r = {.pattern = rule};
    if (!equals || equals == rule || !read_form(equals + 1, &r.form)) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL,
                          "layers: expected PATTERN=BITS or PATTERN=BITS/GROUP with bits from 2 to "
                          "8, found \"%s\"",
                          rule);
        return false;
    }
    *equals = 0;
    nb_vec_push(scratch, &out->list, r);
    return true;
}

bool nb_layer_rules_read(nb_pass_ctx *ctx, const char *text, nb_layer_rules *out) {
    *out = (nb_layer_rules){0};
    while (*text) {
        text += strspn(text, "; \n\t");
        size_t length = strcspn(text, ";"), kept = length;
        while (kept > 0 && strchr(" \n\t", text[kept - 1])) kept--;
        if (kept && !read_rule(ctx, text, kept, out)) return false;
        text += length;
    }
    return true;
}

nb_layer_form nb_layer_rules_find(nb_pass_ctx *ctx, nb_layer_rules *rules, const nb_op *op) {
    const char *name = nb_loc_name(op->loc);
    nb_layer_form form = {0, -1};
    if (rules->list.count) nb_vec_push(nb_state_of(ctx)->scratch, &rules->seen, name);
    for (size_t i = 0; i < rules->list.count; i++) {
        nb_layer_rule *r = &rules->list.items[i];
        if (!nb_match_name(r->pattern, name)) continue;
        r->matched++;
        if (!form.bits) form = r->form;
    }
    const chosen *c = nb_map_get(&nb_state_of(ctx)->env->layer_forms, nb_in(op, 1));
    return form.bits || !c ? form : c->form;
}

bool nb_layer_rules_end(nb_pass_ctx *ctx, const nb_layer_rules *rules) {
    for (size_t i = 0; i < rules->list.count; i++) {
        const nb_layer_rule *r = &rules->list.items[i];
        if (r->matched) continue;
        nb_no_match(ctx, "layers", r->pattern, rules->seen.items, rules->seen.count);
        return false;
    }
    return true;
}
