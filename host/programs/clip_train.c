/* clip-train: trains a model as a configuration file says. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cuda/cuda.h"
#include "programs/program.h"
#include "programs/ranks.h"
#include "train/select_device.h"
#include "train/trainer.h"
#include "world/launch.h"

static const char usage[] =
    "Usage: clip-train [options] CONFIG [key=value ...]\n"
    "\n"
    "Trains an image tower and a text tower on captioned photos as the YAML file CONFIG says;\n"
    "key=value changes single keys, e.g. train.batch_size=64. docs/CONFIG.md lists all keys.\n"
    "\n"
    "  --device auto|cpu|cuda  where to compute (the same as device=...)\n"
    "  --gpus N|LIST           N GPUs of this machine, or these (0,2,3): a process each\n"
    "  --ranks N               N processes on this machine's processors, by mpirun\n"
    "  --resume[=CHECKPOINT]   go on from the newest checkpoint of the output folder (or from "
    "this\n"
    "                          one); bit for bit as if the run had never stopped. --resume auto "
    "is\n"
    "                          the same as --resume: there may be no checkpoint yet\n"
    "  --overwrite             replace the run that the output folder holds\n"
    "  --stop-at STEP          write a checkpoint after that step and stop, as Ctrl-C does\n"
    "  --print-config          print the whole configuration as it would be used, and leave\n"
    "  --quiet                 only warnings and errors besides the progress bar\n"
    "  --help, --version\n"
    "\n"
    "On several machines mpirun, srun or torchrun start the processes.\n"
    "\n"
    "Ctrl-C (or SIGTERM, SIGUSR1) writes a checkpoint and stops after the present step; a second "
    "one stops\n"
    "at once. Exit status: 0 done, 1 error, 2 wrong usage, 128+n stopped by signal n or "
    "--stop-at.\n";

enum { MAX_GPUS = 64, GRACE_SECONDS = 15 };

typedef struct options {
    const char *device;
    ct_start start;
    const char *resume_path;
    long long stop_at, ranks;
    int gpu[MAX_GPUS], gpu_count; /* 0: --gpus was not given */
} options;

