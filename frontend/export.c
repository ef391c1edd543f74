/* A graph as an ONNX model: ports, names, one table row after the other (export.h). */
#include "frontend/export.h"

#include <string.h>

/* ---- the table ------------------------------------------------------------------------------ */

#define EXPORT(op, function, operator) nb_status nb_export_##function(nb_exporter *x);
#define KEPT(op, reason)
#include "frontend/export_ops.def"
#undef EXPORT
#undef KEPT

const nb_export_row nb_export_rows[NB_OP_COUNT] = {
#define EXPORT(op, function, operator) [NB_OP_##op] = {nb_export_##function, operator},
#define KEPT(op, reason)               [NB_OP_##op] = {NULL, reason},
#include "frontend/export_ops.def"
#undef EXPORT
#undef KEPT
};

nb_status nb_export_refuse(nb_exporter *x, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    const char *text = nb_vformat(x->arena, fmt, args);
    va_end(args);
    const char *node = nb_loc_name(x->op->loc);
    return nb_error(x->diags, NB_UNSUPPORTED,
                    (nb_where){.file = x->g->file, .node = *node ? node : NULL, .offset = -1},
                    "%s cannot be written as ONNX: %s", nb_info(x->op)->name, text);
}

static void count_kept(const nb_region *region, size_t *counts) {
    for (const nb_op *op = region->first; op; op = op->next) {
        counts[op->kind] += op->kind != NB_OP_return && !nb_export_rows[op->kind].fn;
        for (uint32_t r = 0; r < op->n_regions; r++) count_kept(op->regions[r], counts);
    }
}

/* Operations that no row can write, all in one error. */
static nb_status check_operations(nb_exporter *x) {
    size_t counts[NB_OP_COUNT] = {0}, kinds = 0, nodes = 0;
    count_kept(&x->g->body, counts);
    const char *list = "";
    for (int k = 0; k < NB_OP_COUNT; k++) {
        const char *why = nb_export_rows[k].operator;
        if (!counts[k]) continue;
        list = nb_format(x->arena, "%s%s%s (%zu; %s)", list, kinds++ ? ", " : "", nb_ops[k].name,
                         counts[k], why ? why : "there is no rule for it");
        nodes += counts[k];
    }
    if (!kinds) return NB_OK;
    return nb_error(x->diags, NB_UNSUPPORTED, (nb_where){.file = x->g->file, .offset = -1},
                    "%zu operation%s cannot be written as ONNX: %s", nodes, nodes == 1 ? "" : "s",
                    list);
}

/* ---- nodes ---------------------------------------------------------------------------------- */

nb_port *nb_put_node(nb_exporter *x, const char *type, size_t n, nb_port *const *inputs) {
    nb_onnx_node *node = NB_NEW(x->arena, nb_onnx_node);
    while (n && !inputs[n - 1]) n--;
    node->type = type;
    node->n_inputs = n;
    node->inputs = (nb_port **)nb_alloc_array(x->arena, n + 1, sizeof *node->inputs);
    if (n) memcpy(node->inputs, inputs, n * sizeof *inputs);
    nb_vec_push(x->arena, &x->graph->nodes, node);
    return nb_put_output(x);
}

nb_onnx_node *nb_last_node(const nb_exporter *x) {
    return x->graph->nodes.items[x->graph->nodes.count - 1];
}

nb_port *nb_put_output(nb_exporter *x) {
    nb_onnx_node *node = nb_last_node(x);
    nb_port **outputs = (nb_port **)nb_alloc_array(x->arena, node->n_outputs + 1, sizeof *outputs);
    if (node->n_outputs) memcpy(outputs, node->outputs, node->n_outputs * sizeof *outputs);
    node->outputs = outputs;
    nb_port *port = node->outputs[node->n_outputs++] = NB_NEW(x->arena, nb_port);
    port->graph = x->graph;
    port->maker = node;
    return port;
}

void nb_put_attr(nb_exporter *x, nb_onnx_attr attr) {
    nb_onnx_node *node = nb_last_node(x);
    if (node->n_attrs < NB_MAX_ONNX_ATTRS) node->attrs[node->n_attrs++] = attr;
}

