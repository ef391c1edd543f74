/* wide-inputs: 16-bit codes for the few activations whose 8-bit codes cost most.
 *
 *   requires   samples; insert-qdq{act=i8}; stands before fuse-dequant
 *   maintains  stage QDQ
 *
 *   %x.q: #act_i8[B,64] = quantize %x {to=#act_i8}  ->  #act_i16[B,64] = quantize %x {to=#act_i16}
 *
 * What an input's codes cost is measured, as choose-bits does for weights: the model runs with that
 * input alone in codes, and what counts is the divergence of its outputs (divergence.h) from those
 * of float inputs. The worst are to be wide until the others' costs add up to less than max-kld;
 * then the whole is measured, and more are while it is beyond that. In networks that amplify
 * errors, as those of depthwise convolutions do, a few inputs cost nearly everything, and an
 * input's own error does not tell which. */
#include "ir/build.h"
#include "passes/linear.h"
#include "passes/output_loss.h"

#include <stdlib.h>
#include <string.h>

#define WIDE_CODE 32639 /* as insert-qdq{act=i16} has it */

static const nb_option options[] = {
    {.name = "max-kld",
     .kind = NB_OPTION_FLOAT,
     .fallback = "0.001",
     .min = 0,
     .max = 100,
     .summary = "the most that the outputs may diverge by from those of float inputs"},
    {.name = "samples",
     .kind = NB_OPTION_INT,
     .fallback = "4",
     .min = 1,
     .max = 1 << 20,
     .summary = "the first so many samples measure"},
    {.name = "convolutions",
     .kind = NB_OPTION_BOOL,
     .fallback = "false",
     .summary = "only in graphs that have convolutions, and where there are samples"},
    {.name = NULL},
};

typedef struct input {
    nb_op *quantize, *dequantize;
    NB_VEC(nb_use *) readers; /* of what it dequantizes to */
    const char *name;         /* of its codes, as they came */
    double loss;
    size_t place; /* in the graph's order */
    bool coded;   /* in the run that is measured */
} input;

typedef struct search {
    nb_pass_ctx *ctx;
    nb_output_loss model;
    NB_VEC(input) inputs;
} search;

static bool is_narrow(const nb_op *op) {
    const nb_quant *q = op->kind == NB_OP_quantize ? nb_out(op)->type->quant : NULL;
    return q && q->storage == NB_I8 && q->amax_code && nb_has_one_use(nb_out(op)) &&
           nb_out(op)->uses->user->kind == NB_OP_dequantize;
}

static void find_inputs(search *s) {
    nb_arena *scratch = nb_state_of(s->ctx)->scratch;
    NB_FOR_OPS(op, &s->ctx->graph->body) {
        if (!is_narrow(op)) continue;
        input in = {.quantize = op, .dequantize = nb_out(op)->uses->user};
        in.name = nb_out(op)->name;
        in.place = s->inputs.count;
        for (nb_use *u = nb_out(in.dequantize)->uses; u; u = u->next)
            nb_vec_push(scratch, &in.readers, u);
        nb_vec_push(scratch, &s->inputs, in);
    }
}

static void read_instead(const input *in, nb_value *x) {
    for (size_t i = 0; i < in->readers.count; i++) nb_set_operand(in->readers.items[i], x);
}

/* ---- measuring ------------------------------------------------------------------------------ */

/* Which inputs are in codes. */
static nb_blob *flags_of(const search *s) {
    void *data;
    nb_blob *blob = nb_blob_create((int64_t)s->inputs.count, &data);
    if (!blob) {
        nb_error(nb_diags_of(s->ctx), NB_LIMIT, NB_NOWHERE, "out of memory for a table");
        return NULL;
    }
    for (size_t i = 0; i < s->inputs.count; i++)
        ((bool *)data)[s->inputs.items[i].place] = s->inputs.items[i].coded;
    return blob;
}

/* They are said by one constant. Only its bytes change, so that the model is compiled once. */
static nb_value *add_table(const search *s) {
    nb_blob *blob = flags_of(s);
    if (!blob) return NULL;
    nb_graph *g = s->ctx->graph;
    const nb_dim *n = nb_dim_const(g, (int64_t)s->inputs.count);
    return nb_graph_add_const(g, "in_codes", nb_type_intern(g, NB_BOOL, NULL, 1, &n), blob, NULL);
}

