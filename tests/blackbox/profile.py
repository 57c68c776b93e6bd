"""POOLMALLOC_PROFILE and `poolmalloc tune`: exact counts however the program ends, one line on stdout, clear refusals."""
import os
import re
import signal
import struct
import xml.dom.minidom

import harness
from harness import Case, built

HEAD = struct.Struct("16s4I4Q64s")
ROW = struct.Struct("5Q")
ROWS = 4097


class Profile:
    """As profile.h documents it, read without any code of the library's."""

    def __init__(self, path):
        with open(path, "rb") as file:
            data = file.read()
        magic, self.version, rows, quantum, self.pid, _, self.live_bytes, self.peak_bytes, moment, program = HEAD.unpack_from(data)
        assert (magic, rows, quantum) == (b"poolmalloc-size\0", ROWS, 16) and len(data) == HEAD.size + ROWS * ROW.size
        self.program = program.rstrip(b"\0").decode()
        self.rows, self.greatest = [], []
        for i in range(ROWS):
            calls, live, most, held, when = ROW.unpack_from(data, HEAD.size + i * ROW.size)
            self.rows.append((calls, live, held if when == moment else live))
            self.greatest.append(most)

    @staticmethod
    def number(size):
        return 4096 if size > 65536 else (max(size, 1) - 1) // 16

    def of(self, size):
        """Calls, live now, live at the peak."""
        return self.rows[self.number(size)]

    def most(self, size):
        """The greatest number live at any time."""
        return self.greatest[self.number(size)]


def profile_write(path, counts, peak, **changes):
    """A profile with {size: (calls, live at the peak, and the most at any time)}."""
    head = {"magic": b"poolmalloc-size", "version": 2, "rows": ROWS, **changes}
    data = bytearray(HEAD.pack(head["magic"], head["version"], head["rows"], 16, 1, 1, peak, peak, 1, b"program"))
    for i in range(ROWS):
        calls, live, *most = counts.get(16 * (i + 1), (0, 0))
        data += ROW.pack(calls, live, *(most or [live]), 0, 0)
    with open(path, "wb") as file:
        file.write(data)


