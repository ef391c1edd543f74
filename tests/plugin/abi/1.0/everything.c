/* Every member of the host table of ABI 1.0, used as nb_pass.h says: a pass for each kind of thing.
 *
 * This file and the header beside it stay as they are: built from that header, the plug-in runs
 * with every later nibble of major 1 (tests/plugin/check_abi, plugin_tests). Members that came
 * later are tested elsewhere. The passes expect the graph of everything.nir behind calibrate on a
 * sample, and fail with the expression that does not hold. */
#include "nb_pass.h"

#include <math.h>
#include <string.h>

#define H (ctx->host)
#define EXPECT(condition) \
    if (!(condition)) return #condition

#define TRY(call)                    \
    do {                             \
        const char *wrong_ = (call); \
        if (wrong_) return wrong_;   \
    } while (0)

static nb_op *find(nb_pass_ctx *ctx, const char *name) {
    nb_op *op = H->first_op(ctx->graph);
    while (op && strcmp(H->op_name(op), name) != 0) op = H->next_op(op);
    return op;
}
static int same(const char *a, const char *b) { return a && b && strcmp(a, b) == 0; }

/* ---- looking -------------------------------------------------------------------------------- */

/* Handles, and what they stand for; nothing where there is nothing. */
static const char *walking(nb_pass_ctx *ctx) {
    nb_op *softmax = find(ctx, "softmax"), *transpose = find(ctx, "transpose");
    nb_value *x = H->input(ctx->graph, 0), *y = H->output(ctx->graph, 0);
    EXPECT(H->size >= sizeof *H && H->abi_major == NB_PASS_ABI_MAJOR);
    EXPECT(NB_HAS(H, query) && !H->query(ctx, "there.is/none"));
    EXPECT(H->input_count(ctx->graph) == 1 && H->output_count(ctx->graph) == 1);
    EXPECT(H->first_op(ctx->graph) == H->defining_op(H->operand(softmax, 0)) ||
           H->operand(softmax, 0) == x);
    EXPECT(same(H->op_name(H->defining_op(y)), "matmul") && same(H->value_name(y), "y"));
    EXPECT(same(H->op_node(softmax), "/Softmax"));
    EXPECT(strstr(H->op_text(ctx, softmax), "= softmax %x {axis=1} at \"/Softmax\""));
    EXPECT(H->operand_count(transpose) == 1 && H->result_count(transpose) == 1);
    EXPECT(H->operand(transpose, 0) == H->result(softmax, 0));
    EXPECT(H->use_count(H->result(softmax, 0)) == 1);
    EXPECT(H->user(H->result(softmax, 0), 0) == transpose && !H->user(x, 9));
    EXPECT(H->value_rank(x) == 2 && H->value_dim(x, 0) == -1 && H->value_dim(x, 1) == 4);
    EXPECT(same(H->value_type(ctx, x), "f32[B,4]") && !H->is_const(x) && !H->defining_op(x));
    EXPECT(!H->parent_op(softmax) && H->body_count(softmax) == 0);
    return NULL;
}

static const char *attributes(nb_pass_ctx *ctx) {
    EXPECT(same(H->attr_text(ctx, find(ctx, "softmax"), "axis"), "1"));
    EXPECT(same(H->attr_text(ctx, find(ctx, "transpose"), "perm"), "[1,0]"));
    EXPECT(same(H->attr_text(ctx, find(ctx, "reshape"), "shape"), "[4*B]"));
    EXPECT(same(H->attr_text(ctx, find(ctx, "cast"), "to"), "f16"));
    EXPECT(same(H->attr_text(ctx, find(ctx, "reduce_sum"), "keep"), "true"));
    EXPECT(!H->attr_text(ctx, find(ctx, "softmax"), "colour"));
    int64_t i;
    double f;
    const int64_t *ints;
    size_t count;
    EXPECT(H->attr_int(find(ctx, "softmax"), "axis", &i) && i == 1);
    EXPECT(H->attr_int(find(ctx, "reduce_sum"), "keep", &i) && i == 1);
    EXPECT(H->attr_ints(find(ctx, "transpose"), "perm", &ints, &count) && count == 2);
    EXPECT(ints[0] == 1 && ints[1] == 0);
    EXPECT(!H->attr_float(find(ctx, "softmax"), "axis", &f));
    return NULL;
}

/* Attributes of every kind that build() takes, and their kinds again. */
static const char *made_attributes(nb_pass_ctx *ctx) {
    static const float ones[4] = {1, 1, 1, 1};
    nb_value *gain = H->make_const(ctx, "gain", &(nb_array){1, 1, {4}, ones, NULL});
    nb_value *operands[2] = {H->input(ctx->graph, 0), gain};
    const nb_attr_arg eps = {.name = "eps", .f = 0.25}, to = {.name = "to", .s = "f16"};
    nb_op *first = H->first_op(ctx->graph);
    double f;
    nb_value *norm = H->build(ctx, first, "rms_norm", operands, 2, &eps, 1);
    EXPECT(norm && H->attr_float(H->defining_op(norm), "eps", &f) && (int)(f * 8) == 2);
    nb_value *half = H->build(ctx, first, "cast", &norm, 1, &to, 1);
    EXPECT(half && H->value_elem(half) == NB_DATA_F16);
    EXPECT(H->remove_op(ctx, H->defining_op(half)));
    EXPECT(H->sweep(ctx) >= 1); /* rms_norm */
    return NULL;
}

