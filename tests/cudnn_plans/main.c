/* Asks the real cuDNN for a plan for every convolution of the models, forward and both gradients,
 * in every arithmetic, on GPUs that are only described, through the code that trains. Prints the
 * engine, its knobs and the workspace of each first choice.
 *
 * test_cudnn_plans FOLDER [--candidates | --sums]: FOLDER holds the descriptions; --candidates
 * prints all that autotuning would time; --sums asks for forward convolutions that sum over their
 * results, for which cuDNN wants a driver (driver.c), in bf16 at one batch size only: each is
 * compiled. */
#include <cuda.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "cuda/conv_plan.h"
#include "cuda/internal.h"
#include "cudnn_plans/models.h"

enum { SKIPPED = 77, CANDIDATES = 8 };

/* cuda/check.c has it for programs, together with the messages of libraries not linked here. */
ct_status ct_cudnn_failed(const char *operation, const char *call, cudnnStatus_t error,
                          const char *file, int line)
{
    char details[512] = "";
    cudnnGetLastErrorString(details, sizeof details);
    return ct_fail(CT_ERR_DEVICE, "%s: %s: %s, at %s:%d; %s", operation ? operation : "cuDNN", call,
                   cudnnGetErrorString(error), file, line, details);
}

typedef struct arithmetic {
    const char *name;
    ct_dtype dtype;
    bool tf32, deterministic;
} arithmetic;

typedef enum test_mode { FIRST_CHOICES, ALL_CANDIDATES, WITH_SUMS } test_mode;

typedef struct tally {
    int problems, failures;
    size_t most_workspace;
} tally;

static ct_cuda_conv_problem problem_of(const convolution *c, ct_cuda_conv_direction direction,
                                       const arithmetic *a, int64_t batch)
{
    const int64_t result = (c->pixels + 2 * c->pad - c->kernel) / c->stride + 1;
    const ct_tensor x = ct_tensor4(NULL, a->dtype, batch, c->pixels, c->pixels, c->inputs);
    const ct_tensor w = ct_tensor4(NULL, a->dtype, c->outputs, c->kernel, c->kernel, c->inputs);
    const ct_tensor y = ct_tensor4(NULL, a->dtype, batch, result, result, c->outputs);
    ct_cuda_conv_problem problem =
        ct_cuda_conv_problem_of(direction, &x, &w, &y, c->stride, c->pad);
    problem.tf32 = a->tf32;
    problem.deterministic = a->deterministic;
    return problem;
}

/* A plan made again from its engine and knobs, as from a plan cache, must be the same plan. */
static ct_status check_remade(const ct_cudnn_target *target, const ct_cuda_conv_problem *problem,
                              const ct_cuda_conv_plan *plan)
{
    ct_cuda_conv_plan again;
    CT_TRY(ct_cuda_conv_plan_of(target, problem, &plan->engine, &again));
    ct_status status = CT_OK;
    if (!again.plan)
        status = ct_fail(CT_ERR_INTERNAL, "engine %lld cannot be made again from its knobs",
                         (long long)plan->engine.index);
    else if (again.workspace_bytes != plan->workspace_bytes ||
             again.engine.index != plan->engine.index)
        status =
            ct_fail(CT_ERR_INTERNAL, "engine %lld made again needs %zu bytes, not %zu",
                    (long long)plan->engine.index, again.workspace_bytes, plan->workspace_bytes);
    ct_cuda_conv_plan_release(&again);
    return status;
}

static void print_plan(const char *text, const char *gpu, const ct_cuda_conv_plan *plan)
{
    printf("%-5s %-84s engine %2lld ", gpu, text, (long long)plan->engine.index);
    for (int i = 0; i < plan->engine.knob_count; i++)
        printf(" %lld=%lld", (long long)plan->engine.knobs[i].type,
               (long long)plan->engine.knobs[i].value);
    printf("  workspace %.1f MiB%s\n", (double)plan->workspace_bytes / (1 << 20),
           plan->engine.runtime_compiled ? "  compiled at run time" : "");
}

static ct_status try_problem(const ct_cudnn_target *target, const char *gpu,
                             const ct_cuda_conv_problem *problem, test_mode mode, tally *sums)
{
    ct_cuda_conv_plan plans[CANDIDATES];
    char text[CT_CUDA_CONV_TEXT];
    int count;
    sums->problems++;
    ct_cuda_conv_describe(problem, text);
    CT_TRY(ct_cuda_conv_plans(target, problem, plans, mode == ALL_CANDIDATES ? CANDIDATES : 1,
                              &count));
    ct_status status = CT_OK;
    for (int i = 0; i < count; i++) {
        print_plan(text, gpu, &plans[i]);
        if (status == CT_OK && mode != WITH_SUMS) status = check_remade(target, problem, &plans[i]);
    }
    if (plans[0].workspace_bytes > sums->most_workspace)
        sums->most_workspace = plans[0].workspace_bytes;
    while (count) ct_cuda_conv_plan_release(&plans[--count]);
    return status;
}

