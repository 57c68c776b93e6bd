#!/usr/bin/env python3
"""The comparison benchmark's runner: which allocators are here, are they in force, how fast, how large.

Interleaved runs (A B C, C A B, ... in random order), each started by the small launcher; every run is kept in
OUT/runs.jsonl at once, so an interrupted benchmark goes on where it stopped.
"""

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import callgrind
import cases as table
import charts
import count
import machine
import report
from cases import BENCH, FULL_PROGRAMS, FULL_TURNS, ROOT

QUICK_SECONDS = 180
QUICK_REPEATS_END = 150  # a quick run begins no further repeat after this; the rest is report and charts
TIMEOUT = 300            # seconds for one run; a workload takes a few at most
COLUMNS = ("workload", "allocator", "repeat", "wall_s", "cpu_s", "peak_rss_kib", "operations")


class Failure(Exception):
    """One run that failed; its text goes into the report."""


class Parser(argparse.ArgumentParser):
    def error(self, message):
        refuse(message)


def arguments_parse():
    p = Parser(prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                epilog="Environment: LIB=/path/x.so[:/path/y.so...] adds allocators, which are peers like the others.")
    p.add_argument("--quick", action="store_true", help=f"at most {QUICK_SECONDS} seconds on two processors")
    p.add_argument("--only", metavar="A,B", help="these workloads or programs: names, or a name's part before the slash")
    p.add_argument("--allocators", metavar="A,B", help="these allocators, of those present")
    p.add_argument("--repeat", type=int, metavar="N", help="measured runs of each (default 3 with --quick, else 7; "
                   "a full run measures workloads twice and programs and some goals four times as often)")
    p.add_argument("--subject", default="poolmalloc", metavar="NAME", help="whose ratios to report (default poolmalloc)")
    p.add_argument("--callgrind", action="store_true", help="count instructions too (default in a full run)")
    p.add_argument("--count", action="store_true", help="count locks, atomic operations and lines that go between threads too (default in a full run)")
    p.add_argument("--fresh", action="store_true", help="do not go on with an interrupted run")
    p.add_argument("--out", default=os.path.join(BENCH, "out"), metavar="DIR", help="results (default bench/out)")
    p.add_argument("--build", default=os.path.join(ROOT, "build"), metavar="DIR", help="build folder (default build)")
    p.add_argument("--list", action="store_true", help="list the cases and the allocators, and end")
    return p.parse_args()


def refuse(message):
    print(f"bench: {message} (see --help)", file=sys.stderr)
    sys.exit(2)


def names_split(text, known, what):
    names = [n for n in (text or "").split(",") if n]
    for name in names:
        if name not in known:
            refuse(f"unknown {what} '{name}'; there are: {', '.join(sorted(known))}")
    return names


def cases_choose(arguments):
    cases = table.cases_all(arguments.quick, arguments.build)
    names = lambda case: {case.name} | {case.name[:i] for i, letter in enumerate(case.name) if letter == "/"}
    chosen = set(names_split(arguments.only, set().union(*map(names, cases)), "workload"))
    return [c for c in cases if not chosen or chosen & names(c)]


def libraries_added():
    """The paths in LIB."""
    added = [path for path in os.environ.get("LIB", "").split(":") if path]
    for path in added:
        if not os.path.isfile(path):
            refuse(f"LIB: no such file: {path}")
    return added


def allocators_choose(arguments, present):
    chosen = names_split(arguments.allocators, {a.name for a in present}, "allocator")
    return [a for a in present if not chosen or a.name in chosen]


# ---- one run ----

