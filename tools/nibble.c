/* The program: picks the subcommand, prints diagnostics, turns statuses into exit codes. */
#include "tools/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMMAND(name, ...) nb_status nbt_##name(nbt_args *args);
#include "tools/commands.def"
#undef COMMAND

static const struct {
    const char *name;
    nb_status (*run)(nbt_args *args);
} table[] = {
#define COMMAND(name, ...) {#name, nbt_##name},
#include "tools/commands.def"
#undef COMMAND
};

static void print_diagnostics(const nb_diags *diags, bool quiet) {
    for (size_t i = 0; i < diags->list.count; i++) {
        const nb_diag *d = diags->list.items[i];
        if (!quiet || d->severity == NB_ERROR) fputs(nb_diag_render(diags->arena, d), stderr);
    }
    if (diags->dropped) fprintf(stderr, "%zu more messages are not shown\n", diags->dropped);
}

static nb_status run_command(nbt_args *args, int argc, char **argv) {
    NB_TRY(nbt_parse_args(args, argc, argv));
    if (nbt_has(args, "help")) {
        nbt_print_help(args->command);
        return NB_OK;
    }
    const char *cpu = nbt_get(args, "cpu");
    if (cpu && strcmp(cpu, "help") == 0) {
        nbt_print_cpus();
        return NB_OK;
    }
    for (size_t i = 0; i < NB_COUNT(table); i++) {
        if (nbt_names_command(table[i].name, args->command)) return table[i].run(args);
    }
    return NB_INTERNAL;
}

int main(int argc, char **argv) {
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        nbt_print_help(NULL);
        return argc < 2 ? NB_USAGE : NB_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("nibble %s\n", NIBBLE_VERSION);
        return NB_OK;
    }
    if (!nbt_is_command(argv[1])) {
        fprintf(
            stderr,
            "nibble: error: there is no command '%s'\n  help: `nibble --help` lists the commands\n",
            argv[1]);
        return NB_USAGE;
    }
    nb_arena *arena = nb_arena_create(nbt_out_of_memory, NULL);
    nbt_args args = {.arena = arena, .diags = nb_diags_create(arena, "nibble")};
    nb_status status = run_command(&args, argc, argv);
    print_diagnostics(args.diags, args.values && nbt_has(&args, "quiet"));
    if (fflush(stdout) != 0 && status == NB_OK) status = NB_IO;
    nb_arena_destroy(arena);
    return (int)status;
}
