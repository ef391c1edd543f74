/* Reading LoRA adapters (adapter_file.h). */
#include "passes/adapter_file.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

static nb_where at(const char *path) { return (nb_where){.file = path, .offset = -1}; }

/* ---- adapter_config.json -------------------------------------------------------------------- */

/* What a module's product is multiplied by: alpha / r, or alpha / sqrt(r). */
typedef struct config {
    double alpha;
    bool root, given; /* given: alpha itself is the factor */
} config;

/* What an adapter can have that a plain branch beside a layer is not. */
static const char *obstacle(const json_t *j) {
    const char *type = json_string_value(json_object_get(j, "peft_type"));
    if (type && strcmp(type, "LORA") != 0) return "peft_type is not LORA";
    if (json_is_true(json_object_get(j, "use_dora"))) return "use_dora is set";
    if (json_object_size(json_object_get(j, "alpha_pattern")) > 0)
        return "alpha_pattern gives layers a scale of their own";
    return NULL;
}

static nb_status parse_config(const char *path, const nb_file *f, nb_diags *diags, config *out) {
    json_error_t error;
    json_t *j = json_loadb((const char *)f->bytes, f->size, JSON_REJECT_DUPLICATES, &error);
    const json_t *alpha = json_object_get(j, "lora_alpha");
    const char *why = j ? obstacle(j) : NULL;
    nb_status status = NB_OK;
    out->alpha = json_number_value(alpha);
    out->root = json_is_true(json_object_get(j, "use_rslora"));
    if (why)
        status = nb_error(diags, NB_UNSUPPORTED, at(path), "%s", why);
    else if (!json_is_number(alpha) || !isfinite(out->alpha))
        status = nb_error(diags, NB_MALFORMED, at(path),
                          "expected an object with a number \"lora_alpha\"%s%s", j ? "" : ": ",
                          j ? "" : error.text);
    json_decref(j);
    return status;
}

static nb_status read_config(const char *path, const float *scale, nb_arena *arena, nb_diags *diags,
                             config *out) {
    if (scale) {
        *out = (config){.alpha = (double)*scale, .given = true};
        return NB_OK;
    }
    const char *slash = strrchr(path, '/');
    int folder = slash ? (int)(slash - path) + 1 : 0;
    const char *beside = nb_format(arena, "%.*sadapter_config.json", folder, path);
    nb_file f;
    nb_status status = nb_file_open(beside, diags, &f);
    if (status == NB_OK) {
        status = parse_config(beside, &f, diags, out);
        nb_file_close(&f);
    }
    if (status != NB_OK)
        nb_help(diags, "a scale can be given instead (--adapter-scale, adapter{scale=X})");
    return status;
}

/* ---- names ---------------------------------------------------------------------------------- */

#define PREFIX "base_model.model."

/* "base_model.model.NAME.lora_A.weight", or ".lora_A.default.weight": NAME, and which factor (0,
 * 1). NULL when it is none of these. */
static const char *module_of(const char *entry, nb_arena *arena, int *which) {
    static const char *const marks[] = {".lora_A.", ".lora_B."};
    if (strncmp(entry, PREFIX, strlen(PREFIX)) == 0) entry += strlen(PREFIX);
    for (*which = 0; *which < 2; ++*which) {
        const char *mark = strstr(entry, marks[*which]);
        if (!mark || mark == entry) continue;
        const char *rest = mark + strlen(marks[*which]), *dot = strchr(rest, '.');
        if (strcmp(dot ? dot + 1 : rest, "weight") != 0) return NULL;
        return nb_strndup(arena, entry, (size_t)(mark - entry));
    }
    return NULL;
}

static nb_status collect(nb_adapter *adapter, const char *path, nb_arena *arena, nb_diags *diags) {
    nb_map known = {.arena = arena}; /* name -> position + 1 */
    for (size_t i = 0; i < adapter->tensors.count; i++) {
        const nb_safetensor *t = &adapter->tensors.items[i];
        int which;
        const char *name = module_of(t->name, arena, &which);
        if (!name) {
            nb_error(diags, NB_UNSUPPORTED, at(path),
                     "tensor '%s' is no factor of a linear layer (NAME.lora_A.weight or "
                     "NAME.lora_B.weight)",
                     t->name);
            nb_help(diags, "adapted embeddings, biases, whole modules and DoRA are not supported");
            return NB_UNSUPPORTED;
        }
        uintptr_t position = (uintptr_t)nb_map_get_str(&known, name, strlen(name));
        if (!position) {
            nb_adapter_layer layer = {.name = name};
            nb_vec_push(arena, &adapter->layers, layer);
            position = adapter->layers.count;
            nb_map_set_str(&known, name, strlen(name), (void *)position);
        }
        nb_adapter_layer *layer = &adapter->layers.items[position - 1];
        const nb_tensor **factor = which ? &layer->b : &layer->a;
        if (*factor)
            return nb_error(diags, NB_MALFORMED, at(path), "'%s' has two tensors lora_%c", name,
                            'A' + which);
        *factor = &t->tensor;
    }
    if (adapter->layers.count) return NB_OK;
    return nb_error(diags, NB_MALFORMED, at(path), "there is no tensor in the adapter");
}

/* ---- layers --------------------------------------------------------------------------------- */

static bool is_matrix(const nb_tensor *t) {
    return t->rank == 2 && t->dims[0] > 0 && t->dims[1] > 0 &&
           (t->elem == NB_F32 || t->elem == NB_F16 || t->elem == NB_BF16);
}

static nb_status check_layer(const char *path, nb_adapter_layer *layer, const config *c,
                             nb_diags *diags) {
    const nb_tensor *a = layer->a, *b = layer->b;
    if (!a || !b)
        return nb_error(diags, NB_MALFORMED, at(path), "'%s' has lora_%c, but no lora_%c",
                        layer->name, a ? 'A' : 'B', a ? 'B' : 'A');
    if (!is_matrix(a) || !is_matrix(b) || a->dims[0] != b->dims[1])
        return nb_error(diags, NB_MALFORMED, at(path),
                        "'%s': lora_A and lora_B are not matrices [r, inputs] and [outputs, r] of "
                        "f32, f16 or bf16 with the same r",
                        layer->name);
    double r = (double)a->dims[0];
    layer->scale = (float)(c->given ? c->alpha : c->alpha / (c->root ? sqrt(r) : r));
    return NB_OK;
}

static nb_status read_layers(const char *path, const float *scale, nb_arena *arena, nb_diags *diags,
                             nb_adapter *out) {
    config c = {0};
    NB_TRY(
        nb_safetensors_parse(path, out->file.bytes, out->file.size, arena, diags, &out->tensors));
    NB_TRY(collect(out, path, arena, diags));
    NB_TRY(read_config(path, scale, arena, diags, &c));
    for (size_t i = 0; i < out->layers.count; i++)
        NB_TRY(check_layer(path, &out->layers.items[i], &c, diags));
    return NB_OK;
}

nb_status nb_adapter_open(const char *path, const float *scale, nb_arena *arena, nb_diags *diags,
                          nb_adapter *out) {
    *out = (nb_adapter){0};
    NB_TRY(nb_file_open(path, diags, &out->file));
    nb_status status = read_layers(path, scale, arena, diags, out);
    if (status != NB_OK) nb_adapter_close(out);
    return status;
}

void nb_adapter_close(nb_adapter *adapter) { nb_file_close(&adapter->file); }
