/* Looks at a shared object before the dynamic linker does (load.h).
 *
 * dlopen's own messages do not say what is wrong with a file for another machine, and a file that
 * was cut short makes it crash. All reads stay inside the file, whatever its headers say. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "runtime/load.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__x86_64__)
#define HOST_MACHINE EM_X86_64
#elif defined(__i386__)
#define HOST_MACHINE EM_386
#elif defined(__aarch64__)
#define HOST_MACHINE EM_AARCH64
#elif defined(__arm__)
#define HOST_MACHINE EM_ARM
#elif defined(__riscv)
#define HOST_MACHINE EM_RISCV
#else
#error "the runtime has not been ported to this machine"
#endif

#define HOST_CLASS (sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32)

typedef struct file {
    const char *path;
    const unsigned char *data;
    size_t size;
} file;

static const char *machine_name(unsigned machine) {
    switch (machine) {
    case EM_X86_64:
        return "x86-64";
    case EM_386:
        return "32-bit x86";
    case EM_AARCH64:
        return "aarch64";
    case EM_ARM:
        return "32-bit Arm";
    case EM_RISCV:
        return "RISC-V";
    default:
        return "another machine";
    }
}

static bool inside(const file *f, uint64_t offset, uint64_t size) {
    return offset <= f->size && size <= f->size - offset;
}

/* Headers may sit at any offset in a damaged file, so they are copied out. */
static bool read_at(const file *f, uint64_t offset, void *out, size_t size) {
    if (!inside(f, offset, size)) return false;
    memcpy(out, f->data + offset, size);
    return true;
}

static nb_rt_status cut_short(const file *f, char *err) {
    return nb_rt_fail(err, NB_RT_CORRUPT, "%s: damaged: its headers point outside its %zu bytes",
                      f->path, f->size);
}

static nb_rt_status check_header(const file *f, ElfW(Ehdr) * header, char *err) {
    if (f->size < EI_NIDENT || memcmp(f->data, ELFMAG, SELFMAG) != 0)
        return nb_rt_fail(err, NB_RT_CORRUPT, "%s: not a shared object (ELF)", f->path);
    if (f->data[EI_CLASS] != HOST_CLASS || f->data[EI_DATA] != ELFDATA2LSB)
        return nb_rt_fail(err, NB_RT_ABI, "%s: made for another machine, this is %s", f->path,
                          machine_name(HOST_MACHINE));
    if (!read_at(f, 0, header, sizeof *header)) return cut_short(f, err);
    if (header->e_machine != HOST_MACHINE)
        return nb_rt_fail(err, NB_RT_ABI, "%s: made for %s, this is %s", f->path,
                          machine_name(header->e_machine), machine_name(HOST_MACHINE));
    if (header->e_type != ET_DYN)
        return nb_rt_fail(err, NB_RT_CORRUPT, "%s: an ELF file, but not a shared object", f->path);
    if (header->e_phentsize != sizeof(ElfW(Phdr)) || header->e_shentsize != sizeof(ElfW(Shdr)))
        return nb_rt_fail(err, NB_RT_CORRUPT, "%s: damaged: odd header sizes", f->path);
    for (unsigned i = 0; i < header->e_phnum; i++) {
        ElfW(Phdr) segment;
        uint64_t at;
        if (__builtin_add_overflow(header->e_phoff, i * sizeof segment, &at) ||
            !read_at(f, at, &segment, sizeof segment) ||
            (segment.p_type == PT_LOAD && !inside(f, segment.p_offset, segment.p_filesz)))
            return cut_short(f, err);
    }
    return NB_RT_OK;
}

static bool read_section(const file *f, const ElfW(Ehdr) * header, unsigned index,
                         ElfW(Shdr) * section) {
    uint64_t at;
    return index < header->e_shnum &&
           !__builtin_add_overflow(header->e_shoff, index * sizeof *section, &at) &&
           read_at(f, at, section, sizeof *section);
}

