"""check.py ROOT [--all]: what scripts/check looks at without building. A line for each finding; exit status 1 when there is one."""
import collections
import os
import pathlib
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(sys.argv[1]).resolve()
ALL = "--all" in sys.argv
WIDTH = 160          # columns; most lines have 120. Tests hold commands and programs as text:
WIDTH_TESTS = 190
LINES_MOST = 60      # of a function
SAME_MOST = 8        # lines that may stand twice, one after the other
TIDY = ["-Isrc", "-Itool", "-Iinclude", "-Ibuild/tool", "-D_GNU_SOURCE", "-std=gnu11", '-DPOOLMALLOC_LIB_FROM_BIN=".."', '-DPOOLMALLOC_SOVERSION="0"']


def files(*patterns):
    names = subprocess.run(["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns], capture_output=True,
                           text=True, check=True).stdout.split("\n")
    return [name for name in names if name and (ROOT / name).exists()]


def changed():
    """Against the branch that this one is to go to, and in the work tree."""
    base = subprocess.run(["git", "-C", ROOT, "merge-base", "HEAD", "origin/main"], capture_output=True, text=True, check=False).stdout.strip()
    return set(subprocess.run(["git", "-C", ROOT, "diff", "--name-only", base or "HEAD"], capture_output=True, text=True, check=False).stdout.split())


def format_findings():
    for name in files("*.c", "*.h", "*.cpp", "*.hpp", "*.cc", "*.py", "*.cmake", "*CMakeLists.txt", "scripts/*", "*.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        if text and not text.endswith("\n"):
            yield f"{name}: no end of line at its end"
        for number, line in enumerate(text.split("\n"), 1):
            if line != line.rstrip():
                yield f"{name}:{number}: blanks at the end of the line"
            if "\t" in line:
                yield f"{name}:{number}: a tab"
            if len(line) > (WIDTH_TESTS if name.startswith("tests/") else WIDTH) and not name.endswith(".md") and "http" not in line and "OPTION(" not in line:
                yield f"{name}:{number}: {len(line)} columns"


def functions(name):
    """(first line's number, name, lines) of each function, by the house's braces: { and } of a function stand in the first column."""
    lines = (ROOT / name).read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines):
        if line == "{" and number > 0:
            end = next((i for i in range(number, len(lines)) if lines[i].startswith("}")), number)
            head = re.findall(r"(\w+)\(", " ".join(lines[max(0, number - 3):number]))
            yield number, head[-1] if head else "?", end - number - 1


def length_findings():
    for name in files("src/*.c", "src/*.h", "tool/*.c", "bench/*.c"):
        for number, function, lines in functions(name):
            if lines > LINES_MOST:
                yield f"{name}:{number}: {function} has {lines} lines, more than {LINES_MOST}"


def duplicate_findings():
    """Runs of lines that stand twice in src and tool."""
    seen = collections.defaultdict(list)
    for name in files("src/*.c", "src/*.h", "tool/*.c", "tool/*.h"):
        lines = [(number, " ".join(line.split())) for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").split("\n"), 1)]
        lines = [(number, line) for number, line in lines if len(line) > 3 and not line.startswith(("#", "//", "/*", "*"))]
        for i in range(len(lines) - SAME_MOST):
            seen["\n".join(line for _, line in lines[i:i + SAME_MOST + 1])].append(f"{name}:{lines[i][0]}")
    told = set()
    for places in seen.values():
        if len(places) > 1 and places[0].split(":")[0] not in told:
            told.add(places[0].split(":")[0])
            yield f"{SAME_MOST + 1} lines stand twice: {', '.join(places)}"


def command_findings(*command):
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout.strip().split("\n") if done.returncode else []


def tool_findings(tool, *arguments):
    if not shutil.which(tool):
        print(f"({tool} is not there)")
        return []
    return command_findings(tool, *arguments)


def tidy_findings():
    if not shutil.which("clang-tidy"):
        print("(clang-tidy is not there)")
        return []
    near = changed()
    names = [name for name in files("src/*.c", "tool/*.c") if (ALL or name in near) and
             (name != "tool/pprof.c" or (ROOT / "build/tool/profile.pb-c.h").exists())]  # which a build writes

    def one(name):
        done = subprocess.run(["clang-tidy", "--quiet", name, "--", *TIDY], cwd=ROOT, capture_output=True, text=True, check=False)
        return [line.replace(f"{ROOT}/", "") for line in done.stdout.split("\n") if " warning: " in line or " error: " in line]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [line for found in pool.map(one, names) for line in found]


CHECKS = {
    "format": format_findings,
    "layers": lambda: command_findings("python3", "tests/layers.py", "src"),
    "lengths of functions": length_findings,
    "duplicates": duplicate_findings,
    "what is generated": lambda: command_findings("python3", "scripts/generate", "--check"),
    "shell scripts": lambda: tool_findings("shellcheck", "--severity=warning", *(
        name for name in files("scripts/*", ".ci/*", "debian/tests/smoke") if (ROOT / name).open("rb").read(2) == b"#!"
        and b"python" not in (ROOT / name).open("rb").readline())),
    "manual pages": lambda: tool_findings("mandoc", "-Tlint", "-W", "warning", *files("man/*")),
    "clang-tidy": tidy_findings,
}


def main():
    failed = 0
    for title, check in CHECKS.items():
        found = list(check())
        failed += bool(found)
        print(f"{'FAILED' if found else 'ok    '} {title}", *found, sep="\n  ", flush=True)
    sys.exit(bool(failed))


main()
