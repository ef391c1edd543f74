/* A bound for an estimate, moved until what is measured of what the estimate chose comes closely
 * below a bound of its own: by secants, the first of which goes through 0, kept between what was
 * too small and what was too large (regula falsi). */
#ifndef NB_PASSES_AIM_H
#define NB_PASSES_AIM_H

#include <stdbool.h>

typedef struct nb_aim {
    double most, close;  /* good enough: `close` (0 to 1) of most, up to most */
    double next;         /* the bound for the estimate to try next */
    double x, y;         /* the last try: estimate and measurement */
    double small, large; /* estimates that turned out too small and too large */
} nb_aim;

/* The estimate is believed at first. */
nb_aim nb_aim_begin(double most, double close);
/* What was measured (y >= 0) where the estimate was x > 0. False: y is good enough. */
bool nb_aim_step(nb_aim *aim, double x, double y);

#endif
