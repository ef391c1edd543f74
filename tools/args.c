/* Parsing and help from the tables options.def and commands.def. */
#include "tools/args.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct option {
    const char *name, *argument, *commands, *help;
} option;

static const option options[] = {
#define OPTION(name, argument, commands, help) {#name, argument, commands, help},
#include "tools/options.def"
#undef OPTION
};

typedef struct command {
    const char *name;
    char letter;
    const char *arguments, *summary, *examples;
} command;

static const command commands[] = {
#define COMMAND(name, letter, arguments, summary, examples) \
    {#name, letter, arguments, summary, examples},
#include "tools/commands.def"
#undef COMMAND
};

bool nbt_names_command(const char *row, const char *name) {
    while (*row && *name == (*row == '_' ? '-' : *row)) {
        row++;
        name++;
    }
    return !*row && !*name;
}

static const command *find_command(const char *name) {
    for (size_t i = 0; i < NB_COUNT(commands); i++) {
        if (nbt_names_command(commands[i].name, name)) return &commands[i];
    }
    return NULL;
}

bool nbt_is_command(const char *name) { return find_command(name) != NULL; }

static bool belongs(const option *o, const char *name) {
    const command *c = find_command(name);
    return c && strchr(o->commands, c->letter) != NULL;
}

static size_t row_of(const char *name) {
    for (size_t i = 0; i < NB_COUNT(options); i++) {
        if (strcmp(options[i].name, name) == 0) return i;
    }
    abort(); /* an option that is not in the table is a bug of the caller */
}

static const option *find_option(const nbt_args *args, const char *name, size_t length) {
    for (size_t i = 0; i < NB_COUNT(options); i++) {
        const option *o = &options[i];
        if (strlen(o->name) == length && memcmp(o->name, name, length) == 0 &&
            belongs(o, args->command))
            return o;
    }
    return NULL;
}

static nb_status usage(const nbt_args *args, const char *fmt, const char *what) {
    nb_error(args->diags, NB_USAGE, NB_NOWHERE, fmt, what);
    nb_help(args->diags, "nibble %s --help lists the options", args->command);
    return NB_USAGE;
}

static nb_status parse_option(nbt_args *args, int argc, char **argv, int *i) {
    const char *arg = argv[*i], *name = arg + 2, *equals = strchr(name, '=');
    static const char *const shorts[][2] = {
        {"-o", "output"}, {"-v", "verbose"}, {"-q", "quiet"}, {"-h", "help"}};
    for (size_t k = 0; arg[1] != '-' && k < NB_COUNT(shorts); k++) {
        if (strcmp(arg, shorts[k][0]) == 0) name = shorts[k][1];
    }
    if (arg[1] != '-' && name == arg + 2) return usage(args, "there is no option '%s'", arg);
    size_t length = equals && arg[1] == '-' ? (size_t)(equals - name) : strlen(name);
    const option *o = find_option(args, name, length);
    if (!o) return usage(args, "there is no option '%s' here", arg);
    const char *value = "";
    if (o->argument && equals && arg[1] == '-') {
        value = equals + 1;
    } else if (o->argument) {
        if (*i + 1 >= argc) return usage(args, "option '%s' needs a value", arg);
        value = argv[++*i];
    } else if (equals && arg[1] == '-') {
        return usage(args, "option '%s' takes no value", arg);
    }
    nb_vec_push(args->arena, &args->values[o - options], value);
    return NB_OK;
}

nb_status nbt_parse_args(nbt_args *args, int argc, char **argv) {
    args->command = argv[1];
    args->values = NB_NEW_ARRAY(args->arena, nbt_strings, NB_COUNT(options));
    for (int i = 2; i < argc; i++) {
        if (argv[i][0] == '-' && argv[i][1])
            NB_TRY(parse_option(args, argc, argv, &i));
        else
            nb_vec_push(args->arena, &args->positional, (const char *)argv[i]);
    }
    return NB_OK;
}

const nbt_strings *nbt_all(const nbt_args *args, const char *name) {
    return &args->values[row_of(name)];
}

const char *nbt_get(const nbt_args *args, const char *name) {
    const nbt_strings *v = nbt_all(args, name);
    return v->count ? v->items[v->count - 1] : NULL;
}

bool nbt_has(const nbt_args *args, const char *name) { return nbt_get(args, name) != NULL; }

nbt_args nbt_args_with(const nbt_args *args, const char *name, const char *value) {
    nbt_args out = *args;
    nbt_strings only = {0};
    nb_vec_push(args->arena, &only, value);
    out.values = NB_NEW_ARRAY(args->arena, nbt_strings, NB_COUNT(options));
    memcpy(out.values, args->values, NB_COUNT(options) * sizeof *out.values);
    out.values[row_of(name)] = only;
    return out;
}

nbt_strings nbt_options_given(const nbt_args *args) {
    nbt_strings out = {0};
    for (size_t i = 0; i < NB_COUNT(options); i++) {
        for (size_t k = 0; k < args->values[i].count; k++) {
            const char *value = args->values[i].items[k];
            const char *text = nb_format(args->arena, "--%s%s%s", options[i].name,
                                         options[i].argument ? " " : "", value);
            nb_vec_push(args->arena, &out, text);
        }
    }
    return out;
}

nb_status nbt_number(const nbt_args *args, const char *name, double min, double max, double *out) {
    const char *text = nbt_get(args, name);
    if (!text) return NB_OK;
    char *end;
    errno = 0;
    double v = strtod(text, &end);
    if (end != text && !*end && !errno && v >= min && v <= max) {
        *out = v;
        return NB_OK;
    }
    return nb_error(args->diags, NB_USAGE, NB_NOWHERE,
                    "--%s takes a number from %g to %g, found '%s'", name, min, max, text);
}

nb_status nbt_integer(const nbt_args *args, const char *name, int64_t min, int64_t max,
                      int64_t *out) {
    const char *text = nbt_get(args, name);
    if (!text) return NB_OK;
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end != text && !*end && !errno && v >= min && v <= max) {
        *out = v;
        return NB_OK;
    }
    return nb_error(args->diags, NB_USAGE, NB_NOWHERE,
                    "--%s takes a whole number from %lld to %lld, found '%s'", name, (long long)min,
                    (long long)max, text);
}

