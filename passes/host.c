/* The host table that passes call (nb_pass.h). Every function checks its arguments and turns misuse
 * into a diagnostic that names the call. */
#include "passes/host.h"

#include "ir/text.h"
#include "ir/verify.h"

#include <math.h>
#include <string.h>

#define MISUSE(ctx, ...) nb_misuse((ctx), __func__, __VA_ARGS__)
/* More than any pass needs, and few enough bytes that rounding up cannot overflow. */
#define SCRATCH_LIMIT ((size_t)1 << 40)

void nb_misuse(nb_pass_ctx *ctx, const char *call, const char *fmt, ...) {
    nb_pass_state *s = nb_state_of(ctx);
    va_list args;
    va_start(args, fmt);
    const char *message = nb_vformat(s->scratch, fmt, args);
    va_end(args);
    s->failed = true;
    nb_error(s->env->diags, NB_USAGE, NB_NOWHERE, "pass '%s' called host->%s: %s", s->pass->name,
             call, message);
}

/* ---- walking ------------------------------------------------------------------------------- */

static nb_op *first_op(nb_graph *graph) { return graph ? graph->body.first : NULL; }
static nb_op *next_op(const nb_op *op) { return op ? op->next : NULL; }
static const char *op_name(const nb_op *op) { return op ? nb_info(op)->name : ""; }
static const char *op_node(const nb_op *op) { return op ? nb_loc_name(op->loc) : ""; }
static const char *op_text(nb_pass_ctx *ctx, const nb_op *op) {
    return op ? nb_print_op(nb_state_of(ctx)->scratch, op) : "";
}
static size_t operand_count(const nb_op *op) { return op ? op->n_operands : 0; }
static nb_value *operand(const nb_op *op, size_t i) {
    return op && i < op->n_operands ? nb_in(op, i) : NULL;
}
static size_t result_count(const nb_op *op) { return op ? op->n_results : 0; }
static nb_value *result(const nb_op *op, size_t i) {
    return op && i < op->n_results ? op->results[i] : NULL;
}
static nb_op *defining_op(const nb_value *value) { return value ? value->def : NULL; }
static size_t use_count(const nb_value *value) { return value ? nb_use_count(value) : 0; }

static nb_op *user(const nb_value *value, size_t i) {
    nb_use *u = value ? value->uses : NULL;
    while (u && i--) u = u->next;
    return u ? u->user : NULL;
}

static const char *value_name(const nb_value *value) { return value ? value->name : ""; }
static int32_t value_elem(const nb_value *value) {
    return value ? nb_elems[value->type->elem].number : 0;
}
static int32_t value_rank(const nb_value *value) { return value ? value->type->rank : -1; }

static int64_t value_dim(const nb_value *value, int32_t axis) {
    if (!value || axis < 0 || axis >= value->type->rank) return -1;
    const nb_dim *d = value->type->dims[axis];
    return nb_dim_is_const(d) ? d->value : -1;
}

static const char *value_type(nb_pass_ctx *ctx, const nb_value *value) {
    return value ? nb_type_text(nb_state_of(ctx)->scratch, value->type) : "";
}

static int is_const(const nb_value *value) { return value && nb_is_const(value); }
static int is_quantized(const nb_value *value) { return value && value->type->quant; }

/* The attribute if the op declares one of that name and kind and it is set. */
static const nb_attr *find_attr(const nb_op *op, const char *name, nb_attr_kind kind) {
    if (!op || !name) return NULL;
    const nb_op_info *info = nb_info(op);
    for (int i = 0; i < NB_MAX_ATTRS && info->attrs[i].kind != NB_ATTR_END; i++) {
        if (strcmp(info->attrs[i].name, name) == 0)
            return info->attrs[i].kind == kind ? &op->attrs[i] : NULL;
    }
    return NULL;
}

static int attr_int(const nb_op *op, const char *name, int64_t *out) {
    if (!out) return 0;
    const nb_attr *a = find_attr(op, name, NB_ATTR_INT);
    if (a) {
        *out = a->i;
        return 1;
    }
    a = find_attr(op, name, NB_ATTR_BOOL);
    if (a) *out = a->b;
    return a != NULL;
}

static int attr_float(const nb_op *op, const char *name, double *out) {
    const nb_attr *a = find_attr(op, name, NB_ATTR_FLOAT);
    if (a) *out = (double)a->f;
    return a != NULL;
}

