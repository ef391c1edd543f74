/* What the measurements of single layers share: random numbers, cold copies, rounds. */
#include "tools/bench.h"

#include <math.h>
#include <stdio.h>

#define ROUNDS    31
#define SECONDS   4.0 /* no further round begins after that */
#define MAX_BYTES (INT64_C(1) << 30)

uint64_t nbt_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

void nbt_random_floats(float *out, int64_t n, float low, float high, uint64_t *state) {
    for (int64_t i = 0; i < n; i++)
        out[i] = low + (high - low) * (float)(nbt_random(state) >> 40) / 16777216.0f;
}

/* Bytes of the largest cache that a processor sees, or 0: sysconf tells that of all processors of a
 * socket together. */
static int64_t largest_cache(void) {
    long long kib = 0, largest = 0;
    char path[64];
    for (int i = 0; i < 8; i++) {
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", i);
        FILE *f = fopen(path, "r");
        if (!f) break;
        if (fscanf(f, "%lldK", &kib) == 1 && kib > largest) largest = kib;
        fclose(f);
    }
    return largest * 1024;
}

int nbt_cold_copies(int64_t bytes) {
    int64_t cache = largest_cache(),
            want = nb_min_i64(MAX_BYTES, nb_max_i64(MAX_BYTES / 4, 3 * cache));
    return (int)nb_min_i64(256, nb_ceildiv(want, nb_max_i64(1, bytes)));
}

/* What the machine does now of such work. */
static double limit_now(nbt_limiter *l, nb_limit_kind kind) {
    double rate = 0;
    for (nb_limit_kind k = kind; k < (kind == NB_LIMIT_READ ? NB_LIMIT_COUNT : kind + 1); k++)
        rate = fmax(rate, nbt_limiter_round(l, k));
    return rate;
}

static nb_status time_runs(nbt_args *args, nb_session *session, int copies, nbt_work work,
                           nbt_limiter *beside, nbt_paced *out) {
    nb_error_text err;
    double seconds[ROUNDS], limits[ROUNDS], of_limits[ROUNDS], begin = nbl_now();
    const double longest = beside ? 2 * SECONDS : SECONDS;
    size_t n = 0;
    if (beside) limit_now(beside, work.kind);
    for (; n < ROUNDS && (n < 3 || nbl_now() - begin < longest); n++) {
        double start = nbl_now();
        NB_TRY(nbl_runtime_error(args->diags, nb_session_run(session, err), err));
        seconds[n] = (nbl_now() - start) / copies;
        limits[n] = beside ? limit_now(beside, work.kind) : 0;
        of_limits[n] = beside ? work.amount / seconds[n] / limits[n] : 0;
    }
    *out = (nbt_paced){nbl_times_of(seconds, n), nbl_times_of(limits, n).median,
                       nbl_times_of(of_limits, n).median};
    return NB_OK;
}

nb_status nbt_time_runs(nbt_args *args, nb_session *session, int copies, nbt_work work,
                        nbt_paced *out) {
    nbt_limiter *beside = NULL;
    nb_status status = nbt_has(args, "limits") ? nbt_limiter_open(args, &beside) : NB_OK;
    if (status == NB_OK) status = time_runs(args, session, copies, work, beside, out);
    nbt_limiter_close(beside);
    return status;
}

/* Its name in the JSON of the limits, and in words. */
static const struct {
    const char *key, *unit;
} limit_names[NB_LIMIT_COUNT] = {
    [NB_LIMIT_DOT] = {"dot_gop_s", "GOP/s of dot products"},
    [NB_LIMIT_DOT_SMALL] = {"dot_small_gop_s", "GOP/s of dot products"},
    [NB_LIMIT_FMA] = {"fma_gflop_s", "GFLOP/s"},
    [NB_LIMIT_READ] = {"read_gb_s", "GB/s of memory"},
};

void nbt_add_paced(json_t *j, nbt_work work, const nbt_paced *p) {
    if (p->limit <= 0) return;
    json_object_update_new(j, json_pack("{s:s, s:f, s:f}", "limit", limit_names[work.kind].key,
                                        "limit_rate", 1e-9 * p->limit, "of_limit", p->of_limit));
}

const char *nbt_paced_text(nb_arena *arena, nbt_work work, const nbt_paced *p) {
    if (p->limit <= 0) return "";
    return nb_format(arena, "; %.3f of %.1f %s in turn", p->of_limit, 1e-9 * p->limit,
                     limit_names[work.kind].unit);
}
