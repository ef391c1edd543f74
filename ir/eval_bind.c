/* What the inputs of a run say about the graph's symbols. An axis whose size is a plain symbol
 * binds it (the first one does); then every axis of every input is checked, expressions too. */
#include "ir/eval_private.h"

const nb_symbol *nb_unbound_in(const nb_dim *d, const int64_t *symbols) {
    if (d->kind == NB_DIM_CONST) return NULL;
    if (d->kind == NB_DIM_SYMBOL) return symbols[d->symbol->index] == NB_UNBOUND ? d->symbol : NULL;
    const nb_symbol *s = nb_unbound_in(d->a, symbols);
    return s ? s : nb_unbound_in(d->b, symbols);
}

static nb_where at_input(const nb_graph *g, uint32_t input) {
    return (nb_where){.offset = -1, .file = g->file, .node = g->body.params[input]->name};
}

/* A dim that is a plain symbol and not bound yet binds it. */
static nb_status bind_axis(const nb_graph *g, uint32_t input, int axis, int64_t found,
                           int64_t *symbols, nb_diags *diags) {
    const nb_value *v = g->body.params[input];
    const nb_dim *d = v->type->dims[axis];
    if (found < 0)
        return nb_error(diags, NB_MALFORMED, at_input(g, input),
                        "input \"%s\": axis %d is negative, %lld", v->name, axis, (long long)found);
    if (d->kind != NB_DIM_SYMBOL || symbols[d->symbol->index] != NB_UNBOUND) return NB_OK;
    const nb_symbol *s = d->symbol;
    symbols[s->index] = found;
    if (found >= s->min && found <= s->max) return NB_OK;
    return nb_error(diags, NB_MALFORMED, at_input(g, input),
                    "input \"%s\": axis %d, %s, is %lld, outside %lld..%lld", v->name, axis,
                    s->name, (long long)found, (long long)s->min, (long long)s->max);
}

static nb_status check_axis(const nb_graph *g, uint32_t input, int axis, int64_t found,
                            const int64_t *symbols, nb_diags *diags) {
    const nb_value *v = g->body.params[input];
    const nb_dim *d = v->type->dims[axis];
    const char *text = nb_dim_text(diags->arena, d);
    const nb_symbol *loose = nb_unbound_in(d, symbols);
    int64_t want;
    if (loose)
        return nb_error(diags, NB_MALFORMED, at_input(g, input),
                        "input \"%s\": axis %d is %s, but no input has an axis that is just %s",
                        v->name, axis, text, loose->name);
    if (!nb_dim_eval(d, symbols, &want))
        return nb_error(diags, NB_MALFORMED, at_input(g, input),
                        "input \"%s\": axis %d, %s, has no value", v->name, axis, text);
    if (want == found) return NB_OK;
    return nb_error(diags, NB_MALFORMED, at_input(g, input),
                    "input \"%s\": axis %d: expected %lld%s%s, found %lld", v->name, axis,
                    (long long)want, nb_dim_is_const(d) ? "" : " = ",
                    nb_dim_is_const(d) ? "" : text, (long long)found);
}

static nb_status check_kind(const nb_graph *g, uint32_t input, const nb_tensor *t,
                            nb_diags *diags) {
    const nb_value *v = g->body.params[input];
    if (t->elem != v->type->elem || t->rank != v->type->rank)
        return nb_error(diags, NB_MALFORMED, at_input(g, input),
                        "input \"%s\": expected %s, found %s of rank %d", v->name,
                        nb_type_text(diags->arena, v->type), nb_elems[t->elem].text, t->rank);
    if (nb_has_own_scales(v->type) && !t->scales)
        return nb_error(diags, NB_MALFORMED, at_input(g, input),
                        "input \"%s\": codes of %s need their scales", v->name,
                        nb_type_text(diags->arena, v->type));
    return NB_OK;
}

/* First every plain symbol gets its value, then every axis is checked. */
nb_status nb_eval_bind(const nb_graph *g, const nb_tensor *inputs, int64_t *symbols,
                       nb_diags *diags) {
    for (size_t i = 0; i < g->symbols.count; i++) symbols[i] = NB_UNBOUND;
    for (uint32_t i = 0; i < g->body.n_params; i++) {
        NB_TRY(check_kind(g, i, &inputs[i], diags));
        for (int d = 0; d < inputs[i].rank; d++)
            NB_TRY(bind_axis(g, i, d, inputs[i].dims[d], symbols, diags));
    }
    for (uint32_t i = 0; i < g->body.n_params; i++) {
        for (int d = 0; d < inputs[i].rank; d++)
            NB_TRY(check_axis(g, i, d, inputs[i].dims[d], symbols, diags));
    }
    return NB_OK;
}
