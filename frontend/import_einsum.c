/* Einsum: operands are multiplied from left to right. Of two, letters that both have and nobody
 * needs any more are summed by a matrix product; letters that both keep are its batch.
 *
 *   "bhqd,bhkd->bhqk"    matmul [b,h,q,d] [b,h,d,k] */
#include "frontend/import.h"

#include <ctype.h>
#include <string.h>

/* Letters are numbered; axes under an ellipsis get numbers too, counted from the last one, so that
 * they are aligned as broadcasting does. */
#define ELLIPSIS 52 /* .. ELLIPSIS + NB_MAX_RANK - 1 */

typedef struct term {
    nb_value *v;
    int n;
    int labels[NB_MAX_RANK];
} term;

static int label_of(char c) { return islower((unsigned char)c) ? c - 'a' : c - 'A' + 26; }

static int find(const term *t, int label) {
    for (int i = 0; i < t->n; i++)
        if (t->labels[i] == label) return i;
    return -1;
}

/* ---- the equation --------------------------------------------------------------------------- */

/* Appends the labels of text[0 .. length-1]; an ellipsis stands for `dots` axes, or for those that
 * are left of `rank` (when rank is at least 0). */
static nb_status read_labels(nb_importer *im, const char *text, size_t length, int rank, int dots,
                             term *t) {
    int letters = 0;
    bool seen = false;
    for (size_t i = 0; i < length; i++) letters += isalpha((unsigned char)text[i]) != 0;
    if (rank >= 0) dots = rank - letters;
    t->n = 0;
    for (size_t i = 0; i < length; i++) {
        bool ellipsis = length - i >= 3 && strncmp(text + i, "...", 3) == 0 && !seen && dots >= 0;
        int more = ellipsis ? dots : 1;
        if (t->n + more > NB_MAX_RANK)
            return nb_node_error(im, NB_LIMIT, "a term has more than %d axes", NB_MAX_RANK);
        if (ellipsis) {
            for (int k = dots - 1; k >= 0; k--) t->labels[t->n++] = ELLIPSIS + k;
            seen = true;
            i += 2;
        } else if (isalpha((unsigned char)text[i])) {
            t->labels[t->n++] = label_of(text[i]);
        } else if (text[i] != ' ') {
            return nb_node_error(im, NB_MALFORMED, "the equation has '%.*s' as a term", (int)length,
                                 text);
        }
    }
    if (rank >= 0 && t->n != rank)
        return nb_node_error(im, NB_MALFORMED, "'%.*s' has %d axes, its operand %d", (int)length,
                             text, t->n, rank);
    return NB_OK;
}

/* Without "->": an ellipsis, then the letters that occur once, in the order of the alphabet. */
static void implied(const term *terms, size_t n, term *out) {
    int times[ELLIPSIS + NB_MAX_RANK] = {0};
    for (size_t i = 0; i < n; i++)
        for (int k = 0; k < terms[i].n; k++) times[terms[i].labels[k]]++;
    out->n = 0;
    for (int k = NB_MAX_RANK - 1; k >= 0; k--)
        if (times[ELLIPSIS + k] && out->n < NB_MAX_RANK) out->labels[out->n++] = ELLIPSIS + k;
    /* Capital letters are before small ones. */
    for (int k = 0; k < ELLIPSIS && out->n < NB_MAX_RANK; k++) {
        int label = (k + 26) % ELLIPSIS;
        if (times[label] == 1) out->labels[out->n++] = label;
    }
}

static nb_status check_output(nb_importer *im, const term *terms, size_t n, const term *out) {
    for (int k = 0; k < out->n; k++) {
        bool known = false;
        for (size_t i = 0; i < n; i++) known = known || find(&terms[i], out->labels[k]) >= 0;
        if (!known || find(out, out->labels[k]) != k)
            return nb_node_error(im, NB_MALFORMED,
                                 "axis %d of the output is in no operand, or there twice", k);
    }
    return NB_OK;
}

static nb_status parse(nb_importer *im, term *terms, size_t n, term *out) {
    const char *at = nb_node_string(im, "equation", ""), *arrow = strstr(at, "->");
    const char *end = arrow ? arrow : at + strlen(at);
    int dots = 0;
    for (size_t i = 0; i < n; i++) {
        size_t length = 0;
        while (at + length < end && at[length] != ',') length++;
        if ((i + 1 < n) != (at + length < end))
            return nb_node_error(im, NB_MALFORMED, "the equation is not of %zu terms", n);
        NB_TRY(read_labels(im, at, length, terms[i].v->type->rank, 0, &terms[i]));
        for (int k = 0; k < terms[i].n; k++)
            if (terms[i].labels[k] >= ELLIPSIS && terms[i].labels[k] - ELLIPSIS >= dots)
                dots = terms[i].labels[k] - ELLIPSIS + 1;
        at += length + 1;
    }
    if (arrow)
        NB_TRY(read_labels(im, arrow + 2, strlen(arrow + 2), -1, dots, out));
    else
        implied(terms, n, out);
    return check_output(im, terms, n, out);
}

