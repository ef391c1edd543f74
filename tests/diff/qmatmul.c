/* qmatmul: every pair of activations and weights that multiply as codes, sizes next to and between
 * whole panels and units, epilogues, and sums as large as they get. */
#include "tests/diff/quants.h"

#include <stdio.h>
#include <string.h>

typedef enum source { NONE, GIVEN, CONSTANT, COMPUTED } source;

typedef struct product {
    const diff_act *act;
    diff_codes weights;
    int64_t M, K, N; /* M -1: 1, 2, 3, 5, 17 and 64, told at run time */
    source bias, residual;
    bool plain; /* activations without hard rows */
} product;

static const int64_t many_rows[] = {1, 2, 3, 5, 17, 64};

/* An operand of the epilogue. */
static nb_value *extra(diff *d, source from, int rank, const int64_t *dims) {
    if (from == NONE) return NULL;
    if (from == CONSTANT) return diff_const(d, NB_F32, rank, dims);
    nb_value *x = diff_input(d, NB_F32, rank, dims);
    return from == GIVEN ? x : nb_unary(&d->b, NB_OP_neg, x);
}

static nb_value *qmatmul(diff *d, nb_value *a, nb_value *w, nb_value *bias, nb_value *residual) {
    nb_begin(&d->b, NB_OP_qmatmul);
    nb_arg(&d->b, a);
    nb_arg(&d->b, w);
    nb_arg(&d->b, bias);
    nb_arg(&d->b, residual);
    return nb_end(&d->b);
}

static void check(const product *p, const char *what) {
    static const char *const sources[] = {"", "given", "constant", "computed"};
    diff d;
    diff_begin(&d, "%s: %s by %s, M %lld, K %lld, N %lld, bias %s, residual %s", what, p->act->name,
               diff_codes_text(&p->weights).text, (long long)p->M, (long long)p->K, (long long)p->N,
               sources[p->bias], sources[p->residual]);
    d.rows = !p->plain;
    d.plain = p->plain;
    d.wide = p->K % 4 == 0;
    d.lengths = p->M < 0 ? many_rows : NULL;
    d.n_lengths = p->M < 0 ? NB_COUNT(many_rows) : 0;
    const int64_t y[2] = {p->M, p->N};
    nb_value *x = diff_input(&d, NB_F32, 2, (int64_t[]){p->M, p->K});
    nb_value *a = diff_quantize(&d, x, &p->act->quant);
    nb_value *w = diff_codes_const(&d, &p->weights, 2, (int64_t[]){p->K, p->N});
    nb_value *bias = extra(&d, p->bias, 1, &y[1]);
    nb_value *residual = extra(&d, p->residual, 2, y);
    diff_check(&d, qmatmul(&d, a, w, bias, residual));
}

#define TENSOR(elem)    .storage = elem
#define COLUMNS(elem)   .storage = elem, .granularity = NB_PER_AXIS, .axis = 1
#define GROUPS(elem, n) .storage = elem, .granularity = NB_PER_GROUP, .group = n

static const diff_codes weights[] = {
    {TENSOR(NB_I8)},
    {COLUMNS(NB_I8)},
    {COLUMNS(NB_I8), .zeros = DIFF_ZEROS},
    {COLUMNS(NB_U8), .zeros = DIFF_ZEROS},
    {GROUPS(NB_I8, 32)},
    {GROUPS(NB_U8, 64), .zeros = DIFF_ONE_ZERO},
    {COLUMNS(NB_I4)},
    {GROUPS(NB_I4, 32)},
    {GROUPS(NB_U4, 32), .zeros = DIFF_ZEROS},
    {GROUPS(NB_I4, 64), .zeros = DIFF_ZEROS},
    {GROUPS(NB_U4, 128), .zeros = DIFF_ZEROS},
    {GROUPS(NB_I4, 128)},
    {TENSOR(NB_U4), .zeros = DIFF_ONE_ZERO},
    {GROUPS(NB_I4, 64), .hard_scales = true},
    {GROUPS(NB_I8, 64), .hard_scales = true},
    {GROUPS(NB_I2, 32)},
    {GROUPS(NB_U2, 64), .zeros = DIFF_ZEROS},
    {GROUPS(NB_I3, 32)},
    {GROUPS(NB_U3, 64), .zeros = DIFF_ZEROS},
    {COLUMNS(NB_I5)},
    {GROUPS(NB_U5, 32), .zeros = DIFF_ZEROS},
    {COLUMNS(NB_U6), .zeros = DIFF_ZEROS},
    {GROUPS(NB_I6, 64)},
    {GROUPS(NB_U7, 32), .zeros = DIFF_ZEROS},
    {GROUPS(NB_I7, 64)},
    {GROUPS(NB_I8, 32), .scales = NB_F16},
    {GROUPS(NB_I4, 32), .scales = NB_F16},
    {GROUPS(NB_I6, 16), .scales = NB_I8},
    {GROUPS(NB_U4, 64), .scales = NB_I8, .zeros = DIFF_ZEROS},
    {COLUMNS(NB_I8), .scales = NB_F16},
    {COLUMNS(NB_I4), .scales = NB_I8},
};

