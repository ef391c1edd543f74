/* Data movement: patches, expand, slice, pad, concat, require. All are copies between two views
 * with the same dims; the views differ in base and strides. */
#include "codegen/kernels/conv.h"
#include "ir/conv.h"

/* A constant of one element is the stream that copies it everywhere. */
nb_stream_loop nb_stream_copy_of(const cg_buf *to, const nb_operand *from, const cg_buf *view) {
    nb_stream_loop loop = nb_stream_copy(to, view);
    if (from->immediate) {
        loop.streams[0].elem = to->elem;
        loop.streams[1].elem = view->elem;
        loop.immediate[1] = from->immediate;
    }
    return loop;
}

/* ---- patches ------------------------------------------------------------------------------- */

/* The axes of a patch stand behind those of its place. */
static nb_stream_loop patches_loop(nb_lower *l) {
    cg *g = l->g;
    const nb_attr *kernel = nb_attr_of(l->op, "kernel");
    const cg_buf *x = &l->in[0].buf;
    const int axes = x->rank - 2;
    cg_buf to = l->out[0].buf, view = *x;
    view.rank = to.rank = 2 * axes + 2;
    view.strides[axes + 1] = x->strides[1];
    to.dims[axes + 1] = x->dims[1];
    for (int d = 0; d < axes; d++) {
        view.strides[d + 1] = cg_muli(g, x->strides[d + 2], nb_conv_stride(l->op, d));
        view.strides[axes + 2 + d] = cg_muli(g, x->strides[d + 2], nb_conv_dilation(l->op, d));
        to.dims[axes + 2 + d] = cg_i64(g, kernel->ints.items[d]);
    }
    cg_val step = l->out[0].buf.strides[axes + 1];
    for (int d = 2 * axes + 1; d > axes; d--) {
        to.strides[d] = step;
        to.dense[d] = true;
        step = cg_mul(g, step, to.dims[d]);
    }
    for (int d = 0; d < view.rank; d++) {
        view.dims[d] = to.dims[d];
        view.dense[d] = d + 1 == view.rank && cg_is(view.strides[d], 1);
    }
    nb_stream_loop loop = nb_stream_copy_of(&to, &l->in[0], &view);
    nb_stream_collapse(l, &loop);
    return loop;
}

/* ---- expand -------------------------------------------------------------------------------- */

static nb_stream_loop expand_loop(nb_lower *l) {
    const cg_buf *to = &l->out[0].buf;
    cg_buf view = cg_buf_broadcast(l->g, &l->in[0].buf, to->rank, to->dims);
    nb_stream_loop loop = nb_stream_copy_of(to, &l->in[0], &view);
    nb_stream_collapse(l, &loop);
    return loop;
}

/* ---- slice --------------------------------------------------------------------------------- */

cg_buf nb_slice_view(nb_lower *l, const nb_op *op, const cg_buf *x) {
    cg *g = l->g;
    const nb_attr *start = nb_attr_of(op, "start"), *step = nb_attr_of(op, "step");
    const nb_type *from = nb_in(op, 0)->type, *to = nb_out(op)->type;
    cg_buf view = *x;
    cg_val offset = cg_i64(g, 0);
    for (int i = 0; i < x->rank; i++) {
        cg_val first = nb_size_value(l, start->dims.items[i]);
        offset = cg_add(g, offset, cg_mul(g, first, x->strides[i]));
        view.dims[i] = nb_size_value(l, to->dims[i]);
        view.strides[i] = cg_muli(g, x->strides[i], step->ints.items[i]);
        if (step->ints.items[i] != 1) view.dense[i] = false;
        if (i > 0 && !(from->dims[i] == to->dims[i] && step->ints.items[i] == 1))
            view.dense[i - 1] = false;
    }
    if (view.base) view.base = cg_buf_step(g, x, x->base, offset);
    view.align = nb_elems[x->elem].bits < 8 ? 1 : nb_elems[x->elem].bits / 8;
    return view;
}

static nb_stream_loop slice_loop(nb_lower *l) {
    const cg_buf view = nb_slice_view(l, l->op, &l->in[0].buf);
    nb_stream_loop loop = nb_stream_copy_of(&l->out[0].buf, &l->in[0], &view);
    nb_stream_collapse(l, &loop);
    return loop;
}

