/* The loss behind each pass, and the first bad pass (blame.h). */
#include "passes/check.h"
#include "tools/blame.h"
#include "tools/progress.h"

#include <math.h>
#include <string.h>

/* ---- one form of the model ------------------------------------------------------------------ */

void nbt_loss_add(nbt_loss *loss, const nb_tensor *wanted, const nb_tensor *found,
                  nb_outputs kind) {
    bool same = wanted->rank == found->rank && found->elem == NB_F32;
    for (int i = 0; same && i < wanted->rank; i++) same = wanted->dims[i] == found->dims[i];
    if (!same) loss->kld = (double)INFINITY;
    if (same) loss->kld += nb_divergence(wanted, found, kind);
    if (same) nbt_error_add(&loss->output, wanted, found);
}

void nbt_loss_end(nbt_loss *loss, size_t n) {
    loss->kld /= (double)n;
    if (!isfinite(loss->kld)) loss->kld = (double)INFINITY;
}

static size_t output_named(const nb_graph *g, const char *name) {
    for (size_t i = 0; i < g->outputs.count; i++) {
        if (strcmp(g->outputs.items[i], name) == 0) return i;
    }
    return SIZE_MAX;
}

/* A form of the model, opened to run. */
typedef struct form {
    const nbt_reference *ref;
    const nb_graph *graph;
    nbt_samples samples;
    nbl_program program; /* of a planned graph */
    size_t output;
} form;

static nb_status open_form(const nbt_reference *ref, const nb_graph *g, form *f) {
    *f = (form){.ref = ref, .graph = g, .output = output_named(g, ref->output)};
    if (f->output == SIZE_MAX)
        return nb_error(ref->args->diags, NB_CHECK_FAILED,
                        (nb_where){.file = g->file, .offset = -1},
                        "a pass removed the output \"%s\"", ref->output);
    NB_TRY(nbt_samples_like(ref->args, &ref->samples, g, &f->samples));
    if (g->stage != NB_STAGE_PLANNED) return NB_OK;
    const nbl_how how = {.cache = ref->runner->cache};
    return nbl_compile_graph(g, ref->runner->cpu, &how, ref->args->arena, ref->args->diags,
                             &f->program);
}

static nb_status run_form(form *f, size_t sample, nb_arena *arena, nb_tensor *out) {
    nb_tensor *all = NB_NEW_ARRAY(arena, nb_tensor, f->graph->outputs.count + 1);
    const nb_tensor *in = f->samples.items[sample].inputs;
    nb_diags *diags = f->ref->args->diags;
    NB_TRY(f->graph->stage == NB_STAGE_PLANNED
               ? nbl_run_once(&f->program, f->ref->runner->threads, in, all, arena, diags)
               : nbl_run_compiled(f->ref->runner, f->graph, in, all, NULL, 0, arena, diags));
    *out = all[f->output];
    return NB_OK;
}

nb_status nbt_measure_loss(const nbt_reference *ref, const nb_graph *g, nbt_loss *out) {
    form f;
    nb_status status = open_form(ref, g, &f);
    *out = (nbt_loss){0};
    for (size_t i = 0; i < ref->samples.count && status == NB_OK; i++) {
        nb_arena *arena = nb_arena_create_like(ref->args->arena);
        nb_tensor found;
        status = run_form(&f, i, arena, &found);
        if (status == NB_OK) nbt_loss_add(out, &ref->wanted[i], &found, ref->counted.kind);
        nb_arena_destroy(arena);
    }
    nbl_close(&f.program);
    nbt_loss_end(out, ref->samples.count);
    return status;
}

/* ---- the reference -------------------------------------------------------------------------- */

static nb_status read_samples(nbt_args *args, const nb_graph *g, nbt_samples *out) {
    const bool held_out = nbt_has(args, "tokens");
    *out = (nbt_samples){.graph = g};
    NB_TRY(nbt_read_samples(args, held_out ? &nbt_held_out : &nbt_calibration, g, &out->items,
                            &out->count));
    if (out->count) return NB_OK;
    nb_error(args->diags, NB_USAGE, NB_NOWHERE, "there is nothing to run the model on");
    nb_help(args->diags, "give samples with --tokens, or with --calib those to calibrate on");
    return NB_USAGE;
}

static nb_status keep_outputs(nbt_reference *ref) {
    nb_arena *keep = ref->args->arena;
    form f;
    nb_status status = open_form(ref, ref->graph, &f);
    ref->wanted = NB_NEW_ARRAY(keep, nb_tensor, ref->samples.count + 1);
    for (size_t i = 0; i < ref->samples.count && status == NB_OK; i++) {
        nb_arena *arena = nb_arena_create_like(keep);
        nb_tensor *t = &ref->wanted[i];
        status = run_form(&f, i, arena, t);
        if (status == NB_OK)
            t->data = memcpy(nb_alloc(keep, (size_t)t->bytes + 1), t->data, (size_t)t->bytes);
        nb_arena_destroy(arena);
    }
    nbl_close(&f.program);
    return status;
}

