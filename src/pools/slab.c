/* slab.c: See slab.h. */
#include "pools/slab.h"

#include "ground/os.h"
#include "ground/text.h"
#include "pools/misuse.h"

#include <string.h>

/* Hardened: those of blocks that came back from other threads. */
static uint64_t *remote_bits(const slab *s, const size_class *c) { return slab_bits(s, c) + SLAB_BITS_BYTES / 8; }

/* Nothing has come back yet. */
static void slab_refresh(slab *s, const size_class *c)
{
    if (LOAD(&s->remote) & ~REMOTE_TOLD)
        __atomic_fetch_and(&s->remote, REMOTE_TOLD, __ATOMIC_RELAXED);
    if (PM_HARDENED)
        memset(remote_bits(s, c), 0, SLAB_BITS_BYTES);
    s->chain = NULL;
    STORE(&s->back, 0);
    s->trimmed = false;
}

void slab_reset(slab *s, const size_class *c)
{
    size_t words = c->per_slab / 64;
    uint64_t *bits = slab_bits(s, c);
    if (words > 0)
        memset(bits, 0xff, words * 8);
    if (c->per_slab % 64)
        bits[words] = ((uint64_t)1 << c->per_slab % 64) - 1;
    slab_refresh(s, c);
    slab_out_set(s, 0);
    s->free = (uint16_t)c->per_slab;
    s->hint = 0;
}

void slab_open(slab *s, const size_class *c)
{
    slab_reset(s, c);
    s->high = 0;
    depot_note_unripe(s, LOAD(&slab_unit(s)->unit_huge));
}

/* Nothing of its blocks is left for those of another size. */
static void tails_clear(const slab *s, const size_class *c)
{
    for (size_t i = 0; i < s->high; i++)
        *block_tail(slab_first(s, c) + i * c->size, c) = 0;
}

void slab_clear(slab *s)
{
    if (!os_purge(slab_begin(s), SLAB_ROOM))
        memset(slab_begin(s), 0, SLAB_ROOM);
}

/* Slab 0's last bits lie before its first block. Classes without that many would leave them as they are: ending.c knows them as zero. */
static void first_bits_clear(void) { memset(pm_region.bits_end - 4, 0, 4 * sizeof(uint64_t)); }

void slab_close(slab *s, const size_class *c)
{
    if (slab_index(s) == 0)
        first_bits_clear();
    if (PM_HARDENED)
        tails_clear(s, c);
    STORE(&s->state, SLAB_USED); /* what was handed out no longer reads as zero */
    if (s->high == c->per_slab)
        depot_note_ripe(s, -1);
    depot_note_unripe(s, false);
}

static void high_raise(slab *s, const size_class *c, size_t high)
{
    if (s->high >= high)
        return;
    s->high = (uint16_t)high;
    if (high == c->per_slab)
        depot_note_ripe(s, 1);
}

static uint64_t run_bits(size_t n) { return n >= 64 ? UINT64_MAX : ((uint64_t)1 << n) - 1; }

/* Ones at the low end of a word, at most so many. */
static size_t run_length(uint64_t word, size_t most)
{
    return size_min(word == UINT64_MAX ? 64 : (size_t)__builtin_ctzll(~word), most);
}

INLINE block *block_behind(const block *p, size_t size) { return (block *)((uintptr_t)p + size); }

/* Neighbours, at least one. By eights: little more than two instructions a block, where a loop costs five. */
INLINE block **blocks_link(block **link, char *at, size_t size, size_t n)
{
    block *p = (block *)at;
    *link = p;
    for (; n > 8; n -= 8) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            p = p->next = block_behind(p, size);
    }
    for (; n > 1; n--)
        p = p->next = block_behind(p, size);
    return &p->next;
}

/* Neighbours that are free, from *at on: whole words of them, or those of one word, behind others that are not. They are taken. */
static size_t bits_take(uint64_t *bits, size_t *at, size_t most)
{
    uint64_t *word = bits + *at / 64;
    size_t n = 0;
    while (n + 64 <= most && word[n / 64] == UINT64_MAX) {
        word[n / 64] = 0;
        n += 64;
    }
    if (n > 0)
        return n;
    size_t from = (size_t)__builtin_ctzll(*word | (uint64_t)1 << 63);
    *at += from;
    n = run_length(*word >> from, most);
    *word &= ~(run_bits(n) << from);
    return n;
}

