#include "text/table.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define FIRST_SLOTS 1024

/* FNV-1a, 32 bits (Fowler, Noll, Vo; RFC 9923). */
static uint32_t hash_of(const unsigned char *key, size_t size)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < size; i++) hash = (hash ^ key[i]) * 16777619u;
    return hash;
}

/* The slot of the key, or the free one where it belongs. */
static size_t find_slot(const ct_table *table, const void *key, size_t size, uint32_t hash)
{
    size_t slot = hash & (table->slot_count - 1);
    for (; table->slots[slot]; slot = (slot + 1) & (table->slot_count - 1)) {
        const ct_table_key *other = &table->keys[table->slots[slot] - 1];
        if (other->hash == hash && other->size == size &&
            memcmp(table->bytes + other->start, key, size) == 0)
            break;
    }
    return slot;
}

static ct_status double_slots(ct_table *table)
{
    size_t count = table->slot_count ? 2 * table->slot_count : FIRST_SLOTS;
    int32_t *slots;
    CT_TRY(ct_alloc(count, sizeof *slots, "a hash table", &slots));
    for (int32_t i = 0; i < table->count; i++) {
        size_t slot = table->keys[i].hash & (count - 1);
        while (slots[slot]) slot = (slot + 1) & (count - 1);
        slots[slot] = i + 1;
    }
    free(table->slots);
    table->slots = slots;
    table->slot_count = count;
    return CT_OK;
}

ct_status ct_table_add(ct_table *table, const void *key, size_t size, int32_t *number)
{
    if (2 * ((size_t)table->count + 1) > table->slot_count) CT_TRY(double_slots(table));
    uint32_t hash = hash_of(key, size);
    size_t slot = find_slot(table, key, size, hash);
    if (!table->slots[slot]) {
        if (table->count == INT32_MAX - 1)
            return ct_fail(CT_ERR_MEMORY, "more than %d different words or pairs", table->count);
        CT_TRY(ct_grow(&table->bytes, &table->bytes_capacity, table->bytes_used + size, 1,
                       "a hash table"));
        CT_TRY(ct_grow(&table->keys, &table->key_capacity, (size_t)table->count + 1,
                       sizeof *table->keys, "a hash table"));
        memcpy(table->bytes + table->bytes_used, key, size);
        table->keys[table->count] = (ct_table_key){table->bytes_used, size, hash};
        table->bytes_used += size;
        table->slots[slot] = ++table->count;
    }
    *number = table->slots[slot] - 1;
    return CT_OK;
}

void ct_table_free(ct_table *table)
{
    free(table->bytes);
    free(table->keys);
    free(table->slots);
    *table = (ct_table){0};
}
