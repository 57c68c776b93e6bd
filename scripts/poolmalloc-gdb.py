"""The pools of a stopped process, or of a core file, in gdb:

    gdb -p PID -x scripts/poolmalloc-gdb.py -ex poolmalloc
    gdb PROGRAM CORE -x scripts/poolmalloc-gdb.py -ex poolmalloc

`poolmalloc` prints a row a pool, and the heaps; `poolmalloc ADDRESS` says what a pointer is: which pool and slab it is in, and
whether its block is free there. Needs neither symbols nor debug information: the bookkeeping is found by its magic, and read
by the offsets of one layout, which tests/unit/stats.c holds fast.
"""
import re
import struct

import gdb

MAGIC, LAYOUT = b"poolmalloc-live\0", 16
SLAB, RECORD, BITS, BIN, CLASS, UNIT = 1 << 17, 128, 512, 32, 40, 1 << 21
USED = 5  # states from here on: in a heap, a pool or an arena
HEAP = {"state": 2053, "number": 2056, "runs": 2160, "pool_bins": 6528}
POOL = {"hand": 0, "bin_offset": 32, "shape": 40, "own": 80, "slabs": 144, "out": 168, "next": 232, "name": 269, "bytes": 312}
RUNS, RUN = 64, 24
BLOCK = (1 << 48) - 1
STATES = {1: "live", 2: "idle"}


def read(at, count):
    return bytes(gdb.selected_inferior().read_memory(at, count))


def words(at, count=1):
    found = struct.unpack("%dQ" % count, read(at, 8 * count))
    return found if count > 1 else found[0]


def mapping_starts():
    """Where mappings begin: of the core file, or of the process."""
    files = gdb.execute("info files", to_string=True)
    if "core file" in files or "core dump" in files:
        return [int(start, 16) for start in re.findall(r"0x([0-9a-f]+) - 0x[0-9a-f]+ is load", files)]
    with open("/proc/%d/maps" % gdb.selected_inferior().pid, encoding="utf-8", errors="replace") as maps:
        return [int(line.split("-")[0], 16) for line in maps if " rw-p " in line]


def control_page():
    for start in mapping_starts():
        if start % UNIT:
            continue
        try:
            page = read(start, 40 + 12 * 8)
        except gdb.MemoryError:
            continue
        if page.startswith(MAGIC):
            return page
    raise gdb.GdbError("poolmalloc: no pools in this process")


class Pools:
    """The bookkeeping, read once."""

    def __init__(self):
        page = control_page()
        self.version = page[16:32].split(b"\0")[0].decode()
        layout = struct.unpack("I", page[32:36])[0]
        if layout != LAYOUT:
            raise gdb.GdbError("poolmalloc %s has layout %d; this script reads %d" % (self.version, layout, LAYOUT))
        region, classes, class_count, _, depot, _, self.table, self.pool_home, self.nobody, _, _, registry = struct.unpack("12Q", page[40:])
        if not registry:
            raise gdb.GdbError("poolmalloc: the pools are not up")
        self.base, _, self.records, self.bits_end = words(region, 4)
        self.fresh = words(depot + 8)
        self.first, self.heaps, self.stride = words(registry + 8, 3)
        self.heap_count = struct.unpack("I", read(registry + 32, 4))[0]
        count = struct.unpack("I", read(class_count, 4))[0]
        self.classes = [struct.unpack("II4xI6xH", read(classes + i * CLASS, 24)) for i in range(count)]  # size, per_slab, colours, head
        self.slabs = read(self.records, self.fresh * RECORD) if self.fresh else b""
        self.pool_bins = struct.unpack("I", read(self.table + 4, 4))[0]

    def slab(self, number):
        """home, pool, blocks out there, class, state"""
        home, left, look, back, klass, state, remote, pool = struct.unpack_from("<16xQ24xiHH4xBxBxQ8xQ", self.slabs, number * RECORD)
        return home, pool, left + look - back - (remote >> 49), klass, state

    def came_back(self, number, most):
        """Blocks that are free, but not in the slab's bits: its own thread's, and other threads'."""
        chain, remote = struct.unpack_from("24xQ32xQ", self.slabs, number * RECORD)
        for block in (chain, remote & BLOCK):
            for _ in range(most):
                if self.slab_of(block) != number:
                    break
                yield block
                block = words(block)

    def slab_of(self, address):
        number = (address - self.base) // SLAB
        return number if 0 <= number < self.fresh else None

    def heap_address(self, number):
        return self.first + (1 - number) * self.stride if number < 2 else self.heaps + (number - 2) * self.stride

    def heap(self, number):
        return read(self.heap_address(number), HEAP["pool_bins"] + self.pool_bins * BIN)

    def on_their_way(self, heap):
        """Class and number of the blocks in each run."""
        for i in range(RUNS):
            slab, _, _, count = struct.unpack_from("QQIH", heap, HEAP["runs"] + i * RUN)
            number = (slab - self.records) // RECORD
            if slab and 0 <= number < self.fresh:
                yield self.slab(number)[3], count

    def pools(self):
        at = words(self.table + 8)
        for _ in range(words(self.table + 16)):
            if not at:
                return
            record = read(at, POOL["bytes"])
            yield at, record
            at, = struct.unpack_from("Q", record, POOL["next"])


