/* Element types and dimension expressions through the host table (nb_pass.h). */
#include "passes/host.h"

#include "ir/text.h"

#include <string.h>

/* ---- element types -------------------------------------------------------------------------- */

const char *nb_host_elem_text(int32_t elem) {
    const nb_elem e = nb_elem_from_number(elem);
    return e == NB_ELEM_COUNT ? "" : nb_elems[e].text;
}

int32_t nb_host_elem_named(const char *text) {
    const nb_elem e = text ? nb_elem_from_text(text, strlen(text)) : NB_ELEM_COUNT;
    return e == NB_ELEM_COUNT ? 0 : nb_elems[e].number;
}

int32_t nb_host_elem_bits(int32_t elem) {
    const nb_elem e = nb_elem_from_number(elem);
    return e == NB_ELEM_COUNT ? 0 : nb_elems[e].bits;
}

/* ---- sizes ---------------------------------------------------------------------------------- */

static const char *symbol_text(nb_pass_ctx *ctx, const nb_symbol *symbol) {
    return nb_dim_text(nb_state_of(ctx)->scratch, nb_dim_symbol(ctx->graph, symbol));
}

const char *nb_host_symbol(nb_pass_ctx *ctx, size_t i) {
    const nb_graph *g = ctx->graph;
    return i < g->symbols.count ? symbol_text(ctx, g->symbols.items[i]) : NULL;
}

int nb_host_dim(nb_pass_ctx *ctx, const char *text, nb_dim_view *out) {
    if (!text || !out || out->size < NB_SIZE_TO(nb_dim_view, max)) {
        NB_MISUSE(ctx, "expected an expression, and a view whose size is set");
        return 0;
    }
    const nb_dim *d = nb_parse_dim(ctx->graph, text, strlen(text), nb_diags_of(ctx));
    if (!d) {
        nb_state_of(ctx)->failed = true;
        return 0;
    }
    nb_dim_view view = {.counted = nb_dim_is_counted(d, NULL)};
    nb_dim_range(d, &view.min, &view.max);
    nb_give_sized(out, &view, sizeof view);
    return 1;
}

const char *nb_host_make_symbol(nb_pass_ctx *ctx, const char *name, int64_t min, int64_t max) {
    if (!name || !*name || min < 0 || max < min) {
        NB_MISUSE(ctx, "expected a name and a range 0 <= min <= max, found %lld..%lld",
                  (long long)min, (long long)max);
        return NULL;
    }
    const nb_symbol *symbol = nb_graph_counted(ctx->graph, name);
    nb_symbol_narrow(ctx->graph, symbol, min, max);
    return symbol_text(ctx, symbol);
}
