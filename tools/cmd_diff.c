/* nibble diff: how two graphs differ in what they compute (ir/diff.h), as a few lines or as JSON.
 *
 * Differences of one sort are one line with their number, and a few of them below it: a pass
 * does the same to every layer. */
#include "ir/diff.h"
#include "ir/text.h"
#include "tools/json.h"
#include "tools/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define EXAMPLES 1 /* of a sort, without --verbose */

/* ---- in words ------------------------------------------------------------------------------ */

typedef struct writer {
    nb_arena *arena;
    bool all;
} writer;

/* Members of one sort: indices into the list of pairs. */
typedef struct sort {
    const char *title;
    NB_VEC(size_t) members;
} sort;

typedef struct sorts {
    nb_map by_title;
    NB_VEC(sort *) list; /* in order of appearance */
} sorts;

static sort *sort_of(sorts *s, const char *title) {
    const size_t length = strlen(title);
    sort *found = nb_map_get_str(&s->by_title, title, length);
    if (found) return found;
    found = NB_NEW(s->by_title.arena, sort);
    found->title = nb_map_set_str(&s->by_title, title, length, found);
    nb_vec_push(s->by_title.arena, &s->list, found);
    return found;
}

static void add_member(sorts *s, const char *title, size_t i) {
    sort *found = sort_of(s, title);
    nb_vec_push(s->by_title.arena, &found->members, i);
}

static const char *name_of(const writer *w, const nb_value *v) {
    return nb_format(w->arena, "%s%s", nb_is_const(v) ? "@" : "%",
                     nb_escape(w->arena, v->name, strlen(v->name)));
}

static const char *origin_of(const writer *w, const nb_loc *loc) {
    const char *node = nb_loc_name(loc);
    return *node ? nb_format(w->arena, "  at %s", nb_escape(w->arena, node, strlen(node))) : "";
}

static const char *or_none(const char *text) { return *text ? text : "none"; }

static const char *difference_text(const writer *w, const nb_difference *d) {
    return nb_format(w->arena, "%s%s%s %s -> %s", d->what, *d->name ? " " : "", d->name,
                     or_none(d->a), or_none(d->b));
}

/* "+ add", "~ matmul -> qmatmul", "~ rms_norm: operand gain, attribute eps". */
static const char *op_title(const writer *w, const nb_op_pair *p) {
    if (!p->a) return nb_format(w->arena, "+ %s", nb_info(p->b)->name);
    if (!p->b) return nb_format(w->arena, "- %s", nb_info(p->a)->name);
    const char *text = nb_format(w->arena, "~ %s", nb_info(p->a)->name);
    const char *between = ": ";
    for (size_t i = 0; i < p->differences.count; i++) {
        const nb_difference *d = &p->differences.items[i];
        if (strcmp(d->what, "kind") == 0) {
            text = nb_format(w->arena, "%s -> %s", text, d->b);
            continue;
        }
        text =
            nb_format(w->arena, "%s%s%s%s%s", text, between, d->what, *d->name ? " " : "", d->name);
        between = ", ";
    }
    return text;
}

static void print_op(const writer *w, const nb_op_pair *p) {
    const nb_op *op = p->b ? p->b : p->a;
    printf("      %s%s", op->n_results ? name_of(w, nb_out(op)) : "", origin_of(w, op->loc));
    for (size_t i = 0; i < p->differences.count; i++) {
        const nb_difference *d = &p->differences.items[i];
        if (strcmp(d->what, "kind") != 0) printf("  %s", difference_text(w, d));
    }
    printf("\n");
}

static const char *form_of(const writer *w, const nb_type *t) {
    return t->quant ? nb_quant_text(w->arena, t->quant) : nb_elems[t->elem].text;
}

/* The sort of a constant is how it is stored, without names: "~ f32 -> i4 group 32 axis 0". */
static const char *short_form(const writer *w, const nb_type *t) {
    const char *form = form_of(w, t), *scale = strstr(form, " scale ");
    return scale ? nb_strndup(w->arena, form, (size_t)(scale - form)) : form;
}