void nb_put_ints(nb_exporter *x, const char *name, size_t n, const int64_t *values) {
    int64_t *copy = NB_NEW_ARRAY(x->arena, int64_t, n + 1);
    if (n) memcpy(copy, values, n * sizeof *copy);
    nb_put_attr(x, (nb_onnx_attr){.name = name, .kind = NB_ONNX_INTS, .ints = copy, .count = n});
}

nb_port *nb_put_cast(nb_exporter *x, nb_port *from, nb_elem to) {
    nb_port *y = NB_PUT(x, "Cast", from);
    nb_put_attr(x, NB_ATTR_I("to", nb_elems[to].onnx));
    return y;
}

nb_port *nb_put_slice(nb_exporter *x, nb_port *from, int64_t axis, int64_t start, int64_t end,
                      int64_t step) {
    return NB_PUT(x, "Slice", from, nb_port_i64s(x, 1, &start), nb_port_i64s(x, 1, &end),
                  nb_port_i64s(x, 1, &axis), step == 1 ? NULL : nb_port_i64s(x, 1, &step));
}

/* A dimension that stays where it is is 0 in the shape, if the others are constants: the shape is
 * one then. Where sizes are computed, one of 0 is meant. */
nb_port *nb_put_reshape(nb_exporter *x, nb_port *from, const nb_type *type, size_t n,
                        const nb_dim *const *dims) {
    const nb_dim *shape[NB_MAX_RANK + 4];
    bool plain = true;
    for (size_t i = 0; i < n && plain; i++) {
        const bool stays = type && (int)i < type->rank && type->dims[i] == dims[i];
        plain = nb_dim_is_const(dims[i]) ? !nb_dim_is(dims[i], 0) : stays;
        shape[i] = nb_dim_is_const(dims[i]) ? dims[i] : nb_dim_const(x->g, 0);
    }
    nb_port *to = nb_port_dims(x, n, plain ? shape : dims),
            *y = to ? NB_PUT(x, "Reshape", from, to) : NULL;
    if (y && !plain) nb_put_attr(x, NB_ATTR_I("allowzero", 1));
    return y;
}

/* ---- names ---------------------------------------------------------------------------------- */

const char *nb_export_name(nb_exporter *x, const char *wanted) {
    const char *name = wanted;
    for (int i = 1; nb_map_get_str(&x->names, name, strlen(name)); i++)
        name = nb_format(x->arena, "%s_%d", wanted, i);
    return nb_map_set_str(&x->names, name, strlen(name), x);
}

/* The name of the first output that v is, or NULL. */
static const char *output_name(const nb_exporter *x, const nb_value *v) {
    const nb_op *end = x->g->body.last;
    for (const nb_use *u = v->uses; u; u = u->next)
        if (u->user == end) return x->g->outputs.items[u->index];
    return NULL;
}

/* The nodes of one op: the main one, or else the last that is no transpose behind another, has the
 * name of the ONNX node that the op came from. */
static void name_nodes(nb_exporter *x, size_t from) {
    const char *base = nb_loc_name(x->op->loc);
    if (!*base) base = nb_out(x->op)->name;
    const size_t count = x->graph->nodes.count;
    size_t last = count;
    while (last > from + 1 && strcmp(x->graph->nodes.items[last - 1]->type, "Transpose") == 0)
        last--;
    for (size_t i = from; i < count; i++) {
        nb_onnx_node *n = x->graph->nodes.items[i];
        const bool main = x->main ? n == x->main : i + 1 == last;
        n->name = main ? base : nb_format(x->arena, "%s/%s", base, n->type);
    }
}

/* ---- operands and results ------------------------------------------------------------------- */

nb_port *nb_port_of(nb_exporter *x, nb_value *v) {
    for (const nb_onnx_graph *g = x->graph; g; g = g->outer) {
        nb_port *p = nb_map_get(&g->values, v);
        if (p) return p;
    }
    if (nb_is_const(v)) return v->type->quant ? nb_port_reals(x, v) : nb_port_const(x, v);
    return nb_port_coded(x, v);
}

nb_port *nb_operand(nb_exporter *x, size_t i) {
    nb_value *v = i < x->op->n_operands ? nb_in(x->op, i) : NULL;
    return v ? nb_port_of(x, v) : NULL;
}

