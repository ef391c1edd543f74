/* Drawing second moments to their diagonal (shrink.h). */
#include "passes/shrink.h"

#include <stdlib.h>

bool nb_shrink_begin(nb_shrink *s, const nb_moments *m) {
    *s = (nb_shrink){.m = m, .inverse = malloc(((size_t)m->n + 1) * sizeof *s->inverse)};
    for (int64_t i = 0; s->inverse && i < m->n; i++) {
        const double sum = (double)m->sum[i * m->n + i];
        s->inverse[i] = sum > 0 ? (double)m->rows / sum : 0;
    }
    return s->inverse != NULL;
}

void nb_shrink_end(nb_shrink *s) {
    free(s->inverse);
    s->inverse = NULL;
}

/* All pairs of a row at once: (sum z_i^2)^2 less those of i = j. */
void nb_shrink_see(nb_shrink *s, const float *x, int64_t rows) {
    for (int64_t r = 0; r < rows; r++, x += s->m->n) {
        double squares = 0, fourths = 0;
        for (int64_t i = 0; i < s->m->n; i++) {
            const double z = (double)x[i] * (double)x[i] * s->inverse[i];
            squares += z;
            fourths += z * z;
        }
        s->products += squares * squares - fourths;
    }
}

double nb_shrink_share(const nb_shrink *s, double strength) {
    const nb_moments *m = s->m;
    const double rows = (double)m->rows;
    double signal = 0;
    if (m->rows < 2) return 1;
    for (int64_t i = 0; i < m->n; i++) {
        double sum = 0;
        for (int64_t j = i + 1; j < m->n; j++) {
            const double r = (double)m->sum[i * m->n + j] / rows;
            sum += r * r * s->inverse[j];
        }
        signal += 2 * sum * s->inverse[i];
    }
    const double noise = (s->products / rows - signal) / (rows - 1);
    if (!(noise > 0)) return 0; /* or not a number */
    const double odds = strength * noise / (signal - noise);
    return noise < signal ? odds / (1 + odds) : 1;
}

void nb_moments_shrink(nb_moments *m, double share, bool whole) {
    const float rest = (float)(1 - share);
    for (int64_t i = 0; i < m->n; i++) {
        for (int64_t j = whole ? 0 : i + 1; j < m->n; j++) m->sum[i * m->n + j] *= rest;
    }
}
