/* Codes of weights (weight_codes.h): runs are rounded side by side on all processors, or the whole
 * matrix is solved for. */
#include "passes/weight_codes.h"

#include "ir/build.h"
#include "ir/minifloat.h"
#include "ir/support/parallel.h"
#include "passes/block_weights.h"
#include "passes/branch.h"
#include "passes/exact.h"
#include "passes/kept.h"
#include "passes/linear.h"
#include "passes/scale_codes.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

typedef struct job {
    nb_pass_ctx *ctx;
    nb_op *op; /* for messages and placement */
    nb_value *w;
    int64_t rows, cols;
    const float *data;
    nb_weight_cut cut;
    int64_t groups; /* along the cut's axis */
    nb_solving *solving;
    nb_exact exact;     /* n: 0 when there are none */
    uint8_t *codes;     /* packed */
    void *scales;       /* [groups, cols], or [rows, groups] */
    uint8_t *zeros;     /* packed, as scales; NULL when symmetric */
    const float *given; /* what scales have become, to choose codes by; or NULL */
    atomic_llong bad;   /* the first element that is not finite, or NONE, or NO_MEMORY */
} job;

#define NONE      (-1LL)
#define NO_MEMORY (-2LL)

/* Runs in a turn of the parallel loop; a multiple of 8, so that turns share no byte. */
#define TURN_RUNS 512

/* Up to 16 runs side by side: where they are, and room for them. */
typedef struct block {
    int64_t first, n, runs; /* first element; length and number of the runs */
    int64_t along, across;  /* from element to element, from run to run */
    float *weights;         /* [n][16] */
    uint8_t *codes;
} block;

/* Brings a block's weights side by side; false when one is not finite. */
static bool gather(job *j, const block *b) {
    float nothing = 0; /* or NaN */
    for (int64_t i = 0; i < b->n; i++) {
        for (int64_t c = 0; c < NB_RTN_RUNS; c++) {
            float w = c < b->runs ? j->data[b->first + i * b->along + c * b->across] : 0;
            b->weights[i * NB_RTN_RUNS + c] = w;
            nothing += w * 0;
        }
    }
    if (nothing == 0) return true;
    for (int64_t i = 0; i < b->n; i++) {
        for (int64_t c = 0; c < b->runs; c++) {
            long long at = b->first + i * b->along + c * b->across, seen = atomic_load(&j->bad);
            if (isfinite(j->data[at])) continue;
            while ((seen == NONE || at < seen) &&
                   !atomic_compare_exchange_weak(&j->bad, &seen, at)) {
            }
        }
    }
    return false;
}

static bool is_zero_run(const block *b, int64_t c) {
    for (int64_t i = 0; i < b->n; i++) {
        if (b->weights[i * NB_RTN_RUNS + c] != 0) return false;
    }
    return true;
}

static void put_scale(job *j, int64_t run, float scale) {
    const nb_elem e = j->cut.form.scale;
    if (e == NB_F32)
        ((float *)j->scales)[run] = scale;
    else
        nb_elem_put(e, j->scales, run, nb_float_encode(e, scale));
}

static void quantize_block(job *j, const block *b, const int64_t *run) {
    nb_rtn rtn = j->cut.rtn;
    if (rtn.importance) rtn.importance += b->first / j->cols; /* from the run's first input on */
    const bool floats = nb_elem_is_float(j->cut.form.elem);
    float scales[NB_RTN_RUNS] = {0};
    int64_t zeros[NB_RTN_RUNS] = {0};
    if (!gather(j, b)) return;
    for (int64_t c = 0; j->given && c < b->runs; c++) {
        scales[c] = j->given[run[c]];
        if (j->zeros) zeros[c] = (int64_t)nb_elem_get(j->cut.form.elem, j->zeros, run[c]);
    }
    if (!j->given) {
        if (floats)
            nb_float_fit(&j->cut.form, b->weights, b->n, scales);
        else
            nb_rtn_fit(&rtn, b->weights, b->n, scales, zeros);
    }
    if (floats)
        nb_float_codes_of(&j->cut.form, b->weights, b->n, scales, b->codes);
    else
        nb_rtn_codes(&rtn, b->weights, b->n, scales, zeros, b->codes);
    for (int64_t c = 0; !j->given && c < b->runs; c++) {
        put_scale(j, run[c], j->cut.twice && is_zero_run(b, c) ? 0 : scales[c]);
        if (j->zeros) nb_elem_put(j->cut.form.elem, j->zeros, run[c], (uint64_t)zeros[c]);
    }
    for (int64_t i = 0; i < b->n; i++) {
        for (int64_t c = 0; c < b->runs; c++)
            nb_elem_put(j->cut.form.elem, j->codes, b->first + i * b->along + c * b->across,
                        b->codes[i * NB_RTN_RUNS + c]);
    }
}

