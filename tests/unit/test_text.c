/* The text form: what is printed reads back and prints the same, byte for byte; numbers keep their
 * bits; parts of files; dimension expressions; printing of what cannot be read back. */
#include "ir/build.h"
#include "ir/text_private.h"
#include "tests/unit/unit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static nb_arena *arena;

static void setup(void) { arena = nb_arena_create(NULL, NULL); }
static void teardown(void) { nb_arena_destroy(arena); }

static nb_graph *parse_at(const char *text, const char *base) {
    nb_diags *diags = nb_diags_create(arena, "test.nir");
    nb_graph *g = NULL;
    nb_status status = nb_parse(text, strlen(text), "test.nir", base, NULL, NULL, diags, &g);
    for (size_t i = 0; i < diags->list.count; i++)
        fputs(nb_diag_render(arena, diags->list.items[i]), stderr);
    ck_assert_int_eq(status, NB_OK);
    ck_assert_ptr_nonnull(g);
    return g;
}

/* Parses `text`; it prints as `printed`, and that prints as itself. */
static void expect(const char *text, const char *printed) {
    nb_graph *g = parse_at(text, NULL);
    ck_assert_str_eq(nb_print_string(arena, g, NULL), printed);
    nb_graph_destroy(g);
    g = parse_at(printed, NULL);
    ck_assert_str_eq(nb_print_string(arena, g, NULL), printed);
    nb_graph_destroy(g);
}

static void expect_same(const char *text) { expect(text, text); }

START_TEST(every_construct) {
    expect_same(
        "nir 1\n"
        "graph @fc1(%x: f32[B,4], %past: f32[B,2,P,8], %new: f32[B,2,S,8]) -> "
        "(logits: f32[B,4],\n"
        "    present: f32[B,2,P+S,8], codes: #w[4,2], \"odd name\": i4[20]) "
        "where B in 1..512, P in 0.. {\n"
        "  stage fused\n"
        "  state past -> present axis 2 appended\n"
        "  quant #n: i8 narrow scale 0.031496063\n"
        "  quant #z: u8 scale -0.5 zero 128\n"
        "  quant #w: i8 narrow axis 1 scale @w.scale\n"
        "  quant #g: u5 group 3 axis 0 scale @g.scale zero @g.zero\n"
        "  quant #t: i16 token amax 32639\n"
        "  quant #m: f4e2m1 group 3 axis 0 scale @m.scale times 0.25\n"
        "  quant #b: i8 block 32 amax 127\n"
        "  const @gamma: f32[4] = {0.125, 1, 1, 1} at \"/ln\" via raise\n"
        "  const @w.q: #w[4,2] = {127, -127, 32, 48, -16, 127, 8, 95}\n"
        "  const @w.scale: f32[2] = {0.031496063, 0.015748031}\n"
        "  const @m.scale: f8e4m3fn[2,2] = {1, 2, 448, 0.5}\n"
        "  const @g.scale: f32[2,2] = {1, 2, 3e-20, 4e+20}\n"
        "  const @g.zero: u5[2,2] = {1, 2, 3, 30}\n"
        "  const @\"\": bool[3] = {true, false, 0x2}\n"
        "  const @many: f64[1024] = splat -0.1\n"
        "  const @none: f32[0,7] = {}\n"
        "  const @i: i4[20] = {-1, 4, -6, 3, 2, -7, -2, 6, -7, 1, 3, 4, 6, -8, -2, 0, 7, "
        "-1, -3, 0}\n"
        "  %n: f32[B,4] = layer_norm %x, @gamma, bias=@gamma {eps=1e-05} at \"/ln\" via "
        "smooth-fold, \"9\"\n"
        "  %\"/y:0\": f32[B,3] = slice %n {start=[0,1], count=[B,3], step=[1,1]} at \"/a\" + "
        "\"/b\\\"\\\\\\x0a\" in slot 3\n"
        "  %cat: f32[B,2,P+S,8] = concat %past, %new {axis=2} in state 0\n"
        "  %r: f32[2,2*B] = reshape %n {shape=[2,2*B]}\n"
        "  %m: f32[B,1] = reduce_mean %n {axes=[1], keep}\n"
        "  %q: #n[B,4] = quantize %x {to=#n} in input 0\n"
        "  %y: f32[B,2] = qmatmul %q, @w.q in weight\n"
        "  %h: f16[B,2] = cast %y {to=f16} in weight 4\n"
        "  return %n, %cat, @w.q, @i at \"/end\"\n"
        "}\n");
}
END_TEST

