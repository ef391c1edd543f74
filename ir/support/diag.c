/* Recording and rendering of diagnostics. What is recorded is as it came; only rendering escapes,
 * so that a message can also be compared or written as JSON. */
#include "ir/support/diag.h"

#include <string.h>

nb_diags *nb_diags_create(nb_arena *arena, const char *file) {
    nb_diags *diags = NB_NEW(arena, nb_diags);
    diags->arena = arena;
    diags->file = file == NULL ? NULL : nb_strdup(arena, file);
    return diags;
}

static const char *copy(nb_arena *arena, const char *text) {
    return text == NULL ? NULL : nb_strdup(arena, text);
}

static void record(nb_diags *diags, nb_severity severity, nb_status status, nb_where where,
                   const char *fmt, va_list args) {
    size_t *count = severity == NB_ERROR ? &diags->errors : &diags->warnings;
    diags->last = NULL;
    if ((*count)++ >= NB_DIAGS_CAP) {
        diags->dropped++;
        return;
    }
    nb_diag *diag = NB_NEW(diags->arena, nb_diag);
    diag->severity = severity;
    diag->status = status;
    diag->where = where;
    diag->where.file = where.file == NULL ? diags->file : nb_strdup(diags->arena, where.file);
    diag->where.node = copy(diags->arena, where.node);
    diag->where.snippet = copy(diags->arena, where.snippet);
    diag->message = nb_vformat(diags->arena, fmt, args);
    nb_vec_push(diags->arena, &diags->list, diag);
    diags->last = diag;
}

nb_status nb_error(nb_diags *diags, nb_status status, nb_where where, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    record(diags, NB_ERROR, status, where, fmt, args);
    va_end(args);
    return status;
}

void nb_warn(nb_diags *diags, nb_where where, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    record(diags, NB_WARNING, NB_OK, where, fmt, args);
    va_end(args);
}

void nb_inform(nb_diags *diags, nb_where where, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    record(diags, NB_INFO, NB_OK, where, fmt, args);
    va_end(args);
}

void nb_note(nb_diags *diags, const char *fmt, ...) {
    if (diags->last == NULL) return;
    va_list args;
    va_start(args, fmt);
    const char *note = nb_vformat(diags->arena, fmt, args);
    va_end(args);
    nb_vec_push(diags->arena, &diags->last->notes, note);
}

void nb_help(nb_diags *diags, const char *fmt, ...) {
    if (diags->last == NULL) return;
    va_list args;
    va_start(args, fmt);
    diags->last->help = nb_vformat(diags->arena, fmt, args);
    va_end(args);
}

nb_status nb_diags_status(const nb_diags *diags) {
    for (size_t i = 0; i < diags->list.count; i++)
        if (diags->list.items[i]->severity == NB_ERROR) return diags->list.items[i]->status;
    return NB_OK;
}

/* Text under construction. */
typedef struct builder {
    nb_arena *arena;
    NB_VEC(char) bytes;
} builder;

static void put_bytes(builder *out, const char *bytes, size_t length) {
    for (size_t i = 0; i < length; i++) nb_vec_push(out->arena, &out->bytes, bytes[i]);
}

static void put(builder *out, const char *string) { put_bytes(out, string, strlen(string)); }

static void put_escaped(builder *out, const char *string) {
    put(out, nb_escape(out->arena, string, strlen(string)));
}

static char *finish(builder *out) {
    nb_vec_push(out->arena, &out->bytes, '\0');
    return out->bytes.items;
}

/* The length in bytes of the well-formed UTF-8 character at `s`, or 0 (Unicode 15, table 3-7). */
static size_t decode(const unsigned char *s, size_t available, uint32_t *point) {
    size_t length = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (length == 0 || s[0] > 0xf4 || length > available) return 0;
    *point = length == 1 ? s[0] : s[0] & (0xffu >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
        *point = *point << 6 | (s[i] & 0x3fu);
    }
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (*point < least[length] || *point > 0x10ffff) return 0;
    return *point >= 0xd800 && *point <= 0xdfff ? 0 : length;
}

