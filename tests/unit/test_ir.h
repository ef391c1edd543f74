/* A graph with symbols at hand for the tests of ir/, and what they ask again and again.
 *
 *   ir_graph t;
 *   ir_open(&t);
 *   nb_value *x = ir_input(&t, "x", NB_F32, "B,4");
 *   ck_assert_str_eq(ir_type(&t, nb_unary(&t.b, NB_OP_neg, x)), "f32[B,4]");
 *   ir_close(&t); */
#ifndef NB_TEST_IR_H
#define NB_TEST_IR_H

#include "ir/build.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "tests/unit/unit.h"

typedef struct ir_graph {
    nb_arena *arena;
    nb_graph *graph;
    nb_diags *diags;
    nb_builder b;
} ir_graph;

/* An empty graph with symbols B and S from 1, P from 0. */
void ir_open(ir_graph *t);
void ir_close(ir_graph *t);

const nb_dim *ir_dim(ir_graph *t, const char *text);
/* "B,4*S,2"; "" is rank 0. */
const nb_type *ir_shape(ir_graph *t, nb_elem elem, const char *dims);
nb_value *ir_input(ir_graph *t, const char *name, nb_elem elem, const char *dims);
/* A constant of zero bytes. */
nb_value *ir_const(ir_graph *t, const char *name, const nb_type *type);
/* An i64 vector, of rank 0 when n is 0. */
nb_value *ir_ints(ir_graph *t, size_t n, const int64_t *values);
#define IR_INTS(t, ...) ir_ints(t, NB_COUNT(((int64_t[]){__VA_ARGS__})), (int64_t[]){__VA_ARGS__})
const nb_quant *ir_quant(ir_graph *t, nb_quant q);

/* The type's text; "none" for NULL. */
const char *ir_type(ir_graph *t, const nb_value *v);
const char *ir_text(ir_graph *t, const nb_dim *d);
/* The last error's message, or "". */
const char *ir_message(const ir_graph *t);

/* Begins an op with up to four operands, NULL for those that are not there. */
void ir_begin(ir_graph *t, nb_op_kind kind, nb_value *a, nb_value *b, nb_value *c, nb_value *d);
void ir_set_dims(ir_graph *t, const char *name, const char *dims);
#define IR_SET_INTS(t, name, ...) \
    nb_set_ints(&(t)->b, name, NB_COUNT(((int64_t[]){__VA_ARGS__})), (int64_t[]){__VA_ARGS__})
/* Ends it and compares the type of the result. */
nb_value *ir_expect(ir_graph *t, const char *type);
/* Ends it, which must fail with a message that holds `text`, and leave the graph as it was. */
void ir_expect_error(ir_graph *t, const char *text);

/* Outputs named out0, out1 ... */
void ir_outputs(ir_graph *t, size_t n, nb_value *const *values);

#endif
