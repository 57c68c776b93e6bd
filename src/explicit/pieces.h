/* pieces.h: Memory of the caller's that a pool's blocks lie in, and which of them are free: what slabs are elsewhere. */
#pragma once

#include "ground/base.h"

/* At the beginning of the memory, its bits, set when free, behind it, the blocks behind those.
 *   bits set = free <= blocks; no bit is set in a word before hint. */
typedef struct piece {
    struct piece *next;
    char *first; /* block */
    size_t blocks, free, hint;
    uint64_t bits[];
} piece;

/* NULL: there is no room for a block. */
piece *piece_make(void *memory, size_t bytes, size_t size, size_t align);
void piece_reset(piece *p);
/* Links up to `most` free blocks behind *link, as slab_take does; how many. O(pieces + most). */
size_t pieces_take(piece *first, size_t size, block ***link, size_t most);
/* A block that is none, or is free already: a report, abort. O(pieces). */
void pieces_give(piece *first, size_t size, block *b);
/* The piece that p lies in, or NULL. O(pieces). */
piece *pieces_find(piece *first, size_t size, const void *p);
