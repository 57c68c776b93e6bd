"""POOLMALLOC_STATS: the JSON document of the contract, exact counts, where reports go, and where they must not go."""
import json
import os
import re
import signal
import subprocess

import harness
from harness import Case, built

POOL_FIELDS = {"name": str, "block_size": int, "slabs": int, "capacity": int, "used": int, "free": int, "resident_bytes": int}
TOTAL_FIELDS = ("reserved_bytes", "committed_bytes", "resident_bytes", "used_bytes", "forwarded_calls")


class Document(Case):
    def pool(self, report, block_size):
        found = [pool for pool in report["pools"] if pool["block_size"] == block_size]
        self.assertEqual(len(found), 1)
        return found[0]

    def check_document(self, report):
        self.assertIsInstance(report["version"], str)
        self.assertIsInstance(report["pid"], int)
        self.assertEqual(report["next"], "libc.so.6")
        for pool in report["pools"]:
            for field, kind in POOL_FIELDS.items():
                self.assertIsInstance(pool[field], kind)
            self.assertEqual(pool["used"] + pool["free"], pool["capacity"])
            self.assertEqual(pool["name"], "malloc-%d" % pool["block_size"])
        for field in TOTAL_FIELDS:
            self.assertIsInstance(report["totals"][field], int)
        self.check_sums(report)

    def check_sums(self, report):
        pools, totals = report["pools"], report["totals"]
        self.assertEqual(totals["used_bytes"], sum(pool["used"] * pool["block_size"] for pool in pools))
        self.assertLessEqual(totals["used_bytes"], totals["committed_bytes"])
        self.assertLessEqual(totals["committed_bytes"], totals["reserved_bytes"])

    def test_exact_counts(self):
        """Blocks of a size that nothing else in the process asks for: used says exactly how many are out."""
        for statistics in ("exit", "exit,full", "full,exit"):
            for size, block_size, count in ((60, 64, 12345), (1500, 1536, 7000), (9000, 10240, 333), (32768, 32768, 100)):
                with self.subTest(size=size, statistics=statistics):
                    _, report = self.run_with_statistics("take_blocks", size, count, STATS=statistics, BLOCK_SIZES="default")
                    self.check_document(report)
                    self.assertEqual(self.pool(report, block_size)["used"], count)

    def test_counts_after_free(self):
        for how in ("free", "thread-free"):
            for statistics in ("exit", "exit,full"):
                _, report = self.run_with_statistics("take_blocks", 1500, 7000, how, STATS=statistics, BLOCK_SIZES="default")
                self.check_document(report)
                self.assertEqual(self.pool(report, 1536)["used"], 0, how)

    def test_counts_of_forwarded_calls(self):
        _, report = self.run_with_statistics("take_blocks", 40000, 1234)
        self.assertGreaterEqual(report["totals"]["forwarded_calls"], 1234)
        self.assertLess(report["totals"]["forwarded_calls"], 1234 + 300)

    def test_full_counts_every_operation(self):
        _, report = self.run_with_statistics("take_blocks", 48, 54321, "free", STATS="exit,full")
        totals = report["totals"]
        if "pool_calls" not in totals:
            self.skipTest("no operation counts yet")
        self.assertGreaterEqual(totals["pool_calls"], 54321)
        self.assertLess(totals["pool_calls"], 2 * 54321 + 2000)

    def test_threads_still_running(self):
        for how in (0, 3):  # quick_exit and _exit run no exit hooks
            _, report = self.run_with_statistics("exit_running", how)
            self.assertGreater(report["totals"]["committed_bytes"], 0)

    def test_process_id(self):
        result, report = self.run_with_statistics("where")
        self.assertGreater(report["pid"], 1)
        self.assertEqual(result.stderr, "")

    def test_disabled_and_forwarding_processes_report_too(self):
        _, report = self.run_with_statistics("take_blocks", 64, 1000, DISABLE=1)
        self.assertEqual(sum(pool["used"] for pool in report["pools"]), 0)

    def test_text(self):
        """One row per pool in use: sizes as plain bytes, the exact count among the row's figures."""
        result = self.run_preloaded("take_blocks", 1500, 4321, STATS="exit", BLOCK_SIZES="default")
        self.assertEqual(result.returncode, 0)
        rows = [line.split() for line in result.stderr.splitlines()]
        row = [fields for fields in rows if fields and fields[0] in ("1536", "malloc-1536")]
        self.assertEqual(len(row), 1, result.stderr)
        self.assertIn("4321", row[0])
        self.assertRegex(result.stderr, "(?i)forwarded")
        self.assertIn("libc.so.6", result.stderr)

    def test_a_process_that_is_killed_or_execs_reports_nothing(self):
        self.assert_silent(self.run_preloaded("exit_running", 2, STATS="exit"))