class Bench:
    def __init__(self, arguments, cases, allocators, missing):
        self.arguments, self.cases, self.allocators = arguments, cases, allocators
        self.programs = os.path.join(arguments.build, "bench")
        self.work = tempfile.mkdtemp(prefix="bench-")
        self.missing, self.failed, self.outputs, self.durations = missing, {}, {}, {}
        self.processor = str(max(os.sched_getaffinity(0)))
        self.began = time.monotonic()
        self.results = {}

    def elapsed(self):
        return time.monotonic() - self.began

    def command_of(self, case, light):
        """A light run, a tenth of the work, is for checks and counts; a program's size stays, its output is compared."""
        if case.kind == "program":
            scale = "1" if self.arguments.quick else str(FULL_PROGRAMS)
            script = os.path.join(BENCH, "programs", case.program)
            return [script, "--scale", scale, "--work", os.path.join(self.work, case.program)]
        command = [os.path.join(self.programs, case.program), *case.arguments]
        if not self.arguments.quick:
            command += case.full_arguments
        if light and case.kind == "pools":
            command += ["--seconds", "0.001"]
        operations = case.operations_for(self.arguments.quick) // case.copies // (10 if light else 1)
        return command + (["--operations", str(operations)] if operations else []) + (["--settle", "0"] if light else [])

    def start(self, case, preload, result, extra, copy):
        """A program's script starts the launcher itself, around the program alone."""
        launcher = os.path.join(self.programs, "launch")
        hidden = ("LD_PRELOAD", "BENCH_PRELOAD", "BENCH_RESULT", "LIB")
        environment = {k: v for k, v in os.environ.items() if k not in hidden} | {
            "BENCH_LAUNCH": launcher, "BENCH_PRELOAD": preload, "BENCH_RESULT": result, "LC_ALL": "C", **extra}
        command = self.command_of(case, light=bool(extra))
        if case.kind != "program":
            processor = self.processor if case.copies == 1 else str(sorted(os.sched_getaffinity(0))[copy - 1])
            pin = ["--cpu", processor] if case.threads == 1 else []
            command = [launcher, *pin, "--", *command]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, start_new_session=True)

    @staticmethod
    def finish(process):
        try:
            return process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            raise Failure(f"stopped after {TIMEOUT} s") from None

    def run(self, case, allocator, probe="", extra=None):
        """Runs a case once (or its copies at once), lightly if there are extra variables; returns what it used and printed."""
        preload = ":".join(p for p in (probe, allocator.interposer or case.system_library) if p)
        paths = [os.path.join(self.work, f"result-{i}") for i in range(case.copies)]
        for path in paths:
            if os.path.exists(path):
                os.unlink(path)
        processes = [self.start(case, preload, path, extra or {}, i) for i, path in enumerate(paths)]
        try:
            return parts_join([self.part_read(case, self.finish(p), p, path) for p, path in zip(processes, paths)])
        finally: # after a failure or an interrupt nothing goes on in the background
            for process in processes:
                process_end(process)

    def part_read(self, case, printed, process, path):
        output, errors = printed
        if "cannot be preloaded" in errors:
            raise Failure("not in force: the dynamic linker could not preload it")
        if process.returncode:
            raise Failure(failure_text(process.returncode, errors))
        wall, user, system, peak, status = open(path).read().split()
        result = {"wall_s": float(wall), "cpu_s": round(float(user) + float(system), 6), "peak_rss_kib": int(peak)}
        if int(status):
            raise Failure(failure_text(int(status), errors))
        if case.kind == "program":
            return result | {"operations": int(output.split()[1]), "output": hashlib.sha256(output.encode()).hexdigest()}
        printed = json.loads(output)
        return result | {"operations": printed["operations"], "printed": printed}

    # ---- is it in force? ----

    def in_force_check(self, case, allocator):
        """One unmeasured run with the probe behind the allocator; it is the warm-up as well."""
        found = os.path.join(self.work, "probe")
        if os.path.exists(found):
            os.unlink(found)
        result = self.run(case, allocator, os.path.join(self.programs, "libprobe.so"), {"BENCH_PROBE_FILE": found})
        lines = [line.split("\t") for line in open(found).read().splitlines()] if os.path.exists(found) else []
        if not lines:
            raise Failure("not in force: the program does not take preloaded libraries")
        for program, malloc, free, mapped in lines:
            for owner in (malloc, free):
                if not owner_is(allocator, owner) or mapped != "mapped":
                    raise Failure(f"not in force in {os.path.basename(program)}: malloc is {os.path.basename(malloc)}'s, "
                                  f"free is {os.path.basename(free)}'s, {mapped}")
        return result

    def output_check(self, case, allocator, result):
        """Every allocator must make a program print the same."""
        expected = self.outputs.setdefault(case.name, result.get("output"))
        if result.get("output") != expected:
            raise Failure("printed something else than under the other allocators")


def process_end(process):
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def failure_text(status, errors):
    last = (errors.strip().splitlines() or ["no message"])[-1].replace(ROOT + "/", "")[:160]
    cause = f"killed by signal {status - 128} ({signal.strsignal(status - 128)})" if status > 128 else f"exit status {status}"
    return f"{cause}: {last}"


def owner_is(allocator, path):
    if not allocator.interposer or allocator.name == "empty":
        return os.path.basename(path) == "libc.so.6"
    return os.path.realpath(path) == os.path.realpath(allocator.interposer)


def parts_join(parts):
    """Copies that ran at once count as one run: work and CPU time add up, the slowest sets the wall time."""
    joined = dict(parts[0])
    if len(parts) > 1:
        joined["wall_s"] = max(p["printed"]["seconds"] for p in parts)
        for key in ("cpu_s", "peak_rss_kib", "operations"):
            joined[key] = sum(p[key] for p in parts)
    return joined


