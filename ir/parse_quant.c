/* Parsing quantization descriptors.
 *
 * A descriptor stands in front of the constants that hold its scales, and constants of codes stand
 * behind it. So a line is read into a pending descriptor, constants of codes first get the plain
 * type of their storage, and once all declarations are read the descriptors are made and those
 * constants typed. */
#include "ir/text_parse.h"

#include <math.h>

static bool want_scale_number(nb_parser *p, float *out) {
    nb_token t = p->lex.token;
    bool integer;
    if (t.kind != NB_TOKEN_NUMBER || !nb_number_form(t.begin, t.length, &integer))
        return nb_parse_expected(p, "a positive number or a constant");
    *out = nb_f32_read(t.begin, t.length);
    if (!(*out > 0 && isfinite(*out)))
        return nb_parse_error(p, &t, "the scale is not positive and finite");
    nb_lex(&p->lex);
    return true;
}

static bool want_scale(nb_parser *p, nb_pending_quant *q) {
    if (!nb_want_word(p, "scale")) return false;
    if (p->lex.token.kind == NB_TOKEN_CONST) {
        q->scales = p->lex.token;
        nb_lex(&p->lex);
    } else if (!want_scale_number(p, &q->members.scale)) {
        return false;
    }
    if (!nb_at_word(&p->lex, "zero")) return true;
    nb_lex(&p->lex);
    if (p->lex.token.kind == NB_TOKEN_CONST) {
        q->zeros = p->lex.token;
        nb_lex(&p->lex);
        return true;
    }
    return nb_want_int(p, nb_quant_min(&q->members), nb_quant_max(&q->members), &q->members.zero);
}

static bool want_axis(nb_parser *p, nb_quant *q) {
    int64_t axis;
    if (!nb_want_word(p, "axis") || !nb_want_int(p, 0, NB_MAX_RANK - 1, &axis)) return false;
    q->axis = (int)axis;
    return true;
}

static bool want_amax(nb_parser *p, nb_quant *q) {
    return nb_want_word(p, "amax") && nb_want_int(p, 1, nb_quant_max(q), &q->amax_code);
}

/* What follows the storage and `narrow`. */
static bool want_granularity(nb_parser *p, nb_pending_quant *q) {
    nb_quant *m = &q->members;
    if (nb_at_word(&p->lex, "axis")) {
        m->granularity = NB_PER_AXIS;
        if (!want_axis(p, m)) return false;
    } else if (nb_at_word(&p->lex, "group")) {
        m->granularity = NB_PER_GROUP;
        nb_lex(&p->lex);
        if (!nb_want_int(p, 1, INT64_MAX, &m->group) || !want_axis(p, m)) return false;
    } else if (nb_at_word(&p->lex, "token")) {
        m->granularity = NB_PER_TOKEN;
        nb_lex(&p->lex);
        return want_amax(p, m);
    } else if (nb_at_word(&p->lex, "block")) {
        m->granularity = NB_PER_BLOCK;
        nb_lex(&p->lex);
        return nb_want_int(p, 1, INT64_MAX, &m->group) && want_amax(p, m);
    } else if (!nb_at_word(&p->lex, "scale")) {
        return nb_parse_expected(p, "axis, group, token, block or scale");
    }
    nb_token at = p->lex.token;
    if (!want_scale(p, q)) return false;
    if (m->granularity != NB_PER_TENSOR && q->scales.kind != NB_TOKEN_CONST)
        return nb_parse_error(p, &at, "scales along an axis are a constant");
    if (q->zeros.kind == NB_TOKEN_CONST && q->scales.kind != NB_TOKEN_CONST)
        return nb_parse_error(p, &q->zeros, "a constant of zero points needs a constant of scales");
    return true;
}

/* quant #name: storage [narrow] ... */
bool nb_parse_quant(nb_parser *p) {
    nb_lex(&p->lex);
    nb_token name = p->lex.token;
    if (name.kind != NB_TOKEN_QUANT) return nb_parse_expected(p, "#name");
    if (nb_map_get_str(&p->quants, name.text, name.size))
        return nb_parse_error(p, &name, "'#%s' is declared twice", nb_token_name(p, &name));
    if (p->pending_quants.count == NB_TEXT_MAX_QUANTS)
        return nb_parse_limit(p, &name, "more than %d quantizations", NB_TEXT_MAX_QUANTS);
    nb_lex(&p->lex);
    if (!nb_want_punct(p, ':')) return false;
    nb_token t = p->lex.token;
    nb_elem storage = t.kind == NB_TOKEN_WORD ? nb_elem_from_text(t.text, t.size) : NB_ELEM_COUNT;
    if (storage == NB_ELEM_COUNT || !nb_elem_is_integer(storage))
        return nb_parse_expected(p, "an integer type");
    /* Known from here on, so that a later mistake of this line is one error. */
    nb_pending_quant *q = NB_NEW(p->scratch, nb_pending_quant);
    q->name = name;
    q->members.storage = storage;
    nb_map_set_str(&p->quants, name.text, name.size, q);
    nb_lex(&p->lex);
    if (nb_at_word(&p->lex, "narrow")) {
        if (nb_elems[storage].class_ != NB_CLASS_INT)
            return nb_parse_error(p, &p->lex.token, "only signed codes can be narrow");
        q->members.narrow = true;
        nb_lex(&p->lex);
    }
    if (!want_granularity(p, q) || !nb_want_end(p)) return false;
    nb_vec_push(p->scratch, &p->pending_quants, q);
    return true;
}

static bool check_scales(nb_parser *p, const nb_pending_quant *q) {
    const nb_value *v = q->members.scales;
    if (!v || v->type->elem != NB_F32) return true;
    const char *data = v->blob->data;
    for (int64_t i = 0; i < v->blob->size / 4; i++) {
        float scale;
        memcpy(&scale, data + 4 * i, sizeof scale);
        if (!(scale > 0 && isfinite(scale)))
            return nb_parse_error(p, &q->scales,
                                  "scale %lld of '@%s' is %g, not positive and finite",
                                  (long long)i, v->name, (double)scale);
    }
    return true;
}

static void resolve(nb_parser *p, nb_pending_quant *q) {
    nb_quant *m = &q->members;
    if (q->scales.kind == NB_TOKEN_CONST) m->scales = nb_find_const(p, &q->scales);
    if (q->zeros.kind == NB_TOKEN_CONST) m->zeros = nb_find_const(p, &q->zeros);
    bool found = (m->scales || q->scales.kind != NB_TOKEN_CONST) &&
                 (m->zeros || q->zeros.kind != NB_TOKEN_CONST);
    if (!found || m->scales == &p->poison || m->zeros == &p->poison || !check_scales(p, q)) return;
    const char *name = nb_token_name(p, &q->name);
    q->quant = nb_quant_intern(p->g, m, name, p->trial);
    if (!q->quant) {
        nb_parse_trial(p, &q->name);
    } else if (strcmp(q->quant->name, name) != 0) {
        nb_parse_error(p, &q->name, "'#%s' is the same as '#%s'", name, q->quant->name);
        q->quant = NULL;
    }
}

void nb_resolve_quants(nb_parser *p) {
    for (size_t i = 0; i < p->pending_quants.count; i++) resolve(p, p->pending_quants.items[i]);
    for (size_t i = 0; i < p->n_coded; i++) {
        nb_value *v = p->coded[i].value;
        const nb_quant *q = p->coded[i].quant->quant;
        if (q)
            v->type = nb_type_with_quant(p->g, v->type, q);
        else
            nb_map_set_str(&p->constants, v->name, strlen(v->name), &p->poison);
    }
}
