/* What both directions of the contrastive loss share: products of matrices, a tile of 64 x 64 of
 * the result a block, in f32 whatever the operands' format.
 *
 * 256 threads, 4 x 4 results each. The operands come in slabs of 32 terms, which pass through
 * registers (the next slab is on its way while this one is multiplied) into shared memory,
 * [term][line], so that a thread reads four lines of either operand at once: 2 reads of 16 bytes
 * for 16 multiply-adds. Lines are swizzled by the term's group of 8: an operand whose terms are
 * neighbours in memory is stored without bank conflicts. Order of a sum: ascending terms. */
#ifndef CT_KERNELS_LOSS_CUH
#define CT_KERNELS_LOSS_CUH

#include "numeric.cuh"

namespace ctk
{

constexpr int loss_threads = 256, loss_tile = 64, loss_slab = 32,
              loss_slab_quads = loss_slab * loss_tile / 4;

using quad = vec<float, 4>;

/* A matrix in memory (rows, columns), row-major, `stride` numbers from row to row. As an operand
 * its lines are its rows (BY_ROW: terms are neighbours in memory) or its columns. */
template <class T> struct matrix {
    const T *data;
    int64_t rows, columns, stride;
    bool vectors; /* columns and stride are multiples of 8, data is aligned */
};

template <class T>
inline matrix<T> loss_matrix(const void *data, int64_t rows, int64_t columns, int64_t stride)
{
    return {static_cast<const T *>(data), rows, columns, stride,
            columns % 8 == 0 && stride % 8 == 0};
}

/* Eight numbers from (row, column) on; zero outside the matrix. */
template <class T>
__device__ __forceinline__ void fetch(float (&x)[8], const matrix<T> &m, int64_t row,
                                      int64_t column)
{
    const T *from = m.data + row * m.stride + column;
    if (m.vectors && row < m.rows && column < m.columns) {
        load<8>(x, from);
        return;
    }
#pragma unroll
    for (int u = 0; u < 8; u++)
        x[u] = row < m.rows && column + u < m.columns ? to_float(from[u]) : 0.0f;
}

/* This thread's eight numbers of the slab of lines `line` .. and terms `term` .. */
template <bool by_row, class T>
__device__ __forceinline__ void fetch_slab(float (&x)[8], const matrix<T> &m, int64_t line,
                                           int64_t term)
{
    const int t = (int)threadIdx.x;
    if (by_row) fetch(x, m, line + t / 4, term + t % 4 * 8);
    else fetch(x, m, term + t / 8, line + t % 8 * 8);
}

/* Line l of term k is number l ^ (k / 8 * 8) of row k. */
template <bool by_row> __device__ __forceinline__ void put_slab(quad *slab, const float (&x)[8])
{
    const int t = (int)threadIdx.x;
    if (by_row) {
        float *to = reinterpret_cast<float *>(slab) + t % 4 * 8 * loss_tile;
#pragma unroll
        for (int u = 0; u < 8; u++) to[u * loss_tile + ((t / 4) ^ (t % 4 * 8))] = x[u];
    } else {
        const int term = t / 8;
        quad *to = slab + term * (loss_tile / 4) + ((t % 8 * 2) ^ (term / 8 * 2));
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int u = 0; u < 4; u++) to[half].v[u] = x[4 * half + u];
    }
}

/* sum[r][c] = terms [0, terms) of lines a_line + 4 (thread / 16) + r of a times those of lines
 * b_line + 4 (thread % 16) + c of b. Slabs: shared memory of loss_slab_quads each. All threads must
 * come. */
template <bool a_by_row, bool b_by_row, class A, class B>
__device__ __forceinline__ void multiply_tile(float (&sum)[4][4], const matrix<A> &a,
                                              int64_t a_line, const matrix<B> &b, int64_t b_line,
                                              int64_t terms, quad *a_slab, quad *b_slab)
{
    const int across = (int)threadIdx.x % 16, down = (int)threadIdx.x / 16;
#pragma unroll
    for (int r = 0; r < 4; r++)
#pragma unroll
        for (int c = 0; c < 4; c++) sum[r][c] = 0.0f;

    float a_next[8], b_next[8];
    fetch_slab<a_by_row>(a_next, a, a_line, 0);
    fetch_slab<b_by_row>(b_next, b, b_line, 0);
    for (int64_t term = 0; term < terms; term += loss_slab) {
        __syncthreads(); /* the slab before is done with */
        put_slab<a_by_row>(a_slab, a_next);
        put_slab<b_by_row>(b_slab, b_next);
        __syncthreads();
        if (term + loss_slab < terms) {
            fetch_slab<a_by_row>(a_next, a, a_line, term + loss_slab);
            fetch_slab<b_by_row>(b_next, b, b_line, term + loss_slab);
        }
#pragma unroll 1
        for (int group = 0; group < loss_slab / 8; group++) {
            const quad *a_row = a_slab + group * 8 * (loss_tile / 4) + (down ^ (group * 2));
            const quad *b_row = b_slab + group * 8 * (loss_tile / 4) + (across ^ (group * 2));
#pragma unroll
            for (int k = 0; k < 8; k++) {
                const quad x = a_row[k * (loss_tile / 4)], y = b_row[k * (loss_tile / 4)];
#pragma unroll
                for (int r = 0; r < 4; r++)
#pragma unroll
                    for (int c = 0; c < 4; c++) sum[r][c] = fmaf(x.v[r], y.v[c], sum[r][c]);
            }
        }
    }
}

/* The N x N similarities. */
template <class T> struct similarities {
    matrix<T> image, text;
    const float *logit_scale; /* log of the factor */
    const int32_t *photo_ids;
    int64_t count;
    ct_same_image same_image;
};

/* Both directions' arguments name these things alike. */
template <class T, class Args> similarities<T> similarities_of(const Args *args)
{
    const int64_t count = args->image.dim[0], width = args->image.dim[1];
    return {loss_matrix<T>(args->image.data, count, width, width),
            loss_matrix<T>(args->text.data, count, width, width),
            (const float *)args->logit_scale.data,
            (const int32_t *)args->photo_ids.data,
            count,
            args->same_image};
}

/* What pair (i, j) is to the loss. */
struct pair_role {
    bool counted;  /* in the denominators */
    bool positive; /* shares the target */
};

__device__ __forceinline__ pair_role role_of(ct_same_image same_image, bool inside, bool diagonal,
                                             bool same_photo)
{
    const bool share = same_image == CT_SAME_IMAGE_SHARE, mask = same_image == CT_SAME_IMAGE_MASK;
    return {inside && (diagonal || !(mask && same_photo)),
            inside && (share ? same_photo : diagonal)};
}

} // namespace ctk

#endif
