/* Rules between keys. */
#include <string.h>

#include "support.h"

static const char *const complete[] = {"data.captions=c", "data.images=i", "text.vocab=v"};

static void assert_invalid(const char *const *assignments, const char *message)
{
    ct_config *config = new_config();
    for (int i = 0; i < 3; i++) assert_ok(ct_config_override(config, complete[i]));
    assert_ok(ct_config_validate(config));
    for (int i = 0; assignments[i]; i++) assert_ok(ct_config_override(config, assignments[i]));
    assert_int_equal(ct_config_validate(config), CT_ERR_CONFIG);
    assert_string_equal(ct_error_message(), message);
    ct_config_destroy(config);
}

#define INVALID(message, ...) assert_invalid((const char *const[]){__VA_ARGS__, NULL}, message)

static void required_keys(void **state)
{
    (void)state;
    INVALID("data.captions: is required: the captions file", "data.captions=");
    INVALID("data.images: is required: the folder of photos", "data.images=");
    INVALID("text.vocab: is required: BERT's vocab.txt", "text.vocab=");
    INVALID("output: is required: the folder of this run", "output=");
}

static void pairs_of_keys(void **state)
{
    (void)state;
    INVALID("image.crop_scale: expected the smaller number first, found [0.9, 0.5]",
            "image.crop_scale=[0.9, 0.5]");
    INVALID("image.crop_ratio: expected the smaller number first, found [2, 1]",
            "image.crop_ratio=[2, 1]");
    INVALID("text.width: expected a multiple of text.heads (5), found 768", "text.heads=5");
    INVALID("loss.label_smoothing: is for loss.kind: softmax only", "loss.kind=sigmoid",
            "loss.label_smoothing=0.1");
    INVALID("loss.logit_scale_init: expected at most loss.logit_scale_max (10), found "
            "14.2857142857143",
            "loss.logit_scale_max=10");
    INVALID("train.warmup_steps: expected fewer than train.max_steps (100), found 100",
            "train.max_steps=100");
    INVALID("train.stochastic_rounding: is for precision: bf16 (or auto) only", "precision=fp16",
            "train.stochastic_rounding=true");
}

static void splits(void **state)
{
    (void)state;
    INVALID("data.validation: expected a share below 1 or a whole number of photos, found 1.5",
            "data.validation=1.5");
    INVALID("data.validation and data.test: 0.5 and 0.5 leave nothing to train on",
            "data.validation=0.5", "data.test=0.5");
    INVALID("data.validation_list: needs data.train_list with it", "data.validation_list=a");
    INVALID("data.test_list: needs data.train_list with it", "data.test_list=a");
}

int run_validate_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(required_keys),
        cmocka_unit_test(pairs_of_keys),
        cmocka_unit_test(splits),
    };
    return cmocka_run_group_tests_name("validate", tests, NULL, NULL);
}
