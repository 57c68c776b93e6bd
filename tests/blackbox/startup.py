"""What the pools cost a program that hardly uses them, in counts that no noise moves: page faults, mappings."""
import os
import statistics

import harness
from harness import Case, built, clean_environment

STARTS = 31
FAULTS_MOST = 20  # measured: 14, of which an empty object takes 6


class Startup(Case):

    def faults(self, **environment):
        counts = []
        for _ in range(STARTS):
            pid = os.posix_spawn("/bin/true", ["true"], clean_environment(**environment))
            _, status, usage = os.wait4(pid, 0)
            self.assertEqual(status, 0)
            counts.append(usage.ru_minflt)
        return statistics.median(counts)

    def test_page_faults(self):
        more = self.faults(LD_PRELOAD=built.interposer) - self.faults()
        self.assertGreater(more, 0)
        self.assertLessEqual(more, FAULTS_MOST)

    def test_mappings(self):
        """A program with little memory: slab records, heaps with free bits, slabs; one mapping of each."""
        lines = self.run_preloaded("/bin/cat", "/proc/self/maps").stdout.splitlines()
        self.assertTrue(any(built.interposer in line for line in lines))
        fields = [line.split() for line in lines]
        low, high = 2 ** 47 // 8, 2 ** 47 // 8 * 5  # where the pools lie: nothing of the kernel's own choice does
        pools = [f for f in fields if len(f) < 6 or f[5].startswith("[anon")]
        pools = [f for f in pools if low <= int(f[0].split("-")[0], 16) < high]
        self.assertEqual([f[1] for f in pools], ["rw-p"] * 3, "\n".join(lines))


if __name__ == "__main__":
    harness.main()
