/* The page of `nibble report`: one file without scripts or references to others. */
#ifndef NBT_REPORT_PAGE_H
#define NBT_REPORT_PAGE_H

#include "tools/bench.h"
#include "tools/compare.h"
#include "tools/curve.h"
#include "tools/score.h"

#include <stdio.h>

/* What one scheme loses. */
typedef struct nbt_quality {
    nbt_comparison errors;
    bool scored; /* it is a language model: */
    nbt_scores scores;
} nbt_quality;

typedef struct nbt_page {
    nb_arena *arena;
    const char *title;            /* the model, as it was given */
    const char *pipeline;         /* what it went through */
    const nbt_strings *options;   /* of the command line, as NAME VALUE */
    const nbt_measured *measured; /* NULL: no model was given */
    const nbt_limits *limits;
    const nbt_layers *layers; /* for each phase */
    const nbt_quality *qualities;
    size_t n_qualities; /* 0: no tokens were given */
    const nbt_curve *curves;
    size_t n_curves;
} nbt_page;

void nbt_write_page(FILE *f, const nbt_page *page);

/* Its parts: report_time.c, report_quality.c, report_curve.c. */
void nbt_write_time(FILE *f, const nbt_page *page);
void nbt_write_quality(FILE *f, const nbt_page *page);
void nbt_write_curve(FILE *f, nb_arena *arena, const nbt_curve *curve);

#endif
