/* Printing graphs as .nir text (grammar: README).
 *
 * One graph has one text: everything stands in the graph's own order, and names, numbers and lists
 * have one form each. The printer also serves diagnostics, so it prints graphs that are broken or
 * half built as well as it can; only a graph that verifies is promised to read back. */
#include "ir/text_writer.h"

typedef struct printer {
    nb_writer out, item; /* item: one entry of a list that may be wrapped */
    nb_print_options options;
    nb_arena *scratch;
    nb_map types;         /* nb_type -> text */
    nb_text_parts *parts; /* where each begins, or NULL */
    nb_arena *parts_arena;
} printer;

const char *const nb_stage_names[] = {"float", "qdq", "fused", "planned"};
const char *const nb_storage_names[] = {"none",  "slot",   "input",    "output",
                                        "state", "weight", "registers"};

static void put_type(printer *p, nb_writer *w, const nb_type *type) {
    const char *text = nb_map_get(&p->types, type);
    if (!text) {
        nb_writer t = {.arena = p->scratch};
        if (type->quant)
            nb_put_name(&t, "#", type->quant->name);
        else
            nb_puts(&t, nb_elems[type->elem].text);
        nb_puts(&t, "[");
        for (int i = 0; i < type->rank; i++) {
            if (i) nb_puts(&t, ",");
            nb_puts(&t, nb_dim_text(p->scratch, type->dims[i]));
        }
        nb_put(&t, "]", 2);
        text = t.bytes;
        nb_map_set(&p->types, type, t.bytes);
    }
    nb_puts(w, text);
}

static void put_value(nb_writer *w, const nb_value *v) {
    if (v)
        nb_put_name(w, nb_is_const(v) ? "@" : "%", v->name);
    else
        nb_puts(w, "<missing>");
}

/* ` at "/a" + "/b" via x, y` */
static void put_loc(nb_writer *w, const nb_loc *loc) {
    if (!loc) return;
    for (uint32_t i = 0; i < loc->n_at; i++) {
        nb_puts(w, i ? " + " : " at ");
        nb_put_string(w, loc->at[i]);
    }
    for (uint32_t i = 0; i < loc->n_via; i++) {
        const char *c = loc->via[i];
        nb_puts(w, i ? ", " : " via ");
        if (nb_name_start(*c))
            while (nb_name_char(*c) || *c == '-') c++;
        if (*loc->via[i] && !*c)
            nb_puts(w, loc->via[i]);
        else
            nb_put_string(w, loc->via[i]);
    }
}

/* ` in slot 3`, one for each value, when any of them has a place. */
static void put_storage(nb_writer *w, nb_value *const *values, uint32_t n) {
    bool any = false;
    for (uint32_t i = 0; i < n; i++) any = any || values[i]->storage.kind != NB_STORE_NONE;
    for (uint32_t i = 0; any && i < n; i++) {
        nb_storage s = values[i]->storage;
        nb_puts(w, i ? ", " : " in ");
        nb_puts(w, nb_storage_names[s.kind]);
        if (s.kind == NB_STORE_NONE || s.kind == NB_STORE_REGISTERS ||
            (s.kind == NB_STORE_WEIGHT && s.index == 0))
            continue;
        nb_puts(w, " ");
        nb_put_int(w, s.index);
    }
}

/* ---- ops ------------------------------------------------------------------------------------- */

static void put_operands(nb_writer *w, const nb_op *op) {
    const nb_op_info *info = nb_info(op);
    size_t spec = 0;
    bool first = true;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        bool optional = info->operands[spec].mode == NB_OPERAND_OPT;
        const char *name = info->operands[spec].name;
        if (info->operands[spec].mode == NB_OPERAND_IN || optional) spec++;
        if (optional && !nb_in(op, i)) continue;
        nb_puts(w, first ? " " : ", ");
        first = false;
        if (optional) {
            nb_puts(w, name);
            nb_puts(w, "=");
        }
        put_value(w, nb_in(op, i));
    }
}

