/* Plug-ins that must be refused; a definition says what is wrong with this one. */
#include "nb_pass.h"

static nb_pass_result run(nb_pass_ctx *ctx) {
    (void)ctx;
    return NB_PASS_UNCHANGED;
}

/* The first pass is always fine: nothing of a refused plug-in may stay registered. */
static const nb_pass good = {
    .size = sizeof(nb_pass), .name = "good", .summary = "does nothing", .run = run};

#if defined(BROKEN_OPTIONS)
static const nb_option options[] = {
    {.name = "mode", .kind = NB_OPTION_ENUM, .summary = "no choices"}, {.name = NULL}};
#elif defined(BROKEN_RESERVED)
#define BROKEN_OPTIONS
static const nb_option options[] = {
    {.name = "mode", .kind = NB_OPTION_INT, .summary = "of later", .reserved = "more"},
    {.name = NULL}};
#endif

static const nb_pass bad = {
    .size = sizeof(nb_pass),
#if defined(BROKEN_NAME)
    .name = "Not A Name",
#elif defined(BROKEN_DUPLICATE)
    .name = "simplify",
#elif defined(BROKEN_INCLUDE)
    .name = "include",
#elif defined(BROKEN_TWICE)
    .name = "good",
#else
    .name = "bad",
#endif
    .summary = "does nothing",
#ifdef BROKEN_OPTIONS
    .options = options,
#endif
#ifdef BROKEN_RUN
    .run = NULL,
#else
    .run = run,
#endif
};

static const nb_pass *const passes[] = {&good, &bad, NULL};

#ifdef BROKEN_OPS
NB_EXPORT void nb_call_twice(void);
void nb_call_twice(void) {}
static const nb_op_def unnamed = {.size = sizeof(nb_op_def), .name = "9", .summary = "-"},
                       missing = {.size = sizeof(nb_op_def), .name = "missing", .summary = "-"},
                       twice = {.size = sizeof(nb_op_def), .name = "twice", .summary = "-"},
                       nowhere = {.size = sizeof(nb_op_def),
                                  .name = "twice",
                                  .summary = "-",
                                  .onnx = "Twice"},
                       unread = {.size = sizeof(nb_op_def),
                                 .name = "twice",
                                 .summary = "-",
                                 .operands = 1,
                                 .onnx = "here::Twice",
                                 .attributes = "axis:i=x"},
                       floats = {.size = sizeof(nb_op_def),
                                 .name = "twice",
                                 .summary = "-",
                                 .onnx = "here::Twice",
                                 .attributes = "axis:i alpha:f"};
static const nb_op_def *const ops[] = OPS;
/* Each plug-in uses one of them. */
const nb_op_def *const all_ops[] = {&unnamed, &missing, &twice, &nowhere, &unread, &floats};
#endif

#if defined(BROKEN_SYMBOL)
#define nb_plugin_v1 nb_plugin_of_another_name
#elif defined(BROKEN_OLD) /* as plug-ins were before 1.0 */
#define nb_plugin_v1 nb_plugin_v0
#endif
NB_EXPORT const nb_plugin nb_plugin_v1 = {
#ifdef BROKEN_SIZE
    .size = 4,
#else
    .size = sizeof(nb_plugin),
#endif
#if defined(BROKEN_ABI)
    .abi_major = NB_PASS_ABI_MAJOR + 1,
    .abi_minor = 5,
#elif defined(BROKEN_OLD)
    .abi_major = 0,
    .abi_minor = 4,
#elif defined(BROKEN_MINOR)
    .abi_major = NB_PASS_ABI_MAJOR,
    .abi_minor = NB_PASS_ABI_MINOR + 1,
#else
    .abi_major = NB_PASS_ABI_MAJOR,
    .abi_minor = NB_PASS_ABI_MINOR,
#endif
    .name = "broken",
    .passes = passes,
#ifdef BROKEN_OPS
    .ops = ops,
#endif
};
