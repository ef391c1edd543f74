/* The lowering table, and what a kernel sees of its operands: shapes from types, strides from
 * where the value is stored, numbers for small constants. */
#include "codegen/model.h"

#include "ir/eval.h"

#include <string.h>

static const nb_lowering *const table[NB_OP_COUNT] = {
#define OP(name, family, ...) [NB_OP_##name] = &nb_lower_##family,
#include "ir/ops.def"
#undef OP
};

const nb_lowering *nb_lowering_of(nb_op_kind kind) { return table[kind]; }

/* Ops of these families leave nothing to run: a view shares its operand's memory. */
const nb_lowering nb_lower_view = {0};
const nb_lowering nb_lower_return = {0};

/* ---- refusals ------------------------------------------------------------------------------ */

nb_status nb_refuse(const nb_op *op, nb_diags *diags, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    const char *reason = nb_vformat(diags->arena, fmt, args);
    va_end(args);
    nb_where where = NB_NOWHERE;
    where.node = nb_loc_name(op->loc);
    return nb_error(diags, NB_UNSUPPORTED, where, "codegen: %s: %s", nb_info(op)->name, reason);
}

static bool is_plain(const nb_type *t) {
    nb_elem e = t->elem;
    return !t->quant && nb_elems[e].bits >= 8 &&
           (!nb_elem_is_float(e) || e == NB_F64 || e == NB_F32 || e == NB_F16 || e == NB_BF16);
}

nb_status nb_accept_plain(const nb_op *op, const cg_cpu *cpu, nb_diags *diags) {
    (void)cpu;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        const nb_value *v = nb_in(op, i);
        if (v && !is_plain(v->type))
            return nb_refuse(op, diags, "operand '%s' has type %s", v->name,
                             nb_type_text(diags->arena, v->type));
    }
    for (uint32_t i = 0; i < op->n_results; i++)
        if (!is_plain(op->results[i]->type))
            return nb_refuse(op, diags, "result '%s' has type %s", op->results[i]->name,
                             nb_type_text(diags->arena, op->results[i]->type));
    return NB_OK;
}

cg_val nb_items_rows(nb_lower *l, int phase) {
    (void)phase;
    const cg_buf *x = &l->in[0].buf;
    return cg_buf_count_range(l->g, x, 0, x->rank - 1);
}

/* ---- dimensions ---------------------------------------------------------------------------- */

nb_dims *nb_dims_create(cg *g, cg_val symbols, bool checked) {
    nb_dims *d = NB_NEW(cg_arena(g), nb_dims);
    d->g = g;
    d->symbols = symbols;
    d->known.arena = cg_arena(g);
    d->checked = checked;
    if (checked) d->overflow = cg_var_new(g, cg_i1(g, false));
    return d;
}

cg_val nb_dims_symbol(nb_dims *d, size_t index) {
    cg *g = d->g;
    return cg_load(g, CG_S(CG_I64), cg_index(g, d->symbols, CG_I64, cg_i64(g, (int64_t)index)), 8);
}

cg_val nb_dims_add(nb_dims *d, cg_val a, cg_val b) {
    return d->checked ? cg_add_checked(d->g, a, b, d->overflow) : cg_add(d->g, a, b);
}

cg_val nb_dims_mul(nb_dims *d, cg_val a, cg_val b) {
    return d->checked ? cg_mul_checked(d->g, a, b, d->overflow) : cg_mul(d->g, a, b);
}

/* Division by a positive number, towards minus infinity. A divisor of 0 counts as overflow. */
static cg_val floordiv(nb_dims *d, cg_val a, cg_val b) {
    cg *g = d->g;
    int64_t known;
    if (!cg_known(b, &known)) {
        cg_val bad = cg_cmpi(g, CG_LE, b, 0);
        if (d->checked) cg_set(g, d->overflow, cg_or(g, cg_get(g, d->overflow), bad));
        b = cg_select(g, bad, cg_i64(g, 1), b);
    }
    cg_val quotient = cg_sdiv(g, a, b), rest = cg_srem(g, a, b);
    return cg_add(g, quotient, cg_sext(g, cg_cmpi(g, CG_LT, rest, 0), CG_I64));
}

