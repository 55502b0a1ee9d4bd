/* After the first step the training loop allocates nothing, and a run's memory does not grow.
 *
 * The linker sends every allocation of our own code (not those inside libjpeg-turbo or oneDNN) to
 * the counters below. A run of few steps and a run of many must then count the same on the training
 * thread: whatever a step allocated would show as a difference. */
#include <malloc.h>
#include <unistd.h>

#include "../support.h"
#include "base/log.h"
#include "train/select_device.h"
#include "train/trainer.h"

static _Thread_local long allocations;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
int __real_posix_memalign(void **out, size_t alignment, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
int __wrap_posix_memalign(void **out, size_t alignment, size_t size);

void *__wrap_malloc(size_t size)
{
    allocations++;
    return __real_malloc(size);
}
void *__wrap_calloc(size_t count, size_t size)
{
    allocations++;
    return __real_calloc(count, size);
}
void *__wrap_realloc(void *old, size_t size)
{
    allocations++;
    return __real_realloc(old, size);
}
void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    allocations++;
    return __real_aligned_alloc(alignment, size);
}
int __wrap_posix_memalign(void **out, size_t alignment, size_t size)
{
    allocations++;
    return __real_posix_memalign(out, alignment, size);
}

static long resident_kib(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%*d %ld", &pages), 1);
    fclose(file);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* Trains `steps` steps into a scratch folder. */
static long train(int steps)
{
    static const char *const overrides[] = {
        "train.batch_size=8", "image.size=32",     "data.validation=20",
        "data.test=0",        "text.depth=1",      "train.checkpoint_every=100000",
        "train.eval_every=0", "train.epochs=1000", "train.warmup_steps=2",
        "threads=2",          "data.workers=2"};
    char *folder = folder_create(), text[8200];
    ct_config *config;
    ct_device *device;
    int threads;
    assert_ok(ct_config_create(&config));
    assert_ok(ct_config_load(config, "configs/quickstart.yaml"));
    for (size_t i = 0; i < sizeof overrides / sizeof overrides[0]; i++)
        assert_ok(ct_config_override(config, overrides[i]));
    snprintf(text, sizeof text, "output=%s", folder);
    assert_ok(ct_config_override(config, text));
    snprintf(text, sizeof text, "train.max_steps=%d", steps);
    assert_ok(ct_config_override(config, text));
    assert_ok(ct_device_select(config, NULL, &device, &threads));
    ct_train_options options = {
        .config = config, .title = "test", .threads = threads, .device = device};
    long before = allocations;
    assert_ok(ct_train(&options));
    long count = allocations - before;
    ct_device_destroy(device);
    ct_config_destroy(config);
    folder_remove(folder);
    return count;
}

static void test_steps_allocate_nothing(void **state)
{
    (void)state;
    train(2); /* what is only ever allocated once in a process */
    long few = train(3), many = train(43);
    assert_true(few > 0);
    assert_int_equal(few, many);
}

/* Resident memory after 400 steps (several epochs) is that after 100, but for the allocator's and
 * the kernel's page granularity: far less than one step's images would add if they leaked. */
static void test_memory_is_flat(void **state)
{
    (void)state;
    train(100);
    malloc_trim(0);
    long first = resident_kib();
    train(400);
    malloc_trim(0);
    long growth = resident_kib() - first;
    printf("resident memory grew by %ld KiB over 400 steps of %d KiB of images\n", growth,
           8 * 32 * 32 * 3 / 1024);
    assert_true(growth < 2048);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps_allocate_nothing),
        cmocka_unit_test(test_memory_is_flat),
    };
    ct_log_set_level(CT_LOG_WARNING);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
