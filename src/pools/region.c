/* region.c: See region.h. */
#include "pools/region.h"

#include "ground/config.h"
#include "ground/os.h"

#include <string.h>

#define CONTROL_BYTES ((size_t)256) /* before the front, on its first page */
#define STEP_FIRST (256 * KIB)
#define STEP_MOST (64 * MIB)
#define RECORD_STEP (64 * KIB) /* records of 128 MiB of slabs */
#define BITS_STEP (64 * KIB)   /* free bits of 16 MiB of slabs */
#define HEAPS_CEILING (8 * GIB)
#define REFUSED_MS 1000 /* after a refusal nothing is asked for: what lies in the way mostly stays, and each call would ask again */

static_assert(sizeof(control) <= CONTROL_BYTES && CONTROL_BYTES % sizeof(slab) == 0, "");
static_assert(STEP_FIRST / SLAB_SIZE * SLAB_BITS_STEP <= BITS_STEP && STEP_FIRST / SLAB_SIZE * sizeof(slab) < RECORD_STEP - CONTROL_BYTES, "");
static_assert(STEP_FIRST % SLAB_SIZE == 0 && STEP_MOST % UNIT_SIZE == 0, "");

region pm_region = {.base = (uintptr_t)1 << 63};

static size_t guard_bytes(void) { return PM_HARDENED ? os_page_size() : 0; }
static void guard_close(char *at)
{
    if (guard_bytes())
        os_uncommit(at, guard_bytes());
}
static char *guard_begin(const extent *e) { return e->down ? e->base - e->size - guard_bytes() : e->base + e->size; }

/* The hardened library: the page behind is mapped too, and closed; growth opens it. */
static bool extent_map(const extent *e, size_t bytes)
{
    size_t guard = guard_bytes(), begun = e->size ? guard : 0, fresh = bytes + guard - begun;
    char *last = guard_begin(e), *from = e->down ? last - bytes : last + begun;
    if (!os_map_at(from, fresh))
        return false;
    if (begun && !os_commit(last, begun)) {
        os_unmap(from, fresh);
        return false;
    }
    guard_close(e->down ? from : from + fresh - guard);
    return true;
}

static bool extent_grow(extent *e, size_t bytes)
{
    if (bytes + guard_bytes() > e->ceiling - e->size || !extent_map(e, bytes))
        return false;
    STORE(&e->size, e->size + bytes);
    return true;
}

/* Lays the four extents out from `at`, for at most `ceiling` bytes of slabs. The free bits grow down from where the slabs grow
 * up. */
static void extents_lay(char *at, size_t ceiling, size_t front)
{
    region *r = &pm_region;
    size_t bits = round_up(ceiling / SLAB_SIZE * SLAB_BITS_STEP, UNIT_SIZE);
    size_t heaps = round_up(size_min(ceiling / 16, HEAPS_CEILING), UNIT_SIZE);
    size_t records = round_up(CONTROL_BYTES + front + 2 * guard_bytes() + ceiling / SLAB_SIZE * sizeof(slab), UNIT_SIZE);
    char *middle = at + heaps + records + bits;
    r->heaps = (extent){.base = at + front, .ceiling = heaps - front}; /* as if they followed the first ones */
    r->records = (extent){.base = at + heaps, .ceiling = records};
    r->free_bits = (extent){.base = middle, .ceiling = bits, .down = true};
    r->blocks = (extent){.base = middle, .ceiling = ceiling};
    r->front = r->records.base + CONTROL_BYTES;
    r->slabs = (slab *)(round_up((uintptr_t)r->front + front, size_max(guard_bytes(), 1)) + guard_bytes());
    r->bits_end = (uint64_t *)middle;
}

/* A random place in a part of the address space where the kernel puts nothing of its own: between the low eighth
 * (programs at fixed addresses) and the upper three eighths (position-independent programs, libraries, stacks). */
static bool region_place(size_t front)
{
    uintptr_t limit = os_address_limit(), low = limit / 8, span = limit / 2;
    size_t ceiling = size_min((size_t)1 << 40, limit / 16);
    if (PM_SANITIZED) { /* ThreadSanitizer and AddressSanitizer allow applications this range */
        low = (uintptr_t)0x7e8000000000;
        span = (uintptr_t)1 << 38;
        ceiling = (size_t)1 << 36;
    }
    uint64_t random = os_random() ^ (uintptr_t)&pm_region * 0x9E3779B97F4A7C15u; /* objects with pools of their own look far apart */
    for (int tries = 0; tries < 8; tries++, random = random * 6364136223846793005u + 1442695040888963407u) {
        extents_lay((char *)(low + round_up((random >> 8) % span, UNIT_SIZE)), ceiling, front);
        if (extent_grow(&pm_region.records, front + RECORD_STEP)) {
            guard_close((char *)pm_region.slabs - guard_bytes());
            return true;
        }
    }
    return false;
}

bool region_init(size_t front)
{
    region *r = &pm_region;
    if (!region_place(front))
        return false;
    os_name(r->records.base, r->records.size, "poolmalloc"); /* here only: prctl may be forbidden later */
    control *c = region_control();
    memcpy(c->magic, CONTROL_MAGIC, sizeof CONTROL_MAGIC);
    memcpy(c->version, PM_VERSION, sizeof PM_VERSION);
    c->layout = CONTROL_LAYOUT;
    c->pid = os_pid();
    c->region = r;
    STORE(&r->base, (uintptr_t)r->blocks.base);
    return true;
}

