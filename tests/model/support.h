/* What the model's tests share: the reference files of tests/reference/make_model.py,
 * and inputs and weights drawn by the rule both sides have. */
#ifndef CT_TESTS_MODEL_SUPPORT_H
#define CT_TESTS_MODEL_SUPPORT_H

#include <string.h>

#include <cjson/cJSON.h>

#include "../support.h"
#include "base/rng.h"
#include "config/config.h"
#include "cpu/cpu.h"
#include "model/clip.h"
#include "model/optimizer.h"

/* A reference file: "resnet18_linear", "resnet50_mlp" or "vit_linear". */
typedef struct reference {
    cJSON *json;
    ct_config *config;
    int32_t vocabulary;
} reference;

void reference_open(const char *name, reference *out);
void reference_close(reference *ref);
const cJSON *json_get(const cJSON *object, const char *key);
double json_number(const cJSON *object, const char *key);
double json_at(const cJSON *array, int index);

/* The stream called `name`, as `draw` in make_model.py. */
ct_rng_key reference_stream(const char *name);

/* Gives every parameter but logit_scale and the running statistics its value of make_model.py. */
void reference_initialise(const reference *ref, ct_params *params);

/* One batch of a reference file, in host memory. */
typedef struct batch {
    ct_clip_input input;
    int32_t *tokens, *positions, *cu_seqlens, *photo_ids;
    uint8_t *images;
} batch;

void batch_create(const reference *ref, int index, batch *out);
void batch_destroy(batch *b);

/* Forward and backward of one batch, and an update, as the trainer does them. */
void run_pass(ct_clip *clip, const ct_clip_input *input, int64_t step);
void run_update(ct_optimizer *optimizer, int64_t step);

/* Limits that just hold both batches of a reference file, for training. */
ct_clip_limits reference_limits(const batch *first, const batch *second);

/* The device under test: the CPU's (device_cpu.c), a GPU's in f32 (tests/gpu/test_model_cuda.c). */
CT_NODISCARD ct_status model_device_create(ct_device **out);

#endif