START_TEST(one_output_named_as_its_value) {
    expect_same("nir 1\n"
                "graph @\"a b\"(%x: f32[B] in input 0) -> f32[B] where `odd \\x60` in 1.. {\n"
                "  %y: f32[B] = neg %x\n"
                "  return %y\n"
                "}\n");
    expect_same("nir 1\ngraph @g() -> () {\n  return\n}\n");
}
END_TEST

START_TEST(loose_texts_have_one_form) {
    expect("; comment\n\n nir 1 ; version\r\n\ngraph @g ( %\"x\" : f32[ B , S+P ] , %p: f32[P],"
           "%q:f32[S]) -> (\"y\": f32[B,P + S],\n z: f32[ (2*P) ])\n where S in 1..,"
           " P in 0.. ;\n {\n"
           "const @c:f32[2]={1.0,;one\n 2e0}\n"
           "const @d: i8[17] = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}\n"
           "%c: f32[P*2] = concat %p, %p { axis = 0 }\n\n"
           "%n: f32[B,P+S] = neg %x at \"a\"+\"b\" via p,q in slot 1\n"
           "return %n,%c ; two\n } ; end\n\n",
           "nir 1\n"
           "graph @g(%x: f32[B,P+S], %p: f32[P], %q: f32[S]) -> (y: f32[B,P+S], z: f32[2*P]) "
           "where P in 0.. {\n"
           "  const @c: f32[2] = {1, 2}\n"
           "  const @d: i8[17] = splat 1\n"
           "  %c: f32[2*P] = concat %p, %p {axis=0}\n"
           "  %n: f32[B,P+S] = neg %x at \"a\" + \"b\" via p, q in slot 1\n"
           "  return %n, %c\n"
           "}\n");
}
END_TEST

static void same_f32(uint32_t bits) {
    char text[NB_NUMBER_SIZE];
    float f;
    memcpy(&f, &bits, sizeof f);
    if (f != f) return;
    size_t n = nb_f32_text(f, text);
    float back = nb_f32_read(text, n);
    uint32_t again;
    memcpy(&again, &back, sizeof again);
    ck_assert_msg(again == bits, "%08x prints as %s, which is %08x", bits, text, again);
    ck_assert_uint_eq(n, strlen(text));
    ck_assert(strtof(text, NULL) == f);
}

START_TEST(floats_keep_their_bits) {
    static const struct {
        float value;
        const char *text;
    } cases[] = {{0, "0"},
                 {-0.0f, "-0"},
                 {0.1f, "0.1"},
                 {1e-5f, "1e-05"},
                 {0.0001f, "0.0001"},
                 {16777216, "16777216"},
                 {1e9f, "1000000000"},
                 {1e10f, "1e+10"},
                 {3.4028234663852886e38f, "3.4028235e+38"},
                 {1.401298464324817e-45f, "1e-45"},
                 {1.1754943508222875e-38f, "1.1754944e-38"},
                 {INFINITY, "inf"},
                 {-INFINITY, "-inf"},
                 {1.0f / 3, "0.33333334"},
                 {-123.456f, "-123.456"}};
    char text[NB_NUMBER_SIZE];
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        nb_f32_text(cases[i].value, text);
        ck_assert_str_eq(text, cases[i].text);
    }
    uint32_t bits = 1;
    for (int i = 0; i < 2000000; i++) {
        bits = bits * 1664525u + 1013904223u;
        same_f32(bits);
    }
    for (uint32_t e = 0; e < 255; e++) { /* around every power of two */
        for (uint32_t d = 0; d < 5; d++) same_f32((e << 23) + d - (e ? 2 : 0));
    }
}
END_TEST

