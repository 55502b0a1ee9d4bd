/* The GPU backend's communicator (cuda/nccl.c) on the SIMT device: every entry against plain
 * arithmetic, overlap, recording, and aborts. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cuda/cuda.h"
#include "ranks.h"

/* In a child. */
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)
#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != CT_OK) {                                                                     \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, ct_error_message());     \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

enum { COUNT = 600 };

typedef struct job {
    int rank, size;
    ct_device *device;
    ct_comm *comm;
} job;

static job join_with(int rank, int size, bool graphs, double timeout_seconds)
{
    job j = {.rank = rank, .size = size};
    char id[CT_NCCL_ID_BYTES];
    OK(ct_cuda_device_create(&(ct_cuda_options){.gpu = rank, .graphs = graphs}, &j.device));
    if (rank == 0) OK(ct_cuda_nccl_id(id));
    ranks_broadcast(rank, id, sizeof id);
    OK(ct_cuda_comm_create(j.device, id, rank, size, timeout_seconds, &j.comm));
    CHECK(ct_comm_rank(j.comm) == rank && ct_comm_size(j.comm) == size);
    return j;
}

static int leave(job *j)
{
    ct_comm_destroy(j->comm);
    ct_device_destroy(j->device);
    return 0;
}

static ct_tensor make(const job *j, ct_dtype dtype, int64_t rows, int64_t columns)
{
    ct_tensor t = ct_tensor2(NULL, dtype, rows, columns);
    OK(j->device->backend->alloc(j->device, ct_tensor_bytes(&t), "test", &t.data));
    return t;
}

static void drop(const job *j, ct_tensor *t)
{
    j->device->backend->free(j->device, t->data);
}

/* A value that f32, bf16 and i32 hold exactly, and sums of a few of them too. */
static int value_of(int rank, int64_t i)
{
    return (int)((i * 7 + rank * 3) % 16);
}

static void put(ct_dtype dtype, void *data, int64_t i, int value)
{
    const float number = (float)value;
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    if (dtype == CT_I32) ((int32_t *)data)[i] = value;
    else if (dtype == CT_F32) ((float *)data)[i] = number;
    else ((uint16_t *)data)[i] = (uint16_t)(bits >> 16);
}

static int get(ct_dtype dtype, const void *data, int64_t i)
{
    if (dtype == CT_I32) return ((const int32_t *)data)[i];
    if (dtype == CT_F32) return (int)((const float *)data)[i];
    const uint32_t bits = (uint32_t)((const uint16_t *)data)[i] << 16;
    float number;
    memcpy(&number, &bits, sizeof number);
    return (int)number;
}

/* Element i = value_of(rank, first + i) + more. */
static void fill(const job *j, const ct_tensor *t, int rank, int64_t first, int more)
{
    uint32_t host[COUNT * RANKS_MOST];
    for (int64_t i = 0; i < ct_tensor_count(t); i++)
        put(t->dtype, host, i, value_of(rank, first + i) + more);
    OK(j->device->backend->upload(j->device, t->data, host, ct_tensor_bytes(t)));
}

typedef int expected_at(const job *j, int64_t i);

static bool equals(const job *j, const ct_tensor *t, expected_at *expected)
{
    uint32_t host[COUNT * RANKS_MOST];
    OK(j->device->backend->download(j->device, host, t->data, ct_tensor_bytes(t)));
    for (int64_t i = 0; i < ct_tensor_count(t); i++)
        if (get(t->dtype, host, i) != expected(j, i)) {
            fprintf(stderr, "rank %d: element %lld is %d, expected %d\n", j->rank, (long long)i,
                    get(t->dtype, host, i), expected(j, i));
            return false;
        }
    return true;
}

static int expect_gathered(const job *j, int64_t i)
{
    (void)j;
    return value_of((int)(i / COUNT), i % COUNT);
}

/* Row r of the result is row `rank` of rank r's. */
static int expect_exchanged(const job *j, int64_t i)
{
    return value_of((int)(i / COUNT), j->rank * COUNT + i % COUNT);
}

static int expect_sum(const job *j, int64_t i)
{
    int sum = 0;
    for (int rank = 0; rank < j->size; rank++) sum += value_of(rank, i);
    return sum;
}

static int expect_part(const job *j, int64_t i)
{
    return expect_sum(j, j->rank * COUNT + i);
}

/* ---- every entry --------------------------------------------------------------------------- */

