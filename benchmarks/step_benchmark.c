/* Times whole training steps (forward, backward, AdamW) on a data set's real captions, one step for
 * every line read from standard input, so that benchmarks/step.py can interleave it with PyTorch.
 * Usage: step_benchmark CONFIG [key=value ...]
 * Answers each line with "<seconds> <tokens> <loss>"; after the end of input, "peak <MiB>". */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/rng.h"
#include "model/clip.h"
#include "model/optimizer.h"
#include "train/corpus.h"
#include "train/select_device.h"

typedef struct bench {
    ct_config *config;
    ct_device *device;
    ct_tokenizer *tokenizer;
    ct_corpus *corpus;
    ct_clip *clip;
    ct_optimizer *optimizer;
    int32_t *tokens, *positions, *cu_seqlens, *photo_ids;
    uint8_t *images;
    int64_t step;
} bench;

static ct_status open_bench(bench *b, int argc, char **argv)
{
    int threads;
    CT_TRY(ct_config_create(&b->config));
    CT_TRY(ct_config_load(b->config, argv[1]));
    for (int i = 2; i < argc; i++) CT_TRY(ct_config_override(b->config, argv[i]));
    CT_TRY(ct_config_validate(b->config));
    CT_TRY(ct_device_select(b->config, NULL, &b->device, &threads));
    CT_TRY(ct_tokenizer_load(b->config->text.vocab, b->config->text.lowercase, &b->tokenizer));
    CT_TRY(ct_corpus_open(b->config, b->tokenizer, threads, &b->corpus));
    int64_t batch = b->config->train.batch_size, size = b->config->image.size;
    int32_t longest = b->corpus->tokens->longest;
    ct_clip_limits limits = {(int32_t)batch, batch * longest, longest, true};
    CT_TRY(ct_clip_create(b->config, ct_tokenizer_vocab_size(b->tokenizer), b->device, &limits,
                          &b->clip));
    CT_TRY(
        ct_optimizer_create(b->config, ct_clip_params(b->clip), b->device, 1000000, &b->optimizer));
    CT_TRY(ct_alloc((size_t)limits.tokens, sizeof(int32_t), "tokens", &b->tokens));
    CT_TRY(ct_alloc((size_t)limits.tokens, sizeof(int32_t), "positions", &b->positions));
    CT_TRY(ct_alloc((size_t)batch + 1, sizeof(int32_t), "offsets", &b->cu_seqlens));
    CT_TRY(ct_alloc((size_t)batch, sizeof(int32_t), "photo ids", &b->photo_ids));
    CT_TRY(ct_alloc((size_t)(batch * size * size * 3), 1, "images", &b->images));
    ct_rng_key key = ct_rng_make(1, CT_RNG_TEST, 0, 0);
    for (int64_t i = 0; i < batch * size * size * 3; i++)
        b->images[i] = (uint8_t)ct_rng_u32(key, (uint64_t)i);
    return CT_OK;
}

static void close_bench(bench *b)
{
    ct_optimizer_destroy(b->optimizer);
    ct_clip_destroy(b->clip);
    ct_corpus_destroy(b->corpus);
    ct_tokenizer_destroy(b->tokenizer);
    ct_device_destroy(b->device);
    ct_config_destroy(b->config);
    free(b->tokens);
    free(b->positions);
    free(b->cu_seqlens);
    free(b->photo_ids);
    free(b->images);
}

/* What the device does in a step. */
static ct_status compute_step(void *context)
{
    bench *b = context;
    CT_TRY(ct_clip_forward_backward(b->clip));
    return ct_optimizer_step(b->optimizer);
}

/* The step's captions are the next ones of the data set, in file order, five to a photo: every
 * fifth is taken, so that the photos of a batch differ. */
static ct_status one_step(bench *b)
{
    const ct_token_store *store = b->corpus->tokens;
    int32_t batch = (int32_t)b->config->train.batch_size, total = 0, longest = 0;
    float loss;
    for (int32_t n = 0; n < batch; n++) {
        int32_t c = (int32_t)(((b->step * batch + n) * 5) % store->count);
        int32_t length = (int32_t)(store->offset[c + 1] - store->offset[c]);
        b->cu_seqlens[n] = total;
        b->photo_ids[n] = n;
        for (int32_t i = 0; i < length; i++, total++) {
            b->tokens[total] = store->ids[store->offset[c] + i];
            b->positions[total] = i;
        }
        if (length > longest) longest = length;
    }
    b->cu_seqlens[batch] = total;
    ct_clip_input input = {.count = batch,
                           .images = b->images,
                           .tokens = b->tokens,
                           .positions = b->positions,
                           .cu_seqlens = b->cu_seqlens,
                           .photo_ids = b->photo_ids,
                           .total_tokens = total,
                           .max_seqlen = longest};
    double begin = ct_clock_seconds();
    CT_TRY(ct_clip_stage(b->clip, &input, b->step));
    CT_TRY(ct_optimizer_stage(b->optimizer, ++b->step));
    CT_TRY(ct_device_replay(b->device, ct_clip_staged_key(b->clip), compute_step, b));
    CT_TRY(ct_clip_loss(b->clip, &loss));
    printf("%.6f %d %.6f\n", ct_clock_seconds() - begin, total, (double)loss);
    fflush(stdout);
    return CT_OK;
}

int main(int argc, char **argv)
{
    bench b = {0};
    char line[64];
    struct rusage usage;
    if (argc < 2) {
        fputs("usage: step_benchmark CONFIG [key=value ...]\n", stderr);
        return 2;
    }
    ct_status status = open_bench(&b, argc, argv);
    while (status == CT_OK && fgets(line, sizeof line, stdin)) status = one_step(&b);
    if (status != CT_OK) fprintf(stderr, "step_benchmark: %s\n", ct_error_message());
    getrusage(RUSAGE_SELF, &usage);
    if (status == CT_OK) printf("peak %ld\n", usage.ru_maxrss / 1024);
    close_bench(&b);
    return status == CT_OK ? 0 : 1;
}
