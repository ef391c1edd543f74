/* Nodes of operators that plug-ins bring become calls (custom_ops.h). */
#include "tools/custom_ops.h"

#include <string.h>

static nb_value *make_call(const nb_custom_op *self, struct nb_builder *b,
                           nb_value *const *operands, size_t n_operands, const int64_t *numbers,
                           size_t n_numbers) {
    return nb_make_call(b, self->user, operands, n_operands, numbers, n_numbers);
}

/* Attributes of floats are operands, behind those of the node. */
static uint32_t inputs_of(const nb_op_def *def) {
    size_t floats = 0;
    for (const char *p = def->attributes; p && *p; p = *p ? p + 1 : p) {
        p += strcspn(p, ":");
        floats += *p && (p[1] == 'f' || p[1] == 'F');
    }
    return (uint32_t)(def->operands - floats);
}

size_t nbt_custom_ops(const nb_registry *registry, const nb_custom_op **out) {
    nb_custom_op *list = NB_NEW_ARRAY(registry->arena, nb_custom_op, registry->ops.count + 1);
    size_t n = 0;
    for (size_t i = 0; i < registry->ops.count; i++) {
        const nb_op_def *def = registry->ops.items[i];
        const char *colons = def->onnx ? strstr(def->onnx, "::") : NULL;
        if (!colons) continue;
        list[n++] = (nb_custom_op){
            .domain = nb_strndup(registry->arena, def->onnx, (size_t)(colons - def->onnx)),
            .op = colons + 2,
            .inputs = inputs_of(def),
            .attributes = def->attributes,
            .make = make_call,
            .user = def};
    }
    *out = list;
    return n;
}
