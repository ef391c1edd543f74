/* Private to frontend/: what Resize asks for (import_resize.c), and the numbers it gives
 * (import_interpolate.c). */
#ifndef NB_FRONTEND_RESIZE_H
#define NB_FRONTEND_RESIZE_H

#include "frontend/import.h"

typedef struct nb_resize {
    const char *mode, *coordinates, *nearest;
    double cubic;   /* cubic_coeff_a */
    bool outside;   /* exclude_outside */
    bool antialias; /* shrinking, an entry of the result is a mean of all that it covers */
    bool crop;      /* of a part of x; elsewhere the result is `beyond` */
    double beyond;  /* extrapolation_value */
} nb_resize;

typedef struct nb_resize_axis {
    const nb_dim *from, *to; /* lengths */
    nb_value *scale;         /* f64, as given, known or not; NULL: to / from */
    double known;            /* the scale where it is a number, 0 otherwise */
    nb_value *start, *end;   /* f64: the part of the axis, 0 to 1, with `crop` */
} nb_resize_axis;

/* x resized along axis d, of floats f32 or f64 but for mode nearest; NULL after an error. */
nb_value *nb_resize_along(nb_importer *im, const nb_resize *r, nb_value *x, int d,
                          const nb_resize_axis *a);
/* f64: a dimension as a scalar, and several as a vector. */
nb_value *nb_resize_length(nb_importer *im, const nb_dim *d);
nb_value *nb_resize_lengths(nb_importer *im, size_t n, const nb_dim *const *dims);

#endif
