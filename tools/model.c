/* Reading, pipelines and execution for all subcommands (model.h). */
#include "tools/model.h"

#include "codegen/pack.h"
#include "codegen/reuse.h"
#include "ir/support/output.h"
#include "lib/files.h"
#include "passes/branch.h"
#include "passes/linear.h"
#include "passes/presets.h"
#include "tools/bench.h"
#include "tools/custom_ops.h"
#include "tools/dump.h"
#include "tools/progress.h"
#include "tools/samples.h"
#include "tools/store.h"
#include "tools/tensor_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool begins_with(const char *path, const char *magic) {
    char head[16] = {0};
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    size_t n = fread(head, 1, sizeof head - 1, f);
    fclose(f);
    return n >= strlen(magic) && memcmp(head, magic, strlen(magic)) == 0;
}

bool nbt_is_compiled(const char *path) {
    return begins_with(path, "\x7f"
                             "ELF");
}

nb_status nbt_read_graph(nbt_args *args, const char *path, nb_graph **out) {
    const nbt_strings *pins = nbt_all(args, "pin");
    nb_import_options options = {.pins = pins->items, .n_pins = pins->count};
    nb_registry *registry;
    NB_TRY(nbt_make_registry(args, &registry));
    options.n_custom = nbt_custom_ops(registry, &options.custom);
    return nbl_read_graph(path, &options, nbt_out_of_memory, NULL, args->diags, out);
}

void nbt_print_cpus(void) {
    printf("native\n");
    for (size_t i = 0; i < cg_n_cpus; i++) printf("%-20s %s\n", cg_cpus[i].name, cg_cpus[i].triple);
}

nb_status nbt_choose_cpu(nbt_args *args, const char *fallback, const cg_cpu **out) {
    const char *name = nbt_get(args, "cpu"),
               *target = strcmp(args->command, "compile") == 0 ? nbt_get(args, "target") : NULL;
    if (!name) name = target && strncmp(target, "x86_64", 6) != 0 ? "generic" : fallback;
    *out = cg_cpu_find(target, name);
    if (*out) return NB_OK;
    nb_error(args->diags, NB_USAGE, NB_NOWHERE, "there is no CPU '%s'%s%s", name,
             target ? " for target " : "", target ? target : "");
    nb_help(args->diags, "`nibble %s --cpu help` lists them", args->command);
    return NB_USAGE;
}

bool nbt_wants_layers(const nbt_args *args) {
    return (nbt_has(args, "layers") && strcmp(args->command, "bench") == 0) ||
           strcmp(args->command, "report") == 0 || strcmp(args->command, "profile") == 0;
}

bool nbt_wants_stages(const nbt_args *args) {
    return nbt_has(args, "tokens") &&
           (nbt_has(args, "layers") || strcmp(args->command, "report") == 0);
}

nb_status nbt_choose_threads(nbt_args *args, int *out) {
    int64_t threads = 0;
    NB_TRY(nbt_integer(args, "threads", 1, 1024, &threads));
    *out = (int)threads;
    return NB_OK;
}

nb_status nbt_choose_pages(const nbt_args *args, nbl_pages *out) {
    const char *text = nbt_get(args, "weights-in");
    *out = !text                         ? NBL_PAGES_USUAL
           : strcmp(text, "huge") == 0   ? NBL_PAGES_HUGE
           : strcmp(text, "shared") == 0 ? NBL_PAGES_SHARED
                                         : NBL_PAGES_USUAL;
    if (!text || *out != NBL_PAGES_USUAL) return NB_OK;
    return nb_error(args->diags, NB_USAGE, NB_NOWHERE,
                    "--weights-in takes huge or shared, found '%s'", text);
}

/* ---- pipelines ------------------------------------------------------------------------------ */

typedef struct observer {
    nbt_dump *dump; /* NULL: not asked for */
    bool time;
    const nbt_watch *watch;
} observer;

