/* Blobs of constants and constants themselves. */
#include "ir/interner.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void free_owned(nb_blob *blob) {
    free(blob->owner);
    free(blob);
}

nb_blob *nb_blob_create(int64_t size, void **data) {
    nb_blob *blob = size < 0 ? NULL : calloc(1, sizeof *blob);
    /* 64-byte alignment serves vector loads; the size is rounded up as aligned_alloc asks. */
    size_t rounded = ((size_t)size + 63) / 64 * 64;
    void *memory = blob ? aligned_alloc(64, rounded ? rounded : 64) : NULL;
    if (!memory) {
        free(blob);
        return NULL;
    }
    *blob = (nb_blob){
        .data = memory, .size = size, .references = 1, .release = free_owned, .owner = memory};
    *data = memory;
    return blob;
}

static void unmap_owned(nb_blob *blob) {
    munmap(blob->owner, (size_t)blob->size);
    free(blob);
}

nb_blob *nb_blob_zeros(int64_t size) {
    void *data;
    if (size <= 0) return nb_blob_create(size, &data);
    nb_blob *blob = calloc(1, sizeof *blob);
    void *memory = blob ? mmap(NULL, (size_t)size, PROT_READ,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
                        : MAP_FAILED;
    if (memory == MAP_FAILED) {
        free(blob);
        return NULL;
    }
    *blob = (nb_blob){
        .data = memory, .size = size, .references = 1, .release = unmap_owned, .owner = memory};
    return blob;
}

nb_blob *nb_blob_borrow(nb_arena *arena, const void *data, int64_t size) {
    nb_blob *blob = NB_NEW(arena, nb_blob);
    *blob = (nb_blob){.data = data, .size = size, .references = 1};
    return blob;
}

nb_blob *nb_blob_retain(nb_blob *blob) {
    blob->references++;
    return blob;
}

void nb_blob_release(nb_blob *blob) {
    if (blob && --blob->references == 0 && blob->release) blob->release(blob);
}

uint64_t nb_blob_hash(nb_blob *blob) {
    if (!blob->hash) {
        blob->hash = nb_hash(blob->data, (size_t)blob->size);
        nb_blob_rest(blob);
    }
    return blob->hash;
}

/* What is smaller is not worth a call of the system. */
#define REST_BYTES ((int64_t)1 << 18)

void nb_blob_rest(const nb_blob *blob) {
    if (!blob->mapped || blob->size < REST_BYTES) return;
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), data = (uintptr_t)blob->data,
                    first = data / page * page, end = data + (uintptr_t)blob->size;
    madvise((void *)first, end - first, MADV_DONTNEED);
}

void nb_graph_rest(const nb_graph *g) {
    for (size_t i = 0; i < g->constants.count; i++) nb_blob_rest(g->constants.items[i]->blob);
}

bool nb_graph_is_mapped(const nb_graph *g) {
    for (size_t i = 0; i < g->constants.count; i++)
        if (g->constants.items[i]->blob->mapped) return true;
    return false;
}

nb_value *nb_graph_add_const_named(nb_graph *g, const char *name, size_t length,
                                   const nb_type *type, nb_blob *blob, const nb_loc *loc) {
    nb_value *v = nb_value_create_named(g, name, length, type, true);
    v->blob = blob;
    v->loc = loc;
    nb_vec_push(g->arena, &g->constants, v);
    return v;
}

nb_value *nb_graph_add_const(nb_graph *g, const char *name, const nb_type *type, nb_blob *blob,
                             const nb_loc *loc) {
    return nb_graph_add_const_named(g, name, strlen(name), type, blob, loc);
}

static nb_value *small_const(nb_graph *g, const char *name, nb_elem elem, int rank,
                             const int64_t *dims, const void *data) {
    const nb_dim *d[NB_MAX_RANK];
    int64_t count = 1;
    for (int i = 0; i < rank; i++) {
        d[i] = nb_dim_const(g, dims[i]);
        count *= dims[i];
    }
    size_t bytes = (size_t)count * (size_t)(nb_elems[elem].bits / 8);
    void *copy = nb_alloc(g->arena, bytes + 1);
    if (bytes) memcpy(copy, data, bytes);
    return nb_graph_add_const(g, name, nb_type_intern(g, elem, NULL, rank, d),
                              nb_blob_borrow(g->arena, copy, (int64_t)bytes), NULL);
}

nb_value *nb_const_f32(nb_graph *g, const char *name, int rank, const int64_t *dims,
                       const float *data) {
    return small_const(g, name, NB_F32, rank, dims, data);
}

nb_value *nb_const_f64(nb_graph *g, const char *name, int rank, const int64_t *dims,
                       const double *data) {
    return small_const(g, name, NB_F64, rank, dims, data);
}

nb_value *nb_const_i64(nb_graph *g, const char *name, int rank, const int64_t *dims,
                       const int64_t *data) {
    return small_const(g, name, NB_I64, rank, dims, data);
}
