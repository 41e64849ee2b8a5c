#!/usr/bin/env python3
"""How many of the blocks that a program has lost `heapcheck leaks` finds, and how many of those that it names are lost.

    tools/recall.py OUTDIR [--program PROGRAM] [--gigabytes 1,4] [--releases glibc-2.36,2.10,jemalloc-5.3.0]

A big heap is made by testdata/generate-heap.sh (6 million blocks to the gigabyte), in which one block in fifty was forgotten; the
program itself writes down which of them no other block holds. Cores lie in OUTDIR and go once they are read. A row for each goes to
standard output: release, bytes of the core, lost blocks, recall, precision, processor seconds, and what was missed or wrong.
"""

import argparse
import json
import os
import resource
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def truth(path):
    with open(path, "rb") as lost:
        data = lost.read()
    return {int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)}


def named(program, core, binary):
    """Addresses that are lost by what `leaks` says: definite and indirect ones."""
    command = [program, "leaks", "--blocks", "--format", "ndjson", core, binary]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        for line in process.stdout:
            record = json.loads(line)
            if "address" in record and "class" in record:
                found[int(record["address"], 16)] = record["class"]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return found, seconds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--program", default=os.path.join(ROOT, "target/release/heapcheck"))
    parser.add_argument("--gigabytes", default="1,4")
    parser.add_argument("--releases", default="glibc-2.36,2.10,jemalloc-5.3.0")
    parser.add_argument("--keep", action="store_true", help="leave the core of the last row")
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    out = os.path.abspath(options.out)
    print("release,core_bytes,lost,recall,precision,cpu_seconds,missed,wrong")
    for gigabytes in options.gigabytes.split(","):
        for release in options.releases.split(","):
            place = os.path.join(out, "heap")
            lost = os.path.join(out, "lost")
            millions = str(6 * float(gigabytes))
            subprocess.run(
                [os.path.join(ROOT, "testdata/generate-heap.sh"), place, gigabytes, millions, "--lost", lost],
                env=dict(os.environ, RELEASE=release),
                stdout=subprocess.DEVNULL,
                check=True,
            )
            core = os.path.join(place, "core")
            known = truth(lost)
            found, seconds = named(options.program, core, os.path.join(place, "binary"))
            said = {at for at, kind in found.items() if kind in ("definite", "indirect")}
            right = len(said & known)
            row = [
                release,
                os.path.getsize(core),
                len(known),
                f"{right / len(known):.6f}",
                f"{right / len(said):.6f}" if said else "0",
                f"{seconds:.1f}",
                " ".join(f"{at:#x}:{found.get(at, 'reachable')}" for at in sorted(known - said)[:8]),
                " ".join(f"{at:#x}" for at in sorted(said - known)[:8]),
            ]
            print(",".join(map(str, row)), flush=True)
            if not options.keep:
                os.remove(core)


if __name__ == "__main__":
    sys.exit(main())