static const char *const_title(const writer *w, const nb_const_pair *p) {
    if (!p->a) return nb_format(w->arena, "+ %s", short_form(w, p->b->type));
    if (!p->b) return nb_format(w->arena, "- %s", short_form(w, p->a->type));
    const char *a = short_form(w, p->a->type), *b = short_form(w, p->b->type);
    return strcmp(a, b) == 0 ? nb_format(w->arena, "~ %s", a)
                             : nb_format(w->arena, "~ %s -> %s", a, b);
}

static const char *error_text(const writer *w, const nb_const_error *e) {
    if (!e->measured) return "";
    if (!e->differ) return "  no number differs";
    const char *sqnr = isfinite(e->sqnr) ? nb_format(w->arena, "SQNR %.1f dB, ", e->sqnr) : "";
    return nb_format(w->arena, "  %slargest error %.3g, %lld of %lld numbers", sqnr, e->largest,
                     (long long)e->differ, (long long)e->count);
}

static void print_const(const writer *w, const nb_const_pair *p) {
    const nb_value *v = p->b ? p->b : p->a;
    const char *name = name_of(w, v), *type = nb_type_text(w->arena, v->type);
    if (p->a && p->b) {
        const char *was = name_of(w, p->a), *old = nb_type_text(w->arena, p->a->type);
        if (strcmp(was, name) != 0) name = nb_format(w->arena, "%s -> %s", was, name);
        if (strcmp(old, type) != 0) type = nb_format(w->arena, "%s -> %s", old, type);
    }
    printf("      %s  %s%s\n", name, type, error_text(w, &p->error));
}

static void print_sorts(const writer *w, const sorts *s, const nb_diff *d, bool constants) {
    for (size_t i = 0; i < s->list.count; i++) {
        const sort *one = s->list.items[i];
        const size_t n = one->members.count, shown = w->all || n <= EXAMPLES + 1 ? n : EXAMPLES;
        printf("  %c %zu %s\n", one->title[0], n, one->title + 2);
        for (size_t k = 0; k < shown; k++) {
            if (constants)
                print_const(w, &d->constants.items[one->members.items[k]]);
            else
                print_op(w, &d->ops.items[one->members.items[k]]);
        }
        if (shown < n) printf("      and %zu more (--verbose)\n", n - shown);
    }
}

static void print_text(nbt_args *args, const nb_diff *d) {
    const writer w = {.arena = args->arena, .all = nbt_has(args, "verbose")};
    sorts ops = {.by_title = {.arena = args->arena}},
          constants = {.by_title = {.arena = args->arena}};
    for (size_t i = 0; i < d->graph.count; i++)
        printf("%s\n", difference_text(&w, &d->graph.items[i]));
    printf("ops        %zu same, %zu changed, %zu added, %zu removed\n", d->same, d->changed,
           d->added, d->removed);
    for (size_t i = 0; i < d->ops.count; i++) {
        const nb_op_pair *p = &d->ops.items[i];
        if (!p->a || !p->b || p->differences.count) add_member(&ops, op_title(&w, p), i);
    }
    print_sorts(&w, &ops, d, false);
    printf("constants  %zu same, %zu changed, %zu added, %zu removed\n", d->consts_same,
           d->consts_changed, d->consts_added, d->consts_removed);
    for (size_t i = 0; i < d->constants.count; i++) {
        const nb_const_pair *p = &d->constants.items[i];
        if (!p->a || !p->b || p->differ) add_member(&constants, const_title(&w, p), i);
    }
    print_sorts(&w, &constants, d, true);
}

/* ---- as JSON ------------------------------------------------------------------------------- */

/* Escaped: a name may hold what JSON must not get. */
static json_t *text(nbt_args *args, const char *t) {
    return json_string(nb_escape(args->arena, t, strlen(t)));
}

static json_t *differences_json(nbt_args *args, const nb_differences *list) {
    json_t *out = json_array();
    for (size_t i = 0; i < list->count; i++) {
        const nb_difference *d = &list->items[i];
        json_array_append_new(out, json_pack("{s:s, s:o, s:o, s:o}", "what", d->what, "name",
                                             text(args, d->name), "a", text(args, d->a), "b",
                                             text(args, d->b)));
    }
    return out;
}

