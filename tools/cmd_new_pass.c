/* nibble new-pass: begins a pass outside this tree: NAME.c, tests/NAME.nir, CMakeLists.txt.
 *
 * What it writes is a whole pass, x * 1 -> x, that builds and whose test holds, with the places to
 * change marked by its comments. Nothing that exists is written over. */
#include "ir/support/output.h"
#include "tools/model.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* @ stands for the name as in pipelines, $ for it as a C identifier. */
static const char pass_text[] =
    "/* @: x * 1 -> x, a pass to start from.\n"
    " *\n"
    " *   requires   nothing\n"
    " *   maintains  every bit of every output\n"
    " *\n"
    " *   %y: f32[B,4] = mul %x, @one   ->   (uses of %y take %x)\n"
    " */\n"
    "#include \"nb_pass.h\"\n"
    "\n"
    "#include <string.h>\n"
    "\n"
    "/* Given in braces: @{skip=\"/lm_head/MatMul\"}. Values come in this order, as "
    "ctx->options[i]. */\n"
    "enum { SKIP };\n"
    "static const nb_option options[] = {\n"
    "    {.name = \"skip\",\n"
    "     .kind = NB_OPTION_SELECTOR,\n"
    "     .fallback = \"\",\n"
    "     .summary = \"ONNX nodes to leave alone\"},\n"
    "    {.name = NULL},\n"
    "};\n"
    "\n"
    "/* NULL when the rule applies to the match, else why not. */\n"
    "static const char *keeps_type(nb_pass_ctx *ctx, const nb_match *m) {\n"
    "    const nb_pass_host *h = ctx->host;\n"
    "    nb_op *op = h->matched_op(m);\n"
    "    if (h->selected(ctx, \"skip\", op)) return \"it is skipped\";\n"
    "    /* The 1 may have more axes than x. */\n"
    "    const char *before = h->value_type(ctx, h->matched(m, \"x\"));\n"
    "    return strcmp(before, h->value_type(ctx, h->result(op, 0))) == 0 ? NULL : \"x is "
    "broadcast\";\n"
    "}\n"
    "\n"
    "static const nb_rewrite_row rows[] = {\n"
    "    {.size = sizeof(nb_rewrite_row),\n"
    "     .name = \"mul-one\",\n"
    "     .rule = \"mul(x, 1) -> x\",\n"
    "     .where = keeps_type},\n"
    "};\n"
    "\n"
    "static nb_pass_result run(nb_pass_ctx *ctx) {\n"
    "    int changed = ctx->host->rewrite(ctx, rows, sizeof rows / sizeof *rows);\n"
    "    if (changed < 0) return NB_PASS_FAILED;\n"
    "    return changed ? NB_PASS_CHANGED : NB_PASS_UNCHANGED;\n"
    "}\n"
    "\n"
    "static const nb_pass pass = {\n"
    "    .size = sizeof(nb_pass),\n"
    "    .name = \"@\",\n"
    "    .summary = \"x * 1 -> x\",\n"
    "    .options = options,\n"
    "    .run = run,\n"
    "    .promises = NB_PASS_KEEPS_BITS, /* --check-each holds the pass to it */\n"
    "};\n"
    "\n"
    "static const nb_pass *const passes[] = {&pass, NULL};\n"
    "\n"
    "NB_EXPORT const nb_plugin nb_plugin_v1 = {\n"
    "    .size = sizeof(nb_plugin),\n"
    "    .abi_major = NB_PASS_ABI_MAJOR,\n"
    "    .abi_minor = NB_PASS_ABI_MINOR, /* the least that it needs */\n"
    "    .name = \"@\",\n"
    "    .passes = passes,\n"
    "};\n";

static const char test_text[] = "; A factor of 1 goes, other factors stay.\n"
                                "; passes: @\n"
                                "nir 1\n"
                                "graph @@g(%x: f32[B,4]) -> f32[B,4] {\n"
                                "  const @@one: f32[] = {1}\n"
                                "  const @@two: f32[] = {2}\n"
                                "  %a: f32[B,4] = mul %x, @@one at \"/Mul\"\n"
                                "  %y: f32[B,4] = mul %a, @@two at \"/Mul_1\"\n"
                                "  return %y\n"
                                "}\n"
                                "; ----\n"
                                "nir 1\n"
                                "graph @@g(%x: f32[B,4]) -> f32[B,4] {\n"
                                "  const @@two: f32[] = {2}\n"
                                "  %y: f32[B,4] = mul %x, @@two at \"/Mul_1\"\n"
                                "  return %y\n"
                                "}\n";

