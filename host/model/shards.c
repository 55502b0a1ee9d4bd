#include "model/shards.h"

static int64_t round_up(int64_t value, int64_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

ct_shards ct_shards_make(int64_t count, int64_t bucket, int rank, int size)
{
    const int64_t multiple = (int64_t)CT_SHARD_MULTIPLE * size;
    return (ct_shards){.count = round_up(count, multiple),
                       .bucket = round_up(bucket, multiple),
                       .rank = rank,
                       .size = size};
}

int64_t ct_shards_buckets(const ct_shards *shards)
{
    return (shards->count + shards->bucket - 1) / shards->bucket;
}

ct_range ct_shards_bucket(const ct_shards *shards, int64_t bucket)
{
    const int64_t begin = bucket * shards->bucket, end = begin + shards->bucket;
    return (ct_range){begin, end < shards->count ? end : shards->count};
}

ct_range ct_shards_own(const ct_shards *shards, int64_t bucket)
{
    const ct_range all = ct_shards_bucket(shards, bucket);
    const int64_t part = ct_range_count(all) / shards->size,
                  begin = all.begin + shards->rank * part;
    return (ct_range){begin, begin + part};
}

int64_t ct_shards_own_begin(const ct_shards *shards, int64_t bucket)
{
    return bucket * (shards->bucket / shards->size);
}

int64_t ct_shards_own_count(const ct_shards *shards)
{
    return shards->count / shards->size;
}
