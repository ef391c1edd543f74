/* Loop and Scan: their graph becomes the body of a loop.
 *
 * A Loop of a few steps that carries a sequence, or a tensor whose shape changes, is its steps in
 * place. What a Loop stacks has as many entries as there are steps, which is counted where shapes
 * and constants do not tell; there must be a trip count then, as a bound. */
#include "frontend/import.h"

/* Steps that are imported one by one. */
#define MOST_UNROLLED 256

typedef struct loop {
    nb_importer *im;
    const Onnx__GraphProto *graph;
    nb_body body;
    size_t first; /* of the graph's inputs that are carried */
    size_t carried, sliced, stacked;
    nb_value **from;     /* first values of what is carried, then what is sliced */
    int64_t *reverse;    /* of sliced and stacked ones */
    const nb_dim *count; /* NULL: no bound */
    nb_value *limit;     /* NULL: none */
    nb_value *cond;      /* what a step says of the next; NULL: there is one */
    nb_value **returned; /* carried, stacked */
} loop;

static const char *input_name(const loop *l, size_t i) {
    const char *name = l->graph->input[i]->name;
    return name ? name : "";
}

static nb_value *truth(nb_importer *im) {
    return nb_cast(&im->b, nb_scalar(im, NB_I64, 1), NB_BOOL);
}

/* 0, 1, or -1 when data decides. */
static int known_truth(nb_importer *im, const nb_value *v) {
    size_t n = 0;
    const nb_dim *const *dims = nb_symbolic(im->g, v, &n);
    if (!dims || n != 1) dims = nb_fold(im, v, &n);
    return dims && n == 1 && nb_dim_is_const(dims[0]) ? dims[0]->value != 0 : -1;
}

static nb_value *scalar_of(nb_importer *im, nb_value *v, nb_elem elem, const char *what) {
    int64_t count;
    if (v && v->type->elem == elem && nb_type_static_count(v->type, &count) && count == 1)
        return v->type->rank ? nb_reshape(&im->b, v, 0, NULL) : v;
    if (v)
        nb_node_error(im, NB_MALFORMED, "%s is %s, expected one %s", what,
                      nb_type_text(im->arena, v->type), nb_elems[elem].text);
    return NULL;
}

/* ---- the body ------------------------------------------------------------------------------ */

/* The body's parameters: the step, what is carried, slices. `conditions`: outputs in front. */
static nb_status import_body(loop *l, size_t conditions) {
    nb_importer *im = l->im;
    const size_t n = l->carried + l->stacked;
    nb_body_begin(im, &l->body, false);
    nb_value *step = nb_body_param(im, &l->body, conditions ? input_name(l, 0) : NULL,
                                   nb_type_intern(im->g, NB_I64, NULL, 0, NULL));
    if (conditions) nb_scope_define(im, input_name(l, 1), truth(im)); /* or there is no step */
    for (size_t i = 0; i < l->carried + l->sliced; i++) {
        const nb_type *t = l->from[i]->type;
        if (i >= l->carried) t = nb_type_intern(im->g, t->elem, NULL, t->rank - 1, t->dims + 1);
        nb_body_param(im, &l->body, input_name(l, l->first + i), t);
    }
    nb_status status = step ? nb_import_nodes(im, l->graph) : NB_MALFORMED;
    l->returned = (nb_value **)nb_alloc_array(im->arena, n + 1, sizeof *l->returned);
    for (size_t i = 0; i < n + conditions && status == NB_OK; i++) {
        nb_value *v = nb_graph_output(im, l->graph, i);
        if (v && i < conditions) v = scalar_of(im, v, NB_BOOL, "the condition");
        if (!v) status = nb_diags_status(im->diags);
        if (i >= conditions) l->returned[i - conditions] = v;
        if (i < conditions && v && known_truth(im, v) != 1) l->cond = v;
    }
    return status;
}

