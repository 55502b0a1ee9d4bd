#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "engine_tests.h"

void test_failed(const char *file, int line, const char *expression)
{
    fprintf(stderr, "%s:%d: not true: %s\n", file, line, expression);
    _exit(1);
}

namespace
{

constexpr int seeds = 8;

/* Runs the test in a child; *status is its exit status, the result what it wrote to stderr. */
std::string run_child(const Test &test, int seed, int *status)
{
    int pipes[2];
    if (pipe(pipes) != 0) abort();
    const pid_t child = fork();
    if (child == 0) {
        dup2(pipes[1], 2);
        close(pipes[0]);
        close(pipes[1]);
        setenv("CT_SIMT_SEED", std::to_string(seed).c_str(), 1);
        test.run();
        _exit(0);
    }
    close(pipes[1]);
    std::string text;
    char buffer[4096];
    for (ssize_t n; (n = read(pipes[0], buffer, sizeof buffer)) > 0;)
        text.append(buffer, (size_t)n);
    close(pipes[0]);
    waitpid(child, status, 0);
    return text;
}

bool passes(const Test &test, int seed)
{
    int status;
    const std::string text = run_child(test, seed, &status);
    const int wanted = test.fault ? simt::SIMT_FAULT_EXIT : 0;
    const bool ended = WIFEXITED(status) && WEXITSTATUS(status) == wanted;
    if (ended && (!test.fault || text.find(test.fault) != std::string::npos)) return true;
    printf("FAILED %s, seed %d: status 0x%x, wanted exit %d%s%s; it wrote:\n%s\n", test.name, seed,
           status, wanted, test.fault ? " and " : "", test.fault ? test.fault : "", text.c_str());
    return false;
}

} // namespace

int main(int argc, char **argv)
{
    int run = 0, failed = 0, skipped = 0;
    for (const auto *tests : {&barrier_tests, &warp_tests, &shared_tests, &device_tests, &mma_tests,
                              &async_tests, &launch_tests}) {
        for (const Test &test : *tests) {
            if (argc > 1 && !strstr(test.name, argv[1])) continue;
#if !defined(CT_SIMT_CHECKED)
            if (test.by_checker) {
                skipped++;
                continue;
            }
#endif
            bool good = true;
            for (int seed = 1; good && seed <= seeds; seed++) good = passes(test, seed);
            run++;
            failed += !good;
        }
    }
    printf("%d tests, %d failed, %d skipped (they need the checker)\n", run, failed, skipped);
    return failed != 0;
}
