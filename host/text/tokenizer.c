#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/file.h"
#include "base/memory.h"
#include "text/trie.h"
#include "text/words.h"

#define MAX_VOCAB_BYTES ((size_t)64 << 20)

enum { UNK, CLS, SEP, PAD, MASK, SPECIAL_COUNT };

static const char *const special_text[SPECIAL_COUNT] = {"[UNK]", "[CLS]", "[SEP]", "[PAD]",
                                                        "[MASK]"};

struct ct_tokenizer {
    char *vocab_text;
    size_t vocab_bytes;
    char *lines;         /* a copy with NULs for line ends */
    const char **tokens; /* into `lines`, by id */
    int32_t vocab_size;
    int32_t special[SPECIAL_COUNT]; /* ids; -1: not in the vocabulary (only [MASK] may be) */
    bool lowercase;
    ct_trie trie;
};

struct ct_tokenizer_scratch {
    ct_words words;
};

static ct_status add_token(ct_tokenizer *tokenizer, const char *token, size_t size, int32_t id,
                           const char *name)
{
    int32_t line = id + 1, before = id;
    utf8proc_int32_t c;
    if (!size) return ct_fail(CT_ERR_FORMAT, "%s:%d: expected a token, found nothing", name, line);
    if (memchr(token, '\0', size))
        return ct_fail(CT_ERR_FORMAT, "%s:%d: a token must not contain a NUL byte", name, line);
    for (size_t i = 0; i < size;) {
        utf8proc_ssize_t bytes =
            utf8proc_iterate((const utf8proc_uint8_t *)token + i, (utf8proc_ssize_t)(size - i), &c);
        if (bytes <= 0)
            return ct_fail(CT_ERR_FORMAT, "%s:%d: byte %zu of the token is not UTF-8", name, line,
                           i + 1);
        i += (size_t)bytes;
    }
    bool continuing = size > 2 && memcmp(token, "##", 2) == 0;
    size_t skipped = continuing ? 2 : 0;
    ct_status status = ct_trie_add(&tokenizer->trie, continuing ? CT_TRIE_CONTINUING : CT_TRIE_WORD,
                                   token + skipped, size - skipped, &before);
    if (status != CT_OK) return ct_fail_context(status, "%s:%d", name, line);
    if (before >= 0)
        return ct_fail(CT_ERR_FORMAT, "%s:%d: the token \"%s\" is already on line %d", name, line,
                       token, before + 1);
    for (int i = 0; i < SPECIAL_COUNT; i++)
        if (strcmp(token, special_text[i]) == 0) tokenizer->special[i] = id;
    return CT_OK;
}

/* Cuts `lines` at its line ends and adds each line's token. */
static ct_status read_lines(ct_tokenizer *tokenizer, const char *name)
{
    size_t capacity = 0;
    char *line = tokenizer->lines, *end = line + tokenizer->vocab_bytes;
    for (int32_t id = 0; line < end; id++) {
        char *line_end = memchr(line, '\n', (size_t)(end - line));
        char *next = line_end ? line_end + 1 : end;
        if (!line_end) line_end = end;
        if (line_end > line && line_end[-1] == '\r') line_end--;
        *line_end = '\0';
        CT_TRY(ct_grow(&tokenizer->tokens, &capacity, (size_t)id + 1, sizeof *tokenizer->tokens,
                       "the vocabulary"));
        tokenizer->tokens[id] = line;
        tokenizer->vocab_size = id + 1;
        CT_TRY(add_token(tokenizer, line, (size_t)(line_end - line), id, name));
        line = next;
    }
    return CT_OK;
}

static ct_status build(ct_tokenizer *tokenizer, const char *text, size_t size, const char *name)
{
    if (size > MAX_VOCAB_BYTES)
        return ct_fail(CT_ERR_FORMAT, "%s: larger than the limit of %zu bytes", name,
                       MAX_VOCAB_BYTES);
    CT_TRY(ct_trie_init(&tokenizer->trie));
    CT_TRY(ct_alloc(size + 1, 1, "the vocabulary", &tokenizer->vocab_text));
    CT_TRY(ct_alloc(size + 1, 1, "the vocabulary", &tokenizer->lines));
    memcpy(tokenizer->vocab_text, text, size);
    memcpy(tokenizer->lines, text, size);
    tokenizer->vocab_bytes = size;
    for (int i = 0; i < SPECIAL_COUNT; i++) tokenizer->special[i] = -1;
    CT_TRY(read_lines(tokenizer, name));
    for (int i = 0; i < SPECIAL_COUNT; i++)
        if (i != MASK && tokenizer->special[i] < 0)
            return ct_fail(CT_ERR_FORMAT, "%s: no line is \"%s\" (%d lines read)", name,
                           special_text[i], tokenizer->vocab_size);
    return CT_OK;
}

