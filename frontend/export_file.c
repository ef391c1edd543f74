/* The ONNX file: messages of onnx.proto, then bytes of weights, streamed.
 *
 * A message begins with its length, so everything but weights is put together in memory first. The
 * numbers of fields are onnx.proto's. */
#include "frontend/export.h"
#include "frontend/wire.h"
#include "ir/support/output.h"

#include <string.h>

enum { IR_VERSION = 10, OPSET = 21 };

/* Protobuf has no messages above this. */
#define MOST_BYTES ((int64_t)INT32_MAX)
/* What else there may be, beside weights; and what those in bodies may take of memory. */
#define ROOM (INT64_C(1) << 27)
/* Tensors this small stay in the model beside external data; others begin at multiples of this. */
enum { FEW_BYTES = 1024, ALIGNMENT = 4096 };

typedef struct part {
    const nb_initializer *tensor;
    nb_wire head; /* field 5 of the graph up to the bytes, which follow if they are not external */
} part;

/* ---- messages ------------------------------------------------------------------------------- */

static nb_wire wire(nb_exporter *x) { return (nb_wire){.arena = x->arena}; }

/* StringStringEntryProto. */
static void put_entry(nb_exporter *x, nb_wire *message, uint32_t field, const char *key,
                      const char *value) {
    nb_wire entry = wire(x);
    nb_wire_text(&entry, 1, key);
    nb_wire_text(&entry, 2, value);
    nb_wire_message(message, field, &entry);
}

/* TensorProto up to its bytes, or with where they are. */
static void put_tensor(nb_exporter *x, part *p) {
    const nb_initializer *t = p->tensor;
    const bool external = t->offset >= 0;
    nb_wire w = wire(x);
    for (int d = 0; d < t->rank; d++) nb_wire_int(&w, 1, t->dims[d]);
    nb_wire_int(&w, 2, nb_elems[t->elem].onnx);
    nb_wire_text(&w, 8, t->port->name);
    if (external) {
        put_entry(x, &w, 13, "location", x->location);
        put_entry(x, &w, 13, "offset", nb_format(x->arena, "%lld", (long long)t->offset));
        put_entry(x, &w, 13, "length", nb_format(x->arena, "%lld", (long long)t->bytes));
        nb_wire_int(&w, 14, 1);
    } else {
        nb_wire_length(&w, 9, (uint64_t)t->bytes);
    }
    p->head = wire(x);
    nb_wire_length(&p->head, 5, (uint64_t)w.count + (external ? 0 : (uint64_t)t->bytes));
    for (size_t i = 0; i < w.count; i++) nb_vec_push(x->arena, &p->head, w.items[i]);
}

static nb_wire body_of(nb_exporter *x, const nb_onnx_graph *body);

static void put_attribute(nb_exporter *x, nb_wire *node, const nb_onnx_attr *a) {
    static const int64_t types[] = {[NB_ONNX_FLOAT] = 1,
                                    [NB_ONNX_INT] = 2,
                                    [NB_ONNX_TEXT] = 3,
                                    [NB_ONNX_GRAPH] = 5,
                                    [NB_ONNX_INTS] = 7};
    nb_wire w = wire(x);
    nb_wire_text(&w, 1, a->name);
    if (a->kind == NB_ONNX_FLOAT) nb_wire_float(&w, 2, a->f);
    if (a->kind == NB_ONNX_INT) nb_wire_int(&w, 3, a->i);
    if (a->kind == NB_ONNX_TEXT) nb_wire_text(&w, 4, a->text);
    if (a->kind == NB_ONNX_GRAPH) {
        const nb_wire body = body_of(x, a->graph);
        nb_wire_message(&w, 6, &body);
    }
    /* onnx.proto is proto2: lists are not packed unless it says so. */
    for (size_t i = 0; a->kind == NB_ONNX_INTS && i < a->count; i++) nb_wire_int(&w, 8, a->ints[i]);
    nb_wire_int(&w, 20, types[a->kind]);
    nb_wire_message(node, 5, &w);
}