static const char *texts(nb_pass_ctx *ctx) {
    nb_value *x = H->input(ctx->graph, 0), *w = H->operand(find(ctx, "dequantize"), 0);
    EXPECT(same(H->value_dim_text(ctx, x, 0), "B"));
    EXPECT(same(H->value_dim_text(ctx, H->result(find(ctx, "reshape"), 0), 0), "4*B"));
    EXPECT(same(H->value_quant(w), "w"));
    EXPECT(H->is_quantized(w) && !*H->value_quant(x));
    EXPECT(H->value_elem(w) == NB_DATA_I8);
    return NULL;
}

/* ---- names and places -------------------------------------------------------------------------
 */

static const char *names(nb_pass_ctx *ctx) {
    nb_value *a = H->result(find(ctx, "softmax"), 0);
    EXPECT(H->set_name(ctx, a, "probabilities"));
    EXPECT(same(H->value_name(a), "probabilities"));
    EXPECT(H->set_name(ctx, a, "x")); /* taken */
    EXPECT(same(H->value_name(a), "x_1"));
    return NULL;
}

static const char *places(nb_pass_ctx *ctx) {
    nb_op *v = find(ctx, "dequantize"), *first = H->first_op(ctx->graph);
    EXPECT(H->move_op(ctx, v, first));
    EXPECT(H->first_op(ctx->graph) == v && H->next_op(v) == first);
    return NULL;
}

/* ---- constants --------------------------------------------------------------------------------
 */

static const char *numbers_of_codes(nb_pass_ctx *ctx) {
    float f[4];
    nb_value *w = H->operand(find(ctx, "dequantize"), 0);
    static const float wanted[4] = {1.5f, 1, 2.5f, 1.5f}; /* 3*0.5, 4*0.25, 5*0.5, 6*0.25 */
    EXPECT(H->const_floats(ctx, w, 2, 4, f));
    EXPECT(memcmp(f, wanted, sizeof f) == 0);
    EXPECT(H->const_floats(ctx, w, 8, 0, NULL));
    EXPECT(H->const_rest(ctx, w));
    return NULL;
}

typedef struct filling {
    int64_t next;
    int calls;
} filling;

static int fill(void *user, int64_t offset, int64_t bytes, void *data) {
    filling *f = user;
    if (offset != f->next || bytes % 4) return 0;
    float *numbers = data;
    for (int64_t i = 0; i < bytes / 4; i++) numbers[i] = (float)((offset / 4 + i) % 1000);
    f->next += bytes;
    f->calls++;
    return 1;
}

/* 24 MB, which takes more than one piece. */
static const char *large(nb_pass_ctx *ctx) {
    filling f = {0};
    const nb_array shape = {.elem = NB_DATA_F32, .rank = 2, .dims = {6000, 1000}};
    nb_value *v = H->make_const_by(ctx, "large", &shape, fill, &f);
    float last[3];
    EXPECT(v && f.next == 24000000 && f.calls == 2);
    EXPECT(H->const_floats(ctx, v, 5999997, 3, last));
    EXPECT((int)last[0] == 997 && (int)last[2] == 999);
    return NULL;
}

static const char *half_floats(nb_pass_ctx *ctx) {
    static const uint16_t bits[3] = {0x3c00, 0x3800, 0xc000}; /* 1, 0.5, -2 */
    nb_value *v = H->make_const(ctx, "h", &(nb_array){NB_DATA_F16, 1, {3}, bits, NULL});
    float f[3];
    EXPECT(v && H->const_floats(ctx, v, 0, 3, f));
    EXPECT((int)(f[0] * 2) == 2 && (int)(f[1] * 2) == 1 && (int)(f[2] * 2) == -4);
    return NULL;
}

/* Codes of 4 bits in groups, with zero points; equal quantizations are one. */
static const char *codes(nb_pass_ctx *ctx) {
    static const float scales[4] = {1, 2, 4, 8};
    static const uint8_t packed[4] = {0x10, 0x32, 0x54, 0x76}, zero_bits[2] = {0x10, 0x10};
    nb_value *s = H->make_const(ctx, "s", &(nb_array){NB_DATA_F32, 2, {2, 2}, scales, NULL}),
             *z = H->make_const(ctx, "z", &(nb_array){NB_DATA_U4, 2, {2, 2}, zero_bits, NULL});
    nb_quant_arg q = {.size = sizeof q, .name = "mine", .storage = "u4", .axis = 0, .group = 2};
    q.scales = s;
    q.zeros = z;
    EXPECT(s && z);
    const char *name = H->make_quant(ctx, &q), *again = H->make_quant(ctx, &q);
    EXPECT(same(name, "mine") && same(again, name));
    nb_value *v = H->make_codes(ctx, "c", &(nb_array){NB_DATA_U4, 2, {4, 2}, packed, NULL}, name);
    float f[8];
    /* Rows 0 and 1: codes 0 1 2 3, zeros 0 1, scales 1 2; rows 2 and 3: 4 5 6 7, 0 1, 4 8. */
    static const float wanted[8] = {0, 0, 2, 4, 16, 32, 24, 48};
    EXPECT(v && H->const_floats(ctx, v, 0, 8, f));
    EXPECT(memcmp(f, wanted, sizeof f) == 0);
    EXPECT(H->build(ctx, H->first_op(ctx->graph), "dequantize", &v, 1, NULL, 0) != NULL);
    return NULL;
}

/* ---- element types ----------------------------------------------------------------------------
 */

