/* Bad ONNX files: wire bytes that break the format, models that break ONNX's rules, tensors that
 * are not what they say. Each is one proper error; no byte and no bit of a model can do worse. */
#include "frontend/frontend.h"
#include "frontend/guard.h"
#include "tests/unit/unit.h"
#include "tests/unit/wire.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const int64_t four[] = {4};
static const float numbers[32] = {1, 2, 3, 4};

/* y = x + w, w = {1, 2, 3, 4}: pieces may be replaced. */
typedef struct parts {
    wire nodes, initializers, inputs, outputs, rest;
} parts;

static wire one(uint32_t field, wire message) {
    wire w = {0};
    wire_message(&w, field, message);
    return w;
}

static parts good(void) {
    parts p = {0};
    p.nodes = one(1, onnx_node("Add", "x", "w", "y"));
    p.initializers = one(5, onnx_tensor("w", 1, 1, four, numbers, 16));
    p.inputs = one(11, onnx_value("x", 1, 1, four));
    p.outputs = one(12, onnx_value("y", 1, 1, four));
    return p;
}

static wire graph_of(parts p) {
    wire g = {0}, *const all[] = {&p.nodes, &p.initializers, &p.inputs, &p.outputs, &p.rest};
    for (size_t i = 0; i < NB_COUNT(all); i++) {
        wire_raw(&g, all[i]->data, all[i]->size);
        wire_free(all[i]);
    }
    return g;
}

static wire model_of(parts p) { return onnx_model(graph_of(p)); }

static void replace(wire *piece, wire by) {
    wire_free(piece);
    *piece = by;
}

/* ---- checking ------------------------------------------------------------------------------- */

static nb_status import(const wire *w, nb_arena *arena, const char **message) {
    nb_diags *diags = nb_diags_create(arena, "test.onnx");
    nb_graph *g = NULL;
    uint8_t none = 0;
    nb_status status = nb_import_bytes(w->data ? w->data : &none, w->size, "test.onnx", NULL, NULL,
                                       NULL, diags, &g);
    *message = "";
    for (size_t i = 0; i < diags->list.count; i++)
        *message = nb_format(arena, "%s%s", *message, nb_diag_render(arena, diags->list.items[i]));
    ck_assert_msg((status == NB_OK) == (diags->errors == 0), "status %d with %zu errors: %s",
                  status, diags->errors, *message);
    ck_assert((status == NB_OK) == (g != NULL));
    if (g) nb_graph_destroy(g);
    return status;
}

static bool is_proper(nb_status s) {
    return s == NB_OK || s == NB_MALFORMED || s == NB_UNSUPPORTED || s == NB_LIMIT || s == NB_IO;
}

static void expect(wire w, nb_status status, const char *text) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    const char *message;
    nb_status found = import(&w, arena, &message);
    ck_assert_msg(found == status, "status %d, expected %d: %s", found, status, message);
    ck_assert_msg(strstr(message, text) != NULL, "expected '%s', found: %s", text, message);
    nb_arena_destroy(arena);
    wire_free(&w);
}

/* ---- A: the wire ---------------------------------------------------------------------------- */

/* Bytes behind the good model. */
static void expect_tail(const char *bytes, size_t size, nb_status status, const char *text) {
    wire m = model_of(good());
    wire_raw(&m, bytes, size);
    expect(m, status, text);
}
#define TAIL(bytes, status, text) expect_tail(bytes, sizeof bytes - 1, status, text)

START_TEST(good_model) { expect(model_of(good()), NB_OK, ""); }
END_TEST

