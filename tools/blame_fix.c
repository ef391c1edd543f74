/* What mends a pipeline: changes in one place, tried by running them (blame.h). */
#include "tools/blame.h"

#include <math.h>
#include <string.h>

typedef struct fixing {
    const nbt_reference *ref;
    nb_arena *arena;
    nb_registry *registry;
    nb_pipeline pipeline; /* as it was run */
    const nbt_blamed_pass *bad;
    const nbt_blamed_layers *layers;
    const char *names; /* of the blamed layers, as selectors with '|' between them; "": none */
    const char *wide;  /* the same as rules: "NAME=8; NAME=8" */
    bool narrow;       /* one of them has fewer than 8 bits */
    double loss;       /* of the pipeline as it was */
    nbt_fixes *out;
} fixing;

/* ---- pipelines ------------------------------------------------------------------------------ */

#define NOWHERE SIZE_MAX

static size_t position(const nb_pipeline *p, const char *pass) {
    for (size_t i = 0; i < p->steps.count; i++) {
        if (strcmp(p->steps.items[i].pass->name, pass) == 0) return i;
    }
    return NOWHERE;
}

static size_t option_index(const nb_pass *pass, const char *name) {
    size_t i = 0;
    while (strcmp(pass->options[i].name, name) != 0) i++;
    return i;
}

static const nb_option_value *option_of(const fixing *f, const char *pass, const char *name) {
    const size_t at = position(&f->pipeline, pass);
    if (at == NOWHERE) return NULL;
    const nb_step *step = &f->pipeline.steps.items[at];
    return &step->options[option_index(step->pass, name)];
}

static nb_status parse(const fixing *f, nb_diags *diags, const char *text, nb_pipeline *out) {
    return nb_pipeline_parse(f->registry, text, f->arena, diags, out);
}

/* A copy with `n` steps of `old` replaced by `new` (NULL: by none) from `at` on. */
static nb_pipeline spliced(const fixing *f, size_t at, size_t n, const nb_step *step) {
    const nb_pipeline *old = &f->pipeline;
    nb_pipeline p = {0};
    for (size_t i = 0; i <= old->steps.count; i++) {
        if (i == at && step) nb_vec_push(f->arena, &p.steps, *step);
        if (i < old->steps.count && (i < at || i >= at + n))
            nb_vec_push(f->arena, &p.steps, old->steps.items[i]);
    }
    return p;
}

static const char *text_of(const fixing *f, const nb_pipeline *p) {
    const char *text = "";
    for (size_t i = 0; i < p->steps.count; i++)
        text = nb_format(f->arena, "%s%s%s", text, i ? ",\n" : "",
                         nb_step_text(&p->steps.items[i], f->arena));
    return text;
}

/* ---- trying --------------------------------------------------------------------------------- */

/* Much of the loss is gone, and nearly all that is charged to the blamed layers. */
static bool helps(const fixing *f, const nbt_fix *fix) {
    const bool by_layers = f->bad->rounded && f->layers->n_blamed;
    const double most = isinf(f->loss) ? f->loss : 0.75 * f->loss,
                 rest = by_layers ? 2 * f->layers->without : most,
                 little = isinf(f->loss) ? NBT_NO_LOSS : 0.02 * f->loss;
    return fix->ran && !isinf(fix->loss.kld) && fix->loss.kld <= most &&
           fix->loss.kld <= fmax(rest, little);
}

/* Errors of a pipeline that is only tried are no errors of the command. */
static nb_status measure(const fixing *f, nbt_fix *fix) {
    nbt_args args = nbt_args_with(f->ref->args, "save-recipe", NULL);
    nbt_reference ref = *f->ref;
    ref.args = &args;
    args.diags = nb_diags_create(f->arena, f->ref->graph->file);
    nb_graph *g = nb_graph_clone(f->ref->graph);
    nb_status status = nbt_run_pipeline(&args, g, fix->pipeline);
    if (status == NB_OK) status = nbt_measure_loss(&ref, g, &fix->loss);
    if (status == NB_OK) fix->size = nbt_measure_size(g);
    nb_graph_destroy(g);
    return status;
}

static void try(fixing *f, const char *line, const nb_pipeline *p) {
    if (f->out->chosen != SIZE_MAX) return;
    nbt_fix fix = {.line = line, .pipeline = text_of(f, p)};
    fix.ran = measure(f, &fix) == NB_OK;
    nbt_fix *all = NB_NEW_ARRAY(f->arena, nbt_fix, f->out->count + 1);
    if (f->out->count) memcpy(all, f->out->tried, f->out->count * sizeof *all);
    all[f->out->count] = fix;
    f->out->tried = all;
    if (helps(f, &fix)) f->out->chosen = f->out->count;
    f->out->count++;
}

/* Without the step. */
static void leave_out(fixing *f, size_t at) {
    const nb_pipeline p = spliced(f, at, 1, NULL);
    try(f, nb_format(f->arena, "without %s", f->pipeline.steps.items[at].pass->name), &p);
}

/* With one more step. */
static void put_before(fixing *f, size_t at, const char *text) {
    nb_pipeline one;
    if (parse(f, f->ref->args->diags, text, &one) != NB_OK) return;
    const nb_pipeline p = spliced(f, at, 0, one.steps.items);
    try(f, nb_step_text(one.steps.items, f->arena), &p);
}

