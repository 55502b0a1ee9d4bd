/* What op cases do not show of the CPU backend's own kernels: elementary functions, refusals,
 * independence of the number of threads, edges of the loss and of the gradient norm. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../support.h"
#include "cpu/cpu.h"
#include "cpu/dropout_mask.h"
#include "cpu/vector_math.h"
#include "cpu_tests.h"
#include "op.h"

enum { ONE_THREAD, FIVE_THREADS, DEVICES };
static const int device_threads[DEVICES] = {1, 5};

static int create_devices(void **state)
{
    static ct_device *devices[DEVICES];
    for (int i = 0; i < DEVICES; i++)
        if (ct_cpu_device_create(device_threads[i], &devices[i]) != CT_OK) return -1;
    *state = devices;
    return 0;
}

static int destroy_devices(void **state)
{
    ct_device **devices = *state;
    for (int i = 0; i < DEVICES; i++) ct_device_destroy(devices[i]);
    return 0;
}

static ct_device *one_thread(void **state)
{
    return ((ct_device **)*state)[ONE_THREAD];
}

/* `count` standard normal numbers, freed with free(). */
static float *normal_numbers(uint64_t stream, int64_t count)
{
    float *x = calloc((size_t)count + 1, sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < count; i++)
        x[i] = (float)ct_rng_normal(ct_rng_make(1, CT_RNG_TEST, 0, stream), (uint64_t)i);
    return x;
}

/* ---- elementary functions -------------------------------------------------------------------- */

/* All f32 numbers, in steps; one ulp is that of the exact result, subnormal ones included. */
static void test_exp(void **state)
{
    (void)state;
    const uint64_t step = 9973;
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += step) {
        float x = ct_bits_to_float((uint32_t)bits), found = ct_expf(x);
        double exact = exp((double)x);
        if (isnan(x) || exact > 0x1.ffffffp127) {
            assert_true(isnan(x) ? isnan(found) : isinf(found));
            continue;
        }
        int exponent;
        frexp(exact, &exponent);
        double ulp = ldexp(1, (exponent < -125 ? -125 : exponent) - 24);
        if (fabs((double)found - exact) > 1.02 * ulp)
            fail_msg("exp(%.9g) is %.9g, not %.9g", (double)x, (double)found, exact);
    }
    assert_true(ct_expf(-INFINITY) == 0 && ct_expf(0) == 1);
    assert_true(isinf(ct_expf(INFINITY)) && isnan(ct_expf(NAN)));
}

