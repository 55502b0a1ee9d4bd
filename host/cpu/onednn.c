#include "cpu/onednn.h"

#include <limits.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include <oneapi/dnnl/dnnl.h>
#include <oneapi/dnnl/dnnl_debug.h>

/* What differs between the versions: a memory descriptor is a struct in 2 and a handle in 3, and
 * convolutions are described in two steps in 2 and in one in 3. */
#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t desc_ref;
#else
typedef const dnnl_memory_desc_t *desc_ref;
#endif

enum { TENSOR_X, TENSOR_W, TENSOR_BIAS, TENSOR_Y, TENSORS };

struct ct_conv {
    ct_conv_direction direction;
    ct_conv_shape shape;
    int threads;
    dnnl_stream_t stream; /* the engine's, not owned */
    dnnl_primitive_t conv;
    dnnl_primitive_t reorder;      /* weights to or from oneDNN's layout */
    dnnl_memory_t tensor[TENSORS]; /* TENSOR_W: in oneDNN's layout; BIAS: NULL without one */
    dnnl_memory_t plain_w;         /* (Co, KH, KW, Ci) */
    dnnl_memory_t conv_scratch, reorder_scratch;
    size_t w_bytes, scratch_bytes; /* the scratchpads share scratch_bytes: they run in turn */
    ct_conv *next;
};

struct ct_onednn {
    int threads;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_attr_t plain_attr;      /* scratch memory is ours */
    dnnl_primitive_attr_t accumulate_attr; /* and the result is added to what is there */
    ct_conv *convs;
    int conv_count;
};

static ct_status check(dnnl_status_t status, const char *what)
{
    if (status == dnnl_success) return CT_OK;
    return ct_fail(status == dnnl_out_of_memory ? CT_ERR_MEMORY : CT_ERR_DEVICE, "oneDNN: %s: %s",
                   what, dnnl_status2str(status));
}

#define DNNL_TRY(expression) CT_TRY(check((expression), #expression))

/* ---- descriptors --------------------------------------------------------------------------- */

typedef struct conv_descs {
    dnnl_memory_desc_t tensor[TENSORS];
    dnnl_memory_desc_t plain_w;
    dnnl_primitive_desc_t conv, reorder;
} conv_descs;

#if DNNL_VERSION_MAJOR >= 3
static dnnl_status_t desc_init(dnnl_memory_desc_t *desc, int rank, const dnnl_dims_t dims,
                               dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_create_with_tag(desc, rank, dims, dnnl_f32, tag);
}

static desc_ref desc_get(const dnnl_memory_desc_t *desc)
{
    return *desc;
}

static void descs_destroy(conv_descs *descs)
{
    for (int i = 0; i < TENSORS; i++)
        if (descs->tensor[i]) dnnl_memory_desc_destroy(descs->tensor[i]);
    if (descs->plain_w) dnnl_memory_desc_destroy(descs->plain_w);
    if (descs->conv) dnnl_primitive_desc_destroy(descs->conv);
    if (descs->reorder) dnnl_primitive_desc_destroy(descs->reorder);
}

static dnnl_status_t describe(const ct_onednn *onednn, ct_conv_direction direction, bool bias,
                              const conv_descs *d, const dnnl_dims_t strides,
                              const dnnl_dims_t padding, dnnl_primitive_desc_t hint,
                              dnnl_primitive_desc_t *out)
{
    const dnnl_alg_kind_t alg = dnnl_convolution_direct;
    const dnnl_memory_desc_t *t = d->tensor;
    switch (direction) {
    case CT_CONV_FWD:
        return dnnl_convolution_forward_primitive_desc_create(
            out, onednn->engine, dnnl_forward_training, alg, t[TENSOR_X], t[TENSOR_W],
            bias ? t[TENSOR_BIAS] : NULL, t[TENSOR_Y], strides, NULL, padding, padding,
            onednn->plain_attr);
    case CT_CONV_BWD_DATA:
        return dnnl_convolution_backward_data_primitive_desc_create(
            out, onednn->engine, alg, t[TENSOR_X], t[TENSOR_W], t[TENSOR_Y], strides, NULL, padding,
            padding, hint, onednn->plain_attr);
    default:
        return dnnl_convolution_backward_weights_primitive_desc_create(
            out, onednn->engine, alg, t[TENSOR_X], t[TENSOR_W], NULL, t[TENSOR_Y], strides, NULL,
            padding, padding, hint, onednn->plain_attr);
    }
}

