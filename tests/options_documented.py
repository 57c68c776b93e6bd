"""options_documented.py ROOT: every setting of src/options.def stands in the README and in the man page, with its default."""
import pathlib
import re
import sys

root = pathlib.Path(sys.argv[1])
names = re.findall(r"^OPTION\((\w+),", (root / "src/ground/options.def").read_text(), re.M)
missing = [
    f"POOLMALLOC_{name} is not in {page}"
    for page in ("README.md", "man/poolmalloc.7")
    for name in names
    if f"POOLMALLOC_{name}" not in (root / page).read_text().replace("\\", "")
]
print("\n".join(missing) or f"{len(names)} settings documented")
sys.exit(bool(missing) or not names)
