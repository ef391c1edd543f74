/* The code of a model: shared kernels, a task function for each op, and `run`.
 *
 *   kernel_<k>(symbols, refs, scratch, begin, end)   the work, shared by ops with equal keys
 *   op_<n>_<name>(frame, begin, end)                 collects the op's addresses, calls its kernel
 *   check_<n>_<name>(frame)                          are all run-time indices in range?
 *   run(frame)                                       all ops in order, in parallel where it pays;
 *                                                    bodies of ops are blocks in it (control.c),
 *                                                    what follows a `bind` is run_<n> (counted.c)
 */
#include "codegen/model.h"
#include "codegen/reuse.h"
#include "runtime/nb_model.h"

#include <stddef.h>
#include <string.h>

/* Below this many scalar operations a loop runs on the calling thread: waking another one costs a
 * few microseconds, which is about as many vectorized operations. */
#define PARALLEL_MIN 65536
#define DEFAULT_WORK 1024
#define MAX_PHASES   64
#define MAX_ROW      8 /* products of one input that are one loop */

typedef struct kernel {
    cg_val check;
    int n_phases;
    cg_val phases[MAX_PHASES];
} kernel;

cg_val nb_frame_member(cg *g, cg_val frame, cg_kind kind, size_t offset) {
    return cg_load(g, CG_S(kind), cg_offset(g, frame, cg_i64(g, (int64_t)offset)), 0);
}

static cg_val frame_entry(cg *g, cg_val frame, size_t member, cg_kind kind, uint32_t index) {
    cg_val array = nb_frame_member(g, frame, CG_PTR, member);
    return cg_load(g, CG_S(kind), cg_index(g, array, kind, cg_i64(g, index)), 0);
}

static int phases_of(const nb_lowering *lowering, const nb_op *op) {
    return lowering->phases ? lowering->phases(op) : 1;
}

static const char *function_name(const nb_model_build *b, const char *prefix, const char *number,
                                 const nb_op *op, int phase) {
    const char *node = nb_loc_name(op->loc);
    const char *name = b->options->cache ? nb_info(op)->name
                                         : nb_identifier(b->arena, *node ? node : nb_out(op)->name);
    if (strlen(name) > 100) name = nb_strndup(b->arena, name, 100);
    if (phase == 0) return nb_format(b->arena, "%s_%s_%s", prefix, number, name);
    return nb_format(b->arena, "%s_%s_%s_%d", prefix, number, name, phase);
}

/* ---- kernels ------------------------------------------------------------------------------- */

static cg_val emit_phase(nb_model_build *b, const nb_op *op, const char *name, int phase) {
    const nb_lowering *lowering = nb_lowering_of(op->kind);
    const cg_type params[] = {CG_S(CG_PTR), CG_S(CG_PTR), CG_S(CG_PTR), CG_S(CG_I64), CG_S(CG_I64)};
    cg *g = cg_function(b->m, name, CG_S(CG_VOID), 5, params, CG_NOINLINE);
    nb_lower l;
    nb_lower_open(&l, b, g, op, nb_dims_create(g, cg_param(g, 0), false), cg_param(g, 1));
    if (lowering->scratch) l.scratch = cg_param(g, 2);
    lowering->body(&l, phase, cg_param(g, 3), cg_param(g, 4));
    return cg_finish(g);
}

static cg_val emit_check(nb_model_build *b, const nb_op *op, const char *name) {
    const cg_type params[] = {CG_S(CG_PTR), CG_S(CG_PTR)};
    cg *g = cg_function(b->m, name, CG_S(CG_I1), 2, params, 0);
    nb_lower l;
    nb_lower_open(&l, b, g, op, nb_dims_create(g, cg_param(g, 0), false), cg_param(g, 1));
    cg_return(g, nb_lowering_of(op->kind)->check(&l));
    return cg_finish(g);
}

