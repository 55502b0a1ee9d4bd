/* Checkpoints and pretrained weights: what is written comes back, in PyTorch's layout, and what is
 * missing or of another shape is named. */
#include "train/checkpoint.h"

#include <stdlib.h>
#include <string.h>

#include "cpu/cpu.h"
#include "model/safetensors.h"
#include "train/support.h"
#include "train/tests.h"

#define OUT     2
#define KERNEL  3
#define IN      4
#define FILTER  (OUT * KERNEL * KERNEL * IN)
#define MATRIX  (2 * 3)
#define ENTRIES 4

typedef struct fixture {
    ct_device *device;
    ct_params *params;
    const ct_param *filter, *matrix;
    char *folder, path[4096];
} fixture;

static int setup(void **state)
{
    fixture *f = must_alloc(sizeof *f);
    const ct_param filter = {.name = "image.conv1.weight",
                             .value = ct_tensor4(NULL, CT_F32, OUT, KERNEL, KERNEL, IN),
                             .filter = true,
                             .init = CT_INIT_NORMAL,
                             .init_scale = 1.0f};
    const ct_param matrix = {.name = "text.lin.weight",
                             .value = ct_tensor2(NULL, CT_F32, 2, 3),
                             .init = CT_INIT_NORMAL,
                             .init_scale = 1.0f};
    assert_ok(ct_cpu_device_create(1, &f->device));
    assert_ok(ct_params_create(&f->params));
    assert_ok(ct_params_add(f->params, &filter, &f->filter));
    assert_ok(ct_params_add(f->params, &matrix, &f->matrix));
    assert_ok(ct_params_allocate(f->params, f->device, 7, true));
    f->folder = folder_create();
    snprintf(f->path, sizeof f->path, "%s/file.safetensors", f->folder);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    ct_params_destroy(f->params);
    ct_device_destroy(f->device);
    folder_remove(f->folder);
    free(f);
    return 0;
}

/* One tensor of a file to be: values 0, 1, 2, ... in the file's order. */
typedef struct entry {
    const char *name;
    int rank;
    int64_t dim[4];
    int64_t count;
} entry;

static void write_file(const char *path, const entry *entries, int count)
{
    ct_safetensors_writer *writer;
    float values[FILTER];
    for (int i = 0; i < FILTER; i++) values[i] = (float)i;
    assert_ok(ct_safetensors_writer_create(&writer));
    for (int i = 0; i < count; i++)
        assert_ok(ct_safetensors_writer_declare(writer, entries[i].name, CT_FILE_F32,
                                                entries[i].rank, entries[i].dim));
    assert_ok(ct_safetensors_writer_begin(writer, path));
    for (int i = 0; i < count; i++)
        assert_ok(
            ct_safetensors_writer_put(writer, values, (size_t)entries[i].count * sizeof *values));
    assert_ok(ct_safetensors_writer_commit(writer));
    ct_safetensors_writer_destroy(writer);
}

/* A published file has a head and counters that are not the tower's, and may have a prefix. */
static void test_pretrained_weights(void **state)
{
    fixture *f = *state;
    const entry entries[ENTRIES] = {{"conv1.weight", 4, {OUT, IN, KERNEL, KERNEL}, FILTER},
                                    {"bn1.num_batches_tracked", 0, {0}, 1},
                                    {"distilbert.lin.weight", 2, {2, 3}, MATRIX},
                                    {"fc.weight", 2, {3, 2}, MATRIX}};
    float host[FILTER];
    write_file(f->path, entries, ENTRIES);
    assert_ok(ct_weights_load(f->path, "image.", f->params));
    assert_ok(ct_weights_load(f->path, "text.", f->params));
    assert_ok(ct_param_download(f->params, f->filter, &f->filter->value, host));
    for (int i = 0; i < FILTER; i++) assert_true(host[i] == (float)i);
    assert_ok(ct_param_download(f->params, f->matrix, &f->matrix->value, host));
    for (int i = 0; i < MATRIX; i++) assert_true(host[i] == (float)i);
    /* In memory filters are (Co, KH, KW, Ci): the second value is the second input channel's. */
    const float *memory = ct_f32(&f->filter->value);
    assert_true(memory[0] == 0.0f && memory[1] == (float)(KERNEL * KERNEL));
}

