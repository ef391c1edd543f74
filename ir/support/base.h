/* Status codes, attributes and checked arithmetic that every part of the compiler uses.
 *
 * Errors are values: a function that can fail returns nb_status and has recorded the reason in an
 * nb_diags (diag.h) before it returns. The values are the exit codes of the `nibble` program. */
#ifndef NB_BASE_H
#define NB_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum nb_status {
    NB_OK = 0,
    NB_CHECK_FAILED = 1, /* a check the user asked for did not hold */
    NB_USAGE = 2,        /* the command line, a pipeline or an option is wrong */
    NB_MALFORMED = 3,    /* an input file breaks its format's rules */
    NB_UNSUPPORTED = 4,  /* valid, but not something Nibble can compile */
    NB_LIMIT = 5,        /* a limit, or memory, is exhausted */
    NB_IO = 6,           /* the operating system refused a read or write */
    NB_INTERNAL = 7      /* a bug in Nibble */
} nb_status;

#define NB_MUST_USE          __attribute__((warn_unused_result))
#define NB_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define NB_COUNT(array)      (sizeof(array) / sizeof((array)[0]))

/* Returns from the calling function when `expr` is not NB_OK. */
#define NB_TRY(expr)                                        \
    do {                                                    \
        nb_status nb_try_status_ = (expr);                  \
        if (nb_try_status_ != NB_OK) return nb_try_status_; \
    } while (0)

/* Sizes derived from a model always go through these; false means overflow. */
static inline bool nb_mul_i64(int64_t a, int64_t b, int64_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}
static inline bool nb_add_i64(int64_t a, int64_t b, int64_t *out) {
    return !__builtin_add_overflow(a, b, out);
}

static inline int64_t nb_min_i64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t nb_max_i64(int64_t a, int64_t b) { return a > b ? a : b; }

/* Division towards minus infinity and plus infinity; b > 0. */
static inline int64_t nb_floordiv(int64_t a, int64_t b) { return a / b - (a % b != 0 && a < 0); }
static inline int64_t nb_ceildiv(int64_t a, int64_t b) { return a / b + (a % b != 0 && a > 0); }

#endif
