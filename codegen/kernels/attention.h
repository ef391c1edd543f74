/* What the parts of the attention kernel share: the shapes, the block of rows at hand, and where
 * its working memory lies.
 *
 * A block is up to NB_ATTENTION_ROWS rows (query head, position) that share one key head. Its rows
 * go in tiles of as many rows as registers hold accumulators for, then in smaller ones. */
#ifndef NB_KERNELS_ATTENTION_H
#define NB_KERNELS_ATTENTION_H

#include "codegen/lower.h"

#define NB_ATTENTION_ROWS 32
/* Keys are turned round in panels of 16, some panels at once; values are converted in runs. */
#define NB_ATTENTION_VALUES 32

typedef struct nb_attention {
    nb_lower *l;
    const cg_buf *q, *k, *v, *y;
    const cg_buf *k_scales, *v_scales; /* of codes, [B,G,T,1]; NULL for floats */
    cg_buf mask;                       /* broadcast to [B,H,S,T] */
    bool masked;
    int vectors; /* accumulators of 16 lanes that stay in registers */
    int panels;  /* of keys turned round at once */
    cg_val H, G, S, T, D, E;
    cg_val share;      /* query heads that share a key head */
    cg_val most;       /* rows in a block */
    cg_val blocks;     /* blocks of a key head */
    cg_val Tpad, Epad; /* multiples of 16 */
    /* The block at hand. */
    cg_val b, kv, first, rows;
    /* Its working memory, 64-byte aligned. A tile of R rows that begins with row r has its part
     * of `queries` and `scores` at r times the length of a row. */
    cg_val queries;     /* f32, [D][R] in each tile */
    cg_val scores;      /* f32, [Tpad/16][R][16] in each tile; then exponentials */
    cg_val keys;        /* f32 [panels][D][16] */
    cg_val values;      /* f32 [NB_ATTENTION_VALUES][Epad] */
    cg_val acc;         /* f32 [rows][Epad] */
    cg_val largest;     /* f32 [rows][16], scores by lane */
    cg_val sums;        /* f32 [rows] */
    cg_val mask_rows;   /* pointers, to key 0 */
    cg_val output_rows; /* pointers, to element 0 */
    cg_val query_rows;  /* likewise */
} nb_attention;

/* ---- loading (attention_load.c): the only places that know how keys and values are stored --- */

/* Turns 16 keys from `t` on round: keys[panel][d][lane] is element d of key t + lane. With n
 * (1..16), lanes from n on repeat the last key. */
void nb_attention_turn_keys(const nb_attention *a, cg_val t, int panel, cg_val n);
/* values[i] = value t + i for i < n (1..NB_ATTENTION_VALUES); up to a multiple of 16 further ones
 * are -0, so that adding their multiples changes nothing. */
void nb_attention_load_values(const nb_attention *a, cg_val t, cg_val n);

/* Ask memory for what is loaded next: for the keys behind the panels at hand, when panel `t` is at
 * element d (keys lie one behind the other, so D steps ask for all of a panel); for the values of
 * the next run, from element `e`. */
void nb_attention_ask_keys(const nb_attention *a, cg_val t, cg_val d);
void nb_attention_ask_values(const nb_attention *a, cg_val t, cg_val e);

/* ---- arithmetic of one tile of `rows` rows from `row` on (attention_tile.c) ------------------ */

/* Scores of n_panels panels; `t` is the first key. n: as above, for the last panel of all. */
void nb_attention_scores(const nb_attention *a, cg_val row, int rows, cg_val t, int panel,
                         int n_panels, cg_val n);
/* Scores become exponentials; their sums. */
void nb_attention_exponentials(const nb_attention *a, cg_val row, int rows);
/* acc += exponentials of `n` keys from `t` on, times the values loaded; n a multiple of 16. */
void nb_attention_weigh(const nb_attention *a, cg_val row, int rows, cg_val t, cg_val n);

/* ---- helpers -------------------------------------------------------------------------------- */

/* Pointer to element `index` of an array of floats. */
static inline cg_val nb_floats_at(cg *g, cg_val array, cg_val index) {
    return cg_index(g, array, CG_F32, index);
}
static inline cg_val nb_row_pointer(cg *g, cg_val array, cg_val row) {
    return cg_load(g, CG_S(CG_PTR), cg_index(g, array, CG_PTR, row), 8);
}

#endif
