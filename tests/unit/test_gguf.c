/* GGUF: blocks against what ggml says they stand for, a decoder of one layer in and out, and files
 * that break every rule: cut off anywhere, with counts, types, offsets and names that cannot be. */
#include "frontend/frontend.h"
#include "frontend/gguf.h"
#include "ir/eval.h"
#include "ir/minifloat.h"
#include "ir/reals.h"
#include "ir/support/file.h"
#include "tests/unit/test_front.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- a writer ------------------------------------------------------------------------------- */

static uint8_t file[1 << 16];
static size_t size;

static void put(const void *bytes, size_t n) {
    ck_assert_uint_le(size + n, sizeof file);
    memcpy(file + size, bytes, n);
    size += n;
}
static void put_u32(uint32_t v) { put(&v, 4); }
static void put_u64(uint64_t v) { put(&v, 8); }
static void put_text(const char *text) {
    put_u64(strlen(text));
    put(text, strlen(text));
}

enum { U32 = 4, F32 = 6, TEXT = 8, ARRAY = 9 }; /* types of values */
enum { D = 32, VOCABULARY = 8 };                /* one head of D, one layer, ffn of D */

typedef struct listed {
    const char *name;
    int rank;
    uint64_t dims[2], bytes;
    uint32_t type; /* ggml's */
} listed;

/* Q4_0, Q8_0 and floats. */
static const listed rows[] = {
    {"token_embd.weight", 2, {D, VOCABULARY}, 34 * VOCABULARY, 8},
    {"output_norm.weight", 1, {D}, 4 * D, 0},
    {"blk.0.attn_norm.weight", 1, {D}, 4 * D, 0},
    {"blk.0.attn_q.weight", 2, {D, D}, 18 * D, 2},
    {"blk.0.attn_k.weight", 2, {D, D}, 34 * D, 8},
    {"blk.0.attn_v.weight", 2, {D, D}, 2 * D *D, 1},
    {"blk.0.attn_output.weight", 2, {D, D}, 18 * D, 2},
    {"blk.0.ffn_norm.weight", 1, {D}, 4 * D, 0},
    {"blk.0.ffn_gate.weight", 2, {D, D}, 18 * D, 2},
    {"blk.0.ffn_up.weight", 2, {D, D}, 4 * D *D, 0},
    {"blk.0.ffn_down.weight", 2, {D, D}, 22 * D, 6},
};

static void put_tensor_row(const listed *r, uint64_t offset) {
    put_text(r->name);
    put_u32((uint32_t)r->rank);
    for (int d = 0; d < r->rank; d++) put_u64(r->dims[d]);
    put_u32(r->type);
    put_u64(offset);
}

/* What a test changes: row `which` is `changed`, its offset moved; the architecture. */
typedef struct change {
    const char *architecture;
    int which;
    listed changed;
    int64_t moved;
} change;

static void put_number(const char *key, uint32_t v) {
    put_text(key);
    put_u32(U32);
    put_u32(v);
}

/* Bytes that are small numbers in every layout: f16 0x2c03 and f32 0x2c032c03 are. */
static void write_file(const change *c) {
    uint64_t offset = 0;
    size = 0;
    put("GGUF", 4);
    put_u32(3);
    put_u64(NB_COUNT(rows));
    put_u64(7);
    put_text("general.architecture");
    put_u32(TEXT);
    put_text(c && c->architecture ? c->architecture : "llama");
    put_number("llama.block_count", 1);
    put_number("llama.embedding_length", D);
    put_number("llama.feed_forward_length", D);
    put_number("llama.attention.head_count", 1);
    put_text("llama.attention.layer_norm_rms_epsilon");
    put_u32(F32);
    put(&(float){1e-5f}, 4);
    put_text("tokenizer.ggml.tokens");
    put_u32(ARRAY);
    put_u32(TEXT);
    put_u64(2);
    put_text("a");
    put_text("bc");
    for (size_t i = 0; i < NB_COUNT(rows); i++) {
        const bool this = c && c->which == (int)i && c->changed.name;
        put_tensor_row(this ? &c->changed : &rows[i],
                       offset + (uint64_t)(c && c->which == (int)i ? c->moved : 0));
        offset += (rows[i].bytes + 31) / 32 * 32;
    }
    while (size % 32) put("", 1);
    for (uint64_t i = 0; i < offset; i += 2) put("\x03\x2c", 2);
}

static nb_status import(size_t n, nb_diags **diags, nb_graph **g) {
    *diags = nb_diags_create(front_arena(), "test.gguf");
    *g = NULL;
    uint8_t *copy = nb_alloc(front_arena(), n + 1); /* what is beyond is not the file's */
    memcpy(copy, file, n);
    return nb_import_bytes(copy, n, "test.gguf", NULL, NULL, NULL, *diags, g);
}

