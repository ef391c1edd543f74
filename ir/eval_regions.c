/* if and loop: their bodies run as graphs of their own. */
#include "ir/eval_private.h"

#include <string.h>

/* The sizes that the body says what it takes has. */
static nb_status check_capture(const nb_evaluating *e, const nb_value *param, size_t operand) {
    for (int d = 0; d < param->type->rank; d++) {
        int64_t size;
        NB_TRY(nb_dim_value(e, param->type->dims[d], &size));
        if (size != e->in[operand].dims[d])
            return nb_eval_error(e, "'%s' has size %lld along axis %d, the body takes %lld",
                                 nb_in(e->op, operand)->name, (long long)e->in[operand].dims[d], d,
                                 (long long)size);
    }
    return NB_OK;
}

static nb_status copy_result(const nb_evaluating *e, const nb_tensor *from, size_t result) {
    nb_tensor *to = &e->out[result];
    for (int d = 0; d < to->rank; d++) {
        if (to->dims[d] != from->dims[d])
            return nb_eval_error(e, "'%s' has size %lld along axis %d, the body gives %lld",
                                 e->op->results[result]->name, (long long)to->dims[d], d,
                                 (long long)from->dims[d]);
    }
    if (to->bytes) memcpy(to->data, from->data, (size_t)to->bytes);
    return NB_OK;
}

nb_status nb_eval_if(const nb_evaluating *e) {
    const nb_region *body = e->op->regions[nb_tensor_get_int(&e->in[0], 0) ? 0 : 1];
    for (uint32_t i = 0; i < body->n_params; i++)
        NB_TRY(check_capture(e, body->params[i], (size_t)i + 1));
    nb_tensor *results = NB_NEW_ARRAY(e->arena, nb_tensor, (size_t)e->op->n_results + 1);
    NB_TRY(nb_eval_region(e, body, e->in + 1, results, e->arena));
    for (uint32_t i = 0; i < e->op->n_results; i++) NB_TRY(copy_result(e, &results[i], i));
    return NB_OK;
}

typedef struct looping {
    const nb_evaluating *e;
    const nb_region *body;
    int64_t step, end; /* of steps, if the condition does not end it before */
    bool alive;
    uint32_t carried, sliced, conditions;
    const nb_attr *reverse;
    nb_tensor *params, *results;
} looping;

/* Entry `step` along axis 0, or from the end. */
static nb_tensor slice_of(const looping *l, const nb_tensor *t, uint32_t side) {
    const bool back = l->reverse->ints.count > side && l->reverse->ints.items[side];
    const int64_t n = t->dims[0], bytes = n ? t->bytes / n : 0;
    nb_tensor s = {.elem = t->elem, .rank = t->rank - 1, .bytes = bytes};
    memcpy(s.dims, t->dims + 1, sizeof(int64_t) * (size_t)s.rank);
    s.data = (char *)t->data + bytes * (back ? n - 1 - l->step : l->step);
    return s;
}

static nb_status start(looping *l) {
    const nb_evaluating *e = l->e;
    const nb_op *op = e->op;
    const nb_attr *count = nb_attr_of(op, "count");
    l->end = INT64_MAX;
    if (count->set) NB_TRY(nb_dim_value(e, count->dims.items[0], &l->end));
    if (nb_given(e, 0)) l->end = nb_min_i64(l->end, nb_tensor_get_int(&e->in[0], 0));
    l->conditions = nb_given(e, 1);
    l->alive = !l->conditions || nb_tensor_get_int(&e->in[1], 0);
    l->carried = (uint32_t)nb_attr_int(op, "carried");
    l->sliced = (uint32_t)nb_attr_int(op, "sliced");
    l->reverse = nb_attr_of(op, "reverse");
    l->params = NB_NEW_ARRAY(e->arena, nb_tensor, (size_t)l->body->n_params + 1);
    l->results = NB_NEW_ARRAY(e->arena, nb_tensor, (size_t)op->n_results + 2);
    l->params[0] = (nb_tensor){.elem = NB_I64, .bytes = 8, .data = &l->step};
    for (uint32_t i = 0; i + NB_LOOP_OPERANDS < op->n_operands; i++) {
        l->params[i + NB_LOOP_PARAMS] = e->in[i + NB_LOOP_OPERANDS];
        if (i >= l->carried + l->sliced)
            NB_TRY(check_capture(e, l->body->params[i + NB_LOOP_PARAMS], i + NB_LOOP_OPERANDS));
    }
    return NB_OK;
}

static nb_status run_step(looping *l, nb_arena *arena) {
    const nb_evaluating *e = l->e;
    for (uint32_t i = 0; i < l->sliced; i++)
        l->params[NB_LOOP_PARAMS + l->carried + i] =
            slice_of(l, &e->in[NB_LOOP_OPERANDS + l->carried + i], i);
    NB_TRY(nb_eval_region(e, l->body, l->params, l->results, arena));
    const nb_tensor *values = l->results + l->conditions;
    if (l->conditions) l->alive = nb_tensor_get_int(&l->results[0], 0);
    for (uint32_t i = 0; i < l->carried; i++) l->params[NB_LOOP_PARAMS + i] = values[i];
    for (uint32_t i = l->carried; i < e->op->n_results; i++) {
        const nb_tensor to = slice_of(l, &e->out[i], l->sliced + i - l->carried);
        if (to.bytes) memcpy(to.data, values[i].data, (size_t)to.bytes);
    }
    return NB_OK;
}

nb_status nb_eval_loop(const nb_evaluating *e) {
    looping l = {.e = e, .body = e->op->regions[0]};
    NB_TRY(start(&l));
    /* What one step made lives until the next has read it. */
    nb_arena *before = NULL;
    nb_status status = NB_OK;
    for (; status == NB_OK && l.alive && l.step < l.end; l.step++) {
        nb_arena *arena = nb_arena_create_like(e->arena);
        status = run_step(&l, arena);
        nb_arena_destroy(before);
        before = arena;
    }
    for (uint32_t i = 0; status == NB_OK && i < l.carried; i++)
        status = copy_result(e, &l.params[NB_LOOP_PARAMS + i], i);
    nb_arena_destroy(before);
    return status;
}
