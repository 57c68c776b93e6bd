#!/usr/bin/env python3
"""What poolmalloc's threads do to each other: locks, atomic operations and lines of the cache, per 1,000 operations of a workload.

Runs each workload under libpoolmalloc-count.so (cmake -DPOOLMALLOC_COUNT=ON), which counts as if each thread had a processor of its
own, so that two processors can tell of 64. Prints the table; with --report it takes the table's place in a report.md too.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

import cases as table
from machine import commit
from markdown import number, table_text

TITLE = "## Traffic between threads"
OPERATIONS = 300000
ELSEWHERE = ("startup", "fork_touch")   # their work is in child processes
THREADS = ("scaling/churn/8", "scaling/churn/64", "scaling/tree/8")
LINE_NS, LOCK_NS = 100, 300             # on a machine of 64 cores, see explain()


def cases_counted(cases):
    return [c for c in cases if (c.kind == "workload" and c.group not in ELSEWHERE) or c.name in THREADS]


def counted_object(build):
    return os.path.join(build, "libpoolmalloc-count.so")


def run(build, case, preload, folder):
    """(operations, CPU seconds, what the processes counted)"""
    result, counts = os.path.join(folder, "result"), os.path.join(folder, "counts")
    for path in (result, counts):
        if os.path.exists(path):
            os.unlink(path)
    operations = ["--operations", str(min(case.operations, OPERATIONS))] if case.operations else []
    command = [os.path.join(build, "bench", "launch"), "--preload", preload, "--result", result, "--",
               os.path.join(build, "bench", case.program), *case.arguments, *operations]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | {"BENCH_COUNT_FILE": counts})
    if done.returncode:
        raise ValueError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:120])
    with open(result) as file:
        _, user, system, _, _ = file.read().split()
    lines = []
    if os.path.exists(counts):
        with open(counts) as file:
            lines = [json.loads(line) for line in file]
    return json.loads(done.stdout)["operations"], float(user) + float(system), lines


def count_once(build, case):
    """{place: {what: per 1,000 operations}} and the CPU nanoseconds of an operation without the counting."""
    with tempfile.TemporaryDirectory() as folder:
        plain, cpu, _ = run(build, case, os.path.join(build, "libpoolmalloc.so"), folder)
        operations, _, lines = run(build, case, counted_object(build), folder)
    if not lines:
        raise ValueError("nothing was counted")
    places = [k for k in lines[0] if isinstance(lines[0][k], dict)]
    result = {p: {what: sum(line[p][what] for line in lines) * 1000 / operations for what in lines[0][p]} for p in places}
    return result | {"cpu_ns": cpu * 1e9 / plain}


def count_all(bench, log, record_take):
    """Results under the keys count|workload|poolmalloc|0."""
    build = bench.arguments.build
    if not os.path.exists(counted_object(build)):
        bench.missing["libpoolmalloc-count.so"] = "not built (-DPOOLMALLOC_COUNT=ON): no traffic was counted"
        return
    for case in cases_counted(bench.cases):
        key = f"count|{case.name}|poolmalloc|0"
        if key in bench.results:
            continue
        print(f"bench: counting traffic: {case.name}", flush=True)
        try:
            record = {"key": key, "result": count_once(build, case)}
        except (OSError, ValueError, subprocess.TimeoutExpired) as problem:
            bench.missing[f"traffic of {case.name}"] = str(problem)
            continue
        record_take(bench, record)
        log.write(json.dumps(record) + "\n")
        log.flush()


# ---- the table ----

def places_sum(row, what, places=None):
    return sum(v[what] for p, v in row.items() if isinstance(v, dict) and (places is None or p in places))


def shared_locks(row):
    """Of the depot and the registry: what every thread shares."""
    return places_sum(row, "lock", ("depot", "registry"))


def cores_until_held(row):
    """From how many cores on one of the shared locks is always held; None: no such number is near."""
    busiest = max(row[p]["lock"] for p in ("depot", "registry", "pools")) / 1000
    cores = row["cpu_ns"] / (busiest * LOCK_NS) if busiest else None
    return cores if cores and cores < 1000 else None


def lines_moved(row):
    """Of the cache, an operation."""
    return (places_sum(row, "written") + places_sum(row, "read")) / 1000


def row_of(name, row):
    aside = ("depot", "registry", "pools", "other_heaps", "own_heap", "elsewhere")
    cores = cores_until_held(row)
    return [name, *(number(row[p]["lock"]) for p in ("depot", "registry", "pools", "other_heaps", "own_heap")),
            number(places_sum(row, "rmw")), number(places_sum(row, "rmw") - row["own_heap"]["rmw"]),
            number(places_sum(row, "written", aside)), number(row["blocks"]["written"]), number(places_sum(row, "read")),
            "> 1000" if cores is None else number(cores, 0)]


HEAD = ["per 1,000 operations", "locks: depot", "registry", "explicit pools", "other heaps", "own heap", "atomic read-modify-writes",
        "of these not on the own heap", "bookkeeping lines written that another thread had", "blocks' lines written that another thread had",
        "lines read that another thread wrote", "cores that keep a shared lock held"]


def explain(rows):
    worst = max(rows, key=lambda name: shared_locks(rows[name]))
    fewest = min(rows, key=lambda name: cores_until_held(rows[name]) or 1e9)
    cores = cores_until_held(rows[fewest])
    moved = sorted(rows, key=lambda name: -lines_moved(rows[name]))[:3]
    free = [name for name in rows if shared_locks(rows[name]) <= 1]
    short = [name for name in rows if (cores_until_held(rows[name]) or 64) < 64]
    text = (f"What 64 cores would do, if a line of another core takes {LINE_NS} ns to come and a lock that all want is passed on "
            f"every {LOCK_NS} ns (its line, what it guards, and the work under it): {len(free)} of {len(rows)} workloads take at most "
            f"one lock of the depot or the registry in 1,000 operations; `{worst}` takes {number(shared_locks(rows[worst]))}. ")
    text += "No lock is held all the time by fewer than 1,000 cores. " if cores is None else (
        f"The first to come to an end is `{fewest}`: at {number(rows[fewest]['cpu_ns'], 0)} ns an operation {number(cores, 0)} "
        "cores keep a lock held. ")
    text += (f"More than that add nothing there; below 64 it is so for {', '.join(f'`{name}`' for name in short)}. " if short
             else "Each workload, run by 64 threads at once, would run on all 64. ")
    most = ", ".join(f"`{name}` {lines_moved(rows[name]):.2f} lines, {lines_moved(rows[name]) * LINE_NS:.0f} ns" for name in moved)
    return text + ("Lines cost each operation its share however many cores there are, as they are many and different ones: "
                   f"{most} an operation are the most; a program whose threads use what each allocates itself pays none.\n")


def section(rows):
    """rows: {workload: result of count_once}"""
    if not rows:
        return "Not counted (a full run counts, or `--count`).\n"
    return ("Counted in one unmeasured run of each workload by a build that follows every access of the library to memory, as if each "
            "thread had a processor of its own (32 of them). Locks of the own heap are nearly always free. Lines of blocks come "
            "from another thread in any case, as the program itself used the block there.\n\n"
            + table_text(HEAD, [row_of(name, row) for name, row in rows.items()]) + "\n" + explain(rows))


def report_patch(path, text):
    """The section is replaced, or comes last."""
    with open(path) as file:
        page = file.read()
    new = f"{TITLE}\n\n{text}"
    page, found = re.subn(rf"{TITLE}\n.*?(?=\n## |\Z)", lambda _: new.rstrip("\n") + "\n", page, flags=re.S)
    with open(path, "w") as file:
        file.write(page if found else page.rstrip("\n") + "\n\n" + new)


def main():
    p = argparse.ArgumentParser(prog="count.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", default=os.path.join(table.ROOT, "build"), metavar="DIR", help="build folder (default build)")
    p.add_argument("--only", default="", metavar="A,B", help="these workloads, or whose names begin so")
    p.add_argument("--report", metavar="FILE", help="a report.md whose table is to be replaced")
    arguments = p.parse_args()
    if not os.path.exists(counted_object(arguments.build)):
        p.error(f"no {counted_object(arguments.build)}: build with -DPOOLMALLOC_COUNT=ON -DPOOLMALLOC_BENCH=ON")
    chosen = tuple(n for n in arguments.only.split(",") if n)
    cases = [c for c in cases_counted(table.cases_all(True, arguments.build) + table.scaling(False))
             if not chosen or c.name.startswith(chosen)]
    rows = {}
    for case in cases:
        print(f"count: {case.name}", file=sys.stderr, flush=True)
        rows[case.name] = count_once(arguments.build, case)
    print(section(rows), end="")
    if arguments.report:
        report_patch(arguments.report, f"Commit {commit()}. {section(rows)}")


if __name__ == "__main__":
    main()
