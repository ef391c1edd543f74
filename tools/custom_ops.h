/* Operators of ONNX models that plug-ins bring, for the importer. */
#ifndef NBT_CUSTOM_OPS_H
#define NBT_CUSTOM_OPS_H

#include "frontend/frontend.h"
#include "passes/pass.h"

/* One for each operation of the registry that stands for an operator; in memory of the registry. */
size_t nbt_custom_ops(const nb_registry *registry, const nb_custom_op **out);

#endif
