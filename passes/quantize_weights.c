/* quantize-weights: round to nearest, for linear layers and embeddings.
 *
 *   requires   constants in float
 *   maintains  stage QDQ; each weight is quantized once, however many layers use it
 *
 *   %y: f32[B,2] = matmul %n, @w
 * becomes
 *   %w.d: f32[4,2] = dequantize @w.q         (#w: i8 narrow axis 1 scale @w.scale)
 *   %y: f32[B,2] = matmul %n, %w.d */
#include "ir/build.h"
#include "ir/support/parallel.h"
#include "passes/linear.h"
#include "passes/rtn.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static const nb_option options[] = {
    {.name = "bits",
     .kind = NB_OPTION_INT,
     .fallback = "8",
     .min = 4,
     .max = 8,
     .summary = "bits of a weight: 4 or 8"},
    {.name = "group",
     .kind = NB_OPTION_INT,
     .fallback = "0",
     .min = 0,
     .max = 65536,
     .summary = "inputs that share a scale; 0: one scale per output channel"},
    {.name = "asymmetric",
     .kind = NB_OPTION_BOOL,
     .fallback = "false",
     .summary = "store a zero point with each scale"},
    {.name = "search",
     .kind = NB_OPTION_BOOL,
     .fallback = "false",
     .summary = "shrink each range where that lowers the squared error"},
    {.name = "head",
     .kind = NB_OPTION_INT,
     .fallback = "0",
     .min = 0,
     .max = 8,
     .summary = "bits of layers that feed an output; 0: as `bits`"},
    {.name = "embedding",
     .kind = NB_OPTION_INT,
     .fallback = "8",
     .min = 0,
     .max = 8,
     .summary = "bits of embedding tables: 0 (float), 4 or 8"},
    {.name = "embedding-group",
     .kind = NB_OPTION_INT,
     .fallback = "0",
     .min = 0,
     .max = 65536,
     .summary = "entries of an embedding's row that share a scale; 0: the whole row"},
    {.name = "min-weights",
     .kind = NB_OPTION_INT,
     .fallback = "0",
     .min = 0,
     .max = INT32_MAX,
     .summary = "linear layers with fewer weights stay in float"},
    {.name = "skip",
     .kind = NB_OPTION_STRING,
     .fallback = "",
     .summary = "names of layers that stay in float ('*' any text, '|' or)"},
    {.name = NULL},
};

/* How one matrix [rows, cols] is cut into runs that share a scale: `group` elements along `axis`
 * (0: inputs of a linear layer, 1: a row of an embedding), the last run may be shorter. */
typedef struct cut {
    nb_rtn rtn;
    int axis;
    int64_t group, groups; /* groups along the axis; group 0: the whole axis */
} cut;

typedef struct job {
    nb_pass_ctx *ctx;
    nb_op *op; /* for messages and placement */
    nb_value *w;
    int64_t rows, cols;
    const float *data;
    cut cut;
    uint8_t *codes;   /* packed */
    float *scales;    /* [groups, cols], or [rows, groups] */
    uint8_t *zeros;   /* packed, as scales; NULL when symmetric */
    atomic_llong bad; /* the first element that is not finite, or NONE, or NO_MEMORY */
} job;

#define NONE      (-1LL)
#define NO_MEMORY (-2LL)

/* Runs in a turn of the parallel loop; even, so that no byte of two 4-bit codes is shared. */
#define TURN_RUNS 512

static void put(uint8_t *packed, int bits, int64_t index, unsigned code) {
    if (bits == 8)
        packed[index] = (uint8_t)code;
    else
        packed[index / 2] = (uint8_t)(packed[index / 2] | (code & 15) << (index % 2 * 4));
}

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

static void quantize_block(job *j, const block *b, const int64_t *run) {
    const nb_rtn *rtn = &j->cut.rtn;
    float scales[NB_RTN_RUNS];
    int64_t zeros[NB_RTN_RUNS];
    if (!gather(j, b)) return;
    nb_rtn_fit(rtn, b->weights, b->n, scales, zeros);
    nb_rtn_codes(rtn, b->weights, b->n, scales, zeros, b->codes);
    for (int64_t c = 0; c < b->runs; c++) {
        j->scales[run[c]] = scales[c];
        if (j->zeros) put(j->zeros, rtn->bits, run[c], (unsigned)zeros[c]);
    }
    for (int64_t i = 0; i < b->n; i++) {
        for (int64_t c = 0; c < b->runs; c++)
            put(j->codes, rtn->bits, b->first + i * b->along + c * b->across,
                b->codes[i * NB_RTN_RUNS + c]);
    }
}

