"""Instructions per malloc/free pair, by valgrind's callgrind: those executed outside the workload's own
file, at two numbers of operations; the difference over the difference leaves start-up out."""

import json
import os
import re
import subprocess

CASES = (("pair", ()), ("batch", ("--variant", "random")), ("churn", ()))
FEW, MANY = 30000, 90000


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


def count_once(bench, allocator, program, arguments, operations):
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


def count_all(bench, log, record_take):
    """Results under the keys callgrind|workload|allocator|0; what fails is shown as n/a."""
    for program, arguments in CASES:
        for allocator in (a for a in bench.allocators if a.name != "empty"):
            key = f"callgrind|{program}|{allocator.name}|0"
            if key in bench.results:
                continue
            print(f"bench: counting instructions: {program} {allocator.name}", flush=True)
            try:
                few, many = (count_once(bench, allocator, program, arguments, n) for n in (FEW, MANY))
                record = {"key": key, "result": {"instructions": (many - few) / (MANY - FEW)}}
            except (OSError, ValueError, KeyError, subprocess.TimeoutExpired) as problem:
                print(f"bench: callgrind: {program} {allocator.name}: {problem}")
                record = {"key": key, "result": {"instructions": None, "why": str(problem)}}
            record_take(bench, record)
            log.write(json.dumps(record) + "\n")
            log.flush()