static const kernel *kernel_of(nb_model_build *b, const nb_op *op) {
    const char *key = nb_kernel_key(b->arena, op, b->graph, b->options->cpu);
    kernel *k = (kernel *)nb_map_get_str(&b->kernels, key, strlen(key));
    if (k) return k;
    const nb_lowering *lowering = nb_lowering_of(op->kind);
    k = NB_NEW(b->arena, kernel);
    const char *name = nb_format(b->arena, "kernel_%u_%s", b->n_kernels++, nb_info(op)->name);
    k->n_phases = phases_of(lowering, op);
    for (int phase = 0; phase < k->n_phases; phase++) {
        const char *part = phase ? nb_format(b->arena, "%s_%d", name, phase) : name;
        k->phases[phase] = emit_phase(b, op, part, phase);
    }
    if (lowering->check) k->check = emit_check(b, op, nb_format(b->arena, "%s_check", name));
    nb_map_set_str(&b->kernels, key, strlen(key), k);
    return k;
}

/* ---- tasks --------------------------------------------------------------------------------- */

cg_val nb_frame_address(const nb_model_build *b, cg *g, cg_val frame, const nb_value *v) {
    const nb_storage s = v->storage;
    const uint32_t n_inputs = b->graph->body.n_params;
    const size_t ports = offsetof(nb_frame, ports);
    switch (s.kind) {
    case NB_STORE_INPUT:
        return frame_entry(g, frame, ports, CG_PTR, s.index);
    case NB_STORE_OUTPUT:
        return frame_entry(g, frame, ports, CG_PTR, n_inputs + s.index);
    case NB_STORE_STATE:
        return frame_entry(g, frame, ports, CG_PTR, b->graph->states.items[s.index].input);
    default:
        break;
    }
    cg_val arena = nb_frame_member(g, frame, CG_PTR, offsetof(nb_frame, arena));
    cg_val offset = frame_entry(g, frame, offsetof(nb_frame, offsets), CG_I64, s.index);
    return cg_offset(g, arena, offset);
}

static cg_val address_of(const nb_model_build *b, cg *g, cg_val frame, const nb_ref *r) {
    if (!r->layout) return nb_frame_address(b, g, frame, r->value);
    cg_val weights = nb_frame_member(g, frame, CG_PTR, offsetof(nb_frame, weights));
    return cg_offset(g, weights, cg_i64(g, nb_pack_offset(b->pack, r->value, r->layout)));
}

/* The addresses of everything the op refers to, as an array on the stack. */
static cg_val gather_refs(const nb_model_build *b, cg *g, cg_val frame, const nb_op *op) {
    nb_refs refs = nb_refs_of(b->arena, op, b->options->cpu);
    cg_val array = cg_stack(g, 8 * (int64_t)(refs.count + 1), 8);
    for (size_t i = 0; i < refs.count; i++)
        cg_store(g, address_of(b, g, frame, &refs.items[i]),
                 cg_index(g, array, CG_PTR, cg_i64(g, (int64_t)i)), 0);
    return array;
}

static cg_val emit_task(nb_model_build *b, const nb_op *op, const char *number, int phase,
                        cg_val function) {
    const cg_type params[] = {CG_S(CG_PTR), CG_S(CG_I64), CG_S(CG_I64)};
    cg *g =
        cg_function(b->m, function_name(b, "op", number, op, phase), CG_S(CG_VOID), 3, params, 0);
    cg_val frame = cg_param(g, 0);
    cg_val scratch = cg_zero(g, CG_S(CG_PTR));
    if (nb_lowering_of(op->kind)->scratch) {
        cg_val arena = nb_frame_member(g, frame, CG_PTR, offsetof(nb_frame, arena));
        cg_val at = frame_entry(g, frame, offsetof(nb_frame, offsets), CG_I64, b->n_slots);
        scratch = cg_offset(g, arena, at);
    }
    cg_val symbols = nb_frame_member(g, frame, CG_PTR, offsetof(nb_frame, symbols));
    cg_val refs = gather_refs(b, g, frame, op);
    cg_call(g, function, 5, (cg_val[]){symbols, refs, scratch, cg_param(g, 1), cg_param(g, 2)});
    return cg_finish(g);
}

