/* Threads, waiting, memory. */
#include "support.h"

#include <dirent.h>
#include <malloc.h>
#include <string.h>

#include "base/clock.h"

static void destroying_in_the_midst_is_fine(void **state)
{
    world w;
    (void)state;
    world_init(&w);
    for (int i = 0; i < 30; i++) {
        ct_loader *loader = start_training(&w, 1 + i % 4, 2 + i % 3, i);
        for (int step = 0; step < i % 5; step++) next_batch(loader);
        ct_loader_destroy(loader);
        loader = start_evaluation(&w, 1 + i % 4, 2);
        if (i & 1) next_batch(loader);
        ct_loader_destroy(loader);
    }
    ct_loader_destroy(NULL);
}

static void waiting_is_accounted(void **state)
{
    world w;
    (void)state;
    world_init(&w);
    double began = ct_clock_seconds();
    ct_loader *loader = start_training(&w, 1, 2, 0);
    assert_float_equal(ct_loader_get_stats(loader).wait_seconds, 0.0, 0.0);
    for (int step = 0; step < 20; step++) next_batch(loader);
    double waited = ct_loader_get_stats(loader).wait_seconds;
    assert_true(waited > 0.0 && waited <= ct_clock_seconds() - began);
    ct_loader_destroy(loader);
}

/* Number of this process's threads named ct-loader-*; each must block signals. */
static int loader_threads(void)
{
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");
    assert_non_null(tasks);
    for (struct dirent *entry; (entry = readdir(tasks));) {
        char path[64 + sizeof entry->d_name], line[256];
        unsigned long long blocked = 0;
        bool ours = false;
        snprintf(path, sizeof path, "/proc/self/task/%s/status", entry->d_name);
        FILE *file = entry->d_name[0] == '.' ? NULL : fopen(path, "r");
        if (!file) continue;
        while (fgets(line, sizeof line, file)) {
            if (strncmp(line, "Name:\tct-loader-", 16) == 0) ours = true;
            sscanf(line, "SigBlk: %llx", &blocked);
        }
        fclose(file);
        if (!ours) continue;
        count++;
        assert_int_equal(blocked & 0x4007, 0x4007); /* HUP, INT, QUIT, TERM */
    }
    closedir(tasks);
    return count;
}

static void workers_are_named_and_block_signals(void **state)
{
    world w;
    (void)state;
    world_init(&w);
    ct_loader *loader = start_training(&w, 5, 2, 0);
    next_batch(loader);
    assert_int_equal(loader_threads(), 5);
    ct_loader_destroy(loader);
    assert_int_equal(loader_threads(), 0);
    loader = start_training(&w, 0, 2, 0); /* as many as compute threads */
    next_batch(loader);
    assert_int_equal(loader_threads(), 2);
    ct_loader_destroy(loader);
}

/* Bytes in use after some epochs, and after many more: a photo in the making may come on top. */
static void memory_does_not_grow(void **state)
{
    const size_t photo_bytes = 256 * 1024;
    world w;
    (void)state;
    world_init(&w);
    ct_loader *loader = start_training(&w, 2, 3, 0);
    for (int step = 0; step < 50; step++) next_batch(loader);
    size_t before = mallinfo2().uordblks;
    for (int step = 0; step < 500; step++) next_batch(loader);
    size_t after = mallinfo2().uordblks;
    if (after > before + 2 * photo_bytes)
        fail_msg("%zu bytes in use after 50 steps, %zu after 550", before, after);
    ct_loader_destroy(loader);
}

int run_thread_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(destroying_in_the_midst_is_fine),
        cmocka_unit_test(waiting_is_accounted),
        cmocka_unit_test(workers_are_named_and_block_signals),
        cmocka_unit_test(memory_does_not_grow),
    };
    return cmocka_run_group_tests_name("threads", tests, NULL, NULL);
}
