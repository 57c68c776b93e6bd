"""Block sizes that are learned: what they save, that they are shown, and that a program whose sizes change does not grow."""
import json
import re
import subprocess

import harness
from harness import Case, built


def fixed_sizes(text):
    return [int(size) for size in text.split(",")]


class Learned(Case):
    def resident(self, *arguments, preload=None, **settings):
        environment = harness.clean_environment(**({"LD_PRELOAD": preload} if preload else {}))
        environment.update({"POOLMALLOC_" + name: value for name, value in settings.items()})
        result = self.run_command([self.program("one_size"), *map(str, arguments)], env=environment)
        self.assert_silent(result)
        return int(result.stdout)

    def pools(self, *arguments, **settings):
        _, document = self.run_with_statistics("one_size", *arguments, **settings)
        return document["pools"]

    def learned(self, *arguments, **settings):
        return [pool["block_size"] for pool in self.pools(*arguments, **settings) if pool["learned"]]

    def test_one_size_costs_what_the_c_library_takes(self):
        for size in (4360, 2100, 1100, 970):
            ratio = self.resident(100, size, preload=built.interposer, HUGEPAGES="never") / self.resident(100, size)
            self.assertLessEqual(ratio, 1.03, size)

    def test_default_stays_fixed(self):
        self.assertEqual(self.learned(20, 4360, BLOCK_SIZES="default"), [])
        self.assertEqual(self.learned(20, 4360, BLOCK_SIZES="512,5120,8192"), [])
        self.assertEqual(self.learned(20, 4360, BLOCK_SIZES="5120:100"), [])
        self.assertEqual(self.learned(20, 4360, STATS="exit,full"), [])

    def test_sizes_in_one_class_each_get_theirs(self):
        self.assertEqual(self.learned(120, 4200, 4600, BLOCK_SIZES="auto"), [4208, 4608])
        self.assertEqual(self.learned(120, 1100, 2100, 9000), [1104, 2112, 9008])

    def test_rows_are_in_order_and_add_up(self):
        pools = self.pools(40, 4360, 600)
        sizes = [pool["block_size"] for pool in pools if pool["name"].startswith("malloc-")]
        self.assertEqual(sizes, sorted(sizes))
        self.assertGreater(sum(pool["used"] * pool["block_size"] for pool in pools), 40 << 20)

    def test_the_limit_holds(self):
        _, document = self.run_with_statistics("one_size", 40, 4360, LIMIT="16M")
        self.assertLessEqual(document["totals"]["committed_bytes"], 16 << 20)
        self.assertEqual([pool["block_size"] for pool in document["pools"] if pool["learned"]], [4368])

    def test_from_outside(self):
        process = subprocess.Popen([self.program("one_size"), "20", "4360"], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   env=harness.clean_environment(LD_PRELOAD=built.interposer))
        self.addCleanup(process.wait)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stdin.close)
        process.stdout.readline()
        pid = str(process.pid)
        document = json.loads(self.run_command([built.tool, "stat", pid, "--json"]).stdout)
        self.assertEqual([pool["block_size"] for pool in document["pools"] if pool["learned"]], [4368])
        self.assertRegex(self.run_command([built.tool, "stat", pid]).stdout, r"(?m)^malloc-4368 .* learned$")
        result = self.run_command([built.tool, "config", "--learned", pid])
        self.assert_silent(result)
        sizes = re.fullmatch(r"POOLMALLOC_BLOCK_SIZES=([\d,]+)\n", result.stdout)
        self.assertIn(4368, fixed_sizes(sizes[1]))
        self.assertEqual(fixed_sizes(sizes[1]), sorted(fixed_sizes(sizes[1])))
        environment = harness.clean_environment(POOLMALLOC_BLOCK_SIZES=sizes[1])
        self.assert_silent(self.run_command([built.tool, "config"], env=environment))

    def test_nothing_learned_is_said(self):
        process = subprocess.Popen([self.program("one_size"), "20", "4360"], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   env=harness.clean_environment(LD_PRELOAD=built.interposer, POOLMALLOC_BLOCK_SIZES="default"))
        self.addCleanup(process.wait)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stdin.close)
        process.stdout.readline()
        result = self.run_command([built.tool, "config", "--learned", str(process.pid)])
        self.assert_one_line(result, "learned no block sizes", status=1)

    def test_sizes_that_change_do_not_grow(self):
        result, document = self.run_with_statistics("drift", 60)
        first, second = map(int, result.stdout.split())
        self.assertLessEqual(second, first * 1.3)
        learned = [pool["block_size"] for pool in document["pools"] if pool["learned"]]
        self.assertTrue(0 < len(learned) <= 23, learned)
        fixed = int(self.run_preloaded("drift", 60, BLOCK_SIZES="default").stdout.split()[1])
        self.assertLessEqual(second, fixed * 1.1)

    def test_sizes_that_change_in_threads(self):
        for settings in ({}, {"CHECK": 1}, {"PURGE_DELAY": 0}, {"LIMIT": "12M"}):
            self.assert_silent(self.run_preloaded("drift", 12, 0, 4, **settings))


harness.main()
