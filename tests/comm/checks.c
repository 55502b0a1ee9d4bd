#include "checks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"

enum { MOST = 300000 };

static void must_hold(int holds, const char *what, const ct_comm *comm, int64_t count)
{
    if (holds) return;
    fprintf(stderr, "%s of %lld numbers, rank %d of %d: wrong\n", what, (long long)count,
            comm->rank, comm->size);
    exit(1);
}

static void must(ct_status status, const char *what)
{
    if (status == CT_OK) return;
    fprintf(stderr, "%s: %s\n", what, ct_error_message());
    exit(1);
}

/* Number i of rank r: small multiples of 1/8, which bf16 and any order of sums keep exactly, or
 * with `rough` numbers that it does not. */
static float number(int rank, int64_t i, int rough)
{
    const int64_t x = (i * 7 + rank * 13) % 31 - 15;
    return rough ? sinf((float)(x + i)) / 3 : (float)x / 8;
}

typedef struct memory {
    ct_device *device;
    ct_tensor tensor;
} memory;

static memory allocate(ct_device *device, ct_dtype dtype, int64_t count)
{
    memory m = {device, ct_tensor1(NULL, dtype, count)};
    must(device->backend->alloc(device, ct_tensor_bytes(&m.tensor), "a test", &m.tensor.data),
         "alloc");
    return m;
}

static void release(memory *m)
{
    m->device->backend->free(m->device, m->tensor.data);
}

static void upload(const ct_device *device, const ct_tensor *t, const float *from)
{
    const int64_t count = ct_tensor_count(t);
    void *bits = malloc(ct_tensor_bytes(t) + 1);
    must_hold(bits != NULL, "malloc", device->comm, count);
    for (int64_t i = 0; i < count; i++) {
        if (t->dtype == CT_BF16) ((uint16_t *)bits)[i] = ct_bf16_from_f32(from[i]);
        else if (t->dtype == CT_I32) ((int32_t *)bits)[i] = (int32_t)(8 * from[i]);
        else ((float *)bits)[i] = from[i];
    }
    must(device->backend->upload((ct_device *)(uintptr_t)device, t->data, bits, ct_tensor_bytes(t)),
         "upload");
    free(bits);
}

static float *download(const ct_device *device, const ct_tensor *t)
{
    const int64_t count = ct_tensor_count(t);
    void *bits = malloc(ct_tensor_bytes(t) + 1);
    float *to = malloc((size_t)(count + 1) * sizeof *to);
    must_hold(bits && to, "malloc", device->comm, count);
    must(device->backend->download((ct_device *)(uintptr_t)device, bits, t->data,
                                   ct_tensor_bytes(t)),
         "download");
    for (int64_t i = 0; i < count; i++)
        to[i] = t->dtype == CT_BF16  ? ct_bf16_to_f32(((const uint16_t *)bits)[i])
                : t->dtype == CT_I32 ? (float)((const int32_t *)bits)[i] / 8
                                     : ((const float *)bits)[i];
    free(bits);
    return to;
}

static void fill(const ct_device *device, const ct_tensor *t, int rank, int64_t first, int rough)
{
    const int64_t count = ct_tensor_count(t);
    float *host = malloc((size_t)(count + 1) * sizeof *host);
    must_hold(host != NULL, "malloc", device->comm, count);
    for (int64_t i = 0; i < count; i++) host[i] = number(rank, first + i, rough);
    upload(device, t, host);
    free(host);
}

static double sum_over_ranks(const ct_comm *comm, int64_t i, int rough)
{
    double sum = 0;
    for (int r = 0; r < comm->size; r++) sum += (double)number(r, i, rough);
    return sum;
}

/* This rank's of the equal parts of x. */
static ct_tensor own_part(const ct_comm *comm, const ct_tensor *x)
{
    const int64_t count = ct_tensor_count(x) / comm->size;
    return ct_tensor_rows(x, comm->rank * count, count);
}

/* ---- gathers -------------------------------------------------------------------------------- */

static void check_all_gather(ct_device *device, ct_dtype dtype, int64_t count, bool in_place)
{
    ct_comm *comm = device->comm;
    memory to = allocate(device, dtype, comm->size * count), own = allocate(device, dtype, count);
    const ct_tensor from = in_place ? own_part(comm, &to.tensor) : own.tensor;
    fill(device, &from, comm->rank, 0, 0);
    must(ct_comm_all_gather(comm, &to.tensor, &from), "all_gather");
    float *all = download(device, &to.tensor);
    for (int r = 0; r < comm->size; r++)
        for (int64_t i = 0; i < count; i++)
            must_hold(all[r * count + i] == number(r, i, 0), "all_gather", comm, count);
    free(all);
    release(&own);
    release(&to);
}

