#include "train/trainer.h"

#include <inttypes.h>
#include <math.h>

#include "base/clock.h"
#include "base/log.h"
#include "train/run_folder.h"
#include "train/trainer_internal.h"

/* So many steps in a row without finite gradients are no accident any more. */
#define MAX_SKIPPED_IN_ROW 10

/* All ranks come to the same conclusion, from the same sums; one says so. */
static ct_status check_finite(ct_trainer *trainer, const ct_optimizer_stats *stats)
{
    const bool leads = ct_trainer_leads(trainer);
    if (!stats->skipped) {
        trainer->skipped_in_row = 0;
        return CT_OK;
    }
    /* The search for a loss scale, halved each time, goes through such steps. */
    if (stats->loss_scale >= 1.0f) {
        if (leads)
            ct_log(CT_LOG_INFO,
                   "step %" PRId64 ": gradients overflowed and the step changes nothing; the loss "
                   "scale is halved to %g",
                   trainer->step, (double)stats->loss_scale);
        return CT_OK;
    }
    if (leads)
        ct_log(CT_LOG_WARNING,
               "step %" PRId64 ": gradients are not finite; the step changes nothing",
               trainer->step);
    if (++trainer->skipped_in_row < MAX_SKIPPED_IN_ROW) return CT_OK;
    return ct_fail(CT_ERR_NUMERIC,
                   "gradients were not finite for %d steps in a row, up to step %" PRId64
                   ": try a lower train.lr_image, train.lr_text or train.lr_head, or a longer "
                   "train.warmup_steps; the last checkpoint is of step %" PRId64,
                   MAX_SKIPPED_IN_ROW, trainer->step, trainer->checkpoint_step);
}

/* Speed as people read it: the mean of about the last twenty steps. */
static void smooth(double *average, double value)
{
    *average = *average < 0 ? value : 0.95 * *average + 0.05 * value;
}

/* What a step leaves on the device for the host to read. */
typedef struct outcome {
    float loss, logit_scale;
    ct_optimizer_stats stats;
} outcome;

/* Waits for the device. */
static ct_status get_outcome(ct_trainer *trainer, outcome *out)
{
    ct_params *params = ct_clip_params(trainer->clip);
    const ct_param *scale = ct_params_find(params, "logit_scale");
    CT_TRY(ct_clip_loss(trainer->clip, &out->loss));
    CT_TRY(ct_optimizer_get_stats(trainer->optimizer, &out->stats));
    return ct_param_download(params, scale, &scale->value, &out->logit_scale);
}

/* What this rank's collectives did since the last record. */
static void add_comm(ct_trainer *trainer, double seconds, ct_step_record *record)
{
    const ct_comm *comm = ct_trainer_comm(trainer);
    record->ranks = ct_comm_size(comm);
    if (!comm) return;
    const ct_comm_stats before = trainer->comm_stats;
    trainer->comm_stats = comm->stats;
    record->comm_exposed_share = (comm->stats.exposed_seconds - before.exposed_seconds) / seconds;
    record->reduced_bytes = (double)(comm->stats.bytes_reduced - before.bytes_reduced);
}

static ct_status record_step(ct_trainer *trainer, int64_t epoch, double seconds, double waited,
                             const outcome *result)
{
    double photos = (double)trainer->config->train.batch_size;
    smooth(&trainer->photos_per_second, photos / seconds);
    smooth(&trainer->data_wait_share, waited / seconds);
    ct_step_record record = {
        .step = trainer->step,
        .epoch = epoch,
        .loss = result->loss,
        .logit_scale = expf(result->logit_scale),
        .lr_factor = ct_schedule_factor(trainer->config, trainer->step, trainer->total_steps),
        .grad_norm = result->stats.grad_norm,
        .photos_per_second = photos / seconds,
        .data_wait_share = waited / seconds,
    };
    add_comm(trainer, seconds, &record);
    return ct_trainer_leads(trainer) ? ct_metrics_step(trainer->metrics, &record) : CT_OK;
}

