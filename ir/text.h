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
/* The value of attribute i as it stands behind its name, "true" or "false" of a flag; "" when it is
 * not set. */
char *nb_attr_text(nb_arena *arena, const nb_op *op, int i);
/* A descriptor without its name: "i8 narrow axis 1 scale @w.scale". */
char *nb_quant_text(nb_arena *arena, const nb_quant *q);
/* An attribute's value as it is printed, texts without quotes and quantizations without '#'; flags
 * are "true" or "false". NULL when it is not set or the op has none of that name. */
const char *nb_print_attr(nb_arena *arena, const nb_op *op, const char *name);
/* The whole text in memory, NUL-terminated. */
char *nb_print_string(nb_arena *arena, const nb_graph *g, const nb_print_options *options);

/* What a line of the text, or a few, are about: `what` is the nb_state, nb_quant, nb_value or
 * nb_op, or else the graph. */
typedef enum nb_text_kind {
    NB_TEXT_HEADER,
    NB_TEXT_STAGE,
    NB_TEXT_STATE,
    NB_TEXT_QUANT,
    NB_TEXT_CONST,
    NB_TEXT_OP,
    NB_TEXT_END
} nb_text_kind;

typedef struct nb_text_part {
    size_t from; /* offset in the text; it ends where the next one begins, with a newline */
    nb_text_kind kind;
    const void *what;
} nb_text_part;

typedef NB_VEC(nb_text_part) nb_text_parts;

/* nb_print_string, which also adds the parts of the text to `parts` unless it is NULL. */
char *nb_print_parts(nb_arena *arena, const nb_graph *g, const nb_print_options *options,
                     nb_text_parts *parts);

/* Parses and verifies. `name` is for messages; external blobs are looked up relative to the
 * directory `base` (NULL: refused). */
nb_status nb_parse(const char *text, size_t length, const char *name, const char *base,
                   nb_oom_fn oom, void *user, nb_diags *diags, nb_graph **out);

/* Is the text of what reads back from the graph's text the same? NB_INTERNAL when it is not. Large
 * constants stand as their first element, repeated; graphs whose constants take more than 64 MiB
 * are taken for right. */
nb_status nb_check_text(const nb_graph *g, nb_diags *diags);

/* A dimension expression of nb_dim_text's form over the graph's symbols; NULL after an error. */
const nb_dim *nb_parse_dim(nb_graph *g, const char *text, size_t length, nb_diags *diags);
/* A type of nb_type_text's form that is not quantized; NULL after an error. */
const nb_type *nb_parse_type(nb_graph *g, const char *text, size_t length, nb_diags *diags);

#endif
