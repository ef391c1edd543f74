/* Private to the printer: text under construction, in memory or on its way to a file. */
#ifndef NB_TEXT_WRITER_H
#define NB_TEXT_WRITER_H

#include "ir/text_private.h"

typedef struct nb_writer {
    nb_arena *arena;
    FILE *file; /* NULL: everything stays in `bytes` */
    char *bytes;
    size_t count, capacity;
    size_t line; /* bytes of the current line that were flushed already, minus what came before */
} nb_writer;

void nb_put(nb_writer *w, const char *bytes, size_t length);
void nb_puts(nb_writer *w, const char *text);
void nb_put_int(nb_writer *w, int64_t value);
/* prefix and name, quoted if it must be. */
void nb_put_name(nb_writer *w, const char *prefix, const char *name);
void nb_put_string(nb_writer *w, const char *text);
/* A newline and that many spaces. */
void nb_put_newline(nb_writer *w, int indent);
/* Appends an item of a list: behind ", " unless it is the first, and on a new line when it would
 * pass column 100. */
void nb_put_item(nb_writer *w, const char *bytes, size_t length, bool first, int indent);
void nb_writer_flush(nb_writer *w);

#endif
