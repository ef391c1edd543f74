/* nibble blame: which pass and which layers lose a model's accuracy, and the line of the pipeline
 * that mends it. The model's output behind each pass, and with each layer alone rounded, is
 * compared with that of the model as it was read, on all samples given; what is printed as a fix
 * has been run. */
#include "ir/support/output.h"
#include "tools/blame.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct blamed {
    nbt_args *args;
    nb_arena *arena;
    nbt_reference ref;
    nbt_model model; /* behind the pipeline, with its stages; not opened to run */
    nbt_blamed_passes passes;
    nbt_blamed_layers layers;
    nbt_fixes fixes;
} blamed;

static const char *shown(const blamed *b, const char *name) {
    return nb_escape(b->arena, name, strlen(name));
}

static const nbt_blamed_pass *last_pass(const blamed *b) {
    return &b->passes.items[b->passes.count - 1];
}

static const nbt_blamed_pass *bad_pass(const blamed *b) {
    return b->passes.first_bad == SIZE_MAX ? NULL : &b->passes.items[b->passes.first_bad];
}

static const nbt_fix *fix_of(const blamed *b) {
    return b->fixes.chosen == SIZE_MAX ? NULL : &b->fixes.tried[b->fixes.chosen];
}

/* ---- text ----------------------------------------------------------------------------------- */

static void print_passes(const blamed *b) {
    printf("KL divergence of \"%s\" from the model as it was read, over %zu samples\n"
           "       KL     change   SQNR  behind pass\n",
           shown(b, b->ref.output), b->ref.samples.count);
    double before = 0;
    for (size_t i = 0; i < b->passes.count; i++) {
        const nbt_blamed_pass *p = &b->passes.items[i];
        const double change = p->loss.kld - before;
        printf("%9.2e %s%9.2e %6s  %zu %s%s%s%s\n", p->loss.kld, change < 0 ? "-" : "+",
               isnan(change) ? 0 : fabs(change), nbt_sqnr_text(b->arena, p->loss.output), p->index,
               p->name, *p->promise ? ": " : "", p->promise,
               i == b->passes.first_bad ? "  <- the first bad pass" : "");
        before = p->loss.kld;
    }
    const nbt_blamed_pass *bad = bad_pass(b);
    if (!bad) {
        printf("no pass loses anything: at most %.0e is rounding of f32\n", NBT_NO_LOSS);
        return;
    }
    printf("first bad pass: %s, found in %zu run%s\n", bad->name, b->passes.runs,
           b->passes.runs == 1 ? "" : "s");
    if (bad->broken) printf("  --check-each: %s\n", shown(b, bad->broken));
}

/* Channels that take bits from all others, where the layer's input has some. */
static const char *outliers_of(const blamed *b, const nbt_layer_error *l) {
    const nbt_input *in = l->input == SIZE_MAX ? NULL : &b->layers.errors.inputs[l->input];
    if (!in || !in->ranges.count) return "";
    return nb_format(b->arena, "; %lld of %lld inputs reach %.0f times the median",
                     (long long)in->ranges.count, (long long)in->channels,
                     (double)(in->ranges.largest / in->ranges.median));
}

static void print_layers(const blamed *b) {
    const nbt_blamed_layers *l = &b->layers;
    const size_t few = 10, n = nbt_has(b->args, "verbose") || l->count < few ? l->count : few;
    if (!l->n_blamed) return;
    printf("layers, worst first: KL with this one alone rounded, SQNR in dB on float inputs and in "
           "the whole model\n"
           "       KL  alone  whole   bits  layer\n");
    for (size_t i = 0; i < n; i++) {
        const nbt_layer_error *e = l->items[i].error;
        printf("%9.2e %6s %6s %6.2f  %s%s%s%s\n", l->items[i].kld,
               nbt_sqnr_text(b->arena, e->alone), nbt_sqnr_text(b->arena, e->whole), nbt_bits_of(e),
               shown(b, e->name), *e->detail ? "  " : "", e->detail, outliers_of(b, e));
    }
    if (n < l->count) printf("%zu more (--verbose lists them)\n", l->count - n);
    printf("to blame: %zu of %zu layers; with the worst %zu in float KL is %.2e, not %.2e\n",
           l->n_blamed, l->count, l->n_blamed, l->without, l->kld);
}

static void print_fixes(const blamed *b) {
    const nbt_fix *fix = fix_of(b);
    const double was = last_pass(b)->loss.kld;
    for (size_t i = 0; i < b->fixes.count; i++) {
        const nbt_fix *f = &b->fixes.tried[i];
        if (f != fix && f->ran) printf("tried: %s: KL %.2e\n", f->line, f->loss.kld);
    }
    if (!bad_pass(b)) return;
    if (!fix) {
        printf("nothing that was tried takes enough away\n");
        return;
    }
    printf("fix: %s\n"
           "  run with it: KL %.2e, was %.2e; %.2f bits per weight, was %.2f\n",
           fix->line, fix->loss.kld, was, fix->size.bits_per_weight,
           nbt_measure_size(b->model.graph).bits_per_weight);
    if (!nbt_has(b->args, "save-recipe"))
        printf("  --save-recipe FILE writes the pipeline with it\n");
}

/* ---- JSON ----------------------------------------------------------------------------------- */

