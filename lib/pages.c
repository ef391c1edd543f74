/* Memory for weights (pages.h). */
#include "lib/pages.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE_PAGE ((size_t)2 << 20)

/* Pages of a file that has no name, mapped as the runtime maps a .nbw. */
static void *map_file(size_t size) {
    int fd = memfd_create("weights", MFD_CLOEXEC);
    if (fd < 0) return MAP_FAILED;
    void *map = MAP_FAILED;
    if (ftruncate(fd, (off_t)size) == 0)
        map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return map;
}

nb_status nbl_memory_create(nbl_pages pages, size_t size, nb_diags *diags, nbl_memory *out) {
    /* One page more, because mmap does not align to huge pages; what is smaller has none. */
    bool huge = pages != NBL_PAGES_SHARED && size >= HUGE_PAGE;
    size_t map_size = huge ? size + HUGE_PAGE : size + 1;
    void *map = MAP_FAILED;
    *out = (nbl_memory){0};
    if (map_size > size)
        map = pages == NBL_PAGES_SHARED ? map_file(map_size)
                                        : mmap(NULL, map_size, PROT_READ | PROT_WRITE,
                                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return nb_error(diags, NB_LIMIT, NB_NOWHERE, "out of memory for %zu bytes of weights",
                        size);
    *out = (nbl_memory){map, map, map_size};
    if (!huge) return NB_OK;
    /* Without huge pages it is merely slower, so a refusal does not matter. */
    madvise(map, map_size, MADV_HUGEPAGE);
    out->data = (char *)map + (HUGE_PAGE - (uintptr_t)map % HUGE_PAGE) % HUGE_PAGE;
    return NB_OK;
}

void nbl_memory_free(nbl_memory *memory) {
    if (memory->map) munmap(memory->map, memory->map_size);
    *memory = (nbl_memory){0};
}

double nbl_huge_share(const void *data, size_t size) {
    FILE *f = fopen("/proc/self/smaps", "r");
    unsigned long from = (unsigned long)(uintptr_t)data, to = from + size, begin, end, kib;
    double huge = 0;
    bool inside = false;
    char line[512];
    while (f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "%lx-%lx ", &begin, &end) == 2)
            inside = begin < to && end > from;
        else if (inside && (sscanf(line, "AnonHugePages: %lu", &kib) == 1 ||
                            sscanf(line, "ShmemPmdMapped: %lu", &kib) == 1 ||
                            sscanf(line, "FilePmdMapped: %lu", &kib) == 1))
            huge += 1024.0 * (double)kib;
    }
    if (f) fclose(f);
    double share = size ? huge / (double)size : 0;
    return share < 1 ? share : 1;
}