START_TEST(wire_errors) {
    expect((wire){0}, NB_MALFORMED, "the file is empty");
    TAIL("\x0a", NB_MALFORMED, "runs past the end");
    TAIL("\x0a\x01\x61", NB_MALFORMED, "field 1 of a model is a number, found bytes");
    TAIL("\x12\x05\x61", NB_MALFORMED, "a field of 5 bytes in a model of which 1 are left");
    TAIL("\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", NB_MALFORMED, "a field of 18446744073709");
    TAIL("\x28\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", NB_MALFORMED, "64 bits");
    TAIL("\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", NB_MALFORMED, "more than 64 bits");
    TAIL("\x28\x80", NB_MALFORMED, "runs past the end");
    TAIL("\x00\x00", NB_MALFORMED, "field number 0 does not exist");
    TAIL("\x0b", NB_MALFORMED, "groups are not part of ONNX");
    TAIL("\x0c", NB_MALFORMED, "groups are not part of ONNX");
    TAIL("\x0e", NB_MALFORMED, "wire type 6 does not exist");
    TAIL("\x2d\x00\x00\x00\x00", NB_MALFORMED, "wire type 5, which is not its own");
    TAIL("\x10\x01", NB_MALFORMED, "wire type 0, which is not its own");
    TAIL("\x3a\x00", NB_MALFORMED, "a second graph in a model");
    TAIL("\x12\x02\x61\x00", NB_MALFORMED, "a string holds a NUL byte");
    TAIL("\x12\x01\xff", NB_MALFORMED, "a string is not valid UTF-8");
    TAIL("\x12\x02\xc0\x80", NB_MALFORMED, "not valid UTF-8");
    TAIL("\x12\x03\xed\xa0\x80", NB_MALFORMED, "not valid UTF-8");
    TAIL("\x12\x04\xf4\x90\x80\x80", NB_MALFORMED, "not valid UTF-8");
    TAIL("\xfd\x07\x00\x00", NB_MALFORMED, "a number of 4 bytes runs past the end");
    TAIL("\xfd\x07\x00\x00\x00\x00", NB_OK, ""); /* an unknown field */
    TAIL("\xfa\x07\x02\xff\x00", NB_OK, "");
    TAIL("PK\x03\x04", NB_MALFORMED, "");
}
END_TEST

/* A sequence type of a sequence type of ... : too deep for a reader that recurses. */
START_TEST(deep_messages) {
    wire type = {0};
    for (int i = 0; i < 200; i++) type = one(4, one(1, type));
    wire value = {0};
    wire_text(&value, 1, "x");
    wire_message(&value, 2, type);
    parts p = good();
    replace(&p.inputs, one(11, value));
    expect(model_of(p), NB_LIMIT, "more than 100 nested messages");
}
END_TEST

/* A limit holds at one more than it allows, not before. */
START_TEST(limits) {
    char *name = calloc(1, 65538);
    memset(name, 'a', 65537);
    for (size_t over = 0; over < 2; over++) {
        wire m = model_of(good());
        wire_bytes(&m, 2, name, 65536 + over);
        expect(m, over ? NB_LIMIT : NB_OK, over ? "more than 65536 bytes in a name" : "");
    }
    free(name);
    int64_t dims[65];
    for (int i = 0; i < 65; i++) dims[i] = 1;
    parts p = good();
    replace(&p.initializers, one(5, onnx_tensor("w", 1, 65, dims, numbers, 4)));
    expect(model_of(p), NB_LIMIT, "more than 64 dimensions of a tensor");
}
END_TEST

/* ---- B: models and graphs ------------------------------------------------------------------- */

START_TEST(model_errors) {
    wire m = {0};
    wire_int(&m, 1, 8);
    expect(m, NB_MALFORMED, "");
    m = (wire){0}; /* no opset */
    wire_int(&m, 1, 8);
    wire_message(&m, 7, graph_of(good()));
    expect(m, NB_MALFORMED, "the model imports no operator set");
    parts p = good();
    replace(&p.nodes, one(1, onnx_node("Nonsense", "x", "w", "y")));
    expect(model_of(p), NB_UNSUPPORTED, "Nonsense 1");
    p = good();
    replace(&p.nodes, one(1, onnx_node(NULL, "x", "w", "y")));
    expect(model_of(p), NB_MALFORMED, "has no op_type");
    p = good();
    replace(&p.nodes, one(1, onnx_node("Add", "x", "nobody", "y")));
    expect(model_of(p), NB_MALFORMED, "\"nobody\" is not defined before this node");
    p = good();
    replace(&p.nodes, one(1, onnx_node("Add", "x", "y", "y")));
    expect(model_of(p), NB_MALFORMED, "\"y\" is not defined before this node");
    p = good();
    replace(&p.nodes, one(1, onnx_node("Add", "x", NULL, "y")));
    expect(model_of(p), NB_MALFORMED, "");
    p = good();
    replace(&p.nodes, one(1, onnx_node("Add", "", "w", "y")));
    expect(model_of(p), NB_MALFORMED, "");
    p = good();
    replace(&p.nodes, one(1, onnx_node("Add", "x", "w", NULL)));
    expect(model_of(p), NB_MALFORMED, "");
    p = good();
    replace(&p.nodes, one(1, onnx_node("Add", "x", "w", "x")));
    expect(model_of(p), NB_MALFORMED, "");
    p = good();
    replace(&p.nodes, (wire){0});
    expect(model_of(p), NB_MALFORMED, "output \"y\": nothing defines it");
    p = good();
    replace(&p.outputs, (wire){0});
    expect(model_of(p), NB_MALFORMED, "the graph has no output");
}
END_TEST

