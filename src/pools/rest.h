/* rest.h: What a heap's thread gives back when it frees most of what it had, comes down, or rests (docs/DESIGN.md, Memory given back). */
#pragma once

#include "pools/heap.h"

/* With the lock, by the heap's thread. */
void rest_near(heap *h, slab *s);    /* a block came home to s, which is near its end: a fall may end there */
void rest_calm(heap *h, bin *b);     /* now and then: blocks and pages at rest go home, and what became empty unnoticed is found */
/* CALM fills since the last one. A heap that came down keeps nothing at hand until its thread is busy again: where that is nearly idle, each
 * of its mallocs is on a slow path, and so brings it to the two above. */
void rest_sample(heap *h);
/* With the lock, by another thread: pages of slabs at rest, since h's own may sleep over them. */
void rest_visited(heap *h, uint32_t now);
/* With the lock, by any thread. Pages of a slab of h without a block in use go back; bytes of those. */
size_t slab_give_pages(slab *s);
