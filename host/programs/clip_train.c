/* clip-train: trains a model as a configuration file says. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "programs/program.h"
#include "train/select_device.h"
#include "train/trainer.h"

static const char usage[] =
    "Usage: clip-train [options] CONFIG [key=value ...]\n"
    "\n"
    "Trains an image tower and a text tower on captioned photos as the YAML file CONFIG says;\n"
    "key=value changes single keys, e.g. train.batch_size=64. docs/CONFIG.md lists all keys.\n"
    "\n"
    "  --device auto|cpu|cuda  where to compute (the same as device=...)\n"
    "  --gpus N                how many GPUs to use\n"
    "  --resume[=CHECKPOINT]   go on from the newest checkpoint of the output folder (or from "
    "this\n"
    "                          one); bit for bit as if the run had never stopped\n"
    "  --overwrite             replace the run that the output folder holds\n"
    "  --stop-at STEP          write a checkpoint after that step and stop, as Ctrl-C does\n"
    "  --print-config          print the whole configuration as it would be used, and leave\n"
    "  --quiet                 only warnings and errors besides the progress bar\n"
    "  --help, --version\n"
    "\n"
    "Ctrl-C (or SIGTERM) writes a checkpoint and stops after the present step; a second one stops\n"
    "at once. Exit status: 0 done, 1 error, 2 wrong usage, 128+n stopped by signal n or "
    "--stop-at.\n";

typedef struct options {
    const char *device;
    ct_start start;
    const char *resume_path;
    long long gpus, stop_at;
} options;

enum {
    OPT_DEVICE = 256,
    OPT_GPUS,
    OPT_RESUME,
    OPT_OVERWRITE,
    OPT_STOP_AT,
    OPT_PRINT,
    OPT_QUIET,
    OPT_HELP,
    OPT_VERSION
};

static const struct option long_options[] = {
    {"device", required_argument, NULL, OPT_DEVICE},
    {"gpus", required_argument, NULL, OPT_GPUS},
    {"resume", optional_argument, NULL, OPT_RESUME},
    {"overwrite", no_argument, NULL, OPT_OVERWRITE},
    {"stop-at", required_argument, NULL, OPT_STOP_AT},
    {"print-config", no_argument, NULL, OPT_PRINT},
    {"quiet", no_argument, NULL, OPT_QUIET},
    {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},
    {NULL, 0, NULL, 0},
};

static ct_status print_config(const ct_config *config)
{
    char *yaml;
    CT_TRY(ct_config_print(config, &yaml));
    fputs(yaml, stdout);
    free(yaml);
    return ct_program_flush_stdout();
}

static ct_status train(const options *given, const ct_config *config, const char *title,
                       int *signal)
{
    ct_interrupt interrupt;
    ct_device *device = NULL;
    int threads;
    /* Signals first: the device's and the loader's threads inherit that they are blocked. */
    CT_TRY(ct_interrupt_open(&interrupt));
    ct_status status = ct_device_select(config, (int)given->gpus, &device, &threads);
    if (status == CT_OK) {
        ct_train_options train_options = {
            .config = config,
            .title = title,
            .start = given->start,
            .resume_path = given->resume_path,
            .stop_at = given->stop_at,
            .threads = threads,
            .device = device,
            .interrupt = &interrupt,
        };
        status = ct_train(&train_options);
    }
    *signal = interrupt.signal;
    ct_device_destroy(device);
    ct_interrupt_close(&interrupt);
    return status;
}

static int run(const options *given, char **arguments, int count, bool print)
{
    ct_config *config = NULL;
    int signal = 0;
    ct_status status = ct_config_create(&config);
    if (status == CT_OK) status = ct_config_load(config, arguments[0]);
    if (status == CT_OK)
        status = ct_program_override(config, given->device, arguments + 1, count - 1);
    if (status == CT_OK) status = ct_config_validate(config);
    if (status == CT_OK)
        status = print ? print_config(config) : train(given, config, arguments[0], &signal);
    ct_config_destroy(config);
    return ct_program_exit_status("clip-train", status, signal);
}

int main(int argc, char **argv)
{
    ct_program_settle_openmp(argv);
    options given = {.start = CT_START_NEW};
    bool print = false;
    for (int option; (option = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
        switch (option) {
        case OPT_DEVICE:
            given.device = optarg;
            break;
        case OPT_GPUS:
            if (!ct_program_number("clip-train", "--gpus", optarg, 1, 1024, &given.gpus)) return 2;
            break;
        case OPT_RESUME:
            given.start = CT_START_RESUME;
            given.resume_path = optarg;
            break;
        case OPT_OVERWRITE:
            given.start = CT_START_OVERWRITE;
            break;
        case OPT_STOP_AT:
            if (!ct_program_number("clip-train", "--stop-at", optarg, 1, 1LL << 40, &given.stop_at))
                return 2;
            break;
        case OPT_PRINT:
            print = true;
            break;
        case OPT_QUIET:
            ct_log_set_level(CT_LOG_WARNING);
            break;
        case OPT_HELP:
            fputs(usage, stdout);
            return 0;
        case OPT_VERSION:
            puts("clip-train " CT_VERSION);
            return 0;
        default:
            fputs("Try 'clip-train --help'.\n", stderr);
            return 2;
        }
    }
    if (optind >= argc) {
        fputs("clip-train: a configuration file is needed, e.g. configs/quickstart.yaml\n", stderr);
        fputs("Try 'clip-train --help'.\n", stderr);
        return 2;
    }
    return run(&given, argv + optind, argc - optind, print);
}
