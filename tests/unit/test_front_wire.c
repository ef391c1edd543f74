/* See test_front.h. */
#include "tests/unit/test_front.h"

#include "frontend/frontend.h"

#include <stdlib.h>
#include <string.h>

static nb_arena *arena;

void front_begin(void) { arena = nb_arena_create(NULL, NULL); }
void front_end(void) {
    nb_arena_destroy(arena);
    arena = NULL;
}
nb_arena *front_arena(void) { return arena; }

wire front_join(size_t n, const wire *parts) {
    size_t size = 0, at = 0;
    for (size_t i = 0; i < n; i++) size += parts[i].size;
    uint8_t *bytes = nb_alloc(arena, size + 1);
    for (size_t i = 0; i < n; i++) {
        if (parts[i].size) memcpy(bytes + at, parts[i].bytes, parts[i].size);
        at += parts[i].size;
    }
    return (wire){bytes, size};
}

static wire varint(uint64_t value) {
    uint8_t *bytes = nb_alloc(arena, 10);
    size_t n = 0;
    do {
        bytes[n++] = (uint8_t)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        value >>= 7;
    } while (value);
    return (wire){bytes, n};
}

wire front_number(unsigned field, uint64_t value) { return W(varint(field << 3), varint(value)); }
wire front_fixed(unsigned field, float value) {
    uint8_t *bytes = nb_alloc(arena, 4);
    memcpy(bytes, &value, 4);
    return W(varint(field << 3 | 5), ((wire){bytes, 4}));
}
wire front_bytes(unsigned field, const void *bytes, size_t size) {
    return W(varint(field << 3 | 2), varint(size), ((wire){bytes, size}));
}
wire front_text(unsigned field, const char *text) { return front_bytes(field, text, strlen(text)); }
wire front_put(unsigned field, wire body) { return front_bytes(field, body.bytes, body.size); }

/* One field for each name between commas. */
static wire names(unsigned field, const char *list) {
    wire all = NONE;
    for (const char *p = list; *list;) {
        size_t n = strcspn(p, ",");
        all = W(all, front_bytes(field, p, n));
        p += n;
        if (!*p++) break;
    }
    return all;
}

wire front_domain_node(const char *domain, const char *op, const char *inputs, const char *outputs,
                       wire attributes) {
    return front_put(1, W(names(1, inputs), names(2, outputs), front_text(3, "the node"),
                          front_text(4, op), attributes, front_text(7, domain)));
}
wire front_node(const char *op, const char *inputs, const char *outputs, wire attributes) {
    return front_domain_node("", op, inputs, outputs, attributes);
}

wire front_int(const char *name, int64_t value) {
    return front_put(5,
                     W(front_text(1, name), front_number(3, (uint64_t)value), front_number(20, 2)));
}
wire front_float(const char *name, float value) {
    return front_put(5, W(front_text(1, name), front_fixed(2, value), front_number(20, 1)));
}
wire front_string(const char *name, const char *value) {
    return front_put(5, W(front_text(1, name), front_text(4, value), front_number(20, 3)));
}
wire front_ints(const char *name, size_t n, const int64_t *values) {
    wire all = W(front_text(1, name), front_number(20, 7));
    for (size_t i = 0; i < n; i++) all = W(all, front_number(8, (uint64_t)values[i]));
    return front_put(5, all);
}

static bool is_number(const char *text) { return *text == '-' || (*text >= '0' && *text <= '9'); }

static wire value_info(unsigned field, const char *name, int type, const char *dims) {
    wire shape = NONE;
    for (const char *p = dims; *dims;) {
        size_t n = strcspn(p, ",");
        wire dim = is_number(p) ? front_number(1, (uint64_t)strtoll(p, NULL, 10))
                   : *p == '?'  ? NONE
                                : front_bytes(2, p, n);
        shape = W(shape, front_put(1, dim));
        p += n;
        if (!*p++) break;
    }
    wire tensor = W(front_number(1, (uint64_t)type), front_put(2, shape));
    return front_put(field, W(front_text(1, name), front_put(2, front_put(1, tensor))));
}
wire front_input(const char *name, int type, const char *dims) {
    return value_info(11, name, type, dims);
}
wire front_output(const char *name, int type, const char *dims) {
    return value_info(12, name, type, dims);
}

wire front_tensor(const char *name, int type, const char *dims, const void *data, size_t size) {
    wire all = NONE;
    for (const char *p = dims; *dims;) {
        all = W(all, front_number(1, (uint64_t)strtoll(p, NULL, 10)));
        p += strcspn(p, ",");
        if (!*p++) break;
    }
    return W(all, front_number(2, (uint64_t)type), front_text(8, name), front_bytes(9, data, size));
}
wire front_weight(const char *name, int type, const char *dims, const void *data, size_t size) {
    return front_put(5, front_tensor(name, type, dims, data, size));
}
wire front_i64(const char *name, size_t n, const int64_t *values) {
    return front_weight(name, 7, nb_format(arena, "%zu", n), values, 8 * n);
}
wire front_zeros(const char *name, const char *dims) {
    size_t n = 1;
    for (const char *p = dims; *dims;) {
        n *= strtoul(p, NULL, 10);
        p += strcspn(p, ",");
        if (!*p++) break;
    }
    return front_weight(name, 1, dims, nb_alloc(arena, 4 * n + 1), 4 * n);
}

wire front_model(int64_t opset, wire graph) {
    return W(front_number(1, 8), front_put(7, graph),
             front_put(8, W(front_text(1, ""), front_number(2, (uint64_t)opset))),
             front_put(8, W(front_text(1, "com.microsoft"), front_number(2, 1))));
}

static void free_copy(void *copy) { free(copy); }

nb_graph *front_import(wire model, nb_diags *diags, nb_status *status) {
    uint8_t *copy = malloc(model.size ? model.size : 1);
    ck_assert_ptr_nonnull(copy);
    if (model.size) memcpy(copy, model.bytes, model.size);
    nb_graph *g = NULL;
    *status = nb_import_bytes(copy, model.size, "m.onnx", NULL, NULL, NULL, diags, &g);
    if (*status != NB_OK) {
        ck_assert_ptr_null(g);
        free(copy);
        return NULL;
    }
    nb_graph_on_destroy(g, free_copy, copy);
    return g;
}

void front_expect(wire model, nb_status status, const char *part) {
    nb_diags *diags = nb_diags_create(arena, "m.onnx");
    nb_status got;
    nb_graph *g = front_import(model, diags, &got);
    const char *text = diags->list.count ? nb_diag_render(arena, diags->list.items[0]) : "";
    ck_assert_msg(got == status, "status %d, expected %d: %s", (int)got, (int)status, text);
    ck_assert_msg(strstr(text, part), "expected '%s' in: %s", part, text);
    ck_assert_msg(status == NB_OK || diags->errors > 0, "an error without a message");
    nb_graph_destroy(g);
}

void front_expect_type(wire model, const char *type) {
    nb_diags *diags = nb_diags_create(arena, "m.onnx");
    nb_status status;
    nb_graph *g = front_import(model, diags, &status);
    ck_assert_msg(g, "%s", diags->list.count ? nb_diag_render(arena, diags->list.items[0]) : "?");
    ck_assert_str_eq(nb_type_text(arena, nb_in(g->body.last, 0)->type), type);
    nb_graph_destroy(g);
}
