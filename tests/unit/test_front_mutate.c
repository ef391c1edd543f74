/* A good model, broken in every place: whatever comes in, the importer ends with a graph that
 * verifies or with an error. Meant to run under sanitizers. */
#include "frontend/frontend.h"
#include "ir/verify.h"
#include "tests/unit/test_front.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static wire result(const char *name) { return front_put(12, front_text(1, name)); }
static wire takes(const char *name) { return front_put(11, front_text(1, name)); }
static wire body(const char *name, wire graph) {
    return front_put(5, W(front_text(1, name), front_put(6, graph)));
}

/* Graphs in graphs: an If with an LSTM, a Loop and a sequence in its branches, a Scan. */
static wire control(void) {
    float weights[16] = {1, 2, 3};
    wire adds = body("body", W(takes("i"), takes("go"), takes("h"), result("go"), result("n"),
                               front_node("Add", "h,x", "n", NONE)));
    wire lstm = W(front_node("LSTM", "x,w,r", ",h", NONE), result("h"));
    wire other =
        W(front_node("Loop", "k,,x", "a", adds), front_node("SequenceConstruct", "a,x", "s", NONE),
          front_node("ConcatFromSequence", "s", "b", front_int("axis", 0)), I64("first", 0),
          I64("end", 1), I64("axis", 2), front_node("Gather", "b,first", "g", NONE),
          front_node("Slice", "g,first,end,axis", "c", NONE), result("c"));
    wire scan =
        W(body("body", W(takes("p"), takes("q"), result("t"), result("u"),
                         front_node("Add", "p,q", "t", NONE), front_node("Neg", "t", "u", NONE))),
          front_int("num_scan_inputs", 1));
    return front_model(
        17,
        W(front_input("x", 1, "T,B,2"), front_input("c", 9, ""), I64("k", 3),
          front_weight("w", 1, "1,4,2", weights, 32), front_weight("r", 1, "1,4,1", weights, 16),
          front_node("If", "c", "y", W(body("then_branch", lstm), body("else_branch", other))),
          front_node("Scan", "z0,x", "z,zs", scan), front_zeros("z0", "1,2"), result("y"),
          result("zs")));
}

/* Something of everything, in about 700 bytes. */
static wire sample(int number) {
    if (number) return control();
    float weights[32] = {1, 2, 3};
    wire body = W(
        front_input("x", 1, "B,S,8"), front_input("p", 7, "B,S"),
        front_weight("w", 1, "8,4", weights, 128), I64("one", 1), I64("end", 3),
        I64("to", 0, -1, 2), front_node("MatMul", "x,w", "m", NONE),
        front_node("Reshape", "m,to", "r", NONE), front_node("Shape", "r", "s", NONE),
        front_node("Slice", "s,one,end", "cut", NONE), front_zeros("c", "4,4"),
        front_zeros("n", "8"), front_node("Softmax", "x", "soft", front_int("axis", -1)),
        front_node("SimplifiedLayerNormalization", "soft,n", "norm", front_float("epsilon", 1e-5f)),
        front_domain_node("com.microsoft", "RotaryEmbedding", "norm,p,c,c", "y", NONE),
        front_output("y", 1, "B,S,8"), front_output("r", 1, "B,?,2"));
    return front_model(17, body);
}

static void import(const uint8_t *bytes, size_t size) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags = nb_diags_create(arena, "m.onnx");
    nb_graph *g = NULL;
    uint8_t *copy = malloc(size ? size : 1); /* exactly as long, so that reading on is seen */
    ck_assert_ptr_nonnull(copy);
    if (size) memcpy(copy, bytes, size);
    nb_status status = nb_import_bytes(copy, size, "m.onnx", NULL, NULL, NULL, diags, &g);
    ck_assert(status == NB_OK ? g && !diags->errors : !g && diags->errors);
    ck_assert_msg(status == NB_OK || status == NB_MALFORMED || status == NB_UNSUPPORTED ||
                      status == NB_LIMIT,
                  "status %d: %s", (int)status, nb_diag_render(arena, diags->list.items[0]));
    nb_graph_destroy(g);
    free(copy);
    nb_arena_destroy(arena);
}

START_TEST(truncated_everywhere) {
    wire m = sample(_i);
    front_expect(m, NB_OK, "");
    for (size_t n = 0; n <= m.size; n++) import(m.bytes, n);
}
END_TEST

START_TEST(every_bit_flipped) {
    wire m = sample(_i);
    uint8_t *bytes = nb_alloc(front_arena(), m.size);
    memcpy(bytes, m.bytes, m.size);
    for (size_t bit = 0; bit < 8 * m.size; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        import(bytes, m.size);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}
END_TEST

/* Numbers that break sizes, in place of each byte. */
START_TEST(every_byte_replaced) {
    static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    wire m = sample(_i);
    uint8_t *bytes = nb_alloc(front_arena(), m.size);
    memcpy(bytes, m.bytes, m.size);
    for (size_t i = 0; i < m.size; i++) {
        for (size_t k = 0; k < sizeof values; k++) {
            bytes[i] = values[k];
            import(bytes, m.size);
        }
        bytes[i] = m.bytes[i];
    }
}
END_TEST

START_TEST(hostile_files) {
    static const char *const names[] = {"badutf8",  "dims1M",         "empty",   "enum",
                                        "enumneg",  "group",          "len64",   "lenover",
                                        "nest5000", "nest_min_crash", "nulname", "twographs"};
    for (size_t i = 0; i < NB_COUNT(names); i++) {
        char *path = nb_test_data(nb_format(front_arena(), "hostile/%s.onnx", names[i]));
        if (!path) {
            nb_test_skip("no hostile files");
            return;
        }
        nb_diags *diags = nb_diags_create(front_arena(), path);
        nb_graph *g = NULL;
        nb_status status = nb_import(path, NULL, NULL, diags, &g);
        ck_assert_msg(status == NB_MALFORMED || status == NB_LIMIT, "%s: %d", path, (int)status);
        ck_assert_uint_eq(diags->errors, 1);
        free(path);
    }
}
END_TEST

Suite *nb_suite_front_mutate(void) {
    Suite *suite = suite_create("front_mutate");
    TCase *tests = tcase_create("front_mutate");
    tcase_add_checked_fixture(tests, front_begin, front_end);
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, truncated_everywhere, 0, 2);
    tcase_add_loop_test(tests, every_bit_flipped, 0, 2);
    tcase_add_loop_test(tests, every_byte_replaced, 0, 2);
    tcase_add_test(tests, hostile_files);
    suite_add_tcase(suite, tests);
    return suite;
}
