/* Golden files as text (golden.h). */
#include "tests/golden/golden.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD      "; passes: "
#define SEPARATOR "; ----\n"

static char *read_all(const char *path, nb_arena *arena) {
    FILE *in = fopen(path, "rb");
    if (!in) return NULL;
    NB_VEC(char) text = {0};
    for (int c; (c = getc(in)) != EOF;) nb_vec_push(arena, &text, (char)c);
    nb_vec_push(arena, &text, '\0');
    bool ok = !ferror(in);
    fclose(in);
    return ok ? text.items : NULL;
}

static bool refuse(const char *path, const char *why) {
    fprintf(stderr, "%s: %s\n", path, why);
    return false;
}

bool nb_golden_read(const char *path, nb_arena *arena, nb_golden *out) {
    char *text = read_all(path, arena);
    if (!text) return refuse(path, "cannot be read");
    char *end = strchr(text, '\n');
    if (strncmp(text, HEAD, strlen(HEAD)) != 0 || !end)
        return refuse(path, "the first line is not \"" HEAD "...\"");
    *end = '\0';
    char *before = end + 1, *separator = strstr(before, "\n" SEPARATOR);
    if (separator) separator[1] = '\0';
    *out = (nb_golden){.path = path,
                       .passes = text + strlen(HEAD),
                       .before = before,
                       .after = separator ? separator + 1 + strlen(SEPARATOR) : ""};
    return true;
}

bool nb_golden_write(const nb_golden *golden, const char *after) {
    FILE *out = fopen(golden->path, "wb");
    if (!out) return refuse(golden->path, "cannot be written");
    fprintf(out, HEAD "%s\n%s" SEPARATOR "%s", golden->passes, golden->before, after);
    return fclose(out) == 0 || refuse(golden->path, "cannot be written");
}
