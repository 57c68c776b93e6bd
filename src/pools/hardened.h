/* hardened.h: what the hardened library does to blocks on their way to the program and back (SECURITY.md). In the plain one
 * nothing calls this.
 *
 *   in use   asked for | canary: 8 bytes or more, to 48 | zeros | tail: its state, 8 bytes
 *   free     zeros                                              | tail; 0: never handed out since its slab was opened
 *
 * A tail and a canary are secret, and other in each block. */
#pragma once

#include "pools/guard.h"

void hardened_init(void);
/* Zeroed, aligned to 16; from what is at hand, else whatever `rest` returns. Any time, without hardened_init. */
typedef void *hardened_rest(size_t size, made how, const void *caller);
void *hardened_take(size_t size, made how, const void *caller, hardened_rest *rest);
/* Zeroed. NULL: no memory in the pools, or of the process. */
void *hardened_alloc(size_t size, size_t align, made how, const void *caller);
/* What is none of the pools' or of guard.h's goes to `foreign`. `said`: bytes that the caller says it has, or SIZE_MAX. */
typedef void hardened_foreign(void *p);
void hardened_free(void *p, const void *caller, hardened_foreign *foreign); /* by CALL_FREE, of any size */
void hardened_give(void *p, giving g, size_t said, const void *caller, hardened_foreign *foreign);
/* Bytes asked for; SIZE_MAX: none of these. */
size_t hardened_size(const void *p, call c, const void *caller);
/* Looks at all blocks, in use, kept back and free, but where threads are changing them. O(blocks, and bytes of free ones). */
void hardened_check(call c);
