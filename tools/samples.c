/* Samples from files (samples.h).
 *
 *   .npy           1-D integers: tokens, cut into windows of --context; else the model's only input
 *   .npz           arrays named as inputs
 *   a folder       input_N.pb, or folders test_data_set_N of such: ONNX test data
 *   "self"         none: the model writes (self_text.c)
 *   anything else  text, for a model whose tokens are bytes */
#include "tools/samples.h"
#include "lib/files.h"

#include "ir/support/output.h"
#include "passes/windows.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const nbt_sample_options nbt_calibration = {"calib", "calib-tokens", "calibration"},
                         nbt_held_out = {"tokens", "max-tokens", "held-out"};

static nb_where here(const nbt_reader *r) { return (nb_where){.file = r->path, .offset = -1}; }

/* The first ones, where there are many. */
static const char *all_inputs(const nbt_reader *r) {
    const char *all = "";
    uint32_t n = r->g->body.n_params, shown = n > 6 ? 4 : n;
    for (uint32_t i = 0; i < shown; i++) {
        const nb_value *v = r->g->body.params[i];
        all = nb_format(r->args->arena, "%s%s%s %s", all, i ? ", " : "", v->name,
                        nb_type_text(r->args->arena, v->type));
    }
    return shown == n ? all : nb_format(r->args->arena, "%s and %u more", all, n - shown);
}

nb_status nbt_reader_error(const nbt_reader *r, nb_status status, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    nb_error(r->args->diags, status, here(r), "%s", nb_vformat(r->args->arena, fmt, args));
    va_end(args);
    nb_help(r->args->diags, "the model's inputs are %s", all_inputs(r));
    return status;
}

/* ---- one sample ----------------------------------------------------------------------------- */

static nb_status check_numbers(const nbt_reader *r, uint32_t input, const nb_tensor *t) {
    const char *name = r->g->body.params[input]->name;
    bool floats = nb_elem_is_float(t->elem), tokens = (int)input == r->tokens && r->vocab;
    int64_t n = floats || tokens ? nb_tensor_count(t) : 0;
    for (int64_t i = 0; i < n; i++) {
        double v = nb_tensor_get(t, i);
        if (floats && !isfinite(v))
            return nb_error(r->args->diags, NB_MALFORMED, here(r),
                            "input \"%s\", sample %zu: element %lld is %g", name, r->samples.count,
                            (long long)i, v);
        if (tokens && !(v >= 0 && v < (double)r->vocab))
            return nb_error(
                r->args->diags, NB_MALFORMED, here(r),
                "input \"%s\", sample %zu: token %.0f is outside the vocabulary of %lld", name,
                r->samples.count, v, (long long)r->vocab);
    }
    return NB_OK;
}

nb_status nbt_add_sample(nbt_reader *r, const nb_tensor *inputs) {
    nb_arena *scratch = nb_arena_create_like(r->args->arena);
    int64_t *symbols = NB_NEW_ARRAY(scratch, int64_t, r->g->symbols.count + 1);
    nb_status status = nb_eval_bind(r->g, inputs, symbols, r->args->diags);
    nb_arena_destroy(scratch);
    if (status != NB_OK)
        nb_note(r->args->diags, "in sample %zu, from %s", r->samples.count, r->path);
    for (uint32_t i = 0; i < r->g->body.n_params && status == NB_OK; i++)
        status = check_numbers(r, i, &inputs[i]);
    if (status != NB_OK) return status;
    if (r->tokens >= 0) r->left -= nb_tensor_count(&inputs[r->tokens]);
    nb_vec_push(r->args->arena, &r->samples, (nb_sample){inputs});
    return NB_OK;
}

/* ---- tokens --------------------------------------------------------------------------------- */

static nb_status add_windows(nbt_reader *r, const int64_t *tokens, int64_t count) {
    count = nb_min_i64(count, r->left);
    if (count < r->context)
        return nb_error(r->args->diags, NB_USAGE, here(r),
                        "%lld %s tokens do not fill a window of %lld", (long long)count,
                        r->which->what, (long long)r->context);
    for (int64_t i = 0; i + r->context <= count; i += r->context) {
        nb_tensor *inputs;
        NB_TRY(nb_window_inputs(r->g, tokens + i, 1, r->context, r->args->arena, r->args->diags,
                                &inputs));
        NB_TRY(nbt_add_sample(r, inputs));
    }
    return NB_OK;
}

