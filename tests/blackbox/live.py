"""`poolmalloc stat`: a running process seen from outside says exactly what it says itself; and what goes wrong is one line."""
import csv
import ctypes
import json
import os
import pathlib
import random
import re
import shutil
import struct
import subprocess
import xml.etree.ElementTree

import harness
from harness import Case, built

LAYOUT = int(re.search(r"CONTROL_LAYOUT (\d+)u", (pathlib.Path(__file__).parents[2] / "src/pools/region.h").read_text()).group(1))

REGION, DEPOT = 40, 72  # where the control page has their addresses
SIZE, FRESH = 8, 8      # where the region has its size, and the depot how many slabs there are

KNOWN = {600: 12345, 1700: 777, 5000: 64, 32768: 9}
BLOCK_SIZES = {600: 640, 1700: 1792, 5000: 5120, 32768: 32768, 300: 320}
ROUNDS = int(os.environ.get("CORRUPT_ROUNDS", 300))
TOTALS = ("reserved_bytes", "committed_bytes", "used_bytes", "forwarded_calls", "forwarded_small_calls", "heaps", "idle_heaps",
          "spare_slabs", "empty_slabs", "purged_slabs", "purges", "demoted_pools", "limit_hits", "remote_frees", "remote_messages", "busy")


class Live(Case):
    def start(self, *command, preload=None, **settings):
        """A program that prints a line when it is ready, and ends when its stdin does."""
        environment = harness.clean_environment(LD_PRELOAD=preload or built.interposer, POOLMALLOC_BLOCK_SIZES="default")
        environment.update({"POOLMALLOC_" + name: str(value) for name, value in settings.items()})
        process = subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(self.finish, process)
        self.first_line = process.stdout.readline()
        return process

    def finish(self, process):
        if not process.stdin.closed:
            process.stdin.close()
        self.assertEqual(process.wait(harness.PATIENCE), 0)
        process.stdout.close()

    def stat(self, process, *options, environment=None):
        command = [built.tool, "stat", str(getattr(process, "pid", process)), *options]
        return self.run_command(command, env=environment or harness.clean_environment())

    def document(self, process):
        result = self.stat(process, "--json")
        self.assert_silent(result)
        return json.loads(result.stdout)

    def used(self, document):
        pools = {pool["block_size"]: pool["used"] for pool in document["pools"]}
        return {size: pools[BLOCK_SIZES[size]] for size in KNOWN}

    LINE = re.compile(r'^([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)+)\})? (\d+)$')

    def families(self, text):
        """A strict reader of the text format: HELP, TYPE, then that metric's series; nothing twice."""
        families, series = {}, set()
        self.assertTrue(text.endswith("\n"))
        lines = iter(text.split("\n")[:-1])
        name = None
        for line in lines:
            if line.startswith("# HELP "):
                name = line.split(" ")[2]
                self.assertRegex(line, r"^# HELP poolmalloc_[a-z_]+ [A-Z].*\.$")
                self.assertNotIn(name, families, "two families of one name")
                found = re.match(r"^# TYPE (\S+) (gauge|counter)$", next(lines))
                self.assertEqual(found.group(1), name)
                families[name] = found.group(2)
                continue
            found = self.LINE.match(line)
            self.assertTrue(found, line)
            self.assertEqual(found.group(1), name, "a series outside of its family")
            self.assertNotIn((name, found.group(2)), series)
            series.add((name, found.group(2)))
        self.assertEqual(set(families), {name for name, _ in series}, "a family without series")
        return families

    def check_metrics(self, text):
        for name, kind in self.families(text).items():
            self.assertTrue(name.startswith("poolmalloc_"))
            self.assertEqual(name.endswith("_total"), kind == "counter", name)
        self.assertIn("poolmalloc_used_bytes", self.families(text))
        self.assertIn("poolmalloc_forwarded_calls_total", self.families(text))


