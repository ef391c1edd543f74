/* Reading files, and external data, which stays in the model's folder (classes 2, 39 to 45). Files
 * go to a folder of the test's own below the temporary folder. */
#include "frontend/frontend.h"
#include "ir/eval.h"
#include "tests/unit/test_front.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}
static void begin(void) {
    front_begin();
    strcpy(folder, "/tmp/nibble-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}
static void end(void) {
    nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    front_end();
}

static const char *in_folder(const char *name) {
    return nb_format(front_arena(), "%s/%s", folder, name);
}
static void write_file(const char *name, const void *data, size_t size) {
    FILE *f = fopen(in_folder(name), "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(data, 1, size, f), size);
    ck_assert_int_eq(fclose(f), 0);
}

/* Imports the file and checks the status and what the first error contains. */
static void expect(const char *path, nb_status status, const char *part) {
    nb_diags *diags = nb_diags_create(front_arena(), path);
    nb_graph *g = NULL;
    nb_status got = nb_import(path, NULL, NULL, diags, &g);
    const char *text = diags->errors ? nb_diag_render(front_arena(), diags->list.items[0]) : "";
    ck_assert_msg(got == status, "status %d, expected %d: %s", (int)got, (int)status, text);
    ck_assert_msg(strstr(text, part), "expected '%s' in: %s", part, text);
    nb_graph_destroy(g);
}

START_TEST(paths_that_are_not_models) {
    expect(in_folder("none"), NB_IO, "cannot open: No such file");
    expect(folder, NB_IO, "found a directory");
    expect("/dev/null", NB_IO, "found a device");
    ck_assert_int_eq(mkfifo(in_folder("pipe"), 0600), 0);
    expect(in_folder("pipe"), NB_IO, "found a pipe");
    write_file("empty", "", 0);
    expect(in_folder("empty"), NB_MALFORMED, "the file is empty");
    write_file("text.onnx", "graph(float[N] x) => (float[N] y) {}", 37);
    expect(in_folder("text.onnx"), NB_MALFORMED, "error: ");
}
END_TEST

static wire entry(const char *key, const char *value) {
    return front_put(13, W(front_text(1, key), front_text(2, value)));
}
static wire external(wire entries) {
    return front_put(5, W(front_number(1, 4), front_number(2, 1), front_text(8, "w"), entries,
                          front_number(14, 1)));
}
static wire model_of(wire initializer) {
    return front_model(17, W(front_input("x", 1, "4"), initializer,
                             front_node("Add", "x,w", "y", NONE), front_output("y", 1, "4")));
}
/* A model whose weight w: f32[4] stands where `entries` say. */
static void expect_external(wire entries, nb_status status, const char *part) {
    wire model = model_of(external(entries));
    write_file("m.onnx", model.bytes, model.size);
    expect(in_folder("m.onnx"), status, part);
}

START_TEST(external_data_is_read) {
    float data[8] = {0, 0, 1, 2, 3, 4};
    write_file("w.bin", data, sizeof data);
    wire model = model_of(
        external(W(entry("location", "w.bin"), entry("offset", "8"), entry("length", "16"))));
    write_file("m.onnx", model.bytes, model.size);
    nb_diags *diags = nb_diags_create(front_arena(), NULL);
    nb_graph *g;
    ck_assert_int_eq(nb_import(in_folder("m.onnx"), NULL, NULL, diags, &g), NB_OK);
    unlink(in_folder("w.bin")); /* the graph holds what it needs */
    float x[4] = {10, 10, 10, 10};
    nb_tensor in = {.elem = NB_F32, .rank = 1, .dims = {4}, .data = x, .bytes = 16}, out;
    ck_assert_int_eq(nb_eval(g, &in, &out, NULL, 0, front_arena(), diags), NB_OK);
    ck_assert_mem_eq(out.data, ((float[]){11, 12, 13, 14}), 16);
    nb_graph_destroy(g);
    /* Bytes at an odd place are copied to an aligned one. */
    write_file("w.bin", data, sizeof data);
    expect_external(W(entry("location", "./w.bin"), entry("offset", "1")), NB_OK, "");
}
END_TEST

/* ---- pinned inputs ------------------------------------------------------------------------- */

static void expect_pinned(const char *pin, nb_status status, const char *part) {
    nb_diags *diags = nb_diags_create(front_arena(), NULL);
    nb_graph *g = NULL;
    nb_status got =
        nb_import_with(in_folder("m.onnx"), &(nb_import_options){.pins = &pin, .n_pins = 1}, NULL,
                       NULL, diags, &g);
    const char *text = diags->list.count ? nb_diag_render(front_arena(), diags->list.items[0]) : "";
    ck_assert_msg(got == status && strstr(text, part), "%s: status %d, %s", pin, (int)got, text);
    nb_graph_destroy(g);
}

START_TEST(pinned_inputs_are_numbers) {
    wire relu = W(front_node("Relu", "x", "a", NONE), front_put(12, front_text(1, "a")));
    wire negative = W(front_node("Neg", "x", "b", NONE), front_put(12, front_text(1, "b")));
    wire both = W(front_put(5, W(front_text(1, "then_branch"), front_put(6, relu))),
                  front_put(5, W(front_text(1, "else_branch"), front_put(6, negative))));
    wire model = front_model(
        17, W(front_input("x", 1, "B,4"), front_input("c", 9, ""), front_input("v", 7, "1"),
              front_node("If", "c", "i", both), front_node("Cast", "v", "f", front_int("to", 1)),
              front_node("Add", "i,f", "y", NONE), front_put(12, front_text(1, "y"))));
    write_file("m.onnx", model.bytes, model.size);
    nb_diags *diags = nb_diags_create(front_arena(), NULL);
    nb_graph *g;
    const char *pins[] = {"c=false", "v=-7"};
    ck_assert_int_eq(nb_import_with(in_folder("m.onnx"),
                                    &(nb_import_options){.pins = pins, .n_pins = 2}, NULL, NULL,
                                    diags, &g),
                     NB_OK);
    ck_assert_uint_eq(g->body.n_params, 1);
    NB_FOR_OPS(op, &g->body) ck_assert(op->kind != NB_OP_if && op->kind != NB_OP_relu);
    float x[4] = {1, 2, 3, 4};
    nb_tensor in = {.elem = NB_F32, .rank = 2, .dims = {1, 4}, .data = x, .bytes = 16}, out;
    ck_assert_int_eq(nb_eval(g, &in, &out, NULL, 0, front_arena(), diags), NB_OK);
    ck_assert_mem_eq(out.data, ((float[]){-8, -9, -10, -11}), 16);
    nb_graph_destroy(g);
    expect_pinned("c=2", NB_USAGE, "input \"c\" is bool[], which '2' is no value of");
    expect_pinned("v=", NB_USAGE, "which '' is no value of");
    expect_pinned("v=1e99", NB_USAGE, "is no value of");
    expect_pinned("x=1", NB_USAGE, "only inputs of a known size");
    expect_pinned("w=1", NB_USAGE, "there is no input to pin in 'w=1'");
    expect_pinned("c", NB_USAGE, "expected NAME=NUMBER");
}
END_TEST

START_TEST(missing_file_is_said_once) {
    wire at = entry("location", "missing.bin");
    wire two = W(external(at), front_put(5, W(front_number(1, 4), front_number(2, 1),
                                              front_text(8, "v"), at, front_number(14, 1))));
    wire model =
        front_model(17, W(front_input("x", 1, "4"), two, front_node("Add", "x,w", "h", NONE),
                          front_node("Add", "h,v", "y", NONE), front_output("y", 1, "4")));
    write_file("m.onnx", model.bytes, model.size);
    nb_diags *diags = nb_diags_create(front_arena(), NULL);
    nb_graph *g;
    ck_assert_int_eq(nb_import(in_folder("m.onnx"), NULL, NULL, diags, &g), NB_IO);
    ck_assert_uint_eq(diags->errors, 1);
}
END_TEST

START_TEST(keys_of_external_data) {
    write_file("w.bin", "0123456789abcdefghi", 19);
    wire at = entry("location", "w.bin");
    expect_external(NONE, NB_MALFORMED, "no location");
    expect_external(entry("location", ""), NB_MALFORMED, "no location");
    expect_external(W(at, at), NB_MALFORMED, "given twice");
    expect_external(W(at, entry("owner", "me")), NB_MALFORMED, "unknown key \"owner\"");
    expect_external(W(at, entry("offset", "-1")), NB_MALFORMED, "is not a number");
    expect_external(W(at, entry("offset", "0x1")), NB_MALFORMED, "is not a number");
    expect_external(W(at, entry("offset", "")), NB_MALFORMED, "is not a number");
    expect_external(W(at, entry("offset", "99999999999999999999")), NB_MALFORMED, "not a number");
    expect_external(W(at, entry("offset", "9223372036854775807")), NB_MALFORMED, "which has 19");
    expect_external(W(at, entry("offset", "4")), NB_MALFORMED,
                    "16 bytes from byte 4 of \"w.bin\", which has 19");
    expect_external(W(at, entry("length", "15")), NB_MALFORMED, "the tensor needs 16 bytes");
    expect_external(W(at, entry("checksum", "00")), NB_OK, "");
    wire both = external(W(at, front_bytes(9, "0123456789abcdef", 16)));
    write_file("m.onnx", model_of(both).bytes, model_of(both).size);
    expect(in_folder("m.onnx"), NB_MALFORMED, "stand in two places");
}
END_TEST

START_TEST(places_of_external_data) {
    static const char *const outside[] = {"/etc/passwd", "../w.bin",  "a/../../w.bin", "a//w.bin",
                                          "C:\\w.bin",   "file://w",  "a/..",          "..",
                                          "w.bin/",      "sub\\w.bin"};
    for (size_t i = 0; i < NB_COUNT(outside); i++)
        expect_external(entry("location", outside[i]), NB_MALFORMED,
                        "is not a path below the model's directory");
    expect_external(entry("location", "none.bin"), NB_IO, "No such file");
    ck_assert_int_eq(mkdir(in_folder("sub"), 0700), 0);
    expect_external(entry("location", "sub"), NB_IO, "found a directory");
    ck_assert_int_eq(mkfifo(in_folder("pipe"), 0600), 0);
    expect_external(entry("location", "pipe"), NB_IO, "found a pipe");
    write_file("sub/w.bin", "0123456789abcdef", 16);
    expect_external(entry("location", "sub/w.bin"), NB_OK, "");
    ck_assert_int_eq(symlink("sub/w.bin", in_folder("link")), 0);
    expect_external(entry("location", "link"), NB_MALFORMED, "leads through a link");
    ck_assert_int_eq(symlink("sub", in_folder("linked")), 0);
    expect_external(entry("location", "linked/w.bin"), NB_MALFORMED, "leads through a link");
    ck_assert_int_eq(link(in_folder("sub/w.bin"), in_folder("hard")), 0);
    expect_external(entry("location", "hard"), NB_MALFORMED, "is a hard link");
    /* The same rules where a tensor is an attribute; and none at all without a folder. */
    wire value =
        W(front_number(1, 4), front_number(2, 1), entry("location", "link"), front_number(14, 1));
    wire attribute = front_put(5, W(front_text(1, "value"), front_put(5, value)));
    wire model = front_model(
        17, W(front_node("Constant", "", "y", attribute), front_put(12, front_text(1, "y"))));
    write_file("m.onnx", model.bytes, model.size);
    expect(in_folder("m.onnx"), NB_MALFORMED, "leads through a link");
    front_expect(model, NB_MALFORMED, "has no directory to look in");
}
END_TEST

START_TEST(tensor_files) {
    nb_diags *diags = nb_diags_create(front_arena(), NULL);
    float data[40] = {1, 2, 3};
    nb_tensor t;
    wire good = front_tensor("t", 1, "2,20", data, sizeof data);
    write_file("t.pb", good.bytes, good.size);
    ck_assert_int_eq(nb_read_tensor_file(in_folder("t.pb"), front_arena(), diags, &t), NB_OK);
    ck_assert_int_eq(t.rank, 2);
    ck_assert_mem_eq(t.data, data, sizeof data);
    for (size_t n = 0; n < good.size; n++) { /* truncated everywhere */
        write_file("t.pb", good.bytes, n);
        nb_diags *d = nb_diags_create(front_arena(), NULL);
        ck_assert_int_eq(nb_read_tensor_file(in_folder("t.pb"), front_arena(), d, &t),
                         NB_MALFORMED);
    }
}
END_TEST

Suite *nb_suite_front_files(void) {
    Suite *suite = suite_create("front_files");
    TCase *tests = tcase_create("front_files");
    tcase_add_checked_fixture(tests, begin, end);
    tcase_add_test(tests, pinned_inputs_are_numbers);
    tcase_add_test(tests, paths_that_are_not_models);
    tcase_add_test(tests, external_data_is_read);
    tcase_add_test(tests, missing_file_is_said_once);
    tcase_add_test(tests, keys_of_external_data);
    tcase_add_test(tests, places_of_external_data);
    tcase_add_test(tests, tensor_files);
    suite_add_tcase(suite, tests);
    return suite;
}
