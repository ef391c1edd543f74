/* Compiled execution (execute.h). */
#include "lib/execute.h"

#include "codegen/reuse.h"
#include "ir/text.h"
#include "lib/timing.h"

#include <stdlib.h>
#include <string.h>

nb_status nbl_runtime_error(nb_diags *diags, nb_rt_status status, const char *message) {
    static const nb_status of[] = {
        [NB_RT_OK] = NB_OK,
        [NB_RT_ARGUMENT] = NB_MALFORMED,
        [NB_RT_NO_MEMORY] = NB_LIMIT,
        [NB_RT_IO] = NB_IO,
        [NB_RT_CORRUPT] = NB_MALFORMED,
        [NB_RT_ABI] = NB_UNSUPPORTED,
        [NB_RT_CPU] = NB_UNSUPPORTED,
        [NB_RT_FULL] = NB_LIMIT,
        [NB_RT_INDEX] = NB_MALFORMED,
        [NB_RT_CANCELLED] = NB_CHECK_FAILED,
    };
    return status == NB_RT_OK ? NB_OK : nb_error(diags, of[status], NB_NOWHERE, "%s", message);
}

nb_status nbl_compile_graph(const nb_graph *planned, const cg_cpu *cpu, const nbl_how *how,
                            nb_arena *arena, nb_diags *diags, nbl_program *out) {
    static const nbl_how usual = {0};
    if (!how) how = &usual;
    nb_codegen_options options = {.cpu = cpu,
                                  .name = "model",
                                  .profile = how->profile,
                                  .cache = how->cache,
                                  .named = how->named,
                                  .quick = how->quick};
    nb_object object;
    *out = (nbl_program){.shared = how->pages == NBL_PAGES_SHARED};
    NB_TRY(nb_eval_can_call(planned, diags));
    nbl_begin_code();
    nb_status status = nb_codegen(planned, &options, arena, diags, &object);
    if (status == NB_OK) status = nb_load_object(&object, "model", diags, &out->jit);
    nbl_end_code();
    NB_TRY(status);
    out->quick = how->cache ? object.module & 1 : how->quick;
    NB_TRY(nbl_memory_create(how->pages, (size_t)nb_pack_size(object.pack), diags, &out->weights));
    nb_pack_copy(object.pack, out->weights.data);
    nb_error_text err;
    const nb_load_options loading = {.verify = !how->cache};
    return nbl_runtime_error(
        diags,
        nb_load_model(nb_jit_model(out->jit), out->weights.data, NULL, &loading, &out->loaded, err),
        err);
}

nb_status nbl_open_shared(const char *path, nbl_pages pages, nb_diags *diags, nbl_program *out) {
    nb_error_text err;
    nb_load_options options = {.huge = pages == NBL_PAGES_HUGE, .verify = 1};
    *out = (nbl_program){.shared = pages != NBL_PAGES_HUGE};
    return nbl_runtime_error(diags, nb_load(path, &options, &out->loaded, err), err);
}

void nbl_close(nbl_program *program) {
    if (program->loaded) nb_unload(program->loaded);
    if (program->jit) {
        nbl_begin_code();
        nb_jit_free(program->jit);
        nbl_end_code();
    }
    nbl_memory_free(&program->weights);
    *program = (nbl_program){0};
}

static nb_status copy_output(nb_session *session, const nb_model *model, uint32_t i, nb_tensor *out,
                             nb_arena *arena, nb_diags *diags) {
    int64_t dims[NB_MODEL_MAX_RANK];
    const void *data = nb_session_output(session, (int)i, dims);
    *out = (nb_tensor){.elem = nb_elem_from_onnx(model->outputs[i].elem),
                       .rank = model->outputs[i].rank};
    for (int d = 0; d < out->rank; d++) out->dims[d] = dims[d];
    if (!data || !nb_elem_bytes_of(out->elem, nb_tensor_count(out), &out->bytes))
        return nb_error(diags, NB_INTERNAL, NB_NOWHERE, "output \"%s\" is not there",
                        model->outputs[i].name);
    out->data = nb_alloc(arena, (size_t)out->bytes + 8);
    if (out->bytes) memcpy(out->data, data, (size_t)out->bytes);
    return NB_OK;
}

