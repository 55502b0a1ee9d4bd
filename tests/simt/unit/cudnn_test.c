/* Convolutions of the GPU backend on the SIMT device, against plain loops in f64; and how plans are
 * chosen, timed and remembered. Whole models and many more shapes: tests/op. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cuda/conv_plan.h"
#include "cuda/convolutions.h"
#include "cuda/plan_cache.h"

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != CT_OK) fail_msg("%s: %s", #call, ct_error_message());                        \
    } while (0)

typedef struct shape {
    int64_t n, h, w, ci, co;
    int kernel, stride, pad;
} shape;

static const shape shapes[] = {
    {2, 9, 7, 3, 5, 3, 1, 1},   {3, 8, 8, 8, 16, 1, 2, 0}, {2, 12, 12, 3, 10, 4, 4, 0},
    {1, 16, 16, 3, 8, 7, 2, 3}, {5, 5, 5, 16, 8, 3, 2, 1}, {2, 9, 9, 3, 4, 4, 4, 0},
};

static float to_float(ct_dtype dtype, const void *data, int64_t i)
{
    if (dtype == CT_F32) return ((const float *)data)[i];
    if (dtype == CT_F16) return (float)((const _Float16 *)data)[i];
    const uint32_t bits = (uint32_t)((const uint16_t *)data)[i] << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void put(ct_dtype dtype, void *data, int64_t i, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (dtype == CT_F32) ((float *)data)[i] = value;
    else if (dtype == CT_F16) ((_Float16 *)data)[i] = (_Float16)value;
    else ((uint16_t *)data)[i] = (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/* A tensor here and on the device; values that every dtype holds exactly. */
typedef struct pair {
    ct_tensor t;
    void *host;
} pair;

static pair make(ct_device *device, ct_tensor t, uint32_t seed)
{
    pair p = {.t = t, .host = malloc(ct_tensor_bytes(&t))};
    for (int64_t i = 0; i < ct_tensor_count(&t); i++) {
        seed = seed * 1664525u + 1013904223u;
        put(t.dtype, p.host, i, (float)((int)(seed >> 25) - 64) / 64.0f);
    }
    OK(device->backend->alloc(device, ct_tensor_bytes(&t), "test", &p.t.data));
    OK(device->backend->upload(device, p.t.data, p.host, ct_tensor_bytes(&t)));
    return p;
}

static void drop(ct_device *device, pair *p)
{
    device->backend->free(device, p->t.data);
    free(p->host);
}

static double at(const pair *p, int64_t a, int64_t b, int64_t c, int64_t d)
{
    const int64_t *dim = p->t.dim;
    return to_float(p->t.dtype, p->host, ((a * dim[1] + b) * dim[2] + c) * dim[3] + d);
}

typedef struct terms {
    double *y, *dx, *dw, *bias;
} terms;

/* All three directions in one loop over the products. */
static void reference(const shape *s, const pair *x, const pair *w, const pair *dy, terms *out)
{
    const int64_t ho = dy->t.dim[1], wo = dy->t.dim[2];
    for (int64_t n = 0; n < s->n; n++)
        for (int64_t oy = 0; oy < ho; oy++)
            for (int64_t ox = 0; ox < wo; ox++)
                for (int64_t o = 0; o < s->co; o++) {
                    const int64_t to = ((n * ho + oy) * wo + ox) * s->co + o;
                    const double g = at(dy, n, oy, ox, o);
                    out->bias[o] += g;
                    for (int64_t ky = 0; ky < s->kernel; ky++)
                        for (int64_t kx = 0; kx < s->kernel; kx++) {
                            const int64_t iy = oy * s->stride - s->pad + ky;
                            const int64_t ix = ox * s->stride - s->pad + kx;
                            if (iy < 0 || iy >= s->h || ix < 0 || ix >= s->w) continue;
                            for (int64_t c = 0; c < s->ci; c++) {
                                out->y[to] += at(x, n, iy, ix, c) * at(w, o, ky, kx, c);
                                out->dx[((n * s->h + iy) * s->w + ix) * s->ci + c] +=
                                    g * at(w, o, ky, kx, c);
                                out->dw[((o * s->kernel + ky) * s->kernel + kx) * s->ci + c] +=
                                    g * at(x, n, iy, ix, c);
                            }
                        }
                }
}

