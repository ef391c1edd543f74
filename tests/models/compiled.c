/* Models compiled in memory (compiled.h). */
#include "tests/models/compiled.h"

#include "frontend/frontend.h"
#include "passes/pass.h"

#include <stdio.h>
#include <stdlib.h>

void compiled_complain(const compiled *c) {
    for (size_t i = 0; i < c->diags->list.count; i++)
        fputs(nb_diag_render(c->diags->arena, c->diags->list.items[i]), stdout);
}

bool compiled_plan(compiled *c, const char *path, const char *passes) {
    c->arena = nb_arena_create(NULL, NULL);
    c->diags = nb_diags_create(c->arena, path);
    if (nb_import(path, NULL, NULL, c->diags, &c->graph) != NB_OK) return false;
    nb_registry *registry = nb_registry_create(c->arena);
    nb_pipeline pipeline;
    nb_pass_env env = {
        .registry = registry, .diags = c->diags, .arena = c->arena, .verify_each = true};
    return nb_pipeline_parse(registry, passes, c->arena, c->diags, &pipeline) == NB_OK &&
           nb_pipeline_run(&pipeline, c->graph, &env) == NB_OK;
}

bool compiled_load(compiled *c, const char *cpu) {
    nb_codegen_options options = {.cpu = cg_cpu_find(NULL, cpu), .name = "m"};
    nb_object object;
    if (nb_codegen(c->graph, &options, c->arena, c->diags, &object) != NB_OK) return false;
    if (nb_load_object(&object, "m", c->diags, &c->jit) != NB_OK) return false;
    size_t size = ((size_t)nb_pack_size(object.pack) + 64) / 64 * 64;
    c->weights = aligned_alloc(64, size);
    nb_pack_copy(object.pack, c->weights);
    c->model = nb_jit_model(c->jit);
    c->tokens = nb_find_input(c->model, "input_ids");
    c->mask = nb_find_input(c->model, "attention_mask");
    c->positions = nb_find_input(c->model, "position_ids");
    return nb_load_model(c->model, c->weights, NULL, NULL, &c->loaded, NULL) == NB_RT_OK;
}

void compiled_unload(compiled *c) {
    if (c->loaded) nb_unload(c->loaded);
    if (c->jit) nb_jit_free(c->jit);
    free(c->weights);
    c->loaded = NULL;
    c->jit = NULL;
    c->weights = NULL;
}

void compiled_discard(compiled *c) {
    compiled_unload(c);
    nb_graph_destroy(c->graph);
    nb_arena_destroy(c->arena);
}