/* With the bits that stand for 1. */
static const struct {
    int32_t number, bits;
    const char *text;
    uint64_t one;
} elems[] = {
    {NB_DATA_F64, 64, "f64", 0x3ff0000000000000},
    {NB_DATA_F32, 32, "f32", 0x3f800000},
    {NB_DATA_F16, 16, "f16", 0x3c00},
    {NB_DATA_BF16, 16, "bf16", 0x3f80},
    {NB_DATA_F8E4M3FN, 8, "f8e4m3fn", 0x38},
    {NB_DATA_F8E4M3FNUZ, 8, "f8e4m3fnuz", 0x40},
    {NB_DATA_F8E5M2, 8, "f8e5m2", 0x3c},
    {NB_DATA_F8E5M2FNUZ, 8, "f8e5m2fnuz", 0x40},
    {NB_DATA_F8E8M0, 8, "f8e8m0", 0x7f},
    {NB_DATA_F4E2M1, 4, "f4e2m1", 2},
    {NB_DATA_NF4, 4, "nf4", 15},
    {NB_DATA_I64, 64, "i64", 1},
    {NB_DATA_I32, 32, "i32", 1},
    {NB_DATA_I16, 16, "i16", 1},
    {NB_DATA_I8, 8, "i8", 1},
    {NB_DATA_I7, 7, "i7", 1},
    {NB_DATA_I6, 6, "i6", 1},
    {NB_DATA_I5, 5, "i5", 1},
    {NB_DATA_I4, 4, "i4", 1},
    {NB_DATA_I3, 3, "i3", 1},
    {NB_DATA_I2, 2, "i2", 1},
    {NB_DATA_U64, 64, "u64", 1},
    {NB_DATA_U32, 32, "u32", 1},
    {NB_DATA_U16, 16, "u16", 1},
    {NB_DATA_U8, 8, "u8", 1},
    {NB_DATA_U7, 7, "u7", 1},
    {NB_DATA_U6, 6, "u6", 1},
    {NB_DATA_U5, 5, "u5", 1},
    {NB_DATA_U4, 4, "u4", 1},
    {NB_DATA_U3, 3, "u3", 1},
    {NB_DATA_U2, 2, "u2", 1},
    {NB_DATA_BOOL, 8, "bool", 1},
};
enum { ELEMS = sizeof elems / sizeof *elems, FIVE = 5 };

/* Five elements, all 1, packed. */
static void put_ones(size_t e, uint8_t *bytes) {
    for (int32_t bit = 0; bit < FIVE * elems[e].bits; bit++)
        if (elems[e].one >> bit % elems[e].bits & 1) bytes[bit / 8] |= (uint8_t)(1 << bit % 8);
}

/* Constants of every type are made, seen, and read as bytes and as numbers. */
static const char *every_element(nb_pass_ctx *ctx) {
    int known = 0;
    for (int32_t number = 0; number < 2000; number++) known += *H->elem_text(number) != 0;
    EXPECT(known >= ELEMS && !*H->elem_text(0) && !*H->elem_text(8) && !*H->elem_text(-1));
    EXPECT(H->elem_named("f3") == 0 && H->elem_named(NULL) == 0 && H->elem_bits(8) == 0);
    for (size_t e = 0; e < ELEMS; e++) {
        uint8_t bytes[FIVE * 8] = {0};
        float f[FIVE];
        nb_array array;
        put_ones(e, bytes);
        EXPECT(same(H->elem_text(elems[e].number), elems[e].text));
        EXPECT(H->elem_named(elems[e].text) == elems[e].number);
        EXPECT(H->elem_bits(elems[e].number) == elems[e].bits);
        nb_value *v =
            H->make_const(ctx, "ones", &(nb_array){elems[e].number, 1, {FIVE}, bytes, NULL});
        EXPECT(v && H->value_elem(v) == elems[e].number && H->const_data(ctx, v, &array));
        EXPECT(array.elem == elems[e].number && array.rank == 1 && array.dims[0] == FIVE);
        EXPECT(memcmp(array.data, bytes, ((size_t)elems[e].bits * FIVE + 7) / 8) == 0);
        EXPECT(H->const_floats(ctx, v, 0, FIVE, f));
        for (int i = 0; i < FIVE; i++) EXPECT((int)(f[i] * 4) == 4);
    }
    return NULL;
}

/* A value becomes each type, is moved, and comes back: bytes and what is wider. */
static const char *every_cast(nb_pass_ctx *ctx) {
    nb_op *before = find(ctx, "matmul");
    nb_value *e = H->operand(before, 0);
    const nb_attr_arg to_f32 = {.name = "to", .s = "f32"}, fill = {.name = "to", .s = "f64"};
    nb_value *all = H->build(ctx, before, "cast", &e, 1, &fill, 1);
    for (size_t i = 0; i < ELEMS; i++) {
        if (elems[i].bits < 8) continue;
        const nb_attr_arg to = {.name = "to", .s = elems[i].text};
        nb_value *v = H->build(ctx, before, "cast", &all, 1, &to, 1);
        EXPECT(v && H->value_elem(v) == elems[i].number);
        v = H->build(ctx, before, "cast", &v, 1, &to_f32, 1);
        nb_value *sum[2] = {e, v};
        e = v ? H->build(ctx, before, "add", sum, 2, NULL, 0) : NULL;
        EXPECT(e);
    }
    EXPECT(H->set_operand(ctx, before, 0, e));
    return NULL;
}

/* ---- every kind of quantization ----------------------------------------------------------------
 */

/* Made, seen again, and codes of it are numbers: `codes` of one byte each, `wanted` of them. */
static const char *codes_of(nb_pass_ctx *ctx, const nb_quant_arg *q, nb_array codes,
                            const float *wanted, int64_t n) {
    float f[8];
    nb_quant_arg back = {.size = sizeof back};
    const char *name = H->make_quant(ctx, q);
    EXPECT(name && H->quant(ctx->graph, name, &back) && back.size == sizeof back);
    EXPECT(same(back.name, name) && same(back.storage, q->storage));
    EXPECT(back.axis == q->axis && back.group == q->group && back.narrow == q->narrow);
    EXPECT(back.scales == q->scales && back.zeros == q->zeros && back.minima == q->minima);
    EXPECT(back.zero == q->zero && back.amax == q->amax);
    EXPECT((int)(back.minimum * 8) == (int)(q->minimum * 8));
    nb_value *v = H->make_codes(ctx, "codes", &codes, name);
    EXPECT(v && same(H->value_quant(v), name) && H->const_floats(ctx, v, 0, n, f));
    EXPECT(memcmp(f, wanted, (size_t)n * sizeof *f) == 0);
    return NULL;
}

