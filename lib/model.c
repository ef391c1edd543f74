/* Compiled models: in memory, to files, from files; running them (nibble.h). */
#include "lib/private.h"

#include "lib/files.h"

#include <stdlib.h>
#include <string.h>

typedef struct compiling {
    nibble_graph *graph;
    const char *path;
    nibble_compile_options options;
    nibble_model **out;
} compiling;

static nb_status choose_cpu(const nibble_compile_options *o, nb_diags *diags, const cg_cpu **out) {
    *out = cg_cpu_find(o->target, o->cpu ? o->cpu : "native");
    if (!*out && !o->cpu && o->target) *out = cg_cpu_find(o->target, "generic");
    if (*out) return NB_OK;
    nb_error(diags, NB_USAGE, NB_NOWHERE, "there is no CPU '%s'%s%s", o->cpu ? o->cpu : "native",
             o->target ? " for target " : "", o->target ? o->target : "");
    nb_help(diags, "`nibble compile --cpu help` lists them");
    return NB_USAGE;
}

/* A planned copy; the graph itself when it is planned. Both are freed by drop_planned. */
static nb_status plan(const compiling *c, nb_arena *arena, nb_diags *diags, nb_graph **out) {
    nb_graph *g = c->graph->graph;
    *out = g;
    if (g->stage == NB_STAGE_PLANNED) return NB_OK;
    *out = nb_graph_clone(g);
    return nbl_plan(*out, arena, diags);
}

static void drop_planned(const compiling *c, nb_graph *planned) {
    if (planned != c->graph->graph) nb_graph_destroy(planned);
}

static void set_file(const compiling *c, nb_diags *diags) {
    const char *file = c->graph->graph->file;
    diags->file = nb_strdup(diags->arena, file ? file : "graph");
}

static nb_status new_model(const nibble_compile_options *o, nb_diags *diags, nibble_model **out) {
    *out = calloc(1, sizeof **out);
    if (!*out) return nb_error(diags, NB_LIMIT, NB_NOWHERE, "out of memory");
    (*out)->threads = o->threads > 0 ? o->threads : 0;
    return NB_OK;
}

/* ---- in memory ------------------------------------------------------------------------------ */

static nb_status compile_planned(const compiling *c, const cg_cpu *cpu, nb_arena *arena,
                                 nb_diags *diags) {
    nb_graph *planned;
    nibble_model *model = NULL;
    nb_status status = plan(c, arena, diags, &planned);
    if (status == NB_OK) status = new_model(&c->options, diags, &model);
    if (status == NB_OK)
        status = nbl_compile_graph(planned, cpu, NULL, arena, diags, &model->program);
    drop_planned(c, planned);
    if (status == NB_OK)
        *c->out = model;
    else
        nibble_model_free(model);
    return status;
}

static nb_status compile(void *job, nb_diags *diags) {
    compiling *c = job;
    const cg_cpu *cpu;
    NB_TRY(nbl_given(c->graph, "graph", diags));
    set_file(c, diags);
    NB_TRY(choose_cpu(&c->options, diags, &cpu));
    nb_arena *arena = nb_arena_create(nbl_out_of_memory, NULL);
    nb_status status = compile_planned(c, cpu, arena, diags);
    nb_arena_destroy(arena);
    return status;
}

nibble_status nibble_compile(nibble_graph *graph, const nibble_compile_options *options,
                             nibble_diags *diags, nibble_model **out) {
    compiling c = {.graph = graph, .out = out};
    *out = NULL;
    NBL_TAKE(&c.options, options);
    return nbl_guard(compile, &c, diags);
}

/* ---- files ---------------------------------------------------------------------------------- */

static nb_status write_planned(const compiling *c, const nbl_kind *kind, const cg_cpu *cpu,
                               nb_arena *arena, nb_diags *diags) {
    nb_graph *planned;
    nb_status status = plan(c, arena, diags, &planned);
    const nibble_compile_options *o = &c->options;
    const nbl_writing w = {.path = c->path,
                           .kind = kind,
                           .cpu = cpu,
                           .name = o->name,
                           .embed_weights = o->embed_weights != 0,
                           .link = o->link};
    if (status == NB_OK) status = nbl_write(planned, &w, arena, diags);
    drop_planned(c, planned);
    return status;
}

