#!/usr/bin/env python3
"""What `poolmalloc stat` costs the process that it looks at.

redis-server serves requests without pause; in every other window of time stat looks at it every 100 ms. Prints the server's CPU
time per request, and requests a second: the median of the ratios of neighbouring windows, with and without.
"""
import argparse
import os
import re
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--build", default="build", help="build folder (default: %(default)s)")
parser.add_argument("--pairs", type=int, default=60, help="of windows (default: %(default)s)")
parser.add_argument("--window", type=float, default=1, help="seconds (default: %(default)s)")
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


def measure(server, path, watched):
    """CPU nanoseconds a request; requests a second."""
    watcher = None
    if watched:
        command = [os.path.join(options.build, "poolmalloc"), "stat", str(server.pid), "--json", "--watch", options.every]
        watcher = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    began, cpu, served = state(server, path)
    time.sleep(options.window)
    ended, cpu_after, served_after = state(server, path)
    if watcher:
        watcher.kill()
        watcher.wait()
    return (cpu_after - cpu) / (served_after - served), (served_after - served) / (ended - began)


def tell(what, pairs, column):
    ratios = sorted(watched[column] / alone[column] for watched, alone in pairs)
    print("%-24s with stat / without: %.4f (median of %d pairs; quartiles %.4f, %.4f)" %
          (what, statistics.median(ratios), len(ratios), ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]))


folder = tempfile.mkdtemp()
path = os.path.join(folder, "socket")
library = os.path.abspath(os.path.join(options.build, "libpoolmalloc.so"))
server = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--dir", folder],
                          env={**os.environ, "LD_PRELOAD": library}, stdout=subprocess.DEVNULL)
load = None
try:
    while not os.path.exists(path):
        time.sleep(0.1)
    command = ["redis-benchmark", "-s", path, "-t", "set", "-r", "200000", "-d", "100", "-P", "16", "-q"]
    subprocess.run([*command, "-n", "600000"], check=True, stdout=subprocess.DEVNULL)
    load = subprocess.Popen([*command, "-n", "100000000", "-l"], stdout=subprocess.DEVNULL)
    time.sleep(1)
    measured = []
    for pair in range(options.pairs):
        order = (True, False) if pair % 2 else (False, True)
        both = {watched: measure(server, path, watched) for watched in order}
        measured.append((both[True], both[False]))
    tell("CPU time per request", measured, 0)
    tell("requests a second", measured, 1)
finally:
    for process in (load, server):
        if process:
            process.terminate()
            process.wait()
    shutil.rmtree(folder)
