/* Ten optimiser steps of whole models against PyTorch in float64 (tests/reference/make_model.py).
 *
 * The limit. All errors are root mean squares: over the entries of a tensor, over the steps for the
 * loss and the global norm. At most twice the error that PyTorch makes in float32, which is what
 * the dtype alone causes through the whole network, plus what rounding leaves over the network's
 * depth: EPS sqrt(DEPTH) of the reference's size. PyTorch's error is measured over whole tensors
 * and several orders of summation; ours through a sketch of 16 sums, whose mean square spreads
 * around that of the whole tensor as chi-squared with 16 degrees of freedom does over 16: one
 * tensor in ten thousand shows more than 1.69 times its root mean square, so that is what a sketch
 * may show. The loss is also held to 1e-5 at every step.
 */
#include "model/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/optimizer.h"
#include "model/tests.h"

#define LOSS_LIMIT 1e-5
#define BUCKETS    16
#define SPREAD     1.69 /* sqrt(x / 16), where P(chi-squared_16 > x) = 1e-4: x = 45.9 */
#define EPS        0x1p-24
#define ZERO       1e-12 /* a gradient in f64 that is all rounding */
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
    assert_ok(model_device_create(&s->device));
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

/* Root mean squares, an entry: of what is expected, and of how far off the actual numbers are. */
typedef struct difference {
    double size, error;
} difference;

static double rms_error(const cJSON *expected, const double *actual, int64_t count)
{
    double squares = 0.0;
    for (int i = 0; i < cJSON_GetArraySize(expected); i++) {
        double off = actual[i] - json_at(expected, i);
        squares += off * off;
    }
    return sqrt(squares / (double)count);
}

static void check_error(const char *name, const char *what, difference d, double single_error)
{
    const double limit = 2.0 * single_error + EPS * sqrt(DEPTH) * d.size;
    if (!(d.error <= limit))
        fail_msg("%s: %s is off by %.3g of %.3g, limit %.3g", name, what, d.error, d.size, limit);
}

/* Root mean square of the gradient of a bias's weight: sum of dy x, where x has passed a LayerNorm
 * and so has about the size 1, against sum of dy for the bias. The size the bias's gradient would
 * have if its terms did not cancel. */
static double weight_gradient(const session *s, const char *bias)
{
    char weight[96];
    snprintf(weight, sizeof weight, "%.*sweight", (int)(strlen(bias) - strlen("bias")), bias);
    return json_number(json_get(json_get(s->ref.json, "tensors"), weight), "grad_rms");
}

/* `sketch` in make_model.py; returns how many of the buckets there are. */
static int sketch(const float *tensor, int64_t count, double bucket[BUCKETS])
{
    const ct_rng_key key = reference_stream("signs");
    uint32_t signs = 0;
    memset(bucket, 0, BUCKETS * sizeof *bucket);
    for (int64_t i = 0; i < count; i++) {
        if (i % 32 == 0) signs = ct_rng_u32(key, (uint64_t)i / 32);
        bucket[i % BUCKETS] += signs >> i % 32 & 1 ? -(double)tensor[i] : (double)tensor[i];
    }
    return count < BUCKETS ? (int)count : BUCKETS;
}

/* Compares one of a parameter's tensors by its sketch. */
static void check_tensor(const session *s, const cJSON *json, const ct_param *param,
                         const ct_tensor *tensor, const char *key)
{
    char error_key[32], size_key[32];
    snprintf(error_key, sizeof error_key, "%s_f32", key);
    snprintf(size_key, sizeof size_key, "%s_rms", key);
    const cJSON *expected = json_get(json, key);
    const int64_t count = ct_tensor_count(tensor);
    float *host = must_alloc(ct_tensor_bytes(tensor));
    assert_ok(ct_param_download(ct_clip_params(s->clip), param, tensor, host));
    double bucket[BUCKETS];
    assert_int_equal(cJSON_GetArraySize(expected), sketch(host, count, bucket));
    free(host);

    difference d = {json_number(json, size_key), rms_error(expected, bucket, count)};
    /* A gradient that is zero (softmax ignores the bias of all keys) is a sum of terms that cancel:
     * what rounding leaves is relative to them, not to it. */
    if (d.size < ZERO) d.size = weight_gradient(s, param->name);
    d.error /= SPREAD;
    check_error(param->name, key, d, json_number(json, error_key));
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

static void train(session *s)
{
    const cJSON *losses = json_get(s->ref.json, "loss");
    const cJSON *norms = json_get(s->ref.json, "grad_norm");
    double loss_squares = 0.0, norm_squares = 0.0;
    for (int step = 1; step <= s->steps; step++) {
        const ct_clip_input *input = &s->batches[(step - 1) % 2].input;
        float loss;
        ct_optimizer_stats stats;
        run_pass(s->clip, input, step - 1);
        assert_ok(ct_clip_loss(s->clip, &loss));
        if (step == 1) check_tensors(s, "grad");
        run_update(s->optimizer, step);
        assert_ok(ct_optimizer_get_stats(s->optimizer, &stats));
        assert_false(stats.skipped);

        const double loss_error = loss / json_at(losses, step - 1) - 1.0;
        const double norm_error = stats.grad_norm / json_at(norms, step - 1) - 1.0;
        print_message("step %2d: loss %.7f, relative error %8.1e; of the gradients' norm %8.1e\n",
                      step, (double)loss, loss_error, norm_error);
        assert_true(fabs(loss_error) <= LOSS_LIMIT);
        loss_squares += loss_error * loss_error;
        norm_squares += norm_error * norm_error;
    }
    check_error("the loss", "value", (difference){1.0, sqrt(loss_squares / s->steps)},
                json_number(s->ref.json, "loss_f32"));
    check_error("the global norm", "grad", (difference){1.0, sqrt(norm_squares / s->steps)},
                json_number(s->ref.json, "grad_norm_f32"));
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
    double squares = 0.0;
    for (int i = 0; i < count; i++) {
        wide[i] = out[i];
        squares += wide[i] * wide[i];
    }
    difference d = {sqrt(squares / count), rms_error(expected, wide, count)};
    check_error(key, "after training", d, json_number(s->ref.json, error_key));
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

static void test_vit_linear(void **state)
{
    (void)state;
    check_case("vit_linear");
}

int run_training_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resnet18_linear),
        cmocka_unit_test(test_resnet50_mlp),
        cmocka_unit_test(test_vit_linear),
    };
    return cmocka_run_group_tests_name("training", tests, NULL, NULL);
}
