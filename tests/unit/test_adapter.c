/* LoRA adapters: what a file may hold, which layers its tensors find, and what the branches
 * compute. Nothing that a file holds can do worse than an error. */
#include "ir/minifloat.h"
#include "ir/text.h"
#include "passes/adapter_file.h"
#include "passes/pass.h"
#include "tests/unit/unit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- files ---------------------------------------------------------------------------------- */

typedef struct bytes {
    uint8_t data[8192];
    size_t size;
} bytes;

static bytes file_of(const char *header, const void *data, size_t size) {
    bytes b = {.size = 8 + strlen(header) + size};
    for (int i = 0; i < 8; i++) b.data[i] = (uint8_t)(strlen(header) >> 8 * i & 255);
    memcpy(b.data + 8, header, strlen(header));
    if (size) memcpy(b.data + 8 + strlen(header), data, size);
    return b;
}

typedef struct entry {
    const char *name, *dtype;
    int64_t rows, cols;
    const float *values;
} entry;

static bytes adapter_of(const entry *entries, size_t n) {
    char header[4096] = "{\"__metadata__\": {\"format\": \"pt\"}";
    uint8_t data[4096];
    size_t size = 0;
    for (size_t i = 0; i < n; i++) {
        const entry *e = &entries[i];
        bool half = strcmp(e->dtype, "F16") == 0;
        size_t count = (size_t)(e->rows * e->cols), from = size;
        for (size_t k = 0; k < count; k++) {
            uint16_t h = (uint16_t)nb_float_encode(NB_F16, e->values[k]);
            memcpy(data + size, half ? (const void *)&h : &e->values[k], half ? 2 : 4);
            size += half ? 2 : 4;
        }
        char text[512];
        snprintf(
            text, sizeof text,
            ", \"%s\": {\"dtype\": \"%s\", \"shape\": [%lld, %lld], \"data_offsets\": [%zu, %zu]}",
            e->name, e->dtype, (long long)e->rows, (long long)e->cols, from, size);
        strcat(header, text);
    }
    strcat(header, "}  ");
    return file_of(header, data, size);
}

typedef struct folder {
    char path[32], adapter[64], config[64];
} folder;

static folder make_folder(void) {
    folder f = {.path = "/tmp/nibble-test-XXXXXX"};
    ck_assert_ptr_nonnull(mkdtemp(f.path));
    snprintf(f.adapter, sizeof f.adapter, "%s/adapter_model.safetensors", f.path);
    snprintf(f.config, sizeof f.config, "%s/adapter_config.json", f.path);
    return f;
}

static void write_file(const char *path, const void *data, size_t size) {
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(data, 1, size, f), size);
    fclose(f);
}

static void remove_folder(const folder *f) {
    unlink(f->adapter);
    unlink(f->config);
    rmdir(f->path);
}

/* ---- hostile headers ------------------------------------------------------------------------ */

typedef struct bad {
    const char *header, *message;
    nb_status status;
} bad;

static const bad headers[] = {
    {"", "not an object of JSON", NB_MALFORMED},
    {"[]", "not an object of JSON", NB_MALFORMED},
    {"{\"a\": ", "not an object of JSON", NB_MALFORMED},
    {"{\"a\": 1, \"a\": 2}", "not an object of JSON: duplicate", NB_MALFORMED},
    {"{\"a\\u0000b\": 1}", "not an object of JSON", NB_MALFORMED},
    {"{\"a\": 1}", "'a' is not described by an object", NB_MALFORMED},
    {"{\"a\": {}}", "expected a dtype", NB_MALFORMED},
    {"{\"a\": {\"dtype\": 3}}", "expected a dtype", NB_MALFORMED},
    {"{\"a\": {\"dtype\": \"F8_E4M3\"}}", "expected a dtype such as F32, found 'F8_E4M3'",
     NB_UNSUPPORTED},
    {"{\"a\": {\"dtype\": \"F32\"}}", "the shape is not", NB_MALFORMED},
    {"{\"a\": {\"dtype\": \"F32\", \"shape\": [1.5]}}", "the shape is not", NB_MALFORMED},
    {"{\"a\": {\"dtype\": \"F32\", \"shape\": [-1]}}", "the shape is not", NB_MALFORMED},
    {"{\"a\": {\"dtype\": \"F32\", \"shape\": [1,1,1,1,1,1,1,1,1]}}", "the shape is not",
     NB_MALFORMED},
    {"{\"a\": {\"dtype\": \"F32\", \"shape\": [4294967296, 4294967296]}}", "the shape is not",
     NB_MALFORMED},
    {"{\"a\": {\"dtype\": \"F32\", \"shape\": [4611686018427387904]}}", "the shape is not",
     NB_MALFORMED},
    {"{\"a\": {\"dtype\": \"F32\", \"shape\": [2]}}", "data_offsets are not", NB_MALFORMED},
    {"{\"a\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0]}}", "data_offsets are not",
     NB_MALFORMED},
    {"{\"a\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [-8, 0]}}",
     "data_offsets are not", NB_MALFORMED},
    {"{\"a\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [8, 0]}}",
     "data_offsets are not", NB_MALFORMED},
    {"{\"a\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [1, 9]}}",
     "two offsets in the 8 bytes", NB_MALFORMED},
    {"{\"a\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 9223372036854775807]}}",
     "two offsets in the 8 bytes", NB_MALFORMED},
    {"{\"a\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 4]}}",
     "4 bytes of data, the shape needs 8", NB_MALFORMED},
};

