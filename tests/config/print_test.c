/* What is printed reads back to the same values, bit for bit. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"
#include "config/schema.h"
#include "support.h"

static void *field_of(ct_config *config, const ct_key *key)
{
    return (char *)config + key->offset;
}

static void assert_equal(ct_config *a, ct_config *b)
{
    for (int i = 0; i < ct_key_count; i++) {
        const ct_key *key = &ct_keys[i];
        static const size_t bytes[] = {[CT_KEY_WHOLE] = sizeof(int64_t),
                                       [CT_KEY_REAL] = sizeof(double),
                                       [CT_KEY_BOOL] = sizeof(bool),
                                       [CT_KEY_CHOICE] = sizeof(unsigned)};
        void *left = field_of(a, key), *right = field_of(b, key);
        bool same = key->type == CT_KEY_TEXT
                        ? strcmp(*(char **)left, *(char **)right) == 0
                        : memcmp(left, right, bytes[key->type] * (size_t)key->count) == 0;
        if (!same) fail_msg("%s is not the same after printing", key->name);
    }
}

/* Returns the printed text; free(). */
static char *assert_round_trip(ct_config *config)
{
    char *text, *again;
    assert_ok(ct_config_print(config, &text));
    ct_config *back = new_config();
    if (ct_config_parse(back, text, strlen(text), "printed") != CT_OK)
        fail_msg("%s in:\n%s", ct_error_message(), text);
    assert_equal(config, back);
    assert_ok(ct_config_print(back, &again));
    assert_string_equal(text, again);
    free(again);
    ct_config_destroy(back);
    return text;
}

static void defaults(void **state)
{
    (void)state;
    ct_config *config = new_config();
    char *text = assert_round_trip(config);
    assert_non_null(strstr(text, "seed: 0\noutput: \"run\"\ndevice: auto\n"));
    assert_non_null(strstr(text, "  mean: [0.485, 0.456, 0.406]\n"));
    assert_non_null(strstr(text, "train:\n  batch_size: 128\n"));
    free(text);
    ct_config_destroy(config);
}

static void awkward_texts(void **state)
{
    (void)state;
    static const char long_text[] =
        "a name with spaces that goes on and on past the eighty columns "
        "at which emitters fold lines, and further";
    static const char *const texts[] = {"",
                                        " ",
                                        "~",
                                        "null",
                                        "no",
                                        "1e3",
                                        "a: b",
                                        "# c",
                                        "'",
                                        "\"",
                                        "\\",
                                        "\\n",
                                        "a\nb",
                                        "\n",
                                        "a\r\nb",
                                        "\t",
                                        "  two  spaces  ",
                                        "\001\002\037\177",
                                        "- x",
                                        "[a, b]",
                                        "{a: b}",
                                        "&a",
                                        "*a",
                                        "!t",
                                        "%",
                                        "@",
                                        "`",
                                        "---",
                                        "...",
                                        "photo \xC3\xA9t\xC3\xA9",
                                        "\xF0\x9F\x90\x95",
                                        "\xC2\x85",
                                        "\xE2\x80\xA8\xE2\x80\xA9",
                                        "\xEF\xBB\xBFx",
                                        "\xEF\xBF\xBE",
                                        "\xC2\xA0",
                                        long_text};
    ct_config *config = new_config();
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        free(config->output);
        assert_ok(ct_strdup(texts[i], &config->output));
        free(assert_round_trip(config));
    }
    ct_config_destroy(config);
}

typedef struct source {
    ct_rng_key key;
    uint64_t next;
} source;

static double random_real(source *s, double low, double high)
{
    uint64_t high_bits = ct_rng_u32(s->key, s->next++), low_bits = ct_rng_u32(s->key, s->next++);
    double unit = (double)(high_bits << 21 ^ low_bits >> 11) * 0x1p-53;
    if (ct_rng_below(s->key, s->next++, 4) == 0) unit *= 1e-9;
    return low + unit * (high - low);
}

/* A text of one to twelve characters of one to four bytes each. */
static void random_text(source *s, char **field)
{
    static const char *const characters[] = {"a",
                                             "Z",
                                             " ",
                                             "\"",
                                             "\\",
                                             "\n",
                                             "#",
                                             ":",
                                             "'",
                                             "\t",
                                             "\r",
                                             "\b",
                                             "\xC3\xA9",
                                             "\xE4\xB8\xAD",
                                             "\xF0\x9F\x90\x95"};
    char text[64] = "";
    for (uint32_t n = ct_rng_below(s->key, s->next++, 12); n > 0; n--)
        strcat(text, characters[ct_rng_below(s->key, s->next++, 15)]);
    free(*field);
    assert_ok(ct_strdup(text, field));
}

static void randomize(source *s, ct_config *config, const ct_key *key)
{
    void *field = field_of(config, key);
    unsigned choices = 0;
    switch (key->type) {
    case CT_KEY_WHOLE: {
        double span = fmin((double)key->whole_max - (double)key->whole_min, 0x1p53);
        *(int64_t *)field = key->whole_min + (int64_t)random_real(s, 0, span);
        break;
    }
    case CT_KEY_REAL:
        for (int i = 0; i < key->count; i++) {
            double *value = (double *)field + i;
            do *value = random_real(s, key->real_min, key->real_max);
            while ((key->above_min && *value == key->real_min) ||
                   (key->below_max && *value == key->real_max));
        }
        break;
    case CT_KEY_BOOL:
        *(bool *)field = ct_rng_below(s->key, s->next++, 2);
        break;
    case CT_KEY_TEXT:
        random_text(s, field);
        break;
    case CT_KEY_CHOICE:
        while (key->names[choices]) choices++;
        *(unsigned *)field = ct_rng_below(s->key, s->next++, choices);
        break;
    }
}

static void random_configs(void **state)
{
    (void)state;
    const uint64_t seed = 20;
    print_message("random seed %llu\n", (unsigned long long)seed);
    for (uint64_t run = 0; run < 200; run++) {
        source s = {ct_rng_make(seed, CT_RNG_TEST, 1, run), 0};
        ct_config *config = new_config();
        for (int i = 0; i < ct_key_count; i++) randomize(&s, config, &ct_keys[i]);
        free(assert_round_trip(config));
        ct_config_destroy(config);
    }
}

static void hard_doubles(void **state)
{
    (void)state;
    static const double values[] = {0.1,  1.0 / 3,   0x1.fffffffffffffp-1, DBL_MIN, 5e-324,
                                    1e22, 0.1 + 0.2, 9007199254740993.0,   1e-7};
    ct_config *config = new_config();
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        config->train.eps = values[i] <= 1 ? values[i] : 1;
        config->train.clip_grad_norm = values[i] <= 1e9 ? values[i] : 1e9;
        free(assert_round_trip(config));
    }
    ct_config_destroy(config);
}

int run_print_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(awkward_texts),
        cmocka_unit_test(random_configs),
        cmocka_unit_test(hard_doubles),
    };
    return cmocka_run_group_tests_name("print", tests, NULL, NULL);
}
