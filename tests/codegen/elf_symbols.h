/* Reads the symbols of an ELF64 relocatable object in memory. */
#ifndef NB_TEST_ELF_SYMBOLS_H
#define NB_TEST_ELF_SYMBOLS_H

#include <stdbool.h>
#include <stddef.h>

typedef struct elf_symbol {
    const char *name;
    bool defined, global, hidden;
} elf_symbol;

/* Calls `seen` for every named symbol; false when the bytes are not such an object. */
bool elf_symbols(const void *data, size_t size, void (*seen)(void *user, const elf_symbol *symbol),
                 void *user);
/* e_machine, 0 when it is no ELF. */
int elf_machine(const void *data, size_t size);

#endif