static void test_wrong_weights(void **state)
{
    fixture *f = *state;
    const entry transposed = {"conv1.weight", 4, {OUT, KERNEL, KERNEL, IN}, FILTER};
    const entry other = {"conv2.weight", 4, {OUT, IN, KERNEL, KERNEL}, FILTER};
    write_file(f->path, &transposed, 1);
    assert_fails(
        ct_weights_load(f->path, "image.", f->params), CT_ERR_FORMAT,
        "\"conv1.weight\": expected shape (2, 4, 3, 3), as configured, found (2, 3, 3, 4)");
    write_file(f->path, &other, 1);
    assert_fails(ct_weights_load(f->path, "image.", f->params), CT_ERR_FORMAT,
                 "no tensor \"conv1.weight\"");
}

static void test_checkpoint_round_trip(void **state)
{
    static const char vocab[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n";
    fixture *f = *state;
    ct_tokenizer *tokenizer, *again;
    ct_config *config, *read;
    ct_checkpoint *checkpoint;
    size_t size;
    float before[FILTER], after[FILTER];
    assert_ok(ct_tokenizer_parse(vocab, strlen(vocab), "vocab", true, &tokenizer));
    assert_ok(ct_config_create(&config));
    assert_ok(ct_config_override(config, "train.batch_size=77"));
    assert_ok(ct_param_download(f->params, f->filter, &f->filter->value, before));
    assert_ok(ct_param_upload(f->params, f->filter, &f->filter->exp_avg_sq, before));
    assert_ok(ct_checkpoint_save(f->path, f->params, f->device, config, tokenizer, 1234567890123));

    float zeros[FILTER] = {0};
    assert_ok(ct_param_upload(f->params, f->filter, &f->filter->value, zeros));
    assert_ok(ct_param_upload(f->params, f->filter, &f->filter->exp_avg_sq, zeros));
    assert_ok(ct_checkpoint_open(f->path, &checkpoint));
    assert_true(ct_checkpoint_step(checkpoint) == 1234567890123);
    assert_ok(ct_checkpoint_restore(checkpoint, f->params, f->device));
    assert_ok(ct_param_download(f->params, f->filter, &f->filter->value, after));
    assert_memory_equal(before, after, sizeof before);
    assert_ok(ct_param_download(f->params, f->filter, &f->filter->exp_avg_sq, after));
    assert_memory_equal(before, after, sizeof before);

    /* A parameter that is optional keeps what it has, any other is missed. */
    ct_params *wider;
    ct_param more = {.name = "loss_scale",
                     .value = ct_tensor1(NULL, CT_F32, 2),
                     .buffer = true,
                     .optional = true,
                     .init = CT_INIT_CONSTANT,
                     .init_scale = 5.0f};
    const ct_param *optional;
    assert_ok(ct_params_create(&wider));
    assert_ok(ct_params_add(wider, &more, &optional));
    assert_ok(ct_params_allocate(wider, f->device, 7, true));
    assert_ok(ct_checkpoint_restore(checkpoint, wider, f->device));
    assert_true(ct_f32(&optional->value)[1] == 5.0f);
    ct_params_destroy(wider);
    assert_ok(ct_params_create(&wider));
    more.optional = false;
    assert_ok(ct_params_add(wider, &more, &optional));
    assert_ok(ct_params_allocate(wider, f->device, 7, true));
    assert_fails(ct_checkpoint_restore(checkpoint, wider, f->device), CT_ERR_FORMAT,
                 "no tensor \"model.loss_scale\"");
    ct_params_destroy(wider);

    assert_ok(ct_checkpoint_config(checkpoint, &read));
    assert_int_equal(read->train.batch_size, 77);
    assert_ok(ct_checkpoint_tokenizer(checkpoint, true, &again));
    assert_memory_equal(ct_tokenizer_vocab_text(again, &size), vocab, strlen(vocab));
    assert_int_equal(size, strlen(vocab));

    ct_checkpoint_close(checkpoint);
    ct_config_destroy(config);
    ct_config_destroy(read);
    ct_tokenizer_destroy(tokenizer);
    ct_tokenizer_destroy(again);
}

int run_checkpoint_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_pretrained_weights, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wrong_weights, setup, teardown),
        cmocka_unit_test_setup_teardown(test_checkpoint_round_trip, setup, teardown),
    };
    return cmocka_run_group_tests_name("checkpoint", tests, NULL, NULL);
}
