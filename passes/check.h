/* --check-each: a pass that promises to keep the numbers is held to it. */
#ifndef NB_PASSES_CHECK_H
#define NB_PASSES_CHECK_H

#include "passes/pass.h"

bool nb_check_applies(const nb_pass *pass);
/* Runs both graphs on the same inputs (the first calibration sample, or made-up ones) and compares:
 * bits for NB_PASS_KEEPS_BITS, otherwise within tolerance. With NB_PASS_MOVES_STATES both run twice
 * on made-up inputs, from empty states and on the states each left. NB_CHECK_FAILED names the pass,
 * the output and the worst element. */
nb_status nb_check_pass(const nb_pass *pass, const nb_graph *before, const nb_graph *after,
                        nb_pass_env *env);

/* Inputs that fit the graph when no sample is given: every symbol gets a small value within its
 * range, integers small non-negative values, bools true, floats a fixed pseudo-random sequence.
 * For inputs and memory see eval.h. */
nb_tensor *nb_made_up_inputs(const nb_graph *g, nb_arena *arena);

#endif
