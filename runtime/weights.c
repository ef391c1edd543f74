/* Where a model's weights lie in memory: mapped from their file, or copied to huge pages. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "runtime/hash.h"
#include "runtime/load.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HUGE_PAGE ((size_t)2 << 20)

static nb_rt_status check_file(const char *path, const unsigned char *data, uint64_t size,
                               const nb_model *model, char *err) {
    nb_weights_header header;
    memcpy(&header, data, sizeof header);
    if (memcmp(header.magic, NB_WEIGHTS_MAGIC, sizeof header.magic) != 0)
        return nb_rt_fail(err, NB_RT_CORRUPT, "%s: not a weights file", path);
    if (header.abi != NB_MODEL_ABI)
        return nb_rt_fail(err, NB_RT_ABI, "%s: has ABI version %" PRIu32 ", expected %u", path,
                          header.abi, NB_MODEL_ABI);
    if (header.size != model->weights_size || header.hash != model->weights_hash)
        return nb_rt_fail(err, NB_RT_CORRUPT,
                          "%s: belongs to another model than '%s' (its hash is "
                          "%016" PRIx64 ", expected %016" PRIx64 ")",
                          path, model->name, header.hash, model->weights_hash);
    if (size - NB_WEIGHTS_OFFSET != model->weights_size)
        return nb_rt_fail(err, NB_RT_CORRUPT,
                          "%s: damaged: has %" PRIu64 " bytes of weights, "
                          "expected %" PRIu64,
                          path, size - NB_WEIGHTS_OFFSET, model->weights_size);
    return NB_RT_OK;
}

static nb_rt_status map_open_file(const char *path, int fd, const nb_model *model, nb_weights *out,
                                  char *err) {
    struct stat info;
    if (fstat(fd, &info) != 0) return nb_rt_fail(err, NB_RT_IO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode) || info.st_size < NB_WEIGHTS_OFFSET)
        return nb_rt_fail(err, NB_RT_CORRUPT, "%s: not a weights file", path);
    if ((uintmax_t)info.st_size > SIZE_MAX)
        return nb_rt_fail(err, NB_RT_NO_MEMORY, "%s: larger than the address space", path);
    size_t size = (size_t)info.st_size;
    /* Shared, so that all processes that run the model use the same memory. */
    void *map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return nb_rt_fail(err, errno == ENOMEM ? NB_RT_NO_MEMORY : NB_RT_IO, "%s: %s", path,
                          strerror(errno));
    nb_rt_status status = check_file(path, map, size, model, err);
    if (status != NB_RT_OK) {
        munmap(map, size);
        return status;
    }
    out->data = (const unsigned char *)map + NB_WEIGHTS_OFFSET;
    out->map = map;
    out->map_size = size;
    return NB_RT_OK;
}

nb_rt_status nb_weights_map(const char *path, const nb_model *model, nb_weights *out, char *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return nb_rt_fail(err, NB_RT_IO, "%s: weights of '%s': %s", path, model->name,
                          strerror(errno));
    nb_rt_status status = map_open_file(path, fd, model, out, err);
    close(fd);
    return status;
}

nb_rt_status nb_weights_to_huge(nb_weights *weights, const nb_model *model, char *err) {
    size_t size = (size_t)model->weights_size;
    /* One page more, because mmap does not align to huge pages. */
    size_t map_size = size + HUGE_PAGE;
    void *map = MAP_FAILED;
    if (map_size > size)
        map = mmap(NULL, map_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return nb_rt_fail(err, NB_RT_NO_MEMORY, "no memory for the weights of '%s': %zu bytes",
                          model->name, size);
    /* Without huge pages it is merely slower, so a refusal does not matter. */
    madvise(map, map_size, MADV_HUGEPAGE);
    unsigned char *data = (unsigned char *)map;
    data += (HUGE_PAGE - (uintptr_t)data % HUGE_PAGE) % HUGE_PAGE;
    memcpy(data, weights->data, size);
    mprotect(map, map_size, PROT_READ);
    nb_weights_close(weights);
    *weights = (nb_weights){data, map, map_size};
    return NB_RT_OK;
}

nb_rt_status nb_weights_verify(const nb_weights *weights, const nb_model *model, char *err) {
    uint64_t hash = nb_weights_hash(weights->data, (size_t)model->weights_size);
    if (hash != model->weights_hash)
        return nb_rt_fail(err, NB_RT_CORRUPT,
                          "the weights of '%s' are damaged: their hash is "
                          "%016" PRIx64 ", expected %016" PRIx64,
                          model->name, hash, model->weights_hash);
    return NB_RT_OK;
}

void nb_weights_close(nb_weights *weights) {
    if (weights->map) munmap(weights->map, weights->map_size);
    *weights = (nb_weights){0};
}
