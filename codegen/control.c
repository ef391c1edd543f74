/* if and loop: their bodies become blocks and loops of `run`, in which each op is run as elsewhere.
 *
 * plan-memory has put what a body takes from outside where it is outside. The rest is copied here:
 * into the body what a step takes as a slice and what the first step takes over, out of it what a
 * step stacks and what the next one takes over. The results of an `if` lie where the bodies make
 * them, or are copied. */
#include "codegen/model.h"

static nb_status accept(const nb_op *op, const cg_cpu *cpu, nb_diags *diags) {
    (void)cpu;
    for (uint32_t i = 0; i < op->n_results; i++)
        if (nb_elems[op->results[i]->type->elem].bits < 8)
            return nb_refuse(op, diags, "result '%s' has type %s", op->results[i]->name,
                             nb_type_text(diags->arena, op->results[i]->type));
    return NB_OK;
}

const nb_lowering nb_lower_if = {.accept = accept};
const nb_lowering nb_lower_loop = {.accept = accept};

/* ---- pieces -------------------------------------------------------------------------------- */

static cg_val address(nb_runner *r, const nb_value *v) {
    return nb_frame_address(r->build, r->g, r->frame, v);
}

static cg_val bytes_of(nb_runner *r, const nb_type *t) {
    cg *g = r->g;
    cg_val count = cg_i64(g, 1);
    for (int i = 0; i < t->rank; i++) count = cg_mul(g, count, nb_dims_value(r->dims, t->dims[i]));
    return cg_muli(g, count, nb_elems[t->elem].bits / 8);
}

static bool same_place(const nb_value *a, const nb_value *b) {
    return a->storage.kind == b->storage.kind && a->storage.index == b->storage.index;
}

static void copy_value(nb_runner *r, const nb_value *to, const nb_value *from) {
    if (same_place(to, from)) return;
    cg_memcpy(r->g, address(r, to), address(r, from), bytes_of(r, from->type));
}

static cg_val load_flag(nb_runner *r, const nb_value *v) {
    return cg_cmpi(r->g, CG_NE, cg_load(r->g, CG_S(CG_I8), address(r, v), 1), 0);
}

/* Are the sizes in this run those that `b` says? */
static void check_sizes(nb_runner *r, const nb_type *a, const nb_type *b) {
    cg *g = r->g;
    for (int d = 0; d < a->rank; d++) {
        if (a->dims[d] == b->dims[d]) continue;
        nb_run_fails(r, cg_cmp(g, CG_NE, nb_dims_value(r->dims, a->dims[d]),
                               nb_dims_value(r->dims, b->dims[d])));
    }
}

static void run_body(nb_runner *r, const nb_region *body) {
    r->scratch = NULL; /* whatever ran before may not have */
    nb_run_region(r, body);
    r->scratch = NULL;
}

/* ---- if ------------------------------------------------------------------------------------ */

static void run_branch(nb_runner *r, const nb_op *op, uint32_t branch) {
    const nb_region *body = op->regions[branch];
    const char *path = r->path;
    r->path = nb_format(r->build->arena, "%s%s_", path, branch ? "else" : "then");
    for (uint32_t i = 0; i < body->n_params; i++)
        check_sizes(r, nb_in(op, i + 1)->type, body->params[i]->type);
    nb_run_check_signs(r, body->first, NULL);
    run_body(r, body);
    for (uint32_t i = 0; i < op->n_results; i++) {
        const nb_value *from = nb_in(body->last, i);
        check_sizes(r, op->results[i]->type, from->type);
        copy_value(r, op->results[i], from);
    }
    r->path = path;
}

static void run_if(nb_runner *r, const nb_op *op) {
    cg *g = r->g;
    CG_IF(g, load_flag(r, nb_in(op, 0))) run_branch(r, op, 0);
    CG_ELSE(g) run_branch(r, op, 1);
}

/* ---- loop ---------------------------------------------------------------------------------- */

typedef struct looping {
    nb_runner *r;
    const nb_op *op;
    const nb_region *body;
    uint32_t carried, sliced, conditions;
    cg_val count; /* i64; NULL: no bound */
    cg_val end;   /* i64: of steps, if the condition does not end it before */
    cg_val step;  /* i64 */
    cg_var alive; /* i1: does the condition hold? */
} looping;

