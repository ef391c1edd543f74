/* Inputs that say shapes but are known to a run only: a Reshape's target, axes, sizes. Where the
 * model declares the shape of what the node gives, in numbers, the input is taken to be what gives
 * that shape, and `require` refuses runs in which it is not. */
#include "frontend/import.h"

#include <string.h>

typedef struct assuming {
    nb_importer *im;
    size_t input;
    nb_value *given; /* i64[n]: the input */
    size_t n;
    int64_t want[NB_MAX_RANK]; /* what it is taken to be */
    nb_value *holds;           /* bools of a run; NULL: given == want */
    int64_t out[NB_MAX_RANK];  /* the declared shape of output 0 */
    int rank;
} assuming;

/* The node that makes something of the same shape of a value, by its only operand; its result, or
 * "". */
static const char *same_shape(const nb_importer *im, const char *name) {
    static const char *const ops[] = {"Abs", "Cast", "CastLike", "Exp", "Identity",
                                      "Log", "Neg",  "Relu",     "Sqrt"};
    const Onnx__GraphProto *graph = im->m->proto->graph;
    for (size_t i = 0; i < graph->n_node; i++) {
        const Onnx__NodeProto *n = graph->node[i];
        if (!n->n_input || !n->n_output || !n->op_type || !n->input[0] || *nb_node_domain(n) ||
            strcmp(n->input[0], name) != 0)
            continue;
        for (size_t k = 0; k < NB_COUNT(ops); k++)
            if (strcmp(n->op_type, ops[k]) == 0) return n->output[0];
    }
    return "";
}

static bool declared(nb_importer *im, const char *name, int64_t *dims, int *rank);

bool nb_declared(nb_importer *im, size_t output, int64_t *dims, int *rank) {
    const char *name = output < im->node->n_output ? im->node->output[output] : "";
    for (int followed = 0; *name && followed < 8; followed++) {
        if (declared(im, name, dims, rank)) return true;
        name = same_shape(im, name);
    }
    return false;
}

static bool declared(nb_importer *im, const char *name, int64_t *dims, int *rank) {
    const Onnx__GraphProto *graph = im->m->proto->graph;
    const struct {
        size_t n;
        Onnx__ValueInfoProto **items;
    } lists[] = {{graph->n_output, graph->output}, {graph->n_value_info, graph->value_info}};
    for (size_t l = 0; l < NB_COUNT(lists); l++) {
        for (size_t i = 0; i < lists[l].n && *name; i++) {
            const Onnx__ValueInfoProto *v = lists[l].items[i];
            if (!v->name || strcmp(v->name, name) != 0) continue;
            const Onnx__TensorShapeProto *shape =
                v->type && v->type->value_case == ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE
                    ? v->type->tensor_type->shape
                    : NULL;
            if (!shape || shape->n_dim > NB_MAX_RANK) return false;
            *rank = (int)shape->n_dim;
            for (int d = 0; d < *rank; d++) {
                if (shape->dim[d]->value_case !=
                        ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE ||
                    shape->dim[d]->dim_value < 0)
                    return false;
                dims[d] = shape->dim[d]->dim_value;
            }
            return true;
        }
    }
    return false;
}

nb_value *nb_require(nb_importer *im, nb_value *x, nb_value *holds) {
    if (!x || !holds) return NULL;
    nb_begin(&im->b, NB_OP_require);
    nb_arg(&im->b, x);
    nb_arg(&im->b, holds);
    return nb_end(&im->b);
}

nb_value *nb_numbers(nb_importer *im, size_t n, const int64_t *values) {
    const int64_t count = (int64_t)n;
    return nb_const_i64(im->g, "numbers", 1, &count, values);
}

nb_value *nb_vector_of(nb_importer *im, size_t input, size_t *n) {
    nb_value *v = nb_node_input(im, input);
    int64_t count;
    if (!v || !nb_type_static_count(v->type, &count) || count > NB_SYMBOLIC_MAX) return NULL;
    *n = (size_t)count;
    const nb_dim *length = nb_num(im, count);
    return nb_as(im, nb_reshape(&im->b, v, 1, &length), NB_I64);
}

