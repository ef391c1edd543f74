/* What bits buy: KL divergence against bits per weight, of Nibble's methods and of other systems',
 * as tools/quality measured them. */
#ifndef NBT_CURVE_H
#define NBT_CURVE_H

#include "tools/args.h"

typedef struct nbt_curve_point {
    const char *name, *label; /* scheme and method; of others, the method */
    bool ours, best;          /* best: none of ours has fewer bits and less divergence */
    double bits, kl, ppl;     /* ppl 0: not known */
} nbt_curve_point;

typedef struct nbt_curve {
    const char *model, *others; /* the other systems' names */
    nbt_curve_point *points;    /* by bits */
    size_t n;
} nbt_curve;

/* The models of a quality.json, in its order. */
nb_status nbt_read_curves(nbt_args *args, const char *path, nbt_curve **out, size_t *n);

#endif