/* Rounding (of something as large as the expected value and `more`) by `unit`, and a few of f32. */
static void compare(ct_device *device, const pair *got, const double *expected, double scale,
                    double unit, double more, const char *what)
{
    const int64_t count = ct_tensor_count(&got->t);
    OK(device->backend->download(device, got->host, got->t.data, ct_tensor_bytes(&got->t)));
    for (int64_t i = 0; i < count; i++) {
        const double value = to_float(got->t.dtype, got->host, i);
        const double limit = unit * (fabs(expected[i]) + more) + 4e-6 * scale;
        if (!(fabs(value - expected[i]) <= limit))
            fail_msg("%s[%lld] is %.9g, expected %.9g +- %.3g", what, (long long)i, value,
                     expected[i], limit);
    }
}

static void run_shape(ct_device *device, const shape *s, ct_dtype dtype)
{
    static const double units[] = {[CT_F32] = 1e-6, [CT_BF16] = 0x1p-8, [CT_F16] = 0x1p-11};
    const int64_t ho = (s->h + 2 * s->pad - s->kernel) / s->stride + 1;
    const int64_t wo = (s->w + 2 * s->pad - s->kernel) / s->stride + 1;
    const int k = s->kernel;
    pair x = make(device, ct_tensor4(NULL, dtype, s->n, s->h, s->w, s->ci), 1);
    pair w = make(device, ct_tensor4(NULL, dtype, s->co, k, k, s->ci), 2);
    pair dy = make(device, ct_tensor4(NULL, dtype, s->n, ho, wo, s->co), 3);
    pair y = make(device, dy.t, 4), dx = make(device, x.t, 5);
    pair bias = make(device, ct_tensor1(NULL, CT_F32, s->co), 6);
    pair dw = make(device, ct_tensor4(NULL, CT_F32, s->co, k, k, s->ci), 7);
    pair dbias = make(device, bias.t, 8);
    terms expected = {calloc((size_t)ct_tensor_count(&y.t), sizeof(double)),
                      calloc((size_t)ct_tensor_count(&x.t), sizeof(double)),
                      calloc((size_t)ct_tensor_count(&w.t), sizeof(double)),
                      calloc((size_t)s->co, sizeof(double))};
    reference(s, &x, &w, &dy, &expected);
    for (int64_t i = 0; i < ct_tensor_count(&y.t); i++)
        expected.y[i] += to_float(CT_F32, bias.host, i % s->co);
    for (int64_t i = 0; i < ct_tensor_count(&dw.t); i++)
        expected.dw[i] += to_float(CT_F32, dw.host, i);
    for (int64_t i = 0; i < s->co; i++) expected.bias[i] += to_float(CT_F32, dbias.host, i);

    const ct_conv2d_fwd_args fwd = {
        .y = y.t, .x = x.t, .w = w.t, .bias = bias.t, .stride = s->stride, .pad = s->pad};
    const ct_conv2d_bwd_data_args data = {
        .dx = dx.t, .dy = dy.t, .w = w.t, .stride = s->stride, .pad = s->pad};
    const ct_conv2d_bwd_filter_args filter = {
        .dw = dw.t, .dbias = dbias.t, .dy = dy.t, .x = x.t, .stride = s->stride, .pad = s->pad};
    OK(device->backend->prepare(device, CT_OP_conv2d_fwd, &fwd));
    OK(device->backend->prepare(device, CT_OP_conv2d_bwd_data, &data));
    OK(device->backend->prepare(device, CT_OP_conv2d_bwd_filter, &filter));
    OK(device->backend->commit(device));
    OK(device->backend->conv2d_fwd(device, &fwd));
    OK(device->backend->conv2d_bwd_data(device, &data));
    OK(device->backend->conv2d_bwd_filter(device, &filter));
    /* y is rounded before the bias (below 1) is added, and again after; dw before it is added to
     * what was there (below 1). */
    compare(device, &y, expected.y, sqrt((double)(k * k * s->ci)), 2 * units[dtype], 1, "y");
    compare(device, &dx, expected.dx, sqrt((double)(k * k * s->co)), units[dtype], 0, "dx");
    compare(device, &dw, expected.dw, sqrt((double)(s->n * ho * wo)), units[dtype], 1, "dw");
    compare(device, &dbias, expected.bias, sqrt((double)(s->n * ho * wo)), 1e-6, 0, "dbias");
    free(expected.y);
    free(expected.dx);
    free(expected.dw);
    free(expected.bias);
    pair *all[] = {&x, &w, &dy, &y, &dx, &bias, &dw, &dbias};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) drop(device, all[i]);
}

