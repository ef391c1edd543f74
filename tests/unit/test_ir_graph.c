/* The graph's own promises: interned types and descriptors, names, uses, edits, sweeps, copies,
 * substitution, locations, and the builder. */
#include "tests/unit/test_ir.h"

#include <setjmp.h>
#include <string.h>

static ir_graph t;
static void open_graph(void) { ir_open(&t); }
static void close_graph(void) { ir_close(&t); }

static void expect_valid(const nb_graph *g) {
    ck_assert_msg(nb_verify(g, t.diags) == NB_OK, "%s", ir_message(&t));
}

/* ---- the op table -------------------------------------------------------------------------- */

START_TEST(op_table) {
    for (int k = 0; k < NB_OP_COUNT; k++) {
        const nb_op_info *info = &nb_ops[k];
        ck_assert_int_eq(nb_op_from_name(info->name, strlen(info->name)), k);
        bool optional = false, end = false, list = false;
        for (int i = 0; i < NB_MAX_OPERAND_SPECS; i++) {
            nb_operand_mode mode = info->operands[i].mode;
            ck_assert(!end || mode == NB_OPERAND_END); /* nothing behind the end */
            ck_assert(!list || mode == NB_OPERAND_END);
            ck_assert(mode != NB_OPERAND_IN || !optional); /* required ones first */
            ck_assert((mode == NB_OPERAND_END) == (info->operands[i].name == NULL));
            end = mode == NB_OPERAND_END;
            list = list || mode == NB_OPERAND_VAR;
            optional = optional || mode == NB_OPERAND_OPT;
        }
        ck_assert(end);
        ck_assert(info->results != 0 || (info->traits & NB_TRAIT_TERMINATOR));
        ck_assert(info->summary[0]);
    }
    ck_assert_int_eq(nb_op_from_name("nothing", 7), NB_OP_COUNT);
    ck_assert_int_eq(nb_op_from_name("addx", 3), NB_OP_add);
}
END_TEST

/* ---- types and descriptors ----------------------------------------------------------------- */

START_TEST(elements) {
    for (int e = 0; e < NB_ELEM_COUNT; e++) {
        ck_assert_int_eq(nb_elem_from_text(nb_elems[e].text, strlen(nb_elems[e].text)), e);
        ck_assert_int_eq(nb_elem_from_number(nb_elems[e].number), e);
        ck_assert_int_eq(nb_elem_from_onnx(nb_elems[e].number),
                         nb_elems[e].onnx ? e : NB_ELEM_COUNT);
    }
    ck_assert_int_eq(nb_elem_integer(3, true), NB_I3);
    ck_assert_int_eq(nb_elem_integer(6, false), NB_U6);
    ck_assert_int_eq(nb_elem_integer(9, true), NB_ELEM_COUNT);
    /* 5 = 101 in bits 3 to 5 and, across the bytes, 6 to 8 of the tensor */
    uint8_t packed[2] = {0xff, 0xff};
    nb_elem_put(NB_U3, packed, 1, 5);
    nb_elem_put(NB_U3, packed, 2, 5);
    ck_assert(packed[0] == 0x6f && packed[1] == 0xff);
    nb_elem_put(NB_U3, packed, 2, 2);
    ck_assert(packed[0] == 0xaf && packed[1] == 0xfe);
    ck_assert(nb_elem_get(NB_U3, packed, 1) == 5 && nb_elem_get(NB_U3, packed, 2) == 2);
    ck_assert_int_eq(nb_elem_from_text("f3", 2), NB_ELEM_COUNT);
    ck_assert_int_eq(nb_elem_from_onnx(0), NB_ELEM_COUNT);
    static const struct {
        nb_elem e;
        int64_t min, max;
    } ranges[] = {{NB_I64, INT64_MIN, INT64_MAX},
                  {NB_U64, 0, INT64_MAX},
                  {NB_I8, -128, 127},
                  {NB_U32, 0, UINT32_MAX},
                  {NB_I4, -8, 7},
                  {NB_I3, -4, 3},
                  {NB_U6, 0, 63},
                  {NB_U2, 0, 3},
                  {NB_BOOL, 0, 1}};
    for (size_t i = 0; i < NB_COUNT(ranges); i++) {
        ck_assert_int_eq(nb_elem_min(ranges[i].e), ranges[i].min);
        ck_assert_int_eq(nb_elem_max(ranges[i].e), ranges[i].max);
    }
    int64_t bytes;
    ck_assert(nb_elem_bytes_of(NB_I4, 3, &bytes) && bytes == 2);
    ck_assert(nb_elem_bytes_of(NB_U2, 5, &bytes) && bytes == 2);
    ck_assert(nb_elem_bytes_of(NB_I3, 3, &bytes) && bytes == 2);
    ck_assert(nb_elem_bytes_of(NB_F32, 0, &bytes) && bytes == 0);
    ck_assert(!nb_elem_bytes_of(NB_F32, INT64_MAX / 8, &bytes));
    ck_assert(!nb_elem_bytes_of(NB_I8, -1, &bytes));
}
END_TEST