/* Do they multiply? Blocks of activations must be the weights' groups. */
static bool fits(const diff_act *act, const diff_codes *w) {
    return act->quant.granularity != NB_PER_BLOCK || act->quant.group == w->group;
}

/* Half of all pairs, so that each kind meets several of the other, with sizes that go round. */
static void pairs(void) {
    static const int64_t sizes[][2] = {{70, 19}, {128, 16}, {33, 5}, {200, 33}, {129, 48}, {31, 1}};
    static const source extras[][2] = {
        {NONE, NONE}, {GIVEN, GIVEN}, {CONSTANT, NONE}, {NONE, GIVEN}, {GIVEN, COMPUTED}};
    size_t n = 0;
    for (size_t a = 0; a < diff_n_acts; a++) {
        for (size_t w = 0; w < NB_COUNT(weights); w++) {
            if (!fits(&diff_acts[a], &weights[w])) continue;
            bool saturates = strstr(diff_acts[a].name, "saturating") != NULL;
            if (saturates ? w % 4 != 1 : (a + w) % 2) continue;
            const int64_t *size = sizes[n % NB_COUNT(sizes)];
            const source *e = extras[n % NB_COUNT(extras)];
            const product p = {.act = &diff_acts[a],
                               .weights = weights[w],
                               .M = -1,
                               .K = size[0],
                               .N = size[1],
                               .bias = e[0],
                               .residual = e[1]};
            check(&p, "qmatmul");
            n++;
        }
    }
}

/* Rows known when compiling, and sizes at the edges. */
static void edges(void) {
    static const product cases[] = {
        {&diff_acts[1], {COLUMNS(NB_I8)}, 1, 64, 32, GIVEN, NONE, false},
        {&diff_acts[4], {GROUPS(NB_I4, 32)}, 1, 96, 16, NONE, GIVEN, false},
        {&diff_acts[1], {GROUPS(NB_U4, 32), .zeros = DIFF_ZEROS}, 5, 40, 17, NONE, NONE, false},
        {&diff_acts[4], {COLUMNS(NB_I8)}, 17, 48, 16, CONSTANT, CONSTANT, false},
        {&diff_acts[1], {COLUMNS(NB_I8)}, 3, 1, 1, CONSTANT, GIVEN, true},
        {&diff_acts[1], {COLUMNS(NB_I8)}, 1, 1, 1, CONSTANT, CONSTANT, true},
        {&diff_acts[4], {GROUPS(NB_I4, 32)}, 2, 0, 3, GIVEN, GIVEN, true},
        {&diff_acts[1], {COLUMNS(NB_I8)}, 2, 8, 0, NONE, NONE, true},
        {&diff_acts[1], {COLUMNS(NB_I8)}, 0, 8, 4, GIVEN, NONE, true},
        {&diff_acts[2], {GROUPS(NB_I4, 32)}, 4, 65, 18, NONE, NONE, false},
        {&diff_acts[1], {GROUPS(NB_I4, 5)}, 4, 23, 18, NONE, NONE, false},
        {&diff_acts[4], {GROUPS(NB_I8, 3), .zeros = DIFF_ZEROS}, 4, 11, 18, NONE, NONE, false},
        {&diff_acts[1], {GROUPS(NB_I4, 1)}, 3, 9, 2, NONE, NONE, false},
        {&diff_acts[4], {GROUPS(NB_U4, 128), .zeros = DIFF_ZEROS}, 3, 50, 2, NONE, NONE, false},
        /* Several panels and one left over, of groups that do not divide a block. */
        {&diff_acts[1], {GROUPS(NB_I4, 96), .zeros = DIFF_ZEROS}, 13, 3000, 80, NONE, NONE, false},
        {&diff_acts[4], {GROUPS(NB_I4, 48)}, 13, 3000, 64, NONE, NONE, false},
        {&diff_acts[1], {GROUPS(NB_I8, 96)}, 13, 1500, 80, NONE, NONE, false},
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) check(&cases[i], "qmatmul, edge");
}

