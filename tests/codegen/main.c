/* Objects for every CPU of the table: they need nothing but memcpy, memmove and memset, export
 * nothing but NAME_model, come out the same twice, and make shared libraries that load. */
#include "codegen/model.h"
#include "ir/build.h"
#include "passes/pass.h"
#include "runtime/nb_model.h"
#include "tests/codegen/elf_symbols.h"
#include "tests/codegen/products.h"

#include <dlfcn.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int passed, failed;
static nb_arena *arena;
static nb_diags *diags;

static void check(bool ok, const char *fmt, ...) NB_PRINTF(2, 3);
static void check(bool ok, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    const char *what = nb_vformat(arena, fmt, args);
    va_end(args);
    if (ok) {
        passed++;
        return;
    }
    failed++;
    printf("FAILED: %s\n", what);
    for (size_t i = 0; i < diags->list.count; i++)
        printf("  %s", nb_diag_render(arena, diags->list.items[i]));
}

/* ---- a graph with one of everything -------------------------------------------------------- */

static const nb_elem elems[] = {NB_F32, NB_F16, NB_F64, NB_I64, NB_U8};

typedef struct maker {
    nb_graph *g;
    nb_builder b;
    nb_value *ys[512];
    const char *names[512];
    size_t n;
} maker;

static void add(maker *m, nb_value *y) {
    if (!y) abort();
    m->names[m->n] = nb_format(arena, "y%zu", m->n);
    m->ys[m->n++] = y;
}

static void elementwise(maker *m, nb_elem elem) {
    const nb_dim *dims[] = {nb_dim_symbol(m->g, nb_graph_symbol(m->g, "N", true)),
                            nb_dim_const(m->g, 17)};
    const char *name = nb_format(arena, "x_%s", nb_elems[elem].text);
    nb_value *x = nb_graph_add_input(m->g, name, nb_type_intern(m->g, elem, NULL, 2, dims));
    for (nb_op_kind kind = NB_OP_neg; kind < NB_OP_not; kind++) {
        bool any = kind <= NB_OP_sign || kind == NB_OP_relu;
        if (any || nb_elem_is_float(elem)) add(m, nb_unary(&m->b, kind, x));
    }
    for (nb_op_kind kind = NB_OP_add; kind < NB_OP_and; kind++)
        add(m, nb_binary(&m->b, kind, x, x));
    for (size_t i = 0; i < NB_COUNT(elems); i++) add(m, nb_cast(&m->b, x, elems[i]));
    for (nb_op_kind kind = NB_OP_reduce_sum; kind <= NB_OP_reduce_prod; kind++) {
        for (int64_t axis = 0; axis < 2; axis++) {
            nb_begin(&m->b, kind);
            nb_arg(&m->b, x);
            nb_set_ints(&m->b, "axes", 1, &axis);
            add(m, nb_end(&m->b));
        }
    }
    add(m, nb_transpose(&m->b, x, (int64_t[]){1, 0}));
    if (!nb_elem_is_float(elem)) return;
    nb_begin(&m->b, NB_OP_softmax);
    nb_arg(&m->b, x);
    nb_set_int(&m->b, "axis", 1);
    add(m, nb_end(&m->b));
}

/* Many output channels and few: in panels and in rows. */
static void convs(maker *m) {
    static const float data[16 * 2 * 3] = {1, 2, 3, 4, 5, 6, 7};
    const nb_dim *dims[] = {nb_dim_symbol(m->g, nb_graph_symbol(m->g, "N", true)),
                            nb_dim_const(m->g, 2), nb_dim_const(m->g, 40)};
    nb_value *x = nb_graph_add_input(m->g, "image", nb_type_intern(m->g, NB_F32, NULL, 3, dims));
    for (int64_t channels = 4; channels <= 16; channels *= 4) {
        const char *name = nb_format(arena, "kernel%d", (int)channels);
        nb_value *w = nb_const_f32(m->g, name, 3, (int64_t[]){channels, 2, 3}, data);
        add(m, nb_binary(&m->b, NB_OP_conv, x, w));
    }
}

