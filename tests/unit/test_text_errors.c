/* Walks tests/errors: a comment `; error: TEXT` says that its line must fail with a message that
 * holds TEXT. Every such line must, and no other error may be reported. */
#include "ir/text.h"
#include "tests/unit/unit.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FOLDER NIBBLE_SOURCE_DIR "/tests/errors"

static char *read_file(nb_arena *arena, const char *path, size_t *length) {
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "%s", path);
    ck_assert_int_eq(fseek(f, 0, SEEK_END), 0);
    *length = (size_t)ftell(f);
    rewind(f);
    char *text = nb_alloc(arena, *length + 1);
    ck_assert_uint_eq(fread(text, 1, *length, f), *length);
    fclose(f);
    return text;
}

/* The message that reports line `line` as TEXT is taken off the list; 1 when there is none. */
static int take(nb_diags *diags, int line, const char *expected) {
    for (size_t i = 0; i < diags->list.count; i++) {
        nb_diag *d = diags->list.items[i];
        if (!d || d->where.line != line || !strstr(d->message, expected)) continue;
        diags->list.items[i] = NULL;
        return 0;
    }
    fprintf(stderr, "  line %d: not reported: %s\n", line, expected);
    return 1;
}

static int check_file(const char *name) {
    static const char mark[] = "; error: ";
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags = nb_diags_create(arena, name);
    nb_graph *g;
    size_t length;
    char *text = read_file(arena, nb_format(arena, "%s/%s", FOLDER, name), &length);
    nb_status status = nb_parse(text, length, name, FOLDER, NULL, NULL, diags, &g);
    int faults = status == NB_OK || g != NULL;
    int line = 1;
    for (char *from = text, *end; from < text + length; from = end + 1, line++) {
        end = strchr(from, '\n');
        if (!end) end = text + length;
        char *copy = nb_strndup(arena, from, (size_t)(end - from));
        char *expected = strstr(copy, mark);
        if (expected) faults += take(diags, line, expected + strlen(mark));
    }
    for (size_t i = 0; i < diags->list.count; i++) {
        if (!diags->list.items[i]) continue;
        fprintf(stderr, "  not expected: %s", nb_diag_render(arena, diags->list.items[i]));
        faults++;
    }
    if (faults) fprintf(stderr, "tests/errors/%s: %d faults\n", name, faults);
    nb_graph_destroy(g);
    nb_arena_destroy(arena);
    return faults;
}

START_TEST(expected_errors) {
    DIR *folder = opendir(FOLDER);
    ck_assert_ptr_nonnull(folder);
    int files = 0, faults = 0;
    for (struct dirent *entry; (entry = readdir(folder));) {
        size_t n = strlen(entry->d_name);
        if (n < 5 || strcmp(entry->d_name + n - 4, ".nir") != 0) continue;
        faults += check_file(entry->d_name);
        files++;
    }
    closedir(folder);
    ck_assert_int_ge(files, 30);
    ck_assert_int_eq(faults, 0);
}
END_TEST

Suite *nb_suite_text_errors(void) {
    Suite *s = suite_create("text_errors");
    TCase *c = tcase_create("errors");
    tcase_add_test(c, expected_errors);
    suite_add_tcase(s, c);
    return s;
}
