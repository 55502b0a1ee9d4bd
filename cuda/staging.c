#include "cuda/staging.h"

#include <stdlib.h>
#include <string.h>

#define MAX_SLOTS 64

/* Handles and addresses never change once made, so slots may be copied and moved. */
typedef struct slot {
    uint8_t *pinned;
    uint8_t *landing;     /* device memory; NULL in a ring without */
    cudaEvent_t landed;   /* the copy into `landing` is done */
    cudaEvent_t released; /* nothing under way uses the slot */
} slot;

typedef struct ring {
    size_t slot_bytes;
    int limit; /* <= MAX_SLOTS */
    bool lands;
    int count;
    int oldest; /* the slot that was used longest ago, next in turn */
    slot slots[MAX_SLOTS];
} ring;

struct ct_cuda_staging {
    ring small, large;
};

ct_status ct_cuda_staging_create(struct ct_cuda_staging **out)
{
    CT_TRY(ct_alloc(1, sizeof **out, "transfers to the GPU", out));
    (*out)->small = (ring){.slot_bytes = (size_t)64 << 10, .limit = 64, .lands = false};
    (*out)->large = (ring){.slot_bytes = (size_t)8 << 20, .limit = 32, .lands = true};
    return CT_OK;
}

static void destroy_slot(slot *s)
{
    if (s->released) (void)cudaEventDestroy(s->released);
    if (s->landed) (void)cudaEventDestroy(s->landed);
    if (s->landing) (void)cudaFree(s->landing);
    if (s->pinned) (void)cudaFreeHost(s->pinned);
}

void ct_cuda_staging_destroy(struct ct_cuda_staging *staging)
{
    if (!staging) return;
    for (int i = 0; i < staging->small.count; i++) destroy_slot(&staging->small.slots[i]);
    for (int i = 0; i < staging->large.count; i++) destroy_slot(&staging->large.slots[i]);
    free(staging);
}

static ct_status fill_slot(const ring *r, slot *s)
{
    const char *operation = "pinned memory for transfers";
    CT_CUDA(operation, cudaHostAlloc((void **)&s->pinned, r->slot_bytes, cudaHostAllocDefault));
    if (r->lands) {
        CT_CUDA(operation, cudaMalloc((void **)&s->landing, r->slot_bytes));
        CT_CUDA(operation, cudaEventCreateWithFlags(&s->landed, cudaEventDisableTiming));
    }
    CT_CUDA(operation, cudaEventCreateWithFlags(&s->released, cudaEventDisableTiming));
    return CT_OK;
}

/* A new slot takes the oldest one's place in turn. */
static ct_status grow_ring(ring *r)
{
    slot made = {0};
    ct_status status = fill_slot(r, &made);
    if (status != CT_OK) {
        destroy_slot(&made);
        return status;
    }
    slot *place = &r->slots[r->oldest];
    memmove(place + 1, place, (size_t)(r->count - r->oldest) * sizeof *place);
    *place = made;
    r->count++;
    return CT_OK;
}

/* *out = a slot that nothing uses. Never the one given out last. */
static ct_status acquire(ring *r, slot *out)
{
    if (r->count < 2) {
        CT_TRY(grow_ring(r));
    } else {
        const cudaEvent_t released = r->slots[r->oldest].released;
        const cudaError_t state = cudaEventQuery(released);
        if (state == cudaErrorNotReady) {
            (void)cudaGetLastError();
            if (r->count == r->limit || grow_ring(r) != CT_OK)
                CT_CUDA("transfer", cudaEventSynchronize(released));
        } else if (state != cudaSuccess) {
            return ct_cuda_failed("transfer", "cudaEventQuery", state, __FILE__, __LINE__);
        }
    }
    *out = r->slots[r->oldest];
    r->oldest = (r->oldest + 1) % r->count;
    return CT_OK;
}

static ring *ring_for(struct ct_cuda_staging *staging, size_t bytes)
{
    return bytes <= staging->small.slot_bytes ? &staging->small : &staging->large;
}

static size_t piece_bytes(const ring *r, size_t left)
{
    return left < r->slot_bytes ? left : r->slot_bytes;
}

static ct_status upload_piece(ct_cuda_device *cuda, const slot *s, void *memory, size_t bytes)
{
    const char *operation = "upload";
    if (s->landing) {
        CT_CUDA(operation, cudaMemcpyAsync(s->landing, s->pinned, bytes, cudaMemcpyHostToDevice,
                                           cuda->copy_stream));
        CT_CUDA(operation, cudaEventRecord(s->landed, cuda->copy_stream));
        CT_CUDA(operation, cudaStreamWaitEvent(cuda->stream, s->landed, 0));
        CT_CUDA(operation,
                cudaMemcpyAsync(memory, s->landing, bytes, cudaMemcpyDeviceToDevice, cuda->stream));
    } else {
        CT_CUDA(operation,
                cudaMemcpyAsync(memory, s->pinned, bytes, cudaMemcpyHostToDevice, cuda->stream));
    }
    CT_CUDA(operation, cudaEventRecord(s->released, cuda->stream));
    return CT_OK;
}

ct_status ct_cuda_upload(ct_device *device, void *memory, const void *host, size_t bytes)
{
    ct_cuda_device *cuda = ct_cuda(device);
    ring *r = ring_for(cuda->staging, bytes);
    for (size_t done = 0, piece; done < bytes; done += piece) {
        slot s = {0};
        CT_TRY(acquire(r, &s));
        piece = piece_bytes(r, bytes - done);
        memcpy(s.pinned, (const uint8_t *)host + done, piece);
        CT_TRY(upload_piece(cuda, &s, (uint8_t *)memory + done, piece));
    }
    return CT_OK;
}

/* While one piece comes over the bus, the piece before it is copied out of pinned memory. */
ct_status ct_cuda_download(ct_device *device, void *host, const void *memory, size_t bytes)
{
    ct_cuda_device *cuda = ct_cuda(device);
    ring *r = ring_for(cuda->staging, bytes);
    const char *operation = "download";
    slot before = {0};
    size_t before_bytes = 0;
    for (size_t done = 0; done < bytes || before_bytes;) {
        const size_t piece = piece_bytes(r, bytes - done);
        slot s = {0};
        if (piece) {
            CT_TRY(acquire(r, &s));
            CT_CUDA(operation, cudaMemcpyAsync(s.pinned, (const uint8_t *)memory + done, piece,
                                               cudaMemcpyDeviceToHost, cuda->stream));
            CT_CUDA(operation, cudaEventRecord(s.released, cuda->stream));
        }
        if (before_bytes) {
            CT_CUDA(operation, cudaEventSynchronize(before.released));
            memcpy((uint8_t *)host + done - before_bytes, before.pinned, before_bytes);
        }
        done += piece;
        before = s;
        before_bytes = piece;
    }
    return ct_cuda_check_job(cuda);
}
