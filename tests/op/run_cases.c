#include "run_cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checks.h"

/* Above this many operations in a forward pass, differences would take too long. */
#define DIFFERENCES_FLOPS 4e6

#define NAME_BYTES        128

/* One test: a check of a case. */
typedef struct item {
    const ct_case *c;
    ct_device *device; /* NULL: none is needed */
    uint64_t seed;
    char name[NAME_BYTES];
} item;

typedef struct group {
    const ct_case **cases; /* all of them, whatever is selected */
    int case_count;
    struct CMUnitTest *tests;
    item *items;
    int count, capacity;
    uint64_t seed;
} group;

static void test_differences(void **state)
{
    const item *i = *state;
    ct_check_finite_differences(i->c, i->seed);
}

static void test_device(void **state)
{
    const item *i = *state;
    ct_check_device(i->c, i->device, i->seed);
}

static void test_torch(void **state)
{
    const item *i = *state;
    ct_check_torch(i->c, i->device, i->seed);
}

static void test_torch_names(void **state)
{
    const group *g = *state;
    ct_check_torch_names(g->cases, g->case_count);
}

static void test_unique_names(void **state)
{
    const group *g = *state;
    for (int i = 0; i < g->case_count; i++)
        for (int j = 0; j < i; j++)
            if (!strcmp(g->cases[i]->name, g->cases[j]->name))
                fail_msg("two cases are named %s", g->cases[i]->name);
}

static const ct_case_table *const tables[] = {
#define TABLE(name) &ct_cases_##name,
    CT_CASE_TABLES(TABLE)
#undef TABLE
};
#define TABLES (sizeof tables / sizeof *tables)

static bool list_cases(group *g)
{
    for (size_t t = 0; t < TABLES; t++) g->case_count += tables[t]->count;
    g->cases = calloc((size_t)g->case_count + 1, sizeof(*g->cases));
    if (!g->cases) return false;
    int at = 0;
    for (size_t t = 0; t < TABLES; t++)
        for (int i = 0; i < tables[t]->count; i++) g->cases[at++] = &tables[t]->cases[i];
    return true;
}

/* What the environment asks for. */
typedef struct selection {
    const char *text;
    int part, parts;
} selection;

static bool read_selection(selection *s)
{
    const char *shard = getenv("CT_TEST_SHARD");
    *s = (selection){.text = getenv("CT_TEST_CASES"), .part = 1, .parts = 1};
    if (!shard) return true;
    char rest;
    if (sscanf(shard, "%d/%d%c", &s->part, &s->parts, &rest) == 2 && s->part >= 1 &&
        s->part <= s->parts)
        return true;
    fprintf(stderr, "CT_TEST_SHARD: expected i/n with i from 1 to n, found \"%s\"\n", shard);
    return false;
}

static bool selected(const selection *s, const group *g, int number)
{
    if (number % s->parts != s->part - 1) return false;
    return !s->text || strstr(g->cases[number]->name, s->text);
}

static void add(group *g, const ct_case *c, ct_device *device, const char *label, const char *what,
                CMUnitTestFunction function)
{
    item *i = &g->items[g->count];
    *i = (item){.c = c, .device = device, .seed = g->seed};
    snprintf(i->name, sizeof i->name, "%s: %s%s%s", c->name, label, *label && *what ? ", " : "",
             what);
    g->tests[g->count++] =
        (struct CMUnitTest){.name = i->name, .test_func = function, .initial_state = i};
}

/* The case's checks. */
static void add_case(group *g, const ct_case *c, ct_device *const *devices,
                     const char *const *labels, int device_count, bool references)
{
    const ct_kind *kind = c->kind;
    if (references && kind->ref_bwd && kind->flops(c->p, false) <= DIFFERENCES_FLOPS)
        add(g, c, NULL, "", "reference, differences", test_differences);
    const bool torch = references && ct_torch_has(c->name);
    for (int d = 0; d < device_count; d++) {
        add(g, c, devices[d], labels[d], "", test_device);
        if (torch) add(g, c, devices[d], labels[d], "PyTorch", test_torch);
    }
}

static void add_name_checks(group *g)
{
    g->tests[g->count++] = (struct CMUnitTest){
        .name = "unique names", .test_func = test_unique_names, .initial_state = g};
    g->tests[g->count++] = (struct CMUnitTest){
        .name = "PyTorch's names", .test_func = test_torch_names, .initial_state = g};
}

static bool make_room(group *g, int device_count)
{
    const size_t most = (size_t)(g->case_count * (2 * device_count + 1) + 2);
    g->tests = calloc(most, sizeof *g->tests);
    g->items = calloc(most, sizeof *g->items);
    return g->tests && g->items;
}

int ct_run_op_cases(const char *name, ct_device *const *devices, const char *const *labels,
                    int device_count, bool references)
{
    const char *seed = getenv("CT_TEST_SEED");
    group g = {.seed = seed ? strtoull(seed, NULL, 10) : 1};
    selection s;
    int failed = 1;
    if (!read_selection(&s)) return failed;
    if (!list_cases(&g) || !make_room(&g, device_count)) {
        fprintf(stderr, "out of memory for the list of cases\n");
        goto done;
    }
    printf("seed %llu\n", (unsigned long long)g.seed);
    if (references) add_name_checks(&g);
    for (int i = 0; i < g.case_count; i++)
        if (selected(&s, &g, i))
            add_case(&g, g.cases[i], devices, labels, device_count, references);
    failed = _cmocka_run_group_tests(name, g.tests, (size_t)g.count, NULL, NULL);
done:
    free(g.cases);
    free(g.tests);
    free(g.items);
    return failed;
}
