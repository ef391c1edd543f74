/* Reading files: regular ones only, small ones into memory, large ones mapped. */
#ifndef NB_FILE_H
#define NB_FILE_H

#include "ir/support/diag.h"

/* A file read or mapped whole. */
typedef struct nb_file {
    const uint8_t *bytes;
    size_t size;
    bool mapped; /* else malloc'ed */
} nb_file;

/* Regular files only. Small ones are read, so that a later change of the file cannot matter. */
nb_status nb_file_open(const char *path, nb_diags *diags, nb_file *out);
/* Takes an open descriptor, which it closes. */
nb_status nb_file_from(int fd, const char *path, nb_diags *diags, nb_file *out);
void nb_file_close(nb_file *file);

#endif
