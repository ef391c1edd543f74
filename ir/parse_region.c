/* Parsing bodies of ops: ` do (%i: i64[], %h: f32[B,4]) {`, operations, `}`. */
#include "ir/text_parse.h"

/* The parameters become values of the body. */
static bool want_params(nb_parser *p, nb_region *region) {
    const size_t first = p->results.count;
    bool ok = nb_want_punct(p, '(');
    while (ok && !nb_at_punct(&p->lex, ')')) {
        if (p->results.count > first) ok = nb_want_punct(p, ',');
        if (ok && p->lex.token.kind != NB_TOKEN_VALUE) ok = nb_parse_expected(p, "%name");
        nb_storage place = {NB_STORE_NONE, 0};
        ok = ok && nb_want_result(p, first) && nb_want_storage(p, &place, 1);
        if (ok) p->results.items[p->results.count - 1].storage = place;
    }
    for (size_t i = first; i < p->results.count; i++) {
        const nb_parsed_result *r = &p->results.items[i];
        if (r->type)
            nb_region_add(region, nb_token_name(p, &r->name), r->type)->storage = r->storage;
        else
            nb_poison_name(p, &r->name, false);
    }
    p->results.count = first;
    return ok && nb_want_punct(p, ')');
}

/* Statements up to the brace; each may fail by itself. */
static bool want_ops(nb_parser *p) {
    bool ok = true;
    while (!nb_at_punct(&p->lex, '}') && p->lex.token.kind != NB_TOKEN_END) {
        if (p->lex.token.kind == NB_TOKEN_NEWLINE) {
            nb_lex(&p->lex);
            continue;
        }
        p->ended = false;
        if (!nb_parse_op(p)) {
            ok = false;
            if (!p->ended) nb_lex_recover(&p->lex);
        }
        if (p->diags->errors - p->errors_before >= NB_DIAGS_CAP) return false;
    }
    return ok;
}

bool nb_want_region(nb_parser *p, nb_region **out, bool *whole) {
    const nb_token t = p->lex.token;
    if (p->depth == NB_TEXT_MAX_DEPTH)
        return nb_parse_limit(p, &t, "more than %d bodies within each other", NB_TEXT_MAX_DEPTH);
    nb_region *outer = p->region, *region = nb_region_create(p->g);
    *out = region;
    if (!want_params(p, region) || !nb_want_punct(p, '{') || !nb_want_end(p)) return false;
    p->region = region;
    p->depth++;
    *whole = want_ops(p);
    p->region = outer;
    p->depth--;
    if (p->lex.token.kind == NB_TOKEN_END) return nb_parse_expected(p, "'}'");
    return nb_want_punct(p, '}');
}