START_TEST(doubles_keep_their_bits) {
    char text[NB_NUMBER_SIZE];
    uint64_t bits = 1;
    for (int i = 0; i < 200000; i++) {
        double d, back;
        bits = bits * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        memcpy(&d, &bits, sizeof d);
        if (d != d) continue;
        back = nb_f64_read(text, nb_f64_text(d, text));
        ck_assert_mem_eq(&back, &d, sizeof d);
    }
    nb_f64_text(0.1, text);
    ck_assert_str_eq(text, "0.1");
    nb_f64_text(5e-324, text);
    ck_assert_str_eq(text, "5e-324");
}
END_TEST

/* Reading must round once: decimals next to the midpoint of two floats. */
START_TEST(reading_rounds_once) {
    static const char *const cases[] = {"1.00000005960464477539062500000001",
                                        "1.000000059604644775390625",
                                        "1.00000005960464477539062499999999",
                                        "1.0000001788139343261718750000001",
                                        "0.1",
                                        "1e23",
                                        "8.5e-46",
                                        "7.1e-46",
                                        "1.17549429e-38",
                                        "3.40282356e38",
                                        "16777217",
                                        "16777219",
                                        "9007199791611905",
                                        "123456789012345678901234567890e-20"};
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        float f = nb_f32_read(cases[i], strlen(cases[i])), right = strtof(cases[i], NULL);
        ck_assert_msg(f == right, "%s", cases[i]);
        double d = nb_f64_read(cases[i], strlen(cases[i]));
        ck_assert(d == strtod(cases[i], NULL));
    }
}
END_TEST

/* Every bit pattern of the small types survives. */
START_TEST(small_elements_keep_their_bits) {
    for (int e = 0; e < NB_ELEM_COUNT; e++) {
        int width = nb_elems[e].bits;
        if (width > 16) continue;
        int64_t count = INT64_C(1) << width, bytes;
        ck_assert(nb_elem_bytes_of((nb_elem)e, count, &bytes));
        nb_graph *g = nb_graph_create("g", NULL, NULL);
        void *data;
        nb_blob *blob = nb_blob_create(bytes, &data);
        memset(data, 0, (size_t)bytes);
        for (int64_t i = 0; i < count; i++) nb_elem_put((nb_elem)e, data, i, (uint64_t)i);
        const nb_dim *n = nb_dim_const(g, count);
        nb_graph_add_const(g, "c", nb_type_intern(g, (nb_elem)e, NULL, 1, &n), blob, NULL);
        nb_graph_set_outputs(g, 0, NULL, NULL);
        nb_graph *again = parse_at(nb_print_string(arena, g, NULL), NULL);
        const nb_blob *b = again->constants.items[0]->blob;
        ck_assert_int_eq(b->size, bytes);
        ck_assert_msg(memcmp(b->data, data, (size_t)bytes) == 0, "%s", nb_elems[e].text);
        nb_graph_destroy(again);
        nb_graph_destroy(g);
    }
}
END_TEST

START_TEST(random_is_the_documented_generator) {
    nb_graph *g = parse_at("nir 1\ngraph @g() -> () {\n"
                           "  const @f: f32[2] = random(0, -1..1)\n"
                           "  const @i: i64[2] = random(0, 0..9)\n"
                           "  return\n}\n",
                           NULL);
    /* SplitMix64 of seed 0 begins e220a8397b1dcdaf 6e789e6aa1b965f4. */
    const float *f = g->constants.items[0]->blob->data;
    const int64_t *i = g->constants.items[1]->blob->data;
    ck_assert(f[0] == (float)(-1 + 2 * ((double)(UINT64_C(0xe220a8397b1dcdaf) >> 11) * 0x1p-53)));
    ck_assert(f[1] == (float)(-1 + 2 * ((double)(UINT64_C(0x6e789e6aa1b965f4) >> 11) * 0x1p-53)));
    ck_assert_int_eq(i[0], (int64_t)(UINT64_C(0xe220a8397b1dcdaf) % 10));
    ck_assert_int_eq(i[1], (int64_t)(UINT64_C(0x6e789e6aa1b965f4) % 10));
    nb_graph_destroy(g);
}
END_TEST