/* Sums that come close to 32 bits; codes at the ends of their ranges on both sides. */
static void extremes(void) {
    static const product cases[] = {
        {&diff_acts[6], {COLUMNS(NB_U8), .contents = DIFF_TOP}, 28, 65536, 3, NONE, NONE, false},
        {&diff_acts[7], {COLUMNS(NB_U8), .contents = DIFF_TOP}, 28, 65536, 3, NONE, NONE, false},
        {&diff_acts[7], {COLUMNS(NB_U8), .contents = DIFF_TOP}, 28, 4000, 3, NONE, NONE, false},
        {&diff_acts[6], {COLUMNS(NB_I8), .contents = DIFF_ENDS}, 30, 300, 17, NONE, NONE, false},
        {&diff_acts[7], {COLUMNS(NB_I8), .contents = DIFF_ENDS}, 30, 300, 17, NONE, NONE, false},
        {&diff_acts[1],
         {COLUMNS(NB_U8), .zeros = DIFF_ZEROS, .contents = DIFF_ENDS},
         30,
         300,
         17,
         NONE,
         NONE,
         false},
        {&diff_acts[6], {GROUPS(NB_U4, 64), .contents = DIFF_TOP}, 30, 300, 17, NONE, NONE, false},
        {&diff_acts[6], {COLUMNS(NB_U4), .contents = DIFF_TOP}, 5, 9000, 17, NONE, NONE, false},
        {&diff_acts[7], {COLUMNS(NB_U7), .contents = DIFF_TOP}, 5, 3000, 17, NONE, NONE, false},
        {&diff_acts[7],
         {GROUPS(NB_I8, 640), .contents = DIFF_ENDS},
         5,
         3000,
         17,
         NONE,
         NONE,
         false},
        {&diff_acts[7],
         {GROUPS(NB_I4, 128), .zeros = DIFF_ZEROS, .contents = DIFF_ENDS},
         30,
         300,
         17,
         NONE,
         NONE,
         false},
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) check(&cases[i], "qmatmul, extreme");
    /* Half as many inputs, and as far from zero points as there is. */
    const product far = {&diff_acts[11],
                         {COLUMNS(NB_U8), .zeros = DIFF_ZEROS, .contents = DIFF_ENDS},
                         5,
                         32768,
                         3,
                         NONE,
                         NONE,
                         false};
    check(&far, "qmatmul, extreme");
    /* Of the largest codes as many products are added in 16 bits as fit. */
    static const nb_elem storages[] = {NB_U2, NB_U3, NB_U5, NB_U6, NB_U7};
    for (size_t i = 0; i < NB_COUNT(storages); i++) {
        for (int64_t rows = 1; rows < 4; rows += 2) {
            const product p = {&diff_acts[i % 2 ? 6 : 7],
                               {GROUPS(storages[i], 64), .contents = DIFF_TOP},
                               rows,
                               200,
                               17,
                               NONE,
                               NONE,
                               false};
            check(&p, "qmatmul, extreme");
        }
    }
}

/* A product with one more attribute, of codes with every zero point. */
static nb_value *special(diff *d, nb_value *a, nb_value *w, nb_value *bias, const nb_quant *to) {
    nb_begin(&d->b, NB_OP_qmatmul);
    nb_arg(&d->b, a);
    nb_arg(&d->b, w);
    nb_arg(&d->b, bias);
    nb_arg(&d->b, NULL);
    if (to)
        nb_set_quant(&d->b, "to", nb_quant_intern(d->graph, to, "to", d->diags));
    else
        nb_set_bool(&d->b, "sums", true);
    return nb_end(&d->b);
}