static json_t *pass_json(const blamed *b, size_t i) {
    const nbt_blamed_pass *p = &b->passes.items[i];
    const double before = i ? b->passes.items[i - 1].loss.kld : 0;
    return json_pack("{s:I, s:s, s:s, s:o, s:o, s:o, s:s?}", "index", (json_int_t)p->index, "pass",
                     p->name, "promise", p->promise, "kld", nbt_json_number(p->loss.kld), "change",
                     nbt_json_number(p->loss.kld - before), "sqnr_db",
                     nbt_json_number(nbt_sqnr(p->loss.output)), "broken",
                     p->broken ? shown(b, p->broken) : NULL);
}

static json_t *layer_json(const blamed *b, const nbt_blamed_layer *l) {
    return json_pack("{s:s, s:s, s:f, s:o, s:o, s:o}", "node", shown(b, l->error->name), "detail",
                     l->error->detail, "bits", nbt_bits_of(l->error), "kld",
                     nbt_json_number(l->kld), "alone_db",
                     nbt_json_number(nbt_sqnr(l->error->alone)), "whole_db",
                     nbt_json_number(nbt_sqnr(l->error->whole)));
}

static json_t *fix_json(const nbt_fix *f) {
    return json_pack("{s:s, s:s, s:b, s:o, s:f}", "line", f->line, "pipeline", f->pipeline, "ran",
                     (int)f->ran, "kld", nbt_json_number(f->ran ? f->loss.kld : (double)INFINITY),
                     "bpw", f->size.bits_per_weight);
}

static json_t *json_of(const blamed *b) {
    json_t *passes = json_array(), *layers = json_array(), *names = json_array(),
           *tried = json_array();
    const nbt_blamed_pass *bad = bad_pass(b);
    for (size_t i = 0; i < b->passes.count; i++) json_array_append_new(passes, pass_json(b, i));
    for (size_t i = 0; i < b->layers.count; i++)
        json_array_append_new(layers, layer_json(b, &b->layers.items[i]));
    for (size_t i = 0; i < b->layers.n_blamed; i++)
        json_array_append_new(names, json_string(shown(b, b->layers.items[i].error->name)));
    for (size_t i = 0; i < b->fixes.count; i++)
        json_array_append_new(tried, fix_json(&b->fixes.tried[i]));
    return json_pack("{s:s, s:I, s:o, s:o, s:s?, s:o, s:o, s:o, s:o, s:o}", "output",
                     shown(b, b->ref.output), "samples", (json_int_t)b->ref.samples.count, "kld",
                     nbt_json_number(b->passes.count ? last_pass(b)->loss.kld : 0), "passes",
                     passes, "first_bad", bad ? bad->name : NULL, "layers", layers, "blamed", names,
                     "without", nbt_json_number(b->layers.without), "tried", tried, "fix",
                     fix_of(b) ? fix_json(fix_of(b)) : json_null());
}

/* ---- the whole ------------------------------------------------------------------------------ */

static nb_status save_fix(const blamed *b) {
    const char *path = nbt_get(b->args, "save-recipe");
    const nbt_fix *fix = fix_of(b);
    if (!path) return NB_OK;
    if (!fix)
        return nb_error(b->args->diags, NB_CHECK_FAILED, NB_NOWHERE,
                        "--save-recipe: there is no fix to write");
    const char *text = nb_format(b->arena, "%s\n", fix->pipeline);
    return nb_write_file(path, text, strlen(text), b->args->diags);
}

static nb_status find_out(blamed *b, const char *text) {
    nbt_args args = nbt_args_with(b->args, "save-recipe", NULL);
    b->model.stages.arena = b->arena;
    b->model.threads = b->ref.runner->threads;
    const nbt_watch watch = {.stages = &b->model.stages};
    NB_TRY(nbt_run_watched(&args, b->model.graph, text, &watch));
    NB_TRY(nbt_blame_passes(&b->ref, &b->model.stages, &b->passes));
    if (b->passes.first_bad != SIZE_MAX && nbt_has_codes(b->model.stages.rounded))
        NB_TRY(nbt_blame_layers(&b->ref, &b->model, &b->layers));
    NB_TRY(nbt_find_fix(&b->ref, text, &b->passes, &b->layers, &b->fixes));
    NB_TRY(save_fix(b));
    if (nbt_has(b->args, "json")) {
        nbt_print_json(json_of(b));
        return NB_OK;
    }
    print_passes(b);
    print_layers(b);
    print_fixes(b);
    return NB_OK;
}

static nb_status refuse(nbt_args *args, const char *path, const char *why) {
    nb_error(args->diags, NB_USAGE, (nb_where){.file = path, .offset = -1}, "%s", why);
    nb_help(args->diags, "give the .onnx or .nir it was made of, with the same options");
    return NB_USAGE;
}

nb_status nbt_blame(nbt_args *args) {
    const char *in, *text;
    nb_graph *g;
    NB_TRY(nbt_one_input(args, &in));
    if (nbt_is_compiled(in))
        return refuse(args, in, "the model is compiled: nothing is left of what passes did");
    NB_TRY(nbt_pipeline_text(args, NULL, &text));
    NB_TRY(nbt_read_graph(args, in, &g));
    blamed b = {.args = args, .arena = args->arena, .model = {.path = in}};
    nb_status status = NB_OK;
    if (nbt_has_codes(g) || g->stage == NB_STAGE_PLANNED)
        status = refuse(args, in,
                        "the model is quantized or planned already: there is no float "
                        "form to compare it with");
    if (status == NB_OK) status = nbt_reference_open(args, g, &b.ref);
    if (status == NB_OK) {
        b.model.graph = nb_graph_clone(g);
        status = find_out(&b, text);
        nbt_close_model(&b.model);
    }
    nbt_reference_close(&b.ref);
    nb_graph_destroy(g);
    return status;
}
