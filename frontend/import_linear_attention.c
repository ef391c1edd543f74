/* LinearAttention: a state [B,G,D,E] that each token decays, writes its key and value to, and reads
 * with its query. The tokens of a run follow each other, so their number must be known: one, in a
 * decoder, and not many more. */
#include "frontend/import.h"

#include <math.h>
#include <string.h>

#define MOST_TOKENS 64

typedef struct linear {
    nb_value *q, *k, *v;    /* f32: [B,H,S,D], [B,G,S,D], [B,G,S,E] */
    nb_value *decay, *beta; /* f32: [B,G,S,D|1], [B,G|1,S,1]; NULL: the rule has none */
    nb_value *state;        /* f32[B,G,D,E] */
    int64_t heads, groups, tokens;
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
        l->decay = heads_of(im, 4, l->groups);
        if (!l->decay) return NB_MALFORMED;
    }
    if (!rules[r].corrects) return NB_OK;
    nb_value *beta = nb_node_input(im, 5);
    bool shared = beta && beta->type->rank == 3 && nb_dim_is(beta->type->dims[2], 1);
    l->beta = heads_of(im, 5, shared ? 1 : l->groups);
    return l->beta ? NB_OK : NB_MALFORMED;
}

static nb_status read_linear(nb_importer *im, linear *l) {
    l->heads = nb_node_int(im, "q_num_heads", 0);
    l->groups = nb_node_int(im, "kv_num_heads", 0);
    if (l->heads < 1 || l->groups < 1 || l->heads > 65536 || l->heads % l->groups)
        return nb_node_error(im, NB_MALFORMED, "%lld heads of queries, %lld of keys",
                             (long long)l->heads, (long long)l->groups);
    l->q = heads_of(im, 0, l->heads);
    l->k = heads_of(im, 1, l->groups);
    l->v = heads_of(im, 2, l->groups);
    if (!l->q || !l->k || !l->v) return NB_MALFORMED;
    for (int d = 0; d < 3; d += 2) {
        NB_TRY(nb_unify(im, l->q->type->dims[d], l->k->type->dims[d]));
        NB_TRY(nb_unify(im, l->k->type->dims[d], l->v->type->dims[d]));
    }
    NB_TRY(nb_unify(im, l->q->type->dims[3], l->k->type->dims[3]));
    const nb_dim *tokens = l->q->type->dims[2], *size = l->q->type->dims[3];
    if (!nb_dim_is_const(tokens) || tokens->value > MOST_TOKENS || tokens->value < 1)
        return nb_node_error(im, NB_UNSUPPORTED, "%s tokens, expected a number from 1 to %d",
                             nb_dim_text(im->arena, tokens), MOST_TOKENS);
    l->tokens = tokens->value;
    float scale = nb_node_float(im, "scale", 0);
    l->scale = scale != 0.0F ? scale : 1 / sqrtf((float)size->value);
    NB_TRY(read_rule(im, l));
    const nb_dim *shape[] = {l->k->type->dims[0], l->k->type->dims[1], size, l->v->type->dims[3]};
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

static nb_value *token(nb_importer *im, nb_value *x, int64_t t) {
    return nb_slice_axis(im, x, 2, nb_num(im, t), nb_num(im, 1), 1);
}

/* What the state becomes with token t. */
static nb_value *written(nb_importer *im, const linear *l, int64_t t) {
    nb_value *s = l->state, *k = token(im, l->k, t), *v = token(im, l->v, t);
    if (l->decay) { /* [B,G,1,D] turned to the rows of the state */
        nb_value *kept = nb_unary(&im->b, NB_OP_exp, token(im, l->decay, t));
        kept = nb_swap_axes(im, kept, 2, 3);
        s = kept ? nb_combine(im, NB_OP_mul, s, kept) : NULL;
    }
    if (l->beta && v) { /* what the state holds for the key already is taken off */
        nb_value *held = nb_multiply(im, k, s);
        v = held ? nb_combine(im, NB_OP_sub, v, held) : NULL;
        v = v ? nb_combine(im, NB_OP_mul, token(im, l->beta, t), v) : NULL;
    }
    nb_value *outer = nb_multiply(im, nb_swap_axes(im, k, 2, 3), v);
    return s && outer ? nb_combine(im, NB_OP_add, s, outer) : NULL;
}

nb_status nb_import_linear_attention(nb_importer *im) {
    linear l = {0};
    NB_TRY(read_linear(im, &l));
    nb_value *y = NULL;
    for (int64_t t = 0; t < l.tokens; t++) {
        l.state = written(im, &l, t);
        nb_value *whole = nb_repeat_heads(im, l.state, l.groups, l.heads);
        nb_value *read = nb_multiply(im, token(im, l.q, t), whole);
        read = nb_times(im, read, (double)l.scale);
        y = y ? nb_join(im, y, read, 2) : read;
        if (!y) return nb_node_output(im, 0, NULL);
    }
    nb_elem elem = nb_node_input(im, 0)->type->elem;
    NB_TRY(nb_node_output(im, 0, nb_as(im, nb_join_heads(im, y), elem)));
    nb_elem kept = nb_has_input(im, 3) ? nb_node_input(im, 3)->type->elem : elem;
    return nb_node_output(im, 1, nb_as(im, l.state, kept));
}
