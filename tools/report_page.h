/* The page of `nibble report`: one file without scripts or references to others. */
#ifndef NBT_REPORT_PAGE_H
#define NBT_REPORT_PAGE_H

#include "tools/bench.h"

#include <stdio.h>

typedef struct nbt_page {
    nb_arena *arena;
    const char *model;          /* as it was given */
    const char *pipeline;       /* what it went through */
    const nbt_strings *options; /* of the command line, as NAME VALUE */
    const nbt_measured *measured;
    const nbt_limits *limits;
    const nbt_layers *layers; /* for each phase */
} nbt_page;

void nbt_write_page(FILE *f, const nbt_page *page);

#endif
