/* scales: what stands behind the codes of a dynamically quantized value, copied out. */
#include "codegen/lower.h"

static nb_stream_loop copy(nb_lower *l) {
    const cg_buf *to = &l->out[0].buf;
    cg_buf from = cg_buf_dense(l->g, l->in[0].scales, NB_F32, to->rank, to->dims);
    nb_stream_loop loop = nb_stream_copy(to, &from);
    nb_stream_collapse(l, &loop);
    return loop;
}

static cg_val items(nb_lower *l, int phase) {
    (void)phase;
    nb_stream_loop loop = copy(l);
    return nb_stream_items(l, &loop);
}

static cg_val work(nb_lower *l, int phase) {
    (void)phase;
    nb_stream_loop loop = copy(l);
    return nb_stream_work(l, &loop);
}

static void body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    (void)phase;
    nb_stream_loop loop = copy(l);
    nb_stream_body(l, &loop, begin, end);
}

const nb_lowering nb_lower_scales = {.items = items, .work = work, .body = body};
