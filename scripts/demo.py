"""demo.py BUILD: what scripts/demo shows, once all is built."""
import glob
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = 3
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


def show_pools(build, command, text):
    tool = os.path.join(build, "poolmalloc")
    subprocess.run([tool, "run", "--stats", "exit,full", "--", *command], input=text, text=True, check=True,
                   env={**os.environ, "PYTHONMALLOC": "malloc"})


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
            say(f"{name}: the pools at exit")
            show_pools(build, command, text)
        say("compared")
        same = [compare(name, command, text, allocators) for name, (command, text) in work.items()]
    sys.exit(0 if all(same) and same else 1)


main()
