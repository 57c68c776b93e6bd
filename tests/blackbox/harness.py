"""What the scripted black-box tests share: where things were built, and how a program is run under the interposer.

Each script is a unittest module that ends with harness.main(), which takes the build's paths as options.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

built = argparse.Namespace()

# What does not end is a hang, and nothing else is: seconds that not even a machine ten times slower needs.
PATIENCE = 1000


def eventually(holds):
    """Whether `holds()` becomes true; asked ten times a second."""
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def clean_environment(**settings):
    """The caller's environment without anything that would reach the allocators, and with `settings`."""
    foreign = ("POOLMALLOC_", "LD_", "MALLOC_", "GLIBC_TUNABLES")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environment.update({name: str(value) for name, value in settings.items()})
    return environment


class Case(unittest.TestCase):
    """A test with a scratch directory of its own."""

    maxDiff = 4000

    def setUp(self):
        self.scratch = tempfile.mkdtemp(prefix="poolmalloc-")
        self.addCleanup(shutil.rmtree, self.scratch, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.scratch, name)

    def program(self, name):
        return os.path.join(built.programs, name)

    def run_command(self, command, **options):
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False,
                              stdin=subprocess.DEVNULL, **options)

    def run_preloaded(self, program, *arguments, preload=None, **settings):
        """A test program under the interposer with POOLMALLOC_… settings, given without the prefix."""
        environment = clean_environment(LD_PRELOAD=preload or built.interposer)
        environment.update({"POOLMALLOC_" + name: str(value) for name, value in settings.items()})
        return self.run_command([self.program(program), *map(str, arguments)], env=environment)

    def run_with_statistics(self, program, *arguments, **settings):
        """The same with statistics as JSON; gives the process's result and the document."""
        report = self.path("report.json")
        if os.path.exists(report):
            os.unlink(report)
        settings = {"STATS": "exit", "STATS_FORMAT": "json", "STATS_FILE": report, **settings}
        result = self.run_preloaded(program, *arguments, **settings)
        self.assertEqual(result.returncode, 0, result.stderr)
        with open(report, encoding="utf-8") as file:
            return result, json.load(file)

    def assert_silent(self, result, status=0):
        self.assertEqual((result.returncode, result.stderr), (status, ""))

    def assert_one_line(self, result, *parts, status=0):
        """Exit status, and exactly one line on stderr that contains each of `parts`."""
        self.assertEqual(result.returncode, status, result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1, "not one line on stderr: %r" % result.stderr)
        for part in parts:
            self.assertIn(part, result.stderr)


def main():
    parser = argparse.ArgumentParser()
    for option in ("interposer", "hardened", "core", "tool", "programs", "include", "cc"):
        parser.add_argument("--" + option)
    parsed, rest = parser.parse_known_args()
    built.__dict__.update(vars(parsed))
    unittest.main(module="__main__", argv=[sys.argv[0], *rest], verbosity=2)
