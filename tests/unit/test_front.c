/* The importer: models, graphs and tensors that break the rules (classes 17 to 38), each with the
 * message a user reads. */
#include "tests/unit/test_front.h"

#include <string.h>

static wire in(void) { return front_input("x", 1, "B,4"); }
static wire out(const char *name) { return front_output(name, 1, "B,4"); }
static wire relu(const char *from, const char *to) { return front_node("Relu", from, to, NONE); }
/* x[B,4] through `nodes`, which end in y. */
static wire graph(wire nodes) {
    return front_model(17, W(in(), nodes, front_put(12, front_text(1, "y"))));
}
static wire opset(const char *domain, uint64_t version) {
    return front_put(8, W(front_text(1, domain), front_number(2, version)));
}

START_TEST(versions) {
    wire body = front_put(7, W(in(), relu("x", "y"), out("y"))), ir = front_number(1, 8);
    front_expect(W(ir, opset("", 17), body), NB_OK, "");
    front_expect(W(opset("", 17), body), NB_MALFORMED, "no ir_version");
    front_expect(W(ir, body), NB_MALFORMED, "imports no operator set");
    front_expect(W(ir, opset("", 17)), NB_MALFORMED, "has no graph");
    front_expect(W(ir, opset("", 17), opset("ai.onnx", 18), body), NB_MALFORMED, "twice");
    front_expect(W(ir, opset("", 0), body), NB_MALFORMED, "has version 0");
    front_expect(W(ir, opset("com.microsoft", 1), body), NB_MALFORMED, "does not import operator");
    front_expect(W(ir, opset("", 999), body), NB_UNSUPPORTED, "newer than this nibble");
    front_expect(W(front_number(1, 999), opset("", 17), body), NB_UNSUPPORTED, "ONNX IR 999");
}
END_TEST

START_TEST(names_of_values) {
    front_expect(graph(W(relu("z", "y"))), NB_MALFORMED,
                 "m.onnx: error: node #0 \"the node\" (Relu, ai.onnx 17): input 0 \"z\" is not "
                 "defined before this node");
    front_expect(graph(W(relu("y", "a"), relu("a", "y"))), NB_MALFORMED, "\"a\" is not defined");
    /* Nodes that are not sorted. */
    front_expect(graph(W(relu("b", "y"), relu("a", "b"), relu("x", "a"))), NB_OK, "");
    front_expect(graph(W(relu("y", "y"))), NB_MALFORMED, "\"y\" is not defined");
    front_expect(graph(W(relu("x", "y"), relu("x", "y"))), NB_MALFORMED, "\"y\" is defined twice");
    front_expect(graph(W(relu("x", "x"))), NB_MALFORMED, "\"x\" is defined twice");
    front_expect(graph(W(in(), relu("x", "y"))), NB_MALFORMED, "input \"x\": it is defined twice");
    front_expect(graph(W(front_zeros("w", "2"), front_zeros("w", "2"), relu("x", "y"))),
                 NB_MALFORMED, "initializer \"w\": it is defined twice");
    front_expect(graph(relu("x", "z")), NB_MALFORMED, "output \"y\": nothing defines it");
    front_expect(front_model(17, W(in(), relu("x", "y"))), NB_MALFORMED, "no output");
    front_expect(graph(W(relu("x", "y"), out("y"))), NB_MALFORMED, "listed twice");
}
END_TEST

START_TEST(inputs_and_outputs_of_nodes) {
    front_expect(graph(relu("x,x", "y")), NB_MALFORMED, "2 inputs, it takes at most 1");
    front_expect(graph(relu("", "y")), NB_MALFORMED, "input 0 is missing");
    front_expect(graph(front_node("Add", "x", "y", NONE)), NB_MALFORMED, "input 1 is missing");
    front_expect(graph(front_node("Add", ",x", "y", NONE)), NB_MALFORMED, "input 0 is missing");
    front_expect(graph(relu("x", "y,z")), NB_MALFORMED, "2 outputs, it has 1 to 1");
    front_expect(graph(W(relu("x", ""), relu("x", "y"))), NB_MALFORMED, "0 outputs");
    front_expect(graph(front_node("", "x", "y", NONE)), NB_MALFORMED, "has no op_type");
}
END_TEST

