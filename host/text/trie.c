#include "text/trie.h"

#include <stdlib.h>

#include "base/memory.h"

#define FIRST_BITS 10

static ct_status allocate(ct_trie *trie, int bits)
{
    trie->capacity = (size_t)1 << bits;
    trie->shift = 32 - bits;
    return ct_alloc(trie->capacity, sizeof *trie->edges, "the vocabulary", &trie->edges);
}

ct_status ct_trie_init(ct_trie *trie)
{
    *trie = (ct_trie){.nodes = 2};
    return allocate(trie, FIRST_BITS);
}

void ct_trie_free(ct_trie *trie)
{
    free(trie->edges);
    *trie = (ct_trie){0};
}

static ct_status double_capacity(ct_trie *trie)
{
    ct_trie larger = {.nodes = trie->nodes};
    CT_TRY(allocate(&larger, 32 - trie->shift + 1));
    for (size_t i = 0; i < trie->capacity; i++)
        if (trie->edges[i].key)
            larger.edges[ct_trie_slot(&larger, trie->edges[i].key)] = trie->edges[i];
    free(trie->edges);
    *trie = larger;
    return CT_OK;
}

ct_status ct_trie_add(ct_trie *trie, uint32_t root, const char *bytes, size_t size, int32_t *id)
{
    uint32_t node = root;
    ct_trie_edge *edge = NULL;
    for (size_t i = 0; i < size; i++) {
        if (trie->nodes >= CT_TRIE_MAX_NODES)
            return ct_fail(CT_ERR_FORMAT, "too large a vocabulary: more than %zu prefixes",
                           CT_TRIE_MAX_NODES);
        if (2 * (size_t)trie->nodes >= trie->capacity) CT_TRY(double_capacity(trie));
        uint32_t key = node << 8 | (unsigned char)bytes[i];
        edge = &trie->edges[ct_trie_slot(trie, key)];
        if (!edge->key) *edge = (ct_trie_edge){key, trie->nodes++, -1};
        node = edge->child;
    }
    int32_t before = edge->id;
    if (before < 0) edge->id = *id;
    *id = before;
    return CT_OK;
}