static void check_all_to_all(ct_device *device, int64_t count)
{
    ct_comm *comm = device->comm;
    memory to = allocate(device, CT_F32, comm->size * count),
           from = allocate(device, CT_F32, comm->size * count);
    const ct_tensor received = ct_tensor2(to.tensor.data, CT_F32, comm->size, count),
                    sent = ct_tensor2(from.tensor.data, CT_F32, comm->size, count);
    fill(device, &from.tensor, comm->rank, 0, 0);
    must(ct_comm_all_to_all(comm, &received, &sent), "all_to_all");
    float *all = download(device, &to.tensor);
    for (int r = 0; r < comm->size; r++)
        for (int64_t i = 0; i < count; i++)
            must_hold(all[r * count + i] == number(r, comm->rank * count + i, 0), "all_to_all",
                      comm, count);
    free(all);
    release(&from);
    release(&to);
}

static void check_gather_host(ct_device *device, size_t bytes)
{
    ct_comm *comm = device->comm;
    uint8_t *to = malloc(bytes * (size_t)comm->size + 1), *from = malloc(bytes + 1);
    must_hold(to && from, "malloc", comm, (int64_t)bytes);
    for (size_t i = 0; i < bytes; i++) from[i] = (uint8_t)(i * 5 + (size_t)comm->rank);
    must(ct_comm_gather_host(comm, to, from, bytes), "gather_host");
    for (int r = 0; r < comm->size; r++)
        for (size_t i = 0; i < bytes; i++)
            must_hold(to[(size_t)r * bytes + i] == (uint8_t)(i * 5 + (size_t)r), "gather_host",
                      comm, (int64_t)bytes);
    free(to);
    free(from);
}

/* ---- sums ----------------------------------------------------------------------------------- */

/* FNV-1a, 64 bits (Fowler, Noll, Vo), over words of 32 bits. */
static uint64_t hash_of(const float *x, int64_t count)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (int64_t i = 0; i < count; i++)
        hash = (hash ^ ct_half_bits(x[i])) * UINT64_C(0x100000001b3);
    return hash;
}

/* Whether all ranks have the same bits. */
static void check_same_bits(const ct_device *device, const float *x, int64_t count)
{
    const ct_comm *comm = device->comm;
    const uint64_t own = hash_of(x, count);
    uint64_t *all = malloc((size_t)comm->size * sizeof *all);
    must_hold(all != NULL, "malloc", comm, count);
    must(ct_comm_gather_host((ct_comm *)(uintptr_t)comm, all, &own, sizeof own), "gather_host");
    for (int r = 0; r < comm->size; r++)
        must_hold(all[r] == own, "the same bits in all_reduce", comm, count);
    free(all);
}

/* Rough sums in bf16: each number, of at most 1/3, and each sum is off by half of the last of 8
 * bits. */
static double rough_limit(const ct_comm *comm, ct_dtype dtype)
{
    return dtype == CT_BF16 ? comm->size * comm->size / 3.0 / 256 : 1e-6 * comm->size;
}

static void check_sums(const ct_comm *comm, const float *found, int64_t first, int64_t count,
                       double factor, double limit, int rough)
{
    for (int64_t i = 0; i < count; i++) {
        const double sum = factor * sum_over_ranks(comm, first + i, rough);
        must_hold(fabs((double)found[i] - sum) <= limit, "a sum", comm, count);
    }
}

static void check_all_reduce(ct_device *device, ct_dtype dtype, int64_t count, int rough)
{
    ct_comm *comm = device->comm;
    memory x = allocate(device, dtype, count);
    fill(device, &x.tensor, comm->rank, 0, rough);
    const uint64_t before = comm->stats.bytes_reduced;
    must(ct_comm_all_reduce(comm, &x.tensor), "all_reduce");
    float *found = download(device, &x.tensor); /* waits: a GPU's figures may be behind */
    must_hold(comm->stats.bytes_reduced - before == ct_tensor_bytes(&x.tensor), "bytes_reduced",
              comm, count);
    check_sums(comm, found, 0, count, 1.0, rough ? rough_limit(comm, dtype) : 0, rough);
    check_same_bits(device, found, count);
    free(found);
    release(&x);
}