static dnnl_status_t append_sum(dnnl_post_ops_t post_ops)
{
    return dnnl_post_ops_append_sum(post_ops, 1.0f, 0, dnnl_data_type_undef);
}
#else
static dnnl_status_t desc_init(dnnl_memory_desc_t *desc, int rank, const dnnl_dims_t dims,
                               dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_init_by_tag(desc, rank, dims, dnnl_f32, tag);
}

static desc_ref desc_get(const dnnl_memory_desc_t *desc)
{
    return desc;
}

static void descs_destroy(conv_descs *descs)
{
    if (descs->conv) dnnl_primitive_desc_destroy(descs->conv);
    if (descs->reorder) dnnl_primitive_desc_destroy(descs->reorder);
}

static dnnl_status_t describe(const ct_onednn *onednn, ct_conv_direction direction, bool bias,
                              const conv_descs *d, const dnnl_dims_t strides,
                              const dnnl_dims_t padding, dnnl_primitive_desc_t hint,
                              dnnl_primitive_desc_t *out)
{
    const dnnl_alg_kind_t alg = dnnl_convolution_direct;
    const dnnl_memory_desc_t *t = d->tensor;
    dnnl_convolution_desc_t op;
    dnnl_status_t status;
    switch (direction) {
    case CT_CONV_FWD:
        status = dnnl_convolution_forward_desc_init(&op, dnnl_forward_training, alg, &t[TENSOR_X],
                                                    &t[TENSOR_W], bias ? &t[TENSOR_BIAS] : NULL,
                                                    &t[TENSOR_Y], strides, padding, padding);
        break;
    case CT_CONV_BWD_DATA:
        status = dnnl_convolution_backward_data_desc_init(&op, alg, &t[TENSOR_X], &t[TENSOR_W],
                                                          &t[TENSOR_Y], strides, padding, padding);
        break;
    default:
        status = dnnl_convolution_backward_weights_desc_init(
            &op, alg, &t[TENSOR_X], &t[TENSOR_W], NULL, &t[TENSOR_Y], strides, padding, padding);
    }
    if (status != dnnl_success) return status;
    return dnnl_primitive_desc_create(out, &op, onednn->plain_attr, onednn->engine, hint);
}

static dnnl_status_t append_sum(dnnl_post_ops_t post_ops)
{
    return dnnl_post_ops_append_sum(post_ops, 1.0f);
}
#endif

static ct_status describe_tensors(const ct_conv_shape *s, conv_descs *d)
{
    const dnnl_dims_t x = {s->n, s->ci, s->h, s->w}, w = {s->co, s->ci, s->kh, s->kw};
    const dnnl_dims_t y = {s->n, s->co, s->ho, s->wo}, bias = {s->co};
    DNNL_TRY(desc_init(&d->tensor[TENSOR_X], 4, x, dnnl_nhwc));
    DNNL_TRY(desc_init(&d->tensor[TENSOR_W], 4, w, dnnl_format_tag_any));
    DNNL_TRY(desc_init(&d->tensor[TENSOR_BIAS], 1, bias, dnnl_a));
    DNNL_TRY(desc_init(&d->tensor[TENSOR_Y], 4, y, dnnl_nhwc));
    DNNL_TRY(desc_init(&d->plain_w, 4, w, dnnl_acdb));
    return CT_OK;
}

