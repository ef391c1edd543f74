/* The 64-bit hash of weights: what the compiler writes and the loader checks.
 *
 * It finds damage and mixed-up files; it does not resist someone who forges them.
 *
 * Definition, with arithmetic modulo 2^64 and little-endian words:
 *   1. lane[i] = i * K1 + K3 for i = 0..3. The data is padded with zeros to a multiple of 32 bytes.
 *   2. For each 32 bytes, for i = 0..3: lane[i] = rotl(lane[i] + word[i] * K1, 31) * K2.
 *   3. h = (length in bytes before padding) * K3.
 *      For i = 0..3: h = rotl(h ^ (lane[i] ^ lane[i] >> 29) * K2, 27) * K1 + K3.
 *   4. h = (h ^ h >> 32) * K2; the hash is h ^ h >> 29.
 *   K1 = 9e3779b97f4a7c15, K2 = d6e8feb86659fd93, K3 = a0761d6478bd642f (hexadecimal).
 * Each step of a lane is a bijection of lane and word, so a change of one word is always seen by
 * its lane; four lanes keep the multipliers of one core busy. */
#ifndef NB_HASH_H
#define NB_HASH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

uint64_t nb_weights_hash(const void *data, size_t size);

/* The same in pieces, for who never has all of it in memory. */
typedef struct nb_hash {
    uint64_t lane[4];
    uint64_t length;
    unsigned char tail[32]; /* the length % 32 bytes that do not fill a block yet */
} nb_hash;

void nb_hash_start(nb_hash *hash);
void nb_hash_add(nb_hash *hash, const void *data, size_t size);
uint64_t nb_hash_end(const nb_hash *hash);

#ifdef __cplusplus
}
#endif
#endif
