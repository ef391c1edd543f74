/* Unpacks weights for tiles of rows (qunpack.h). */
#include "codegen/kernels/qunpack.h"

#include "codegen/kernels/qtile.h"

#define SIGNS (-0x7f7f7f80) /* 128 in each byte: what activations are too large by */

int64_t nb_qunpacked_bytes(const nb_qproduct *p, int panels, int64_t units) {
    return panels * ((p->centered ? NB_QUNPACKED_HEAD : 0) + 64 * p->parts * units);
}

static cg_type part_type(const nb_qproduct *p) {
    return p->dot->act_bytes == 1 ? (cg_type){CG_I8, 64} : (cg_type){CG_I16, 32};
}

/* The zero points of a panel's columns, one for each weight of a part. */
static cg_val zeros_of_part(const nb_qproduct *p, cg_val at) {
    cg *g = p->l->g;
    if (!p->s.zeros) return cg_const(g, part_type(p), p->s.zero + p->s.offset);
    const int64_t ones = p->dot->act_bytes == 1 ? 0x01010101 : 0x00010001;
    return cg_bitcast(g, cg_muli(g, nb_qtile_zeros(g, p, at), ones), part_type(p));
}

/* Before the weights of panel c: its scales. Returns its zero points. */
static cg_val write_scales(const nb_qproduct *p, int panels, int c, cg_val group, int64_t length,
                           cg_val to) {
    cg *g = p->l->g;
    cg_val panel = cg_offset(g, group, cg_i64(g, c * nb_qshape_panel_bytes(&p->s))),
           scales = cg_offset(g, panel, cg_i64(g, nb_qshape_scales_at(&p->s, length))),
           zeros = cg_offset(g, panel, cg_i64(g, nb_qshape_zeros_at(&p->s, length)));
    cg_store(g, nb_qtile_scales(g, p, scales), cg_offset(g, to, cg_i64(g, 64 * (panels + c))), 64);
    return zeros_of_part(p, zeros);
}

void nb_qunpack(const nb_qproduct *p, int panels, cg_val from, cg_val units, cg_val group,
                int64_t length, cg_val to) {
    cg *g = p->l->g;
    const bool bytes = p->centered && p->dot->act_bytes == 1;
    cg_val zeros[NB_QTILE_SUMS], parts = to;
    cg_var sums[NB_QTILE_SUMS][2]; /* two for each panel: one would wait on itself */
    for (int c = 0; c < panels && p->centered; c++) {
        zeros[c] = write_scales(p, panels, c, group, length, to);
        for (int k = 0; k < 2; k++) sums[c][k] = cg_var_new(g, cg_zero(g, CG_V(CG_I32)));
    }
    if (p->centered) parts = cg_offset(g, to, cg_i64(g, NB_QUNPACKED_HEAD * panels));
    CG_FOR(g, u, cg_i64(g, 0), units, cg_i64(g, 1)) {
        for (int c = 0; c < panels; c++) {
            cg_val skip = cg_addi(g, cg_muli(g, u, nb_unit_bytes(p->s.bits)),
                                  c * nb_qshape_panel_bytes(&p->s));
            const nb_unit unit = nb_unit_load(g, p->s.bits, cg_offset(g, from, skip));
            for (int k = 0; k < p->parts; k++) {
                cg_val part = p->dot->unpack(g, &unit, k),
                       number = cg_addi(g, cg_muli(g, u, p->parts * panels), k * panels + c);
                if (p->centered) part = cg_sub(g, part, zeros[c]);
                if (bytes) {
                    const cg_var sum = sums[c][k % 2];
                    cg_set(g, sum, p->dot->by_unsigned(g, cg_get(g, sum), part, cg_i32(g, SIGNS)));
                }
                cg_store(g, part, cg_offset(g, parts, cg_muli(g, number, 64)), 64);
            }
        }
    }
    for (int c = 0; c < panels && bytes; c++) {
        cg_val sum = cg_add(g, cg_get(g, sums[c][0]), cg_get(g, sums[c][1]));
        cg_store(g, cg_sub(g, cg_zero(g, CG_V(CG_I32)), sum), cg_offset(g, to, cg_i64(g, 64 * c)),
                 64);
    }
}