static const char *quantizations(nb_pass_ctx *ctx) {
    static const uint8_t bytes[8] = {1, 2, 3, 4, 5, 6, 7, 8}, ones[2] = {0x38, 0x38};
    static const uint8_t powers[4] = {0x7f, 0x80, 0x81, 0x82};          /* 1, 2, 4, 8 */
    static const uint16_t halves[4] = {0x3c00, 0x4000, 0xbc00, 0x3800}; /* 1, 2, -1, 0.5 */
    nb_array eight = {NB_DATA_U8, 2, {4, 2}, bytes, NULL};
    nb_quant_arg q = {.size = sizeof q, .name = "q", .storage = "u8", .axis = -1};
    q.scale = 0.5;
    q.zero = 2;
    TRY(codes_of(ctx, &q, eight, (const float[]){-0.5f, 0, 0.5f, 1}, 4));
    q.zero = 0;
    q.minimum = -0.5;
    TRY(codes_of(ctx, &q, eight, (const float[]){0, 0.5f, 1, 1.5f}, 4));
    /* Groups of two along axis 0, scales and minima in f16, the scales times 2. */
    q.minimum = 0;
    q.axis = 0;
    q.group = 2;
    q.scale = 2;
    q.scales = H->make_const(ctx, "s", &(nb_array){NB_DATA_F16, 2, {2, 2}, halves, NULL});
    q.minima = H->make_const(ctx, "m", &(nb_array){NB_DATA_F16, 2, {2, 2}, halves, NULL});
    TRY(codes_of(ctx, &q, eight, (const float[]){3, 10, 7, 18, -11, 6.5f, -15, 8.5f}, 8));
    /* Scales that are codes themselves. */
    nb_quant_arg inner = {.size = sizeof inner, .name = "i", .storage = "u8", .axis = -1};
    inner.scale = 0.25;
    const char *of_scales = H->make_quant(ctx, &inner);
    q.minima = NULL;
    q.scale = 1;
    q.scales = H->make_codes(ctx, "s", &(nb_array){NB_DATA_U8, 2, {2, 2}, bytes, NULL}, of_scales);
    TRY(codes_of(ctx, &q, eight, (const float[]){0.25f, 1, 0.75f, 2, 3.75f, 6, 5.25f, 8}, 8));
    /* Small floats with scales that are powers of two. */
    q.storage = "f8e4m3fn";
    q.scales = H->make_const(ctx, "s", &(nb_array){NB_DATA_F8E8M0, 2, {1, 2}, powers, NULL});
    TRY(codes_of(ctx, &q, (nb_array){NB_DATA_F8E4M3FN, 2, {1, 2}, ones, NULL},
                 (const float[]){1, 2}, 2));
    EXPECT(!H->quant(ctx->graph, "nobody", &q) && !H->quant(ctx->graph, NULL, &q));
    return NULL;
}

typedef struct sight {
    int codes, scales, numbers;
} sight;

static void look(void *user, const nb_value *value, const nb_array *array) {
    sight *s = user;
    (void)value;
    s->codes += array->elem == NB_DATA_I8;
    s->scales += array->scales && array->scales[0] > 0;
    s->numbers += array->elem == NB_DATA_F32 && !array->scales;
}

/* Codes whose scales are made in the run: by row, and by block. */
static const char *dynamic_scales(nb_pass_ctx *ctx) {
    nb_op *before = find(ctx, "matmul");
    nb_value *e = H->operand(before, 0);
    for (int64_t group = 0; group <= 2; group += 2) {
        nb_quant_arg q = {.size = sizeof q, .name = "d", .storage = "i8", .axis = -1}, back = q;
        q.group = group;
        q.amax = 127;
        const char *name = H->make_quant(ctx, &q);
        EXPECT(name && H->quant(ctx->graph, name, &back));
        EXPECT(back.amax == 127 && back.group == group && back.axis == -1 && !back.scales);
        const nb_attr_arg to = {.name = "to", .s = name};
        nb_value *codes = H->build(ctx, before, "quantize", &e, 1, &to, 1);
        EXPECT(codes && same(H->value_quant(codes), name));
        e = H->build(ctx, before, "dequantize", &codes, 1, NULL, 0);
        EXPECT(e);
        const nb_value *taps[2] = {codes, e};
        const nb_array *inputs;
        sight s = {0};
        EXPECT(H->set_operand(ctx, before, 0, e));
        EXPECT(H->sample_count(ctx) >= 1 && H->sample(ctx, 0, &inputs));
        EXPECT(H->run(ctx, inputs, NULL, taps, 2, look, &s));
        EXPECT(s.codes == 1 && s.scales == 1 && s.numbers == 1);
    }
    return NULL;
}

/* ---- bodies -----------------------------------------------------------------------------------
 */

/* The output of a run on the sample: y[B,2], its first element. */
static const char *first_of(nb_pass_ctx *ctx, float *out) {
    const nb_array *inputs;
    nb_array outputs[1];
    EXPECT(H->sample(ctx, 0, &inputs) && H->run(ctx, inputs, outputs, NULL, 0, NULL, NULL));
    EXPECT(outputs[0].elem == NB_DATA_F32 && outputs[0].rank == 2 && outputs[0].dims[1] == 2);
    *out = ((const float *)outputs[0].data)[0];
    return NULL;
}

