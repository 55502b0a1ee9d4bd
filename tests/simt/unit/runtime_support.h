/* The runtime is tested in child processes: the environment is read once, faults end the process,
 * and leaks are looked for at its end. */
#ifndef CT_TESTS_SIMT_UNIT_RUNTIME_SUPPORT_H
#define CT_TESTS_SIMT_UNIT_RUNTIME_SUPPORT_H

#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

extern "C" {
#include <cmocka.h>
}

#include <cuda_runtime_api.h>

#include "simt/simt.h"

struct Ending {
    int status;         /* exit status; 1000 + signal when one ended it */
    std::string errors; /* what it wrote to standard error */

    bool says(const char *text) const { return errors.find(text) != std::string::npos; }
};

using Environment = std::vector<std::pair<const char *, std::string>>;

/* Runs `body` in a child; it exits with what body returns, by exit(). */
Ending in_child(const Environment &environment, const std::function<int()> &body);

/* The child must end well. */
void expect_success(const Environment &environment, const std::function<int()> &body);
/* The child must end by a fault whose report contains `text`. */
void expect_fault(const char *text, const std::function<int()> &body);

/* In a child: report the line and exit with 1 unless the condition holds. */
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) child_failed(#condition, __FILE__, __LINE__);                            \
    } while (0)
#define CHECK_CUDA(call, expected) CHECK((call) == (expected))
#define OK(call)                   CHECK((call) == cudaSuccess)
[[noreturn]] void child_failed(const char *condition, const char *file, int line);

/* Work on the device: a grid of one thread. */
cudaError_t launch(cudaStream_t stream, std::function<void()> work);

/* Each file's tests. */
int run_stream_tests();
int run_graph_tests();
int run_memory_tests();
int run_injection_tests();
int run_cublaslt_tests();
int run_observe_tests();

#endif
