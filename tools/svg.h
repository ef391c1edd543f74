/* HTML and SVG as text: escaping, axes, shapes. Coordinates are in pixels, y grows downwards. */
#ifndef NBT_SVG_H
#define NBT_SVG_H

#include <stdbool.h>
#include <stdio.h>

/* Writes text so that no byte of it is markup, in elements and in quoted attributes alike. Bytes
 * that are no printable ASCII become \xNN. */
void nbt_html(FILE *f, const char *text);

/* Where values from..to lie: at low..high. Logarithmic ones are positive. */
typedef struct nbt_axis {
    double from, to, low, high;
    bool logarithmic;
} nbt_axis;
double nbt_axis_at(const nbt_axis *axis, double value);
/* The next round number above `tick`; `count` of them are about right. Logarithmic: powers of ten,
 * for tick 0 the first that is not below axis->from. The caller ends beyond axis->to. */
double nbt_axis_tick(const nbt_axis *axis, double tick, int count);

void nbt_svg_open(FILE *f, double width, double height, const char *label);
void nbt_svg_close(FILE *f);
/* `title` is shown when the mouse rests on it; NULL: none. */
void nbt_svg_rect(FILE *f, double x, double y, double width, double height, const char *fill,
                  const char *title);
void nbt_svg_dot(FILE *f, double x, double y, const char *fill, const char *title);
void nbt_svg_ring(FILE *f, double x, double y, const char *stroke, const char *title);
/* Lines from each point to the next. */
void nbt_svg_path(FILE *f, const double *x, const double *y, size_t n, const char *stroke);
void nbt_svg_line(FILE *f, double x1, double y1, double x2, double y2, const char *class_);
/* anchor: "start", "middle", "end". */
void nbt_svg_text(FILE *f, double x, double y, const char *anchor, const char *text);

#endif
