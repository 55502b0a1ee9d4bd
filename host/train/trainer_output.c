#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "train/checkpoint.h"
#include "train/evaluate.h"
#include "train/report.h"
#include "train/run_folder.h"
#include "train/trainer_internal.h"

#define GALLERY    12
#define FACTS      10
#define FACT_BYTES 160

static ct_status save(ct_trainer *trainer)
{
    char path[CT_PATH_BYTES];
    if (!ct_trainer_leads(trainer)) {
        trainer->checkpoint_step = trainer->step;
        return ct_checkpoint_assist(ct_clip_params(trainer->clip), trainer->options->device);
    }
    CT_TRY(ct_run_checkpoint_path(trainer->config->output, trainer->step, path));
    CT_TRY(ct_checkpoint_save(path, ct_clip_params(trainer->clip), trainer->options->device,
                              trainer->config, trainer->tokenizer, trainer->step));
    trainer->checkpoint_step = trainer->step;
    return ct_run_prune_checkpoints(trainer->config->output,
                                    trainer->config->train.keep_checkpoints);
}

/* However long it takes, the others wait: where they then end, a launcher may end rank 0 too. */
ct_status ct_trainer_save(ct_trainer *trainer)
{
    int64_t nothing = 0;
    ct_job_busy(trainer->options->job, true);
    const ct_status status = save(trainer);
    ct_job_busy(trainer->options->job, false);
    CT_TRY(status);
    return ct_job_agree(trainer->options->job, &nothing, 1);
}

/* The table of facts at the head of the report. */
typedef struct fact_list {
    const char *name[FACTS];
    const char *value[FACTS];
    char text[FACTS][FACT_BYTES];
    int count;
} fact_list;

static void add_fact(fact_list *facts, const char *name, const char *format, ...) CT_PRINTF(3, 4);

static void add_fact(fact_list *facts, const char *name, const char *format, ...)
{
    va_list args;
    int i = facts->count++;
    va_start(args, format);
    vsnprintf(facts->text[i], FACT_BYTES, format, args);
    va_end(args);
    facts->name[i] = name;
    facts->value[i] = facts->text[i];
}

static void add_image_tower(fact_list *facts, const ct_config *config)
{
    static const char *const resnets[] = {"ResNet-18", "ResNet-34", "ResNet-50", "ResNet-101"};
    const int size = (int)config->image.size;
    if (config->image.encoder == CT_VIT)
        add_fact(facts, "image tower", "ViT, %d layers of width %d, patches of %d, %d pixels",
                 (int)config->image.depth, (int)config->image.width, (int)config->image.patch_size,
                 size);
    else add_fact(facts, "image tower", "%s, %d pixels", resnets[config->image.encoder], size);
}

static void list_facts(const ct_trainer *trainer, fact_list *facts)
{
    const ct_config *config = trainer->config;
    const ct_corpus *corpus = trainer->corpus;
    double seconds = ct_clock_seconds() - trainer->start_seconds;
    facts->count = 0;
    add_fact(facts, "data", "%s", config->data.captions);
    add_fact(facts, "photos", "%d training, %d validation, %d test",
             corpus->photo_count[CT_SPLIT_TRAIN], corpus->photo_count[CT_SPLIT_VALIDATION],
             corpus->photo_count[CT_SPLIT_TEST]);
    add_image_tower(facts, config);
    add_fact(facts, "text tower", "DistilBERT, %d layers of width %d, vocabulary of %d",
             (int)config->text.depth, (int)config->text.width,
             ct_tokenizer_vocab_size(trainer->tokenizer));
    add_fact(facts, "parameters", "%.1f million",
             (double)ct_params_elements(ct_clip_params(trainer->clip)) * 1e-6);
    const int ranks = ct_comm_size(ct_trainer_comm(trainer));
    if (ranks > 1)
        add_fact(facts, "batch", "%d photos on %d ranks", (int)config->train.batch_size, ranks);
    else add_fact(facts, "batch", "%d photos", (int)config->train.batch_size);
    add_fact(facts, "steps", "%" PRId64 " of %" PRId64 " (%.1f epochs)", trainer->step,
             trainer->total_steps, (double)trainer->step / (double)trainer->steps_per_epoch);
    const ct_device *device = trainer->options->device;
    add_fact(facts, "device", "%s in %s, %d threads", device->backend->name,
             ct_dtype_name(device->compute_dtype), trainer->options->threads);
    add_fact(facts, "time", "%.0f s for the last %" PRId64 " steps, with validation", seconds,
             trainer->step - trainer->first_step);
    add_fact(facts, "seed", "%" PRId64, config->seed);
}

