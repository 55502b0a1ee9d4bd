/* Runs every check of every op case on the CPU backend. CT_TEST_SEED sets another seed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "checks.h"
#include "cpu/cpu.h"
#include "cpu_tests.h"

/* An uneven number shows mistakes in splitting work; 1 is the plain case. */
enum { ONE_THREAD, THREE_THREADS, DEVICES };
static const int device_threads[DEVICES] = {1, 3};

/* Above this many operations in a forward pass, differences would take too long. */
#define DIFFERENCES_FLOPS 4e6

#define NAME_BYTES        128

typedef struct item {
    const ct_case *c;
    int device;
    char name[NAME_BYTES];
} item;

static ct_device *devices[DEVICES];
static uint64_t seed = 1;

static void test_differences(void **state)
{
    const item *i = *state;
    ct_check_finite_differences(i->c, seed);
}

static void test_device(void **state)
{
    const item *i = *state;
    ct_check_device(i->c, devices[i->device], seed);
}

static void test_torch(void **state)
{
    const item *i = *state;
    ct_check_torch(i->c, devices[i->device], seed);
}

static const ct_case_table *const tables[] = {
#define TABLE(name) &ct_cases_##name,
    CT_CASE_TABLES(TABLE)
#undef TABLE
};
#define TABLES (sizeof tables / sizeof *tables)

static const ct_case *all_cases[1024];
static int case_count;

static void test_torch_names(void **state)
{
    (void)state;
    ct_check_torch_names(all_cases, case_count);
}

static void test_unique_names(void **state)
{
    (void)state;
    for (int i = 0; i < case_count; i++)
        for (int j = 0; j < i; j++)
            if (!strcmp(all_cases[i]->name, all_cases[j]->name))
                fail_msg("two cases are named %s", all_cases[i]->name);
}

static int create_devices(void **state)
{
    (void)state;
    for (int i = 0; i < DEVICES; i++) {
        if (ct_cpu_device_create(device_threads[i], &devices[i]) != CT_OK) {
            fprintf(stderr, "%s\n", ct_error_message());
            return -1;
        }
    }
    return 0;
}

static int destroy_devices(void **state)
{
    (void)state;
    for (int i = 0; i < DEVICES; i++) ct_device_destroy(devices[i]);
    return 0;
}

static struct CMUnitTest *add(struct CMUnitTest *test, item *i, const char *what,
                              CMUnitTestFunction function)
{
    snprintf(i->name, sizeof i->name, "%s: %s", i->c->name, what);
    *test = (struct CMUnitTest){.name = i->name, .test_func = function, .initial_state = i};
    return test + 1;
}

/* Appends the case's checks, at most CHECKS of them, to tests and items. */
#define CHECKS 4
static int add_checks(const ct_case *c, struct CMUnitTest *tests, item *items)
{
    const ct_kind *kind = c->kind;
    struct CMUnitTest *next = tests;
    for (int i = 0; i < CHECKS; i++) items[i] = (item){.c = c};
    items[1].device = ONE_THREAD;
    items[2].device = THREE_THREADS;
    if (kind->ref_bwd && kind->flops(c->p, false) <= DIFFERENCES_FLOPS)
        next = add(next, &items[0], "reference, differences", test_differences);
    next = add(next, &items[1], "1 thread", test_device);
    next = add(next, &items[2], "3 threads", test_device);
    if (ct_torch_has(c->name)) next = add(next, &items[3], "PyTorch", test_torch);
    return (int)(next - tests);
}

int main(void)
{
    const char *text = getenv("CT_TEST_SEED");
    if (text) seed = strtoull(text, NULL, 10);
    printf("seed %llu\n", (unsigned long long)seed);
    for (size_t t = 0; t < TABLES; t++)
        for (int i = 0; i < tables[t]->count && case_count < 1024; i++)
            all_cases[case_count++] = &tables[t]->cases[i];

    struct CMUnitTest *tests = calloc((size_t)(CHECKS * case_count) + 2, sizeof *tests);
    item *items = calloc((size_t)(CHECKS * case_count) + 1, sizeof *items);
    if (!tests || !items) return EXIT_FAILURE;
    int count = 0;
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(test_unique_names);
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(test_torch_names);
    for (int i = 0; i < case_count; i++)
        count += add_checks(all_cases[i], tests + count, items + CHECKS * i);
    int failed =
        _cmocka_run_group_tests("ops", tests, (size_t)count, create_devices, destroy_devices);
    free(tests);
    free(items);
    failed += ct_run_cpu_tests();
    failed += ct_run_cpu_kernel_tests();
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
