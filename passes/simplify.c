/* simplify: the graph says the same with fewer ops.
 *
 *   requires   nothing
 *   maintains  every bit of every output; a value that is folded to a constant keeps its name
 *
 * In rounds until nothing changes: run-time shape arithmetic becomes `dims` of expressions, ops on
 * constants become constants, equal ops merge, no-ops and inverse pairs go, dead code goes. Bodies
 * of ops are simplified with the rest (simplify_bodies.c).
 *
 *   %s: i64[4] = dims {values=[B,S,4,64]}                %y: f32[B,S,256] = reshape %x
 * {shape=[B,S,256]} %t: f32[B,4,S,64] = transpose %x {perm=[0,2,1,3]}  -> %u: f32[B,S,4,64] =
 * transpose %t {perm=[0,2,1,3]} */
#include "passes/simplify.h"
#include "ir/symbolic.h"
#include "passes/rewrite.h"

#include <string.h>

/* Folding may not make the model grow by more than this for one value. */
#define FOLD_LIMIT (INT64_C(1) << 20)

/* ---- no-ops and inverse pairs -------------------------------------------------------------- */

static const char *same_type(const nb_match *m) {
    return nb_out(m->root)->type == nb_got(m, "x")->type ? NULL : "the type changes";
}

static nb_value *to_x(nb_match *m, nb_builder *b) {
    (void)b;
    return nb_got(m, "x");
}

static nb_value *reshape_of_x(nb_match *m, nb_builder *b) {
    const nb_attr *shape = nb_attr_of(m->root, "shape");
    return nb_reshape(b, nb_got(m, "x"), (int)shape->dims.count, shape->dims.items);
}

static nb_value *merge_transposes(nb_match *m, nb_builder *b) {
    const nb_attr *outer = nb_attr_of(m->root, "perm"),
                  *inner = nb_attr_of(nb_got_op(m, "t"), "perm");
    int64_t perm[NB_MAX_RANK];
    for (size_t i = 0; i < outer->ints.count; i++)
        perm[i] = inner->ints.items[outer->ints.items[i]];
    return nb_transpose(b, nb_got(m, "x"), perm);
}

static const char *is_identity_perm(const nb_match *m) {
    const nb_attr *perm = nb_attr_of(m->root, "perm");
    for (size_t i = 0; i < perm->ints.count; i++) {
        if (perm->ints.items[i] != (int64_t)i) return "it moves an axis";
    }
    return NULL;
}

/* A transpose that only moves axes of length 1 keeps the order of the elements. */
static const char *moves_only_ones(const nb_match *m) {
    const nb_attr *perm = nb_attr_of(m->root, "perm");
    const nb_type *x = nb_got(m, "x")->type;
    int64_t last = -1;
    for (size_t i = 0; i < perm->ints.count; i++) {
        int64_t p = perm->ints.items[i];
        if (nb_dim_is(x->dims[p], 1)) continue;
        if (p < last) return "it moves an axis longer than 1";
        last = p;
    }
    return NULL;
}

static nb_value *transpose_to_reshape(nb_match *m, nb_builder *b) {
    const nb_type *y = nb_out(m->root)->type;
    return nb_reshape(b, nb_got(m, "x"), y->rank, y->dims);
}

static const char *takes_everything(const nb_match *m) {
    const nb_attr *step = nb_attr_of(m->root, "step"), *start = nb_attr_of(m->root, "start");
    for (size_t i = 0; i < step->ints.count; i++) {
        if (step->ints.items[i] != 1 || !nb_dim_is(start->dims.items[i], 0))
            return "it does not start at 0 by 1";
    }
    return same_type(m);
}

/* cast(cast(x)) where the middle type holds every value of x's. */
static const char *middle_is_wider(const nb_match *m) {
    const nb_elem_info *from = &nb_elems[nb_got(m, "x")->type->elem],
                       *middle = &nb_elems[nb_got(m, "c")->type->elem];
    bool same_class =
        from->class_ == middle->class_ && middle->bits >= from->bits && from->bits >= 8;
    bool small_float =
        from->class_ == NB_CLASS_FLOAT && from->bits >= 16 && middle->bits > from->bits;
    if (from->class_ == NB_CLASS_FLOAT)
        return small_float && middle->class_ == NB_CLASS_FLOAT ? NULL
                                                               : "the middle type loses values";
    return same_class ? NULL : "the middle type loses values";
}

static nb_value *cast_x(nb_match *m, nb_builder *b) {
    nb_begin(b, NB_OP_cast);
    nb_arg(b, nb_got(m, "x"));
    nb_set_elem(b, "to", nb_out(m->root)->type->elem);
    if (nb_attr_bool(m->root, "overflow")) nb_set_bool(b, "overflow", true);
    return nb_end(b);
}