START_TEST(types) {
    const nb_type *a = ir_shape(&t, NB_F32, "B,P+S,4"), *b = ir_shape(&t, NB_F32, "B,S+P,4");
    ck_assert_ptr_eq(a, b);
    ck_assert_ptr_ne(a, ir_shape(&t, NB_F16, "B,P+S,4"));
    ck_assert_ptr_ne(ir_shape(&t, NB_F32, ""), ir_shape(&t, NB_F32, "1"));
    ck_assert_str_eq(nb_type_text(t.arena, a), "f32[B,P+S,4]");
    ck_assert_str_eq(nb_type_text(t.arena, ir_shape(&t, NB_BOOL, "")), "bool[]");
    ck_assert_str_eq(ir_text(&t, nb_type_count(t.graph, a)), "4*B*P+4*B*S");
    int64_t count;
    ck_assert(!nb_type_static_count(a, &count));
    ck_assert(nb_type_static_count(ir_shape(&t, NB_F32, "2,3,4"), &count) && count == 24);
    ck_assert(nb_type_static_count(ir_shape(&t, NB_F32, ""), &count) && count == 1);
    ck_assert(!nb_type_static_count(ir_shape(&t, NB_F32, "4611686018427387904,2"), &count));
    ck_assert_ptr_eq(nb_type_with_elem(t.graph, a, NB_F32), a);
    const nb_quant *q = ir_quant(&t, (nb_quant){.storage = NB_I8, .scale = 0.5f});
    const nb_type *codes = nb_type_with_quant(t.graph, a, q);
    ck_assert_str_eq(nb_type_text(t.arena, codes), "#q[B,P+S,4]");
    ck_assert_ptr_eq(nb_type_with_elem(t.graph, codes, NB_F32), a);
    ck_assert_ptr_eq(nb_type_with_dims(t.graph, codes, 3, a->dims), codes);
}
END_TEST

START_TEST(descriptors) {
    nb_value *s3 = ir_const(&t, "s3", ir_shape(&t, NB_F32, "3"));
    nb_quant q = {.storage = NB_I8, .granularity = NB_PER_AXIS, .axis = 1, .scales = s3};
    const nb_quant *first = ir_quant(&t, q);
    q.scale = 7; /* of no meaning here */
    q.amax_code = 9;
    ck_assert_ptr_eq(ir_quant(&t, q), first);
    q.axis = 0;
    const nb_quant *other = ir_quant(&t, q);
    ck_assert_ptr_ne(other, first);
    ck_assert_str_eq(first->name, "q");
    ck_assert_str_eq(other->name, "q_1");
    ck_assert_int_eq(nb_quant_min(&(nb_quant){.storage = NB_I8, .narrow = true}), -127);
    ck_assert_int_eq(nb_quant_min(&(nb_quant){.storage = NB_U4}), 0);
}
END_TEST

