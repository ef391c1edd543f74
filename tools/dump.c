/* What passes made of a graph, collected for files and a page (dump.h).
 *
 * Each part of a text, an op, a constant, a descriptor, is an entity with a number that it keeps
 * from stage to stage: ops and constants by the pairs of ir/diff.h, the rest by name. Lines that
 * are equal are stored once. Between any two stages the page then knows what is new, what is gone
 * and what has another text, in one walk over both. */
#include "tools/dump.h"

#include "codegen/refs.h"
#include "ir/diff.h"
#include "ir/support/output.h"
#include "ir/support/parallel.h"
#include "ir/text.h"
#include "tools/bench.h"
#include "tools/const_stats.h"
#include "tools/dump_page.h"
#include "tools/json.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

struct nbt_dump {
    const char *folder, *pipeline, *title;
    nb_arena *arena;
    nb_diags *diags;
    nb_status status;       /* of the first thing that could not be written */
    nb_graph *last;         /* a copy of the graph at the last stage */
    uint32_t *ops, *values; /* entities by id in `last` */
    uint32_t n_entities;
    nb_map names; /* entities of what has no pairs: as_handle(number) */
    nb_map texts; /* of lines, the same with indices into `text` */
    nb_map known; /* signatures of constants -> the same, into `stats` */
    json_t *text, *stats, *stages, *steps, *kernels;
};

static void *as_handle(size_t i) { return (void *)(uintptr_t)(i + 1); }
static size_t of_handle(const void *handle) { return (uintptr_t)handle - 1; }

static void append_int(json_t *list, size_t i) {
    json_array_append_new(list, json_integer((json_int_t)i));
}

static size_t line_of(nbt_dump *d, const char *line, size_t length) {
    const void *known = nb_map_get_str(&d->texts, line, length);
    if (known) return of_handle(known);
    const size_t i = json_array_size(d->text);
    nb_map_set_str(&d->texts, line, length, as_handle(i));
    json_array_append_new(d->text, json_stringn(line, length));
    return i;
}

/* ---- entities ------------------------------------------------------------------------------ */

static uint32_t named_entity(nbt_dump *d, const char *prefix, const char *name) {
    const char *key = nb_format(d->arena, "%s %s", prefix, name);
    const void *known = nb_map_get_str(&d->names, key, strlen(key));
    if (known) return (uint32_t)of_handle(known);
    nb_map_set_str(&d->names, key, strlen(key), as_handle(d->n_entities));
    return d->n_entities++;
}

/* Numbers for the ops and constants of a new stage. */
typedef struct numbers {
    uint32_t *ops, *values;
} numbers;

static numbers number_all(nbt_dump *d, const nb_graph *g, const nb_diff *diff) {
    numbers n = {NB_NEW_ARRAY(d->arena, uint32_t, (size_t)g->n_ops + 1),
                 NB_NEW_ARRAY(d->arena, uint32_t, (size_t)g->n_values + 1)};
    for (size_t i = 0; diff && i < diff->ops.count; i++) {
        const nb_op_pair *p = &diff->ops.items[i];
        if (p->b) n.ops[p->b->id] = p->a ? d->ops[p->a->id] : d->n_entities++;
    }
    for (size_t i = 0; diff && i < diff->constants.count; i++) {
        const nb_const_pair *p = &diff->constants.items[i];
        if (!p->b || n.values[p->b->id]) continue;
        n.values[p->b->id] = p->a && !p->alike ? d->values[p->a->id] : d->n_entities++;
    }
    for (const nb_op *op = g->body.first; !diff && op; op = op->next)
        n.ops[op->id] = d->n_entities++;
    for (size_t i = 0; !diff && i < g->constants.count; i++)
        n.values[g->constants.items[i]->id] = d->n_entities++;
    return n;
}

static uint32_t entity_of(nbt_dump *d, const nb_graph *g, const numbers *n,
                          const nb_text_part *part) {
    switch (part->kind) {
    case NB_TEXT_OP:
        return n->ops[((const nb_op *)part->what)->id];
    case NB_TEXT_CONST:
        return n->values[((const nb_value *)part->what)->id];
    case NB_TEXT_QUANT:
        return named_entity(d, "quant", ((const nb_quant *)part->what)->name);
    case NB_TEXT_STATE:
        return named_entity(d, "state",
                            g->body.params[((const nb_state *)part->what)->input]->name);
    case NB_TEXT_HEADER:
        return named_entity(d, "header", "");
    case NB_TEXT_STAGE:
        return named_entity(d, "stage", "");
    case NB_TEXT_END:
        break;
    }
    return named_entity(d, "end", "");
}

/* ---- constants ----------------------------------------------------------------------------- */

typedef struct measuring {
    nb_arena *like;
    const nb_value **constants;
    nbt_const_stats *stats;
} measuring;

