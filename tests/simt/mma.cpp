/* Tensor cores. Products of two operands are exact; a sum of 8 or 16 of them and the accumulator is
 * formed in f64 and rounded to f32 once. Hardware keeps fewer bits of the sum (it aligns the
 * products and truncates), so the tests' limits leave room for both. Fragment layouts: the table at
 * the top of kernels/mma.cuh, from the PTX ISA. */
#include <cstring>

#include "simt/checker.h"
#include "simt/engine.h"

namespace simt
{

namespace
{

struct MmaOperand {
    float *d;
    const uint32_t *a, *b;
};

double bf16_value(uint32_t bits)
{
    return bits_as<float>(bits << 16);
}

double f16_value(uint32_t bits)
{
    uint32_t magnitude = (bits & 0x7fff) << 13;
    if (magnitude >= 0x0f800000u) magnitude |= 0x70000000u; /* infinity, NaN */
    const float value =
        magnitude >= 0x70000000u ? bits_as<float>(magnitude) : bits_as<float>(magnitude) * 0x1p112f;
    return bits & 0x8000 ? -value : value;
}

double tf32_value(uint32_t bits)
{
    return bits_as<float>(bits & 0xffffe000u);
}

/* D += A B, with A (16 x K) by rows, B (K x 8) by rows. */
template <int K>
void multiply(double (&d)[16][8], const double (&a)[16][K], const double (&b)[K][8])
{
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < K; k++)
            for (int j = 0; j < 8; j++) d[i][j] += a[i][k] * b[k][j];
}

/* Row and column of d[r] in lane l. */
int d_row(int lane, int r)
{
    return lane / 4 + 8 * (r / 2);
}
int d_column(int lane, int r)
{
    return lane % 4 * 2 + r % 2;
}

template <int K>
void accumulate(void *const *operands, const double (&a)[16][K], const double (&b)[K][8])
{
    double d[16][8];
    for (int lane = 0; lane < 32; lane++)
        for (int r = 0; r < 4; r++)
            d[d_row(lane, r)][d_column(lane, r)] = static_cast<MmaOperand *>(operands[lane])->d[r];
    multiply<K>(d, a, b);
    for (int lane = 0; lane < 32; lane++)
        for (int r = 0; r < 4; r++)
            static_cast<MmaOperand *>(operands[lane])->d[r] =
                (float)d[d_row(lane, r)][d_column(lane, r)];
}

template <double value(uint32_t)> void compute_k16(void *const *operands, uint32_t, const Warp &)
{
    double a[16][16], b[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const auto *operand = static_cast<MmaOperand *>(operands[lane]);
        const int g = lane / 4, t = lane % 4;
        for (int r = 0; r < 4; r++)
            for (int half = 0; half < 2; half++)
                a[g + 8 * (r % 2)][2 * t + 8 * (r / 2) + half] =
                    value(operand->a[r] >> (16 * half) & 0xffff);
        for (int r = 0; r < 2; r++)
            for (int half = 0; half < 2; half++)
                b[2 * t + 8 * r + half][g] = value(operand->b[r] >> (16 * half) & 0xffff);
    }
    accumulate<16>(operands, a, b);
}

void compute_tf32(void *const *operands, uint32_t, const Warp &)
{
    double a[16][8], b[8][8];
    for (int lane = 0; lane < 32; lane++) {
        const auto *operand = static_cast<MmaOperand *>(operands[lane]);
        const int g = lane / 4, t = lane % 4;
        for (int r = 0; r < 4; r++) a[g + 8 * (r % 2)][t + 4 * (r / 2)] = tf32_value(operand->a[r]);
        for (int r = 0; r < 2; r++) b[t + 4 * r][g] = tf32_value(operand->b[r]);
    }
    accumulate<8>(operands, a, b);
}

void mma(const char *name, Compute compute, float *d, const uint32_t *a, const uint32_t *b,
         Location where)
{
    require_full_warp(name, where);
    MmaOperand operand = {d, a, b};
    collective(name, 0xffffffffu, &operand, compute, where);
}

} // namespace

template <>
void mma_m16n8k16<__nv_bfloat16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                 Location where)
{
    mma("mma.m16n8k16 of bf16", compute_k16<bf16_value>, d, a, b, where);
}

template <>
void mma_m16n8k16<__half>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                          Location where)
{
    mma("mma.m16n8k16 of f16", compute_k16<f16_value>, d, a, b, where);
}

void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Location where)
{
    mma("mma.m16n8k8 of tf32", compute_tf32, d, a, b, where);
}

/* ---- ldmatrix ---------------------------------------------------------------------------------
 */

namespace
{

struct LdmatrixOperand {
    uint32_t *r;
    const void *row; /* of matrix lane / 8, in the first 8 x matrices lanes */
};

template <int matrices, bool transposed>
void load_matrices(void *const *operands, uint32_t, const Warp &)
{
    for (int m = 0; m < matrices; m++) {
        uint16_t matrix[8][8];
        for (int row = 0; row < 8; row++)
            memcpy(matrix[row], static_cast<LdmatrixOperand *>(operands[8 * m + row])->row, 16);
        for (int lane = 0; lane < 32; lane++) {
            const int g = lane / 4, t = lane % 4;
            const uint32_t low = transposed ? matrix[2 * t][g] : matrix[g][2 * t];
            const uint32_t high = transposed ? matrix[2 * t + 1][g] : matrix[g][2 * t + 1];
            static_cast<LdmatrixOperand *>(operands[lane])->r[m] = low | high << 16;
        }
    }
}

template <int matrices, bool transposed>
void ldmatrix(const char *name, uint32_t *r, const void *row, Location where, const void *code)
{
    require_full_warp(name, where);
    if (current->id % warp_lanes < 8 * matrices) {
        require_shared_row(name, row, where);
        if (checked) checker::check(row, 16, checker::Access::read, code);
    }
    LdmatrixOperand operand = {r, row};
    collective(name, 0xffffffffu, &operand, load_matrices<matrices, transposed>, where);
}

} // namespace

void ldmatrix_x4(uint32_t (&r)[4], const void *row, Location where)
{
    ldmatrix<4, false>("ldmatrix.x4", r, row, where, __builtin_return_address(0));
}
void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row, Location where)
{
    ldmatrix<4, true>("ldmatrix.x4.trans", r, row, where, __builtin_return_address(0));
}
void ldmatrix_x2(uint32_t (&r)[2], const void *row, Location where)
{
    ldmatrix<2, false>("ldmatrix.x2", r, row, where, __builtin_return_address(0));
}
void ldmatrix_x2_trans(uint32_t (&r)[2], const void *row, Location where)
{
    ldmatrix<2, true>("ldmatrix.x2.trans", r, row, where, __builtin_return_address(0));
}

} // namespace simt