static int attr_ints(const nb_op *op, const char *name, const int64_t **out, size_t *count) {
    const nb_attr *a = find_attr(op, name, NB_ATTR_INTS);
    if (!a || !out || !count) return 0;
    *out = a->ints.items;
    *count = a->ints.count;
    return 1;
}

static size_t input_count(const nb_graph *graph) { return graph ? graph->body.n_params : 0; }
static nb_value *input(const nb_graph *graph, size_t i) {
    return graph && i < graph->body.n_params ? graph->body.params[i] : NULL;
}
static size_t output_count(const nb_graph *graph) { return graph ? graph->outputs.count : 0; }
static nb_value *output(const nb_graph *graph, size_t i) {
    return graph && i < graph->outputs.count ? nb_in(graph->body.last, i) : NULL;
}

/* ---- texts ------------------------------------------------------------------- */

static const char *value_dim_text(nb_pass_ctx *ctx, const nb_value *value, int32_t axis) {
    if (!value || axis < 0 || axis >= value->type->rank) return "";
    return nb_dim_text(nb_state_of(ctx)->scratch, value->type->dims[axis]);
}
static const char *value_quant(const nb_value *value) {
    return value && value->type->quant ? value->type->quant->name : "";
}

static const char *attr_text(nb_pass_ctx *ctx, const nb_op *op, const char *name) {
    return op && name ? nb_print_attr(nb_state_of(ctx)->scratch, op, name) : NULL;
}

/* ---- numbers ------------------------------------------------------------------------------- */

typedef struct tap_bridge {
    nb_tap_fn seen;
    void *user;
} tap_bridge;

static void bridge_tap(void *user, const nb_value *value, const nb_tensor *tensor) {
    const tap_bridge *b = user;
    nb_array array;
    nb_array_of(tensor, &array);
    b->seen(b->user, value, &array);
}

static int run(nb_pass_ctx *ctx, const nb_array *inputs, nb_array *outputs,
               const nb_value *const *taps, size_t n_taps, nb_tap_fn seen, void *user_data) {
    nb_pass_state *s = nb_state_of(ctx);
    nb_graph *g = ctx->graph;
    if (!inputs || (n_taps && (!taps || !seen))) {
        MISUSE(ctx, "expected inputs, and a function for the taps");
        return 0;
    }
    nb_tensor *in = NB_NEW_ARRAY(s->scratch, nb_tensor, g->body.n_params + 1);
    nb_tensor *out = NB_NEW_ARRAY(s->scratch, nb_tensor, g->outputs.count + 1);
    for (uint32_t i = 0; i < g->body.n_params; i++) {
        const nb_type *type;
        if (!inputs[i].data || !nb_array_type(ctx, &inputs[i], &type, &in[i].bytes)) {
            MISUSE(ctx, "input %u is not a tensor with data", i);
            return 0;
        }
        in[i].elem = type->elem;
        in[i].rank = type->rank;
        memcpy(in[i].dims, inputs[i].dims, sizeof in[i].dims);
        in[i].data = (void *)(uintptr_t)inputs[i].data;
    }
    for (size_t i = 0; i < n_taps; i++) {
        if (taps[i]) continue;
        MISUSE(ctx, "tap %zu is NULL", i);
        return 0;
    }
    /* Editing can leave a graph that cannot run: an operand that is computed later, for example. */
    if (nb_registry_is_loaded(s->env->registry, s->pass) && nb_verify(g, s->env->diags) != NB_OK) {
        MISUSE(ctx, "the graph is not valid as it is now");
        return 0;
    }
    tap_bridge bridge = {seen, user_data};
    nb_tap *t = NB_NEW_ARRAY(s->scratch, nb_tap, n_taps + 1);
    for (size_t i = 0; i < n_taps; i++) t[i] = (nb_tap){taps[i], bridge_tap, &bridge};
    nb_run_fn execute = s->env->run;
    nb_status status =
        execute ? execute(s->env->run_user, g, in, out, t, n_taps, s->scratch, s->env->diags)
                : nb_eval(g, in, out, t, n_taps, s->scratch, s->env->diags);
    if (status != NB_OK) {
        s->failed = true;
        return 0;
    }
    for (size_t i = 0; outputs && i < g->outputs.count; i++) nb_array_of(&out[i], &outputs[i]);
    return 1;
}