static void put_attr_value(nb_arena *scratch, nb_writer *w, nb_attr_kind kind, const nb_attr *a) {
    char number[NB_NUMBER_SIZE];
    switch (kind) {
    case NB_ATTR_INT:
        nb_put_int(w, a->i);
        return;
    case NB_ATTR_FLOAT: {
        uint32_t bits;
        memcpy(&bits, &a->f, sizeof bits);
        nb_put(w, number, nb_bits_text(NB_F32, bits, number));
        return;
    }
    case NB_ATTR_INTS:
        for (size_t i = 0; i < a->ints.count; i++) {
            nb_puts(w, i ? "," : "[");
            nb_put_int(w, a->ints.items[i]);
        }
        nb_puts(w, a->ints.count ? "]" : "[]");
        return;
    case NB_ATTR_DIMS:
        for (size_t i = 0; i < a->dims.count; i++) {
            nb_puts(w, i ? "," : "[");
            nb_puts(w, nb_dim_text(scratch, a->dims.items[i]));
        }
        nb_puts(w, a->dims.count ? "]" : "[]");
        return;
    case NB_ATTR_ELEM:
        nb_puts(w, nb_elems[a->elem].text);
        return;
    case NB_ATTR_QUANT:
        nb_put_name(w, "#", a->quant ? a->quant->name : "");
        return;
    case NB_ATTR_STR:
        nb_put_string(w, a->str ? a->str : "");
        return;
    case NB_ATTR_BOOL:
    case NB_ATTR_END:
        return;
    }
}

static void put_attr(printer *p, nb_writer *w, const char *name, nb_attr_kind kind,
                     const nb_attr *a) {
    nb_puts(w, name);
    if (kind == NB_ATTR_BOOL) return;
    nb_puts(w, "=");
    put_attr_value(p->scratch, w, kind, a);
}

static void put_attrs(printer *p, nb_writer *w, const nb_op *op) {
    const nb_op_info *info = nb_info(op);
    bool any = false;
    for (int i = 0; i < NB_MAX_ATTRS && info->attrs[i].kind != NB_ATTR_END; i++) {
        const nb_attr *a = &op->attrs[i];
        if (!a->set || (info->attrs[i].kind == NB_ATTR_BOOL && !a->b)) continue;
        nb_puts(w, any ? ", " : " {");
        any = true;
        put_attr(p, w, info->attrs[i].name, info->attrs[i].kind, a);
    }
    if (any) nb_puts(w, "}");
}

static void put_region(printer *p, const nb_region *region, int indent);

static void put_op(printer *p, const nb_op *op, int indent) {
    nb_writer *w = &p->out;
    for (uint32_t i = 0; i < op->n_results; i++) {
        if (i) nb_puts(w, ", ");
        put_value(w, op->results[i]);
        nb_puts(w, ": ");
        put_type(p, w, op->results[i]->type);
    }
    if (op->n_results) nb_puts(w, " = ");
    nb_puts(w, nb_info(op)->name);
    put_operands(w, op);
    put_attrs(p, w, op);
    for (uint32_t r = 0; r < op->n_regions && indent >= 0; r++)
        put_region(p, op->regions[r], indent);
    put_loc(w, op->loc);
    put_storage(w, op->results, op->n_results);
}

/* A body inside an op: ` do (%i: i64[]) {`, its ops, `}`. */
static void put_region(printer *p, const nb_region *region, int indent) {
    nb_writer *w = &p->out;
    nb_puts(w, " do (");
    for (uint32_t i = 0; i < region->n_params; i++) {
        if (i) nb_puts(w, ", ");
        put_value(w, region->params[i]);
        nb_puts(w, ": ");
        put_type(p, w, region->params[i]->type);
        put_storage(w, &region->params[i], 1);
    }
    nb_puts(w, ") {");
    for (const nb_op *op = region->first; op; op = op->next) {
        nb_put_newline(w, indent + 2);
        put_op(p, op, indent + 2);
    }
    nb_put_newline(w, indent);
    nb_puts(w, "}");
}

/* ---- constants and quants -------------------------------------------------------------------- */

/* Are all elements the same bits? */
static bool uniform(const nb_value *v, int64_t count) {
    const char *data = v->blob->data;
    size_t size = (size_t)nb_elems[v->type->elem].bits / 8;
    if (size) return memcmp(data, data + size, (size_t)v->blob->size - size) == 0;
    uint64_t first = nb_elem_get(v->type->elem, data, 0);
    for (int64_t i = 1; i < count; i++)
        if (nb_elem_get(v->type->elem, data, i) != first) return false;
    return true;
}

