/* Pipelines as text again: what was run, with what was found out on the way (pass.h). */
#include "passes/layer_form.h"

#include <string.h>

const char *nb_pipeline_quote(const char *text, nb_arena *arena) {
    const char *out = "";
    for (size_t n; *text; text += n) {
        n = strcspn(text, "\"\\");
        if (n == 0) out = nb_format(arena, "%s\\", out);
        n += n == 0;
        out = nb_format(arena, "%s%.*s", out, (int)n, text);
    }
    return out;
}

/* name=value, as it was given; strings in quotes. */
static const char *option_text(const nb_option *o, const nb_option_value *v, nb_arena *arena) {
    switch (o->kind) {
    case NB_OPTION_BOOL:
        return v->b ? o->name : nb_format(arena, "%s=false", o->name);
    case NB_OPTION_INT:
        return nb_format(arena, "%s=%lld", o->name, (long long)v->i);
    case NB_OPTION_FLOAT:
        return nb_format(arena, "%s=%.9g", o->name, v->f);
    case NB_OPTION_ENUM:
        return nb_format(arena, "%s=%s", o->name, o->choices[v->i]);
    default:
        return nb_format(arena, "%s=\"%s\"", o->name, nb_pipeline_quote(v->s, arena));
    }
}

static const char *step_text(const nb_step *step, const char *layers, nb_arena *arena) {
    const char *options = "";
    for (size_t i = 0; step->pass->options && step->pass->options[i].name; i++) {
        const nb_option *o = &step->pass->options[i];
        nb_option_value v = step->options[i];
        if (layers && strcmp(o->name, "layers") == 0) {
            v.s = *v.s ? nb_format(arena, "%s; %s", v.s, layers) : layers;
            v.given = 1;
        }
        if (!v.given) continue;
        options =
            nb_format(arena, "%s%s%s", options, *options ? ", " : "", option_text(o, &v, arena));
    }
    return *options ? nb_format(arena, "%s{%s}", step->pass->name, options) : step->pass->name;
}

const char *nb_step_text(const nb_step *step, nb_arena *arena) {
    return step_text(step, NULL, arena);
}

const char *nb_recipe_text(const nb_pipeline *pipeline, const nb_pass_env *env, nb_arena *arena) {
    const char *layers = nb_layer_forms_text(env, arena), *text = "";
    for (size_t i = 0; i < pipeline->steps.count; i++) {
        const nb_step *step = &pipeline->steps.items[i];
        const char *line = step_text(step, layers, arena);
        const bool chose = layers && strcmp(step->pass->name, "choose-bits") == 0,
                   last = i + 1 == pipeline->steps.count;
        text = chose ? nb_format(arena, "%s# %s: see layers below\n", text, line)
                     : nb_format(arena, "%s%s%s\n", text, line, last ? "" : ",");
    }
    return text;
}