static void extent_end(const extent *e)
{
    if (e->size)
        os_unmap(e->down ? guard_begin(e) : e->base, e->size + guard_bytes());
}

static bool guard_holds(const extent *e, const char *p) { return e->size && (size_t)(p - guard_begin(e)) < guard_bytes(); }

bool region_guards(const void *p)
{
    const region *r = &pm_region;
    return guard_holds(&r->records, p) || guard_holds(&r->free_bits, p) || guard_holds(&r->blocks, p) || guard_holds(&r->heaps, p) ||
           (r->slabs && (size_t)((char *)r->slabs - (const char *)p) - 1 < guard_bytes());
}

void region_end(void)
{
    extent_end(&pm_region.heaps);
    extent_end(&pm_region.records);
    extent_end(&pm_region.free_bits);
    extent_end(&pm_region.blocks);
}

void unit_advise(slab *unit, bool huge)
{
    if (huge != unit->unit_huge)
        os_huge(slab_memory(unit), UNIT_SIZE, huge);
    STORE(&unit->unit_huge, huge);
}

static bool extent_cover(extent *e, size_t bytes, size_t step)
{
    while (e->size < bytes)
        if (!extent_grow(e, step))
            return false;
    return true;
}

static size_t records_end(size_t slabs) { return (size_t)((char *)(pm_region.slabs + slabs) - pm_region.records.base); }

static bool records_cover(size_t slabs)
{
    region *r = &pm_region;
    return extent_cover(&r->records, records_end(slabs), RECORD_STEP) &&
           extent_cover(&r->free_bits, slabs * SLAB_BITS_STEP, BITS_STEP);
}

/* The first slabs and the first free bits: one call to the kernel. */
static bool blocks_begin(void)
{
    region *r = &pm_region;
    size_t guard = guard_bytes();
    char *from = r->blocks.base - BITS_STEP - guard, *to = r->blocks.base + STEP_FIRST;
    if (r->free_bits.size || !os_map_at(from, (size_t)(to - from) + guard))
        return false;
    guard_close(from);
    guard_close(to);
    STORE(&r->free_bits.size, BITS_STEP);
    STORE(&r->blocks.size, STEP_FIRST);
    return true;
}

/* Huge pages come unit by unit, when they pay, even under `always`. Nothing is said before there is a whole unit, unless none
 * are wanted at all (the kernel has smaller ones, too, where they are switched on): the call is dear. */
static void refuse_huge(size_t from, size_t to)
{
    if (to < UNIT_SIZE && pm_config.hugepages != HUGEPAGES_NEVER)
        return;
    region *r = &pm_region;
    char *low = from < UNIT_SIZE ? r->blocks.base - r->free_bits.size : r->blocks.base + from; /* one mapping stays one */
    os_huge(low, (size_t)(r->blocks.base + to - low), false);
}

/* What doubles the region, so that it ends where a unit does from 2 MiB on; a power of two whatever it has come to. */
static size_t step_next(size_t size)
{
    return size < STEP_FIRST ? STEP_FIRST : size_min((size_t)1 << (63 - __builtin_clzl(size)), STEP_MOST);
}

/* Its end could not be moved lately. */
static bool extent_is_refused(const extent *e)
{
    return e->refused && (uint32_t)os_now_ms() - e->refused < REFUSED_MS;
}

static bool extent_note(extent *e, bool grown)
{
    e->refused = grown ? 0 : (uint32_t)os_now_ms() | 1;
    return grown;
}

static bool blocks_grow(void)
{
    region *r = &pm_region;
    for (size_t step = step_next(r->size); step >= SLAB_SIZE; step /= 2) {
        size_t from = r->size;
        bool begun = step == STEP_FIRST && blocks_begin();
        if (!begun && (!records_cover((from + step) / SLAB_SIZE) || !extent_grow(&r->blocks, step)))
            continue;
        refuse_huge(from, from + step);
        STORE(&r->size, from + step);
        return true;
    }
    return false;
}

bool region_grow(void)
{
    extent *e = &pm_region.blocks;
    return !extent_is_refused(e) && extent_note(e, blocks_grow());
}

/* Before a foreign mapping can come to lie there, nobody takes it for ours any more. */
bool region_shrink(size_t slabs)
{
    region *r = &pm_region;
    extent *e = &r->blocks;
    size_t size = size_max(round_up(slabs << SLAB_SHIFT, UNIT_SIZE), STEP_FIRST), rest = e->size - size;
    if (size >= e->size)
        return false;
    STORE(&r->size, size);
    STORE(&e->size, size);
    guard_close(guard_begin(e));
    os_unmap(guard_begin(e) + guard_bytes(), rest);
    return true;
}

void region_populate(size_t slabs)
{
    region *r = &pm_region;
    char *from = PM_HARDENED ? (char *)r->slabs : r->records.base; /* before a guard the first heaps are in use */
    size_t end = size_min(r->records.size, round_up(records_end(slabs), RECORD_STEP));
    os_populate(from, (size_t)(r->records.base + end - from));
    size_t bits = size_min(r->free_bits.size, round_up(slabs * SLAB_BITS_STEP, BITS_STEP));
    os_populate(r->free_bits.base - bits, bits);
}

bool region_cover_heaps(size_t bytes, size_t step)
{
    extent *e = &pm_region.heaps;
    return bytes <= e->size || (!extent_is_refused(e) && extent_note(e, extent_cover(e, bytes, step)));
}
