/* Fuzzer of ONNX bytes: imports what it is given; a graph that comes out must verify, and a refusal
 * must say why.
 *
 *   cmake --preset fuzz && cmake --build --preset fuzz --target fuzz_onnx
 *   build/fuzz/tests/fuzz/fuzz_onnx -max_len=4096 -timeout=10 -rss_limit_mb=2000 CORPUS...
 *
 * A corpus of small models, such as ONNX's node tests, gives it somewhere to start. */
#include "frontend/frontend.h"
#include "ir/verify.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags = nb_diags_create(arena, "fuzz.onnx");
    nb_graph *g = NULL;
    nb_status status = nb_import_bytes(data, size, "fuzz.onnx", NULL, NULL, NULL, diags, &g);
    if (status == NB_OK) {
        if (nb_verify(g, diags) != NB_OK) abort();
        nb_graph_destroy(g);
    } else {
        if (!diags->errors || g || status == NB_INTERNAL || status == NB_IO) abort();
        for (size_t i = 0; i < diags->list.count; i++)
            (void)nb_diag_render(arena, diags->list.items[i]);
    }
    nb_arena_destroy(arena);
    return 0;
}
