#include "data/names.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* FNV-1a (Fowler, Noll, Vo), 32 bits. */
static uint32_t hash_of(const char *name)
{
    uint32_t hash = 2166136261u;
    for (; *name; name++) hash = (hash ^ (unsigned char)*name) * 16777619u;
    return hash;
}

static void insert(ct_names *names, uint32_t hash, int32_t photo)
{
    uint32_t at = hash & (names->capacity - 1);
    while (names->slots[at].photo) at = (at + 1) & (names->capacity - 1);
    names->slots[at].hash = hash;
    names->slots[at].photo = photo + 1;
}

static ct_status grow(ct_names *names)
{
    ct_names old = *names;
    uint32_t capacity = old.capacity ? old.capacity * 2 : 1024;
    CT_TRY(ct_alloc(capacity, sizeof *names->slots, "the table of photo names", &names->slots));
    names->capacity = capacity;
    for (uint32_t i = 0; i < old.capacity; i++)
        if (old.slots[i].photo) insert(names, old.slots[i].hash, old.slots[i].photo - 1);
    free(old.slots);
    return CT_OK;
}

int32_t ct_names_find(const ct_names *names, const ct_photo *photos, const char *name)
{
    if (!names->capacity) return -1;
    uint32_t hash = hash_of(name), mask = names->capacity - 1;
    for (uint32_t at = hash & mask; names->slots[at].photo; at = (at + 1) & mask) {
        int32_t photo = names->slots[at].photo - 1;
        if (names->slots[at].hash == hash && strcmp(photos[photo].name, name) == 0) return photo;
    }
    return -1;
}

ct_status ct_names_add(ct_names *names, const ct_photo *photos)
{
    if ((uint32_t)names->count >= names->capacity / 2) CT_TRY(grow(names));
    insert(names, hash_of(photos[names->count].name), names->count);
    names->count++;
    return CT_OK;
}

void ct_names_free(ct_names *names)
{
    free(names->slots);
    *names = (ct_names){0};
}
