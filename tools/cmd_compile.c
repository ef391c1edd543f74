/* nibble compile: a model to an object, a shared library, assembly, LLVM IR, planned .nir text, or
 * a model again, ONNX or GGUF. */
#include "frontend/frontend.h"
#include "tools/bench.h"
#include "tools/tensor_file.h"

#include "ir/conv.h"
#include "ir/support/output.h"
#include "ir/text.h"
#include "passes/branch.h"
#include "passes/linear.h"

#include <stdio.h>
#include <string.h>

/* What is written: code, or the graph by a writer. */
typedef struct kind {
    const char *name, *ending;
    nb_status (*write)(nbt_args *args, nb_graph *g, const char *path);
    nb_emit emit;
} kind;

nb_status nbt_write_nir(nbt_args *args, const nb_graph *g, const char *path) {
    nb_output f;
    NB_TRY(nb_output_open(path, args->diags, &f));
    nb_print(g, &(nb_print_options){0}, f.stream);
    return nb_output_close(&f, NB_OK);
}

static nb_status write_nir(nbt_args *args, nb_graph *g, const char *path) {
    return nbt_write_nir(args, g, path);
}

static nb_status write_onnx(nbt_args *args, nb_graph *g, const char *path) {
    const char *form = nbt_get(args, "form"), *data = nbt_get(args, "weights");
    nb_export_options options = {.form = NB_ONNX_QDQ, .data = NB_ONNX_DATA_AUTO};
    if (form && strcmp(form, "matmulnbits") == 0)
        options.form = NB_ONNX_MATMUL_NBITS;
    else if (form && strcmp(form, "qdq") != 0)
        return nb_error(args->diags, NB_USAGE, NB_NOWHERE,
                        "--form is qdq or matmulnbits, found '%s'", form);
    if (data)
        options.data = strcmp(data, "embed") == 0 ? NB_ONNX_DATA_EMBEDDED : NB_ONNX_DATA_EXTERNAL;
    return nb_export(g, &options, path, args->diags);
}

static nb_status write_gguf(nbt_args *args, nb_graph *g, const char *path) {
    return nb_export_gguf(g, path, args->diags);
}

static const kind kinds[] = {
    {"so", ".so", NULL, NB_EMIT_SHARED},          {"obj", ".o", NULL, NB_EMIT_OBJECT},
    {"asm", ".s", NULL, NB_EMIT_ASSEMBLY},        {"ll", ".ll", NULL, NB_EMIT_LLVM},
    {"nir", ".nir", write_nir, NB_EMIT_OBJECT},   {"onnx", ".onnx", write_onnx, NB_EMIT_OBJECT},
    {"gguf", ".gguf", write_gguf, NB_EMIT_OBJECT}};

static nb_status choose_kind(nbt_args *args, const char *path, const kind **out) {
    const char *name = nbt_get(args, "emit"), *names = "";
    for (size_t i = 0; i < NB_COUNT(kinds); i++) {
        *out = &kinds[i];
        if (name ? strcmp(name, kinds[i].name) == 0 : nbt_ends_with(path, kinds[i].ending))
            return NB_OK;
        names = nb_format(args->arena, "%s%s%s", names, i ? ", " : "", kinds[i].name);
    }
    return nb_error(args->diags, NB_USAGE, NB_NOWHERE, "what to write is one of %s; found '%s'",
                    names, name ? name : path);
}

static void print_name(nbt_args *args, const nb_op *op) {
    const char *name = nb_loc_name(op->loc);
    printf("%-44s %-8s", nb_escape(args->arena, name, strlen(name)), nb_info(op)->name);
}

/* A convolution that no pass made a linear layer of. */
static void print_conv(nbt_args *args, const nb_op *op) {
    const int64_t groups = nb_conv_groups(op);
    print_name(args, op);
    printf(" %s: %s\n", nb_type_text(args->arena, nb_in(op, 1)->type),
           groups > 1 ? nb_format(args->arena, "in %lld groups, codes would not be faster",
                                  (long long)groups)
                      : "the scheme leaves it in float");
}

/* One line for each linear layer, convolution and embedding: its kernel, or why it stayed in float.
 */
static void print_layers(nbt_args *args, const nb_graph *g) {
    size_t linear = 0, quantized = 0, convolutions = 0;
    for (const nb_op *op = g->body.first; op; op = op->next) {
        if (op->kind == NB_OP_conv) {
            convolutions++;
            print_conv(args, op);
        }
        const nb_value *w = nb_linear_weight(op);
        if (op->kind == NB_OP_qgather) w = nb_in(op, 0);
        if (!w) continue;
        const nb_quant *q = w->type->quant;
        bool layer = op->kind != NB_OP_qgather && !nb_is_factor(w);
        linear += layer;
        quantized += layer && q != NULL;
        print_name(args, op);
        if (!q)
            printf(" %s [%s,%s]: %s\n", nb_elems[w->type->elem].text,
                   nb_dim_text(args->arena, w->type->dims[0]),
                   nb_dim_text(args->arena, w->type->dims[1]),
                   nb_is_factor(w) ? "of a branch beside the layer"
                                   : "the scheme leaves it in float");
        else
            printf(" %s\n", nbt_layer_detail(args->arena, op));
    }
    nbt_size s = nbt_measure_size(g);
    printf("linear layers: %zu, quantized: %zu\n", linear, quantized);
    if (convolutions) printf("convolutions in float: %zu\n", convolutions);
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

static const char *stem_of(nb_arena *arena, const char *path) {
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path,
               *dot = strrchr(base, '.');
    return nb_strndup(arena, base, dot && dot != base ? (size_t)(dot - base) : strlen(base));
}

nb_status nbt_compile(nbt_args *args) {
    const char *in, *pipeline, *out = nbt_get(args, "output");
    const cg_cpu *cpu;
    nb_graph *g;
    const kind *to;
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
    NB_TRY(choose_kind(args, out, &to));
    const char *weights = nbt_get(args, "weights");
    if (weights && strcmp(weights, "embed") != 0 && strcmp(weights, "file") != 0)
        return nb_error(args->diags, NB_USAGE, NB_NOWHERE, "--weights is embed or file, found '%s'",
                        weights);
    NB_TRY(nbt_read_graph(args, in, &g));
    nb_status status = g->stage == NB_STAGE_PLANNED ? nbt_refuse_recipe(args, in)
                                                    : nbt_run_pipeline(args, g, pipeline);
    if (status == NB_OK && !nbt_has(args, "quiet")) print_layers(args, g);
    if (status == NB_OK && to->write) {
        status = to->write(args, g, out);
    } else if (status == NB_OK) {
        const char *name = nbt_get(args, "name"), *scheme = nbt_get(args, "scheme");
        nb_codegen_options code = {
            .cpu = cpu,
            .name = nb_identifier(args->arena, name ? name : stem_of(args->arena, out)),
            .scheme = scheme};
        nbt_strings link = *nbt_all(args, "link");
        nb_vec_push(args->arena, &link, (const char *)NULL);
        nb_emit_options emit = {.emit = to->emit,
                                .link = link.items,
                                .path = out,
                                .embed_weights = weights && strcmp(weights, "embed") == 0,
                                .header = to->emit == NB_EMIT_OBJECT || to->emit == NB_EMIT_SHARED};
        status = nb_emit_files(g, &code, &emit, args->arena, args->diags);
        if (status == NB_OK && !nbt_has(args, "quiet"))
            printf("wrote %s for %s (%s)\n", out, cpu->name, cpu->triple);
    }
    nb_graph_destroy(g);
    return status;
}
