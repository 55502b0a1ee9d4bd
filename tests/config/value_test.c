/* Values of every type: in a file, on the command line, in range and out of it. */
#include <string.h>

#include "support.h"

static void whole_numbers(void **state)
{
    (void)state;
    static const char *const wrong[] = {"many",
                                        "1",
                                        "1048577",
                                        "-4",
                                        "64.0",
                                        "6_4",
                                        "1e2",
                                        "0x40",
                                        "010",
                                        "+",
                                        "6 4",
                                        "64k",
                                        "NaN",
                                        "true",
                                        "9223372036854775808",
                                        "99999999999999999999999",
                                        "\xE2\x85\xA3"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char yaml[128], message[256];
        snprintf(yaml, sizeof yaml, "train:\n  batch_size: %s\n", wrong[i]);
        snprintf(message, sizeof message,
                 "x.yaml:2: train.batch_size: expected a whole number from 2 to 1048576, found "
                 "\"%s\"",
                 wrong[i]);
        assert_refused(yaml, message);
    }
    ct_config *config = parsed("seed: 9223372036854775807\ntrain: {batch_size: +2, epochs: 1}\n");
    assert_true(config->seed == INT64_MAX);
    assert_int_equal(config->train.batch_size, 2);
    assert_ok(ct_config_override(config, "train.batch_size=1048576"));
    assert_int_equal(config->train.batch_size, 1048576);
    ct_config_destroy(config);
    assert_refused("seed: 9223372036854775808", "x.yaml:1: seed: expected a whole number from 0 "
                                                "on, found \"9223372036854775808\"");
    assert_refused("seed: -1", "x.yaml:1: seed: expected a whole number from 0 on, found \"-1\"");
}

static void real_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double value;
    } right[] = {{"1e-4", 1e-4}, {"1E-4", 1e-4}, {"0.0001", 1e-4}, {"1", 1},
                 {".5", 0.5},    {"5.", 5},      {"+.5e1", 5},     {"0", 0},
                 {"010", 10},    {"-0", 0},      {"1e-400", 0}};
    for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
        char yaml[64];
        snprintf(yaml, sizeof yaml, "train.lr_image: %s", right[i].text);
        ct_config *config = parsed(yaml);
        assert_true(config->train.lr_image == right[i].value);
        ct_config_destroy(config);
    }
    static const char *const wrong[] = {"high", "-1e-9", "10.1",  "1e999", "nan", ".nan",
                                        "inf",  ".inf",  "0x1p3", "1e",    "1e+", "1_000",
                                        ".",    "1.2.3", "+",     "e5",    "1,5"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char yaml[64], message[256];
        snprintf(yaml, sizeof yaml, "train.lr_image: %s", wrong[i]);
        snprintf(message, sizeof message,
                 "x.yaml:1: train.lr_image: expected a number from 0 to 10, found \"%s\"",
                 wrong[i]);
        assert_refused(yaml, message);
    }
    assert_refused("text.dropout: 1",
                   "x.yaml:1: text.dropout: expected a number from 0 to below 1, found \"1\"");
    assert_refused("train.eps: 0",
                   "x.yaml:1: train.eps: expected a number above 0 to 1, found \"0\"");
}

static void truths(void **state)
{
    (void)state;
    static const char *const words[] = {"false", "true",  "no",   "yes",    "off",
                                        "on",    "False", "TRUE", "\"no\"", "'on'"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        char yaml[64];
        snprintf(yaml, sizeof yaml, "text.lowercase: %s", words[i]);
        ct_config *config = parsed(yaml);
        assert_int_equal(config->text.lowercase, i % 2);
        ct_config_destroy(config);
    }
    assert_refused("text.lowercase: 1",
                   "x.yaml:1: text.lowercase: expected true or false, found \"1\"");
    assert_refused("text.lowercase: y",
                   "x.yaml:1: text.lowercase: expected true or false, found \"y\"");
}

static void choices(void **state)
{
    (void)state;
    ct_config *config = parsed("device: cuda\nprecision: bf16\ndata.format: flickr30k\n"
                               "image: {encoder: resnet101, interpolation: bicubic}\n"
                               "projection.kind: mlp\nloss.same_image: negative\n");
    assert_int_equal(config->device, CT_DEVICE_CUDA);
    assert_int_equal(config->precision, CT_PRECISION_BF16);
    assert_int_equal(config->data.format, CT_CAPTIONS_FLICKR30K_KAGGLE);
    assert_int_equal(config->image.encoder, CT_RESNET101);
    assert_int_equal(config->image.interpolation, CT_BICUBIC);
    assert_int_equal(config->projection.kind, CT_PROJECTION_MLP);
    assert_int_equal(config->loss.same_image, CT_CONFIG_NEGATIVE);
    ct_config_destroy(config);
    config = parsed("precision: fp16\ntext.activation: gelu_tanh\n"
                    "cuda: {graphs: false, autotune: true, fused_statistics: true, "
                    "plan_cache: plans}\n");
    assert_int_equal(config->precision, CT_PRECISION_F16);
    assert_int_equal(config->text.activation, CT_TEXT_GELU_TANH);
    assert_false(config->cuda.graphs);
    assert_true(config->cuda.autotune && config->cuda.deterministic);
    assert_true(config->cuda.fused_statistics);
    assert_string_equal(config->cuda.plan_cache, "plans");
    ct_config_destroy(config);
    assert_refused("device: gpu",
                   "x.yaml:1: device: expected one of auto, cpu, cuda, found \"gpu\"");
    assert_refused("device: CPU",
                   "x.yaml:1: device: expected one of auto, cpu, cuda, found \"CPU\"");
    assert_refused("text.encoder: bert",
                   "x.yaml:1: text.encoder: expected distilbert, found \"bert\"");
}