static void draw(ct_trainer *trainer, int64_t epoch, double loss, bool force)
{
    double left = (double)(trainer->total_steps - trainer->step);
    ct_progress_state state = {
        .step = trainer->step,
        .total_steps = trainer->total_steps,
        .epoch = epoch + 1,
        .epochs = (trainer->total_steps + trainer->steps_per_epoch - 1) / trainer->steps_per_epoch,
        .loss = loss,
        .recall10 = trainer->recall10,
        .photos_per_second = trainer->photos_per_second,
        .data_wait_share = trainer->data_wait_share,
        .eta_seconds =
            left * (double)trainer->config->train.batch_size / trainer->photos_per_second,
    };
    if (ct_trainer_leads(trainer)) ct_progress_draw(&trainer->progress, &state, force);
}

static bool validation_due(const ct_trainer *trainer)
{
    int64_t epochs_done = trainer->step / trainer->steps_per_epoch;
    int64_t every = trainer->config->train.eval_every;
    bool epoch_end = trainer->step > 0 && trainer->step % trainer->steps_per_epoch == 0;
    if (trainer->corpus->photo_count[CT_SPLIT_VALIDATION] == 0) return false;
    return trainer->step == trainer->total_steps ||
           (epoch_end && every > 0 && epochs_done % every == 0);
}

static bool checkpoint_due(const ct_trainer *trainer)
{
    int64_t every = trainer->config->train.checkpoint_every;
    if (trainer->step == trainer->total_steps) return true;
    return trainer->step % (every > 0 ? every : trainer->steps_per_epoch) == 0;
}

static bool stop_due(const ct_trainer *trainer)
{
    int64_t stop_at = trainer->options->stop_at;
    return stop_at > 0 && trainer->step >= stop_at && trainer->step < trainer->total_steps;
}

/* Ranks agree on what they must do alike: how long their recorded steps are, and whether to stop.
 * It is also where a rank that does not come is missed. */
static ct_status agree(ct_trainer *trainer, ct_clip_input *input)
{
    ct_interrupt *interrupt = trainer->options->interrupt;
    if (!trainer->options->job) return CT_OK;
    ct_clip_needs(trainer->clip, input, &input->least_rows, &input->least_seqlen);
    int64_t numbers[] = {input->least_rows, input->least_seqlen,
                         ct_interrupt_pending(interrupt) ? interrupt->signal : 0};
    CT_TRY(ct_job_agree(trainer->options->job, numbers, 3));
    input->least_rows = (int32_t)numbers[0];
    input->least_seqlen = (int32_t)numbers[1];
    trainer->stop = numbers[2] != 0;
    if (trainer->stop && interrupt) interrupt->signal = (int)numbers[2];
    return CT_OK;
}

/* Takes the next batch and uploads it, ready for the step after those done. */
static ct_status stage_batch(ct_trainer *trainer)
{
    const ct_batch *batch;
    CT_TRY(ct_loader_next(trainer->loader, &batch));
    ct_clip_input input = {
        .count = batch->count,
        .images = batch->images,
        .tokens = batch->tokens,
        .positions = batch->positions,
        .cu_seqlens = batch->cu_seqlens,
        .photo_ids = batch->photos,
        .total_tokens = batch->total_tokens,
        .max_seqlen = batch->max_seqlen,
    };
    CT_TRY(agree(trainer, &input));
    CT_TRY(ct_clip_stage(trainer->clip, &input, trainer->step));
    CT_TRY(ct_optimizer_stage(trainer->optimizer, trainer->step + 1));
    trainer->epoch = batch->epoch;
    trainer->staged = true;
    return CT_OK;
}

/* All that the device does in a step; recorded and replayed where it can be. */
static ct_status compute_step(void *context)
{
    ct_trainer *trainer = context;
    CT_TRY(ct_clip_forward_backward(trainer->clip));
    return ct_optimizer_step(trainer->optimizer);
}

/* One step: forward, backward, update, record. The device computes while the batch of the step
 * after it is waited for and uploaded, unless something comes in between: a validation needs the
 * input buffers for itself, and a batch that cannot be had must not cost the checkpoint of the
 * steps before it. */
