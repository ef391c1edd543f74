/* Lowers a model's graph: inputs, initializers, nodes in order, outputs (import.h). */
#include "frontend/import.h"

#include "frontend/frontend.h"
#include "frontend/guard.h"
#include "ir/eval.h"
#include "ir/verify.h"

#include <stdlib.h>
#include <string.h>

typedef struct row {
    const char *domain, *op;
    int64_t first, last;
    nb_import_fn fn;
    int argument;
} row;

static const row table[] = {
#define IMPORT(domain, op, first, last, function, argument) \
    {domain, #op, first, last, nb_import_##function, argument},
#include "frontend/import_ops.def"
#undef IMPORT
};

const char *const *nb_import_operators(void) {
    static const char *const names[] = {
#define IMPORT(domain, op, first, last, function, argument) domain "::" #op,
#include "frontend/import_ops.def"
#undef IMPORT
        NULL,
    };
    return names;
}

static const char *domain_of(const Onnx__NodeProto *n) {
    return !n->domain || strcmp(n->domain, "ai.onnx") == 0 ? "" : n->domain;
}

static const row *find_row(const nb_importer *im, const Onnx__NodeProto *n) {
    int64_t opset = nb_onnx_opset(im->m, n->domain);
    for (size_t i = 0; i < NB_COUNT(table); i++) {
        if (strcmp(table[i].op, n->op_type) == 0 && strcmp(table[i].domain, domain_of(n)) == 0 &&
            opset <= table[i].last && (opset >= table[i].first || opset == 0))
            return &table[i];
    }
    return NULL;
}

nb_status nb_node_error(nb_importer *im, nb_status status, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    const char *text = nb_vformat(im->arena, fmt, args);
    va_end(args);
    const Onnx__NodeProto *n = im->node;
    const char *domain = *domain_of(n) ? domain_of(n) : "ai.onnx";
    return nb_error(im->diags, status, (nb_where){.file = im->m->name, .offset = -1},
                    "node #%zu \"%s\" (%s, %s %lld): %s", im->index, n->name ? n->name : "",
                    n->op_type, domain, (long long)im->opset, text);
}

/* ---- what cannot be imported ---------------------------------------------------------------- */

/* Every unsupported operator with its count, in one error. */
static nb_status check_operators(nb_importer *im, const Onnx__GraphProto *graph) {
    nb_map counts = {.arena = im->arena};
    const char *list = "";
    size_t kinds = 0, nodes = 0;
    for (size_t i = 0; i < graph->n_node; i++) {
        const Onnx__NodeProto *n = graph->node[i];
        if (!n->op_type)
            return nb_error(im->diags, NB_MALFORMED, (nb_where){.file = im->m->name, .offset = -1},
                            "node #%zu has no op_type", i);
        if (find_row(im, n)) continue;
        const char *key =
            nb_format(im->arena, "%s%s%s", domain_of(n), *domain_of(n) ? "::" : "", n->op_type);
        size_t *count = nb_map_get_str(&counts, key, strlen(key));
        if (!count) {
            count = NB_NEW(im->arena, size_t);
            nb_map_set_str(&counts, key, strlen(key), count);
            kinds++;
        }
        ++*count;
        nodes++;
    }
    if (!kinds) return NB_OK;
    for (size_t i = 0; i < counts.count; i++)
        list = nb_format(im->arena, "%s%s%s %zu", list, i ? ", " : "",
                         (const char *)counts.entries[i].key, *(size_t *)counts.entries[i].value);
    nb_error(im->diags, NB_UNSUPPORTED, (nb_where){.file = im->m->name, .offset = -1},
             "%zu operator%s in %zu node%s not supported at opset %lld: %s", kinds,
             kinds == 1 ? "" : "s", nodes, nodes == 1 ? " is" : "s are",
             (long long)nb_onnx_opset(im->m, ""), list);
    nb_help(im->diags, "`nibble inspect --operators` lists what is supported");
    return NB_UNSUPPORTED;
}

/* ---- inputs --------------------------------------------------------------------------------- */

/* "past_sequence_length + 1": names and numbers joined by +; NULL when it is not that. */
static const nb_dim *parse_sum(nb_importer *im, const char *text) {
    const nb_dim *sum = NULL;
    if (!strchr(text, '+')) return NULL;
    for (const char *p = text;;) {
        p += strspn(p, " ");
        size_t n = strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789.");
        if (!n) return NULL;
        const nb_dim *part;
        if (strspn(p, "0123456789") == n)
            part = n < 10 ? nb_num(im, strtol(p, NULL, 10)) : NULL;
        else
            part = nb_dim_symbol(im->g, nb_graph_symbol(im->g, nb_strndup(im->arena, p, n), true));
        if (!part) return NULL;
        sum = sum ? nb_dim_add(im->g, sum, part) : part;
        p += n;
        p += strspn(p, " ");
        if (!*p) return sum;
        if (*p++ != '+') return NULL;
    }
}

static const nb_dim *input_dim(nb_importer *im, const char *input, size_t axis,
                               const Onnx__TensorShapeProto__Dimension *d) {
    if (d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE)
        return d->dim_value >= 0 ? nb_num(im, d->dim_value) : NULL;
    const char *name =
        d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM ? d->dim_param : NULL;
    if (!name || !*name) name = nb_format(im->arena, "%s_%zu", input, axis);
    const nb_dim *sum = parse_sum(im, name);
    return sum ? sum : nb_dim_symbol(im->g, nb_graph_symbol(im->g, name, true));
}

static nb_status value_error(nb_importer *im, nb_status status, const char *what, const char *name,
                             const char *text) {
    return nb_error(im->diags, status, (nb_where){.file = im->m->name, .offset = -1},
                    "%s \"%s\": %s", what, name, text);
}

static nb_status import_input(nb_importer *im, const Onnx__ValueInfoProto *v) {
    if (!v->name || !*v->name) return value_error(im, NB_MALFORMED, "input", "", "it has no name");
    if (nb_map_get_str(&im->values, v->name, strlen(v->name)))
        return value_error(im, NB_MALFORMED, "input", v->name, "it is defined twice");
    if (!v->type || v->type->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE)
        return value_error(im, v->type && v->type->value_case ? NB_UNSUPPORTED : NB_MALFORMED,
                           "input", v->name, "it is not a tensor");
    const Onnx__TypeProto__Tensor *t = v->type->tensor_type;
    nb_elem elem = nb_elem_from_onnx(t->elem_type);
    if (elem == NB_ELEM_COUNT)
        return value_error(im, NB_UNSUPPORTED, "input", v->name,
                           nb_format(im->arena, "element type %d is not supported", t->elem_type));
    if (!t->shape)
        return value_error(im, NB_UNSUPPORTED, "input", v->name, "its rank is not known");
    if (t->shape->n_dim > NB_MAX_RANK)
        return value_error(
            im, NB_LIMIT, "input", v->name,
            nb_format(im->arena, "rank %zu is above %d", t->shape->n_dim, NB_MAX_RANK));
    const nb_dim *dims[NB_MAX_RANK];
    for (size_t d = 0; d < t->shape->n_dim; d++) {
        dims[d] = input_dim(im, v->name, d, t->shape->dim[d]);
        if (!dims[d])
            return value_error(im, NB_MALFORMED, "input", v->name,
                               nb_format(im->arena, "dimension %zu is negative", d));
    }
    nb_value *value = nb_graph_add_input(
        im->g, v->name, nb_type_intern(im->g, elem, NULL, (int)t->shape->n_dim, dims));
    nb_map_set_str(&im->values, v->name, strlen(v->name), value);
    return NB_OK;
}

/* ---- initializers --------------------------------------------------------------------------- */

static nb_value *add_constant(nb_importer *im, const char *name, const nb_onnx_tensor *t,
                              const nb_loc *loc) {
    const nb_dim *dims[NB_MAX_RANK];
    for (int d = 0; d < t->rank; d++) dims[d] = nb_num(im, t->dims[d]);
    return nb_graph_add_const(im->g, name, nb_type_intern(im->g, t->elem, NULL, t->rank, dims),
                              t->blob, loc);
}

static nb_status import_initializer(nb_importer *im, const Onnx__TensorProto *t) {
    if (!t->name || !*t->name)
        return value_error(im, NB_MALFORMED, "initializer", "", "it has no name");
    if (nb_map_get_str(&im->values, t->name, strlen(t->name)))
        return value_error(im, NB_MALFORMED, "initializer", t->name, "it is defined twice");
    nb_onnx_tensor tensor;
    NB_TRY(nb_onnx_read_tensor(im->m, t, nb_format(im->arena, "initializer \"%s\"", t->name),
                               &tensor));
    nb_map_set_str(&im->values, t->name, strlen(t->name), add_constant(im, t->name, &tensor, NULL));
    return NB_OK;
}

nb_status nb_import_constant(nb_importer *im) {
    const Onnx__AttributeProto *a = im->node->n_attribute == 1 ? im->node->attribute[0] : NULL;
    if (!a || !a->name)
        return nb_node_error(im, NB_MALFORMED, "expected one attribute, found %zu",
                             im->node->n_attribute);
    const char *name = im->node->n_output ? im->node->output[0] : "constant";
    int64_t n = 0;
    nb_value *v = NULL;
    if (strcmp(a->name, "value") == 0 && a->t) {
        nb_onnx_tensor tensor;
        NB_TRY(nb_onnx_read_tensor(im->m, a->t, nb_format(im->arena, "constant \"%s\"", name),
                                   &tensor));
        v = add_constant(im, name, &tensor, im->b.loc);
    } else if (strcmp(a->name, "value_int") == 0) {
        v = nb_const_i64(im->g, name, 0, NULL, &a->i);
    } else if (strcmp(a->name, "value_float") == 0) {
        v = nb_const_f32(im->g, name, 0, NULL, &a->f);
    } else if (strcmp(a->name, "value_ints") == 0) {
        n = (int64_t)a->n_ints;
        v = nb_const_i64(im->g, name, 1, &n, a->ints);
    } else if (strcmp(a->name, "value_floats") == 0) {
        n = (int64_t)a->n_floats;
        v = nb_const_f32(im->g, name, 1, &n, a->floats);
    }
    if (!v)
        return nb_node_error(im, NB_UNSUPPORTED, "attribute \"%s\" holds no tensor of numbers",
                             a->name);
    return nb_node_output(im, 0, v);
}

/* ---- nodes and outputs ---------------------------------------------------------------------- */

static nb_status import_node(nb_importer *im, const Onnx__NodeProto *n, size_t index) {
    const row *r = find_row(im, n);
    im->node = n;
    im->index = index;
    im->opset = nb_onnx_opset(im->m, n->domain);
    im->argument = r->argument;
    const char *name =
        n->name && *n->name ? n->name : nb_format(im->arena, "%s_%zu", n->op_type, index);
    im->b.loc = nb_loc_at(im->g, name);
    for (size_t i = 0; i < n->n_input; i++) {
        if (*n->input[i] && !nb_map_get_str(&im->values, n->input[i], strlen(n->input[i])))
            return nb_node_error(im, NB_MALFORMED,
                                 "input %zu \"%s\" is not defined before this node", i,
                                 n->input[i]);
    }
    size_t errors = im->diags->errors;
    nb_status status = r->fn(im);
    if (status == NB_OK && im->diags->errors != errors) status = nb_diags_status(im->diags);
    /* The builder's messages name the op; this names the node. */
    if (status != NB_OK && im->diags->errors == errors)
        status = nb_node_error(im, status, "cannot be lowered");
    return status;
}

static nb_status check_declared(nb_importer *im, const Onnx__ValueInfoProto *v,
                                const nb_type *type) {
    if (!v->type || v->type->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE) return NB_OK;
    const Onnx__TypeProto__Tensor *t = v->type->tensor_type;
    bool fits = !t->has_elem_type || t->elem_type == 0 || t->elem_type == nb_elems[type->elem].onnx;
    if (t->shape && fits) fits = (int)t->shape->n_dim == type->rank;
    for (int d = 0; fits && t->shape && d < type->rank; d++) {
        const Onnx__TensorShapeProto__Dimension *dim = t->shape->dim[d];
        fits = dim->value_case != ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE ||
               !nb_dim_is_const(type->dims[d]) || dim->dim_value == type->dims[d]->value;
    }
    return fits ? NB_OK
                : value_error(im, NB_MALFORMED, "output", v->name,
                              nb_format(im->arena,
                                        "its declared type is not %s, which the nodes give",
                                        nb_type_text(im->arena, type)));
}

static nb_status import_outputs(nb_importer *im, const Onnx__GraphProto *graph) {
    size_t n = graph->n_output;
    if (n == 0)
        return nb_error(im->diags, NB_MALFORMED, (nb_where){.file = im->m->name, .offset = -1},
                        "the graph has no output");
    nb_value **values = (nb_value **)nb_alloc_array(im->arena, n, sizeof *values);
    const char **names = (const char **)nb_alloc_array(im->arena, n, sizeof *names);
    for (size_t i = 0; i < n; i++) {
        names[i] = graph->output[i]->name ? graph->output[i]->name : "";
        values[i] = nb_map_get_str(&im->values, names[i], strlen(names[i]));
        if (!values[i])
            return value_error(im, NB_MALFORMED, "output", names[i], "nothing defines it");
        NB_TRY(check_declared(im, graph->output[i], values[i]->type));
    }
    nb_graph_set_outputs(im->g, n, values, names);
    return NB_OK;
}

static nb_status import_graph(nb_importer *im, const Onnx__GraphProto *graph) {
    if (graph->n_sparse_initializer)
        return nb_error(im->diags, NB_UNSUPPORTED, (nb_where){.file = im->m->name, .offset = -1},
                        "sparse initializers are not supported");
    NB_TRY(check_operators(im, graph));
    nb_map initializers = {.arena = im->arena};
    for (size_t i = 0; i < graph->n_initializer; i++) {
        const char *name = graph->initializer[i]->name;
        if (name) nb_map_set_str(&initializers, name, strlen(name), graph->initializer[i]);
    }
    for (size_t i = 0; i < graph->n_input; i++) {
        /* Before IR 4 every initializer was listed as an input as well. */
        const char *name = graph->input[i]->name;
        if (!name || !nb_map_get_str(&initializers, name, strlen(name)))
            NB_TRY(import_input(im, graph->input[i]));
    }
    for (size_t i = 0; i < graph->n_initializer; i++)
        NB_TRY(import_initializer(im, graph->initializer[i]));
    for (size_t i = 0; i < graph->n_node; i++) NB_TRY(import_node(im, graph->node[i], i));
    NB_TRY(import_outputs(im, graph));
    nb_graph_sweep(im->g);
    return nb_verify(im->g, im->diags);
}

/* ---- entry points --------------------------------------------------------------------------- */

static nb_status import_model(nb_onnx *m, nb_graph *g) {
    NB_TRY(nb_onnx_unpack(m));
    if (m->proto->n_functions)
        return nb_error(m->diags, NB_UNSUPPORTED, (nb_where){.file = m->name, .offset = -1},
                        "model-local functions are not supported");
    nb_importer im = {
        .m = m, .g = g, .diags = m->diags, .arena = m->arena, .values = {.arena = m->arena}};
    im.b = (nb_builder){.graph = g, .diags = m->diags};
    const char *name = m->proto->graph->name;
    if (name && *name) g->name = nb_strdup(g->arena, name);
    return import_graph(&im, m->proto->graph);
}

static nb_status import_file(nb_file *file, const void *bytes, size_t size, const char *name,
                             const char *directory, nb_oom_fn oom, void *user, nb_diags *diags,
                             nb_graph **out) {
    nb_graph *g = nb_graph_create("model", oom, user);
    g->file = nb_strdup(g->arena, name);
    if (file) {
        nb_file *kept = NB_NEW(g->arena, nb_file);
        *kept = *file;
        nb_graph_on_destroy(g, (void (*)(void *))nb_file_close, kept);
    }
    nb_onnx m = {.arena = nb_arena_create(oom, user),
                 .diags = diags,
                 .graph = g,
                 .name = g->file,
                 .directory = directory,
                 .bytes = bytes,
                 .size = size};
    m.external.arena = m.arena;
    nb_status status = import_model(&m, g);
    nb_arena_destroy(m.arena);
    if (status == NB_OK)
        *out = g;
    else
        nb_graph_destroy(g);
    return status;
}

nb_status nb_import_bytes(const void *bytes, size_t size, const char *name, const char *directory,
                          nb_oom_fn oom, void *user, nb_diags *diags, nb_graph **out) {
    return import_file(NULL, bytes, size, name, directory, oom, user, diags, out);
}

nb_status nb_import(const char *path, nb_oom_fn oom, void *user, nb_diags *diags, nb_graph **out) {
    nb_file file;
    NB_TRY(nb_file_open(path, diags, &file));
    const char *slash = strrchr(path, '/');
    char *directory = slash
                          ? nb_strndup(diags->arena, path, (size_t)(slash - path) + (slash == path))
                          : nb_strdup(diags->arena, "");
    return import_file(&file, file.bytes, file.size, path, directory, oom, user, diags, out);
}

static nb_status unpack_tensor(nb_onnx *m, nb_onnx_tensor *out) {
    uint8_t *skeleton;
    size_t size;
    NB_TRY(nb_guard_tensor(m->bytes, m->size, m->name, m->arena, m->diags, &skeleton, &size));
    Onnx__TensorProto *t = onnx__tensor_proto__unpack(NULL, size, skeleton);
    nb_status status =
        t ? nb_onnx_read_tensor(m, t, "tensor", out)
          : nb_error(m->diags, NB_MALFORMED, (nb_where){.file = m->name, .offset = -1},
                     "expected a TensorProto");
    onnx__tensor_proto__free_unpacked(t, NULL);
    return status;
}

nb_status nb_read_tensor_file(const char *path, nb_arena *arena, nb_diags *diags,
                              struct nb_tensor *out) {
    nb_file file;
    NB_TRY(nb_file_open(path, diags, &file));
    nb_graph *g = nb_graph_create("tensor", NULL, NULL);
    nb_onnx m = {.arena = g->arena,
                 .diags = diags,
                 .graph = g,
                 .name = path,
                 .bytes = file.bytes,
                 .size = file.size,
                 .skeleton = true};
    nb_onnx_tensor tensor;
    nb_status status = unpack_tensor(&m, &tensor);
    if (status == NB_OK) {
        *out = (nb_tensor){.elem = tensor.elem,
                           .rank = tensor.rank,
                           .bytes = tensor.blob->size,
                           .data = nb_alloc(arena, (size_t)tensor.blob->size + 8)};
        memcpy(out->dims, tensor.dims, sizeof out->dims);
        if (out->bytes) memcpy(out->data, tensor.blob->data, (size_t)out->bytes);
        nb_blob_release(tensor.blob);
    }
    nb_graph_destroy(g);
    nb_file_close(&file);
    return status;
}
