/* Arena: alignment, zeroing, independence of allocations, strings, and running out of memory. */
#include "ir/support/arena.h"
#include "tests/unit/unit.h"

#include <setjmp.h>
#include <signal.h>
#include <string.h>

/* One assertion for a block: Check reports each assertion through a pipe, which is slow. */
static bool filled_with(const unsigned char *memory, size_t size, unsigned char value) {
    for (size_t i = 0; i < size; i++)
        if (memory[i] != value) return false;
    return true;
}

START_TEST(memory_is_zeroed_and_aligned) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    unsigned char *last = NULL;
    for (size_t size = 0; size < 3000; size += 7) {
        unsigned char *memory = nb_alloc(arena, size);
        ck_assert_uint_eq((uintptr_t)memory % 16, 0);
        ck_assert_ptr_ne(memory, last);
        ck_assert(filled_with(memory, size, 0));
        if (size > 0) memset(memory, 0xa5, size);
        last = memory;
    }
    nb_arena_destroy(arena);
}
END_TEST

/* Large blocks get chunks of their own between small ones; none may move or overlap another. */
START_TEST(large_and_small_keep_their_bytes) {
    enum { N = 200 };
    nb_arena *arena = nb_arena_create(NULL, NULL);
    unsigned char *blocks[N];
    size_t sizes[N];
    for (size_t i = 0; i < N; i++) {
        sizes[i] = i % 10 == 3 ? 100000 * (i + 1) / 10 : i + 1;
        blocks[i] = NB_NEW_ARRAY(arena, unsigned char, sizes[i]);
        memset(blocks[i], (int)i, sizes[i]);
    }
    for (size_t i = 0; i < N; i++) ck_assert(filled_with(blocks[i], sizes[i], (unsigned char)i));
    nb_arena_destroy(arena);
}
END_TEST

START_TEST(strings) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    ck_assert_str_eq(nb_strdup(arena, "nibble"), "nibble");
    ck_assert_str_eq(nb_strndup(arena, "nibble", 3), "nib");
    ck_assert_str_eq(nb_strndup(arena, NULL, 0), "");
    char *text = nb_format(arena, "%05d|%*s", 42, 9000, "x");
    ck_assert_uint_eq(strlen(text), 9006);
    ck_assert_str_eq(text + 9005, "x");
    ck_assert_int_eq(strncmp(text, "00042|   ", 9), 0);
    nb_arena_destroy(arena);
}
END_TEST

static void jump(void *user) { longjmp(*(jmp_buf *)user, 1); }

static void expect_out_of_memory(size_t count, size_t size) {
    jmp_buf back;
    nb_arena *volatile arena = nb_arena_create(jump, &back);
    nb_arena *volatile child = nb_arena_create_like(arena);
    if (setjmp(back) == 0) {
        nb_alloc_array(child, count, size);
        ck_abort_msg("%zu * %zu bytes were allocated", count, size);
    }
    ck_assert_str_eq(nb_strdup(child, "usable"), "usable");
    nb_arena_destroy(child);
    nb_arena_destroy(arena);
}

START_TEST(out_of_memory_calls_the_handler) {
    expect_out_of_memory(SIZE_MAX, 1);
    expect_out_of_memory(SIZE_MAX / 2, 3);
    expect_out_of_memory((size_t)1 << 32, (size_t)1 << 32);
}
END_TEST

START_TEST(without_a_handler_the_process_aborts) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_alloc(arena, SIZE_MAX);
    nb_arena_destroy(arena);
}
END_TEST

Suite *nb_suite_arena(void) {
    Suite *suite = suite_create("arena");
    TCase *tests = tcase_create("arena");
    tcase_add_test(tests, memory_is_zeroed_and_aligned);
    tcase_add_test(tests, large_and_small_keep_their_bytes);
    tcase_add_test(tests, strings);
    tcase_add_test(tests, out_of_memory_calls_the_handler);
    tcase_add_test_raise_signal(tests, without_a_handler_the_process_aborts, SIGABRT);
    suite_add_tcase(suite, tests);
    return suite;
}
