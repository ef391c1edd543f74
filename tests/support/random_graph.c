/* Random graphs (random_graph.h). */
#include "tests/support/random_graph.h"

#include "ir/build.h"
#include "ir/text_private.h"
#include "ir/verify.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_VALUES = 200 };

typedef struct maker {
    uint64_t state;
    nb_arena *arena;
    nb_graph *g;
    nb_diags *refused; /* what shape rules said about attempts */
    nb_value *values[MAX_VALUES];
    size_t n;
    const nb_dim *dims[12];
    size_t n_dims;
    size_t accepted;
} maker;

static uint64_t next(maker *m) {
    m->state += UINT64_C(0x9e3779b97f4a7c15);
    return nb_hash_mix(m->state, 7);
}
static size_t below(maker *m, size_t n) { return (size_t)(next(m) >> 11) % n; }
static bool chance(maker *m, size_t one_in) { return below(m, one_in) == 0; }

static const char *any_name(maker *m) {
    static const char *const names[] = {
        "x", "w.scale",    "/fc1/MatMul_output_0", "123", "",       "a b\"c\\d",
        "_", "\n\x01\xff", "onnx::Add_7",          "at",  "return", "\xc3\xa9"};
    return names[below(m, NB_COUNT(names))];
}

static const nb_loc *any_loc(maker *m) {
    static const char *const passes[] = {"smooth-fold", "raise", "odd pass", "9"};
    const nb_loc *loc = NULL;
    while (chance(m, 2)) loc = nb_loc_merge(m->g, loc, nb_loc_at(m->g, any_name(m)));
    while (chance(m, 2)) loc = nb_loc_via(m->g, loc, passes[below(m, NB_COUNT(passes))]);
    return loc;
}

static nb_storage any_storage(maker *m) {
    nb_storage s = {.kind = NB_STORE_NONE};
    if (chance(m, 2)) return s;
    s.kind = (nb_storage_kind)below(m, NB_STORE_REGISTERS + 1);
    if (s.kind != NB_STORE_NONE && s.kind != NB_STORE_REGISTERS) s.index = (uint32_t)below(m, 5);
    return s;
}

static void make_dims(maker *m) {
    nb_graph *g = m->g;
    const nb_dim *b = nb_dim_symbol(g, nb_graph_symbol(g, "B", false));
    const nb_symbol *past = nb_graph_symbol(g, chance(m, 2) ? "P" : "past length `x", true);
    if (chance(m, 2)) nb_symbol_narrow(g, past, 2, 2 + (int64_t)below(m, 100));
    const nb_dim *p = nb_dim_symbol(g, past), *one = nb_dim_const(g, 1);
    const nb_dim *four = nb_dim_const(g, 4), *two = nb_dim_const(g, 2);
    const nb_dim *all[] = {one,
                           two,
                           four,
                           four,
                           b,
                           p,
                           nb_dim_add(g, p, b),
                           nb_dim_mul(g, two, b),
                           nb_dim_ceildiv(g, p, four),
                           nb_dim_max(g, p, b),
                           nb_dim_const(g, 0),
                           nb_dim_sub(g, nb_dim_mul(g, p, b), nb_dim_const(g, -3))};
    memcpy(m->dims, all, sizeof all);
    m->n_dims = NB_COUNT(all);
}

static const nb_dim *any_dim(maker *m) { return m->dims[below(m, m->n_dims)]; }

static nb_value *keep(maker *m, nb_value *v) {
    v->storage = any_storage(m);
    if (m->n < MAX_VALUES) m->values[m->n++] = v;
    return v;
}

static nb_value *make_const(maker *m, const nb_type *type) {
    int64_t count, bytes;
    void *data;
    if (!nb_type_static_count(type, &count) || !nb_elem_bytes_of(type->elem, count, &bytes))
        abort();
    nb_blob *blob = nb_blob_create(bytes, &data);
    memset(data, 0, (size_t)bytes);
    uint64_t same = next(m);
    bool splat = chance(m, 5);
    for (int64_t i = 0; i < count; i++) {
        uint64_t bits = splat ? same : chance(m, 2) ? next(m) : next(m) >> 60;
        if (type->elem == NB_BOOL && !chance(m, 9)) bits &= 1;
        nb_elem_put(type->elem, data, i, bits);
    }
    return keep(m, nb_graph_add_const(m->g, any_name(m), type, blob, any_loc(m)));
}

static nb_value *make_scales(maker *m, int rank, const int64_t *shape) {
    float data[64];
    for (size_t i = 0; i < NB_COUNT(data); i++) data[i] = (float)(1 + below(m, 1000)) / 1024;
    nb_const_f32(m->g, any_name(m), rank, shape, data);
    return m->g->constants.items[m->g->constants.count - 1];
}

