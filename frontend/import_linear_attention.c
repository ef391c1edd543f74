/* LinearAttention: a state [B,G,D,E] that each token decays, writes its key and value to, and reads
 * with its query. The tokens of a run follow each other, in a loop; one that is known to be alone,
 * as in a decoder's step, needs none. */
#include "frontend/import.h"

#include <math.h>
#include <string.h>

/* What comes with each token. */
enum { Q, K, V, DECAY, BETA, PARTS };

typedef struct linear {
    /* f32: [B,H,S,D], [B,G,S,D], [B,G,S,E], [B,G,S,D|1], [B,G|1,S,1]; the latter two NULL when the
     * rule has none. */
    nb_value *part[PARTS];
    nb_value *state; /* f32[B,G,D,E] */
    int64_t heads, groups;
    float scale;
} linear;

/* Input i, [B,S,heads*size], as f32[B,heads,S,size]. */
static nb_value *heads_of(nb_importer *im, size_t i, int64_t heads) {
    nb_value *x = nb_node_input(im, i);
    if (!x) return NULL;
    const nb_dim *width = x->type->rank == 3 ? x->type->dims[2] : NULL;
    if (!width || !nb_dim_is_const(width) || width->value % heads) {
        nb_node_error(im, NB_MALFORMED, "input %zu is %s, expected %lld heads side by side", i,
                      nb_type_text(im->arena, x->type), (long long)heads);
        return NULL;
    }
    return nb_as(im, nb_split_heads(im, x, heads, width->value / heads), NB_F32);
}

static nb_status read_rule(nb_importer *im, linear *l) {
    static const struct {
        const char *name;
        bool decays, corrects;
    } rules[] = {{"linear", false, false},
                 {"gated", true, false},
                 {"delta", false, true},
                 {"gated_delta", true, true}};
    const char *rule = nb_node_string(im, "update_rule", "gated_delta");
    size_t r = 0;
    while (r < NB_COUNT(rules) && strcmp(rules[r].name, rule) != 0) r++;
    if (r == NB_COUNT(rules))
        return nb_node_error(im, NB_MALFORMED, "update_rule '%s' is not known", rule);
    if (rules[r].decays) {
        l->part[DECAY] = heads_of(im, 4, l->groups);
        if (!l->part[DECAY]) return NB_MALFORMED;
    }
    if (!rules[r].corrects) return NB_OK;
    nb_value *beta = nb_node_input(im, 5);
    bool shared = beta && beta->type->rank == 3 && nb_dim_is(beta->type->dims[2], 1);
    l->part[BETA] = heads_of(im, 5, shared ? 1 : l->groups);
    return l->part[BETA] ? NB_OK : NB_MALFORMED;
}

static nb_status read_linear(nb_importer *im, linear *l) {
    l->heads = nb_node_int(im, "q_num_heads", 0);
    l->groups = nb_node_int(im, "kv_num_heads", 0);
    if (l->heads < 1 || l->groups < 1 || l->heads > 65536 || l->heads % l->groups)
        return nb_node_error(im, NB_MALFORMED, "%lld heads of queries, %lld of keys",
                             (long long)l->heads, (long long)l->groups);
    l->part[Q] = heads_of(im, 0, l->heads);
    l->part[K] = heads_of(im, 1, l->groups);
    l->part[V] = heads_of(im, 2, l->groups);
    if (!l->part[Q] || !l->part[K] || !l->part[V]) return NB_MALFORMED;
    for (int d = 0; d < 3; d += 2) {
        NB_TRY(nb_unify(im, l->part[Q]->type->dims[d], l->part[K]->type->dims[d]));
        NB_TRY(nb_unify(im, l->part[K]->type->dims[d], l->part[V]->type->dims[d]));
    }
    NB_TRY(nb_unify(im, l->part[Q]->type->dims[3], l->part[K]->type->dims[3]));
    const nb_dim *size = l->part[Q]->type->dims[3];
    float scale = nb_node_float(im, "scale", 0);
    l->scale = scale != 0.0F ? scale : 1 / sqrtf((float)size->value);
    NB_TRY(read_rule(im, l));
    const nb_dim *shape[] = {l->part[K]->type->dims[0], l->part[K]->type->dims[1], size,
                             l->part[V]->type->dims[3]};
    if (!nb_has_input(im, 3)) {
        l->state = nb_expand_to(im, nb_scalar(im, NB_F32, 0), 4, shape);
        return l->state ? NB_OK : NB_MALFORMED;
    }
    l->state = nb_as(im, nb_node_input(im, 3), NB_F32);
    if (!l->state || l->state->type->rank != 4)
        return nb_node_error(im, NB_MALFORMED, "the state is not of rank 4");
    for (int d = 0; d < 4; d++) NB_TRY(nb_unify(im, l->state->type->dims[d], shape[d]));
    return NB_OK;
}

/* ---- a token ------------------------------------------------------------------------------- */