nb_value *nb_axes_mask(nb_importer *im, nb_value *axes, int rank) {
    const nb_dim *n = axes ? axes->type->dims[0] : NULL;
    if (!n) return NULL;
    nb_value *from_end = nb_combine(im, NB_OP_lt, axes, nb_scalar(im, NB_I64, 0));
    axes = nb_choose(im, from_end, nb_plus(im, axes, rank), axes);
    nb_value *is = nb_combine(im, NB_OP_eq, nb_along(im, axes, 2, 0),
                              nb_positions(im, 2, 1, nb_num(im, rank)));
    return is ? nb_cast(&im->b, is, NB_I64) : NULL;
}

nb_value *nb_axes_are(nb_importer *im, nb_value *axes, int rank, unsigned set) {
    const int64_t first = 0;
    int64_t wanted[NB_MAX_RANK];
    for (int d = 0; d < rank; d++) wanted[d] = set >> d & 1;
    nb_value *mask = nb_axes_mask(im, axes, rank);
    mask = mask ? nb_reduce(im, NB_OP_reduce_max, mask, 1, &first, false) : NULL;
    nb_value *same = nb_combine(im, NB_OP_eq, mask, nb_numbers(im, (size_t)rank, wanted));
    return nb_all(im, same);
}

nb_value *nb_all(nb_importer *im, nb_value *is) {
    if (!is) return NULL;
    nb_value *least = nb_reduce(im, NB_OP_reduce_min, nb_cast(&im->b, is, NB_I64), 0, NULL, false);
    return least ? nb_cast(&im->b, least, NB_BOOL) : NULL;
}

/* ---- what operators make of the shape they give --------------------------------------------- */

/* Dimension d of input 0; -1: not a number. */
static int64_t length_of(const assuming *a, int d) {
    const nb_value *x = nb_node_input(a->im, 0);
    return x && d >= 0 && d < x->type->rank && nb_dim_is_const(x->type->dims[d])
               ? x->type->dims[d]->value
               : -1;
}

static int rank_of(const assuming *a) { return nb_node_input(a->im, 0)->type->rank; }

static nb_value *equals(const assuming *a, const int64_t *numbers) {
    return nb_combine(a->im, NB_OP_eq, a->given, nb_numbers(a->im, a->n, numbers));
}

static nb_value *either(const assuming *a, nb_value *x, nb_value *y) {
    return x && y ? nb_combine(a->im, NB_OP_or, x, y) : NULL;
}

static bool output_shape(assuming *a) {
    memcpy(a->want, a->out, sizeof a->want);
    return (int)a->n == a->rank;
}

/* -1 is what is left; 0 copies a dimension, if it is not one itself. */
static bool reshape_shape(assuming *a) {
    int64_t copied[NB_MAX_RANK], rest[NB_MAX_RANK], never = -2;
    if (!output_shape(a)) return false;
    bool copies = nb_node_int(a->im, "allowzero", 0) == 0;
    for (int d = 0; d < a->rank; d++) {
        rest[d] = -1;
        copied[d] = copies && length_of(a, d) == a->out[d] ? 0 : never;
    }
    a->holds = either(a, either(a, equals(a, a->want), equals(a, rest)), equals(a, copied));
    return true;
}

/* 1 keeps the input's dimension. */
static bool expand_shape(assuming *a) {
    int64_t kept[NB_MAX_RANK];
    if ((int)a->n > a->rank) return false;
    for (int i = 0; i < (int)a->n; i++) {
        int d = a->rank - (int)a->n + i, own = rank_of(a) - (int)a->n + i;
        a->want[i] = a->out[d];
        kept[i] = length_of(a, own) == a->out[d] ? 1 : a->out[d];
    }
    a->holds = either(a, equals(a, a->want), equals(a, kept));
    return true;
}

