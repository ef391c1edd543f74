/* Protobuf's wire format (wire.h); protobuf.dev, "Encoding". */
#include "frontend/wire.h"

#include <string.h>

enum { VARINT = 0, LENGTH = 2, FIXED32 = 5 };

static void put_byte(nb_wire *w, uint8_t byte) { nb_vec_push(w->arena, w, byte); }

static void put_varint(nb_wire *w, uint64_t v) {
    for (; v >= 128; v >>= 7) put_byte(w, (uint8_t)(v | 128));
    put_byte(w, (uint8_t)v);
}

static void put_key(nb_wire *w, uint32_t field, uint32_t type) { put_varint(w, field << 3 | type); }

static void put_raw(nb_wire *w, const void *bytes, size_t size) {
    const uint8_t *b = bytes;
    for (size_t i = 0; i < size; i++) put_byte(w, b[i]);
}

void nb_wire_int(nb_wire *w, uint32_t field, int64_t value) {
    put_key(w, field, VARINT);
    put_varint(w, (uint64_t)value);
}

void nb_wire_float(nb_wire *w, uint32_t field, float value) {
    put_key(w, field, FIXED32);
    put_raw(w, &value, sizeof value);
}

void nb_wire_length(nb_wire *w, uint32_t field, uint64_t size) {
    put_key(w, field, LENGTH);
    put_varint(w, size);
}

void nb_wire_bytes(nb_wire *w, uint32_t field, const void *bytes, size_t size) {
    nb_wire_length(w, field, size);
    put_raw(w, bytes, size);
}

void nb_wire_text(nb_wire *w, uint32_t field, const char *text) {
    nb_wire_bytes(w, field, text, strlen(text));
}

void nb_wire_message(nb_wire *w, uint32_t field, const nb_wire *message) {
    nb_wire_bytes(w, field, message->items, message->count);
}