/* The backward directions want the forward one as a hint. */
static ct_status describe_conv(const ct_onednn *onednn, ct_conv_direction direction,
                               const ct_conv_shape *s, conv_descs *d)
{
    const dnnl_dims_t strides = {s->stride, s->stride}, padding = {s->pad, s->pad};
    if (direction == CT_CONV_FWD)
        return check(describe(onednn, direction, s->bias, d, strides, padding, NULL, &d->conv),
                     "describing a convolution");
    dnnl_primitive_desc_t forward = NULL;
    dnnl_status_t status =
        describe(onednn, CT_CONV_FWD, false, d, strides, padding, NULL, &forward);
    if (status == dnnl_success)
        status = describe(onednn, direction, false, d, strides, padding, forward, &d->conv);
    if (forward) dnnl_primitive_desc_destroy(forward);
    return check(status, "describing a convolution's gradient");
}

/* ---- one convolution ----------------------------------------------------------------------- */

static desc_ref query(const_dnnl_primitive_desc_t pd, dnnl_query_t what)
{
    return dnnl_primitive_desc_query_md(pd, what, 0);
}

static ct_status make_memory(const ct_onednn *onednn, desc_ref desc, dnnl_memory_t *out)
{
    DNNL_TRY(dnnl_memory_create(out, desc, onednn->engine, DNNL_MEMORY_NONE));
    return CT_OK;
}

static size_t scratchpad_bytes(const_dnnl_primitive_desc_t pd)
{
    return ct_cpu_aligned(dnnl_memory_desc_get_size(query(pd, dnnl_query_scratchpad_md)));
}

static ct_status fill_conv(const ct_onednn *onednn, conv_descs *d, ct_conv *conv)
{
    const bool filter = conv->direction == CT_CONV_BWD_FILTER;
    CT_TRY(describe_tensors(&conv->shape, d));
    CT_TRY(describe_conv(onednn, conv->direction, &conv->shape, d));
    desc_ref w = query(d->conv, filter ? dnnl_query_diff_weights_md : dnnl_query_weights_md);
    desc_ref plain_w = desc_get(&d->plain_w);
    DNNL_TRY(dnnl_reorder_primitive_desc_create(
        &d->reorder, filter ? w : plain_w, onednn->engine, filter ? plain_w : w, onednn->engine,
        filter ? onednn->accumulate_attr : onednn->plain_attr));
    DNNL_TRY(dnnl_primitive_create(&conv->conv, d->conv));
    DNNL_TRY(dnnl_primitive_create(&conv->reorder, d->reorder));
    for (int i = 0; i < TENSORS; i++) {
        if (i == TENSOR_BIAS && !conv->shape.bias) continue;
        CT_TRY(make_memory(onednn, i == TENSOR_W ? w : desc_get(&d->tensor[i]), &conv->tensor[i]));
    }
    CT_TRY(make_memory(onednn, plain_w, &conv->plain_w));
    CT_TRY(make_memory(onednn, query(d->conv, dnnl_query_scratchpad_md), &conv->conv_scratch));
    CT_TRY(
        make_memory(onednn, query(d->reorder, dnnl_query_scratchpad_md), &conv->reorder_scratch));
    conv->w_bytes = ct_cpu_aligned(dnnl_memory_desc_get_size(w));
    size_t a = scratchpad_bytes(d->conv), b = scratchpad_bytes(d->reorder);
    conv->scratch_bytes = a > b ? a : b;
    return CT_OK;
}

static void conv_destroy(ct_conv *conv)
{
    if (!conv) return;
    if (conv->conv) dnnl_primitive_destroy(conv->conv);
    if (conv->reorder) dnnl_primitive_destroy(conv->reorder);
    for (int i = 0; i < TENSORS; i++)
        if (conv->tensor[i]) dnnl_memory_destroy(conv->tensor[i]);
    if (conv->plain_w) dnnl_memory_destroy(conv->plain_w);
    if (conv->conv_scratch) dnnl_memory_destroy(conv->conv_scratch);
    if (conv->reorder_scratch) dnnl_memory_destroy(conv->reorder_scratch);
    free(conv);
}

