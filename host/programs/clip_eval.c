/* clip-eval: what a trained model has learned: recall over a split, or search in one's own photos.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "cpu/cpu.h"
#include "data/folder.h"
#include "programs/program.h"
#include "train/evaluate.h"
#include "train/report.h"
#include "train/restored.h"
#include "train/search.h"

static const char usage[] =
    "Usage: clip-eval [options] CHECKPOINT [key=value ...]\n"
    "\n"
    "CHECKPOINT is a file written by clip-train, or a run's folder (its newest checkpoint).\n"
    "Without --query and --texts: Recall@1, 5, 10 and median rank over a split of the data the\n"
    "model was trained with (key=value can name other data: data.captions=... data.images=...).\n"
    "\n"
    "  --split validation|test|train   which photos (default: validation)\n"
    "  --json                  print the figures as JSON\n"
    "  --report FILE           also write an HTML page with a gallery\n"
    "\n"
    "  --query TEXT            search the photos for TEXT; may be given many times\n"
    "  --texts FILE            one text a line: the best photos for each, and the best texts for\n"
    "                          each photo\n"
    "  --photos FOLDER         search the .jpg files in FOLDER instead of the split's photos\n"
    "\n"
    "  --device auto|cpu|cuda  where to compute (the same as device=...)\n"
    "  --help, --version\n";

typedef struct options {
    const char *device, *report, *photos, *texts_file;
    ct_split split;
    bool json;
    const char **texts; /* --query, then the lines of --texts */
    size_t text_count, text_capacity;
    char *texts_memory;
} options;

enum {
    OPT_SPLIT = 256,
    OPT_JSON,
    OPT_REPORT,
    OPT_QUERY,
    OPT_TEXTS,
    OPT_PHOTOS,
    OPT_DEVICE,
    OPT_HELP,
    OPT_VERSION
};

static const struct option long_options[] = {
    {"split", required_argument, NULL, OPT_SPLIT},
    {"json", no_argument, NULL, OPT_JSON},
    {"report", required_argument, NULL, OPT_REPORT},
    {"query", required_argument, NULL, OPT_QUERY},
    {"texts", required_argument, NULL, OPT_TEXTS},
    {"photos", required_argument, NULL, OPT_PHOTOS},
    {"device", required_argument, NULL, OPT_DEVICE},
    {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},
    {NULL, 0, NULL, 0},
};

static ct_status add_text(options *given, const char *text)
{
    CT_TRY(ct_grow(&given->texts, &given->text_capacity, given->text_count + 1,
                   sizeof *given->texts, "texts"));
    given->texts[given->text_count++] = text;
    return CT_OK;
}

static ct_status read_texts(options *given)
{
    size_t size;
    char *rest;
    if (!given->texts_file) return CT_OK;
    CT_TRY(ct_file_read(given->texts_file, (size_t)1 << 30, &given->texts_memory, &size));
    for (char *line = strtok_r(given->texts_memory, "\r\n", &rest); line;
         line = strtok_r(NULL, "\r\n", &rest))
        CT_TRY(add_text(given, line));
    if (given->text_count == 0)
        return ct_fail(CT_ERR_FORMAT, "%s: expected one text a line, found none",
                       given->texts_file);
    return CT_OK;
}

/* ---- recall over a split -------------------------------------------------------------------- */

static void print_row(const char *name, const ct_recall *r)
{
    printf("%-16s %6.1f %6.1f %6.1f %12.1f %11.1f\n", name, r->r1, r->r5, r->r10, r->median_rank,
           r->mean_rank);
}

static void print_json_row(const char *name, const ct_recall *r)
{
    printf("\"%s\":{\"r1\":%.4f,\"r5\":%.4f,\"r10\":%.4f,\"median_rank\":%.1f,\"mean_rank\":%.3f}",
           name, r->r1, r->r5, r->r10, r->median_rank, r->mean_rank);
}

static void print_recall(const options *given, const ct_restored *restored,
                         const ct_retrieval *retrieval)
{
    if (given->json) {
        printf("{\"split\":\"%s\",\"step\":%lld,\"photos\":%d,\"captions\":%d,",
               ct_split_name(given->split), (long long)ct_checkpoint_step(restored->checkpoint),
               retrieval->images, retrieval->texts);
        print_json_row("image_to_text", &retrieval->image_to_text);
        putchar(',');
        print_json_row("text_to_image", &retrieval->text_to_image);
        puts("}");
        return;
    }
    printf("%d %s photos with %d captions, checkpoint of step %lld\n", retrieval->images,
           ct_split_name(given->split), retrieval->texts,
           (long long)ct_checkpoint_step(restored->checkpoint));
    printf("%-16s %6s %6s %6s %12s %11s\n", "", "R@1", "R@5", "R@10", "median rank", "mean rank");
    print_row("image to text", &retrieval->image_to_text);
    print_row("  by chance", &retrieval->chance_image_to_text);
    print_row("text to image", &retrieval->text_to_image);
    print_row("  by chance", &retrieval->chance_text_to_image);
}

static ct_status write_report(const options *given, const char *title, const ct_corpus *corpus,
                              const ct_evaluation *evaluation)
{
    if (!given->report) return CT_OK;
    ct_report_input input = {
        .title = title,
        .retrieval = evaluation->retrieval,
        .dataset = corpus->dataset,
        .photos = evaluation->photos,
        .captions = evaluation->captions,
        .gallery = 24,
        .split = ct_split_name(given->split),
    };
    return ct_report_write(given->report, &input);
}

