/* The configuration of a run: a YAML file, then key=value pairs of the command line.
 *
 * Every key is one row of a table in schema.c: dotted name, type, range, default, one line of help.
 * The reference in docs/CONFIG.md is printed from that table. An unknown key, a wrong type or a
 * value out of range is refused with file, line, key and what was expected (and the nearest known
 * key). Strings are owned by the config. Relative paths start at the current folder.
 */
#ifndef CT_CONFIG_CONFIG_H
#define CT_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

typedef enum ct_device_kind { CT_DEVICE_AUTO, CT_DEVICE_CPU, CT_DEVICE_CUDA } ct_device_kind;

typedef enum ct_precision {
    CT_PRECISION_AUTO, /* bf16 where the device has it, else f32 */
    CT_PRECISION_F32,
    CT_PRECISION_TF32,
    CT_PRECISION_BF16,
    CT_PRECISION_F16
} ct_precision;

typedef enum ct_captions_format {
    CT_CAPTIONS_AUTO,            /* told from the first line */
    CT_CAPTIONS_FLICKR8K_KAGGLE, /* captions.txt: CSV with header image,caption */
    CT_CAPTIONS_FLICKR8K_TOKEN,  /* Flickr8k.token.txt: name#k<TAB>caption */
    CT_CAPTIONS_FLICKR30K_KAGGLE /* results.csv: image_name| comment_number| comment */
} ct_captions_format;

typedef enum ct_image_encoder {
    CT_RESNET18,
    CT_RESNET34,
    CT_RESNET50,
    CT_RESNET101,
    CT_VIT
} ct_image_encoder;

typedef enum ct_text_encoder { CT_DISTILBERT } ct_text_encoder;

typedef enum ct_text_activation { CT_TEXT_GELU, CT_TEXT_GELU_TANH } ct_text_activation;

typedef enum ct_interpolation { CT_BILINEAR, CT_BICUBIC } ct_interpolation;

typedef enum ct_projection_kind {
    CT_PROJECTION_LINEAR, /* y = x w^T, no bias (OpenAI's CLIP) */
    CT_PROJECTION_MLP     /* p = fc1(x); y = LayerNorm(p + dropout(fc2(GELU(p)))) */
} ct_projection_kind;

typedef enum ct_schedule_kind { CT_SCHEDULE_COSINE, CT_SCHEDULE_CONSTANT } ct_schedule_kind;

/* The type in which gradients travel between ranks. */
typedef enum ct_reduce_kind { CT_REDUCE_F32, CT_REDUCE_BF16 } ct_reduce_kind;

typedef enum ct_loss_kind {
    CT_LOSS_SOFTMAX, /* symmetric cross-entropy (CLIP) */
    CT_LOSS_SIGMOID  /* pairwise sigmoid (SigLIP) */
} ct_loss_kind;

typedef enum ct_same_image_kind {
    CT_CONFIG_MASK,
    CT_CONFIG_SHARE,
    CT_CONFIG_NEGATIVE
} ct_same_image_kind; /* the values of ct_same_image in op.h, in its order */

