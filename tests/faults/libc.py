"""What the interposer asks of the C library fails: the n-th call of a function, once or from then on, for every n. The program ends
as if nothing had happened; only where there is no other malloc to be found does it end with the one line that says so.
Usage: libc.py INTERPOSER SHIM PROGRAM ARGUMENTS…
"""
import os
import subprocess
import sys
import tempfile

FUNCTIONS = ("dlsym", "pthread_key_create", "pthread_setspecific", "clock_gettime")
MOST = 40  # calls of one function that are looked at


def run(interposer, shim, command, fault, count=None):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("POOLMALLOC_", "LD_"))}
    environment.update({"LD_PRELOAD": "%s:%s" % (interposer, shim), "FAULT": fault})
    if count:
        environment["FAULT_COUNT"] = count
    return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def good(result):
    if result.returncode == 0 and result.stderr == "":
        return True
    return result.returncode == -6 and result.stderr == "poolmalloc: no other malloc in this process to forward to\n"


def main():
    interposer, shim, *command = sys.argv[1:]
    failures = total = 0
    for function in FUNCTIONS:
        with tempfile.NamedTemporaryFile() as file:
            if run(interposer, shim, command, function + ":0", file.name).returncode != 0:
                sys.exit("FAILED: %s, with nothing refused" % function)
            calls = os.path.getsize(file.name)
        for fault in ["%s:%d%s" % (function, n, on) for n in range(1, min(calls, MOST) + 1) for on in ("", "+")]:
            result = run(interposer, shim, command, fault)
            total += 1
            if not good(result):
                failures += 1
                print("FAILED: FAULT=%s: status %d, %r" % (fault, result.returncode, result.stderr[-300:]))
        print("%s: %d calls" % (function, calls))
    print("%d runs, %d failures" % (total, failures))
    return failures > 0 or total == 0


if __name__ == "__main__":
    sys.exit(main())