nb_status nbt_reference_open(nbt_args *args, const nb_graph *g, nbt_reference *out) {
    *out = (nbt_reference){.args = args, .graph = g};
    out->counted = nb_output_that_counts(g);
    if (out->counted.output == SIZE_MAX)
        return nb_error(args->diags, NB_UNSUPPORTED, (nb_where){.file = g->file, .offset = -1},
                        "no output is of f32: there is nothing to measure");
    out->output = g->outputs.items[out->counted.output];
    out->runner = NB_NEW(args->arena, nbl_runner);
    out->runner->arena = args->arena;
    NB_TRY(nbt_choose_cpu(args, "native", &out->runner->cpu));
    NB_TRY(nbt_choose_threads(args, &out->runner->threads));
    NB_TRY(read_samples(args, g, &out->samples));
    return keep_outputs(out);
}

void nbt_reference_close(nbt_reference *ref) {
    if (ref->runner) nbl_runner_end(ref->runner);
}

/* ---- passes --------------------------------------------------------------------------------- */

typedef struct search {
    const nbt_reference *ref;
    const nbt_stages *stages; /* all.items[0] is the graph before the first pass */
    nbt_blamed_passes *out;
    nb_registry *registry;
    nbt_progress progress;
    size_t measured;
} search;

static nb_status know(search *s, size_t i) {
    nbt_blamed_pass *p = &s->out->items[i];
    if (p->known) return NB_OK;
    NB_TRY(nbt_measure_loss(s->ref, s->stages->all.items[i + 1].graph, &p->loss));
    p->known = true;
    nbt_show_progress(&s->progress, "losses of passes", ++s->measured, s->out->count);
    return NB_OK;
}

/* Invariant: behind `low` passes the loss is below the bound, behind `high` it is not. */
static nb_status bisect(search *s) {
    const size_t last = s->out->count - 1;
    NB_TRY(know(s, last));
    const double whole = s->out->items[last].loss.kld,
                 bound = isinf(whole) ? whole : fmax(whole / 2, NBT_NO_LOSS);
    s->out->first_bad = SIZE_MAX;
    if (whole >= bound) {
        size_t low = 0, high = last + 1;
        while (high - low > 1) {
            const size_t middle = low + (high - low) / 2;
            NB_TRY(know(s, middle - 1));
            if (s->out->items[middle - 1].loss.kld >= bound)
                high = middle;
            else
                low = middle;
        }
        s->out->first_bad = high - 1;
    }
    s->out->runs = s->measured;
    return NB_OK;
}

/* How the pass broke what it promises, as --check-each says it; NULL: it did not. */
static const char *broken_promise(search *s, size_t i) {
    const nb_pass *pass =
        nb_registry_find(s->registry, s->out->items[i].name, strlen(s->out->items[i].name));
    if (!pass) return NULL;
    nb_diags *diags = nb_diags_create(s->ref->args->arena, s->ref->graph->file);
    nbt_samples samples;
    const nb_graph *before = s->stages->all.items[i].graph,
                   *after = s->stages->all.items[i + 1].graph;
    if (nbt_samples_like(s->ref->args, &s->ref->samples, before, &samples) != NB_OK) return NULL;
    nb_pass_env env = {.registry = s->registry,
                       .diags = diags,
                       .arena = s->ref->args->arena,
                       .run = nbl_run_compiled,
                       .run_user = s->ref->runner,
                       .samples = samples.items,
                       .n_samples = samples.count};
    const nb_status status = nb_check_pass(pass, before, after, &env);
    return status == NB_OK || !diags->list.count ? NULL : diags->list.items[0]->message;
}

static const char *promise_of(const nb_registry *registry, const char *name) {
    const nb_pass *pass = nb_registry_find(registry, name, strlen(name));
    return !pass                                    ? ""
           : pass->promises & NB_PASS_KEEPS_BITS    ? "keeps bits"
           : pass->promises & NB_PASS_KEEPS_NUMBERS ? "keeps numbers"
                                                    : "";
}

static bool has_codes_behind(const nbt_stages *stages, size_t i) {
    return nbt_has_codes(stages->all.items[i + 1].graph);
}

nb_status nbt_blame_passes(const nbt_reference *ref, const nbt_stages *stages,
                           nbt_blamed_passes *out) {
    search s = {.ref = ref, .stages = stages, .out = out};
    s.progress.quiet = nbt_has(ref->args, "quiet");
    const size_t n = stages->all.count - 1;
    *out = (nbt_blamed_passes){.count = n, .first_bad = SIZE_MAX};
    out->items = NB_NEW_ARRAY(ref->args->arena, nbt_blamed_pass, n + 1);
    NB_TRY(nbt_make_registry(ref->args, &s.registry));
    for (size_t i = 0; i < n; i++) {
        const nbt_stage *stage = &stages->all.items[i + 1];
        out->items[i] = (nbt_blamed_pass){.index = stage->index,
                                          .name = stage->pass,
                                          .promise = promise_of(s.registry, stage->pass),
                                          .rounded = has_codes_behind(stages, i)};
    }
    nb_status status = n ? bisect(&s) : NB_OK;
    for (size_t i = 0; i < n && status == NB_OK; i++) status = know(&s, i);
    nbt_end_progress(&s.progress);
    if (status == NB_OK && out->first_bad != SIZE_MAX)
        out->items[out->first_bad].broken = broken_promise(&s, out->first_bad);
    return status;
}