/* ---- run ----------------------------------------------------------------------------------- */

/* dispatch(frame, task, items, work of one item): on all threads, or here. */
static cg_val emit_dispatch(nb_model_build *b) {
    const cg_type params[] = {CG_S(CG_PTR), CG_S(CG_PTR), CG_S(CG_I64), CG_S(CG_I64)};
    cg *g = cg_function(b->m, "dispatch", CG_S(CG_VOID), 4, params, CG_NOINLINE);
    cg_val frame = cg_param(g, 0), task = cg_param(g, 1), items = cg_param(g, 2);
    cg_val parallel_for = nb_frame_member(g, frame, CG_PTR, offsetof(nb_frame, parallel_for));
    /* items * work >= PARALLEL_MIN without overflow, for positive numbers. */
    cg_val work = cg_smax(g, cg_param(g, 3), cg_i64(g, 1));
    cg_val enough = cg_cmp(g, CG_GE, items, cg_ceildiv(g, cg_i64(g, PARALLEL_MIN), work));
    cg_val parallel = cg_and(g, enough, cg_cmpi(g, CG_GT, items, 1));
    cg_val null = cg_zero(g, CG_S(CG_PTR));
    parallel = cg_and(g, parallel, cg_cmp(g, CG_NE, parallel_for, null));
    CG_IF(g, parallel) {
        cg_val pool = nb_frame_member(g, frame, CG_PTR, offsetof(nb_frame, pool));
        cg_call_ptr(g, parallel_for, CG_S(CG_VOID), 4, (cg_val[]){pool, items, task, frame});
    }
    CG_ELSE(g) {
        CG_IF(g, cg_cmpi(g, CG_GT, items, 0))
        cg_call_ptr(g, task, CG_S(CG_VOID), 3, (cg_val[]){frame, cg_i64(g, 0), items});
    }
    return cg_finish(g);
}

/* mark(frame, op): to whom profiles, if the frame has one. */
static cg_val emit_mark(nb_model_build *b) {
    const cg_type params[] = {CG_S(CG_PTR), CG_S(CG_I64)};
    cg *g = cg_function(b->m, "mark", CG_S(CG_VOID), 2, params, CG_NOINLINE);
    cg_val frame = cg_param(g, 0);
    cg_val size = nb_frame_member(g, frame, CG_I32, offsetof(nb_frame, size));
    CG_IF(g, cg_cmpi(g, CG_UGE, size, offsetof(nb_frame, mark_user) + sizeof(void *))) {
        cg_val mark = nb_frame_member(g, frame, CG_PTR, offsetof(nb_frame, mark));
        CG_IF(g, cg_cmp(g, CG_NE, mark, cg_zero(g, CG_S(CG_PTR)))) {
            cg_val user = nb_frame_member(g, frame, CG_PTR, offsetof(nb_frame, mark_user));
            cg_call_ptr(g, mark, CG_S(CG_VOID), 2, (cg_val[]){user, cg_param(g, 1)});
        }
    }
    return cg_finish(g);
}

void nb_run_leaves(nb_runner *r, cg_val when, int32_t result) {
    cg *g = r->g;
    CG_IF(g, when) {
        cg_val error = nb_frame_member(g, r->frame, CG_PTR, offsetof(nb_frame, error));
        CG_IF(g, cg_cmp(g, CG_NE, error, cg_zero(g, CG_S(CG_PTR))))
        cg_store(g, cg_i64(g, r->number), error, 8);
        cg_return(g, cg_i32(g, result));
    }
}

void nb_run_fails(nb_runner *r, cg_val bad) { nb_run_leaves(r, bad, NB_RUN_INDEX); }