static bool repeats(assuming *a) {
    if ((int)a->n != a->rank || a->rank != rank_of(a)) return false;
    for (int d = 0; d < a->rank; d++) {
        int64_t length = length_of(a, d);
        if (length < 1 || a->out[d] % length) return false;
        a->want[d] = a->out[d] / length;
    }
    return true;
}

/* The length of the axis that the node names. */
static bool axis_length(assuming *a) {
    int64_t axis = nb_node_int(a->im, "axis", -1);
    if (axis < 0) axis += a->rank;
    if (a->n != 1 || axis < 0 || axis >= a->rank) return false;
    a->want[0] = a->out[axis];
    return true;
}

/* Those of `axes`, or of all. */
static bool lengths_of_axes(assuming *a) {
    size_t n;
    const int64_t *axes = nb_node_ints(a->im, "axes", &n);
    if (a->n != (axes ? n : (size_t)a->rank)) return false;
    for (size_t i = 0; i < a->n; i++) {
        int64_t axis = axes ? axes[i] < 0 ? axes[i] + a->rank : axes[i] : (int64_t)i;
        if (axis < 0 || axis >= a->rank) return false;
        a->want[i] = a->out[axis];
    }
    return true;
}

/* Policies other than to stretch compute the lengths from what is asked for. */
static bool resize_sizes(assuming *a) {
    return strcmp(nb_node_string(a->im, "keep_aspect_ratio_policy", "stretch"), "stretch") == 0 &&
           lengths_of_axes(a);
}

static bool parts(assuming *a) {
    int64_t axis = nb_node_int(a->im, "axis", 0);
    for (size_t i = 0; i < a->n; i++) {
        int64_t out[NB_MAX_RANK];
        int rank;
        if (!nb_declared(a->im, i, out, &rank)) return false;
        int64_t at = axis < 0 ? axis + rank : axis;
        if (at < 0 || at >= rank || i >= NB_MAX_RANK) return false;
        a->want[i] = out[at];
    }
    return true;
}

/* Is `shorter` what is left of `longer` without the axes of `set`, n of length 1? */
static bool is_left(unsigned set, size_t n, int long_rank, const int64_t *longer, int short_rank,
                    const int64_t *shorter) {
    int from = 0;
    size_t gone = 0;
    for (int d = 0; d < long_rank; d++) {
        if (set >> d & 1) {
            if (longer[d] != 1) return false;
            gone++;
        } else if (from == short_rank || shorter[from++] != longer[d]) {
            return false;
        }
    }
    return gone == n && from == short_rank;
}

/* Any n axes of length 1 without which the longer shape is the shorter: the result is the same. */
static bool ones_between(assuming *a, int long_rank, const int64_t *longer, int short_rank,
                         const int64_t *shorter) {
    for (unsigned set = 0; set < 1u << long_rank; set++) {
        if (!is_left(set, a->n, long_rank, longer, short_rank, shorter)) continue;
        size_t n = 0;
        for (int d = 0; d < long_rank && !a->holds; d++)
            if (set >> d & 1) a->want[n++] = d;
        nb_value *is = nb_axes_are(a->im, a->given, long_rank, set);
        a->holds = a->holds ? either(a, a->holds, is) : is;
    }
    return a->holds || a->n == 0;
}

static bool all_lengths(const assuming *a, int64_t *lengths) {
    for (int d = 0; d < rank_of(a); d++) {
        lengths[d] = length_of(a, d);
        if (lengths[d] < 0) return false;
    }
    return true;
}

static bool removed_axes(assuming *a) {
    int64_t lengths[NB_MAX_RANK];
    return all_lengths(a, lengths) && ones_between(a, rank_of(a), lengths, a->rank, a->out);
}

static bool added_axes(assuming *a) {
    int64_t lengths[NB_MAX_RANK];
    return all_lengths(a, lengths) && ones_between(a, a->rank, a->out, rank_of(a), lengths);
}

