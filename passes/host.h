/* Private to the host table (host*.c): misuse as a diagnostic, and what several parts need. */
#ifndef NB_PASSES_HOST_H
#define NB_PASSES_HOST_H

#include "passes/pass.h"

#include <stddef.h>
#include <string.h>

/* Records that the pass called host->CALL wrongly; the pass fails when it returns. */
void nb_misuse(nb_pass_ctx *ctx, const char *call, const char *fmt, ...) NB_PRINTF(3, 4);

/* The same of the member that a function nb_host_MEMBER is. */
#define NB_MISUSE(ctx, ...) nb_misuse((ctx), __func__ + sizeof "nb_host_" - 1, __VA_ARGS__)

/* A removed op is still memory, but stands nowhere. */
static inline bool nb_is_in_graph(const nb_op *op) {
    return op->prev || op->next || op->parent->first == op;
}

/* Structs that begin with `size` may be longer or shorter than they are here. `to` gets what both
 * have; the rest of it becomes 0. */
static inline void nb_take_sized(void *to, size_t ours, const void *from, size_t theirs) {
    memset(to, 0, ours);
    memcpy(to, from, theirs < ours ? theirs : ours);
}
/* Fills a struct of the caller's, as far as its `size` goes; that stays. */
static inline void nb_give_sized(void *to, const void *from, size_t ours) {
    uint32_t theirs;
    memcpy(&theirs, to, sizeof theirs);
    memcpy(to, from, theirs < ours ? theirs : ours);
    memcpy(to, &theirs, sizeof theirs);
}
/* How long a struct was whose last member was that one: in 1.0, that is. */
#define NB_SIZE_TO(type, member) (offsetof(type, member) + sizeof(((type *)NULL)->member))

/* Element type, shape and bytes of an array; false when they make no tensor. Its data counts for
 * nothing. */
bool nb_array_type(nb_pass_ctx *ctx, const nb_array *array, const nb_type **type, int64_t *bytes);
/* The tensor as an array; its data is borrowed. */
void nb_array_of(const nb_tensor *t, nb_array *out);
/* A new constant, of codes if there is a quantization; NULL after a diagnostic. */
nb_value *nb_const_of_array(nb_pass_ctx *ctx, const char *call, const char *name,
                            const nb_array *array, const nb_quant *quant);
/* The graph's quantization of that name, or NULL. */
const nb_quant *nb_quant_by_name(const nb_graph *g, const char *name);
/* The result type of a call for these operands, by the rule of the op's plug-in; NULL after a
 * diagnostic. */
const nb_type *nb_call_type(nb_pass_ctx *ctx, const nb_op_def *def, nb_value *const *operands,
                            const int64_t *numbers, size_t n_numbers);

/* build and build_with_bodies, which `call` names in messages. */
nb_value *nb_build_op(nb_pass_ctx *ctx, const char *call, nb_op *before, const char *op,
                      nb_value *const *operands, size_t n_operands, const nb_attr_arg *attrs,
                      size_t n_attrs, nb_region *const *bodies, size_t n_bodies);
/* Drops the bodies that no op got; false after a diagnostic, when something outside uses them. */
bool nb_drop_bodies(nb_pass_ctx *ctx);

/* Members of the table that stand in files of their own (nb_pass.h has what they do). */
nb_value *nb_host_build(nb_pass_ctx *ctx, nb_op *before, const char *op, nb_value *const *operands,
                        size_t n_operands, const nb_attr_arg *attrs, size_t n_attrs);
int nb_host_set_operand(nb_pass_ctx *ctx, nb_op *op, size_t i, nb_value *value);
int nb_host_replace_uses(nb_pass_ctx *ctx, nb_value *from, nb_value *to);
int nb_host_remove_op(nb_pass_ctx *ctx, nb_op *op);
size_t nb_host_sweep(nb_pass_ctx *ctx);
int nb_host_set_name(nb_pass_ctx *ctx, nb_value *value, const char *name);
int nb_host_move_op(nb_pass_ctx *ctx, nb_op *op, nb_op *before);
int nb_host_const_data(nb_pass_ctx *ctx, const nb_value *value, nb_array *out);
int nb_host_const_floats(nb_pass_ctx *ctx, const nb_value *value, int64_t first, int64_t count,
                         float *out);
int nb_host_const_rest(nb_pass_ctx *ctx, const nb_value *value);
nb_value *nb_host_make_const(nb_pass_ctx *ctx, const char *name, const nb_array *array);
nb_value *nb_host_make_const_by(nb_pass_ctx *ctx, const char *name, const nb_array *shape,
                                nb_fill_fn fill, void *user);
const char *nb_host_make_quant(nb_pass_ctx *ctx, const nb_quant_arg *quant);
nb_value *nb_host_make_codes(nb_pass_ctx *ctx, const char *name, const nb_array *codes,
                             const char *quant);
int nb_host_quant(const nb_graph *graph, const char *name, nb_quant_arg *out);
const char *nb_host_elem_text(int32_t elem);
int32_t nb_host_elem_named(const char *text);
int32_t nb_host_elem_bits(int32_t elem);
const char *nb_host_symbol(nb_pass_ctx *ctx, size_t i);
int nb_host_dim(nb_pass_ctx *ctx, const char *text, nb_dim_view *out);
const char *nb_host_make_symbol(nb_pass_ctx *ctx, const char *name, int64_t min, int64_t max);
size_t nb_host_body_count(const nb_op *op);
nb_op *nb_host_body_first_op(const nb_op *op, size_t body);
size_t nb_host_body_input_count(const nb_op *op, size_t body);
nb_value *nb_host_body_input(const nb_op *op, size_t body, size_t i);
nb_op *nb_host_parent_op(const nb_op *op);
size_t nb_host_body_output_count(const nb_op *op, size_t body);
nb_value *nb_host_body_output(const nb_op *op, size_t body, size_t i);
nb_body *nb_host_make_body(nb_pass_ctx *ctx, const nb_op *like);
nb_value *nb_host_body_take(nb_pass_ctx *ctx, nb_body *body, const char *name, const char *type);
nb_op *nb_host_body_end(nb_pass_ctx *ctx, nb_body *body);
int nb_host_body_return(nb_pass_ctx *ctx, nb_body *body, nb_value *const *values, size_t n);
nb_value *nb_host_build_with_bodies(nb_pass_ctx *ctx, nb_op *before, const char *op,
                                    nb_value *const *operands, size_t n_operands,
                                    const nb_attr_arg *attrs, size_t n_attrs,
                                    nb_body *const *bodies, size_t n_bodies);
int nb_host_stats(nb_pass_ctx *ctx, const nb_value *value, nb_stats_view *out);
int nb_host_selected(nb_pass_ctx *ctx, const char *option, const nb_op *op);
int nb_host_rewrite(nb_pass_ctx *ctx, const nb_rewrite_row *rows, size_t n_rows);
nb_value *nb_host_matched(const nb_match *match, const char *word);
nb_op *nb_host_matched_op(const nb_match *match);
nb_value *nb_host_call(nb_pass_ctx *ctx, nb_op *before, const char *name, nb_value *const *operands,
                       size_t n_operands, const int64_t *numbers, size_t n_numbers);

#endif
