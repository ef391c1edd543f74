/* A model written by hand, in the form the compiler emits, for the tests of the runtime.
 *
 * inputs   x: f32[B,T]   index: i64[]   past: f32[B,2,P,3] (appended)   h: f32[B,2] (plain)
 * outputs  y: f32[B]     present: f32[B,2,P+T,3]                        h.out: f32[B,2]
 * Behind the past, entry t of channel c becomes (c + 1) * x[b,t] + {0, 1, 2}.
 * h.out = h + {sum of x, T}. y = sum of present + h.out[0] + weights[index].
 * B is 1..4, T 1..8, P 0..32; index outside 0..3 is the run-time error of op 1. */
#ifndef NB_TEST_RUNTIME_TOY_H
#define NB_TEST_RUNTIME_TOY_H

#include "runtime/nb_runtime.h"

enum { TOY_X, TOY_INDEX, TOY_PAST, TOY_H };
enum { TOY_Y, TOY_PRESENT, TOY_H_OUT };

extern const float toy_weights[16];
extern const nb_model toy_model;   /* weights inside */
extern const nb_model toy_cache;   /* without h and h.out */
extern const nb_model toy_sidecar; /* weights outside */

/* When not NULL, every run calls it. */
extern void (*toy_on_run)(const nb_frame *frame);

#endif
