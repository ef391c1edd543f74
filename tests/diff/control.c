/* if and loop: bodies with all that they may hold, as text. */
#include "ir/text.h"
#include "runtime/nb_model.h"
#include "tests/diff/diff.h"

#include <stdio.h>
#include <string.h>

static const int64_t steps[] = {0, 1, 2, 7};

void diff_check_text(const char *name, const char *text, const int64_t *indices, size_t n_indices,
                     int32_t result) {
    diff d;
    diff_begin(&d, "text %s", name);
    nb_graph_destroy(d.graph);
    d.graph = NULL;
    if (nb_parse(text, strlen(text), "text", NULL, NULL, NULL, d.diags, &d.graph) != NB_OK) {
        diff_failed++;
        for (size_t i = 0; i < d.diags->list.count; i++)
            printf("FAILED: %s: %s", d.name, nb_diag_render(d.arena, d.diags->list.items[i]));
        nb_arena_destroy(d.arena);
        return;
    }
    for (size_t i = 0; i < d.graph->symbols.count; i++) {
        const nb_symbol *s = d.graph->symbols.items[i];
        d.symbol[s->name[1] - '0'] = s;
        d.symbols[s->name[1] - '0'] = 5;
    }
    if (d.symbol[0]) { /* 0 steps only where the text allows them */
        const size_t first = d.symbol[0]->min > 0;
        d.lengths = steps + first;
        d.n_lengths = NB_COUNT(steps) - first;
    }
    d.indices = indices;
    d.n_indices = n_indices;
    d.result = result;
    diff_check_all(&d, 0, NULL);
}

/* Slices and stacks from either end, what all steps see, a product with packed weights. */
#define SCAN(ends)                                                                            \
    "nir 1\n"                                                                                 \
    "graph @g(%x: f32[S0,3,18], %m: bool[S0,3,1], %h0: f32[3,18]) -> (a: f32[3,18],"          \
    " b: f32[S0,3,18]) where S0 in 0.. {\n"                                                   \
    "  const @w: f32[18,18] = random(7, -0.5..0.5)\n"                                         \
    "  %last: f32[3,18], %ys: f32[S0,3,18] = loop %h0, %x, %m, %h0"                           \
    " {count=[S0], carried=1, sliced=2" ends "} do (%i: i64[], %h: f32[3,18], %s: f32[3,18]," \
    " %on: bool[3,1], %start: f32[3,18]) {\n"                                                 \
    "    %p: f32[3,18] = matmul %h, @w\n"                                                     \
    "    %q: f32[3,18] = add %p, %s\n"                                                        \
    "    %t: f32[3,18] = tanh %q\n"                                                           \
    "    %next: f32[3,18] = where %on, %t, %start\n"                                          \
    "    %r: f32[3,18] = sub %next, %s\n"                                                     \
    "    return %next, %r\n"                                                                  \
    "  }\n"                                                                                   \
    "  return %last, %ys\n"                                                                   \
    "}\n"

