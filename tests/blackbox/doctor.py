"""`poolmalloc doctor`: programs on which the pools have no hold, a prepared one for each reason, and one on which they have."""
import os
import re
import shutil
import subprocess

import harness
from harness import Case, built

STAYS = """
#include <stdlib.h>
#include <unistd.h>
%s
int main(int argc, char **argv)
{
    for (int i = 0; i < 20000; i++)
        if (!malloc(24 + (size_t)i %% 700))
            return 1;
    (void)argv;
    BEFORE
    write(1, "there\\n", 6);
    return argc > 1 ? pause() : 0;
}
""".replace("\\\\", "\\")
FILTER = """
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int argc, char **argv) /* refuses mmap with MAP_FIXED_NOREPLACE to what it runs */
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)), BPF_JUMP(BPF_JMP | BPF_JEQ, SYS_mmap, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[3])), BPF_JUMP(BPF_JMP | BPF_JSET, 0x100000, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    (void)argc;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        return 77;
    return execv(argv[1], argv + 1);
}
"""
OWN_MALLOC = """
static char heap[1 << 25];
static size_t used;
void *malloc(size_t n) { used = (used + 15) & ~(size_t)15; void *p = heap + used; used += n; return p; }
void free(void *p) { (void)p; }
"""
PLUGIN = "#include <stdlib.h>\nvoid *volatile kept; void use(void) { kept = malloc(100); free(kept); kept = malloc(100); }\n"


