/* simt_observe_only: launches are told, nothing runs, memory is only reserved. */
#include "runtime_support.h"

#include "simt/observe.h"

namespace
{

void launches_are_told_and_not_run(void **)
{
    expect_success({}, [] {
        static std::vector<std::string> told;
        simt_observe_only(
            [](const simt_launch *launch, void *) {
                told.push_back(std::string(launch->kernel) + " " + std::to_string(launch->grid[0]));
            },
            nullptr);
        char *memory, seen = 3;
        cudaStream_t stream;
        OK(cudaStreamCreate(&stream));
        OK(cudaMalloc((void **)&memory, (size_t)64 << 30)); /* more than there is */
        OK(cudaMemsetAsync(memory, 0, (size_t)64 << 30, stream));
        OK(launch(stream, [=] { *memory = 1; }));
        OK(simt::enqueue_library_call(stream, "product", [=] { *memory = 2; }));
        OK(cudaMemcpyAsync(&seen, memory, 1, cudaMemcpyDeviceToHost, stream));
        OK(cudaStreamSynchronize(stream));
        OK(cudaFree(memory));
        OK(cudaStreamDestroy(stream));
        CHECK(seen == 3 && told.size() == 2);
        CHECK(told[0].substr(told[0].size() - 2) == " 1" && told[1] == "product 0");
        return 0;
    });
}

} // namespace

int run_observe_tests()
{
    const CMUnitTest tests[] = {cmocka_unit_test(launches_are_told_and_not_run)};
    return cmocka_run_group_tests_name("simt_runtime_observe", tests, nullptr, nullptr);
}
