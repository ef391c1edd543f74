/* nibble generate: a decoder continues a prompt, one token at a time, with its cache as state. */
#include "passes/sampling.h"
#include "tools/lm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static nb_status read_prompt(nbt_args *args, int64_t **tokens, int64_t *n) {
    const char *text = nbt_get(args, "prompt"), *ids = nbt_get(args, "ids");
    if (!text == !ids)
        return nb_error(args->diags, NB_USAGE, NB_NOWHERE, "expected either --prompt or --ids");
    const char *source = text ? text : ids;
    *tokens = NB_NEW_ARRAY(args->arena, int64_t, strlen(source) + 1);
    *n = 0;
    if (text) {
        for (const char *c = text; *c; c++) (*tokens)[(*n)++] = (unsigned char)*c;
    } else {
        for (const char *c = ids; *c;) {
            char *end;
            (*tokens)[(*n)++] = strtoll(c, &end, 10);
            if (end == c || (*end && *end != ','))
                return nb_error(args->diags, NB_USAGE, NB_NOWHERE,
                                "--ids takes numbers separated by commas, found '%s'", ids);
            c = *end ? end + 1 : end;
        }
    }
    return *n ? NB_OK : nb_error(args->diags, NB_USAGE, NB_NOWHERE, "the prompt is empty");
}

static void print_token(int64_t token, bool as_text) {
    if (as_text)
        putchar((int)token);
    else
        printf("%lld ", (long long)token);
    fflush(stdout);
}

typedef struct settings {
    int64_t count, seed;
    double temperature;
    bool as_text;
} settings;

static nb_status generate(nbt_args *args, nbt_model *model, const settings *s,
                          const int64_t *prompt, int64_t n) {
    nbt_decoder d;
    const float *logits;
    NB_TRY(nbt_decoder_open(args, model, 0, &d));
    double start = now();
    nb_status status = nbt_decoder_feed(&d, prompt, 1, n, &logits);
    double prefill = now() - start;
    if (status == NB_OK && s->as_text && d.lm.vocab != 256)
        status = nb_error(args->diags, NB_UNSUPPORTED, NB_NOWHERE,
                          "--prompt takes text for a vocabulary of 256 bytes, this model has %d "
                          "tokens; use --ids",
                          d.lm.vocab);
    uint64_t state = (uint64_t)s->seed;
    for (int64_t i = 0; status == NB_OK && i < n; i++) print_token(prompt[i], s->as_text);
    start = now();
    int64_t made = 0;
    for (; status == NB_OK && made < s->count; made++) {
        const float *last = logits + (d.rows - 1) * d.lm.vocab;
        int64_t token = nb_choose_token(last, d.lm.vocab, s->temperature, &state);
        print_token(token, s->as_text);
        status = nbt_decoder_feed(&d, &token, 1, 1, &logits);
    }
    double decode = now() - start;
    printf("\n");
    if (status == NB_OK && !nbt_has(args, "quiet"))
        fprintf(stderr, "prompt %.0f tokens/s, generated %.0f tokens/s\n", (double)n / prefill,
                (double)made / decode);
    nbt_decoder_close(&d);
    return status;
}

nb_status nbt_generate(nbt_args *args) {
    const char *in;
    nbt_model model;
    settings s = {.count = 200, .seed = 1, .temperature = 0.8, .as_text = nbt_has(args, "prompt")};
    int64_t *prompt = NULL, n = 0;
    NB_TRY(nbt_one_input(args, &in));
    NB_TRY(read_prompt(args, &prompt, &n));
    NB_TRY(nbt_integer(args, "tokens-out", 1, 1 << 24, &s.count));
    NB_TRY(nbt_integer(args, "seed", 0, INT64_MAX, &s.seed));
    NB_TRY(nbt_number(args, "temperature", 0, 100, &s.temperature));
    nb_status status = nbt_open_model(args, in, NULL, &model);
    if (status == NB_OK) status = generate(args, &model, &s, prompt, n);
    nbt_close_model(&model);
    return status;
}