static void gathers_and_exchanges(const job *j, ct_dtype dtype)
{
    ct_tensor own = make(j, dtype, 1, COUNT), all = make(j, dtype, j->size, COUNT);
    ct_tensor other = make(j, dtype, j->size, COUNT);
    fill(j, &own, j->rank, 0, 0);
    OK(ct_comm_all_gather(j->comm, &all, &own));
    CHECK(equals(j, &all, expect_gathered));

    const ct_tensor part = ct_tensor_rows(&other, j->rank, 1);
    fill(j, &part, j->rank, 0, 0);
    OK(ct_comm_all_gather(j->comm, &other, &part));
    CHECK(equals(j, &other, expect_gathered));

    fill(j, &all, j->rank, 0, 0);
    OK(ct_comm_all_to_all(j->comm, &other, &all));
    CHECK(equals(j, &other, expect_exchanged));
    drop(j, &own);
    drop(j, &all);
    drop(j, &other);
}

static void reductions(const job *j, ct_dtype dtype)
{
    ct_tensor a = make(j, dtype, 1, COUNT), b = make(j, dtype, 1, COUNT);
    ct_tensor whole = make(j, dtype, j->size, COUNT), in_place = make(j, dtype, j->size, COUNT);
    ct_tensor part = make(j, dtype, 1, COUNT);
    const uint64_t before = j->comm->stats.bytes_reduced;
    fill(j, &a, j->rank, 0, 0);
    OK(ct_comm_all_reduce(j->comm, &a));
    CHECK(equals(j, &a, expect_sum));

    fill(j, &a, j->rank, 0, 0);
    OK(ct_comm_all_reduce_start(j->comm, &a));
    fill(j, &b, j->rank, 0, 0);
    OK(ct_comm_all_reduce_start(j->comm, &b));
    fill(j, &whole, j->rank, 0, 0);
    OK(ct_comm_reduce_scatter_start(j->comm, &part, &whole));
    fill(j, &in_place, j->rank, 0, 0);
    const ct_tensor own = ct_tensor_rows(&in_place, j->rank, 1);
    OK(ct_comm_reduce_scatter_start(j->comm, &own, &in_place));
    OK(ct_comm_finish(j->comm));
    CHECK(equals(j, &a, expect_sum) && equals(j, &b, expect_sum));
    CHECK(equals(j, &part, expect_part) && equals(j, &own, expect_part));

    const uint64_t bytes = (3 + 2 * (uint64_t)j->size) * COUNT * ct_dtype_bytes(dtype);
    CHECK(j->comm->stats.bytes_reduced - before == bytes);
    CHECK(j->comm->stats.exposed_seconds > 0);
    ct_tensor *const all[] = {&a, &b, &whole, &in_place, &part};
    for (int i = 0; i < 5; i++) drop(j, all[i]);
}

static void host_gathers(const job *j)
{
    enum { LARGE = 150000 };
    static uint8_t from[LARGE], to[RANKS_MOST * LARGE];
    const size_t sizes[] = {1, 37, LARGE};
    ct_tensor x = make(j, CT_F32, 1, COUNT);
    for (size_t s = 0; s < 3; s++) {
        const size_t bytes = sizes[s];
        OK(ct_comm_all_reduce_start(j->comm, &x)); /* stays under way */
        for (size_t i = 0; i < bytes; i++) from[i] = (uint8_t)(i * 31 + (size_t)j->rank);
        OK(ct_comm_gather_host(j->comm, to, from, bytes));
        for (int rank = 0; rank < j->size; rank++)
            for (size_t i = 0; i < bytes; i++)
                CHECK(to[(size_t)rank * bytes + i] == (uint8_t)(i * 31 + (size_t)rank));
        OK(ct_comm_finish(j->comm));
    }
    drop(j, &x);
}

static int run_every_entry(int rank, int size, const void *context)
{
    (void)context;
    job j = join_with(rank, size, false, 20);
    const ct_dtype dtypes[] = {CT_F32, CT_BF16, CT_I32};
    for (int d = 0; d < 3; d++) gathers_and_exchanges(&j, dtypes[d]);
    for (int d = 0; d < 2; d++) reductions(&j, dtypes[d]);
    host_gathers(&j);
    return leave(&j);
}

static void every_entry_is_what_it_says(void **state)
{
    (void)state;
    for (int size = 2; size <= 4; size++)
        for (unsigned seed = 1; seed <= 4; seed++)
            ranks_expect_success(
                &(ranks_options){.size = size, .seed = seed, .delay_us = seed % 2 ? 0 : 400},
                run_every_entry, NULL);
}

/* ---- beside computing ---------------------------------------------------------------------- */

