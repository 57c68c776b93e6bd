"""features_tested.py DOCUMENT: every row of its table that says "yes" of poolmalloc names a function that is there under tests/."""
import pathlib
import re
import sys

here = pathlib.Path(__file__).parent
rows = [[cell.strip() for cell in line.strip("|\n").split("|")]
        for line in pathlib.Path(sys.argv[1]).read_text(encoding="utf-8").splitlines() if line.startswith("|")][2:]
missing = [row[0] for row in rows if row[1] == "yes" and not (
    (named := re.fullmatch(r"`(\S+): (\w+)`", row[-1])) and (here / named[1]).exists()
    and re.search(rf"^\S.*\b{named[2]}[()]", (here / named[1]).read_text(encoding="utf-8"), re.MULTILINE))]
print("\n".join(f"no such test: {feature}" for feature in missing) or f"{len(rows)} features have their tests")
sys.exit(1 if missing or not rows else 0)
