/* Lowers a model's graph: inputs, initializers, nodes in order, outputs (import.h). */
#include "frontend/import.h"

#include "frontend/frontend.h"
#include "frontend/gguf.h"
#include "frontend/guard.h"
#include "ir/eval.h"
#include "ir/verify.h"

#include <stdlib.h>
#include <string.h>

#define MOST_SYMBOLS 4096
#define MOST_NODES   (1 << 20)

/* `message` with the node in front. */
static const char *node_text(const nb_importer *im, const char *message) {
    const Onnx__NodeProto *n = im->node;
    const char *domain = *nb_node_domain(n) ? nb_node_domain(n) : "ai.onnx";
    return nb_format(im->diags->arena, "node #%zu \"%s\" (%s, %s %lld): %s", im->index,
                     n->name ? n->name : "", n->op_type, domain, (long long)im->opset, message);
}

nb_status nb_node_error(nb_importer *im, nb_status status, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    const char *text = nb_vformat(im->arena, fmt, args);
    va_end(args);
    return nb_error(im->diags, status, (nb_where){.file = im->m->name, .offset = -1}, "%s",
                    node_text(im, text));
}

/* ---- inputs --------------------------------------------------------------------------------- */

/* "past_sequence_length + sequence_length": names joined by +; NULL when it is not that. With a
 * number it is a name like others: exporters that trace one step write "past_sequence_length + 1"
 * for any. */
static const nb_dim *parse_sum(nb_importer *im, const char *text) {
    const nb_dim *sum = NULL;
    NB_VEC(const char *) names = {0};
    if (!strchr(text, '+') || strlen(text) > 256) return NULL;
    for (const char *p = text;;) {
        p += strspn(p, " ");
        size_t n = strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789.");
        if (!n || strspn(p, "0123456789") == n) return NULL;
        nb_vec_push(im->arena, &names, nb_strndup(im->arena, p, n));
        p += n;
        p += strspn(p, " ");
        if (!*p) break;
        if (*p++ != '+') return NULL;
    }
    for (size_t i = 0; i < names.count; i++) {
        const nb_dim *part = nb_dim_symbol(im->g, nb_graph_symbol(im->g, names.items[i], true));
        sum = sum ? nb_dim_add(im->g, sum, part) : part;
    }
    return sum;
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
    if (nb_scope_has(im, v->name))
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
    const nb_type *type = nb_type_intern(im->g, elem, NULL, (int)t->shape->n_dim, dims);
    const char *number = nb_pin_of(im->m, v->name);
    nb_value *value =
        number ? nb_pinned(im, v->name, number, type) : nb_graph_add_input(im->g, v->name, type);
    if (!value) return nb_diags_status(im->diags);
    nb_scope_define(im, v->name, value);
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
    if (nb_scope_has(im, t->name))
        return value_error(im, NB_MALFORMED, "initializer", t->name, "it is defined twice");
    nb_onnx_tensor tensor;
    nb_status status =
        nb_onnx_read_tensor(im->m, t, nb_format(im->arena, "initializer \"%s\"", t->name), &tensor);
    nb_scope_define(im, t->name,
                    status == NB_OK ? add_constant(im, t->name, &tensor, NULL) : &nb_import_failed);
    return status;
}

