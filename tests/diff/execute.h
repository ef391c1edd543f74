/* Runs a compiled model as a careful caller would, on memory that ends where a page nobody may
 * touch begins: reading or writing one byte too many ends the test. */
#ifndef NB_DIFF_EXECUTE_H
#define NB_DIFF_EXECUTE_H

#include "codegen/codegen.h"
#include "ir/eval.h"
#include "runtime/nb_model.h"

#define DIFF_MAX_PORTS 12 /* inputs of a model, and as many outputs */

/* Fills `outputs` (memory of `arena`) and `*result` with what run returned. With `split`, loops are
 * cut into uneven pieces that run in reverse order, and outputs lie askew in memory. NULL, or what
 * went wrong. */
const char *diff_execute(const nb_model *model, const nb_pack *pack, const nb_tensor *inputs,
                         nb_tensor *outputs, int64_t capacity, bool split, nb_arena *arena,
                         int32_t *result);

#endif