/* A loop of as many steps as there are rows, or fewer, that copies in and out, and may not run. */
static void control(maker *m) {
    nb_graph *g = m->g;
    const nb_dim *dims[] = {nb_dim_symbol(g, nb_graph_symbol(g, "N", true)), nb_dim_const(g, 4)};
    const nb_type *row = nb_type_intern(g, NB_F32, NULL, 1, dims + 1),
                  *number = nb_type_intern(g, NB_I64, NULL, 0, NULL);
    nb_value *rows = nb_graph_add_input(g, "rows", nb_type_intern(g, NB_F32, NULL, 2, dims)),
             *limit = nb_graph_add_input(g, "limit", number),
             *first = nb_graph_add_input(g, "first", row);
    nb_region *body = nb_region_create(g);
    nb_region_add(body, "step", number);
    nb_value *h = nb_region_add(body, "h", row), *s = nb_region_add(body, "s", row);
    nb_builder inside = {.graph = g, .region = body, .diags = diags};
    nb_value *sum = nb_binary(&inside, NB_OP_add, h, s);
    nb_region_return(body, 2, (nb_value *[]){sum, nb_unary(&inside, NB_OP_exp, sum)}, NULL);
    nb_begin(&m->b, NB_OP_loop);
    nb_arg(&m->b, limit);
    nb_arg(&m->b, NULL);
    nb_arg(&m->b, first);
    nb_arg(&m->b, rows);
    nb_set_dims(&m->b, "count", 1, dims);
    nb_set_int(&m->b, "carried", 1);
    nb_set_int(&m->b, "sliced", 1);
    nb_set_region(&m->b, body);
    nb_value *last = nb_end(&m->b);
    add(m, last);
    add(m, last->def->results[1]);
}

static nb_graph *make(void) {
    maker m = {.g = nb_graph_create("all", NULL, NULL)};
    m.b = (nb_builder){.graph = m.g, .diags = diags};
    for (size_t i = 0; i < NB_COUNT(elems); i++) elementwise(&m, elems[i]);
    convs(&m);
    control(&m);
    /* A constant, so that there are weights. */
    static const float data[40] = {1, 2, 3, 4, 5, 6, 7};
    nb_value *c = nb_const_f32(m.g, "c", 1, (int64_t[]){17}, data);
    add(&m, nb_binary(&m.b, NB_OP_add, m.g->body.params[0], c));
    nb_graph_set_outputs(m.g, m.n, m.ys, m.names);
    nb_registry *registry = nb_registry_create(arena);
    nb_pass_env env = {.registry = registry, .diags = diags, .arena = arena};
    nb_pipeline pipeline = {0};
    if (nb_pipeline_parse(registry, "plan-memory", arena, diags, &pipeline) != NB_OK ||
        nb_pipeline_run(&pipeline, m.g, &env) != NB_OK)
        abort();
    return m.g;
}

/* What goes in and out has a type that ONNX has. */
static void foreign_ports(void) {
    nb_graph *g = nb_graph_create("all", NULL, NULL);
    const nb_dim *four = nb_dim_const(g, 4);
    nb_value *x = nb_graph_add_input(g, "x", nb_type_intern(g, NB_I3, NULL, 1, &four));
    nb_graph_set_outputs(g, 1, &x, (const char *[]){"y"});
    g->stage = NB_STAGE_PLANNED;
    nb_codegen_options options = {.cpu = cg_cpu_find(NULL, "generic"), .name = "all"};
    nb_object object = {0};
    nb_diags *own = nb_diags_create(arena, NULL);
    check(nb_codegen(g, &options, arena, own, &object) == NB_UNSUPPORTED && own->list.count == 2 &&
              strstr(own->list.items[0]->message, "an input of type i3"),
          "ports of i3 are refused");
    nb_graph_destroy(g);
}

/* ---- objects ------------------------------------------------------------------------------- */

