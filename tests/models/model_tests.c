/* Whole decoders: every scheme and type of cache compiled is the evaluator to the bit, and a row's
 * result does not depend on how it was computed: prompt split into pieces, cache, rewound or
 * restored, batch with left padding, shuffled positions, threads, CPU.
 *
 * voice.c has a recurrent model with control flow.
 *
 * The sample model is always there; the decoders of the optional data directory are used when it
 * is. */
#include "ir/eval.h"
#include "passes/linear.h"
#include "passes/presets.h"
#include "tests/models/compiled.h"
#include "tests/support/test_data.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH 23 /* tokens of a prompt: no multiple of anything */

static int passed, failed, skipped;

static void verdict(bool ok, const char *model, const char *scheme, const char *what) {
    if (ok)
        passed++;
    else
        failed++;
    if (!ok) printf("FAILED %s %s: %s\n", model, scheme, what);
}

/* What a model is compiled to. */
typedef struct variant {
    const char *scheme, *kv; /* kv: NULL for the type the model has */
    const char *rotate;      /* options of the pass, or NULL */
} variant;

static bool plan(compiled *c, const char *path, const variant *v) {
    nb_preset_options options = {.group = -1, .kv = v->kv};
    nb_arena *arena = nb_arena_create(NULL, NULL);
    const char *passes = nb_preset(v->scheme, &options, arena);
    if (v->rotate)
        passes = nb_format(arena, "simplify, raise, simplify, rotate{%s}, %s", v->rotate, passes);
    const bool ok = compiled_plan(c, path, passes);
    nb_arena_destroy(arena);
    return ok;
}

/* ---- running -------------------------------------------------------------------------------- */

/* A piece of work for a session: `n` columns of each of `batch` rows, behind `past` columns. */
typedef struct piece {
    int64_t batch, n, past;
    const int64_t *tokens, *positions; /* [batch][n] */
    const int64_t *mask;               /* [batch][past + n] */
} piece;

/* Appends the logits to `out`, row by row: out[b] gets n * vocab floats at its end. */
static bool run_piece(const compiled *c, nb_session *s, const piece *p, float **out,
                      int64_t *vocab) {
    int64_t dims[2] = {p->batch, p->n}, wide[2] = {p->batch, p->past + p->n},
            shape[NB_MODEL_MAX_RANK];
    nb_error_text err;
    bool ok = nb_session_set_input(s, c->tokens, p->tokens, dims, err) == NB_RT_OK;
    if (ok && c->mask >= 0) ok = nb_session_set_input(s, c->mask, p->mask, wide, err) == NB_RT_OK;
    if (ok && c->positions >= 0)
        ok = nb_session_set_input(s, c->positions, p->positions, dims, err) == NB_RT_OK;
    if (ok) ok = nb_session_run(s, err) == NB_RT_OK;
    const float *logits =
        ok ? nb_session_output(s, nb_find_output(c->model, "logits"), shape) : NULL;
    if (!logits) {
        printf("%s\n", err);
        return false;
    }
    *vocab = shape[2];
    for (int64_t b = 0; b < p->batch; b++) {
        memcpy(out[b] + p->past * shape[2], logits + b * p->n * shape[2],
               (size_t)(p->n * shape[2]) * sizeof(float));
    }
    return true;
}

static nb_session *open_session(const compiled *c, int threads) {
    nb_session *s = NULL;
    nb_error_text err;
    nb_session_options options = {.threads = threads};
    if (nb_session_create(c->loaded, &options, &s, err) != NB_RT_OK) printf("%s\n", err);
    return s;
}

/* One row alone, in pieces that end at `cuts` (0-terminated ascending, the last piece to the end).
 */
static bool run_row(const compiled *c, int threads, const int64_t *tokens, const int64_t *positions,
                    int64_t n, const int64_t *cuts, float *logits, int64_t *vocab) {
    nb_session *s = open_session(c, threads);
    int64_t ones[LENGTH + 16];
    bool ok = s != NULL;
    for (int64_t i = 0; i < n; i++) ones[i] = 1;
    for (int64_t from = 0; ok && from < n;) {
        int64_t to = *cuts ? *cuts++ : n;
        piece p = {1, to - from, from, tokens + from, positions + from, ones};
        ok = run_piece(c, s, &p, &logits, vocab);
        from = to;
    }
    nb_session_destroy(s);
    return ok;
}

