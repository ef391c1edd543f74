/* Linear layers and selectors (linear.h). */
#include "passes/linear.h"

#include <string.h>

nb_value *nb_linear_weight(const nb_op *op) {
    if (op->kind != NB_OP_matmul && op->kind != NB_OP_qmatmul) return NULL;
    nb_value *b = nb_in(op, 1);
    if (b->def && b->def->kind == NB_OP_dequantize) b = nb_in(b->def, 0);
    return nb_is_const(b) && b->type->rank == 2 ? b : NULL;
}

bool nb_linear_is_head(const nb_op *op) {
    const nb_value *v = nb_out(op);
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

/* Wildcards with one backtracking point: the last '*'. `end` is where this alternative ends. */
static bool match_one(const char *p, const char *end, const char *s) {
    const char *star = NULL, *resume = NULL;
    while (*s) {
        if (p < end && (*p == '?' || *p == *s) && *p != '*') {
            p++;
            s++;
        } else if (p < end && *p == '*') {
            star = ++p;
            resume = s;
        } else if (star) {
            p = star;
            s = ++resume;
        } else {
            return false;
        }
    }
    while (p < end && *p == '*') p++;
    return p == end;
}

bool nb_match_name(const char *pattern, const char *name) {
    while (*pattern) {
        const char *end = strchr(pattern, '|');
        if (!end) end = pattern + strlen(pattern);
        if (end > pattern && match_one(pattern, end, name)) return true;
        pattern = *end ? end + 1 : end;
    }
    return false;
}

bool nb_skip_op(nb_pass_ctx *ctx, nb_skip *skip, const nb_op *op) {
    const char *name = nb_loc_name(op->loc);
    nb_vec_push(nb_state_of(ctx)->scratch, &skip->seen, name);
    bool hit = nb_match_name(skip->pattern, name);
    skip->matched += hit;
    return hit;
}

bool nb_skip_end(nb_pass_ctx *ctx, const nb_skip *skip) {
    if (!*skip->pattern || skip->matched) return true;
    ctx->host->report(ctx, NB_LEVEL_ERROR, NULL, "skip=\"%s\" matches none of the %zu layers",
                      skip->pattern, skip->seen.count);
    const char *names = "";
    nb_arena *scratch = nb_state_of(ctx)->scratch;
    for (size_t i = 0; i < skip->seen.count && i < 4; i++)
        names = nb_format(scratch, "%s%s\"%s\"", names, i ? ", " : "", skip->seen.items[i]);
    ctx->host->help(ctx, "layers are named like %s", names);
    return false;
}