static void test_values(void **state)
{
    (void)state;
    static const struct {
        ct_cuda_precision precision;
        ct_dtype dtype;
    } kinds[] = {{CT_CUDA_F32, CT_F32},
                 {CT_CUDA_BF16, CT_BF16},
                 {CT_CUDA_F16, CT_F16},
                 {CT_CUDA_TF32, CT_F32}};
    /* The values have 7 bits, so that TF32 holds them as well. */
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        const ct_cuda_options options = {.precision = kinds[k].precision, .deterministic = true};
        ct_device *device;
        OK(ct_cuda_device_create(&options, &device));
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            run_shape(device, &shapes[i], kinds[k].dtype);
        ct_device_destroy(device);
    }
}

/* ---- choice -------------------------------------------------------------------------------- */

static ct_cuda_conv_problem problem_of(ct_dtype dtype, bool tf32, bool deterministic)
{
    const ct_tensor x = ct_tensor4(NULL, dtype, 2, 8, 8, 16);
    const ct_tensor w = ct_tensor4(NULL, dtype, 16, 3, 3, 16);
    ct_cuda_conv_problem p = ct_cuda_conv_problem_of(CT_CUDA_CONV_FWD, &x, &w, &x, 1, 1);
    p.tf32 = tf32;
    p.deterministic = deterministic;
    return p;
}

/* Every engine among the candidates computes what op.h promises. */
static void test_allowed(void **state)
{
    (void)state;
    ct_cudnn_target target = {.operation = "test"};
    assert_int_equal(cudnnCreate(&target.handle), CUDNN_STATUS_SUCCESS);
    for (int kind = 0; kind < 8; kind++) {
        const bool f32 = kind & 1, tf32 = f32 && (kind & 2), deterministic = kind & 4;
        const ct_cuda_conv_problem p = problem_of(f32 ? CT_F32 : CT_BF16, tf32, deterministic);
        ct_cuda_conv_plan plans[8];
        int count;
        bool random = false;
        OK(ct_cuda_conv_plans(&target, &p, plans, 8, &count));
        assert_true(count >= 2);
        for (int i = 0; i < count; i++) {
            const uint32_t notes = plans[i].engine.numerical_notes;
            assert_true(plans[i].workspace_bytes <= ct_cuda_conv_workspace_limit(&p));
            assert_false(notes & 1u << CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION);
            assert_false(notes & 1u << CUDNN_NUMERICAL_NOTE_WINOGRAD);
            if (f32 && !tf32) assert_false(notes & 1u << CUDNN_NUMERICAL_NOTE_TENSOR_CORE);
            if (notes & 1u << CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) random = true;
            ct_cuda_conv_plan_release(&plans[i]);
        }
        assert_int_equal(random, !deterministic && !(f32 && !tf32));
    }
    assert_int_equal(cudnnDestroy(target.handle), CUDNN_STATUS_SUCCESS);
}

/* ---- moments ------------------------------------------------------------------------------- */