/* What the state becomes with a token, whose parts are of one row. */
static nb_value *written(nb_importer *im, nb_value *s, nb_value *const *part) {
    nb_value *v = part[V];
    if (part[DECAY]) { /* [B,G,1,D] turned to the rows of the state */
        nb_value *kept = nb_unary(&im->b, NB_OP_exp, part[DECAY]);
        kept = nb_swap_axes(im, kept, 2, 3);
        s = kept ? nb_combine(im, NB_OP_mul, s, kept) : NULL;
    }
    if (part[BETA] && s) { /* what the state holds for the key already is taken off */
        nb_value *held = nb_multiply(im, part[K], s);
        v = held ? nb_combine(im, NB_OP_sub, v, held) : NULL;
        v = v ? nb_combine(im, NB_OP_mul, part[BETA], v) : NULL;
    }
    nb_value *outer = nb_multiply(im, nb_swap_axes(im, part[K], 2, 3), v);
    return s && outer ? nb_combine(im, NB_OP_add, s, outer) : NULL;
}

/* What its query reads, [B,H,1,E]. */
static nb_value *read_by(nb_importer *im, const linear *l, nb_value *state, nb_value *query) {
    nb_value *whole = nb_repeat_heads(im, state, l->groups, l->heads);
    return nb_times(im, nb_multiply(im, query, whole), (double)l->scale);
}

/* ---- all tokens of a run ------------------------------------------------------------------- */

static nb_value *with_row(nb_importer *im, nb_value *x) {
    const nb_dim *const *d = x->type->dims, *dims[] = {d[0], d[1], nb_num(im, 1), d[2]};
    return nb_reshape(&im->b, x, 4, dims);
}

/* The body takes the step, the state, and of each part the token's, [B,H,D]. */
static bool make_body(nb_importer *im, const linear *l, nb_value *const *parts, nb_region *body) {
    nb_value *part[PARTS] = {NULL};
    nb_region_add(body, "step", nb_type_intern(im->g, NB_I64, NULL, 0, NULL));
    nb_value *state = nb_region_add(body, "state", l->state->type);
    for (size_t i = 0; i < PARTS; i++) {
        const nb_type *t = parts[i] ? parts[i]->type : NULL;
        if (!t) continue;
        part[i] = with_row(
            im, nb_region_add(body, "part",
                              nb_type_intern(im->g, t->elem, NULL, t->rank - 1, t->dims + 1)));
    }
    state = written(im, state, part);
    nb_value *y = state ? read_by(im, l, state, part[Q]) : NULL;
    if (!y) return false;
    const nb_dim *const *d = y->type->dims, *flat[] = {d[0], d[1], d[3]};
    nb_region_return(body, 2, (nb_value *[]){state, nb_reshape(&im->b, y, 3, flat)}, im->b.loc);
    return true;
}

/* Results: the state, and [S,B,H,E]. */
static const nb_op *make_loop(nb_importer *im, const linear *l) {
    static const int64_t tokens_first[] = {2, 0, 1, 3};
    nb_value *parts[PARTS] = {NULL};
    int64_t sliced = 0;
    for (size_t i = 0; i < PARTS; i++) {
        if (!l->part[i]) continue;
        parts[i] = nb_transpose(&im->b, l->part[i], tokens_first);
        sliced++;
    }
    nb_region *outer = im->b.region, *body = nb_region_create(im->g);
    im->b.region = body;
    const bool made = make_body(im, l, parts, body);
    im->b.region = outer;
    if (!made) {
        nb_region_discard(body);
        return NULL;
    }
    nb_begin(&im->b, NB_OP_loop);
    nb_arg(&im->b, NULL);
    nb_arg(&im->b, NULL);
    nb_arg(&im->b, l->state);
    for (size_t i = 0; i < PARTS; i++)
        if (parts[i]) nb_arg(&im->b, parts[i]);
    nb_set_dims(&im->b, "count", 1, &parts[Q]->type->dims[0]);
    nb_set_int(&im->b, "carried", 1);
    nb_set_int(&im->b, "sliced", sliced);
    nb_set_region(&im->b, body);
    nb_value *state = nb_end(&im->b);
    return state ? state->def : NULL;
}

nb_status nb_import_linear_attention(nb_importer *im) {
    static const int64_t tokens_behind[] = {1, 2, 0, 3};
    linear l = {0};
    nb_value *y;
    NB_TRY(read_linear(im, &l));
    if (nb_dim_is(l.part[Q]->type->dims[2], 1)) {
        l.state = written(im, l.state, l.part);
        y = l.state ? read_by(im, &l, l.state, l.part[Q]) : NULL;
    } else {
        const nb_op *loop = make_loop(im, &l);
        l.state = loop ? loop->results[0] : NULL;
        y = loop ? nb_transpose(&im->b, loop->results[1], tokens_behind) : NULL;
    }
    if (!y) return nb_node_output(im, 0, NULL);
    nb_elem elem = nb_node_input(im, 0)->type->elem;
    NB_TRY(nb_node_output(im, 0, nb_as(im, nb_join_heads(im, y), elem)));
    nb_elem kept = nb_has_input(im, 3) ? nb_node_input(im, 3)->type->elem : elem;
    return nb_node_output(im, 1, nb_as(im, l.state, kept));
}