/* ---- the checks ----------------------------------------------------------------------------- */

static bool same(const float *a, const float *b, int64_t n) {
    return memcmp(a, b, (size_t)n * sizeof *a) == 0;
}

/* The evaluator on the planned graph. */
static bool evaluate(compiled *c, const int64_t *tokens, const int64_t *positions, float *logits) {
    const nb_graph *g = c->graph;
    nb_tensor *in = NB_NEW_ARRAY(c->arena, nb_tensor, g->body.n_params),
              *out = NB_NEW_ARRAY(c->arena, nb_tensor, g->outputs.count);
    int64_t ones[LENGTH];
    for (int i = 0; i < LENGTH; i++) ones[i] = 1;
    for (uint32_t i = 0; i < g->body.n_params; i++) {
        const nb_type *t = g->body.params[i]->type;
        in[i] = (nb_tensor){.elem = t->elem, .rank = t->rank, .data = nb_alloc(c->arena, 8)};
        for (int d = 0; d < t->rank; d++)
            in[i].dims[d] = nb_dim_is_const(t->dims[d]) ? t->dims[d]->value
                            : t->rank == 2              ? (d ? LENGTH : 1)
                                                        : d == 0;
        if (t->rank != 2) continue;
        const int64_t *from = (int)i == c->mask        ? ones
                              : (int)i == c->positions ? positions
                                                       : tokens;
        in[i].data = (void *)(uintptr_t)from;
        in[i].bytes = LENGTH * 8;
    }
    if (nb_eval(g, in, out, NULL, 0, c->arena, c->diags) != NB_OK) return false;
    memcpy(logits, out[0].data, (size_t)out[0].bytes);
    return true;
}

typedef struct fixture {
    int64_t tokens[2][LENGTH], straight[LENGTH], shuffled[LENGTH];
    float *expected, *got, *other; /* LENGTH * vocab each */
    int64_t vocab;
} fixture;

static uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static fixture make_fixture(void) {
    fixture f = {.vocab = 0};
    uint32_t state = 7;
    for (int i = 0; i < LENGTH; i++) {
        f.tokens[0][i] = 32 + next_random(&state) % 90;
        f.tokens[1][i] = 32 + next_random(&state) % 90;
        f.straight[i] = f.shuffled[i] = i;
    }
    for (int i = LENGTH - 1; i > 0; i--) {
        int k = (int)(next_random(&state) % (uint32_t)(i + 1));
        int64_t t = f.shuffled[i];
        f.shuffled[i] = f.shuffled[k];
        f.shuffled[k] = t;
    }
    size_t size = (size_t)LENGTH * 65536;
    f.expected = malloc(size * sizeof(float));
    f.got = malloc(size * sizeof(float));
    f.other = malloc(size * sizeof(float));
    return f;
}

static const int64_t whole[] = {0};

static void check_splits(const compiled *c, fixture *f, const char *model, const char *scheme) {
    static const int64_t cuts[][8] = {{1, 2, 3, 0}, {22, 0}, {7, 8, 19, 0}, {11, 0}};
    for (size_t i = 0; i < NB_COUNT(cuts); i++) {
        bool ok = run_row(c, 1, f->tokens[0], f->straight, LENGTH, cuts[i], f->got, &f->vocab);
        verdict(ok && same(f->got, f->expected, LENGTH * f->vocab), model, scheme,
                "a prompt split into pieces gives other bits");
    }
    bool ok = run_row(c, 2, f->tokens[0], f->straight, LENGTH, cuts[2], f->got, &f->vocab);
    verdict(ok && same(f->got, f->expected, LENGTH * f->vocab), model, scheme,
            "two threads give other bits");
}

/* Rows of lengths LENGTH and LENGTH - 5, the second padded on the left; the last two columns
 * decoded. */
