#include "cpu_tests.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "../support.h"
#include "cpu/activation.h"
#include "cpu/cpu.h"
#include "cpu/internal.h"
#include "cpu/onednn.h"

/* Lets an impossible allocation fail, as without AddressSanitizer, instead of ending the test. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

static int create_device(void **state)
{
    ct_device *device;
    if (ct_cpu_device_create(2, &device) != CT_OK) return -1;
    *state = device;
    return 0;
}

static int destroy_device(void **state)
{
    ct_device_destroy(*state);
    return 0;
}

static void test_threads(void **state)
{
    (void)state;
    assert_true(ct_cpu_count() >= 1);
    ct_device *device = NULL;
    assert_int_equal(ct_cpu_device_create(-1, &device), CT_ERR_ARGUMENT);
    assert_non_null(strstr(ct_error_message(), "-1"));
    assert_ok(ct_cpu_device_create(0, &device));
    assert_int_equal(ct_cpu(device)->threads, ct_cpu_count());
    ct_device_destroy(device);
    ct_device_destroy(NULL);
}

static void test_memory(void **state)
{
    ct_device *device = *state;
    const ct_backend *backend = device->backend;
    unsigned char *memory = NULL, host[100], back[100];
    assert_ok(backend->alloc(device, sizeof host, "a test", (void **)&memory));
    assert_int_equal((uintptr_t)memory % CT_ALIGNMENT, 0);
    for (size_t i = 0; i < sizeof host; i++) {
        assert_int_equal(memory[i], 0);
        host[i] = (unsigned char)(i + 1);
    }
    assert_ok(backend->upload(device, memory, host, sizeof host));
    assert_ok(backend->zero(device, memory + 10, 5));
    assert_ok(backend->synchronize(device));
    assert_ok(backend->download(device, back, memory, sizeof back));
    memset(host + 10, 0, 5);
    assert_memory_equal(back, host, sizeof host);
    backend->free(device, memory);
    backend->free(device, NULL);
}

static void test_out_of_memory(void **state)
{
    ct_device *device = *state;
    const size_t sizes[] = {SIZE_MAX, SIZE_MAX - CT_ALIGNMENT, SIZE_MAX / 4};
    for (int i = 0; i < 3; i++) {
        void *memory;
        assert_int_equal(device->backend->alloc(device, sizes[i], "the parameters", &memory),
                         CT_ERR_MEMORY);
        assert_non_null(strstr(ct_error_message(), "the parameters"));
    }
}

/* Preparing notes a workspace and builds the convolution; running then needs no other. */
static void test_prepare(void **state)
{
    ct_device *device = *state;
    float x[2 * 5 * 5 * 3], w[4 * 3 * 3 * 3], y[2 * 5 * 5 * 4];
    memset(x, 0, sizeof x);
    memset(w, 0, sizeof w);
    ct_conv2d_fwd_args args = {.y = ct_tensor4(NULL, CT_F32, 2, 5, 5, 4),
                               .x = ct_tensor4(NULL, CT_F32, 2, 5, 5, 3),
                               .w = ct_tensor4(NULL, CT_F32, 4, 3, 3, 3),
                               .stride = 1,
                               .pad = 1};
    const int built = ct_onednn_conv_count(ct_cpu(device)->onednn);
    for (int i = 0; i < 2; i++)
        assert_ok(device->backend->prepare(device, CT_OP_conv2d_fwd, &args));
    assert_true(device->workspace_bytes > 0);
    assert_int_equal(ct_cpu(device)->workspace_capacity, 0);
    assert_ok(device->backend->commit(device));
    const size_t bytes = device->workspace_bytes;
    args.x.data = x;
    args.w.data = w;
    args.y.data = y;
    assert_ok(device->backend->conv2d_fwd(device, &args));
    assert_int_equal(device->workspace_bytes, bytes);
    assert_int_equal(ct_cpu(device)->workspace_capacity, bytes);
    assert_int_equal(ct_onednn_conv_count(ct_cpu(device)->onednn), built + 1);
}

static void test_impossible_convolution(void **state)
{
    ct_device *device = *state;
    const ct_conv_shape shape = {
        .n = 1, .h = 4, .w = 4, .ci = 3, .ho = 9, .wo = 9, .co = 5, .kh = 3, .kw = 3, .stride = 1};
    const ct_conv *conv;
    assert_int_equal(ct_onednn_conv(ct_cpu(device)->onednn, CT_CONV_FWD, &shape, &conv),
                     CT_ERR_DEVICE);
    assert_non_null(strstr(ct_error_message(), "(1, 4, 4, 3) with (5, 3, 3, 3)"));
}

/* Errors in units of the result's last place against libm's double erfc. Phi's argument of the
 * exponential, x^2/2, is rounded, which costs a relative x^2/2 half units in the tail. What is
 * below 5e-35 may be 0. */
static void test_normal_distribution(void **state)
{
    (void)state;
    for (float x = -13.0f; x <= 13.0f; x += 0.000731f) {
        const ct_normal found = ct_normal_at(x);
        const double phi = erfc(-(double)x * M_SQRT1_2) / 2;
        const double density = exp(-(double)x * (double)x / 2) * M_2_SQRTPI * M_SQRT1_2 / 2;
        const double half_units = 6 + (double)x * (double)x / 2;
        const double limit = half_units * (double)FLT_EPSILON / 2;
        if (fabs((double)found.distribution - phi) > limit * phi + 5e-35)
            fail_msg("Phi(%g) is %.9g, not %.9g", (double)x, (double)found.distribution, phi);
        if (fabs((double)found.density - density) > limit * density + 5e-35)
            fail_msg("phi(%g) is %.9g, not %.9g", (double)x, (double)found.density, density);
    }
}

static void test_activation_limits(void **state)
{
    (void)state;
    for (int act = CT_ACT_RELU; act <= CT_ACT_QUICK_GELU; act++) {
        float x[5] = {-100.0f, 100.0f, -0.0f, 3e38f, NAN}, y[5], dx[5];
        const float dy[5] = {1, 1, 1, 1, 1};
        ct_cpu_activate(y, x, 5, (ct_activation)act);
        ct_cpu_activate_backward(dx, dy, x, 5, (ct_activation)act);
        assert_true(y[0] == 0.0f && y[1] == 100.0f && y[2] == 0.0f && y[3] == 3e38f);
        assert_true(fabsf(dx[0]) < FLT_MIN && dx[1] == 1.0f);
        assert_true(isnan(y[4]));
    }
}

/* A NaN must reach the loss, where training stops on it. */
static void test_nan_in_pooling(void **state)
{
    ct_device *device = *state;
    float x[9] = {1, 2, 3, 4, NAN, 6, 7, 8, 9}, y[1];
    uint8_t index[1];
    ct_maxpool_fwd_args args = {.y = ct_tensor4(y, CT_F32, 1, 1, 1, 1),
                                .index = ct_tensor4(index, CT_U8, 1, 1, 1, 1),
                                .x = ct_tensor4(x, CT_F32, 1, 3, 3, 1),
                                .window = 3,
                                .stride = 1};
    assert_ok(device->backend->maxpool_fwd(device, &args));
    assert_true(isnan(y[0]));
    assert_int_equal(index[0], 4);
}

int ct_run_cpu_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_prepare),
        cmocka_unit_test(test_impossible_convolution),
        cmocka_unit_test(test_normal_distribution),
        cmocka_unit_test(test_activation_limits),
        cmocka_unit_test(test_nan_in_pooling),
    };
    return cmocka_run_group_tests_name("cpu", tests, create_device, destroy_device);
}