/* Group g of the runs [from, to). */
static void quantize_runs(job *j, int64_t g, int64_t from, int64_t to) {
    const nb_weight_cut *c = &j->cut;
    const int64_t length = c->axis ? j->cols : j->rows, start = g * c->group;
    block b = {.along = c->axis ? 1 : j->cols,
               .across = c->axis ? j->cols : 1,
               .n = nb_min_i64(c->group, length - start)};
    const size_t room = (size_t)b.n * NB_RTN_RUNS;
    b.weights = malloc(room * sizeof(float));
    b.codes = malloc(room);
    if (!b.weights || !b.codes) atomic_store(&j->bad, NO_MEMORY);
    for (int64_t o = from; o < to && b.weights && b.codes; o += NB_RTN_RUNS) {
        int64_t run[NB_RTN_RUNS];
        b.runs = nb_min_i64(NB_RTN_RUNS, to - o);
        b.first = start * b.along + o * b.across;
        for (int64_t k = 0; k < b.runs; k++)
            run[k] = c->axis ? (o + k) * j->groups + g : g * j->cols + o + k;
        quantize_block(j, &b, run);
    }
    free(b.weights);
    free(b.codes);
}

static int64_t turns_of(const job *j) {
    return nb_ceildiv(j->cut.axis ? j->rows : j->cols, TURN_RUNS);
}

/* Some rows of an embedding, all groups: neighbours in a row may share a byte. Of a linear layer
 * one group of some columns. */
static void quantize_turn(void *user, int64_t turn) {
    job *j = user;
    const int64_t turns = turns_of(j), runs = j->cut.axis ? j->rows : j->cols,
                  from = turn % turns * TURN_RUNS, to = nb_min_i64(from + TURN_RUNS, runs);
    if (!j->cut.axis) {
        quantize_runs(j, turn / turns, from, to);
        return;
    }
    for (int64_t g = 0; g < j->groups; g++) quantize_runs(j, g, from, to);
}

nb_value *nb_add_part(nb_pass_ctx *ctx, const nb_value *w, const char *suffix, const nb_type *type,
                      nb_blob *blob) {
    const char *name = nb_format(ctx->graph->arena, "%s%s", w->name, suffix);
    return nb_graph_add_const(ctx->graph, name, type, blob,
                              nb_loc_via(ctx->graph, w->loc, "quantize-weights"));
}

void nb_codes_no_memory(nb_pass_ctx *ctx, const nb_value *w) {
    nb_error(nb_diags_of(ctx), NB_LIMIT, NB_NOWHERE, "out of memory for the codes of '@%s'",
             w->name);
}

void nb_codes_misfit(nb_pass_ctx *ctx, const nb_op *op, const nb_value *w, int64_t at) {
    const int64_t cols = w->type->dims[1]->value;
    ctx->host->report(ctx, NB_LEVEL_ERROR, op,
                      "row %lld, column %lld of weight '@%s' is %g: no scale fits",
                      (long long)(at / cols), (long long)(at % cols), w->name,
                      (double)((const float *)w->blob->data)[at]);
    ctx->host->help(ctx, "leave this node in float: quantize-weights{skip=\"%s\"}",
                    nb_loc_name(op->loc));
}

