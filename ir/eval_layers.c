/* Reductions, norms, softmax, rotary and hadamard (NUMBERS.md). All but the reductions of f64 and
 * of integers compute in f32, whatever the element. */
#include "ir/eval_private.h"
#include "ir/scalar.h"

const float *nb_tensor_floats(const nb_tensor *t, nb_arena *arena) {
    if (t->elem == NB_F32) return t->data;
    int64_t n = nb_tensor_count(t);
    float *out = NB_NEW_ARRAY(arena, float, (size_t)n + 1);
    for (int64_t i = 0; i < n; i++) out[i] = (float)nb_tensor_get(t, i);
    return out;
}

void nb_tensor_store(nb_tensor *t, const float *values) {
    int64_t n = nb_tensor_count(t);
    for (int64_t i = 0; i < n; i++) nb_tensor_set_float(t, i, (double)values[i]);
}

/* The fixed tree over sixteen accumulators. */
static float tree16(float *lane) {
    for (int half = 8; half >= 1; half /= 2) {
        for (int j = 0; j < half; j++) lane[j] = lane[j] + lane[j + half];
    }
    return lane[0];
}

float nb_sum16(const float *v, int64_t n) {
    float lane[16] = {0};
    for (int64_t i = 0; i < n; i++) lane[i % 16] += v[i];
    return tree16(lane);
}

/* ---- reductions ---------------------------------------------------------------------------- */

static double fold_f64(nb_op_kind kind, const double *v, int64_t n) {
    double acc = kind == NB_OP_reduce_prod ? 1 : 0;
    for (int64_t i = 0; i < n; i++) {
        switch (kind) {
        case NB_OP_reduce_prod:
            acc *= v[i];
            break;
        case NB_OP_reduce_max:
            acc = i == 0 || v[i] > acc || v[i] != v[i] ? v[i] : acc;
            break;
        case NB_OP_reduce_min:
            acc = i == 0 || v[i] < acc || v[i] != v[i] ? v[i] : acc;
            break;
        default:
            acc += v[i];
        }
        if (acc != acc) return acc;
    }
    return kind == NB_OP_reduce_mean ? acc / (double)n : acc;
}

float nb_extreme(const float *v, int64_t n, bool largest) {
    float m = largest ? -HUGE_VALF : HUGE_VALF;
    for (int64_t i = 0; i < n; i++) {
        if (v[i] != v[i]) return v[i];
        /* +0 and -0 are ordered, so that the order of elements does not matter */
        bool take = largest ? v[i] > m || (v[i] == m && !signbit(v[i]))
                            : v[i] < m || (v[i] == m && signbit(v[i]));
        m = take ? v[i] : m;
    }
    return m;
}

static float fold_f32(nb_op_kind kind, const float *v, int64_t n) {
    float p = 1;
    switch (kind) {
    case NB_OP_reduce_mean:
        return nb_sum16(v, n) / (float)n;
    case NB_OP_reduce_max:
        return nb_extreme(v, n, true);
    case NB_OP_reduce_min:
        return nb_extreme(v, n, false);
    case NB_OP_reduce_prod:
        for (int64_t i = 0; i < n; i++) p *= v[i];
        return p;
    default:
        return nb_sum16(v, n);
    }
}

static int64_t fold_int(nb_op_kind kind, nb_elem elem, const int64_t *v, int64_t n) {
    uint64_t acc = kind == NB_OP_reduce_prod ? 1 : 0;
    int64_t best = kind == NB_OP_reduce_max ? nb_elem_min(elem) : nb_elem_max(elem);
    bool wide = elem == NB_U64;
    if (wide && kind == NB_OP_reduce_min) best = -1;
    for (int64_t i = 0; i < n; i++) {
        bool less = wide ? (uint64_t)v[i] < (uint64_t)best : v[i] < best,
             more = wide ? (uint64_t)v[i] > (uint64_t)best : v[i] > best;
        if (kind == NB_OP_reduce_max ? more : less) best = v[i];
        if (kind == NB_OP_reduce_prod)
            acc *= (uint64_t)v[i];
        else
            acc += (uint64_t)v[i];
    }
    if (kind == NB_OP_reduce_max || kind == NB_OP_reduce_min) return best;
    if (kind == NB_OP_reduce_mean)
        return n == 0 ? 0 : wide ? (int64_t)(acc / (uint64_t)n) : (int64_t)acc / n;
    return (int64_t)acc;
}

