/* Tokenizes the lines of a file and prints how fast, on one thread:
 *
 *     tokenizer_benchmark VOCAB LINES [PASSES]
 *
 * One line of JSON: the fastest pass, and sums by which another program's ids can be compared.
 * tokenizer_hf.py runs it in turns with Hugging Face's tokenizer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/memory.h"
#include "text/tokenizer.h"

#define MAX_TOKENS 77
#define MAX_BYTES  ((size_t)1 << 30)

typedef struct line_list {
    char **lines;
    size_t *sizes;
    size_t count, line_capacity, size_capacity;
} line_list;

typedef struct sums {
    long long tokens, ids;
} sums;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static ct_status split_lines(char *text, size_t size, line_list *list)
{
    for (char *line = text, *end; line < text + size; line = end + 1) {
        end = memchr(line, '\n', (size_t)(text + size - line));
        if (!end) end = text + size;
        CT_TRY(ct_grow(&list->lines, &list->line_capacity, list->count + 1, sizeof *list->lines,
                       "lines"));
        CT_TRY(ct_grow(&list->sizes, &list->size_capacity, list->count + 1, sizeof *list->sizes,
                       "lines"));
        list->lines[list->count] = line;
        list->sizes[list->count++] = (size_t)(end - line);
    }
    return CT_OK;
}

static ct_status encode_all(const ct_tokenizer *tokenizer, ct_tokenizer_scratch *scratch,
                            const line_list *list, sums *total)
{
    int32_t ids[MAX_TOKENS], count;
    *total = (sums){0};
    for (size_t i = 0; i < list->count; i++) {
        CT_TRY(ct_tokenizer_encode(tokenizer, scratch, list->lines[i], list->sizes[i], MAX_TOKENS,
                                   ids, &count));
        total->tokens += count;
        for (int32_t k = 0; k < count; k++) total->ids += ids[k];
    }
    return CT_OK;
}

static ct_status measure(const ct_tokenizer *tokenizer, const line_list *list, int passes)
{
    ct_tokenizer_scratch *scratch;
    sums total = {0};
    double best = 0;
    CT_TRY(ct_tokenizer_scratch_create(&scratch));
    ct_status status = CT_OK;
    for (int pass = 0; pass < passes && status == CT_OK; pass++) {
        double start = now();
        status = encode_all(tokenizer, scratch, list, &total);
        double seconds = now() - start;
        if (pass == 0 || seconds < best) best = seconds;
    }
    ct_tokenizer_scratch_destroy(scratch);
    if (status == CT_OK)
        printf("{\"lines\":%zu,\"seconds\":%.6f,\"lines_per_second\":%.0f,\"tokens\":%lld,"
               "\"id_sum\":%lld}\n",
               list->count, best, (double)list->count / best, total.tokens, total.ids);
    return status;
}

static ct_status run(const char *vocab, const char *path, int passes)
{
    ct_tokenizer *tokenizer;
    char *text = NULL;
    size_t size;
    line_list list = {0};
    ct_status status;
    CT_TRY(ct_tokenizer_load(vocab, true, &tokenizer));
    CT_TRY_GOTO(status, ct_file_read(path, MAX_BYTES, &text, &size), done);
    CT_TRY_GOTO(status, split_lines(text, size, &list), done);
    status = measure(tokenizer, &list, passes);
done:
    free(list.lines);
    free(list.sizes);
    free(text);
    ct_tokenizer_destroy(tokenizer);
    return status;
}

int main(int argc, char **argv)
{
    int passes = argc == 4 ? atoi(argv[3]) : 5;
    if (argc < 3 || argc > 4 || passes < 1) {
        fputs("Usage: tokenizer_benchmark VOCAB LINES [PASSES]\n", stderr);
        return 2;
    }
    if (run(argv[1], argv[2], passes) == CT_OK) return 0;
    fprintf(stderr, "tokenizer_benchmark: %s\n", ct_error_message());
    return 1;
}
