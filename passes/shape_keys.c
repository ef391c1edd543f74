/* Keys in a basis in which the errors of their 4-bit codes do least harm (cache.h).
 *
 * What an error of a key does is what queries see of it. On the samples each head of keys shows how
 * its elements vary together, and its queries how they do: from both shape_noise.h makes a basis,
 * and the share of each rounding error that the elements behind it take over.
 *
 *   %k: f32[B,G,P+S,D] = concat %past, %new {axis=2}
 *   %y = attention %q, %k, %v
 * becomes
 *   %new.centered: f32[B,G,S,D] = sub %new, @past.center
 *   %new.shaped: f32[B,G,S,D] = matmul %new.centered, @past.to
 *   %k: f32[B,G,P+S,D] = concat %past, %new.shaped {axis=2}
 *   %q.shaped: f32[B,H,S,D] = matmul %q, @past.back
 *   %y = attention %q.shaped, %k, %v
 * where H query heads share G of keys, and queries are seen as f32[B,G,H/G*S,D] if those differ.
 * The mean goes, as in center-keys: softmax does not see it. */
#include "ir/build.h"
#include "passes/accumulate.h"
#include "passes/cache.h"
#include "passes/shape_noise.h"

#include <cblas.h>
#include <string.h>

#define MAX_HEAD 256 /* as the kernel of quantize_u4 */

/* Sums over the samples of one cache. */
typedef struct sums {
    int64_t heads, size;
    double *keys;           /* [heads][size] */
    double *keys2, *query2; /* [heads][size][size], the lower triangle */
    int64_t tokens;
    float *room; /* [size][size] */
} sums;

/* sum [size,size] += x' x for x [rows,size]. */
static void add_moments(const sums *s, double *sum, const float *x, int64_t rows) {
    const int64_t n = s->size;
    cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, (int)n, (int)rows, 1, x, (int)n, 0, s->room,
                (int)n);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j <= i; j++) sum[i * n + j] += (double)s->room[i * n + j];
}

/* x [B,heads or a multiple of it,S,size] */
static void add_heads(const sums *s, double *to, const nb_tensor *x) {
    const int64_t n = s->size, share = x->dims[1] / s->heads, rows = x->dims[2];
    openblas_set_num_threads(1);
    for (int64_t i = 0; rows && i < x->dims[0] * x->dims[1]; i++)
        add_moments(s, to + i % x->dims[1] / share * n * n, (const float *)x->data + i * rows * n,
                    rows);
}

static void see_keys(void *user, const nb_value *value, const nb_tensor *x) {
    sums *s = user;
    const int64_t n = s->size, rows = x->dims[2];
    (void)value;
    add_heads(s, s->keys2, x);
    for (int64_t i = 0; i < x->dims[0] * s->heads * rows; i++)
        for (int64_t d = 0; d < n; d++)
            s->keys[i / rows % s->heads * n + d] += (double)((const float *)x->data)[i * n + d];
    s->tokens += x->dims[0] * rows;
}

static void see_queries(void *user, const nb_value *value, const nb_tensor *x) {
    const sums *s = user;
    (void)value;
    add_heads(s, s->query2, x);
}

/* ---- the basis ------------------------------------------------------------------------------ */

typedef struct basis {
    float *center, *to, *back, *feedback; /* [heads][size], else [heads][size][size] */
    double *room;                         /* nb_shape_noise's */
} basis;

/* The other triangle. */
static void mirror(double *m, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = i + 1; j < n; j++) m[i * n + j] = m[j * n + i];
}

/* Of one head; uses the sums up. */
static bool make_basis(const sums *s, int64_t head, const basis *b) {
    const int64_t n = s->size, square = n * n;
    double *keys = s->keys + head * n, *keys2 = s->keys2 + head * square,
           *query2 = s->query2 + head * square, count = s->tokens ? (double)s->tokens : 1;
    for (int64_t i = 0; i < n; i++) {
        keys[i] /= count;
        b->center[head * n + i] = (float)keys[i];
        for (int64_t j = 0; j <= i; j++)
            keys2[i * n + j] = keys2[i * n + j] / count - keys[i] * keys[j];
    }
    mirror(keys2, n);
    mirror(query2, n);
    return nb_shape_noise(n, keys2, query2, b->room, b->to + head * square, b->back + head * square,
                          b->feedback + head * square);
}

/* ---- rewriting ------------------------------------------------------------------------------ */

static nb_value *named(nb_graph *g, nb_value *v, const char *of, const char *suffix) {
    if (v) nb_set_name(g, v, nb_format(g->arena, "%s.%s", of, suffix));
    return v;
}

/* A product of each head with its own matrix; x may have several times as many. */
static nb_value *multiply(nb_builder *b, nb_value *x, nb_value *matrices) {
    nb_graph *g = b->graph;
    const nb_type *t = x->type, *m = matrices->type;
    if (t->dims[1] == m->dims[1]) return nb_binary(b, NB_OP_matmul, x, matrices);
    const nb_dim *share = nb_dim_const(g, t->dims[1]->value / m->dims[1]->value);
    const nb_dim *dims[4] = {t->dims[0], m->dims[1], nb_dim_mul(g, share, t->dims[2]), t->dims[3]};
    nb_value *y = nb_binary(b, NB_OP_matmul, nb_reshape(b, x, 4, dims), matrices);
    return nb_reshape(b, y, 4, t->dims);
}