class Recorded(Case):
    def record(self, mode, status=0, path=None):
        path = path or self.path("profile")
        result = self.run_preloaded("profiled", mode, PROFILE=path)
        self.assert_silent(result, status)
        return Profile(path)

    def check_plain(self, profile):
        self.assertEqual(profile.of(9001), (3000, 1000, 3000))
        self.assertEqual(profile.of(70001), (50, 20, 0))
        self.assertEqual(profile.program, "profiled")
        sums = [sum(row[i] * min(size, 4096) * 16 for size, row in enumerate(profile.rows[:4096], 1)) for i in (1, 2)]
        for told, upper in zip((profile.live_bytes, profile.peak_bytes), sums):
            self.assertTrue(upper - 16 * 4000 < told <= upper, (told, upper))

    def test_known_counts(self):
        self.check_plain(self.record("plain"))

    def test_however_it_ends(self):
        self.check_plain(self.record("killed", -signal.SIGKILL))
        self.check_plain(self.record("_exit", 3))

    def test_the_whole_family(self):
        profile = self.record("family")
        for size in (15000, 11008, 12032, 13001, 65536, 14001):
            self.assertEqual(profile.of(size), (1, 1, 1), size)

    def test_holes(self):
        profile = self.record("holes")
        self.assertEqual((profile.of(9001), profile.most(9001)), ((300, 220, 20), 220))
        self.assertEqual((profile.of(30001), profile.most(30001)), ((300, 0, 300), 300))

    def test_realloc(self):
        profile = self.record("reallocs")
        self.assertEqual([profile.of(size)[:2] for size in (20001, 19001, 60001, 21001, 22001)],
                         [(1, 0), (1, 0), (1, 0), (1, 1), (1, 0)])
        self.assertEqual(profile.of(200001)[:2], (2, 0))

    def test_threads(self):
        self.assertEqual(self.record("threads").of(9001)[:2], (8 * 3000, 8 * 100))

    def test_usable_size_is_the_size_asked_for(self):
        self.record("usable")

    def test_fork(self):
        """Each process counts what it takes itself."""
        for folder, pattern in (("with", "%p"), ("without", "profile")):
            os.mkdir(self.path(folder))
            self.assert_silent(self.run_preloaded("profiled", "forks", PROFILE=os.path.join(self.path(folder), pattern)))
            found = [Profile(os.path.join(self.path(folder), name)) for name in os.listdir(self.path(folder))]
            self.assertEqual(sorted(profile.of(9001) for profile in found), [(40, 40, 40), (105, 105, 105)])
            self.assertEqual(len({profile.pid for profile in found}), 2)

    def test_exec(self):
        self.assertEqual(self.record("exec").of(9001), (3700, 700, 3000))

    def test_a_profile_of_an_earlier_run_is_written_over(self):
        self.record("plain")
        self.assertEqual(self.record("less").of(9001), (700, 700, 700))

    def test_pools_reach_to_64_kib_and_nothing_is_pre_allocated(self):
        path = self.path("profile")
        _, report = self.run_with_statistics("take_blocks", 60000, 100, PROFILE=path, BLOCK_SIZES="64:100000,1000")
        self.assertEqual([pool["block_size"] for pool in report["pools"]], [64, 1008, 65536])
        self.assertEqual(report["totals"]["forwarded_small_calls"], 0)
        self.assertLess(report["totals"]["committed_bytes"], 100 * 65536 + (4 << 20))
        self.assertEqual(Profile(path).of(60000)[1], 100)

    def test_a_profile_that_cannot_be(self):
        with open(self.path("letter"), "w", encoding="utf-8") as file:
            file.write("a letter, not to be written over" * 10)
        with open(self.path("letter"), encoding="utf-8") as file:
            before = file.read()
        os.mkfifo(self.path("fifo"))
        for path in (self.path("missing/folder"), self.scratch, self.path("letter"), self.path("fifo"), "/dev/full", "/dev/null"):
            result = self.run_preloaded("profiled", "plain", PROFILE=path)
            self.assert_one_line(result, "POOLMALLOC_PROFILE", path)
        with open(self.path("letter"), encoding="utf-8") as file:
            self.assertEqual(file.read(), before)

    def test_a_program_that_is_not_wanted_leaves_none(self):
        for setting in ({"DISABLE": "1"}, {"PROGRAMS": "another"}):
            self.run_preloaded("profiled", "plain", PROFILE=self.path("none"), **setting)
            self.assertFalse(os.path.exists(self.path("none")))


