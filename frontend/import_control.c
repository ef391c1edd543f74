/* If: both branches become bodies, or the one that is known to run is imported in place.
 *
 * Exporters write `squeeze if the axis is 1` as an If whose branches have different ranks. No value
 * has two ranks: where the condition asks whether a size is a number, the model is then compiled
 * for sizes where it is, and runs with others are refused. */
#include "frontend/import.h"

static const Onnx__GraphProto *graph_of(nb_importer *im, const char *name) {
    return nb_node_attr(im, name)->g; /* required by the table */
}

/* The condition, when shapes and constants alone give it: 0 or 1; -1 when data does. */
static int known_condition(nb_importer *im, const nb_value *cond) {
    size_t n = 0;
    const nb_dim *const *dims = nb_symbolic(im->g, cond, &n);
    if (!dims || n != 1) dims = nb_fold(im, cond, &n);
    return dims && n == 1 && nb_dim_is_const(dims[0]) ? dims[0]->value != 0 : -1;
}

/* ---- in place ------------------------------------------------------------------------------ */

static nb_status import_in_place(nb_importer *im, const Onnx__GraphProto *graph) {
    nb_scope scope = {.values = {.arena = im->arena}, .outer = im->scope};
    im->scope = &scope;
    nb_status status = nb_import_nodes(im, graph);
    const size_t n = im->node->n_output;
    nb_value **values = (nb_value **)nb_alloc_array(im->arena, n + 1, sizeof *values);
    for (size_t i = 0; i < n && status == NB_OK; i++) {
        values[i] = nb_graph_output(im, graph, i);
        if (!values[i]) status = nb_diags_status(im->diags);
    }
    im->scope = scope.outer;
    for (size_t i = 0; i < n && status == NB_OK; i++) status = nb_node_output(im, i, values[i]);
    return status;
}

/* ---- as bodies ----------------------------------------------------------------------------- */

/* A branch: its body, and what it returns as it is outside. */
typedef struct branch {
    nb_body body;
    const nb_type **types;
    nb_value **shapes; /* dims of them, which follow what is said of symbols later; NULL: rank 0 */
} branch;

static nb_status import_branch(nb_importer *im, const Onnx__GraphProto *graph, branch *b) {
    const size_t n = im->node->n_output;
    nb_body_begin(im, &b->body, true);
    nb_status status = nb_import_nodes(im, graph);
    nb_value **values = (nb_value **)nb_alloc_array(im->arena, n + 1, sizeof *values);
    for (size_t i = 0; i < n && status == NB_OK; i++) {
        values[i] = nb_graph_output(im, graph, i);
        if (!values[i]) status = nb_diags_status(im->diags);
    }
    if (status == NB_OK) nb_region_return(b->body.region, n, values, im->b.loc);
    nb_body_end(im, &b->body);
    b->types = (const nb_type **)nb_alloc_array(im->arena, n + 1, sizeof *b->types);
    for (size_t i = 0; i < n && status == NB_OK; i++)
        b->types[i] = nb_body_outside(im, &b->body, values[i]->type);
    b->shapes = (nb_value **)nb_alloc_array(im->arena, n + 1, sizeof *b->shapes);
    for (size_t i = 0; i < n && status == NB_OK; i++)
        if (b->types[i]->rank)
            b->shapes[i] = nb_make_dims(im, (size_t)b->types[i]->rank, b->types[i]->dims, false);
    nb_body_settle(im, &b->body);
    return status;
}

/* One number with as many axes as the other branch gives it. */
static nb_status widen(nb_importer *im, branch *b, size_t i, const nb_type *like) {
    nb_region *region = b->body.region;
    nb_op *ret = region->last;
    nb_builder inside = im->b;
    inside.region = region;
    inside.before = ret;
    nb_value *y = nb_reshape(&inside, nb_in(ret, i), like->rank, like->dims);
    if (!y) return nb_diags_status(im->diags);
    nb_set_operand(&ret->operands[i], y);
    b->types[i] = like;
    b->shapes[i] = nb_make_dims(im, (size_t)like->rank, like->dims, false);
    return NB_OK;
}

static bool is_one_number(const nb_type *t) {
    int64_t count;
    return nb_type_static_count(t, &count) && count == 1;
}

/* Where one branch gives a number and the other a vector of one, it is a vector: what takes it
 * broadcasts. */
static nb_status widen_numbers(nb_importer *im, branch *a, branch *b, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const nb_type *t = a->types[i], *u = b->types[i];
        if (t->elem != u->elem || t->rank == u->rank || !is_one_number(t) || !is_one_number(u))
            continue;
        NB_TRY(t->rank < u->rank ? widen(im, a, i, u) : widen(im, b, i, t));
    }
    return NB_OK;
}

