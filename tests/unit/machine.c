/* Samples, a store and runs that stop (machine.h). */
#include "tests/unit/machine.h"

#include "ir/text.h"
#include "tests/unit/unit.h"

#include <string.h>

static size_t find(const machine *m, const char *name) {
    size_t i = 0;
    while (i < m->files && strcmp(m->names[i], name) != 0) i++;
    return i;
}

static nb_part load(void *user, const char *name, nb_arena *arena) {
    const machine *m = user;
    const size_t i = find(m, name);
    if (i == m->files) return (nb_part){0};
    nb_part copy = {nb_alloc(arena, m->kept[i].size + 1), m->kept[i].size};
    memcpy(copy.data, m->kept[i].data, copy.size);
    return copy;
}

static nb_status save(void *user, const char *name, const nb_part *parts, size_t n) {
    machine *m = user;
    const size_t at = find(m, name);
    size_t size = 0;
    ck_assert_uint_lt(at, MACHINE_FILES);
    for (size_t i = 0; i < n; i++) size += parts[i].size;
    char *to = nb_alloc(m->arena, size + 1);
    m->names[at] = nb_strdup(m->arena, name);
    m->kept[at] = (nb_part){to, size};
    if (at == m->files) m->files++;
    for (size_t i = 0; i < n; i++) {
        if (parts[i].size) memcpy(to, parts[i].data, parts[i].size);
        to += parts[i].size;
    }
    m->saves++;
    return NB_OK;
}

static nb_status run(void *user, const nb_graph *g, const nb_tensor *inputs, nb_tensor *outputs,
                     const nb_tap *taps, size_t n_taps, nb_arena *arena, nb_diags *diags) {
    machine *m = user;
    if (m->runs++ == m->stop) return nb_error(diags, NB_LIMIT, NB_NOWHERE, "stopped");
    return nb_eval(g, inputs, outputs, taps, n_taps, arena, diags);
}

static void progress(void *user, const char *pass, size_t done, size_t total) {
    machine *m = user;
    ck_assert_ptr_nonnull(strstr(m->pass, pass));
    ck_assert_uint_lt(m->n_shown, MACHINE_SHOWN);
    m->shown[m->n_shown++] = done;
    m->of_shown = total;
}

nb_sample *machine_samples(nb_arena *arena, size_t n, int64_t rows, int64_t columns) {
    nb_sample *samples = NB_NEW_ARRAY(arena, nb_sample, n);
    for (size_t i = 0; i < n; i++) {
        const int64_t count = rows * columns;
        float *x = NB_NEW_ARRAY(arena, float, (size_t)count);
        for (int64_t k = 0; k < count; k++)
            x[k] = (float)(((int64_t)i * 7 + k * 5) % 11 - 5) / 3.0f;
        nb_tensor *t = NB_NEW(arena, nb_tensor);
        *t = (nb_tensor){
            .elem = NB_F32, .rank = 2, .dims = {rows, columns}, .data = x, .bytes = 4 * count};
        samples[i].inputs = t;
    }
    return samples;
}

nb_status machine_run(machine *m, const char *pass, const char *options, const char *graph,
                      const nb_sample *samples, size_t n_samples, nb_graph **g, nb_pass_env *env) {
    nb_arena *arena = m->arena;
    nb_diags *diags = nb_diags_create(arena, NULL);
    nb_pipeline pipeline;
    m->store = (nb_store){.user = m, .load = load, .save = save};
    *env = (nb_pass_env){.registry = nb_registry_create(arena),
                         .diags = diags,
                         .arena = arena,
                         .run = run,
                         .run_user = m,
                         .samples = samples,
                         .n_samples = n_samples,
                         .store = &m->store,
                         .progress = progress,
                         .progress_user = m};
    m->pass = pass;
    m->runs = m->saves = m->n_shown = 0;
    ck_assert_int_eq(nb_parse(graph, strlen(graph), "g", NULL, NULL, NULL, diags, g), NB_OK);
    const char *text = nb_format(arena, "%s{%s}", pass, options);
    ck_assert_int_eq(nb_pipeline_parse(env->registry, text, arena, diags, &pipeline), NB_OK);
    return nb_pipeline_run(&pipeline, *g, env);
}