nb_status nb_import_constant(nb_importer *im) {
    const Onnx__AttributeProto *a = im->node->n_attribute == 1 ? im->node->attribute[0] : NULL;
    if (!a)
        return nb_node_error(im, NB_MALFORMED, "expected one attribute, found %zu",
                             im->node->n_attribute);
    const char *name = *im->node->output[0] ? im->node->output[0] : "constant";
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

/* Is every input there? *skip: one is missing because of an earlier error, which is enough said. */
static nb_status check_inputs(nb_importer *im, bool *skip) {
    const Onnx__NodeProto *n = im->node;
    *skip = false;
    for (size_t i = 0; i < n->n_input; i++) {
        if (!*n->input[i]) continue;
        const nb_value *v = nb_scope_find(im, n->input[i]);
        if (!v)
            return nb_node_error(im, NB_MALFORMED,
                                 "input %zu \"%s\" is not defined before this node", i,
                                 n->input[i]);
        if (v == &nb_import_failed) *skip = true;
    }
    return NB_OK;
}

/* The builder's messages name the op; a user knows the node. */
static void name_node(nb_importer *im) {
    size_t kept = im->diags->list.count;
    for (size_t i = im->first_diag; i < kept; i++) {
        nb_diag *d = im->diags->list.items[i];
        if (!d->where.node) continue;
        d->message = node_text(im, d->message);
        d->where.node = NULL;
        d->where.file = nb_strdup(im->diags->arena, im->m->name);
    }
}

static nb_status lower_node(nb_importer *im) {
    bool skip;
    NB_TRY(check_inputs(im, &skip));
    if (skip) return nb_diags_status(im->diags);
    if (++im->n_nodes > MOST_NODES)
        return nb_node_error(im, NB_LIMIT, "more than %d nodes with those of functions",
                             MOST_NODES);
    const Onnx__FunctionProto *f = im->row ? NULL : nb_function_find(im, im->node);
    if (!f) NB_TRY(nb_import_check_node(im));
    nb_status status = f ? nb_import_call(im, f) : im->row->fn(im);
    if (status != NB_OK && im->diags->errors == im->errors)
        status = nb_node_error(im, status, "cannot be lowered");
    return im->diags->errors != im->errors ? nb_diags_status(im->diags) : status;
}

/* An error is recorded and what the node defines is marked, so that other nodes' errors show. */
static void import_node(nb_importer *im, const Onnx__NodeProto *n, size_t index) {
    const nb_importer outer = *im; /* of the node whose attribute holds this one's graph */
    im->node = n = nb_call_resolve(im, n);
    im->row = nb_import_find(im, n);
    im->index = index;
    im->opset = nb_import_opset(im, n->domain);
    im->argument = im->row ? im->row->argument : 0;
    memset(im->assumed, 0, sizeof im->assumed);
    memset(im->counted, 0, sizeof im->counted);
    im->n_holds = 0;
    im->errors = im->diags->errors;
    im->first_diag = im->diags->list.count;
    const char *name =
        n->name && *n->name ? n->name : nb_format(im->arena, "%s_%zu", n->op_type, index);
    if (im->call) name = nb_format(im->arena, "%s/%s", im->call->name, name);
    im->b.loc = nb_loc_at(im->g, name);
    if (lower_node(im) != NB_OK) {
        name_node(im);
        for (size_t i = 0; i < n->n_output; i++) {
            if (!nb_scope_has(im, n->output[i]))
                nb_scope_define(im, n->output[i], &nb_import_failed);
        }
    }
    im->node = outer.node;
    im->row = outer.row;
    im->index = outer.index;
    im->opset = outer.opset;
    im->argument = outer.argument;
    memcpy(im->assumed, outer.assumed, sizeof im->assumed);
    memcpy(im->counted, outer.counted, sizeof im->counted);
    memcpy(im->holds, outer.holds, sizeof im->holds);
    im->n_holds = outer.n_holds;
    im->errors = outer.errors;
    im->first_diag = outer.first_diag;
    im->b.loc = outer.b.loc;
}

static bool is_shape(const Onnx__TensorShapeProto *declared, const nb_type *type) {
    if (!declared) return true;
    if ((int)declared->n_dim != type->rank) return false;
    for (int d = 0; d < type->rank; d++) {
        const Onnx__TensorShapeProto__Dimension *dim = declared->dim[d];
        if (dim->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE &&
            nb_dim_is_const(type->dims[d]) && dim->dim_value != type->dims[d]->value)
            return false;
    }
    return true;
}

/* Declared types are checked, never trusted. Exporters write wrong shapes of what nodes give, which
 * harm nobody (warn_declared); another element type is another model. */
static void check_declared(nb_importer *im, const char *what, const Onnx__ValueInfoProto *v,
                           const nb_type *type, bool given) {
    if (!v->type || v->type->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE) return;
    const Onnx__TypeProto__Tensor *t = v->type->tensor_type;
    const bool fits =
                   !t->has_elem_type || !t->elem_type || t->elem_type == nb_elems[type->elem].onnx,
               same = is_shape(t->shape, type);
    if (fits && same) return;
    const char *text =
        nb_format(im->arena, "its declared type contradicts %s, which the model gives",
                  nb_type_text(im->arena, type));
    if (!fits || given)
        (void)!value_error(im, NB_MALFORMED, what, v->name, text);
    else if (!im->n_misdeclared++)
        im->misdeclared = nb_format(im->arena, "%s \"%s\": %s", what, v->name, text);
}

/* One line, however many there are. */
static void warn_declared(const nb_importer *im) {
    if (!im->n_misdeclared) return;
    const size_t more = im->n_misdeclared - 1;
    nb_warn(im->diags, (nb_where){.file = im->m->name, .offset = -1}, "%s%s", im->misdeclared,
            more ? nb_format(im->arena, ", and so with %zu more", more) : "");
    nb_help(im->diags, "the declared shape is not used");
}

/* given: they are not what nodes make. */
static void check_value_info(nb_importer *im, const char *what, size_t n,
                             Onnx__ValueInfoProto *const *infos, bool given) {
    for (size_t i = 0; i < n; i++) {
        const char *name = infos[i]->name ? infos[i]->name : "";
        const nb_value *v = nb_scope_find(im, name);
        if (v && v != &nb_import_failed && !nb_sequence_of(im, v))
            check_declared(im, what, infos[i], v->type, given);
    }
}

static nb_status import_outputs(nb_importer *im, const Onnx__GraphProto *graph) {
    size_t n = graph->n_output;
    if (n == 0)
        return nb_error(im->diags, NB_MALFORMED, (nb_where){.file = im->m->name, .offset = -1},
                        "the graph has no output");
    nb_value **values = (nb_value **)nb_alloc_array(im->arena, n, sizeof *values);
    const char **names = (const char **)nb_alloc_array(im->arena, n, sizeof *names);
    nb_map seen = {.arena = im->arena};
    for (size_t i = 0; i < n; i++) {
        names[i] = graph->output[i]->name ? graph->output[i]->name : "";
        values[i] = nb_scope_find(im, names[i]);
        if (!values[i])
            return value_error(im, NB_MALFORMED, "output", names[i], "nothing defines it");
        if (nb_sequence_of(im, values[i]))
            return value_error(im, NB_UNSUPPORTED, "output", names[i], "it is not a tensor");
        if (nb_map_get_str(&seen, names[i], strlen(names[i])))
            return value_error(im, NB_MALFORMED, "output", names[i], "it is listed twice");
        nb_map_set_str(&seen, names[i], strlen(names[i]), values[i]);
    }
    if (im->diags->errors != im->errors_before) return nb_diags_status(im->diags);
    nb_graph_set_outputs(im->g, n, values, names);
    return NB_OK;
}

static nb_status import_inputs(nb_importer *im, const Onnx__GraphProto *graph) {
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
    NB_TRY(nb_pins_check(im, graph));
    if (im->g->symbols.count > MOST_SYMBOLS)
        return nb_error(im->diags, NB_LIMIT, (nb_where){.file = im->m->name, .offset = -1},
                        "%zu symbolic dimensions, more than %d", im->g->symbols.count,
                        MOST_SYMBOLS);
    return NB_OK;
}

static bool too_many(const nb_importer *im) {
    return im->diags->errors - im->errors_before >= NB_DIAGS_CAP;
}

nb_status nb_import_nodes(nb_importer *im, const Onnx__GraphProto *graph) {
    const size_t errors = im->diags->errors;
    for (size_t i = 0; i < graph->n_initializer && !too_many(im); i++)
        (void)!import_initializer(im, graph->initializer[i]);
    const size_t *order = nb_import_order(im, graph);
    for (size_t i = 0; i < graph->n_node && !too_many(im); i++) {
        const size_t at = order ? order[i] : i;
        import_node(im, graph->node[at], at);
    }
    check_value_info(im, "value", graph->n_value_info, graph->value_info, false);
    return im->diags->errors == errors ? NB_OK : nb_diags_status(im->diags);
}

static nb_status import_graph(nb_importer *im, const Onnx__GraphProto *graph) {
    if (graph->n_sparse_initializer)
        return nb_error(im->diags, NB_UNSUPPORTED, (nb_where){.file = im->m->name, .offset = -1},
                        "sparse initializers are not supported");
    NB_TRY(nb_import_check_operators(im, graph));
    NB_TRY(import_inputs(im, graph));
    (void)!nb_import_nodes(im, graph);
    if (too_many(im)) return nb_diags_status(im->diags);
    check_value_info(im, "input", graph->n_input, graph->input, true);
    check_value_info(im, "output", graph->n_output, graph->output, false);
    warn_declared(im);
    NB_TRY(import_outputs(im, graph));
    nb_graph_sweep(im->g);
    return nb_verify(im->g, im->diags);
}

/* ---- entry points --------------------------------------------------------------------------- */

static void import_metadata(const Onnx__ModelProto *model, nb_graph *g) {
    for (size_t i = 0; i < model->n_metadata_props; i++) {
        const Onnx__StringStringEntryProto *p = model->metadata_props[i];
        const nb_metadatum m = {nb_strdup(g->arena, p->key ? p->key : ""),
                                nb_strdup(g->arena, p->value ? p->value : "")};
        nb_vec_push(g->arena, &g->metadata, m);
    }
}

static nb_status import_model(nb_onnx *m, nb_graph *g, const nb_import_options *options) {
    NB_TRY(nb_onnx_unpack(m));
    nb_scope scope = {.values = {.arena = m->arena}};
    nb_importer im = {.m = m,
                      .g = g,
                      .diags = m->diags,
                      .arena = m->arena,
                      .scope = &scope,
                      .rows = {.arena = m->arena},
                      .functions = {.arena = m->arena},
                      .looked_at = {.arena = m->arena},
                      .sequences = {.arena = m->arena},
                      .errors_before = m->diags->errors,
                      .custom = options->custom,
                      .n_custom = options->n_custom};
    nb_import_index(&im);
    nb_import_index_custom(&im);
    NB_TRY(nb_function_index(&im));
    im.b = (nb_builder){.graph = g, .diags = m->diags};
    const char *name = m->proto->graph->name;
    if (name && *name) g->name = nb_strdup(g->arena, name);
    import_metadata(m->proto, g);
    return import_graph(&im, m->proto->graph);
}

static nb_status import_file(nb_file *file, const void *bytes, size_t size, const char *name,
                             const char *directory, const nb_import_options *options, nb_oom_fn oom,
                             void *user, nb_diags *diags, nb_graph **out) {
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
                 .size = size,
                 .mapped = file && file->mapped,
                 .n_pins = options->n_pins,
                 .pins = options->pins};
    m.external.arena = m.arena;
    const bool gguf = size >= 4 && memcmp(bytes, "GGUF", 4) == 0;
    nb_status status = gguf ? nb_import_gguf(bytes, size, g->file, m.arena, diags, g)
                            : import_model(&m, g, options);
    nb_arena_destroy(m.arena);
    if (status == NB_OK)
        *out = g;
    else
        nb_graph_destroy(g);
    return status;
}

