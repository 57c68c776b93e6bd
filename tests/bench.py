"""bench.py BUILD SOURCE: the comparison benchmark itself: every workload runs and tells what it did, the runner takes several added
libraries and reports them, and the counting build sees what threads do to each other and nothing where there is none."""
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

BUILD, SOURCE = map(os.path.abspath, sys.argv[1:3])
RUNNER = os.path.join(SOURCE, "bench", "runner")
sys.path.insert(0, RUNNER)
import cases  # noqa: E402
import count  # noqa: E402


def run(*command, **environment):
    kept = {k: v for k, v in os.environ.items() if k not in ("LIB", "LD_PRELOAD") and not k.startswith("POOLMALLOC_")}
    return subprocess.run(command, capture_output=True, text=True, env=kept | environment, check=False)


class Scratch(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="poolmalloc-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)


class Workloads(Scratch):
    def test_each_runs_and_tells(self):
        for case in cases.workloads():
            with self.subTest(case.name):
                operations = ["--operations", "64" if case.group == "startup" else "20000" if case.operations > 20000 else "200"]
                done = run(os.path.join(BUILD, "bench", case.program), *case.arguments, *operations, "--settle", "0",
                           LD_PRELOAD=os.path.join(BUILD, "libpoolmalloc.so"))
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                told = json.loads(done.stdout)
                self.assertEqual((told["workload"], told["threads"]), (case.program, case.threads))
                self.assertGreater(told["operations"], 0)

    def test_work_by_seconds_ends(self):
        for name, threads in (("handover", 5), ("many_producers", 3), ("wave", 1), ("large", 2)):
            done = run(os.path.join(BUILD, "bench", name), "--threads", str(threads), "--seconds", "0.05")
            self.assertGreater(json.loads(done.stdout)["operations"], 0, name)

    def test_wrong_usage(self):
        self.assertEqual(run(os.path.join(BUILD, "bench", "wave"), "--variant", "tidal").returncode, 2)
        self.assertEqual(run(os.path.join(BUILD, "bench", "handover"), "--threads", "1").returncode, 1)


class Runner(Scratch):
    def bench(self, *arguments, **environment):
        return run(sys.executable, os.path.join(RUNNER, "run.py"), "--build", BUILD, *arguments, **environment)

    def added(self, *names):
        """Copies of the library, as peers."""
        paths = [os.path.join(self.folder, name) for name in names]
        for path in paths:
            shutil.copy(os.path.join(BUILD, "libpoolmalloc.so"), path)
        return ":".join(paths)

    def test_lib_takes_several(self):
        done = self.bench("--list", LIB=self.added("libone.so", "libtwo.so.3", "libsystem.so"))
        self.assertEqual(done.returncode, 0, done.stderr)
        listed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("allocator")]
        self.assertLessEqual({"one", "two", "system+"}, set(listed))

    def test_lib_that_is_not_there(self):
        done = self.bench("--list", LIB=self.added("libone.so") + ":" + os.path.join(self.folder, "none.so"))
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("none.so", done.stderr)

    def test_report(self):
        """Of each case a row, of each allocator a column; the best peer is one of those that LIB adds, too."""
        out = os.path.join(self.folder, "out")
        done = self.bench("--quick", "--repeat", "1", "--out", out, "--only", "pair/64,handover/2,startup",
                          "--allocators", "poolmalloc,one,two,null", "--count", LIB=self.added("libone.so", "libtwo.so"))
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(os.path.join(out, "results.csv"), encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual({(r["workload"], r["allocator"]) for r in rows},
                         {(w, a) for w in ("pair/64", "handover/2", "startup") for a in ("poolmalloc", "one", "two", "null")}
                         - {("handover/2", "null")})
        with open(os.path.join(out, "report.md"), encoding="utf-8") as file:
            page = file.read()
        self.assertIn("| workload | one | two | best peer [95 %] |", page)
        self.assertRegex(page, r"\| handover/2 \|.*\] (one|two) \|")
        self.assertRegex(page, r"\| `handover/2`, blocks a second ÷ best peer's \| ≥ 1 \| \d")
        self.assertRegex(page, r"\| a start, µs \| [1-9]\d* \|")
        self.assertRegex(page, r"\| handover/2 \| 100.0% \| 0 \| [1-9]\d+ \| [1-9]\d+ \|")


@unittest.skipUnless(os.path.exists(count.counted_object(BUILD)), "built without POOLMALLOC_COUNT")
class Count(Scratch):
    def counted(self, name):
        return count.count_once(BUILD, next(c for c in cases.workloads() if c.name == name))

    def test_one_thread_alone_shares_nothing(self):
        row = self.counted("pair/64")
        self.assertLess(count.places_sum(row, "rmw"), 1)
        self.assertEqual(count.lines_moved(row), 0)

    def test_own_work_of_the_slow_ways(self):
        """A wave goes through slabs: their locks are counted, and no line moves."""
        row = self.counted("wave/one")
        self.assertGreater(row["depot"]["lock"], 0)
        self.assertGreaterEqual(row["depot"]["rmw"], row["depot"]["lock"])
        self.assertEqual(count.lines_moved(row), 0)

    def test_blocks_handed_over(self):
        """Each dies in another thread, which writes its link; the home is told by an atomic operation on a line of its own."""
        row = self.counted("handover/2")
        self.assertGreater(row["blocks"]["written"], 900)
        self.assertGreater(row["other_heaps"]["rmw"], 0)

    def test_table_in_a_report(self):
        path = os.path.join(self.folder, "report.md")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"# Report\n\n## First\n\ntext\n\n{count.TITLE}\n\nold\n\n## Last\n\nend\n")
        row = self.counted("handover/2")
        for _ in range(2):
            count.report_patch(path, count.section({"handover/2": row}))
        with open(path, encoding="utf-8") as file:
            page = file.read()
        self.assertEqual([line for line in page.splitlines() if line.startswith("#")], ["# Report", "## First", count.TITLE, "## Last"])
        self.assertNotIn("old", page)
        self.assertEqual(page.count("| handover/2 |"), 1)
        self.assertTrue(page.endswith("## Last\n\nend\n"))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
