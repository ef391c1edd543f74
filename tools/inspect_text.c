/* What `nibble inspect` found, as one screen (inspect.h). */
#include "tools/inspect.h"

#include <stdio.h>

#define MOST_LINES 12 /* of parts, and of codes that stay, without --verbose */

static json_int_t number(const json_t *item, const char *name) {
    return json_integer_value(json_object_get(item, name));
}

static const char *text(const json_t *item, const char *name) {
    return json_string_value(json_object_get(item, name));
}

static double share(json_int_t part, json_int_t whole) {
    return whole ? 100.0 * (double)part / (double)whole : 0;
}

static void print_parts(json_t *all, size_t most) {
    const char *name, *before = " with";
    size_t i;
    json_t *item, *parts = json_object_get(all, "parts");
    json_int_t weights = 0, macs = 0;
    json_array_foreach(parts, i, item) {
        weights += number(item, "weights");
        macs += number(item, "macs");
    }
    printf("parts   %lld weights, %lld multiply-adds in a run", weights, macs);
    json_object_foreach(json_object_get(all, "run"), name, item) {
        printf("%s %s=%lld", before, name, json_integer_value(item));
        before = ",";
    }
    printf("\n");
    json_array_foreach(parts, i, item) {
        if (i >= most) break;
        printf("%12lld %5.1f%% %14lld %5.1f%%  %s %s", number(item, "weights"),
               share(number(item, "weights"), weights), number(item, "macs"),
               share(number(item, "macs"), macs), text(item, "op"), text(item, "role"));
        printf(number(item, "layers") > 1 ? " x %lld\n" : "\n", number(item, "layers"));
    }
    if (json_array_size(parts) > most)
        printf("%zu more (--verbose lists them)\n", json_array_size(parts) - most);
}

static void print_schemes(json_t *all) {
    const char *name;
    json_t *item;
    json_object_foreach(json_object_get(all, "schemes"), name, item) {
        printf("%-7s %10lld bytes  %5.2f bits per weight", name, number(item, "bytes"),
               json_real_value(json_object_get(item, "bpw")));
        const json_t *ms = json_object_get(item, "predicted_ms");
        if (ms) printf("  %8.3g ms", json_real_value(ms));
        printf("\n");
    }
    const json_t *limits = json_object_get(all, "limits");
    if (!limits) {
        printf("times   are predicted with --limits, or --machine FILE\n");
        return;
    }
    printf("times   predicted for the run above by limits of %s with %lld threads (%s):\n"
           "        matrices and caches read once from memory at %.1f GB/s, or products at %.0f "
           "GOP/s (f32), %.0f "
           "(8 bits), %.0f (4 bits);\n"
           "        whichever takes longer; other operations count for nothing\n",
           text(limits, "cpu"), number(limits, "threads"), text(all, "limits_from"),
           json_real_value(json_object_get(limits, "read_gb_s")),
           json_real_value(json_object_get(limits, "fma_gflop_s")),
           json_real_value(json_object_get(limits, "dot_gop_s")),
           json_real_value(json_object_get(limits, "dot_small_gop_s")));
}

static void print_unfused(json_t *all, size_t most) {
    size_t i;
    json_t *item, *unfused = json_object_get(all, "unfused");
    if (!json_array_size(unfused)) return;
    printf("codes   %zu dequantized values are not fused with what reads them\n",
           json_array_size(unfused));
    json_array_foreach(unfused, i, item) {
        if (i >= most) break;
        printf("        %s %s for %s: %s\n", text(item, "what"), text(item, "value"),
               text(item, "reader"), text(item, "why"));
    }
    if (json_array_size(unfused) > most)
        printf("%zu more (--verbose lists them)\n", json_array_size(unfused) - most);
}

/* States are the same twice, and many: they show with --verbose. Returns the first that does not.
 */
static const json_t *print_ports(json_t *all, const char *list, const char *what, bool verbose) {
    const json_t *state = NULL;
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(all, list), i, item) {
        if (json_is_true(json_object_get(item, "state")) && !verbose) {
            if (!state) state = item;
            continue;
        }
        printf("%-7s %-32s %s\n", what, text(item, "name"), text(item, "type"));
    }
    return state;
}

void nbt_print_inspection(json_t *all, bool verbose) {
    const size_t most = verbose ? SIZE_MAX : MOST_LINES;
    json_t *item;
    const char *name;
    const json_t *state = print_ports(all, "inputs", "input", verbose);
    print_ports(all, "outputs", "output", verbose);
    printf("states  %lld", number(all, "states"));
    if (state) printf(": %s %s ...", text(state, "name"), text(state, "type"));
    printf("\nops    ");
    json_object_foreach(json_object_get(all, "ops"), name, item)
        printf(" %s %lld", name, json_integer_value(item));
    printf("\nlinear  %lld multiply-adds for each row\n",
           json_integer_value(json_object_get(all, "macs_per_row")));
    if (json_object_get(json_object_get(all, "ops"), "conv"))
        printf("conv    %lld multiply-adds for each entry of a batch, where sizes are known\n",
               json_integer_value(json_object_get(all, "conv_macs")));
    print_parts(all, most);
    print_schemes(all);
    print_unfused(all, most);
}
