/* Private to the pass smooth-fold: places where a factor for each channel can move from what makes
 * an activation into the weights of the layers that take it. */
#ifndef NB_PASSES_SMOOTH_H
#define NB_PASSES_SMOOTH_H

#include "passes/linear.h"

typedef struct nb_site {
    nb_value *x;              /* what linear layers take; nothing else reads it */
    int64_t channels;         /* of x */
    int64_t factors;          /* channels, or fewer: heads that share a value share one */
    int64_t head, share;      /* of an attention's result: channels of a head, heads that
                               * share its factors; else channels and 1 */
    NB_VEC(nb_use *) makers;  /* constants whose last axis is divided by the factors ... */
    int64_t first;            /* ... from this entry on */
    NB_VEC(nb_use *) readers; /* weights whose rows are multiplied by them */
} nb_site;

/* The factor of channel j. */
static inline int64_t nb_site_factor(const nb_site *s, int64_t j) {
    return j / s->head / s->share * s->head + j % s->head;
}

typedef enum nb_site_kind {
    NB_SITE_NORM,  /* the gain (and bias) of a norm */
    NB_SITE_GATED, /* the layer that a gate multiplies */
    NB_SITE_VALUES /* the layer that makes an attention's values */
} nb_site_kind;

/* Is the operation `op` one behind which there is such a place? */
bool nb_site_find(nb_pass_ctx *ctx, nb_op *op, nb_site *out, nb_site_kind *kind);

/* How large the channels are, factor by factor, from the weights of what makes them alone. */
void nb_site_guess(const nb_site *site, nb_site_kind kind, float *amax);

/* ---- which factors -------------------------------------------------------------------------- */

/* What is known of the activation. */
typedef struct nb_rows_seen {
    float *amax, *mean; /* [factors] of |x|; mean: of samples only */
    float *rows;        /* [n_rows,channels], some of x */
    int64_t n_rows;
} nb_rows_seen;

typedef struct nb_smooth_aim {
    int weight_bits; /* rounded to nearest in groups of `group` inputs (0: columns) */
    int64_t group;
    bool asymmetric;
    enum { NB_AIM_WEIGHTS, NB_AIM_TOKENS, NB_AIM_TENSOR } act; /* 8-bit activations, or none */
} nb_smooth_aim;

/* s_f = amax_f^alpha / max|w_f|^(1-alpha) (SmoothQuant). */
void nb_smooth_factors(const nb_site *site, const float *range, float alpha, float *s);
/* s_f = max(mean|x_f|^alpha, 1e-4) / sqrt(max s * min s) (AWQ). */
void nb_awq_factors(const nb_site *site, const float *mean, float alpha, float *s);
/* How far the layers' outputs are from the float ones when x / s and s w are quantized as `aim`
 * says: the sum over layers of the squared error, relative to the squared outputs. Negative when
 * memory is short. */
double nb_smooth_loss(const nb_site *site, const nb_rows_seen *seen, const nb_smooth_aim *aim,
                      const float *s);

typedef enum nb_smooth_method {
    NB_SMOOTHQUANT, /* its factors, alpha = 0.1, 0.2 ... 1 */
    NB_AWQ,         /* its factors, alpha = 0.05, 0.1 ... 0.95 */
    NB_OMNIQUANT    /* AWQ's, then clusters of factors one after the other */
} nb_smooth_method;

/* The factors of least loss, and the alpha they come of; false when the place is best left alone.
 */
bool nb_smooth_search(const nb_site *site, const nb_rows_seen *seen, const nb_smooth_aim *aim,
                      nb_smooth_method method, nb_arena *scratch, float *s, double *alpha);

#endif
