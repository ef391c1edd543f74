/* Growable arrays: order, growth, and items of odd sizes. */
#include "ir/support/vec.h"
#include "tests/unit/unit.h"

START_TEST(pushed_items_stay_in_order) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    NB_VEC(int) numbers = {0};
    for (int i = 0; i < 10000; i++) nb_vec_push(arena, &numbers, i);
    ck_assert_uint_eq(numbers.count, 10000);
    ck_assert_uint_ge(numbers.capacity, numbers.count);
    for (int i = 0; i < 10000; i++) ck_assert_int_eq(numbers.items[i], i);
    nb_arena_destroy(arena);
}
END_TEST

START_TEST(items_may_be_structs) {
    typedef struct triple {
        char bytes[3];
    } triple;
    nb_arena *arena = nb_arena_create(NULL, NULL);
    NB_VEC(triple) triples = {0};
    for (int i = 0; i < 100; i++) nb_vec_push(arena, &triples, ((triple){{(char)i, 'b', 'c'}}));
    for (int i = 0; i < 100; i++) ck_assert_int_eq(triples.items[i].bytes[0], i);
    nb_arena_destroy(arena);
}
END_TEST

START_TEST(growing_leaves_the_old_copy) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    size_t capacity = 0;
    char *first = nb_vec_grow(arena, NULL, 1, &capacity);
    size_t small = capacity;
    first[0] = 'a';
    char *second = nb_vec_grow(arena, first, 1, &capacity);
    ck_assert_uint_ge(capacity, 2 * small);
    ck_assert_ptr_ne(first, second);
    ck_assert(first[0] == 'a' && second[0] == 'a' && second[small] == 0);
    nb_arena_destroy(arena);
}
END_TEST

Suite *nb_suite_vec(void) {
    Suite *suite = suite_create("vec");
    TCase *tests = tcase_create("vec");
    tcase_add_test(tests, pushed_items_stay_in_order);
    tcase_add_test(tests, items_may_be_structs);
    tcase_add_test(tests, growing_leaves_the_old_copy);
    suite_add_tcase(suite, tests);
    return suite;
}
