/* Text under construction: names in quotes where needed, long lists wrapped at 100 columns. */
#include "ir/text_writer.h"

#define WIDTH        100
#define FLUSH_ABOVE  65536
#define FIRST_BUFFER 1024

void nb_writer_flush(nb_writer *w) {
    if (!w->file) return;
    fwrite(w->bytes, 1, w->count, w->file);
    w->line -= w->count; /* wraps around below 0; `count - line` stays the column */
    w->count = 0;
}

static void reserve(nb_writer *w, size_t length) {
    if (w->file && w->count + length > FLUSH_ABOVE) nb_writer_flush(w);
    if (w->capacity - w->count >= length) return;
    size_t capacity = w->capacity ? w->capacity : FIRST_BUFFER;
    while (capacity - w->count < length) capacity *= 2;
    char *grown = nb_alloc(w->arena, capacity);
    if (w->count) memcpy(grown, w->bytes, w->count);
    w->bytes = grown;
    w->capacity = capacity;
}

void nb_put(nb_writer *w, const char *bytes, size_t length) {
    reserve(w, length);
    if (length) memcpy(w->bytes + w->count, bytes, length);
    w->count += length;
}

void nb_puts(nb_writer *w, const char *text) { nb_put(w, text, strlen(text)); }

void nb_put_int(nb_writer *w, int64_t value) {
    char text[NB_NUMBER_SIZE];
    nb_put(w, text, nb_i64_text(value, text));
}

void nb_put_string(nb_writer *w, const char *text) {
    static const char digits[] = "0123456789abcdef";
    nb_put(w, "\"", 1);
    for (const char *from = text;;) {
        const char *to = from;
        while (*to >= 0x20 && *to < 0x7f && *to != '"' && *to != '\\') to++;
        nb_put(w, from, (size_t)(to - from));
        if (!*to) break;
        const unsigned char c = (unsigned char)*to;
        if (c == '"' || c == '\\')
            nb_put(w, (char[]){'\\', (char)c}, 2);
        else
            nb_put(w, (char[]){'\\', 'x', digits[c >> 4], digits[c & 15]}, 4);
        from = to + 1;
    }
    nb_put(w, "\"", 1);
}

void nb_put_name(nb_writer *w, const char *prefix, const char *name) {
    nb_puts(w, prefix);
    if (nb_name_plain(name))
        nb_puts(w, name);
    else
        nb_put_string(w, name);
}

void nb_put_newline(nb_writer *w, int indent) {
    nb_put(w, "\n", 1);
    w->line = w->count;
    for (int i = 0; i < indent; i++) nb_put(w, " ", 1);
}

void nb_put_item(nb_writer *w, const char *bytes, size_t length, bool first, int indent) {
    if (!first) {
        nb_put(w, ",", 1);
        if (w->count - w->line + 2 + length > WIDTH)
            nb_put_newline(w, indent);
        else
            nb_put(w, " ", 1);
    }
    nb_put(w, bytes, length);
}
