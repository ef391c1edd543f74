/* The helpers of test_ir.h. */
#include "tests/unit/test_ir.h"

#include <string.h>

void ir_open(ir_graph *t) {
    t->arena = nb_arena_create(NULL, NULL);
    t->graph = nb_graph_create("test", NULL, NULL);
    t->diags = nb_diags_create(t->arena, "test");
    t->b = (nb_builder){.graph = t->graph, .diags = t->diags};
    nb_graph_symbol(t->graph, "B", false);
    nb_graph_symbol(t->graph, "S", false);
    nb_graph_symbol(t->graph, "P", true);
}

void ir_close(ir_graph *t) {
    nb_graph_destroy(t->graph);
    nb_arena_destroy(t->arena);
}

const nb_dim *ir_dim(ir_graph *t, const char *text) {
    const nb_dim *d = nb_parse_dim(t->graph, text, strlen(text), t->diags);
    ck_assert_msg(d != NULL, "%s: %s", text, ir_message(t));
    return d;
}

/* Splits at commas outside brackets. */
static int split(ir_graph *t, const char *text, const nb_dim **dims) {
    int n = 0;
    while (*text) {
        size_t length = 0;
        for (int nest = 0; text[length] && (nest || text[length] != ','); length++)
            nest += (text[length] == '(') - (text[length] == ')');
        dims[n++] = ir_dim(t, nb_strndup(t->arena, text, length));
        text += length + (text[length] == ',');
    }
    return n;
}

const nb_type *ir_shape(ir_graph *t, nb_elem elem, const char *dims) {
    const nb_dim *list[NB_MAX_RANK];
    int rank = split(t, dims, list);
    return nb_type_intern(t->graph, elem, NULL, rank, list);
}

nb_value *ir_input(ir_graph *t, const char *name, nb_elem elem, const char *dims) {
    return nb_graph_add_input(t->graph, name, ir_shape(t, elem, dims));
}

nb_value *ir_const(ir_graph *t, const char *name, const nb_type *type) {
    int64_t count, bytes;
    void *data;
    ck_assert(nb_type_static_count(type, &count) && nb_elem_bytes_of(type->elem, count, &bytes));
    nb_blob *blob = nb_blob_create(bytes, &data);
    memset(data, 0, (size_t)bytes);
    return nb_graph_add_const(t->graph, name, type, blob, NULL);
}

nb_value *ir_ints(ir_graph *t, size_t n, const int64_t *values) {
    int64_t length = (int64_t)n;
    return nb_const_i64(t->graph, "c", 1, &length, values);
}

const nb_quant *ir_quant(ir_graph *t, nb_quant q) {
    const nb_quant *known = nb_quant_intern(t->graph, &q, "q", t->diags);
    ck_assert_msg(known != NULL, "%s", ir_message(t));
    return known;
}

const char *ir_type(ir_graph *t, const nb_value *v) {
    return v ? nb_type_text(t->arena, v->type) : "none";
}
const char *ir_text(ir_graph *t, const nb_dim *d) { return nb_dim_text(t->arena, d); }

const char *ir_message(const ir_graph *t) { return t->diags->last ? t->diags->last->message : ""; }

void ir_begin(ir_graph *t, nb_op_kind kind, nb_value *a, nb_value *b, nb_value *c, nb_value *d) {
    nb_value *given[] = {a, b, c, d};
    size_t n = NB_COUNT(given);
    while (n && !given[n - 1]) n--;
    nb_begin(&t->b, kind);
    for (size_t i = 0; i < n; i++) nb_arg(&t->b, given[i]);
}

void ir_set_dims(ir_graph *t, const char *name, const char *dims) {
    const nb_dim *list[16];
    int n = split(t, dims, list);
    nb_set_dims(&t->b, name, (size_t)n, list);
}

nb_value *ir_expect(ir_graph *t, const char *type) {
    nb_value *v = nb_end(&t->b);
    ck_assert_msg(v != NULL, "expected %s: %s", type, ir_message(t));
    ck_assert_str_eq(ir_type(t, v), type);
    return v;
}

void ir_expect_error(ir_graph *t, const char *text) {
    const nb_op *last = t->graph->body.last;
    size_t errors = t->diags->errors;
    ck_assert_msg(nb_end(&t->b) == NULL, "expected an error: %s", text);
    ck_assert_uint_eq(t->diags->errors, errors + 1);
    ck_assert_msg(strstr(ir_message(t), text) != NULL, "expected '%s', found '%s'", text,
                  ir_message(t));
    ck_assert_ptr_eq(t->graph->body.last, last);
    for (uint32_t i = 0; i < t->graph->body.n_params; i++) {
        for (const nb_use *u = t->graph->body.params[i]->uses; u; u = u->next)
            ck_assert_ptr_ne(u->user, t->b.op);
    }
}

void ir_outputs(ir_graph *t, size_t n, nb_value *const *values) {
    const char **names = (const char **)nb_alloc_array(t->arena, n + 1, sizeof *names);
    for (size_t i = 0; i < n; i++) names[i] = nb_format(t->arena, "out%zu", i);
    nb_graph_set_outputs(t->graph, n, values, names);
}