START_TEST(unsupported_operators) {
    wire all =
        W(front_node("StringSplit", "x", "a", NONE), front_node("ImageDecoder", "x", "b", NONE),
          front_node("StringSplit", "x", "c", NONE),
          front_domain_node("evil", "Relu", "x", "y", NONE));
    front_expect(
        graph(all), NB_UNSUPPORTED,
        "3 operators in 4 nodes are not supported at opset 17: StringSplit 2, ImageDecoder 1, "
        "evil::Relu 1");
    front_expect(graph(all), NB_UNSUPPORTED,
                 "  note: StringSplit: the node, the node\n  note: ImageDecoder: the node\n");
    front_expect(graph(front_domain_node("com.microsoft", "BeamSearch", "x", "y", NONE)),
                 NB_UNSUPPORTED,
                 "  note: com.microsoft::BeamSearch: the search for a text is not part of a");
    wire many = NONE;
    for (int i = 0; i < 1000; i++)
        many = W(many, front_node(nb_format(front_arena(), "Op%d", i), "x", "y", NONE));
    front_expect(graph(many), NB_UNSUPPORTED, "Op199 1 and 800 others");
    wire alike = NONE;
    for (int i = 0; i < 300; i++) alike = W(alike, front_node("StringSplit", "x", "y", NONE));
    front_expect(graph(alike), NB_UNSUPPORTED, "the node and 100 others");
    wire function = front_put(25, front_text(10, "f"));
    front_expect(W(graph(relu("x", "y")), function), NB_MALFORMED, "function #0 has no name");
}
END_TEST

START_TEST(attributes) {
    wire concat = front_int("axis", 0), softmax = front_node("Softmax", "x", "y", concat);
    front_expect(graph(softmax), NB_OK, "");
    front_expect(graph(front_node("Concat", "x", "y", NONE)), NB_MALFORMED, "\"axis\" is missing");
    front_expect(graph(front_node("Softmax", "x", "y", front_float("axis", 0))), NB_MALFORMED,
                 "attribute \"axis\" is a float, expected an integer");
    front_expect(graph(front_node("Softmax", "x", "y", front_int("axes", 0))), NB_MALFORMED,
                 "attribute \"axes\" is not known");
    front_expect(graph(front_node("Softmax", "x", "y", W(concat, concat))), NB_MALFORMED,
                 "attribute \"axis\" is given twice");
    wire both = front_put(5, W(front_text(1, "axis"), front_number(3, 0), front_fixed(2, 1)));
    front_expect(graph(front_node("Softmax", "x", "y", both)), NB_MALFORMED, "several values");
    wire none = front_put(5, front_text(1, "axis"));
    front_expect(graph(front_node("Softmax", "x", "y", none)), NB_MALFORMED, "is nothing");
    wire zero = front_put(5, W(front_text(1, "axis"), front_number(20, 2))); /* 0 left out */
    front_expect(graph(front_node("Softmax", "x", "y", zero)), NB_OK, "");
    wire lie = front_put(5, W(front_text(1, "axis"), front_number(3, 0), front_number(20, 7)));
    front_expect(graph(front_node("Softmax", "x", "y", lie)), NB_MALFORMED, "is integers");
    wire ref = front_put(5, W(front_text(1, "axis"), front_text(21, "outer")));
    front_expect(graph(front_node("Softmax", "x", "y", ref)), NB_MALFORMED, "refers to a function");
    wire anonymous = front_put(5, front_number(3, 0));
    front_expect(graph(front_node("Softmax", "x", "y", anonymous)), NB_MALFORMED, "no name");
    wire nul = front_put(5, W(front_text(1, "mode"), front_bytes(4, "constant\0x", 10)));
    front_expect(graph(W(I64("p", 0, 0, 0, 0), front_node("Pad", "x,p", "y", nul))), NB_MALFORMED,
                 "holds a NUL");
}
END_TEST

