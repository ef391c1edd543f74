/* nibble bench: how long a model takes: a decoder for a prompt and for each further token, others
 * for a run. Medians of several rounds; the cache starts empty in each. */
#include "tools/bench.h"

#include <stdio.h>

/* Weights read in a second, when each run reads all. */
static double gbps_of(const nbt_measured *b, const nbt_phase *p) {
    return 1e-9 * (double)b->weights.bytes / p->times.median;
}

static void print_text(nbt_args *args, const nbt_measured *b) {
    for (size_t i = 0; i < b->n_phases; i++) {
        const nbt_phase *p = &b->phases[i];
        double n = (double)p->tokens;
        if (!b->decoder)
            printf("run      %10.4f ms  (%.4f to %.4f, %lld rounds; %.1f runs/s)\n",
                   1e3 * p->times.median, 1e3 * p->times.min, 1e3 * p->times.max,
                   (long long)b->rounds, 1 / p->times.median);
        else if (i == 0)
            printf("prompt   %8.1f tokens/s  (%lld tokens, %.2f ms; logits of %s)\n",
                   n / p->times.median, (long long)p->tokens, 1e3 * p->times.median,
                   b->last_logits || b->prompt == 1 ? "the last position" : "all positions");
        else
            printf("decode   %8.1f tokens/s  (%.3f ms a token, %.3f to %.3f; %.2f GB/s)\n",
                   n / p->times.median, 1e3 * p->times.median, 1e3 * p->times.min,
                   1e3 * p->times.max, gbps_of(b, p));
    }
    printf("weights  %8.1f MB in %s\n", 1e-6 * (double)b->weights.bytes,
           nbt_where_text(args->arena, b->weights));
    if (b->kv) printf("cache    %s, %lld bytes a token\n", b->kv, (long long)b->kv_bytes);
}

/* What counts of a decoder is a further token. */
static json_t *bench_json(const nbt_measured *b) {
    const nbt_phase *first = &b->phases[0], *p = &b->phases[b->n_phases - 1];
    json_t *j =
        json_pack("{s:f, s:f, s:f, s:I, s:i, s:f, s:I, s:s, s:f, s:I}", "median_ms",
                  1e3 * p->times.median, "min_ms", 1e3 * p->times.min, "max_ms", 1e3 * p->times.max,
                  "runs", (json_int_t)b->rounds, "threads", b->model.threads, "gbps", gbps_of(b, p),
                  "bytes", (json_int_t)b->weights.bytes, "weights_in", b->weights.in, "huge_share",
                  b->weights.huge_share, "batch", (json_int_t)b->batch);
    if (!b->decoder) return j;
    json_object_update_new(j, json_pack("{s:f, s:f, s:s, s:s?, s:I}", "tokens_per_s",
                                        b->n_phases > 1 ? (double)p->tokens / p->times.median : 0,
                                        "prompt_tokens_per_s",
                                        (double)first->tokens / first->times.median, "logits",
                                        b->last_logits || b->prompt == 1 ? "last" : "all", "kv",
                                        b->kv, "kv_bytes_per_token", (json_int_t)b->kv_bytes));
    return j;
}

json_t *nbt_bench_json(nb_arena *arena, const nbt_measured *b, const nbt_limits *limits) {
    json_t *j = bench_json(b), *phases = json_object();
    for (size_t i = 0; limits && i < b->n_phases; i++) {
        nbt_layers l = nbt_layers_of(arena, b->model.graph, &b->phases[i], limits);
        json_object_set_new(phases, b->phases[i].name, nbt_layers_json(arena, &b->phases[i], &l));
    }
    if (limits) json_object_set_new(j, "limits", nbt_limits_json(limits));
    if (limits) json_object_set(j, "layers", phases);
    json_decref(phases);
    return j;
}

static nb_status report(nbt_args *args, const nbt_measured *b) {
    nbt_limits limits;
    bool layers = nbt_wants_layers(args);
    if (layers) NB_TRY(nbt_measure_limits(args, &limits));
    if (nbt_has(args, "json")) {
        nbt_print_json(nbt_bench_json(args->arena, b, layers ? &limits : NULL));
        return NB_OK;
    }
    print_text(args, b);
    if (layers) nbt_print_limits(&limits);
    for (size_t i = 0; layers && i < b->n_phases; i++) {
        nbt_layers l = nbt_layers_of(args->arena, b->model.graph, &b->phases[i], &limits);
        nbt_print_layers(args->arena, &b->phases[i], &l, nbt_has(args, "verbose"));
    }
    return NB_OK;
}

nb_status nbt_bench_report(nbt_args *args) {
    const char *in;
    nbt_measured b;
    NB_TRY(nbt_one_input(args, &in));
    nb_status status = nbt_bench_model(args, in, &b);
    if (status == NB_OK) status = report(args, &b);
    nbt_bench_close(&b);
    return status;
}

nb_status nbt_bench(nbt_args *args) {
    if (nbt_has(args, "matmul")) return nbt_bench_matmul(args);
    if (nbt_has(args, "attention")) return nbt_bench_attention(args);
    if (nbt_has(args, "limits")) return nbt_bench_limits(args);
    return nbt_bench_report(args);
}
