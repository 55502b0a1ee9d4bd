/* Micro-batches (GradCache): the gradients of one whole batch, in the memory of a micro-batch. */
#include <math.h>
#include <stdlib.h>

#include "model/support.h"
#include "model/tests.h"

enum { BATCH = 256, MICRO = 16, SIZE = 32, VOCABULARY = 50, LONGEST = 12, SEED = 77 };

/* Root mean square of the difference, of the root mean square of the gradient. */
#define LIMIT 1e-6

/* A transformer for the photos: BatchNorm would see other statistics. */
static ct_config *make_config(int size, int micro)
{
    static const char *const assignments[] = {
        "image.encoder=vit",
        "image.size=32",
        "image.patch_size=8",
        "image.width=48",
        "image.depth=3",
        "image.heads=3",
        "image.ffn=96",
        "text.width=64",
        "text.depth=2",
        "text.heads=2",
        "text.ffn=64",
        "text.dropout=0",
        "text.attention_dropout=0",
        "projection.dim=24",
    };
    ct_config *config;
    char text[64];
    assert_ok(ct_config_create(&config));
    for (size_t i = 0; i < sizeof assignments / sizeof *assignments; i++)
        assert_ok(ct_config_override(config, assignments[i]));
    snprintf(text, sizeof text, "train.batch_size=%d", size);
    assert_ok(ct_config_override(config, text));
    snprintf(text, sizeof text, "train.micro_batch_size=%d", micro);
    assert_ok(ct_config_override(config, text));
    return config;
}

typedef struct model {
    ct_config *config;
    ct_device *device;
    ct_clip *clip;
} model;

static void model_open(int size, int micro, model *m)
{
    const ct_clip_limits limits = {size, (int64_t)size * LONGEST, LONGEST, true};
    m->config = make_config(size, micro);
    assert_ok(model_device_create(&m->device));
    assert_ok(ct_clip_create(m->config, VOCABULARY, m->device, &limits, &m->clip));
}

static void model_close(model *m)
{
    ct_clip_destroy(m->clip);
    ct_device_destroy(m->device);
    ct_config_destroy(m->config);
}

/* Pairs of pure chance; every photo is there twice, in micro-batches far apart. */
typedef struct pairs {
    uint8_t images[BATCH * SIZE * SIZE * 3];
    int32_t tokens[BATCH * LONGEST], positions[BATCH * LONGEST], cu_seqlens[BATCH + 1];
    int32_t photo_ids[BATCH];
    int32_t total;
} pairs;

static pairs *draw_pairs(void)
{
    const ct_rng_key key = ct_rng_make(SEED, CT_RNG_TEST, 1, 2);
    pairs *p = must_alloc(sizeof *p);
    uint64_t drawn = 0;
    for (size_t i = 0; i < sizeof p->images; i++) p->images[i] = (uint8_t)ct_rng_u32(key, drawn++);
    for (int32_t n = 0; n < BATCH; n++) {
        const int32_t length = 2 + (int32_t)(ct_rng_u32(key, drawn++) % (LONGEST - 1));
        for (int32_t t = 0; t < length; t++) {
            p->tokens[p->total] = (int32_t)(ct_rng_u32(key, drawn++) % VOCABULARY);
            p->positions[p->total++] = t;
        }
        p->cu_seqlens[n + 1] = p->total;
        p->photo_ids[n] = n % (BATCH / 2);
    }
    return p;
}

static ct_clip_input input_of(const pairs *p, int32_t count)
{
    return (ct_clip_input){.count = count,
                           .images = p->images,
                           .tokens = p->tokens,
                           .positions = p->positions,
                           .cu_seqlens = p->cu_seqlens,
                           .photo_ids = p->photo_ids,
                           .total_tokens = p->cu_seqlens[count],
                           .max_seqlen = LONGEST};
}

static float loss_of(const model *m, const pairs *p, int32_t count)
{
    const ct_clip_input input = input_of(p, count);
    float loss;
    run_pass(m->clip, &input, 0);
    assert_ok(ct_clip_loss(m->clip, &loss));
    return loss;
}

