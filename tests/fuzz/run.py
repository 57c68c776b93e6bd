"""Runs a libFuzzer target for some seconds from its seeds, and says how much it did. An input that fails is printed, in
hexadecimal digits: add it to the seeds, which are one input a line.
Usage: run.py TARGET SEEDS [--seconds N] [--update]      --update: the seeds become the fewest inputs that reach as much
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile


def unpack(seeds, folder):
    os.mkdir(folder)
    with open(seeds, encoding="ascii") as file:
        for number, line in enumerate(file):
            with open(os.path.join(folder, "%04d" % number), "wb") as one:
                one.write(bytes.fromhex(line))


def contents(folder):
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as file:
            yield file.read()


def update(target, corpus, seeds, scratch):
    least = os.path.join(scratch, "least")
    os.mkdir(least)
    subprocess.run([target, "-merge=1", least, corpus], check=True, capture_output=True)
    with open(seeds, "w", encoding="ascii") as file:
        file.writelines(line + "\n" for line in sorted((data.hex() for data in contents(least)), key=lambda line: (len(line), line)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target")
    parser.add_argument("seeds")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="poolmalloc-fuzz-") as scratch:
        corpus, failed = os.path.join(scratch, "corpus"), os.path.join(scratch, "failed-")
        unpack(options.seeds, corpus)
        log = os.path.join(scratch, "log")
        with open(log, "wb") as file:
            # what is asked for and not touched is address space; memory that is used has its own limit
            status = subprocess.run([options.target, corpus, "-max_total_time=%d" % options.seconds, "-print_final_stats=1", "-max_len=1024", "-len_control=0",
                                     "-malloc_limit_mb=65536",
                                     "-artifact_prefix=" + failed], stdout=file, stderr=file, stdin=subprocess.DEVNULL, check=False).returncode
        with open(log, encoding="utf-8", errors="replace") as file:
            text = file.read()
        for name in os.listdir(scratch):
            if name.startswith("failed-"):
                with open(os.path.join(scratch, name), "rb") as file:
                    print("FAILED (%s): %s" % (name[7:].split("-")[0], file.read().hex()))
        if status != 0:
            sys.exit(text[-5000:])
        done = re.search(r"number_of_executed_units: (\d+)", text)
        reached = re.findall(r"cov: (\d+)", text)
        print("%s: %s executions, %s edges, %d inputs kept" % (os.path.basename(options.target), done.group(1) if done else "?",
                                                               reached[-1] if reached else "?", len(os.listdir(corpus))))
        if not done or int(done.group(1)) == 0:
            sys.exit("it did nothing:\n" + text[-3000:])
        if options.update:
            update(options.target, corpus, options.seeds, scratch)


if __name__ == "__main__":
    main()
