#include "train/checkpoint.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/moments.h"
#include "model/safetensors.h"

#define FORMAT     "clip-train/1"
#define VOCAB_NAME "tokenizer.vocab"

/* What is stored of each parameter, and under which prefix. */
typedef struct part {
    const char *prefix;
    size_t offset; /* of the tensor in ct_param */
    int moment;    /* 0: first, 1: second; -1: neither */
} part;

static const part parts[] = {{"model.", offsetof(ct_param, value), -1},
                             {"exp_avg.", offsetof(ct_param, exp_avg), 0},
                             {"exp_avg_sq.", offsetof(ct_param, exp_avg_sq), 1}};
#define PART_COUNT (int)(sizeof parts / sizeof parts[0])

struct ct_checkpoint {
    ct_safetensors *file;
    int64_t step;
};

/* Ranks that have their own parts of the moments only exchange them through the gradients. */
static bool is_shared(const ct_params *params, const part *which)
{
    return which->moment >= 0 && ct_params_own_moments(params);
}

/* Where the part lies, or lies in passing; absent when the parameter has no such. */
static const ct_tensor *part_of(const ct_params *params, const ct_param *param, const part *which)
{
    const size_t offset = is_shared(params, which) ? offsetof(ct_param, grad) : which->offset;
    return (const ct_tensor *)((const char *)param + offset);
}

/* Shape of a parameter in files: PyTorch's, so filters (Co, KH, KW, Ci) become (Co, Ci, KH, KW). */
static void file_shape(const ct_param *param, int64_t dim[CT_MAX_RANK])
{
    const int64_t *in = param->value.dim;
    memcpy(dim, in, CT_MAX_RANK * sizeof *dim);
    if (param->filter) {
        dim[1] = in[3];
        dim[2] = in[1];
        dim[3] = in[2];
    }
}

static size_t largest_parameter(ct_params *params)
{
    int64_t most = 1;
    for (int i = 0; i < ct_params_count(params); i++) {
        int64_t count = ct_tensor_count(&ct_params_at(params, i)->value);
        if (count > most) most = count;
    }
    return (size_t)most;
}

/* ---- saving -------------------------------------------------------------------------------- */

static ct_status declare_all(ct_safetensors_writer *writer, ct_params *params,
                             const ct_config *config, const ct_tokenizer *tokenizer, int64_t step)
{
    char text[160], *yaml;
    snprintf(text, sizeof text, "%" PRId64, step);
    CT_TRY(ct_safetensors_writer_metadata(writer, "format", FORMAT));
    CT_TRY(ct_safetensors_writer_metadata(writer, "step", text));
    CT_TRY(ct_config_print(config, &yaml));
    ct_status status = ct_safetensors_writer_metadata(writer, "config", yaml);
    free(yaml);
    CT_TRY(status);
    for (int p = 0; p < PART_COUNT; p++) {
        for (int i = 0; i < ct_params_count(params); i++) {
            const ct_param *param = ct_params_at(params, i);
            int64_t dim[CT_MAX_RANK];
            if (!ct_tensor_present(part_of(params, param, &parts[p]))) continue;
            file_shape(param, dim);
            snprintf(text, sizeof text, "%s%s", parts[p].prefix, param->name);
            CT_TRY(
                ct_safetensors_writer_declare(writer, text, CT_FILE_F32, param->value.rank, dim));
        }
    }
    size_t vocab_bytes;
    (void)ct_tokenizer_vocab_text(tokenizer, &vocab_bytes);
    int64_t count = (int64_t)vocab_bytes;
    return ct_safetensors_writer_declare(writer, VOCAB_NAME, CT_FILE_U8, 1, &count);
}

static ct_status put_all(ct_safetensors_writer *writer, ct_params *params, ct_device *device,
                         const ct_tokenizer *tokenizer, float *host)
{
    for (int p = 0; p < PART_COUNT; p++) {
        if (is_shared(params, &parts[p]))
            CT_TRY(ct_moments_gather(params, device, parts[p].moment));
        for (int i = 0; i < ct_params_count(params); i++) {
            const ct_param *param = ct_params_at(params, i);
            const ct_tensor *tensor = part_of(params, param, &parts[p]);
            if (!ct_tensor_present(tensor)) continue;
            CT_TRY(ct_param_download(params, param, tensor, host));
            CT_TRY(ct_safetensors_writer_put(writer, host, ct_tensor_bytes(tensor)));
        }
    }
    size_t vocab_bytes;
    const char *vocab = ct_tokenizer_vocab_text(tokenizer, &vocab_bytes);
    return ct_safetensors_writer_put(writer, vocab, vocab_bytes);
}