static void check_equal_gradients(const model *one, const model *other)
{
    ct_params *params = ct_clip_params(one->clip), *others = ct_clip_params(other->clip);
    double worst = 0.0;
    for (int p = 0; p < ct_params_count(params); p++) {
        const ct_param *a = ct_params_at(params, p), *b = ct_params_at(others, p);
        if (a->buffer || strstr(a->name, "k_lin.bias")) continue; /* zero but for rounding */
        const int64_t count = ct_tensor_count(&a->grad);
        float *left = must_alloc(sizeof *left * (size_t)count);
        float *right = must_alloc(sizeof *right * (size_t)count);
        assert_ok(ct_param_download(params, a, &a->grad, left));
        assert_ok(ct_param_download(others, b, &b->grad, right));
        double size = 0.0, error = 0.0;
        for (int64_t i = 0; i < count; i++) {
            size += pow((double)left[i], 2);
            error += pow((double)left[i] - (double)right[i], 2);
        }
        if (sqrt(error) > LIMIT * sqrt(size))
            fail_msg("%s: the gradient differs by %g of %g", a->name, sqrt(error), sqrt(size));
        if (size > 0.0 && sqrt(error / size) > worst) worst = sqrt(error / size);
        free(left);
        free(right);
    }
    print_message("largest relative difference of a gradient: %.1e\n", worst);
}

static void check_gradients(int32_t count)
{
    model whole, micro;
    pairs *p = draw_pairs();
    model_open(BATCH, 0, &whole);
    model_open(BATCH, MICRO, &micro);
    const float loss = loss_of(&whole, p, count);
    assert_true(fabsf(loss_of(&micro, p, count) - loss) <= 1e-6f * loss);
    check_equal_gradients(&whole, &micro);
    model_close(&whole);
    model_close(&micro);
    free(p);
}

static void test_gradients_of_whole_batch(void **state)
{
    (void)state;
    check_gradients(BATCH);
}

/* The last micro-batch is a single pair. */
static void test_last_micro_batch_may_be_smaller(void **state)
{
    (void)state;
    check_gradients(5 * MICRO + 1);
}

static size_t activation_bytes(const model *m)
{
    const ct_clip_memory memory = ct_clip_memory_use(m->clip);
    return memory.activation_bytes - memory.input_bytes;
}

/* Inputs and embeddings are there for the whole batch; activations are those of a micro-batch. */
static void test_memory_of_a_micro_batch(void **state)
{
    (void)state;
    model whole, micro, small;
    model_open(BATCH, 0, &whole);
    model_open(BATCH, MICRO, &micro);
    model_open(MICRO, 0, &small);
    print_message("activations of %d pairs %zu KiB, in micro-batches of %d %zu KiB, of %d pairs "
                  "%zu KiB\n",
                  BATCH, activation_bytes(&whole) / 1024, MICRO, activation_bytes(&micro) / 1024,
                  MICRO, activation_bytes(&small) / 1024);
    assert_true((double)activation_bytes(&micro) <= 1.1 * (double)activation_bytes(&small));
    const size_t planned = ct_clip_memory_use(micro.clip).activation_bytes;
    pairs *p = draw_pairs();
    loss_of(&micro, p, BATCH);
    assert_int_equal(ct_clip_memory_use(micro.clip).activation_bytes, planned);
    free(p);
    model_close(&whole);
    model_close(&micro);
    model_close(&small);
}

/* Encoding takes as many pairs at once as a tower does. */
static void test_encodes_a_micro_batch(void **state)
{
    (void)state;
    model micro;
    pairs *p = draw_pairs();
    model_open(BATCH, MICRO, &micro);
    const ct_clip_input fitting = input_of(p, MICRO), more = input_of(p, MICRO + 1);
    float *out = must_alloc(sizeof *out * MICRO * (size_t)micro.config->projection.dim);
    assert_ok(ct_clip_encode_images(micro.clip, &fitting, out));
    assert_ok(ct_clip_encode_texts(micro.clip, &fitting, out));
    assert_fails(ct_clip_encode_images(micro.clip, &more, out), CT_ERR_ARGUMENT, "1 to 16");
    free(out);
    free(p);
    model_close(&micro);
}

int run_micro_batch_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients_of_whole_batch),
        cmocka_unit_test(test_last_micro_batch_may_be_smaller),
        cmocka_unit_test(test_memory_of_a_micro_batch),
        cmocka_unit_test(test_encodes_a_micro_batch),
    };
    return cmocka_run_group_tests_name("micro_batch", tests, NULL, NULL);
}
