/* What the model's tests share: assertions, the reference files of tests/reference/make_model.py,
 * and inputs and weights drawn by the rule both sides have. */
#ifndef CT_TESTS_MODEL_SUPPORT_H
#define CT_TESTS_MODEL_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

#include "config/config.h"
#include "cpu/cpu.h"
#include "model/clip.h"

/* Passes, or fails the test with the thread's message. */
#define assert_ok(expression)                                                                      \
    do {                                                                                           \
        if ((expression) != CT_OK) fail_msg("%s: %s", #expression, ct_error_message());            \
    } while (0)

/* Fails with this status, and with `text` in the message. */
#define assert_fails(expression, status, text)                                                     \
    do {                                                                                           \
        assert_int_equal(expression, status);                                                      \
        if (!strstr(ct_error_message(), text))                                                     \
            fail_msg("message \"%s\" lacks \"%s\"", ct_error_message(), text);                     \
    } while (0)

/* Memory that ends the test program when there is none. */
void *must_alloc(size_t bytes);

/* A reference file: "resnet18_linear" or "resnet50_mlp". */
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

/* Limits that just hold both batches of a reference file, for training. */
ct_clip_limits reference_limits(const batch *first, const batch *second);

#endif