static void check_padding(const compiled *c, fixture *f, const char *model, const char *scheme) {
    enum { PAD = 5, HEAD = LENGTH - 2 };
    int64_t tokens[2][LENGTH], positions[2][LENGTH], mask[2][LENGTH], part[3][2][LENGTH];
    for (int i = 0; i < LENGTH; i++) {
        tokens[0][i] = f->tokens[0][i];
        positions[0][i] = i;
        mask[0][i] = 1;
        tokens[1][i] = i < PAD ? 0 : f->tokens[1][i - PAD];
        positions[1][i] = i < PAD ? 0 : i - PAD;
        mask[1][i] = i >= PAD;
    }
    nb_session *s = open_session(c, 2);
    float *out[2] = {f->got, f->other};
    bool ok = s != NULL;
    for (int64_t from = 0; ok && from < LENGTH;) {
        int64_t to = from == 0 ? HEAD : from + 1, n = to - from;
        int64_t *t = part[0][0], *p = part[1][0], *m = part[2][0];
        for (int b = 0; b < 2; b++) {
            memcpy(t + b * n, tokens[b] + from, (size_t)n * 8);
            memcpy(p + b * n, positions[b] + from, (size_t)n * 8);
            memcpy(m + b * to, mask[b], (size_t)to * 8);
        }
        piece work = {2, n, from, t, p, m};
        ok = run_piece(c, s, &work, out, &f->vocab);
        from = to;
    }
    nb_session_destroy(s);
    verdict(ok && same(f->got, f->expected, LENGTH * f->vocab), model, scheme,
            "a row beside a padded one gives other bits");
    float *alone = f->got;
    ok = ok && run_row(c, 1, f->tokens[1], f->straight, LENGTH - PAD, whole, alone, &f->vocab);
    verdict(ok && same(alone, f->other + PAD * f->vocab, (LENGTH - PAD) * f->vocab), model, scheme,
            "a left-padded row gives other bits than alone");
}

static void check_shuffled(compiled *c, fixture *f, const char *model, const char *scheme) {
    int64_t cuts[] = {9, 0};
    bool ok = evaluate(c, f->tokens[0], f->shuffled, f->other) &&
              run_row(c, 1, f->tokens[0], f->shuffled, LENGTH, cuts, f->got, &f->vocab);
    verdict(ok && same(f->got, f->other, LENGTH * f->vocab), model, scheme,
            "shuffled position_ids give other bits than the evaluator");
}

/* Every matmul by a constant matrix became a qmatmul, and every embedding a qgather. */
static void check_quantized(const compiled *c, const char *model, const char *scheme) {
    size_t linear = 0, floats = 0;
    for (const nb_op *op = c->graph->body.first; op; op = op->next) {
        if (!nb_linear_weight(op)) continue;
        linear++;
        floats += op->kind != NB_OP_qmatmul;
    }
    verdict(linear > 0 && (strcmp(scheme, "f32") == 0 || floats == 0), model, scheme,
            "a linear layer stayed in float");
}

/* All caches are of the type asked for, and appended to in place. */
static void check_cache(const compiled *c, const variant *v, const char *model, const char *name) {
    size_t wrong = 0, typed = 0;
    bool packed = strcmp(v->kv, "i4") == 0; /* two to a byte */
    for (uint32_t i = 0; i < c->model->n_states; i++) {
        const nb_model_state *s = &c->model->states[i];
        const char *elem = nb_elems[nb_elem_from_onnx(c->model->inputs[s->input].elem)].text;
        wrong += !s->appended || c->model->outputs[s->output].state != (int32_t)i;
        typed += strcmp(elem, packed ? "u8" : v->kv) == 0;
    }
    verdict(!wrong && typed > 0, model, name, "a cache is not what was asked for");
}

/* Back from LENGTH entries to some, by rewinding and from what was saved, and on from there. */
static void check_return(const compiled *c, fixture *f, const char *model, const char *scheme) {
    enum { FROM = 9 };
    int64_t ones[LENGTH];
    for (int i = 0; i < LENGTH; i++) ones[i] = 1;
    piece head = {1, FROM, 0, f->tokens[0], f->straight, ones},
          other = {1, LENGTH - FROM, FROM, f->tokens[1], f->straight + FROM, ones},
          tail = {1, LENGTH - FROM, FROM, f->tokens[0] + FROM, f->straight + FROM, ones};
    nb_session *s = open_session(c, 1), *fresh = open_session(c, 1);
    float *got[] = {f->got}, *away[] = {f->other};
    bool ok = s && fresh && run_piece(c, s, &head, got, &f->vocab);
    size_t size = ok ? nb_session_state_size(s) : 0;
    unsigned char *saved = malloc(size + 1);
    ok = ok && nb_session_save(s, saved, size, NULL) == NB_RT_OK &&
         run_piece(c, s, &other, away, &f->vocab) && nb_session_rewind(s, FROM, NULL) == NB_RT_OK &&
         run_piece(c, s, &tail, got, &f->vocab);
    verdict(ok && same(f->got, f->expected, LENGTH * f->vocab), model, scheme,
            "a cache that was rewound gives other bits");
    nb_session *both[] = {s, fresh};
    for (int i = 0; i < 2; i++) {
        memset(f->got + FROM * f->vocab, 0, (size_t)((LENGTH - FROM) * f->vocab) * sizeof(float));
        ok = ok && nb_session_restore(both[i], saved, size, NULL) == NB_RT_OK &&
             run_piece(c, both[i], &tail, got, &f->vocab);
        verdict(ok && same(f->got, f->expected, LENGTH * f->vocab), model, scheme,
                "a cache that was restored gives other bits");
    }
    free(saved);
    nb_session_destroy(fresh);
    nb_session_destroy(s);
}