/* The first carried value that is not the same kind of tensor in all steps; l->carried: none. */
static size_t changing(const loop *l) {
    for (size_t i = 0; i < l->carried; i++) {
        const nb_type *a = l->body.region->params[NB_LOOP_PARAMS + i]->type,
                      *b = l->returned[i]->type;
        bool fits = a->elem == b->elem && a->rank == b->rank;
        for (int d = 0; fits && d < a->rank; d++)
            fits = a->dims[d] == b->dims[d] || nb_may_be_one(l->im, a->dims[d], b->dims[d]);
        if (!fits) return i;
    }
    return l->carried;
}

static nb_status same_types(loop *l) {
    nb_importer *im = l->im;
    const size_t at = changing(l);
    if (at < l->carried)
        return nb_node_error(
            im, NB_UNSUPPORTED, "what it carries on as \"%s\" is %s in one step and %s in the next",
            input_name(l, l->first + at),
            nb_type_text(im->arena, l->body.region->params[NB_LOOP_PARAMS + at]->type),
            nb_type_text(im->arena, l->returned[at]->type));
    for (size_t i = 0; i < l->carried; i++) {
        const nb_value *param = l->body.region->params[NB_LOOP_PARAMS + i];
        for (int d = 0; d < param->type->rank; d++)
            NB_TRY(nb_unify(im, param->type->dims[d], l->returned[i]->type->dims[d]));
    }
    for (size_t i = l->carried; i < l->carried + l->stacked; i++) {
        const nb_type *t = l->returned[i]->type;
        if (nb_counted_inside(l->body.region, t))
            return nb_node_error(im, NB_UNSUPPORTED,
                                 "output %zu stacks %s, a size that data tell in each step", i,
                                 nb_type_text(im->arena, t));
    }
    return NB_OK;
}

/* `first_cond`: whether there is a first step; NULL: there is. */
static nb_op *finish(loop *l, nb_value *first_cond) {
    nb_importer *im = l->im;
    const size_t n = l->carried + l->stacked;
    nb_value **values = (nb_value **)nb_alloc_array(im->arena, n + 2, sizeof *values);
    size_t at = 0;
    if (l->cond || first_cond) values[at++] = l->cond ? l->cond : truth(im);
    for (size_t i = 0; i < n; i++) values[at++] = l->returned[i];
    nb_region_return(l->body.region, at, values, im->b.loc);
    nb_body_end(im, &l->body);
    if (!first_cond && l->cond) first_cond = truth(im);

    nb_begin(&im->b, NB_OP_loop);
    nb_arg(&im->b, l->limit);
    nb_arg(&im->b, first_cond);
    for (size_t i = 0; i < l->carried + l->sliced; i++) nb_arg(&im->b, l->from[i]);
    for (size_t i = 0; i < l->body.taken.count; i++) nb_arg(&im->b, l->body.taken.items[i]);
    if (l->count) nb_set_dims(&im->b, "count", 1, &l->count);
    nb_set_int(&im->b, "carried", (int64_t)l->carried);
    nb_set_int(&im->b, "sliced", (int64_t)l->sliced);
    bool any = false;
    for (size_t i = 0; i < l->sliced + l->stacked; i++) any = any || l->reverse[i];
    if (any) nb_set_ints(&im->b, "reverse", l->sliced + l->stacked, l->reverse);
    nb_set_region(&im->b, l->body.region);
    const nb_value *v = nb_end(&im->b);
    return v ? v->def : NULL;
}

static nb_status abandon(loop *l, nb_status status) {
    nb_body_end(l->im, &l->body);
    nb_region_discard(l->body.region);
    return status;
}

