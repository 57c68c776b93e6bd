"""The command-line tool: run, config, active, and what it answers to wrong usage."""
import os
import re
import shutil
import signal
import subprocess

import harness
from harness import Case, built


class ToolCase(Case):
    def tool(self, *arguments, **environment):
        return self.run_command([built.tool, *arguments], env=harness.clean_environment(**environment))


class Tool(ToolCase):
    def test_version(self):
        result = self.tool("--version")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertRegex(result.stdout, r"^poolmalloc \d+\.\d+\.\d+\n$")

    def test_help(self):
        result = self.tool("--help")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        for command in re.findall(r"(?m)^  ([a-z]+)  ", result.stdout):
            if command == "help":
                continue
            texts = [self.tool(*words) for words in ((command, "--help"), (command, "-h"), ("help", command))]
            self.assertEqual([(text.returncode, text.stderr) for text in texts], [(0, "")] * 3)
            self.assertEqual(len({text.stdout for text in texts}), 1)
            self.assertRegex(texts[0].stdout, r"(?s)^Usage: poolmalloc %s\b.*\nExamples:\n  " % command)
        self.assertEqual({self.tool(*words).stdout for words in (("-h",), ("help",))}, {result.stdout})

    def test_what_may_have_been_meant(self):
        for arguments, meant in ((("statt",), "stat"), (("rnu",), "run"), (("run", "--limt", "1M", "--", "true"), "--limit"),
                                 (("stat", "--wacth", "1", "1"), "--watch"), (("tune", "--pool-s", "true"), "--pools")):
            result = self.tool(*arguments)
            self.assertEqual((result.returncode, result.stdout), (2, ""))
            self.assertRegex(result.stderr, "[Dd]id you mean '%s'" % meant)
        for command in (("config",), ("run", "--", "true")):
            result = self.tool(*command, POOLMALLOC_HUGEPAGE="auto")
            self.assertEqual(result.returncode, 2)
            self.assertIn("did you mean POOLMALLOC_HUGEPAGES", result.stderr)
        self.assertNotIn("mean", self.tool("elephant").stderr)

    def test_output_that_cannot_be_written(self):
        with open("/dev/full", "w", encoding="utf-8") as full:
            for arguments in (("--help",), ("--version",), ("config",), ("active", "1"), ("run", "--help")):
                done = subprocess.run([built.tool, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
                self.assertEqual(done.returncode, 1, arguments)
                self.assertIn("No space", done.stderr)

    def test_words_and_units_of_settings(self):
        for value, shown in (("yes", 1), ("true", 1), ("no", 0), ("false", 0), ("1", 1), ("0", 0)):
            self.assertIn(f"POOLMALLOC_PREFAULT={shown}\n", self.tool("config", POOLMALLOC_PREFAULT=value).stdout)
        for value, shown in (("64MiB", 64 << 20), ("64M", 64 << 20), ("1gib", None), ("2GiB", 2 << 30), ("16iB", None), ("KiB", None)):
            result = self.tool("config", POOLMALLOC_LIMIT=value)
            self.assertEqual(result.returncode, 0 if shown else 2, value)
            self.assertIn(f"POOLMALLOC_LIMIT={shown or 'none'}\n", result.stdout)

    def test_wrong_usage(self):
        for arguments in ((), ("fly",), ("--fly",), ("run",), ("run", "--"), ("run", "--fly", "--", "true"), ("run", "--limit"),
                          ("active", "not-a-pid"), ("config", "surplus")):
            result = self.tool(*arguments)
            self.assertEqual((result.returncode, result.stdout), (2, ""), arguments)
            self.assertNotEqual(result.stderr, "", arguments)


class Run(ToolCase):
    def run_tool(self, *arguments, **environment):
        return self.tool("run", *arguments, **environment)

    def test_the_command_runs_on_pools(self):
        result = self.run_tool("--", self.program("where"))
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "0 pool\n", ""))
        self.assertEqual(self.run_tool(self.program("where")).stdout, "0 pool\n")

    def test_an_existing_preload_is_kept_behind_ours(self):
        jemalloc = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2"
        result = self.run_tool("--", "sh", "-c", 'echo "$LD_PRELOAD"', LD_PRELOAD=jemalloc)
        entries = re.split("[ :]", result.stdout.strip())
        self.assertEqual(len(entries), 2, result.stdout)
        self.assertTrue(os.path.isabs(entries[0]) and entries[0].endswith("libpoolmalloc.so"), entries)
        self.assertEqual(entries[1], jemalloc)

    def test_options_are_settings(self):
        result = self.run_tool("--block-sizes", "64,128", "--limit", "1G", "--prefault", "--stats", "exit", "--", "env")
        self.assertEqual(result.returncode, 0, result.stderr)
        for line in ("POOLMALLOC_BLOCK_SIZES=64,128", "POOLMALLOC_LIMIT=1G", "POOLMALLOC_PREFAULT=1", "POOLMALLOC_STATS=exit"):
            self.assertIn(line + "\n", result.stdout)
        result = self.run_tool("--stats", "exit", "--", self.program("where"))  # env itself closes stderr before it ends
        self.assertRegex(result.stderr, "libc.so.6")

    def test_hardened(self):
        result = self.run_tool("--hardened", "--", "sh", "-c", 'echo "$LD_PRELOAD"')
        self.assertIn("libpoolmalloc-hardened.so", result.stdout)

    def test_a_path_that_ld_preload_cannot_name_is_refused(self):
        """The loader would cut it at the space or colon, and the command run without pools."""
        for name in ("sp ace", "co:lon"):
            folder = self.path(name)
            os.mkdir(folder)
            tool = shutil.copy(built.tool, folder)
            shutil.copy(built.interposer, os.path.join(folder, "libpoolmalloc.so"))
            for command in ("run", "tune"):
                result = self.run_command([tool, command, "--", "touch", self.path("started")], env=harness.clean_environment())
                self.assertNotIn(result.returncode, (0, -signal.SIGABRT))
                self.assertIn(name, result.stderr)
                self.assertFalse(os.path.exists(self.path("started")))

    def test_counts_name_the_program(self):
        """Children of the command must not pre-allocate again."""
        result = self.run_tool("--block-sizes", "64:100", "--", "env")
        self.assertIn("POOLMALLOC_PROGRAMS=env\n", result.stdout)
        self.assertNotIn("POOLMALLOC_PROGRAMS", self.run_tool("--", "env").stdout)

    def test_bad_settings_are_refused_before_the_command_starts(self):
        for arguments in (("--limit", "abc"), ("--block-sizes", "64,abc"), ("--stats", "nope")):
            result = self.run_tool(*arguments, "--", "touch", self.path("started"))
            self.assertEqual((result.returncode, result.stdout), (2, ""), arguments)
            self.assertNotIn("using", result.stderr)
            self.assertIn(arguments[1].split(",")[-1], result.stderr)
            self.assertFalse(os.path.exists(self.path("started")))
        self.assertEqual(self.run_tool("--", "true", POOLMALLOC_LIMIT="abc").returncode, 2)

    def test_exit_status(self):
        self.assertEqual(self.run_tool("--", "sh", "-c", "exit 33").returncode, 33)
        self.assertEqual(self.run_tool("--", self.path("missing")).returncode, 127)
        self.assertEqual(self.run_tool("--", self.scratch).returncode, 126)
        self.assertEqual(self.run_tool("--", "sh", "-c", "kill -TERM $$").returncode, -signal.SIGTERM)

    def test_arguments_pass_unchanged(self):
        result = self.run_tool("--", "printf", "%s|", "a b", "", "--limit", "-x", "*")
        self.assertEqual(result.stdout, "a b||--limit|-x|*|")


