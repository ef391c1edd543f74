/* Tokens by chance (sampling.h). */
#include "passes/sampling.h"

#include <math.h>

/* splitmix64 */
double nb_uniform(uint64_t *state) {
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (double)((z ^ (z >> 31)) >> 11) / 9007199254740992.0;
}

int64_t nb_choose_token(const float *logits, int vocab, double temperature, uint64_t *state) {
    int best = 0;
    for (int i = 1; i < vocab; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    if (temperature <= 0) return best;
    double sum = 0;
    for (int i = 0; i < vocab; i++) sum += exp((double)(logits[i] - logits[best]) / temperature);
    double target = nb_uniform(state) * sum;
    for (int i = 0; i < vocab; i++) {
        target -= exp((double)(logits[i] - logits[best]) / temperature);
        if (target <= 0) return i;
    }
    return best;
}