static nb_status compile_file(void *job, nb_diags *diags) {
    compiling *c = job;
    const nbl_kind *kind;
    const cg_cpu *cpu;
    NB_TRY(nbl_given(c->graph, "graph", diags));
    NB_TRY(nbl_given(c->path, "path", diags));
    set_file(c, diags);
    NB_TRY(nbl_find_kind(c->options.emit, c->path, diags, &kind));
    NB_TRY(choose_cpu(&c->options, diags, &cpu));
    if (kind->write)
        return kind->write(c->graph->graph, &(nbl_writing){.path = c->path, .kind = kind}, diags);
    nb_arena *arena = nb_arena_create(nbl_out_of_memory, NULL);
    nb_status status = write_planned(c, kind, cpu, arena, diags);
    nb_arena_destroy(arena);
    return status;
}

nibble_status nibble_compile_file(nibble_graph *graph, const char *path,
                                  const nibble_compile_options *options, nibble_diags *diags) {
    compiling c = {.graph = graph, .path = path};
    NBL_TAKE(&c.options, options);
    return nbl_guard(compile_file, &c, diags);
}

static nb_status open_file(void *job, nb_diags *diags) {
    compiling *c = job;
    nibble_model *model;
    NB_TRY(nbl_given(c->path, "path", diags));
    NB_TRY(new_model(&c->options, diags, &model));
    nb_status status = nbl_open_shared(c->path, NBL_PAGES_USUAL, diags, &model->program);
    if (status == NB_OK)
        *c->out = model;
    else
        nibble_model_free(model);
    return status;
}

nibble_status nibble_model_open(const char *path, const nibble_compile_options *options,
                                nibble_diags *diags, nibble_model **out) {
    compiling c = {.path = path, .out = out};
    *out = NULL;
    NBL_TAKE(&c.options, options);
    return nbl_guard(open_file, &c, diags);
}

void nibble_model_free(nibble_model *model) {
    if (!model) return;
    nbl_close(&model->program);
    free(model);
}

/* ---- ports ---------------------------------------------------------------------------------- */

nb_loaded *nibble_model_loaded(const nibble_model *model) {
    return model ? model->program.loaded : NULL;
}

static const nb_model *descriptor(const nibble_model *model) {
    return nb_loaded_model(model->program.loaded);
}

size_t nibble_model_input_count(const nibble_model *model) {
    return model ? descriptor(model)->n_inputs : 0;
}
size_t nibble_model_output_count(const nibble_model *model) {
    return model ? descriptor(model)->n_outputs : 0;
}

static int give(const nb_port *from, nibble_port *out) {
    const nibble_port port = {.name = from->name,
                              .elem = from->elem,
                              .rank = from->rank,
                              .state = from->state,
                              .shape = from->shape};
    NBL_GIVE(out, port);
    return 1;
}

int nibble_model_input(const nibble_model *model, size_t i, nibble_port *out) {
    return out && i < nibble_model_input_count(model) ? give(&descriptor(model)->inputs[i], out)
                                                      : 0;
}
int nibble_model_output(const nibble_model *model, size_t i, nibble_port *out) {
    return out && i < nibble_model_output_count(model) ? give(&descriptor(model)->outputs[i], out)
                                                       : 0;
}

/* ---- running -------------------------------------------------------------------------------- */

typedef struct executing {
    nibble_model *model;
    const nb_array *inputs;
    size_t n;
    nibble_result **out;
} executing;

static nb_status run(void *job, nb_diags *diags) {
    executing *e = job;
    nb_tensor *inputs;
    nibble_result *result;
    NB_TRY(nbl_given(e->model, "model", diags));
    NB_TRY(nbl_result(nibble_model_output_count(e->model), diags, &result));
    nb_status status = nbl_tensors(e->inputs, e->n, nibble_model_input_count(e->model), true,
                                   result->arena, diags, &inputs);
    if (status == NB_OK)
        status = nbl_run_once(&e->model->program, e->model->threads, inputs, result->tensors,
                              result->arena, diags);
    if (status == NB_OK)
        *e->out = result;
    else
        nibble_result_free(result);
    return status;
}

nibble_status nibble_model_run(nibble_model *model, const nb_array *inputs, size_t n_inputs,
                               nibble_diags *diags, nibble_result **out) {
    executing e = {model, inputs, n_inputs, out};
    *out = NULL;
    return nbl_guard(run, &e, diags);
}