static void run_check(nb_runner *r, const nb_op *op, const char *number, cg_val check) {
    nb_model_build *b = r->build;
    const cg_type param = CG_S(CG_PTR);
    cg *c = cg_function(b->m, function_name(b, "check", number, op, 0), CG_S(CG_I1), 1, &param, 0);
    cg_val symbols = nb_frame_member(c, cg_param(c, 0), CG_PTR, offsetof(nb_frame, symbols));
    cg_val refs = gather_refs(b, c, cg_param(c, 0), op);
    cg_return(c, cg_call(c, check, 2, (cg_val[]){symbols, refs}));
    cg_val task = cg_finish(c);

    nb_run_fails(r, cg_call(r->g, task, 1, &r->frame));
}

/* What phase 0 leaves in the scratch memory, or NULL. */
static const char *prepared_by(const nb_model_build *b, const nb_op *op) {
    const nb_lowering *lowering = nb_lowering_of(op->kind);
    if (!lowering->scratch || !lowering->prepared) return NULL;
    return lowering->prepared(b->arena, op, b->options->cpu);
}

static bool same_text(const char *a, const char *b) { return a && b && strcmp(a, b) == 0; }

/* The first phase that has to run; `scratch` says what the scratch memory holds. */
static int first_phase(nb_model_build *b, const nb_op *op, const char **scratch) {
    if (!nb_lowering_of(op->kind)->scratch) return 0;
    const char *before = *scratch;
    *scratch = prepared_by(b, op);
    return same_text(before, *scratch) ? 1 : 0;
}

/* Ops whose last phase is one loop over the items of all of them. */
typedef struct row_of_ops {
    int n;
    const nb_op *op[MAX_ROW];
    const char *number[MAX_ROW];
    uint32_t steps; /* from the first to the last */
} row_of_ops;

/* Does `op` read nothing but `first`'s first operand and constants? */
static bool reads_the_same(const nb_op *first, const nb_op *op) {
    for (uint32_t i = 0; i < op->n_operands; i++) {
        const nb_value *v = nb_in(op, i);
        if (v && !nb_is_const(v) && (i > 0 || v != nb_in(first, 0))) return false;
    }
    return true;
}

static bool joins(const nb_model_build *b, const row_of_ops *row, const nb_op *op) {
    const nb_op *first = row->op[0];
    if (row->n == MAX_ROW || op->kind != first->kind || op->n_results != 1) return false;
    if (nb_lowering_of(op->kind)->check || phases_of(nb_lowering_of(op->kind), op) != 2)
        return false;
    if (!reads_the_same(first, first) || !reads_the_same(first, op)) return false;
    for (int i = 0; i < row->n; i++) {
        const nb_storage s = nb_out(row->op[i])->storage, t = nb_out(op)->storage;
        if (s.kind == t.kind && s.index == t.index) return false;
    }
    return same_text(prepared_by(b, first), prepared_by(b, op));
}

/* `op` and those behind it that take what its phase 0 prepares: between loops threads wait for each
 * other, and memory for them. What lives in the scratch memory or in operands outlives them all,
 * and results lie apart. Who profiles wants to know of each by itself. */
static row_of_ops row_from(const nb_runner *r, const nb_op *op, uint32_t number) {
    const nb_model_build *b = r->build;
    row_of_ops row = {.n = 1, .op = {op}, .number = {nb_format(b->arena, "%s%u", r->path, number)}};
    uint32_t steps = 1;
    for (op = op->next; op && op->kind != NB_OP_bind && !b->mark; op = op->next, steps++) {
        if (nb_emits_nothing(op)) continue;
        if (!joins(b, &row, op)) break;
        row.number[row.n] = nb_format(b->arena, "%s%u", r->path, number + steps);
        row.op[row.n++] = op;
        row.steps = steps;
    }
    return row;
}