static cg_val compute(nb_dims *d, const nb_dim *dim) {
    cg *g = d->g;
    if (dim->kind == NB_DIM_CONST) return cg_i64(g, dim->value);
    cg_val known = (cg_val)nb_map_get(&d->known, dim);
    if (known) return known;
    cg_val v;
    if (dim->kind == NB_DIM_SYMBOL) {
        v = nb_dims_symbol(d, dim->symbol->index);
    } else {
        cg_val a = compute(d, dim->a), b = compute(d, dim->b);
        switch (dim->kind) {
        case NB_DIM_ADD:
            v = nb_dims_add(d, a, b);
            break;
        case NB_DIM_MUL:
            v = nb_dims_mul(d, a, b);
            break;
        case NB_DIM_FLOORDIV:
            v = floordiv(d, a, b);
            break;
        case NB_DIM_CEILDIV:
            v = cg_neg(g, floordiv(d, cg_neg(g, a), b));
            break;
        case NB_DIM_MIN:
            v = cg_smin(g, a, b);
            break;
        default:
            v = cg_smax(g, a, b);
            break;
        }
    }
    nb_map_set(&d->known, dim, v);
    return v;
}

cg_val nb_dims_value(nb_dims *d, const nb_dim *dim) {
    if (dim->kind == NB_DIM_CONST || d->checked) return compute(d, dim);
    cg_entry_begin(d->g);
    cg_val v = compute(d, dim);
    cg_entry_end(d->g);
    return v;
}

cg_val nb_size_value(nb_lower *l, const nb_dim *dim) { return nb_dims_value(l->dims, dim); }

cg_val nb_dims_bytes(nb_dims *d, nb_elem elem, cg_val count) {
    cg *g = d->g;
    int bits = nb_elems[elem].bits;
    if (bits >= 8) return nb_dims_mul(d, count, cg_i64(g, bits / 8));
    return cg_lshri(g, nb_dims_add(d, nb_dims_mul(d, count, cg_i64(g, bits)), cg_i64(g, 7)), 3);
}

static cg_val align64(nb_dims *d, cg_val bytes) {
    return cg_andi(d->g, nb_dims_add(d, bytes, cg_i64(d->g, 63)), -64);
}

static bool has_token_scales(const nb_type *t) {
    return t->quant &&
           (t->quant->granularity == NB_PER_TOKEN || t->quant->granularity == NB_PER_BLOCK);
}

static cg_val length(nb_dims *d, const nb_dim *dim) {
    cg_val v = nb_dims_value(d, dim);
    return d->lenient ? cg_smax(d->g, v, cg_i64(d->g, 0)) : v;
}

cg_val nb_dims_value_bytes(nb_dims *d, const nb_type *t) {
    cg *g = d->g;
    cg_val rows = cg_i64(g, 1), count;
    /* A length below zero is as bad as one that overflows. */
    for (int i = 0; d->checked && !d->lenient && i < t->rank; i++) {
        if (t->dims[i]->kind == NB_DIM_CONST || t->dims[i]->kind == NB_DIM_SYMBOL) continue;
        cg_val negative = cg_cmpi(g, CG_LT, nb_dims_value(d, t->dims[i]), 0);
        cg_set(g, d->overflow, cg_or(g, cg_get(g, d->overflow), negative));
    }
    for (int i = 0; i + 1 < t->rank; i++) rows = nb_dims_mul(d, rows, length(d, t->dims[i]));
    count = t->rank ? nb_dims_mul(d, rows, length(d, t->dims[t->rank - 1])) : rows;
    cg_val bytes = align64(d, nb_dims_bytes(d, t->elem, count));
    if (!has_token_scales(t)) return bytes;
    cg_val scales = rows;
    if (t->quant->granularity == NB_PER_BLOCK) {
        cg_val last = nb_dims_value(d, t->dims[t->rank - 1]), group = cg_i64(g, t->quant->group);
        scales = nb_dims_mul(d, rows, cg_ceildiv(g, last, group));
    }
    return nb_dims_add(d, bytes, align64(d, nb_dims_bytes(d, NB_F32, scales)));
}

/* ---- operands ------------------------------------------------------------------------------ */

/* Row-major, except that a state's buffer has room for `capacity` entries along its axis. */
static cg_buf buffer_of(nb_lower *l, const nb_model_build *b, const nb_value *v, cg_val base) {
    cg *g = l->g;
    const nb_type *t = v->type;
    cg_val dims[NB_MAX_RANK];
    for (int i = 0; i < t->rank; i++) dims[i] = nb_dims_value(l->dims, t->dims[i]);
    cg_buf buf;
    if (v->storage.kind == NB_STORE_STATE) {
        int axis = b->graph->states.items[v->storage.index].axis;
        cg_val length = dims[axis];
        cg_entry_begin(g);
        dims[axis] = nb_dims_symbol(l->dims, NB_SYMBOL_CAPACITY(b->graph));
        buf = cg_buf_dense(g, base, t->elem, t->rank, dims);
        cg_entry_end(g);
        buf.dims[axis] = length;
        if (axis > 0) buf.dense[axis - 1] = false;
    } else {
        cg_entry_begin(g);
        buf = cg_buf_dense(g, base, t->elem, t->rank, dims);
        cg_entry_end(g);
    }
    bool leaves = v->storage.kind == NB_STORE_OUTPUT || v->storage.kind == NB_STORE_STATE;
    buf.canonical = leaves && nb_elem_is_float(t->elem);
    bool own = v->storage.kind == NB_STORE_SLOT || v->storage.kind == NB_STORE_WEIGHT;
    buf.align = own                                             ? 64
                : nb_max_i64(nb_elems[t->elem].bits / 8, 1) > 1 ? nb_elems[t->elem].bits / 8
                                                                : 1;
    return buf;
}