static ct_status write_report(ct_trainer *trainer, const ct_evaluation *evaluation)
{
    char path[CT_PATH_BYTES];
    fact_list facts;
    list_facts(trainer, &facts);
    ct_report_input input = {
        .title = trainer->options->title,
        .fact_names = facts.name,
        .fact_values = facts.value,
        .fact_count = facts.count,
        .retrieval = evaluation->retrieval,
        .dataset = trainer->corpus->dataset,
        .photos = evaluation->photos,
        .captions = evaluation->captions,
        .gallery = GALLERY,
        .split = ct_split_name(CT_SPLIT_VALIDATION),
    };
    input.step_count = ct_metrics_steps(trainer->metrics, &input.steps);
    input.validation_count = ct_metrics_validations(trainer->metrics, &input.validations);
    CT_TRY(ct_run_path(trainer->config->output, "report.html", path));
    return ct_report_write(path, &input);
}

static ct_status record_validation(ct_trainer *trainer, const ct_retrieval *retrieval)
{
    int64_t epochs = trainer->step / trainer->steps_per_epoch;
    const ct_recall *i2t = &retrieval->image_to_text, *t2i = &retrieval->text_to_image;
    ct_validation_record record = {
        .step = trainer->step,
        .epoch = epochs,
        .image_to_text = *i2t,
        .text_to_image = *t2i,
        .photos = retrieval->images,
        .captions = retrieval->texts,
    };
    trainer->recall10 = 0.5 * (i2t->r10 + t2i->r10);
    ct_log(CT_LOG_INFO,
           "validation after step %" PRId64 ": image-to-text R@1 %.1f R@5 %.1f R@10 %.1f, "
           "text-to-image R@1 %.1f R@5 %.1f R@10 %.1f (chance R@10: %.1f, %.1f)",
           trainer->step, i2t->r1, i2t->r5, i2t->r10, t2i->r1, t2i->r5, t2i->r10,
           retrieval->chance_image_to_text.r10, retrieval->chance_text_to_image.r10);
    return ct_metrics_validation(trainer->metrics, &record);
}

static ct_status validate(ct_trainer *trainer)
{
    ct_evaluation *evaluation;
    ct_progress_finish(&trainer->progress);
    /* One rank cannot leave a validation that the others are in. */
    ct_comm *comm = ct_trainer_comm(trainer);
    ct_interrupt *interrupt = comm ? NULL : trainer->options->interrupt;
    CT_TRY(ct_evaluate(trainer->config, trainer->corpus, trainer->clip, CT_SPLIT_VALIDATION,
                       trainer->options->threads, comm, interrupt, &evaluation));
    const bool leads = ct_trainer_leads(trainer);
    ct_status status = leads ? record_validation(trainer, evaluation->retrieval) : CT_OK;
    if (status == CT_OK && leads) status = write_report(trainer, evaluation);
    ct_evaluation_destroy(evaluation);
    return status;
}

ct_status ct_trainer_validate(ct_trainer *trainer)
{
    ct_job_busy(trainer->options->job, true);
    const ct_status status = validate(trainer);
    ct_job_busy(trainer->options->job, false);
    return status;
}
