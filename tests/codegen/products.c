#include "tests/codegen/products.h"

#include "ir/build.h"
#include "passes/pass.h"

#include <string.h>

enum { M = 5, K = 64, N = 32, GROUP = 32 };

static nb_value *codes(nb_graph *g, nb_elem weights, nb_diags *diags) {
    static const int64_t shape[] = {K / GROUP, N};
    float scales[K / GROUP * N];
    for (size_t i = 0; i < NB_COUNT(scales); i++) scales[i] = 0.01F;
    nb_quant q = {.storage = weights, .granularity = NB_PER_GROUP, .group = GROUP};
    q.scales = nb_const_f32(g, "scale", 2, shape, scales);
    const nb_quant *known = nb_quant_intern(g, &q, "w", diags);
    int64_t bytes;
    if (!known || !nb_elem_bytes_of(weights, (int64_t)K * N, &bytes)) return NULL;
    void *data;
    nb_blob *blob = nb_blob_create(bytes, &data);
    memset(data, 0x35, (size_t)bytes);
    const nb_dim *dims[] = {nb_dim_const(g, K), nb_dim_const(g, N)};
    return nb_graph_add_const(g, "w", nb_type_intern(g, weights, known, 2, dims), blob, NULL);
}

static nb_value *product(nb_graph *g, nb_elem weights, nb_diags *diags) {
    const nb_quant token = {.storage = NB_I8, .granularity = NB_PER_TOKEN, .amax_code = 127};
    const nb_dim *dims[] = {nb_dim_const(g, M), nb_dim_const(g, K)};
    nb_value *w = codes(g, weights, diags);
    nb_builder b = {.graph = g, .diags = diags};
    nb_begin(&b, NB_OP_quantize);
    nb_arg(&b, nb_graph_add_input(g, "x", nb_type_intern(g, NB_F32, NULL, 2, dims)));
    nb_set_quant(&b, "to", nb_quant_intern(g, &token, "a", diags));
    nb_value *a = nb_end(&b);
    nb_begin(&b, NB_OP_qmatmul);
    nb_arg(&b, a);
    nb_arg(&b, w);
    return nb_end(&b);
}

nb_graph *product_graph(nb_elem weights, nb_arena *arena, nb_diags *diags) {
    nb_graph *g = nb_graph_create("all", NULL, NULL);
    nb_value *y = product(g, weights, diags);
    const char *name = "y";
    if (y) nb_graph_set_outputs(g, 1, &y, &name);
    nb_registry *registry = nb_registry_create(arena);
    nb_pass_env env = {.registry = registry, .diags = diags, .arena = arena};
    nb_pipeline pipeline = {0};
    if (y && nb_pipeline_parse(registry, "plan-memory", arena, diags, &pipeline) == NB_OK &&
        nb_pipeline_run(&pipeline, g, &env) == NB_OK)
        return g;
    nb_graph_destroy(g);
    return NULL;
}
