/* Inputs that are numbers from now on (frontend.h, nb_import_pinned). */
#include "frontend/import.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_for(const char *pin, const char *input) {
    const size_t n = strlen(input);
    return strncmp(pin, input, n) == 0 && pin[n] == '=';
}

const char *nb_pin_of(const nb_onnx *m, const char *input) {
    for (size_t i = 0; i < m->n_pins; i++)
        if (is_for(m->pins[i], input)) return m->pins[i] + strlen(input) + 1;
    return NULL;
}

/* The number as an element of that type holds it exactly, but for the rounding of floats. */
static bool read_number(const char *text, nb_elem elem, double *value) {
    if (elem == NB_BOOL && (strcmp(text, "true") == 0 || strcmp(text, "false") == 0)) {
        *value = *text == 't';
        return true;
    }
    char *end;
    *value = strtod(text, &end);
    if (!*text || *end || !isfinite(*value)) return false;
    if (nb_elem_is_float(elem)) return true;
    if (*value != nearbyint(*value) || fabs(*value) > 0x1p53) return false;
    if (elem == NB_BOOL) return *value == 0 || *value == 1;
    return *value >= (double)nb_elem_min(elem) && *value <= (double)nb_elem_max(elem);
}

nb_value *nb_pinned(nb_importer *im, const char *input, const char *number, const nb_type *type) {
    double value;
    int64_t count;
    const nb_where where = {.file = im->m->name, .offset = -1};
    if (!nb_type_static_count(type, &count)) {
        nb_error(im->diags, NB_USAGE, where,
                 "input \"%s\" is %s: only inputs of a known size can "
                 "be pinned",
                 input, nb_type_text(im->arena, type));
        return NULL;
    }
    if (!read_number(number, type->elem, &value)) {
        nb_error(im->diags, NB_USAGE, where, "input \"%s\" is %s, which '%s' is no value of", input,
                 nb_type_text(im->arena, type), number);
        return NULL;
    }
    nb_value *v = nb_scalar(im, type->elem, value);
    return type->rank ? nb_expand_to(im, v, type->rank, type->dims) : v;
}

nb_status nb_pins_check(nb_importer *im, const Onnx__GraphProto *graph) {
    for (size_t i = 0; i < im->m->n_pins; i++) {
        const char *names = "";
        bool known = false;
        for (size_t k = 0; k < graph->n_input; k++) {
            const char *name = graph->input[k]->name ? graph->input[k]->name : "";
            known = known || is_for(im->m->pins[i], name);
            if (k < 16) names = nb_format(im->arena, "%s%s\"%s\"", names, k ? ", " : "", name);
        }
        if (known) continue;
        nb_error(im->diags, NB_USAGE, (nb_where){.file = im->m->name, .offset = -1},
                 "there is no input to pin in '%s', expected NAME=NUMBER", im->m->pins[i]);
        nb_help(im->diags, "inputs are %s", names);
        return NB_USAGE;
    }
    return NB_OK;
}