START_TEST(value_errors) {
    static const int64_t minus[] = {-2}, many[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1}, five[] = {5};
    parts p = good();
    replace(&p.inputs, one(11, onnx_value(NULL, 1, 1, four)));
    expect(model_of(p), NB_MALFORMED, "it has no name");
    p = good();
    wire_message(&p.inputs, 11, onnx_value("x", 1, 1, four));
    expect(model_of(p), NB_MALFORMED, "input \"x\": it is defined twice");
    p = good();
    replace(&p.inputs, one(11, onnx_value("x", 999, 1, four)));
    expect(model_of(p), NB_MALFORMED, "999, which is no known value");
    p = good();
    replace(&p.inputs, one(11, onnx_value("x", -1, 1, four)));
    expect(model_of(p), NB_MALFORMED, "");
    p = good();
    replace(&p.inputs, one(11, onnx_value("x", 1, 1, minus)));
    expect(model_of(p), NB_MALFORMED, "dimension 0 is negative");
    p = good();
    replace(&p.inputs, one(11, onnx_value("x", 1, 9, many)));
    expect(model_of(p), NB_LIMIT, "rank 9 is above 8");
    p = good();
    replace(&p.inputs, one(11, onnx_value("x", 1, 1, five)));
    expect(model_of(p), NB_MALFORMED, "");
    p = good();
    replace(&p.outputs, one(12, onnx_value("y", 1, 1, five)));
    expect(model_of(p), NB_OK, "its declared type contradicts f32[4]");
    p = good();
    replace(&p.outputs, one(12, onnx_value("y", 7, 1, four)));
    expect(model_of(p), NB_MALFORMED, "its declared type contradicts f32[4]");
}
END_TEST

/* ---- C: tensors ----------------------------------------------------------------------------- */

static void expect_tensor(wire t, nb_status status, const char *text) {
    parts p = good();
    replace(&p.initializers, one(5, t));
    expect(model_of(p), status, text);
}

