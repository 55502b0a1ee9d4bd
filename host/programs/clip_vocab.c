/* clip-vocab: learns a WordPiece vocabulary from a captions file, for captions that BERT's
 * vocabulary does not suit (another language, for one). */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "data/dataset.h"
#include "programs/program.h"
#include "text/vocab_trainer.h"

#define MAX_CAPTIONS_BYTES ((size_t)1 << 30)
#define MAX_BAD_SHARE      0.01 /* as data.max_bad_share is by default */
#define LEAST_SIZE         5    /* the special tokens */
#define MOST_SIZE          1000000

static const char usage[] =
    "Usage: clip-vocab [options] CAPTIONS_FILE > vocab.txt\n"
    "\n"
    "Learns a WordPiece vocabulary in the format of BERT's vocab.txt from the captions: a file in\n"
    "any of the formats that clip-train reads. Use it with text.vocab=vocab.txt; a text encoder\n"
    "with pretrained weights needs the vocabulary that it was trained with instead.\n"
    "\n"
    "  -o, --output FILE       write to FILE, not to standard output\n"
    "  --size N                at most N tokens (default: 30522, as BERT has)\n"
    "  --min-frequency K       join pieces only when seen next to each other at least K times\n"
    "                          (default: 2)\n"
    "  --cased                 keep case and accents; use it with text.lowercase=false\n"
    "  --help, --version\n";

typedef struct options {
    const char *captions, *output;
    long long size, min_frequency;
    bool cased;
} options;

enum { OPT_SIZE = 256, OPT_MIN_FREQUENCY, OPT_CASED, OPT_HELP, OPT_VERSION };

static const struct option long_options[] = {
    {"output", required_argument, NULL, 'o'},
    {"size", required_argument, NULL, OPT_SIZE},
    {"min-frequency", required_argument, NULL, OPT_MIN_FREQUENCY},
    {"cased", no_argument, NULL, OPT_CASED},
    {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},
    {NULL, 0, NULL, 0},
};

static ct_status read_captions(const char *path, ct_dataset **out)
{
    char *text;
    size_t size;
    CT_TRY(ct_file_read(path, MAX_CAPTIONS_BYTES, &text, &size));
    ct_status status = ct_dataset_parse(text, size, path, CT_CAPTIONS_AUTO, MAX_BAD_SHARE, out);
    free(text);
    return status;
}

static ct_status learn(const options *given, const ct_dataset *dataset, char **vocab, size_t *bytes)
{
    const char **texts;
    CT_TRY(ct_alloc((size_t)dataset->caption_count, sizeof *texts, "captions", &texts));
    for (int32_t c = 0; c < dataset->caption_count; c++) texts[c] = dataset->captions[c].text;
    ct_status status =
        ct_vocab_train(texts, dataset->caption_count, !given->cased, (int32_t)given->size,
                       (int32_t)given->min_frequency, vocab, bytes);
    free(texts);
    return status;
}

static ct_status write_vocab(const char *path, const char *vocab, size_t bytes)
{
    if (!path) {
        fwrite(vocab, 1, bytes, stdout);
        return ct_program_flush_stdout();
    }
    ct_writer writer;
    CT_TRY(ct_writer_open(&writer, path));
    ct_status status = ct_writer_put(&writer, vocab, bytes);
    if (status == CT_OK) return ct_writer_commit(&writer);
    ct_writer_abandon(&writer);
    return status;
}

static ct_status run(const options *given)
{
    ct_dataset *dataset;
    char *vocab = NULL;
    size_t bytes, lines = 0;
    CT_TRY(read_captions(given->captions, &dataset));
    ct_status status = learn(given, dataset, &vocab, &bytes);
    if (status == CT_OK) status = write_vocab(given->output, vocab, bytes);
    if (status == CT_OK) {
        for (size_t i = 0; i < bytes; i++) lines += vocab[i] == '\n';
        ct_log(CT_LOG_INFO, "%zu tokens from %d captions", lines, dataset->caption_count);
    }
    free(vocab);
    ct_dataset_destroy(dataset);
    return status;
}

/* -1: go on; else the exit status to leave with. */
static int parse_options(int argc, char **argv, options *given)
{
    for (int option; (option = getopt_long(argc, argv, "o:", long_options, NULL)) != -1;) {
        switch (option) {
        case 'o':
            given->output = optarg;
            break;
        case OPT_SIZE:
            if (!ct_program_number("clip-vocab", "--size", optarg, LEAST_SIZE, MOST_SIZE,
                                   &given->size))
                return 2;
            break;
        case OPT_MIN_FREQUENCY:
            if (!ct_program_number("clip-vocab", "--min-frequency", optarg, 1, INT32_MAX,
                                   &given->min_frequency))
                return 2;
            break;
        case OPT_CASED:
            given->cased = true;
            break;
        case OPT_HELP:
            fputs(usage, stdout);
            return 0;
        case OPT_VERSION:
            puts("clip-vocab " CT_VERSION);
            return 0;
        default:
            fputs("Try 'clip-vocab --help'.\n", stderr);
            return 2;
        }
    }
    if (optind + 1 == argc) {
        given->captions = argv[optind];
        return -1;
    }
    fprintf(stderr,
            "clip-vocab: expected one captions file, found %d arguments\n"
            "Try 'clip-vocab --help'.\n",
            argc - optind);
    return 2;
}

int main(int argc, char **argv)
{
    options given = {.size = 30522, .min_frequency = 2};
    int exit_status = parse_options(argc, argv, &given);
    if (exit_status < 0) exit_status = ct_program_exit_status("clip-vocab", run(&given), 0);
    return exit_status;
}