/* A loop that doubles three times, around the input of the product; what it is is seen. */
static const char *loop_body(nb_pass_ctx *ctx) {
    nb_op *matmul = find(ctx, "matmul");
    nb_value *e = H->operand(matmul, 0);
    float before, after;
    TRY(first_of(ctx, &before));
    nb_body *body = H->make_body(ctx, matmul);
    EXPECT(body && H->body_take(ctx, body, "step", "i64[]"));
    nb_value *h = H->body_take(ctx, body, "h", H->value_type(ctx, e));
    nb_value *operands[3] = {h, h, NULL};
    EXPECT(h && H->body_return(ctx, body, &h, 1)); /* and in the place of that: */
    nb_value *twice = H->build(ctx, H->body_end(ctx, body), "add", operands, 2, NULL, 0);
    EXPECT(twice && H->body_return(ctx, body, &twice, 1));
    static const char *const three[1] = {"3"};
    const nb_attr_arg attrs[2] = {{.name = "count", .dims = three, .count = 1},
                                  {.name = "carried", .i = 1}};
    nb_value *outer[3] = {NULL, NULL, e};
    nb_value *v = H->build_with_bodies(ctx, matmul, "loop", outer, 3, attrs, 2, &body, 1);
    EXPECT(v && same(H->value_type(ctx, v), "f32[B,4]") && H->set_operand(ctx, matmul, 0, v));
    nb_op *loop = H->defining_op(v), *inside = H->body_first_op(loop, 0);
    EXPECT(H->body_count(loop) == 1 && H->body_input_count(loop, 0) == 2);
    EXPECT(H->body_input(loop, 0, 1) == h && H->body_output(loop, 0, 0) == twice);
    EXPECT(H->body_output_count(loop, 0) == 1 && !H->body_output(loop, 0, 1));
    EXPECT(H->parent_op(inside) == loop && same(H->op_name(inside), "add"));
    EXPECT(same(H->op_node(inside), "/MatMul") && same(H->op_name(H->next_op(inside)), "return"));
    TRY(first_of(ctx, &after));
    EXPECT(memcmp(&(float){8 * before}, &after, sizeof after) == 0);
    /* A body that is there is changed as the graph is: h + h + h. */
    nb_value *more[2] = {twice, h};
    nb_value *sum = H->build(ctx, H->next_op(inside), "add", more, 2, NULL, 0);
    EXPECT(sum && H->set_operand(ctx, H->next_op(H->defining_op(sum)), 0, sum));
    EXPECT(H->body_output(loop, 0, 0) == sum);
    EXPECT(H->move_op(ctx, inside, H->defining_op(sum)) && H->body_first_op(loop, 0) == inside);
    TRY(first_of(ctx, &after));
    EXPECT(fabsf(after - 27 * before) <= 1e-4f * fabsf(after));
    return NULL;
}

/* An if whose bodies take a value from outside; one of them has an if inside. */
static const char *if_bodies(nb_pass_ctx *ctx) {
    static const uint8_t yes = 1;
    nb_op *matmul = find(ctx, "matmul");
    nb_value *e = H->operand(matmul, 0);
    nb_value *cond = H->make_const(ctx, "yes", &(nb_array){NB_DATA_BOOL, 0, {0}, &yes, NULL});
    const char *type = H->value_type(ctx, e);
    float before, after;
    TRY(first_of(ctx, &before));
    nb_body *bodies[2], *inner[2];
    nb_value *taken[2];
    for (int i = 0; i < 2; i++) {
        EXPECT((bodies[i] = H->make_body(ctx, NULL)) && (inner[i] = H->make_body(ctx, NULL)));
        EXPECT(taken[i] = H->body_take(ctx, bodies[i], "t", type));
    }
    for (int i = 0; i < 2; i++) {
        nb_value *v = H->body_take(ctx, inner[i], "u", type);
        v = H->build(ctx, H->body_end(ctx, inner[i]), i ? "exp" : "neg", &v, 1, NULL, 0);
        EXPECT(v && H->body_return(ctx, inner[i], &v, 1));
    }
    nb_value *through[2] = {cond, taken[0]}, *outside[2] = {cond, e};
    nb_value *nested =
        H->build_with_bodies(ctx, H->body_end(ctx, bodies[0]), "if", through, 2, NULL, 0, inner, 2);
    EXPECT(nested && H->body_return(ctx, bodies[0], &nested, 1));
    EXPECT(H->body_return(ctx, bodies[1], &taken[1], 1));
    nb_value *v = H->build_with_bodies(ctx, matmul, "if", outside, 2, NULL, 0, bodies, 2);
    EXPECT(v && H->set_operand(ctx, matmul, 0, v));
    EXPECT(H->parent_op(H->defining_op(nested)) == H->defining_op(v));
    TRY(first_of(ctx, &after));
    EXPECT(memcmp(&(float){-before}, &after, sizeof after) == 0);
    /* One that no op gets goes by itself. */
    nb_body *spare = H->make_body(ctx, matmul);
    v = H->body_take(ctx, spare, "spare", "f32[B]");
    EXPECT(v && H->build(ctx, H->body_end(ctx, spare), "neg", &v, 1, NULL, 0));
    return NULL;
}

/* ---- sizes that only data tell ----------------------------------------------------------------
 */

static void look_at_size(void *user, const nb_value *value, const nb_array *array) {
    int64_t *size = user;
    (void)value;
    *size = array->dims[1];
}

