/* attention: sizes around 16 rows and 16 keys, shared key heads, masks of every shape, left
 * padding, causal masks with an offset, scores at the ends of the range. */
#include "tests/diff/diff.h"

#include <stdlib.h>

static nb_value *attention(diff *d, nb_value *q, nb_value *k, nb_value *v, nb_value *mask,
                           float scale) {
    nb_begin(&d->b, NB_OP_attention);
    nb_arg(&d->b, q);
    nb_arg(&d->b, k);
    nb_arg(&d->b, v);
    nb_arg(&d->b, mask);
    nb_set_float(&d->b, "scale", scale);
    return nb_end(&d->b);
}

typedef struct sizes {
    int64_t B, H, G, S, T, D, E;
    float scale;
} sizes;

static void inputs(diff *d, const sizes *s, nb_value *x[3]) {
    x[0] = diff_input(d, NB_F32, 4, (int64_t[]){s->B, s->H, s->S, s->D});
    x[1] = diff_input(d, NB_F32, 4, (int64_t[]){s->B, s->G, s->T, s->D});
    x[2] = diff_input(d, NB_F32, 4, (int64_t[]){s->B, s->G, s->T, s->E});
}

/* Heads that share keys, sizes next to and between blocks, any bits. */
static void forms(void) {
    static const sizes cases[] = {
        {1, 1, 1, 1, 1, 1, 1, 1},         {2, 4, 2, 5, 37, 24, 24, 0.2F},
        {1, 6, 1, 17, 16, 8, 8, 0.35F},   {1, 4, 4, 16, 33, 16, 16, 0.25F},
        {2, 2, 1, 3, 0, 4, 4, 0.5F},      {1, 2, 2, 33, 17, 32, 5, 0.17F},
        {1, 3, 3, 2, 15, 18, 40, -1},     {1, 2, 1, 0, 7, 8, 8, 1},
        {3, 8, 2, 1, 64, 64, 64, 0.125F}, {1, 2, 1, 4, 20, 0, 8, 1},
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        for (int plain = i % 2; plain < 2; plain++) {
            diff d;
            diff_begin(&d, "attention form %zu%s", i, plain ? "" : ", any bits");
            d.plain = plain;
            nb_value *x[3];
            inputs(&d, &cases[i], x);
            diff_check(&d, attention(&d, x[0], x[1], x[2], NULL, cases[i].scale));
        }
    }
}

static void hard_rows(void) {
    static const sizes s = {2, 2, 1, 14, 29, 16, 16, 0.25F};
    diff d;
    diff_begin(&d, "attention of hard rows");
    d.rows = true;
    nb_value *x[3];
    inputs(&d, &s, x);
    diff_check(&d, attention(&d, x[0], x[1], x[2], NULL, s.scale));
}

/* ---- masks ---------------------------------------------------------------------------------- */

/* Masks of every shape that broadcasts, with any bits. */
static void shapes_of_masks(void) {
    static const struct {
        int rank;
        int64_t dims[4];
    } masks[] = {{0, {0}},          {1, {21}},         {1, {1}},           {2, {5, 21}},
                 {2, {5, 1}},       {3, {4, 1, 21}},   {4, {2, 1, 5, 21}}, {4, {2, 1, 1, 21}},
                 {4, {1, 4, 5, 1}}, {4, {2, 4, 5, 21}}};
    static const sizes s = {2, 4, 2, 5, 21, 8, 8, 0.3F};
    for (size_t i = 0; i < NB_COUNT(masks); i++) {
        diff d;
        diff_begin(&d, "attention, mask shape %zu", i);
        d.rows = i % 3 == 0;
        d.plain = i % 3 == 1;
        nb_value *x[3];
        inputs(&d, &s, x);
        nb_value *mask = i % 2 ? diff_const(&d, NB_F32, masks[i].rank, masks[i].dims)
                               : diff_input(&d, NB_F32, masks[i].rank, masks[i].dims);
        diff_check(&d, attention(&d, x[0], x[1], x[2], mask, s.scale));
    }
}

typedef enum pattern { CAUSAL, LEFT_PADDED, WHOLE_ROWS, WHOLE_ROWS_INFINITE, PATTERNS } pattern;

