/* Lays out the weights blob: which constants, in which layout, where. */
#include "codegen/pack.h"
#include "codegen/pack_hash.h"
#include "codegen/refs.h"
#include "ir/codes.h"

#include <errno.h>
#include <string.h>

#define ALIGNMENT 64

typedef struct piece {
    const nb_value *constant;
    const nb_layout *layout;
    int64_t offset, size;
} piece;

struct nb_pack {
    nb_arena *arena;
    NB_VEC(piece *) pieces; /* in order of offset */
    nb_map by_content;      /* key text -> piece */
    int64_t size;
    uint64_t hash;
    bool hashed;
};

/* ---- sinks --------------------------------------------------------------------------------- */

void nb_sink_write(nb_sink *sink, const void *bytes, size_t size) {
    if (!sink->failed && size) sink->write(sink, bytes, size);
    sink->written += (int64_t)size;
}

void nb_sink_zeros(nb_sink *sink, int64_t size) {
    static const unsigned char zeros[4096];
    for (; size > 0; size -= (int64_t)sizeof zeros)
        nb_sink_write(sink, zeros, (size_t)nb_min_i64(size, (int64_t)sizeof zeros));
}

static void to_file(nb_sink *sink, const void *bytes, size_t size) {
    if (fwrite(bytes, 1, size, (FILE *)sink->user) != size) sink->failed = true;
}

static void to_memory(nb_sink *sink, const void *bytes, size_t size) {
    memcpy((unsigned char *)sink->user + sink->written, bytes, size);
}

static void to_hash(nb_sink *sink, const void *bytes, size_t size) {
    nb_hasher_add((nb_hasher *)sink->user, bytes, size);
}

/* ---- the plain layout ---------------------------------------------------------------------- */

static bool plain_size(const nb_value *constant, int64_t *bytes) {
    *bytes = constant->blob->size;
    return true;
}

static void plain_write(const nb_value *constant, nb_arena *arena, nb_sink *sink) {
    (void)arena;
    nb_sink_write(sink, constant->blob->data, (size_t)constant->blob->size);
}

const nb_layout nb_layout_plain = {.name = "plain", .size = plain_size, .write = plain_write};

/* ---- codes as floats ----------------------------------------------------------------------- */

static bool floats_size(const nb_value *constant, int64_t *bytes) {
    int64_t n = 0;
    return nb_type_static_count(constant->type, &n) && nb_mul_i64(n, sizeof(float), bytes);
}

static void floats_write(const nb_value *constant, nb_arena *arena, nb_sink *sink) {
    (void)arena;
    const nb_tensor t = nb_tensor_of_const(constant);
    const nb_codes codes = nb_codes_of(constant->type->quant, &t);
    const int64_t n = nb_tensor_count(&t);
    for (int64_t i = 0; i < n; i++) {
        const float x = nb_codes_real(&codes, i);
        nb_sink_write(sink, &x, sizeof x);
    }
}

const nb_layout nb_layout_floats = {.name = "floats", .size = floats_size, .write = floats_write};

/* ---- pieces -------------------------------------------------------------------------------- */

/* `key`, and what a descriptor with its scales, zero points and minima is. */
static const char *quant_content(nb_arena *arena, const char *key, const nb_quant *q) {
    key = nb_format(arena, "%s %s", key, nb_quant_key(arena, q));
    const nb_value *parts[] = {q ? q->scales : NULL, q ? q->zeros : NULL, q ? q->minima : NULL};
    for (size_t i = 0; i < NB_COUNT(parts); i++) {
        if (!parts[i]) continue;
        key = nb_format(arena, "%s %zu:%016llx", key, i,
                        (unsigned long long)nb_blob_hash(parts[i]->blob));
        if (parts[i]->type->quant) key = quant_content(arena, key, parts[i]->type->quant);
    }
    return key;
}