static void lists(void **state)
{
    (void)state;
#define EXPECTED "x.yaml:1: image.mean: expected a list of 3 numbers from 0 to 1, found "
    assert_refused("image.mean: [0.5, 0.5]", EXPECTED "a list of 2");
    assert_refused("image.mean: [0, 0, 0, 0, 0]", EXPECTED "a list of 5");
    assert_refused("image.mean: []", EXPECTED "a list of 0");
    assert_refused("image.mean: 0.5", EXPECTED "\"0.5\"");
    assert_refused("image.mean: [0, 0, red]", EXPECTED "\"red\"");
    assert_refused("image.mean: [0, 0, 2]", EXPECTED "\"2\"");
    assert_refused("image.mean: [0, 0, ~]", EXPECTED "nothing");
    assert_refused("image.mean: [0, [0], 0]", EXPECTED "something nested in it");
    assert_refused("image.mean: {a: 0}", EXPECTED "keys below it");
    assert_refused("image.mean:", EXPECTED "nothing");
#undef EXPECTED
    assert_refused("seed: [1]", "x.yaml:1: seed: expected a whole number from 0 on, found a list "
                                "of 1");
    assert_refused("output: [a, b]", "x.yaml:1: output: expected text, found a list of 2");
    ct_config *config = parsed("image:\n  mean:\n  - 0.1\n  - 0.2\n  - \"0.3\"\n");
    assert_true(config->image.mean[0] == 0.1 && config->image.mean[2] == 0.3);
    ct_config_destroy(config);
}

/* The first two elements are right: none may be set. */
static void a_refused_list_changes_nothing(void **state)
{
    (void)state;
    ct_config *config = new_config();
    assert_int_equal(ct_config_override(config, "image.mean=[0, 0, red]"), CT_ERR_CONFIG);
    assert_true(config->image.mean[0] == 0.485);
    ct_config_destroy(config);
}

static void texts(void **state)
{
    (void)state;
    ct_config *config = parsed("output: no\ndata:\n  captions: '~'\n  images: null\n"
                               "  train_list:\n  test_list: \"\"\nimage.weights: |\n  a\n  b\n");
    assert_string_equal(config->output, "no");
    assert_string_equal(config->data.captions, "~");
    assert_string_equal(config->data.images, "");
    assert_string_equal(config->data.train_list, "");
    assert_string_equal(config->data.test_list, "");
    assert_string_equal(config->image.weights, "a\nb\n");
    ct_config_destroy(config);
    assert_refused("seed:", "x.yaml:1: seed: expected a whole number from 0 on, found nothing");
    assert_refused("train:\n  epochs: null\nseed: 1\n",
                   "x.yaml:2: train.epochs: expected a whole number from 1 to 1000000, found "
                   "nothing");
    assert_refused("text.lowercase: ~",
                   "x.yaml:1: text.lowercase: expected true or false, found nothing");
}

static void long_values_are_cut_in_messages(void **state)
{
    (void)state;
    char yaml[3000] = "device: ";
    memset(yaml + 8, 'x', 2000);
    ct_config *config = new_config();
    assert_int_equal(ct_config_parse(config, yaml, strlen(yaml), "x.yaml"), CT_ERR_CONFIG);
    assert_true(strlen(ct_error_message()) < 160);
    assert_non_null(strstr(ct_error_message(), "xxx...\""));
    ct_config_destroy(config);
}

static void overrides(void **state)
{
    (void)state;
    ct_config *config = new_config();
    assert_ok(ct_config_override(config, "output=runs/a=b: #1, 'x' "));
    assert_string_equal(config->output, "runs/a=b: #1, 'x' ");
    assert_ok(ct_config_override(config, "output="));
    assert_string_equal(config->output, "");
    assert_ok(ct_config_override(config, "image.crop_scale=[0.5, 1.0]"));
    assert_ok(ct_config_override(config, "image.crop_ratio= [1,1] "));
    assert_true(config->image.crop_ratio[0] == 1 && config->image.crop_ratio[1] == 1);
    assert_ok(ct_config_override(config, "text.lowercase= off"));
    assert_false(config->text.lowercase);
    ct_config_destroy(config);
    assert_override_refused("train.batch_size=abc",
                            "train.batch_size=abc: expected a whole number from 2 to 1048576, "
                            "found \"abc\"");
    assert_override_refused("train.batch_size=", "train.batch_size=: expected a whole number from "
                                                 "2 to 1048576, found nothing");
    assert_override_refused("train.batch_sise=4", "train.batch_sise=4: unknown key (did you mean "
                                                  "train.batch_size?)");
    assert_override_refused("nothing=4", "nothing=4: unknown key");
    assert_override_refused("train=4", "train=4: unknown key");
    assert_override_refused("=4", "=4: unknown key");
    assert_override_refused("", ": expected key=value");
    assert_override_refused("seed", "seed: expected key=value");
    assert_override_refused("image.crop_scale=[0.5]", "image.crop_scale=[0.5]: expected a list of "
                                                      "2 numbers above 0 to 1, found a list of 1");
    assert_override_refused("image.crop_scale=[", "image.crop_scale=[: expected a list of 2 "
                                                  "numbers above 0 to 1, found \"[\"");
    assert_override_refused("output=\xFF", "output=?: expected UTF-8");
}

int run_value_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_numbers), cmocka_unit_test(real_numbers),
        cmocka_unit_test(truths),        cmocka_unit_test(choices),
        cmocka_unit_test(lists),         cmocka_unit_test(a_refused_list_changes_nothing),
        cmocka_unit_test(texts),         cmocka_unit_test(long_values_are_cut_in_messages),
        cmocka_unit_test(overrides),
    };
    return cmocka_run_group_tests_name("values", tests, NULL, NULL);
}
