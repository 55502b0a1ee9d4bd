/* The towers on their own: DistilBERT against Hugging Face's over padded captions, and the rules of
 * the activation stack. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/distilbert.h"
#include "model/layers.h"
#include "model/resnet.h"
#include "model/support.h"
#include "model/tests.h"

#define EPS 0x1p-24

/* A tower with its input, and the activation stack it runs on. */
typedef struct fixture {
    reference ref;
    batch b;
    ct_device *device;
    ct_params *params;
    ct_distilbert *bert;
    ct_resnet *resnet;
    ct_arena stack;
    void *memory;
    ct_exec exec;
    int32_t step;
    ct_tensor features, dfeatures;
    int64_t width;
    size_t base, after_forward; /* what is in use before and after forward */
} fixture;

static void setup(fixture *f, bool text, float dropout)
{
    *f = (fixture){0};
    reference_open("resnet18_linear", &f->ref);
    batch_create(&f->ref, 0, &f->b);
    assert_ok(ct_cpu_device_create(0, &f->device));
    assert_ok(ct_params_create(&f->params));
    const ct_config *config = f->ref.config;
    const ct_distilbert_config bert = {.vocab_size = f->ref.vocabulary,
                                       .max_positions = 512,
                                       .width = config->text.width,
                                       .depth = config->text.depth,
                                       .heads = config->text.heads,
                                       .ffn = config->text.ffn,
                                       .dropout = dropout,
                                       .attention_dropout = dropout,
                                       .activation = CT_ACT_GELU};
    if (text) {
        assert_ok(ct_distilbert_create(f->params, &bert, &f->bert));
        f->width = bert.width;
    } else {
        assert_ok(ct_resnet_create(f->params, config->image.encoder, &f->resnet));
        f->width = ct_resnet_features(f->resnet);
    }
    assert_ok(ct_params_allocate(f->params, f->device, 1, true));
    reference_initialise(&f->ref, f->params);
    f->exec = (ct_exec){.device = f->device,
                        .activations = &f->stack,
                        .seed = 3,
                        .step = ct_tensor1(&f->step, CT_I32, 1)};
}

static void teardown(fixture *f)
{
    free(f->memory);
    ct_distilbert_destroy(f->bert);
    ct_resnet_destroy(f->resnet);
    ct_params_destroy(f->params);
    ct_device_destroy(f->device);
    batch_destroy(&f->b);
    reference_close(&f->ref);
}

static void text_forward(fixture *f)
{
    const ct_clip_input *input = &f->b.input;
    const ct_text_input text = {.ids = ct_tensor1(f->b.tokens, CT_I32, input->total_tokens),
                                .positions =
                                    ct_tensor1(f->b.positions, CT_I32, input->total_tokens),
                                .cu_seqlens = ct_tensor1(f->b.cu_seqlens, CT_I32, input->count + 1),
                                .max_seqlen = input->max_seqlen};
    assert_ok(ct_distilbert_forward(f->bert, &f->exec, &text, &f->features));
}

/* The image tower sees made-up normalised pixels, pushed below. */
static void image_forward(fixture *f)
{
    ct_tensor x = ct_tensor4(NULL, CT_F32, f->b.input.count, 64, 64, 3);
    assert_ok(ct_exec_push(&f->exec, &x));
    if (!f->exec.planning)
        for (int64_t i = 0; i < ct_tensor_count(&x); i++)
            ct_f32(&x)[i] = (float)f->b.images[i] / 64.0f - 2.0f;
    f->base = ct_arena_mark(&f->stack);
    assert_ok(ct_resnet_forward(f->resnet, &f->exec, &x, &f->features));
}

/* One pass; the stack must be as it was, after evaluation's forward or training's backward. */
static void pass(fixture *f)
{
    const int64_t count = f->b.input.count;
    f->features = f->dfeatures = ct_tensor2(NULL, CT_F32, count, f->width);
    assert_ok(ct_exec_push(&f->exec, &f->features));
    assert_ok(ct_exec_push(&f->exec, &f->dfeatures));
    f->base = ct_arena_mark(&f->stack);
    if (f->bert) text_forward(f);
    else image_forward(f);
    f->after_forward = ct_arena_mark(&f->stack);
    if (f->exec.training) {
        assert_true(f->after_forward > f->base);
        if (!f->exec.planning)
            memcpy(f->dfeatures.data, f->features.data, ct_tensor_bytes(&f->features));
        if (f->bert) assert_ok(ct_distilbert_backward(f->bert, &f->exec, &f->dfeatures));
        else assert_ok(ct_resnet_backward(f->resnet, &f->exec, &f->dfeatures));
    }
    assert_int_equal(ct_arena_mark(&f->stack), f->base);
}

/* Plans, then runs in exactly what was planned. */
static size_t plan_and_run(fixture *f, bool training)
{
    f->exec.training = training;
    f->exec.planning = true;
    ct_arena_init(&f->stack, NULL, 0);
    pass(f);
    const size_t planned = f->stack.peak_bytes;
    assert_ok(f->device->backend->commit(f->device));

    free(f->memory);
    f->memory = aligned_alloc(CT_ALIGNMENT, planned);
    assert_non_null(f->memory);
    memset(f->memory, 0xff, planned); /* NaN: nothing may be read before it is written */
    f->exec.planning = false;
    ct_arena_init(&f->stack, f->memory, planned);
    pass(f);
    assert_int_equal(f->stack.peak_bytes, planned);
    return planned;
}

/* Packed captions give what Hugging Face's model gives for padded ones. The limit is that of
 * training_test.c. */
