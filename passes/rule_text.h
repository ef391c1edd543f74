/* Rewrite rules as text: "mul(x, 1) -> x" becomes a pattern and an expression.
 *
 *   rule     = op "->" (expression | anything, when the row has a function of its own)
 *   op       = [word "="] operation ["!"] "(" [term ("," term)*] ")"      "!": no other use
 *   term     = op | word | "@" word | number                              "@": a constant
 *   expression = operation "(" expression ("," expression)* ")" | word | number
 *
 * A word names what it matches; "_" matches anything and names nothing. */
#ifndef NB_PASSES_RULE_TEXT_H
#define NB_PASSES_RULE_TEXT_H

#include "passes/rewrite.h"

#define NB_RULE_DEPTH 16 /* of operations inside operations */

typedef struct nb_rule_expr {
    nb_op_kind kind;  /* of an operation; NB_OP_COUNT otherwise */
    const char *word; /* of the pattern, or NULL */
    double number;    /* neither operation nor word */
    const struct nb_rule_expr *args[NB_PAT_ARGS];
} nb_rule_expr;

typedef struct nb_rule_parts {
    const nb_pat *pattern;
    const nb_rule_expr *to; /* NULL when it was not asked for */
} nb_rule_parts;

/* NULL, or why `text` is no rule and where; memory of `arena`. */
const char *nb_rule_parse(nb_arena *arena, const char *text, bool with_expression,
                          nb_rule_parts *out);

#endif