/* Ascending addresses make what a program allocates together lie together, whatever order it was freed in: 20 to 25 % off
 * python3's time on objects, measured against lists in the order of the frees. */
block **slab_take(slab *s, const size_class *c, block **link, size_t most)
{
    uint64_t *bits = slab_bits(s, c);
    size_t w = s->hint, taken = 0, last = 0;
    for (most = size_min(most, s->free); taken < most;) {
        size_t at = w * 64, n = bits_take(bits, &at, most - taken);
        if (LIKELY(n > 0)) /* else the word has none */
            link = blocks_link(link, slab_first(s, c) + at * c->size, c->size, n);
        last = n ? at + n : last;
        taken += n;
        w += n > 64 ? n / 64 : bits[w] == 0;
    }
    s->hint = (uint8_t)w;
    high_raise(s, c, last);
    s->free = (uint16_t)(s->free - taken);
    slab_out_set(s, slab_out(s) + taken);
    return link;
}

void slab_deal(slab *s, const size_class *c, block **blocks, size_t most)
{
    uint64_t *bits = slab_bits(s, c), word;
    char *first = slab_first(s, c);
    size_t w = s->hint, n = 0, last = 0;
    for (; n < most; w += word == 0) {
        for (word = bits[w]; word && n < most; word &= word - 1) {
            last = w * 64 + (size_t)__builtin_ctzll(word);
            block *p = blocks[n++] = (block *)(first + last * c->size);
            if (last >= s->high)
                *block_tail(p, c) = 0; /* is zero, but so its page comes by one fault, not by two */
        }
        bits[w] = word;
    }
    s->hint = (uint8_t)w;
    high_raise(s, c, last + 1);
    s->free = (uint16_t)(s->free - n);
    slab_out_set(s, slab_out(s) + n);
}

block **slab_open_whole(slab *s, const size_class *c, block **link)
{
    uint64_t *bits = slab_bits(s, c);
    for (size_t w = 0; w * 64 < c->per_slab; w++)
        STORE(&bits[w], 0); /* no call of memset for the one word that most have */
    slab_refresh(s, c);
    s->free = s->hint = 0;
    s->high = (uint16_t)c->per_slab;
    depot_note_ripe(s, 1);
    s->listed = false;
    STORE(&s->look, (uint16_t)(c->per_slab - 1));
    slab_out_set(s, c->per_slab);
    return blocks_link(link, slab_first(s, c), c->size, c->per_slab);
}

size_t slab_within_limit(slab *s, const size_class *c, size_t most)
{
    size_t taken = c->per_slab - s->free; /* all below the block of this number, when it has its turn: the lowest go first */
    if (depot_touch(s, slab_offset(s, c, taken + most)))
        return most;
    size_t first = slab_offset(s, c, 0), before = s->touched > first ? (s->touched - first) / c->size : 0; /* blocks that fit there */
    if (before > taken)
        return before - taken;
    return depot_touch(s, slab_offset(s, c, taken + 1)) ? 1 : 0;
}

/* p, given to free or to its pool, and the block of s that it is, or lies in. */
static COLD void given_wrong(const slab *s, const size_class *c, const char *p, const char *what, block_state state)
{
    bool guest = LOAD(&s->pool) != NULL;
    misuse m = {.function = guest ? "pm_pool_free" : NULL, .pointer = p, .what = what, .block = p - (size_t)(p - slab_first(s, c)) % c->size,
                .bytes = c->size, .pool = guest ? "of the program's own" : NULL, .state = state};
    misuse_abort(&m);
}