static void try_or_report(const ct_cudnn_target *gpu, const char *name,
                          const ct_cuda_conv_problem *problem, test_mode mode, tally *sums)
{
    ct_cudnn_target target = *gpu;
    target.operation = ct_cuda_conv_operation(problem);
    if (try_problem(&target, name, problem, mode, sums) == CT_OK) return;
    printf("%-5s FAILED: %s\n", name, ct_error_message());
    sums->failures++;
}

/* As training asks: f32 filter gradients are added, gradients of data both ways. */
static void try_gpu(const ct_cudnn_target *gpu, const char *name, const arithmetic *a,
                    int64_t batch, test_mode mode, tally *sums)
{
    convolution list[MAX_CONVOLUTIONS];
    const int count = mode == WITH_SUMS ? list_resnet_convolutions(list) : list_convolutions(list);
    const int last = mode == WITH_SUMS ? CT_CUDA_CONV_FWD : CT_CUDA_CONV_BWD_FILTER;
    for (int i = 0; i < count; i++)
        for (int d = CT_CUDA_CONV_FWD; d <= last; d++) {
            ct_cuda_conv_problem problem =
                problem_of(&list[i], (ct_cuda_conv_direction)d, a, batch);
            problem.sums = mode == WITH_SUMS;
            problem.adds = d == CT_CUDA_CONV_BWD_FILTER && a->dtype == CT_F32;
            try_or_report(gpu, name, &problem, mode, sums);
            if (d != CT_CUDA_CONV_BWD_DATA) continue;
            problem.adds = 1;
            try_or_report(gpu, name, &problem, mode, sums);
        }
}

static ct_status load_gpu(const char *folder, const char *name, ct_cudnn_owner *owner,
                          ct_cudnn_target *target)
{
    char path[1024];
    char *json;
    size_t size;
    snprintf(path, sizeof path, "%s/%s.json", folder, name);
    CT_TRY(ct_file_read(path, 1 << 16, &json, &size));
    const ct_status status = ct_cudnn_make_properties(owner, json, &target->properties);
    free(json);
    return status;
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool loads(const char *name, int version)
{
    char file[64];
    snprintf(file, sizeof file, "%s.so.%d", name, version);
    if (dlopen(file, RTLD_NOW)) return true;
    printf("skipped: %s\n", dlerror());
    return false;
}

int main(int argc, char **argv)
{
    static const char *const gpus[] = {"a100", "h100", "b200"};
    static const arithmetic arithmetics[] = {{"bf16", CT_BF16, false, false},
                                             {"tf32", CT_F32, true, false},
                                             {"f16", CT_F16, false, false},
                                             {"f32", CT_F32, false, false},
                                             {"bf16 deterministic", CT_BF16, false, true}};
    test_mode mode = FIRST_CHOICES;
    if (argc == 3 && strcmp(argv[2], "--candidates") == 0) mode = ALL_CANDIDATES;
    if (argc == 3 && strcmp(argv[2], "--sums") == 0) mode = WITH_SUMS;
    if (argc != (mode == FIRST_CHOICES ? 2 : 3)) {
        fprintf(stderr, "usage: %s FOLDER [--candidates | --sums]\n", argv[0]);
        return 2;
    }
    /* libcudnn loads its parts when they are first needed, and ends the process when it cannot. */
    if (!loads("libcudnn_graph", CUDNN_MAJOR)) return SKIPPED;
    if (mode == WITH_SUMS && !loads("libnvrtc", CUDA_VERSION / 1000)) return SKIPPED;
    printf("cuDNN %zu\n", cudnnGetVersion());
    int failures = 0;
    for (size_t g = 0; g < sizeof gpus / sizeof *gpus; g++) {
        ct_cudnn_owner owner = {0};
        ct_cudnn_target target = {0};
        if (load_gpu(argv[1], gpus[g], &owner, &target) != CT_OK) {
            printf("%s: %s\n", gpus[g], ct_error_message());
            ct_cudnn_release(&owner);
            return 1;
        }
        const size_t last = mode == WITH_SUMS ? 1 : sizeof arithmetics / sizeof *arithmetics;
        for (size_t a = 0; a < last; a++)
            for (int64_t batch = mode == WITH_SUMS ? 256 : 32; batch <= 256; batch *= 8) {
                tally sums = {0};
                const double start = now_s();
                try_gpu(&target, gpus[g], &arithmetics[a], batch, mode, &sums);
                printf("%s, %s, batch %lld: %d problems, %d without a plan, most workspace %.1f "
                       "MiB, %.1f s\n\n",
                       gpus[g], arithmetics[a].name, (long long)batch, sums.problems, sums.failures,
                       (double)sums.most_workspace / (1 << 20), now_s() - start);
                failures += sums.failures;
            }
        ct_cudnn_release(&owner);
    }
    return failures ? 1 : 0;
}