static nb_value *shape(nb_pass_ctx *ctx, const nb_cache *c, const sums *s, const basis *m) {
    nb_graph *g = ctx->graph;
    nb_value *fresh = nb_in(c->concat, 1);
    const char *past = c->past->name;
    const int64_t dims[4] = {1, s->heads, s->size, s->size}, row[4] = {1, s->heads, 1, s->size};
    nb_value *center = nb_const_f32(g, nb_format(g->arena, "%s.center", past), 4, row, m->center),
             *to = nb_const_f32(g, nb_format(g->arena, "%s.to", past), 4, dims, m->to),
             *back = nb_const_f32(g, nb_format(g->arena, "%s.back", past), 4, dims, m->back);
    nb_builder b = nb_pass_builder(ctx, c->concat, c->concat->loc);
    nb_value *keys = named(g, nb_binary(&b, NB_OP_sub, fresh, center), fresh->name, "centered");
    keys = named(g, multiply(&b, keys, to), fresh->name, "shaped");
    if (!keys) return NULL;
    nb_set_operand(&c->concat->operands[1], keys);
    for (size_t i = 0; i < c->readers.count; i++) {
        nb_op *attention = c->readers.items[i]->user;
        nb_value *q = nb_in(attention, 0);
        b = nb_pass_builder(ctx, attention, attention->loc);
        nb_value *turned = named(g, multiply(&b, q, back), q->name, "shaped");
        if (!turned) return NULL;
        nb_set_operand(&attention->operands[0], turned);
    }
    return nb_const_f32(g, nb_format(g->arena, "%s.feedback", past), 3, dims + 1, m->feedback);
}

static bool can_shape(const nb_cache *c) {
    const nb_type *t = nb_in(c->concat, 1)->type;
    return nb_cache_is(c, 1) && t->elem == NB_F32 && nb_dim_is_const(t->dims[1]) &&
           nb_dim_is_const(t->dims[3]) && t->dims[3]->value > 0 && t->dims[3]->value <= MAX_HEAD;
}

static sums *add_sums(nb_arena *arena, nb_accumulation *work, const nb_cache *c) {
    const nb_type *t = nb_in(c->concat, 1)->type;
    sums *s = NB_NEW(arena, sums);
    s->heads = t->dims[1]->value;
    s->size = t->dims[3]->value;
    const size_t row = (size_t)(s->heads * s->size), all = row * (size_t)s->size;
    s->keys = NB_NEW_ARRAY(arena, double, row + 1);
    s->keys2 = NB_NEW_ARRAY(arena, double, all + 1);
    s->query2 = NB_NEW_ARRAY(arena, double, all + 1);
    s->room = NB_NEW_ARRAY(arena, float, (size_t)(s->size * s->size));
    const nb_part parts[] = {{s->keys, row * sizeof(double)},
                             {s->keys2, all * sizeof(double)},
                             {s->query2, all * sizeof(double)},
                             {&s->tokens, sizeof s->tokens}};
    for (size_t i = 0; i < NB_COUNT(parts); i++) nb_vec_push(arena, &work->state, parts[i]);
    nb_tap keys = {nb_in(c->concat, 1), see_keys, s};
    nb_vec_push(arena, &work->taps, keys);
    for (size_t i = 0; i < c->readers.count; i++) {
        nb_tap queries = {nb_in(c->readers.items[i]->user, 0), see_queries, s};
        nb_vec_push(arena, &work->taps, queries);
    }
    return s;
}

nb_status nb_shape_keys(nb_pass_ctx *ctx, const nb_cache *caches, size_t n, nb_value **feedback) {
    nb_arena *arena = nb_state_of(ctx)->scratch;
    nb_accumulation work = {.version = 1};
    sums **all = NB_NEW_ARRAY(arena, sums *, n + 1);
    int64_t most = 0;
    for (size_t i = 0; i < n; i++) {
        if (!can_shape(&caches[i])) continue;
        all[i] = add_sums(arena, &work, &caches[i]);
        most = nb_max_i64(most, all[i]->size);
    }
    NB_TRY(nb_accumulate(ctx, &work));
    double *work_room = NB_NEW_ARRAY(arena, double, (size_t)(most * (3 * most + 1) + 1));
    for (size_t i = 0; i < n; i++) {
        const sums *s = all[i];
        if (!s) continue;
        const size_t row = (size_t)(s->heads * s->size), square = row * (size_t)s->size;
        float *room = NB_NEW_ARRAY(arena, float, row + 3 * square + 1);
        const basis m = {room, room + row, room + row + square, room + row + 2 * square, work_room};
        for (int64_t h = 0; h < s->heads; h++) {
            if (make_basis(s, h, &m)) continue;
            ctx->host->report(ctx, NB_LEVEL_ERROR, caches[i].concat,
                              "keys or queries of '%%%s' hold NaN or infinity on the calibration "
                              "samples",
                              caches[i].past->name);
            ctx->host->help(ctx, "run the float model on the same samples and check its outputs "
                                 "first");
            return NB_CHECK_FAILED;
        }
        feedback[i] = shape(ctx, &caches[i], s, &m);
        if (!feedback[i]) return NB_CHECK_FAILED;
    }
    return NB_OK;
}
