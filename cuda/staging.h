/* Transfers between host and device through pinned memory.
 *
 *   upload, large:  host --memcpy--> slot.pinned --copy_stream--> slot.landing --stream--> memory
 *   upload, small:  host --memcpy--> slot.pinned ------------------------------stream--> memory
 *   download:       memory --stream--> slot.pinned --memcpy--> host
 *
 * The destination of an upload may still be read by kernels that were launched before: only
 * `stream` knows when they are done. So a large upload first lands beside it, on a stream of its
 * own, while those kernels run, and is moved within the device's memory, some hundred times faster
 * than over the bus, when its turn in `stream` comes. A small one costs latency only, and goes the
 * direct way.
 *
 * Two rings of slots, used in turn, each guarded by an event; transfers are cut into pieces of one
 * slot. A ring begins with two slots, and while the oldest is in use grows up to a limit, then
 * waits: as many pieces are under way as the steps that run ahead need. Growing is given up without
 * an error where memory is short. */
#ifndef CT_CUDA_STAGING_H
#define CT_CUDA_STAGING_H

#include "cuda/internal.h"

struct ct_cuda_staging;

/* Slots are allocated on first use. */
CT_NODISCARD ct_status ct_cuda_staging_create(struct ct_cuda_staging **out);
/* Waits for nothing: synchronise first. */
void ct_cuda_staging_destroy(struct ct_cuda_staging *staging);

/* The host may reuse `host` on return; the device has the data in the order of `stream`. */
CT_NODISCARD ct_status ct_cuda_upload(ct_device *device, void *memory, const void *host,
                                      size_t bytes);

/* Waits for what precedes it on `stream`, and for the data. */
CT_NODISCARD ct_status ct_cuda_download(ct_device *device, void *host, const void *memory,
                                        size_t bytes);

#endif