START_TEST(descriptors_that_do_not_fit) {
    nb_value *s3 = ir_const(&t, "s3", ir_shape(&t, NB_F32, "3")),
             *s33 = ir_const(&t, "s33", ir_shape(&t, NB_F32, "3,3")),
             *z3 = ir_const(&t, "z3", ir_shape(&t, NB_I8, "3")),
             *b3 = ir_const(&t, "b3", ir_shape(&t, NB_BF16, "3")),
             *x = ir_input(&t, "x", NB_F32, "3");
    const nb_granularity axis = NB_PER_AXIS, group = NB_PER_GROUP, token = NB_PER_TOKEN;
    const struct {
        nb_quant q;
        const char *why;
    } cases[] = {
        {{.storage = NB_F32, .scale = 1}, "neither an integer nor a small float"},
        {{.storage = NB_F8E8M0, .scale = 1}, "neither an integer nor a small float"},
        {{.storage = NB_NF4, .scale = 1, .zero = 1}, "neither zero points"},
        {{.storage = NB_F8E5M2, .granularity = token, .amax_code = 1}, "nor dynamic"},
        {{.storage = NB_U8, .narrow = true, .scale = 1}, "narrow"},
        {{.storage = NB_I8}, "0 or not finite"},
        {{.storage = NB_I8, .scale = __builtin_nanf("")}, "0 or not finite"},
        {{.storage = NB_I8, .scale = 1, .zero = 128}, "zero point"},
        {{.storage = NB_I8, .scale = 1, .zeros = z3}, "needs a constant of scales"},
        {{.storage = NB_I8, .scale = 1, .group = 4}, "without groups"},
        {{.storage = NB_I8, .scales = s3}, "not a scalar"},
        {{.storage = NB_I8, .granularity = axis}, "missing"},
        {{.storage = NB_I8, .granularity = axis, .scales = x}, "not a constant of f32"},
        {{.storage = NB_I8, .granularity = axis, .scales = z3}, "not a constant of f32"},
        {{.storage = NB_I8, .granularity = axis, .scales = b3}, "f32, f16 or codes"},
        {{.storage = NB_NF4, .granularity = axis, .scales = b3}, "f16, small floats or codes"},
        {{.storage = NB_I8, .granularity = axis, .scales = s3, .minima = s33}, "different shapes"},
        {{.storage = NB_I8, .granularity = axis, .scales = s3, .minima = z3}, "minima are not"},
        {{.storage = NB_I8, .granularity = axis, .scales = s3, .zero = 1, .minimum = 1}, "exclude"},
        {{.storage = NB_I8, .granularity = axis, .scales = s3, .zeros = z3, .minima = s3},
         "exclude"},
        {{.storage = NB_I8, .scale = 1, .minima = s3}, "needs a constant of scales"},
        {{.storage = NB_I8, .scale = 1, .minimum = __builtin_inff()}, "minimum is not finite"},
        {{.storage = NB_I8, .granularity = token, .minimum = 1, .amax_code = 1}, "no minimum"},
        {{.storage = NB_I8, .granularity = axis, .scales = s33}, "not a vector"},
        {{.storage = NB_I8, .granularity = axis, .axis = 8, .scales = s3}, "axis"},
        {{.storage = NB_U8, .granularity = axis, .scales = s3, .zeros = z3}, "storage's type"},
        {{.storage = NB_I8, .granularity = group, .group = 2, .scales = s33, .zeros = z3},
         "different shapes"},
        {{.storage = NB_I8, .granularity = group, .scales = s33}, "length is not positive"},
        {{.storage = NB_I8, .granularity = token, .scales = s3, .amax_code = 127}, "run time"},
        {{.storage = NB_I8, .granularity = token, .zero = 1, .amax_code = 127}, "no zero point"},
        {{.storage = NB_I8, .granularity = token}, "largest code"},
        {{.storage = NB_I8, .granularity = token, .amax_code = 128}, "largest code"},
        {{.storage = NB_I8, .granularity = NB_PER_BLOCK, .amax_code = 127}, "not positive"},
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        ck_assert_ptr_null(nb_quant_intern(t.graph, &cases[i].q, "q", t.diags));
        ck_assert_msg(strstr(ir_message(&t), cases[i].why) != NULL, "expected '%s', found '%s'",
                      cases[i].why, ir_message(&t));
    }
    ck_assert_uint_eq(t.graph->quants.count, 0);
}
END_TEST

/* ---- names --------------------------------------------------------------------------------- */

START_TEST(names) {
    nb_value *x = ir_input(&t, "x", NB_F32, "B"), *again = ir_input(&t, "x", NB_F32, "B"),
             *third = ir_input(&t, "x", NB_F32, "B");
    nb_value *c = ir_const(&t, "x", ir_shape(&t, NB_F32, "1"));
    ck_assert_str_eq(x->name, "x");
    ck_assert_str_eq(again->name, "x_1");
    ck_assert_str_eq(third->name, "x_2");
    ck_assert_str_eq(c->name, "x"); /* constants have names of their own */
    ck_assert_str_eq(nb_unique_name(t.graph, "y", false), "y");
    ck_assert_str_eq(nb_unique_name(t.graph, "y", false), "y"); /* nobody took it */
    nb_set_name(t.graph, again, "y");
    ck_assert_str_eq(again->name, "y");
    nb_set_name(t.graph, third, "y");
    ck_assert_str_eq(third->name, "y_1");
    nb_set_name(t.graph, third, "y_1");
    ck_assert_str_eq(third->name, "y_1");
    nb_set_name(t.graph, again, "z");
    nb_set_name(t.graph, third, "y"); /* free again */
    ck_assert_str_eq(third->name, "y");
    nb_value *y = nb_unary(&t.b, NB_OP_neg, x), *z = nb_unary(&t.b, NB_OP_neg, x);
    ck_assert_str_eq(y->name, "neg");
    ck_assert_str_eq(z->name, "neg_1");
}
END_TEST

