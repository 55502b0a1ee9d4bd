#include "runtime_support.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

Ending in_child(const Environment &environment, const std::function<int()> &body)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fflush(nullptr);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        for (const auto &variable : environment) setenv(variable.first, variable.second.c_str(), 1);
        exit(body());
    }
    close(ends[1]);
    Ending ending = {0, ""};
    char buffer[1024];
    for (ssize_t count; (count = read(ends[0], buffer, sizeof buffer)) > 0;)
        ending.errors.append(buffer, (size_t)count);
    close(ends[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    ending.status = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    return ending;
}

void expect_success(const Environment &environment, const std::function<int()> &body)
{
    Ending ending = in_child(environment, body);
    if (ending.status != 0) fail_msg("status %d: %s", ending.status, ending.errors.c_str());
}

void expect_fault(const char *text, const std::function<int()> &body)
{
    Ending ending = in_child({}, body);
    if (ending.status != simt::SIMT_FAULT_EXIT || !ending.says("SIMT fault:") || !ending.says(text))
        fail_msg("expected a fault with \"%s\"; status %d: %s", text, ending.status,
                 ending.errors.c_str());
}

void child_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "%s:%d: %s\n", file, line, condition);
    _exit(1);
}

cudaError_t launch(cudaStream_t stream, std::function<void()> work)
{
    simt::Grid grid = {dim3(1), dim3(1), 0, (const void *)&launch, std::move(work)};
    return simt::enqueue_kernel(stream, std::move(grid));
}