/* ---- terms ---------------------------------------------------------------------------------- */

/* Sums over the axes of t that `keep` has not. */
static void sum_out(nb_importer *im, term *t, const bool *keep) {
    int64_t axes[NB_MAX_RANK];
    size_t n = 0;
    int left = 0;
    for (int i = 0; i < t->n; i++) {
        if (keep[t->labels[i]])
            t->labels[left++] = t->labels[i];
        else
            axes[n++] = i;
    }
    t->n = left;
    if (n) t->v = nb_reduce(im, NB_OP_reduce_sum, t->v, n, axes, false);
}

/* A letter twice in one term: the diagonal, as a sum over where both indices are the same. */
static nb_status take_diagonals(nb_importer *im, term *t) {
    for (int i = 0; i < t->n; i++) {
        int first = find(t, t->labels[i]);
        if (first == i) continue;
        NB_TRY(nb_unify(im, t->v->type->dims[first], t->v->type->dims[i]));
        const nb_dim *n = t->v->type->dims[i];
        nb_value *same = nb_combine(im, NB_OP_eq, nb_positions(im, t->n, first, n),
                                    nb_positions(im, t->n, i, n));
        nb_value *kept = nb_choose(im, same, t->v, nb_scalar(im, t->v->type->elem, 0));
        const int64_t axis = i;
        t->v = nb_reduce(im, NB_OP_reduce_sum, kept, 1, &axis, false);
        if (!t->v) return NB_MALFORMED;
        memmove(t->labels + i, t->labels + i + 1, (size_t)(t->n - i - 1) * sizeof *t->labels);
        t->n--;
        i--;
    }
    return NB_OK;
}

/* t with its axes in that order. */
static nb_value *ordered(nb_importer *im, const term *t, int n, const int *labels) {
    int64_t perm[NB_MAX_RANK];
    for (int i = 0; i < n; i++) perm[i] = find(t, labels[i]);
    return nb_transpose(&im->b, t->v, perm);
}

/* ---- two terms ------------------------------------------------------------------------------ */

/* Labels of a product: of both and kept, of both and summed, of one. */
typedef struct sides {
    int n_batch, n_inner, n_left, n_right;
    int batch[NB_MAX_RANK], inner[NB_MAX_RANK], left[NB_MAX_RANK], right[NB_MAX_RANK];
} sides;

static nb_status sort_labels(nb_importer *im, const term *a, const term *b, const bool *keep,
                             sides *s) {
    *s = (sides){0};
    for (int i = 0; i < a->n; i++) {
        int label = a->labels[i], other = find(b, label);
        if (other < 0) {
            s->left[s->n_left++] = label;
            continue;
        }
        const nb_dim *da = a->v->type->dims[i], *db = b->v->type->dims[other];
        bool repeats = label >= ELLIPSIS && (nb_dim_is(da, 1) || nb_dim_is(db, 1));
        if (!repeats) NB_TRY(nb_unify(im, da, db));
        if (keep[label] || repeats)
            s->batch[s->n_batch++] = label;
        else
            s->inner[s->n_inner++] = label;
    }
    for (int i = 0; i < b->n; i++)
        if (find(a, b->labels[i]) < 0) s->right[s->n_right++] = b->labels[i];
    if (s->n_batch + s->n_left + s->n_right > NB_MAX_RANK || s->n_batch + 2 > NB_MAX_RANK)
        return nb_node_error(im, NB_LIMIT, "a product of two terms has more than %d axes",
                             NB_MAX_RANK);
    return NB_OK;
}

/* The axes of t as [batch..., rows, columns], rows and columns being one axis each. */
static nb_value *as_matrices(nb_importer *im, const term *t, const sides *s, int n_rows,
                             const int *rows, int n_columns, const int *columns) {
    int labels[NB_MAX_RANK], n = 0;
    for (int i = 0; i < s->n_batch; i++) labels[n++] = s->batch[i];
    for (int i = 0; i < n_rows; i++) labels[n++] = rows[i];
    for (int i = 0; i < n_columns; i++) labels[n++] = columns[i];
    nb_value *v = ordered(im, t, n, labels);
    if (!v) return NULL;
    const nb_dim *dims[NB_MAX_RANK];
    int at = s->n_batch;
    for (int i = 0; i < at; i++) dims[i] = v->type->dims[i];
    dims[at] = dims[at + 1] = nb_num(im, 1);
    for (int i = 0; i < n_rows + n_columns; i++) {
        const nb_dim **d = &dims[at + (i >= n_rows)];
        *d = nb_dim_mul(im->g, *d, v->type->dims[at + i]);
    }
    return nb_reshape(&im->b, v, at + 2, dims);
}