static const char *name_of(nb_exporter *x, nb_port *p, const nb_onnx_node *maker) {
    if (!p) return "";
    if (!p->name)
        p->name = nb_export_name(x, nb_format(x->arena, "%s_output", maker ? maker->name : ""));
    return p->name;
}

static void put_node(nb_exporter *x, nb_wire *graph, nb_onnx_node *n) {
    nb_wire w = wire(x);
    n->name = nb_export_name(x, n->name ? n->name : n->type);
    for (size_t i = 0; i < n->n_inputs; i++) nb_wire_text(&w, 1, name_of(x, n->inputs[i], NULL));
    for (size_t i = 0; i < n->n_outputs; i++) nb_wire_text(&w, 2, name_of(x, n->outputs[i], n));
    nb_wire_text(&w, 3, n->name);
    nb_wire_text(&w, 4, n->type);
    for (size_t i = 0; i < n->n_attrs; i++) put_attribute(x, &w, &n->attrs[i]);
    if (n->domain) nb_wire_text(&w, 7, n->domain);
    nb_wire_message(graph, 1, &w);
}

static void put_nodes(nb_exporter *x, nb_wire *w, const nb_onnx_graph *graph) {
    for (size_t i = 0; i < graph->nodes.count; i++) put_node(x, w, graph->nodes.items[i]);
    nb_wire_text(w, 2, graph->name);
}

/* ValueInfoProto: name and type, dimensions as numbers or texts; in a body numbers alone, since it
 * may write sizes in another way than what is around it. */
static void put_info(nb_exporter *x, nb_wire *graph, uint32_t field, const char *name,
                     const nb_type *t, bool texts) {
    nb_wire info = wire(x), type = wire(x), tensor = wire(x), shape = wire(x);
    for (int d = 0; d < t->rank; d++) {
        nb_wire dim = wire(x);
        if (nb_dim_is_const(t->dims[d]))
            nb_wire_int(&dim, 1, t->dims[d]->value);
        else if (texts && t->dims[d]->kind == NB_DIM_SYMBOL)
            nb_wire_text(&dim, 2, t->dims[d]->symbol->name);
        else if (texts)
            nb_wire_text(&dim, 2, nb_dim_text(x->arena, t->dims[d]));
        nb_wire_message(&shape, 1, &dim);
    }
    nb_wire_int(&tensor, 1, nb_elems[t->elem].onnx);
    nb_wire_message(&tensor, 2, &shape);
    nb_wire_message(&type, 1, &tensor);
    nb_wire_text(&info, 1, name);
    nb_wire_message(&info, 2, &type);
    nb_wire_message(graph, field, &info);
}

static void write_bytes(const nb_initializer *t, nb_sink *s, nb_arena *like) {
    if (t->data) {
        nb_sink_put(s, t->data, (size_t)t->bytes);
    } else if (t->bytes) {
        nb_arena *scratch = nb_arena_create_like(like);
        t->write(t, s, scratch);
        nb_sink_flush(s);
        nb_arena_destroy(scratch);
    }
}

static void put_to_wire(nb_sink *s, const void *bytes, size_t size) {
    const uint8_t *b = bytes;
    nb_wire *w = s->user;
    for (size_t i = 0; i < size; i++) nb_vec_push(w->arena, w, b[i]);
}