static void refuses(nb_status status, const char *part) {
    nb_diags *diags;
    nb_graph *g;
    ck_assert_int_eq(import(size, &diags, &g), status);
    ck_assert_msg(strstr(diags->list.items[0]->message, part) != NULL, "%s",
                  diags->list.items[0]->message);
}

/* ---- a decoder ------------------------------------------------------------------------------ */

START_TEST(decoder) {
    nb_diags *diags;
    nb_graph *g;
    write_file(NULL);
    nb_status status = import(size, &diags, &g);
    ck_assert_msg(status == NB_OK, "%s", status ? diags->list.items[0]->message : "");
    ck_assert_uint_eq(g->body.n_params, 5);
    ck_assert_str_eq(g->body.params[3]->name, "past_key_values.0.key");
    ck_assert_str_eq(g->outputs.items[0], "logits");
    ck_assert_str_eq(g->outputs.items[2], "present.0.value");
    ck_assert_str_eq(nb_type_text(front_arena(), nb_in(g->body.last, 0)->type),
                     "f32[batch_size,sequence_length,8]");
    int64_t ids[3] = {1, 2, 7}, ones[3] = {1, 1, 1}, at[3] = {0, 1, 2};
    float none[1];
    nb_tensor in[5] = {{.elem = NB_I64, .rank = 2, .dims = {1, 3}, .data = ids, .bytes = 24},
                       {.elem = NB_I64, .rank = 2, .dims = {1, 3}, .data = ones, .bytes = 24},
                       {.elem = NB_I64, .rank = 2, .dims = {1, 3}, .data = at, .bytes = 24},
                       {.elem = NB_F32, .rank = 4, .dims = {1, 1, 0, D}, .data = none},
                       {.elem = NB_F32, .rank = 4, .dims = {1, 1, 0, D}, .data = none}};
    nb_tensor *out = NB_NEW_ARRAY(front_arena(), nb_tensor, 3);
    ck_assert_int_eq(nb_eval(g, in, out, NULL, 0, front_arena(), diags), NB_OK);
    for (int64_t i = 0; i < nb_tensor_count(&out[0]); i++)
        ck_assert(isfinite(nb_tensor_get(&out[0], i)));
    nb_graph_destroy(g);
}
END_TEST

static nb_gguf opened(const void *bytes, size_t n) {
    nb_gguf f = {.arena = front_arena(),
                 .diags = nb_diags_create(front_arena(), "test"),
                 .name = "test",
                 .bytes = bytes,
                 .size = n};
    ck_assert_int_eq(nb_gguf_open(&f), NB_OK);
    return f;
}

/* What was read is written with the same blocks; F16 becomes F32. */
START_TEST(written_again) {
    char path[] = "/tmp/nibble-gguf-XXXXXX";
    static uint8_t again[sizeof file];
    nb_diags *diags;
    nb_graph *g;
    write_file(NULL);
    ck_assert_int_eq(import(size, &diags, &g), NB_OK);
    const int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    nb_status status = nb_export_gguf(g, path, diags);
    ck_assert_msg(status == NB_OK, "%s", status ? diags->list.items[0]->message : "");
    const ssize_t n = read(fd, again, sizeof again); /* of the file before the rename */
    close(fd);
    ck_assert_int_eq(n, 0);
    nb_file f;
    ck_assert_int_eq(nb_file_open(path, diags, &f), NB_OK);
    unlink(path);
    nb_gguf a = opened(file, size), b = opened(f.bytes, f.size);
    ck_assert_uint_ge(b.tensors.count, a.tensors.count);
    for (size_t i = 0; i < a.tensors.count; i++) {
        const nb_gguf_tensor *t = a.tensors.entries[i].value,
                             *u = nb_map_get_str(&b.tensors, t->name, strlen(t->name));
        ck_assert_msg(u != NULL, "%s", t->name);
        if (t->type->number == 1) continue;
        ck_assert_uint_eq(t->type->number, u->type->number);
        ck_assert_msg(memcmp(t->data, u->data, (size_t)t->bytes) == 0, "%s", t->name);
    }
    nb_file_close(&f);
    nb_graph_destroy(g);
}
END_TEST

/* ---- blocks --------------------------------------------------------------------------------- */

static uint64_t state;
static uint8_t random_byte(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint8_t)(state >> 56);
}
static float half(const uint8_t *p) {
    return nb_float_decode(NB_F16, (uint32_t)(p[0] | p[1] << 8));
}