/* Numbers like those of make_scales, or codes of them. */
static nb_value *make_numbers(maker *m, int rank, const int64_t *shape) {
    if (chance(m, 2)) return make_scales(m, rank, shape);
    const nb_dim *dims[NB_MAX_RANK];
    nb_quant q = {.storage = NB_U6, .scale = 0.5f, .minimum = (float)below(m, 3)};
    if (rank == 2) {
        q.granularity = NB_PER_GROUP;
        q.group = 4;
        q.scales = make_scales(m, 2, (int64_t[]){(shape[0] + 3) / 4, shape[1]});
    }
    const nb_quant *known = nb_quant_intern(m->g, &q, any_name(m), m->refused);
    for (int d = 0; d < rank; d++) dims[d] = nb_dim_const(m->g, shape[d]);
    return known ? make_const(m, nb_type_intern(m->g, NB_U6, known, rank, dims)) : NULL;
}

static const nb_quant *make_quant(maker *m) {
    static const nb_elem storages[] = {NB_I8, NB_I4, NB_U8, NB_U4, NB_I16, NB_I2};
    nb_quant q = {.storage = storages[below(m, NB_COUNT(storages))],
                  .granularity = (nb_granularity)below(m, NB_PER_BLOCK + 1)};
    q.narrow = nb_elems[q.storage].class_ == NB_CLASS_INT && chance(m, 2);
    bool dynamic = q.granularity >= NB_PER_TOKEN;
    if (dynamic) q.amax_code = nb_quant_max(&q);
    if (q.granularity == NB_PER_GROUP || q.granularity == NB_PER_BLOCK) q.group = 2;
    if (!dynamic && !chance(m, 3)) q.zero = nb_quant_max(&q);
    q.scale = 0.1f * (float)(1 + below(m, 50));
    if (q.granularity == NB_PER_AXIS) {
        q.axis = (int)below(m, 2);
        q.scales = make_numbers(m, 1, (int64_t[]){4});
        if (chance(m, 2)) q.minima = make_numbers(m, 1, (int64_t[]){4});
    } else if (q.granularity == NB_PER_GROUP) {
        q.axis = (int)below(m, 2);
        q.scales = make_numbers(m, 2, q.axis ? (int64_t[]){4, 2} : (int64_t[]){2, 4});
        if (!chance(m, 2)) q.minimum = -0.25f;
    }
    if (q.scales) q.zero = 0;
    return nb_quant_intern(m->g, &q, any_name(m), m->refused);
}

static nb_value *any_value(maker *m) { return m->values[below(m, m->n)]; }

/* A value with the same type as `like`, if a few draws find one. */
static nb_value *similar(maker *m, const nb_value *like) {
    nb_value *v = any_value(m);
    for (int i = 0; i < 8 && v->type != like->type; i++) v = any_value(m);
    return v;
}

static void set_attr(maker *m, nb_builder *b, const char *name, nb_attr_kind kind, int rank) {
    const nb_dim *dims[NB_MAX_RANK];
    int64_t ints[NB_MAX_RANK];
    size_t n = chance(m, 4) ? below(m, 4) : (size_t)rank;
    switch (kind) {
    case NB_ATTR_INT:
        nb_set_int(b, name, rank ? (int64_t)below(m, (size_t)rank) : -3);
        return;
    case NB_ATTR_FLOAT:
        nb_set_float(b, name, (float)below(m, 1000) * 1e-6f - 1e-5f);
        return;
    case NB_ATTR_BOOL:
        nb_set_bool(b, name, chance(m, 2));
        return;
    case NB_ATTR_INTS: {
        size_t shift = below(m, 4);
        for (size_t i = 0; i < n; i++)
            ints[i] = strcmp(name, "step") == 0 ? 1 : (int64_t)((i + shift) % n);
        nb_set_ints(b, name, n, ints);
        return;
    }
    case NB_ATTR_DIMS:
        for (size_t i = 0; i < n; i++) dims[i] = chance(m, 2) ? nb_dim_const(m->g, 1) : any_dim(m);
        nb_set_dims(b, name, n, dims);
        return;
    case NB_ATTR_ELEM:
        nb_set_elem(b, name, (nb_elem)below(m, NB_ELEM_COUNT));
        return;
    case NB_ATTR_QUANT:
        nb_set_quant(b, name, m->g->quants.items[below(m, m->g->quants.count)]);
        return;
    case NB_ATTR_STR:
    case NB_ATTR_END:
        return;
    }
}

/* One attempt at an op; the shape rule may refuse it. */
static void try_op(maker *m) {
    nb_op_kind kind = (nb_op_kind)below(m, NB_OP_COUNT);
    const nb_op_info *info = &nb_ops[kind];
    if (info->traits & NB_TRAIT_TERMINATOR) return;
    nb_builder b = {.graph = m->g, .diags = m->refused, .loc = any_loc(m)};
    nb_value *first = any_value(m);
    nb_begin(&b, kind);
    for (int i = 0; i < NB_MAX_OPERAND_SPECS && info->operands[i].mode != NB_OPERAND_END; i++) {
        nb_operand_mode mode = info->operands[i].mode;
        if (mode == NB_OPERAND_OPT) {
            nb_arg(&b, chance(m, 2) ? NULL : similar(m, first));
            continue;
        }
        size_t times = mode == NB_OPERAND_VAR ? 1 + below(m, 3) : 1;
        for (size_t k = 0; k < times; k++)
            nb_arg(&b, i + (int)k == 0 ? first : chance(m, 3) ? any_value(m) : similar(m, first));
    }
    for (int i = 0; i < NB_MAX_ATTRS && info->attrs[i].kind != NB_ATTR_END; i++)
        if (!chance(m, 8))
            set_attr(m, &b, info->attrs[i].name, info->attrs[i].kind, first->type->rank);
    nb_value *y = nb_end(&b);
    if (!y) return;
    for (int d = 0; d < y->type->rank; d++) /* what a shape rule makes of a negative number */
        if (nb_dim_is_const(y->type->dims[d]) && y->type->dims[d]->value < 0) {
            nb_op_remove(y->def);
            return;
        }
    if (chance(m, 2)) nb_set_name(m->g, y, any_name(m));
    m->accepted++;
    keep(m, y);
}

