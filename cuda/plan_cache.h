/* The file that remembers which engine was fastest, so that a later run need not time again.
 *
 * Text, one choice a line, three fields between tabs:
 *   cudnn 91900, NVIDIA H100 80GB HBM3, conv2d_fwd bf16 x 256x56x56x64 ...   62   2=4,13=0,18=0
 * problem (with the library's version and the GPU's name, so that choices for others stay beside
 * ours), engine, knobs ("-" when it has none). Lines that start with # and empty ones are skipped;
 * a line that is anything else is reported with its number and left out. */
#ifndef CT_CUDA_PLAN_CACHE_H
#define CT_CUDA_PLAN_CACHE_H

#include "cuda/cudnn_graph.h"

typedef struct ct_plan_cache ct_plan_cache;

/* No file yet, or one that cannot be read (a warning), is an empty cache. */
CT_NODISCARD ct_status ct_plan_cache_open(const char *path, ct_plan_cache **out);
void ct_plan_cache_close(ct_plan_cache *cache);

/* *out = the index and knobs remembered for `key`; its notes are not filled in. */
bool ct_plan_cache_find(const ct_plan_cache *cache, const char *key, ct_cudnn_engine *out);

/* Remembers a choice instead of an earlier one for the key, and writes the file: aside, under a
 * name of this process, then renamed, because several ranks may share it. A file that cannot be
 * written is a warning: the choice still serves this run. `key` has no tab and no line end. */
CT_NODISCARD ct_status ct_plan_cache_put(ct_plan_cache *cache, const char *key,
                                         const ct_cudnn_engine *engine);

#endif
