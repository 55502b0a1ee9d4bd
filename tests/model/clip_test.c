/* The model as a whole: what is planned is what is used, equal states give equal bits, gradients
 * with dropout are those of the loss, and calls beyond the plan are refused. */
#include "model/clip.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/optimizer.h"
#include "model/support.h"
#include "model/tests.h"

/* ---- a backend that counts --------------------------------------------------------------------
 */

static struct {
    const ct_backend *real;
    long announced[CT_OP_COUNT], called[CT_OP_COUNT], allocations;
    long failing; /* the allocation that fails, from 1; 0: none */
} counts;

static ct_status counted_alloc(ct_device *device, size_t bytes, const char *purpose, void **out)
{
    if (++counts.allocations == counts.failing)
        return ct_fail(CT_ERR_MEMORY, "no memory for %s", purpose);
    return counts.real->alloc(device, bytes, purpose, out);
}

static ct_status counted_prepare(ct_device *device, ct_op op, const void *args)
{
    counts.announced[op]++;
    return counts.real->prepare(device, op, args);
}

#define COUNTED(name)                                                                              \
    static ct_status counted_##name(ct_device *device, const ct_##name##_args *args)               \
    {                                                                                              \
        counts.called[CT_OP_##name]++;                                                             \
        return counts.real->name(device, args);                                                    \
    }
CT_OPS(COUNTED)
#undef COUNTED

static void count_calls(ct_device *device, ct_backend *table)
{
    memset(&counts, 0, sizeof counts);
    counts.real = device->backend;
    *table = *counts.real;
    table->alloc = counted_alloc;
    table->prepare = counted_prepare;
#define ENTRY(name) table->name = counted_##name;
    CT_OPS(ENTRY)
#undef ENTRY
    device->backend = table;
}

/* ---- fixture ----------------------------------------------------------------------------------
 */

typedef struct fixture {
    reference ref;
    batch batches[2];
    ct_clip_limits limits;
    ct_device *device;
    ct_backend counting;
    ct_clip *clip;
} fixture;

/* The small model of the reference file with the mlp's projections and dropout everywhere. micro:
 * train.micro_batch_size. */
static void setup_micro(fixture *f, bool training, const char *micro)
{
    static const char *const assignments[] = {"seed=11",
                                              "projection.kind=mlp",
                                              "projection.dropout=0.2",
                                              "text.dropout=0.2",
                                              "text.attention_dropout=0.2",
                                              "loss.same_image=mask",
                                              "train.warmup_steps=1"};
    reference_open("resnet18_linear", &f->ref);
    for (size_t i = 0; i < sizeof assignments / sizeof *assignments; i++)
        assert_ok(ct_config_override(f->ref.config, assignments[i]));
    assert_ok(ct_config_override(f->ref.config, micro));
    for (int i = 0; i < 2; i++) batch_create(&f->ref, i, &f->batches[i]);
    f->limits = reference_limits(&f->batches[0], &f->batches[1]);
    f->limits.training = training;
    assert_ok(ct_cpu_device_create(0, &f->device));
    count_calls(f->device, &f->counting);
    assert_ok(ct_clip_create(f->ref.config, f->ref.vocabulary, f->device, &f->limits, &f->clip));
}

static void setup(fixture *f, bool training)
{
    setup_micro(f, training, "train.micro_batch_size=0");
}

static void teardown(fixture *f)
{
    ct_clip_destroy(f->clip);
    ct_device_destroy(f->device);
    for (int i = 0; i < 2; i++) batch_destroy(&f->batches[i]);
    reference_close(&f->ref);
}

static float *encode(fixture *f, int index,
                     ct_status (*encoder)(ct_clip *, const ct_clip_input *, float *))
{
    const ct_clip_input *input = &f->batches[index].input;
    float *out = must_alloc(sizeof *out * (size_t)(input->count * f->ref.config->projection.dim));
    assert_ok(encoder(f->clip, input, out));
    return out;
}

static float loss_at(fixture *f, int index, int64_t step)
{
    float loss;
    run_pass(f->clip, &f->batches[index].input, step);
    assert_ok(ct_clip_loss(f->clip, &loss));
    return loss;
}

/* ---- tests ------------------------------------------------------------------------------------
 */

/* Every operation was announced, the stack is used up to the planned byte, and nothing is allocated
 * once the model is there. */
static void test_plan_is_what_runs(void **state)
{
    (void)state;
    fixture f;
    setup(&f, true);
    const ct_clip_memory planned = ct_clip_memory_use(f.clip);
    const long allocations = counts.allocations;
    assert_true(planned.activation_peak_bytes < planned.activation_bytes);
    assert_int_equal(planned.parameter_bytes, ct_params_bytes(ct_clip_params(f.clip)));

    /* The batch with most tokens and the longest caption is the one that was planned for. */
    assert_int_equal(f.batches[0].input.total_tokens, f.limits.tokens);
    assert_int_equal(f.batches[0].input.max_seqlen, f.limits.max_seqlen);
    loss_at(&f, 0, 0);
    assert_int_equal(ct_clip_memory_use(f.clip).activation_peak_bytes, planned.activation_bytes);
    free(encode(&f, 0, ct_clip_encode_images));
    free(encode(&f, 0, ct_clip_encode_texts));
    for (int op = 0; op < CT_OP_COUNT; op++)
        if (op != CT_OP_grad_norm && op != CT_OP_grad_stats && op != CT_OP_adamw)
            assert_int_equal(counts.announced[op], counts.called[op]);

    loss_at(&f, 1, 1);
    assert_int_equal(counts.allocations, allocations);
    const ct_clip_memory used = ct_clip_memory_use(f.clip);
    assert_int_equal(used.workspace_bytes, planned.workspace_bytes);
    assert_int_equal(used.activation_peak_bytes, planned.activation_bytes);
    teardown(&f);
}

static void test_equal_states_give_equal_bits(void **state)
{
    (void)state;
    fixture f[2];
    ct_optimizer *optimizer[2];
    float loss[2][2];
    for (int i = 0; i < 2; i++) {
        setup(&f[i], true);
        assert_ok(ct_optimizer_create(f[i].ref.config, ct_clip_params(f[i].clip), f[i].device, 4,
                                      &optimizer[i]));
        for (int step = 0; step < 2; step++) {
            loss[i][step] = loss_at(&f[i], step, step);
            run_update(optimizer[i], step + 1);
        }
    }
    assert_memory_equal(loss[0], loss[1], sizeof loss[0]);
    const ct_params *params[2] = {ct_clip_params(f[0].clip), ct_clip_params(f[1].clip)};
    for (int p = 0; p < ct_params_count(params[0]); p++) {
        const ct_param *a = ct_params_at(params[0], p), *b = ct_params_at(params[1], p);
        assert_memory_equal(a->value.data, b->value.data, ct_tensor_bytes(&a->value));
    }
    for (int i = 0; i < 2; i++) {
        ct_optimizer_destroy(optimizer[i]);
        teardown(&f[i]);
    }
}

/* A direction in the space of parameters: one array a parameter, NULL where it is zero. */
typedef struct direction {
    float **entries;
    double squares;
} direction;

/* The gradient's part of the parameters whose names start with `prefix`, of each the entries that
 * are at least `share` of its greatest. */
static direction take_gradient(const ct_params *params, const char *prefix, float share)
{
    const int count = ct_params_count(params);
    direction d = {.entries = must_alloc(sizeof *d.entries * (size_t)count)};
    for (int p = 0; p < count; p++) {
        const ct_param *param = ct_params_at(params, p);
        if (param->buffer || strncmp(param->name, prefix, strlen(prefix)) != 0) continue;
        const float *grad = ct_f32(&param->grad);
        const int64_t n = ct_tensor_count(&param->grad);
        float greatest = 0.0f;
        for (int64_t i = 0; i < n; i++) greatest = fmaxf(greatest, fabsf(grad[i]));
        d.entries[p] = must_alloc(sizeof(float) * (size_t)n);
        for (int64_t i = 0; i < n; i++) {
            if (fabsf(grad[i]) < share * greatest) continue;
            d.entries[p][i] = grad[i];
            d.squares += (double)grad[i] * grad[i];
        }
    }
    return d;
}

static void move(ct_params *params, const direction *d, float factor)
{
    for (int p = 0; p < ct_params_count(params); p++) {
        const ct_tensor *value = &ct_params_at(params, p)->value;
        for (int64_t i = 0; d->entries[p] && i < ct_tensor_count(value); i++)
            ct_f32(value)[i] += factor * d->entries[p][i];
    }
}

/* Along a part d of the gradient the loss's slope is |d|^2, dropout and all: the same step has the
 * same masks. CHANGE is how far the loss is moved. f32 resolves a loss near 2 to some 5e-7, and on
 * the way some of the many activations cross the kinks of ReLU and of pooling. Masks mixed up in
 * backward are off by a tenth; one that is forgotten averages out over many entries, but not over a
 * few. */
#define CHANGE      0.001
#define SLOPE_LIMIT 5e-3

static void check_slope(fixture *f, const char *prefix, float share)
{
    ct_params *params = ct_clip_params(f->clip);
    loss_at(f, 0, 5);
    direction d = take_gradient(params, prefix, share);
    const float h = (float)(CHANGE / d.squares);
    move(params, &d, h);
    const double above = loss_at(f, 0, 5);
    move(params, &d, -2.0f * h);
    const double below = loss_at(f, 0, 5);
    move(params, &d, h);
    const double error = fabs((above - below) / (2.0 * (double)h * d.squares) - 1.0);
    print_message("%s: slope %.4g, relative error %.1e\n", prefix, d.squares, error);
    assert_true(error <= SLOPE_LIMIT);
    for (int p = 0; p < ct_params_count(params); p++) free(d.entries[p]);
    free(d.entries);
}

static void check_gradient_with_dropout(const char *micro)
{
    fixture f;
    setup_micro(&f, true, micro);
    reference_initialise(&f.ref, ct_clip_params(f.clip));
    assert_true(loss_at(&f, 0, 5) == loss_at(&f, 0, 5));
    assert_true(loss_at(&f, 0, 5) != loss_at(&f, 0, 6)); /* other masks */
    check_slope(&f, "image.", 0.0f);
    check_slope(&f, "text.", 0.0f);
    check_slope(&f, "image_projection.", 0.0f);
    check_slope(&f, "text_projection.", 0.0f);
    check_slope(&f, "text.embeddings.word_embeddings.", 0.5f);
    check_slope(&f, "text.transformer.layer.0.ffn.lin2.bias", 0.5f);
    check_slope(&f, "text.transformer.layer.1.ffn.lin2.bias", 0.5f);
    check_slope(&f, "text_projection.fc2.bias", 0.5f);
    teardown(&f);
}

static void test_gradient_with_dropout(void **state)
{
    (void)state;
    check_gradient_with_dropout("train.micro_batch_size=0");
}

/* Both runs of a micro-batch have the same masks, which are not those of its neighbours. */
static void test_gradient_of_micro_batches_with_dropout(void **state)
{
    (void)state;
    check_gradient_with_dropout("train.micro_batch_size=3");
}

/* BatchNorm sees each micro-batch as a batch of its own, and counts it once though it runs twice.
 */
static void test_running_statistics_of_micro_batches(void **state)
{
    (void)state;
    fixture micro, plain;
    setup_micro(&micro, true, "train.micro_batch_size=3");
    setup(&plain, true);
    loss_at(&micro, 0, 0);
    const ct_clip_input *whole = &plain.batches[0].input;
    const int64_t size = plain.ref.config->image.size;
    for (int32_t first = 0; first < whole->count; first += 3) {
        ct_clip_input part = *whole; /* of its captions, any will do */
        part.count = whole->count - first < 3 ? whole->count - first : 3;
        part.images += first * size * size * 3;
        part.total_tokens = part.cu_seqlens[part.count];
        run_pass(plain.clip, &part, 0);
    }
    const ct_params *params[2] = {ct_clip_params(micro.clip), ct_clip_params(plain.clip)};
    for (int p = 0; p < ct_params_count(params[0]); p++) {
        const ct_param *a = ct_params_at(params[0], p), *b = ct_params_at(params[1], p);
        if (a->buffer)
            assert_memory_equal(a->value.data, b->value.data, ct_tensor_bytes(&a->value));
    }
    teardown(&micro);
    teardown(&plain);
}

/* A model for evaluation is smaller and gives the same embeddings, of length 1. */
static void test_evaluation_only(void **state)
{
    (void)state;
    fixture training, evaluation;
    setup(&training, true);
    const ct_clip_memory large = ct_clip_memory_use(training.clip);
    float *images = encode(&training, 0, ct_clip_encode_images);
    float *texts = encode(&training, 1, ct_clip_encode_texts);
    teardown(&training);

    setup(&evaluation, false);
    const ct_clip_memory small = ct_clip_memory_use(evaluation.clip);
    assert_true(small.activation_bytes < large.activation_bytes / 2);
    assert_true(small.parameter_bytes < large.parameter_bytes / 3);
    float *same_images = encode(&evaluation, 0, ct_clip_encode_images);
    float *same_texts = encode(&evaluation, 1, ct_clip_encode_texts);
    const int dim = (int)evaluation.ref.config->projection.dim;
    const int count = evaluation.batches[0].input.count;
    assert_memory_equal(images, same_images, sizeof *images * (size_t)(count * dim));
    assert_memory_equal(texts, same_texts, sizeof *texts * (size_t)(count * dim));
    for (int n = 0; n < count; n++) {
        double squares = 0.0;
        for (int d = 0; d < dim; d++) squares += (double)images[n * dim + d] * images[n * dim + d];
        assert_true(fabs(squares - 1.0) < 1e-5);
    }
    assert_fails(ct_clip_stage(evaluation.clip, &evaluation.batches[0].input, 0), CT_ERR_ARGUMENT,
                 "evaluation only");
    free(images);
    free(texts);
    free(same_images);
    free(same_texts);
    teardown(&evaluation);
}

/* One caption's embedding does not depend on what it is packed with. */
static void test_captions_are_independent(void **state)
{
    (void)state;
    fixture f;
    setup(&f, false);
    const int64_t dim = f.ref.config->projection.dim;
    float *together = encode(&f, 0, ct_clip_encode_texts), *alone = must_alloc(4 * (size_t)dim);
    const batch *b = &f.batches[0];
    for (int n = 0; n < b->input.count; n++) {
        const int32_t begin = b->cu_seqlens[n], length = b->cu_seqlens[n + 1] - begin;
        const int32_t cu_seqlens[2] = {0, length};
        const ct_clip_input input = {.count = 1,
                                     .tokens = b->tokens + begin,
                                     .positions = b->positions + begin,
                                     .cu_seqlens = cu_seqlens,
                                     .total_tokens = length,
                                     .max_seqlen = length};
        assert_ok(ct_clip_encode_texts(f.clip, &input, alone));
        for (int64_t d = 0; d < dim; d++)
            assert_true(fabsf(alone[d] - together[n * dim + d]) < 2e-6f);
    }
    free(together);
    free(alone);
    teardown(&f);
}

/* Rounding the token count and max_seqlen up, for devices that record steps, adds rows that belong
 * to no caption: the loss and every gradient stay what they were, but for the order of sums. */
static void test_padding_rows_add_nothing(void **state)
{
    (void)state;
    fixture exact, padded;
    setup(&exact, true);
    setup(&padded, true);
    ct_clip_destroy(padded.clip);
    padded.device->token_multiple = 32;
    assert_ok(ct_clip_create(padded.ref.config, padded.ref.vocabulary, padded.device,
                             &padded.limits, &padded.clip));
    const float loss = loss_at(&exact, 0, 5);
    assert_true(fabsf(loss_at(&padded, 0, 5) - loss) < 1e-6f * loss);
    assert_int_equal(ct_clip_staged_key(padded.clip) & 0x7FFFFFFF, 96);
    assert_int_equal(ct_clip_staged_key(padded.clip) >> 31 & 0x3FF, 32);
    const ct_params *params[2] = {ct_clip_params(exact.clip), ct_clip_params(padded.clip)};
    for (int p = 0; p < ct_params_count(params[0]); p++) {
        const ct_param *a = ct_params_at(params[0], p), *b = ct_params_at(params[1], p);
        double size = 0.0, error = 0.0;
        for (int64_t i = 0; i < ct_tensor_count(&a->grad); i++) {
            size += pow((double)ct_f32(&a->grad)[i], 2);
            error += pow((double)ct_f32(&b->grad)[i] - (double)ct_f32(&a->grad)[i], 2);
        }
        const bool keys = strstr(a->name, "k_lin.bias"); /* zero but for rounding */
        if (!keys && error > 1e-10 * size)
            fail_msg("%s: padding changes the gradient by %g of %g", a->name, sqrt(error),
                     sqrt(size));
    }
    const uint64_t key = ct_clip_staged_key(padded.clip);
    loss_at(&padded, 1, 0);
    assert_true(ct_clip_staged_key(padded.clip) != key);
    teardown(&exact);
    teardown(&padded);
}

static void test_calls_beyond_the_plan(void **state)
{
    (void)state;
    fixture f;
    setup(&f, true);
    ct_clip_input input = f.batches[0].input;
    input.count = 9;
    assert_fails(ct_clip_encode_images(f.clip, &input, NULL), CT_ERR_ARGUMENT, "batch of 9");
    input = f.batches[0].input;
    input.total_tokens += 1;
    assert_fails(ct_clip_stage(f.clip, &input, 0), CT_ERR_ARGUMENT, "tokens");
    assert_fails(ct_clip_forward_backward(f.clip), CT_ERR_INTERNAL, "without a staged batch");
    input = f.batches[0].input;
    input.max_seqlen += 1;
    assert_fails(ct_clip_encode_texts(f.clip, &input, NULL), CT_ERR_ARGUMENT, "18 tokens");

    ct_clip *none = NULL;
    ct_clip_limits limits = f.limits;
    limits.max_seqlen = 513;
    assert_fails(ct_clip_create(f.ref.config, 100, f.device, &limits, &none), CT_ERR_ARGUMENT,
                 "513 tokens");
    assert_null(none);
    assert_true(isfinite(loss_at(&f, 0, 0)));
    teardown(&f);
}

/* Without memory for any one of the blocks there is no model, a message, and no leak. */
static void test_out_of_memory(void **state)
{
    (void)state;
    static const char *const block[] = {"parameters",    "running statistics", "gradients",
                                        "first moments", "second moments",     "activations"};
    fixture f;
    setup(&f, true);
    for (int i = 0; i < 6; i++) {
        ct_clip *none = NULL;
        counts.allocations = 0;
        counts.failing = i + 1;
        assert_fails(ct_clip_create(f.ref.config, f.ref.vocabulary, f.device, &f.limits, &none),
                     CT_ERR_MEMORY, block[i]);
        assert_null(none);
    }
    ct_optimizer *optimizer = NULL;
    counts.allocations = 0;
    counts.failing = 1;
    assert_fails(ct_optimizer_create(f.ref.config, ct_clip_params(f.clip), f.device, 1, &optimizer),
                 CT_ERR_MEMORY, "optimizer statistics");
    assert_null(optimizer);
    teardown(&f);
}

int run_clip_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan_is_what_runs),
        cmocka_unit_test(test_equal_states_give_equal_bits),
        cmocka_unit_test(test_gradient_with_dropout),
        cmocka_unit_test(test_gradient_of_micro_batches_with_dropout),
        cmocka_unit_test(test_running_statistics_of_micro_batches),
        cmocka_unit_test(test_evaluation_only),
        cmocka_unit_test(test_captions_are_independent),
        cmocka_unit_test(test_padding_rows_add_nothing),
        cmocka_unit_test(test_calls_beyond_the_plan),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests_name("clip", tests, NULL, NULL);
}
