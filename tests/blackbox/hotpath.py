"""Counts the instructions of malloc's and free's hit path in the built library, from the disassembly (x86-64).

The hit path is a way through the function from its entry to a `ret` that neither calls nor jumps out of the function:
whatever leaves is slow by definition. Where there are several such ways the longest is judged, without going round a
loop. Usage: hotpath.py LIBRARY [--malloc N] [--free N]; without limits it only prints.
"""
import argparse
import re
import subprocess
import sys

INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(.*\S)")
LEAVES = ("call", "lcall", "hlt", "ud2", "int3", "syscall")


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def function_extent(library, name):
    """Address and size, from the dynamic symbols: the disassembler may know the place by an alias only."""
    for line in output("readelf", "-W", "--dyn-syms", library).splitlines():
        fields = line.split()
        if len(fields) >= 8 and fields[3] == "FUNC" and fields[6] != "UND" and fields[7].split("@")[0] == name:
            return int(fields[1], 16), int(fields[2], 0)
    sys.exit("FAILED: no function %s in %s" % (name, library))


def disassemble(library, name):
    """[(address, text)] of one function in order."""
    start, size = function_extent(library, name)
    text = output("objdump", "-d", "--no-show-raw-insn", "--start-address=%d" % start, "--stop-address=%d" % (start + size), library)
    code = [(int(found.group(1), 16), re.sub(r"\s*[#<].*", "", found.group(2)).strip())
            for found in map(INSTRUCTION.match, text.splitlines()) if found]
    if not code or code[0][0] != start:
        sys.exit("FAILED: cannot disassemble %s" % name)
    return code


def mnemonic(text):
    words = text.split()
    while words[0] in ("rep", "repz", "repnz", "bnd", "notrack", "lock", "cs", "ds", "data16") and len(words) > 1:
        words = words[1:]
    return words[0]


def jump_target(text):
    found = re.search(r"\s([0-9a-f]+)$", text)
    return int(found.group(1), 16) if found else None  # None: through a register or memory


def successors(code, index, at_address):
    """Indices of the instructions that may follow inside the function; None for one that leaves it."""
    name, text = mnemonic(code[index][1]), code[index][1]
    if name.startswith(LEAVES):
        return [None]
    if not name.startswith("j"):
        return [index + 1 if index + 1 < len(code) else None]
    target = at_address.get(jump_target(text))
    if name.startswith("jmp"):
        return [target]
    return [index + 1 if index + 1 < len(code) else None, target]


def hit_paths(code):
    """Every way from the entry to a return, as lists of indices."""
    at_address = {address: index for index, (address, _) in enumerate(code)}
    paths, pending = [], [[0]]
    while pending:
        path = pending.pop()
        if mnemonic(code[path[-1]][1]).startswith("ret"):
            paths.append(path)
            continue
        for follower in successors(code, path[-1], at_address):
            if follower is not None and follower not in path:
                pending.append(path + [follower])
        if len(pending) > 10000:
            sys.exit("FAILED: too many ways through the function for a fast path")
    return paths


def judge(library, name, limit):
    code = disassemble(library, name)
    paths = sorted(hit_paths(code), key=len)
    if not paths:
        sys.exit("FAILED: %s has no way to a return that stays inside" % name)
    longest = paths[-1]
    print("%s: hit path of %d instructions (%s)" % (name, len(longest), "limit %d" % limit if limit else "not judged"))
    for index in longest:
        print("    %x  %s" % code[index])
    if len(paths) > 1:
        print("  ways to a return: %s" % ", ".join(str(len(path)) for path in paths))
    return not limit or len(longest) <= limit


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("interposer")
    parser.add_argument("--malloc", type=int, default=0)
    parser.add_argument("--free", type=int, default=0)
    options = parser.parse_args()
    good = [judge(options.interposer, name, getattr(options, name)) for name in ("malloc", "free")]
    sys.exit(0 if all(good) else "FAILED: a hit path is longer than its limit")


if __name__ == "__main__":
    main()