static size_t sample_count(nb_pass_ctx *ctx) { return nb_state_of(ctx)->env->n_samples; }

static int sample(nb_pass_ctx *ctx, size_t i, const nb_array **inputs) {
    nb_pass_state *s = nb_state_of(ctx);
    if (i >= s->env->n_samples) return 0;
    if (!inputs) {
        MISUSE(ctx, "expected a place for the arrays, found NULL");
        return 0;
    }
    nb_array *arrays = NB_NEW_ARRAY(s->scratch, nb_array, ctx->graph->body.n_params + 1);
    for (uint32_t k = 0; k < ctx->graph->body.n_params; k++)
        nb_array_of(&s->env->samples[i].inputs[k], &arrays[k]);
    *inputs = arrays;
    return 1;
}

/* ---- talking ------------------------------------------------------------------------------- */

/* A diagnostic of the pass; counts as misuse of `call` without a text. */
NB_PRINTF(5, 0)
static void say(nb_pass_ctx *ctx, const char *call, nb_level level, nb_where where, const char *fmt,
                va_list args) {
    nb_pass_state *s = nb_state_of(ctx);
    if (!fmt || (unsigned)level > NB_LEVEL_INFO) {
        nb_misuse(ctx, call, "expected a level and a text");
        return;
    }
    const char *message = nb_vformat(s->scratch, fmt, args);
    if (level == NB_LEVEL_ERROR) {
        s->failed = true;
        nb_error(s->env->diags, NB_CHECK_FAILED, where, "%s: %s", s->pass->name, message);
    } else if (level == NB_LEVEL_WARNING) {
        nb_warn(s->env->diags, where, "%s: %s", s->pass->name, message);
    } else {
        nb_inform(s->env->diags, where, "%s: %s", s->pass->name, message);
    }
}

static nb_where at_op(nb_pass_ctx *ctx, const nb_op *op) {
    nb_where where = NB_NOWHERE;
    if (!op) return where;
    where.node = nb_loc_name(op->loc);
    where.snippet = nb_print_op(nb_state_of(ctx)->scratch, op);
    return where;
}

NB_PRINTF(4, 5)
static void report(nb_pass_ctx *ctx, nb_level level, const nb_op *op, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    say(ctx, __func__, level, at_op(ctx, op), fmt, args);
    va_end(args);
}

NB_PRINTF(4, 5)
static void report_value(nb_pass_ctx *ctx, nb_level level, const nb_value *value, const char *fmt,
                         ...) {
    nb_arena *scratch = nb_state_of(ctx)->scratch;
    nb_where where = at_op(ctx, value ? value->def : NULL);
    if (value && !value->def) {
        where.node = nb_loc_name(value->loc);
        where.snippet = nb_format(scratch, "%s%s: %s", nb_is_const(value) ? "@" : "%", value->name,
                                  nb_type_text(scratch, value->type));
    }
    va_list args;
    va_start(args, fmt);
    say(ctx, __func__, level, where, fmt, args);
    va_end(args);
}

NB_PRINTF(2, 3) static void help(nb_pass_ctx *ctx, const char *fmt, ...) {
    if (!fmt) {
        MISUSE(ctx, "expected a text, found NULL");
        return;
    }
    va_list args;
    va_start(args, fmt);
    nb_help(nb_diags_of(ctx), "%s", nb_vformat(nb_state_of(ctx)->scratch, fmt, args));
    va_end(args);
}

NB_PRINTF(2, 3) static void note(nb_pass_ctx *ctx, const char *fmt, ...) {
    if (!fmt) {
        MISUSE(ctx, "expected a text, found NULL");
        return;
    }
    va_list args;
    va_start(args, fmt);
    nb_note(nb_diags_of(ctx), "%s", nb_vformat(nb_state_of(ctx)->scratch, fmt, args));
    va_end(args);
}

static void fact(nb_pass_ctx *ctx, const nb_op *op, const char *name, double value) {
    nb_pass_state *s = nb_state_of(ctx);
    nb_arena *arena = s->env->arena;
    if (!name || !isfinite(value)) {
        MISUSE(ctx, "expected a name and a finite number");
        return;
    }
    nb_fact f = {.pass = s->pass->name,
                 .node = nb_strdup(arena, op ? nb_loc_name(op->loc) : ""),
                 .name = nb_strdup(arena, name),
                 .value = value};
    nb_vec_push(arena, &s->env->facts, f);
}