/* By the moments of the layer's inputs; false when memory is short. */
static bool solve(job *j) {
    nb_layer_inputs *in = &j->solving->inputs;
    const int64_t n = j->rows * j->cols, runs = j->groups * j->cols;
    uint8_t *codes = malloc((size_t)n + 1), *zeros = malloc((size_t)runs + 1);
    const nb_gptq p = {.rtn = j->cut.rtn,
                       .rows = j->rows,
                       .cols = j->cols,
                       .group = j->cut.group,
                       .weights = j->data,
                       .hessian = &in->hessian,
                       .cross = in->cross.sum ? &in->cross : NULL,
                       .correct = in->correct,
                       .refinements = j->solving->refinements,
                       .anneal = j->solving->anneal,
                       .held = &in->held,
                       .codes = codes,
                       .scales = j->scales,
                       .zeros = j->zeros ? zeros : NULL};
    const bool ok = codes && zeros &&
                    (j->exact.n ? nb_exact_solve(&j->exact, p, &in->hessian) : nb_gptq_solve(&p));
    for (int64_t i = 0; ok && i < n; i++) nb_elem_put(j->cut.form.elem, j->codes, i, codes[i]);
    for (int64_t i = 0; ok && j->zeros && i < runs; i++)
        nb_elem_put(j->cut.form.elem, j->zeros, i, zeros[i]);
    free(codes);
    free(zeros);
    return ok;
}

/* Where the first weight that is not finite stands, or NONE. */
static long long find_bad(const job *j) {
    for (int64_t i = 0; i < j->rows * j->cols; i++) {
        if (!isfinite(j->data[i])) return i;
    }
    return NONE;
}

/* Each run by itself; a weight that is not finite is noted in `bad`. */
static void round_all(job *j) {
    const int64_t n = turns_of(j) * (j->cut.axis ? 1 : j->groups);
    if (j->cut.axis || j->cols * nb_elems[j->cut.form.elem].bits % 8 == 0)
        nb_parallel(n, quantize_turn, j);
    else
        for (int64_t turn = 0; turn < n; turn++) quantize_turn(j, turn);
}

/* False, with an error, when a weight is not finite or memory is short. */
static bool quantize_all(job *j) {
    atomic_init(&j->bad, j->solving ? find_bad(j) : NONE);
    if (!j->solving) {
        round_all(j);
    } else if (atomic_load(&j->bad) == NONE) {
        if (!nb_layer_inputs_to(&j->solving->inputs, j->op)) return false;
        if (!solve(j)) atomic_store(&j->bad, NO_MEMORY);
    }
    const long long bad = atomic_load(&j->bad);
    if (bad == NONE) return true;
    if (bad == NO_MEMORY)
        nb_codes_no_memory(j->ctx, j->w);
    else
        nb_codes_misfit(j->ctx, j->op, j->w, bad);
    return false;
}

/* How many inputs stay exact; one at least is rounded. */
static int64_t exact_count(const job *j) {
    const double keep = j->solving ? j->solving->keep : 0;
    const int64_t n = (int64_t)rint(keep < 1 ? keep * (double)j->rows : keep);
    return nb_min_i64(n, j->rows - 1);
}

/* Sizes alone are asked for: no weight of a mapped file is read. */
static bool is_estimate(const job *j) {
    return nb_state_of(j->ctx)->env->estimating && j->w->blob->mapped && !j->solving &&
           !j->cut.twice;
}

/* Blobs for codes, scales and zeros; false when memory is short. */
static bool allocate(job *j, nb_blob **codes, nb_blob **scales, nb_blob **zeros, int64_t runs) {
    int bits = nb_elems[j->cut.form.elem].bits;
    void *data;
    int64_t n = (j->rows * j->cols * bits + 7) / 8;
    if (!(*codes = nb_blob_create(n, &data))) return false;
    j->codes = memset(data, 0, (size_t)n);
    if (!(*scales = nb_blob_create(runs * nb_elems[j->cut.form.scale].bits / 8, &data)))
        return false;
    j->scales = data;
    const int64_t exact = exact_count(j);
    if (exact && !nb_exact_create(&j->exact, exact, j->cols)) return false;
    if (!j->cut.rtn.asymmetric) return true;
    n = (runs * bits + 7) / 8;
    if (!(*zeros = nb_blob_create(n, &data))) return false;
    j->zeros = memset(data, 0, (size_t)n);
    return true;
}