/* 200,000 values of one name, an op of as many operands, as many inputs: all linear. */
START_TEST(many) {
    enum { MANY = 200000 };
    nb_value *x = ir_input(&t, "x", NB_F32, "B"), *v = x;
    for (int i = 0; i < MANY; i++) v = nb_unary(&t.b, NB_OP_neg, v);
    for (int i = 0; i < MANY; i++) ir_input(&t, "x", NB_F32, "B");
    nb_begin(&t.b, NB_OP_concat);
    for (int i = 0; i < MANY; i++) nb_arg(&t.b, v);
    v = nb_end(&t.b);
    ck_assert_str_eq(ir_type(&t, v), "f32[200000*B]");
    ck_assert_uint_eq(nb_use_count(nb_in(v->def, 0)), MANY);
    ir_outputs(&t, 1, &v);
    expect_valid(t.graph);
    nb_graph *copy = nb_graph_clone(t.graph);
    expect_valid(copy);
    nb_graph_destroy(copy);
    nb_graph_set_outputs(t.graph, 1, &x, (const char *[]){"x"});
    ck_assert_uint_eq(nb_graph_sweep(t.graph), MANY + 1);
}
END_TEST

START_TEST(many_descriptors) {
    for (int i = 1; i <= 20000; i++) ir_quant(&t, (nb_quant){.storage = NB_I8, .scale = (float)i});
    ck_assert_uint_eq(t.graph->quants.count, 20000);
    ck_assert_str_eq(t.graph->quants.items[19999]->name, "q_19999");
    nb_graph_sweep(t.graph);
    ck_assert_uint_eq(t.graph->quants.count, 0);
}
END_TEST

/* ---- uses and edits ------------------------------------------------------------------------ */

START_TEST(uses) {
    nb_value *x = ir_input(&t, "x", NB_F32, "B"), *y = ir_input(&t, "y", NB_F32, "B");
    nb_value *sum = nb_binary(&t.b, NB_OP_add, x, x), *neg = nb_unary(&t.b, NB_OP_neg, sum);
    ir_outputs(&t, 2, (nb_value *[]){neg, sum});
    ck_assert_uint_eq(nb_use_count(x), 2);
    ck_assert(!nb_has_one_use(x) && !nb_has_one_use(y) && nb_has_one_use(neg));
    nb_set_operand(&sum->def->operands[1], y);
    ck_assert(nb_has_one_use(x) && nb_has_one_use(y));
    expect_valid(t.graph);
    nb_replace_uses(x, y);
    ck_assert_ptr_null(x->uses);
    ck_assert_uint_eq(nb_use_count(y), 2);
    nb_replace_uses(y, y);
    ck_assert_uint_eq(nb_use_count(y), 2);
    expect_valid(t.graph);
    nb_replace_uses(sum, y);
    expect_valid(t.graph);
    nb_op_remove(sum->def);
    expect_valid(t.graph);
    ck_assert_uint_eq(nb_use_count(y), 2);
    ck_assert_str_eq(nb_unique_name(t.graph, "add", false), "add");
}
END_TEST

