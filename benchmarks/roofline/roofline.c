/* What a training step must cost on a GPU, on paper: for every operation and shape of a
 * configuration's step the bytes and floating-point operations, the time that a GPU's memory and
 * arithmetic allow at best, and the occupancy of its kernels from ptxas' registers. A MODEL:
 * nothing is timed.
 *
 *   roofline CONFIG [--kernels table.tsv] [key=value ...]
 *
 * The configuration's model is built for the GPU backend on the SIMT device, which only notes
 * launches, so shapes and launches are those of the real program. Captions have --tokens each
 * (default 14, Flickr8k's mean). table.tsv is what scripts/check-kernels.sh writes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cost.h"
#include "cuda/cuda.h"
#include "kernel_table.h"
#include "model/clip.h"
#include "model/optimizer.h"
#include "simt/observe.h"

/* Published figures, dense, SXM boards: A100 80 GB (NVIDIA A100 datasheet 2021), H100 80 GB (H100
 * datasheet 2022), B200 (Blackwell architecture brief 2024). */
typedef struct gpu {
    const char *name;
    double bytes_per_second, flops_f32, flops_tf32, flops_half;
} gpu;
static const gpu gpus[] = {{"A100", 2.039e12, 19.5e12, 156e12, 312e12},
                           {"H100", 3.35e12, 67e12, 494.7e12, 989.4e12},
                           {"B200", 8.0e12, 80e12, 1125e12, 2250e12}};
enum { GPUS = 3, MAX_ROWS = 4096, NAME_BYTES = 96 };

static const char *const op_names[] = {
#define NAME(name) #name,
    CT_OPS(NAME)
#undef NAME
};

/* Calls of one operation with one shape. */
typedef struct row {
    ct_op op;
    ct_cost cost; /* of one call */
    int calls, launches;
    char kernel[NAME_BYTES]; /* of its widest launch */
    unsigned blocks, threads;
    size_t dynamic_shared_bytes;
} row;

typedef struct roofline {
    const ct_backend *backend; /* the real one, behind the noting one */
    ct_cuda_precision precision;
    row rows[MAX_ROWS];
    int row_count;
    row *current; /* of the operation in progress */
    ct_kernel_table kernels;
} roofline;

static roofline model; /* the backend's functions have no context of their own to carry it */

/* ---- noting -------------------------------------------------------------------------------------
 */

static row *row_of(ct_op op, const ct_cost *cost)
{
    for (int i = 0; i < model.row_count; i++) {
        row *r = &model.rows[i];
        if (r->op == op && memcmp(r->cost.shape, cost->shape, sizeof cost->shape) == 0 &&
            r->cost.flops == cost->flops && r->cost.read_bytes == cost->read_bytes)
            return r;
    }
    if (model.row_count == MAX_ROWS) return &model.rows[MAX_ROWS - 1];
    row *r = &model.rows[model.row_count++];
    *r = (row){.op = op, .cost = *cost};
    return r;
}

static void note_launch(const simt_launch *launch, void *context)
{
    (void)context;
    row *r = model.current;
    if (!r) return;
    unsigned blocks = launch->grid[0] * launch->grid[1] * launch->grid[2];
    r->launches++;
    if (r->calls > 1 || blocks <= r->blocks) return;
    r->blocks = blocks;
    r->threads = launch->block[0] * launch->block[1] * launch->block[2];
    r->dynamic_shared_bytes = launch->dynamic_shared_bytes;
    snprintf(r->kernel, sizeof r->kernel, "%s", launch->kernel);
}

