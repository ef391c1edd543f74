/* A built-in pass, built as a plug-in from the same file. */
#include "passes/merge_scales.c"

static const nb_pass *const passes[] = {&nb_pass_merge_scales, NULL};

NB_EXPORT const nb_plugin nb_plugin_v1 = {
    .size = sizeof(nb_plugin),
    .abi_major = NB_PASS_ABI_MAJOR,
    .abi_minor = NB_PASS_ABI_MINOR,
    .name = "merge-scales",
    .passes = passes,
};
