#!/usr/bin/env python3
"""Checks fork.pml with spin, exhaustively: the rule as it is must hold, and with any one step wrong must not.
run.py MODEL: exit status 77, with a line that says so, where spin or a C compiler is missing."""
import re
import shutil
import subprocess
import sys
import tempfile

WRONG = {"LOOK_FIRST": "looks at pm_forking before it says that it is inside", "NO_WAIT": "forks without waiting for others",
         "NESTED_WAITS_NOT": "a fork within a fork does not wait"}


def check(model, wrong=None):
    """What pan says of the model."""
    with tempfile.TemporaryDirectory() as folder:
        def run(*command):
            done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
            if done.returncode:
                sys.exit(f"FAILED: {' '.join(command)}\n{done.stdout}")
            return done.stdout
        run("spin", *([f"-D{wrong}"] if wrong else []), "-a", model)
        run("cc", "-O2", "-w", "-DSAFETY", "-DNOREDUCE", "-o", "pan", "pan.c")
        return run("./pan", "-m100000")


def number(text, what):
    return float(re.search(what, text).group(1))


def main():
    missing = [tool for tool in ("spin", "cc") if not shutil.which(tool)]
    if missing:
        print(f"skipped: {' and '.join(missing)} not found (Debian: spin, gcc)")
        return 77
    text = check(sys.argv[1])
    errors, states, depth = (number(text, what) for what in (r"errors: (\d+)", r"(\S+) states, stored", r"depth reached (\d+)"))
    print(f"the rule: {states:.0f} states, depth {depth:.0f}, {errors:.0f} errors")
    if errors or "search was incomplete" in text or "max search depth too small" in text.lower():
        print(text)
        return 1
    for wrong, what in WRONG.items():
        found = number(check(sys.argv[1], wrong), r"errors: (\d+)") > 0
        print(f"{what}: {'found' if found else 'NOT FOUND'}")
        if not found:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