/* One task for all: items [begin, end) of theirs one after the other. */
static cg_val emit_row(nb_model_build *b, const row_of_ops *row, int phase) {
    const cg_type params[] = {CG_S(CG_PTR), CG_S(CG_I64), CG_S(CG_I64)};
    const char *name = function_name(b, "ops", row->number[0], row->op[0], phase);
    cg *g = cg_function(b->m, name, CG_S(CG_VOID), 3, params, 0);
    cg_val frame = cg_param(g, 0), before = cg_i64(g, 0);
    cg_entry_begin(g);
    cg_val symbols = nb_frame_member(g, frame, CG_PTR, offsetof(nb_frame, symbols));
    cg_entry_end(g);
    nb_dims *dims = nb_dims_create(g, symbols, false);
    for (int i = 0; i < row->n; i++) {
        const nb_op *op = row->op[i];
        cg_val task = emit_task(b, op, row->number[i], phase, kernel_of(b, op)->phases[phase]);
        nb_lower l;
        nb_lower_open(&l, b, g, op, dims, NULL);
        cg_val items = nb_lowering_of(op->kind)->items(&l, phase);
        cg_val from = cg_smax(g, cg_sub(g, cg_param(g, 1), before), cg_i64(g, 0)),
               to = cg_smin(g, cg_sub(g, cg_param(g, 2), before), items);
        CG_IF(g, cg_cmp(g, CG_LT, from, to)) { cg_call(g, task, 3, (cg_val[]){frame, from, to}); }
        before = cg_add(g, before, items);
    }
    return cg_finish(g);
}

/* Items of all, and the most work that one of them is. */
static void size_row(nb_runner *r, const row_of_ops *row, int phase, cg_val *items, cg_val *work) {
    cg *g = r->g;
    for (int i = 0; i < row->n; i++) {
        const nb_lowering *lowering = nb_lowering_of(row->op[i]->kind);
        nb_lower l;
        nb_lower_open(&l, r->build, g, row->op[i], r->dims, NULL);
        cg_val n = lowering->items(&l, phase);
        cg_val each = lowering->work ? lowering->work(&l, phase) : cg_i64(g, DEFAULT_WORK);
        *items = i ? cg_add(g, *items, n) : n;
        *work = i ? cg_smax(g, *work, each) : each;
    }
}

static void run_row(nb_runner *r, const row_of_ops *row) {
    nb_model_build *b = r->build;
    const nb_op *op = row->op[0];
    const kernel *k = kernel_of(b, op);
    if (k->check) run_check(r, op, row->number[0], k->check);
    for (int phase = first_phase(b, op, &r->scratch); phase < k->n_phases; phase++) {
        row_of_ops all = *row;
        if (phase < k->n_phases - 1) all.n = 1;
        cg_val task = all.n > 1 ? emit_row(b, &all, phase)
                                : emit_task(b, op, row->number[0], phase, k->phases[phase]);
        cg_val items = NULL, work = NULL;
        size_row(r, &all, phase, &items, &work);
        cg_call(r->g, b->dispatch, 4, (cg_val[]){r->frame, task, items, work});
    }
}

void nb_run_look(nb_runner *r) {
    CG_IF(r->g, cg_cmpi(r->g, CG_NE, cg_load_volatile(r->g, CG_S(CG_I32), r->cancel), 0))
    cg_return(r->g, cg_i32(r->g, NB_RUN_CANCELLED));
}

static void run_mark(nb_runner *r, int64_t number) {
    if (r->build->mark)
        cg_call(r->g, r->build->mark, 2, (cg_val[]){r->frame, cg_i64(r->g, number)});
}

void nb_run_ops(nb_runner *r, const nb_op *op, uint32_t number) {
    const char *path = r->path;
    const bool outermost = op->parent == &r->build->graph->body;
    for (; op; op = op->next, number++) {
        if (outermost) r->number = number;
        const char *name = nb_format(r->build->arena, "%s%u", path, number);
        if (op->kind == NB_OP_bind) {
            if (nb_run_bind(r, op, name, number)) return;
            continue;
        }
        if (nb_emits_nothing(op)) continue;
        nb_run_look(r);
        if (op->n_regions) {
            r->path = nb_format(r->build->arena, "%s_", name);
            nb_run_control(r, op);
            r->path = path;
        } else {
            const row_of_ops row = row_from(r, op, number);
            run_row(r, &row);
            op = row.op[row.n - 1];
            number += row.steps;
        }
        if (outermost) run_mark(r, number);
    }
}