static void test_dropout_factors(void **state)
{
    (void)state;
    const ct_rng_key key = ct_rng_make(UINT64_MAX - 5, CT_RNG_DROPOUT, 3, 4);
    const uint64_t starts[] = {0, 4 * 12345, (UINT64_C(1) << 34) - 100}; /* carries into word 1 */
    float factor[4 * CT_MASK_GROUP];
    for (int s = 0; s < 3; s++) {
        ct_dropout_factors(factor, key, starts[s], 3 * CT_MASK_GROUP + 1, 0.25f);
        for (uint64_t i = 0; i < 4 * CT_MASK_GROUP; i++) {
            bool kept = ct_rng_uniform(key, starts[s] + i) >= 0.25f;
            assert_true(factor[i] == (kept ? 1 / 0.75f : 0));
        }
    }
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void test_wrong_ids(void **state)
{
    ct_device *device = one_thread(state);
    float table[6] = {0}, y[4], x[6] = {0};
    const int wrong[] = {3, -1, INT32_MAX};
    for (int i = 0; i < 3; i++) {
        int32_t bad[2] = {0, wrong[i]}, good[2] = {2, 0};
        ct_tensor matrix = ct_tensor2(table, CT_F32, 3, 2), out = ct_tensor2(y, CT_F32, 2, 2);
        ct_tensor bad_ids = ct_tensor1(bad, CT_I32, 2), ids = ct_tensor1(good, CT_I32, 2);
        ct_embedding_fwd_args fwd = {
            .y = out, .ids = bad_ids, .positions = ids, .word = matrix, .position = matrix};
        assert_fails(device->backend->embedding_fwd(device, &fwd), CT_ERR_ARGUMENT,
                     "token ids must be from 0 to 2");
        fwd.ids = ids;
        fwd.positions = bad_ids;
        assert_fails(device->backend->embedding_fwd(device, &fwd), CT_ERR_ARGUMENT,
                     "token positions");
        ct_embedding_bwd_args bwd = {
            .dword = matrix, .dposition = matrix, .dy = out, .ids = bad_ids, .positions = ids};
        assert_fails(device->backend->embedding_bwd(device, &bwd), CT_ERR_ARGUMENT, "token ids");
        ct_gather_rows_fwd_args gather = {out, ct_tensor2(x, CT_F32, 3, 2), bad_ids};
        assert_fails(device->backend->gather_rows_fwd(device, &gather), CT_ERR_ARGUMENT,
                     "row indices");
        ct_gather_rows_bwd_args scatter = {ct_tensor2(x, CT_F32, 3, 2), out, bad_ids};
        assert_fails(device->backend->gather_rows_bwd(device, &scatter), CT_ERR_ARGUMENT,
                     "row indices");
    }
}

static void test_wrong_sequences(void **state)
{
    ct_device *device = one_thread(state);
    float qkv[4 * 3] = {0}, o[4], lse[4];
    int32_t wrong[][3] = {{1, 2, 4}, {0, 3, 2}, {0, 2, 5}, {0, 4, 4}};
    for (int i = 0; i < 4; i++) {
        ct_attention_fwd_args args = {.o = ct_tensor3(o, CT_F32, 4, 1, 1),
                                      .lse = ct_tensor2(lse, CT_F32, 4, 1),
                                      .qkv = ct_tensor4(qkv, CT_F32, 4, 3, 1, 1),
                                      .cu_seqlens = ct_tensor1(wrong[i], CT_I32, 3),
                                      .max_seqlen = 3,
                                      .scale = 1};
        assert_fails(device->backend->attention_fwd(device, &args), CT_ERR_ARGUMENT,
                     "cu_seqlens must ascend");
        args.max_seqlen = 70000;
        assert_fails(device->backend->attention_fwd(device, &args), CT_ERR_ARGUMENT, "70000");
    }
}

/* ---- number of threads ----------------------------------------------------------------------- */

/* Runs attention forward and backward; results[0..floats) is o, then lse, then dqkv. */
static void run_attention(ct_device *device, float *qkv, float *d_o, int32_t *cu_seqlens,
                          float *results, int tokens)
{
    enum { HEADS = 3, DEPTH = 20 };
    int32_t step = 0;
    float *o = results, *lse = o + tokens * HEADS * DEPTH, *dqkv = lse + tokens * HEADS;
    ct_attention_fwd_args fwd = {.o = ct_tensor3(o, CT_F32, tokens, HEADS, DEPTH),
                                 .lse = ct_tensor2(lse, CT_F32, tokens, HEADS),
                                 .qkv = ct_tensor4(qkv, CT_F32, tokens, 3, HEADS, DEPTH),
                                 .cu_seqlens = ct_tensor1(cu_seqlens, CT_I32, 4),
                                 .step = ct_tensor1(&step, CT_I32, 1),
                                 .max_seqlen = 50,
                                 .scale = 0.3f,
                                 .dropout = 0.1f,
                                 .key = {3, 4}};
    ct_attention_bwd_args bwd = {.dqkv = ct_tensor4(dqkv, CT_F32, tokens, 3, HEADS, DEPTH),
                                 .d_o = ct_tensor3(d_o, CT_F32, tokens, HEADS, DEPTH),
                                 .o = fwd.o,
                                 .lse = fwd.lse,
                                 .qkv = fwd.qkv,
                                 .cu_seqlens = fwd.cu_seqlens,
                                 .step = fwd.step,
                                 .max_seqlen = 50,
                                 .scale = 0.3f,
                                 .dropout = 0.1f,
                                 .key = {3, 4}};
    assert_ok(device->backend->attention_fwd(device, &fwd));
    assert_ok(device->backend->attention_bwd(device, &bwd));
}

static void test_attention_any_threads(void **state)
{
    enum { TOKENS = 70, FLOATS = TOKENS * 3 * (20 + 1 + 60) };
    ct_device **devices = *state;
    int32_t cu_seqlens[] = {0, 50, 51, 68};
    float *qkv = normal_numbers(1, TOKENS * 180), *d_o = normal_numbers(2, TOKENS * 60);
    float *results[DEVICES];
    for (int i = 0; i < DEVICES; i++) {
        results[i] = normal_numbers(3, FLOATS);
        run_attention(devices[i], qkv, d_o, cu_seqlens, results[i], TOKENS);
    }
    assert_memory_equal(results[0], results[1], FLOATS * sizeof(float));
    for (int i = 0; i < DEVICES; i++) free(results[i]);
    free(qkv);
    free(d_o);
}

static void test_embedding_any_threads(void **state)
{
    enum { TOKENS = 200, WIDTH = 50, ROWS = 7 };
    ct_device **devices = *state;
    int32_t ids[TOKENS], positions[TOKENS];
    for (int t = 0; t < TOKENS; t++) {
        ids[t] = t * t % ROWS;
        positions[t] = t % ROWS;
    }
    float *dy = normal_numbers(1, TOKENS * WIDTH), *tables[DEVICES];
    for (int i = 0; i < DEVICES; i++) {
        float *table = tables[i] = normal_numbers(2, 3 * ROWS * WIDTH);
        ct_embedding_bwd_args args = {
            .dword = ct_tensor2(table, CT_F32, ROWS, WIDTH),
            .dposition = ct_tensor2(table + ROWS * WIDTH, CT_F32, ROWS, WIDTH),
            .dtype = ct_tensor2(table + 2 * ROWS * WIDTH, CT_F32, ROWS, WIDTH),
            .dy = ct_tensor2(dy, CT_F32, TOKENS, WIDTH),
            .ids = ct_tensor1(ids, CT_I32, TOKENS),
            .positions = ct_tensor1(positions, CT_I32, TOKENS)};
        assert_ok(devices[i]->backend->embedding_bwd(devices[i], &args));
    }
    assert_memory_equal(tables[0], tables[1], 3 * ROWS * WIDTH * sizeof(float));
    for (int i = 0; i < DEVICES; i++) free(tables[i]);
    free(dy);
}

/* ---- gradient norm --------------------------------------------------------------------------- */

static void norm_of(ct_device *device, float *grad, int64_t count, float max_norm, float *stats)
{
    ct_tensor t = ct_tensor1(grad, CT_F32, count);
    ct_optimizer_segment segment = {.value = t, .grad = t, .exp_avg = t, .exp_avg_sq = t};
    float norm;
    ct_grad_norm_args norm_args = {
        .norm = ct_tensor1(&norm, CT_F32, 1), .segments = &segment, .segment_count = 1};
    ct_grad_stats_args stats_args = {
        .stats = ct_tensor1(stats, CT_F32, 3), .norms = norm_args.norm, .max_norm = max_norm};
    assert_ok(device->backend->grad_norm(device, &norm_args));
    assert_ok(device->backend->grad_stats(device, &stats_args));
}

static void test_grad_norm_any_threads(void **state)
{
    enum { COUNT = 200003 };
    ct_device **devices = *state;
    float *grad = normal_numbers(9, COUNT), stats[DEVICES][3];
    for (int i = 0; i < DEVICES; i++) norm_of(devices[i], grad, COUNT, 1, stats[i]);
    assert_memory_equal(stats[0], stats[1], sizeof stats[0]);
    free(grad);
}

static void test_grad_norm_edges(void **state)
{
    ct_device *device = one_thread(state);
    float stats[3], zeros[5] = {0};
    norm_of(device, zeros, 5, 1, stats);
    assert_true(stats[0] == 0 && stats[1] == 1 && stats[2] == 0);
    float large[2] = {3e30f, 4e30f}; /* squares overflow f32 but not f64 */
    norm_of(device, large, 2, 0, stats);
    assert_true(stats[0] == 5e30f && stats[1] == 1 && stats[2] == 0);
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        zeros[3] = bad[i];
        norm_of(device, zeros, 5, 1, stats);
        assert_true(stats[2] == 1);
    }
}

