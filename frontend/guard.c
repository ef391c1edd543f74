/* The pre-scan of wire bytes (guard.h). */
#include "frontend/guard.h"

#include <string.h>

typedef enum message {
    None,
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Segment,
    Sparse,
    ValueInfo,
    Type,
    TensorType,
    ElemType,
    MapType,
    Shape,
    Dimension,
    OpsetId,
    Entry,
    Annotation,
    Training,
    Function,
    MESSAGES
} message;

static const char *const message_names[MESSAGES] = {
    "none",          "model",        "graph", "node",        "attribute",     "tensor",   "segment",
    "sparse tensor", "value info",   "type",  "tensor type", "element type",  "map type", "shape",
    "dimension",     "opset import", "entry", "annotation",  "training info", "function",
};

typedef enum kind {
    UNKNOWN,
    MSG,
    MSGS,
    TEXT,
    TEXTS,
    NOTE,
    BYTES,
    BYTESS,
    RAW,
    INT,
    INTS,
    DIMS,
    FLOATS,
    DOUBLES,
    F32,
    ENUM
} kind;

typedef struct field {
    uint8_t kind, sub; /* sub: a message, or the largest value of an ENUM */
} field;

#define MAX_FIELD 32
static const field schema[MESSAGES][MAX_FIELD] = {
#define FIELD(message, number, kind, sub) [message][number] = {kind, sub},
#include "frontend/schema.def"
#undef FIELD
};

enum { VARINT = 0, FIXED64 = 1, BYTES_WIRE = 2, FIXED32 = 5 };

#define MAX_DEPTH 100
#define MAX_NAME  65536
enum { LIMIT_DEPTH, LIMIT_NODES, LIMIT_INPUTS, LIMIT_DIMS, LIMIT_NAME, LIMIT_MEMORY };
const nb_guard_limit nb_guard_limits[] = {
    [LIMIT_DEPTH] = {"nested messages", MAX_DEPTH},
    [LIMIT_NODES] = {"nodes in the file", UINT64_C(1) << 20},
    [LIMIT_INPUTS] = {"inputs or outputs of a graph", 4096},
    [LIMIT_DIMS] = {"dimensions of a tensor", 64},
    [LIMIT_NAME] = {"bytes in a name", MAX_NAME},
    [LIMIT_MEMORY] = {"bytes of memory for what the file describes, weights aside", UINT64_C(1)
                                                                                        << 30},
    {NULL, 0},
};

/* What protobuf-c allocates, in bytes, no less: for each field met, for each message, for each
 * string, for each number of a list. */
enum { FIELD_COST = 48, MESSAGE_COST = 320, TEXT_COST = 48, NUMBER_COST = 8 };

typedef struct frame {
    message message;
    size_t end;         /* in the input */
    size_t prefix;      /* where the output's length prefix stands */
    size_t prefix_size; /* its bytes */
    uint32_t seen;      /* singular submessages seen, by field number */
    uint64_t dims, ports;
} frame;

typedef struct guard {
    const uint8_t *in;
    size_t size, at;
    nb_arena *arena;
    uint8_t *out; /* grows by doubling: without its weights a large file is small */
    size_t out_size, out_capacity;
    frame stack[MAX_DEPTH + 1];
    size_t depth;
    uint64_t nodes, memory;
    const char *name;
    nb_diags *diags;
} guard;

NB_PRINTF(4, 5)
static nb_status refuse(guard *g, nb_status status, size_t offset, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    const char *text = nb_vformat(g->diags->arena, fmt, args);
    va_end(args);
    return nb_error(g->diags, status, (nb_where){.file = g->name, .offset = (int64_t)offset}, "%s",
                    text);
}

static nb_status over(guard *g, int limit, size_t offset) {
    return refuse(g, NB_LIMIT, offset, "more than %llu %s",
                  (unsigned long long)nb_guard_limits[limit].most, nb_guard_limits[limit].what);
}

static nb_status charge(guard *g, uint64_t cost, size_t offset) {
    g->memory += cost; /* no overflow: each charge is at most a small multiple of the file's size */
    return g->memory > nb_guard_limits[LIMIT_MEMORY].most ? over(g, LIMIT_MEMORY, offset) : NB_OK;
}

static nb_status read_varint(guard *g, size_t end, uint64_t *value) {
    size_t start = g->at;
    *value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
        if (g->at == end)
            return refuse(g, NB_MALFORMED, start, "a number runs past the end of its message");
        uint8_t byte = g->in[g->at++];
        if (shift == 63 && byte > 1)
            return refuse(g, NB_MALFORMED, start, "a number needs more than 64 bits");
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) return NB_OK;
    }
    return refuse(g, NB_MALFORMED, start, "a number is longer than 10 bytes");
}

static void reserve(guard *g, size_t more) {
    if (g->out_capacity - g->out_size >= more) return;
    size_t capacity = 2 * (g->out_size + more) + 4096;
    uint8_t *grown = nb_alloc(g->arena, capacity);
    if (g->out_size) memcpy(grown, g->out, g->out_size);
    g->out = grown;
    g->out_capacity = capacity;
}

