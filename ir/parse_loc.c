/* Parsing where a value came from and where it is kept: ` at "/a" + "/b" via x, y in slot 3`. */
#include "ir/text_parse.h"

#include <string.h>

/* The graph's copy of a name, which is the map's key; NULL when this location has it already. Its
 * value is the number of the location that named it last. */
static const char *take_name(nb_parser *p, const nb_token *t) {
    nb_map_entry *entry = nb_map_add_str(&p->names, t->text, t->size);
    if ((uintptr_t)entry->value == p->n_locs) {
        nb_parse_error(p, t, "'%s' stands here twice", (const char *)entry->key);
        return NULL;
    }
    entry->value = (void *)(uintptr_t)p->n_locs;
    return entry->key;
}

/* A list of names; the current token is the keyword. `dashed`: words with '-' may lack quotes. */
static bool want_names(nb_parser *p, bool dashed, char separator, const char *const **names,
                       uint32_t *n) {
    p->n_locs++;
    p->listed.count = 0;
    do {
        if (dashed)
            nb_lex_dashed(&p->lex);
        else
            nb_lex(&p->lex);
        nb_token t = p->lex.token;
        if (t.kind != NB_TOKEN_STRING && !(dashed && t.kind == NB_TOKEN_WORD))
            return nb_parse_expected(p, dashed ? "a pass" : "a node's name in quotes");
        nb_lex(&p->lex);
        /* A node by itself needs no table: it is named once here, and hardly ever again. */
        const bool alone = !dashed && !p->listed.count && !nb_at_punct(&p->lex, separator);
        const char *name = alone ? nb_strndup(p->g->arena, t.text, t.size) : take_name(p, &t);
        if (!name) return false;
        nb_vec_push(p->scratch, &p->listed, name);
    } while (nb_at_punct(&p->lex, separator));
    const size_t bytes = p->listed.count * sizeof(char *);
    *n = (uint32_t)p->listed.count;
    *names = memcpy(nb_alloc(p->g->arena, bytes), p->listed.items, bytes);
    return true;
}

static bool read_loc(nb_parser *p, nb_loc *l) {
    if (nb_at_word(&p->lex, "at") && !want_names(p, false, '+', &l->at, &l->n_at)) return false;
    return !nb_at_word(&p->lex, "via") || want_names(p, true, ',', &l->via, &l->n_via);
}

/* Is the location here spelled as the last one was, up to and with what begins the next token? */
static bool is_last_loc(const nb_parser *p, const char *from) {
    return p->loc_size && (size_t)(p->lex.end - from) >= p->loc_size &&
           memcmp(from, p->loc_text, p->loc_size) == 0;
}

bool nb_want_loc(nb_parser *p, const nb_loc **loc) {
    *loc = NULL;
    if (!nb_at_word(&p->lex, "at") && !nb_at_word(&p->lex, "via")) return true;
    const char *from = p->lex.token.begin;
    if (is_last_loc(p, from)) { /* ops that came of one node stand together */
        *loc = p->loc;
        p->lex.at = from + p->loc_size - 1;
        nb_lex(&p->lex);
        return true;
    }
    nb_loc *l = NB_NEW(p->g->arena, nb_loc);
    if (!read_loc(p, l)) return false;
    *loc = p->loc = l;
    p->loc_text = from;
    const bool ends = p->lex.token.kind == NB_TOKEN_NEWLINE || nb_at_word(&p->lex, "in");
    p->loc_size = ends ? (size_t)(p->lex.token.begin - from) + 1 : 0;
    return true;
}

bool nb_want_storage(nb_parser *p, nb_storage *storage, size_t n) {
    for (size_t i = 0; i < n; i++) storage[i] = (nb_storage){.kind = NB_STORE_NONE};
    if (!nb_at_word(&p->lex, "in")) return true;
    for (size_t i = 0; i < n; i++) {
        if (i && !nb_at_punct(&p->lex, ',')) return nb_parse_expected(p, "',' and a place");
        nb_lex(&p->lex);
        size_t kind = NB_STORE_NONE;
        while (kind <= NB_STORE_REGISTERS && !nb_at_word(&p->lex, nb_storage_names[kind])) kind++;
        if (kind > NB_STORE_REGISTERS)
            return nb_parse_expected(p, "none, slot, input, output, state, weight or registers");
        storage[i].kind = (nb_storage_kind)kind;
        nb_lex(&p->lex);
        bool number = p->lex.token.kind == NB_TOKEN_NUMBER;
        if (kind == NB_STORE_NONE || kind == NB_STORE_REGISTERS ||
            (kind == NB_STORE_WEIGHT && !number))
            continue;
        int64_t index;
        if (!nb_want_int(p, 0, UINT32_MAX, &index)) return false;
        storage[i].index = (uint32_t)index;
    }
    return true;
}