/* The same of what a chain reads, where it may be part of another value. */
static cg_buf buffer_read(nb_lower *l, const nb_model_build *b, nb_value *v, cg_val base) {
    const cg_buf whole = buffer_of(l, b, nb_chain_source(v), base);
    return nb_is_window(v) ? nb_slice_view(l, v->def, &whole) : whole;
}

static cg_val immediate_of(cg *g, const nb_value *v) {
    nb_tensor t = nb_tensor_of_const(nb_root_of(v));
    cg_kind kind = cg_compute_kind(t.elem);
    if (t.elem == NB_F64) return cg_f64(g, nb_tensor_get(&t, 0));
    if (nb_elem_is_float(t.elem)) return cg_f32(g, (float)nb_tensor_get(&t, 0));
    return cg_const(g, CG_S(kind), nb_tensor_get_int(&t, 0) & (kind == CG_I1 ? 1 : -1));
}

/* Where such a constant stands in memory, for kernels that do not look at `immediate`. */
static cg_val memory_of(cg *g, const nb_value *v) {
    const nb_value *root = nb_root_of(v);
    return cg_table(g, root->blob->data, (size_t)nb_elems[root->type->elem].bits / 8, 64);
}

static void open_operand(nb_lower *l, const nb_model_build *b, nb_operand *o, nb_value *v) {
    if (!v) return;
    const nb_value *root = nb_root_of(v);
    o->value = v;
    o->constant = nb_is_const(root) ? root : NULL;
    o->buf = buffer_read(l, b, v, NULL);
    if (nb_is_immediate(v)) o->immediate = immediate_of(l->g, v);
}

void nb_lower_open(nb_lower *l, const nb_model_build *b, cg *g, const nb_op *op, nb_dims *dims,
                   cg_val refs_pointer) {
    *l = (nb_lower){.g = g, .op = op, .dims = dims, .chain = nb_chain_of(b->arena, op)};
    const size_t n_inputs = l->chain.inputs.count;
    nb_value *const *inputs = l->chain.inputs.items;
    l->in = NB_NEW_ARRAY(b->arena, nb_operand, n_inputs + 1);
    l->out = NB_NEW_ARRAY(b->arena, nb_operand, op->n_results + 1U);
    for (size_t i = 0; i < n_inputs; i++) open_operand(l, b, &l->in[i], inputs[i]);
    for (uint32_t i = 0; i < op->n_results; i++) open_operand(l, b, &l->out[i], op->results[i]);
    cg_entry_begin(g);
    l->threads = nb_dims_symbol(dims, NB_SYMBOL_THREADS(b->graph));
    cg_entry_end(g);
    if (!refs_pointer) return;
    for (size_t i = 0; i < n_inputs; i++)
        if (l->in[i].immediate) l->in[i].buf.base = memory_of(g, inputs[i]);

    nb_refs refs = nb_refs_of(b->arena, op, b->options->cpu);
    for (size_t i = 0; i < refs.count; i++) {
        const nb_ref *r = &refs.items[i];
        nb_operand *o = r->result ? &l->out[r->index] : &l->in[r->index];
        cg_entry_begin(g);
        cg_val p =
            cg_load(g, CG_S(CG_PTR), cg_index(g, refs_pointer, CG_PTR, cg_i64(g, (int64_t)i)), 8);
        if (r->part == NB_REF_SCALES) {
            o->quant_scales = p;
        } else if (r->part == NB_REF_ZEROS) {
            o->quant_zeros = p;
        } else if (r->part == NB_REF_MINIMA) {
            o->quant_minima = p;
        } else {
            o->buf.base = p;
            if (has_token_scales(o->value->type)) {
                cg_val bytes = nb_dims_bytes(dims, o->buf.elem, cg_buf_count(g, &o->buf));
                o->scales = cg_offset(g, p, align64(dims, bytes));
            }
        }
        cg_entry_end(g);
        if (!r->result && inputs[r->index] && nb_is_window(inputs[r->index]))
            o->buf = buffer_read(l, b, inputs[r->index], p);
    }
}
