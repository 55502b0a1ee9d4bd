/* Hugging Face's results, made by tests/reference/make_tokenizer.py: every id, every vocabulary. */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "text/tokenizer.h"
#include "text/vocab_trainer.h"
#include "text_tests.h"

#define DEFAULT_PATH "tests/reference/data/tokenizer.json"

/* CT_TOKENIZER_GOLDEN names another file, e.g. one with many more random texts. */
static int load(void **state)
{
    const char *path = getenv("CT_TOKENIZER_GOLDEN");
    size_t size;
    char *text = read_text(path ? path : DEFAULT_PATH, &size);
    *state = cJSON_ParseWithLength(text, size);
    free(text);
    return *state ? 0 : -1;
}

static int unload(void **state)
{
    cJSON_Delete(*state);
    return 0;
}

/* The strings of a JSON array: *count pointers into it. */
static const char **strings_of(const cJSON *array, int32_t *count)
{
    const char **strings;
    const cJSON *item;
    *count = 0;
    assert_ok(ct_alloc((size_t)cJSON_GetArraySize(array), sizeof *strings, "strings", &strings));
    cJSON_ArrayForEach(item, array) strings[(*count)++] = cJSON_GetStringValue(item);
    return strings;
}

/* The strings of a JSON array, one a line. */
static char *lines_of(const cJSON *array, size_t *size)
{
    int32_t count;
    const char **strings = strings_of(array, &count);
    char *text, *to;
    *size = 0;
    for (int32_t i = 0; i < count; i++) *size += strlen(strings[i]) + 1;
    assert_ok(ct_alloc(*size + 1, 1, "lines", &text));
    to = text;
    for (int32_t i = 0; i < count; i++) to += sprintf(to, "%s\n", strings[i]);
    free(strings);
    return text;
}

/* The vocabulary is in the file itself, or a path. */
static void load_vocab(const cJSON *vocab, bool lowercase, ct_tokenizer **out)
{
    if (cJSON_IsString(vocab)) {
        assert_ok(ct_tokenizer_load(vocab->valuestring, lowercase, out));
        return;
    }
    size_t size;
    char *text = lines_of(vocab, &size);
    assert_ok(ct_tokenizer_parse(text, size, "golden vocabulary", lowercase, out));
    free(text);
}

static void print_ids(const char *label, const ct_tokenizer *tokenizer, const int32_t *ids,
                      int32_t count)
{
    print_error("%s:", label);
    for (int32_t i = 0; i < count; i++) print_error(" %s", ct_tokenizer_token(tokenizer, ids[i]));
    print_error("\n");
}

/* Whether the ids of the text are those of the JSON array; shows both when not. */
static bool agrees(const ct_tokenizer *tokenizer, ct_tokenizer_scratch *scratch, const char *text,
                   int32_t max_tokens, const cJSON *expected)
{
    int32_t ids[512], wanted[512], count, wanted_count = 0;
    const cJSON *id;
    cJSON_ArrayForEach(id, expected)
    {
        assert_in_range(wanted_count, 0, 511);
        wanted[wanted_count++] = id->valueint;
    }
    assert_in_range(max_tokens, 2, 512);
    assert_ok(ct_tokenizer_encode(tokenizer, scratch, text, strlen(text), max_tokens, ids, &count));
    if (count == wanted_count && memcmp(ids, wanted, (size_t)count * sizeof *ids) == 0) return true;
    print_error("text \"%s\", at most %d tokens\n", text, max_tokens);
    print_ids("  expected", tokenizer, wanted, wanted_count);
    print_ids("  found", tokenizer, ids, count);
    return false;
}

/* The number of texts whose ids differ. */
static int check_model(const cJSON *golden, const cJSON *model)
{
    ct_tokenizer *tokenizer;
    ct_tokenizer_scratch *scratch;
    int wrong = 0, count = 0;
    bool lowercase = cJSON_IsTrue(cJSON_GetObjectItem(model, "lowercase"));
    load_vocab(cJSON_GetObjectItem(model, "vocab"), lowercase, &tokenizer);
    assert_ok(ct_tokenizer_scratch_create(&scratch));
    const cJSON *text, *limit = cJSON_GetObjectItem(golden, "max_tokens")->child;
    const cJSON *ids = cJSON_GetObjectItem(model, "ids")->child;
    cJSON_ArrayForEach(text, cJSON_GetObjectItem(golden, "texts"))
    {
        wrong += !agrees(tokenizer, scratch, text->valuestring, limit->valueint, ids);
        count++;
        limit = limit->next;
        ids = ids->next;
    }
    ct_tokenizer_scratch_destroy(scratch);
    ct_tokenizer_destroy(tokenizer);
    assert_true(count > 0);
    if (wrong)
        print_error("%d of %d texts (%s) differ\n", wrong, count, lowercase ? "uncased" : "cased");
    return wrong;
}

static void ids_equal_hugging_face(void **state)
{
    const cJSON *model, *models = cJSON_GetObjectItem(*state, "models");
    int wrong = 0;
    assert_true(cJSON_GetArraySize(models) >= 2);
    cJSON_ArrayForEach(model, models) wrong += check_model(*state, model);
    assert_int_equal(wrong, 0);
}

static void check_training(const cJSON *item, int number)
{
    int32_t count;
    size_t wanted_size, size;
    const char **captions = strings_of(cJSON_GetObjectItem(item, "captions"), &count);
    char *wanted = lines_of(cJSON_GetObjectItem(item, "vocab"), &wanted_size), *vocab;
    assert_ok(ct_vocab_train(captions, count, cJSON_IsTrue(cJSON_GetObjectItem(item, "lowercase")),
                             cJSON_GetObjectItem(item, "size")->valueint,
                             cJSON_GetObjectItem(item, "min_frequency")->valueint, &vocab, &size));
    size_t same = 0;
    int line = 1;
    for (; same < size && vocab[same] == wanted[same]; same++) line += vocab[same] == '\n';
    if (size != wanted_size || same < size)
        fail_msg("training %d: first different at line %d: expected ...\n%.40s\nfound\n%.40s",
                 number, line, wanted + same, vocab + same);
    free(captions);
    free(wanted);
    free(vocab);
}

static void vocabularies_equal_hugging_face(void **state)
{
    const cJSON *item;
    int number = 0;
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(*state, "training"))
        check_training(item, number++);
}

int run_golden_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_equal_hugging_face),
        cmocka_unit_test(vocabularies_equal_hugging_face),
    };
    return cmocka_run_group_tests_name("golden", tests, load, unload);
}