/* The first plan that sums over y; engine index -1: there is none that is allowed. */
static ct_cudnn_engine plan_with_sums(ct_cudnn_target *target, ct_dtype dtype, bool deterministic)
{
    ct_cuda_conv_problem p = problem_of(dtype, dtype == CT_F32, deterministic);
    ct_cuda_conv_plan plan;
    int count;
    p.sums = 1;
    const ct_status status = ct_cuda_conv_plans(target, &p, &plan, 1, &count);
    if (status == CT_ERR_UNSUPPORTED) return (ct_cudnn_engine){.index = -1};
    OK(status);
    const ct_cudnn_engine engine = plan.engine;
    ct_cuda_conv_plan_release(&plan);
    return engine;
}

/* What is compiled adds by atomics, whatever its notes say. */
static void test_sums_allowed(void **state)
{
    (void)state;
    ct_cudnn_target target = {.operation = "test"};
    assert_int_equal(cudnnCreate(&target.handle), CUDNN_STATUS_SUCCESS);
    assert_true(plan_with_sums(&target, CT_BF16, false).runtime_compiled);
    assert_true(plan_with_sums(&target, CT_F32, false).runtime_compiled);
    assert_int_equal(plan_with_sums(&target, CT_BF16, true).index, -1);
    const ct_cudnn_engine ready = plan_with_sums(&target, CT_F16, true);
    assert_true(ready.index >= 0 && !ready.runtime_compiled);
    assert_int_equal(cudnnDestroy(target.handle), CUDNN_STATUS_SUCCESS);
}

/* Two runs: what sums are added to must not matter. */
static void run_moments(const ct_cuda_options *options, ct_dtype dtype, double unit)
{
    ct_device *device;
    OK(ct_cuda_device_create(options, &device));
    assert_true(device->fuses_moments);
    pair x = make(device, ct_tensor4(NULL, dtype, 3, 6, 5, 16), 1);
    pair w = make(device, ct_tensor4(NULL, dtype, 8, 3, 3, 16), 2);
    pair y = make(device, ct_tensor4(NULL, dtype, 3, 6, 5, 8), 3);
    pair moments = make(device, ct_tensor2(NULL, CT_F32, 2, 8), 4);
    const ct_conv2d_fwd_args fwd = {
        .y = y.t, .moments = moments.t, .x = x.t, .w = w.t, .stride = 1, .pad = 1};
    OK(device->backend->prepare(device, CT_OP_conv2d_fwd, &fwd));
    OK(device->backend->commit(device));
    for (int run = 0; run < 2; run++) OK(device->backend->conv2d_fwd(device, &fwd));
    OK(device->backend->download(device, y.host, y.t.data, ct_tensor_bytes(&y.t)));
    double expected[2 * 8] = {0}, largest = 0;
    for (int64_t i = 0; i < 3 * 6 * 5 * 8; i++)
        expected[i % 8] += to_float(dtype, y.host, i) / 90.0;
    for (int64_t i = 0; i < 3 * 6 * 5 * 8; i++) {
        const double apart = to_float(dtype, y.host, i) - expected[i % 8];
        expected[8 + i % 8] += apart * apart / 90.0;
    }
    for (int i = 0; i < 16; i++) largest = fmax(largest, fabs(expected[i]));
    compare(device, &moments, expected, largest, unit, 1, "moments");
    pair *all[] = {&x, &w, &y, &moments};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) drop(device, all[i]);
    ct_device_destroy(device);
}

static void test_moments(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        const ct_cuda_options bf16 = {.precision = CT_CUDA_BF16,
                                      .fused_statistics = true,
                                      .deterministic = kind & 1,
                                      .autotune = kind & 2};
        ct_cuda_options f16 = bf16;
        f16.precision = CT_CUDA_F16;
        run_moments(&bf16, CT_BF16, 0x1p-8);
        run_moments(&f16, CT_F16, 0x1p-11);
    }
}

/* ---- plan cache ---------------------------------------------------------------------------- */

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int count_lines(const char *path)
{
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    int lines = 0, c;
    while ((c = getc(file)) != EOF) lines += c == '\n';
    fclose(file);
    return lines;
}

