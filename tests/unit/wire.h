/* Builds protobuf bytes field by field, also such as no writer would make. */
#ifndef NB_TEST_WIRE_H
#define NB_TEST_WIRE_H

#include <stddef.h>
#include <stdint.h>

typedef struct wire {
    uint8_t *data; /* free with wire_free */
    size_t size, capacity;
} wire;

void wire_free(wire *w);
void wire_raw(wire *w, const void *data, size_t size);
void wire_varint(wire *w, uint64_t value);
void wire_key(wire *w, uint32_t field, int type);
/* Fields: a number, bytes, text, a message (which is freed). */
void wire_int(wire *w, uint32_t field, uint64_t value);
void wire_bytes(wire *w, uint32_t field, const void *data, size_t size);
void wire_text(wire *w, uint32_t field, const char *text);
void wire_message(wire *w, uint32_t field, wire message);

/* ONNX messages. `dims` of -1 stand for a symbol of their own. */
wire onnx_tensor(const char *name, int elem, size_t n_dims, const int64_t *dims, const void *raw,
                 size_t size);
wire onnx_value(const char *name, int elem, size_t n_dims, const int64_t *dims);
wire onnx_node(const char *op, const char *in0, const char *in1, const char *out);
/* A model with IR version 8 and opset 17 around a graph. */
wire onnx_model(wire graph);

#endif
