/* The command line: one options table for all subcommands (options.def). */
#ifndef NBT_ARGS_H
#define NBT_ARGS_H

#include "ir/support/diag.h"

typedef NB_VEC(const char *) nbt_strings;

typedef struct nbt_args {
    nb_arena *arena;
    nb_diags *diags;
    const char *command;
    nbt_strings positional;
    nbt_strings *values; /* by row of options.def */
} nbt_args;

/* Parses argv[2..] for argv[1]. Errors are NB_USAGE with the nearest names. */
nb_status nbt_parse_args(nbt_args *args, int argc, char **argv);
/* The last value of an option, "" for a flag that was given, NULL when it was not. */
const char *nbt_get(const nbt_args *args, const char *name);
bool nbt_has(const nbt_args *args, const char *name);
/* The same arguments, with this one value of an option. */
nbt_args nbt_args_with(const nbt_args *args, const char *name, const char *value);
const nbt_strings *nbt_all(const nbt_args *args, const char *name);
/* What was given: "--NAME" or "--NAME VALUE", in the order of the table. */
nbt_strings nbt_options_given(const nbt_args *args);
/* A number; an error names the option. `*out` keeps its value when the option is absent. */
nb_status nbt_number(const nbt_args *args, const char *name, double min, double max, double *out);
nb_status nbt_integer(const nbt_args *args, const char *name, int64_t min, int64_t max,
                      int64_t *out);
/* Exactly one positional argument, else NB_USAGE. */
nb_status nbt_one_input(const nbt_args *args, const char **out);
/* Exactly two. */
nb_status nbt_two_inputs(const nbt_args *args, const char *out[2]);

void nbt_print_help(const char *command); /* NULL: of nibble itself */
bool nbt_is_command(const char *name);
/* Is `name` what users write for that row of commands.def: new-pass for new_pass? */
bool nbt_names_command(const char *row, const char *name);

/* An nb_oom_fn: says so and ends the program. */
void nbt_out_of_memory(void *user);

#endif