START_TEST(parts_of_files) {
    char base[] = "/tmp/nibble-text-XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(base));
    char *path = nb_format(arena, "%s/w.bin", base), *link = nb_format(arena, "%s/link", base);
    const float data[6] = {0, 1, 2, 3, 4, 5};
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(data, sizeof(float), 6, f), 6);
    fclose(f);
    const char *text = nb_format(arena,
                                 "nir 1\ngraph @g() -> () {\n"
                                 "  const @a: f32[2] = blob \"w.bin\"[8..16] hash %016llx\n"
                                 "  const @b: f32[2,2] = blob \"w.bin\"[8..24] hash %016llx\n"
                                 "  return\n}\n",
                                 (unsigned long long)nb_hash(data + 2, 8),
                                 (unsigned long long)nb_hash(data + 2, 16));
    nb_graph *g = parse_at(text, base);
    ck_assert_mem_eq(g->constants.items[1]->blob->data, data + 2, 16);
    nb_print_options external = {.external_blobs = true}, elided = {.elide_weights = true};
    ck_assert_str_eq(nb_print_string(arena, g, &external), text);
    ck_assert_ptr_nonnull(strstr(nb_print_string(arena, g, NULL), "@b: f32[2,2] = {2, 3, 4, 5}\n"));
    ck_assert_ptr_nonnull(strstr(nb_print_string(arena, g, &elided), "@a: f32[2] = {2, 3}\n"));
    nb_graph_destroy(g);

    /* A link is not followed, and without a base no file is read. */
    ck_assert_int_eq(symlink("w.bin", link), 0);
    const char *linked = nb_format(arena,
                                   "nir 1\ngraph @g() -> () {\n"
                                   "  const @a: f32[2] = blob \"link\"[8..16] hash %016llx\n"
                                   "  return\n}\n",
                                   (unsigned long long)nb_hash(data + 2, 8));
    const struct { const char *text, *base; } refused[] = {{linked, base}, {text, NULL}};
    for (size_t i = 0; i < NB_COUNT(refused); i++) {
        nb_diags *diags = nb_diags_create(arena, "test.nir");
        ck_assert_int_eq(nb_parse(refused[i].text, strlen(refused[i].text), "test.nir",
                                  refused[i].base, NULL, NULL, diags, &g),
                         NB_MALFORMED);
        ck_assert_ptr_null(g);
    }
    unlink(link);
    unlink(path);
    rmdir(base);
}
END_TEST

/* A constant may stand anywhere in a file; its elements are aligned in memory all the same. */
START_TEST(parts_of_files_at_odd_places) {
    char base[] = "/tmp/nibble-text-XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(base));
    char *path = nb_format(arena, "%s/w.bin", base);
    const float data[4] = {1, 2, 3, 4};
    const int64_t two[2] = {-5, INT64_C(1) << 40};
    char bytes[64] = {0};
    memcpy(bytes + 1, data, sizeof data);
    memcpy(bytes + 20, two, sizeof two);
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(bytes, 1, sizeof bytes, f), sizeof bytes);
    fclose(f);
    const char *text =
        nb_format(arena,
                  "nir 1\ngraph @g() -> () {\n"
                  "  const @a: f32[4] = blob \"w.bin\"[1..17] hash %016llx\n"
                  "  const @b: i64[2] = blob \"w.bin\"[20..36] hash %016llx\n"
                  "  const @c: i8[3] = blob \"w.bin\"[1..4] hash %016llx\n"
                  "  const @d: f32[0] = blob \"w.bin\"[3..3] hash %016llx\n"
                  "  return\n}\n",
                  (unsigned long long)nb_hash(data, sizeof data),
                  (unsigned long long)nb_hash(two, sizeof two),
                  (unsigned long long)nb_hash(data, 3), (unsigned long long)nb_hash(data, 0));
    nb_graph *g = parse_at(text, base);
    for (size_t i = 0; i < g->constants.count; i++) {
        const nb_value *v = g->constants.items[i];
        ck_assert_uint_eq((uintptr_t)v->blob->data % nb_elem_alignment(v->type->elem), 0);
    }
    ck_assert_mem_eq(g->constants.items[0]->blob->data, data, sizeof data);
    ck_assert_mem_eq(g->constants.items[1]->blob->data, two, sizeof two);
    nb_print_options external = {.external_blobs = true};
    ck_assert_str_eq(nb_print_string(arena, g, &external), text);
    nb_graph_destroy(g);
    unlink(path);
    rmdir(base);
}
END_TEST

