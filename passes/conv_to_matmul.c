/* conv-to-matmul: convolutions become linear layers, so that what quantizes those quantizes them.
 *
 *   requires   nothing; before calibrate, whose statistics are of the inputs that layers have then
 *   maintains  every bit of the result: a patch has its inputs in the order in which conv adds
 *              their products
 *
 *   %y: f32[B,8,H,W] = conv %x, @w, bias=@b                       (@w: f32[8,4,1,1])
 * becomes
 *   %p: f32[B,H,W,4] = patches %x {kernel=[1,1]}
 *   %m: f32[B,H,W,8] = matmul %p, @w.matrix                       (f32[4,8])
 *   %a: f32[B,H,W,8] = add %m, @b
 *   %y: f32[B,8,H,W] = transpose %a {perm=[0,3,1,2]}
 *
 * Each place of the kernel is a row of the product: a token, to insert-qdq, with a scale of its
 * own. Convolutions in groups stay: their sums are short, and a product of codes would not be
 * faster than one of floats. quantize-depthwise is for those of each channel by itself. Nor is it
 * with few outputs, which do not make up for what it takes to quantize the patches. */
#include "passes/linear.h"

#include "ir/build.h"
#include "ir/conv.h"

static const nb_option options[] = {
    {.name = "min-weights",
     .kind = NB_OPTION_INT,
     .fallback = "0",
     .min = 0,
     .max = INT32_MAX,
     .summary = "convolutions with fewer weights stay"},
    {.name = "min-outputs",
     .kind = NB_OPTION_INT,
     .fallback = "0",
     .min = 0,
     .max = INT32_MAX,
     .summary = "convolutions with fewer output channels stay"},
    {.name = "pointwise",
     .kind = NB_OPTION_BOOL,
     .fallback = "false",
     .summary = "only those of one element that move by one: their patches are x itself"},
    {.name = "skip",
     .kind = NB_OPTION_STRING,
     .fallback = "",
     .summary = "names of convolutions that stay ('*' any text, '|' or)"},
    {.name = NULL},
};

/* Patches have as many axes again as the kernel. */
#define MOST_AXES ((NB_MAX_RANK - 2) / 2)

static bool is_candidate(const nb_op *op) {
    if (op->kind != NB_OP_conv) return false;
    const nb_value *w = nb_in(op, 1);
    return nb_is_const(w) && w->type->elem == NB_F32 && w->type->rank - 2 <= MOST_AXES &&
           w->blob->size > 0;
}

static bool is_pointwise(const nb_op *op) {
    const nb_type *w = nb_in(op, 1)->type;
    for (int d = 0; d < w->rank - 2; d++)
        if (!nb_dim_is(w->dims[d + 2], 1) || nb_conv_stride(op, d) != 1) return false;
    return true;
}

/* Why it stays, or NULL. */
static const char *obstacle(const nb_pass_ctx *ctx, const nb_op *op) {
    nb_arena *scratch = nb_state_of(ctx)->scratch;
    const int64_t n = nb_in(op, 1)->blob->size / 4, outputs = nb_in(op, 1)->type->dims[0]->value,
                  least = nb_option_of(ctx, "min-weights")->i,
                  least_outputs = nb_option_of(ctx, "min-outputs")->i;
    if (nb_conv_groups(op) != 1)
        return nb_format(scratch, "its channels are in %lld groups", (long long)nb_conv_groups(op));
    if (n < least)
        return nb_format(scratch, "with %lld weights it is faster so (min-weights=%lld)",
                         (long long)n, (long long)least);
    if (outputs < least_outputs)
        return nb_format(scratch, "with %lld outputs it is faster so (min-outputs=%lld)",
                         (long long)outputs, (long long)least_outputs);
    return NULL;
}

