"""The environment: good values are silent and obeyed, bad ones get one line, and the program runs on."""
import os

import harness
from harness import Case, built

# variable: (what is used instead, the values that must be refused, with the token that must be named)
MALFORMED = {
    "BLOCK_SIZES": ("auto", {"64,abc": "abc", "0": "0", "65537": "65537", "64,128K": "128K", "64:x": "x", "-5": "-5",
                                "64;128": "64;128", "16:10:20": "16:10:20", "1e3": "1e3", "64:-1": "-1"}),
    "PREFAULT": ("0", {"maybe": "maybe", "2": "2", "01x": "01x"}),
    "LOCK": ("0", {"maybe": "maybe", "-1": "-1"}),
    "LIMIT": ("none", {"abc": "abc", "12Q": "12Q", "-1": "-1", "99999999999999999999G": "99999999999999999999G", "1.5G": "1.5G",
                       "1GB ": "1GB "}),
    "OVERFLOW": ("forward", {"explode": "explode", "Fail!": "Fail!", "forward,fail": "forward,fail"}),
    "PURGE_DELAY": ("1000", {"soon": "soon", "-1": "-1", "10x": "10x", "99999999999999999999": "99999999999999999999"}),
    "HUGEPAGES": ("auto", {"sometimes": "sometimes", "1": "1"}),
    "STATS": ("off", {"exitt": "exitt", "exit,nope": "nope", "signal=SIGNOPE": "SIGNOPE"}),
    "STATS_FORMAT": ("text", {"xml": "xml", "json,text": "json,text"}),
    "CHECK": ("0", {"maybe": "maybe", "yes please": "yes please"}),
    "VERBOSE": ("0", {"maybe": "maybe"}),
    "DISABLE": ("0", {"maybe": "maybe"}),
    "PROGRAMS": ("all", {"": "", ",": ",", ",,": ",,", "/usr/bin/where": "/usr/bin/where", "where,./else": "where,./else"}),
}

WELL_FORMED = {
    "BLOCK_SIZES": ["auto", "default", "64", "1", "65536", "17,33,64:100,32:5", "64,64,64", "1K,2K,64K", "4096:10"],
    "PREFAULT": ["0", "1"],
    "LOCK": ["0"],
    "LIMIT": ["none", "64M", "1G", "8388608", "100000K"],
    "OVERFLOW": ["forward", "fail", "abort"],
    "PURGE_DELAY": ["0", "1", "1000", "never"],
    "HUGEPAGES": ["auto", "always", "never"],
    "STATS_FORMAT": ["text", "json", "prometheus"],
    "CHECK": ["0", "1"],
    "VERBOSE": ["0"],
    "DISABLE": ["0", "1"],
    "PROGRAMS": ["where", "somebody,else", "all"],
}


class Values(Case):
    def test_malformed(self):
        for name, (instead, values) in MALFORMED.items():
            for value, token in values.items():
                with self.subTest(variable=name, value=value):
                    result = self.run_preloaded("where", **{name: value})
                    self.assert_one_line(result, "POOLMALLOC_" + name, token)
                    line = result.stderr.replace("POOLMALLOC_" + name, "").replace(token, "", 1)
                    self.assertIn(instead, line, "the line does not tell what is used instead")
                    self.assertEqual(result.stdout, "0 pool\n")

    def test_well_formed_are_silent(self):
        for name, values in WELL_FORMED.items():
            for value in values:
                with self.subTest(variable=name, value=value):
                    self.assert_silent(self.run_preloaded("where", **{name: value}))

    def test_two_malformed_values_give_two_lines(self):
        result = self.run_preloaded("where", LIMIT="abc", HUGEPAGES="sometimes")
        self.assertEqual((result.returncode, result.stderr.count("\n")), (0, 2), result.stderr)
        self.assertEqual([name in result.stderr for name in ("POOLMALLOC_LIMIT", "POOLMALLOC_HUGEPAGES")], [True, True])

    def test_silent_by_default(self):
        for program, *arguments in (("where",), ("take_blocks", 64, 100000, "free"), ("exit_running", 0)):
            self.assert_silent(self.run_preloaded(program, *arguments))

    def test_verbose_is_one_line(self):
        result = self.run_preloaded("where", VERBOSE=1)
        self.assert_one_line(result, "libc.so.6")

    def test_very_long_values(self):
        result = self.run_preloaded("where", BLOCK_SIZES=",".join(["64"] * 20000) + ",x")
        self.assertEqual((result.returncode, result.stdout), (0, "0 pool\n"))
        self.assertLess(len(result.stderr), 2000)
        self.assertEqual(self.run_preloaded("where", LIMIT="9" * 100000).returncode, 0)
        self.assertEqual(self.run_preloaded("where", STATS="exit", STATS_FILE="/" + "n" * 100000).returncode, 0)

    def test_the_environment_is_read_once(self):
        """A program that overwrites, clears and changes its environment changes nothing of ours."""
        result = self.run_preloaded("late_settings", self.path("moved"), STATS="exit", STATS_FILE=self.path("first"))
        self.assert_silent(result)
        self.assertTrue(os.path.getsize(self.path("first")) > 0)
        self.assertFalse(os.path.exists(self.path("moved")))


