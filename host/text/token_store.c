#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "text/tokenizer.h"

/* A thread's share: captions [first, last), their ids one after the other in a buffer of its own,
 * their lengths straight in the store. */
typedef struct share {
    const ct_tokenizer *tokenizer;
    const char *const *texts;
    int32_t first, last, max_tokens;
    int64_t *lengths; /* the store's offset + 1: the length of caption c at index c */
    int32_t *ids;
    size_t count, capacity;
    pthread_t thread;
    ct_status status;
    char *message;
} share;

static ct_status encode_share(share *part, ct_tokenizer_scratch *scratch)
{
    for (int32_t c = part->first; c < part->last; c++) {
        int32_t count;
        CT_TRY(ct_grow(&part->ids, &part->capacity, part->count + (size_t)part->max_tokens,
                       sizeof *part->ids, "token ids"));
        CT_TRY(ct_tokenizer_encode(part->tokenizer, scratch, part->texts[c], strlen(part->texts[c]),
                                   part->max_tokens, part->ids + part->count, &count));
        part->count += (size_t)count;
        part->lengths[c] = count;
    }
    return CT_OK;
}

static void *run_share(void *argument)
{
    share *part = argument;
    ct_tokenizer_scratch *scratch = NULL;
    part->status = ct_tokenizer_scratch_create(&scratch);
    if (part->status == CT_OK) part->status = encode_share(part, scratch);
    if (part->status != CT_OK) part->message = strdup(ct_error_message());
    ct_tokenizer_scratch_destroy(scratch);
    return NULL;
}

/* Runs every share: the first here, the others in threads of their own, or here too when the
 * system gives no more threads. */
static void run_shares(share *parts, int count)
{
    int started = 1;
    while (started < count &&
           pthread_create(&parts[started].thread, NULL, run_share, &parts[started]) == 0)
        started++;
    run_share(&parts[0]);
    for (int i = started; i < count; i++) run_share(&parts[i]);
    for (int i = 1; i < started; i++) pthread_join(parts[i].thread, NULL);
}

static ct_status pack(ct_token_store *store, const share *parts, int count)
{
    size_t total = 0;
    for (int i = 0; i < count; i++) {
        if (parts[i].status != CT_OK)
            return ct_fail(parts[i].status, "%s",
                           parts[i].message ? parts[i].message : "tokenization failed");
        total += parts[i].count;
    }
    CT_TRY(ct_alloc(total, sizeof *store->ids, "token ids", &store->ids));
    int32_t *to = store->ids;
    for (int i = 0; i < count; i++) {
        if (parts[i].count) memcpy(to, parts[i].ids, parts[i].count * sizeof *to);
        to += parts[i].count;
    }
    for (int32_t c = 0; c < store->count; c++) {
        int64_t length = store->offset[c + 1];
        if (length > store->longest) store->longest = (int32_t)length;
        store->offset[c + 1] = store->offset[c] + length;
    }
    return CT_OK;
}

static ct_status fill(ct_token_store *store, const ct_tokenizer *tokenizer,
                      const char *const *texts, int32_t max_tokens, int threads)
{
    share *parts;
    CT_TRY(ct_alloc((size_t)store->count + 1, sizeof *store->offset, "caption offsets",
                    &store->offset));
    CT_TRY(ct_alloc((size_t)threads, sizeof *parts, "threads", &parts));
    for (int i = 0; i < threads; i++)
        parts[i] = (share){.tokenizer = tokenizer,
                           .texts = texts,
                           .first = (int32_t)((int64_t)store->count * i / threads),
                           .last = (int32_t)((int64_t)store->count * (i + 1) / threads),
                           .max_tokens = max_tokens,
                           .lengths = store->offset + 1};
    run_shares(parts, threads);
    ct_status status = pack(store, parts, threads);
    for (int i = 0; i < threads; i++) {
        free(parts[i].ids);
        free(parts[i].message);
    }
    free(parts);
    return status;
}

ct_status ct_token_store_create(const ct_tokenizer *tokenizer, const char *const *texts,
                                int32_t count, int32_t max_tokens, int threads,
                                ct_token_store **out)
{
    ct_token_store *store;
    if (count < 0 || threads < 1)
        return ct_fail(CT_ERR_ARGUMENT,
                       "a token store needs count >= 0 and threads >= 1; they are %d and %d", count,
                       threads);
    if (threads > count) threads = count ? count : 1;
    CT_TRY(ct_alloc(1, sizeof *store, "a token store", &store));
    store->count = count;
    ct_status status = fill(store, tokenizer, texts, max_tokens, threads);
    if (status != CT_OK) {
        ct_token_store_destroy(store);
        return status;
    }
    *out = store;
    return CT_OK;
}

void ct_token_store_destroy(ct_token_store *store)
{
    if (!store) return;
    free(store->ids);
    free(store->offset);
    free(store);
}
