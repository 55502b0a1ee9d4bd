#include "ranks.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

void check(int holds, const char *format, ...)
{
    if (holds) return;
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

void must(ct_status status)
{
    check(status == CT_OK, "%s: %s", ct_status_name(status), ct_error_message());
}

/* ---- models --------------------------------------------------------------------------------- */

static const char *const common[] = {
    "image.size=32",      "image.patch_size=8",  "image.width=48",       "image.depth=3",
    "image.heads=3",      "image.ffn=96",        "text.width=64",        "text.depth=2",
    "text.heads=2",       "text.ffn=64",         "text.dropout=0",       "text.attention_dropout=0",
    "projection.dim=24",  "train.batch_size=48", "train.warmup_steps=5", "train.lr_image=1e-4",
    "train.lr_text=1e-4", "train.lr_head=1e-4"};

static void set(ct_config *config, const char *key, int value)
{
    char text[64];
    snprintf(text, sizeof text, "%s=%d", key, value);
    must(ct_config_override(config, text));
}

void model_open(const variant *v, ct_device *device, int batch, int micro, model *out)
{
    const ct_clip_limits limits = {batch, (int64_t)batch * LONGEST, LONGEST, true};
    must(ct_config_create(&out->config));
    for (size_t i = 0; i < sizeof common / sizeof *common; i++)
        must(ct_config_override(out->config, common[i]));
    for (size_t i = 0; i < sizeof v->keys / sizeof *v->keys && v->keys[i]; i++)
        must(ct_config_override(out->config, v->keys[i]));
    set(out->config, "train.micro_batch_size", micro);
    must(ct_clip_create(out->config, VOCABULARY, device, &limits, &out->clip));
    must(ct_optimizer_create(out->config, ct_clip_params(out->clip), device, STEPS,
                             &out->optimizer));
}

void model_close(model *m)
{
    ct_optimizer_destroy(m->optimizer);
    ct_clip_destroy(m->clip);
    ct_config_destroy(m->config);
}

/* ---- data ----------------------------------------------------------------------------------- */

void draw_pairs(int step, pairs *out)
{
    const ct_rng_key key = ct_rng_make(77, CT_RNG_TEST, 1, (uint64_t)step);
    uint64_t drawn = 0;
    int32_t total = 0;
    for (size_t i = 0; i < sizeof out->images; i++)
        out->images[i] = (uint8_t)ct_rng_u32(key, drawn++);
    for (int32_t n = 0; n < BATCH; n++) {
        const int32_t length = 2 + (int32_t)(ct_rng_u32(key, drawn++) % (LONGEST - 1));
        out->cu_seqlens[n] = total;
        for (int32_t t = 0; t < length; t++) {
            out->tokens[total] = (int32_t)(ct_rng_u32(key, drawn++) % VOCABULARY);
            out->positions[total++] = t;
        }
        out->photo_ids[n] = n % (BATCH - 5);
    }
    out->cu_seqlens[BATCH] = total;
}

void swap_halves(const pairs *p, pairs *out)
{
    int32_t total = 0;
    for (int n = 0; n < BATCH; n++) {
        const int from = (n + BATCH / 2) % BATCH;
        const int32_t begin = p->cu_seqlens[from], length = p->cu_seqlens[from + 1] - begin;
        memcpy(out->images + (size_t)n * SIZE * SIZE * 3,
               p->images + (size_t)from * SIZE * SIZE * 3, SIZE * SIZE * 3);
        memcpy(out->tokens + total, p->tokens + begin, (size_t)length * sizeof *out->tokens);
        memcpy(out->positions + total, p->positions + begin,
               (size_t)length * sizeof *out->positions);
        out->photo_ids[n] = p->photo_ids[from];
        out->cu_seqlens[n] = total;
        total += length;
    }
    out->cu_seqlens[BATCH] = total;
}

void run_backward(model *m, const pairs *p, int first, int count, int step)
{
    int32_t ends[BATCH + 1];
    const int32_t begin = p->cu_seqlens[first];
    for (int n = 0; n <= count; n++) ends[n] = p->cu_seqlens[first + n] - begin;
    const ct_clip_input input = {.count = count,
                                 .images = p->images + (size_t)first * SIZE * SIZE * 3,
                                 .tokens = p->tokens + begin,
                                 .positions = p->positions + begin,
                                 .cu_seqlens = ends,
                                 .photo_ids = p->photo_ids + first,
                                 .total_tokens = ends[count],
                                 .max_seqlen = LONGEST};
    must(ct_clip_stage(m->clip, &input, step));
    must(ct_clip_forward_backward(m->clip));
}

void run_update(model *m, int step)
{
    must(ct_optimizer_stage(m->optimizer, step + 1));
    must(ct_optimizer_step(m->optimizer));
}

float loss_of(model *m)
{
    float loss;
    must(ct_clip_loss(m->clip, &loss));
    return loss;
}
