/* Private to frontend/: numbers of a tensor at places between its elements (import_sample.c). */
#ifndef NB_FRONTEND_SAMPLE_H
#define NB_FRONTEND_SAMPLE_H

#include "frontend/import.h"

typedef enum nb_borders { NB_BORDERS_ZERO, NB_BORDERS_LAST, NB_BORDERS_REFLECTED } nb_borders;

typedef struct nb_sampling {
    nb_value *rows;        /* f32[B*P,C]: the image, element by element */
    nb_value *at[3];       /* f32[B,Q]: places along each axis */
    nb_value *length[3];   /* f32: of the axes */
    const nb_dim *dims[3]; /* the same */
    const nb_dim *batch;
    nb_value *image; /* i64[B,1]: which image each row of places is of; NULL: its own */
    int axes, taps;  /* neighbours along an axis: 1, 2, or 4 of cubic interpolation */
    bool align;
    bool largest; /* of the weighted neighbours, not their sum */
    nb_borders borders;
} nb_sampling;

/* [B,C,D...] to the rows f32[B*P,C]. */
nb_value *nb_sample_rows(nb_importer *im, nb_value *x);
/* f32[B,Q,C]: at all places; NULL after an error. */
nb_value *nb_sample(nb_importer *im, const nb_sampling *s);

#endif
