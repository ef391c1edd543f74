/* GGUF's blocks as constants: codes with their scales, bit for bit what the file holds (layouts:
 * ggml-common.h and dequantize_row_* of ggml-quants.c).
 *
 *   Q4_0   d, 16 bytes: elements 0-15 in the low bits, 16-31 above       (code - 8) * d
 *   Q4_1   d, m, the same                                                code * d + m
 *   Q5_0   d, 4 bytes of fifth bits, 16 bytes as Q4_0                    (code - 16) * d
 *   Q5_1   d, m, 4 bytes of fifth bits, 16 bytes                         code * d + m
 *   Q8_0   d, 32 signed bytes                                            code * d
 *   Q4_K   d, m, 12 bytes of 8 scales and minima of 6 bits, 128 bytes: of each 64 elements the
 *          first 32 in the low bits                                      code * (d*s) - m*s'
 *   Q5_K   the same with 32 bytes of fifth bits before the others
 *   Q6_K   128 bytes of low, 64 of high bits, 16 signed scales, d        (code - 32) * (d*s) */
#include "frontend/gguf.h"

#include "ir/minifloat.h"

#include <string.h>

enum { BLOCK = NB_GGUF_BLOCK, RUNS = NB_GGUF_RUNS };

typedef nb_gguf_block block;

