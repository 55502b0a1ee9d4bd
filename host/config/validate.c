/* Rules between keys; single ranges are the schema's. */
#include <math.h>

#include "config/config.h"

static ct_status require(const char *value, const char *key, const char *what)
{
    return *value ? CT_OK : ct_fail(CT_ERR_CONFIG, "%s: is required: %s", key, what);
}

/* Below 1 a share, from 1 on a number, which has no fraction. */
static ct_status check_part(double value, const char *key)
{
    if (value < 1 || floor(value) == value) return CT_OK;
    return ct_fail(CT_ERR_CONFIG,
                   "%s: expected a share below 1 or a whole number of photos, found %.15g", key,
                   value);
}

static ct_status check_pair(const double pair[2], const char *key)
{
    if (pair[0] <= pair[1]) return CT_OK;
    return ct_fail(CT_ERR_CONFIG, "%s: expected the smaller number first, found [%.15g, %.15g]",
                   key, pair[0], pair[1]);
}

static ct_status check_lists(const ct_config *config)
{
    if (*config->data.train_list) return CT_OK;
    const char *key = *config->data.validation_list ? "data.validation_list"
                      : *config->data.test_list     ? "data.test_list"
                                                    : NULL;
    if (!key) return CT_OK;
    return ct_fail(CT_ERR_CONFIG, "%s: needs data.train_list with it", key);
}

static ct_status check_data(const ct_config *config)
{
    CT_TRY(require(config->data.captions, "data.captions", "the captions file"));
    CT_TRY(require(config->data.images, "data.images", "the folder of photos"));
    CT_TRY(require(config->text.vocab, "text.vocab", "BERT's vocab.txt"));
    CT_TRY(require(config->output, "output", "the folder of this run"));
    CT_TRY(check_lists(config));
    CT_TRY(check_part(config->data.validation, "data.validation"));
    CT_TRY(check_part(config->data.test, "data.test"));
    if (config->data.validation < 1 && config->data.test < 1 &&
        config->data.validation + config->data.test >= 1)
        return ct_fail(CT_ERR_CONFIG,
                       "data.validation and data.test: %.15g and %.15g leave nothing to train on",
                       config->data.validation, config->data.test);
    return CT_OK;
}

static ct_status check_vit(const ct_config *config)
{
    if (config->image.encoder != CT_VIT) return CT_OK;
    if (config->image.size % config->image.patch_size != 0)
        return ct_fail(CT_ERR_CONFIG,
                       "image.size: expected a multiple of image.patch_size (%lld), found %lld",
                       (long long)config->image.patch_size, (long long)config->image.size);
    if (config->image.width % config->image.heads != 0)
        return ct_fail(CT_ERR_CONFIG,
                       "image.width: expected a multiple of image.heads (%lld), found %lld",
                       (long long)config->image.heads, (long long)config->image.width);
    return CT_OK;
}

ct_status ct_config_validate(const ct_config *config)
{
    CT_TRY(check_data(config));
    CT_TRY(check_pair(config->image.crop_scale, "image.crop_scale"));
    CT_TRY(check_pair(config->image.crop_ratio, "image.crop_ratio"));
    CT_TRY(check_vit(config));
    if (config->text.width % config->text.heads != 0)
        return ct_fail(CT_ERR_CONFIG,
                       "text.width: expected a multiple of text.heads (%lld), found %lld",
                       (long long)config->text.heads, (long long)config->text.width);
    if (config->loss.logit_scale_init > config->loss.logit_scale_max)
        return ct_fail(CT_ERR_CONFIG,
                       "loss.logit_scale_init: expected at most loss.logit_scale_max (%.15g), "
                       "found %.15g",
                       config->loss.logit_scale_max, config->loss.logit_scale_init);
    if (config->loss.kind == CT_LOSS_SIGMOID && config->loss.label_smoothing > 0)
        return ct_fail(CT_ERR_CONFIG, "loss.label_smoothing: is for loss.kind: softmax only");
    if (config->train.stochastic_rounding && config->precision != CT_PRECISION_AUTO &&
        config->precision != CT_PRECISION_BF16)
        return ct_fail(CT_ERR_CONFIG,
                       "train.stochastic_rounding: is for precision: bf16 (or auto) only");
    if (config->train.max_steps && config->train.warmup_steps >= config->train.max_steps)
        return ct_fail(CT_ERR_CONFIG,
                       "train.warmup_steps: expected fewer than train.max_steps (%lld), found %lld",
                       (long long)config->train.max_steps, (long long)config->train.warmup_steps);
    return CT_OK;
}
