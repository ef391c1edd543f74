/* ONNX models written byte by byte, for the tests of the frontend.
 *
 * A `wire` is a piece of protobuf; W(a, b, ...) joins pieces. They live in an arena that each test
 * gets from the fixture front_begin and front_end.
 *
 *   front_expect(front_model(17, W(front_input("x", 1, "B,4"), front_node("Relu", "x", "y", NONE),
 *                                  front_output("y", 1, "B,4"))), NB_OK, ""); */
#ifndef NB_TEST_FRONT_H
#define NB_TEST_FRONT_H

#include "ir/ir.h"
#include "tests/unit/unit.h"

typedef struct wire {
    const uint8_t *bytes;
    size_t size;
} wire;

#define NONE   ((wire){NULL, 0})
#define W(...) front_join(sizeof((wire[]){__VA_ARGS__}) / sizeof(wire), (wire[]){__VA_ARGS__})

void front_begin(void);
void front_end(void);
nb_arena *front_arena(void);

wire front_join(size_t n, const wire *parts);
/* One field of each wire type. */
wire front_number(unsigned field, uint64_t value);
wire front_fixed(unsigned field, float value);
wire front_bytes(unsigned field, const void *bytes, size_t size);
wire front_text(unsigned field, const char *text);
wire front_put(unsigned field, wire body);

/* Parts of a graph. Names are separated by commas; so are dimensions: a number, a name, or "?".
 * `type` is ONNX's element type: 1 f32, 6 i32, 7 i64, 9 bool. */
wire front_node(const char *op, const char *inputs, const char *outputs, wire attributes);
/* An operator of another domain. */
wire front_domain_node(const char *domain, const char *op, const char *inputs, const char *outputs,
                       wire attributes);
wire front_int(const char *name, int64_t value);
wire front_float(const char *name, float value);
wire front_string(const char *name, const char *value);
wire front_ints(const char *name, size_t n, const int64_t *values);
wire front_input(const char *name, int type, const char *dims);
wire front_output(const char *name, int type, const char *dims);
/* TensorProto with raw_data. */
wire front_tensor(const char *name, int type, const char *dims, const void *data, size_t size);
wire front_weight(const char *name, int type, const char *dims, const void *data, size_t size);
/* i64 vectors and f32 zeros as initializers. */
wire front_i64(const char *name, size_t n, const int64_t *values);
wire front_zeros(const char *name, const char *dims);
#define I64(name, ...) \
    front_i64(name, sizeof((int64_t[]){__VA_ARGS__}) / 8, (int64_t[]){__VA_ARGS__})

/* Imports ai.onnx `opset` and com.microsoft 1. */
wire front_model(int64_t opset, wire graph);

/* Imports from a copy of exactly that size; NULL on failure. */
nb_graph *front_import(wire model, nb_diags *diags, nb_status *status);
/* The status is `status`, and the first error contains `part`. */
void front_expect(wire model, nb_status status, const char *part);
/* The model is good and its first output has this type, in .nir's form. */
void front_expect_type(wire model, const char *type);

#endif