void nb_run_region(nb_runner *r, const nb_region *region) {
    const size_t n = r->build->graph->symbols.count;
    bool *outside = NB_NEW_ARRAY(r->build->arena, bool, n + 1);
    if (n) memcpy(outside, r->bound, n * sizeof *outside);
    nb_run_ops(r, region->first, 0);
    if (n) memcpy(r->bound, outside, n * sizeof *outside);
}

nb_runner nb_runner_open(nb_model_build *b, cg *g) {
    cg_val frame = cg_param(g, 0), null = cg_zero(g, CG_S(CG_PTR));
    cg_entry_begin(g);
    cg_val symbols = nb_frame_member(g, frame, CG_PTR, offsetof(nb_frame, symbols));
    cg_val cancel = nb_frame_member(g, frame, CG_PTR, offsetof(nb_frame, cancel));
    /* Without a flag to look at, look at a zero of our own. */
    cg_val zero = cg_stack(g, 8, 8);
    cg_store(g, cg_i32(g, 0), zero, 0);
    cancel = cg_select(g, cg_cmp(g, CG_EQ, cancel, null), zero, cancel);
    cg_entry_end(g);
    return (nb_runner){.build = b,
                       .g = g,
                       .frame = frame,
                       .cancel = cancel,
                       .dims = nb_dims_create(g, symbols, false),
                       .path = ""};
}

void nb_model_run(nb_model_build *b) {
    const cg_type param = CG_S(CG_PTR);
    b->dispatch = emit_dispatch(b);
    b->mark = b->options->profile ? emit_mark(b) : NULL;
    cg *g = cg_function(b->m, "run", CG_S(CG_I32), 1, &param, 0);
    nb_runner r = nb_runner_open(b, g);
    r.bound = NB_NEW_ARRAY(b->arena, bool, b->graph->symbols.count + 1);
    nb_run_check_frame(&r);
    run_mark(&r, -1);
    nb_run_region(&r, &b->graph->body);
    cg_return(g, cg_i32(g, NB_RUN_OK));
    b->run = cg_finish(g);
}

/* ---- the whole ----------------------------------------------------------------------------- */

const char *nb_identifier(nb_arena *arena, const char *text) {
    bool digit = *text >= '0' && *text <= '9';
    char *name = nb_format(arena, "%s%s", digit || !*text ? "_" : "", text);
    for (char *c = name; *c; c++) {
        bool letter = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z');
        if (!letter && !(*c >= '0' && *c <= '9')) *c = '_';
    }
    return name;
}

/* Is the module's object in the cache? out->module is its hash, odd for quick code. */
static bool find_object(const nb_model_build *b, nb_object *out) {
    nb_object_cache *cache = b->options->cache;
    if (!cache) return false;
    out->module = nb_module_hash(b->m) & ~UINT64_C(1);
    if (nb_object_cache_find(cache, out->module)) return true;
    if (!b->options->quick) return false;
    out->module |= 1;
    return nb_object_cache_find(cache, out->module) != NULL;
}

static nb_status generate(void *user, nb_arena *arena, nb_diags *diags, nb_object *out) {
    nb_model_build *b = (nb_model_build *)user;
    const char *error = NULL;
    b->m = cg_module_create(arena, b->options->cpu, b->options->name, b->options->quick, &error);
    if (!b->m)
        return nb_error(diags, NB_UNSUPPORTED, NB_NOWHERE, "codegen: %s: %s",
                        b->options->cpu->triple, error);
    nb_model_run(b);
    nb_model_shapes(b);
    nb_model_descriptor(b);
    nb_status status = NB_OK;
    if (!find_object(b, out)) status = nb_module_emit(b->m, b->options->format, arena, diags, out);
    cg_module_destroy(b->m);
    return status;
}

static uint32_t slots_with(uint32_t n, const nb_value *v) {
    const nb_storage s = v->storage;
    return s.kind == NB_STORE_SLOT && s.index >= n ? s.index + 1 : n;
}

