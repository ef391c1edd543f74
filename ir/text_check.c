/* Does the text of a graph read back? For nb_check_text (text.h). The data of large constants is a
 * matter of its own, and would make this slow: a copy whose large constants repeat their first
 * element stands for the graph, which every type and quantization allows. */
#include "ir/text_private.h"

#define LARGE      4096                /* elements */
#define MOST_BYTES ((int64_t)64 << 20) /* of such constants, which the copy holds in memory */

/* The constant's first element, repeated. */
static void flatten(nb_graph *g, nb_value *c, int64_t count) {
    const int bits = nb_elems[c->type->elem].bits;
    const size_t unit = bits < 8 ? 1 : (size_t)bits / 8, size = (size_t)c->blob->size;
    unsigned char *data = nb_alloc(g->arena, size + 8);
    const uint64_t first = nb_elem_get(c->type->elem, c->blob->data, 0);
    for (int64_t i = 0; i < (bits < 8 ? 8 / bits : 1); i++)
        nb_elem_put(c->type->elem, data, i, first);
    for (size_t done = unit; done < size; done *= 2)
        memcpy(data + done, data, done < size - done ? done : size - done);
    for (int64_t i = count; bits < 8 && i < (int64_t)size * 8 / bits; i++)
        nb_elem_put(c->type->elem, data, i, 0); /* what is behind the last is 0 */
    nb_blob_release(c->blob);
    c->blob = nb_blob_borrow(g->arena, data, (int64_t)size);
}

/* NULL: its constants are too large. */
static nb_graph *outline_of(const nb_graph *g) {
    int64_t bytes = 0, count;
    for (size_t i = 0; i < g->constants.count; i++) bytes += g->constants.items[i]->blob->size;
    if (bytes > MOST_BYTES) return NULL;
    nb_graph *copy = nb_graph_clone(g);
    for (size_t i = 0; i < copy->constants.count; i++) {
        nb_value *c = copy->constants.items[i];
        if (nb_type_static_count(c->type, &count) && count > LARGE) flatten(copy, c, count);
    }
    return copy;
}

/* The first lines that differ. */
static void tell_difference(const nb_graph *g, const char *a, const char *b, nb_diags *diags) {
    int line = 1;
    while (*a && *a == *b) {
        line += *a == '\n';
        a++;
        b++;
    }
    nb_error(diags, NB_INTERNAL, (nb_where){.offset = -1, .file = g->file},
             "the graph's text reads back as another: in line %d, '%.*s' becomes '%.*s'", line,
             (int)strcspn(a, "\n"), a, (int)strcspn(b, "\n"), b);
}

nb_status nb_check_text(const nb_graph *g, nb_diags *diags) {
    nb_graph *outline = outline_of(g), *again;
    if (!outline) return NB_OK;
    nb_arena *arena = nb_arena_create_like(g->arena);
    nb_diags *said = nb_diags_create(arena, g->file);
    const char *text = nb_print_string(arena, outline, NULL), *second;
    void *user;
    const nb_oom_fn oom = nb_arena_oom(g->arena, &user);
    nb_status status = nb_parse(text, strlen(text), g->file, NULL, oom, user, said, &again);
    if (status != NB_OK) {
        status = nb_error(diags, NB_INTERNAL, (nb_where){.offset = -1, .file = g->file},
                          "the graph's text does not read back: %s",
                          said->list.count ? said->list.items[0]->message : "");
    } else {
        second = nb_print_string(arena, again, NULL);
        if (strcmp(text, second) != 0) {
            tell_difference(g, text, second, diags);
            status = NB_INTERNAL;
        }
        nb_graph_destroy(again);
    }
    nb_graph_destroy(outline);
    nb_arena_destroy(arena);
    return status;
}