START_TEST(order) {
    nb_value *x = ir_input(&t, "x", NB_F32, "B"), *a = nb_unary(&t.b, NB_OP_neg, x),
             *b = nb_unary(&t.b, NB_OP_abs, x);
    ir_outputs(&t, 2, (nb_value *[]){a, b});
    nb_op_move_before(b->def, a->def);
    ck_assert_ptr_eq(t.graph->body.first, b->def);
    expect_valid(t.graph);
    nb_op_move_before(b->def, b->def);
    nb_op_move_before(b->def, t.graph->body.last);
    ck_assert_ptr_eq(t.graph->body.first, a->def);
    expect_valid(t.graph);
    nb_value *c = nb_unary(&t.b, NB_OP_exp, a); /* appends: in front of the return */
    ck_assert_ptr_eq(c->def->next, t.graph->body.last);
    t.b.before = a->def;
    nb_value *d = nb_unary(&t.b, NB_OP_exp, x);
    ck_assert_ptr_eq(t.graph->body.first, d->def);
    expect_valid(t.graph);
    nb_graph_set_outputs(t.graph, 1, &c, (const char *[]){"only"});
    ck_assert_uint_eq(t.graph->outputs.count, 1);
    expect_valid(t.graph);
    int ops = 0;
    NB_FOR_OPS(op, &t.graph->body) { /* may remove what it stands on */
        ops++;
        if (op->n_results && !nb_out(op)->uses) nb_op_remove(op);
    }
    ck_assert_int_eq(ops, 5);
    expect_valid(t.graph);
}
END_TEST

static int released;
static void count_release(nb_blob *blob) {
    (void)blob;
    released++;
}

START_TEST(sweep) {
    static const float half[] = {0.5f, 0.5f};
    static const int8_t codes[4];
    nb_value *x = ir_input(&t, "x", NB_F32, "B,2");
    nb_value *scales[2];
    const nb_quant *q[2];
    for (int i = 0; i < 2; i++) {
        nb_blob *blob = nb_blob_borrow(t.graph->arena, half, sizeof half);
        blob->release = count_release;
        scales[i] = nb_graph_add_const(t.graph, "s", ir_shape(&t, NB_F32, "2"), blob, NULL);
        q[i] = ir_quant(
            &t, (nb_quant){
                    .storage = NB_I8, .granularity = NB_PER_AXIS, .axis = 1, .scales = scales[i]});
    }
    ir_quant(&t, (nb_quant){.storage = NB_I8, .scale = 3}); /* nobody has it */
    const nb_quant *token =
        ir_quant(&t, (nb_quant){.storage = NB_I8, .granularity = NB_PER_TOKEN, .amax_code = 127});
    nb_value *w[2];
    for (int i = 0; i < 2; i++)
        w[i] = nb_graph_add_const(t.graph, "w",
                                  nb_type_with_quant(t.graph, ir_shape(&t, NB_I8, "2,2"), q[i]),
                                  nb_blob_borrow(t.graph->arena, codes, sizeof codes), NULL);
    nb_value *lost = nb_unary(&t.b, NB_OP_dequantize, w[1]);
    lost = nb_binary(&t.b, NB_OP_matmul, x, lost);
    nb_begin(&t.b, NB_OP_quantize);
    nb_arg(&t.b, x);
    nb_set_quant(&t.b, "to", token);
    nb_value *a = nb_end(&t.b);
    nb_begin(&t.b, NB_OP_qmatmul);
    nb_arg(&t.b, a);
    nb_arg(&t.b, w[0]);
    nb_value *y = nb_end(&t.b);
    ck_assert_msg(y != NULL, "%s", ir_message(&t));
    ir_outputs(&t, 1, &y);
    t.graph->stage = NB_STAGE_FUSED;
    expect_valid(t.graph);
    /* The lost matmul, its dequantize, its codes, their scales. */
    ck_assert_uint_eq(nb_graph_sweep(t.graph), 4);
    ck_assert_int_eq(released, 1);
    ck_assert_uint_eq(t.graph->constants.count, 2);
    ck_assert_ptr_eq(t.graph->constants.items[0], scales[0]);
    ck_assert_uint_eq(t.graph->quants.count, 2);
    ck_assert_ptr_eq(t.graph->quants.items[0], q[0]);
    ck_assert_ptr_eq(t.graph->quants.items[1], token);
    expect_valid(t.graph);
    ck_assert_uint_eq(nb_graph_sweep(t.graph), 0);
    /* What was swept is made afresh, under the name that is free again. */
    const nb_quant *fresh = ir_quant(&t, (nb_quant){.storage = NB_I8, .scale = 3});
    ck_assert_ptr_eq(t.graph->quants.items[2], fresh);
    ck_assert_ptr_eq(ir_quant(&t, *q[0]), q[0]);
    (void)lost;
}
END_TEST

/* ---- constants ----------------------------------------------------------------------------- */