static ct_status conv_create(const ct_onednn *onednn, ct_conv_direction direction,
                             const ct_conv_shape *shape, ct_conv **out)
{
    ct_conv *conv;
    CT_TRY(ct_alloc(1, sizeof *conv, "a convolution", &conv));
    conv->direction = direction;
    conv->shape = *shape;
    conv->threads = onednn->threads;
    conv->stream = onednn->stream;
    conv_descs descs;
    memset(&descs, 0, sizeof descs);
    omp_set_num_threads(onednn->threads); /* oneDNN plans for this many */
    ct_status status = fill_conv(onednn, &descs, conv);
    descs_destroy(&descs);
    if (status != CT_OK) {
        conv_destroy(conv);
        const ct_conv_shape *s = shape;
        return ct_fail_context(status,
                               "convolution of (%lld, %lld, %lld, %lld) with (%lld, %lld, %lld, "
                               "%lld), stride %lld, padding %lld",
                               (long long)s->n, (long long)s->h, (long long)s->w, (long long)s->ci,
                               (long long)s->co, (long long)s->kh, (long long)s->kw,
                               (long long)s->ci, (long long)s->stride, (long long)s->pad);
    }
    *out = conv;
    return CT_OK;
}

size_t ct_onednn_conv_scratch_bytes(const ct_conv *conv)
{
    return conv->w_bytes + conv->scratch_bytes;
}

static ct_status run_reorder(const ct_conv *conv)
{
    const bool filter = conv->direction == CT_CONV_BWD_FILTER;
    const dnnl_exec_arg_t args[] = {
        {DNNL_ARG_FROM, filter ? conv->tensor[TENSOR_W] : conv->plain_w},
        {DNNL_ARG_TO, filter ? conv->plain_w : conv->tensor[TENSOR_W]},
        {DNNL_ARG_SCRATCHPAD, conv->reorder_scratch},
    };
    DNNL_TRY(dnnl_primitive_execute(conv->reorder, conv->stream, 3, args));
    return CT_OK;
}

static ct_status run_conv(const ct_conv *conv)
{
    static const int arg[CT_CONV_DIRECTIONS][TENSORS] = {
        [CT_CONV_FWD] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS, DNNL_ARG_DST},
        [CT_CONV_BWD_DATA] = {DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, 0, DNNL_ARG_DIFF_DST},
        [CT_CONV_BWD_FILTER] = {DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, 0, DNNL_ARG_DIFF_DST},
    };
    dnnl_exec_arg_t args[TENSORS + 1];
    int count = 0;
    for (int i = 0; i < TENSORS; i++)
        if (conv->tensor[i])
            args[count++] = (dnnl_exec_arg_t){arg[conv->direction][i], conv->tensor[i]};
    args[count++] = (dnnl_exec_arg_t){DNNL_ARG_SCRATCHPAD, conv->conv_scratch};
    DNNL_TRY(dnnl_primitive_execute(conv->conv, conv->stream, count, args));
    return CT_OK;
}

ct_status ct_onednn_conv_run(const ct_conv *conv, float *x, float *w, float *bias, float *y,
                             void *scratch)
{
    void *scratchpad = (char *)scratch + conv->w_bytes;
    void *const data[TENSORS] = {x, scratch, bias, y};
    for (int i = 0; i < TENSORS; i++)
        if (conv->tensor[i]) DNNL_TRY(dnnl_memory_set_data_handle(conv->tensor[i], data[i]));
    DNNL_TRY(dnnl_memory_set_data_handle(conv->plain_w, w));
    DNNL_TRY(dnnl_memory_set_data_handle(conv->conv_scratch, scratchpad));
    DNNL_TRY(dnnl_memory_set_data_handle(conv->reorder_scratch, scratchpad));
    omp_set_num_threads(conv->threads);
    const bool filter = conv->direction == CT_CONV_BWD_FILTER;
    if (!filter) CT_TRY(run_reorder(conv));
    CT_TRY(run_conv(conv));
    if (filter) CT_TRY(run_reorder(conv));
    DNNL_TRY(dnnl_stream_wait(conv->stream));
    return CT_OK;
}

