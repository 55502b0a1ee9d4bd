/* Ten optimiser steps of whole models against PyTorch in float64 (tests/reference/make_model.py).
 *
 * Limits. The loss: 1e-5 relative at every step. All else: SINGLE times the error that PyTorch
 * itself makes in float32, measured over the whole tensor (a factor 2 for another order of
 * summation, 2 for the few entries that stand for the tensor), plus what rounding leaves over the
 * network's depth: EPS sqrt(DEPTH) of the reference's size. */
#include "model/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/optimizer.h"
#include "model/tests.h"

#define LOSS_LIMIT 1e-5
#define SINGLE     4.0
#define EPS        0x1p-24
#define ZERO       1e-12 /* a gradient's norm in f64 that is all rounding */
#define DEPTH      110   /* roundings in a row: 54 units of conv and norm, there and back */

typedef struct session {
    reference ref;
    ct_device *device;
    ct_clip *clip;
    ct_optimizer *optimizer;
    batch batches[2];
    int steps;
} session;

static void session_open(const char *name, session *s)
{
    reference_open(name, &s->ref);
    s->steps = cJSON_GetArraySize(json_get(s->ref.json, "loss"));
    for (int i = 0; i < 2; i++) batch_create(&s->ref, i, &s->batches[i]);
    const ct_clip_limits limits = reference_limits(&s->batches[0], &s->batches[1]);
    assert_ok(ct_cpu_device_create(0, &s->device));
    assert_ok(ct_clip_create(s->ref.config, s->ref.vocabulary, s->device, &limits, &s->clip));
    ct_params *params = ct_clip_params(s->clip);
    reference_initialise(&s->ref, params);
    assert_ok(ct_optimizer_create(s->ref.config, params, s->device, s->steps, &s->optimizer));
}

static void session_close(session *s)
{
    ct_optimizer_destroy(s->optimizer);
    ct_clip_destroy(s->clip);
    ct_device_destroy(s->device);
    for (int i = 0; i < 2; i++) batch_destroy(&s->batches[i]);
    reference_close(&s->ref);
}

/* Root mean square of expected and of actual - expected. */
typedef struct difference {
    double size, error;
} difference;

static difference compare(const cJSON *expected, const double *actual)
{
    const int count = cJSON_GetArraySize(expected);
    double size = 0.0, error = 0.0;
    for (int i = 0; i < count; i++) {
        double value = json_at(expected, i);
        size += value * value;
        error += (actual[i] - value) * (actual[i] - value);
    }
    return (difference){sqrt(size / count), sqrt(error / count)};
}

static void check_error(const char *name, const char *what, difference d, double single_error)
{
    const double limit = SINGLE * single_error + EPS * sqrt(DEPTH) * d.size;
    if (!(d.error <= limit))
        fail_msg("%s: %s is off by %.3g of %.3g, limit %.3g", name, what, d.error, d.size, limit);
}

/* Root mean square of all gradients of the first step. */
static double mean_gradient(const session *s)
{
    const double elements = (double)ct_params_elements(ct_clip_params(s->clip));
    return json_at(json_get(s->ref.json, "grad_norm"), 0) / sqrt(elements);
}

/* Entry `i` of make_model.py's sample of a tensor with `count` elements. */
static int64_t sample_index(int64_t i, int64_t count, int64_t samples)
{
    return count <= samples ? i : (i * 0x9E3779B1 + 12345) % count;
}

/* Compares the sampled entries of one of a parameter's tensors, and its norm if there is one. */
static void check_tensor(const session *s, const cJSON *json, const ct_param *param,
                         const ct_tensor *tensor, const char *key)
{
    enum { SAMPLES = 16 };
    char error_key[32], norm_key[32];
    snprintf(error_key, sizeof error_key, "%s_f32", key);
    snprintf(norm_key, sizeof norm_key, "%s_norm", key);
    const cJSON *expected = json_get(json, key);
    const int64_t count = ct_tensor_count(tensor);
    float *host = must_alloc(ct_tensor_bytes(tensor));
    assert_ok(ct_param_download(ct_clip_params(s->clip), param, tensor, host));

    double sampled[SAMPLES], squares = 0.0;
    const int samples = cJSON_GetArraySize(expected);
    assert_int_equal(samples, count < SAMPLES ? count : SAMPLES);
    for (int i = 0; i < samples; i++) sampled[i] = host[sample_index(i, count, SAMPLES)];
    for (int64_t i = 0; i < count; i++) squares += (double)host[i] * host[i];
    free(host);

    const double single_error = json_number(json, error_key);
    difference d = compare(expected, sampled);
    if (!cJSON_HasObjectItem(json, norm_key)) {
        check_error(param->name, key, d, single_error);
        return;
    }
    const double norm = json_number(json, norm_key), root = sqrt((double)count);
    difference norms = {norm / root, fabs(sqrt(squares) - norm) / root};
    /* A gradient that is zero (softmax ignores what is added to all keys) is a sum of terms that
     * cancel: what rounding leaves is relative to them, not to it. */
    if (norm < ZERO) d.size = norms.size = mean_gradient(s);
    check_error(param->name, key, d, single_error);
    check_error(param->name, norm_key, norms, single_error);
}

