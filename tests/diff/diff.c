/* The harness (diff.h): graphs in, counts out. */
#include "tests/diff/diff.h"

#include "passes/pass.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int diff_passed, diff_failed, diff_skipped;
bool diff_quick;

static const char *wanted = ""; /* part of the names of cases to run */

bool diff_is_whole(void) { return !*wanted; }

/* ---- making graphs ------------------------------------------------------------------------- */

void diff_begin(diff *d, const char *fmt, ...) {
    memset(d, 0, sizeof *d);
    d->arena = nb_arena_create(NULL, NULL);
    d->diags = nb_diags_create(d->arena, NULL);
    va_list args;
    va_start(args, fmt);
    d->name = nb_vformat(d->arena, fmt, args);
    va_end(args);
    diff_random_start(d->name);
    d->graph = nb_graph_create("test", NULL, NULL);
    d->b = (nb_builder){.graph = d->graph, .diags = d->diags};
}

const nb_dim *diff_dim(diff *d, int64_t n) {
    if (n >= 0) return nb_dim_const(d->graph, n);
    int64_t k = -n - 1;
    if (!d->symbol[k]) {
        const char *name = nb_format(d->arena, "S%lld", (long long)k);
        d->symbol[k] = nb_graph_symbol(d->graph, name, true);
    }
    return nb_dim_symbol(d->graph, d->symbol[k]);
}

static const nb_type *type_of(diff *d, nb_elem elem, int rank, const int64_t *dims) {
    const nb_dim *list[NB_MAX_RANK];
    for (int i = 0; i < rank; i++) list[i] = diff_dim(d, dims[i]);
    return nb_type_intern(d->graph, elem, NULL, rank, list);
}

nb_value *diff_input(diff *d, nb_elem elem, int rank, const int64_t *dims) {
    const char *name = nb_format(d->arena, "x%u", d->graph->body.n_params);
    return nb_graph_add_input(d->graph, name, type_of(d, elem, rank, dims));
}

nb_value *diff_const(diff *d, nb_elem elem, int rank, const int64_t *dims) {
    int64_t count = 1, bytes;
    for (int i = 0; i < rank; i++) count *= dims[i];
    if (!nb_elem_bytes_of(elem, count, &bytes)) abort();
    void *data;
    nb_blob *blob = nb_blob_create(bytes, &data);
    diff_fill(elem, count, d->plain, data);
    return nb_graph_add_const(d->graph, "c", type_of(d, elem, rank, dims), blob, NULL);
}

/* ---- comparing ----------------------------------------------------------------------------- */

static void complain(const diff *d, const char *cpu, const char *what) {
    diff_failed++;
    printf("FAILED: %s (%s, seed %llu): %s\n", d->name, cpu, (unsigned long long)diff_seed, what);
    for (size_t i = 0; i < d->diags->list.count; i++)
        printf("  %s", nb_diag_render(d->arena, d->diags->list.items[i]));
}

static uint64_t element_bits(const nb_tensor *t, int64_t i) {
    size_t size = (size_t)nb_elems[t->elem].bits / 8;
    uint64_t bits = 0;
    memcpy(&bits, (const char *)t->data + (size_t)i * size, size);
    return bits;
}

/* What an output holds: a NaN is the positive quiet one, whichever the evaluator found. */
static uint64_t wanted_bits(const nb_tensor *t, int64_t i) {
    if (!nb_elem_is_float(t->elem) || !__builtin_isnan(nb_tensor_get(t, i)))
        return element_bits(t, i);
    switch (t->elem) {
    case NB_F64:
        return UINT64_C(0x7ff8000000000000);
    case NB_F16:
        return 0x7e00;
    case NB_BF16:
        return 0x7fc0;
    default:
        return 0x7fc00000;
    }
}

static bool same(const diff *d, const char *cpu, size_t output, const nb_tensor *want,
                 const nb_tensor *got) {
    int64_t count = nb_tensor_count(want);
    if (want->rank != got->rank || memcmp(want->dims, got->dims, (size_t)want->rank * 8) != 0) {
        complain(d, cpu, "the output's shape differs");
        return false;
    }
    for (int64_t i = 0; i < count; i++) {
        if (wanted_bits(want, i) == element_bits(got, i)) continue;
        complain(d, cpu,
                 nb_format(d->arena,
                           "output %zu, element %lld of %lld: want %llx (%g), got %llx (%g)",
                           output, (long long)i, (long long)count,
                           (unsigned long long)wanted_bits(want, i), nb_tensor_get(want, i),
                           (unsigned long long)element_bits(got, i), nb_tensor_get(got, i)));
        return false;
    }
    return true;
}

static bool plan(diff *d) {
    nb_registry *registry = nb_registry_create(d->arena);
    nb_pass_env env = {
        .registry = registry, .diags = d->diags, .arena = d->arena, .verify_each = true};
    nb_pipeline pipeline = {0};
    d->graph->stage = NB_STAGE_FUSED; /* in which every op is legal */
    return nb_pipeline_parse(registry, "plan-memory", d->arena, d->diags, &pipeline) == NB_OK &&
           nb_pipeline_run(&pipeline, d->graph, &env) == NB_OK;
}

