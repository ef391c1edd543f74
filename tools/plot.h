/* Plots: an SVG with axes, grids and labels, and the tables of a page (svg.h below). */
#ifndef NBT_PLOT_H
#define NBT_PLOT_H

#include "ir/support/arena.h"
#include "tools/svg.h"

#include <stddef.h>

typedef struct nbt_plot {
    FILE *f;
    nb_arena *arena;
    nbt_axis x, y; /* where they lie on the page is known, their values are not yet */
} nbt_plot;

/* Everything of a plot stands between these two. */
nbt_plot nbt_plot_open(FILE *f, nb_arena *arena, double height, const char *label);
void nbt_plot_close(nbt_plot *p);

/* Makes a logarithmic axis cover from..to, positive, and end at 1, 2 or 5 times a power of ten. */
void nbt_axis_cover(nbt_axis *axis, double from, double to);
/* Grid and labels; the axes must be set. */
void nbt_plot_x(nbt_plot *p, const char *title);
void nbt_plot_y(nbt_plot *p, const char *title);
/* The x axis for `n` items side by side; blocks[i] names the block that item i is in, "": none. */
void nbt_plot_items(nbt_plot *p, const char *const *blocks, size_t n, const char *title);

/* A colour for the i-th of a few, one for all others. */
const char *nbt_plot_colour(size_t i);
/* An entry of the legend above a plot, between <p> and </p>. */
void nbt_legend(FILE *f, const char *colour, const char *text);

/* ---- tables -------------------------------------------------------------------------------- */

/* Columns are names; one that begins with '<' holds text and is aligned left. */
void nbt_table_open(FILE *f, const char *const *columns, size_t n);
void nbt_table_row(FILE *f, const char *const *columns, const char *const *cells, size_t n);
void nbt_table_close(FILE *f);

#endif
