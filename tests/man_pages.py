"""man_pages.py ROOT: neither man nor mandoc (where it is there) has anything to say against a page, and every function of the C API
has one that names it."""
import os
import pathlib
import re
import shutil
import subprocess
import sys

root = pathlib.Path(sys.argv[1])
pages = sorted((root / "man").iterdir())
commands = [["man", "--warnings", "-l"]] + ([["mandoc", "-Tlint", "-W", "warning"]] if shutil.which("mandoc") else [])
found = []
for page in pages:
    for command in commands:
        done = subprocess.run([*command, page], capture_output=True, text=True, check=False, env={**os.environ, "MANPAGER": "cat"})
        found += [f"{page.name}: {line}" for line in (done.stderr + (done.stdout if command[0] == "mandoc" else "")).splitlines()]
named = set()
for page in pages:
    named |= set(re.findall(r"\bpm_\w+", page.read_text().split(".SH NAME", 1)[1].split(".SH ", 1)[0]))
exports = re.search(r"global:(.*?)local:", (root / "src/preload/exports.map").read_text(), re.S).group(1)
declared = set(re.findall(r"\b(pm_\w+)\(", (root / "include/poolmalloc.h").read_text()))
found += [f"{name}() has no manual page" for name in re.findall(r"\bpm_\w+", exports) if name in declared - named]
print("\n".join(found) or f"{len(pages)} pages, {len(named)} functions")
sys.exit(bool(found))