static void add(const job *j, const ct_tensor *y, const ct_tensor *a, const ct_tensor *b)
{
    OK(j->device->backend->add(j->device, &(ct_add_args){.y = *y, .a = *a, .b = *b}));
}

static int expect_step(const job *j, int64_t i)
{
    return 4 * expect_sum(j, i);
}

/* Two reductions of what kernels have just written, beside more kernels, then a use of both. */
static void step(const job *j, ct_tensor t[4], bool finish)
{
    const ct_tensor *x = &t[0], *a = &t[1], *b = &t[2], *y = &t[3];
    add(j, a, x, x);
    OK(ct_comm_all_reduce_start(j->comm, a));
    add(j, b, x, x);
    OK(ct_comm_all_reduce_start(j->comm, b));
    add(j, y, x, x);
    if (finish) OK(ct_comm_finish(j->comm));
    add(j, y, a, b);
}

static int run_overlap(int rank, int size, const void *context)
{
    const bool finish = *(const bool *)context;
    job j = join_with(rank, size, false, 20);
    ct_tensor t[4];
    for (int i = 0; i < 4; i++) t[i] = make(&j, CT_F32, 1, COUNT);
    bool right = true;
    for (int repeat = 0; repeat < 3; repeat++) {
        fill(&j, &t[0], rank, 0, 0);
        step(&j, t, finish);
        right = equals(&j, &t[3], expect_step) && right;
        OK(ct_comm_finish(j.comm));
    }
    for (int i = 0; i < 4; i++) drop(&j, &t[i]);
    leave(&j);
    return right ? 0 : 1;
}

static void started_reductions_run_beside_kernels(void **state)
{
    (void)state;
    enum { SEEDS = 8 };
    int wrong = 0;
    for (unsigned seed = 1; seed <= SEEDS; seed++) {
        const ranks_options options = {.size = 2, .seed = seed, .delay_us = 200};
        ranks_ending endings[RANKS_MOST];
        ranks_expect_success(&options, run_overlap, &(bool){true});
        ranks_run(&options, run_overlap, &(bool){false}, endings);
        wrong += endings[0].status == 1 || endings[1].status == 1;
    }
    assert_true(wrong >= SEEDS / 4); /* without the wait */
}

/* ---- recorded ------------------------------------------------------------------------------ */

typedef struct recorded {
    job *j;
    ct_tensor x, a, b, y, parts, part, all;
} recorded;

static ct_status recorded_body(void *context)
{
    recorded *r = context;
    const ct_backend *backend = r->j->device->backend;
    ct_comm *comm = r->j->comm;
    CT_TRY(ct_comm_all_gather(comm, &r->all, &r->x));
    CT_TRY(backend->add(r->j->device, &(ct_add_args){.y = r->a, .a = r->x, .b = r->x}));
    CT_TRY(ct_comm_all_reduce_start(comm, &r->a));
    CT_TRY(ct_comm_all_to_all(comm, &r->parts, &r->all));
    CT_TRY(backend->add(r->j->device, &(ct_add_args){.y = r->b, .a = r->x, .b = r->x}));
    CT_TRY(ct_comm_reduce_scatter_start(comm, &r->part, &r->parts));
    CT_TRY(ct_comm_all_reduce_start(comm, &r->b));
    CT_TRY(ct_comm_finish(comm));
    return backend->add(r->j->device, &(ct_add_args){.y = r->y, .a = r->a, .b = r->b});
}

static int run_recorded(int rank, int size, const void *context)
{
    job j = join_with(rank, size, *(const bool *)context, 20);
    recorded r = {.j = &j,
                  .x = make(&j, CT_F32, 1, COUNT),
                  .a = make(&j, CT_F32, 1, COUNT),
                  .b = make(&j, CT_F32, 1, COUNT),
                  .y = make(&j, CT_F32, 1, COUNT),
                  .parts = make(&j, CT_F32, size, COUNT),
                  .part = make(&j, CT_F32, 1, COUNT),
                  .all = make(&j, CT_F32, size, COUNT)};
    const uint64_t bytes = (2 + (uint64_t)size) * COUNT * sizeof(float);
    for (uint64_t run = 0; run < 8; run++) {
        const uint64_t before = j.comm->stats.bytes_reduced;
        fill(&j, &r.x, rank, 0, 0);
        OK(j.device->backend->replay(j.device, 1 + run % 2, recorded_body, &r));
        CHECK(equals(&j, &r.y, expect_step));
        CHECK(equals(&j, &r.all, expect_gathered));
        CHECK(equals(&j, &r.part, expect_sum)); /* of what all ranks sent for this one's row */
        CHECK(j.comm->stats.bytes_reduced - before == bytes);
    }
    ct_tensor *const tensors[] = {&r.x, &r.a, &r.b, &r.y, &r.parts, &r.part, &r.all};
    ct_comm_destroy(j.comm); /* while there are graphs */
    for (int i = 0; i < 7; i++) drop(&j, tensors[i]);
    ct_device_destroy(j.device);
    return 0;
}