def held(data, at):
    """Blocks in the bin that lies there."""
    room, limit = struct.unpack_from("iH", data, at + 8)
    return max(limit - room, 0)


def malloc_rows(pools, heaps):
    rows = [[0, 0] for _ in pools.classes]
    others = 0
    for number in range(pools.fresh):
        home, pool, out, klass, state = pools.slab(number)
        if state >= USED and home == pools.pool_home:
            others += not pool
        elif state >= USED and klass < len(rows) and home != pools.nobody:
            rows[klass][0] += 1
            rows[klass][1] += out
    for heap in heaps:
        for klass, row in enumerate(rows):
            row[1] -= held(heap, klass * BIN)
        for klass, count in pools.on_their_way(heap):
            if klass < len(rows):
                rows[klass][1] -= count
    for (size, per_slab, _, _), (slabs, used) in zip(pools.classes, rows):
        if slabs:
            yield "malloc-%d" % size, size, slabs, slabs * per_slab, used
    if others:
        yield "arenas", 0, others, 0, 0


def explicit_rows(pools, heaps):
    for _, record in pools.pools():
        size, per_slab = struct.unpack_from("II", record, POOL["shape"])
        slabs, = struct.unpack_from("Q", record, POOL["slabs"])
        out, = struct.unpack_from("Q", record, POOL["out"])
        offset, = struct.unpack_from("I", record, POOL["bin_offset"])
        used = out - held(record, POOL["own"]) - held(record, POOL["hand"])
        if offset >= HEAP["pool_bins"]:
            used -= sum(held(heap, offset) for heap in heaps)
        name = record[POOL["name"]:].split(b"\0")[0].decode(errors="replace")
        yield name, size, slabs, slabs * per_slab, used


def show_pools(pools):
    heaps = [pools.heap(i) for i in range(pools.heap_count)]
    print("poolmalloc %s; all sizes in bytes" % pools.version)
    print("%-31s %10s %7s %10s %10s %6s" % ("pool", "block size", "slabs", "capacity", "used", "use %"))
    for name, size, slabs, capacity, used in [*malloc_rows(pools, heaps), *explicit_rows(pools, heaps)]:
        print("%-31s %10d %7d %10d %10d %6.1f" % (name, size, slabs, capacity, used, 100 * used / capacity if capacity else 0))
    for number, heap in enumerate(heaps):
        state = STATES.get(heap[HEAP["state"]])
        if state:
            at_hand = sum(held(heap, i * BIN) * size for i, (size, _, _, _) in enumerate(pools.classes))
            print("heap %-5d %s at %#x: %d bytes at hand, %d blocks on their way" %
                  (number, state, pools.heap_address(number), at_hand, sum(count for _, count in pools.on_their_way(heap))))


def show_address(pools, address):
    number = pools.slab_of(address)
    if number is None:
        print("%#x lies in no slab" % address)
        return
    home, pool, _, klass, state = pools.slab(number)
    if state < USED:
        print("%#x lies in slab %d, which is empty and nobody's" % (address, number))
        return
    if home == pools.nobody:
        print("%#x lies in slab %d, which is empty, and a heap's spare" % (address, number))
        return
    if home == pools.pool_home:
        print("%#x lies in slab %d, of %s" % (address, number, "the pool at %#x" % pool if pool else "an arena"))
        return
    size, per_slab, colours, head = pools.classes[klass]
    offset = address - pools.base - number * SLAB - head - ((number & colours) << 6)
    block = offset // size
    if not 0 <= block < per_slab:
        print("%#x lies in slab %d, of malloc-%d, but in no block" % (address, number, size))
        return
    bits = pools.base + number * SLAB if head else pools.bits_end - (number + 1) * BITS
    free = read(bits + block // 8, 1)[0] >> block % 8 & 1 or address - offset % size in pools.came_back(number, per_slab)
    print("%#x lies %d bytes into block %d of slab %d, of malloc-%d; home: heap %d; %s" %
          (address, offset % size, block, number, size, struct.unpack("I", read(home + HEAP["number"], 4))[0],
           "the block is free" if free else "the block is in use, in a bin, or in a run"))


class Command(gdb.Command):
    """poolmalloc [ADDRESS]: the pools behind malloc, or what ADDRESS is there."""

    def __init__(self):
        super().__init__("poolmalloc", gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        pools = Pools()
        if argument:
            show_address(pools, int(gdb.parse_and_eval(argument)) & (1 << 64) - 1)
        else:
            show_pools(pools)


Command()
