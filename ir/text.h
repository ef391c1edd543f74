/* The .nir text form: print and parse, byte for byte the same after a round trip. Grammar: README.
 */
#ifndef NB_TEXT_H
#define NB_TEXT_H

#include "ir/ir.h"

#include <stdio.h>

typedef struct nb_print_options {
    bool elide_weights;  /* print constants above 16 elements as their type, size and hash only */
    bool external_blobs; /* borrowed blobs as blob "file"[a..b]; others always inline as data */
} nb_print_options;

/* Appends the text to `out`; a write error is for the caller to see with ferror. */
void nb_print(const nb_graph *g, const nb_print_options *options, FILE *out);
/* One op as a line without indentation or newline, for diagnostics. */
char *nb_print_op(nb_arena *arena, const nb_op *op);
/* An attribute's value as it is printed, texts without quotes and quantizations without '#'; flags
 * are "true" or "false". NULL when it is not set or the op has none of that name. */
const char *nb_print_attr(nb_arena *arena, const nb_op *op, const char *name);
/* The whole text in memory, NUL-terminated. */
char *nb_print_string(nb_arena *arena, const nb_graph *g, const nb_print_options *options);

/* Parses and verifies. `name` is for messages; external blobs are looked up relative to the
 * directory `base` (NULL: refused). */
nb_status nb_parse(const char *text, size_t length, const char *name, const char *base,
                   nb_oom_fn oom, void *user, nb_diags *diags, nb_graph **out);

/* A dimension expression of nb_dim_text's form over the graph's symbols; NULL after an error. */
const nb_dim *nb_parse_dim(nb_graph *g, const char *text, size_t length, nb_diags *diags);

#endif