/* With another value of an option; nothing, where the pipeline does not have the pass. */
static void set(fixing *f, const char *pass, const char *name, const char *value) {
    const size_t at = position(&f->pipeline, pass);
    nb_pipeline one;
    if (at == NOWHERE) return;
    const char *text =
        nb_format(f->arena, "%s{%s=\"%s\"}", pass, name, nb_pipeline_quote(value, f->arena));
    if (parse(f, f->ref->args->diags, text, &one) != NB_OK) return;
    nb_step step = f->pipeline.steps.items[at];
    size_t n = 0, i = option_index(step.pass, name);
    while (step.pass->options[n].name) n++;
    nb_option_value *options = NB_NEW_ARRAY(f->arena, nb_option_value, n + 1);
    memcpy(options, step.options, n * sizeof *options);
    options[i] = one.steps.items->options[i];
    step.options = options;
    const nb_pipeline p = spliced(f, at, 1, &step);
    try(f, nb_step_text(&step, f->arena), &p);
}

/* With a value in front of, or behind, what the option says already. */
static void add(fixing *f, const char *pass, const char *name, const char *separator,
                const char *value) {
    const nb_option_value *old = option_of(f, pass, name);
    if (!old || !*value) return;
    set(f, pass, name, *old->s ? nb_format(f->arena, "%s%s%s", value, separator, old->s) : value);
}

/* ---- what is tried -------------------------------------------------------------------------- */

/* Costs nothing when the model runs. */
static void try_ranges(fixing *f) {
    const nb_option_value *mode = option_of(f, "insert-qdq", "mode"),
                          *method = option_of(f, "calibrate", "method");
    static const char *const makers[] = {"calibrate", "choose-bits", "quantize-weights"};
    size_t at = NOWHERE;
    for (size_t i = 0; i < NB_COUNT(makers) && at == NOWHERE; i++)
        at = position(&f->pipeline, makers[i]);
    const bool moved = position(&f->pipeline, "smooth-fold") != NOWHERE ||
                       position(&f->pipeline, "rotate") != NOWHERE;
    if (mode && at != NOWHERE && !moved) put_before(f, at, "smooth-fold{leave=4}");
    if (!mode || strcmp(mode->s, "static") != 0 || !method) return;
    static const char *const methods[] = {"mse", "absmax"};
    for (size_t i = 0; i < NB_COUNT(methods); i++)
        if (strcmp(method->s, methods[i]) != 0) set(f, "calibrate", "method", methods[i]);
}

/* Bytes or time of the blamed layers alone. */
static void try_layers(fixing *f) {
    if (f->narrow) add(f, "quantize-weights", "layers", "; ", f->wide);
    add(f, "insert-qdq", "skip", "|", f->names);
    add(f, "quantize-weights", "skip", "|", f->names);
}

/* Bytes or time of all layers. */
static void try_all(fixing *f) {
    const nb_option_value *mode = option_of(f, "insert-qdq", "mode"),
                          *act = option_of(f, "insert-qdq", "act"),
                          *bits = option_of(f, "quantize-weights", "bits");
    if (mode && strcmp(mode->s, "dynamic") != 0) set(f, "insert-qdq", "mode", "dynamic");
    if (act && strcmp(act->s, "i8") == 0) set(f, "insert-qdq", "act", "i16");
    if (bits && bits->i < 8) set(f, "quantize-weights", "bits", "8");
}

/* ---- names ---------------------------------------------------------------------------------- */

/* The name as a selector: '?' stands for what selectors give a meaning of their own. */
static const char *selector(const fixing *f, const char *name) {
    char *out = nb_strdup(f->arena, name);
    for (char *c = out; *c; c++)
        if (strchr("|;*\n\t ", *c)) *c = '?';
    return out;
}

/* Layers without a node in the file cannot be named. */
static void name_layers(fixing *f) {
    f->names = f->wide = "";
    for (size_t i = 0; i < f->layers->n_blamed; i++) {
        const nbt_layer_error *l = f->layers->items[i].error;
        if (!*nb_loc_name(l->op->loc)) continue;
        const char *name = selector(f, l->name);
        f->names = nb_format(f->arena, "%s%s%s", f->names, *f->names ? "|" : "", name);
        f->wide = nb_format(f->arena, "%s%s%s=8", f->wide, *f->wide ? "; " : "", name);
        f->narrow = f->narrow || nbt_bits_of(l) < 8;
    }
}

nb_status nbt_find_fix(const nbt_reference *ref, const char *text, const nbt_blamed_passes *passes,
                       const nbt_blamed_layers *layers, nbt_fixes *out) {
    fixing f = {.ref = ref, .arena = ref->args->arena, .out = out};
    f.layers = layers;
    *out = (nbt_fixes){.chosen = SIZE_MAX};
    if (passes->first_bad == SIZE_MAX) return NB_OK;
    f.loss = passes->items[passes->count - 1].loss.kld;
    NB_TRY(nbt_make_registry(ref->args, &f.registry));
    NB_TRY(parse(&f, ref->args->diags, text, &f.pipeline));
    f.bad = &passes->items[passes->first_bad];
    name_layers(&f);
    /* Nothing was rounded yet: no option of what rounds will help. */
    if (!f.bad->rounded) {
        leave_out(&f, f.bad->index);
        return NB_OK;
    }
    const bool everywhere = layers->n_blamed > 1 && layers->n_blamed > layers->count / 4;
    try_ranges(&f);
    if (everywhere) try_all(&f);
    try_layers(&f);
    if (!everywhere) try_all(&f);
    return NB_OK;
}
