"""What the library writes is its own affair: no signal, no wait, no descriptor and no other folder of the program's."""
import os
import resource
import signal
import subprocess

import harness
from harness import Case, built

REPORT_ENDS = "remote frees"


class Isolated(Case):
    def environment(self, **settings):
        environment = harness.clean_environment(LD_PRELOAD=built.interposer)
        environment.update({"POOLMALLOC_" + name: value for name, value in settings.items()})
        return environment

    def run_as_it_is(self, command, *, before=None, **settings):
        """With the signals' defaults, as a shell would start it; `before` runs in the child."""
        return subprocess.run(command, env=self.environment(**settings), capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL, timeout=harness.PATIENCE, preexec_fn=before)

    def status_with_stderr(self, descriptor, **settings):
        return subprocess.run([self.program("where")], env=self.environment(**settings), stdout=subprocess.DEVNULL,
                              stderr=descriptor, check=False, timeout=harness.PATIENCE).returncode

    def python(self, text, *arguments, **settings):
        return self.run_as_it_is(["/usr/bin/env", "python3", "-c", text, *arguments], **settings)


class Signals(Isolated):
    def test_a_pipe_without_a_reader(self):
        for settings in ({"STATS": "exit"}, {"STATS": "exit", "STATS_FORMAT": "prometheus"}, {"VERBOSE": "1"}, {"LIMIT": "x"},
                         {"NONSENSE": "1"}, {"STATS": "exit", "STATS_FILE": "/nowhere/at/all"}):
            reader, writer = os.pipe()
            os.close(reader)
            self.assertEqual(self.status_with_stderr(writer, **settings), 0, settings)
            os.close(writer)

    def test_no_file_may_grow(self):
        def no_bytes():
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

        for settings in ({"STATS": "exit", "STATS_FILE": self.path("report")}, {"PROFILE": self.path("profile")}):
            result = self.run_as_it_is([self.program("where")], before=no_bytes, **settings)
            self.assert_one_line(result, *settings.values() if "PROFILE" in settings else (self.path("report"),))
        with open(self.path("errors"), "w", encoding="utf-8") as errors:
            limited = subprocess.run([self.program("where")], env=self.environment(STATS="exit"), stdout=subprocess.DEVNULL,
                                     stderr=errors, check=False, preexec_fn=no_bytes)
        self.assertEqual(limited.returncode, 0)

    def test_the_program_s_own_signals_stay(self):
        """What was pending before the report still is, and the mask is what it was."""
        text = ("import signal, os, ctypes\n"
                "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE, signal.SIGUSR2])\n"
                "os.kill(os.getpid(), signal.SIGPIPE)\n"
                "ctypes.CDLL(None).malloc_stats()\n"
                "assert signal.SIGPIPE in signal.sigpending()\n"
                "assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == {signal.SIGPIPE, signal.SIGUSR2}\n"
                "print('fine')\n")
        reader, writer = os.pipe()
        os.close(reader)
        result = subprocess.run(["/usr/bin/env", "python3", "-c", text], env=self.environment(), stdout=subprocess.PIPE,
                                stderr=writer, check=False)
        os.close(writer)
        self.assertEqual((result.returncode, result.stdout), (0, b"fine\n"))

    def test_own_handler(self):
        own = "import signal; signal.signal(signal.SIGUSR1, lambda *a: None)"
        self.assert_one_line(self.python(own, STATS="signal=USR1"), "POOLMALLOC_STATS", "handler of its own")
        self.assert_silent(self.python("pass", STATS="signal=USR1"))
        ignored = self.run_as_it_is([self.program("where")], before=lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
                                    STATS="signal=USR1")
        self.assert_one_line(ignored, "POOLMALLOC_STATS", "ignored")


