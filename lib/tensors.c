/* Arrays of callers as tensors, results, and the reference evaluator (nibble.h). */
#include "lib/private.h"

#include <stdlib.h>
#include <string.h>

static nb_status take(const nb_array *a, size_t i, bool optional, nb_diags *diags, nb_tensor *out) {
    static const char nothing[8];
    *out = (nb_tensor){0};
    if (optional && !a->data && !a->rank && !a->elem) return NB_OK;
    out->elem = nb_elem_from_number(a->elem);
    out->rank = a->rank;
    if (out->elem == NB_ELEM_COUNT)
        return nb_error(diags, NB_USAGE, NB_NOWHERE, "array %zu: %d is no element type", i,
                        a->elem);
    if (a->rank < 0 || a->rank > NB_MAX_RANK)
        return nb_error(diags, NB_USAGE, NB_NOWHERE, "array %zu has rank %d", i, a->rank);
    int64_t count = 1;
    for (int d = 0; d < a->rank; d++) {
        out->dims[d] = a->dims[d];
        if (a->dims[d] < 0 || !nb_mul_i64(count, a->dims[d], &count))
            return nb_error(diags, NB_USAGE, NB_NOWHERE, "array %zu: axis %d has %lld entries", i,
                            d, (long long)a->dims[d]);
    }
    if (!nb_elem_bytes_of(out->elem, count, &out->bytes))
        return nb_error(diags, NB_USAGE, NB_NOWHERE, "array %zu is too large", i);
    if (count && !a->data) return nb_error(diags, NB_USAGE, NB_NOWHERE, "array %zu has no data", i);
    /* Nobody writes to inputs; that they are given is told by their having data. */
    out->data = (void *)(uintptr_t)(a->data ? a->data : nothing);
    return NB_OK;
}

nb_status nbl_tensors(const nb_array *arrays, size_t n, size_t want, bool optional, nb_arena *arena,
                      nb_diags *diags, nb_tensor **out) {
    *out = NB_NEW_ARRAY(arena, nb_tensor, want + 1);
    if (n != want)
        return nb_error(diags, NB_USAGE, NB_NOWHERE, "expected %zu inputs, found %zu", want, n);
    if (n) NB_TRY(nbl_given(arrays, "inputs", diags));
    for (size_t i = 0; i < n; i++) NB_TRY(take(&arrays[i], i, optional, diags, &(*out)[i]));
    return NB_OK;
}

nb_status nbl_check_inputs(const nb_graph *g, const nb_tensor *inputs, nb_arena *arena,
                           nb_diags *diags) {
    int64_t *symbols = NB_NEW_ARRAY(arena, int64_t, g->symbols.count + 1);
    return nb_eval_bind(g, inputs, symbols, diags);
}

/* ---- results -------------------------------------------------------------------------------- */

size_t nibble_result_count(const nibble_result *result) { return result ? result->count : 0; }

int nibble_result_get(const nibble_result *result, size_t i, nb_array *out) {
    if (!out || i >= nibble_result_count(result)) return 0;
    const nb_tensor *t = &result->tensors[i];
    *out = (nb_array){.elem = nb_elems[t->elem].number, .rank = t->rank, .data = t->data};
    memcpy(out->dims, t->dims, sizeof out->dims);
    return 1;
}

void nibble_result_free(nibble_result *result) {
    if (!result) return;
    nb_arena_destroy(result->arena);
    free(result);
}

nb_status nbl_result(size_t count, nb_diags *diags, nibble_result **out) {
    nb_arena *arena = nb_arena_create(nbl_out_of_memory, NULL);
    nb_tensor *tensors = NB_NEW_ARRAY(arena, nb_tensor, count + 1);
    *out = calloc(1, sizeof **out);
    if (*out) {
        **out = (nibble_result){arena, tensors, count};
        return NB_OK;
    }
    nb_arena_destroy(arena);
    return nb_error(diags, NB_LIMIT, NB_NOWHERE, "out of memory");
}

/* ---- the reference evaluator ---------------------------------------------------------------- */

typedef struct evaluation {
    nibble_graph *graph;
    const nb_array *inputs;
    size_t n;
    nibble_result **out;
} evaluation;

static nb_status evaluate(void *job, nb_diags *diags) {
    evaluation *e = job;
    nb_tensor *inputs;
    nibble_result *result;
    NB_TRY(nbl_given(e->graph, "graph", diags));
    const nb_graph *g = e->graph->graph;
    NB_TRY(nb_eval_can_call(g, diags));
    NB_TRY(nbl_result(g->outputs.count, diags, &result));
    nb_status status =
        nbl_tensors(e->inputs, e->n, g->body.n_params, false, result->arena, diags, &inputs);
    if (status == NB_OK) status = nbl_check_inputs(g, inputs, result->arena, diags);
    if (status == NB_OK)
        status = nb_eval(g, inputs, result->tensors, NULL, 0, result->arena, diags);
    if (status == NB_OK)
        *e->out = result;
    else
        nibble_result_free(result);
    return status;
}

nibble_status nibble_evaluate(nibble_graph *graph, const nb_array *inputs, size_t n_inputs,
                              nibble_diags *diags, nibble_result **out) {
    evaluation e = {graph, inputs, n_inputs, out};
    *out = NULL;
    return nbl_guard(evaluate, &e, diags);
}
