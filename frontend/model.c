/* From bytes to protobuf objects: what the file is, the guard, unpacking, versions. */
#include "frontend/model.h"

#include "frontend/guard.h"

#include <string.h>

#define NEWEST_IR    13
#define NEWEST_OPSET 28
#define MOST_OPSETS  256

/* What people hand in by mistake, by bytes at a fixed place. */
static const struct {
    size_t offset;
    const char *magic;
    size_t length;
    const char *what;
} others[] = {
    {0, "PK\x03\x04", 4, "a zip archive (a PyTorch checkpoint?)"},
    {0, "\x80\x02", 2, "a Python pickle (an old PyTorch checkpoint?)"},
    {8, "{\"", 2, "a safetensors file"},
    {4, "TFL3", 4, "a TensorFlow Lite model"},
    {4, "ORTM", 4, "an ONNX Runtime .ort model; use the .onnx it was made from"},
    {0,
     "\x7f"
     "ELF",
     4, "an ELF object"},
    {0, "\x89HDF", 4, "an HDF5 file"},
    {0, "\x93NUMPY", 6, "a NumPy array"},
    {0, "\x1f\x8b", 2, "a gzip archive"},
    {0, "nir 1", 5, "Nibble's own text form; name it .nir"},
    {0, "{", 1, "JSON text"},
    {0, "<", 1, "markup text"},
    {0, "version https://git-lfs", 23, "a Git LFS pointer; fetch the file itself"},
};

static void *allocate(void *arena, size_t size) { return nb_alloc(arena, size); }
static void release(void *arena, void *memory) {
    (void)arena; /* goes with the arena */
    (void)memory;
}

static nb_status malformed(nb_onnx *m, const char *text) {
    return nb_error(m->diags, NB_MALFORMED, (nb_where){.file = m->name, .offset = -1}, "%s", text);
}

static bool same_domain(const char *a, const char *b) {
    if (!a || strcmp(a, "ai.onnx") == 0) a = "";
    if (!b || strcmp(b, "ai.onnx") == 0) b = "";
    return strcmp(a, b) == 0;
}

int64_t nb_onnx_opset(const nb_onnx *m, const char *domain) {
    for (size_t i = 0; i < m->proto->n_opset_import; i++) {
        if (same_domain(m->proto->opset_import[i]->domain, domain))
            return m->proto->opset_import[i]->version;
    }
    return 0;
}

static nb_status check_versions(nb_onnx *m) {
    const Onnx__ModelProto *p = m->proto;
    if (!p->has_ir_version || p->ir_version < 1) return malformed(m, "the model has no ir_version");
    if (!p->graph) return malformed(m, "the model has no graph");
    if (p->n_opset_import == 0) return malformed(m, "the model imports no operator set");
    if (p->n_opset_import > MOST_OPSETS)
        return nb_error(m->diags, NB_LIMIT, (nb_where){.file = m->name, .offset = -1},
                        "%zu operator sets, more than %d", p->n_opset_import, MOST_OPSETS);
    for (size_t i = 0; i < p->n_opset_import; i++) {
        for (size_t k = 0; k < i; k++) {
            if (same_domain(p->opset_import[i]->domain, p->opset_import[k]->domain))
                return malformed(
                    m, nb_format(m->arena, "the model imports operator set \"%s\" twice",
                                 p->opset_import[i]->domain ? p->opset_import[i]->domain : ""));
        }
        if (p->opset_import[i]->version < 1)
            return malformed(m,
                             nb_format(m->arena, "operator set \"%s\" has version %lld",
                                       p->opset_import[i]->domain ? p->opset_import[i]->domain : "",
                                       (long long)p->opset_import[i]->version));
    }
    int64_t opset = nb_onnx_opset(m, "");
    if (p->ir_version <= NEWEST_IR && opset <= NEWEST_OPSET) return NB_OK;
    nb_error(m->diags, NB_UNSUPPORTED, (nb_where){.file = m->name, .offset = -1},
             "ONNX IR %lld, opset %lld is newer than this nibble knows (IR %d, opset %d)",
             (long long)p->ir_version, (long long)opset, NEWEST_IR, NEWEST_OPSET);
    nb_help(m->diags, "export with an older opset, 17 or 18 for example");
    return NB_UNSUPPORTED;
}

nb_status nb_onnx_unpack(nb_onnx *m) {
    for (size_t i = 0; i < NB_COUNT(others); i++) {
        if (m->size >= others[i].offset + others[i].length &&
            memcmp(m->bytes + others[i].offset, others[i].magic, others[i].length) == 0)
            return malformed(
                m, nb_format(m->arena, "expected an ONNX model, found %s", others[i].what));
    }
    uint8_t *skeleton;
    size_t size;
    NB_TRY(nb_guard(m->bytes, m->size, m->name, m->arena, m->diags, &skeleton, &size));
    ProtobufCAllocator allocator = {.alloc = allocate, .free = release, .allocator_data = m->arena};
    m->proto = onnx__model_proto__unpack(&allocator, size, skeleton);
    m->skeleton = true;
    if (!m->proto) return malformed(m, "the bytes are not an ONNX model");
    return check_versions(m);
}