/* f32[B,1,S,T]: a number for masked keys, 0 for the others. */
static nb_value *pattern_mask(diff *d, pattern kind, const sizes *s) {
    static const float masked[PATTERNS] = {-3.4028235e38F, -3.4028235e38F, -1e9F,
                                           -__builtin_inff()};
    int64_t dims[4] = {s->B, 1, s->S, s->T};
    float *m = calloc((size_t)(s->B * s->S * s->T), sizeof *m);
    if (!m) abort();
    for (int64_t i = 0; i < s->B * s->S * s->T; i++) {
        int64_t b = i / (s->S * s->T), row = i / s->T % s->S, t = i % s->T;
        bool future = t > row + s->T - s->S, hidden = future;
        if (kind == LEFT_PADDED) hidden = future || t < 3 + 2 * b;
        if (kind >= WHOLE_ROWS) hidden = row % 2 || future;
        m[i] = hidden ? masked[kind] : 0;
    }
    nb_value *mask = nb_const_f32(d->graph, "mask", 4, dims, m);
    free(m);
    return mask;
}

/* Prompts and one token behind a past, with every kind of mask; small numbers, then any bits. */
static void patterns(void) {
    static const sizes cases[] = {{2, 4, 2, 19, 19, 16, 16, 0.25F},
                                  {2, 4, 2, 5, 22, 16, 16, 0.25F},
                                  {2, 2, 2, 1, 18, 16, 16, 0.25F},
                                  {1, 4, 2, 40, 100, 16, 20, 0.25F},
                                  {2, 2, 1, 70, 70, 8, 36, 0.25F}};
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        for (int kind = 0; kind < 2 * PATTERNS; kind++) {
            diff d;
            diff_begin(&d, "attention, mask pattern %d, sizes %zu%s", kind % PATTERNS, i,
                       kind < PATTERNS ? "" : ", any bits");
            d.plain = kind < PATTERNS;
            nb_value *x[3];
            inputs(&d, &cases[i], x);
            nb_value *mask = pattern_mask(&d, (pattern)(kind % PATTERNS), &cases[i]);
            diff_check(&d, attention(&d, x[0], x[1], x[2], mask, cases[i].scale));
        }
    }
}

/* Keys and values that some rows do not see are not finite: the first, which is padding, and the
 * last, which only the last row sees. */
static nb_value *wild(diff *d, const char *name, const sizes *s, int64_t width, float x) {
    const int64_t count = s->B * s->G * s->T * width;
    float *data = calloc((size_t)count, sizeof *data);
    if (!data) abort();
    diff_fill(NB_F32, count, true, data);
    for (int64_t token = 0; token < s->B * s->G * s->T; token++) {
        if (token % s->T != 0 && token % s->T != s->T - 1) continue;
        for (int64_t i = 0; i < width; i++) data[token * width + i] = x;
    }
    nb_value *v = nb_const_f32(d->graph, name, 4, (int64_t[]){s->B, s->G, s->T, width}, data);
    free(data);
    return v;
}

static void hidden(void) {
    static const float numbers[] = {__builtin_nanf(""), -__builtin_inff(), 3.4e38F};
    static const sizes cases[] = {{2, 4, 2, 19, 19, 16, 16, 0.25F},
                                  {1, 4, 2, 40, 100, 16, 20, 0.25F},
                                  {2, 2, 1, 1, 37, 8, 36, 0.25F}};
    for (size_t i = 0; i < NB_COUNT(cases) * NB_COUNT(numbers); i++) {
        const sizes *s = &cases[i / NB_COUNT(numbers)];
        const float x = numbers[i % NB_COUNT(numbers)];
        diff d;
        diff_begin(&d, "attention, hidden keys and values of %g, sizes %zu", (double)x,
                   i / NB_COUNT(numbers));
        d.plain = true;
        nb_value *q = diff_input(&d, NB_F32, 4, (int64_t[]){s->B, s->H, s->S, s->D}),
                 *k = wild(&d, "k", s, s->D, x), *v = wild(&d, "v", s, s->E, x);
        diff_check(&d, attention(&d, q, k, v, pattern_mask(&d, LEFT_PADDED, s), s->scale));
    }
}

