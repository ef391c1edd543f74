/* Small graphs for the evaluator's tests (test_eval_graph.h). */
#include "tests/unit/test_eval_graph.h"

#include "ir/eval_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void eval_open(eval_graph *t) {
    *t = (eval_graph){.arena = nb_arena_create(NULL, NULL)};
    t->graph = nb_graph_create("test", NULL, NULL);
    t->diags = nb_diags_create(t->arena, "test");
    t->b = (nb_builder){
        .graph = t->graph, .diags = t->diags, .loc = nb_loc_at(t->graph, "/under/test")};
}

void eval_close(eval_graph *t) {
    nb_graph_destroy(t->graph);
    nb_arena_destroy(t->arena);
}

static nb_value *constant(eval_graph *t, nb_elem elem, const nb_quant *quant, eval_dims dims,
                          nb_tensor *view) {
    const nb_dim *d[NB_MAX_RANK];
    *view = (nb_tensor){.elem = elem, .rank = dims.rank};
    for (int i = 0; i < dims.rank; i++) {
        d[i] = nb_dim_const(t->graph, dims.dims[i]);
        view->dims[i] = dims.dims[i];
    }
    ck_assert(nb_elem_bytes_of(elem, nb_tensor_count(view), &view->bytes));
    nb_blob *blob = nb_blob_create(view->bytes, &view->data);
    memset(view->data, 0, (size_t)view->bytes);
    return nb_graph_add_const(t->graph, "c", nb_type_intern(t->graph, elem, quant, dims.rank, d),
                              blob, NULL);
}

nb_value *eval_value(eval_graph *t, nb_elem elem, const nb_quant *quant, eval_dims dims, size_t n,
                     const double *values) {
    nb_tensor view;
    nb_value *v = constant(t, elem, quant, dims, &view);
    ck_assert_int_eq(nb_tensor_count(&view), (int64_t)n);
    for (size_t i = 0; i < n; i++) {
        if (nb_elem_is_float(elem))
            nb_tensor_set_float(&view, (int64_t)i, values[i]);
        else
            nb_tensor_set_int(&view, (int64_t)i, (int64_t)values[i]);
    }
    return v;
}

nb_value *eval_random(eval_graph *t, uint64_t seed, eval_dims dims) {
    nb_tensor view;
    nb_value *v = constant(t, NB_F32, NULL, dims, &view);
    for (int64_t i = 0; i < nb_tensor_count(&view); i++) {
        seed = nb_hash_mix(seed, (uint64_t)i + 1);
        ((float *)view.data)[i] = (float)((int32_t)(seed >> 40) - (1 << 23)) / 8388608.0f;
    }
    return v;
}

const nb_quant *eval_quant(eval_graph *t, nb_quant q) {
    const nb_quant *known = nb_quant_intern(t->graph, &q, "q", t->diags);
    ck_assert_msg(known != NULL, "%s", eval_messages(t));
    return known;
}

const char *eval_messages(eval_graph *t) {
    const char *text = "";
    for (size_t i = 0; i < t->diags->list.count; i++)
        text = nb_format(t->arena, "%s%s", text, nb_diag_render(t->arena, t->diags->list.items[i]));
    return text;
}

static nb_status try_run(eval_graph *t, nb_value *v, nb_tensor *out) {
    const char *name = "y";
    ck_assert_msg(v != NULL, "%s", eval_messages(t));
    nb_graph_set_outputs(t->graph, 1, &v, &name);
    return nb_eval(t->graph, NULL, out, NULL, 0, t->arena, t->diags);
}

nb_tensor eval_run(eval_graph *t, nb_value *v) {
    nb_tensor out;
    ck_assert_msg(try_run(t, v, &out) == NB_OK, "%s", eval_messages(t));
    return out;
}

static bool equal(double got, double want) {
    if (isnan(want)) return isnan(got);
    return got == want && signbit(got) == signbit(want);
}

void eval_expect(eval_graph *t, nb_value *v, const char *want) {
    nb_tensor y = eval_run(t, v);
    const char *at = want;
    int64_t n = nb_tensor_count(&y);
    for (int64_t i = 0; i < n; i++) {
        char *end;
        double w = strtod(at, &end), got = nb_tensor_get(&y, i);
        ck_assert_msg(end != at, "%lld numbers, found %lld in \"%s\"", (long long)n, (long long)i,
                      want);
        ck_assert_msg(equal(got, y.elem == NB_F32 ? (double)(float)w : w),
                      "element %lld is %.9g, not %.9g", (long long)i, got, w);
        at = end;
    }
    ck_assert_msg(at[strspn(at, " ")] == 0, "more than %lld numbers in \"%s\"", (long long)n, want);
}

void eval_expect_error(eval_graph *t, nb_value *v, const char *text) {
    nb_tensor out;
    ck_assert_int_eq(try_run(t, v, &out), NB_MALFORMED);
    ck_assert_msg(strstr(eval_messages(t), text) != NULL, "found: %s", eval_messages(t));
}

bool eval_same(const nb_tensor *a, int64_t ia, const nb_tensor *b, int64_t ib, int64_t n) {
    size_t size = (size_t)nb_elems[a->elem].bits / 8;
    return a->elem == b->elem &&
           memcmp((const char *)a->data + (size_t)ia * size,
                  (const char *)b->data + (size_t)ib * size, (size_t)n * size) == 0;
}