static void recorded_steps_hold_collectives(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 4; seed++)
        for (int size = 2; size <= 3; size++)
            for (int graphs = 0; graphs < 2; graphs++)
                ranks_expect_success(&(ranks_options){.size = size, .seed = seed, .delay_us = 100},
                                     run_recorded, &(bool){graphs});
}

/* ---- failures ------------------------------------------------------------------------------ */

static void *abort_soon(void *comm)
{
    usleep(150000);
    ct_comm_abort(comm);
    ct_comm_abort(comm);
    return NULL;
}

static bool says(ct_status status, const char *text)
{
    if (status == CT_ERR_DEVICE && strstr(ct_error_message(), text)) return true;
    fprintf(stderr, "status %d: %s\n", status, ct_error_message());
    return false;
}

/* What a rank does while another one dies: waits for the device. */
static void wait_in_vain(const job *j, const recorded *r, bool replayed)
{
    float host[COUNT];
    const ct_backend *backend = j->device->backend;
    pthread_t watcher;
    pthread_create(&watcher, NULL, abort_soon, j->comm);
    if (replayed) OK(backend->replay(j->device, 1, recorded_body, (void *)r));
    else if (ct_comm_all_reduce(j->comm, &r->x) != CT_OK) /* so soon? */
        CHECK(says(CT_ERR_DEVICE, "remote process exited") && usleep(300000) == 0);
    if (j->rank == 0)
        CHECK(says(backend->download(j->device, host, r->x.data, sizeof host), "job was aborted"));
    else CHECK(says(backend->synchronize(j->device), "job was aborted"));
    pthread_join(watcher, NULL);
    CHECK(says(ct_comm_all_reduce(j->comm, &r->x), "job was aborted"));
    CHECK(says(ct_comm_all_reduce_start(j->comm, &r->x), "job was aborted"));
    CHECK(says(ct_comm_gather_host(j->comm, host, host, 1), "job was aborted"));
    CHECK(says(backend->replay(j->device, 1, recorded_body, (void *)r), "job was aborted"));
}

/* The last rank is killed before the last operation. */
static int run_aborted(int rank, int size, const void *context)
{
    const bool replayed = *(const bool *)context;
    job j = join_with(rank, size, replayed, 20);
    recorded r = {.j = &j,
                  .x = make(&j, CT_F32, 1, COUNT),
                  .a = make(&j, CT_F32, 1, COUNT),
                  .b = make(&j, CT_F32, 1, COUNT),
                  .y = make(&j, CT_F32, 1, COUNT),
                  .parts = make(&j, CT_F32, size, COUNT),
                  .part = make(&j, CT_F32, 1, COUNT),
                  .all = make(&j, CT_F32, size, COUNT)};
    for (int run = 0; run < 3; run++) OK(j.device->backend->replay(j.device, 1, recorded_body, &r));
    OK(j.device->backend->synchronize(j.device));
    if (rank == size - 1) kill(getpid(), SIGKILL);
    wait_in_vain(&j, &r, replayed);
    ct_tensor *const tensors[] = {&r.x, &r.a, &r.b, &r.y, &r.parts, &r.part, &r.all};
    ct_comm_destroy(j.comm);
    for (int i = 0; i < 7; i++) drop(&j, tensors[i]);
    ct_device_destroy(j.device);
    return 0;
}

static void an_abort_ends_every_wait(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 3; seed++)
        for (int size = 2; size <= 3; size++)
            for (int replayed = 0; replayed < 2; replayed++) {
                ranks_ending endings[RANKS_MOST];
                ranks_run(&(ranks_options){.size = size, .seed = seed}, run_aborted,
                          &(bool){replayed}, endings);
                for (int rank = 0; rank < size - 1; rank++)
                    if (endings[rank].status != 0)
                        fail_msg("rank %d of %d: status %d: %s", rank, size, endings[rank].status,
                                 endings[rank].errors);
            }
}