nb_status nb_import_survey(const char *path, const nb_custom_op *custom, size_t n_custom,
                           nb_diags *diags, const nb_operator_use **out, size_t *n) {
    nb_file file;
    NB_TRY(nb_file_open(path, diags, &file));
    nb_arena *arena = nb_arena_create_like(diags->arena);
    nb_onnx m = {
        .arena = arena, .diags = diags, .name = path, .bytes = file.bytes, .size = file.size};
    nb_status status = nb_onnx_unpack(&m);
    if (status == NB_OK) {
        nb_importer im = {.m = &m,
                          .diags = diags,
                          .arena = arena,
                          .rows = {.arena = arena},
                          .functions = {.arena = arena},
                          .looked_at = {.arena = arena},
                          .custom = custom,
                          .n_custom = n_custom};
        nb_import_index(&im);
        nb_import_index_custom(&im);
        status = nb_function_index(&im);
        if (status == NB_OK) status = nb_import_count_operators(&im, m.proto->graph, out, n);
    }
    nb_arena_destroy(arena);
    nb_file_close(&file);
    return status;
}

nb_status nb_import_bytes(const void *bytes, size_t size, const char *name, const char *directory,
                          nb_oom_fn oom, void *user, nb_diags *diags, nb_graph **out) {
    return import_file(NULL, bytes, size, name, directory, &(nb_import_options){0}, oom, user,
                       diags, out);
}

nb_status nb_import(const char *path, nb_oom_fn oom, void *user, nb_diags *diags, nb_graph **out) {
    return nb_import_with(path, NULL, oom, user, diags, out);
}

nb_status nb_import_with(const char *path, const nb_import_options *options, nb_oom_fn oom,
                         void *user, nb_diags *diags, nb_graph **out) {
    const nb_import_options none = {0};
    nb_file file;
    NB_TRY(nb_file_open(path, diags, &file));
    const char *slash = strrchr(path, '/');
    char *directory = slash
                          ? nb_strndup(diags->arena, path, (size_t)(slash - path) + (slash == path))
                          : nb_strdup(diags->arena, "");
    return import_file(&file, file.bytes, file.size, path, directory, options ? options : &none,
                       oom, user, diags, out);
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