typedef struct parsed {
    nb_arena *arena;
    nb_diags *diags;
    nb_safetensors tensors;
    nb_status status;
} parsed;

/* From memory of just that size, so that a sanitizer sees what reads beyond it. */
static parsed parse(const uint8_t *data, size_t size) {
    parsed p = {.arena = nb_arena_create(NULL, NULL)};
    uint8_t *exact = malloc(size ? size : 1);
    memcpy(exact, data, size);
    p.diags = nb_diags_create(p.arena, NULL);
    p.status = nb_safetensors_parse("test", exact, size, p.arena, p.diags, &p.tensors);
    volatile double sum = 0; /* reads all that was promised */
    for (size_t i = 0; p.status == NB_OK && i < p.tensors.count; i++) {
        const nb_tensor *t = &p.tensors.items[i].tensor;
        for (int64_t k = 0; k < t->bytes; k++) sum = sum + ((const uint8_t *)t->data)[k];
    }
    free(exact);
    return p;
}

START_TEST(bad_headers) {
    const bad *b = &headers[_i];
    bytes file = file_of(b->header, "12345678", 8);
    parsed p = parse(file.data, file.size);
    ck_assert_int_eq(p.status, b->status);
    ck_assert_uint_eq(p.diags->errors, 1);
    const char *message = p.diags->list.items[0]->message;
    ck_assert_msg(strstr(message, b->message) != NULL, "%s: %s", b->header, message);
    nb_arena_destroy(p.arena);
}
END_TEST

static const float some[12] = {0.5f, -1, 2, 0.25f, 3, -0.125f, 1, 1, 2, -2, 4, 0.75f};

/* Every byte of a file takes other values, and every length is cut off. */
START_TEST(mutations) {
    const entry entries[] = {{"m.fc.lora_A.weight", "F32", 1, 3, some},
                             {"m.fc.lora_B.weight", "F16", 2, 1, some}};
    bytes good = adapter_of(entries, 2);
    static const uint8_t values[] = {0, 1, 0x7f, 0x80, 0xff, '"', '}', '9', '-', ']'};
    size_t errors = 0;
    for (size_t at = 0; at < good.size; at++) {
        for (size_t v = 0; v < NB_COUNT(values); v++) {
            bytes changed = good;
            changed.data[at] = values[v];
            parsed p = parse(changed.data, changed.size);
            ck_assert_int_eq(p.status == NB_OK, p.diags->errors == 0);
            errors += p.status != NB_OK;
            nb_arena_destroy(p.arena);
        }
        parsed p = parse(good.data, at);
        ck_assert_int_ne(p.status, NB_OK);
        nb_arena_destroy(p.arena);
    }
    ck_assert_uint_gt(errors, good.size);
    parsed p = parse(good.data, good.size);
    ck_assert_int_eq(p.status, NB_OK);
    ck_assert_uint_eq(p.tensors.count, 2);
    nb_arena_destroy(p.arena);
}
END_TEST

/* ---- graphs --------------------------------------------------------------------------------- */

