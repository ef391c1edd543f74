/* The order in which nodes are imported. ONNX wants nodes sorted, each behind what it uses;
 * converters that append nodes to a graph, as those to half floats do, leave them where they are,
 * and onnxruntime sorts what it reads. */
#include "frontend/import.h"

#include <string.h>

typedef struct ordering {
    const Onnx__GraphProto *graph;
    nb_arena *arena;
    nb_map producers;    /* name -> its place in graph->node */
    NB_VEC(size_t) uses; /* nodes that nodes need: of node i from first[i] to first[i + 1] */
    size_t *first;
    size_t *order, count;
    bool sorted;
} ordering;

static void need(ordering *o, size_t node, const char *name) {
    Onnx__NodeProto **by = nb_map_get_str(&o->producers, name, strlen(name));
    if (!by) return;
    const size_t at = (size_t)(by - o->graph->node);
    o->sorted = o->sorted && at < node;
    nb_vec_push(o->arena, &o->uses, at);
}

/* What `n` reads, in graphs inside too: node `node` needs it. */
static void need_inputs(ordering *o, size_t node, const Onnx__NodeProto *n) {
    for (size_t i = 0; i < n->n_input; i++) need(o, node, n->input[i]);
    for (size_t i = 0; i < n->n_attribute; i++) {
        const Onnx__GraphProto *g = n->attribute[i]->g;
        for (size_t k = 0; g && k < g->n_node; k++) need_inputs(o, node, g->node[k]);
        for (size_t k = 0; g && k < g->n_output; k++)
            if (g->output[k]->name) need(o, node, g->output[k]->name);
    }
}

/* Puts `root` behind what it needs; of nodes that need each other, the one found first is last. */
static void put(ordering *o, size_t root, size_t *next, bool *seen) {
    NB_VEC(size_t) open = {0};
    if (seen[root]) return;
    seen[root] = true;
    nb_vec_push(o->arena, &open, root);
    while (open.count) {
        const size_t node = open.items[open.count - 1];
        if (next[node] == o->first[node + 1]) {
            o->order[o->count++] = node;
            open.count--;
            continue;
        }
        const size_t use = o->uses.items[next[node]++];
        if (seen[use]) continue;
        seen[use] = true;
        nb_vec_push(o->arena, &open, use);
    }
}

const size_t *nb_import_order(nb_importer *im, const Onnx__GraphProto *graph) {
    const size_t n = graph->n_node;
    ordering o = {.graph = graph,
                  .arena = im->arena,
                  .producers = {.arena = im->arena},
                  .first = (size_t *)nb_alloc_array(im->arena, n + 1, sizeof(size_t)),
                  .sorted = true};
    for (size_t i = n; i-- > 0;) {
        for (size_t k = 0; k < graph->node[i]->n_output; k++) {
            const char *name = graph->node[i]->output[k];
            if (*name) nb_map_set_str(&o.producers, name, strlen(name), &graph->node[i]);
        }
    }
    for (size_t i = 0; i < n; i++) {
        o.first[i] = o.uses.count;
        need_inputs(&o, i, graph->node[i]);
    }
    o.first[n] = o.uses.count;
    if (o.sorted) return NULL;
    size_t *next = (size_t *)nb_alloc_array(im->arena, n + 1, sizeof *next);
    bool *seen = NB_NEW_ARRAY(im->arena, bool, n + 1);
    o.order = (size_t *)nb_alloc_array(im->arena, n + 1, sizeof *o.order);
    memcpy(next, o.first, (n + 1) * sizeof *next);
    for (size_t i = 0; i < n; i++) put(&o, i, next, seen);
    return o.order;
}
