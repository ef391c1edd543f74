/* What is kept from run to run (kept.h): a header, then the parts in a row. */
#include "passes/kept.h"

#include "ir/text.h"

#include <string.h>

/* In front of the parts. */
typedef struct header {
    char magic[8];
    uint64_t key, done, bytes, hash; /* hash: of the parts and `done` */
} header;
#define MAGIC "nbsums1" /* another number when this layout changes */

/* ---- keys ----------------------------------------------------------------------------------- */

uint64_t nb_kept_key_of_text(uint64_t key, const char *text) {
    return nb_hash_mix(key, nb_hash(text, strlen(text)));
}

static uint64_t mix_tensor(uint64_t key, const nb_tensor *t) {
    key = nb_hash_mix(key, (uint64_t)t->elem);
    key = nb_hash_mix(key, nb_hash(t->dims, (size_t)t->rank * sizeof *t->dims));
    return nb_hash_mix(key, nb_hash(t->bytes ? t->data : "", (size_t)t->bytes));
}

/* The graph's text holds the hashes of its weights. */
uint64_t nb_kept_key(const nb_pass_ctx *ctx, uint64_t version) {
    const nb_pass_state *s = nb_state_of(ctx);
    if (!s->env->store) return 0;
    nb_arena *scratch = nb_arena_create_like(s->scratch);
    uint64_t key = nb_kept_key_of_text(version, NIBBLE_VERSION);
    key = nb_kept_key_of_text(
        key, nb_print_string(scratch, ctx->graph, &(nb_print_options){.elide_weights = true}));
    for (size_t i = 0; i < s->env->n_samples; i++) {
        for (uint32_t k = 0; k < ctx->graph->body.n_params; k++)
            key = mix_tensor(key, &s->env->samples[i].inputs[k]);
    }
    nb_arena_destroy(scratch);
    return key;
}

uint64_t nb_kept_key_of_options(const nb_pass_ctx *ctx, uint64_t key) {
    const nb_option *o = nb_state_of(ctx)->pass->options;
    for (size_t i = 0; o && o[i].name; i++) {
        const nb_option_value *v = &ctx->options[i];
        key = nb_kept_key_of_text(key, o[i].name);
        key = nb_kept_key_of_text(nb_hash_mix(key, (uint64_t)v->i + (uint64_t)v->b),
                                  v->s ? v->s : "");
        key = nb_hash_mix(key, nb_hash(&v->f, sizeof v->f));
    }
    return key;
}

nb_kept nb_kept_as(const nb_pass_ctx *ctx, uint64_t key) {
    const nb_pass_state *s = nb_state_of(ctx);
    return (nb_kept){
        .store = s->env->store,
        .name = nb_format(s->scratch, "%s-%016llx", s->pass->name, (unsigned long long)key),
        .key = key};
}

/* ---- bytes ---------------------------------------------------------------------------------- */

static header header_of(uint64_t key, uint64_t done, const nb_part *parts, size_t n) {
    header h = {.magic = MAGIC, .key = key, .done = done, .hash = done};
    for (size_t i = 0; i < n; i++) {
        h.bytes += parts[i].size;
        h.hash = nb_hash_mix(h.hash, nb_hash(parts[i].size ? parts[i].data : "", parts[i].size));
    }
    return h;
}

nb_status nb_kept_save(const nb_pass_ctx *ctx, const nb_kept *kept, uint64_t done,
                       const nb_part *parts, size_t n) {
    if (!kept->store) return NB_OK;
    header h = header_of(kept->key, done, parts, n);
    NB_VEC(nb_part) all = {0};
    nb_arena *scratch = nb_arena_create_like(nb_state_of(ctx)->scratch);
    nb_vec_push(scratch, &all, ((nb_part){&h, sizeof h}));
    for (size_t i = 0; i < n; i++) nb_vec_push(scratch, &all, parts[i]);
    nb_status status = kept->store->save(kept->store->user, kept->name, all.items, all.count);
    nb_arena_destroy(scratch);
    return status;
}

/* Is this what was saved as parts of these sizes? */
static bool is_whole(const nb_kept *kept, nb_part bytes, const nb_part *parts, size_t n) {
    header h;
    uint64_t size = 0;
    if (bytes.size < sizeof h) return false;
    memcpy(&h, bytes.data, sizeof h);
    for (size_t i = 0; i < n; i++) size += parts[i].size;
    if (memcmp(h.magic, MAGIC, sizeof h.magic) != 0 || h.key != kept->key || h.bytes != size ||
        h.done == 0 || bytes.size - sizeof h != size)
        return false;
    uint64_t hash = h.done;
    const char *from = (const char *)bytes.data + sizeof h;
    for (size_t i = 0; i < n; from += parts[i++].size)
        hash = nb_hash_mix(hash, nb_hash(parts[i].size ? from : "", parts[i].size));
    return hash == h.hash;
}

uint64_t nb_kept_load(nb_pass_ctx *ctx, const nb_kept *kept, const nb_part *parts, size_t n) {
    if (!kept->store) return 0;
    nb_arena *scratch = nb_arena_create_like(nb_state_of(ctx)->scratch);
    const nb_part bytes = kept->store->load(kept->store->user, kept->name, scratch);
    header h = {.done = 0};
    if (bytes.data && is_whole(kept, bytes, parts, n)) {
        memcpy(&h, bytes.data, sizeof h);
        const char *from = (const char *)bytes.data + sizeof h;
        for (size_t i = 0; i < n; from += parts[i++].size) {
            if (parts[i].size) memcpy(parts[i].data, from, parts[i].size);
        }
    } else if (bytes.data) {
        ctx->host->report(ctx, NB_LEVEL_WARNING, NULL,
                          "what was kept as '%s' is damaged: samples run again", kept->name);
    }
    nb_arena_destroy(scratch);
    return h.done;
}
