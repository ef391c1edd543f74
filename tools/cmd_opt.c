/* nibble opt: passes on a graph, written as text; and the lists of passes and operations. */
#include "ir/text.h"
#include "lib/files.h"
#include "tools/model.h"

#include <stdio.h>
#include <string.h>

static void print_pass(const nb_pass *p) {
    printf("%-18s %s\n", p->name, p->summary);
    for (const nb_option *o = p->options; o && o->name; o++) {
        printf("    %s=%s  %s", o->name, o->fallback && *o->fallback ? o->fallback : "\"\"",
               o->summary);
        for (size_t i = 0; o->choices && o->choices[i]; i++)
            printf("%s%s", i ? ", " : " (", o->choices[i]);
        printf("%s\n", o->choices ? ")" : "");
    }
}

static nb_status list_passes(nbt_args *args) {
    nb_registry *registry;
    NB_TRY(nbt_make_registry(args, &registry));
    for (size_t i = 0; i < registry->passes.count; i++) print_pass(registry->passes.items[i]);
    return NB_OK;
}

static nb_status list_ops(nbt_args *args) {
    static const char *const kinds[] = {
        [NB_ATTR_INT] = "int",     [NB_ATTR_FLOAT] = "float", [NB_ATTR_BOOL] = "bool",
        [NB_ATTR_INTS] = "ints",   [NB_ATTR_DIMS] = "dims",   [NB_ATTR_ELEM] = "element",
        [NB_ATTR_QUANT] = "quant", [NB_ATTR_STR] = "text"};
    for (int k = 0; k < NB_OP_COUNT; k++) {
        const nb_op_info *op = &nb_ops[k];
        printf("%s", op->name);
        for (size_t i = 0; i < NB_MAX_OPERAND_SPECS && op->operands[i].mode != NB_OPERAND_END;
             i++) {
            nb_operand_mode mode = op->operands[i].mode;
            printf("%s%%%s%s", i ? ", " : " ", op->operands[i].name,
                   mode == NB_OPERAND_OPT   ? "?"
                   : mode == NB_OPERAND_VAR ? "..."
                                            : "");
        }
        for (size_t i = 0; i < NB_MAX_ATTRS && op->attrs[i].kind != NB_ATTR_END; i++)
            printf("%s%s: %s", i ? ", " : " {", op->attrs[i].name, kinds[op->attrs[i].kind]);
        printf("%s\n    %s\n", op->attrs[0].kind != NB_ATTR_END ? "}" : "", op->summary);
    }
    nb_registry *registry;
    NB_TRY(nbt_make_registry(args, &registry));
    for (size_t i = 0; i < registry->ops.count; i++)
        printf("call {function=\"%s\"} of %zu operands\n    %s\n", registry->ops.items[i]->name,
               registry->ops.items[i]->operands, registry->ops.items[i]->summary);
    return NB_OK;
}

nb_status nbt_opt(nbt_args *args) {
    if (nbt_has(args, "list-ops")) return list_ops(args);
    if (nbt_has(args, "list-passes")) return list_passes(args);
    const char *in, *passes, *out = nbt_get(args, "output");
    nb_graph *g;
    NB_TRY(nbt_one_input(args, &in));
    NB_TRY(nbt_given_pipeline(args, &passes));
    NB_TRY(nbt_read_graph(args, in, &g));
    nb_status status = nbt_run_pipeline(args, g, passes ? passes : "");
    if (status == NB_OK && out)
        status = nbl_write_nir(g, out, args->diags);
    else if (status == NB_OK && !nbt_has(args, "time"))
        nb_print(g, &(nb_print_options){0}, stdout);
    nb_graph_destroy(g);
    return status;
}