static uint16_t half(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

/* ---- layouts -------------------------------------------------------------------------------- */

static void write_half(uint16_t v, uint8_t *to) {
    to[0] = (uint8_t)v;
    to[1] = (uint8_t)(v >> 8);
}

static void read_nibbles(const uint8_t *from, int off, block *to) {
    for (int i = 0; i < 16; i++) {
        to->codes[i] = (int16_t)((from[i] & 15) - off);
        to->codes[i + 16] = (int16_t)((from[i] >> 4) - off);
    }
}

static void read_q4_0(const uint8_t *from, block *to) {
    to->scale = half(from);
    read_nibbles(from + 2, 8, to);
}

static void read_q4_1(const uint8_t *from, block *to) {
    to->scale = half(from);
    to->minimum = half(from + 2);
    read_nibbles(from + 4, 0, to);
}

static void read_fifth(const uint8_t *from, int off, block *to) {
    for (int i = 0; i < 32; i++)
        to->codes[i] = (int16_t)((to->codes[i] | (from[i / 8] >> i % 8 & 1) << 4) - off);
}

static void read_q5_0(const uint8_t *from, block *to) {
    to->scale = half(from);
    read_nibbles(from + 6, 0, to);
    read_fifth(from + 2, 16, to);
}

static void read_q5_1(const uint8_t *from, block *to) {
    to->scale = half(from);
    to->minimum = half(from + 2);
    read_nibbles(from + 8, 0, to);
    read_fifth(from + 4, 0, to);
}

static void read_q8_0(const uint8_t *from, block *to) {
    to->scale = half(from);
    for (int i = 0; i < 32; i++) to->codes[i] = (int8_t)from[2 + i];
}

/* Eight scales and minima of 6 bits: the last four lend their upper two to the first. */
static void read_scales_k(const uint8_t *p, block *to) {
    for (int i = 0; i < 4; i++) {
        to->scales[i] = p[i] & 63;
        to->minima[i] = p[i + 4] & 63;
        to->scales[i + 4] = (int16_t)((p[i + 8] & 15) | p[i] >> 6 << 4);
        to->minima[i + 4] = (int16_t)(p[i + 8] >> 4 | p[i + 4] >> 6 << 4);
    }
}

/* Minima are taken off: as an addend they have the other sign. */
static void read_k(const uint8_t *from, const uint8_t *fifth, const uint8_t *low, block *to) {
    to->scale = half(from);
    to->minimum = half(from + 2) ^ 0x8000;
    read_scales_k(from + 4, to);
    for (int i = 0; i < BLOCK; i++) {
        const int quarter = i / 64, above = i % 64 / 32, at = i % 32;
        const int bits = low[32 * quarter + at] >> 4 * above & 15,
                  top = fifth ? fifth[at] >> (2 * quarter + above) & 1 : 0;
        to->codes[i] = (int16_t)(bits | top << 4);
    }
}

static void read_q4_k(const uint8_t *from, block *to) { read_k(from, NULL, from + 16, to); }
static void read_q5_k(const uint8_t *from, block *to) { read_k(from, from + 16, from + 48, to); }

static void read_q6_k(const uint8_t *from, block *to) {
    const uint8_t *low = from, *high = from + 128, *scales = from + 192;
    to->scale = half(from + 208);
    for (int i = 0; i < RUNS; i++) to->scales[i] = (int8_t)scales[i];
    for (int i = 0; i < BLOCK; i++) {
        const int of = i / 128, quarter = i % 128 / 32, at = i % 32;
        const int bits = low[64 * of + 32 * (quarter % 2) + at] >> 4 * (quarter / 2) & 15,
                  top = high[32 * of + at] >> 2 * quarter & 3;
        to->codes[i] = (int16_t)((bits | top << 4) - 32);
    }
}

/* ---- the way back: `to` is zeros ------------------------------------------------------------- */

static void write_nibbles(const block *from, int off, uint8_t *to) {
    for (int i = 0; i < 16; i++)
        to[i] = (uint8_t)(((from->codes[i] + off) & 15) | ((from->codes[i + 16] + off) & 15) << 4);
}

static void write_fifth(const block *from, int off, uint8_t *to) {
    for (int i = 0; i < 32; i++)
        to[i / 8] = (uint8_t)(to[i / 8] | (from->codes[i] + off) >> 4 << i % 8);
}

static void write_q4_0(const block *from, uint8_t *to) {
    write_half(from->scale, to);
    write_nibbles(from, 8, to + 2);
}

static void write_q4_1(const block *from, uint8_t *to) {
    write_half(from->scale, to);
    write_half(from->minimum, to + 2);
    write_nibbles(from, 0, to + 4);
}

static void write_q5_0(const block *from, uint8_t *to) {
    write_half(from->scale, to);
    write_fifth(from, 16, to + 2);
    write_nibbles(from, 16, to + 6);
}

static void write_q5_1(const block *from, uint8_t *to) {
    write_half(from->scale, to);
    write_half(from->minimum, to + 2);
    write_fifth(from, 0, to + 4);
    write_nibbles(from, 0, to + 8);
}

static void write_q8_0(const block *from, uint8_t *to) {
    write_half(from->scale, to);
    for (int i = 0; i < 32; i++) to[2 + i] = (uint8_t)from->codes[i];
}

static void write_k(const block *from, uint8_t *fifth, uint8_t *low, uint8_t *to) {
    write_half(from->scale, to);
    write_half(from->minimum ^ 0x8000, to + 2);
    for (int i = 0; i < 4; i++) {
        to[4 + i] = (uint8_t)(from->scales[i] | from->scales[i + 4] >> 4 << 6);
        to[8 + i] = (uint8_t)(from->minima[i] | from->minima[i + 4] >> 4 << 6);
        to[12 + i] = (uint8_t)((from->scales[i + 4] & 15) | (from->minima[i + 4] & 15) << 4);
    }
    for (int i = 0; i < BLOCK; i++) {
        const int quarter = i / 64, above = i % 64 / 32, at = i % 32;
        uint8_t *l = &low[32 * quarter + at];
        *l = (uint8_t)(*l | (from->codes[i] & 15) << 4 * above);
        if (fifth) fifth[at] = (uint8_t)(fifth[at] | from->codes[i] >> 4 << (2 * quarter + above));
    }
}

static void write_q4_k(const block *from, uint8_t *to) { write_k(from, NULL, to + 16, to); }
static void write_q5_k(const block *from, uint8_t *to) { write_k(from, to + 16, to + 48, to); }

static void write_q6_k(const block *from, uint8_t *to) {
    write_half(from->scale, to + 208);
    for (int i = 0; i < RUNS; i++) to[192 + i] = (uint8_t)from->scales[i];
    for (int i = 0; i < BLOCK; i++) {
        const int of = i / 128, quarter = i % 128 / 32, at = i % 32, code = from->codes[i] + 32;
        uint8_t *l = &to[64 * of + 32 * (quarter % 2) + at], *h = &to[128 + 32 * of + at];
        *l = (uint8_t)(*l | (code & 15) << 4 * (quarter / 2));
        *h = (uint8_t)(*h | code >> 4 << 2 * quarter);
    }
}

static const nb_gguf_form q4_0 = {NB_I4, NB_F16, 32, false, read_q4_0, write_q4_0},
                          q4_1 = {NB_U4, NB_F16, 32, true, read_q4_1, write_q4_1},
                          q5_0 = {NB_I5, NB_F16, 32, false, read_q5_0, write_q5_0},
                          q5_1 = {NB_U5, NB_F16, 32, true, read_q5_1, write_q5_1},
                          q8_0 = {NB_I8, NB_F16, 32, false, read_q8_0, write_q8_0},
                          q4_k = {NB_U4, NB_U6, 32, true, read_q4_k, write_q4_k},
                          q5_k = {NB_U5, NB_U6, 32, true, read_q5_k, write_q5_k},
                          q6_k = {NB_I6, NB_I8, 16, false, read_q6_k, write_q6_k};

static const nb_gguf_type types[] = {
    {0, "F32", 1, 4, NULL},          {1, "F16", 1, 2, NULL},
    {30, "BF16", 1, 2, NULL},        {2, "Q4_0", 32, 18, &q4_0},
    {3, "Q4_1", 32, 20, &q4_1},      {6, "Q5_0", 32, 22, &q5_0},
    {7, "Q5_1", 32, 24, &q5_1},      {8, "Q8_0", 32, 34, &q8_0},
    {12, "Q4_K", BLOCK, 144, &q4_k}, {13, "Q5_K", BLOCK, 176, &q5_k},
    {14, "Q6_K", BLOCK, 210, &q6_k},
};

const nb_gguf_type *nb_gguf_type_of(uint32_t number) {
    for (size_t i = 0; i < NB_COUNT(types); i++)
        if (types[i].number == number) return &types[i];
    return NULL;
}

const nb_gguf_type *nb_gguf_type_named(const char *name) {
    for (size_t i = 0; i < NB_COUNT(types); i++)
        if (strcmp(types[i].name, name) == 0) return &types[i];
    return NULL;
}

/* ---- floats --------------------------------------------------------------------------------- */

static float float_of(const nb_gguf_tensor *t, int64_t i) {
    float v;
    if (t->type->number == 0) {
        memcpy(&v, t->data + 4 * i, 4);
        return v;
    }
    return nb_float_decode(t->type->number == 1 ? NB_F16 : NB_BF16, half(t->data + 2 * i));
}

static nb_value *add(nb_gguf *f, const char *name, nb_elem elem, const nb_quant *q, int rank,
                     const int64_t *dims, nb_blob *blob) {
    const nb_dim *d[2];
    for (int i = 0; i < rank; i++) d[i] = nb_dim_const(f->graph, dims[i]);
    return nb_graph_add_const(f->graph, name, nb_type_intern(f->graph, elem, q, rank, d), blob,
                              NULL);
}

static nb_blob *new_blob(nb_gguf *f, nb_elem elem, int64_t count, void **data) {
    int64_t bytes;
    nb_blob *blob = nb_elem_bytes_of(elem, count, &bytes) ? nb_blob_create(bytes, data) : NULL;
    if (!blob) nb_gguf_error(f, NB_LIMIT, "not enough memory for %lld weights", (long long)count);
    if (blob && bytes) memset(*data, 0, (size_t)bytes);
    return blob;
}

static nb_value *floats(nb_gguf *f, const nb_gguf_tensor *t, int rank, bool transposed) {
    const int64_t rows = rank == 1 ? 1 : t->dims[1], columns = t->dims[0];
    void *data;
    nb_blob *blob = new_blob(f, NB_F32, rows * columns, &data);
    if (!blob) return NULL;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++)
            ((float *)data)[transposed ? c * rows + r : r * columns + c] =
                float_of(t, r * columns + c);
    return add(f, t->name, NB_F32, NULL, rank,
               rank == 1 ? &columns
                         : (int64_t[2]){transposed ? columns : rows, transposed ? rows : columns},
               blob);
}