static bool same_kinds(const branch *a, const branch *b, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (a->types[i]->elem != b->types[i]->elem || a->types[i]->rank != b->types[i]->rank)
            return false;
    return true;
}

static const nb_dim *size_of(const branch *b, size_t result, int axis) {
    return nb_attr_of(b->shapes[result]->def, "values")->dims.items[axis];
}

/* Is y the sum of `x`, a symbol, and others, as P+S is of S? They are equal where the others are 0.
 */
static bool is_part_of(nb_importer *im, const nb_dim *x, const nb_dim *y) {
    if (x->kind != NB_DIM_SYMBOL || nb_may_be_one(im, x, y)) return false;
    const nb_dim *rest = nb_dim_sub(im->g, y, x);
    return !nb_dim_is_const(rest) &&
           nb_dim_substitute(im->g, rest, x->symbol, nb_num(im, 0)) == rest;
}

/* Can nothing that a run may have make them equal? */
static bool differ(nb_importer *im, const nb_dim *x, const nb_dim *y) {
    return nb_dim_is_const(x) || nb_dim_is_const(y) || !nb_may_be_one(im, x, y);
}

/* The size of a result whose branches differ: the condition says which, in each run. */
static const nb_dim *chosen_size(nb_importer *im, nb_value *cond, size_t result, int axis,
                                 const nb_dim *x, const nb_dim *y) {
    const char *name = im->node->output[result];
    nb_value *size =
        nb_choose(im, cond, nb_make_dims(im, 1, &x, true), nb_make_dims(im, 1, &y, true));
    return nb_count(im, nb_format(im->arena, "%s.%d", *name ? name : "size", axis), size,
                    nb_dim_max(im->g, x, y));
}

/* Sizes that the branches give for the same result are equal. Where one is made of the other, as of
 * a decoder with a cache beside one without, it is the result's: a run that comes to the other
 * branch is refused when they differ then. Where they cannot be equal, as of the empty tensors that
 * Optimum's decoders give for an encoder's keys when they have them, the condition tells. */
static nb_status unify_results(nb_importer *im, nb_value *cond, branch *a, branch *b, size_t n) {
    for (size_t i = 0; i < n; i++) {
        for (int d = 0; d < a->types[i]->rank; d++) {
            const nb_dim *x = size_of(a, i, d), *y = size_of(b, i, d);
            if (x == y || is_part_of(im, x, y) || is_part_of(im, y, x)) continue;
            if (!differ(im, x, y)) NB_TRY(nb_unify(im, x, y));
        }
    }
    for (size_t i = 0; i < n; i++) {
        const nb_type *t = a->types[i];
        if (!t->rank) continue;
        const nb_dim *dims[NB_MAX_RANK];
        for (int d = 0; d < t->rank; d++) {
            const nb_dim *x = size_of(a, i, d), *y = size_of(b, i, d);
            dims[d] = is_part_of(im, x, y) ? y : x;
            if (x == y || dims[d] == y || is_part_of(im, y, x)) continue;
            dims[d] = chosen_size(im, cond, i, d, x, y);
            if (!dims[d]) return nb_diags_status(im->diags);
        }
        a->types[i] = nb_type_intern(im->g, t->elem, NULL, t->rank, dims);
    }
    return NB_OK;
}

/* Gives `to` a parameter for all that `from` took too, and both the same order. */
static void share(nb_importer *im, branch *to, const branch *from) {
    for (size_t i = 0; i < from->body.taken.count; i++) {
        nb_value *v = from->body.taken.items[i];
        bool there = false;
        for (size_t k = 0; k < to->body.taken.count; k++)
            there = there || to->body.taken.items[k] == v;
        if (there) continue;
        nb_vec_push(im->arena, &to->body.taken, v);
        nb_region_add(to->body.region, v->name, v->type);
    }
}

static void order_as(nb_importer *im, branch *to, const branch *from) {
    nb_region *region = to->body.region;
    nb_value **params =
        (nb_value **)nb_alloc_array(im->g->arena, region->n_params + 1U, sizeof *params);
    for (size_t i = 0; i < from->body.taken.count; i++) {
        size_t at = 0;
        while (to->body.taken.items[at] != from->body.taken.items[i]) at++;
        params[i] = region->params[at];
    }
    region->params = params;
    for (uint32_t i = 0; i < region->n_params; i++) params[i]->index = i;
    to->body.taken = from->body.taken;
}