/* Named after its node, after its initializer; with and without a bias. */
static const char two_layers[] =
    "nir 1\ngraph @g(%x: f32[B,3]) -> f32[B,3] {\n"
    "  const @bias: f32[4] = {1, 2, 3, 4}\n"
    "  const @\"onnx::MatMul_7\": f32[3,4] = {1, -2, 0.5, 3, 7, 0.25, -7, 2, 1.5, 7, -3, 7}\n"
    "  const @model.layers.11.down.weight: f32[4,3] = {1, 7, -2, 0.5, 3, 7, 0.75, -1, 1, 7, 2, 2}\n"
    "  %h: f32[B,4] = matmul %x, @\"onnx::MatMul_7\" at \"/model/layers.1/up/MatMul\"\n"
    "  %b: f32[B,4] = add %h, @bias at \"/model/layers.1/up/Add\"\n"
    "  %y: f32[B,3] = matmul %b, @model.layers.11.down.weight at \"/MatMul_3\"\n"
    "  return %y\n}\n";

static const float up_a[6] = {0.5f, -1, 2, 0.25f, 3, -0.125f},
                   up_b[8] = {1, 1, 2, -2, 4, 0.75f, -0.5f, 1}, down_a[4] = {1, -0.5f, 2, 0.25f},
                   down_b[3] = {0.5f, -3, 1};

static const entry good_entries[] = {
    {"base_model.model.model.layers.1.up.lora_A.weight", "F32", 2, 3, up_a},
    {"base_model.model.model.layers.1.up.lora_B.weight", "F32", 4, 2, up_b},
    {"base_model.model.model.layers.11.down.lora_B.default.weight", "F16", 3, 1, down_b},
    {"base_model.model.model.layers.11.down.lora_A.default.weight", "F16", 1, 4, down_a},
};
#define CONFIG "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 6, \"bias\": \"none\"}"

typedef struct ran {
    nb_arena *arena;
    nb_diags *diags;
    nb_graph *graph;
    nb_status status;
} ran;

static ran run_passes(const char *text, const char *passes) {
    ran r = {.arena = nb_arena_create(NULL, NULL)};
    r.diags = nb_diags_create(r.arena, NULL);
    nb_pass_env env = {.arena = r.arena,
                       .diags = r.diags,
                       .registry = nb_registry_create(r.arena),
                       .verify_each = true};
    nb_pipeline pipeline;
    ck_assert_int_eq(nb_parse(text, strlen(text), "g", NULL, NULL, NULL, r.diags, &r.graph), NB_OK);
    r.status = nb_pipeline_parse(env.registry, passes, r.arena, r.diags, &pipeline);
    if (r.status == NB_OK) r.status = nb_pipeline_run(&pipeline, r.graph, &env);
    return r;
}

static void drop(ran *r) {
    nb_graph_destroy(r->graph);
    nb_arena_destroy(r->arena);
}

/* Passes in front, an adapter, passes behind; `config` NULL: none is written. */
static ran run_adapter(const entry *entries, size_t n, const char *config, const char *text,
                       const char *front, const char *options, const char *back) {
    folder f = make_folder();
    bytes file = adapter_of(entries, n);
    char passes[512];
    write_file(f.adapter, file.data, file.size);
    if (config) write_file(f.config, config, strlen(config));
    snprintf(passes, sizeof passes, "%sadapter{file=\"%s\"%s}%s", front, f.adapter, options, back);
    ran r = run_passes(text, passes);
    remove_folder(&f);
    return r;
}

#define ROWS 5

/* Outputs on made-up rows; [ROWS, 3]. */
static const float *outputs_of(const ran *r, float *x) {
    for (int i = 0; i < ROWS * 3; i++) x[i] = sinf((float)(i * i + 1)) * (i % 4 == 0 ? 8.0f : 1.0f);
    nb_tensor in = {.elem = NB_F32, .rank = 2, .dims = {ROWS, 3}, .data = x, .bytes = ROWS * 12},
              out;
    ck_assert_int_eq(nb_eval(r->graph, &in, &out, NULL, 0, r->arena, r->diags), NB_OK);
    return out.data;
}

