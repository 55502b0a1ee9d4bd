/* Products of tiles in shared memory on tensor cores, as attention needs them. A warp works on 16
 * rows. In a fragment of 16 x 8 results lane l holds rows g, g + 8 (g = l / 4) and columns 2 t,
 * 2 t + 1 (t = l % 4); see mma.cuh.
 *
 * A tile is rows of D numbers, padded to leading_dimension<D>: 16 bytes more, so that the rows that
 * ldmatrix reads at once (an odd number of 16-byte units apart) lie in different banks. Rows come
 * in groups of 16; a span names the groups of a tile that take part in a product, so that short
 * sequences in long tiles cost what their length needs. */
#ifndef CT_KERNELS_ATTENTION_MMA_CUH
#define CT_KERNELS_ATTENTION_MMA_CUH

#include <cstring>

#include "attention.cuh"
#include "mma.cuh"

namespace ctk::attention
{

constexpr int GROUP = 16;

template <int D> constexpr int leading_dimension = D + 8;
template <int D> constexpr int group_elements = GROUP *leading_dimension<D>;

__device__ __forceinline__ int lane()
{
    return (int)threadIdx.x % 32;
}
__device__ __forceinline__ int warp()
{
    return (int)threadIdx.x / 32;
}
__device__ __forceinline__ int round_up_to_group(int rows)
{
    return (rows + GROUP - 1) / GROUP * GROUP;
}

/* Groups begin <= g < end of a tile. */
struct span {
    int begin, end;
    __device__ __forceinline__ bool holds(int g) const { return g >= begin && g < end; }
};

/* The groups of a tile of GROUPS groups that rows [begin, end) touch; row 0 is the tile's first. */
template <int GROUPS> __device__ __forceinline__ span groups_of(int begin, int end)
{
    const int last = (end + GROUP - 1) / GROUP;
    return {begin > 0 ? begin / GROUP : 0, last < GROUPS ? last : GROUPS};
}

/* ---- tiles --------------------------------------------------------------------------------- */

/* Starts the copy of rows 0 .. rows-1 of x, `depth` numbers each, into a tile, and zeros behind
 * them up to whole groups and to D columns. All of the block's THREADS threads take part. */
template <class T, int D, int THREADS>
__device__ __forceinline__ void load_rows(T *tile, const T *x, int64_t stride, int rows, int depth)
{
    const int chunks = round_up_to_group(rows) * (D / 8);
#pragma unroll 4
    for (int c = (int)threadIdx.x; c < chunks; c += THREADS) {
        const int row = c / (D / 8), column = c % (D / 8) * 8;
        const bool inside = row < rows && column < depth;
        cp_async_16(tile + row * leading_dimension<D> + column,
                    inside ? x + row * stride + column : x, inside ? 16 : 0);
    }
}

__device__ __forceinline__ uint32_t pack(__nv_bfloat16, float low, float high)
{
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}
__device__ __forceinline__ uint32_t pack(__half, float low, float high)
{
    const __half2 pair = __floats2half2_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}

/* x (16 rows, `stride` apart) = acc; rows g take `factor[0]`, rows g + 8 `factor[1]`. Only rows
 * 0 .. rows-1 and columns 0 .. depth-1 are written, 16 bytes at a time by way of the warp's own
 * group `stage` of shared memory. */
template <class T, int D>
__device__ __forceinline__ void store_rows(T *x, int64_t stride, T *stage,
                                           const float (&acc)[D / 8][4], float factor_low,
                                           float factor_high, int rows, int depth)
{
    const int g = lane() / 4, t = lane() % 4;
    __syncwarp();
    T *low = stage + g * leading_dimension<D> + 2 * t, *high = low + 8 * leading_dimension<D>;
#pragma unroll
    for (int i = 0; i < D / 8; i++) {
        *reinterpret_cast<uint32_t *>(low + 8 * i) =
            pack(T(), acc[i][0] * factor_low, acc[i][1] * factor_low);
        *reinterpret_cast<uint32_t *>(high + 8 * i) =
            pack(T(), acc[i][2] * factor_high, acc[i][3] * factor_high);
    }
    __syncwarp();
#pragma unroll
    for (int c = lane(); c < GROUP * (D / 8); c += 32) {
        const int row = c / (D / 8), column = c % (D / 8) * 8;
        if (row < rows && column < depth)
            *reinterpret_cast<vec<T, 8> *>(x + row * stride + column) =
                *reinterpret_cast<const vec<T, 8> *>(stage + row * leading_dimension<D> + column);
    }
    __syncwarp();
}

/* ---- products ------------------------------------------------------------------------------ */

/* 16 rows of a tile as a product's left operand; RESIDENT keeps them in registers, for where there
 * are enough. */
template <class T, int D, bool RESIDENT> class left_rows
{
  public:
    __device__ __forceinline__ explicit left_rows(const T *rows)
        : address(rows + lane() % 16 * leading_dimension<D> + lane() / 16 * 8)
    {
        if constexpr (RESIDENT) {
#pragma unroll
            for (int k = 0; k < D / 16; k++) ldmatrix_x4(kept[k], address + 16 * k);
        }
    }
    /* Columns 16 k .. 16 k + 15. */
    __device__ __forceinline__ void get(uint32_t (&a)[4], int k) const
    {
        if constexpr (RESIDENT) {
#pragma unroll
            for (int i = 0; i < 4; i++) a[i] = kept[k][i];
        } else {
            ldmatrix_x4(a, address + 16 * k);
        }
    }

  private:
    const T *address;
    uint32_t kept[RESIDENT ? D / 16 : 1][4];
};

template <class T>
__device__ __forceinline__ void two_products(float (&d0)[4], float (&d1)[4], const uint32_t (&a)[4],
                                             uint32_t b00, uint32_t b01, uint32_t b10, uint32_t b11)
{
    const uint32_t b0[2] = {b00, b01}, b1[2] = {b10, b11};
    mma_m16n8k16<T>(d0, a, b0);
    mma_m16n8k16<T>(d1, a, b1);
}

/* s (16 x 16 GROUPS) = left rows (16 x D) times the tile's rows (16 GROUPS x D) transposed. */
template <class T, int D, int GROUPS, class Left>
__device__ __forceinline__ void similarities(float (&s)[2 * GROUPS][4], const Left &left,
                                             const T *tile, span groups)
{
#pragma unroll
    for (int i = 0; i < 2 * GROUPS; i++)
#pragma unroll
        for (int e = 0; e < 4; e++) s[i][e] = 0.0f;
    if (groups.begin >= groups.end) return;
    const int l = lane();
    const T *address = tile + (l / 16 * 8 + l % 8) * leading_dimension<D> + l / 8 % 2 * 8;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t a[4];
        left.get(a, k);
#pragma unroll
        for (int g = 0; g < GROUPS; g++) {
            if (!groups.holds(g)) continue;
            uint32_t b[4];
            ldmatrix_x4(b, address + g * group_elements<D> + 16 * k);
            two_products<T>(s[2 * g], s[2 * g + 1], a, b[0], b[1], b[2], b[3]);
        }
    }
}

