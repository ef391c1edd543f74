/* nibble compile: a model to an object, a shared library, assembly, LLVM IR, planned .nir text, or
 * a model again, ONNX or GGUF. */
#include "lib/files.h"
#include "tools/bench.h"

#include "ir/conv.h"
#include "passes/branch.h"
#include "passes/linear.h"

#include <stdio.h>
#include <string.h>

static void print_name(nbt_args *args, const nb_op *op) {
    const char *name = nb_loc_name(op->loc);
    printf("%-44s %-8s", nb_escape(args->arena, name, strlen(name)), nb_info(op)->name);
}

static const char in_float[] = "the scheme leaves it in float";

/* A convolution that no pass made a linear layer of. */
static void print_conv(nbt_args *args, const nb_op *op) {
    const bool depthwise = op->kind == NB_OP_depthwise;
    const nb_type *w = nb_in(op, 1)->type;
    const int64_t groups = depthwise ? w->dims[w->rank - 1]->value : nb_conv_groups(op);
    print_name(args, op);
    printf(
        " %s: %s\n", nb_type_text(args->arena, w),
        groups > 1 && !depthwise
            ? nb_format(args->arena, "in %lld groups, codes would not be faster", (long long)groups)
            : in_float);
}

typedef struct layers {
    size_t linear, quantized, convolutions;
} layers;

static void print_layer(nbt_args *args, const nb_op *op, layers *n) {
    if (op->kind == NB_OP_conv || op->kind == NB_OP_depthwise) {
        n->convolutions++;
        print_conv(args, op);
    }
    const nb_value *w = nb_linear_weight(op);
    if (op->kind == NB_OP_qdepthwise) {
        print_name(args, op);
        printf(" %s\n", nbt_layer_detail(args->arena, op));
    }
    if (op->kind == NB_OP_qgather) w = nb_in(op, 0);
    if (!w) return;
    const nb_quant *q = w->type->quant;
    bool layer = op->kind != NB_OP_qgather && !nb_is_factor(w);
    n->linear += layer;
    n->quantized += layer && q != NULL;
    print_name(args, op);
    if (!q)
        printf(" %s [%s,%s]: %s\n", nb_elems[w->type->elem].text,
               nb_dim_text(args->arena, w->type->dims[0]),
               nb_dim_text(args->arena, w->type->dims[1]),
               nb_is_factor(w) ? "of a branch beside the layer" : in_float);
    else
        printf(" %s\n", nbt_layer_detail(args->arena, op));
}

static void print_region(nbt_args *args, const nb_region *region, layers *n) {
    for (const nb_op *op = region->first; op; op = op->next) {
        print_layer(args, op, n);
        for (uint32_t r = 0; r < op->n_regions; r++) print_region(args, op->regions[r], n);
    }
}

/* One line for each linear layer, convolution and embedding: its kernel, or why it stayed in float.
 */
static void print_layers(nbt_args *args, const nb_graph *g) {
    layers n = {0};
    print_region(args, &g->body, &n);
    nbt_size s = nbt_measure_size(g);
    printf("linear layers: %zu, quantized: %zu\n", n.linear, n.quantized);
    if (n.convolutions) printf("convolutions in float: %zu\n", n.convolutions);
    nbt_print_integers(g, args->arena);
    printf("matrices: %lld weights, %lld bytes, %.2f bits per "
           "weight\n",
           (long long)s.weights, (long long)s.bytes, s.bits_per_weight);
}

/* The pipeline with a line for each pass, as --recipe reads it. */
static void print_recipe(const char *pipeline) {
    int depth = 0;
    bool quoted = false;
    for (const char *c = pipeline; *c; c++) {
        if (*c == '"' && (c == pipeline || c[-1] != '\\')) quoted = !quoted;
        depth += quoted ? 0 : (*c == '{') - (*c == '}');
        putchar(*c);
        if (*c != ',' || depth || quoted) continue;
        putchar('\n');
        while (c[1] == ' ') c++;
    }
    putchar('\n');
}

/* --form and --weights, of ONNX. */
static nb_status read_onnx_options(nbt_args *args, nb_export_options *out) {
    const char *form = nbt_get(args, "form"), *data = nbt_get(args, "weights");
    *out = (nb_export_options){.form = NB_ONNX_QDQ, .data = NB_ONNX_DATA_AUTO};
    if (data)
        out->data = strcmp(data, "embed") == 0 ? NB_ONNX_DATA_EMBEDDED : NB_ONNX_DATA_EXTERNAL;
    if (!form || strcmp(form, "qdq") == 0) return NB_OK;
    out->form = NB_ONNX_MATMUL_NBITS;
    return strcmp(form, "matmulnbits") == 0
               ? NB_OK
               : nb_error(args->diags, NB_USAGE, NB_NOWHERE,
                          "--form is qdq or matmulnbits, found '%s'", form);
}

nb_status nbt_compile(nbt_args *args) {
    const char *in, *pipeline, *out = nbt_get(args, "output");
    const cg_cpu *cpu;
    nb_graph *g;
    const nbl_kind *kind;
    nb_export_options onnx;
    NB_TRY(nbt_pipeline_text(args, NULL, &pipeline));
    if (nbt_has(args, "print-recipe")) {
        print_recipe(pipeline);
        return NB_OK;
    }
    if (nbt_has(args, "print-pipeline")) {
        printf("%s\n", pipeline);
        return NB_OK;
    }
    NB_TRY(nbt_choose_cpu(args, "native", &cpu));
    NB_TRY(nbt_one_input(args, &in));
    if (!out) return nb_error(args->diags, NB_USAGE, NB_NOWHERE, "expected -o OUT");
    NB_TRY(nbl_find_kind(nbt_get(args, "emit"), out, args->diags, &kind));
    const char *weights = nbt_get(args, "weights");
    if (weights && strcmp(weights, "embed") != 0 && strcmp(weights, "file") != 0)
        return nb_error(args->diags, NB_USAGE, NB_NOWHERE, "--weights is embed or file, found '%s'",
                        weights);
    NB_TRY(read_onnx_options(args, &onnx));
    NB_TRY(nbt_read_graph(args, in, &g));
    nb_status status = g->stage == NB_STAGE_PLANNED ? nbt_refuse_recipe(args, in)
                                                    : nbt_run_pipeline(args, g, pipeline);
    /* Pipelines of one's own, and those that blame prints, may end before that. */
    if (status == NB_OK && !kind->write && g->stage != NB_STAGE_PLANNED) status = nbt_plan(args, g);
    if (status == NB_OK && !nbt_has(args, "quiet")) print_layers(args, g);
    if (status == NB_OK) {
        nbt_strings link = *nbt_all(args, "link");
        nb_vec_push(args->arena, &link, (const char *)NULL);
        const nbl_writing w = {.path = out,
                               .kind = kind,
                               .cpu = cpu,
                               .name = nbt_get(args, "name"),
                               .scheme = nbt_get(args, "scheme"),
                               .embed_weights = weights && strcmp(weights, "embed") == 0,
                               .onnx = onnx,
                               .link = link.items};
        status = nbl_write(g, &w, args->arena, args->diags);
        if (status == NB_OK && !kind->write && !nbt_has(args, "quiet"))
            printf("wrote %s for %s (%s)\n", out, cpu->name, cpu->triple);
    }
    nb_graph_destroy(g);
    return status;
}
