/* Reading, pipelines and execution for all subcommands (model.h). */
#include "tools/model.h"

#include "codegen/pack.h"
#include "frontend/frontend.h"
#include "ir/support/output.h"
#include "ir/text.h"
#include "passes/linear.h"
#include "passes/presets.h"
#include "tools/lm.h"
#include "tools/tensor_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

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
    args->diags->file = path;
    struct stat st;
    if (stat(path, &st) == 0 && S_ISREG(st.st_mode) &&
        (nbt_ends_with(path, ".nir") || begins_with(path, "nir "))) {
        char *text;
        size_t size;
        NB_TRY(nbt_read_file(path, args->arena, args->diags, &text, &size));
        const char *slash = strrchr(path, '/');
        const char *base =
            slash ? nb_strndup(args->arena, path, (size_t)(slash - path) + (slash == path)) : ".";
        return nb_parse(text, size, path, base, nbt_out_of_memory, NULL, args->diags, out);
    }
    return nb_import(path, nbt_out_of_memory, NULL, args->diags, out);
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
    return nbt_has(args, "layers") || strcmp(args->command, "report") == 0;
}

nb_status nbt_choose_threads(nbt_args *args, int *out) {
    int64_t threads = 0;
    NB_TRY(nbt_integer(args, "threads", 1, 1024, &threads));
    *out = (int)threads;
    return NB_OK;
}

nb_status nbt_choose_pages(const nbt_args *args, nbt_pages *out) {
    const char *text = nbt_get(args, "weights-in");
    *out = !text                         ? NBT_PAGES_USUAL
           : strcmp(text, "huge") == 0   ? NBT_PAGES_HUGE
           : strcmp(text, "shared") == 0 ? NBT_PAGES_SHARED
                                         : NBT_PAGES_USUAL;
    if (!text || *out != NBT_PAGES_USUAL) return NB_OK;
    return nb_error(args->diags, NB_USAGE, NB_NOWHERE,
                    "--weights-in takes huge or shared, found '%s'", text);
}

/* ---- pipelines ------------------------------------------------------------------------------ */

/* --logits. Who makes text looks at the last position only; who compiles does not say. */
static nb_status wants_last_logits(const nbt_args *args, bool *out) {
    const char *which = nbt_get(args, "logits");
    *out = which ? strcmp(which, "last") == 0
                 : strcmp(args->command, "bench") == 0 || strcmp(args->command, "generate") == 0 ||
                       strcmp(args->command, "report") == 0;
    if (!which || *out || strcmp(which, "all") == 0) return NB_OK;
    return nb_error(args->diags, NB_USAGE, NB_NOWHERE, "--logits takes last or all, found '%s'",
                    which);
}

/* --kv, checked; NULL when it is not given. */
static nb_status choose_kv(nbt_args *args, const char **out) {
    const char *const *types = nb_kv_types(), *all = "";
    *out = nbt_get(args, "kv");
    if (!*out) return NB_OK;
    for (size_t i = 0; types[i]; i++) {
        if (strcmp(types[i], *out) == 0) return NB_OK;
        all = nb_format(args->arena, "%s%s%s", all, i ? ", " : "", types[i]);
    }
    return nb_error(args->diags, NB_USAGE, NB_NOWHERE, "--kv is one of %s; found '%s'", all, *out);
}

/* What says how a model is made from the graph it was. */
static const char *const recipe[] = {"passes", "calib", "scheme", "group", "kv"};

nb_status nbt_refuse_recipe(nbt_args *args, const char *path) {
    for (size_t i = 0; i < NB_COUNT(recipe); i++) {
        if (!nbt_has(args, recipe[i])) continue;
        nb_error(args->diags, NB_USAGE, (nb_where){.file = path, .offset = -1},
                 "--%s: this model is planned already, and stays as it is", recipe[i]);
        nb_help(args->diags, "give --%s when it is made from .onnx", recipe[i]);
        return NB_USAGE;
    }
    return NB_OK;
}

