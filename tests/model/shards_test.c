/* How ranks share a flat array: every number once, in whole parts. */
#include "model/shards.h"

#include <stdlib.h>

#include "base/rng.h"
#include "model/support.h"
#include "model/tests.h"

static void test_parts_cover_everything_once(void **state)
{
    enum { TRIES = 500 };
    const ct_rng_key key = ct_rng_make(1, CT_RNG_TEST, 5, 5);
    (void)state;
    for (uint64_t i = 0; i < TRIES; i++) {
        const int64_t count = 1 + ct_rng_below(key, 3 * i, 20000);
        const int64_t bucket = 1 + ct_rng_below(key, 3 * i + 1, 5000);
        const int size = 1 + (int)ct_rng_below(key, 3 * i + 2, 9);
        int64_t next = 0;
        const ct_shards first = ct_shards_make(count, bucket, 0, size);
        assert_true(first.count >= count && first.count < count + CT_SHARD_MULTIPLE * size);
        for (int64_t b = 0; b < ct_shards_buckets(&first); b++) {
            const ct_range all = ct_shards_bucket(&first, b);
            assert_int_equal(all.begin, next);
            for (int r = 0; r < size; r++) {
                const ct_shards shards = ct_shards_make(count, bucket, r, size);
                const ct_range own = ct_shards_own(&shards, b);
                assert_int_equal(own.begin, next);
                assert_int_equal(own.begin % CT_SHARD_MULTIPLE, 0);
                assert_int_equal(ct_range_count(own) * size, ct_range_count(all));
                next = own.end;
            }
            assert_int_equal(all.end, next);
        }
        assert_int_equal(next, first.count);
    }
}

/* A rank's parts lie one behind the other without gaps. */
static void test_own_parts_are_packed(void **state)
{
    const ct_shards shards = ct_shards_make(10000, 3000, 2, 3);
    int64_t next = 0;
    (void)state;
    for (int64_t b = 0; b < ct_shards_buckets(&shards); b++) {
        assert_int_equal(ct_shards_own_begin(&shards, b), next);
        next += ct_range_count(ct_shards_own(&shards, b));
    }
    assert_int_equal(next, ct_shards_own_count(&shards));
}

static void test_common_ranges(void **state)
{
    (void)state;
    const ct_range a = {10, 20};
    assert_int_equal(ct_range_count(ct_range_common(a, (ct_range){15, 30})), 5);
    assert_int_equal(ct_range_common(a, (ct_range){15, 30}).begin, 15);
    assert_int_equal(ct_range_count(ct_range_common(a, (ct_range){0, 10})), 0);
    assert_int_equal(ct_range_count(ct_range_common(a, (ct_range){25, 30})), 0);
    assert_int_equal(ct_range_count(ct_range_common(a, (ct_range){12, 13})), 1);
}

int run_shards_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts_cover_everything_once),
        cmocka_unit_test(test_own_parts_are_packed),
        cmocka_unit_test(test_common_ranges),
    };
    return cmocka_run_group_tests_name("shards", tests, NULL, NULL);
}
