/* The verifier: a sound graph passes, and each way to break one is found and named. */
#include "ir/interner.h"
#include "ir/text.h"
#include "tests/unit/test_ir.h"

#include <math.h>
#include <string.h>

static ir_graph t;
static nb_value *x, *past, *w, *scales, *a, *present;

/* past and x joined to a state; x + w, dequantized codes with scales along an axis. */
static void open_graph(void) {
    ir_open(&t);
    x = ir_input(&t, "x", NB_F32, "B,S,4");
    past = ir_input(&t, "past", NB_F32, "B,P,4");
    scales = nb_const_f32(t.graph, "s", 1, (int64_t[]){4}, (float[]){1, 2, 3, 4});
    const nb_quant *q = ir_quant(
        &t, (nb_quant){.storage = NB_I8, .granularity = NB_PER_AXIS, .axis = 0, .scales = scales});
    w = ir_const(&t, "w", nb_type_with_quant(t.graph, ir_shape(&t, NB_I8, "4"), q));
    nb_value *d = nb_unary(&t.b, NB_OP_dequantize, w);
    t.b.loc = nb_loc_at(t.graph, "/add");
    a = nb_binary(&t.b, NB_OP_add, x, d);
    t.b.loc = NULL;
    ir_begin(&t, NB_OP_concat, past, a, NULL, NULL);
    nb_set_int(&t.b, "axis", 1);
    present = ir_expect(&t, "f32[B,P+S,4]");
    ir_outputs(&t, 2, (nb_value *[]){a, present});
    nb_state s = {.input = 1, .output = 1, .axis = 1};
    nb_vec_push(t.graph->arena, &t.graph->states, s);
    t.graph->stage = NB_STAGE_QDQ;
    ck_assert_msg(nb_verify(t.graph, t.diags) == NB_OK, "%s", ir_message(&t));
}
static void close_graph(void) { ir_close(&t); }

/* Some violation is told in a message that holds `text`. */
static void expect(const char *text) {
    size_t from = t.diags->list.count;
    ck_assert_int_eq(nb_verify(t.graph, t.diags), NB_INTERNAL);
    for (size_t i = from; i < t.diags->list.count; i++) {
        if (strstr(t.diags->list.items[i]->message, text)) return;
    }
    ck_abort_msg("expected '%s', found '%s'", text, ir_message(&t));
}

START_TEST(uses_that_lie) {
    nb_use *u = &a->def->operands[0];
    nb_value *was = u->value;
    u->value = past; /* in the wrong list */
    expect("uses of 'x' is broken");
    u->value = was;
    x->uses = NULL; /* in no list */
    expect("operand 0 'x' is not in the list of its uses");
}
END_TEST

START_TEST(uses_from_outside) {
    nb_value *gone = nb_unary(&t.b, NB_OP_neg, x);
    nb_op_remove(gone->def);
    ck_assert_int_eq(nb_verify(t.graph, t.diags), NB_OK);
    nb_set_operand(&gone->def->operands[0], x);
    expect("an op outside the graph uses a value");
}
END_TEST

START_TEST(use_before_definition) {
    nb_op_move_before(present->def, t.graph->body.first);
    expect("operand 1 'add' is used before it is defined");
}
END_TEST

START_TEST(list_of_ops) {
    a->def->prev = NULL;
    expect("the list of ops is broken");
}
END_TEST

START_TEST(missing_return) {
    nb_op_remove(t.graph->body.last);
    expect("the graph has no return");
}
END_TEST

START_TEST(return_in_the_middle) {
    nb_op_move_before(t.graph->body.last, a->def);
    expect("return stands last, and only there");
}
END_TEST

START_TEST(outputs_without_values) {
    t.graph->outputs.count = 1;
    expect("2 values for 1 outputs");
}
END_TEST

START_TEST(types_that_are_not_inferred) {
    a->type = ir_shape(&t, NB_F32, "B,S,5");
    expect("add: '%add' has type f32[B,S,5], the operands give f32[B,S,4]");
    ck_assert_str_eq(t.diags->list.items[0]->where.node, "/add");
}
END_TEST

START_TEST(operands_that_do_not_fit) {
    x->type = ir_shape(&t, NB_F32, "B,S,5");
    expect("do not broadcast");
}
END_TEST

START_TEST(names_of_two) {
    present->name = a->name;
    expect("two values are named '%add'");
    w->name = scales->name;
    expect("two values are named '@s'");
}
END_TEST

START_TEST(ids_of_two) {
    present->id = a->id;
    expect("is not its own");
    present->id = t.graph->n_values;
    expect("is not its own");
}
END_TEST

START_TEST(results_without_op) {
    a->def = present->def;
    expect("'%add' does not know its op");
}
END_TEST

START_TEST(constants_of_other_sizes) {
    w->blob->size = 3;
    expect("constant '@w' of type #q[4] has 3 bytes");
}
END_TEST