class Config(ToolCase):
    def test_effective_settings(self):
        result = self.tool("config", POOLMALLOC_LIMIT="64M", POOLMALLOC_BLOCK_SIZES="100,200", POOLMALLOC_OVERFLOW="fail")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertRegex(result.stdout, r"(?m)^POOLMALLOC_LIMIT=(64M|67108864)$")
        self.assertRegex(result.stdout, r"(?m)^POOLMALLOC_OVERFLOW=fail$")
        self.assertRegex(result.stdout, r"(?m)^\s*112\b")
        self.assertRegex(result.stdout, r"(?m)^\s*208\b")

    def test_every_variable_is_named(self):
        result = self.tool("config")
        for name in ("BLOCK_SIZES PREFAULT LOCK LIMIT OVERFLOW PURGE_DELAY HUGEPAGES STATS STATS_FORMAT STATS_FILE PROFILE CHECK "
                     "VERBOSE DISABLE").split():
            self.assertIn("POOLMALLOC_%s=" % name, result.stdout)

    def test_a_bad_setting_is_status_2(self):
        result = self.tool("config", POOLMALLOC_PURGE_DELAY="soon")
        self.assertEqual(result.returncode, 2)
        self.assertIn("POOLMALLOC_PURGE_DELAY", result.stderr)
        self.assertIn("soon", result.stderr)


class Active(ToolCase):
    def sleeper(self, **environment):
        process = subprocess.Popen(["sh", "-c", "echo; read line"], env=harness.clean_environment(**environment),
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(process.wait)
        self.addCleanup(process.stdin.close)
        self.addCleanup(process.stdout.close)
        process.stdout.readline()
        return str(process.pid)

    def test_of_itself(self):
        self.assertEqual(self.tool("active").returncode, 1)
        self.assertEqual(self.tool("active", LD_PRELOAD=built.interposer).returncode, 0)

    def test_of_a_process(self):
        self.assertEqual(self.tool("active", self.sleeper(LD_PRELOAD=built.interposer)).returncode, 0)
        self.assertEqual(self.tool("active", self.sleeper(LD_PRELOAD=built.hardened)).returncode, 0)
        self.assertEqual(self.tool("active", self.sleeper()).returncode, 1)

    def test_of_nobody(self):
        result = self.tool("active", "4194000")
        self.assertEqual(result.returncode, 1)


if __name__ == "__main__":
    harness.main()