nb_status nbt_one_input(const nbt_args *args, const char **out) {
    if (args->positional.count != 1)
        return usage(args, "expected one model, found %s",
                     nb_format(args->arena, "%zu arguments", args->positional.count));
    *out = args->positional.items[0];
    return NB_OK;
}

nb_status nbt_two_inputs(const nbt_args *args, const char *out[2]) {
    if (args->positional.count != 2)
        return usage(args, "expected two models, found %s",
                     nb_format(args->arena, "%zu arguments", args->positional.count));
    out[0] = args->positional.items[0];
    out[1] = args->positional.items[1];
    return NB_OK;
}

static void print_command_help(const char *name, const command *c) {
    printf("usage: nibble %s %s [options]\n\n%s\n\noptions:\n", name, c->arguments, c->summary);
    for (size_t i = 0; i < NB_COUNT(options); i++) {
        const option *o = &options[i];
        if (!belongs(o, name)) continue;
        char left[64];
        snprintf(left, sizeof left, "--%s%s%s", o->name, o->argument ? " " : "",
                 o->argument ? o->argument : "");
        printf("  %-24s %s\n", left, o->help);
    }
    printf("\n-o, -v, -q and -h are short for --output, --verbose, --quiet and "
           "--help.\n\nexamples:\n%s",
           c->examples);
}

void nbt_print_help(const char *name) {
    const command *c = name ? find_command(name) : NULL;
    if (c) {
        print_command_help(name, c);
        return;
    }
    printf("nibble %s: compiles ONNX models to quantized native code for CPUs\n\n"
           "usage: nibble COMMAND [arguments]\n\ncommands:\n",
           NIBBLE_VERSION);
    for (size_t i = 0; i < NB_COUNT(commands); i++) {
        char written[32];
        size_t n = 0;
        for (const char *at = commands[i].name; *at && n + 1 < sizeof written; at++)
            written[n++] = *at == '_' ? '-' : *at;
        written[n] = '\0';
        printf("  %-10s %s\n", written, commands[i].summary);
    }
    printf("\n`nibble COMMAND --help` explains a command.\n"
           "Exit codes: 0 ok, 1 a check did not hold, 2 usage, 3 malformed input, 4 unsupported,\n"
           "5 a limit, 6 input or output, 7 internal.\n");
}

void nbt_out_of_memory(void *user) {
    (void)user;
    fputs("nibble: error: out of memory\n", stderr);
    exit(NB_LIMIT);
}
