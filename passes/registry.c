/* Which passes there are: the built-in table and what plug-ins add. */
#include "passes/host.h"

#include <ctype.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

/* How long the structs were in the first header of this major number: what follows may be missing.
 */
#define PASS_SIZE   NB_SIZE_TO(nb_pass, needs)
#define PLUGIN_SIZE NB_SIZE_TO(nb_plugin, ops)
#define OP_SIZE     NB_SIZE_TO(nb_op_def, attributes)

#define PASS(name) extern const nb_pass nb_pass_##name;
#include "passes/passes.def"
#undef PASS

static const nb_pass *const builtins[] = {
#define PASS(name) &nb_pass_##name,
#include "passes/passes.def"
#undef PASS
};

const nb_pass *nb_builtin_pass(size_t i) { return i < NB_COUNT(builtins) ? builtins[i] : NULL; }

nb_registry *nb_registry_create(nb_arena *arena) {
    nb_registry *r = NB_NEW(arena, nb_registry);
    r->arena = arena;
    for (size_t i = 0; i < NB_COUNT(builtins); i++) nb_vec_push(arena, &r->passes, builtins[i]);
    r->n_builtins = NB_COUNT(builtins);
    return r;
}

bool nb_registry_is_loaded(const nb_registry *registry, const nb_pass *pass) {
    for (size_t i = registry ? registry->n_builtins : 0; registry && i < registry->passes.count;
         i++)
        if (registry->passes.items[i] == pass) return true;
    return false;
}

const nb_op_def *nb_registry_find_op(const nb_registry *registry, const char *name) {
    for (size_t i = 0; registry && i < registry->ops.count; i++)
        if (strcmp(registry->ops.items[i]->name, name) == 0) return registry->ops.items[i];
    return NULL;
}

const nb_pass *nb_registry_find(const nb_registry *registry, const char *name, size_t length) {
    for (size_t i = 0; i < registry->passes.count; i++) {
        const nb_pass *p = registry->passes.items[i];
        if (strlen(p->name) == length && memcmp(p->name, name, length) == 0) return p;
    }
    return NULL;
}

static bool name_is_valid(const char *name) {
    if (!name || !*name) return false;
    return strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(name);
}

static nb_status check_pass(const nb_registry *registry, const nb_pass *p, size_t i, nb_where where,
                            nb_diags *diags) {
    if (p->size < PASS_SIZE || !name_is_valid(p->name) || !p->run || !p->summary)
        return nb_error(
            diags, NB_USAGE, where,
            "pass number %zu lacks a member: expected size, name ([a-z0-9-]), summary and run", i);
    for (size_t k = 0; p->options && p->options[k].name; k++) {
        const nb_option *o = &p->options[k];
        if (!name_is_valid(o->name) || !o->summary || (unsigned)o->kind > NB_OPTION_SELECTOR ||
            (o->kind == NB_OPTION_ENUM && !o->choices) || o->reserved)
            return nb_error(diags, NB_USAGE, where,
                            "option number %zu of pass '%s' lacks a member: expected name "
                            "([a-z0-9-]), a kind, summary, choices for an enumeration, and "
                            "nothing in what is reserved",
                            k, p->name);
    }
    /* `include` is a word of pipelines. */
    if (nb_registry_find(registry, p->name, strlen(p->name)) || strcmp(p->name, "include") == 0)
        return nb_error(diags, NB_USAGE, where, "a pass named '%s' exists already", p->name);
    return NB_OK;
}

/* The plug-in's struct as this host knows it: members that it does not have are 0. */
static void *grown(nb_arena *arena, const void *from, size_t theirs, size_t ours) {
    void *to = nb_alloc(arena, ours);
    nb_take_sized(to, ours, from, theirs);
    return to;
}

static bool is_identifier(const char *name) {
    if (!name || !(isalpha((unsigned char)*name) || *name == '_')) return false;
    for (const char *c = name; *c; c++)
        if (!isalnum((unsigned char)*c) && *c != '_') return false;
    return true;
}

