/* Tensor cores, asynchronous copies, the exponential unit: the only file with PTX in it. Fragment layouts are those of
 * the PTX ISA, "Matrix multiply-accumulate operation using mma instruction"; with lane l,
 * g = l / 4 and t = l % 4:
 *
 * mma_m16n8k16<T>: D (16 x 8, f32) += A (16 x 16) B (16 x 8), T __nv_bfloat16 or __half, two
 * numbers a register, the lower index in the low half: a[0]: (g, 2t..2t+1)   a[1]: (g+8, 2t..)
 * a[2]: (g, 2t+8..)   a[3]: (g+8, 2t+8..) b[0]: (2t..2t+1, g)   b[1]: (2t+8.., g) d[0], d[1]: (g,
 * 2t), (g, 2t+1)   d[2], d[3]: (g+8, 2t), (g+8, 2t+1) mma_m16n8k8_tf32: D (16 x 8) += A (16 x 8) B
 * (8 x 8), registers hold the bits of f32 (tf32() rounds): a[0]: (g, t)  a[1]: (g+8, t)  a[2]: (g,
 * t+4)  a[3]: (g+8, t+4) b[0]: (t, g)  b[1]: (t+4, g)   d as above ldmatrix_x4: four 8 x 8 matrices
 * of 16-bit numbers from shared memory; lane l gives the address of row l % 8 of matrix l / 8
 * (16-byte-aligned); r[i] is matrix i's (g, 2t..2t+1), or with _trans its transpose's. _x2 likewise
 * with lanes 0-15's addresses. cp_async_16: 16 bytes, or `bytes` of them (0 to 16) and zeros after,
 * from global to shared, both 16-byte-aligned; visible to this thread after cp_async_wait, to
 * others after a barrier too. cp_async_wait<N>: all but this thread's last N committed groups are
 * complete. exp2_approx: 2^x in one instruction, within 2 units in the last place; 0 where the
 * result is below 2^-126. opaque: x itself, of which the compiler knows nothing: what is computed
 * from it in a loop is computed there, not before the loop and kept in registers. */
#ifndef CT_KERNELS_MMA_CUH
#define CT_KERNELS_MMA_CUH

#include "device.cuh"

namespace ctk
{

#ifdef CT_SIMT

template <class T>
__device__ inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    simt::mma_m16n8k16<T>(d, a, b);
}
using simt::cp_async_16;
using simt::cp_async_commit;
using simt::cp_async_wait;
using simt::ldmatrix_x2;
using simt::ldmatrix_x2_trans;
using simt::ldmatrix_x4;
using simt::ldmatrix_x4_trans;
using simt::mma_m16n8k8_tf32;
using simt::tf32;

inline int opaque(int x)
{
    return x;
}

inline float exp2_approx(float x)
{
    const float y = exp2f(x);
    return y < 1.17549435e-38f ? 0.0f : y;
}

#else

template <class T>
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4],
                                             const uint32_t (&b)[2]);
template <>
__device__ __forceinline__ void mma_m16n8k16<__nv_bfloat16>(float (&d)[4], const uint32_t (&a)[4],
                                                            const uint32_t (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <>
__device__ __forceinline__ void mma_m16n8k16<__half>(float (&d)[4], const uint32_t (&a)[4],
                                                     const uint32_t (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4],
                                                 const uint32_t (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* The bits of x with 10 bits of mantissa, to the nearest, ties away from zero. */
__device__ __forceinline__ uint32_t tf32(float x)
{
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

__device__ __forceinline__ uint32_t shared_address(const void *shared)
{
    return (uint32_t)__cvta_generic_to_shared(shared);
}

__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ __forceinline__ void ldmatrix_x2(uint32_t (&r)[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ __forceinline__ void ldmatrix_x2_trans(uint32_t (&r)[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ __forceinline__ void cp_async_16(void *shared, const void *global, int bytes = 16)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
                 "l"(global), "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void cp_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int N> __device__ __forceinline__ void cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

__device__ __forceinline__ int opaque(int x)
{
    asm volatile("" : "+r"(x));
    return x;
}

__device__ __forceinline__ float exp2_approx(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif

} // namespace ctk

#endif
