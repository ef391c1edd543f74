/* Private to the parser: lexer, state, and what the parse*.c files offer each other.
 *
 * Functions that return bool have reported an error when they return false. One statement reports
 * at most one error; the parser then goes on at the next statement, and a name whose statement
 * failed is known as `poison`, so that its uses are not errors of their own. */
#ifndef NB_TEXT_PARSE_H
#define NB_TEXT_PARSE_H

#include "ir/interner.h"
#include "ir/text_private.h"

/* Limits on hostile text. */
#define NB_TEXT_MAX_OPS    (1u << 20)
#define NB_TEXT_MAX_LINE   (16u << 20)
#define NB_TEXT_MAX_LINES  (1u << 30)
#define NB_TEXT_MAX_INLINE (INT64_C(1) << 31) /* bytes of constants that stand in the text */
#define NB_TEXT_MAX_QUANTS 16384
#define NB_TEXT_MAX_DIM    1024 /* bytes of one dimension expression */
#define NB_TEXT_MAX_DIMS   4096 /* different expressions that are not one number or symbol */
#define NB_TEXT_MAX_NEST   64   /* brackets within one dimension expression */
#define NB_TEXT_MAX_DEPTH  64   /* bodies within bodies */

typedef enum nb_token_kind {
    NB_TOKEN_END,
    NB_TOKEN_NEWLINE,
    NB_TOKEN_WORD,   /* name, keyword */
    NB_TOKEN_NUMBER, /* without sign; a raw element has it */
    NB_TOKEN_VALUE,  /* %name */
    NB_TOKEN_CONST,  /* @name */
    NB_TOKEN_QUANT,  /* #name */
    NB_TOKEN_STRING, /* "..." */
    NB_TOKEN_SYMBOL, /* `...` */
    NB_TOKEN_ARROW,  /* -> */
    NB_TOKEN_DOTS,   /* .. */
    NB_TOKEN_PUNCT,  /* one character of ()[]{}:,=+-* */
    NB_TOKEN_BAD     /* `problem` says why */
} nb_token_kind;

typedef struct nb_token {
    nb_token_kind kind;
    int line;
    const char *line_start;
    const char *begin; /* as it stands in the text */
    size_t length;
    const char *text; /* name or string without quotes and escapes; not NUL-terminated */
    size_t size;
    const char *problem;
} nb_token;

typedef struct nb_lexer {
    nb_arena *arena; /* for names with escapes */
    const char *at, *end, *line_start;
    int line;
    bool multiline; /* newlines are white space */
    nb_token token; /* the current one */
} nb_lexer;

nb_lexer nb_lexer_make(nb_arena *arena, const char *text, size_t length);
/* Moves on to the next token. */
void nb_lex(nb_lexer *l);
/* The same where an element stands: numbers with sign, nan, true, 0x... are a NUMBER. */
void nb_lex_element(nb_lexer *l);
/* Moves on to a word of letters, digits, '_', '.' and '-', where the grammar wants one. */
void nb_lex_dashed(nb_lexer *l);
/* Moves on past the current line, to the line that begins the next statement. */
void nb_lex_recover(nb_lexer *l);
/* Moves on past the `{` that ends a header; false when there is none. */
bool nb_lex_skip_header(nb_lexer *l);

static inline bool nb_at_punct(const nb_lexer *l, char c) {
    return l->token.kind == NB_TOKEN_PUNCT && *l->token.begin == c;
}
static inline bool nb_token_is(const nb_token *t, const char *text) {
    return strlen(text) == t->size && memcmp(text, t->text, t->size) == 0;
}
static inline bool nb_at_word(const nb_lexer *l, const char *word) {
    return l->token.kind == NB_TOKEN_WORD && nb_token_is(&l->token, word);
}

/* A quantization that was read, but whose constants may not have been yet. */
typedef struct nb_pending_quant {
    nb_token name, scales, zeros, minima; /* kind CONST when given */
    nb_quant members;
    bool of_codes; /* scales or minima are codes */
    const nb_quant *quant;
} nb_pending_quant;

typedef struct nb_typed_name {
    nb_token name; /* kind END: an output without a name */
    nb_lexer type; /* where its type begins: read once the quantizations are known */
    nb_storage storage;
    const nb_type *known; /* NULL: wrong */
} nb_typed_name;

typedef struct nb_pending_state {
    nb_token at, input, output;
    nb_state state;
} nb_pending_state;

/* A result of the operation that is being read, or a parameter of its body. */
typedef struct nb_parsed_result {
    nb_token name, type_at;
    const nb_type *type; /* NULL: wrong */
    nb_storage storage;
} nb_parsed_result;

typedef struct nb_text_file nb_text_file;

