/* nibble report: a page with plots of what schemes lose on held-out tokens (--tokens) and where a
 * model's time goes; and of what bits buy (--curve). Measures as `nibble eval`, `nibble eval
 * --layers` and `nibble bench --layers` do; of several schemes the time is the last one's. */
#include "tools/report_page.h"

#include "ir/support/output.h"

#include <string.h>

/* ---- what schemes lose ---------------------------------------------------------------------- */

static nb_status measure_scheme(nbt_args *args, const char *in, nbt_model *ref, nbt_quality *out) {
    nbt_lm lm;
    nbt_model model = {0};
    nb_status status = nbt_open_model(args, in, NULL, &model);
    if (status == NB_OK && nbt_lm_is(&model, &lm)) {
        if (!ref->path) status = nbt_open_model(args, in, "f32", ref);
        if (status == NB_OK) status = nbt_score(args, &model, ref, &out->scores);
        out->scored = true;
    }
    if (status == NB_OK) status = nbt_compare(args, &model, &out->errors);
    nbt_close_model(&model);
    return status;
}

/* All positions count, whatever is timed. */
static nb_status measure_quality(nbt_args *args, const char *in, nbt_quality **out, size_t *n) {
    nbt_args all = nbt_args_with(args, "logits", "all");
    nbt_model ref = {0};
    nb_status status = NB_OK;
    *n = nbt_has(args, "tokens") ? nbt_scheme_count(args) : 0;
    *out = NB_NEW_ARRAY(args->arena, nbt_quality, *n + 1);
    for (size_t i = 0; i < *n && status == NB_OK; i++) {
        nbt_args one = nbt_scheme_args(&all, i);
        status = measure_scheme(&one, in, &ref, &(*out)[i]);
    }
    nbt_close_model(&ref);
    return status;
}

/* ---- output --------------------------------------------------------------------------------- */

static json_t *page_json(const nbt_page *p) {
    json_t *schemes = json_array();
    for (size_t i = 0; i < p->n_qualities; i++) {
        const nbt_quality *q = &p->qualities[i];
        json_t *j = nbt_comparison_json(p->arena, &q->errors);
        if (q->scored) json_object_set_new(j, "eval", nbt_scores_json(&q->scores, &q->errors.size));
        json_array_append_new(schemes, j);
    }
    return json_pack("{s:o, s:o}", "schemes", schemes, "bench",
                     p->measured ? nbt_bench_json(p->arena, p->measured, p->limits) : json_null());
}

static nb_status write_report(nbt_args *args, const nbt_page *page) {
    const char *path = nbt_get(args, "output");
    if (path) {
        nb_output f;
        NB_TRY(nb_output_open(path, args->diags, &f));
        nbt_write_page(f.stream, page);
        NB_TRY(nb_output_close(&f, NB_OK));
    }
    if (nbt_has(args, "json")) nbt_print_json(page_json(page));
    return NB_OK;
}

/* ---- the whole ------------------------------------------------------------------------------ */

static nb_status report_time(nbt_args *args, nbt_page *page, const nbt_measured *b) {
    nbt_limits limits;
    nbt_layers layers[NB_COUNT(b->phases)];
    nbt_strings options = nbt_options_given(args);
    NB_TRY(nbt_measure_limits(args, &limits));
    NB_TRY(nbt_pipeline_text(args, NULL, &page->pipeline));
    if (b->model.was_planned) page->pipeline = "those of the file, which is planned";
    for (size_t i = 0; i < b->n_phases; i++)
        layers[i] = nbt_layers_of(args->arena, b->model.graph, &b->phases[i], &limits);
    page->options = &options;
    page->measured = b;
    page->limits = &limits;
    page->layers = layers;
    return write_report(args, page);
}

static nb_status report_model(nbt_args *args, nbt_page *page) {
    nbt_measured b = {0};
    nbt_quality *qualities;
    NB_TRY(nbt_one_input(args, &page->title));
    NB_TRY(measure_quality(args, page->title, &qualities, &page->n_qualities));
    page->qualities = qualities;
    nb_status status = nbt_bench_model(args, page->title, &b);
    if (status == NB_OK) status = report_time(args, page, &b);
    nbt_bench_close(&b);
    return status;
}

nb_status nbt_report(nbt_args *args) {
    const char *curve = nbt_get(args, "curve");
    nbt_page page = {.arena = args->arena, .title = "What bits buy"};
    nbt_curve *curves;
    if (!nbt_has(args, "output") && !nbt_has(args, "json"))
        return nb_error(args->diags, NB_USAGE, NB_NOWHERE, "expected -o OUT.html");
    if (curve) NB_TRY(nbt_read_curves(args, curve, &curves, &page.n_curves));
    if (curve) page.curves = curves;
    return curve && !args->positional.count ? write_report(args, &page) : report_model(args, &page);
}