static json_t *op_json(nbt_args *args, const nb_op *op) {
    json_t *at = json_array();
    for (uint32_t i = 0; op->loc && i < op->loc->n_at; i++)
        json_array_append_new(at, text(args, op->loc->at[i]));
    return json_pack("{s:s, s:o, s:o}", "op", nb_info(op)->name, "name",
                     text(args, op->n_results ? nb_out(op)->name : ""), "at", at);
}

static json_t *const_json(nbt_args *args, const nb_value *v) {
    char hash[20];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)nb_blob_hash(v->blob));
    json_t *out = json_pack("{s:o, s:o, s:s, s:I}", "name", text(args, v->name), "type",
                            text(args, nb_type_text(args->arena, v->type)), "hash", hash, "bytes",
                            (json_int_t)v->blob->size);
    if (v->type->quant)
        json_object_set_new(out, "codes", text(args, nb_quant_text(args->arena, v->type->quant)));
    return out;
}

static json_t *ops_json(nbt_args *args, const nb_diff *d) {
    json_t *changed = json_array(), *added = json_array(), *removed = json_array();
    for (size_t i = 0; i < d->ops.count; i++) {
        const nb_op_pair *p = &d->ops.items[i];
        if (!p->a)
            json_array_append_new(added, op_json(args, p->b));
        else if (!p->b)
            json_array_append_new(removed, op_json(args, p->a));
        else if (p->differences.count)
            json_array_append_new(changed, json_pack("{s:o, s:o, s:o}", "a", op_json(args, p->a),
                                                     "b", op_json(args, p->b), "differences",
                                                     differences_json(args, &p->differences)));
    }
    return json_pack("{s:I, s:o, s:o, s:o}", "same", (json_int_t)d->same, "changed", changed,
                     "added", added, "removed", removed);
}

static json_t *consts_json(nbt_args *args, const nb_diff *d) {
    json_t *changed = json_array(), *added = json_array(), *removed = json_array();
    for (size_t i = 0; i < d->constants.count; i++) {
        const nb_const_pair *p = &d->constants.items[i];
        const nb_const_error *e = &p->error;
        if (!p->a || !p->b) {
            json_array_append_new(p->a ? removed : added, const_json(args, p->a ? p->a : p->b));
            continue;
        }
        if (!p->differ) continue;
        json_t *one =
            json_pack("{s:o, s:o}", "a", const_json(args, p->a), "b", const_json(args, p->b));
        if (e->measured)
            json_object_set_new(one, "error",
                                json_pack("{s:o, s:o, s:I, s:I}", "sqnr_db",
                                          nbt_json_number(e->sqnr), "max_abs",
                                          nbt_json_number(e->largest), "differ",
                                          (json_int_t)e->differ, "count", (json_int_t)e->count));
        json_array_append_new(changed, one);
    }
    return json_pack("{s:I, s:o, s:o, s:o}", "same", (json_int_t)d->consts_same, "changed", changed,
                     "added", added, "removed", removed);
}

static void print_json(nbt_args *args, const nb_diff *d) {
    nbt_print_json(json_pack("{s:b, s:o, s:o, s:o}", "equal", nb_diff_is_empty(d), "graph",
                             differences_json(args, &d->graph), "ops", ops_json(args, d),
                             "constants", consts_json(args, d)));
}

/* ---- the command --------------------------------------------------------------------------- */

nb_status nbt_diff(nbt_args *args) {
    const char *paths[2];
    nb_graph *a, *b;
    NB_TRY(nbt_two_inputs(args, paths));
    NB_TRY(nbt_read_graph(args, paths[0], &a));
    nb_status status = nbt_read_graph(args, paths[1], &b);
    if (status != NB_OK) {
        nb_graph_destroy(a);
        return status;
    }
    const nb_diff *d = nb_diff_graphs(a, b, true, args->arena);
    const bool same = nb_diff_is_empty(d);
    if (nbt_has(args, "json"))
        print_json(args, d);
    else if (!same && !nbt_has(args, "quiet"))
        print_text(args, d);
    else if (same && !nbt_has(args, "quiet"))
        printf("no difference: %zu ops, %zu constants\n", d->same, d->consts_same);
    nb_graph_destroy(a);
    nb_graph_destroy(b);
    return same ? NB_OK : NB_CHECK_FAILED;
}
