/* Parsing constants: their elements as a list, or splat, random, and parts of a file. */
#include "ir/minifloat.h"
#include "ir/text_parse.h"

#include <math.h>

/* ---- elements -------------------------------------------------------------------------------- */

bool nb_number_form(const char *s, size_t length, bool *integer) {
    const char *end = s + length;
    *integer = true;
    if (length > NB_NUMBER_MAX) return false;
    if (s < end && *s == '-') s++;
    const char *digits = s;
    while (s < end && *s >= '0' && *s <= '9') s++;
    if (s == digits) return false;
    if (s < end && *s == '.') {
        *integer = false;
        digits = ++s;
        while (s < end && *s >= '0' && *s <= '9') s++;
        if (s == digits) return false;
    }
    if (s < end && (*s == 'e' || *s == 'E')) {
        *integer = false;
        s++;
        if (s < end && (*s == '-' || *s == '+')) s++;
        digits = s;
        while (s < end && *s >= '0' && *s <= '9') s++;
        if (s == digits) return false;
    }
    return s == end;
}

/* 0x..., at most as wide as the element. */
static bool read_hex(nb_parser *p, nb_elem e, const nb_token *t, uint64_t *bits) {
    *bits = 0;
    bool ok = t->length > 2 && t->length <= 18;
    for (size_t i = 2; i < t->length && ok; i++) {
        char c = t->begin[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        ok = digit >= 0;
        *bits = *bits << 4 | (uint64_t)(digit & 15);
    }
    int width = nb_elems[e].bits;
    if (!ok || (width < 64 && *bits >> width))
        return nb_parse_error(p, t, "expected the bits of one %s", nb_elems[e].text);
    return true;
}

static bool out_of_range(nb_parser *p, nb_elem e, const nb_token *t) {
    int shown = (int)nb_min_i64((int64_t)t->length, 40);
    if (nb_elem_is_float(e))
        return nb_parse_error(p, t, "%.*s is out of range for %s", shown, t->begin,
                              nb_elems[e].text);
    if (e == NB_U64) return nb_parse_error(p, t, "%.*s is out of range for u64", shown, t->begin);
    return nb_parse_error(p, t, "%.*s is out of range for %s (%lld..%lld)", shown, t->begin,
                          nb_elems[e].text, (long long)nb_elem_min(e), (long long)nb_elem_max(e));
}

static bool read_float(nb_parser *p, nb_elem e, const nb_token *t, uint64_t *bits) {
    bool integer, nan = nb_token_is(t, "nan"), minus = nb_token_is(t, "-inf");
    bool infinite = minus || nb_token_is(t, "inf");
    if (!nan && !infinite && !nb_number_form(t->begin, t->length, &integer))
        return nb_parse_error(p, t, "expected a number of type %s", nb_elems[e].text);
    double special = nan ? (double)NAN : minus ? -INFINITY : INFINITY;
    if (e == NB_F64) {
        double d = nan || infinite ? special : nb_f64_read(t->begin, t->length);
        if (!infinite && isinf(d)) return out_of_range(p, e, t);
        memcpy(bits, &d, sizeof d);
        if (nan) *bits = UINT64_C(0x7ff8000000000000);
        return true;
    }
    float f = nan || infinite ? (float)special : nb_f32_read(t->begin, t->length);
    uint32_t low;
    memcpy(&low, &f, sizeof low);
    if (nan) low = 0x7fc00000;
    if (e != NB_F32) {
        memcpy(&f, &low, sizeof f);
        low = nb_float_encode(e, f);
        bool kept = isfinite(f) ? isfinite(nb_float_decode(e, low)) : true;
        if (!kept) return out_of_range(p, e, t);
    }
    *bits = low;
    return (infinite || !isinf(f)) ? true : out_of_range(p, e, t);
}

static bool read_integer(nb_parser *p, nb_elem e, const nb_token *t, uint64_t *bits) {
    const char *s = t->begin, *end = s + t->length;
    bool minus = s < end && *s == '-';
    uint64_t u = 0;
    if (minus) s++;
    if (s == end) return nb_parse_error(p, t, "expected an integer");
    for (; s < end; s++) {
        if (*s < '0' || *s > '9') return nb_parse_error(p, t, "expected an integer");
        if (u > (UINT64_MAX - (uint64_t)(*s - '0')) / 10) return out_of_range(p, e, t);
        u = u * 10 + (uint64_t)(*s - '0');
    }
    uint64_t most = minus         ? 0 - (uint64_t)nb_elem_min(e)
                    : e == NB_U64 ? UINT64_MAX
                                  : (uint64_t)nb_elem_max(e);
    if (u > most) return out_of_range(p, e, t);
    *bits = minus ? 0 - u : u;
    return true;
}

bool nb_want_element(nb_parser *p, nb_elem e, const nb_token *t, uint64_t *bits) {
    if (t->kind != NB_TOKEN_NUMBER) {
        p->lex.token = *t;
        return nb_parse_expected(p, "a number");
    }
    bool integer = nb_elem_is_integer(e);
    if (!integer && t->length > 2 && t->begin[0] == '0' && t->begin[1] == 'x')
        return read_hex(p, e, t, bits);
    if (integer) return read_integer(p, e, t, bits);
    if (nb_elem_is_float(e)) return read_float(p, e, t, bits);
    *bits = nb_token_is(t, "true");
    return *bits || nb_token_is(t, "false") ? true : nb_parse_error(p, t, "expected true or false");
}

/* ---- data ------------------------------------------------------------------------------------ */

/* An owned blob for the constant; counted against what a text may hold. */
static nb_blob *allocate(nb_parser *p, const nb_token *at, int64_t bytes, void **data) {
    if (bytes > NB_TEXT_MAX_INLINE - p->inline_bytes) {
        nb_parse_limit(p, at, "the constants in this text are larger than %lld bytes",
                       (long long)NB_TEXT_MAX_INLINE);
        return NULL;
    }
    p->inline_bytes += bytes;
    nb_blob *blob = nb_blob_create(bytes, data);
    if (!blob) {
        nb_parse_limit(p, at, "out of memory for %lld bytes", (long long)bytes);
        return NULL;
    }
    memset(*data, 0, (size_t)bytes);
    return blob;
}

/* {1, 2, 3}; the current token is the brace. */
static bool read_list(nb_parser *p, nb_elem e, int64_t count, void *data) {
    int64_t n = 0;
    p->lex.multiline = true;
    nb_lex_element(&p->lex);
    bool more = !nb_at_punct(&p->lex, '}');
    while (more) {
        uint64_t bits;
        nb_token t = p->lex.token;
        if (n == count && t.kind == NB_TOKEN_NUMBER)
            return nb_parse_error(p, &t, "more than the %lld elements of the type",
                                  (long long)count);
        if (!nb_want_element(p, e, &t, &bits)) return false;
        nb_elem_put(e, data, n++, bits);
        nb_lex_element(&p->lex);
        more = nb_at_punct(&p->lex, ',');
        if (more)
            nb_lex_element(&p->lex);
        else if (!nb_at_punct(&p->lex, '}'))
            return nb_parse_expected(p, "',' or '}'");
    }
    if (n < count)
        return nb_parse_error(p, &p->lex.token, "%lld elements, the type has %lld", (long long)n,
                              (long long)count);
    p->lex.multiline = false;
    nb_lex(&p->lex);
    return true;
}

/* SplitMix64 (Steele, Lea and Flood, 2014). */
static uint64_t next_random(uint64_t *state) {
    uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* A bound of random(): any number, as double. */
static bool want_bound(nb_parser *p, double *out) {
    bool integer, minus = nb_accept_punct(p, '-');
    nb_token t = p->lex.token;
    if (t.kind != NB_TOKEN_NUMBER || !nb_number_form(t.begin, t.length, &integer))
        return nb_parse_expected(p, "a number");
    *out = nb_f64_read(t.begin, t.length);
    if (minus) *out = -*out;
    if (!(fabs(*out) <= 0x1p62)) return nb_parse_error(p, &t, "a bound is below 2^62");
    nb_lex(&p->lex);
    return true;
}

/* (seed, lo..hi): floats lo + (hi-lo)*u with u of 53 bits, in double, rounded to the element;
 * integers lo + bits modulo (hi-lo+1). */
static bool read_random(nb_parser *p, nb_elem e, int64_t count, void *data) {
    int64_t seed;
    double lo, hi;
    nb_token at = p->lex.token;
    nb_lex(&p->lex);
    if (!nb_want_punct(p, '(') || !nb_want_int(p, 0, INT64_MAX, &seed) || !nb_want_punct(p, ','))
        return false;
    nb_token bounds = p->lex.token;
    if (!want_bound(p, &lo)) return false;
    if (p->lex.token.kind != NB_TOKEN_DOTS) return nb_parse_expected(p, "'..'");
    nb_lex(&p->lex);
    if (!want_bound(p, &hi) || !nb_want_punct(p, ')')) return false;
    if (hi < lo) return nb_parse_error(p, &bounds, "the range is empty");
    if (nb_elems[e].class_ == NB_CLASS_BOOL) return nb_parse_error(p, &at, "random gives numbers");
    bool is_float = nb_elem_is_float(e);
    if (!is_float) {
        double most = e == NB_U64 ? 0x1p62 : (double)nb_elem_max(e);
        if (lo != rint(lo) || hi != rint(hi) || lo < (double)nb_elem_min(e) || hi > most)
            return nb_parse_error(p, &bounds, "the bounds are not integers of type %s",
                                  nb_elems[e].text);
    }
    uint64_t state = (uint64_t)seed;
    for (int64_t i = 0; i < count; i++) {
        uint64_t r = next_random(&state), bits = 0;
        if (!is_float) {
            bits = (uint64_t)(int64_t)lo + r % ((uint64_t)((int64_t)hi - (int64_t)lo) + 1);
        } else {
            double d = lo + (hi - lo) * ((double)(r >> 11) * 0x1p-53);
            float f = (float)d;
            if (e == NB_F64)
                memcpy(&bits, &d, sizeof d);
            else if (e == NB_F32)
                memcpy(&bits, &f, sizeof f);
            else
                bits = nb_float_encode(e, f);
        }
        nb_elem_put(e, data, i, bits);
    }
    return true;
}

/* `blob "file"[a..b] hash h` */
static bool read_blob(nb_parser *p, nb_elem e, int64_t bytes, nb_blob **blob) {
    int64_t from, to;
    nb_lex(&p->lex);
    nb_token file = p->lex.token;
    if (file.kind != NB_TOKEN_STRING) return nb_parse_expected(p, "a file name in quotes");
    nb_lex(&p->lex);
    nb_token range = p->lex.token;
    if (!nb_want_punct(p, '[') || !nb_want_int(p, 0, INT64_MAX, &from)) return false;
    if (p->lex.token.kind != NB_TOKEN_DOTS) return nb_parse_expected(p, "'..'");
    nb_lex(&p->lex);
    if (!nb_want_int(p, from, INT64_MAX, &to) || !nb_want_punct(p, ']')) return false;
    if (!nb_at_word(&p->lex, "hash")) return nb_parse_expected(p, "hash");
    nb_lex_element(&p->lex);
    nb_token t = p->lex.token;
    uint64_t hash = 0;
    bool ok = t.length == 16;
    for (size_t i = 0; i < t.length && ok; i++) {
        char c = t.begin[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        ok = digit >= 0;
        hash = hash << 4 | (uint64_t)(digit & 15);
    }
    if (!ok) return nb_parse_expected(p, "a hash of 16 hexadecimal digits");
    if (to - from != bytes)
        return nb_parse_error(p, &range, "%lld bytes, the type has %lld", (long long)(to - from),
                              (long long)bytes);
    *blob = nb_text_blob(p, &file, e, from, to);
    if (!*blob) return false;
    uint64_t found = nb_blob_hash(*blob);
    if (found != hash) {
        nb_blob_release(*blob);
        return nb_parse_error(p, &t, "the bytes have hash %016llx", (unsigned long long)found);
    }
    nb_lex(&p->lex);
    return true;
}

static bool read_splat(nb_parser *p, nb_elem e, int64_t count, void *data) {
    uint64_t bits;
    nb_lex_element(&p->lex);
    nb_token t = p->lex.token;
    if (!nb_want_element(p, e, &t, &bits)) return false;
    size_t size = (size_t)nb_elems[e].bits / 8, total = size * (size_t)count;
    for (int64_t i = 0; i < (size ? nb_min_i64(count, 1) : count); i++)
        nb_elem_put(e, data, i, bits);
    for (size_t done = size; done && done < total; done *= 2) /* doubles what is there */
        memcpy((char *)data + done, data, done < total - done ? done : total - done);
    nb_lex(&p->lex);
    return true;
}

static bool read_data(nb_parser *p, const nb_type *type, nb_blob **blob) {
    nb_token t = p->lex.token;
    int64_t count, bytes;
    if (!nb_type_static_count(type, &count) || !nb_elem_bytes_of(type->elem, count, &bytes))
        return nb_parse_error(p, &t, "a constant's shape is made of numbers, and not too large");
    bool list = nb_at_punct(&p->lex, '{');
    if (!list && t.kind != NB_TOKEN_WORD)
        return nb_parse_expected(p, "{elements}, splat, random or blob");
    if (nb_at_word(&p->lex, "elided"))
        return nb_parse_error(p, &t, "the data was left out when this text was printed");
    if (nb_at_word(&p->lex, "blob")) return read_blob(p, type->elem, bytes, blob);
    bool splat = nb_at_word(&p->lex, "splat"), random = nb_at_word(&p->lex, "random");
    if (!list && !splat && !random)
        return nb_parse_expected(p, "{elements}, splat, random or blob");
    /* An element takes two characters or more: a text that is too short asks for no memory. */
    if (list && count > (p->lex.end - t.begin) / 2 + 1)
        return nb_parse_error(p, &t, "fewer elements than the %lld of the type", (long long)count);
    void *data;
    *blob = allocate(p, &t, bytes, &data);
    if (!*blob) return false;
    bool ok = list    ? read_list(p, type->elem, count, data)
              : splat ? read_splat(p, type->elem, count, data)
                      : read_random(p, type->elem, count, data);
    if (!ok) nb_blob_release(*blob);
    return ok;
}

static void remember_codes(nb_parser *p, nb_value *v, nb_pending_quant *q) {
    if (p->n_coded == p->coded_capacity)
        p->coded = nb_vec_grow(p->scratch, p->coded, sizeof *p->coded, &p->coded_capacity);
    p->coded[p->n_coded++] = (struct nb_coded){v, q};
}

/* `: type = data [at ...] [in ...]` of the constant. */
static bool read_const(nb_parser *p, const nb_token *name) {
    if (!nb_want_punct(p, ':')) return false;
    nb_token at = p->lex.token;
    const nb_type *type = nb_want_type(p);
    nb_blob *blob = NULL;
    if (!type || !nb_want_punct(p, '=') || !read_data(p, type, &blob)) return false;
    const nb_loc *loc;
    nb_storage storage;
    if (!nb_want_loc(p, &loc) || !nb_want_storage(p, &storage, 1) || !nb_want_end(p)) {
        nb_blob_release(blob);
        return false;
    }
    nb_value *v = nb_graph_add_const_named(p->g, name->text, name->size, type, blob, loc);
    v->storage = storage;
    if (at.kind == NB_TOKEN_QUANT)
        remember_codes(p, v, nb_map_get_str(&p->quants, at.text, at.size));
    return true;
}

/* const @name: type = data [at ...] [in ...] */
bool nb_parse_const(nb_parser *p) {
    nb_lex(&p->lex);
    nb_token name = p->lex.token;
    if (name.kind != NB_TOKEN_CONST) return nb_parse_expected(p, "@name");
    if (nb_known_value(p, &name, true))
        return nb_parse_error(p, &name, "'@%s' is declared twice", nb_token_name(p, &name));
    nb_lex(&p->lex);
    const bool ok = read_const(p, &name);
    if (!ok) nb_poison_name(p, &name, true);
    return ok;
}
