/* Numbers byte strings 0, 1, 2, ... in the order in which they first appear (inside this module
 * only): words, pieces and pairs of pieces while a vocabulary is learned. */
#ifndef CT_TEXT_TABLE_H
#define CT_TEXT_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct ct_table_key {
    size_t start, size; /* in ct_table.bytes */
    uint32_t hash;
} ct_table_key;

typedef struct ct_table {
    char *bytes; /* all keys, one after the other */
    size_t bytes_used, bytes_capacity;
    ct_table_key *keys; /* by number */
    size_t key_capacity;
    int32_t count;
    int32_t *slots; /* number + 1, 0 = free; at least twice as many as keys, a power of two */
    size_t slot_count;
} ct_table;

/* *number = the key's; it is added when it is new. The table is zeroed at first. */
CT_NODISCARD ct_status ct_table_add(ct_table *table, const void *key, size_t size, int32_t *number);

static inline const char *ct_table_bytes(const ct_table *table, int32_t number)
{
    return table->bytes + table->keys[number].start;
}

void ct_table_free(ct_table *table);

#endif
