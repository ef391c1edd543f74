/* hard_gate: an operator that ONNX does not have, from a model's own domain.
 *
 *   HardGate (domain example.org), attributes alpha (0.2) and beta (0.5):
 *   y = x * max(min(x * alpha + beta, 1), 0)
 *
 * `onnx` and `attributes` are all it takes: while the plug-in is loaded, such nodes are imported as
 *
 *   %y: f32[B,4] = call %x, @alpha, @beta {function="hard_gate", to=f32, shape=[B,4]} at "/gate"
 *
 * The evaluator and models in memory call the C function. `lower` builds the same from Nibble's own
 * operations, so that nothing has to be linked with a compiled file:
 *
 *   nibble compile model.onnx -o model.so --load ./hard-gate.so --passes "lower-calls, simplify,
 * plan-memory" */
#include "nb_pass.h"

#define F32 1

/* ---- the kernel ----------------------------------------------------------------------------- */

NB_EXPORT void nb_call_hard_gate(const void *const *operands, void *result, const int64_t *dims,
                                 const int64_t *numbers, int64_t begin, int64_t end);

/* dims: x [rows, n], result [rows, n]; the attributes have none. */
void nb_call_hard_gate(const void *const *operands, void *result, const int64_t *dims,
                       const int64_t *numbers, int64_t begin, int64_t end) {
    const float *x = operands[0], *alpha = operands[1], *beta = operands[2];
    float *y = result;
    (void)numbers;
    for (int64_t i = begin * dims[1]; i < end * dims[1]; i++) {
        float gate = x[i] * *alpha;
        gate = gate + *beta;
        gate = gate > 1 ? 1 : gate;
        gate = gate < 0 ? 0 : gate;
        y[i] = x[i] * gate;
    }
}

/* ---- the operation -------------------------------------------------------------------------- */

static const char *shape(nb_pass_ctx *ctx, nb_value *const *operands, const int64_t *numbers,
                         size_t n_numbers, nb_op_shape *out) {
    const nb_pass_host *h = ctx->host;
    (void)numbers;
    (void)out; /* as x has it */
    if (n_numbers) return "it takes no numbers";
    for (int i = 0; i < 3; i++) {
        if (h->value_elem(operands[i]) != F32) return "all operands are of f32";
        if (h->value_rank(operands[i]) != (i ? 0 : 2)) return "x has two axes, the others none";
    }
    return NULL;
}

static nb_value *binary(nb_pass_ctx *ctx, nb_op *before, const char *op, nb_value *a, nb_value *b) {
    nb_value *operands[2] = {a, b};
    return ctx->host->build(ctx, before, op, operands, 2, NULL, 0);
}

static nb_value *lower(nb_pass_ctx *ctx, nb_op *op) {
    const nb_pass_host *h = ctx->host;
    static const float zero = 0, one = 1;
    const nb_array zeros = {.elem = F32, .data = &zero}, ones = {.elem = F32, .data = &one};
    nb_value *x = h->operand(op, 0);
    nb_value *gate = binary(ctx, op, "mul", x, h->operand(op, 1));
    gate = binary(ctx, op, "add", gate, h->operand(op, 2));
    gate = binary(ctx, op, "min", gate, h->make_const(ctx, "one", &ones));
    gate = binary(ctx, op, "max", gate, h->make_const(ctx, "zero", &zeros));
    return binary(ctx, op, "mul", x, gate);
}

static const nb_op_def hard_gate = {
    .size = sizeof(nb_op_def),
    .name = "hard_gate",
    .summary = "x * max(min(x * alpha + beta, 1), 0) of x[rows,n]",
    .operands = 3,
    .shape = shape,
    .lower = lower,
    .onnx = "example.org::HardGate",
    .attributes = "alpha:f=0.2 beta:f=0.5",
};
static const nb_op_def *const ops[] = {&hard_gate, NULL};

NB_EXPORT const nb_plugin nb_plugin_v1 = {
    .size = sizeof(nb_plugin),
    .abi_major = NB_PASS_ABI_MAJOR,
    .abi_minor = NB_PASS_ABI_MINOR,
    .name = "hard-gate",
    .ops = ops,
};
