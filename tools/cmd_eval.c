/* nibble eval: perplexity of a language model on tokens, and with --ref how far its logits are from
 * another model's: KL divergence (of the model's distribution from the reference's) and agreement
 * of the likeliest token.
 *
 * Windows of --context tokens do not overlap and each begins with an empty cache; a window gives
 * context - 1 predictions. Standard errors treat predictions as independent. */
#include "tools/json.h"
#include "tools/lm.h"
#include "tools/tensor_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 4 /* windows in one run */

typedef struct mean {
    double sum, squares;
    size_t n;
} mean;

static void add(mean *m, double v) {
    m->sum += v;
    m->squares += v * v;
    m->n++;
}
static double value(const mean *m) { return m->n ? m->sum / (double)m->n : 0; }
static double error(const mean *m) {
    if (m->n < 2) return 0;
    double v = value(m),
           variance = (m->squares / (double)m->n - v * v) * (double)m->n / (double)(m->n - 1);
    return variance > 0 ? sqrt(variance / (double)m->n) : 0;
}

typedef struct result {
    mean loss, ref_loss, kl, top1;
    double *kls; /* every prediction's, for the percentile */
    double seconds;
} result;

/* log of the sum of exponentials, and the index of the largest. */
static double log_sum(const float *logits, int n, int *best) {
    double m = -INFINITY, sum = 0;
    *best = 0;
    for (int i = 0; i < n; i++) {
        if ((double)logits[i] > m) {
            m = (double)logits[i];
            *best = i;
        }
    }
    for (int i = 0; i < n; i++) sum += exp((double)logits[i] - m);
    return m + log(sum);
}

static void score(result *r, const float *logits, const float *ref, int vocab, int64_t next) {
    int best, ref_best;
    double z = log_sum(logits, vocab, &best);
    add(&r->loss, z - (double)logits[next]);
    if (!ref) return;
    double zr = log_sum(ref, vocab, &ref_best), kl = 0;
    for (int i = 0; i < vocab; i++)
        kl += exp((double)ref[i] - zr) * (((double)ref[i] - zr) - ((double)logits[i] - z));
    add(&r->ref_loss, zr - (double)ref[next]);
    r->kls[r->kl.n] = kl;
    add(&r->kl, kl);
    add(&r->top1, best == ref_best);
}

/* ---- running windows ------------------------------------------------------------------------ */

/* Logits of one batch of windows. Compiled models go through a session, others through the
 * evaluator. */
typedef struct runner {
    nbt_args *args;
    nbt_model model;
    nbt_decoder decoder;
    nbt_lm lm;
} runner;

static nb_status open_runner(nbt_args *args, const char *path, const char *scheme, int64_t context,
                             runner *r) {
    *r = (runner){.args = args};
    NB_TRY(nbt_open_model(args, path, scheme, &r->model));
    NB_TRY(nbt_lm_find(args, &r->model, &r->lm));
    if (r->model.interpret) return NB_OK;
    NB_TRY(nbt_decoder_open(args, &r->model, context, &r->decoder));
    r->decoder.needs_all = true;
    return NB_OK;
}

static void close_runner(runner *r) {
    nbt_decoder_close(&r->decoder);
    nbt_close_model(&r->model);
}

static nb_status run_windows(runner *r, const int64_t *tokens, int64_t batch, int64_t length,
                             nb_arena *arena, const float **logits, int *vocab) {
    if (!r->model.interpret) {
        NB_TRY(nbt_decoder_reset(&r->decoder));
        NB_TRY(nbt_decoder_feed(&r->decoder, tokens, batch, length, logits));
        *vocab = r->decoder.lm.vocab;
        return NB_OK;
    }
    nb_tensor *inputs, *outputs = NB_NEW_ARRAY(arena, nb_tensor, r->model.n_outputs + 1);
    NB_TRY(nbt_lm_inputs(r->args, r->model.graph, tokens, batch, length, arena, &inputs));
    NB_TRY(nb_eval(r->model.graph, inputs, outputs, NULL, 0, arena, r->args->diags));
    const nb_tensor *t = &outputs[r->lm.logits];
    *logits = t->data;
    return nbt_lm_vocab(r->args, &r->model, t->elem, t->rank, t->dims, batch, length, vocab);
}

static nb_status check_tokens(nbt_args *args, const int64_t *tokens, size_t n, int vocab) {
    for (size_t i = 0; i < n; i++) {
        if (tokens[i] < 0 || tokens[i] >= vocab)
            return nb_error(args->diags, NB_MALFORMED, NB_NOWHERE,
                            "token %lld is outside the vocabulary of %d", (long long)tokens[i],
                            vocab);
    }
    return NB_OK;
}

