"""layers.py SRC: each file's opening comment names its layer; a file includes only files of lower layers
(a .c file also its own header, which has the same layer). Exit status 1 and a line for each breach."""
import pathlib
import re
import sys


def layer_of(path):
    found = re.match(r"/\* \S+: layer (\d+)\.", path.read_text())
    return int(found.group(1)) if found else None


def breaches(src):
    files = sorted([*src.glob("*.c"), *src.glob("*.h")])
    layers = {"base.h": 0, **{f.name: layer_of(f) for f in files if f.name != "base.h"}}
    for f in files:
        if layers[f.name] is None:
            yield f"{f.name}: its first line names no layer"
            continue
        for name in re.findall(r'^#include "([^"]+)"', f.read_text(), re.M):
            own = name.rsplit(".")[0] == f.name.rsplit(".")[0] or (name, f.name) == ("os.h", "os_linux.c")
            if name.endswith(".def"):
                continue
            if name not in layers:
                yield f"{f.name}: includes {name}, which is not here"
            elif layers[name] is not None and layers[name] >= layers[f.name] and not own:
                yield f"{f.name} (layer {layers[f.name]}) includes {name} (layer {layers[name]})"


found = list(breaches(pathlib.Path(sys.argv[1])))
print("\n".join(found) or "every file includes lower layers only")
sys.exit(bool(found))
