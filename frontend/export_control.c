/* Ops with bodies as ONNX: If, Scan and Loop.
 *
 * What a body takes from outside it sees by its name there. A loop that goes through slices to
 * their end and does not ask for the number of its step is a Scan. Any other is a Loop, which takes
 * entries of what is sliced by the number of the step; where it may end early, its stacks get the
 * zeros of the steps that did not come. */
#include "frontend/export.h"

static nb_port *add_input(nb_exporter *x, const char *name, const nb_type *type) {
    nb_port *p = NB_NEW(x->arena, nb_port);
    p->name = nb_export_name(x, name);
    nb_vec_push(x->arena, &x->graph->inputs, ((nb_onnx_info){p, type}));
    return p;
}

static void add_param(nb_exporter *x, const nb_value *param) {
    nb_map_set(&x->graph->values, param, add_input(x, param->name, param->type));
}

static void add_output(nb_exporter *x, nb_port *p, const nb_type *type) {
    nb_vec_push(x->arena, &x->graph->outputs, ((nb_onnx_info){p, type}));
}

/* What the body returns. Each output is made by a node of its own body, and once. */
static nb_status add_returned(nb_exporter *x, const nb_region *region) {
    const nb_op *at_hand = x->op;
    x->op = region->last;
    for (uint32_t i = 0; i < region->last->n_operands; i++) {
        nb_port *p = nb_operand(x, i);
        if (!p) return nb_diags_status(x->diags);
        bool own = p->graph == x->graph;
        for (size_t k = 0; k < x->graph->outputs.count; k++)
            own = own && x->graph->outputs.items[k].port != p;
        add_output(x, own ? p : NB_PUT(x, "Identity", p), nb_in(region->last, i)->type);
    }
    x->op = at_hand;
    return NB_OK;
}

/* Ports of all operands from `first` on; NULL after an error. */
static nb_port **operands_from(nb_exporter *x, uint32_t first) {
    const uint32_t n = x->op->n_operands;
    nb_port **ports = (nb_port **)nb_alloc_array(x->arena, n + 1U, sizeof *ports);
    for (uint32_t i = first; i < n; i++) {
        ports[i] = nb_operand(x, i);
        if (!ports[i]) return NULL;
    }
    return ports;
}

static nb_onnx_attr graph_attr(const char *name, nb_onnx_graph *graph) {
    return (nb_onnx_attr){.name = name, .kind = NB_ONNX_GRAPH, .graph = graph};
}

/* The outputs of the node that was just put, as many as the op has results. */
static nb_port **results_of(nb_exporter *x, nb_port *first) {
    nb_port **y = (nb_port **)nb_alloc_array(x->arena, x->op->n_results + 1U, sizeof *y);
    y[0] = first;
    for (uint32_t i = 1; i < x->op->n_results; i++) y[i] = nb_put_output(x);
    x->main = nb_last_node(x);
    return y;
}

/* ---- if ------------------------------------------------------------------------------------- */

static nb_status put_branch(nb_exporter *x, const char *name, const nb_region *region,
                            nb_port *const *ports, nb_onnx_graph **out) {
    *out = nb_open_graph(x, name);
    for (uint32_t i = 0; i < region->n_params; i++)
        nb_map_set(&x->graph->values, region->params[i], ports[i + 1]);
    NB_TRY(nb_export_region(x, region));
    NB_TRY(add_returned(x, region));
    nb_close_graph(x);
    return NB_OK;
}

nb_status nb_export_if(nb_exporter *x) {
    nb_onnx_graph *then, *other;
    nb_port **ports = operands_from(x, 0);
    if (!ports) return nb_diags_status(x->diags);
    NB_TRY(put_branch(x, "then", x->op->regions[0], ports, &then));
    NB_TRY(put_branch(x, "else", x->op->regions[1], ports, &other));
    nb_port *first = NB_PUT(x, "If", ports[0]), **y = results_of(x, first);
    nb_put_attr(x, graph_attr("then_branch", then));
    nb_put_attr(x, graph_attr("else_branch", other));
    for (uint32_t i = 0; i < x->op->n_results; i++) NB_TRY(nb_export_result(x, i, y[i]));
    return NB_OK;
}

/* ---- loop ----------------------------------------------------------------------------------- */

typedef struct looping {
    nb_exporter *x;
    const nb_region *body;
    const nb_dim *count; /* NULL: no bound */
    uint32_t carried, sliced;
    const nb_attr *reverse;
    nb_port **ports; /* of operands */
} looping;

static bool is_reversed(const looping *l, size_t side) {
    return side < l->reverse->ints.count && l->reverse->ints.items[side];
}

/* May there be fewer steps than `count`? */
static bool may_end(const looping *l) { return nb_in(l->x->op, 0) || nb_in(l->x->op, 1); }

/* Captures are the last parameters. */
static void add_captures(const looping *l) {
    for (uint32_t i = l->carried + l->sliced; i + NB_LOOP_OPERANDS < l->x->op->n_operands; i++)
        nb_map_set(&l->x->graph->values, l->body->params[i + NB_LOOP_PARAMS],
                   l->ports[i + NB_LOOP_OPERANDS]);
}