/* ---- engine -------------------------------------------------------------------------------- */

static ct_status make_attrs(ct_onednn *onednn)
{
    DNNL_TRY(dnnl_primitive_attr_create(&onednn->plain_attr));
    DNNL_TRY(
        dnnl_primitive_attr_set_scratchpad_mode(onednn->plain_attr, dnnl_scratchpad_mode_user));
    DNNL_TRY(dnnl_primitive_attr_create(&onednn->accumulate_attr));
    DNNL_TRY(dnnl_primitive_attr_set_scratchpad_mode(onednn->accumulate_attr,
                                                     dnnl_scratchpad_mode_user));
    dnnl_post_ops_t post_ops;
    DNNL_TRY(dnnl_post_ops_create(&post_ops));
    dnnl_status_t status = append_sum(post_ops);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_post_ops(onednn->accumulate_attr, post_ops);
    dnnl_post_ops_destroy(post_ops);
    return check(status, "describing the sum of weight gradients");
}

static ct_status fill_onednn(ct_onednn *onednn)
{
    DNNL_TRY(dnnl_engine_create(&onednn->engine, dnnl_cpu, 0));
    DNNL_TRY(dnnl_stream_create(&onednn->stream, onednn->engine, dnnl_stream_default_flags));
    return make_attrs(onednn);
}

ct_status ct_onednn_create(int threads, ct_onednn **out)
{
    ct_onednn *onednn;
    CT_TRY(ct_alloc(1, sizeof *onednn, "oneDNN's engine", &onednn));
    onednn->threads = threads;
    ct_status status = fill_onednn(onednn);
    if (status != CT_OK) {
        ct_onednn_destroy(onednn);
        return status;
    }
    *out = onednn;
    return CT_OK;
}

void ct_onednn_destroy(ct_onednn *onednn)
{
    if (!onednn) return;
    for (ct_conv *conv = onednn->convs, *next; conv; conv = next) {
        next = conv->next;
        conv_destroy(conv);
    }
    if (onednn->plain_attr) dnnl_primitive_attr_destroy(onednn->plain_attr);
    if (onednn->accumulate_attr) dnnl_primitive_attr_destroy(onednn->accumulate_attr);
    if (onednn->stream) dnnl_stream_destroy(onednn->stream);
    if (onednn->engine) dnnl_engine_destroy(onednn->engine);
    free(onednn);
}

ct_status ct_onednn_conv(ct_onednn *onednn, ct_conv_direction direction, const ct_conv_shape *shape,
                         const ct_conv **out)
{
    ct_conv *conv = onednn->convs;
    while (conv && (conv->direction != direction || memcmp(&conv->shape, shape, sizeof *shape)))
        conv = conv->next;
    if (!conv) {
        CT_TRY(conv_create(onednn, direction, shape, &conv));
        conv->next = onednn->convs;
        onednn->convs = conv;
        onednn->conv_count++;
    }
    *out = conv;
    return CT_OK;
}

int ct_onednn_conv_count(const ct_onednn *onednn)
{
    return onednn->conv_count;
}

/* ---- matrix product ------------------------------------------------------------------------ */

ct_status ct_cpu_gemm(ct_cpu_device *cpu, const ct_gemm *g)
{
    omp_set_num_threads(cpu->threads);
    DNNL_TRY(dnnl_sgemm(g->transpose_a ? 'T' : 'N', g->transpose_b ? 'T' : 'N', g->m, g->n, g->k,
                        g->alpha, g->a, g->lda, g->b, g->ldb, g->beta, g->c, g->ldc));
    return CT_OK;
}
