#include "config/schema.h"

/* A row's name is its field's, so the two cannot differ; _Generic makes a field of another type
 * than the row's a compile error (an enum is compatible with unsigned, a list decays). */
#define ROW(field, key_type, c_type)                                                               \
    .name = #field, .type = key_type, .count = 1,                                                  \
    .offset = _Generic(((ct_config *)0)->field, c_type                                             \
                       : offsetof(ct_config, field))
#define WHOLE(field)  ROW(field, CT_KEY_WHOLE, int64_t)
#define REAL(field)   ROW(field, CT_KEY_REAL, double)
#define BOOL(field)   ROW(field, CT_KEY_BOOL, bool)
#define TEXT(field)   ROW(field, CT_KEY_TEXT, char *)
#define CHOICE(field) ROW(field, CT_KEY_CHOICE, unsigned)
#define REALS(field, n)                                                                            \
    .name = #field, .type = CT_KEY_REAL, .count = n,                                               \
    .offset = _Generic(((ct_config *)0)->field, double *: offsetof(ct_config, field))
#define WHOLE_RANGE(low, high) .whole_min = low, .whole_max = high
#define REAL_RANGE(low, high)  .real_min = low, .real_max = high
#define NAMES(...)                                                                                 \
    .names = (const char *const[])                                                                 \
    {                                                                                              \
        __VA_ARGS__, NULL                                                                          \
    }

const ct_section ct_sections[] = {
    {"", "Of the run as a whole."},
    {"data", "Which photos and captions, and how they are split and read."},
    {"image", "The image tower, and the pixels it is shown."},
    {"text", "The text tower. Its sizes are DistilBERT's (Sanh et al. 2019, `distilbert-base`); "
             "change them only when training it from scratch."},
    {"projection", "From each tower's features to the space that photos and captions share."},
    {"loss", "The contrastive loss between all photos and all captions of a batch."},
    {"train", "Optimiser (AdamW, Loshchilov & Hutter 2019), schedule and bookkeeping."},
    {"distributed",
     "Several GPUs or processes. `train.batch_size` is that of all ranks together. A "
     "run of one process ignores this section."},
    {"cuda", "How a GPU is driven. The processor ignores this section."},
};
const int ct_section_count = sizeof ct_sections / sizeof *ct_sections;

