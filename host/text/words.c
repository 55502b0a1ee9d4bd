#include "text/words.h"

#include <assert.h>
#include <stdlib.h>
#include <utf8proc.h>

#include "base/memory.h"

/* The longest canonical decomposition of one character (Unicode Standard Annex 15, table 4). */
#define MAX_DECOMPOSED 4

/* What becomes of each ASCII character: '-' is dropped, ' ' separates words, 'p' is punctuation (a
 * word of its own), 'w' is part of a word. */
static const char ascii_class[] = "---------  -- --"  /* tab, newline, carriage return */
                                  "----------------"  /* */
                                  " ppppppppppppppp"  /*  !"#$%&'()*+,-./ */
                                  "wwwwwwwwwwpppppp"  /* 0123456789:;<=>? */
                                  "pwwwwwwwwwwwwwww"  /* @ABCDEFGHIJKLMNO */
                                  "wwwwwwwwwwwppppp"  /* PQRSTUVWXYZ[\]^_ */
                                  "pwwwwwwwwwwwwwww"  /* `abcdefghijklmno */
                                  "wwwwwwwwwwwpppp-"; /* pqrstuvwxyz{|}~ */

static bool is_ascii(const char *text, size_t size)
{
    unsigned char any = 0;
    for (size_t i = 0; i < size; i++) any |= (unsigned char)text[i];
    return any < 0x80;
}

static inline unsigned char ascii_lower(unsigned char c)
{
    return (unsigned char)(c - 'A') < 26 ? (unsigned char)(c + 32) : c;
}

/* Ends the word that began at `start`, if it has any bytes. */
static inline void end_word(ct_words *words, size_t start, size_t end, size_t chars)
{
    if (end > start) words->words[words->count++] = (ct_word){start, end - start, chars};
}

/* Nearly all captions are ASCII, where a character is a byte and a table knows all about it. */
static ct_status split_ascii(ct_words *words, const char *text, size_t size, bool lowercase)
{
    CT_TRY(ct_grow(&words->text, &words->text_capacity, size, 1, "a caption"));
    CT_TRY(ct_grow(&words->words, &words->word_capacity, size, sizeof(ct_word), "words"));
    size_t start = 0, end = 0;
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        char class = ascii_class[c];
        if (class == '-') continue;
        if (class == 'w') {
            words->text[end++] = (char)(lowercase ? ascii_lower(c) : c);
            continue;
        }
        end_word(words, start, end, end - start);
        start = end;
        if (class == 'p') {
            words->text[end++] = (char)c;
            end_word(words, start, end, 1);
            start = end;
        }
    }
    end_word(words, start, end, end - start);
    return CT_OK;
}

/* '-', ' ', 'p' or 'w' as in ascii_class. Characters that Unicode has not assigned are kept, as
 * Hugging Face's tables do. */
static char class_of(int32_t c)
{
    if (c < 0x80) return ascii_class[c];
    if (c == 0xFFFD) return '-';
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CO:
        return '-';
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return ' ';
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
        return 'p';
    default:
        return 'w';
    }
}

/* The blocks of Chinese characters that BERT sets apart; Hugging Face's list, whose extension E
 * begins at U+2B920 where Unicode's and the original BERT's begin at U+2B820. */
static bool is_chinese(int32_t c)
{
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
           (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
           (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

/* Appends one character of a canonical decomposition, lower-cased, without accents (Mn). Those
 * combining characters that stay are put in canonical order: each goes before those of a higher
 * class since the last character of class 0. A run too long for a word to be looked up is left
 * as it is, which also bounds the time. */
static void put_decomposed(ct_words *words, int32_t c)
{
    const utf8proc_property_t *property = utf8proc_get_property(c);
    bool accent = property->category == UTF8PROC_CATEGORY_MN;
    size_t at = words->point_count;
    if (!property->combining_class) words->run_start = accent ? at : at + 1;
    if (accent) return;
    int32_t lower = utf8proc_tolower(c);
    words->points[words->point_count++] = lower;
    if (at < words->run_start || at - words->run_start > CT_WORD_MAX_CHARS) return;
    for (; at > words->run_start; at--) {
        int32_t before = words->points[at - 1];
        if (utf8proc_get_property(before)->combining_class <= property->combining_class) break;
        words->points[at] = before;
        words->points[at - 1] = lower;
    }
}

static void put_point(ct_words *words, int32_t c, bool lowercase)
{
    if (!lowercase || c < 0x80) {
        words->run_start = words->point_count + 1;
        words->points[words->point_count++] = lowercase ? ascii_lower((unsigned char)c) : c;
        return;
    }
    utf8proc_int32_t parts[MAX_DECOMPOSED];
    int boundary = 0;
    utf8proc_ssize_t count =
        utf8proc_decompose_char(c, parts, MAX_DECOMPOSED, UTF8PROC_DECOMPOSE, &boundary);
    assert(count >= 0 && count <= MAX_DECOMPOSED);
    for (utf8proc_ssize_t i = 0; i < count; i++) put_decomposed(words, parts[i]);
}

/* UTF-8 to cleaned and normalised code points. A byte that begins no valid sequence is dropped: it
 * would become U+FFFD, which cleaning drops. */
static ct_status normalise(ct_words *words, const char *text, size_t size, bool lowercase)
{
    words->point_count = words->run_start = 0;
    for (size_t i = 0; i < size;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t bytes =
            utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(size - i), &c);
        i += bytes > 0 ? (size_t)bytes : 1;
        char class = bytes > 0 ? class_of(c) : '-';
        if (class == '-') continue;
        CT_TRY(ct_grow(&words->points, &words->point_capacity,
                       words->point_count + MAX_DECOMPOSED + 2, sizeof *words->points,
                       "a caption"));
        bool apart = is_chinese(c);
        if (apart) put_point(words, ' ', false);
        put_point(words, class == ' ' ? ' ' : c, lowercase);
        if (apart) put_point(words, ' ', false);
    }
    return CT_OK;
}

static ct_status split_points(ct_words *words)
{
    CT_TRY(ct_grow(&words->text, &words->text_capacity, 4 * words->point_count, 1, "a caption"));
    CT_TRY(ct_grow(&words->words, &words->word_capacity, words->point_count, sizeof(ct_word),
                   "words"));
    size_t start = 0, end = 0, chars = 0;
    for (size_t i = 0; i < words->point_count; i++) {
        char class = class_of(words->points[i]);
        if (class != 'w') {
            end_word(words, start, end, chars);
            start = end;
            chars = 0;
        }
        if (class == ' ') continue;
        end +=
            (size_t)utf8proc_encode_char(words->points[i], (utf8proc_uint8_t *)words->text + end);
        chars++;
        if (class == 'p') {
            end_word(words, start, end, 1);
            start = end;
            chars = 0;
        }
    }
    end_word(words, start, end, chars);
    return CT_OK;
}

ct_status ct_words_split(ct_words *words, const char *text, size_t size, bool lowercase)
{
    words->count = 0;
    if (is_ascii(text, size)) return split_ascii(words, text, size, lowercase);
    CT_TRY(normalise(words, text, size, lowercase));
    return split_points(words);
}

void ct_words_free(ct_words *words)
{
    free(words->text);
    free(words->words);
    free(words->points);
    *words = (ct_words){0};
}
