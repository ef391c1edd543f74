/* A LoRA adapter (Hu et al., arXiv 2106.09685) as PEFT writes it: adapter_model.safetensors, with
 * NAME.lora_A.weight [r, inputs] and NAME.lora_B.weight [outputs, r] for each layer, and
 * adapter_config.json beside it. */
#ifndef NB_PASSES_ADAPTER_FILE_H
#define NB_PASSES_ADAPTER_FILE_H

#include "ir/support/file.h"
#include "passes/safetensors.h"

typedef struct nb_adapter_layer {
    const char *name;       /* of the module: model.layers.0.self_attn.q_proj */
    const nb_tensor *a, *b; /* both given, floats, with shapes that fit */
    float scale;            /* of the product: alpha / r */
} nb_adapter_layer;

typedef struct nb_adapter {
    nb_file file;
    nb_safetensors tensors;
    NB_VEC(nb_adapter_layer) layers; /* at least one, in the order of the file */
} nb_adapter;

/* `scale`: instead of what adapter_config.json says, or NULL. What was opened is closed again when
 * this fails. */
nb_status nb_adapter_open(const char *path, const float *scale, nb_arena *arena, nb_diags *diags,
                          nb_adapter *out);
void nb_adapter_close(nb_adapter *adapter);

#endif