static void stats_of(ct_device *device, float *norms, int64_t ranks, float *stats)
{
    ct_grad_stats_args args = {.stats = ct_tensor1(stats, CT_F32, 3),
                               .norms = ct_tensor1(norms, CT_F32, ranks)};
    assert_ok(device->backend->grad_stats(device, &args));
}

static void test_grad_stats_of_ranks(void **state)
{
    ct_device *device = one_thread(state);
    float norm = NAN, stats[3], large[2] = {3e30f, 4e30f}, norms[3] = {1, 0, 2};
    const ct_grad_norm_args nothing = {.norm = ct_tensor1(&norm, CT_F32, 1)};
    assert_ok(device->backend->grad_norm(device, &nothing));
    assert_true(norm == 0);
    stats_of(device, large, 2, stats);
    assert_true(stats[0] == 5e30f && stats[1] == 1 && stats[2] == 0);
    stats_of(device, large, 1, stats);
    assert_true(stats[0] == 3e30f);
    const float bad[] = {NAN, INFINITY};
    for (int i = 0; i < 2; i++) {
        norms[1] = bad[i];
        stats_of(device, norms, 3, stats);
        assert_true(stats[2] == 1);
    }
}

/* ---- loss ------------------------------------------------------------------------------------ */

typedef struct loss_run {
    float loss, dlogit_scale, *dimage, *dtext;
} loss_run;