static void check_mean(ct_device *device, int64_t count)
{
    ct_comm *comm = device->comm;
    memory x = allocate(device, CT_F32, count);
    fill(device, &x.tensor, comm->rank, 0, 0);
    must(ct_comm_all_reduce_mean(comm, &x.tensor), "all_reduce_mean");
    float *found = download(device, &x.tensor);
    check_sums(comm, found, 0, count, 1.0 / comm->size, 1e-6, 0);
    check_same_bits(device, found, count);
    free(found);
    release(&x);
}

/* Several sums beside each other, and collectives between start and finish. */
static void check_started(ct_device *device, ct_dtype dtype)
{
    enum { SUMS = 5 };
    ct_comm *comm = device->comm;
    memory x[SUMS], parts[SUMS];
    for (int k = 0; k < SUMS; k++) {
        x[k] = allocate(device, dtype, 1000 * k + 1);
        fill(device, &x[k].tensor, comm->rank, k, 0);
        must(ct_comm_all_reduce_start(comm, &x[k].tensor), "all_reduce_start");
        parts[k] = allocate(device, dtype, comm->size * (100 * k + 1));
        fill(device, &parts[k].tensor, comm->rank, 0, 0);
        const ct_tensor own = own_part(comm, &parts[k].tensor);
        must(ct_comm_reduce_scatter_start(comm, &own, &parts[k].tensor), "reduce_scatter_start");
        if (k == 2) check_all_gather(device, CT_F32, 77, true);
    }
    must(ct_comm_finish(comm), "finish");
    for (int k = 0; k < SUMS; k++) {
        float *found = download(device, &x[k].tensor);
        check_sums(comm, found, k, 1000 * k + 1, 1.0, 0, 0);
        free(found);
        release(&x[k]);
        const ct_tensor own = own_part(comm, &parts[k].tensor);
        found = download(device, &own);
        check_sums(comm, found, comm->rank * (100 * k + 1), 100 * k + 1, 1.0, 0, 0);
        free(found);
        release(&parts[k]);
    }
}

static void check_reduce_scatter(ct_device *device, ct_dtype dtype, int64_t count, bool in_place)
{
    ct_comm *comm = device->comm;
    memory from = allocate(device, dtype, comm->size * count), own = allocate(device, dtype, count);
    const ct_tensor to = in_place ? own_part(comm, &from.tensor) : own.tensor;
    fill(device, &from.tensor, comm->rank, 0, 0);
    must(ct_comm_reduce_scatter_start(comm, &to, &from.tensor), "reduce_scatter_start");
    must(ct_comm_finish(comm), "finish");
    float *found = download(device, &to);
    check_sums(comm, found, comm->rank * count, count, 1.0, 0, 0);
    free(found);
    release(&own);
    release(&from);
}

void check_comm(ct_device *device)
{
    static const int64_t counts[] = {1, 3, 64, 1000, 70001, MOST};
    static const ct_dtype dtypes[] = {CT_F32, CT_BF16, CT_I32};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++)
            for (int in_place = 0; in_place < 2; in_place++)
                check_all_gather(device, dtypes[d], counts[c], in_place);
        for (size_t d = 0; d < 2; d++) {
            check_all_reduce(device, dtypes[d], counts[c], 0);
            for (int in_place = 0; in_place < 2; in_place++)
                check_reduce_scatter(device, dtypes[d], counts[c], in_place);
        }
        check_all_reduce(device, CT_F32, counts[c], 1);
        check_mean(device, counts[c]);
        check_all_to_all(device, counts[c]);
        check_gather_host(device, (size_t)counts[c]);
    }
    check_started(device, CT_F32);
    check_started(device, CT_BF16);
}

void check_comm_sum(ct_device *device, ct_dtype dtype, int64_t count)
{
    check_all_reduce(device, dtype, count, 0);
    if (dtype != CT_I32) check_all_reduce(device, dtype, count, 1);
}

void check_comm_empty(ct_device *device)
{
    check_all_gather(device, CT_F32, 0, false);
    check_all_to_all(device, 0);
    check_gather_host(device, 0);
    check_all_reduce(device, CT_F32, 0, 0);
    check_mean(device, 0);
    check_reduce_scatter(device, CT_BF16, 0, false);
}
