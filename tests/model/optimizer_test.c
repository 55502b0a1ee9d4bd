#include "model/optimizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/support.h"
#include "model/tests.h"

static void test_schedule(void **state)
{
    (void)state;
    ct_config *config;
    assert_ok(ct_config_create(&config));
    config->train.warmup_steps = 4;
    config->train.schedule = CT_SCHEDULE_COSINE;
    for (int step = 1; step <= 5; step++)
        assert_true(ct_schedule_factor(config, step, 24) == step / 5.0);
    /* 20 steps of half a cosine: half at the middle, and the last step still moves. */
    assert_true(fabs(ct_schedule_factor(config, 15, 24) - 0.5) < 1e-12);
    assert_true(fabs(ct_schedule_factor(config, 24, 24) -
                     0.5 * (1.0 - cos(3.14159265358979323846 / 20.0))) < 1e-12);
    for (int step = 5; step < 24; step++)
        assert_true(ct_schedule_factor(config, step + 1, 24) <
                    ct_schedule_factor(config, step, 24));
    assert_true(ct_schedule_factor(config, 25, 24) == 0.0);
    assert_true(ct_schedule_factor(config, 1000, 24) == 0.0);

    config->train.schedule = CT_SCHEDULE_CONSTANT;
    assert_true(ct_schedule_factor(config, 2, 24) == 0.4);
    assert_true(ct_schedule_factor(config, 1000, 24) == 1.0);
    config->train.warmup_steps = 0;
    config->train.schedule = CT_SCHEDULE_COSINE;
    assert_true(ct_schedule_factor(config, 1, 1) == 1.0);
    ct_config_destroy(config);
}

/* One parameter of each group, one without decay, one with a greatest value. */
enum { IMAGE, TEXT, HEAD, NO_DECAY, LIMITED, PARAMS };

typedef struct fixture {
    ct_config *config;
    ct_device *device;
    ct_params *params;
    const ct_param *param[PARAMS], *loss_scale;
    ct_optimizer *optimizer;
} fixture;

static void setup(fixture *f, bool scaled)
{
    *f = (fixture){0};
    static const char *const name[PARAMS] = {"image", "text", "head", "no decay", "limited"};
    assert_ok(ct_config_create(&f->config));
    f->config->train.lr_image = 1e-2;
    f->config->train.lr_text = 2e-2;
    f->config->train.lr_head = 4e-2;
    f->config->train.weight_decay = 0.5;
    f->config->train.warmup_steps = 0;
    f->config->train.schedule = CT_SCHEDULE_CONSTANT;
    f->config->train.clip_grad_norm = 0.0;
    assert_ok(ct_cpu_device_create(1, &f->device));
    assert_ok(ct_params_create(&f->params));
    for (int i = 0; i < PARAMS; i++) {
        ct_param param = {.value = ct_tensor1(NULL, CT_F32, 1),
                          .group = i == IMAGE  ? CT_GROUP_IMAGE
                                   : i == TEXT ? CT_GROUP_TEXT
                                               : CT_GROUP_HEAD,
                          .decay = i != NO_DECAY,
                          .init = CT_INIT_CONSTANT,
                          .init_scale = 2.0f,
                          .max_value = i == LIMITED ? 1.5f : INFINITY};
        snprintf(param.name, sizeof param.name, "%s", name[i]);
        assert_ok(ct_params_add(f->params, &param, &f->param[i]));
    }
    const ct_param loss_scale = {.name = "loss_scale",
                                 .value = ct_tensor1(NULL, CT_F32, 2),
                                 .buffer = true,
                                 .init = CT_INIT_CONSTANT};
    if (scaled) assert_ok(ct_params_add(f->params, &loss_scale, &f->loss_scale));
    assert_ok(ct_params_allocate(f->params, f->device, 1, true));
    for (int i = 0; i < PARAMS; i++) *ct_f32(&f->param[i]->grad) = 3.0f;
    assert_ok(ct_optimizer_create(f->config, f->params, f->device, 10, &f->optimizer));
}

static void teardown(fixture *f)
{
    ct_optimizer_destroy(f->optimizer);
    ct_params_destroy(f->params);
    ct_device_destroy(f->device);
    ct_config_destroy(f->config);
}

/* AdamW's first step moves by the learning rate against the gradient's sign, after decay. */
static void test_groups(void **state)
{
    (void)state;
    fixture f;
    setup(&f, false);
    run_update(f.optimizer, 1);
    const double lr[PARAMS] = {1e-2, 2e-2, 4e-2, 4e-2, 4e-2};
    for (int i = 0; i < PARAMS; i++) {
        double expected = 2.0 * (1.0 - (i == NO_DECAY ? 0.0 : lr[i] * 0.5)) - lr[i];
        if (i == LIMITED) expected = 1.5;
        assert_true(fabs(*ct_f32(&f.param[i]->value) - expected) < 1e-6);
    }
    ct_optimizer_stats stats;
    assert_ok(ct_optimizer_get_stats(f.optimizer, &stats));
    assert_true(fabs(stats.grad_norm - 3.0 * sqrt(PARAMS)) < 1e-5);
    assert_false(stats.skipped);
    teardown(&f);
}

static void test_bad_gradients_change_nothing(void **state)
{
    (void)state;
    fixture f;
    setup(&f, false);
    *ct_f32(&f.param[TEXT]->grad) = NAN;
    run_update(f.optimizer, 1);
    for (int i = 0; i < PARAMS; i++) {
        assert_true(*ct_f32(&f.param[i]->value) == 2.0f);
        assert_true(*ct_f32(&f.param[i]->exp_avg) == 0.0f);
    }
    ct_optimizer_stats stats;
    assert_ok(ct_optimizer_get_stats(f.optimizer, &stats));
    assert_true(stats.skipped);
    teardown(&f);
}

/* Gradients that are 256 times as large move parameters no further; an infinite one halves the
 * scale, and enough finite steps double it. */
static void test_loss_scale(void **state)
{
    (void)state;
    fixture plain, f;
    setup(&plain, false);
    setup(&f, true);
    f.config->train.loss_scale_growth = 2;
    float *scale = ct_f32(&f.loss_scale->value);
    scale[0] = 256.0f;
    ct_optimizer_stats stats;
    for (int step = 1; step <= 2; step++) {
        for (int i = 0; i < PARAMS; i++) *ct_f32(&f.param[i]->grad) = 3.0f * 256.0f;
        run_update(plain.optimizer, step);
        run_update(f.optimizer, step);
        assert_ok(ct_optimizer_get_stats(f.optimizer, &stats));
        assert_true(fabs(stats.grad_norm - 3.0 * sqrt(PARAMS)) < 1e-5 && !stats.skipped);
        for (int i = 0; i < PARAMS; i++)
            assert_true(*ct_f32(&f.param[i]->value) == *ct_f32(&plain.param[i]->value));
    }
    assert_true(stats.loss_scale == 512.0f && scale[1] == 0.0f);
    *ct_f32(&f.param[HEAD]->grad) = INFINITY;
    run_update(f.optimizer, 3);
    assert_ok(ct_optimizer_get_stats(f.optimizer, &stats));
    assert_true(stats.skipped && stats.loss_scale == 256.0f);
    assert_true(*ct_f32(&f.param[HEAD]->value) == *ct_f32(&plain.param[HEAD]->value));
    teardown(&f);
    teardown(&plain);
}

int run_optimizer_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schedule),
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_bad_gradients_change_nothing),
        cmocka_unit_test(test_loss_scale),
    };
    return cmocka_run_group_tests_name("optimizer", tests, NULL, NULL);
}
