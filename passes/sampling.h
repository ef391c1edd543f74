/* Tokens by chance: the same for the same seed on every machine. */
#ifndef NB_PASSES_SAMPLING_H
#define NB_PASSES_SAMPLING_H

#include <stdint.h>

/* From 0 up to, not with, 1; `state` starts as a seed. */
double nb_uniform(uint64_t *state);
/* Of the softmax of logits/temperature; at 0 the likeliest. */
int64_t nb_choose_token(const float *logits, int vocab, double temperature, uint64_t *state);

#endif