ct_status ct_checkpoint_assist(ct_params *params, ct_device *device)
{
    for (int p = 0; p < PART_COUNT; p++)
        if (is_shared(params, &parts[p]))
            CT_TRY(ct_moments_gather(params, device, parts[p].moment));
    return CT_OK;
}

ct_status ct_checkpoint_save(const char *path, ct_params *params, ct_device *device,
                             const ct_config *config, const ct_tokenizer *tokenizer, int64_t step)
{
    ct_safetensors_writer *writer;
    float *host = NULL;
    CT_TRY(ct_safetensors_writer_create(&writer));
    ct_status status;
    CT_TRY_GOTO(status, declare_all(writer, params, config, tokenizer, step), done);
    CT_TRY_GOTO(status, ct_alloc(largest_parameter(params), sizeof *host, "a checkpoint", &host),
                done);
    CT_TRY_GOTO(status, ct_safetensors_writer_begin(writer, path), done);
    CT_TRY_GOTO(status, put_all(writer, params, device, tokenizer, host), done);
    CT_TRY_GOTO(status, ct_safetensors_writer_commit(writer), done);
done:
    free(host);
    ct_safetensors_writer_destroy(writer);
    return status;
}

/* ---- loading ------------------------------------------------------------------------------- */

static ct_status read_step(ct_checkpoint *checkpoint)
{
    const char *path = ct_safetensors_path(checkpoint->file);
    const char *format = ct_safetensors_metadata(checkpoint->file, "format");
    const char *step = ct_safetensors_metadata(checkpoint->file, "step");
    if (!format || strcmp(format, FORMAT) != 0)
        return ct_fail(CT_ERR_FORMAT,
                       "%s: not a checkpoint: expected metadata format \"" FORMAT
                       "\", found \"%s\"",
                       path, format ? format : "");
    char *end = NULL;
    checkpoint->step = step ? strtoll(step, &end, 10) : -1;
    if (!step || !*step || *end || checkpoint->step < 0)
        return ct_fail(CT_ERR_FORMAT, "%s: expected a step number in the metadata, found \"%s\"",
                       path, step ? step : "");
    return CT_OK;
}

ct_status ct_checkpoint_open(const char *path, ct_checkpoint **out)
{
    ct_checkpoint *checkpoint;
    CT_TRY(ct_alloc(1, sizeof *checkpoint, "a checkpoint", &checkpoint));
    ct_status status = ct_safetensors_open(path, &checkpoint->file);
    if (status == CT_OK) status = read_step(checkpoint);
    if (status != CT_OK) {
        ct_checkpoint_close(checkpoint);
        return status;
    }
    *out = checkpoint;
    return CT_OK;
}

void ct_checkpoint_close(ct_checkpoint *checkpoint)
{
    if (!checkpoint) return;
    ct_safetensors_close(checkpoint->file);
    free(checkpoint);
}

int64_t ct_checkpoint_step(const ct_checkpoint *checkpoint)
{
    return checkpoint->step;
}

ct_status ct_checkpoint_config(const ct_checkpoint *checkpoint, ct_config **out)
{
    const char *path = ct_safetensors_path(checkpoint->file);
    const char *yaml = ct_safetensors_metadata(checkpoint->file, "config");
    if (!yaml) return ct_fail(CT_ERR_FORMAT, "%s: no configuration in the metadata", path);
    ct_config *config;
    CT_TRY(ct_config_create(&config));
    ct_status status = ct_config_parse(config, yaml, strlen(yaml), path);
    if (status != CT_OK) {
        ct_config_destroy(config);
        return status;
    }
    *out = config;
    return CT_OK;
}

ct_status ct_checkpoint_tokenizer(const ct_checkpoint *checkpoint, bool lowercase,
                                  ct_tokenizer **out)
{
    const char *path = ct_safetensors_path(checkpoint->file);
    const ct_file_tensor *vocab = ct_safetensors_find(checkpoint->file, VOCAB_NAME);
    if (!vocab || vocab->dtype != CT_FILE_U8)
        return ct_fail(CT_ERR_FORMAT, "%s: no vocabulary (" VOCAB_NAME ") in it", path);
    return ct_tokenizer_parse(ct_safetensors_data(checkpoint->file, vocab),
                              (size_t)(vocab->end - vocab->begin), path, lowercase, out);
}