class Effects(Case):
    def server(self, **settings):
        result = self.run_preloaded("where", **settings)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout.split()[1]

    def test_disable_forwards_everything(self):
        self.assertEqual(self.server(), "pool")
        self.assertEqual(self.server(DISABLE=1), "next")

    def test_programs_names_where_pools_are_wanted(self):
        self.assertEqual(self.server(PROGRAMS="where"), "pool")
        self.assertEqual(self.server(PROGRAMS="nothing,where,else"), "pool")
        self.assertEqual(self.server(PROGRAMS="wher,wheres"), "next")

    def test_lazy_and_eager_binding(self):
        for binding in ({"LD_BIND_NOW": "1"}, {"LD_BIND_NOT": "1"}, {"GLIBC_TUNABLES": "glibc.malloc.check=0"}):
            environment = harness.clean_environment(LD_PRELOAD=built.interposer, **binding)
            result = self.run_command([self.program("where")], env=environment)
            self.assertEqual((result.returncode, result.stdout), (0, "0 pool\n"), result.stderr)

    def test_an_audit_library_does_no_harm(self):
        environment = harness.clean_environment(LD_PRELOAD=built.interposer, LD_AUDIT=self.program("libaudit_probe.so"))
        result = self.run_command([self.program("where")], env=environment)
        self.assertEqual((result.returncode, result.stdout), (0, "0 pool\n"), result.stderr)

    def test_block_sizes_are_the_table(self):
        _, report = self.run_with_statistics("take_blocks", 100, 10, BLOCK_SIZES="33,200,64,64,100")
        sizes = [pool["block_size"] for pool in report["pools"]]
        self.assertEqual(sizes, [48, 64, 112, 208])

    def test_requests_beyond_the_largest_block_size_are_forwarded(self):
        _, report = self.run_with_statistics("take_blocks", 300, 1000, BLOCK_SIZES="64,128", OVERFLOW="fail")
        self.assertEqual(sum(pool["used"] for pool in report["pools"] if pool["block_size"] > 128), 0)
        self.assertGreaterEqual(report["totals"]["forwarded_calls"], 1000)

    def test_the_hardened_library_adds_the_usual_sizes_beyond_the_largest(self):
        """What no pool serves costs it system calls."""
        _, report = self.run_with_statistics("take_blocks", 300, 1000, preload=built.hardened, BLOCK_SIZES="16,100")
        sizes = [pool["block_size"] for pool in report["pools"]]
        self.assertEqual(sizes[:4], [16, 112, 128, 160])
        self.assertEqual(sizes[-1], 63488)
        self.assertGreaterEqual(sum(pool["used"] for pool in report["pools"] if pool["block_size"] == 320), 1000)

    def test_prefault_leaves_no_page_faults(self):
        """The same work with and without: thousands of faults, or next to none."""
        def faults(count, **settings):
            result = self.run_preloaded("take_blocks", 64, count, BLOCK_SIZES="64:100000", HUGEPAGES="never", **settings)
            self.assert_silent(result)
            return int(result.stdout.split("faults=")[1].split()[0])

        self.assertGreater(faults(90000), 1000)
        without_blocks = faults(0, PREFAULT=1)  # of the program's own; one more was seen now and then
        self.assertLessEqual(faults(90000, PREFAULT=1), without_blocks + 8)

    def test_lock_locks_what_is_pre_allocated(self):
        result = self.run_preloaded("take_blocks", 1024, 10, BLOCK_SIZES="1024:2000", LOCK=1)
        self.assert_silent(result)
        self.assertGreaterEqual(int(result.stdout.split("locked=")[1]), 2000)

    def test_a_lock_that_fails_is_one_line(self):
        """4 MiB to lock where 64 KiB may be: said once, and the program runs."""
        shell = 'ulimit -l 64; exec "$@"'
        command = ["setpriv", "--reuid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]
        if os.geteuid() != 0:
            command = []
        environment = harness.clean_environment(LD_PRELOAD=built.interposer, POOLMALLOC_BLOCK_SIZES="1024:4096", POOLMALLOC_LOCK=1,
                                                POOLMALLOC_PROGRAMS="take_blocks")
        readable = self.path("take_blocks")
        with open(self.program("take_blocks"), "rb") as source, open(readable, "wb") as copy:
            copy.write(source.read())
        os.chmod(readable, 0o755)
        library = self.path("library.so")
        with open(built.interposer, "rb") as source, open(library, "wb") as copy:
            copy.write(source.read())
        os.chmod(library, 0o755)
        os.chmod(self.scratch, 0o755)
        environment["LD_PRELOAD"] = library
        result = self.run_command(["sh", "-c", shell, "sh", *command, readable, "1024", "1000"], env=environment)
        self.assert_one_line(result, "POOLMALLOC_LOCK")
        self.assertIn("served=1000 ", result.stdout)

    def test_pre_allocation_is_there(self):
        _, report = self.run_with_statistics("where", BLOCK_SIZES="64:5000,1024:300")
        waiting = {pool["block_size"]: pool["capacity"] or pool.get("waiting_slabs", 0) for pool in report["pools"]}
        self.assertTrue(waiting[64] > 0 and waiting[1024] > 0, report["pools"])
        self.assertGreaterEqual(report["totals"]["committed_bytes"], 5000 * 64 + 300 * 1024)


class Limits(Case):
    """LIMIT with each OVERFLOW policy: 64 MiB of blocks where 16 MiB may be taken."""

    SIZE, COUNT, LIMIT = 64, 1 << 20, 16 << 20

    def take(self, *then, **settings):
        return self.run_preloaded("take_blocks", self.SIZE, self.COUNT, *then, LIMIT="16M", **settings)

    def served(self, result):
        return int(result.stdout.split("served=")[1].split()[0])

    def test_forward_goes_on(self):
        for settings in ({}, {"OVERFLOW": "forward"}, {"OVERFLOW": "forward", "CHECK": 1}):
            result = self.take("free", **settings)
            self.assert_silent(result)
            self.assertEqual(self.served(result), self.COUNT)

    def test_forward_is_counted_and_the_limit_holds(self):
        _, report = self.run_with_statistics("take_blocks", self.SIZE, self.COUNT, LIMIT="16M", OVERFLOW="forward")
        pool = [pool for pool in report["pools"] if pool["block_size"] == self.SIZE][0]
        self.assertLessEqual(pool["used"] * self.SIZE, self.LIMIT)
        self.assertGreater(pool["used"] * self.SIZE, self.LIMIT * 3 // 4)
        self.assertLessEqual(report["totals"]["resident_bytes"], self.LIMIT)
        self.assertGreaterEqual(report["totals"]["forwarded_calls"] + pool["used"], self.COUNT)

    def test_fail_is_null_and_enomem(self):
        result = self.take("free", OVERFLOW="fail")
        self.assert_silent(result)
        self.assertIn("errno=12 ", result.stdout)
        self.assertLessEqual(self.served(result) * self.SIZE, self.LIMIT)
        self.assertGreater(self.served(result) * self.SIZE, self.LIMIT * 3 // 4)

    def test_fail_concerns_pool_sizes_only(self):
        result = self.run_preloaded("take_blocks", 100000, 400, LIMIT="16M", OVERFLOW="fail")
        self.assert_silent(result)
        self.assertEqual(self.served(result), 400)

    def test_abort_has_a_message(self):
        result = self.take(OVERFLOW="abort")
        self.assert_one_line(result, "poolmalloc", status=-6)
        self.assertRegex(result.stderr, "(?i)limit")
        self.assertEqual(result.stdout, "")

    def test_a_limit_that_is_not_reached_changes_nothing(self):
        for policy in ("forward", "fail", "abort"):
            self.assert_silent(self.run_preloaded("take_blocks", 64, 10000, "thread-free", LIMIT="16M", OVERFLOW=policy))

    def test_memory_of_another_size_is_used_at_the_limit(self):
        """Nothing of what other threads freed may be out of reach."""
        for settings in ({}, {"CHECK": 1}):
            result = self.run_preloaded("limit_reuse", LIMIT="16M", OVERFLOW="fail", **settings)
            self.assert_silent(result)

    def test_a_small_limit_is_obeyed_with_one_line(self):
        result = self.run_preloaded("take_blocks", 64, 1 << 20, LIMIT="2M", OVERFLOW="fail")
        self.assert_one_line(result, "POOLMALLOC_LIMIT")
        self.assertLessEqual(self.served(result) * 64, 2 << 20)

    def test_counts_beyond_the_limit_are_cut_with_one_line(self):
        result = self.run_preloaded("where", LIMIT="16M", BLOCK_SIZES="1024:100000")
        self.assert_one_line(result, "POOLMALLOC_")
        self.assertEqual(result.stdout, "0 pool\n")

    def test_the_model_at_its_limit(self):
        self.assert_silent(self.run_preloaded("model", 1000000, 4, LIMIT="12M", OVERFLOW="forward"))


if __name__ == "__main__":
    harness.main()