/* What ggml-quants.c makes of element i of a block, formula by formula. */
static float expected(uint32_t type, const uint8_t *b, int i) {
    const int j = i % 16, up = i / 16 % 2;
    if (type == 2) return (float)((b[2 + j] >> 4 * up & 15) - 8) * half(b);
    if (type == 3) return (float)(b[4 + j] >> 4 * up & 15) * half(b) + half(b + 2);
    if (type == 6)
        return (float)(((b[6 + j] >> 4 * up & 15) | (b[2 + i / 8] >> i % 8 & 1) << 4) - 16) *
               half(b);
    if (type == 7)
        return (float)((b[8 + j] >> 4 * up & 15) | (b[4 + i / 8] >> i % 8 & 1) << 4) * half(b) +
               half(b + 2);
    if (type == 8) return (float)(int8_t)b[2 + i] * half(b);
    if (type == 14) {
        const int n = i / 128, q = i % 128 / 32, l = i % 32;
        const int low = b[64 * n + l + 32 * (q & 1)] >> (q >= 2 ? 4 : 0) & 15;
        const int code = (low | (b[128 + 32 * n + l] >> 2 * q & 3) << 4) - 32;
        return half(b + 208) * (float)(int8_t)b[192 + i / 16] * (float)code;
    }
    const uint8_t *s = b + 4, *low = type == 12 ? b + 16 : b + 48;
    const int k = i / 32;
    const int scale = k < 4 ? s[k] & 63 : (s[k + 4] & 15) | s[k - 4] >> 6 << 4,
              minimum = k < 4 ? s[k + 4] & 63 : s[k + 4] >> 4 | s[k] >> 6 << 4;
    int code = low[32 * (i / 64) + i % 32] >> (k % 2 ? 4 : 0) & 15;
    if (type == 13) code |= (b[16 + i % 32] >> k & 1) << 4;
    return half(b) * (float)scale * (float)code - half(b + 2) * (float)minimum;
}

/* Finite scales, whatever the other bits are. */
static void random_block(const nb_gguf_type *t, uint8_t *b) {
    for (int64_t i = 0; i < t->bytes; i++) b[i] = random_byte();
    b[t->number == 14 ? 209 : 1] &= 0xbf;
    if (t->number == 3 || t->number == 7 || t->number == 12 || t->number == 13) b[3] &= 0xbf;
}

static void check_blocks(uint32_t number, bool transposed) {
    enum { ROWS = 3, BLOCKS = 2 };
    const nb_gguf_type *t = nb_gguf_type_of(number);
    uint8_t data[ROWS * BLOCKS * 256];
    nb_graph *g = nb_graph_create("g", NULL, NULL);
    nb_diags *diags = nb_diags_create(front_arena(), "test");
    nb_gguf f = {.arena = front_arena(), .diags = diags, .graph = g, .name = "test"};
    const int64_t K = BLOCKS * t->count;
    nb_gguf_tensor tensor = {.name = "w",
                             .type = t,
                             .rank = 2,
                             .dims = {K, ROWS, 1, 1},
                             .data = data,
                             .bytes = ROWS * BLOCKS * t->bytes};
    for (int i = 0; i < ROWS * BLOCKS; i++) random_block(t, data + i * t->bytes);
    f.tensors.arena = front_arena();
    nb_map_set_str(&f.tensors, "w", 1, &tensor);
    nb_value *w = nb_gguf_matrix(&f, "w", ROWS, K, transposed);
    ck_assert_ptr_nonnull(w);
    nb_reals *r = NB_NEW(front_arena(), nb_reals);
    nb_reals_open(r, w, front_arena());
    for (int row = 0; row < ROWS; row++) {
        for (int64_t k = 0; k < K; k++) {
            const float want = expected(number, data + (row * BLOCKS + k / t->count) * t->bytes,
                                        (int)(k % t->count)),
                        got = (float)nb_real(r, transposed ? k * ROWS + row : row * K + k);
            ck_assert_msg(got == want, "%s: row %d, element %lld: %g, expected %g", t->name, row,
                          (long long)k, (double)got, (double)want);
        }
    }
    nb_graph_destroy(g);
}

/* Every bit comes back. */
static void check_layout(const nb_gguf_type *t) {
    uint8_t bytes[NB_GGUF_BLOCK], again[NB_GGUF_BLOCK] = {0};
    nb_gguf_block b = {0};
    random_block(t, bytes);
    t->form->read(bytes, &b);
    t->form->write(&b, again);
    ck_assert_msg(memcmp(bytes, again, (size_t)t->bytes) == 0, "%s", t->name);
}

