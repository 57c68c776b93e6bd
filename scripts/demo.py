"""demo.py BUILD: what scripts/demo shows, once all is built."""
import glob
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = 3
MIB = 1 << 20
PYTHON = """
class Node:
    def __init__(self, key, left, right):
        self.key, self.children, self.name = key, [left, right], "node %d" % key

table = {}
for generation in range(5):
    nodes = [Node(i, i * 2, i * 2 + 1) for i in range(150000)]
    nodes.sort(key=lambda node: node.name)
    table.update((node.name, node) for node in nodes[::3])
print(len(table))
"""
SQL = """
create table t(a integer primary key, b text, c real);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 300000)
  insert into t select i, 'text ' || (i * 7919 % 100003), i * 1.5 from n;
create index x on t(b);
select count(*), sum(c) from t where b like 'text 1%';
delete from t where a % 3 = 0;
select count(*) from t;
"""


def say(text):
    print("\n== " + text, flush=True)


def workloads(folder):
    """Name -> (command, text for its standard input)."""
    script = os.path.join(folder, "objects.py")
    with open(script, "w") as f:
        f.write(PYTHON)
    python = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
    return {"python3, 750,000 objects": ([python, script], ""), "sqlite3, 300,000 rows in memory": (["sqlite3", ":memory:"], SQL)}


def measure(command, text, preload):
    """One run: output, CPU seconds, wall seconds, peak MiB. env(1) execs the program, so that the peak is its own."""
    settings = ["PYTHONMALLOC=malloc"] + ([f"LD_PRELOAD={preload}"] if preload else [])
    with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile("w+") as printed:
        given.write(text)
        given.seek(0)
        begin = time.monotonic()
        child = subprocess.Popen(["env", *settings, *command], stdin=given, stdout=printed)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - begin
        printed.seek(0)
        if status != 0:
            sys.exit(f"demo: {command[0]} ended with status {child.returncode} (preload: {preload or 'none'})")
        return printed.read(), usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024


def watch(build, command, text):
    """The figures at the moment when most was in use, as `poolmalloc stat` sees them from outside."""
    tool = os.path.join(build, "poolmalloc")
    with tempfile.TemporaryFile("w+") as given:
        given.write(text)
        given.seek(0)
        child = subprocess.Popen([tool, "run", "--", *command], stdin=given, stdout=subprocess.DEVNULL,
                                 env={**os.environ, "PYTHONMALLOC": "malloc"})
        most = None
        while child.poll() is None:
            seen = subprocess.run([tool, "stat", str(child.pid), "--json"], capture_output=True, text=True, check=False)
            if seen.returncode == 0:
                figures = json.loads(seen.stdout)
                if most is None or figures["totals"]["used_bytes"] > most["totals"]["used_bytes"]:
                    most = figures
            time.sleep(0.05)
    return most


def show_pools(build, command, text):
    most = watch(build, command, text)
    if most is None:
        sys.exit(f"demo: {command[0]} was never seen on pools")
    pools = sorted((p for p in most["pools"] if p["used"]), key=lambda p: -p["used"] * p["block_size"])
    print(f"{'pool':14}{'blocks used':>12}{'of':>10}{'MiB in use':>12}   use")
    for pool in pools[:12]:
        use = pool["used"] / pool["capacity"]
        print(f"{pool['name']:14}{pool['used']:12}{pool['capacity']:10}{pool['used'] * pool['block_size'] / MIB:12.2f}   "
              f"{use:6.1%} {'#' * round(40 * use)}")
    totals = most["totals"]
    print(f"and {max(len(pools) - 12, 0)} pools more; all together {totals['used_bytes'] / MIB:.1f} MiB in use, "
          f"{totals['resident_bytes'] / MIB:.1f} MiB in memory")


def compare(name, command, text, allocators):
    results = {allocator: [] for allocator in allocators}
    for _ in range(ROUNDS):
        for allocator, library in allocators.items():
            results[allocator].append(measure(command, text, library))
    outputs = {run[0] for runs in results.values() for run in runs}
    print(f"{name}: {'all printed the same' if len(outputs) == 1 else 'OUTPUTS DIFFER'}")
    print(f"  {'':22}{'CPU s':>8}{'wall s':>8}{'peak MiB':>10}   (medians of {ROUNDS} interleaved runs)")
    for allocator, runs in results.items():
        cpu, wall, peak = (statistics.median(run[i] for run in runs) for i in (1, 2, 3))
        print(f"  {allocator:22}{cpu:8.2f}{wall:8.2f}{peak:10.1f}")
    return len(outputs) == 1


def main():
    build = os.path.abspath(sys.argv[1])
    allocators = {"poolmalloc": os.path.join(build, "libpoolmalloc.so"), "the C library": None}
    for path in glob.glob("/usr/lib/*/libjemalloc.so.2"):
        allocators["jemalloc"] = path
    with tempfile.TemporaryDirectory() as folder:
        work = {name: w for name, w in workloads(folder).items() if shutil.which(w[0][0])}
        for name, (command, text) in work.items():
            say(f"{name}: the pools when most is in use")
            show_pools(build, command, text)
        say("compared")
        same = [compare(name, command, text, allocators) for name, (command, text) in work.items()]
    say("next: README.md's first five minutes; `build/poolmalloc stat PROCESS --plot FILE.svg` draws a running program's pools")
    sys.exit(0 if all(same) and same else 1)


main()