/* ---- codes ---------------------------------------------------------------------------------- */

/* A constant under construction: [rows, each], or [each, rows] when transposed. */
typedef struct part {
    nb_elem elem;
    int64_t each; /* numbers of a row */
    nb_blob *blob;
    void *data;
} part;

typedef struct parts {
    part codes, scales, minima, scale, minimum;
    int64_t rows;
    bool transposed;
} parts;

static bool open_part(nb_gguf *f, part *p, nb_elem elem, int64_t each, int64_t rows) {
    *p = (part){.elem = elem, .each = each};
    p->blob = new_blob(f, elem, each * rows, &p->data);
    return p->blob != NULL;
}

static void put(const parts *all, part *p, int64_t row, int64_t i, int64_t value) {
    if (!p->blob) return;
    const int64_t at = all->transposed ? i * all->rows + row : row * p->each + i;
    nb_elem_put(p->elem, p->data, at, (uint64_t)value);
}

static void put_block(parts *all, const nb_gguf_type *type, int64_t row, int64_t number,
                      const block *b) {
    const int64_t runs = type->count / type->form->run;
    for (int64_t i = 0; i < type->count; i++)
        put(all, &all->codes, row, number * type->count + i, b->codes[i]);
    for (int64_t i = 0; i < runs; i++) {
        put(all, &all->scales, row, number * runs + i, b->scales[i]);
        put(all, &all->minima, row, number * runs + i, b->minima[i]);
    }
    put(all, &all->scale, row, number, b->scale);
    put(all, &all->minimum, row, number, b->minimum);
}