/* Products of codes in each step, of one row and of several, and a look-up in codes. */
#define QUANTIZED(rows)                                                                       \
    "nir 1\n"                                                                                 \
    "graph @g(%x: f32[S0," rows ",40], %h0: f32[" rows ",40], %on: bool[]) ->"                \
    " (a: f32[" rows ",40], b: f32[S0," rows ",24]) where S0 in 0.. {\n"                      \
    "  stage fused\n"                                                                         \
    "  quant #a: i8 narrow token amax 127\n"                                                  \
    "  quant #w: i8 narrow axis 1 scale @w.scale\n"                                           \
    "  quant #v: i4 narrow group 8 axis 0 scale @v.scale\n"                                   \
    "  const @w.scale: f32[24] = random(1, 0.001..0.01)\n"                                    \
    "  const @v.scale: f32[3,40] = random(2, 0.01..0.1)\n"                                    \
    "  const @w: #w[40,24] = random(3, -127..127)\n"                                          \
    "  const @v: #v[24,40] = random(4, -7..7)\n"                                              \
    "  %a: f32[" rows ",40], %b: f32[S0," rows ",24] = loop %h0, %x, %on"                     \
    " {count=[S0], carried=1, sliced=1}"                                                      \
    " do (%i: i64[], %h: f32[" rows ",40], %s: f32[" rows ",40], %on.1: bool[]) {\n"          \
    "    %m: f32[" rows ",40] = add %h, %s\n"                                                 \
    "    %q: #a[" rows ",40] = quantize %m {to=#a}\n"                                         \
    "    %y: f32[" rows ",24] = qmatmul %q, @w\n"                                             \
    "    %n: f32[" rows ",40] = if %on.1, %y, %h do (%y.1: f32[" rows ",24], %h.1: f32[" rows \
    ",40]) {\n"                                                                               \
    "      %p: #a[" rows ",24] = quantize %y.1 {to=#a}\n"                                     \
    "      %z: f32[" rows ",40] = qmatmul %p, @v, residual=%h.1\n"                            \
    "      return %z\n"                                                                       \
    "    } do (%y.2: f32[" rows ",24], %h.2: f32[" rows ",40]) {\n"                           \
    "      %u: f32[" rows ",40] = matmul %y.2, @v\n"                                          \
    "      return %u\n"                                                                       \
    "    }\n"                                                                                 \
    "    return %n, %y\n"                                                                     \
    "  }\n"                                                                                   \
    "  return %a, %b\n"                                                                       \
    "}\n"

/* What is carried changes places, stays, or is a constant. */
static const char swapped[] =
    "nir 1\n"
    "graph @g(%x: f32[S0,20], %y: f32[20], %z: f32[20]) -> (a: f32[20], b: f32[20], c: f32[20],"
    " d: f32[20], e: f32[20], f: f32[S0]) where S0 in 0.. {\n"
    "  const @k: f32[20] = random(3, -1..1)\n"
    "  %a: f32[20], %b: f32[20], %c: f32[20], %d: f32[20], %e: f32[20], %f: f32[S0] ="
    " loop %y, @k, %y, %z, %y, %x {count=[S0], carried=5, sliced=1}"
    " do (%i: i64[], %p: f32[20], %q: f32[20], %r: f32[20], %t: f32[20], %w: f32[20], %s: f32[20])"
    " {\n"
    "    %u: f32[20] = add %p, %s\n"
    "    %v: f32[] = reduce_sum %s {axes=[0]}\n"
    "    return %q, %u, %t, %r, @k, %v\n"
    "  }\n"
    "  return %a, %b, %c, %d, %e, %f\n"
    "}\n";

/* How many steps there are is known at run time: a limit, and a condition that data gives. */
static const char counted[] =
    "nir 1\n"
    "graph @g(%x: f32[9,4], %limit: i64[], %on: bool[]) -> (a: f32[4], b: f32[9,4], c: bool[]) {\n"
    "  const @z: f32[4] = splat 0\n"
    "  const @most: f32[] = {1}\n"
    "  %c: bool[], %a: f32[4], %b: f32[9,4] = loop limit=%limit, cond=%on, %on, @z, %x"
    " {count=[9], carried=2, sliced=1}"
    " do (%i: i64[], %was: bool[], %sum: f32[4], %s: f32[4]) {\n"
    "    %next: f32[4] = add %sum, %s\n"
    "    %size: f32[] = reduce_max %next {axes=[0]}\n"
    "    %more: bool[] = lt %size, @most\n"
    "    return %more, %more, %next, %next\n"
    "  }\n"
    "  return %a, %b, %c\n"
    "}\n";

/* Without a count: until the condition ends it. The step is a number like others. */
static const char endless[] =
    "nir 1\n"
    "graph @g(%limit: i64[], %x: f32[6]) -> (a: i64[], b: f32[6]) {\n"
    "  const @zero: i64[] = {0}\n"
    "  const @yes: bool[] = {true}\n"
    "  %a: i64[], %b: f32[6] = loop cond=@yes, @zero, %x, %limit {carried=2}"
    " do (%i: i64[], %n: i64[], %h: f32[6], %end: i64[]) {\n"
    "    %m: i64[] = add %n, %i\n"
    "    %go: bool[] = lt %i, %end\n"
    "    %k: f32[6] = sin %h\n"
    "    return %go, %m, %k\n"
    "  }\n"
    "  return %a, %b\n"
    "}\n";