/* Of nb_op_def.attributes: how many become operands; SIZE_MAX: it is no list of attributes. */
static size_t float_attributes(const char *text) {
    size_t floats = 0;
    for (const char *p = text; *p; p += strspn(p, " ")) {
        const size_t name = strcspn(p, ": ");
        if (!name || p[name] != ':' || !p[name + 1] || !strchr("iIfF", p[name + 1]))
            return SIZE_MAX;
        const char kind = p[name + 1];
        floats += kind == 'f' || kind == 'F';
        p += name + 2;
        if (*p == '=') {
            char *end;
            if (kind == 'i') (void)!strtoll(p + 1, &end, 10);
            if (kind == 'f') (void)!strtof(p + 1, &end);
            if (kind == 'I' || kind == 'F' || end == p + 1) return SIZE_MAX;
            p = end;
        }
        if (*p && *p != ' ') return SIZE_MAX;
    }
    return floats;
}

/* The operator of ONNX whose nodes become calls. */
static nb_status check_onnx(const nb_registry *registry, const nb_op_def *op, nb_where where,
                            nb_diags *diags) {
    const char *colons = op->onnx ? strstr(op->onnx, "::") : NULL;
    const size_t floats = op->attributes ? float_attributes(op->attributes) : 0;
    if (!op->onnx && !op->attributes) return NB_OK;
    if (!colons || colons == op->onnx || !colons[2])
        return nb_error(diags, NB_USAGE, where,
                        "operation '%s': expected an operator as \"domain::Op\", found \"%s\"",
                        op->name, op->onnx ? op->onnx : "");
    if (floats > op->operands) {
        nb_error(diags, NB_USAGE, where, "operation '%s': cannot read attributes \"%s\"", op->name,
                 op->attributes);
        nb_help(diags, "write \"axis:i=-1 pads:I alpha:f\"; each of kind f or F is an operand");
        return NB_USAGE;
    }
    for (size_t i = 0; i < registry->ops.count; i++) {
        const char *other = registry->ops.items[i]->onnx;
        if (other && strcmp(other, op->onnx) == 0)
            return nb_error(diags, NB_USAGE, where, "operations '%s' and '%s' both stand for %s",
                            registry->ops.items[i]->name, op->name, op->onnx);
    }
    return NB_OK;
}

/* `handle` is NULL for a plug-in in memory, whose functions cannot be looked for. */
static nb_status check_op(const nb_registry *registry, const nb_op_def *op, size_t i, void *handle,
                          nb_where where, nb_diags *diags) {
    if (op->size < OP_SIZE || !is_identifier(op->name) || !op->summary)
        return nb_error(diags, NB_USAGE, where,
                        "operation number %zu lacks a member: expected size, name (a C "
                        "identifier) and summary",
                        i);
    if (nb_registry_find_op(registry, op->name))
        return nb_error(diags, NB_USAGE, where, "an operation named '%s' exists already", op->name);
    if (handle && !dlsym(handle, nb_format(registry->arena, "nb_call_%s", op->name))) {
        nb_error(diags, NB_USAGE, where, "no function 'nb_call_%s', which computes operation '%s'",
                 op->name, op->name);
        nb_help(diags, "define it with NB_EXPORT; its parameters are those of nb_call_fn");
        return NB_USAGE;
    }
    return NB_OK;
}

static nb_status add(nb_registry *registry, const nb_plugin *plugin, void *handle, nb_where where,
                     nb_diags *diags) {
    for (size_t i = 0; plugin->passes && plugin->passes[i]; i++) {
        const nb_pass *p = plugin->passes[i];
        NB_TRY(check_pass(registry, p, i, where, diags));
        p = grown(registry->arena, p, p->size, sizeof *p);
        nb_vec_push(registry->arena, &registry->passes, p);
    }
    for (size_t i = 0; plugin->ops && plugin->ops[i]; i++) {
        const nb_op_def *op = plugin->ops[i];
        NB_TRY(check_op(registry, op, i, handle, where, diags));
        op = grown(registry->arena, op, op->size, sizeof *op);
        NB_TRY(check_onnx(registry, op, where, diags));
        nb_vec_push(registry->arena, &registry->ops, op);
    }
    return NB_OK;
}

