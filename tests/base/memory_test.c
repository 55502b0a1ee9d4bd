#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "support.h"

/* Far more than a machine has, yet not so much that count * size overflows. */
#define TOO_MUCH ((size_t)1 << 60)

static void allocations(void **state)
{
    (void)state;
    int *numbers;
    assert_ok(ct_alloc(100, sizeof *numbers, "numbers", &numbers));
    for (int i = 0; i < 100; i++) assert_int_equal(numbers[i], 0);
    free(numbers);
    assert_ok(ct_alloc(0, sizeof *numbers, "none", &numbers));
    assert_non_null(numbers);
    free(numbers);
    char *copy;
    assert_ok(ct_strdup("a text", &copy));
    assert_string_equal(copy, "a text");
    free(copy);
}

/* Sanitizers end the program on such requests unless told otherwise. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "allocator_may_return_null=1";
}

static void too_much_is_an_error(void **state)
{
    (void)state;
    const char *out = "kept";
    assert_fails_ending(ct_alloc(TOO_MUCH, 1, "numbers", &out), CT_ERR_MEMORY,
                        "1 bytes for numbers");
    assert_fails_ending(ct_alloc(SIZE_MAX, 8, "numbers", &out), CT_ERR_MEMORY,
                        "8 bytes for numbers");
    assert_string_equal(out, "kept");
    size_t capacity = 0;
    char *block = NULL;
    assert_ok(ct_grow(&block, &capacity, 10, 1, "a block"));
    memcpy(block, "contents", 9);
    assert_fails_ending(ct_grow(&block, &capacity, TOO_MUCH, 1, "a block"), CT_ERR_MEMORY,
                        "for a block");
    assert_fails_ending(ct_grow(&block, &capacity, SIZE_MAX, 16, "a block"), CT_ERR_MEMORY,
                        "for a block");
    assert_string_equal(block, "contents");
    assert_true(capacity >= 10 && capacity < 100);
    free(block);
}

static void growing_keeps_contents(void **state)
{
    (void)state;
    size_t capacity = 0, grown = 0;
    uint32_t *numbers = NULL;
    for (uint32_t i = 0; i < 10000; i++) {
        size_t before = capacity;
        assert_ok(ct_grow(&numbers, &capacity, i + 1u, sizeof *numbers, "numbers"));
        assert_true(capacity > i);
        grown += capacity != before;
        numbers[i] = i * i;
    }
    for (uint32_t i = 0; i < 10000; i++) assert_int_equal(numbers[i], i * i);
    assert_true(grown <= 12); /* by doubling */
    free(numbers);
}

static void an_arena_is_a_stack(void **state)
{
    (void)state;
    static _Alignas(CT_ALIGNMENT) uint8_t block[1024];
    ct_arena arena;
    void *a, *b, *c, *again;
    ct_arena_init(&arena, block, sizeof block);
    assert_ok(ct_arena_push(&arena, 1, &a));
    size_t mark = ct_arena_mark(&arena);
    assert_ok(ct_arena_push(&arena, 65, &b));
    assert_ok(ct_arena_push(&arena, 0, &c));
    assert_ptr_equal(a, block);
    assert_ptr_equal(b, block + 64);
    assert_ptr_equal(c, block + 192);
    ct_arena_release(&arena, mark);
    assert_ok(ct_arena_push(&arena, 64, &again));
    assert_ptr_equal(again, b);
    assert_int_equal(arena.used_bytes, 128);
    assert_int_equal(arena.peak_bytes, 192);
}

static void a_full_arena_refuses(void **state)
{
    (void)state;
    static _Alignas(CT_ALIGNMENT) uint8_t block[128];
    ct_arena arena;
    void *out;
    ct_arena_init(&arena, block, sizeof block);
    assert_ok(ct_arena_push(&arena, 64, &out));
    assert_fails_ending(ct_arena_push(&arena, 65, &out), CT_ERR_INTERNAL,
                        "arena of 128 bytes is full: 64 used, 65 more asked for");
    assert_int_equal(arena.used_bytes, 64);
    assert_ok(ct_arena_push(&arena, 64, &out));
    assert_fails_ending(ct_arena_push(&arena, 1, &out), CT_ERR_INTERNAL, "1 more asked for");
}

static void a_measuring_arena_only_counts(void **state)
{
    (void)state;
    ct_arena arena;
    void *out = &arena;
    ct_arena_init(&arena, NULL, 0);
    assert_ok(ct_arena_push(&arena, 1000, &out));
    assert_null(out);
    ct_arena_release(&arena, 0);
    assert_ok(ct_arena_push(&arena, 10, &out));
    assert_int_equal(arena.peak_bytes, 1024);
    assert_int_equal(arena.used_bytes, 64);
}

int run_memory_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocations),
        cmocka_unit_test(too_much_is_an_error),
        cmocka_unit_test(growing_keeps_contents),
        cmocka_unit_test(an_arena_is_a_stack),
        cmocka_unit_test(a_full_arena_refuses),
        cmocka_unit_test(a_measuring_arena_only_counts),
    };
    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
