/* The guard: what the wire bytes of a model may be (classes 1 to 16 of bad input). */
#include "frontend/guard.h"
#include "tests/unit/test_front.h"

#include <string.h>

static wire small_graph(void) {
    return W(front_input("x", 1, "B,4"), front_node("Relu", "x", "y", NONE),
             front_output("y", 1, "B,4"));
}
static wire raw(const char *bytes, size_t size) { return (wire){(const uint8_t *)bytes, size}; }
#define RAW(text) raw(text, sizeof(text) - 1)

START_TEST(a_good_model) { front_expect(front_model(17, small_graph()), NB_OK, ""); }
END_TEST

START_TEST(broken_bytes) {
    front_expect(NONE, NB_MALFORMED, "m.onnx:byte 0: error: the file is empty");
    front_expect(RAW("\x3a\xff\xff\xff\x7f"), NB_MALFORMED, "a field of 268435455 bytes");
    front_expect(RAW("\x3a\x05\x0a\x7f"), NB_MALFORMED, "of which 2 are left");
    front_expect(RAW("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), NB_MALFORMED, "bits");
    front_expect(RAW("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), NB_MALFORMED, "64 bits");
    front_expect(RAW("\x08\xff"), NB_MALFORMED, "past the end");
    front_expect(RAW("\x00\x01"), NB_MALFORMED, "field number 0");
    front_expect(RAW("\x0b\x0c"), NB_MALFORMED, "groups");
    front_expect(RAW("\x0e\x00"), NB_MALFORMED, "wire type 6");
    front_expect(RAW("\x0d\x00\x00\x00\x00"), NB_MALFORMED, "wire type 5, which is not its own");
    front_expect(RAW("\x0a\x00"), NB_MALFORMED, "is a number, found bytes");
    front_expect(RAW("\x38\x00"), NB_MALFORMED, "wire type 0, which is not its own");
    front_expect(W(front_model(17, small_graph()), RAW("\x01\x02")), NB_MALFORMED,
                 "field number 0");
    front_expect(W(front_model(17, small_graph()), RAW("tail!")), NB_MALFORMED, "error: ");
}
END_TEST

START_TEST(strings) {
    front_expect(front_text(2, "\xff"), NB_MALFORMED, "byte 2: error: a string is not valid UTF-8");
    front_expect(front_text(2, "\xc0\x80"), NB_MALFORMED, "UTF-8");         /* overlong */
    front_expect(front_text(2, "\xed\xa0\x80"), NB_MALFORMED, "UTF-8");     /* a surrogate */
    front_expect(front_text(2, "\xf4\x90\x80\x80"), NB_MALFORMED, "UTF-8"); /* above U+10FFFF */
    front_expect(front_bytes(2, "a\0b", 3), NB_MALFORMED, "byte 3: error: a string holds a NUL");
    char *name = nb_alloc(front_arena(), 65538);
    memset(name, 'n', 65537);
    front_expect(front_text(2, name), NB_LIMIT, "bytes in a name");
    front_expect(W(front_text(6, name), front_model(17, small_graph())), NB_OK, "");
}
END_TEST

START_TEST(duplicates_and_enums) {
    wire graph = front_put(7, small_graph());
    front_expect(W(graph, graph), NB_MALFORMED, "a second graph in a model");
    wire tensor = W(front_number(2, 999), front_text(8, "w"));
    front_expect(front_put(7, front_put(5, tensor)), NB_MALFORMED, "is 999, which is no known");
    tensor = front_number(2, (uint64_t)-1);
    front_expect(front_put(7, front_put(5, tensor)), NB_MALFORMED, "is -1, which is no known");
    tensor = front_number(14, 2);
    front_expect(front_put(7, front_put(5, tensor)), NB_MALFORMED, "is 2, which is no known");
}
END_TEST

START_TEST(limits) {
    wire deep = NONE; /* graphs in attributes in nodes in graphs */
    for (int i = 0; i < 40; i++) deep = front_put(1, front_put(5, front_put(6, deep)));
    front_expect(front_put(7, deep), NB_LIMIT, "more than 100 nested messages");
    wire dims = NONE;
    for (int i = 0; i < 65; i++) dims = W(dims, front_number(1, 1));
    front_expect(front_put(7, front_put(5, dims)), NB_LIMIT, "more than 64 dimensions");
    uint8_t *ones = nb_alloc(front_arena(), 1000000);
    memset(ones, 1, 1000000);
    front_expect(front_put(7, front_put(5, front_bytes(1, ones, 1000000))), NB_LIMIT,
                 "more than 64 dimensions");
    /* 2^21 empty nodes, then as many empty initializers */
    uint8_t *many = nb_alloc(front_arena(), (size_t)2 << 22);
    for (size_t i = 0; i < (size_t)1 << 22; i++) many[2 * i] = 0x0a;
    front_expect(front_bytes(7, many, (size_t)2 << 21), NB_LIMIT, "nodes in the file");
    for (size_t i = 0; i < (size_t)1 << 22; i++) many[2 * i] = 0x2a;
    front_expect(front_bytes(7, many, (size_t)2 << 22), NB_LIMIT, "bytes of memory");
    for (size_t i = 0; i < 5000; i++) many[2 * i] = 0x5a;
    front_expect(front_bytes(7, many, 10000), NB_LIMIT, "inputs or outputs");
}
END_TEST

START_TEST(skeletons_hold_tokens) {
    static uint8_t data[4000];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)i;
    wire model = front_model(17, W(front_weight("w", 1, "1000", data, sizeof data),
                                   front_weight("v", 1, "4", data, 16), small_graph()));
    nb_diags *diags = nb_diags_create(front_arena(), NULL);
    uint8_t *skeleton;
    size_t size;
    ck_assert_int_eq(nb_guard(model.bytes, model.size, "m", front_arena(), diags, &skeleton, &size),
                     NB_OK);
    ck_assert_uint_eq(size, model.size - sizeof data + NB_TOKEN_SIZE);
    const uint8_t *at = memmem(model.bytes, model.size, data, sizeof data);
    uint64_t token[2] = {(uint64_t)(at - model.bytes), sizeof data};
    ck_assert_ptr_nonnull(memmem(skeleton, size, token, sizeof token));
    ck_assert_ptr_nonnull(memmem(skeleton, size, data, 16));
}
END_TEST

START_TEST(other_files) {
    front_expect(RAW("PK\x03\x04...."), NB_MALFORMED, "found a zip archive");
    front_expect(RAW("\x40\0\0\0\0\0\0\0{\"a\":1}"), NB_MALFORMED, "found a safetensors file");
    front_expect(RAW("\x1c\0\0\0TFL3"), NB_MALFORMED, "found a TensorFlow Lite");
    front_expect(RAW("{\"ir\": 1}"), NB_MALFORMED, "found JSON text");
    front_expect(RAW("nir 1\n"), NB_MALFORMED, "name it .nir");
    front_expect(RAW("\x7f"
                     "ELF\2"),
                 NB_MALFORMED, "found an ELF object");
}
END_TEST

Suite *nb_suite_guard(void) {
    Suite *suite = suite_create("guard");
    TCase *tests = tcase_create("guard");
    tcase_add_checked_fixture(tests, front_begin, front_end);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, a_good_model);
    tcase_add_test(tests, broken_bytes);
    tcase_add_test(tests, strings);
    tcase_add_test(tests, duplicates_and_enums);
    tcase_add_test(tests, limits);
    tcase_add_test(tests, skeletons_hold_tokens);
    tcase_add_test(tests, other_files);
    suite_add_tcase(suite, tests);
    return suite;
}
