"""What the report says of the machine and the versions compared."""

import os
import platform
import re
import subprocess

from cases import ROOT


def file_read(path, default="unknown"):
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return default


def command_read(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def processor_name():
    found = re.search(r"model name\s*:\s*(.*)", file_read("/proc/cpuinfo", ""))
    return found.group(1) if found else platform.machine()


def commit():
    name = command_read("git", "-C", ROOT, "rev-parse", "--short", "HEAD") or "unknown"
    return name + (" with uncommitted changes" if command_read("git", "-C", ROOT, "status", "--porcelain") else "")


def versions(bench):
    packages = {a.name: a.package for a in bench.allocators if a.package}
    packages |= {name: name for name in ("sqlite3", "redis-tools", "lua5.4", "perl", "g++", "nodejs", "python3")
                 if any(c.kind == "program" for c in bench.cases)}
    found = {name: command_read("dpkg-query", "-W", "-f", "${Version}\\n", package).partition("\n")[0] for name, package in packages.items()}
    return ", ".join(f"{name} {version}" for name, version in found.items() if version) or "unknown (no dpkg)"


def describe(bench):
    memory = re.search(r"MemTotal:\s*(\d+)", file_read("/proc/meminfo", ""))
    huge = re.search(r"\[(\w+)\]", file_read("/sys/kernel/mm/transparent_hugepage/enabled", ""))
    settings = {k: v for k, v in os.environ.items() if k.startswith(("POOLMALLOC_", "MALLOC_", "MIMALLOC_", "TCMALLOC_", "GLIBC_TUNABLES"))}
    rows = {
        "Machine": f"{processor_name()}, {os.cpu_count()} processors, {int(memory.group(1)) >> 20 if memory else '?'} GiB",
        "Kernel": f"{platform.system()} {platform.release()}",
        "C library": os.confstr("CS_GNU_LIBC_VERSION") or "unknown",
        "Transparent huge pages": huge.group(1) if huge else "unknown",
        "Commit": commit(),
        "Versions": versions(bench),
    }
    if settings:
        rows["Settings in the environment"] = ", ".join(f"{k}={v}" for k, v in settings.items())
    return rows
