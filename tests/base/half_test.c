/* bf16 and f16 against what their formats say: every number there and back, and rounding between
 * every two neighbours. */
#include "base/half.h"

#include <math.h>

#include "support.h"

typedef struct format {
    float (*to_f32)(uint16_t);
    uint16_t (*from_f32)(float);
    uint16_t infinity; /* bits of it; NaN lies above */
} format;

static const format formats[] = {{ct_bf16_to_f32, ct_bf16_from_f32, 0x7F80},
                                 {ct_f16_to_f32, ct_f16_from_f32, 0x7C00}};
#define FORMATS (sizeof formats / sizeof *formats)

static void test_known_numbers(void **state)
{
    (void)state;
    assert_true(ct_f16_to_f32(0x3C00) == 1.0f && ct_f16_to_f32(0xC000) == -2.0f);
    assert_true(ct_f16_to_f32(0x7BFF) == 65504.0f && ct_f16_to_f32(0x0001) == 0x1p-24f);
    assert_true(ct_f16_to_f32(0x0400) == 0x1p-14f && ct_f16_to_f32(0x03FF) == 0x1.ff8p-15f);
    assert_true(ct_bf16_to_f32(0x3F80) == 1.0f && ct_bf16_to_f32(0x3F81) == 1.0f + 0x1p-7f);
    assert_true(ct_bf16_to_f32(0x7F7F) == 0x1.fep127f && ct_bf16_to_f32(0x0001) == 0x1p-133f);
    for (size_t f = 0; f < FORMATS; f++) {
        assert_true(isinf(formats[f].to_f32(formats[f].infinity)));
        assert_int_equal(formats[f].from_f32(INFINITY), formats[f].infinity);
        assert_int_equal(formats[f].from_f32(-INFINITY), formats[f].infinity | 0x8000);
        assert_int_equal(formats[f].from_f32(0x1.fffffep127f), formats[f].infinity);
        assert_int_equal(formats[f].from_f32(0x1p-149f), 0);
        assert_int_equal(formats[f].from_f32(-0.0f), 0x8000);
        assert_true(isnan(formats[f].to_f32(formats[f].from_f32(NAN))));
        assert_true(isnan(formats[f].to_f32(formats[f].from_f32(-NAN))));
    }
}

static void test_there_and_back(void **state)
{
    (void)state;
    for (size_t f = 0; f < FORMATS; f++)
        for (uint32_t bits = 0; bits <= 0xFFFF; bits++) {
            const float x = formats[f].to_f32((uint16_t)bits);
            if ((bits & 0x7FFF) > formats[f].infinity) {
                assert_true(isnan(x));
                continue;
            }
            assert_int_equal(formats[f].from_f32(x), bits);
            assert_int_equal(!!signbit(x), bits >> 15);
        }
}

/* Between neighbours a < b the middle goes to the even one, and what is next to it to the nearer.
 */
static void test_rounding(void **state)
{
    (void)state;
    for (size_t f = 0; f < FORMATS; f++)
        for (uint16_t bits = 0; bits + 1 < formats[f].infinity; bits++) {
            const float a = formats[f].to_f32(bits), b = formats[f].to_f32((uint16_t)(bits + 1));
            const float middle = a + (b - a) / 2;
            const uint16_t even = bits % 2 ? (uint16_t)(bits + 1) : bits;
            assert_true(a < middle && middle < b);
            assert_int_equal(formats[f].from_f32(middle), even);
            assert_int_equal(formats[f].from_f32(-middle), even | 0x8000);
            assert_int_equal(formats[f].from_f32(nextafterf(middle, 0)), bits);
            assert_int_equal(formats[f].from_f32(nextafterf(middle, INFINITY)), bits + 1);
        }
}

/* The mean over all random words is the number itself. */
static void test_stochastic_rounding(void **state)
{
    (void)state;
    static const float numbers[] = {1.0f, 1.3f, -0.7f, 0x1.fffffep3f, 3e-40f};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        double sum = 0;
        for (uint32_t random = 0; random <= 0xFFFF; random++)
            sum += (double)ct_bf16_to_f32(ct_bf16_stochastic(numbers[i], random | 0xABCD0000));
        assert_true(sum / 65536 == (double)numbers[i]);
    }
    assert_int_equal(ct_bf16_stochastic(INFINITY, 0xFFFF), 0x7F80);
    assert_true(isnan(ct_bf16_to_f32(ct_bf16_stochastic(NAN, 0xFFFF))));
}

int run_half_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_numbers),
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_rounding),
        cmocka_unit_test(test_stochastic_rounding),
    };
    return cmocka_run_group_tests_name("half", tests, NULL, NULL);
}
