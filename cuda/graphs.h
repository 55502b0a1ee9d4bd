/* Recorded runs of operations: a step of hundreds of launches becomes one.
 *
 * A key's first run is carried out as it stands: libraries may then allocate, load code and time
 * plans, which recording forbids. The second is recorded and launched, later ones are launched
 * alone. The 64 keys used last are kept. A recording names memory by address, so all are dropped
 * when the workspace moves or memory is freed. A run that cannot be recorded is carried out as it
 * stands from then on, with one warning that names the reason.
 *
 * With a communicator (nccl.h) all ranks record and replay alike: whether a collective is recorded
 * is a property that NCCL demands to be equal on all ranks. They are when replays have the same
 * keys in the same order, and memory is allocated and freed at the same places. A run that cannot
 * be recorded is then an error. */
#ifndef CT_CUDA_GRAPHS_H
#define CT_CUDA_GRAPHS_H

#include "cuda/internal.h"

struct ct_cuda_graphs;

CT_NODISCARD ct_status ct_cuda_graphs_create(struct ct_cuda_graphs **out);

/* Forgets all keys. No recording may be under way on the device. NULL is fine. */
void ct_cuda_graphs_drop(struct ct_cuda_graphs *graphs);
void ct_cuda_graphs_destroy(struct ct_cuda_graphs *graphs);

/* The backend's `replay`. */
CT_NODISCARD ct_status ct_cuda_replay(ct_device *device, uint64_t key,
                                      ct_status (*body)(void *context), void *context);

#endif