/* The axes of t where they are in [batch..., left..., right...], 1 for those it has not. */
static nb_value *aligned(nb_importer *im, const term *t, const sides *s) {
    int all[3 * NB_MAX_RANK], n = 0, own[NB_MAX_RANK] = {0}, n_own = 0;
    for (int i = 0; i < s->n_batch; i++) all[n++] = s->batch[i];
    for (int i = 0; i < s->n_left; i++) all[n++] = s->left[i];
    for (int i = 0; i < s->n_right; i++) all[n++] = s->right[i];
    for (int i = 0; i < n; i++)
        if (find(t, all[i]) >= 0) own[n_own++] = all[i];
    nb_value *v = ordered(im, t, n_own, own);
    const nb_dim *dims[NB_MAX_RANK];
    for (int i = 0, at = 0; i < n && v; i++)
        dims[i] = find(t, all[i]) >= 0 ? v->type->dims[at++] : nb_num(im, 1);
    return nb_reshape(&im->b, v, n, dims);
}

/* Splits [batch..., M, N] into the axes that rows and columns are made of. */
static nb_value *split(nb_importer *im, nb_value *y, const term *a, const term *b, const sides *s) {
    const nb_dim *dims[NB_MAX_RANK];
    int n = 0;
    if (!y) return NULL;
    for (int i = 0; i < s->n_batch; i++) dims[n++] = y->type->dims[i];
    for (int i = 0; i < s->n_left; i++) dims[n++] = a->v->type->dims[find(a, s->left[i])];
    for (int i = 0; i < s->n_right; i++) dims[n++] = b->v->type->dims[find(b, s->right[i])];
    return nb_reshape(&im->b, y, n, dims);
}

/* a = the product of a and b over what `keep` has not. */
static nb_status contract(nb_importer *im, term *a, term *b, const bool *keep) {
    bool needed[2][ELLIPSIS + NB_MAX_RANK];
    for (int label = 0; label < ELLIPSIS + NB_MAX_RANK; label++) {
        needed[0][label] = keep[label] || find(b, label) >= 0;
        needed[1][label] = keep[label] || find(a, label) >= 0;
    }
    sum_out(im, a, needed[0]);
    sum_out(im, b, needed[1]);
    sides s;
    if (!a->v || !b->v) return NB_MALFORMED;
    NB_TRY(sort_labels(im, a, b, keep, &s));
    nb_value *y;
    if (s.n_inner == 0) {
        y = nb_combine(im, NB_OP_mul, aligned(im, a, &s), aligned(im, b, &s));
    } else {
        nb_value *left = as_matrices(im, a, &s, s.n_left, s.left, s.n_inner, s.inner),
                 *right = as_matrices(im, b, &s, s.n_inner, s.inner, s.n_right, s.right);
        y = split(im, nb_multiply(im, left, right), a, b, &s);
    }
    a->v = y;
    a->n = 0;
    for (int i = 0; i < s.n_batch; i++) a->labels[a->n++] = s.batch[i];
    for (int i = 0; i < s.n_left; i++) a->labels[a->n++] = s.left[i];
    for (int i = 0; i < s.n_right; i++) a->labels[a->n++] = s.right[i];
    return y ? NB_OK : NB_MALFORMED;
}

static void mark(bool *keep, const term *t) {
    for (int i = 0; i < t->n; i++) keep[t->labels[i]] = true;
}

nb_status nb_import_einsum(nb_importer *im) {
    size_t n = nb_node_inputs(im);
    term *terms = NB_NEW_ARRAY(im->arena, term, n), out = {0};
    for (size_t i = 0; i < n; i++) {
        terms[i].v = nb_node_input(im, i);
        if (!terms[i].v) return NB_MALFORMED;
        if (!nb_elem_is_float(terms[i].v->type->elem) &&
            !nb_elem_is_integer(terms[i].v->type->elem))
            return nb_node_error(im, NB_MALFORMED, "takes numbers, found %s",
                                 nb_elems[terms[i].v->type->elem].text);
    }
    NB_TRY(parse(im, terms, n, &out));
    for (size_t i = 0; i < n; i++) NB_TRY(take_diagonals(im, &terms[i]));
    for (size_t i = 1; i < n; i++) {
        bool keep[ELLIPSIS + NB_MAX_RANK] = {false};
        mark(keep, &out);
        for (size_t k = i + 1; k < n; k++) mark(keep, &terms[k]);
        NB_TRY(contract(im, &terms[0], &terms[i], keep));
    }
    bool keep[ELLIPSIS + NB_MAX_RANK] = {false};
    mark(keep, &out);
    sum_out(im, &terms[0], keep);
    if (!terms[0].v) return nb_node_output(im, 0, NULL);
    return nb_node_output(im, 0, ordered(im, &terms[0], out.n, out.labels));
}