typedef struct ct_config {
    int64_t seed;           /* seed: >= 0 */
    char *output;           /* output: folder of this run */
    ct_device_kind device;  /* device: auto | cpu | cuda */
    int64_t threads;        /* threads: compute threads, 0 = all processors */
    ct_precision precision; /* precision: auto | f32 | tf32 | bf16 | fp16 */

    struct {
        char *captions;            /* data.captions: the captions file (required) */
        char *images;              /* data.images: the folder of photos (required) */
        ct_captions_format format; /* data.format: auto | flickr8k | flickr8k-token | flickr30k */
        double validation;     /* data.validation: share of photos in [0, 1), or, from 1 on, their
                                  number */
        double test;           /* data.test: likewise */
        int64_t split_seed;    /* data.split_seed */
        char *train_list;      /* data.train_list, .validation_list, .test_list: files with */
        char *validation_list; /* one photo name a line; "" = split by seed */
        char *test_list;
        int64_t workers;  /* data.workers: decoding threads, 0 = as many as compute threads */
        int64_t prefetch; /* data.prefetch: batches in the ring, 2..64 */
        double
            max_bad_share; /* data.max_bad_share: share of unreadable photos put up with, [0, 1] */
    } data;

    struct {
        ct_image_encoder encoder; /* image.encoder: resnet18 | resnet34 | resnet50 | resnet101 |
                                     vit */
        int64_t size;             /* image.size: pixels a side, 32..1024 */
        int64_t patch_size;       /* image.patch_size: pixels a side of a ViT's patches */
        int64_t width, depth, heads, ffn; /* image.width, .depth, .heads, .ffn: of a ViT */
        char *weights; /* image.weights: safetensors with torchvision's or, for a ViT, timm's names,
                          "" = from scratch */
        double mean[3], std[3];         /* image.mean, image.std: of the channels in [0, 1] */
        ct_interpolation interpolation; /* image.interpolation: bilinear | bicubic */
        double crop_scale[2];           /* image.crop_scale: area share of the random crop */
        double crop_ratio[2];           /* image.crop_ratio: its aspect ratio, width/height */
        double flip;                    /* image.flip: probability of mirroring, [0, 1] */
        double eval_resize; /* image.eval_resize: shorter side before the centre crop, as a multiple
                               of size, >= 1 */
    } image;

    struct {
        ct_text_encoder encoder;          /* text.encoder: distilbert */
        char *vocab;                      /* text.vocab: BERT's vocab.txt (required) */
        bool lowercase;                   /* text.lowercase: uncased vocabulary */
        int64_t max_tokens;               /* text.max_tokens: with [CLS] and [SEP], 4..512 */
        char *weights;                    /* text.weights: safetensors with Hugging Face's names */
        int64_t width, depth, heads, ffn; /* text.width, .depth, .heads, .ffn */
        double dropout;                   /* text.dropout */
        double attention_dropout;         /* text.attention_dropout */
        ct_text_activation activation;    /* text.activation: gelu | gelu_tanh */
    } text;

    struct {
        ct_projection_kind kind; /* projection.kind: linear | mlp */
        int64_t dim;             /* projection.dim: width of the shared space */
        double dropout;          /* projection.dropout (mlp) */
    } projection;

    struct {
        ct_loss_kind kind;             /* loss.kind: softmax | sigmoid */
        ct_same_image_kind same_image; /* loss.same_image: mask | share | negative */
        double logit_scale_init;       /* loss.logit_scale_init: as a factor, default 1/0.07 */
        double logit_scale_max;        /* loss.logit_scale_max: as a factor, default 100 */
        double logit_bias_init;        /* loss.logit_bias_init: sigmoid only */
        double label_smoothing;        /* loss.label_smoothing: [0, 1), softmax only */
    } loss;

    struct {
        int64_t batch_size;       /* train.batch_size: photos a step, >= 2 */
        int64_t micro_batch_size; /* train.micro_batch_size: photos that go through a tower at once,
                                     0 = all of the batch */
        int64_t epochs;           /* train.epochs */
        int64_t max_steps;        /* train.max_steps: 0 = as epochs say */
        double lr_image, lr_text, lr_head; /* train.lr_image, .lr_text, .lr_head */
        double weight_decay;       /* train.weight_decay: not on norms, biases, logit_scale */
        double beta1, beta2, eps;  /* train.beta1, .beta2, .eps */
        int64_t warmup_steps;      /* train.warmup_steps */
        ct_schedule_kind schedule; /* train.schedule: cosine | constant, after the warmup */
        double clip_grad_norm;     /* train.clip_grad_norm: 0 = off */
        int64_t eval_every; /* train.eval_every: epochs between validations, 0 = at the end only */
        int64_t checkpoint_every; /* train.checkpoint_every: steps between checkpoints, 0 = at
                                     epochs' ends */
        int64_t keep_checkpoints; /* train.keep_checkpoints: older ones are removed; 0 = keep all */
        bool stochastic_rounding; /* train.stochastic_rounding: of the weights, in bf16 */
        int64_t loss_scale_growth; /* train.loss_scale_growth: finite steps before the loss scale
                                      doubles, in fp16 */
    } train;

    struct {
        bool sync_bn;          /* distributed.sync_bn: BatchNorm statistics of all ranks' photos */
        ct_reduce_kind reduce; /* distributed.reduce: f32 | bf16, of gradients between ranks */
        bool zero;             /* distributed.zero: each rank keeps its part of the moments */
        int64_t bucket_mib;    /* distributed.bucket_mib: gradients reduced at a time */
        double timeout_s;      /* distributed.timeout_s: after which a silent rank is given up */
    } distributed;

    struct {
        bool graphs;           /* cuda.graphs: replay recorded steps */
        bool fused_statistics; /* cuda.fused_statistics: convolutions form moments */
        bool autotune;         /* cuda.autotune: time the plans of convolutions */
        bool deterministic;    /* cuda.deterministic: equal bits from run to run */
        char *plan_cache; /* cuda.plan_cache: file that remembers autotuned choices, "" = none */
    } cuda;
} ct_config;

/* Photos, or captions, that go through a rank's tower at once, in training and in evaluation. */
static inline int64_t ct_config_pass_size(const ct_config *config, int ranks)
{
    const int64_t batch = config->train.batch_size / ranks, micro = config->train.micro_batch_size;
    return micro > 0 && micro < batch ? micro : batch;
}

/* All keys at their defaults. Destroy with ct_config_destroy. */
CT_NODISCARD ct_status ct_config_create(ct_config **out);
void ct_config_destroy(ct_config *config);

/* Reads a YAML file over what the config holds. CT_ERR_CONFIG names file, line and key. */
CT_NODISCARD ct_status ct_config_load(ct_config *config, const char *path);

/* The same from text; `name` stands for the file in messages. */
CT_NODISCARD ct_status ct_config_parse(ct_config *config, const char *text, size_t size,
                                       const char *name);

/* One key=value of the command line, e.g. "train.batch_size=64"; lists as "[0.5, 1.0]". */
CT_NODISCARD ct_status ct_config_override(ct_config *config, const char *assignment);

/* What single ranges cannot say: required keys, heads dividing width, min <= max of pairs, lists
 * given together, warmup shorter than the run when max_steps is given, ... */
CT_NODISCARD ct_status ct_config_validate(const ct_config *config);

/* *out = the whole config as YAML that ct_config_parse reads back to equal values (doubles with 17
 * digits where needed); freed with free(). */
CT_NODISCARD ct_status ct_config_print(const ct_config *config, char **out);

/* Writes docs/CONFIG.md: a Markdown table a section, from the schema. */
void ct_config_reference(FILE *stream);

#endif