static void after_pass(void *user, const nb_pass_event *e) {
    observer *o = user;
    if (o->time)
        printf("%-20s %8.1f ms%s\n", e->name, 1e3 * e->seconds,
               e->result == NB_PASS_UNCHANGED ? "  unchanged" : "");
    if (e->result == NB_PASS_CHANGED && o->watch->stages)
        nbt_stages_see(o->watch->stages, e->index, e->name, e->graph);
    if (o->watch->after) o->watch->after(o->watch->user, e);
    if (o->dump) nbt_dump_see(o->dump, e);
}

nb_status nbt_make_registry(nbt_args *args, nb_registry **out) {
    *out = nb_registry_create(args->arena);
    if (nbt_get(args, "recipe")) (*out)->base = nbl_folder_of(args->arena, nbt_get(args, "recipe"));
    const nbt_strings *plugins = nbt_all(args, "load");
    for (size_t i = 0; i < plugins->count; i++)
        NB_TRY(nb_registry_load(*out, plugins->items[i], args->diags));
    return NB_OK;
}

/* --code-cache: *store is NULL without it. */
static nb_status open_code(nbt_args *args, nbt_folder *folder, const nb_store **store) {
    *store = NULL;
    if (!nbt_has(args, "code-cache")) return NB_OK;
    NB_TRY(nbt_open_folder(nbt_get(args, "code-cache"), args->diags, folder));
    *store = &folder->store;
    return NB_OK;
}

/* --calib and --calib-cache. */
typedef struct calibration {
    nbt_progress progress;
    nbt_folder cache;
} calibration;

static nb_status open_calibration(nbt_args *args, const nb_graph *g, calibration *c,
                                  nb_pass_env *env) {
    const char *folder = nbt_get(args, "calib-cache");
    *c = (calibration){.progress = {.quiet = nbt_has(args, "quiet")}};
    env->progress = nbt_show_progress;
    env->progress_user = &c->progress;
    NB_TRY(nbt_read_samples(args, &nbt_calibration, g, &env->samples, &env->n_samples));
    if (!folder) return NB_OK;
    NB_TRY(nbt_open_folder(folder, args->diags, &c->cache));
    env->store = &c->cache.store;
    return NB_OK;
}

/* `own`: of the model that the command is about, for which --calib and --dump are. */
static nb_status run_pipeline(nbt_args *args, nb_graph *g, const char *text, bool own,
                              const nbt_watch *watch) {
    nbt_stopwatch stopwatch = {.args = args};
    nb_pass_env env = {.diags = args->diags,
                       .arena = args->arena,
                       .run_seconds = nbt_run_seconds,
                       .seconds_user = &stopwatch};
    nbt_folder code;
    const nb_store *objects;
    nbl_runner runner;
    NB_TRY(open_code(args, &code, &objects));
    nb_pipeline pipeline;
    calibration c = {.cache = {0}};
    observer o = {.time = nbt_has(args, "time"), .watch = watch};
    const char *folder = own ? nbt_get(args, "dump") : NULL;
    if (watch->stages) nbt_stages_see(watch->stages, SIZE_MAX, "", g);
    NB_TRY(nbt_make_registry(args, &env.registry));
    NB_TRY(nb_pipeline_parse(env.registry, text, args->arena, args->diags, &pipeline));
    env.verify_each = nbt_has(args, "verify-each");
    env.check_each = nbt_has(args, "check-each");
    env.estimating = watch->estimating;
    env.after = after_pass;
    env.after_user = &o;
    env.near_miss = watch->near_miss;
    env.near_miss_user = watch->user;
    if (own) NB_TRY(open_calibration(args, g, &c, &env));
    stopwatch.given = nbl_first_sample(g, &env, args->arena);
    if (folder) NB_TRY(nbt_dump_open(folder, g, text, args->arena, args->diags, &o.dump));
    nbl_runner_begin(&runner, objects, args->arena, &env);
    nb_status status = nb_pipeline_run(&pipeline, g, &env);
    if (o.dump) {
        const nb_status dumped = nbt_dump_close(o.dump);
        if (status == NB_OK) status = dumped;
    }
    if (watch->stages) watch->stages->facts = env.facts;
    nbt_end_progress(&c.progress);
    nbl_runner_end(&runner);
    if (status != NB_OK || !nbt_get(args, "save-recipe")) return status;
    const char *recipe = nb_recipe_text(&pipeline, &env, args->arena);
    return nb_write_file(nbt_get(args, "save-recipe"), recipe, strlen(recipe), args->diags);
}