static nb_status make_if(nb_importer *im, nb_value *cond, branch *a, branch *b) {
    const size_t n = im->node->n_output;
    share(im, a, b);
    share(im, b, a);
    order_as(im, b, a);
    bool written = false;
    NB_VEC(const nb_dim *) shapes = {0};
    for (size_t i = 0; i < n; i++) {
        const nb_type *t = a->types[i];
        if (nb_counted_inside(a->body.region, t) || nb_counted_inside(b->body.region, t)) {
            (void)!nb_node_error(im, NB_UNSUPPORTED,
                                 "output %zu is %s, a size that data tell in a branch", i,
                                 nb_type_text(im->arena, t));
            nb_help(im->diags,
                    "where an input decides, --pin NAME=NUMBER chooses a branch; or count "
                    "in front of the If");
            return NB_UNSUPPORTED;
        }
        written = written || t != nb_in(a->body.region->last, i)->type ||
                  t != nb_in(b->body.region->last, i)->type;
        for (int d = 0; d < t->rank; d++) nb_vec_push(im->arena, &shapes, t->dims[d]);
    }
    nb_begin(&im->b, NB_OP_if);
    nb_arg(&im->b, cond);
    for (size_t i = 0; i < a->body.taken.count; i++) nb_arg(&im->b, a->body.taken.items[i]);
    if (written) nb_set_dims(&im->b, "shapes", shapes.count, shapes.items);
    nb_set_region(&im->b, a->body.region);
    nb_set_region(&im->b, b->body.region);
    const nb_value *first = nb_end(&im->b);
    if (!first) return nb_diags_status(im->diags);
    const nb_op *op = first->def;
    for (size_t i = 0; i < n; i++) NB_TRY(nb_node_output(im, i, op->results[i]));
    return NB_OK;
}

/* ---- the operator -------------------------------------------------------------------------- */

/* Does the condition ask whether a size is a number? */
static bool asks_for_size(nb_importer *im, const nb_value *cond, const nb_dim **size,
                          const nb_dim **number) {
    const nb_op *op = cond->def;
    while (op && (op->kind == NB_OP_cast || op->kind == NB_OP_reshape)) op = nb_in(op, 0)->def;
    if (!op || op->kind != NB_OP_eq) return false;
    const nb_dim *sides[2];
    for (size_t i = 0; i < 2; i++) {
        size_t n = 0;
        const nb_dim *const *dims = nb_symbolic(im->g, nb_in(op, i), &n);
        if (!dims || n != 1) return false;
        sides[i] = dims[0];
    }
    const bool swapped = nb_dim_is_const(sides[0]);
    *size = sides[swapped];
    *number = sides[!swapped];
    return nb_dim_is_const(*number);
}

nb_status nb_import_if(nb_importer *im) {
    nb_value *cond = nb_node_input(im, 0);
    if (!cond) return NB_MALFORMED;
    int64_t count;
    if (cond->type->elem != NB_BOOL || !nb_type_static_count(cond->type, &count) || count != 1)
        return nb_node_error(im, NB_MALFORMED, "the condition is %s, expected one bool",
                             nb_type_text(im->arena, cond->type));
    const Onnx__GraphProto *graphs[] = {graph_of(im, "then_branch"), graph_of(im, "else_branch")};
    for (size_t i = 0; i < 2; i++)
        if (graphs[i]->n_output != im->node->n_output || graphs[i]->n_input)
            return nb_node_error(im, NB_MALFORMED,
                                 "a branch has %zu inputs and %zu outputs, "
                                 "expected 0 and %zu",
                                 graphs[i]->n_input, graphs[i]->n_output, im->node->n_output);
    const int known = known_condition(im, cond);
    if (known >= 0) return import_in_place(im, graphs[!known]);

    branch then, other;
    NB_TRY(import_branch(im, graphs[0], &then));
    NB_TRY(import_branch(im, graphs[1], &other));
    NB_TRY(widen_numbers(im, &then, &other, im->node->n_output));
    if (!same_kinds(&then, &other, im->node->n_output)) {
        const nb_dim *size, *number;
        nb_region_discard(then.body.region);
        nb_region_discard(other.body.region);
        if (!asks_for_size(im, cond, &size, &number))
            return nb_node_error(im, NB_UNSUPPORTED,
                                 "its branches give values of different ranks "
                                 "or types, and which one runs depends on data");
        NB_TRY(nb_unify(im, size, number));
        return import_in_place(im, graphs[0]);
    }
    cond = cond->type->rank ? nb_reshape(&im->b, cond, 0, NULL) : cond;
    NB_TRY(unify_results(im, cond, &then, &other, im->node->n_output));
    return make_if(im, cond, &then, &other);
}
