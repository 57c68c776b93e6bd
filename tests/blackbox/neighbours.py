"""Beside others: stacked with another allocator in both orders, under a sanitizer, in a privileged program, and as the
hardened library."""
import os
import shutil
import signal

import harness
from harness import Case, built

NOBODY = 65534


def find_library(name):
    for directory in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"):
        if os.path.exists(os.path.join(directory, name)):
            return os.path.join(directory, name)
    raise AssertionError(name + " is not installed")


class Stacked(Case):
    def setUp(self):
        super().setUp()
        jemalloc = find_library("libjemalloc.so.2")
        self.orders = {"in front": built.interposer + " " + jemalloc, "behind": jemalloc + ":" + built.interposer}

    def test_large_sizes_go_to_the_next_allocator(self):
        """jemalloc's own counter of this thread tells what reached it."""
        result = self.run_preloaded("stacked", preload=self.orders["in front"])
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        small, large = map(int, result.stdout.split())
        self.assertLess(small, 100000, "small blocks reached the next allocator")
        self.assertGreaterEqual(large, 100 * 100000, "large blocks did not reach it")

    def test_behind_another_allocator_we_are_idle(self):
        result = self.run_preloaded("stacked", preload=self.orders["behind"])
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertGreater(int(result.stdout.split()[0]), 1000000)

    def test_the_next_allocator_is_named(self):
        _, report = self.run_with_statistics("where", preload=self.orders["in front"])
        self.assertIn("jemalloc", report["next"])

    def test_programs_run_in_both_orders(self):
        for order, preload in self.orders.items():
            for program, *arguments in (("libc_callers",), ("thread_storm", 3000), ("exit_running", 0), ("operators",), ("fork_storm", 10)):
                if order == "behind" and program == "operators":
                    continue  # that is the other allocator's business, and it fails there
                with self.subTest(order=order, program=program):
                    self.assert_silent(self.run_preloaded(program, *arguments, preload=preload))
        self.assert_silent(self.run_preloaded("model", 2000000, 4, preload=self.orders["in front"]))


class Sanitizer(Case):
    FOUND = {"address": ("use", "heap-use-after-free"), "thread": ("use", "heap-use-after-free"), "leak": ("lose", "detected memory leaks")}

    def assert_found(self, probe, error, text, environment):
        good = self.run_command([probe, "fine"], env=environment)
        self.assertEqual((good.returncode, good.stdout), (0, "alive\n"), good.stderr)
        bad = self.run_command([probe, error], env=environment)
        self.assertIn(text, bad.stderr)
        self.assertNotEqual(bad.returncode, 0)

    def test_the_sanitizer_keeps_every_block(self):
        """A program finds its error with us preloaded in front of its sanitizer's runtime."""
        environment = harness.clean_environment(ASAN_OPTIONS="verify_asan_link_order=0:detect_leaks=0")
        done = 0
        for sanitizer, (error, text) in self.FOUND.items():
            probe = self.program("victim_" + sanitizer)
            if not os.path.exists(probe) or self.run_command([probe, "fine"], env=environment).returncode:
                continue  # the compiler, or this kernel, cannot
            for preload in ("", built.interposer):
                with self.subTest(sanitizer=sanitizer, preload=preload):
                    self.assert_found(probe, error, text, environment | {"LD_PRELOAD": preload})
            done += 1
        if not done:
            self.skipTest("the compiler has no sanitizer")


class Privileged(Case):
    """A setuid program that is linked with us (LD_PRELOAD is not for such): the environment must not reach it."""

    def setUp(self):
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest("only root can make a setuid program")
        os.chmod(self.scratch, 0o755)
        self.interposer, self.probe = self.path("libpoolmalloc.so.0"), self.path("probe")
        shutil.copy(built.interposer, self.interposer)
        os.chmod(self.interposer, 0o755)
        os.mkdir(self.path("out"))
        os.chmod(self.path("out"), 0o777)
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "where.c")
        made = self.run_command([built.cc, "-O1", "-fno-builtin", source, "-o", self.probe, "-Wl,--no-as-needed", self.interposer,
                                 "-Wl,-rpath," + self.scratch])
        self.assertEqual(made.returncode, 0, made.stderr)

    def as_nobody(self, **settings):
        environment = harness.clean_environment(**{"POOLMALLOC_" + name: value for name, value in settings.items()})
        return self.run_command([self.probe], env=environment, user=NOBODY, group=NOBODY, extra_groups=[])

    def reports(self):
        return os.listdir(self.path("out"))

    def test_the_environment_is_ignored_when_privileged(self):
        settings = {"STATS": "exit", "STATS_FILE": self.path("out/report"), "VERBOSE": "1", "LIMIT": "abc"}
        plain = self.as_nobody(**settings)
        self.assertEqual((plain.returncode, plain.stdout), (0, "0 pool\n"), plain.stderr)
        self.assertEqual(self.reports(), ["report"], "the control failed: no report without privilege")
        os.unlink(self.path("out/report"))
        os.chmod(self.probe, 0o4755)
        if os.statvfs(self.scratch).f_flag & os.ST_NOSUID:
            self.skipTest("the scratch directory is mounted nosuid")
        secure = self.as_nobody(**settings)
        self.assertEqual((secure.returncode, secure.stdout, secure.stderr), (0, "1 pool\n", ""))
        self.assertEqual(self.reports(), [])
        self.assertEqual(self.as_nobody(DISABLE="1").stdout, "1 pool\n")


class Misuse(Case):
    def test_a_block_freed_after_its_slab_was_given_back(self):
        for preload, settings in ((built.interposer, {}), (built.interposer, {"CHECK": 1}), (built.hardened, {})):
            result = self.run_preloaded("double_free", preload=preload, **settings)
            self.assertEqual(result.returncode, -signal.SIGABRT)
            self.assertRegex(result.stderr, r"^poolmalloc: free\(0x[0-9a-f]+\): double free")

    def test_a_large_block_freed_twice(self):
        for size in (34000, 200000, 4000000):
            for how, then, told in (("here", "exit", "double free"), ("thread", "exit", "double free"), ("realloc", "exit", "double free"),
                                    *(("written", then, "freed twice, or written to after") for then in ("malloc", "fork", "trim"))):
                result = self.run_preloaded("double_free_large", str(size), how, then)
                self.assertEqual(result.returncode, -signal.SIGABRT, (size, how, then))
                self.assertRegex(result.stderr, r"^poolmalloc: free\(0x[0-9a-f]+\): " + told)

    def test_a_large_block_freed_twice_that_is_the_next_allocator_s(self):
        result = self.run_preloaded("double_free_large", "34000", "gone", "exit")
        self.assertEqual((result.returncode, result.stderr), (-signal.SIGABRT, "double free or corruption (top)\n"))


if __name__ == "__main__":
    harness.main()
