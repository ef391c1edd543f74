/* Pins inputs in the ONNX file itself, so that the importer sees constants (pin.h). */
#include "tests/backend/pin.h"

#include "onnx/onnx.pb-c.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bytes read_bytes(const char *path) {
    bytes b = {0};
    FILE *f = fopen(path, "rb");
    if (!f) return b;
    if (fseek(f, 0, SEEK_END) == 0 && ftell(f) >= 0) {
        b.size = (size_t)ftell(f);
        rewind(f);
        b.data = malloc(b.size + 1);
        if (b.data && fread(b.data, 1, b.size, f) != b.size) {
            free(b.data);
            b.data = NULL;
        }
    }
    fclose(f);
    return b;
}

static bool is_tensor(const Onnx__ValueInfoProto *input) {
    return input->type && input->type->value_case == ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE &&
           input->type->tensor_type;
}

/* Moves input i of the graph to its initializers; `made` are ours to free. */
static bool pin(Onnx__GraphProto *g, size_t i, const bytes *input, Onnx__TensorProto **made) {
    Onnx__TensorProto *t = onnx__tensor_proto__unpack(NULL, input->size, input->data);
    if (!t) return false;
    /* ONNX's data holds bfloat16 as uint16. */
    if (g->input[i]->type->tensor_type->elem_type == ONNX__TENSOR_PROTO__DATA_TYPE__BFLOAT16 &&
        t->data_type == ONNX__TENSOR_PROTO__DATA_TYPE__UINT16)
        t->data_type = ONNX__TENSOR_PROTO__DATA_TYPE__BFLOAT16;
    free(t->name);
    t->name = strdup(g->input[i]->name);
    *made = t;
    g->initializer[g->n_initializer++] = t;
    return true;
}

static bytes pack(const Onnx__ModelProto *model) {
    bytes out = {.size = onnx__model_proto__get_packed_size(model)};
    out.data = malloc(out.size + 1);
    if (out.data) onnx__model_proto__pack(model, out.data);
    return out;
}

bytes pin_inputs(bytes model, const bytes *inputs, size_t n) {
    bytes out = {0};
    Onnx__ModelProto *m = onnx__model_proto__unpack(NULL, model.size, model.data);
    if (!m) return out;
    Onnx__GraphProto *g = m->graph;
    if (g && n > 1 && g->n_input == n) {
        size_t before = g->n_initializer, n_made = 0;
        Onnx__TensorProto **theirs = g->initializer, **all, **made;
        all = calloc(before + n, sizeof *all);
        made = calloc(n, sizeof *made);
        if (!all || !made) abort();
        if (before) memcpy(all, theirs, before * sizeof *all);
        g->initializer = all;
        bool ok = true;
        Onnx__ValueInfoProto **inputs_of = g->input, **left = calloc(n, sizeof *left);
        if (!left) abort();
        size_t n_left = 0;
        for (size_t i = 0; i < n && ok; i++) {
            if (i && is_tensor(inputs_of[i]))
                ok = pin(g, i, &inputs[i], &made[n_made++]);
            else
                left[n_left++] = inputs_of[i];
        }
        g->input = left;
        g->n_input = n_left;
        if (ok && n_left < n) out = pack(m);
        g->input = inputs_of;
        g->n_input = n;
        free(left);
        g->n_initializer = before;
        g->initializer = theirs;
        for (size_t i = 0; i < n_made; i++)
            if (made[i]) onnx__tensor_proto__free_unpacked(made[i], NULL);
        free(all);
        free(made);
    }
    onnx__model_proto__free_unpacked(m, NULL);
    return out;
}
