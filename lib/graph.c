/* Graphs: reading, copies, text, ports, the reference evaluator (nibble.h). */
#include "lib/private.h"

#include "ir/text.h"
#include "lib/files.h"

#include <stdlib.h>
#include <string.h>

nb_status nbl_given(const void *argument, const char *name, nb_diags *diags) {
    return argument ? NB_OK : nb_error(diags, NB_USAGE, NB_NOWHERE, "%s is NULL", name);
}

/* Takes the graph over. */
static nb_status wrap(nb_graph *g, nibble_graph *origin, nb_diags *diags, nibble_graph **out) {
    nb_arena *arena = nb_arena_create(nbl_out_of_memory, NULL);
    *out = calloc(1, sizeof **out);
    if (!*out) {
        nb_arena_destroy(arena);
        nb_graph_destroy(g);
        return nb_error(diags, NB_LIMIT, NB_NOWHERE, "out of memory");
    }
    **out = (nibble_graph){.graph = g, .arena = arena, .origin = origin, .references = 1};
    if (origin) origin->references++;
    return NB_OK;
}

void nibble_graph_free(nibble_graph *graph) {
    while (graph && --graph->references == 0) {
        nibble_graph *origin = graph->origin;
        nb_graph_destroy(graph->graph);
        nb_arena_destroy(graph->arena);
        free(graph);
        graph = origin;
    }
}

/* ---- reading -------------------------------------------------------------------------------- */

typedef struct reading {
    const char *path; /* or name */
    const void *bytes;
    size_t size;
    const char *directory;
    nibble_graph **out;
} reading;

static nb_status load(void *job, nb_diags *diags) {
    reading *r = job;
    nb_graph *g = NULL;
    NB_TRY(nbl_given(r->path, "path", diags));
    NB_TRY(nbl_read_graph(r->path, NULL, nbl_out_of_memory, NULL, diags, &g));
    return wrap(g, NULL, diags, r->out);
}

nibble_status nibble_graph_load(const char *path, nibble_diags *diags, nibble_graph **out) {
    reading r = {.path = path, .out = out};
    *out = NULL;
    return nbl_guard(load, &r, diags);
}

static nb_status load_bytes(void *job, nb_diags *diags) {
    reading *r = job;
    nb_graph *g = NULL;
    if (r->size) NB_TRY(nbl_given(r->bytes, "bytes", diags));
    void *copy = malloc(r->size + 1);
    if (!copy) return nb_error(diags, NB_LIMIT, NB_NOWHERE, "out of memory");
    if (r->size) memcpy(copy, r->bytes, r->size);
    nb_status status = nbl_read_bytes(copy, r->size, r->path ? r->path : "memory", r->directory,
                                      nbl_out_of_memory, NULL, diags, &g);
    if (status != NB_OK) {
        free(copy);
        return status;
    }
    nb_graph_on_destroy(g, free, copy);
    return wrap(g, NULL, diags, r->out);
}

nibble_status nibble_graph_from_memory(const void *bytes, size_t size, const char *name,
                                       const char *directory, nibble_diags *diags,
                                       nibble_graph **out) {
    reading r = {name, bytes, size, directory, out};
    *out = NULL;
    return nbl_guard(load_bytes, &r, diags);
}

/* ---- copies and text ------------------------------------------------------------------------ */

typedef struct copying {
    nibble_graph *from, **to;
    nb_print_options options;
    char **text;
} copying;

static nb_status clone(void *job, nb_diags *diags) {
    copying *c = job;
    NB_TRY(nbl_given(c->from, "graph", diags));
    return wrap(nb_graph_clone(c->from->graph), c->from, diags, c->to);
}

nibble_status nibble_graph_clone(nibble_graph *graph, nibble_graph **out) {
    copying c = {.from = graph, .to = out};
    *out = NULL;
    return nbl_guard(clone, &c, NULL);
}

static nb_status print(void *job, nb_diags *diags) {
    copying *c = job;
    NB_TRY(nbl_given(c->from, "graph", diags));
    nb_arena *scratch = nb_arena_create(nbl_out_of_memory, NULL);
    *c->text = strdup(nb_print_string(scratch, c->from->graph, &c->options));
    nb_arena_destroy(scratch);
    return *c->text ? NB_OK : NB_LIMIT;
}

nibble_status nibble_graph_text(nibble_graph *graph, int elide, char **out) {
    copying c = {.from = graph, .options = {.elide_weights = elide != 0}, .text = out};
    *out = NULL;
    return nbl_guard(print, &c, NULL);
}

nb_graph *nibble_graph_view(nibble_graph *graph) { return graph ? graph->graph : NULL; }

/* ---- ports ---------------------------------------------------------------------------------- */

size_t nibble_graph_input_count(const nibble_graph *graph) {
    return graph ? graph->graph->body.n_params : 0;
}

size_t nibble_graph_output_count(const nibble_graph *graph) {
    return graph ? graph->graph->outputs.count : 0;
}

typedef struct asking {
    nibble_graph *graph;
    size_t i;
    bool output;
    nibble_port port;
} asking;

static nb_status describe(void *job, nb_diags *unused) {
    asking *a = job;
    nb_graph *g = a->graph->graph;
    (void)unused;
    const nb_value *v = a->output ? nb_in(g->body.last, a->i) : g->body.params[a->i];
    const nb_type *t = v->type;
    const char *shape = "[";
    for (int d = 0; d < t->rank; d++)
        shape = nb_format(a->graph->arena, "%s%s%s", shape, d ? "," : "",
                          nb_dim_text(a->graph->arena, t->dims[d]));
    a->port = (nibble_port){.name = a->output ? g->outputs.items[a->i] : v->name,
                            .elem = nb_elems[t->elem].onnx,
                            .rank = t->rank,
                            .state = -1,
                            .shape = nb_format(a->graph->arena, "%s]", shape)};
    for (size_t s = 0; s < g->states.count; s++) {
        const nb_state *state = &g->states.items[s];
        if ((a->output ? state->output : state->input) == a->i) a->port.state = (int32_t)s;
    }
    return NB_OK;
}

static int ask(nibble_graph *graph, size_t i, bool output, nibble_port *out) {
    asking a = {.graph = graph, .i = i, .output = output};
    size_t n = output ? nibble_graph_output_count(graph) : nibble_graph_input_count(graph);
    if (!out || i >= n || nbl_try(describe, &a) != NB_OK) return 0;
    NBL_GIVE(out, a.port);
    return 1;
}

int nibble_graph_input(nibble_graph *graph, size_t i, nibble_port *out) {
    return ask(graph, i, false, out);
}
int nibble_graph_output(nibble_graph *graph, size_t i, nibble_port *out) {
    return ask(graph, i, true, out);
}
