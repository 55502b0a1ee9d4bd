/* Attention's launchers: checks of the arguments and choice of the kernels (attention.cuh). */
#include "attention.cuh"

namespace
{

using namespace ctk::attention;

/* Both directions' arguments name these things alike. */
template <class Args> cudaError_t make_problem(const Args &args, problem &p)
{
    const int64_t sequences = args.cu_seqlens.dim[0] - 1;
    const int64_t heads = args.o.dim[1], depth = args.o.dim[2];
    if (depth < 1 || depth > MAX_DEPTH || heads < 1 || heads > INT_MAX || sequences < 0 ||
        sequences > INT_MAX || args.max_seqlen < 0 || args.max_seqlen > 65536 ||
        (args.dropout > 0.0f && !ct_tensor_present(&args.step)))
        return cudaErrorInvalidValue;
    p = {};
    p.cu_seqlens = ct_i32(&args.cu_seqlens);
    p.step = ct_i32(&args.step);
    p.tokens = args.o.dim[0];
    p.sequences = (int)sequences;
    p.heads = (int)heads;
    p.depth = (int)depth;
    p.max_seqlen = args.max_seqlen;
    p.scale = args.scale;
    p.dropout = args.dropout;
    p.key = args.key;
    p.causal = args.causal;
    return cudaSuccess;
}

template <class T> bool aligned(const T *x)
{
    return (uintptr_t)x % 16 == 0;
}

template <class T> constexpr bool on_tensor_cores = !std::is_same_v<T, float>;

template <class T> forward<T> forward_of(const ct_attention_fwd_args *args)
{
    return {(T *)args->o.data, ct_f32(&args->lse), (const T *)args->qkv.data};
}

template <class T> backward<T> backward_of(const ct_attention_bwd_args *args, void *workspace)
{
    return {(T *)args->dqkv.data,      (const T *)args->d_o.data, (const T *)args->o.data,
            (const T *)args->qkv.data, ct_f32(&args->lse),        (float *)workspace};
}

} // namespace

cudaError_t ctk_attention_fwd(const ct_attention_fwd_args *args, const ctk_launch *launch)
{
    problem p;
    cudaError_t error = make_problem(*args, p);
    if (error != cudaSuccess) return error;
    return ctk::with_type(args->qkv.dtype, [&](auto zero) {
        using T = decltype(zero);
        const forward<T> f = forward_of<T>(args);
        if constexpr (on_tensor_cores<T>)
            if (p.depth % 8 == 0 && aligned(f.qkv) && aligned(f.o))
                return forward_mma(p, f, launch->stream);
        return forward_fma(p, f, launch->stream);
    });
}

cudaError_t ctk_attention_bwd(const ct_attention_bwd_args *args, const ctk_launch *launch)
{
    problem p;
    cudaError_t error = make_problem(*args, p);
    if (error != cudaSuccess) return error;
    return ctk::with_type(args->qkv.dtype, [&](auto zero) {
        using T = decltype(zero);
        const backward<T> b = backward_of<T>(args, launch->workspace);
        if constexpr (on_tensor_cores<T>)
            if (p.depth % 8 == 0 && aligned(b.qkv) && aligned(b.dqkv) && aligned(b.d_o) &&
                aligned(b.o))
                return p.max_seqlen <= FUSED_BACKWARD_ROWS
                           ? backward_fused_mma(p, b, launch->stream)
                           : backward_long_mma(p, b, launch->stream);
        return backward_fma(p, b, launch->stream);
    });
}

size_t ctk_attention_bwd_workspace(const ct_attention_bwd_args *args, int sm_count)
{
    (void)sm_count;
    return (size_t)(args->o.dim[0] * args->o.dim[1]) * sizeof(float); /* delta */
}