/* --passes replaces the scheme's pipeline, of which all but --calib speak. */
static nb_status given_pipeline(nbt_args *args, const char *passes, const char **out) {
    *out = passes;
    for (size_t i = 2; i < NB_COUNT(recipe); i++) {
        if (!nbt_has(args, recipe[i])) continue;
        nb_error(args->diags, NB_USAGE, NB_NOWHERE,
                 "--%s is about a scheme's pipeline, which --passes replaces", recipe[i]);
        nb_help(args->diags, "--print-pipeline with --%s shows what to give to --passes",
                recipe[i]);
        return NB_USAGE;
    }
    return NB_OK;
}

nb_status nbt_pipeline_text(nbt_args *args, const char *scheme, const char **out) {
    const char *passes = scheme ? NULL : nbt_get(args, "passes");
    if (passes) return given_pipeline(args, passes, out);
    bool has_scheme = strcmp(args->command, "opt") != 0 && strcmp(args->command, "inspect") != 0;
    nb_preset_options options = {.group = -1, .calibrated = has_scheme && nbt_has(args, "calib")};
    if (!scheme) NB_TRY(choose_kv(args, &options.kv));
    if (!scheme) scheme = has_scheme ? nbt_get(args, "scheme") : NULL;
    if (has_scheme) NB_TRY(nbt_integer(args, "group", 0, 65536, &options.group));
    NB_TRY(wants_last_logits(args, &options.last_logits));
    *out = nb_preset(scheme ? scheme : "f32", &options, args->arena);
    if (*out) return NB_OK;
    return nb_error(args->diags, NB_USAGE, NB_NOWHERE, "there is no scheme '%s'; schemes are %s",
                    scheme, nb_preset_names(args->arena));
}

typedef struct observer {
    nbt_args *args;
    const char *dump;
    bool time;
} observer;

static void after_pass(void *user, const nb_pass_event *e) {
    observer *o = user;
    if (o->time)
        printf("%-20s %8.1f ms%s\n", e->name, 1e3 * e->seconds,
               e->result == NB_PASS_UNCHANGED ? "  unchanged" : "");
    if (!o->dump || e->result == NB_PASS_UNCHANGED) return;
    const char *path = nb_format(o->args->arena, "%s/%02zu-%s.nir", o->dump, e->index, e->name);
    nb_output f;
    if (nb_output_open(path, o->args->diags, &f) != NB_OK) return;
    nb_print(e->graph, &(nb_print_options){.elide_weights = true}, f.stream);
    (void)!nb_output_close(&f, NB_OK);
}

static nb_status make_registry(nbt_args *args, nb_registry **out) {
    *out = nb_registry_create(args->arena);
    const nbt_strings *plugins = nbt_all(args, "load");
    for (size_t i = 0; i < plugins->count; i++)
        NB_TRY(nb_registry_load(*out, plugins->items[i], args->diags));
    return NB_OK;
}

static nb_status read_samples(nbt_args *args, const nb_graph *g, nb_pass_env *env) {
    const char *path = nbt_get(args, "calib");
    if (!path) return NB_OK;
    int64_t context = 256;
    NB_TRY(nbt_integer(args, "context", 2, 1 << 20, &context));
    int64_t *tokens;
    size_t count;
    NB_TRY(nbt_read_tokens(path, args->arena, args->diags, &tokens, &count));
    return nbt_lm_samples(args, g, tokens, count, context, &env->samples, &env->n_samples);
}

nb_status nbt_run_pipeline(nbt_args *args, nb_graph *g, const char *text) {
    nb_pass_env env = {.diags = args->diags, .arena = args->arena, .run = nbt_run_compiled};
    nbt_runner runner = {.threads = 0, .arena = args->arena};
    nb_pipeline pipeline;
    observer o = {.args = args, .dump = nbt_get(args, "dump")};
    o.time = nbt_has(args, "time");
    NB_TRY(make_registry(args, &env.registry));
    NB_TRY(nb_pipeline_parse(env.registry, text, args->arena, args->diags, &pipeline));
    if (o.dump && mkdir(o.dump, 0777) != 0 && errno != EEXIST)
        return nb_error(args->diags, NB_IO, (nb_where){.file = o.dump, .offset = -1},
                        "cannot make the folder: %s", strerror(errno));
    runner.cpu = cg_cpu_find(NULL, "native");
    env.run_user = &runner;
    env.verify_each = nbt_has(args, "verify-each");
    env.check_each = nbt_has(args, "check-each");
    env.after = after_pass;
    env.after_user = &o;
    NB_TRY(read_samples(args, g, &env));
    nb_status status = nb_pipeline_run(&pipeline, g, &env);
    nbt_close(&runner.program);
    return status;
}

