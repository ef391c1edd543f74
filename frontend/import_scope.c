/* Graphs that are attributes: the names they see, and the bodies of ops that they become
 * (import.h).
 *
 * What a body takes from outside becomes a parameter when it is first asked for. Sizes that follow
 * from shapes are not taken: they are made again inside, so that shape arithmetic goes on there. */
#include "frontend/import.h"

#include <string.h>

nb_value nb_import_failed;

bool nb_scope_has(const nb_importer *im, const char *name) {
    return nb_map_get_str(&im->scope->values, name, strlen(name)) != NULL;
}

bool nb_scope_is_absent(const nb_importer *im, const char *name) {
    for (const nb_scope *s = im->scope; s; s = s->outer) {
        const nb_value *v = nb_map_get_str(&s->values, name, strlen(name));
        if (v) return v == &nb_import_absent;
    }
    return false;
}

void nb_scope_define(nb_importer *im, const char *name, nb_value *v) {
    nb_map_set_str(&im->scope->values, name, strlen(name), v);
}

/* ---- symbols ------------------------------------------------------------------------------- */

/* The body's symbol for one outside; the range it has there holds inside. */
static const nb_dim *shadow_of(nb_importer *im, nb_body *body, const nb_symbol *outside) {
    nb_graph *g = im->g;
    for (size_t i = 0; i < body->shadows.count; i++)
        if (body->shadows.items[i].outside->symbol == outside)
            return nb_attr_of(body->shadows.items[i].now->def, "values")->dims.items[0];
    size_t number = g->symbols.count;
    const char *name = nb_format(im->arena, "%s'%zu", outside->name, number);
    while (true) { /* until it is new */
        bool taken = false;
        for (size_t i = 0; i < g->symbols.count; i++)
            taken = taken || strcmp(g->symbols.items[i]->name, name) == 0;
        if (!taken) break;
        name = nb_format(im->arena, "%s'%zu", outside->name, ++number);
    }
    const nb_symbol *inside = nb_graph_symbol(g, name, true);
    nb_symbol_narrow(g, inside, outside->min, outside->max);
    const nb_dim *d = nb_dim_symbol(g, inside);
    nb_shadow shadow = {nb_dim_symbol(g, outside), inside, nb_make_dims(im, 1, &d, true)};
    nb_vec_push(im->arena, &body->shadows, shadow);
    return d;
}

/* `d` in the body's symbols. */
static const nb_dim *shadowed(nb_importer *im, nb_body *body, const nb_dim *d) {
    if (d->kind == NB_DIM_CONST || !body->shadowed) return d;
    if (d->kind == NB_DIM_SYMBOL) return shadow_of(im, body, d->symbol);
    const nb_dim *a = shadowed(im, body, d->a), *b = shadowed(im, body, d->b);
    switch (d->kind) {
    case NB_DIM_ADD:
        return nb_dim_add(im->g, a, b);
    case NB_DIM_MUL:
        return nb_dim_mul(im->g, a, b);
    case NB_DIM_FLOORDIV:
        return nb_dim_floordiv(im->g, a, b);
    case NB_DIM_CEILDIV:
        return nb_dim_ceildiv(im->g, a, b);
    case NB_DIM_MIN:
        return nb_dim_min(im->g, a, b);
    default:
        return nb_dim_max(im->g, a, b);
    }
}

static bool is_alive(const nb_graph *g, const nb_symbol *s) {
    return s->index < g->symbols.count && g->symbols.items[s->index] == s;
}

const nb_type *nb_body_outside(nb_importer *im, const nb_body *body, const nb_type *type) {
    const nb_dim *dims[NB_MAX_RANK];
    for (int d = 0; d < type->rank; d++) {
        dims[d] = type->dims[d];
        for (size_t i = 0; i < body->shadows.count; i++)
            dims[d] = nb_dim_substitute(im->g, dims[d], body->shadows.items[i].inside,
                                        body->shadows.items[i].outside);
    }
    return nb_type_intern(im->g, type->elem, type->quant, type->rank, dims);
}

void nb_body_settle(nb_importer *im, nb_body *body) {
    nb_graph *g = im->g;
    for (size_t i = 0; i < body->shadows.count; i++) {
        const nb_shadow *s = &body->shadows.items[i];
        if (!is_alive(g, s->inside)) continue;
        const nb_dim *by = s->outside;
        if (s->inside->min > by->symbol->min)
            by = nb_dim_max(g, nb_dim_const(g, s->inside->min), by);
        if (s->inside->max < s->outside->symbol->max)
            by = nb_dim_min(g, nb_dim_const(g, s->inside->max), by);
        nb_graph_substitute(g, s->inside, by);
    }
}