/* [N,C,D...] of a grid [N,D...,axes]: whatever C is. */
static bool grid_size(assuming *a) {
    int64_t low[NB_MAX_RANK];
    if ((int)a->n != a->rank) return false;
    for (int i = 0; i < a->rank; i++) {
        a->want[i] = i == 0 ? a->out[0] : i == 1 ? 1 : a->out[i - 1];
        low[i] = i == 1 ? 1 : 0;
    }
    nb_value *any = nb_cast(&a->im->b, nb_numbers(a->im, a->n, low), NB_BOOL);
    a->holds = either(a, equals(a, a->want), any);
    return true;
}

/* Spectra of frames: [B,frames,length/2+1,2], or all of the length. */
static bool frame_length(assuming *a) {
    if (a->n != 1 || a->rank != 4) return false;
    a->want[0] = nb_node_int(a->im, "onesided", 1) ? 2 * (a->out[2] - 1) : a->out[2];
    return true;
}

/* Of MelWeightMatrix: the number of bands, and the length whose spectrum has so many bins. */
static bool bands(assuming *a) {
    if (a->n != 1 || a->rank != 2) return false;
    a->want[0] = a->out[1];
    return true;
}

static bool spectrum_length(assuming *a) {
    const int64_t odd = 2 * a->out[0] - 1;
    if (a->n != 1 || a->rank != 2) return false;
    a->want[0] = odd - 1;
    a->holds = either(a, equals(a, a->want), equals(a, &odd));
    return true;
}

static bool image_shape(assuming *a) {
    if ((int)a->n != a->rank - 2) return false;
    memcpy(a->want, a->out + 2, a->n * sizeof *a->want);
    return true;
}

static const struct {
    const char *op;
    size_t input;
    bool (*of)(assuming *a);
} rows[] = {
    {"Reshape", 1, reshape_shape},
    {"Expand", 1, expand_shape},
    {"ConstantOfShape", 0, output_shape},
    {"Tile", 1, repeats},
    {"TopK", 1, axis_length},
    {"OneHot", 1, axis_length},
    {"Split", 1, parts},
    {"Squeeze", 1, removed_axes},
    {"Unsqueeze", 1, added_axes},
    {"Resize", 3, resize_sizes},
    {"CenterCropPad", 1, lengths_of_axes},
    {"MaxUnpool", 2, output_shape},
    {"AffineGrid", 1, grid_size},
    {"STFT", 3, frame_length},
    {"MelWeightMatrix", 0, bands},
    {"MelWeightMatrix", 1, spectrum_length},
    {"HannWindow", 0, output_shape},
    {"HammingWindow", 0, output_shape},
    {"BlackmanWindow", 0, output_shape},
    {"Col2Im", 1, image_shape},
};

const nb_dim *const *nb_assume(nb_importer *im, size_t input, size_t *count) {
    if (input < NB_COUNT(im->assumed) && im->assumed[input].dims) {
        *count = im->assumed[input].count;
        return im->assumed[input].dims;
    }
    size_t row = 0;
    while (row < NB_COUNT(rows) &&
           (rows[row].input != input || strcmp(rows[row].op, im->node->op_type) != 0))
        row++;
    assuming a = {.im = im, .input = input};
    if (row == NB_COUNT(rows) || *nb_node_domain(im->node) || input >= NB_COUNT(im->assumed) ||
        !nb_declared(im, 0, a.out, &a.rank))
        return NULL;
    a.given = nb_vector_of(im, input, &a.n);
    if (!a.given || a.n > NB_MAX_RANK || im->n_holds == NB_COUNT(im->holds) || !rows[row].of(&a))
        return NULL;
    const nb_dim **dims = (const nb_dim **)nb_alloc_array(im->arena, a.n + 1, sizeof *dims);
    for (size_t i = 0; i < a.n; i++) dims[i] = nb_num(im, a.want[i]);
    if (a.n) im->holds[im->n_holds++] = a.holds ? a.holds : equals(&a, a.want);
    im->assumed[input].dims = dims;
    im->assumed[input].count = *count = a.n;
    return dims;
}
