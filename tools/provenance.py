#!/usr/bin/env python3
"""Where the value at fault came from: heapcheck's answer against the truth of testdata/causes/provenance.cc.

    tools/provenance.py [--heapcheck FILE] [--csv FILE] [--show] [--case NAME]

Each case is built with -O0 and -O2, and runs with three allocators, alone and beside an overrun that nobody meets. Prints two
tables: the confusion matrix, and the ends of the chains. Needs a kernel that writes `core` into the working directory."""
import argparse
import collections
import json
import os
import pathlib
import resource
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIBRARIES = "/usr/lib/x86_64-linux-gnu"
ALLOCATORS = {"glibc": None, "gperftools": "libtcmalloc_minimal.so.4", "jemalloc": "libjemalloc.so.2"}
KINDS = {
    "uninitialised-use": "uninitialised",
    "dangling-reference": "freed",
    "use-after-free-write": "freed",
    "heap-overrun": "overrun",
    "heap-underrun": "overrun",
    "double-free": "refused",
    "invalid-free-entry": "refused",
    "misaligned-free-entry": "refused",
    "allocator-mismatch": "refused",
    "stack-overflow": "stack",
}


def died(program, arguments, library, folder):
    environment = dict(os.environ)
    if library:
        environment["LD_PRELOAD"] = f"{LIBRARIES}/{library}"
    unlimited = lambda: resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
    run = subprocess.run([program, *arguments], cwd=folder, env=environment, preexec_fn=unlimited, capture_output=True)
    truth = collections.defaultdict(list)
    for line in run.stdout.decode().splitlines():
        key, _, value = line.partition(" ")
        truth[key].append(value)
    cores = [path for path in pathlib.Path(folder).iterdir() if path.name.startswith("core")]
    return truth, cores[0] if cores else None


def answer(report):
    """The class that is told, the blocks and the words that are named, and the findings that are said to explain the crash."""
    yes = [finding for finding in report["findings"] if finding["explains_crash"] == "yes"]
    named = [finding for finding in report["findings"] if finding["kind"] in ("dangling-reference", "uninitialised-use")]
    came = report["crash_info"].get("came_from")
    blocks, words = set(), set()
    for finding in yes or named:
        for part in (finding["block"], finding["culprit"]):
            if part:
                blocks.add(part["address"])
        words.update(step["address"] for step in finding.get("causes", []) if step["address"])
    if came:
        words.add(came.get("address"))
        if came.get("block"):
            blocks.add(came["block"]["address"])
    if yes or named:
        kind = (yes or named)[0]["kind"]
        told = KINDS.get(kind, kind)
    elif came:
        told = "null" if int(came["value"], 16) < 0x10000 else "wild"
    else:
        told = "not told"
    return told, blocks, words, yes


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--heapcheck", default=ROOT / "target/debug/heapcheck")
    options.add_argument("--csv")
    options.add_argument("--show", action="store_true", help="each answer that is not right")
    options.add_argument("--case", default="", help="only cases whose names have this")
    options = options.parse_args()
    matrix, ends, rows = collections.Counter(), collections.Counter(), []
    with tempfile.TemporaryDirectory() as build:
        for level in ("-O0", "-O2"):
            program = f"{build}/program{level}"
            source = ROOT / "testdata/causes/provenance.cc"
            subprocess.run(["g++", "-g", "-w", level, "-pthread", "-o", program, source], check=True)
            names = subprocess.run(["grep", "-o", r"CASE([a-z_]*)", source], capture_output=True, text=True).stdout
            names = [name[5:-1] for name in names.split() if name != "CASE(it)"]
            for number, name in enumerate(names):
                if options.case not in name:
                    continue
                for allocator, library in ALLOCATORS.items():
                    for mode in ("alone", "beside"):
                        with tempfile.TemporaryDirectory() as folder:
                            more = ["beside"] if mode == "beside" else []
                            truth, core = died(program, [str(number), *more], library, folder)
                            if core is None:
                                continue  # this allocator does not mind
                            text = subprocess.run([options.heapcheck, core, program, "--format", "json"], capture_output=True)
                            report = json.loads(text.stdout)
                        is_class = truth["CLASS"][-1]
                        told, blocks, words, yes = answer(report)
                        is_end = any(block in blocks for block in truth["BLOCK"]) or any(word in words for word in truth["WORD"])
                        if not truth["BLOCK"] and not truth["WORD"]:
                            is_end = told == is_class or (is_class == "own" and not yes)
                        # An error is said to explain the crash, and it is another one.
                        expected = {"overrun": ("overrun", "freed"), "own": (), "null": (), "wild": ()}.get(is_class, (is_class,))
                        if is_class == "refused":
                            expected = ("refused",)
                        wrong = bool(yes) and told not in expected
                        if truth["BLOCK"] and yes and blocks and not any(block in blocks for block in truth["BLOCK"]):
                            wrong = True
                        kind = "own" if is_class == "own" and not yes else told
                        if mode == "alone":
                            matrix[is_class, kind] += 1
                        end = "wrong yes" if wrong else "named" if is_end else "not told"
                        ends[mode, end] += 1
                        rows.append((name, level, allocator, mode, is_class, kind, end))
                        if options.show and (end != "named" or kind != is_class):
                            print(f"{name} {level} {allocator} {mode}: {is_class}, told {kind}: {end}")
                            for finding in report["findings"]:
                                print(f"    {finding['kind']} {finding['explains_crash']}: {finding['message'][:230]}")
                            print(f"    came from {json.dumps(report['crash_info'].get('came_from'))[:300]}")
                            print(f"    truth {dict(truth)}")
    classes = list(dict.fromkeys(row[4] for row in rows))
    columns = classes + sorted({row[5] for row in rows} - set(classes))
    print("| truth | " + " | ".join(columns) + " |")
    print("|---|" + "---:|" * len(columns))
    for is_class in classes:
        print(f"| {is_class} | " + " | ".join(str(matrix[is_class, kind] or "") for kind in columns) + " |")
    for mode in ("alone", "beside"):
        counts = {end: ends[mode, end] for end in ("named", "not told", "wrong yes")}
        print(f"{mode}: {sum(counts.values())} crashes, {counts}")
    if options.csv:
        with open(options.csv, "w", encoding="utf-8") as file:
            print("case,level,allocator,mode,truth,told,end", file=file)
            for row in rows:
                print(",".join(row), file=file)


if __name__ == "__main__":
    main()
