#include "model/params.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "model/support.h"
#include "model/tests.h"

static ct_param describe(const char *name, ct_tensor shape, ct_init_kind init, float scale)
{
    ct_param param = {
        .value = shape, .decay = true, .init = init, .init_scale = scale, .max_value = INFINITY};
    snprintf(param.name, sizeof param.name, "%s", name);
    return param;
}

static const ct_param *add(ct_params *params, ct_param param)
{
    const ct_param *added;
    assert_ok(ct_params_add(params, &param, &added));
    return added;
}

typedef struct fixture {
    ct_device *device;
    ct_params *params;
} fixture;

static void setup(fixture *f)
{
    assert_ok(ct_cpu_device_create(1, &f->device));
    assert_ok(ct_params_create(&f->params));
}

static void teardown(fixture *f)
{
    ct_params_destroy(f->params);
    ct_device_destroy(f->device);
}

static ct_tensor shape1(int64_t n)
{
    return ct_tensor1(NULL, CT_F32, n);
}

static void test_layout(void **state)
{
    (void)state;
    fixture f;
    setup(&f);
    const ct_param *a = add(f.params, describe("a", shape1(32), CT_INIT_CONSTANT, 1.0f));
    ct_param running = describe("running", shape1(3), CT_INIT_CONSTANT, 2.0f);
    running.buffer = true;
    const ct_param *buffer = add(f.params, running);
    const ct_param *b = add(f.params, describe("b", shape1(16), CT_INIT_CONSTANT, 3.0f));
    const ct_param *c = add(f.params, describe("c", shape1(5), CT_INIT_CONSTANT, 4.0f));
    assert_ok(ct_params_allocate(f.params, f.device, 1, true));

    /* In order, each at a multiple of the alignment; values, gradients and moments all alike, the
     * buffers apart. */
    assert_ptr_equal(b->value.data, ct_f32(&a->value) + 32);
    assert_ptr_equal(c->value.data, ct_f32(&b->value) + 16);
    assert_ptr_not_equal(buffer->value.data, NULL);
    assert_ptr_equal(b->grad.data, ct_f32(&a->grad) + 32);
    assert_ptr_equal(c->exp_avg.data, ct_f32(&b->exp_avg) + 16);
    assert_ptr_equal(c->exp_avg_sq.data, ct_f32(&b->exp_avg_sq) + 16);
    assert_false(ct_tensor_present(&buffer->grad) || ct_tensor_present(&buffer->exp_avg));
    assert_int_equal(ct_params_elements(f.params), 32 + 16 + 5);
    assert_int_equal(ct_params_bytes(f.params), 4 * (80 + 3 * 64));

    ct_f32(&a->grad)[31] = ct_f32(&c->grad)[4] = 1.0f;
    assert_ok(ct_params_zero_grads(f.params));
    assert_true(ct_f32(&a->grad)[31] == 0.0f && ct_f32(&c->grad)[4] == 0.0f);
    assert_ptr_equal(ct_params_find(f.params, "b"), b);
    assert_null(ct_params_find(f.params, "d"));
    teardown(&f);
}

static void test_evaluation_has_values_only(void **state)
{
    (void)state;
    fixture f;
    setup(&f);
    const ct_param *a = add(f.params, describe("a", shape1(100), CT_INIT_CONSTANT, 1.0f));
    assert_ok(ct_params_allocate(f.params, f.device, 1, false));
    assert_false(ct_tensor_present(&a->grad));
    assert_int_equal(ct_params_bytes(f.params), 448);
    teardown(&f);
}

static void test_misuse_is_refused(void **state)
{
    (void)state;
    fixture f;
    setup(&f);
    const ct_param *added;
    const ct_param a = describe("a", shape1(1), CT_INIT_CONSTANT, 1.0f);
    const ct_param b = describe("b", shape1(1), CT_INIT_CONSTANT, 1.0f);
    add(f.params, a);
    assert_fails(ct_params_add(f.params, &a, &added), CT_ERR_INTERNAL, "a added twice");
    assert_ok(ct_params_allocate(f.params, f.device, 1, false));
    assert_fails(ct_params_add(f.params, &b, &added), CT_ERR_INTERNAL, "after allocation");
    assert_fails(ct_params_allocate(f.params, f.device, 1, false), CT_ERR_INTERNAL, "twice");
    teardown(&f);
}

/* In files filters are (Co, Ci, KH, KW), in memory (Co, KH, KW, Ci). */
static void test_filters_are_transposed(void **state)
{
    (void)state;
    enum { CO = 3, KH = 2, KW = 5, CI = 4, COUNT = CO * KH * KW * CI };
    fixture f;
    setup(&f);
    ct_param filter =
        describe("w", ct_tensor4(NULL, CT_F32, CO, KH, KW, CI), CT_INIT_CONSTANT, 0.0f);
    filter.filter = true;
    const ct_param *w = add(f.params, filter);
    assert_ok(ct_params_allocate(f.params, f.device, 1, true));

    float file[COUNT], back[COUNT];
    for (int i = 0; i < COUNT; i++) file[i] = (float)i;
    assert_ok(ct_param_upload(f.params, w, &w->exp_avg, file));
    for (int o = 0; o < CO; o++)
        for (int p = 0; p < KH * KW; p++)
            for (int c = 0; c < CI; c++)
                assert_true(ct_f32(&w->exp_avg)[(o * KH * KW + p) * CI + c] ==
                            file[(o * CI + c) * KH * KW + p]);
    assert_ok(ct_param_download(f.params, w, &w->exp_avg, back));
    assert_memory_equal(file, back, sizeof file);
    teardown(&f);
}