static void test_distilbert_is_hugging_faces(void **state)
{
    (void)state;
    fixture f;
    setup(&f, true, 0.1f); /* dropout is for training only */
    plan_and_run(&f, false);
    const cJSON *expected = json_get(f.ref.json, "text_features");
    const int count = cJSON_GetArraySize(expected);
    assert_int_equal(count, ct_tensor_count(&f.features));
    double error = 0.0, size = 0.0;
    for (int i = 0; i < count; i++) {
        double value = json_at(expected, i), off = ct_f32(&f.features)[i] - value;
        size += value * value;
        error += off * off;
    }
    error = sqrt(error / count);
    size = sqrt(size / count);
    const double limit =
        2.0 * json_number(f.ref.json, "text_features_f32") + EPS * sqrt(14.0) * size;
    print_message("features of size %.3g, error %.2g, limit %.2g\n", size, error, limit);
    assert_true(error <= limit);
    teardown(&f);
}

static void check_stack(bool text)
{
    fixture f;
    setup(&f, text, 0.1f);
    const size_t training = plan_and_run(&f, true);
    const ct_param *first = ct_params_at(f.params, 0);
    double squares = 0.0;
    for (int64_t i = 0; i < ct_tensor_count(&first->grad); i++)
        squares += (double)ct_f32(&first->grad)[i] * ct_f32(&first->grad)[i];
    assert_true(isfinite(squares) && squares > 0.0);
    const size_t evaluation = plan_and_run(&f, false);
    for (int64_t i = 0; i < ct_tensor_count(&f.features); i++)
        assert_true(isfinite(ct_f32(&f.features)[i]));
    print_message("%s tower: %zu bytes in training, %zu in evaluation\n", text ? "text" : "image",
                  training, evaluation);
    assert_true(evaluation < training / 2);
    teardown(&f);
}

static void test_text_stack(void **state)
{
    (void)state;
    check_stack(true);
}

static void test_image_stack(void **state)
{
    (void)state;
    check_stack(false);
}

static void test_qkv_are_adjacent(void **state)
{
    (void)state;
    fixture f;
    setup(&f, true, 0.0f);
    const char *const kinds[] = {"weight", "bias"};
    for (int k = 0; k < 2; k++)
        for (int layer = 0; layer < 2; layer++) {
            const ct_param *part[3];
            for (int i = 0; i < 3; i++) {
                char name[96];
                snprintf(name, sizeof name, "text.transformer.layer.%d.attention.%c_lin.%s", layer,
                         "qkv"[i], kinds[k]);
                part[i] = ct_params_find(f.params, name);
                assert_non_null(part[i]);
                assert_int_equal(part[i]->decay, k == 0);
            }
            for (int i = 0; i < 2; i++) {
                const int64_t count = ct_tensor_count(&part[i]->value);
                assert_ptr_equal(ct_f32(&part[i]->value) + count, part[i + 1]->value.data);
                assert_ptr_equal(ct_f32(&part[i]->grad) + count, part[i + 1]->grad.data);
            }
        }
    teardown(&f);
}

static void test_text_sizes_are_checked(void **state)
{
    (void)state;
    ct_params *params;
    ct_distilbert *bert = NULL;
    assert_ok(ct_params_create(&params));
    ct_distilbert_config config = {
        .vocab_size = 10, .max_positions = 8, .width = 96, .depth = 1, .heads = 2, .ffn = 8};
    assert_fails(ct_distilbert_create(params, &config, &bert), CT_ERR_CONFIG,
                 "text.width must be a multiple of 64, not 96");
    config.width = 128;
    config.heads = 3;
    assert_fails(ct_distilbert_create(params, &config, &bert), CT_ERR_CONFIG, "text.heads");
    assert_null(bert);
    ct_params_destroy(params);
}

/* torchvision's numbers of parameters without the classifier, and its initialisation. */
static void test_resnet_sizes(void **state)
{
    (void)state;
    static const struct {
        ct_image_encoder encoder;
        int64_t elements, features;
    } known[] = {{CT_RESNET18, 11689512 - 513000, 512},
                 {CT_RESNET34, 21797672 - 513000, 512},
                 {CT_RESNET50, 25557032 - 2049000, 2048},
                 {CT_RESNET101, 44549160 - 2049000, 2048}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        ct_params *params;
        ct_resnet *resnet;
        assert_ok(ct_params_create(&params));
        assert_ok(ct_resnet_create(params, known[i].encoder, &resnet));
        assert_int_equal(ct_params_elements(params), known[i].elements);
        assert_int_equal(ct_resnet_features(resnet), known[i].features);
        const ct_param *stem = ct_params_find(params, "image.conv1.weight");
        assert_true(stem->filter && stem->decay && stem->init == CT_INIT_NORMAL);
        assert_true(fabs(stem->init_scale - sqrt(2.0 / (64 * 49))) < 1e-8);
        assert_false(ct_params_find(params, "image.bn1.weight")->decay);
        assert_true(ct_params_find(params, "image.layer4.0.downsample.1.running_var")->buffer);
        ct_resnet_destroy(resnet);
        ct_params_destroy(params);
    }
}

int run_tower_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distilbert_is_hugging_faces),
        cmocka_unit_test(test_text_stack),
        cmocka_unit_test(test_image_stack),
        cmocka_unit_test(test_qkv_are_adjacent),
        cmocka_unit_test(test_text_sizes_are_checked),
        cmocka_unit_test(test_resnet_sizes),
    };
    return cmocka_run_group_tests_name("towers", tests, NULL, NULL);
}