/* 16 x 16 numbers as a product's left operand: the sum of PARTS numbers of T each. One part is the
 * number rounded to T; a second holds what rounding took, so that the product is as good as with
 * f32 weights for twice the tensor cores' work and no more reads of shared memory. */
template <int PARTS> struct left_operand {
    uint32_t part[PARTS][4];
};

template <class T> __device__ __forceinline__ float low_half(uint32_t pair)
{
    T x[2];
    memcpy(x, &pair, sizeof x);
    return to_float(x[0]);
}
template <class T> __device__ __forceinline__ float high_half(uint32_t pair)
{
    T x[2];
    memcpy(x, &pair, sizeof x);
    return to_float(x[1]);
}

/* Results of group g (two fragments side by side) as a left operand. */
template <class T, int PARTS, int FRAGMENTS>
__device__ __forceinline__ void as_left(left_operand<PARTS> &a, const float (&s)[FRAGMENTS][4],
                                        int g)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float low = s[2 * g + i / 2][i % 2 * 2], high = s[2 * g + i / 2][i % 2 * 2 + 1];
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
            const uint32_t pair = pack(T(), low, high);
            a.part[part][i] = pair;
            low -= low_half<T>(pair);
            high -= high_half<T>(pair);
        }
    }
}

/* acc (16 x D) += a (16 x 16) times group `rows` of a tile (16 x D). */
template <class T, int D, int PARTS>
__device__ __forceinline__ void mix_group(float (&acc)[D / 8][4], const left_operand<PARTS> &a,
                                          const T *rows)
{
    const T *address = rows + lane() % 16 * leading_dimension<D> + lane() / 16 * 8;
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
        uint32_t b[4];
        ldmatrix_x4_trans(b, address + 16 * i);
#pragma unroll
        for (int part = PARTS - 1; part >= 0; part--)
            two_products<T>(acc[2 * i], acc[2 * i + 1], a.part[part], b[0], b[1], b[2], b[3]);
    }
}

