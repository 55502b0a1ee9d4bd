/* Every check of every op case on the GPU backend, in each precision: linked with the toolkit's
 * libraries for a GPU, and with the SIMT device for none. CT_TEST_PRECISION=bf16 (f32, tf32, bf16,
 * f16) runs one of them only. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/cuda.h"
#include "op/run_cases.h"

static const struct {
    const char *name;
    ct_cuda_precision precision;
} precisions[] = {
    {"f32", CT_CUDA_F32}, {"tf32", CT_CUDA_TF32}, {"bf16", CT_CUDA_BF16}, {"f16", CT_CUDA_F16}};

enum { PRECISIONS = sizeof precisions / sizeof *precisions };

int main(void)
{
    const char *only = getenv("CT_TEST_PRECISION"), *why;
    ct_device *devices[PRECISIONS];
    const char *labels[PRECISIONS];
    int count = 0, failed = 0;
    if (ct_cuda_count(&why) == 0) {
        fprintf(stderr, "no GPU: %s\n", why);
        return EXIT_FAILURE;
    }
    for (size_t i = 0; i < PRECISIONS; i++) {
        if (only && strcmp(only, precisions[i].name) != 0) continue;
        const ct_cuda_options options = {
            .precision = precisions[i].precision, .deterministic = true, .fused_statistics = true};
        if (ct_cuda_device_create(&options, &devices[count]) != CT_OK) {
            fprintf(stderr, "%s: %s\n", precisions[i].name, ct_error_message());
            failed++;
            continue;
        }
        labels[count++] = precisions[i].name;
    }
    if (count == 0)
        fprintf(stderr, "CT_TEST_PRECISION=%s: expected f32, tf32, bf16 or f16\n", only);
    if (!failed && count > 0)
        failed = ct_run_op_cases("ops on the GPU", devices, labels, count, false);
    for (int i = 0; i < count; i++) ct_device_destroy(devices[i]);
    return failed || count == 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