NB_PRINTF(5, 6)
static void refused(nb_pass_ctx *ctx, const nb_op *op, const char *rule, const char *equation,
                    const char *fmt, ...) {
    if (!rule || !*rule || !equation || !fmt || (op && !nb_is_in_graph(op))) {
        MISUSE(ctx,
               "expected an op of the graph or NULL, the name of a rule, an equation and a text");
        return;
    }
    if (!nb_is_heard(ctx)) return;
    va_list args;
    va_start(args, fmt);
    nb_refused(ctx, op, rule, equation, "%s", nb_vformat(nb_state_of(ctx)->scratch, fmt, args));
    va_end(args);
}

static int is_heard(nb_pass_ctx *ctx) { return nb_is_heard(ctx); }

static void *scratch(nb_pass_ctx *ctx, size_t size) {
    if (size >= SCRATCH_LIMIT) {
        MISUSE(ctx, "%zu bytes are more than there can be", size);
        return NULL;
    }
    return nb_alloc(nb_state_of(ctx)->scratch, size);
}

static const void *query(nb_pass_ctx *ctx, const char *extension) {
    (void)ctx;
    (void)extension; /* no extension exists yet */
    return NULL;
}

const nb_pass_host nb_host = {
    .size = sizeof(nb_pass_host),
    .abi_major = NB_PASS_ABI_MAJOR,
    .abi_minor = NB_PASS_ABI_MINOR,
    .first_op = first_op,
    .next_op = next_op,
    .op_name = op_name,
    .op_node = op_node,
    .op_text = op_text,
    .operand_count = operand_count,
    .operand = operand,
    .result_count = result_count,
    .result = result,
    .defining_op = defining_op,
    .use_count = use_count,
    .user = user,
    .value_name = value_name,
    .value_elem = value_elem,
    .value_rank = value_rank,
    .value_dim = value_dim,
    .value_type = value_type,
    .is_const = is_const,
    .is_quantized = is_quantized,
    .attr_int = attr_int,
    .attr_float = attr_float,
    .attr_ints = attr_ints,
    .input_count = input_count,
    .input = input,
    .output_count = output_count,
    .output = output,
    .attr_text = attr_text,
    .value_dim_text = value_dim_text,
    .value_quant = value_quant,
    .elem_text = nb_host_elem_text,
    .elem_named = nb_host_elem_named,
    .elem_bits = nb_host_elem_bits,
    .symbol = nb_host_symbol,
    .dim = nb_host_dim,
    .make_symbol = nb_host_make_symbol,
    .body_count = nb_host_body_count,
    .body_first_op = nb_host_body_first_op,
    .body_input_count = nb_host_body_input_count,
    .body_input = nb_host_body_input,
    .parent_op = nb_host_parent_op,
    .body_output_count = nb_host_body_output_count,
    .body_output = nb_host_body_output,
    .const_data = nb_host_const_data,
    .make_const = nb_host_make_const,
    .const_floats = nb_host_const_floats,
    .const_rest = nb_host_const_rest,
    .make_const_by = nb_host_make_const_by,
    .make_quant = nb_host_make_quant,
    .make_codes = nb_host_make_codes,
    .quant = nb_host_quant,
    .build = nb_host_build,
    .set_operand = nb_host_set_operand,
    .replace_uses = nb_host_replace_uses,
    .remove_op = nb_host_remove_op,
    .sweep = nb_host_sweep,
    .set_name = nb_host_set_name,
    .move_op = nb_host_move_op,
    .make_body = nb_host_make_body,
    .body_take = nb_host_body_take,
    .body_end = nb_host_body_end,
    .body_return = nb_host_body_return,
    .build_with_bodies = nb_host_build_with_bodies,
    .rewrite = nb_host_rewrite,
    .matched = nb_host_matched,
    .matched_op = nb_host_matched_op,
    .call = nb_host_call,
    .run = run,
    .sample_count = sample_count,
    .sample = sample,
    .stats = nb_host_stats,
    .selected = nb_host_selected,
    .report = report,
    .help = help,
    .note = note,
    .report_value = report_value,
    .fact = fact,
    .refused = refused,
    .is_heard = is_heard,
    .scratch = scratch,
    .query = query,
};
