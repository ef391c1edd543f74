/* Language models (lm.h). */
#include "tools/lm.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static bool contains(const char *text, const char *part) { return strstr(text, part) != NULL; }

/* What an input is, by its name; caches are recognised by shape elsewhere. */
typedef enum role { TOKENS, MASK, POSITIONS, BRANCH, OTHER } role;

static role role_of(const char *name) {
    if (contains(name, "use_cache_branch")) return BRANCH;
    if (contains(name, "mask")) return MASK;
    if (contains(name, "position")) return POSITIONS;
    if (contains(name, "input_ids") || contains(name, "tokens") || contains(name, "ids"))
        return TOKENS;
    return OTHER;
}

bool nbt_lm_is(const nbt_model *m, nbt_lm *out) {
    *out = (nbt_lm){.tokens = -1, .mask = -1, .positions = -1, .branch = -1, .logits = -1};
    for (size_t i = 0; i < m->n_inputs; i++) {
        role r = role_of(m->input_names[i]);
        int *slot = r == TOKENS      ? &out->tokens
                    : r == MASK      ? &out->mask
                    : r == POSITIONS ? &out->positions
                    : r == BRANCH    ? &out->branch
                                     : NULL;
        if (slot && *slot < 0) *slot = (int)i;
    }
    for (size_t i = 0; i < m->n_outputs; i++) {
        if (contains(m->output_names[i], "logits") && out->logits < 0) out->logits = (int)i;
    }
    return out->tokens >= 0 && out->logits >= 0;
}

nb_status nbt_lm_find(nbt_args *args, const nbt_model *m, nbt_lm *out) {
    if (nbt_lm_is(m, out)) return NB_OK;
    return nb_error(
        args->diags, NB_UNSUPPORTED, (nb_where){.file = m->path, .offset = -1},
        "this is no language model: expected an input \"input_ids\" and an output \"logits\"");
}

nb_status nbt_lm_vocab(nbt_args *args, const nbt_model *model, nb_elem elem, int rank,
                       const int64_t *dims, int64_t batch, int64_t n, int *vocab) {
    if (elem == NB_F32 && rank == 3 && dims[0] == batch && dims[1] == n && dims[2] > 0 &&
        dims[2] <= INT_MAX) {
        *vocab = (int)dims[2];
        return NB_OK;
    }
    const char *shape = "";
    for (int i = 0; i < rank; i++)
        shape = nb_format(args->arena, "%s%s%lld", shape, i ? "," : "", (long long)dims[i]);
    return nb_error(args->diags, NB_UNSUPPORTED, (nb_where){.file = model->path, .offset = -1},
                    "output \"logits\": expected f32[%lld,%lld,vocabulary], found %s[%s]",
                    (long long)batch, (long long)n,
                    elem == NB_ELEM_COUNT ? "?" : nb_elems[elem].text, shape);
}

/* ---- inputs of a graph ---------------------------------------------------------------------- */

/* What tokens, mask and positions can be given to. */
static bool takes_integers(nb_elem elem, int rank) {
    return rank == 2 && (elem == NB_I64 || elem == NB_I32);
}

/* Decoders that begin a text and those that go on with it are branches of one model (Optimum's
 * "merged"): the latter do both, with caches that are empty. */
static bool go_on(nb_elem elem, int rank, nb_arena *arena, nb_tensor *t) {
    if (elem != NB_BOOL || rank > 1) return false;
    *t = (nb_tensor){
        .elem = elem, .rank = rank, .dims = {1}, .bytes = 1, .data = nb_alloc(arena, 8)};
    memset(t->data, 1, 1);
    return true;
}

static int64_t *integers(nb_tensor *t, nb_elem elem, int64_t rows, int64_t columns,
                         nb_arena *arena) {
    *t = (nb_tensor){.elem = elem,
                     .rank = 2,
                     .dims = {rows, columns},
                     .bytes = rows * columns * (nb_elems[elem].bits / 8)};
    t->data = nb_alloc(arena, (size_t)(rows * columns) * 8 + 8);
    return t->data;
}

/* Narrows i64 values in place when the model wants i32. */
static void narrow(nb_tensor *t) {
    if (t->elem != NB_I32) return;
    int64_t n = nb_tensor_count(t);
    const int64_t *from = t->data;
    for (int64_t i = 0; i < n; i++) {
        int32_t v = (int32_t)from[i];
        memcpy((char *)t->data + 4 * i, &v, sizeof v);
    }
}

