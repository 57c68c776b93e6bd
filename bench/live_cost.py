#!/usr/bin/env python3
"""What `poolmalloc stat` costs the process that it looks at.

redis-server serves the same requests again and again, in pairs: with stat looking every 100 ms, and without, in turns. Prints
the server's own CPU time per request and the requests a second, each as the median of the pairs' ratios.
"""
import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--build", default="build", help="build folder (default: %(default)s)")
parser.add_argument("--pairs", type=int, default=15)
parser.add_argument("--requests", type=int, default=400000, help="a round (default: %(default)s)")
parser.add_argument("--every", default="0.1", help="seconds between two looks (default: %(default)s)")
options = parser.parse_args()


def cpu_seconds(pid):
    with open("/proc/%d/stat" % pid, encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(socket, requests):
    began = time.monotonic()
    subprocess.run(["redis-benchmark", "-s", socket, "-t", "set", "-n", str(requests), "-r", "200000", "-d", "100", "-P", "16", "-q"],
                   check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def measure(server, socket, watched):
    watcher = None
    if watched:
        watcher = subprocess.Popen([os.path.join(options.build, "poolmalloc"), "stat", str(server.pid), "--json", "--watch",
                                    options.every], stdout=subprocess.DEVNULL)
    before = cpu_seconds(server.pid)
    seconds = load(socket, options.requests)
    cpu = cpu_seconds(server.pid) - before
    if watcher:
        watcher.kill()
        watcher.wait()
    return cpu, seconds


def tell(what, pairs, column):
    ratios = sorted(with_stat[column] / without[column] for with_stat, without in pairs)
    print("%-28s median of %d pairs %.3f, quartiles %.3f to %.3f" %
          (what, len(ratios), statistics.median(ratios), ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]))


folder = tempfile.mkdtemp()
socket_path = os.path.join(folder, "socket")
library = os.path.abspath(os.path.join(options.build, "libpoolmalloc.so"))
server_process = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", socket_path, "--save", "", "--dir", folder],
                                  env={**os.environ, "LD_PRELOAD": library}, stdout=subprocess.DEVNULL)
try:
    while not os.path.exists(socket_path):
        time.sleep(0.1)
    load(socket_path, options.requests)
    measured = []
    for pair in range(options.pairs):
        order = (True, False) if pair % 2 else (False, True)
        both = {watched: measure(server_process, socket_path, watched) for watched in order}
        measured.append((both[True], both[False]))
    tell("server's CPU per request", measured, 0)
    tell("time for the requests", measured, 1)
finally:
    server_process.terminate()
    server_process.wait()
    shutil.rmtree(folder)
