/* Photos a second on one core, stage by stage, over the JPEG files of a folder.
 * Usage: image_benchmark FOLDER [ROUNDS [SIZE [SCALE_FROM SCALE_TO]]]
 *
 *   entropy   libjpeg-turbo's entropy decoding alone, coefficients kept in memory: about what any
 *             loader that reads baseline photos to their end has to spend
 *   decode    ct_decoder_read
 *   augment   ct_decoder_read and ct_image_augment
 *   training  ct_image_load_training, which decodes only what the crop needs
 *   eval      ct_image_load_eval
 *
 * The stages take turns in every round; the median round of each is printed, in processor time. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jpeglib.h>

#include "base/file.h"
#include "base/memory.h"
#include "image/image.h"

#define MAX_PHOTOS 4096
#define MAX_ROUNDS 101
#define MAX_BYTES  (64 << 20)

typedef struct bench {
    ct_decoder *decoder;
    ct_config config;
    uint8_t *view;
    char *paths[MAX_PHOTOS];
    int count;
    uint64_t epoch;
} bench;

static ct_status entropy_only(bench *b, int photo)
{
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    char *bytes;
    size_t size;
    CT_TRY(ct_file_read(b->paths[photo], MAX_BYTES, &bytes, &size));
    jpeg.err = jpeg_std_error(&errors); /* exits on a broken photo */
    jpeg_create_decompress(&jpeg);
    jpeg_mem_src(&jpeg, (const unsigned char *)bytes, size);
    jpeg_read_header(&jpeg, TRUE);
    jpeg_read_coefficients(&jpeg);
    jpeg_destroy_decompress(&jpeg);
    free(bytes);
    return CT_OK;
}

static ct_status decode(bench *b, int photo)
{
    ct_pixels pixels;
    return ct_decoder_read(b->decoder, b->paths[photo], &pixels);
}

static ct_rng_key key_of(const bench *b, int photo)
{
    return ct_rng_make(1, CT_RNG_AUGMENT, b->epoch, (uint64_t)photo);
}

static ct_status augment(bench *b, int photo)
{
    ct_pixels pixels;
    CT_TRY(ct_decoder_read(b->decoder, b->paths[photo], &pixels));
    return ct_image_augment(b->decoder, pixels, &b->config, key_of(b, photo), b->view);
}

static ct_status training(bench *b, int photo)
{
    return ct_image_load_training(b->decoder, b->paths[photo], &b->config, key_of(b, photo),
                                  b->view);
}

static ct_status eval(bench *b, int photo)
{
    return ct_image_load_eval(b->decoder, b->paths[photo], &b->config, b->view);
}

static const struct {
    const char *name;
    ct_status (*run)(bench *b, int photo);
} stages[] = {{"entropy", entropy_only},
              {"decode", decode},
              {"augment", augment},
              {"training", training},
              {"eval", eval}};
#define STAGES ((int)(sizeof stages / sizeof *stages))

static ct_status list_photos(bench *b, const char *folder)
{
    DIR *directory = opendir(folder);
    if (!directory) return ct_fail_errno(CT_ERR_IO, "%s: cannot open", folder);
    ct_status status = CT_OK;
    for (struct dirent *entry; status == CT_OK && (entry = readdir(directory));) {
        if (!strstr(entry->d_name, ".jpg") || b->count == MAX_PHOTOS) continue;
        size_t bytes = strlen(folder) + strlen(entry->d_name) + 2;
        status = ct_alloc(bytes, 1, "a file name", &b->paths[b->count]);
        if (status == CT_OK) snprintf(b->paths[b->count++], bytes, "%s/%s", folder, entry->d_name);
    }
    closedir(directory);
    if (status == CT_OK && !b->count)
        return ct_fail(CT_ERR_ARGUMENT, "%s: holds no .jpg files", folder);
    return status;
}

/* Processor time of the process, so that a busy machine's other work counts less. */
static double processor_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static ct_status measure(bench *b, int rounds)
{
    static double seconds[STAGES][MAX_ROUNDS];
    for (int round = 0; round < rounds; round++, b->epoch++) {
        for (int stage = 0; stage < STAGES; stage++) {
            double began = processor_seconds();
            for (int photo = 0; photo < b->count; photo++) CT_TRY(stages[stage].run(b, photo));
            seconds[stage][round] = processor_seconds() - began;
        }
    }
    for (int stage = 0; stage < STAGES; stage++) {
        qsort(seconds[stage], (size_t)rounds, sizeof(double), by_value);
        double median = seconds[stage][rounds / 2] / b->count;
        printf("%-9s %8.1f photos/s %8.3f ms\n", stages[stage].name, 1.0 / median, median * 1e3);
    }
    return CT_OK;
}

static ct_status run(bench *b, const char *folder, int rounds)
{
    size_t size = (size_t)b->config.image.size;
    CT_TRY(ct_decoder_create(&b->decoder));
    CT_TRY(ct_alloc(size * size, 3, "a view", &b->view));
    CT_TRY(list_photos(b, folder));
    return measure(b, rounds);
}

int main(int argc, char **argv)
{
    static bench b;
    if (argc < 2) {
        fprintf(stderr, "usage: %s FOLDER [ROUNDS [SIZE [SCALE_FROM SCALE_TO]]]\n", argv[0]);
        return 2;
    }
    int rounds = argc > 2 ? atoi(argv[2]) : 5;
    rounds = rounds < 1 ? 1 : rounds > MAX_ROUNDS ? MAX_ROUNDS : rounds;
    b.config.image.size = argc > 3 ? atoi(argv[3]) : 224;
    b.config.image.crop_scale[0] = argc > 5 ? atof(argv[4]) : 0.08;
    b.config.image.crop_scale[1] = argc > 5 ? atof(argv[5]) : 1.0;
    b.config.image.crop_ratio[0] = 0.75;
    b.config.image.crop_ratio[1] = 4.0 / 3.0;
    b.config.image.flip = 0.5;
    b.config.image.eval_resize = 1.143;
    ct_status status = run(&b, argv[1], rounds);
    if (status != CT_OK) fprintf(stderr, "error: %s\n", ct_error_message());
    for (int i = 0; i < b.count; i++) free(b.paths[i]);
    free(b.view);
    ct_decoder_destroy(b.decoder);
    return status != CT_OK;
}