/* With its initializers, whose bytes do not go through a buffer here. */
static nb_wire body_of(nb_exporter *x, const nb_onnx_graph *body) {
    nb_wire w = wire(x);
    put_nodes(x, &w, body);
    for (size_t i = 0; i < x->tensors.count; i++) {
        part p = {.tensor = x->tensors.items[i]};
        if (p.tensor->port->graph != body) continue;
        put_tensor(x, &p);
        nb_sink s = {.put = put_to_wire, .user = &w};
        put_to_wire(&s, p.head.items, p.head.count);
        if (p.tensor->offset < 0) write_bytes(p.tensor, &s, x->arena);
    }
    for (size_t i = 0; i < body->inputs.count; i++)
        put_info(x, &w, 11, body->inputs.items[i].port->name, body->inputs.items[i].type, false);
    for (size_t i = 0; i < body->outputs.count; i++)
        put_info(x, &w, 12, body->outputs.items[i].port->name, body->outputs.items[i].type, false);
    return w;
}

static void put_values(nb_exporter *x, nb_wire *graph) {
    const nb_graph *g = x->g;
    const nb_map *values = &x->model->values;
    const nb_op *end = g->body.last;
    nb_map seen = {.arena = x->arena};
    for (uint32_t i = 0; i < g->body.n_params; i++) {
        const nb_port *p = nb_map_get(values, g->body.params[i]);
        nb_map_set_str(&seen, p->name, strlen(p->name), x);
        put_info(x, graph, 11, p->name, g->body.params[i]->type, true);
    }
    for (uint32_t i = 0; i < end->n_operands; i++) {
        const char *name = g->outputs.items[i];
        nb_map_set_str(&seen, name, strlen(name), x);
        put_info(x, graph, 12, name, nb_in(end, i)->type, true);
    }
    for (size_t i = 0; i < values->count; i++) {
        const nb_port *p = values->entries[i].value;
        if (!p->type || !p->used || nb_map_get_str(&seen, p->name, strlen(p->name))) continue;
        nb_map_set_str(&seen, p->name, strlen(p->name), x);
        put_info(x, graph, 13, p->name, p->type, true);
    }
}

static void put_opset(nb_exporter *x, nb_wire *model, const char *domain, int64_t version) {
    nb_wire w = wire(x);
    nb_wire_text(&w, 1, domain);
    nb_wire_int(&w, 2, version);
    nb_wire_message(model, 8, &w);
}

/* ---- bytes ---------------------------------------------------------------------------------- */

static void put_to_stream(nb_sink *s, const void *bytes, size_t size) {
    fwrite(bytes, 1, size, s->user); /* closing looks for errors */
}

static void write_tensor(const nb_initializer *t, FILE *stream, nb_arena *like) {
    nb_sink *s = NB_NEW(like, nb_sink);
    s->put = put_to_stream;
    s->user = stream;
    write_bytes(t, s, like);
}

static nb_status write_data(nb_exporter *x, const char *path) {
    static const uint8_t zeros[ALIGNMENT];
    nb_output f;
    int64_t at = 0;
    NB_TRY(nb_output_open(path, x->diags, &f));
    for (size_t i = 0; i < x->tensors.count && !ferror(f.stream); i++) {
        const nb_initializer *t = x->tensors.items[i];
        if (t->offset < at) continue; /* it is in the model, or there already */
        fwrite(zeros, 1, (size_t)(t->offset - at), f.stream);
        write_tensor(t, f.stream, x->arena);
        at = t->offset + t->bytes;
    }
    return nb_output_close(&f, NB_OK);
}

static nb_status write_model(nb_exporter *x, const char *path, const nb_wire *front, size_t n,
                             const part *parts) {
    nb_output f;
    NB_TRY(nb_output_open(path, x->diags, &f));
    fwrite(front->items, 1, front->count, f.stream);
    for (size_t i = 0; i < n && !ferror(f.stream); i++) {
        fwrite(parts[i].head.items, 1, parts[i].head.count, f.stream);
        if (parts[i].tensor->offset < 0) write_tensor(parts[i].tensor, f.stream, x->arena);
    }
    return nb_output_close(&f, NB_OK);
}

/* ---- the file ------------------------------------------------------------------------------- */

