#include "cpu/cpu.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int affinity_count(void)
{
    cpu_set_t set;
    /* Fails on machines with more processors than cpu_set_t has bits. */
    int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                            : (int)sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? count : 1;
}

/* Lowers *count to the quota in `folder`'s cpu.max ("<quota or max> <period>"; cgroup v2). */
static void apply_quota(const char *folder, int *count)
{
    char path[4224];
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", folder);
    FILE *file = fopen(path, "re");
    if (!file) return;
    double quota, period;
    if (fscanf(file, "%lf %lf", &quota, &period) == 2 && quota > 0 && period > 0) {
        int whole = (int)((quota + period - 1) / period);
        if (whole >= 1 && whole < *count) *count = whole;
    }
    fclose(file);
}

/* The same for cgroup v1's single pair of files, as containers see it. */
static void apply_quota_v1(int *count)
{
    double value[2];
    static const char *const paths[] = {"/sys/fs/cgroup/cpu/cpu.cfs_quota_us",
                                        "/sys/fs/cgroup/cpu/cpu.cfs_period_us"};
    for (int i = 0; i < 2; i++) {
        FILE *file = fopen(paths[i], "re");
        if (!file) return;
        int found = fscanf(file, "%lf", &value[i]);
        fclose(file);
        if (found != 1 || value[i] <= 0) return; /* a quota of -1: none */
    }
    int whole = (int)((value[0] + value[1] - 1) / value[1]);
    if (whole >= 1 && whole < *count) *count = whole;
}

/* A limit holds for all groups below it: look at our group and at every one above. */
static void apply_quotas(int *count)
{
    char line[4096];
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (!file) return;
    while (fgets(line, sizeof line, file)) {
        if (strncmp(line, "0::/", 4) != 0) continue;
        char *folder = line + 3;
        folder[strcspn(folder, "\n")] = '\0';
        for (char *slash; (slash = strrchr(folder, '/')); *slash = '\0') apply_quota(folder, count);
    }
    fclose(file);
    apply_quota("", count);
    apply_quota_v1(count);
}

int ct_cpu_count(void)
{
    int count = affinity_count();
    apply_quotas(&count);
    return count;
}