START_TEST(scales_that_are_no_numbers) {
    static const float wrong[] = {0, NAN, INFINITY};
    for (size_t i = 0; i < NB_COUNT(wrong); i++) {
        float data[4] = {1, 2, wrong[i], 4};
        scales->blob->data = data;
        expect("scale 2 of '#q' is");
        scales->blob->data = NULL;
    }
    float data[4] = {1, -1, 1, 1};
    scales->blob->data = data;
    ck_assert_int_eq(nb_verify(t.graph, t.diags), NB_OK);
}
END_TEST

START_TEST(scales_of_other_shapes) {
    const nb_type *was = scales->type;
    scales->type = ir_shape(&t, NB_F32, "2,2");
    expect("#q needs 4 scales, '@s' has 2");
    scales->type = was;
    t.graph->constants.items[0] = t.graph->constants.items[--t.graph->constants.count];
    expect("'#q' refers to a constant that the graph does not have");
}
END_TEST

START_TEST(symbols_of_nobody) {
    const nb_symbol *s = nb_graph_symbol(t.graph, "P", true);
    nb_graph_substitute(t.graph, s, ir_dim(&t, "S"));
    ck_assert_int_eq(nb_verify(t.graph, t.diags), NB_OK);
    const nb_dim *stale = nb_dim_symbol(t.graph, s);
    past->type = nb_type_intern(t.graph, NB_F32, NULL, 1, &stale);
    expect("symbol 'P', which the graph does not have");
    nb_value *n = ir_input(&t, "n", NB_F32, "B");
    ir_begin(&t, NB_OP_slice, n, NULL, NULL, NULL);
    nb_set_dims(&t.b, "start", 1, &stale);
    ir_set_dims(&t, "count", "1");
    IR_SET_INTS(&t, "step", 1);
    ck_assert_ptr_nonnull(nb_end(&t.b));
    expect("start holds symbol 'P'");
    t.graph->symbols.items[0]->min = 5;
    t.graph->symbols.items[0]->max = 4;
    expect("symbol 'B' has position 0 and range 5..4");
}
END_TEST

START_TEST(states) {
    nb_state *s = &t.graph->states.items[0];
    s->input = 2;
    expect("state 0 names a port that does not exist");
    s->input = 1;
    s->output = 7;
    expect("state 0 names a port that does not exist");
    s->output = 1;
    s->axis = -1;
    expect("state 0 pairs f32[B,P,4] with f32[B,P+S,4]");
    s->axis = 3;
    expect("state 0 pairs");
    s->axis = 1;
    s->input = 0; /* x as well as it may be */
    s->output = 0;
    ck_assert_int_eq(nb_verify(t.graph, t.diags), NB_OK);
    nb_state twice = *s;
    nb_vec_push(t.graph->arena, &t.graph->states, twice);
    expect("state 1 names a port of another state");
}
END_TEST

START_TEST(stages) {
    static const struct {
        nb_op_kind kind;
        nb_stage from;
    } cases[] = {{NB_OP_matmul, NB_STAGE_FLOAT},  {NB_OP_return, NB_STAGE_FLOAT},
                 {NB_OP_quantize, NB_STAGE_QDQ},  {NB_OP_dequantize, NB_STAGE_QDQ},
                 {NB_OP_qmatmul, NB_STAGE_FUSED}, {NB_OP_qgather, NB_STAGE_FUSED},
                 {NB_OP_qpatches, NB_STAGE_FUSED}};
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        for (int stage = NB_STAGE_FLOAT; stage <= NB_STAGE_PLANNED; stage++)
            ck_assert_int_eq(nb_legal_in(cases[i].kind, (nb_stage)stage),
                             stage >= (int)cases[i].from);
    }
    t.graph->stage = NB_STAGE_FLOAT;
    expect("dequantize: is not legal in this stage");
    t.graph->stage = NB_STAGE_PLANNED;
    expect("'%add' has no storage");
    expect("'%x' has no storage");
    expect("'@w' has no storage");
}
END_TEST

/* Sizes that data tell are there from their `bind` on, and not behind the body it is in. */
START_TEST(counted_before_it_is_told) {
    nb_value *n = nb_const_i64(t.graph, "n", 0, NULL, (int64_t[]){3});
    const nb_dim *d = nb_dim_symbol(t.graph, nb_graph_counted(t.graph, "N"));
    t.b.before = t.graph->body.last;
    ir_begin(&t, NB_OP_bind, n, NULL, NULL, NULL);
    nb_set_dims(&t.b, "size", 1, &d);
    nb_op *bind = ir_expect(&t, "i64[]")->def;
    nb_begin(&t.b, NB_OP_dims);
    nb_set_dims(&t.b, "values", 1, &d);
    nb_op *dims = ir_expect(&t, "i64[1]")->def;
    ck_assert_msg(nb_verify(t.graph, t.diags) == NB_OK, "%s", ir_message(&t));
    nb_op_move_before(dims, bind);
    expect("values holds N, of which no `bind` has told all before");
    nb_op_move_before(bind, dims);
    x->type = nb_type_intern(t.graph, NB_F32, NULL, 1, &d);
    expect("f32[N] holds N");
}
END_TEST