/* The first N columns of e, N being computed: their sum, added to all of e. */
static const char *counted(nb_pass_ctx *ctx) {
    static const float limit = 0;
    nb_op *before = find(ctx, "matmul");
    nb_value *e = H->operand(before, 0);
    nb_dim_view view = {.size = sizeof view};
    EXPECT(same(H->symbol(ctx, 0), "B") && !H->symbol(ctx, 1));
    EXPECT(H->dim(ctx, "4*B+1", &view) && !view.counted && view.min == 5 && view.max == 257);
    const char *n = H->make_symbol(ctx, "N", 0, 4), *again = H->make_symbol(ctx, "N", 0, 9);
    EXPECT(same(n, "N") && same(again, "N_1") && same(H->symbol(ctx, 1), "N"));
    EXPECT(H->dim(ctx, "N+B", &view) && view.counted && view.min == 1 && view.max == 68);

    /* How many of x's first row are above 0. */
    nb_value *zero = H->make_const(ctx, "zero", &(nb_array){NB_DATA_F32, 0, {0}, &limit, NULL});
    nb_value *x = H->input(ctx->graph, 0), *operands[2] = {zero, NULL};
    static const char *const origin[2] = {"0", "0"}, *const row[2] = {"1", "4"};
    static const int64_t steps[2] = {1, 1}, axes[2] = {0, 1};
    const nb_attr_arg slice[3] = {{.name = "start", .dims = origin, .count = 2},
                                  {.name = "count", .dims = row, .count = 2},
                                  {.name = "step", .ints = steps, .count = 2}};
    operands[1] = H->build(ctx, before, "slice", &x, 1, slice, 3);
    nb_value *above = H->build(ctx, before, "lt", operands, 2, NULL, 0);
    const nb_attr_arg to = {.name = "to", .s = "i64"},
                      all = {.name = "axes", .ints = axes, .count = 2};
    above = H->build(ctx, before, "cast", &above, 1, &to, 1);
    above = H->build(ctx, before, "reduce_sum", &above, 1, &all, 1);
    EXPECT(above && same(H->value_type(ctx, above), "i64[]"));
    const char *const most[1] = {"4"}, *const size[1] = {n}, *const some[2] = {"B", n};
    const nb_attr_arg bind[2] = {{.name = "size", .dims = size, .count = 1},
                                 {.name = "most", .dims = most, .count = 1}};
    EXPECT(H->build(ctx, before, "bind", &above, 1, bind, 2));
    const nb_attr_arg first[3] = {slice[0], {.name = "count", .dims = some, .count = 2}, slice[2]};
    nb_value *part = H->build(ctx, before, "slice", &e, 1, first, 3);
    EXPECT(part && same(H->value_type(ctx, part), "f32[B,N]"));
    EXPECT(same(H->value_dim_text(ctx, part, 1), "N") && H->value_dim(part, 1) == -1);
    const nb_attr_arg sum[2] = {{.name = "axes", .ints = axes + 1, .count = 1},
                                {.name = "keep", .i = 1}};
    nb_value *sums[2] = {e, H->build(ctx, before, "reduce_sum", &part, 1, sum, 2)};
    nb_value *v = sums[1] ? H->build(ctx, before, "add", sums, 2, NULL, 0) : NULL;
    EXPECT(v && H->set_operand(ctx, before, 0, v));

    const nb_array *inputs;
    int64_t positive = 0, seen = -1;
    EXPECT(H->sample(ctx, 0, &inputs));
    for (int i = 0; i < 4; i++) positive += ((const float *)inputs[0].data)[i] > 0;
    const nb_value *tap = part;
    EXPECT(H->run(ctx, inputs, NULL, &tap, 1, look_at_size, &seen) && seen == positive);
    return NULL;
}

/* ---- statistics -------------------------------------------------------------------------------
 */

static const char *statistics(nb_pass_ctx *ctx) {
    nb_stats_view s = {.size = sizeof s};
    EXPECT(!H->stats(ctx, H->input(ctx->graph, 0), &s)); /* no layer takes it */
    EXPECT(H->stats(ctx, H->operand(find(ctx, "matmul"), 0), &s));
    EXPECT(s.channels == 4 && s.rows > 0);
    for (int64_t i = 0; i < s.channels; i++) {
        EXPECT(s.low[i] <= s.mean[i] && s.mean[i] <= s.high[i]);
        EXPECT(s.amax[i] >= s.mean_abs[i] && s.low[i] >= s.min && s.high[i] <= s.max);
    }
    EXPECT(s.clip >= s.max);
    return NULL;
}

/* ---- rules ------------------------------------------------------------------------------------
 */

static const char *count_of(nb_pass_ctx *ctx, const char *name, int wanted) {
    int n = 0;
    for (nb_op *op = H->first_op(ctx->graph); op; op = H->next_op(op))
        n += strcmp(H->op_name(op), name) == 0;
    return n == wanted ? NULL : name;
}

static const char *replace(nb_pass_ctx *ctx, const char *rule, int changes) {
    const nb_rewrite_row row = {.size = sizeof row, .name = "row", .rule = rule};
    return H->rewrite(ctx, &row, 1) == changes ? NULL : rule;
}
static const char *no_match(nb_pass_ctx *ctx) {
    TRY(replace(ctx, "add(x, y) -> x", 0));
    TRY(replace(ctx, "mul(d, d) -> d", 0));           /* two different values */
    TRY(replace(ctx, "mul(@c, x) -> x", 0));          /* no constant */
    TRY(replace(ctx, "mul(x, 1) -> x", 0));           /* no number */
    TRY(replace(ctx, "mul(cast!(_), x) -> x", 0));    /* %d has two uses */
    TRY(replace(ctx, "softmax(softmax(x)) -> x", 0)); /* another op */
    TRY(count_of(ctx, "mul", 1));
    return NULL;
}