/* w + scale * (b a)', in double. */
static void merge(const float *w, const float *a, const float *b, int rows, int cols, int rank,
                  double scale, double *out) {
    for (int i = 0; i < rows; i++) {
        for (int k = 0; k < cols; k++) {
            double sum = 0;
            for (int j = 0; j < rank; j++) sum += (double)b[k * rank + j] * (double)a[j * rows + i];
            out[i * cols + k] = (double)w[i * cols + k] + scale * sum;
        }
    }
}

/* The same as a model whose weights have the adapter in them, to float rounding: 1e-5 of results
 * around 1000. lora_alpha is 6, so the scales are 6/2 and 6/1. */
START_TEST(equals_merged) {
    static const float w1[] = {1, -2, 0.5f, 3, 7, 0.25f, -7, 2, 1.5f, 7, -3, 7},
                       w2[] = {1, 7, -2, 0.5f, 3, 7, 0.75f, -1, 1, 7, 2, 2};
    double up[12], down[12];
    float x[ROWS * 3];
    merge(w1, up_a, up_b, 3, 4, 2, 3, up);
    merge(w2, down_a, down_b, 4, 3, 1, 6, down);
    ran r = run_adapter(good_entries, 4, CONFIG, two_layers, "", "", "");
    ck_assert_int_eq(r.status, NB_OK);
    const float *y = outputs_of(&r, x);
    for (int m = 0; m < ROWS; m++) {
        double h[4], z;
        for (int i = 0; i < 4; i++) {
            h[i] = i + 1;
            for (int k = 0; k < 3; k++) h[i] += (double)x[m * 3 + k] * up[k * 4 + i];
        }
        for (int i = 0; i < 3; i++) {
            z = 0;
            for (int k = 0; k < 4; k++) z += h[k] * down[k * 3 + i];
            ck_assert_double_eq_tol((double)y[m * 3 + i], z, 1e-2);
        }
    }
    drop(&r);
}
END_TEST

/* Over quantized layers: the first layer's result is, to the bit, what the quantized model without
 * adapter computes plus the branch in float, sequences of fma (ir/NUMBERS.md). */
START_TEST(over_four_bits) {
    static const char text[] =
        "nir 1\ngraph @g(%x: f32[B,3]) -> f32[B,3] {\n"
        "  const @w: f32[3,3] = {1, -2, 0.5, 7, 0.3, -7, 1.5, 7, -3.1}\n"
        "  %y: f32[B,3] = matmul %x, @w at \"/model/layers.1/up/MatMul\"\n  return %y\n}\n";
    static const char quantize[] =
        ", quantize-weights{bits=4}, insert-qdq{act=i16}, fuse-dequant, simplify";
    const entry entries[] = {{"layers.1.up.lora_A.weight", "F32", 2, 3, up_a},
                             {"layers.1.up.lora_B.weight", "F32", 3, 2, up_b}};
    float x[ROWS * 3];
    ran plain = run_passes(text, quantize + 2),
        with = run_adapter(entries, 2, NULL, text, "", ", scale=1.5", quantize);
    ck_assert_int_eq(plain.status, NB_OK);
    ck_assert_int_eq(with.status, NB_OK);
    const nb_op *last = with.graph->body.last->prev;
    ck_assert_int_eq(last->kind, NB_OP_qmatmul); /* the branch is its residual */
    ck_assert_ptr_nonnull(nb_in(last, 3));
    const float *y = outputs_of(&with, x), *q = outputs_of(&plain, x);
    for (int m = 0; m < ROWS; m++) {
        for (int n = 0; n < 3; n++) {
            float c = 0;
            for (int j = 0; j < 2; j++) {
                float t = 0;
                for (int k = 0; k < 3; k++) t = fmaf(x[m * 3 + k], up_a[j * 3 + k], t);
                c = fmaf(t, up_b[n * 2 + j] * 1.5f, c);
            }
            float sum = q[m * 3 + n] + c;
            ck_assert_mem_eq(&y[m * 3 + n], &sum, 4);
        }
    }
    drop(&plain);
    drop(&with);
}
END_TEST

