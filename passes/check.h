/* --check-each: a pass is held to what it promises, and one that promises nothing to numbers that
 * stay numbers. */
#ifndef NB_PASSES_CHECK_H
#define NB_PASSES_CHECK_H

#include "passes/pass.h"

/* Runs both graphs on the same inputs (the first calibration sample, or made-up ones) and compares:
 * bits for NB_PASS_KEEPS_BITS, within tolerance for NB_PASS_KEEPS_NUMBERS; any other pass may
 * round, but what was finite stays finite (as long as it gave the graph no other inputs). With
 * NB_PASS_MOVES_STATES both run twice on made-up inputs, from empty states and on the states each
 * left. NB_CHECK_FAILED names the pass, the output, the worst element and the tolerance. */
nb_status nb_check_pass(const nb_pass *pass, const nb_graph *before, const nb_graph *after,
                        nb_pass_env *env);

/* Inputs that fit the graph when no sample is given: every symbol gets a small value within its
 * range, integers small non-negative values, bools true, floats a fixed pseudo-random sequence.
 * For inputs and memory see eval.h. */
nb_tensor *nb_made_up_inputs(const nb_graph *g, nb_arena *arena);

#endif
