#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "train/checkpoint.h"
#include "train/run_folder.h"
#include "train/trainer_internal.h"

/* Records of so many steps are made room for at the start; longer runs grow their list. */
#define MAX_RESERVED ((int64_t)1 << 20)

/* Keys that change neither what is computed nor in which order. */
static bool is_free_key(const char *line)
{
    static const char *const keys[] = {"output:",
                                       "device:",
                                       "  workers:",
                                       "  prefetch:",
                                       "  eval_every:",
                                       "  checkpoint_every:",
                                       "  keep_checkpoints:",
                                       "  captions:",
                                       "  images:",
                                       "  vocab:",
                                       "  weights:",
                                       "  max_bad_share:",
                                       "  graphs:",
                                       "  plan_cache:"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (strncmp(line, keys[i], strlen(keys[i])) == 0) return true;
    return false;
}

/* Says which keys differ from the checkpoint's: the run goes on, but not bit for bit. */
static ct_status warn_of_changes(const ct_config *config, const ct_checkpoint *checkpoint)
{
    ct_config *before;
    char *old_text = NULL, *new_text = NULL, *old_rest = NULL, *new_rest = NULL;
    CT_TRY(ct_checkpoint_config(checkpoint, &before));
    ct_status status = ct_config_print(before, &old_text);
    if (status == CT_OK) status = ct_config_print(config, &new_text);
    if (status == CT_OK) {
        /* Both list all keys in the schema's order, one a line. */
        char *a = strtok_r(old_text, "\n", &old_rest), *b = strtok_r(new_text, "\n", &new_rest);
        for (; a && b; a = strtok_r(NULL, "\n", &old_rest), b = strtok_r(NULL, "\n", &new_rest))
            if (strcmp(a, b) != 0 && !is_free_key(b))
                ct_log(CT_LOG_WARNING,
                       "the configuration has changed since the checkpoint: "
                       "\"%s\" was \"%s\"",
                       b + strspn(b, " "), a + strspn(a, " "));
    }
    free(old_text);
    free(new_text);
    ct_config_destroy(before);
    return status;
}

/* path = the checkpoint to resume from; "": start anew. Prepares the output folder. */
static ct_status find_start(const ct_train_options *options, char path[CT_PATH_BYTES])
{
    const char *folder = options->config->output;
    CT_TRY(ct_folder_create(folder));
    switch (options->start) {
    case CT_START_NEW:
        if (ct_run_exists(folder))
            return ct_fail(CT_ERR_ARGUMENT,
                           "output: %s already holds a run: go on with --resume, replace it with "
                           "--overwrite, or choose another folder (output=...)",
                           folder);
        return CT_OK;
    case CT_START_OVERWRITE:
        return ct_run_clear(folder);
    case CT_START_RESUME:
        break;
    }
    if (options->resume_path) {
        if (snprintf(path, CT_PATH_BYTES, "%s", options->resume_path) < CT_PATH_BYTES) return CT_OK;
        return ct_fail(CT_ERR_ARGUMENT, "--resume: the file's name is longer than %d bytes",
                       CT_PATH_BYTES - 1);
    }
    CT_TRY(ct_run_newest_checkpoint(folder, path));
    if (!path[0])
        ct_log(CT_LOG_INFO, "%s holds no checkpoint yet: starting from the beginning", folder);
    return CT_OK;
}

/* Rank 0 looks at the folder; all ranks start from the same file, which they must be able to read.
 * *checkpoint = NULL: from the beginning. */
static ct_status open_start(ct_trainer *trainer, ct_checkpoint **checkpoint)
{
    const ct_train_options *options = trainer->options;
    char path[CT_PATH_BYTES] = "";
    *checkpoint = NULL;
    if (ct_trainer_leads(trainer)) CT_TRY(find_start(options, path));
    CT_TRY(ct_job_broadcast(options->job, path, sizeof path));
    return path[0] ? ct_checkpoint_open(path, checkpoint) : CT_OK;
}

/* Names, captions and splits must be the same everywhere, for ranks know photos by number. */
static ct_status check_same_data(const ct_trainer *trainer)
{
    const int64_t hash = (int64_t)(ct_corpus_hash(trainer->corpus) >> 1);
    int64_t numbers[2] = {hash, -hash};
    CT_TRY(ct_job_agree(trainer->options->job, numbers, 2));
    if (numbers[0] == hash && numbers[1] == -hash) return CT_OK;
    return ct_fail(CT_ERR_CONFIG,
                   "data.captions: %s holds other photos or captions here than on other ranks",
                   trainer->config->data.captions);
}

static ct_status load_tokenizer(ct_trainer *trainer, const ct_checkpoint *checkpoint)
{
    bool lowercase = trainer->config->text.lowercase;
    if (checkpoint) return ct_checkpoint_tokenizer(checkpoint, lowercase, &trainer->tokenizer);
    return ct_tokenizer_load(trainer->config->text.vocab, lowercase, &trainer->tokenizer);
}

static ct_status build_model(ct_trainer *trainer, const ct_checkpoint *checkpoint)
{
    const ct_config *config = trainer->config;
    const ct_token_store *tokens = trainer->corpus->tokens;
    const int64_t ranks = ct_comm_size(ct_trainer_comm(trainer));
    const int64_t batch = config->train.batch_size / ranks;
    if (batch * ranks != config->train.batch_size)
        return ct_fail(CT_ERR_CONFIG,
                       "train.batch_size: expected a multiple of the number of ranks, %lld, found "
                       "%lld",
                       (long long)ranks, (long long)config->train.batch_size);
    ct_clip_limits limits = {
        .batch = (int32_t)batch,
        .tokens = batch * tokens->longest,
        .max_seqlen = tokens->longest,
        .training = true,
    };
    CT_TRY(ct_clip_create(config, ct_tokenizer_vocab_size(trainer->tokenizer),
                          trainer->options->device, &limits, &trainer->clip));
    ct_params *params = ct_clip_params(trainer->clip);
    if (checkpoint) {
        if (ct_trainer_leads(trainer)) CT_TRY(warn_of_changes(config, checkpoint));
        trainer->step = trainer->checkpoint_step = ct_checkpoint_step(checkpoint);
        return ct_checkpoint_restore(checkpoint, params, trainer->options->device);
    }
    if (*config->image.weights) CT_TRY(ct_weights_load(config->image.weights, "image.", params));
    if (*config->text.weights) CT_TRY(ct_weights_load(config->text.weights, "text.", params));
    return CT_OK;
}

static ct_status start_loader(ct_trainer *trainer)
{
    const ct_config *config = trainer->config;
    const ct_corpus *corpus = trainer->corpus;
    const ct_comm *comm = ct_trainer_comm(trainer);
    CT_TRY(ct_loader_create_training(
        config, corpus->dataset, corpus->tokens, corpus->photos[CT_SPLIT_TRAIN],
        corpus->photo_count[CT_SPLIT_TRAIN], trainer->step,
        (ct_loader_share){ct_comm_rank(comm), ct_comm_size(comm)}, &trainer->loader));
    trainer->steps_per_epoch = ct_loader_get_stats(trainer->loader).steps_per_epoch;
    trainer->total_steps = config->train.max_steps > 0
                               ? config->train.max_steps
                               : config->train.epochs * trainer->steps_per_epoch;
    if (trainer->step > trainer->total_steps)
        return ct_fail(CT_ERR_CONFIG,
                       "the checkpoint has %" PRId64 " steps, more than the %" PRId64 " configured",
                       trainer->step, trainer->total_steps);
    return CT_OK;
}

static ct_status write_config(const ct_config *config)
{
    char path[CT_PATH_BYTES], *yaml;
    ct_writer writer;
    CT_TRY(ct_run_path(config->output, "config.yaml", path));
    CT_TRY(ct_config_print(config, &yaml));
    ct_status status = ct_writer_open(&writer, path);
    if (status == CT_OK) {
        status = ct_writer_put(&writer, yaml, strlen(yaml));
        if (status == CT_OK) status = ct_writer_commit(&writer);
        else ct_writer_abandon(&writer);
    }
    free(yaml);
    return status;
}

static void describe(const ct_trainer *trainer)
{
    const ct_corpus *corpus = trainer->corpus;
    ct_clip_memory memory = ct_clip_memory_use(trainer->clip);
    const ct_comm *comm = ct_trainer_comm(trainer);
    char ranks[64] = "";
    if (comm)
        snprintf(ranks, sizeof ranks, " on each of %d ranks (%s)", comm->size, comm->table->name);
    ct_log(CT_LOG_INFO, "data: %d photos to train on, %d for validation, %d for test; %d captions",
           corpus->photo_count[CT_SPLIT_TRAIN], corpus->photo_count[CT_SPLIT_VALIDATION],
           corpus->photo_count[CT_SPLIT_TEST], corpus->dataset->caption_count);
    ct_log(CT_LOG_INFO,
           "model: %.1f million parameters; memory: %.0f MiB parameters and optimizer, %.0f MiB "
           "activations, %.0f MiB workspace",
           (double)ct_params_elements(ct_clip_params(trainer->clip)) * 1e-6,
           (double)memory.parameter_bytes / 1048576, (double)memory.activation_bytes / 1048576,
           (double)memory.workspace_bytes / 1048576);
    if (trainer->step == trainer->total_steps)
        ct_log(CT_LOG_INFO, "all %" PRId64 " steps are done already", trainer->total_steps);
    else
        ct_log(CT_LOG_INFO, "%s on the %s device with %d threads%s: steps %" PRId64 " to %" PRId64,
               trainer->step ? "going on" : "training", trainer->options->device->backend->name,
               trainer->options->threads, ranks, trainer->step + 1, trainer->total_steps);
}

/* The files that rank 0 writes. */
static ct_status open_output(ct_trainer *trainer, bool resumed)
{
    char path[CT_PATH_BYTES];
    CT_TRY(ct_run_path(trainer->config->output, "metrics.jsonl", path));
    CT_TRY(ct_metrics_open(path, resumed ? trainer->step : -1, &trainer->metrics));
    int64_t steps = trainer->total_steps < MAX_RESERVED ? trainer->total_steps : MAX_RESERVED;
    CT_TRY(ct_metrics_reserve(trainer->metrics, steps, steps / trainer->steps_per_epoch + 1));
    const ct_validation_record *records;
    int64_t count = ct_metrics_validations(trainer->metrics, &records);
    if (count > 0)
        trainer->recall10 =
            0.5 * (records[count - 1].image_to_text.r10 + records[count - 1].text_to_image.r10);
    return write_config(trainer->config);
}

static ct_status open_all(ct_trainer *trainer, ct_checkpoint *checkpoint)
{
    const ct_config *config = trainer->config;
    CT_TRY(load_tokenizer(trainer, checkpoint));
    CT_TRY(ct_corpus_open(config, trainer->tokenizer, trainer->options->threads, &trainer->corpus));
    CT_TRY(check_same_data(trainer));
    CT_TRY(build_model(trainer, checkpoint));
    CT_TRY(start_loader(trainer));
    CT_TRY(ct_optimizer_create(config, ct_clip_params(trainer->clip), trainer->options->device,
                               trainer->total_steps, &trainer->optimizer));
    CT_TRY(ct_optimizer_restore(trainer->optimizer, trainer->step));
    if (ct_trainer_leads(trainer)) {
        CT_TRY(open_output(trainer, checkpoint != NULL));
        describe(trainer);
    }
    trainer->first_step = trainer->step;
    trainer->start_seconds = ct_clock_seconds();
    return CT_OK;
}

ct_status ct_trainer_open(const ct_train_options *options, ct_trainer *trainer)
{
    ct_checkpoint *checkpoint;
    *trainer = (ct_trainer){.options = options,
                            .config = options->config,
                            .checkpoint_step = -1,
                            .recall10 = -1,
                            .photos_per_second = -1,
                            .data_wait_share = -1};
    ct_progress_init(&trainer->progress, stderr);
    /* Reading captions, weights and checkpoints takes as long as it takes. */
    ct_job_busy(options->job, true);
    CT_TRY(open_start(trainer, &checkpoint));
    ct_status status = open_all(trainer, checkpoint);
    ct_job_busy(options->job, false);
    ct_checkpoint_close(checkpoint);
    return status;
}

void ct_trainer_close(ct_trainer *trainer)
{
    ct_metrics_close(trainer->metrics);
    ct_loader_destroy(trainer->loader);
    ct_optimizer_destroy(trainer->optimizer);
    ct_clip_destroy(trainer->clip);
    ct_corpus_destroy(trainer->corpus);
    ct_tokenizer_destroy(trainer->tokenizer);
}
