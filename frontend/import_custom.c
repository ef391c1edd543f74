/* Operators that others bring (nb_custom_op): their rows, and the node's attributes as operands and
 * numbers. */
#include "frontend/import.h"

#include <stdlib.h>
#include <string.h>

/* One of "axis:i=-1 pads:I alpha:f". */
typedef struct attribute {
    const char *name;
    size_t length;
    char kind;
    const char *fallback; /* behind '='; NULL: a node must have it */
} attribute;

/* The next one of the list, or false at its end. */
static bool next_attribute(const char **text, attribute *out) {
    const char *p = *text ? *text + strspn(*text, " ") : "";
    if (!*p) return false;
    *out = (attribute){.name = p, .length = strcspn(p, ":")};
    p += out->length + 1;
    out->kind = *p++;
    if (*p == '=') out->fallback = p + 1;
    *text = p + strcspn(p, " ");
    return true;
}

/* As rows of the table have them: "axis:i alpha:f!". */
static const char *row_attributes(nb_arena *arena, const char *text) {
    const char *out = "";
    attribute a;
    while (next_attribute(&text, &a))
        out = nb_format(arena, "%s%s%.*s:%c%s", out, *out ? " " : "", (int)a.length, a.name, a.kind,
                        a.fallback ? "" : "!");
    return out;
}

static nb_status import_custom(nb_importer *im);

void nb_import_index_custom(nb_importer *im) {
    for (size_t i = 0; i < im->n_custom; i++) {
        const nb_custom_op *c = &im->custom[i];
        nb_import_row *row = NB_NEW(im->arena, nb_import_row);
        *row = (nb_import_row){.domain = c->domain,
                               .op = c->op,
                               .first = 1,
                               .last = INT64_MAX,
                               .least_inputs = c->inputs,
                               .most_inputs = c->inputs,
                               .most_outputs = 1,
                               .attributes = row_attributes(im->arena, c->attributes),
                               .fn = import_custom,
                               .argument = (int)i};
        const char *name = nb_format(im->arena, "%s::%s", c->domain, c->op);
        nb_map_set_str(&im->rows, name, strlen(name), row);
    }
}

/* ---- a node --------------------------------------------------------------------------------- */

typedef struct gathered {
    nb_importer *im;
    NB_VEC(nb_value *) operands;
    NB_VEC(int64_t) numbers;
} gathered;

static void add_floats(gathered *g, const attribute *a, int rank, int64_t n, const float *values) {
    const char *name = nb_format(g->im->arena, "%.*s", (int)a->length, a->name);
    nb_value *v = nb_const_f32(g->im->g, name, rank, &n, values);
    nb_vec_push(g->im->arena, &g->operands, v);
}

static void gather_attribute(gathered *g, const attribute *a) {
    nb_importer *im = g->im;
    const char *name = nb_strndup(im->arena, a->name, a->length);
    const Onnx__AttributeProto *found = nb_node_attr(im, name);
    if (a->kind == 'i') {
        const int64_t usual = a->fallback ? strtoll(a->fallback, NULL, 10) : 0,
                      value = nb_node_int(im, name, usual);
        nb_vec_push(im->arena, &g->numbers, value);
    } else if (a->kind == 'I') {
        for (size_t i = 0; found && i < found->n_ints; i++)
            nb_vec_push(im->arena, &g->numbers, found->ints[i]);
    } else if (a->kind == 'f') {
        const float usual = a->fallback ? strtof(a->fallback, NULL) : 0,
                    value = nb_node_float(im, name, usual);
        add_floats(g, a, 0, 1, &value);
    } else {
        const size_t n = found ? found->n_floats : 0;
        add_floats(g, a, 1, (int64_t)n, n ? found->floats : NULL);
    }
}

static nb_status import_custom(nb_importer *im) {
    const nb_custom_op *c = &im->custom[im->argument];
    gathered g = {.im = im};
    const char *text = c->attributes;
    attribute a;
    for (uint32_t i = 0; i < c->inputs; i++) {
        nb_value *v = nb_node_input(im, i);
        nb_vec_push(im->arena, &g.operands, v);
    }
    while (next_attribute(&text, &a)) gather_attribute(&g, &a);
    return nb_node_output(
        im, 0,
        c->make(c, &im->b, g.operands.items, g.operands.count, g.numbers.items, g.numbers.count));
}