/* Returns the number of its word. */
INLINE uint64_t bit_set(const slab *s, const size_class *c, uint64_t *bits, const char *first, const block *p)
{
    uint64_t number = (uint64_t)((const char *)p - first) * c->inverse >> 32, bit = (uint64_t)1 << number % 64;
    if (UNLIKELY(bits[number / 64] & bit))
        given_wrong(s, c, (const char *)p, "double free", BLOCK_FREED);
    bits[number / 64] |= bit;
    return number / 64;
}

static void bits_note(slab *s, uint64_t hint, size_t n)
{
    s->hint = (uint8_t)hint;
    s->trimmed &= n == 0;
    s->free = (uint16_t)(s->free + n);
}

/* Sets the bits of the blocks of s that *chain begins with, at most `count`. */
static size_t bits_set(slab *s, const size_class *c, block **chain, size_t count)
{
    char *memory = slab_memory(s), *first = slab_first(s, c);
    uint64_t *bits = slab_bits(s, c), hint = s->hint;
    block *p = *chain;
    size_t n = 0;
    for (; n < count && (size_t)((char *)p - memory) < SLAB_SIZE; n++) {
        hint = size_min(hint, bit_set(s, c, bits, first, p));
        p = p->next;
    }
    *chain = p;
    bits_note(s, hint, n);
    return n;
}

size_t slab_give(slab *s, const size_class *c, block **chain, size_t count)
{
    size_t n = bits_set(s, c, chain, count);
    slab_out_set(s, slab_out(s) - n);
    return n;
}

size_t slab_give_these(slab *s, const size_class *c, block *const *blocks, size_t count)
{
    char *memory = slab_memory(s), *first = slab_first(s, c);
    uint64_t *bits = slab_bits(s, c), hint = s->hint;
    size_t n = 0;
    for (; n < count && (size_t)((const char *)blocks[n] - memory) < SLAB_SIZE; n++)
        hint = size_min(hint, bit_set(s, c, bits, first, blocks[n]));
    bits_note(s, hint, n);
    slab_out_set(s, slab_out(s) - n);
    return n;
}

/* The hardened library: a bit instead of a link. It is set before it is counted, so that who finds all counted finds all set;
 * who takes bits that are not counted yet leaves a count below zero for the moment. */
static void bits_take_remote(slab *s, const size_class *c)
{
    uint64_t *bits = slab_bits(s, c), *remote = remote_bits(s, c), n = 0;
    for (size_t w = 0; w * 64 < c->per_slab; w++) {
        uint64_t word = LOAD(&remote[w]) ? __atomic_exchange_n(&remote[w], 0, __ATOMIC_ACQUIRE) : 0;
        bits[w] |= word;
        n += (uint64_t)__builtin_popcountll(word);
    }
    __atomic_fetch_sub(&s->remote, n * REMOTE_ONE, __ATOMIC_RELAXED);
    STORE(&s->back, (uint16_t)(s->back + n));
    s->free = (uint16_t)(s->free + n);
    s->hint = n ? 0 : s->hint;
    s->trimmed &= n == 0;
}

static bool bit_give_remote(slab *s, const size_class *c, const block *p)
{
    size_t number = (size_t)((const char *)p - slab_first(s, c)) / c->size;
    uint64_t bit = (uint64_t)1 << number % 64;
    if (__atomic_fetch_or(&remote_bits(s, c)[number / 64], bit, __ATOMIC_RELEASE) & bit)
        given_wrong(s, c, (const char *)p, "double free", BLOCK_FREED);
    uint64_t new = __atomic_add_fetch(&s->remote, REMOTE_ONE, __ATOMIC_RELEASE);
    bool tell = remote_count(new) == 1 || remote_count(new) + LOAD(&s->back) == slab_out(s);
    return tell && !(__atomic_fetch_or(&s->remote, REMOTE_TOLD, __ATOMIC_ACQ_REL) & REMOTE_TOLD);
}

block *slab_take_remote(slab *s, size_t *count)
{
    uint64_t remote = __atomic_fetch_and(&s->remote, REMOTE_TOLD, __ATOMIC_ACQUIRE);
    *count = remote_count(remote);
    return remote_first(remote);
}

