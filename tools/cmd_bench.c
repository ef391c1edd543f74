/* nibble bench: how long a decoder takes for a prompt and for each further token. Medians of
 * several rounds; the cache starts empty in each. */
#include "tools/bench.h"
#include "tools/json.h"
#include "tools/lm.h"
#include "tools/timing.h"

#include <stdio.h>

static nb_status one_round(nbt_decoder *d, const int64_t *prompt, int64_t n, int64_t out,
                           double *prefill, double *token) {
    const float *logits;
    NB_TRY(nbt_decoder_reset(d));
    double start = nbt_now();
    NB_TRY(nbt_decoder_feed(d, prompt, 1, n, &logits));
    *prefill = nbt_now() - start;
    start = nbt_now();
    for (int64_t i = 0; i < out; i++) NB_TRY(nbt_decoder_feed(d, &prompt[i % n], 1, 1, &logits));
    *token = out ? (nbt_now() - start) / (double)out : 0;
    return NB_OK;
}

static nb_status measure(nbt_args *args, nbt_model *model, int64_t n, int64_t out) {
    nbt_decoder d;
    int64_t rounds = 7;
    double warm[2];
    NB_TRY(nbt_integer(args, "rounds", 1, 1000, &rounds));
    double *prefill = NB_NEW_ARRAY(args->arena, double, (size_t)rounds),
           *token = NB_NEW_ARRAY(args->arena, double, (size_t)rounds);
    int64_t *prompt = NB_NEW_ARRAY(args->arena, int64_t, (size_t)n);
    for (int64_t i = 0; i < n; i++)
        prompt[i] = 32 + i * 7 % 64; /* in every vocabulary of 96 or more */
    NB_TRY(nbt_decoder_open(args, model, n + out, &d));
    nb_status status = one_round(&d, prompt, n, out, &warm[0], &warm[1]);
    for (int64_t i = 0; i < rounds && status == NB_OK; i++)
        status = one_round(&d, prompt, n, out, &prefill[i], &token[i]);
    nbt_decoder_close(&d);
    NB_TRY(status);
    nbt_times p = nbt_times_of(prefill, (size_t)rounds), t = nbt_times_of(token, (size_t)rounds);
    double bytes = (double)nb_loaded_model(model->program.loaded)->weights_size,
           per_second = out ? 1 / t.median : 0;
    if (nbt_has(args, "json")) {
        nbt_print_json(
            json_pack("{s:f, s:f, s:f, s:I, s:i, s:f, s:f, s:f, s:f}", "median_ms", 1e3 * t.median,
                      "min_ms", 1e3 * t.min, "max_ms", 1e3 * t.max, "runs", (json_int_t)rounds,
                      "threads", model->threads, "tokens_per_s", per_second, "prompt_tokens_per_s",
                      (double)n / p.median, "gbps", 1e-9 * bytes * per_second, "bytes", bytes));
        return NB_OK;
    }
    printf("prompt   %8.1f tokens/s  (%lld tokens, %.2f ms)\n", (double)n / p.median, (long long)n,
           1e3 * p.median);
    if (out)
        printf("decode   %8.1f tokens/s  (%.3f ms a token, %.3f to %.3f; %.2f GB/s of %.1f MB of "
               "weights)\n",
               per_second, 1e3 * t.median, 1e3 * t.min, 1e3 * t.max, 1e-9 * bytes * per_second,
               1e-6 * bytes);
    return NB_OK;
}

nb_status nbt_bench(nbt_args *args) {
    const char *in;
    nbt_model model;
    int64_t n = 128, out = 64;
    if (nbt_has(args, "limits")) return nbt_bench_limits(args);
    if (nbt_has(args, "matmul")) return nbt_bench_matmul(args);
    if (nbt_has(args, "attention")) return nbt_bench_attention(args);
    NB_TRY(nbt_one_input(args, &in));
    NB_TRY(nbt_integer(args, "prompt-tokens", 1, 1 << 20, &n));
    NB_TRY(nbt_integer(args, "tokens-out", 0, 1 << 20, &out));
    nb_status status = nbt_open_model(args, in, NULL, &model);
    if (status == NB_OK) status = measure(args, &model, n, out);
    nbt_close_model(&model);
    return status;
}