class Quiet(Live):
    def test_all_readers_agree(self):
        """pm_stats_get, stat in three formats and the exit report: exactly the blocks that the program holds."""
        for statistics in ("exit", "exit,full"):
            report = self.path(statistics)
            process = self.start(self.program("known_blocks"), "quiet", STATS=statistics, STATS_FORMAT="json", STATS_FILE=report)
            self.assertEqual(dict(map(int, word.split("=")) for word in self.first_line.split()), KNOWN)
            seen = self.document(process)
            self.assertEqual(self.used(seen), KNOWN)
            self.assertEqual((seen["pid"], seen["next"], seen["totals"]["busy"]), (process.pid, "libc.so.6", 0))
            self.check_text(process)
            self.check_prometheus(process)
            self.finish(process)
            with open(report, encoding="utf-8") as file:
                self.check_same(seen, json.load(file))

    def check_text(self, process):
        text = self.stat(process, "--bytes").stdout
        for size, count in KNOWN.items():
            row = re.search(r"(?m)^malloc-%d\s.*$" % BLOCK_SIZES[size], text).group().split()
            self.assertEqual(row[4], str(count), text)
        self.assertRegex(text, r"heap 1\s+live: \d+ bytes at hand")

    def check_prometheus(self, process):
        for size, count in KNOWN.items():
            self.assertIn('\npoolmalloc_used_blocks{pool="malloc-%d"} %d\n' % (BLOCK_SIZES[size], count),
                          self.stat(process, "--prometheus").stdout)

    def check_same(self, seen, told):
        """From outside and from inside the same document, but for what the process did at its end."""
        self.assertEqual(seen.keys(), told.keys())
        self.assertEqual(self.used(told), KNOWN)
        for field in TOTALS:
            self.assertAlmostEqual(seen["totals"][field], told["totals"][field], delta=4096 if field == "used_bytes" else 4, msg=field)
        for before, after in zip(seen["pools"], told["pools"]):
            self.assertEqual(before.keys(), after.keys())
            if before["block_size"] in BLOCK_SIZES.values():
                self.assertEqual(before, after)

    def test_resident_is_what_the_kernel_says(self):
        process = self.start(self.program("known_blocks"), "quiet")
        pools = self.document(process)["totals"]["resident_bytes"]
        with open("/proc/%d/smaps_rollup" % process.pid, encoding="ascii") as file:
            anonymous = int(re.search(r"Anonymous:\s+(\d+) kB", file.read()).group(1)) * 1024
        self.assertLess(pools, anonymous)
        self.assertGreater(pools, anonymous - 2 * 2 ** 20)

    def test_heaps(self):
        """Threads that ended leave idle heaps; blocks freed by them lie with their slabs."""
        seen = self.document(self.start(self.program("known_blocks"), "quiet"))
        self.assertEqual([heap["live"] for heap in seen["heaps"]], [True, False])
        self.assertGreater(seen["heaps"][0]["hand_bytes"], 0)
        self.assertEqual([heap["way_blocks"] for heap in seen["heaps"]], [0, 0])
        self.assertEqual(seen["heaps"][1]["hand_bytes"], 0)

    def test_a_child_after_fork(self):
        """It has its parent's control page, and pools of its own."""
        program = "import os, sys\nif os.fork() == 0:\n  kept = [bytes(600) for i in range(5000)]\n" \
                  "  print(os.getpid(), flush=True); sys.stdin.read(); os._exit(0)\nos.wait()"
        parent = self.start("python3", "-c", program)
        child = int(self.first_line)
        both = [{pool["block_size"]: pool["used"] for pool in self.document(pid)["pools"]} for pid in (parent.pid, child)]
        self.assertGreaterEqual(both[1][640], both[0][640] + 5000)

    def test_watch(self):
        process = self.start(self.program("known_blocks"), "quiet")
        watcher = subprocess.Popen([built.tool, "stat", str(process.pid), "--json", "--watch", "0.05"], text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(5):
            self.assertEqual(self.used(json.loads(watcher.stdout.readline())), KNOWN)
        self.finish(process)
        _, errors = watcher.communicate(timeout=harness.PATIENCE)
        self.assertEqual((watcher.returncode, errors), (0, ""))

    def test_people_and_several(self):
        """Sizes as K and MiB unless bytes are asked for; processes by name, more than one; one format at a time."""
        named = self.path("named_so")
        shutil.copy(self.program("known_blocks"), named)
        processes = [self.start(named, "quiet") for _ in range(2)]
        shown = self.stat("named_so")
        self.assertEqual((shown.returncode, shown.stderr), (0, ""))
        self.assertEqual([shown.stdout.count(f"process {process.pid},") for process in processes], [1, 1])
        self.assertRegex(shown.stdout, r"(?m)^in use \d+\.\d [KM]iB, resident \d+(\.\d)? [KM]iB, committed ")
        documents = [json.loads(line) for line in self.stat(processes[0].pid, str(processes[1].pid), "--json").stdout.splitlines()]
        self.assertEqual([document["pid"] for document in documents], [process.pid for process in processes])
        self.assertRegex(self.stat(processes[0], "--bytes").stdout, r"(?m)^in use \d+, resident \d+, committed ")
        for wrong in (("--json", "--prometheus"), ("--plot", "x.png")):
            result = self.stat(processes[0], *wrong)
            self.assertEqual((result.returncode, result.stdout), (2, ""))
        self.assertFalse(os.path.exists("x.png"))
        self.assertEqual(self.stat("no_such_name").returncode, 2)

    def test_more_slabs_than_there_are_records(self):
        """What is damaged is told; no memory is asked for that millions of slabs would need."""
        process = self.start(self.program("known_blocks"), "quiet")
        with open(f"/proc/{process.pid}/maps", encoding="utf-8") as maps, open(f"/proc/{process.pid}/mem", "r+b", buffering=0) as file:
            memory = file.fileno()
            starts = [int(line.split("-")[0], 16) for line in maps if " rw-p " in line]
            control = next(s for s in starts if s % (1 << 21) == 0 and os.pread(memory, 16, s) == b"poolmalloc-live\0")
            region, depot = (struct.unpack("Q", os.pread(memory, 8, control + offset))[0] for offset in (REGION, DEPOT))
            damage = {depot + FRESH: 1 << 21, region + SIZE: 1 << 40}
            right = {at: os.pread(memory, 8, at) for at in damage}
            for at, value in damage.items():
                os.pwrite(memory, struct.pack("Q", value), at)
            tool = ["sh", "-c", "ulimit -v 200000; exec \"$@\"", "sh", built.tool, "stat", str(process.pid)]
            self.assert_one_line(self.run_command(tool, env=harness.clean_environment()), "while it was being read", status=1)
            for at, value in right.items():
                os.pwrite(memory, value, at)
        self.assertEqual(self.used(self.document(process)), KNOWN)

    def test_a_deleted_library(self):
        """No symbols and no file are needed: only memory."""
        copy = self.path("copy.so")
        with open(built.interposer, "rb") as original, open(copy, "wb") as file:
            file.write(original.read())
        process = self.start(self.program("known_blocks"), "quiet", preload=copy)
        os.unlink(copy)
        self.assertEqual(self.used(self.document(process)), KNOWN)


class ExplicitPools(Live):
    USED = 5001

    def rows(self, document):
        return {pool["name"]: pool for pool in document["pools"] if not pool["name"].startswith("malloc-")}

    def test_rows(self):
        """One row a pool, by name; arenas have one together; inside, outside and at exit the same."""
        report = self.path("report")
        process = self.start(self.program("known_pools"), STATS="exit", STATS_FORMAT="json", STATS_FILE=report)
        seen = self.document(process)
        rows = self.rows(seen)
        names = ["nodes of threads", 'locked "quoted" \\ ?', "nobody's, cut within a letter ?"]
        self.assertEqual(sorted(rows), sorted([*names, "arenas"]))
        for name in names:
            pool = rows[name]
            self.assertEqual((pool["used"], pool["block_size"], pool["used"] + pool["free"]), (self.USED, 80, pool["capacity"]))
            self.assertGreaterEqual(pool["peak"], self.USED)
            self.assertGreater(pool["resident_bytes"], self.USED * 80)
        self.assertGreaterEqual(rows["arenas"]["slabs"], 8)
        *inside, used_bytes = map(int, self.first_line.split())
        self.assertEqual(inside, [self.USED] * 3)
        self.assertEqual(seen["totals"]["used_bytes"], used_bytes)
        self.check_elsewhere(process)
        self.finish(process)
        with open(report, encoding="utf-8") as file:
            self.assertEqual(self.rows(json.load(file)), rows)

    def check_elsewhere(self, process):
        self.assertRegex(self.stat(process).stdout, r"(?m)^nodes of threads +80 +\d+ +\d+ +5001 ")
        self.assertIn('{pool="locked \\"quoted\\" \\\\ ?"} 5001\n', self.stat(process, "--prometheus").stdout)
        if shutil.which("gdb"):
            result = self.run_command(["gdb", "-nx", "-batch", "-p", str(process.pid), "-x", Debugger.SCRIPT, "-ex", "poolmalloc"])
            if "ptrace" not in result.stderr:
                self.assertRegex(result.stdout, r"(?m)^nodes of threads +80 +\d+ +\d+ +5001 ")

    def test_more_pools_than_rows(self):
        """Every format tells each of them; and pools of one name are series of their own."""
        process = self.start(self.program("known_pools"), "1500")
        seen = self.document(process)
        numbers = [pool["number"] for pool in seen["pools"] if "number" in pool]
        self.assertEqual((len(numbers), len(set(numbers))), (1503, 1503))
        self.assertEqual(seen["totals"]["explicit_pools"], 1503)
        self.assertEqual(sum(pool["used"] * pool["block_size"] for pool in seen["pools"]), seen["totals"]["used_bytes"])
        self.assertEqual(seen["totals"]["used_bytes"], int(self.first_line.split()[-1]))
        self.assertGreaterEqual(seen["totals"]["used_bytes"], (3 * self.USED + 1500) * 80)
        self.check_metrics(self.stat(process, "--prometheus").stdout)


class Busy(Live):
    HELD, BURST = 2000, 400  # as in known_blocks.c
    NEAR = 110  # blocks a thread that a look may be off: what comes and goes without a slow path, a bin at its deepest

    def test_never_fails_and_is_near(self):
        quiet = 0 # looks during which no thread was in a slow path; rare on a busy machine
        for threads in (4, 1):
            process = self.start(self.program("known_blocks"), "threads", str(threads))
            for look in range(1000):
                if look >= 100 and (quiet > 0 or threads > 1):
                    break
                seen = self.document(process)
                self.assertEqual(self.used(seen), KNOWN)
                if seen["totals"]["busy"] > 0: # the reader was held up in the middle of a look
                    continue
                quiet += 1
                used = next(pool["used"] for pool in seen["pools"] if pool["block_size"] == 320)
                self.assertLessEqual(used, threads * (self.HELD + self.NEAR))
                self.assertGreaterEqual(used, threads * (self.HELD - self.BURST - self.NEAR))
        self.assertGreater(quiet, 0)

    def test_a_process_that_ends_meanwhile(self):
        """Whenever it ends: a document, or one line."""
        for _ in range(60):
            process = subprocess.Popen([self.program("take_blocks"), "48", "200000", "free"], stdout=subprocess.DEVNULL,
                                       env=harness.clean_environment(LD_PRELOAD=built.interposer))
            result = self.stat(process, "--json")
            process.wait()
            if result.returncode == 0:
                json.loads(result.stdout)
            else:
                self.assert_one_line(result, str(process.pid), status=1)


class Pictures(Live):
    def drawing(self, path):
        """Every text of a well-formed SVG."""
        return [element.text for element in xml.etree.ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]

    def test_bars(self):
        process = self.start(self.program("known_blocks"), "quiet")
        self.assert_silent(self.stat(process, "--plot", self.path("bars.svg")))
        texts = self.drawing(self.path("bars.svg"))
        self.assertIn("process %d, known_blocks" % process.pid, texts[0])
        row = texts[texts.index("malloc-640") + 1]
        self.assertRegex(row, r"^97\.6 %: 12345 of 12648 blocks, \d+(\.\d)? KiB in memory$")

    def test_names_are_escaped(self):
        process = self.start(self.program("known_pools"))
        self.stat(process, "--plot", self.path("bars.svg"))
        self.assertIn('locked "quoted" \\ ?', self.drawing(self.path("bars.svg")))

    def test_record(self):
        process = self.start(self.program("known_blocks"), "quiet")
        for _ in range(3):
            self.assert_silent(self.stat(process, "--record", self.path("record.csv")))
        with open(self.path("record.csv"), encoding="utf-8", newline="") as file:
            samples = list(csv.DictReader(file))
        self.assertEqual([int(line["used"]) for line in samples if line["pool"] == "malloc-640"], [KNOWN[600]] * 3)
        result = self.run_command([built.tool, "stat", "--record", self.path("record.csv"), "--plot", self.path("time.svg")])
        self.assert_silent(result)
        self.assertIn("malloc-640", self.drawing(self.path("time.svg")))

    def test_files_that_do_not_do(self):
        process = self.start(self.program("known_blocks"), "quiet")
        self.assert_one_line(self.stat(process, "--plot", self.path("no/where")), "no/where", status=1)
        self.assert_one_line(self.stat(process, "--record", "/dev/full"), "/dev/full", status=1)
        for content in ("", "a,b\n", "time,block_size,slabs,capacity,used,resident_bytes,pool\n"):
            with open(self.path("odd.csv"), "w", encoding="utf-8") as file:
                file.write(content)
            result = self.run_command([built.tool, "stat", "--record", self.path("odd.csv"), "--plot", self.path("x.svg")])
            self.assert_one_line(result, "no record", status=1)


class Redis(Live):
    """A server that keeps an account of its own: what it says it uses is what pools and the next allocator say together."""

    def cli(self, *command):
        return self.run_command(["redis-cli", "-s", self.path("socket"), *command]).stdout

    def serve(self):
        if not shutil.which("redis-server"):
            self.skipTest("no redis-server")
        command = ["redis-server", "--port", "0", "--unixsocket", self.path("socket"), "--save", "", "--dir", self.scratch]
        server = subprocess.Popen(command, env=harness.clean_environment(LD_PRELOAD=built.interposer), stdout=subprocess.DEVNULL)
        self.addCleanup(server.wait)
        self.addCleanup(server.terminate)
        self.assertTrue(harness.eventually(lambda: "PONG" in self.cli("ping")), "redis-server does not answer")
        return server

    def test_account(self):
        server = self.serve()
        load = subprocess.Popen(["redis-benchmark", "-s", self.path("socket"), "-t", "set,lpush,hset", "-n", "100000", "-r", "100000",
                                 "-d", "100", "-P", "16", "-q"], stdout=subprocess.DEVNULL)
        while load.poll() is None:
            self.document(server)
        ours = self.document(server)["totals"]["used_bytes"]
        found = re.search(r"(?m)^Allocated: (\d+)", self.cli("memory", "malloc-stats"))
        if not found:
            self.skipTest("this redis-server is not linked to jemalloc, which says what it serves itself")
        account = int(re.search(r"used_memory:(\d+)", self.cli("info", "memory")).group(1))
        self.assertGreater(ours, account * 0.8)
        self.assertAlmostEqual((ours + int(found.group(1))) / account, 1, delta=0.05)


class Debugger(Live):
    """The gdb script, on a process and on its core file: the same figures."""

    SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../scripts/poolmalloc-gdb.py")

    def gdb(self, *arguments):
        result = self.run_command(["gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off", *arguments])
        self.assertNotIn("Traceback", result.stderr)
        return result

    def check(self, text):
        for size, count in KNOWN.items():
            row = re.search(r"(?m)^malloc-%d .*$" % BLOCK_SIZES[size], text)
            self.assertTrue(row, text)
            self.assertEqual(row.group().split()[4], str(count), text)
        self.assertRegex(text, r"heap 1 +live at 0x\w+: \d+ bytes at hand, \d+ blocks on their way")

    def test_process_and_core(self):
        if not shutil.which("gdb"):
            self.skipTest("no gdb")
        process = self.start(self.program("known_blocks"), "quiet")
        core = self.path("core")
        live = self.gdb("-p", str(process.pid), "-x", self.SCRIPT, "-ex", "poolmalloc", "-ex", "generate-core-file " + core)
        if "ptrace" in live.stderr:
            self.skipTest("no process may be traced here")
        self.check(live.stdout)
        start = re.search(r"heap 1 +live at (0x\w+)", live.stdout).group(1)
        dead = self.gdb(self.program("known_blocks"), core, "-x", self.SCRIPT, "-ex", "poolmalloc", "-ex",
                        "poolmalloc *(long *)((char *)&kept + 8 * (3 * 13000 + 5))",
                        "-ex", "poolmalloc *(long *)&given + 3", "-ex", "poolmalloc " + start)
        self.check(dead.stdout)
        self.assertRegex(dead.stdout, r"lies 0 bytes into block \d+ of slab \d+, of malloc-640; home: heap 1; the block is in use")
        self.assertRegex(dead.stdout, r"lies 3 bytes into block")
        self.assertIn(start + " lies in no slab", dead.stdout)

    def test_probes(self):
        """Where sys/sdt.h was there when the library was built: its probes, with two arguments each."""
        notes = self.run_command(["readelf", "-n", "--wide", built.interposer]).stdout
        if "stapsdt" not in notes:
            self.skipTest("built without probes")
        found = re.findall(r"Provider: poolmalloc\s+Name: (\w+)\s.*\s+Arguments: \S+ \S+\n", notes)
        self.assertEqual(set(found), {"slab_take", "slab_put", "slab_empty", "slab_reuse", "purge", "overflow", "remote_flush", "adopt", "strip",
                                      "splice_chain", "splice_remote", "chain_to_bits", "slab_whole", "handful", "fall_ends", "comes_down", "slab_thins", "dead_found",
                                      "learn", "unlearn", "large_keep", "large_share", "large_old", "large_rob", "large_fall"})
        page = (pathlib.Path(__file__).parents[2] / "man/poolmalloc.7").read_text().split(".SH PROBES")[1].split(".SH SEE")[0]
        told = (word for line in page.split("\n") if line.startswith(".B") for word in re.findall(r"[a-z_]{4,}", line))
        self.assertEqual(set(found), set(told))

    def test_a_process_without_pools(self):
        if not shutil.which("gdb"):
            self.skipTest("no gdb")
        process = self.start("sh", "-c", "echo; read line; :", DISABLE=1)
        result = self.gdb("-p", str(process.pid), "-x", self.SCRIPT, "-ex", "poolmalloc")
        self.assertRegex(result.stderr, "no pools in this process|ptrace")


class Metrics(Live):
    def test_format(self):
        self.check_metrics(self.stat(self.start(self.program("known_blocks"), "quiet"), "--prometheus").stdout)

    def test_exit_report(self):
        result = self.run_preloaded("where", STATS="exit", STATS_FORMAT="prometheus")
        self.check_metrics(result.stderr)


class Errors(Live):
    def control_page(self, **changes):
        """This process shows a control page of the layout's first fields, at the start of a mapping on a 2 MiB boundary."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
        libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        at = libc.mmap(0x300000000000, 65536, 3, 0x100022, -1, 0)  # private, anonymous, fixed without replacing
        self.assertEqual(at, 0x300000000000)
        self.addCleanup(libc.munmap, at, 65536)
        version, layout = changes.get("version", b"0.1.0"), changes.get("layout", LAYOUT)
        pointers = changes.get("pointers", [0] * 12)
        page = struct.pack("16s16sII12Q", b"poolmalloc-live", version, layout, os.getpid(), *pointers)
        ctypes.memmove(at, page, len(page))
        return os.getpid()

    def test_wrong_usage(self):
        for arguments in ((), ("nonsense",), ("0",), ("-1",), ("1", "--fly"), ("1", "--watch"), ("1", "--watch", "soon"),
                          ("1", "--watch", "0"), ("99999999999999999999",)):
            result = self.run_command([built.tool, "stat", *arguments])
            self.assertEqual((result.returncode, result.stdout), (2, ""), arguments)
            self.assertNotEqual(result.stderr, "")

    def test_no_such_process(self):
        self.assert_one_line(self.stat(4194000), "4194000", "no such process", status=1)

    def test_a_process_without_poolmalloc(self):
        self.assert_one_line(self.stat(os.getpid()), str(os.getpid()), "without poolmalloc", status=1)

    def test_a_zombie(self):
        process = subprocess.Popen(["true"])
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        self.assert_one_line(self.stat(process), "no memory", status=1)
        process.wait()

    def test_disabled(self):
        process = self.start("sh", "-c", "echo; read line; :", DISABLE=1)
        self.assert_one_line(self.stat(process), "without poolmalloc", status=1)

    def test_no_permission(self):
        process = self.start(self.program("known_blocks"), "quiet")
        if os.getuid() != 0:
            self.skipTest("only root can try as somebody else")
        command = ["setpriv", "--reuid", "65534", "--clear-groups", built.tool, "stat", str(process.pid)]
        if self.run_command(["setpriv", "--reuid", "65534", "--clear-groups", built.tool, "--version"]).returncode != 0:
            self.skipTest("nobody else can run the tool where it lies")
        self.assert_one_line(self.run_command(command), "no permission", status=1)

    def test_another_version(self):
        result = self.stat(self.control_page(version=b"9.9.9"))
        self.assert_one_line(result, "9.9.9", "0.1.0", status=1)

    def test_another_layout(self):
        self.assert_one_line(self.stat(self.control_page(layout=77)), "layout 77", status=1)

    def test_not_started(self):
        self.assert_one_line(self.stat(self.control_page()), "no pools", status=1)

    def test_nonsense_is_survived(self):
        """Pointers into nowhere, and into memory that holds anything: one line, no crash."""
        self.assert_one_line(self.stat(self.control_page(pointers=[0x1000] * 12)), "being read", status=1)


class Iovec(ctypes.Structure):
    _fields_ = [("at", ctypes.c_void_p), ("bytes", ctypes.c_size_t)]


class Corrupt(Live):
    """A process whose bookkeeping is overwritten: stat ends by itself, with a report or a line."""

    def copy(self, write, pid, at, data):
        """Bytes to or from another process."""
        libc = ctypes.CDLL(None, use_errno=True)
        call = libc.process_vm_writev if write else libc.process_vm_readv
        call.argtypes = [ctypes.c_int, ctypes.POINTER(Iovec), ctypes.c_ulong, ctypes.POINTER(Iovec), ctypes.c_ulong, ctypes.c_ulong]
        local, remote = Iovec(ctypes.addressof(data), len(data)), Iovec(at, len(data))
        if call(pid, local, 1, remote, 1, 0) != len(data):
            self.fail("%#x cannot be reached in the process" % at)
        return bytes(data)

    def read(self, pid, at, count):
        return self.copy(False, pid, at, ctypes.create_string_buffer(count))

    def control_page(self, pid):
        with open("/proc/%d/maps" % pid, encoding="ascii") as file:
            starts = [int(line.split("-")[0], 16) for line in file if " rw-p " in line]
        for start in starts:
            page = self.read(pid, start, 40 + 12 * 8) if start % 2 ** 21 == 0 else b""
            if page.startswith(b"poolmalloc-live"):
                return start, struct.unpack("12Q", page[40:])
        self.fail("no control page")

    def test_any_word(self):
        process = self.start(self.program("known_blocks"), "quiet", CHECK=0)
        start, pointers = self.control_page(process.pid)
        region, registry, depot, pools = (pointers[i] for i in (0, 11, 4, 6))
        heaps, slabs = (struct.unpack("Q", self.read(process.pid, at, 8))[0] for at in (registry + 8, region + 16))
        places = [(region, 176), (registry, 64), (depot, 200), (pools, 64), (heaps, 3800), (heaps + 36864, 3800),
                  (start + 40, 96), (slabs, 4096), (pointers[1], 2560)]
        random.seed(6)
        for _ in range(ROUNDS):
            place, span = random.choice(places)
            at = place + random.randrange(span // 8) * 8
            before = self.read(process.pid, at, 8)
            word = random.choice([random.getrandbits(64), random.getrandbits(17), 2 ** 64 - 1, 0, start, heaps, heaps + 8])
            self.copy(True, process.pid, at, ctypes.create_string_buffer(struct.pack("Q", word), 8))
            result = self.stat(process, random.choice(["--json", "--prometheus"]))
            self.copy(True, process.pid, at, ctypes.create_string_buffer(before, 8))
            self.assertIn(result.returncode, (0, 1), "%#x at %#x" % (word, at))
            self.assertEqual(result.stderr.count("\n"), result.returncode, result.stderr)
        self.assertEqual(self.used(self.document(process)), KNOWN)


if __name__ == "__main__":
    harness.main()