/* The layers of input i read `where table[i], codes, x`, of x. */
static bool add_choice(const search *s, nb_value *table, size_t i) {
    const input *in = &s->inputs.items[i];
    nb_graph *g = s->ctx->graph;
    const nb_dim *at = nb_dim_const(g, (int64_t)i), *one = nb_dim_const(g, 1);
    nb_builder b = nb_pass_builder(s->ctx, in->dequantize->next, in->dequantize->loc);
    nb_begin(&b, NB_OP_slice);
    nb_arg(&b, table);
    nb_set_dims(&b, "start", 1, &at);
    nb_set_dims(&b, "count", 1, &one);
    nb_set_ints(&b, "step", 1, (int64_t[]){1});
    nb_value *flag = nb_end(&b);
    nb_begin(&b, NB_OP_where);
    nb_arg(&b, flag);
    nb_arg(&b, nb_out(in->dequantize));
    nb_arg(&b, nb_in(in->quantize, 0));
    nb_value *y = flag ? nb_end(&b) : NULL;
    if (y) read_instead(in, y);
    return y != NULL;
}

/* With those inputs in codes that are `coded`; negative after an error. Bytes of constants do not
 * change: others take their place. */
static double loss_now(const search *s, nb_value *table) {
    nb_blob *own = table->blob, *other = flags_of(s);
    if (!other) return -1;
    table->blob = other;
    const double loss = nb_output_loss_now(&s->model);
    table->blob = own;
    nb_blob_release(other);
    return loss;
}

/* Each input alone. */
static bool measure(search *s, nb_value *table) {
    const nb_pass_env *env = nb_state_of(s->ctx)->env;
    const size_t n = s->inputs.count;
    for (size_t i = 0; i < n; i++) {
        input *in = &s->inputs.items[i];
        in->coded = true;
        in->loss = loss_now(s, table);
        in->coded = false;
        if (in->loss < 0) return false;
        if (env->progress) env->progress(env->progress_user, "wide-inputs", i + 1, n);
    }
    return true;
}

static int costly_first(const void *a, const void *b) {
    const input *x = a, *y = b;
    if (x->loss != y->loss) return x->loss > y->loss ? -1 : 1;
    return x->place < y->place ? -1 : 1;
}

/* The first *wide of the inputs are to be wide. Floats stand for 16-bit codes: the difference is
 * small, and the model need not be compiled anew. */
static bool choose(search *s, nb_value *table, size_t *wide) {
    const double most = nb_option_of(s->ctx, "max-kld")->f;
    const size_t n = s->inputs.count;
    double rest = 0, loss;
    qsort(s->inputs.items, n, sizeof *s->inputs.items, costly_first);
    for (size_t i = 0; i < n; i++) rest += s->inputs.items[i].loss;
    for (*wide = 0; *wide < n && rest > most; ++*wide) rest -= s->inputs.items[*wide].loss;
    for (;; ++*wide) {
        for (size_t i = 0; i < n; i++) s->inputs.items[i].coded = i >= *wide;
        loss = loss_now(s, table);
        if (loss < 0) return false;
        if (loss <= most || *wide == n) return true;
    }
}

static bool search_inputs(search *s, size_t *wide) {
    const size_t n = s->inputs.count;
    nb_value *table = add_table(s);
    bool done = table != NULL;
    for (size_t i = 0; done && i < n; i++) done = add_choice(s, table, s->inputs.items[i].place);
    done = done && nb_output_loss_float(&s->model) && measure(s, table) && choose(s, table, wide);
    for (size_t i = 0; i < n; i++)
        read_instead(&s->inputs.items[i], nb_out(s->inputs.items[i].dequantize));
    nb_graph_sweep(s->ctx->graph);
    return done;
}

/* ---- the codes ------------------------------------------------------------------------------ */

