/* oneDNN: its matrix product. Linked, with the header of its package; threads by OMP_NUM_THREADS.
 *
 *   dnnl TYPE M K N COPIES
 *       TYPE is s8 (u8 by s8 gives s32), bf16 or f32; a figure is seconds for one product, of
 *       COPIES with a weight each, in the layout that oneDNN asks for */
#include "peer.h"

#include <oneapi/dnnl/dnnl.h>

static dnnl_engine_t engine;
static dnnl_stream_t stream;

static void ok(dnnl_status_t s) {
    if (s != dnnl_success)
        peer_fail("dnnl", s == dnnl_unimplemented ? "no such product on this CPU" : NULL);
}

typedef struct products {
    dnnl_primitive_t primitive;
    dnnl_memory_t x, y, *w;
    int copies;
} products;

static void run(void *what) {
    products *p = what;
    for (int i = 0; i < p->copies; i++) {
        dnnl_exec_arg_t args[] = {
            {DNNL_ARG_SRC, p->x}, {DNNL_ARG_WEIGHTS, p->w[i]}, {DNNL_ARG_DST, p->y}};
        ok(dnnl_primitive_execute(p->primitive, stream, 3, args));
    }
    ok(dnnl_stream_wait(stream));
}

static dnnl_memory_desc_t matrix(int64_t rows, int64_t columns, dnnl_data_type_t type,
                                 dnnl_format_tag_t format) {
    dnnl_memory_desc_t d;
    dnnl_dims_t dims = {rows, columns};
    ok(dnnl_memory_desc_init_by_tag(&d, 2, dims, type, format));
    return d;
}

static dnnl_memory_t memory(const dnnl_memory_desc_t *d) {
    dnnl_memory_t m;
    ok(dnnl_memory_create(&m, d, engine, peer_memory(dnnl_memory_desc_get_size(d))));
    return m;
}

/* Copies f32 numbers into another type or layout. */
static void reorder(dnnl_memory_t from, const dnnl_memory_desc_t *a, dnnl_memory_t to,
                    const dnnl_memory_desc_t *b) {
    dnnl_primitive_desc_t d;
    dnnl_primitive_t p;
    ok(dnnl_reorder_primitive_desc_create(&d, a, engine, b, engine, NULL));
    ok(dnnl_primitive_create(&p, d));
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
    ok(dnnl_primitive_execute(p, stream, 2, args));
    ok(dnnl_stream_wait(stream));
    ok(dnnl_primitive_destroy(p));
    ok(dnnl_primitive_desc_destroy(d));
}

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "usage: dnnl s8|bf16|f32 M K N COPIES\n");
        return 2;
    }
    int s8 = strcmp(argv[1], "s8") == 0, bf16 = strcmp(argv[1], "bf16") == 0;
    dnnl_data_type_t tx = s8 ? dnnl_u8 : bf16 ? dnnl_bf16 : dnnl_f32;
    dnnl_data_type_t tw = s8 ? dnnl_s8 : tx, ty = s8 ? dnnl_s32 : dnnl_f32;
    int64_t m = atoll(argv[2]), k = atoll(argv[3]), n = atoll(argv[4]);
    products p = {.copies = atoi(argv[5])};
    ok(dnnl_engine_create(&engine, dnnl_cpu, 0));
    ok(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags));
    dnnl_memory_desc_t x = matrix(m, k, tx, dnnl_ab), y = matrix(m, n, ty, dnnl_ab);
    dnnl_memory_desc_t any = matrix(k, n, tw, dnnl_format_tag_any);
    dnnl_matmul_desc_t desc;
    dnnl_primitive_desc_t pd;
    ok(dnnl_matmul_desc_init(&desc, &x, &any, NULL, &y));
    ok(dnnl_primitive_desc_create(&pd, &desc, NULL, engine, NULL));
    ok(dnnl_primitive_create(&p.primitive, pd));
    const dnnl_memory_desc_t *w = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    const char *name;
    ok(dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, (void *)&name));

    /* Numbers: small whole ones, which every type holds. */
    dnnl_memory_desc_t fx = matrix(m, k, dnnl_f32, dnnl_ab), fw = matrix(k, n, dnnl_f32, dnnl_ab);
    dnnl_memory_t mx = memory(&fx), mw = memory(&fw);
    void *data;
    uint64_t state = 1;
    ok(dnnl_memory_get_data_handle(mx, &data));
    for (int64_t i = 0; i < m * k; i++) ((float *)data)[i] = (float)(peer_random(&state) >> 57);
    ok(dnnl_memory_get_data_handle(mw, &data));
    for (int64_t i = 0; i < k * n; i++)
        ((float *)data)[i] = (float)(peer_random(&state) >> 57) - 64;
    p.x = memory(&x);
    p.y = memory(&y);
    reorder(mx, &fx, p.x, &x);
    p.w = peer_memory((size_t)p.copies * sizeof(dnnl_memory_t));
    for (int i = 0; i < p.copies; i++) {
        p.w[i] = memory(w);
        reorder(mw, &fw, p.w[i], w);
    }
    peer_serve(name, run, &p, p.copies);
    return 0;
}
