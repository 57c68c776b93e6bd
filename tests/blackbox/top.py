"""`poolmalloc top`, in a terminal that tmux plays: what it shows, its keys, another size, and the end of what it looks at."""
import os
import re
import shutil
import subprocess
import time

import harness
from harness import Case, built


class Terminal(Case):
    def setUp(self):
        super().setUp()
        if not shutil.which("tmux"):
            self.skipTest("no tmux")
        if "without ncurses" in self.run_command([built.tool, "top"]).stderr:
            self.skipTest("built without ncurses")

    def tmux(self, *arguments):
        command = ["tmux", "-S", self.path("socket"), "-f", "/dev/null", *arguments]
        return self.run_command(command, env=harness.clean_environment(TERM="xterm", LC_ALL="C.UTF-8"))

    def open(self, *arguments, columns=100, rows=24):
        """top on a terminal; its exit status is shown when it ends."""
        command = "%s top --delay 0.2 %s; echo status $?; cat" % (built.tool, " ".join(map(str, arguments)))
        result = self.tmux("new-session", "-d", "-x", str(columns), "-y", str(rows), command)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.addCleanup(self.tmux, "kill-server")

    def press(self, key):
        self.tmux("send-keys", key)

    def screen(self):
        return self.tmux("capture-pane", "-p").stdout

    def wait_for(self, holds, what):
        """The screen, once it is as wanted. A terminal may be looked at while half a screen has reached it: whatever belongs to one
        screen is asked for at once, here."""
        screens = [""]

        def there():
            screens[0] = self.screen()
            return holds(screens[0])

        self.assertTrue(harness.eventually(there), "%s is not on the screen:\n%s" % (what, screens[0]))
        return screens[0]

    def expect(self, *patterns):
        return self.wait_for(lambda screen: all(re.search(pattern, screen) for pattern in patterns), repr(patterns))

    def start(self):
        process = subprocess.Popen([self.program("known_blocks"), "quiet"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   env=harness.clean_environment(LD_PRELOAD=built.interposer, POOLMALLOC_BLOCK_SIZES="default"))
        self.addCleanup(self.end, process)
        process.stdout.readline()
        return process

    def end(self, process):
        if not process.stdin.closed:
            process.stdin.close()
        process.wait(harness.PATIENCE)
        process.stdout.close()


class Top(Terminal):
    def test_one_process(self):
        process = self.start()
        self.open(process.pid)
        screen = self.expect("process %d known_blocks" % process.pid,
                             r"malloc-640 +640 +62 +12345 +12648 +0 +\d+K +97\.6% #+\.", r"\n q quit .*sort.*n name")
        self.assertNotRegex(screen, "Esc")

    def test_sorting(self):
        self.open(self.start().pid)
        self.expect("malloc-640", "n name")

        def names(screen):
            return re.findall(r"(?m)^malloc-(\d+)", screen)

        for key, in_order in (("u", lambda found: found[0] == "640"), ("n", lambda found: found == sorted(found)),
                              ("b", lambda found: found == sorted(found, key=int))):
            self.press(key)
            self.wait_for(lambda screen: len(names(screen)) > 1 and in_order(names(screen)), "the order of key " + key)

    def test_another_size(self):
        self.open(self.start().pid)
        self.expect("malloc-640")
        for columns, rows in ((40, 8), (1, 1), (200, 50), (80, 24)):
            self.tmux("resize-window", "-x", str(columns), "-y", str(rows))
            time.sleep(0.5)
        self.expect(r"(?m)^malloc-640 .*12345.*#\.?$", r"n name *\n*$")

    def test_the_end_of_the_process(self):
        process = self.start()
        self.open(process.pid)
        self.expect("malloc-640")
        self.end(process)
        self.expect("it has ended", "malloc-640 .*12345")
        self.press("q")
        self.expect("status 0")

    def test_filter_reverse_scroll_and_help(self):
        self.open(self.start().pid, rows=9)
        self.expect("malloc-640", "n name")

        def names(screen):
            return re.findall(r"(?m)^malloc-(\d+)", screen)

        before = names(self.expect("malloc-320 "))
        self.press("NPage")
        self.wait_for(lambda screen: names(screen) and names(screen)[0] != before[0], "the next page")
        self.press("Home")
        self.press("i")
        self.wait_for(lambda screen: names(screen) == sorted(names(screen), key=int, reverse=True) != [], "the order turned round")
        self.press("/")
        for letter in "640":
            self.press(letter)
        self.wait_for(lambda screen: names(screen) == ["640"] and "with: 640_" in screen, "the one pool")
        self.press("Enter")
        self.expect(r"1 of \d+ pools", "n name")
        self.press("?")
        self.expect("top: keys", "choose or scroll")
        self.press("x")
        self.wait_for(lambda screen: names(screen) == ["640"], "the pool again")
        self.press("/")
        self.press("Escape")
        self.wait_for(lambda screen: len(names(screen)) > 1, "all pools")

    def test_arguments_and_colours(self):
        process = self.start()
        self.open(columns=200)
        self.expect(r"(?m)^ *%d .*known_blocks$" % process.pid)
        self.press("a")
        self.expect(r"(?m)^ *%d .*known_blocks quiet$" % process.pid)
        self.assertIn("\x1b[1m\x1b[36m", self.tmux("capture-pane", "-p", "-e").stdout)

    def test_all_processes(self):
        processes = [self.start(), self.start()]
        self.open()
        for process in processes:
            self.expect(r"(?m)^ *%d .*known_blocks$" % process.pid)
        self.press("n")
        self.press("Enter")
        self.expect("Esc list")
        self.press("Escape")
        self.expect("processes on pools")
        self.end(processes[0])
        gone = r"(?m)^ *%d " % processes[0].pid
        self.wait_for(lambda screen: not re.search(gone, screen), "a list without the process that ended")
        self.press("q")
        self.expect("status 0")


class Sites(Terminal):
    def test_who_allocates(self):
        """w: the call stacks that hold most, until it is pressed again."""
        if "left out of this build" in self.run_command([built.tool, "who"]).stderr:
            self.skipTest("built without libdw, protobuf-c or zlib")
        process = subprocess.Popen([self.program("who_sites"), "server", "5", "600"], stdout=subprocess.PIPE,
                                   env=harness.clean_environment(LD_PRELOAD=built.interposer))
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        process.stdout.readline()
        self.open(process.pid, columns=160)
        self.assertNotIn("leak_one", self.expect("process %d who_sites" % process.pid))
        self.press("w")
        self.expect(r"±\S+ +leak_one < request < server < main")
        self.press("w")
        self.wait_for(lambda screen: "who_sites" in screen and "leak_one" not in screen, "the end of the call stacks")


class Errors(Case):
    def test_usage(self):
        for arguments in (("nonsense",), ("1", "2"), ("--delay", "0"), ("--delay", "x"), ("--fly",)):
            result = self.run_command([built.tool, "top", *arguments])
            if "without ncurses" in result.stderr:
                self.skipTest("built without ncurses")
            self.assertEqual((result.returncode, result.stdout), (2, ""), arguments)

    def test_no_such_process_or_terminal(self):
        for arguments, part in ((("4194000",), ""), ((str(os.getpid()),), ""), ((), "")):
            self.assert_one_line(self.run_command([built.tool, "top", *arguments]), part, status=1)


if __name__ == "__main__":
    harness.main()
