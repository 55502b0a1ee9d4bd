/* The weights of antialiased resampling, as Pillow computes them: a kernel of the output's grid,
 * stretched by the factor of reduction, sampled at the centres of the input's pixels, normalised,
 * and rounded to 22 binary places. All arithmetic is in double and must not be contracted to fused
 * multiply-adds (this module's CMakeLists.txt sees to it), or the last place could differ. */
#include <math.h>
#include <stdlib.h>

#include "base/memory.h"
#include "image/decoder.h"
#include "image/fixed.h"

/* max(0, 1 - |x|) */
static double triangle(double x)
{
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

/* Keys, "Cubic convolution interpolation for digital image processing" (1981), a = -1/2. */
static double cubic(double x)
{
    static const double a = -0.5;
    x = fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
    return 0.0;
}

static int32_t to_fixed(double weight)
{
    double scaled = weight * (double)(1 << CT_FIXED_BITS);
    return (int32_t)(scaled < 0.0 ? scaled - 0.5 : scaled + 0.5);
}

static ct_status grow(ct_axis *axis, size_t count, size_t stride)
{
    static const char what[] = "the weights of a resampling";
    CT_TRY(ct_grow(&axis->first, &axis->first_capacity, count, sizeof *axis->first, what));
    CT_TRY(ct_grow(&axis->taps, &axis->taps_capacity, count, sizeof *axis->taps, what));
    CT_TRY(ct_grow(&axis->real, &axis->real_capacity, stride, sizeof *axis->real, what));
    return ct_grow(&axis->weight, &axis->weight_capacity, count * stride, sizeof *axis->weight,
                   what);
}

ct_status ct_axis_build(ct_axis *axis, ct_interpolation interpolation, int32_t in_size,
                        int32_t out_size, int32_t begin, int32_t count, bool reversed)
{
    double (*kernel)(double) = interpolation == CT_BICUBIC ? cubic : triangle;
    double scale = (double)in_size / out_size, stretch = scale > 1.0 ? scale : 1.0;
    double reach = (interpolation == CT_BICUBIC ? 2.0 : 1.0) * stretch, shrink = 1.0 / stretch;
    axis->stride = (int32_t)ceil(reach) * 2 + 1;
    CT_TRY(grow(axis, (size_t)count, (size_t)axis->stride));
    for (int32_t i = 0; i < count; i++) {
        int32_t output = begin + (reversed ? count - 1 - i : i);
        double centre = (output + 0.5) * scale, sum = 0.0;
        int32_t first = (int32_t)(centre - reach + 0.5), end = (int32_t)(centre + reach + 0.5);
        if (first < 0) first = 0;
        if (end > in_size) end = in_size;
        for (int32_t x = first; x < end; x++) {
            double weight = kernel((x - centre + 0.5) * shrink);
            axis->real[x - first] = weight;
            sum += weight;
        }
        int32_t *fixed = axis->weight + (size_t)i * (size_t)axis->stride;
        for (int32_t t = 0; t < end - first; t++) fixed[t] = to_fixed(axis->real[t] / sum);
        axis->first[i] = first;
        axis->taps[i] = end - first;
    }
    return CT_OK;
}

void ct_axis_inputs(const ct_axis *axis, int32_t count, int32_t *begin, int32_t *end)
{
    int32_t last = axis->first[0] < axis->first[count - 1] ? count - 1 : 0;
    *begin = axis->first[count - 1 - last];
    *end = axis->first[last] + axis->taps[last];
}

void ct_axis_free(ct_axis *axis)
{
    free(axis->first);
    free(axis->taps);
    free(axis->weight);
    free(axis->real);
}
