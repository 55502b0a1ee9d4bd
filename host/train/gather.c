#include "train/gather.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

ct_part ct_part_of(const ct_comm *comm, int64_t count)
{
    const int64_t rank = ct_comm_rank(comm), ranks = ct_comm_size(comm);
    return (ct_part){count * rank / ranks, count * (rank + 1) / ranks};
}

/* received: (ranks, most, row_bytes), of which rank r fills counts[r] rows. */
static void close_gaps(char *received, const int64_t *counts, int ranks, int64_t most,
                       size_t row_bytes)
{
    char *to = received;
    for (int r = 0; r < ranks; r++) {
        const size_t bytes = (size_t)counts[r] * row_bytes;
        memmove(to, received + (size_t)(r * most) * row_bytes, bytes);
        to += bytes;
    }
}

/* Collectives carry equally many bytes from each rank: rows are padded to the most. */
static ct_status gather(ct_comm *comm, const void *own, int64_t count, size_t row_bytes,
                        int64_t *counts, void **all, int64_t *total)
{
    int64_t most = 0;
    char *sent = NULL, *received = NULL;
    CT_TRY(ct_comm_gather_host(comm, counts, &count, sizeof count));
    *total = 0;
    for (int r = 0; r < comm->size; r++) {
        most = counts[r] > most ? counts[r] : most;
        *total += counts[r];
    }
    ct_status status = ct_alloc((size_t)most, row_bytes, "rows of this rank", &sent);
    if (status == CT_OK)
        status = ct_alloc((size_t)(comm->size * most), row_bytes, "rows of all ranks", &received);
    if (status == CT_OK) {
        memcpy(sent, own, (size_t)count * row_bytes);
        status = ct_comm_gather_host(comm, received, sent, (size_t)most * row_bytes);
    }
    free(sent);
    if (status != CT_OK) {
        free(received);
        return status;
    }
    close_gaps(received, counts, comm->size, most, row_bytes);
    *all = received;
    return CT_OK;
}

ct_status ct_gather_rows(ct_comm *comm, void *own, int64_t count, size_t row_bytes, void *all,
                         int64_t *total)
{
    void *rows = own;
    *total = count;
    if (comm) {
        int64_t *counts;
        ct_status status =
            ct_alloc((size_t)comm->size, sizeof *counts, "the ranks' counts", &counts);
        if (status == CT_OK) {
            status = gather(comm, own, count, row_bytes, counts, &rows, total);
            free(counts);
        }
        free(own);
        CT_TRY(status);
    }
    memcpy(all, &rows, sizeof rows);
    return CT_OK;
}