#define NOTING(name)                                                                               \
    static ct_status note_##name(ct_device *device, const ct_##name##_args *args)                  \
    {                                                                                              \
        ct_cost cost = ct_cost_of(CT_OP_##name, args);                                             \
        model.current = row_of(CT_OP_##name, &cost);                                               \
        model.current->calls++;                                                                    \
        ct_status status = model.backend->name(device, args);                                      \
        model.current = NULL;                                                                      \
        return status;                                                                             \
    }
CT_OPS(NOTING)
#undef NOTING

/* ---- the step -----------------------------------------------------------------------------------
 */

static ct_status one_step(const ct_config *config, int64_t vocabulary, int32_t tokens,
                          ct_device *device)
{
    const int32_t batch = (int32_t)config->train.batch_size;
    const size_t pixels = (size_t)(batch * config->image.size * config->image.size * 3);
    const ct_clip_limits limits = {batch, (int64_t)batch * tokens, tokens, true};
    ct_clip *clip;
    ct_optimizer *optimizer = NULL;
    uint8_t *images = NULL;
    int32_t *numbers = NULL;
    CT_TRY(ct_clip_create(config, (int32_t)vocabulary, device, &limits, &clip));
    ct_status status = ct_optimizer_create(config, ct_clip_params(clip), device, 1000, &optimizer);
    if (status == CT_OK) status = ct_alloc(pixels, 1, "pixels", &images);
    if (status == CT_OK)
        status =
            ct_alloc((size_t)(batch * tokens + batch + 1), sizeof *numbers, "tokens", &numbers);
    if (status == CT_OK) {
        /* Nothing runs: contents do not matter, but for where captions end. */
        int32_t *ends = numbers + batch * tokens;
        for (int32_t i = 0; i <= batch; i++) ends[i] = i * tokens;
        const ct_clip_input input = {.count = batch,
                                     .images = images,
                                     .tokens = numbers,
                                     .positions = numbers,
                                     .cu_seqlens = ends,
                                     .photo_ids = ends,
                                     .total_tokens = batch * tokens,
                                     .max_seqlen = tokens};
        model.row_count = 0; /* what initialisation called does not belong to a step */
        status = ct_clip_stage(clip, &input, 0);
        if (status == CT_OK) status = ct_optimizer_stage(optimizer, 1);
        if (status == CT_OK) status = ct_clip_forward_backward(clip);
        if (status == CT_OK) status = ct_optimizer_step(optimizer);
    }
    free(numbers);
    free(images);
    ct_optimizer_destroy(optimizer);
    ct_clip_destroy(clip);
    return status;
}

/* ---- the table ----------------------------------------------------------------------------------
 */

static double seconds_at_best(const row *r, const gpu *g)
{
    double peak = g->flops_half;
    if (r->cost.dtype == CT_F32)
        peak = model.precision == CT_CUDA_TF32 ? g->flops_tf32 : g->flops_f32;
    double memory = (r->cost.read_bytes + r->cost.written_bytes) / g->bytes_per_second;
    return fmax(memory, r->cost.flops / peak);
}

static int by_time(const void *a, const void *b)
{
    double x = ((const row *)a)->calls * seconds_at_best(a, &gpus[1]);
    double y = ((const row *)b)->calls * seconds_at_best(b, &gpus[1]);
    return (x < y) - (x > y);
}

static void print_row(const row *r)
{
    const double bytes = r->cost.read_bytes + r->cost.written_bytes;
    char shape[64] = "", occupancy[32] = "-";
    for (int d = 0, n = 0; d < r->cost.rank; d++)
        n += snprintf(shape + n, sizeof shape - (size_t)n, d ? "x%lld" : "%lld",
                      (long long)r->cost.shape[d]);
    const ct_kernel_use *use = ct_kernel_find(&model.kernels, r->kernel);
    if (use && r->threads)
        snprintf(occupancy, sizeof occupancy, "%3.0f %% of %d regs",
                 100 * ct_kernel_occupancy(use, r->threads, r->dynamic_shared_bytes),
                 use->registers);
    printf("%-20s %-20s %5d %9.2f %9.2f %7.1f", op_names[r->op], shape, r->calls, bytes / 1e6,
           r->cost.flops / 1e9, bytes > 0 ? r->cost.flops / bytes : 0);
    for (int g = 0; g < GPUS; g++) printf(" %8.1f", 1e6 * seconds_at_best(r, &gpus[g]));
    printf("  %-7s %-18s %s\n",
           r->cost.flops / gpus[1].flops_half > bytes / gpus[1].bytes_per_second ? "compute"
                                                                                 : "memory",
           occupancy, r->kernel);
}

static void print_table(const char *config_path, const ct_config *config, int32_t tokens)
{
    double total[GPUS] = {0}, bytes = 0, flops = 0;
    int launches = 0;
    qsort(model.rows, (size_t)model.row_count, sizeof *model.rows, by_time);
    printf(
        "MODEL of one training step of %s: batch %lld, %lld px, %d tokens a caption.\n"
        "Times are lower bounds a call in microseconds, from bytes and FLOPs; nothing was run on a "
        "GPU.\nOccupancy: resident warps of a multiprocessor's 64, from ptxas' registers, "
        "H100.\n\n",
        config_path, (long long)config->train.batch_size, (long long)config->image.size, tokens);
    printf("%-20s %-20s %5s %9s %9s %7s %8s %8s %8s  %-7s %-18s %s\n", "operation", "output",
           "calls", "MB", "GFLOP", "FLOP/B", "A100 us", "H100 us", "B200 us", "bound", "occupancy",
           "widest launch");
    for (int i = 0; i < model.row_count; i++) {
        const row *r = &model.rows[i];
        print_row(r);
        for (int g = 0; g < GPUS; g++) total[g] += r->calls * seconds_at_best(r, &gpus[g]);
        bytes += r->calls * (r->cost.read_bytes + r->cost.written_bytes);
        flops += r->calls * r->cost.flops;
        launches += r->launches;
    }
    printf("\nwhole step: %.2f GB, %.2f TFLOP, %d launches (one with graphs); at best", bytes / 1e9,
           flops / 1e12, launches);
    for (int g = 0; g < GPUS; g++)
        printf(" %s %.2f ms (%.0f photos/s)%s", gpus[g].name, 1e3 * total[g],
               (double)config->train.batch_size / total[g], g + 1 < GPUS ? "," : "\n");
}

/* ---- main ---------------------------------------------------------------------------------------
 */

typedef struct options {
    const char *config, *kernels;
    int32_t tokens;
} options;

static ct_status read_arguments(int argc, char **argv, options *given, ct_config *config)
{
    given->tokens = 14;
    CT_TRY(ct_config_load(config, given->config = argv[1]));
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--kernels") == 0 && i + 1 < argc) given->kernels = argv[++i];
        else if (strcmp(argv[i], "--tokens") == 0 && i + 1 < argc)
            given->tokens = (int32_t)strtol(argv[++i], NULL, 10);
        else CT_TRY(ct_config_override(config, argv[i]));
    }
    if (given->tokens < 1 || given->tokens > 512)
        return ct_fail(CT_ERR_ARGUMENT, "--tokens must be 1 to 512");
    return CT_OK;
}

static ct_status run(int argc, char **argv)
{
    static const ct_cuda_precision precisions[] = {[CT_PRECISION_AUTO] = CT_CUDA_BF16,
                                                   [CT_PRECISION_F32] = CT_CUDA_F32,
                                                   [CT_PRECISION_TF32] = CT_CUDA_TF32,
                                                   [CT_PRECISION_BF16] = CT_CUDA_BF16,
                                                   [CT_PRECISION_F16] = CT_CUDA_F16};
    enum { BERT_VOCABULARY = 30522 };
    ct_config *config;
    options given = {0};
    ct_device *device = NULL;
    CT_TRY(ct_config_create(&config));
    ct_status status = read_arguments(argc, argv, &given, config);
    if (status == CT_OK && given.kernels)
        status = ct_kernel_table_load(given.kernels, &model.kernels);
    if (status == CT_OK) {
        model.precision = precisions[config->precision];
        simt_observe_only(note_launch, NULL);
        status = ct_cuda_device_create(
            &(ct_cuda_options){.precision = model.precision,
                               .deterministic = config->cuda.deterministic,
                               .fused_statistics = config->cuda.fused_statistics},
            &device);
    }
    if (status == CT_OK) {
        ct_backend noting = *device->backend;
        model.backend = device->backend;
#define ENTRY(name) noting.name = note_##name;
        CT_OPS(ENTRY)
#undef ENTRY
        device->backend = &noting;
        status = one_step(config, BERT_VOCABULARY, given.tokens, device);
        device->backend = model.backend;
    }
    if (status == CT_OK) print_table(given.config, config, given.tokens);
    ct_device_destroy(device);
    ct_kernel_table_free(&model.kernels);
    ct_config_destroy(config);
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr,
                "usage: roofline CONFIG [--kernels table.tsv] [--tokens N] [key=value ...]\n");
        return 2;
    }
    if (run(argc, argv) == CT_OK) return 0;
    fprintf(stderr, "roofline: %s\n", ct_error_message());
    return 1;
}
