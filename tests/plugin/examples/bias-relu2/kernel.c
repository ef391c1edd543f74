/* The kernel of bias_relu2: y = max(x + b, 0)^2, b along the last axis.
 *
 * The same steps as add, relu and mul, each rounded once, so that the bits are equal: build it
 * without contraction of products and sums. */
#include "nb_pass.h"

NB_EXPORT void nb_call_bias_relu2(const void *const *operands, void *result, const int64_t *dims,
                                  const int64_t *numbers, int64_t begin, int64_t end);

/* dims: x [rows, n], b [n], result [rows, n]. */
void nb_call_bias_relu2(const void *const *operands, void *result, const int64_t *dims,
                        const int64_t *numbers, int64_t begin, int64_t end) {
    const float *x = operands[0], *b = operands[1];
    float *y = result;
    const int64_t n = dims[1];
    (void)numbers;
    for (int64_t row = begin; row < end; row++) {
        for (int64_t i = 0; i < n; i++) {
            float v = x[row * n + i] + b[i];
            v = v < 0 ? 0 : v; /* NaN stays, as in relu */
            y[row * n + i] = v * v;
        }
    }
}
