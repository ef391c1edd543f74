/* Small integer tensors computed from constants alone, by running the evaluator on what leads to
 * them.
 *
 * Shape arithmetic goes through expressions (ir/symbolic.h); this is for what that does not follow:
 * detours over floats, and tables of pads that are reshaped and transposed. */
#include "frontend/import.h"

#include "ir/eval.h"

/* Real chains have a dozen ops. */
#define MOST_OPS      128
#define MOST_ELEMENTS 4096

typedef struct folding {
    nb_importer *im;
    nb_map tensors; /* nb_value* -> nb_tensor* */
    const nb_op *stack[MOST_OPS];
    size_t depth, ops;
} folding;

static bool is_small(const nb_value *v) {
    int64_t count;
    return !v->type->quant && nb_type_static_count(v->type, &count) && count <= MOST_ELEMENTS;
}

/* No attribute depends on the run. */
static bool is_fixed(const nb_op *op) {
    const nb_op_info *info = nb_info(op);
    if (!nb_has_trait(op, NB_TRAIT_PURE) || op->n_results != 1 || op->n_regions) return false;
    for (int a = 0; a < NB_MAX_ATTRS && info->attrs[a].kind != NB_ATTR_END; a++) {
        if (info->attrs[a].kind != NB_ATTR_DIMS) continue;
        for (size_t i = 0; i < op->attrs[a].dims.count; i++) {
            if (!nb_dim_is_const(op->attrs[a].dims.items[i])) return false;
        }
    }
    return is_small(nb_out(op));
}

static bool push(folding *f, const nb_op *op) {
    if (!op || f->depth == MOST_OPS || f->ops == MOST_OPS || !is_fixed(op)) return false;
    f->stack[f->depth++] = op;
    f->ops++;
    return true;
}

/* The operand's tensor, or NULL when its op has to run first. */
static const nb_tensor *operand(folding *f, const nb_value *v) {
    nb_tensor *t = nb_map_get(&f->tensors, v);
    if (t || !nb_is_const(v)) return t;
    t = NB_NEW(f->im->arena, nb_tensor);
    *t = nb_tensor_of_const(v);
    nb_map_set(&f->tensors, v, t);
    return t;
}

static bool run(folding *f, const nb_op *op) {
    nb_arena *arena = f->im->arena;
    nb_tensor *in = NB_NEW_ARRAY(arena, nb_tensor, (size_t)op->n_operands + 1);
    for (uint32_t i = 0; i < op->n_operands; i++) {
        if (nb_in(op, i)) in[i] = *operand(f, nb_in(op, i));
    }
    int64_t *symbols = NB_NEW_ARRAY(arena, int64_t, f->im->g->symbols.count + 1);
    nb_tensor *out = NB_NEW(arena, nb_tensor);
    /* An error here is not the model's: the value is left to be called data-dependent. */
    nb_diags *quiet = nb_diags_create(arena, NULL);
    if (nb_eval_op(op, in, symbols, out, arena, quiet) != NB_OK) return false;
    nb_map_set(&f->tensors, nb_out(op), out);
    return true;
}

const nb_dim *const *nb_fold(nb_importer *im, const nb_value *v, size_t *count) {
    if (!(nb_elem_is_integer(v->type->elem) || v->type->elem == NB_BOOL) || !is_small(v))
        return NULL;
    folding f = {.im = im, .tensors = {.arena = im->arena}};
    if (!nb_is_const(v) && !push(&f, v->def)) return NULL;
    while (f.depth) {
        const nb_op *op = f.stack[f.depth - 1];
        const nb_value *missing = NULL;
        for (uint32_t i = 0; i < op->n_operands && !missing; i++) {
            const nb_value *x = nb_in(op, i);
            if (x && (!is_small(x) || !operand(&f, x))) missing = x;
        }
        if (missing) {
            if (!is_small(missing) || !push(&f, missing->def)) return NULL;
            continue;
        }
        if (!run(&f, op)) return NULL;
        f.depth--;
    }
    const nb_tensor *t = operand(&f, v);
    *count = (size_t)nb_tensor_count(t);
    const nb_dim **dims = (const nb_dim **)nb_alloc_array(im->arena, *count + 1, sizeof *dims);
    for (size_t i = 0; i < *count; i++) dims[i] = nb_num(im, nb_tensor_get_int(t, (int64_t)i));
    return dims;
}