/* The last rank never comes. */
static int run_alone(int rank, int size, const void *context)
{
    (void)context;
    if (rank == size - 1) return 0;
    ct_device *device;
    ct_comm *comm = NULL;
    char id[CT_NCCL_ID_BYTES];
    OK(ct_cuda_device_create(&(ct_cuda_options){.gpu = rank}, &device));
    if (rank == 0) OK(ct_cuda_nccl_id(id));
    ranks_broadcast(rank, id, sizeof id);
    const ct_status status = ct_cuda_comm_create(device, id, rank, size, 0.3, &comm);
    CHECK(says(status, "not all 3 ranks came within 0.3 seconds") ||
          (rank == 1 && says(status, "rank 0 is gone"))); /* it gave up first */
    CHECK(!comm);
    ct_device_destroy(device);
    return 0;
}

static int run_on_one_gpu(int rank, int size, const void *context)
{
    (void)context;
    ct_device *device;
    ct_comm *comm = NULL;
    char id[CT_NCCL_ID_BYTES];
    OK(ct_cuda_device_create(&(ct_cuda_options){.gpu = 1}, &device));
    if (rank == 0) OK(ct_cuda_nccl_id(id));
    ranks_broadcast(rank, id, sizeof id);
    CHECK(says(ct_cuda_comm_create(device, id, rank, size, 20, &comm), "Duplicate GPU"));
    ct_device_destroy(device);
    return 0;
}

static void ranks_that_cannot_meet_get_a_message(void **state)
{
    (void)state;
    ranks_expect_success(&(ranks_options){.size = 3, .seed = 1}, run_alone, NULL);
    ranks_expect_success(&(ranks_options){.size = 2, .seed = 1}, run_on_one_gpu, NULL);
}

/* The k-th call of a library, or of any kind, fails on rank 1: an error there, an abort elsewhere.
 */
static int run_injected(int rank, int size, const void *context)
{
    char number[16];
    snprintf(number, sizeof number, "%d", *(const int *)context);
    if (rank == 1) setenv("CT_SIMT_FAIL", number, 1);
    ct_device *device = NULL;
    ct_comm *comm = NULL;
    char id[CT_NCCL_ID_BYTES] = "";
    if (rank == 0) OK(ct_cuda_nccl_id(id));
    ranks_broadcast(rank, id, sizeof id);
    ct_status status = ct_cuda_device_create(&(ct_cuda_options){.gpu = rank}, &device);
    if (status == CT_OK) status = ct_cuda_comm_create(device, id, rank, size, 0.5, &comm);
    ct_tensor x = ct_tensor1(NULL, CT_F32, COUNT);
    if (status == CT_OK)
        status = device->backend->alloc(device, ct_tensor_bytes(&x), "test", &x.data);
    pthread_t watcher;
    const bool watched = comm && pthread_create(&watcher, NULL, abort_soon, comm) == 0;
    float host[COUNT];
    for (int run = 0; run < 2 && status == CT_OK; run++) {
        status = ct_comm_all_reduce_start(comm, &x);
        if (status == CT_OK) status = ct_comm_finish(comm);
        const ct_tensor part = ct_tensor_rows(&x, rank * COUNT / size, COUNT / size);
        if (status == CT_OK) status = ct_comm_all_gather(comm, &x, &part);
        if (status == CT_OK) status = device->backend->download(device, host, x.data, sizeof host);
    }
    if (watched) pthread_join(watcher, NULL);
    char message[1024];
    snprintf(message, sizeof message, "%s", ct_error_message());
    if (comm) ct_comm_destroy(comm);
    CHECK(strcmp(message, ct_error_message()) == 0);
    if (device) device->backend->free(device, x.data);
    ct_device_destroy(device);
    if (status == CT_OK) return 0;
    return ct_error_message()[0] ? 1 : 2;
}

static void injected_failures_are_messages(void **state)
{
    (void)state;
    for (int k = 1; k <= 60; k++) {
        ranks_ending endings[RANKS_MOST];
        ranks_run(&(ranks_options){.size = 2, .seed = 1, .timeout_ms = 10000}, run_injected, &k,
                  endings);
        for (int rank = 0; rank < 2; rank++)
            if (endings[rank].status > 1)
                fail_msg("call %d, rank %d: status %d: %s", k, rank, endings[rank].status,
                         endings[rank].errors);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_entry_is_what_it_says),
        cmocka_unit_test(started_reductions_run_beside_kernels),
        cmocka_unit_test(recorded_steps_hold_collectives),
        cmocka_unit_test(an_abort_ends_every_wait),
        cmocka_unit_test(ranks_that_cannot_meet_get_a_message),
        cmocka_unit_test(injected_failures_are_messages),
    };
    return cmocka_run_group_tests_name("simt_nccl", tests, NULL, NULL);
}
