/* Rewrite rules as rows: an equation, a pattern, a condition, a replacement.
 *
 *   static const nb_rule rules[] = {
 *       {"double-neg", "neg(neg(x)) -> x",
 *        OP("neg", "", OP("neg", "", ANY("x"))), .to = to_x},
 *   };
 *
 * The equation is comment, trace and documentation at once. A pattern matches the op whose result
 * is the root; operands of commutative ops match both ways round, and a choice that leads nowhere
 * is taken back. The driver is greedy: it visits ops in order until nothing changes, gives new ops
 * the merged locations of what they replace, and removes what became dead.
 *
 * PAT_PRODUCT is for formulas that are spelled in many ways: number * factor * factor ..., whether
 * by mul, div, reciprocal, neg, sqrt or pow, in any order and association. PAT_POWER gives a
 * factor an exponent:
 *
 *   PAT_PRODUCT(0.5, PAT_ANY("x"), PAT_POWER(-0.5, PAT_ANY("y")))     0.5 * x / sqrt(y) */
#ifndef NB_REWRITE_H
#define NB_REWRITE_H

#include "ir/build.h"
#include "passes/pass.h"

typedef enum nb_pat_kind {
    NB_PAT_END = 0,
    NB_PAT_OP,      /* result of this op */
    NB_PAT_ANY,     /* any value */
    NB_PAT_CONST,   /* a constant */
    NB_PAT_NUMBER,  /* a constant all of whose elements equal `number` */
    NB_PAT_PRODUCT, /* `number` times exactly the args */
    NB_PAT_POWER    /* an arg of NB_PAT_PRODUCT: its arg to the power `number` */
} nb_pat_kind;

#define NB_PAT_ARGS 4

typedef struct nb_pat {
    nb_pat_kind kind;
    const char *op;   /* NB_PAT_OP */
    const char *name; /* captures under this name; the same name twice must be the same value */
    bool single;      /* the op's result has no other use */
    double number;    /* 1, 0.5: as it stands; not representable in f32, as sqrt(2): to 3 digits */
    const struct nb_pat *args[NB_PAT_ARGS]; /* leading operands or factors, NULL ends */
} nb_pat;

#define NB_PAT(...) (&(const nb_pat){__VA_ARGS__})
/* PAT(op, name, operands...): OP1 also requires a single use. */
#define PAT_OP(op_, name_, ...) \
    NB_PAT(.kind = NB_PAT_OP, .op = (op_), .name = (name_), .args = {__VA_ARGS__})
#define PAT_OP1(op_, name_, ...) \
    NB_PAT(.kind = NB_PAT_OP, .op = (op_), .name = (name_), .single = true, .args = {__VA_ARGS__})
#define PAT_ANY(name_)     NB_PAT(.kind = NB_PAT_ANY, .name = (name_))
#define PAT_CONST(name_)   NB_PAT(.kind = NB_PAT_CONST, .name = (name_))
#define PAT_NUMBER(value_) NB_PAT(.kind = NB_PAT_NUMBER, .number = (value_))
#define PAT_PRODUCT(number_, ...) \
    NB_PAT(.kind = NB_PAT_PRODUCT, .number = (number_), .args = {__VA_ARGS__})
#define PAT_POWER(power_, factor_) \
    NB_PAT(.kind = NB_PAT_POWER, .number = (power_), .args = {factor_})

/* Where a pattern came furthest before it failed, for nibble explain. */
typedef struct nb_closest {
    size_t n_nodes; /* operations of the pattern that were there */
    const nb_pat *pattern;
    const nb_value *value; /* what should have been that pattern */
    const char *why;       /* how they differ, with %s for the value's name; NULL: not yet */
} nb_closest;

#define NB_MAX_CAPTURES 12
#define NB_MAX_MATCHED  64

struct nb_match {
    const struct nb_rule *rule;
    nb_pass_ctx *ctx;
    nb_graph *graph;
    nb_op *root;
    struct {
        const char *name;
        nb_value *value;
    } captures[NB_MAX_CAPTURES];
    size_t n_captures;
    struct {
        const nb_op *op;
        int depth;
    } ops[NB_MAX_MATCHED]; /* matched ops, each before those that make its operands */
    size_t n_ops;
    size_t n_nodes;      /* operations of the pattern found so far */
    const nb_loc *loc;   /* of all matched ops, root last */
    nb_closest *closest; /* or NULL: nobody asks */
};

/* The captured value; asking for a name that is not in the pattern is a bug and aborts. */
nb_value *nb_got(const nb_match *m, const char *name);
/* The op that made it. */
nb_op *nb_got_op(const nb_match *m, const char *name);

typedef struct nb_rule {
    const char *name;
    const char *equation;
    const nb_pat *pattern;
    /* NULL when the rule applies, else why not, in words for nibble explain. Optional. */
    const char *(*where)(const nb_match *m);
    /* Builds the replacement of the root's result with `b` (placed before the root), or returns an
     * existing value; NULL leaves the graph as it is. */
    nb_value *(*to)(nb_match *m, nb_builder *b);
} nb_rule;

/* Applies rules until none fires; false when an error was recorded. `*changed` is or-ed. */
bool nb_rewrite_run(nb_pass_ctx *ctx, const nb_rule *rules, size_t n_rules, bool *changed);
/* Tries one pattern at one op (for passes that look for more than a tree). */
bool nb_pattern_match(const nb_pat *pattern, nb_op *root, nb_match *m);
/* All elements of a constant equal; its value. */
bool nb_const_number(const nb_value *v, double *out);

#endif