static void put_hash(nb_writer *w, nb_blob *blob) {
    char text[32];
    int n = snprintf(text, sizeof text, " hash %016llx", (unsigned long long)nb_blob_hash(blob));
    nb_put(w, text, (size_t)n);
}

static void put_data(printer *p, const nb_value *v) {
    nb_writer *w = &p->out;
    nb_elem e = v->type->elem;
    char text[NB_NUMBER_SIZE];
    int64_t count, bytes;
    bool whole = nb_type_static_count(v->type, &count) && nb_elem_bytes_of(e, count, &bytes) &&
                 bytes == v->blob->size;
    if (!whole || (p->options.elide_weights && count > NB_TEXT_SMALL)) {
        nb_puts(w, "elided ");
        nb_put_int(w, v->blob->size);
        nb_puts(w, " bytes");
        put_hash(w, v->blob);
    } else if (p->options.external_blobs && v->blob->file) {
        nb_puts(w, "blob ");
        nb_put_string(w, v->blob->file);
        nb_puts(w, "[");
        nb_put_int(w, v->blob->offset);
        nb_puts(w, "..");
        nb_put_int(w, v->blob->offset + v->blob->size);
        nb_puts(w, "]");
        put_hash(w, v->blob);
    } else if (count > NB_TEXT_SMALL && uniform(v, count)) {
        nb_puts(w, "splat ");
        nb_put(w, text, nb_bits_text(e, nb_elem_get(e, v->blob->data, 0), text));
    } else {
        nb_puts(w, "{");
        for (int64_t i = 0; i < count; i++) {
            size_t n = nb_bits_text(e, nb_elem_get(e, v->blob->data, i), text);
            nb_put_item(w, text, n, i == 0, 6);
        }
        nb_puts(w, "}");
    }
}

static void put_const(printer *p, nb_value *v) {
    nb_writer *w = &p->out;
    nb_puts(w, "const ");
    put_value(w, v);
    nb_puts(w, ": ");
    put_type(p, w, v->type);
    nb_puts(w, " = ");
    put_data(p, v);
    put_loc(w, v->loc);
    put_storage(w, &v, 1);
}

static void put_word_int(nb_writer *w, const char *word, int64_t value) {
    nb_puts(w, word);
    nb_put_int(w, value);
}

/* All but the name. */
static void put_quant(nb_writer *w, const nb_quant *q) {
    char number[NB_NUMBER_SIZE];
    nb_puts(w, nb_elems[q->storage].text);
    if (q->narrow) nb_puts(w, " narrow");
    switch (q->granularity) {
    case NB_PER_TENSOR:
        break;
    case NB_PER_AXIS:
        put_word_int(w, " axis ", q->axis);
        break;
    case NB_PER_GROUP:
        put_word_int(w, " group ", q->group);
        put_word_int(w, " axis ", q->axis);
        break;
    case NB_PER_TOKEN:
        put_word_int(w, " token amax ", q->amax_code);
        return;
    case NB_PER_BLOCK:
        put_word_int(w, " block ", q->group);
        put_word_int(w, " amax ", q->amax_code);
        return;
    }
    nb_puts(w, " scale ");
    if (q->scales) put_value(w, q->scales);
    const bool times = nb_quant_has_small_scales(q) && q->scale != 1;
    if (times) nb_puts(w, " times ");
    if (!q->scales || times) nb_put(w, number, nb_f32_text(q->scale, number));
    if (q->zeros) {
        nb_puts(w, " zero ");
        put_value(w, q->zeros);
    } else if (q->zero) {
        put_word_int(w, " zero ", q->zero);
    }
    if (!nb_quant_has_minima(q)) return;
    nb_puts(w, " min ");
    if (q->minima)
        put_value(w, q->minima);
    else
        nb_put(w, number, nb_f32_text(q->minimum, number));
}

/* ---- the graph ------------------------------------------------------------------------------- */

static void put_list_item(printer *p, bool first) {
    nb_put_item(&p->out, p->item.bytes, p->item.count, first, 4);
    p->item.count = 0;
}