/* The same, of zeros that take no memory. */
static bool stand_in(const job *j, nb_blob **codes, nb_blob **scales, nb_blob **zeros,
                     int64_t runs) {
    const int bits = nb_elems[j->cut.form.elem].bits;
    *codes = nb_blob_zeros((j->rows * j->cols * bits + 7) / 8);
    *scales = nb_blob_zeros(runs * nb_elems[j->cut.form.scale].bits / 8);
    if (j->cut.rtn.asymmetric) *zeros = nb_blob_zeros((runs * bits + 7) / 8);
    return *codes && *scales && (*zeros || !j->cut.rtn.asymmetric);
}

/* Scales become codes, and then weights' codes are chosen by what scales are now; takes their blob.
 * NULL after an error. */
static nb_value *round_again(job *j, const nb_type *type, nb_blob *scales) {
    float *given = j->scales;
    nb_value *codes = nb_scale_codes(j->ctx, j->w, type, given);
    j->given = given;
    if (codes) round_all(j);
    nb_blob_release(scales);
    return codes;
}

/* What an earlier run solved is taken up; what is solved now is kept for a later one. */
static bool make_codes(job *j, const nb_part *parts, size_t n) {
    if (!j->solving) return quantize_all(j);
    const char *what = nb_format(nb_state_of(j->ctx)->scratch, "%s=%d/%lld", j->w->name,
                                 j->cut.rtn.bits, (long long)j->cut.group);
    /* What is solved behind it sees what this one lost. */
    j->solving->key = nb_kept_key_of_text(j->solving->key, what);
    const nb_kept kept = nb_kept_as(j->ctx, j->solving->key);
    if (nb_kept_load(j->ctx, &kept, parts, n)) {
        nb_layer_inputs_pass(&j->solving->inputs, j->op);
        return true;
    }
    return quantize_all(j) && nb_kept_save(j->ctx, &kept, 1, parts, n) == NB_OK;
}

static nb_part part_of(const nb_blob *blob, void *data) {
    return blob ? (nb_part){data, (size_t)blob->size} : (nb_part){0};
}

/* The constant of codes for j->w, or NULL after an error. */
static nb_value *quantize_matrix(job *j) {
    nb_graph *g = j->ctx->graph;
    int64_t others = j->cut.axis ? j->rows : j->cols, runs = j->groups * others;
    nb_blob *codes = NULL, *scales = NULL, *zeros = NULL;
    const bool estimate = is_estimate(j);
    bool ok = estimate ? stand_in(j, &codes, &scales, &zeros, runs)
                       : allocate(j, &codes, &scales, &zeros, runs);
    if (!ok) nb_codes_no_memory(j->ctx, j->w);
    const nb_part parts[] = {part_of(codes, j->codes), part_of(scales, j->scales),
                             part_of(zeros, j->zeros), j->exact.parts[0], j->exact.parts[1]};
    if (!ok || (!estimate && !make_codes(j, parts, NB_COUNT(parts)))) {
        nb_blob_release(codes);
        nb_blob_release(scales);
        nb_blob_release(zeros);
        nb_exact_release(&j->exact);
        return NULL;
    }
    bool grouped = j->groups > 1;
    int axis = j->cut.axis;
    const nb_dim *dims[2] = {nb_dim_const(g, others), nb_dim_const(g, others)};
    dims[axis] = nb_dim_const(g, j->groups);
    int rank = grouped ? 2 : 1;
    const nb_dim *const *shape = grouped ? dims : &dims[1 - axis];
    nb_quant q = {.storage = j->cut.form.elem,
                  .narrow = nb_elems[j->cut.form.elem].class_ == NB_CLASS_INT &&
                            j->cut.rtn.range == NB_RTN_NARROW,
                  .axis = grouped ? axis : 1 - axis,
                  .granularity = grouped ? NB_PER_GROUP : NB_PER_AXIS,
                  .group = grouped ? j->cut.group : 0,
                  .scale = j->cut.form.unit};
    const nb_type *type = nb_type_intern(g, j->cut.form.scale, NULL, rank, shape);
    q.scales = j->cut.twice ? round_again(j, type, scales)
                            : nb_add_part(j->ctx, j->w, ".scale", type, scales);
    if (zeros)
        q.zeros = nb_add_part(j->ctx, j->w, ".zero",
                              nb_type_intern(g, j->cut.form.elem, NULL, rank, shape), zeros);
    const nb_quant *interned =
        q.scales ? nb_quant_intern(g, &q, j->w->name, nb_diags_of(j->ctx)) : NULL;
    type = interned ? nb_type_with_quant(g, j->w->type, interned) : NULL;
    if (type) return nb_add_part(j->ctx, j->w, ".q", type, codes);
    nb_blob_release(codes);
    return NULL;
}

