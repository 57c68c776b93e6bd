"""The built objects: exactly the documented symbols, no dependency but the C library, and the link options that an
interposer needs."""
import glob
import os
import re

import harness
from harness import Case, built

FUNCTIONS = """malloc free calloc realloc aligned_alloc memalign posix_memalign valloc pvalloc malloc_usable_size cfree
    free_sized free_aligned_sized malloc_trim malloc_stats malloc_info mallinfo mallinfo2 mallopt dlopen""".split()

# operator new and delete: plain, array, nothrow, sized, aligned, and their combinations.
OPERATORS = """_Znwm _Znam _ZnwmRKSt9nothrow_t _ZnamRKSt9nothrow_t _ZnwmSt11align_val_t _ZnamSt11align_val_t
    _ZnwmSt11align_val_tRKSt9nothrow_t _ZnamSt11align_val_tRKSt9nothrow_t
    _ZdlPv _ZdaPv _ZdlPvRKSt9nothrow_t _ZdaPvRKSt9nothrow_t _ZdlPvm _ZdaPvm _ZdlPvSt11align_val_t _ZdaPvSt11align_val_t
    _ZdlPvSt11align_val_tRKSt9nothrow_t _ZdaPvSt11align_val_tRKSt9nothrow_t _ZdlPvmSt11align_val_t
    _ZdaPvmSt11align_val_t""".split()

# The C library's; the loader is where __tls_get_addr would come from.
NEEDED_MAY_BE = {"libc.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
TLS_BYTES = 64


class Objects(Case):
    def output(self, *command):
        result = self.run_command(command)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def symbols(self, path, *options):
        """name -> type letter, without version suffixes."""
        lines = [line.split() for line in self.output("nm", *options, path).splitlines() if " " in line]
        return {fields[-1].split("@")[0]: fields[-2] for fields in lines if len(fields) >= 2 and len(fields[-2]) == 1}

    def each_library(self):
        for path in (built.interposer, built.hardened):
            with self.subTest(library=os.path.basename(path)):
                yield path

    def test_exports_are_the_documented_list(self):
        expected = set(FUNCTIONS + OPERATORS)
        for path in self.each_library():
            exported = self.symbols(path, "-D", "--defined-only")
            versions = {name for name, kind in exported.items() if kind == "A"}  # a version node, if any
            names = set(exported) - versions
            self.assertEqual({name for name in names if not name.startswith("pm_")}, expected)
            self.assertIn("pm_stats_get", names)
            for name, kind in exported.items():
                self.assertNotEqual(kind, "i", name + " is an ifunc")

    def test_pool_functions_are_declared(self):
        text = ""
        for header in glob.glob(os.path.join(built.include, "*.h")):
            with open(header, encoding="utf-8") as file:
                text += file.read()
        exported = {name for name in self.symbols(built.interposer, "-D", "--defined-only") if name.startswith("pm_")}
        for name in exported:
            self.assertRegex(text, r"\b%s(\(| __attribute__)" % name)
        inline = set(re.findall(r"(?:static inline|PM_INLINE) .*?\b(pm_hand_\w+|pm_\w+_begin|pm_\w+_end)\(", text))
        inline |= set(re.findall(r"\b(pm_\w+)\(.*\) __asm__", text))  # other names of exported ones
        declared = set(re.findall(r"\b(pm_\w+)\(", text)) - inline
        self.assertEqual({name for name in declared if name not in exported and name.islower() and "_t" not in name[-2:]}, set())

    def test_both_libraries_export_the_same(self):
        first, second = (set(self.symbols(path, "-D", "--defined-only")) for path in (built.interposer, built.hardened))
        self.assertEqual(first, second)

    def test_needs_only_the_c_library(self):
        for path in self.each_library():
            needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", self.output("readelf", "-dW", path)))
            self.assertLessEqual(needed, NEEDED_MAY_BE)
            self.assertIn("libc.so.6", needed)

    def test_undefined_symbols_are_the_c_library_s(self):
        for path in self.each_library():
            for line in self.output("nm", "-D", "--undefined-only", path).splitlines():
                kind, name = line.split()[-2:]
                self.assertTrue(kind in "wv" or "@GLIBC_" in name, line)
                self.assertNotIn("__tls_get_addr", name, "dynamic TLS allocates at first use")
                self.assertNotRegex(name, r"^__libc_(malloc|free|calloc|realloc|memalign)", "skips a stacked allocator")

    def test_own_functions_are_bound_at_build_time(self):
        """But for those that a program may have replaced; each name that is looked up costs every program's start."""
        for path in self.each_library():
            own = set(self.symbols(path, "-D", "--defined-only"))
            named = re.findall(r"R_\S+(?:GLOB_DAT|JUMP_SLO\S*|_64|ABS64)\s+\S+ (\w+)", self.output("readelf", "-rW", path))
            self.assertEqual(own & set(named), {"malloc", "aligned_alloc", "free", "_Znwm", "_ZdlPv"})
            self.assertLessEqual(len(named), 40)

    def test_link_options(self):
        for path in self.each_library():
            dynamic = self.output("readelf", "-dW", path)
            flags = " ".join(re.findall(r"\((?:FLAGS|FLAGS_1)\)(.*)", dynamic))
            for flag in ("BIND_NOW", "NOW", "NODELETE", "STATIC_TLS"):
                self.assertRegex(flags, r"\b%s\b" % flag)
            self.assertNotIn("TEXTREL", dynamic)
            self.assertNotIn("(RPATH)", dynamic)
            self.assertNotIn("(RUNPATH)", dynamic)

    def test_segments(self):
        for path in self.each_library():
            segments = self.output("readelf", "-lW", path)
            self.assertNotIn("RWE", segments)
            self.assertIn("GNU_RELRO", segments)
            tls = re.search(r"^\s+TLS\s+\S+\s+\S+\s+\S+\s+\S+\s+(0x[0-9a-f]+)", segments, re.MULTILINE)
            self.assertIsNotNone(tls, "no thread-local storage: then where is the heap's pointer?")
            self.assertLessEqual(int(tls.group(1), 16), TLS_BYTES, "static TLS is scarce")

    def test_relocations(self):
        for path in self.each_library():
            relocations = self.output("readelf", "-rW", path)
            self.assertNotIn("IRELATIV", relocations)
            self.assertNotRegex(relocations, r"DTPMOD|TLSDESC", "thread-local storage is not initial-exec")

    def test_the_core_has_no_malloc(self):
        defined = self.symbols(built.core, "--defined-only", "--extern-only")
        self.assertEqual(set(defined) & set(FUNCTIONS + OPERATORS), set())
        self.assertIn("pm_stats_get", defined)

    def test_the_core_links_alone(self):
        """A program with its own malloc is not disturbed: the archive defines nothing outside its name space."""
        defined = self.symbols(built.core, "--defined-only", "--extern-only")
        foreign = [name for name in defined if not name.startswith("pm_")]
        self.assertEqual(foreign, [], "symbols that may clash with a program's own")


if __name__ == "__main__":
    harness.main()
