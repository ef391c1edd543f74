/* Moving a bound by what is measured (aim.h). */
#include "passes/aim.h"

#include <math.h>

nb_aim nb_aim_begin(double most, double close) {
    return (nb_aim){.most = most, .close = close, .next = most, .large = INFINITY};
}

bool nb_aim_step(nb_aim *aim, double x, double y) {
    const double wanted = aim->most * (1 + aim->close) / 2, rise = (y - aim->y) / (x - aim->x);
    if (y <= aim->most && y >= aim->close * aim->most) return false;
    if (y > aim->most)
        aim->large = fmin(aim->large, x);
    else
        aim->small = fmax(aim->small, x);
    aim->x = x;
    aim->y = y;
    aim->next = rise > 0 ? x + (wanted - y) / rise : NAN;
    if (aim->next > aim->small && aim->next < aim->large) return true;
    /* Also where the measurement did not grow with the estimate. */
    aim->next = isfinite(aim->large) ? (aim->small + aim->large) / 2 : 2 * aim->small;
    return true;
}