START_TEST(blocks) {
    static const uint32_t numbers[] = {2, 3, 6, 7, 8, 12, 13, 14};
    state = 1;
    for (size_t i = 0; i < NB_COUNT(numbers); i++)
        for (int turn = 0; turn < 20; turn++) check_layout(nb_gguf_type_of(numbers[i]));
    for (size_t i = 0; i < NB_COUNT(numbers); i++)
        for (int turn = 0; turn < 8; turn++) check_blocks(numbers[i], turn % 2);
}
END_TEST

/* ---- files that are none -------------------------------------------------------------------- */

START_TEST(cut_off_anywhere) {
    write_file(NULL);
    nb_diags *diags;
    nb_graph *g;
    for (size_t n = 4; n < size; n += n < 2048 ? 1 : 97)
        ck_assert_int_eq(import(n, &diags, &g), NB_MALFORMED);
}
END_TEST

/* Any byte may be anything: an error or a graph, never more. */
START_TEST(any_byte_changed) {
    static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    nb_diags *diags;
    nb_graph *g;
    write_file(NULL);
    for (size_t i = 4; i < 1600; i++) {
        for (size_t k = 0; k < NB_COUNT(values); k++) {
            const uint8_t kept = file[i];
            file[i] = values[k];
            if (import(size, &diags, &g) == NB_OK)
                nb_graph_destroy(g);
            else
                ck_assert_uint_gt(diags->errors, 0);
            file[i] = kept;
        }
    }
}
END_TEST

START_TEST(hostile_headers) {
    write_file(NULL);
    file[4] = 9;
    refuses(NB_UNSUPPORTED, "GGUF version 9");
    write_file(NULL);
    memset(file + 8, 0xff, 8);
    refuses(NB_LIMIT, "tensors and 7 values");
    write_file(NULL);
    memset(file + 24, 0xff, 8); /* length of the first key */
    refuses(NB_LIMIT, "a key of 18446744073709551615 bytes");
    write_file(&(change){.architecture = "rwkv7", .which = -1});
    refuses(NB_UNSUPPORTED, "architecture \"rwkv7\" is not supported; llama, qwen2 are");
}
END_TEST

START_TEST(hostile_tensors) {
    write_file(&(change){.which = 3, .changed = {"blk.0.attn_q.weight", 2, {D, D}, 0, 99}});
    refuses(NB_UNSUPPORTED, "ggml's type 99");
    write_file(&(change){.which = 3, .changed = {"blk.0.attn_q.weight", 2, {D - 1, D}, 0, 2}});
    refuses(NB_MALFORMED, "no multiple of Q4_0's blocks of 32");
    write_file(&(change){.which = 3, .changed = {"blk.0.attn_q.weight", 2, {D, D / 2}, 0, 2}});
    refuses(NB_MALFORMED, "expected [32,32], found Q4_0[32,16,1,1]");
    write_file(&(change){
        .which = 3, .changed = {"blk.0.attn_q.weight", 2, {1u << 31, UINT64_C(1) << 40}, 0, 0}});
    refuses(NB_MALFORMED, "dimension 1");
    write_file(&(change){.which = 3, .changed = {"blk.0.attn_x.weight", 2, {D, D}, 0, 2}});
    refuses(NB_MALFORMED, "there is no tensor \"blk.0.attn_q.weight\"");
    write_file(&(change){.which = 4, .changed = {"blk.0.attn_q.weight", 2, {D, D}, 0, 8}});
    refuses(NB_MALFORMED, "is there twice");
    write_file(&(change){.which = 3, .moved = -32});
    refuses(NB_MALFORMED, "overlap");
    write_file(&(change){.which = 3, .moved = 8});
    refuses(NB_MALFORMED, "no multiple of the alignment");
    write_file(&(change){.which = 3, .moved = 1 << 20});
    refuses(NB_MALFORMED, "of the data, which ends at");
    write_file(&(change){.which = 2, .changed = {"blk.0.attn_norm.weight", 1, {D}, 0, 8}});
    refuses(NB_MALFORMED, "of floats, found Q8_0");
}
END_TEST

Suite *nb_suite_gguf(void) {
    Suite *s = suite_create("gguf");
    TCase *c = tcase_create("gguf");
    tcase_set_timeout(c, 60);
    tcase_add_checked_fixture(c, front_begin, front_end);
    tcase_add_test(c, decoder);
    tcase_add_test(c, written_again);
    tcase_add_test(c, blocks);
    tcase_add_test(c, cut_off_anywhere);
    tcase_add_test(c, any_byte_changed);
    tcase_add_test(c, hostile_headers);
    tcase_add_test(c, hostile_tensors);
    suite_add_tcase(s, c);
    return s;
}