/* Equal keys mean equal packed bytes. Plain bytes depend on the data alone. */
static const char *content_key(nb_arena *arena, const nb_value *v, const nb_layout *layout) {
    const char *key = nb_format(arena, "%s %lld %016llx", layout->name, (long long)v->blob->size,
                                (unsigned long long)nb_blob_hash(v->blob));
    if (layout == &nb_layout_plain) return key;
    for (int i = 0; i < v->type->rank; i++)
        key = nb_format(arena, "%s %lld", key, (long long)v->type->dims[i]->value);
    if (layout->key) key = nb_format(arena, "%s %s", key, layout->key(arena, v));
    return quant_content(arena, key, v->type->quant);
}

static nb_status add(nb_pack *pack, const nb_value *v, const nb_layout *layout, nb_diags *diags) {
    const char *key = content_key(pack->arena, v, layout);
    if (nb_map_get_str(&pack->by_content, key, strlen(key))) return NB_OK;
    piece *p = NB_NEW(pack->arena, piece);
    int64_t end;
    p->constant = v;
    p->layout = layout;
    p->offset = pack->size;
    if (!layout->size(v, &p->size) || !nb_add_i64(p->offset, p->size, &end) ||
        !nb_add_i64(end, ALIGNMENT - 1, &end))
        return nb_error(diags, NB_LIMIT, NB_NOWHERE, "codegen: the weights' size overflows");
    pack->size = end & -(int64_t)ALIGNMENT;
    nb_vec_push(pack->arena, &pack->pieces, p);
    nb_map_set_str(&pack->by_content, key, strlen(key), p);
    return NB_OK;
}

static nb_status add_region(nb_pack *pack, const nb_region *region, const cg_cpu *cpu,
                            nb_diags *diags) {
    NB_FOR_OPS(op, region) {
        nb_refs refs = nb_refs_of(pack->arena, op, cpu);
        for (size_t i = 0; i < refs.count; i++) {
            const nb_ref *r = &refs.items[i];
            if (r->layout) NB_TRY(add(pack, r->value, r->layout, diags));
        }
        for (uint32_t r = 0; r < op->n_regions; r++)
            NB_TRY(add_region(pack, op->regions[r], cpu, diags));
    }
    return NB_OK;
}

nb_status nb_pack_create(const nb_graph *g, const cg_cpu *cpu, nb_arena *arena, nb_diags *diags,
                         nb_pack **out) {
    nb_pack *pack = NB_NEW(arena, nb_pack);
    pack->arena = arena;
    pack->by_content.arena = arena;
    *out = pack;
    return add_region(pack, &g->body, cpu, diags);
}

int64_t nb_pack_size(const nb_pack *pack) { return pack->size; }

int64_t nb_pack_offset(const nb_pack *pack, const nb_value *constant, const nb_layout *layout) {
    const char *key = content_key(pack->arena, constant, layout);
    const piece *p = (const piece *)nb_map_get_str(&pack->by_content, key, strlen(key));
    return p ? p->offset : -1;
}

static void stream(const nb_pack *pack, nb_sink *sink) {
    nb_arena *scratch = nb_arena_create_like(pack->arena);
    for (size_t i = 0; i < pack->pieces.count && !sink->failed; i++) {
        const piece *p = pack->pieces.items[i];
        nb_sink_zeros(sink, p->offset - sink->written);
        p->layout->write(p->constant, scratch, sink);
    }
    nb_sink_zeros(sink, pack->size - sink->written);
    nb_arena_destroy(scratch);
}

uint64_t nb_pack_hash(nb_pack *pack) {
    if (!pack->hashed) {
        nb_hasher hasher;
        nb_hasher_start(&hasher);
        nb_sink sink = {.write = to_hash, .user = &hasher};
        stream(pack, &sink);
        pack->hash = nb_hasher_end(&hasher);
        pack->hashed = true;
    }
    return pack->hash;
}

nb_status nb_pack_write(const nb_pack *pack, FILE *file, nb_diags *diags) {
    nb_sink sink = {.write = to_file, .user = file};
    stream(pack, &sink);
    if (sink.failed)
        return nb_error(diags, NB_IO, NB_NOWHERE, "cannot write the weights: %s", strerror(errno));
    return NB_OK;
}

void nb_pack_copy(const nb_pack *pack, unsigned char *data) {
    nb_sink sink = {.write = to_memory, .user = data};
    stream(pack, &sink);
}