/* A loop in a loop, both stacking; an index into what all steps see, checked in each. */
#define NESTED(n)                                                                                 \
    "nir 1\n"                                                                                     \
    "graph @g(%x: f32[" n ",5,3], %at: i64[" n "]) -> (a: f32[" n ",5,3], b: f32[3]) {\n"         \
    "  const @zero: f32[3] = splat 0\n"                                                           \
    "  %b: f32[3], %a: f32[" n ",5,3] = loop @zero, %x, %at {count=[" n "], carried=1, sliced=2}" \
    " do (%i: i64[], %sum: f32[3], %s: f32[5,3], %k: i64[]) {\n"                                  \
    "    %inner: f32[3], %rows: f32[5,3] = loop %sum, %s, %s, %k"                                 \
    " {count=[5], carried=1, sliced=1, reverse=[1,1]}"                                            \
    " do (%j: i64[], %h: f32[3], %row: f32[3], %table: f32[5,3], %k.1: i64[]) {\n"                \
    "      %pick: f32[3] = gather %table, %k.1 {axis=0}\n"                                        \
    "      %u: f32[3] = add %h, %pick\n"                                                          \
    "      %v: f32[3] = mul %u, %row\n"                                                           \
    "      return %u, %v\n"                                                                       \
    "    }\n"                                                                                     \
    "    return %inner, %rows\n"                                                                  \
    "  }\n"                                                                                       \
    "  return %a, %b\n"                                                                           \
    "}\n"

/* Bodies that return what they make, a view of it, what they take, and a constant, twice too. */
static const char chosen[] =
    "nir 1\n"
    "graph @g(%x: f32[S0,4], %on: bool[]) -> (a: f32[S0,4], b: f32[4,S0], c: f32[2], d: f32[S0,4])"
    " {\n"
    "  const @k: f32[2] = {3, 4}\n"
    "  %y: f32[S0,4] = exp %x\n"
    "  %a: f32[S0,4], %b: f32[4,S0], %c: f32[2], %d: f32[S0,4] = if %on, %y, %x"
    " do (%p: f32[S0,4], %q: f32[S0,4]) {\n"
    "    %r: f32[S0,4] = add %p, %q\n"
    "    %v: f32[4,S0] = reshape %r {shape=[4,S0]}\n"
    "    return %r, %v, @k, %r\n"
    "  } do (%p.1: f32[S0,4], %q.1: f32[S0,4]) {\n"
    "    %t: f32[4,S0] = transpose %q.1 {perm=[1,0]}\n"
    "    %u: f32[2] = neg @k\n"
    "    return %p.1, %t, %u, %q.1\n"
    "  }\n"
    "  return %a, %b, %c, %d\n"
    "}\n";

/* An `if` in a loop's body and a loop in an `if`'s, with conditions that data gives. */
static const char mixed[] = "nir 1\n"
                            "graph @g(%x: f32[S0,8], %on: bool[]) -> f32[8] {\n"
                            "  const @zero: f32[] = {0}\n"
                            "  %h0: f32[8] = reduce_max %x {axes=[0]}\n"
                            "  %y: f32[8] = if %on, %x, %h0 do (%x.1: f32[S0,8], %h.1: f32[8]) {\n"
                            "    %h: f32[8] = loop %h.1, %x.1 {count=[S0], carried=1, sliced=1}"
                            " do (%i: i64[], %c: f32[8], %s: f32[8]) {\n"
                            "      %sum: f32[] = reduce_sum %s {axes=[0]}\n"
                            "      %up: bool[] = lt @zero, %sum\n"
                            "      %n: f32[8] = if %up, %c, %s do (%c.1: f32[8], %s.1: f32[8]) {\n"
                            "        %e: f32[8] = add %c.1, %s.1\n"
                            "        return %e\n"
                            "      } do (%c.2: f32[8], %s.2: f32[8]) {\n"
                            "        return %c.2\n"
                            "      }\n"
                            "      return %n\n"
                            "    }\n"
                            "    return %h\n"
                            "  } do (%x.2: f32[S0,8], %h.2: f32[8]) {\n"
                            "    %m: f32[8] = neg %h.2\n"
                            "    return %m\n"
                            "  }\n"
                            "  return %y\n"
                            "}\n";

