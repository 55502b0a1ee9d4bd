/* YAML as people write it, and all that is refused. */
#include <glob.h>
#include <string.h>

#include "support.h"

static void reads_sections_and_dotted_keys(void **state)
{
    (void)state;
    ct_config *config = parsed("# a run\n"
                               "seed: 7\n"
                               "output: \"runs/a b\"\n"
                               "train:\n"
                               "  batch_size: 64 # photos\n"
                               "  lr_image: 1e-4\n"
                               "  schedule: constant\n"
                               "data.captions: photos/captions.txt\n"
                               "image: {crop_scale: [0.25, 1], mean: [0, .5, 1.]}\n"
                               "text:\n"
                               "  lowercase: no\n");
    assert_int_equal(config->seed, 7);
    assert_string_equal(config->output, "runs/a b");
    assert_int_equal(config->train.batch_size, 64);
    assert_true(config->train.lr_image == 1e-4);
    assert_int_equal(config->train.schedule, CT_SCHEDULE_CONSTANT);
    assert_string_equal(config->data.captions, "photos/captions.txt");
    assert_true(config->image.crop_scale[0] == 0.25 && config->image.crop_scale[1] == 1);
    assert_true(config->image.mean[1] == 0.5 && config->image.mean[2] == 1);
    assert_false(config->text.lowercase);
    assert_int_equal(config->train.epochs, 10); /* not given: the default */
    ct_config_destroy(config);
}

static void later_parses_win(void **state)
{
    (void)state;
    ct_config *config = parsed("seed: 1\ntrain: {epochs: 3}\n");
    const char *more = "train: {epochs: 4}\n";
    assert_ok(ct_config_parse(config, more, strlen(more), "y.yaml"));
    assert_ok(ct_config_override(config, "train.epochs=5"));
    assert_int_equal(config->seed, 1);
    assert_int_equal(config->train.epochs, 5);
    ct_config_destroy(config);
}

static void empty_files_and_sections_set_nothing(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        "\n",
                                        "# nothing\n",
                                        "---\n",
                                        "~\n",
                                        "train:\n",
                                        "train:\n  # epochs: 3\nseed: 0\n",
                                        "{}",
                                        "train: {}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        ct_config *config = parsed(texts[i]);
        assert_int_equal(config->train.epochs, 10);
        ct_config_destroy(config);
    }
}

static void byte_order_mark_and_crlf(void **state)
{
    (void)state;
    ct_config *config = parsed("\xEF\xBB\xBFseed: 3\r\ntrain:\r\n  epochs: 2\r\n");
    assert_int_equal(config->seed, 3);
    assert_int_equal(config->train.epochs, 2);
    ct_config_destroy(config);
}

static void unknown_keys(void **state)
{
    (void)state;
    assert_refused("seed: 1\ntrain:\n  batch_sise: 4\n",
                   "x.yaml:3: train.batch_sise: unknown key (did you mean train.batch_size?)");
    assert_refused("batch_size: 4", "x.yaml:1: batch_size: unknown key (did you mean "
                                    "train.batch_size?)");
    assert_refused("image:\n  weight: a",
                   "x.yaml:2: image.weight: unknown key (did you mean image.weights?)");
    assert_refused("trian:\n  epochs: 2\n", "x.yaml:1: trian: unknown key");
    assert_refused("train.dropout: 0.1",
                   "x.yaml:1: train.dropout: unknown key (did you mean text.dropout?)");
    assert_refused("optimizer: adam", "x.yaml:1: optimizer: unknown key");
    assert_refused("\"a\\e[31m\\nb\": 1", "x.yaml:1: a?[31m?b: unknown key");
    assert_refused("? [a]\n: 1\n", "x.yaml:1: expected a key");
    assert_refused("train: {train: {epochs: 1}}", "x.yaml:1: train.train: unknown key");
    assert_refused("<<: {seed: 1}", "x.yaml:1: <<: unknown key");
}