static nb_status add_text(nbt_reader *r, const char *text, size_t size) {
    if (r->tokens < 0)
        return nbt_reader_error(r, NB_USAGE, "neither .npy nor .npz, and the model reads no text");
    if (r->vocab != 256) {
        nb_error(r->args->diags, NB_USAGE, here(r),
                 "text is for models whose tokens are bytes: a vocabulary of 256, found %lld",
                 (long long)r->vocab);
        nb_help(r->args->diags, "tokenize it first: token numbers in a 1-D .npy");
        return NB_USAGE;
    }
    int64_t *tokens = NB_NEW_ARRAY(r->args->arena, int64_t, size + 1);
    for (size_t i = 0; i < size; i++) {
        tokens[i] = (unsigned char)text[i];
        if (!tokens[i])
            return nb_error(r->args->diags, NB_MALFORMED, here(r), "this is no text: byte %zu is 0",
                            i);
    }
    return add_windows(r, tokens, (int64_t)size);
}

/* ---- files of arrays ------------------------------------------------------------------------- */

static nb_status add_npz(nbt_reader *r) {
    nbt_named_tensor *arrays;
    size_t n;
    NB_TRY(nbt_read_npz(r->path, r->args->arena, r->args->diags, &arrays, &n));
    if (n) return nbt_add_arrays(r, arrays, n);
    return nb_error(r->args->diags, NB_MALFORMED, here(r), "the archive holds no arrays");
}

static nb_status add_npy(nbt_reader *r, const char *bytes, size_t size) {
    nbt_named_tensor array;
    nb_arena *arena = r->args->arena;
    NB_TRY(nbt_parse_npy(r->path, bytes, size, arena, r->args->diags, &array.tensor));
    const nb_tensor *t = &array.tensor;
    if (r->tokens >= 0 && t->rank == 1 && nb_elem_is_integer(t->elem)) {
        int64_t *tokens = NB_NEW_ARRAY(arena, int64_t, (size_t)t->dims[0] + 1);
        for (int64_t i = 0; i < t->dims[0]; i++) tokens[i] = nb_tensor_get_int(t, i);
        return add_windows(r, tokens, t->dims[0]);
    }
    if (r->g->body.n_params != 1)
        return nbt_reader_error(r, NB_USAGE,
                                "expected token numbers, a vector of integers, or an .npz with "
                                "arrays named as inputs; found %s of rank %d",
                                nb_elems[t->elem].text, t->rank);
    array.name = r->g->body.params[0]->name;
    return nbt_add_arrays(r, &array, 1);
}

/* ---- folders -------------------------------------------------------------------------------- */

/* input_0.pb, input_1.pb ... in the order of the inputs; false: there is none. */
static nb_status add_pb_files(nbt_reader *r, bool *found) {
    NB_VEC(nbt_named_tensor) arrays = {0};
    struct stat st;
    for (size_t i = 0;; i++) {
        const char *path = nb_format(r->args->arena, "%s/input_%zu.pb", r->path, i);
        if (stat(path, &st) != 0) break;
        if (i == r->g->body.n_params)
            return nbt_reader_error(r, NB_MALFORMED, "input_%zu.pb is one too many", i);
        nbt_named_tensor array = {.name = r->g->body.params[i]->name};
        NB_TRY(nbt_read_tensor(path, r->args->arena, r->args->diags, &array.tensor));
        nb_vec_push(r->args->arena, &arrays, array);
    }
    *found = arrays.count > 0;
    return *found ? nbt_add_arrays(r, arrays.items, arrays.count) : NB_OK;
}

static int is_data_set(const struct dirent *entry) {
    return strncmp(entry->d_name, "test_data_set_", 14) == 0;
}

static nb_status add_folder(nbt_reader *r) {
    const char *folder = r->path;
    bool found = false, any = false;
    NB_TRY(add_pb_files(r, &any));
    struct dirent **entries;
    int n = scandir(folder, &entries, is_data_set, versionsort);
    if (n < 0) return nb_io_error(r->args->diags, folder, "list");
    nb_status status = NB_OK;
    for (int i = 0; i < n; i++) {
        r->path = nb_format(r->args->arena, "%s/%s", folder, entries[i]->d_name);
        if (status == NB_OK) status = add_pb_files(r, &found);
        any = any || found;
        free(entries[i]);
    }
    free((void *)entries);
    if (status != NB_OK || any) return status;
    r->path = folder;
    nb_error(r->args->diags, NB_MALFORMED, here(r), "the folder holds no samples");
    nb_help(r->args->diags, "expected input_0.pb, or folders test_data_set_0 ... with such files");
    return NB_MALFORMED;
}

/* ---- all files ------------------------------------------------------------------------------ */

#define SELF        "self"
#define SELF_TOKENS 12288

static nb_status add_own(nbt_reader *r) {
    const int64_t count = nb_min_i64(r->left, nb_max_i64(SELF_TOKENS, r->context)),
                  windows = count / r->context;
    int64_t *tokens;
    NB_TRY(nbt_write_samples(r, windows, &tokens));
    return add_windows(r, tokens, windows * r->context);
}

