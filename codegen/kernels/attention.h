/* What the parts of the attention kernel share: the shapes, the block of rows at hand, and where
 * its working memory lies.
 *
 * A block is up to NB_ATTENTION_ROWS rows (query head, position) that share one key head. Its rows
 * go in tiles: of one height for all, the most rows that registers hold sums for, or fewer when
 * the block has no more. The last tile may be longer than the block, which then has `padded` rows;
 * those beyond the last are computed with it but go nowhere. */
#ifndef NB_KERNELS_ATTENTION_H
#define NB_KERNELS_ATTENTION_H

#include "codegen/lower.h"

#define NB_ATTENTION_ROWS 32
/* Keys, then values, go in runs of so many, in panels of 16. */
#define NB_ATTENTION_RUN    32
#define NB_ATTENTION_PANELS (NB_ATTENTION_RUN / CG_LANES)
/* The most values of a run: whole ones of keys, a power of 2. */
#define NB_ATTENTION_VALUES 128

typedef struct nb_attention {
    nb_lower *l;
    const cg_buf *q, *k, *v, *y;
    /* Of codes, [B,G,T,1]; of those of 4 bits, f16 [B,G,N,T], with minima. NULL for floats. */
    const cg_buf *k_scales, *v_scales, *k_minima, *v_minima;
    cg_buf mask;  /* broadcast to [B,H,S,T] */
    bool masked;  /* by a tensor, not by one number known now */
    int vectors;  /* accumulators of 16 lanes that stay in registers */
    int height;   /* most rows of a tile */
    bool direct;  /* keys of a tile that is alone are used as they are turned */
    cg_val ahead; /* keys and values between those at hand and those that memory is asked for */
    cg_val H, G, S, T, D, E;
    cg_val share;       /* query heads that share a key head */
    cg_val most;        /* rows in a block, padded */
    cg_val blocks;      /* blocks of a key head */
    cg_val Tpad, Epad;  /* multiples of a run, of 16 */
    cg_val Dpad, Ewide; /* codes of 8 bits: multiples of 32, of 64 */
    /* The block at hand, and the run: its first key and how many there are. */
    cg_val b, kv, first, rows, padded;
    cg_val from, until; /* keys that its rows see, and some that only a run brings in */
    cg_val t, n;
    cg_val keys_from, keys_stride;     /* the run's keys, as many as a run holds */
    cg_val values_from, values_stride; /* likewise, of codes of 8 bits */
    /* Codes of 4 bits: those of the run's keys, and how far their groups lie apart. */
    cg_val scales_from, minima_from, scales_stride;
    /* What memory is asked for during the run, in pieces side by side: bytes from one piece to the
     * next, and from one line of a piece to the next. */
    cg_val next, piece, line;
    cg_var zeros; /* <16 x i1>: lanes where an exponential of the run is 0 */
    /* Its working memory, 64-byte aligned. */
    cg_val queries;     /* f32 [D][padded] */
    cg_val scores;      /* f32 [Tpad/16][padded][16]; then exponentials */
    cg_val keys;        /* f32 [NB_ATTENTION_PANELS][D][16] */
    cg_val last_keys;   /* [NB_ATTENTION_RUN][D]: those of a run that is not full */
    cg_val last_scales; /* f16 [N][NB_ATTENTION_RUN]: theirs, if their codes have 4 bits */
    cg_val last_minima; /* likewise */
    cg_val values;      /* f32 [NB_ATTENTION_RUN][Epad]: those of a run of 4-bit codes */
    cg_val acc;         /* f32 [padded][Epad] */
    cg_val largest;     /* f32 [rows][16], scores by lane; then the largest of all in each lane */
    cg_val sums;        /* f32 [rows] */
    cg_val hiding;      /* f32 [rows]: a mask as small hides its key; NaN: none does */
    cg_val mask_rows;   /* pointers, to key 0 */
    cg_val output_rows; /* pointers, to element 0 */
    cg_val query_rows;  /* likewise */
    /* For keys in codes of 8 bits (attention_*_i8.c). */
    cg_val query_codes; /* i16 [padded][Dpad] */
    cg_val query_steps; /* f32 [padded]: what makes scores of their products */
    cg_val words;       /* i16 [NB_ATTENTION_PANELS][Dpad/8][4][32]: keys */
    /* By fours words are u8 [..][Dpad/4][64]. i8 [Dpad/4][padded][2][4], codes in two planes; i32
     * [padded], where sums start. */
    cg_val query_planes, query_offsets;
    /* For such values. */
    cg_val last_values; /* i8 [NB_ATTENTION_RUN][E]: those of a run that is not full */
    cg_val turned;      /* [NB_ATTENTION_VALUES/tokens][Ewide/16][64 bytes] */
    cg_val parts;       /* i32 [planes][padded][Ewide] */
    cg_val totals;      /* f64 [padded][Ewide] */
    cg_val counts;      /* i32 [padded][16]: exponentials */
    cg_val all_counts;  /* f64 [padded][16] */
    cg_val widest;      /* f32 [rows][16]: scales by lane; then the largest in the first */
    cg_val inverses;    /* f32 [rows]: what makes codes of exponentials times scales */
} nb_attention;

