/* The GPU backend's transfers (cuda/staging.h) under many orders of its two streams: what
 * operations see of an upload, and the host of a download, is what the order of the calls says. */
#include "runtime_support.h"

extern "C" {
#include "cuda/cuda.h"
}

#include <vector>

namespace
{

constexpr int SEEDS = 24;
constexpr size_t SMALL_SLOT = 64 << 10, LARGE_SLOT = 8 << 20; /* bytes: a ring's slots */

#define DONE(call) CHECK((call) == CT_OK)

ct_device *new_device()
{
    ct_cuda_options options = {};
    ct_device *device;
    DONE(ct_cuda_device_create(&options, &device));
    return device;
}

void under_all_seeds(const std::function<int()> &body)
{
    for (int seed = 1; seed <= SEEDS; seed++)
        expect_success({{"CT_SIMT_SEED", std::to_string(seed)}}, body);
}

/* A number of upload `step`, place i: small whole numbers, of which sums are exact. */
float number(int step, size_t i)
{
    return (float)((i * 7 + (size_t)step * 1013) % 4096);
}

/* `uploads` go into one tensor, one after the other, and each is added to a sum before the next:
 * the sum misses none and has none twice. */
int sum_of_uploads(size_t count, int uploads)
{
    ct_device *device = new_device();
    const ct_backend *backend = device->backend;
    const size_t bytes = count * sizeof(float);
    ct_tensor x = ct_tensor1(nullptr, CT_F32, (int64_t)count), sum = x;
    DONE(backend->alloc(device, bytes, "a test", &x.data));
    DONE(backend->alloc(device, bytes, "a test", &sum.data));
    std::vector<float> host(count), expected(count), seen(count);
    for (int step = 0; step < uploads; step++) {
        for (size_t i = 0; i < count; i++) host[i] = number(step, i);
        for (size_t i = 0; i < count; i++) expected[i] += host[i];
        DONE(backend->upload(device, x.data, host.data(), bytes));
        const ct_add_args args = {sum, sum, x};
        DONE(backend->add(device, &args));
        host.assign(count, -1.0f); /* it is the caller's again */
    }
    DONE(backend->download(device, seen.data(), sum.data, bytes));
    backend->free(device, x.data);
    backend->free(device, sum.data);
    ct_device_destroy(device);
    return seen == expected ? 0 : 1;
}

void large_uploads_keep_their_place(void **)
{
    under_all_seeds([] { return sum_of_uploads(SMALL_SLOT / sizeof(float) + 1, 6); });
}

void small_uploads_keep_their_place(void **)
{
    under_all_seeds([] { return sum_of_uploads(5, 150); }); /* more than the ring has slots */
}

/* There and back; the second upload overwrites the first. */
int there_and_back(size_t bytes)
{
    ct_device *device = new_device();
    const ct_backend *backend = device->backend;
    void *memory;
    DONE(backend->alloc(device, bytes, "a test", &memory));
    std::vector<char> first(bytes), second(bytes), seen(bytes);
    for (size_t i = 0; i < bytes; i++) {
        first[i] = (char)(i % 251);
        second[i] = (char)(i % 241);
    }
    DONE(backend->upload(device, memory, first.data(), bytes));
    DONE(backend->upload(device, memory, second.data(), bytes));
    DONE(backend->download(device, seen.data(), memory, bytes));
    backend->free(device, memory);
    ct_device_destroy(device);
    return seen == second ? 0 : 1;
}

void transfers_in_pieces_arrive_whole(void **)
{
    under_all_seeds([] { return there_and_back(2 * LARGE_SLOT + 12345); });
}

void transfers_of_one_slot_arrive_whole(void **)
{
    for (size_t bytes : {(size_t)1, SMALL_SLOT, SMALL_SLOT + 1, LARGE_SLOT})
        expect_success({}, [bytes] { return there_and_back(bytes); });
}

} // namespace

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(large_uploads_keep_their_place),
        cmocka_unit_test(small_uploads_keep_their_place),
        cmocka_unit_test(transfers_in_pieces_arrive_whole),
        cmocka_unit_test(transfers_of_one_slot_arrive_whole),
    };
    return cmocka_run_group_tests_name("staging on the SIMT device", tests, nullptr, nullptr);
}
