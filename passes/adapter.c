/* adapter: runs a LoRA adapter beside the layers it was trained for, without merging it.
 *
 *   requires   layers (raise); before calibrate, so that what follows sees the adapted model
 *   maintains  the weights of the layers: their quantization does not depend on the adapter
 *
 * A tensor belongs to the layer whose ONNX node or initializer has its name: their parts ("layers",
 * "0", "q_proj") agree from the end on, for all of the shorter one.
 *
 *   %y: f32[B,N] = matmul %x, @w
 * becomes, with A and B of the file transposed and B scaled by alpha/r,
 *   %t: f32[B,r] = matmul %x, @w.A
 *   %c: f32[B,N] = matmul %t, @w.B
 *   %z: f32[B,N] = add %y, %c */
#include "ir/support/distance.h"
#include "passes/adapter_file.h"
#include "passes/branch.h"
#include "passes/linear.h"

#include <string.h>

static const nb_option options[] = {
    {.name = "file",
     .kind = NB_OPTION_STRING,
     .fallback = "",
     .summary = "safetensors with PEFT's names; adapter_config.json stands beside it"},
    {.name = "scale",
     .kind = NB_OPTION_FLOAT,
     .fallback = "1",
     .summary = "of the products x A B; when not given, alpha/r of adapter_config.json"},
    {.name = NULL},
};

/* ---- names ---------------------------------------------------------------------------------- */

#define MOST_PARTS 32

typedef struct parts {
    const char *text[MOST_PARTS];
    size_t length[MOST_PARTS], n;
} parts;

/* "MatMul", "Gemm_3", "weight": what exporters put behind a module's name. */
static bool is_suffix(const char *part, size_t n) {
    static const char *const words[] = {"MatMul", "Gemm", "weight"};
    for (size_t i = 0; i < NB_COUNT(words); i++) {
        size_t k = strlen(words[i]);
        if (n >= k && memcmp(part, words[i], k) == 0 && (n == k || part[k] == '_')) return true;
    }
    return false;
}

/* "/model/layers.0/fc/MatMul", "model.layers.0.fc.weight": model, layers, 0, fc. */
static parts parts_of(const char *name) {
    parts p = {0};
    for (;;) {
        name += strspn(name, "/.");
        size_t n = strcspn(name, "/.");
        if (n == 0 || p.n == MOST_PARTS) break;
        p.text[p.n] = name;
        p.length[p.n++] = n;
        name += n;
    }
    while (p.n > 1 && is_suffix(p.text[p.n - 1], p.length[p.n - 1])) p.n--;
    return p;
}

/* How many parts agree, if all of the shorter name do; else 0. */
static size_t agree(const parts *a, const parts *b) {
    size_t least = a->n < b->n ? a->n : b->n, k = 0;
    while (k < least && a->length[a->n - 1 - k] == b->length[b->n - 1 - k] &&
           memcmp(a->text[a->n - 1 - k], b->text[b->n - 1 - k], a->length[a->n - 1 - k]) == 0)
        k++;
    return k == least ? k : 0;
}

/* A layer under each of its names. */
typedef struct named {
    nb_op *op;
    const char *name;
    parts parts;
    const char *taken; /* the module of the adapter that belongs to it */
} named;

typedef struct layers {
    nb_pass_ctx *ctx;
    const char *path;
    NB_VEC(named) names;
    size_t count;
} layers;

static void add_name(layers *l, nb_op *op, const char *name) {
    named n = {.op = op, .name = name, .parts = parts_of(name)};
    nb_vec_push(nb_state_of(l->ctx)->scratch, &l->names, n);
}

static void find_layers(layers *l) {
    NB_FOR_OPS(op, &l->ctx->graph->body) {
        const nb_value *w = nb_linear_weight(op);
        if (!w || nb_is_factor(w)) continue;
        l->count++;
        for (uint32_t i = 0; op->loc && i < op->loc->n_at; i++) add_name(l, op, op->loc->at[i]);
        add_name(l, op, w->name);
    }
}

/* ---- errors --------------------------------------------------------------------------------- */

static nb_where at(const layers *l) { return (nb_where){.file = l->path, .offset = -1}; }

#define MISSES 3

/* The name nearest to the module's, of layers that are not in `seen` yet. */
static const named *nearest(const layers *l, const char *module, const named *const *seen,
                            size_t n) {
    const named *best = NULL;
    size_t least = SIZE_MAX;
    for (size_t i = 0; i < l->names.count; i++) {
        const named *name = &l->names.items[i];
        size_t d = nb_edit_distance(module, strlen(module), name->name, strlen(name->name));
        for (size_t k = 0; k < n; k++) d = seen[k]->op == name->op ? SIZE_MAX : d;
        if (d >= least) continue;
        least = d;
        best = name;
    }
    return best;
}

static void no_layer(const layers *l, const char *module) {
    const named *seen[MISSES], *near;
    const char *names = "";
    size_t n = 0;
    for (; n < MISSES && (near = nearest(l, module, seen, n)); seen[n++] = near)
        names =
            nb_format(nb_state_of(l->ctx)->scratch, "%s%s'%s'", names, n ? ", " : "", near->name);
    nb_error(nb_diags_of(l->ctx), NB_USAGE, at(l),
             "'%s' of the adapter is none of the %zu linear layers", module, l->count);
    if (n) nb_help(nb_diags_of(l->ctx), "the nearest are %s", names);
}

