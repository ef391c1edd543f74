/* FlexAttention of ai.onnx.preview: attention whose scores and probabilities go through graphs of
 * the node, [B,H,S,T] to the same shape. Without them it is `attention`; with them, and for f64,
 * step by step. Shared heads, scale and the type of the softmax are as in ai.onnx's Attention. */
#include "frontend/import.h"

#include <math.h>
#include <string.h>

typedef struct flex {
    nb_value *q, *k, *v; /* [B,H,S,D], [B,G,T,D], [B,G,T,E] */
    int64_t heads, groups;
    double scale;
    nb_elem elem; /* of scores and probabilities */
} flex;

static nb_status read_flex(nb_importer *im, flex *f) {
    nb_value **in[] = {&f->q, &f->k, &f->v};
    for (size_t i = 0; i < 3; i++) {
        *in[i] = nb_node_input(im, i);
        if (!*in[i]) return NB_MALFORMED;
        if ((*in[i])->type->rank != 4 || !nb_elem_is_float((*in[i])->type->elem))
            return nb_node_error(im, NB_MALFORMED, "input %zu is %s, expected floats of rank 4", i,
                                 nb_type_text(im->arena, (*in[i])->type));
    }
    NB_TRY(nb_check_heads(im, f->q, f->k, f->v, &f->heads, &f->groups));
    f->scale = (double)nb_node_float(im, "scale", 1 / sqrtf((float)f->q->type->dims[3]->value));
    const int64_t asked = nb_node_int(im, "softmax_precision", 0);
    f->elem = f->q->type->elem == NB_F64 || asked == nb_elems[NB_F64].onnx ? NB_F64 : NB_F32;
    return NB_OK;
}

/* What the graph of that attribute makes of x; x without one. */
static nb_status through(nb_importer *im, const char *attribute, nb_value **x) {
    const Onnx__AttributeProto *a = nb_node_attr(im, attribute);
    if (!a || !*x) return *x ? NB_OK : NB_MALFORMED;
    const Onnx__GraphProto *graph = a->g;
    if (graph->n_input != 1 || graph->n_output != 1)
        return nb_node_error(im, NB_MALFORMED,
                             "%s has %zu inputs and %zu outputs, expected 1 and 1", attribute,
                             graph->n_input, graph->n_output);
    const nb_type *type = (*x)->type;
    nb_scope scope = {.values = {.arena = im->arena}, .outer = im->scope};
    im->scope = &scope;
    nb_scope_define(im, graph->input[0]->name ? graph->input[0]->name : "", *x);
    nb_status status = nb_import_nodes(im, graph);
    nb_value *y = status == NB_OK ? nb_graph_output(im, graph, 0) : NULL;
    im->scope = scope.outer;
    if (!y) return status == NB_OK ? nb_diags_status(im->diags) : status;
    if (y->type->rank != 4)
        return nb_node_error(im, NB_MALFORMED, "%s gives %s, expected %s", attribute,
                             nb_type_text(im->arena, y->type), nb_type_text(im->arena, type));
    for (int d = 0; d < 4; d++) NB_TRY(nb_unify(im, y->type->dims[d], type->dims[d]));
    *x = nb_as(im, y, type->elem);
    return *x ? NB_OK : NB_MALFORMED;
}

static nb_status stepwise(nb_importer *im, const flex *f, nb_value **y) {
    nb_value *q = nb_as(im, f->q, f->elem),
             *k = nb_as(im, nb_repeat_heads(im, f->k, f->groups, f->heads), f->elem),
             *v = nb_as(im, nb_repeat_heads(im, f->v, f->groups, f->heads), f->elem);
    nb_value *s = nb_times(im, nb_multiply(im, q, nb_swap_axes(im, k, 2, 3)), f->scale);
    NB_TRY(through(im, "score_mod", &s));
    NB_TRY(nb_softmax(im, s, 3, false, &s));
    NB_TRY(through(im, "prob_mod", &s));
    *y = nb_multiply(im, s, v);
    return *y ? NB_OK : NB_MALFORMED;
}

nb_status nb_import_flex_attention(nb_importer *im) {
    flex f = {0};
    nb_value *y = NULL;
    NB_TRY(read_flex(im, &f));
    const nb_elem elem = f.q->type->elem;
    if (nb_node_attr(im, "score_mod") || nb_node_attr(im, "prob_mod") || f.elem == NB_F64)
        NB_TRY(stepwise(im, &f, &y));
    else
        y = nb_attend(im, &(nb_attending){.q = f.q, .k = f.k, .v = f.v, .scale = (float)f.scale});
    return nb_node_output(im, 0, nb_as(im, y, elem));
}