static nb_status other_abi(unsigned major, unsigned minor, nb_where where, nb_diags *diags) {
    nb_error(diags, NB_USAGE, where, "plug-in has pass ABI %u.%u, this nibble has %d.%d", major,
             minor, NB_PASS_ABI_MAJOR, NB_PASS_ABI_MINOR);
    if (major == NB_PASS_ABI_MAJOR)
        nb_help(diags, "it needs a newer nibble, or a rebuild against this one's nb_pass.h");
    else
        nb_help(diags, "rebuild it against this nibble's nb_pass.h");
    return NB_USAGE;
}

/* All of a plug-in or nothing. */
static nb_status add_whole(nb_registry *registry, const nb_plugin *plugin, void *handle,
                           const char *path, nb_diags *diags) {
    nb_where where = {.file = path, .offset = -1};
    if (plugin->abi_major != NB_PASS_ABI_MAJOR || plugin->abi_minor > NB_PASS_ABI_MINOR)
        return other_abi(plugin->abi_major, plugin->abi_minor, where, diags);
    if (plugin->size < PLUGIN_SIZE)
        return nb_error(diags, NB_USAGE, where, "nb_plugin.size is %u, expected sizeof(nb_plugin)",
                        plugin->size);
    const size_t passes = registry->passes.count, ops = registry->ops.count;
    nb_status status = add(registry, grown(registry->arena, plugin, plugin->size, sizeof *plugin),
                           handle, where, diags);
    if (status != NB_OK) {
        registry->passes.count = passes;
        registry->ops.count = ops;
    }
    return status;
}

nb_status nb_registry_add(nb_registry *registry, const nb_plugin *plugin, const char *path,
                          nb_diags *diags) {
    return add_whole(registry, plugin, NULL, path, diags);
}

/* What a plug-in of another major number exports; NULL: nothing. */
static const nb_plugin *plugin_of_other_major(void *handle) {
    char symbol[] = "nb_plugin_v0";
    for (; symbol[sizeof symbol - 2] <= '9'; symbol[sizeof symbol - 2]++) {
        const nb_plugin *plugin = dlsym(handle, symbol);
        if (plugin) return plugin;
    }
    return NULL;
}

nb_status nb_registry_load(nb_registry *registry, const char *path, nb_diags *diags) {
    nb_where where = {.file = path, .offset = -1};
    /* A bare name would be searched for in system directories: only paths are meant. */
    const char *full = strchr(path, '/') ? path : nb_format(registry->arena, "./%s", path);
    void *handle = dlopen(full, RTLD_NOW | RTLD_LOCAL);
    if (!handle) return nb_error(diags, NB_IO, where, "cannot load plug-in: %s", dlerror());
    const nb_plugin *plugin = dlsym(handle, NB_PLUGIN_SYMBOL);
    nb_status status = NB_OK;
    const nb_plugin *other = plugin ? NULL : plugin_of_other_major(handle);
    if (other) {
        status = other_abi(other->abi_major, other->abi_minor, where, diags);
    } else if (!plugin) {
        status = nb_error(diags, NB_USAGE, where, "no symbol '%s' in this file", NB_PLUGIN_SYMBOL);
        nb_help(diags, "a plug-in exports one constant: NB_EXPORT const nb_plugin %s = {...};",
                NB_PLUGIN_SYMBOL);
    } else {
        const size_t ops = registry->ops.count;
        status = add_whole(registry, plugin, handle, path, diags);
        /* Functions of operations are called by name: by the evaluator and by compiled models. */
        if (status == NB_OK && registry->ops.count > ops)
            dlopen(full, RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL);
    }
    if (status != NB_OK) dlclose(handle);
    return status;
}