nb_status nb_export_result(nb_exporter *x, size_t i, nb_port *port) {
    const nb_value *v = x->op->results[i];
    if (!port) {
        const nb_status status = nb_diags_status(x->diags);
        return status != NB_OK ? status : nb_export_refuse(x, "there is no rule for this form");
    }
    if (nb_elems[v->type->elem].onnx == 0)
        return nb_export_refuse(x, "ONNX has no type like %s", nb_elems[v->type->elem].text);
    const nb_value *from = x->op->n_operands ? nb_in(x->op, 0) : NULL;
    if (from && nb_map_get(&x->shifted, from)) nb_map_set(&x->shifted, v, port);
    if (!port->name) {
        const char *out = output_name(x, v);
        port->name = out ? out : nb_export_name(x, v->name);
        port->type = nb_map_get(&x->shifted, v) ? NULL : v->type;
    }
    nb_map_set(&x->graph->values, v, port);
    return NB_OK;
}

/* ---- the graph ------------------------------------------------------------------------------ */

static nb_status add_inputs(nb_exporter *x) {
    for (size_t i = 0; i < x->g->outputs.count; i++) nb_export_name(x, x->g->outputs.items[i]);
    for (uint32_t i = 0; i < x->g->body.n_params; i++) {
        nb_value *v = x->g->body.params[i];
        nb_port *p = NB_NEW(x->arena, nb_port);
        p->name = nb_export_name(x, v->name);
        nb_map_set(&x->graph->values, v, p);
        if (!v->type->quant && nb_elems[v->type->elem].onnx) continue;
        return nb_error(x->diags, NB_UNSUPPORTED, (nb_where){.file = x->g->file, .offset = -1},
                        "input \"%s\": ONNX has no type like %s", v->name,
                        nb_type_text(x->arena, v->type));
    }
    return NB_OK;
}

/* What is an input, a constant or another output too gets a name of its own. */
static nb_status add_outputs(nb_exporter *x) {
    const nb_op *end = x->g->body.last;
    x->op = end;
    for (uint32_t i = 0; i < end->n_operands; i++) {
        const char *name = x->g->outputs.items[i];
        if (nb_in(end, i)->type->quant) return nb_export_refuse(x, "output \"%s\" is codes", name);
        nb_port *p = nb_operand(x, i);
        if (!p) return nb_diags_status(x->diags);
        p->used = true;
        if (p->name && strcmp(p->name, name) == 0) continue;
        p = NB_PUT(x, "Identity", p);
        p->name = name;
        p->used = true;
    }
    return NB_OK;
}

nb_status nb_export_region(nb_exporter *x, const nb_region *region) {
    const size_t before = x->diags->errors;
    const nb_op *at_hand = x->op;
    for (const nb_op *op = region->first; op; op = op->next) {
        if (op->kind == NB_OP_return) break;
        const size_t from = x->graph->nodes.count;
        x->op = op;
        x->main = NULL;
        const nb_status status = nb_export_rows[op->kind].fn(x);
        /* What depends on a refused op cannot be looked at. */
        if (status != NB_OK || x->diags->errors != before) return nb_diags_status(x->diags);
        name_nodes(x, from);
    }
    x->op = at_hand;
    x->main = NULL;
    return NB_OK;
}

nb_onnx_graph *nb_open_graph(nb_exporter *x, const char *name) {
    nb_onnx_graph *g = NB_NEW(x->arena, nb_onnx_graph);
    *g = (nb_onnx_graph){.outer = x->graph,
                         .name = name,
                         .values = {.arena = x->arena},
                         .dims = {.arena = x->arena},
                         .shared = {.arena = x->arena}};
    return x->graph = g;
}

void nb_close_graph(nb_exporter *x) { x->graph = x->graph->outer; }

nb_status nb_export(nb_graph *g, const nb_export_options *options, const char *path,
                    nb_diags *diags) {
    nb_arena *arena = nb_arena_create_like(g->arena);
    nb_exporter x = {.g = g,
                     .options = options,
                     .arena = arena,
                     .diags = diags,
                     .coded = {.arena = arena},
                     .shifted = {.arena = arena},
                     .names = {.arena = arena}};
    x.model = nb_open_graph(&x, g->name);
    nb_status status = check_operations(&x);
    if (status == NB_OK) status = add_inputs(&x);
    if (status == NB_OK) status = nb_export_region(&x, &g->body);
    if (status == NB_OK) status = add_outputs(&x);
    if (status == NB_OK) nb_export_sweep(&x);
    if (status == NB_OK) status = nb_export_write(&x, path);
    nb_arena_destroy(arena);
    return status;
}