/* Results that are codes, or the sums themselves; activations that were plain integers. */
static void results(void) {
    static const nb_quant to[] = {{.storage = NB_I8, .scale = 0.9F, .zero = -128},
                                  {.storage = NB_U8, .scale = 2.5F, .zero = 100},
                                  {.storage = NB_I8, .scale = 0.01F}};
    static const size_t acts[] = {0, 8, 9, 10, 11};
    static const diff_codes kinds[] = {{COLUMNS(NB_I8)},
                                       {COLUMNS(NB_U8), .zeros = DIFF_ZEROS},
                                       {TENSOR(NB_I4)},
                                       {TENSOR(NB_U8), .zeros = DIFF_ONE_ZERO}};
    for (size_t i = 0; i < NB_COUNT(acts) * NB_COUNT(kinds); i++) {
        const diff_act *act = &diff_acts[acts[i / NB_COUNT(kinds)]];
        const diff_codes *kind = &kinds[i % NB_COUNT(kinds)];
        const int64_t K = i % 3 ? 70 : 1300, N = i % 2 ? 19 : 32;
        diff d;
        diff_begin(&d, "qmatmul, results: %s by %s, K %lld", act->name, diff_codes_text(kind).text,
                   (long long)K);
        d.rows = true;
        d.lengths = many_rows;
        d.n_lengths = NB_COUNT(many_rows);
        nb_value *x = diff_input(&d, NB_F32, 2, (int64_t[]){-1, K});
        nb_value *codes = nb_unary(&d.b, NB_OP_codes, diff_quantize(&d, x, &act->quant));
        nb_begin(&d.b, NB_OP_as_codes);
        nb_arg(&d.b, codes);
        nb_set_quant(&d.b, "to", nb_quant_intern(d.graph, &act->quant, "a", d.diags));
        nb_value *a = nb_end(&d.b), *w = diff_codes_const(&d, kind, 2, (int64_t[]){K, N});
        nb_value *bias = diff_const(&d, NB_F32, 1, &N);
        nb_value *y = special(&d, a, w, bias, &to[i % NB_COUNT(to)]);
        diff_check_all(&d, 3,
                       (nb_value *[]){nb_unary(&d.b, NB_OP_codes, y), diff_dequantize(&d, y),
                                      special(&d, a, w, NULL, NULL)});
    }
}

/* Activations of other ranks; codes that come from outside; one set of codes in two products. */
static void shapes(void) {
    static const diff_codes w8 = {COLUMNS(NB_I8)}, w4 = {GROUPS(NB_I4, 32)};
    for (int rank = 1; rank < 5; rank++) {
        diff d;
        diff_begin(&d, "qmatmul, rank %d", rank);
        d.rows = true;
        const int64_t dims[4] = {2, 3, 5, 70}, ys[4] = {2, 3, 5, 18};
        nb_value *x = diff_input(&d, NB_F32, rank, &dims[4 - rank]);
        nb_value *residual = diff_input(&d, NB_F32, rank, &ys[4 - rank]);
        nb_value *a = diff_quantize(&d, x, &diff_acts[rank % 2 ? 1 : 4].quant);
        nb_value *w = diff_codes_const(&d, &w8, 2, (int64_t[]){70, 18});
        nb_value *v = diff_codes_const(&d, &w4, 2, (int64_t[]){70, 18});
        diff_check_all(
            &d, 2,
            (nb_value *[]){qmatmul(&d, a, w, NULL, residual), qmatmul(&d, a, v, NULL, NULL)});
    }
    diff d;
    diff_begin(&d, "qmatmul, some with the same activations one after the other");
    d.rows = true;
    d.lengths = many_rows;
    d.n_lengths = NB_COUNT(many_rows);
    nb_value *y[6], *x = diff_input(&d, NB_F32, 2, (int64_t[]){-1, 70});
    nb_value *codes[2] = {diff_quantize(&d, x, &diff_acts[1].quant),
                          diff_quantize(&d, nb_unary(&d.b, NB_OP_neg, x), &diff_acts[1].quant)};
    for (int i = 0; i < 6; i++) {
        const diff_codes *kind = i == 3 ? &w8 : &w4;
        nb_value *w = diff_codes_const(&d, kind, 2, (int64_t[]){70, 16 + i});
        y[i] = qmatmul(&d, codes[i == 4], w, NULL, NULL);
    }
    diff_check_all(&d, 6, y);
    diff_begin(&d, "qmatmul, the scale of the activations a constant");
    d.rows = true;
    const float scale = 0.02F;
    nb_quant q = {.storage = NB_I16, .scales = nb_const_f32(d.graph, "s", 0, NULL, &scale)};
    nb_value *a = diff_quantize(&d, diff_input(&d, NB_F32, 2, (int64_t[]){15, 40}), &q);
    diff_check(&d, qmatmul(&d, a, diff_codes_const(&d, &w4, 2, (int64_t[]){40, 18}), NULL, NULL));
}