/* w[M,C,K...] as a matrix [C*K...,M], made once for all convolutions that share it. */
static nb_value *matrix_of(nb_pass_ctx *ctx, nb_map *done, nb_value *w) {
    nb_value *made = nb_map_get(done, w);
    if (made) return made;
    nb_graph *g = ctx->graph;
    const int64_t M = w->type->dims[0]->value, K = w->blob->size / 4 / M;
    void *data;
    nb_blob *blob = nb_blob_create(w->blob->size, &data);
    if (!blob) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL, "no memory for '@%s' as a matrix", w->name);
        return NULL;
    }
    const float *from = w->blob->data;
    float *to = data;
    for (int64_t m = 0; m < M; m++) {
        for (int64_t k = 0; k < K; k++) to[k * M + m] = from[m * K + k];
    }
    nb_blob_rest(w->blob);
    const nb_dim *dims[2] = {nb_dim_const(g, K), nb_dim_const(g, M)};
    made = nb_graph_add_const(g, nb_format(g->arena, "%s.matrix", w->name),
                              nb_type_intern(g, NB_F32, NULL, 2, dims), blob, NULL);
    nb_map_set(done, w, made);
    return made;
}

/* The same result by a product; NULL after an error. */
static nb_value *product(nb_pass_ctx *ctx, nb_map *done, nb_op *op) {
    const nb_type *w = nb_in(op, 1)->type;
    const int axes = w->rank - 2;
    const nb_attr *strides = nb_attr_of(op, "strides"), *dilations = nb_attr_of(op, "dilations");
    int64_t kernel[MOST_AXES], perm[NB_MAX_RANK] = {0, axes + 1};
    for (int d = 0; d < axes; d++) {
        kernel[d] = w->dims[d + 2]->value;
        perm[d + 2] = d + 1;
    }
    nb_value *matrix = matrix_of(ctx, done, nb_in(op, 1));
    if (!matrix) return NULL;
    nb_builder b = nb_pass_builder(ctx, op, op->loc);
    nb_begin(&b, NB_OP_patches);
    nb_arg(&b, nb_in(op, 0));
    nb_set_ints(&b, "kernel", (size_t)axes, kernel);
    if (strides->ints.count) nb_set_ints(&b, "strides", strides->ints.count, strides->ints.items);
    if (dilations->ints.count)
        nb_set_ints(&b, "dilations", dilations->ints.count, dilations->ints.items);
    nb_value *y = nb_binary(&b, NB_OP_matmul, nb_end(&b), matrix);
    if (nb_in(op, 2)) y = nb_binary(&b, NB_OP_add, y, nb_in(op, 2));
    return nb_transpose(&b, y, perm);
}

typedef struct converting {
    nb_pass_ctx *ctx;
    nb_map done; /* weights -> matrices */
    nb_skip skip;
    bool pointwise, changed;
    int64_t stay;
} converting;

/* All convolutions, those of bodies too; false after an error. */
static bool convert_region(converting *c, nb_region *region) {
    NB_FOR_OPS(op, region) {
        for (uint32_t i = 0; i < op->n_regions; i++)
            if (!convert_region(c, op->regions[i])) return false;
        if (!is_candidate(op) || nb_skip_op(c->ctx, &c->skip, op)) continue;
        if (c->pointwise && !is_pointwise(op)) continue;
        const char *why = obstacle(c->ctx, op);
        if (why) {
            nb_refused(c->ctx, op, "product", "conv(x, w)  ->  matmul(patches(x), w)", "%s", why);
            c->stay++;
            continue;
        }
        nb_value *y = product(c->ctx, &c->done, op);
        if (!y) return false;
        nb_replace_uses(nb_out(op), y);
        c->changed = true;
    }
    return true;
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    converting c = {.ctx = ctx,
                    .done = {.arena = nb_state_of(ctx)->scratch},
                    .skip = {.pattern = nb_option_of(ctx, "skip")->s},
                    .pointwise = nb_option_of(ctx, "pointwise")->b};
    if (!convert_region(&c, &ctx->graph->body) || !nb_skip_end(ctx, &c.skip)) return NB_PASS_FAILED;
    if (c.changed) nb_graph_sweep(ctx->graph);
    if (c.stay)
        ctx->host->report(ctx, NB_LEVEL_INFO, NULL,
                          "%lld convolutions stay in float (`nibble explain` says which "
                          "and why)",
                          (long long)c.stay);
    return nb_pass_end(ctx, c.changed);
}

const nb_pass nb_pass_conv_to_matmul = {
    .size = sizeof(nb_pass),
    .name = "conv-to-matmul",
    .options = options,
    .run = run,
    .promises = NB_PASS_KEEPS_BITS,
    .summary = "convolutions as products of patches, which are quantized as linear layers are",
};
