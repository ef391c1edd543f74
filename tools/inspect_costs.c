/* Where weights and work are, and what a run would take (inspect.h). */
#include "ir/support/output.h"
#include "tools/compare.h"
#include "tools/inspect.h"

#include <stdlib.h>
#include <string.h>

#define CONTEXT 256 /* cached entries, without --context */

/* ---- sizes of a run ------------------------------------------------------------------------- */

nb_status nbt_run_sizes(nbt_args *args, const nb_graph *g, int64_t **symbols) {
    const size_t n = g->symbols.count;
    nbt_symbol *list = NB_NEW_ARRAY(args->arena, nbt_symbol, n + 1);
    int64_t context = CONTEXT;
    *symbols = NB_NEW_ARRAY(args->arena, int64_t, n + 1);
    NB_TRY(nbt_integer(args, "context", 1, 1 << 24, &context));
    for (size_t i = 0; i < n; i++) {
        const nb_symbol *s = g->symbols.items[i];
        list[i] = (nbt_symbol){s->name, s->min, s->max, 1};
    }
    for (size_t i = 0; i < g->states.count; i++) {
        const nb_state *s = &g->states.items[i];
        const nb_dim *d = s->axis < 0 ? NULL : g->body.params[s->input]->type->dims[s->axis];
        if (d && d->kind == NB_DIM_SYMBOL) list[d->symbol->index].usual = context;
    }
    return nbt_choose_symbols(args, list, n, *symbols);
}

json_t *nbt_sizes_json(nbt_args *args, const nb_graph *g, const int64_t *symbols) {
    json_t *sizes = json_object();
    for (size_t i = 0; i < g->symbols.count; i++) {
        const char *name = g->symbols.items[i]->name;
        json_object_set_new(sizes, nb_escape(args->arena, name, strlen(name)),
                            json_integer((json_int_t)symbols[i]));
    }
    return sizes;
}

/* ---- parts ---------------------------------------------------------------------------------- */

typedef struct part {
    const char *role, *kind;
    int64_t layers, weights, macs;
} part;

static int by_macs(const void *a, const void *b) {
    const part *x = a, *y = b;
    if (x->macs != y->macs) return x->macs < y->macs ? 1 : -1;
    if (x->weights != y->weights) return x->weights < y->weights ? 1 : -1;
    return strcmp(x->role, y->role);
}

/* Elements of constants that are tables or matrices. */
static int64_t weights_of(const nb_op *op) {
    int64_t all = 0, n;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        const nb_value *v = nb_in(op, i);
        const bool codes = v && v->def && v->def->kind == NB_OP_dequantize;
        if (codes) v = nb_in(v->def, 0);
        if (v && nb_is_const(v) && v->type->rank > 1 && nb_type_static_count(v->type, &n)) all += n;
    }
    return all;
}

json_t *nbt_parts_json(nbt_args *args, const nb_graph *g, const int64_t *symbols) {
    NB_VEC(part) parts = {0};
    NB_FOR_OPS(op, &g->body) {
        const nbt_layer l = nbt_measure_op(op, symbols);
        const bool table = op->kind == NB_OP_gather || op->kind == NB_OP_qgather;
        const int64_t weights = l.k || table ? weights_of(op) : 0;
        const char *role, *block, *kind = nb_info(op)->name, *node = nb_loc_name(op->loc);
        if (!weights && l.ops <= 0) continue;
        nbt_name_parts(args->arena, *node ? node : nb_out(op)->name, &role, &block);
        size_t i = 0;
        while (i < parts.count &&
               (strcmp(parts.items[i].role, role) != 0 || strcmp(parts.items[i].kind, kind) != 0))
            i++;
        if (i == parts.count) {
            const part fresh = {.role = role, .kind = kind};
            nb_vec_push(args->arena, &parts, fresh);
        }
        parts.items[i].layers++;
        parts.items[i].weights += weights;
        parts.items[i].macs += (int64_t)(l.ops / 2);
    }
    if (parts.count) qsort(parts.items, parts.count, sizeof *parts.items, by_macs);
    json_t *list = json_array();
    for (size_t i = 0; i < parts.count; i++) {
        const part *p = &parts.items[i];
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:I, s:I, s:I}", "role",
                                        nb_escape(args->arena, p->role, strlen(p->role)), "op",
                                        p->kind, "layers", (json_int_t)p->layers, "weights",
                                        (json_int_t)p->weights, "macs", (json_int_t)p->macs));
    }
    return list;
}

/* ---- limits --------------------------------------------------------------------------------- */

static nb_status read_machine(nbt_args *args, const char *path, nbt_limits *out) {
    char *text;
    size_t size;
    json_error_t why;
    const nb_where where = {.file = path, .offset = -1};
    *out = (nbt_limits){.cpu = "", .threads = 1};
    NB_TRY(nbt_read_file(path, args->arena, args->diags, &text, &size));
    json_t *j = json_loadb(text, size, 0, &why);
    if (!j) return nb_error(args->diags, NB_MALFORMED, where, "no JSON: %s", why.text);
    const char *cpu = "";
    const bool whole =
        json_unpack(j, "{s:s, s:i, s:F, s:F, s:F, s:F, s:F}", "cpu", &cpu, "threads", &out->threads,
                    "read_gb_s", &out->read, "dot_gop_s", &out->dot, "dot_small_gop_s",
                    &out->dot_small, "fma_gflop_s", &out->fma, "cache_gb_s", &out->cache) == 0 &&
        out->read > 0 && out->dot > 0 && out->dot_small > 0 && out->fma > 0 && out->cache > 0;
    out->cpu = nb_escape(args->arena, cpu, strlen(cpu));
    json_decref(j);
    if (whole) return NB_OK;
    nb_error(args->diags, NB_MALFORMED, where, "these are no limits of a machine");
    nb_help(args->diags, "`nibble bench --limits --json` prints them");
    return NB_MALFORMED;
}

nb_status nbt_find_limits(nbt_args *args, nbt_limits *out, const char **source) {
    const char *path = nbt_get(args, "machine");
    *source = path                      ? nb_escape(args->arena, path, strlen(path))
              : nbt_has(args, "limits") ? "measured now"
                                        : NULL;
    if (path) return read_machine(args, path, out);
    return *source ? nbt_measure_limits(args, out) : NB_OK;
}

double nbt_predict_seconds(nbt_args *args, const nb_graph *planned, const nbt_limits *limits) {
    int64_t *symbols;
    double all = 0;
    if (nbt_run_sizes(args, planned, &symbols) != NB_OK) return -1;
    NB_FOR_OPS(op, &planned->body) {
        nbt_layer l = nbt_measure_op(op, symbols);
        nbt_find_limit(op, limits, &l);
        all += l.limit;
    }
    return all;
}
