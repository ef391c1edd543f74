/* Plots and tables of a page (plot.h). */
#include "tools/plot.h"

#include "ir/support/base.h"

#include <math.h>
#include <string.h>

#define WIDTH  960.0
#define LEFT   64.0
#define RIGHT  24.0
#define TOP    24.0
#define BOTTOM 40.0

static const char *const colours[] = {"#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951",
                                      "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e"};

const char *nbt_plot_colour(size_t i) { return i < NB_COUNT(colours) ? colours[i] : "#9498a0"; }

void nbt_legend(FILE *f, const char *colour, const char *text) {
    fprintf(f, "<span><i style=\"background:%s\"></i>", colour);
    nbt_html(f, text);
    fprintf(f, "</span> ");
}

nbt_plot nbt_plot_open(FILE *f, nb_arena *arena, double height, const char *label) {
    fprintf(f, "<div class=plot>");
    nbt_svg_open(f, WIDTH, height, label);
    return (nbt_plot){.f = f,
                      .arena = arena,
                      .x = {.low = LEFT, .high = WIDTH - RIGHT},
                      .y = {.low = height - BOTTOM, .high = TOP}};
}

void nbt_plot_close(nbt_plot *p) {
    nbt_svg_close(p->f);
    fprintf(p->f, "</div>\n");
}

/* ---- axes ----------------------------------------------------------------------------------- */

static const double steps[] = {1, 2, 5, 10};

void nbt_axis_cover(nbt_axis *axis, double from, double to) {
    const double low = pow(10, floor(log10(from))), high = pow(10, floor(log10(to)));
    axis->logarithmic = true;
    axis->from = low;
    axis->to = 10 * high;
    for (size_t i = 0; i < NB_COUNT(steps); i++) {
        if (steps[i] * low <= from) axis->from = steps[i] * low;
    }
    for (size_t i = NB_COUNT(steps); i-- > 0;) {
        if (steps[i] * high >= to) axis->to = steps[i] * high;
    }
    if (axis->from == axis->to) axis->to *= 2;
}

static void draw_x(nbt_plot *p, double t) {
    const double at = nbt_axis_at(&p->x, t);
    nbt_svg_line(p->f, at, p->y.low, at, p->y.high, "grid");
    nbt_svg_text(p->f, at, p->y.low + 16, "middle", nb_format(p->arena, "%g", t));
}

static void draw_y(nbt_plot *p, double t) {
    const double at = nbt_axis_at(&p->y, t);
    nbt_svg_line(p->f, p->x.low, at, p->x.high, at, "grid");
    nbt_svg_text(p->f, p->x.low - 6, at + 4, "end", nb_format(p->arena, "%g", t));
}

/* Of a logarithmic axis over a few powers of ten, 2 and 5 times these too. */
static void draw_ticks(nbt_plot *p, const nbt_axis *a, int count,
                       void (*draw)(nbt_plot *, double)) {
    const double begin = a->logarithmic ? pow(10, floor(log10(a->from))) : a->from;
    const bool fine = a->logarithmic && a->to / a->from < 2e3;
    if (!a->logarithmic) draw(p, begin);
    for (double t = a->logarithmic ? begin : nbt_axis_tick(a, begin, count); t <= a->to * 1.001;
         t = nbt_axis_tick(a, t, count)) {
        for (size_t i = 0; i < (fine ? 3 : 1); i++) {
            const double v = steps[i] * t;
            if (v >= a->from * 0.999 && v <= a->to * 1.001) draw(p, v);
        }
    }
}

static void draw_title_x(nbt_plot *p, const char *title) {
    nbt_svg_line(p->f, p->x.low, p->y.low, p->x.high, p->y.low, "axis");
    nbt_svg_text(p->f, (p->x.low + p->x.high) / 2, p->y.low + 34, "middle", title);
}

void nbt_plot_x(nbt_plot *p, const char *title) {
    draw_ticks(p, &p->x, 10, draw_x);
    draw_title_x(p, title);
}

void nbt_plot_y(nbt_plot *p, const char *title) {
    draw_ticks(p, &p->y, 5, draw_y);
    nbt_svg_text(p->f, 4, p->y.high - 10, "start", title);
}

#define LABEL_WIDTH 24 /* pixels between two blocks' numbers */

void nbt_plot_items(nbt_plot *p, const char *const *blocks, size_t n, const char *title) {
    double last = -LABEL_WIDTH;
    const char *block = "";
    p->x.from = -0.5;
    p->x.to = (double)n - 0.5;
    for (size_t i = 0; i < n; i++) {
        if (!*blocks[i] || strcmp(blocks[i], block) == 0) continue;
        block = blocks[i];
        const double at = nbt_axis_at(&p->x, (double)i - 0.5);
        nbt_svg_line(p->f, at, p->y.low, at, p->y.high, "grid");
        if (at < last + LABEL_WIDTH) continue;
        nbt_svg_text(p->f, at + 4, p->y.low + 16, "start", block);
        last = at;
    }
    draw_title_x(p, title);
}

/* ---- tables --------------------------------------------------------------------------------- */

static bool holds_text(const char *column) { return column[0] == '<'; }

void nbt_table_open(FILE *f, const char *const *columns, size_t n) {
    fprintf(f, "<div class=plot><table><tr>");
    for (size_t i = 0; i < n; i++) {
        fprintf(f, holds_text(columns[i]) ? "<th class=t>" : "<th>");
        nbt_html(f, columns[i] + holds_text(columns[i]));
    }
    fprintf(f, "</tr>\n");
}

/* Names may be long: they break anywhere. */
void nbt_table_row(FILE *f, const char *const *columns, const char *const *cells, size_t n) {
    fprintf(f, "<tr>");
    for (size_t i = 0; i < n; i++) {
        fprintf(f, holds_text(columns[i]) ? "<td class=n>" : "<td>");
        nbt_html(f, cells[i]);
    }
    fprintf(f, "</tr>\n");
}

void nbt_table_close(FILE *f) { fprintf(f, "</table></div>\n"); }