START_TEST(tensor_errors) {
    static const int64_t minus[] = {-4}, huge[] = {INT64_MAX, INT64_MAX},
                         big[] = {INT64_C(1) << 40, 2}, million[] = {1000000},
                         many[9] = {4, 1, 1, 1, 1, 1, 1, 1, 1}, none[] = {0};
    static const uint8_t bools[] = {0, 1, 2, 1};
    expect_tensor(onnx_tensor("w", 1, 1, four, numbers, 15), NB_MALFORMED,
                  "raw_data has 15 bytes, f32[4] needs 16");
    expect_tensor(onnx_tensor("w", 1, 1, four, numbers, 100), NB_MALFORMED, "has 100 bytes");
    expect_tensor(onnx_tensor("w", 1, 1, million, numbers, 4), NB_MALFORMED,
                  "initializer \"w\": raw_data has 4 bytes, f32[1000000] needs 4000000");
    expect_tensor(onnx_tensor("w", 1, 1, four, NULL, 0), NB_MALFORMED, "0 values, f32[4] needs 4");
    expect_tensor(onnx_tensor("w", 1, 1, minus, numbers, 16), NB_MALFORMED, "dimension 0 is -4");
    expect_tensor(onnx_tensor("w", 1, 2, huge, numbers, 16), NB_LIMIT, "more than 2^40 elements");
    expect_tensor(onnx_tensor("w", 1, 2, big, numbers, 16), NB_LIMIT, "more than 2^40 elements");
    expect_tensor(onnx_tensor("w", 1, 9, many, numbers, 16), NB_LIMIT, "rank 9 is above");
    expect_tensor(onnx_tensor("w", 0, 1, four, numbers, 16), NB_MALFORMED, "element type 0");
    expect_tensor(onnx_tensor("w", 999, 1, four, numbers, 16), NB_MALFORMED,
                  "999, which is no known value");
    expect_tensor(onnx_tensor("w", -1, 1, four, numbers, 16), NB_MALFORMED, "");
    expect_tensor(onnx_tensor("w", 8, 1, four, numbers, 16), NB_UNSUPPORTED, "strings");
    expect_tensor(onnx_tensor(NULL, 1, 1, four, numbers, 16), NB_MALFORMED, "it has no name");
    expect_tensor(onnx_tensor("w", 9, 1, four, bools, 4), NB_MALFORMED, "bool 2 is 2");
    expect_tensor(onnx_tensor("w", 1, 1, none, numbers, 0), NB_MALFORMED, "");
    parts p = good();
    wire_message(&p.initializers, 5, onnx_tensor("w", 1, 1, four, numbers, 16));
    expect(model_of(p), NB_MALFORMED, "initializer \"w\": it is defined twice");
    wire both = onnx_tensor("w", 1, 1, four, numbers, 16);
    wire_bytes(&both, 4, numbers, 16);
    expect_tensor(both, NB_MALFORMED, "its data stand in two places");
    wire typed = onnx_tensor("w", 1, 1, four, NULL, 0);
    wire_bytes(&typed, 4, numbers, 16);
    expect_tensor(typed, NB_OK, "");
    typed = onnx_tensor("w", 1, 1, four, NULL, 0);
    wire_bytes(&typed, 4, numbers, 15);
    expect_tensor(typed, NB_MALFORMED, "15 bytes do not hold whole numbers of 4 bytes");
    typed = onnx_tensor("w", 1, 1, four, NULL, 0);
    wire_bytes(&typed, 7, "\1\2\3\4", 4); /* int64_data for floats */
    expect_tensor(typed, NB_MALFORMED, "0 values, f32[4] needs 4");
    wire segment = onnx_tensor("w", 1, 1, four, numbers, 16);
    wire_message(&segment, 3, (wire){0});
    expect_tensor(segment, NB_UNSUPPORTED, "segments");
}
END_TEST

/* An initializer that is listed as an input as well, as files before IR 4 have it. */
START_TEST(shadowed_input) {
    parts p = good();
    wire_message(&p.inputs, 11, onnx_value("w", 1, 1, four));
    expect(model_of(p), NB_OK, "");
}
END_TEST

/* ---- D: external data ----------------------------------------------------------------------- */

static wire external(const char *const *entries, size_t n) {
    wire t = onnx_tensor("w", 1, 1, four, NULL, 0);
    for (size_t i = 0; i + 1 < n; i += 2) {
        wire entry = {0};
        wire_text(&entry, 1, entries[i]);
        wire_text(&entry, 2, entries[i + 1]);
        wire_message(&t, 13, entry);
    }
    wire_int(&t, 14, 1);
    return t;
}

static void expect_external(const char *directory, const char *const *entries, size_t n,
                            nb_status status, const char *text) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags = nb_diags_create(arena, "test.onnx");
    parts p = good();
    replace(&p.initializers, one(5, external(entries, n)));
    wire m = model_of(p);
    nb_graph *g = NULL;
    nb_status found =
        nb_import_bytes(m.data, m.size, "test.onnx", directory, NULL, NULL, diags, &g);
    const char *message = diags->list.count ? diags->list.items[0]->message : "";
    ck_assert_msg(found == status && strstr(message, text), "status %d: %s", found, message);
    if (g) nb_graph_destroy(g);
    nb_arena_destroy(arena);
    wire_free(&m);
}
#define EXTERNAL(status, text, ...)                             \
    expect_external(folder, (const char *const[]){__VA_ARGS__}, \
                    sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *), status, text)

