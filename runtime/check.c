/* Whether a descriptor can be used: version, completeness, indices, CPU features (load.h).
 *
 * What passes here is relied on by the rest of the runtime without further checks. */
#include "runtime/cpu.h"
#include "runtime/load.h"

#include <inttypes.h>

/* More ports than any model has; keeps all counts far from overflow. */
#define MAX_COUNT (1u << 20)

static nb_rt_status bad(const nb_model *model, const char *what, char *err) {
    return nb_rt_fail(err, NB_RT_CORRUPT, "the descriptor of model '%s' is damaged: %s",
                      model->name, what);
}

static nb_rt_status check_ports(const nb_model *model, bool input, char *err) {
    const nb_port *ports = input ? model->inputs : model->outputs;
    uint32_t count = input ? model->n_inputs : model->n_outputs;
    for (uint32_t i = 0; i < count; i++) {
        const nb_port *p = &ports[i];
        if (!p->name || !p->shape) return bad(model, "a port has no name or shape", err);
        if (p->rank < 0 || p->rank > NB_MODEL_MAX_RANK)
            return bad(model, "a port has too many dimensions", err);
        if (nb_elem_bits(p->elem) == 0 || (p->state >= 0 && nb_elem_bytes(p->elem) == 0))
            return nb_rt_fail(err, NB_RT_ABI,
                              "%s '%s' has the element type %" PRId32
                              ", which this runtime does not know",
                              input ? "input" : "output", p->name, p->elem);
        if (p->state < -1 || p->state >= (int64_t)model->n_states)
            return bad(model, "a port belongs to a state that does not exist", err);
        if (p->state >= 0) {
            const nb_model_state *s = &model->states[p->state];
            if ((input ? s->input : s->output) != (int64_t)i)
                return bad(model, "a port and its state disagree", err);
        }
    }
    return NB_RT_OK;
}

static nb_rt_status check_states(const nb_model *model, char *err) {
    int32_t symbol = -1;
    for (uint32_t i = 0; i < model->n_states; i++) {
        const nb_model_state *s = &model->states[i];
        if (s->input < 0 || s->input >= (int64_t)model->n_inputs || s->output < 0 ||
            s->output >= (int64_t)model->n_outputs)
            return bad(model, "a state's port does not exist", err);
        const nb_port *in = &model->inputs[s->input], *out = &model->outputs[s->output];
        if (in->state != (int64_t)i || out->state != (int64_t)i || in->elem != out->elem ||
            in->rank != out->rank)
            return bad(model, "a state's input and output do not fit", err);
        if (s->axis < -1 || s->axis >= in->rank || s->symbol < -1 ||
            s->symbol >= (int64_t)model->n_symbols || (s->axis < 0) != (s->symbol < 0))
            return bad(model, "a state's axis or symbol does not exist", err);
        if (!s->appended) continue;
        if (s->axis < 0) return bad(model, "an appended state has no axis", err);
        if (symbol >= 0 && s->symbol != symbol)
            return bad(model, "appended states have different symbols", err);
        symbol = s->symbol;
    }
    return NB_RT_OK;
}

nb_rt_status nb_check_model(const nb_model *model, char *err) {
    if (model->abi != NB_MODEL_ABI)
        return nb_rt_fail(err, NB_RT_ABI, "the model has ABI version %" PRIu32 ", expected %u",
                          model->abi, NB_MODEL_ABI);
    /* `run` is the last member of the first version. */
    if (model->size < offsetof(nb_model, run) + sizeof model->run)
        return nb_rt_fail(err, NB_RT_ABI,
                          "the model's descriptor has %" PRIu32 " bytes, expected %zu", model->size,
                          sizeof *model);
    if (!model->name) return nb_rt_fail(err, NB_RT_CORRUPT, "the model's descriptor has no name");
    if (!model->bind || !model->input_shape || !model->shape || !model->plan || !model->run)
        return bad(model, "a function is missing", err);
    if (model->n_inputs > MAX_COUNT || model->n_outputs > MAX_COUNT ||
        model->n_symbols > MAX_COUNT || model->n_states > MAX_COUNT)
        return bad(model, "too many ports, symbols or states", err);
    if ((model->n_inputs > 0 && !model->inputs) || (model->n_outputs > 0 && !model->outputs) ||
        (model->n_symbols > 0 && !model->symbols) || (model->n_states > 0 && !model->states) ||
        (model->n_ops > 0 && !model->op_names))
        return bad(model, "a table is missing", err);
    if (nb_counted(model) > model->n_symbols || (nb_counted(model) > 0 && !model->counted))
        return bad(model, "its counted symbols are not in a table", err);
    for (uint32_t i = 0; i < nb_counted(model); i++)
        if (model->counted[i] < 0 || model->counted[i] >= (int64_t)model->n_symbols)
            return bad(model, "a counted symbol does not exist", err);
    for (uint32_t i = 0; i < model->n_symbols; i++)
        if (!model->symbols[i].name || model->symbols[i].min > model->symbols[i].max)
            return bad(model, "a symbol has no name or an empty range", err);
    nb_rt_status status = check_ports(model, true, err);
    if (status == NB_RT_OK) status = check_ports(model, false, err);
    if (status == NB_RT_OK) status = check_states(model, err);
    if (status == NB_RT_OK) status = nb_cpu_check(model->features, err);
    return status;
}
