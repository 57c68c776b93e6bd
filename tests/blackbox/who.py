"""`poolmalloc who` and `leaks`: shares that are known, whatever ends the program; every format; what goes wrong is one line."""
import gzip
import json
import os
import platform
import re
import shutil
import signal
import struct
import subprocess
import time
import unittest
import xml.etree.ElementTree

import harness
from harness import Case, built

ATTACHES = int(os.environ.get("WHO_ATTACHES", 1000))
SERVER_MIB = int(os.environ.get("WHO_SERVER_MIB", 100))
GROWTH_SECONDS = int(os.environ.get("WHO_GROWTH_SECONDS", 6))
SHARES = {"site_sixty": 60, "site_thirty": 30, "site_ten": 10}
SVG = "{http://www.w3.org/2000/svg}"

ASKED = 136  # where the control page says what may be written: see src/insight/stats.c


class Who(Case):
    def setUp(self):
        super().setUp()
        if "left out of this build" in self.run_command([built.tool, "who"]).stderr:
            self.skipTest("built without libdw, protobuf-c or zlib")
        self.sites = self.program("who_sites")

    def tool(self, *arguments, **options):
        options.setdefault("env", harness.clean_environment())
        return self.run_command([built.tool, *map(str, arguments)], **options)

    def start(self, *command, **settings):
        """A program that prints a line when it is ready, and ends when its stdin does."""
        environment = harness.clean_environment(LD_PRELOAD=built.interposer)
        environment.update({"POOLMALLOC_" + name: str(value) for name, value in settings.items()})
        process = subprocess.Popen(list(map(str, command)), env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        self.addCleanup(self.finish, process)
        process.stdout.readline()
        return process

    def finish(self, process):
        process.stdin.close()
        process.wait(harness.PATIENCE)
        process.stdout.close()
        process.stderr.close()

    def control(self, pid):
        """Address of the control page."""
        with open("/proc/%d/maps" % pid) as maps, open("/proc/%d/mem" % pid, "rb") as memory:
            for line in maps:
                start = int(line.split("-")[0], 16)
                if start % (1 << 21) == 0 and " rw-p " in line:
                    memory.seek(start)
                    if memory.read(16) == b"poolmalloc-live\0":
                        return start
        self.fail("no control page")

    def word(self, pid, address):
        with open("/proc/%d/mem" % pid, "rb") as memory:
            memory.seek(address)
            return struct.unpack("Q", memory.read(8))[0]

    def asked(self, pid):
        return self.word(pid, self.word(pid, self.control(pid) + ASKED))

    def wait_watched(self, pid):
        """Until a tool has asked."""
        self.assertTrue(harness.eventually(lambda: self.asked(pid) != 0))

    def shares(self, document):
        """Percent of each innermost function."""
        found = {}
        for stack in document["stacks"]:
            leaf = stack["frames"][-1]
            found[leaf] = found.get(leaf, 0) + 100 * stack["bytes"] / document["bytes"]
        return found

    def assert_shares(self, document, within=2.0):
        found = self.shares(document)
        for name, share in SHARES.items():
            self.assertAlmostEqual(found.get(name, 0), share, delta=within, msg=str(found))


class Command(Who):
    def document(self, *arguments, status=0):
        result = self.tool(*arguments)
        self.assertEqual(result.returncode, status, result.stderr)
        return json.loads(result.stdout)

    def test_three_sites_from_the_start(self):
        document = self.document("who", "--json", "--", self.sites, "fill", 200)
        self.assert_shares(document)
        self.assertAlmostEqual(document["bytes"] / 2**20, 200, delta=8)
        self.assertEqual((document["cut_stacks"], document["torn_samples"]), (0, 0))
        self.assertEqual({stack["frames"][-3] for stack in document["stacks"] if stack["frames"][-1] in SHARES}, {"main"})

    def test_one_site_after_the_other(self):
        self.assert_shares(self.document("who", "--json", "--", self.sites, "runs", 200))

    def test_one_percent_of_a_gigabyte(self):
        document = self.document("who", "--json", "--by", "size", "--", self.sites, "runs", 1000)
        self.assertAlmostEqual(self.shares(document)["site_ten"], 10, delta=4)
        self.assertEqual({stack["frames"][0] for stack in document["stacks"] if stack["frames"][-1] in SHARES}, {"64 bytes"})

    def test_ends_by_signal_and_by_exit(self):
        self.assert_shares(self.document("who", "--json", "--", self.sites, "signal", 100, status=128 + signal.SIGKILL), 4)
        self.assert_shares(self.document("who", "--json", "--", self.sites, "_exit", 100, status=5), 4)

    def test_peak(self):
        self.assertGreater(self.shares(self.document("who", "--json", "--at-peak", "--", self.sites, "peak", 100))["site_sixty"], 90)
        self.assertGreater(self.shares(self.document("who", "--json", "--", self.sites, "peak", 100))["site_thirty"], 90)

    def test_another_program_in_the_same_process(self):
        self.assert_shares(self.document("who", "--json", "--", "sh", "-c", 'exec "$0" fill 100', self.sites), 4)

    def test_its_output_goes_to_stderr(self):
        result = self.tool("who", "--json", "--", "sh", "-c", "echo said; exit 4")
        self.assertEqual((result.returncode, json.loads(result.stdout)["command"]), (4, "sh"))
        self.assertIn("said\n", result.stderr)

    def test_by_thread(self):
        threads = {}
        document = self.document("who", "--json", "--by", "thread", "--", self.sites, "threads", 30)
        for stack in document["stacks"]:
            threads[stack["frames"][0]] = threads.get(stack["frames"][0], 0) + stack["bytes"] / 2**20
        held = {name: size for name, size in threads.items() if size > 1}
        missed = document["missed_bytes"] / 2**20  # what another thread, not running, was in the way of
        self.assertLessEqual(len(held), 3, threads)
        self.assertGreaterEqual(len(held), 3 - missed / 8, threads)
        for name, size in held.items():
            self.assertRegex(name, r"^thread \d+")
            self.assertAlmostEqual(size, 10, delta=2 + missed)

    def test_deeper_than_the_copy(self):
        """What is known of a stack that is cut off is shown, and that it is."""
        document = self.document("who", "--json", "--", self.sites, "deep", 10)
        deep = [stack for stack in document["stacks"] if stack["frames"][-2:] == ["descend", "site_deep"]]
        self.assertGreater(sum(stack["bytes"] for stack in deep), 0.9 * document["bytes"])
        for stack in deep:
            self.assertEqual(stack["frames"][0], "[stack cut off]")
            self.assertEqual(set(stack["frames"][1:-1]), {"descend"})
            self.assertGreater(len(stack["frames"]), 20)
        self.assertGreater(document["cut_stacks"], 0.9 * document["samples"])
        result = self.tool("who", "--", self.sites, "deep", 10)
        self.assertEqual(len(re.findall(r"^note: \d+ of \d+ stacks are cut off: deeper than the copy", result.stdout, re.M)), 1, result.stdout)
        self.assertIn("site_deep", result.stdout)

    @unittest.skipUnless(platform.machine() == "x86_64", "machine code of x86-64")
    def test_code_made_at_run_time(self):
        """Has one name, wherever it lies and however many calls there are in a row."""
        document = self.document("who", "--json", "--", self.sites, "made", 20)
        self.assertEqual([stack["frames"][-3:] for stack in document["stacks"] if stack["frames"][-1] == "site_sixty"],
                         [["made", "[jit]", "site_sixty"]])
        self.assertGreater(self.shares(document)["site_sixty"], 99)

    def test_no_command(self):
        self.assertEqual(self.tool("who", "--", "/nonexistent").returncode, 127)

    def test_leaks(self):
        document = self.document("leaks", "--json", "--", self.sites, "leak", status=3)
        leaves = {stack["frames"][-1]: stack for stack in document["stacks"]}
        self.assertEqual(set(leaves), {"leak_small", "leak_large"})
        self.assertEqual((leaves["leak_large"]["bytes"], leaves["leak_large"]["blocks"]), (300000, 1))
        self.assertAlmostEqual(leaves["leak_small"]["bytes"], 100000, delta=20000)
        self.assertEqual(self.tool("leaks", "--status", 9, "--", self.sites, "leak").returncode, 9)

    def test_no_leak(self):
        result = self.tool("leaks", "--status", 9, "--", self.sites, "fill", 10)
        self.assertEqual(result.returncode, 0)
        self.assertIn("no sample", result.stdout)


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at


def message(data):
    """A reader of protobuf's wire format: field number to values; lists of numbers come packed or not."""
    fields, at = {}, 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        else:
            assert key & 7 == 2, key
            length, at = varint(data, at)
            value, at = data[at:at + length], at + length
        fields.setdefault(key >> 3, []).append(value)
    return fields


def numbers(values):
    found = []
    for value in values:
        at = 0
        while isinstance(value, bytes) and at < len(value):
            n, at = varint(value, at)
            found.append(n)
        if not isinstance(value, bytes):
            found.append(value)
    return found


class Formats(Who):
    def setUp(self):
        super().setUp()
        self.svg, self.pprof = self.path("flame.svg"), self.path("who.pb.gz")
        self.result = self.tool("who", "--folded", "--flame", self.svg, "--pprof", self.pprof, "--", self.sites, "fill", 50)
        self.assertEqual(self.result.returncode, 0, self.result.stderr)
        self.folded = {}
        for line in self.result.stdout.splitlines():
            stack, size = line.rsplit(" ", 1)
            self.folded[tuple(stack.split(";"))] = int(size)

    def test_folded(self):
        total = sum(self.folded.values())
        self.assertAlmostEqual(total / 2**20, 50, delta=5)
        for name, share in SHARES.items():
            self.assertAlmostEqual(sum(size for stack, size in self.folded.items() if stack[-1] == name) / total * 100, share, delta=5)

    def test_flame_graph(self):
        root = xml.etree.ElementTree.parse(self.svg).getroot()
        boxes = {box.get("data-n"): box for box in root.iter(SVG + "g") if box.get("data-n")}
        whole = float(boxes["all"].get("data-w"))
        for name, share in SHARES.items():
            self.assertAlmostEqual(float(boxes[name].get("data-w")) / whole * 100, share, delta=5)
            self.assertIn(name, boxes[name].find(SVG + "title").text)
            self.assertLess(float(boxes[name].find(SVG + "rect").get("y")), float(boxes["main"].find(SVG + "rect").get("y")))
        words = " ".join(text.text or "" for text in root.iter(SVG + "text"))
        self.assertIn("who_sites", words)
        self.assertIn("held at the end", words)

    def test_pprof(self):
        with gzip.open(self.pprof) as file:
            profile = message(file.read())
        strings = [value.decode() for value in profile[6]]
        types = [message(value) for value in profile[1]]
        self.assertEqual(strings[0], "")
        self.assertEqual([(strings[t[1][0]], strings[t[2][0]]) for t in types], [("inuse_objects", "count"), ("inuse_space", "bytes")])
        functions = {f[1][0]: strings[f[2][0]] for f in map(message, profile[5])}
        locations = {l[1][0]: functions[message(l[4][0])[1][0]] for l in map(message, profile[4])}
        read = {}
        for sample in map(message, profile[2]):
            stack = tuple(locations[n] for n in reversed(numbers(sample[1])))
            read[stack] = numbers(sample[2])[1]
        self.assertEqual(read, self.folded)


class Attached(Who):
    def look(self, process, *arguments, go=False):
        """Asks, lets the program go on until it says so, and gives the document."""
        command = [built.tool, "who", str(process.pid), "--json", *(["--seconds", "90"] if go else []), *map(str, arguments)]
        tool = subprocess.Popen(command, env=harness.clean_environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.wait_watched(process.pid)
        if go:
            process.stdin.write("\n")
            process.stdin.flush()
            self.assertEqual(process.stdout.readline(), "done\n")
            tool.send_signal(signal.SIGINT)
        out, err = tool.communicate(timeout=harness.PATIENCE)
        self.assertEqual(tool.returncode, 0, err)
        return json.loads(out)

    def test_three_sites_since_we_looked(self):
        process = self.start(self.sites, "wait", 200)
        document = self.look(process, go=True)
        self.assert_shares(document)
        self.assertAlmostEqual(document["bytes"] / 2**20, 200, delta=10)
        process.stdin.write("end\n")

    def test_a_leak_under_a_busy_server(self):
        """1 MB a second is first, whatever the server holds, after two thirds of the time that it was looked at."""
        process = self.start(self.sites, "server", SERVER_MIB, 2 * GROWTH_SECONDS)
        document = self.look(process, "--growth", GROWTH_SECONDS)
        stacks = sorted(document["stacks"], key=lambda stack: -stack["bytes"])
        self.assertEqual(stacks[0]["frames"][-1], "leak_one")
        leaked = 1e6 * GROWTH_SECONDS * 2 / 3
        self.assertAlmostEqual(stacks[0]["bytes"], leaked, delta=0.6 * leaked)

    def test_from_the_start_by_setting(self):
        process = self.start(self.sites, "wait", 50, WHO="64K")
        process.stdin.write("go\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.readline(), "done\n")
        document = self.look(process, "--seconds", 0.1)
        self.assert_shares(document, 8)
        self.assertEqual(document["what"], "allocated since it began to sample, and held")
        process.stdin.close()
        self.assertEqual((process.wait(harness.PATIENCE), process.stderr.read()), (0, ""))

    def test_interpreter(self):
        python = shutil.which("python3")
        process = self.start(python, "-c", "print('ready', flush=True); input(); x = [bytes(1000 + i) for i in range(50000)]; "
                             "print('done', flush=True); input()", WHO="off")
        document = self.look(process, go=True)
        self.assertGreater(document["bytes"], 30e6)
        self.assertLess(document["cut_stacks"], document["samples"] / 10)
        process.stdin.write("\n")

    def compile(self, *options):
        source, program = self.path("deep.cc"), self.path("deep")
        with open(source, "w") as file:
            file.write("""#include <cstdio>
#include <string>
#include <vector>
namespace shop { template <class T> struct basket { std::vector<T> all;
  __attribute__((noinline)) void fill(int n) { for (int i = 0; i < n; i++) all.emplace_back(500, 'x'); } }; }
int main() { shop::basket<std::string> b; puts("ready"); fflush(stdout); getchar(); b.fill(60000); puts("done"); fflush(stdout);
  getchar(); return b.all.size() != 60000; }
""")
        compiler = shutil.which("g++") or self.skipTest("no g++")
        self.assert_silent(self.run_command([compiler, "-O2", "-fomit-frame-pointer", "-o", program, source, *options]))
        return program

    def test_cpp_without_frame_pointers(self):
        process = self.start(self.compile("-g"))
        document = self.look(process, go=True)
        held = sum(s["bytes"] for s in document["stacks"] if "shop::basket<" in " ".join(s["frames"]) and "main" in s["frames"])
        self.assertGreater(held, 0.9 * document["bytes"], document["stacks"][:3])
        self.assertGreater(document["bytes"], 28e6)
        process.stdin.write("\n")

    def test_stripped(self):
        process = self.start(self.compile("-s"))
        document = self.look(process, go=True)
        stacks = [s for s in document["stacks"] if any(re.match(r"deep\+0x[0-9a-f]+$", frame) for frame in s["frames"])]
        self.assertGreater(sum(s["bytes"] for s in stacks), 0.9 * document["bytes"])
        self.assertEqual(document["cut_stacks"], 0)
        process.stdin.write("\n")

    def test_ends_meanwhile(self):
        process = self.start(self.sites, "wait", 20)
        command = [built.tool, "who", str(process.pid), "--seconds", "60"]
        tool = subprocess.Popen(command, env=harness.clean_environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.wait_watched(process.pid)
        process.stdin.write("go\n")
        process.stdin.flush()
        process.stdout.readline()
        time.sleep(1)
        process.kill()
        out, err = tool.communicate(timeout=harness.PATIENCE)
        self.assertEqual((tool.returncode, err), (0, ""))
        self.assertIn("the process ended meanwhile", out)
        self.assertIn("site_sixty", out)

    def test_stops_by_itself(self):
        """A tool that is killed lets go: the process no longer samples a few seconds later."""
        process = self.start(self.sites, "busy")
        tool = subprocess.Popen([built.tool, "who", str(process.pid), "--seconds", "60", "--rate", "1K"], stdout=subprocess.DEVNULL,
                                env=harness.clean_environment())
        self.wait_watched(process.pid)
        tool.kill()
        tool.wait()
        self.assertTrue(harness.eventually(lambda: self.asked(process.pid) == 0))

    def test_attach_and_let_go_again_and_again(self):
        process = self.start(self.sites, "busy")
        result = self.run_command([self.program("who_attaches"), str(process.pid), str(ATTACHES)])
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stdout, r"^\d+ samples, 0 torn\n$")
        process.stdin.close()
        self.assertEqual((process.wait(harness.PATIENCE), process.stderr.read()), (0, ""))

    def test_damaged(self):
        process = self.start(self.sites, "wait", 20, WHO="64K")
        process.stdin.write("go\n")
        process.stdin.flush()
        process.stdout.readline()
        table = self.word(process.pid, self.word(process.pid, self.control(process.pid) + ASKED + 8))
        with open("/proc/%d/mem" % process.pid, "r+b", buffering=0) as memory:
            memory.seek(table + 4096)
            places = memory.read(1 << 18)
            noise = bytearray(places)
            for i in range(0, len(noise), 64):
                noise[i:i + 8] = os.urandom(8)
            memory.seek(table + 4096)
            memory.write(noise)
            result = self.tool("who", process.pid, "--seconds", "0.1")
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn("made no sense", result.stdout)
            memory.seek(table)
            memory.write(os.urandom(64))
        self.assert_one_line(self.tool("who", process.pid, "--seconds", "0.1"), "make no sense", status=1)
        process.kill()

    def test_other_version(self):
        process = self.start(self.sites, "wait", 1)
        with open("/proc/%d/mem" % process.pid, "r+b", buffering=0) as memory:
            memory.seek(self.control(process.pid) + 32)
            memory.write(struct.pack("I", 9999))
        self.assert_one_line(self.tool("who", process.pid), "layout 9999", status=1)

    def test_from_inside(self):
        python = shutil.which("python3")
        code = ("import ctypes, sys; pm = ctypes.CDLL(None); assert pm.pm_who_start(ctypes.c_size_t(4096)) == 0; "
                "x = [bytes(2000) for i in range(1000)]; print('ready', flush=True); input(); pm.pm_who_stop(); y = bytearray(200); "
                "print('off', flush=True); input()")
        process = self.start(python, "-c", code)
        document = self.look(process, "--seconds", 0.2)
        self.assertGreater(document["bytes"], 1.5e6)
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        self.assertEqual(self.asked(process.pid), 0)
        process.stdin.write("\n")


class LeftOut(Case):
    """The tool of a build without elfutils."""

    def test_one_line(self):
        bare = os.path.join(os.path.dirname(built.tool), "poolmalloc-bare")
        if not os.path.exists(bare):
            self.skipTest("not built")
        for command in ("who", "leaks"):
            self.assert_one_line(self.run_command([bare, command, "1"]), command + ": left out of this build: it was made without libdw", status=1)
        self.assertEqual(self.run_command([bare, "help"]).returncode, 0)


class Wrong(Who):
    def test_arguments(self):
        for arguments in (["who"], ["who", "1", "2"], ["who", "1", "--seconds", "no"], ["who", "1", "--rate", "9"],
                          ["who", "1", "--by", "name"], ["who", "1", "--json", "--folded"], ["who", "1", "--at-peak"], ["who", "1", "--", "true"],
                          ["who", "--growth", "--", "true"], ["leaks"], ["leaks", "1"], ["leaks", "--status", "0", "--", "true"],
                          ["who", "--nonsense"]):
            result = self.tool(*arguments)
            self.assertEqual((result.returncode, result.stdout), (2, ""), arguments)
            self.assertEqual(result.stderr.count("\n"), 2, result.stderr)

    def test_processes(self):
        plain = subprocess.Popen(["sleep", "60"], env=harness.clean_environment())
        self.addCleanup(plain.wait)
        self.addCleanup(plain.kill)
        time.sleep(0.2)
        self.assert_one_line(self.tool("who", plain.pid), "runs without poolmalloc", status=1)
        self.assert_one_line(self.tool("who", 2**22 + 1), "no such process", status=1)

    @unittest.skipUnless(os.getuid() == 0 and shutil.which("setpriv"), "to be another user takes root")
    def test_permission(self):
        process = self.start(self.sites, "wait", 1)
        tool = self.path("poolmalloc")
        os.chmod(self.scratch, 0o755)
        shutil.copy(built.tool, tool)
        result = self.run_command(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", tool, "who", str(process.pid)])
        self.assert_one_line(result, "no permission", status=1)

    def test_files(self):
        result = self.tool("who", "--flame", "/nonexistent/x.svg", "--", self.sites, "fill", 2)
        self.assert_one_line(result, "/nonexistent/x.svg", status=1)

    def test_setting(self):
        self.assert_one_line(self.run_preloaded("who_sites", "fill", 1, WHO="12"), "POOLMALLOC_WHO", "'12'")


if __name__ == "__main__":
    harness.main()
