"""Instructions per malloc/free pair, by valgrind's callgrind: those executed outside the workload's own
file, at two numbers of operations; the difference over the difference leaves start-up out."""

import json
import os
import re
import subprocess

# Workload and variant, and the two numbers of operations: of waves whole ones, the first of which maps the memory.
PATTERNS = {"pair": (30000, 90000), "batch/random": (30000, 90000), "churn": (30000, 90000), "wave/one": (100000, 300000),
            "wave/fifo": (100000, 300000), "wave/lifo": (100000, 300000), "wave/mixed": (100000, 300000), "wave/big": (5000, 25000),
            "mixed_size/beyond": (5000, 15000), "realloc_growth": (10000, 30000)}


def instructions_outside(path, program):
    """Sum of self costs of all objects but `program` and the dynamic linker, from a callgrind file."""
    names, total, counts, skip = {}, 0, False, False
    for line in open(path):
        found = re.match(r"ob=\((\d+)\)(?: (.*))?", line)
        if found:
            if found.group(2):
                names[found.group(1)] = os.path.basename(found.group(2).strip())
            counts = not (names[found.group(1)] == program or names[found.group(1)].startswith("ld-linux"))
        elif line.startswith("cob="):
            found = re.match(r"cob=\((\d+)\) (.*)", line)
            if found:
                names[found.group(1)] = os.path.basename(found.group(2).strip())
        elif line.startswith("calls="):
            skip = True  # the next line is the callee's cost, counted there
        elif line[0] in "0123456789+-*":
            if counts and not skip:
                total += int(line.split()[1])
            skip = False
    return total


def count_once(bench, allocator, pattern, operations):
    program, _, variant = pattern.partition("/")
    arguments = ["--variant", variant] if variant else []
    out = os.path.join(bench.work, "callgrind.out")
    binary = os.path.join(bench.programs, program)
    command = [os.path.join(bench.programs, "launch"), "--preload", allocator.interposer, "--result", os.devnull, "--",
               "valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--quiet", binary, *arguments,
               "--operations", str(operations)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode or not os.path.exists(out):
        raise ValueError((done.stderr.strip().splitlines() or ["valgrind failed"])[-1][:120])
    count = instructions_outside(out, program)
    os.unlink(out)
    return count


def patterns_of(bench):
    """Of the workloads chosen."""
    groups = {case.group for case in bench.cases}
    return {p: counts for p, counts in PATTERNS.items() if p.split("/")[0] in groups}


def allocators_of(bench, pattern):
    """What realloc_growth stored must be there again."""
    without = ("empty", "null") if pattern == "realloc_growth" else ("empty",)
    return [a for a in bench.allocators if a.name not in without]


def count_all(bench, log, record_take):
    """Results under the keys callgrind|pattern|allocator|0; what fails is shown as n/a."""
    for pattern, (few, many) in patterns_of(bench).items():
        for allocator in allocators_of(bench, pattern):
            key = f"callgrind|{pattern}|{allocator.name}|0"
            if key in bench.results:
                continue
            print(f"bench: counting instructions: {pattern} {allocator.name}", flush=True)
            try:
                counts = [count_once(bench, allocator, pattern, n) for n in (few, many)]
                record = {"key": key, "result": {"instructions": (counts[1] - counts[0]) / (many - few)}}
            except (OSError, ValueError, KeyError, subprocess.TimeoutExpired) as problem:
                print(f"bench: callgrind: {pattern} {allocator.name}: {problem}")
                record = {"key": key, "result": {"instructions": None, "why": str(problem)}}
            record_take(bench, record)
            log.write(json.dumps(record) + "\n")
            log.flush()