START_TEST(blobs) {
    void *data = NULL;
    nb_blob *blob = nb_blob_create(5, &data);
    memcpy(data, "Hello", 5);
    ck_assert_uint_eq(nb_blob_hash(blob), nb_hash("Hello", 5));
    ck_assert_ptr_eq(nb_blob_retain(blob), blob);
    nb_blob_release(blob);
    ck_assert_int_eq(memcmp(blob->data, "Hello", 5), 0);
    nb_blob_release(blob);
    nb_blob_release(NULL);
    ck_assert_ptr_null(nb_blob_create(-1, &data));
    nb_blob_release(nb_blob_create(0, &data));
    nb_value *c = nb_const_f32(t.graph, "c", 2, (int64_t[]){1, 2}, (float[]){1, 2});
    ck_assert_str_eq(ir_type(&t, c), "f32[1,2]");
    ck_assert_int_eq(c->blob->size, 8);
    ck_assert_str_eq(ir_type(&t, nb_const_i64(t.graph, "c", 0, NULL, (int64_t[]){1})), "i64[]");
    ck_assert_str_eq(ir_type(&t, nb_const_i64(t.graph, "c", 1, (int64_t[]){0}, NULL)), "i64[0]");
}
END_TEST

static void count_cleanup(void *user) { ++*(int *)user; }

START_TEST(cleanups) {
    int calls = 0;
    nb_graph *g = nb_graph_create("g", NULL, NULL);
    nb_graph_on_destroy(g, count_cleanup, &calls);
    nb_graph_on_destroy(g, count_cleanup, &calls);
    nb_graph *copy = nb_graph_clone(g);
    nb_graph_destroy(copy);
    ck_assert_int_eq(calls, 0);
    nb_graph_destroy(g);
    ck_assert_int_eq(calls, 2);
    nb_graph_destroy(NULL);
}
END_TEST

/* ---- locations ----------------------------------------------------------------------------- */

START_TEST(locations) {
    const nb_loc *a = nb_loc_at(t.graph, "/a"), *b = nb_loc_at(t.graph, "/b");
    const nb_loc *ab = nb_loc_merge(t.graph, a, b), *aba = nb_loc_merge(t.graph, ab, a);
    ck_assert_uint_eq(ab->n_at, 2);
    ck_assert_uint_eq(aba->n_at, 2);
    ck_assert_str_eq(aba->at[1], "/b");
    ck_assert_ptr_eq(nb_loc_merge(t.graph, NULL, a), a);
    ck_assert_ptr_eq(nb_loc_merge(t.graph, a, NULL), a);
    ck_assert_ptr_null(nb_loc_merge(t.graph, NULL, NULL));
    const nb_loc *via = nb_loc_via(t.graph, ab, "fuse"), *both = nb_loc_via(t.graph, via, "fold");
    ck_assert_uint_eq(both->n_via, 2);
    ck_assert_uint_eq(both->n_at, 2);
    ck_assert_ptr_eq(nb_loc_via(t.graph, both, "fuse"), both);
    ck_assert_uint_eq(ab->n_via, 0); /* immutable */
    ck_assert_str_eq(nb_loc_name(both), "/a");
    ck_assert_str_eq(nb_loc_name(nb_loc_via(t.graph, NULL, "fuse")), "");
    ck_assert_str_eq(nb_loc_name(NULL), "");
}
END_TEST

/* ---- copies and substitution --------------------------------------------------------------- */

/* A little of everything: state, descriptors with constants, dims in attributes, locations. */
static void make_rich(void) {
    nb_value *x = ir_input(&t, "x", NB_F32, "B,S,4"), *past = ir_input(&t, "past", NB_F32, "B,P,4");
    nb_value *scales = nb_const_f32(t.graph, "s", 1, (int64_t[]){4}, (float[]){1, 2, 3, 4});
    const nb_quant *q = ir_quant(
        &t, (nb_quant){.storage = NB_I8, .granularity = NB_PER_AXIS, .axis = 1, .scales = scales});
    nb_value *w = ir_const(&t, "w", nb_type_with_quant(t.graph, ir_shape(&t, NB_I8, "4,4"), q));
    t.b.loc = nb_loc_via(t.graph, nb_loc_at(t.graph, "/cat"), "raise");
    ir_begin(&t, NB_OP_concat, past, x, NULL, NULL);
    nb_set_int(&t.b, "axis", 1);
    nb_value *present = ir_expect(&t, "f32[B,P+S,4]");
    nb_value *wide = nb_unary(&t.b, NB_OP_dequantize, w);
    nb_value *y = nb_binary(&t.b, NB_OP_matmul, present, wide);
    ir_begin(&t, NB_OP_reshape, y, NULL, NULL, NULL);
    ir_set_dims(&t, "shape", "B*P+B*S,4");
    nb_value *flat = ir_expect(&t, "f32[B*P+B*S,4]");
    ir_outputs(&t, 2, (nb_value *[]){flat, present});
    nb_state s = {.input = 1, .output = 1, .axis = 1};
    nb_vec_push(t.graph->arena, &t.graph->states, s);
    t.graph->stage = NB_STAGE_QDQ;
    nb_symbol_narrow(t.graph, t.graph->symbols.items[0], 1, 16);
    expect_valid(t.graph);
}