/* Do the factors fit the layer, and has it none yet? */
static bool fits(const layers *l, named *n, const nb_adapter_layer *e) {
    const nb_value *w = nb_linear_weight(n->op);
    int64_t rows = w->type->dims[0]->value, cols = w->type->dims[1]->value;
    if (e->a->dims[1] != rows || e->b->dims[0] != cols)
        nb_error(nb_diags_of(l->ctx), NB_USAGE, at(l),
                 "'%s' of the adapter is for a layer of %lld inputs and %lld outputs, '%s' has "
                 "%lld and %lld",
                 e->name, (long long)e->a->dims[1], (long long)e->b->dims[0], n->name,
                 (long long)rows, (long long)cols);
    else if (nb_in(n->op, 0)->type->elem != NB_F32)
        nb_error(nb_diags_of(l->ctx), NB_UNSUPPORTED, at(l),
                 "'%s' of the adapter: layer '%s' does not compute in f32", e->name, n->name);
    else if (n->taken && n->taken != e->name)
        nb_error(nb_diags_of(l->ctx), NB_USAGE, at(l),
                 "'%s' and '%s' of the adapter both name '%s'", n->taken, e->name, n->name);
    else
        return true;
    return false;
}

/* ---- branches ------------------------------------------------------------------------------- */

/* The transposed matrix times `scale`, as a constant of f32; NULL when there is no memory. */
static nb_value *transposed(layers *l, const nb_value *w, const char *suffix, const nb_tensor *t,
                            float scale) {
    nb_graph *g = l->ctx->graph;
    nb_arena *scratch = nb_arena_create_like(nb_state_of(l->ctx)->scratch);
    int64_t rows = t->dims[1], cols = t->dims[0];
    void *data;
    nb_blob *blob = nb_blob_create(rows * cols * (int64_t)sizeof(float), &data);
    nb_tensor aligned = *t;
    aligned.data = memcpy(nb_alloc(scratch, (size_t)t->bytes), t->data, (size_t)t->bytes);
    for (int64_t i = 0; blob && i < rows; i++) {
        for (int64_t k = 0; k < cols; k++)
            ((float *)data)[i * cols + k] = (float)nb_tensor_get(&aligned, k * rows + i) * scale;
    }
    nb_arena_destroy(scratch);
    if (!blob) {
        nb_error(nb_diags_of(l->ctx), NB_LIMIT, at(l), "out of memory for the branch of '@%s'",
                 w->name);
        return NULL;
    }
    const nb_dim *dims[] = {nb_dim_const(g, rows), nb_dim_const(g, cols)};
    return nb_graph_add_const(g, nb_format(g->arena, "%s%s", w->name, suffix),
                              nb_type_intern(g, NB_F32, NULL, 2, dims), blob,
                              nb_loc_via(g, NULL, "adapter"));
}

static bool add_branch(layers *l, nb_op *op, const nb_adapter_layer *e) {
    const nb_value *w = nb_linear_weight(op);
    nb_value *a = transposed(l, w, ".A", e->a, 1),
             *b = a ? transposed(l, w, ".B", e->b, e->scale) : NULL;
    return b && nb_branch_add(l->ctx, op, a, b);
}

/* Finds the layer; more than one only where they share the weight. */
static bool adapt(layers *l, const nb_adapter_layer *e) {
    const parts module = parts_of(e->name);
    const named *best = NULL;
    size_t most = 0;
    for (size_t i = 0; i < l->names.count; i++) {
        const named *n = &l->names.items[i];
        size_t k = agree(&module, &n->parts);
        if (k == 0 || k < most) continue;
        if (k == most && nb_linear_weight(n->op) != nb_linear_weight(best->op)) {
            nb_error(nb_diags_of(l->ctx), NB_USAGE, at(l),
                     "'%s' of the adapter may be '%s' or '%s'", e->name, best->name, n->name);
            return false;
        }
        best = n;
        most = k;
    }
    if (!best) {
        no_layer(l, e->name);
        return false;
    }
    const nb_value *w = nb_linear_weight(best->op);
    const nb_op *done = NULL;
    for (size_t i = 0; i < l->names.count; i++) {
        named *n = &l->names.items[i];
        if (nb_linear_weight(n->op) != w) continue;
        if (!fits(l, n, e) || (n->op != done && !add_branch(l, n->op, e))) return false;
        done = n->op;
        n->taken = e->name;
    }
    return true;
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    const nb_option_value *file = nb_option_of(ctx, "file"), *scale = nb_option_of(ctx, "scale");
    layers l = {.ctx = ctx, .path = file->s};
    nb_adapter adapter;
    float factor = (float)scale->f;
    if (!*file->s) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL, "expected the file of an adapter");
        ctx->host->help(ctx, "adapter{file=\"adapter_model.safetensors\"}");
        return NB_PASS_FAILED;
    }
    if (nb_adapter_open(file->s, scale->given ? &factor : NULL, nb_state_of(ctx)->scratch,
                        nb_diags_of(ctx), &adapter) != NB_OK)
        return NB_PASS_FAILED;
    find_layers(&l);
    bool ok = true;
    for (size_t i = 0; i < adapter.layers.count; i++)
        ok = adapt(&l, &adapter.layers.items[i]) && ok;
    nb_adapter_close(&adapter);
    return ok ? nb_pass_end(ctx, true) : NB_PASS_FAILED;
}

const nb_pass nb_pass_adapter = {
    .size = sizeof(nb_pass),
    .name = "adapter",
    .options = options,
    .run = run,
    .promises = NB_PASS_RUNS_ONCE,
    .summary = "run a LoRA adapter from a file beside the layers it belongs to",
};
