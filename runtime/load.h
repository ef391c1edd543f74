/* The parts of loading: a shared object's headers, the weights, the model's descriptor. */
#ifndef NB_RUNTIME_LOAD_H
#define NB_RUNTIME_LOAD_H

#include "runtime/support.h"

/* elf.c: checks, without running any of it, that the file is a complete shared object for this
 * machine, and finds the name of the one function it exports that ends in `_model`. */
typedef char nb_entry_name[256];
nb_rt_status nb_elf_entry(const char *path, nb_entry_name name, char *err);

/* check.c: whether the descriptor is one that this runtime and CPU can use. */
nb_rt_status nb_check_model(const nb_model *model, char *err);

/* weights.c. `map` is what to unmap, or NULL when the bytes belong to someone else. */
typedef struct nb_weights {
    const unsigned char *data;
    void *map;
    size_t map_size;
} nb_weights;

nb_rt_status nb_weights_map(const char *path, const nb_model *model, nb_weights *out, char *err);
/* Moves the weights to anonymous memory with huge pages, which files cannot have. */
nb_rt_status nb_weights_to_huge(nb_weights *weights, const nb_model *model, char *err);
nb_rt_status nb_weights_verify(const nb_weights *weights, const nb_model *model, char *err);
void nb_weights_close(nb_weights *weights);

/* load.c: the bytes, or NULL when the model has none. */
const unsigned char *nb_loaded_weights(const nb_loaded *loaded);

/* How many symbols only data tell; models of before have none. */
static inline uint32_t nb_counted(const nb_model *model) {
    return model->size < sizeof *model ? 0 : model->n_counted;
}

#endif