const ct_key ct_keys[] = {
    {WHOLE(seed), WHOLE_RANGE(0, INT64_MAX), .preset = "0",
     .help = "Seed of initial weights, order of photos, choice of captions, crops and dropout. Two "
             "runs with the same seed and settings see the same numbers. The split has a seed of "
             "its own, `data.split_seed`."},
    {TEXT(output), .preset = "run",
     .help = "Folder of this run: checkpoints, `metrics.jsonl`, `report.html`. Made when it is "
             "not there."},
    {CHOICE(device), NAMES("auto", "cpu", "cuda"), .preset = "auto",
     .help = "Where to compute. `auto` takes a CUDA device when this build and this machine have "
             "one, else the processor."},
    {WHOLE(threads), WHOLE_RANGE(0, 4096), .preset = "0",
     .help = "Threads that compute on the processor; 0: one a processor."},
    {CHOICE(precision), NAMES("auto", "f32", "tf32", "bf16", "fp16"), .preset = "auto",
     .help = "Type of activations and of the operands of matrix products and convolutions. "
             "Parameters, their moments, normalisation statistics and the loss stay in f32 "
             "whatever it is. `auto`: `bf16` on a GPU that has it, else `f32`. `tf32` stores f32 "
             "and multiplies with 10 bits of mantissa. `fp16` scales the loss by a factor that "
             "adapts itself (Micikevicius et al. 2018). The processor computes in `f32` only."},

    {TEXT(data.captions), .preset = "\"\"", .help = "The captions file. **Required.**"},
    {TEXT(data.images), .preset = "\"\"",
     .help = "The folder that holds the photos named in the captions file. **Required.**"},
    {CHOICE(data.format), NAMES("auto", "flickr8k", "flickr8k-token", "flickr30k"),
     .preset = "auto",
     .help = "Format of the captions file. `flickr8k`: Kaggle's `captions.txt`, comma-separated "
             "with the header `image,caption`. `flickr8k-token`: the original "
             "`Flickr8k.token.txt`, `name#k`, a tab, the caption. `flickr30k`: Kaggle's "
             "`results.csv`, separated by bars, with the header image_name, comment_number, "
             "comment. `auto` tells by the first line."},
    {REAL(data.validation), REAL_RANGE(0, 2147483647), .preset = "0.1",
     .help = "Photos set aside for validation: below 1 their share, from 1 on their number. 0: no "
             "validation. The customary splits of Flickr8k and Flickr30k have 1000 each for "
             "validation and test."},
    {REAL(data.test), REAL_RANGE(0, 2147483647), .preset = "0.1",
     .help = "Photos set aside for the final test, likewise. Training never looks at them."},
    {WHOLE(data.split_seed), WHOLE_RANGE(0, INT64_MAX), .preset = "0",
     .help = "Seed of the split. Photos are split, not captions, so no photo is in two parts."},
    {TEXT(data.train_list), .preset = "\"\"",
     .help = "File with the names of the training photos, one a line, such as "
             "`Flickr_8k.trainImages.txt`. Empty: split by `data.split_seed`."},
    {TEXT(data.validation_list), .preset = "\"\"",
     .help = "File with the names of the validation photos, such as `Flickr_8k.devImages.txt`. "
             "Goes with `data.train_list`."},
    {TEXT(data.test_list), .preset = "\"\"",
     .help = "File with the names of the test photos, such as `Flickr_8k.testImages.txt`. Goes "
             "with `data.train_list`."},
    {WHOLE(data.workers), WHOLE_RANGE(0, 1024), .preset = "0",
     .help = "Threads that decode photos ahead of the trainer; 0: as many as compute."},
    {WHOLE(data.prefetch), WHOLE_RANGE(2, 64), .preset = "4",
     .help = "Batches held ready. More even out slow disks and cost memory: "
             "3 · `train.batch_size` · `image.size`² bytes each."},
    {REAL(data.max_bad_share), REAL_RANGE(0, 1), .preset = "0.01",
     .help = "Share of malformed caption rows, and of photos that cannot be read, that is put up "
             "with. Each is reported and left out; more of them end the run."},

    {CHOICE(image.encoder), NAMES("resnet18", "resnet34", "resnet50", "resnet101", "vit"),
     .preset = "resnet50",
     .help =
         "The network: a ResNet (He et al. 2016, with the stride in the 3 × 3 convolution of a "
         "bottleneck, as torchvision has it), or a Vision Transformer (Dosovitskiy et al. 2021, "
         "as timm has it) whose sizes the next keys give."},
    {WHOLE(image.patch_size), WHOLE_RANGE(1, 1024), .preset = "16",
     .help = "Of a ViT: width and height of a patch in pixels; divides `image.size`. The defaults "
             "of this and the next four keys are ViT-B/16."},
    {WHOLE(image.width), WHOLE_RANGE(1, 8192), .preset = "768",
     .help = "Of a ViT: features a token. A multiple of `image.heads`."},
    {WHOLE(image.depth), WHOLE_RANGE(1, 64), .preset = "12", .help = "Of a ViT: blocks."},
    {WHOLE(image.heads), WHOLE_RANGE(1, 256), .preset = "12",
     .help = "Of a ViT: attention heads a block."},
    {WHOLE(image.ffn), WHOLE_RANGE(1, 65536), .preset = "3072",
     .help = "Of a ViT: features inside a feed-forward block."},
    {WHOLE(image.size), WHOLE_RANGE(32, 1024), .preset = "224",
     .help = "Width and height of the square the network sees, in pixels. 224 is what the "
             "published weights were trained with."},
    {TEXT(image.weights), .preset = "\"\"",
     .help = "Pretrained weights: a safetensors file with torchvision's names for a ResNet, timm's "
             "for a ViT; `fc` and `head` are ignored. Empty: random weights."},
    {REALS(image.mean, 3), REAL_RANGE(0, 1), .preset = "[0.485, 0.456, 0.406]",
     .help = "Mean of red, green and blue, taken off values scaled to 0…1. The default is "
             "ImageNet's, which torchvision's weights expect."},
    {REALS(image.std, 3), REAL_RANGE(0, 10), .above_min = true, .preset = "[0.229, 0.224, 0.225]",
     .help = "Standard deviation of the channels, which they are divided by. ImageNet's."},
    {CHOICE(image.interpolation), NAMES("bilinear", "bicubic"), .preset = "bilinear",
     .help = "Filter of resizing, both antialiased and equal to Pillow's. torchvision's weights "
             "were trained with `bilinear`, OpenAI's CLIP with `bicubic`."},
    {REALS(image.crop_scale, 2), REAL_RANGE(0, 1), .above_min = true, .preset = "[0.5, 1]",
     .help = "Least and greatest share of a photo's area that a training crop keeps. torchvision "
             "goes down to 0.08, which often cuts away what a caption names; OpenCLIP only to "
             "0.9, which suits millions of photos. The default lies between, for thousands."},
    {REALS(image.crop_ratio, 2), REAL_RANGE(0, 100), .above_min = true,
     .preset = "[0.75, 1.3333333333333333]",
     .help = "Least and greatest width/height of a training crop before it is resized to a square. "
             "torchvision's."},
    {REAL(image.flip), REAL_RANGE(0, 1), .preset = "0.5",
     .help = "Probability of mirroring a training photo. 0 when captions tell left from right."},
    {REAL(image.eval_resize), REAL_RANGE(1, 4), .preset = "1.143",
     .help = "For evaluation the shorter side is resized to this multiple of `image.size`, then "
             "the central square is cut out. The default is torchvision's 256 for 224."},

    {CHOICE(text.encoder), NAMES("distilbert"), .preset = "distilbert", .help = "The network."},
    {TEXT(text.vocab), .preset = "\"\"",
     .help = "The WordPiece vocabulary: BERT's `vocab.txt`, one token a line. **Required.**"},
    {BOOL(text.lowercase), .preset = "true",
     .help = "Lower-case captions and strip accents, as uncased vocabularies expect."},
    {WHOLE(text.max_tokens), WHOLE_RANGE(4, 512), .preset = "64",
     .help = "Longer captions are cut to so many tokens, `[CLS]` and `[SEP]` among them. Captions "
             "are never padded, so a generous limit costs nothing; Flickr8k's longest has 42."},
    {TEXT(text.weights), .preset = "\"\"",
     .help = "Pretrained weights: a safetensors file with Hugging Face's names for DistilBERT. "
             "Empty: random weights."},
    {WHOLE(text.width), WHOLE_RANGE(1, 8192), .preset = "768",
     .help = "Features a token. A multiple of `text.heads`."},
    {WHOLE(text.depth), WHOLE_RANGE(1, 64), .preset = "6", .help = "Transformer layers."},
    {WHOLE(text.heads), WHOLE_RANGE(1, 256), .preset = "12", .help = "Attention heads a layer."},
    {WHOLE(text.ffn), WHOLE_RANGE(1, 65536), .preset = "3072",
     .help = "Features inside a feed-forward block."},
    {REAL(text.dropout), REAL_RANGE(0, 1), .below_max = true, .preset = "0.1",
     .help = "Probability of dropping an element of the embeddings and of each feed-forward "
             "block's output."},
    {REAL(text.attention_dropout), REAL_RANGE(0, 1), .below_max = true, .preset = "0.1",
     .help = "Probability of dropping an attention weight."},
    {CHOICE(text.activation), NAMES("gelu", "gelu_tanh"), .preset = "gelu",
     .help = "Inside the feed-forward blocks: `gelu` is exact, as DistilBERT was trained; "
             "`gelu_tanh` its tanh approximation (Hendrycks & Gimpel 2016), off by at most 0.0005, "
             "which a GPU adds to a matrix product at no cost."},

    {CHOICE(projection.kind), NAMES("linear", "mlp"), .preset = "linear",
     .help = "`linear`: one matrix without bias, as in OpenAI's CLIP. `mlp`: p = fc1(x), then "
             "LayerNorm(p + dropout(fc2(GELU(p))))."},
    {WHOLE(projection.dim), WHOLE_RANGE(1, 8192), .preset = "512",
     .help = "Width of the shared space. OpenAI's ViT-B/32 has 512."},
    {REAL(projection.dropout), REAL_RANGE(0, 1), .below_max = true, .preset = "0.1",
     .help = "Dropout in `mlp`; `linear` has none."},

    {CHOICE(loss.kind), NAMES("softmax", "sigmoid"), .preset = "softmax",
     .help =
         "`softmax`: the symmetric cross-entropy of CLIP (Radford et al. 2021). `sigmoid`: each "
         "pair on its own, with a learned bias (Zhai et al. 2023, SigLIP); it starts best with "
         "`loss.logit_scale_init: 10`."},
    {CHOICE(loss.same_image), NAMES("mask", "share", "negative"), .preset = "mask",
     .help = "Pairs in a batch that show the same photo: `mask` leaves them out of the "
             "denominator, `share` spreads the target over them, `negative` pushes them apart as "
             "OpenAI's CLIP does."},
    {REAL(loss.logit_scale_init), REAL_RANGE(0, 1000), .above_min = true,
     .preset = "14.285714285714286",
     .help = "The factor on cosines at the start: 1/temperature. The default is CLIP's 1/0.07."},
    {REAL(loss.logit_scale_max), REAL_RANGE(0, 1000), .above_min = true, .preset = "100",
     .help = "The learned factor is kept at or below this, which prevents instability. CLIP's."},
    {REAL(loss.logit_bias_init), REAL_RANGE(-1000, 1000), .preset = "-10",
     .help = "The learned bias at the start, with `loss.kind: sigmoid`: negative, as nearly all "
             "pairs are. SigLIP's."},
    {REAL(loss.label_smoothing), REAL_RANGE(0, 1), .below_max = true, .preset = "0",
     .help = "Share of the target that is spread over all pairs of a row or column that count "
             "(Szegedy et al. 2016), with `loss.kind: softmax`. CLIP has none."},

    {WHOLE(train.batch_size), WHOLE_RANGE(2, 1048576), .preset = "128",
     .help = "Photos a step, each with one of its captions. All others of the batch are its "
             "negatives, so larger is better while memory lasts (CLIP's was 32768)."},
    {WHOLE(train.micro_batch_size), WHOLE_RANGE(0, 1048576), .preset = "0",
     .help = "When a batch's activations do not fit in memory: so many photos and captions go "
             "through a tower at once, while the loss still sees the whole batch (Gao et al. 2021, "
             "GradCache). The gradients are those of the whole batch; each tower runs forward "
             "twice, a third more work. BatchNorm's statistics are those of a micro-batch. 0: all "
             "at once."},
    {WHOLE(train.epochs), WHOLE_RANGE(1, 1000000), .preset = "10",
     .help = "Passes over the training photos, each with one random caption a photo."},
    {WHOLE(train.max_steps), WHOLE_RANGE(0, 1000000000000), .preset = "0",
     .help = "Ends the run after so many optimiser steps; 0: as `train.epochs` says. The schedule "
             "ends with the run."},
    {REAL(train.lr_image), REAL_RANGE(0, 10), .preset = "1e-4",
     .help = "Peak learning rate of the image tower. The defaults of the three rates suit "
             "pretrained towers under new projections; from scratch 5e-4 for all, as CLIP has "
             "it, is a start. 0 keeps the tower as it is."},
    {REAL(train.lr_text), REAL_RANGE(0, 10), .preset = "1e-5",
     .help = "Peak learning rate of the text tower. Pretrained transformers want small ones "
             "(Devlin et al. 2019 fine-tune with 2e-5 to 5e-5)."},
    {REAL(train.lr_head), REAL_RANGE(0, 10), .preset = "1e-3",
     .help = "Peak learning rate of the projections and of logit_scale."},
    {REAL(train.weight_decay), REAL_RANGE(0, 10), .preset = "0.1",
     .help = "Decoupled weight decay, times the learning rate; not on biases, norms and "
             "logit_scale. CLIP has 0.2 when training from scratch; less is enough for pretrained "
             "weights."},
    {REAL(train.beta1), REAL_RANGE(0, 1), .below_max = true, .preset = "0.9",
     .help = "Decay of AdamW's first moment."},
    {REAL(train.beta2), REAL_RANGE(0, 1), .below_max = true, .preset = "0.999",
     .help = "Decay of AdamW's second moment. CLIP has 0.999 for ResNets, 0.98 for ViTs."},
    {REAL(train.eps), REAL_RANGE(0, 1), .above_min = true, .preset = "1e-8",
     .help = "Added to the root of the second moment. CLIP has 1e-8 for ResNets, 1e-6 for ViTs."},
    {WHOLE(train.warmup_steps), WHOLE_RANGE(0, 1000000000), .preset = "100",
     .help = "Steps over which the rates rise linearly to their peak."},
    {CHOICE(train.schedule), NAMES("cosine", "constant"), .preset = "cosine",
     .help = "After the warmup: `cosine` falls to 0 at the end of the run along half a cosine "
             "(Loshchilov & Hutter 2017), `constant` stays."},
    {REAL(train.clip_grad_norm), REAL_RANGE(0, 1e9), .preset = "1",
     .help = "Gradients whose norm over all parameters is greater are scaled down to it; 0: off."},
    {WHOLE(train.eval_every), WHOLE_RANGE(0, 1000000), .preset = "1",
     .help = "Epochs from one validation to the next; 0: only at the end."},
    {WHOLE(train.checkpoint_every), WHOLE_RANGE(0, 1000000000), .preset = "0",
     .help = "Steps from one checkpoint to the next; 0: at the end of every epoch."},
    {WHOLE(train.keep_checkpoints), WHOLE_RANGE(0, 1000000), .preset = "3",
     .help = "How many of the newest checkpoints are kept; 0: all."},
    {BOOL(train.stochastic_rounding), .preset = "false",
     .help = "In `bf16`, round the weights that operations read up or down at random, so that the "
             "mean is the exact f32 value, instead of to the nearest."},
    {WHOLE(train.loss_scale_growth), WHOLE_RANGE(1, 1000000000), .preset = "2000",
     .help = "In `fp16`, double the loss scale after so many steps in a row with finite gradients. "
             "PyTorch's."},

    {BOOL(distributed.sync_bn), .preset = "false",
     .help =
         "BatchNorm's statistics over the photos of all ranks, as one rank with the whole batch "
         "would have them, instead of each rank's own. Costs two exchanges a layer. A ViT has "
         "no BatchNorm."},
    {CHOICE(distributed.reduce), NAMES("f32", "bf16"), .preset = "f32",
     .help = "Type in which gradients travel between ranks: `bf16` halves the bytes and rounds "
             "each rank's gradient to 8 bits of mantissa."},
    {BOOL(distributed.zero), .preset = "false",
     .help = "Each rank keeps and updates its part of AdamW's moments only (Rajbhandari et al. "
             "2020, ZeRO-1): 8 bytes a parameter become 8/ranks. Results are the same but for the "
             "order of sums."},
    {WHOLE(distributed.bucket_mib), WHOLE_RANGE(1, 4096), .preset = "25",
     .help = "Gradients are reduced so many MiB at a time while backward goes on. PyTorch's."},
    {REAL(distributed.timeout_s), REAL_RANGE(1, 86400), .preset = "120",
     .help =
         "Seconds for all ranks to meet at the start, and after which a rank that gives no sign "
         "of life, or does not reach the step the others wait in, is named and the job ends. "
         "Reading a checkpoint and validating may take longer: they are not counted."},

    {BOOL(cuda.graphs), .preset = "true",
     .help = "Record the operations of a step once for each of the few token counts that occur, "
             "then launch them all at once (CUDA graphs). Changes no result."},
    {BOOL(cuda.fused_statistics), .preset = "false",
     .help =
         "ResNet: a convolution gives batch normalisation its statistics as it writes its "
         "result, where cuDNN has a kernel for both: one reading of each result less, for about "
         "half a second of compilation a shape at the start. In fp16; in bf16 and tf32 only "
         "without `cuda.deterministic`. Not yet measured."},
    {BOOL(cuda.autotune), .preset = "false",
     .help = "Time several plans for every convolution at the start and take the fastest, instead "
             "of trusting cuDNN's heuristic."},
    {BOOL(cuda.deterministic), .preset = "true",
     .help = "Use only algorithms that give the same bits every time."},
    {TEXT(cuda.plan_cache), .preset = "\"\"",
     .help = "File that remembers what `cuda.autotune` chose, for later runs. Empty: none."},
};
const int ct_key_count = sizeof ct_keys / sizeof *ct_keys;

_Static_assert(sizeof ct_keys / sizeof *ct_keys <= CT_MAX_KEYS, "raise CT_MAX_KEYS");
_Static_assert(sizeof ct_sections / sizeof *ct_sections <= CT_MAX_SECTIONS,
               "raise CT_MAX_SECTIONS");
