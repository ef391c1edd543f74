/* Half-quadratic quantization (HQQ, Badri and Shaji, 2023, mobiusml.github.io/hqq_blog): scales and
 * zero points that minimise sum |w - w'|^p with p = 0.7, for which few large errors count little.
 * It needs no data. Errors e of their own come between: in turn
 *
 *   code = clip(rint(w/scale) + zero)
 *   r    = w - scale (code - zero),   e = sign(r) max(0, |r| - |r|^(p-1)/beta)     shrinkage
 *   zero = mean(code - (w-e)/scale),  beta = 1.01 beta
 *
 * from beta = 10, at most 20 times, and what had the least mean |r| is kept, for each run. Errors
 * are in units of the weights, as published; of those below beta^(-1/(2-p)), 0.17 at first, the
 * shrinkage leaves nothing.
 *
 * Published zero points are floats, and scales stay. Here zero points are codes, so that sums of
 * products stay exact integers: an update moves one by whole codes, which from the range of the
 * weights on happens seldom. So scales follow too, <code-zero, w-e> / |code-zero|^2, which is the
 * only update where codes are symmetric.
 */
#ifndef NB_PASSES_HQQ_H
#define NB_PASSES_HQQ_H

#include "passes/rtn.h"

/* Betters the scales and zero points of 16 runs of n weights (rtn.h), or leaves them. */
void nb_hqq_fit(const nb_rtn *rtn, const float *w, int64_t n, float *scales, int64_t *zeros);

#endif