static uint32_t count_slots(const nb_region *region) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < region->n_params; i++) n = slots_with(n, region->params[i]);
    NB_FOR_OPS(op, region) {
        for (uint32_t i = 0; i < op->n_results; i++) n = slots_with(n, op->results[i]);
        for (uint32_t r = 0; r < op->n_regions; r++) {
            const uint32_t inside = count_slots(op->regions[r]);
            n = inside > n ? inside : n;
        }
    }
    return n;
}

/* Descriptors have ONNX's numbers of types. */
static void check_ports(const nb_graph *g, nb_diags *diags) {
    for (size_t i = 0; i < g->body.n_params + g->outputs.count; i++) {
        const bool in = i < g->body.n_params;
        const nb_value *v = in ? g->body.params[i] : nb_in(g->body.last, i - g->body.n_params);
        const nb_elem_info *elem = &nb_elems[v->type->elem];
        if (elem->onnx) continue;
        nb_error(diags, NB_UNSUPPORTED, NB_NOWHERE,
                 "codegen: '%s' is %s of type %s, which ONNX does not have", v->name,
                 in ? "an input" : "an output", elem->text);
    }
}

/* Memory is planned for the largest values of counted symbols. */
static nb_status check_sizes(const nb_op *op, nb_diags *diags) {
    for (uint32_t i = 0; i < op->n_results; i++) {
        const nb_type *t = op->results[i]->type;
        for (int d = 0; d < t->rank; d++) {
            if (!nb_dim_rises(t->dims[d]))
                return nb_refuse(op, diags,
                                 "the size %s of '%s' may fall when what is counted rises",
                                 nb_dim_text(diags->arena, t->dims[d]), op->results[i]->name);
        }
    }
    return NB_OK;
}

/* All refusals together. */
static void check_ops(const nb_region *region, const cg_cpu *cpu, nb_diags *diags) {
    NB_FOR_OPS(op, region) {
        if (check_sizes(op, diags) != NB_OK) continue;
        const nb_lowering *lowering = nb_lowering_of(op->kind);
        for (uint32_t r = 0; r < op->n_regions; r++) check_ops(op->regions[r], cpu, diags);
        if (nb_has_trait(op, NB_TRAIT_VIEW | NB_TRAIT_TERMINATOR)) continue;
        if (lowering->accept && lowering->accept(op, cpu, diags) != NB_OK) continue;
        if (phases_of(lowering, op) > MAX_PHASES) {
            nb_status refused = nb_refuse(op, diags, "it has more than %d operands", MAX_PHASES);
            (void)refused;
        }
    }
}

nb_status nb_codegen(const nb_graph *g, const nb_codegen_options *options, nb_arena *arena,
                     nb_diags *diags, nb_object *out) {
    if (g->stage != NB_STAGE_PLANNED)
        return nb_error(diags, NB_USAGE, NB_NOWHERE,
                        "codegen: the graph is not planned; run plan-memory");
    size_t before = diags->errors;
    check_ports(g, diags);
    check_ops(&g->body, options->cpu, diags);
    if (diags->errors > before) return nb_diags_status(diags);

    nb_model_build b = {.graph = g, .options = options, .arena = arena};
    nb_pack *pack = options->pack;
    if (!pack) NB_TRY(nb_pack_create(g, options->cpu, arena, diags, &pack));
    b.pack = pack;
    b.weights_hash = nb_pack_size(pack) && !options->cache ? nb_pack_hash(pack) : 0;
    b.kernels.arena = arena;
    b.n_slots = count_slots(&g->body);
    NB_TRY(
        nb_worker_run(generate, &b, options->seconds ? options->seconds : 600, arena, diags, out));
    if (options->cache && out->size == 0)
        *out = *nb_object_cache_find(options->cache, out->module);
    else if (options->cache)
        nb_object_cache_add(options->cache, out);
    out->pack = pack;
    return NB_OK;
}