/* The right side is built: an op, a number, words in any order; either way round on the left. */
static const char *built(nb_pass_ctx *ctx) {
    TRY(replace(ctx, "mul(reduce_sum(x), x) -> add(neg(x), mul(2.5, x))", 1));
    TRY(count_of(ctx, "reduce_sum", 0));
    TRY(count_of(ctx, "neg", 1));
    TRY(count_of(ctx, "add", 1));
    TRY(count_of(ctx, "mul", 1));
    nb_op *mul = find(ctx, "mul");
    float f = 0;
    EXPECT(H->const_floats(ctx, H->operand(mul, 0), 0, 1, &f) && (int)(f * 2) == 5);
    TRY(replace(ctx, "mul(x, @c) -> div(x, c)", 1));
    TRY(count_of(ctx, "div", 1));
    return NULL;
}

/* Conditions and replacements that are functions. */
static const char *where_cast(nb_pass_ctx *ctx, const nb_match *m) {
    return H->value_elem(H->matched(m, "x")) == NB_DATA_F32 ? NULL : "x is no f32";
}
static nb_value *to_neg(nb_pass_ctx *ctx, const nb_match *m) {
    nb_value *x = H->matched(m, "x");
    x = H->build(ctx, H->matched_op(m), "neg", &x, 1, NULL, 0);
    return x ? H->build(ctx, H->matched_op(m), "abs", &x, 1, NULL, 0) : NULL;
}

/* Two rows at once; the first never applies. */
static const char *functions(nb_pass_ctx *ctx) {
    static const nb_rewrite_row rows[2] = {
        {.size = sizeof *rows, .name = "a", .rule = "cast(cast(x)) -> x", .where = where_cast},
        {.size = sizeof *rows, .name = "b", .rule = "softmax(x) -> |x|", .to = to_neg}};
    TRY(count_of(ctx, "cast", 2));
    EXPECT(H->rewrite(ctx, rows, 2) == 1);
    TRY(count_of(ctx, "cast", 0));
    TRY(count_of(ctx, "softmax", 0));
    TRY(count_of(ctx, "abs", 1));
    EXPECT(same(H->op_node(find(ctx, "neg")), "/Softmax"));
    return NULL;
}

/* ---- editing ----------------------------------------------------------------------------------
 */

static const char *edits(nb_pass_ctx *ctx) {
    nb_op *mul = find(ctx, "mul"), *sum = find(ctx, "reduce_sum"), *first = H->first_op(ctx->graph);
    nb_value *d = H->operand(mul, 0), *x = H->input(ctx->graph, 0);
    EXPECT(H->set_operand(ctx, mul, 0, x) && H->operand(mul, 0) == x);
    EXPECT(H->replace_uses(ctx, d, x) && H->use_count(d) == 0 && H->operand(sum, 0) == x);
    EXPECT(H->sweep(ctx) >= 5); /* softmax ... cast */
    EXPECT(H->first_op(ctx->graph) != first);
    nb_value *v = H->build(ctx, mul, "exp", &x, 1, NULL, 0);
    EXPECT(v && H->remove_op(ctx, H->defining_op(v)));
    TRY(count_of(ctx, "exp", 0));
    return NULL;
}

/* ---- an operation of one's own ----------------------------------------------------------------
 */

NB_EXPORT void nb_call_abi1_scaled(const void *const *operands, void *result, const int64_t *dims,
                                   const int64_t *numbers, int64_t begin, int64_t end);
void nb_call_abi1_scaled(const void *const *operands, void *result, const int64_t *dims,
                         const int64_t *numbers, int64_t begin, int64_t end) {
    const float *x = operands[0], *by = operands[1];
    float *y = result;
    for (int64_t i = begin * dims[1]; i < end * dims[1]; i++)
        y[i] = x[i] * by[0] * (float)numbers[0];
}

static const char *scaled_shape(nb_pass_ctx *ctx, nb_value *const *operands, const int64_t *numbers,
                                size_t n_numbers, nb_op_shape *out) {
    if (out->size < sizeof *out || n_numbers != 1 || numbers[0] < 1) return "it takes one number";
    if (H->value_elem(operands[0]) != NB_DATA_F32 || out->rank != 2) return "it takes a matrix";
    return NULL;
}

static nb_value *scaled_lower(nb_pass_ctx *ctx, nb_op *op) {
    const int64_t *numbers;
    size_t n;
    if (!H->attr_ints(op, "numbers", &numbers, &n) || n != 1) return NULL;
    const float number = (float)numbers[0];
    nb_value *by = H->make_const(ctx, "by", &(nb_array){NB_DATA_F32, 0, {0}, &number, NULL});
    nb_value *first[2] = {H->operand(op, 0), H->operand(op, 1)};
    nb_value *second[2] = {H->build(ctx, op, "mul", first, 2, NULL, 0), by};
    return H->build(ctx, op, "mul", second, 2, NULL, 0);
}

static const nb_op_def scaled = {.size = sizeof(nb_op_def),
                                 .name = "abi1_scaled",
                                 .summary = "x * alpha * times",
                                 .operands = 2,
                                 .shape = scaled_shape,
                                 .lower = scaled_lower,
                                 .onnx = "abi1.test::Scaled",
                                 .attributes = "times:i=1 alpha:f=1"};

static const char *own_operation(nb_pass_ctx *ctx) {
    static const float quarter = 0.25f;
    static const int64_t times = 8;
    nb_op *matmul = find(ctx, "matmul");
    nb_value *by = H->make_const(ctx, "q", &(nb_array){NB_DATA_F32, 0, {0}, &quarter, NULL});
    nb_value *operands[2] = {H->operand(matmul, 0), by};
    float before, after;
    TRY(first_of(ctx, &before));
    nb_value *v = H->call(ctx, matmul, "abi1_scaled", operands, 2, &times, 1);
    EXPECT(v && same(H->value_type(ctx, v), "f32[B,4]") && H->set_operand(ctx, matmul, 0, v));
    TRY(first_of(ctx, &after));
    EXPECT(memcmp(&(float){2 * before}, &after, sizeof after) == 0);
    return NULL;
}

