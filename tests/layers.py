"""layers.py [SRC]: the storeys of SRC (src, if none is named) and the order of the files in each.

A folder includes only folders below it; explicit and insight do not know each other. A folder's README.md lists its files,
lowest first, in numbered lines; a file includes only files of lines before its own (a .c file also its own header).
Prints the storeys with their files and lines; exit status 1 and a line for each breach."""
import pathlib
import re
import sys

BELOW = {
    "ground": [],
    "pools": ["ground"],
    "explicit": ["ground", "pools"],
    "insight": ["ground", "pools"],
    "preload": ["ground", "pools", "explicit", "insight"],
}


def order_of(folder):
    """File name → its line's number in the folder's README."""
    lines = re.findall(r"^(\d+)\. (.*?):", (folder / "README.md").read_text(), re.M)
    return {name: int(number) for number, files in lines for name in re.findall(r"`([^`]+)`", files)}


def breaches(src):
    order = {name: order_of(src / name) for name in BELOW}
    for folder in BELOW:
        if len((src / folder / "README.md").read_text().splitlines()) > 20:
            yield f"{folder}/README.md has more than 20 lines"
        there = {f.name for f in (src / folder).iterdir()} - {"README.md"}
        for name in sorted(there ^ set(order[folder])):
            yield f"{folder}/{name}: " + ("is not in README.md's list" if name in there else "is listed in README.md, and is not here")
        for f in sorted((src / folder).glob("*.[ch]")):
            for to, name in re.findall(r'^#include "(?:(\w+)/)?([^"]+)"', f.read_text(), re.M):
                if name not in order.get(to, {}):
                    yield f"{folder}/{f.name}: includes \"{to}/{name}\", which no storey has"
                elif to != folder and to not in BELOW[folder]:
                    yield f"{folder}/{f.name}: includes {to}/{name}: {folder} may include {', '.join(BELOW[folder]) or 'no other folder'}"
                elif to == folder and order[folder][name] >= order[folder].get(f.name, 0) and order[folder][name] != order[folder].get(f.name):
                    yield f"{folder}/{f.name}: includes {to}/{name}, which comes after it"


def storeys(src):
    for folder in reversed(BELOW):
        files = sorted((src / folder).glob("*.[cdhm]*"), key=lambda f: (order_of(src / folder).get(f.name, 99), f.name))
        sizes = [(f.name, len(f.read_text().splitlines())) for f in files if f.name != "README.md"]
        print(f"{folder:9} {sum(n for _, n in sizes):5} lines: " + ", ".join(f"{name} {n}" for name, n in sizes))


root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent / "src"
found = list(breaches(root))
storeys(root)
print("\n".join(found) or "every file includes lower ones only")
sys.exit(bool(found))