/* What a convolution of codes keeps in registers is kept together. */
START_TEST(half_a_convolution) {
    static const char text[] = "nir 1\n"
                               "graph @g(%c: u8[B,2,7] in input 0) -> (z: f32[B,5,1]) {\n"
                               "  stage planned\n"
                               "  quant #u: u8 scale 0.1 zero 7\n"
                               "  quant #v: i8 narrow scale 0.5\n"
                               "  const @v: #v[6,1] = splat -7 in weight\n"
                               "  %p: u8[B,5,6] = patches %c {kernel=[3]} in registers\n"
                               "  %a: #u[B,5,6] = as_codes %p {to=#u} in slot 0\n"
                               "  %z: f32[B,5,1] = qmatmul %a, @v in output 0\n"
                               "  return %z\n"
                               "}\n";
    nb_graph *g;
    ck_assert_int_ne(nb_parse(text, sizeof text - 1, "half", NULL, NULL, NULL, t.diags, &g), NB_OK);
    ck_assert_msg(strstr(ir_message(&t), "'%a' and '%p' are not both in registers"), "%s",
                  ir_message(&t));
}
END_TEST

/* So is what a pooling does. */
START_TEST(half_a_pooling) {
    static const char text[] = "nir 1\n"
                               "graph @g(%%x: f32[B,1,7] in input 0) -> (y: f32[B,3]) {\n"
                               "  stage planned\n"
                               "  quant #u: u8 scale 0.1 zero 7\n"
                               "  %%q: #u[B,1,7] = quantize %%x {to=#u} in slot 0\n"
                               "  %%c: u8[B,1,7] = codes %%q in slot 0\n"
                               "  %%p: u8[B,3,2] = patches %%c {kernel=[2], strides=[2]} in %s\n"
                               "  %%a: #u[B,3,2] = as_codes %%p {to=#u} in %s\n"
                               "  %%d: f32[B,3,2] = dequantize %%a in %s\n"
                               "  %%y: f32[B,3] = reduce_mean %%d {axes=[2]} in output 0\n"
                               "  return %%y\n"
                               "}\n";
    static const char reg[] = "registers", slot[] = "slot 1";
    static const struct {
        const char *patches, *codes, *reals, *message; /* NULL: it is whole */
    } cases[] = {{reg, reg, reg, NULL},
                 {slot, reg, reg, "'%d' and '%p' are not both in registers"},
                 {reg, slot, reg, "'%d' and '%a' are not both in registers"},
                 {reg, reg, slot, "'%d' and '%a' are not both in registers"},
                 {slot, slot, slot, NULL}};
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        nb_diags *diags = nb_diags_create(t.arena, NULL);
        const char *all =
            nb_format(t.arena, text, cases[i].patches, cases[i].codes, cases[i].reals);
        nb_graph *g;
        const nb_status status = nb_parse(all, strlen(all), "half", NULL, NULL, NULL, diags, &g);
        const char *said = diags->list.count ? diags->list.items[0]->message : "";
        ck_assert_msg((status == NB_OK) == !cases[i].message, "case %zu: %s", i, said);
        if (cases[i].message)
            ck_assert_msg(strstr(said, cases[i].message), "case %zu: %s", i, said);
        else
            nb_graph_destroy(g);
    }
}
END_TEST

/* All that is wrong is told, not the first only. */
START_TEST(several) {
    present->name = a->name;
    w->blob->size = 3;
    t.graph->states.items[0].axis = 3;
    ck_assert_int_eq(nb_verify(t.graph, t.diags), NB_INTERNAL);
    ck_assert_uint_eq(t.diags->errors, 3);
}
END_TEST

Suite *nb_suite_ir_verify(void) {
    Suite *s = suite_create("ir_verify");
    TCase *c = tcase_create("verify");
    tcase_add_checked_fixture(c, open_graph, close_graph);
    tcase_add_test(c, uses_that_lie);
    tcase_add_test(c, uses_from_outside);
    tcase_add_test(c, use_before_definition);
    tcase_add_test(c, counted_before_it_is_told);
    tcase_add_test(c, list_of_ops);
    tcase_add_test(c, missing_return);
    tcase_add_test(c, return_in_the_middle);
    tcase_add_test(c, outputs_without_values);
    tcase_add_test(c, types_that_are_not_inferred);
    tcase_add_test(c, operands_that_do_not_fit);
    tcase_add_test(c, names_of_two);
    tcase_add_test(c, ids_of_two);
    tcase_add_test(c, results_without_op);
    tcase_add_test(c, constants_of_other_sizes);
    tcase_add_test(c, scales_that_are_no_numbers);
    tcase_add_test(c, scales_of_other_shapes);
    tcase_add_test(c, symbols_of_nobody);
    tcase_add_test(c, states);
    tcase_add_test(c, stages);
    tcase_add_test(c, half_a_convolution);
    tcase_add_test(c, half_a_pooling);
    tcase_add_test(c, several);
    suite_add_tcase(s, c);
    return s;
}
