/* The host table that passes call (nb_pass.h). Every function checks its arguments and turns misuse
 * into a diagnostic that names the call. */
#include "passes/pass.h"

#include "ir/build.h"
#include "ir/text.h"

#include <math.h>
#include <string.h>

/* Records misuse; the pass fails when it returns. */
#define MISUSE(ctx, ...) misuse((ctx), __func__, __VA_ARGS__)

NB_PRINTF(3, 4) static void misuse(nb_pass_ctx *ctx, const char *call, const char *fmt, ...) {
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
    return value ? nb_elems[value->type->elem].onnx : 0;
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
    if (!a) return 0;
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

/* ---- constants ----------------------------------------------------------------------------- */

static void to_array(const nb_tensor *t, nb_array *out) {
    out->elem = nb_elems[t->elem].onnx;
    out->rank = t->rank;
    memcpy(out->dims, t->dims, sizeof out->dims);
    out->data = t->data;
}

static int const_data(nb_pass_ctx *ctx, const nb_value *value, nb_array *out) {
    if (!value || !nb_is_const(value) || !out) {
        MISUSE(ctx, "'%s' is not a constant", value ? value->name : "NULL");
        return 0;
    }
    nb_tensor t = nb_tensor_of_const(value);
    to_array(&t, out);
    return 1;
}

static bool array_type(nb_pass_ctx *ctx, const nb_array *array, const nb_type **type,
                       int64_t *bytes) {
    if (!array || !array->data || array->rank < 0 || array->rank > NB_MAX_RANK) return false;
    nb_elem elem = nb_elem_from_onnx(array->elem);
    if (elem == NB_ELEM_COUNT) return false;
    const nb_dim *dims[NB_MAX_RANK];
    int64_t count = 1;
    for (int i = 0; i < array->rank; i++) {
        if (array->dims[i] < 0 || !nb_mul_i64(count, array->dims[i], &count)) return false;
        dims[i] = nb_dim_const(ctx->graph, array->dims[i]);
    }
    *type = nb_type_intern(ctx->graph, elem, NULL, array->rank, dims);
    return nb_elem_bytes_of(elem, count, bytes);
}

static nb_value *make_const(nb_pass_ctx *ctx, const char *name, const nb_array *array) {
    const nb_type *type;
    int64_t bytes;
    if (!name || !array_type(ctx, array, &type, &bytes)) {
        MISUSE(ctx,
               "expected a name and an array with data, rank 0 to %d, dims >= 0 and a known "
               "element type",
               NB_MAX_RANK);
        return NULL;
    }
    void *data;
    nb_blob *blob = nb_blob_create(bytes, &data);
    if (!blob) {
        MISUSE(ctx, "out of memory for %lld bytes", (long long)bytes);
        return NULL;
    }
    if (bytes) memcpy(data, array->data, (size_t)bytes);
    return nb_graph_add_const(ctx->graph, name, type, blob, NULL);
}

/* ---- editing ------------------------------------------------------------------------------- */

static const nb_dim *parse_dim(nb_pass_ctx *ctx, const char *text) {
    return nb_parse_dim(ctx->graph, text, strlen(text), nb_diags_of(ctx));
}

static bool set_attr(nb_pass_ctx *ctx, nb_builder *b, nb_op_kind kind, const nb_attr_arg *arg) {
    const nb_op_info *info = &nb_ops[kind];
    int i = 0;
    while (i < NB_MAX_ATTRS && info->attrs[i].kind != NB_ATTR_END &&
           strcmp(info->attrs[i].name, arg->name) != 0)
        i++;
    nb_attr_kind attr = i < NB_MAX_ATTRS ? info->attrs[i].kind : NB_ATTR_END;
    const nb_dim **dims;
    nb_elem elem;
    switch (attr) {
    case NB_ATTR_INT:
        nb_set_int(b, arg->name, arg->i);
        return true;
    case NB_ATTR_FLOAT:
        nb_set_float(b, arg->name, (float)arg->f);
        return true;
    case NB_ATTR_BOOL:
        nb_set_bool(b, arg->name, arg->i != 0);
        return true;
    case NB_ATTR_INTS:
        if (arg->count && !arg->ints) return false;
        nb_set_ints(b, arg->name, arg->count, arg->ints);
        return true;
    case NB_ATTR_DIMS:
        dims = nb_alloc_array(nb_state_of(ctx)->scratch, arg->count + 1, sizeof *dims);
        for (size_t k = 0; k < arg->count; k++) {
            dims[k] = arg->dims && arg->dims[k] ? parse_dim(ctx, arg->dims[k]) : NULL;
            if (!dims[k]) return false;
        }
        nb_set_dims(b, arg->name, arg->count, dims);
        return true;
    case NB_ATTR_ELEM:
        elem = arg->s ? nb_elem_from_text(arg->s, strlen(arg->s)) : NB_ELEM_COUNT;
        if (elem == NB_ELEM_COUNT) return false;
        nb_set_elem(b, arg->name, elem);
        return true;
    case NB_ATTR_QUANT:
        for (size_t k = 0; arg->s && k < ctx->graph->quants.count; k++) {
            if (strcmp(ctx->graph->quants.items[k]->name, arg->s) != 0) continue;
            nb_set_quant(b, arg->name, ctx->graph->quants.items[k]);
            return true;
        }
        return false;
    case NB_ATTR_STR:
    case NB_ATTR_END:
        break;
    }
    return false;
}

/* A removed op is still memory, but stands nowhere. */
static bool is_in_graph(const nb_op *op) { return op->prev || op->next || op->parent->first == op; }

static nb_value *build(nb_pass_ctx *ctx, nb_op *before, const char *op, nb_value *const *operands,
                       size_t n_operands, const nb_attr_arg *attrs, size_t n_attrs) {
    nb_op_kind kind = op ? nb_op_from_name(op, strlen(op)) : NB_OP_COUNT;
    if (kind == NB_OP_COUNT || nb_ops[kind].traits & NB_TRAIT_TERMINATOR || !before ||
        !is_in_graph(before)) {
        MISUSE(ctx,
               "expected an op of the graph to place before and the name of an op other than "
               "return, found '%s'",
               op ? op : "NULL");
        return NULL;
    }
    if ((n_operands && !operands) || (n_attrs && !attrs)) {
        MISUSE(ctx, "expected %zu operands and %zu attributes of '%s', found NULL", n_operands,
               n_attrs, op);
        return NULL;
    }
    nb_builder b = nb_pass_builder(ctx, before, before->loc);
    nb_begin(&b, kind);
    for (size_t i = 0; i < n_operands; i++) nb_arg(&b, operands[i]);
    for (size_t i = 0; i < n_attrs; i++) {
        if (attrs[i].name && set_attr(ctx, &b, kind, &attrs[i])) continue;
        MISUSE(ctx, "attribute '%s' of '%s' is unknown or its value does not fit",
               attrs[i].name ? attrs[i].name : "NULL", op);
        return NULL;
    }
    size_t errors = nb_diags_of(ctx)->errors;
    nb_value *v = nb_end(&b);
    if (!v && nb_diags_of(ctx)->errors == errors)
        MISUSE(ctx, "an operand that '%s' requires is NULL", op);
    if (!v) nb_state_of(ctx)->failed = true;
    return v;
}

static int set_operand(nb_pass_ctx *ctx, nb_op *op, size_t i, nb_value *value) {
    if (!op || i >= op->n_operands) {
        MISUSE(ctx, "no operand %zu", i);
        return 0;
    }
    if (!value || !nb_in(op, i) || value->type != nb_in(op, i)->type) {
        MISUSE(ctx, "operand %zu of '%s' needs a value of the same type", i, nb_info(op)->name);
        return 0;
    }
    nb_set_operand(&op->operands[i], value);
    return 1;
}

static int replace_uses(nb_pass_ctx *ctx, nb_value *from, nb_value *to) {
    if (!from || !to || from->type != to->type) {
        MISUSE(ctx, "both values must have the same type");
        return 0;
    }
    nb_replace_uses(from, to);
    return 1;
}

static int remove_op(nb_pass_ctx *ctx, nb_op *op) {
    if (!op || nb_has_trait(op, NB_TRAIT_TERMINATOR) || !is_in_graph(op)) {
        MISUSE(ctx, "expected an op of the graph other than return");
        return 0;
    }
    for (uint32_t i = 0; i < op->n_results; i++) {
        if (!op->results[i]->uses) continue;
        MISUSE(ctx, "result '%s' is still used", op->results[i]->name);
        return 0;
    }
    nb_op_remove(op);
    return 1;
}

static size_t sweep(nb_pass_ctx *ctx) { return nb_graph_sweep(ctx->graph); }

/* ---- numbers ------------------------------------------------------------------------------- */

typedef struct tap_bridge {
    nb_tap_fn seen;
    void *user;
} tap_bridge;

static void bridge_tap(void *user, const nb_value *value, const nb_tensor *tensor) {
    const tap_bridge *b = user;
    nb_array array;
    to_array(tensor, &array);
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
        if (!array_type(ctx, &inputs[i], &type, &in[i].bytes)) {
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
    for (size_t i = 0; outputs && i < g->outputs.count; i++) to_array(&out[i], &outputs[i]);
    return 1;
}

static size_t sample_count(nb_pass_ctx *ctx) { return nb_state_of(ctx)->env->n_samples; }

static int sample(nb_pass_ctx *ctx, size_t i, const nb_array **inputs) {
    nb_pass_state *s = nb_state_of(ctx);
    if (i >= s->env->n_samples) return 0;
    nb_array *arrays = NB_NEW_ARRAY(s->scratch, nb_array, ctx->graph->body.n_params + 1);
    for (uint32_t k = 0; k < ctx->graph->body.n_params; k++)
        to_array(&s->env->samples[i].inputs[k], &arrays[k]);
    *inputs = arrays;
    return 1;
}

/* ---- talking ------------------------------------------------------------------------------- */

NB_PRINTF(4, 5)
static void report(nb_pass_ctx *ctx, nb_level level, const nb_op *op, const char *fmt, ...) {
    nb_pass_state *s = nb_state_of(ctx);
    va_list args;
    va_start(args, fmt);
    const char *message = nb_vformat(s->scratch, fmt, args);
    va_end(args);
    nb_where where = NB_NOWHERE;
    if (op) {
        where.node = nb_loc_name(op->loc);
        where.snippet = nb_print_op(s->scratch, op);
    }
    if (level == NB_LEVEL_ERROR) {
        s->failed = true;
        nb_error(s->env->diags, NB_CHECK_FAILED, where, "%s: %s", s->pass->name, message);
    } else if (level == NB_LEVEL_WARNING) {
        nb_warn(s->env->diags, where, "%s: %s", s->pass->name, message);
    } else {
        nb_inform(s->env->diags, where, "%s: %s", s->pass->name, message);
    }
}

NB_PRINTF(2, 3) static void help(nb_pass_ctx *ctx, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    nb_help(nb_diags_of(ctx), "%s", nb_vformat(nb_state_of(ctx)->scratch, fmt, args));
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

static void *scratch(nb_pass_ctx *ctx, size_t size) {
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
    .const_data = const_data,
    .make_const = make_const,
    .build = build,
    .set_operand = set_operand,
    .replace_uses = replace_uses,
    .remove_op = remove_op,
    .sweep = sweep,
    .run = run,
    .sample_count = sample_count,
    .sample = sample,
    .report = report,
    .help = help,
    .scratch = scratch,
    .query = query,
    .fact = fact,
};
