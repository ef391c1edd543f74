/* Constants as initializers: as they are, or codes and scales in the forms that ONNX has.
 *
 * Each form of a constant stands in the file once, whoever uses it. Codes of 2 and 3 bits are
 * written in 4, those of 5 to 7 in 8. What ONNX cannot say, nf4 above all, is written as f32. */
#include "frontend/export.h"

#include <string.h>

/* ---- sharing -------------------------------------------------------------------------------- */

nb_port *nb_shared_find(const nb_exporter *x, const void *key, size_t size) {
    nb_port *p = NULL;
    for (const nb_onnx_graph *g = x->graph; g && !p; g = g->outer)
        p = nb_map_get_str(&g->shared, key, size);
    return p;
}

nb_port *nb_shared_keep(nb_exporter *x, const void *key, size_t size, nb_port *port) {
    nb_map_set_str(&(port->graph ? port->graph : x->model)->shared, key, size, port);
    return port;
}

static const char *key_of(nb_exporter *x, const nb_value *v, const char *what) {
    return v ? nb_format(x->arena, "%u %s", v->id, what) : what;
}

nb_port *nb_shared_get(nb_exporter *x, const nb_value *v, const char *what) {
    const char *key = key_of(x, v, what);
    return nb_shared_find(x, key, strlen(key));
}

nb_port *nb_shared_set(nb_exporter *x, const nb_value *v, const char *what, nb_port *port) {
    const char *key = key_of(x, v, what);
    return nb_shared_keep(x, key, strlen(key), port);
}

nb_initializer *nb_new_initializer(nb_exporter *x, const char *name, nb_elem elem, int rank,
                                   const int64_t *dims) {
    nb_initializer *t = NB_NEW(x->arena, nb_initializer);
    int64_t count = 1;
    *t = (nb_initializer){
        .port = NB_NEW(x->arena, nb_port), .elem = elem, .rank = rank, .offset = -1};
    t->port->name = nb_export_name(x, name);
    t->port->graph = x->model;
    for (int d = 0; d < rank; d++) count *= t->dims[d] = dims[d];
    (void)!nb_elem_bytes_of(elem, count, &t->bytes);
    nb_vec_push(x->arena, &x->tensors, t);
    return t;
}

static nb_port *small(nb_exporter *x, const char *name, nb_elem elem, int rank, int64_t n,
                      const void *values, size_t size) {
    const char *what = nb_format(x->arena, "%d:%d:", (int)elem, rank);
    const size_t length = strlen(what);
    char *key = nb_alloc(x->arena, length + size + 1);
    memcpy(key, what, length);
    if (size) memcpy(key + length, values, size);
    nb_port *known = nb_shared_find(x, key, length + size);
    if (known) return known;
    nb_initializer *t = nb_new_initializer(x, name, elem, rank, &n);
    t->data = key + length;
    return nb_shared_keep(x, key, length + size, t->port);
}

nb_port *nb_port_i64s(nb_exporter *x, size_t n, const int64_t *values) {
    return small(x, "numbers", NB_I64, 1, (int64_t)n, values, n * sizeof *values);
}
nb_port *nb_port_i64(nb_exporter *x, int64_t value) {
    return small(x, "number", NB_I64, 0, 1, &value, sizeof value);
}
nb_port *nb_port_u8(nb_exporter *x, uint8_t value) {
    return small(x, "code", NB_U8, 0, 1, &value, sizeof value);
}
nb_port *nb_port_f32(nb_exporter *x, float value) {
    return small(x, "number", NB_F32, 0, 1, &value, sizeof value);
}

/* ---- bytes ---------------------------------------------------------------------------------- */

void nb_sink_flush(nb_sink *s) {
    if (s->n_held) s->put(s, s->held, s->n_held);
    s->n_held = 0;
}

void nb_sink_byte(nb_sink *s, uint8_t byte) {
    s->held[s->n_held++] = byte;
    if (s->n_held == sizeof s->held) nb_sink_flush(s);
}

void nb_sink_put(nb_sink *s, const void *bytes, size_t size) {
    nb_sink_flush(s);
    s->put(s, bytes, size);
}

static void put_f32(nb_sink *s, float f) {
    uint8_t b[4];
    memcpy(b, &f, 4);
    for (int i = 0; i < 4; i++) nb_sink_byte(s, b[i]);
}