static bool allowed(const char *name) {
    return strcmp(name, "memcpy") == 0 || strcmp(name, "memmove") == 0 ||
           strcmp(name, "memset") == 0;
}

static void look(void *user, const elf_symbol *s) {
    const char *cpu = (const char *)user;
    if (!s->defined) check(allowed(s->name), "%s: the object needs '%s'", cpu, s->name);
    if (s->defined && s->global && !s->hidden)
        check(strcmp(s->name, "all_model") == 0, "%s: the object exports '%s'", cpu, s->name);
}

static void object_for(const nb_graph *g, const cg_cpu *cpu) {
    const char *label = nb_format(arena, "%s %s", cpu->triple, cpu->name);
    nb_codegen_options options = {.cpu = cpu, .name = "all"};
    nb_object first = {0}, second = {0};
    check(nb_codegen(g, &options, arena, diags, &first) == NB_OK, "%s: compiles", label);
    if (cpu == cg_cpu_find(NULL, "native"))
        check(nb_codegen(g, &options, arena, diags, &second) == NB_OK, "%s: compiles again", label);
    if (!first.data) return;
    check(!second.data ||
              (first.size == second.size && memcmp(first.data, second.data, first.size) == 0),
          "%s: the same graph gives the same bytes", label);
    int machine = cpu->arch == CG_X86_64 ? EM_X86_64 : EM_AARCH64;
    check(elf_machine(first.data, first.size) == machine, "%s: the object is for that machine",
          label);
    check(elf_symbols(first.data, first.size, look, (void *)(uintptr_t)label),
          "%s: the object has symbols", label);
}

/* Text of `format` for a CPU must mention `word`. */
static void text_mentions(const nb_graph *g, const char *arch, const char *name,
                          nb_object_format format, const char *word) {
    nb_codegen_options options = {.cpu = cg_cpu_find(arch, name), .name = "all", .format = format};
    nb_object object = {0};
    bool ok = options.cpu && nb_codegen(g, &options, arena, diags, &object) == NB_OK;
    check(ok && strstr((const char *)object.data, word), "%s %s: the text has '%s'", arch, name,
          word);
}

/* Products of bytes use the instruction that a CPU has for them. */
static void products(void) {
    static const struct {
        nb_elem weights;
        const char *cpu, *word;
    } cases[] = {{NB_I8, "avx512vnni", "vpdpbusd"}, {NB_I4, "avx512vnni", "vpdpbusd"},
                 {NB_I3, "avx512vnni", "vpdpbusd"}, {NB_I6, "x86-64-v3", "vpmaddubsw"},
                 {NB_I8, "x86-64-v3", "vpmaddwd"},  {NB_I4, "x86-64-v3", "vpmaddubsw"}};
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        nb_graph *g = product_graph(cases[i].weights, arena, diags);
        check(g != NULL, "a product of %s codes can be planned", nb_elems[cases[i].weights].text);
        if (!g) continue;
        text_mentions(g, "x86_64", cases[i].cpu, NB_FORMAT_ASSEMBLY, cases[i].word);
        nb_graph_destroy(g);
    }
}

/* ---- files --------------------------------------------------------------------------------- */

static bool exists(const char *path) { return access(path, R_OK) == 0; }

static const nb_model *open_model(const char *path, void **library) {
    *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    nb_model_fn entry = NULL;
    if (*library) *(void **)&entry = dlsym(*library, "all_model");
    check(entry && !entry(NB_MODEL_ABI + 1), "a library answers NULL to another ABI");
    return entry ? entry(NB_MODEL_ABI) : NULL;
}

