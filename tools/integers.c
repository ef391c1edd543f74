/* Which operations stay in floats between codes: what keeps a model that came quantized from
 * computing on integers alone. Those of a chain from codes to codes (ir/chain.h) leave no float in
 * memory, and are told apart. */
#include "ir/chain.h"
#include "tools/bench.h"

#include <stdio.h>
#include <string.h>

static bool is_in(const nb_map *set, const nb_value *v) { return v && nb_map_get(set, v) != NULL; }

static bool gives_floats(const nb_op *op) {
    return op->n_results && !nb_out(op)->type->quant && nb_elem_is_float(nb_out(op)->type->elem);
}

static bool is_product(const nb_op *op) {
    return op->kind == NB_OP_qmatmul || op->kind == NB_OP_qdepthwise;
}

/* Values that codes made at run time lead to, through floats. */
static void mark_behind(const nb_graph *g, nb_map *behind) {
    for (nb_op *op = g->body.first; op; op = op->next) {
        bool is = (op->kind == NB_OP_dequantize && !nb_is_const(nb_in(op, 0))) || is_product(op);
        for (uint32_t i = 0; i < op->n_operands; i++) is = is || is_in(behind, nb_in(op, i));
        for (uint32_t r = 0; is && gives_floats(op) && r < op->n_results; r++)
            nb_map_set(behind, op->results[r], op);
    }
}

/* Values that lead to codes, through floats. */
static void mark_before(const nb_graph *g, nb_map *before) {
    for (nb_op *op = g->body.last; op; op = op->prev) {
        bool is = op->kind == NB_OP_quantize || op->kind == NB_OP_qpatches;
        for (uint32_t r = 0; gives_floats(op) && r < op->n_results; r++)
            is = is || is_in(before, op->results[r]);
        for (uint32_t i = 0; is && i < op->n_operands; i++)
            if (nb_in(op, i)) nb_map_set(before, nb_in(op, i), op);
    }
}

/* Movement, and steps to and from codes, are no arithmetic. */
static bool computes(const nb_op *op) {
    switch (op->kind) {
    case NB_OP_dequantize:
    case NB_OP_transpose:
    case NB_OP_patches:
    case NB_OP_pad:
    case NB_OP_concat:
    case NB_OP_slice:
    case NB_OP_expand:
        return false;
    default:
        return !nb_has_trait(op, NB_TRAIT_VIEW);
    }
}

/* Is it computed in registers, by the kernel of a quantize? */
static bool ends_as_codes(const nb_op *op) {
    while (nb_in_registers(nb_out(op))) op = nb_out(op)->uses->user;
    return op->kind == NB_OP_quantize;
}

/* Under `title`, if there are any: those between codes that are part of a chain which ends as
 * codes, or those that are not. Returns their number. */
static size_t print_floats(const nb_graph *g, const nb_map *behind, const nb_map *before,
                           bool chained, const char *title, nb_arena *arena) {
    size_t n = 0;
    for (const nb_op *op = g->body.first; op; op = op->next) {
        if (!gives_floats(op) || !computes(op) || !is_in(behind, nb_out(op)) ||
            !is_in(before, nb_out(op)) || ends_as_codes(op) != chained)
            continue;
        const char *name = nb_loc_name(op->loc);
        if (!n++) printf("%s:\n", title);
        printf("  %-42s %s\n", nb_escape(arena, name, strlen(name)), nb_info(op)->name);
    }
    return n;
}

void nbt_print_integers(const nb_graph *g, nb_arena *arena) {
    nb_map behind = {.arena = arena}, before = {.arena = arena};
    size_t products = 0;
    for (const nb_op *op = g->body.first; op; op = op->next)
        products += is_product(op) && nb_attr_of(op, "to")->set;
    if (!products) return;
    mark_behind(g, &behind);
    mark_before(g, &before);
    const size_t floats = print_floats(g, &behind, &before, false, "in float between codes", arena),
                 chained = print_floats(g, &behind, &before, true,
                                        "from codes to codes, in registers", arena);
    if (floats) return;
    printf(chained ? "codes alone in memory between the first and the last codes\n"
                   : "integers alone between the first and the last codes\n");
}