void slab_order(slab *s, const size_class *c)
{
    bits_set(s, c, &s->chain, slab_chained(s, c));
    s->chain = NULL;
    slab_out_set(s, slab_out(s) - s->back);
    STORE(&s->back, 0);
}

void slab_gather(slab *s, const size_class *c, bool mine)
{
    size_t n;
    if (PM_HARDENED) {
        bits_take_remote(s, c);
    } else {
        block *p = slab_take_remote(s, &n);
        STORE(&s->back, (uint16_t)(s->back + bits_set(s, c, &p, n)));
    }
    if (mine)
        slab_order(s, c);
}

bool slab_give_remote(slab *s, block *first, block *last, size_t count)
{
    uint64_t old = LOAD(&s->remote), new;
    bool tell;
    if (PM_HARDENED)
        return bit_give_remote(s, &pm_classes[LOAD(&s->klass)], first);
    do {
        last->next = remote_first(old);
        size_t n = remote_count(old) + count;
        tell = !(old & REMOTE_TOLD) && (remote_count(old) == 0 || n + LOAD(&s->back) == slab_out(s));
        new = n * REMOTE_ONE | (old & REMOTE_TOLD) | (tell ? REMOTE_TOLD : 0) | (uintptr_t)first;
    } while (!__atomic_compare_exchange_n(&s->remote, &old, new, true, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
    return tell;
}

void slab_recount(slab *s, const size_class *c)
{
    size_t chained = 0;
    for (const block *p = s->chain; p; p = p->next)
        chained++;
    slab_out_set(s, c->per_slab + s->back - s->free - chained);
}

static size_t purge_between(const char *from, const char *to)
{
    size_t page = os_page_size();
    uintptr_t first = round_up((uintptr_t)from, page), end = (uintptr_t)to / page * page;
    return first < end && os_purge((void *)first, end - first) ? end - first : 0;
}

size_t slab_purge(const slab *s, const size_class *c)
{
    char *first = slab_first(s, c), *behind = slab_memory(s) + c->head; /* the last block in use */
    char *touched = s->state == SLAB_ZEROED ? first + (size_t)s->high * c->size : behind + SLAB_SIZE;
    const uint64_t *bits = slab_bits(s, c);
    size_t bytes = 0;
    for (size_t w = 0; w * 64 < c->per_slab; w++) {
        size_t numbers = size_min(c->per_slab - w * 64, 64);
        for (uint64_t used = ~bits[w] & (UINT64_MAX >> (64 - numbers)); used; used &= used - 1) {
            char *p = first + (w * 64 + (size_t)__builtin_ctzll(used)) * c->size;
            bytes += purge_between(behind, p);
            behind = p + c->size;
        }
    }
    return bytes + purge_between(behind, touched);
}

void slab_check_block(const slab *s, const size_class *c, const void *p)
{
    size_t offset = (size_t)((const char *)p - slab_first(s, c));
    if (offset % c->size != 0 || offset / c->size >= c->per_slab)
        given_wrong(s, c, p, "no block begins there", BLOCK_UNKNOWN);
}

void slab_check(const slab *s, const size_class *c, bool mine)
{
    size_t free = 0, chained = 0, words = (c->per_slab + 63) / 64;
    const uint64_t *bits = slab_bits(s, c);
    for (size_t w = 0; w < words; w++) {
        free += (size_t)__builtin_popcountll(bits[w]);
        if (bits[w] && w < s->hint)
            report_abort("check: slab %zu: a free block before its hint", slab_index(s));
    }
    for (const block *p = mine ? s->chain : NULL; p && chained <= c->per_slab; p = p->next, chained++)
        if (!region_holds(p) || slab_of(p) != s)
            report_abort("check: slab %zu: its chain leads to %p: written to after it was freed", slab_index(s), (const void *)p);
    if (free != s->free || s->high > c->per_slab || slab_out(s) > (size_t)c->per_slab + s->back || (mine && chained != slab_chained(s, c)))
        report_abort("check: slab %zu: %zu blocks out, %zu free (%u counted), %zu chained, %u moved, of %u", slab_index(s), slab_out(s), free,
                     s->free, chained, s->back, c->per_slab);
}