/* Group g of the runs [from, to). */
static void quantize_runs(job *j, int64_t g, int64_t from, int64_t to) {
    const cut *c = &j->cut;
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
            run[k] = c->axis ? (o + k) * c->groups + g : g * j->cols + o + k;
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
    for (int64_t g = 0; g < j->cut.groups; g++) quantize_runs(j, g, from, to);
}

static void no_memory(const job *j) {
    nb_error(nb_diags_of(j->ctx), NB_LIMIT, NB_NOWHERE, "out of memory for the codes of '@%s'",
             j->w->name);
}

/* False, with an error, when a weight is not finite. */
static bool quantize_all(job *j) {
    const int64_t n = turns_of(j) * (j->cut.axis ? 1 : j->cut.groups);
    atomic_init(&j->bad, NONE);
    if (j->cut.axis || j->cut.rtn.bits == 8 || j->cols % 2 == 0)
        nb_parallel(n, quantize_turn, j);
    else
        for (int64_t turn = 0; turn < n; turn++) quantize_turn(j, turn);
    const long long bad = atomic_load(&j->bad);
    if (bad == NONE) return true;
    if (bad == NO_MEMORY) {
        no_memory(j);
        return false;
    }
    j->ctx->host->report(j->ctx, NB_LEVEL_ERROR, j->op,
                         "row %lld, column %lld of weight '@%s' is %g: no scale fits",
                         bad / j->cols, bad % j->cols, j->w->name, (double)j->data[bad]);
    j->ctx->host->help(j->ctx, "leave this node in float: quantize-weights{skip=\"%s\"}",
                       nb_loc_name(j->op->loc));
    return false;
}

static nb_value *add_const(job *j, const char *suffix, const nb_type *type, nb_blob *blob) {
    const char *name = nb_format(j->ctx->graph->arena, "%s%s", j->w->name, suffix);
    return nb_graph_add_const(j->ctx->graph, name, type, blob,
                              nb_loc_via(j->ctx->graph, j->w->loc, "quantize-weights"));
}

/* Blobs for codes, scales and zeros; false when memory is short. */
static bool allocate(job *j, nb_blob **codes, nb_blob **scales, nb_blob **zeros, int64_t runs) {
    int bits = j->cut.rtn.bits;
    void *data;
    int64_t n = (j->rows * j->cols * bits + 7) / 8;
    if (!(*codes = nb_blob_create(n, &data))) return false;
    j->codes = memset(data, 0, (size_t)n);
    if (!(*scales = nb_blob_create(runs * (int64_t)sizeof(float), &data))) return false;
    j->scales = data;
    if (!j->cut.rtn.asymmetric) return true;
    n = (runs * bits + 7) / 8;
    if (!(*zeros = nb_blob_create(n, &data))) return false;
    j->zeros = memset(data, 0, (size_t)n);
    return true;
}

/* The constant of codes for j->w, or NULL after an error. */
static nb_value *quantize_matrix(job *j) {
    nb_graph *g = j->ctx->graph;
    int64_t others = j->cut.axis ? j->rows : j->cols, runs = j->cut.groups * others;
    nb_blob *codes = NULL, *scales = NULL, *zeros = NULL;
    bool ok = allocate(j, &codes, &scales, &zeros, runs);
    if (!ok) no_memory(j);
    if (!ok || !quantize_all(j)) {
        nb_blob_release(codes);
        nb_blob_release(scales);
        nb_blob_release(zeros);
        return NULL;
    }
    bool grouped = j->cut.groups > 1;
    int axis = j->cut.axis;
    const nb_dim *dims[2] = {nb_dim_const(g, others), nb_dim_const(g, others)};
    dims[axis] = nb_dim_const(g, j->cut.groups);
    int rank = grouped ? 2 : 1;
    const nb_dim *const *shape = grouped ? dims : &dims[1 - axis];
    nb_elem elem = j->cut.rtn.bits == 8 ? (zeros ? NB_U8 : NB_I8) : (zeros ? NB_U4 : NB_I4);
    nb_quant q = {.storage = elem,
                  .narrow = !zeros,
                  .axis = grouped ? axis : 1 - axis,
                  .granularity = grouped ? NB_PER_GROUP : NB_PER_AXIS,
                  .group = grouped ? j->cut.group : 0};
    q.scales = add_const(j, ".scale", nb_type_intern(g, NB_F32, NULL, rank, shape), scales);
    if (zeros) q.zeros = add_const(j, ".zero", nb_type_intern(g, elem, NULL, rank, shape), zeros);
    const nb_quant *interned = nb_quant_intern(g, &q, j->w->name, nb_diags_of(j->ctx));
    return interned ? add_const(j, ".q", nb_type_with_quant(g, j->w->type, interned), codes) : NULL;
}