static void measure(void *user, int64_t i) {
    const measuring *m = user;
    nb_arena *scratch = nb_arena_create_like(m->like);
    m->stats[i] = nbt_const_stats_of(m->constants[i], scratch);
    nb_blob_rest(m->constants[i]->blob);
    nb_arena_destroy(scratch);
}

static json_t *stats_json(const nbt_const_stats *s) {
    json_t *bins = json_array();
    for (int i = 0; i < NBT_STATS_BINS; i++) json_array_append_new(bins, json_integer(s->bins[i]));
    return json_pack("{s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "count", (json_int_t)s->count,
                     "zeros", (json_int_t)s->zeros, "bad", (json_int_t)s->bad, "min",
                     nbt_json_number(s->min), "max", nbt_json_number(s->max), "mean",
                     nbt_json_number(s->mean), "deviation", nbt_json_number(s->deviation), "bins",
                     bins);
}

/* A name for the content of a constant in d->known. */
static const void *content_of(const nb_value *v) {
    return (const void *)(uintptr_t)(nb_sign_const(v) | 1);
}

/* Statistics of constants that no stage before had. */
static void measure_constants(nbt_dump *d, const nb_graph *g) {
    nb_arena *scratch = nb_arena_create_like(d->arena);
    const size_t most = g->constants.count + 1;
    measuring m = {.like = d->arena,
                   .constants = (const nb_value **)nb_alloc_array(scratch, most, sizeof(void *)),
                   .stats = NB_NEW_ARRAY(scratch, nbt_const_stats, most)};
    const size_t before = json_array_size(d->stats);
    size_t n = 0;
    for (size_t i = 0; i < g->constants.count; i++) {
        const nb_value *v = g->constants.items[i];
        if (nb_map_get(&d->known, content_of(v))) continue;
        nb_map_set(&d->known, content_of(v), as_handle(before + n));
        m.constants[n++] = v;
    }
    nb_parallel((int64_t)n, measure, &m);
    for (size_t i = 0; i < n; i++) json_array_append_new(d->stats, stats_json(&m.stats[i]));
    nb_arena_destroy(scratch);
}

/* What the constants that were given up for others lost. */
static json_t *errors_of(const nb_diff *diff, const numbers *n) {
    json_t *out = json_array();
    for (size_t i = 0; diff && i < diff->constants.count; i++) {
        const nb_const_pair *p = &diff->constants.items[i];
        if (!p->b || !p->differ || !p->error.measured) continue;
        json_array_append_new(out, json_pack("[I, o, o, I]", (json_int_t)n->values[p->b->id],
                                             nbt_json_number(p->error.sqnr),
                                             nbt_json_number(p->error.largest),
                                             (json_int_t)p->error.differ));
    }
    return out;
}

/* ---- stages -------------------------------------------------------------------------------- */

static void add_parts(nbt_dump *d, const nb_graph *g, const numbers *n, json_t *stage) {
    static const char letters[] = {
        [NB_TEXT_HEADER] = 'g', [NB_TEXT_STAGE] = 's', [NB_TEXT_STATE] = 's', [NB_TEXT_QUANT] = 'q',
        [NB_TEXT_CONST] = 'c',  [NB_TEXT_OP] = 'o',    [NB_TEXT_END] = 'e'};
    nb_arena *scratch = nb_arena_create_like(d->arena);
    nb_text_parts parts = {0};
    const char *text =
        nb_print_parts(scratch, g, &(nb_print_options){.elide_weights = true}, &parts);
    char *kinds = nb_alloc(scratch, parts.count + 1);
    json_t *entities = json_array(), *lines = json_array(), *stats = json_array();
    for (size_t i = 0; i < parts.count; i++) {
        const nb_text_part *p = &parts.items[i];
        const size_t to = i + 1 < parts.count ? parts.items[i + 1].from : strlen(text);
        kinds[i] = letters[p->kind];
        append_int(entities, entity_of(d, g, n, p));
        append_int(lines, line_of(d, text + p->from, to - p->from - 1));
        if (p->kind == NB_TEXT_CONST)
            append_int(stats, of_handle(nb_map_get(&d->known, content_of(p->what))));
    }
    json_object_set_new(stage, "kinds", json_string(kinds));
    json_object_set_new(stage, "entities", entities);
    json_object_set_new(stage, "lines", lines);
    json_object_set_new(stage, "stats", stats);
    nb_arena_destroy(scratch);
}

/* What the ops of the last stage became: their kernels' details, and what needs no code. */
static void find_kernels(nbt_dump *d, const nb_graph *g, const numbers *n) {
    json_decref(d->kernels);
    d->kernels = json_array();
    for (const nb_op *op = g->body.first; op; op = op->next) {
        const bool chained = op->n_results == 1 && nb_in_registers(op->results[0]);
        const char *detail = chained                ? "in registers: part of the op that uses it"
                             : nb_emits_nothing(op) ? "no code: the memory of its operand"
                                                    : nbt_layer_detail(d->arena, op);
        if (*detail && op->kind != NB_OP_return)
            json_array_append_new(d->kernels,
                                  json_pack("[I, s]", (json_int_t)n->ops[op->id], detail));
    }
}

