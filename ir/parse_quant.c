/* Parsing quantization descriptors.
 *
 * A descriptor stands in front of the constants that hold its scales, and constants of codes stand
 * behind it. So a line is read into a pending descriptor, constants of codes first get the plain
 * type of their storage, and once all declarations are read the descriptors are made and those
 * constants typed. */
#include "ir/text_parse.h"

#include <math.h>

/* Of a scale or a minimum: finite and not 0. */
static bool want_number(nb_parser *p, float *out, const char *what) {
    const bool minus = nb_accept_punct(p, '-');
    nb_token t = p->lex.token;
    bool integer;
    if (t.kind != NB_TOKEN_NUMBER || !nb_number_form(t.begin, t.length, &integer))
        return nb_parse_expected(p, "a number or a constant");
    *out = nb_f32_read(minus ? t.begin - 1 : t.begin, t.length + minus);
    if (!nb_is_scale(*out)) return nb_parse_error(p, &t, "the %s is 0 or not finite", what);
    nb_lex(&p->lex);
    return true;
}

static bool want_scale(nb_parser *p, nb_pending_quant *q) {
    if (!nb_want_word(p, "scale")) return false;
    if (p->lex.token.kind == NB_TOKEN_CONST) {
        q->scales = p->lex.token;
        nb_lex(&p->lex);
        q->members.scale = 1;
        if (nb_at_word(&p->lex, "times")) {
            nb_lex(&p->lex);
            if (!want_number(p, &q->members.scale, "scale")) return false;
        }
    } else if (!want_number(p, &q->members.scale, "scale")) {
        return false;
    }
    return true;
}

/* [zero ...] [min ...] */
static bool want_offsets(nb_parser *p, nb_pending_quant *q) {
    nb_quant *m = &q->members;
    if (nb_at_word(&p->lex, "zero")) {
        nb_lex(&p->lex);
        if (p->lex.token.kind == NB_TOKEN_CONST) {
            q->zeros = p->lex.token;
            nb_lex(&p->lex);
        } else if (!nb_want_int(p, nb_quant_min(m), nb_quant_max(m), &m->zero)) {
            return false;
        }
    }
    if (!nb_at_word(&p->lex, "min")) return true;
    nb_lex(&p->lex);
    if (p->lex.token.kind != NB_TOKEN_CONST) return want_number(p, &m->minimum, "minimum");
    q->minima = p->lex.token;
    nb_lex(&p->lex);
    return true;
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
    if (!want_scale(p, q) || !want_offsets(p, q)) return false;
    if (m->granularity != NB_PER_TENSOR && q->scales.kind != NB_TOKEN_CONST)
        return nb_parse_error(p, &at, "scales along an axis are a constant");
    if (q->zeros.kind == NB_TOKEN_CONST && q->scales.kind != NB_TOKEN_CONST)
        return nb_parse_error(p, &q->zeros, "a constant of zero points needs a constant of scales");
    if (q->minima.kind == NB_TOKEN_CONST && q->scales.kind != NB_TOKEN_CONST)
        return nb_parse_error(p, &q->minima, "a constant of minima needs a constant of scales");
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
    if (storage == NB_ELEM_COUNT || !(nb_elem_is_integer(storage) || nb_elem_is_code(storage)))
        return nb_parse_expected(p, "an integer or a small float type");
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
    const nb_value *v = q->quant->scales;
    int64_t count = 0;
    if (v) (void)nb_type_static_count(v->type, &count);
    for (int64_t i = 0; i < count; i++) {
        const float scale = nb_quant_scale(q->quant, i), minimum = nb_quant_minimum(q->quant, i);
        if (!nb_quant_takes_scale(q->quant, scale))
            return nb_parse_error(p, &q->scales,
                                  "scale %lld of '@%s' is %g, and must be finite and not 0",
                                  (long long)i, v->name, (double)scale);
        if (!isfinite(minimum))
            return nb_parse_error(p, &q->minima, "minimum %lld of '@%s' is not finite",
                                  (long long)i, q->quant->minima->name);
    }
    return true;
}

static nb_value *find(nb_parser *p, const nb_token *name) {
    return name->kind == NB_TOKEN_CONST ? nb_find_const(p, name) : NULL;
}

static void resolve(nb_parser *p, nb_pending_quant *q) {
    nb_quant *m = &q->members;
    const nb_token *tokens[] = {&q->scales, &q->zeros, &q->minima};
    nb_value **parts[] = {&m->scales, &m->zeros, &m->minima};
    for (size_t i = 0; i < NB_COUNT(parts); i++) {
        *parts[i] = find(p, tokens[i]);
        if (*parts[i] == &p->poison || (!*parts[i] && tokens[i]->kind == NB_TOKEN_CONST)) return;
    }
    const char *name = nb_token_name(p, &q->name);
    q->quant = nb_quant_intern(p->g, m, name, p->trial);
    if (!q->quant) {
        nb_parse_trial(p, &q->name);
    } else if (strcmp(q->quant->name, name) != 0) {
        nb_parse_error(p, &q->name, "'#%s' is the same as '#%s'", name, q->quant->name);
        q->quant = NULL;
    } else if (!check_scales(p, q)) {
        q->quant = NULL;
    }
}

/* Is this the name of a constant of codes? */
static bool names_codes(const nb_token *name, const nb_map *coded) {
    return name->kind == NB_TOKEN_CONST && nb_map_get_str(coded, name->text, name->size);
}

/* Constants whose descriptors are known by now, or not to be had, get their types. */
static void type_codes(nb_parser *p, bool plain) {
    for (size_t i = 0; i < p->n_coded; i++) {
        nb_value *v = p->coded[i].value;
        const nb_pending_quant *q = p->coded[i].quant;
        if (q->of_codes == plain) continue;
        if (q->quant)
            v->type = nb_type_with_quant(p->g, v->type, q->quant);
        else
            nb_poison_name(p, &(nb_token){.text = v->name, .size = strlen(v->name)}, true);
    }
}

/* First the descriptors with plain scales, then those whose scales are codes of the first: deeper
 * they do not go, and scales that are not typed yet are refused as such. */
void nb_resolve_quants(nb_parser *p) {
    nb_map coded = {.arena = p->scratch};
    for (size_t i = 0; i < p->n_coded; i++) {
        nb_value *v = p->coded[i].value;
        nb_map_set_str(&coded, v->name, strlen(v->name), v);
    }
    for (size_t i = 0; i < p->pending_quants.count; i++) {
        nb_pending_quant *q = p->pending_quants.items[i];
        q->of_codes = names_codes(&q->scales, &coded) || names_codes(&q->minima, &coded);
    }
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < p->pending_quants.count; i++) {
            nb_pending_quant *q = p->pending_quants.items[i];
            if (q->of_codes == (round == 1)) resolve(p, q);
        }
        type_codes(p, round == 0);
    }
    size_t n = 0; /* the order of the list is that of the text */
    for (size_t i = 0; i < p->pending_quants.count; i++) {
        const nb_quant *q = p->pending_quants.items[i]->quant;
        if (q) p->g->quants.items[n++] = q;
    }
    p->g->quants.count = n;
}
