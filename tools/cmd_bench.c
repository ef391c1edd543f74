/* nibble bench: how long a decoder takes for a prompt and for each further token. Medians of
 * several rounds; the cache starts empty in each. */
#include "tools/lm.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define ROUNDS 7

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *v, size_t n) {
    qsort(v, n, sizeof *v, ascending);
    return v[n / 2];
}

static nb_status one_round(nbt_decoder *d, const int64_t *prompt, int64_t n, int64_t out,
                           double *prefill, double *token) {
    const float *logits;
    NB_TRY(nbt_decoder_reset(d));
    double start = now();
    NB_TRY(nbt_decoder_feed(d, prompt, 1, n, &logits));
    *prefill = now() - start;
    start = now();
    for (int64_t i = 0; i < out; i++) NB_TRY(nbt_decoder_feed(d, &prompt[i % n], 1, 1, &logits));
    *token = out ? (now() - start) / (double)out : 0;
    return NB_OK;
}

static nb_status measure(nbt_args *args, nbt_model *model, int64_t n, int64_t out) {
    nbt_decoder d;
    double prefill[ROUNDS], token[ROUNDS], warm[2];
    int64_t *prompt = NB_NEW_ARRAY(args->arena, int64_t, (size_t)n);
    for (int64_t i = 0; i < n; i++)
        prompt[i] = 32 + i * 7 % 64; /* in every vocabulary of 96 or more */
    NB_TRY(nbt_decoder_open(args, model, n + out, &d));
    nb_status status = one_round(&d, prompt, n, out, &warm[0], &warm[1]);
    for (int i = 0; i < ROUNDS && status == NB_OK; i++)
        status = one_round(&d, prompt, n, out, &prefill[i], &token[i]);
    nbt_decoder_close(&d);
    NB_TRY(status);
    double p = median(prefill, ROUNDS), t = median(token, ROUNDS);
    double bytes = (double)nb_loaded_model(model->program.loaded)->weights_size;
    if (nbt_has(args, "json")) {
        json_t *j = json_pack("{s:f, s:f, s:f, s:i, s:i, s:f, s:f, s:f, s:f}", "median_ms", 1e3 * t,
                              "min_ms", 1e3 * token[0], "max_ms", 1e3 * token[ROUNDS - 1], "runs",
                              ROUNDS, "threads", model->threads, "tokens_per_s",
                              t > 0 ? 1 / t : 0.0, "prompt_tokens_per_s", (double)n / p, "gbps",
                              t > 0 ? 1e-9 * bytes / t : 0.0, "bytes", bytes);
        char *text = json_dumps(j, JSON_REAL_PRECISION(6));
        puts(text);
        free(text);
        json_decref(j);
        return NB_OK;
    }
    printf("prompt   %8.1f tokens/s  (%lld tokens, %.2f ms)\n", (double)n / p, (long long)n,
           1e3 * p);
    if (out)
        printf("decode   %8.1f tokens/s  (%.3f ms a token, %.3f to %.3f; %.2f GB/s of %.1f MB of "
               "weights)\n",
               1 / t, 1e3 * t, 1e3 * token[0], 1e3 * token[ROUNDS - 1], 1e-9 * bytes / t,
               1e-6 * bytes);
    return NB_OK;
}

nb_status nbt_bench(nbt_args *args) {
    const char *in;
    nbt_model model;
    int64_t n = 128, out = 64;
    NB_TRY(nbt_one_input(args, &in));
    NB_TRY(nbt_integer(args, "prompt-tokens", 1, 1 << 20, &n));
    NB_TRY(nbt_integer(args, "tokens-out", 0, 1 << 20, &out));
    nb_status status = nbt_open_model(args, in, NULL, &model);
    if (status == NB_OK) status = measure(args, &model, n, out);
    nbt_close_model(&model);
    return status;
}