static nb_status read_graph(loop *l, size_t inputs, size_t outputs) {
    nb_importer *im = l->im;
    l->graph = nb_node_attr(im, "body")->g; /* required by the table */
    if (l->graph->n_input != inputs)
        return nb_node_error(im, NB_MALFORMED, "its graph has %zu inputs, expected %zu",
                             l->graph->n_input, inputs);
    if (l->graph->n_output < outputs)
        return nb_node_error(im, NB_MALFORMED, "its graph has %zu outputs, expected %zu",
                             l->graph->n_output, outputs);
    l->stacked = l->graph->n_output - outputs;
    l->from = (nb_value **)nb_alloc_array(im->arena, inputs + 1, sizeof *l->from);
    l->reverse = NB_NEW_ARRAY(im->arena, int64_t, inputs + l->graph->n_output + 1);
    if (im->node->n_output <= l->carried + l->stacked) return NB_OK;
    return nb_node_error(im, NB_MALFORMED, "%zu outputs, its graph gives %zu", im->node->n_output,
                         l->carried + l->stacked);
}

/* ---- Loop ---------------------------------------------------------------------------------- */

/* The trip count: an expression, a limit at run time, or none. */
static nb_status read_trips(loop *l) {
    nb_importer *im = l->im;
    if (!nb_has_input(im, 0)) return NB_OK;
    nb_value *trips = nb_node_input(im, 0);
    size_t n = 0;
    const nb_dim *const *dims = trips ? nb_symbolic(im->g, trips, &n) : NULL;
    if (trips && !dims) dims = nb_fold(im, trips, &n);
    const int64_t endless = INT64_C(1) << 40; /* exporters write the largest number for no limit */
    if (dims && n == 1 && nb_dim_is_const(dims[0]) && dims[0]->value >= endless) return NB_OK;
    if (dims && n == 1) {
        l->count = nb_dim_max(im->g, nb_num(im, 0), dims[0]);
        return NB_OK;
    }
    l->limit = scalar_of(im, trips, NB_I64, "the trip count");
    if (!l->limit || l->stacked == 0) return l->limit ? NB_OK : NB_MALFORMED;
    nb_value *steps = nb_combine(im, NB_OP_max, l->limit, nb_scalar(im, NB_I64, 0));
    l->limit = NULL;
    l->count = nb_count(im, im->node->input[0], steps, NULL);
    return l->count ? NB_OK : NB_MALFORMED;
}

/* What is stacked is as long as there were steps: of a stack of ones, those behind are 0. */
static nb_status cut_stacks(loop *l, const nb_op *op) {
    nb_importer *im = l->im;
    nb_value *ones = op->results[op->n_results - 1];
    const nb_dim *n = nb_count(im, nb_format(im->arena, "%s.steps", nb_loc_name(im->b.loc)),
                               nb_reduce(im, NB_OP_reduce_sum, ones, 0, NULL, false), l->count);
    for (size_t i = 0; n && i < im->node->n_output; i++) {
        nb_value *v = op->results[i];
        if (i >= l->carried) v = nb_slice_axis(im, v, 0, nb_num(im, 0), n, 1);
        NB_TRY(nb_node_output(im, i, v));
    }
    return n ? NB_OK : nb_diags_status(im->diags);
}

/* A step in place: what is carried and stacked goes to l->from and l->returned. */
static nb_status import_step(loop *l, int64_t step, bool *more) {
    nb_importer *im = l->im;
    nb_scope scope = {.values = {.arena = im->arena}, .outer = im->scope};
    const size_t n = l->carried + l->stacked;
    im->scope = &scope;
    nb_scope_define(im, input_name(l, 0), nb_const_i64(im->g, "step", 0, NULL, &step));
    nb_scope_define(im, input_name(l, 1), truth(im));
    for (size_t i = 0; i < l->carried; i++)
        nb_scope_define(im, input_name(l, l->first + i), l->from[i]);
    nb_status status = nb_import_nodes(im, l->graph);
    nb_value *cond = status == NB_OK ? nb_graph_output(im, l->graph, 0) : NULL;
    if (cond) cond = scalar_of(im, cond, NB_BOOL, "the condition");
    for (size_t i = 0; cond && i < n; i++) {
        l->returned[i] = nb_graph_output(im, l->graph, i + 1);
        if (!l->returned[i]) cond = NULL;
    }
    im->scope = scope.outer;
    if (!cond) return nb_diags_status(im->diags);
    const int known = known_truth(im, cond);
    if (known < 0)
        return nb_node_error(im, NB_UNSUPPORTED,
                             "its steps are imported one by one, and which is the last depends on "
                             "data");
    *more = known == 1;
    return NB_OK;
}

