#!/usr/bin/env python3
"""What `poolmalloc stat` costs the process that it looks at.

redis-server serves requests without pause; in every other window of time stat looks at it every 100 ms. Prints the server's CPU
time per request, and requests a second: the median of the ratios of neighbouring windows, with and without.
"""
import argparse
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time

import statistic

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--build", default="build", help="build folder (default: %(default)s)")
parser.add_argument("--pairs", type=int, default=240, help="of windows (default: %(default)s)")
parser.add_argument("--window", type=float, default=0.5, help="seconds (default: %(default)s)")
parser.add_argument("--every", default="0.1", help="seconds between two looks (default: %(default)s)")
options = parser.parse_args()


def requests(path):
    """Served so far."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(b"INFO stats\r\n")
        return int(re.search(rb"total_commands_processed:(\d+)", connection.recv(16384)).group(1))


def state(server, path):
    with open("/proc/%d/schedstat" % server.pid, encoding="ascii") as file:
        return time.monotonic(), int(file.read().split()[0]), requests(path)


def watch(server):
    """stat, stopped until its turn comes."""
    command = [os.path.join(options.build, "poolmalloc"), "stat", str(server.pid), "--json", "--watch", options.every]
    watcher = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    time.sleep(0.5)
    watcher.send_signal(signal.SIGSTOP)
    return watcher


def measure(server, path, watcher, watched):
    """CPU nanoseconds a request; requests a second."""
    if watched:
        watcher.send_signal(signal.SIGCONT)
    began, cpu, served = state(server, path)
    time.sleep(options.window)
    ended, cpu_after, served_after = state(server, path)
    watcher.send_signal(signal.SIGSTOP)
    return (cpu_after - cpu) / (served_after - served), (served_after - served) / (ended - began)


def tell(what, pairs, column):
    ratios = [watched[column] / alone[column] for watched, alone in pairs]
    print("%-24s with stat / without: %.4f (median of %d pairs; 95 %%: %.4f to %.4f)" %
          (what, statistics.median(ratios), len(ratios), *statistic.interval(ratios)))


folder = tempfile.mkdtemp()
path = os.path.join(folder, "socket")
library = os.path.abspath(os.path.join(options.build, "libpoolmalloc.so"))
server = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--dir", folder],
                          env={**os.environ, "LD_PRELOAD": library}, stdout=subprocess.DEVNULL)
load = watcher = None
try:
    while not os.path.exists(path):
        time.sleep(0.1)
    command = ["redis-benchmark", "-s", path, "-t", "set", "-r", "200000", "-d", "100", "-P", "16", "-q"]
    subprocess.run([*command, "-n", "600000"], check=True, stdout=subprocess.DEVNULL)
    load = subprocess.Popen([*command, "-n", "100000000", "-l"], stdout=subprocess.DEVNULL)
    time.sleep(1)
    watcher = watch(server)
    measured = []
    for pair in range(options.pairs):
        order = (True, False) if pair % 2 else (False, True)
        both = {watched: measure(server, path, watcher, watched) for watched in order}
        measured.append((both[True], both[False]))
    if watcher.poll() is not None:
        raise SystemExit("live_cost: stat ended by itself")
    tell("CPU time per request", measured, 0)
    tell("requests a second", measured, 1)
finally:
    for process in (watcher, load, server):
        if process:
            process.kill()
            process.wait()
    shutil.rmtree(folder)