static const char *one_operand(const nb_match *m) {
    return m->root->n_operands == 1 ? NULL : "it joins several";
}

static const nb_rule rules[] = {
    {"reshape-same", "reshape(x) of x's own shape  ->  x", PAT_OP("reshape", "", PAT_ANY("x")),
     .where = same_type, .to = to_x},
    {"reshape-reshape", "reshape(reshape(x))  ->  reshape(x)",
     PAT_OP("reshape", "", PAT_OP("reshape", "", PAT_ANY("x"))), .to = reshape_of_x},
    {"transpose-transpose", "transpose(transpose(x, p), q)  ->  transpose(x, p[q])",
     PAT_OP("transpose", "", PAT_OP("transpose", "t", PAT_ANY("x"))), .to = merge_transposes},
    {"transpose-same", "transpose(x, identity)  ->  x", PAT_OP("transpose", "", PAT_ANY("x")),
     .where = is_identity_perm, .to = to_x},
    {"transpose-ones", "transpose(x) of axes of length 1  ->  reshape(x)",
     PAT_OP("transpose", "", PAT_ANY("x")), .where = moves_only_ones, .to = transpose_to_reshape},
    {"expand-same", "expand(x) to x's own shape  ->  x", PAT_OP("expand", "", PAT_ANY("x")),
     .where = same_type, .to = to_x},
    {"cast-same", "cast(x) to x's own type  ->  x", PAT_OP("cast", "", PAT_ANY("x")),
     .where = same_type, .to = to_x},
    {"cast-cast", "cast(cast(x))  ->  cast(x), the middle type being wider",
     PAT_OP("cast", "", PAT_OP("cast", "c", PAT_ANY("x"))), .where = middle_is_wider, .to = cast_x},
    {"slice-all", "slice(x) of everything  ->  x", PAT_OP("slice", "", PAT_ANY("x")),
     .where = takes_everything, .to = to_x},
    {"concat-one", "concat(x)  ->  x", PAT_OP("concat", "", PAT_ANY("x")), .where = one_operand,
     .to = to_x},
    {"mul-one", "x * 1  ->  x", PAT_OP("mul", "", PAT_ANY("x"), PAT_NUMBER(1)), .where = same_type,
     .to = to_x},
    {"div-one", "x / 1  ->  x", PAT_OP("div", "", PAT_ANY("x"), PAT_NUMBER(1)), .where = same_type,
     .to = to_x},
    {"pow-one", "x ^ 1  ->  x", PAT_OP("pow", "", PAT_ANY("x"), PAT_NUMBER(1)), .where = same_type,
     .to = to_x},
    {"not-not", "not(not(x))  ->  x", PAT_OP("not", "", PAT_OP("not", "", PAT_ANY("x"))),
     .to = to_x},
};

/* ---- shape arithmetic ---------------------------------------------------------------------- */

/* An integer value that is expressions of dimensions becomes one `dims`, or a constant. */
static bool symbolic_to_dims(nb_pass_ctx *ctx, nb_op *op) {
    nb_value *v = nb_out(op);
    size_t n;
    if (op->kind == NB_OP_dims || op->kind == NB_OP_iota || v->type->elem != NB_I64 ||
        v->type->rank > 1 || !v->uses)
        return false;
    const nb_dim *const *dims = nb_symbolic(ctx->graph, v, &n);
    if (!dims || n == 0) return false;
    nb_builder b = nb_pass_builder(ctx, op, op->loc);
    nb_begin(&b, NB_OP_dims);
    nb_set_dims(&b, "values", n, dims);
    nb_set_bool(&b, "scalar", v->type->rank == 0);
    nb_value *to = nb_end(&b);
    if (!to) return false;
    nb_replace_uses(v, to);
    return true;
}

/* ---- folding ------------------------------------------------------------------------------- */

static bool all_constant(const nb_op *op) {
    for (uint32_t i = 0; i < op->n_operands; i++) {
        if (nb_in(op, i) && !nb_is_const(nb_in(op, i))) return false;
    }
    const nb_op_info *info = nb_info(op);
    for (int a = 0; a < NB_MAX_ATTRS && info->attrs[a].kind != NB_ATTR_END; a++) {
        if (info->attrs[a].kind != NB_ATTR_DIMS) continue;
        for (size_t i = 0; i < op->attrs[a].dims.count; i++) {
            if (!nb_dim_is_const(op->attrs[a].dims.items[i])) return false;
        }
    }
    return true;
}

static bool multiplies_codes(const nb_op *depthwise) {
    const nb_op *x = nb_in(depthwise, 0)->def;
    return x && x->kind == NB_OP_dequantize;
}