/* All steps in place, for what changes its shape or is a sequence: as many as there are known. */
static nb_status unroll(loop *l) {
    nb_importer *im = l->im;
    if (!l->count || !nb_dim_is_const(l->count) || l->count->value > MOST_UNROLLED)
        return nb_node_error(im, NB_UNSUPPORTED,
                             "it carries a sequence, or a tensor that changes its shape, in more "
                             "than %d steps or a number of steps that is not a constant",
                             MOST_UNROLLED);
    const size_t n = l->carried + l->stacked;
    nb_value **stacks = (nb_value **)nb_alloc_array(im->arena, n + 1, sizeof *stacks);
    l->returned = (nb_value **)nb_alloc_array(im->arena, n + 1, sizeof *l->returned);
    bool more = true;
    for (int64_t step = 0; more && step < l->count->value; step++) {
        NB_TRY(import_step(l, step, &more));
        for (size_t i = 0; i < l->carried; i++) l->from[i] = l->returned[i];
        for (size_t i = l->carried; i < n; i++) {
            const nb_type *t = l->returned[i]->type;
            const nb_dim *dims[NB_MAX_RANK + 1] = {nb_num(im, 1)};
            for (int d = 0; d < t->rank; d++) dims[d + 1] = t->dims[d];
            if (t->rank == NB_MAX_RANK)
                return nb_node_error(im, NB_LIMIT, "output %zu has rank %d", i, t->rank + 1);
            nb_value *entry = nb_reshape(&im->b, l->returned[i], t->rank + 1, dims);
            stacks[i] = stacks[i] ? nb_join(im, stacks[i], entry, 0) : entry;
            if (!stacks[i]) return nb_diags_status(im->diags);
        }
    }
    for (size_t i = 0; i < im->node->n_output; i++) {
        nb_value *v = i < l->carried ? l->from[i] : stacks[i];
        if (!v) return nb_node_error(im, NB_UNSUPPORTED, "output %zu stacks no step", i);
        NB_TRY(nb_node_output(im, i, v));
    }
    return NB_OK;
}

nb_status nb_import_loop(nb_importer *im) {
    loop l = {.im = im, .first = 2};
    bool lists = false;
    l.carried = im->node->n_input > 2 ? im->node->n_input - 2 : 0;
    NB_TRY(read_graph(&l, l.carried + 2, l.carried + 1));
    NB_TRY(read_trips(&l));
    nb_value *first = NULL;
    if (nb_has_input(im, 1)) {
        first = scalar_of(im, nb_node_input(im, 1), NB_BOOL, "the condition");
        if (!first) return NB_MALFORMED;
        const int known = known_truth(im, first);
        if (known >= 0) first = NULL;
        if (known == 0) l.count = nb_num(im, 0);
    }
    for (size_t i = 0; i < l.carried; i++) {
        if (!nb_has_input(im, i + 2))
            return nb_node_error(im, NB_MALFORMED, "input %zu is missing", i + 2);
        l.from[i] = nb_scope_find(im, im->node->input[i + 2]);
        lists = lists || nb_sequence_of(im, l.from[i]);
    }
    if (lists && !first) return unroll(&l);
    for (size_t i = 0; i < l.carried; i++)
        if (!nb_node_input(im, i + 2)) return NB_MALFORMED;
    nb_status status = import_body(&l, 1);
    if (status == NB_OK && changing(&l) < l.carried && !first && !l.cond && l.count &&
        nb_dim_is_const(l.count) && l.count->value <= MOST_UNROLLED) {
        (void)!abandon(&l, status);
        return unroll(&l);
    }
    if (status == NB_OK) status = same_types(&l);
    if (status == NB_OK && l.stacked && !l.count) {
        status = nb_node_error(im, NB_UNSUPPORTED,
                               "output %zu has as many entries as there are "
                               "steps, of which there is no end",
                               l.carried);
        nb_help(im->diags, "a trip count gives the output a size");
    }
    if (status != NB_OK) return abandon(&l, status);
    const bool ends = l.stacked && (l.cond || first);
    if (ends) l.returned[l.carried + l.stacked++] = nb_scalar(im, NB_I64, 1);
    const nb_op *op = finish(&l, first);
    if (!op) return nb_diags_status(im->diags);
    if (ends) return cut_stacks(&l, op);
    for (size_t i = 0; i < im->node->n_output; i++) NB_TRY(nb_node_output(im, i, op->results[i]));
    return NB_OK;
}