static nb_status put_scan(looping *l) {
    nb_exporter *x = l->x;
    const nb_attr *reverse = l->reverse;
    nb_onnx_graph *body = nb_open_graph(x, "step");
    for (uint32_t i = 0; i < l->carried + l->sliced; i++)
        add_param(x, l->body->params[i + NB_LOOP_PARAMS]);
    add_captures(l);
    NB_TRY(nb_export_region(x, l->body));
    NB_TRY(add_returned(x, l->body));
    nb_close_graph(x);
    nb_port *first = nb_put_node(x, "Scan", l->carried + l->sliced, l->ports + NB_LOOP_OPERANDS),
            **y = results_of(x, first);
    nb_put_attr(x, graph_attr("body", body));
    nb_put_attr(x, NB_ATTR_I("num_scan_inputs", l->sliced));
    if (reverse->ints.count) {
        nb_put_ints(x, "scan_input_directions", l->sliced, reverse->ints.items);
        nb_put_ints(x, "scan_output_directions", reverse->ints.count - l->sliced,
                    reverse->ints.items + l->sliced);
    }
    for (uint32_t i = 0; i < x->op->n_results; i++) NB_TRY(nb_export_result(x, i, y[i]));
    return NB_OK;
}

/* How many steps there are at most; NULL: there is no end. */
static nb_port *put_trips(const looping *l) {
    nb_exporter *x = l->x;
    nb_port *limit = nb_in(x->op, 0) ? nb_operand(x, 0) : NULL,
            *count = l->count ? nb_port_dim(x, l->count) : NULL;
    return limit && count ? NB_PUT(x, "Min", limit, count) : limit ? limit : count;
}

/* Slices that this step takes, in the body. */
static nb_status put_slices(const looping *l, nb_port *step) {
    nb_exporter *x = l->x;
    nb_port *back = NULL;
    for (uint32_t i = 0; i < l->sliced; i++) {
        const uint32_t at = l->carried + i;
        nb_port *index = step;
        if (is_reversed(l, i)) {
            if (!back) {
                back = nb_port_dim(x, nb_dim_sub(x->g, l->count, nb_dim_const(x->g, 1)));
                back = back ? NB_PUT(x, "Sub", back, step) : NULL;
            }
            index = back;
        }
        if (!index) return nb_diags_status(x->diags);
        nb_port *slice = NB_PUT(x, "Gather", l->ports[at + NB_LOOP_OPERANDS], index);
        nb_map_set(&x->graph->values, l->body->params[at + NB_LOOP_PARAMS], slice);
    }
    return NB_OK;
}

/* A stack as long as `count`, in its order. */
static nb_port *put_stack(const looping *l, size_t i, nb_port *y) {
    nb_exporter *x = l->x;
    const nb_type *t = x->op->results[l->carried + i]->type;
    const int64_t behind = 1;
    if (may_end(l)) {
        nb_port *shape = nb_port_dims(x, (size_t)t->rank, t->dims), *zero = nb_port_i64(x, 0);
        if (!shape) return NULL;
        nb_port *n = NB_PUT(x, "Reshape", nb_put_size(x, y, 0), nb_port_i64s(x, 0, NULL)),
                *at = NB_PUT(x, "Range", zero, n, nb_port_i64(x, 1));
        at = NB_PUT(x, "Unsqueeze", at, nb_port_i64s(x, 1, &behind));
        y = NB_PUT(x, "ScatterND", NB_PUT(x, "Expand", nb_put_cast(x, zero, t->elem), shape), at,
                   y);
    }
    return is_reversed(l, l->sliced + i) ? nb_put_slice(x, y, 0, -1, INT64_MIN, -1) : y;
}

static nb_status put_loop(looping *l) {
    nb_exporter *x = l->x;
    const bool asks = nb_in(x->op, 1) != NULL;
    const nb_type *truth = nb_type_intern(x->g, NB_BOOL, NULL, 0, NULL);
    nb_port **in = (nb_port **)nb_alloc_array(x->arena, l->carried + 2U, sizeof *in);
    in[0] = put_trips(l);
    in[1] = asks ? nb_operand(x, 1) : nb_put_cast(x, nb_port_i64(x, 1), NB_BOOL);
    for (uint32_t i = 0; i < l->carried; i++) in[i + 2] = l->ports[i + NB_LOOP_OPERANDS];
    if (x->diags->errors) return nb_diags_status(x->diags);
    nb_onnx_graph *body = nb_open_graph(x, "step");
    add_param(x, l->body->params[0]);
    nb_port *step = body->inputs.items[0].port, *goes_on = add_input(x, "goes_on", truth);
    for (uint32_t i = 0; i < l->carried; i++) add_param(x, l->body->params[i + NB_LOOP_PARAMS]);
    NB_TRY(put_slices(l, step));
    add_captures(l);
    NB_TRY(nb_export_region(x, l->body));
    if (!asks) add_output(x, NB_PUT(x, "Identity", goes_on), truth);
    NB_TRY(add_returned(x, l->body));
    nb_close_graph(x);
    nb_port *first = nb_put_node(x, "Loop", l->carried + 2U, in), **y = results_of(x, first);
    nb_put_attr(x, graph_attr("body", body));
    for (uint32_t i = 0; i < x->op->n_results; i++)
        NB_TRY(nb_export_result(x, i, i < l->carried ? y[i] : put_stack(l, i - l->carried, y[i])));
    return NB_OK;
}

nb_status nb_export_loop(nb_exporter *x) {
    const nb_attr *count = nb_attr_of(x->op, "count");
    looping l = {.x = x,
                 .body = x->op->regions[0],
                 .count = count->set ? count->dims.items[0] : NULL,
                 .carried = (uint32_t)nb_attr_int(x->op, "carried"),
                 .sliced = (uint32_t)nb_attr_int(x->op, "sliced"),
                 .reverse = nb_attr_of(x->op, "reverse"),
                 .ports = operands_from(x, NB_LOOP_OPERANDS)};
    if (!l.ports) return nb_diags_status(x->diags);
    return l.sliced && !may_end(&l) && !l.body->params[0]->uses ? put_scan(&l) : put_loop(&l);
}