/* The runtime is told sizes only: a file's type and rank are compared here. */
static nb_status check_kind(const nb_port *port, const nb_tensor *t, nb_diags *diags) {
    nb_elem elem = nb_elem_from_onnx(port->elem);
    if (t->elem == elem && t->rank == port->rank) return NB_OK;
    return nb_error(diags, NB_MALFORMED, NB_NOWHERE,
                    "input \"%s\": expected %s%s, found %s of rank %d", port->name,
                    elem == NB_ELEM_COUNT ? "?" : nb_elems[elem].text, port->shape,
                    nb_elems[t->elem].text, t->rank);
}

static nb_status run_session(nb_session *session, const nb_model *model, const nb_tensor *inputs,
                             nb_tensor *outputs, nb_arena *arena, nb_diags *diags) {
    nb_error_text err;
    for (uint32_t i = 0; i < model->n_inputs; i++) {
        if (!inputs[i].data) continue;
        NB_TRY(check_kind(&model->inputs[i], &inputs[i], diags));
        NB_TRY(nbl_runtime_error(
            diags, nb_session_set_input(session, (int)i, inputs[i].data, inputs[i].dims, err),
            err));
    }
    NB_TRY(nbl_runtime_error(diags, nb_session_run(session, err), err));
    for (uint32_t i = 0; i < model->n_outputs; i++)
        NB_TRY(copy_output(session, model, i, &outputs[i], arena, diags));
    return NB_OK;
}

nb_status nbl_run_once(const nbl_program *program, int threads, const nb_tensor *inputs,
                       nb_tensor *outputs, nb_arena *arena, nb_diags *diags) {
    nb_session *session;
    nb_error_text err;
    nb_session_options options = {.threads = threads};
    NB_TRY(
        nbl_runtime_error(diags, nb_session_create(program->loaded, &options, &session, err), err));
    nb_status status =
        run_session(session, nb_loaded_model(program->loaded), inputs, outputs, arena, diags);
    nb_session_destroy(session);
    return status;
}

/* ---- the run of passes ---------------------------------------------------------------------- */

/* Inputs and results, which have the same ids in copies. */
static nb_value **values_by_id(const nb_graph *g, nb_arena *arena) {
    nb_value **out = NB_NEW_ARRAY(arena, nb_value *, (size_t)g->n_values + 1);
    for (uint32_t i = 0; i < g->body.n_params; i++) out[g->body.params[i]->id] = g->body.params[i];
    for (const nb_op *op = g->body.first; op; op = op->next) {
        for (uint32_t i = 0; i < op->n_results; i++) out[op->results[i]->id] = op->results[i];
    }
    return out;
}

/* A copy whose outputs are the graph's and, behind them, the tapped values. */
static nb_graph *with_taps(const nb_graph *g, const nb_tap *taps, size_t n_taps,
                           nb_arena *scratch) {
    nb_graph *copy = nb_graph_clone(g);
    nb_value **by_id = values_by_id(copy, scratch);
    size_t n = g->outputs.count;
    nb_value **values = (nb_value **)nb_alloc_array(copy->arena, n + n_taps + 1, sizeof *values);
    const char **names = (const char **)nb_alloc_array(copy->arena, n + n_taps + 1, sizeof *names);
    for (size_t i = 0; i < n; i++) {
        values[i] = nb_in(copy->body.last, i);
        names[i] = copy->outputs.items[i];
    }
    for (size_t i = 0; i < n_taps; i++) {
        values[n + i] = by_id[taps[i].value->id];
        names[n + i] = nb_format(copy->arena, "tap%zu", i);
    }
    nb_graph_set_outputs(copy, n + n_taps, values, names);
    return copy;
}