static nb_status evaluate_batch(runner *m, runner *ref, const int64_t *tokens, int64_t batch,
                                int64_t context, result *out) {
    nb_arena *arena = nb_arena_create_like(m->args->arena);
    const float *logits = NULL, *ref_logits = NULL;
    int vocab = 0, ref_vocab = 0;
    nb_status status = run_windows(m, tokens, batch, context, arena, &logits, &vocab);
    if (status == NB_OK) status = check_tokens(m->args, tokens, (size_t)(batch * context), vocab);
    if (status == NB_OK && ref)
        status = run_windows(ref, tokens, batch, context, arena, &ref_logits, &ref_vocab);
    if (status == NB_OK && ref && vocab != ref_vocab)
        status = nb_error(m->args->diags, NB_USAGE, NB_NOWHERE,
                          "the models have vocabularies of %d and %d", vocab, ref_vocab);
    for (int64_t b = 0; b < batch && status == NB_OK; b++) {
        for (int64_t i = 0; i + 1 < context; i++) {
            int64_t row = (b * context + i) * vocab;
            score(out, logits + row, ref ? ref_logits + row : NULL, vocab,
                  tokens[b * context + i + 1]);
        }
    }
    nb_arena_destroy(arena);
    return status;
}

/* ---- reporting ------------------------------------------------------------------------------ */

/* NaNs last. */
static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    if (isnan(x) || isnan(y)) return !!isnan(x) - !!isnan(y);
    return x < y ? -1 : x > y;
}

/* JSON has no infinities and no NaN. */
static json_t *number(double v) { return isfinite(v) ? json_real(v) : json_null(); }

static void report(nbt_args *args, const runner *m, bool has_ref, result *r, int64_t context) {
    double ppl = exp(value(&r->loss)), kl99 = 0;
    double bpw = m->model.graph ? nbt_measure_size(m->model.graph).bits_per_weight : 0;
    if (has_ref && r->kl.n) {
        qsort(r->kls, r->kl.n, sizeof *r->kls, ascending);
        kl99 = r->kls[(size_t)(0.99 * (double)(r->kl.n - 1))];
    }
    if (nbt_has(args, "json")) {
        json_t *j = json_pack("{s:o, s:o, s:I, s:I, s:o}", "ppl", number(ppl), "ppl_se",
                              number(ppl * error(&r->loss)), "tokens", (json_int_t)r->loss.n,
                              "context", (json_int_t)context, "bpw", number(bpw));
        if (has_ref)
            json_object_update_new(
                j, json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "ref_ppl",
                             number(exp(value(&r->ref_loss))), "kld_mean", number(value(&r->kl)),
                             "kld_se", number(error(&r->kl)), "kld_p99", number(kl99), "top1",
                             number(value(&r->top1)), "top1_se", number(error(&r->top1))));
        nbt_print_json(j);
        return;
    }
    printf("perplexity      %.4f +- %.4f  (%zu predictions, windows of %lld)\n", ppl,
           ppl * error(&r->loss), r->loss.n, (long long)context);
    if (has_ref) {
        printf("reference       %.4f\n", exp(value(&r->ref_loss)));
        printf("KL divergence   %.3e +- %.1e  (99 %%: %.3e)\n", value(&r->kl), error(&r->kl), kl99);
        printf("top-1 agreement %.2f %% +- %.2f\n", 100 * value(&r->top1), 100 * error(&r->top1));
    }
    if (bpw > 0) printf("bits per weight %.2f\n", bpw);
}

static nb_status evaluate(nbt_args *args, runner *m, runner *ref, const int64_t *tokens,
                          size_t count, int64_t context) {
    int64_t windows = (int64_t)count / context;
    if (windows == 0)
        return nb_error(args->diags, NB_USAGE, NB_NOWHERE,
                        "%zu tokens do not fill a window of %lld", count, (long long)context);
    result r = {.kls = NB_NEW_ARRAY(args->arena, double, (size_t)(windows * context))};
    for (int64_t w = 0; w < windows; w += BATCH) {
        int64_t batch = nb_min_i64(BATCH, windows - w);
        NB_TRY(evaluate_batch(m, ref, tokens + w * context, batch, context, &r));
    }
    report(args, m, ref != NULL, &r, context);
    return NB_OK;
}

nb_status nbt_eval(nbt_args *args) {
    const char *in, *tokens_path = nbt_get(args, "tokens"), *ref_path = nbt_get(args, "ref");
    int64_t context = 256, most = INT64_MAX, *tokens;
    size_t count;
    NB_TRY(nbt_one_input(args, &in));
    if (!tokens_path)
        return nb_error(args->diags, NB_USAGE, NB_NOWHERE, "expected --tokens FILE.npy");
    NB_TRY(nbt_integer(args, "context", 2, 1 << 20, &context));
    NB_TRY(nbt_integer(args, "max-tokens", 2, INT64_MAX, &most));
    NB_TRY(nbt_read_tokens(tokens_path, args->arena, args->diags, &tokens, &count));
    count = (size_t)nb_min_i64((int64_t)count, most);
    runner model = {0}, ref = {0};
    nb_status status = open_runner(args, in, NULL, context, &model);
    if (status == NB_OK && ref_path) status = open_runner(args, ref_path, "f32", context, &ref);
    if (status == NB_OK)
        status = evaluate(args, &model, ref_path ? &ref : NULL, tokens, count, context);
    close_runner(&model);
    if (ref_path) close_runner(&ref);
    return status;
}