/* Every score far below zero: what lies beyond the last key must not be the largest. */
static void negative(void) {
    static const sizes s = {2, 4, 2, 5, 21, 8, 8, 0.3F};
    static const float low = -100;
    diff d;
    diff_begin(&d, "attention, negative scores");
    d.plain = true;
    nb_value *x[3];
    inputs(&d, &s, x);
    nb_value *mask = nb_const_f32(d.graph, "mask", 0, NULL, &low);
    diff_check(&d, attention(&d, x[0], x[1], x[2], mask, s.scale));
}

/* ---- told at run time ----------------------------------------------------------------------- */

static void any_length(void) {
    static const int64_t lengths[] = {0, 1, 2, 15, 16, 17, 33, 64};
    static const sizes queries = {2, 4, 2, -1, 19, 8, 8, 0.3F}, keys = {2, 4, 2, 5, -1, 8, 8, 0.3F},
                       both = {2, 4, 2, -1, -1, 8, 8, 0.3F};
    static const sizes *const cases[] = {&queries, &keys, &both};
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        for (int masked = 0; masked < 2; masked++) {
            diff d;
            diff_begin(&d, "attention, lengths at run time %zu%s", i, masked ? ", masked" : "");
            d.lengths = lengths;
            d.n_lengths = NB_COUNT(lengths);
            d.rows = masked;
            nb_value *x[3], *mask = NULL;
            inputs(&d, cases[i], x);
            if (masked) mask = diff_input(&d, NB_F32, 2, (int64_t[]){cases[i]->S, cases[i]->T});
            diff_check(&d, attention(&d, x[0], x[1], x[2], mask, 0.3F));
        }
    }
}

/* Every number of rows in the smaller tiles, and more than one block; head sizes that are no
 * multiple of 4 or 16; more panels of keys than are turned at once, and every number of keys left.
 * With the tiles of the widest CPU too. */
static void tiles(void) {
    static const int64_t lengths[] = {1, 3, 15, 16, 31, 40, 63, 97};
    static const sizes cases[] = {{1, 7, 1, 1, -1, 8, 8, 0.3F},
                                  {1, 5, 1, 3, -1, 21, 19, 0.2F},
                                  {2, 6, 2, 12, -1, 66, 70, 0.1F},
                                  {1, 1, 1, 1, -1, 130, 80, 0.1F},
                                  {1, 2, 2, 1, -1, 260, 64, 0.1F}};
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        const sizes *s = &cases[i];
        diff d;
        diff_begin(&d, "attention tiles %zu", i);
        d.plain = true;
        d.wide = true;
        d.lengths = lengths;
        d.n_lengths = NB_COUNT(lengths);
        nb_value *x[3];
        inputs(&d, s, x);
        nb_value *mask = i % 2 ? diff_input(&d, NB_F32, 2, (int64_t[]){s->S, s->T}) : NULL;
        diff_check(&d, attention(&d, x[0], x[1], x[2], mask, s->scale));
    }
}

/* Keys and values in fewer bits. */
static void small_floats(void) {
    static const nb_elem elems[] = {NB_F32, NB_F16, NB_BF16};
    static const sizes cases[] = {{2, 6, 2, 3, 37, 24, 18, 0.2F}, {1, 2, 2, 17, 16, 8, 40, 0.35F}};
    for (size_t i = 1; i < NB_COUNT(elems) * NB_COUNT(elems); i++) {
        for (int plain = 0; plain < 2; plain++) {
            const sizes *s = &cases[plain];
            diff d;
            diff_begin(&d, "attention to %s and %s%s", nb_elems[elems[i / 3]].text,
                       nb_elems[elems[i % 3]].text, plain ? "" : ", any bits");
            d.plain = plain;
            nb_value *q = diff_input(&d, NB_F32, 4, (int64_t[]){s->B, s->H, s->S, s->D}),
                     *k = diff_input(&d, elems[i / 3], 4, (int64_t[]){s->B, s->G, s->T, s->D}),
                     *v = diff_input(&d, elems[i % 3], 4, (int64_t[]){s->B, s->G, s->T, s->E});
            diff_check(&d, attention(&d, q, k, v, NULL, s->scale));
        }
    }
}

void diff_test_attention(void) {
    forms();
    tiles();
    small_floats();
    hard_rows();
    shapes_of_masks();
    patterns();
    hidden();
    negative();
    any_length();
}