typedef struct nb_parser {
    nb_lexer lex;
    nb_graph *g;
    nb_arena *scratch;
    nb_diags *diags;
    nb_diags *trial; /* what the graph says; repeated with a position */
    const char *name, *base;
    nb_map poisoned[2];    /* names whose statement failed or is to come: values, constants */
    nb_map quants;         /* name -> nb_pending_quant */
    nb_map types, dims;    /* as it stands in the text -> nb_type, nb_dim */
    const char *type_text; /* of the last of those types */
    size_t type_size;      /* 0: there was none */
    const nb_type *type;
    nb_map op_kinds; /* name -> kind + 1 */
    nb_map names;    /* of lists in locations -> number of the location that named them */
    NB_VEC(const char *) listed; /* of the location that is read */
    const char *loc_text;        /* the last location as it stands in the text */
    size_t loc_size;             /* 0: there was none */
    const nb_loc *loc;           /* what it says */
    nb_map files;                /* name -> nb_text_file */
    nb_map output_numbers;       /* name -> number + 1 */
    nb_value poison;
    nb_region *region;                /* where ops go: the graph's body, or one inside */
    int depth;                        /* of that body */
    NB_VEC(nb_parsed_result) results; /* of statements that are being read, inner ones behind */
    bool any_symbol;                  /* unknown symbols are new ones: inputs */
    bool header_failed;               /* unknown values are poison */
    bool declared;                    /* the declarations are over */
    bool ended;                       /* the current statement was read to its end */
    size_t errors_before;             /* in diags, from elsewhere */
    int64_t inline_bytes;
    uint32_t n_ops, n_locs;
    NB_VEC(nb_typed_name) inputs, outputs;
    NB_VEC(nb_pending_quant *) pending_quants;
    NB_VEC(nb_pending_state) states;
    struct nb_coded {
        nb_value *value;
        nb_pending_quant *quant;
    } * coded; /* constants whose type is a quantization's */
    size_t n_coded, coded_capacity;
} nb_parser;

/* ---- errors (parse_error.c): all return false ------------------------------------------------ */

bool nb_parse_error(nb_parser *p, const nb_token *at, const char *fmt, ...) NB_PRINTF(3, 4);
bool nb_parse_limit(nb_parser *p, const nb_token *at, const char *fmt, ...) NB_PRINTF(3, 4);
/* "expected X, found Y" at the current token. */
bool nb_parse_expected(nb_parser *p, const char *what);
/* Repeats what the graph's own check said last, at a position. */
bool nb_parse_trial(nb_parser *p, const nb_token *at);
/* The candidate nearest to a token, as a help line, if one is near. */
void nb_suggest(nb_parser *p, const nb_token *t, const char *const *names, size_t n);
/* Name of a token for messages. */
const char *nb_token_name(nb_parser *p, const nb_token *t);

/* ---- pieces (parse.c) ------------------------------------------------------------------------ */

bool nb_want_punct(nb_parser *p, char c);
bool nb_want_word(nb_parser *p, const char *word);
bool nb_accept_punct(nb_parser *p, char c);
/* An integer with sign, between the bounds. */
bool nb_want_int(nb_parser *p, int64_t min, int64_t max, int64_t *out);
/* The current token's spelling as an integer; false (no error) when it is none or does not fit. */
bool nb_digits(const char *text, size_t length, int64_t *out);
/* The value, or constant, of that name: `poison` when its statement failed, NULL when there was
 * none. */
nb_value *nb_known_value(nb_parser *p, const nb_token *t, bool constant);
void nb_poison_name(nb_parser *p, const nb_token *t, bool constant);
/* A declared constant of that name, `poison`, or NULL after an error. */
nb_value *nb_find_const(nb_parser *p, const nb_token *t);
/* True when the statement ends here. */
bool nb_want_end(nb_parser *p);

/* ---- types (parse_type.c) -------------------------------------------------------------------- */

const nb_type *nb_want_type(nb_parser *p);
/* "[d,d]" of any length up to `max`. */
bool nb_want_dims(nb_parser *p, size_t max, const nb_dim **dims, size_t *count);
/* An attribute's list, in the graph's arena. */
bool nb_want_dim_list(nb_parser *p, const nb_dim *const **items, size_t *count);
bool nb_skip_type(nb_parser *p);
/* `P in 1..512`; the symbol is new. */
bool nb_want_symbol_range(nb_parser *p);

/* ---- declarations (parse_const.c, parse_quant.c, text_blob.c) -------------------------------- */

bool nb_parse_const(nb_parser *p);
bool nb_parse_quant(nb_parser *p);
/* Makes the quantizations and gives coded constants their types. */
void nb_resolve_quants(nb_parser *p);
/* One element of type e, from an element token. */
bool nb_want_element(nb_parser *p, nb_elem e, const nb_token *t, uint64_t *bits);
bool nb_number_form(const char *text, size_t length, bool *integer);
/* The bytes begin..end of a file below the base directory, aligned for elements of type e. */
nb_blob *nb_text_blob(nb_parser *p, const nb_token *file, nb_elem e, int64_t begin, int64_t end);
void nb_text_files_close(nb_parser *p);

/* ---- ops (parse_op.c, parse_loc.c) ----------------------------------------------------------- */

bool nb_parse_op(nb_parser *p);
/* ` do (parameters) { ... }`, from behind `do`; its ops are made, or when an error was in one, not
 * all of them (`whole`). */
bool nb_want_region(nb_parser *p, nb_region **out, bool *whole);
/* `%name: type`, new in the text, behind the results that were read. */
bool nb_want_result(nb_parser *p, size_t first);
/* ` at ... via ...`; NULL when there is neither. */
bool nb_want_loc(nb_parser *p, const nb_loc **loc);
/* ` in slot 1, slot 2` for n values. */
bool nb_want_storage(nb_parser *p, nb_storage *storage, size_t n);

#endif