START_TEST(clone) {
    make_rich();
    nb_op *gone = nb_unary(&t.b, NB_OP_neg, t.graph->body.params[0])->def; /* a hole in the ids */
    nb_op_remove(gone);
    nb_graph *copy = nb_graph_clone(t.graph);
    expect_valid(copy);
    ck_assert_str_eq(nb_print_string(t.arena, copy, NULL), nb_print_string(t.arena, t.graph, NULL));
    ck_assert_uint_eq(copy->n_values, t.graph->n_values);
    ck_assert_uint_eq(copy->n_ops, t.graph->n_ops);
    const nb_op *b = copy->body.first;
    for (const nb_op *a = t.graph->body.first; a; a = a->next, b = b->next) {
        ck_assert_uint_eq(a->id, b->id);
        ck_assert(!a->loc || (a->loc != b->loc && a->loc->at[0] != b->loc->at[0]));
        for (uint32_t i = 0; i < a->n_results; i++)
            ck_assert_uint_eq(a->results[i]->id, b->results[i]->id);
    }
    nb_blob *blob = t.graph->constants.items[1]->blob;
    ck_assert_ptr_eq(copy->constants.items[1]->blob, blob);
    ck_assert_uint_eq(blob->references, 2);
    ck_assert_ptr_eq(copy->quants.items[0]->scales, copy->constants.items[0]);
    /* Apart from each other: the copy takes new ids and names, and interns what is equal. */
    ck_assert_ptr_eq(nb_quant_intern(copy, copy->quants.items[0], "q", t.diags),
                     copy->quants.items[0]);
    nb_builder cb = {.graph = copy, .diags = t.diags};
    nb_value *v = nb_unary(&cb, NB_OP_neg, copy->body.params[0]);
    ck_assert_uint_eq(v->id, t.graph->n_values);
    ck_assert_str_eq(v->name, "neg");
    nb_graph_set_outputs(copy, 1, &v, (const char *[]){"v"});
    copy->states.count = 0;
    nb_graph_sweep(copy);
    expect_valid(copy);
    ck_assert_uint_eq(blob->references, 1);
    expect_valid(t.graph);
    nb_graph_destroy(copy);
}
END_TEST

static jmp_buf out_of_memory;
static void jump(void *user) {
    (void)user;
    longjmp(out_of_memory, 1);
}

START_TEST(clone_keeps_the_handler) {
    nb_graph *g = nb_graph_create("g", jump, NULL), *copy = nb_graph_clone(g);
    if (setjmp(out_of_memory) == 0) {
        nb_alloc_array(copy->arena, SIZE_MAX, 16);
        ck_abort_msg("so much memory");
    }
    nb_graph_destroy(copy);
    nb_graph_destroy(g);
}
END_TEST

START_TEST(substitution) {
    make_rich();
    const nb_symbol *s = nb_graph_symbol(t.graph, "S", false);
    nb_graph_substitute(t.graph, s, ir_dim(&t, "2*B-1"));
    expect_valid(t.graph);
    ck_assert_uint_eq(t.graph->symbols.count, 2);
    ck_assert_str_eq(t.graph->symbols.items[1]->name, "P");
    ck_assert_uint_eq(t.graph->symbols.items[1]->index, 1);
    ck_assert_str_eq(ir_type(&t, t.graph->body.params[0]), "f32[B,2*B-1,4]");
    const nb_op *ret = t.graph->body.last;
    ck_assert_str_eq(ir_type(&t, nb_in(ret, 0)), "f32[-1*B+2*B*B+B*P,4]");
    ck_assert_str_eq(ir_text(&t, nb_attr_of(nb_in(ret, 0)->def, "shape")->dims.items[0]),
                     "-1*B+2*B*B+B*P");
    /* The name may come back as another symbol. */
    const nb_symbol *again = nb_graph_symbol(t.graph, "S", true);
    ck_assert_ptr_ne(again, s);
    ck_assert_uint_eq(again->index, 2);
    nb_graph_substitute(t.graph, nb_graph_symbol(t.graph, "B", false), ir_dim(&t, "3"));
    expect_valid(t.graph);
    ck_assert_str_eq(ir_type(&t, t.graph->body.params[0]), "f32[3,5,4]");
}
END_TEST

