/* Makes an nb_loaded out of a file or a descriptor: checks, then weights. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "runtime/load.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct nb_loaded {
    const nb_model *model;
    nb_weights weights;
    void *library; /* from dlopen, or NULL */
};

static nb_rt_status open_weights(nb_loaded *loaded, const void *weights, const char *path,
                                 const nb_load_options *options, char *err) {
    const nb_model *model = loaded->model;
    nb_weights *w = &loaded->weights;
    if (model->weights_size == 0) return NB_RT_OK;
    if (model->weights_size > PTRDIFF_MAX)
        return nb_rt_fail(err, NB_RT_NO_MEMORY, "the weights of '%s' exceed the address space",
                          model->name);
    w->data = weights ? weights : model->weights;
    if (!w->data) {
        if (!path)
            return nb_rt_fail(err, NB_RT_ARGUMENT,
                              "the weights of '%s' are not inside it: give them, "
                              "or the path of %s.nbw",
                              model->name, model->name);
        nb_rt_status status = nb_weights_map(path, model, w, err);
        if (status != NB_RT_OK) return status;
    }
    if ((uintptr_t)w->data % 64 != 0)
        return nb_rt_fail(err, NB_RT_ARGUMENT, "the weights of '%s' are not 64-byte aligned",
                          model->name);
    nb_rt_status status = NB_RT_OK;
    if (options->huge) status = nb_weights_to_huge(w, model, err);
    if (status == NB_RT_OK && options->verify) status = nb_weights_verify(w, model, err);
    return status;
}

/* Takes the library over, also when it fails. */
static nb_rt_status finish(const nb_model *model, void *library, const void *weights,
                           const char *weights_path, const nb_load_options *options,
                           nb_loaded **out, char *err) {
    static const nb_load_options standard = {.huge = 0, .verify = 1};
    nb_loaded *loaded = calloc(1, sizeof *loaded);
    if (!loaded) {
        if (library) dlclose(library);
        return nb_rt_fail(err, NB_RT_NO_MEMORY, "no memory to load a model");
    }
    loaded->model = model;
    loaded->library = library;
    nb_rt_status status = nb_check_model(model, err);
    if (status == NB_RT_OK)
        status = open_weights(loaded, weights, weights_path, options ? options : &standard, err);
    if (status != NB_RT_OK) {
        nb_unload(loaded);
        return status;
    }
    *out = loaded;
    return NB_RT_OK;
}

nb_rt_status nb_load_model(const nb_model *model, const void *weights, const char *weights_path,
                           const nb_load_options *options, nb_loaded **out, char *err) {
    if (!out) return nb_rt_fail(err, NB_RT_ARGUMENT, "nb_load_model: `out` is null");
    *out = NULL;
    if (!model)
        return nb_rt_fail(err, NB_RT_ARGUMENT,
                          "nb_load_model: the model is null: it was made for "
                          "another ABI version than %u",
                          NB_MODEL_ABI);
    return finish(model, NULL, weights, weights_path, options, out, err);
}

/* The .nbw beside `path`: with the same name, or else with the model's. NULL: no memory. */
static char *sidecar_path(const char *path, const char *model_name) {
    const char *slash = strrchr(path, '/');
    size_t folder = slash ? (size_t)(slash - path) + 1 : 0, stem = strlen(path);
    if (stem > folder + 3 && strcmp(path + stem - 3, ".so") == 0) stem -= 3;
    size_t name = strlen(model_name);
    size_t longer = stem > folder + name ? stem : folder + name;
    char *result = malloc(longer + sizeof ".nbw");
    if (!result) return NULL;
    memcpy(result, path, stem);
    memcpy(result + stem, ".nbw", sizeof ".nbw");
    /* A name from inside a file must not lead to another folder. */
    if (access(result, F_OK) != 0 && !strchr(model_name, '/')) {
        memcpy(result + folder, model_name, name);
        memcpy(result + folder + name, ".nbw", sizeof ".nbw");
    }
    return result;
}

/* dlopen would search the system's folders for a name without a slash. */
static void *open_library(const char *path) {
    if (strchr(path, '/')) return dlopen(path, RTLD_NOW | RTLD_LOCAL);
    size_t length = strlen(path);
    char *here = malloc(length + 3);
    if (!here) return NULL;
    memcpy(here, "./", 2);
    memcpy(here + 2, path, length + 1);
    void *library = dlopen(here, RTLD_NOW | RTLD_LOCAL);
    free(here);
    return library;
}

nb_rt_status nb_load(const char *path, const nb_load_options *options, nb_loaded **out, char *err) {
    if (!path || !out) return nb_rt_fail(err, NB_RT_ARGUMENT, "nb_load: `path` or `out` is null");
    *out = NULL;
    nb_entry_name entry;
    nb_rt_status status = nb_elf_entry(path, entry, err);
    if (status != NB_RT_OK) return status;
    void *library = open_library(path);
    if (!library) {
        const char *reason = dlerror();
        return nb_rt_fail(err, NB_RT_CORRUPT, "%s",
                          reason ? reason : "no memory to open a library");
    }
    nb_model_fn get;
    *(void **)&get = dlsym(library, entry); /* as POSIX has it: C has no such cast */
    const nb_model *model = get ? get(NB_MODEL_ABI) : NULL;
    if (!model) {
        dlclose(library);
        return nb_rt_fail(err, NB_RT_ABI, "%s: was made for another ABI version, expected %u", path,
                          NB_MODEL_ABI);
    }
    char *sidecar = NULL;
    if (model->abi == NB_MODEL_ABI && model->name) {
        sidecar = sidecar_path(path, model->name);
        if (!sidecar) {
            dlclose(library);
            return nb_rt_fail(err, NB_RT_NO_MEMORY, "no memory to load a model");
        }
    }
    status = finish(model, library, NULL, sidecar, options, out, err);
    free(sidecar);
    return status;
}

void nb_unload(nb_loaded *loaded) {
    if (!loaded) return;
    nb_weights_close(&loaded->weights);
    if (loaded->library) dlclose(loaded->library);
    free(loaded);
}

const nb_model *nb_loaded_model(const nb_loaded *loaded) { return loaded ? loaded->model : NULL; }

const unsigned char *nb_loaded_weights(const nb_loaded *loaded) { return loaded->weights.data; }
