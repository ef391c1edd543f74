/* Tensors made of sizes: dims and iota. */
#include "codegen/lower.h"

static cg_val one_item(nb_lower *l, int phase) {
    (void)phase;
    return cg_i64(l->g, 1);
}

static void store(nb_lower *l, cg_val index, cg_val value) {
    const cg_buf *y = &l->out[0].buf;
    cg_val stride = y->rank ? y->strides[0] : cg_i64(l->g, 0);
    cg_buf_store(l->g, y, cg_buf_step(l->g, y, y->base, cg_mul(l->g, index, stride)), value);
}

static void dims_body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    (void)phase, (void)begin, (void)end;
    const nb_attr *values = nb_attr_of(l->op, "values");
    for (size_t i = 0; i < values->dims.count; i++)
        store(l, cg_i64(l->g, (int64_t)i), nb_size_value(l, values->dims.items[i]));
}

static void iota_body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    (void)phase, (void)begin, (void)end;
    cg *g = l->g;
    cg_val start = nb_size_value(l, nb_attr_of(l->op, "start")->dims.items[0]);
    int64_t step = nb_attr_int(l->op, "step");
    CG_FOR(g, i, cg_i64(g, 0), l->out[0].buf.dims[0], cg_i64(g, 1)) {
        store(l, i, cg_add(g, start, cg_muli(g, i, step)));
    }
}

const nb_lowering nb_lower_dims = {.accept = nb_accept_plain, .items = one_item, .body = dims_body};
const nb_lowering nb_lower_iota = {.accept = nb_accept_plain, .items = one_item, .body = iota_body};