enum {
    OPT_DEVICE = 256,
    OPT_GPUS,
    OPT_RANKS,
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
    {"ranks", required_argument, NULL, OPT_RANKS},
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

/* Which GPU, if any, is this rank's: the list's at its place on this machine. */
static ct_status wish_device(const options *given, const ct_world *world, ct_device_wish *wish)
{
    const int place = world->local_rank;
    *wish = (ct_device_wish){.gpu = given->gpu_count > 0,
                             .ordinal = place,
                             .sharing = world->local_size > 1 ? world->local_size : 1};
    if (!wish->gpu) return CT_OK;
    if (place >= given->gpu_count)
        return ct_fail(CT_ERR_ARGUMENT, "--gpus names %d GPUs, but this machine has a rank %d",
                       given->gpu_count, place);
    wish->ordinal = given->gpu[place];
    return CT_OK;
}

static ct_status train_on(const options *given, const ct_config *config, const char *title,
                          ct_ranks *ranks, ct_interrupt *interrupt)
{
    ct_device_wish wish;
    ct_device *device = NULL;
    int threads;
    CT_TRY(wish_device(given, &ranks->world, &wish));
    ct_status status = ct_device_select(config, &wish, &device, &threads);
    if (status == CT_OK) status = ct_ranks_connect(ranks, config, device);
    if (status == CT_OK)
        status = ct_train(&(ct_train_options){.config = config,
                                              .title = title,
                                              .start = given->start,
                                              .resume_path = given->resume_path,
                                              .stop_at = given->stop_at,
                                              .threads = threads,
                                              .device = device,
                                              .job = ranks->job,
                                              .interrupt = interrupt});
    status = ct_ranks_end(ranks, status);
    ct_device_destroy(device);
    return status;
}

/* Rank 0 speaks; the others warn, and say why they failed unless it has been said. */
static int train(const options *given, const ct_config *config, const char *title,
                 const ct_world *world)
{
    ct_interrupt interrupt = {.descriptor = -1};
    ct_ranks ranks = {.world = *world};
    if (world->rank > 0) ct_log_set_level(CT_LOG_WARNING);
    /* Before signals are watched: Ctrl-C ends a process that waits for others. */
    ct_status status = ct_ranks_meet(&ranks, config, (uint64_t)given->stop_at);
    /* The device's and the loader's threads inherit that signals are blocked. */
    if (status == CT_OK) status = ct_interrupt_open(&interrupt);
    if (status == CT_OK) status = train_on(given, config, title, &ranks, &interrupt);
    const bool silent =
        ct_job_told(ranks.job) || (ranks.world.rank > 0 && status == CT_ERR_INTERRUPTED);
    const int exit_status =
        ct_program_exit_status(silent ? NULL : "clip-train", status, interrupt.signal);
    ct_ranks_leave(&ranks, status);
    ct_interrupt_close(&interrupt);
    return exit_status;
}

/* argv without --ranks and its number. */
static void drop_ranks(char **argv)
{
    char **to = argv;
    for (char **from = argv; *from; from++) {
        if (strncmp(*from, "--ranks=", 8) == 0) continue;
        if (strcmp(*from, "--ranks") == 0 && from[1]) from++;
        else *to++ = *from;
    }
    *to = NULL;
}

/* -1: this process trains; else it has started those that do, and this is the exit status. */
static int launch(const options *given, const ct_config *config, const ct_world *world, char **argv)
{
    if (world->size > 1) return -1;
    if (given->ranks > 1) {
        int exit_status = 0;
        drop_ranks(argv);
        const ct_status status = ct_launch_mpi((int)given->ranks, argv, &exit_status);
        return status == CT_OK ? exit_status : ct_program_exit_status("clip-train", status, 0);
    }
    if (given->gpu_count < 2) return -1;
    ct_device_wish wish = {.gpu = true, .sharing = 1};
    for (int i = 0; i < given->gpu_count; i++)
        if (given->gpu[i] > wish.ordinal) wish.ordinal = given->gpu[i];
    ct_status status = ct_device_check(config, &wish);
    if (status != CT_OK) return ct_program_exit_status("clip-train", status, 0);
    const int exit_status = ct_launch_children(given->gpu_count, GRACE_SECONDS, argv);
    return exit_status >= 0 ? exit_status
                            : ct_program_exit_status("clip-train", CT_ERR_INTERNAL, 0);
}

static int run(const options *given, char **argv, char **arguments, int count, bool print)
{
    ct_config *config = NULL;
    ct_world world;
    int exit_status = -1;
    ct_status status = ct_config_create(&config);
    if (status == CT_OK) status = ct_config_load(config, arguments[0]);
    if (status == CT_OK)
        status = ct_program_override(config, given->device, arguments + 1, count - 1);
    if (status == CT_OK) status = ct_config_validate(config);
    if (status == CT_OK) status = ct_world_find(&world);
    if (status == CT_OK && print) status = print_config(config);
    else if (status == CT_OK) exit_status = launch(given, config, &world, argv);
    if (status == CT_OK && !print && exit_status < 0)
        exit_status = train(given, config, arguments[0], &world);
    if (exit_status < 0) exit_status = ct_program_exit_status("clip-train", status, 0);
    ct_config_destroy(config);
    return exit_status;
}

/* "4" or "0,2,3". */
static bool parse_gpus(const char *text, options *given)
{
    long long count;
    if (!strchr(text, ',')) {
        if (!ct_program_number("clip-train", "--gpus", text, 1, MAX_GPUS, &count)) return false;
        for (int i = 0; i < count; i++) given->gpu[i] = i;
        given->gpu_count = (int)count;
        return true;
    }
    given->gpu_count = 0;
    for (const char *at = text; given->gpu_count < MAX_GPUS; at++) {
        char *end;
        const long number = strtol(at, &end, 10);
        bool again = false;
        for (int i = 0; i < given->gpu_count; i++) again = again || given->gpu[i] == number;
        if (end == at || number < 0 || number >= 1024 || again || (*end && *end != ',')) break;
        given->gpu[given->gpu_count++] = (int)number;
        if (!*end) return true;
        at = end;
    }
    fprintf(stderr,
            "clip-train: --gpus: expected a number of GPUs or a list of different ones such as "
            "0,2,3, found \"%s\"\n",
            text);
    return false;
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
            if (!parse_gpus(optarg, &given)) return 2;
            break;
        case OPT_RANKS:
            if (!ct_program_number("clip-train", "--ranks", optarg, 1, 1024, &given.ranks))
                return 2;
            break;
        case OPT_RESUME:
            given.start = CT_START_RESUME;
            given.resume_path = optarg && strcmp(optarg, "auto") != 0 ? optarg : NULL;
            if (!optarg && argv[optind] && strcmp(argv[optind], "auto") == 0) optind++;
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
    return run(&given, argv, argv + optind, argc - optind, print);
}