/* ---- talking, memory --------------------------------------------------------------------------
 */

static const char *talking(nb_pass_ctx *ctx) {
    nb_op *softmax = find(ctx, "softmax");
    char *memory = H->scratch(ctx, 100);
    EXPECT(memory && memory[0] == 0 && memory[99] == 0);
    H->report(ctx, NB_LEVEL_INFO, softmax, "seen %d times", 1);
    H->note(ctx, "a note, %s", "below it");
    H->help(ctx, "no %s is needed", "help");
    H->report_value(ctx, NB_LEVEL_INFO, H->input(ctx->graph, 0), "the input");
    H->fact(ctx, softmax, "alpha", 0.5);
    H->refused(ctx, softmax, "rule", "softmax(x) -> x", "it is %s", "no such thing");
    if (H->is_heard(ctx)) H->note(ctx, "somebody listens");
    return NULL;
}

enum { TIMES, SCALE, FLAG, WORD, KIND, SKIP };
static const char *const kinds[] = {"first", "second", NULL};
static const nb_option options[] = {
    {.name = "times", .kind = NB_OPTION_INT, .fallback = "3", .min = 1, .max = 9, .summary = "-"},
    {.name = "scale", .kind = NB_OPTION_FLOAT, .fallback = "0.5", .summary = "-"},
    {.name = "flag", .kind = NB_OPTION_BOOL, .fallback = "true", .summary = "-"},
    {.name = "word", .kind = NB_OPTION_STRING, .fallback = "w", .summary = "-"},
    {.name = "kind",
     .kind = NB_OPTION_ENUM,
     .fallback = "second",
     .choices = kinds,
     .summary = "-"},
    {.name = "skip", .kind = NB_OPTION_SELECTOR, .fallback = "/Soft*", .summary = "-"},
    {.name = NULL},
};

static const char *with_options(nb_pass_ctx *ctx) {
    const nb_option_value *o = ctx->options;
    EXPECT(ctx->size >= sizeof *ctx && ctx->host_data);
    EXPECT(o[TIMES].i == 3 && !o[TIMES].given && (int)(o[SCALE].f * 2) == 1 && o[FLAG].b);
    EXPECT(same(o[WORD].s, "w") && o[KIND].i == 1 && same(o[KIND].s, "second"));
    EXPECT(H->selected(ctx, "skip", find(ctx, "softmax")));
    EXPECT(!H->selected(ctx, "skip", find(ctx, "transpose")));
    return NULL;
}

/* ---- the plug-in ------------------------------------------------------------------------------
 */

typedef struct member {
    const char *(*act)(nb_pass_ctx *ctx); /* NULL when all is right, else what is not */
} member;

static nb_pass_result use(nb_pass_ctx *ctx) {
    const member *m = ctx->user;
    const char *wrong = m->act(ctx);
    if (wrong) H->report(ctx, NB_LEVEL_ERROR, NULL, "%s", wrong);
    return wrong ? NB_PASS_FAILED : NB_PASS_CHANGED;
}

#define MEMBER(name_, act_, ...)                        \
    (&(const nb_pass){.size = sizeof(nb_pass),          \
                      .name = "use-" name_,             \
                      .summary = name_,                 \
                      .run = use,                       \
                      .user = &(member){act_},          \
                      .promises = NB_PASS_RUNS_ONCE,    \
                      .needs = NB_PASS_NEEDS_ORIGINALS, \
                      __VA_ARGS__})
static const nb_pass *const passes[] = {
    MEMBER("walking", walking, .options = NULL),
    MEMBER("attributes", attributes, .options = NULL),
    MEMBER("made-attributes", made_attributes, .options = NULL),
    MEMBER("texts", texts, .options = NULL),
    MEMBER("names", names, .options = NULL),
    MEMBER("places", places, .options = NULL),
    MEMBER("numbers-of-codes", numbers_of_codes, .options = NULL),
    MEMBER("large", large, .options = NULL),
    MEMBER("half-floats", half_floats, .options = NULL),
    MEMBER("codes", codes, .options = NULL),
    MEMBER("every-element", every_element, .options = NULL),
    MEMBER("every-cast", every_cast, .options = NULL),
    MEMBER("quantizations", quantizations, .options = NULL),
    MEMBER("dynamic-scales", dynamic_scales, .options = NULL),
    MEMBER("loop-body", loop_body, .options = NULL),
    MEMBER("if-bodies", if_bodies, .options = NULL),
    MEMBER("counted", counted, .options = NULL),
    MEMBER("statistics", statistics, .options = NULL),
    MEMBER("no-match", no_match, .options = NULL),
    MEMBER("built", built, .options = NULL),
    MEMBER("functions", functions, .options = NULL),
    MEMBER("edits", edits, .options = NULL),
    MEMBER("own-operation", own_operation, .options = NULL),
    MEMBER("talking", talking, .options = NULL),
    MEMBER("options", with_options, .options = options),
    NULL,
};
static const nb_op_def *const ops[] = {&scaled, NULL};

NB_EXPORT const nb_plugin nb_plugin_v1 = {.size = sizeof(nb_plugin),
                                          .abi_major = NB_PASS_ABI_MAJOR,
                                          .abi_minor = NB_PASS_ABI_MINOR,
                                          .name = "everything",
                                          .passes = passes,
                                          .ops = ops};
