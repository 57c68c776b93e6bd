"""Many small misuses of memory, each a process of its own: `check` compares what the hardened library makes of each with what the
case says, and what the plain one reports of its samples; `table` prints who stops what.

    misuse.py check --programs DIR --interposer LIB --hardened LIB
    misuse.py table --programs DIR [--details] NAME=LIB[,SETTING=VALUE…] …     (LIB: none for the C library)
"""
import argparse
import concurrent.futures
import os
import re
import signal
import subprocess
import sys

SIZES = (8, 4096, 262144)

# Where the hardened library is to stop each case too, in whatever way: the least, no power of two, pools' largest blocks, beyond them.
MORE_SIZES = (1, 24, 1000, 40000, 70000, 3 << 20)

# Rows of the table: the classes of misuse, by how their cases' names begin; the first that fits counts.
CLASSES = (
    ("given back twice", "double_free|usable_size|delete_twice|delete_array_twice|delete_aligned_twice|two_owners|zero_freed_twice"),
    ("free where no block begins", "free_(?!of)|realloc_inner"),
    ("written before its beginning", "before_|string_before"),
    ("written past its end", "past_|new_past|new_aligned_past|new_nothrow_past|vector_past"),
    ("written to after it was freed", "written_|iterator_"),
    ("freed memory still reads as it was", "read_freed|read_after|virtual_call"),
    ("new memory reads old contents", "read_new|read_grown"),
    ("a freed block comes back", "reused_|zero_reused"),
    ("places that can be foretold", "places_"),
    ("a block of 0 bytes is used", "zero_"),
    ("new, delete, malloc, free mixed; sizes", "delete_|free_of|realloc_of_new|sized_free|aligned_free"),
    ("sizes that cannot be", "calloc_wraps|malloc_of_all|realloc_of_all"),
)


class Case:
    def __init__(self, program, line):
        self.program = program
        self.name, self.small, self.large, once = line.split("\t")
        self.sizes = SIZES[:1] if once == "1" else SIZES

    def expected(self, size):
        return self.large if size == SIZES[-1] else self.small


def environment_of(library, settings=()):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("POOLMALLOC_", "LD_", "MALLOC_"))}
    environment.update(setting.split("=", 1) for setting in settings)
    if library != "none":
        environment["LD_PRELOAD"] = library
    return environment


def cases_of(programs):
    for name in ("misuse_c", "misuse_cxx"):
        program = os.path.join(programs, name)
        listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=True, env=environment_of("none"))
        yield from (Case(program, line) for line in listed.stdout.splitlines())


def outcome(case, size, environment):
    """Words like those of a case's expectation, with the whole report."""
    done = subprocess.run([case.program, case.name, str(size)], capture_output=True, text=True, errors="replace", check=False,
                          stdin=subprocess.DEVNULL, env=environment)
    if done.returncode < 0:
        return signal.Signals(-done.returncode).name + " " + done.stderr
    return {0: "unseen", 1: "nothing"}.get(done.returncode, "exit %d %s" % (done.returncode, done.stderr))