static void fill(role r, const int64_t *tokens, int64_t batch, int64_t n, int64_t past,
                 nb_elem elem, nb_arena *arena, nb_tensor *t) {
    int64_t columns = r == MASK ? past + n : n;
    int64_t *v = integers(t, elem, batch, columns, arena);
    for (int64_t b = 0; b < batch; b++) {
        for (int64_t i = 0; i < columns; i++)
            v[b * columns + i] = r == TOKENS ? tokens[b * n + i] : r == MASK ? 1 : past + i;
    }
    narrow(t);
}

void nbt_lm_of_graph(const nb_graph *g, int *tokens, int64_t *vocab) {
    *tokens = -1;
    *vocab = 0;
    for (uint32_t i = g->body.n_params; i-- > 0;) {
        const nb_value *v = g->body.params[i];
        if (role_of(v->name) == TOKENS && takes_integers(v->type->elem, v->type->rank))
            *tokens = (int)i;
    }
    for (size_t i = g->outputs.count; i-- > 0;) {
        const nb_type *t = nb_in(g->body.last, i)->type;
        if (contains(g->outputs.items[i], "logits") && t->rank == 3 && nb_dim_is_const(t->dims[2]))
            *vocab = t->dims[2]->value;
    }
}

/* A state that does not grow begins with zeros. */
static bool is_fixed_state(const nb_graph *g, uint32_t input) {
    for (size_t i = 0; i < g->states.count; i++)
        if (g->states.items[i].input == input) return g->states.items[i].axis < 0;
    return false;
}

static bool empty_state(const nb_type *type, int64_t batch, nb_arena *arena, nb_tensor *out) {
    *out = (nb_tensor){.elem = type->elem, .rank = type->rank};
    for (int d = 0; d < type->rank; d++) {
        if (d && !nb_dim_is_const(type->dims[d])) return false;
        out->dims[d] = nb_dim_is_const(type->dims[d]) ? type->dims[d]->value : batch;
    }
    if (!nb_elem_bytes_of(type->elem, nb_tensor_count(out), &out->bytes)) return false;
    out->data = nb_alloc(arena, (size_t)out->bytes + 8);
    return true;
}

nb_status nbt_lm_inputs(nbt_args *args, const nb_graph *g, const int64_t *tokens, int64_t batch,
                        int64_t length, nb_arena *arena, nb_tensor **out) {
    nb_tensor *inputs = NB_NEW_ARRAY(arena, nb_tensor, g->body.n_params + 1);
    for (uint32_t i = 0; i < g->body.n_params; i++) {
        const nb_value *v = g->body.params[i];
        role r = role_of(v->name);
        if (r == BRANCH && go_on(v->type->elem, v->type->rank, arena, &inputs[i])) continue;
        if (r != OTHER && takes_integers(v->type->elem, v->type->rank)) {
            fill(r, tokens, batch, length, 0, v->type->elem, arena, &inputs[i]);
            continue;
        }
        if (is_fixed_state(g, i) && empty_state(v->type, batch, arena, &inputs[i])) continue;
        if (v->type->rank != 4)
            return nb_error(args->diags, NB_UNSUPPORTED, (nb_where){.file = g->file, .offset = -1},
                            "input \"%s\" is neither tokens, mask, positions nor a cache", v->name);
        nb_tensor *t = &inputs[i]; /* an empty cache: [batch, heads, 0, size] */
        *t = (nb_tensor){.elem = v->type->elem, .rank = 4, .data = nb_alloc(arena, 8)};
        bool empty = false;
        for (int d = 0; d < 4; d++) {
            t->dims[d] = nb_dim_is_const(v->type->dims[d]) ? v->type->dims[d]->value
                         : d == 0                          ? batch
                                                           : 0;
            empty = empty || t->dims[d] == 0;
        }
        if (!empty)
            return nb_error(args->diags, NB_UNSUPPORTED, (nb_where){.file = g->file, .offset = -1},
                            "input \"%s\": a cache that cannot be empty: %s", v->name,
                            nb_type_text(args->arena, v->type));
    }
    *out = inputs;
    return NB_OK;
}

/* ---- decoding ------------------------------------------------------------------------------- */

