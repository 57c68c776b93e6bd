"""What is compared: the cases (workloads, programs, goals) and the allocators present on this machine."""

import glob
import os
import re
import subprocess
from dataclasses import dataclass

BENCH = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT = os.path.dirname(BENCH)
FULL = 3  # a full run does so many times the operations of a quick one
# Times vary by a tenth, whatever the length of a run, and those of programs by more: a full run measures what goes into the
# means more often, not longer. With seven runs of each the means of two full runs differed by up to 7 %.
FULL_PROGRAMS = 2
FULL_TURNS = {"workload": 2, "program": 4, "goal": 4}


@dataclass(frozen=True)
class Case:
    name: str               # unique; before the slash the workload, after it the variant
    program: str            # in the build folder, or a script in bench/programs
    arguments: tuple = ()
    operations: int = 0     # of a quick run; 0 = the program's own
    kind: str = "workload"  # workload and program go into the means; scaling, goal and pools do not
    null: bool = False      # never reads back what it stored: runs on the null allocator too
    threads: int = 1        # one: pinned to one processor
    copies: int = 1         # processes at once, each with its share of the operations
    quick_repeats: int = 99
    not_rivals: tuple = ()  # allocators that do not count as a peer to beat here
    full_arguments: tuple = ()
    preloads: bool = True   # False: what it measures is its own, whatever malloc is preloaded
    system_library: str = ""  # preloaded in the C library's row, for a program linked with another malloc

    @property
    def group(self):
        return self.name.split("/")[0]

    def operations_for(self, quick):
        return self.operations * (1 if quick else FULL)


def workload(name, operations, *arguments, null=False, threads=1, **more):
    program = name.split("/")[0]
    arguments += ("--threads", str(threads)) if threads > 1 else ()
    return Case(name, program, arguments, operations, null=null, threads=threads, **more)


def workloads():
    pairs = [workload(f"pair/{size}", operations, "--size", str(size), null=True) for size, operations in
             ((16, 6000000), (64, 6000000), (256, 6000000), (1024, 6000000), (8192, 2500000), (32768, 2500000))]
    batches = [workload(f"batch/{order}", 3000000, "--variant", order, null=True) for order in ("fifo", "lifo", "random")]
    queues = [workload(f"producer_consumer/{v}", 1000000, "--variant", v, null=True, threads=t)
                 for v, t in (("1:1", 2), ("n:1", 4), ("1:n", 4))]
    waves = [workload(f"wave/{variant}", operations, "--variant", variant, null=True)
             for variant, operations in (("one", 800000), ("mixed", 400000), ("big", 50000))]
    return pairs + batches + waves + queues + [
        workload("handover/2", 1000000, "--pin", threads=2),
        workload("handover/8", 1000000, threads=8),
        workload("many_producers/8", 800000, null=True, threads=8),
        workload("many_producers/32", 800000, null=True, threads=32),
        workload("churn/1", 2500000, null=True),
        workload("churn/2", 2500000, "--pin", null=True, threads=2),
        workload("false_sharing/passive", 400000, "--variant", "passive", "--pin", null=True, threads=2),
        workload("false_sharing/active", 400000, "--variant", "active", "--pin", null=True, threads=2),
        workload("tree/1", 1500000),
        workload("tree/2", 1500000, "--pin", threads=2),
        workload("realloc_growth", 400000),
        workload("mixed_size/half", 600000, "--variant", "half", null=True),
        workload("mixed_size/beyond", 150000, "--variant", "beyond", null=True),
        workload("large/edges", 5000, "--variant", "edges"),
        workload("large/touched", 400, "--variant", "touched"),
        workload("phases", 0, "--settle", "1.6", quick_repeats=1, full_arguments=("--settle", "3")),
        workload("thread_churn", 300000, null=True, threads=2),
        workload("aligned", 600000, null=True),
        workload("calloc_large_blocks", 40000),
        # the C library alone has nothing to preload: shown, but no rival
        workload("startup", 150, null=True, not_rivals=("system",)),
        workload("fork_touch", 5 * 16384),
        workload("latency", 600000, null=True),
        workload("operators", 1200000),
    ]


def programs():
    return [Case(name, name, kind="program", system_library="libc.so.6" if name == "redis" else "")
            for name in ("python3", "sqlite3", "redis", "lua", "perl", "g++", "node")]


def scaling(quick):
    counts = (1, 2, 8, 64) if quick else (1, 2, 4, 8, 16, 32, 64)
    return [Case(f"scaling/{name}/{n}", name, ("--threads", str(n)) + (("--pin",) if n == 2 else ()), operations,
                 kind="scaling", threads=n)
            for name, operations in (("churn", 5000000), ("tree", 3000000)) for n in counts]