START_TEST(every_independent_error_is_reported) {
    wire bad = front_node("Softmax", "x", "a", front_int("axis", 9));
    wire model = graph(W(bad, relu("a", "b"), front_node("Concat", "x", "c", NONE),
                         front_zeros("w", "3"), front_node("Add", "x,w", "y", NONE)));
    nb_diags *diags = nb_diags_create(front_arena(), NULL);
    nb_status status;
    ck_assert_ptr_null(front_import(model, diags, &status));
    ck_assert_int_eq(status, NB_MALFORMED);
    ck_assert_uint_eq(diags->errors, 3); /* what depends on a bad node is not an error of its own */
    for (size_t i = 0; i < 3; i++)
        ck_assert_ptr_nonnull(strstr(diags->list.items[i]->message, "node #"));
}
END_TEST

static wire holds(wire tensor) { return graph(W(front_put(5, tensor), relu("x", "y"))); }

START_TEST(tensors) {
    float f[4] = {0};
    front_expect(holds(front_tensor("w", 1, "2,2", f, 16)), NB_OK, "");
    front_expect(holds(front_tensor("w", 1, "1000000", f, 4)), NB_MALFORMED,
                 "initializer \"w\": raw_data has 4 bytes, f32[1000000] needs 4000000");
    front_expect(holds(front_tensor("w", 1, "-1", f, 4)), NB_MALFORMED, "dimension 0 is -1");
    front_expect(holds(front_tensor("w", 1, "4294967296,4294967296,4294967296", f, 4)), NB_LIMIT,
                 "more than 2^40 elements");
    front_expect(holds(front_tensor("w", 1, "1,1,1,1,1,1,1,1,1", f, 4)), NB_LIMIT, "rank 9");
    front_expect(holds(front_tensor("w", 1, "0,7", f, 0)), NB_OK, "");
    front_expect(holds(front_tensor("w", 0, "1", f, 4)), NB_MALFORMED, "element type 0");
    front_expect(holds(front_tensor("w", 63, "1", f, 4)), NB_MALFORMED, "element type 63");
    front_expect(holds(front_tensor("w", 8, "1", f, 4)), NB_UNSUPPORTED, "strings");
    front_expect(holds(front_tensor("w", 14, "1", f, 8)), NB_UNSUPPORTED, "complex");
    front_expect(holds(front_tensor("", 1, "4", f, 16)), NB_MALFORMED, "no name");
    front_expect(holds(front_tensor("w", 9, "2", "\1\2", 2)), NB_MALFORMED, "bool 1 is 2");
    front_expect(holds(front_tensor("w", 22, "3", "\x21\x03", 2)), NB_OK, ""); /* i4 */
    front_expect(holds(front_tensor("w", 22, "3", "\x21", 1)), NB_MALFORMED, "needs 2");
    wire both = W(front_tensor("w", 1, "1", f, 4), front_fixed(4, 1));
    front_expect(holds(both), NB_MALFORMED, "stand in two places");
    wire head = W(front_number(1, 1), front_text(8, "w"));
    front_expect(holds(W(head, front_number(2, 1), front_fixed(4, 1))), NB_OK, "");
    front_expect(holds(W(head, front_number(2, 1))), NB_MALFORMED, "0 values, f32[1] needs 1");
    front_expect(holds(W(head, front_number(2, 1), front_number(7, 1))), NB_MALFORMED, "0 values");
    front_expect(holds(W(head, front_number(2, 1), front_fixed(4, 1), front_number(7, 1))),
                 NB_MALFORMED, "two places");
    front_expect(holds(W(head, front_number(2, 3), front_number(5, 128))), NB_MALFORMED,
                 "value 0 is 128, beyond i8");
    front_expect(holds(W(head, front_number(2, 3), front_number(5, (uint64_t)-128))), NB_OK, "");
    front_expect(holds(W(head, front_number(2, 2), front_number(5, (uint64_t)-1))), NB_MALFORMED,
                 "beyond u8");
    front_expect(holds(W(head, front_number(2, 9), front_number(5, 2))), NB_MALFORMED, "bool 0");
    front_expect(holds(W(head, front_number(2, 1), front_fixed(4, 1), front_put(3, NONE))),
                 NB_UNSUPPORTED, "segments");
    wire sparse = front_put(15, NONE);
    front_expect(graph(W(sparse, relu("x", "y"))), NB_UNSUPPORTED, "sparse");
}
END_TEST

