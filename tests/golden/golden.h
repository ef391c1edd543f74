/* A golden file: a graph, a pipeline, and the whole graph that the pipeline makes of it.
 *
 *   ; passes: simplify, raise
 *   nir 1
 *   graph @g(...) ...
 *   ; ----
 *   nir 1
 *   graph @g(...) ...
 *
 * Comment lines between the first line and the graph say what the file is about. */
#ifndef NB_GOLDEN_H
#define NB_GOLDEN_H

#include "ir/support/diag.h"

typedef struct nb_golden {
    const char *path;
    char *passes; /* the pipeline */
    char *before; /* everything between the first line and the separator */
    char *after;  /* "" when there is no separator yet */
} nb_golden;

/* False, with the reason on stderr, when the file cannot be read or has another form. */
bool nb_golden_read(const char *path, nb_arena *arena, nb_golden *out);
/* Puts `after` into the file. */
bool nb_golden_write(const nb_golden *golden, const char *after);

/* Runs the pipeline and checks: the result is `after`, byte for byte (or, with `bless`, is written
 * there); both graphs survive printing and parsing; every pass leaves a valid graph and keeps the
 * numbers it promises to keep; the last pass changes nothing when it is run again. Failures are
 * explained on stderr. */
bool nb_golden_check(const nb_golden *golden, nb_arena *arena, bool bless);

#endif
