"""consumers.py: what is installed serves users in every way: find_package, pkg-config, add_subdirectory, FetchContent; C and
C++; linked with core (dynamic, static, static-pie, LTO) and with the interposer; from a prefix that was chosen while installing
and moved since; from absolute folders; and uninstall leaves nothing."""
import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
PROGRAM = HERE / "consumer"
SOURCE = HERE.parent.parent
CORE_WAYS = {"core": [], "static": ["-static"], "static_pie": ["-static-pie", "-fPIE"], "lto": ["-flto", "-O2"]}
parser = argparse.ArgumentParser()
for option in ("build", "cc", "cxx"):
    parser.add_argument("--" + option, required=True)
built, rest = parser.parse_known_args()
VERSION = re.search(r"project\(poolmalloc VERSION (\S+)", (SOURCE / "CMakeLists.txt").read_text()).group(1)


def run(*command, **more):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    if done.returncode:
        raise AssertionError(f"exit status {done.returncode}: {' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in pathlib.Path(folder).rglob("*") if not path.is_dir())


class Consumers(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.scratch = pathlib.Path(scratch.name)

    def configure(self, source, folder, *options):
        run("cmake", "-S", source, "-B", folder, f"-DCMAKE_C_COMPILER={built.cc}", f"-DCMAKE_CXX_COMPILER={built.cxx}", *options)

    def assert_runs(self, *command, **environment):
        self.assertEqual(run(*command, env={**os.environ, **environment}), f"{VERSION} 3\n", command)

    def cmake_consumer(self, how, *options, shared=True):
        folder = self.scratch / how
        self.configure(PROGRAM, folder, f"-DHOW={how}", *options)
        run("cmake", "--build", folder, "-j", os.cpu_count())
        for language in ("c", "cpp"):
            for way in [*CORE_WAYS, *(["shared"] if shared else [])]:
                self.assert_runs(folder / f"{way}_{language}")

    def install_moved(self):
        """What is built, in a prefix that has moved since."""
        first, moved = self.scratch / "first", self.scratch / "moved"
        run("cmake", "--install", built.build, "--prefix", first)
        first.rename(moved)
        return moved

    def pkg_config(self, prefix, *words):
        folder = next(prefix.rglob("pkgconfig"))
        return run("pkg-config", *words, env={**os.environ, "PKG_CONFIG_PATH": str(folder)}).split()

    def test_find_package(self):
        self.cmake_consumer("find_package", f"-DCMAKE_PREFIX_PATH={self.install_moved()}")

    def test_pkg_config(self):
        prefix = self.install_moved()
        program = self.scratch / "program"
        core = self.pkg_config(prefix, "--cflags", "--libs", "--static", "poolmalloc-core")
        shared = self.pkg_config(prefix, "--cflags", "--libs", "poolmalloc")
        self.assertEqual(self.pkg_config(prefix, "--modversion", "poolmalloc"), [VERSION])
        libdir = self.pkg_config(prefix, "--variable=libdir", "poolmalloc")[0]
        for compiler, source in ((built.cc, "consumer.c"), (built.cxx, "consumer.cpp")):
            for way in CORE_WAYS.values():
                run(compiler, *way, PROGRAM / source, *core, "-o", program)
                self.assert_runs(program)
            run(compiler, PROGRAM / source, *shared, "-o", program)
            self.assert_runs(program, LD_LIBRARY_PATH=libdir)

    def test_add_subdirectory(self):
        self.cmake_consumer("add_subdirectory", f"-DSOURCE={SOURCE}")

    def test_fetch_content(self):
        self.cmake_consumer("fetch_content", f"-DSOURCE={SOURCE}", "-DPOOLMALLOC_INTERPOSER=OFF", shared=False)

    def test_core_alone_with_lto_in_absolute_folders(self):
        """As distributions configure; a later --prefix changes what is relative."""
        build, root, libdir = self.scratch / "build", self.scratch / "root", "/opt/pools/lib/some-arch"
        self.configure(SOURCE, build, "-DCMAKE_INSTALL_PREFIX=/opt/pools", f"-DCMAKE_INSTALL_LIBDIR={libdir}", "-DPOOLMALLOC_TOOL=OFF",
                       "-DPOOLMALLOC_INTERPOSER=OFF", "-DPOOLMALLOC_HARDENED=OFF", "-DCMAKE_C_FLAGS=-flto", "-DCMAKE_BUILD_TYPE=")
        run("cmake", "--build", build, "-j", os.cpu_count())
        run("cmake", "--install", build, env={**os.environ, "DESTDIR": str(root)})
        written = (root / libdir[1:] / "pkgconfig/poolmalloc-core.pc").read_text()
        self.assertNotIn(str(root), written)
        prefix = root / "opt/pools"
        self.assertEqual(os.path.realpath(self.pkg_config(prefix, "--variable=libdir", "poolmalloc-core")[0]), str(root) + libdir)
        self.assertEqual(os.path.realpath(self.pkg_config(prefix, "--variable=includedir", "poolmalloc-core")[0]), str(prefix / "include"))
        self.assertFalse([name for name in files_below(prefix) if ".so" in name or name.startswith("bin/")])
        names = run("nm", "-g", "--defined-only", root / libdir[1:] / "libpoolmalloc-core.a")
        self.assertEqual([line for line in names.splitlines() if re.search(" [A-Z] (?!pm_)", line)], [])
        self.cmake_consumer("find_core", f"-Dpoolmalloc_DIR={root}{libdir}/cmake/poolmalloc", shared=False)

    def test_uninstall_leaves_nothing(self):
        prefix = self.scratch / "prefix"
        run("cmake", "--install", built.build, "--prefix", prefix)
        installed = files_below(prefix)
        for name in ("include/poolmalloc.h", "bin/poolmalloc", "share/doc/poolmalloc/LICENSE", "share/man/man7/poolmalloc.7",
                     "share/man/man3/pm_pool_alloc.3", "share/man/man3/pm_arena_printf.3", "share/man/man5/poolmalloc-stats.5",
                     "share/bash-completion/completions/poolmalloc", "share/zsh/site-functions/_poolmalloc"):
            self.assertIn(name, installed)
        (prefix / "bin/other").write_text("not ours")
        run("cmake", "--build", built.build, "--target", "uninstall")
        self.assertEqual(files_below(prefix), ["bin/other"])
        self.assertEqual([str(path) for path in prefix.rglob("*poolmalloc*")], [])


if __name__ == "__main__":
    if not shutil.which("pkg-config"):
        sys.exit("consumers: pkg-config is not there")
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)