static void add_stage(nbt_dump *d, const nb_graph *g, const char *name, const char *file,
                      const nb_diff *diff) {
    const numbers n = number_all(d, g, diff);
    json_t *stage = json_pack("{s:s, s:s}", "name", name, "file", file);
    measure_constants(d, g);
    add_parts(d, g, &n, stage);
    json_object_set_new(stage, "errors", errors_of(diff, &n));
    json_array_append_new(d->stages, stage);
    find_kernels(d, g, &n);
    d->ops = n.ops;
    d->values = n.values;
    nb_graph_destroy(d->last);
    d->last = nb_graph_clone(g);
}

/* ---- the interface ------------------------------------------------------------------------- */

nb_status nbt_dump_open(const char *folder, const nb_graph *g, const char *pipeline,
                        nb_arena *arena, nb_diags *diags, nbt_dump **out) {
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return nb_error(diags, NB_IO, (nb_where){.file = folder, .offset = -1},
                        "cannot make the folder: %s", strerror(errno));
    const char *title = g->file ? g->file : g->name;
    nbt_dump *d = NB_NEW(arena, nbt_dump);
    *d = (nbt_dump){.folder = folder,
                    .pipeline = pipeline,
                    .title = nb_escape(arena, title, strlen(title)),
                    .arena = arena,
                    .diags = diags,
                    .names = {.arena = arena},
                    .texts = {.arena = arena},
                    .known = {.arena = arena},
                    .n_entities = 1, /* 0 stands for none */
                    .text = json_array(),
                    .stats = json_array(),
                    .stages = json_array(),
                    .steps = json_array(),
                    .kernels = json_array()};
    add_stage(d, g, "input", "", NULL);
    *out = d;
    return NB_OK;
}

static const char *write_text(nbt_dump *d, const nb_pass_event *e) {
    const char *name = nb_format(d->arena, "%02zu-%s.nir", e->index, e->name);
    nb_output f;
    nb_status status = nb_output_open(nb_format(d->arena, "%s/%s", d->folder, name), d->diags, &f);
    if (status == NB_OK) {
        nb_print(e->graph, &(nb_print_options){.elide_weights = true}, f.stream);
        status = nb_output_close(&f, NB_OK);
    }
    if (d->status == NB_OK) d->status = status;
    return name;
}

void nbt_dump_see(nbt_dump *d, const nb_pass_event *e) {
    static const char *const results[] = {[NB_PASS_FAILED] = "failed",
                                          [NB_PASS_CHANGED] = "changed",
                                          [NB_PASS_UNCHANGED] = "unchanged"};
    json_t *step = json_pack("{s:s, s:s, s:f}", "name", e->name, "result", results[e->result], "ms",
                             1e3 * e->seconds);
    json_array_append_new(d->steps, step);
    const char *file = e->result == NB_PASS_UNCHANGED ? "" : write_text(d, e);
    /* What a failed pass left behind need not hold together. */
    if (e->result != NB_PASS_CHANGED) return;
    nb_arena *scratch = nb_arena_create_like(d->arena);
    const nb_diff *diff = nb_diff_graphs(d->last, e->graph, true, scratch);
    add_stage(d, e->graph, e->name, file, diff);
    json_object_set_new(step, "stage", json_integer((json_int_t)json_array_size(d->stages) - 1));
    json_object_set_new(step, "counts",
                        json_pack("[I, I, I, I]", (json_int_t)diff->added,
                                  (json_int_t)diff->removed, (json_int_t)diff->changed,
                                  (json_int_t)diff->consts_changed));
    nb_arena_destroy(scratch);
}

/* For each operation of the IR what the page says about it. */
static json_t *op_table(void) {
    json_t *out = json_object();
    for (int k = 0; k < NB_OP_COUNT; k++)
        json_object_set_new(out, nb_ops[k].name,
                            json_pack("[s, s]", nb_ops[k].family, nb_ops[k].summary));
    return out;
}

nb_status nbt_dump_close(nbt_dump *d) {
    json_t *data =
        json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "title", d->title, "pipeline",
                  nb_escape(d->arena, d->pipeline, strlen(d->pipeline)), "version", NIBBLE_VERSION,
                  "ops", op_table(), "steps", d->steps, "stages", d->stages, "text", d->text,
                  "stats", d->stats, "kernels", d->kernels);
    nb_status status =
        nbt_write_dump_page(nb_format(d->arena, "%s/index.html", d->folder),
                            nb_format(d->arena, "%s: passes", d->title), data, d->diags);
    nb_graph_destroy(d->last);
    return d->status == NB_OK ? status : d->status;
}