/* Is it what fuse-dequant looks for: codes that something multiplies, or looks rows up in? */
static bool is_for_fusion(const nb_op *op) {
    for (const nb_use *u = nb_out(op)->uses; u; u = u->next) {
        const nb_op_kind kind = u->user->kind;
        if (kind == NB_OP_matmul || kind == NB_OP_gather) return true;
        if (kind == NB_OP_depthwise && multiplies_codes(u->user)) return true;
    }
    return op->kind != NB_OP_dequantize;
}

/* Is the constant result worth its bytes? */
static bool worth_folding(const nb_op *op, int64_t *bytes) {
    int64_t count, in = 0;
    const nb_type *t = nb_out(op)->type;
    if (!nb_has_trait(op, NB_TRAIT_PURE) || t->quant || !nb_type_static_count(t, &count) ||
        !nb_elem_bytes_of(t->elem, count, bytes))
        return false;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        if (nb_in(op, i) && nb_in(op, i)->type->quant && is_for_fusion(op)) return false;
        if (nb_in(op, i)) in += nb_in(op, i)->blob->size;
    }
    return *bytes <= in + FOLD_LIMIT;
}

/* 1 folded, 0 not, -1 error. */
static int fold(nb_pass_ctx *ctx, nb_op *op) {
    int64_t bytes;
    /* A loop on constants may not end. */
    if (op->n_results != 1 || op->n_regions || !nb_out(op)->uses || !all_constant(op) ||
        !worth_folding(op, &bytes))
        return 0;
    nb_graph *g = ctx->graph;
    nb_arena *arena = nb_arena_create_like(nb_state_of(ctx)->scratch);
    nb_tensor *in = NB_NEW_ARRAY(arena, nb_tensor, (size_t)op->n_operands + 1), out;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        if (nb_in(op, i)) in[i] = nb_tensor_of_const(nb_in(op, i));
    }
    void *data;
    nb_blob *blob = NULL;
    if (nb_eval_op(op, in, NULL, &out, arena, nb_diags_of(ctx)) == NB_OK &&
        (blob = nb_blob_create(bytes, &data))) {
        if (bytes) memcpy(data, out.data, (size_t)bytes);
        nb_value *v = nb_graph_add_const(g, nb_out(op)->name, nb_out(op)->type, blob,
                                         nb_loc_via(g, op->loc, "simplify"));
        nb_replace_uses(nb_out(op), v);
    }
    nb_arena_destroy(arena);
    return blob ? 1 : -1;
}

/* ---- common subexpressions ----------------------------------------------------------------- */

static uint64_t hash_attr(const nb_attr *a, nb_attr_kind kind) {
    switch (kind) {
    case NB_ATTR_INTS:
        return nb_hash(a->ints.items, a->ints.count * sizeof *a->ints.items);
    case NB_ATTR_DIMS:
        return nb_hash(a->dims.items, a->dims.count * sizeof(void *));
    case NB_ATTR_STR:
        return nb_hash(a->str, strlen(a->str));
    default:
        return nb_hash(&a->i, kind == NB_ATTR_FLOAT  ? sizeof a->f
                              : kind == NB_ATTR_BOOL ? sizeof a->b
                              : kind == NB_ATTR_ELEM ? sizeof a->elem
                                                     : sizeof a->i);
    }
}

static bool same_attr(const nb_attr *a, const nb_attr *b, nb_attr_kind kind) {
    if (a->set != b->set) return false;
    if (!a->set) return true;
    switch (kind) {
    case NB_ATTR_INT:
        return a->i == b->i;
    case NB_ATTR_FLOAT:
        return memcmp(&a->f, &b->f, sizeof a->f) == 0;
    case NB_ATTR_BOOL:
        return a->b == b->b;
    case NB_ATTR_ELEM:
        return a->elem == b->elem;
    case NB_ATTR_QUANT:
        return a->quant == b->quant;
    case NB_ATTR_STR:
        return strcmp(a->str, b->str) == 0;
    case NB_ATTR_INTS:
        return a->ints.count == b->ints.count &&
               memcmp(a->ints.items, b->ints.items, a->ints.count * sizeof *a->ints.items) == 0;
    case NB_ATTR_DIMS:
        return a->dims.count == b->dims.count &&
               memcmp(a->dims.items, b->dims.items, a->dims.count * sizeof(void *)) == 0;
    case NB_ATTR_END:
        break;
    }
    return true;
}

