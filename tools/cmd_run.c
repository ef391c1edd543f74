/* nibble run: once, on tensors from files; compares with expected ones if asked. */
#include "lib/files.h"
#include "tools/model.h"
#include "tools/tensor_file.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The input of that name; NULL after an error. */
static nb_tensor *input_named(nbt_args *args, const nbt_model *m, nb_tensor *inputs,
                              const char *name) {
    for (size_t k = 0; k < m->n_inputs; k++) {
        if (strcmp(m->input_names[k], name) == 0) return &inputs[k];
    }
    const char *all = "";
    for (size_t n = 0; n < m->n_inputs; n++)
        all = nb_format(args->arena, "%s%s%s", all, n ? ", " : "", m->input_names[n]);
    nb_error(args->diags, NB_USAGE, NB_NOWHERE, "there is no input '%s'", name);
    nb_help(args->diags, "inputs are %s", all);
    return NULL;
}

static nb_status read_archive(nbt_args *args, const nbt_model *m, const char *path,
                              nb_tensor *inputs) {
    nbt_named_tensor *arrays;
    size_t n;
    NB_TRY(nbt_read_npz(path, args->arena, args->diags, &arrays, &n));
    for (size_t i = 0; i < n; i++) {
        nb_tensor *to = input_named(args, m, inputs, arrays[i].name);
        if (!to) return NB_USAGE;
        *to = arrays[i].tensor;
    }
    return NB_OK;
}

static nb_status read_inputs(nbt_args *args, const nbt_model *m, nb_tensor *inputs) {
    const nbt_strings *given = nbt_all(args, "input");
    for (size_t i = 0; i < given->count; i++) {
        const char *text = given->items[i], *equals = strchr(text, '=');
        if (!equals && nbl_ends_with(text, ".npz")) {
            NB_TRY(read_archive(args, m, text, inputs));
            continue;
        }
        if (!equals)
            return nb_error(args->diags, NB_USAGE, NB_NOWHERE,
                            "--input takes NAME=FILE or FILE.npz, found '%s'", text);
        const char *name = nb_strndup(args->arena, text, (size_t)(equals - text));
        nb_tensor *to = input_named(args, m, inputs, name);
        if (!to) return NB_USAGE;
        NB_TRY(nbt_read_tensor(equals + 1, args->arena, args->diags, to));
    }
    return NB_OK;
}

/* input_0.pb, input_1.pb ... in the order of the inputs. */
static nb_status read_test_inputs(nbt_args *args, const nbt_model *m, const char *dir,
                                  nb_tensor *inputs) {
    for (size_t i = 0; i < m->n_inputs; i++)
        NB_TRY(nbt_read_tensor(nb_format(args->arena, "%s/input_%zu.pb", dir, i), args->arena,
                               args->diags, &inputs[i]));
    return NB_OK;
}

/* A file name that a tensor's name cannot leave its folder with. */
static const char *file_name(nb_arena *arena, const char *name) {
    char *out = nb_strdup(arena, name);
    for (char *c = out; *c; c++) {
        if (*c == '/' || (unsigned char)*c < 0x20) *c = '_';
    }
    return out;
}

static nb_status write_outputs(nbt_args *args, const nbt_model *m, const nb_tensor *outputs,
                               const char *dir) {
    if (mkdir(dir, 0777) != 0 && errno != EEXIST)
        return nb_error(args->diags, NB_IO, (nb_where){.file = dir, .offset = -1},
                        "cannot make the folder: %s", strerror(errno));
    for (size_t i = 0; i < m->n_outputs; i++)
        NB_TRY(nbt_write_npy(
            nb_format(args->arena, "%s/%s.npy", dir, file_name(args->arena, m->output_names[i])),
            &outputs[i], args->diags));
    return NB_OK;
}

