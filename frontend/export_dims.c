/* Dimension expressions as ONNX nodes: shapes of inputs, and arithmetic on them. */
#include "frontend/export.h"

#include <string.h>

/* The size of axis d. */
static nb_port *size_of(nb_exporter *x, nb_port *tensor, int d) {
    nb_port *y = NB_PUT(x, "Shape", tensor);
    nb_put_attr(x, NB_ATTR_I("start", d));
    nb_put_attr(x, NB_ATTR_I("end", d + 1));
    return y;
}

/* A symbol is the size of an axis that is just that: of an input, or of what was computed. */
static nb_port *port_of_symbol(nb_exporter *x, const nb_dim *symbol) {
    for (size_t i = 0; i < x->values.count; i++) {
        const nb_value *v = x->values.entries[i].key;
        for (int d = 0; d < v->type->rank; d++)
            if (v->type->dims[d] == symbol) return size_of(x, x->values.entries[i].value, d);
    }
    nb_export_refuse(x, "nothing has an axis that is just %s", symbol->symbol->name);
    return NULL;
}

static nb_port *port_of_dim(nb_exporter *x, const nb_dim *d);

/* Towards minus infinity: Div truncates, Mod has the sign of b. */
static nb_port *floordiv(nb_exporter *x, nb_port *a, nb_port *b, bool negative) {
    if (negative) a = NB_PUT(x, "Sub", a, NB_PUT(x, "Mod", a, b));
    return NB_PUT(x, "Div", a, b);
}

static nb_port *compute(nb_exporter *x, const nb_dim *d) {
    static const char *const operators[] = {
        [NB_DIM_ADD] = "Add", [NB_DIM_MUL] = "Mul", [NB_DIM_MIN] = "Min", [NB_DIM_MAX] = "Max"};
    int64_t min, max;
    nb_port *a = port_of_dim(x, d->a), *b = port_of_dim(x, d->b);
    if (!a || !b) return NULL;
    nb_dim_range(d->a, &min, &max);
    if (d->kind == NB_DIM_FLOORDIV) return floordiv(x, a, b, min < 0);
    if (d->kind == NB_DIM_CEILDIV) /* -floor(-a/b) */
        return NB_PUT(x, "Neg", floordiv(x, NB_PUT(x, "Neg", a), b, true));
    return NB_PUT(x, operators[d->kind], a, b);
}

static nb_port *port_of_dim(nb_exporter *x, const nb_dim *d) {
    if (d->kind == NB_DIM_CONST) return nb_port_i64s(x, 1, &d->value);
    nb_port *p = nb_map_get(&x->dims, d);
    if (p) return p;
    p = d->kind == NB_DIM_SYMBOL ? port_of_symbol(x, d) : compute(x, d);
    if (p) nb_map_set(&x->dims, d, p);
    return p;
}

/* Constants side by side are one tensor. */
static nb_port *join(nb_exporter *x, size_t n, const nb_dim *const *dims) {
    nb_port **parts = (nb_port **)nb_alloc_array(x->arena, n, sizeof *parts);
    int64_t *values = NB_NEW_ARRAY(x->arena, int64_t, n);
    size_t count = 0;
    for (size_t i = 0; i < n;) {
        size_t run = 0;
        for (; i + run < n && nb_dim_is_const(dims[i + run]); run++)
            values[run] = dims[i + run]->value;
        parts[count] = run ? nb_port_i64s(x, run, values) : port_of_dim(x, dims[i]);
        if (!parts[count++]) return NULL;
        i += run ? run : 1;
    }
    if (count == 1) return parts[0];
    nb_port *y = nb_put_node(x, "Concat", count, parts);
    nb_put_attr(x, NB_ATTR_I("axis", 0));
    return y;
}

nb_port *nb_port_dims(nb_exporter *x, size_t n, const nb_dim *const *dims) {
    if (!n) return nb_port_i64s(x, 0, NULL);
    nb_port *known = nb_map_get_str(&x->shared, (const char *)dims, n * sizeof *dims);
    if (known) return known;
    nb_port *p = join(x, n, dims);
    if (p) nb_map_set_str(&x->shared, (const char *)dims, n * sizeof *dims, p);
    return p;
}
