/* The constant descriptor (nb_model) and the one exported function, NAME_model(abi). */
#include "codegen/cg_data.h"
#include "codegen/model.h"
#include "runtime/nb_model.h"

#include <string.h>

/* Structs below are written member by member: a new member of nb_model.h must be added here. */
_Static_assert(sizeof(nb_port) == 32 && sizeof(nb_model_symbol) == 24 &&
                   sizeof(nb_model_state) == 24 && sizeof(nb_model) == 192,
               "descriptor.c writes the structs of nb_model.h");

static cg_val i32(const nb_model_build *b, int64_t value) {
    return cg_data_int(b->m, CG_I32, value);
}
static cg_val i64(const nb_model_build *b, int64_t value) {
    return cg_data_int(b->m, CG_I64, value);
}
static cg_val text(const nb_model_build *b, const char *s) { return cg_data_string(b->m, s); }

static bool is_named(const nb_model_build *b) { return !b->options->cache || b->options->named; }

static cg_val port(const nb_model_build *b, const nb_value *v, const char *name, int state) {
    const char *shape = "[";
    for (int i = 0; i < v->type->rank; i++)
        shape = nb_format(b->arena, "%s%s%s", shape, i ? "," : "",
                          nb_dim_text(b->arena, v->type->dims[i]));
    shape = nb_format(b->arena, "%s]", shape);
    return cg_data_struct(b->m, 6,
                          (cg_val[]){text(b, is_named(b) ? name : ""),
                                     i32(b, nb_elems[v->type->elem].onnx), i32(b, v->type->rank),
                                     i32(b, state), i32(b, 0), text(b, shape)});
}

static int state_of(const nb_graph *g, bool output, uint32_t index) {
    for (size_t i = 0; i < g->states.count; i++) {
        const nb_state *s = &g->states.items[i];
        if ((output ? s->output : s->input) == index) return (int)i;
    }
    return -1;
}

static cg_val inputs(const nb_model_build *b) {
    const nb_region *body = &b->graph->body;
    cg_val *list = NB_NEW_ARRAY(b->arena, cg_val, body->n_params + 1U);
    for (uint32_t i = 0; i < body->n_params; i++)
        list[i] = port(b, body->params[i], body->params[i]->name, state_of(b->graph, false, i));
    return cg_data_array(b->m, "inputs", body->n_params, list);
}

static cg_val outputs(const nb_model_build *b) {
    const nb_graph *g = b->graph;
    cg_val *list = NB_NEW_ARRAY(b->arena, cg_val, g->outputs.count + 1);
    for (uint32_t i = 0; i < g->outputs.count; i++)
        list[i] = port(b, nb_in(g->body.last, i), g->outputs.items[i], state_of(g, true, i));
    return cg_data_array(b->m, "outputs", g->outputs.count, list);
}

static cg_val symbols(const nb_model_build *b) {
    const nb_graph *g = b->graph;
    cg_val *list = NB_NEW_ARRAY(b->arena, cg_val, g->symbols.count + 1);
    for (size_t i = 0; i < g->symbols.count; i++) {
        const nb_symbol *s = g->symbols.items[i];
        list[i] =
            cg_data_struct(b->m, 3, (cg_val[]){text(b, s->name), i64(b, s->min), i64(b, s->max)});
    }
    return cg_data_array(b->m, "symbols", g->symbols.count, list);
}

static cg_val counted(const nb_model_build *b, uint32_t *count) {
    const nb_graph *g = b->graph;
    cg_val *list = NB_NEW_ARRAY(b->arena, cg_val, g->symbols.count + 1);
    *count = 0;
    for (size_t i = 0; i < g->symbols.count; i++)
        if (g->symbols.items[i]->counted) list[(*count)++] = i32(b, (int64_t)i);
    return cg_data_array(b->m, "counted", *count, list);
}

static cg_val states(const nb_model_build *b) {
    const nb_graph *g = b->graph;
    cg_val *list = NB_NEW_ARRAY(b->arena, cg_val, g->states.count + 1);
    for (size_t i = 0; i < g->states.count; i++) {
        const nb_state *s = &g->states.items[i];
        int64_t symbol = -1;
        if (s->axis >= 0) {
            const nb_dim *length = g->body.params[s->input]->type->dims[s->axis];
            if (length->kind == NB_DIM_SYMBOL) symbol = length->symbol->index;
        }
        list[i] =
            cg_data_struct(b->m, 6,
                           (cg_val[]){i32(b, s->input), i32(b, s->output), i32(b, s->appended),
                                      i32(b, s->axis), i32(b, symbol), i32(b, 0)});
    }
    return cg_data_array(b->m, "states", g->states.count, list);
}

/* Names for messages: of ops that can fail, if others should not matter. */
static const char *op_name(const nb_model_build *b, const nb_op *op) {
    if (!is_named(b) && !nb_lowering_of(op->kind)->check) return "";
    const char *name = nb_loc_name(op->loc);
    return !*name && op->n_results ? nb_out(op)->name : name;
}

/* Indexed by an op's position in the graph. */
static cg_val op_names(const nb_model_build *b, uint32_t *count) {
    NB_VEC(cg_val) list = {.count = 0};
    NB_FOR_OPS(op, &b->graph->body) {
        cg_val item = text(b, op_name(b, op));
        nb_vec_push(b->arena, &list, item);
    }
    *count = (uint32_t)list.count;
    return cg_data_array(b->m, "op_names", list.count, list.items);
}

void nb_model_descriptor(nb_model_build *b) {
    const nb_graph *g = b->graph;
    const nb_codegen_options *o = b->options;
    uint32_t n_ops, n_counted;
    cg_val counted_symbols = counted(b, &n_counted);
    cg_val names = op_names(b, &n_ops);
    cg_val weights = cg_data_null(b->m);
    if (o->embed && nb_pack_size(b->pack))
        weights = cg_data_file(b->m, nb_format(b->arena, "%s_weights", o->name), o->embed);

    const cg_val members[] = {
        i32(b, (int64_t)sizeof(nb_model)),
        i32(b, NB_MODEL_ABI),
        text(b, o->name),
        text(b, "nibble " NIBBLE_VERSION),
        text(b, o->cpu->triple),
        text(b, o->scheme ? o->scheme : ""),
        i64(b, (int64_t)o->cpu->features),
        i32(b, g->body.n_params),
        i32(b, (int64_t)g->outputs.count),
        i32(b, (int64_t)g->symbols.count),
        i32(b, (int64_t)g->states.count),
        inputs(b),
        outputs(b),
        symbols(b),
        states(b),
        i32(b, (int64_t)b->n_slots + 1),
        i32(b, n_ops),
        names,
        i64(b, nb_pack_size(b->pack)),
        i64(b, (int64_t)b->weights_hash),
        weights,
        b->bind,
        b->input_shape,
        b->shape,
        b->plan,
        b->run,
        i32(b, n_counted),
        i32(b, 0),
        counted_symbols,
    };
    cg_val model =
        cg_data_global(b->m, "model", cg_data_struct(b->m, (int)NB_COUNT(members), members));

    const cg_type abi = CG_S(CG_I32);
    cg *f = cg_function(b->m, nb_format(b->arena, "%s_model", o->name), CG_S(CG_PTR), 1, &abi,
                        CG_EXPORTED);
    cg_val same = cg_cmpi(f, CG_EQ, cg_param(f, 0), NB_MODEL_ABI);
    cg_return(f, cg_select(f, same, model, cg_zero(f, CG_S(CG_PTR))));
    cg_finish(f);
}