START_TEST(external_data) {
    char folder[] = "/tmp/nibble-test-XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(folder));
    nb_arena *arena = nb_arena_create(NULL, NULL);
    const char *file = nb_format(arena, "%s/w.bin", folder);
    FILE *f = fopen(file, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(numbers, 1, 32, f), 32);
    fclose(f);
    ck_assert_int_eq(symlink("w.bin", nb_format(arena, "%s/link", folder)), 0);
    EXTERNAL(NB_OK, "", "location", "w.bin");
    EXTERNAL(NB_OK, "", "location", "w.bin", "offset", "16", "length", "16");
    EXTERNAL(NB_OK, "", "location", "w.bin", "offset", "3"); /* not aligned: copied */
    EXTERNAL(NB_MALFORMED, "no location", "offset", "0");
    EXTERNAL(NB_MALFORMED, "no location", "location", "");
    EXTERNAL(NB_MALFORMED, "given twice", "location", "w.bin", "location", "w.bin");
    EXTERNAL(NB_MALFORMED, "unknown key \"colour\"", "location", "w.bin", "colour", "red");
    EXTERNAL(NB_MALFORMED, "offset \"-1\"", "location", "w.bin", "offset", "-1");
    EXTERNAL(NB_MALFORMED, "offset \"1e1\"", "location", "w.bin", "offset", "1e1");
    EXTERNAL(NB_MALFORMED, "is not a number", "location", "w.bin", "offset",
             "99999999999999999999");
    EXTERNAL(NB_MALFORMED, "of \"w.bin\", which has 32", "location", "w.bin", "offset", "17");
    EXTERNAL(NB_MALFORMED, "which has 32", "location", "w.bin", "offset", "9223372036854775807");
    EXTERNAL(NB_MALFORMED, "length is 15", "location", "w.bin", "length", "15");
    EXTERNAL(NB_MALFORMED, "is not a path below", "location", "/etc/passwd");
    EXTERNAL(NB_MALFORMED, "is not a path below", "location", "../w.bin");
    EXTERNAL(NB_MALFORMED, "is not a path below", "location", "a/../../w.bin");
    EXTERNAL(NB_MALFORMED, "is not a path below", "location", "a//w.bin");
    EXTERNAL(NB_MALFORMED, "is not a path below", "location", "C:\\w.bin");
    EXTERNAL(NB_MALFORMED, "is not a path below", "location", "file:w.bin");
    EXTERNAL(NB_MALFORMED, "it leads through a link", "location", "link");
    EXTERNAL(NB_IO, "nobody.bin", "location", "nobody.bin");
    EXTERNAL(NB_IO, "", "location", ".");
    expect_external(NULL, (const char *const[]){"location", "w.bin"}, 2, NB_MALFORMED,
                    "has no directory to look in");
    ck_assert_int_eq(link(file, nb_format(arena, "%s/hard", folder)), 0);
    EXTERNAL(NB_MALFORMED, "hard link", "location", "w.bin");
    unlink(nb_format(arena, "%s/hard", folder));
    unlink(nb_format(arena, "%s/link", folder));
    unlink(file);
    rmdir(folder);
    nb_arena_destroy(arena);
}
END_TEST

/* ---- all bytes, all bits -------------------------------------------------------------------- */