def goals():
    """What is compared here is compared run by run: many short runs, so that both sides meet the same machine."""
    twins = [case for name, operations in (("churn", 2000000), ("tree", 1500000))
             for case in (Case(f"two_threads/{name}", name, ("--threads", "2", "--pin"), operations, kind="goal", threads=2),
                          Case(f"two_processes/{name}", name, (), operations, kind="goal", copies=2))]
    start = [Case("startup_over_empty", "startup", ("--variant", "over_empty"), 100, kind="goal")]
    idle = [Case(f"idle_threads/{v}", "idle_threads", ("--variant", v), kind="goal", quick_repeats=1, threads=64)
            for v in ("few", "every")]
    return twins + start + idle


# Who does the tasks of bench/pools, and the package of those that are another library's. Only malloc depends on what is
# preloaded.
POOLS = {"pool_none": "", "pool_locked": "", "pool_threads": "", "pool_packed": "", "resource_none": "", "resource_locked": "",
         "resource_threads": "", "allocator": "", "arena": "", "arena_resource": "", "inline_list": "", "monotonic": "",
         "unsynchronized": "", "synchronized": "", "boost_pool": "libboost-dev", "boost_object_pool": "libboost-dev",
         "g_slice": "libglib2.0-dev", "apr": "libapr1-dev", "malloc": ""}


def pools_built(build):
    """The contenders that bench/pools was built with: what its help lists."""
    try:
        text = subprocess.run([os.path.join(build, "bench", "pools"), "--help"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return set()
    found = re.search(r"one of: (.*) \(default", text)
    return set(found.group(1).split()) if found else set()


def pools(build):
    built = pools_built(build)
    return [Case(f"pools/{name}", "pools", ("--variant", name, "--seconds", "0.01"), kind="pools",
                 full_arguments=("--seconds", "0.06"), preloads=name == "malloc") for name in POOLS if name in built]


def pools_missing(build):
    """{contender: why}"""
    built = pools_built(build)
    if not built:
        return {"pools": "`bench/pools` is not built"}
    return {name: f"bench/pools was built without it (package {package})" if package else "bench/pools does not know it"
            for name, package in POOLS.items() if name not in built}


def cases_all(quick, build):
    return workloads() + programs() + pools(build) + scaling(quick) + goals()


@dataclass(frozen=True)
class Allocator:
    name: str
    interposer: str  # "" = none preloaded
    package: str = ""

    @property
    def measures_only(self):
        """null and empty are yardsticks, not peers."""
        return self.name in ("null", "empty")

    def runs(self, case):
        if self.name == "null":
            return case.null
        if not case.preloads:
            return not self.interposer
        if self.name == "empty":
            return case.group == "startup"
        return True


PEERS = (("jemalloc", "libjemalloc.so.2", "libjemalloc2"),
         ("mimalloc", "libmimalloc.so.2", "libmimalloc2.0"),
         ("tcmalloc", "libtcmalloc_minimal.so.4", "libtcmalloc-minimal4"),
         ("tbbmalloc", "libtbbmalloc_proxy.so.2", "libtbbmalloc2"))


def library_find(name):
    for folder in ("/usr/lib/*-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"):
        for path in sorted(glob.glob(os.path.join(folder, name))):
            return path
    return None


def library_added(path, names):
    """An allocator that LIB names, under a name of its own."""
    name = os.path.basename(path).split(".so")[0].removeprefix("lib") or "added"
    while name in names:
        name += "+"
    return Allocator(name, os.path.abspath(path))


def allocators_find(build, added):
    """Those present, in the order of the report, and those missing as {name: why}. `added`: paths of further ones."""
    ours = os.path.join(build, "libpoolmalloc.so")
    wanted = [Allocator("poolmalloc", ours), Allocator("system", "", "libc6")]
    wanted += [Allocator(name, library_find(file) or file, package) for name, file, package in PEERS]
    for path in added:
        wanted.append(library_added(path, [a.name for a in wanted]))
    wanted += [Allocator("null", os.path.join(build, "bench", "libnull_malloc.so")),
               Allocator("empty", os.path.join(build, "bench", "libempty.so"))]
    present = [a for a in wanted if not a.interposer or os.path.exists(a.interposer)]
    missing = {a.name: f"`{os.path.relpath(a.interposer, ROOT) if a.interposer.startswith(ROOT) else a.interposer}` not found"
               + (f" (package {a.package})" if a.package else "") for a in wanted if a not in present}
    return present, missing