START_TEST(elided_weights) {
    nb_graph *g = parse_at("nir 1\ngraph @g() -> () {\n"
                           "  const @a: i8[17] = random(1, -8..7)\n"
                           "  const @b: i8[16] = splat 1\n"
                           "  return\n}\n",
                           NULL);
    nb_print_options options = {.elide_weights = true};
    const char *expected =
        nb_format(arena,
                  "nir 1\ngraph @g() -> () {\n"
                  "  const @a: i8[17] = elided 17 bytes hash %016llx\n"
                  "  const @b: i8[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}\n"
                  "  return\n}\n",
                  (unsigned long long)nb_blob_hash(g->constants.items[0]->blob));
    ck_assert_str_eq(nb_print_string(arena, g, &options), expected);
    nb_graph_destroy(g);
}
END_TEST

START_TEST(a_file_gets_the_same_text) {
    nb_graph *g = parse_at("nir 1\ngraph @g() -> () {\n"
                           "  const @a: f32[60000] = random(1, -1..1)\n"
                           "  return\n}\n",
                           NULL);
    const char *text = nb_print_string(arena, g, NULL);
    char *written;
    size_t length;
    FILE *f = open_memstream(&written, &length);
    nb_print(g, NULL, f);
    fclose(f);
    ck_assert_uint_eq(length, strlen(text));
    ck_assert_mem_eq(written, text, length);
    for (const char *line = text, *end; *line; line = end + 1) {
        end = strchr(line, '\n');
        ck_assert_int_le(end - line, 100);
    }
    free(written);
    nb_graph_destroy(g);
}
END_TEST

/* Each part begins where its line does, and knows what it is about. */
START_TEST(parts_of_the_text) {
    static const char text[] =
        "nir 1\n"
        "graph @g(%x: f32[2,4], %p: f32[2,4]) -> (y: f32[2,4], n: f32[2,4]) {\n"
        "  stage qdq\n"
        "  state p -> n\n"
        "  quant #q: i8 scale 0.5\n"
        "  const @w: f32[4] = {1, 2, 3, 4}\n"
        "  %q: #q[2,4] = quantize %x {to=#q}\n"
        "  %d: f32[2,4] = dequantize %q\n"
        "  %y: f32[2,4] = mul %d, @w\n"
        "  %n: f32[2,4] = add %p, %y\n"
        "  return %y, %n\n"
        "}\n";
    nb_graph *g = parse_at(text, NULL);
    nb_text_parts parts = {0};
    const char *printed = nb_print_parts(arena, g, NULL, &parts);
    ck_assert_str_eq(printed, text);
    const struct {
        nb_text_kind kind;
        const void *what;
        const char *begin;
    } expected[] = {{NB_TEXT_HEADER, g, "nir 1\ngraph"},
                    {NB_TEXT_STAGE, g, "  stage"},
                    {NB_TEXT_STATE, &g->states.items[0], "  state"},
                    {NB_TEXT_QUANT, g->quants.items[0], "  quant"},
                    {NB_TEXT_CONST, g->constants.items[0], "  const"},
                    {NB_TEXT_OP, g->body.first, "  %q:"},
                    {NB_TEXT_OP, g->body.first->next, "  %d:"},
                    {NB_TEXT_OP, g->body.last->prev->prev, "  %y:"},
                    {NB_TEXT_OP, g->body.last->prev, "  %n:"},
                    {NB_TEXT_OP, g->body.last, "  return"},
                    {NB_TEXT_END, g, "}\n"}};
    ck_assert_uint_eq(parts.count, NB_COUNT(expected));
    for (size_t i = 0; i < parts.count; i++) {
        const nb_text_part *p = &parts.items[i];
        ck_assert(p->kind == expected[i].kind && p->what == expected[i].what);
        ck_assert_int_eq(strncmp(printed + p->from, expected[i].begin, strlen(expected[i].begin)),
                         0);
        ck_assert(p->from == 0 || printed[p->from - 1] == '\n');
    }
    nb_graph_destroy(g);
}
END_TEST