/* Copies a file's tensor into `tensor` of `param` after checking its shape. */
static ct_status load_tensor(const ct_safetensors *file, const char *name, ct_params *params,
                             const ct_param *param, const ct_tensor *tensor, float *host)
{
    const char *path = ct_safetensors_path(file);
    const ct_file_tensor *found = ct_safetensors_find(file, name);
    int64_t dim[CT_MAX_RANK];
    if (!found) return ct_fail(CT_ERR_FORMAT, "%s: no tensor \"%s\"", path, name);
    file_shape(param, dim);
    bool same = found->rank == param->value.rank;
    for (int i = 0; same && i < found->rank; i++) same = found->dim[i] == dim[i];
    if (!same) {
        char expected[128] = "", actual[256] = "";
        for (int i = 0; i < param->value.rank; i++)
            sprintf(expected + strlen(expected), "%s%" PRId64, i ? ", " : "", dim[i]);
        for (int i = 0; i < found->rank; i++)
            sprintf(actual + strlen(actual), "%s%" PRId64, i ? ", " : "", found->dim[i]);
        return ct_fail(CT_ERR_FORMAT, "%s: \"%s\": expected shape (%s), as configured, found (%s)",
                       path, name, expected, actual);
    }
    CT_TRY(ct_safetensors_read_f32(file, found, host));
    return ct_param_upload(params, param, tensor, host);
}

static ct_status restore_all(const ct_checkpoint *checkpoint, ct_params *params, ct_device *device,
                             float *host)
{
    for (int p = 0; p < PART_COUNT; p++) {
        for (int i = 0; i < ct_params_count(params); i++) {
            const ct_param *param = ct_params_at(params, i);
            const ct_tensor *tensor = part_of(params, param, &parts[p]);
            char name[160];
            if (!ct_tensor_present(tensor)) continue;
            snprintf(name, sizeof name, "%s%s", parts[p].prefix, param->name);
            if (param->optional && !ct_safetensors_find(checkpoint->file, name)) continue;
            CT_TRY(load_tensor(checkpoint->file, name, params, param, tensor, host));
        }
        if (is_shared(params, &parts[p])) CT_TRY(ct_moments_take(params, device, parts[p].moment));
    }
    return CT_OK;
}

ct_status ct_checkpoint_restore(const ct_checkpoint *checkpoint, ct_params *params,
                                ct_device *device)
{
    float *host;
    CT_TRY(ct_alloc(largest_parameter(params), sizeof *host, "a checkpoint", &host));
    ct_status status = restore_all(checkpoint, params, device, host);
    free(host);
    return status;
}

static ct_status load_tower(const ct_safetensors *file, const char *tower, ct_params *params,
                            float *host)
{
    /* Models with a head store the encoder's tensors under a prefix of their own. */
    static const char *const prefixes[] = {"", "distilbert.", "bert."};
    int loaded = 0;
    for (int i = 0; i < ct_params_count(params); i++) {
        const ct_param *param = ct_params_at(params, i);
        char name[160];
        if (strncmp(param->name, tower, strlen(tower)) != 0) continue;
        const char *own_name = param->name + strlen(tower);
        for (size_t p = 0; p < sizeof prefixes / sizeof prefixes[0]; p++) {
            snprintf(name, sizeof name, "%s%s", prefixes[p], own_name);
            if (ct_safetensors_find(file, name)) break;
            snprintf(name, sizeof name, "%s", own_name); /* for the message when none is there */
        }
        CT_TRY(load_tensor(file, name, params, param, &param->value, host));
        loaded++;
    }
    if (!loaded) return ct_fail(CT_ERR_INTERNAL, "the model has no tower \"%s\"", tower);
    return CT_OK;
}

ct_status ct_weights_load(const char *path, const char *tower, ct_params *params)
{
    ct_safetensors *file;
    float *host;
    CT_TRY(ct_safetensors_open(path, &file));
    ct_status status =
        ct_alloc(largest_parameter(params), sizeof *host, "pretrained weights", &host);
    if (status == CT_OK) {
        status = load_tower(file, tower, params, host);
        free(host);
    }
    ct_safetensors_close(file);
    return status;
}
