/* Protobuf's wire format, written: fields appended to bytes in an arena. */
#ifndef NB_WIRE_H
#define NB_WIRE_H

#include "ir/support/vec.h"

typedef struct nb_wire {
    nb_arena *arena;
    uint8_t *items;
    size_t count, capacity;
} nb_wire;

void nb_wire_int(nb_wire *w, uint32_t field, int64_t value);
void nb_wire_float(nb_wire *w, uint32_t field, float value);
void nb_wire_bytes(nb_wire *w, uint32_t field, const void *bytes, size_t size);
void nb_wire_text(nb_wire *w, uint32_t field, const char *text);
void nb_wire_message(nb_wire *w, uint32_t field, const nb_wire *message);
/* What stands before a field of `size` bytes that follow elsewhere. */
void nb_wire_length(nb_wire *w, uint32_t field, uint64_t size);

#endif