static void reduce_one(const nb_evaluating *e, const int64_t *from, int64_t n, int64_t to,
                       void *scratch) {
    const nb_tensor *x = &e->in[0];
    nb_op_kind kind = e->op->kind;
    for (int64_t k = 0; k < n; k++) {
        if (x->elem == NB_F64)
            ((double *)scratch)[k] = nb_tensor_get(x, from[k]);
        else if (nb_elem_is_float(x->elem))
            ((float *)scratch)[k] = (float)nb_tensor_get(x, from[k]);
        else
            ((int64_t *)scratch)[k] = nb_tensor_get_int(x, from[k]);
    }
    if (x->elem == NB_F64)
        nb_tensor_set_float(e->out, to, fold_f64(kind, scratch, n));
    else if (nb_elem_is_float(x->elem))
        nb_tensor_set_float(e->out, to, (double)fold_f32(kind, scratch, n));
    else
        nb_tensor_set_int(e->out, to, fold_int(kind, x->elem, scratch, n));
}

nb_status nb_eval_reduce(const nb_evaluating *e) {
    const nb_tensor *x = &e->in[0];
    const nb_attr *axes = nb_attr_of(e->op, "axes");
    bool reduced[NB_MAX_RANK] = {false};
    for (size_t i = 0; i < axes->ints.count; i++) reduced[axes->ints.items[i]] = true;
    /* Two loops over x's strides: the kept axes outside, the reduced ones inside, both row-major.
     */
    nb_tensor kept = {.rank = 0}, gone = {.rank = 0};
    int64_t sk[1][NB_MAX_RANK], sg[1][NB_MAX_RANK], stride = 1, strides[NB_MAX_RANK];
    for (int d = x->rank - 1; d >= 0; d--) {
        strides[d] = stride;
        stride *= x->dims[d];
    }
    for (int d = 0; d < x->rank; d++) {
        bool r = reduced[d] || axes->ints.count == 0;
        nb_tensor *t = r ? &gone : &kept;
        (r ? sg : sk)[0][t->rank] = strides[d];
        t->dims[t->rank++] = x->dims[d];
    }
    int64_t n = nb_tensor_count(&gone), outer = nb_tensor_count(&kept), ik[NB_MAX_RANK] = {0},
            base = 0;
    int64_t *from = NB_NEW_ARRAY(e->arena, int64_t, (size_t)n + 1);
    void *scratch = NB_NEW_ARRAY(e->arena, int64_t, (size_t)n + 1);
    for (int64_t o = 0; o < outer; o++) {
        int64_t ig[NB_MAX_RANK] = {0}, at = base;
        for (int64_t k = 0; k < n; k++) {
            from[k] = at;
            nb_step(&gone, ig, 1, &at, sg);
        }
        reduce_one(e, from, n, o, scratch);
        nb_step(&kept, ik, 1, &base, sk);
    }
    return NB_OK;
}

/* ---- softmax and norms --------------------------------------------------------------------- */

nb_status nb_eval_softmax(const nb_evaluating *e) {
    const nb_tensor *x = &e->in[0];
    int axis = (int)nb_attr_int(e->op, "axis");
    int64_t n = x->dims[axis], inner = 1, outer = 1;
    for (int d = 0; d < axis; d++) outer *= x->dims[d];
    for (int d = axis + 1; d < x->rank; d++) inner *= x->dims[d];
    float *v = NB_NEW_ARRAY(e->arena, float, (size_t)n + 1);
    for (int64_t o = 0; o < outer * inner; o++) {
        int64_t base = o / inner * n * inner + o % inner;
        for (int64_t i = 0; i < n; i++) v[i] = (float)nb_tensor_get(x, base + i * inner);
        float m = nb_extreme(v, n, true);
        for (int64_t i = 0; i < n; i++) v[i] = nb_expf(v[i] - m);
        float sum = nb_sum16(v, n);
        for (int64_t i = 0; i < n; i++)
            nb_tensor_set_float(e->out, base + i * inner, (double)(v[i] / sum));
    }
    return NB_OK;
}