ct_status ct_tokenizer_parse(const char *text, size_t size, const char *name, bool lowercase,
                             ct_tokenizer **out)
{
    ct_tokenizer *tokenizer;
    CT_TRY(ct_alloc(1, sizeof *tokenizer, "a tokenizer", &tokenizer));
    tokenizer->lowercase = lowercase;
    ct_status status = build(tokenizer, text, size, name);
    if (status != CT_OK) {
        ct_tokenizer_destroy(tokenizer);
        return status;
    }
    *out = tokenizer;
    return CT_OK;
}

ct_status ct_tokenizer_load(const char *path, bool lowercase, ct_tokenizer **out)
{
    char *text;
    size_t size;
    CT_TRY(ct_file_read(path, MAX_VOCAB_BYTES, &text, &size));
    ct_status status = ct_tokenizer_parse(text, size, path, lowercase, out);
    free(text);
    return status;
}

void ct_tokenizer_destroy(ct_tokenizer *tokenizer)
{
    if (!tokenizer) return;
    ct_trie_free(&tokenizer->trie);
    free(tokenizer->vocab_text);
    free(tokenizer->lines);
    free(tokenizer->tokens);
    free(tokenizer);
}

int32_t ct_tokenizer_vocab_size(const ct_tokenizer *tokenizer)
{
    return tokenizer->vocab_size;
}

const char *ct_tokenizer_vocab_text(const ct_tokenizer *tokenizer, size_t *size)
{
    *size = tokenizer->vocab_bytes;
    return tokenizer->vocab_text;
}

const char *ct_tokenizer_token(const ct_tokenizer *tokenizer, int32_t id)
{
    return id >= 0 && id < tokenizer->vocab_size ? tokenizer->tokens[id] : NULL;
}

ct_status ct_tokenizer_scratch_create(ct_tokenizer_scratch **out)
{
    return ct_alloc(1, sizeof **out, "a tokenizer's scratch memory", out);
}

void ct_tokenizer_scratch_destroy(ct_tokenizer_scratch *scratch)
{
    if (!scratch) return;
    ct_words_free(&scratch->words);
    free(scratch);
}

/* Ids being written: what does not fit is cut off. */
typedef struct id_list {
    int32_t *ids;
    int32_t count, limit;
} id_list;

static inline void put_id(id_list *list, int32_t id)
{
    if (list->count < list->limit) list->ids[list->count++] = id;
}

/* Greedy longest match; the whole word is [UNK] when any part of it has none, which may show only
 * after the list is full. */
static void put_word(const ct_tokenizer *tokenizer, const char *bytes, const ct_word *word,
                     id_list *list)
{
    id_list before = *list;
    size_t done = 0, size = 0;
    uint32_t root = CT_TRIE_WORD;
    if (word->chars > CT_WORD_MAX_CHARS) {
        put_id(list, tokenizer->special[UNK]);
        return;
    }
    while (done < word->bytes) {
        int32_t id =
            ct_trie_longest(&tokenizer->trie, root, bytes + done, word->bytes - done, &size);
        if (id < 0) {
            *list = before;
            put_id(list, tokenizer->special[UNK]);
            return;
        }
        put_id(list, id);
        done += size;
        root = CT_TRIE_CONTINUING;
    }
}

static ct_status put_plain(const ct_tokenizer *tokenizer, ct_words *words, const char *text,
                           size_t size, id_list *list)
{
    CT_TRY(ct_words_split(words, text, size, tokenizer->lowercase));
    for (size_t i = 0; i < words->count && list->count < list->limit; i++)
        put_word(tokenizer, words->text + words->words[i].start, &words->words[i], list);
    return CT_OK;
}

/* The special token that `text` begins with, or -1. */
static int special_at(const ct_tokenizer *tokenizer, const char *text, size_t size)
{
    for (int i = 0; i < SPECIAL_COUNT; i++) {
        size_t length = strlen(special_text[i]);
        if (tokenizer->special[i] >= 0 && length <= size &&
            memcmp(text, special_text[i], length) == 0)
            return i;
    }
    return -1;
}

ct_status ct_tokenizer_encode(const ct_tokenizer *tokenizer, ct_tokenizer_scratch *scratch,
                              const char *text, size_t size, int32_t max_tokens, int32_t *ids,
                              int32_t *count)
{
    if (max_tokens < 2)
        return ct_fail(CT_ERR_ARGUMENT,
                       "max_tokens must be at least 2, for [CLS] and [SEP]; it is %d", max_tokens);
    id_list list = {ids, 0, max_tokens - 1};
    put_id(&list, tokenizer->special[CLS]);
    const char *start = text, *end = text + size, *at = text;
    while (list.count < list.limit && (at = memchr(at, '[', (size_t)(end - at)))) {
        int special = special_at(tokenizer, at, (size_t)(end - at));
        if (special < 0) {
            at++;
            continue;
        }
        CT_TRY(put_plain(tokenizer, &scratch->words, start, (size_t)(at - start), &list));
        put_id(&list, tokenizer->special[special]);
        start = at += strlen(special_text[special]);
    }
    CT_TRY(put_plain(tokenizer, &scratch->words, start, (size_t)(end - start), &list));
    ids[list.count++] = tokenizer->special[SEP];
    *count = list.count;
    return CT_OK;
}