/* ---- loading (attention_load.c): the only places that know how keys and values are stored --- */

/* Sets keys_from, keys_stride and next for the run of keys at hand; next for that of values. */
void nb_attention_find_keys(nb_attention *a);
void nb_attention_find_values(nb_attention *a);

/* 16 keys of the run: where they are, where they go, and how many bytes of the run lie before them.
 */
typedef struct nb_panel {
    cg_val from, to, before;
    /* Codes of 4 bits: those of the group at hand, <16 x f32>, and where those of the first are. */
    cg_val scales, minima;
    cg_val scales_from, minima_from;
} nb_panel;

/* `turns`: they will be turned; otherwise only `to` is set. */
nb_panel nb_attention_panel(const nb_attention *a, cg_val panel, bool turns);
/* Elements, and keys, that nb_attention_turn takes at once. */
#define NB_ATTENTION_TURNED 32
int nb_attention_turned(const nb_attention *a);
int nb_attention_turned_keys(cg *g);
/* out[e][lane] = element d + e of key `first` + lane of the panel. */
void nb_attention_turn(const nb_attention *a, const nb_panel *p, cg_val d, int first, cg_val *out);
/* x[i] holds words 0..3 of key i, then those of every fourth key after it, of `n` keys; y[w]
 * becomes word w of all. */
void nb_attention_turn_words(cg *g, int n, const cg_val x[4], cg_val y[4]);
/* Asks memory for as much as a single element of n panels from the first on is. */
void nb_attention_ask_element(const nb_attention *a, const nb_panel *first, int n, cg_val d);
/* The same for all that nb_attention_turn takes of them. */
void nb_attention_ask_panels(const nb_attention *a, const nb_panel *first, int n, cg_val d);
/* to[d][lane] = element d of key `lane`, for a single d. */
void nb_attention_turn_one(const nb_attention *a, const nb_panel *p, cg_val d);
/* `vectors` vectors of value `i` of the run from element `e` on; `n` NULL, or 1..15 elements of
 * one. */
void nb_attention_value(const nb_attention *a, cg_val i, cg_val e, int vectors, cg_val n,
                        cg_val *out);
/* Asks memory for as much, in the order of memory: values lie one behind the other. */
void nb_attention_ask_value(const nb_attention *a, cg_val i, cg_val e, int vectors);

/* Asks memory for as much as is read of the run from byte `at` on. */
void nb_attention_ask(const nb_attention *a, cg_val at, int64_t bytes);
/* x of memory as a number: code * scale + minimum. NULL: there is none. */
cg_val nb_attention_real(cg *g, cg_val x, cg_val scale, cg_val minimum);

/* ---- codes of 4 bits (attention_u4.c), two to a byte, the first in the low bits ---------------
 */

static inline bool nb_is_u4(const cg_buf *b) { return b->elem == NB_U8; }
/* Where scales and minima of the run's keys are, as many as a run holds. */
void nb_attention_find_scales(nb_attention *a);
/* Scales and minima of the group that holds element d. */
void nb_attention_load_scales(const nb_attention *a, nb_panel *p, cg_val d);
/* Makes floats of the values of the run; asks for the memory of those that come next. */
void nb_attention_unpack_values(const nb_attention *a);

/* ---- codes of 8 bits: sums of integers ------------------------------------------------------ */

static inline bool nb_is_i8(const cg_buf *b) { return b->elem == NB_I8; }

/* Keys (attention_keys_i8.c). All rows: codes of their queries. */
void nb_attention_code_queries(const nb_attention *a);
/* All rows, in tiles: products of codes. */
void nb_attention_dots_i8(const nb_attention *a, int height);
/* 16 bytes from d on of keys i, i + 4, i + 8 and i + 12 of a panel; n of each if not NULL. */
cg_val nb_attention_bytes_of_keys(const nb_attention *a, const nb_panel *keys, int i, cg_val d,
                                  cg_val n);
