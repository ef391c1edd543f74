/* Graphs written as ONNX: what the driver `emitted` cannot see in numbers. */
#include "frontend/export.h"
#include "ir/eval.h"
#include "ir/text.h"
#include "tests/unit/test_front.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/nibble-export-XXXXXX";
static const char *path;
static nb_diags *diags;

static void open_folder(void) {
    front_begin();
    strcpy(folder + strlen(folder) - 6, "XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    path = nb_format(front_arena(), "%s/m.onnx", folder);
    diags = nb_diags_create(front_arena(), "test");
}

static void close_folder(void) {
    unlink(path);
    unlink(nb_format(front_arena(), "%s.data", path));
    ck_assert_int_eq(rmdir(folder), 0); /* nothing else was left */
    front_end();
}

static nb_graph *graph(const char *text) {
    nb_graph *g = NULL;
    nb_status status = nb_parse(text, strlen(text), "test.nir", ".", NULL, NULL, diags, &g);
    ck_assert_msg(status == NB_OK, "%s", status == NB_OK ? "" : diags->list.items[0]->message);
    return g;
}

static nb_status write_as(nb_graph *g, nb_export_options options) {
    return nb_export(g, &options, path, diags);
}

static off_t size_of(const char *file) {
    struct stat st;
    return stat(file, &st) == 0 ? st.st_size : -1;
}

/* A row for each op, or a reason. */
START_TEST(every_operation_has_a_row) {
    for (int k = 0; k < NB_OP_COUNT; k++)
        ck_assert_msg(nb_export_rows[k].fn || nb_export_rows[k].operator, "%s", nb_ops[k].name);
}
END_TEST

/* Values and constants have names of their own in a graph, ONNX has one space for all; an output
 * that is an input or stands twice gets a node. */
START_TEST(names_are_unique) {
    nb_graph *again = NULL,
             *g = graph("nir 1\n"
                        "graph @g(%x: f32[B]) -> (y: f32[B], z: f32[B], w: f32[B]) {\n"
                        "  const @y: f32[] = {1}\n"
                        "  %a: f32[B] = add %x, @y at \"node\"\n"
                        "  return %a, %a, %x\n}\n");
    ck_assert_int_eq(write_as(g, (nb_export_options){.form = NB_ONNX_QDQ}), NB_OK);
    ck_assert_int_eq(nb_import(path, NULL, NULL, diags, &again), NB_OK);
    ck_assert_str_eq(again->outputs.items[0], "y");
    ck_assert_str_eq(again->outputs.items[1], "z");
    ck_assert_str_eq(again->outputs.items[2], "w");
    ck_assert_str_eq(again->body.params[0]->name, "x");
    ck_assert_str_eq(again->body.params[0]->type->dims[0]->symbol->name, "B");
    ck_assert_str_eq(nb_loc_name(again->body.first->loc), "node");
    nb_graph_destroy(again);
    nb_graph_destroy(g);
}
END_TEST

START_TEST(metadata_is_kept) {
    const nb_metadatum m = {"author", "somebody, \xc3\xa9"};
    nb_graph *again = NULL, *g = graph("nir 1\n"
                                       "graph @g(%x: f32[B]) -> f32[B] {\n"
                                       "  %y: f32[B] = neg %x\n"
                                       "  return %y\n}\n");
    nb_vec_push(g->arena, &g->metadata, m);
    nb_graph *copy = nb_graph_clone(g);
    ck_assert_int_eq(write_as(copy, (nb_export_options){.form = NB_ONNX_QDQ}), NB_OK);
    ck_assert_int_eq(nb_import(path, NULL, NULL, diags, &again), NB_OK);
    ck_assert_uint_eq(again->metadata.count, 1);
    ck_assert_str_eq(again->metadata.items[0].key, m.key);
    ck_assert_str_eq(again->metadata.items[0].value, m.value);
    nb_graph_destroy(again);
    nb_graph_destroy(copy);
    nb_graph_destroy(g);
}
END_TEST

#define WEIGHTS                                      \
    "nir 1\n"                                        \
    "graph @g(%x: f32[B,64]) -> f32[B,64] {\n"       \
    "  const @w: f32[64,64] = random(1, -1..1)\n"    \
    "  %y: f32[B,64] = matmul %x, @w at \"layer\"\n" \
    "  return %y\n}\n"

START_TEST(external_data) {
    nb_graph *again = NULL, *g = graph(WEIGHTS);
    const char *data = nb_format(front_arena(), "%s.data", path);
    ck_assert_int_eq(write_as(g, (nb_export_options){.data = NB_ONNX_DATA_EXTERNAL}), NB_OK);
    ck_assert_int_eq(size_of(data), 64 * 64 * 4);
    ck_assert_int_lt(size_of(path), 1024);
    ck_assert_int_eq(nb_import(path, NULL, NULL, diags, &again), NB_OK);
    ck_assert_uint_eq(again->constants.count, 1);
    ck_assert_int_eq(memcmp(again->constants.items[0]->blob->data,
                            g->constants.items[0]->blob->data, 64 * 64 * 4),
                     0);
    ck_assert_str_eq(again->constants.items[0]->name, "w");
    nb_graph_destroy(again);
    nb_graph_destroy(g);
}
END_TEST

/* Each constant once, and nothing beside the file. */
START_TEST(embedded_data) {
    nb_graph *g = graph("nir 1\n"
                        "graph @g(%x: f32[B,64]) -> f32[B,64] {\n"
                        "  const @w: f32[64,64] = random(1, -1..1)\n"
                        "  %y: f32[B,64] = matmul %x, @w\n"
                        "  %z: f32[B,64] = matmul %y, @w\n"
                        "  return %z\n}\n");
    ck_assert_int_eq(write_as(g, (nb_export_options){.data = NB_ONNX_DATA_EMBEDDED}), NB_OK);
    ck_assert_int_ge(size_of(path), 64 * 64 * 4);
    ck_assert_int_lt(size_of(path), 64 * 64 * 4 + 1024);
    ck_assert_int_eq(size_of(nb_format(front_arena(), "%s.data", path)), -1);
    nb_graph_destroy(g);
}
END_TEST

/* Weights of layers in bodies stand there, where onnxruntime looks for them; outside the file they
 * are the same bytes. */
START_TEST(weights_in_bodies) {
    nb_graph *again = NULL, *g = graph("nir 1\n"
                                       "graph @g(%x: f32[B,64], %on: bool[]) -> f32[B,64] {\n"
                                       "  stage fused\n"
                                       "  quant #w: i8 narrow axis 1 scale @s\n"
                                       "  const @s: f32[64] = random(1, 0.01..0.02)\n"
                                       "  const @w: #w[64,64] = random(2, -9..9)\n"
                                       "  %y: f32[B,64] = if %on, %x do (%x.1: f32[B,64]) {\n"
                                       "    %a: f32[B,64] = matmul %x.1, @w at \"then\"\n"
                                       "    return %a\n  } do (%x.2: f32[B,64]) {\n"
                                       "    %b: f32[B,64] = matmul %x.2, @w at \"else\"\n"
                                       "    %c: f32[B,64] = neg %b\n"
                                       "    return %c\n  }\n"
                                       "  return %y\n}\n");
    ck_assert_int_eq(write_as(g, (nb_export_options){.data = NB_ONNX_DATA_EXTERNAL}), NB_OK);
    ck_assert_int_eq(size_of(nb_format(front_arena(), "%s.data", path)), 64 * 64);
    ck_assert_int_eq(nb_import(path, NULL, NULL, diags, &again), NB_OK);
    const nb_op *op = again->body.first;
    ck_assert_int_eq(op->kind, NB_OP_if);
    for (uint32_t r = 0; r < 2; r++) {
        const nb_op *product = op->regions[r]->first;
        while (product->kind != NB_OP_matmul) product = product->next;
        const nb_value *w = nb_in(nb_in(product, 1)->def, 0); /* what is dequantized */
        ck_assert(nb_is_const(w));
        ck_assert_int_eq(memcmp(w->blob->data, g->constants.items[1]->blob->data, 64 * 64), 0);
    }
    nb_graph_destroy(again);
    nb_graph_destroy(g);
}
END_TEST

START_TEST(what_cannot_be_written) {
    nb_graph *g = graph("nir 1\n"
                        "graph @g(%x: f32[B]) -> (a: f32[B], b: f32[B]) {\n"
                        "  %a: f32[B] = call %x {function=\"f\", to=f32, shape=[B]} at \"first\"\n"
                        "  %b: f32[B] = call %a {function=\"f\", to=f32, shape=[B]} at \"second\"\n"
                        "  return %a, %b\n}\n");
    ck_assert_int_eq(write_as(g, (nb_export_options){.form = NB_ONNX_QDQ}), NB_UNSUPPORTED);
    ck_assert_uint_eq(diags->errors, 1);
    ck_assert_ptr_nonnull(
        strstr(diags->list.items[0]->message, "2 operations cannot be written as ONNX: call (2; "));
    ck_assert_int_eq(size_of(path), -1);
    nb_graph_destroy(g);
}
END_TEST

START_TEST(nowhere_to_write) {
    const nb_export_options options = {.data = NB_ONNX_DATA_EXTERNAL};
    nb_graph *g = graph(WEIGHTS);
    ck_assert_int_eq(
        nb_export(g, &options, nb_format(front_arena(), "%s/none/m.onnx", folder), diags), NB_IO);
    nb_graph_destroy(g);
}
END_TEST

/* MatMulNBits has codes from 0, column by column, low bits first: [K,N] = [32,2] of i4 is 16 bytes
 * for each column, and -8 is 0. */
static int count_bytes(const uint8_t *bytes, size_t size, const uint8_t *part, size_t n) {
    int found = 0;
    for (size_t i = 0; i + n <= size; i++) found += memcmp(bytes + i, part, n) == 0;
    return found;
}

START_TEST(matmul_nbits) {
    nb_graph *g =
        graph("nir 1\n"
              "graph @g(%x: f32[B,32]) -> f32[B,2] {\n"
              "  quant #w: i4 group 32 axis 0 scale @s\n"
              "  const @s: f32[1,2] = {0.5, 0.25}\n"
              "  const @w: #w[32,2] = {-8, 7, -7, 6, -8, 7, -7, 6, -8, 7, -7, 6, -8, 7, -7, 6,"
              " -8, 7, -7, 6, -8, 7, -7, 6, -8, 7, -7, 6, -8, 7, -7, 6,"
              " -8, 7, -7, 6, -8, 7, -7, 6, -8, 7, -7, 6, -8, 7, -7, 6,"
              " -8, 7, -7, 6, -8, 7, -7, 6, -8, 7, -7, 6, -8, 7, -7, 6}\n"
              "  %y: f32[B,2] = matmul %x, @w at \"layer\"\n"
              "  return %y\n}\n");
    uint8_t wanted[32], bytes[4096];
    memset(wanted, 0x10, 16);      /* -8, -7 */
    memset(wanted + 16, 0xef, 16); /* 7, 6 */
    ck_assert_int_eq(write_as(g, (nb_export_options){.form = NB_ONNX_MATMUL_NBITS}), NB_OK);
    FILE *f = fopen(path, "rb");
    ck_assert_ptr_nonnull(f);
    const size_t n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    ck_assert_int_eq(count_bytes(bytes, n, wanted, sizeof wanted), 1);
    ck_assert_int_eq(count_bytes(bytes, n, (const uint8_t *)"MatMulNBits", 11), 1);
    ck_assert_int_eq(count_bytes(bytes, n, (const uint8_t *)"DequantizeLinear", 16), 0);
    nb_graph_destroy(g);
}
END_TEST

Suite *nb_suite_export(void) {
    Suite *s = suite_create("export");
    TCase *c = tcase_create("export");
    tcase_add_checked_fixture(c, open_folder, close_folder);
    tcase_add_test(c, every_operation_has_a_row);
    tcase_add_test(c, names_are_unique);
    tcase_add_test(c, metadata_is_kept);
    tcase_add_test(c, external_data);
    tcase_add_test(c, embedded_data);
    tcase_add_test(c, weights_in_bodies);
    tcase_add_test(c, what_cannot_be_written);
    tcase_add_test(c, nowhere_to_write);
    tcase_add_test(c, matmul_nbits);
    suite_add_tcase(s, c);
    return s;
}