static void write_blob(const nb_initializer *t, nb_sink *s, nb_arena *scratch) {
    (void)scratch;
    nb_sink_put(s, t->from->blob->data, (size_t)t->bytes);
    nb_blob_rest(t->from->blob);
}

/* Integers in another width: two to a byte, or one. */
static void write_integers(const nb_initializer *t, nb_sink *s, nb_arena *scratch) {
    (void)scratch;
    const nb_tensor from = nb_tensor_of_const(t->from);
    const int64_t n = nb_tensor_count(&from);
    const bool pairs = nb_elems[t->elem].bits == 4;
    for (int64_t i = 0; i < n; i += pairs ? 2 : 1) {
        int64_t a = nb_tensor_get_int(&from, i),
                b = pairs && i + 1 < n ? nb_tensor_get_int(&from, i + 1) : 0;
        nb_sink_byte(s, (uint8_t)(pairs ? (a & 15) | (b & 15) << 4 : a));
    }
}

/* Elements of whole bytes, or integers of less in bytes, with the last axis first. */
static void write_last_first(const nb_initializer *t, nb_sink *s, nb_arena *scratch) {
    (void)scratch;
    const nb_tensor from = nb_tensor_of_const(t->from);
    const int64_t n = nb_tensor_count(&from), columns = from.dims[from.rank - 1];
    const int bytes = nb_elems[t->elem].bits / 8;
    for (int64_t c = 0; c < columns; c++)
        for (int64_t i = c; i < n; i += columns) {
            const uint64_t e = nb_elem_is_integer(t->elem) ? (uint64_t)nb_tensor_get_int(&from, i)
                                                           : nb_elem_get(t->elem, from.data, i);
            for (int b = 0; b < bytes; b++) nb_sink_byte(s, (uint8_t)(e >> (8 * b)));
        }
}

static void write_splat(const nb_initializer *t, nb_sink *s, nb_arena *scratch) {
    (void)scratch;
    const int64_t v = t->parameter;
    const uint8_t byte = (uint8_t)(nb_elems[t->elem].bits == 4 ? (v & 15) | (v & 15) << 4 : v);
    for (int64_t i = 0; i < t->bytes; i++) nb_sink_byte(s, byte);
}

static void write_reals(const nb_initializer *t, nb_sink *s, nb_arena *scratch) {
    nb_reals *r = NB_NEW(scratch, nb_reals);
    nb_reals_open(r, t->from, scratch);
    for (int64_t i = 0; i < r->count; i++) put_f32(s, (float)nb_real(r, i));
}

static void write_scales(const nb_initializer *t, nb_sink *s, nb_arena *scratch) {
    (void)scratch;
    for (int64_t i = 0; i < t->bytes / 4; i++) put_f32(s, nb_quant_scale(t->from->type->quant, i));
}

static void write_minima(const nb_initializer *t, nb_sink *s, nb_arena *scratch) {
    (void)scratch;
    for (int64_t i = 0; i < t->bytes / 4; i++)
        put_f32(s, nb_quant_minimum(t->from->type->quant, i));
}

/* ---- constants ------------------------------------------------------------------------------ */

static void shape_of(const nb_value *v, int64_t *dims) {
    for (int d = 0; d < v->type->rank; d++) dims[d] = v->type->dims[d]->value;
}

nb_elem nb_onnx_code(nb_elem storage) {
    const bool is_signed = nb_elems[storage].class_ == NB_CLASS_INT;
    const int bits = nb_elems[storage].bits;
    return bits > 8 ? storage : nb_elem_integer(bits <= 4 ? 4 : 8, is_signed);
}

/* A part of a quantized constant. It stands in the graph that dequantizes it: onnxruntime, which
 * makes one node of DequantizeLinear and MatMul, looks for it nowhere else. */
static nb_initializer *new_part(nb_exporter *x, const char *name, nb_elem elem, int rank,
                                const int64_t *dims) {
    nb_initializer *t = nb_new_initializer(x, name, elem, rank, dims);
    t->port->graph = x->graph;
    return t;
}

/* The integers of v, or of its codes, as `elem` in that shape; `part` of a quantized constant? */
static nb_port *as_integers(nb_exporter *x, nb_value *v, nb_elem elem, int rank,
                            const int64_t *dims, bool part) {
    const char *what =
        nb_format(x->arena, "as %d.%d.%lld", (int)elem, rank, (long long)(rank ? dims[0] : 0));
    nb_port *known = nb_shared_get(x, v, what);
    if (known) return known;
    nb_initializer *t = part ? new_part(x, v->name, elem, rank, dims)
                             : nb_new_initializer(x, v->name, elem, rank, dims);
    t->from = v;
    t->write = v->type->elem == elem ? write_blob : write_integers;
    return nb_shared_set(x, v, what, t->port);
}