/* The exact inputs become constants; of the weight, what its codes stand for is the rest. */
static bool keep_exact(job *j, const nb_value *codes) {
    nb_pass_env *env = nb_state_of(j->ctx)->env;
    nb_exact *e = NB_NEW(nb_state_of(j->ctx)->scratch, nb_exact);
    nb_exact_add_constants(j->ctx, &j->exact, j->w);
    *e = j->exact;
    nb_map_set(&j->solving->exact, codes, e);
    if (!env->keep_originals) return true;
    void *data;
    nb_blob *rest = nb_blob_create(j->w->blob->size, &data);
    if (!rest) {
        nb_codes_no_memory(j->ctx, j->w);
        return false;
    }
    memcpy(data, j->data, (size_t)rest->size);
    for (int64_t k = 0; k < e->n; k++)
        memset((float *)data + ((const int64_t *)e->parts[0].data)[k] * j->cols, 0,
               (size_t)j->cols * sizeof(float));
    nb_keep_original(j->ctx, codes, rest);
    nb_blob_release(rest);
    return true;
}

nb_float_codes nb_integer_codes(int bits, bool is_signed) {
    return (nb_float_codes){.elem = nb_elem_integer(bits, is_signed), .scale = NB_F32};
}

bool nb_quantize_operand(nb_pass_ctx *ctx, nb_map *done, nb_op *op, uint32_t slot,
                         const nb_weight_cut *cut, nb_solving *solving) {
    nb_value *w = nb_in(op, slot), *codes = nb_map_get(done, w);
    if (!codes) {
        job j = {.ctx = ctx,
                 .op = op,
                 .w = w,
                 .rows = w->type->dims[0]->value,
                 .cols = w->type->dims[1]->value,
                 .data = w->blob->data,
                 .cut = *cut,
                 .solving = solving};
        int64_t length = cut->axis ? j.cols : j.rows;
        if (cut->group == 0 || cut->group > length) j.cut.group = length;
        j.groups = nb_ceildiv(length, j.cut.group);
        j.cut.rtn.half = j.groups > 1;
        j.cut.form.unit = nb_float_unit(&cut->form, j.data, j.rows * j.cols);
        codes = cut->block ? nb_block_weight(ctx, op, w, cut->block) : quantize_matrix(&j);
        if (!codes) return false;
        nb_map_set(done, w, codes);
        if (j.exact.n && !keep_exact(&j, codes)) return false;
        if (!j.exact.n) nb_keep_original(ctx, codes, w->blob);
        nb_blob_rest(w->blob);
    }
    nb_builder b = nb_pass_builder(ctx, op, codes->loc ? codes->loc : op->loc);
    nb_value *back = nb_unary(&b, NB_OP_dequantize, codes);
    if (!back) return false;
    nb_set_name(ctx->graph, back, nb_format(ctx->graph->arena, "%s.d", w->name));
    nb_set_operand(&op->operands[slot], back);
    const nb_exact *exact = solving ? nb_map_get(&solving->exact, codes) : NULL;
    return !exact || nb_branch_add_exact(ctx, op, exact->constants[0], exact->constants[1]);
}

bool nb_round_weight(nb_pass_ctx *ctx, nb_map *done, nb_op *op, int bits, int64_t group) {
    const nb_weight_cut cut = {.rtn = {.bits = bits, .search = NB_RTN_RANGE},
                               .form = nb_integer_codes(bits, true),
                               .group = group};
    return nb_quantize_operand(ctx, done, op, 1, &cut, NULL);
}
