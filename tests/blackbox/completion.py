"""Completion in bash and zsh: commands, options, values, processes, as the help of the tool lists them."""
import os
import shutil
import subprocess

import harness
from harness import Case, built

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CASES = (
    (["sta"], {"stat"}),
    (["help", "do"], {"doctor"}),
    (["run", "--purge"], {"--purge-delay"}),
    (["run", "--hugepages", ""], {"auto", "always", "never"}),
    (["run", "--stats-format", "p"], {"prometheus"}),
    (["stat", "--pro"], {"--prometheus"}),
)


class Completion(Case):
    def shell(self, *command):
        environment = harness.clean_environment(PATH=os.path.dirname(built.tool) + os.pathsep + os.environ["PATH"])
        result = self.run_command(command, env=environment)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        return set(result.stdout.split())

    def bash(self, words):
        script = ('source "$1"; shift; COMP_WORDS=(poolmalloc "$@"); COMP_CWORD=$#; _poolmalloc; printf "%s\\n" "${COMPREPLY[@]}"')
        return self.shell("bash", "-c", script, "bash", os.path.join(ROOT, "completion/poolmalloc.bash"), *words)

    def test_bash(self):
        for words, expected in CASES:
            self.assertEqual(self.bash(words), expected, words)
        self.assertLessEqual({"run", "tune", "config", "active", "stat", "top", "doctor", "help"}, self.bash([""]))
        self.assertIn(str(os.getpid()), self.bash(["stat", str(os.getpid())]))

    def test_zsh(self):
        """Loaded as zsh does; what it would offer is taken from the functions that it calls."""
        if not shutil.which("zsh"):
            self.skipTest("no zsh")
        script = '''file=$1; shift; words=(poolmalloc "$@"); CURRENT=$#words; PREFIX=$words[CURRENT]
            compadd() { print -l -- ${(P)@[-1]} | grep -e "^$PREFIX" }
            _describe() { print -l -- ${${(P)@[-1]}%%:*} | grep -e "^$PREFIX" }
            _files() { true }; _normal() { true }; source $file'''
        for words, expected in CASES:
            self.assertEqual(self.shell("zsh", "-f", "-c", script, "zsh", os.path.join(ROOT, "completion/_poolmalloc"), *words), expected, words)


if __name__ == "__main__":
    harness.main()