nb_status nb_eval_rms_norm(const nb_evaluating *e) {
    const nb_tensor *x = &e->in[0];
    int64_t n = x->dims[x->rank - 1], rows = n ? nb_tensor_count(x) / n : 0;
    const float *v = nb_tensor_floats(x, e->arena), *gain = nb_tensor_floats(&e->in[1], e->arena);
    float *square = NB_NEW_ARRAY(e->arena, float, (size_t)n + 1), eps = nb_attr_float(e->op, "eps");
    for (int64_t r = 0; r < rows; r++, v += n) {
        for (int64_t i = 0; i < n; i++) square[i] = v[i] * v[i];
        float s = 1.0f / sqrtf(nb_sum16(square, n) / (float)n + eps);
        for (int64_t i = 0; i < n; i++)
            nb_tensor_set_float(e->out, r * n + i, (double)((v[i] * s) * gain[i]));
    }
    return NB_OK;
}

nb_status nb_eval_layer_norm(const nb_evaluating *e) {
    const nb_tensor *x = &e->in[0];
    int64_t n = x->dims[x->rank - 1], rows = n ? nb_tensor_count(x) / n : 0;
    const float *v = nb_tensor_floats(x, e->arena), *gain = nb_tensor_floats(&e->in[1], e->arena);
    const float *bias = nb_given(e, 2) ? nb_tensor_floats(&e->in[2], e->arena) : NULL;
    float *d = NB_NEW_ARRAY(e->arena, float, (size_t)n + 1),
          *square = NB_NEW_ARRAY(e->arena, float, (size_t)n + 1), eps = nb_attr_float(e->op, "eps");
    for (int64_t r = 0; r < rows; r++, v += n) {
        float mean = nb_sum16(v, n) / (float)n;
        for (int64_t i = 0; i < n; i++) {
            d[i] = v[i] - mean;
            square[i] = d[i] * d[i];
        }
        float s = 1.0f / sqrtf(nb_sum16(square, n) / (float)n + eps);
        for (int64_t i = 0; i < n; i++) {
            float y = (d[i] * s) * gain[i];
            nb_tensor_set_float(e->out, r * n + i, (double)(bias ? y + bias[i] : y));
        }
    }
    return NB_OK;
}

/* ---- rotary -------------------------------------------------------------------------------- */

nb_status nb_eval_rotary(const nb_evaluating *e) {
    const nb_tensor *x = &e->in[0], *table = &e->in[1];
    bool pairs = nb_attr_bool(e->op, "interleaved");
    int64_t B = x->dims[0], H = x->dims[1], S = x->dims[2], D = x->dims[3], D2 = D / 2;
    const float *cosine = table->data, *sine = e->in[2].data;
    for (int64_t row = 0; row < B * H * S; row++) {
        const float *v = (const float *)x->data + row * D;
        float *y = (float *)e->out->data + row * D;
        int64_t b = row / (H * S), s = row % S;
        const float *c = cosine + ((table->dims[0] == 1 ? 0 : b) * S + s) * D2;
        const float *sn = sine + ((e->in[2].dims[0] == 1 ? 0 : b) * S + s) * D2;
        for (int64_t i = 0; i < D2; i++) {
            int64_t lo = pairs ? 2 * i : i, hi = pairs ? 2 * i + 1 : i + D2;
            y[lo] = v[lo] * c[i] + (-v[hi]) * sn[i];
            y[hi] = v[hi] * c[i] + v[lo] * sn[i];
        }
    }
    return NB_OK;
}

/* ---- hadamard ------------------------------------------------------------------------------ */

nb_status nb_eval_hadamard(const nb_evaluating *e) {
    const int64_t longest = nb_attr_int(e->op, "block"), count = nb_tensor_count(e->out);
    const int64_t row = e->out->dims[e->out->rank - 1];
    float *y = e->out->data;
    if (count) memcpy(y, e->in[0].data, (size_t)count * sizeof *y);
    for (int64_t at = 0, block; at < count; at += block) {
        block = nb_hadamard_block(longest, row - at % row);
        for (int64_t half = 1; half < block; half *= 2) {
            for (int64_t i = at; i < at + block; i++) {
                if ((i - at) & half) continue;
                float a = y[i], b = y[i + half];
                y[i] = a + b;
                y[i + half] = a - b;
            }
        }
        const float scale = 1.0f / sqrtf((float)block);
        for (int64_t i = at; i < at + block; i++) y[i] *= scale;
    }
    return NB_OK;
}
