/* Times the contrastive loss alone, forward and backward, through the operation table: once for
 * every line read from standard input, so that benchmarks/loss.py can interleave it with PyTorch.
 * Usage: loss_benchmark PAIRS WIDTH [key=value ...]   (device=, precision=, threads=)
 * Embeddings are random unit rows. Answers each line with "<seconds> <pairs> <loss>"; after the end
 * of input, "peak <MiB>": memory taken beside the embeddings and their gradients, which is the
 * device's workspace, or on the processor the growth of the process's peak where that is more. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/rng.h"
#include "train/select_device.h"

typedef struct bench {
    ct_config *config;
    ct_device *device;
    ct_exec exec;
    void *memory; /* of all tensors on the device */
    ct_clip_loss_fwd_args forward;
    ct_clip_loss_total_args total;
    ct_clip_loss_bwd_args backward;
    long start_kib; /* the process's peak before the first call */
} bench;

static ct_status open_device(bench *b, char **assignments)
{
    int threads;
    CT_TRY(ct_config_create(&b->config));
    for (; *assignments; assignments++) CT_TRY(ct_config_override(b->config, *assignments));
    CT_TRY(ct_device_select(b->config, NULL, &b->device, &threads));
    b->exec.device = b->device;
    return CT_OK;
}

/* Lays all tensors over `memory` (NULL: only measures). */
static ct_status place(bench *b, int64_t pairs, int64_t width, void *memory, size_t *bytes)
{
    const ct_dtype dtype = b->device->compute_dtype;
    ct_tensor rows[4], lists[3], scalars[3], ids = ct_tensor1(NULL, CT_I32, pairs);
    ct_arena arena;
    ct_arena_init(&arena, memory, *bytes);
    for (int i = 0; i < 4; i++) {
        rows[i] = ct_tensor2(NULL, dtype, pairs, width);
        CT_TRY(ct_arena_push(&arena, ct_tensor_bytes(&rows[i]), &rows[i].data));
    }
    for (int i = 0; i < 3; i++) {
        lists[i] = ct_tensor1(NULL, CT_F32, pairs);
        scalars[i] = ct_tensor1(NULL, CT_F32, 1);
        CT_TRY(ct_arena_push(&arena, ct_tensor_bytes(&lists[i]), &lists[i].data));
        CT_TRY(ct_arena_push(&arena, ct_tensor_bytes(&scalars[i]), &scalars[i].data));
    }
    CT_TRY(ct_arena_push(&arena, ct_tensor_bytes(&ids), &ids.data));
    *bytes = arena.peak_bytes;
    b->forward = (ct_clip_loss_fwd_args){.row_lse = lists[0],
                                         .col_lse = lists[1],
                                         .target = lists[2],
                                         .image = rows[0],
                                         .text = rows[1],
                                         .logit_scale = scalars[0],
                                         .photo_ids = ids};
    b->total = (ct_clip_loss_total_args){.loss = scalars[1],
                                         .row_lse = lists[0],
                                         .col_lse = lists[1],
                                         .target = lists[2],
                                         .count = pairs};
    b->backward = (ct_clip_loss_bwd_args){.dimage = rows[2],
                                          .dtext = rows[3],
                                          .dlogit_scale = scalars[2],
                                          .image = rows[0],
                                          .text = rows[1],
                                          .logit_scale = scalars[0],
                                          .photo_ids = ids,
                                          .row_lse = lists[0],
                                          .col_lse = lists[1]};
    return CT_OK;
}

/* Random unit rows in the device's dtype; `host` has room for them. */
static ct_status upload_rows(bench *b, const ct_tensor *rows, int stream, float *host)
{
    const int64_t pairs = rows->dim[0], width = rows->dim[1];
    const ct_rng_key key = ct_rng_make(1, CT_RNG_TEST, 0, (uint64_t)stream);
    for (int64_t i = 0; i < pairs; i++) {
        double squares = 0;
        for (int64_t k = i * width; k < (i + 1) * width; k++) {
            host[k] = (float)ct_rng_normal(key, (uint64_t)k);
            squares += (double)host[k] * (double)host[k];
        }
        for (int64_t k = i * width; k < (i + 1) * width; k++) host[k] /= (float)sqrt(squares);
    }
    const ct_backend *backend = b->device->backend;
    const size_t bytes = (size_t)(pairs * width) * sizeof *host;
    if (rows->dtype == CT_F32) return backend->upload(b->device, rows->data, host, bytes);
    ct_tensor wide = ct_tensor2(NULL, CT_F32, pairs, width);
    CT_TRY(backend->alloc(b->device, bytes, "embeddings", &wide.data));
    ct_status status = backend->upload(b->device, wide.data, host, bytes);
    if (status == CT_OK) status = ct_op_cast(&b->exec, &(ct_cast_args){.y = *rows, .x = wide});
    if (status == CT_OK) status = backend->synchronize(b->device);
    backend->free(b->device, wide.data);
    return status;
}

