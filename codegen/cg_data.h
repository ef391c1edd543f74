/* Constant data in a module: how the descriptor is written. */
#ifndef NB_CG_DATA_H
#define NB_CG_DATA_H

#include "codegen/cg.h"

/* The values have the layout C gives a struct of the same members. */
cg_val cg_data_int(cg_module *m, cg_kind kind, int64_t value);
cg_val cg_data_null(cg_module *m);
/* A NUL-terminated string; the pointer to it. */
cg_val cg_data_string(cg_module *m, const char *text);
cg_val cg_data_struct(cg_module *m, int n, const cg_val *members);
/* A constant global array of `n` values of one type; the pointer to it (NULL if n is 0). */
cg_val cg_data_array(cg_module *m, const char *name, size_t n, const cg_val *items);
/* A constant global; the pointer to it. */
cg_val cg_data_global(cg_module *m, const char *name, cg_val value);
/* Puts the bytes of a file into the module's read-only data, 64-byte aligned; the pointer to them.
 */
cg_val cg_data_file(cg_module *m, const char *symbol, const char *path);

#endif
