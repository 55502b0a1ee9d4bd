/* The vocabulary as a trie over bytes (inside this module only): the longest piece at a place in a
 * word is found by walking down once.
 *
 *   edge (node, byte) ──► { child node, id of the piece that ends there or -1 }
 *
 * Edges live in one hash table with open addressing. Node 0 begins words; node 1 is where the
 * pieces written "##..." begin, without their "##". */
#ifndef CT_TEXT_TRIE_H
#define CT_TEXT_TRIE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define CT_TRIE_WORD       0
#define CT_TRIE_CONTINUING 1

/* A node's number shares 32 bits with a byte. */
#define CT_TRIE_MAX_NODES ((size_t)1 << 24)

typedef struct ct_trie_edge {
    uint32_t key; /* node << 8 | byte; 0 = free, as no piece contains the byte 0 */
    uint32_t child;
    int32_t id;
} ct_trie_edge;

typedef struct ct_trie {
    ct_trie_edge *edges;
    size_t capacity; /* a power of two, at least twice the edges in use */
    uint32_t nodes;
    int shift; /* 32 - log2(capacity) */
} ct_trie;

CT_NODISCARD ct_status ct_trie_init(ct_trie *trie);
void ct_trie_free(ct_trie *trie);

/* Adds bytes[0 .. size), size >= 1, none of them 0, below `root`. *id: in, the piece's id; out, the
 * id of the equal piece that was there before it. CT_ERR_FORMAT when there are too many nodes. */
CT_NODISCARD ct_status ct_trie_add(ct_trie *trie, uint32_t root, const char *bytes, size_t size,
                                   int32_t *id);

/* The slot of the edge, or the free one where it would be. */
static inline size_t ct_trie_slot(const ct_trie *trie, uint32_t key)
{
    /* Fibonacci hashing: the upper bits of a product with 2^32 / golden ratio (Knuth, 6.4). */
    size_t slot = key * 2654435769u >> trie->shift;
    while (trie->edges[slot].key != key && trie->edges[slot].key)
        slot = (slot + 1) & (trie->capacity - 1);
    return slot;
}

/* The id of the longest piece below `root` that bytes[0 .. size) begins with, and its size; -1 when
 * there is none. */
static inline int32_t ct_trie_longest(const ct_trie *trie, uint32_t root, const char *bytes,
                                      size_t size, size_t *piece_size)
{
    int32_t id = -1;
    uint32_t node = root;
    for (size_t i = 0; i < size; i++) {
        const ct_trie_edge *edge =
            &trie->edges[ct_trie_slot(trie, node << 8 | (unsigned char)bytes[i])];
        if (!edge->key) break;
        node = edge->child;
        if (edge->id < 0) continue;
        id = edge->id;
        *piece_size = i + 1;
    }
    return id;
}

#endif
