"""readme.py ROOT BUILD: every command of README.md and of the guides (in ```sh) runs and ends with 0, or is one of those below, which
would change the machine or take long and run here in another form. README.md has at most 200 lines, and links lead somewhere."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT, BUILD = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
INSTEAD = {
    "git clone … poolmalloc && cd poolmalloc": "git -C source rev-parse HEAD 2>/dev/null || test -f source/CMakeLists.txt",
    "cmake -S . -B build && cmake --build build -j 2": "test -x build/poolmalloc",
    "sudo cmake --install build": "cmake --install build --prefix $PWD/prefix && prefix/bin/poolmalloc run -- prefix/bin/poolmalloc active",
}


def commands(page):
    """Of each ```sh block, as one script: a command may use what one before it left."""
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        lines = [INSTEAD.get(re.sub(r"\s+#.*", "", line).strip(), line) for line in block.splitlines()]
        yield "\n".join(line if not line.startswith(("./scripts/", "dpkg-buildpackage")) else ": " + line for line in lines)


def failure(page, script):
    missing = [word for word in ("sqlite3", "redis-server", "gdb") if word in script and not shutil.which(word)]
    if missing:
        print(f"{page.name}: {', '.join(missing)} is not there")
        return None
    with tempfile.TemporaryDirectory() as folder:
        for name, target in (("build", BUILD), ("source", ROOT), ("scripts", ROOT / "scripts"), ("docs", ROOT / "docs"), ("tests", ROOT / "tests")):
            os.symlink(target, os.path.join(folder, name))
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("POOLMALLOC_", "LD_"))}
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", script + "\nkill $(jobs -p) 2>/dev/null || true"], cwd=folder, env=environment,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return None if done.returncode == 0 else f"{page.name}: exit status {done.returncode}\n{script}\n{done.stdout[-3000:]}"


def links(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http") and not (page.parent / target).exists():
            yield f"{page.name}: no {target}"


def main():
    found = [line for page in PAGES for line in links(page)]
    lines = len(PAGES[0].read_text(encoding="utf-8").splitlines())
    if lines > 200:
        found.append(f"README.md has {lines} lines")
    scripts = [(page, script) for page in PAGES for script in commands(page)]
    found += [line for page, script in scripts if (line := failure(page, script))]
    print("\n".join(found) or f"{len(scripts)} scripts of {len(PAGES)} pages run")
    sys.exit(bool(found) or not scripts)


main()