class Waiting(Isolated):
    def test_a_fifo_without_a_reader(self):
        os.mkfifo(self.path("fifo"))
        result = self.run_as_it_is([self.program("where")], STATS="exit", STATS_FILE=self.path("fifo"))
        self.assert_one_line(result, "no reader")

    def test_a_fifo_with_a_reader(self):
        os.mkfifo(self.path("fifo"))
        with subprocess.Popen(["cat", self.path("fifo")], stdout=subprocess.PIPE, text=True) as cat:
            holder = os.open(self.path("fifo"), os.O_WRONLY)  # cat has it open by then
            self.assert_silent(self.run_as_it_is([self.program("where")], STATS="exit", STATS_FILE=self.path("fifo")))
            os.close(holder)
            self.assertIn(REPORT_ENDS, cat.stdout.read())

    def test_a_full_pipe(self):
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        try:
            while True:
                os.write(writer, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(writer, True)
        self.assertEqual(self.status_with_stderr(writer, STATS="exit"), 0)
        os.close(reader)
        os.close(writer)

    def test_children_hold_no_reader_up(self):
        """The reader of a program's stderr sees its end though a child lives on with a stderr of its own."""
        text = ("import os, time\n"
                "if os.fork() == 0:\n"
                "    null = os.open('/dev/null', os.O_RDWR)\n"
                "    for fd in 0, 1, 2: os.dup2(null, fd)\n"
                "    time.sleep(100000)\n"
                "os._exit(0)\n")
        with subprocess.Popen(["/usr/bin/env", "python3", "-c", text], env=self.environment(STATS="exit"), stderr=subprocess.PIPE,
                              start_new_session=True) as process:
            process.stderr.read()
            os.killpg(process.pid, signal.SIGKILL)


class Descriptors(Isolated):
    OPEN = "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd')))"

    def test_none_below_100(self):
        plain = eval(self.python(self.OPEN).stdout)
        with_report = eval(self.python(self.OPEN, STATS="exit").stdout)
        self.assertEqual(plain, [0, 1, 2, 3])
        self.assertEqual(with_report[:4], [0, 1, 2, 3])
        self.assertTrue(with_report[4:] and all(fd >= 100 for fd in with_report[4:]), with_report)
        for settings in ({"STATS": "full"}, {"STATS": "signal=USR1"}, {"PROFILE": self.path("profile")}):
            self.assertEqual(eval(self.python(self.OPEN, **settings).stdout), plain)

    def test_not_inherited(self):
        text = "import os; os.environ.pop('LD_PRELOAD'); os.execvp('ls', ['ls', '/proc/self/fd'])"
        self.assertEqual(self.python(text, STATS="exit").stdout.split(), ["0", "1", "2", "3"])

    def test_programs_that_close_stderr(self):
        for program in (["ls", "-d", "/"], ["sort", "/dev/null"], ["sleep", "0"], ["env", "true"]):
            self.assertIn(REPORT_ENDS, self.run_as_it_is(program, STATS="exit").stderr, program)
        self.assert_one_line(self.run_as_it_is(["ls", "-d", "/"], STATS="exit", STATS_FILE="/nowhere/at/all"), "cannot be opened")

    def test_standard_streams_by_name(self):
        for name in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
            result = self.run_as_it_is(["ls", "-d", "/"], STATS="exit", STATS_FILE=name)
            self.assertTrue(result.stdout.startswith("/\n"), name)
            self.assertIn(REPORT_ENDS, result.stdout)
            self.assert_silent(result)
        self.assertIn(REPORT_ENDS, self.run_as_it_is(["ls", "-d", "/"], STATS="exit", STATS_FILE="/dev/stderr").stderr)

    def test_a_program_that_closes_everything(self):
        """What it opens later is its own, whatever number it has."""
        text = ("import os, sys\n"
                "os.closerange(0, 1024)\n"
                "for n in range(200): os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n")
        for settings in ({}, {"STATS_FILE": "/dev/stdout"}, {"STATS_FILE": self.path("report")}):
            self.assertEqual(self.python(text, self.path("own"), STATS="exit", **settings).returncode, 0)
            self.assertEqual(os.path.getsize(self.path("own")), 0)
        with open(self.path("report"), encoding="utf-8") as report:
            self.assertIn(REPORT_ENDS, report.read())


class Names(Isolated):
    def test_relative_means_the_folder_at_start(self):
        os.mkdir(self.path("start"))
        os.mkdir(self.path("later"))
        text = "import os, sys; os.chdir(sys.argv[1]); os.fork() or os._exit(len(bytearray(1000)) & 0)"
        result = subprocess.run(["/usr/bin/env", "python3", "-c", text, self.path("later")], cwd=self.path("start"), check=False,
                                env=self.environment(STATS="exit", STATS_FILE="report", PROFILE="profile-%p"))
        self.assertEqual(result.returncode, 0)
        self.assertEqual(os.listdir(self.path("later")), [])
        names = os.listdir(self.path("start"))
        self.assertIn("report", names)
        self.assertGreaterEqual(len([name for name in names if name.startswith("profile-")]), 2, names)

    def test_a_misspelt_setting(self):
        for name, meant in (("LIMTI", "LIMIT"), ("STAT", "STATS"), ("BLOCKSIZES", "BLOCK_SIZES"), ("PURGE_DELAYS", "PURGE_DELAY")):
            result = self.run_as_it_is([self.program("where")], **{name: "1"})
            self.assert_one_line(result, "POOLMALLOC_%s: no such setting; did you mean POOLMALLOC_%s" % (name, meant))
        far = self.run_as_it_is([self.program("where")], SOMETHING_ELSE="1")
        self.assert_one_line(far, "POOLMALLOC_SOMETHING_ELSE: no such setting")
        self.assertNotIn("mean", far.stderr)


if __name__ == "__main__":
    harness.main()
