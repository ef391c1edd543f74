/* The part of the page of `nibble report` about what bits buy (report_page.h): divergence against
 * bits per weight; the best of ours as a line, other systems' points with their names. */
#include "tools/plot.h"
#include "tools/report_page.h"

#include <math.h>
#include <string.h>

#define HEIGHT 460.0
#define OURS   "#4269d0"
#define THEIRS "#ff725c"

/* ---- names beside points -------------------------------------------------------------------- */

typedef struct box {
    double left, top, right, bottom;
} box;

typedef struct labels {
    nbt_plot *plot;
    const nbt_curve *curve;
    NB_VEC(box) taken; /* by names and by the line */
} labels;

static bool overlap(box a, box b) {
    return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}

static box around(const nbt_plot *p, const nbt_curve_point *c) {
    const double x = nbt_axis_at(&p->x, c->bits), y = nbt_axis_at(&p->y, c->kl);
    return (box){x - 4, y - 4, x + 4, y + 4};
}

static bool is_free(const labels *l, box b) {
    const nbt_plot *p = l->plot;
    if (b.left < p->x.low || b.right > p->x.high || b.top < p->y.high || b.bottom > p->y.low)
        return false;
    for (size_t i = 0; i < l->taken.count; i++) {
        if (overlap(b, l->taken.items[i])) return false;
    }
    for (size_t i = 0; i < l->curve->n; i++) {
        if (overlap(b, around(p, &l->curve->points[i]))) return false;
    }
    return true;
}

/* Tried from the nearest place on; where none is free the point has its name in the table. */
static void write_name(labels *l, const nbt_curve_point *c) {
    static const double away[][2] = {{8, 4},   {-8, 4},  {8, -8},  {8, 16},
                                     {-8, 16}, {-8, -8}, {4, -16}, {4, 22}};
    const double x = nbt_axis_at(&l->plot->x, c->bits), y = nbt_axis_at(&l->plot->y, c->kl),
                 width = 6.6 * (double)strlen(c->label);
    for (size_t i = 0; i < NB_COUNT(away); i++) {
        const double dx = away[i][0], left = dx > 0 ? x + dx : x + dx - width,
                     base = y + away[i][1];
        const box b = {left, base - 10, left + width, base + 3};
        if (!is_free(l, b)) continue;
        nb_vec_push(l->plot->arena, &l->taken, b);
        nbt_svg_text(l->plot->f, x + dx, base, dx > 0 ? "start" : "end", c->label);
        return;
    }
}

/* ---- the plot ------------------------------------------------------------------------------- */

static void choose_axes(nbt_plot *p, const nbt_curve *c) {
    double low = c->points[0].kl, high = low;
    for (size_t i = 0; i < c->n; i++) {
        low = fmin(low, c->points[i].kl);
        high = fmax(high, c->points[i].kl);
    }
    nbt_axis_cover(&p->y, low, high);
    p->x.from = floor(c->points[0].bits - 0.25);
    p->x.to = ceil(c->points[c->n - 1].bits + 0.25);
}

/* The line, which names keep clear of. */
static void write_line(labels *l, const nbt_curve *c) {
    enum { PARTS = 50 };
    nbt_plot *p = l->plot;
    double *xs = NB_NEW_ARRAY(p->arena, double, 2 * c->n + 1), *ys = xs + c->n;
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++) {
        if (!c->points[i].best) continue;
        xs[n] = nbt_axis_at(&p->x, c->points[i].bits);
        ys[n++] = nbt_axis_at(&p->y, c->points[i].kl);
    }
    nbt_svg_path(p->f, xs, ys, n, OURS);
    for (size_t i = 0; i + 1 < n; i++) {
        for (int k = 0; k <= PARTS; k++) {
            const double part = (double)k / PARTS, x = xs[i] + part * (xs[i + 1] - xs[i]),
                         y = ys[i] + part * (ys[i + 1] - ys[i]);
            nb_vec_push(p->arena, &l->taken, ((box){x - 1, y - 1, x + 1, y + 1}));
        }
    }
}

static void write_points(nbt_plot *p, const nbt_curve *c) {
    for (size_t i = 0; i < c->n; i++) {
        const nbt_curve_point *k = &c->points[i];
        const char *title =
            nb_format(p->arena, "%s: %.2f bits, KL divergence %.3e", k->name, k->bits, k->kl);
        const double x = nbt_axis_at(&p->x, k->bits), y = nbt_axis_at(&p->y, k->kl);
        if (k->ours && !k->best)
            nbt_svg_ring(p->f, x, y, OURS, title);
        else
            nbt_svg_dot(p->f, x, y, k->ours ? OURS : THEIRS, title);
    }
}

static void write_table(FILE *f, nb_arena *arena, const nbt_curve *c) {
    static const char *const columns[] = {"bits", "KL divergence", "perplexity", "<scheme, method",
                                          "<"};
    nbt_table_open(f, columns, NB_COUNT(columns));
    for (size_t i = 0; i < c->n; i++) {
        const nbt_curve_point *k = &c->points[i];
        const char *cells[] = {nb_format(arena, "%.2f", k->bits), nb_format(arena, "%.3e", k->kl),
                               k->ppl > 0 ? nb_format(arena, "%.4f", k->ppl) : "", k->name,
                               k->best ? "on the line" : ""};
        nbt_table_row(f, columns, cells, NB_COUNT(columns));
    }
    nbt_table_close(f);
}

void nbt_write_curve(FILE *f, nb_arena *arena, const nbt_curve *c) {
    fprintf(f, "<h2>");
    nbt_html(f, c->model);
    fprintf(f, ": what bits buy</h2>\n<p>");
    nbt_legend(f, OURS, "Nibble; the line joins what nothing of ours beats");
    nbt_legend(f, THEIRS, *c->others ? c->others : "others");
    fprintf(f, "</p>\n");
    nbt_plot plot = nbt_plot_open(f, arena, HEIGHT, "KL divergence against bits per weight");
    labels l = {.plot = &plot, .curve = c};
    choose_axes(&plot, c);
    nbt_plot_y(&plot, "KL divergence from the float model, nats a token");
    nbt_plot_x(&plot, "bits per weight of linear layers, with scales");
    write_line(&l, c);
    write_points(&plot, c);
    for (int ours = 0; ours < 2; ours++) {
        for (size_t i = 0; i < c->n; i++) {
            if (ours ? c->points[i].best : !c->points[i].ours) write_name(&l, &c->points[i]);
        }
    }
    nbt_plot_close(&plot);
    fprintf(f, "<details><summary>All points</summary>\n");
    write_table(f, arena, c);
    fprintf(f, "</details>\n");
}
