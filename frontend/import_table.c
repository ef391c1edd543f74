/* The table of operators: finding a node's row, refusing nodes that do not fit it (import.h). */
#include "frontend/import.h"

#include "frontend/frontend.h"

#include <string.h>

/* Of a hostile model's unsupported operators no more are named. */
#define MOST_NAMED 200

static const nb_import_row table[] = {
#define IMPORT(domain, op, first, last, least, most, outputs, attributes, function, argument) \
    {domain, #op, first, last, least, most, outputs, attributes, nb_import_##function, argument},
#include "frontend/import_ops.def"
#undef IMPORT
};

const char *const *nb_import_operators(void) {
    static const char *const names[] = {
#define IMPORT(domain, op, ...) domain "::" #op,
#include "frontend/import_ops.def"
#undef IMPORT
        NULL,
    };
    return names;
}

const char *nb_node_domain(const Onnx__NodeProto *n) {
    return !n->domain || strcmp(n->domain, "ai.onnx") == 0 ? "" : n->domain;
}

static const char *full_name(nb_arena *arena, const char *domain, const char *op) {
    return *domain ? nb_format(arena, "%s::%s", domain, op) : op;
}

void nb_import_index(nb_importer *im) {
    for (size_t i = 0; i < NB_COUNT(table); i++) {
        const char *name = full_name(im->arena, table[i].domain, table[i].op);
        nb_map_set_str(&im->rows, name, strlen(name), (void *)(uintptr_t)&table[i]);
    }
}

const nb_import_row *nb_import_find(const nb_importer *im, const Onnx__NodeProto *n) {
    const char *name = full_name(im->arena, nb_node_domain(n), n->op_type);
    const nb_import_row *row = nb_map_get_str(&im->rows, name, strlen(name));
    int64_t opset = nb_import_opset(im, n->domain);
    return row && opset >= row->first && opset <= row->last ? row : NULL;
}

/* ---- what cannot be imported ---------------------------------------------------------------- */

static nb_where in_file(const nb_importer *im) {
    return (nb_where){.file = im->m->name, .offset = -1};
}

/* The operators that were met. */
typedef struct census {
    nb_map places; /* name -> place in the list + 1 */
    NB_VEC(nb_operator_use) list;
    NB_VEC(struct unsupported {
        size_t place; /* of its operator in the list */
        const char *name;
    })
    unsupported; /* the first of these nodes */
} census;

/* The nodes of an operator, by name. */
static void note_nodes(nb_importer *im, const census *c, size_t place) {
    const char *names = "";
    size_t named = 0;
    for (size_t i = 0; i < c->unsupported.count; i++) {
        if (c->unsupported.items[i].place != place) continue;
        names = nb_format(im->arena, "%s%s%.*s", names, *names ? ", " : "", 200,
                          c->unsupported.items[i].name);
        named++;
    }
    const size_t others = c->list.items[place].nodes - named;
    if (named)
        nb_note(im->diags, "%.*s: %s%s", 200, c->list.items[place].name, names,
                others ? nb_format(im->arena, " and %zu others", others) : "");
}

/* What to do instead of an operator that is refused on purpose. */
static void note_refusal(nb_importer *im, const char *name) {
    static const struct {
        const char *name, *instead;
    } refused[] = {
#define REFUSED(name, instead) {name, instead},
#include "frontend/import_refused.def"
#undef REFUSED
    };
    for (size_t i = 0; i < NB_COUNT(refused); i++)
        if (strcmp(refused[i].name, name) == 0)
            nb_note(im->diags, "%s: %s", name, refused[i].instead);
}

static nb_status list_unsupported(nb_importer *im, const census *c) {
    const nb_operator_use *uses = c->list.items;
    const size_t n = c->list.count;
    const char *list = "";
    size_t kinds = 0, nodes = 0;
    for (size_t i = 0; i < n; i++) {
        if (uses[i].supported) continue;
        nodes += uses[i].nodes;
        if (kinds++ >= MOST_NAMED) continue;
        list = nb_format(im->arena, "%s%s%.*s %zu", list, *list ? ", " : "", 200, uses[i].name,
                         uses[i].nodes);
    }
    if (kinds == 0) return NB_OK;
    if (kinds > MOST_NAMED)
        list = nb_format(im->arena, "%s and %zu others", list, kinds - MOST_NAMED);
    nb_error(im->diags, NB_UNSUPPORTED, in_file(im),
             "%zu operator%s in %zu node%s not supported at opset %lld: %s", kinds,
             kinds == 1 ? "" : "s", nodes, nodes == 1 ? " is" : "s are",
             (long long)nb_onnx_opset(im->m, ""), list);
    for (size_t i = 0; i < n; i++) {
        if (uses[i].supported) continue;
        note_nodes(im, c, i);
        note_refusal(im, uses[i].name);
    }
    nb_help(im->diags,
            "`nibble inspect --operators` lists what is supported; plug-ins may bring others");
    return NB_UNSUPPORTED;
}

static nb_status count_nodes(nb_importer *im, size_t n, Onnx__NodeProto *const *nodes, census *c);

/* A function is looked at once, whoever calls it. */
static nb_status count_in_function(nb_importer *im, const Onnx__FunctionProto *f, census *c) {
    if (nb_map_get(&im->looked_at, f)) return NB_OK;
    nb_map_set(&im->looked_at, f, (void *)(uintptr_t)f);
    nb_call call = {.function = f, .outer = im->call};
    im->call = &call;
    nb_status status = count_nodes(im, f->n_node, f->node, c);
    im->call = call.outer;
    return status;
}

static void count_one(nb_importer *im, const Onnx__NodeProto *node, size_t index, bool supported,
                      census *c) {
    nb_arena *arena = im->diags->arena;
    const char *key = full_name(arena, nb_node_domain(node), node->op_type);
    uintptr_t place = (uintptr_t)nb_map_get_str(&c->places, key, strlen(key));
    if (!place) {
        const nb_operator_use use = {.name = nb_strdup(arena, key),
                                     .node = nb_strdup(arena, node->name ? node->name : ""),
                                     .supported = supported};
        nb_vec_push(arena, &c->list, use);
        place = c->list.count;
        nb_map_set_str(&c->places, key, strlen(key), (void *)place);
    }
    c->list.items[place - 1].nodes++;
    if (supported || c->unsupported.count >= MOST_NAMED) return;
    const bool named = node->name && *node->name;
    const struct unsupported u = {place - 1,
                                  named ? node->name : nb_format(im->arena, "#%zu", index)};
    nb_vec_push(im->arena, &c->unsupported, u);
}

static nb_status count_node(nb_importer *im, const Onnx__NodeProto *node, size_t index, census *c) {
    const char *name = node->name ? node->name : "";
    if (!node->op_type || !*node->op_type)
        return nb_error(im->diags, NB_MALFORMED, in_file(im), "node #%zu \"%s\" has no op_type",
                        index, name);
    for (size_t a = 0; a < node->n_attribute; a++) {
        const Onnx__GraphProto *g = node->attribute[a]->g;
        if (g) NB_TRY(count_nodes(im, g->n_node, g->node, c));
    }
    const bool supported = nb_import_find(im, node) != NULL;
    const Onnx__FunctionProto *f = supported ? NULL : nb_function_find(im, node);
    if (f) return count_in_function(im, f, c);
    const char *key = full_name(im->arena, nb_node_domain(node), node->op_type);
    if (!supported && nb_map_get_str(&im->rows, key, strlen(key)) &&
        !nb_import_opset(im, node->domain))
        return nb_error(im->diags, NB_MALFORMED, in_file(im),
                        "node #%zu \"%s\" (%s): the model does not import operator set \"%s\"",
                        index, name, node->op_type, nb_node_domain(node));
    count_one(im, node, index, supported, c);
    return NB_OK;
}

/* Of a graph and those that are attributes in it; the guard bounds how deep they are. */
static nb_status count_nodes(nb_importer *im, size_t n, Onnx__NodeProto *const *nodes, census *c) {
    for (size_t i = 0; i < n; i++) NB_TRY(count_node(im, nodes[i], i, c));
    return NB_OK;
}

nb_status nb_import_count_operators(nb_importer *im, const Onnx__GraphProto *graph,
                                    const nb_operator_use **out, size_t *n) {
    census c = {.places = {.arena = im->arena}};
    NB_TRY(count_nodes(im, graph->n_node, graph->node, &c));
    *out = c.list.items;
    *n = c.list.count;
    return NB_OK;
}

nb_status nb_import_check_operators(nb_importer *im, const Onnx__GraphProto *graph) {
    census c = {.places = {.arena = im->arena}};
    NB_TRY(count_nodes(im, graph->n_node, graph->node, &c));
    return list_unsupported(im, &c);
}

/* ---- does a node fit its row? --------------------------------------------------------------- */

/* The kind letter of what an attribute holds, 0 for none, '?' for several. */
static char held_kind(const Onnx__AttributeProto *a) {
    struct {
        bool held;
        char kind;
    } held[] = {{a->has_f, 'f'},         {a->has_i, 'i'},        {a->has_s, 's'},
                {a->t != NULL, 't'},     {a->g != NULL, 'g'},    {a->sparse_tensor != NULL, 'p'},
                {a->n_floats > 0, 'F'},  {a->n_ints > 0, 'I'},   {a->n_strings > 0, 'S'},
                {a->n_tensors > 0, 'T'}, {a->n_graphs > 0, 'G'}, {a->n_sparse_tensors > 0, 'P'},
                {a->tp != NULL, 'y'}};
    char kind = 0;
    for (size_t i = 0; i < NB_COUNT(held); i++) {
        if (held[i].held) kind = kind ? '?' : held[i].kind;
    }
    return kind;
}

/* Of the declared type: by number, as in the schema. */
static char declared_kind(const Onnx__AttributeProto *a) {
    static const char kinds[] = {0,   'f', 'i', 's', 't', 'g', 'F',
                                 'I', 'S', 'T', 'G', 'p', 'P', 'y'};
    return a->has_type && a->type > 0 && (size_t)a->type < sizeof kinds ? kinds[a->type] : 0;
}

static const char *kind_text(char kind) {
    static const char *const texts[][2] = {
        {"f", "a float"},        {"i", "an integer"}, {"s", "a string"}, {"t", "a tensor"},
        {"g", "a graph"},        {"F", "floats"},     {"I", "integers"}, {"S", "strings"},
        {"T", "tensors"},        {"G", "graphs"},     {"y", "a type"},   {"?", "several values"},
        {"p", "a sparse tensor"}};
    for (size_t i = 0; i < NB_COUNT(texts); i++) {
        if (texts[i][0][0] == kind) return texts[i][1];
    }
    return "nothing";
}

/* Position of `name` among the row's attributes, -1 when it is not there. */
static int position(const char *attributes, const char *name, char *kind) {
    size_t length = strlen(name);
    int at = 0;
    for (const char *p = attributes; *p; at++) {
        size_t n = strcspn(p, " ");
        const char *colon = memchr(p, ':', n);
        if ((size_t)(colon - p) == length && memcmp(p, name, length) == 0) {
            *kind = colon[1];
            return at;
        }
        p += n + (p[n] == ' ');
    }
    return -1;
}

static nb_status check_attribute(nb_importer *im, const Onnx__AttributeProto *a, uint32_t *seen) {
    if (!a->name || !*a->name) return nb_node_error(im, NB_MALFORMED, "an attribute has no name");
    if (a->ref_attr_name && *a->ref_attr_name)
        return nb_node_error(im, NB_MALFORMED,
                             "attribute \"%s\" refers to a function's, outside of any", a->name);
    char kind = 0, held = held_kind(a), declared = declared_kind(a);
    int at = position(im->row->attributes, a->name, &kind);
    if (at < 0) /* contributed operators grow attributes without a new version */
        return nb_node_error(im, *im->row->domain ? NB_UNSUPPORTED : NB_MALFORMED,
                             "attribute \"%s\" is not known", a->name);
    if (*seen & 1u << at)
        return nb_node_error(im, NB_MALFORMED, "attribute \"%s\" is given twice", a->name);
    *seen |= 1u << at;
    /* Writers leave out 0, "" and empty lists when the type is declared. */
    if (!held && declared && strchr("fisFIS", declared)) held = declared;
    if (held != kind || (declared && declared != kind))
        return nb_node_error(im, NB_MALFORMED, "attribute \"%s\" is %s, expected %s", a->name,
                             kind_text(held != kind ? held : declared), kind_text(kind));
    if (kind == 's' && memchr(a->s.data ? a->s.data : (const uint8_t *)"", 0, a->s.len))
        return nb_node_error(im, NB_MALFORMED, "attribute \"%s\" holds a NUL byte", a->name);
    return NB_OK;
}

static nb_status check_attributes(nb_importer *im) {
    uint32_t seen = 0;
    for (size_t i = 0; i < im->node->n_attribute; i++)
        NB_TRY(check_attribute(im, im->node->attribute[i], &seen));
    uint32_t at = 0;
    for (const char *p = im->row->attributes; *p; at++) {
        size_t n = strcspn(p, " ");
        if (p[n - 1] == '!' && !(seen & 1u << at))
            return nb_node_error(im, NB_MALFORMED, "attribute \"%.*s\" is missing",
                                 (int)strcspn(p, ":"), p);
        p += n + (p[n] == ' ');
    }
    return NB_OK;
}

nb_status nb_import_check_node(nb_importer *im) {
    const Onnx__NodeProto *n = im->node;
    const nb_import_row *row = im->row;
    if (n->n_input > row->most_inputs)
        return nb_node_error(im, NB_MALFORMED, "%zu inputs, it takes at most %u", n->n_input,
                             row->most_inputs);
    if (n->n_output > row->most_outputs || n->n_output == 0)
        return nb_node_error(im, NB_MALFORMED, "%zu outputs, it has 1 to %u", n->n_output,
                             row->most_outputs);
    for (size_t i = 0; i < row->least_inputs; i++) {
        if (!nb_has_input(im, i)) return nb_node_error(im, NB_MALFORMED, "input %zu is missing", i);
    }
    return check_attributes(im);
}
