/* call: rows of the result are computed by a C function that is linked with the model.
 *
 * One row is one item. The function sees dense tensors; where the result leaves the model its NaNs
 * become the usual one afterwards, row by row, as those of every other op do. */
#include "codegen/lower.h"
#include "codegen/refs.h"

static nb_status refuse_state(const nb_op *op, nb_diags *diags, const nb_value *v) {
    if (nb_root_of(v)->storage.kind != NB_STORE_STATE && v->storage.kind != NB_STORE_STATE)
        return NB_OK;
    return nb_refuse(op, diags, "'%s' is a state, whose rows lie apart", v->name);
}

static nb_status accept(const nb_op *op, const cg_cpu *cpu, nb_diags *diags) {
    NB_TRY(nb_accept_plain(op, cpu, diags));
    for (uint32_t i = 0; i < op->n_operands; i++) NB_TRY(refuse_state(op, diags, nb_in(op, i)));
    return refuse_state(op, diags, nb_out(op));
}

static cg_val items(nb_lower *l, int phase) {
    const cg_buf *y = &l->out[0].buf;
    (void)phase;
    return y->rank > 1 ? cg_buf_count_range(l->g, y, 0, y->rank - 1) : cg_i64(l->g, 1);
}

/* Elements of a row, times some: what the function does with each is not known. */
static cg_val work(nb_lower *l, int phase) {
    const cg_buf *y = &l->out[0].buf;
    (void)phase;
    cg_val one = cg_i64(l->g, 1);
    return cg_muli(l->g, y->rank ? cg_smax(l->g, y->dims[y->rank - 1], one) : one, 16);
}

static void put(cg *g, cg_val array, cg_kind kind, int64_t i, cg_val v) {
    cg_store(g, v, cg_index(g, array, kind, cg_i64(g, i)), 8);
}

static cg_val operands_of(nb_lower *l) {
    cg *g = l->g;
    cg_val array = cg_stack(g, 8 * ((int64_t)l->op->n_operands + 1), 8);
    for (uint32_t i = 0; i < l->op->n_operands; i++) put(g, array, CG_PTR, i, l->in[i].buf.base);
    return array;
}

static cg_val dims_of(nb_lower *l) {
    cg *g = l->g;
    const uint32_t n = l->op->n_operands;
    int64_t count = 0;
    for (uint32_t i = 0; i <= n; i++) count += i < n ? l->in[i].buf.rank : l->out[0].buf.rank;
    cg_val array = cg_stack(g, 8 * (count + 1), 8);
    int64_t at = 0;
    for (uint32_t i = 0; i <= n; i++) {
        const cg_buf *b = i < n ? &l->in[i].buf : &l->out[0].buf;
        for (int d = 0; d < b->rank; d++) put(g, array, CG_I64, at++, b->dims[d]);
    }
    return array;
}

static cg_val numbers_of(nb_lower *l) {
    const nb_attr *a = nb_attr_of(l->op, "numbers");
    if (!a->ints.count) return cg_zero(l->g, CG_S(CG_PTR));
    return cg_table(l->g, a->ints.items, a->ints.count * sizeof *a->ints.items, 8);
}

static void rewrite16(cg *g, void *user, cg_val i, cg_val n) {
    const cg_buf *row = user;
    cg_val at = cg_buf_step(g, row, row->base, i), one = cg_i64(g, 1);
    cg_buf_store_part(g, row, at, one, cg_buf_load_part(g, row, at, one, n), n);
}

static void make_canonical(cg *g, const cg_buf *y, cg_val begin, cg_val end) {
    cg_val one = cg_i64(g, 1);
    CG_FOR(g, row, begin, end, one) {
        cg_buf b = *y;
        if (y->rank) b.base = cg_buf_row(g, y, 1, row);
        cg_for16(g, y->rank ? y->dims[y->rank - 1] : one, rewrite16, &b);
    }
}

static void body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    cg *g = l->g;
    const cg_type p = CG_S(CG_PTR), n = CG_S(CG_I64);
    const cg_buf *y = &l->out[0].buf;
    (void)phase;
    const char *name = nb_format(cg_arena(g), "nb_call_%s", nb_attr_of(l->op, "function")->str);
    cg_val function =
        cg_extern(cg_module_of(g), name, CG_S(CG_VOID), 6, (const cg_type[]){p, p, p, p, n, n});
    cg_call(g, function, 6,
            (cg_val[]){operands_of(l), y->base, dims_of(l), numbers_of(l), begin, end});
    if (y->canonical) make_canonical(g, y, begin, end);
}

const nb_lowering nb_lower_call = {.accept = accept, .items = items, .work = work, .body = body};
