/* Learns a WordPiece vocabulary in BERT's vocab.txt format from captions, by pair merges: the same
 * pre-tokenization as the tokenizer, then repeatedly the most frequent adjacent pair of pieces
 * (ties: the pair whose pieces have the lower ids), as Hugging Face's WordPieceTrainer (a BPE
 * trainer with "##") does. There the ids of "##" characters, and so the choice among ties, differ
 * from run to run; here they are in order of code points, and the result is a function of the
 * captions. Words over 100 characters, which the tokenizer makes [UNK], are left out. */
#ifndef CT_TEXT_VOCAB_TRAINER_H
#define CT_TEXT_VOCAB_TRAINER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* *out = vocab.txt's text: [PAD] [UNK] [CLS] [SEP] [MASK], then all characters, then those found
 * inside words ("##c"), then merged pieces; at most `size` lines (CT_ERR_ARGUMENT when that is too
 * few for the characters); pairs seen fewer than min_frequency times are not merged. Freed with
 * free(). */
CT_NODISCARD ct_status ct_vocab_train(const char *const *texts, int32_t count, bool lowercase,
                                      int32_t size, int32_t min_frequency, char **out,
                                      size_t *out_bytes);

#endif
