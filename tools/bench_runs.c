/* Runs whole models and measures them (bench.h): decoders on a prompt and further tokens, all
 * others on made-up inputs. With --layers each op is timed too, in rounds of its own. */
#include "tools/bench.h"

#include "runtime/cpu.h"
#include "runtime/load.h"
#include "tools/lm.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

nbt_weights nbt_where(const nbl_program *program) {
    const nb_model *m = nb_loaded_model(program->loaded);
    double share = nbl_huge_share(nb_loaded_weights(program->loaded), m->weights_size);
    return (nbt_weights){(int64_t)m->weights_size, program->shared ? "shared" : "huge", share};
}

const char *nbt_where_text(nb_arena *arena, nbt_weights w) {
    if (strcmp(w.in, "shared") == 0 && w.huge_share <= 0) return "pages of a file";
    return nb_format(arena, "huge pages (%.0f %% of them)", 100 * w.huge_share);
}

static int64_t *copy_symbols(nb_arena *arena, const nb_model *m, nb_session *session) {
    int64_t *copy = NB_NEW_ARRAY(arena, int64_t, (size_t)m->n_symbols + 1);
    const int64_t *values = nb_session_symbols(session);
    if (values && m->n_symbols) memcpy(copy, values, m->n_symbols * sizeof *copy);
    return copy;
}

/* ---- decoders ------------------------------------------------------------------------------ */

bool nbt_is_decoder(const nbt_model *model) {
    nbt_lm lm;
    const nb_model *m = nb_loaded_model(model->program.loaded);
    if (!nbt_lm_is(model, &lm)) return false;
    for (int i = 0; i < (int)m->n_inputs; i++) {
        bool known = i == lm.tokens || i == lm.mask || i == lm.positions;
        if (!known && m->inputs[i].state < 0) return false;
    }
    return true;
}

typedef struct decoding {
    nbt_measured *b;
    nb_arena *arena;
    nbt_decoder d;
    const int64_t *tokens;              /* batch * prompt */
    nbl_recorder *on_prompt, *on_token; /* NULL: whole runs are timed */
} decoding;

static nb_status feed(decoding *w, int64_t n, nbl_recorder *r) {
    const float *logits;
    nbl_record(w->d.session, r);
    NB_TRY(nbt_decoder_feed(&w->d, w->tokens, w->b->batch, n, &logits));
    if (r) nbl_recorded(r);
    return NB_OK;
}

static nb_status one_round(decoding *w, double *prefill, double *token) {
    nbt_measured *b = w->b;
    const nb_model *m = nb_loaded_model(b->model.program.loaded);
    NB_TRY(nbt_decoder_reset(&w->d));
    double start = nbl_now();
    NB_TRY(feed(w, b->prompt, w->on_prompt));
    *prefill = nbl_now() - start;
    b->last_logits = w->d.rows < b->prompt;
    if (w->on_prompt) b->phases[0].symbols = copy_symbols(w->arena, m, w->d.session);
    start = nbl_now();
    for (int64_t i = 0; i < b->out; i++) {
        NB_TRY(feed(w, 1, w->on_token));
        if (w->on_token && i == b->out / 2)
            b->phases[1].symbols = copy_symbols(w->arena, m, w->d.session);
    }
    *token = b->out ? (nbl_now() - start) / (double)b->out : 0;
    return NB_OK;
}

/* One round after the other, whole runs and, in turn with them, single ops. */
static nb_status measure_decoder(decoding *w, bool profile) {
    nbt_measured *b = w->b;
    const nb_model *m = nb_loaded_model(b->model.program.loaded);
    size_t n = (size_t)b->rounds;
    double *prefill = NB_NEW_ARRAY(w->arena, double, n), *token = NB_NEW_ARRAY(w->arena, double, n);
    nbl_recorder prompt = nbl_recorder_of(w->arena, m, profile ? n : 0),
                 tokens = nbl_recorder_of(w->arena, m, profile ? n * (size_t)b->out : 0);
    double ignored[2];
    NB_TRY(one_round(w, &ignored[0], &ignored[1]));
    for (size_t i = 0; i < n; i++) {
        w->on_prompt = w->on_token = NULL;
        NB_TRY(one_round(w, &prefill[i], &token[i]));
        w->on_prompt = &prompt;
        w->on_token = &tokens;
        if (profile) NB_TRY(one_round(w, &ignored[0], &ignored[1]));
    }
    b->phases[0].times = nbl_times_of(prefill, n);
    b->phases[1].times = nbl_times_of(token, n);
    if (profile) b->phases[0].op_seconds = nbl_recorder_medians(w->arena, &prompt);
    if (profile) b->phases[1].op_seconds = nbl_recorder_medians(w->arena, &tokens);
    return NB_OK;
}

