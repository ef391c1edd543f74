/* nibble profile: what each operation of a model takes, and which part of the machine's limit that
 * is: `nibble bench --layers`. */
#include "tools/bench.h"

nb_status nbt_profile(nbt_args *args) { return nbt_bench_report(args); }