/* The same range in 16-bit codes. */
static bool widen(nb_pass_ctx *ctx, input *in) {
    nb_quant q = *nb_out(in->quantize)->type->quant;
    if (q.granularity == NB_PER_TENSOR) q.scale *= (float)q.amax_code / WIDE_CODE;
    q.storage = NB_I16;
    q.amax_code = WIDE_CODE;
    nb_builder b = nb_pass_builder(ctx, in->quantize, in->quantize->loc);
    nb_begin(&b, NB_OP_quantize);
    nb_arg(&b, nb_in(in->quantize, 0));
    nb_set_quant(&b, "to", nb_quant_intern(ctx->graph, &q, "act_i16", nb_diags_of(ctx)));
    nb_value *codes = nb_end(&b);
    b.loc = in->dequantize->loc;
    nb_value *x = codes ? nb_unary(&b, NB_OP_dequantize, codes) : NULL;
    if (!x) return false;
    nb_set_name(ctx->graph, codes, nb_out(in->quantize)->name);
    nb_set_name(ctx->graph, x, nb_out(in->dequantize)->name);
    in->quantize = codes->def;
    in->dequantize = x->def;
    read_instead(in, x);
    return true;
}

/* Makes them wide, and more if the whole is still beyond the limit. */
static bool widen_first(search *s, size_t *wide, double *loss) {
    const double most = nb_option_of(s->ctx, "max-kld")->f;
    for (size_t i = 0; i < *wide; i++)
        if (!widen(s->ctx, &s->inputs.items[i])) return false;
    for (;;) {
        *loss = nb_output_loss_now(&s->model);
        if (*loss < 0) return false;
        if (*loss <= most || *wide == s->inputs.count) return true;
        if (!widen(s->ctx, &s->inputs.items[(*wide)++])) return false;
    }
}

static bool search_and_widen(search *s, size_t *wide, double *loss) {
    const bool ok = nb_output_loss_begin(&s->model, s->ctx, nb_option_of(s->ctx, "samples")->i) &&
                    search_inputs(s, wide) && widen_first(s, wide, loss);
    nb_output_loss_end(&s->model);
    return ok;
}

/* ---- several forms of one model ------------------------------------------------------------- */

static bool is_chosen(const nb_wide_choice *choice, const input *in) {
    for (size_t i = 0; i < choice->names.count; i++)
        if (strcmp(choice->names.items[i], in->name) == 0) return true;
    return false;
}

/* The first form that is searched chooses for all. */
static bool take_choice(search *s, nb_wide_choice *choice, size_t *wide) {
    nb_pass_env *env = nb_state_of(s->ctx)->env;
    const size_t given = env->n_samples;
    double loss;
    if (!choice->known) {
        env->n_samples = choice->n_samples;
        const bool ok = search_and_widen(s, wide, &loss);
        env->n_samples = given;
        choice->known = ok;
        for (size_t i = 0; ok && i < *wide; i++)
            nb_vec_push(choice->arena, &choice->names,
                        nb_strdup(choice->arena, s->inputs.items[i].name));
        return ok;
    }
    for (size_t i = 0; i < s->inputs.count; i++) {
        if (!is_chosen(choice, &s->inputs.items[i])) continue;
        if (!widen(s->ctx, &s->inputs.items[i])) return false;
        ++*wide;
    }
    return true;
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    nb_pass_env *env = nb_state_of(ctx)->env;
    search s = {.ctx = ctx};
    if (nb_option_of(ctx, "convolutions")->b &&
        (!nb_has_convolutions(ctx->graph) || !env->n_samples))
        return nb_pass_end(ctx, false);
    find_inputs(&s);
    if (!s.inputs.count) return nb_pass_end(ctx, false);
    if (!env->n_samples) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL, "there are no samples to run");
        ctx->host->help(ctx, "give some with --calib FILE.npz");
        return NB_PASS_FAILED;
    }
    size_t wide = 0;
    double loss = -1;
    if (env->wide ? !take_choice(&s, env->wide, &wide) : !search_and_widen(&s, &wide, &loss))
        return NB_PASS_FAILED;
    nb_graph_sweep(ctx->graph);
    if (!env->wide)
        ctx->host->report(ctx, NB_LEVEL_INFO, NULL,
                          "%zu of %zu inputs have 16-bit codes; the outputs diverge by %.3g from "
                          "those of float inputs",
                          wide, s.inputs.count, loss);
    return nb_pass_end(ctx, wide > 0);
}

const nb_pass nb_pass_wide_inputs = {
    .size = sizeof(nb_pass),
    .name = "wide-inputs",
    .options = options,
    .run = run,
    .summary = "16-bit codes for the few activations whose 8-bit codes cost most",
};