static uint64_t key_of(const nb_graph *g, const nb_tap *taps, size_t n_taps) {
    nb_arena *scratch = nb_arena_create_like(g->arena);
    nb_print_options options = {.elide_weights = true};
    const char *text = nb_print_string(scratch, g, &options);
    uint64_t key = nb_hash(text, strlen(text));
    for (size_t i = 0; i < n_taps; i++) key = nb_hash_mix(key, taps[i].value->id + 1);
    nb_arena_destroy(scratch);
    return key | 1;
}

/* What is observed is the graph as it stands: only what code generation needs is added. */
nb_status nbl_plan(nb_graph *g, nb_arena *arena, nb_diags *diags) {
    nb_pass_env env = {.registry = nb_registry_create(arena), .diags = diags, .arena = arena};
    const char *passes = g->stage >= NB_STAGE_QDQ ? "fuse-dequant, plan-memory" : "plan-memory";
    nb_pipeline pipeline;
    NB_TRY(nb_pipeline_parse(env.registry, passes, arena, diags, &pipeline));
    return nb_pipeline_run(&pipeline, g, &env);
}

static nb_status compile_copy(nbl_runner *r, nb_graph *copy, bool quick, nb_arena *scratch,
                              nb_diags *diags) {
    NB_TRY(nbl_plan(copy, scratch, diags));
    if (!r->cache) r->cache = nb_object_cache_create(r->arena, r->objects);
    const nbl_how how = {.cache = r->cache, .quick = quick};
    return nbl_compile_graph(copy, r->cpu, &how, scratch, diags, &r->program);
}

/* Good code takes about so many times as long to make as quick code. */
#define WORTH 3

/* The program of these values. */
static nb_status make_program(nbl_runner *r, const nb_graph *g, const nb_tap *taps, size_t n_taps,
                              bool quick, nb_diags *diags) {
    const double begin = nbl_now();
    nbl_close(&r->program);
    nb_arena *scratch = nb_arena_create_like(r->arena);
    nb_graph *copy = with_taps(g, taps, n_taps, scratch);
    nb_status status = compile_copy(r, copy, quick, scratch, diags);
    nb_arena_destroy(scratch);
    nb_graph_destroy(copy);
    r->making = nbl_now() - begin;
    r->running = 0;
    return status;
}

void nbl_runner_begin(nbl_runner *r, const nb_store *objects, nb_arena *arena, nb_pass_env *env) {
    *r = (nbl_runner){.cpu = cg_cpu_find(NULL, "native"), .arena = arena, .objects = objects};
    env->run = nbl_run_compiled;
    env->run_user = r;
    env->linear_bytes = nb_linear_bytes;
}

void nbl_runner_end(nbl_runner *r) {
    nbl_close(&r->program);
    nb_object_cache_free(r->cache);
}

nb_status nbl_run_compiled(void *user, const nb_graph *g, const nb_tensor *inputs,
                           nb_tensor *outputs, const nb_tap *taps, size_t n_taps, nb_arena *arena,
                           nb_diags *diags) {
    nbl_runner *r = user;
    if (g->stage == NB_STAGE_PLANNED)
        return nb_eval(g, inputs, outputs, taps, n_taps, arena, diags);
    for (size_t i = 0; i < n_taps; i++) {
        /* Codes and constants are no outputs a model can have. */
        if (taps[i].value->type->quant || nb_is_const(taps[i].value))
            return nb_eval(g, inputs, outputs, taps, n_taps, arena, diags);
    }
    uint64_t key = key_of(g, taps, n_taps);
    const bool known = key == r->key;
    if (!known || (r->program.quick && r->running > WORTH * r->making)) {
        r->key = 0;
        NB_TRY(make_program(r, g, taps, n_taps, !known, diags));
        r->key = key;
    }
    size_t n = g->outputs.count;
    nb_tensor *all = NB_NEW_ARRAY(arena, nb_tensor, n + n_taps + 1);
    const double begin = nbl_now();
    NB_TRY(nbl_run_once(&r->program, r->threads, inputs, all, arena, diags));
    r->running += nbl_now() - begin;
    for (size_t i = 0; i < n; i++) outputs[i] = all[i];
    for (size_t i = 0; i < n_taps; i++) taps[i].seen(taps[i].user, taps[i].value, &all[n + i]);
    return NB_OK;
}
