"""portability.py SOURCE [aarch64] [musl]: the library elsewhere. AArch64 by a cross compiler and qemu-user: unit tests, black-box
tests and models, told by the kernel's word that pages are of 4, 16 and 64 KiB. musl by musl-gcc: the same programs, on its libc."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(sys.argv[1]).resolve()
JOBS = str(os.cpu_count())
BLACKBOX = ["errors", "sizes", "zeroing", "reallocs", "libc_callers", "operators", "operators_replaced", "model 1000000 4", "tsd_late",
            "atfork_handlers 20", "explicit_pools use", "explicit_pools misuse", "free_only", "first_call malloc thread",
            "first_call operator_new early"]
CXX = {"operators", "operators_replaced"}
UNIT = ["config", "explicit", "tune", "pool_model 50 500"]
GLIBC = {"errors"} # memalign rounds alignments up in glibc alone
# qemu answers mincore for pages of 4 KiB, whatever pages it promised: what counts resident pages runs with these alone
UNIT_COUNTING = ["cxx", "cxx_embedded", "pools", "stats", "model 200000", "model 20000 check"]
# The size of qemu's own memory is not the program's, and it adds a line of its own to an abort's. glibc's own success sets errno there.
QEMU_CANNOT = {"errors", "tsd_late", "explicit_pools misuse"}
failed = []


def run(*command, **more):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    if done.returncode:
        sys.exit(f"{done.stdout}\nportability.py: exit status {done.returncode}: {' '.join(map(str, command))}")


def build(folder, *options):
    print(f"== building {folder.name}", flush=True)
    run("cmake", "-S", SOURCE, "-B", folder, "-DPOOLMALLOC_WERROR=ON", "-DCMAKE_DISABLE_FIND_PACKAGE_Curses=ON", *options)
    run("cmake", "--build", folder, "-j", JOBS)


def check(title, *command, **environment):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env={**os.environ, **environment})
    good = done.returncode in (0, 77)
    print(f"{'ok    ' if good else 'FAILED'} {title}", flush=True)
    if not good:
        print(f"exit status {done.returncode}: {' '.join(map(str, command))}\n{done.stdout[-2000:]}")
        failed.append(title)


def aarch64():
    folder = SOURCE / "build-aarch64"
    build(folder, f"-DCMAKE_TOOLCHAIN_FILE={SOURCE}/cmake/aarch64-linux-gnu.cmake", "-DPOOLMALLOC_TESTS=ON")
    for page in (4096, 16384, 65536):
        qemu = ["qemu-aarch64", "-cpu", "cortex-a57", "-p", str(page)]  # without SVE, whose loads qemu 7.2 faults where pages are larger
        for test in UNIT + (UNIT_COUNTING if page == 4096 else []):
            check(f"aarch64, {page // 1024} KiB: unit_{test}", *qemu, *(folder / f"unit_{test}").__str__().split())
        for test in BLACKBOX:
            if test not in QEMU_CANNOT:
                check(f"aarch64, {page // 1024} KiB: {test}", *qemu, "-E", f"LD_PRELOAD={folder}/libpoolmalloc.so", "-E", "POOLMALLOC_CHECK="
                      + str(int("misuse" in test)), *f"{folder}/tests/blackbox/{test}".split())


def musl():
    folder = SOURCE / "build-musl"
    # Debian's musl-gcc does not look where the kernel's headers are; and there is no C++ compiler, which the tool takes
    flags = ["-idirafter", "/usr/include", "-idirafter", f"/usr/include/{os.uname().machine}-linux-gnu"]
    build(folder, "-DCMAKE_C_COMPILER=musl-gcc", "-DPOOLMALLOC_TOOL=OFF", f"-DCMAKE_C_FLAGS={' '.join(flags)}")
    with tempfile.TemporaryDirectory() as programs:
        for test in BLACKBOX:
            name, *arguments = test.split()
            if name in CXX | GLIBC: # there is no C++ library for musl here
                continue
            program = pathlib.Path(programs) / name
            if not program.exists():
                run("musl-gcc", "-O2", "-w", "-fno-builtin", *flags, "-include", SOURCE / "src/ground/os_malloc.h",
                    f"-I{SOURCE}/include", f"{SOURCE}/tests/blackbox/{name}.c", "-o", program,
                    "-pthread", f"-L{folder}", "-lpoolmalloc", f"-Wl,-rpath,{folder}")
            check(f"musl: {test}", program, *arguments, POOLMALLOC_CHECK=str(int("misuse" in test)))
        run("musl-gcc", "-fno-builtin", f"{SOURCE}/tests/blackbox/where.c", "-w", "-o", f"{programs}/where")
        check("musl: preloaded", "sh", "-c", f"LD_PRELOAD={folder}/libpoolmalloc.so {programs}/where | grep pool")


NEEDED = {aarch64: ("aarch64-linux-gnu-gcc", "qemu-aarch64"), musl: ("musl-gcc",)}
for part, programs in NEEDED.items():
    if sys.argv[2:] and part.__name__ not in sys.argv[2:]:
        continue
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        sys.exit(f"portability.py: {', '.join(missing)} is not there")
    part()
print(f"{len(failed)} failed" + "".join("\n  " + title for title in failed))
sys.exit(bool(failed))