/* ---- models that run ------------------------------------------------------------------------ */

static void names_of_graph(nbt_args *args, nbt_model *m) {
    m->n_inputs = m->graph->body.n_params;
    m->n_outputs = m->graph->outputs.count;
    m->input_names = (const char **)nb_alloc_array(args->arena, m->n_inputs + 1, sizeof(char *));
    m->output_names = m->graph->outputs.items;
    for (size_t i = 0; i < m->n_inputs; i++) m->input_names[i] = m->graph->body.params[i]->name;
}

static void names_of_program(nbt_args *args, nbt_model *m) {
    const nb_model *model = nb_loaded_model(m->program.loaded);
    m->n_inputs = model->n_inputs;
    m->n_outputs = model->n_outputs;
    m->input_names = (const char **)nb_alloc_array(args->arena, m->n_inputs + 1, sizeof(char *));
    m->output_names = (const char **)nb_alloc_array(args->arena, m->n_outputs + 1, sizeof(char *));
    for (size_t i = 0; i < m->n_inputs; i++) m->input_names[i] = model->inputs[i].name;
    for (size_t i = 0; i < m->n_outputs; i++) m->output_names[i] = model->outputs[i].name;
}

nb_status nbt_open_model(nbt_args *args, const char *path, const char *scheme, nbt_model *out) {
    *out = (nbt_model){.path = path};
    nbt_how how = {.profile = nbt_wants_layers(args)};
    NB_TRY(nbt_choose_threads(args, &out->threads));
    NB_TRY(nbt_choose_pages(args, &how.pages));
    if (nbt_is_compiled(path)) {
        if (!scheme) NB_TRY(nbt_refuse_recipe(args, path));
        NB_TRY(nbt_open_shared(path, how.pages, args->diags, &out->program));
        names_of_program(args, out);
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
        NB_TRY(nbt_run_pipeline(args, out->graph, text));
        if (out->graph->stage != NB_STAGE_PLANNED)
            NB_TRY(nbt_run_pipeline(args, out->graph, "plan-memory"));
    }
    names_of_graph(args, out);
    out->interpret = nbt_has(args, "interpret");
    return out->interpret
               ? NB_OK
               : nbt_compile_graph(out->graph, cpu, &how, args->arena, args->diags, &out->program);
}

void nbt_close_model(nbt_model *m) {
    nbt_close(&m->program);
    nb_graph_destroy(m->graph);
}

nb_status nbt_run_model(nbt_args *args, nbt_model *m, const nb_tensor *inputs, nb_tensor *outputs,
                        nb_arena *arena) {
    if (m->interpret) return nb_eval(m->graph, inputs, outputs, NULL, 0, arena, args->diags);
    return nbt_run_once(&m->program, m->threads, inputs, outputs, arena, args->diags);
}

/* ---- sizes ---------------------------------------------------------------------------------- */

/* Does this user multiply or look up rows: is the constant a matrix of the model? */
static bool takes_matrix(const nb_op *user) {
    return user->kind == NB_OP_qmatmul || user->kind == NB_OP_matmul ||
           user->kind == NB_OP_qgather || nb_is_embedding(user);
}

/* Bytes in the graph, with scales and zero points. */
static int64_t plain_bytes(const nb_value *c) {
    const nb_quant *q = c->type->quant;
    int64_t bytes = c->blob->size;
    if (q && q->scales) bytes += q->scales->blob->size;
    if (q && q->zeros) bytes += q->zeros->blob->size;
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
    for (size_t i = 0; i < g->constants.count; i++) {
        const nb_value *c = g->constants.items[i];
        const nb_use *u = c->uses;
        int64_t count;
        s.other_bytes += c->blob->size;
        while (u && !takes_matrix(u->user)) u = u->next;
        if (!u || c->type->rank != 2 || !nb_type_static_count(c->type, &count)) continue;
        s.weights += count;
        s.bytes += nbt_packed_bytes(u, c);
        s.other_bytes -= plain_bytes(c);
    }
    s.bits_per_weight = s.weights ? 8.0 * (double)s.bytes / (double)s.weights : 0;
    return s;
}
