/* What the files of matmul share: how a product is cut into tiles (matmul.c), how operands are laid
 * out for them (matmul_pack.c), and the tile (matmul_tile.c). */
#ifndef NB_KERNELS_MATMUL_H
#define NB_KERNELS_MATMUL_H

#include "codegen/kernels/rows.h"
#include "codegen/lower.h"
#include "codegen/pack.h"

/* At most this many panels beside each other in a tile. */
#define NB_MATMUL_WIDE 4
/* Bytes of one step of k in a panel of f32. */
#define NB_MATMUL_LINE (CG_LANES * 4)

typedef struct nb_mshape {
    nb_lower *l;
    cg_kind kind; /* of arithmetic */
    bool panels;  /* the right operand lies in panels: a constant matrix of f32 */
    bool codes;   /* it is a constant matrix of codes */
    bool flat;    /* the rows of all batches are one list */
    bool direct;  /* the left operand can be read where it stands */
    bool single;  /* there is only one row, and it is read so */
    int tall;     /* rows of the highest tile */
    int wide;     /* panels of a tile */
    cg_val rows, K, N, n_panels;
    nb_rows cut;                /* of the rows into tiles */
    cg_val blocks, block_tiles; /* blocks of rows in a batch, tiles in one */
    cg_val length;              /* steps of k in a block, */
    int64_t steps;              /* which is at most this, or all of K if there is only one block */
    cg_val packed;              /* i1: is the left operand copied first? */
} nb_mshape;

/* Is this the product of a matrix in panels? */
bool nb_matmul_in_panels(const nb_op *op);
extern const nb_layout nb_matmul_panels;

nb_mshape nb_mshape_of(nb_lower *l);
/* Is there only one row, read where it stands? (i1) */
cg_val nb_mshape_alone(const nb_mshape *s);
/* Pointer to the matrix of batch number `batch` (over y's leading axes) of a buffer of which the
 * last `inner` axes are the matrix. */
cg_val nb_matmul_batch(const nb_mshape *s, const cg_buf *b, int inner, cg_val batch);

/* A copy of the left operand in tiles: for each of its batches, block of k and tile, [k][rows]; in
 * compute kind. Its address is that of batch, block, tile:
 *   base + (first k of the block * rows + first row of the tile * steps of the block). */
cg_buf nb_matmul_lefts(const nb_mshape *s);
cg_val nb_matmul_left_items(const nb_mshape *s);
void nb_matmul_pack_left(const nb_mshape *s, cg_val begin, cg_val end);
/* Copies `steps` rows of 16 columns, `left` (1..16) of them there, into [k][16] at `to`. */
void nb_matmul_copy_panel(const nb_mshape *s, cg_val to, cg_val from, cg_val steps, cg_val left);
/* Likewise what codes stand for, rows from `k` and columns from `column` on. */
void nb_matmul_copy_codes(const nb_mshape *s, cg_val to, cg_val k, cg_val column, cg_val steps);

/* One tile in one block of k. Distances are in bytes. */
typedef struct nb_mtile {
    const nb_mshape *s;
    int wide;
    cg_val left, row_step;  /* element 0, and how far the next row is from it unless packed */
    cg_val right, distance; /* panels, [k][16] each, and the distance between them */
    cg_val steps;
    cg_val from;            /* sums of the blocks before, [rows][wide][16], or a null pointer */
    cg_val to, to_step;     /* where rows of sums go, and the distance between them */
    cg_val next, next_step; /* what is asked for in step 0 (in each panel), and how much further on
                             * in the next, at most a line */
} nb_mtile;
/* Emits a call of the tile of `rows` rows. */
void nb_matmul_tile(const nb_mtile *t, cg_val rows);

#endif
