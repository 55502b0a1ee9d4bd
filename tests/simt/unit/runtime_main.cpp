#include "runtime_support.h"

int main()
{
    return run_stream_tests() + run_graph_tests() + run_memory_tests() + run_injection_tests() +
           run_cublaslt_tests() + run_observe_tests();
}