static void shared_library(const nb_graph *g, const char *folder, bool embed) {
    const char *path = nb_format(arena, "%s/all%d.so", folder, embed);
    const char *weights = nb_format(arena, "%s/all%d.nbw", folder, embed);
    const char *header = nb_format(arena, "%s/all%d.h", folder, embed);
    nb_codegen_options codegen = {.cpu = cg_cpu_find(NULL, "native"), .name = "all"};
    nb_emit_options options = {
        .emit = NB_EMIT_SHARED, .path = path, .embed_weights = embed, .header = true};
    check(nb_emit_files(g, &codegen, &options, arena, diags) == NB_OK, "a library is written");
    check(exists(header), "so is its header");
    check(exists(weights) == !embed, "weights are in a file of their own, or inside");
    void *library = NULL;
    const nb_model *m = open_model(path, &library);
    check(m && m->abi == NB_MODEL_ABI && m->n_inputs == g->body.n_params &&
              strcmp(m->name, "all") == 0,
          "the library holds the model");
    check(m && (m->weights != NULL) == embed && m->weights_size > 0, "and says where weights are");
    if (m && embed) {
        const float *c = (const float *)(const void *)m->weights;
        check((uintptr_t)c % 64 == 0 && c[0] == 1 && c[1] == 2, "embedded weights are aligned");
    }
    if (library) dlclose(library);
    unlink(path);
    unlink(weights);
    unlink(header);
}

/* ---- the worker ---------------------------------------------------------------------------- */

static nb_status dies(void *user, nb_arena *a, nb_diags *d, nb_object *out) {
    (void)user, (void)a, (void)d, (void)out;
    abort();
}

static nb_status never_ends(void *user, nb_arena *a, nb_diags *d, nb_object *out) {
    (void)a, (void)d, (void)out;
    volatile unsigned *turns = (volatile unsigned *)user;
    while (*turns < 2) *turns ^= 1;
    return NB_OK;
}

static nb_status complains(void *user, nb_arena *a, nb_diags *d, nb_object *out) {
    (void)user, (void)a, (void)out;
    nb_where where = NB_NOWHERE;
    where.node = "/node";
    nb_status status = nb_error(d, NB_UNSUPPORTED, where, "no %d", 7);
    nb_help(d, "try another");
    return status;
}

/* What the worker brings back: a status, and a message that contains `text`. */
static void worker(const char *what, nb_worker_fn fn, nb_status status, const char *text) {
    unsigned turns = 0;
    nb_object object = {0};
    nb_diags *own = nb_diags_create(arena, NULL);
    nb_status got = nb_worker_run(fn, &turns, 1, arena, own, &object);
    bool said =
        own->list.count == 1 && strstr(nb_diag_render(arena, own->list.items[0]), text) != NULL;
    check(got == status && said, "a worker that %s", what);
}

int main(void) {
    arena = nb_arena_create(NULL, NULL);
    diags = nb_diags_create(arena, NULL);
    nb_graph *g = make();
    for (size_t i = 0; i < cg_n_cpus; i++) object_for(g, &cg_cpus[i]);
    text_mentions(g, "x86_64", "avx512vnni", NB_FORMAT_ASSEMBLY, "%zmm");
    text_mentions(g, "x86_64", "x86-64-v3", NB_FORMAT_ASSEMBLY, "vfmadd");
    text_mentions(g, "aarch64", "generic", NB_FORMAT_ASSEMBLY, "fmla");
    text_mentions(g, "x86_64", "generic", NB_FORMAT_LLVM, "define internal");
    text_mentions(g, "x86_64", "generic", NB_FORMAT_LLVM, "llvm.memset"); /* of a loop's stack */

    products();
    foreign_ports();

    worker("dies", dies, NB_INTERNAL, "signal 6");
    worker("never ends", never_ends, NB_LIMIT, "1 s of CPU time");
    worker("complains", complains, NB_UNSUPPORTED, "help: try another");

    char folder[] = "/tmp/nibble-test-XXXXXX";
    if (!mkdtemp(folder)) abort();
    shared_library(g, folder, false);
    shared_library(g, folder, true);
    check(rmdir(folder) == 0, "no temporary file is left behind");
    nb_graph_destroy(g);
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    nb_arena_destroy(arena);
    return failed ? 1 : 0;
}