/* Mean and variance of n draws are within 5 standard errors of the distribution's. */
static void check_moments(const float *x, int64_t n, double variance, double kurtosis)
{
    double sum = 0.0, squares = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sum += x[i];
        squares += (double)x[i] * x[i];
    }
    const double mean = sum / (double)n, found = squares / (double)n;
    assert_true(fabs(mean) <= 5.0 * sqrt(variance / (double)n));
    assert_true(fabs(found / variance - 1.0) <= 5.0 * sqrt((kurtosis - 1.0) / (double)n));
}

static void test_initialisation(void **state)
{
    (void)state;
    enum { COUNT = 100000 };
    fixture f;
    setup(&f);
    const ct_param *normal = add(f.params, describe("n", shape1(COUNT), CT_INIT_NORMAL, 0.02f));
    const ct_param *uniform = add(f.params, describe("u", shape1(COUNT), CT_INIT_UNIFORM, 0.5f));
    const ct_param *constant = add(f.params, describe("c", shape1(3), CT_INIT_CONSTANT, 7.0f));
    assert_ok(ct_params_allocate(f.params, f.device, 5, false));
    check_moments(ct_f32(&normal->value), COUNT, 0.02 * 0.02, 3.0);
    check_moments(ct_f32(&uniform->value), COUNT, 0.25 / 3.0, 1.8);
    for (int i = 0; i < COUNT; i++) assert_true(fabsf(ct_f32(&uniform->value)[i]) <= 0.5f);
    for (int i = 0; i < 3; i++) assert_true(ct_f32(&constant->value)[i] == 7.0f);
    teardown(&f);
}

/* The same name and seed give the same values whatever else there is; other names and seeds do
 * not. */
static void test_streams_of_their_own(void **state)
{
    (void)state;
    enum { COUNT = 64 };
    fixture f[3];
    const ct_param *a[3], *b[3];
    for (int i = 0; i < 3; i++) {
        setup(&f[i]);
        if (i == 1) b[i] = add(f[i].params, describe("b", shape1(COUNT), CT_INIT_NORMAL, 1.0f));
        a[i] = add(f[i].params, describe("a", shape1(COUNT), CT_INIT_NORMAL, 1.0f));
        if (i != 1) b[i] = add(f[i].params, describe("b", shape1(COUNT), CT_INIT_NORMAL, 1.0f));
        assert_ok(ct_params_allocate(f[i].params, f[i].device, i == 2 ? 6 : 5, false));
    }
    assert_memory_equal(a[0]->value.data, a[1]->value.data, COUNT * sizeof(float));
    assert_memory_equal(b[0]->value.data, b[1]->value.data, COUNT * sizeof(float));
    assert_memory_not_equal(a[0]->value.data, b[0]->value.data, COUNT * sizeof(float));
    assert_memory_not_equal(a[0]->value.data, a[2]->value.data, COUNT * sizeof(float));
    for (int i = 0; i < 3; i++) teardown(&f[i]);
}

/* Where the device computes in another type, operands have a second copy in it, adjacent like the
 * values, rounded whenever a value is uploaded. The CPU device can convert, which is all that is
 * needed here. */
static void test_weights(void **state)
{
    (void)state;
    fixture f;
    setup(&f);
    f.device->compute_dtype = CT_BF16;
    ct_param operand = describe("a", shape1(32), CT_INIT_CONSTANT, 1.0f);
    operand.operand = true;
    const ct_param *a = add(f.params, operand);
    const ct_param *norm = add(f.params, describe("norm", shape1(32), CT_INIT_CONSTANT, 3.0f));
    snprintf(operand.name, sizeof operand.name, "b");
    const ct_param *b = add(f.params, operand);
    assert_ok(ct_params_allocate(f.params, f.device, 1, false));
    assert_ptr_equal(norm->weight.data, norm->value.data);
    assert_int_equal(norm->weight.dtype, CT_F32);
    assert_int_equal(a->weight.dtype, CT_BF16);
    assert_ptr_equal(b->weight.data, (uint16_t *)a->weight.data + 32);
    assert_int_equal(ct_params_bytes(f.params), 3 * 32 * 4 + 2 * 32 * 2);

    float host[32];
    for (int i = 0; i < 32; i++) {
        assert_int_equal(((uint16_t *)a->weight.data)[i], 0x3F80); /* 1 */
        host[i] = 1.0f + (float)i / 1000.0f;
    }
    assert_ok(ct_param_upload(f.params, b, &b->value, host));
    for (int i = 0; i < 32; i++)
        assert_int_equal(((uint16_t *)b->weight.data)[i], ct_bf16_from_f32(host[i]));
    teardown(&f);
}

static void test_weights_in_f32_are_the_values(void **state)
{
    (void)state;
    fixture f;
    setup(&f);
    ct_param operand = describe("a", shape1(32), CT_INIT_CONSTANT, 1.0f);
    operand.operand = true;
    const ct_param *a = add(f.params, operand);
    assert_ok(ct_params_allocate(f.params, f.device, 1, false));
    assert_ptr_equal(a->weight.data, a->value.data);
    assert_int_equal(ct_params_bytes(f.params), 32 * 4);
    teardown(&f);
}

int run_params_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_evaluation_has_values_only),
        cmocka_unit_test(test_misuse_is_refused),
        cmocka_unit_test(test_filters_are_transposed),
        cmocka_unit_test(test_initialisation),
        cmocka_unit_test(test_streams_of_their_own),
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_weights_in_f32_are_the_values),
    };
    return cmocka_run_group_tests_name("params", tests, NULL, NULL);
}
