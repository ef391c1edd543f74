/* Sizes that only data tell, and the suppression of boxes. */
#include "runtime/nb_model.h"
#include "tests/diff/diff.h"

/* Places of what is above 0, rows at them, and as many ones. */
static const char places[] =
    "nir 1\n"
    "graph @g(%x: f32[S0], %t: f32[S0,5]) -> (a: f32[S1,5], b: f32[S1], c: i64[S1])"
    " where S0 in 0.., S1 in 0.. counted {\n"
    "  const @zero: f32[] = {0}\n"
    "  const @none: i64[] = {0}\n"
    "  const @one: i64[] = {1}\n"
    "  %is: bool[S0] = lt @zero, %x\n"
    "  %n: i64[S0] = cast %is {to=i64}\n"
    "  %sum: i64[] = reduce_sum %n\n"
    "  %k: i64[] = bind %sum {size=[S1], most=[S0]}\n"
    "  %up: i64[S0] = cumsum %n {axis=0}\n"
    "  %rank: i64[S0] = sub %up, @one\n"
    "  %last: i64[] = dims {values=[S1], scalar}\n"
    "  %to: i64[S0] = where %is, %rank, %last\n"
    "  %room: i64[S1+1] = expand @none {shape=[S1+1]}\n"
    "  %all: i64[S0] = iota {start=[0], count=[S0], step=1}\n"
    "  %put: i64[S1+1] = scatter %room, %to, %all\n"
    "  %at: i64[S1] = slice %put {start=[0], count=[S1], step=[1]}\n"
    "  %rows: f32[S1,5] = gather %t, %at {axis=0}\n"
    "  %y: f32[S1,5] = exp %rows\n"
    "  %z: f32[S1] = reduce_sum %y {axes=[1]}\n"
    "  return %y, %z, %at\n"
    "}\n";

/* A number that comes from outside, with a bound or without: memory grows then. */
#define COUNT(most)                                                \
    "nir 1\n"                                                      \
    "graph @g(%n: i64[]) -> (a: i64[S1,2], b: i64[])"              \
    " where S1 in 0..40 counted {\n"                               \
    "  %k: i64[] = bind %n {size=[S1]" most "}\n"                  \
    "  %i: i64[2*S1] = iota {start=[S1], count=[2*S1], step=-1}\n" \
    "  %y: i64[S1,2] = reshape %i {shape=[S1,2]}\n"                \
    "  %s: i64[] = reduce_sum %i\n"                                \
    "  return %y, %s\n"                                            \
    "}\n"

/* In each step of a loop another number, of which the largest is seen last. */
static const char steps[] =
    "nir 1\n"
    "graph @g(%n: i64[5]) -> (a: i64[], b: i64[5]) where S1 in 0.. counted {\n"
    "  const @zero: i64[] = {0}\n"
    "  %a: i64[], %b: i64[5] = loop @zero, %n {count=[5], carried=1, sliced=1}"
    " do (%i: i64[], %sum: i64[], %k: i64[]) {\n"
    "    %m: i64[] = add %k, %i\n"
    "    %said: i64[] = bind %m {size=[S1]}\n"
    "    %all: i64[S1] = iota {start=[1], count=[S1], step=1}\n"
    "    %s: i64[] = reduce_sum %all\n"
    "    %t: i64[] = add %sum, %s\n"
    "    return %t, %s\n"
    "  }\n"
    "  return %a, %b\n"
    "}\n";

/* A number that must be another one, and sizes that it must leave at 0 or more. */
static const char agreed[] =
    "nir 1\n"
    "graph @g(%n: i64[], %m: i64[]) -> (a: i64[S1], b: i64[S1-2]) where S1 in 0.. counted {\n"
    "  %k: i64[] = bind %n {size=[S1], most=[50]}\n"
    "  %l: i64[] = bind %m {size=[S1+1]}\n"
    "  %i: i64[S1] = iota {start=[0], count=[S1], step=1}\n"
    "  %s: i64[S1-2] = slice %i {start=[2], count=[S1-2], step=[1]}\n"
    "  return %i, %s\n"
    "}\n";

static void suppression(bool center, int64_t limit, float overlap, float least) {
    static const int64_t sizes[][3] = {{1, 1, 40}, {2, 3, -1}, {3, 1, 1}, {1, 2, 0}};
    for (size_t i = 0; i < NB_COUNT(sizes); i++) {
        diff d;
        diff_begin(&d, "nms %d %lld %g %zu", center, (long long)limit, (double)overlap, i);
        d.symbols[0] = 17;
        d.plain = i % 2 == 0;
        const int64_t boxes[] = {sizes[i][0], sizes[i][2], 4};
        nb_value *operands[] = {diff_input(&d, NB_F32, 3, boxes),
                                diff_input(&d, NB_F32, 3, sizes[i]),
                                nb_const_i64(d.graph, "limit", 0, NULL, &limit),
                                nb_const_f32(d.graph, "overlap", 0, NULL, &overlap),
                                nb_const_f32(d.graph, "least", 0, NULL, &least)};
        nb_begin(&d.b, NB_OP_nms);
        for (size_t k = 0; k < NB_COUNT(operands); k++) nb_arg(&d.b, operands[k]);
        nb_set_bool(&d.b, "center", center);
        diff_check(&d, nb_end(&d.b));
    }
}

void diff_test_counted(void) {
    static const int64_t few[] = {0, 1, 7, 40}, wrong[] = {-1, 41};
    static const int64_t turns[] = {3, 0, 9, 1, 30}, back[] = {4, 0, -9, 1, 30};
    static const int64_t fits[] = {6, 7}, differs[] = {6, 6}, below[] = {1, 2}, many[] = {51, 52};
    diff_check_text("places", places, NULL, 0, NB_RUN_OK);
    for (size_t i = 0; i < NB_COUNT(few); i++) {
        diff_check_text("count", COUNT(", most=[40]"), &few[i], 1, NB_RUN_OK);
        diff_check_text("count without a bound", COUNT(""), &few[i], 1, NB_RUN_OK);
    }
    for (size_t i = 0; i < NB_COUNT(wrong); i++)
        diff_check_text("count out of range", COUNT(""), &wrong[i], 1, NB_RUN_INDEX);
    diff_check_text("count above its bound", COUNT(", most=[6]"), &few[2], 1, NB_RUN_INDEX);
    diff_check_text("count in a loop", steps, turns, NB_COUNT(turns), NB_RUN_OK);
    diff_check_text("count in a loop, negative", steps, back, NB_COUNT(back), NB_RUN_INDEX);
    diff_check_text("counts that agree", agreed, fits, 2, NB_RUN_OK);
    diff_check_text("counts that differ", agreed, differs, 2, NB_RUN_INDEX);
    diff_check_text("sizes that a count makes negative", agreed, below, 2, NB_RUN_INDEX);
    diff_check_text("more than are planned for", agreed, many, 2, NB_RUN_INDEX);
    for (int center = 0; center < 2; center++) {
        suppression(center, 5, 0.3F, 0);
        suppression(center, 1000, 0, -1e30F);
        suppression(center, 0, 0.5F, 0);
    }
}
