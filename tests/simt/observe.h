/* Watching launches on the SIMT device without running them: what a model would launch, at sizes
 * that could never be computed here. C interface. */
#ifndef CT_TESTS_SIMT_OBSERVE_H
#define CT_TESTS_SIMT_OBSERVE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct simt_launch {
    const char *kernel; /* "layernorm_fwd<float>", or a library's name; valid during the call */
    unsigned grid[3], block[3];
    size_t dynamic_shared_bytes;
} simt_launch;

/* From now on every launch and library call is announced to `observer`, and nothing is executed any
 * more: no kernel, copy, fill or library call; device memory is reserved but never touched. Call it
 * before anything else of CUDA's. */
void simt_observe_only(void (*observer)(const simt_launch *launch, void *context), void *context);

#ifdef __cplusplus
}
#endif

#endif