nb_status nbt_run_pipeline(nbt_args *args, nb_graph *g, const char *text) {
    return run_pipeline(args, g, text, true, &(nbt_watch){0});
}

nb_status nbt_run_watched(nbt_args *args, nb_graph *g, const char *text, const nbt_watch *watch) {
    return run_pipeline(args, g, text, true, watch);
}

nb_status nbt_plan(nbt_args *args, nb_graph *g) {
    return run_pipeline(args, g, "plan-memory", false, &(nbt_watch){0});
}

/* ---- models that run ------------------------------------------------------------------------ */

static void names_of_graph(nbt_args *args, nbt_model *m) {
    m->n_inputs = m->graph->body.n_params;
    m->n_outputs = m->graph->outputs.count;
    m->input_names = (const char **)nb_alloc_array(args->arena, m->n_inputs + 1, sizeof(char *));
    m->output_names = m->graph->outputs.items;
    for (size_t i = 0; i < m->n_inputs; i++) m->input_names[i] = m->graph->body.params[i]->name;
}

void nbt_name_ports(nbt_args *args, nbt_model *m) {
    const nb_model *model = nb_loaded_model(m->program.loaded);
    m->n_inputs = model->n_inputs;
    m->n_outputs = model->n_outputs;
    m->input_names = (const char **)nb_alloc_array(args->arena, m->n_inputs + 1, sizeof(char *));
    m->output_names = (const char **)nb_alloc_array(args->arena, m->n_outputs + 1, sizeof(char *));
    for (size_t i = 0; i < m->n_inputs; i++) m->input_names[i] = model->inputs[i].name;
    for (size_t i = 0; i < m->n_outputs; i++) m->output_names[i] = model->outputs[i].name;
}

/* Where the time of each op is told, code has the ops' names and is the model's own. */
static nb_status compile(nbt_args *args, const cg_cpu *cpu, nbl_how *how, nbt_model *out) {
    nbt_folder folder;
    const nb_store *store;
    NB_TRY(open_code(args, &folder, &store));
    how->named = true;
    if (store && !how->profile) how->cache = nb_object_cache_create(args->arena, store);
    nb_status status =
        nbl_compile_graph(out->graph, cpu, how, args->arena, args->diags, &out->program);
    nb_object_cache_free(how->cache);
    return status;
}

nb_status nbt_open_model(nbt_args *args, const char *path, const char *scheme, nbt_model *out) {
    *out = (nbt_model){.path = path};
    nbl_how how = {.profile = nbt_wants_layers(args)};
    NB_TRY(nbt_choose_threads(args, &out->threads));
    NB_TRY(nbt_choose_pages(args, &how.pages));
    if (nbt_is_compiled(path)) {
        if (!scheme) NB_TRY(nbt_refuse_recipe(args, path));
        NB_TRY(nbl_open_shared(path, how.pages, args->diags, &out->program));
        nbt_name_ports(args, out);
        return NB_OK;
    }
    const char *text;
    const cg_cpu *cpu;
    NB_TRY(nbt_choose_cpu(args, "native", &cpu));
    NB_TRY(nbt_pipeline_text(args, scheme, &text));
    NB_TRY(nbt_read_graph(args, path, &out->graph));
    out->was_planned = out->graph->stage == NB_STAGE_PLANNED;
    if (out->was_planned) {
        if (!scheme) NB_TRY(nbt_refuse_recipe(args, path));
    } else {
        /* Samples are for the model that the command is about. */
        const nbt_watch watch = {.stages = !scheme && nbt_wants_stages(args) ? &out->stages : NULL};
        NB_TRY(run_pipeline(args, out->graph, text, !scheme, &watch));
        if (out->graph->stage != NB_STAGE_PLANNED) NB_TRY(nbt_plan(args, out->graph));
    }
    names_of_graph(args, out);
    out->interpret = nbt_has(args, "interpret");
    return out->interpret ? NB_OK : compile(args, cpu, &how, out);
}

