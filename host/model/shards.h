/* How the ranks of a job share a flat array of numbers: in buckets, so that a bucket can travel
 * while the next one is being computed, and each bucket in equal parts, one a rank.
 *
 *   bucket 0                   bucket 1                   the last one may be shorter
 *   | rank 0 | rank 1 | rank 2 | rank 0 | rank 1 | rank 2 | 0 | 1 | 2 |
 *
 * A rank that keeps its own parts only keeps them one after the other:
 *   | of bucket 0 | of bucket 1 | of the last | */
#ifndef CT_MODEL_SHARDS_H
#define CT_MODEL_SHARDS_H

#include <stdint.h>

typedef struct ct_shards {
    int64_t count;  /* of numbers in all: parts are whole multiples of CT_SHARD_MULTIPLE */
    int64_t bucket; /* numbers a bucket, but the last one */
    int rank, size;
} ct_shards;

typedef struct ct_range {
    int64_t begin, end;
} ct_range;

/* Parts begin at multiples of so many numbers: 64 bytes of bf16, 128 of f32. */
enum { CT_SHARD_MULTIPLE = 32 };

/* count and bucket are rounded up as above. */
ct_shards ct_shards_make(int64_t count, int64_t bucket, int rank, int size);

int64_t ct_shards_buckets(const ct_shards *shards);
ct_range ct_shards_bucket(const ct_shards *shards, int64_t bucket);

/* This rank's part of a bucket, and where it begins among its own parts. */
ct_range ct_shards_own(const ct_shards *shards, int64_t bucket);
int64_t ct_shards_own_begin(const ct_shards *shards, int64_t bucket);

/* Numbers in all own parts. */
int64_t ct_shards_own_count(const ct_shards *shards);

static inline int64_t ct_range_count(ct_range range)
{
    return range.end - range.begin;
}

/* What both have; empty (begin == end) when nothing. */
static inline ct_range ct_range_common(ct_range a, ct_range b)
{
    const int64_t begin = a.begin > b.begin ? a.begin : b.begin;
    const int64_t end = a.end < b.end ? a.end : b.end;
    return (ct_range){begin, end > begin ? end : begin};
}

#endif