nb_status nbt_decoder_open(nbt_args *args, nbt_model *model, int64_t capacity, nbt_decoder *out) {
    *out = (nbt_decoder){.args = args, .model = model};
    NB_TRY(nbt_lm_find(args, model, &out->lm));
    if (out->lm.branch >= 0) {
        nb_error(args->diags, NB_UNSUPPORTED, (nb_where){.file = model->path, .offset = -1},
                 "input \"%s\" chooses between a decoder that begins a text and one that goes on "
                 "with it: caches of both are no states",
                 model->input_names[out->lm.branch]);
        nb_help(args->diags, "--pin %s=1, here or in compile: the latter does both",
                model->input_names[out->lm.branch]);
        return NB_UNSUPPORTED;
    }
    nb_error_text err;
    nb_session_options options = {.threads = model->threads, .capacity = capacity};
    return nbl_runtime_error(
        args->diags, nb_session_create(model->program.loaded, &options, &out->session, err), err);
}

static nb_status set(nbt_decoder *d, int input, role r, const int64_t *tokens, int64_t batch,
                     int64_t n, nb_arena *arena) {
    if (input < 0) return NB_OK;
    nb_tensor t;
    nb_error_text err;
    const nb_port *port = &nb_loaded_model(d->model->program.loaded)->inputs[input];
    nb_elem elem = nb_elem_from_onnx(port->elem);
    if (!takes_integers(elem, port->rank))
        return nb_error(d->args->diags, NB_UNSUPPORTED,
                        (nb_where){.file = d->model->path, .offset = -1},
                        "input \"%s\": expected i64 or i32 of rank 2, found %s%s", port->name,
                        elem == NB_ELEM_COUNT ? "?" : nb_elems[elem].text, port->shape);
    fill(r, tokens, batch, n, d->length, elem, arena, &t);
    return nbl_runtime_error(d->args->diags,
                             nb_session_set_input(d->session, input, t.data, t.dims, err), err);
}

static nb_status feed(nbt_decoder *d, const int64_t *tokens, int64_t batch, int64_t n,
                      nb_arena *arena, const float **logits) {
    NB_TRY(set(d, d->lm.tokens, TOKENS, tokens, batch, n, arena));
    NB_TRY(set(d, d->lm.mask, MASK, tokens, batch, n, arena));
    NB_TRY(set(d, d->lm.positions, POSITIONS, tokens, batch, n, arena));
    nb_error_text err;
    NB_TRY(nbl_runtime_error(d->args->diags, nb_session_run(d->session, err), err));
    int64_t dims[NB_MODEL_MAX_RANK] = {0};
    const nb_port *port = &nb_loaded_model(d->model->program.loaded)->outputs[d->lm.logits];
    *logits = nb_session_output(d->session, d->lm.logits, dims);
    if (!*logits)
        return nb_error(d->args->diags, NB_INTERNAL, NB_NOWHERE, "output \"%s\" is not there",
                        port->name);
    d->length += n;
    d->batch = batch;
    /* A model may give the logits of the last position only. */
    d->rows = !d->needs_all && port->rank == 3 && dims[1] == 1 ? 1 : n;
    return nbt_lm_vocab(d->args, d->model, nb_elem_from_onnx(port->elem), port->rank, dims, batch,
                        d->rows, &d->lm.vocab);
}

nb_status nbt_decoder_feed(nbt_decoder *d, const int64_t *tokens, int64_t batch, int64_t n,
                           const float **logits) {
    nb_arena *arena = nb_arena_create_like(d->args->arena);
    nb_status status = feed(d, tokens, batch, n, arena, logits);
    nb_arena_destroy(arena);
    return status;
}

nb_status nbt_decoder_reset(nbt_decoder *d) {
    nb_error_text err;
    d->length = 0;
    return nbl_runtime_error(d->args->diags, nb_session_reset(d->session, err), err);
}

void nbt_decoder_cache(nbt_decoder *d, const char **type, int64_t *bytes) {
    const nb_model *m = nb_loaded_model(d->model->program.loaded);
    size_t with = nb_session_state_size(d->session);
    *type = NULL;
    *bytes = 0;
    if (nb_session_rewind(d->session, nb_session_length(d->session) - 1, NULL) != NB_RT_OK) return;
    *bytes = (int64_t)(with - nb_session_state_size(d->session)) / d->batch;
    d->length--;
    for (uint32_t i = m->n_states; i-- > 0;) {
        if (!m->states[i].appended) continue;
        nb_elem elem = nb_elem_from_onnx(m->inputs[m->states[i].input].elem);
        *type = elem == NB_U8 ? "i4" : nb_elems[elem].text; /* two codes to a byte */
    }
}

void nbt_decoder_close(nbt_decoder *d) {
    if (d->session) nb_session_destroy(d->session);
}