# ---- all runs ----

def jobs_make(bench, repeats):
    """(kind, case, allocator, repeat) in the order of running; neighbours differ in the allocator alone.

    Each round draws the order of the allocators anew, from its case and number, so that all benchmarks have the same: a
    process feels what ran before it. phases took 0.29 s after one allocator and 0.47 s after another."""
    def pairs(case, turn):
        return [a for a in random.Random(f"{case.name} {turn}").sample(bench.allocators, len(bench.allocators)) if a.runs(case)]
    jobs = [("check", c, a, 0) for c in bench.cases for a in pairs(c, 0)]
    turns_of = lambda case: 1 if bench.arguments.quick else FULL_TURNS.get(case.kind, 1)
    for repeat in range(repeats):
        for turn in range(max(map(turns_of, bench.cases))):
            jobs += [("measure", c, a, repeat * turns_of(c) + turn) for c in bench.cases if turn < turns_of(c)
                     and (not bench.arguments.quick or repeat < c.quick_repeats) for a in pairs(c, repeat * turns_of(c) + turn)]
        if repeat == 0:
            jobs += [("share", c, a, 0) for c in bench.cases if c.kind in ("workload", "program")
                     for a in bench.allocators if a.name == "poolmalloc"]
    return jobs


def key_of(kind, case, allocator, repeat):
    return f"{kind}|{case.name}|{allocator.name}|{repeat}"


def share_measure(bench, case, allocator):
    """Statistics of one unmeasured run: how many allocations the pools served, how often they sent blocks home."""
    folder = tempfile.mkdtemp(dir=bench.work)
    result = bench.run(case, allocator, "", {"POOLMALLOC_STATS": "exit,full", "POOLMALLOC_STATS_FORMAT": "json",
                                             "POOLMALLOC_STATS_FILE": os.path.join(folder, "%p")})
    sums = {}
    for name in os.listdir(folder):
        with open(os.path.join(folder, name)) as file:
            for key, value in json.load(file).get("totals", {}).items():
                if isinstance(value, (int, float)):
                    sums[key] = sums.get(key, 0) + value
    return {"totals": sums, "allocations": result.get("printed", {}).get("allocations")}


def job_run(bench, kind, case, allocator, repeat):
    if kind == "check":
        result = bench.in_force_check(case, allocator)
        bench.output_check(case, allocator, result)
        return result
    if kind == "share":
        return share_measure(bench, case, allocator)
    result = bench.run(case, allocator)
    bench.output_check(case, allocator, result)
    return result


class Progress:
    """One line that is rewritten on a terminal; elsewhere one line for each tenth."""

    def __init__(self, jobs):
        self.left = [key_of(*j) for j in jobs]
        self.weights = {key_of(*j): self.weight(j) for j in jobs}
        self.total, self.done, self.tenth = sum(self.weights.values()), 0.0, 0
        self.began = time.monotonic()

    @staticmethod
    def weight(job):
        return 4 if job[1].name == "phases" else 2 if job[1].kind == "program" else 0.5

    def step(self, job):
        self.done += self.weights[key_of(*job)]
        share = self.done / self.total
        left = (time.monotonic() - self.began) * (1 / share - 1)
        text = f"{share:4.0%} {int(left) // 60}:{int(left) % 60:02d} left  {job[0]} {job[1].name} {job[2].name}"
        if sys.stderr.isatty():
            bar = "#" * int(share * 24)
            sys.stderr.write(f"\r[{bar:<24}] {text:<60.60}\x1b[K")
        elif int(share * 10) > self.tenth:
            self.tenth = int(share * 10)
            print(f"bench: {text}", file=sys.stderr, flush=True)

    def end(self):
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")


def set_cut(bench):
    """Tells which jobs a quick run in want of time leaves out: whole repeats of a case, so that pairs stay pairs."""
    cut = {}

    def leaves_out(kind, case, _allocator, repeat):
        if kind != "measure" or not bench.arguments.quick:
            return False
        left_out = cut.setdefault((case.name, repeat), bench.elapsed() > QUICK_REPEATS_END)
        never = [name for (name, number), out in cut.items() if out and number == 0]
        if never:
            bench.missing["no time left"] = ", ".join(never) + " (a full run takes all)"
        return left_out
    return leaves_out


def jobs_run(bench, jobs, log):
    progress, leaves_out = Progress(jobs), set_cut(bench)
    for job in jobs:
        kind, case, allocator, repeat = job
        pair, key = (case.name, allocator.name), key_of(*job)
        if pair not in bench.failed and key not in bench.results and not leaves_out(*job):
            record = {"key": key}
            try:
                record["result"] = job_run(bench, *job)
            except (Failure, OSError, ValueError) as problem:
                record["failure"] = str(problem) if kind != "share" else f"statistics: {problem}"
            record_take(bench, record)
            log.write(json.dumps(record) + "\n")
            log.flush()
        progress.step(job)
    progress.end()


