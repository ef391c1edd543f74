/* HTML and SVG as text (svg.h). */
#include "tools/svg.h"

#include <math.h>

void nbt_html(FILE *f, const char *text) {
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c < 32 || *c > 126)
            fprintf(f, "\\x%02x", *c);
        else if (*c == '&' || *c == '<' || *c == '>' || *c == '"' || *c == '\'')
            fprintf(f, "&#%d;", *c);
        else
            fputc(*c, f);
    }
}

double nbt_axis_at(const nbt_axis *a, double value) {
    double part = a->logarithmic ? log(value / a->from) / log(a->to / a->from)
                                 : (value - a->from) / (a->to - a->from);
    return a->low + part * (a->high - a->low);
}

double nbt_axis_tick(const nbt_axis *a, double tick, int count) {
    /* A little is added, lest rounding repeats or misses a tick. */
    if (a->logarithmic) return tick > 0 ? 10 * tick : pow(10, ceil(log10(a->from) - 1e-9));
    double rough = (a->to - a->from) / count, ten = pow(10, floor(log10(rough))),
           step = ten * (rough > 5 * ten   ? 10
                         : rough > 2 * ten ? 5
                         : rough > ten     ? 2
                                           : 1);
    return step * (floor(tick / step + 1e-9) + 1);
}

void nbt_svg_open(FILE *f, double width, double height, const char *label) {
    fprintf(f, "<svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"", width, height);
    nbt_html(f, label);
    fprintf(f, "\">\n");
}

void nbt_svg_close(FILE *f) { fprintf(f, "</svg>\n"); }

static void end(FILE *f, const char *element, const char *title) {
    if (!title) {
        fprintf(f, "/>\n");
        return;
    }
    fprintf(f, "><title>");
    nbt_html(f, title);
    fprintf(f, "</title></%s>\n", element);
}

void nbt_svg_rect(FILE *f, double x, double y, double width, double height, const char *fill,
                  const char *title) {
    fprintf(f, "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"%s\"", x, y,
            width, height, fill);
    end(f, "rect", title);
}

void nbt_svg_dot(FILE *f, double x, double y, const char *fill, const char *title) {
    fprintf(f, "<circle cx=\"%.2f\" cy=\"%.2f\" r=\"4\" fill=\"%s\" fill-opacity=\"0.7\"", x, y,
            fill);
    end(f, "circle", title);
}

void nbt_svg_ring(FILE *f, double x, double y, const char *stroke, const char *title) {
    fprintf(f, "<circle cx=\"%.2f\" cy=\"%.2f\" r=\"3.5\" fill=\"none\" stroke=\"%s\"", x, y,
            stroke);
    end(f, "circle", title);
}

void nbt_svg_path(FILE *f, const double *x, const double *y, size_t n, const char *stroke) {
    fprintf(f, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\" points=\"", stroke);
    for (size_t i = 0; i < n; i++) fprintf(f, "%s%.2f,%.2f", i ? " " : "", x[i], y[i]);
    fprintf(f, "\"/>\n");
}

void nbt_svg_line(FILE *f, double x1, double y1, double x2, double y2, const char *class_) {
    fprintf(f, "<line x1=\"%.2f\" y1=\"%.2f\" x2=\"%.2f\" y2=\"%.2f\" class=\"%s\"/>\n", x1, y1, x2,
            y2, class_);
}

void nbt_svg_text(FILE *f, double x, double y, const char *anchor, const char *text) {
    fprintf(f, "<text x=\"%.2f\" y=\"%.2f\" text-anchor=\"%s\">", x, y, anchor);
    nbt_html(f, text);
    fprintf(f, "</text>\n");
}