/* Copies what was read since `from`. */
static void keep(guard *g, size_t from) {
    reserve(g, g->at - from);
    memcpy(g->out + g->out_size, g->in + from, g->at - from);
    g->out_size += g->at - from;
}

/* A length in exactly `size` bytes, padded with continuation bits: lengths only shrink. */
static void write_length(uint8_t *at, size_t size, uint64_t length) {
    for (size_t i = 0; i < size; i++, length >>= 7)
        at[i] = (uint8_t)((length & 0x7f) | (i + 1 < size ? 0x80 : 0));
}

/* Length of the UTF-8 sequence at s, 0 when it is not one (overlong forms and surrogates included).
 */
static size_t utf8(const uint8_t *s, size_t n) {
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = s[0] < 0x80             ? 1
                    : (s[0] & 0xe0) == 0xc0 ? 2
                    : (s[0] & 0xf0) == 0xe0 ? 3
                    : (s[0] & 0xf8) == 0xf0 ? 4
                                            : 0;
    if (length == 0 || length > n) return 0;
    uint32_t code = length == 1 ? s[0] : s[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
        code = code << 6 | (s[i] & 0x3fu);
    }
    return code < least[length] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? 0
                                                                                        : length;
}

static nb_status check_text(guard *g, kind k, size_t start, size_t length) {
    NB_TRY(charge(g, TEXT_COST + length, start));
    if (k != NOTE && length > MAX_NAME) return over(g, LIMIT_NAME, start);
    for (size_t i = 0, n; i < length; i += n) {
        if (g->in[start + i] == 0)
            return refuse(g, NB_MALFORMED, start + i, "a string holds a NUL byte");
        n = utf8(g->in + start + i, length - i);
        if (n == 0) return refuse(g, NB_MALFORMED, start + i, "a string is not valid UTF-8");
    }
    return NB_OK;
}

static nb_status check_packed(guard *g, kind k, frame *f, size_t start, size_t length) {
    if (k == FLOATS || k == DOUBLES) {
        size_t unit = k == FLOATS ? 4 : 8;
        return length % unit
                   ? refuse(g, NB_MALFORMED, start,
                            "%zu bytes do not hold whole numbers of %zu bytes", length, unit)
                   : NB_OK;
    }
    size_t end = start + length, saved = g->at;
    for (g->at = start; g->at < end;) {
        uint64_t value;
        NB_TRY(read_varint(g, end, &value));
        if (k == DIMS && ++f->dims > nb_guard_limits[LIMIT_DIMS].most)
            return over(g, LIMIT_DIMS, start);
        NB_TRY(charge(g, NUMBER_COST, start));
    }
    g->at = saved;
    return NB_OK;
}

static nb_status open_message(guard *g, field fd, uint32_t number, size_t start, uint64_t length,
                              size_t prefix_size) {
    frame *f = &g->stack[g->depth];
    if (fd.kind == MSG) {
        if (f->seen & 1u << number)
            return refuse(g, NB_MALFORMED, start, "a second %s in a %s, where there can be one",
                          message_names[fd.sub], message_names[f->message]);
        f->seen |= 1u << number;
    }
    if (fd.sub == Node && ++g->nodes > nb_guard_limits[LIMIT_NODES].most)
        return over(g, LIMIT_NODES, start);
    /* value_info, field 13, may list every value */
    if (fd.sub == ValueInfo && f->message == Graph && number != 13 &&
        ++f->ports > nb_guard_limits[LIMIT_INPUTS].most)
        return over(g, LIMIT_INPUTS, start);
    NB_TRY(charge(g, MESSAGE_COST, start));
    if (g->depth == MAX_DEPTH) return over(g, LIMIT_DEPTH, start);
    g->stack[++g->depth] = (frame){.message = fd.sub,
                                   .end = g->at + (size_t)length,
                                   .prefix = g->out_size - prefix_size,
                                   .prefix_size = prefix_size};
    return NB_OK;
}

static void cut_raw_data(guard *g, uint64_t length, size_t prefix_size) {
    uint64_t token[2] = {g->at, length};
    write_length(g->out + g->out_size - prefix_size, prefix_size, NB_TOKEN_SIZE);
    reserve(g, NB_TOKEN_SIZE);
    memset(g->out + g->out_size, 0, NB_TOKEN_SIZE);
    memcpy(g->out + g->out_size, token, sizeof token);
    g->out_size += NB_TOKEN_SIZE;
    g->at += (size_t)length;
}

