/* call: a function that a plug-in exports computes the result.
 *
 * Only functions named nb_call_* are called, so that a graph from a file reaches nothing but what
 * was loaded for it; their operands were checked by the plug-in's shape rule before any pass ran.
 */
#include "ir/eval_private.h"

#include <dlfcn.h>
#include <string.h>

/* As nb_call_fn in passes/nb_pass.h. */
typedef void (*call_fn)(const void *const *operands, void *result, const int64_t *dims,
                        const int64_t *numbers, int64_t begin, int64_t end);

static int64_t count_rows(const nb_tensor *t) {
    int64_t rows = 1;
    for (int d = 0; d + 1 < t->rank; d++) rows *= t->dims[d];
    return rows;
}

/* The function of a call; NULL after an error. */
static void *function_of(const nb_op *op, nb_diags *diags) {
    const char *name = nb_attr_of(op, "function")->str;
    void *symbol = dlsym(RTLD_DEFAULT, nb_format(diags->arena, "nb_call_%s", name));
    if (symbol) return symbol;
    nb_error(diags, NB_MALFORMED, (nb_where){.offset = -1, .node = nb_loc_name(op->loc)},
             "call: no plug-in has brought operation '%s'", name);
    nb_help(diags, "give the plug-in with --load");
    return NULL;
}

nb_status nb_eval_can_call(const nb_graph *g, nb_diags *diags) {
    for (const nb_op *op = g->body.first; op; op = op->next)
        if (op->kind == NB_OP_call && !function_of(op, diags)) return NB_MALFORMED;
    return NB_OK;
}

nb_status nb_eval_call(const nb_evaluating *e) {
    const uint32_t n = e->op->n_operands;
    void *symbol = function_of(e->op, e->diags);
    if (!symbol) return NB_MALFORMED;
    const void **operands =
        (const void **)nb_alloc_array(e->arena, (size_t)n + 1, sizeof *operands);
    int64_t *dims = NB_NEW_ARRAY(e->arena, int64_t, ((size_t)n + 1) * NB_MAX_RANK), *at = dims;
    for (uint32_t i = 0; i <= n; i++) {
        const nb_tensor *t = i < n ? &e->in[i] : &e->out[0];
        if (i < n) operands[i] = t->data;
        memcpy(at, t->dims, (size_t)t->rank * sizeof *at);
        at += t->rank;
    }
    call_fn function;
    memcpy(&function, &symbol, sizeof function);
    if (nb_tensor_count(&e->out[0]))
        function(operands, e->out[0].data, dims, nb_attr_of(e->op, "numbers")->ints.items, 0,
                 count_rows(&e->out[0]));
    return NB_OK;
}
