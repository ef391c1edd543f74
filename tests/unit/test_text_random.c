/* Round trips of random graphs (tests/support/random_graph.h); `scale_tests graphs 1000000` does
 * more of them. */
#include "tests/support/random_graph.h"
#include "tests/unit/unit.h"

enum { GRAPHS = 3000 };

START_TEST(random_graphs) {
    size_t ops = 0, bytes = 0;
    for (uint64_t seed = 0; seed < GRAPHS; seed++) {
        nb_arena *arena = nb_arena_create(NULL, NULL);
        const char *problem = nb_random_round_trip(seed, arena, &ops, &bytes);
        ck_assert_msg(!problem, "seed %d: %s", (int)seed, problem);
        nb_arena_destroy(arena);
    }
    ck_assert_uint_ge(ops, 10 * (size_t)GRAPHS);
}
END_TEST

Suite *nb_suite_text_random(void) {
    Suite *s = suite_create("text_random");
    TCase *c = tcase_create("random");
    tcase_set_timeout(c, 300);
    tcase_add_test(c, random_graphs);
    suite_add_tcase(s, c);
    return s;
}
