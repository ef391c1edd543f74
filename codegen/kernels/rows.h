/* Rows of a product, cut into tiles as evenly as can be: 13 rows by at most 6 are tiles of 5, 4 and
 * 4 rows, so that no short one stays behind, which would wait on its few sums. */
#ifndef NB_KERNELS_ROWS_H
#define NB_KERNELS_ROWS_H

#include "codegen/cg.h"

typedef struct nb_rows {
    int most;                 /* rows of the highest tile */
    bool several;             /* is the product known to have more than one row? */
    cg_val tiles, base, more; /* tiles, at least 1; the first `more` have base + 1 rows */
} nb_rows;

nb_rows nb_rows_cut(cg *g, cg_val rows, int most, bool several);
/* First row of a tile (of `tiles`: all rows); the number of its rows. */
cg_val nb_rows_first(cg *g, const nb_rows *r, cg_val tile);
cg_val nb_rows_of(cg *g, const nb_rows *r, cg_val tile);
/* Can a tile have `rows` rows? False only when it is known not to. */
bool nb_rows_occur(const nb_rows *r, int rows);

#endif
