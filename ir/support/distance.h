/* How far apart two names are, for "did you mean". */
#ifndef NB_DISTANCE_H
#define NB_DISTANCE_H

#include <stddef.h>

/* Insertions, removals and replacements between two names (Levenshtein); SIZE_MAX for long ones. */
size_t nb_edit_distance(const char *a, size_t n, const char *b, size_t m);

#endif
