/* Tokens by chance: the same for the same seed on every machine. */
#ifndef NBT_SAMPLING_H
#define NBT_SAMPLING_H

#include <stdint.h>

/* From 0 up to, not with, 1; `state` starts as a seed. */
double nbt_uniform(uint64_t *state);
/* Of the softmax of logits/temperature; at 0 the likeliest. */
int64_t nbt_choose_token(const float *logits, int vocab, double temperature, uint64_t *state);

#endif
