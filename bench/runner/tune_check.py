#!/usr/bin/env python3
"""Whether `poolmalloc tune` keeps its word.

For each program: a profile, the block sizes that tune chooses, and what it predicts that these and the default ones waste. Then the
program runs with both in turn. Its peak memory is what the kernel says. Measured waste is what the pools have in memory when it
ends, if nothing is given back until then (POOLMALLOC_PURGE_DELAY=never), with the records and bits of their slabs, less what the
program had requested of them at its peak, as the profile says. Medians; prints a table.
"""
import argparse
import glob
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

import markdown

BENCH = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAMS = ("python3", "sqlite3", "redis", "g++", "three_sizes")
BESIDE = 576  # bytes of record and bits of a slab


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=os.path.join(os.path.dirname(BENCH), "build"), help="build folder (default: %(default)s)")
    parser.add_argument("--scale", default="8", help="amount of work (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="runs with each (default: %(default)s)")
    parser.add_argument("--only", default=",".join(PROGRAMS), help="comma list (default: %(default)s)")
    return parser.parse_args()


class Check:
    def __init__(self, options):
        self.options = options
        self.build = os.path.abspath(options.build)
        self.tool = os.path.join(self.build, "poolmalloc")
        self.folder = tempfile.mkdtemp()

    def run(self, name, **settings):
        """Peak memory of the program, bytes."""
        launcher, result = os.path.join(self.build, "bench", "launch"), os.path.join(self.folder, "result")
        environment = dict(os.environ, BENCH_LAUNCH=launcher, BENCH_PRELOAD=os.path.join(self.build, "libpoolmalloc.so"),
                           BENCH_RESULT=result, BENCH_CLIENTS="1",
                           **{"POOLMALLOC_" + key: value for key, value in settings.items()})
        if name == "three_sizes":
            command = [launcher, "--", os.path.join(self.build, "tests", "blackbox", "three_sizes")]
        else:
            command = [os.path.join(BENCH, "programs", name), "--scale", self.options.scale]
        open(result, "w", encoding="ascii").close()
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
        with open(result, encoding="ascii") as file:
            return int(file.read().split()[-2]) * 1024

    def files(self, kind):
        """A setting's value that gives each process a file of its own, and what finds them."""
        folder = tempfile.mkdtemp(dir=self.folder)
        return os.path.join(folder, kind + ".%p"), lambda: glob.glob(os.path.join(folder, kind + ".*"))

    def plan(self, name):
        """Of the largest process: (sizes, {"tuned" or "default": predicted waste}, bytes requested of pools)."""
        setting, found = self.files("profile")
        self.run(name, PROFILE=setting)
        plans = []
        for path in found():
            result = subprocess.run([self.tool, "tune", path], capture_output=True, text=True, check=False)
            peak = re.search(r"(?m)^\S+ +\d+ +\d+ +(\d+)$", result.stderr)
            beyond = re.search(r"(?m)^(\d+) bytes at the peak are in larger", result.stderr)
            if result.returncode == 0 and peak:
                plans.append((int(peak.group(1)) - int(beyond.group(1) if beyond else 0), result))
        requested, result = max(plans, key=lambda each: each[0])
        wastes = {kind: int(waste) for kind, waste in re.findall(r"(?m)^(tuned|default)(?: +\d+){4} +(\d+)", result.stderr)}
        return result.stdout.strip().split("=")[1], wastes, requested

    def waste(self, name, requested, **settings):
        setting, found = self.files("report")
        self.run(name, STATS="exit", STATS_FORMAT="json", STATS_FILE=setting, PURGE_DELAY="never", **settings)
        held = 0
        for path in found():
            with open(path, encoding="utf-8") as file:
                report = json.loads(file.read())
            held = max(held, report["totals"]["resident_bytes"] + report["totals"]["committed_bytes"] // 131072 * BESIDE)
        return held - requested

    def row(self, name):
        sizes, predicted, requested = self.plan(name)
        cells = [name]
        for kind, settings in (("default", {}), ("tuned", {"BLOCK_SIZES": sizes})):
            runs = range(self.options.repeat)
            peak = statistics.median(self.run(name, **settings) for _ in runs)
            waste = statistics.median(self.waste(name, requested, **settings) for _ in runs)
            cells += [f"{peak / 2**20:.2f}", f"{predicted[kind] / 1e6:.2f}", f"{waste / 1e6:.2f}", f"{predicted[kind] / waste:.2f}"]
        return cells

    def table(self):
        head = ["", "default sizes: peak, MiB", "waste predicted, MB", "measured", "ratio",
                "tuned: peak, MiB", "waste predicted, MB", "measured", "ratio"]
        return markdown.table_text(head, [self.row(name) for name in self.options.only.split(",")])


def main():
    check = Check(arguments())
    try:
        print(check.table(), end="")
    finally:
        shutil.rmtree(check.folder)


if __name__ == "__main__":
    sys.exit(main())