static void make_graph(maker *m) {
    nb_graph *g = m->g;
    g->stage = NB_STAGE_FUSED;
    make_dims(m);
    const nb_quant *of_square = NULL;
    for (int i = 0; i < 4 || !of_square; i++) of_square = make_quant(m);
    for (size_t i = 0, n = 2 + below(m, 4); i < n; i++) {
        const nb_dim *dims[NB_MAX_RANK];
        int rank = (int)below(m, 5);
        for (int d = 0; d < rank; d++) dims[d] = any_dim(m);
        nb_elem e = chance(m, 3) ? (nb_elem)below(m, NB_ELEM_COUNT) : NB_F32;
        keep(m, nb_graph_add_input(g, any_name(m), nb_type_intern(g, e, NULL, rank, dims)));
    }
    for (size_t i = 0, n = below(m, 12); i < n; i++) {
        const nb_dim *dims[2] = {m->dims[2], m->dims[below(m, 2) + 1]};
        const nb_type *plain =
            nb_type_intern(g, (nb_elem)below(m, NB_ELEM_COUNT), NULL, (int)below(m, 3), dims);
        if (chance(m, 3)) {
            const nb_dim *square[2] = {m->dims[2], m->dims[2]};
            plain = nb_type_intern(g, NB_F32, NULL, 2, square);
            if (chance(m, 2)) plain = nb_type_with_quant(g, plain, of_square);
        }
        make_const(m, plain);
    }
    for (int i = 0; i < 60; i++) try_op(m);
    nb_value *outputs[3];
    const char *names[3];
    size_t n = below(m, 4);
    for (size_t i = 0; i < n; i++) {
        outputs[i] = m->values[m->n - 1 - below(m, m->n < 5 ? m->n : 5)];
        names[i] = i == 0 && chance(m, 2) ? outputs[0]->name : nb_format(m->arena, "out:%zu", i);
    }
    nb_graph_set_outputs(g, n, outputs, names);
    const nb_value *in = g->body.params[0];
    if (n && outputs[0]->type == in->type) {
        nb_state s = {.axis = chance(m, 2) ? -1 : in->type->rank - 1, .appended = chance(m, 2)};
        nb_vec_push(g->arena, &g->states, s);
    }
}

/* ---- the round trip ------------------------------------------------------------------------- */

static const char *failed(nb_arena *arena, const nb_diags *diags, const char *text) {
    const char *all = "";
    for (size_t i = 0; i < diags->list.count; i++)
        all = nb_format(arena, "%s%s", all, nb_diag_render(arena, diags->list.items[i]));
    return nb_format(arena, "%s\n%s", all, text);
}

/* What of `again` is not what it is in `g`. */
static const char *difference(nb_arena *arena, const nb_graph *g, const nb_graph *again,
                              const char *text) {
    const char *printed = nb_print_string(arena, again, NULL);
    if (strcmp(printed, text) != 0)
        return nb_format(arena, "printed again:\n%s\nfrom\n%s", printed, text);
    if (again->constants.count != g->constants.count) return "the number of constants";
    for (size_t i = 0; i < g->constants.count; i++) {
        const nb_value *v = g->constants.items[i], *w = again->constants.items[i];
        if (strcmp(v->name, w->name) != 0 || v->blob->size != w->blob->size ||
            memcmp(v->blob->data, w->blob->data, (size_t)v->blob->size) != 0)
            return nb_format(arena, "constant %zu of\n%s", i, text);
    }
    return NULL;
}

const char *nb_random_round_trip(uint64_t seed, nb_arena *arena, size_t *ops, size_t *bytes) {
    nb_graph *g = nb_graph_create("random graph", NULL, NULL), *again;
    maker m = {.state = seed, .arena = arena, .g = g};
    m.refused = nb_diags_create(arena, NULL);
    make_graph(&m);
    nb_diags *diags = nb_diags_create(arena, "random.nir");
    const char *text = nb_print_string(arena, g, NULL), *problem = NULL;
    *ops += m.accepted;
    *bytes += strlen(text);
    if (nb_verify(g, diags) != NB_OK ||
        nb_parse(text, strlen(text), "random.nir", NULL, NULL, NULL, diags, &again) != NB_OK) {
        problem = failed(arena, diags, text);
    } else {
        problem = difference(arena, g, again, text);
        nb_graph_destroy(again);
    }
    nb_graph_destroy(g);
    return problem;
}