/* ---- names --------------------------------------------------------------------------------- */

/* Small integers that shapes or constants give, made again inside; NULL: it is none of these. */
static nb_value *made_again(nb_importer *im, nb_body *body, const nb_value *v) {
    const nb_elem elem = v->type->elem;
    size_t n;
    if (v->type->rank > 1 || v->type->quant || !(nb_elem_is_integer(elem) || elem == NB_BOOL))
        return NULL;
    const nb_dim *const *dims = nb_symbolic(im->g, v, &n);
    if (!dims) dims = nb_fold(im, v, &n);
    if (!dims || n == 0) return NULL;
    const nb_dim **inside = (const nb_dim **)nb_alloc_array(im->arena, n, sizeof *inside);
    for (size_t i = 0; i < n; i++) inside[i] = shadowed(im, body, dims[i]);
    nb_value *made = nb_make_dims(im, n, inside, v->type->rank == 0);
    return elem == NB_I64 ? made : nb_cast(&im->b, made, elem);
}

static nb_value *take(nb_importer *im, nb_body *body, nb_value *v) {
    nb_value *made = made_again(im, body, v);
    if (made) return made;
    const nb_dim *dims[NB_MAX_RANK];
    for (int d = 0; d < v->type->rank; d++) dims[d] = shadowed(im, body, v->type->dims[d]);
    nb_vec_push(im->arena, &body->taken, v);
    return nb_region_add(body->region, v->name,
                         nb_type_intern(im->g, v->type->elem, NULL, v->type->rank, dims));
}

nb_value *nb_scope_find(nb_importer *im, const char *name) {
    nb_scope *scope = im->scope;
    nb_value *v = nb_map_get_str(&scope->values, name, strlen(name));
    if (v || !scope->outer) return v;
    /* As what is outside sees it, there. */
    nb_builder here = im->b;
    im->scope = scope->outer;
    if (scope->body) {
        im->b.region = scope->body->before.region;
        im->b.before = scope->body->before.before;
    }
    v = nb_scope_find(im, name);
    im->scope = scope;
    im->b = here;
    if (!v || !scope->body) return v;
    if (nb_sequence_of(im, v))
        v = nb_sequence_inside(im, v, take, scope->body);
    else if (v != &nb_import_failed && v != &nb_import_absent && !nb_is_const(v))
        v = take(im, scope->body, v);
    if (v) nb_scope_define(im, name, v);
    return v;
}

/* ---- bodies -------------------------------------------------------------------------------- */

void nb_body_begin(nb_importer *im, nb_body *body, bool shadowed_) {
    *body = (nb_body){.region = nb_region_create(im->g),
                      .shadowed = shadowed_,
                      .scope = {.values = {.arena = im->arena}, .outer = im->scope},
                      .before = im->b};
    body->scope.body = body;
    im->scope = &body->scope;
    im->b.region = body->region;
    im->b.before = NULL;
}

void nb_body_end(nb_importer *im, nb_body *body) {
    im->scope = body->scope.outer;
    im->b.region = body->before.region;
    im->b.before = body->before.before;
}

nb_value *nb_body_param(nb_importer *im, nb_body *body, const char *onnx, const nb_type *type) {
    nb_value *v = nb_region_add(body->region, onnx && *onnx ? onnx : "param", type);
    body->own++;
    if (onnx && *onnx) nb_scope_define(im, onnx, v);
    return v;
}

nb_value *nb_graph_output(nb_importer *im, const Onnx__GraphProto *graph, size_t i) {
    const char *name = i < graph->n_output && graph->output[i]->name ? graph->output[i]->name : "";
    nb_value *v = nb_scope_find(im, name);
    if (!v) nb_node_error(im, NB_MALFORMED, "output \"%s\" of its graph is not defined", name);
    if (v && nb_sequence_of(im, v) && im->scope->body)
        nb_node_error(im, NB_UNSUPPORTED, "output \"%s\" of its graph is a sequence", name);
    return v && v != &nb_import_failed && !(nb_sequence_of(im, v) && im->scope->body) ? v : NULL;
}