static nb_status add_file(nbt_reader *r) {
    struct stat st;
    char *bytes;
    size_t size;
    if (r->which == &nbt_calibration && strcmp(r->path, SELF) == 0) return add_own(r);
    if (stat(r->path, &st) == 0 && S_ISDIR(st.st_mode)) return add_folder(r);
    NB_TRY(nbt_read_file(r->path, r->args->arena, r->args->diags, &bytes, &size));
    if (size >= 6 && memcmp(bytes, "\x93NUMPY", 6) == 0) return add_npy(r, bytes, size);
    if ((size >= 2 && memcmp(bytes, "PK", 2) == 0) || nbl_ends_with(r->path, ".npz"))
        return add_npz(r);
    if (nbl_ends_with(r->path, ".npy"))
        return nb_error(r->args->diags, NB_MALFORMED, here(r), "expected a NumPy array (.npy)");
    return add_text(r, bytes, size);
}

nb_status nbt_read_samples(nbt_args *args, const nbt_sample_options *which, const nb_graph *g,
                           const nb_sample **samples, size_t *n) {
    static const char *const self[] = {SELF};
    const nbt_strings *files = nbt_all(args, which->files),
                      own = {.items = (const char **)self, .count = 1};
    const bool limited = nbt_has(args, which->most);
    nbt_reader r = {.args = args, .which = which, .g = g, .context = 256, .left = INT64_MAX};
    NB_TRY(nbt_integer(args, "context", 2, 1 << 20, &r.context));
    NB_TRY(nbt_integer(args, which->most, 1, INT64_MAX, &r.left));
    const nb_language language = nb_language_of(g);
    r.tokens = language.tokens;
    r.vocab = language.vocab;
    /* For models of another kind draw-samples draws some. */
    if (!files->count && which == &nbt_calibration && nbt_wants_budget(args) && r.tokens >= 0)
        files = &own;
    if (limited && r.tokens < 0)
        return nb_error(args->diags, NB_USAGE, NB_NOWHERE, "--%s: the model has no input of tokens",
                        which->most);
    if (limited && !files->count)
        return nb_error(args->diags, NB_USAGE, NB_NOWHERE, "--%s needs --%s FILE", which->most,
                        which->files);
    for (size_t i = 0; i < files->count && r.left > 0; i++) {
        r.path = files->items[i];
        /* A rest that fills no window is left out, behind a file that filled some. */
        if (r.samples.count && r.left < r.context) break;
        NB_TRY(add_file(&r));
    }
    *samples = r.samples.items;
    *n = r.samples.count;
    return NB_OK;
}

/* ---- the same for another graph ---------------------------------------------------------------
 */

static uint32_t input_named(const nb_graph *g, const nb_value *like) {
    for (uint32_t i = 0; i < g->body.n_params; i++) {
        const nb_value *v = g->body.params[i];
        if (v->type->elem == like->type->elem && strcmp(v->name, like->name) == 0) return i;
    }
    return UINT32_MAX;
}

static nb_status sample_like(nbt_args *args, const nb_graph *from, const nb_sample *s,
                             const nb_graph *to, nb_tensor **out) {
    nb_arena *arena = args->arena;
    const uint32_t n = to->body.n_params;
    uint32_t missing = UINT32_MAX;
    const int tokens = nb_language_of(from).tokens;
    *out = NB_NEW_ARRAY(arena, nb_tensor, n + 1);
    for (uint32_t i = 0; i < n; i++)
        if (input_named(from, to->body.params[i]) == UINT32_MAX) missing = i;
    if (missing != UINT32_MAX && tokens < 0)
        return nb_error(args->diags, NB_UNSUPPORTED, (nb_where){.file = to->file, .offset = -1},
                        "input \"%s\", which a pass added: nothing says what to give to it",
                        to->body.params[missing]->name);
    if (missing != UINT32_MAX) {
        const nb_tensor *t = &s->inputs[tokens];
        int64_t *numbers = NB_NEW_ARRAY(arena, int64_t, (size_t)nb_tensor_count(t) + 1);
        for (int64_t k = 0; k < nb_tensor_count(t); k++) numbers[k] = nb_tensor_get_int(t, k);
        NB_TRY(nb_window_inputs(to, numbers, t->dims[0], t->dims[1], arena, args->diags, out));
    }
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t at = input_named(from, to->body.params[i]);
        if (at != UINT32_MAX) (*out)[i] = s->inputs[at];
    }
    return NB_OK;
}

nb_status nbt_samples_like(nbt_args *args, const nbt_samples *samples, const nb_graph *to,
                           nbt_samples *out) {
    nb_sample *all = NB_NEW_ARRAY(args->arena, nb_sample, samples->count + 1);
    for (size_t i = 0; i < samples->count; i++) {
        nb_tensor *inputs;
        NB_TRY(sample_like(args, samples->graph, &samples->items[i], to, &inputs));
        all[i].inputs = inputs;
    }
    *out = (nbt_samples){to, all, samples->count};
    return NB_OK;
}
