/* Linear layers: products by cuBLASLt with the bias added, and the tanh GELU or its derivative
 * applied, before a result is first written; the other activations follow in one pass of their own.
 *
 * The library wants a bias in the result's dtype, so a 16-bit product's f32 bias is first rounded
 * into the workspace, as PyTorch's autocast does; a copy of N numbers instead of one more pass over
 * M N. Sums of gradients are kept in f32: dw by the product itself (beta = 1). */
#include <assert.h>

#include "cuda/internal.h"
#include "cuda/products.h"

typedef struct forward {
    ct_cuda_product product;
    ct_cuda_plan *plan;
    bool activates; /* a pass over the product follows */
} forward;

static ct_cuda_product product_of(const ct_linear_fwd_args *args)
{
    const bool saves = ct_tensor_present(&args->preact);
    return (ct_cuda_product){.c = saves ? args->preact.data : args->y.data,
                             .a = args->x.data,
                             .b = args->w.data,
                             .m = args->x.dim[0],
                             .n = args->w.dim[0],
                             .k = args->x.dim[1],
                             .transpose_b = true,
                             .dtype = args->x.dtype,
                             .c_dtype = args->y.dtype,
                             .alpha = 1.0f};
}

/* Whether the bias must be rounded to the result's dtype first. */
static bool rounds_bias(const forward *f, const ct_linear_fwd_args *args)
{
    return f->product.epilogue != CT_EPILOGUE_NONE && args->y.dtype != CT_F32;
}

static const void *epilogue_bias(const ct_linear_fwd_args *args)
{
    return args->y.dtype == CT_F32 ? args->bias.data : NULL; /* rounded: where run puts it */
}

/* The library's epilogues know the tanh GELU, in 16 bits, in rows of whole 16-byte vectors. */
static bool has_gelu_epilogue(ct_activation act, ct_dtype dtype, int64_t columns)
{
    return act == CT_ACT_GELU_TANH && dtype != CT_F32 && columns % 8 == 0;
}

/* The whole layer in one kernel, where the library has it: *out->plan is NULL where not. */
static ct_status plan_gelu(ct_cuda_device *cuda, const ct_linear_fwd_args *args, forward *out)
{
    *out = (forward){.product = product_of(args)};
    if (!ct_tensor_present(&args->bias) ||
        !has_gelu_epilogue(args->act, args->y.dtype, out->product.n))
        return CT_OK;
    const bool saves = ct_tensor_present(&args->preact);
    out->product.epilogue = saves ? CT_EPILOGUE_GELU_AUX_BIAS : CT_EPILOGUE_GELU_BIAS;
    out->product.c = args->y.data;
    out->product.aux = saves ? args->preact.data : NULL;
    out->product.bias = epilogue_bias(args);
    ct_status status = ct_cuda_product_plan(cuda, &out->product, &out->plan);
    return status == CT_ERR_UNSUPPORTED ? CT_OK : status;
}

/* Without an activation, or where its argument is kept, the product ends with the bias; else one
 * pass over y does all that is left. */
static ct_status plan_forward(ct_cuda_device *cuda, const ct_linear_fwd_args *args, forward *out)
{
    CT_TRY(plan_gelu(cuda, args, out));
    if (out->plan) return CT_OK;
    const bool saves = ct_tensor_present(&args->preact);
    *out = (forward){.product = product_of(args), .activates = args->act != CT_ACT_NONE};
    if (ct_tensor_present(&args->bias) && (saves || !out->activates)) {
        out->product.epilogue = CT_EPILOGUE_BIAS;
        out->product.bias = epilogue_bias(args);
    }
    return ct_cuda_product_plan(cuda, &out->product, &out->plan);
}

static ct_status activate(ct_cuda_device *cuda, const ct_linear_fwd_args *args, const forward *f)
{
    const ctk_launch launch = ct_cuda_launch(cuda, NULL);
    const ct_tensor absent = {0};
    const bool saves = ct_tensor_present(&args->preact);
    const bool added = f->product.epilogue == CT_EPILOGUE_BIAS;
    CT_CUDA(cuda->operation,
            ctk_bias_activation(&args->y, &absent, saves ? &args->preact : &args->y,
                                added ? &absent : &args->bias, args->act, &launch));
    return CT_OK;
}

ct_status ct_cuda_linear_fwd(ct_device *device, const ct_linear_fwd_args *args)
{
    ct_cuda_device *cuda = ct_cuda(device);
    assert(args->w.dim[1] == args->x.dim[1] && args->y.dim[0] == args->x.dim[0] &&
           args->y.dim[1] == args->w.dim[0]);
    forward f;
    CT_TRY(plan_forward(cuda, args, &f));
    ct_tensor rounded = ct_tensor1(NULL, args->y.dtype, f.product.n);
    const size_t bias_bytes =
        ct_cuda_aligned(rounds_bias(&f, args) ? ct_tensor_bytes(&rounded) : 0);
    uint8_t *workspace;
    CT_TRY(ct_cuda_workspace(cuda, bias_bytes + ct_cuda_product_workspace(f.plan), &workspace));
    if (cuda->preparing) return CT_OK;
    if (bias_bytes) {
        rounded.data = workspace;
        f.product.bias = workspace;
        const ctk_launch launch = ct_cuda_launch(cuda, NULL);
        CT_CUDA(cuda->operation, ctk_cast(&(ct_cast_args){.y = rounded, .x = args->bias}, &launch));
    }
    CT_TRY(ct_cuda_product_run(cuda, f.plan, &f.product, workspace + bias_bytes));
    return f.activates ? activate(cuda, args, &f) : CT_OK;
}