/* ---- Scan ---------------------------------------------------------------------------------- */

/* Entry i of a list of the node's, 0 when there is none. */
static nb_status entry(nb_importer *im, const char *name, size_t i, size_t expected,
                       int64_t *value) {
    size_t n;
    const int64_t *list = nb_node_ints(im, name, &n);
    *value = list && i < n ? list[i] : 0;
    if (!list || n == expected) return NB_OK;
    return nb_node_error(im, NB_MALFORMED, "%s has %zu entries, expected %zu", name, n, expected);
}

/* An axis is moved to the front, or from there. */
static nb_value *move_axis(nb_importer *im, nb_value *v, int64_t axis, bool back) {
    int64_t perm[NB_MAX_RANK];
    const int rank = v->type->rank;
    for (int d = 0, k = back ? 1 : 0; d < rank; d++) {
        if (back)
            perm[d] = d == axis ? 0 : k++;
        else
            perm[d] = d == 0 ? axis : d - 1 < axis ? d - 1 : d;
    }
    return axis ? nb_transpose(&im->b, v, perm) : v;
}

static nb_status read_directions(loop *l, const char *inputs, const char *outputs) {
    for (size_t i = 0; i < l->sliced; i++)
        NB_TRY(entry(l->im, inputs, i, l->sliced, &l->reverse[i]));
    for (size_t i = 0; outputs && i < l->stacked; i++)
        NB_TRY(entry(l->im, outputs, i, l->stacked, &l->reverse[l->sliced + i]));
    return NB_OK;
}

/* All scanned inputs have as many entries along axis 0. */
static nb_status count_steps(loop *l) {
    for (size_t i = 0; i < l->sliced; i++) {
        const nb_value *v = l->from[l->carried + i];
        if (i) NB_TRY(nb_unify(l->im, l->from[l->carried]->type->dims[0], v->type->dims[0]));
    }
    l->count = l->from[l->carried]->type->dims[0];
    return NB_OK;
}

static nb_status start_scan(loop *l, size_t inputs) {
    nb_importer *im = l->im;
    const int64_t scanned = nb_node_int(im, "num_scan_inputs", 0);
    if (scanned < 1 || (size_t)scanned > inputs)
        return nb_node_error(im, NB_MALFORMED, "it scans %lld of %zu inputs", (long long)scanned,
                             inputs);
    l->sliced = (size_t)scanned;
    l->carried = inputs - l->sliced;
    return read_graph(l, inputs, l->carried);
}