class Doctor(Case):
    def compile(self, name, source, *flags):
        path = self.path(name + ".c")
        with open(path, "w", encoding="utf-8") as file:
            file.write(source)
        made = self.run_command([built.cc, "-O1", "-fno-builtin", "-w", path, "-o", self.path(name), *flags])
        self.assertEqual(made.returncode, 0, made.stderr)
        return self.path(name)

    def stays(self, name, *flags, declarations="", before=""):
        return self.compile(name, (STAYS % declarations).replace("BEFORE", before), *flags)

    def start(self, *command, preload=True, **more):
        environment = harness.clean_environment(**({"LD_PRELOAD": built.interposer} if preload is True else {"LD_PRELOAD": preload} if preload else {}),
                                                **more.pop("settings", {}))
        process = subprocess.Popen([*command, "stay"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **more)
        self.addCleanup(process.wait)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), b"there\n")
        return process

    def doctor(self, *arguments, **environment):
        return self.run_command([built.tool, "doctor", *map(str, arguments)], env=harness.clean_environment(**environment))

    def assert_not(self, pattern, *arguments, **environment):
        result = self.doctor(*arguments, **environment)
        self.assertRegex(result.stdout, "(?m)^  NOT +.*" + pattern)
        self.assertRegex(result.stdout, "\nin force: no\n$")
        self.assertEqual((result.returncode, result.stderr), (1, ""))

    def test_in_force(self):
        program = self.stays("well")
        result = self.doctor("--", program)
        self.assertRegex(result.stdout, r"(?s)ok +1 process recorded.*hint .*poolmalloc tune would save \d+.*\nin force: yes\n$")
        self.assertEqual(result.returncode, 0)
        process = self.start(program, settings={"POOLMALLOC_PURGE_DELAY": "5"})
        for asked in (process.pid, "well"):
            result = self.doctor(asked)
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            self.assertRegex(result.stdout, r"ok +pools serve it: \d+")
            self.assertRegex(result.stdout, r"ok +(\d+) of \1 objects that call malloc call the pools'")
            self.assertIn("set: POOLMALLOC_PURGE_DELAY=5", result.stdout)
        self.assertRegex(self.doctor("--", "python3", "-c", "import time; time.sleep(2)").stdout, "PYTHONMALLOC=malloc gives them to the pools")

    def test_by_way_of_the_program(self): # its stub is what malloc's address is, for the libraries too
        program = self.stays("fixed", "-no-pie", "-fno-pie", declarations="void *volatile kept[2];", before="kept[0] = malloc; kept[1] = free;")
        result = self.doctor(self.start(program).pid)
        self.assertRegex(result.stdout, r"ok +(\d+) of \1 objects that call malloc call the pools'\n(.*\n)*in force: yes\n$")
        self.assertEqual((result.returncode, result.stderr), (0, ""))

    def test_static(self):
        self.assert_not("static", "--", self.stays("static", "-static"))

    def test_privileged(self):
        if os.geteuid() != 0:
            self.skipTest("only root can make a setuid program")
        program = self.stays("setuid")
        os.chmod(self.scratch, 0o755)
        os.chmod(program, 0o4755)
        process = self.start(program, user=65534, group=65534, extra_groups=[])
        if os.statvfs(self.scratch).f_flag & os.ST_NOSUID:
            self.skipTest("the scratch directory is mounted nosuid")
        self.assert_not("AT_SECURE", process.pid)
        os.chown(program, 65534, 65534)
        os.chmod(program, 0o4755)
        self.assert_not("setuid", "--", program)

    def patched(self, change):
        program = self.stays("patched")
        with open(program, "rb") as file:
            content = bytearray(file.read())
        change(content)
        with open(program, "wb") as file:
            file.write(content)
        return program

    def test_another_machine_or_library(self):
        def machine(content):
            content[18:20] = (243).to_bytes(2, "little")

        def loader(content):
            at = content.index(b"/ld-linux")
            content[at + 1:at + 9] = b"ld-other"

        def narrow(content):
            content[4] = 1

        self.assert_not("built for RISC-V, and this library for", "--", self.patched(machine))
        self.assert_not("another C library", "--", self.patched(loader))
        self.assert_not("32 bits", "--", self.patched(narrow))

    def test_sanitizer(self):
        victim = self.program("victim_address")
        if not os.path.exists(victim):
            self.skipTest("the compiler has none")
        self.assert_not("sanitizer", "--", victim)

    def test_another_malloc(self):
        self.assert_not("a malloc is linked into it", "--", self.stays("own", "-rdynamic", declarations=OWN_MALLOC))
        hidden = re.sub(r"(?m)^void", '__attribute__((visibility("hidden"))) void', OWN_MALLOC)
        self.assert_not("hidden", "--", self.stays("hidden", declarations=hidden))

    def test_deepbind(self):
        plugin = self.compile("plugin.so", PLUGIN, "-shared", "-fPIC", "-Wl,-z,now")
        program = self.stays("host", "-D_GNU_SOURCE", "-ldl", declarations="#include <dlfcn.h>",
                             before='void (*use)(void) = dlsym(dlopen("%s", RTLD_NOW | RTLD_DEEPBIND), "use"); use();' % plugin)
        self.assert_not(r"plugin\.so calls malloc of .*libc", self.start(program, settings={"POOLMALLOC_DEEPBIND": "keep"}).pid)

    def test_seccomp(self):
        launcher, program = self.compile("filter", FILTER), self.stays("filtered")
        if self.run_command([launcher, "/bin/true"]).returncode == 77:
            self.skipTest("no seccomp filters here")
        self.assert_not("seccomp filter", self.start(launcher, program).pid)

    def test_wrong_path_or_none(self):
        program = self.stays("plain")
        self.assert_not("cannot be read", self.start(program, preload=self.path("libpoolmalloc.so")).pid)
        spaced = self.path("sp ace")
        os.mkdir(spaced)
        shutil.copy(built.interposer, spaced + "/libpoolmalloc.so")
        self.assert_not("a space or colon ends a name", self.start(program, preload=spaced + "/libpoolmalloc.so").pid)
        self.assert_not("did not name the library", self.start(program, preload=None).pid)

    def test_settings(self):
        program = self.stays("set")
        self.assert_not("POOLMALLOC_DISABLE", "--", program, POOLMALLOC_DISABLE="1")
        self.assert_not("PROGRAMS=other does not name set", "--", program, POOLMALLOC_PROGRAMS="other")
        self.assert_not("POOLMALLOC_DISABLE", self.start(program, settings={"POOLMALLOC_DISABLE": "1"}).pid)

    def test_usage(self):
        for arguments, status in (((), 2), (("--",), 2), (("--fly",), 2), (("no_such_name",), 2), (("--", "no_such_command"), 127),
                                  (("--", "/etc/passwd"), 126)):
            result = self.doctor(*arguments)
            self.assertEqual((result.returncode, result.stdout), (status, ""), arguments)
            self.assertTrue(re.match("poolmalloc: ", result.stderr), result.stderr)
        self.assertEqual(self.doctor(4194000).returncode, 1)


if __name__ == "__main__":
    harness.main()