static void inputs_of(diff *d, nb_tensor *inputs) {
    const nb_region *body = &d->graph->body;
    int64_t symbols[DIFF_MAX_SYMBOLS + 1] = {0};
    for (int i = 0; i < DIFF_MAX_SYMBOLS; i++)
        if (d->symbol[i]) symbols[d->symbol[i]->index] = d->symbols[i];
    for (uint32_t i = 0; i < body->n_params; i++) {
        const nb_type *t = body->params[i]->type;
        nb_tensor *x = &inputs[i];
        *x = (nb_tensor){.elem = t->elem, .rank = t->rank};
        for (int a = 0; a < t->rank; a++)
            if (!nb_dim_eval(t->dims[a], symbols, &x->dims[a])) abort();
        if (!nb_elem_bytes_of(x->elem, nb_tensor_count(x), &x->bytes)) abort();
        x->data = nb_alloc(d->arena, (size_t)x->bytes + 1);
        int64_t last = x->rank ? x->dims[x->rank - 1] : 1;
        if (d->rows && x->elem == NB_F32)
            diff_fill_rows(last ? nb_tensor_count(x) / last : 0, last, (float *)x->data);
        else
            diff_fill(x->elem, nb_tensor_count(x), d->plain, x->data);
        if (!d->indices || !nb_elem_is_integer(x->elem)) continue;
        int64_t *to = (int64_t *)x->data;
        for (int64_t k = 0; k < nb_tensor_count(x); k++)
            to[k] = d->indices[d->next_index++ % d->n_indices];
    }
}

/* One set of inputs and what the evaluator made of it. */
typedef struct sample {
    nb_tensor inputs[DIFF_MAX_PORTS], want[DIFF_MAX_PORTS];
} sample;

static bool check_run(diff *d, const char *cpu, const nb_jit *loaded, const nb_pack *pack,
                      const sample *s, bool split) {
    nb_tensor got[DIFF_MAX_PORTS] = {0};
    int32_t result;
    const char *error = diff_execute(nb_jit_model(loaded), pack, s->inputs, got, d->capacity, split,
                                     d->arena, &result);
    if (!error && result != d->result)
        error = nb_format(d->arena, "run returned %d instead of %d", result, d->result);
    if (error) complain(d, cpu, error);
    bool ok = !error;
    for (size_t i = 0; ok && d->result == 0 && i < d->graph->outputs.count; i++)
        ok = same(d, split ? nb_format(d->arena, "%s, split", cpu) : cpu, i, &s->want[i], &got[i]);
    return ok;
}

/* Compiles for one CPU and compares; false after a complaint. */
static bool check_cpu(diff *d, size_t index, const sample *samples, size_t n) {
    const char *cpu;
    nb_codegen_options options = {
        .cpu = diff_cpu(d, index, &cpu), .name = "test", .cache = d->cache, .quick = diff_quick};
    nb_object object = {0};
    nb_jit *loaded = NULL;
    nb_status status = nb_codegen(d->graph, &options, d->arena, d->diags, &object);
    if (status == NB_OK) status = nb_load_object(&object, "test", d->diags, &loaded);
    if (status != NB_OK) {
        complain(d, cpu, "does not compile");
        return false;
    }
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++)
        ok = check_run(d, cpu, loaded, object.pack, &samples[i], false) &&
             check_run(d, cpu, loaded, object.pack, &samples[i], true);
    nb_jit_free(loaded);
    return ok;
}

/* Inputs, and expected outputs unless the run is to fail. */
static bool make_sample(diff *d, sample *s) {
    inputs_of(d, s->inputs);
    return d->result != 0 ||
           nb_eval(d->graph, s->inputs, s->want, NULL, 0, d->arena, d->diags) == NB_OK;
}

void diff_check_all(diff *d, size_t n, nb_value *const *ys) {
    const char *names[DIFF_MAX_PORTS];
    sample samples[DIFF_MAX_LENGTHS] = {0};
    size_t n_samples = d->n_lengths ? d->n_lengths : 1;
    bool ok = true, run = strstr(d->name, wanted) != NULL;
    if (!run) n_samples = 0;
    for (size_t i = 0; i < n; i++) {
        ok = ok && ys[i];
        names[i] = nb_format(d->arena, "y%zu", i);
    }
    if (ok && n) nb_graph_set_outputs(d->graph, n, ys, names);
    for (size_t i = 0; ok && i < n_samples; i++) {
        if (d->n_lengths) d->symbols[0] = d->lengths[i];
        ok = make_sample(d, &samples[i]);
    }
    ok = ok && (!run || plan(d));
    if (!ok) complain(d, "eval", "cannot be made or evaluated");
    const char *cpu;
    for (size_t i = 0; run && ok && diff_cpu(d, i, &cpu); i++)
        ok = check_cpu(d, i, samples, n_samples);
    if (run && ok) diff_passed++;
    nb_graph_destroy(d->graph);
    nb_arena_destroy(d->arena);
}

void diff_check(diff *d, nb_value *y) { diff_check_all(d, 1, &y); }

/* diff_tests [SEED [WORD]]: other numbers; only the cases with WORD in their names. */
int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    const char *quick = getenv("NB_DIFF_QUICK");
    diff_quick = quick && strcmp(quick, "1") == 0;
    if (argc > 1) diff_seed = strtoull(argv[1], NULL, 0);
    if (argc > 2) wanted = argv[2];
    diff_test_elementwise();
    diff_test_move();
    diff_test_order();
    diff_test_layers();
    diff_test_immediates();
    diff_test_rotary();
    diff_test_hadamard();
    diff_test_call();
    diff_test_matmul();
    diff_test_conv();
    diff_test_patches();
    diff_test_qconv();
    diff_test_qdepthwise();
    diff_test_attention();
    diff_test_attention_codes();
    diff_test_quantize();
    diff_test_dequantize();
    diff_test_qgather();
    diff_test_qmatmul();
    diff_test_states();
    diff_test_control();
    diff_test_counted();
    diff_test_model();
    printf("%d passed, %d failed, %d skipped\n", diff_passed, diff_failed, diff_skipped);
    return diff_failed ? 1 : 0;
}