START_TEST(one_op_as_a_line) {
    nb_graph *g = nb_graph_create("g", NULL, NULL);
    nb_diags *diags = nb_diags_create(arena, NULL);
    const nb_dim *dims[2] = {nb_dim_symbol(g, nb_graph_symbol(g, "B", false)), nb_dim_const(g, 4)};
    nb_value *x = nb_graph_add_input(g, "x", nb_type_intern(g, NB_F32, NULL, 2, dims));
    nb_value *gain = nb_const_f32(g, "gain", 1, (int64_t[]){4}, (float[]){1, 2, 3, 4});
    nb_builder b = {.graph = g, .diags = diags, .loc = nb_loc_at(g, "/ln")};
    nb_begin(&b, NB_OP_layer_norm);
    nb_arg(&b, x);
    nb_arg(&b, gain);
    nb_set_float(&b, "eps", 1e-5f);
    nb_value *y = nb_end(&b);
    ck_assert_ptr_nonnull(y);
    ck_assert_str_eq(nb_print_op(arena, y->def),
                     "%layer_norm: f32[B,4] = layer_norm %x, @gain {eps=1e-05} at \"/ln\"");

    /* A graph that is half built prints too. */
    nb_set_operand(&y->def->operands[0], NULL);
    nb_region body = {.graph = g};
    nb_region *regions[1] = {&body};
    y->def->regions = regions;
    y->def->n_regions = 1;
    ck_assert_str_eq(nb_print_string(arena, g, NULL),
                     "nir 1\n"
                     "graph @g(%x: f32[B,4]) -> () {\n"
                     "  const @gain: f32[4] = {1, 2, 3, 4}\n"
                     "  %layer_norm: f32[B,4] = layer_norm <missing>, @gain {eps=1e-05} do () {\n"
                     "  } at \"/ln\"\n"
                     "}\n");
    y->def->n_regions = 0;
    nb_graph_destroy(g);
}
END_TEST

START_TEST(dimension_expressions) {
    static const char *const same[] = {"0",
                                       "7",
                                       "-3",
                                       "P",
                                       "P+S",
                                       "P-1*S",
                                       "2*P+3",
                                       "B*S",
                                       "floordiv(P,2)",
                                       "ceildiv(P+S,32)",
                                       "max(P,S)",
                                       "min(P,floordiv(S,2))+4",
                                       "`odd \\x60 name`+1"};
    static const char *const loose[][2] = {
        {" S + P ", "P+S"}, {"P+S-P", "S"},    {"(P+S)*2", "2*P+2*S"}, {"P*2", "2*P"},
        {"((P))", "P"},     {"max(3,2)", "3"}, {"S-2*P", "-2*P+S"},    {"2*3+4*P*B", "4*B*P+6"}};
    static const char *const wrong[] = {"",    "+",   "P+",     "(P",      "P)", "Q",  "P S",
                                        "1.5", "P,S", "max(P)", "min(P,S", "%x", "P/2"};
    nb_graph *g = nb_graph_create("g", NULL, NULL);
    nb_diags *diags = nb_diags_create(arena, NULL);
    const char *const names[] = {"B", "P", "S", "odd ` name"};
    for (size_t i = 0; i < NB_COUNT(names); i++) nb_graph_symbol(g, names[i], false);
    for (size_t i = 0; i < NB_COUNT(same); i++) {
        const nb_dim *d = nb_parse_dim(g, same[i], strlen(same[i]), diags);
        ck_assert_msg(d != NULL, "%s", same[i]);
        ck_assert_str_eq(nb_dim_text(arena, d), same[i]);
    }
    for (size_t i = 0; i < NB_COUNT(loose); i++) {
        const nb_dim *d = nb_parse_dim(g, loose[i][0], strlen(loose[i][0]), diags);
        ck_assert_msg(d != NULL, "%s", loose[i][0]);
        ck_assert_str_eq(nb_dim_text(arena, d), loose[i][1]);
    }
    ck_assert_uint_eq(diags->errors, 0);
    for (size_t i = 0; i < NB_COUNT(wrong); i++) {
        ck_assert_ptr_null(nb_parse_dim(g, wrong[i], strlen(wrong[i]), diags));
        ck_assert_uint_eq(diags->errors, i + 1);
    }
    nb_graph_destroy(g);
}
END_TEST

