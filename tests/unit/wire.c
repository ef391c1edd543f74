/* See wire.h. Field numbers are those of onnx.proto. */
#include "tests/unit/wire.h"

#include <stdlib.h>
#include <string.h>

void wire_free(wire *w) {
    free(w->data);
    *w = (wire){0};
}

void wire_raw(wire *w, const void *data, size_t size) {
    if (w->size + size > w->capacity) {
        w->capacity = 2 * (w->size + size) + 64;
        w->data = realloc(w->data, w->capacity);
        if (!w->data) abort();
    }
    if (size) memcpy(w->data + w->size, data, size);
    w->size += size;
}

void wire_varint(wire *w, uint64_t value) {
    do {
        uint8_t byte = (uint8_t)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        wire_raw(w, &byte, 1);
        value >>= 7;
    } while (value);
}

void wire_key(wire *w, uint32_t field, int type) {
    wire_varint(w, (uint64_t)field << 3 | (uint64_t)type);
}

void wire_int(wire *w, uint32_t field, uint64_t value) {
    wire_key(w, field, 0);
    wire_varint(w, value);
}

void wire_bytes(wire *w, uint32_t field, const void *data, size_t size) {
    wire_key(w, field, 2);
    wire_varint(w, size);
    wire_raw(w, data, size);
}

void wire_text(wire *w, uint32_t field, const char *text) {
    wire_bytes(w, field, text, strlen(text));
}

void wire_message(wire *w, uint32_t field, wire message) {
    wire_bytes(w, field, message.data, message.size);
    wire_free(&message);
}

wire onnx_tensor(const char *name, int elem, size_t n_dims, const int64_t *dims, const void *raw,
                 size_t size) {
    wire t = {0};
    for (size_t i = 0; i < n_dims; i++) wire_int(&t, 1, (uint64_t)dims[i]);
    wire_int(&t, 2, (uint64_t)(int64_t)elem);
    if (name) wire_text(&t, 8, name);
    if (raw) wire_bytes(&t, 9, raw, size);
    return t;
}

wire onnx_value(const char *name, int elem, size_t n_dims, const int64_t *dims) {
    wire shape = {0}, tensor = {0}, type = {0}, value = {0};
    for (size_t i = 0; i < n_dims; i++) {
        wire dim = {0};
        if (dims[i] == -1)
            wire_text(&dim, 2, "N");
        else
            wire_int(&dim, 1, (uint64_t)dims[i]);
        wire_message(&shape, 1, dim);
    }
    wire_int(&tensor, 1, (uint64_t)(int64_t)elem);
    wire_message(&tensor, 2, shape);
    wire_message(&type, 1, tensor);
    if (name) wire_text(&value, 1, name);
    wire_message(&value, 2, type);
    return value;
}

wire onnx_node(const char *op, const char *in0, const char *in1, const char *out) {
    wire n = {0};
    if (in0) wire_text(&n, 1, in0);
    if (in1) wire_text(&n, 1, in1);
    if (out) wire_text(&n, 2, out);
    wire_text(&n, 3, "node");
    if (op) wire_text(&n, 4, op);
    return n;
}

wire onnx_model(wire graph) {
    wire opset = {0}, m = {0};
    wire_text(&opset, 1, "");
    wire_int(&opset, 2, 17);
    wire_int(&m, 1, 8);
    wire_message(&m, 8, opset);
    wire_message(&m, 7, graph);
    return m;
}