/* Where the scale comes from: y = scale * x a b for a weight of zeros. */
START_TEST(scales) {
    static const struct {
        const char *config, *options;
        float scale;
    } cases[] = {{CONFIG, "", 3},
                 {"{\"lora_alpha\": 6, \"use_rslora\": true}", "", 4.2426405f},
                 {"{\"lora_alpha\": 0.5, \"rank_pattern\": {\"a\": 8}}", "", 0.25f},
                 {"nonsense", ", scale=-2", -2},
                 {NULL, ", scale=0", 0}};
    static const char text[] = "nir 1\ngraph @g(%x: f32[B,3]) -> f32[B,3] {\n"
                               "  const @up.weight: f32[3,3] = {0, 0, 0, 0, 0, 0, 0, 0, 0}\n"
                               "  %y: f32[B,3] = matmul %x, @up.weight\n  return %y\n}\n";
    const entry entries[] = {{"up.lora_A.weight", "F32", 2, 3, up_a},
                             {"up.lora_B.weight", "F32", 3, 2, up_b}};
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        float x[ROWS * 3];
        ran r = run_adapter(entries, 2, cases[i].config, text, "", cases[i].options, "");
        ck_assert_int_eq(r.status, NB_OK);
        double t[2] = {0}, y = (double)outputs_of(&r, x)[2];
        for (int k = 0; k < 6; k++) t[k / 3] += (double)x[k % 3] * (double)up_a[k];
        double want = (t[0] * (double)up_b[4] + t[1] * (double)up_b[5]) * (double)cases[i].scale;
        ck_assert_msg(fabs(y - want) <= 1e-5 * (1 + fabs(want)), "%zu: %g, expected %g", i, y,
                      want);
        drop(&r);
    }
}
END_TEST

typedef struct refused {
    entry entries[4];
    const char *config, *message, *help;
    nb_status status;
} refused;

#define A(name, r, k) \
    { name ".lora_A.weight", "F32", r, k, some }
#define B(name, n, r) \
    { name ".lora_B.weight", "F32", n, r, some }

static const refused refusals[] = {
    {{A("model.layers.1.upp", 2, 3), B("model.layers.1.upp", 4, 2)},
     CONFIG,
     "'model.layers.1.upp' of the adapter is none of the 2 linear layers",
     "the nearest are '/model/layers.1/up/MatMul'",
     NB_USAGE},
    {{A("1.down", 2, 4), B("1.down", 3, 2)}, CONFIG, "is none of the 2", "the nearest", NB_USAGE},
    {{A("up", 2, 4), B("up", 4, 2)},
     CONFIG,
     "for a layer of 4 inputs and 4 outputs, '/model/layers.1/up/MatMul' has 3 and 4",
     NULL,
     NB_USAGE},
    {{A("up", 2, 3), B("up", 3, 2)},
     CONFIG,
     "for a layer of 3 inputs and 3 outputs",
     NULL,
     NB_USAGE},
    {{A("up", 2, 3)}, CONFIG, "'up' has lora_A, but no lora_B", NULL, NB_MALFORMED},
    {{B("up", 4, 2)}, CONFIG, "'up' has lora_B, but no lora_A", NULL, NB_MALFORMED},
    {{A("up", 2, 3), B("up", 4, 3)}, CONFIG, "with the same r", NULL, NB_MALFORMED},
    {{A("up", 0, 3), B("up", 4, 0)}, CONFIG, "with the same r", NULL, NB_MALFORMED},
    {{A("up", 1, 3), {"up.lora_B.weight", "I32", 4, 1, some}},
     CONFIG,
     "are not matrices",
     NULL,
     NB_MALFORMED},
    {{A("up", 2, 3), A("base_model.model.up", 2, 3), B("up", 4, 2)},
     CONFIG,
     "'up' has two tensors lora_A",
     NULL,
     NB_MALFORMED},
    {{A("up", 2, 3), B("up", 4, 2), A("layers.1.up", 2, 3), B("layers.1.up", 4, 2)},
     CONFIG,
     "'up' and 'layers.1.up' of the adapter both name",
     NULL,
     NB_USAGE},
    {{{"embed.lora_embedding_A", "F32", 1, 1, some}},
     CONFIG,
     "is no factor of a linear layer",
     "not supported",
     NB_UNSUPPORTED},
    {{{"up.lora_A.bias", "F32", 1, 1, some}},
     CONFIG,
     "is no factor of a linear layer",
     "not supported",
     NB_UNSUPPORTED},
    {{{0}}, CONFIG, "there is no tensor in the adapter", NULL, NB_MALFORMED},
    {{A("up", 2, 3), B("up", 4, 2)}, NULL, "cannot open", "a scale can be given", NB_IO},
    {{A("up", 2, 3), B("up", 4, 2)},
     "{",
     "a number \"lora_alpha\"",
     "a scale can be given",
     NB_MALFORMED},
    {{A("up", 2, 3), B("up", 4, 2)},
     "{\"lora_alpha\": \"6\"}",
     "a number \"lora_alpha\"",
     "a scale can be given",
     NB_MALFORMED},
    {{A("up", 2, 3), B("up", 4, 2)}, "[]", "a number \"lora_alpha\"", "a scale", NB_MALFORMED},
    {{A("up", 2, 3), B("up", 4, 2)},
     "{\"lora_alpha\": 6, \"peft_type\": \"LOHA\"}",
     "peft_type is not LORA",
     "a scale",
     NB_UNSUPPORTED},
    {{A("up", 2, 3), B("up", 4, 2)},
     "{\"lora_alpha\": 6, \"use_dora\": true}",
     "use_dora is set",
     "a scale",
     NB_UNSUPPORTED},
    {{A("up", 2, 3), B("up", 4, 2)},
     "{\"lora_alpha\": 6, \"alpha_pattern\": {\"up\": 3}}",
     "alpha_pattern",
     "a scale",
     NB_UNSUPPORTED},
};