static nb_status delimited(guard *g, field fd, uint32_t number, size_t key) {
    frame *f = &g->stack[g->depth];
    size_t before = g->at;
    uint64_t length;
    NB_TRY(read_varint(g, f->end, &length));
    size_t prefix_size = g->at - before;
    if (length > f->end - g->at)
        return refuse(g, NB_MALFORMED, key, "a field of %llu bytes in a %s of which %zu are left",
                      (unsigned long long)length, message_names[f->message], f->end - g->at);
    keep(g, key);
    size_t start = g->at;
    switch ((kind)fd.kind) {
    case MSG:
    case MSGS:
        return open_message(g, fd, number, key, length, prefix_size);
    case TEXT:
    case TEXTS:
    case NOTE:
        NB_TRY(check_text(g, fd.kind, start, (size_t)length));
        break;
    case RAW:
        if (length > NB_TOKEN_ABOVE) {
            cut_raw_data(g, length, prefix_size);
            return NB_OK;
        }
        break;
    case BYTES:
    case BYTESS:
        NB_TRY(charge(g, TEXT_COST + length, start));
        break;
    case INTS:
    case DIMS:
    case FLOATS:
    case DOUBLES:
        NB_TRY(check_packed(g, fd.kind, f, start, (size_t)length));
        break;
    case UNKNOWN:
        NB_TRY(charge(g, TEXT_COST + length, key));
        break;
    case INT:
    case F32:
    case ENUM:
        return refuse(g, NB_MALFORMED, key, "field %u of a %s is a number, found bytes", number,
                      message_names[f->message]);
    }
    g->at = start + (size_t)length;
    keep(g, start);
    return NB_OK;
}

static nb_status number_field(guard *g, field fd, uint32_t number, int wire, size_t key) {
    frame *f = &g->stack[g->depth];
    bool fits = fd.kind == UNKNOWN ||
                (wire == VARINT &&
                 (fd.kind == INT || fd.kind == INTS || fd.kind == DIMS || fd.kind == ENUM)) ||
                (wire == FIXED32 && (fd.kind == F32 || fd.kind == FLOATS)) ||
                (wire == FIXED64 && fd.kind == DOUBLES);
    if (!fits)
        return refuse(g, NB_MALFORMED, key,
                      "field %u of a %s has wire type %d, which is not its own", number,
                      message_names[f->message], wire);
    if (wire == VARINT) {
        uint64_t value;
        NB_TRY(read_varint(g, f->end, &value));
        if (fd.kind == ENUM && value > fd.sub)
            return refuse(g, NB_MALFORMED, key, "field %u of a %s is %lld, which is no known value",
                          number, message_names[f->message], (long long)value);
        if (fd.kind == DIMS && ++f->dims > nb_guard_limits[LIMIT_DIMS].most)
            return over(g, LIMIT_DIMS, key);
    } else {
        size_t n = wire == FIXED32 ? 4 : 8;
        if (f->end - g->at < n)
            return refuse(g, NB_MALFORMED, key,
                          "a number of %zu bytes runs past the end of its message", n);
        g->at += n;
    }
    keep(g, key);
    return NB_OK;
}

static nb_status scan_field(guard *g) {
    frame *f = &g->stack[g->depth];
    size_t key = g->at;
    uint64_t tag;
    NB_TRY(read_varint(g, f->end, &tag));
    int wire = (int)(tag & 7);
    uint64_t number = tag >> 3;
    if (number == 0 || number > 536870911)
        return refuse(g, NB_MALFORMED, key, "field number %llu does not exist",
                      (unsigned long long)number);
    if (wire == 3 || wire == 4) return refuse(g, NB_MALFORMED, key, "groups are not part of ONNX");
    if (wire > FIXED32) return refuse(g, NB_MALFORMED, key, "wire type %d does not exist", wire);
    field fd = number < MAX_FIELD ? schema[f->message][number] : (field){0};
    NB_TRY(charge(g, FIELD_COST, key));
    if (wire == BYTES_WIRE) return delimited(g, fd, (uint32_t)number, key);
    return number_field(g, fd, (uint32_t)number, wire, key);
}

static nb_status scan(const uint8_t *bytes, size_t size, message root, const char *name,
                      nb_arena *arena, nb_diags *diags, uint8_t **skeleton, size_t *skeleton_size) {
    guard *g = NB_NEW(arena, guard);
    *g = (guard){.arena = arena, .in = bytes, .size = size, .name = name, .diags = diags};
    if (size == 0) return refuse(g, NB_MALFORMED, 0, "the file is empty");
    g->stack[0] = (frame){.message = root, .end = size};
    for (;;) {
        frame *f = &g->stack[g->depth];
        if (g->at < f->end) {
            NB_TRY(scan_field(g));
            continue;
        }
        if (g->depth == 0) break;
        write_length(g->out + f->prefix, f->prefix_size, g->out_size - f->prefix - f->prefix_size);
        g->depth--;
    }
    *skeleton = g->out;
    *skeleton_size = g->out_size;
    return NB_OK;
}

nb_status nb_guard(const uint8_t *bytes, size_t size, const char *name, nb_arena *arena,
                   nb_diags *diags, uint8_t **skeleton, size_t *skeleton_size) {
    return scan(bytes, size, Model, name, arena, diags, skeleton, skeleton_size);
}

nb_status nb_guard_tensor(const uint8_t *bytes, size_t size, const char *name, nb_arena *arena,
                          nb_diags *diags, uint8_t **skeleton, size_t *skeleton_size) {
    return scan(bytes, size, Tensor, name, arena, diags, skeleton, skeleton_size);
}