static bool compare(nbt_args *args, const char *name, const nb_tensor *got, const nb_tensor *want,
                    double rtol, double atol) {
    bool same_shape = got->rank == want->rank && got->elem == want->elem;
    for (int d = 0; same_shape && d < got->rank; d++) same_shape = got->dims[d] == want->dims[d];
    if (!same_shape) {
        nb_error(args->diags, NB_CHECK_FAILED, NB_NOWHERE,
                 "output \"%s\" has another type or shape than expected", name);
        return false;
    }
    int64_t n = nb_tensor_count(got), worst = -1;
    double excess = 0, largest = 0;
    for (int64_t i = 0; i < n; i++) {
        double a = nb_tensor_get(got, i), b = nb_tensor_get(want, i);
        if (a == b || (isnan(a) && isnan(b))) continue;
        double difference = fabs(a - b),
               over = isnan(difference) ? INFINITY : difference - (atol + rtol * fabs(b));
        largest = fmax(largest, difference);
        if (over > excess) {
            excess = over;
            worst = i;
        }
    }
    printf("%-32s largest difference %.3g%s\n", nb_escape(args->arena, name, strlen(name)), largest,
           worst < 0 ? "" : "  FAILED");
    if (worst < 0) return true;
    nb_error(args->diags, NB_CHECK_FAILED, NB_NOWHERE,
             "output \"%s\": element %lld is %.9g, expected %.9g", name, (long long)worst,
             nb_tensor_get(got, worst), nb_tensor_get(want, worst));
    return false;
}

static nb_status compare_all(nbt_args *args, const nbt_model *m, const nb_tensor *outputs) {
    const char *expect = nbt_get(args, "expect"), *test = nbt_get(args, "test");
    double rtol = 1e-3, atol = 1e-5;
    bool ok = true;
    NB_TRY(nbt_number(args, "rtol", 0, 1e6, &rtol));
    NB_TRY(nbt_number(args, "atol", 0, 1e6, &atol));
    for (size_t i = 0; (expect || test) && i < m->n_outputs; i++) {
        const char *path = test ? nb_format(args->arena, "%s/output_%zu.pb", test, i)
                                : nb_format(args->arena, "%s/%s.npy", expect,
                                            file_name(args->arena, m->output_names[i]));
        if (!test && access(path, F_OK) != 0) continue; /* only what is there is compared */
        nb_tensor want;
        NB_TRY(nbt_read_tensor(path, args->arena, args->diags, &want));
        ok = compare(args, m->output_names[i], &outputs[i], &want, rtol, atol) && ok;
    }
    return ok ? NB_OK : NB_CHECK_FAILED;
}

static void print_outputs(const nbt_args *args, const nbt_model *m, const nb_tensor *outputs) {
    for (size_t i = 0; i < m->n_outputs; i++) {
        const nb_tensor *t = &outputs[i];
        int64_t n = nb_tensor_count(t);
        const char *name = m->output_names[i];
        printf("%s: %s[", nb_escape(args->arena, name, strlen(name)), nb_elems[t->elem].text);
        for (int d = 0; d < t->rank; d++) printf("%s%lld", d ? "," : "", (long long)t->dims[d]);
        printf("] =");
        for (int64_t k = 0; k < n && k < 8; k++) printf(" %g", nb_tensor_get(t, k));
        printf("%s\n", n > 8 ? " ..." : "");
    }
}

static nb_status run_and_report(nbt_args *args, nbt_model *m) {
    nb_tensor *inputs = NB_NEW_ARRAY(args->arena, nb_tensor, m->n_inputs + 1),
              *outputs = NB_NEW_ARRAY(args->arena, nb_tensor, m->n_outputs + 1);
    const char *test = nbt_get(args, "test"), *output = nbt_get(args, "output");
    NB_TRY(test ? read_test_inputs(args, m, test, inputs) : read_inputs(args, m, inputs));
    for (size_t i = 0; m->interpret && i < m->n_inputs; i++) {
        if (!inputs[i].data)
            return nb_error(args->diags, NB_USAGE, NB_NOWHERE, "input \"%s\" is not given",
                            m->input_names[i]);
    }
    NB_TRY(nbt_run_model(args, m, inputs, outputs, args->arena));
    if (output) NB_TRY(write_outputs(args, m, outputs, output));
    if (nbt_has(args, "expect") || test) return compare_all(args, m, outputs);
    if (!output) print_outputs(args, m, outputs);
    return NB_OK;
}

nb_status nbt_run(nbt_args *args) {
    const char *in;
    nbt_model model;
    NB_TRY(nbt_one_input(args, &in));
    nb_status status = nbt_open_model(args, in, NULL, &model);
    if (status == NB_OK) status = run_and_report(args, &model);
    nbt_close_model(&model);
    return status;
}