static const nb_value *operand(const looping *l, uint32_t i) {
    return nb_in(l->op, i + NB_LOOP_OPERANDS);
}
static const nb_value *param(const looping *l, uint32_t i) {
    return l->body->params[i + NB_LOOP_PARAMS];
}
static const nb_value *returned(const looping *l, uint32_t i) {
    return nb_in(l->body->last, i + l->conditions);
}

/* Entry `step` along axis 0 of `whole`, or counted from the end; it has the type of `part`. */
static cg_val slice_address(const looping *l, const nb_value *whole, const nb_value *part,
                            uint32_t side) {
    cg *g = l->r->g;
    const nb_attr *reverse = nb_attr_of(l->op, "reverse");
    const bool back = reverse->ints.count > side && reverse->ints.items[side];
    cg_val at = back ? cg_sub(g, cg_addi(g, l->count, -1), l->step) : l->step;
    return cg_offset(g, address(l->r, whole), cg_mul(g, at, bytes_of(l->r, part->type)));
}

static void before_all(looping *l) {
    nb_runner *r = l->r;
    cg *g = r->g;
    for (uint32_t i = 0; i + NB_LOOP_OPERANDS < l->op->n_operands; i++) {
        if (i < l->carried) copy_value(r, param(l, i), operand(l, i));
        if (i >= l->carried + l->sliced) check_sizes(r, operand(l, i)->type, param(l, i)->type);
    }
    const nb_attr *count = nb_attr_of(l->op, "count");
    l->count = count->set ? nb_dims_value(r->dims, count->dims.items[0]) : NULL;
    nb_run_check_signs(r, l->body->first, NULL);
    l->end = l->count ? l->count : cg_i64(g, INT64_MAX);
    const nb_value *limit = nb_in(l->op, 0);
    if (limit) l->end = cg_smin(g, l->end, cg_load(g, CG_S(CG_I64), address(r, limit), 8));
    /* Steps that do not come leave zeros. */
    for (uint32_t i = l->carried; (limit || l->conditions) && i < l->op->n_results; i++)
        cg_memset(g, address(r, l->op->results[i]), 0, bytes_of(r, l->op->results[i]->type));
}

static void run_step(looping *l) {
    nb_runner *r = l->r;
    cg *g = r->g;
    cg_store(g, l->step, address(r, l->body->params[0]), 8);
    for (uint32_t i = l->carried; i < l->carried + l->sliced; i++)
        cg_memcpy(g, address(r, param(l, i)),
                  slice_address(l, operand(l, i), param(l, i), i - l->carried),
                  bytes_of(r, param(l, i)->type));
    run_body(r, l->body);
    for (uint32_t i = l->carried; i < l->op->n_results; i++)
        cg_memcpy(g,
                  slice_address(l, l->op->results[i], returned(l, i), l->sliced + i - l->carried),
                  address(r, returned(l, i)), bytes_of(r, returned(l, i)->type));
    if (l->conditions) cg_set(g, l->alive, load_flag(r, nb_in(l->body->last, 0)));
    for (uint32_t i = 0; i < l->carried; i++) copy_value(r, param(l, i), returned(l, i));
}

static void run_loop(nb_runner *r, const nb_op *op) {
    cg *g = r->g;
    looping l = {.r = r,
                 .op = op,
                 .body = op->regions[0],
                 .carried = (uint32_t)nb_attr_int(op, "carried"),
                 .sliced = (uint32_t)nb_attr_int(op, "sliced"),
                 .conditions = nb_in(op, 1) != NULL};
    before_all(&l);
    cg_var step = cg_var_new(g, cg_i64(g, 0));
    l.alive = cg_var_new(g, l.conditions ? load_flag(r, nb_in(op, 1)) : cg_i1(g, true));
    CG_WHILE(g, cg_and(g, cg_get(g, l.alive), cg_cmp(g, CG_LT, cg_get(g, step), l.end))) {
        nb_run_look(r);
        l.step = cg_get(g, step);
        run_step(&l);
        cg_set(g, step, cg_addi(g, cg_get(g, step), 1));
    }
}

void nb_run_control(nb_runner *r, const nb_op *op) {
    if (op->kind == NB_OP_if)
        run_if(r, op);
    else
        run_loop(r, op);
}
