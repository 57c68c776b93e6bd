"""compilers.py SOURCE...: each source compiles without a warning as C11, or as C++17 and C++20, with gcc and clang, and runs
linked with core, with core and the interposer preloaded, and linked with the interposer. The headers by themselves compile in
each language that they say, and name the one they need in others. A compiler that is not there is named.
Exit status 1 and a line for each failure; 77 when there is no compiler at all."""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

WARNINGS = "-O1 -Wall -Wextra -Wundef -Wshadow -Wconversion -Wpedantic -Werror".split()
LANGUAGES = {".c": (("gcc", "clang"), ("c11",)), ".cpp": (("g++", "clang++"), ("c++17", "c++20"))}

# Standard, header, what else is compiled, and what the compiler must say; None: nothing.
DESIGNATED = "pm_pool_options pool = {.struct_size = sizeof(pm_pool_options), .block_size = 64, .max_blocks = 5};\n" \
    "pm_arena_options arena = {.struct_size = sizeof(pm_arena_options), .limit = 64};\n"
USED = "void *f(pm_pool *p); void *f(pm_pool *p) { void *b = pm_pool_alloc(p); pm_pool_free(p, b); return b; }\n" \
    "void g(pm_arena *a); void g(pm_arena *a) { PM_ARENA_SCOPE(a); }\n"
HEADERS = ((("gcc", "clang"), "c", "h", (("c89", "", "needs C99"), ("c99", DESIGNATED + USED, None), ("gnu99", USED, None),
                                         ("c17", DESIGNATED + USED, None))),
           (("g++", "clang++"), "c++", "h", (("c++98", "", "needs C99"), ("c++11", USED, None), ("c++20", DESIGNATED + USED, None))),
           (("g++", "clang++"), "c++", "hpp", (("c++14", "", "needs C++17"), ("c++17", USED, None), ("c++20", DESIGNATED + USED, None))))


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


def header_failure(arguments, compiler, language, header, standard, text, complaint, level):
    command = [compiler, "-x", language, "-std=" + standard, *WARNINGS, level, "-I", arguments.include, "-c", "-", "-o", os.devnull]
    done = subprocess.run(command, input=f"#include <poolmalloc.{header}>\n{text}", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)
    good = complaint in done.stdout if complaint else done.returncode == 0
    return None if good else f"{' '.join(command)}, poolmalloc.{header}: {complaint or 'no complaint'} was expected\n{done.stdout}"


def header_failures(arguments):
    for compilers, language, header, cases in HEADERS:
        for compiler in filter(shutil.which, compilers):
            for case in cases:
                for level in ("-O0", "-O2"):
                    yield header_failure(arguments, compiler, language, header, *case, level)


def main():
    arguments = arguments_parse()
    wanted = [(compiler, standard, source) for source in arguments.sources
              for compilers, standards in [LANGUAGES[os.path.splitext(source)[1]]]
              for compiler in compilers for standard in standards]
    missing = {compiler for compiler, _, _ in wanted if not shutil.which(compiler)}
    wanted = [w for w in wanted if w[0] not in missing]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        failures = [f for f in pool.map(lambda w: first_failure(arguments, *w), wanted) if f]
    failures += filter(None, header_failures(arguments))
    print("\n".join(failures) or f"{len(wanted)} programs compiled and run")
    print(*(f"{compiler} is not there" for compiler in sorted(missing)), sep="\n", end="")
    sys.exit(1 if failures else 0 if wanted else 77)


main()
