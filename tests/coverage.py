"""Line coverage of the pools (libpoolmalloc-core.a) from the counters that a build with --coverage has left.
Usage: coverage.py BUILD-FOLDER [--least PERCENT]      status 1: less than that
"""
import argparse
import glob
import json
import os
import subprocess
import sys


def counters(build):
    """{source: {line: times run}}, in whichever of the two libraries of the pools and by whichever file that includes it."""
    lines = {}
    found = glob.glob(os.path.join(build, "**/poolmalloc_*.dir/**/*.gcno"), recursive=True)
    if not found:
        sys.exit("coverage: %s has no counters: build it with --preset coverage" % build)
    for path in map(os.path.abspath, found):
        told = subprocess.run(["gcov", "--json-format", "--stdout", path], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        document = json.loads(told.stdout)
        for source in document["files"]:
            name = os.path.relpath(os.path.join(document["current_working_directory"], source["file"]))
            if name.startswith("src/"):
                one = lines.setdefault(name, {})
                for line in source["lines"]:
                    one[line["line_number"]] = one.get(line["line_number"], 0) + line["count"]
    return lines


def ranges(numbers):
    """"3-5 9": which lines, shortly."""
    parts = []
    for n in numbers:
        if parts and parts[-1][1] == n - 1:
            parts[-1][1] = n
        else:
            parts.append([n, n])
    return " ".join("%d" % a if a == b else "%d-%d" % (a, b) for a, b in parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build")
    parser.add_argument("--least", type=float, default=0)
    options = parser.parse_args()
    run = total = 0
    for path, lines in sorted(counters(options.build).items()):
        missed = [line for line, count in sorted(lines.items()) if count == 0]
        print("%-28s %5d lines %6.1f %%  %s" % (path, len(lines), 100 - 100 * len(missed) / max(len(lines), 1), ranges(missed)))
        run += len(lines) - len(missed)
        total += len(lines)
    share = 100 * run / total
    print("%-28s %5d lines %6.1f %%" % ("all", total, share))
    return 1 if share < options.least else 0


if __name__ == "__main__":
    sys.exit(main())