static nb_status import_scan(nb_importer *im) {
    loop l = {.im = im};
    NB_TRY(start_scan(&l, im->node->n_input));
    NB_TRY(read_directions(&l, "scan_input_directions", "scan_output_directions"));
    for (size_t i = 0; i < im->node->n_input; i++) {
        nb_value *v = nb_node_input(im, i);
        if (!v) return NB_MALFORMED;
        if (i >= l.carried) {
            int64_t axis;
            NB_TRY(entry(im, "scan_input_axes", i - l.carried, l.sliced, &axis));
            NB_TRY(nb_axis(im, axis, v->type->rank, &axis));
            v = move_axis(im, v, axis, false);
        }
        l.from[i] = v;
    }
    NB_TRY(count_steps(&l));
    nb_status status = import_body(&l, 0);
    if (status == NB_OK) status = same_types(&l);
    if (status != NB_OK) return abandon(&l, status);
    l.count = l.from[l.carried]->type->dims[0]; /* the body may have said more of it */
    const nb_op *op = finish(&l, NULL);
    if (!op) return nb_diags_status(im->diags);
    for (size_t i = 0; i < im->node->n_output; i++) {
        nb_value *v = op->results[i];
        int64_t axis = 0;
        if (i >= l.carried) {
            NB_TRY(entry(im, "scan_output_axes", i - l.carried, l.stacked, &axis));
            NB_TRY(nb_axis(im, axis, v->type->rank, &axis));
            v = move_axis(im, v, axis, true);
        }
        NB_TRY(nb_node_output(im, i, v));
    }
    return NB_OK;
}

/* Of version 8: every input and output is a batch, and rows may be shorter. A loop over the rows
 * has one over the steps in it. */
static nb_status import_scan_rows(nb_importer *im) {
    if (im->node->n_input < 2) return nb_node_error(im, NB_MALFORMED, "it scans nothing");
    const size_t inputs = im->node->n_input - 1; /* the first says how long the rows are */
    loop rows = {.im = im}, l = {.im = im};
    NB_TRY(start_scan(&l, inputs));
    NB_TRY(read_directions(&l, "directions", NULL));
    rows.graph = l.graph;
    const bool lengths = nb_has_input(im, 0);
    rows.sliced = inputs + lengths;
    rows.stacked = l.carried + l.stacked;
    rows.reverse = NB_NEW_ARRAY(im->arena, int64_t, rows.sliced + rows.stacked + 1);
    rows.from = (nb_value **)nb_alloc_array(im->arena, rows.sliced + 1, sizeof *rows.from);
    for (size_t i = 0; i < rows.sliced; i++) {
        rows.from[i] = nb_node_input(im, i < inputs ? i + 1 : 0);
        if (!rows.from[i]) return NB_MALFORMED;
        const int least = i < inputs && i >= l.carried ? 2 : 1;
        if (rows.from[i]->type->rank < least)
            return nb_node_error(im, NB_MALFORMED, "input %zu has rank %d, expected %d or more", i,
                                 rows.from[i]->type->rank, least);
    }
    NB_TRY(count_steps(&rows));
    nb_body_begin(im, &rows.body, false);
    nb_body_param(im, &rows.body, NULL, nb_type_intern(im->g, NB_I64, NULL, 0, NULL));
    for (size_t i = 0; i < rows.sliced; i++) {
        const nb_type *t = rows.from[i]->type;
        nb_value *row = nb_body_param(
            im, &rows.body, NULL, nb_type_intern(im->g, t->elem, NULL, t->rank - 1, t->dims + 1));
        if (i < inputs)
            l.from[i] = row;
        else
            l.limit = scalar_of(im, row, NB_I64, "a length");
    }
    nb_status status = lengths && !l.limit ? NB_MALFORMED : count_steps(&l);
    if (status == NB_OK) {
        status = import_body(&l, 0);
        if (status == NB_OK) status = same_types(&l);
        if (status != NB_OK) (void)!abandon(&l, status);
    }
    if (status != NB_OK) return abandon(&rows, status);
    l.count = l.from[l.carried]->type->dims[0];
    const nb_op *op = finish(&l, NULL);
    if (!op) return abandon(&rows, nb_diags_status(im->diags));
    rows.returned = op->results;
    rows.count = rows.from[0]->type->dims[0];
    op = finish(&rows, NULL);
    if (!op) return nb_diags_status(im->diags);
    for (size_t i = 0; i < im->node->n_output; i++) NB_TRY(nb_node_output(im, i, op->results[i]));
    return NB_OK;
}

nb_status nb_import_scan(nb_importer *im) {
    return im->opset == 8 ? import_scan_rows(im) : import_scan(im);
}
