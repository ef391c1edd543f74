/* Output files that appear whole or not at all: written under a temporary name beside the target,
 * synced and renamed. What is there and is no regular file (a pipe, a link such as
 * /dev/stdout) is written in place. Errors are NB_IO with the path. */
#ifndef NB_OUTPUT_H
#define NB_OUTPUT_H

#include "ir/support/diag.h"

#include <stdio.h>

typedef struct nb_output {
    nb_diags *diags;
    const char *path;
    const char *temporary; /* what is written until the end; the path itself when in place */
    FILE *stream;
} nb_output;

nb_status nb_output_open(const char *path, nb_diags *diags, nb_output *out);
/* Makes what was written visible, or removes it when `status` is an error or something could not be
 * written; returns the first error. */
nb_status nb_output_close(nb_output *f, nb_status status);
/* The diagnostic "cannot WHAT: errno's text". */
nb_status nb_io_error(nb_diags *diags, const char *path, const char *what);
nb_status nb_write_file(const char *path, const void *data, size_t size, nb_diags *diags);

#endif