nb_port *nb_port_const(nb_exporter *x, nb_value *v) {
    int64_t dims[NB_MAX_RANK];
    shape_of(v, dims);
    const nb_elem e = v->type->elem;
    if (nb_elems[e].onnx && nb_elems[e].bits != 2)
        return as_integers(x, v, e, v->type->rank, dims, false);
    if (nb_elem_is_integer(e))
        return as_integers(x, v, nb_onnx_code(e), v->type->rank, dims, false);
    nb_export_refuse(x, "'@%s': ONNX has no type like %s", v->name, nb_elems[e].text);
    return NULL;
}

nb_port *nb_port_codes(nb_exporter *x, nb_value *w, bool bytes) {
    int64_t dims[NB_MAX_RANK];
    shape_of(w, dims);
    nb_elem e = nb_onnx_code(w->type->elem);
    if (bytes && nb_elems[e].bits < 8) e = nb_elem_integer(8, nb_elems[e].class_ == NB_CLASS_INT);
    return as_integers(x, w, e, w->type->rank, dims, true);
}

nb_port *nb_port_reshaped(nb_exporter *x, nb_value *v, int rank, const int64_t *dims) {
    return as_integers(x, v, v->type->elem, rank, dims, false);
}

/* The shape of scales and zero points; as a column for rows that are looked up. */
static int scale_shape(const nb_value *w, bool column, int64_t *dims) {
    const nb_quant *q = w->type->quant;
    if (!q->scales) return 0;
    shape_of(q->scales, dims);
    if (!column || q->granularity != NB_PER_AXIS) return q->scales->type->rank;
    dims[1] = 1;
    return 2;
}

nb_port *nb_port_scales(nb_exporter *x, nb_value *w, bool column) {
    const nb_quant *q = w->type->quant;
    int64_t dims[NB_MAX_RANK];
    if (!q->scales) return nb_port_f32(x, q->scale);
    const int rank = scale_shape(w, column, dims);
    if (q->scales->type->elem == NB_F32 && !q->scales->type->quant)
        return as_integers(x, q->scales, NB_F32, rank, dims, true);
    nb_port *known = nb_shared_get(x, w, column ? "scale column" : "scales");
    if (known) return known;
    nb_initializer *t = new_part(x, q->scales->name, NB_F32, rank, dims);
    t->from = w;
    t->write = write_scales;
    return nb_shared_set(x, w, column ? "scale column" : "scales", t->port);
}

nb_port *nb_port_zeros(nb_exporter *x, nb_value *w, bool bytes, bool column) {
    const nb_quant *q = w->type->quant;
    int64_t dims[NB_MAX_RANK];
    nb_elem e = nb_onnx_code(q->storage);
    if (bytes && nb_elems[e].bits < 8) e = nb_elem_integer(8, nb_elems[e].class_ == NB_CLASS_INT);
    const int rank = scale_shape(w, column, dims);
    if (q->zeros) return as_integers(x, q->zeros, e, rank, dims, true);
    if (!q->zero) return NULL;
    const char *what = nb_format(x->arena, "zeros %d.%d", (int)e, rank);
    nb_port *known = nb_shared_get(x, w, what);
    if (known) return known;
    nb_initializer *t = new_part(x, nb_format(x->arena, "%s.zero", w->name), e, rank, dims);
    t->parameter = q->zero;
    t->write = write_splat;
    return nb_shared_set(x, w, what, t->port);
}

/* ---- dequantized ---------------------------------------------------------------------------- */

/* The shape in which minima are added to numbers: that of scales, with groups an axis of their own.
 */
static int minima_shape(const nb_value *w, int64_t *dims) {
    const nb_quant *q = w->type->quant;
    int rank = 0;
    if (q->granularity == NB_PER_TENSOR) return 0;
    for (int d = 0; d < w->type->rank; d++) {
        const int64_t n = w->type->dims[d]->value;
        const bool along = d == q->axis, groups = q->granularity == NB_PER_GROUP;
        dims[rank++] = along && groups ? n / q->group : along || groups ? n : 1;
        if (along && groups) dims[rank++] = 1;
    }
    return rank;
}