static int64_t embedded_bytes(const nb_exporter *x) {
    int64_t sum = 0;
    for (size_t i = 0; i < x->tensors.count; i++) sum += x->tensors.items[i]->bytes;
    return sum;
}

/* Of those in bodies, which are in memory while the file is written. */
static int64_t bytes_in_bodies(const nb_exporter *x) {
    int64_t sum = 0;
    for (size_t i = 0; i < x->tensors.count; i++)
        if (x->tensors.items[i]->port->graph != x->model) sum += x->tensors.items[i]->bytes;
    return sum;
}

/* Bodies that have the same weights share their bytes. */
static void place_outside(nb_exporter *x) {
    nb_map placed = {.arena = x->arena};
    int64_t at = 0;
    for (size_t i = 0; i < x->tensors.count; i++) {
        nb_initializer *t = x->tensors.items[i];
        if (t->bytes < FEW_BYTES) continue;
        const char *key = nb_format(x->arena, "%p %p %d %lld", (const void *)t->from,
                                    (const void *)t->data, (int)t->elem, (long long)t->parameter);
        const nb_initializer *same = nb_map_get_str(&placed, key, strlen(key));
        if (same && same->write == t->write && same->bytes == t->bytes) {
            t->offset = same->offset;
            continue;
        }
        t->offset = nb_ceildiv(at, ALIGNMENT) * ALIGNMENT;
        at = t->offset + t->bytes;
        nb_map_set_str(&placed, key, strlen(key), t);
    }
}

nb_status nb_export_write(nb_exporter *x, const char *path) {
    const char *slash = strrchr(path, '/');
    const bool large = embedded_bytes(x) > MOST_BYTES - ROOM || bytes_in_bodies(x) > ROOM,
               outside = large || x->options->data == NB_ONNX_DATA_EXTERNAL;
    if (large && x->options->data == NB_ONNX_DATA_EMBEDDED)
        return nb_error(x->diags, NB_LIMIT, (nb_where){.file = path, .offset = -1},
                        "%lld bytes of weights do not fit an ONNX file, which ends at 2 GB",
                        (long long)embedded_bytes(x));
    x->location = nb_format(x->arena, "%s.data", slash ? slash + 1 : path);
    if (outside) place_outside(x);
    nb_wire inner = wire(x), front = wire(x);
    put_nodes(x, &inner, x->model);
    put_values(x, &inner);
    part *parts = NB_NEW_ARRAY(x->arena, part, x->tensors.count + 1);
    uint64_t size = inner.count;
    size_t n = 0;
    for (size_t i = 0; i < x->tensors.count; i++) {
        if (x->tensors.items[i]->port->graph != x->model) continue;
        parts[n].tensor = x->tensors.items[i];
        put_tensor(x, &parts[n]);
        size += parts[n].head.count;
        if (parts[n].tensor->offset < 0) size += (uint64_t)parts[n].tensor->bytes;
        n++;
    }
    if (size > (uint64_t)MOST_BYTES)
        return nb_error(x->diags, NB_LIMIT, (nb_where){.file = path, .offset = -1},
                        "the model takes %llu bytes, an ONNX file at most 2 GB",
                        (unsigned long long)size);
    nb_wire_int(&front, 1, IR_VERSION);
    nb_wire_text(&front, 2, "nibble");
    put_opset(x, &front, "", OPSET);
    if (x->contributed) put_opset(x, &front, "com.microsoft", 1);
    for (size_t i = 0; i < x->g->metadata.count; i++)
        put_entry(x, &front, 14, x->g->metadata.items[i].key, x->g->metadata.items[i].value);
    nb_wire_length(&front, 7, size);
    for (size_t i = 0; i < inner.count; i++) nb_vec_push(x->arena, &front, inner.items[i]);
    /* The model appears last: its data stands there then. */
    if (outside) NB_TRY(write_data(x, nb_format(x->arena, "%s.data", path)));
    return write_model(x, path, &front, n, parts);
}