static void keys_given_twice(void **state)
{
    (void)state;
    assert_refused("seed: 1\noutput: a\nseed: 1\n", "x.yaml:3: seed: given twice, first on line 1");
    assert_refused("train: {epochs: 1}\ntrain: {max_steps: 1}\n",
                   "x.yaml:2: train: given twice, first on line 1");
    assert_refused("train.epochs: 1\ntrain:\n  epochs: 2\n",
                   "x.yaml:3: train.epochs: given twice, first on line 1");
}

static void other_yaml(void **state)
{
    (void)state;
    assert_refused("seed: &a 1\n",
                   "x.yaml:1: anchors and aliases (&name, *name) are not supported");
    assert_refused("seed: 1\noutput: *a\n",
                   "x.yaml:2: anchors and aliases (&name, *name) are not supported");
    assert_refused("train: &t {epochs: 1}\n",
                   "x.yaml:1: anchors and aliases (&name, *name) are not supported");
    assert_refused("seed: !!int 1\n", "x.yaml:1: tags (!name) are not supported");
    assert_refused("seed: 1\n---\nseed: 2\n",
                   "x.yaml:2: a second document starts here; expected one");
    assert_refused("- seed\n", "x.yaml:1: expected keys, one a line, as in \"seed: 1\"");
    assert_refused("seed\n", "x.yaml:1: expected keys, one a line, as in \"seed: 1\"");
    assert_refused("train: 3\n", "x.yaml:1: train: expected keys below it");
    assert_refused("train: [epochs]\n", "x.yaml:1: train: expected keys below it");
    assert_refused("output: \"a\\0b\"\n", "x.yaml:1: a NUL character in a key or value");
}

static void broken_yaml(void **state)
{
    (void)state;
    ct_config *config = new_config();
    static const struct {
        const char *text, *start;
    } cases[] = {
        {"seed: 1\ntrain:\n\tepochs: 2\n", "x.yaml:3: not YAML: "},
        {"seed: 1\noutput: \"abc\n", "x.yaml:3: not YAML: "},
        {"image: {mean: [1, 2\n", "x.yaml:2: not YAML: "},
        {"seed: 1\noutput: \xFF\n", "x.yaml:2: not YAML: "},
        {"seed: 1\n\noutput: a\001b\n", "x.yaml:3: not YAML: "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ct_status status = ct_config_parse(config, cases[i].text, strlen(cases[i].text), "x.yaml");
        assert_int_equal(status, CT_ERR_CONFIG);
        if (strncmp(ct_error_message(), cases[i].start, strlen(cases[i].start)) != 0)
            fail_msg("case %zu: %s", i, ct_error_message());
    }
    ct_config_destroy(config);
}

static void missing_and_bundled_files(void **state)
{
    (void)state;
    ct_config *config = new_config();
    assert_int_equal(ct_config_load(config, "tests/config/none.yaml"), CT_ERR_IO);
    ct_config_destroy(config);
    glob_t files;
    assert_int_equal(glob("configs/*.yaml", 0, NULL, &files), 0);
    for (size_t i = 0; i < files.gl_pathc; i++) {
        config = new_config();
        assert_ok(ct_config_load(config, files.gl_pathv[i]));
        assert_ok(ct_config_validate(config));
        ct_config_destroy(config);
    }
    globfree(&files);
}

int run_parse_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_sections_and_dotted_keys),
        cmocka_unit_test(later_parses_win),
        cmocka_unit_test(empty_files_and_sections_set_nothing),
        cmocka_unit_test(byte_order_mark_and_crlf),
        cmocka_unit_test(unknown_keys),
        cmocka_unit_test(keys_given_twice),
        cmocka_unit_test(other_yaml),
        cmocka_unit_test(broken_yaml),
        cmocka_unit_test(missing_and_bundled_files),
    };
    return cmocka_run_group_tests_name("parse", tests, NULL, NULL);
}
