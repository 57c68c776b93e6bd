"""layers_breach.py SRC: layers.py passes SRC, and fails a copy of it in which one file includes what it may not."""
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
BREACHES = [  # a file, what it then includes, what is said of it
    ("pools/heap.c", "explicit/pool.h", "pools may include ground"),
    ("pools/heap.c", "insight/stats.h", "pools may include ground"),
    ("pools/heap.c", "preload/start.h", "pools may include ground"),
    ("ground/os_linux.c", "pools/class.h", "ground may include no other folder"),
    ("explicit/arena.c", "insight/who.h", "explicit may include ground, pools"),
    ("insight/api.c", "explicit/pool.h", "insight may include ground, pools"),
    ("pools/class.c", "pools/heap.h", "which comes after it"),
    ("pools/class.c", "pools/none.h", "which no storey has"),
]


def layers(src):
    return subprocess.run([sys.executable, HERE / "layers.py", *src], capture_output=True, text=True, check=False)


def breach_found(src, name, includes, said):
    file = src / name
    text = file.read_text()
    file.write_text(f'{text}#include "{includes}"\n')
    done = layers([src])
    file.write_text(text)
    line = f'{name}: includes '
    return done.returncode == 1 and any(line in found and includes in found and said in found for found in done.stdout.splitlines())


def main():
    for given in ([sys.argv[1]], []):
        done = layers(given)
        assert done.returncode == 0 and "pools" in done.stdout, f"layers.py {given} does not pass: {done.stdout}"
    with tempfile.TemporaryDirectory() as folder:
        src = pathlib.Path(folder) / "src"
        shutil.copytree(sys.argv[1], src)
        missed = [b[:2] for b in BREACHES if not breach_found(src, *b)]
        (src / "pools" / "unlisted.h").touch()
        assert "is not in README.md's list" in layers([src]).stdout
    assert not missed, f"not found: {missed}"


main()