/* Forward and backward on `count` pairs of the same photo. */
static loss_run run_loss(ct_device *device, float *image, float *text, int64_t count, int64_t width,
                         float factor, ct_same_image same_image)
{
    loss_run run = {.dimage = normal_numbers(1, count * width),
                    .dtext = normal_numbers(2, count * width)};
    float logit_scale = logf(factor), *lse = normal_numbers(3, 3 * count);
    int32_t *ids = calloc((size_t)count, sizeof *ids);
    assert_non_null(ids);
    ct_clip_loss_fwd_args fwd = {.row_lse = ct_tensor1(lse, CT_F32, count),
                                 .col_lse = ct_tensor1(lse + count, CT_F32, count),
                                 .target = ct_tensor1(lse + 2 * count, CT_F32, count),
                                 .image = ct_tensor2(image, CT_F32, count, width),
                                 .text = ct_tensor2(text, CT_F32, count, width),
                                 .logit_scale = ct_tensor1(&logit_scale, CT_F32, 1),
                                 .photo_ids = ct_tensor1(ids, CT_I32, count),
                                 .same_image = same_image};
    ct_clip_loss_bwd_args bwd = {.dimage = ct_tensor2(run.dimage, CT_F32, count, width),
                                 .dtext = ct_tensor2(run.dtext, CT_F32, count, width),
                                 .dlogit_scale = ct_tensor1(&run.dlogit_scale, CT_F32, 1),
                                 .image = fwd.image,
                                 .text = fwd.text,
                                 .logit_scale = fwd.logit_scale,
                                 .photo_ids = fwd.photo_ids,
                                 .row_lse = fwd.row_lse,
                                 .col_lse = fwd.col_lse,
                                 .same_image = same_image};
    const ct_clip_loss_total_args total = {.loss = ct_tensor1(&run.loss, CT_F32, 1),
                                           .row_lse = fwd.row_lse,
                                           .col_lse = fwd.col_lse,
                                           .target = fwd.target,
                                           .count = count};
    assert_ok(device->backend->clip_loss_fwd(device, &fwd));
    assert_ok(device->backend->clip_loss_total(device, &total));
    assert_ok(device->backend->clip_loss_bwd(device, &bwd));
    free(lse);
    free(ids);
    return run;
}

static void free_loss(loss_run *run)
{
    free(run->dimage);
    free(run->dtext);
}

