#include "text/vocab_trainer.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/memory.h"
#include "text/merge_queue.h"
#include "text/table.h"
#include "text/words.h"

#define UNICODE_POINTS 0x110000

static const char *const special_text[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
#define SPECIAL_COUNT (sizeof special_text / sizeof *special_text)

/* A word of the captions and its pieces so far, pieces[start .. start + length). */
typedef struct word_entry {
    int64_t count; /* how often the captions have it */
    size_t start;
    int32_t length;
} word_entry;

/* Two adjacent pieces. */
typedef struct pair_entry {
    int64_t count;
    int32_t left, right;
    ct_word_list words; /* where the pair has appeared since it was last queued */
} pair_entry;

typedef struct trainer {
    ct_table word_table; /* words of the captions */
    word_entry *words;   /* by number in word_table */
    size_t word_capacity;

    ct_table piece_table; /* the vocabulary: a piece's number is its line */
    int32_t *pieces;      /* of all words */

    ct_table pair_table; /* keys are {left, right} */
    pair_entry *pairs;   /* by number in pair_table */
    size_t pair_capacity;

    int32_t *touched; /* pairs whose `words` is not empty */
    size_t touched_count, touched_capacity;

    ct_merge_queue queue;

    char *joined; /* where a merged piece is spelt */
    size_t joined_capacity;
} trainer;

static ct_status add_word(trainer *self, const char *bytes, size_t size)
{
    int32_t known = self->word_table.count, number;
    CT_TRY(ct_grow(&self->words, &self->word_capacity, (size_t)known + 1, sizeof *self->words,
                   "words"));
    CT_TRY(ct_table_add(&self->word_table, bytes, size, &number));
    if (number == known) self->words[number] = (word_entry){0};
    self->words[number].count++;
    return CT_OK;
}

static ct_status count_words(trainer *self, const char *const *texts, int32_t count, bool lowercase)
{
    ct_words split = {0};
    ct_status status = CT_OK;
    for (int32_t i = 0; i < count && status == CT_OK; i++) {
        status = ct_words_split(&split, texts[i], strlen(texts[i]), lowercase);
        for (size_t w = 0; w < split.count && status == CT_OK; w++) {
            const ct_word *word = &split.words[w];
            if (word->chars <= CT_WORD_MAX_CHARS)
                status = add_word(self, split.text + word->start, word->bytes);
        }
    }
    ct_words_free(&split);
    return status;
}

/* The code point at `bytes`, which are valid UTF-8; returns its size. */
static size_t decode(const char *bytes, size_t size, int32_t *c)
{
    return (size_t)utf8proc_iterate((const utf8proc_uint8_t *)bytes, (utf8proc_ssize_t)size, c);
}

/* The piece for a character: itself at the start of a word, else "##" and itself. */
static ct_status add_character(trainer *self, int32_t c, bool continuing, int32_t *number)
{
    char piece[2 + 4] = "##";
    size_t skipped = continuing ? 2 : 0;
    size_t size = (size_t)utf8proc_encode_char(c, (utf8proc_uint8_t *)piece + skipped);
    return ct_table_add(&self->piece_table, piece, skipped + size, number);
}

/* Adds all characters in order of their code points, then those inside words as "##" pieces.
 * seen: by code point, zeroed; bit 0: in a word, bit 1: not at its start. */
static ct_status add_alphabet(trainer *self, uint8_t *seen)
{
    int32_t c, number, highest = -1;
    for (int32_t w = 0; w < self->word_table.count; w++) {
        const char *bytes = ct_table_bytes(&self->word_table, w);
        size_t size = self->word_table.keys[w].size;
        for (size_t i = 0; i < size;) {
            uint8_t bits = i ? 3 : 1;
            i += decode(bytes + i, size - i, &c);
            seen[c] |= bits;
            if (c > highest) highest = c;
        }
    }
    for (int bit = 0; bit < 2; bit++)
        for (c = 0; c <= highest; c++)
            if (seen[c] >> bit & 1) CT_TRY(add_character(self, c, bit == 1, &number));
    return CT_OK;
}

static ct_status add_first_pieces(trainer *self, int32_t size)
{
    uint8_t *seen;
    int32_t number;
    for (size_t i = 0; i < SPECIAL_COUNT; i++)
        CT_TRY(ct_table_add(&self->piece_table, special_text[i], strlen(special_text[i]), &number));
    CT_TRY(ct_alloc(UNICODE_POINTS, sizeof *seen, "characters", &seen));
    ct_status status = add_alphabet(self, seen);
    free(seen);
    if (status == CT_OK && self->piece_table.count > size)
        return ct_fail(CT_ERR_ARGUMENT,
                       "a vocabulary of %d tokens is too small: the special tokens and the "
                       "characters of these captions alone are %d",
                       size, self->piece_table.count);
    return status;
}

/* Spells every word in characters. */
static ct_status spell_words(trainer *self)
{
    size_t used = 0;
    CT_TRY(ct_alloc(self->word_table.bytes_used, sizeof *self->pieces, "pieces of words",
                    &self->pieces));
    for (int32_t w = 0; w < self->word_table.count; w++) {
        const char *bytes = ct_table_bytes(&self->word_table, w);
        size_t size = self->word_table.keys[w].size;
        self->words[w].start = used;
        for (size_t i = 0; i < size;) {
            int32_t c;
            bool continuing = i > 0;
            i += decode(bytes + i, size - i, &c);
            CT_TRY(add_character(self, c, continuing, &self->pieces[used++]));
        }
        self->words[w].length = (int32_t)(used - self->words[w].start);
    }
    return CT_OK;
}

/* The pair has gone from (sign -1) or come up (sign 1) at one place in the word. */
static ct_status change_pair(trainer *self, int32_t left, int32_t right, int32_t word, int sign)
{
    int32_t key[2] = {left, right}, known = self->pair_table.count, number;
    CT_TRY(ct_grow(&self->pairs, &self->pair_capacity, (size_t)known + 1, sizeof *self->pairs,
                   "pairs"));
    CT_TRY(ct_table_add(&self->pair_table, key, sizeof key, &number));
    pair_entry *pair = &self->pairs[number];
    if (number == known) *pair = (pair_entry){.left = left, .right = right};
    pair->count += sign * self->words[word].count;
    ct_word_list *list = &pair->words;
    if (sign < 0 || (list->count && list->items[list->count - 1] == word)) return CT_OK;
    CT_TRY(ct_grow(&list->items, &list->capacity, list->count + 1, sizeof *list->items,
                   "words of a pair"));
    if (!list->count) {
        CT_TRY(ct_grow(&self->touched, &self->touched_capacity, self->touched_count + 1,
                       sizeof *self->touched, "pairs"));
        self->touched[self->touched_count++] = number;
    }
    list->items[list->count++] = word;
    return CT_OK;
}

/* Queues the pairs that have come up, each with the words where it has. */
static ct_status queue_touched(trainer *self)
{
    for (size_t i = 0; i < self->touched_count; i++) {
        pair_entry *pair = &self->pairs[self->touched[i]];
        ct_merge merge = {pair->count, pair->left, pair->right, self->touched[i], pair->words};
        CT_TRY(ct_merge_queue_push(&self->queue, merge));
        pair->words = (ct_word_list){0};
    }
    self->touched_count = 0;
    return CT_OK;
}

static ct_status count_pairs(trainer *self)
{
    for (int32_t w = 0; w < self->word_table.count; w++) {
        const int32_t *pieces = self->pieces + self->words[w].start;
        for (int32_t i = 0; i + 1 < self->words[w].length; i++)
            CT_TRY(change_pair(self, pieces[i], pieces[i + 1], w, 1));
    }
    return queue_touched(self);
}

/* *number = the piece that spells left and right together. */
static ct_status join_pieces(trainer *self, int32_t left, int32_t right, int32_t *number)
{
    size_t left_size = self->piece_table.keys[left].size;
    size_t right_size = self->piece_table.keys[right].size - 2; /* without "##" */
    CT_TRY(ct_grow(&self->joined, &self->joined_capacity, left_size + right_size, 1, "a piece"));
    memcpy(self->joined, ct_table_bytes(&self->piece_table, left), left_size);
    memcpy(self->joined + left_size, ct_table_bytes(&self->piece_table, right) + 2, right_size);
    return ct_table_add(&self->piece_table, self->joined, left_size + right_size, number);
}

/* Replaces the pair by `joined` wherever the word has it, from left to right. */
static ct_status merge_in_word(trainer *self, int32_t word, const ct_merge *merge, int32_t joined)
{
    int32_t *pieces = self->pieces + self->words[word].start;
    int32_t length = self->words[word].length, to = 0;
    for (int32_t from = 0; from < length;) {
        if (from + 1 == length || pieces[from] != merge->left || pieces[from + 1] != merge->right) {
            pieces[to++] = pieces[from++];
            continue;
        }
        from += 2;
        if (to > 0) {
            CT_TRY(change_pair(self, pieces[to - 1], merge->left, word, -1));
            CT_TRY(change_pair(self, pieces[to - 1], joined, word, 1));
        }
        if (from < length) {
            CT_TRY(change_pair(self, merge->right, pieces[from], word, -1));
            CT_TRY(change_pair(self, joined, pieces[from], word, 1));
        }
        pieces[to++] = joined;
    }
    self->words[word].length = to;
    return CT_OK;
}

static ct_status apply(trainer *self, const ct_merge *merge)
{
    int32_t joined;
    CT_TRY(join_pieces(self, merge->left, merge->right, &joined));
    for (size_t i = 0; i < merge->words.count; i++)
        CT_TRY(merge_in_word(self, merge->words.items[i], merge, joined));
    return queue_touched(self);
}

/* A merge whose pair has become rarer since it was queued goes back in with its present count.
 * As in Hugging Face's trainer a merge does not lower the count of its own pair: when the same
 * pair comes up again through another merge it is taken up at once. */
static ct_status make_merges(trainer *self, int32_t size, int32_t min_frequency)
{
    while (self->piece_table.count < size && self->queue.count) {
        const ct_merge *best = &self->queue.heap[0];
        int64_t count = self->pairs[best->pair].count;
        if (best->count != count) {
            ct_merge_queue_correct(&self->queue, count);
            continue;
        }
        if (count < 1 || count < min_frequency) break;
        ct_merge merge = ct_merge_queue_pop(&self->queue);
        ct_status status = apply(self, &merge);
        free(merge.words.items);
        if (status != CT_OK) return status;
    }
    return CT_OK;
}

static ct_status write_vocab(const trainer *self, char **out, size_t *out_bytes)
{
    const ct_table *table = &self->piece_table;
    size_t bytes = table->bytes_used + (size_t)table->count;
    CT_TRY(ct_alloc(bytes + 1, 1, "the vocabulary", out));
    char *to = *out;
    for (int32_t i = 0; i < table->count; i++) {
        memcpy(to, ct_table_bytes(table, i), table->keys[i].size);
        to += table->keys[i].size;
        *to++ = '\n';
    }
    *out_bytes = bytes;
    return CT_OK;
}

static void release(trainer *self)
{
    for (int32_t i = 0; i < self->pair_table.count; i++) free(self->pairs[i].words.items);
    ct_merge_queue_free(&self->queue);
    ct_table_free(&self->word_table);
    ct_table_free(&self->piece_table);
    ct_table_free(&self->pair_table);
    free(self->words);
    free(self->pieces);
    free(self->pairs);
    free(self->touched);
    free(self->joined);
}

ct_status ct_vocab_train(const char *const *texts, int32_t count, bool lowercase, int32_t size,
                         int32_t min_frequency, char **out, size_t *out_bytes)
{
    trainer self = {0};
    ct_status status;
    CT_TRY_GOTO(status, count_words(&self, texts, count, lowercase), end);
    CT_TRY_GOTO(status, add_first_pieces(&self, size), end);
    CT_TRY_GOTO(status, spell_words(&self), end);
    CT_TRY_GOTO(status, count_pairs(&self), end);
    CT_TRY_GOTO(status, make_merges(&self, size, min_frequency), end);
    status = write_vocab(&self, out, out_bytes);
end:
    release(&self);
    return status;
}