/* Keeps 16 integers, products of a row and a panel's keys. */
void nb_attention_store_products(const nb_attention *a, cg_val panel, cg_val row, cg_val sums);
/* 16 products of a row as scores, before the mask; n of them keys. */
cg_val nb_attention_scaled(const nb_attention *a, cg_val row, cg_val t, cg_val n, cg_val products);
/* The same where bytes are multiplied by fours (attention_keys_fours.c), for more rows than one. */
void nb_attention_split_queries(const nb_attention *a);
void nb_attention_dots_fours(const nb_attention *a, int height);
/* Of 64 bytes, the first (half 0) or last 8 of each 16 as words. */
cg_val nb_attention_words(cg *g, cg_val bytes, int half);

/* Values (attention_values_i8.c). Planes of a weight's code; tokens that lie side by side. */
int nb_attention_planes(cg *g);
int nb_attention_grouped(cg *g);
void nb_attention_begin_sums(const nb_attention *a);
/* Notes the scales of values that count, those with a score above -infinity. */
void nb_attention_note_scales(const nb_attention *a, cg_val row, cg_val t, cg_val n, cg_val scores);
/* Behind the last run of keys: the largest of them. */
void nb_attention_find_steps(const nb_attention *a);
/* All rows: scores become codes of weights. */
void nb_attention_code_weights(const nb_attention *a);
/* All rows, in tiles: adds codes of weights by those of values. */
void nb_attention_weigh_i8(const nb_attention *a, int height);
/* Behind a run: what has to move before it overflows does. */
void nb_attention_end_run(const nb_attention *a);
/* Behind the last run: the row's result. */
void nb_attention_store_i8(const nb_attention *a, cg_val row);

/* ---- masks (attention_mask.c): what they hide ----------------------------------------------- */

/* Sets from and until, and of each row what hides a key. */
void nb_attention_find_visible(nb_attention *a);
/* Scores of 16 keys from `t` on, n of them there, with the mask; -infinity for hidden keys. */
cg_val nb_attention_mask(const nb_attention *a, cg_val row, cg_val t, cg_val n, cg_val scores);
/* i1: is a value of the run not finite? Such a one times 0 is not 0. */
cg_val nb_attention_has_wild(const nb_attention *a);
/* acc += exponentials times values, key by key, without the hidden ones. Their sums apart. */
void nb_attention_weigh_visible(const nb_attention *a);

/* ---- arithmetic (attention_tile.c): tiles of `rows` rows from `row` on, one run -------------- */

/* i1: are `rows` rows all that the block has, whose own tiles are of `height`? */
cg_val nb_attention_is_tile(const nb_attention *a, int rows, int height);
/* Where a tile's keys come from. */
typedef enum nb_keys {
    NB_KEYS_TURNED,      /* the first tile has turned them and kept them */
    NB_KEYS_TURN,        /* it turns them, and keeps them for the other tiles */
    NB_KEYS_TURN_AND_USE /* no other tile needs them: they stay in registers */
} nb_keys;

/* Calls f for 16 scores (n of them keys) of each row. */
void nb_attention_each_score(const nb_attention *a, void (*f)(const nb_attention *a, cg_val row,
                                                              cg_val t, cg_val n, cg_val at));
/* Dot products. */
void nb_attention_dots(const nb_attention *a, cg_val row, int rows, nb_keys source);
/* All rows: dot products become scores; their largest. */
void nb_attention_finish_scores(const nb_attention *a);
/* All rows: the largest of all scores, behind the last run. */
void nb_attention_find_largest(const nb_attention *a);
/* All rows: scores become exponentials. Returns i1: is there a 0 among those that have a mask? */
cg_val nb_attention_exponentials(nb_attention *a);
/* All rows: sums += exponentials, in order. */
void nb_attention_add_up(const nb_attention *a);
/* acc += exponentials times values; sums += exponentials. `asks`: memory, meanwhile. */
void nb_attention_weigh(const nb_attention *a, cg_val row, int rows, bool asks);

/* ---- helpers -------------------------------------------------------------------------------- */

/* Pointer to element `index` of an array of floats. */
static inline cg_val nb_floats_at(cg *g, cg_val array, cg_val index) {
    return cg_index(g, array, CG_F32, index);
}
/* Pointer to a row of an array of 16 floats for each. */
static inline cg_val nb_lanes_of(const nb_attention *a, cg_val array, cg_val row) {
    return nb_floats_at(a->l->g, array, cg_muli(a->l->g, row, CG_LANES));
}
static inline cg_val nb_row_pointer(cg *g, cg_val array, cg_val row) {
    return cg_load(g, CG_S(CG_PTR), cg_index(g, array, CG_PTR, row), 8);
}
/* Scores of 16 keys from `t` on of a row and those after it. */
static inline cg_val nb_scores_at(const nb_attention *a, cg_val t, cg_val row) {
    cg *g = a->l->g;
    cg_val index = cg_add(g, cg_mul(g, t, a->padded), cg_muli(g, row, CG_LANES));
    return nb_floats_at(g, a->scores, index);
}

#endif
