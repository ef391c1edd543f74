/* Random rotations (rotation.h).
 *
 * Sylvester's matrices are applied by butterflies. Those whose order is no power of two are made by
 * Paley's constructions (1933), of q + 1 for primes q = 3 mod 4 and of 2 (q + 1) for primes q = 1
 * mod 4, and applied as they stand. */
#include "passes/rotation.h"

#include "ir/scalar.h"
#include "ir/support/map.h"

#include <math.h>
#include <string.h>

/* The largest order that is applied as it stands: it costs order * n operations. */
#define MAX_ORDER 256

static bool is_prime(int64_t q) {
    for (int64_t d = 2; d * d <= q; d++) {
        if (q % d == 0) return false;
    }
    return q > 1;
}

/* Legendre's symbol of a modulo the prime q. */
static int8_t residue(int64_t a, int64_t q) {
    a = ((a % q) + q) % q;
    if (a == 0) return 0;
    for (int64_t x = 1; x < q; x++) {
        if (x * x % q == a) return 1;
    }
    return -1;
}

/* Q bordered by ones, Q[i][j] = residue(i - j): skew for q = 3 mod 4 (the left border is negative),
 * symmetric for q = 1 mod 4. */
static int8_t bordered(int64_t i, int64_t j, int64_t q) {
    if (i == 0 && j == 0) return 0;
    if (i == 0) return 1;
    if (j == 0) return q % 4 == 3 ? -1 : 1;
    return residue(i - j, q);
}

/* I + S. */
static int8_t paley_1(int64_t i, int64_t j, int64_t q) { return i == j ? 1 : bordered(i, j, q); }

/* Each entry c of C becomes c [1 1; 1 -1], each 0 of its diagonal [1 -1; -1 -1]. */
static int8_t paley_2(int64_t i, int64_t j, int64_t q) {
    const int8_t c = bordered(i / 2, j / 2, q);
    const bool odd_i = i % 2, odd_j = j % 2;
    if (c) return odd_i && odd_j ? (int8_t)-c : c;
    return odd_i || odd_j ? -1 : 1;
}

/* A Hadamard matrix of this order, or NULL when neither construction gives one. */
static const int8_t *paley(nb_arena *arena, int64_t order) {
    const int64_t q1 = order - 1, q2 = order / 2 - 1;
    const bool first = q1 % 4 == 3 && is_prime(q1);
    if (!first && !(order % 2 == 0 && q2 % 4 == 1 && is_prime(q2))) return NULL;
    int8_t *h = NB_NEW_ARRAY(arena, int8_t, (size_t)(order * order));
    for (int64_t i = 0; i < order; i++) {
        for (int64_t j = 0; j < order; j++)
            h[i * order + j] = first ? paley_1(i, j, q1) : paley_2(i, j, q2);
    }
    return h;
}

nb_rotation nb_rotation_plain(int64_t n, int64_t block) {
    return (nb_rotation){.n = n, .order = 1, .block = block};
}

nb_rotation nb_rotation_random(nb_arena *arena, int64_t n, uint64_t seed) {
    int8_t *signs = NB_NEW_ARRAY(arena, int8_t, (size_t)n);
    for (int64_t i = 0; i < n; i++) signs[i] = nb_hash_mix(seed, (uint64_t)i) & 1 ? -1 : 1;
    const int64_t power = n & -n;
    nb_rotation r = {.n = n, .order = 1, .block = power, .signs = signs};
    for (int64_t order = n / power; power < n && n % order == 0 && order <= MAX_ORDER; order *= 2) {
        r.core = paley(arena, order);
        if (!r.core) continue;
        r.order = order;
        r.block = n / order;
        break;
    }
    return r;
}

#define LANES NB_ROTATION_LANES

static void butterflies(double *v, int64_t block) {
    for (int64_t half = 1; half < block; half *= 2) {
        for (int64_t i = 0; i < block; i++) {
            if (i & half) continue;
            double *a = v + i * LANES, *b = v + (i + half) * LANES;
            for (int c = 0; c < LANES; c++) {
                const double x = a[c], y = b[c];
                a[c] = x + y;
                b[c] = x - y;
            }
        }
    }
}

/* Rows, `step` vectors apart, times H(order). */
static void mix(const nb_rotation *r, double *v, int64_t step, double *room) {
    memset(room, 0, (size_t)(r->order * LANES) * sizeof *room);
    for (int64_t k = 0; k < r->order; k++) {
        const double *x = v + k * step * LANES;
        for (int64_t j = 0; j < r->order; j++) {
            const double h = r->core[k * r->order + j];
            for (int c = 0; c < LANES; c++) room[j * LANES + c] += h * x[c];
        }
    }
    for (int64_t j = 0; j < r->order; j++)
        memcpy(v + j * step * LANES, room + j * LANES, LANES * sizeof *room);
}

void nb_rotation_apply(const nb_rotation *r, double *v, double *room) {
    for (int64_t at = 0, block; at < r->n; at += block) {
        block = nb_hadamard_block(r->block, r->n - at);
        const double scale = 1 / sqrt((double)(r->order * block));
        for (int64_t i = at; i < at + block; i++) {
            const double factor = r->signs ? scale * r->signs[i] : scale;
            for (int c = 0; c < LANES; c++) v[i * LANES + c] *= factor;
        }
        butterflies(v + at * LANES, block);
    }
    for (int64_t at = 0; r->core && at < r->n; at += r->order * r->block) {
        for (int64_t j = 0; j < r->block; j++) mix(r, v + (at + j) * LANES, r->block, room);
    }
}