static void put_outputs(printer *p, const nb_graph *g) {
    nb_writer *item = &p->item;
    const nb_op *ret = g->body.last;
    size_t n = ret && ret->kind == NB_OP_return ? ret->n_operands : 0;
    if (n > g->outputs.count) n = g->outputs.count;
    const nb_value *only = n == 1 ? nb_in(ret, 0) : NULL;
    nb_puts(&p->out, " -> ");
    if (only && !nb_is_const(only) && strcmp(only->name, g->outputs.items[0]) == 0) {
        put_type(p, &p->out, only->type);
        return;
    }
    nb_puts(&p->out, "(");
    for (size_t i = 0; i < n; i++) {
        nb_put_name(item, "", g->outputs.items[i]);
        nb_puts(item, ": ");
        if (nb_in(ret, i))
            put_type(p, item, nb_in(ret, i)->type);
        else
            nb_puts(item, "<missing>");
        put_list_item(p, i == 0);
    }
    nb_puts(&p->out, ")");
}

static void mark_symbols(const nb_dim *d, bool *seen) {
    for (; d->kind != NB_DIM_CONST && d->kind != NB_DIM_SYMBOL; d = d->a) mark_symbols(d->b, seen);
    if (d->kind == NB_DIM_SYMBOL) seen[d->symbol->index] = true;
}

/* Symbols that no input shows, or whose range is not the usual one. */
static void put_symbols(printer *p, const nb_graph *g) {
    bool *seen = NB_NEW_ARRAY(p->scratch, bool, g->symbols.count + 1), first = true;
    for (uint32_t i = 0; i < g->body.n_params; i++) {
        const nb_type *t = g->body.params[i]->type;
        for (int d = 0; d < t->rank; d++) mark_symbols(t->dims[d], seen);
    }
    for (size_t i = 0; i < g->symbols.count; i++) {
        const nb_symbol *s = g->symbols.items[i];
        if (seen[i] && s->min == 1 && s->max == INT64_MAX) continue;
        if (first) nb_puts(&p->out, " where ");
        nb_puts(&p->item, nb_dim_text(p->scratch, &(nb_dim){.kind = NB_DIM_SYMBOL, .symbol = s}));
        put_word_int(&p->item, " in ", s->min);
        nb_puts(&p->item, "..");
        if (s->max != INT64_MAX) nb_put_int(&p->item, s->max);
        if (s->counted) nb_puts(&p->item, " counted");
        put_list_item(p, first);
        first = false;
    }
}

static void put_header(printer *p, const nb_graph *g) {
    nb_puts(&p->out, "nir ");
    nb_put_int(&p->out, NB_TEXT_VERSION);
    nb_put_newline(&p->out, 0);
    nb_put_name(&p->out, "graph @", g->name);
    nb_puts(&p->out, "(");
    for (uint32_t i = 0; i < g->body.n_params; i++) {
        put_value(&p->item, g->body.params[i]);
        nb_puts(&p->item, ": ");
        put_type(p, &p->item, g->body.params[i]->type);
        put_storage(&p->item, &g->body.params[i], 1);
        put_list_item(p, i == 0);
    }
    nb_puts(&p->out, ")");
    put_outputs(p, g);
    put_symbols(p, g);
    nb_puts(&p->out, " {");
}

static void put_state(printer *p, const nb_graph *g, const nb_state *s) {
    nb_writer *w = &p->out;
    nb_put_name(w, "state ", s->input < g->body.n_params ? g->body.params[s->input]->name : "");
    nb_put_name(w, " -> ", s->output < g->outputs.count ? g->outputs.items[s->output] : "");
    if (s->axis >= 0) put_word_int(w, " axis ", s->axis);
    if (s->appended) nb_puts(w, " appended");
}

static void note_part(printer *p, nb_text_kind kind, const void *what, int indent) {
    nb_text_part part = {.from = p->out.count - (size_t)indent, .kind = kind, .what = what};
    if (p->parts) nb_vec_push(p->parts_arena, p->parts, part);
}

static void begin_part(printer *p, nb_text_kind kind, const void *what, int indent) {
    nb_put_newline(&p->out, indent);
    note_part(p, kind, what, indent);
}