static nb_status run_decoder(nbt_args *args, nbt_measured *b) {
    decoding w = {.b = b, .arena = args->arena};
    int64_t n = b->batch * b->prompt, *tokens = NB_NEW_ARRAY(args->arena, int64_t, (size_t)n);
    for (int64_t i = 0; i < n; i++) tokens[i] = 32 + i * 7 % 64; /* in vocabularies of 96 or more */
    w.tokens = tokens;
    b->phases[0] = (nbt_phase){.name = "prompt", .tokens = n};
    b->phases[1] = (nbt_phase){.name = "decode", .tokens = b->batch};
    b->n_phases = b->out ? 2 : 1;
    NB_TRY(nbt_decoder_open(args, &b->model, b->prompt + b->out, &w.d));
    nb_status status = measure_decoder(&w, nbt_wants_layers(args));
    nbt_decoder_cache(&w.d, &b->kv, &b->kv_bytes);
    nbt_decoder_close(&w.d);
    return status;
}

/* ---- other models -------------------------------------------------------------------------- */

/* Floats from -1 to 1, whole numbers 0 and 1: also indices of any table. */
static void fill(nb_elem elem, void *data, int64_t n, uint64_t *state) {
    bool is_float = nb_elem_is_float(elem);
    int bits = nb_elems[elem].bits;
    for (int64_t i = 0; i < n; i++) {
        uint64_t r = nbt_random(state);
        float f = (float)((double)(r >> 11) / 4503599627370496.0 - 1);
        double d = f;
        /* Halves: sign, the exponent of 0.5, some fraction. */
        uint16_t half = (uint16_t)((r & 0x8000) | (elem == NB_F16 ? 0x3800 : 0x3f00) | (r & 0x7f));
        int64_t whole = r >> 63 != 0;
        const void *from = !is_float                           ? (const void *)&whole
                           : elem == NB_F32                    ? (const void *)&f
                           : elem == NB_F64                    ? (const void *)&d
                           : elem == NB_F16 || elem == NB_BF16 ? (const void *)&half
                                                               : (const void *)&whole;
        memcpy((char *)data + i * (bits / 8), from, (size_t)bits / 8);
    }
}

/* --batch for all symbols, --dim for single ones. */
static nb_status choose_symbols(nbt_args *args, const nb_model *m, int64_t batch, int64_t *out) {
    nbt_symbol *list = NB_NEW_ARRAY(args->arena, nbt_symbol, (size_t)m->n_symbols + 1);
    for (uint32_t i = 0; i < m->n_symbols; i++) {
        const nb_model_symbol *s = &m->symbols[i];
        list[i] = (nbt_symbol){s->name, s->min, s->max, batch};
    }
    return nbt_choose_symbols(args, list, m->n_symbols, out);
}

nb_status nbt_choose_symbols(nbt_args *args, const nbt_symbol *symbols, size_t n, int64_t *out) {
    const nbt_strings *named = nbt_all(args, "dim");
    for (size_t i = 0; i < n; i++)
        out[i] = nb_min_i64(nb_max_i64(symbols[i].usual, symbols[i].min), symbols[i].max);
    for (size_t k = 0; k < named->count; k++) {
        const char *text = named->items[k], *equals = strrchr(text, '=');
        char *end = NULL;
        long long value = equals ? strtoll(equals + 1, &end, 10) : 0;
        size_t i = 0;
        if (!equals || end == equals + 1 || *end)
            return nb_error(args->diags, NB_USAGE, NB_NOWHERE,
                            "--dim takes NAME=NUMBER, found '%s'", text);
        while (i < n && (strlen(symbols[i].name) != (size_t)(equals - text) ||
                         strncmp(symbols[i].name, text, (size_t)(equals - text)) != 0))
            i++;
        if (i < n && value >= symbols[i].min && value <= symbols[i].max) {
            out[i] = value;
            continue;
        }
        nb_error(args->diags, NB_USAGE, NB_NOWHERE,
                 i < n ? "--dim %s: the model does not take this number"
                       : "--dim %s: the model has no such dimension",
                 text);
        const char *names = "";
        for (i = 0; i < n; i++)
            names = nb_format(args->arena, "%s%s%s (%" PRId64 "..%" PRId64 ")", names,
                              i ? ", " : "", symbols[i].name, symbols[i].min, symbols[i].max);
        nb_help(args->diags, "its dimensions: %s", *names ? names : "none is symbolic");
        return NB_USAGE;
    }
    return NB_OK;
}