START_TEST(declared_types) {
    wire y = relu("x", "y");
    front_expect(front_model(17, W(in(), y, front_output("y", 1, "B,5"))), NB_OK,
                 "warning: output \"y\": its declared type contradicts f32[B,4]");
    front_expect(front_model(17, W(in(), y, front_output("y", 7, "B,4"))), NB_MALFORMED, "declare");
    front_expect(front_model(17, W(in(), y, front_output("y", 1, "4"))), NB_OK, "declared");
    front_expect(front_model(17, W(in(), y, front_output("y", 1, "?,?"))), NB_OK, "");
    /* value_info is field 13 where outputs are 12 */
    wire info = front_output("a", 1, "B,9");
    uint8_t *bytes = (uint8_t *)(uintptr_t)info.bytes;
    bytes[0] = 13 << 3 | 2;
    front_expect(graph(W(info, relu("x", "a"), relu("a", "y"))), NB_OK,
                 "value \"a\": its declared type contradicts f32[B,4], which the model gives\n");
    front_expect(graph(W(info, info, relu("x", "a"), relu("a", "y"))), NB_OK, "and so with 1 more");
    /* An initializer may be listed as an input, of the same type. */
    wire listed = W(front_input("w", 1, "4"), front_zeros("w", "4"));
    front_expect(graph(W(listed, y)), NB_OK, "");
    listed = W(front_input("w", 1, "5"), front_zeros("w", "4"));
    front_expect(graph(W(listed, y)), NB_MALFORMED, "input \"w\": its declared type");
}
END_TEST

START_TEST(graph_inputs) {
    front_expect(graph(W(front_input("z", 1, "-2"), relu("x", "y"))), NB_MALFORMED, "is negative");
    front_expect(graph(W(front_input("z", 8, "2"), relu("x", "y"))), NB_UNSUPPORTED, "type 8");
    front_expect(graph(W(front_input("", 1, "2"), relu("x", "y"))), NB_MALFORMED, "no name");
    front_expect(graph(W(front_input("z", 1, "1,1,1,1,1,1,1,1,1"), relu("x", "y"))), NB_LIMIT,
                 "rank 9");
    wire rankless =
        front_put(11, W(front_text(1, "z"), front_put(2, front_put(1, front_number(1, 1)))));
    front_expect(graph(W(rankless, relu("x", "y"))), NB_UNSUPPORTED, "rank is not known");
    wire untyped = front_put(11, front_text(1, "z"));
    front_expect(graph(W(untyped, relu("x", "y"))), NB_MALFORMED, "not a tensor");
}
END_TEST

START_TEST(names_are_escaped) {
    wire evil = front_put(1, W(front_text(1, "\"; \n\x1b[31m -o %s%n"), front_text(2, "y"),
                               front_text(3, "\x1b]0;x\a"), front_text(4, "Relu")));
    front_expect(graph(evil), NB_MALFORMED, "\\x1b[31m -o %s%n");
}
END_TEST

Suite *nb_suite_front(void) {
    Suite *suite = suite_create("front");
    TCase *tests = tcase_create("front");
    tcase_add_checked_fixture(tests, front_begin, front_end);
    tcase_add_test(tests, versions);
    tcase_add_test(tests, names_of_values);
    tcase_add_test(tests, inputs_and_outputs_of_nodes);
    tcase_add_test(tests, unsupported_operators);
    tcase_add_test(tests, attributes);
    tcase_add_test(tests, every_independent_error_is_reported);
    tcase_add_test(tests, tensors);
    tcase_add_test(tests, declared_types);
    tcase_add_test(tests, graph_inputs);
    tcase_add_test(tests, names_are_escaped);
    suite_add_tcase(suite, tests);
    return suite;
}
