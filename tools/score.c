/* Perplexity and KL divergence of language models (score.h). Standard errors treat predictions as
 * independent. */
#include "tools/score.h"

#include "tools/tensor_file.h"

#include <math.h>
#include <stdlib.h>

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
    mean loss, ref_loss, rise, kl, top1; /* rise: of the loss, prediction by prediction */
    double *kls;                         /* every prediction's, for the percentile */
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
    const double z = log_sum(logits, vocab, &best), loss = z - (double)logits[next];
    add(&r->loss, loss);
    if (!ref) return;
    double zr = log_sum(ref, vocab, &ref_best), kl = 0;
    for (int i = 0; i < vocab; i++)
        kl += exp((double)ref[i] - zr) * (((double)ref[i] - zr) - ((double)logits[i] - z));
    const double ref_loss = zr - (double)ref[next];
    add(&r->ref_loss, ref_loss);
    add(&r->rise, loss - ref_loss);
    r->kls[r->kl.n] = kl;
    add(&r->kl, kl);
    add(&r->top1, best == ref_best);
}

/* ---- running windows ------------------------------------------------------------------------ */

/* Logits of one batch of windows. Compiled models go through a session, others through the
 * evaluator. */
typedef struct runner {
    nbt_args *args;
    nbt_model *model;
    nbt_decoder decoder;
    nbt_lm lm;
} runner;

static nb_status open_runner(nbt_args *args, nbt_model *model, int64_t context, runner *r) {
    *r = (runner){.args = args, .model = model};
    NB_TRY(nbt_lm_find(args, model, &r->lm));
    if (model->interpret) return NB_OK;
    NB_TRY(nbt_decoder_open(args, model, context, &r->decoder));
    r->decoder.needs_all = true;
    return NB_OK;
}

static nb_status run_windows(runner *r, const int64_t *tokens, int64_t batch, int64_t length,
                             nb_arena *arena, const float **logits, int *vocab) {
    if (!r->model->interpret) {
        NB_TRY(nbt_decoder_reset(&r->decoder));
        NB_TRY(nbt_decoder_feed(&r->decoder, tokens, batch, length, logits));
        *vocab = r->decoder.lm.vocab;
        return NB_OK;
    }
    nb_tensor *inputs, *outputs = NB_NEW_ARRAY(arena, nb_tensor, r->model->n_outputs + 1);
    NB_TRY(
        nb_window_inputs(r->model->graph, tokens, batch, length, arena, r->args->diags, &inputs));
    NB_TRY(nb_eval(r->model->graph, inputs, outputs, NULL, 0, arena, r->args->diags));
    const nb_tensor *t = &outputs[r->lm.logits];
    *logits = t->data;
    return nbt_lm_vocab(r->args, r->model, t->elem, t->rank, t->dims, batch, length, vocab);
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

/* ---- the whole ------------------------------------------------------------------------------ */

/* NaNs last. */
static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    if (isnan(x) || isnan(y)) return !!isnan(x) - !!isnan(y);
    return x < y ? -1 : x > y;
}

static void summarize(result *r, bool has_ref, nbt_scores *out) {
    const double ppl = exp(value(&r->loss));
    out->ppl = ppl;
    out->ppl_se = ppl * error(&r->loss);
    out->predictions = r->loss.n;
    out->has_ref = has_ref;
    if (!has_ref || !r->kl.n) return;
    qsort(r->kls, r->kl.n, sizeof *r->kls, ascending);
    out->ref_ppl = exp(value(&r->ref_loss));
    out->rise = exp(value(&r->rise)) - 1;
    out->rise_se = (1 + out->rise) * error(&r->rise);
    out->kld_mean = value(&r->kl);
    out->kld_se = error(&r->kl);
    out->kld_p99 = r->kls[(size_t)(0.99 * (double)(r->kl.n - 1))];
    out->top1 = value(&r->top1);
    out->top1_se = error(&r->top1);
}

static nb_status evaluate(nbt_args *args, runner *m, runner *ref, const int64_t *tokens,
                          size_t count, nbt_scores *out) {
    const int64_t context = out->context, windows = (int64_t)count / context;
    if (windows == 0)
        return nb_error(args->diags, NB_USAGE, NB_NOWHERE,
                        "%zu tokens do not fill a window of %lld", count, (long long)context);
    result r = {.kls = NB_NEW_ARRAY(args->arena, double, (size_t)(windows * context))};
    for (int64_t w = 0; w < windows; w += BATCH) {
        int64_t batch = nb_min_i64(BATCH, windows - w);
        NB_TRY(evaluate_batch(m, ref, tokens + w * context, batch, context, &r));
    }
    summarize(&r, ref != NULL, out);
    return NB_OK;
}

nb_status nbt_score(nbt_args *args, nbt_model *model, nbt_model *ref, nbt_scores *out) {
    const char *path = nbt_get(args, "tokens");
    int64_t most = INT64_MAX, *tokens;
    size_t count;
    *out = (nbt_scores){.context = 256};
    NB_TRY(nbt_integer(args, "context", 2, 1 << 20, &out->context));
    NB_TRY(nbt_integer(args, "max-tokens", 2, INT64_MAX, &most));
    NB_TRY(nbt_read_tokens(path, args->arena, args->diags, &tokens, &count));
    count = (size_t)nb_min_i64((int64_t)count, most);
    runner m = {0}, other = {0};
    nb_status status = open_runner(args, model, out->context, &m);
    if (status == NB_OK && ref) status = open_runner(args, ref, out->context, &other);
    if (status == NB_OK) status = evaluate(args, &m, ref ? &other : NULL, tokens, count, out);
    nbt_decoder_close(&m.decoder);
    nbt_decoder_close(&other.decoder);
    return status;
}

json_t *nbt_scores_json(const nbt_scores *s, const nbt_size *size) {
    json_t *j =
        json_pack("{s:o, s:o, s:I, s:I, s:o, s:o}", "ppl", nbt_json_number(s->ppl), "ppl_se",
                  nbt_json_number(s->ppl_se), "tokens", (json_int_t)s->predictions, "context",
                  (json_int_t)s->context, "bpw", nbt_json_number(size->bits_per_weight),
                  "linear_bpw", nbt_json_number(size->linear_bits));
    if (s->has_ref)
        json_object_update_new(
            j,
            json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "ref_ppl",
                      nbt_json_number(s->ref_ppl), "rise", nbt_json_number(s->rise), "rise_se",
                      nbt_json_number(s->rise_se), "kld_mean", nbt_json_number(s->kld_mean),
                      "kld_se", nbt_json_number(s->kld_se), "kld_p99", nbt_json_number(s->kld_p99),
                      "top1", nbt_json_number(s->top1), "top1_se", nbt_json_number(s->top1_se)));
    return j;
}