/* Characters that move the cursor, hide themselves or reorder what stands around them. */
static bool is_deceptive(uint32_t point) {
    static const struct {
        uint32_t first, last;
    } ranges[] = {
        {0x00, 0x1f},       /* C0 controls */
        {0x7f, 0x9f},       /* DEL, C1 controls */
        {0xad, 0xad},       /* soft hyphen */
        {0x61c, 0x61c},     /* Arabic letter mark */
        {0x180e, 0x180e},   /* Mongolian vowel separator */
        {0x200b, 0x200f},   /* zero width, left-to-right and right-to-left marks */
        {0x2028, 0x202e},   /* line and paragraph separators, bidirectional overrides */
        {0x2060, 0x206f},   /* invisible operators, bidirectional isolates */
        {0xfeff, 0xfeff},   /* byte order mark */
        {0xfff9, 0xfffb},   /* interlinear annotation */
        {0xe0000, 0xe007f}, /* tags */
    };
    for (size_t i = 0; i < NB_COUNT(ranges); i++)
        if (point >= ranges[i].first && point <= ranges[i].last) return true;
    return false;
}

char *nb_escape(nb_arena *arena, const char *text, size_t length) {
    static const char digits[] = "0123456789abcdef";
    const unsigned char *s = (const unsigned char *)text;
    builder out = {.arena = arena};
    for (size_t i = 0; i < length;) {
        uint32_t point = 0;
        size_t bytes = decode(s + i, length - i, &point);
        bool show = bytes > 0 && !is_deceptive(point);
        if (bytes == 0) bytes = 1;
        if (show) put_bytes(&out, text + i, bytes);
        for (size_t k = i; !show && k < i + bytes; k++)
            put_bytes(&out, (char[]){'\\', 'x', digits[s[k] >> 4], digits[s[k] & 15]}, 4);
        i += bytes;
    }
    return finish(&out);
}

/* Characters that the first `length` bytes of `line` take on the screen once escaped. */
static size_t columns(nb_arena *arena, const char *line, size_t length) {
    size_t n = 0;
    for (const char *c = nb_escape(arena, line, length); *c != '\0'; c++)
        n += ((unsigned char)*c & 0xc0) != 0x80;
    return n;
}

static void put_snippet(builder *out, const nb_where *where) {
    size_t size = strlen(where->snippet);
    char *line = nb_strndup(out->arena, where->snippet, size);
    for (char *c = line; *c != '\0'; c++)
        if (*c == '\t') *c = ' '; /* one column, as the caret below counts it */
    put(out, "\n    ");
    put_escaped(out, line);
    if (where->length <= 0 || where->caret < 0) return;

    size_t begin = (size_t)where->caret < size ? (size_t)where->caret : size;
    size_t end = (size_t)where->length < size - begin ? begin + (size_t)where->length : size;
    size_t indent = columns(out->arena, line, begin);
    size_t width = columns(out->arena, line, end) - indent;
    put(out, "\n    ");
    for (size_t i = 0; i < indent; i++) put(out, " ");
    put(out, "^");
    for (size_t i = 1; i < width; i++) put(out, "~");
}

/* "file:line:column:node: ", of which every part may be missing. */
static void put_where(builder *out, const nb_where *where) {
    if (where->file != NULL) {
        put_escaped(out, where->file);
        put(out, ":");
    }
    if (where->line > 0) put(out, nb_format(out->arena, "%d:", where->line));
    if (where->line > 0 && where->column > 0) put(out, nb_format(out->arena, "%d:", where->column));
    if (where->offset >= 0) put(out, nb_format(out->arena, "byte %lld:", (long long)where->offset));
    if (where->node != NULL && where->node[0] != '\0') {
        put_escaped(out, where->node);
        put(out, ":");
    }
    if (out->bytes.count > 0) put(out, " ");
}

char *nb_diag_render(nb_arena *arena, const nb_diag *diag) {
    static const char *const names[] = {"error: ", "warning: ", "info: "};
    builder out = {.arena = arena};
    put_where(&out, &diag->where);
    put(&out, names[diag->severity]);
    put_escaped(&out, diag->message);
    if (diag->where.snippet != NULL) put_snippet(&out, &diag->where);
    for (size_t i = 0; i < diag->notes.count; i++) {
        put(&out, "\n  note: ");
        put_escaped(&out, diag->notes.items[i]);
    }
    if (diag->help != NULL) {
        put(&out, "\n  help: ");
        put_escaped(&out, diag->help);
    }
    put(&out, "\n");
    return finish(&out);
}