class Tune(Case):
    def tool(self, *arguments, **environment):
        return self.run_command([built.tool, *arguments], env=harness.clean_environment(**environment))

    def tune(self, *arguments, status=0, **environment):
        """The list on the one line of stdout, and stderr."""
        result = self.tool("tune", *arguments, **environment)
        self.assertEqual(result.returncode, status, result.stderr)
        found = re.fullmatch(r"POOLMALLOC_BLOCK_SIZES=(\d+:\d+(?:,\d+:\d+)*)\n", result.stdout)
        self.assertTrue(found, result.stdout)
        sizes = [tuple(map(int, entry.split(":"))) for entry in found.group(1).split(",")]
        config = self.tool("config", POOLMALLOC_BLOCK_SIZES=found.group(1))
        self.assertEqual((config.returncode, config.stderr), (0, ""))
        self.assertIn("POOLMALLOC_BLOCK_SIZES=" + found.group(1).replace(":0", "") + "\n", config.stdout)
        return sizes, result.stderr

    def test_a_command(self):
        sizes, text = self.tune("--", self.program("profiled"), "plain")
        self.assertIn((9008, 3375), sizes)
        self.assertRegex(text, r"(?m)^profiled +\d+ +\d+ +\d+$")
        self.assertRegex(text, r"8193-10240 +3000 ")
        for name in ("tuned", "default", "jemalloc's classes", "powers of two"):
            self.assertRegex(text, r"(?m)^%s( +\d+){5} +\d+\.\d%%$" % name)

    def test_what_the_command_prints_is_not_on_stdout(self):
        _, text = self.tune("--", "sh", "-c", "echo hello; echo world")
        self.assertIn("hello\nworld\n", text)

    def test_settings_that_hide_requests_do_not_count(self):
        sizes, _ = self.tune("--", self.program("profiled"), "plain", POOLMALLOC_DISABLE="1", POOLMALLOC_BLOCK_SIZES="16:9")
        self.assertIn((9008, 3375), sizes)

    def test_children_count(self):
        sizes, text = self.tune("--", "sh", "-c", "%s less; %s plain; true" % ((self.program("profiled"),) * 2))
        self.assertEqual(len(re.findall(r"(?m)^profiled ", text)), 2)
        self.assertIn((9008, 3375), sizes)  # of the larger one, not of both

    def test_profiles_are_merged(self):
        profile_write(self.path("a"), {48: (1000, 800), 9008: (10, 5)}, 800 * 48 + 5 * 9008)
        profile_write(self.path("b"), {48: (3000, 1600), 512: (9000, 8000)}, 1600 * 48 + 8000 * 512)
        sizes, text = self.tune(self.path("a"), self.path("b"))
        self.assertEqual(sizes, [(48, 1800), (512, 9000), (9008, 6)])
        self.assertRegex(text, r"33-48 +2400 ")

    def test_pools_and_max(self):
        profile_write(self.path("a"), {48: (9, 9), 512: (9000, 8000), 65536: (100, 100)}, 8000 * 512)
        self.assertEqual(self.tune("--pools", "1", self.path("a"))[0], [(512, 9011)])
        self.assertEqual(self.tune("--max", "64K", self.path("a"))[0][-1], (65536, 113))
        self.assertEqual(self.tune("--pools", "63", "--max", "100", self.path("a"))[0], [(48, 11)])

    def test_the_error_on_another_profile(self):
        profile_write(self.path("a"), {48: (9000, 8000), 512: (9000, 8000)}, 8000 * 560)
        profile_write(self.path("b"), {48: (9000, 8000), 320: (9000, 8000)}, 8000 * 368)
        _, text = self.tune("--check", self.path("b"), self.path("a"))
        found = re.search(r"error of the tuned sizes: ([\d.]+) points", text)
        self.assertAlmostEqual(float(found.group(1)), 100 * 192 / 368, delta=1)

    def test_plot_and_output(self):
        sizes, _ = self.tune("--plot", self.path("p.svg"), "--output", self.path("conf"), "--", self.program("profiled"), "plain")
        svg = xml.dom.minidom.parse(self.path("p.svg"))
        texts = " ".join(node.firstChild.data for node in svg.getElementsByTagName("text"))
        for label in ("request size, bytes", "live at the peak, MiB", "%d block sizes" % len(sizes)):
            self.assertIn(label, texts)
        result = self.tool("run", "--config", self.path("conf"), "--", "env")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("POOLMALLOC_BLOCK_SIZES=" + ",".join("%d:%d" % entry for entry in sizes) + "\n", result.stdout)
        self.assertIn("POOLMALLOC_PROGRAMS=env\n", result.stdout)

    def test_outputs_that_cannot_be_written(self):
        profile_write(self.path("a"), {48: (9, 9)}, 9 * 48)
        for option in ("--plot", "--output"):
            _, text = self.tune(option, self.path("missing/file"), self.path("a"), status=1)
            self.assertIn("missing/file", text)

    def test_a_bad_config_file(self):
        for content in ("BLOCK_SIZES=16\n", "POOLMALLOC_LIMIT\n", "PATH=/\n", "POOLMALLOC_LIMIT=abc\n", "POOLMALLOC_FLY=1\n"):
            with open(self.path("conf"), "w", encoding="utf-8") as file:
                file.write("# a comment\n\n" + content)
            result = self.tool("run", "--config", self.path("conf"), "--", "touch", self.path("started"))
            self.assertEqual((result.returncode, result.stdout), (2, ""), content)
            self.assertFalse(os.path.exists(self.path("started")))
        self.assertEqual(self.tool("run", "--config", self.path("missing"), "--", "true").returncode, 2)
        with open(self.path("conf"), "w", encoding="utf-8") as file:
            file.write("  POOLMALLOC_LIMIT=64M  # enough\nPOOLMALLOC_VERBOSE=0")
        result = self.tool("run", "--config", self.path("conf"), "--limit", "32M", "--", "env")
        self.assertIn("POOLMALLOC_LIMIT=32M\n", result.stdout)

    def refused(self, *arguments, status=2, lines=1):
        result = self.tool("tune", *arguments)
        self.assertEqual((result.returncode, result.stdout), (status, ""), arguments)
        self.assertEqual(result.stderr.count("\n"), lines, result.stderr)
        return result.stderr

    def test_bad_profiles(self):
        good = {48: (9, 9)}
        with open(self.path("text"), "w", encoding="utf-8") as file:
            file.write("a letter")
        for name, changes in (("magic", {"magic": b"poolmalloc-live"}), ("version", {"version": 1}), ("rows", {"rows": 4096})):
            profile_write(self.path(name), good, 432, **changes)
        profile_write(self.path("huge"), {48: (1 << 60, 1 << 60)}, 432)
        profile_write(self.path("most"), {48: (9, 9, 1 << 60)}, 432)
        profile_write(self.path("short"), good, 432)
        os.truncate(self.path("short"), 100000)
        profile_write(self.path("good"), good, 432)
        for name in ("text", "magic", "version", "rows", "huge", "most", "short", "missing", "."):
            self.assertIn(name, self.refused(self.path(name)))
            self.assertIn(name, self.refused(self.path("good"), self.path(name)))
            self.assertIn(name, self.refused("--check", self.path(name), self.path("good")))
        profile_write(self.path("empty"), {}, 0)
        self.refused(self.path("empty"), status=1)

    def test_wrong_usage(self):
        for arguments in ((), ("--",), ("--fly", "x"), ("--pools", "0", "x"), ("--pools", "64", "x"), ("--max", "65K", "x"), ("--max",)):
            self.refused(*arguments, lines=2)

    def test_commands_that_fail(self):
        _, text = self.tune("--", self.program("profiled"), "fails", status=5)
        self.assertIn("exit status 5", text)
        _, text = self.tune("--", self.program("profiled"), "killed", status=137)
        self.assertIn("signal 9", text)
        self.refused("--", self.path("missing"), status=127)
        self.refused("--", self.scratch, status=126)

    def test_nothing_is_left_behind(self):
        os.mkdir(self.path("tmp"))
        self.tune("--", self.program("profiled"), "plain", TMPDIR=self.path("tmp"))
        self.assertEqual(os.listdir(self.path("tmp")), [])