static nb_value *close_part(nb_gguf *f, const parts *all, part *p, const char *name,
                            const nb_quant *q) {
    const int64_t dims[2] = {all->transposed ? p->each : all->rows,
                             all->transposed ? all->rows : p->each};
    nb_blob *blob = p->blob;
    p->blob = NULL;
    return add(f, name, p->elem, q, 2, dims, blob);
}

/* Codes of scales or minima over their f16; f16 alone where there are no codes. */
static nb_value *numbers(nb_gguf *f, const parts *all, part *codes, part *halves, const char *name,
                         int64_t runs) {
    if (!codes->blob) return close_part(f, all, halves, name, NULL);
    const nb_quant q = {
        .storage = codes->elem,
        .granularity = NB_PER_GROUP,
        .axis = all->transposed ? 0 : 1,
        .group = runs,
        .scale = 1,
        .scales = close_part(f, all, halves, nb_format(f->arena, "%s.scale", name), NULL)};
    const nb_quant *known = nb_quant_intern(f->graph, &q, name, f->diags);
    return known ? close_part(f, all, codes, name, known) : NULL;
}

static nb_value *join(nb_gguf *f, const nb_gguf_tensor *t, parts *all) {
    const nb_gguf_form *form = t->type->form;
    const int64_t runs = t->type->count / form->run;
    nb_quant q = {.storage = form->codes,
                  .granularity = NB_PER_GROUP,
                  .axis = all->transposed ? 0 : 1,
                  .group = form->run,
                  .scale = 1,
                  .scales = numbers(f, all, &all->scales, &all->scale,
                                    nb_format(f->arena, "%s.scale", t->name), runs)};
    if (form->minima)
        q.minima = numbers(f, all, &all->minima, &all->minimum,
                           nb_format(f->arena, "%s.min", t->name), runs);
    if (!q.scales || (form->minima && !q.minima)) return NULL;
    const nb_quant *known = nb_quant_intern(f->graph, &q, t->name, f->diags);
    return known ? close_part(f, all, &all->codes, t->name, known) : NULL;
}