static void test_cache_file(void **state)
{
    (void)state;
    char path[64];
    ct_plan_cache *cache;
    ct_cudnn_engine engine = {.index = 5, .knob_count = 2};
    snprintf(path, sizeof path, "/tmp/ct_plan_cache_%ld", (long)getpid());
    engine.knobs[0].type = 2;
    engine.knobs[0].value = 4;
    engine.knobs[1].type = 12;
    engine.knobs[1].value = -1;

    OK(ct_plan_cache_open(path, &cache)); /* no file yet */
    assert_false(ct_plan_cache_find(cache, "a", &engine));
    OK(ct_plan_cache_put(cache, "a b, c", &engine));
    engine.index = 7;
    OK(ct_plan_cache_put(cache, "a b, c", &engine)); /* instead of the first */
    engine.knob_count = 0;
    OK(ct_plan_cache_put(cache, "d", &engine));
    ct_plan_cache_close(cache);

    OK(ct_plan_cache_open(path, &cache));
    assert_true(ct_plan_cache_find(cache, "a b, c", &engine));
    assert_int_equal(engine.index, 7);
    assert_int_equal(engine.knob_count, 2);
    assert_int_equal(engine.knobs[1].type, 12);
    assert_int_equal(engine.knobs[1].value, -1);
    assert_true(ct_plan_cache_find(cache, "d", &engine));
    assert_int_equal(engine.knob_count, 0);
    ct_plan_cache_close(cache);

    write_text(path,
               "# remark\n\nx\ty\tz\nonly\n\t1\t-\nk\t1\t2=\nk\t1\t2=3,\nk\t1\t99=3\nk\t-1\t-\n"
               "k\t99999999999999999999\t-\ngood\t3\t2=1\nk\t1\t-extra\nlast\t4\t-");
    OK(ct_plan_cache_open(path, &cache));
    assert_false(ct_plan_cache_find(cache, "k", &engine));
    assert_false(ct_plan_cache_find(cache, "x", &engine));
    assert_true(ct_plan_cache_find(cache, "good", &engine));
    assert_true(ct_plan_cache_find(cache, "last", &engine));
    ct_plan_cache_close(cache);
    assert_int_equal(unlink(path), 0);

    OK(ct_plan_cache_open("/nonexistent/folder/cache", &cache));
    OK(ct_plan_cache_put(cache, "still", &engine)); /* a warning */
    assert_true(ct_plan_cache_find(cache, "still", &engine));
    ct_plan_cache_close(cache);
}

static void run_tuned(const char *path)
{
    const ct_cuda_options options = {
        .precision = CT_CUDA_BF16, .deterministic = true, .autotune = true, .plan_cache = path};
    ct_device *device;
    OK(ct_cuda_device_create(&options, &device));
    run_shape(device, &shapes[0], CT_BF16);
    ct_device_destroy(device);
}

/* A second run takes the choices from the file; a choice that no engine answers is made again. */
static void test_tuning(void **state)
{
    (void)state;
    char path[64], text[16384];
    snprintf(path, sizeof path, "/tmp/ct_tuned_%ld", (long)getpid());
    run_tuned(path);
    assert_int_equal(count_lines(path), 1 + 3);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    const size_t size = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[size] = '\0';
    run_tuned(path);
    assert_int_equal(count_lines(path), 1 + 3);

    for (char *tab = strchr(text, '\t'); tab; tab = strchr(tab + 1, '\t')) {
        tab[1] = '9'; /* the first of two tabs: no engine 9 */
        tab = strchr(tab + 1, '\t');
        assert_non_null(tab);
    }
    write_text(path, text);
    run_tuned(path);
    ct_plan_cache *cache;
    OK(ct_plan_cache_open(path, &cache));
    ct_plan_cache_close(cache);
    assert_int_equal(count_lines(path), 1 + 3);
    assert_int_equal(unlink(path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),       cmocka_unit_test(test_allowed),
        cmocka_unit_test(test_sums_allowed), cmocka_unit_test(test_moments),
        cmocka_unit_test(test_cache_file),   cmocka_unit_test(test_tuning),
    };
    return cmocka_run_group_tests_name("cudnn", tests, NULL, NULL);
}
