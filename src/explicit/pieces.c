/* pieces.c: See pieces.h. */
#include "explicit/pieces.h"

#include "pools/misuse.h"

#include <string.h>

static size_t words_of(size_t blocks) { return (blocks + 63) / 64; }

void piece_reset(piece *p)
{
    memset(p->bits, 0xff, p->blocks / 64 * 8);
    if (p->blocks % 64)
        p->bits[p->blocks / 64] = ((uint64_t)1 << p->blocks % 64) - 1;
    p->free = p->blocks;
    p->hint = 0;
}

piece *piece_make(void *memory, size_t bytes, size_t size, size_t align)
{
    uintptr_t at = round_up((uintptr_t)memory, _Alignof(piece)), end = (uintptr_t)memory + bytes;
    uintptr_t bits_end = at + sizeof(piece) + words_of(bytes / size) * 8, first = round_up(bits_end, align);
    if (end < first || end - first < size)
        return NULL;
    piece *p = (piece *)at;
    *p = (piece){.first = (char *)first, .blocks = (end - first) / size};
    piece_reset(p);
    return p;
}

static block **piece_take(piece *p, size_t size, block **link, size_t most)
{
    for (size_t w = p->hint; most > 0; w++) {
        uint64_t word = p->bits[w];
        for (; word && most > 0; word &= word - 1, most--, p->free--) {
            *link = (block *)(p->first + (w * 64 + (size_t)__builtin_ctzll(word)) * size);
            link = &(*link)->next;
        }
        p->bits[w] = word;
        p->hint = w;
    }
    return link;
}

size_t pieces_take(piece *first, size_t size, block ***link, size_t most)
{
    size_t taken = 0;
    for (piece *p = first; p && taken < most; p = p->next) {
        size_t n = size_min(p->free, most - taken);
        *link = piece_take(p, size, *link, n);
        taken += n;
    }
    return taken;
}

piece *pieces_find(piece *first, size_t size, const void *p)
{
    piece *found = first;
    while (found && (uintptr_t)p - (uintptr_t)found->first >= found->blocks * size)
        found = found->next;
    return found;
}

void pieces_give(piece *first, size_t size, block *b)
{
    piece *p = pieces_find(first, size, b);
    size_t number = p ? (size_t)((char *)b - p->first) / size : 0;
    uint64_t bit = (uint64_t)1 << number % 64;
    if (!p || (char *)b != p->first + number * size || p->bits[number / 64] & bit)
        misuse_abort(&(misuse){.function = "pm_pool_free", .pointer = b, .what = "no block in use begins there"});
    p->bits[number / 64] |= bit;
    p->free++;
    p->hint = size_min(p->hint, number / 64);
}