class Memory(Case):
    """What tuning is for: a million blocks of three sizes, and what each allocator takes for them."""

    LIBRARIES = "/usr/lib/x86_64-linux-gnu/"

    def measure(self, **environment):
        result = self.run_command([self.program("three_sizes")], env=harness.clean_environment(**environment))
        self.assertEqual(result.returncode, 0, result.stderr)
        return {name: int(value) for name, value in (line.split() for line in result.stdout.splitlines())}

    def tuned(self):
        result = self.run_command([built.tool, "tune", "--", self.program("three_sizes")], env=harness.clean_environment())
        self.assertEqual(result.returncode, 0, result.stderr)
        wastes = {name: int(waste) for name, waste in re.findall(r"(?m)^(tuned|default)(?: +\d+){4} +(\d+)", result.stderr)}
        return result.stdout.strip().split("=")[1], wastes

    def test_three_sizes(self):
        sizes, predicted = self.tuned()
        plain = self.measure()
        tuned = self.measure(LD_PRELOAD=built.interposer, POOLMALLOC_BLOCK_SIZES=sizes)
        default = self.measure(LD_PRELOAD=built.interposer, POOLMALLOC_BLOCK_SIZES="default")
        self.assertLess(tuned["peak_rss"], 1.02 * plain["peak_rss"])
        self.assertLess(tuned["peak_rss"], default["peak_rss"])
        empty = self.run_command([self.program("three_sizes"), "0"], env=harness.clean_environment(LD_PRELOAD=built.interposer))
        base = int(re.search(r"peak_rss (\d+)", empty.stdout).group(1))
        for name, run in (("tuned", tuned), ("default", default)):
            measured = run["peak_rss"] - base - run["requested"]
            print("%s: waste predicted %d, measured %d" % (name, predicted[name], measured))
            self.assertAlmostEqual(measured / predicted[name], 1, delta=0.1)
        for library in ("libjemalloc.so.2", "libmimalloc.so.2"):
            if os.path.exists(self.LIBRARIES + library):
                peer = self.measure(LD_PRELOAD=self.LIBRARIES + library)
                print("%s: %.3f" % (library, tuned["peak_rss"] / peer["peak_rss"]))
                self.assertLess(tuned["peak_rss"], 0.86 * peer["peak_rss"])


if __name__ == "__main__":
    harness.main()