static void put_graph(printer *p, const nb_graph *g) {
    nb_writer *w = &p->out;
    note_part(p, NB_TEXT_HEADER, g, 0);
    put_header(p, g);
    if (g->stage != NB_STAGE_FLOAT) {
        begin_part(p, NB_TEXT_STAGE, g, 2);
        nb_puts(w, "stage ");
        nb_puts(w, nb_stage_names[g->stage]);
    }
    for (size_t i = 0; i < g->states.count; i++) {
        begin_part(p, NB_TEXT_STATE, &g->states.items[i], 2);
        put_state(p, g, &g->states.items[i]);
    }
    for (size_t i = 0; i < g->quants.count; i++) {
        begin_part(p, NB_TEXT_QUANT, g->quants.items[i], 2);
        nb_put_name(w, "quant #", g->quants.items[i]->name);
        nb_puts(w, ": ");
        put_quant(w, g->quants.items[i]);
    }
    for (size_t i = 0; i < g->constants.count; i++) {
        begin_part(p, NB_TEXT_CONST, g->constants.items[i], 2);
        put_const(p, g->constants.items[i]);
    }
    for (const nb_op *op = g->body.first; op; op = op->next) {
        begin_part(p, NB_TEXT_OP, op, 2);
        put_op(p, op, 2);
    }
    begin_part(p, NB_TEXT_END, g, 0);
    nb_puts(w, "}");
    nb_put_newline(w, 0);
}

static printer make(nb_arena *arena, FILE *file, const nb_print_options *options) {
    printer p = {.out = {.arena = arena, .file = file},
                 .item = {.arena = arena},
                 .scratch = arena,
                 .types = {.arena = arena}};
    if (options) p.options = *options;
    return p;
}

void nb_print(const nb_graph *g, const nb_print_options *options, FILE *out) {
    printer p = make(nb_arena_create_like(g->arena), out, options);
    put_graph(&p, g);
    nb_writer_flush(&p.out);
    nb_arena_destroy(p.scratch);
}

char *nb_print_op(nb_arena *arena, const nb_op *op) {
    printer p = make(arena, NULL, NULL);
    put_op(&p, op, -1);
    nb_put(&p.out, "", 1);
    return p.out.bytes;
}

char *nb_attr_text(nb_arena *arena, const nb_op *op, int i) {
    printer p = make(arena, NULL, NULL);
    const nb_attr_kind kind = nb_info(op)->attrs[i].kind;
    const nb_attr *a = &op->attrs[i];
    if (a->set && kind == NB_ATTR_BOOL)
        nb_puts(&p.out, a->b ? "true" : "false");
    else if (a->set)
        put_attr_value(p.scratch, &p.out, kind, a);
    nb_put(&p.out, "", 1);
    return p.out.bytes;
}

char *nb_quant_text(nb_arena *arena, const nb_quant *q) {
    nb_writer w = {.arena = arena};
    put_quant(&w, q);
    nb_put(&w, "", 1);
    return w.bytes;
}

const char *nb_print_attr(nb_arena *arena, const nb_op *op, const char *name) {
    const nb_op_info *info = nb_info(op);
    for (int i = 0; i < NB_MAX_ATTRS && info->attrs[i].kind != NB_ATTR_END; i++) {
        const nb_attr *a = &op->attrs[i];
        if (strcmp(info->attrs[i].name, name) != 0 || !a->set) continue;
        if (info->attrs[i].kind == NB_ATTR_STR) return a->str ? a->str : "";
        if (info->attrs[i].kind == NB_ATTR_QUANT) return a->quant ? a->quant->name : "";
        return nb_attr_text(arena, op, i);
    }
    return NULL;
}

char *nb_print_string(nb_arena *arena, const nb_graph *g, const nb_print_options *options) {
    return nb_print_parts(arena, g, options, NULL);
}

char *nb_print_parts(nb_arena *arena, const nb_graph *g, const nb_print_options *options,
                     nb_text_parts *parts) {
    printer p = make(arena, NULL, options);
    p.parts = parts;
    p.parts_arena = arena;
    p.scratch = nb_arena_create_like(g->arena);
    p.item.arena = p.types.arena = p.scratch;
    put_graph(&p, g);
    nb_put(&p.out, "", 1);
    nb_arena_destroy(p.scratch);
    return p.out.bytes;
}
