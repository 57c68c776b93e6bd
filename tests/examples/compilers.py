"""compilers.py SOURCE...: each source compiles without a warning as C11, or as C++17 and C++20, with gcc and clang, and runs
linked with core, with core and the interposer preloaded, and linked with the interposer. A compiler that is not there is
named. Exit status 1 and a line for each failure; 77 when there is no compiler at all."""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

WARNINGS = "-O1 -Wall -Wextra -Wundef -Wshadow -Wconversion -Wpedantic -Werror".split()
LANGUAGES = {".c": (("gcc", "clang"), ("c11",)), ".cpp": (("g++", "clang++"), ("c++17", "c++20"))}


def arguments_parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="+")
    for name in ("--include", "--core", "--interposer"):
        parser.add_argument(name, required=True)
    return parser.parse_args()


def failure(command, **more):
    """What a command that failed printed; None after a success."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    return f"exit status {done.returncode}: {' '.join(command)}\n{done.stdout}" if done.returncode else None


def program_failures(arguments, compiler, standard, source, folder):
    shared = ["-L", os.path.dirname(arguments.interposer), "-lpoolmalloc", "-Wl,-rpath," + os.path.dirname(arguments.interposer)]
    program = os.path.join(folder, "program")
    compiled = os.path.join(folder, "object.o")
    yield failure([compiler, "-std=" + standard, *WARNINGS, "-I", arguments.include, "-c", source, "-o", compiled])
    yield failure([compiler, compiled, arguments.core, "-pthread", "-o", program])
    yield failure([program])
    yield failure([program], env={**os.environ, "LD_PRELOAD": arguments.interposer})
    yield failure([compiler, compiled, *shared, "-pthread", "-o", program])
    yield failure([program])


def first_failure(arguments, compiler, standard, source):
    """What follows from the first failure says nothing."""
    with tempfile.TemporaryDirectory() as folder:
        return next(filter(None, program_failures(arguments, compiler, standard, source, folder)), None)


def main():
    arguments = arguments_parse()
    wanted = [(compiler, standard, source) for source in arguments.sources
              for compilers, standards in [LANGUAGES[os.path.splitext(source)[1]]]
              for compiler in compilers for standard in standards]
    missing = {compiler for compiler, _, _ in wanted if not shutil.which(compiler)}
    wanted = [w for w in wanted if w[0] not in missing]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        failures = [f for f in pool.map(lambda w: first_failure(arguments, *w), wanted) if f]
    print("\n".join(failures) or f"{len(wanted)} programs compiled and run")
    print(*(f"{compiler} is not there" for compiler in sorted(missing)), sep="\n", end="")
    sys.exit(1 if failures else 0 if wanted else 77)


main()
