/* How long computing waits for other devices, told by the device itself, because a recorded step
 * has no host code that could ask: one thread reads the GPU's clock before a wait, another one
 * behind it.
 *
 *   begin[0] = now;   ...   bytes[0] += more;  seconds[0] += now - begin[0]
 *
 * Two launches of one thread a wait, 24 bytes. The clock counts nanoseconds, in steps of up to a
 * microsecond. */
#include "device.cuh"
#include "kernels.h"

namespace ctk
{

__global__ void __launch_bounds__(1) exposed_begin(uint64_t *begin)
{
    *begin = global_nanoseconds();
}

__global__ void __launch_bounds__(1)
    exposed_end(const uint64_t *begin, uint64_t *bytes, double *seconds, uint64_t more)
{
    *bytes += more;
    *seconds += (double)(global_nanoseconds() - *begin) * 1e-9;
}

} // namespace ctk

extern "C" cudaError_t ctk_exposed_begin(uint64_t *begin, const ctk_launch *l)
{
    return ctk::launch(ctk::exposed_begin, dim3(1), dim3(1), 0, l->stream, begin);
}

extern "C" cudaError_t ctk_exposed_end(const uint64_t *begin, uint64_t *bytes, double *seconds,
                                       uint64_t more, const ctk_launch *l)
{
    return ctk::launch(ctk::exposed_end, dim3(1), dim3(1), 0, l->stream, begin, bytes, seconds,
                       more);
}