/* Numbers plus minima; groups are seen as an axis meanwhile. */
static nb_port *add_minima(nb_exporter *x, nb_value *w, nb_port *v) {
    const nb_quant *q = w->type->quant;
    int64_t dims[NB_MAX_RANK + 1] = {0};
    const nb_dim *apart[NB_MAX_RANK + 1];
    const int rank = minima_shape(w, dims);
    nb_initializer *t =
        nb_new_initializer(x, nb_format(x->arena, "%s.min", w->name), NB_F32, rank, dims);
    t->from = w;
    t->write = write_minima;
    if (q->granularity != NB_PER_GROUP) return NB_PUT(x, "Add", v, t->port);
    for (int d = 0; d < rank; d++)
        apart[d] = nb_dim_const(x->g, d == q->axis + 1 ? q->group : dims[d]);
    v = nb_put_reshape(x, v, NULL, (size_t)rank, apart);
    v = NB_PUT(x, "Add", v, t->port);
    return nb_put_reshape(x, v, NULL, (size_t)w->type->rank, w->type->dims);
}

/* Can DequantizeLinear say it? */
static bool is_linear(const nb_value *w) {
    const nb_quant *q = w->type->quant;
    const bool whole =
        q->granularity != NB_PER_GROUP || w->type->dims[q->axis]->value % q->group == 0;
    return nb_elem_is_integer(q->storage) && nb_elems[nb_onnx_code(q->storage)].bits <= 8 &&
           (whole || !nb_quant_has_minima(q)) && w->type->rank < NB_MAX_RANK;
}

static nb_port *put_floats(nb_exporter *x, nb_value *w) {
    int64_t dims[NB_MAX_RANK];
    shape_of(w, dims);
    nb_initializer *t = nb_new_initializer(x, w->name, NB_F32, w->type->rank, dims);
    t->from = w;
    t->write = write_reals;
    nb_inform(x->diags,
              (nb_where){.file = x->g->file, .node = nb_loc_name(x->op->loc), .offset = -1},
              "'@%s' is written as f32: ONNX cannot say #%s", w->name, w->type->quant->name);
    return t->port;
}

nb_port *nb_port_reals(nb_exporter *x, nb_value *w) {
    const nb_quant *q = w->type->quant;
    nb_port *known = nb_shared_get(x, w, "reals");
    if (known) return known;
    if (!is_linear(w)) return nb_shared_set(x, w, "reals", put_floats(x, w));
    nb_port *codes = nb_port_codes(x, w, false), *scales = nb_port_scales(x, w, false),
            *zeros = nb_port_zeros(x, w, false, false),
            *y = NB_PUT(x, "DequantizeLinear", codes, scales, zeros);
    if (q->granularity != NB_PER_TENSOR) nb_put_attr(x, NB_ATTR_I("axis", q->axis));
    if (q->granularity == NB_PER_GROUP) nb_put_attr(x, NB_ATTR_I("block_size", q->group));
    if (nb_quant_has_minima(q)) y = add_minima(x, w, y);
    return nb_shared_set(x, w, "reals", y);
}

nb_port *nb_port_last_first(nb_exporter *x, nb_value *v, int rank, const int64_t *dims) {
    const nb_quant *q = v->type->quant;
    const bool axis = q && q->granularity == NB_PER_AXIS;
    nb_elem e = v->type->elem;
    if (q && (!is_linear(v) || nb_quant_has_minima(q) ||
              (!axis && q->granularity != NB_PER_TENSOR) || (axis && q->axis != v->type->rank - 1)))
        return NULL;
    if (q) e = nb_elem_integer(8, nb_elems[e].class_ == NB_CLASS_INT);
    if (!nb_elems[e].onnx || nb_elems[e].bits < 8) return NULL;
    const char *what = "last first";
    for (int d = 0; d < rank; d++) what = nb_format(x->arena, "%s %lld", what, (long long)dims[d]);
    nb_port *y = nb_shared_get(x, v, what);
    if (y) return y;
    nb_initializer *t = new_part(x, v->name, e, rank, dims);
    t->from = v;
    t->write = write_last_first;
    y = t->port;
    if (q) {
        nb_port *scales = nb_port_scales(x, v, false), *zeros = nb_port_zeros(x, v, true, false);
        y = NB_PUT(x, "DequantizeLinear", y, scales, zeros);
        if (axis) nb_put_attr(x, NB_ATTR_I("axis", 0));
    }
    return nb_shared_set(x, v, what, y);
}