/* A batch of one pair, or of one photo under `mask`, has nothing to tell apart. */
static void test_loss_without_negatives(void **state)
{
    enum { WIDTH = 6 };
    ct_device *device = one_thread(state);
    float *image = normal_numbers(5, 5 * WIDTH), *text = normal_numbers(6, 5 * WIDTH);
    for (int mode = CT_SAME_IMAGE_MASK; mode <= CT_SAME_IMAGE_NEGATIVE; mode++)
        for (int count = 1; count <= (mode == CT_SAME_IMAGE_MASK ? 5 : 1); count++) {
            loss_run run = run_loss(device, image, text, count, WIDTH, 100, (ct_same_image)mode);
            assert_true(run.loss == 0 && run.dlogit_scale == 0);
            for (int k = 0; k < count * WIDTH; k++)
                assert_true(run.dimage[k] == 0 && run.dtext[k] == 0);
            free_loss(&run);
        }
    free(image);
    free(text);
}

static void test_nan_reaches_loss(void **state)
{
    enum { COUNT = 150, WIDTH = 4 };
    for (int k = 0; k < 2; k++) {
        float *image = normal_numbers(5, COUNT * WIDTH), *text = normal_numbers(6, COUNT * WIDTH);
        (k ? image : text)[COUNT * WIDTH - 1] = NAN;
        loss_run run =
            run_loss(one_thread(state), image, text, COUNT, WIDTH, 10, CT_SAME_IMAGE_NEGATIVE);
        assert_true(isnan(run.loss));
        free_loss(&run);
        free(image);
        free(text);
    }
}

/* The similarities are never there as a whole: twice the batch is twice the memory. */
static void test_loss_memory(void **state)
{
    (void)state;
    size_t bytes[2];
    for (int i = 0; i < 2; i++) {
        const int64_t count = 4096 << i;
        ct_device *device;
        assert_ok(ct_cpu_device_create(2, &device));
        ct_tensor matrix = ct_tensor2(NULL, CT_F32, count, 64), one = ct_tensor1(NULL, CT_F32, 1);
        ct_tensor list = ct_tensor1(NULL, CT_F32, count);
        ct_clip_loss_fwd_args fwd = {.row_lse = list,
                                     .col_lse = list,
                                     .target = list,
                                     .image = matrix,
                                     .text = matrix,
                                     .logit_scale = one,
                                     .photo_ids = list,
                                     .same_image = CT_SAME_IMAGE_MASK};
        ct_clip_loss_bwd_args bwd = {.dimage = matrix,
                                     .dtext = matrix,
                                     .dlogit_scale = one,
                                     .image = matrix,
                                     .text = matrix,
                                     .logit_scale = one,
                                     .photo_ids = list,
                                     .row_lse = list,
                                     .col_lse = list,
                                     .same_image = CT_SAME_IMAGE_MASK};
        assert_ok(device->backend->prepare(device, CT_OP_clip_loss_fwd, &fwd));
        assert_ok(device->backend->prepare(device, CT_OP_clip_loss_bwd, &bwd));
        bytes[i] = device->workspace_bytes;
        ct_device_destroy(device);
    }
    assert_true(bytes[1] <= 2 * bytes[0] && bytes[0] < (size_t)4096 * 4096 * sizeof(float) / 16);
}

int ct_run_cpu_kernel_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp),
        cmocka_unit_test(test_dropout_factors),
        cmocka_unit_test(test_wrong_ids),
        cmocka_unit_test(test_wrong_sequences),
        cmocka_unit_test(test_attention_any_threads),
        cmocka_unit_test(test_embedding_any_threads),
        cmocka_unit_test(test_grad_norm_any_threads),
        cmocka_unit_test(test_grad_norm_edges),
        cmocka_unit_test(test_grad_stats_of_ranks),
        cmocka_unit_test(test_loss_without_negatives),
        cmocka_unit_test(test_nan_reaches_loss),
        cmocka_unit_test(test_loss_memory),
    };
    return cmocka_run_group_tests_name("cpu kernels", tests, create_devices, destroy_devices);
}