static const char cmake_text[] =
    "# The pass @, built with an installed Nibble:\n"
    "#\n"
    "#   cmake -B build -DCMAKE_PREFIX_PATH=WHERE_NIBBLE_IS && cmake --build build\n"
    "#   ctest --test-dir build\n"
    "cmake_minimum_required(VERSION 3.20)\n"
    "project($ LANGUAGES C)\n"
    "\n"
    "find_package(Nibble REQUIRED)\n"
    "enable_testing()\n"
    "nibble_add_pass(@ @.c)\n"
    "nibble_add_pass_tests(@ tests)\n";

static const struct {
    const char *path, *text; /* below the folder */
} files[] = {{"@.c", pass_text}, {"tests/@.nir", test_text}, {"CMakeLists.txt", cmake_text}};

/* `text` with the name in place; @@ is one @. */
static const char *filled(nb_arena *arena, const char *text, const char *name, const char *word) {
    const char *out = "";
    while (*text) {
        size_t n = strcspn(text, "@$");
        out = nb_format(arena, "%s%.*s", out, (int)n, text);
        text += n;
        if (*text == '@' && text[1] == '@') {
            out = nb_format(arena, "%s@", out);
            text += 2;
        } else if (*text) {
            out = nb_format(arena, "%s%s", out, *text == '@' ? name : word);
            text++;
        }
    }
    return out;
}

static bool is_name(const char *name) {
    return *name >= 'a' && *name <= 'z' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(name) &&
           strlen(name) <= 64;
}

static nb_status make_folder(nbt_args *args, const char *path) {
    if (mkdir(path, 0777) == 0 || errno == EEXIST) return NB_OK;
    return nb_error(args->diags, NB_IO, (nb_where){.file = path, .offset = -1},
                    "cannot make the folder: %s", strerror(errno));
}

static nb_status check_name(nbt_args *args, const char *name) {
    const nb_registry *registry = nb_registry_create(args->arena);
    if (nb_registry_find(registry, name, strlen(name)))
        return nb_error(args->diags, NB_USAGE, NB_NOWHERE, "a pass named '%s' exists already",
                        name);
    if (is_name(name)) return NB_OK;
    return nb_error(args->diags, NB_USAGE, NB_NOWHERE,
                    "a pass' name is lower case letters, digits and '-', a letter first; found "
                    "'%s'",
                    name);
}

nb_status nbt_new_pass(nbt_args *args) {
    nb_arena *a = args->arena;
    if (args->positional.count != 1)
        return nb_error(args->diags, NB_USAGE, NB_NOWHERE, "expected one name, found %zu arguments",
                        args->positional.count);
    const char *name = args->positional.items[0];
    const char *folder = nbt_get(args, "output") ? nbt_get(args, "output") : name;
    NB_TRY(check_name(args, name));
    const char *word = nb_identifier(a, name), *paths[NB_COUNT(files)];
    for (size_t i = 0; i < NB_COUNT(files); i++) {
        paths[i] = nb_format(a, "%s/%s", folder, filled(a, files[i].path, name, word));
        if (access(paths[i], F_OK) == 0)
            return nb_error(args->diags, NB_USAGE, (nb_where){.file = paths[i], .offset = -1},
                            "exists already");
    }
    NB_TRY(make_folder(args, folder));
    NB_TRY(make_folder(args, nb_format(a, "%s/tests", folder)));
    for (size_t i = 0; i < NB_COUNT(files); i++) {
        const char *text = filled(a, files[i].text, name, word);
        NB_TRY(nb_write_file(paths[i], text, strlen(text), args->diags));
        if (!nbt_has(args, "quiet")) printf("wrote %s\n", paths[i]);
    }
    if (!nbt_has(args, "quiet"))
        printf("next: cmake -B %s/build %s && cmake --build %s/build && nibble test-pass "
               "%s/build/%s.so %s/tests\n",
               folder, folder, folder, folder, name, folder);
    return NB_OK;
}