/* acc (16 x D) += weights (16 x 16 GROUPS) times the tile's rows (16 GROUPS x D). */
template <class T, int D, int PARTS, int GROUPS>
__device__ __forceinline__ void mix(float (&acc)[D / 8][4],
                                    const left_operand<PARTS> (&weights)[GROUPS], const T *tile,
                                    span groups)
{
#pragma unroll
    for (int g = 0; g < GROUPS; g++)
        if (groups.holds(g)) mix_group<T, D>(acc, weights[g], tile + g * group_elements<D>);
}

template <int N> __device__ __forceinline__ void clear(float (&acc)[N][4])
{
#pragma unroll
    for (int i = 0; i < N; i++)
#pragma unroll
        for (int e = 0; e < 4; e++) acc[i][e] = 0.0f;
}

/* ---- dropout ------------------------------------------------------------------------------- */

/* Bit e: whether element e of a fragment is kept, whose rows are queries from row `row` of the
 * packed batch and whose columns are keys from key0. Two lanes share the four keys of a Philox
 * block: one computes it for row g, the other for row g + 8. All lanes of the warp must come. */
__device__ __forceinline__ uint32_t keep_query_rows(const problem &p, ct_rng_key key, int64_t row,
                                                    int head, int key0)
{
    const int g = lane() / 4, t = lane() % 4, odd = t % 2;
    const uint32_t own = keep_four(p, key, row + g + 8 * odd, head, key0 + t / 2 * 4);
    const uint32_t other = __shfl_xor_sync(0xffffffffu, own, 1);
    const uint32_t low = odd ? other : own, high = odd ? own : other;
    return (low >> 2 * odd & 3u) | (high >> 2 * odd & 3u) << 2;
}

/* The same for rows that are keys, from key0, and columns that are queries, from row `row`: the
 * four lanes that share a block's keys compute one each of the four blocks they need. */
__device__ __forceinline__ uint32_t keep_key_rows(const problem &p, ct_rng_key key, int64_t row,
                                                  int head, int key0)
{
    const int g = lane() / 4, t = lane() % 4, e = g % 4;
    uint32_t keep = keep_four(p, key, row + 2 * t + e % 2, head, key0 + g / 4 * 4 + e / 2 * 8)
                    << 4 * e;
    keep |= __shfl_xor_sync(0xffffffffu, keep, 4);
    keep |= __shfl_xor_sync(0xffffffffu, keep, 8);
    keep >>= e;
    return (keep & 1u) | (keep >> 3 & 2u) | (keep >> 6 & 4u) | (keep >> 9 & 8u);
}

/* ---- host ---------------------------------------------------------------------------------- */

/* Calls f with the number of warps, 16 rows each, that a block has. */
template <class F> cudaError_t with_warps(int max_seqlen, F f)
{
    if (max_seqlen <= 16) return f(std::integral_constant<int, 1>());
    if (max_seqlen <= 32) return f(std::integral_constant<int, 2>());
    return f(std::integral_constant<int, 4>());
}

} // namespace ctk::attention

#endif