typedef struct data_gradient {
    ct_cuda_product product;
    ct_cuda_plan *plan; /* NULL: no dx is asked for */
    bool undoes;        /* a pass over dx, which undoes the activation before the layer, follows */
} data_gradient;

static ct_cuda_product data_product(const ct_linear_bwd_args *args)
{
    return (ct_cuda_product){.c = args->dx.data,
                             .a = args->dy.data,
                             .b = args->w.data,
                             .m = args->x.dim[0],
                             .n = args->x.dim[1],
                             .k = args->w.dim[0],
                             .dtype = args->dy.dtype,
                             .c_dtype = args->dx.dtype,
                             .alpha = 1.0f,
                             .beta = args->accumulate ? 1.0f : 0.0f};
}

/* dx = act'(preact) (dy w): one kernel where the library has it, else two. */
static ct_status plan_data_gradient(ct_cuda_device *cuda, const ct_linear_bwd_args *args,
                                    data_gradient *out)
{
    *out = (data_gradient){.product = data_product(args)};
    if (!ct_tensor_present(&args->dx)) return CT_OK;
    if (has_gelu_epilogue(args->act, args->dx.dtype, out->product.n)) {
        out->product.epilogue = CT_EPILOGUE_DGELU;
        out->product.aux = args->preact.data;
        const ct_status status = ct_cuda_product_plan(cuda, &out->product, &out->plan);
        if (status != CT_ERR_UNSUPPORTED) return status;
        out->product = data_product(args);
    }
    out->undoes = args->act != CT_ACT_NONE;
    return ct_cuda_product_plan(cuda, &out->product, &out->plan);
}

static ct_status run_data_gradient(ct_cuda_device *cuda, const ct_linear_bwd_args *args,
                                   const data_gradient *dx, void *workspace)
{
    CT_TRY(ct_cuda_product_run(cuda, dx->plan, &dx->product, workspace));
    if (!dx->undoes) return CT_OK;
    const ct_activation_bwd_args undo = {
        .dx = args->dx, .dy = args->dx, .x = args->preact, .act = args->act};
    const ctk_launch launch = ct_cuda_launch(cuda, NULL);
    CT_CUDA(cuda->operation, ctk_activation_bwd(&undo, &launch));
    return CT_OK;
}

/* dw += dy^T x. */
static ct_cuda_product weight_gradient(const ct_linear_bwd_args *args)
{
    return (ct_cuda_product){.c = args->dw.data,
                             .a = args->dy.data,
                             .b = args->x.data,
                             .m = args->w.dim[0],
                             .n = args->x.dim[1],
                             .k = args->x.dim[0],
                             .transpose_a = true,
                             .dtype = args->dy.dtype,
                             .c_dtype = args->dw.dtype,
                             .alpha = 1.0f,
                             .beta = 1.0f};
}

ct_status ct_cuda_linear_bwd(ct_device *device, const ct_linear_bwd_args *args)
{
    ct_cuda_device *cuda = ct_cuda(device);
    const bool has_dbias = ct_tensor_present(&args->dbias);
    assert(!args->accumulate || args->act == CT_ACT_NONE);
    const ct_cuda_product dw = weight_gradient(args);
    ct_cuda_plan *dw_plan;
    data_gradient dx;
    CT_TRY(plan_data_gradient(cuda, args, &dx));
    size_t bytes = dx.plan ? ct_cuda_product_workspace(dx.plan) : 0;
    CT_TRY(ct_cuda_product_plan(cuda, &dw, &dw_plan));
    bytes = ct_cuda_larger(bytes, ct_cuda_product_workspace(dw_plan));
    if (has_dbias)
        bytes = ct_cuda_larger(
            bytes, ctk_column_sums_workspace(&args->dy, cuda->properties.multiProcessorCount));
    void *workspace;
    CT_TRY(ct_cuda_workspace(cuda, bytes, &workspace));
    if (cuda->preparing) return CT_OK;
    const ctk_launch launch = ct_cuda_launch(cuda, workspace);
    if (has_dbias) CT_CUDA(cuda->operation, ctk_column_sums(&args->dbias, &args->dy, &launch));
    CT_TRY(ct_cuda_product_run(cuda, dw_plan, &dw, workspace));
    return dx.plan ? run_data_gradient(cuda, args, &dx, workspace) : CT_OK;
}