/* Start and end depend on run-time sizes: does every axis stay inside? */
static cg_val slice_check(nb_lower *l) {
    cg *g = l->g;
    const nb_attr *start = nb_attr_of(l->op, "start"), *step = nb_attr_of(l->op, "step");
    const cg_buf *x = &l->in[0].buf, *to = &l->out[0].buf;
    cg_val outside = cg_i1(g, false), empty = cg_i1(g, false);
    for (int i = 0; i < x->rank; i++) {
        cg_val first = nb_size_value(l, start->dims.items[i]);
        cg_val span = cg_muli(g, cg_addi(g, to->dims[i], -1), step->ints.items[i]);
        cg_val last = cg_add(g, first, span);
        /* As unsigned numbers, negative ones are too large as well. */
        cg_val bad =
            cg_or(g, cg_cmp(g, CG_UGE, first, x->dims[i]), cg_cmp(g, CG_UGE, last, x->dims[i]));
        outside = cg_or(g, outside, bad);
        empty = cg_or(g, empty, cg_cmpi(g, CG_EQ, to->dims[i], 0));
    }
    return cg_and(g, outside, cg_not(g, empty));
}

/* ---- require ------------------------------------------------------------------------------- */

static nb_stream_loop require_loop(nb_lower *l) {
    nb_stream_loop loop = nb_stream_copy_of(&l->out[0].buf, &l->in[0], &l->in[0].buf);
    nb_stream_collapse(l, &loop);
    return loop;
}

static cg_val require_check(nb_lower *l) {
    cg *g = l->g;
    const nb_operand *holds = &l->in[1];
    if (holds->immediate) return cg_not(g, holds->immediate);
    cg_var bad = cg_var_new(g, cg_i1(g, false));
    CG_FOR(g, i, cg_i64(g, 0), cg_buf_count(g, &holds->buf), cg_i64(g, 1)) {
        cg_val is = cg_buf_load(g, &holds->buf, cg_buf_row(g, &holds->buf, 0, i));
        cg_set(g, bad, cg_or(g, cg_get(g, bad), cg_not(g, is)));
    }
    return cg_get(g, bad);
}

/* ---- pad ----------------------------------------------------------------------------------- */

/* Margin number `n` of those that may have elements: its axis, and whether it lies behind the
 * tensor or before it. False behind the last. */
static bool pad_margin(const nb_op *op, int n, int *axis, bool *behind) {
    const nb_attr *margins[2] = {nb_attr_of(op, "before"), nb_attr_of(op, "after")};
    for (size_t i = 0; i < 2 * margins[0]->dims.count; i++) {
        *axis = (int)(i / 2);
        *behind = i % 2;
        if (!nb_dim_is(margins[*behind]->dims.items[*axis], 0) && n-- == 0) return true;
    }
    return false;
}

static int pad_phases(const nb_op *op) {
    int phases = 1, axis;
    bool behind;
    for (int n = 0; pad_margin(op, n, &axis, &behind); n++) phases++;
    return phases;
}

/* The result from `first` on along an axis, `length` of it. */
static void pad_cut(nb_lower *l, cg_buf *part, int axis, cg_val first, cg_val length) {
    cg *g = l->g;
    if (part->base)
        part->base = cg_buf_step(g, part, part->base, cg_mul(g, first, part->strides[axis]));
    part->dims[axis] = length;
    if (axis > 0) part->dense[axis - 1] = false;
}

/* Each margin has a phase that writes the value there, the last one copies the tensor between them.
 */
static nb_stream_loop pad_loop(nb_lower *l, int phase) {
    cg *g = l->g;
    const nb_operand *x = &l->in[0], *value = &l->in[1];
    const nb_attr *before = nb_attr_of(l->op, "before"), *after = nb_attr_of(l->op, "after");
    cg_buf part = l->out[0].buf;
    nb_stream_loop loop;
    int axis;
    bool behind;
    if (!pad_margin(l->op, phase, &axis, &behind)) {
        for (int i = 0; i < part.rank; i++) {
            if (l->in[0].value->type->dims[i] == l->out[0].value->type->dims[i]) continue;
            pad_cut(l, &part, i, nb_size_value(l, before->dims.items[i]), x->buf.dims[i]);
        }
        loop = nb_stream_copy_of(&part, x, &x->buf);
    } else {
        cg_val length = nb_size_value(l, (behind ? after : before)->dims.items[axis]);
        cg_val first = behind ? cg_sub(g, part.dims[axis], length) : cg_i64(g, 0);
        pad_cut(l, &part, axis, first, length);
        if (l->op->n_operands > 1 && value->value) {
            const cg_buf view = cg_buf_broadcast(g, &value->buf, part.rank, part.dims);
            loop = nb_stream_copy_of(&part, value, &view);
        } else {
            loop = nb_stream_copy(&part, &part);
            loop.immediate[1] = cg_zero(g, CG_S(cg_compute_kind(loop.streams[0].elem)));
        }
    }
    nb_stream_collapse(l, &loop);
    return loop;
}

static cg_val pad_check(nb_lower *l) {
    cg *g = l->g;
    cg_val bad = cg_i1(g, false);
    for (int side = 0; side < 2; side++) {
        const nb_attr *margins = nb_attr_of(l->op, side ? "after" : "before");
        for (size_t i = 0; i < margins->dims.count; i++) {
            cg_val margin = nb_size_value(l, margins->dims.items[i]);
            bad = cg_or(g, bad, cg_cmpi(g, CG_LT, margin, 0));
        }
    }
    return bad;
}

