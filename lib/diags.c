/* Diagnostics as the library's callers see them, and what stands on its own (nibble.h). */
#include "lib/private.h"

#include <stdlib.h>
#include <string.h>

_Static_assert((int)NIBBLE_INTERNAL == (int)NB_INTERNAL && (int)NIBBLE_USAGE == (int)NB_USAGE &&
                   (int)NIBBLE_LIMIT == (int)NB_LIMIT && (int)NIBBLE_IO == (int)NB_IO,
               "statuses are those of base.h");
_Static_assert((int)NB_LEVEL_ERROR == (int)NB_ERROR && (int)NB_LEVEL_WARNING == (int)NB_WARNING &&
                   (int)NB_LEVEL_INFO == (int)NB_INFO,
               "levels are those of diag.h");

static const char no_memory[] = "out of memory";

const char *nibble_version(void) { return NIBBLE_VERSION; }
void nibble_free(void *memory) { free(memory); }
const nb_pass_host *nibble_host(void) { return &nb_host; }

static nb_status make(void *job, nb_diags *unused) {
    nibble_diags **out = job;
    (void)unused;
    nb_arena *arena = nb_arena_create(nbl_out_of_memory, NULL);
    nb_diags *list = nb_diags_create(arena, "nibble");
    *out = calloc(1, sizeof **out);
    if (*out) **out = (nibble_diags){.arena = arena, .list = list};
    if (!*out) nb_arena_destroy(arena);
    return NB_OK;
}

nibble_diags *nibble_diags_create(void) {
    nibble_diags *out = NULL;
    return nbl_try(make, &out) == NB_OK ? out : NULL;
}

void nibble_diags_free(nibble_diags *diags) {
    if (!diags) return;
    nb_arena_destroy(diags->arena);
    free(diags);
}

size_t nibble_diags_count(const nibble_diags *diags) {
    return diags ? diags->list->list.count + diags->no_memory : 0;
}

int nibble_diags_get(const nibble_diags *diags, size_t i, nibble_diag *out) {
    nibble_diag d = {.level = NB_LEVEL_ERROR,
                     .status = NIBBLE_LIMIT,
                     .message = no_memory,
                     .help = "",
                     .file = "",
                     .node = "",
                     .offset = -1};
    if (!out || i >= nibble_diags_count(diags)) return 0;
    if (i < diags->list->list.count) {
        const nb_diag *from = diags->list->list.items[i];
        d.level = (nb_level)from->severity;
        d.status = (nibble_status)from->status;
        d.message = from->message;
        if (from->help) d.help = from->help;
        if (from->where.file) d.file = from->where.file;
        if (from->where.node) d.node = from->where.node;
        d.line = from->where.line;
        d.column = from->where.column;
        d.offset = from->where.offset;
    }
    NBL_GIVE(out, d);
    return 1;
}

typedef struct rendering {
    nibble_diags *diags;
    size_t i;
    const char *text;
} rendering;

static nb_status render(void *job, nb_diags *unused) {
    rendering *r = job;
    (void)unused;
    r->text = nb_diag_render(r->diags->arena, r->diags->list->list.items[r->i]);
    return NB_OK;
}

const char *nibble_diags_text(nibble_diags *diags, size_t i) {
    if (i >= nibble_diags_count(diags)) return "";
    rendering r = {diags, i, "nibble: error: out of memory\n"};
    if (i < diags->list->list.count && nbl_try(render, &r) != NB_OK) return "";
    return r.text;
}

static nb_status clear(void *job, nb_diags *unused) {
    nibble_diags *diags = job;
    (void)unused;
    nb_arena *arena = nb_arena_create(nbl_out_of_memory, NULL);
    nb_diags *list = nb_diags_create(arena, "nibble");
    nb_arena_destroy(diags->arena);
    *diags = (nibble_diags){.arena = arena, .list = list};
    return NB_OK;
}

void nibble_diags_clear(nibble_diags *diags) {
    if (diags && nbl_try(clear, diags) != NB_OK) diags->no_memory = true;
}