static nb_status set_inputs(nbt_args *args, const nbt_measured *b, nb_session *session) {
    const nb_model *m = nb_loaded_model(b->model.program.loaded);
    int64_t *symbols = NB_NEW_ARRAY(args->arena, int64_t, (size_t)m->n_symbols + 2);
    uint64_t state = 88172645463325252u;
    nb_error_text err;
    NB_TRY(choose_symbols(args, m, b->batch, symbols));
    for (uint32_t i = 0; i < m->n_inputs; i++) {
        nb_tensor t = {.elem = nb_elem_from_onnx(m->inputs[i].elem), .rank = m->inputs[i].rank};
        if (m->inputs[i].state >= 0) continue;
        m->input_shape(symbols, i, t.dims);
        if (t.elem == NB_ELEM_COUNT || nb_elems[t.elem].bits % 8 ||
            !nb_elem_bytes_of(t.elem, nb_tensor_count(&t), &t.bytes) || t.bytes > INT64_C(1) << 32)
            return nb_error(args->diags, NB_LIMIT, NB_NOWHERE,
                            "input \"%s\": cannot make up data for %s", m->inputs[i].name,
                            m->inputs[i].shape);
        t.data = nb_alloc(args->arena, (size_t)t.bytes + 8);
        fill(t.elem, t.data, nb_tensor_count(&t), &state);
        NB_TRY(nbl_runtime_error(args->diags,
                                 nb_session_set_input(session, (int)i, t.data, t.dims, err), err));
    }
    return NB_OK;
}

/* `n` runs in a row; states begin anew. */
static nb_status time_runs(nbt_args *args, nb_session *session, int64_t n, double *each) {
    nb_error_text err;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        NB_TRY(nbl_runtime_error(args->diags, nb_session_reset(session, err), err));
        const double start = nbl_now();
        NB_TRY(nbl_runtime_error(args->diags, nb_session_run(session, err), err));
        sum += nbl_now() - start;
    }
    *each = sum / (double)n;
    return NB_OK;
}

static nb_status run_plain(nbt_args *args, nbt_measured *b, nb_session *session) {
    const nb_model *m = nb_loaded_model(b->model.program.loaded);
    nbt_phase *p = &b->phases[0];
    *p = (nbt_phase){.name = "run"};
    b->n_phases = 1;
    NB_TRY(set_inputs(args, b, session));
    size_t n = (size_t)b->rounds;
    double each, *seconds = NB_NEW_ARRAY(args->arena, double, n);
    for (int i = 0; i < 2; i++) NB_TRY(time_runs(args, session, 1, &each));
    const int64_t group = nbl_group(each);
    for (size_t i = 0; i < n; i++) NB_TRY(time_runs(args, session, group, &seconds[i]));
    p->times = nbl_times_of(seconds, n);
    if (!nbt_wants_layers(args)) return NB_OK;
    nbl_recorder r = nbl_recorder_of(args->arena, m, n);
    nbl_record(session, &r);
    for (; r.n_runs < r.max_runs; nbl_recorded(&r)) NB_TRY(time_runs(args, session, 1, &each));
    p->op_seconds = nbl_recorder_medians(args->arena, &r);
    p->symbols = copy_symbols(args->arena, m, session);
    return NB_OK;
}

/* ---- the whole ----------------------------------------------------------------------------- */

nb_status nbt_bench_model(nbt_args *args, const char *path, nbt_measured *b) {
    *b = (nbt_measured){.prompt = 128, .out = 64, .batch = 1};
    NB_TRY(nbt_integer(args, "prompt-tokens", 1, 1 << 20, &b->prompt));
    NB_TRY(nbt_integer(args, "tokens-out", 0, 1 << 20, &b->out));
    NB_TRY(nbt_integer(args, "batch", 1, 1 << 16, &b->batch));
    NB_TRY(nbt_open_model(args, path, NULL, &b->model));
    if (nbt_wants_layers(args) && !b->model.graph) {
        nb_error(args->diags, NB_USAGE, (nb_where){.file = path, .offset = -1},
                 "a compiled model cannot say how long each operation takes");
        nb_help(args->diags, "give the .onnx or .nir it was made of, with the same options");
        return NB_USAGE;
    }
    if (!b->model.threads) b->model.threads = nb_cpu_count();
    b->weights = nbt_where(&b->model.program);
    b->decoder = nbt_is_decoder(&b->model);
    b->rounds = b->decoder ? 7 : 31;
    NB_TRY(nbt_integer(args, "rounds", 1, 1000, &b->rounds));
    if (b->decoder) return run_decoder(args, b);
    nb_session *session;
    nb_error_text err;
    nb_session_options options = {.threads = b->model.threads};
    NB_TRY(nbl_runtime_error(
        args->diags, nb_session_create(b->model.program.loaded, &options, &session, err), err));
    nb_status status = run_plain(args, b, session);
    nb_session_destroy(session);
    return status;
}

void nbt_bench_close(nbt_measured *b) { nbt_close_model(&b->model); }