/* The symbol's name when it is an exported function NAME_model, else NULL. */
static const char *model_name(const file *f, const ElfW(Shdr) * strings, const ElfW(Sym) * symbol) {
    static const char ending[] = "_model";
    const size_t ending_length = sizeof ending - 1;
    /* Type and binding have the same encoding in both classes. */
    if (symbol->st_shndx == SHN_UNDEF || ELF64_ST_TYPE(symbol->st_info) != STT_FUNC ||
        ELF64_ST_BIND(symbol->st_info) == STB_LOCAL || symbol->st_name >= strings->sh_size)
        return NULL;
    const char *name = (const char *)f->data + strings->sh_offset + symbol->st_name;
    size_t room = (size_t)strings->sh_size - symbol->st_name;
    size_t length = strnlen(name, room);
    if (length == room || length >= sizeof(nb_entry_name) || length <= ending_length ||
        strcmp(name + length - ending_length, ending) != 0)
        return NULL;
    return name;
}

static nb_rt_status find_entry(const file *f, nb_entry_name name, char *err) {
    ElfW(Ehdr) header;
    nb_rt_status status = check_header(f, &header, err);
    if (status != NB_RT_OK) return status;
    /* The section table is the last thing in most files: it tells whether the file is complete. */
    if (!inside(f, header.e_shoff, (uint64_t)header.e_shnum * sizeof(ElfW(Shdr))))
        return cut_short(f, err);
    ElfW(Shdr) symbols = {0}, strings;
    for (unsigned i = 0; i < header.e_shnum && symbols.sh_type != SHT_DYNSYM; i++)
        if (!read_section(f, &header, i, &symbols)) return cut_short(f, err);
    if (symbols.sh_type != SHT_DYNSYM)
        return nb_rt_fail(err, NB_RT_CORRUPT, "%s: has no dynamic symbol table", f->path);
    if (!read_section(f, &header, symbols.sh_link, &strings) ||
        !inside(f, symbols.sh_offset, symbols.sh_size) ||
        !inside(f, strings.sh_offset, strings.sh_size))
        return cut_short(f, err);

    const char *found = NULL;
    for (uint64_t at = 0; symbols.sh_size - at >= sizeof(ElfW(Sym)); at += sizeof(ElfW(Sym))) {
        ElfW(Sym) symbol;
        memcpy(&symbol, f->data + symbols.sh_offset + at, sizeof symbol);
        const char *candidate = model_name(f, &strings, &symbol);
        if (!candidate) continue;
        if (found)
            return nb_rt_fail(err, NB_RT_CORRUPT, "%s: exports two models, %s and %s", f->path,
                              found, candidate);
        found = candidate;
    }
    if (!found)
        return nb_rt_fail(err, NB_RT_CORRUPT,
                          "%s: not a compiled model: exports no NAME_model "
                          "function",
                          f->path);
    memcpy(name, found, strlen(found) + 1);
    return NB_RT_OK;
}

nb_rt_status nb_elf_entry(const char *path, nb_entry_name name, char *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat info;
    if (fd < 0 || fstat(fd, &info) != 0) {
        int reason = errno;
        if (fd >= 0) close(fd);
        return nb_rt_fail(err, NB_RT_IO, "%s: %s", path, strerror(reason));
    }
    if (!S_ISREG(info.st_mode) || info.st_size <= 0) {
        close(fd);
        return nb_rt_fail(err, NB_RT_CORRUPT, "%s: not a shared object (%s)", path,
                          S_ISREG(info.st_mode) ? "empty" : "not a file");
    }
    file f = {path, NULL, (size_t)info.st_size};
    void *map = mmap(NULL, f.size, PROT_READ, MAP_PRIVATE, fd, 0);
    int reason = errno;
    close(fd);
    if (map == MAP_FAILED) return nb_rt_fail(err, NB_RT_IO, "%s: %s", path, strerror(reason));
    f.data = map;
    nb_rt_status status = find_entry(&f, name, err);
    munmap(map, f.size);
    return status;
}
