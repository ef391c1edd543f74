/* Which passes there are: the built-in table and what plug-ins add. */
#include "passes/pass.h"

#include <dlfcn.h>
#include <string.h>

#define PASS(name) extern const nb_pass nb_pass_##name;
#include "passes/passes.def"
#undef PASS

static const nb_pass *const builtins[] = {
#define PASS(name) &nb_pass_##name,
#include "passes/passes.def"
#undef PASS
};

nb_registry *nb_registry_create(nb_arena *arena) {
    nb_registry *r = NB_NEW(arena, nb_registry);
    r->arena = arena;
    for (size_t i = 0; i < NB_COUNT(builtins); i++) nb_vec_push(arena, &r->passes, builtins[i]);
    return r;
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
    if (p->size < sizeof(nb_pass) || !name_is_valid(p->name) || !p->run || !p->summary)
        return nb_error(
            diags, NB_USAGE, where,
            "pass number %zu lacks a member: expected size, name ([a-z0-9-]), summary and run", i);
    for (size_t k = 0; p->options && p->options[k].name; k++) {
        const nb_option *o = &p->options[k];
        if (!name_is_valid(o->name) || !o->summary || (unsigned)o->kind > NB_OPTION_ENUM ||
            (o->kind == NB_OPTION_ENUM && !o->choices))
            return nb_error(diags, NB_USAGE, where,
                            "option number %zu of pass '%s' lacks a member: expected name "
                            "([a-z0-9-]), a kind, summary, and choices for an enumeration",
                            k, p->name);
    }
    if (nb_registry_find(registry, p->name, strlen(p->name)))
        return nb_error(diags, NB_USAGE, where, "a pass named '%s' exists already", p->name);
    return NB_OK;
}

nb_status nb_registry_add(nb_registry *registry, const nb_plugin *plugin, const char *path,
                          nb_diags *diags) {
    nb_where where = {.file = path, .offset = -1};
    if (plugin->size < sizeof(nb_plugin) || plugin->abi_major != NB_PASS_ABI_MAJOR) {
        nb_error(diags, NB_USAGE, where, "plug-in has pass ABI %u.%u, this nibble has %d.%d",
                 plugin->abi_major, plugin->abi_minor, NB_PASS_ABI_MAJOR, NB_PASS_ABI_MINOR);
        nb_help(diags, "rebuild it against this nibble's nb_pass.h");
        return NB_USAGE;
    }
    size_t before = registry->passes.count;
    for (size_t i = 0; plugin->passes && plugin->passes[i]; i++) {
        nb_status status = check_pass(registry, plugin->passes[i], i, where, diags);
        if (status != NB_OK) {
            registry->passes.count = before; /* all of a plug-in or nothing */
            return status;
        }
        nb_vec_push(registry->arena, &registry->passes, plugin->passes[i]);
    }
    return NB_OK;
}

nb_status nb_registry_load(nb_registry *registry, const char *path, nb_diags *diags) {
    nb_where where = {.file = path, .offset = -1};
    /* A bare name would be searched for in system directories: only paths are meant. */
    const char *full = strchr(path, '/') ? path : nb_format(registry->arena, "./%s", path);
    void *handle = dlopen(full, RTLD_NOW | RTLD_LOCAL);
    if (!handle) return nb_error(diags, NB_IO, where, "cannot load plug-in: %s", dlerror());
    const nb_plugin *plugin = dlsym(handle, NB_PLUGIN_SYMBOL);
    nb_status status = NB_OK;
    if (!plugin) {
        status = nb_error(diags, NB_USAGE, where, "no symbol '%s' in this file", NB_PLUGIN_SYMBOL);
        nb_help(diags, "a plug-in exports one constant: NB_EXPORT const nb_plugin %s = {...};",
                NB_PLUGIN_SYMBOL);
    } else {
        status = nb_registry_add(registry, plugin, path, diags);
    }
    if (status != NB_OK) dlclose(handle);
    return status;
}
