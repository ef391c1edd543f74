/* Numbers of the text form: printing that reads back to the same bits, and reading.
 *
 * Both directions have a fast way in double arithmetic that is proven right where it is taken (an
 * exact integer times or divided by an exact power of ten rounds once) and otherwise ask the C
 * library, which is correct and slow. */
#include "ir/minifloat.h"
#include "ir/text_private.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Powers of ten that a double holds exactly. */
static const double tens[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                              1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                              1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
#define MAX_TENS 22

size_t nb_u64_text(uint64_t u, char *out) {
    char digits[24];
    size_t n = 0;
    do {
        digits[n++] = (char)('0' + u % 10);
        u /= 10;
    } while (u);
    for (size_t i = 0; i < n; i++) out[i] = digits[n - 1 - i];
    out[n] = '\0';
    return n;
}

size_t nb_i64_text(int64_t i, char *out) {
    if (i >= 0) return nb_u64_text((uint64_t)i, out);
    *out = '-';
    return 1 + nb_u64_text(0 - (uint64_t)i, out + 1);
}

/* ---- floats to text -------------------------------------------------------------------------- */

/* Writes d.ddd * 10^exponent; plain notation from 1e-4 up to ten digits in front of the point. */
static size_t layout(bool negative, const char *digits, int n, int exponent, char *out) {
    char *o = out;
    while (n > 1 && digits[n - 1] == '0') n--;
    if (negative) *o++ = '-';
    if (exponent >= -4 && exponent < 10) {
        if (exponent < 0) {
            *o++ = '0';
            *o++ = '.';
            for (int i = -1; i > exponent; i--) *o++ = '0';
        }
        for (int i = 0; i < n || i <= exponent; i++) {
            *o++ = i < n ? digits[i] : '0';
            if (i == exponent && i + 1 < n) *o++ = '.';
        }
        *o = '\0';
        return (size_t)(o - out);
    }
    *o++ = digits[0];
    if (n > 1) *o++ = '.';
    for (int i = 1; i < n; i++) *o++ = digits[i];
    o += snprintf(o, 8, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
    return (size_t)(o - out);
}

/* By the C library: `digits` significant digits of v. */
static int library_digits(double v, int n, char *digits) {
    char text[64];
    snprintf(text, sizeof text, "%.*e", n - 1, v);
    char *e = strchr(text, 'e');
    int k = 0;
    for (char *c = text; c < e; c++) {
        if (*c >= '0' && *c <= '9') digits[k++] = *c;
    }
    return atoi(e + 1);
}

static size_t special(double v, char *out) {
    strcpy(out, v != v ? "nan" : v > 0 ? "inf" : "-inf");
    return strlen(out);
}

/* v > 0 and normal. Tries six to nine digits: any decimal of six digits survives a trip through
 * f32, so the six digits of a value that has fewer end in zeros. */
static bool fast_f32(float v, char *digits, int *n, int *exponent) {
    double d = (double)v;
    int e = (int)floor(log10(d));
    /* Decimals strictly between the midpoints to the neighbours read back as v. The midpoints are
     * exact in double, and rounding a quotient to double cannot carry it across one. */
    double low = (d + (double)nextafterf(v, 0)) / 2;
    double high = (d + (double)nextafterf(v, INFINITY)) / 2;
    for (int k = 6; k <= 9; k++) {
        int shift = k - 1 - e;
        if (abs(shift) > MAX_TENS) return false;
        double scaled = rint(shift >= 0 ? d * tens[shift] : d / tens[-shift]);
        double back = shift >= 0 ? scaled / tens[shift] : scaled * tens[-shift];
        if (!(back > low && back < high)) continue;
        uint64_t u = (uint64_t)scaled;
        *n = (int)nb_u64_text(u, digits);
        *exponent = *n - 1 - shift;
        return true;
    }
    return false;
}

size_t nb_f32_text(float v, char *out) {
    if (!isfinite(v)) return special((double)v, out);
    if (v == 0) return (size_t)snprintf(out, 8, signbit(v) ? "-0" : "0");
    char digits[40];
    float m = fabsf(v);
    int n, exponent;
    if (isnormal(m) && m < 1e30f && fast_f32(m, digits, &n, &exponent))
        return layout(signbit(v), digits, n, exponent, out);
    for (n = isnormal(m) ? 6 : 1; n <= 9; n++) {
        exponent = library_digits((double)m, n, digits);
        size_t length = layout(false, digits, n, exponent, out);
        if (nb_f32_read(out, length) == m) break;
    }
    return layout(signbit(v), digits, n, exponent, out);
}

size_t nb_f64_text(double v, char *out) {
    if (!isfinite(v)) return special(v, out);
    if (v == 0) return (size_t)snprintf(out, 8, signbit(v) ? "-0" : "0");
    char digits[40];
    double m = fabs(v);
    int n, exponent = 0;
    for (n = isnormal(m) ? 15 : 1; n <= 17; n++) {
        exponent = library_digits(m, n, digits);
        size_t length = layout(false, digits, n, exponent, out);
        if (nb_f64_read(out, length) == m) break;
    }
    return layout(signbit(v), digits, n, exponent, out);
}

/* ---- text to floats -------------------------------------------------------------------------- */

/* The value, when integer and power of ten are exact in double, so that it is rounded once. */
static bool fast_read(const char *s, size_t length, double *out) {
    const char *end = s + length;
    bool negative = s < end && *s == '-';
    uint64_t mantissa = 0;
    int digits = 0, exponent = 0, explicit_exponent = 0;
    bool point = false;
    if (negative) s++;
    for (; s < end && *s != 'e' && *s != 'E'; s++) {
        if (*s == '.') {
            point = true;
            continue;
        }
        mantissa = mantissa * 10 + (uint64_t)(*s - '0');
        if (mantissa && ++digits > 15) return false;
        if (point) exponent--;
    }
    if (s < end) {
        s++;
        bool minus = *s == '-';
        if (*s == '-' || *s == '+') s++;
        for (; s < end; s++) {
            explicit_exponent = explicit_exponent * 10 + (*s - '0');
            if (explicit_exponent > 999) return false;
        }
        exponent += minus ? -explicit_exponent : explicit_exponent;
    }
    if (exponent < -MAX_TENS || exponent > MAX_TENS) return false;
    double m = (double)mantissa;
    m = exponent < 0 ? m / tens[-exponent] : m * tens[exponent];
    *out = negative ? -m : m;
    return true;
}

double nb_f64_read(const char *text, size_t length) {
    double d;
    if (fast_read(text, length, &d)) return d;
    char copy[NB_NUMBER_MAX + 1];
    memcpy(copy, text, length);
    copy[length] = '\0';
    return strtod(copy, NULL);
}

float nb_f32_read(const char *text, size_t length) {
    double d;
    if (fast_read(text, length, &d)) {
        /* Rounding twice is rounding once unless the double stands on a tie or below f32's normal
         * range, where ties are elsewhere. */
        uint64_t bits;
        memcpy(&bits, &d, sizeof bits);
        bool tie = (bits & 0x1fffffff) == 0x10000000;
        if (d == 0 || (!tie && fabs(d) >= 0x1p-126 && fabs(d) < 0x1p127)) return (float)d;
    }
    char copy[NB_NUMBER_MAX + 1];
    memcpy(copy, text, length);
    copy[length] = '\0';
    return strtof(copy, NULL);
}

/* ---- elements -------------------------------------------------------------------------------- */

static size_t hex(uint64_t bits, char *out) {
    return (size_t)snprintf(out, NB_NUMBER_SIZE, "0x%llx", (unsigned long long)bits);
}

static size_t float_bits_text(nb_elem e, uint64_t bits, char *out) {
    if (e == NB_F64) {
        double d;
        memcpy(&d, &bits, sizeof d);
        return d != d && bits != UINT64_C(0x7ff8000000000000) ? hex(bits, out)
                                                              : nb_f64_text(d, out);
    }
    uint32_t low = (uint32_t)bits;
    float f;
    if (e == NB_F32) {
        memcpy(&f, &low, sizeof f);
        return f != f && low != 0x7fc00000 ? hex(bits, out) : nb_f32_text(f, out);
    }
    f = nb_float_decode(e, low);
    return nb_float_encode(e, f) != low ? hex(bits, out) : nb_f32_text(f, out);
}

size_t nb_bits_text(nb_elem e, uint64_t bits, char *out) {
    int width = nb_elems[e].bits;
    switch (nb_elems[e].class_) {
    case NB_CLASS_FLOAT:
        return float_bits_text(e, bits, out);
    case NB_CLASS_INT:
        if (width < 64 && (bits >> (width - 1) & 1)) bits |= ~UINT64_C(0) << width;
        return nb_i64_text((int64_t)bits, out);
    case NB_CLASS_UINT:
        return nb_u64_text(bits, out);
    case NB_CLASS_BOOL:
        break;
    }
    if (bits > 1) return hex(bits, out);
    strcpy(out, bits ? "true" : "false");
    return strlen(out);
}
