/* Private to the text form: what printer and parser must agree on. Names that need no quotes,
 * numbers that read back to the same bits, and single elements of a constant's packed bytes. */
#ifndef NB_TEXT_PRIVATE_H
#define NB_TEXT_PRIVATE_H

#include "ir/text.h"

#include <string.h>

#define NB_TEXT_VERSION 1
/* Constants of more elements are elided on request, and may be printed as `splat`. */
#define NB_TEXT_SMALL 16
/* Longest text of one number, with its NUL. */
#define NB_NUMBER_SIZE 40

extern const char *const nb_stage_names[];   /* by nb_stage */
extern const char *const nb_storage_names[]; /* by nb_storage_kind */

static inline bool nb_name_start(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
static inline bool nb_name_char(char c) {
    return nb_name_start(c) || (c >= '0' && c <= '9') || c == '.';
}
/* Does `name` stand without quotes? */
static inline bool nb_name_plain(const char *name) {
    if (!nb_name_start(*name)) return false;
    while (nb_name_char(*name)) name++;
    return *name == '\0';
}

/* ---- numbers (text_number.c) ----------------------------------------------------------------- */

/* The shortest decimal that reads back to the same bits; "nan", "inf", "-inf". Returns its length.
 */
size_t nb_f32_text(float v, char *out);
size_t nb_f64_text(double v, char *out);
/* The correctly rounded value of a decimal number [-]D[.D][e[+-]D]; the caller checked the form.
 * Too large for the type is infinite. `length` is at most NB_NUMBER_MAX. */
#define NB_NUMBER_MAX 1024
float nb_f32_read(const char *text, size_t length);
double nb_f64_read(const char *text, size_t length);
/* Decimal digits of u, or of i with a sign. Returns the length. */
size_t nb_u64_text(uint64_t u, char *out);
size_t nb_i64_text(int64_t i, char *out);

/* ---- elements (text_number.c) ---------------------------------------------------------------- */

/* Element text; bits that no number of the type stands for (NaN payloads, odd bools) are hex. */
size_t nb_bits_text(nb_elem e, uint64_t bits, char *out);

#endif
