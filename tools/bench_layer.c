/* What the measurements of single layers share: random numbers, cold copies, rounds. */
#include "tools/bench.h"

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

nb_status nbt_time_runs(nbt_args *args, nb_session *session, int copies, nbl_times *out) {
    nb_error_text err;
    double seconds[ROUNDS], begin = nbl_now();
    size_t n = 0;
    while (n < ROUNDS && (n < 3 || nbl_now() - begin < SECONDS)) {
        double start = nbl_now();
        NB_TRY(nbl_runtime_error(args->diags, nb_session_run(session, err), err));
        seconds[n++] = (nbl_now() - start) / copies;
    }
    *out = nbl_times_of(seconds, n);
    return NB_OK;
}
