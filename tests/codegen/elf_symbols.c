#include "tests/codegen/elf_symbols.h"

#include <elf.h>
#include <string.h>

static bool header_of(const void *data, size_t size, Elf64_Ehdr *header) {
    if (size < sizeof *header) return false;
    memcpy(header, data, sizeof *header);
    return memcmp(header->e_ident, ELFMAG, SELFMAG) == 0 &&
           header->e_ident[EI_CLASS] == ELFCLASS64 &&
           header->e_shoff + (size_t)header->e_shnum * sizeof(Elf64_Shdr) <= size;
}

int elf_machine(const void *data, size_t size) {
    Elf64_Ehdr header;
    return header_of(data, size, &header) ? header.e_machine : 0;
}

bool elf_symbols(const void *data, size_t size, void (*seen)(void *user, const elf_symbol *symbol),
                 void *user) {
    const char *bytes = (const char *)data;
    Elf64_Ehdr header;
    if (!header_of(data, size, &header)) return false;
    const Elf64_Shdr *sections = (const Elf64_Shdr *)(const void *)(bytes + header.e_shoff);
    for (int i = 0; i < header.e_shnum; i++) {
        const Elf64_Shdr *table = &sections[i];
        if (table->sh_type != SHT_SYMTAB) continue;
        const char *names = bytes + sections[table->sh_link].sh_offset;
        const Elf64_Sym *symbols = (const Elf64_Sym *)(const void *)(bytes + table->sh_offset);
        for (size_t k = 1; k < table->sh_size / sizeof *symbols; k++) {
            const Elf64_Sym *s = &symbols[k];
            if (!s->st_name || ELF64_ST_TYPE(s->st_info) == STT_FILE) continue;
            const elf_symbol symbol = {.name = names + s->st_name,
                                       .defined = s->st_shndx != SHN_UNDEF,
                                       .global = ELF64_ST_BIND(s->st_info) != STB_LOCAL,
                                       .hidden = ELF64_ST_VISIBILITY(s->st_other) == STV_HIDDEN};
            seen(user, &symbol);
        }
    }
    return true;
}