/* ---- concat -------------------------------------------------------------------------------- */

static int concat_phases(const nb_op *op) { return (int)op->n_operands; }

/* Each operand has a phase. One that lies in the result's buffer already, the past of an appended
 * state, is not copied. */
static bool is_in_place(nb_lower *l, int phase) {
    const nb_storage a = l->in[phase].value->storage, b = l->out[0].value->storage;
    return phase == 0 && a.kind == NB_STORE_STATE && b.kind == NB_STORE_STATE && a.index == b.index;
}

static nb_stream_loop concat_loop(nb_lower *l, int phase) {
    cg *g = l->g;
    const int axis = (int)nb_attr_int(l->op, "axis");
    const cg_buf *to = &l->out[0].buf, *x = &l->in[phase].buf;
    cg_val before = cg_i64(g, 0);
    for (int i = 0; i < phase; i++) before = cg_add(g, before, l->in[i].buf.dims[axis]);
    cg_buf part = *to;
    if (part.base) part.base = cg_buf_step(g, to, to->base, cg_mul(g, before, to->strides[axis]));
    part.dims[axis] = x->dims[axis];
    bool whole = l->in[phase].value->type->dims[axis] == l->out[0].value->type->dims[axis];
    if (axis > 0 && !whole) part.dense[axis - 1] = false;
    nb_stream_loop loop = nb_stream_copy_of(&part, &l->in[phase], x);
    nb_stream_collapse(l, &loop);
    return loop;
}

/* ---- the table ----------------------------------------------------------------------------- */

#define MOVE(name, loop)                                                        \
    static cg_val name##_items(nb_lower *l, int phase) {                        \
        (void)phase;                                                            \
        nb_stream_loop s = loop;                                                \
        return nb_stream_items(l, &s);                                          \
    }                                                                           \
    static cg_val name##_work(nb_lower *l, int phase) {                         \
        (void)phase;                                                            \
        nb_stream_loop s = loop;                                                \
        return nb_stream_work(l, &s);                                           \
    }                                                                           \
    static void name##_body(nb_lower *l, int phase, cg_val begin, cg_val end) { \
        (void)phase;                                                            \
        nb_stream_loop s = loop;                                                \
        nb_stream_body(l, &s, begin, end);                                      \
    }
MOVE(patches, patches_loop(l))

static bool has_bytes(const nb_lower *l) {
    return nb_elems[l->in[0].buf.elem].bits == 8 && !l->in[0].immediate;
}
static cg_val any_patches_items(nb_lower *l, int phase) {
    return has_bytes(l) ? nb_byte_patches_items(l) : patches_items(l, phase);
}
static cg_val any_patches_work(nb_lower *l, int phase) {
    return has_bytes(l) ? nb_byte_patches_work(l) : patches_work(l, phase);
}
static void any_patches_body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    if (has_bytes(l))
        nb_byte_patches_body(l, begin, end);
    else
        patches_body(l, phase, begin, end);
}

MOVE(expand, expand_loop(l))
MOVE(slice, slice_loop(l))
MOVE(pad, pad_loop(l, phase))
MOVE(require, require_loop(l))
MOVE(concat_part, concat_loop(l, phase))

static cg_val concat_items(nb_lower *l, int phase) {
    return is_in_place(l, phase) ? cg_i64(l->g, 0) : concat_part_items(l, phase);
}

static void concat_body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    if (!is_in_place(l, phase)) concat_part_body(l, phase, begin, end);
}

const nb_lowering nb_lower_patches = {.accept = nb_accept_plain,
                                      .items = any_patches_items,
                                      .work = any_patches_work,
                                      .body = any_patches_body};
const nb_lowering nb_lower_expand = {
    .accept = nb_accept_plain, .items = expand_items, .work = expand_work, .body = expand_body};
const nb_lowering nb_lower_slice = {.accept = nb_accept_plain,
                                    .items = slice_items,
                                    .work = slice_work,
                                    .body = slice_body,
                                    .check = slice_check};
const nb_lowering nb_lower_pad = {.accept = nb_accept_plain,
                                  .phases = pad_phases,
                                  .items = pad_items,
                                  .work = pad_work,
                                  .body = pad_body,
                                  .check = pad_check};
const nb_lowering nb_lower_require = {.accept = nb_accept_plain,
                                      .items = require_items,
                                      .work = require_work,
                                      .body = require_body,
                                      .check = require_check};
const nb_lowering nb_lower_concat = {.accept = nb_accept_plain,
                                     .phases = concat_phases,
                                     .items = concat_items,
                                     .work = concat_part_work,
                                     .body = concat_body};
