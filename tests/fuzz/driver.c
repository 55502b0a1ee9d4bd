/* Runs a fuzz target without libFuzzer: every file of the corpus folders given, then seeded random
 * mutations of them. Usage: fuzz_NAME FOLDER...; CT_FUZZ_SEED and CT_FUZZ_RUNS override. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/rng.h"

#define MAX_SEEDS 1024
#define MAX_BYTES 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct seed {
    char *bytes;
    size_t size;
} seed;

/* Runs one input from a block of exactly its size, so that AddressSanitizer sees any overrun. */
static void run(const char *bytes, size_t size)
{
    uint8_t *exact = malloc(size ? size : 1);
    if (!exact) abort();
    memcpy(exact, bytes, size);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

static int read_folder(const char *folder, seed *seeds, int count)
{
    DIR *directory = opendir(folder);
    if (!directory) {
        fprintf(stderr, "%s: cannot open\n", folder);
        exit(1);
    }
    for (struct dirent *entry; (entry = readdir(directory)) && count < MAX_SEEDS;) {
        char path[4096];
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (ct_file_read(path, 1 << 20, &seeds[count].bytes, &seeds[count].size) != CT_OK) {
            fprintf(stderr, "%s\n", ct_error_message());
            exit(1);
        }
        count++;
    }
    closedir(directory);
    return count;
}

/* One to eight edits: flip a bit, set a byte, drop, repeat or splice a run from another seed. */
static size_t mutate(char *bytes, size_t size, const seed *other, ct_rng_key key)
{
    uint64_t next = 0;
    int edits = 1 + (int)ct_rng_below(key, next++, 8);
    for (int i = 0; i < edits; i++) {
        uint32_t kind = ct_rng_below(key, next++, 5);
        size_t at = size ? ct_rng_below(key, next++, (uint32_t)size) : 0;
        size_t run_length = 1 + ct_rng_below(key, next++, 16);
        if (size && kind == 0) bytes[at] ^= (char)(1 << ct_rng_below(key, next++, 8));
        if (size && kind == 1) bytes[at] = (char)ct_rng_below(key, next++, 256);
        if (kind == 2 && at + run_length < size) {
            memmove(bytes + at, bytes + at + run_length, size - at - run_length);
            size -= run_length;
        }
        if (kind == 3 && at + run_length < size && size + run_length < MAX_BYTES) {
            memmove(bytes + at + run_length, bytes + at, size - at);
            size += run_length;
        }
        if (kind == 4 && other->size > run_length && at + run_length <= size)
            memcpy(bytes + at,
                   other->bytes + ct_rng_below(key, next++, (uint32_t)(other->size - run_length)),
                   run_length);
    }
    return size;
}

int main(int argc, char **argv)
{
    static seed seeds[MAX_SEEDS];
    static char work[MAX_BYTES];
    int count = 0;
    for (int i = 1; i < argc; i++) count = read_folder(argv[i], seeds, count);
    if (!count) {
        fprintf(stderr, "no seeds\n");
        return 1;
    }
    const char *seed_text = getenv("CT_FUZZ_SEED"), *runs_text = getenv("CT_FUZZ_RUNS");
    uint64_t random_seed = seed_text ? strtoull(seed_text, NULL, 10) : 1;
    uint32_t runs = runs_text ? (uint32_t)strtoul(runs_text, NULL, 10) : 20000;
    printf("%d seeds, %u mutations, random seed %llu\n", count, runs,
           (unsigned long long)random_seed);
    for (int i = 0; i < count; i++) run(seeds[i].bytes, seeds[i].size);
    for (uint32_t i = 0; i < runs; i++) {
        ct_rng_key key = ct_rng_make(random_seed, CT_RNG_TEST, 0, i);
        const seed *from = &seeds[ct_rng_below(key, 1000, (uint32_t)count)];
        const seed *other = &seeds[ct_rng_below(key, 1001, (uint32_t)count)];
        size_t size = from->size < MAX_BYTES ? from->size : MAX_BYTES;
        memcpy(work, from->bytes, size);
        size = mutate(work, size, other, key);
        run(work, size);
    }
    for (int i = 0; i < count; i++) free(seeds[i].bytes);
    return 0;
}
