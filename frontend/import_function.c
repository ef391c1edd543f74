/* Model-local functions: a node that calls one becomes the function's nodes, in place.
 *
 * The function sees its inputs and nothing of its caller's names, counts with the operator sets it
 * imports itself, and where an attribute refers to one of the function's, with that of the node. */
#include "frontend/import.h"

#include <string.h>

/* Calls within calls: functions must not call themselves. */
#define MOST_CALLS 64

nb_value nb_import_absent;

static const char *key_of(nb_arena *arena, const char *domain, const char *name) {
    return nb_format(arena, "%s::%s", domain, name);
}

static bool is_domain(const char *a, const char *b) {
    a = a && strcmp(a, "ai.onnx") != 0 ? a : "";
    b = b && strcmp(b, "ai.onnx") != 0 ? b : "";
    return strcmp(a, b) == 0;
}

nb_status nb_function_index(nb_importer *im) {
    const Onnx__ModelProto *p = im->m->proto;
    for (size_t i = 0; i < p->n_functions; i++) {
        const Onnx__FunctionProto *f = p->functions[i];
        const char *key = key_of(im->arena, f->domain ? f->domain : "", f->name ? f->name : "");
        nb_where where = {.file = im->m->name, .offset = -1};
        if (!f->name || !*f->name)
            return nb_error(im->diags, NB_MALFORMED, where, "function #%zu has no name", i);
        if (nb_map_get_str(&im->functions, key, strlen(key)))
            return nb_error(im->diags, NB_UNSUPPORTED, where,
                            "two functions are %s: overloads are not supported", key);
        nb_map_set_str(&im->functions, key, strlen(key), (void *)(uintptr_t)f);
    }
    return NB_OK;
}

const Onnx__FunctionProto *nb_function_find(const nb_importer *im, const Onnx__NodeProto *n) {
    if (im->functions.count == 0) return NULL;
    const char *key = key_of(im->arena, n->domain ? n->domain : "", n->op_type);
    return nb_map_get_str(&im->functions, key, strlen(key));
}

int64_t nb_import_opset(const nb_importer *im, const char *domain) {
    const Onnx__FunctionProto *f = im->call ? im->call->function : NULL;
    for (size_t i = 0; f && i < f->n_opset_import; i++)
        if (is_domain(f->opset_import[i]->domain, domain)) return f->opset_import[i]->version;
    return nb_onnx_opset(im->m, domain);
}

/* What stands for the function's attribute `name` in this call: the node's, or NULL. */
static const Onnx__AttributeProto *given(const nb_call *call, const char *name) {
    for (size_t i = 0; i < call->node->n_attribute; i++) {
        const Onnx__AttributeProto *a = call->node->attribute[i];
        if (a->name && strcmp(a->name, name) == 0) return a;
    }
    return NULL;
}

const Onnx__NodeProto *nb_call_resolve(nb_importer *im, const Onnx__NodeProto *n) {
    bool refers = false;
    for (size_t i = 0; i < n->n_attribute && im->call; i++) {
        const char *ref = n->attribute[i]->ref_attr_name;
        refers = refers || (ref && *ref);
    }
    if (!refers) return n;
    Onnx__NodeProto *copy = NB_NEW(im->arena, Onnx__NodeProto);
    *copy = *n;
    copy->attribute =
        (Onnx__AttributeProto **)nb_alloc_array(im->arena, n->n_attribute, sizeof *copy->attribute);
    copy->n_attribute = 0;
    for (size_t i = 0; i < n->n_attribute; i++) {
        Onnx__AttributeProto *a = n->attribute[i];
        if (a->ref_attr_name && *a->ref_attr_name) {
            const Onnx__AttributeProto *by = given(im->call, a->ref_attr_name);
            if (!by) continue; /* not given: as if it were not there */
            Onnx__AttributeProto *named = NB_NEW(im->arena, Onnx__AttributeProto);
            *named = *by;
            named->name = a->name;
            a = named;
        }
        copy->attribute[copy->n_attribute++] = a;
    }
    return copy;
}

static nb_status define_inputs(nb_importer *im, const Onnx__FunctionProto *f, nb_scope *scope) {
    for (size_t i = 0; i < f->n_input; i++) {
        nb_value *v = nb_has_input(im, i) ? nb_node_input(im, i) : &nb_import_absent;
        if (!v) return NB_MALFORMED;
        nb_map_set_str(&scope->values, f->input[i], strlen(f->input[i]), v);
    }
    return NB_OK;
}

nb_status nb_import_call(nb_importer *im, const Onnx__FunctionProto *f) {
    const Onnx__NodeProto *n = im->node;
    const int depth = im->call ? im->call->depth + 1 : 1;
    if (depth > MOST_CALLS)
        return nb_node_error(im, NB_LIMIT, "more than %d functions call each other", MOST_CALLS);
    if (n->n_input > f->n_input || n->n_output > f->n_output)
        return nb_node_error(im, NB_MALFORMED,
                             "%zu inputs and %zu outputs, the function has %zu and %zu", n->n_input,
                             n->n_output, f->n_input, f->n_output);
    nb_call call = {f, n, nb_loc_name(im->b.loc), im->call, depth};
    nb_scope scope = {.values = {.arena = im->arena}}, *outer = im->scope;
    NB_TRY(define_inputs(im, f, &scope));
    const Onnx__GraphProto graph = {.n_node = f->n_node, .node = f->node};
    im->scope = &scope;
    im->call = &call;
    nb_status status = nb_import_nodes(im, &graph);
    nb_value **values = (nb_value **)nb_alloc_array(im->arena, n->n_output + 1, sizeof *values);
    for (size_t i = 0; i < n->n_output && status == NB_OK; i++) {
        values[i] = nb_scope_find(im, f->output[i]);
        if (!values[i] || values[i] == &nb_import_absent)
            status = nb_node_error(im, NB_MALFORMED,
                                   "the function does not define its output \"%s\"", f->output[i]);
    }
    im->scope = outer;
    im->call = call.outer;
    for (size_t i = 0; i < n->n_output && status == NB_OK; i++)
        status = nb_node_output(im, i, values[i]);
    return status;
}