def outcomes(cases, environment):
    """By case and size. Two at a time: each runs for some milliseconds."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        futures = {(case, size): pool.submit(outcome, case, size, environment) for case in cases for size in case.sizes}
    return {key: future.result() for key, future in futures.items()}


def is_as_expected(expected, got):
    """The signal, and the words in the first line of the report; or another of several such ends."""
    ends = (end.partition(" ") for end in expected.split("|"))
    return any(got.startswith(number) and words in got.split("\n", 1)[0] for number, _, words in ends)


def is_stopped(got):
    return got != "unseen"


REPORT = re.compile(r"SIG(?:ABRT|SEGV) poolmalloc: [\w: \[\]]+\(0x[0-9a-f]+\): .+\n"
                    r"poolmalloc: .+\n"
                    r"poolmalloc: thread \d+ of process \d+, called from( 0x[0-9a-f]+)+\n")


# What POOLMALLOC_GUARD tells in the plain library, where every block is a sample.
SAMPLED = (
    ("double_free", "SIGABRT poolmalloc: free", ": double free"),
    ("free_inner", "SIGABRT poolmalloc: free", ": no block begins there"),
    ("past_32", "SIGSEGV poolmalloc: access", ": used past its end"),
    ("written_then_malloc", "SIGSEGV poolmalloc: access", ": used after it was given back"),
    ("written_after_realloc", "SIGSEGV poolmalloc: access", ": used after it was given back"),
)


def is_misuse(case, size):
    """Half of one byte is none: a block is freed where it begins."""
    return size > 1 or not re.search("inner$|page_inside", case.name)


def check_more(options, cases):
    environment, widths = environment_of(options.hardened), [case for case in cases if len(case.sizes) > 1]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        futures = {(case.name, size): pool.submit(outcome, case, size, environment) for case in widths for size in MORE_SIZES
                   if is_misuse(case, size)}
    print("%d programs of other sizes" % len(futures))
    yield from ("%s %d: unseen" % key for key, future in futures.items() if not is_stopped(future.result()))


def check_samples(options, cases):
    environment = environment_of(options.interposer, ["POOLMALLOC_GUARD=1"])
    for name, begin, words in SAMPLED:
        case = next(case for case in cases if case.name == name)
        for size in SIZES[:2]:
            got = outcome(case, size, environment)
            first, _, rest = got.partition("\n")
            if not (first.startswith(begin) and words in first and "made by thread" in rest):
                yield "%s %d with GUARD: expected %s…%s, got %s" % (name, size, begin, words, got)
    done = subprocess.run([os.path.join(options.programs, "misuse_handler")], capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 7 or ": used after it was given back\n" not in done.stderr:
        yield "the program's own handler: exit status %d, %s" % (done.returncode, done.stderr)


def check(options):
    cases, bad = list(cases_of(options.programs)), []
    hardened = outcomes(cases, environment_of(options.hardened))
    for (case, size), got in hardened.items():
        if not is_as_expected(case.expected(size), got):
            bad.append("%s %d: expected %s, got %s" % (case.name, size, case.expected(size), got.strip()))
        elif got.startswith(("SIGABRT poolmalloc", "SIGSEGV poolmalloc")) and not REPORT.fullmatch(got):
            bad.append("%s %d: not the form of a report: %s" % (case.name, size, got.strip()))
    libc, plain = (outcomes(cases, environment_of(library)) for library in ("none", options.interposer))
    counts = [sum(map(is_stopped, ends.values())) for ends in (libc, plain)]
    print("%d programs: the C library stops %d, the plain library %d, the hardened one %d" %
          (len(hardened), *counts, sum(map(is_stopped, hardened.values()))))
    if counts[1] < counts[0]:
        bad.append("the plain library is weaker than the C library")
    bad += ["%s %d: the plain library does not see it" % (case.name, size) for (case, size), got in plain.items()
            if case.name.startswith("double_free_of_usual") and not is_stopped(got)]
    bad += check_more(options, cases)
    bad += check_samples(options, cases)
    print("\n".join(bad))
    return 1 if bad else 0


def cells(columns, rows, cases):
    """For each class and size: stopped of how many, for each column."""
    for title, pattern in rows:
        chosen = [case for case in cases if re.match(pattern, case.name)]
        cases = [case for case in cases if case not in chosen]
        for size in SIZES:
            keys = [(case, size) for case in chosen if size in case.sizes]
            if keys:
                yield title, size, len(keys), [sum(is_stopped(results[key]) for key in keys) for results in columns]


def table(options):
    cases, names, columns = list(cases_of(options.programs)), [], []
    for column in options.columns:
        name, _, rest = column.partition("=")
        library, *settings = rest.split(",")
        names.append(name)
        columns.append(outcomes(cases, environment_of(library, settings)))
    print("| misuse | bytes | programs | " + " | ".join(names) + " |\n| --- " + "| ---: " * (2 + len(names)) + "|")
    before = None
    for title, size, count, stopped in cells(columns, CLASSES, cases):
        print("| %s | %s | %d | %s |" % (title if title != before else "", format(size, ","), count, " | ".join(map(str, stopped))))
        before = title
    print("| **all** | | %d | %s |" % (len(columns[0]), " | ".join(str(sum(map(is_stopped, c.values()))) for c in columns)))
    for key in columns[0] if options.details else ():
        print("%s %d: %s" % (key[0].name, key[1], " | ".join(c[key].split("\n")[0] for c in columns)))
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    checks = commands.add_parser("check")
    checks.add_argument("--interposer", required=True)
    checks.add_argument("--hardened", required=True)
    checks.set_defaults(run=check)
    tables = commands.add_parser("table")
    tables.add_argument("--details", action="store_true", help="each case's end, too")
    tables.add_argument("columns", nargs="+", metavar="NAME=LIB[,SETTING=VALUE…]")
    tables.set_defaults(run=table)
    for command in (checks, tables):
        command.add_argument("--programs", required=True, help="folder of misuse_c and misuse_cxx")
    options = parser.parse_args()
    sys.exit(options.run(options))


if __name__ == "__main__":
    main()