/* Is the f16 a number? A block of others would make everything NaN. */
static bool is_finite_half(uint16_t bits) { return (bits & 0x7c00) != 0x7c00; }

static nb_value *codes(nb_gguf *f, const nb_gguf_tensor *t, bool transposed) {
    const nb_gguf_form *form = t->type->form;
    const int64_t K = t->dims[0], blocks = K / t->type->count, runs = K / form->run;
    parts all = {.rows = t->dims[1], .transposed = transposed};
    const bool levels = form->scales != NB_F16;
    bool ok = open_part(f, &all.codes, form->codes, K, all.rows) &&
              open_part(f, &all.scale, NB_F16, blocks, all.rows) &&
              (!form->minima || open_part(f, &all.minimum, NB_F16, blocks, all.rows)) &&
              (!levels || open_part(f, &all.scales, form->scales, runs, all.rows)) &&
              (!levels || !form->minima || open_part(f, &all.minima, form->scales, runs, all.rows));
    for (int64_t row = 0; ok && row < all.rows; row++) {
        for (int64_t i = 0; ok && i < blocks; i++) {
            block b = {0};
            form->read(t->data + (row * blocks + i) * t->type->bytes, &b);
            ok = is_finite_half(b.scale) && is_finite_half(b.minimum);
            if (ok)
                put_block(&all, t->type, row, i, &b);
            else
                nb_gguf_error(f, NB_MALFORMED,
                              "tensor \"%s\": the scale of block %lld in row %lld is no number",
                              t->name, (long long)i, (long long)row);
        }
    }
    nb_value *v = ok ? join(f, t, &all) : NULL;
    part *const each[] = {&all.codes, &all.scales, &all.minima, &all.scale, &all.minimum};
    for (size_t i = 0; i < NB_COUNT(each); i++) nb_blob_release(each[i]->blob);
    return v;
}

/* ---- by name -------------------------------------------------------------------------------- */

static nb_gguf_tensor *tensor(nb_gguf *f, const char *name, int rank, int64_t inner, int64_t outer,
                              bool optional) {
    nb_gguf_tensor *t = nb_map_get_str(&f->tensors, name, strlen(name));
    if (!t && !optional) nb_gguf_error(f, NB_MALFORMED, "there is no tensor \"%s\"", name);
    if (!t) return NULL;
    if (t->dims[0] == inner && t->dims[1] == outer && t->dims[2] == 1 && t->dims[3] == 1 &&
        (rank > 1 || !t->type->form))
        return t;
    nb_gguf_error(
        f, NB_MALFORMED, "tensor \"%s\": expected [%lld,%lld]%s, found %s[%lld,%lld,%lld,%lld]",
        name, (long long)inner, (long long)outer, rank > 1 ? "" : " of floats", t->type->name,
        (long long)t->dims[0], (long long)t->dims[1], (long long)t->dims[2], (long long)t->dims[3]);
    return NULL;
}

nb_value *nb_gguf_vector(nb_gguf *f, const char *name, int64_t n, bool optional) {
    const nb_gguf_tensor *t = tensor(f, name, 1, n, 1, optional);
    return t ? floats(f, t, 1, false) : NULL;
}

nb_value *nb_gguf_matrix(nb_gguf *f, const char *name, int64_t out, int64_t in, bool transposed) {
    const nb_gguf_tensor *t = tensor(f, name, 2, in, out, false);
    if (!t) return NULL;
    return t->type->form ? codes(f, t, transposed) : floats(f, t, 2, transposed);
}