nb_status nbt_open_copy(nbt_args *args, const nb_graph *g, const char *scheme, nbt_model *out) {
    nb_pass_env env = {.diags = args->diags, .arena = args->arena};
    const nb_preset_options options = {.group = -1, .last_logits = true};
    nb_pipeline pipeline;
    *out = (nbt_model){.path = g->file, .graph = nb_graph_clone(g)};
    env.registry = nb_registry_create(args->arena);
    NB_TRY(nbt_choose_threads(args, &out->threads));
    NB_TRY(nb_pipeline_parse(env.registry, nb_preset(scheme, &options, args->arena), args->arena,
                             args->diags, &pipeline));
    NB_TRY(nb_pipeline_run(&pipeline, out->graph, &env));
    names_of_graph(args, out);
    nbl_how how = {0};
    return compile(args, cg_cpu_find(NULL, "native"), &how, out);
}

void nbt_close_model(nbt_model *m) {
    nbl_close(&m->program);
    nbt_stages_drop(&m->stages);
    nb_graph_destroy(m->graph);
}

nb_status nbt_run_model(nbt_args *args, nbt_model *m, const nb_tensor *inputs, nb_tensor *outputs,
                        nb_arena *arena) {
    if (m->interpret) return nb_eval(m->graph, inputs, outputs, NULL, 0, arena, args->diags);
    return nbl_run_once(&m->program, m->threads, inputs, outputs, arena, args->diags);
}

/* ---- sizes ---------------------------------------------------------------------------------- */

/* Does this user multiply or look up rows: is the constant a matrix of the model? */
static bool takes_matrix(const nb_op *user) {
    return user->kind == NB_OP_qmatmul || user->kind == NB_OP_matmul ||
           user->kind == NB_OP_qgather || nb_is_embedding(user);
}

/* Bytes in the graph, with scales, zero points and minima, and theirs. */
static int64_t plain_bytes(const nb_value *c) {
    const nb_quant *q = c->type->quant;
    int64_t bytes = c->blob->size;
    if (q && q->scales) bytes += plain_bytes(q->scales);
    if (q && q->zeros) bytes += plain_bytes(q->zeros);
    if (q && q->minima) bytes += plain_bytes(q->minima);
    return bytes;
}

int64_t nbt_packed_bytes(const nb_use *use, const nb_value *c) {
    const nb_lowering *lowering = nb_lowering_of(use->user->kind);
    const nb_layout *layout =
        lowering->layout ? lowering->layout(use->user, use->index, NULL) : NULL;
    int64_t bytes;
    bool packed = layout && layout->holds_scales && layout->size(c, &bytes);
    return packed ? bytes : plain_bytes(c);
}

nbt_size nbt_measure_size(const nb_graph *g) {
    nbt_size s = {0};
    int64_t linear_weights = 0, linear_bytes = 0;
    for (size_t i = 0; i < g->constants.count; i++) {
        const nb_value *c = g->constants.items[i];
        const nb_use *u = c->uses;
        int64_t count;
        s.other_bytes += c->blob->size;
        while (u && !takes_matrix(u->user)) u = u->next;
        if (!u || c->type->rank != 2 || !nb_type_static_count(c->type, &count)) continue;
        const int64_t bytes = nbt_packed_bytes(u, c);
        if (nb_is_factor(c)) count = 0; /* a branch's bytes are its layer's */
        s.weights += count;
        s.bytes += bytes;
        s.other_bytes -= plain_bytes(c);
        if (u->user->kind == NB_OP_qgather || nb_is_embedding(u->user)) continue;
        linear_weights += count;
        linear_bytes += bytes;
    }
    s.bits_per_weight = s.weights ? 8.0 * (double)s.bytes / (double)s.weights : 0;
    s.linear_bits = linear_weights ? 8.0 * (double)linear_bytes / (double)linear_weights : 0;
    return s;
}