static ct_status step_once(ct_trainer *trainer)
{
    outcome result;
    double begin = ct_clock_seconds(), waited = ct_loader_get_stats(trainer->loader).wait_seconds;
    if (!trainer->staged) CT_TRY(stage_batch(trainer));
    if (trainer->stop) return CT_ERR_INTERRUPTED;
    const int64_t epoch = trainer->epoch;
    trainer->staged = false;
    CT_TRY(ct_device_replay(trainer->options->device, ct_clip_staged_key(trainer->clip),
                            compute_step, trainer));
    trainer->step++;
    const bool goes_on = !checkpoint_due(trainer) && !validation_due(trainer) && !stop_due(trainer);
    /* When this fails the step is recorded all the same; its message stays. */
    const ct_status next = goes_on ? stage_batch(trainer) : CT_OK;
    waited = ct_loader_get_stats(trainer->loader).wait_seconds - waited;
    CT_TRY(get_outcome(trainer, &result));
    CT_TRY(record_step(trainer, epoch, ct_clock_seconds() - begin, waited, &result));
    draw(trainer, epoch, (double)result.loss, trainer->step % trainer->steps_per_epoch == 0);
    CT_TRY(check_finite(trainer, &result.stats));
    return next;
}

/* A device reports a fault at some later call: the step tells the user when it was. */
static ct_status step_named(ct_trainer *trainer)
{
    const int64_t number = trainer->step + 1;
    const ct_status status = step_once(trainer);
    if (status != CT_ERR_DEVICE && status != CT_ERR_MEMORY) return status;
    return ct_fail_context(status, "step %" PRId64, number);
}

/* Checkpoint and validation where the configuration asks for them after this step. */
static ct_status after_step(ct_trainer *trainer)
{
    /* The checkpoint first: a failing validation must not cost the training before it. */
    if (checkpoint_due(trainer)) CT_TRY(ct_trainer_save(trainer));
    return validation_due(trainer) ? ct_trainer_validate(trainer) : CT_OK;
}

/* A run that was killed between a checkpoint and its validation makes up for it on resuming. Only
 * rank 0 has the records. */
static ct_status catch_up(ct_trainer *trainer)
{
    const ct_validation_record *records;
    int64_t count = 0, done;
    if (ct_trainer_leads(trainer)) count = ct_metrics_validations(trainer->metrics, &records);
    done = count > 0 && records[count - 1].step == trainer->step;
    CT_TRY(ct_job_agree(trainer->options->job, &done, 1));
    return validation_due(trainer) && !done ? ct_trainer_validate(trainer) : CT_OK;
}

static ct_status stop_early(ct_trainer *trainer)
{
    char path[CT_PATH_BYTES];
    ct_progress_finish(&trainer->progress);
    if (trainer->checkpoint_step != trainer->step) CT_TRY(ct_trainer_save(trainer));
    CT_TRY(ct_run_checkpoint_path(trainer->config->output, trainer->step, path));
    return ct_fail(CT_ERR_INTERRUPTED,
                   "stopped after step %" PRId64 " of %" PRId64
                   "; go on with --resume (checkpoint %s)",
                   trainer->step, trainer->total_steps, path);
}

/* Before a step. A rank by itself must not stop where others go on. */
static bool stop_asked(const ct_trainer *trainer)
{
    return trainer->options->job ? trainer->stop
                                 : ct_interrupt_pending(trainer->options->interrupt);
}

static ct_status train_loop(ct_trainer *trainer)
{
    ct_status first = catch_up(trainer);
    if (first == CT_ERR_INTERRUPTED) return stop_early(trainer);
    CT_TRY(first);
    while (trainer->step < trainer->total_steps) {
        if (stop_asked(trainer)) return stop_early(trainer);
        ct_status status = step_named(trainer);
        if (status == CT_OK) status = after_step(trainer);
        if (status == CT_ERR_INTERRUPTED) return stop_early(trainer);
        CT_TRY(status);
        if (stop_due(trainer)) return stop_early(trainer);
    }
    return CT_OK;
}

ct_status ct_train(const ct_train_options *options)
{
    ct_trainer trainer;
    ct_status status = ct_trainer_open(options, &trainer);
    if (status == CT_OK) {
        status = train_loop(&trainer);
        ct_progress_finish(&trainer.progress);
    }
    ct_trainer_close(&trainer);
    return status;
}