/* Results that leave past the caches, from 1 MiB on. */
static void large(void) {
    static const diff_codes w4 = {GROUPS(NB_I4, 32)};
    static const int64_t rows[] = {127, 128};
    diff d;
    diff_begin(&d, "qmatmul, large results");
    d.rows = true;
    d.lengths = rows;
    d.n_lengths = NB_COUNT(rows);
    nb_value *x = diff_input(&d, NB_F32, 2, (int64_t[]){-1, 40}),
             *a = diff_quantize(&d, x, &diff_acts[1].quant),
             *w = diff_codes_const(&d, &w4, 2, (int64_t[]){40, 2048});
    diff_check(&d, qmatmul(&d, a, w, NULL, NULL));
}

/* Everything at random. */
static void random_product(int number) {
    char name[32];
    (void)snprintf(name, sizeof name, "random product %d", number);
    diff_random_start(name);
    const diff_act *act = &diff_acts[diff_below((int64_t)diff_n_acts)];
    diff_codes w = weights[diff_below((int64_t)NB_COUNT(weights))];
    if (!fits(act, &w)) w = (diff_codes){GROUPS(NB_I4, act->quant.group)};
    w.contents = (diff_contents)diff_below(3);
    const product p = {.act = act,
                       .weights = w,
                       .M = diff_below(2) ? -1 : 1 + diff_below(20),
                       .K = 1 + diff_below(300),
                       .N = 1 + diff_below(60),
                       .bias = (source)diff_below(4),
                       .residual = (source)diff_below(2),
                       .plain = diff_below(3) == 0};
    check(&p, name);
}

/* A layer with a branch of low rank: two thin products, whose sum is the residual. */
static void branch(nb_elem elem, int64_t rank) {
    const diff_codes codes = {GROUPS(NB_U4, 32), .zeros = DIFF_ZEROS};
    const nb_quant tokens = {
        .storage = NB_I16, .narrow = true, .granularity = NB_PER_TOKEN, .amax_code = 32639};
    diff d;
    diff_begin(&d, "qmatmul with a branch of rank %lld in %s", (long long)rank,
               nb_elems[elem].text);
    d.plain = true;
    d.lengths = many_rows;
    d.n_lengths = NB_COUNT(many_rows);
    nb_value *x = diff_input(&d, NB_F32, 2, (int64_t[]){-1, 96});
    nb_value *t = nb_binary(&d.b, NB_OP_matmul, x, diff_const(&d, elem, 2, (int64_t[]){96, rank}));
    nb_value *c = nb_binary(&d.b, NB_OP_matmul, t, diff_const(&d, elem, 2, (int64_t[]){rank, 80}));
    nb_value *a = diff_quantize(&d, x, &tokens);
    nb_value *w = diff_codes_const(&d, &codes, 2, (int64_t[]){96, 80});
    diff_check(&d, qmatmul(&d, a, w, NULL, c));
}

/* Products of one input, with other ops between them, whose panels one loop runs, and some that
 * stay by themselves: another form of the weights, a residual. Many panels, so that those of a
 * single row come in streams of every length. */
static void together(size_t act) {
    static const int64_t columns[] = {272, 40, 208};
    const diff_codes codes = {GROUPS(NB_U4, 32), .zeros = DIFF_ZEROS}, other = {COLUMNS(NB_I8)};
    diff d;
    diff_begin(&d, "qmatmul, together: %s", diff_acts[act].name);
    d.lengths = many_rows;
    d.n_lengths = NB_COUNT(many_rows);
    nb_value *x = diff_input(&d, NB_F32, 2, (int64_t[]){-1, 512}), *ys[5];
    nb_value *a = diff_quantize(&d, x, &diff_acts[act].quant);
    for (size_t i = 0; i < NB_COUNT(columns); i++) {
        nb_value *w = diff_codes_const(&d, &codes, 2, (int64_t[]){512, columns[i]});
        nb_value *bias = i == 1 ? diff_const(&d, NB_F32, 1, &columns[i]) : NULL;
        ys[i] = nb_unary(&d.b, NB_OP_neg, qmatmul(&d, a, w, bias, NULL));
    }
    nb_value *w = diff_codes_const(&d, &codes, 2, (int64_t[]){512, columns[0]});
    ys[3] = qmatmul(&d, a, w, NULL, ys[0]);
    w = diff_codes_const(&d, &other, 2, (int64_t[]){512, 40});
    ys[4] = qmatmul(&d, a, w, NULL, NULL);
    diff_check_all(&d, NB_COUNT(ys), ys);
}

void diff_test_qmatmul(void) {
    pairs();
    edges();
    extremes();
    results();
    shapes();
    branch(NB_F16, 16);
    branch(NB_F32, 5);
    together(1);
    together(4);
    large();
    for (int i = 0; i < 8; i++) random_product(i);
}