/* A model with attributes, shapes from data, and more than one kind of tensor. */
static wire larger_model(void) {
    static const int64_t two[] = {2}, rows[] = {-1, 4}, square[] = {4, 4}, shape[] = {2, -1};
    parts p = {0};
    wire transpose = onnx_node("Transpose", "m", NULL, "t"), perm = {0};
    wire_text(&perm, 1, "perm");
    wire_bytes(&perm, 8, "\1\0", 2);
    wire_int(&perm, 20, 7);
    wire_message(&transpose, 5, perm);
    wire_message(&p.nodes, 1, transpose);
    wire_message(&p.nodes, 1, onnx_node("MatMul", "x", "t", "h"));
    wire_message(&p.nodes, 1, onnx_node("Reshape", "h", "s", "r"));
    wire_message(&p.nodes, 1, onnx_node("Relu", "r", NULL, "y"));
    float weights[16];
    for (int i = 0; i < 16; i++) weights[i] = (float)i;
    wire_message(&p.initializers, 5, onnx_tensor("m", 1, 2, square, weights, sizeof weights));
    wire_message(&p.initializers, 5, onnx_tensor("s", 7, 1, two, shape, sizeof shape));
    wire_message(&p.inputs, 11, onnx_value("x", 1, 2, rows));
    wire_message(&p.outputs, 12, onnx_value("y", 1, 2, (const int64_t[]){2, -1}));
    return model_of(p);
}

static void survive(const wire *w) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    const char *message;
    nb_status status = import(w, arena, &message);
    ck_assert_msg(is_proper(status), "status %d: %s", status, message);
    nb_arena_destroy(arena);
}

START_TEST(truncation) {
    wire m = larger_model();
    expect(larger_model(), NB_OK, "");
    for (size_t n = 0; n < m.size; n++) {
        /* A block of exactly that size: reading past it is seen by sanitizers. */
        wire cut = {.data = malloc(n + 1), .size = n};
        memcpy(cut.data, m.data, n);
        survive(&cut);
        wire_free(&cut);
    }
    wire_free(&m);
}
END_TEST

START_TEST(bit_flips) {
    wire m = larger_model();
    for (size_t bit = 0; bit < 8 * m.size; bit++) {
        m.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        survive(&m);
        m.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    wire_free(&m);
}
END_TEST

START_TEST(hostile_files) {
    char *folder = nb_test_data("hostile");
    if (!folder) {
        nb_test_skip("no folder of hostile files");
        return;
    }
    DIR *dir = opendir(folder);
    ck_assert_ptr_nonnull(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (!strstr(entry->d_name, ".onnx")) continue;
        nb_arena *arena = nb_arena_create(NULL, NULL);
        nb_diags *diags = nb_diags_create(arena, entry->d_name);
        nb_graph *g = NULL;
        nb_status status =
            nb_import(nb_format(arena, "%s/%s", folder, entry->d_name), NULL, NULL, diags, &g);
        ck_assert_msg(is_proper(status) && status != NB_OK, "%s: status %d", entry->d_name, status);
        ck_assert_uint_ge(diags->errors, 1);
        nb_arena_destroy(arena);
    }
    closedir(dir);
    free(folder);
}
END_TEST

START_TEST(not_models) {
    static const char *const paths[] = {"/", "/dev/null", "/dev/zero", "/proc/self/status",
                                        "/nonexistent.onnx"};
    for (size_t i = 0; i < NB_COUNT(paths); i++) {
        nb_arena *arena = nb_arena_create(NULL, NULL);
        nb_diags *diags = nb_diags_create(arena, paths[i]);
        nb_graph *g = NULL;
        nb_status status = nb_import(paths[i], NULL, NULL, diags, &g);
        ck_assert_msg(status == NB_IO || status == NB_MALFORMED, "%s: %d", paths[i], status);
        ck_assert_uint_ge(diags->errors, 1);
        nb_arena_destroy(arena);
    }
}
END_TEST

Suite *nb_suite_bad_files(void) {
    Suite *s = suite_create("bad_files");
    TCase *c = tcase_create("guard");
    tcase_add_test(c, good_model);
    tcase_add_test(c, wire_errors);
    tcase_add_test(c, deep_messages);
    tcase_add_test(c, limits);
    tcase_add_test(c, model_errors);
    tcase_add_test(c, value_errors);
    tcase_add_test(c, tensor_errors);
    tcase_add_test(c, shadowed_input);
    tcase_add_test(c, external_data);
    tcase_add_test(c, truncation);
    tcase_add_test(c, bit_flips);
    tcase_add_test(c, hostile_files);
    tcase_add_test(c, not_models);
    suite_add_tcase(s, c);
    return s;
}
