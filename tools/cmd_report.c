/* nibble report: where a model's time goes, as one page with plots. Measures as `nibble bench
 * --layers` does. */
#include "tools/report_page.h"

#include "ir/support/output.h"

#include <string.h>

static nb_status write_report(nbt_args *args, const nbt_measured *b, const char *in,
                              const char *path) {
    nbt_limits limits;
    nbt_layers layers[NB_COUNT(b->phases)];
    nbt_strings options = nbt_options_given(args);
    nbt_page page = {.arena = args->arena,
                     .model = in,
                     .options = &options,
                     .measured = b,
                     .limits = &limits,
                     .layers = layers};
    nb_output f;
    NB_TRY(nbt_measure_limits(args, &limits));
    NB_TRY(nbt_pipeline_text(args, NULL, &page.pipeline));
    if (b->model.was_planned) page.pipeline = "those of the file, which is planned";
    for (size_t i = 0; i < b->n_phases; i++)
        layers[i] = nbt_layers_of(args->arena, b->model.graph, &b->phases[i], &limits);
    NB_TRY(nb_output_open(path, args->diags, &f));
    nbt_write_page(f.stream, &page);
    return nb_output_close(&f, NB_OK);
}

nb_status nbt_report(nbt_args *args) {
    const char *in, *out = nbt_get(args, "output");
    nbt_measured b;
    NB_TRY(nbt_one_input(args, &in));
    if (!out) return nb_error(args->diags, NB_USAGE, NB_NOWHERE, "expected -o OUT.html");
    nb_status status = nbt_bench_model(args, in, &b);
    if (status == NB_OK) status = write_report(args, &b, in, out);
    nbt_bench_close(&b);
    return status;
}