static uint64_t hash_op(const nb_op *op) {
    uint64_t h = (uint64_t)op->kind + 1;
    for (uint32_t i = 0; i < op->n_operands; i++)
        h = nb_hash_mix(h, nb_in(op, i) ? (uint64_t)nb_in(op, i)->id + 1 : 0);
    const nb_op_info *info = nb_info(op);
    for (int a = 0; a < NB_MAX_ATTRS && info->attrs[a].kind != NB_ATTR_END; a++) {
        if (op->attrs[a].set) h = nb_hash_mix(h, hash_attr(&op->attrs[a], info->attrs[a].kind));
    }
    return h;
}

static bool same_op(const nb_op *a, const nb_op *b) {
    if (a->kind != b->kind || a->n_operands != b->n_operands) return false;
    for (uint32_t i = 0; i < a->n_operands; i++) {
        if (nb_in(a, i) != nb_in(b, i)) return false;
    }
    const nb_op_info *info = nb_info(a);
    for (int i = 0; i < NB_MAX_ATTRS && info->attrs[i].kind != NB_ATTR_END; i++) {
        if (!same_attr(&a->attrs[i], &b->attrs[i], info->attrs[i].kind)) return false;
    }
    return true;
}

/* Small constants with equal type and bytes merge too, so that ops on them can. */
static bool merge_constants(nb_graph *g, nb_arena *arena) {
    bool changed = false;
    nb_map seen = {.arena = arena};
    for (size_t i = 0; i < g->constants.count; i++) {
        nb_value *c = g->constants.items[i];
        if (!c->uses || c->type->quant || c->blob->size > 4096) continue;
        uint64_t key[2] = {c->type->id, nb_blob_hash(c->blob)};
        nb_value *first = nb_map_get_str(&seen, (const char *)key, sizeof key);
        if (!first) {
            nb_map_set_str(&seen, (const char *)key, sizeof key, c);
        } else if (memcmp(first->blob->data, c->blob->data, (size_t)c->blob->size) == 0) {
            nb_replace_uses(c, first);
            changed = true;
        }
    }
    return changed;
}

static bool merge_ops(nb_graph *g, const nb_region *region, nb_arena *arena) {
    bool changed = false;
    nb_map seen = {.arena = arena};
    NB_FOR_OPS(op, region) {
        for (uint32_t r = 0; r < op->n_regions; r++)
            if (merge_ops(g, op->regions[r], arena)) changed = true;
        if (op->n_regions) continue; /* equal operands do not make equal bodies */
        if (op->n_results != 1 || !nb_has_trait(op, NB_TRAIT_PURE)) continue;
        uint64_t key = hash_op(op);
        nb_op *first = nb_map_get_str(&seen, (const char *)&key, sizeof key);
        if (!first) {
            nb_map_set_str(&seen, (const char *)&key, sizeof key, op);
        } else if (same_op(first, op) && nb_out(op)->uses) {
            first->loc = nb_loc_merge(g, first->loc, op->loc);
            nb_replace_uses(nb_out(op), nb_out(first));
            changed = true;
        }
    }
    return changed;
}

/* ---- the pass ------------------------------------------------------------------------------ */

static bool simplify_region(nb_pass_ctx *ctx, const nb_region *region, bool *again) {
    NB_FOR_OPS(op, region) {
        if (op->n_regions) {
            if (nb_simplify_bodies(ctx, op)) *again = true;
            for (uint32_t r = 0; r < op->n_regions; r++)
                if (!simplify_region(ctx, op->regions[r], again)) return false;
            continue;
        }
        if (op->n_results != 1) continue;
        if (symbolic_to_dims(ctx, op)) {
            *again = true;
            continue;
        }
        int folded = fold(ctx, op);
        if (folded < 0) return false;
        *again = *again || folded;
    }
    return true;
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    nb_graph *g = ctx->graph;
    bool changed = nb_graph_sweep(g) > 0;
    for (bool again = true; again;) {
        again = false;
        if (!simplify_region(ctx, &g->body, &again)) return NB_PASS_FAILED;
        if (!nb_rewrite_run(ctx, rules, NB_COUNT(rules), &again)) return NB_PASS_FAILED;
        nb_arena *arena = nb_arena_create_like(nb_state_of(ctx)->scratch);
        if (merge_constants(g, arena)) again = true;
        if (merge_ops(g, &g->body, arena)) again = true;
        if (nb_simplify_counts(ctx)) again = true;
        nb_arena_destroy(arena);
        nb_graph_sweep(g);
        changed = changed || again;
    }
    return nb_pass_end(ctx, changed);
}

const nb_pass nb_pass_simplify = {
    .size = sizeof(nb_pass),
    .name = "simplify",
    .run = run,
    .promises = NB_PASS_KEEPS_BITS,
    .summary = "fold constants and shape arithmetic, merge equal ops, drop no-ops and dead code",
};