class Documentation(Case):
    def setUp(self):
        super().setUp()
        with open(os.path.join(built.include, "..", "man", "poolmalloc-stats.5"), encoding="utf-8") as file:
            self.text = file.read()

    def test_every_field_is_documented(self):
        _, report = self.run_with_statistics("where", STATS="exit,full")
        self.assertEqual(report["schema"], 1)
        for fields in (report, report["pools"][0], report["heaps"][0], report["totals"]):
            for field in fields:
                self.assertRegex(self.text, r"(?m)^\.BR? .*\b%s\b" % field)

    def test_every_metric_is_documented(self):
        text = self.run_preloaded("where", STATS="exit,full", STATS_FORMAT="prometheus").stderr
        metrics = set(re.findall(r"^# TYPE (\w+)", text, re.M))
        self.assertGreater(len(metrics), 25)
        for metric in metrics - {"poolmalloc_info"}:
            self.assertIn("\n.B %s\n" % metric.replace("poolmalloc_", "", 1), self.text)

    def test_not_counted_is_no_number(self):
        _, report = self.run_with_statistics("where")
        self.assertEqual({pool[field] for pool in report["pools"] for field in ("allocations", "peak")}, {None})
        self.assertIsNone(report["totals"]["pool_calls"])
        text = self.run_preloaded("where", STATS="exit", STATS_FORMAT="prometheus").stderr
        for metric in ("allocations_total", "peak_blocks", "pool_calls_total"):
            self.assertNotIn("poolmalloc_" + metric, text)
        _, report = self.run_with_statistics("where", STATS="exit,full")
        self.assertGreater(report["totals"]["pool_calls"], 0)


class Destination(Case):
    def test_process_id_in_the_name(self):
        result = self.run_preloaded("spawn", 10, STATS="exit", STATS_FORMAT="json", STATS_FILE=self.path("r-%p.json"))
        self.assert_silent(result)
        names = os.listdir(self.scratch)
        self.assertGreaterEqual(len(names), 21, names)
        for name in names:
            with open(self.path(name), encoding="utf-8") as file:
                self.assertEqual(name, "r-%d.json" % json.load(file)["pid"])

    def test_reports_are_appended(self):
        for _ in range(2):
            self.run_preloaded("where", STATS="exit", STATS_FORMAT="json", STATS_FILE=self.path("one"))
        with open(self.path("one"), encoding="utf-8") as file:
            self.assertEqual(file.read().count('"version"'), 2)

    def test_a_symbolic_link_is_not_followed(self):
        with open(self.path("target"), "w", encoding="utf-8"):
            os.symlink(self.path("target"), self.path("link"))
        result = self.run_preloaded("where", STATS="exit", STATS_FILE=self.path("link"))
        self.assertEqual((result.returncode, result.stdout), (0, "0 pool\n"))
        self.assertEqual(os.path.getsize(self.path("target")), 0)

    def test_a_file_that_cannot_be_written(self):
        for path in (self.scratch, self.path("missing/file"), "/dev/full", "/proc/version"):
            result = self.run_preloaded("where", STATS="exit", STATS_FILE=path)
            self.assertEqual((result.returncode, result.stdout), (0, "0 pool\n"), path)
            self.assertLessEqual(result.stderr.count("\n"), 1, result.stderr)

    def test_the_working_directory_may_be_gone(self):
        os.mkdir(self.path("gone"))
        environment = harness.clean_environment(LD_PRELOAD=built.interposer, POOLMALLOC_STATS="exit", POOLMALLOC_STATS_FILE="relative")
        command = ["sh", "-c", 'cd "$1" && rmdir "$1" && exec "$2"', "sh", self.path("gone"), self.program("where")]
        self.assertEqual(self.run_command(command, env=environment).returncode, 0)

    def closed(self, *arguments, **settings):
        """A program started with descriptors 0 to 2 closed, whose own file then takes their numbers."""
        environment = harness.clean_environment(LD_PRELOAD=built.interposer)
        environment.update({"POOLMALLOC_" + name: value for name, value in settings.items()})
        command = ["sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh", self.program("odd_descriptors"), self.path("own"), *arguments]
        status = subprocess.run(command, env=environment, timeout=harness.PATIENCE, check=False).returncode
        with open(self.path("own"), encoding="utf-8") as file:
            own = file.read()
        os.unlink(self.path("own"))
        return status, own

    def test_closed_descriptors(self):
        """Nothing of ours in a file that happens to be descriptor 2 because the real one was closed."""
        for settings in ({}, {"STATS": "exit"}, {"STATS": "exit,full", "STATS_FORMAT": "json"}, {"VERBOSE": "1"}, {"LIMIT": "abc"},
                         {"STATS": "exit", "STATS_FILE": self.path("report")}):
            with self.subTest(settings=settings):
                self.assertEqual(self.closed(**settings), (0, "xxx"))
                self.assertEqual(self.closed("closefrom", **settings), (0, "xxx"))
        self.assertGreater(os.path.getsize(self.path("report")), 0)


