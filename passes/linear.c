/* Linear layers (linear.h). */
#include "passes/linear.h"

#include "passes/branch.h"

#include <string.h>

nb_value *nb_linear_weight(const nb_op *op) {
    if (op->kind != NB_OP_matmul && op->kind != NB_OP_qmatmul) return NULL;
    nb_value *b = nb_in(op, 1);
    if (b->def && b->def->kind == NB_OP_dequantize) b = nb_in(b->def, 0);
    return nb_is_const(b) && b->type->rank == 2 ? b : NULL;
}

nb_value *nb_as_codes(nb_builder *b, nb_value *x, const nb_quant *to) {
    nb_begin(b, NB_OP_as_codes);
    nb_arg(b, x);
    nb_set_quant(b, "to", to);
    return nb_end(b);
}

void nb_keep_original(nb_pass_ctx *ctx, const nb_value *codes, nb_blob *weight) {
    nb_pass_env *env = nb_state_of(ctx)->env;
    if (env->keep_originals) nb_map_set(&env->originals, codes, nb_blob_retain(weight));
}

const float *nb_original_of(const nb_pass_ctx *ctx, const nb_value *codes) {
    const nb_blob *blob = nb_map_get(&nb_state_of(ctx)->env->originals, codes);
    return blob ? blob->data : NULL;
}

bool nb_originals_end(nb_pass_ctx *ctx, size_t known, size_t unknown) {
    if (known || !unknown) return true;
    ctx->host->report(ctx, NB_LEVEL_ERROR, NULL,
                      "the float weights of %zu quantized layers are not known", unknown);
    ctx->host->help(ctx, "run quantize-weights before %s, in the same pipeline",
                    nb_state_of(ctx)->pass->name);
    return false;
}

const nb_stats *nb_layer_stats(nb_pass_ctx *ctx, const nb_op *layer) {
    const nb_value *x = nb_in(layer, 0);
    const nb_stats *stats = nb_map_get(&nb_state_of(ctx)->env->stats, x);
    if (stats) return stats;
    ctx->host->report(ctx, NB_LEVEL_ERROR, layer, "no statistics of '%%%s'", x->name);
    ctx->host->help(ctx, "give calibration data with --calib and run calibrate before %s",
                    nb_state_of(ctx)->pass->name);
    return NULL;
}

int64_t nb_outputs_of_places(const nb_op *op) {
    const nb_value *x = nb_in(op, 0);
    const bool is_patches = x->def && x->def->kind == NB_OP_patches;
    int64_t outputs = 0;
    if (!is_patches && x->type->rank < 4) return INT64_MAX;
    for (const nb_use *u = x->uses; u; u = u->next) {
        const nb_value *w = u->user->kind == NB_OP_matmul ? nb_linear_weight(u->user) : NULL;
        if (w && nb_in(u->user, 0) == x) outputs += w->type->dims[1]->value;
    }
    return outputs;
}

bool nb_linear_is_head(const nb_op *op) {
    const nb_value *v = nb_branch_sum(op);
    for (;;) {
        const nb_op *view = NULL;
        for (const nb_use *u = v->uses; u; u = u->next) {
            if (u->user->kind == NB_OP_return) return true;
            if (nb_has_trait(u->user, NB_TRAIT_VIEW)) view = u->user;
        }
        if (!view) return false;
        v = nb_out(view);
    }
}

bool nb_is_embedding(const nb_op *op) {
    if (op->kind != NB_OP_gather || nb_attr_int(op, "axis") != 0) return false;
    const nb_value *table = nb_in(op, 0);
    if (table->def && table->def->kind == NB_OP_dequantize) table = nb_in(table->def, 0);
    if (!nb_is_const(table) || table->type->rank != 2) return false;
    for (const nb_value *v = nb_out(op);;) {
        const nb_op *view = NULL;
        for (const nb_use *u = v->uses; u; u = u->next) {
            if (u->user->kind == NB_OP_rotary && u->index > 0) return false;
            if (nb_has_trait(u->user, NB_TRAIT_VIEW)) view = u->user;
        }
        if (!view) return true;
        v = nb_out(view);
    }
}

bool nb_has_convolutions(const nb_graph *g) {
    NB_FOR_OPS(op, &g->body) {
        if (op->kind == NB_OP_conv || op->kind == NB_OP_depthwise || op->kind == NB_OP_qdepthwise ||
            op->kind == NB_OP_patches)
            return true;
    }
    return false;
}

bool nb_is_gated(const nb_value *x) {
    if (x->def && x->def->kind == NB_OP_hadamard) x = nb_in(x->def, 0);
    if (x->def && x->def->kind == NB_OP_sub && nb_is_const(nb_in(x->def, 1))) x = nb_in(x->def, 0);
    return x->def && x->def->kind == NB_OP_mul && nb_in(x->def, 0)->def && nb_in(x->def, 1)->def;
}
