/* The lexer of the text form. Comments run from `;` to the end of the line. A token never spans
 * lines. Names point into the text unless they hold escapes. */
#include "ir/text_parse.h"

nb_lexer nb_lexer_make(nb_arena *arena, const char *text, size_t length) {
    return (nb_lexer){
        .arena = arena, .at = text, .end = text + length, .line_start = text, .line = 1};
}

static void begin(nb_lexer *l, nb_token_kind kind) {
    l->token = (nb_token){
        .kind = kind, .line = l->line, .line_start = l->line_start, .begin = l->at, .text = l->at};
}

static void finish(nb_lexer *l) {
    l->token.length = (size_t)(l->at - l->token.begin);
    if (l->token.text == l->token.begin) l->token.size = l->token.length;
}

static void bad(nb_lexer *l, const char *problem) {
    l->token.kind = NB_TOKEN_BAD;
    l->token.problem = problem;
    finish(l);
}

/* To the newline that ends the line, or the end. */
static void to_line_end(nb_lexer *l) {
    const char *newline = memchr(l->at, '\n', (size_t)(l->end - l->at));
    l->at = newline ? newline : l->end;
}

static void pass_newline(nb_lexer *l) {
    l->line_start = ++l->at;
    l->line++;
}

/* Spaces, comments and, where they mean nothing, newlines. */
static void skip_space(nb_lexer *l, bool multiline) {
    while (l->at < l->end) {
        char c = *l->at;
        if (c == ' ' || c == '\t' || c == '\r')
            l->at++;
        else if (c == ';')
            to_line_end(l);
        else if (c == '\n' && multiline)
            pass_newline(l);
        else
            return;
    }
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Resolves the escapes of [from, to); NULL when one is wrong. */
static const char *unescape(nb_lexer *l, const char *from, const char *to, size_t *size) {
    char *out = nb_alloc(l->arena, (size_t)(to - from) + 1), *o = out;
    while (from < to) {
        if (*from != '\\') {
            *o++ = *from++;
            continue;
        }
        if (to - from >= 2 && (from[1] == '"' || from[1] == '\\')) {
            *o++ = from[1];
            from += 2;
            continue;
        }
        int high = to - from >= 4 && from[1] == 'x' ? hex_digit(from[2]) : -1;
        int low = high >= 0 ? hex_digit(from[3]) : -1;
        if (low < 0 || high * 16 + low == 0) return NULL;
        *o++ = (char)(high * 16 + low);
        from += 4;
    }
    *size = (size_t)(o - out);
    return out;
}

/* A byte in all eight places of a word; not 0 when a byte of the word is 0 (Warren, Hacker's
 * Delight, 6-1). */
#define EIGHT(byte) (UINT64_C(0x0101010101010101) * (unsigned char)(byte))
static uint64_t zero_bytes(uint64_t word) { return (word - EIGHT(1)) & ~word & EIGHT(0x80); }

/* Passes eights of bytes in which no string ends and no escape begins. */
static void pass_plain(nb_lexer *l, char quote) {
    while (l->end - l->at >= 8) {
        uint64_t word;
        memcpy(&word, l->at, sizeof word);
        const uint64_t below_space = zero_bytes(word & EIGHT(0xe0)); /* newline and NUL are */
        if (below_space | zero_bytes(word ^ EIGHT(quote)) | zero_bytes(word ^ EIGHT('\\'))) return;
        l->at += 8;
    }
}

/* A string up to the closing quote; l->at stands on the opening one. */
static void quoted(nb_lexer *l, char quote) {
    const char *from = ++l->at;
    bool escapes = false;
    pass_plain(l, quote);
    for (; l->at < l->end && *l->at != quote; l->at++) {
        if (*l->at == '\n' || *l->at == '\0') break;
        if (*l->at != '\\') continue;
        escapes = true;
        if (l->at + 1 < l->end && l->at[1] != '\n') l->at++;
    }
    if (l->at == l->end || *l->at != quote) {
        bad(l, "the closing quote is missing");
        return;
    }
    l->token.text = from;
    l->token.size = (size_t)(l->at - from);
    if (escapes) {
        l->token.text = unescape(l, from, l->at, &l->token.size);
        if (!l->token.text) {
            l->token.text = from;
            l->at++;
            bad(l, "an escape is none of \\\" \\\\ \\x01..\\xff");
            return;
        }
    }
    l->at++;
    finish(l);
}

/* %name, @name, #name. */
static void sigil(nb_lexer *l, nb_token_kind kind) {
    begin(l, kind);
    l->at++;
    if (l->at < l->end && *l->at == '"') {
        quoted(l, '"');
        return;
    }
    l->token.text = l->at;
    if (l->at < l->end && nb_name_start(*l->at))
        while (l->at < l->end && nb_name_char(*l->at)) l->at++;
    l->token.size = (size_t)(l->at - l->token.text);
    if (l->token.size)
        finish(l);
    else
        bad(l, "a name is missing; names that are not [A-Za-z_][A-Za-z0-9_.]* stand in quotes");
}

static bool is_digit(const nb_lexer *l, size_t ahead) {
    return (size_t)(l->end - l->at) > ahead && l->at[ahead] >= '0' && l->at[ahead] <= '9';
}

/* D[.D][e[+-]D]; `1..2` is two numbers. */
static void number(nb_lexer *l) {
    begin(l, NB_TOKEN_NUMBER);
    while (is_digit(l, 0)) l->at++;
    if (l->at < l->end && *l->at == '.' && is_digit(l, 1)) {
        l->at++;
        while (is_digit(l, 0)) l->at++;
    }
    if (l->at < l->end && (*l->at == 'e' || *l->at == 'E')) {
        size_t sign = l->end - l->at > 1 && (l->at[1] == '+' || l->at[1] == '-') ? 1 : 0;
        if (is_digit(l, 1 + sign)) {
            l->at += 1 + sign;
            while (is_digit(l, 0)) l->at++;
        }
    }
    finish(l);
    if (l->token.length > NB_NUMBER_MAX) bad(l, "the number is too long");
}

static void punctuation(nb_lexer *l) {
    char c = *l->at, next = l->end - l->at > 1 ? l->at[1] : '\0';
    begin(l, NB_TOKEN_PUNCT);
    if ((c == '-' && next == '>') || (c == '.' && next == '.')) {
        l->token.kind = c == '-' ? NB_TOKEN_ARROW : NB_TOKEN_DOTS;
        l->at += 2;
        finish(l);
        return;
    }
    l->at++;
    finish(l);
    if (!c || !strchr("()[]{}:,=+-*", c)) bad(l, "this character means nothing here");
}

void nb_lex(nb_lexer *l) {
    skip_space(l, l->multiline);
    if (l->at == l->end) {
        begin(l, NB_TOKEN_END);
        finish(l);
        return;
    }
    char c = *l->at;
    if (c == '\n') {
        begin(l, NB_TOKEN_NEWLINE);
        pass_newline(l);
        l->token.length = 1;
    } else if (nb_name_start(c)) {
        begin(l, NB_TOKEN_WORD);
        while (l->at < l->end && nb_name_char(*l->at)) l->at++;
        finish(l);
    } else if (c >= '0' && c <= '9') {
        number(l);
    } else if (c == '%') {
        sigil(l, NB_TOKEN_VALUE);
    } else if (c == '@') {
        sigil(l, NB_TOKEN_CONST);
    } else if (c == '#') {
        sigil(l, NB_TOKEN_QUANT);
    } else if (c == '"' || c == '`') {
        begin(l, c == '"' ? NB_TOKEN_STRING : NB_TOKEN_SYMBOL);
        quoted(l, c);
    } else {
        punctuation(l);
    }
}

void nb_lex_element(nb_lexer *l) {
    skip_space(l, l->multiline);
    begin(l, NB_TOKEN_NUMBER);
    while (l->at < l->end && (nb_name_char(*l->at) || *l->at == '-' || *l->at == '+')) l->at++;
    finish(l);
    if (l->token.length == 0) nb_lex(l);
}

void nb_lex_dashed(nb_lexer *l) {
    skip_space(l, false);
    if (l->at == l->end || !nb_name_start(*l->at)) {
        nb_lex(l);
        return;
    }
    begin(l, NB_TOKEN_WORD);
    while (l->at < l->end && (nb_name_char(*l->at) || *l->at == '-')) l->at++;
    finish(l);
}

/* ---- after an error -------------------------------------------------------------------------- */

static bool begins_statement(nb_lexer *l) {
    static const char *const words[] = {"const", "quant", "state", "stage", "return"};
    skip_space(l, false);
    if (l->at == l->end || *l->at == '%' || *l->at == '}') return true;
    const char *from = l->at;
    size_t n = 0;
    while (from + n < l->end && nb_name_char(from[n])) n++;
    for (size_t i = 0; i < NB_COUNT(words); i++)
        if (strlen(words[i]) == n && memcmp(words[i], from, n) == 0) return true;
    return false;
}

void nb_lex_recover(nb_lexer *l) {
    l->multiline = false;
    if (l->token.kind != NB_TOKEN_NEWLINE) to_line_end(l); /* else that line is behind us */
    if (l->at < l->end && *l->at == '\n' && l->token.kind != NB_TOKEN_NEWLINE) pass_newline(l);
    while (!begins_statement(l)) {
        to_line_end(l);
        if (l->at < l->end) pass_newline(l);
    }
    nb_lex(l);
}

bool nb_lex_skip_header(nb_lexer *l) {
    l->multiline = false;
    for (char last = '\0'; l->at < l->end;) {
        if (*l->at == '\n' && last == '{') {
            nb_lex(l);
            return true;
        }
        if (*l->at == '\n') {
            pass_newline(l);
        } else if (*l->at == ';') {
            to_line_end(l);
        } else {
            if (*l->at != ' ' && *l->at != '\r') last = *l->at;
            l->at++;
        }
    }
    return false;
}