/* Replaces operand `slot` of op by dequantize of its quantized form. */
static bool quantize_operand(nb_pass_ctx *ctx, nb_map *done, nb_op *op, uint32_t slot, cut how) {
    nb_value *w = nb_in(op, slot), *codes = nb_map_get(done, w);
    if (!codes) {
        job j = {.ctx = ctx,
                 .op = op,
                 .w = w,
                 .rows = w->type->dims[0]->value,
                 .cols = w->type->dims[1]->value,
                 .data = w->blob->data,
                 .cut = how};
        int64_t length = how.axis ? j.cols : j.rows;
        if (how.group == 0 || how.group > length) j.cut.group = length;
        j.cut.groups = nb_ceildiv(length, j.cut.group);
        j.cut.rtn.half = j.cut.groups > 1;
        codes = quantize_matrix(&j);
        if (!codes) return false;
        nb_map_set(done, w, codes);
    }
    nb_builder b = nb_pass_builder(ctx, op, codes->loc ? codes->loc : op->loc);
    nb_value *back = nb_unary(&b, NB_OP_dequantize, codes);
    if (!back) return false;
    nb_set_name(ctx->graph, back, nb_format(ctx->graph->arena, "%s.d", w->name));
    nb_set_operand(&op->operands[slot], back);
    return true;
}

static bool is_float_matrix(const nb_value *w) {
    return nb_is_const(w) && !w->type->quant && w->type->elem == NB_F32 && w->type->rank == 2 &&
           w->type->dims[0]->value > 0 && w->type->dims[1]->value > 0;
}

/* Where a layer is small, making its inputs codes takes longer than its product in float. */
static bool is_small(nb_pass_ctx *ctx, const nb_op *op) {
    const nb_type *t = nb_in(op, 1)->type;
    const int64_t least = nb_option_of(ctx, "min-weights")->i;
    int64_t n = t->dims[0]->value * t->dims[1]->value;
    if (n >= least) return false;
    ctx->host->report(ctx, NB_LEVEL_INFO, op,
                      "stays in float: with %lld weights it is faster so (min-weights=%lld)",
                      (long long)n, (long long)least);
    ctx->host->help(ctx, "min-weights=0 quantizes layers of any size");
    return true;
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    int bits = (int)nb_option_of(ctx, "bits")->i, head = (int)nb_option_of(ctx, "head")->i;
    int embedding = (int)nb_option_of(ctx, "embedding")->i;
    if (!head) head = bits;
    if ((bits != 4 && bits != 8) || (head != 4 && head != 8) ||
        (embedding && embedding != 4 && embedding != 8)) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL,
                          "bits are 4 or 8, found bits=%d head=%d embedding=%d", bits, head,
                          embedding);
        return NB_PASS_FAILED;
    }
    bool search = nb_option_of(ctx, "search")->b, asymmetric = nb_option_of(ctx, "asymmetric")->b,
         changed = false;
    nb_map matrices = {.arena = nb_state_of(ctx)->scratch},
           tables = {.arena = nb_state_of(ctx)->scratch};
    nb_skip skip = {.pattern = nb_option_of(ctx, "skip")->s};
    nb_stage stage = ctx->graph->stage;
    if (stage < NB_STAGE_QDQ) ctx->graph->stage = NB_STAGE_QDQ;
    NB_FOR_OPS(op, &ctx->graph->body) {
        if (op->kind == NB_OP_matmul && is_float_matrix(nb_in(op, 1))) {
            if (nb_skip_op(ctx, &skip, op) || is_small(ctx, op)) continue;
            int b = nb_linear_is_head(op) ? head : bits;
            cut how = {.rtn = {.bits = b, .asymmetric = asymmetric && b == bits, .search = search},
                       .group = nb_option_of(ctx, "group")->i};
            if (!quantize_operand(ctx, &matrices, op, 1, how)) return NB_PASS_FAILED;
            changed = true;
        } else if (embedding && nb_is_embedding(op) && is_float_matrix(nb_in(op, 0))) {
            if (nb_skip_op(ctx, &skip, op)) continue;
            cut how = {.rtn = {.bits = embedding, .search = search},
                       .axis = 1,
                       .group = nb_option_of(ctx, "embedding-group")->i};
            if (!quantize_operand(ctx, &tables, op, 0, how)) return NB_PASS_FAILED;
            changed = true;
        }
    }
    if (!changed) ctx->graph->stage = stage;
    if (!nb_skip_end(ctx, &skip)) return NB_PASS_FAILED;
    nb_graph_sweep(ctx->graph);
    return nb_pass_end(ctx, changed);
}

const nb_pass nb_pass_quantize_weights = {
    .size = sizeof(nb_pass),
    .name = "quantize-weights",
    .options = options,
    .run = run,
    .summary = "round the weights of linear layers and embeddings to integers",
};
