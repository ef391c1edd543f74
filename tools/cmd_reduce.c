/* nibble reduce: the smallest part of a model that still fails, for whoever has to find the fault.
 * What failing means a command says (--test), or a bound (--numeric). */
#include "ir/support/output.h"
#include "lib/files.h"
#include "lib/timing.h"
#include "passes/check.h"
#include "tools/reduce.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MOST_TESTS 5000

/* ---- samples -------------------------------------------------------------------------------- */

static nb_status read_samples(nbt_args *args, const nb_graph *g, nbt_samples *out, bool *made_up) {
    const bool held_out = nbt_has(args, "tokens");
    *out = (nbt_samples){.graph = g};
    NB_TRY(nbt_read_samples(args, held_out ? &nbt_held_out : &nbt_calibration, g, &out->items,
                            &out->count));
    *made_up = out->count == 0;
    if (!*made_up) return NB_OK;
    nb_sample *one = NB_NEW(args->arena, nb_sample);
    one->inputs = nb_made_up_inputs(g, args->arena);
    if (!one->inputs)
        return nb_error(args->diags, NB_LIMIT, NB_NOWHERE, "no inputs can be made up for %s",
                        g->file);
    out->items = one;
    out->count = 1;
    return NB_OK;
}

/* Beside OUT.nir: OUT.npz, or OUT.1.npz, OUT.2.npz ... */
static nb_status write_samples(const nbt_reduction *r, const char *path) {
    nb_arena *arena = r->args->arena;
    const nb_graph *g = r->graph;
    const size_t stem = strlen(path) - (nbl_ends_with(path, ".nir") ? 4 : 0);
    for (size_t i = 0; i < r->samples.count && g->body.n_params; i++) {
        const char *number = r->samples.count > 1 ? nb_format(arena, ".%zu", i + 1) : "",
                   *name = nb_format(arena, "%.*s%s.npz", (int)stem, path, number);
        nbt_named_tensor *arrays = NB_NEW_ARRAY(arena, nbt_named_tensor, g->body.n_params + 1);
        for (uint32_t k = 0; k < g->body.n_params; k++)
            arrays[k] = (nbt_named_tensor){g->body.params[k]->name, r->samples.items[i].inputs[k]};
        NB_TRY(nbt_write_npz(name, arrays, g->body.n_params, r->args->diags));
        printf("wrote %s\n", name);
    }
    return NB_OK;
}

/* ---- the command ---------------------------------------------------------------------------- */

static void print_change(const char *what, const nbt_size_of_graph *before,
                         const nbt_size_of_graph *after, int part) {
    printf("%-10s %lld -> %lld\n", what, (long long)before->parts[part],
           (long long)after->parts[part]);
}

static nb_status write_result(const nbt_reduction *r, const nbt_size_of_graph *before,
                              double seconds) {
    const char *path = nbt_get(r->args, "output") ? nbt_get(r->args, "output") : "reduced.nir";
    NB_TRY(nbl_write_nir(r->graph, path, r->args->diags));
    if (!nbt_has(r->args, "quiet")) {
        print_change("ops", before, &r->size, NBT_SIZE_OPS);
        print_change("ports", before, &r->size, NBT_SIZE_PORTS);
        print_change("constants", before, &r->size, NBT_SIZE_CONSTANTS);
        print_change("numbers", before, &r->size, NBT_SIZE_NUMBERS);
    }
    printf("still: %s\n", r->test->verdict);
    printf("tests: %zu in %.1f s%s\n", r->tests, seconds,
           nbt_is_interrupted()  ? ", interrupted: the best so far"
           : r->tests >= r->most ? ", --max-tests reached: the best so far"
                                 : "");
    printf("wrote %s\n", path);
    return r->test->takes_samples && !r->made_up ? write_samples(r, path) : NB_OK;
}

static nb_status reduce(nbt_reduction *r, const nb_graph *whole) {
    const double start = nbl_now();
    int64_t most = MOST_TESTS;
    NB_TRY(nbt_integer(r->args, "max-tests", 1, INT32_MAX, &most));
    r->most = (size_t)most;
    nbt_catch_interrupts();
    if (nbt_has(r->args, "numeric")) {
        NB_TRY(read_samples(r->args, whole, &r->samples, &r->made_up));
        NB_TRY(nbt_numeric_test(r->args, whole, &r->samples, &r->test));
    } else {
        NB_TRY(nbt_command_test(r->args, whole, &r->test));
    }
    r->graph = nb_graph_clone(whole);
    r->size = nbt_graph_size(whole, &r->known);
    if (!r->made_up && r->samples.count)
        r->size.parts[NBT_SIZE_SAMPLES] = nbt_count_elements(&r->samples);
    const nbt_size_of_graph before = r->size;
    nbt_reduce_graph(r);
    return write_result(r, &before, nbl_now() - start);
}

static nb_status check_options(nbt_args *args) {
    if (nbt_has(args, "test") != nbt_has(args, "numeric")) return NB_OK;
    nb_error(args->diags, NB_USAGE, NB_NOWHERE, "either --test or --numeric says what fails");
    nb_help(args->diags, "--test 'nibble compile {} -o /dev/null', --numeric 'sqnr<20'");
    return NB_USAGE;
}

nb_status nbt_reduce(nbt_args *args) {
    const char *in;
    nb_graph *g;
    NB_TRY(nbt_one_input(args, &in));
    NB_TRY(check_options(args));
    NB_TRY(nbt_read_graph(args, in, &g));
    nb_status status = NB_OK;
    if (g->stage == NB_STAGE_PLANNED) {
        status = nb_error(args->diags, NB_USAGE, (nb_where){.file = in, .offset = -1},
                          "the graph is planned: storage would not fit any other");
        nb_help(args->diags, "give the graph before plan-memory, which --dump writes");
    }
    nbt_reduction r = {
        .args = args, .seen = {.arena = args->arena}, .known = {.arena = args->arena}};
    if (status == NB_OK) status = reduce(&r, g);
    nbt_command_test_end(r.test);
    nb_graph_destroy(r.graph);
    if (r.kept) nb_arena_destroy(r.kept);
    nb_graph_destroy(g);
    return status;
}
