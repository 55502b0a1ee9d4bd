#include "train/restored.h"

#include <sys/stat.h>

#include "train/run_folder.h"
#include "train/select_device.h"

ct_status ct_restored_open(const char *path, ct_restored *restored)
{
    char newest[CT_PATH_BYTES];
    struct stat info;
    *restored = (ct_restored){0};
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
        CT_TRY(ct_run_newest_checkpoint(path, newest));
        if (!newest[0])
            return ct_fail(CT_ERR_IO, "%s: no checkpoint-*.safetensors in this folder", path);
        path = newest;
    }
    CT_TRY(ct_checkpoint_open(path, &restored->checkpoint));
    CT_TRY(ct_checkpoint_config(restored->checkpoint, &restored->config));
    return ct_checkpoint_tokenizer(restored->checkpoint, restored->config->text.lowercase,
                                   &restored->tokenizer);
}

ct_status ct_restored_build(ct_restored *restored, int32_t longest)
{
    const ct_config *config = restored->config;
    CT_TRY(ct_device_select(config, NULL, &restored->device, &restored->threads));
    const int64_t pass = ct_config_pass_size(config, 1);
    ct_clip_limits limits = {
        .batch = (int32_t)pass,
        .tokens = pass * longest,
        .max_seqlen = longest,
        .training = false,
    };
    CT_TRY(ct_clip_create(config, ct_tokenizer_vocab_size(restored->tokenizer), restored->device,
                          &limits, &restored->clip));
    return ct_checkpoint_restore(restored->checkpoint, ct_clip_params(restored->clip),
                                 restored->device);
}

void ct_restored_close(ct_restored *restored)
{
    ct_clip_destroy(restored->clip);
    ct_device_destroy(restored->device);
    ct_tokenizer_destroy(restored->tokenizer);
    ct_config_destroy(restored->config);
    ct_checkpoint_close(restored->checkpoint);
}