/* ---- the builder --------------------------------------------------------------------------- */

START_TEST(builder) {
    nb_value *x = ir_input(&t, "x", NB_F32, "B,4"),
             *g = ir_const(&t, "g", ir_shape(&t, NB_F32, "4"));
    /* Absent operands make a chain quiet. */
    ck_assert_ptr_null(nb_unary(&t.b, NB_OP_neg, NULL));
    ck_assert_ptr_null(nb_binary(&t.b, NB_OP_add, x, NULL));
    ck_assert_ptr_null(nb_reshape(&t.b, NULL, 0, NULL));
    ck_assert_ptr_null(nb_transpose(&t.b, NULL, NULL));
    ck_assert_ptr_null(nb_cast(&t.b, NULL, NB_F16));
    ck_assert_ptr_null(nb_reshape(&t.b, x, 1, (const nb_dim *[]){NULL}));
    ck_assert_uint_eq(t.diags->errors, 0);
    /* Optional ones may be left out, or be NULL. */
    for (int given = 0; given < 3; given++) {
        nb_begin(&t.b, NB_OP_layer_norm);
        nb_arg(&t.b, x);
        nb_arg(&t.b, g);
        if (given) nb_arg(&t.b, given == 2 ? g : NULL);
        nb_value *y = nb_end(&t.b);
        ck_assert_uint_eq(y->def->n_operands, 3);
        ck_assert_ptr_eq(nb_in(y->def, 2), given == 2 ? g : NULL);
    }
    nb_begin(&t.b, NB_OP_add);
    nb_arg(&t.b, x);
    ir_expect_error(&t, "number of operands");
    nb_begin(&t.b, NB_OP_neg);
    nb_arg(&t.b, x);
    nb_arg(&t.b, x);
    ir_expect_error(&t, "number of operands");
    /* A flag that is off is a flag that is not set. */
    nb_begin(&t.b, NB_OP_reduce_sum);
    nb_arg(&t.b, x);
    nb_set_bool(&t.b, "keep", false);
    IR_SET_INTS(&t, "axes", 1);
    nb_value *sum = ir_expect(&t, "f32[B]");
    ck_assert(!nb_attr_of(sum->def, "keep")->set);
    ck_assert_int_eq(nb_attr_int(nb_unary(&t.b, NB_OP_softmax, x)->def, "axis"), 0);
    nb_value *y = nb_transpose(&t.b, x, (int64_t[]){1, 0});
    ck_assert_str_eq(ir_type(&t, y), "f32[4,B]");
    ck_assert_str_eq(ir_type(&t, nb_cast(&t.b, y, NB_I4)), "i4[4,B]");
    ir_outputs(&t, 1, &sum);
    expect_valid(t.graph);
}
END_TEST

Suite *nb_suite_ir_graph(void) {
    Suite *s = suite_create("ir_graph");
    TCase *c = tcase_create("graph");
    tcase_add_checked_fixture(c, open_graph, close_graph);
    tcase_add_test(c, op_table);
    tcase_add_test(c, elements);
    tcase_add_test(c, types);
    tcase_add_test(c, descriptors);
    tcase_add_test(c, descriptors_that_do_not_fit);
    tcase_add_test(c, names);
    tcase_add_test(c, many);
    tcase_add_test(c, many_descriptors);
    tcase_add_test(c, uses);
    tcase_add_test(c, order);
    tcase_add_test(c, sweep);
    tcase_add_test(c, blobs);
    tcase_add_test(c, cleanups);
    tcase_add_test(c, locations);
    tcase_add_test(c, clone);
    tcase_add_test(c, clone_keeps_the_handler);
    tcase_add_test(c, substitution);
    tcase_add_test(c, builder);
    suite_add_tcase(s, c);
    return s;
}