static ct_status recall(const options *given, ct_restored *restored, const char *title)
{
    ct_corpus *corpus;
    ct_evaluation *evaluation = NULL;
    ct_status status;
    CT_TRY(ct_corpus_open(restored->config, restored->tokenizer, ct_cpu_count(), &corpus));
    CT_TRY_GOTO(status, ct_restored_build(restored, corpus->tokens->longest), done);
    CT_TRY_GOTO(status,
                ct_evaluate(restored->config, corpus, restored->clip, given->split,
                            restored->threads, NULL, NULL, &evaluation),
                done);
    print_recall(given, restored, evaluation->retrieval);
    CT_TRY_GOTO(status, write_report(given, title, corpus, evaluation), done);
done:
    ct_evaluation_destroy(evaluation);
    ct_corpus_destroy(corpus);
    return status;
}

/* ---- search --------------------------------------------------------------------------------- */

static void print_found(const options *given, const ct_dataset *dataset, const ct_search *search)
{
    const ct_retrieval *found = search->retrieval;
    for (int32_t t = 0; t < found->texts; t++) {
        printf("\"%s\"\n", given->texts[t]);
        for (int k = 0; k < CT_TOP && found->text_top[t * CT_TOP + k] >= 0; k++)
            printf("  %6.3f  %s/%s\n", (double)found->text_top_score[t * CT_TOP + k],
                   dataset->images,
                   dataset->photos[search->photos[found->text_top[t * CT_TOP + k]]].name);
    }
    for (int32_t i = 0; given->texts_file && i < found->images; i++) {
        printf("%s/%s\n", dataset->images, dataset->photos[search->photos[i]].name);
        for (int k = 0; k < CT_TOP && found->image_top[i * CT_TOP + k] >= 0; k++)
            printf("  %6.3f  \"%s\"\n", (double)found->image_top_score[i * CT_TOP + k],
                   given->texts[found->image_top[i * CT_TOP + k]]);
    }
}

static ct_status search(const options *given, ct_restored *restored)
{
    ct_dataset *dataset = NULL;
    ct_search found = {0};
    int32_t *photos = NULL, count = 0;
    /* A folder's photos are in no split. */
    ct_split split = given->photos ? CT_SPLIT_NONE : given->split;
    ct_status status = given->photos ? ct_dataset_open_folder(given->photos, &dataset)
                                     : ct_dataset_open(restored->config, &dataset);
    CT_TRY(status);
    CT_TRY_GOTO(status, ct_dataset_photos(dataset, split, &photos, &count), done);
    CT_TRY_GOTO(status,
                ct_search_run(restored, dataset, photos, count, given->texts,
                              (int32_t)given->text_count, &found),
                done);
    print_found(given, dataset, &found);
done:
    ct_search_free(&found);
    free(photos);
    ct_dataset_destroy(dataset);
    return status;
}

static ct_status run(options *given, char **arguments, int count)
{
    ct_restored restored;
    CT_TRY(read_texts(given));
    if (given->photos && given->text_count == 0)
        return ct_fail(CT_ERR_ARGUMENT, "--photos: what to look for is missing: give --query or "
                                        "--texts");
    ct_status status = ct_restored_open(arguments[0], &restored);
    if (status == CT_OK)
        status = ct_program_override(restored.config, given->device, arguments + 1, count - 1);
    if (status == CT_OK) status = ct_config_validate(restored.config);
    if (status == CT_OK)
        status =
            given->text_count ? search(given, &restored) : recall(given, &restored, arguments[0]);
    if (status == CT_OK) status = ct_program_flush_stdout();
    ct_restored_close(&restored);
    return status;
}

/* -1: go on; else the exit status to leave with. */
static int parse_options(int argc, char **argv, options *given)
{
    for (int option; (option = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
        switch (option) {
        case OPT_SPLIT:
            for (int s = CT_SPLIT_TRAIN; s <= CT_SPLIT_NONE; s++) {
                given->split = (ct_split)s;
                if (s < CT_SPLIT_NONE && strcmp(optarg, ct_split_name((ct_split)s)) == 0) break;
            }
            if (given->split != CT_SPLIT_NONE) break;
            fprintf(stderr,
                    "clip-eval: --split: expected validation, test or train, found \"%s\"\n",
                    optarg);
            return 2;
        case OPT_JSON:
            given->json = true;
            break;
        case OPT_REPORT:
            given->report = optarg;
            break;
        case OPT_QUERY:
            if (add_text(given, optarg) != CT_OK) return 1;
            break;
        case OPT_TEXTS:
            given->texts_file = optarg;
            break;
        case OPT_PHOTOS:
            given->photos = optarg;
            break;
        case OPT_DEVICE:
            given->device = optarg;
            break;
        case OPT_HELP:
            fputs(usage, stdout);
            return 0;
        case OPT_VERSION:
            puts("clip-eval " CT_VERSION);
            return 0;
        default:
            fputs("Try 'clip-eval --help'.\n", stderr);
            return 2;
        }
    }
    if (optind < argc) return -1;
    fputs("clip-eval: a checkpoint or a run's folder is needed, e.g. runs/quickstart\n"
          "Try 'clip-eval --help'.\n",
          stderr);
    return 2;
}

int main(int argc, char **argv)
{
    ct_program_settle_openmp(argv);
    options given = {.split = CT_SPLIT_VALIDATION};
    int exit_status = parse_options(argc, argv, &given);
    if (exit_status < 0) {
        ct_status status = run(&given, argv + optind, argc - optind);
        exit_status = ct_program_exit_status("clip-eval", status, 0);
    }
    free(given.texts);
    free(given.texts_memory);
    return exit_status;
}