START_TEST(refuses) {
    const refused *c = &refusals[_i];
    size_t n = 0;
    while (n < 4 && c->entries[n].name) n++;
    ran r = run_adapter(c->entries, n, c->config, two_layers, "", "", "");
    ck_assert_msg(r.status == c->status, "%s: status %d", c->message, r.status);
    const nb_diag *d = r.diags->list.items[0];
    ck_assert_msg(strstr(d->message, c->message) != NULL, "%s: %s", c->message, d->message);
    ck_assert_msg(!c->help || (d->help && strstr(d->help, c->help)), "%s: %s", c->message,
                  d->help ? d->help : "no help");
    drop(&r);
}
END_TEST

/* Names that end alike, and a weight that two layers share. */
START_TEST(ambiguous) {
    static const char text[] =
        "nir 1\ngraph @g(%x: f32[B,1]) -> (a: f32[B,1], b: f32[B,1], c: f32[B,1]) {\n"
        "  const @w: f32[1,1] = {1}\n  const @v: f32[1,1] = {2}\n"
        "  %a: f32[B,1] = matmul %x, @w at \"/x/layers.0/fc/MatMul\"\n"
        "  %b: f32[B,1] = matmul %x, @v at \"/y/layers.0/fc/MatMul\"\n"
        "  %c: f32[B,1] = matmul %a, @v at \"/y/layers.0/fc/MatMul_1\"\n"
        "  return %a, %b, %c\n}\n";
    const entry both[] = {A("layers.0.fc", 1, 1), B("layers.0.fc", 1, 1)},
                shared[] = {A("y.layers.0.fc", 1, 1), B("y.layers.0.fc", 1, 1)};
    ran r = run_adapter(both, 2, CONFIG, text, "", "", "");
    ck_assert_int_eq(r.status, NB_USAGE);
    ck_assert_ptr_nonnull(
        strstr(r.diags->list.items[0]->message, "may be '/x/layers.0/fc/MatMul' or"));
    drop(&r);
    r = run_adapter(shared, 2, CONFIG, text, "", "", "");
    ck_assert_int_eq(r.status, NB_OK);
    size_t adds = 0;
    NB_FOR_OPS(op, &r.graph->body) { adds += op->kind == NB_OP_add; }
    ck_assert_uint_eq(adds, 2);
    drop(&r);
}
END_TEST

Suite *nb_suite_adapter(void) {
    Suite *s = suite_create("adapter");
    TCase *c = tcase_create("files");
    tcase_add_loop_test(c, bad_headers, 0, NB_COUNT(headers));
    tcase_add_test(c, mutations);
    suite_add_tcase(s, c);
    c = tcase_create("layers");
    tcase_add_test(c, equals_merged);
    tcase_add_test(c, over_four_bits);
    tcase_add_test(c, scales);
    tcase_add_loop_test(c, refuses, 0, NB_COUNT(refusals));
    tcase_add_test(c, ambiguous);
    suite_add_tcase(s, c);
    return s;
}