/* The first body takes 2 to `most` rows only. */
#define SIZED(on, most)                                                                        \
    "nir 1\n"                                                                                  \
    "graph @g(%x: f32[S1,4]) -> f32[S1,4] {\n"                                                 \
    "  const @on: bool[] = {" on "}\n"                                                         \
    "  %y: f32[S1,4] = if @on, %x {shapes=[S1,4]} do (%p: f32[min(" most ",max(2,S1)),4]) {\n" \
    "    %a: f32[min(" most ",max(2,S1)),4] = neg %p\n"                                        \
    "    return %a\n"                                                                          \
    "  } do (%q: f32[S1,4]) {\n"                                                               \
    "    return %q\n"                                                                          \
    "  }\n"                                                                                    \
    "  return %y\n"                                                                            \
    "}\n"

/* Of 3 rows the first body would need more than there are. */
#define SHORTER(on)                                                              \
    "nir 1\n"                                                                    \
    "graph @g(%x: f32[S1,4]) -> f32[4] {\n"                                      \
    "  const @on: bool[] = {" on "}\n"                                           \
    "  %y: f32[4] = if @on, %x do (%p: f32[S1,4]) {\n"                           \
    "    %a: f32[S1-9,4] = slice %p {start=[9,0], count=[S1-9,4], step=[1,1]}\n" \
    "    %b: f32[4] = reduce_sum %a {axes=[0]}\n"                                \
    "    return %b\n"                                                            \
    "  } do (%q: f32[S1,4]) {\n"                                                 \
    "    %c: f32[4] = reduce_max %q {axes=[0]}\n"                                \
    "    return %c\n"                                                            \
    "  }\n"                                                                      \
    "  return %y\n"                                                              \
    "}\n"

void diff_test_control(void) {
    static const int64_t limits[] = {-1, 0, 3, 9, 100};
    static const int64_t inside[] = {0, 4, -5, 2, 1, -1, 3}, outside[] = {0, 5, 1, 1, 1, 1, 1};
    diff_check_text("scan", SCAN(""), NULL, 0, NB_RUN_OK);
    diff_check_text("scan from the last", SCAN(", reverse=[1,1,0]"), NULL, 0, NB_RUN_OK);
    diff_check_text("scan both ways", SCAN(", reverse=[0,1,1]"), NULL, 0, NB_RUN_OK);
    diff_check_text("codes, one row", QUANTIZED("1"), NULL, 0, NB_RUN_OK);
    diff_check_text("codes, several rows", QUANTIZED("5"), NULL, 0, NB_RUN_OK);
    diff_check_text("swapped", swapped, NULL, 0, NB_RUN_OK);
    for (size_t i = 0; i < NB_COUNT(limits); i++) {
        diff_check_text("counted", counted, &limits[i], 1, NB_RUN_OK);
        diff_check_text("endless", endless, &limits[i], 1, NB_RUN_OK);
    }
    diff_check_text("nested", NESTED("S0"), inside, NB_COUNT(inside), NB_RUN_OK);
    diff_check_text("nested, index out of range", NESTED("7"), outside, NB_COUNT(outside),
                    NB_RUN_INDEX);
    diff_check_text("chosen", chosen, NULL, 0, NB_RUN_OK);
    diff_check_text("mixed", mixed, NULL, 0, NB_RUN_OK);
    diff_check_text("sizes of the other body", SIZED("false", "4"), NULL, 0, NB_RUN_OK);
    diff_check_text("sizes that fit", SIZED("true", "9"), NULL, 0, NB_RUN_OK);
    diff_check_text("sizes below zero elsewhere", SHORTER("false"), NULL, 0, NB_RUN_OK);
    diff_check_text("sizes below zero", SHORTER("true"), NULL, 0, NB_RUN_INDEX);
    diff_check_text("sizes that do not", SIZED("true", "4"), NULL, 0, NB_RUN_INDEX);
}