static ct_status upload_inputs(bench *b)
{
    const ct_tensor *image = &b->forward.image;
    const int64_t pairs = image->dim[0];
    const float logit_scale = logf(1.0f / 0.07f);
    float *host;
    CT_TRY(ct_alloc((size_t)(pairs * image->dim[1]), sizeof *host, "embeddings", &host));
    ct_status status = upload_rows(b, image, 0, host);
    if (status == CT_OK) status = upload_rows(b, &b->forward.text, 1, host);
    int32_t *ids = (int32_t *)host; /* no longer needed as numbers */
    for (int64_t i = 0; i < pairs; i++) ids[i] = (int32_t)i;
    const ct_backend *backend = b->device->backend;
    if (status == CT_OK)
        status =
            backend->upload(b->device, b->forward.photo_ids.data, ids, (size_t)pairs * sizeof *ids);
    if (status == CT_OK)
        status = backend->upload(b->device, b->forward.logit_scale.data, &logit_scale,
                                 sizeof logit_scale);
    free(host);
    return status;
}

static long peak_kib(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}

static ct_status open_bench(bench *b, int argc, char **argv)
{
    char *end[2];
    const int64_t pairs = strtoll(argv[1], &end[0], 10);
    const int64_t width = argc > 2 ? strtoll(argv[2], &end[1], 10) : 0;
    if (pairs < 1 || width < 1 || *end[0] || *end[1])
        return ct_fail(CT_ERR_ARGUMENT, "expected PAIRS and WIDTH, found \"%s %s\"", argv[1],
                       argv[2]);
    size_t bytes = 0;
    CT_TRY(open_device(b, argv + 3));
    CT_TRY(place(b, pairs, width, NULL, &bytes));
    CT_TRY(b->device->backend->alloc(b->device, bytes, "tensors", &b->memory));
    CT_TRY(place(b, pairs, width, b->memory, &bytes));
    CT_TRY(upload_inputs(b));
    b->start_kib = peak_kib();
    ct_exec planning = b->exec;
    planning.planning = true;
    CT_TRY(ct_op_clip_loss_fwd(&planning, &b->forward));
    CT_TRY(ct_op_clip_loss_total(&planning, &b->total));
    CT_TRY(ct_op_clip_loss_bwd(&planning, &b->backward));
    return b->device->backend->commit(b->device);
}

static ct_status run_once(bench *b)
{
    const ct_backend *backend = b->device->backend;
    float loss;
    const double begin = ct_clock_seconds();
    CT_TRY(ct_op_clip_loss_fwd(&b->exec, &b->forward));
    CT_TRY(ct_op_clip_loss_total(&b->exec, &b->total));
    CT_TRY(ct_op_clip_loss_bwd(&b->exec, &b->backward));
    CT_TRY(backend->synchronize(b->device));
    const double seconds = ct_clock_seconds() - begin;
    CT_TRY(backend->download(b->device, &loss, b->total.loss.data, sizeof loss));
    printf("%.6f %" PRId64 " %.7g\n", seconds, b->total.count, (double)loss);
    fflush(stdout);
    return CT_OK;
}

/* On the processor libraries' own memory counts too, which the workspace does not hold. */
static double memory_mib(const bench *b)
{
    const double workspace = (double)b->device->workspace_bytes / 1048576;
    const double grown = (double)(peak_kib() - b->start_kib) / 1024;
    const bool cpu = strcmp(b->device->backend->name, "cpu") == 0;
    return cpu && grown > workspace ? grown : workspace;
}

static void close_bench(bench *b)
{
    if (b->device) b->device->backend->free(b->device, b->memory);
    ct_device_destroy(b->device);
    ct_config_destroy(b->config);
}

int main(int argc, char **argv)
{
    bench b = {0};
    char line[64];
    if (argc < 3) {
        fputs("usage: loss_benchmark PAIRS WIDTH [key=value ...]\n", stderr);
        return 2;
    }
    ct_status status = open_bench(&b, argc, argv);
    while (status == CT_OK && fgets(line, sizeof line, stdin)) status = run_once(&b);
    if (status != CT_OK) fprintf(stderr, "loss_benchmark: %s\n", ct_error_message());
    else printf("peak %.1f\n", memory_mib(&b));
    close_bench(&b);
    return status == CT_OK ? 0 : 1;
}
