/* Language models (lm.h). */
#include "tools/lm.h"

#include <limits.h>

bool nbt_lm_is(const nbt_model *m, nbt_lm *out) {
    *out = (nbt_lm){.tokens = -1, .mask = -1, .positions = -1, .branch = -1, .logits = -1};
    for (size_t i = 0; i < m->n_inputs; i++) {
        nb_role r = nb_role_of(m->input_names[i]);
        int *slot = r == NB_TOKEN_IDS   ? &out->tokens
                    : r == NB_MASK      ? &out->mask
                    : r == NB_POSITIONS ? &out->positions
                    : r == NB_BRANCH    ? &out->branch
                                        : NULL;
        if (slot && *slot < 0) *slot = (int)i;
    }
    for (size_t i = 0; i < m->n_outputs; i++) {
        if (nb_is_logits(m->output_names[i]) && out->logits < 0) out->logits = (int)i;
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

static nb_status set(nbt_decoder *d, int input, nb_role r, const int64_t *tokens, int64_t batch,
                     int64_t n, nb_arena *arena) {
    if (input < 0) return NB_OK;
    nb_tensor t;
    nb_error_text err;
    const nb_port *port = &nb_loaded_model(d->model->program.loaded)->inputs[input];
    nb_elem elem = nb_elem_from_onnx(port->elem);
    if (!nb_takes_integers(elem, port->rank))
        return nb_error(d->args->diags, NB_UNSUPPORTED,
                        (nb_where){.file = d->model->path, .offset = -1},
                        "input \"%s\": expected i64 or i32 of rank 2, found %s%s", port->name,
                        elem == NB_ELEM_COUNT ? "?" : nb_elems[elem].text, port->shape);
    nb_fill_window(r, tokens, batch, n, d->length, elem, arena, &t);
    return nbl_runtime_error(d->args->diags,
                             nb_session_set_input(d->session, input, t.data, t.dims, err), err);
}

static nb_status feed(nbt_decoder *d, const int64_t *tokens, int64_t batch, int64_t n,
                      nb_arena *arena, const float **logits) {
    NB_TRY(set(d, d->lm.tokens, NB_TOKEN_IDS, tokens, batch, n, arena));
    NB_TRY(set(d, d->lm.mask, NB_MASK, tokens, batch, n, arena));
    NB_TRY(set(d, d->lm.positions, NB_POSITIONS, tokens, batch, n, arena));
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
