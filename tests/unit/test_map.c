/* Maps: both kinds of keys, replacing, insertion order, and hashes that never change. */
#include "ir/support/map.h"
#include "tests/unit/unit.h"

#include <stdio.h>
#include <string.h>

START_TEST(address_keys) {
    enum { N = 5000 };
    static int keys[N], values[N];
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_map map = {.arena = arena};
    ck_assert_ptr_null(nb_map_get(&map, &keys[0]));
    for (int i = 0; i < N; i++) nb_map_set(&map, &keys[i], &values[i]);
    nb_map_set(&map, &keys[7], &values[0]);
    nb_map_set(&map, NULL, &values[1]);
    ck_assert_uint_eq(map.count, N + 1);
    for (int i = 0; i < N; i++) {
        ck_assert_ptr_eq(nb_map_get(&map, &keys[i]), i == 7 ? &values[0] : &values[i]);
        ck_assert_ptr_eq(map.entries[i].key, &keys[i]);
    }
    ck_assert_ptr_eq(nb_map_get(&map, NULL), &values[1]);
    ck_assert_ptr_null(nb_map_get(&map, values));
    nb_arena_destroy(arena);
}
END_TEST

START_TEST(string_keys_are_copied) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_map map = {.arena = arena};
    ck_assert_ptr_null(nb_map_get_str(&map, "a", 1));
    for (intptr_t i = 0; i < 5000; i++) {
        char key[24];
        size_t length = (size_t)snprintf(key, sizeof key, "value%d", (int)i);
        const char *own = nb_map_set_str(&map, key, length, (void *)(i + 1));
        ck_assert_ptr_ne(own, key);
        ck_assert_str_eq(own, key);
        ck_assert_ptr_eq(nb_map_set_str(&map, key, length, (void *)(i + 2)), own);
    }
    ck_assert_uint_eq(map.count, 5000);
    for (intptr_t i = 0; i < 5000; i++) {
        const char *key = map.entries[i].key;
        ck_assert_ptr_eq(nb_map_get_str(&map, key, strlen(key)), (void *)(i + 2));
    }
    ck_assert_ptr_null(nb_map_get_str(&map, "value5000", 9));
    nb_arena_destroy(arena);
}
END_TEST

/* Names from a model may be empty, hold NUL bytes, or be the start of one another. */
START_TEST(string_keys_are_bytes) {
    int a, b, c, d;
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_map map = {.arena = arena};
    nb_map_set_str(&map, "x\0y", 3, &a);
    nb_map_set_str(&map, "x\0z", 3, &b);
    nb_map_set_str(&map, "x", 1, &c);
    nb_map_set_str(&map, "", 0, &d);
    ck_assert_ptr_eq(nb_map_get_str(&map, "x\0y", 3), &a);
    ck_assert_ptr_eq(nb_map_get_str(&map, "x\0z", 3), &b);
    ck_assert_ptr_eq(nb_map_get_str(&map, "x", 1), &c);
    ck_assert_ptr_eq(nb_map_get_str(&map, NULL, 0), &d);
    ck_assert_ptr_null(nb_map_get_str(&map, "x\0", 2));
    nb_arena_destroy(arena);
}
END_TEST

/* Published test values of XXH3: hashes are stored in files. */
START_TEST(hashes_are_stable) {
    ck_assert_uint_eq(nb_hash("", 0), UINT64_C(0x2d06800538d394c2));
    ck_assert_uint_eq(nb_hash("abc", 3), UINT64_C(0x78af5f94892f3950));
    ck_assert_uint_ne(nb_hash_mix(1, 2), nb_hash_mix(2, 1));
    ck_assert_uint_ne(nb_hash_mix(0, 0), 0);
    ck_assert_uint_ne(nb_hash_mix(0, 1), nb_hash_mix(1, 0));
}
END_TEST

Suite *nb_suite_map(void) {
    Suite *suite = suite_create("map");
    TCase *tests = tcase_create("map");
    tcase_add_test(tests, address_keys);
    tcase_add_test(tests, string_keys_are_copied);
    tcase_add_test(tests, string_keys_are_bytes);
    tcase_add_test(tests, hashes_are_stable);
    suite_add_tcase(suite, tests);
    return suite;
}
