/* Diagnostics as values: collected in an nb_diags, rendered by whoever talks to the user.
 *
 *   fc1.onnx:/fc1/MatMul: error: insert-qdq: column 1 of weight '@w.s' holds a NaN, no scale fits
 *       %h: f32[B,2] = matmul %n, @w.s
 *                                 ^~~~
 *     note: '@w.s' was made by smooth-fold from initializer "fc1.weight"
 *     help: leave this node in float: insert-qdq{skip="/fc1/MatMul"}
 *
 * The place in front is file:line:column for text and "file:byte N" for a binary file.
 * Text that comes from a model or a file is escaped when it is rendered, so messages may carry it
 * as it is. */
#ifndef NB_DIAG_H
#define NB_DIAG_H

#include "ir/support/arena.h"
#include "ir/support/vec.h"

typedef enum nb_severity { NB_ERROR, NB_WARNING, NB_INFO } nb_severity;

/* Where a diagnostic points; every member may be empty. */
typedef struct nb_where {
    const char *file;    /* as the user named it */
    const char *node;    /* ONNX node, op or option */
    int line, column;    /* 1-based position in a text file, 0 = none */
    int64_t offset;      /* byte offset in a binary file, -1 = none */
    const char *snippet; /* one source line to show */
    int caret, length;   /* 0-based byte position and length within the snippet; length 0 = none */
} nb_where;

#define NB_NOWHERE ((nb_where){.offset = -1})

typedef struct nb_diag {
    nb_severity severity;
    nb_status status;
    nb_where where;
    const char *message;
    NB_VEC(const char *) notes; /* "note: " lines */
    const char *help;           /* "help: " line, or NULL */
} nb_diag;

/* At most NB_DIAGS_CAP errors and as many warnings are kept; `dropped` counts the rest. */
#define NB_DIAGS_CAP 64

typedef struct nb_diags {
    nb_arena *arena;
    const char *file; /* default for nb_where.file */
    NB_VEC(nb_diag *) list;
    size_t errors, warnings, dropped; /* the first two count dropped ones too */
    nb_diag *last; /* what nb_note and nb_help add to; NULL when it was dropped */
} nb_diags;

nb_diags *nb_diags_create(nb_arena *arena, const char *file);

/* Records an error and returns `status`, so that `return nb_error(...)` reads well. Strings in
 * `where` are copied. */
nb_status nb_error(nb_diags *diags, nb_status status, nb_where where, const char *fmt, ...)
    NB_PRINTF(4, 5);
void nb_warn(nb_diags *diags, nb_where where, const char *fmt, ...) NB_PRINTF(3, 4);
/* What is no reason to worry; counts as a warning. */
void nb_inform(nb_diags *diags, nb_where where, const char *fmt, ...) NB_PRINTF(3, 4);
/* These two belong to the diagnostic recorded last. */
void nb_note(nb_diags *diags, const char *fmt, ...) NB_PRINTF(2, 3);
void nb_help(nb_diags *diags, const char *fmt, ...) NB_PRINTF(2, 3);

/* The first error's status, or NB_OK. */
nb_status nb_diags_status(const nb_diags *diags);

/* The text shown above, ending in a newline; control characters, invalid UTF-8 and bidirectional
 * overrides from messages appear as \xNN. */
char *nb_diag_render(nb_arena *arena, const nb_diag *diag);
/* `text` with everything that is not printable UTF-8 escaped. */
char *nb_escape(nb_arena *arena, const char *text, size_t length);

#endif