/* The example that the README explains. */
START_TEST(the_readme_is_right) {
    FILE *f = fopen(NIBBLE_SOURCE_DIR "/ir/README.md", "rb");
    ck_assert_ptr_nonnull(f);
    char *text = nb_alloc(arena, 1 << 16);
    ck_assert_uint_lt(fread(text, 1, (1 << 16) - 1, f), (1 << 16) - 1);
    fclose(f);
    char *from = strstr(text, "nir 1\n"), *to = from ? strstr(from, "```") : NULL;
    ck_assert_ptr_nonnull(to);
    *to = '\0';
    expect_same(from);
}
END_TEST

START_TEST(messages_show_the_place) {
    const char *text = "nir 1\ngraph @g(%x: f32[B]) -> (y: f32[B]) {\n"
                       "  %y: f32[B] = layernorm %x\n  return %y\n}\n";
    nb_diags *diags = nb_diags_create(arena, "test.nir");
    nb_graph *g;
    ck_assert_int_eq(nb_parse(text, strlen(text), "test.nir", NULL, NULL, NULL, diags, &g),
                     NB_MALFORMED);
    ck_assert_uint_eq(diags->list.count, 1);
    ck_assert_str_eq(nb_diag_render(arena, diags->list.items[0]),
                     "test.nir:3:16: error: there is no operation 'layernorm'\n"
                     "    %y: f32[B] = layernorm %x\n"
                     "                 ^~~~~~~~~\n"
                     "  help: did you mean 'layer_norm'?\n");
}
END_TEST

START_TEST(limits) {
    /* A line of 16 MiB, and errors without end. */
    size_t size = (16u << 20) + 64;
    char *text = malloc(size + 1);
    memset(text, ' ', size);
    text[size] = '\0';
    nb_diags *diags = nb_diags_create(arena, "test.nir");
    nb_graph *g;
    ck_assert_int_eq(nb_parse(text, size, "test.nir", NULL, NULL, NULL, diags, &g), NB_LIMIT);
    free(text);
    text = nb_strdup(arena, "nir 1\ngraph @g() -> () {\n");
    for (int i = 0; i < 200; i++) text = nb_format(arena, "%s  %%a%d: f32[] = neg %%x\n", text, i);
    diags = nb_diags_create(arena, "test.nir");
    ck_assert_int_eq(nb_parse(text, strlen(text), "test.nir", NULL, NULL, NULL, diags, &g),
                     NB_MALFORMED);
    ck_assert_uint_eq(diags->list.count, NB_DIAGS_CAP);
    ck_assert_ptr_null(g);
}
END_TEST

Suite *nb_suite_text(void) {
    Suite *s = suite_create("text");
    TCase *c = tcase_create("text");
    tcase_set_timeout(c, 120);
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, every_construct);
    tcase_add_test(c, one_output_named_as_its_value);
    tcase_add_test(c, loose_texts_have_one_form);
    tcase_add_test(c, floats_keep_their_bits);
    tcase_add_test(c, doubles_keep_their_bits);
    tcase_add_test(c, reading_rounds_once);
    tcase_add_test(c, small_elements_keep_their_bits);
    tcase_add_test(c, random_is_the_documented_generator);
    tcase_add_test(c, parts_of_files);
    tcase_add_test(c, parts_of_files_at_odd_places);
    tcase_add_test(c, elided_weights);
    tcase_add_test(c, a_file_gets_the_same_text);
    tcase_add_test(c, parts_of_the_text);
    tcase_add_test(c, one_op_as_a_line);
    tcase_add_test(c, dimension_expressions);
    tcase_add_test(c, the_readme_is_right);
    tcase_add_test(c, messages_show_the_place);
    tcase_add_test(c, limits);
    suite_add_tcase(s, c);
    return s;
}