/* Every tensor of PyTorch's model, by name, and no other. */
static void check_tensors(const session *s, const char *key)
{
    const ct_params *params = ct_clip_params(s->clip);
    const cJSON *tensors = json_get(s->ref.json, "tensors"), *json;
    assert_int_equal(cJSON_GetArraySize(tensors), ct_params_count(params));
    cJSON_ArrayForEach(json, tensors)
    {
        const ct_param *param = ct_params_find(params, json->string);
        if (!param) fail_msg("the model has no %s", json->string);
        assert_int_equal(param->buffer, !cJSON_HasObjectItem(json, "grad"));
        if (strcmp(key, "value") == 0) check_tensor(s, json, param, &param->value, key);
        else if (!param->buffer) check_tensor(s, json, param, &param->grad, key);
    }
}

/* The greatest of PyTorch's float32 errors over the steps. */
static double greatest(const cJSON *array)
{
    double result = 0.0;
    for (int i = 0; i < cJSON_GetArraySize(array); i++)
        if (json_at(array, i) > result) result = json_at(array, i);
    return result;
}

static void train(session *s)
{
    const cJSON *losses = json_get(s->ref.json, "loss");
    const cJSON *norms = json_get(s->ref.json, "grad_norm");
    const double norm_error = greatest(json_get(s->ref.json, "grad_norm_f32"));
    for (int step = 1; step <= s->steps; step++) {
        const ct_clip_input *input = &s->batches[(step - 1) % 2].input;
        float loss;
        ct_optimizer_stats stats;
        assert_ok(ct_clip_forward_backward(s->clip, input, step - 1));
        assert_ok(ct_clip_loss(s->clip, &loss));
        if (step == 1) check_tensors(s, "grad");
        assert_ok(ct_optimizer_step(s->optimizer, step));
        assert_ok(ct_optimizer_get_stats(s->optimizer, &stats));

        const double expected = json_at(losses, step - 1), norm = json_at(norms, step - 1);
        const double error = fabs(loss / expected - 1.0);
        print_message("step %2d: loss %.7f, relative error %.1e (limit %.0e)\n", step, (double)loss,
                      error, LOSS_LIMIT);
        assert_true(error <= LOSS_LIMIT);
        check_error("the global norm", "grad",
                    (difference){1.0, fabs(stats.grad_norm / norm - 1.0)}, norm_error);
        assert_false(stats.skipped);
    }
}

static void check_embeddings(const session *s, const char *key,
                             ct_status (*encode)(ct_clip *clip, const ct_clip_input *input,
                                                 float *out))
{
    char error_key[32];
    snprintf(error_key, sizeof error_key, "%s_f32", key);
    const cJSON *expected = json_get(s->ref.json, key);
    const int count = cJSON_GetArraySize(expected);
    assert_int_equal(count, s->batches[0].input.count * s->ref.config->projection.dim);
    float *out = must_alloc(sizeof *out * (size_t)count);
    double *wide = must_alloc(sizeof *wide * (size_t)count);
    assert_ok(encode(s->clip, &s->batches[0].input, out));
    for (int i = 0; i < count; i++) wide[i] = out[i];
    check_error(key, "after training", compare(expected, wide),
                json_number(s->ref.json, error_key));
    free(wide);
    free(out);
}

static void check_case(const char *name)
{
    session s;
    session_open(name, &s);
    train(&s);
    check_tensors(&s, "value");
    check_embeddings(&s, "image_embeddings", ct_clip_encode_images);
    check_embeddings(&s, "text_embeddings", ct_clip_encode_texts);
    session_close(&s);
}

static void test_resnet18_linear(void **state)
{
    (void)state;
    check_case("resnet18_linear");
}

static void test_resnet50_mlp(void **state)
{
    (void)state;
    check_case("resnet50_mlp");
}

int run_training_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resnet18_linear),
        cmocka_unit_test(test_resnet50_mlp),
    };
    return cmocka_run_group_tests_name("training", tests, NULL, NULL);
}
