/* How rows are cut into tiles (rows.h). */
#include "codegen/kernels/rows.h"

nb_rows nb_rows_cut(cg *g, cg_val rows, int most, bool several) {
    nb_rows r = {.most = most, .several = several};
    r.tiles = cg_smax(g, cg_ceildiv(g, rows, cg_i64(g, most)), cg_i64(g, 1));
    r.base = cg_udiv(g, rows, r.tiles);
    r.more = cg_urem(g, rows, r.tiles);
    return r;
}

cg_val nb_rows_first(cg *g, const nb_rows *r, cg_val tile) {
    return cg_add(g, cg_mul(g, tile, r->base), cg_smin(g, tile, r->more));
}

cg_val nb_rows_of(cg *g, const nb_rows *r, cg_val tile) {
    return cg_add(g, r->base, cg_zext(g, cg_cmp(g, CG_LT, tile, r->more), CG_I64));
}

bool nb_rows_occur(const nb_rows *r, int rows) {
    int64_t base, more;
    if (cg_known(r->base, &base) && cg_known(r->more, &more))
        return rows == base || (more && rows == base + 1);
    /* Several rows leave a single one behind only in tiles of two. */
    return rows > 1 || !r->several || r->most < 3;
}
