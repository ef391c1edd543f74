/* What the name of a layer says: which block it is in, and what it does there (compare.h). */
#include "tools/compare.h"

#include <ctype.h>
#include <string.h>

static size_t length_of(const char *part) { return strcspn(part, "/"); }

static const char *last_number(nb_arena *arena, const char *part, size_t n) {
    size_t end = n, begin;
    while (end > 0 && !isdigit((unsigned char)part[end - 1])) end--;
    for (begin = end; begin > 0 && isdigit((unsigned char)part[begin - 1]);) begin--;
    return nb_strndup(arena, part + begin, end - begin);
}

/* "/layers.3/mlp/up_proj/MatMul": the block is the first part with a number, the role what lies
 * between it and the operation; of "/fc1/MatMul", the part itself. The operation says nothing of
 * blocks. */
void nbt_name_parts(nb_arena *arena, const char *name, const char **role, const char **block) {
    const char *part = name + (*name == '/'), *end = strrchr(part, '/');
    const char *begin = part;
    *block = "";
    if (!end) end = part + strlen(part);
    for (size_t n; *end && part < end && !**block; part += n + (part[n] == '/')) {
        n = length_of(part);
        *block = last_number(arena, part, n);
        if (**block && part + n + 1 < end) begin = part + n + 1;
    }
    *role = nb_strndup(arena, begin, (size_t)(end - begin));
}