def record_take(bench, record):
    kind, case, allocator, _ = record["key"].split("|")
    if "result" in record:
        bench.results[record["key"]] = record["result"]
        bench.outputs.setdefault(case, record["result"].get("output"))
    elif kind != "share":
        bench.failed[case, allocator] = record["failure"]


# ---- going on with an interrupted run ----

def signature_make(bench, repeats):
    files = [a.interposer for a in bench.allocators if a.interposer] + [os.path.join(bench.programs, c.program)
                                                                  for c in bench.cases if c.kind != "program"]
    stamps = [(f, os.stat(f).st_mtime_ns) for f in sorted(set(files)) if os.path.exists(f)]
    text = repr((bench.arguments.quick, repeats, FULL_PROGRAMS, FULL_TURNS, [repr(c) for c in bench.cases],
                 [a.name for a in bench.allocators], stamps))
    return hashlib.sha256(text.encode()).hexdigest()


def log_open(bench, signature):
    """The log of runs, with what an interrupted run of the same benchmark already left in it."""
    path = os.path.join(bench.arguments.out, "runs.jsonl")
    try:
        lines = [json.loads(line) for line in open(path) if line.endswith("}\n")]
    except (OSError, ValueError):
        lines = []
    same = lines and lines[0].get("signature") == signature and not lines[-1].get("complete")
    if same and not bench.arguments.fresh:
        for record in lines[1:]:
            record_take(bench, record)
        print(f"bench: going on with an interrupted run: {len(lines) - 1} runs are there (--fresh begins anew)")
    else:
        lines = [{"signature": signature}]
    log = open(path, "w")
    log.writelines(json.dumps(line) + "\n" for line in lines)
    log.flush()
    return log


def results_write(bench):
    with open(os.path.join(bench.arguments.out, "results.csv"), "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for key, result in bench.results.items():
            kind, case, allocator, repeat = key.split("|")
            if kind == "measure":
                writer.writerow([case, allocator, repeat] + [result[c] for c in COLUMNS[3:]])


def list_print(cases, allocators, missing):
    for case in cases:
        print(f"{case.kind:9} {case.name}")
    for allocator in allocators:
        print(f"allocator {allocator.name:12} {allocator.interposer or '(none preloaded)'}")
    for name, why in missing.items():
        print(f"missing   {name:12} {why}")


def bench_prepare():
    arguments = arguments_parse()
    if arguments.repeat is not None and arguments.repeat < 1:
        refuse(f"bad number of repeats {arguments.repeat}")
    present, missing = table.allocators_find(arguments.build, libraries_added())
    cases, allocators = cases_choose(arguments), allocators_choose(arguments, present)
    if arguments.list:
        list_print(cases, allocators, missing)
        sys.exit(0)
    if not os.path.exists(os.path.join(arguments.build, "bench", "launch")):
        refuse(f"no benchmark programs in {arguments.build}/bench: build first, or call ./scripts/bench")
    if any(case.kind == "pools" for case in cases):
        missing |= table.pools_missing(arguments.build)
    return Bench(arguments, cases, allocators, missing)


def results_report(bench):
    results_write(bench)
    chart_files = charts.charts_draw(bench)
    path = report.report_write(bench, machine.describe(bench), chart_files)
    print(f"bench: {bench.elapsed():.0f} s; {os.path.relpath(path)} with {len(chart_files)} charts beside it")


def main():
    bench = bench_prepare()
    repeats = bench.arguments.repeat or (3 if bench.arguments.quick else 7)
    os.makedirs(bench.arguments.out, exist_ok=True)
    print(f"bench: {len(bench.cases)} cases, {repeats} repeats, allocators: {', '.join(a.name for a in bench.allocators)}"
          + (f"; missing: {', '.join(bench.missing)}" if bench.missing else ""), flush=True)
    log = log_open(bench, signature_make(bench, repeats))
    try:
        jobs_run(bench, jobs_make(bench, repeats), log)
        full = not (bench.arguments.quick or bench.arguments.only)
        if full or bench.arguments.count:
            count.count_all(bench, log, record_take)
        if full or bench.arguments.callgrind:
            callgrind.count_all(bench, log, record_take)
        log.write('{"complete": true}\n')
    except KeyboardInterrupt:
        results_write(bench)
        print("\nbench: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    finally:
        log.close()
        shutil.rmtree(bench.work, ignore_errors=True)
    results_report(bench)


if __name__ == "__main__":
    main()