class OnSignal(Case):
    """A report from a running process. The signal's default would kill it: the handler is there, or we see it."""

    COMMAND = "import os,signal,sys,time\n" \
              "print('ready', flush=True)\n" \
              "sys.stdin.readline()\n" \
              "print('done', flush=True)\n"

    def start(self, before="", **settings):
        settings = {"STATS": "signal=SIGUSR1", "STATS_FORMAT": "json", "STATS_FILE": self.path("report"), **settings}
        environment = harness.clean_environment(LD_PRELOAD=built.interposer)
        environment.update({"POOLMALLOC_" + name: value for name, value in settings.items()})
        process = subprocess.Popen(["/usr/bin/env", "python3", "-c", before + self.COMMAND], env=environment, text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stdin.close)
        self.assertEqual(process.stdout.readline(), "ready\n")
        return process

    def finish(self, process):
        process.stdin.write("\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.readline(), "done\n")
        self.assertEqual(process.wait(harness.PATIENCE), 0)

    def test_a_signal_writes_a_report(self):
        process = self.start()
        os.kill(process.pid, signal.SIGUSR1)
        self.finish(process)
        with open(self.path("report"), encoding="utf-8") as file:
            self.assertEqual(json.load(file)["pid"], process.pid)

    def test_formats_names_and_repetition(self):
        """USR2 without SIG, each format, the process id in the name; two signals, two reports."""
        for form, mark in (("text", "next allocator libc.so.6"), ("json", '"version"'), ("prometheus", "# TYPE poolmalloc_info gauge")):
            process = self.start(STATS="signal=USR2,full", STATS_FORMAT=form, STATS_FILE=self.path("r-%p." + form))
            for count in (1, 2):
                os.kill(process.pid, signal.SIGUSR2)
                self.wait_for(self.path("r-%d.%s" % (process.pid, form)), mark, count)
            self.finish(process)

    def wait_for(self, path, mark, count):
        def there():
            if not os.path.exists(path):
                return False
            with open(path, encoding="utf-8") as file:
                return file.read().count(mark) == count

        self.assertTrue(harness.eventually(there), "no report number %d in %s" % (count, path))

    def test_the_program_s_own_handler_wins(self):
        process = self.start(before="import signal; signal.signal(signal.SIGUSR1, lambda *a: None)\n")
        os.kill(process.pid, signal.SIGUSR1)
        self.finish(process)
        self.assertFalse(os.path.exists(self.path("report")))


if __name__ == "__main__":
    harness.main()