static void check_variant(const char *path, const char *model, const variant *v, fixture *f) {
    compiled c = {0};
    char scheme[64];
    snprintf(scheme, sizeof scheme, "%s%s%s%s", v->scheme, v->kv ? " with a cache of " : "",
             v->kv ? v->kv : "", v->rotate ? " rotated" : "");
    bool ok = plan(&c, path, v) && compiled_load(&c, "native");
    if (ok) {
        check_quantized(&c, model, v->scheme);
        if (v->kv) check_cache(&c, v, model, scheme);
        ok = evaluate(&c, f->tokens[0], f->straight, f->expected) &&
             run_row(&c, 1, f->tokens[0], f->straight, LENGTH, whole, f->got, &f->vocab);
        verdict(ok && same(f->got, f->expected, LENGTH * f->vocab), model, scheme,
                "compiled code gives other bits than the evaluator");
        check_splits(&c, f, model, scheme);
        if (v->kv) check_return(&c, f, model, scheme);
        if (c.mask >= 0 && c.positions >= 0 && !strstr(model, "rope"))
            check_padding(&c, f, model, scheme);
        if (c.positions >= 0) check_shuffled(&c, f, model, scheme);
        compiled_unload(&c);
        ok = compiled_load(&c, "generic") &&
             run_row(&c, 1, f->tokens[0], f->straight, LENGTH, whole, f->got, &f->vocab);
        verdict(ok && same(f->got, f->expected, LENGTH * f->vocab), model, scheme,
                "generic code gives other bits");
    } else {
        compiled_complain(&c);
        verdict(false, model, scheme, "does not compile");
    }
    compiled_discard(&c);
}

int main(int argc, char **argv) {
    static const variant variants[] = {{"f32", NULL, NULL},    {"w8a16", NULL, NULL},
                                       {"w8a8", NULL, NULL},   {"w4a16", NULL, NULL},
                                       {"w4a8", NULL, NULL},   {"f32", "f16", NULL},
                                       {"w4a8", "bf16", NULL}, {"f32", "i8", NULL},
                                       {"w4a8", "i8", NULL},   {"w8a8", "i8", "gated=4, queries"},
                                       {"f32", "i4", NULL},    {"w4a8", "i4", NULL}};
    static const char *const models[] = {
        "stories260K.plain-op17", "stories260K.nomask",   "stories260K.ort-rope",
        "stories260K.ort-gqa",    "stories260K.packed",   "stories260K.plain-op13",
        "stories260K.plain-op18", "stories260K.outliers", "stories260K.ext/model",
        "books3m.plain",          "books3m.ort-gqa",      "books3m.outliers"};
    fixture f = make_fixture();
    for (size_t i = 0; i < NB_COUNT(variants); i++)
        check_variant("tests/models/sample/sample.onnx", "sample", &variants[i], &f);
    for (size_t i = 0; i < NB_COUNT(models); i++) {
        char name[128];
        snprintf(name, sizeof name, "llm/%s.onnx", models[i]);
        char *path = nb_test_data(name);
        if (!path) {
            printf("skipped %s: the optional data directory is not there\n", models[i]);
            skipped++;
            continue;
        }
        if (argc < 2 || strstr(models[i], argv[1])) {
            for (size_t k = 0; k < NB_COUNT(variants); k++)
                check_variant(path, models[i], &variants[k], &f);
        }
        free(path);
    }
    free(f.expected);
    free(f.got);
    free(f.other);
    if (argc < 2 || strstr("voice", argv[1])) test_voice(verdict, &skipped);
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    return failed != 0;
}
