/* Fuzzes the text form with libFuzzer: any bytes parse or are refused without a crash, and what
 * parses prints to a text that parses again and prints the same.
 *
 * Built by tests/fuzz/CMakeLists.txt with a clang. Run with ASAN_OPTIONS of
 * allocator_may_return_null=1:max_allocation_size_mb=64, so that a large constant is refused for
 * lack of memory. Seeds: tests/errors. */
#include "ir/text.h"
#include "ir/verify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static nb_graph *parse(nb_arena *arena, const char *text, size_t length, bool must) {
    nb_diags *diags = nb_diags_create(arena, "fuzz.nir");
    nb_graph *g = NULL;
    nb_status status = nb_parse(text, length, "fuzz.nir", NULL, NULL, NULL, diags, &g);
    if ((status == NB_OK) != (g != NULL) || (status == NB_OK) != (diags->errors == 0)) abort();
    for (size_t i = 0; i < diags->list.count; i++) {
        const char *rendered = nb_diag_render(arena, diags->list.items[i]);
        if (must) fputs(rendered, stderr);
    }
    if (must && !g) abort();
    return g;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_graph *g = parse(arena, (const char *)data, size, false);
    if (g) {
        char *first = nb_print_string(arena, g, NULL);
        nb_graph *again = parse(arena, first, strlen(first), true);
        char *second = nb_print_string(arena, again, NULL);
        if (strcmp(first, second) != 0) {
            fprintf(stderr, "printed first:\n%sand then:\n%s", first, second);
            abort();
        }
        nb_graph_destroy(again);
        nb_graph_destroy(g);
    }
    nb_arena_destroy(arena);
    return 0;
}
